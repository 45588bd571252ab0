#include "norm/plan.h"

#include <cstdio>

#include "core/message.h"
#include "norm/kernels.h"

namespace gatun::gpu {
namespace {

class NormPlan final : public Plan {
 public:
  explicit NormPlan(const gtn_norm_desc& desc) : desc_(desc) {
    const int64_t x_bytes = desc.x.strides[0] * element_bytes(desc.x.dtype);
    const int64_t out_bytes = desc.out.strides[0] * element_bytes(desc.out.dtype);
    const bool rows_aligned = x_bytes % 16 == 0 && out_bytes % 16 == 0;
    for (int aligned = 0; aligned < 2; ++aligned) {
      kernel_[aligned] = norm_kernel(desc.kind == GTN_NORM_LAYER, desc.x.dtype == GTN_BF16, desc.out.dtype,
                                     desc.x.shape[1], aligned == 1 && rows_aligned);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    const gtn_status status = prepare(device.index, kernel_[0].kernel, kernel_[0].shared_bytes, message);
    return status != GTN_OK ? status : prepare(device.index, kernel_[1].kernel, kernel_[1].shared_bytes, message);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_norm_args& args = *static_cast<const gtn_norm_args*>(arguments);
    if (args.rows == 0) return GTN_OK;
    NormArgs to = {};
    to.x = args.x, to.residual = args.residual, to.out = args.out, to.sum = args.sum;
    to.gamma = static_cast<const float*>(args.gamma), to.beta = static_cast<const float*>(args.beta);
    to.scales = args.scales, to.zeros = args.zero_points;
    to.x_stride = desc_.x.strides[0], to.out_stride = desc_.out.strides[0];
    to.rows = args.rows, to.n = desc_.x.shape[1], to.epsilon = desc_.epsilon;
    bool aligned = true;
    for (const void* p : {to.x, to.residual, static_cast<const void*>(to.gamma), static_cast<const void*>(to.beta),
                          static_cast<const void*>(to.out), static_cast<const void*>(to.sum)}) {
      aligned = aligned && is_aligned(p);
    }
    return launch_rows(stream.queue, kernel_[aligned], args.rows, to, message);
  }

 private:
  const gtn_norm_desc desc_;
  RowKernel<NormArgs> kernel_[2];  // for pointers of any alignment, and for 16 bytes
};

// Of an element. LayerNorm: 2 for the mean, 4 for the centred sums, 4 for the last pass. RMSNorm: 2 and 2.
constexpr double kLayerFlops = 10;
constexpr double kRmsFlops = 4;
constexpr double kQuantizeFlops = 10;

}  // namespace

bool norm_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status norm_plan(Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<NormPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const bool layer = desc.kind == GTN_NORM_LAYER;
  const bool quantized = desc.out.dtype == GTN_U8;
  const bool has_residual = desc.has_residual != 0, has_beta = desc.has_beta != 0, has_sum = desc.has_sum != 0;
  const double n = static_cast<double>(desc.x.shape[1]), elements = static_cast<double>(desc.x.shape[0]) * n;
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype));
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  char name[40];
  std::snprintf(name, sizeof name, "norm.%s.%s%s", layer ? "layer" : "rms", type_name(desc.x.dtype), quantized ? ".int8" : "");
  name_kernel(info, device, name);
  info->flops = elements * ((layer ? kLayerFlops : kRmsFlops) + (has_residual ? 1 : 0) + (has_beta ? 1 : 0) + (quantized ? kQuantizeFlops : 0));
  info->bytes = elements * (x_size * (1 + has_residual + has_sum) + out_size) + 4.0 * n * (1 + has_beta) +
                (quantized ? 8.0 * static_cast<double>(desc.x.shape[0]) : 0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
