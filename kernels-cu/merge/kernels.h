#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct MergeArgs {
  const void* x;
  const float *x_lse, *sink_logits;
  void* out;
  float* lse;
  int64_t x_part, x_batch, x_token, x_head;  // strides, in elements
  int64_t x_lse_part, x_lse_batch, x_lse_head, x_lse_token;
  int64_t out_batch, out_token, out_head;
  int64_t lse_batch, lse_head, lse_token;
  int64_t parts, batch, length, heads, n;
};

struct MergeKernel {
  void (*kernel)(MergeArgs);
  int threads;
  int rows;  // of a block
};

// type: 0 FP32, 1 BF16, 2 F16. aligned: all rows of all tensors begin at a multiple of 16 bytes, and n is a multiple of 8.
MergeKernel merge_kernel(int x_type, int out_type, bool aligned);

}  // namespace gatun::gpu
