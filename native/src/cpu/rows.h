// What the plans of operators on the rows of a matrix have in common.
#pragma once

#include <cstdint>

#include "cpu/caches.h"

namespace gatun::cpu {

// Whether FP32 results of a run are stored past the caches, which spares reading what they overwrite: they are whole
// cache lines, are not in place, and with what they are made of would push each other out of the caches.
inline bool past_caches(const void* out, int64_t out_row_bytes, int64_t out_bytes, int64_t in_bytes) {
  return reinterpret_cast<uintptr_t>(out) % 64 == 0 && out_row_bytes % 64 == 0 && out_bytes + in_bytes > caches().last;
}

// A matrix of at least one element as tasks of operators that take each element by itself: some whole rows, or a piece of one.
// 32 KiB of FP32 in and as much out are long enough to hide the cost of handing out a task, and short enough to balance. What
// passes the caches is in longer pieces: a task ends when its last stores have arrived.
class Pieces {
 public:
  struct Piece {
    int64_t row, column, rows, n;
  };

  Pieces(int64_t rows, int64_t n, bool past_caches) : rows_(rows), n_(n) {
    const int64_t elements = past_caches ? 65536 : 8192;
    width_ = n < elements ? n : elements;
    height_ = elements / width_;  // 1 unless whole rows fit
    across_ = (n + width_ - 1) / width_;
  }

  int64_t count() const { return (rows_ + height_ - 1) / height_ * across_; }

  Piece at(int64_t task) const {
    const int64_t row = task / across_ * height_, column = task % across_ * width_;
    return {row, column, rows_ - row < height_ ? rows_ - row : height_, n_ - column < width_ ? n_ - column : width_};
  }

 private:
  const int64_t rows_, n_;
  int64_t width_, height_, across_;
};

// Rows of a task. A task is at least 32 KiB of FP32 in and as much out, long enough to hide the cost of handing it out.
// It is up to 16 times as much, since kernels work on a row and the next at once and cannot at the ends of a task, as
// long as each thread has several.
inline int64_t task_rows(int64_t rows, int64_t n, int threads) {
  constexpr int64_t kElements = 8192, kMostElements = 16 * kElements, kTasks = 8;
  const int64_t least = n < kElements ? kElements / n : 1;
  const int64_t most = n < kMostElements ? kMostElements / n : 1;
  const int64_t even = rows / (kTasks * threads);
  return even < least ? least : even > most ? most : even;
}

}  // namespace gatun::cpu
