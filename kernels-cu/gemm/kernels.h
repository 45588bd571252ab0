// What the host and the kernels of GEMM share: the layout of packed weights, the arguments of each kernel, and the table of tiles.
#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu::gemm {

// k is cut into blocks of 128 bytes: 32 elements of F32, 64 of BF16 and F16, 128 of S8. That is a line of the caches, what a
// swizzled row of shared memory holds, and what wgmma takes as one (its 128-byte swizzle).
constexpr int kBlockBytes = 128;

// Packed weights: panels of 64 columns, filled up with zeros, each a run of blocks of k:
//   BF16, F16, S8   [64 columns][128 bytes of k], where the 16-byte chunk c of column n lies at chunk c ^ (n % 8): a copy that
//                   keeps the order leaves it in shared memory as ldmatrix reads it without bank conflicts
//   F32             [32 of k][64 columns]
// A block is 8 KB without gaps, so any unit that copies can take it, cp.async as well as a bulk copy.
constexpr int kPanelColumns = 64;
constexpr int kPanelBlockBytes = kPanelColumns * kBlockBytes;

// Weights in groups lie in units of 32 of k, an even number of them:
//   U4              [64 columns][4 words]; word w has 8 integers, i of them at bit 4 i, that of k = packed_k(w, i) of the unit
//   U8              [64 columns][4 pairs of words]; pair w has the same 8 integers, i and i + 4 in bytes 2 i and 2 i + 1
//   F8E4M3, F8E5M2  as U8, with numbers in the place of integers, and a column is one group; a NaN of E4M3 makes its column's scale NaN
// and for each group of k a panel has a record: the scales of its columns, FP32, then their zero points, a byte each.
constexpr int kUnitDepth = 32;
constexpr int unit_column_bytes(int32_t format) { return format == GTN_U4 ? kUnitDepth / 2 : kUnitDepth; }
constexpr int unit_bytes(int32_t format) { return kPanelColumns * unit_column_bytes(format); }
constexpr int kZerosAt = kPanelColumns * 4, kRecordBytes = kZerosAt + kPanelColumns;

// As the products of the table of tiles read them: integers i and i + 4 of a word, a pair, are neighbours.
int packed_k(int word, int i);

// One matrix, or one after the other those of a grouped product; all pointers lead to the device's memory.
struct PackedWeights {
  int device;
  int32_t format;
  int64_t panels, blocks;  // of one matrix: of columns, of k (in groups: units)
  char* data;
  char* records;  // in groups: [panels][groups of k]
  float* scales;  // S8: of each column, filled up to whole panels
  int32_t* sums;  // S8: sum of each column's quantized weights
  float* shift;   // of convolutions, of each channel of out; memory of its own
};

// Rows to prepare: converted, copied to where 16-byte copies can read them, gathered, or quantized. One block for each row.
struct RowsArgs {
  const void* a;
  int64_t a_stride;      // elements
  const int32_t* index;  // the rows to take of `a`, each 0 to rows_a - 1; null: all, in order
  int64_t rows_a, k;
  char* to;
  int64_t to_stride;      // bytes, a multiple of kBlockBytes
  float* scales;          // S8
  int32_t* zeros;         // S8
  const float* a_scales;  // those of `a`, where it is quantized
  const int32_t* a_zeros;
  int32_t vector;  // 1: rows of `a` are aligned to 4 elements
};

// Where the tiles of each group start.
struct ScheduleArgs {
  const int64_t* offsets;
  int64_t first, rows_total;  // the rows of this part are `first` to first + rows - 1
  int32_t groups, rows, tile_rows;
  int32_t* starts;  // [groups + 1]
};

// The first product of a low-rank pair, to[rows, stride] = scale * (a * lora_a).
struct ProjectArgs {
  const void* a;
  int64_t a_stride, rows, k;
  const void* lora_a;  // [k, rank]
  int32_t rank;
  float scale;
  float* to;
  int64_t stride;
  int32_t vector;  // 1: rows of `a` are aligned to 4 elements
};

// What becomes of sums; see epilogue.h.
struct FinishArgs {
  int64_t n;
  const float* column_scales;  // S8
  const int32_t* column_sums;  // S8
  const float* row_scales;     // S8
  const int32_t* row_zeros;    // S8
  const float* bias;           // may be null
  const void* residual;        // may be null
  void* out;
  int64_t out_stride;          // elements, of residual too
  int32_t out_dtype, activation;
  int32_t vector;  // 1: rows of out and residual are aligned to 4 elements
};

struct TilesArgs {
  FinishArgs finish;
  const char* a;  // rows of the format's elements, aligned to 16 bytes
  int64_t a_stride, k_bytes;  // bytes
  const int32_t* index;       // rows to take of `a`, null: all, in order
  int64_t rows_a;
  int32_t rows;
  const char* weights;
  int64_t panel_bytes;
  int32_t panels, blocks;
  // Weights in groups: records, the bytes of a panel's, and elements of k of a group.
  const char* records;
  int64_t records_bytes;
  int32_t group_size;
  int32_t tiles_m, tiles_n;  // tiles_m: at most
  // Rows in groups.
  const int64_t* offsets;  // null: one matrix
  const int32_t* starts;
  int64_t first;
  int32_t groups;
  // Low rank.
  const float* projected;  // [rows, projected_stride], the latter a multiple of 4
  int64_t projected_stride;
  const void* lora_b;  // [rank, n]
  int32_t rank, lora_dtype;
  // Splits of k: the grid's y; a split has so many blocks.
  int32_t split_blocks;
  void* partial;  // [splits][rows][panels * 64] sums; null: one split
};

struct ReduceArgs {
  FinishArgs finish;
  const void* partial;
  int64_t rows, stride;  // stride: elements of a row of partial
  int32_t splits, s8;
};

// Rows in 8 bits are multiplied as u8 less this: CDNA's unit, the one of waves of 64, has s8 by s8 alone. So sums lack it times their
// column's sum of weights, which the epilogue takes in with the zero point.
constexpr int kByteShift = kWarp == 64 ? 128 : 0;

// One tile shape of one format. The plan takes the one that its estimate says is the fastest for the rows of a run.
struct Variant {
  int32_t format, row_dtype;
  int rows, columns;           // of a tile
  int warps_m, warps_n, warps_k;
  int stages, threads, shared_bytes;
  int column_bytes;  // of a column in a block of k
  bool rounded;  // sums that are fit for an output of 16 bits alone
  KernelPointer kernel;
};

struct VariantTable {
  const Variant* variants;
  int count;
};
VariantTable f32_variants();
VariantTable bf16_variants();
VariantTable f16_variants();
VariantTable int8_variants();
VariantTable u4_f32_variants();  // with rows of F32, and so on
VariantTable u4_bf16_variants();
VariantTable u4_f16_variants();
VariantTable u8_f32_variants();
VariantTable u8_bf16_variants();
VariantTable u8_f16_variants();
VariantTable f8_bf16_variants(int32_t format);  // F8E4M3 or F8E5M2
VariantTable f8_f16_variants(int32_t format);

constexpr int kRowsThreads = 128;
constexpr int kScheduleThreads = 256;
constexpr int kProjectThreads = 1024;
constexpr int kProjectRows = 8;
constexpr int kReduceThreads = 256;

// Rows of `a_dtype` as those of `dtype`: F32, BF16, F16 or U8, what tiles read.
KernelPointer rows_kernel(int32_t a_dtype, int32_t dtype);
KernelPointer schedule_kernel();
KernelPointer project_kernel(int32_t a_dtype, int32_t lora_dtype);
KernelPointer reduce_kernel();

constexpr int kQuantizeShared = kRowsThreads / kWarp * 16;
constexpr int kScheduleShared = kScheduleThreads / kWarp * 4;
constexpr int kProjectShared = kProjectThreads * kProjectRows * 4;

}  // namespace gatun::gpu::gemm
