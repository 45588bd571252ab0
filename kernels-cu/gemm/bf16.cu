// GEMM with BF16 weights: see kernels.cu.
#include "gemm/mma_products.h"

namespace gatun::gpu::gemm {
namespace {

// Rows, columns, warps of m, n and k, stages. A variant of sm_90a (wgmma on what bulk copies bring: weights are packed for it)
// is a line of its own here, with the architecture as one more condition of the plan's choice.
const Variant kVariants[] = {
    variant_of<Bf16Products<Tile<16, 32, 1, 1, 4, 3>>, 3>(GTN_BF16, false),
    variant_of<Bf16Products<Tile<32, 64, 1, 2, 2, 3>>, 3>(GTN_BF16, false),
    variant_of<Bf16Products<Tile<64, 64, 2, 2, 1, 4>>, 3>(GTN_BF16, false),
    variant_of<Bf16Products<Tile<128, 64, 2, 2, 1, 3>>, 1>(GTN_BF16, false),
    variant_of<Bf16Products<Tile<128, 128, 2, 4, 1, 3>>, 1>(GTN_BF16, false),
    variant_of<Bf16RoundedProducts<Tile<128, 128, 2, 2, 1, 3>>, 1>(GTN_BF16, true),
    variant_of<Bf16RoundedProducts<Tile<128, 256, 2, 4, 1, 3>>, 1>(GTN_BF16, true),
};

}  // namespace

VariantTable bf16_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
