// What a launch of the norm kernels is told besides its tensors.
#pragma once

#include <cstdint>

namespace gatun::ascend {

struct NormTiling {
  int64_t rows, n, x_stride, out_stride;  // strides in elements; residual and sum are laid out as x
  int32_t chunk;                          // elements of a row that are in the UB at once, a multiple of 64
  int32_t has_residual, has_beta, has_sum;
  float epsilon;
  int32_t reserved;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, and FP32 twice.
inline int64_t norm_element_bytes(int64_t x_bytes, int64_t out_bytes, bool has_residual, bool has_beta, bool has_sum) {
  return 2 * (x_bytes * (1 + has_residual + has_sum) + out_bytes + 4 * (1 + has_beta)) + 2 * 4;
}

}  // namespace gatun::ascend
