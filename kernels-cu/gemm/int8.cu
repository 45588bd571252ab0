// GEMM with INT8 weights: see kernels.cu.
#include "gemm/mma_products.h"

namespace gatun::gpu::gemm {
namespace {

const Variant kVariants[] = {
    variant_of<S8Products<Tile<16, 32, 1, 1, 4, 3>>, 3>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<32, 64, 1, 2, 2, 3>>, 2>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<64, 64, 2, 2, 1, 4>>, 3>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<128, 64, 2, 2, 1, 3>>, 1>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<128, 128, 2, 4, 1, 3>>, 1>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<128, 128, 2, 2, 1, 3>>, 1>(GTN_S8, GTN_U8, false),
    variant_of<S8Products<Tile<128, 256, 2, 4, 1, 3>>, 1>(GTN_S8, GTN_U8, false),
};

}  // namespace

VariantTable int8_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
