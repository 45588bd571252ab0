// What a launch of the rope kernels is told besides its tensors: one of q, k and v.
#pragma once

#include <cstdint>

namespace gatun::ascend {

// Elements of a head that the UB has room for.
constexpr int64_t kRopeMaxHead = 2048;

struct RopeTiling {
  int64_t tokens, heads, n;
  int64_t x_token, x_head;             // strides, in elements
  int64_t out_page, out_row, out_head; // q: a page of one row for each token
  int64_t page_size, rows;             // of the cache
  int64_t max_position, table_row;     // of the table
  int32_t half;                        // pairs of a head that are rotated; 0: it is copied
  int32_t segment;                     // elements that each half and the rest of a head have room for, a multiple of 32
  int32_t interleaved, cached, has_slots, reserved;
};

}  // namespace gatun::ascend
