// The products of attention by mma.sync. As the left operand of the second product the scores already lie where the unit wants
// them: a thread's sums of two neighbouring tiles of 8 keys are its fragment of 16 rows and 16 keys.
#pragma once

#include "attention/kernel.h"

namespace gatun::gpu::attention {

GPU_DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Bf16*) { mma_bf16(c, a, b); }
GPU_DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half*) { mma_f16(c, a, b); }

// kExact: the head sizes of keys and values are both kColumns, which leaves addresses to the compiler.
template <typename T, int kRowWarps, int kColumnsOfTile, bool kExactSizes,
          typename SharedRows = Rows<kExactSizes ? kColumnsOfTile / 8 : 0>>
struct MatrixProducts {
  using Element = T;
  using Layout = QuadLayout;
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

  // o += p v for the keys from `first` on and the `columns` first columns. Bit 4 n + i of `used` (i = 0, 1) says whether a row
  // of the warp sees the key of p[n][i]; where kMasked, values of the others are taken to be 0, whatever they hold.
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

// The last numbers: thread blocks that a multiprocessor is to hold, which limits registers.
template <typename T>
KernelTable halves_kernels(bool few_rows) {
  static constexpr Kernel kMany[] = {
      kernel_of<MatrixProducts<T, 4, 64, true>, 3>(),  kernel_of<MatrixProducts<T, 4, 64, false>, 3>(),
      kernel_of<MatrixProducts<T, 4, 128, true>, 2>(), kernel_of<MatrixProducts<T, 4, 128, false>, 2>(),
      kernel_of<MatrixProducts<T, 4, 256, false>, 2>(),
  };
  static constexpr Kernel kFew[] = {
      kernel_of<MatrixProducts<T, 1, 64, true>, 4>(),  kernel_of<MatrixProducts<T, 1, 64, false>, 4>(),
      kernel_of<MatrixProducts<T, 1, 128, true>, 3>(), kernel_of<MatrixProducts<T, 1, 128, false>, 3>(),
      kernel_of<MatrixProducts<T, 1, 256, false>, 2>(),
  };
  return few_rows ? KernelTable{kFew, 5} : KernelTable{kMany, 5};
}

}  // namespace gatun::gpu::attention
