// GEMM with F16 weights: see kernels.cu.
#include "gemm/mma_products.h"

namespace gatun::gpu::gemm {

VariantTable f16_variants() { return halves_variants<Half>(GTN_F16); }

}  // namespace gatun::gpu::gemm
