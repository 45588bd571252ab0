#include "activation/plan.h"

#include <cstdio>

#include "activation/kernels.h"
#include "backend/row_kernel.h"

namespace gatun::gpu {
namespace {

class ActivationPlan final : public Plan {
 public:
  explicit ActivationPlan(const gtn_activation_desc& desc)
      : desc_(desc),
        dense_(desc.has_bias == 0 && desc.x.strides[0] == desc.x.shape[1] && desc.out.strides[0] == desc.x.shape[1]),
        aligned_(desc.x.strides[0] * element_bytes(desc.x.dtype) % 16 == 0 &&
                 desc.out.strides[0] * element_bytes(desc.out.dtype) % 16 == 0) {}

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
    const gtn_activation_args& args = *static_cast<const gtn_activation_args*>(arguments);
    int64_t rows = args.rows, n = desc_.x.shape[1];
    if (rows == 0 || n == 0) return GTN_OK;
    bool aligned = is_aligned(args.x) && is_aligned(args.out) && is_aligned(args.bias);
    if (dense_) {
      // Without a bias, rows that follow each other are one long row.
      n *= rows;
      rows = 1;
    } else {
      aligned = aligned && aligned_;
    }
    const ActivationKernel chosen = kernel(n, aligned);
    ActivationArgs to = {};
    to.x = args.x, to.bias = static_cast<const float*>(args.bias), to.out = args.out;
    to.x_stride = desc_.x.strides[0], to.out_stride = desc_.out.strides[0];
    to.rows = rows, to.n = n, to.activation = desc_.activation;
    to.blocks_across = (n + chosen.width - 1) / chosen.width;
    const Grid grid = {to.blocks_across * ((rows + chosen.height - 1) / chosen.height)};
    return launch(stream.queue, chosen.kernel, grid, chosen.threads, 0, to, message);
  }

 private:
  ActivationKernel kernel(int64_t n, bool aligned) const {
    return activation_kernel(desc_.x.dtype == GTN_BF16, desc_.out.dtype == GTN_BF16, n, aligned);
  }

  const gtn_activation_desc desc_;
  const bool dense_, aligned_;
};

// Operations of the formulas in gpu/math.h, one for each addition, multiplication, division or comparison.
constexpr double kFlops[] = {0, 50, 34, 30, 1};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};

}  // namespace

bool activation_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status activation_plan(Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message) {
  auto created = make_plan<ActivationPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const double rows = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[1]);
  char name[40];
  std::snprintf(name, sizeof name, "activation.%s.%s", kNames[desc.activation], type_name(desc.x.dtype));
  name_kernel(info, device, name);
  info->flops = rows * n * (kFlops[desc.activation] + (desc.has_bias != 0 ? 1 : 0));
  info->bytes = rows * n * static_cast<double>(element_bytes(desc.x.dtype) + element_bytes(desc.out.dtype)) +
                (desc.has_bias != 0 ? 4 * n : 0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
