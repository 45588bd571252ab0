// How rows are cut into chunks that fit the unified buffer (UB): the host's side of the vector kernels.
#pragma once

#include <cstdint>

namespace gatun::ascend {

constexpr int64_t kUbBytes = 192 << 10;       // of a vector core, architecture 2201
constexpr int64_t kUbReserve = 8 << 10;       // for sums, scalars and what the compiler keeps there
constexpr int64_t kVectorElements = 64;       // FP32 of a vector instruction's repetition

// Elements of a chunk of rows of n, with `bytes` of buffers for each of them and `fixed` besides: all of the row, or as much as
// there is room for.
inline int32_t chunk_elements(int64_t n, int64_t bytes, int64_t fixed = 0) {
  const int64_t most = (kUbBytes - kUbReserve - fixed) / bytes / kVectorElements * kVectorElements;
  const int64_t whole = n > most ? most : (n + kVectorElements - 1) / kVectorElements * kVectorElements;
  return static_cast<int32_t>(whole > kVectorElements ? whole : kVectorElements);
}

// How many chunks so many rows of n are.
inline int64_t chunks(int64_t rows, int64_t n, int32_t chunk) { return rows * ((n + chunk - 1) / chunk); }

}  // namespace gatun::ascend
