// What a launch of the kernels for gated activations is told besides its tensors.
#pragma once

#include <cstdint>

namespace gatun::ascend {

struct GluTiling {
  int64_t rows, n, gate_stride, x_stride, out_stride;  // strides in elements
  int32_t chunk;                                       // elements of a row that are in the UB at once, a multiple of 64
  int32_t activation;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, FP32 of both factors, and four times for the
// function.
inline int64_t glu_element_bytes(int64_t x_bytes, int64_t out_bytes) { return 2 * (2 * x_bytes + out_bytes) + (2 + 4) * 4; }

}  // namespace gatun::ascend
