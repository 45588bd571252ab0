// How a run divides a stream's scratch memory.
#pragma once

#include <cstdint>

namespace gatun::cpu {

// Sizes are products of what a caller says: one that does not fit is as good as one that memory does not hold.
inline int64_t times(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

// Hands out memory from its start, every piece on a cache line; without memory, it finds how much is needed.
class Workspace {
 public:
  explicit Workspace(char* memory) : memory_(memory) {}

  template <typename T>
  T* take(int64_t count) {
    if (count <= 0) return nullptr;
    T* result = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    if (count > (kTooMuch - used_) / static_cast<int64_t>(sizeof(T)) - 64) {
      used_ = kTooMuch;  // the allocation will say so
    } else {
      used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    }
    return result;
  }

  char* memory() const { return memory_; }
  int64_t used() const { return used_; }

 private:
  static constexpr int64_t kTooMuch = INT64_MAX / 4;

  char* memory_;
  int64_t used_ = 0;
};

}  // namespace gatun::cpu
