#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct FakeQuantizeArgs {
  const void* x;
  const void* gradient;        // null: forward
  const float* scales;         // of all of it, of each row, or of each column
  const int32_t* zero_points;  // likewise; null: 0
  void* out;
  int64_t x_stride, out_stride;  // the latter of gradient too
  int64_t rows, n;
  float least, most;
  int32_t of_rows, of_columns;
};

struct FakeQuantizeKernel {
  void (*kernel)(FakeQuantizeArgs);
  int elements;  // of a thread at a time
};

constexpr int kFakeQuantizeThreads = 256;

// vector: rows, and where scales are of columns those too, are whole packs aligned to 16 bytes.
FakeQuantizeKernel fake_quantize_kernel(bool x_bf16, bool out_bf16, bool vector);

}  // namespace gatun::gpu
