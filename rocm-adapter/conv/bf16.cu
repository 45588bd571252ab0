// Convolution in BF16 on MFMA and WMMA, in tiles that 64 KiB of LDS hold: see kernels-cu/conv/tile.h.
#include "conv/tile.h"
#include "gemm/matrix_products.h"

namespace gatun::gpu::conv {
namespace {

using gemm::MatrixProducts;
using gemm::Tile;

// Rows, columns, warps of m, n and k, stages.
const Variant kVariants[] = {
    variant_of<MatrixProducts<Tile<32, 32, 1, 1, 2, 2>, Bf16, true>, 1>(GTN_BF16, false),
    variant_of<MatrixProducts<Tile<64, 64, 2, 2, 1, 2>, Bf16, true>, 1>(GTN_BF16, false),
    variant_of<MatrixProducts<Tile<128, 64, 4, 1, 1, 2>, Bf16, true>, 1>(GTN_BF16, false),
    variant_of<MatrixProducts<Tile<128, 64, 2, 2, 1, 2>, Bf16, false>, 1>(GTN_BF16, true),
};

}  // namespace

VariantTable bf16_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::conv
