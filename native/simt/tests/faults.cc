#include "faults.h"

#include "gpu/gpu.h"

namespace gatun::simt_test {
namespace {

using namespace gatun::gpu;

constexpr int kThreads = 128;

float* floats() { return reinterpret_cast<float*>(gpu::shared()); }

// Each thread takes what another one left in shared memory.
template <bool kBarrier>
GPU_KERNEL(kThreads, 1)
void exchange(const Args a) {
  const int64_t i = static_cast<int64_t>(block_x()) * kThreads + thread();
  const int other = kThreads - 1 - thread();
  floats()[other] = a.in[i - thread() + other];
  if (kBarrier) sync_threads();
  a.out[i] = floats()[thread()] + 1.0f;
}

// Two buffers that are filled in turn: the second barrier of a step keeps the next but one filling from coming too
// early.
template <bool kSecond>
GPU_KERNEL(kThreads, 1)
void two_buffers(const Args a) {
  float sum = 0.0f;
  for (int step = 0; step < 6; ++step) {
    float* buffer = floats() + (kSecond ? 0 : step % 2 * kThreads);
    buffer[thread()] = a.in[thread()];
    sync_threads();
    sum = buffer[kThreads - 1 - thread()];
    if (kSecond) sync_threads();
  }
  floats()[2 * kThreads + thread()] = sum;
  sync_threads();
  a.out[thread()] = floats()[2 * kThreads + kThreads - 1 - thread()] + 1.0f;
}

// One buffer and no barrier after it was read.
GPU_KERNEL(kThreads, 1) void one_buffer(const Args a) {
  float sum = 0.0f;
  for (int step = 0; step < 6; ++step) {
    floats()[thread()] = a.in[thread()];
    sync_threads();
    sum += floats()[kThreads - 1 - thread()];
  }
  a.out[thread()] = sum;
}

enum class Waits { kAll, kNone, kTooFew, kNoCommit, kNoBarrier };

template <Waits kWaits>
GPU_KERNEL(kThreads, 1)
void asynchronous(const Args a) {
  float* first = floats();
  float* second = floats() + kThreads * 4;
  copy_async_16(first + thread() * 4, a.in, 16);
  if (kWaits != Waits::kNoCommit) copy_async_commit();
  copy_async_16(second + thread() * 4, a.in + thread() / 4 * 4, thread() % 4 * 4 + 4);
  if (kWaits != Waits::kNoCommit) copy_async_commit();
  if (kWaits == Waits::kTooFew) copy_async_wait<1>();
  if (kWaits != Waits::kTooFew && kWaits != Waits::kNone) copy_async_wait<0>();
  if (kWaits == Waits::kNoBarrier) {
    a.out[thread()] = second[(thread() ^ 1) * 4];
    return;
  }
  sync_threads();
  const int t = thread() ^ 64;
  float* mine = second + t * 4;
  for (int i = t % 4 + 1; i < 4; ++i) {
    if (mine[i] != 0.0f) trap();
  }
  a.out[t] = mine[t % 4] + 1.0f;
}

// Waits for all but the latest group, and reads only the earlier one.
GPU_KERNEL(kThreads, 1) void asynchronous_groups(const Args a) {
  float* first = floats() + thread() * 4;
  copy_async_16(first, a.in + thread() / 4 * 4);
  copy_async_commit();
  copy_async_16(first + kThreads * 4, a.in);
  copy_async_commit();
  copy_async_wait<1>();
  a.out[thread()] = first[thread() % 4] + 1.0f;
  copy_async_wait<0>();
}

enum class Branch { kHalfWarp, kOneWarp, kOtherPlace, kLeave };

template <Branch kBranch>
GPU_KERNEL(kThreads, 1)
void diverging(const Args a) {
  if (kBranch == Branch::kHalfWarp && lane() < 16) sync_threads();
  if (kBranch == Branch::kOneWarp && warp() == 1) {
    sync_group(1, 64);
  }
  if (kBranch == Branch::kOtherPlace) {
    if (warp() == 0) {
      sync_threads();
    } else {
      sync_threads();
    }
  }
  if (kBranch == Branch::kLeave && thread() == 5) return;
  sync_threads();
  a.out[thread()] = 0.0f;
}

// Whole warps may leave before a barrier.
GPU_KERNEL(kThreads, 1) void leaving_warps(const Args a) {
  if (warp() >= 2) {
    a.out[thread()] = a.in[thread()] + 1.0f;
    return;
  }
  floats()[thread()] = a.in[thread()];
  sync_threads();
  a.out[thread() ^ 32] = floats()[thread() ^ 32] + 1.0f;
}

enum class Bounds { kSharedRead, kSharedWrite, kRead, kWrite, kBefore, kNull, kCopy, kMatrix, kUnaligned };

template <Bounds kBounds>
GPU_KERNEL(kThreads, 1)
void outside(const Args a) {
  const bool last = thread() == kThreads - 1;
  if (kBounds == Bounds::kSharedRead) {
    floats()[thread()] = 0.0f;
    sync_threads();
    a.out[thread()] = floats()[thread() + 1];
  }
  if (kBounds == Bounds::kSharedWrite) floats()[thread() + 1] = 0.0f;
  if (kBounds == Bounds::kRead && last) a.out[thread()] = a.in[a.n];
  if (kBounds == Bounds::kWrite && last) a.out[a.n] = 1.0f;
  if (kBounds == Bounds::kBefore && last) a.out[-1] = 1.0f;
  if (kBounds == Bounds::kNull) atomic_add(static_cast<uint32_t*>(nullptr) + thread(), 1u);
  if (kBounds == Bounds::kCopy && last) copy_async_16(gpu::shared(), a.in + a.n, 4);
  if (kBounds == Bounds::kMatrix) {
    uint32_t r[2];
    load_matrix_x2(r, gpu::shared() + lane() % 16 * 16 + 496 - 240 + 16);
    if (r[0] == 1) trap();
  }
  if (kBounds == Bounds::kUnaligned) a.out[thread()] = float_of(load_8(a.in + 1).word[0]);
}

GPU_KERNEL(kThreads, 1) void unwritten(const Args a) {
  if (thread() != 77) floats()[thread()] = 0.0f;
  sync_threads();
  a.out[thread()] = floats()[thread() ^ 1];
}

enum class Shuffles { kBranch, kLeft };

template <Shuffles kShuffles>
GPU_KERNEL(kThreads, 1)
void shuffling(const Args a) {
  float v = a.in[thread()];
  if (kShuffles == Shuffles::kLeft && lane() == 31) return;
  if (kShuffles == Shuffles::kLeft || lane() < 16) v += shuffle_xor(v, 1);
  a.out[thread()] = v;
}

GPU_KERNEL(kThreads, 1) void shuffles(const Args a) {
  const float v = a.in[thread()];
  const int t = lane();
  if (shuffle_up(t, 3) != (t < 3 ? t : t - 3)) trap();
  if (shuffle_down(t, 3) != (t >= 29 ? t : t + 3)) trap();
  if (shuffle_xor(t, 21) != (t ^ 21)) trap();
  if (shuffle(t, 7) != 7) trap();
  if (shuffle(t, (t + 5) % 32) != (t + 5) % 32) trap();
  if (ballot(t % 3 == 0) != 0x49249249u) trap();
  if (any(false) || !any(t == 9) || all(t != 9) || !all(true)) trap();
  if (warp_sum(1.0f) != 32.0f || warp_max(static_cast<float>(t)) != 31.0f) trap();
  a.out[thread()] = v + 1.0f;
}

// Between the lanes of a warp.
enum class Order { kSync, kShuffle, kHalves, kWrongHalves };

template <Order kOrder>
GPU_KERNEL(kThreads, 1)
void lanes(const Args a) {
  const int other = kOrder == Order::kWrongHalves ? thread() ^ 16 : thread() ^ 1;
  floats()[thread()] = a.in[thread()];
  if (kOrder == Order::kSync) sync_warp();
  if (kOrder == Order::kShuffle) shuffle(1, 0);
  if (kOrder == Order::kHalves || kOrder == Order::kWrongHalves) {
    if (lane() < 16) {
      sync_warp(0x0000ffffu);
    } else {
      sync_warp(0xffff0000u);
    }
  }
  a.out[other] = floats()[other] + 1.0f;
}

// Pairs of warps have a barrier each.
template <bool kRight, int kCount = 64>
GPU_KERNEL(kThreads, 1)
void groups(const Args a) {
  floats()[thread()] = a.in[thread()];
  sync_group(1 + warp() / 2, kCount);
  const int other = thread() ^ (kRight ? 32 : 64);
  a.out[other] = floats()[other] + 1.0f;
}

// From warp 0 to 1 by one barrier and on to warp 2 by another.
GPU_KERNEL(kThreads, 1) void chain(const Args a) {
  if (warp() == 0) floats()[thread()] = a.in[thread()];
  if (warp() < 2) sync_group(1, 64);
  if (warp() == 1 || warp() == 2) sync_group(2, 64);
  if (warp() == 2) a.out[lane()] = floats()[lane()] + 1.0f;
  if (warp() != 2) a.out[warp() == 0 ? 64 + lane() : thread()] = a.in[warp() == 0 ? 64 + lane() : thread()] + 1.0f;
}

enum class Blocks { kDisjoint, kSame, kRead, kLastBlock, kNoFence };

template <Blocks kBlocks>
GPU_KERNEL(kThreads, 1)
void blocks(const Args a) {
  const int64_t i = static_cast<int64_t>(block_x()) * kThreads + thread();
  if (kBlocks == Blocks::kDisjoint) a.out[i] = a.in[i] + 1.0f;
  if (kBlocks == Blocks::kSame) a.out[thread()] = 1.0f;
  if (kBlocks == Blocks::kRead) {
    a.out[i] = 1.0f;
    if (a.out[i ^ kThreads] == 3.0f) trap();
  }
  if (kBlocks == Blocks::kLastBlock || kBlocks == Blocks::kNoFence) {
    a.out[i] = a.in[i];
    if (kBlocks == Blocks::kLastBlock) fence();
    sync_threads();
    if (thread() == 0) {
      const uint32_t before = atomic_add(a.counter, 1u);
      if (kBlocks == Blocks::kLastBlock) fence();
      floats()[0] = before == static_cast<uint32_t>(grid_x()) - 1 ? 1.0f : 0.0f;
    }
    sync_threads();
    if (floats()[0] == 0.0f) return;
    for (int64_t j = thread(); j < a.n; j += kThreads) a.out[j] += 1.0f;
  }
}

GPU_KERNEL(kThreads, 1) void same_thread_twice(const Args a) {
  a.out[thread()] = 5.0f;
  a.out[thread()] = a.in[thread()] + 1.0f;
}

GPU_KERNEL(kThreads, 1) void two_threads_one_word(const Args a) { a.out[thread() / 2] = 5.0f; }

// Bytes of one word belong to several threads.
GPU_KERNEL(kThreads, 1) void bytes(const Args a) {
  auto* bytes = reinterpret_cast<uint8_t*>(gpu::shared());
  bytes[thread()] = static_cast<uint8_t>(thread());
  if (bytes[thread()] != thread()) trap();
  sync_threads();
  const int t = kThreads - 1 - thread();
  if (bytes[t] != t) trap();
  a.out[t] = a.in[t] + 1.0f;
}

template <bool kSame>
GPU_KERNEL(kThreads, 1)
void matrices(const Args a) {
  floats()[thread()] = a.in[thread()];
  sync_threads();
  uint32_t r[2];
  const void* row = gpu::shared() + lane() % 16 * 16;
  if (kSame || lane() < 16) {
    load_matrix_x2(r, row);
  } else {
    load_matrix_x2(r, row);
  }
  if (r[0] == 7 && r[1] == 9) trap();
  a.out[thread()] = a.in[thread()] + 1.0f;
}

GPU_KERNEL(kThreads, 1) void trapping(const Args) {
  if (thread() == 99) trap();
}

// Adds up in shared memory.
GPU_KERNEL(kThreads, 1) void counting(const Args a) {
  auto* count = reinterpret_cast<uint32_t*>(gpu::shared());
  if (thread() == 0) *count = 0;
  sync_threads();
  atomic_add(count, 2u);
  sync_threads();
  if (*count != 2 * kThreads) trap();
  atomic_max(a.counter, 7u);
  const int64_t i = static_cast<int64_t>(block_x()) * kThreads + thread();
  a.out[i] = a.in[i] + 1.0f;
}

GPU_KERNEL(kThreads, 1) void removable(const Args a) {
  floats()[thread()] = a.in[thread()];
  sync_threads();
  a.out[kThreads - 1 - thread()] = floats()[kThreads - 1 - thread()] + 1.0f;
}
constexpr unsigned kBarrierOfRemovable = __LINE__ - 3;

GPU_KERNEL(kThreads, 1) void tickets(const Args a) { a.out[atomic_add(a.counter, 1u)] = a.in[thread()] + 1.0f; }

GPU_KERNEL(32, 1) void counted(const Args a) {
  const int stride = static_cast<int>(a.n);
  floats()[thread() * stride] = a.in[thread()] + a.in[2 * thread()];
}

}  // namespace

constexpr int kBytes = kThreads * 4;
const Case kCases[] = {
    {"exchange", exchange<true>, 6, kThreads, kBytes, nullptr, true},
    {"exchange, no barrier", exchange<false>, 6, kThreads, kBytes, "race in shared memory|uninitialised shared memory",
     false},
    {"one buffer, two barriers", two_buffers<true>, 1, kThreads, 3 * kBytes, nullptr, true},
    {"two buffers, a barrier each", two_buffers<false>, 1, kThreads, 3 * kBytes, nullptr, true},
    {"one buffer, one barrier", one_buffer, 1, kThreads, kBytes, "race in shared memory", false},
    {"asynchronous copies", asynchronous<Waits::kAll>, 1, kThreads, 8 * kBytes, nullptr, true},
    {"asynchronous groups", asynchronous_groups, 1, kThreads, 8 * kBytes, nullptr, true},
    {"asynchronous, not waited for", asynchronous<Waits::kNone>, 1, kThreads, 8 * kBytes, "has not been waited for",
     false},
    {"asynchronous, one group too few", asynchronous<Waits::kTooFew>, 1, kThreads, 8 * kBytes,
     "has not been waited for", false},
    {"asynchronous, not committed", asynchronous<Waits::kNoCommit>, 1, kThreads, 8 * kBytes, "has not been waited for",
     false},
    {"asynchronous, no barrier", asynchronous<Waits::kNoBarrier>, 1, kThreads, 8 * kBytes,
     "race in shared memory|has not been waited for|uninitialised shared memory", false},
    {"barrier in half a warp", diverging<Branch::kHalfWarp>, 1, kThreads, 0, "divergence|deadlock", false},
    {"barrier without its other warp", diverging<Branch::kOneWarp>, 1, kThreads, 0, "deadlock", false},
    {"barriers at two places", diverging<Branch::kOtherPlace>, 1, kThreads, 0, "divergence", false},
    {"a thread leaves before a barrier", diverging<Branch::kLeave>, 1, kThreads, 0, "divergence", false},
    {"warps leave before a barrier", leaving_warps, 1, kThreads, kBytes, nullptr, true},
    {"shared memory, read past its end", outside<Bounds::kSharedRead>, 1, kThreads, kBytes,
     "at byte 512 of 512 of shared memory", false},
    {"shared memory, write past its end", outside<Bounds::kSharedWrite>, 1, kThreads, kBytes,
     "at byte 512 of 512 of shared memory", false},
    {"read past the end", outside<Bounds::kRead>, 1, kThreads, 0, "out of bounds: thread 127 (warp 3) reads 4 bytes",
     false},
    {"write past the end", outside<Bounds::kWrite>, 1, kThreads, 0, "at byte 3072 of an allocation of 3072", false},
    {"write before the beginning", outside<Bounds::kBefore>, 1, kThreads, 0, "4 bytes before an allocation of 3072",
     false},
    {"null", outside<Bounds::kNull>, 1, kThreads, 0, "a null pointer", false},
    {"copy from past the end", outside<Bounds::kCopy>, 1, kThreads, kBytes,
     "out of bounds: thread 127 (warp 3) reads 4 bytes", false},
    {"matrix row past the end", outside<Bounds::kMatrix>, 1, kThreads, kBytes, "of 512 of shared memory", false},
    {"unaligned", outside<Bounds::kUnaligned>, 1, kThreads, 0, "not a multiple", false},
    {"uninitialised", unwritten, 1, kThreads, kBytes, "uninitialised shared memory: thread 76 (warp 2) reads byte 308",
     false},
    {"shuffle in a branch", shuffling<Shuffles::kBranch>, 1, kThreads, 0, "deadlock|has left the kernel", false},
    {"shuffle after a lane left", shuffling<Shuffles::kLeft>, 1, kThreads, 0, "deadlock|has left the kernel", false},
    {"shuffles and votes", shuffles, 1, kThreads, 0, nullptr, true},
    {"lanes", lanes<Order::kSync>, 1, kThreads, kBytes, nullptr, true},
    {"lanes, ordered by a shuffle", lanes<Order::kShuffle>, 1, kThreads, kBytes, "race in shared memory", false},
    {"lanes by halves", lanes<Order::kHalves>, 1, kThreads, kBytes, nullptr, true},
    {"lanes across halves", lanes<Order::kWrongHalves>, 1, kThreads, kBytes, "race in shared memory|uninitialised",
     false},
    {"named barriers", groups<true>, 1, kThreads, kBytes, nullptr, true},
    {"named barriers of others", groups<false>, 1, kThreads, kBytes, "race in shared memory|uninitialised", false},
    {"named barriers with too many threads", groups<true, 96>, 1, kThreads, kBytes, "deadlock", false},
    {"a chain of named barriers", chain, 1, kThreads, kBytes, nullptr, true},
    {"disjoint blocks", blocks<Blocks::kDisjoint>, 6, kThreads, 0, nullptr, true},
    {"blocks write the same", blocks<Blocks::kSame>, 6, kThreads, 0, "race in device memory", false},
    {"blocks read what others write", blocks<Blocks::kRead>, 6, kThreads, 0, "race in device memory", false},
    {"the last block", blocks<Blocks::kLastBlock>, 6, kThreads, 4, nullptr, true},
    {"the last block, no fences", blocks<Blocks::kNoFence>, 6, kThreads, 4, "race in device memory", false},
    {"a thread writes twice", same_thread_twice, 1, kThreads, 0, nullptr, true},
    {"two threads write a word", two_threads_one_word, 1, kThreads, 0, "race in device memory", false},
    {"bytes of a word", bytes, 1, kThreads, kThreads, nullptr, true},
    {"matrix loads", matrices<true>, 1, kThreads, kBytes, nullptr, true},
    {"matrix loads in branches", matrices<false>, 1, kThreads, kBytes, "divergence", false},
    {"trap", trapping, 1, kThreads, 0, "trap at faults.cc", false},
    {"atomic operations", counting, 6, kThreads, 4, nullptr, true},
};
const int kCaseCount = sizeof kCases / sizeof kCases[0];

const Kernel kRemovable = removable;
const unsigned kRemovableLine = kBarrierOfRemovable;
const Kernel kTickets = tickets;
const Kernel kCounted = counted;

}  // namespace gatun::simt_test
