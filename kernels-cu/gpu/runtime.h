// The host's side of the layer: what the backend asks of a driver. A library is made of the same sources for each driver:
// runtime_cuda.cu (the CUDA runtime), rocm-adapter/backend/runtime_rocm.cc (HIP's) and runtime_model.cc (native/simt).
//
// Functions may be called from any thread; they set the current device themselves. A failure gives a status and a message
// that names the call; an error that the device cannot recover from is GTN_DEVICE_LOST, then and ever after.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

#include "gpu/wave.h"

namespace gatun::gpu {

// As in libgatun_<name>.so.
extern const char* const kBackendName;

// Whether times mean anything.
extern const bool kIsHardware;

struct Properties {
  char selector[16];             // what follows the colon of the device's name: "0", "sm_80"
  char description[192];         // the device's own name, and what is behind it
  char arch_name[16];            // as in names of kernels: "sm_80", "gfx942"
  char unusable[128];            // why kernels cannot run there; empty where they can
  int arch;                      // 10 * compute capability: 80, 86, 90; 0 where it is not NVIDIA's
  int multiprocessors;
  int shared_bytes;              // of a block, at most
  int shared_bytes_multiprocessor;
  int64_t memory_bytes;          // -1 when unknown
  int64_t cache_bytes;           // of the L2 cache, as the runtime counts it
};

// GTN_NOT_AVAILABLE and a message where there is no driver or no device.
gtn_status device_count(int* count, gtn_message* message);
gtn_status device_properties(int index, Properties* properties, gtn_message* message);

// Memory, aligned to kAllocationAlignment at least.
constexpr int64_t kAllocationAlignment = 256;
gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message);
void release(int device, void* memory);

// A queue of work, in order.
struct Queue;
gtn_status queue_create(int device, Queue** queue, gtn_message* message);
void queue_destroy(Queue* queue);
gtn_status queue_synchronize(Queue* queue, gtn_message* message);

// Copies in the order of the queue; the host's memory is free for reuse on return, and filled. GTN_HOST_TO_DEVICE, ...
gtn_status copy(Queue* queue, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message);

// Sets bytes in the order of the queue.
gtn_status fill(Queue* queue, void* memory, int value, int64_t bytes, gtn_message* message);

// A point in a queue.
struct Mark;
gtn_status mark_create(int device, Mark** mark, gtn_message* message);
void mark_destroy(Mark* mark);
gtn_status mark_record(Mark* mark, Queue* queue, gtn_message* message);
gtn_status mark_synchronize(Mark* mark, gtn_message* message);
gtn_status mark_query(Mark* mark, bool* reached, gtn_message* message);
gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message* message);

// A kernel as the runtimes take it: the function, and how a host model calls it with its argument.
struct KernelPointer {
  const void* function;
  void (*call)(const void* function, const void* args);
  int args_bytes;
};

template <typename Args>
void call_kernel(const void* function, const void* args) {
  reinterpret_cast<void (*)(Args)>(const_cast<void*>(function))(*static_cast<const Args*>(args));
}

template <typename Args>
KernelPointer kernel_pointer(void (*kernel)(Args)) {
  return {reinterpret_cast<const void*>(kernel), call_kernel<Args>, static_cast<int>(sizeof(Args))};
}

struct Grid {
  int64_t x = 1, y = 1, z = 1;  // at most 2^31 - 1, 65535, 65535
};

// Makes a kernel ready for launches with up to `shared_bytes` of shared memory: part of making a plan.
gtn_status prepare(int device, KernelPointer kernel, int shared_bytes, gtn_message* message);

// How many blocks of it a multiprocessor holds at once; 1 or more.
gtn_status occupancy(int device, KernelPointer kernel, int threads, int shared_bytes, int* blocks, gtn_message* message);

// Starts a kernel and returns. `args` may change on return.
gtn_status launch(Queue* queue, KernelPointer kernel, Grid grid, int threads, int shared_bytes, const void* args,
                  gtn_message* message);

// The same with their types.
template <typename Args>
gtn_status prepare(int device, void (*kernel)(Args), int shared_bytes, gtn_message* message) {
  return prepare(device, kernel_pointer(kernel), shared_bytes, message);
}

template <typename Args>
gtn_status launch(Queue* queue, void (*kernel)(Args), Grid grid, int threads, int shared_bytes, const Args& args,
                  gtn_message* message) {
  return launch(queue, kernel_pointer(kernel), grid, threads, shared_bytes, &args, message);
}

}  // namespace gatun::gpu
