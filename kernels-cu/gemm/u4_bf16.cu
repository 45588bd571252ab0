// GEMM with weights of 4 bits and BF16 rows: see quantized_products.h.
#include "gemm/mma_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u4_bf16_variants() { return u4_variants<Bf16>(GTN_BF16); }

}  // namespace gatun::gpu::gemm
