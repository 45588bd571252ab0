// GEMM with FP32 weights: see kernels.cu.
#include "gemm/products.h"

namespace gatun::gpu::gemm {
namespace {

const Variant kVariants[] = {
    variant_of<F32Products<Tile<16, 64, 1, 1, 4, 2>>, 1>(GTN_F32, GTN_F32, false),
    variant_of<F32Products<Tile<64, 64, 2, 1, 2, 3>>, 1>(GTN_F32, GTN_F32, false),
    variant_of<F32Products<Tile<128, 128, 4, 2, 1, 2>>, 1>(GTN_F32, GTN_F32, false),
};

}  // namespace

VariantTable f32_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
