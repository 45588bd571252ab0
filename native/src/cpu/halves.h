// BF16 and F16 as bits, to and from FP32, for code that is compiled once for all levels: packing of weights. Kernels have the
// same in simd.h, static and in each level's namespace, since no level may share a function with another.
#pragma once

#include <cstdint>
#include <cstring>

namespace gatun::cpu {

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float from_bf16(uint16_t half) { return float_of_bits(static_cast<uint32_t>(half) << 16); }

// NaN becomes quiet, as F16C makes it.
inline float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return float_of_bits(sign | 0x7f800000u | (magnitude << 13) | (magnitude > 0x7c00u ? 0x400000u : 0u));
  }
  if (magnitude >= 0x400u) return float_of_bits(sign | ((magnitude << 13) + (112u << 23)));  // the biases are 127 and 15
  return float_of_bits(sign | bits_of_float(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f));
}

// Round to nearest, ties to even; NaN stays a (quiet) NaN.
inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint16_t to_f16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x1ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal; a carry out of the largest exponent is infinity
    const uint32_t rebiased = magnitude - (112u << 23);
    half = (rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13;
  } else {
    // A step of the floats from 1/2 to 1 is 2^-24, a step of the subnormal halves: the addition rounds. The bits of 1/2
    // itself are above the lower 16.
    half = bits_of_float(float_of_bits(magnitude) + 0.5f);
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace gatun::cpu
