// Softmax family: out = softmax(scale * x) over the rows of a matrix.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// One level's kernels. A kernel computes rows [0, rows); out may equal x. Strides count elements. `scratch` holds n
// floats, and is used only where out is BF16. Dtype indices: 0 is FP32, 1 is BF16.
struct SoftmaxKernels {
  using Rows = void (*)(float scale, const void* x, int64_t x_stride, void* out, int64_t out_stride, int64_t rows,
                        int64_t n, float* scratch);
  Rows rows[2][2];  // [dtype of x][dtype of out]
};

gtn_status softmax_plan(const Device& device, const gtn_softmax_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message);

}  // namespace gatun::cpu
