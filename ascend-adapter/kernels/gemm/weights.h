// What the handle of packed weights stands for. All of it is one block of the device's memory.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::ascend {

struct Weights {
  int device;
  int32_t format;
  int64_t k, n;
  char* memory;  // b [n, k]; S8: scales FP32 [n] and sums int32 [n] after it

  static int64_t after(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t b_bytes() const { return after(n * k * (format == GTN_S8 ? 1 : 2)); }
  const float* scales() const { return reinterpret_cast<const float*>(memory + b_bytes()); }
  const int32_t* sums() const { return reinterpret_cast<const int32_t*>(memory + b_bytes() + after(n * 4)); }
  int64_t bytes() const { return b_bytes() + (format == GTN_S8 ? 2 * after(n * 4) : 0); }
};

}  // namespace gatun::ascend
