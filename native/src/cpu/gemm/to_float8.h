// Weights of floating point as FP8, what every backend packs: scale = amax / 448 (E4M3) or amax / 57344 (E5M2) of each output
// channel, and numbers w / scale, rounded to nearest, ties to even, within the largest; where the scale is 0 (amax = 0, or so small
// that it is), numbers are 0.
#pragma once

#include <gatun/gatun.h>

#include <cmath>
#include <cstdint>

#include "cpu/halves.h"

namespace gatun::cpu {

struct ToFloat8 {
  int mantissa, bias;
  float most;

  explicit ToFloat8(int32_t format)
      : mantissa(format == GTN_F8E4M3 ? 3 : 2), bias(format == GTN_F8E4M3 ? 7 : 15), most(format == GTN_F8E4M3 ? 448.0f : 57344.0f) {}

  // Of a weight, with the scale of its channel.
  uint8_t number(float weight, float scale) const {
    if (scale == 0.0f) return 0;
    float value = weight / scale;
    value = value > most ? most : value < -most ? -most : value;
    const uint32_t bits = bits_of_float(value);
    const uint32_t sign = bits >> 31 << 7;
    const int least = 1 - bias;
    int exponent = static_cast<int>(bits >> 23 & 0xff) - 127;
    if (exponent < least) exponent = least;
    // In steps of 2^(exponent - mantissa), by adding 1.5 * 2^23, which rounds.
    const float per_step = float_of_bits(static_cast<uint32_t>(127 + mantissa - exponent) << 23);
    const float steps = (std::fabs(value) * per_step + 12582912.0f) - 12582912.0f;
    return static_cast<uint8_t>(sign + (static_cast<uint32_t>(exponent - least) << mantissa) + static_cast<uint32_t>(steps));
  }
};

// Whether a number that comes packed is NaN in E4M3, which has no infinities.
inline bool is_nan_e4m3(uint8_t number) { return (number & 0x7f) == 0x7f; }

}  // namespace gatun::cpu
