// The host's side of the layer: what the backend asks of a driver. A library is made of the same sources for each driver:
// runtime_cuda.cu (the CUDA runtime), rocm-adapter/backend/runtime_rocm.cc (HIP's) and runtime_model.cc (native/simt).
#pragma once

#define GATUN_ACCELERATOR gpu
#include "accelerator/runtime.h"
#include "gpu/wave.h"

namespace gatun::gpu {

// Whether times mean anything.
extern const bool kIsHardware;

struct Properties : CommonProperties {
  char arch_name[16];            // as in names of kernels: "sm_80", "gfx942"
  int arch;                      // 10 * compute capability: 80, 86, 90; 0 where it is not NVIDIA's
  int multiprocessors;
  int shared_bytes;              // of a block, at most
  int shared_bytes_multiprocessor;
  int64_t cache_bytes;           // of the L2 cache, as the runtime counts it
};

constexpr int64_t kAllocationAlignment = 256;

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
