// The products of attention by MFMA and WMMA: a policy of kernels-cu/attention/products.h, over gpu/matrix.h. It is AMD's own
// since lanes have other parts of operands and sums than those of mma.sync, and no instruction transposes what it loads from
// LDS.
//
// Both products are made transposed, S^T = K Q^T and O^T = V^T P^T: then a lane's sums are all of one query, lane % 16, and
// scores have the place of operands of the second product already (MFMA, WMMA of RDNA 4), or have it in one half of the wave
// (RDNA 3, where both halves hold all operands: the other half's scores come by an exchange of lanes).
//
// V^T pairs two keys of a column in a word, where rows in LDS have two columns of a key. A lane reads 8 bytes, 4 columns, of
// the rows of each of its keys, and puts halves together: as the operands of four tiles of outputs. So tile j of each 64
// columns has the columns 4 m + j.
//
// LDS. Rows of q and k as in gemm/matrix_products.h; of v, 16 lanes read 128 bytes of a row.
#pragma once

#include "attention/kernel.h"
#include "gpu/matrix.h"

namespace gatun::gpu::attention {

// A lane's sums are of row lane % 16; of outputs, tile 4 g + j has the columns 64 g + 4 m + j.
template <typename T>
struct MatrixLayout {
  using Unit = matrix::Unit<T>;
  static constexpr int kTile = 16, kRows = 1, kSums = Unit::kSums;
  static constexpr LaneBits kSameRow = {16, kWarp}, kSameColumn = {1, 16};
  static GPU_DEVICE int row() { return lane() % 16; }
  static GPU_HOST_DEVICE constexpr int row_of(int) { return 0; }
  static GPU_DEVICE int column(int i) { return Unit::row(i); }

  template <int kTiles>
  static GPU_DEVICE void store_row(float* to, int, const float (&o)[kTiles][kSums], float factor) {
    GPU_UNROLL
    for (int n = 0; n < kTiles; n += 4) {
      GPU_UNROLL
      for (int i = 0; i < kSums; ++i) {
        Bytes16 four;
        GPU_UNROLL
        for (int j = 0; j < 4; ++j) four.word[j] = bits_of(o[n + j][i] * factor);
        store_16(to + n * kTile + Unit::row(i) * 4, four);
      }
    }
  }
};

template <typename T, typename ShapeOfTile, bool kExactSizes>
struct MatrixProducts {
  using Element = T;
  using Shape = ShapeOfTile;
  using Unit = matrix::Unit<T>;
  using Layout = MatrixLayout<T>;
  static constexpr int kKeys = Shape::kWarpKeys, kColumns = Shape::kColumns;
  static constexpr int kPerChunk = 8;  // elements
  static constexpr bool kExact = kExactSizes, kTogether = false;
  using InputRows = Rows<kExact ? kColumns / kPerChunk : 0>;
  static constexpr int kGroup = 4;  // tiles of columns that operands are made of together
  static constexpr int kChunkStep = Unit::kStepBytes / 16, kValueStep = 8;
  static constexpr int kTerms = kSplit<T>.terms;
  static constexpr float kShift = kSplit<T>.shift;
  static constexpr int kSums = Unit::kSums, kWords = Unit::kWords;
  static_assert(kKeys % 16 == 0 && kColumns % 64 == 0);

  static GPU_DEVICE void publish() {}

  static GPU_DEVICE void scores(const InputRows& q, int row, const InputRows& k, int key, float (&s)[kKeys / 16][kSums]) {
    GPU_UNROLL
    for (int n = 0; n < kKeys / 16; ++n) {
      GPU_UNROLL
      for (int i = 0; i < kSums; ++i) s[n][i] = 0.0f;
    }
    // Rows that are 16 apart are swizzled alike, so of a chunk's place only the exclusive or is left to the loop.
    const int q_row = row + lane() % 16, k_row = key + lane() % 16;
    const char* const q_at = q.data + q_row * q.stride() * 16;
    const char* const k_at = k.data + k_row * k.stride() * 16;
    const int q_turn = q_row & q.swizzle(), k_turn = k_row & k.swizzle();
    const auto add_step = [&](int c) {
      Bytes16 right[Unit::kChunks];
      GPU_UNROLL
      for (int i = 0; i < Unit::kChunks; ++i) right[i] = load_16(q_at + ((c + Unit::chunk(i)) ^ q_turn) * 16);
      GPU_UNROLL
      for (int n = 0; n < kKeys / 16; ++n) {
        Bytes16 left[Unit::kChunks];
        GPU_UNROLL
        for (int i = 0; i < Unit::kChunks; ++i) {
          left[i] = load_16(k_at + n * 16 * k.stride() * 16 + ((c + Unit::chunk(i)) ^ k_turn) * 16);
        }
        Unit::multiply(s[n], left, right);
      }
    };
    if constexpr (kExact) {
      GPU_UNROLL
      for (int c = 0; c < kColumns / kPerChunk; c += kChunkStep) add_step(c);
    } else {
      for (int c = 0; c < q.chunks(); c += kChunkStep) add_step(c);
    }
  }

  // Two scores, or masks of two, to a word; the operand of the tile.
  template <typename PairOf>
  static GPU_DEVICE void make_operand(uint32_t (&to)[kWords], PairOf pair_of) {
    uint32_t own[kSums / 2];
    GPU_UNROLL
    for (int w = 0; w < kSums / 2; ++w) own[w] = pair_of(2 * w);
    Unit::operand(own, to);
  }

  template <bool kMasked>
  static GPU_DEVICE void weigh(float (&p)[kKeys / 16][kSums], const InputRows& v, int first, int columns, uint32_t used,
                               bool exact, float (&o)[kColumns / 16][kSums]) {
    const int m = lane() % 16;
    GPU_UNROLL
    for (int n = 0; n < kKeys / 16; ++n) {
      uint32_t terms[kTerms][kWords], keep[kWords] = {};
      GPU_UNROLL
      for (int term = 0; term < kTerms; ++term) {
        if (term < 2 || exact) {
          make_operand(terms[term], [&](int i) { return take_pair(p[n][i], p[n][i + 1], static_cast<T*>(nullptr)); });
        }
      }
      if (kMasked) {
        make_operand(keep, [&](int i) {
          const uint32_t bits = used >> (n * kSums + i);
          return ((bits & 1) != 0 ? 0x0000ffffu : 0u) | ((bits & 2) != 0 ? 0xffff0000u : 0u);
        });
      }
      GPU_UNROLL
      for (int group = 0; group < kColumns / 16; group += kGroup) {
        if (kExact || group * 16 < columns) {
          uint32_t values[kGroup][kWords];
          GPU_UNROLL
          for (int w = 0; w < kWords; ++w) {
            Bytes8 of_key[2];
            GPU_UNROLL
            for (int i = 0; i < 2; ++i) {
              of_key[i] = load_8(v.at(first + n * 16 + Unit::depth(2 * w + i), group * 2 + m / 2) + m % 2 * 8);
            }
            const uint32_t keeps = kMasked ? keep[w] : 0xffffffffu;
            GPU_UNROLL
            for (int j = 0; j < 2; ++j) {
              const uint32_t one = of_key[0].word[j], other = of_key[1].word[j];
              values[2 * j][w] = ((one & 0xffffu) | other << 16) & keeps;
              values[2 * j + 1][w] = (one >> 16 | (other & 0xffff0000u)) & keeps;
            }
          }
          GPU_UNROLL
          for (int term = 0; term < kTerms; ++term) {
            if (term < 2 || exact) {
              GPU_UNROLL
              for (int j = 0; j < kGroup; ++j) Unit::add(o[group + j], values[j], terms[term]);
            }
          }
        }
      }
    }
  }
};

// Tiles that 64 KiB of LDS hold: warps of rows, columns, keys, and warps of keys where that is not what the rows leave. The
// last of the few serves head sizes up to 576 (MLA).
template <typename T>
KernelTable halves_kernels(bool few_rows) {
  static constexpr Kernel kMany[] = {
      kernel_of<MatrixProducts<T, TileShape<4, 64, 64>, true>, 1>(),
      kernel_of<MatrixProducts<T, TileShape<4, 64, 64>, false>, 1>(),
      kernel_of<MatrixProducts<T, TileShape<4, 128, 64>, true>, 1>(),
      kernel_of<MatrixProducts<T, TileShape<4, 128, 32>, false>, 1>(),
  };
  static constexpr Kernel kFew[] = {
      kernel_of<MatrixProducts<T, TileShape<1, 64, 64>, false>, 1>(),
      kernel_of<MatrixProducts<T, TileShape<1, 128, 64>, false>, 1>(),
      kernel_of<MatrixProducts<T, TileShape<1, 128, 32, 2>, false>, 1>(),
  };
  return few_rows ? KernelTable{kFew, 3} : KernelTable{kMany, 4};
}

}  // namespace gatun::gpu::attention
