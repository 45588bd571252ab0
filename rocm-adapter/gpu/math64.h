// The few functions in FP64 that kernels take, for a device whose compiler comes without a library of them. They serve one
// number of a list each, so they are short rather than fast: errors below 8 units of the last place in the ranges that are
// named.
#pragma once

#include <stdint.h>

namespace gatun::gpu::math64 {

GPU_DEVICE double scale_by_power(double x, int n) {
  return x * __builtin_bit_cast(double, static_cast<uint64_t>(1023 + n) << 52);
}

// log(x) = e ln2 + 2 atanh(s), s = (m - 1) / (m + 1), for positive normal x = 2^e m with m in [sqrt(1/2), sqrt 2); -infinity
// for 0.
GPU_DEVICE double logarithm(double x) {
  if (!(x > 0.0)) return x == 0.0 ? -__builtin_inf() : __builtin_nan("");
  const uint64_t above = __builtin_bit_cast(uint64_t, x) - 0x3fe6a09e667f3bcdu;  // sqrt(1/2)
  const double e = static_cast<double>(static_cast<int64_t>(above) >> 52);
  const double m = __builtin_bit_cast(double, (above & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double q = 0.0;
  for (int k = 21; k >= 3; k -= 2) q = __builtin_fma(q, z, 2.0 / k);
  return __builtin_fma(e, 0x1.62e42fefa3800p-1, __builtin_fma(s * z, q, __builtin_fma(e, 0x1.ef35793c76730p-45, 2.0 * s)));
}

// exp(x) for -700 <= x <= 700; 0 below.
GPU_DEVICE double exponential(double x) {
  if (x < -700.0) return 0.0;
  const double n = __builtin_rint(x * 0x1.71547652b82fep+0);
  const double r = __builtin_fma(n, -0x1.ef35793c76730p-45, __builtin_fma(n, -0x1.62e42fefa3800p-1, x));
  double q = 1.0;
  for (int k = 14; k >= 1; --k) q = __builtin_fma(q, r / k, 1.0);
  return scale_by_power(q, static_cast<int>(n));
}

// Both by the quotient of two errors that cancel: Goldberg 1991, theorem 4, for log(1 + x); and its counterpart for exp(x) - 1,
// x <= 700.
GPU_DEVICE double log_1_plus(double x) {
  const double u = 1.0 + x;
  return u == 1.0 ? x : u == 0.0 ? -__builtin_inf() : logarithm(u) * (x / (u - 1.0));
}
GPU_DEVICE double exp_less_1(double x) {
  const double u = exponential(x);
  if (u == 1.0) return x;
  return u < 0x1p-54 ? -1.0 : (u - 1.0) * (x / logarithm(u));
}

// For 0 <= t <= 1: three times half of the angle, whose tangent is t / (1 + sqrt(1 + t^2)), and the series.
GPU_DEVICE double arc_tangent(double t) {
  for (int i = 0; i < 3; ++i) t = t / (1.0 + __builtin_sqrt(__builtin_fma(t, t, 1.0)));
  const double z = t * t;
  double q = 0.0;
  for (int k = 19; k >= 3; k -= 2) q = __builtin_fma(q, -z, 1.0 / k);
  return 8.0 * __builtin_fma(-z * t, q, t);
}

// For -1 <= x <= 1: twice the angle whose tangent is sqrt((1 - x) / (1 + x)).
GPU_DEVICE double arc_cosine(double x) {
  constexpr double kPi = 3.14159265358979323846;
  const double t = __builtin_sqrt((1.0 - (x < 0.0 ? -x : x)) / (1.0 + (x < 0.0 ? -x : x)));
  const double angle = 2.0 * arc_tangent(t);
  return x < 0.0 ? kPi - angle : angle;
}

}  // namespace gatun::gpu::math64
