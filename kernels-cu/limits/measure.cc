// Measures ceilings with events around launches of a few milliseconds, of which the fastest counts.
#include <memory>

#include "limits/kernels.h"
#include "limits/limits.h"

namespace gatun::gpu {
namespace {

constexpr double kMeasureMilliseconds = 100;
constexpr double kWindowMilliseconds = 5;

#define GATUN_TRY(call)                                          \
  do {                                                           \
    if (gtn_status status = call; status != GTN_OK) return status; \
  } while (false)

struct QueueDeleter {
  void operator()(Queue* queue) const { queue_destroy(queue); }
};
struct MarkDeleter {
  void operator()(Mark* mark) const { mark_destroy(mark); }
};

// Launches of more and more rounds. *per_second: the most of `work`, that of a round, in a second.
gtn_status fastest(Device& device, void (*kernel)(LimitArgs), int64_t blocks, double work, LimitArgs args, double* per_second,
                   gtn_message* message) {
  GATUN_TRY(prepare(device.index, kernel, 0, message));
  Queue* queue = nullptr;
  GATUN_TRY(queue_create(device.index, &queue, message));
  const std::unique_ptr<Queue, QueueDeleter> queue_owner(queue);
  Mark *start = nullptr, *end = nullptr;
  GATUN_TRY(mark_create(device.index, &start, message));
  const std::unique_ptr<Mark, MarkDeleter> start_owner(start);
  GATUN_TRY(mark_create(device.index, &end, message));
  const std::unique_ptr<Mark, MarkDeleter> end_owner(end);
  args.rounds = 1;
  *per_second = 0;
  for (double spent = 0, took = 0; spent < kMeasureMilliseconds; spent += took + 0.05) {
    GATUN_TRY(mark_record(start, queue, message));
    GATUN_TRY(launch(queue, kernel, Grid{blocks}, kLimitThreads, 0, args, message));
    GATUN_TRY(mark_record(end, queue, message));
    GATUN_TRY(mark_synchronize(end, message));
    GATUN_TRY(mark_elapsed(start, end, &took, message));
    const double rate = static_cast<double>(args.rounds) * work / (took * 1e-3);
    if (rate > *per_second) *per_second = rate;
    if (took < kWindowMilliseconds) args.rounds *= 2;
  }
  return GTN_OK;
}

gtn_status compute(Device& device, const LimitKernel& kernel, double* per_second, gtn_message* message) {
  int resident = 1;
  GATUN_TRY(occupancy(device.index, kernel_pointer(kernel.kernel), kLimitThreads, 0, &resident, message));
  const int64_t blocks = int64_t{device.properties.multiprocessors} * resident;
  return fastest(device, kernel.kernel, blocks, kernel.operations * kLimitThreads * static_cast<double>(blocks), LimitArgs{},
                 per_second, message);
}

gtn_status sweep(Device& device, void (*kernel)(LimitArgs), int64_t bytes, bool copies, double* per_second,
                 gtn_message* message) {
  int resident = 1;
  GATUN_TRY(occupancy(device.index, kernel_pointer(kernel), kLimitThreads, 0, &resident, message));
  void* memory = nullptr;
  const int64_t all = copies ? 2 * bytes : bytes;
  GATUN_TRY(allocate(device.index, all, &memory, message));
  const LimitArgs args = {memory, static_cast<char*>(memory) + (copies ? bytes : 0), bytes, 0};
  const int64_t blocks = int64_t{device.properties.multiprocessors} * resident;
  const gtn_status status = fastest(device, kernel, blocks, static_cast<double>(all), args, per_second, message);
  release(device.index, memory);
  return status;
}

}  // namespace

gtn_status measure_limit(Device& device, int32_t limit, double* per_second, gtn_message* message) {
  const int64_t cache = device.properties.cache_bytes > 0 ? device.properties.cache_bytes : int64_t{64} << 20;
  const auto whole = [](int64_t bytes) { return bytes / kSweepUnit * kSweepUnit; };
  switch (limit) {
    case GTN_LIMIT_F32:
      return compute(device, kLimitF32, per_second, message);
    case GTN_LIMIT_BF16:
      return compute(device, kLimitBf16, per_second, message);
    case GTN_LIMIT_S8:
      return compute(device, kLimitS8, per_second, message);
    case GTN_LIMIT_EXP:
      return compute(device, kLimitExp, per_second, message);
    case GTN_LIMIT_MEMORY:  // so large that the cache holds little of it
      return sweep(device, kLimitRead, whole(16 * cache), false, per_second, message);
    case GTN_LIMIT_CACHE:  // what stays in the cache beside what others keep there
      return sweep(device, kLimitRead, whole(cache / 4), false, per_second, message);
    case GTN_LIMIT_COPY:
      return sweep(device, kLimitCopy, whole(8 * cache), true, per_second, message);
    default:
      return fail(message, GTN_UNSUPPORTED, "the %s backend has no limit %d", kBackendName, limit);
  }
}

}  // namespace gatun::gpu
