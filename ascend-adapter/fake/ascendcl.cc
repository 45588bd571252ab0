// A stand-in for libascendcl.so, so that all of the host's side of the backend runs where there is no Ascend processor: the
// functions of backend/acl.h, with streams that work in threads of their own, memory of "devices" that is told from the host's,
// and strictness about what the documentation asks for. Its kernel binaries are shared libraries of kernels that were compiled
// for the CPU twin. It is written from the same reading of the documentation as the backend: it shows that the backend keeps to
// that reading, and nothing of the real library.
#include <dlfcn.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "backend/acl.h"
#include "fake/ascendcl.h"
#include "fake/launcher.h"

#define FAKE_API extern "C" __attribute__((visibility("default")))

namespace {

using namespace gatun::ascend;

constexpr int kInvalidParameter = 107000, kContextNull = 107002, kStreamContext = 107003, kInvalidHandle = 107017;
constexpr int kUninitialized = 100001, kInvalidFile = 100003, kVectorCoreException = 507035;

struct Block {
  size_t bytes;
  int device;  // -1: pinned memory of the host
};

struct Stream {
  int device;
  std::mutex lock;
  std::condition_variable changed;
  std::deque<std::function<int()>> work;
  bool busy = false, closing = false;
  int error = 0;  // the first that went wrong; it stays
  std::thread worker;
};

struct Event {
  int device;
  uint32_t flags;
  std::mutex lock;
  std::condition_variable changed;
  int64_t recorded = 0, reached = 0;  // how often
  std::chrono::steady_clock::time_point when;
};

struct Binary {
  decltype(&fake_kernel_find) find;
  decltype(&fake_kernel_launch) launch;
};

struct Function {
  const Binary* binary;
  const void* entry;
};

// The memory of argument lists is the library's own, as in the real one: until the launch, here.
struct ArgumentList {
  Function* function;
  std::vector<void*> arguments;
  bool final = false;
};

std::recursive_mutex lock;
std::map<char*, Block> memory;
std::map<std::string, int64_t> calls;
int64_t live = 0;
std::set<Stream*> streams;
bool initialized = false;
thread_local int current_device = -1;
thread_local std::string last_error;

int wrong(int code, const std::string& why) {
  last_error = why;
  return code;
}

// Counts the call, and gives the code with which it is to fail, or 0.
int count_call(const char* function) {
  static std::string wish;
  static int64_t countdown = 0;
  const std::lock_guard<std::recursive_mutex> guard(lock);
  ++calls[function];
  const char* given = getenv("GATUN_FAKE_ACL_FAIL");
  const std::string now = given == nullptr ? "" : given;
  const size_t name = now.find(':'), number = now.find(':', name + 1);
  if (now != wish) {
    wish = now;
    countdown = name == std::string::npos ? 0 : atoll(now.c_str() + name + 1);
  }
  if (name == std::string::npos || number == std::string::npos || now.substr(0, name) != function) return 0;
  return --countdown == 0 ? wrong(atoi(now.c_str() + number + 1), "injected") : 0;
}

#define FAKE_CALL()                                                                                 \
  do {                                                                                              \
    if (const int injected = count_call(__func__); injected != 0) return injected;                  \
    if (!initialized) return wrong(kUninitialized, std::string(__func__) + ": aclInit was not called"); \
  } while (false)

#define FAKE_CALL_ON_DEVICE()                                                                        \
  do {                                                                                               \
    FAKE_CALL();                                                                                     \
    if (current_device < 0) return wrong(kContextNull, std::string(__func__) + ": no current device"); \
  } while (false)

int device_number() {
  const char* given = getenv("GATUN_FAKE_ACL_DEVICES");
  return given == nullptr ? 2 : atoi(given);
}

// Whether bytes from p on lie in one block, and of which device; *device stays where they lie in none.
bool in_block(const void* p, size_t bytes, int* device) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  char* at = static_cast<char*>(const_cast<void*>(p));
  auto block = memory.upper_bound(at);
  if (block == memory.begin()) return false;
  --block;
  if (static_cast<size_t>(at - block->first) >= block->second.bytes) return false;
  *device = block->second.device;
  return bytes <= block->second.bytes - static_cast<size_t>(at - block->first);
}

bool on_device(const void* p, size_t bytes) {
  int device = -1;
  return in_block(p, bytes, &device) && device == current_device;
}

bool on_host(const void* p) {
  int device = -1;
  in_block(p, 1, &device);
  return device == -1;
}

int new_block(void** p, size_t bytes, int device) {
  if (p == nullptr || bytes == 0) return wrong(kInvalidParameter, "no bytes");
  char* base = bytes > (size_t{1} << 40) ? nullptr : static_cast<char*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
  if (base == nullptr) return wrong(acl::kMemoryAllocation, "out of memory");
  const std::lock_guard<std::recursive_mutex> guard(lock);
  memory[base] = {bytes, device};
  ++live;
  *p = base;
  return 0;
}

int old_block(void* p, bool host) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  const auto block = memory.find(static_cast<char*>(p));
  if (block == memory.end() || (block->second.device == -1) != host) return wrong(kInvalidParameter, "freed what is not there");
  free(block->first);
  memory.erase(block);
  --live;
  return 0;
}

void work(Stream* stream) {
  std::unique_lock<std::mutex> hold(stream->lock);
  for (;;) {
    stream->changed.wait(hold, [&] { return stream->closing || !stream->work.empty(); });
    if (stream->work.empty()) return;
    const std::function<int()> next = std::move(stream->work.front());
    stream->work.pop_front();
    stream->busy = true;
    hold.unlock();
    if (const char* slow = getenv("GATUN_FAKE_ACL_SLOW")) std::this_thread::sleep_for(std::chrono::microseconds(atoi(slow)));
    const int error = next();
    hold.lock();
    stream->busy = false;
    if (stream->error == 0) stream->error = error;
    stream->changed.notify_all();
  }
}

int push(Stream* stream, std::function<int()> task) {
  if (stream == nullptr) return wrong(kInvalidHandle, "no stream");
  if (stream->device != current_device) return wrong(kStreamContext, "a stream of another device");
  const std::lock_guard<std::mutex> hold(stream->lock);
  stream->work.push_back(std::move(task));
  stream->changed.notify_all();
  return 0;
}

int wait_for(Stream* stream) {
  std::unique_lock<std::mutex> hold(stream->lock);
  stream->changed.wait(hold, [&] { return stream->work.empty() && !stream->busy; });
  return stream->error == 0 ? 0 : wrong(stream->error, "a kernel went wrong");
}

bool copies(const void* to, const void* from, size_t n, int kind) {
  const bool to_device = kind == acl::kHostToDevice || kind == acl::kDeviceToDevice;
  const bool from_device = kind == acl::kDeviceToHost || kind == acl::kDeviceToDevice;
  return (to_device ? on_device(to, n) : on_host(to)) && (from_device ? on_device(from, n) : on_host(from));
}

}  // namespace

FAKE_API int64_t fake_acl_live() {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  return live;
}

FAKE_API int64_t fake_acl_calls(const char* function) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  return calls[function];
}

FAKE_API int aclInit(const char*) {
  if (const int injected = count_call(__func__); injected != 0) return injected;
  if (initialized) return wrong(acl::kRepeatInitialize, "aclInit was called before");
  initialized = true;
  return 0;
}

FAKE_API const char* aclGetRecentErrMsg() { return last_error.c_str(); }

FAKE_API const char* aclrtGetSocName() {
  const char* given = getenv("GATUN_FAKE_ACL_SOC");
  return given == nullptr ? "Ascend910B3" : given;
}

FAKE_API int aclrtGetVersion(int32_t* major, int32_t* minor, int32_t* patch) {
  FAKE_CALL();
  *major = 1, *minor = 0, *patch = 0;
  return 0;
}

FAKE_API int aclrtGetDeviceCount(uint32_t* n) {
  FAKE_CALL();
  *n = static_cast<uint32_t>(device_number());
  return 0;
}

FAKE_API int aclrtSetDevice(int32_t id) {
  FAKE_CALL();
  if (id < 0 || id >= device_number()) return wrong(acl::kInvalidDevice, "there is no such device");
  current_device = id;
  return 0;
}

FAKE_API int aclrtSynchronizeDevice() {
  FAKE_CALL_ON_DEVICE();
  std::vector<Stream*> all;
  {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    for (Stream* stream : streams) {
      if (stream->device == current_device) all.push_back(stream);
    }
  }
  int error = 0;
  for (Stream* stream : all) error = wait_for(stream) != 0 ? kVectorCoreException : error;
  return error;
}

FAKE_API int aclrtGetDeviceInfo(uint32_t, int attribute, int64_t* value) {
  FAKE_CALL();
  if (attribute != acl::kVectorCores && attribute != acl::kCubeCores) return wrong(kInvalidParameter, "not an attribute");
  *value = attribute == acl::kVectorCores ? 4 : 2;
  return 0;
}

FAKE_API int aclrtGetMemInfo(int attribute, size_t* free_bytes, size_t* total) {
  FAKE_CALL_ON_DEVICE();
  if (attribute != acl::kHbm) return wrong(kInvalidParameter, "not a memory");
  *total = size_t{64} << 30;
  *free_bytes = size_t{63} << 30;
  return 0;
}

FAKE_API int aclrtMalloc(void** p, size_t n, int) {
  FAKE_CALL_ON_DEVICE();
  return new_block(p, n, current_device);
}

FAKE_API int aclrtFree(void* p) {
  FAKE_CALL_ON_DEVICE();
  return old_block(p, false);
}

FAKE_API int aclrtMallocHost(void** p, size_t n) {
  FAKE_CALL_ON_DEVICE();
  return new_block(p, n, -1);
}

FAKE_API int aclrtFreeHost(void* p) {
  FAKE_CALL();
  return old_block(p, true);
}

FAKE_API int aclrtMemcpy(void* to, size_t most, const void* from, size_t n, int kind) {
  FAKE_CALL_ON_DEVICE();
  if (n > most || !copies(to, from, n, kind)) return wrong(kInvalidParameter, "aclrtMemcpy: not such memory");
  std::memcpy(to, from, n);
  return 0;
}

FAKE_API int aclrtMemcpyAsync(void* to, size_t most, const void* from, size_t n, int kind, void* stream) {
  FAKE_CALL_ON_DEVICE();
  if (n > most || !copies(to, from, n, kind)) return wrong(kInvalidParameter, "aclrtMemcpyAsync: not such memory");
  const int error = push(static_cast<Stream*>(stream), [=] { return std::memcpy(to, from, n), 0; });
  int device = 0;
  const void* host = kind == acl::kHostToDevice ? from : to;
  const bool pinned = kind == acl::kDeviceToDevice || in_block(host, n, &device);
  return error != 0 || pinned ? error : wait_for(static_cast<Stream*>(stream));
}

FAKE_API int aclrtCreateStream(void** s) {
  FAKE_CALL_ON_DEVICE();
  Stream* stream = new Stream;
  stream->device = current_device;
  stream->worker = std::thread(work, stream);
  *s = stream;
  const std::lock_guard<std::recursive_mutex> guard(lock);
  streams.insert(stream);
  ++live;
  return 0;
}

FAKE_API int aclrtDestroyStream(void* s) {
  FAKE_CALL_ON_DEVICE();
  Stream* stream = static_cast<Stream*>(s);
  {
    const std::lock_guard<std::mutex> hold(stream->lock);
    stream->closing = true;
    stream->changed.notify_all();
  }
  stream->worker.join();
  const std::lock_guard<std::recursive_mutex> guard(lock);
  streams.erase(stream);
  delete stream;
  --live;
  return 0;
}

FAKE_API int aclrtSynchronizeStream(void* s) {
  FAKE_CALL_ON_DEVICE();
  return wait_for(static_cast<Stream*>(s));
}

FAKE_API int aclrtCreateEventExWithFlag(void** e, uint32_t flags) {
  FAKE_CALL_ON_DEVICE();
  Event* event = new Event;
  event->device = current_device;
  event->flags = flags;
  *e = event;
  const std::lock_guard<std::recursive_mutex> guard(lock);
  ++live;
  return 0;
}

FAKE_API int aclrtRecordEvent(void* e, void* s) {
  FAKE_CALL_ON_DEVICE();
  Event* event = static_cast<Event*>(e);
  if (event->device != current_device) return wrong(kStreamContext, "an event of another device");
  {
    const std::lock_guard<std::mutex> hold(event->lock);
    ++event->recorded;
  }
  return push(static_cast<Stream*>(s), [event] {
    const std::lock_guard<std::mutex> hold(event->lock);
    ++event->reached;
    event->when = std::chrono::steady_clock::now();
    event->changed.notify_all();
    return 0;
  });
}

FAKE_API int aclrtSynchronizeEvent(void* e) {
  FAKE_CALL_ON_DEVICE();
  Event* event = static_cast<Event*>(e);
  std::unique_lock<std::mutex> hold(event->lock);
  event->changed.wait(hold, [&] { return event->reached == event->recorded; });
  return 0;
}

FAKE_API int aclrtQueryEventStatus(void* e, int* status) {
  FAKE_CALL_ON_DEVICE();
  Event* event = static_cast<Event*>(e);
  if ((event->flags & acl::kEventProgress) == 0) return wrong(kInvalidParameter, "an event without progress");
  const std::lock_guard<std::mutex> hold(event->lock);
  *status = event->recorded > 0 && event->reached == event->recorded ? acl::kEventComplete : 0;
  return 0;
}

FAKE_API int aclrtEventElapsedTime(float* ms, void* e0, void* e1) {
  FAKE_CALL_ON_DEVICE();
  Event *start = static_cast<Event*>(e0), *end = static_cast<Event*>(e1);
  if ((start->flags & end->flags & acl::kEventTimeLine) == 0) return wrong(kInvalidParameter, "an event without times");
  *ms = std::chrono::duration<float, std::milli>(end->when - start->when).count();
  return 0;
}

FAKE_API int aclrtDestroyEvent(void* e) {
  FAKE_CALL_ON_DEVICE();
  delete static_cast<Event*>(e);
  const std::lock_guard<std::recursive_mutex> guard(lock);
  --live;
  return 0;
}

FAKE_API int aclrtBinaryLoadFromFile(const char* path, aclrtBinaryLoadOptions*, void** bin) {
  FAKE_CALL_ON_DEVICE();
  if (path == nullptr || *path != '/') return wrong(kInvalidParameter, "not an absolute path");
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return wrong(kInvalidFile, dlerror());
  void *find = dlsym(library, "fake_kernel_find"), *launch = dlsym(library, "fake_kernel_launch");
  if (find == nullptr || launch == nullptr) return wrong(kInvalidFile, "no kernels of the twin");
  *bin =
      new Binary{reinterpret_cast<decltype(&fake_kernel_find)>(find), reinterpret_cast<decltype(&fake_kernel_launch)>(launch)};
  return 0;
}

FAKE_API int aclrtBinaryGetFunction(const void* bin, const char* name, void** function) {
  FAKE_CALL_ON_DEVICE();
  const Binary* binary = static_cast<const Binary*>(bin);
  const void* entry = binary->find(name);
  if (entry == nullptr) return wrong(kInvalidParameter, std::string("no kernel ") + name);
  *function = new Function{binary, entry};
  return 0;
}

FAKE_API int aclrtKernelArgsInit(void* function, void** args) {
  FAKE_CALL_ON_DEVICE();
  *args = new ArgumentList{static_cast<Function*>(function), {}};
  const std::lock_guard<std::recursive_mutex> guard(lock);
  ++live;
  return 0;
}

FAKE_API int aclrtKernelArgsAppend(void* args, void* parameter, size_t size, void** handle) {
  FAKE_CALL_ON_DEVICE();
  ArgumentList* list = static_cast<ArgumentList*>(args);
  if (size != sizeof(void*) || list->final || handle == nullptr) return wrong(kInvalidParameter, "not an argument of an entry");
  void* value;
  std::memcpy(&value, parameter, sizeof value);
  list->arguments.push_back(value);
  *handle = parameter;
  return 0;
}

FAKE_API int aclrtKernelArgsFinalize(void* args) {
  FAKE_CALL_ON_DEVICE();
  static_cast<ArgumentList*>(args)->final = true;
  return 0;
}

FAKE_API int aclrtLaunchKernelWithConfig(void* func, uint32_t blocks, void* stream, aclrtLaunchKernelCfg* cfg, void* args,
                                         void* reserve) {
  FAKE_CALL_ON_DEVICE();
  const Function function = *static_cast<Function*>(func);
  const std::unique_ptr<ArgumentList> list(static_cast<ArgumentList*>(args));
  {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    --live;
  }
  if (!list->final || list->function != func || cfg != nullptr || reserve != nullptr || blocks == 0 || blocks > 65535) {
    return wrong(kInvalidParameter, "not a launch");
  }
  std::vector<FakeRange> ranges;
  {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    for (const auto& [base, block] : memory) {
      if (block.device == current_device) ranges.push_back({base, block.bytes});
    }
  }
  return push(static_cast<Stream*>(stream), [function, blocks, arguments = list->arguments, ranges] {
    char message[1000] = "";
    const bool right = function.binary->launch(function.entry, blocks, arguments.data(), arguments.size(), ranges.data(),
                                               ranges.size(), message, sizeof message);
    if (!right) std::fprintf(stderr, "%s\n", message);
    return right ? 0 : kVectorCoreException;
  });
}
