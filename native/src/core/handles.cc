#include "core/handles.h"

#include <new>

namespace gatun {

uint64_t HandleTable::open(void* object) {
  std::lock_guard<std::mutex> lock(mutex_);
  uint32_t index;
  if (free_ != 0) {
    index = free_ - 1;
    free_ = chunks_[index / kChunkSlots].load(std::memory_order_relaxed)[index % kChunkSlots].next_free;
  } else {
    index = used_.load(std::memory_order_relaxed);
    if (index == kChunks * kChunkSlots) return 0;
    if (index % kChunkSlots == 0) {
      Slot* chunk = new (std::nothrow) Slot[kChunkSlots];
      if (chunk == nullptr) return 0;
      chunks_[index / kChunkSlots].store(chunk, std::memory_order_release);
    }
    used_.store(index + 1, std::memory_order_seq_cst);  // before the mark of any run, so that a close sees it
  }
  Slot& slot = chunks_[index / kChunkSlots].load(std::memory_order_relaxed)[index % kChunkSlots];
  slot.object = object;
  uint32_t generation = (slot.generation.load(std::memory_order_relaxed) & ~Slot::kStateMask) + Slot::kStep;
  slot.generation.store(generation | Slot::kOpen, std::memory_order_seq_cst);
  return (uint64_t{generation} << 32) | (static_cast<uint32_t>(kind_) << kIndexBits) | index;
}

void HandleTable::release(Slot* slot, uint64_t handle) {
  std::lock_guard<std::mutex> lock(mutex_);
  uint32_t generation = slot->generation.load(std::memory_order_relaxed) & ~Slot::kStateMask;
  slot->object = nullptr;
  slot->generation.store(generation | Slot::kFree, std::memory_order_seq_cst);
  // A slot whose generations are used up is retired, so that no handle ever means two objects.
  if (generation <= UINT32_MAX - 2 * Slot::kStep) {
    slot->next_free = free_;
    free_ = index(handle) + 1;
  }
}

Inside::Inside(const HandleTable& table, uint64_t handle) {
  Slot* slot = table.slot(handle);
  if (slot == nullptr) return;
  slot->hold.fetch_add(1, std::memory_order_seq_cst);
  if (still_open(*slot, handle)) {
    slot_ = slot;
  } else {
    slot->hold.fetch_sub(1, std::memory_order_seq_cst);
  }
}

}  // namespace gatun
