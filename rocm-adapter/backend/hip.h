// What of the HIP runtime the backend calls: our own declarations, for a library that is opened at run time. Signatures, values
// and the layout of the properties are those of HIP 6 and 7 ("HIP Runtime API Reference", ROCm documentation).
#pragma once

#include <cstddef>
#include <cstdint>

namespace gatun::hip {

// hipError_t, of which these are told apart.
enum Error : int {
  kSuccess = 0,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kInsufficientDriver = 35,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kNoBinaryForGpu = 209,
  kEccNotCorrectable = 214,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchTimeOut = 702,
  kAssert = 710,
  kLaunchFailure = 719,
  kUnknown = 999,
};

enum CopyKind : int { kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3 };
constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDefault = 0;
constexpr unsigned kHostMallocDefault = 0;

// Of hipModuleLaunchKernel's `extra`: arguments as one block of memory.
inline void* const kLaunchBuffer = reinterpret_cast<void*>(1);
inline void* const kLaunchBufferSize = reinterpret_cast<void*>(2);
inline void* const kLaunchEnd = reinterpret_cast<void*>(3);

// hipDeviceProp_tR0600.
struct Properties {
  char name[256];
  char skipped_0[32];
  size_t memory_bytes, shared_bytes_block;
  int registers_block, warp;
  char skipped_1[8];
  int threads_block;
  char skipped_2[64];
  int multiprocessors;
  char skipped_3[224];
  int l2_bytes;
  char skipped_4[20];
  size_t shared_bytes_multiprocessor;
  char skipped_5[512];
  char arch[256];  // "gfx942:sramecc+:xnack-"
  char skipped_6[56];
};
static_assert(offsetof(Properties, memory_bytes) == 288 && offsetof(Properties, warp) == 308);
static_assert(offsetof(Properties, threads_block) == 320 && offsetof(Properties, multiprocessors) == 388);
static_assert(offsetof(Properties, l2_bytes) == 616 && offsetof(Properties, shared_bytes_multiprocessor) == 640);
static_assert(offsetof(Properties, arch) == 1160 && sizeof(Properties) == 1472);

struct StreamTag;
struct EventTag;
struct ModuleTag;
struct FunctionTag;
using Stream = StreamTag*;
using Event = EventTag*;
using Module = ModuleTag*;
using Function = FunctionTag*;

// name without "hip", what it returns, its arguments
#define GATUN_HIP_FUNCTIONS(_)                                                                                      \
  _(RuntimeGetVersion, int, (int* version))                                                                         \
  _(GetDeviceCount, int, (int* count))                                                                              \
  _(GetDevicePropertiesR0600, int, (Properties * properties, int device))                                           \
  _(SetDevice, int, (int device))                                                                                   \
  _(Malloc, int, (void** memory, size_t bytes))                                                                     \
  _(Free, int, (void* memory))                                                                                      \
  _(HostMalloc, int, (void** memory, size_t bytes, unsigned flags))                                                 \
  _(HostFree, int, (void* memory))                                                                                  \
  _(MemGetInfo, int, (size_t* free, size_t* total))                                                                 \
  _(StreamCreateWithFlags, int, (Stream * stream, unsigned flags))                                                  \
  _(StreamDestroy, int, (Stream stream))                                                                            \
  _(StreamSynchronize, int, (Stream stream))                                                                        \
  _(MemcpyAsync, int, (void* to, const void* from, size_t bytes, int kind, Stream stream))                          \
  _(EventCreateWithFlags, int, (Event * event, unsigned flags))                                                     \
  _(EventDestroy, int, (Event event))                                                                               \
  _(EventRecord, int, (Event event, Stream stream))                                                                 \
  _(EventSynchronize, int, (Event event))                                                                           \
  _(EventQuery, int, (Event event))                                                                                 \
  _(EventElapsedTime, int, (float* milliseconds, Event start, Event end))                                           \
  _(ModuleLoadData, int, (Module * module, const void* image))                                                      \
  _(ModuleGetFunction, int, (Function * function, Module module, const char* name))                                 \
  _(ModuleLaunchKernel, int,                                                                                        \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,      \
     unsigned block_z, unsigned shared_bytes, Stream stream, void** arguments, void** extra))                       \
  _(ModuleOccupancyMaxActiveBlocksPerMultiprocessor, int,                                                           \
    (int* blocks, Function function, int block, size_t shared_bytes))                                               \
  _(GetLastError, int, ())                                                                                          \
  _(GetErrorName, const char*, (int error))                                                                         \
  _(GetErrorString, const char*, (int error))

struct Api {
#define GATUN_HIP_MEMBER(name, Result, arguments) Result(*name) arguments;
  GATUN_HIP_FUNCTIONS(GATUN_HIP_MEMBER)
#undef GATUN_HIP_MEMBER
};

}  // namespace gatun::hip
