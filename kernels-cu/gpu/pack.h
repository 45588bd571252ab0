// Packs: a few consecutive elements of a row, loaded and stored at once and computed on in FP32. A thread's pack is 16 bytes where
// memory allows it.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu {

GPU_DEVICE void from_float(float v, float* to) { *to = v; }
GPU_DEVICE void from_float(float v, Bf16* to) { *to = to_bf16(v); }
GPU_DEVICE void from_float(float v, Half* to) { *to = to_half(v); }

namespace pack {

GPU_DEVICE void widen(uint32_t word, float* v, const float*) { v[0] = float_of(word); }
GPU_DEVICE void widen(uint32_t word, float* v, const Bf16*) {
  v[0] = float_of(word << 16);
  v[1] = float_of(word & 0xffff0000u);
}
GPU_DEVICE void widen(uint32_t word, float* v, const Half*) {
  v[0] = to_float(Half{static_cast<uint16_t>(word & 0xffffu)});
  v[1] = to_float(Half{static_cast<uint16_t>(word >> 16)});
}

GPU_DEVICE uint32_t narrow(const float* v, const float*) { return bits_of(v[0]); }
GPU_DEVICE uint32_t narrow(const float* v, const Bf16*) { return pack_bf16(v[0], v[1]); }
GPU_DEVICE uint32_t narrow(const float* v, const Half*) { return pack_half(v[0], v[1]); }

}  // namespace pack

// N elements at p, which is aligned to as many of them, or to 16 bytes.
template <int N, typename T>
GPU_DEVICE void load_pack(const T* p, float (&v)[N]) {
  if constexpr (N == 1) {
    v[0] = to_float(*p);
  } else {
    constexpr int kWords = N * static_cast<int>(sizeof(T)) / 4;
    constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
    uint32_t words[kWords];
    if constexpr (kWords == 1) {
      words[0] = load_4(p);
    } else if constexpr (kWords == 2) {
      const Bytes8 b = load_8(p);
      words[0] = b.word[0], words[1] = b.word[1];
    } else {
#pragma unroll
      for (int i = 0; i < kWords / 4; ++i) {
        const Bytes16 b = load_16(reinterpret_cast<const char*>(p) + 16 * i);
        words[4 * i] = b.word[0], words[4 * i + 1] = b.word[1], words[4 * i + 2] = b.word[2], words[4 * i + 3] = b.word[3];
      }
    }
#pragma unroll
    for (int i = 0; i < kWords; ++i) pack::widen(words[i], v + i * kPerWord, p);
  }
}

template <int N, typename T>
GPU_DEVICE void store_pack(T* p, const float (&v)[N]) {
  if constexpr (N == 1) {
    from_float(v[0], p);
  } else {
    constexpr int kWords = N * static_cast<int>(sizeof(T)) / 4;
    constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
    uint32_t words[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = pack::narrow(v + i * kPerWord, p);
    if constexpr (kWords == 1) {
      store_4(p, words[0]);
    } else if constexpr (kWords == 2) {
      store_8(p, {{words[0], words[1]}});
    } else {
#pragma unroll
      for (int i = 0; i < kWords / 4; ++i) {
        store_16(reinterpret_cast<char*>(p) + 16 * i,
                 {{words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]}});
      }
    }
  }
}

// Elements of a pack of rows of these two types: 16 bytes of the larger one.
template <typename X, typename Y>
constexpr int kPackOf = 16 / static_cast<int>(sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));

}  // namespace gatun::gpu
