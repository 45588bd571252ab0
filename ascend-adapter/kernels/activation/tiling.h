// What a launch of the activation kernels is told besides its tensors, and how the host cuts rows for them.
#pragma once

#include "kernels/tiling.h"

namespace gatun::ascend {

// The second operand: a bias, FP32 and one row for all, or for a gated activation what is gated, typed as x.
struct ActivationTiling {
  int64_t rows, n, x_stride, other_stride, out_stride;  // strides in elements
  int32_t chunk;                                        // elements of a row that are in the UB at once, a multiple of 64
  int32_t activation, has_other, reserved;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, FP32 of both operands, and four times for the
// function.
inline int64_t activation_element_bytes(int64_t x_bytes, int64_t other_bytes, int64_t out_bytes) {
  return 2 * (x_bytes + other_bytes + out_bytes) + (2 + 4) * 4;
}

}  // namespace gatun::ascend
