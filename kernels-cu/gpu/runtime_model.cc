// The host's side of the layer over the host model of native/simt. A launch has ended when launch() returns, so queues
// and marks hold nothing; an error of a kernel is the status of its launch, and the next one starts afresh.
#include "core/message.h"
#include "gpu/runtime.h"
#include "simt/simt.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <new>

namespace gatun::gpu {

const char* const kBackendName = "simt";
const bool kIsHardware = false;

struct Queue {
  int device;
};

// The devices that the kernels of this library are compiled for.
#ifndef GATUN_SIMT_DEVICES
#define GATUN_SIMT_DEVICES kDevices
#endif
static constexpr auto& kDevices = simt::GATUN_SIMT_DEVICES;
static_assert(kDevices[0].warp == kWarp);

struct Mark {
  std::chrono::steady_clock::time_point reached;
};

gtn_status device_count(int* count, gtn_message*) {
  *count = static_cast<int>(std::size(kDevices));
  return GTN_OK;
}

gtn_status device_properties(int index, Properties* properties, gtn_message*) {
  const simt::Limits& device = kDevices[index];
  *properties = {};
  std::snprintf(properties->selector, sizeof properties->selector, "%s", device.name);
  std::snprintf(properties->description, sizeof properties->description,
                "host model with the limits of %s; it shows neither speed nor behaviour of hardware", device.name);
  properties->arch = device.arch;
  std::snprintf(properties->arch_name, sizeof properties->arch_name, "%s", device.name);
  properties->multiprocessors = device.multiprocessors;
  properties->shared_bytes = device.shared_bytes;
  properties->shared_bytes_multiprocessor = device.shared_bytes_multiprocessor;
  properties->memory_bytes = -1;
  properties->cache_bytes = device.cache_bytes;
  return GTN_OK;
}

gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message) {
  *memory = simt::allocate(bytes);
  if (*memory != nullptr) return GTN_OK;
  return fail(message, GTN_OUT_OF_MEMORY, "simt:%s has no %lld bytes to give", kDevices[device].name,
              static_cast<long long>(bytes));
}

void release(int, void* memory) { simt::release(memory); }

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

gtn_status fill(Queue*, void* memory, int value, int64_t bytes, gtn_message*) {
  if (bytes != 0) std::memset(memory, value, static_cast<size_t>(bytes));
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

gtn_status prepare(int device, KernelPointer, int shared_bytes, gtn_message* message) {
  if (shared_bytes <= kDevices[device].shared_bytes) return GTN_OK;
  return fail(message, GTN_INTERNAL, "a kernel needs %d bytes of shared memory: a block of simt:%s has at most %d",
              shared_bytes, kDevices[device].name, kDevices[device].shared_bytes);
}

// By threads and shared memory, of which each block takes 1 KiB more; there are no registers here.
gtn_status occupancy(int device, KernelPointer, int threads, int shared_bytes, int* blocks, gtn_message*) {
  const simt::Limits& limits = kDevices[device];
  *blocks = std::max(1, std::min(limits.threads_multiprocessor / std::max(threads, 1),
                                 limits.shared_bytes_multiprocessor / (shared_bytes + 1024)));
  return GTN_OK;
}

gtn_status launch(Queue* queue, KernelPointer kernel, Grid grid, int threads, int shared_bytes, const void* args,
                  gtn_message* message) {
  const simt::Launch launch = {kernel.function,          kernel.call, args,        kernel.args_bytes,
                               {grid.x, grid.y, grid.z}, threads,     shared_bytes};
  char text[1000];
  if (simt::launch(kDevices[queue->device], launch, text, sizeof text)) return GTN_OK;
  return fail(message, GTN_INTERNAL, "%s", text);
}

}  // namespace gatun::gpu
