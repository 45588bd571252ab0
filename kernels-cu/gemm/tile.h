// The one kernel of GEMM: a tile of `out` from blocks of rows and of packed weights, for every format.
//
//   copy     cp.async, 16 bytes a thread and instruction, into a ring of stages; a stage holds one block of k (128 bytes) of the
//            tile's rows and columns for each of warps_k groups of warps. One barrier a stage: it says both that the stage has
//            come and that everyone is done with the one that is overwritten next.
//   rows     lie in shared memory as weights are packed, chunk c of row r at chunk c ^ (r % 8). Where each starts is looked up
//            in a table in shared memory, so that gathered, grouped and missing rows (zeros) cost the same.
//   product  by warps, warps_m x warps_n of them side by side, each with its part of the sums in registers; products.h.
//   warps_k  groups of warps take every warps_k-th block of k, and the first adds the others' sums in order. That keeps many
//            bytes under way where there are few rows and the weights' way from memory is all that counts.
//   finish   epilogue.h, in registers; or the sums themselves, where k is split over several blocks of threads.
//
// Sums depend on the shape of the tile and on where k is cut, which follow from sizes alone: no result depends on timing.
#pragma once

#include "gemm/epilogue.h"
#include "gemm/kernels.h"
#include "gpu/gpu.h"

namespace gatun::gpu::gemm {

template <int rows, int columns, int warps_m, int warps_n, int warps_k, int stages>
struct Tile {
  static constexpr int kRows = rows, kColumns = columns;
  static constexpr int kWarpsM = warps_m, kWarpsN = warps_n, kWarpsK = warps_k, kStages = stages;
  static constexpr int kWarpRows = rows / warps_m, kWarpColumns = columns / warps_n;
  static constexpr int kThreads = kWarp * warps_m * warps_n * warps_k;
  static constexpr int kRowsBytes = rows * kBlockBytes, kColumnsBytes = columns * kBlockBytes;
  static constexpr int kStageBytes = warps_k * (kRowsBytes + kColumnsBytes);
  static constexpr int kTableAt = stages * kStageBytes;
  static constexpr int kSharedBytes = kTableAt + rows * static_cast<int>(sizeof(int64_t));

  // What the copies and the exchange of sums take for granted.
  static_assert(rows * 8 % kThreads == 0 && columns * 8 % kThreads == 0, "threads share chunks evenly");
  static_assert(kThreads % 64 == 0, "a thread copies into the same chunk of rows that are alike modulo 8");
  static_assert(columns % kPanelColumns == 0 || kPanelColumns % columns == 0, "tiles and panels have common edges");
  static_assert((warps_k - 1) * rows * columns * 4 <= kTableAt, "the sums of the other groups of warps fit the stages");
};

// Rows of one group, as rows of this part.
struct GroupRows {
  int64_t begin, end;
};

// Offsets lie in device memory, where nobody has checked them: whatever they hold, rows stay within the run's.
GPU_DEVICE GroupRows rows_of_group(const int64_t* offsets, int64_t group, int64_t first, int64_t rows, int64_t total) {
  const auto within = [](int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; };
  const int64_t begin = within(offsets[group], 0, total), end = within(offsets[group + 1], begin, total);
  return {within(begin - first, 0, rows), within(end - first, 0, rows)};
}

// Tiles go in bands of so many, down the rows and then to the right: those that run side by side share rows and weights in L2.
constexpr int64_t kBandTiles = 8;

// A low-rank product goes through shared memory in slices of this many of its rank. A row of the first factor has one more
// element, so that a column of it is free of bank conflicts.
constexpr int kRankSlice = 32;

template <typename Products>
struct TileRun {
  using T = typename Products::T;
  using Sum = typename Products::Sum;
  static constexpr int kWidth = Products::kWidth;

  const GemmArgs& args;
  char* const memory = shared();
  int64_t* const table = reinterpret_cast<int64_t*>(shared() + T::kTableAt);
  int64_t group = 0, row_begin, row_end, column;  // of the tile; columns from `column` on
  int64_t block_begin, block_end;                 // of k

  GPU_DEVICE explicit TileRun(const GemmArgs& gemm) : args(gemm) {
    block_begin = block_y() * args.split_blocks;
    block_end = block_begin + args.split_blocks;
    if (block_end > args.blocks) block_end = args.blocks;
  }

  GPU_DEVICE void find(int64_t tile, int64_t tiles_m) {
    const int64_t band = tile / (kBandTiles * args.tiles_n), within = tile - band * kBandTiles * args.tiles_n;
    const int64_t left = tiles_m - band * kBandTiles, height = left < kBandTiles ? left : kBandTiles;
    const int64_t tile_n = within / height;
    int64_t tile_m = band * kBandTiles + within - tile_n * height;
    column = tile_n * T::kColumns;
    row_begin = 0;
    row_end = args.rows;
    if (args.offsets != nullptr) {
      // The last group that does not start after the tile.
      int64_t low = 0, high = args.groups;
      while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        (args.starts[middle] <= tile_m ? low : high) = middle;
      }
      group = low;
      tile_m -= args.starts[group];
      const GroupRows rows = rows_of_group(args.offsets, group, args.first, args.rows, args.rows_total);
      row_begin = rows.begin;
      row_end = rows.end;
    }
    row_begin += tile_m * T::kRows;
    if (row_end > row_begin + T::kRows) row_end = row_begin + T::kRows;
  }

  GPU_DEVICE void fill_table() {
    for (int r = thread(); r < T::kRows; r += T::kThreads) {
      int64_t row = row_begin + r;
      const bool there = row < row_end;
      if (there && args.index != nullptr) row = args.index[row];
      table[r] = there && row >= 0 && row < args.rows_a ? row * args.a_stride : -1;
    }
  }

  // Blocks `block` to block + kWarpsK - 1 of k; zeros from block_end on, and from the end of a row on.
  GPU_DEVICE void copy(int slot, int64_t block) const {
    constexpr int kStep = T::kThreads / 8;
    const int chunk = thread() % 8, row = thread() / 8;
    const int at = row * kBlockBytes + (chunk ^ (row % 8)) * 16;
    char* to = memory + slot * T::kStageBytes;
    const int64_t end = block_end * kBlockBytes < args.k_bytes ? block_end * kBlockBytes : args.k_bytes;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kRowsBytes) {
      const int64_t from = (block + b) * kBlockBytes + chunk * 16;
      const int64_t left = end - from;
      const int valid = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
      GPU_UNROLL
      for (int r = 0; r < T::kRows; r += kStep) {
        const int64_t offset = table[row + r];
        const bool there = offset >= 0 && valid > 0;
        copy_async_16(to + at + r * kBlockBytes, there ? args.a + offset + from : args.weights, there ? valid : 0);
      }
    }
    const int64_t panel = column / kPanelColumns;
    const int inside = static_cast<int>(column % kPanelColumns) * kBlockBytes;  // panels wider than tiles
    const char* weights = args.weights + (group * args.panels + panel) * args.blocks * kPanelBlockBytes + inside;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kColumnsBytes) {
      GPU_UNROLL
      for (int i = 0; i < T::kColumnsBytes; i += T::kThreads * 16) {
        const int p = i / kPanelBlockBytes, byte = i % kPanelBlockBytes + thread() * 16;
        const bool there = block + b < block_end && panel + p < args.panels;
        const char* from = weights + (p * args.blocks + block + b) * kPanelBlockBytes + byte;
        copy_async_16(to + i + thread() * 16, there ? from : args.weights, there ? 16 : 0);
      }
    }
  }

  // The sums of this tile, in `products` of the first group of warps.
  GPU_DEVICE void multiply(Products& products) const {
    const int64_t steps = block_end > block_begin ? (block_end - block_begin + T::kWarpsK - 1) / T::kWarpsK : 0;
    GPU_UNROLL
    for (int s = 0; s < T::kStages - 1; ++s) {
      if (s < steps) copy(s, block_begin + s * T::kWarpsK);
      copy_async_commit();
    }
    int slot = 0, next = T::kStages - 1;
    for (int64_t step = 0; step < steps; ++step) {
      copy_async_wait<T::kStages - 2>();
      sync_threads();
      if (step + T::kStages - 1 < steps) copy(next, block_begin + (step + T::kStages - 1) * T::kWarpsK);
      copy_async_commit();
      const char* stage = memory + slot * T::kStageBytes;
      products.multiply(stage + products.warp_k * T::kRowsBytes,
                        stage + T::kWarpsK * T::kRowsBytes + products.warp_k * T::kColumnsBytes);
      slot = slot + 1 == T::kStages ? 0 : slot + 1;
      next = next + 1 == T::kStages ? 0 : next + 1;
    }
    products.complete();
    copy_async_wait<0>();
    if constexpr (T::kWarpsK > 1) add_groups(products);
  }

  GPU_DEVICE void add_groups(Products& products) const {
    constexpr int kSums = Products::kRowCount * Products::kColumnCount * kWidth;
    constexpr int kGroupWarps = T::kWarpsM * T::kWarpsN;
    Sum* sums = reinterpret_cast<Sum*>(memory);
    const int place = warp() % kGroupWarps * kSums * kWarp + lane();
    sync_threads();
    if (products.warp_k > 0) {
      Sum* to = sums + (products.warp_k - 1) * kGroupWarps * kSums * kWarp + place;
      products.for_each([&](int s, Sum& sum) { to[s * kWarp] = sum; });
    }
    sync_threads();
    if (products.warp_k == 0) {
      for (int g = 0; g < T::kWarpsK - 1; ++g) {
        const Sum* from = sums + g * kGroupWarps * kSums * kWarp + place;
        products.for_each([&](int s, Sum& sum) { sum += from[s * kWarp]; });
      }
    }
  }

  GPU_DEVICE void store_partial(Products& products) const {
    const int64_t stride = args.panels * kPanelColumns;
    Sum* partial = static_cast<Sum*>(args.partial) + block_y() * args.rows * stride;
    GPU_UNROLL
    for (int j = 0; j < Products::kColumnCount; ++j) {
      const int64_t c = column + products.column(j);
      GPU_UNROLL
      for (int i = 0; i < Products::kRowCount; ++i) {
        const int64_t row = row_begin + products.row(i);
        if (row >= row_end || c >= stride) continue;
        float x[kWidth];
        GPU_UNROLL
        for (int w = 0; w < kWidth; ++w) {
          if constexpr (std::is_same_v<Sum, int32_t>) {
            x[w] = float_of(static_cast<uint32_t>(products.sum(i, j, w)));
          } else {
            x[w] = products.sum(i, j, w);
          }
        }
        store_pack(reinterpret_cast<float*>(partial) + row * stride + c, x);
      }
    }
  }

  GPU_DEVICE void finish(Products& products, const float* low_rank) const {
    const int64_t columns = args.panels * kPanelColumns;
    float scales[Products::kRowCount];
    int32_t zeros[Products::kRowCount];
    GPU_UNROLL
    for (int i = 0; i < Products::kRowCount; ++i) {
      const int64_t row = row_begin + products.row(i);
      const bool there = std::is_same_v<Sum, int32_t> && row < row_end;
      scales[i] = there ? args.finish.row_scales[row] : 0.0f;
      zeros[i] = there ? args.finish.row_zeros[row] : 0;
    }
    GPU_UNROLL
    for (int j = 0; j < Products::kColumnCount; ++j) {
      const int64_t c = column + products.column(j);
      if (c >= args.finish.n) continue;
      const ColumnFinish<Sum, kWidth> finish_columns(args.finish, group, columns, c);
      GPU_UNROLL
      for (int i = 0; i < Products::kRowCount; ++i) {
        const int64_t row = row_begin + products.row(i);
        if (row >= row_end) continue;
        Sum sums[kWidth];
        GPU_UNROLL
        for (int w = 0; w < kWidth; ++w) sums[w] = products.sum(i, j, w);
        const float* added = low_rank == nullptr ? nullptr : low_rank + (i * Products::kColumnCount + j) * kWidth;
        finish_columns.write(row, sums, scales[i], zeros[i], added);
      }
    }
  }

  // The rows of `projected` times lora_b, slice by slice of the rank, then what finish() does.
  GPU_DEVICE void finish_low_rank(Products& products) const {
    constexpr int kRowStride = kRankSlice + 1;
    static_assert((T::kRows * kRowStride + 3 + kRankSlice * T::kColumns) * 4 <= T::kTableAt, "both factors fit the stages");
    float* left = reinterpret_cast<float*>(memory);
    float* right = left + (T::kRows * kRowStride + 3) / 4 * 4;
    float added[Products::kRowCount * Products::kColumnCount * kWidth];
    GPU_UNROLL
    for (float& x : added) x = 0.0f;
    for (int first = 0; first < args.rank; first += kRankSlice) {
      sync_threads();
      for (int i = thread(); i < T::kRows * kRankSlice; i += T::kThreads) {
        const int r = i / kRankSlice, p = i % kRankSlice;
        const bool there = row_begin + r < row_end && first + p < args.rank;
        left[r * kRowStride + p] = there ? args.projected[(row_begin + r) * args.projected_stride + first + p] : 0.0f;
      }
      for (int i = thread(); i < kRankSlice * T::kColumns; i += T::kThreads) {
        const int p = i / T::kColumns;
        const int64_t c = column + i % T::kColumns, at = (first + p) * args.finish.n + c;
        float x = 0.0f;
        if (first + p < args.rank && c < args.finish.n) {
          x = args.lora_bf16 != 0 ? to_float(static_cast<const Bf16*>(args.lora_b)[at]) : static_cast<const float*>(args.lora_b)[at];
        }
        right[i] = x;
      }
      sync_threads();
      if (products.warp_k > 0) continue;
      const int slice = args.rank - first < kRankSlice ? args.rank - first : kRankSlice;
      for (int p = 0; p < slice; ++p) {
        float l[Products::kRowCount];
        GPU_UNROLL
        for (int i = 0; i < Products::kRowCount; ++i) l[i] = left[products.row(i) * kRowStride + p];
        GPU_UNROLL
        for (int j = 0; j < Products::kColumnCount; ++j) {
          float r[kWidth];
          load_pack(right + p * T::kColumns + products.column(j), r);
          GPU_UNROLL
          for (int i = 0; i < Products::kRowCount; ++i) {
            GPU_UNROLL
            for (int w = 0; w < kWidth; ++w) {
              float& x = added[(i * Products::kColumnCount + j) * kWidth + w];
              x = fma(l[i], r[w], x);
            }
          }
        }
      }
    }
    if (products.warp_k == 0) finish(products, added);
  }
};

template <typename Products, bool kLowRank>
GPU_KERNEL(Products::T::kThreads, 1)
void multiply_tiles(GemmArgs args) {
  TileRun<Products> run(args);
  int64_t tiles_m = args.tiles_m;
  if (args.offsets != nullptr && args.starts[args.groups] < tiles_m) tiles_m = args.starts[args.groups];
  const int64_t tiles = tiles_m * args.tiles_n;
  for (int64_t tile = block_x(); tile < tiles; tile += grid_x()) {
    run.find(tile, tiles_m);
    sync_threads();  // the tile before is done with the stages and the table
    run.fill_table();
    sync_threads();
    Products products;
    run.multiply(products);
    if (kLowRank && args.rank > 0) {
      run.finish_low_rank(products);
    } else if (products.warp_k == 0) {
      if (args.partial != nullptr) {
        run.store_partial(products);
      } else {
        run.finish(products, nullptr);
      }
    }
  }
}

}  // namespace gatun::gpu::gemm
