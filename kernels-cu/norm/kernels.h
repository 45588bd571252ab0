#pragma once

#include "backend/row_kernel.h"

namespace gatun::gpu {

struct NormArgs {
  const void *x, *residual;
  const float *gamma, *beta;
  void *out, *sum;
  int64_t x_stride, out_stride, rows, n;
  float epsilon;
};

// The kernel for rows of n elements. aligned: all rows begin at a multiple of 16 bytes.
RowKernel<NormArgs> norm_kernel(bool layer, bool x_bf16, bool out_bf16, int64_t n, bool aligned);

}  // namespace gatun::gpu
