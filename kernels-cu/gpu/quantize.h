// Rows in 8 bits without sign: what a GEMM makes of its rows, and a norm of its results.
//
// lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255), all in FP32
// with true divisions and ties to even; s = 0 gives q = z = 0; a row with an element that is not finite, or whose hi - lo
// overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0. z may exceed 255 where s is so small (hi - lo
// below about 2^-140) that it has but a few bits.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu {

// The lowest and the highest element and 0, and whether one is not finite.
struct RowRange {
  float lo = 0.0f, hi = 0.0f;
  bool odd = false;

  GPU_DEVICE void take(float x) {
    lo = x < lo ? x : lo;
    hi = x > hi ? x : hi;
    odd = odd || !finite(x);
  }
};

struct RowGrid {
  float scale, divisor;
  int32_t zero;
  bool flat;  // all are 0

  GPU_DEVICE explicit RowGrid(const RowRange& row) {
    const float range = row.hi - row.lo;
    const bool whole = !row.odd && finite(range);
    divisor = range / 255.0f;
    flat = !whole || divisor == 0.0f;
    zero = flat ? 0 : static_cast<int32_t>(rint(-row.lo / divisor));
    scale = whole ? divisor : not_a_number();
  }

  // Not of a flat row.
  GPU_DEVICE uint32_t quantize(float x) const {
    const int32_t q = static_cast<int32_t>(rint(x / divisor)) + zero;
    return static_cast<uint32_t>(q < 0 ? 0 : q > 255 ? 255 : q);
  }
};

}  // namespace gatun::gpu
