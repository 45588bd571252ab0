// What a launch of the activation kernels is told besides its tensors.
#pragma once

#include <cstdint>

namespace gatun::ascend {

struct ActivationTiling {
  int64_t rows, n, x_stride, out_stride;  // strides in elements
  int32_t chunk;                          // elements of a row that are in the UB at once, a multiple of 64
  int32_t activation, has_bias, reserved;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, FP32 once, and four times for the function.
inline int64_t activation_element_bytes(int64_t x_bytes, int64_t out_bytes, bool has_bias) {
  return 2 * (x_bytes + out_bytes + (has_bias ? 4 : 0)) + (1 + 4) * 4;
}

}  // namespace gatun::ascend
