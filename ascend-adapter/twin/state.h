// The twin's state while a kernel runs, and what its parts call of each other: instructions.cc executes, program.cc is what the
// scalar programs call, twin.cc launches and schedules.
#pragma once

#include "twin/shadow.h"
#include "twin/twin.h"

#include <cstdarg>
#include <deque>
#include <set>
#include <tuple>

namespace gatun::twin {

inline constexpr uint32_t kUnlimited = ~0u;
inline const char* const kPipeNames[kPipes] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"};
inline const char* const kSpaceNames[kSpaces] = {"GM", "UB", "L1", "L0A", "L0B", "L0C", "the bias table", "the fixpipe buffer"};

struct Access {
  Space space;
  Touch touch;
  uint64_t begin, end;
};

struct Instruction {
  enum Kind : uint8_t { Execute, Set, Wait, Barrier, CrossSet, CrossWait, Room, Drain } kind = Execute;
  bool weak = false;  // orders nothing
  Pipe from = Pipe::S, to = Pipe::S;
  int32_t id = 0;  // of an event or a flag
  int mode = 0;
  bool of_queue = false;
  const char* name = "";
  Where at = {};
  uint32_t index = 0;
  Moment issued;
  std::vector<Access> accesses;
  std::function<void()> execute;
};

struct Flag {
  Moment set;  // when not null
  Where at = {};
  bool of_queue = false;
  int debt = 0;  // sets that a weakened wait has already let pass
};

struct Slot {
  enum State : uint8_t { Free, Allocated, Filled, Taken } state = Free;
  uint32_t generation = 0;
  Stretch where;
  int32_t full = -1, empty = -1;  // event ids under way
  int32_t queue = 0;
};

struct Queue {
  Space space;
  Pipe producer, consumer;
  int32_t depth;
  std::vector<int32_t> slots;
  std::deque<int32_t> filled;
  uint32_t next = 0;
};

struct Core {
  bool cube = false;
  int index = 0, block = 0, sub = 0, subs = 1;
  std::unique_ptr<char[]> stack;
  void* context = nullptr;
  bool finished = false, waiting = false;
  Instruction wait;    // what the scalar unit waits for
  Instruction parked;  // what it issues once there is room for it
  std::vector<uint8_t> memory[kSpaces];
  Shadow shadow[kSpaces];
  uint32_t used[kSpaces] = {};
  std::deque<Instruction> pipes[kPipes];
  uint32_t issued[kPipes] = {};
  Clock clock[kPipes];  // of S: what its own accesses know
  Moment joined[kPipes];
  Moment view;                                            // what the scalar unit hands on to what it issues
  std::map<std::tuple<Pipe, Pipe, int32_t>, Flag> flags;  // ids from kEventIds on: one per buffer of a queue
  uint8_t reserved[kPipes][kPipes] = {}, fetched[kPipes][kPipes] = {};
  bool queued[kPipes][kPipes] = {};  // events that a queue uses
  struct Arrival {
    Moment moment;
    Where at;
  };
  std::deque<Arrival> counters[kCrossFlags];
  int counter_debt[kCrossFlags] = {};
  std::deque<Arrival> arrivals[3][kCrossFlags];  // of this core, waiting for the others of its group
  std::vector<Slot> slots;
  std::vector<Queue> queues;
  bool pipe = false;
};

struct Machine {
  const void* kernel = nullptr;
  void* const* args = nullptr;
  size_t count = 0;
  std::span<const Range> ranges;
  Options options;
  uint32_t blocks = 0;
  CoreType type = CoreType::AivOnly;
  bool probing = false, declared = false;
  std::vector<std::unique_ptr<Core>> cores;
  Shadow gm;
  void* context = nullptr;  // of the thread that launches
  Core* core = nullptr;     // whose scalar program runs
  Core* executing = nullptr;
  Instruction next;  // that is being put together
  std::string error;
  std::set<std::tuple<std::string, int, std::string>> sites;
  uint32_t depth = kUnlimited;  // instructions that a pipe's queue holds
  bool cross_waits_stall = false;
  uint64_t random = 1;
  uint32_t draw() {
    random += 0x9e3779b97f4a7c15u;
    uint64_t z = random;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((z ^ z >> 31) >> 32);
  }
};

// Of the launch that this thread is in.
extern constinit thread_local Machine* machine;

// ---- Errors. The first one counts.
const char* base_name(const char* path);
std::string place(const Core& core);
std::string id_text(int32_t id);
void report(const Core* core, Pipe pipe, Where at, const char* message);
void vreport(const Core* core, Pipe pipe, Where at, const char* format, va_list list);
__attribute__((format(printf, 4, 5))) void report_f(const Core* core, Pipe pipe, Where at, const char* format, ...);

// ---- Instructions.
// Whether an access is ordered after all that it must be, and reads what is defined; else reports.
bool check(Core& core, Pipe pipe, const Instruction& in, const Access& a, const Epoch& who);
void set_now(Core& core, const Instruction& in, Moment moment);
void cross_set_now(Core& core, const Instruction& in, Moment moment);
bool ready(Core& core, const Instruction& in);
void run(Core& core, Pipe pipe, Instruction& in);
// Everything that a pipe has been given so far is complete.
Moment completed(Core& core, Pipe pipe);

// ---- Scalar programs.
// Leaves the scalar program for good.
[[noreturn]] void leave_for_good();
// The scalar program stops here until `in` may run, and runs it.
void scalar_wait(Core& core, Instruction in);
void enqueue(Core& core, Pipe pipe, Instruction in);

bool has_pipe(bool cube, Pipe pipe);

}  // namespace gatun::twin
