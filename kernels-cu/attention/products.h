// The two products of attention, on matrix units and on FP32 units, with one layout of sums, so that all else is written once.
//
// A warp has 16 rows of a tile. Its sums are those of mma m16n8k16 (PTX ISA 9.0, section 9.7.14.5.8): of columns 8 n to 8 n + 7
// lane l holds c[n][0] and c[n][1] in row l / 4 and columns 8 n + 2 (l % 4) and the one after, and c[n][2] and c[n][3] in row
// l / 4 + 8. For scores columns are keys, for outputs they are elements of the head. As the left operand of the second product
// the scores already lie where the unit wants them.
//
// Weights on matrix units. The unit takes 16-bit operands, and a weight rounded to BF16 errs by 2^-9 of itself, far more than
// FP32 arithmetic does. So a weight is split into a sum of 16-bit terms, each the rounding of what the ones before left: BF16
// takes two, for 2^-17, which is far below the rounding of a 16-bit output, and three where the output is FP32; F16 takes two,
// for 2^-22, and weights are scaled by 2^12 so that small ones are no denormals. The sums of weights are of the FP32 values.
// That costs 2 dk + 4 dv matrix operations for a pair of a query and a key, in place of 2 dk + 2 dv.
//
// Shared memory. A row is a whole number of chunks of 16 bytes. Chunk c of row r lies at c ^ (r & 7) where rows are multiples of
// 128 bytes, and else rows are an odd number of chunks apart: in both cases eight rows' chunks of one number lie in all 32 banks.
#pragma once

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

GPU_DEVICE float convert_to(float x, float*) { return x; }
GPU_DEVICE Bf16 convert_to(float x, Bf16*) { return to_bf16(x); }
GPU_DEVICE Half convert_to(float x, Half*) { return to_half(x); }

// ---- Matrix units --------------------------------------------------------------------------------------------------

GPU_DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Bf16*) { mma_bf16(c, a, b); }
GPU_DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half*) { mma_f16(c, a, b); }

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

// How the four warps of a thread block share a tile: each has 16 rows and all keys of a block, or all have the same 16 rows and each
// a quarter of the keys.
constexpr int kTileWarps = 4;

// kExact: the head sizes of keys and values are both kColumns, which leaves addresses to the compiler.
template <int kRowWarps, int kColumnsOfTile, int kKeysOfBlock>
struct TileShape {
  static constexpr int kColumns = kColumnsOfTile;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kKeyWarps = kTileWarps / kRowWarps;
  static constexpr int kKeys = kKeysOfBlock;
  static constexpr int kWarpKeys = kKeys / kKeyWarps;
};

template <typename T, int kRowWarps, int kColumnsOfTile, bool kExactSizes,
          typename SharedRows = Rows<kExactSizes ? kColumnsOfTile / 8 : 0>>
struct MatrixProducts {
  using Element = T;
  using Shape = TileShape<kRowWarps, kColumnsOfTile, (kRowWarps > 1 && kColumnsOfTile > 128 ? 32 : 64)>;
  static constexpr int kKeys = Shape::kWarpKeys, kColumns = Shape::kColumns;
  static constexpr int kPerChunk = 8;  // elements
  static constexpr int kGroup = 8;     // tiles of columns between two branches
  static constexpr bool kExact = kExactSizes;
  static constexpr bool kTogether = false;  // whether all warps make a product together
  using InputRows = SharedRows;
  static constexpr int kChunkStep = 2;  // chunks of a row of q and k are a multiple of this, of v of the next
  static constexpr int kValueStep = kGroup;
  static constexpr int kTerms = kSplit<T>.terms;
  static constexpr float kShift = kSplit<T>.shift;

  // Before the barrier after which others use what this thread wrote to shared memory.
  static GPU_DEVICE void publish() {}

  // s = q k^T for the warp's 16 rows from `row` on and its keys from `key` on.
  static GPU_DEVICE void scores(const InputRows& q, int row, const InputRows& k, int key, float (&s)[kKeys / 8][4]) {
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
    // Rows that are eight apart are swizzled alike, so of a chunk's place only the exclusive or is left to the loop.
    const int l = lane();
    const int q_row = row + (l & 15), k_row = key + (l & 7) + ((l >> 4) << 3);
    const char* const q_at = q.data + q_row * q.stride() * 16;
    const char* const k_at = k.data + k_row * k.stride() * 16;
    const int q_turn = (l >> 4) ^ (q_row & q.swizzle()), k_turn = (l >> 3 & 1) ^ (k_row & k.swizzle());
    const int k_step = k.stride() * 16 * 16;  // from one pair of tiles of keys to the next
    GPU_UNROLL_BY(4)
    for (int c = 0; c < q.chunks(); c += 2) {
      uint32_t a[4];
      load_matrix_x4(a, q_at + q.offset(c ^ q_turn));
      const char* const k_chunk = k_at + k.offset(c ^ k_turn);
      GPU_UNROLL
      for (int n = 0; n < kKeys / 8; n += 2) {
        uint32_t b[4];
        load_matrix_x4(b, k_chunk + n / 2 * k_step);
        const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
        multiply(s[n], a, b0, static_cast<T*>(nullptr));
        multiply(s[n + 1], a, b1, static_cast<T*>(nullptr));
      }
    }
  }

  // o += p v for the keys from `first` on and the `columns` first columns. Bit 4 n + i of `used` (i = 0, 1) says whether a row of the warp sees the key of
  // p[n][i]; where kMasked, values of the others are taken to be 0, whatever they hold.
  template <bool kMasked>
  static GPU_DEVICE void weigh(float (&p)[kKeys / 8][4], const InputRows& v, int first, int columns, uint32_t used, bool exact,
                               float (&o)[kColumns / 8][4]) {
    const int l = lane(), v_row = first + (l & 15);
    const char* const v_at = v.data + v_row * v.stride() * 16;
    const int v_turn = (l >> 4) ^ (v_row & v.swizzle());
    constexpr T* kType = nullptr;
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; n += 2) {
      uint32_t high[4], low[4], rest[4];
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) high[i] = take_pair(p[n + i / 2][i % 2 * 2], p[n + i / 2][i % 2 * 2 + 1], kType);
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) low[i] = take_pair(p[n + i / 2][i % 2 * 2], p[n + i / 2][i % 2 * 2 + 1], kType);
      if (kTerms > 2 && exact) {
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) rest[i] = take_pair(p[n + i / 2][i % 2 * 2], p[n + i / 2][i % 2 * 2 + 1], kType);
      }
      uint32_t keep[2] = {0, 0};
      if (kMasked) {
        const uint32_t bits = used >> (4 * n);
        keep[0] = ((bits & 1) != 0 ? 0x0000ffffu : 0u) | ((bits & 2) != 0 ? 0xffff0000u : 0u);
        keep[1] = ((bits & 16) != 0 ? 0x0000ffffu : 0u) | ((bits & 32) != 0 ? 0xffff0000u : 0u);
      }
      // Columns go in groups without a branch between them: each sum waits for its own products alone, and those of the others
      // fill the time.
      GPU_UNROLL
      for (int group = 0; group < kColumns / 8; group += kGroup) {
        if (kExact || group * 8 < columns) {
          uint32_t b[kGroup][2];
          GPU_UNROLL
          for (int d = 0; d < kGroup; d += 2) {
            uint32_t four[4];
            load_matrix_x4_transposed(four, v_at + n * 8 * v.stride() * 16 + v.offset((group + d) ^ v_turn));
            GPU_UNROLL
            for (int i = 0; i < 4; ++i) b[d + i / 2][i % 2] = kMasked ? four[i] & keep[i % 2] : four[i];
          }
          GPU_UNROLL
          for (int d = 0; d < kGroup; ++d) multiply(o[group + d], high, b[d], kType);
          GPU_UNROLL
          for (int d = 0; d < kGroup; ++d) multiply(o[group + d], low, b[d], kType);
          if (kTerms > 2 && exact) {
            GPU_UNROLL
            for (int d = 0; d < kGroup; ++d) multiply(o[group + d], rest, b[d], kType);
          }
        }
      }
    }
  }
};

// ---- FP32 units ----------------------------------------------------------------------------------------------------

template <int kRowWarps, int kColumnsOfTile, bool kExactSizes>
struct ScalarProducts {
  using Element = float;
  using Shape =
      TileShape<kRowWarps, kColumnsOfTile, (kColumnsOfTile <= 64 ? 64 : kRowWarps == 1 || kColumnsOfTile <= 128 ? 32 : 16)>;
  static constexpr int kKeys = Shape::kWarpKeys, kColumns = Shape::kColumns;
  static constexpr int kPerChunk = 4;
  static constexpr bool kExact = kExactSizes, kTogether = false;
  using InputRows = Rows<kExact ? kColumns / kPerChunk : 0>;
  static constexpr int kGroup = 4;  // tiles of columns between two branches
  static constexpr int kChunkStep = 1, kValueStep = 2 * kGroup;
  static constexpr float kShift = 0.0f;

  static GPU_DEVICE void publish() {}

  static GPU_DEVICE void add_products(float& sum, const Bytes16& x, const Bytes16& y) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) sum = fma(float_of(x.word[i]), float_of(y.word[i]), sum);
  }

  static GPU_DEVICE void scores(const InputRows& q, int row, const InputRows& k, int key, float (&s)[kKeys / 8][4]) {
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
    const int q_row = row + lane() / 4, k_row = key + lane() % 4 * 2;
    for (int c = 0; c < q.chunks(); ++c) {
      const Bytes16 q0 = load_16(q.at(q_row, c)), q1 = load_16(q.at(q_row + 8, c));
      GPU_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          const Bytes16 k0 = load_16(k.at(n * 8 + k_row + i, c));
          add_products(s[n][i], q0, k0);
          add_products(s[n][2 + i], q1, k0);
        }
      }
    }
  }

  template <bool kMasked>
  static GPU_DEVICE void weigh(float (&p)[kKeys / 8][4], const InputRows& v, int first, int columns, uint32_t used, bool,
                               float (&o)[kColumns / 8][4]) {
    const int l = lane(), column = l % 4 * 2;
    GPU_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      GPU_ROLLED
      for (int t = 0; t < 4; ++t) {
        const int from = (l & ~3) + t;
        const uint32_t bits = kMasked ? shuffle(used, from) : 0u;
        GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          const float p0 = shuffle(p[n][i], from), p1 = shuffle(p[n][2 + i], from);
          if (kMasked && (bits >> (4 * n + i) & 1) == 0) continue;  // the same for all lanes
          const int key = first + n * 8 + t * 2 + i;
          GPU_UNROLL
          for (int group = 0; group < kColumns / 8; group += kGroup) {
            if (kExact || group * 8 < columns) {
              GPU_UNROLL
              for (int d = group; d < group + kGroup; ++d) {
                const Bytes8 value = load_8(v.at(key, d * 2 + column / 4) + column % 4 * 4);
                o[d][0] = fma(p0, float_of(value.word[0]), o[d][0]);
                o[d][1] = fma(p0, float_of(value.word[1]), o[d][1]);
                o[d][2] = fma(p1, float_of(value.word[0]), o[d][2]);
                o[d][3] = fma(p1, float_of(value.word[1]), o[d][3]);
              }
            }
          }
        }
      }
    }
  }
};

}  // namespace gatun::gpu::attention
