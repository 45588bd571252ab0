// The host's side of the layer over the HIP runtime, libamdhip64.so, which is opened when it is first asked something: the
// library loads where there is none. Code objects are handed to the runtime by plans, for the device that they are made on.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <string>

#include "backend/hip.h"
#include "backend/registry.h"
#include "backend/runtime.h"
#include "core/message.h"

namespace gatun::gpu {

const char* const kBackendName = GATUN_ROCM_NAME;
const bool kIsHardware = true;

struct Queue {
  int device;
  hip::Stream stream;
};

namespace {

using hip::Api;

// HIP counts 60342131 for version 6.3.42131. Version 6 has the properties as hip.h lays them out, and takes code objects of
// version 5.
constexpr int kNeeded = 6;
int major_of(int version) { return version / 10000000; }
int minor_of(int version) { return version / 100000 % 100; }

struct Runtime {
  Api api = {};
  int version = 0;
  char missing[400] = "";  // why it cannot be used; empty where it can
};

// Its own names first, which need no development package.
const char* const kNames[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so", "/opt/rocm/lib/libamdhip64.so",
                              "libamdhip64.so.5"};

void open_runtime(Runtime& runtime) {
  char why[200] = "";
  void* library = nullptr;
  for (const char* name : kNames) {
    if ((library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr) break;
    const char* error = dlerror();
    // The first that is there and does not load says more than that others are not there.
    if (why[0] == '\0' || (std::strstr(why, "No such file") != nullptr && std::strstr(error, "No such file") == nullptr)) {
      std::snprintf(why, sizeof why, "%s", error);
    }
  }
  if (library == nullptr) {
    std::snprintf(runtime.missing, sizeof runtime.missing, "no ROCm runtime (%s): install ROCm %d.0 or later", why, kNeeded);
    return;
  }
  const char* absent = nullptr;
#define GATUN_HIP_LOOK_UP(name, Result, arguments)                                                          \
  runtime.api.name = reinterpret_cast<decltype(runtime.api.name)>(dlsym(library, "hip" #name));             \
  if (runtime.api.name == nullptr && absent == nullptr) absent = "hip" #name;
  GATUN_HIP_FUNCTIONS(GATUN_HIP_LOOK_UP)
#undef GATUN_HIP_LOOK_UP
  if (runtime.api.RuntimeGetVersion != nullptr) runtime.api.RuntimeGetVersion(&runtime.version);
  if (runtime.version > 0 && major_of(runtime.version) < kNeeded) {
    std::snprintf(runtime.missing, sizeof runtime.missing, "the ROCm runtime is too old: have HIP %d.%d, need %d.0 or later",
                  major_of(runtime.version), minor_of(runtime.version), kNeeded);
  } else if (absent != nullptr) {
    std::snprintf(runtime.missing, sizeof runtime.missing, "the ROCm runtime (HIP %d.%d) has no %s",
                  major_of(runtime.version), minor_of(runtime.version), absent);
  }
}

const Runtime& runtime() {
  static const Runtime* const opened = [] {
    auto* made = new Runtime;
    open_runtime(*made);
    return made;
  }();
  return *opened;
}
const Api& api() { return runtime().api; }

// A mark is HIP's own handle, and the structure is never defined.
hip::Event of(Mark* mark) { return reinterpret_cast<hip::Event>(mark); }

gtn_status status_of(int error) {
  switch (error) {
    case hip::kSuccess:
      return GTN_OK;
    case hip::kOutOfMemory:
      return GTN_OUT_OF_MEMORY;
    case hip::kNoDevice:
    case hip::kInsufficientDriver:
    case hip::kInvalidDevice:
    case hip::kNoBinaryForGpu:
    case hip::kNotInitialized:
      return GTN_NOT_AVAILABLE;
    case hip::kIllegalAddress:
    case hip::kLaunchFailure:
    case hip::kLaunchTimeOut:
    case hip::kAssert:
    case hip::kEccNotCorrectable:
    case hip::kUnknown:
      return GTN_DEVICE_LOST;
    default:
      return GTN_INTERNAL;
  }
}

gtn_status check(int error, const char* call, gtn_message* message) {
  if (error == hip::kSuccess) return GTN_OK;
  api().GetLastError();  // so that the next call does not find it again; an error that stays comes back by itself
  const gtn_status status = status_of(error);
  return fail(message, status, "%s: %s (%s)%s", call, api().GetErrorString(error), api().GetErrorName(error),
              status == GTN_DEVICE_LOST ? "; every later call of this process on the device fails too" : "");
}

#define GATUN_TRY(name, ...)                                                            \
  do {                                                                                  \
    const gtn_status status_of_call = check(api().name(__VA_ARGS__), "hip" #name, message); \
    if (status_of_call != GTN_OK) return status_of_call;                                \
  } while (false)

gtn_status use(int device, gtn_message* message) { return check(api().SetDevice(device), "hipSetDevice", message); }

gtn_status check_runtime(gtn_message* message) {
  const Runtime& found = runtime();
  return found.missing[0] == '\0' ? GTN_OK : fail(message, GTN_NOT_AVAILABLE, "%s", found.missing);
}

// "gfx942" of "gfx942:sramecc+:xnack-".
std::string_view arch_of(const hip::Properties& found) {
  const std::string_view whole(found.arch, strnlen(found.arch, sizeof found.arch));
  return whole.substr(0, whole.find(':'));
}

// The kernel as the runtime knows it on a device, whose code is loaded where it is not yet.
gtn_status function_of(int device, KernelPointer pointer, hip::Function* function, gtn_message* message) {
  rocm::Kernel* kernel = rocm::find_kernel(pointer.function);
  if (kernel == nullptr) return fail(message, GTN_INTERNAL, "a function that no code object has was given as a kernel");
  if (device < 0 || device >= rocm::kMostDevices) {
    return fail(message, GTN_UNSUPPORTED, "device %d: the %s backend serves devices 0 to %d", device, kBackendName,
                rocm::kMostDevices - 1);
  }
  if (void* known = kernel->function[device].load(std::memory_order_acquire); known != nullptr) {
    *function = static_cast<hip::Function>(known);
    return GTN_OK;
  }
  static std::mutex mutex;
  const std::lock_guard<std::mutex> guard(mutex);
  rocm::Bundle& bundle = *kernel->bundle;
  auto* module = static_cast<hip::Module>(bundle.module[device].load());
  if (module == nullptr) {
    hip::Properties found = {};
    GATUN_TRY(GetDevicePropertiesR0600, &found, device);
    const std::string arch(arch_of(found));
    const std::string_view object = bundle.code_object(arch);
    if (object.empty()) {
      return fail(message, GTN_NOT_AVAILABLE, "%s: there is code for %s alone", arch.c_str(), rocm::architectures().c_str());
    }
    GATUN_TRY(ModuleLoadData, &module, object.data());
    bundle.module[device].store(module);
  }
  GATUN_TRY(ModuleGetFunction, function, module, kernel->name);
  kernel->function[device].store(*function, std::memory_order_release);
  return GTN_OK;
}

}  // namespace

gtn_status device_count(int* count, gtn_message* message) {
  if (gtn_status status = check_runtime(message); status != GTN_OK) return status;
  *count = 0;
  const int error = api().GetDeviceCount(count);
  if (error == hip::kNoDevice || (error == hip::kSuccess && *count == 0)) {
    api().GetLastError();
    return fail(message, GTN_NOT_AVAILABLE, "the ROCm runtime (HIP %d.%d) finds no GPU", major_of(runtime().version),
                minor_of(runtime().version));
  }
  return check(error, "hipGetDeviceCount", message);
}

void device_selector(int index, char (&selector)[16]) { std::snprintf(selector, sizeof selector, "%d", index); }

gtn_status device_start(int, gtn_message*) { return GTN_OK; }

gtn_status device_properties(int index, Properties* properties, gtn_message* message) {
  if (gtn_status status = check_runtime(message); status != GTN_OK) return status;
  hip::Properties found = {};
  GATUN_TRY(GetDevicePropertiesR0600, &found, index);
  const std::string arch(arch_of(found));
  *properties = {};
  device_selector(index, properties->selector);
  std::snprintf(properties->description, sizeof properties->description, "%.100s, %.20s, %d multiprocessors, HIP %d.%d",
                found.name, arch.c_str(), found.multiprocessors, major_of(runtime().version), minor_of(runtime().version));
  std::snprintf(properties->arch_name, sizeof properties->arch_name, "%.15s", arch.c_str());
  if (found.warp != kWarp) {
    std::snprintf(properties->unusable, sizeof properties->unusable,
                  "%.15s has waves of %d: it is a device of the backend %s", arch.c_str(), found.warp, GATUN_ROCM_OTHER);
  } else if (!rocm::has_code_for(arch)) {
    std::snprintf(properties->unusable, sizeof properties->unusable, "%.15s: there is code for %.80s alone", arch.c_str(),
                  rocm::architectures().c_str());
  }
  properties->multiprocessors = found.multiprocessors;
  properties->shared_bytes = static_cast<int>(found.shared_bytes_block);
  properties->shared_bytes_multiprocessor = static_cast<int>(found.shared_bytes_multiprocessor);
  properties->memory_bytes = static_cast<int64_t>(found.memory_bytes);
  properties->cache_bytes = found.l2_bytes;
  return GTN_OK;
}

gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  // Nothing is something that can be freed.
  const int error = api().Malloc(memory, bytes == 0 ? 1 : static_cast<size_t>(bytes));
  if (error != hip::kOutOfMemory) return check(error, "hipMalloc", message);
  api().GetLastError();
  size_t free = 0, total = 0;
  api().MemGetInfo(&free, &total);
  return fail(message, GTN_OUT_OF_MEMORY, "%s:%d has no %lld bytes to give: %lld of %lld are free", kBackendName, device,
              static_cast<long long>(bytes), static_cast<long long>(free), static_cast<long long>(total));
}

// An address says whose it is.
void release(int, void* memory) { check(api().Free(memory), "hipFree", nullptr); }

gtn_status allocate_host(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  const int error = api().HostMalloc(memory, static_cast<size_t>(bytes), hip::kHostMallocDefault);
  if (error != hip::kOutOfMemory) return check(error, "hipHostMalloc", message);
  api().GetLastError();
  return fail(message, GTN_OUT_OF_MEMORY, "the system has no %lld bytes to pin", static_cast<long long>(bytes));
}

void release_host(int, void* memory) { check(api().HostFree(memory), "hipHostFree", nullptr); }

gtn_status queue_create(int device, Queue** queue, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  hip::Stream stream = nullptr;
  GATUN_TRY(StreamCreateWithFlags, &stream, hip::kStreamNonBlocking);
  *queue = new (std::nothrow) Queue{device, stream};
  if (*queue != nullptr) return GTN_OK;
  api().StreamDestroy(stream);
  return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
}

void queue_destroy(Queue* queue) {
  check(api().StreamSynchronize(queue->stream), "hipStreamSynchronize", nullptr);
  check(api().StreamDestroy(queue->stream), "hipStreamDestroy", nullptr);
  delete queue;
}

gtn_status queue_synchronize(Queue* queue, gtn_message* message) {
  return check(api().StreamSynchronize(queue->stream), "hipStreamSynchronize", message);
}

gtn_status copy(Queue* queue, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message) {
  const hip::CopyKind kind = direction == GTN_HOST_TO_DEVICE   ? hip::kHostToDevice
                             : direction == GTN_DEVICE_TO_HOST ? hip::kDeviceToHost
                                                               : hip::kDeviceToDevice;
  GATUN_TRY(MemcpyAsync, to, from, static_cast<size_t>(bytes), kind, queue->stream);
  // The host's memory may be pinned: then only the wait says that it was read or filled.
  return kind == hip::kDeviceToDevice ? GTN_OK : queue_synchronize(queue, message);
}

gtn_status mark_create(int device, Mark** mark, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  hip::Event event = nullptr;
  GATUN_TRY(EventCreateWithFlags, &event, hip::kEventDefault);
  *mark = reinterpret_cast<Mark*>(event);
  return GTN_OK;
}

void mark_destroy(Mark* mark) { check(api().EventDestroy(of(mark)), "hipEventDestroy", nullptr); }

gtn_status mark_record(Mark* mark, Queue* queue, gtn_message* message) {
  return check(api().EventRecord(of(mark), queue->stream), "hipEventRecord", message);
}

gtn_status mark_synchronize(Mark* mark, gtn_message* message) {
  return check(api().EventSynchronize(of(mark)), "hipEventSynchronize", message);
}

gtn_status mark_query(Mark* mark, bool* reached, gtn_message* message) {
  const int error = api().EventQuery(of(mark));
  *reached = error == hip::kSuccess;
  if (error == hip::kNotReady) {
    api().GetLastError();
    return GTN_OK;
  }
  return check(error, "hipEventQuery", message);
}

gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message* message) {
  float elapsed = 0;
  GATUN_TRY(EventElapsedTime, &elapsed, of(start), of(end));
  *milliseconds = static_cast<double>(elapsed);
  return GTN_OK;
}

// LDS has one size for all kernels: nothing is to be set, and what a device has not, no plan asks for.
gtn_status prepare(int device, KernelPointer kernel, int shared_bytes, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  hip::Properties found = {};
  GATUN_TRY(GetDevicePropertiesR0600, &found, device);
  if (static_cast<size_t>(shared_bytes) > found.shared_bytes_block) {
    return fail(message, GTN_UNSUPPORTED, "a kernel needs %d bytes of LDS: a work group of %s:%d has at most %zu", shared_bytes,
                kBackendName, device, found.shared_bytes_block);
  }
  hip::Function function = nullptr;
  return function_of(device, kernel, &function, message);
}

gtn_status occupancy(int device, KernelPointer kernel, int threads, int shared_bytes, int* blocks, gtn_message* message) {
  if (gtn_status status = use(device, message); status != GTN_OK) return status;
  hip::Function function = nullptr;
  if (gtn_status status = function_of(device, kernel, &function, message); status != GTN_OK) return status;
  GATUN_TRY(ModuleOccupancyMaxActiveBlocksPerMultiprocessor, blocks, function, threads, static_cast<size_t>(shared_bytes));
  if (*blocks < 1) *blocks = 1;
  return GTN_OK;
}

gtn_status launch(Queue* queue, KernelPointer kernel, Grid grid, int threads, int shared_bytes, const void* args,
                  gtn_message* message) {
  // A dispatch counts threads in 32 bits, where CUDA counts blocks.
  if (grid.x > static_cast<int64_t>(UINT32_MAX) / threads) {
    return fail(message, GTN_UNSUPPORTED, "%lld blocks of %d threads: a launch on AMD has fewer than 2^32 threads",
                static_cast<long long>(grid.x), threads);
  }
  if (gtn_status status = use(queue->device, message); status != GTN_OK) return status;
  hip::Function function = nullptr;
  if (gtn_status status = function_of(queue->device, kernel, &function, message); status != GTN_OK) return status;
  size_t bytes = static_cast<size_t>(kernel.args_bytes);
  void* extra[] = {hip::kLaunchBuffer, const_cast<void*>(args), hip::kLaunchBufferSize, &bytes, hip::kLaunchEnd};
  GATUN_TRY(ModuleLaunchKernel, function, static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
            static_cast<unsigned>(grid.z), static_cast<unsigned>(threads), 1, 1, static_cast<unsigned>(shared_bytes),
            queue->stream, nullptr, extra);
  return GTN_OK;
}

}  // namespace gatun::gpu
