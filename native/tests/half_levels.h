// The loads and stores of 16-bit floats in cpu/simd.h over arrays, one table per instruction-set level, so that a test
// can give them every bit pattern.
#pragma once

#include <cstdint>

namespace gatun::test {

struct HalfLevel {
  using Widen = void (*)(const uint16_t* x, float* out, int64_t n);   // n a multiple of 64
  using Narrow = void (*)(const float* x, uint16_t* out, int64_t n);  // n a multiple of 64
  struct Type {
    Widen load, to_float, load_some;
    Narrow store, from_float, store_some;
  };
  Type bf16, f16;
};

}  // namespace gatun::test
