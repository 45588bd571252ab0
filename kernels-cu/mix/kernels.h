#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct MixArgs {
  const void* x;
  const float* gates;
  const int32_t* row_index;
  const void* residual;
  void* out;
  int64_t x_part, x_token, x_head;  // strides, in elements; with row_index, x_token is that of a row
  int64_t gate_token, gate_part, gate_head;
  int64_t out_token, out_head;
  int64_t tokens, heads, n, parts, rows_x;
  int64_t tiles;  // of a row
  int32_t gate;
};

struct MixKernel {
  void (*kernel)(MixArgs);
  int threads;
  int tasks;      // tiles of rows of a block
  int64_t width;  // elements of a tile
};

// type: 0 FP32, 1 BF16, 2 F16. aligned: all rows of all tensors begin at a multiple of 16 bytes, and n is a multiple of 8.
MixKernel mix_kernel(int x_type, int out_type, bool aligned);

}  // namespace gatun::gpu
