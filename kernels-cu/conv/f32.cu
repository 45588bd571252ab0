// Convolution in FP32: see tile.h. The FP32 units bind, from some 16 rows on.
#include "conv/tile.h"

namespace gatun::gpu::conv {
namespace {

using gemm::F32Products;
using gemm::Tile;

const Variant kVariants[] = {
    variant_of<F32Products<Tile<64, 64, 2, 1, 2, 3>>, 1>(GTN_F32, false),
    variant_of<F32Products<Tile<128, 128, 4, 2, 1, 2>>, 1>(GTN_F32, false),
};

}  // namespace

VariantTable f32_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::conv
