// Fake quantization over the rows of a matrix, and its straight-through gradient.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// The rows [0, rows) of a run. Strides count elements; out may equal x or gradient. `past_caches`: FP32 out begins rows on cache
// lines and is too large for the caches.
struct FakeQuantizeRows {
  const void* x;
  const void* gradient;        // null: forward
  const float* scales;         // of all of it, of each row, or of each column
  const int32_t* zero_points;  // likewise; null: 0
  void* out;
  int64_t x_stride, out_stride;  // the latter of gradient too
  int64_t rows, n;
  float least, most;
  bool of_rows;
  bool past_caches;
};

// Dtype indices: 0 is FP32, 1 is BF16.
struct FakeQuantizeKernels {
  using Rows = void (*)(const FakeQuantizeRows& rows);
  Rows rows[2][2][2][2];  // [scales of columns][gradient][dtype of x][dtype of out]
};

gtn_status fake_quantize_plan(const Device& device, const gtn_fake_quantize_desc& desc, Plan** plan, gtn_plan_info* info,
                              gtn_message* message);

}  // namespace gatun::cpu
