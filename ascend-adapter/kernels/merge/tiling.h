// What a launch of the merge kernels is told besides its tensors.
#pragma once

#include <cstdint>

namespace gatun::ascend {

// Log-sum-exps of a row that the UB has room for.
constexpr int64_t kMergeMaxParts = 1024;

struct MergeTiling {
  int64_t parts, batch, length, heads, n;
  int64_t x_part, x_batch, x_token, x_head;  // strides, in elements
  int64_t x_lse_part, x_lse_batch, x_lse_head, x_lse_token;
  int64_t out_batch, out_token, out_head;
  int64_t lse_batch, lse_head, lse_token;
  int32_t chunk;  // elements of a row that are in the UB at once, a multiple of 64
  int32_t has_sink_logits, has_lse, reserved;
};

// Bytes of buffers for an element of a chunk: two of each tensor that is moved, and FP32 twice.
inline int64_t merge_element_bytes(int64_t x_bytes, int64_t out_bytes) { return 2 * (x_bytes + out_bytes) + 2 * 4; }

// Bytes of buffers besides: log-sum-exps and weights.
constexpr int64_t kMergeBytes = 2 * kMergeMaxParts * 4;

}  // namespace gatun::ascend
