// Instructions as they run: what each waits for, what it learns by that, and what is wrong with it.
#include "twin/state.h"

#include "simt/fiber.h"

#include <cstdio>
#include <cstring>

namespace gatun::twin {

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

void report_f(const Core* core, Pipe pipe, Where at, const char* format, ...) {
  va_list list;
  va_start(list, format);
  vreport(core, pipe, at, format, list);
  va_end(list);
}

std::string id_text(int32_t id) { return id < kEventIds ? " of id " + std::to_string(id) : " of a queue"; }

namespace {

// Leaves the scalar program: for the scheduler, or for good.
void leave() {
  void* ignored;
  void** const save = machine->core ? &machine->core->context : &ignored;
  simt::gatun_simt_switch(save, machine->context);
}

uint32_t actor(const Core& core, Pipe pipe) { return static_cast<uint32_t>(core.index) * kActors + actor_of(pipe); }

void learn(Core& core, Pipe pipe, const Clock& from) {
  join(core.clock[static_cast<int>(pipe)], from);
  if (pipe != Pipe::S) return;
  // A scalar program hands on what it has learnt by waiting, but its own writes only by a flag.
  Clock view = *core.view;
  join(view, from);
  core.view = std::make_shared<const Clock>(std::move(view));
}

Flag& flag_of(Core& core, const Instruction& in) { return core.flags[{in.from, in.to, in.id}]; }

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

}  // namespace

void leave_for_good() {
  leave();
  __builtin_unreachable();
}

Moment completed(Core& core, Pipe pipe) {
  Clock c = core.clock[static_cast<int>(pipe)];
  if (pipe != Pipe::S)
    c[actor(core, pipe)] =
        core.issued[static_cast<int>(pipe)] - static_cast<uint32_t>(core.pipes[static_cast<int>(pipe)].size());
  return std::make_shared<const Clock>(std::move(c));
}

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

}  // namespace gatun::twin
