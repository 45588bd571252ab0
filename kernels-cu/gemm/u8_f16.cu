// GEMM with weights of 8 bits and F16 rows: see quantized_products.h.
#include "gemm/mma_quantized.h"

namespace gatun::gpu::gemm {

VariantTable u8_f16_variants() { return u8_variants<Half>(GTN_F16); }

}  // namespace gatun::gpu::gemm
