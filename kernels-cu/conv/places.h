// Where positions of out lie, in x and in out.
#pragma once

#include "conv/kernels.h"
#include "gpu/gpu.h"

namespace gatun::gpu::conv {

// n / d, for n below 2^31.
GPU_DEVICE uint32_t quotient(uint32_t n, const Divisor& d) {
  return static_cast<uint32_t>(static_cast<uint64_t>(n) * d.factor >> d.shift);
}

// n / d, which leaves the remainder in n.
GPU_DEVICE uint32_t take(uint32_t& n, const Divisor& d) {
  const uint32_t whole = quotient(n, d);
  n -= whole * d.by;
  return whole;
}

struct Place {
  uint32_t image;
  int32_t y[3];  // of the first kernel position, which may lie outside of x
  int64_t to;    // element of out
};

GPU_DEVICE Place place_of(const Places& places, uint32_t row) {
  Place place;
  uint32_t at[3], left = row;
  GPU_UNROLL
  for (int d = 2; d >= 0; --d) {
    at[d] = left;
    left = take(at[d], places.size[d]);
  }
  place.image = left;
  place.to = left * places.to[0];
  GPU_UNROLL
  for (int d = 0; d < 3; ++d) {
    place.y[d] = static_cast<int32_t>(at[d]) * places.stride[d] - places.pad[d];
    place.to += at[d] * places.to[1 + d];
  }
  return place;
}

}  // namespace gatun::gpu::conv
