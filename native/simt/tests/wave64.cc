// Kernels for warps of 64 threads, right ones and such with a fault, for wave64_test.cc.
#include "faults.h"

#include "gpu/gpu.h"

namespace gatun::simt_test {
namespace {

using namespace gatun::gpu;
static_assert(kWarp == 64 && sizeof(Lanes) == 8);

constexpr int kThreads = 128;

float* floats() { return reinterpret_cast<float*>(gpu::shared()); }

GPU_KERNEL(kThreads, 1) void shuffles(const Args a) {
  const int t = lane();
  if (t != thread() % 64 || warp() != thread() / 64) trap();
  if (shuffle_up(t, 40) != (t < 40 ? t : t - 40)) trap();
  if (shuffle_down(t, 40) != (t >= 24 ? t : t + 40)) trap();
  if (shuffle_xor(t, 53) != (t ^ 53)) trap();
  if (shuffle(t, 61) != 61 || shuffle(t, (t + 33) % 64) != (t + 33) % 64) trap();
  if (ballot(t % 3 == 0) != 0x9249249249249249u || earlier_lanes() != (uint64_t{1} << t) - 1) trap();
  if (any(false) || !any(t == 59) || all(t != 59) || !all(true)) trap();
  if (warp_sum(1.0f) != 64.0f || warp_max(static_cast<float>(t)) != 63.0f) trap();
  a.out[thread()] = a.in[thread()] + 1.0f;
}

enum class Order { kWarp, kNone, kHalves, kAcrossHalves };

// What a lane wrote is read by another of its warp, across the middle or within a half.
template <Order kOrder>
GPU_KERNEL(kThreads, 1)
void lanes(const Args a) {
  const int other = kOrder == Order::kHalves ? thread() ^ 16 : thread() ^ 32;
  floats()[thread()] = a.in[thread()];
  if (kOrder == Order::kWarp) sync_warp();
  if (kOrder == Order::kNone) shuffle(1, 0);
  if (kOrder == Order::kHalves || kOrder == Order::kAcrossHalves) {
    if (lane() < 32) {
      sync_warp(0x00000000ffffffffu);
    } else {
      sync_warp(0xffffffff00000000u);
    }
  }
  a.out[other] = floats()[other] + 1.0f;
}

GPU_KERNEL(kThreads, 1) void half_barrier(const Args a) {
  if (lane() < 32) sync_threads();
  a.out[thread()] = 0.0f;
}

GPU_KERNEL(kThreads, 1) void half_leaves(const Args a) {
  if (lane() >= 32) return;
  a.out[thread()] = shuffle_xor(a.in[thread()], 1);
}

}  // namespace

const Case kCases[] = {
    {"shuffles and votes", shuffles, 1, kThreads, 0, nullptr, true},
    {"lanes", lanes<Order::kWarp>, 1, kThreads, kThreads * 4, nullptr, true},
    {"lanes, ordered by a shuffle", lanes<Order::kNone>, 1, kThreads, kThreads * 4, "race in shared memory", false},
    {"lanes by halves", lanes<Order::kHalves>, 1, kThreads, kThreads * 4, nullptr, true},
    {"lanes across halves", lanes<Order::kAcrossHalves>, 1, kThreads, kThreads * 4,
     "race in shared memory|uninitialised", false},
    {"barrier in half a warp", half_barrier, 1, kThreads, 0, "divergence|deadlock", false},
    {"half a warp leaves", half_leaves, 1, kThreads, 0, "deadlock|has left the kernel", false},
    {"whole warps of 64", shuffles, 1, 96, 0, "whole warps of 64", false},
};
const int kCaseCount = sizeof kCases / sizeof kCases[0];

}  // namespace gatun::simt_test
