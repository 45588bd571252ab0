// Rope family: rotary position embedding of queries and keys, and the append of keys and values to a cache.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// The heads of one token, of queries, keys or values: the pointers are to the first head, strides count elements. `out`
// may be x where dtypes and strides match.
struct RopeHeads {
  const void* x;
  int64_t x_stride;
  void* out;
  int64_t out_stride;
  float* scales;         // of each head, where out is S8
  const float* angles;   // the token's, of RopeKernels::angles; unused where rotary is 0
  int64_t heads, n;      // n is the head size
  int64_t rotary;        // the leading elements that are rotated; the others are copied
  float* scratch;        // n floats, where out is S8
};

// One level's kernels. Styles: 0 is GTN_ROPE_HALVES, 1 is GTN_ROPE_INTERLEAVED. Dtype indices: 0 is FP32, 1 is BF16, 2
// is F16, 3 is S8.
struct RopeKernels {
  // What a token's heads need of its row of the table, [rotary / 2 cosines, as many sines]: [rotary] cosines, one for
  // each element, and [rotary] sines, those of even elements negative, for the interleaved style. (The other takes the
  // row itself.)
  using Angles = void (*)(const float* row, int64_t rotary, float* angles);
  using Heads = void (*)(const RopeHeads& heads);
  Angles angles;
  Heads heads[2][3][4];  // [style][dtype of x][dtype of out]
};

gtn_status rope_plan(const Device& device, const gtn_rope_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message);

}  // namespace gatun::cpu
