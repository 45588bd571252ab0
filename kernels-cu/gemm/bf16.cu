// GEMM with BF16 weights: see kernels.cu.
#include "gemm/mma_products.h"

namespace gatun::gpu::gemm {

VariantTable bf16_variants() { return halves_variants<Bf16>(GTN_BF16); }

}  // namespace gatun::gpu::gemm
