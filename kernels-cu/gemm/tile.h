// The one kernel of GEMM: a tile of `out` from blocks of rows and of packed weights, for every format. TileRun, which is most of it,
// is that of convolutions as well.
//
//   copy     cp.async, 16 bytes a thread and instruction, into a ring of stages; a stage holds one block of k (128 bytes) of the
//            tile's rows and columns for each of warps_k groups of warps. One barrier a stage: it says both that a stage has
//            come and that everyone is done with the one that is overwritten next.
//   rows     lie in shared memory as weights are packed, chunk c of row r at chunk c ^ (r % 8). A loader copies them there, and has
//            a table of the tile's rows in shared memory: MatrixRows here, so that gathered, grouped and missing rows (zeros) cost
//            the same; the windows of a convolution in conv/tile.h.
//   product  by warps, warps_m x warps_n of them side by side, each with its part of the sums in registers; products.h.
//   warps_k  groups of warps take every warps_k-th block of k. That keeps many bytes under way where there are few rows and the
//            weights' way from memory is all that counts.
//   finish   sums go to shared memory, where each thread takes runs of 4 columns of one place in all rows: it adds those of the
//            groups of warps in order, and what is the columns' own it reads once (epilogue.h). Rows of `out` are written in whole
//            sectors, and the code is there once instead of once for each sum of a thread. Where k is split over several blocks
//            of threads, the sums themselves are written.
//
// Sums depend on the shape of the tile and on where k is cut, which follow from sizes alone: no result depends on timing.
#pragma once

#include "gemm/epilogue.h"
#include "gemm/kernels.h"
#include "gpu/gpu.h"

namespace gatun::gpu::gemm {

// column_bytes: what a column has in a block, 128 bytes but for weights in groups; unit_bytes: and in a unit of those.
template <int rows, int columns, int warps_m, int warps_n, int warps_k, int stages, int column_bytes = kBlockBytes,
          int unit_bytes = unit_column_bytes(GTN_U4)>
struct Tile {
  static constexpr int kRows = rows, kColumns = columns;
  static constexpr int kWarpsM = warps_m, kWarpsN = warps_n, kWarpsK = warps_k, kStages = stages;
  static constexpr int kWarpRows = rows / warps_m, kWarpColumns = columns / warps_n;
  static constexpr int kThreads = kWarp * warps_m * warps_n * warps_k;
  static constexpr int kColumnBytes = column_bytes;
  static constexpr bool kQuantized = column_bytes < kBlockBytes;
  static constexpr int kUnitColumnBytes = unit_bytes, kUnitBytes = kPanelColumns * unit_bytes;
  static constexpr int kUnits = column_bytes / unit_bytes;  // in a block
  static constexpr int kWords = unit_bytes / 16;            // of eight integers
  static constexpr int kRecordsBytes = kQuantized ? columns / kPanelColumns * kUnits * kRecordBytes : 0;
  static constexpr int kRowsBytes = rows * kBlockBytes, kColumnsBytes = columns * column_bytes + kRecordsBytes;
  static constexpr int kStageBytes = warps_k * (kRowsBytes + kColumnsBytes);
  // Sums: a row has 8 more than columns, so that the 8 rows that a fragment of mma.sync has side by side share no bank.
  static constexpr int kSumsStride = columns + 8;
  static constexpr int kSumsBytes = warps_k * rows * kSumsStride * 4;
  static constexpr int kTableAt = stages * kStageBytes > kSumsBytes ? stages * kStageBytes : kSumsBytes;

  // With a table of a loader's entries.
  template <typename Entry>
  static constexpr int kSharedBytes = kTableAt + rows * static_cast<int>(sizeof(Entry));

  // What the copies and the exchange of sums take for granted.
  static_assert(rows * 8 % kThreads == 0 && (kQuantized || columns * 8 % kThreads == 0), "threads share chunks evenly");
  static_assert(!kQuantized || columns % kPanelColumns == 0, "units are copied whole");
  static_assert(kThreads % 64 == 0, "a thread copies into the same chunk of rows that are alike modulo 8");
  static_assert(columns % kPanelColumns == 0 || kPanelColumns % columns == 0, "tiles and panels have common edges");
  static_assert(kThreads % (columns / 4) == 0, "a thread finishes the same columns in all rows");
};

// Rows of one group, as rows of this part.
struct GroupRows {
  int begin, end;
};

// Of offsets that schedule_tiles() found to be right.
GPU_DEVICE GroupRows rows_of_group(const int64_t* offsets, int64_t group, int64_t first, int64_t rows) {
  const auto here = [&](int64_t row) { return static_cast<int>(row < first ? 0 : row - first > rows ? rows : row - first); };
  return {here(offsets[group]), here(offsets[group + 1])};
}

// Tiles go in bands of so many, down the rows and then to the right: those that run side by side share rows and weights in L2.
constexpr int kBandTiles = 8;

// The loader of a matrix's rows, taken in order or by number. A loader has an Entry for each row of a tile in its table, and
// copy_rows.
template <typename T>
struct MatrixRows {
  using Entry = const char*;  // where the row starts, null for one that there is not

  const TilesArgs& args;
  const char** const table = reinterpret_cast<const char**>(shared() + T::kTableAt);
  int whole_end = 0;  // blocks of k, up to it, that rows have all of

  GPU_DEVICE explicit MatrixRows(const TilesArgs& gemm) : args(gemm) {
    whole_end = static_cast<int>(args.k_bytes / kBlockBytes);
  }

  // Missing rows are zeros, written here once for all stages.
  GPU_DEVICE void fill_table(int row_begin, int row_end) const {
    for (int r = thread(); r < T::kRows; r += T::kThreads) {
      int64_t row = row_begin + r;
      const bool listed = row < row_end;
      if (listed && args.index != nullptr) row = args.index[row];
      table[r] = listed && row >= 0 && row < args.rows_a ? args.a + row * args.a_stride : nullptr;
    }
    sync_threads();
    const int row = thread() / 8, at = row * kBlockBytes + thread() % 8 * 16;
    for (int r = 0; r < T::kRows; r += T::kThreads / 8) {
      if (table[row + r] != nullptr) continue;
      for (int s = 0; s < T::kStages; ++s) {
        for (int b = 0; b < T::kWarpsK; ++b) {
          store_16(shared() + s * T::kStageBytes + b * T::kRowsBytes + r * kBlockBytes + at, {{0, 0, 0, 0}});
        }
      }
    }
  }

  // Of the tile's rows the blocks `block` to block + kWarpsK - 1 of k: zeros from block_end on, and from the end of a row on.
  GPU_DEVICE void copy_rows(char* to, int block, int block_end) const {
    if (block + T::kWarpsK <= (whole_end < block_end ? whole_end : block_end)) {
      copy_rows<true>(to, block, block_end);
    } else {
      copy_rows<false>(to, block, block_end);
    }
  }

 private:
  // kWhole: all of the blocks are there, all of each.
  template <bool kWhole>
  GPU_DEVICE void copy_rows(char* to, int block, int block_end) const {
    constexpr int kStep = T::kThreads / 8;
    const int chunk = thread() % 8, row = thread() / 8;
    const int at = row * kBlockBytes + (chunk ^ (row % 8)) * 16;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kRowsBytes) {
      const int64_t from = static_cast<int64_t>(block + b) * kBlockBytes + chunk * 16;
      const int64_t left = block + b < block_end ? args.k_bytes - from : 0;
      const int valid = kWhole || left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
      GPU_UNROLL
      for (int r = 0; r < T::kRows; r += kStep) {
        const char* start = table[row + r];
        if (start == nullptr) continue;
        if constexpr (kWhole) {
          copy_async_16(to + at + r * kBlockBytes, start + from);
        } else {
          copy_async_16(to + at + r * kBlockBytes, valid > 0 ? start + from : start, valid);
        }
      }
    }
  }
};

// A tile's sums: what does not depend on where rows come from and where sums go.
template <typename Products, typename Loader>
struct TileRun {
  using T = typename Products::T;
  using Sum = typename Products::Sum;

  const TilesArgs& args;
  const Loader loader;
  char* const memory = shared();
  int group = 0, row_begin, row_end, column;  // of the tile; columns from `column` on
  int block_begin, block_end;                 // of k
  int panels_left;                            // that there are from the tile's first on

  // `of`: what the loader takes.
  template <typename Args>
  GPU_DEVICE TileRun(const TilesArgs& gemm, const Args& of) : args(gemm), loader(of) {
    block_begin = block_y() * args.split_blocks;
    block_end = block_begin + args.split_blocks;
    if (block_end > args.blocks) block_end = args.blocks;
  }

  // Finds the columns of a tile, one of tiles_m by args.tiles_n, and gives which of tiles_m it is in.
  GPU_DEVICE int place(int64_t tile, int tiles_m) {
    const int64_t band_tiles = static_cast<int64_t>(kBandTiles) * args.tiles_n;
    const int band = static_cast<int>(tile / band_tiles), within = static_cast<int>(tile - band * band_tiles);
    const int left = tiles_m - band * kBandTiles, height = left < kBandTiles ? left : kBandTiles;
    const int tile_n = within / height;
    column = tile_n * T::kColumns;
    panels_left = args.panels - column / kPanelColumns;
    return band * kBandTiles + within - tile_n * height;
  }

  // The tile's rows, from `first` of those up to `end`.
  GPU_DEVICE void take_rows(int first, int end) {
    row_begin = first;
    row_end = end < first + T::kRows ? end : first + T::kRows;
  }

  // Of its columns the blocks `block` to block + kWarpsK - 1 of k. kWhole: all of them are there; else zeros from block_end on.
  template <bool kWhole>
  GPU_DEVICE void copy_columns(int slot, int block, const char* weights) const {
    char* to = memory + slot * T::kStageBytes + T::kWarpsK * T::kRowsBytes + thread() * 16;
    weights += static_cast<int64_t>(block) * kPanelBlockBytes + thread() * 16;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kColumnsBytes, weights += kPanelBlockBytes) {
      GPU_UNROLL
      for (int i = 0; i < T::kColumnsBytes; i += T::kThreads * 16) {
        // A panel beyond the last is the last once more: nobody takes those columns.
        const int panel = i / kPanelBlockBytes < panels_left ? i / kPanelBlockBytes : panels_left - 1;
        const char* from = weights + panel * args.panel_bytes + i % kPanelBlockBytes;
        if (kWhole || block + b < block_end) {
          copy_async_16(to + i, from);
        } else {
          copy_async_16(to + i, args.weights, 0);
        }
      }
    }
  }

  // Of its columns in groups: units, and for each the record of its group, of which groups of more than one unit have several
  // copies in a stage.
  GPU_DEVICE void copy_quantized(int slot, int block, const char* weights) const {
    constexpr int kPanelBytes = T::kUnits * T::kUnitBytes, kPanelRecords = T::kUnits * kRecordBytes;
    constexpr int kWeightsBytes = T::kColumns * T::kColumnBytes;
    const int64_t panel = static_cast<int64_t>(group) * args.panels + column / kPanelColumns;
    const char* records = args.records + panel * args.records_bytes;
    char* to = memory + slot * T::kStageBytes + T::kWarpsK * T::kRowsBytes;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kColumnsBytes) {
      const int64_t unit = static_cast<int64_t>(block + b) * T::kUnits;
      const int valid = block + b < block_end ? 16 : 0;
      GPU_UNROLL
      for (int i = thread() * 16; i < kWeightsBytes; i += T::kThreads * 16) {
        // A panel beyond the last is the last once more: nobody takes those columns.
        const int p = i / kPanelBytes < panels_left ? i / kPanelBytes : panels_left - 1;
        const char* from = weights + p * args.panel_bytes + unit * T::kUnitBytes + i % kPanelBytes;
        copy_async_16(to + i, valid > 0 ? from : args.weights, valid);
      }
      GPU_UNROLL
      for (int i = thread() * 16; i < T::kRecordsBytes; i += T::kThreads * 16) {
        const int p = i / kPanelRecords < panels_left ? i / kPanelRecords : panels_left - 1;
        const int64_t of_group = (unit + i % kPanelRecords / kRecordBytes) * kUnitDepth / args.group_size;
        const char* from = records + p * args.records_bytes + of_group * kRecordBytes + i % kRecordBytes;
        copy_async_16(to + kWeightsBytes + i, valid > 0 ? from : args.weights, valid);
      }
    }
  }

  GPU_DEVICE void copy_rows(int slot, int block) const { loader.copy_rows(memory + slot * T::kStageBytes, block, block_end); }

  GPU_DEVICE void copy_columns(int slot, int block, const char* weights) const {
    if constexpr (T::kQuantized) {
      copy_quantized(slot, block, weights);
    } else if (block + T::kWarpsK <= block_end) {
      copy_columns<true>(slot, block, weights);
    } else {
      copy_columns<false>(slot, block, weights);
    }
  }

  // Leaves the sums of this tile in shared memory.
  GPU_DEVICE void multiply() const {
    Products products;
    // A tile narrower than a panel has a part of each of its blocks.
    const int64_t panel = static_cast<int64_t>(group) * args.panels + column / kPanelColumns;
    const char* weights = args.weights + panel * args.panel_bytes + column % kPanelColumns * T::kColumnBytes;
    const int steps = block_end > block_begin ? (block_end - block_begin + T::kWarpsK - 1) / T::kWarpsK : 0;
    const auto rows_of = [&](int slot) { return memory + slot * T::kStageBytes + products.warp_k * T::kRowsBytes; };
    const auto columns_of = [&](int slot) {
      return memory + slot * T::kStageBytes + T::kWarpsK * T::kRowsBytes + products.warp_k * T::kColumnsBytes;
    };
    GPU_UNROLL
    for (int s = 0; s < T::kStages - 1; ++s) {
      if (s < steps) {
        copy_rows(s, block_begin + s * T::kWarpsK);
        copy_columns(s, block_begin + s * T::kWarpsK, weights);
      }
      copy_async_commit();
    }
    int slot = 0, next = T::kStages - 1;
    if constexpr (Products::kSteps > 1) {
      // Fragments of the step after, be it of the next stage, are on their way while those of this step are multiplied, and
      // copies are issued between two of them: nobody waits at the barrier with idle matrix units. Whoever has passed it has
      // all fragments of the stage before, so that the copies of the next round may overwrite it.
      copy_async_wait<T::kStages - 2>();
      sync_threads();
      if (steps > 0) products.load(0, rows_of(0), columns_of(0));
      for (int step = 0; step < steps; ++step) {
        const bool more = step + T::kStages - 1 < steps;
        const int block = block_begin + (step + T::kStages - 1) * T::kWarpsK;
        const int after = slot + 1 == T::kStages ? 0 : slot + 1;
        GPU_UNROLL
        for (int s = 0; s < Products::kSteps; ++s) {
          if (s == 0 && more) copy_rows(next, block);
          if (s == 1) {
            if (more) copy_columns(next, block, weights);
            copy_async_commit();
          }
          if (s + 1 < Products::kSteps) {
            products.load(s + 1, rows_of(slot), columns_of(slot));
          } else {
            copy_async_wait<T::kStages - 2>();
            sync_threads();
            if (step + 1 < steps) products.load(0, rows_of(after), columns_of(after));
          }
          products.multiply(s);
        }
        products.end_block();
        next = slot;
        slot = after;
      }
    } else {
      for (int step = 0; step < steps; ++step) {
        copy_async_wait<T::kStages - 2>();
        sync_threads();
        const int block = block_begin + (step + T::kStages - 1) * T::kWarpsK;
        if (step + T::kStages - 1 < steps) {
          copy_rows(next, block);
          copy_columns(next, block, weights);
        }
        copy_async_commit();
        products.multiply(rows_of(slot), columns_of(slot));
        slot = slot + 1 == T::kStages ? 0 : slot + 1;
        next = next + 1 == T::kStages ? 0 : next + 1;
      }
    }
    products.complete();
    copy_async_wait<0>();
    sync_threads();  // everyone is done with the stages
    products.store(reinterpret_cast<Sum*>(memory) + products.warp_k * T::kRows * T::kSumsStride, T::kSumsStride);
    sync_threads();
  }

  // Four sums of the tile, from column c on.
  GPU_DEVICE void load_sums(int row, int c, Sum (&x)[4]) const {
    const Sum* from = reinterpret_cast<const Sum*>(memory) + row * T::kSumsStride + c;
    GPU_UNROLL
    for (int g = 0; g < T::kWarpsK; ++g) {
      const Bytes16 v = load_16(from + g * T::kRows * T::kSumsStride);
      GPU_UNROLL
      for (int w = 0; w < 4; ++w) x[w] = g == 0 ? sum_of<Sum>(v.word[w]) : x[w] + sum_of<Sum>(v.word[w]);
    }
  }

  GPU_DEVICE void store_partial() const {
    const int c = thread() % (T::kColumns / 4) * 4;
    const int64_t stride = static_cast<int64_t>(args.panels) * kPanelColumns;
    if (column + c >= stride) return;
    char* partial = static_cast<char*>(args.partial) + ((static_cast<int64_t>(block_y()) * args.rows + row_begin) * stride + column + c) * 4;
    GPU_ROLLED
    for (int r = thread() / (T::kColumns / 4); row_begin + r < row_end; r += T::kThreads / (T::kColumns / 4)) {
      Sum x[4];
      load_sums(r, c, x);
      store_16(partial + r * stride * 4, {{bits_of_sum(x[0]), bits_of_sum(x[1]), bits_of_sum(x[2]), bits_of_sum(x[3])}});
    }
  }
};

// A tile of GEMM.
template <typename Products>
struct GemmRun : TileRun<Products, MatrixRows<typename Products::T>> {
  using T = typename Products::T;
  using Sum = typename Products::Sum;
  using Base = TileRun<Products, MatrixRows<T>>;
  using Base::args, Base::memory, Base::group, Base::row_begin, Base::row_end, Base::column;

  GPU_DEVICE explicit GemmRun(const TilesArgs& gemm) : Base(gemm, gemm) {}

  GPU_DEVICE void find(int64_t tile, int tiles_m) {
    int tile_m = Base::place(tile, tiles_m);
    GroupRows rows = {0, args.rows};
    if (args.offsets != nullptr) {
      // The last group that does not start after the tile.
      int low = 0, high = args.groups;
      while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        (args.starts[middle] <= tile_m ? low : high) = middle;
      }
      group = low;
      tile_m -= args.starts[group];
      rows = rows_of_group(args.offsets, group, args.first, args.rows);
    }
    Base::take_rows(rows.begin + tile_m * T::kRows, rows.end);
  }

  GPU_DEVICE void finish() const {
    const int c = thread() % (T::kColumns / 4) * 4;
    if (column + c >= args.finish.n) return;
    const ColumnFinish<Sum, 4> columns(args.finish, group, static_cast<int64_t>(args.panels) * kPanelColumns, column + c);
    GPU_ROLLED
    for (int r = thread() / (T::kColumns / 4); row_begin + r < row_end; r += T::kThreads / (T::kColumns / 4)) {
      float x[4];
      if (args.rank > 0) {
        load_pack(reinterpret_cast<const float*>(memory) + r * T::kSumsStride + c, x);
      } else {
        Sum sums[4];
        Base::load_sums(r, c, sums);
        columns.scale(row_begin + r, sums, x);
      }
      columns.write(row_begin + r, x);
    }
  }

  GPU_DEVICE float lora_b(int64_t i) const {
    if (args.lora_dtype == GTN_F32) return static_cast<const float*>(args.lora_b)[i];
    if (args.lora_dtype == GTN_BF16) return to_float(static_cast<const Bf16*>(args.lora_b)[i]);
    return to_float(static_cast<const Half*>(args.lora_b)[i]);
  }

  // Turns sums into what they stand for, plus the rows of `projected` times lora_b, in their places. A thread has 4 rows of 4
  // columns at a time: 4 of the rank are 4 reads of rows, which many threads share, and 16 of columns for 64 multiply-adds.
  GPU_DEVICE void add_low_rank() const {
    constexpr int kStrip = 4, kQuads = T::kColumns / 4;
    GPU_ROLLED
    for (int s = thread(); s < T::kRows / kStrip * kQuads; s += T::kThreads) {
      const int c = s % kQuads * 4, first = s / kQuads * kStrip;
      const int rows = row_end - row_begin - first;
      const int64_t n = args.finish.n;
      if (rows <= 0 || column + c >= n) continue;
      const ColumnFinish<Sum, 4> columns(args.finish, group, static_cast<int64_t>(args.panels) * kPanelColumns, column + c);
      float added[kStrip][4];
      GPU_UNROLL
      for (int r = 0; r < kStrip; ++r) {
        GPU_UNROLL
        for (int w = 0; w < 4; ++w) added[r][w] = 0.0f;
      }
      // The stride of `projected` is a multiple of 4, and zeros fill it up. Rows beyond the last are the last once more.
      const float* projected = args.projected + static_cast<int64_t>(row_begin + first) * args.projected_stride;
      for (int p = 0; p < args.rank; p += 4) {
        float up[4][4];
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int64_t at = static_cast<int64_t>(p + e) * n + column + c;
          GPU_UNROLL
          for (int w = 0; w < 4; ++w) {
            const bool there = p + e < args.rank && w < columns.count;
            up[e][w] = there ? lora_b(at + w) : 0.0f;
          }
        }
        GPU_UNROLL
        for (int r = 0; r < kStrip; ++r) {
          float down[4];
          load_pack(projected + (r < rows ? r : rows - 1) * args.projected_stride + p, down);
          GPU_UNROLL
          for (int e = 0; e < 4; ++e) {
            GPU_UNROLL
            for (int w = 0; w < 4; ++w) added[r][w] = fma(down[e], up[e][w], added[r][w]);
          }
        }
      }
      GPU_UNROLL
      for (int r = 0; r < kStrip; ++r) {
        if (r >= rows) break;
        Sum sums[4];
        float x[4];
        Base::load_sums(first + r, c, sums);
        columns.scale(row_begin + first + r, sums, x);
        GPU_UNROLL
        for (int w = 0; w < 4; ++w) x[w] = x[w] + added[r][w];
        store_pack(reinterpret_cast<float*>(memory) + (first + r) * T::kSumsStride + c, x);
      }
    }
    sync_threads();
  }
};

template <typename Products, int kBlocks>
GPU_KERNEL(Products::T::kThreads, kBlocks)
void multiply_tiles(TilesArgs args) {
  GemmRun<Products> run(args);
  int tiles_m = args.tiles_m;
  if (args.offsets != nullptr && args.starts[args.groups] < tiles_m) tiles_m = args.starts[args.groups];
  const int64_t tiles = static_cast<int64_t>(tiles_m) * args.tiles_n;
  for (int64_t tile = block_x(); tile < tiles; tile += grid_x()) {
    run.find(tile, tiles_m);
    sync_threads();  // the tile before is done with the sums and the table
    run.loader.fill_table(run.row_begin, run.row_end);
    sync_threads();
    run.multiply();
    if (args.partial != nullptr) {
      run.store_partial();
    } else {
      if (args.rank > 0) run.add_low_rank();
      run.finish();
    }
  }
}

}  // namespace gatun::gpu::gemm
