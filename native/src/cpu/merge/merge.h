// Merge family: attention over parts of the keys, put together by the log-sum-exps of the parts.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// Rows of x, that is pairs of a token and a head, whose weights are computed together.
inline constexpr int64_t kMergeRows = 128;

// Some tokens of one sequence and some of its heads, at most kMergeRows pairs: the pointers are to the first of both,
// strides count elements. `out` may be the first part of x, and `lse` that of x_lse.
struct MergeTile {
  const void* x;
  int64_t x_part, x_token, x_head;
  const float* x_lse;
  int64_t x_lse_part, x_lse_token, x_lse_head;
  const float* sink_logits;  // null: none
  void* out;
  int64_t out_token, out_head;
  float* lse;  // null: not wanted
  int64_t lse_token, lse_head;
  int64_t parts, tokens, heads, n;  // n is the head size
  float* weights;                   // scratch, [parts, kMergeRows], 64-byte aligned
};

// One level's kernels. Dtype indices: 0 is FP32, 1 is BF16, 2 is F16.
struct MergeKernels {
  using Tile = void (*)(const MergeTile& tile);
  Tile tile[3][3];  // [dtype of x][dtype of out]
};

gtn_status merge_plan(const Device& device, const gtn_merge_desc& desc, Plan** plan, gtn_plan_info* info,
                      gtn_message* message);

}  // namespace gatun::cpu
