// Elementary functions in FP32, the same on every device: what the halves of gpu.h differ in is rounding done by hardware,
// and here there is none.
//
// Methods and coefficients are those of native/src/cpu/math.h. exp: Cody-Waite reduction to |r| <= ln2/2 and a polynomial of
// degree 6. tanh: from expm1. erf and GELU: the lower tail of the normal distribution as exp(-t^2/2) times a rational
// function, with t^2 carried in two floats; GELU and SiLU as max(x, 0) - |x| F(-|x|), which never cancels.
//
// Errors at most, in units of the last place: exp 1.2, exp2 1.2, log 2, tanh 2.6, sigmoid 2.3, erf 2.3, gelu_erf 7.5, silu 3.5;
// gelu_tanh: relative (7 + 3 |v|) 2^-24 with v its negative argument of exp. NaN propagates through all of them; results below the
// normal range round gradually. An exp is 11 operations beside the memory traffic of an element; kernels that a matrix unit
// bounds take exp2_approx.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu {

// max(x, bound) and min(x, bound) that keep a NaN in x.
GPU_DEVICE float at_least(float x, float bound) { return x < bound ? bound : x; }
GPU_DEVICE float at_most(float x, float bound) { return x > bound ? bound : x; }
GPU_DEVICE float absolute(float x) { return float_of(bits_of(x) & 0x7fffffffu); }
GPU_DEVICE float copy_sign(float x, float sign) {
  return float_of((bits_of(x) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
GPU_DEVICE float infinity() { return float_of(0x7f800000u); }
GPU_DEVICE float not_a_number() { return float_of(0x7fc00000u); }
GPU_DEVICE bool finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }

// x = n ln2 + r with n = rint(x / ln2) and |r| <= ln2/2 (a little more after rounding), for |x| below 2^21. *k is n + 1.5 2^23,
// whose low bits are n as an integer: no conversion, which would be undefined for NaN.
GPU_DEVICE float reduce_ln2(float x, float* k) {
  *k = fma(x, 1.44269504f, 0x1.8p23f);
  const float n = *k - 0x1.8p23f;
  return fma(n, -0x1.7f7d1cp-20f, fma(n, -0x1.62e4p-1f, x));
}

// q(r) with exp(r) = 1 + r + r^2 q(r) for |r| <= ln2/2.
GPU_DEVICE float exp_polynomial(float r) {
  float q = fma(r, 0.0013813976f, 0.00836903322f);
  q = fma(q, r, 0.0416683294f);
  q = fma(q, r, 0.166665182f);
  return fma(q, r, 0.49999994f);
}

GPU_DEVICE float exp_reduced(float r) { return fma(fma(exp_polynomial(r), r, 1.0f), r, 1.0f); }

// 2^(n + kBias) from the k of reduce_ln2; n + kBias must stay within -126 to 127.
template <int kBias>
GPU_DEVICE float power_of_two(float k) {
  return float_of((bits_of(k) << 23) + (static_cast<uint32_t>(127 + kBias) << 23));
}

// 2^32 exp(high + low) for -109 <= high <= 0 or NaN and |low| below 0.1. Scaled so that it is never denormal: the caller takes
// 2^-32 back in its last operation, which then rounds into the denormals once.
GPU_DEVICE float exp_scaled(float high, float low = 0.0f) {
  float k;
  const float r = reduce_ln2(high, &k) + low;
  return exp_reduced(r) * power_of_two<32>(k);
}

// exp(x) for x <= 0 or NaN: cheaper than exp, and what a softmax needs. exp(-104) is below half the smallest denormal.
GPU_DEVICE float exp_nonpositive(float x) { return exp_scaled(at_least(x, -104.0f)) * 0x1p-32f; }

GPU_DEVICE float exp(float x) {
  float k;
  const float r = reduce_ln2(at_most(at_least(x, -104.0f), 89.0f), &k);
  const float p = exp_reduced(r);
  // n runs from -150 to 128: 2^(n + 32) and then 2^-32 for negative x, the mirror image for positive x.
  return x < 0.0f ? p * power_of_two<32>(k) * 0x1p-32f : p * power_of_two<-32>(k) * 0x1p32f;
}

// 2^x. The remainder x - rint(x) is exact, and its product with ln2 keeps its rounding error as a second part.
GPU_DEVICE float exp2(float x) {
  const float y = at_most(at_least(x, -151.0f), 129.0f);
  const float k = y + 0x1.8p23f;
  const float f = y - (k - 0x1.8p23f);
  const float high = f * 0x1.62e43p-1f;
  const float low = fma(f, 0x1.62e43p-1f, -high) + f * -0x1.05c61p-29f;
  const float p = exp_reduced(high + low);
  return x < 0.0f ? p * power_of_two<32>(k) * 0x1p-32f : p * power_of_two<-32>(k) * 0x1p32f;
}


// log(x) = e ln2 + 2 atanh((m - 1) / (m + 1)) for x = 2^e m with m in [sqrt(1/2), sqrt 2), to 2 units in the last place; ln2 in two
// parts, the first times e exact. log 0 is -infinity, that of a negative number NaN.
GPU_DEVICE float log(float x) {
  if (!(x > 0.0f) || !finite(x)) return x == 0.0f ? -infinity() : x > 0.0f ? x : not_a_number();
  const bool denormal = x < 0x1p-126f;
  const uint32_t bits = bits_of(denormal ? x * 0x1p24f : x);
  // 0x3f3504f3 is sqrt(1/2): the difference in the exponent field is e.
  const uint32_t above = bits - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<int32_t>(above) >> 23) - (denormal ? 24.0f : 0.0f);
  const float m = float_of((above & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float q = fma(z, 0.222222222f, 0.285714286f);
  q = fma(q, z, 0.4f);
  q = fma(q, z, 0.666666667f);
  return fma(e, 0x1.62e4p-1f, fma(s * z, q, fma(e, 0x1.7f7d1cp-20f, 2.0f * s)));
}

// tanh |x| = -m / (2 + m) with m = expm1(-2 |x|) = 2^n expm1(r) + (2^n - 1), whose parts do not cancel.
GPU_DEVICE float tanh(float x) {
  // Past 9.02 the result rounds to 1; the bound keeps 2^n normal.
  const float y = at_least(absolute(x) * -2.0f, -40.0f);
  float k;
  const float r = reduce_ln2(y, &k);
  const float scale = power_of_two<0>(k);
  const float expm1 = fma(r * r, exp_polynomial(r), r);
  const float m = fma(scale, expm1, scale - 1.0f);
  return copy_sign(m / (m + 2.0f), x);
}

// 2^32 Phi(-t), the lower tail of the normal distribution, for 0 <= t <= 14.5 or NaN: exp(-t^2/2) P(t) / Q(t), all of whose
// coefficients are positive, so nothing cancels.
GPU_DEVICE float normal_tail_scaled(float t) {
  const float half = t * -0.5f;
  const float high = t * half;
  const float low = fma(t, half, -high);
  const float e = exp_scaled(high, low);
  float p = fma(t, 0.00411631027f, 0.0406332426f);
  float q = fma(t, 0.0103179403f, 0.101858877f);
  p = fma(p, t, 0.183235198f);
  q = fma(q, t, 0.469470799f);
  p = fma(p, t, 0.438295007f);
  q = fma(q, t, 1.20250332f);
  p = fma(p, t, 0.5f);
  q = fma(q, t, 1.67447495f);
  q = fma(q, t, 1.0f);
  return p * e / q;
}

GPU_DEVICE float erf(float x) {
  const float magnitude = absolute(x);
  if (magnitude < 0.75f) {
    const float z = x * x;
    float s = -0.0006721446989f;
    s = fma(s, z, 0.005110734142f);
    s = fma(s, z, -0.02683301456f);
    s = fma(s, z, 0.1128334776f);
    s = fma(s, z, -0.3761261702f);
    s = fma(s, z, 0.1283791661f);
    return fma(x, s, x);
  }
  const float t = at_most(magnitude * 1.41421356f, 14.5f);
  return copy_sign(fma(-0x1p-31f, normal_tail_scaled(t), 1.0f), x);
}

GPU_DEVICE float relu(float x) { return at_least(x, 0.0f); }

// |x| is bounded at a point from which on the second term is below half the smallest denormal; infinity times 0 would be NaN.
GPU_DEVICE float gelu_erf(float x) {
  const float t = at_most(absolute(x), 14.5f);
  return fma(-(t * normal_tail_scaled(t)), 0x1p-32f, relu(x));
}

GPU_DEVICE float minus_logistic_tail(float x, float t, float v) {
  const float e = exp_scaled(-v);
  return fma(-(t * e / fma(e, 0x1p-32f, 1.0f)), 0x1p-32f, relu(x));
}

// x/2 (1 + tanh(w)) = x / (1 + exp(-2 w)) with 2 w = x (c + 0.044715 c x^2), c = 2 sqrt(2/pi).
GPU_DEVICE float gelu_tanh(float x) {
  const float t = at_most(absolute(x), 10.8f);
  return minus_logistic_tail(x, t, t * fma(t * t, 0.0713548163f, 1.59576912f));
}

GPU_DEVICE float silu(float x) {
  const float t = at_most(absolute(x), 109.0f);
  return minus_logistic_tail(x, t, t);
}

// 1 / (1 + exp(-x)), for negative x as e / (1 + e).
GPU_DEVICE float sigmoid(float x) {
  const float e = exp_scaled(-at_most(absolute(x), 109.0f));
  return (x < 0.0f ? e : 0x1p32f) / fma(e, 0x1p-32f, 1.0f) * 0x1p-32f;
}

// GTN_ACT_* of gatun.h, by number so that kernels need not include it. A choice made at run time is the same for all threads.
GPU_DEVICE float activate(int activation, float x) {
  switch (activation) {
    case 1:
      return gelu_erf(x);
    case 2:
      return gelu_tanh(x);
    case 3:
      return silu(x);
    case 4:
      return relu(x);
    default:
      return x;
  }
}

}  // namespace gatun::gpu
