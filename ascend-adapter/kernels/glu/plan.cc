#include "kernels/glu/plan.h"

#include <cstdio>

#include "kernels/activation/plan.h"
#include "kernels/glu/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class GluPlan final : public Plan {
 public:
  GluPlan(const gtn_glu_desc& desc, const Kernel* kernel)
      : kernel_(kernel), bytes_(glu_element_bytes(element_bytes(desc.x.dtype), element_bytes(desc.out.dtype))) {
    tiling_.n = desc.x.shape[1];
    tiling_.gate_stride = desc.gate.strides[0], tiling_.x_stride = desc.x.strides[0], tiling_.out_stride = desc.out.strides[0];
    tiling_.activation = desc.activation;
    dense_ = tiling_.gate_stride == tiling_.n && tiling_.x_stride == tiling_.n && tiling_.out_stride == tiling_.n;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_glu_args& args = *static_cast<const gtn_glu_args*>(arguments);
    if (args.rows == 0 || tiling_.n == 0) return GTN_OK;
    GluTiling tiling = tiling_;
    tiling.rows = args.rows;
    if (dense_) {
      // Rows that follow each other are one long row.
      tiling.n *= args.rows;
      tiling.rows = 1;
    }
    tiling.chunk = chunk_elements(share(*stream.device, tiling.rows, tiling.n), bytes_);
    return launch_with(stream, kernel_, vector_blocks(*stream.device, chunks(tiling.rows, tiling.n, tiling.chunk)), tiling,
                       message, args.gate, args.x, args.out);
  }

 private:
  const Kernel* const kernel_;
  const int64_t bytes_;
  bool dense_;
  GluTiling tiling_ = {};
};

}  // namespace

bool glu_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  char name[48];
  std::snprintf(name, sizeof name, "gatun_glu_%s_%s", type_name(desc.x.dtype), type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<GluPlan>(message, desc, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const double elements = static_cast<double>(desc.x.shape[0]) * static_cast<double>(desc.x.shape[1]);
  std::snprintf(name, sizeof name, "glu.%s.%s", kActivationNames[desc.activation], type_name(desc.x.dtype));
  name_kernel(info, name);
  info->flops = elements * (kActivationFlops[desc.activation] + 1);
  info->bytes = elements * static_cast<double>(2 * element_bytes(desc.x.dtype) + element_bytes(desc.out.dtype));
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
