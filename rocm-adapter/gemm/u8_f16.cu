// GEMM with weights of 8 bits and F16 rows: see kernels-cu/gemm/quantized_products.h.
#include "gemm/matrix_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u8_f16_variants() { return u8_variants<Half>(GTN_F16); }

}  // namespace gatun::gpu::gemm
