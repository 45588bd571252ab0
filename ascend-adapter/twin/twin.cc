#include "twin/twin.h"

#include "simt/fiber.h"
#include "twin/machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <tuple>

namespace gatun::twin {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr uint32_t kUnlimited = ~0u;
const char* const kPipeNames[kPipes] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"};
const char* const kSpaceNames[kSpaces] = {"GM", "UB", "L1", "L0A", "L0B", "L0C", "the bias table", "the fixpipe buffer"};

// ---- What happens before what.
//
// An actor is a pipe of a core, or its scalar unit's reads or writes: a scalar read is over before anything later is issued,
// while a scalar write is ordered before the instructions of a pipe by a flag only. A clock says, per actor, how many of its
// instructions are known to be complete. An instruction's own pipe starts it after its predecessors but need not have
// completed them: only a barrier, or a way round over flags, makes that known.
using Clock = std::vector<uint32_t>;
using Moment = std::shared_ptr<const Clock>;

enum Actor : uint32_t { kScalarWrite, kScalarRead, kFirstPipe };  // then V to FIX
constexpr uint32_t kActors = kFirstPipe + kPipes - 1;

uint32_t actor_of(Pipe pipe) { return kFirstPipe + static_cast<uint32_t>(pipe) - 1; }

void join(Clock& to, const Clock& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

struct Epoch {
  uint32_t actor = 0, index = 0;  // index 0: never
  const char* name = "";
  Where at = {};
};

// ---- What is known of the bytes of a memory.
enum class Touch : uint8_t { Read, ReadGarbage, Write, Spoil };

class Shadow {
 public:
  struct Conflict {
    bool undefined = false;
    Epoch other;  // with index 0: none
    bool other_writes = false;
    uint64_t begin = 0, end = 0;
  };

  // Notes an access. The first thing wrong with it is returned.
  Conflict touch(uint64_t begin, uint64_t end, Touch touch, bool local, const Epoch& who, const Clock& knows) {
    Conflict wrong;
    if (begin >= end) return wrong;
    const bool writes = touch == Touch::Write || touch == Touch::Spoil;
    split(begin);
    split(end);
    auto first = parts_.lower_bound(begin), last = parts_.lower_bound(end);
    uint64_t at = begin;
    for (auto p = first; p != last; ++p) {
      if (p->first > at && touch == Touch::Read && local) note_undefined(wrong, at, p->first);
      at = p->second.end;
      Part& part = p->second;
      const auto unordered = [&](const Epoch& e) {
        if (e.actor == who.actor && (e.index == who.index || touch == Touch::Spoil)) return false;
        return e.index > knows[e.actor];
      };
      if (unordered(part.write)) note(wrong, part.write, true, p->first, part.end);
      if (writes) {
        for (const Epoch& r : part.reads) {
          if (unordered(r)) note(wrong, r, false, p->first, part.end);
        }
      } else if (touch == Touch::Read && local && !part.defined) {
        note_undefined(wrong, p->first, part.end);
      }
    }
    if (at < end && touch == Touch::Read && local) note_undefined(wrong, at, end);
    if (writes) {
      parts_.erase(first, last);
      parts_[begin] = {end, who, {}, touch == Touch::Write};
      return wrong;
    }
    // Holes that are read become parts of their own.
    at = begin;
    while (at < end) {
      auto p = parts_.lower_bound(at);
      if (p == parts_.end() || p->first != at) {
        const uint64_t next = p == parts_.end() ? end : std::min(end, p->first);
        p = parts_.emplace(at, Part{next, {}, {}, false}).first;
      }
      std::vector<Epoch>& reads = p->second.reads;
      auto same = std::find_if(reads.begin(), reads.end(), [&](const Epoch& e) { return e.actor == who.actor; });
      if (same != reads.end()) {
        *same = who;
      } else {
        reads.push_back(who);
      }
      at = p->second.end;
    }
    return wrong;
  }

 private:
  struct Part {
    uint64_t end;
    Epoch write;
    std::vector<Epoch> reads;  // the last of each actor since the write
    bool defined;
  };

  void split(uint64_t at) {
    auto p = parts_.upper_bound(at);
    if (p == parts_.begin()) return;
    --p;
    if (p->first == at || p->second.end <= at) return;
    Part upper = p->second;
    p->second.end = at;
    parts_.emplace_hint(std::next(p), at, std::move(upper));
  }
  static void note(Conflict& wrong, const Epoch& other, bool writes, uint64_t begin, uint64_t end) {
    if (wrong.other.index || wrong.undefined) return;
    wrong = {false, other, writes, begin, end};
  }
  static void note_undefined(Conflict& wrong, uint64_t begin, uint64_t end) {
    if (wrong.other.index || wrong.undefined) return;
    wrong = {true, {}, false, begin, end};
  }

  std::map<uint64_t, Part> parts_;  // by their first byte
};

// ---- The machine.
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

thread_local Machine* machine = nullptr;

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

std::string place(const Core& core) {
  char text[64];
  if (core.cube) {
    std::snprintf(text, sizeof text, "AIC of block %d", core.block);
  } else if (core.subs > 1) {
    std::snprintf(text, sizeof text, "AIV %d of block %d", core.sub, core.block);
  } else {
    std::snprintf(text, sizeof text, "AIV of block %d", core.block);
  }
  return text;
}

void report(const Core* core, Pipe pipe, Where at, const char* message) {
  if (!machine->error.empty()) return;
  machine->error = (core ? place(*core) : std::string("kernel")) + ", " + kPipeNames[static_cast<int>(pipe)] + ", " +
                   base_name(at.file) + ":" + std::to_string(at.line) + ": " + message;
}

void vreport(const Core* core, Pipe pipe, Where at, const char* format, va_list list) {
  char message[400];
  std::vsnprintf(message, sizeof message, format, list);
  report(core, pipe, at, message);
}

__attribute__((format(printf, 4, 5))) void report_f(const Core* core, Pipe pipe, Where at, const char* format, ...) {
  va_list list;
  va_start(list, format);
  vreport(core, pipe, at, format, list);
  va_end(list);
}

std::string id_text(int32_t id) { return id < kEventIds ? " of id " + std::to_string(id) : " of a queue"; }

// Leaves the scalar program: for the scheduler, or for good.
void leave() {
  void* ignored;
  void** const save = machine->core ? &machine->core->context : &ignored;
  simt::gatun_simt_switch(save, machine->context);
}

[[noreturn]] void leave_for_good() {
  leave();
  __builtin_unreachable();
}

Core& current(Where at) {
  if (machine->probing) fail(at, "KERNEL_TASK_TYPE_DEFAULT must come before any other call");
  return *machine->core;
}

enum class Effect { Keep, Delete, Weaken };
Effect effect(Where at, const char* call) {
  machine->sites.emplace(at.file, at.line, call);
  const Site* removed = machine->options.removed;
  if (!removed || removed->line != at.line || removed->file != at.file || removed->call != call) return Effect::Keep;
  return machine->options.removal == Removal::Deleted ? Effect::Delete : Effect::Weaken;
}

uint32_t actor(const Core& core, Pipe pipe) { return static_cast<uint32_t>(core.index) * kActors + actor_of(pipe); }

// Everything that a pipe has been given so far is complete.
Moment completed(Core& core, Pipe pipe) {
  Clock c = core.clock[static_cast<int>(pipe)];
  if (pipe != Pipe::S)
    c[actor(core, pipe)] =
        core.issued[static_cast<int>(pipe)] - static_cast<uint32_t>(core.pipes[static_cast<int>(pipe)].size());
  return std::make_shared<const Clock>(std::move(c));
}

void learn(Core& core, Pipe pipe, const Clock& from) {
  join(core.clock[static_cast<int>(pipe)], from);
  if (pipe != Pipe::S) return;
  // A scalar program hands on what it has learnt by waiting, but its own writes only by a flag.
  Clock view = *core.view;
  join(view, from);
  core.view = std::make_shared<const Clock>(std::move(view));
}

// ---- Instructions as they run.
bool check(Core& core, Pipe pipe, const Instruction& in, const Access& a, const Epoch& who) {
  Shadow& shadow = a.space == Space::Gm ? machine->gm : core.shadow[static_cast<int>(a.space)];
  const auto wrong = shadow.touch(a.begin, a.end, a.touch, a.space != Space::Gm, who, core.clock[static_cast<int>(pipe)]);
  if (!wrong.undefined && !wrong.other.index) return true;
  const char* const space = kSpaceNames[static_cast<int>(a.space)];
  if (wrong.undefined) {
    report_f(&core, pipe, in.at, "%s reads bytes %llu to %llu of %s, which nothing has defined", in.name,
             static_cast<unsigned long long>(wrong.begin), static_cast<unsigned long long>(wrong.end), space);
    return false;
  }
  const Core& other = *machine->cores[wrong.other.actor / kActors];
  const uint32_t unit = wrong.other.actor % kActors;
  const std::string where = &other == &core ? std::string() : place(other) + ", ";
  const bool writes = a.touch == Touch::Write || a.touch == Touch::Spoil;
  char range[64] = "";
  if (a.space != Space::Gm) {
    std::snprintf(range, sizeof range, "bytes %llu to %llu of ",
                  static_cast<unsigned long long>(std::max(a.begin, wrong.begin)),
                  static_cast<unsigned long long>(std::min(a.end, wrong.end)));
  }
  report_f(&core, pipe, in.at, "%s %s %s%s that %s (%s%s, %s:%d) %s, and nothing orders the two", in.name,
           writes ? "writes" : "reads", range, space, wrong.other.name, where.c_str(),
           kPipeNames[unit < kFirstPipe ? 0 : unit - kFirstPipe + 1], base_name(wrong.other.at.file), wrong.other.at.line,
           wrong.other_writes ? "writes" : "reads");
  return false;
}

Flag& flag_of(Core& core, const Instruction& in) { return core.flags[{in.from, in.to, in.id}]; }

void set_now(Core& core, const Instruction& in, Moment moment) {
  Flag& flag = flag_of(core, in);
  if (flag.debt) {
    --flag.debt;
  } else if (flag.set) {
    report_f(&core, in.from, in.at, "%s: event %s_%s%s is set already, at %s:%d, and was not waited for", in.name,
             kPipeNames[static_cast<int>(in.from)], kPipeNames[static_cast<int>(in.to)], id_text(in.id).c_str(),
             base_name(flag.at.file), flag.at.line);
  } else {
    flag.set = std::move(moment);
    flag.at = in.at;
    flag.of_queue = in.of_queue;
  }
}

void wait_weakly(Core& core, const Instruction& in) {
  Flag& flag = flag_of(core, in);
  if (flag.set) {
    flag.set.reset();
  } else {
    ++flag.debt;
  }
}

// The cores that a cross-core flag gathers and those whose counters it then raises.
void group(const Core& core, int mode, std::vector<Core*>& from, std::vector<Core*>& to) {
  for (auto& c : machine->cores) {
    const bool same_block = c->block == core.block;
    if (mode == 0 && c->cube == core.cube) from.push_back(c.get()), to.push_back(c.get());
    if (mode == 1 && same_block && !c->cube) from.push_back(c.get()), to.push_back(c.get());
    if (mode == 2 && same_block) (c->cube == core.cube ? from : to).push_back(c.get());
  }
}

void cross_set_now(Core& core, const Instruction& in, Moment moment) {
  core.arrivals[in.mode][in.id].push_back({std::move(moment), in.at});
  std::vector<Core*> from, to;
  group(core, in.mode, from, to);
  for (Core* c : from) {
    if (c->arrivals[in.mode][in.id].empty()) return;
  }
  Clock all(*core.view);
  std::fill(all.begin(), all.end(), 0);
  for (Core* c : from) {
    join(all, *c->arrivals[in.mode][in.id].front().moment);
    c->arrivals[in.mode][in.id].pop_front();
  }
  const auto shared = std::make_shared<const Clock>(std::move(all));
  for (Core* c : to) {
    if (c->counter_debt[in.id]) {
      --c->counter_debt[in.id];
      continue;
    }
    c->counters[in.id].push_back({shared, in.at});
    if (c->counters[in.id].size() > kCrossLimit) {
      report_f(&core, in.from, in.at, "%s: flag %d of %s counts beyond %d", in.name, in.id, place(*c).c_str(), kCrossLimit);
    }
  }
}

bool ready(Core& core, const Instruction& in) {
  switch (in.kind) {
    case Instruction::Wait:
      return in.weak || flag_of(core, in).set;
    case Instruction::CrossWait:
      return in.weak || !core.counters[in.id].empty();
    case Instruction::Room:
      return core.pipes[static_cast<int>(in.to)].size() < machine->depth;
    case Instruction::Drain:
      for (auto& p : core.pipes) {
        if (!p.empty()) return false;
      }
      return true;
    default:
      return true;
  }
}

void run(Core& core, Pipe pipe, Instruction& in) {
  Clock& clock = core.clock[static_cast<int>(pipe)];
  if (pipe != Pipe::S && in.issued != core.joined[static_cast<int>(pipe)]) {
    join(clock, *in.issued);
    core.joined[static_cast<int>(pipe)] = in.issued;
  }
  switch (in.kind) {
    case Instruction::Execute: {
      const Epoch who = {actor(core, pipe), in.index, in.name, in.at};
      for (const Access& a : in.accesses) {
        if (!check(core, pipe, in, a, who)) return;
      }
      machine->executing = &core;
      in.execute();
      break;
    }
    case Instruction::Set:
      set_now(core, in, completed(core, pipe));
      break;
    case Instruction::Wait:
      if (in.weak) {
        wait_weakly(core, in);
      } else {
        learn(core, pipe, *flag_of(core, in).set);
        flag_of(core, in).set.reset();
      }
      break;
    case Instruction::Barrier:
      clock[actor(core, pipe)] = in.index;
      break;
    case Instruction::CrossSet:
      cross_set_now(core, in, completed(core, pipe));
      break;
    case Instruction::CrossWait:
      if (!in.weak) {
        learn(core, pipe, *core.counters[in.id].front().moment);
        core.counters[in.id].pop_front();
      } else if (!core.counters[in.id].empty()) {
        core.counters[in.id].pop_front();
      } else {
        ++core.counter_debt[in.id];
      }
      break;
    case Instruction::Room:
      break;
    case Instruction::Drain:
      for (int p = 1; p < kPipes; ++p) learn(core, Pipe::S, *completed(core, static_cast<Pipe>(p)));
      {
        Clock view = *core.view;
        join(view, core.clock[0]);
        core.view = std::make_shared<const Clock>(std::move(view));
      }
      break;
  }
}

// The scalar program stops here until `in` may run, and runs it.
void scalar_wait(Core& core, Instruction in) {
  core.wait = std::move(in);
  core.waiting = true;
  leave();
}

void enqueue(Core& core, Pipe pipe, Instruction in) {
  const int p = static_cast<int>(pipe);
  if (core.pipes[p].size() >= machine->depth) {
    Instruction room;
    room.kind = Instruction::Room;
    room.to = pipe;
    room.name = in.name;
    room.at = in.at;
    core.parked = std::move(in);  // so that nothing of the heap is left on a stack that is given up
    scalar_wait(core, std::move(room));
    in = std::move(core.parked);
  }
  in.index = ++core.issued[p];
  in.issued = core.view;
  core.pipes[p].push_back(std::move(in));
  // Others may go on between any two instructions.
  if (machine->draw() % 2) leave();
}

bool has_pipe(bool cube, Pipe pipe) {
  switch (pipe) {
    case Pipe::V:
      return !cube;
    case Pipe::M:
    case Pipe::Mte1:
    case Pipe::Fix:
      return cube;
    case Pipe::Mte3:
      return !cube;
    default:
      return true;
  }
}

}  // namespace

// ---- The scalar program's side.
void fail(Where at, const char* format, ...) {
  va_list list;
  va_start(list, format);
  vreport(machine->core, Pipe::S, at, format, list);
  va_end(list);
  leave_for_good();
}

void fail_execution(Pipe pipe, Where at, const char* what) { report(machine->executing, pipe, at, what); }

void declare(CoreType type, Where at) {
  if (machine->probing) {
    machine->type = type;
    machine->declared = true;
    leave_for_good();
  }
  if (type != machine->type) fail(at, "the kernel's type differs between cores");
}

bool is_cube() { return current(Where::here()).cube; }
int64_t block_number() { return machine->blocks; }
int64_t block_index() {
  const Core& core = current(Where::here());
  return core.cube ? core.block : core.block * core.subs + core.sub;
}
int64_t sub_block_index() { return current(Where::here()).sub; }
int64_t sub_block_number() { return machine->type == CoreType::MixAic1To2 ? 2 : 1; }

Op::Op(Pipe pipe, const char* name, Where at) : at_(at) {
  Core& core = current(at);
  Instruction& in = machine->next;
  in = {};
  in.from = pipe;
  in.name = name;
  in.at = at;
  if (!has_pipe(core.cube, pipe))
    fail("%s cores have no pipe %s", core.cube ? "cube" : "vector", kPipeNames[static_cast<int>(pipe)]);
}

void Op::fail(const char* format, ...) const {
  char text[300];
  const int n = std::snprintf(text, sizeof text, "%s: ", machine->next.name);
  va_list list;
  va_start(list, format);
  std::vsnprintf(text + n, sizeof text - static_cast<size_t>(n), format, list);
  va_end(list);
  report(machine->core, machine->next.from, at_, text);
  leave_for_good();
}

namespace {

// The reason why a stretch cannot be used, or null.
const char* unusable(const Core& core, const Stretch& s) {
  if (s.space == Space::Gm) return "the tensor has no memory";
  if (s.slot < 0) return nullptr;
  const Slot& slot = core.slots[static_cast<size_t>(s.slot)];
  if (slot.generation != s.generation) return "the tensor was given back with FreeTensor";
  if (slot.state == Slot::Filled)
    return "the tensor lies in its queue: EnQue has handed it over and nothing took it with DeQue";
  return nullptr;
}

void add(Space space, Touch touch, uint64_t begin, uint64_t end) {
  auto& accesses = machine->next.accesses;
  if (begin == end) return;
  if (!accesses.empty()) {
    Access& last = accesses.back();
    if (last.space == space && last.touch == touch && last.end == begin) {
      last.end = end;
      return;
    }
  }
  accesses.push_back({space, touch, begin, end});
}

bool in_ranges(const void* p, uint64_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  for (const Range& r : machine->ranges) {
    const auto base = reinterpret_cast<uintptr_t>(r.base);
    if (at >= base && at - base <= r.bytes && bytes <= r.bytes - (at - base)) return true;
  }
  return false;
}

}  // namespace

uint8_t* Op::local(const Stretch& s, uint64_t offset, uint64_t bytes, uint32_t alignment, int kind) {
  Core& core = *machine->core;
  if (const char* why = unusable(core, s)) fail("%s", why);
  if (!alignment) alignment = kSpaceAlignment[static_cast<int>(s.space)];
  const uint64_t begin = s.begin + offset;
  if (begin + bytes > s.end) {
    fail("%llu bytes at %llu of a tensor of %u bytes in %s", static_cast<unsigned long long>(bytes),
         static_cast<unsigned long long>(offset), s.end - s.begin, kSpaceNames[static_cast<int>(s.space)]);
  }
  if (begin % alignment) {
    fail("address %llu of %s is not a multiple of %u", static_cast<unsigned long long>(begin),
         kSpaceNames[static_cast<int>(s.space)], alignment);
  }
  add(s.space, static_cast<Touch>(kind), begin, begin + bytes);
  return core.memory[static_cast<int>(s.space)].data() + begin;
}

const void* Op::read(const Stretch& s, uint64_t offset, uint64_t bytes, bool garbage, uint32_t alignment) {
  return local(s, offset, bytes, alignment, static_cast<int>(garbage ? Touch::ReadGarbage : Touch::Read));
}
void* Op::write(const Stretch& s, uint64_t offset, uint64_t bytes, uint32_t alignment) {
  return local(s, offset, bytes, alignment, static_cast<int>(Touch::Write));
}
void* Op::spoil(const Stretch& s, uint64_t offset, uint64_t bytes) {
  return local(s, offset, bytes, 1, static_cast<int>(Touch::Spoil));
}

void Op::global(const void* p, uint64_t bytes, bool write) {
  if (bytes && !in_ranges(p, bytes)) {
    fail("%s %llu bytes of GM at %p, outside of every buffer", write ? "writes" : "reads",
         static_cast<unsigned long long>(bytes), p);
  }
  const auto at = reinterpret_cast<uintptr_t>(p);
  add(Space::Gm, write ? Touch::Write : Touch::Read, at, at + bytes);
}
const void* Op::read_global(const void* p, uint64_t bytes) {
  global(p, bytes, false);
  return p;
}
void* Op::write_global(void* p, uint64_t bytes) {
  global(p, bytes, true);
  return p;
}

void Op::issue(std::function<void()> execute) {
  Instruction in = std::move(machine->next);
  in.execute = std::move(execute);
  const Pipe pipe = in.from;
  enqueue(*machine->core, pipe, std::move(in));
}

namespace {

uint8_t* scalar_access(const Stretch& s, uint64_t offset, uint64_t bytes, Touch touch, const char* name, Where at) {
  Core& core = current(at);
  if (const char* why = unusable(core, s)) fail(at, "%s: %s", name, why);
  if (s.begin + offset + bytes > s.end) fail(at, "%s: beyond the end of the tensor", name);
  if (s.space != Space::Ub) fail(at, "%s: the twin's scalar unit reaches UB and GM alone", name);
  const bool writes = touch == Touch::Write;
  const uint32_t who = static_cast<uint32_t>(core.index) * kActors + (writes ? kScalarWrite : kScalarRead);
  Instruction in;
  in.name = name;
  in.at = at;
  const uint64_t begin = s.begin + offset;
  const uint32_t index = ++core.clock[0][who];
  const bool fine = check(core, Pipe::S, in, {s.space, touch, begin, begin + bytes}, {who, index, name, at});
  if (!fine) leave_for_good();
  if (!writes) {
    Clock view = *core.view;
    view[who] = index;
    core.view = std::make_shared<const Clock>(std::move(view));
  }
  return core.memory[static_cast<int>(s.space)].data() + begin;
}

}  // namespace

const void* scalar_read(const Stretch& s, uint64_t offset, uint64_t bytes, Where at) {
  return scalar_access(s, offset, bytes, Touch::Read, "GetValue", at);
}
void scalar_write(const Stretch& s, uint64_t offset, const void* value, uint64_t bytes, Where at) {
  std::memcpy(scalar_access(s, offset, bytes, Touch::Write, "SetValue", at), value, bytes);
}
const void* scalar_read_global(const void* p, uint64_t bytes, Where at) {
  Core& core = current(at);
  if (!in_ranges(p, bytes))
    fail(at, "GetValue: %llu bytes of GM at %p, outside of every buffer", static_cast<unsigned long long>(bytes), p);
  const uint32_t who = static_cast<uint32_t>(core.index) * kActors + kScalarRead;
  const uint32_t index = ++core.clock[0][who];
  Instruction in;
  in.name = "GetValue";
  in.at = at;
  const auto begin = reinterpret_cast<uintptr_t>(p);
  if (!check(core, Pipe::S, in, {Space::Gm, Touch::Read, begin, begin + bytes}, {who, index, in.name, at})) leave_for_good();
  Clock view = *core.view;
  view[who] = index;
  core.view = std::make_shared<const Clock>(std::move(view));
  return p;
}

namespace {

void check_event(Core& core, Pipe from, Pipe to, int32_t id, const char* name, Where at) {
  if (id < 0 || id >= kEventIds) fail(at, "%s: event id %d is not one of 0 to 7", name, id);
  if (!has_pipe(core.cube, from) || !has_pipe(core.cube, to)) {
    fail(at, "%s: %s cores have no event %s_%s", name, core.cube ? "cube" : "vector", kPipeNames[static_cast<int>(from)],
         kPipeNames[static_cast<int>(to)]);
  }
}

Instruction event(Instruction::Kind kind, Pipe from, Pipe to, int32_t id, const char* name, Where at, bool of_queue) {
  Instruction in;
  in.kind = kind;
  in.from = from;
  in.to = to;
  in.id = id;
  in.name = name;
  in.at = at;
  in.of_queue = of_queue;
  return in;
}

void set_event(Core& core, Pipe from, Pipe to, int32_t id, const char* name, Where at, bool of_queue) {
  const Effect e = effect(at, name);
  if (e == Effect::Delete) return;
  Instruction in = event(Instruction::Set, from, to, id, name, at, of_queue);
  if (e == Effect::Weaken) {
    Clock nothing(core.view->size(), 0);
    set_now(core, in, std::make_shared<const Clock>(std::move(nothing)));
    if (!machine->error.empty()) leave_for_good();
  } else if (from == Pipe::S) {
    set_now(core, in, completed(core, Pipe::S));
    if (!machine->error.empty()) leave_for_good();
  } else {
    enqueue(core, from, std::move(in));
  }
}

void wait_event(Core& core, Pipe from, Pipe to, int32_t id, const char* name, Where at, bool of_queue) {
  const Effect e = effect(at, name);
  if (e == Effect::Delete) return;
  Instruction in = event(Instruction::Wait, from, to, id, name, at, of_queue);
  in.weak = e == Effect::Weaken;
  if (to == Pipe::S) {
    scalar_wait(core, std::move(in));
  } else {
    enqueue(core, to, std::move(in));
  }
}

// Events that a queue uses have their ids from the pipe: others must have been asked for.
void check_owner(Core& core, Pipe from, Pipe to, int32_t id, const char* name, Where at) {
  const int f = static_cast<int>(from), t = static_cast<int>(to);
  if (core.queued[f][t] && !((core.reserved[f][t] | core.fetched[f][t]) >> id & 1)) {
    fail(at, "%s: id %d of %s_%s, which a queue uses too, came neither from AllocEventID nor from FetchEventID", name, id,
         kPipeNames[f], kPipeNames[t]);
  }
}

int32_t take_event(Core& core, Pipe from, Pipe to, const char* name, Where at) {
  const int f = static_cast<int>(from), t = static_cast<int>(to);
  for (int32_t id = 0; id < kEventIds; ++id) {
    if (core.reserved[f][t] >> id & 1) continue;
    core.reserved[f][t] |= static_cast<uint8_t>(1 << id);
    core.fetched[f][t] &= static_cast<uint8_t>(~(1 << id));
    return id;
  }
  fail(at, "%s: all 8 ids of %s_%s are in use", name, kPipeNames[f], kPipeNames[t]);
}

}  // namespace

void set_flag(Pipe from, Pipe to, int32_t id, Where at) {
  Core& core = current(at);
  check_event(core, from, to, id, "SetFlag", at);
  check_owner(core, from, to, id, "SetFlag", at);
  set_event(core, from, to, id, "SetFlag", at, false);
}

void wait_flag(Pipe from, Pipe to, int32_t id, Where at) {
  Core& core = current(at);
  check_event(core, from, to, id, "WaitFlag", at);
  wait_event(core, from, to, id, "WaitFlag", at, false);
}

void pipe_barrier(Pipe pipe, bool all, Where at) {
  Core& core = current(at);
  if (!all && (pipe == Pipe::S || !has_pipe(core.cube, pipe))) fail(at, "PipeBarrier: not of this core's pipes");
  if (effect(at, "PipeBarrier") != Effect::Keep) return;
  Instruction in;
  in.kind = all ? Instruction::Drain : Instruction::Barrier;
  in.from = pipe;
  in.name = "PipeBarrier";
  in.at = at;
  if (all) {
    scalar_wait(core, std::move(in));
  } else {
    enqueue(core, pipe, std::move(in));
  }
}

namespace {

void check_cross(int mode, uint16_t flag, const char* name, Where at) {
  if (machine->type != CoreType::MixAic1To2 && machine->type != CoreType::MixAiv)
    fail(at, "%s: needs a kernel of a MIX type", name);
  if (mode < 0 || mode > 2) fail(at, "%s: mode %d is not one of 0, 1 and 2", name, mode);
  if (mode != 0 && machine->type != CoreType::MixAic1To2)
    fail(at, "%s: mode %d needs cube and vector cores 1 to 2", name, mode);
  if (flag > 10) fail(at, "%s: flag %d is not one of 0 to 10 (11 to 14 are SyncAll's)", name, flag);
}

void cross(Core& core, Instruction::Kind kind, int mode, Pipe pipe, uint16_t flag, const char* name, Effect e, Where at) {
  if (e == Effect::Delete) return;
  Instruction in;
  in.kind = kind;
  in.from = in.to = pipe;
  in.id = flag;
  in.mode = mode;
  in.name = name;
  in.at = at;
  if (kind == Instruction::CrossSet && e == Effect::Weaken) {
    cross_set_now(core, in, std::make_shared<const Clock>(core.view->size(), 0));
    if (!machine->error.empty()) leave_for_good();
    return;
  }
  in.weak = e == Effect::Weaken;
  if (kind == Instruction::CrossWait && (pipe == Pipe::S || machine->cross_waits_stall)) {
    in.to = Pipe::S;
    scalar_wait(core, std::move(in));
  } else {
    enqueue(core, pipe, std::move(in));
  }
}

}  // namespace

void cross_set(int mode, Pipe pipe, uint16_t flag, Where at) {
  Core& core = current(at);
  check_cross(mode, flag, "CrossCoreSetFlag", at);
  if (pipe == Pipe::S || !has_pipe(core.cube, pipe))
    fail(at, "CrossCoreSetFlag: the pipe must be one of this core's, and not PIPE_S");
  if (mode == 1 && core.cube) fail(at, "CrossCoreSetFlag: mode 1 is of vector cores");
  cross(core, Instruction::CrossSet, mode, pipe, flag, "CrossCoreSetFlag", effect(at, "CrossCoreSetFlag"), at);
}

void cross_wait(int mode, Pipe pipe, uint16_t flag, Where at) {
  Core& core = current(at);
  check_cross(mode, flag, "CrossCoreWaitFlag", at);
  if (!has_pipe(core.cube, pipe)) fail(at, "CrossCoreWaitFlag: not a pipe of this core");
  cross(core, Instruction::CrossWait, mode, pipe, flag, "CrossCoreWaitFlag", effect(at, "CrossCoreWaitFlag"), at);
}

void sync_all(bool vector_only, Where at) {
  Core& core = current(at);
  if (machine->type != CoreType::MixAic1To2 && machine->type != CoreType::MixAiv)
    fail(at, "SyncAll: needs a kernel of a MIX type");
  if (!vector_only) fail(at, "SyncAll: the twin knows that of all vector cores alone");
  if (core.cube) fail(at, "SyncAll: called on a cube core");
  if (effect(at, "SyncAll") != Effect::Keep) return;
  Instruction drain;
  drain.kind = Instruction::Drain;
  drain.name = "SyncAll";
  drain.at = at;
  scalar_wait(core, std::move(drain));
  cross(core, Instruction::CrossSet, 0, Pipe::Mte3, 11, "SyncAll", Effect::Keep, at);
  cross(core, Instruction::CrossWait, 0, Pipe::S, 11, "SyncAll", Effect::Keep, at);
}

int32_t fetch_event(Pipe from, Pipe to, bool keep, Where at) {
  Core& core = current(at);
  check_event(core, from, to, 0, "FetchEventID", at);
  if (keep) return take_event(core, from, to, "AllocEventID", at);
  for (int32_t id = 0; id < kEventIds; ++id) {
    if (core.reserved[static_cast<int>(from)][static_cast<int>(to)] >> id & 1) continue;
    core.fetched[static_cast<int>(from)][static_cast<int>(to)] |= static_cast<uint8_t>(1 << id);
    return id;
  }
  fail(at, "FetchEventID: all 8 ids of %s_%s are in use", kPipeNames[static_cast<int>(from)], kPipeNames[static_cast<int>(to)]);
}

void release_event(Pipe from, Pipe to, int32_t id, Where at) {
  Core& core = current(at);
  check_event(core, from, to, id, "ReleaseEventID", at);
  core.reserved[static_cast<int>(from)][static_cast<int>(to)] &= static_cast<uint8_t>(~(1 << id));
}

void pipe_begin(Where at) {
  Core& core = current(at);
  if (core.pipe) fail(at, "TPipe: the twin takes one of them in a kernel");
  core.pipe = true;
}

void pipe_end(Where at) {
  Core& core = *machine->core;
  for (const Slot& slot : core.slots) {
    if (slot.state != Slot::Free) {
      fail(at, "a buffer of a queue in %s was %s", kSpaceNames[static_cast<int>(slot.where.space)],
           slot.state == Slot::Allocated ? "allocated and not enqueued"
           : slot.state == Slot::Filled  ? "enqueued and not dequeued"
                                         : "dequeued and not freed");
    }
  }
}

Stretch buffer(Space space, uint32_t bytes, Where at) {
  Core& core = current(at);
  const int s = static_cast<int>(space);
  const bool cubes = space != Space::Ub;
  if (core.cube != cubes) fail(at, "InitBuffer: %s cores have no %s", core.cube ? "cube" : "vector", kSpaceNames[s]);
  const uint32_t unit = std::max<uint32_t>(32, kSpaceAlignment[s]);
  const uint32_t rounded = (bytes + unit - 1) / unit * unit;
  if (bytes == 0 || rounded < bytes || rounded > kSpaceBytes[s] - core.used[s]) {
    fail(at, "InitBuffer: %u bytes, where %u of the %u of %s are left", bytes, kSpaceBytes[s] - core.used[s], kSpaceBytes[s],
         kSpaceNames[s]);
  }
  Stretch out;
  out.space = space;
  out.begin = core.used[s];
  out.end = core.used[s] + rounded;
  core.used[s] += rounded;
  return out;
}

int32_t queue(Space space, Pipe producer, Pipe consumer, int32_t depth, uint8_t count, uint32_t bytes, Where at) {
  Core& core = current(at);
  if (depth < 1) fail(at, "InitBuffer: a queue of depth %d", depth);
  if (count < 1 || count > 8) fail(at, "InitBuffer: %d buffers of a queue", count);
  const int32_t index = static_cast<int32_t>(core.queues.size());
  Queue q{space, producer, consumer, depth, {}, {}, 0};
  for (int i = 0; i < count; ++i) {
    Slot slot;
    slot.where = buffer(space, bytes, at);
    slot.queue = index;
    slot.where.slot = static_cast<int32_t>(core.slots.size());
    q.slots.push_back(slot.where.slot);
    core.slots.push_back(slot);
  }
  core.queued[static_cast<int>(producer)][static_cast<int>(consumer)] = true;
  core.queued[static_cast<int>(consumer)][static_cast<int>(producer)] = true;
  core.queues.push_back(std::move(q));
  return index;
}

namespace {

Queue& queue_of(Core& core, int32_t queue, const char* name, Where at) {
  if (queue < 0) fail(at, "%s: the queue has no buffers: InitBuffer was not called", name);
  return core.queues[static_cast<size_t>(queue)];
}

Slot& slot_of(Core& core, int32_t queue, const Stretch& s, Slot::State expected, const char* name, Where at) {
  if (s.slot < 0 || core.slots[static_cast<size_t>(s.slot)].queue != queue)
    fail(at, "%s: the tensor is not of this queue", name);
  Slot& slot = core.slots[static_cast<size_t>(s.slot)];
  if (slot.generation != s.generation || slot.state != expected) {
    fail(at, "%s: the tensor is not one that %s gave", name, expected == Slot::Allocated ? "AllocTensor" : "DeQue");
  }
  return slot;
}

}  // namespace

Stretch queue_alloc(int32_t queue, Where at) {
  Core& core = current(at);
  Queue& q = queue_of(core, queue, "AllocTensor", at);
  for (size_t i = 0; i < q.slots.size(); ++i) {
    Slot& slot = core.slots[static_cast<size_t>(q.slots[q.next])];
    q.next = (q.next + 1) % static_cast<uint32_t>(q.slots.size());
    if (slot.state != Slot::Free) continue;
    slot.state = Slot::Allocated;
    Stretch s = slot.where;
    s.generation = slot.generation;
    if (slot.empty >= 0) {
      const int32_t id = slot.empty;
      slot.empty = -1;
      core.reserved[static_cast<int>(q.consumer)][static_cast<int>(q.producer)] &= static_cast<uint8_t>(~(1 << id));
      wait_event(core, q.consumer, q.producer, kEventIds + s.slot, "AllocTensor", at, true);
    }
    return s;
  }
  fail(at, "AllocTensor: all %zu buffers of the queue are in use", q.slots.size());
}

void queue_enqueue(int32_t queue, const Stretch& s, Where at) {
  Core& core = current(at);
  Queue& q = queue_of(core, queue, "EnQue", at);
  Slot& slot = slot_of(core, queue, s, Slot::Allocated, "EnQue", at);
  if (q.filled.size() >= static_cast<size_t>(q.depth)) fail(at, "EnQue: the queue's depth is %d", q.depth);
  slot.state = Slot::Filled;
  slot.full = take_event(core, q.producer, q.consumer, "EnQue", at);
  q.filled.push_back(s.slot);
  set_event(core, q.producer, q.consumer, kEventIds + s.slot, "EnQue", at, false);
}

Stretch queue_dequeue(int32_t queue, Where at) {
  Core& core = current(at);
  Queue& q = queue_of(core, queue, "DeQue", at);
  if (q.filled.empty()) fail(at, "DeQue: the queue is empty");
  const int32_t index = q.filled.front();
  q.filled.pop_front();
  Slot& slot = core.slots[static_cast<size_t>(index)];
  slot.state = Slot::Taken;
  core.reserved[static_cast<int>(q.producer)][static_cast<int>(q.consumer)] &= static_cast<uint8_t>(~(1 << slot.full));
  Stretch s = slot.where;
  s.generation = slot.generation;
  wait_event(core, q.producer, q.consumer, kEventIds + index, "DeQue", at, false);
  return s;
}

void queue_free(int32_t queue, const Stretch& s, Where at) {
  Core& core = current(at);
  Queue& q = queue_of(core, queue, "FreeTensor", at);
  Slot& slot = slot_of(core, queue, s, Slot::Taken, "FreeTensor", at);
  // What the next to use the buffer finds in it has no meaning.
  Op op(q.consumer, "FreeTensor", at);
  const uint32_t bytes = slot.where.end - slot.where.begin;
  Stretch whole = slot.where;
  whole.generation = slot.generation;
  uint8_t* const p = static_cast<uint8_t*>(op.spoil(whole, 0, bytes));
  slot.empty = take_event(core, q.consumer, q.producer, "FreeTensor", at);
  slot.state = Slot::Free;
  ++slot.generation;
  op.issue([p, bytes] {
    for (uint32_t i = 0; i < bytes; ++i) p[i] = i % 2 ? 0x7f : 0xff;
  });
  set_event(core, q.consumer, q.producer, kEventIds + s.slot, "FreeTensor", at, true);
}

// ---- The launch.
namespace {

using A = uint8_t*;
template <size_t... I>
void call(const void* kernel, void* const* args, std::index_sequence<I...>) {
  using Entry = void (*)(decltype((void)I, A())...);
  reinterpret_cast<Entry>(const_cast<void*>(kernel))(static_cast<A>(args[I])...);
}

template <size_t N = 0>
void call(const void* kernel, void* const* args, size_t count) {
  if (count == N) return call(kernel, args, std::make_index_sequence<N>());
  if constexpr (N < 24) call<N + 1>(kernel, args, count);
}

void core_main() {
  call(machine->kernel, machine->args, machine->count);
  if (machine->core) machine->core->finished = true;
  leave_for_good();
}

void add_core(bool cube, int block, int sub, int subs) {
  auto core = std::make_unique<Core>();
  core->cube = cube;
  core->index = static_cast<int>(machine->cores.size());
  core->block = block;
  core->sub = sub;
  core->subs = subs;
  for (int s = 1; s < kSpaces; ++s) {
    const bool has = (s == static_cast<int>(Space::Ub)) != cube;
    if (!has) continue;
    core->memory[s].resize(kSpaceBytes[s]);
    for (size_t i = 0; i < core->memory[s].size(); ++i) core->memory[s][i] = i % 2 ? 0x7f : 0xff;  // NaN in any float
  }
  core->stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  core->context = simt::fresh_stack(core->stack.get() + kStackBytes, core_main);
  machine->cores.push_back(std::move(core));
}

// Runs one instruction of a pipe, or a stretch of the scalar program. False when the unit cannot go on.
bool step(Core& core, int unit) {
  if (unit > 0) {
    auto& pipe = core.pipes[unit];
    if (pipe.empty() || !ready(core, pipe.front())) return false;
    Instruction in = std::move(pipe.front());
    pipe.pop_front();
    run(core, static_cast<Pipe>(unit), in);
    return true;
  }
  if (core.finished) return false;
  if (core.waiting) {
    if (!ready(core, core.wait)) return false;
    core.waiting = false;
    run(core, Pipe::S, core.wait);
    if (!machine->error.empty()) return true;
  }
  machine->core = &core;
  simt::gatun_simt_switch(&machine->context, core.context);
  machine->core = nullptr;
  return true;
}

void deadlock() {
  const Core* where = nullptr;
  const Instruction* what = nullptr;
  Pipe pipe = Pipe::S;
  for (auto& core : machine->cores) {
    for (int p = kPipes - 1; p >= 0 && !what; --p) {
      const Instruction* in = p ? (core->pipes[p].empty() ? nullptr : &core->pipes[p].front())
                                : (!core->finished && core->waiting ? &core->wait : nullptr);
      if (!in || in->kind == Instruction::Room || in->kind == Instruction::Drain) continue;
      what = in;
      where = core.get();
      pipe = static_cast<Pipe>(p);
    }
  }
  if (!what) {
    machine->error = "deadlock";
  } else if (what->kind == Instruction::CrossWait) {
    report_f(where, pipe, what->at, "deadlock: %s waits for flag %d, which never comes", what->name, what->id);
  } else {
    report_f(where, pipe, what->at, "deadlock: %s waits for event %s_%s%s, which is never set", what->name,
             kPipeNames[static_cast<int>(what->from)], kPipeNames[static_cast<int>(what->to)], id_text(what->id).c_str());
  }
}

// The order in which units are asked whether they can go on: at random each time, or always the same favourites first.
void schedule() {
  const uint32_t n = static_cast<uint32_t>(machine->cores.size());
  const uint32_t policy = static_cast<uint32_t>(machine->options.seed % 4);
  std::vector<uint32_t> units(kPipes), cores(n);
  for (uint32_t i = 0; i < kPipes; ++i) units[i] = i;
  for (uint32_t i = 0; i < n; ++i) cores[i] = i;
  for (uint32_t i = kPipes; i > 1; --i) std::swap(units[i - 1], units[machine->draw() % i]);
  for (uint32_t i = n; i > 1; --i) std::swap(cores[i - 1], cores[machine->draw() % i]);
  while (machine->error.empty()) {
    bool moved = false;
    if (policy <= 1) {  // any unit of any core
      const uint32_t total = n * kPipes, from = machine->draw() % total, stride = machine->draw() % 2 ? 1 : total - 1;
      for (uint32_t i = 0, u = from; i < total && !moved; ++i, u = (u + stride) % total) {
        moved = step(*machine->cores[u / kPipes], static_cast<int>(u % kPipes));
      }
    } else if (policy == 2) {  // a favourite pipe on all cores, and one that is always last
      for (uint32_t u = 0; u < kPipes && !moved; ++u) {
        for (uint32_t c = 0; c < n && !moved; ++c) moved = step(*machine->cores[cores[c]], static_cast<int>(units[u]));
      }
    } else {  // a favourite core
      for (uint32_t c = 0; c < n && !moved; ++c) {
        for (uint32_t u = 0; u < kPipes && !moved; ++u) moved = step(*machine->cores[cores[c]], static_cast<int>(units[u]));
      }
    }
    if (moved) continue;
    for (auto& core : machine->cores) {
      bool idle = core->finished;
      for (auto& p : core->pipes) idle = idle && p.empty();
      if (!idle) return deadlock();
    }
    return;
  }
}

void check_ends() {
  for (auto& core : machine->cores) {
    for (const auto& [event, flag] : core->flags) {
      const auto [from, to, id] = event;
      if (!flag.set || flag.of_queue) continue;
      report_f(core.get(), from, flag.at, "event %s_%s%s is left set at the end", kPipeNames[static_cast<int>(from)],
               kPipeNames[static_cast<int>(to)], id_text(id).c_str());
    }
    for (int id = 0; id < kCrossFlags; ++id) {
      if (!core->counters[id].empty()) {
        report_f(core.get(), Pipe::S, core->counters[id].front().at, "flag %d still counts %zu at the end", id,
                 core->counters[id].size());
      }
      for (auto& mode : core->arrivals) {
        if (!mode[id].empty()) {
          report_f(core.get(), Pipe::S, mode[id].front().at, "flag %d was set here and not by the others of its group", id);
        }
      }
    }
  }
}

}  // namespace

Result launch(const void* kernel, uint32_t blocks, void* const* args, size_t count, std::span<const Range> memory,
              const Options& options) {
  Machine m;
  m.kernel = kernel;
  m.args = args;
  m.count = count;
  m.ranges = memory;
  m.options = options;
  m.blocks = blocks;
  m.random = options.seed * 0x2545f4914f6cdd1du + 1;
  constexpr uint32_t kDepths[] = {kUnlimited, 4, 1, 2};
  m.depth = kDepths[m.draw() % 4];
  m.cross_waits_stall = m.draw() % 2;
  Machine* const outer = machine;
  machine = &m;
  if (blocks == 0 || count > 24) {
    m.error = "a launch has at least one block and at most 24 arguments";
  } else {
    // The first statement of the kernel says what it runs on.
    auto stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
    m.probing = true;
    simt::gatun_simt_switch(&m.context, simt::fresh_stack(stack.get() + kStackBytes, core_main));
    m.probing = false;
    if (m.error.empty() && !m.declared) m.error = "the kernel does not begin with KERNEL_TASK_TYPE_DEFAULT";
  }
  if (m.error.empty()) {
    for (uint32_t b = 0; b < blocks; ++b) {
      const int block = static_cast<int>(b);
      if (m.type == CoreType::AicOnly || m.type == CoreType::MixAic1To2) add_core(true, block, 0, 1);
      if (m.type == CoreType::MixAic1To2) add_core(false, block, 0, 2), add_core(false, block, 1, 2);
      if (m.type == CoreType::AivOnly || m.type == CoreType::MixAiv) add_core(false, block, 0, 1);
    }
    const auto start = std::make_shared<const Clock>(m.cores.size() * kActors, 0);
    for (auto& core : m.cores) {
      core->view = start;
      for (Clock& c : core->clock) c = *start;
    }
    schedule();
    if (m.error.empty()) check_ends();
  }
  machine = outer;
  Result result;
  result.error = std::move(m.error);
  for (const auto& [file, line, name] : m.sites) result.sites.push_back({file, line, name});
  return result;
}

}  // namespace gatun::twin
