#pragma once

#include "backend/row_kernel.h"

namespace gatun::gpu {

struct SoftmaxArgs {
  const void* x;
  void* out;
  int64_t x_stride, out_stride, rows, n;
  float scale;
};

// The kernel for rows of n elements. aligned: all rows begin at a multiple of 16 bytes.
RowKernel<SoftmaxArgs> softmax_kernel(bool x_bf16, bool out_bf16, int64_t n, bool aligned);

}  // namespace gatun::gpu
