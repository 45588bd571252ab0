// GEMM with weights in FP8 and F16 rows: see quantized_products.h.
#include "gemm/mma_quantized.h"

namespace gatun::gpu::gemm {

VariantTable f8_f16_variants(int32_t format) {
  return format == GTN_F8E4M3 ? f8_variants<Half, GTN_F8E4M3>(GTN_F16) : f8_variants<Half, GTN_F8E5M2>(GTN_F16);
}

}  // namespace gatun::gpu::gemm
