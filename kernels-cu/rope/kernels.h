#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

// One of q, k and v: where its rows come from and go to. Strides are in elements.
struct RopePart {
  const void* x;
  void* out;
  float* scales;  // of S8: [rows of the cache, heads]
  int64_t x_token, x_head;
  int64_t out_page, out_row, out_head;  // q: a page of one row for each token
  int64_t heads, n, rotary;
  int64_t tasks;  // of a token
  int32_t cached;
};

struct RopeArgs {
  const int64_t *positions, *slots;
  const float* table;
  int64_t tokens, max_position, rotary, page_size, rows;  // rows of the cache
  int64_t tasks;                                          // of a token, all parts together
  int32_t interleaved, parts;
  RopePart part[3];
};

// Heads of a token that a warp takes at once.
constexpr int kRopeHeads = 4;

struct RopeKernel {
  void (*kernel)(RopeArgs);
  int threads;
  int tasks;  // of a block
};

// type: 0 FP32, 1 BF16, 2 F16; out_type also 3, S8. paired: all rows begin at a multiple of two of their elements, as does their
// second half.
RopeKernel rope_kernel(int x_type, int out_type, bool paired);

}  // namespace gatun::gpu
