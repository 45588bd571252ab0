// Convolution in BF16: see tile.h.
#include "conv/tile.h"
#include "gemm/mma_products.h"

namespace gatun::gpu::conv {
namespace {

using gemm::ExactProducts;
using gemm::RoundedProducts;
using gemm::Tile;

// Rows, columns, warps of m, n and k, stages. GEMM's, but for the one of 16 rows: a convolution has more.
const Variant kVariants[] = {
    variant_of<ExactProducts<Tile<32, 64, 1, 2, 2, 3>, Bf16>, 2>(GTN_BF16, false),
    variant_of<ExactProducts<Tile<64, 64, 2, 2, 1, 4>, Bf16>, 2>(GTN_BF16, false),
    variant_of<ExactProducts<Tile<128, 64, 2, 2, 1, 3>, Bf16>, 1>(GTN_BF16, false),
    variant_of<ExactProducts<Tile<128, 128, 2, 4, 1, 3>, Bf16>, 1>(GTN_BF16, false),
    variant_of<RoundedProducts<Tile<128, 128, 2, 2, 1, 3>, Bf16>, 1>(GTN_BF16, true),
    variant_of<RoundedProducts<Tile<128, 256, 2, 4, 1, 3>, Bf16>, 1>(GTN_BF16, true),
};

}  // namespace

VariantTable bf16_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::conv
