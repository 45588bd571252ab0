// Softmax family: out = softmax(scale * x) over the rows of a matrix.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// The rows [0, rows) of a run, at least one, of at least one element. Strides count elements; out may equal x.
struct SoftmaxRows {
  const void* x;
  void* out;
  int64_t x_stride, out_stride;
  int64_t rows, n;
  float scale;
  float* scratch;    // n floats, of this worker
  bool past_caches;  // FP32 out begins rows on cache lines and is too large for the caches
};

// One level's kernels. Dtype indices: 0 is FP32, 1 is BF16.
struct SoftmaxKernels {
  using Rows = void (*)(const SoftmaxRows& rows);
  Rows rows[2][2];  // [dtype of x][dtype of out]
};

gtn_status softmax_plan(const Device& device, const gtn_softmax_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message);

}  // namespace gatun::cpu
