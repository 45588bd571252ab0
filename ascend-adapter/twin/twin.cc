// The launch: cores, and the order in which their units run.
#include "twin/state.h"

#include "simt/fiber.h"

#include <utility>

namespace gatun::twin {

constinit thread_local Machine* machine = nullptr;

namespace {

constexpr size_t kStackBytes = 256 << 10;

using A = uint8_t*;
template <size_t... I>
void call(const void* kernel, void* const* args, std::index_sequence<I...>) {
  using Entry = void (*)(decltype((void)I, A())...);
  reinterpret_cast<Entry>(const_cast<void*>(kernel))(static_cast<A>(args[I])...);
}

template <size_t N = 0>
void call(const void* kernel, void* const* args, size_t count) {
  if (count == N) return call(kernel, args, std::make_index_sequence<N>());
  if constexpr (N < 32) call<N + 1>(kernel, args, count);
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
  if (blocks == 0 || count > 32) {
    m.error = "a launch has at least one block and at most 32 arguments";
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
