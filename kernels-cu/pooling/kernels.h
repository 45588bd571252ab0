#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

// Sizes by spatial dimension, of which there are three: those that an image does not have are in front, of size and kernel 1.
struct PoolingArgs {
  const void* x;
  void* out;
  int64_t outputs;  // elements of out
  int64_t channels;
  int64_t size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
  int64_t x_strides[5], out_strides[5];  // elements: batch, channels, spatial
  float positions;  // of a window
  int32_t average, count_padding;
  int32_t within;  // 1: neighbouring threads have neighbouring channels; 0: neighbouring positions
};

struct PoolingKernel {
  void (*kernel)(PoolingArgs);
  int threads;
  int outputs;  // of a block
};

// type: 0 FP32, 1 BF16, 2 F16. team: a warp has an output, else a thread.
PoolingKernel pooling_kernel(int x_type, int out_type, bool team);

}  // namespace gatun::gpu
