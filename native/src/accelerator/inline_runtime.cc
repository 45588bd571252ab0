#include "accelerator/inline_runtime.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/message.h"

namespace gatun::GATUN_ACCELERATOR {

struct Mark {
  std::chrono::steady_clock::time_point reached;
};

gtn_status allocate_host(int, int64_t bytes, void** memory, gtn_message* message) {
  constexpr size_t kMask = kAllocationAlignment - 1;
  const size_t whole = (static_cast<size_t>(bytes) + kMask) & ~kMask;
  if ((*memory = std::aligned_alloc(kAllocationAlignment, whole)) != nullptr) return GTN_OK;
  return fail(message, GTN_OUT_OF_MEMORY, "the system has no %lld bytes to give", static_cast<long long>(bytes));
}

void release_host(int, void* memory) { std::free(memory); }

gtn_status queue_create(int device, Queue** queue, gtn_message* message) {
  *queue = new (std::nothrow) Queue{device};
  return *queue != nullptr ? GTN_OK : fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
}

void queue_destroy(Queue* queue) { delete queue; }

gtn_status queue_synchronize(Queue*, gtn_message*) { return GTN_OK; }

gtn_status copy(Queue*, void* to, const void* from, int64_t bytes, int32_t, gtn_message*) {
  if (bytes != 0) std::memmove(to, from, static_cast<size_t>(bytes));
  return GTN_OK;
}

gtn_status mark_create(int, Mark** mark, gtn_message* message) {
  *mark = new (std::nothrow) Mark{};
  return *mark != nullptr ? GTN_OK : fail(message, GTN_OUT_OF_MEMORY, "no memory for an event");
}

void mark_destroy(Mark* mark) { delete mark; }

gtn_status mark_record(Mark* mark, Queue*, gtn_message*) {
  mark->reached = std::chrono::steady_clock::now();
  return GTN_OK;
}

gtn_status mark_synchronize(Mark*, gtn_message*) { return GTN_OK; }

gtn_status mark_query(Mark*, bool* reached, gtn_message*) {
  *reached = true;
  return GTN_OK;
}

gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message*) {
  *milliseconds = std::chrono::duration<double, std::milli>(end->reached - start->reached).count();
  return GTN_OK;
}

}  // namespace gatun::GATUN_ACCELERATOR
