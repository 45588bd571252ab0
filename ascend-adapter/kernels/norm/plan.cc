#include "kernels/norm/plan.h"

#include <cstdio>

#include "kernels/gemm/tiling.h"
#include "kernels/norm/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

// Rows that are to be quantized are written as FP32 first, in scratch memory, since their range is known at their end alone; from
// there the rows of a product are quantized in the same way.
class NormPlan final : public Plan {
 public:
  NormPlan(const gtn_norm_desc& desc, const Kernel* kernel, const Kernel* quantize)
      : kernel_(kernel), quantize_(quantize), out_stride_(desc.out.strides[0]) {
    tiling_.n = desc.x.shape[1];
    tiling_.x_stride = desc.x.strides[0], tiling_.out_stride = quantize != nullptr ? tiling_.n : desc.out.strides[0];
    tiling_.has_residual = desc.has_residual, tiling_.has_beta = desc.has_beta, tiling_.has_sum = desc.has_sum;
    tiling_.epsilon = desc.epsilon;
    tiling_.chunk = chunk_elements(
        tiling_.n, norm_element_bytes(element_bytes(desc.x.dtype), quantize != nullptr ? 4 : element_bytes(desc.out.dtype), desc.has_residual != 0,
                                      desc.has_beta != 0, desc.has_sum != 0));
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_norm_args& args = *static_cast<const gtn_norm_args*>(arguments);
    if (args.rows == 0) return GTN_OK;
    NormTiling tiling = tiling_;
    tiling.rows = args.rows;
    void* out = args.out;
    if (quantize_ != nullptr) {
      if (const gtn_status status = stream.scratch(scratch_bytes(args.rows), &out, message); status != GTN_OK) return status;
    }
    const int64_t blocks = vector_blocks(*stream.device, args.rows);
    const gtn_status status = launch_with(stream, kernel_, blocks, tiling, message, args.x, args.residual, args.gamma, args.beta,
                                          static_cast<const void*>(out), static_cast<const void*>(args.sum));
    if (status != GTN_OK || quantize_ == nullptr) return status;
    const GemmRowsTiling rows = {args.rows, tiling.n, tiling.n, out_stride_, args.rows, 0, 0, 0, 1};
    return launch_with(stream, quantize_, blocks, rows, message, static_cast<const void*>(out), static_cast<const void*>(nullptr),
                       static_cast<const void*>(args.out), static_cast<const void*>(args.scales),
                       static_cast<const void*>(args.zero_points));
  }

  int64_t scratch_bytes(int64_t rows) const { return quantize_ != nullptr ? rows * tiling_.n * 4 : 0; }

 private:
  const Kernel *const kernel_, *const quantize_;
  const int64_t out_stride_;
  NormTiling tiling_ = {};
};

// Of an element. LayerNorm: 2 for the mean, 4 for the centred sums, 4 for the last pass. RMSNorm: 2 and 2.
constexpr double kLayerFlops = 10;
constexpr double kRmsFlops = 4;
constexpr double kQuantizeFlops = 10;  // 3 for the range, and the last pass

}  // namespace

bool norm_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status norm_plan(Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  const bool quantized = desc.out.dtype == GTN_U8;
  const bool layer = desc.kind == GTN_NORM_LAYER;
  char name[48];
  std::snprintf(name, sizeof name, "gatun_norm_%s_%s_%s", layer ? "layer" : "rms", type_name(desc.x.dtype),
                quantized ? "f32" : type_name(desc.out.dtype));
  const Kernel *kernel = nullptr, *quantize = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  if (quantized) {
    if (const gtn_status status = find_kernel(device.index, "gatun_rows_f32_u8", &quantize, message); status != GTN_OK)
      return status;
  }
  auto created = make_plan<NormPlan>(message, desc, kernel, quantize);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const bool has_residual = desc.has_residual != 0, has_beta = desc.has_beta != 0, has_sum = desc.has_sum != 0;
  const double n = static_cast<double>(desc.x.shape[1]), elements = static_cast<double>(desc.x.shape[0]) * n;
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype));
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  std::snprintf(name, sizeof name, "norm.%s.%s%s", layer ? "layer" : "rms", type_name(desc.x.dtype),
                quantized ? ".int8" : "");
  name_kernel(info, name);
  info->flops = elements * ((layer ? kLayerFlops : kRmsFlops) + (has_residual ? 1 : 0) + (has_beta ? 1 : 0) +
                            (quantized ? kQuantizeFlops : 0));
  info->bytes = elements * (x_size * (1 + has_residual + has_sum) + out_size) + 4.0 * n * (1 + has_beta) +
                (quantized ? 8.0 * static_cast<double>(desc.x.shape[0]) : 0);
  info->workspace_bytes = created->scratch_bytes(desc.x.shape[0]);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
