// A block that runs: its fibers, its barriers, and what is known of the order of its accesses. Between executor.cc,
// which runs it, and memory.cc, which looks at its accesses.
#pragma once

#include "simt/instructions.h"
#include "simt/simt.h"

#include <cstdarg>
#include <vector>

namespace gatun::simt {

constexpr int kThreads = 1024;
constexpr int kLanes = 64;                    // of a warp at most
constexpr int kWarps = kThreads / 32;         // of a block at most
constexpr int kBarriers = 16;  // PTX ISA 9.0, section 9.7.13.1: 0 is that of sync_threads
typedef uint64_t LaneMask;

// Who touched some bytes last, and when, in 64 bits:
//   mask 4      bytes of a word
//   thread 10
//   atomic 1
//   partial 3   sync_warps with a partial mask that the lane passed since its warp's last barrier; the last value and
//               the last of epoch stand for all from there on, which are not compared any more
//   epoch 16    how many barriers the warp had passed
//   place 30    shared memory: the code, as an offset into its library; global memory: launch and block
// 0 is nobody.
typedef uint64_t Cell;
constexpr int kThreadShift = 4, kAtomicShift = 14, kPartialShift = 15, kEpochShift = 18, kPlaceShift = 34;
constexpr uint32_t kLastEpoch = 0xffff, kLastPartial = 7, kPlaces = 1u << 30;

inline uint32_t thread_of(Cell cell) { return cell >> kThreadShift & 1023; }
inline uint32_t partial_of(Cell cell) { return cell >> kPartialShift & 7; }
inline uint32_t epoch_of(Cell cell) { return cell >> kEpochShift & 0xffff; }
inline uint32_t place_of(Cell cell) { return static_cast<uint32_t>(cell >> kPlaceShift); }

// What is remembered of 4 bytes of shared memory. Two readers, of different warps where there are such: one alone would
// hide the reader that an unordered write follows whenever an ordered one came between.
struct SharedWord {
  Cell write, read[2];
  uint8_t written;  // bytes that hold something
  uint8_t pending;  // bytes that an asynchronous copy will write
};

struct Copy {
  char* to;
  const char* from;
  int valid;
  uint32_t group;
  uintptr_t pc;
};

// An access that is to be counted.
struct Touch {
  uintptr_t pc, at;
  uint16_t bytes;
  bool shared;
};

enum class State : uint8_t { kReady, kInWarp, kInBarrier, kLeft };
enum class Op : uint8_t { kSync, kShuffle, kBallot, kLoadMatrix, kMmaBf16, kMmaF16, kMmaS8, kMmaU8S8, kMultiply };

struct alignas(64) Fiber {
  void* stack;
  uint16_t thread;
  uint8_t lane, warp;
  State state;
  uint8_t barrier;
  // What it brings to its warp, and takes away.
  Op op;
  uint8_t kind;
  LaneMask mask;
  int argument;
  const void* row;
  uintptr_t pc;
  Where where;
  union {
    float f[4];
    int32_t i[4];
    uint32_t u[4];
    uint64_t votes;
  } c;
  uint32_t a[4], b[2];
  uint32_t wide_a[8], wide_b[8], wide_c[8];  // of kMultiply
  // Asynchronous copies: those before `first_copy` are done, those of group `committed` not yet committed.
  std::vector<Touch> touches;
  std::vector<Copy> copies;
  size_t first_copy;
  uint32_t committed;
  bool released;       // a fence since the last atomic operation
  const void* atomic;  // the last atomic operation, until a fence
};

struct Warp {
  LaneMask ready, waiting, left;
  uint32_t epoch;
  bool partial;                   // whether partial masks were used since the last barrier
  uint8_t passed[kLanes];         // partial barriers
  uint8_t known[kLanes][kLanes];  // known[a][b]: lane a comes after what b did before its known-th partial barrier
};

struct Barrier {
  int arrived, expected;
  uint32_t warps;
  LaneMask lanes[kWarps];
  Where where[kWarps];
};

struct Block {
  Fiber* current;
  uint32_t ready;  // warps with lanes that can go on
  int last;        // the warp that goes on as long as it can; -1: drawn anew
  int favourite;   // a warp that always goes first; -1
  uint64_t random;
  int live;  // threads that have not left

  const Launch* launch;
  int64_t linear;
  int index[3];
  int grid[3];
  int warps;
  int lanes, lanes_log2;  // of a warp
  LaneMask all;           // lanes

  char* stacks;
  size_t stacks_bytes;
  char* shared;
  uint32_t shared_bytes;
  SharedWord* words;
  uintptr_t image;  // where the kernel's library begins
  uint64_t place;   // launch and block, for cells of global memory
  bool check, check_uninitialized, counting;
  Counters counters;
  std::vector<bool> seen;  // blocks that this one comes after, by atomic operations and fences

  Warp warp[kWarps];
  uint32_t known[kWarps][kWarps];  // known[a][b]: warp a comes after what b did before its known-th barrier
  Barrier barrier[kBarriers];
  Where last_barrier;
  std::vector<Fiber> fibers;

  void* main;
  bool failed;
  uintptr_t failed_at[2];  // code that the message calls {0} and {1}
  char message[1024];
};

// The block that this thread of the operating system runs; nullptr outside.
extern constinit thread_local Block* running __attribute__((tls_model("initial-exec")));

// Ends the block with a message, on a fiber.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Block& block, const char* format, ...);

// Whether the access of `cell`, of this block, comes before what the fiber does now.
inline bool ordered(const Block& block, const Fiber& fiber, Cell cell) {
  const uint32_t thread = thread_of(cell), epoch = epoch_of(cell);
  if (thread == fiber.thread || epoch == kLastEpoch) return true;
  const uint32_t other = thread >> block.lanes_log2;
  if (other != fiber.warp) return epoch < block.known[fiber.warp][other];
  const Warp& warp = block.warp[other];
  if (epoch < warp.epoch) return true;
  const uint32_t partial = partial_of(cell);
  return partial == kLastPartial || (warp.partial && partial < warp.known[fiber.lane][thread & static_cast<uint32_t>(block.lanes - 1)]);
}

inline Cell stamp(const Block& block, const Fiber& fiber) {
  const Warp& warp = block.warp[fiber.warp];
  return static_cast<Cell>(fiber.thread) << kThreadShift | static_cast<Cell>(warp.epoch) << kEpochShift |
         (warp.partial ? static_cast<Cell>(warp.passed[fiber.lane]) << kPartialShift : 0);
}

// memory.cc: looks at an access before it is made, and ends the block where it must not be.
enum class Access : uint8_t { kRead, kWrite, kAtomic };
void check_access(Block& block, Fiber& fiber, const void* p, size_t bytes, Access access, uintptr_t pc);
// An access by an instruction, which must be aligned.
void check_aligned(Block& block, Fiber& fiber, const void* p, size_t bytes, Access access, uintptr_t pc, Where where);
// Of shared memory alone; a read that may find bytes that nothing wrote.
void check_matrix_row(Block& block, Fiber& fiber, const void* row, uintptr_t pc);
void begin_copy(Block& block, Fiber& fiber, const Copy& copy);
void end_copy(Block& block, Fiber& fiber, const Copy& copy);
// An atomic operation after a fence gives away what the block did; a fence after an atomic operation takes what was
// given there.
void publish(Block& block, const void* p);
void subscribe(Block& block, const void* p);
// counters.cc: writes an access down, and counts those of a warp whose lanes have met.
void touch(Fiber& fiber, uintptr_t at, size_t bytes, bool is_shared, uintptr_t pc);
void meet(Block& block, int warp);
// A launch begins: no access of an earlier one matters any more. Gives its number, from 1 on, below 2^12.
uint32_t next_launch();

}  // namespace gatun::simt
