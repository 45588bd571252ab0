// What the plans of the GPU kernels are made of.
#pragma once

#include "accelerator/backend.h"

namespace gatun::gpu {

// Fills info->kernel with "<backend>.<arch>.<rest>", as "cuda.sm_90.norm.rms.bf16".
void name_kernel(gtn_plan_info* info, const Device& device, const char* rest);

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// The product, or more than there is memory for: sums of a few of them do not overflow.
inline int64_t times(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) || product > INT64_MAX / 64 ? INT64_MAX / 64 : product;
}

// The place of a float type in a table of kernels.
inline int type_index(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }

}  // namespace gatun::gpu
