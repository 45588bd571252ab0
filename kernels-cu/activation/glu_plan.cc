#include <cstdio>

#include "activation/kernels.h"
#include "activation/plan.h"
#include "backend/row_kernel.h"

namespace gatun::gpu {
namespace {

class GluPlan final : public Plan {
 public:
  explicit GluPlan(const gtn_glu_desc& desc) : desc_(desc) {
    dense_ = aligned_ = true;
    for (const gtn_tensor_desc* tensor : {&desc.gate, &desc.x, &desc.out}) {
      dense_ = dense_ && tensor->strides[0] == tensor->shape[1];
      aligned_ = aligned_ && tensor->strides[0] * element_bytes(tensor->dtype) % 16 == 0;
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    for (const int64_t n : {int64_t{1}, int64_t{1} << 20}) {
      for (const bool aligned : {false, true}) {
        const gtn_status status = prepare(device.index, kernel(n, aligned).kernel, 0, message);
        if (status != GTN_OK) return status;
      }
    }
    return GTN_OK;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_glu_args& args = *static_cast<const gtn_glu_args*>(arguments);
    int64_t rows = args.rows, n = desc_.gate.shape[1];
    if (rows == 0 || n == 0) return GTN_OK;
    bool aligned = is_aligned(args.gate) && is_aligned(args.x) && is_aligned(args.out);
    if (dense_) {
      // Rows that follow each other are one long row.
      n *= rows;
      rows = 1;
    } else {
      aligned = aligned && aligned_;
    }
    const GluKernel chosen = kernel(n, aligned);
    GluArgs to = {};
    to.gate = args.gate, to.x = args.x, to.out = args.out;
    to.gate_stride = desc_.gate.strides[0], to.x_stride = desc_.x.strides[0], to.out_stride = desc_.out.strides[0];
    to.rows = rows, to.n = n, to.activation = desc_.activation;
    to.blocks_across = (n + chosen.width - 1) / chosen.width;
    const Grid grid = {to.blocks_across * ((rows + chosen.height - 1) / chosen.height)};
    return launch(stream.queue, chosen.kernel, grid, chosen.threads, 0, to, message);
  }

 private:
  GluKernel kernel(int64_t n, bool aligned) const {
    return glu_kernel(type_index(desc_.gate.dtype), type_index(desc_.out.dtype), n, aligned);
  }

  const gtn_glu_desc desc_;
  bool dense_, aligned_;
};

// Operations of the formulas in gpu/math.h, as the activation alone counts them.
constexpr double kFlops[] = {0, 50, 34, 30, 1};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};

}  // namespace

bool glu_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<GluPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const double elements = static_cast<double>(desc.gate.shape[0]) * static_cast<double>(desc.gate.shape[1]);
  char name[40];
  std::snprintf(name, sizeof name, "glu.%s.%s", kNames[desc.activation], type_name(desc.gate.dtype));
  name_kernel(info, device, name);
  info->flops = elements * (kFlops[desc.activation] + 1);
  info->bytes = elements * static_cast<double>(2 * element_bytes(desc.gate.dtype) + element_bytes(desc.out.dtype));
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
