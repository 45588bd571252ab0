// GEMM with weights of 4 bits and BF16 rows: see kernels-cu/gemm/quantized_products.h.
#include "gemm/matrix_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u4_bf16_variants() { return u4_variants<Bf16>(GTN_BF16); }

}  // namespace gatun::gpu::gemm
