// Norm family: h = x + residual; out = norm(h); sum = h, over the rows of a matrix.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// The rows [0, rows) of a run. Strides count elements; residual and sum lie as x does. residual, beta and sum may be
// null.
struct NormRows {
  const void* x;
  const void* residual;
  const float* gamma;
  const float* beta;
  void* out;
  void* sum;
  int64_t x_stride, out_stride;
  int64_t rows, n;
  float epsilon;
  float* scratch;    // n floats, of this worker, where h has no other place
  float* unquantized;  // n floats, of this worker, where out is quantized; else null
  float* scales;       // of each row of a quantized out, and its zero point
  int32_t* zeros;
  bool past_caches;  // FP32 out begins rows on cache lines and is too large for the caches
};

// One level's kernels. Dtype indices: 0 is FP32, 1 is BF16; a quantized out is FP32 until it is quantized.
struct NormKernels {
  using Rows = void (*)(const NormRows& rows);
  Rows layer[2][2];  // [dtype of x][dtype of out]
  Rows rms[2][2];
};

gtn_status norm_plan(const Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message);

}  // namespace gatun::cpu
