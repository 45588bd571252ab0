// The best of many keys one after the other, elements that go to a list in their order, and a stable sort by counting.
//
// A team is the threads that work on one thing: a warp, or a block of kTeamBlock.
#pragma once

#include "gpu/gpu.h"
#include "gpu/rows.h"

namespace gatun::gpu {

constexpr int kTeamBlock = 256;

struct Best {
  float key;
  int32_t at;
};

constexpr int32_t kNone = 0x7fffffff;

// In the order of rising places within falling keys. Keys are not NaN.
GPU_DEVICE bool before(Best a, Best b) { return a.key > b.key || (a.key == b.key && a.at < b.at); }
GPU_DEVICE Best before_all() { return {infinity(), -1}; }

GPU_DEVICE Best warp_best(Best v) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const Best other = {shuffle_xor(v.key, mask), shuffle_xor(v.at, mask)};
    if (before(other, v)) v = other;
  }
  return v;
}

template <int kThreads>
class Team {
  static_assert(kThreads == kWarp || kThreads == kTeamBlock);
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kBestBytes = 2 * kWarps * 8, kCountBytes = 2 * kWarps * 4;
  static constexpr int kBestAt = Group<kTeamBlock>::kSharedBytes;  // behind those of a Group

 public:
  // Of a block's shared memory: what a Group and a Team use of its beginning.
  static constexpr int kSharedBytes = kWarps == 1 ? 0 : static_cast<int>(round_up(kBestAt + kBestBytes + kCountBytes, 128));

  GPU_DEVICE void sync() {
    if constexpr (kWarps == 1) {
      sync_warp();
    } else {
      sync_threads();
    }
  }

  // The best of n keys after `last`, for all threads.
  GPU_DEVICE Best next(const float* keys, int64_t n, Best last) {
    Best found = {-infinity(), kNone};
    for (int64_t i = group_thread<kThreads>(); i < n; i += kThreads) {
      const Best candidate = {keys[i], static_cast<int32_t>(i)};
      if (before(last, candidate) && before(candidate, found)) found = candidate;
    }
    found = warp_best(found);
    if constexpr (kWarps > 1) {
      // In one of two places by turns, as in Group.
      turn_ ^= 1;
      Best* place = reinterpret_cast<Best*>(shared() + kBestAt) + turn_ * kWarps;
      if (lane() == 0) place[warp()] = found;
      sync_threads();
      found = warp_best(lane() < kWarps ? place[lane()] : Best{-infinity(), kNone});
    }
    return found;
  }

  // How many threads before this one say `taken`; adds how many do in all to *count.
  GPU_DEVICE int rank(bool taken, int* count) {
    const Lanes votes = ballot(taken);
    int earlier = ones(votes & earlier_lanes()), all = ones(votes);
    if constexpr (kWarps > 1) {
      count_turn_ ^= 1;
      int32_t* place = reinterpret_cast<int32_t*>(shared() + kBestAt + kBestBytes) + count_turn_ * kWarps;
      if (lane() == 0) place[warp()] = all;
      sync_threads();
      all = 0;
      for (int w = 0; w < kWarps; ++w) {
        if (w == warp()) earlier += all;
        all += place[w];
      }
    }
    *count += all;
    return earlier;
  }

 private:
  int turn_ = 0, count_turn_ = 0;
};

// ---- Sorting by counting --------------------------------------------------------------------------------------------
//
// Elements have labels from 0 to labels - 1, and lie in runs. The counts of all runs, [runs][labels], become the places of the
// first element of each label in each run; then a warp a run gives out places in the order of elements.

// By a block of kThreads. each(label, start) is told where each label starts; returns the number of elements. A thread has a
// label, kThreads of them at a time. `space`: 2 kThreads / kWarp numbers of shared memory.
template <int kThreads, typename Each>
GPU_DEVICE int32_t starts_of_counts(int32_t* counts, int64_t runs, int64_t labels, int32_t* space, Each each) {
  constexpr int kWarps = kThreads / kWarp;
  int32_t base = 0;
  for (int64_t first = 0, turn = 0; first < labels; first += kThreads, turn ^= 1) {
    const int64_t label = first + thread();
    int32_t own = 0;
    if (label < labels) {
      for (int64_t run = 0; run < runs; ++run) own += counts[run * labels + label];
    }
    int32_t up_to = own;  // the sum of the warp's up to this one, and then of the block's
#pragma unroll
    for (int n = 1; n < kWarp; n *= 2) {
      const int32_t other = shuffle_up(up_to, n);
      if (lane() >= n) up_to += other;
    }
    int32_t* place = space + turn * kWarps;
    if (lane() == kWarp - 1) place[warp()] = up_to;
    sync_threads();
    int32_t all = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp()) up_to += all;
      all += place[w];
    }
    if (label < labels) {
      int32_t start = base + up_to - own;
      each(label, start);
      for (int64_t run = 0; run < runs; ++run) {
        int32_t& entry = counts[run * labels + label];
        const int32_t count = entry;
        entry = start;
        start += count;
      }
    }
    base += all;
  }
  return base;
}

// By a warp, for elements `first` to `end` - 1 of its run: put(i, place) with the label of each from label_of(i).
template <typename LabelOf, typename Put>
GPU_DEVICE void give_out_places(int32_t* next, int64_t first, int64_t end, LabelOf label_of, Put put) {
  for (; first < end; first += kWarp) {
    const int64_t i = first + lane();
    const int32_t label = i < end ? label_of(i) : -1;
    int earlier = 0, all = 0;  // lanes of the same label
#pragma unroll
    for (int other = 0; other < kWarp; ++other) {
      const bool same = shuffle(label, other) == label;
      earlier += same && other < lane() ? 1 : 0;
      all += same ? 1 : 0;
    }
    const int32_t start = i < end ? next[label] : 0;
    sync_warp();
    if (i < end) {
      put(i, start + earlier);
      if (earlier == all - 1) next[label] = start + all;
    }
    sync_warp();
  }
}

}  // namespace gatun::gpu
