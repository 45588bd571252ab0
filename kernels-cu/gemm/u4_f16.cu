// GEMM with weights of 4 bits and F16 rows: see quantized_products.h.
#include "gemm/mma_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u4_f16_variants() { return u4_variants<Half>(GTN_F16); }

}  // namespace gatun::gpu::gemm
