#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct ActivationArgs {
  const void* x;
  const float* bias;
  void* out;
  int64_t x_stride, out_stride, rows, n;
  int64_t blocks_across;  // of a row
  int32_t activation;
};

struct ActivationKernel {
  void (*kernel)(ActivationArgs);
  int threads;
  int64_t width;  // elements of a block's tile
  int height;     // rows of it
};

// The kernel for rows of n elements. aligned: all rows begin at a multiple of 16 bytes.
ActivationKernel activation_kernel(bool x_bf16, bool out_bf16, int64_t n, bool aligned);

struct GluArgs {
  const void *gate, *x;
  void* out;
  int64_t gate_stride, x_stride, out_stride, rows, n;
  int64_t blocks_across;  // of a row
  int32_t activation;
};

struct GluKernel {
  void (*kernel)(GluArgs);
  int threads;
  int64_t width;  // elements of a block's tile
  int height;     // rows of it
};

// type: 0 FP32, 1 BF16, 2 F16.
GluKernel glu_kernel(int type, int out_type, int64_t n, bool aligned);

}  // namespace gatun::gpu
