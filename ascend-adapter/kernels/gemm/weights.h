// What the handle of packed weights stands for. All of it is one block of the device's memory.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::ascend {

// The type of the numbers that a product of a format is of.
inline bool in_groups(int32_t format) { return format == GTN_U4 || format == GTN_U8; }
inline bool is_f8(int32_t format) { return format == GTN_F8E4M3 || format == GTN_F8E5M2; }
inline int32_t product_type(int32_t format) {
  return format == GTN_BF16_2OF4 || in_groups(format) || is_f8(format) ? GTN_BF16 : format;
}

struct Weights {
  int device;
  int32_t format;
  int64_t groups, k, n;  // groups: 0 for one matrix
  char* memory;          // b [groups, n, k]; S8: scales FP32 [groups, n] and sums int32
                         // [groups, n] after it; FP8: b BF16, and scales; U4, U8: b a byte for each integer, scales and zero points FP32 [groups, n, ceil(k / group_size)]
  int64_t group_size = 0;

  static int64_t after(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t elements() const { return columns() * k; }
  int64_t columns() const { return (groups > 0 ? groups : 1) * n; }
  int64_t b_bytes() const { return after(elements() * (format == GTN_S8 || in_groups(format) ? 1 : 2)); }
  // Numbers that follow b, twice: of columns, or of groups of integers.
  int64_t numbers() const { return format == GTN_S8 || is_f8(format) ? columns() : in_groups(format) ? columns() * of_column() : 0; }
  int64_t of_column() const { return (k + group_size - 1) / group_size; }
  const float* scales() const { return reinterpret_cast<const float*>(memory + b_bytes()); }
  const int32_t* sums() const { return reinterpret_cast<const int32_t*>(memory + b_bytes() + after(numbers() * 4)); }
  const float* zeros() const { return reinterpret_cast<const float*>(sums()); }
  int64_t bytes() const { return b_bytes() + 2 * after(numbers() * 4); }
};

}  // namespace gatun::ascend
