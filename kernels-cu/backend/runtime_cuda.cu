// The host's side of the layer over the CUDA runtime, which is linked statically and opens the driver by itself when it is first
// asked something: the library loads where there is none.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <new>

#include "backend/runtime.h"
#include "core/message.h"

namespace gatun::gpu {

const char* const kBackendName = "cuda";
const bool kIsHardware = true;

struct Queue {
  int device;
  cudaStream_t stream;
};

namespace {

// What the kernels need: asynchronous copies and BF16 matrix units.
constexpr int kLeastArch = 80;

// A mark is CUDA's own handle, and the structure is never defined.
cudaEvent_t of(Mark* mark) { return reinterpret_cast<cudaEvent_t>(mark); }

gtn_status status_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return GTN_OK;
    case cudaErrorMemoryAllocation:
      return GTN_OUT_OF_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorInitializationError:
      return GTN_NOT_AVAILABLE;
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorUnknown:
      return GTN_DEVICE_LOST;
    default:
      return GTN_INTERNAL;
  }
}

gtn_status check(cudaError_t error, const char* call, gtn_message* message) {
  if (error == cudaSuccess) return GTN_OK;
  cudaGetLastError();  // so that the next call does not find it again; an error that stays comes back by itself
  const gtn_status status = status_of(error);
  return fail(message, status, "%s: %s (%s)%s", call, cudaGetErrorString(error), cudaGetErrorName(error),
              status == GTN_DEVICE_LOST ? "; every later call of this process on the device fails too" : "");
}

#define GATUN_TRY(call, name)                                     \
  do {                                                            \
    const gtn_status status_of_call = check(call, name, message); \
    if (status_of_call != GTN_OK) return status_of_call;          \
  } while (false)

gtn_status use(int device, gtn_message* message) { return check(cudaSetDevice(device), "cudaSetDevice", message); }

// The driver's version as CUDA counts: 13000 is 13.0.
gtn_status check_driver(int* driver, gtn_message* message) {
  constexpr int kNeeded = CUDART_VERSION / 1000 * 1000;
  *driver = 0;
  GATUN_TRY(cudaDriverGetVersion(driver), "cudaDriverGetVersion");
  if (*driver == 0) {
    return fail(message, GTN_NOT_AVAILABLE,
                "no NVIDIA driver (libcuda.so.1 was not found, or did not load): install one for CUDA %d.0 or later",
                kNeeded / 1000);
  }
  if (*driver < kNeeded) {
    return fail(message, GTN_NOT_AVAILABLE, "the NVIDIA driver is too old: have one for CUDA %d.%d, need %d.0 or later",
                *driver / 1000, *driver % 1000 / 10, kNeeded / 1000);
  }
  return GTN_OK;
}

}  // namespace

gtn_status device_count(int* count, gtn_message* message) {
  int driver;
  if (gtn_status status = check_driver(&driver, message); status != GTN_OK) return status;
  *count = 0;
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && *count == 0)) {
    cudaGetLastError();
    return fail(message, GTN_NOT_AVAILABLE, "the NVIDIA driver (CUDA %d.%d) finds no GPU", driver / 1000, driver % 1000 / 10);
  }
  return check(error, "cudaGetDeviceCount", message);
}

void device_selector(int index, char (&selector)[16]) { std::snprintf(selector, sizeof selector, "%d", index); }

gtn_status device_start(int, gtn_message*) { return GTN_OK; }

gtn_status device_properties(int index, Properties* properties, gtn_message* message) {
  int driver = 0;
  if (gtn_status status = check_driver(&driver, message); status != GTN_OK) return status;
  cudaDeviceProp found;
  GATUN_TRY(cudaGetDeviceProperties(&found, index), "cudaGetDeviceProperties");
  *properties = {};
  device_selector(index, properties->selector);
  std::snprintf(properties->description, sizeof properties->description,
                "%.100s, compute capability %d.%d, %d multiprocessors, driver for CUDA %d.%d", found.name, found.major,
                found.minor, found.multiProcessorCount, driver / 1000, driver % 1000 / 10);
  properties->arch = 10 * found.major + found.minor;
  std::snprintf(properties->arch_name, sizeof properties->arch_name, "sm_%d", properties->arch);
  if (properties->arch < kLeastArch) {
    std::snprintf(properties->unusable, sizeof properties->unusable, "compute capability %d.%d: 8.0 or later is needed",
                  found.major, found.minor);
  }
  properties->multiprocessors = found.multiProcessorCount;
  properties->shared_bytes = static_cast<int>(found.sharedMemPerBlockOptin);
  properties->shared_bytes_multiprocessor = static_cast<int>(found.sharedMemPerMultiprocessor);
  properties->memory_bytes = static_cast<int64_t>(found.totalGlobalMem);
  properties->cache_bytes = found.l2CacheSize;
  return GTN_OK;
}

gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  const cudaError_t error = cudaMalloc(memory, static_cast<size_t>(bytes));
  if (error != cudaErrorMemoryAllocation) return check(error, "cudaMalloc", message);
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return fail(message, GTN_OUT_OF_MEMORY, "cuda:%d has no %lld bytes to give: %lld of %lld are free", device,
              static_cast<long long>(bytes), static_cast<long long>(free), static_cast<long long>(total));
}

void release(int device, void* memory) {
  if (cudaSetDevice(device) == cudaSuccess) cudaFree(memory);
  cudaGetLastError();
}

gtn_status allocate_host(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  const cudaError_t error = cudaHostAlloc(memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (error != cudaErrorMemoryAllocation) return check(error, "cudaHostAlloc", message);
  cudaGetLastError();
  return fail(message, GTN_OUT_OF_MEMORY, "the system has no %lld bytes to pin", static_cast<long long>(bytes));
}

void release_host(int device, void* memory) {
  if (cudaSetDevice(device) == cudaSuccess) cudaFreeHost(memory);
  cudaGetLastError();
}

gtn_status queue_create(int device, Queue** queue, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  cudaStream_t stream;
  GATUN_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  *queue = new (std::nothrow) Queue{device, stream};
  if (*queue != nullptr) return GTN_OK;
  cudaStreamDestroy(stream);
  return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
}

void queue_destroy(Queue* queue) {
  cudaStreamSynchronize(queue->stream);
  cudaStreamDestroy(queue->stream);
  cudaGetLastError();
  delete queue;
}

gtn_status queue_synchronize(Queue* queue, gtn_message* message) {
  return check(cudaStreamSynchronize(queue->stream), "cudaStreamSynchronize", message);
}

gtn_status copy(Queue* queue, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message) {
  const cudaMemcpyKind kind = direction == GTN_HOST_TO_DEVICE   ? cudaMemcpyHostToDevice
                              : direction == GTN_DEVICE_TO_HOST ? cudaMemcpyDeviceToHost
                                                                : cudaMemcpyDeviceToDevice;
  GATUN_TRY(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, queue->stream), "cudaMemcpyAsync");
  // The host's memory may be pinned: then only the wait says that it was read or filled.
  return kind == cudaMemcpyDeviceToDevice ? GTN_OK : queue_synchronize(queue, message);
}

gtn_status mark_create(int device, Mark** mark, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  cudaEvent_t event;
  GATUN_TRY(cudaEventCreateWithFlags(&event, cudaEventDefault), "cudaEventCreateWithFlags");
  *mark = reinterpret_cast<Mark*>(event);
  return GTN_OK;
}

void mark_destroy(Mark* mark) {
  cudaEventDestroy(of(mark));
  cudaGetLastError();
}

gtn_status mark_record(Mark* mark, Queue* queue, gtn_message* message) {
  return check(cudaEventRecord(of(mark), queue->stream), "cudaEventRecord", message);
}

gtn_status mark_synchronize(Mark* mark, gtn_message* message) {
  return check(cudaEventSynchronize(of(mark)), "cudaEventSynchronize", message);
}

gtn_status mark_query(Mark* mark, bool* reached, gtn_message* message) {
  const cudaError_t error = cudaEventQuery(of(mark));
  *reached = error == cudaSuccess;
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return GTN_OK;
  }
  return check(error, "cudaEventQuery", message);
}

gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message* message) {
  float elapsed = 0;
  GATUN_TRY(cudaEventElapsedTime(&elapsed, of(start), of(end)), "cudaEventElapsedTime");
  *milliseconds = static_cast<double>(elapsed);
  return GTN_OK;
}

gtn_status prepare(int device, KernelPointer kernel, int shared_bytes, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  constexpr int kAlwaysAllowed = 48 << 10;
  if (shared_bytes > kAlwaysAllowed) {
    // All that the device has, so that a plan that needs less does not take it from one that needs more.
    int most = 0;
    GATUN_TRY(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
    GATUN_TRY(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
              "cudaFuncSetAttribute");
  }
  // Loads the code now, not in the first run.
  cudaFuncAttributes attributes;
  return check(cudaFuncGetAttributes(&attributes, kernel.function), "cudaFuncGetAttributes", message);
}

gtn_status occupancy(int device, KernelPointer kernel, int threads, int shared_bytes, int* blocks, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  GATUN_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel.function, threads, static_cast<size_t>(shared_bytes)),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  if (*blocks < 1) *blocks = 1;
  return GTN_OK;
}

gtn_status launch(Queue* queue, KernelPointer kernel, Grid grid, int threads, int shared_bytes, const void* args,
                  gtn_message* message) {
  if (gtn_status status = use(queue->device, message); status != GTN_OK) return status;
  void* arguments[] = {const_cast<void*>(args)};
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  return check(cudaLaunchKernel(kernel.function, blocks, dim3(static_cast<unsigned>(threads)), arguments,
                                static_cast<size_t>(shared_bytes), queue->stream),
               "cudaLaunchKernel", message);
}

}  // namespace gatun::gpu
