// GEMM with weights of 8 bits and BF16 rows: see kernels-cu/gemm/quantized_products.h.
#include "gemm/matrix_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u8_bf16_variants() { return u8_variants<Bf16>(GTN_BF16); }

}  // namespace gatun::gpu::gemm
