// What the two products of attention have in common on all units, and those of the FP32 units. mma_products.h has those of
// mma.sync, hopper.cu those of wgmma, and rocm-adapter/attention those of MFMA and WMMA.
//
// A warp has 16 rows of a tile. Its sums come in tiles of columns: for scores columns are keys, for outputs they are elements
// of the head. Which of them a thread has is what units differ in, and what a Layout says, so that all between the products is
// written once:
//
//   kTile          columns of a tile
//   kSums          of a tile, that a thread has
//   kRows          of a thread, eight apart
//   row()          its first, of the warp's 16
//   row_of(i)      which of its rows sum i of a tile is of; of each two sums that begin with an even one it is the same
//   column(i)      of the tile's, the one that sum i is of
//   kSameRow       lanes that differ by these powers of two, from the first to before the end, share rows
//   kSameColumn    and these share columns
//
// Shared memory. A row is a whole number of chunks of 16 bytes. Chunk c of row r lies at c ^ (r & 7) where rows are multiples of
// 128 bytes, and else rows are an odd number of chunks apart: in both cases eight rows' chunks of one number lie in all 32 banks.
#pragma once

#include "attention/kernels.h"
#include "gpu/gpu.h"

namespace gatun::gpu::attention {

GPU_HOST_DEVICE constexpr int row_stride(int chunks) { return chunks % 8 == 0 ? chunks : chunks | 1; }

// kChunks: how many chunks a row has where that is known while compiling, else 0.
template <int kChunks>
struct Rows {
  char* data;
  int given;

  GPU_DEVICE int chunks() const { return kChunks > 0 ? kChunks : given; }
  GPU_DEVICE int stride() const { return row_stride(chunks()); }
  GPU_DEVICE int swizzle() const { return chunks() % 8 == 0 ? 7 : 0; }
  GPU_DEVICE int offset(int chunk) const { return chunk * 16; }
  GPU_DEVICE char* at(int row, int chunk) const { return data + (row * stride() + (chunk ^ (row & swizzle()))) * 16; }
};

// ---- Weights as operands -------------------------------------------------------------------------------------------
//
// A matrix unit takes 16-bit operands, and a weight rounded to BF16 errs by 2^-9 of itself, far more than FP32 arithmetic does.
// So a weight is split into a sum of 16-bit terms, each the rounding of what the ones before left: BF16 takes two, for 2^-17,
// which is far below the rounding of a 16-bit output, and three where the output is FP32; F16 takes two, for 2^-22, and weights
// are scaled by 2^12 so that small ones are no denormals. The sums of weights are of the FP32 values. That costs 2 dk + 4 dv
// matrix operations for a pair of a query and a key, in place of 2 dk + 2 dv.

// Takes what a pair of 16-bit numbers holds of x and y from them.
GPU_DEVICE uint32_t take_pair(float& x, float& y, Bf16*) {
  const uint32_t pair = pack_bf16(x, y);
  x -= float_of(pair << 16);
  y -= float_of(pair & 0xffff0000u);
  return pair;
}
GPU_DEVICE uint32_t take_pair(float& x, float& y, Half*) {
  const uint32_t pair = pack_half(x, y);
  x -= to_float(Half{static_cast<uint16_t>(pair)});
  y -= to_float(Half{static_cast<uint16_t>(pair >> 16)});
  return pair;
}

// The terms of a weight at most, and the power of two that weights are scaled by.
struct Split {
  int terms;
  float shift;
};
template <typename T>
constexpr Split kSplit = {3, 0.0f};
template <>
constexpr Split kSplit<Half> = {2, 12.0f};

// ---- Layouts -------------------------------------------------------------------------------------------------------

// How the four warps of a thread block share a tile: each has 16 rows of it and a part of the keys of a block. Warps beyond
// kRowWarps * kKeyWarps copy alone: with so few keys at once, large heads fit shared memory.
template <int kRowWarps, int kColumnsOfTile, int kKeysOfBlock, int kKeyWarpsOfRow = kTileWarps / kRowWarps>
struct TileShape {
  static constexpr int kColumns = kColumnsOfTile;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kKeyWarps = kKeyWarpsOfRow;
  static constexpr int kKeys = kKeysOfBlock;
  static constexpr int kWarpKeys = kKeys / kKeyWarps;
  static_assert(kRowWarps * kKeyWarps <= kTileWarps);
};

// Powers of two, from the first to before the end.
struct LaneBits {
  int first, end;
};

// Four lanes share a row, and each has two neighbours of eight columns: the sums of mma m16n8k16 (PTX ISA 9.0, section
// 9.7.14.5.8), of which lane l has c0 and c1 in row l / 4 and c2 and c3 eight rows below; in a warp of 64 each lane has one
// row.
struct QuadLayout {
  static constexpr int kTile = 8, kRows = 64 / kWarp, kSums = 2 * kRows;
  static constexpr LaneBits kSameRow = {1, 4}, kSameColumn = {4, kWarp};
  static GPU_DEVICE int row() { return lane() / 4; }
  static GPU_HOST_DEVICE constexpr int row_of(int i) { return i / 2; }
  static GPU_DEVICE int column(int i) { return lane() % 4 * 2 + i % 2; }

  // The outputs of the thread's r-th row, times a factor, into a row of shared memory.
  template <int kTiles>
  static GPU_DEVICE void store_row(float* to, int r, const float (&o)[kTiles][kSums], float factor) {
    GPU_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      store_8(to + n * kTile + column(0), {{bits_of(o[n][2 * r] * factor), bits_of(o[n][2 * r + 1] * factor)}});
    }
  }
};

// ---- FP32 units ----------------------------------------------------------------------------------------------------

// kExact: the head sizes of keys and values are both kColumns, which leaves addresses to the compiler.
template <typename ShapeOfTile, bool kExactSizes>
struct ScalarProducts {
  using Element = float;
  using Shape = ShapeOfTile;
  using Layout = QuadLayout;
  static constexpr int kKeys = Shape::kWarpKeys, kColumns = Shape::kColumns;
  static constexpr int kPerChunk = 4;
  static constexpr bool kExact = kExactSizes, kTogether = false;
  using InputRows = Rows<kExact ? kColumns / kPerChunk : 0>;
  static constexpr int kGroup = 4;  // tiles of columns between two branches
  static constexpr int kChunkStep = 1, kValueStep = 2 * kGroup;
  static constexpr float kShift = 0.0f;
  static constexpr int kSums = Layout::kSums, kRows = Layout::kRows;

  static GPU_DEVICE void publish() {}

  static GPU_DEVICE void add_products(float& sum, const Bytes16& x, const Bytes16& y) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) sum = fma(float_of(x.word[i]), float_of(y.word[i]), sum);
  }

  static GPU_DEVICE void scores(const InputRows& q, int row, const InputRows& k, int key, float (&s)[kKeys / 8][kSums]) {
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      GPU_UNROLL
      for (int i = 0; i < kSums; ++i) s[n][i] = 0.0f;
    }
    const int q_row = row + Layout::row(), k_row = key + Layout::column(0);
    for (int c = 0; c < q.chunks(); ++c) {
      Bytes16 q_chunk[kRows];
      GPU_UNROLL
      for (int r = 0; r < kRows; ++r) q_chunk[r] = load_16(q.at(q_row + r * 8, c));
      GPU_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          const Bytes16 k_chunk = load_16(k.at(n * 8 + k_row + i, c));
          GPU_UNROLL
          for (int r = 0; r < kRows; ++r) add_products(s[n][2 * r + i], q_chunk[r], k_chunk);
        }
      }
    }
  }

  template <bool kMasked>
  static GPU_DEVICE void weigh(float (&p)[kKeys / 8][kSums], const InputRows& v, int first, int columns, uint32_t used, bool,
                               float (&o)[kColumns / 8][kSums]) {
    const int l = lane(), column = Layout::column(0);
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      GPU_ROLLED
      for (int t = 0; t < 4; ++t) {
        const int from = (l & ~3) + t;
        const uint32_t bits = kMasked ? shuffle(used, from) : 0u;
        GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          float weight[kRows];
          GPU_UNROLL
          for (int r = 0; r < kRows; ++r) weight[r] = shuffle(p[n][2 * r + i], from);
          if (kMasked && (bits >> (kSums * n + i) & 1) == 0) continue;  // the same for all lanes
          const int key = first + n * 8 + t * 2 + i;
          GPU_UNROLL
          for (int group = 0; group < kColumns / 8; group += kGroup) {
            if (kExact || group * 8 < columns) {
              GPU_UNROLL
              for (int d = group; d < group + kGroup; ++d) {
                const Bytes8 value = load_8(v.at(key, d * 2 + column / 4) + column % 4 * 4);
                GPU_UNROLL
                for (int r = 0; r < kRows; ++r) {
                  o[d][2 * r] = fma(weight[r], float_of(value.word[0]), o[d][2 * r]);
                  o[d][2 * r + 1] = fma(weight[r], float_of(value.word[1]), o[d][2 * r + 1]);
                }
              }
            }
          }
        }
      }
    }
  }
};

}  // namespace gatun::gpu::attention
