// Products of AMD's matrix units for kernels: 16 rows by 16 columns of sums, and a step of k that whole chunks of 16 bytes make
// up. A lane takes chunks of row lane % 16 of the one operand and of column lane % 16 of the other, from the same places in k.
// Which of k an instruction then pairs with which is left open: both operands have the same order, and a sum runs over all of
// it.
//
//   kStepBytes     of k
//   kChunks        16-byte chunks that a lane takes of each operand; chunk(i): which of the step's
//   kAhead         whether registers suffice for the operands of two steps
//   multiply(c, a, b)    adds a step's products to the lane's kSums sums
//   row(i)         of the tile, of the lane's i-th sum; the column is lane % 16
// The sums of one product are also the right operand of another, whose k are their rows (attention):
//   kWords         of a lane's operand of one instruction, two elements each
//   operand(own, to)     that operand, of elements in the places of the lane's sums
//   depth(i)       which row of the sums element i of the operand is of, so that the left one can be laid out alike
//   add(c, a, b)   one instruction
//
// Elements are Bf16 or Half, which sum up in FP32, or S8: rows in u8 and columns in s8. MFMA has s8 alone: there rows are u8 less
// 128 (kByteShift of gemm/kernels.h).
#pragma once

#include <type_traits>

#include "gpu/gpu.h"

namespace gatun::gpu::matrix {

struct S8;  // u8 by s8

#if GATUN_GPU_WAVE == 64

// MFMA: a chunk for each quarter of the wave, which two instructions take.
struct Mfma {
  static constexpr bool kAhead = true;
  static constexpr int kStepBytes = 64, kChunks = 1, kSums = 4, kWords = 2;
  GPU_DEVICE static int chunk(int) { return lane() / 16; }
  GPU_DEVICE static int row(int i) { return lane() / 16 * 4 + i; }
  GPU_DEVICE static int depth(int i) { return row(i); }
  GPU_DEVICE static void operand(const uint32_t (&own)[kSums / 2], uint32_t (&to)[kWords]) {
    GPU_UNROLL
    for (int w = 0; w < kWords; ++w) to[w] = own[w];
  }
};

template <typename Element>
struct Unit : Mfma {
  using Sum = float;
  GPU_DEVICE static void add(float (&c)[kSums], const uint32_t (&a)[kWords], const uint32_t (&b)[kWords]) {
    if constexpr (std::is_same_v<Element, Half>) {
      mfma_f16(c, a, b);
    } else {
      mfma_bf16(c, a, b);
    }
  }
  GPU_DEVICE static void multiply(float (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    GPU_UNROLL
    for (int half = 0; half < 2; ++half) {
      add(c, {a[0].word[2 * half], a[0].word[2 * half + 1]}, {b[0].word[2 * half], b[0].word[2 * half + 1]});
    }
  }
};

template <>
struct Unit<S8> : Mfma {
  using Sum = int32_t;
  GPU_DEVICE static void multiply(int32_t (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    constexpr uint32_t kShift = 0x80808080u;  // u8 less 128 is s8 with the other sign bit
    GPU_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t left[2] = {a[0].word[2 * half] ^ kShift, a[0].word[2 * half + 1] ^ kShift};
      const uint32_t right[2] = {b[0].word[2 * half], b[0].word[2 * half + 1]};
      mfma_s8(c, left, right);
    }
  }
};

#elif defined(__GFX12__)

// WMMA of RDNA 4: a chunk for each half of the wave.
struct Wmma {
  static constexpr bool kAhead = true;
  static constexpr int kStepBytes = 32, kChunks = 1, kSums = 8, kWords = 4;
  GPU_DEVICE static int chunk(int) { return lane() / 16; }
  GPU_DEVICE static int row(int i) { return lane() / 16 * 8 + i; }
  GPU_DEVICE static int depth(int i) { return row(i); }
  GPU_DEVICE static void operand(const uint32_t (&own)[kSums / 2], uint32_t (&to)[kWords]) {
    GPU_UNROLL
    for (int w = 0; w < kWords; ++w) to[w] = own[w];
  }
};

template <typename Element>
struct Unit : Wmma {
  using Sum = float;
  GPU_DEVICE static void add(float (&c)[kSums], const uint32_t (&a)[kWords], const uint32_t (&b)[kWords]) {
    if constexpr (std::is_same_v<Element, Half>) {
      wmma_f16(c, a, b);
    } else {
      wmma_bf16(c, a, b);
    }
  }
  GPU_DEVICE static void multiply(float (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    add(c, a[0].word, b[0].word);
  }
};

template <>
struct Unit<S8> : Wmma {
  using Sum = int32_t;
  GPU_DEVICE static void multiply(int32_t (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    GPU_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t left[2] = {a[0].word[2 * half], a[0].word[2 * half + 1]};
      const uint32_t right[2] = {b[0].word[2 * half], b[0].word[2 * half + 1]};
      wmma_u8s8(c, left, right);
    }
  }
};

#else

// WMMA of RDNA 3: both halves of the wave hold all of k, which takes twice the registers.
struct Wmma {
  static constexpr bool kAhead = false;
  static constexpr int kStepBytes = 32, kChunks = 2, kSums = 8, kWords = 8;
  GPU_DEVICE static int chunk(int i) { return i; }
  GPU_DEVICE static int row(int i) { return i * 2 + lane() / 16; }
  // The even rows, which the first half of the wave has, and then the odd ones.
  GPU_DEVICE static int depth(int i) { return i % 8 * 2 + i / 8; }
  GPU_DEVICE static void operand(const uint32_t (&own)[kSums / 2], uint32_t (&to)[kWords]) {
    GPU_UNROLL
    for (int w = 0; w < kWords / 2; ++w) {
      const uint32_t other = shuffle_xor(own[w], 16);
      to[w] = lane() < 16 ? own[w] : other;
      to[kWords / 2 + w] = lane() < 16 ? other : own[w];
    }
  }
};

template <typename Element>
struct Unit : Wmma {
  using Sum = float;
  GPU_DEVICE static void add(float (&c)[kSums], const uint32_t (&a)[kWords], const uint32_t (&b)[kWords]) {
    if constexpr (std::is_same_v<Element, Half>) {
      wmma_f16(c, a, b);
    } else {
      wmma_bf16(c, a, b);
    }
  }
  GPU_DEVICE static void multiply(float (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    uint32_t left[8], right[8];
    GPU_UNROLL
    for (int i = 0; i < 8; ++i) left[i] = a[i / 4].word[i % 4], right[i] = b[i / 4].word[i % 4];
    add(c, left, right);
  }
};

template <>
struct Unit<S8> : Wmma {
  using Sum = int32_t;
  GPU_DEVICE static void multiply(int32_t (&c)[kSums], const Bytes16 (&a)[kChunks], const Bytes16 (&b)[kChunks]) {
    GPU_UNROLL
    for (int i = 0; i < kChunks; ++i) wmma_u8s8(c, a[i].word, b[i].word);
  }
};

#endif

}  // namespace gatun::gpu::matrix
