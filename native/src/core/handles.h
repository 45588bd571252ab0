// Handles: 64-bit names for objects, so that a closed object is detected and never followed.
//
// A handle is | generation (32 bits) | kind (4) | slot index (28) |. Slots are never freed, so a handle of any age can be
// looked at safely; the slot's generation says whether its object is still the one meant. The two low bits of a generation
// are the slot's state, and the rest counts the objects that the slot has had.
//
// Closing against running, without a lock on the running side. A run marks, in its stream's slot, the plan and the weights
// that it uses (one compare-and-swap), and then looks at their generations. A close marks the generation, and then looks at
// the streams. Both are sequentially consistent, so at least one of the two sees the other: either the run finds the object
// closing and waits for the verdict, or the close finds the run inside and is refused.
#pragma once

#include <gatun/gatun.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace gatun {

enum class Kind : uint32_t { kDevice = 1, kStream = 2, kEvent = 3, kPlan = 4, kWeights = 5 };

struct alignas(64) Slot {
  static constexpr uint32_t kOpen = 0, kClosing = 1, kFree = 2, kStateMask = 3, kStep = 4;
  // Marks of `hold`. A stream is held by one run (kHeld with the plan and weights inside); every other object by any number
  // of calls at once, which the low bits count. Either way 0 means that nobody is inside.
  static constexpr uint64_t kHeld = uint64_t{1} << 63;

  std::atomic<uint32_t> generation{kFree};
  uint32_t next_free = 0;  // index + 1 of the next slot of the free list
  std::atomic<uint64_t> hold{0};
  void* object = nullptr;
};

class HandleTable {
 public:
  explicit constexpr HandleTable(Kind kind) : kind_(kind) {}
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;

  // A handle for `object`, or 0 when memory or handles are out.
  uint64_t open(void* object);

  // The slot that the handle names, or null when there is none such. The caller compares generations.
  Slot* slot(uint64_t handle) const {
    uint32_t low = static_cast<uint32_t>(handle);
    uint32_t index = low & kIndexMask;
    if (low >> kIndexBits != static_cast<uint32_t>(kind_) || index >= kChunks * kChunkSlots) return nullptr;
    Slot* chunk = chunks_[index / kChunkSlots].load(std::memory_order_acquire);
    return chunk == nullptr ? nullptr : &chunk[index % kChunkSlots];
  }

  static uint32_t generation(uint64_t handle) { return static_cast<uint32_t>(handle >> 32); }
  static uint32_t index(uint64_t handle) { return static_cast<uint32_t>(handle) & kIndexMask; }

  // Gives the slot back. Its generation must be kClosing, and nobody may be inside.
  void release(Slot* slot, uint64_t handle);

  // Calls visit(slot) for each slot that has ever been used.
  template <typename Visit>
  void for_each(Visit visit) const {
    uint32_t used = used_.load(std::memory_order_seq_cst);
    for (uint32_t i = 0; i < used; ++i) visit(chunks_[i / kChunkSlots].load(std::memory_order_acquire)[i % kChunkSlots]);
  }

 private:
  static constexpr uint32_t kIndexBits = 28, kIndexMask = (1u << kIndexBits) - 1;
  static constexpr uint32_t kChunkSlots = 256, kChunks = 4096;

  const Kind kind_;
  std::mutex mutex_;
  std::atomic<uint32_t> used_{0};
  uint32_t free_ = 0;
  std::atomic<Slot*> chunks_[kChunks] = {};
};

// A call inside an object that many may use at once: while it lives, the object cannot be closed.
class Inside {
 public:
  Inside(const HandleTable& table, uint64_t handle);
  ~Inside() {
    if (slot_ != nullptr) slot_->hold.fetch_sub(1, std::memory_order_seq_cst);
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  explicit operator bool() const { return slot_ != nullptr; }
  template <typename T>
  T& object() const {
    return *static_cast<T*>(slot_->object);
  }

 private:
  Slot* slot_ = nullptr;
};

// Waits out a close under way and says whether `slot` still holds the object that `handle` means. To be asked only after a
// mark that the closing side looks at.
inline bool still_open(const Slot& slot, uint64_t handle) {
  const uint32_t expected = HandleTable::generation(handle);
  for (;;) {
    uint32_t now = slot.generation.load(std::memory_order_seq_cst);
    if (now == expected) return (expected & Slot::kStateMask) == Slot::kOpen;
    if (now != (expected | Slot::kClosing)) return false;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

}  // namespace gatun
