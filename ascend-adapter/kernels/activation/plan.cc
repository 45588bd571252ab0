#include "kernels/activation/plan.h"

#include <cstdio>

#include "kernels/activation/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class ActivationPlan final : public Plan {
 public:
  ActivationPlan(const gtn_activation_desc& desc, const Kernel* kernel)
      : kernel_(kernel),
        dense_(desc.has_bias == 0 && desc.x.strides[0] == desc.x.shape[1] && desc.out.strides[0] == desc.x.shape[1]),
        bytes_(activation_element_bytes(element_bytes(desc.x.dtype), element_bytes(desc.out.dtype), desc.has_bias != 0)) {
    tiling_.n = desc.x.shape[1];
    tiling_.x_stride = desc.x.strides[0], tiling_.out_stride = desc.out.strides[0];
    tiling_.activation = desc.activation, tiling_.has_bias = desc.has_bias;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_activation_args& args = *static_cast<const gtn_activation_args*>(arguments);
    if (args.rows == 0 || tiling_.n == 0) return GTN_OK;
    ActivationTiling tiling = tiling_;
    tiling.rows = args.rows;
    if (dense_) {
      // Without a bias, rows that follow each other are one long row.
      tiling.n *= args.rows;
      tiling.rows = 1;
    }
    tiling.chunk = chunk_elements(share(*stream.device, tiling.rows, tiling.n), bytes_);
    return launch_with(stream, kernel_, vector_blocks(*stream.device, chunks(tiling.rows, tiling.n, tiling.chunk)), tiling,
                       message, args.x, args.bias, args.out);
  }

 private:
  const Kernel* const kernel_;
  const bool dense_;
  const int64_t bytes_;
  ActivationTiling tiling_ = {};
};

}  // namespace

bool activation_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status activation_plan(Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message) {
  char name[48];
  std::snprintf(name, sizeof name, "gatun_activation_%s_%s", type_name(desc.x.dtype), type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<ActivationPlan>(message, desc, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const double n = static_cast<double>(desc.x.shape[1]), elements = static_cast<double>(desc.x.shape[0]) * n;
  std::snprintf(name, sizeof name, "activation.%s.%s", kActivationNames[desc.activation], type_name(desc.x.dtype));
  name_kernel(info, name);
  info->flops = elements * (kActivationFlops[desc.activation] + (desc.has_bias != 0 ? 1 : 0));
  info->bytes = elements * static_cast<double>(element_bytes(desc.x.dtype) + element_bytes(desc.out.dtype)) +
                (desc.has_bias != 0 ? 4 * n : 0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
