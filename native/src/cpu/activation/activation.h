// Activation family, over the rows of a matrix: out = activation(x + bias), and gated: out = activation(gate) * x.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// One level's kernels. A kernel computes rows [0, rows) and columns [0, n) of what it is pointed at; bias may be
// null; out may equal x. Strides count elements. `past_caches`: FP32 out begins rows on cache lines and is too large
// for the caches. Dtype indices: 0 is FP32, 1 is BF16.
struct ActivationKernels {
  using Rows = void (*)(const void* x, int64_t x_stride, const float* bias, void* out, int64_t out_stride, int64_t rows,
                        int64_t n, bool past_caches);
  Rows rows[5][2][2];  // [GTN_ACT_*][dtype of x][dtype of out]
};

// The rows [0, rows) of a gated run. Strides count elements; out may equal gate or x. `past_caches`: as above.
struct GluRows {
  const void* gate;
  const void* x;
  void* out;
  int64_t gate_stride, x_stride, out_stride;
  int64_t rows, n;
  bool past_caches;
};

// Dtype indices: 0 is FP32, 1 is BF16, 2 is F16.
struct GluKernels {
  using Rows = void (*)(const GluRows& rows);
  Rows rows[5][3][3];  // [GTN_ACT_*][dtype of gate and x][dtype of out]
};

gtn_status activation_plan(const Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message);
gtn_status glu_plan(const Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);

}  // namespace gatun::cpu
