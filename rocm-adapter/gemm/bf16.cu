// GEMM with BF16 weights on MFMA and WMMA: see kernels-cu/gemm/kernels.cu. Tiles are those that 64 KiB of LDS hold; which of
// them is taken is an estimate of the plan's that no AMD device has confirmed.
#include "gemm/matrix_products.h"

namespace gatun::gpu::gemm {
namespace {

template <int rows, int columns, int warps_m, int warps_n, int warps_k, int stages>
using Exact = MatrixProducts<Tile<rows, columns, warps_m, warps_n, warps_k, stages>, Bf16, true>;
template <int rows, int columns, int warps_m, int warps_n, int warps_k, int stages>
using Rounded = MatrixProducts<Tile<rows, columns, warps_m, warps_n, warps_k, stages>, Bf16, false>;

// Rows, columns, warps of m, n and k, stages.
const Variant kVariants[] = {
    variant_of<Exact<32, 32, 1, 1, 2, 2>, 1>(GTN_BF16, false),
    variant_of<Exact<64, 64, 2, 2, 1, 2>, 1>(GTN_BF16, false),
    variant_of<Exact<128, 64, 4, 1, 1, 2>, 1>(GTN_BF16, false),
    variant_of<Rounded<128, 64, 2, 2, 1, 2>, 1>(GTN_BF16, true),
};

}  // namespace

VariantTable bf16_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
