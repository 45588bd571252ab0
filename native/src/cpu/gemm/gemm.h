// GEMM: out[m, n] = activation(a[m, k] * w[k, n] + low-rank product + bias[n]) + residual[m, n], with weights packed once.
//
// A run has two steps. First the rows of `a` are prepared where the microkernels cannot read them as they are:
// quantized (S8), rounded to BF16 (and widened, where the level has no BF16 products), widened (elements of 16 bits in an
// F32 or F16 product), copied out of a stride that caches dislike, or gathered by number; and the rows of a low-rank product
// are projected. Then a grid of blocks of `out`, rows by panels of packed weights, is computed, each block by one call
// of one worker. A level owns both steps and the layout between them, so one with other units (tiles, say) replaces
// all three and nothing else.
//
// Rows of one group meet one matrix of weights, and a block never has rows of two groups. The blocks of all groups are
// one grid: groups of a row or two cost no more than their weights do.
//
// Every element of `out` is one chain of multiply-adds over k in index order (of pairs, where one instruction sums two and rounds
// between them; of 32 at a time, where tiles of AMX sum the even and the odd ones apart), whatever the block, the register tile or
// the thread it falls into: results do not depend on the number of rows, nor of threads, and those of a group are those of a
// product with its matrix alone.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// How a level wants its weights. Panel p holds the columns p * panel to (p + 1) * panel - 1, one after the other in k;
// the last is filled up with zeros. Within a panel:
//   F32   [k][panel]
//   BF16  [k / 2][panel][2]: the two lie in one 32-bit lane, which a shift and a mask widen (and vdpbf16ps reads)
//   F16, F8E4M3, F8E5M2  [k][panel]: a vector of them is widened as it is loaded
//   S8    [k / group][panel][group]: group is what one multiply-add instruction sums
// with k filled up with zeros to a whole group. Panels start at 64-byte boundaries.
//   U4, U8  for each quantization group of k its scales, FP32 [panel], then its integers, [lanes][panel] of 32 bits with 8 or
//           4 of k in each, the first in the lowest bits; behind all groups the zero points, U8 [groups][panel], unless all of
//           them are the format's own. Only whole groups.
//   BF16_2OF4  for each kSparseBlock elements of k the places of the two weights of four that are stored, 2 bits each and the
//           first in the lowest, U32 [panel], then these weights, BF16 [kSparseBlock / 2][panel]. Only whole blocks.
struct GemmLayout {
  int64_t panel;           // columns
  int64_t int8_group;      // elements of k
  int64_t row_tile;        // rows of the largest register tile
  int64_t block_rows;      // rows of the largest block; a multiple of row_tile
  int64_t tiled_row_tile, tiled_block_rows;  // the same of products that tiles multiply, of BF16 and INT8; 0: there are none
  int64_t int8_row_bytes;  // of one quantized element of a
  int64_t bf16_row_bytes;  // of one rounded to BF16, which is widened where there are four
  bool int8_rows_are_u8;   // quantized elements are bytes without sign, as quantized rows of a run are
};

inline bool is_quantized(int32_t format) { return format == GTN_U4 || format == GTN_U8; }
inline int quantized_bits(int32_t format) { return format == GTN_U4 ? 4 : 8; }

inline bool is_f8(int32_t format) { return format == GTN_F8E4M3 || format == GTN_F8E5M2; }

// The zero point of weights that have none of their own.
constexpr int quantized_zero(int bits) { return bits == 4 ? 8 : 128; }

constexpr int64_t kMaxQuantizedGroup = 128;

// Scales and integers of one quantization group of a panel.
constexpr int64_t quantized_group_bytes(int64_t panel, int64_t group_size, int bits) {
  return panel * (static_cast<int64_t>(sizeof(float)) + group_size * bits / 8);
}

// Elements of k whose places are in one lane of pruned weights, and what they take.
constexpr int64_t kSparseBlock = 32;
constexpr int64_t sparse_block_bytes(int64_t panel) { return panel * (4 + kSparseBlock / 2 * 2); }

// One matrix, or one after the other those of a grouped product.
struct PackedWeights {
  const GemmLayout* layout;
  int32_t format;
  int64_t k, n;
  int64_t panels, panel_bytes;  // panels of one matrix
  int64_t column_stride;        // columns from matrix to matrix
  unsigned char* data;          // panels, then what follows
  const float* scales;          // S8, FP8: of each column, filled up to whole panels
  const int32_t* sums;          // S8: sum of each column's quantized weights
  int64_t group_size, zeros_at; // U4, U8: as in GemmRun
  float* shift;                 // of convolutions: added to each column, filled up to whole panels; else null
  int64_t bytes;
};

// One run, or the part of it whose rows were prepared together.
struct GemmRun {
  int32_t format, out_dtype, activation;
  int64_t k, n;
  const unsigned char* panels;
  int64_t panel_bytes;
  const float* column_scales;   // S8, FP8
  const int32_t* column_sums;   // S8
  int64_t group_size;           // U4, U8: elements of k with a scale and a zero point of their own
  int64_t zeros_at;             // U4, U8: where in a panel its zero points begin; 0: all are the format's own
  const void* rows;             // S8, BF16: as GemmLayout says; else float
  int64_t row_stride;           // elements
  const float* row_scales;      // S8
  const int32_t* row_zeros;     // S8
  const float* projected;       // low rank: what GemmProjection makes
  int64_t projected_stride;     // elements
  int64_t rank;                 // 0: none
  int32_t lora_dtype;
  const void* lora_b;           // [rank, n]
  const float* bias;            // may be null
  const void* residual;         // may be null
  void* out;
  int64_t out_stride;           // elements, of residual too
};

struct GemmBlock {
  int64_t row, rows;
  int64_t panel, panels;
};

// Rows to prepare: `rows` of them, k elements each, filled up with zeros to a multiple of 4.
struct GemmRows {
  int32_t format, a_dtype;
  int64_t k;
  const void* a;
  int64_t a_stride;
  const int32_t* index;  // the rows to take of `a`; null: all, in order
  void* prepared;
  int64_t prepared_stride;
  float* scales;   // S8
  int32_t* zeros;  // S8
  const float* a_scales;   // of rows of U8
  const int32_t* a_zeros;  // of rows of U8
};

// The first product of a low-rank pair: `to` = scale * (a * lora_a), FP32 of the elements of `a` as they are. The columns of
// lora_a are cut into panels, of which `to` has all rows of one after those of the other: [panel][stride / panel][panel].
struct GemmProjection {
  int32_t a_dtype, lora_dtype;
  int64_t k, rank;
  float scale;
  const void* a;
  int64_t a_stride;
  const void* lora_a;  // [k, rank]
  float* to;
  int64_t stride;  // elements from panel to panel
};

struct GemmKernels {
  GemmLayout layout;
  void (*prepare)(const GemmRows& rows, int64_t first, int64_t count);
  // Rows `first` to first + count - 1 of one panel.
  void (*project)(const GemmProjection& projection, int64_t first, int64_t count, int64_t panel, void* scratch);
  // Bytes of a worker's scratch memory for blocks of at most this size; a multiple of 64.
  int64_t (*scratch_bytes)(int32_t format, int64_t k, int64_t rows, int64_t panels, int64_t rank);
  void (*compute)(const GemmRun& run, const GemmBlock& block, void* scratch);
};

gtn_status gemm_plan(const Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message);

// Packed weights: an opaque object of this family.
gtn_status gemm_weights_pack(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
gtn_status gemm_weights_pack_quantized(const Device& device, const gtn_quantized_desc& desc, const void* integers,
                                       const float* scales, const uint8_t* zeros, void** weights, gtn_weights_info* info,
                                       gtn_message* message);
void gemm_weights_destroy(void* weights);

}  // namespace gatun::cpu
