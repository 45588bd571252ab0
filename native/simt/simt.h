// A host model of a SIMT GPU: what it offers to the host, and what a kernel's half of kernels-cu/gpu (model.h) is made
// of.
//
// Every thread of a block is a fiber of one thread of the operating system; blocks run on a few such threads. A fiber
// runs until it waits: for its warp (shuffles, matrix instructions) or for a barrier. What goes on next is drawn at
// random from a seed. Shared memory is poisoned at block start. Kernels compiled with -fsanitize=thread call the hooks
// in memory.cc at each access, which look for bytes outside of any allocation, for accesses that no barrier orders, and
// for shared memory that is read before it is written.
//
// A launch that does something wrong ends with a message; nothing is written to standard error and nothing aborts.
//
// The model shows whether algorithm, indices and synchronisation agree with the published rules as instructions.h and
// this file state them. It shows nothing about any hardware.
//
// Read from the environment at the first launch:
//   GATUN_SIMT_SEED=n        the seed of the schedules, 1 by default. Half of the blocks favour one of their warps.
//   GATUN_SIMT_SCHEDULES=n   runs every launch n times, with seeds from GATUN_SIMT_SEED on, each from the same memory;
//                            results that differ between them are an error.
//   GATUN_SIMT_THREADS=n     threads of the operating system; by default as many as the process may run on, at most 8
//   GATUN_SIMT_CHECK=0       leaves out all checks of memory
//   GATUN_SIMT_UNINITIALIZED=0  allows reads of shared memory that nothing wrote (it holds NaN)
//   GATUN_SIMT_COUNT=file    appends to a file a line for each launch, of the numbers of Counters and the kernel's name
//   GATUN_SIMT_SITES=file    appends to a file each barrier, fence and wait that was reached: "line:column:file kind"
//   GATUN_SIMT_REMOVE=line:column:file   removes that one (`file` is the end of its path)
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace gatun::simt {

// ---- The host's side.

struct Limits {
  const char* name;  // the device's selector
  int arch;          // 10 * compute capability, or 0
  int warp;          // threads of a warp: 32 or 64
  int shared_bytes;  // of a block
  int shared_bytes_multiprocessor;
  int threads;  // of a block
  int threads_multiprocessor;
  int multiprocessors;
  int64_t cache_bytes;
};
// CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability". Multiprocessors and cache are
// what plans divide work by: those of an A100, and so few that the blocks of small cases already have several tiles
// each.
inline constexpr Limits kDevices[] = {
    {"sm_80", 80, 32, 163 << 10, 164 << 10, 1024, 2048, 108, 40 << 20},
    {"sm_86", 86, 32, 99 << 10, 100 << 10, 1024, 1536, 2, 6 << 20},
};
// AMD Instinct MI300 (CDNA 3) and RDNA 3 instruction set guides, "Local data share" and "Work-groups": a wave is a warp here,
// LDS is shared memory, a compute unit is a multiprocessor. Units and L2 caches (in the first that of an XCD) are those of an
// MI300X and of a Radeon RX 7900 XTX.
inline constexpr Limits kCdnaDevices[] = {
    {"gfx942", 0, 64, 64 << 10, 64 << 10, 1024, 2048, 304, 4 << 20},
};
inline constexpr Limits kRdnaDevices[] = {
    {"gfx1100", 0, 32, 64 << 10, 64 << 10, 1024, 1024, 96, 6 << 20},
};

// Device memory: exactly these bytes may be touched by kernels. nullptr where there is none left. All bytes start as
// 0xff.
void* allocate(int64_t bytes);
void release(void* memory);

struct Launch {
  const void* function;
  void (*call)(const void* function, const void* args);
  const void* args;
  int args_bytes;
  int64_t grid[3];
  int threads;
  int shared_bytes;
};

// Runs a kernel to its end. False, and a message of at most `capacity` bytes, where it went wrong.
bool launch(const Limits& device, const Launch& launch, char* message, size_t capacity);

// What a kernel's warps asked of the memories, summed over its launches while GATUN_SIMT_COUNT is set or count(true).
struct Counters {
  int64_t shared_requests = 0;  // of a warp
  int64_t shared_passes = 0;    // over the banks
  int64_t shared_ideal = 0;     // passes that as many different words take without conflicts
  int64_t global_requests = 0;
  int64_t global_sectors = 0;  // of 32 bytes
  int64_t global_ideal = 0;    // sectors that the same number of bytes fits into
};
void count(bool on);
Counters counters(const void* function);

// For tests: what the environment says otherwise. remove: "line:column:file", or nullptr.
void set_seed(uint64_t seed);
void set_remove(const char* site);
void set_threads(int threads);
void set_schedules(int schedules);

// ---- The kernel's side. Functions that may wait take where they are called.

using Where = std::source_location;

// What does not change while a thread runs may be read once.
[[gnu::const]] int thread();
[[gnu::const]] int block(int dimension);
[[gnu::const]] int grid(int dimension);
[[gnu::const]] char* shared();

void sync_threads(Where where);
void sync_warp(uint64_t mask, Where where);
void sync_group(int id, int threads, Where where);
void fence(Where where);
[[noreturn]] void trap(Where where);

enum class Shuffle : uint8_t { kFrom, kXor, kUp, kDown };
uint32_t shuffle(Shuffle kind, uint32_t value, int argument, Where where);
uint64_t ballot(bool predicate, Where where);

float atomic_add(float* p, float v, Where where);
int32_t atomic_add(int32_t* p, int32_t v, Where where);
uint32_t atomic_add(uint32_t* p, uint32_t v, Where where);
int32_t atomic_max(int32_t* p, int32_t v, Where where);
uint32_t atomic_max(uint32_t* p, uint32_t v, Where where);

void copy_async_16(void* to, const void* from, int valid, Where where);
void copy_async_commit(Where where);
void copy_async_wait(int under_way, Where where);

// Vectors cross by register: an array of the kernel's whose address left it would be checked at each access.
typedef uint32_t U4 __attribute__((vector_size(16)));
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

U4 load_matrix(int matrices, bool transposed, const void* row, Where where);
F4 mma_bf16(F4 c, U4 a, uint64_t b, Where where);
F4 mma_f16(F4 c, U4 a, uint64_t b, Where where);
I4 mma_s8(I4 c, U4 a, uint64_t b, Where where);
I4 mma_u8s8(I4 c, U4 a, uint64_t b, Where where);

// AMD's matrix instructions (rocm-adapter/model), on up to eight registers of A, of B and of sums.
struct Words8 {
  U4 low, high;
};
enum class MatrixKind : uint8_t { kMfmaBf16, kMfmaF16, kMfmaS8, kWmmaBf16, kWmmaF16, kWmmaU8S8 };
Words8 multiply(MatrixKind kind, Words8 c, Words8 a, Words8 b, Where where);

U4 load_16(const void* p, Where where);
uint64_t load_8(const void* p, Where where);
uint32_t load_4(const void* p, Where where);
void store_16(void* p, U4 v, Where where);
void store_8(void* p, uint64_t v, Where where);
void store_4(void* p, uint32_t v, Where where);

}  // namespace gatun::simt
