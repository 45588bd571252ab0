// Measures ceilings: the level's loops on all threads, in windows of a few milliseconds, of which the fastest counts; a
// window that shared the processor with others says less about it.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "core/message.h"
#include "cpu/caches.h"
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
double fastest(double work, Window window, double measure_seconds = kMeasureSeconds) {
  const double start = now();
  double best = 0;
  int64_t size = 1;
  for (double before = start, after; before - start < measure_seconds; before = after) {
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
  constexpr int64_t kRounds = 64;
  return fastest(static_cast<double>(kRounds * kernel.operations * device.threads), [&](int64_t size) {
    parallel(device.threads, device.threads, [&](int64_t, int) { unused = kernel.run(size * kRounds); });
  });
}

int64_t whole_pages(int64_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

// Sixteen times the last cache for each thread, as each may have one of its own: an exclusive cache still has a part of
// twice its size at the next sweep. Not more than the largest caches need.
int64_t memory_sweep(int threads) {
  constexpr int64_t kMost = int64_t{512} << 20;
  const int64_t cache = caches().last;
  return whole_pages(cache > kMost / 16 / threads ? kMost : 16 * cache * threads);
}

// Half of the last cache, which all threads share: as much as stays in it beside what others keep there.
int64_t cache_sweep() { return whole_pages(caches().last / 2); }

// Memory that all threads sweep through, each a part at a time.
class Sweep {
 public:
  Sweep(const Device& device, int64_t bytes)
      : bytes_(bytes),
        memory_(static_cast<char*>(std::aligned_alloc(kHugePage, static_cast<size_t>(bytes)))),
        threads_(device.threads),
        units_(bytes / kReadUnit),
        // Eight parts a thread: the last one to finish waits little.
        part_(units_ / (8 * device.threads) + 1) {
    if (memory_ == nullptr) return;
    madvise(memory_, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // advice only
    // Pages never written to are all the same page of zeros.
    each_part([](char* from, int64_t count) { std::memset(from, 1, static_cast<size_t>(count)); });
  }
  ~Sweep() { std::free(memory_); }
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  bool good() const { return memory_ != nullptr; }
  gtn_status failure(gtn_message* message) const {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a sweep of %lld bytes", static_cast<long long>(bytes_));
  }
  int64_t bytes() const { return bytes_; }

  template <typename Body>
  void each_part(Body body) const {
    parallel(threads_, (units_ + part_ - 1) / part_, [&](int64_t task, int) {
      const int64_t first = task * part_;
      body(memory_ + first * kReadUnit, (units_ - first < part_ ? units_ - first : part_) * kReadUnit);
    });
  }

 private:
  const int64_t bytes_;
  char* memory_;
  const int threads_;
  const int64_t units_, part_;
};

gtn_status read(const Device& device, int64_t bytes, double* per_second, gtn_message* message) {
  const Sweep sweep(device, bytes);
  if (!sweep.good()) return sweep.failure(message);
  const LimitKernels& kernels = *device.level->kernels->limits;
  *per_second = fastest(static_cast<double>(bytes), [&](int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      sweep.each_part([&](char* from, int64_t count) { unused = kernels.read(from, count); });
    }
  });
  return GTN_OK;
}

// The faster of the C library's copy and one past the caches: which of them that is depends on the processor. Each part's
// upper half is copied to its lower one.
gtn_status copy(const Device& device, double* per_second, gtn_message* message) {
  const Sweep sweep(device, memory_sweep(device.threads));
  if (!sweep.good()) return sweep.failure(message);
  const LimitKernels& kernels = *device.level->kernels->limits;
  const auto rate = [&](auto body) {
    return fastest(static_cast<double>(sweep.bytes()), [&](int64_t size) {
      for (int64_t i = 0; i < size; ++i) {
        sweep.each_part([&](char* part, int64_t count) { body(part + count / 2, part, count / 2); });
      }
    }, kMeasureSeconds / 2);
  };
  const double cached =
      rate([](const char* from, char* to, int64_t count) { std::memcpy(to, from, static_cast<size_t>(count)); });
  const double uncached =
      rate([&](const char* from, char* to, int64_t count) { kernels.copy(from, to, count); });
  *per_second = cached > uncached ? cached : uncached;
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
      return read(device, memory_sweep(device.threads), per_second, message);
    case GTN_LIMIT_CACHE:
      return read(device, cache_sweep(), per_second, message);
    case GTN_LIMIT_COPY:
      return copy(device, per_second, message);
    case GTN_LIMIT_EXP:
      *per_second = compute(device, kernels.exp);
      return GTN_OK;
    default:
      return fail(message, GTN_UNSUPPORTED, "the cpu backend has no limit %d", limit);
  }
}

}  // namespace gatun::cpu
