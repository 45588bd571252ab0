// What a launch of a matrix product is told besides its tensors, and how the host computes it.
#pragma once

#include <cstdint>

namespace gatun::ascend {

constexpr int32_t kGemmM = 128, kGemmN = 128;  // of a tile of out, whose FP32 sums are half of L0C
constexpr int32_t kGemmStepBytes = 256;        // of k in a step: the tiles of A and B are 32 KiB each, twice in L0A and in L0B
constexpr int64_t kGemmMost = 65535;           // of k, and of the strides of rows: what Nd2NzParams has 16 bits for
constexpr int64_t kGemmMostOut = UINT32_MAX / 4;  // of the stride of out: DataCopyExtParams has 32 bits for a gap's bytes

struct GemmTiling {
  int64_t m, n, k, a_stride, b_stride, out_stride;  // strides in elements; the residual's is out's
  int64_t groups;                                   // 0, or matrices of b, each with a run of rows
  int64_t n_tiles, tiles;                           // of out; with groups as many as there may be
  int64_t rows_x;                                   // has_index: how many rows have numbers of their own
  int64_t a_term, b_term;                           // elements from a term to the next
  int32_t activation, has_bias, has_residual, has_addend, has_index;
  int32_t a_terms, b_terms;                         // numbers of BF16, or of the type there is, whose sum is an element
  int32_t has_scales;                               // of floating point: columns are multiplied by a scale each
};

constexpr int32_t kGemmTerms = 3;  // of BF16 that an element of FP32 is; products of the third and further are below 2^-24

// False where the kernels cannot take these sizes.
inline bool gemm_tiling(GemmTiling* t) {
  if (t->m < 1 || t->n < 0 || t->k < 0 || t->k > kGemmMost || t->a_stride > kGemmMost || t->b_stride > kGemmMost) return false;
  if (t->out_stride > kGemmMostOut) return false;
  t->n_tiles = (t->n + kGemmN - 1) / kGemmN;
  // The last tile of rows of each group but one may be cut short.
  const int64_t cut = t->groups > 1 ? (t->groups < t->m ? t->groups : t->m) - 1 : 0;
  t->tiles = ((t->m + kGemmM - 1) / kGemmM + cut) * t->n_tiles;
  return true;
}

// Rows that are brought to another type, or quantized: strides in elements. rows_x: how many of x there are; with an index, row r
// is made of row index[r] of x.
struct GemmRowsTiling {
  int64_t rows, k, x_stride, to_stride, rows_x;
  int64_t to_term;            // from a term of a row to the next
  int64_t group_size;         // of integers that share a scale and a zero point
  int32_t has_index, terms;
};
constexpr int32_t kGemmRowsChunk = 4096;  // elements that are in the UB at once

// A product of FP32 on the vector cores, out = scale a b: strides in elements. Tiles are of kThinRows x kThinColumns, and
// kThinDepth of k are in the UB at once.
struct ThinTiling {
  int64_t m, n, k, a_stride, b_stride, out_stride;
  float scale;
  int32_t reserved;
};
constexpr int32_t kThinRows = 8, kThinColumns = 256, kThinDepth = 32;
constexpr int64_t kThinMost = 1 << 28;  // of n: DataCopyExtParams has 32 bits for a gap's bytes

inline int64_t thin_tiles(int64_t m, int64_t n) {
  return (m + kThinRows - 1) / kThinRows * ((n + kThinColumns - 1) / kThinColumns);
}

// Sums on their way from the cube core to the vector cores: two tiles for each block.
inline int64_t gemm_workspace_bytes(int64_t blocks) { return blocks * 2 * kGemmM * kGemmN * 4; }

}  // namespace gatun::ascend
