// GEMM with F16 weights on MFMA and WMMA: see kernels-cu/gemm/kernels.cu.
#include "gemm/matrix_products.h"

namespace gatun::gpu::gemm {

VariantTable f16_variants() { return halves_variants<Half>(GTN_F16); }

}  // namespace gatun::gpu::gemm
