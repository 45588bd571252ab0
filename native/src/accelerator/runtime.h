// What the backend of an accelerator asks of its vendor's runtime, or of what stands in for that: devices, memory, queues of work
// and points in them. Backends share these declarations and backend.cc, which makes a table of functions of them; each has
// them in a namespace of its own, GATUN_ACCELERATOR, so that its kernels and theirs never meet.
//
// To be included by a backend's own backend/runtime.h, which names that namespace and adds how kernels are launched.
//
// Functions may be called from any thread; they set the current device themselves. A failure gives a status and a message
// that names the call; an error that the device cannot recover from is GTN_DEVICE_LOST, then and ever after.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::GATUN_ACCELERATOR {

// As in libgatun_<name>.so.
extern const char* const kBackendName;

// What every device has; a backend's Properties are these and its own.
struct CommonProperties {
  char selector[16];      // what follows the colon of the device's name: "0", "sm_80"; empty: the backend has one device
  char description[192];  // the device's own name, and what is behind it
  char unusable[256];     // why kernels cannot run there; empty where they can
  int64_t memory_bytes;   // -1 when unknown
};
struct Properties;

// GTN_NOT_AVAILABLE and a message where there is no driver or no device.
gtn_status device_count(int* count, gtn_message* message);
// The selector alone, without setting the device up.
void device_selector(int index, char (&selector)[16]);
gtn_status device_properties(int index, Properties* properties, gtn_message* message);
// Makes ready what a device's kernels need: part of opening it.
gtn_status device_start(int index, gtn_message* message);

// Memory, aligned to kAllocationAlignment of the backend at least.
gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message);
void release(int device, void* memory);

// The same of the host's memory, which the device reaches by itself.
gtn_status allocate_host(int device, int64_t bytes, void** memory, gtn_message* message);
void release_host(int device, void* memory);

// A queue of work, in order.
struct Queue;
gtn_status queue_create(int device, Queue** queue, gtn_message* message);
void queue_destroy(Queue* queue);
gtn_status queue_synchronize(Queue* queue, gtn_message* message);

// Copies in the order of the queue; the host's memory is free for reuse on return, and filled. GTN_HOST_TO_DEVICE, ...
gtn_status copy(Queue* queue, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message);

// A point in a queue.
struct Mark;
gtn_status mark_create(int device, Mark** mark, gtn_message* message);
void mark_destroy(Mark* mark);
gtn_status mark_record(Mark* mark, Queue* queue, gtn_message* message);
gtn_status mark_synchronize(Mark* mark, gtn_message* message);
gtn_status mark_query(Mark* mark, bool* reached, gtn_message* message);
gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message* message);

}  // namespace gatun::GATUN_ACCELERATOR
