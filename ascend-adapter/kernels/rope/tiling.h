// What a launch of the rope kernels is told besides its tensors: one of q, k and v.
#pragma once

#include <cstdint>

#include "kernels/tiling.h"

namespace gatun::ascend {

// Elements of a head that the UB has room for. Nothing takes more of it than interleaved pairs from FP32 to FP32 with a rest as
// long as the head: two of what is read, of the angles and of what is written, three spans to compute in, and the offsets.
constexpr int64_t kRopeMaxHead = 1536;
constexpr int64_t kRopeSegmentBytes = 2 * 3 * 4 + 2 * 2 * 4 + 2 * 3 * 4 + 3 * 3 * 4 + 3 * 4;
static_assert(kRopeMaxHead % 32 == 0 && kRopeMaxHead * kRopeSegmentBytes <= kUbBytes - kUbReserve);

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
