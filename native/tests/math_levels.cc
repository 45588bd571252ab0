// Compiled once per level.
#include "math_levels.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

#define GATUN_OVER_ARRAY(function)                                                                   \
  void function##_array(const float* x, float* out, int64_t n) {                                     \
    const F32 d;                                                                                     \
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));                                        \
    for (int64_t i = 0; i < n; i += lanes) hn::StoreU(function(d, hn::LoadU(d, x + i)), d, out + i); \
  }

GATUN_OVER_ARRAY(exp)
GATUN_OVER_ARRAY(exp_nonpositive)
GATUN_OVER_ARRAY(tanh)
GATUN_OVER_ARRAY(sigmoid)
GATUN_OVER_ARRAY(erf)

}  // namespace

extern const gatun::test::MathLevel math_level;
const gatun::test::MathLevel math_level = {exp_array, exp_nonpositive_array, tanh_array, sigmoid_array,
                                                 erf_array};

}  // namespace gatun::cpu::GATUN_LEVEL
