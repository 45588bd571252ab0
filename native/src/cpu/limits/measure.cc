// Measures ceilings: the level's loops on all threads, in windows of a few milliseconds, of which the fastest counts; a
// window that shared the processor with others says less about it.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr double kMeasureSeconds = 0.1;
constexpr double kWindowSeconds = 0.005;
constexpr int64_t kHugePage = int64_t{2} << 20;

// Where results go, so that no compiler finds the work useless.
std::atomic<uint32_t> unused;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// window(size) does size * `work`; sizes grow until a window takes kWindowSeconds. Gives the most work per second.
template <typename Window>
double fastest(double work, Window window) {
  const double start = now();
  double best = 0;
  int64_t size = 1;
  for (double before = start, after; before - start < kMeasureSeconds; before = after) {
    window(size);
    after = now();
    const double rate = static_cast<double>(size) * work / (after - before);
    if (rate > best) best = rate;
    if (after - before < kWindowSeconds) size *= 2;
  }
  return best;
}

double compute(const Device& device, const LimitKernels::Compute& kernel) {
  // Long enough that handing out the tasks does not count.
  constexpr int64_t kRounds = 4096;
  return fastest(static_cast<double>(kRounds * kernel.operations * device.threads), [&](int64_t size) {
    parallel(device.threads, device.threads, [&](int64_t, int) { unused = kernel.run(size * kRounds); });
  });
}

// Twice the last cache for each thread, as each may have one of its own; not more than the largest caches need.
int64_t sweep_bytes(int threads) {
  constexpr int64_t kMost = int64_t{512} << 20, kUnknownCache = int64_t{32} << 20;
  int64_t cache = 0;
  for (int name : {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL4_CACHE_SIZE}) {
    const int64_t bytes = sysconf(name);
    if (bytes > cache) cache = bytes;
  }
  if (cache == 0) cache = kUnknownCache;
  const int64_t bytes = cache > kMost / 2 / threads ? kMost : 2 * cache * threads;
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

gtn_status read_memory(const Device& device, double* per_second, gtn_message* message) {
  const int64_t bytes = sweep_bytes(device.threads);
  char* memory = static_cast<char*>(std::aligned_alloc(kHugePage, static_cast<size_t>(bytes)));
  if (memory == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a sweep of %lld bytes", static_cast<long long>(bytes));
  }
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // advice only
  // Eight parts a thread: the last one to finish waits little.
  const int64_t units = bytes / kReadUnit;
  const int64_t part = units / (8 * device.threads) + 1;
  const int64_t parts = (units + part - 1) / part;
  const auto each_part = [&](auto body) {
    parallel(device.threads, parts, [&](int64_t task, int) {
      const int64_t first = task * part;
      body(memory + first * kReadUnit, (units - first < part ? units - first : part) * kReadUnit);
    });
  };
  // Pages never written to are all the same page of zeros.
  each_part([](char* from, int64_t count) { std::memset(from, 1, static_cast<size_t>(count)); });
  const LimitKernels& kernels = *device.level->kernels->limits;
  *per_second = fastest(static_cast<double>(bytes), [&](int64_t size) {
    for (int64_t i = 0; i < size; ++i) each_part([&](char* from, int64_t count) { unused = kernels.read(from, count); });
  });
  std::free(memory);
  return GTN_OK;
}

}  // namespace

gtn_status measure_limit(const Device& device, int32_t limit, double* per_second, gtn_message* message) {
  const LimitKernels& kernels = *device.level->kernels->limits;
  switch (limit) {
    case GTN_LIMIT_F32:
      *per_second = compute(device, kernels.f32);
      return GTN_OK;
    case GTN_LIMIT_BF16:
      *per_second = compute(device, kernels.bf16);
      return GTN_OK;
    case GTN_LIMIT_S8:
      *per_second = compute(device, kernels.s8);
      return GTN_OK;
    case GTN_LIMIT_MEMORY:
      return read_memory(device, per_second, message);
    default:
      return fail(message, GTN_UNSUPPORTED, "the cpu backend has no limit %d", limit);
  }
}

}  // namespace gatun::cpu
