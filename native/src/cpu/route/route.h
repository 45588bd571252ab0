// Route family: which experts a token goes to, with what weights, and the order of the rows of each expert.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// Floats that rows of scratch are padded to: a vector of any level.
inline constexpr int64_t kRoutePad = 16;

// One token. The scratch rows are 64-byte aligned and hold a multiple of kRoutePad floats.
struct RouteToken {
  const void* x;      // [experts]
  const float* bias;  // [experts]; null: none
  int32_t kind;       // GTN_ROUTE_*
  int64_t experts, top, groups, top_groups;
  bool normalize;
  float scale;
  float* weights;   // [top], out
  int32_t* chosen;  // [max(top, top_groups)], scratch; the first `top` are the result, the highest first
  float* scores;    // [experts], scratch
  float* keys;      // [experts], scratch
  float* worth;     // [groups], scratch
};

// One level's kernels. Dtype indices: 0 is FP32, 1 is BF16, 2 is F16.
struct RouteKernels {
  using Token = void (*)(const RouteToken& token);
  Token token[3];  // [dtype of x]
};

gtn_status route_plan(const Device& device, const gtn_route_desc& desc, Plan** plan, gtn_plan_info* info,
                      gtn_message* message);

}  // namespace gatun::cpu
