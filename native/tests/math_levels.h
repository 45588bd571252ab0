// The functions of cpu/math.h over arrays, one table per instruction-set level, so that a test can reach those that no
// operator shows by itself.
#pragma once

#include <cstdint>

namespace gatun::test {

struct MathLevel {
  using Function = void (*)(const float* x, float* out, int64_t n);  // n a multiple of 64
  Function exp, exp_nonpositive, tanh, sigmoid, erf;
};

}  // namespace gatun::test
