// What a scalar program calls: instructions with their operands, flags and barriers, buffers and queues.
#include "twin/state.h"

#include <cstdio>
#include <cstring>

namespace gatun::twin {
namespace {

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

}  // namespace

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
  if (effect(at, "FreeTensor") == Effect::Delete) return;  // the buffer stays taken
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

}  // namespace gatun::twin
