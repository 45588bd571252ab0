// GEMM with INT8 weights on MFMA and WMMA: see kernels-cu/gemm/kernels.cu.
#include "gemm/matrix_products.h"

namespace gatun::gpu::gemm {
namespace {

template <int rows, int columns, int warps_m, int warps_n, int warps_k, int stages>
using Products = MatrixProducts<Tile<rows, columns, warps_m, warps_n, warps_k, stages>, matrix::S8, false>;

// Rows, columns, warps of m, n and k, stages.
const Variant kVariants[] = {
    variant_of<Products<32, 32, 1, 1, 2, 2>, 1>(GTN_S8, GTN_U8, false),
    variant_of<Products<64, 64, 2, 2, 1, 2>, 1>(GTN_S8, GTN_U8, false),
    variant_of<Products<128, 64, 2, 2, 1, 2>, 1>(GTN_S8, GTN_U8, false),
};

}  // namespace

VariantTable int8_variants() { return {kVariants, sizeof kVariants / sizeof kVariants[0]}; }

}  // namespace gatun::gpu::gemm
