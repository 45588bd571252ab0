// What a launch of the softmax kernels is told besides its tensors.
#pragma once

#include <cstdint>

namespace gatun::ascend {

struct SoftmaxTiling {
  int64_t rows, n, x_stride, out_stride;  // strides in elements
  int32_t chunk;                          // elements of a row that are in the UB at once, a multiple of 64
  float scale;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, and FP32 once.
inline int64_t softmax_element_bytes(int64_t x_bytes, int64_t out_bytes) { return 2 * (x_bytes + out_bytes) + 4; }

}  // namespace gatun::ascend
