// Mix family: gated sums, of branches, of the rows of a token's experts, or of one branch and a residual.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// A row of out: some of the parts' rows, each with its weight, which is not 0, and the residual. `out` may be the
// residual.
struct MixRow {
  const void* const* x;  // [parts]
  const float* weights;  // [parts]
  int64_t parts, n;
  const void* residual;  // null: none
  void* out;
};

// One level's kernels. Dtype indices: 0 is FP32, 1 is BF16, 2 is F16.
struct MixKernels {
  // Gates become weights, in place, by GTN_GATE_*.
  using Weigh = void (*)(int32_t gate, float* gates, int64_t n);
  using Row = void (*)(const MixRow& row);
  Weigh weigh;
  Row row[3][3];  // [dtype of x][dtype of out]
};

gtn_status mix_plan(const Device& device, const gtn_mix_desc& desc, Plan** plan, gtn_plan_info* info,
                    gtn_message* message);

}  // namespace gatun::cpu
