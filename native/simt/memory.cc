// Device memory, and what is looked at when a kernel touches memory: the hooks that -fsanitize=thread calls before each
// load and store, supplied here instead of by that sanitizer's run time.
//
// An access is one of the thread's own stack, of the block's shared memory, of device memory, of the launch's
// arguments, or of constants; anything else is out of bounds. For shared and device memory, who touched each word last
// is remembered in cells (block.h), and an access that conflicts with one that does not come before it is a race. What
// comes before is what barriers order (block.h, `ordered`). Shuffles, votes and matrix instructions order nothing.
// Blocks are ordered with each other by atomic operations with fences around them, which is kept for whole blocks: this
// can hide a race, and never reports one that is not there.
#include "simt/block.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>

namespace gatun::simt {
namespace {

constexpr size_t kPage = 4096;

// Two cells for 4 bytes of device memory.
struct GlobalWord {
  std::atomic<Cell> write, read;
};

struct Allocation {
  char* begin;
  int64_t bytes;
};

// A range of addresses, of which pages are given out with an unused one after each allocation; and beside it one page
// number to allocation table and the cells, touched as far as they are used.
class Arena {
 public:
  Arena();
  void* allocate(int64_t bytes);
  void release(void* memory);
  void forget();
  std::vector<std::pair<char*, int64_t>> list();

  bool has(uintptr_t p) const { return p - base_ < size_; }
  GlobalWord& word(uintptr_t p) const { return words_[(p - base_) / 4]; }
  // The allocation whose pages, the unused one included, hold p; nullptr.
  const Allocation* find(uintptr_t p) const {
    const uint32_t index = pages_[(p - base_) / kPage];
    return index == 0 ? nullptr : &slots_[index];
  }

 private:
  static constexpr uint32_t kSlots = 1 << 20;
  uintptr_t base_ = 0;
  size_t size_ = 0;
  GlobalWord* words_ = nullptr;
  uint32_t* pages_ = nullptr;
  Allocation* slots_ = nullptr;
  uint32_t next_slot_ = 1;
  std::vector<uint32_t> free_slots_;
  std::map<size_t, size_t> free_;  // pages: first, count
  std::map<char*, int64_t> live_;
  std::mutex mutex_;
};

void* reserve(size_t bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

Arena::Arena() {
  for (size_t size = size_t{1} << 36; size >= size_t{1} << 28; size /= 2) {
    void* data = reserve(size, PROT_NONE);
    void* words = reserve(size / 4 * sizeof(GlobalWord), PROT_READ | PROT_WRITE);
    void* pages = reserve(size / kPage * sizeof(uint32_t), PROT_READ | PROT_WRITE);
    void* slots = reserve(kSlots * sizeof(Allocation), PROT_READ | PROT_WRITE);
    if (data != nullptr && words != nullptr && pages != nullptr && slots != nullptr) {
      base_ = reinterpret_cast<uintptr_t>(data);
      size_ = size;
      words_ = static_cast<GlobalWord*>(words);
      pages_ = static_cast<uint32_t*>(pages);
      slots_ = static_cast<Allocation*>(slots);
      free_[0] = size / kPage;
      return;
    }
    if (data != nullptr) munmap(data, size);
    if (words != nullptr) munmap(words, size / 4 * sizeof(GlobalWord));
    if (pages != nullptr) munmap(pages, size / kPage * sizeof(uint32_t));
    if (slots != nullptr) munmap(slots, kSlots * sizeof(Allocation));
  }
}

void* Arena::allocate(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes < 0 || static_cast<uint64_t>(bytes) > size_) return nullptr;
  const size_t data_pages = std::max<size_t>((static_cast<size_t>(bytes) + kPage - 1) / kPage, 1),
               count = data_pages + 1;
  const auto range = std::find_if(free_.begin(), free_.end(), [count](const auto& r) { return r.second >= count; });
  if (range == free_.end() || (free_slots_.empty() && next_slot_ == kSlots)) return nullptr;
  const size_t first = range->first, rest = range->second - count;
  char* begin = reinterpret_cast<char*>(base_ + first * kPage);
  if (mprotect(begin, data_pages * kPage, PROT_READ | PROT_WRITE) != 0) return nullptr;
  free_.erase(range);
  if (rest != 0) free_[first + count] = rest;
  uint32_t slot = next_slot_;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
  } else {
    ++next_slot_;
  }
  slots_[slot] = {begin, bytes};
  std::fill_n(pages_ + first, count, slot);
  live_[begin] = bytes;
  std::memset(begin, 0xff, static_cast<size_t>(bytes));
  return begin;
}

void Arena::release(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(static_cast<char*>(memory));
  if (found == live_.end()) return;
  const size_t data_pages = std::max<size_t>((static_cast<size_t>(found->second) + kPage - 1) / kPage, 1);
  size_t first = (reinterpret_cast<uintptr_t>(memory) - base_) / kPage, count = data_pages + 1;
  free_slots_.push_back(pages_[first]);
  std::fill_n(pages_ + first, count, 0);
  live_.erase(found);
  madvise(memory, data_pages * kPage, MADV_DONTNEED);
  mprotect(memory, data_pages * kPage, PROT_NONE);
  madvise(words_ + first * (kPage / 4), data_pages * (kPage / 4) * sizeof(GlobalWord), MADV_DONTNEED);
  auto after = free_.lower_bound(first);
  if (after != free_.end() && after->first == first + count) {
    count += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == first) {
      before->second += count;
      return;
    }
  }
  free_[first] = count;
}

void Arena::forget() {
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, bytes] : live_) {
    const size_t first = (reinterpret_cast<uintptr_t>(begin) - base_) / kPage;
    const size_t pages = (static_cast<size_t>(bytes) + kPage - 1) / kPage;
    madvise(words_ + first * (kPage / 4), pages * (kPage / 4) * sizeof(GlobalWord), MADV_DONTNEED);
  }
}

std::vector<std::pair<char*, int64_t>> Arena::list() {
  const std::lock_guard lock(mutex_);
  return {live_.begin(), live_.end()};
}

Arena& arena() {
  static Arena* arena = new Arena;
  return *arena;
}

const char* verb(Access access) {
  return access == Access::kRead ? "reads" : access == Access::kWrite ? "writes" : "updates atomically";
}

const char* past(bool write, Cell cell) {
  return !write ? "read" : (cell >> kAtomicShift & 1) != 0 ? "updated atomically" : "wrote";
}

uint64_t place_in_code(const Block& block, uintptr_t pc) {
  const uintptr_t offset = pc - block.image;
  return static_cast<uint64_t>(offset < kPlaces ? offset : 0) << kPlaceShift;
}

void describe_interval(const Block& block, const Fiber& fiber, char* text, size_t capacity) {
  const char* file = block.last_barrier.file_name();
  const char* slash = std::strrchr(file, '/');
  if (block.last_barrier.line() == 0) {
    std::snprintf(text, capacity, "before the first barrier");
  } else {
    std::snprintf(text, capacity, "barrier interval %u of the warp, after %s:%u", block.warp[fiber.warp].epoch,
                  slash == nullptr ? file : slash + 1, block.last_barrier.line());
  }
}

[[noreturn]] __attribute__((noinline)) void shared_race(Block& block, const Fiber& fiber, uint32_t offset,
                                                        Access access, uintptr_t pc, Cell other, bool other_wrote) {
  char interval[200];
  describe_interval(block, fiber, interval, sizeof interval);
  block.failed_at[0] = pc - 1;
  block.failed_at[1] = place_of(other) != 0 ? block.image + place_of(other) - 1 : 0;
  fail(block,
       "race in shared memory at byte %u: thread %d (warp %d) %s it at {0}, thread %u (warp %u) %s it at {1}, and no "
       "barrier "
       "orders the two; %s",
       offset, fiber.thread, fiber.warp, verb(access), thread_of(other), thread_of(other) >> block.lanes_log2,
       past(other_wrote, other), interval);
}

[[noreturn]] __attribute__((noinline)) void pending(Block& block, const Fiber& fiber, uint32_t offset, Access access,
                                                    uintptr_t pc, Cell other) {
  block.failed_at[0] = pc - 1;
  block.failed_at[1] = place_of(other) != 0 ? block.image + place_of(other) - 1 : 0;
  fail(block,
       "race in shared memory at byte %u: thread %d (warp %d) %s it at {0} while the asynchronous copy of thread %u at "
       "{1} has not "
       "been waited for",
       offset, fiber.thread, fiber.warp, verb(access), thread_of(other));
}

[[noreturn]] __attribute__((noinline)) void uninitialised(Block& block, const Fiber& fiber, uint32_t offset,
                                                          uintptr_t pc) {
  block.failed_at[0] = pc - 1;
  fail(block, "uninitialised shared memory: thread %d (warp %d) reads byte %u at {0}, which nothing wrote",
       fiber.thread, fiber.warp, offset);
}

// One word of shared memory, of which the access touches the bytes of `mask`.
template <Access kAccess>
inline void shared_word(Block& block, Fiber& fiber, uint32_t index, uint32_t mask, Cell mine, uintptr_t pc,
                        bool any_value) {
  SharedWord& word = block.words[index];
  const Cell cell = mine | mask;
  const auto at = [&](Cell other) {
    return index * 4 + static_cast<uint32_t>(__builtin_ctz(static_cast<uint32_t>(other) & mask));
  };
  if (__builtin_expect((word.pending & mask) != 0, false))
    pending(block, fiber, at(word.pending), kAccess, pc, word.write);
  if (kAccess == Access::kRead) {
    if (__builtin_expect((word.written & mask) != mask, false) && !any_value && block.check_uninitialized) {
      uninitialised(block, fiber, at(static_cast<Cell>(~word.written)), pc);
    }
    if ((word.write & mask) != 0 && !ordered(block, fiber, word.write)) {
      shared_race(block, fiber, at(word.write), kAccess, pc, word.write, true);
    }
    const Cell last = word.read[0];
    if (last == cell) return;
    if (thread_of(last) >> block.lanes_log2 != fiber.warp && last != 0) word.read[1] = last;
    word.read[0] = cell;
  } else {
    const bool both_atomic = kAccess == Access::kAtomic && (word.write >> kAtomicShift & 1) != 0;
    if ((word.write & mask) != 0 && !both_atomic && !ordered(block, fiber, word.write)) {
      shared_race(block, fiber, at(word.write), kAccess, pc, word.write, true);
    }
    for (Cell& read : word.read) {
      if ((read & mask) == 0) continue;
      if (!ordered(block, fiber, read)) shared_race(block, fiber, at(read), kAccess, pc, read, false);
      if ((read & ~static_cast<Cell>(mask) & 15) == 0) read = 0;
    }
    // The other bytes of a word that the same thread wrote in the same interval stay with it.
    const Cell same = word.write ^ mine;
    word.write = (same & ((uint64_t{1} << kPlaceShift) - 1)) < 16 ? cell | (word.write & 15) : cell;
    if (kAccess == Access::kAtomic) word.write |= Cell{1} << kAtomicShift;
    word.written |= static_cast<uint8_t>(mask);
  }
}

template <Access kAccess>
inline void shared_access(Block& block, Fiber& fiber, uint32_t offset, size_t bytes, uintptr_t pc,
                          bool any_value = false) {
  const Cell mine = stamp(block, fiber) | place_in_code(block, pc);
  uint32_t index = offset / 4;
  const uint32_t skipped = offset % 4;
  if (skipped + bytes <= 4) {
    shared_word<kAccess>(block, fiber, index, ((1u << bytes) - 1) << skipped, mine, pc, any_value);
    return;
  }
  const uint32_t end = offset + static_cast<uint32_t>(bytes);
  if (skipped != 0) shared_word<kAccess>(block, fiber, index++, 15u << skipped & 15, mine, pc, any_value);
  for (; index < end / 4; ++index) shared_word<kAccess>(block, fiber, index, 15, mine, pc, any_value);
  if (end % 4 != 0) shared_word<kAccess>(block, fiber, index, (1u << end % 4) - 1, mine, pc, any_value);
}

// ---- Device memory. Cells name launch and block instead of code.

constexpr uint32_t kBlocks = 1 << 18;  // whose numbers are told apart

// What blocks gave away by an atomic operation after a fence, in this launch.
struct Given {
  std::mutex mutex;
  std::unordered_map<const void*, std::vector<bool>> by_address;
};
Given& given() {
  static Given* given = new Given;
  return *given;
}

void join(std::vector<bool>& into, const std::vector<bool>& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i]) into[i] = true;
  }
}

// Whether the access of `cell` comes before what this fiber does now.
bool ordered_globally(const Block& block, const Fiber& fiber, Cell cell) {
  const uint32_t place = place_of(cell);
  if (place == block.place) return ordered(block, fiber, cell);
  if (place / kBlocks != block.place / kBlocks) return true;  // an earlier launch
  const size_t other = place % kBlocks;
  return other < block.seen.size() && block.seen[other];
}

[[noreturn]] __attribute__((noinline)) void global_race(Block& block, const Fiber& fiber, uintptr_t p, Access access,
                                                        uintptr_t pc, Cell other, bool other_wrote) {
  const Allocation* a = arena().find(p);
  block.failed_at[0] = pc - 1;
  const int64_t linear = place_of(other) % kBlocks;
  char who[100], interval[200];
  describe_interval(block, fiber, interval, sizeof interval);
  if (place_of(other) == block.place) {
    std::snprintf(who, sizeof who, "thread %u (warp %u) of the same block", thread_of(other), thread_of(other) >> block.lanes_log2);
  } else {
    std::snprintf(who, sizeof who, "thread %u of block (%lld, %lld, %lld)", thread_of(other),
                  static_cast<long long>(linear % block.grid[0]),
                  static_cast<long long>(linear / block.grid[0] % block.grid[1]),
                  static_cast<long long>(linear / block.grid[0] / block.grid[1]));
  }
  fail(block,
       "race in device memory at byte %lld of an allocation of %lld: thread %d (warp %d) %s it at {0}, %s %s it, and "
       "nothing "
       "orders the two; %s",
       static_cast<long long>(p - reinterpret_cast<uintptr_t>(a->begin)), static_cast<long long>(a->bytes),
       fiber.thread, fiber.warp, verb(access), who, past(other_wrote, other), interval);
}

[[noreturn]] __attribute__((noinline)) void outside(Block& block, const Fiber& fiber, uintptr_t p, size_t bytes,
                                                    Access access, uintptr_t pc) {
  block.failed_at[0] = pc - 1;
  char where[160] = "where there is no allocation";
  const intptr_t offset = static_cast<intptr_t>(p - reinterpret_cast<uintptr_t>(block.shared));
  const Allocation* a = arena().has(p) ? arena().find(p) : nullptr;
  if (a == nullptr && arena().has(p - kPage)) a = arena().find(p - kPage);
  if (a != nullptr) {
    std::snprintf(where, sizeof where, "at byte %lld of an allocation of %lld",
                  static_cast<long long>(p - reinterpret_cast<uintptr_t>(a->begin)), static_cast<long long>(a->bytes));
  } else if (arena().has(p + kPage) && (a = arena().find(p + kPage)) != nullptr) {
    std::snprintf(where, sizeof where, "%lld bytes before an allocation of %lld",
                  static_cast<long long>(reinterpret_cast<uintptr_t>(a->begin) - p), static_cast<long long>(a->bytes));
  } else if (offset > -(1 << 20) && offset < 1 << 20) {
    std::snprintf(where, sizeof where, "at byte %lld of %u of shared memory", static_cast<long long>(offset),
                  block.shared_bytes);
  } else if (p < kPage) {
    std::snprintf(where, sizeof where, "at address %llu, a null pointer", static_cast<unsigned long long>(p));
  }
  fail(block, "out of bounds: thread %d (warp %d) %s %zu bytes at {0}, %s", fiber.thread, fiber.warp, verb(access),
       bytes, where);
}

template <Access kAccess>
inline void global_word(Block& block, Fiber& fiber, uintptr_t p, uint32_t mask, Cell mine, uintptr_t pc) {
  GlobalWord& word = arena().word(p);
  Cell cell = mine | mask;
  const auto at = [&](Cell other) {
    return (p & ~uintptr_t{3}) + static_cast<uintptr_t>(__builtin_ctz(static_cast<uint32_t>(other) & mask));
  };
  if (kAccess == Access::kRead) {
    if (word.read.load(std::memory_order_relaxed) != cell) word.read.store(cell, std::memory_order_relaxed);
    const Cell write = word.write.load(std::memory_order_relaxed);
    if ((write & mask) != 0 && !ordered_globally(block, fiber, write)) {
      global_race(block, fiber, at(write), kAccess, pc, write, true);
    }
  } else {
    if (kAccess == Access::kAtomic) cell |= Cell{1} << kAtomicShift;
    const Cell before = word.write.load(std::memory_order_relaxed);
    if ((before ^ cell) >> kThreadShift == 0) cell |= before & 15;
    const Cell write = word.write.exchange(cell);
    const bool both_atomic = kAccess == Access::kAtomic && (write >> kAtomicShift & 1) != 0;
    if ((write & mask) != 0 && !both_atomic && !ordered_globally(block, fiber, write)) {
      global_race(block, fiber, at(write), kAccess, pc, write, true);
    }
    const Cell read = word.read.load();
    if ((read & mask) != 0 && !ordered_globally(block, fiber, read))
      global_race(block, fiber, at(read), kAccess, pc, read, false);
  }
}

template <Access kAccess>
inline void global_access(Block& block, Fiber& fiber, uintptr_t p, size_t bytes, uintptr_t pc) {
  const Allocation* a = arena().find(p);
  const uintptr_t offset = a == nullptr ? 0 : p - reinterpret_cast<uintptr_t>(a->begin);
  if (a == nullptr || offset > static_cast<uintptr_t>(a->bytes) || bytes > static_cast<uintptr_t>(a->bytes) - offset) {
    outside(block, fiber, p, bytes, kAccess, pc);
  }
  const Cell mine = stamp(block, fiber) | block.place << kPlaceShift;
  const uintptr_t end = p + bytes;
  const uint32_t skipped = p % 4;
  if (skipped + bytes <= 4) {
    global_word<kAccess>(block, fiber, p, ((1u << bytes) - 1) << skipped, mine, pc);
    return;
  }
  if (skipped != 0) global_word<kAccess>(block, fiber, p, 15u << skipped & 15, mine, pc);
  for (p = (p + 3) / 4 * 4; p + 4 <= end; p += 4) global_word<kAccess>(block, fiber, p, 15, mine, pc);
  if (p < end) global_word<kAccess>(block, fiber, p, (1u << (end - p)) - 1, mine, pc);
}

// Constants: what cannot be written in a library or program that is loaded.
bool constant(uintptr_t p, size_t bytes) {
  thread_local uintptr_t begin = 0, end = 0;
  if (p - begin < end - begin) return bytes <= end - p;
  struct Search {
    uintptr_t p, begin, end;
  } search = {p, 0, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* s = static_cast<Search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          const bool relocated = header.p_type == PT_GNU_RELRO;
          if (!relocated && (header.p_type != PT_LOAD || (header.p_flags & PF_W) != 0)) continue;
          const uintptr_t first = info->dlpi_addr + header.p_vaddr;
          if (s->p - first < header.p_memsz) {
            s->begin = first;
            s->end = first + header.p_memsz;
            return 1;
          }
        }
        return 0;
      },
      &search);
  if (search.end == 0) return false;
  begin = search.begin;
  end = search.end;
  return bytes <= end - p;
}

template <Access kAccess>
inline void access(Block& block, Fiber& fiber, const void* pointer, size_t bytes, uintptr_t pc) {
  const auto p = reinterpret_cast<uintptr_t>(pointer);
  if (p - reinterpret_cast<uintptr_t>(block.stacks) < block.stacks_bytes) return;
  const uintptr_t offset = p - reinterpret_cast<uintptr_t>(block.shared);
  if (offset < block.shared_bytes) {
    if (bytes > block.shared_bytes - offset) outside(block, fiber, p, bytes, kAccess, pc);
    if (__builtin_expect(block.counting, false)) touch(fiber, offset, bytes, true, pc);
    return shared_access<kAccess>(block, fiber, static_cast<uint32_t>(offset), bytes, pc);
  }
  if (arena().has(p)) {
    if (__builtin_expect(block.counting, false)) touch(fiber, p, bytes, false, pc);
    return global_access<kAccess>(block, fiber, p, bytes, pc);
  }
  if (kAccess == Access::kRead) {
    const uintptr_t argument = p - reinterpret_cast<uintptr_t>(block.launch->args);
    if (argument < static_cast<uintptr_t>(block.launch->args_bytes)) return;
    if (constant(p, bytes)) return;
  }
  if (bytes != 0) outside(block, fiber, p, bytes, kAccess, pc);
}

template <Access kAccess>
inline void hook(const void* p, size_t bytes, bool aligned, uintptr_t pc) {
  Block* block = running;
  if (__builtin_expect(block == nullptr || !block->check, false)) return;
  Fiber& fiber = *block->current;
  if (aligned && __builtin_expect((reinterpret_cast<uintptr_t>(p) & (bytes - 1)) != 0, false)) {
    block->failed_at[0] = pc - 1;
    fail(*block, "thread %d %s %zu bytes at {0}, at an address that is not a multiple of them", fiber.thread,
         verb(kAccess), bytes);
  }
  access<kAccess>(*block, fiber, p, bytes, pc);
}

}  // namespace

void* allocate(int64_t bytes) { return arena().allocate(bytes); }
void release(void* memory) { arena().release(memory); }
std::vector<std::pair<char*, int64_t>> allocations() { return arena().list(); }

uint32_t next_launch() {
  static uint32_t launches = 0;
  {
    const std::lock_guard lock(given().mutex);
    given().by_address.clear();
  }
  if (++launches == 1 << 12) {
    arena().forget();
    launches = 1;
  }
  return launches;
}

void publish(Block& block, const void* p) {
  const std::lock_guard lock(given().mutex);
  std::vector<bool>& blocks = given().by_address[p];
  join(blocks, block.seen);
  const size_t mine = block.place % kBlocks;
  if (blocks.size() <= mine) blocks.resize(mine + 1);
  blocks[mine] = true;
}

void subscribe(Block& block, const void* p) {
  const std::lock_guard lock(given().mutex);
  const auto found = given().by_address.find(p);
  if (found != given().by_address.end()) join(block.seen, found->second);
}

void check_aligned(Block& block, Fiber& fiber, const void* p, size_t bytes, Access how, uintptr_t pc, Where where) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) {
    const char* slash = std::strrchr(where.file_name(), '/');
    fail(block, "thread %d %s %zu bytes at %s:%u, at an address that is not a multiple of them", fiber.thread,
         verb(how), bytes, slash == nullptr ? where.file_name() : slash + 1, where.line());
  }
  if (!block.check) return;
  switch (how) {
    case Access::kRead:
      return access<Access::kRead>(block, fiber, p, bytes, pc);
    case Access::kWrite:
      return access<Access::kWrite>(block, fiber, p, bytes, pc);
    case Access::kAtomic:
      return access<Access::kAtomic>(block, fiber, p, bytes, pc);
  }
}

// PTX ISA 9.0, section 9.7.14.5.15: rows of 16 bytes, aligned, in shared memory. Rows that nothing wrote may be loaded,
// since the results that come of them may be dropped; they hold NaN.
void check_matrix_row(Block& block, Fiber& fiber, const void* row, uintptr_t pc) {
  const uintptr_t p = reinterpret_cast<uintptr_t>(row), offset = p - reinterpret_cast<uintptr_t>(block.shared);
  if (offset >= block.shared_bytes || 16 > block.shared_bytes - offset) outside(block, fiber, p, 16, Access::kRead, pc);
  if (offset % 16 != 0) {
    block.failed_at[0] = pc - 1;
    fail(block, "thread %d gives load_matrix at {0} a row at byte %zu of shared memory, which is not a multiple of 16",
         fiber.thread, static_cast<size_t>(offset));
  }
  if (block.counting) touch(fiber, offset, 16, true, pc);
  if (block.check) shared_access<Access::kRead>(block, fiber, static_cast<uint32_t>(offset), 16, pc, true);
}

void begin_copy(Block& block, Fiber& fiber, const Copy& copy) {
  const uintptr_t to = reinterpret_cast<uintptr_t>(copy.to), from = reinterpret_cast<uintptr_t>(copy.from);
  const uintptr_t offset = to - reinterpret_cast<uintptr_t>(block.shared);
  if (offset >= block.shared_bytes || 16 > block.shared_bytes - offset)
    outside(block, fiber, to, 16, Access::kWrite, copy.pc);
  if (offset % 16 != 0 || from % 16 != 0) {
    block.failed_at[0] = copy.pc - 1;
    fail(block,
         "thread %d: copy_async_16 at {0} to byte %zu of shared memory, from byte %zu after a multiple of 16: both "
         "must be aligned",
         fiber.thread, static_cast<size_t>(offset), static_cast<size_t>(from % 16));
  }
  if (block.counting) {
    touch(fiber, offset, 16, true, copy.pc);
    if (copy.valid != 0) touch(fiber, from, static_cast<size_t>(copy.valid), false, copy.pc);
  }
  if (copy.valid != 0) {
    if (!arena().has(from)) outside(block, fiber, from, static_cast<size_t>(copy.valid), Access::kRead, copy.pc);
    if (block.check) global_access<Access::kRead>(block, fiber, from, static_cast<size_t>(copy.valid), copy.pc);
  }
  if (!block.check) return;
  shared_access<Access::kWrite>(block, fiber, static_cast<uint32_t>(offset), 16, copy.pc);
  for (uint32_t w = 0; w < 4; ++w) block.words[offset / 4 + w].pending = 15;
}

void end_copy(Block& block, Fiber& fiber, const Copy& copy) {
  if (block.check) {
    const auto offset = static_cast<uint32_t>(copy.to - block.shared);
    for (uint32_t w = 0; w < 4; ++w) block.words[offset / 4 + w].pending = 0;
    shared_access<Access::kWrite>(block, fiber, offset, 16, copy.pc);
    if (copy.valid != 0) {
      global_access<Access::kRead>(block, fiber, reinterpret_cast<uintptr_t>(copy.from),
                                   static_cast<size_t>(copy.valid), copy.pc);
    }
  }
  std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid));
  std::memset(copy.to + copy.valid, 0, static_cast<size_t>(16 - copy.valid));
}

}  // namespace gatun::simt

// ---- What -fsanitize=thread calls. Hidden, so that they are those of this library alone.

#define GATUN_PC reinterpret_cast<uintptr_t>(__builtin_return_address(0))
#define GATUN_HOOKS(bytes)                                                                                        \
  void __tsan_read##bytes(void* p) { gatun::simt::hook<gatun::simt::Access::kRead>(p, bytes, true, GATUN_PC); }   \
  void __tsan_write##bytes(void* p) { gatun::simt::hook<gatun::simt::Access::kWrite>(p, bytes, true, GATUN_PC); } \
  void __tsan_unaligned_read##bytes(void* p) {                                                                    \
    gatun::simt::hook<gatun::simt::Access::kRead>(p, bytes, false, GATUN_PC);                                     \
  }                                                                                                               \
  void __tsan_unaligned_write##bytes(void* p) {                                                                   \
    gatun::simt::hook<gatun::simt::Access::kWrite>(p, bytes, false, GATUN_PC);                                    \
  }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// The guard of a static in a function of the host's, beside the kernels of a file.
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
GATUN_HOOKS(1)
GATUN_HOOKS(2)
GATUN_HOOKS(4)
GATUN_HOOKS(8)
GATUN_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) {
  gatun::simt::hook<gatun::simt::Access::kRead>(p, bytes, false, GATUN_PC);
}
void __tsan_write_range(void* p, size_t bytes) {
  gatun::simt::hook<gatun::simt::Access::kWrite>(p, bytes, false, GATUN_PC);
}
}
