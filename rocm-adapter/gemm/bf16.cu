// GEMM with BF16 weights on MFMA and WMMA: see kernels-cu/gemm/kernels.cu.
#include "gemm/matrix_products.h"

namespace gatun::gpu::gemm {

VariantTable bf16_variants() { return halves_variants<Bf16>(GTN_BF16); }

}  // namespace gatun::gpu::gemm
