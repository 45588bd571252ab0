#include "kernels/norm/plan.h"

#include <cstdio>

#include "kernels/norm/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class NormPlan final : public Plan {
 public:
  NormPlan(const gtn_norm_desc& desc, const Kernel* kernel) : kernel_(kernel) {
    tiling_.n = desc.x.shape[1];
    tiling_.x_stride = desc.x.strides[0], tiling_.out_stride = desc.out.strides[0];
    tiling_.has_residual = desc.has_residual, tiling_.has_beta = desc.has_beta, tiling_.has_sum = desc.has_sum;
    tiling_.epsilon = desc.epsilon;
    tiling_.chunk = chunk_elements(
        tiling_.n, norm_element_bytes(element_bytes(desc.x.dtype), element_bytes(desc.out.dtype), desc.has_residual != 0,
                                      desc.has_beta != 0, desc.has_sum != 0));
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_norm_args& args = *static_cast<const gtn_norm_args*>(arguments);
    if (args.rows == 0) return GTN_OK;
    NormTiling tiling = tiling_;
    tiling.rows = args.rows;
    return launch_with(stream, kernel_, vector_blocks(*stream.device, args.rows), tiling, message, args.x, args.residual,
                       args.gamma, args.beta, args.out, args.sum);
  }

 private:
  const Kernel* const kernel_;
  NormTiling tiling_ = {};
};

// Of an element. LayerNorm: 2 for the mean, 4 for the centred sums, 4 for the last pass. RMSNorm: 2 and 2.
constexpr double kLayerFlops = 10;
constexpr double kRmsFlops = 4;

}  // namespace

bool norm_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status norm_plan(Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (desc.out.dtype == GTN_U8) return fail(message, GTN_UNSUPPORTED, "out: is U8, this backend does not quantize it yet");
  const bool layer = desc.kind == GTN_NORM_LAYER;
  char name[48];
  std::snprintf(name, sizeof name, "gatun_norm_%s_%s_%s", layer ? "layer" : "rms", type_name(desc.x.dtype),
                type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<NormPlan>(message, desc, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const bool has_residual = desc.has_residual != 0, has_beta = desc.has_beta != 0, has_sum = desc.has_sum != 0;
  const double n = static_cast<double>(desc.x.shape[1]), elements = static_cast<double>(desc.x.shape[0]) * n;
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype));
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  std::snprintf(name, sizeof name, "norm.%s.%s", layer ? "layer" : "rms", type_name(desc.x.dtype));
  name_kernel(info, name);
  info->flops = elements * ((layer ? kLayerFlops : kRmsFlops) + (has_residual ? 1 : 0) + (has_beta ? 1 : 0));
  info->bytes = elements * (x_size * (1 + has_residual + has_sum) + out_size) + 4.0 * n * (1 + has_beta);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
