// The host's side of the layer over the host model of native/simt. A launch has ended when launch() returns, so queues
// and marks hold nothing; an error of a kernel is the status of its launch, and the next one starts afresh.
#include "accelerator/inline_runtime.h"
#include "core/message.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

namespace gatun::gpu {

const char* const kBackendName = "simt";
const bool kIsHardware = false;

// The devices that the kernels of this library are compiled for.
#ifndef GATUN_SIMT_DEVICES
#define GATUN_SIMT_DEVICES kDevices
#endif
static constexpr auto& kDevices = simt::GATUN_SIMT_DEVICES;
static_assert(kDevices[0].warp == kWarp);

gtn_status device_count(int* count, gtn_message*) {
  *count = static_cast<int>(std::size(kDevices));
  return GTN_OK;
}

void device_selector(int index, char (&selector)[16]) { std::snprintf(selector, sizeof selector, "%s", kDevices[index].name); }

gtn_status device_start(int, gtn_message*) { return GTN_OK; }

gtn_status device_properties(int index, Properties* properties, gtn_message*) {
  const simt::Limits& device = kDevices[index];
  *properties = {};
  device_selector(index, properties->selector);
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
