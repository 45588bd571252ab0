#include "model/instructions.h"
#include "simt/block.h"
#include "simt/fiber.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace gatun::simt {

constinit thread_local Block* running = nullptr;

namespace {

// Per fiber, and touched as far as it is used. Guarded below, and begun at different offsets so that the fibers of a
// block do not all compete for the same sets of a cache.
constexpr size_t kStack = 256 << 10, kGuard = 4 << 10, kColour = 320;

struct Settings {
  uint64_t seed = 1;
  int schedules = 1;
  int threads = 1;
  bool check = true, check_uninitialized = true, counting = false;
  std::string count, sites, remove;
};

int64_t number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoll(text, nullptr, 10);
}

int processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

Settings& settings() {
  static Settings* settings = [] {
    auto* s = new Settings;
    s->seed = static_cast<uint64_t>(number("GATUN_SIMT_SEED", 1));
    s->schedules = static_cast<int>(std::max<int64_t>(number("GATUN_SIMT_SCHEDULES", 1), 1));
    s->threads = static_cast<int>(std::clamp<int64_t>(number("GATUN_SIMT_THREADS", std::min(processors(), 8)), 1, 64));
    s->check = number("GATUN_SIMT_CHECK", 1) != 0;
    s->check_uninitialized = number("GATUN_SIMT_UNINITIALIZED", 1) != 0;
    if (const char* count = std::getenv("GATUN_SIMT_COUNT")) s->count = count;
    s->counting = !s->count.empty();
    if (const char* sites = std::getenv("GATUN_SIMT_SITES")) s->sites = sites;
    if (const char* remove = std::getenv("GATUN_SIMT_REMOVE")) s->remove = remove;
    return s;
  }();
  return *settings;
}

// ---- Sites: what orders, and can be removed.

bool sites_matter = false;  // settled at the start of each launch

const char* short_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

bool removed_slowly(const Where& where, const char* kind) {
  static std::mutex mutex;
  static std::vector<std::string>* seen = new std::vector<std::string>;
  const Settings& s = settings();
  char site[512];
  std::snprintf(site, sizeof site, "%u:%u:%s", where.line(), where.column(), where.file_name());
  if (!s.sites.empty()) {
    const std::lock_guard lock(mutex);
    if (std::find(seen->begin(), seen->end(), site) == seen->end()) {
      seen->push_back(site);
      if (std::FILE* file = std::fopen(s.sites.c_str(), "a")) {
        std::fprintf(file, "%s %s\n", site, kind);
        std::fclose(file);
      }
    }
  }
  if (s.remove.empty()) return false;
  const char *wanted = s.remove.c_str(), *wanted_file = std::strchr(wanted, ':');
  if (wanted_file != nullptr) wanted_file = std::strchr(wanted_file + 1, ':');
  if (wanted_file == nullptr) return false;
  const size_t numbers = static_cast<size_t>(wanted_file - wanted) + 1;
  if (std::strncmp(site, wanted, numbers) != 0) return false;
  const size_t length = std::strlen(site), tail = s.remove.size() - numbers;
  return length >= tail && std::strcmp(site + length - tail, wanted_file + 1) == 0;
}

inline bool removed(const Where& where, const char* kind) {
  return __builtin_expect(sites_matter, false) && removed_slowly(where, kind);
}

// ---- The schedule.

inline uint64_t draw(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x9e3779b97f4a7c15u;
}

uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// One of the bits that are set, of `width`: the first from a random one on.
inline int any_bit(uint64_t bits, int width, uint64_t& state) {
  const int from = static_cast<int>((draw(state) >> 32) * static_cast<uint64_t>(width) >> 32);
  const uint64_t later = bits >> from;
  return later != 0 ? from + std::countr_zero(later) : std::countr_zero(bits);
}

inline Fiber* pick(Block& block) {
  const uint32_t warps = block.ready;
  if (warps == 0) return nullptr;
  int w = block.last;
  if (w < 0 || (warps >> w & 1) == 0) {
    w = block.favourite;
    if (w < 0 || (warps >> w & 1) == 0) w = any_bit(warps, block.warps, block.random);
    block.last = w;
  }
  Warp& warp = block.warp[w];
  const int lane = any_bit(warp.ready, block.lanes, block.random);
  warp.ready &= ~(LaneMask{1} << lane);
  if (warp.ready == 0) block.ready &= ~(1u << w);
  return &block.fibers[static_cast<size_t>(w * block.lanes + lane)];
}

[[noreturn]] void deadlock(Block& block);

// Goes on with another fiber; comes back when this one is picked.
inline void next(Block& block, Fiber& fiber) {
  Fiber* other = pick(block);
  if (other == nullptr) deadlock(block);
  if (other == &fiber) return;
  block.current = other;
  gatun_simt_switch(&fiber.stack, other->stack);
}

inline void make_ready(Block& block, int warp, LaneMask lanes) {
  block.warp[warp].ready |= lanes;
  block.ready |= 1u << warp;
  for (LaneMask rest = lanes; rest != 0; rest &= rest - 1) {
    block.fibers[static_cast<size_t>(warp * block.lanes + std::countr_zero(rest))].state = State::kReady;
  }
}

// ---- Reports.

const char* name_of(Op op) {
  static const char* const names[] = {"sync_warp", "a shuffle", "a vote", "load_matrix",
                                      "mma_bf16",  "mma_f16",   "mma_s8", "mma_u8s8",
                                      "a matrix instruction"};
  return names[static_cast<int>(op)];
}

void describe(const Fiber& fiber, char* text, size_t capacity) {
  if (fiber.state == State::kLeft) {
    std::snprintf(text, capacity, "left the kernel");
  } else if (fiber.state == State::kReady) {
    std::snprintf(text, capacity, "go on");
  } else if (fiber.state == State::kInBarrier && fiber.barrier == 0) {
    std::snprintf(text, capacity, "wait in sync_threads at %s:%u", short_name(fiber.where.file_name()),
                  fiber.where.line());
  } else if (fiber.state == State::kInBarrier) {
    std::snprintf(text, capacity, "wait in sync_group(%d) at %s:%u", fiber.barrier, short_name(fiber.where.file_name()),
                  fiber.where.line());
  } else {
    std::snprintf(text, capacity, "wait in %s at %s:%u", name_of(fiber.op), short_name(fiber.where.file_name()),
                  fiber.where.line());
  }
}

void deadlock(Block& block) {
  char text[700];
  size_t length = 0;
  const int threads = block.launch->threads;
  for (int first = 0; first < threads && length + 120 < sizeof text;) {
    char what[160], other[160];
    describe(block.fibers[static_cast<size_t>(first)], what, sizeof what);
    int end = first + 1;
    for (; end < threads; ++end) {
      describe(block.fibers[static_cast<size_t>(end)], other, sizeof other);
      if (std::strcmp(what, other) != 0) break;
    }
    length += static_cast<size_t>(std::snprintf(text + length, sizeof text - length, "%sthreads %d to %d %s",
                                                first == 0 ? "" : "; ", first, end - 1, what));
    length = std::min(length, sizeof text - 1);
    first = end;
  }
  fail(block, "deadlock: %s", text);
}

// What the system's addr2line, where there is one, says of code: "function\nfile:line", or nothing. Asked once, since
// it takes a while and mutations report the same over and over.
const std::string& addr2line(uintptr_t pc, const Dl_info& info) {
  static std::mutex mutex;
  static auto* known = new std::map<uintptr_t, std::string>;
  const std::lock_guard lock(mutex);
  const auto [entry, fresh] = known->try_emplace(pc);
  if (!fresh) return entry->second;
  char line[1024];
  std::snprintf(line, sizeof line, "addr2line -f -C -s -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
                static_cast<size_t>(pc - reinterpret_cast<uintptr_t>(info.dli_fbase)));
  if (std::FILE* pipe = ::popen(line, "r")) {
    while (std::fgets(line, sizeof line, pipe) != nullptr) entry->second += line;
    ::pclose(pipe);
  }
  return entry->second;
}

// file:line of code; else library+offset.
std::string symbol(uintptr_t pc) {
  Dl_info info;
  if (pc == 0 || dladdr(reinterpret_cast<void*>(pc), &info) == 0 || info.dli_fname == nullptr) return "unknown code";
  const std::string& found = addr2line(pc, info);
  if (const size_t line = found.find('\n') + 1; line != 0 && line < found.size() && found[line] != '?') {
    return found.substr(line, found.find_first_of(" \n", line) - line);
  }
  char offset[300];
  std::snprintf(offset, sizeof offset, "%s+0x%zx", short_name(info.dli_fname),
                static_cast<size_t>(pc - reinterpret_cast<uintptr_t>(info.dli_fbase)));
  return offset;
}

std::string function_name(const void* function) {
  const auto pc = reinterpret_cast<uintptr_t>(function);
  Dl_info info;
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return "kernel";
  const std::string& found = addr2line(pc, info);
  return found.empty() || found[0] == '?' ? "kernel" : found.substr(0, std::min<size_t>(found.find('\n'), 160));
}

// ---- Warps.

[[noreturn]] void divergence(Block& block, const Fiber& a, const Fiber& b, const char* what) {
  char first[160], second[160];
  describe(a, first, sizeof first);
  describe(b, second, sizeof second);
  fail(block, "divergence in warp %d: %s: lane %d: %s; lane %d: %s", a.warp, what, a.lane, first, b.lane, second);
}

void run_shuffle(Block& block, Fiber* lanes, LaneMask mask) {
  uint32_t values[kLanes];
  for (int lane = 0; lane < block.lanes; ++lane) values[lane] = lanes[lane].a[0];
  for (int lane = 0; lane < block.lanes; ++lane) {
    Fiber& f = lanes[lane];
    int from = f.argument;
    switch (static_cast<Shuffle>(f.kind)) {
      case Shuffle::kFrom:
        from &= block.lanes - 1;
        break;
      case Shuffle::kXor:
        from = lane ^ from;
        break;
      case Shuffle::kUp:
        from = lane - from;
        break;
      case Shuffle::kDown:
        from = lane + from;
        break;
    }
    if (from < 0 || from >= block.lanes) from = lane;  // PTX ISA 9.0, section 9.7.9.6 shfl.sync: out of range, its own value
    if ((mask >> from & 1) == 0)
      fail(block, "thread %d takes a value from lane %d, which does not take part", f.thread, from);
    f.c.u[0] = values[from];
  }
}

void run_matrix(Block& block, Fiber* lanes) {
  Fiber& any = lanes[0];
  const void* rows[kWarp];
  uint32_t (*d[kWarp])[4];
  for (int lane = 0; lane < kWarp; ++lane) {
    Fiber& f = lanes[lane];
    rows[lane] = f.row;
    d[lane] = &f.c.u;
    if (lane < any.argument * 8) check_matrix_row(block, f, f.row, f.pc);
  }
  load_matrix(any.argument, any.kind != 0, d, rows);
}

void run_mma(Fiber* lanes) {
  const uint32_t (*a[kWarp])[4];
  const uint32_t (*b[kWarp])[2];
  float (*f[kWarp])[4];
  int32_t (*i[kWarp])[4];
  for (int lane = 0; lane < kWarp; ++lane) {
    a[lane] = &lanes[lane].a;
    b[lane] = &lanes[lane].b;
    f[lane] = &lanes[lane].c.f;
    i[lane] = &lanes[lane].c.i;
  }
  switch (lanes[0].op) {
    case Op::kMmaBf16:
      return mma_bf16(f, a, b);
    case Op::kMmaF16:
      return mma_f16(f, a, b);
    case Op::kMmaS8:
      return mma_s8(i, a, b);
    default:
      return mma_u8s8(i, a, b);
  }
}

void run_multiply(Block& block, Fiber* lanes) {
  uint32_t (*c[kLanes])[8];
  const uint32_t (*a[kLanes])[8];
  const uint32_t (*b[kLanes])[8];
  for (int lane = 0; lane < block.lanes; ++lane) {
    c[lane] = &lanes[lane].wide_c;
    a[lane] = &lanes[lane].wide_a;
    b[lane] = &lanes[lane].wide_b;
    if (lanes[lane].kind != lanes[0].kind) divergence(block, lanes[0], lanes[lane], "not the same matrix instruction");
  }
  const auto matrix = static_cast<MatrixKind>(lanes[0].kind);
  if (amd::shape_of(matrix).lanes != block.lanes) {
    fail(block, "a matrix instruction of warps of %d", amd::shape_of(matrix).lanes);
  }
  if (!amd::multiply(matrix, c, a, b)) {
    fail(block, "lanes of warp %d that must hold an operand alike do not, at %s:%u", lanes[0].warp,
         short_name(lanes[0].where.file_name()), lanes[0].where.line());
  }
}

// Lanes of the mask come after all that they did before.
void order_lanes(const Block& block, Warp& warp, LaneMask mask) {
  if (mask == block.all) {
    warp.epoch = std::min(warp.epoch + 1, kLastEpoch);
    warp.partial = false;
    return;
  }
  if (!warp.partial) {
    std::memset(warp.passed, 0, sizeof warp.passed);
    std::memset(warp.known, 0, sizeof warp.known);
    warp.partial = true;
  }
  uint8_t joined[kLanes] = {};
  for (LaneMask rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    for (int other = 0; other < block.lanes; ++other) joined[other] = std::max(joined[other], warp.known[lane][other]);
  }
  for (LaneMask rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    joined[lane] = static_cast<uint8_t>(warp.passed[lane] + 1);
    warp.passed[lane] = static_cast<uint8_t>(std::min<uint32_t>(warp.passed[lane] + 1u, kLastPartial));
  }
  for (LaneMask rest = mask; rest != 0; rest &= rest - 1) {
    std::memcpy(warp.known[std::countr_zero(rest)], joined, sizeof joined);
  }
}

// Waits until all lanes of the mask are here; the last one does the work of all.
void in_warp(Block& block, Fiber& fiber, Op op, LaneMask mask, const Where& where) {
  Warp& warp = block.warp[fiber.warp];
  const LaneMask bit = LaneMask{1} << fiber.lane;
  fiber.op = op;
  fiber.mask = mask;
  fiber.where = where;
  fiber.state = State::kInWarp;
  if ((mask & bit) == 0) {
    fail(block, "thread %d calls %s at %s:%u with a mask, %llx, that leaves it out", fiber.thread, name_of(op),
         short_name(where.file_name()), where.line(), static_cast<unsigned long long>(mask));
  }
  if ((warp.left & mask) != 0) {
    fail(block, "thread %d waits in %s at %s:%u for lane %d, which has left the kernel", fiber.thread, name_of(op),
         short_name(where.file_name()), where.line(), std::countr_zero(warp.left & mask));
  }
  warp.waiting |= bit;
  if ((warp.waiting & mask) == mask) {
    Fiber* lanes = &block.fibers[static_cast<size_t>(fiber.warp * block.lanes)];
    const bool aligned = op >= Op::kLoadMatrix;
    for (LaneMask rest = mask; rest != 0; rest &= rest - 1) {
      const Fiber& other = lanes[std::countr_zero(rest)];
      if (other.op != op || other.mask != mask) divergence(block, fiber, other, "not the same instruction");
      if (aligned && (other.where.line() != where.line() || other.where.column() != where.column())) {
        divergence(block, fiber, other, "a matrix instruction that is not the same for all lanes");
      }
    }
    switch (op) {
      case Op::kSync:
        order_lanes(block, warp, mask);
        break;
      case Op::kShuffle:
        run_shuffle(block, lanes, mask);
        break;
      case Op::kBallot: {
        LaneMask votes = 0;
        for (int lane = 0; lane < block.lanes; ++lane) votes |= LaneMask{lanes[lane].a[0]} << lane;
        for (int lane = 0; lane < block.lanes; ++lane) lanes[lane].c.votes = votes;
        break;
      }
      case Op::kLoadMatrix:
        run_matrix(block, lanes);
        break;
      case Op::kMultiply:
        run_multiply(block, lanes);
        break;
      default:
        run_mma(lanes);
        break;
    }
    if (block.counting && mask == block.all) meet(block, fiber.warp);
    warp.waiting &= ~mask;
    make_ready(block, fiber.warp, mask);
    block.last = -1;
  }
  next(block, fiber);
}

// ---- Barriers.

void release(Block& block, int id) {
  Barrier& barrier = block.barrier[id];
  uint32_t joined[kWarps] = {};
  for (uint32_t rest = barrier.warps; rest != 0; rest &= rest - 1) {
    const int w = std::countr_zero(rest);
    if (barrier.lanes[w] != block.all) {
      const int there = std::countr_one(barrier.lanes[w]);
      Fiber* lanes = &block.fibers[static_cast<size_t>(w * block.lanes)];
      divergence(block, lanes[std::countr_zero(barrier.lanes[w])], lanes[there],
                 "a barrier that a part of a warp reached");
    }
    for (int other = 0; other < block.warps; ++other) joined[other] = std::max(joined[other], block.known[w][other]);
  }
  for (uint32_t rest = barrier.warps; rest != 0; rest &= rest - 1) {
    const int w = std::countr_zero(rest);
    joined[w] = block.warp[w].epoch + 1;
    order_lanes(block, block.warp[w], block.all);
  }
  for (uint32_t rest = barrier.warps; rest != 0; rest &= rest - 1) {
    const int w = std::countr_zero(rest);
    std::memcpy(block.known[w], joined, sizeof joined);
    if (block.counting) meet(block, w);
    make_ready(block, w, barrier.lanes[w]);
    barrier.lanes[w] = 0;
  }
  barrier.arrived = 0;
  barrier.warps = 0;
  block.last = -1;
}

void in_barrier(Block& block, Fiber& fiber, int id, int threads, const Where& where) {
  Barrier& barrier = block.barrier[id];
  fiber.where = where;
  fiber.state = State::kInBarrier;
  fiber.barrier = static_cast<uint8_t>(id);
  if (barrier.arrived == 0) barrier.expected = threads;
  if (barrier.expected != threads) {
    fail(block, "sync_group(%d) at %s:%u by thread %d expects %d threads, others expect %d", id,
         short_name(where.file_name()), where.line(), fiber.thread, threads, barrier.expected);
  }
  // PTX ISA 9.0, section 9.7.13.1: bar.sync is .aligned, so a warp arrives as one, at one place; and for __syncthreads
  // the programming guide asks the same of the block.
  const int same = barrier.lanes[fiber.warp] != 0  ? fiber.warp
                   : id == 0 && barrier.warps != 0 ? std::countr_zero(barrier.warps)
                                                   : -1;
  if (same >= 0 && (barrier.where[same].line() != where.line() || barrier.where[same].column() != where.column())) {
    fail(block, "divergence: thread %d waits in a barrier at %s:%u, and warp %d in the same barrier at %s:%u",
         fiber.thread, short_name(where.file_name()), where.line(), same, short_name(barrier.where[same].file_name()),
         barrier.where[same].line());
  }
  barrier.where[fiber.warp] = where;
  barrier.warps |= 1u << fiber.warp;
  barrier.lanes[fiber.warp] |= LaneMask{1} << fiber.lane;
  ++barrier.arrived;
  if (barrier.arrived == (id == 0 ? block.live : barrier.expected)) {
    block.last_barrier = where;
    release(block, id);
  }
  next(block, fiber);
}

// ---- A block from its start to its end.

void leave(Block& block, Fiber& fiber) {
  fiber.state = State::kLeft;
  block.warp[fiber.warp].left |= LaneMask{1} << fiber.lane;
  if (block.counting && block.warp[fiber.warp].left == block.all) meet(block, fiber.warp);
  if (--block.live == 0) {
    gatun_simt_switch(&fiber.stack, block.main);
    __builtin_unreachable();
  }
  if (block.barrier[0].arrived == block.live) release(block, 0);
  next(block, fiber);
  __builtin_unreachable();
}

void enter() {
  Block& block = *running;
  block.launch->call(block.launch->function, block.launch->args);
  leave(block, *block.current);
}

void run_block(Block& block, int64_t linear, uint64_t seed) {
  const Launch& launch = *block.launch;
  block.linear = linear;
  block.index[0] = static_cast<int>(linear % launch.grid[0]);
  block.index[1] = static_cast<int>(linear / launch.grid[0] % launch.grid[1]);
  block.index[2] = static_cast<int>(linear / launch.grid[0] / launch.grid[1]);
  block.warps = launch.threads >> block.lanes_log2;
  block.live = launch.threads;
  const uint64_t drawn = mix(seed ^ mix(static_cast<uint64_t>(linear)));
  block.random = drawn | 1;
  block.favourite =
      ((seed ^ static_cast<uint64_t>(linear)) & 1) != 0 ? static_cast<int>(drawn >> 32) % block.warps : -1;
  if (block.favourite < 0 && ((seed ^ static_cast<uint64_t>(linear)) & 1) != 0) block.favourite += block.warps;
  block.last = -1;
  block.last_barrier = Where();
  block.seen.clear();
  std::memset(block.shared, 0xff, static_cast<size_t>(block.shared_bytes));
  std::memset(block.words, 0, (static_cast<size_t>(block.shared_bytes) + 3) / 4 * sizeof(SharedWord));
  block.ready = static_cast<uint32_t>((uint64_t{1} << block.warps) - 1);
  for (int w = 0; w < block.warps; ++w) {
    Warp& warp = block.warp[w];
    warp.ready = block.all;
    warp.waiting = warp.left = warp.epoch = 0;
    warp.partial = false;
    std::memset(block.known[w], 0, sizeof block.known[w]);
  }
  for (Barrier& barrier : block.barrier) {
    barrier.arrived = 0;
    barrier.warps = 0;
    std::memset(barrier.lanes, 0, sizeof barrier.lanes);
  }
  for (int t = 0; t < launch.threads; ++t) {
    Fiber& f = block.fibers[static_cast<size_t>(t)];
    f.thread = static_cast<uint16_t>(t);
    f.lane = static_cast<uint8_t>(t & (block.lanes - 1));
    f.warp = static_cast<uint8_t>(t >> block.lanes_log2);
    f.state = State::kReady;
    f.touches.clear();
    f.copies.clear();
    f.first_copy = 0;
    f.committed = 0;
    f.released = false;
    f.atomic = nullptr;
    f.stack =
        fresh_stack(block.stacks + static_cast<size_t>(t + 1) * kStack - static_cast<size_t>(t % 61) * kColour, enter);
  }
  running = &block;
  block.current = pick(block);
  gatun_simt_switch(&block.main, block.current->stack);
  running = nullptr;
}

// ---- Launches.

struct Worker {
  Block block;
};

// Room for the largest block there is; nullptr where the system has none.
Worker* new_worker() {
  auto* worker = new Worker();
  Block& block = worker->block;
  const size_t shared = 256 << 10;
  const size_t words = shared / 4 * sizeof(SharedWord);
  block.stacks_bytes = kThreads * kStack;
  const size_t total = block.stacks_bytes + shared + words;
  void* memory = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    delete worker;
    return nullptr;
  }
  block.stacks = static_cast<char*>(memory);
  for (size_t t = 0; t < kThreads; ++t) mprotect(block.stacks + t * kStack, kGuard, PROT_NONE);
  block.shared = block.stacks + block.stacks_bytes;
  block.words = reinterpret_cast<SharedWord*>(block.shared + shared);
  block.fibers.resize(kThreads);
  return worker;
}

// One launch at a time; the calling thread is the first worker.
class Executor {
 public:
  bool run(const Limits& device, const Launch& launch, char* message, size_t capacity);

 private:
  bool run_once(const Launch& launch, uint64_t seed, char* message, size_t capacity);
  void work(Worker& worker);
  void sum(const Launch& launch, int workers);
  bool enlist(int workers);
  void loop(size_t index);

  std::mutex launches_;
  std::vector<Worker*> workers_;
  std::mutex mutex_;
  std::condition_variable begin_, done_;
  uint64_t round_ = 0;
  int wanted_ = 0, busy_ = 0;

  const Launch* launch_ = nullptr;
  int lanes_ = 0;  // of a warp
  uint64_t seed_ = 0;
  int64_t blocks_ = 0;
  uint32_t number_ = 0;
  uintptr_t image_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<Worker*> failed_{nullptr};
};

void Executor::work(Worker& worker) {
  Block& block = worker.block;
  const Settings& s = settings();
  block.launch = launch_;
  block.shared_bytes = static_cast<uint32_t>(launch_->shared_bytes);
  block.lanes = lanes_;
  block.lanes_log2 = std::countr_zero(static_cast<unsigned>(lanes_));
  block.all = ~LaneMask{0} >> (kLanes - lanes_);
  block.image = image_;
  block.check = s.check;
  block.check_uninitialized = s.check_uninitialized;
  block.counting = s.counting;
  block.counters = {};
  block.failed = false;
  for (int i = 0; i < 3; ++i) block.grid[i] = static_cast<int>(launch_->grid[i]);
  while (failed_.load(std::memory_order_relaxed) == nullptr) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= blocks_) break;
    const int64_t linear = (seed_ & 2) != 0 ? blocks_ - 1 - i : i;
    block.place = static_cast<uint64_t>(number_) << 18 | (static_cast<uint64_t>(linear) & ((1 << 18) - 1));
    run_block(block, linear, seed_);
    if (block.failed) {
      Worker* none = nullptr;
      failed_.compare_exchange_strong(none, &worker);
    }
  }
}

void Executor::loop(size_t index) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    begin_.wait(lock, [&] { return round_ != seen && static_cast<int>(index) < wanted_; });
    seen = round_;
    lock.unlock();
    work(*workers_[index]);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

bool Executor::enlist(int workers) {
  while (static_cast<int>(workers_.size()) < workers) {
    Worker* worker = new_worker();
    if (worker == nullptr) return !workers_.empty();
    const std::lock_guard lock(mutex_);
    workers_.push_back(worker);
    if (workers_.size() > 1) std::thread(&Executor::loop, this, workers_.size() - 1).detach();
  }
  return true;
}

std::mutex counted_mutex;
std::map<const void*, Counters>& counted() {
  static auto* counted = new std::map<const void*, Counters>;
  return *counted;
}

void Executor::sum(const Launch& launch, int workers) {
  Counters here;
  const auto plus = [](Counters& a, const Counters& b) {
    a.shared_requests += b.shared_requests;
    a.shared_passes += b.shared_passes;
    a.shared_ideal += b.shared_ideal;
    a.global_requests += b.global_requests;
    a.global_sectors += b.global_sectors;
    a.global_ideal += b.global_ideal;
  };
  for (int w = 0; w < workers; ++w) plus(here, workers_[static_cast<size_t>(w)]->block.counters);
  {
    const std::lock_guard lock(counted_mutex);
    plus(counted()[launch.function], here);
  }
  if (settings().count.empty()) return;
  if (std::FILE* file = std::fopen(settings().count.c_str(), "a")) {
    std::fprintf(file, "%lld %lld %lld %lld %lld %lld %s\n", static_cast<long long>(here.shared_requests),
                 static_cast<long long>(here.shared_passes), static_cast<long long>(here.shared_ideal),
                 static_cast<long long>(here.global_requests), static_cast<long long>(here.global_sectors),
                 static_cast<long long>(here.global_ideal), function_name(launch.function).c_str());
    std::fclose(file);
  }
}

std::string with_symbols(const Block& block) {
  std::string text = block.message;
  for (int i = 0; i < 2; ++i) {
    const char token[] = {'{', static_cast<char>('0' + i), '}', '\0'};
    const size_t at = text.find(token);
    if (at != std::string::npos) text.replace(at, 3, symbol(block.failed_at[i]));
  }
  return text;
}

bool Executor::run_once(const Launch& launch, uint64_t seed, char* message, size_t capacity) {
  launch_ = &launch;
  seed_ = seed;
  blocks_ = launch.grid[0] * launch.grid[1] * launch.grid[2];
  number_ = next_launch();
  next_.store(0);
  failed_.store(nullptr);
  Dl_info info;
  image_ = dladdr(launch.function, &info) != 0 ? reinterpret_cast<uintptr_t>(info.dli_fbase) : 0;
  const int workers = static_cast<int>(std::min<int64_t>(settings().threads, blocks_));
  if (!enlist(workers)) {
    std::snprintf(message, capacity, "no memory for the stacks of the threads of a block");
    return false;
  }
  const int helpers = std::min(workers, static_cast<int>(workers_.size())) - 1;
  if (helpers > 0) {
    {
      const std::lock_guard lock(mutex_);
      ++round_;
      wanted_ = helpers + 1;
      busy_ = helpers;
    }
    begin_.notify_all();
  }
  work(*workers_[0]);
  if (helpers > 0) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
    wanted_ = 0;
  }
  if (settings().counting) sum(launch, helpers + 1);
  if (Worker* failed = failed_.load()) {
    const Block& block = failed->block;
    std::snprintf(message, capacity, "%s, block (%d, %d, %d) of %d threads, seed %llu: %s",
                  function_name(launch.function).c_str(), block.index[0], block.index[1], block.index[2],
                  launch.threads, static_cast<unsigned long long>(seed), with_symbols(block).c_str());
    return false;
  }
  return true;
}

}  // namespace

// memory.cc
std::vector<std::pair<char*, int64_t>> allocations();

namespace {

bool Executor::run(const Limits& device, const Launch& launch, char* message, size_t capacity) {
  const std::lock_guard lock(launches_);
  if (launch.threads < 1 || launch.threads > device.threads || launch.threads % device.warp != 0) {
    std::snprintf(message, capacity, "a block of %d threads: whole warps of %d and at most %d threads were expected",
                  launch.threads, device.warp, device.threads);
    return false;
  }
  if (launch.shared_bytes < 0 || launch.shared_bytes > device.shared_bytes) {
    std::snprintf(message, capacity, "%d bytes of shared memory: a block of %s has at most %d", launch.shared_bytes,
                  device.name, device.shared_bytes);
    return false;
  }
  // CUDA C++ Programming Guide 13.0, section 20.2.
  if (launch.grid[0] < 1 || launch.grid[0] > INT32_MAX || launch.grid[1] < 1 || launch.grid[1] > 65535 ||
      launch.grid[2] < 1 || launch.grid[2] > 65535) {
    std::snprintf(message, capacity,
                  "a grid of %lld x %lld x %lld blocks: 1 to 2147483647 x 65535 x 65535 were expected",
                  static_cast<long long>(launch.grid[0]), static_cast<long long>(launch.grid[1]),
                  static_cast<long long>(launch.grid[2]));
    return false;
  }
  lanes_ = device.warp;
  const Settings& s = settings();
  sites_matter = !s.sites.empty() || !s.remove.empty();
  if (s.schedules == 1) return run_once(launch, s.seed, message, capacity);

  const auto memory = allocations();
  std::vector<std::vector<char>> before, after;
  for (const auto& [p, bytes] : memory) before.emplace_back(p, p + bytes);
  for (int i = 0; i < s.schedules; ++i) {
    const uint64_t seed = s.seed + static_cast<uint64_t>(i);
    if (i > 0) {
      for (size_t m = 0; m < memory.size(); ++m) std::memcpy(memory[m].first, before[m].data(), before[m].size());
    }
    if (!run_once(launch, seed, message, capacity)) return false;
    for (size_t m = 0; m < memory.size(); ++m) {
      if (i == 0) {
        after.emplace_back(memory[m].first, memory[m].first + memory[m].second);
        continue;
      }
      const auto [here, there] = std::mismatch(after[m].begin(), after[m].end(), memory[m].first);
      if (here == after[m].end()) continue;
      std::snprintf(message, capacity,
                    "%s: seeds %llu and %llu give different results, first at byte %lld of an allocation of %lld",
                    function_name(launch.function).c_str(), static_cast<unsigned long long>(s.seed),
                    static_cast<unsigned long long>(seed), static_cast<long long>(there - memory[m].first),
                    static_cast<long long>(memory[m].second));
      return false;
    }
  }
  return true;
}

}  // namespace

void fail(Block& block, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(block.message, sizeof block.message, format, arguments);
  va_end(arguments);
  block.failed = true;
  void* abandoned;
  gatun_simt_switch(&abandoned, block.main);
  __builtin_unreachable();
}

bool launch(const Limits& device, const Launch& launch, char* message, size_t capacity) {
  static Executor* executor = new Executor;
  return executor->run(device, launch, message, capacity);
}

void set_seed(uint64_t seed) { settings().seed = seed; }
void set_remove(const char* site) { settings().remove = site == nullptr ? "" : site; }
void set_threads(int threads) { settings().threads = threads; }
void set_schedules(int schedules) { settings().schedules = schedules; }
void count(bool on) { settings().counting = on; }

Counters counters(const void* function) {
  const std::lock_guard lock(counted_mutex);
  return counted()[function];
}

// ---- What a kernel calls.

#define GATUN_PC reinterpret_cast<uintptr_t>(__builtin_return_address(0))

int thread() { return running->current->thread; }
int block(int dimension) { return running->index[dimension]; }
int grid(int dimension) { return running->grid[dimension]; }
char* shared() { return running->shared; }

void sync_threads(Where where) {
  if (removed(where, "sync_threads")) return;
  Block& block = *running;
  in_barrier(block, *block.current, 0, 0, where);
}

void sync_group(int id, int threads, Where where) {
  if (removed(where, "sync_group")) return;
  Block& block = *running;
  if (id < 1 || id >= kBarriers || threads < block.lanes || threads % block.lanes != 0 || threads > block.launch->threads) {
    fail(block, "sync_group(%d, %d) at %s:%u: barriers 1 to 15 and whole warps of the block's %d threads were expected",
         id, threads, short_name(where.file_name()), where.line(), block.launch->threads);
  }
  in_barrier(block, *block.current, id, threads, where);
}

void sync_warp(uint64_t mask, Where where) {
  if (removed(where, "sync_warp")) return;
  Block& block = *running;
  in_warp(block, *block.current, Op::kSync, mask, where);
}

void fence(Where where) {
  if (removed(where, "fence")) return;
  Block& block = *running;
  Fiber& fiber = *block.current;
  fiber.released = true;
  if (fiber.atomic != nullptr) subscribe(block, fiber.atomic);
  fiber.atomic = nullptr;
}

void trap(Where where) { fail(*running, "trap at %s:%u", short_name(where.file_name()), where.line()); }

uint32_t shuffle(Shuffle kind, uint32_t value, int argument, Where where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  fiber.kind = static_cast<uint8_t>(kind);
  fiber.a[0] = value;
  fiber.argument = argument;
  in_warp(block, fiber, Op::kShuffle, block.all, where);
  return fiber.c.u[0];
}

uint64_t ballot(bool predicate, Where where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  fiber.a[0] = predicate ? 1 : 0;
  in_warp(block, fiber, Op::kBallot, block.all, where);
  return fiber.c.votes;
}

namespace {

// Others may go first: the order of atomic operations is any.
void yield(Block& block, Fiber& fiber) {
  block.warp[fiber.warp].ready |= LaneMask{1} << fiber.lane;
  block.ready |= 1u << fiber.warp;
  block.last = any_bit(block.ready, block.warps, block.random);
  next(block, fiber);
}

template <typename T, typename Update>
T atomic(T* p, uintptr_t pc, const Where& where, Update update) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  yield(block, fiber);
  check_aligned(block, fiber, p, sizeof(T), Access::kAtomic, pc, where);
  if (fiber.released) publish(block, p);
  uint32_t old = __atomic_load_n(reinterpret_cast<uint32_t*>(p), __ATOMIC_RELAXED), fresh;
  T before;
  do {
    std::memcpy(&before, &old, sizeof before);
    const T after = update(before);
    std::memcpy(&fresh, &after, sizeof fresh);
  } while (!__atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(p), &old, fresh, true, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
  fiber.released = false;
  fiber.atomic = p;
  return before;
}

}  // namespace

float atomic_add(float* p, float v, Where where) {
  return atomic(p, GATUN_PC, where, [v](float x) { return x + v; });
}
int32_t atomic_add(int32_t* p, int32_t v, Where where) {
  return atomic(p, GATUN_PC, where,
                [v](int32_t x) { return static_cast<int32_t>(static_cast<uint32_t>(x) + static_cast<uint32_t>(v)); });
}
uint32_t atomic_add(uint32_t* p, uint32_t v, Where where) {
  return atomic(p, GATUN_PC, where, [v](uint32_t x) { return x + v; });
}
int32_t atomic_max(int32_t* p, int32_t v, Where where) {
  return atomic(p, GATUN_PC, where, [v](int32_t x) { return x > v ? x : v; });
}
uint32_t atomic_max(uint32_t* p, uint32_t v, Where where) {
  return atomic(p, GATUN_PC, where, [v](uint32_t x) { return x > v ? x : v; });
}

// PTX ISA 9.0, section 9.7.9.25.3 cp.async: the copy may happen at any time until it is waited for, so here it happens
// as late as it may, and nobody may touch its destination in between.
void copy_async_16(void* to, const void* from, int valid, Where where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  if (valid < 0 || valid > 16) {
    fail(block, "thread %d: copy_async_16 at %s:%u of %d bytes", fiber.thread, short_name(where.file_name()),
         where.line(), valid);
  }
  const Copy copy = {static_cast<char*>(to), static_cast<const char*>(from), valid, fiber.committed, GATUN_PC};
  begin_copy(block, fiber, copy);
  fiber.copies.push_back(copy);
}

void copy_async_commit(Where where) {
  if (removed(where, "copy_async_commit")) return;
  ++running->current->committed;
}

void copy_async_wait(int under_way, Where where) {
  if (removed(where, "copy_async_wait")) return;
  Block& block = *running;
  Fiber& fiber = *block.current;
  // Groups up to committed - under_way - 1 must be done. What is not committed yet belongs to none.
  while (fiber.first_copy < fiber.copies.size()) {
    const Copy& copy = fiber.copies[fiber.first_copy];
    if (static_cast<int64_t>(copy.group) >= static_cast<int64_t>(fiber.committed) - under_way) break;
    end_copy(block, fiber, copy);
    ++fiber.first_copy;
  }
  if (fiber.first_copy == fiber.copies.size()) {
    fiber.copies.clear();
    fiber.first_copy = 0;
  }
}

U4 load_matrix(int matrices, bool transposed, const void* row, Where where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  fiber.argument = matrices;
  fiber.kind = transposed;
  fiber.row = row;
  fiber.pc = GATUN_PC;
  in_warp(block, fiber, Op::kLoadMatrix, block.all, where);
  U4 d;
  std::memcpy(&d, fiber.c.u, sizeof d);
  return d;
}

namespace {

template <typename Vector>
inline Vector run_mma(Op op, Vector c, U4 a, uint64_t b, const Where& where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  std::memcpy(&fiber.c, &c, sizeof c);
  std::memcpy(fiber.a, &a, sizeof a);
  std::memcpy(fiber.b, &b, sizeof b);
  in_warp(block, fiber, op, block.all, where);
  std::memcpy(&c, &fiber.c, sizeof c);
  return c;
}

}  // namespace

F4 mma_bf16(F4 c, U4 a, uint64_t b, Where where) { return run_mma(Op::kMmaBf16, c, a, b, where); }
F4 mma_f16(F4 c, U4 a, uint64_t b, Where where) { return run_mma(Op::kMmaF16, c, a, b, where); }
I4 mma_s8(I4 c, U4 a, uint64_t b, Where where) { return run_mma(Op::kMmaS8, c, a, b, where); }
I4 mma_u8s8(I4 c, U4 a, uint64_t b, Where where) { return run_mma(Op::kMmaU8S8, c, a, b, where); }

Words8 multiply(MatrixKind kind, Words8 c, Words8 a, Words8 b, Where where) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  fiber.kind = static_cast<uint8_t>(kind);
  std::memcpy(fiber.wide_a, &a, sizeof a);
  std::memcpy(fiber.wide_b, &b, sizeof b);
  std::memcpy(fiber.wide_c, &c, sizeof c);
  in_warp(block, fiber, Op::kMultiply, block.all, where);
  std::memcpy(&c, fiber.wide_c, sizeof c);
  return c;
}

namespace {

template <typename T>
inline T load(const void* p, uintptr_t pc, const Where& where) {
  Block& block = *running;
  check_aligned(block, *block.current, p, sizeof(T), Access::kRead, pc, where);
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
inline void store(void* p, T v, uintptr_t pc, const Where& where) {
  Block& block = *running;
  check_aligned(block, *block.current, p, sizeof(T), Access::kWrite, pc, where);
  std::memcpy(p, &v, sizeof v);
}

}  // namespace

U4 load_16(const void* p, Where where) { return load<U4>(p, GATUN_PC, where); }
uint64_t load_8(const void* p, Where where) { return load<uint64_t>(p, GATUN_PC, where); }
uint32_t load_4(const void* p, Where where) { return load<uint32_t>(p, GATUN_PC, where); }
void store_16(void* p, U4 v, Where where) { store(p, v, GATUN_PC, where); }
void store_8(void* p, uint64_t v, Where where) { store(p, v, GATUN_PC, where); }
void store_4(void* p, uint32_t v, Where where) { store(p, v, GATUN_PC, where); }

}  // namespace gatun::simt
