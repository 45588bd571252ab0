// Rows of a matrix on groups of threads: a warp has a short row, a block a long one. A row that fits is read once and kept in
// registers between its passes; a longer one is read again in each.
//
// A shape of a kernel is (elements of a pack, threads of a group, packs of a thread), 0 packs for rows of any length.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu {

constexpr int kRowBlock = 256;  // threads of a block whose groups are warps

template <int kThreads>
constexpr int kBlockOf = kThreads > kRowBlock ? kThreads : kRowBlock;

// The thread's place in its group, and the row of the group.
template <int kThreads>
GPU_DEVICE int group_thread() {
  return kThreads == kWarp ? lane() : thread();
}

template <int kThreads>
GPU_DEVICE int64_t group_row() {
  constexpr int kRows = kBlockOf<kThreads> / kThreads;
  return static_cast<int64_t>(block_x()) * kRows + (kRows == 1 ? 0 : thread() / kThreads);
}

// Sums or maxima of a group, for all of its threads. A block's go through shared memory, in one of two places by turns: who
// writes to one has passed the barrier after which nobody reads what it held.
template <int kThreads>
class Group {
  static_assert(kThreads == kWarp || kThreads == kBlockOf<kThreads>);
  static constexpr int kWarps = kThreads / kWarp;

 public:
  static constexpr int kSharedBytes = kThreads == kWarp ? 0 : 2 * 2 * kWarps * 4;

  GPU_DEVICE void sum(float* a, float* b) {
    *a = warp_sum(*a);
    *b = warp_sum(*b);
    if constexpr (kThreads > kWarp) {
      float* place = next();
      if (lane() == 0) place[warp()] = *a, place[kWarps + warp()] = *b;
      sync_threads();
      *a = warp_sum(lane() < kWarps ? place[lane()] : 0.0f);
      *b = warp_sum(lane() < kWarps ? place[kWarps + lane()] : 0.0f);
    }
  }

  GPU_DEVICE float sum(float v) {
    v = warp_sum(v);
    if constexpr (kThreads > kWarp) {
      float* place = next();
      if (lane() == 0) place[warp()] = v;
      sync_threads();
      v = warp_sum(lane() < kWarps ? place[lane()] : 0.0f);
    }
    return v;
  }

  // Without NaN, which a comparison drops.
  GPU_DEVICE float max(float v) {
    v = warp_most(v);
    if constexpr (kThreads > kWarp) {
      float* place = next();
      if (lane() == 0) place[warp()] = v;
      sync_threads();
      v = warp_most(lane() < kWarps ? place[lane()] : -infinity());
    }
    return v;
  }

 private:
  GPU_DEVICE static float warp_most(float v) {
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      const float other = shuffle_xor(v, mask);
      v = other > v ? other : v;
    }
    return v;
  }

  GPU_DEVICE float* next() {
    turn_ ^= 1;
    return reinterpret_cast<float*>(shared()) + turn_ * 2 * kWarps;
  }

  int turn_ = 0;
};

// Calls body(pack, first element) for every pack of the thread in a row of n elements, a multiple of N.
template <int N, int kThreads, int kPacks, typename Body>
GPU_DEVICE void each_kept(float (&kept)[kPacks][N], int64_t n, Body body) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t i = (static_cast<int64_t>(p) * kThreads + group_thread<kThreads>()) * N;
    if (i < n) body(kept[p], i);
  }
}

template <int N, int kThreads, typename Load, typename Body>
GPU_DEVICE void each_loaded(int64_t n, Load load, Body body) {
  for (int64_t i = static_cast<int64_t>(group_thread<kThreads>()) * N; i < n; i += kThreads * N) {
    float v[N];
    load(v, i);
    body(v, i);
  }
}

}  // namespace gatun::gpu
