// GEMM with weights of 8 bits and FP32 rows: see quantized_products.h.
#include "gemm/mma_quantized.h"

namespace gatun::gpu::gemm {
namespace {

// Rows, columns, warps of m, n and k, stages, bytes of a column in a block and in a unit.
const Variant kVariants[] = {
    variant_of<QuantizedF32Products<Tile<16, 64, 1, 1, 4, 4, 32, 32>, MmaOrder>, 1>(GTN_U8, GTN_F32, false),
    variant_of<QuantizedF32Products<Tile<64, 64, 2, 1, 2, 3, 32, 32>, MmaOrder>, 1>(GTN_U8, GTN_F32, false),
};

}  // namespace

VariantTable u8_f32_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
