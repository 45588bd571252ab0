// What the backend asks of an Ascend device. Two libraries are made of the same sources, with runtime_acl.cc (AscendCL, opened
// at run time) in libgatun_ascend.so and runtime_twin.cc (the CPU twin of twin/) in libgatun_ascend_twin.so.
//
// Functions may be called from any thread; they set the current device themselves. A failure gives a status and a message
// that names the call; an error that the device cannot recover from is GTN_DEVICE_LOST.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::ascend {

// As plans and devices are named.
extern const char* const kBackendName;

struct Properties {
  char selector[16];      // what follows the colon of the device's name; empty: the backend has one device, of its own name
  char description[192];  // the device's own name, and what is behind it
  int vector_cores, cube_cores;
  int64_t memory_bytes;  // -1 when unknown
  char unusable[256];    // why it cannot be opened; else empty
};

// GTN_NOT_AVAILABLE and a message where there is no driver or no device.
gtn_status device_count(int* count, gtn_message* message);
gtn_status device_properties(int index, Properties* properties, gtn_message* message);

// Makes the device's kernels ready: part of opening it.
gtn_status device_start(int index, gtn_message* message);

// Memory, aligned to kAllocationAlignment at least. release() waits for the kernels that were started.
constexpr int64_t kAllocationAlignment = 64;
gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message);
void release(int device, void* memory);

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

// A kernel on a device, by the name of its entry: part of making a plan. It lives as long as the process.
struct Kernel;
gtn_status find_kernel(int device, const char* name, const Kernel** kernel, gtn_message* message);

// The arguments of an entry: addresses of device memory, or null, and after them the address of a copy of `tiling`, which says
// all that is no tensor.
constexpr int kMaxPointers = 23;
constexpr int kMaxTilingBytes = 512;
struct Arguments {
  const void* pointers[kMaxPointers];
  int count;
  const void* tiling;
  int tiling_bytes;
};

// Starts a kernel on `blocks` blocks and returns. What is in `arguments` may change on return.
gtn_status launch(Queue* queue, const Kernel* kernel, int blocks, const Arguments& arguments, gtn_message* message);

}  // namespace gatun::ascend
