// What the handle of packed weights stands for. All of it is one block of the device's memory.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::ascend {

struct Weights {
  int device;
  int32_t format;
  int64_t groups, k, n;  // groups: 0 for one matrix
  char* memory;          // b [groups, n, k]; S8: scales FP32 [groups, n] and sums int32 [groups, n] after it

  static int64_t after(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t columns() const { return (groups > 0 ? groups : 1) * n; }
  int64_t b_bytes() const { return after(columns() * k * (format == GTN_S8 ? 1 : 2)); }
  const float* scales() const { return reinterpret_cast<const float*>(memory + b_bytes()); }
  const int32_t* sums() const { return reinterpret_cast<const int32_t*>(memory + b_bytes() + after(columns() * 4)); }
  int64_t bytes() const { return b_bytes() + (format == GTN_S8 ? 2 * after(columns() * 4) : 0); }
};

}  // namespace gatun::ascend
