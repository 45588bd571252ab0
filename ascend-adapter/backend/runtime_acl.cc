// The backend's view of a device over AscendCL. libascendcl.so is opened when the backend is first asked for its devices, so
// this library loads where there is none.
//
// Kernels are in files beside this library, ascend/<SoC>.o, or in the folder that GATUN_ASCEND_KERNELS names. A binary runs on
// the SoC alone that it was compiled for: the file whose name the SoC's begins with is taken, Ascend910B.o for an Ascend910B3.
//
// A launch takes addresses alone, and its tiling lies in device memory as well. Each queue has a ring of places for it, in
// pinned host memory and on the device: a place is filled, copied in the order of the queue, and used again when an event says
// that its half of the ring is behind.
//
// A call sets the current device of the thread that makes it, and with it the thread's context. It does not set the old one
// again: an application that uses AscendCL itself sets its context (aclrtSetCurrentContext) after it has called Gatun.
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

#include "backend/acl.h"
#include "backend/runtime.h"
#include "core/message.h"

namespace gatun::ascend {

const char* const kBackendName = "ascend";

struct Kernel {
  char name[64];
  void* function;
  Kernel* next;
};

struct Queue {
  int device;
  void* stream;
  char *host_tiling, *device_tiling;
  void* passed[2];   // events: each half of the ring is behind
  bool recorded[2];
  int next;          // place of the ring
};

struct Mark {
  int device;
  void* event;
};

namespace {

constexpr int kHalfRing = 64;
constexpr size_t kRingBytes = size_t{2} * kHalfRing * kMaxTilingBytes;
constexpr int kMaxDevices = 64;
constexpr const char* kNeeds = "install CANN 8.1.RC1 or later and source its set_env.sh";

Acl acl_functions;

// What the process has opened. Nothing of it is ever given back: the library stays as long as the process does.
std::mutex lock;
bool opened = false;
void* binaries[kMaxDevices];
Kernel* kernels[kMaxDevices];

gtn_status status_of(int error) {
  switch (error) {
    case acl::kSuccess:
      return GTN_OK;
    case acl::kBadAlloc:
    case acl::kMemoryAllocation:
    case acl::kDeviceOutOfMemory:
      return GTN_OUT_OF_MEMORY;
    case acl::kNoDevice:
    case acl::kInvalidDevice:
    case acl::kNoPermission:
      return GTN_NOT_AVAILABLE;
    case acl::kStreamTaskFull:
    case acl::kKernelLookup:
      return GTN_INTERNAL;
    default:
      return error >= acl::kFirstOfDevice && error <= acl::kLastOfDevice ? GTN_DEVICE_LOST : GTN_INTERNAL;
  }
}

gtn_status check(int error, const char* call, gtn_message* message) {
  if (error == acl::kSuccess) return GTN_OK;
  const char* why = acl_functions.aclGetRecentErrMsg();
  return fail(message, status_of(error), "%s: error %d%s%.600s", call, error, why != nullptr ? ": " : "",
              why != nullptr ? why : "");
}

#define GATUN_TRY(function, ...)                                                                               \
  do {                                                                                                         \
    const gtn_status status_of_call = check(acl_functions.function(__VA_ARGS__), #function, message);          \
    if (status_of_call != GTN_OK) return status_of_call;                                                       \
  } while (false)

gtn_status use(int device, gtn_message* message) {
  GATUN_TRY(aclrtSetDevice, device);
  return GTN_OK;
}

// By the loader's own paths, where set_env.sh puts CANN, or below the folder that CANN's variables name.
void* open_library(char (&why)[512]) {
  if (void* library = dlopen("libascendcl.so", RTLD_NOW | RTLD_LOCAL)) return library;
  std::snprintf(why, sizeof why, "%s", dlerror());
  for (const char* variable : {"ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"}) {
    const char* home = getenv(variable);
    if (home == nullptr || *home == '\0') continue;
    char path[PATH_MAX];
    std::snprintf(path, sizeof path, "%s/lib64/libascendcl.so", home);
    if (void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) return library;
    std::snprintf(why, sizeof why, "%s", dlerror());
  }
  return nullptr;
}

gtn_status open(gtn_message* message) {
  const std::lock_guard<std::mutex> guard(lock);
  if (opened) return GTN_OK;
  char why[512];
  void* library = open_library(why);
  if (library == nullptr) return fail(message, GTN_NOT_AVAILABLE, "CANN not found: %s; %s", why, kNeeds);
#define GATUN_ACL_LOOK_UP(result, name, parameters)                                                            \
  acl_functions.name = reinterpret_cast<result(*) parameters>(dlsym(library, #name));                          \
  if (acl_functions.name == nullptr) {                                                                         \
    return fail(message, GTN_NOT_AVAILABLE, "CANN is too old: its libascendcl.so has no '%s'; %s", #name, kNeeds); \
  }
  GATUN_ACL_FUNCTIONS(GATUN_ACL_LOOK_UP)
#undef GATUN_ACL_LOOK_UP
  const int error = acl_functions.aclInit(nullptr);
  if (error != acl::kSuccess && error != acl::kRepeatInitialize) {
    check(error, "aclInit", message);
    return GTN_NOT_AVAILABLE;
  }
  opened = true;
  return GTN_OK;
}

// Where kernels are: given back in `directory`.
bool kernel_directory(char (&directory)[PATH_MAX]) {
  if (const char* given = getenv("GATUN_ASCEND_KERNELS"); given != nullptr && *given != '\0') {
    return realpath(given, directory) != nullptr;
  }
  Dl_info self;
  char here[PATH_MAX];
  if (dladdr(&kBackendName, &self) == 0 || self.dli_fname == nullptr || realpath(self.dli_fname, here) == nullptr) return false;
  *std::strrchr(here, '/') = '\0';
  return static_cast<size_t>(std::snprintf(directory, sizeof directory, "%s/ascend", here)) < sizeof directory;
}

// The file of kernels for a SoC, or a message that says which there are.
gtn_status kernel_file(const char* soc, char (&file)[PATH_MAX], gtn_message* message) {
  char directory[PATH_MAX], there[256] = "";
  size_t longest = 0;
  DIR* listing = kernel_directory(directory) ? opendir(directory) : nullptr;
  if (listing == nullptr) {
    return fail(message, GTN_NOT_AVAILABLE, "no kernels are installed: there is no folder 'ascend' beside this library; CANN's "
                                            "compiler makes them when Gatun is built");
  }
  while (const dirent* entry = readdir(listing)) {
    const size_t length = std::strlen(entry->d_name);
    if (length < 3 || std::strcmp(entry->d_name + length - 2, ".o") != 0) continue;
    const size_t used = std::strlen(there);
    std::snprintf(there + used, sizeof there - used, "%s%.*s", used == 0 ? "" : ", ", static_cast<int>(length - 2),
                  entry->d_name);
    if (length - 2 <= longest || std::strncmp(soc, entry->d_name, length - 2) != 0) continue;
    longest = length - 2;
    if (static_cast<size_t>(std::snprintf(file, sizeof file, "%s/%s", directory, entry->d_name)) >= sizeof file) longest = 0;
  }
  closedir(listing);
  if (longest != 0) return GTN_OK;
  return fail(message, GTN_NOT_AVAILABLE,
              "no kernels for %s: %.300s has %s, and a binary runs on the SoC alone that it was built for", soc, directory,
              there[0] != '\0' ? there : "none");
}

const char* soc_name() {
  const char* name = acl_functions.aclrtGetSocName();
  return name != nullptr ? name : "an unknown SoC";
}

}  // namespace

gtn_status device_count(int* count, gtn_message* message) {
  if (const gtn_status status = open(message); status != GTN_OK) return status;
  uint32_t found = 0;
  const int error = acl_functions.aclrtGetDeviceCount(&found);
  if (error == acl::kNoDevice || (error == acl::kSuccess && found == 0)) {
    return fail(message, GTN_NOT_AVAILABLE, "no device: CANN is here, and finds no Ascend processor");
  }
  *count = static_cast<int>(found < kMaxDevices ? found : kMaxDevices);
  return check(error, "aclrtGetDeviceCount", message);
}

void device_selector(int index, char (&selector)[16]) { std::snprintf(selector, sizeof selector, "%d", index); }

gtn_status device_properties(int index, Properties* properties, gtn_message* message) {
  if (const gtn_status status = open(message); status != GTN_OK) return status;
  if (const gtn_status status = use(index, message); status != GTN_OK) return status;
  *properties = {};
  device_selector(index, properties->selector);
  int64_t vector_cores = 0, cube_cores = 0;
  GATUN_TRY(aclrtGetDeviceInfo, static_cast<uint32_t>(index), acl::kVectorCores, &vector_cores);
  GATUN_TRY(aclrtGetDeviceInfo, static_cast<uint32_t>(index), acl::kCubeCores, &cube_cores);
  properties->vector_cores = static_cast<int>(vector_cores);
  properties->cube_cores = static_cast<int>(cube_cores);
  size_t free = 0, total = 0;
  GATUN_TRY(aclrtGetMemInfo, acl::kHbm, &free, &total);
  properties->memory_bytes = static_cast<int64_t>(total);
  int32_t major = 0, minor = 0, patch = 0;
  GATUN_TRY(aclrtGetVersion, &major, &minor, &patch);
  std::snprintf(properties->description, sizeof properties->description,
                "%.60s, %d vector and %d cube cores, AscendCL %d.%d.%d", soc_name(), properties->vector_cores,
                properties->cube_cores, major, minor, patch);
  char file[PATH_MAX];
  gtn_message why = {sizeof why, ""};
  if (kernel_file(soc_name(), file, &why) != GTN_OK) {
    std::snprintf(properties->unusable, sizeof properties->unusable, "%.250s", why.text);
  }
  return GTN_OK;
}

gtn_status device_start(int index, gtn_message* message) {
  if (const gtn_status status = use(index, message); status != GTN_OK) return status;
  const std::lock_guard<std::mutex> guard(lock);
  if (binaries[index] != nullptr) return GTN_OK;
  char file[PATH_MAX];
  if (const gtn_status status = kernel_file(soc_name(), file, message); status != GTN_OK) return status;
  const int error = acl_functions.aclrtBinaryLoadFromFile(file, nullptr, &binaries[index]);
  if (error == acl::kSuccess) return GTN_OK;
  binaries[index] = nullptr;
  const gtn_status status = check(error, "aclrtBinaryLoadFromFile", message);
  if (status != GTN_INTERNAL) return status;
  return fail(message, GTN_NOT_AVAILABLE,
              "aclrtBinaryLoadFromFile: error %d: %.300s is damaged, or built for another SoC than %s", error, file,
              soc_name());
}

gtn_status allocate(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (const gtn_status status = use(device, message); status != GTN_OK) return status;
  const int error = acl_functions.aclrtMalloc(memory, static_cast<size_t>(bytes), acl::kHugeFirst);
  if (status_of(error) != GTN_OUT_OF_MEMORY) return check(error, "aclrtMalloc", message);
  size_t free = 0, total = 0;
  acl_functions.aclrtGetMemInfo(acl::kHbm, &free, &total);
  return fail(message, GTN_OUT_OF_MEMORY, "ascend:%d has no %lld bytes to give: %zu of %zu are free", device,
              static_cast<long long>(bytes), free, total);
}

// Kernels that were started may still use it, and nothing says that the library waits for them.
void release(int device, void* memory) {
  if (use(device, nullptr) != GTN_OK) return;
  acl_functions.aclrtSynchronizeDevice();
  acl_functions.aclrtFree(memory);
}

gtn_status allocate_host(int device, int64_t bytes, void** memory, gtn_message* message) {
  if (const gtn_status status = use(device, message); status != GTN_OK) return status;
  const int error = acl_functions.aclrtMallocHost(memory, static_cast<size_t>(bytes));
  if (status_of(error) != GTN_OUT_OF_MEMORY) return check(error, "aclrtMallocHost", message);
  return fail(message, GTN_OUT_OF_MEMORY, "the system has no %lld bytes to pin", static_cast<long long>(bytes));
}

// Copies from and to it have ended when they returned.
void release_host(int device, void* memory) {
  if (use(device, nullptr) == GTN_OK) acl_functions.aclrtFreeHost(memory);
}

gtn_status queue_create(int device, Queue** queue, gtn_message* message) {
  if (const gtn_status status = use(device, message); status != GTN_OK) return status;
  Queue* created = new (std::nothrow) Queue{};
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
  created->device = device;
  const auto fill = [&]() -> gtn_status {
    GATUN_TRY(aclrtCreateStream, &created->stream);
    GATUN_TRY(aclrtMallocHost, reinterpret_cast<void**>(&created->host_tiling), kRingBytes);
    GATUN_TRY(aclrtMalloc, reinterpret_cast<void**>(&created->device_tiling), kRingBytes, acl::kHugeFirst);
    for (void*& event : created->passed) GATUN_TRY(aclrtCreateEventExWithFlag, &event, acl::kEventProgress);
    return GTN_OK;
  };
  const gtn_status status = fill();
  if (status == GTN_OK) {
    *queue = created;
  } else {
    queue_destroy(created);
  }
  return status;
}

void queue_destroy(Queue* queue) {
  if (use(queue->device, nullptr) == GTN_OK) {
    if (queue->stream != nullptr) {
      acl_functions.aclrtSynchronizeStream(queue->stream);
      acl_functions.aclrtDestroyStream(queue->stream);
    }
    for (void* event : queue->passed) {
      if (event != nullptr) acl_functions.aclrtDestroyEvent(event);
    }
    if (queue->device_tiling != nullptr) acl_functions.aclrtFree(queue->device_tiling);
    if (queue->host_tiling != nullptr) acl_functions.aclrtFreeHost(queue->host_tiling);
  }
  delete queue;
}

gtn_status queue_synchronize(Queue* queue, gtn_message* message) {
  if (const gtn_status status = use(queue->device, message); status != GTN_OK) return status;
  GATUN_TRY(aclrtSynchronizeStream, queue->stream);
  return GTN_OK;
}

gtn_status copy(Queue* queue, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message) {
  if (const gtn_status status = use(queue->device, message); status != GTN_OK) return status;
  const size_t size = static_cast<size_t>(bytes);
  if (size == 0) return GTN_OK;
  if (direction == GTN_DEVICE_TO_DEVICE) {
    GATUN_TRY(aclrtMemcpyAsync, to, size, from, size, acl::kDeviceToDevice, queue->stream);
    return GTN_OK;
  }
  const int kind = direction == GTN_HOST_TO_DEVICE ? acl::kHostToDevice : acl::kDeviceToHost;
  GATUN_TRY(aclrtSynchronizeStream, queue->stream);
  GATUN_TRY(aclrtMemcpy, to, size, from, size, kind);
  return GTN_OK;
}

gtn_status mark_create(int device, Mark** mark, gtn_message* message) {
  if (const gtn_status status = use(device, message); status != GTN_OK) return status;
  Mark* created = new (std::nothrow) Mark{device, nullptr};
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for an event");
  const int error = acl_functions.aclrtCreateEventExWithFlag(&created->event, acl::kEventProgress | acl::kEventTimeLine);
  if (error == acl::kSuccess) {
    *mark = created;
  } else {
    delete created;
  }
  return check(error, "aclrtCreateEventExWithFlag", message);
}

void mark_destroy(Mark* mark) {
  if (use(mark->device, nullptr) == GTN_OK) {
    acl_functions.aclrtSynchronizeEvent(mark->event);
    acl_functions.aclrtDestroyEvent(mark->event);
  }
  delete mark;
}

gtn_status mark_record(Mark* mark, Queue* queue, gtn_message* message) {
  if (const gtn_status status = use(mark->device, message); status != GTN_OK) return status;
  GATUN_TRY(aclrtRecordEvent, mark->event, queue->stream);
  return GTN_OK;
}

gtn_status mark_synchronize(Mark* mark, gtn_message* message) {
  if (const gtn_status status = use(mark->device, message); status != GTN_OK) return status;
  GATUN_TRY(aclrtSynchronizeEvent, mark->event);
  return GTN_OK;
}

gtn_status mark_query(Mark* mark, bool* reached, gtn_message* message) {
  if (const gtn_status status = use(mark->device, message); status != GTN_OK) return status;
  int found = 0;
  GATUN_TRY(aclrtQueryEventStatus, mark->event, &found);
  *reached = found == acl::kEventComplete;
  return GTN_OK;
}

gtn_status mark_elapsed(Mark* start, Mark* end, double* milliseconds, gtn_message* message) {
  if (const gtn_status status = use(start->device, message); status != GTN_OK) return status;
  float elapsed = 0;
  GATUN_TRY(aclrtEventElapsedTime, &elapsed, start->event, end->event);
  *milliseconds = static_cast<double>(elapsed);
  return GTN_OK;
}

gtn_status find_kernel(int device, const char* name, const Kernel** kernel, gtn_message* message) {
  if (const gtn_status status = use(device, message); status != GTN_OK) return status;
  const std::lock_guard<std::mutex> guard(lock);
  for (Kernel* known = kernels[device]; known != nullptr; known = known->next) {
    if (std::strcmp(known->name, name) == 0) {
      *kernel = known;
      return GTN_OK;
    }
  }
  void* function = nullptr;
  GATUN_TRY(aclrtBinaryGetFunction, binaries[device], name, &function);
  Kernel* found = new (std::nothrow) Kernel{{}, function, kernels[device]};
  if (found == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a kernel");
  std::snprintf(found->name, sizeof found->name, "%s", name);
  kernels[device] = found;
  *kernel = found;
  return GTN_OK;
}

gtn_status launch(Queue* queue, const Kernel* kernel, int blocks, const Arguments& arguments, gtn_message* message) {
  if (const gtn_status status = use(queue->device, message); status != GTN_OK) return status;
  const int half = queue->next / kHalfRing;
  if (queue->next % kHalfRing == 0 && queue->recorded[half]) {
    GATUN_TRY(aclrtSynchronizeEvent, queue->passed[half]);
    queue->recorded[half] = false;
  }
  const size_t place = static_cast<size_t>(queue->next) * kMaxTilingBytes;
  const size_t bytes = static_cast<size_t>(arguments.tiling_bytes);
  void* tiling = queue->device_tiling + place;
  std::memcpy(queue->host_tiling + place, arguments.tiling, bytes);
  GATUN_TRY(aclrtMemcpyAsync, tiling, kMaxTilingBytes, queue->host_tiling + place, bytes, acl::kHostToDevice, queue->stream);
  // From here on the place is taken, whatever becomes of the launch.
  queue->next = (queue->next + 1) % (2 * kHalfRing);
  // A list of arguments that is not launched, since one of these calls fails, is left behind: AscendCL says of none of its
  // functions that it gives one back.
  const auto start = [&]() -> gtn_status {
    void *args = nullptr, *parameter = nullptr;
    GATUN_TRY(aclrtKernelArgsInit, kernel->function, &args);
    for (int i = 0; i < arguments.count; ++i) {
      GATUN_TRY(aclrtKernelArgsAppend, args, const_cast<const void**>(&arguments.pointers[i]), sizeof(void*), &parameter);
    }
    GATUN_TRY(aclrtKernelArgsAppend, args, &tiling, sizeof tiling, &parameter);
    GATUN_TRY(aclrtKernelArgsFinalize, args);
    GATUN_TRY(aclrtLaunchKernelWithConfig, kernel->function, static_cast<uint32_t>(blocks), queue->stream, nullptr, args,
              nullptr);
    return GTN_OK;
  };
  const gtn_status started = start();
  if (queue->next % kHalfRing != 0) return started;
  const int error = acl_functions.aclrtRecordEvent(queue->passed[half], queue->stream);
  queue->recorded[half] = error == acl::kSuccess;
  // Without the event, the wait is now.
  if (error != acl::kSuccess) acl_functions.aclrtSynchronizeStream(queue->stream);
  return started;
}

}  // namespace gatun::ascend
