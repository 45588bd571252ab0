// Convolution in FP32, in tiles that 64 KiB of LDS hold: see kernels-cu/conv/tile.h.
#include "conv/tile.h"

namespace gatun::gpu::conv {
namespace {

using gemm::F32Products;
using gemm::Tile;

// Rows, columns, warps of m, n and k, stages.
const Variant kVariants[] = {
    variant_of<F32Products<Tile<32, 64, 1, 1, 2, 2>>, 1>(GTN_F32, false),
    variant_of<F32Products<Tile<128, 64, 4, 1, 1, 2>>, 1>(GTN_F32, false),
};

}  // namespace

VariantTable f32_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::conv
