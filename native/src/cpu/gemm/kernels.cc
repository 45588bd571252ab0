// GEMM with packed weights, one block of `out` at a time: FP32, BF16, F16 and INT8 (u8 rows by s8 weights), and FP32 rows by
// weights of FP8, of 4 and 8 bits, and pruned ones, with a fused epilogue.
//
// A block of r rows and c columns does r * c * k multiply-adds; it reads r * k elements of rows and c * k weights and
// writes r * c outputs. From 16 rows or so on the multiply-add units bind; below that the stream of weights does (one
// pass, a panel after the other, prefetched). After Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication" (2008), and Van Zee and van de Geijn, "BLIS" (2015): k is cut into depths whose slice of a panel
// stays in the nearest cache while all the block's row tiles pass over it, and the block's slice of the rows stays in
// the L2 cache. Between depths the sums rest in the worker's scratch memory; they go on where they stopped, so cutting
// k changes no bit. The epilogue is applied to each tile after its last depth.
//
// The parts: microkernels.h has the register tiles, quantized.h weights of 4 and 8 bits, float8.h those of FP8, sparse.h
// pruned ones, rows.h prepares `a`, low_rank.h adds a product of low rank, epilogue.h finishes. tiled.h has what AMX
// multiplies, from the same packed weights.
//
// Limits: k of S8 is at most 66311 (the core checks), where 255 * 127 * k still fits 32 bits. A row of S8 whose whole
// range is a few hundred denormals may have z > 255 and wrap for k > 44266, an error below 1e-35 * column scale.
#include "cpu/gemm/gemm.h"

#include <type_traits>

#include "cpu/caches.h"
#include "cpu/gemm/epilogue.h"
#include "cpu/gemm/float8.h"
#include "cpu/gemm/low_rank.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/gemm/quantized.h"
#include "cpu/gemm/rows.h"
#include "cpu/gemm/sparse.h"
#include "cpu/gemm/tiled.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// The slice of a panel that row tiles pass over in turn, as a part of the L2 cache. It need not fit the L1 cache: it is
// read in order, and 11 bytes a cycle from L2 keep two multiply-add units busy. It should leave most of the L2 cache to
// the rows. Measured on Zen 3 and Zen 5, 12 to 96 KB differ by less than the noise.
//
// Tiles of AMX read 64 bytes a cycle at their best, half of them weights: those come from the L1 cache, and rows from L2.
template <typename Format>
int64_t slice_bytes() {
  return kTiled<Format> ? caches().l1 * 2 / 3 : caches().l2 / 8;
}

// A block's rows, over all of k, that are taken to stay in L2 while panels stream through it. Then a panel is finished
// before the next begins; else k is the outer loop, at the price of the whole block's sums in scratch.
int64_t resident_row_bytes() { return caches().l2 / 2; }

// Rows of a block: with AVX-512 more, because its panels come faster from L3 than they can, and L2 is larger there.
constexpr int64_t kBlockRows = kRowTile >= 12 ? 96 : 48;

// Tiles ask L3 for 2 KB of weights in 64 cycles for each 32 rows of a block: with 128, for 8 bytes a cycle.
constexpr int64_t kTiledBlockRows = 128;

template <typename Format>
HWY_INLINE constexpr int panels_for(int64_t rows) {
  return kTiled<Format> ? (rows <= kMostRows / 2 ? 2 : 1) : panels_at_once(rows);
}

// Weights in groups are unpacked for FormatF32 where they meet more rows than a tile.
template <typename Format>
constexpr bool kQuantized = false;
template <int kBits>
constexpr bool kQuantized<FormatQuantized<kBits>> = true;

template <bool kUnpacked, typename Format>
struct MultipliedAsOf {
  using Type = Format;
};
template <typename Format>
struct MultipliedAsOf<true, Format> {
  using Type = FormatF32;
};
template <typename Format>
using MultipliedAs = typename MultipliedAsOf<kQuantized<Format>, Format>::Type;

// Of a packed weight.
template <typename Format>
constexpr int64_t weight_bits = Format::kElementBytes * 8;
template <int kBits>
constexpr int64_t weight_bits<FormatQuantized<kBits>> = kBits;

template <typename Format>
struct Blocking {
  int64_t depth, depths;
  bool panel_by_panel;

  Blocking(int64_t k, int64_t rows) {
    if (kQuantized<Format>) {
      depth = kQuantizedDepth;
      depths = k <= depth ? 1 : (k + depth - 1) / depth;
    } else {
      cut(k);
    }
    panel_by_panel = depths == 1 || rows * k <= resident_row_bytes() / static_cast<int64_t>(sizeof(typename Format::Row));
  }

 private:
  void cut(int64_t k) {
    constexpr int64_t kUnit = kTiled<Format> ? 64 / Format::kElementBytes : kRowPadding;
    int64_t most = slice_bytes<Format>() / (kPanel * Format::kElementBytes) / kUnit * kUnit;
    if (most < kUnit) most = kUnit;
    depths = k <= most ? 1 : (k + most - 1) / most;
    depth = ((k + depths - 1) / depths + kUnit - 1) / kUnit * kUnit;
  }
};

// The panels of lora_b that one step takes, in front of the sums.
int64_t low_rank_elements(int64_t rank) { return rank * kPanel * panels_at_once(1); }

// The slice of a panel of weights in groups that a step of more than a tile unpacks, behind lora_b; such a step takes one panel.
template <typename Format>
int64_t unpacked_elements(int64_t rows) {
  return kQuantized<Format> && rows > kRowTile ? kQuantizedDepth * kPanel : 0;
}

// Brings in what the epilogue writes, while the products before it are under way.
HWY_INLINE void prefetch_out(const GemmRun& run, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const int64_t bytes = run.out_dtype == GTN_F32 ? 4 : 2;
  const int64_t count = (run.n - column < columns ? run.n - column : columns) * bytes;
  for (int64_t r = row; r < row + rows; ++r) {
    const char* out = static_cast<const char*>(run.out) + (r * run.out_stride + column) * bytes;
    for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(out + i, 1);
    if (run.residual == nullptr) continue;
    const char* residual = static_cast<const char*>(run.residual) + (r * run.out_stride + column) * bytes;
    for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(residual + i);
  }
}

template <typename Format>
void compute_block(const GemmRun& run, const GemmBlock& block, void* memory) {
  using Row = typename Format::Row;
  using Weight = typename Format::Weight;
  if (block.rows <= 0) return;
  const Finish finish_tile = find_finish(run);
  const Blocking<Format> blocking(run.k, block.rows);
  const int64_t width = panels_for<Format>(block.rows);
  float* low_rank = static_cast<float*>(memory);
  float* unpacked = low_rank + low_rank_elements(run.rank);
  auto* scratch = reinterpret_cast<typename Format::Sum*>(unpacked + unpacked_elements<Format>(block.rows));
  const RowTiles<Format> tiles(block.rows);
  TileUse use;
  const int64_t panel_stride = run.panel_bytes / static_cast<int64_t>(sizeof(Weight));
  const Row* rows = static_cast<const Row*>(run.rows) + block.row * run.row_stride;

  // `next_offset` bytes after the first panel begins what is multiplied after this.
  auto step = [&](int64_t panel, int64_t panels, int64_t depth_index, int64_t next_offset)
                  __attribute__((always_inline)) {
    const int64_t p = depth_index * blocking.depth;
    const int64_t depth = run.k - p < blocking.depth ? run.k - p : blocking.depth;
    const bool last = depth_index + 1 == blocking.depths;
    ProductOf<MultipliedAs<Format>> product;
    product.steps = (depth + Format::kGroup - 1) / Format::kGroup;
    product.row_stride = run.row_stride;
    const unsigned char* first_panel = run.panels + (block.panel + panel) * run.panel_bytes;
    if constexpr (kQuantized<Format>) {
      unpack<Format>(run, first_panel, p, depth, unpacked);
      product.weights = unpacked;
    } else {
      product.weights = reinterpret_cast<const Weight*>(first_panel) + p * kPanel;
    }
    product.weights_stride = panel_stride;
    product.sums_stride = block.rows * kPanel;
    product.accumulate = depth_index > 0;
    const bool adds = last && run.rank > 0;
    for (int64_t i = 0; adds && i < panels; ++i) {
      widen_lora_b(run, (block.panel + panel + i) * kPanel, low_rank + i * run.rank * kPanel);
    }
    // The weights of the next step, shared out to the passes of all row tiles over those of this one.
    const unsigned char* next = first_panel + next_offset;
    product.next_bytes = kPanel * Format::kGroup * weight_bits<Format> / 8 / tiles.count;
    int64_t row = 0;
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
      const int64_t count = tiles.at(tile, row);
      product.next = next + tile * product.next_bytes * product.steps;
      if (last) prefetch_out(run, block.row + row, count, (block.panel + panel) * kPanel, panels * kPanel);
      product.rows = rows + row * run.row_stride + p;
      product.sums = scratch + (blocking.depths == 1 ? 0 : row * kPanel) +
                     (blocking.panel_by_panel ? 0 : panel * product.sums_stride);
      multiply<MultipliedAs<Format>>(use, count, panels, product);
      if (last) {
        for (int64_t i = 0; i < panels; ++i) {
          HWY_ALIGN float added[kMostRows * kPanel];
          if (adds) multiply_low_rank(run, block.row + row, count, low_rank + i * run.rank * kPanel, added);
          finish_tile(run, product.sums + i * product.sums_stride, adds ? added : nullptr, block.row + row, count,
                      (block.panel + panel + i) * kPanel);
        }
      }
      row += count;
    }
  };

  const int64_t outer = blocking.panel_by_panel ? 1 : blocking.depths;
  const int64_t inner = blocking.panel_by_panel ? blocking.depths : 1;
  const int64_t depth_bytes = blocking.depth * kPanel * weight_bits<Format> / 8;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t panel = 0; panel < block.panels;) {
      const int64_t here = block.panels - panel >= width ? width : 1;
      for (int64_t i = 0; i < inner; ++i) {
        // The next depth; after a panel's last, the next panel, which lies behind it. With k outside, the same depth of the
        // next panel, and after the last panel the next depth of the first.
        int64_t next = (o + i + 1) * depth_bytes;
        if (blocking.panel_by_panel) {
          if (i + 1 == inner) next = here * run.panel_bytes;
        } else {
          next = panel + here < block.panels ? next - depth_bytes + here * run.panel_bytes
                                             : next - panel * run.panel_bytes;
        }
        step(panel, here, o + i, next);
      }
      panel += here;
    }
  }
  use.end();
}

// Rows by weights in groups or pruned ones: each tile of rows is one pass over each panel.
template <typename Format>
void compute_packed_tiles(const GemmRun& run, const GemmBlock& block, void* memory) {
  if (block.rows <= 0) return;
  const Finish finish_tile = find_finish(run);
  const int64_t width = quantized_panels_at_once(block.rows);
  float* low_rank = static_cast<float*>(memory);
  float* sums = low_rank + low_rank_elements(run.rank);
  const int64_t tiles = (block.rows + Format::kTileRows - 1) / Format::kTileRows;
  const int64_t tile_rows = (block.rows + tiles - 1) / tiles;
  for (int64_t panel = 0; panel < block.panels;) {
    const int64_t here = block.panels - panel >= width ? width : 1;
    const int64_t column = (block.panel + panel) * kPanel;
    const unsigned char* first = run.panels + (block.panel + panel) * run.panel_bytes;
    for (int64_t i = 0; run.rank > 0 && i < here; ++i) widen_lora_b(run, column + i * kPanel, low_rank + i * run.rank * kPanel);
    for (int64_t done = 0; done < block.rows; done += tile_rows) {
      const int64_t row = block.row + done, count = block.rows - done < tile_rows ? block.rows - done : tile_rows;
      const float* rows = static_cast<const float*>(run.rows) + row * run.row_stride;
      prefetch_out(run, row, count, column, here * kPanel);
      if constexpr (std::is_same_v<Format, FormatSparse>) {
        multiply_sparse(run, rows, count, first, here, sums);
      } else {
        multiply_quantized<Format>(run, rows, count, first, here, sums);
      }
      for (int64_t i = 0; i < here; ++i) {
        HWY_ALIGN float added[kRowTile * kPanel];
        if (run.rank > 0) multiply_low_rank(run, row, count, low_rank + i * run.rank * kPanel, added);
        finish_tile(run, sums + i * count * kPanel, run.rank > 0 ? added : nullptr, row, count, column + i * kPanel);
      }
    }
    panel += here;
  }
}

template <int kBits>
void compute_quantized(const GemmRun& run, const GemmBlock& block, void* scratch) {
  if (block.rows <= kRowTile) {
    compute_packed_tiles<FormatQuantized<kBits>>(run, block, scratch);
  } else {
    compute_block<FormatQuantized<kBits>>(run, block, scratch);
  }
}

void compute(const GemmRun& run, const GemmBlock& block, void* scratch) {
  if (run.format == GTN_F32) {
    compute_block<FormatF32>(run, block, scratch);
  } else if (run.format == GTN_BF16) {
    compute_block<GemmBf16>(run, block, scratch);
  } else if (run.format == GTN_F16) {
    compute_block<FormatF16>(run, block, scratch);
  } else if (run.format == GTN_S8) {
    compute_block<GemmS8>(run, block, scratch);
  } else if (run.format == GTN_U4) {
    compute_quantized<4>(run, block, scratch);
  } else if (run.format == GTN_U8) {
    compute_quantized<8>(run, block, scratch);
  } else if (run.format == GTN_BF16_2OF4) {
    compute_packed_tiles<FormatSparse>(run, block, scratch);
  } else if (run.format == GTN_F8E4M3) {
    compute_block<FormatF8<f8e4m3>>(run, block, scratch);
  } else {
    compute_block<FormatF8<f8e5m2>>(run, block, scratch);
  }
}

template <typename Format>
int64_t sums_bytes(int64_t k, int64_t rows, int64_t panels) {
  const int64_t at_once = Blocking<Format>(k, rows).panel_by_panel ? panels_at_once(1) : panels + panels_at_once(1);
  return (at_once * rows * kPanel + unpacked_elements<Format>(rows)) * static_cast<int64_t>(sizeof(typename Format::Sum));
}

int64_t scratch_bytes(int32_t format, int64_t k, int64_t rows, int64_t panels, int64_t rank) {
  const int64_t bytes = format == GTN_F32    ? sums_bytes<FormatF32>(k, rows, panels)
                        : format == GTN_BF16 ? sums_bytes<GemmBf16>(k, rows, panels)
                        : format == GTN_F16  ? sums_bytes<FormatF16>(k, rows, panels)
                        : format == GTN_S8   ? sums_bytes<GemmS8>(k, rows, panels)
                        : is_f8(format)      ? sums_bytes<FormatF8<f8e4m3>>(k, rows, panels)
                        : format == GTN_BF16_2OF4 ? sums_bytes<FormatF32>(k, rows, panels)
                                             : sums_bytes<FormatQuantized<4>>(k, rows, panels);
  const int64_t finishing = bytes + low_rank_elements(rank) * static_cast<int64_t>(sizeof(float));
  const int64_t most = rank > 0 && kProjectionBytes > finishing ? kProjectionBytes : finishing;
  return (most + 63) / 64 * 64;
}

}  // namespace

extern const GemmKernels gemm_kernels;
const GemmKernels gemm_kernels = {
    {kPanel, GemmS8::kGroup, kRowTile, kBlockRows, kTiled<GemmS8> ? kMostRows : 0, kTiled<GemmS8> ? kTiledBlockRows : 0,
     sizeof(GemmS8::Row), sizeof(GemmBf16::Row), std::is_same_v<GemmS8::Row, uint8_t>},
    prepare, project, scratch_bytes, compute};

}  // namespace gatun::cpu::GATUN_LEVEL
