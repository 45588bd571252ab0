// What the kernels of selection have in common: where sequences lie, what queries see, and tiles of products.
#pragma once

#include "gpu/choice.h"
#include "select/kernels.h"

namespace gatun::gpu {
namespace select {

GPU_DEVICE int clamp(int64_t value, int64_t low, int64_t high) {
  return static_cast<int>(value < low ? low : value > high ? high : value);
}
template <typename A, typename B>
GPU_DEVICE decltype(A() + B()) least_of(A a, B b) {
  return a < b ? a : b;
}

// Index arrays are the device's: what they say is kept within bounds here.
struct Sequence {
  int first_q, len_q, first_k, len_k;
};

GPU_DEVICE void place(const int64_t* index, bool packed, int s, int length, int* first, int* len) {
  *first = 0;
  *len = length;
  if (packed) {
    *first = clamp(index[s], 0, length);
    *len = clamp(index[s + 1] - *first, 0, length - *first);
  } else if (index != nullptr) {
    *len = clamp(index[s], 0, length);
  }
}

GPU_DEVICE Sequence sequence_of(const SelectArgs& a, int s) {
  Sequence of;
  place(a.q_index, a.packed != 0, s, a.len_q, &of.first_q, &of.len_q);
  place(a.k_index, a.packed != 0, s, a.len_k, &of.first_k, &of.len_k);
  return of;
}

template <typename X>
GPU_DEVICE const X* q_row(const SelectArgs& a, int s, const Sequence& of, int head, int64_t i) {
  return static_cast<const X*>(a.q) + (a.packed != 0 ? 0 : s * a.q_sequence) + (of.first_q + i) * a.q_row + head * a.q_head;
}
template <typename X>
GPU_DEVICE const X* k_row(const SelectArgs& a, int s, const Sequence& of, int head, int64_t j) {
  return static_cast<const X*>(a.k) + (a.packed != 0 ? 0 : s * a.k_sequence) + (of.first_k + j) * a.k_row + head * a.k_head;
}

// Keys that query i sees.
GPU_DEVICE int visible(const SelectArgs& a, const Sequence& of, int64_t i) {
  return a.causal == 0 ? of.len_k : clamp(i + of.len_k - of.len_q + 1, 0, of.len_k);
}

// The output function of SplitMix64 (Steele, Lea and Flood 2014) on the state after z.
GPU_DEVICE uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

GPU_DEVICE uint64_t rotation_of(const SelectArgs& a, int layer, int head) {
  return mix(mix(mix(a.seed) + static_cast<uint64_t>(layer)) + static_cast<uint64_t>(head));
}
GPU_DEVICE float rotation_entry(uint64_t rotation, int64_t at) {
  return static_cast<float>(ones(mix(rotation + static_cast<uint64_t>(at))) - 32) * 0.25f;
}

// ---- Tiles of products ----------------------------------------------------------------------------------------------
//
// kTile rows by kTile columns in FP32: a thread has kOwn by kOwn of them. Operands pass through shared memory kDepth elements
// deep, with rows and columns side by side there, so that a thread reads its four of each at once: 2 reads of 16 bytes for 16
// multiplications.

constexpr int kTile = kSelectTile;
constexpr int kDepth = 32;
constexpr int kOwn = 4;
constexpr int kPitch = kTile + 4;
constexpr int kTileBytes = 2 * kDepth * kPitch * 4;
constexpr int kTileAt = Team<kSelectThreads>::kSharedBytes;
static_assert(kSelectThreads * kOwn * kOwn == kTile * kTile && kSelectThreads == kTeamBlock);

GPU_DEVICE int own_row() { return thread() / (kTile / kOwn) * kOwn; }
GPU_DEVICE int own_column() { return thread() % (kTile / kOwn) * kOwn; }

// row_at(r, d) and column_at(c, d) give elements, 0 beyond what there is. Rows are read along d, and columns too, or across.
template <bool kColumnsAcross, typename RowAt, typename ColumnAt>
GPU_DEVICE void multiply(int depth, RowAt row_at, ColumnAt column_at, float (&sums)[kOwn][kOwn]) {
  float* rows = reinterpret_cast<float*>(shared() + kTileAt);
  float* columns = rows + kDepth * kPitch;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) sums[i][j] = 0.0f;
  }
  for (int base = 0; base < depth; base += kDepth) {
    sync_threads();  // the tile before this one is read no more
    for (int i = thread(); i < kDepth * kTile; i += kSelectThreads) {
      const int r = i / kDepth, d = i % kDepth;
      rows[d * kPitch + r] = base + d < depth ? row_at(r, base + d) : 0.0f;
      const int column = kColumnsAcross ? i % kTile : r, at = kColumnsAcross ? i / kTile : d;
      columns[at * kPitch + column] = base + at < depth ? column_at(column, base + at) : 0.0f;
    }
    sync_threads();
    for (int d = 0; d < kDepth; ++d) {
      const Bytes16 x = load_16(rows + d * kPitch + own_row()), y = load_16(columns + d * kPitch + own_column());
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) sums[i][j] = fma(float_of(x.word[i]), float_of(y.word[j]), sums[i][j]);
      }
    }
  }
}

}  // namespace select
}  // namespace gatun::gpu
