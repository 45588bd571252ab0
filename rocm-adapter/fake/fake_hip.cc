// A stand-in for libamdhip64.so, so that every path of the host's side of the ROCm backend runs with no GPU. It takes the code
// objects that are for real devices, looks into them as the runtime does (ELF header, architecture, kernel descriptors), and
// runs the kernel of the same name that this library has for the host model of native/simt. It says nothing of any hardware.
//
// Streams are lazy: work is done when somebody waits for it, so that memory that is touched too early, or given back too early,
// shows. An event that is asked for has not been reached yet the first time; times are those that the model takes. A kernel
// that goes wrong loses the device, and what the model has to say of it goes to standard error. The current device and the last
// error are a thread's own.
//
// Read from the environment when the first function is called:
//   FAKE_HIP_DEVICES=arch,...   what there is; "gfx942:sramecc+:xnack-,gfx1100" by default, of which it runs those that it is built for
//   FAKE_HIP_VERSION=n          what hipRuntimeGetVersion says; 60342131 by default
#include "fake/fake.h"

#include <dlfcn.h>
#include <elf.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "backend/hip.h"
#include "simt/simt.h"

using namespace gatun;

struct hip::StreamTag {
  int device;
  std::deque<std::function<int()>> work;
};
struct hip::EventTag {
  int device;
  bool recorded = false, reached = false;
  std::chrono::steady_clock::time_point time = {};  // when it was reached
  hip::Stream stream = nullptr;
};
struct hip::ModuleTag {
  int device;
  const char* image;
};
struct hip::FunctionTag {
  int device;
  const void* model;  // the kernel of the host model
  uint32_t arguments;
};

namespace {

constexpr int kInvalidValue = 1, kInvalidConfiguration = 9, kInvalidImage = 200, kInvalidHandle = 400, kNotFound = 500;

std::recursive_mutex mutex;

struct State {
  std::vector<std::string> devices;
  int version = 60342131;
  std::map<std::string, const void*> kernels;  // of this library, by mangled name
  std::map<uintptr_t, size_t> memory;
  std::set<void*> pinned;  // of the host
  std::set<hip::Stream> streams;
  std::set<hip::Event> events;
  std::map<std::string, int64_t> calls;
  std::string failing;
  int64_t failing_in = 0;
  int failing_with = 0;
  bool lost = false;
};

thread_local int current_device = 0, last_error = 0;

// The functions of this library, from the symbols of its file: kernels are local ones.
void find_kernels(State& state) {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&find_kernels), &info) == 0) return;
  std::ifstream stream(info.dli_fname, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < sizeof(Elf64_Ehdr)) return;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(file.data() + sections[i].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); ++s) {
      if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC || symbols[s].st_value == 0) continue;
      state.kernels[names + symbols[s].st_name] = static_cast<const char*>(info.dli_fbase) + symbols[s].st_value;
    }
  }
}

State& state() {
  static State* const made = [] {
    auto* s = new State;
    const char* devices = std::getenv("FAKE_HIP_DEVICES");
    std::string list = devices != nullptr ? devices : "gfx942:sramecc+:xnack-,gfx1100";
    while (!list.empty()) {
      const size_t comma = list.find(',');
      s->devices.push_back(list.substr(0, comma));
      list = comma == std::string::npos ? "" : list.substr(comma + 1);
    }
    if (const char* version = std::getenv("FAKE_HIP_VERSION")) s->version = std::atoi(version);
    find_kernels(*s);
    return s;
  }();
  return *made;
}

bool is_rdna(const std::string& arch) { return arch.rfind("gfx9", 0) != 0; }
const simt::Limits& limits_of(const std::string& arch) {
  return is_rdna(arch) ? simt::kRdnaDevices[0] : simt::kCdnaDevices[0];
}

int answer(int error) {
  if (error != 0) last_error = error;
  return error;
}

// What each function begins with: a planted failure, or that of a device that is lost.
int enter(const char* function, bool touches_device = true) {
  State& s = state();
  ++s.calls[function];
  if (s.failing_in > 0 && s.failing == function && --s.failing_in == 0) return answer(s.failing_with);
  return touches_device && s.lost ? answer(hip::kLaunchFailure) : 0;
}
#define FAKE_ENTER(name, ...)                               \
  const std::lock_guard<std::recursive_mutex> lock(mutex);  \
  if (const int error = enter(name __VA_OPT__(, ) __VA_ARGS__); error != 0) return error

bool is_memory(const void* p, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  auto found = state().memory.upper_bound(at);
  if (found == state().memory.begin()) return false;
  --found;
  return at + bytes <= found->first + found->second;
}

int step(hip::Stream stream) {
  if (state().lost) {
    stream->work.clear();
    return answer(hip::kLaunchFailure);
  }
  const auto work = std::move(stream->work.front());
  stream->work.pop_front();
  return answer(work());
}

int finish(hip::Stream stream) {
  while (!stream->work.empty()) {
    if (const int error = step(stream); error != 0) return error;
  }
  return 0;
}

int finish_all() {
  for (hip::Stream stream : state().streams) {
    if (const int error = finish(stream); error != 0) return error;
  }
  return 0;
}

// ---- Code objects: "User Guide for AMDGPU Backend", ELF code object and kernel descriptor.

constexpr uint16_t kMachine = 224;
struct {
  const char* arch;
  uint32_t flag;
} constexpr kArchitectures[] = {{"gfx90a", 0x3f}, {"gfx942", 0x4c}, {"gfx950", 0x4f}, {"gfx1100", 0x41}, {"gfx1200", 0x48}};

const Elf64_Ehdr* header_of(const char* image) { return reinterpret_cast<const Elf64_Ehdr*>(image); }

// The arguments' bytes of a kernel's descriptor, or -1 where the code object has no such kernel.
int64_t arguments_of(const char* image, const std::string& name) {
  const std::string descriptor = name + ".kd";
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image + header_of(image)->e_shoff);
  for (int i = 0; i < header_of(image)->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_DYNSYM) continue;
    const char* names = image + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(image + sections[i].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); ++s) {
      if (descriptor != names + symbols[s].st_name) continue;
      const Elf64_Shdr& section = sections[symbols[s].st_shndx];
      uint32_t bytes;
      std::memcpy(&bytes, image + section.sh_offset + (symbols[s].st_value - section.sh_addr) + 8, sizeof bytes);
      return bytes;
    }
  }
  return -1;
}

// A kernel takes one structure by value. One of more than 16 bytes lies in the memory where arguments lie, so a larger one with
// the same beginning serves for all.
struct Whole {
  char bytes[8192];
};
void call(const void* function, const void* arguments) {
  reinterpret_cast<void (*)(Whole)>(const_cast<void*>(function))(*static_cast<const Whole*>(arguments));
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void fake_hip_fail(const char* function, int64_t n, int error) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  state().calls.clear();
  state().failing = function;
  state().failing_in = n;
  state().failing_with = error;
}
int64_t fake_hip_calls(const char* function) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  return state().calls[function];
}
int64_t fake_hip_live(void) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  return static_cast<int64_t>(state().memory.size() + state().pinned.size() + state().streams.size() + state().events.size());
}

int hipRuntimeGetVersion(int* version) {
  FAKE_ENTER("hipRuntimeGetVersion", false);
  *version = state().version;
  return 0;
}

int hipGetDeviceCount(int* count) {
  FAKE_ENTER("hipGetDeviceCount", false);
  *count = static_cast<int>(state().devices.size());
  return *count == 0 ? answer(hip::kNoDevice) : 0;
}

int hipGetDevicePropertiesR0600(hip::Properties* properties, int device) {
  FAKE_ENTER("hipGetDevicePropertiesR0600", false);
  if (device < 0 || device >= static_cast<int>(state().devices.size())) return answer(hip::kInvalidDevice);
  const std::string& arch = state().devices[static_cast<size_t>(device)];
  const simt::Limits& limits = limits_of(arch);
  std::memset(properties, 0xee, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "host model behind a stand-in for HIP");
  std::snprintf(properties->arch, sizeof properties->arch, "%s", arch.c_str());
  properties->memory_bytes = size_t{1} << 34;
  properties->shared_bytes_block = static_cast<size_t>(limits.shared_bytes);
  properties->shared_bytes_multiprocessor = static_cast<size_t>(limits.shared_bytes_multiprocessor);
  properties->warp = limits.warp;
  properties->threads_block = limits.threads;
  properties->multiprocessors = limits.multiprocessors;
  properties->l2_bytes = static_cast<int>(limits.cache_bytes);
  return 0;
}

int hipSetDevice(int device) {
  FAKE_ENTER("hipSetDevice", false);
  if (device < 0 || device >= static_cast<int>(state().devices.size())) return answer(hip::kInvalidDevice);
  current_device = device;
  return 0;
}

int hipMalloc(void** memory, size_t bytes) {
  FAKE_ENTER("hipMalloc");
  *memory = simt::allocate(static_cast<int64_t>(bytes));
  if (*memory == nullptr) return answer(hip::kOutOfMemory);
  state().memory[reinterpret_cast<uintptr_t>(*memory)] = bytes;
  return 0;
}

// Waits for the device first. What is freed is gone whether the device is lost or not.
int hipFree(void* memory) {
  FAKE_ENTER("hipFree", false);
  finish_all();
  if (memory != nullptr && state().memory.erase(reinterpret_cast<uintptr_t>(memory)) == 0) return answer(kInvalidValue);
  simt::release(memory);
  return 0;
}

int hipHostMalloc(void** memory, size_t bytes, unsigned) {
  FAKE_ENTER("hipHostMalloc");
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (*memory == nullptr) return answer(hip::kOutOfMemory);
  state().pinned.insert(*memory);
  return 0;
}

int hipHostFree(void* memory) {
  FAKE_ENTER("hipHostFree", false);
  finish_all();
  if (state().pinned.erase(memory) == 0) return answer(kInvalidValue);
  std::free(memory);
  return 0;
}

int hipMemGetInfo(size_t* free, size_t* total) {
  FAKE_ENTER("hipMemGetInfo");
  *total = size_t{1} << 34;
  *free = 0;
  return 0;
}

int hipStreamCreateWithFlags(hip::Stream* stream, unsigned) {
  FAKE_ENTER("hipStreamCreateWithFlags");
  *stream = new hip::StreamTag{current_device, {}};
  state().streams.insert(*stream);
  return 0;
}

int hipStreamDestroy(hip::Stream stream) {
  FAKE_ENTER("hipStreamDestroy", false);
  if (state().streams.count(stream) == 0) return answer(kInvalidValue);
  finish(stream);
  state().streams.erase(stream);
  delete stream;
  return 0;
}

int hipStreamSynchronize(hip::Stream stream) {
  FAKE_ENTER("hipStreamSynchronize");
  return finish(stream);
}

int hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, hip::Stream stream) {
  FAKE_ENTER("hipMemcpyAsync");
  if (bytes == 0) return 0;
  const bool to_device = kind != hip::kDeviceToHost, from_device = kind != hip::kHostToDevice;
  if (is_memory(to, bytes) != to_device || is_memory(from, bytes) != from_device) return answer(kInvalidValue);
  stream->work.push_back([=] {
    std::memmove(to, from, bytes);
    return 0;
  });
  return 0;
}

int hipEventCreateWithFlags(hip::Event* event, unsigned) {
  FAKE_ENTER("hipEventCreateWithFlags");
  *event = new hip::EventTag{current_device};
  state().events.insert(*event);
  return 0;
}

int hipEventDestroy(hip::Event event) {
  FAKE_ENTER("hipEventDestroy", false);
  if (state().events.count(event) == 0) return answer(kInvalidValue);
  finish_all();  // marks of it are in the streams
  state().events.erase(event);
  delete event;
  return 0;
}

int hipEventRecord(hip::Event event, hip::Stream stream) {
  FAKE_ENTER("hipEventRecord");
  if (event->device != stream->device) return answer(kInvalidHandle);
  event->recorded = true;
  event->reached = false;
  event->stream = stream;
  stream->work.push_back([event] {
    event->reached = true;
    event->time = std::chrono::steady_clock::now();
    return 0;
  });
  return 0;
}

int hipEventSynchronize(hip::Event event) {
  FAKE_ENTER("hipEventSynchronize");
  while (event->recorded && !event->reached && state().streams.count(event->stream) != 0 && !event->stream->work.empty()) {
    if (const int error = step(event->stream); error != 0) return error;
  }
  return 0;
}

int hipEventQuery(hip::Event event) {
  FAKE_ENTER("hipEventQuery");
  if (!event->recorded || event->reached || state().streams.count(event->stream) == 0) return 0;
  if (const int error = finish(event->stream); error != 0) return error;
  return answer(hip::kNotReady);
}

int hipEventElapsedTime(float* milliseconds, hip::Event start, hip::Event end) {
  FAKE_ENTER("hipEventElapsedTime");
  if (!start->recorded || !end->recorded) return answer(kInvalidHandle);
  if (!start->reached || !end->reached) return answer(hip::kNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return 0;
}

int hipModuleLoadData(hip::Module* module, const void* image) {
  FAKE_ENTER("hipModuleLoadData");
  const auto* bytes = static_cast<const char*>(image);
  // Runtimes may map segments as they lie: a code object begins with a page, as in the bundles that clang makes by itself.
  if (reinterpret_cast<uintptr_t>(image) % 4096 != 0) return answer(kInvalidImage);
  if (std::memcmp(bytes, ELFMAG, SELFMAG) != 0 || header_of(bytes)->e_machine != kMachine) return answer(kInvalidImage);
  const std::string& whole = state().devices[static_cast<size_t>(current_device)];
  const std::string arch = whole.substr(0, whole.find(':'));
  for (const auto& known : kArchitectures) {
    if (arch == known.arch && (header_of(bytes)->e_flags & 0xff) == known.flag) {
      *module = new hip::ModuleTag{current_device, bytes};
      return 0;
    }
  }
  return answer(hip::kNoBinaryForGpu);
}

int hipModuleGetFunction(hip::Function* function, hip::Module module, const char* name) {
  FAKE_ENTER("hipModuleGetFunction");
  const int64_t arguments = arguments_of(module->image, name);
  if (arguments < 0) return answer(kNotFound);
  const auto found = state().kernels.find(name);
  if (found == state().kernels.end()) {
    std::fprintf(stderr, "fake hip: the host model has no kernel %s\n", name);
    return answer(kNotFound);
  }
  *function = new hip::FunctionTag{module->device, found->second, static_cast<uint32_t>(arguments)};
  return 0;
}

int hipModuleLaunchKernel(hip::Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, hip::Stream stream, void** arguments,
                          void** extra) {
  FAKE_ENTER("hipModuleLaunchKernel");
  if (arguments != nullptr || extra == nullptr || extra[0] != hip::kLaunchBuffer || extra[2] != hip::kLaunchBufferSize ||
      extra[4] != hip::kLaunchEnd) {
    return answer(kInvalidValue);
  }
  if (stream->device != current_device || function->device != current_device) return answer(kInvalidHandle);
  // Hidden arguments, of 256 bytes in code objects of version 5, follow those of the kernel where it has any.
  const size_t bytes = *static_cast<size_t*>(extra[3]), whole = (bytes + 7) / 8 * 8;
  if (bytes > sizeof(Whole) || (function->arguments != bytes && function->arguments != whole + 256)) {
    std::fprintf(stderr, "fake hip: %zu bytes of arguments, the code object's kernel takes %u\n", bytes, function->arguments);
    return answer(kInvalidValue);
  }
  const simt::Limits& limits = limits_of(state().devices[static_cast<size_t>(current_device)]);
  if (block_y != 1 || block_z != 1 || block_x == 0 || grid_x == 0 || grid_y == 0 || grid_z == 0 ||
      uint64_t{grid_x} * block_x > UINT32_MAX || block_x > static_cast<unsigned>(limits.threads) ||
      shared_bytes > static_cast<unsigned>(limits.shared_bytes)) {
    return answer(kInvalidConfiguration);
  }
  std::vector<char> kept(sizeof(Whole));
  std::memcpy(kept.data(), extra[1], bytes);
  stream->work.push_back([=, &limits] {
    const simt::Launch launch = {function->model, call, kept.data(), static_cast<int>(bytes), {grid_x, grid_y, grid_z},
                                 static_cast<int>(block_x), static_cast<int>(shared_bytes)};
    char message[1000];
    if (simt::launch(limits, launch, message, sizeof message)) return 0;
    std::fprintf(stderr, "fake hip: %s\n", message);
    state().lost = true;
    return static_cast<int>(hip::kLaunchFailure);
  });
  return 0;
}

int hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, hip::Function, int, size_t) {
  FAKE_ENTER("hipModuleOccupancyMaxActiveBlocksPerMultiprocessor");
  *blocks = 2;
  return 0;
}

int hipGetLastError() {
  const int error = last_error;
  last_error = 0;
  return error;
}
const char* hipGetErrorName(int error) {
  static thread_local char text[32];
  std::snprintf(text, sizeof text, "hipError%d", error);
  return text;
}
const char* hipGetErrorString(int error) {
  static thread_local char text[48];
  std::snprintf(text, sizeof text, "a stand-in's error %d", error);
  return text;
}
}
#pragma GCC visibility pop
