// The 16-bit floats of the twin and the conversions of the vector and fixpipe units. Rounding modes are those of RoundMode
// in Ascend C's Cast; integers saturate and NaN becomes 0.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace gatun::twin {

enum class Rounding : uint8_t { Rint, Floor, Ceil, Round, Trunc, Odd };

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

// x to a multiple of `unit`, a power of two. The quotient of floats here is exact.
inline double round_to(double x, double unit, Rounding mode) {
  const double q = x / unit;
  switch (mode) {
    case Rounding::Rint:
      return std::nearbyint(q) * unit;
    case Rounding::Floor:
      return std::floor(q) * unit;
    case Rounding::Ceil:
      return std::ceil(q) * unit;
    case Rounding::Round:
      return std::round(q) * unit;
    case Rounding::Trunc:
      return std::trunc(q) * unit;
    case Rounding::Odd: {
      const double t = std::trunc(q);
      return (t == q || std::fmod(t, 2.0) != 0 ? t : t + std::copysign(1.0, q)) * unit;
    }
  }
  return 0;
}

// The binary float with `mantissa` stored bits and smallest normal exponent `least`, as a double.
inline double round_float(double x, int mantissa, int least, Rounding mode) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int exponent = std::ilogb(x);
  return round_to(x, std::ldexp(1.0, (exponent < least ? least : exponent) - mantissa), mode);
}

inline uint16_t half_bits(float x, Rounding mode = Rounding::Rint) {
  const uint16_t sign = static_cast<uint16_t>(bits_of(x) >> 16 & 0x8000);
  if (std::isnan(x)) return 0x7e00 | sign;
  const uint32_t u = bits_of(x) & 0x7fffffff;
  if (mode == Rounding::Rint && u >= 0x38800000 && u < 0x477ff000) {  // normal halves, and no more than the greatest
    return static_cast<uint16_t>(sign | (((u + 0xfff + (u >> 13 & 1)) >> 13) - (112 << 10)));
  }
  const double r = std::fabs(round_float(x, 10, -14, mode));
  if (r >= 65536) return 0x7c00 | sign;
  if (r < std::ldexp(1.0, -14)) return sign | static_cast<uint16_t>(std::ldexp(r, 24));
  const int exponent = std::ilogb(r);
  return static_cast<uint16_t>(sign | (exponent + 15) << 10 | (static_cast<int>(std::ldexp(r, 10 - exponent)) & 0x3ff));
}

inline float half_value(uint16_t h) {
  const float sign = h & 0x8000 ? -1.0f : 1.0f;
  const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  if (exponent > 0 && exponent < 31)
    return float_of(static_cast<uint32_t>((h & 0x8000) << 16 | (exponent + 112) << 23 | mantissa << 13));
  if (exponent == 31) return mantissa ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  return sign * std::ldexp(static_cast<float>(mantissa), -24);
}

inline uint16_t bfloat16_bits(float x, Rounding mode = Rounding::Rint) {
  if (std::isnan(x)) return static_cast<uint16_t>(bits_of(x) >> 16 | 0x40);
  if (mode == Rounding::Rint && std::isfinite(x)) {
    const uint32_t u = bits_of(x);
    return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  return static_cast<uint16_t>(bits_of(static_cast<float>(round_float(x, 7, -126, mode))) >> 16);
}

inline float bfloat16_value(uint16_t b) { return float_of(static_cast<uint32_t>(b) << 16); }

template <typename I>
I saturate(double x, Rounding mode) {
  if (std::isnan(x)) return 0;
  const double r = std::isfinite(x) ? round_to(x, 1, mode) : x;
  if (r <= static_cast<double>(std::numeric_limits<I>::min())) return std::numeric_limits<I>::min();
  if (r >= static_cast<double>(std::numeric_limits<I>::max())) return std::numeric_limits<I>::max();
  return static_cast<I>(r);
}

// What the fixpipe keeps of a scale: sign, 8 bits of exponent and the upper 10 of the mantissa.
inline float fixpipe_scale(uint64_t word) { return float_of(static_cast<uint32_t>(word) & ~uint32_t{0x1fff}); }

}  // namespace gatun::twin

// A number of 16 bits that a kernel moves and converts; scalars do no arithmetic in it here.
struct half {
  uint16_t bits;
  half() = default;
  explicit half(float x) : bits(gatun::twin::half_bits(x)) {}
  explicit operator float() const { return gatun::twin::half_value(bits); }
};
struct bfloat16_t {
  uint16_t bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float x) : bits(gatun::twin::bfloat16_bits(x)) {}
  explicit operator float() const { return gatun::twin::bfloat16_value(bits); }
};
