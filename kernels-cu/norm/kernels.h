#pragma once

#include "backend/row_kernel.h"

namespace gatun::gpu {

struct NormArgs {
  const void *x, *residual;
  const float *gamma, *beta;
  void *out, *sum;
  float* scales;  // of each row of a quantized out, and its zero point
  int32_t* zeros;
  int64_t x_stride, out_stride, rows, n;
  float epsilon;
};

// The kernel for rows of n elements. out_dtype: GTN_F32, GTN_BF16 or GTN_U8. aligned: all rows begin at a multiple of 16 bytes.
RowKernel<NormArgs> norm_kernel(bool layer, bool x_bf16, int32_t out_dtype, int64_t n, bool aligned);

}  // namespace gatun::gpu
