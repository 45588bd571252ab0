// Elementary functions on FP32 vectors, for files that are compiled once per level: exp, tanh, erf and the
// activations of gatun.h. All are lane-wise and branch-free, so a remainder vector may hold anything in its spare
// lanes.
//
// Methods. exp: Cody-Waite reduction to |r| <= ln2/2 and a polynomial of degree 6, or with AVX-512 to |r| <= ln2/32, a
// table of sixteen powers and a polynomial of degree 3 where the argument is not positive. tanh: from expm1, without
// cancellation near 0. erf and GELU: the lower tail of the normal distribution as exp(-t^2/2) times a rational
// function, with t^2 carried in two floats. Every coefficient here is a minimax fit of our own (weighted least
// squares with Lawson's weights, relative error, at 40 digits; the rational one then improved by a search over
// neighbouring floats).
//
// Errors at most, in units of the last place of the result; the tests hold them over all binades, at every level (the
// scalar one, which has no FMA, is a few tenths worse than the others). Results below the normal range round gradually.
//   exp, exp_nonpositive  1.2
//   tanh                  2.6; odd, the sign of zero kept
//   sigmoid               2.3
//   erf                   2.3; odd, the sign of zero kept
//   gelu_erf              7.5, the far negative tail included: it never cancels
//   gelu_tanh             relative error (7 + 3 |v|) 2^-24 with v = min(0, 2 sqrt(2/pi) (x + 0.044715 x^3)): the tail
//                         multiplies the rounding of its own argument
//   silu                  3.5
// NaN propagates through all of them; gelu_* and silu of -inf are 0 or -0, of +inf +inf.
//
// Four vectors in lockstep: a polynomial is a chain of dependent operations of four cycles each, and what a processor
// looks ahead (64 waiting floating-point operations on Zen 3) covers less than three such chains. So the functions that
// hot loops use are templates over V, which is one vector or `Four`, whose every operation is done on all four before
// the next begins.
#pragma once

#include <gatun/gatun.h>

#include <type_traits>

#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {

struct Four {
  VF a, b, c, e;
};

// Lane-wise operations on vectors and Fours; where they meet, a vector stands for four of itself.
namespace wide {

template <int kPart, typename X>
HWY_INLINE VF part(const X& x) {
  if constexpr (std::is_same_v<X, VF>) {
    return x;
  } else {
    return kPart == 0 ? x.a : kPart == 1 ? x.b : kPart == 2 ? x.c : x.e;
  }
}

#define GATUN_WIDE_UNARY(name, operation)                                          \
  template <typename X>                                                            \
  HWY_INLINE X name(const X& x) {                                                  \
    if constexpr (std::is_same_v<X, VF>) {                                         \
      return operation(x);                                                         \
    } else {                                                                       \
      return Four{operation(x.a), operation(x.b), operation(x.c), operation(x.e)}; \
    }                                                                              \
  }

#define GATUN_WIDE_BINARY(name, operation)                                               \
  template <typename X, typename Y>                                                      \
  HWY_INLINE auto name(const X& x, const Y& y) {                                         \
    if constexpr (std::is_same_v<X, VF> && std::is_same_v<Y, VF>) {                      \
      return operation(x, y);                                                            \
    } else {                                                                             \
      return Four{operation(part<0>(x), part<0>(y)), operation(part<1>(x), part<1>(y)),  \
                  operation(part<2>(x), part<2>(y)), operation(part<3>(x), part<3>(y))}; \
    }                                                                                    \
  }

#define GATUN_WIDE_TERNARY(name, operation)                                                                      \
  template <typename X, typename Y, typename Z>                                                                  \
  HWY_INLINE auto name(const X& x, const Y& y, const Z& z) {                                                     \
    if constexpr (std::is_same_v<X, VF> && std::is_same_v<Y, VF> && std::is_same_v<Z, VF>) {                     \
      return operation(x, y, z);                                                                                 \
    } else {                                                                                                     \
      return Four{operation(part<0>(x), part<0>(y), part<0>(z)), operation(part<1>(x), part<1>(y), part<1>(z)),  \
                  operation(part<2>(x), part<2>(y), part<2>(z)), operation(part<3>(x), part<3>(y), part<3>(z))}; \
    }                                                                                                            \
  }

GATUN_WIDE_UNARY(abs, hn::Abs)
GATUN_WIDE_UNARY(neg, hn::Neg)
GATUN_WIDE_BINARY(add, hn::Add)
GATUN_WIDE_BINARY(sub, hn::Sub)
GATUN_WIDE_BINARY(mul, hn::Mul)
GATUN_WIDE_BINARY(div, hn::Div)
GATUN_WIDE_TERNARY(mul_add, hn::MulAdd)         // x y + z
GATUN_WIDE_TERNARY(mul_sub, hn::MulSub)         // x y - z
GATUN_WIDE_TERNARY(neg_mul_add, hn::NegMulAdd)  // z - x y
GATUN_WIDE_TERNARY(where_negative, hn::IfNegativeThenElse)  // x < 0 ? y : z, by the sign

// max(x, bound) and min(x, bound) that keep a NaN in x. The x86 instructions give their second operand when either is
// NaN; elsewhere (HWY_SCALAR drops NaN) a comparison does it.
HWY_INLINE VF max_or_nan(VF bound, VF x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::Max(bound, x);
#else
  return hn::IfThenElse(hn::Lt(x, bound), bound, x);
#endif
}

HWY_INLINE VF min_or_nan(VF bound, VF x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::Min(bound, x);
#else
  return hn::IfThenElse(hn::Gt(x, bound), bound, x);
#endif
}

GATUN_WIDE_BINARY(at_least, max_or_nan)
GATUN_WIDE_BINARY(at_most, min_or_nan)

// 2^(n + kBias) from the k of reduce_ln2 below; n + kBias must stay within -126 to 127.
template <int kBias>
HWY_INLINE VF vector_power_of_two(VF k) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(du, k));
  return hn::BitCast(d, hn::Add(exponent, hn::Set(du, static_cast<uint32_t>(127 + kBias) << 23)));
}

template <int kBias, typename V>
HWY_INLINE V power_of_two(const V& k) {
  if constexpr (std::is_same_v<V, VF>) {
    return vector_power_of_two<kBias>(k);
  } else {
    return Four{vector_power_of_two<kBias>(k.a), vector_power_of_two<kBias>(k.b), vector_power_of_two<kBias>(k.c),
                vector_power_of_two<kBias>(k.e)};
  }
}

#undef GATUN_WIDE_UNARY
#undef GATUN_WIDE_BINARY
#undef GATUN_WIDE_TERNARY

}  // namespace wide

HWY_INLINE VF at_least(F32 d, VF x, float bound) { return wide::at_least(hn::Set(d, bound), x); }
HWY_INLINE VF at_most(F32 d, VF x, float bound) { return wide::at_most(hn::Set(d, bound), x); }

// x = n ln2 + r with n = rint(x / ln2) and |r| <= ln2/2 (a little more after rounding), for |x| below 2^21. `k` is n
// + 1.5 2^23, whose low bits are n as an integer: no conversion, which would be undefined for NaN.
template <typename V>
HWY_INLINE V reduce_ln2(F32 d, const V& x, V* k) {
  *k = wide::mul_add(x, hn::Set(d, 1.44269504f), hn::Set(d, 0x1.8p23f));
  const V n = wide::sub(*k, hn::Set(d, 0x1.8p23f));
  // ln2 in two parts, the first of 15 bits: n times it is exact, with FMA or without.
  const V r = wide::neg_mul_add(n, hn::Set(d, 0x1.62e4p-1f), x);
  return wide::neg_mul_add(n, hn::Set(d, 0x1.7f7d1cp-20f), r);
}

// q(r) with exp(r) = 1 + r + r^2 q(r) for |r| <= ln2/2, good to 0.06 u of exp(r).
template <typename V>
HWY_INLINE V exp_polynomial(F32 d, const V& r) {
  V q = wide::mul_add(r, hn::Set(d, 0.0013813976f), hn::Set(d, 0.00836903322f));
  q = wide::mul_add(q, r, hn::Set(d, 0.0416683294f));
  q = wide::mul_add(q, r, hn::Set(d, 0.166665182f));
  return wide::mul_add(q, r, hn::Set(d, 0.49999994f));
}

// exp(r) for |r| <= ln2/2.
template <typename V>
HWY_INLINE V exp_reduced(F32 d, const V& r) {
  const VF one = hn::Set(d, 1.0f);
  return wide::mul_add(wide::mul_add(exp_polynomial(d, r), r, one), r, one);
}

#if HWY_TARGET <= HWY_AVX3
// Where sixteen floats are a register, 2^(j/16) comes from one: the rest r, |r| <= ln2/32, takes a cubic polynomial,
// good to 0.03 u, and a chain of 11 dependent operations becomes one of 7.

// x = (16 m + j) ln2/16 + r, `k` as in reduce_ln2 with n = 16 m + j.
template <typename V>
HWY_INLINE V reduce_ln2_16(F32 d, const V& x, V* k) {
  *k = wide::mul_add(x, hn::Set(d, 0x1.715476p4f), hn::Set(d, 0x1.8p23f));
  const V n = wide::sub(*k, hn::Set(d, 0x1.8p23f));
  const V r = wide::neg_mul_add(n, hn::Set(d, 0x1.62e4p-5f), x);
  return wide::neg_mul_add(n, hn::Set(d, 0x1.7f7d1cp-24f), r);
}

// 2^(32 + n/16). The entries' bits lack the j << 19 that shifting all of n into the exponent adds too much.
HWY_INLINE VF vector_sixteenth_power(VF k) {
  alignas(64) static constexpr uint32_t kPowers[16] = {
      0x4f800000u, 0x4f7daac3u, 0x4f7b95c2u, 0x4f79c3d3u, 0x4f7837f0u, 0x4f76f532u, 0x4f75fed7u, 0x4f75583fu,
      0x4f7504f3u, 0x4f7508a4u, 0x4f75672au, 0x4f76248cu, 0x4f7744fdu, 0x4f78ccdfu, 0x4f7ac0c7u, 0x4f7d257du};
  const __m512i bits = _mm512_castps_si512(k.raw);
  const __m512i power = _mm512_permutexvar_epi32(bits, _mm512_load_si512(kPowers));
  return VF{_mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_slli_epi32(bits, 19)))};
}

// By how much of itself 2^(n/16) exceeds its rounding.
HWY_INLINE VF vector_sixteenth_rest(VF k) {
  alignas(64) static constexpr float kRests[16] = {
      0.0f, 0x1.8d96d4p-25f, -0x1.9c0c22p-27f, 0x1.964904p-25f, 0x1.125002p-25f, 0x1.370be4p-25f,
      -0x1.0a355p-25f, -0x1.00d8acp-27f, 0x1.26055cp-26f, -0x1.05cb44p-25f, 0x1.67a1cap-28f, 0x1.a3b5e4p-28f,
      -0x1.f9c304p-27f, -0x1.6961b4p-28f, -0x1.a5217cp-28f, 0x1.61428ep-28f};
  return VF{_mm512_permutexvar_ps(_mm512_castps_si512(k.raw), _mm512_load_ps(kRests))};
}

template <typename V>
HWY_INLINE V sixteenth_rest(const V& k) {
  if constexpr (std::is_same_v<V, VF>) {
    return vector_sixteenth_rest(k);
  } else {
    return Four{vector_sixteenth_rest(k.a), vector_sixteenth_rest(k.b), vector_sixteenth_rest(k.c),
                vector_sixteenth_rest(k.e)};
  }
}

template <typename V>
HWY_INLINE V sixteenth_power(const V& k) {
  if constexpr (std::is_same_v<V, VF>) {
    return vector_sixteenth_power(k);
  } else {
    return Four{vector_sixteenth_power(k.a), vector_sixteenth_power(k.b), vector_sixteenth_power(k.c),
                vector_sixteenth_power(k.e)};
  }
}

// 2^32 exp(n ln2/16 + r).
template <typename V>
HWY_INLINE V exp_from(F32 d, const V& r, const V& k) {
  V c = wide::mul_add(r, hn::Set(d, 0x1.55559ep-3f), hn::Set(d, 0x1.00022p-1f));
  c = wide::mul_add(c, r, hn::Set(d, 1.0f));
  const V expm1 = wide::mul_add(c, r, sixteenth_rest(k));
  const V power = sixteenth_power(k);
  return wide::mul_add(power, expm1, power);
}
#else
template <typename V>
HWY_INLINE V reduce_ln2_16(F32 d, const V& x, V* k) {
  return reduce_ln2(d, x, k);
}

template <typename V>
HWY_INLINE V exp_from(F32 d, const V& r, const V& k) {
  return wide::mul(exp_reduced(d, r), wide::power_of_two<32>(k));
}
#endif

// 2^32 exp(high + low) for -109 <= high <= 0 or NaN and |low| below 0.1. Scaled so that it is never denormal: the
// caller takes 2^-32 back in its last operation, which then rounds into the denormals once. (Products keep NaN;
// adding to the exponent field would not.)
template <typename V>
HWY_INLINE V exp_scaled(F32 d, const V& high, const V& low) {
  V k;
  const V r = wide::add(reduce_ln2_16(d, high, &k), low);
  return exp_from(d, r, k);
}

// 2^32 exp(x) for -109 <= x <= 0 or NaN.
template <typename V>
HWY_INLINE V exp_scaled(F32 d, const V& x) {
  V k;
  const V r = reduce_ln2_16(d, x, &k);
  return exp_from(d, r, k);
}

// exp(x) for x <= 0 or NaN: cheaper than exp, and what a softmax needs.
template <typename V>
HWY_INLINE V exp_nonpositive(F32 d, const V& x) {
  // exp(-104) is below half the smallest denormal.
  return wide::mul(exp_scaled(d, wide::at_least(hn::Set(d, -104.0f), x)), hn::Set(d, 0x1p-32f));
}

HWY_INLINE VF exp(F32 d, VF x) {
  VF k;
  // exp(-104) is below half the smallest denormal and exp(89) above the largest float.
  const VF r = reduce_ln2(d, at_most(d, at_least(d, x, -104.0f), 89.0f), &k);
  const VF p = exp_reduced(d, r);
  // n runs from -150 to 128: 2^(n + 32) and then 2^-32 for negative x, the mirror image for positive x.
  const VF scale = hn::IfNegativeThenElse(x, wide::power_of_two<32>(k), wide::power_of_two<-32>(k));
  const VF rest = hn::IfNegativeThenElse(x, hn::Set(d, 0x1p-32f), hn::Set(d, 0x1p32f));
  return hn::Mul(hn::Mul(p, scale), rest);
}

// tanh |x| = -m / (2 + m) with m = expm1(-2 |x|) = 2^n expm1(r) + (2^n - 1), whose parts do not cancel.
HWY_INLINE VF tanh(F32 d, VF x) {
  // Past 9.02 the result rounds to 1; the bound keeps 2^n normal.
  const VF y = at_least(d, hn::Mul(hn::Abs(x), hn::Set(d, -2.0f)), -40.0f);
  VF k;
  const VF r = reduce_ln2(d, y, &k);
  const VF scale = wide::power_of_two<0>(k);
  const VF expm1 = hn::MulAdd(hn::Mul(r, r), exp_polynomial(d, r), r);
  const VF m = hn::MulAdd(scale, expm1, hn::Sub(scale, hn::Set(d, 1.0f)));
  return hn::CopySign(hn::Div(m, hn::Add(m, hn::Set(d, 2.0f))), x);
}

// -t^2/2 = *high + *low, exactly but for the rounding of *low.
HWY_INLINE void half_square(F32 d, VF t, VF* high, VF* low) {
#if HWY_TARGET == HWY_SCALAR
  // Without FMA: the square of the upper 12 bits is exact, and (t - upper) (t + upper) is the rest.
  const hn::RebindToUnsigned<F32> du;
  const VF upper = hn::BitCast(d, hn::And(hn::BitCast(du, t), hn::Set(du, 0xfffff000u)));
  *high = hn::Mul(hn::Mul(upper, upper), hn::Set(d, -0.5f));
  *low = hn::Mul(hn::Mul(hn::Sub(t, upper), hn::Add(t, upper)), hn::Set(d, -0.5f));
#else
  const VF half = hn::Mul(t, hn::Set(d, -0.5f));
  *high = hn::Mul(t, half);
  *low = hn::MulSub(t, half, *high);
#endif
}

HWY_INLINE void half_square(F32 d, const Four& t, Four* high, Four* low) {
  half_square(d, t.a, &high->a, &low->a);
  half_square(d, t.b, &high->b, &low->b);
  half_square(d, t.c, &high->c, &low->c);
  half_square(d, t.e, &high->e, &low->e);
}

// 2^32 Phi(-t), the lower tail of the normal distribution, for 0 <= t <= 14.5 or NaN: exp(-t^2/2) P(t) / Q(t), all of
// whose coefficients are positive, so nothing cancels.
template <typename V>
HWY_INLINE V normal_tail_scaled(F32 d, const V& t) {
  V high, low;
  half_square(d, t, &high, &low);
  const V e = exp_scaled(d, high, low);
  V p = wide::mul_add(t, hn::Set(d, 0.00411631027f), hn::Set(d, 0.0406332426f));
  V q = wide::mul_add(t, hn::Set(d, 0.0103179403f), hn::Set(d, 0.101858877f));
  p = wide::mul_add(p, t, hn::Set(d, 0.183235198f));
  q = wide::mul_add(q, t, hn::Set(d, 0.469470799f));
  p = wide::mul_add(p, t, hn::Set(d, 0.438295007f));
  q = wide::mul_add(q, t, hn::Set(d, 1.20250332f));
  p = wide::mul_add(p, t, hn::Set(d, 0.5f));
  q = wide::mul_add(q, t, hn::Set(d, 1.67447495f));
  q = wide::mul_add(q, t, hn::Set(d, 1.0f));
  return wide::div(wide::mul(p, e), q);
}

HWY_INLINE VF erf(F32 d, VF x) {
  const VF magnitude = hn::Abs(x);
  // Below 3/4, x + x S(x^2).
  const VF z = hn::Mul(x, x);
  VF s = hn::Set(d, -0.0006721446989f);
  s = hn::MulAdd(s, z, hn::Set(d, 0.005110734142f));
  s = hn::MulAdd(s, z, hn::Set(d, -0.02683301456f));
  s = hn::MulAdd(s, z, hn::Set(d, 0.1128334776f));
  s = hn::MulAdd(s, z, hn::Set(d, -0.3761261702f));
  s = hn::MulAdd(s, z, hn::Set(d, 0.1283791661f));
  const VF small = hn::MulAdd(x, s, x);
  // Above it, 1 - 2 Phi(-sqrt(2) |x|).
  const VF t = at_most(d, hn::Mul(magnitude, hn::Set(d, 1.41421356f)), 14.5f);
  const VF large = hn::NegMulAdd(hn::Set(d, 0x1p-31f), normal_tail_scaled(d, t), hn::Set(d, 1.0f));
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.75f)), small, hn::CopySign(large, x));
}

template <typename V>
HWY_INLINE V relu(F32 d, const V& x) {
  return wide::at_least(hn::Zero(d), x);
}

// GELU and SiLU are x F(x) with F(-x) = 1 - F(x), so both are max(x, 0) - |x| F(-|x|): no cancellation for negative
// x, where the first term is 0, nor for positive x, where the second is at most half of it. |x| is bounded at a point
// from which on the second term is below half the smallest denormal; inf * 0 would be NaN. F comes scaled by 2^32,
// which the last operation takes back.
template <typename V>
HWY_INLINE V minus_tail(F32 d, const V& x, const V& scaled_tail) {
  return wide::neg_mul_add(scaled_tail, hn::Set(d, 0x1p-32f), relu(d, x));
}

// F is the normal distribution.
template <typename V>
HWY_INLINE V gelu_erf(F32 d, const V& x) {
  const V t = wide::at_most(hn::Set(d, 14.5f), wide::abs(x));
  return minus_tail(d, x, wide::mul(t, normal_tail_scaled(d, t)));
}

// F is the logistic function of v(x), and F(-|x|) = e / (1 + e) with e = exp(-|v|).
template <typename V>
HWY_INLINE V minus_logistic_tail(F32 d, const V& x, const V& t, const V& v) {
  const V e = exp_scaled(d, wide::neg(v));
  const V denominator = wide::mul_add(e, hn::Set(d, 0x1p-32f), hn::Set(d, 1.0f));
  return minus_tail(d, x, V(wide::div(wide::mul(t, e), denominator)));
}

// 1 / (1 + exp(-x)), for negative x as e / (1 + e): below the normal range it rounds once, in the last product.
template <typename V>
HWY_INLINE V sigmoid(F32 d, const V& x) {
  const V e = exp_scaled(d, wide::neg(wide::at_most(hn::Set(d, 109.0f), wide::abs(x))));
  const V denominator = wide::mul_add(e, hn::Set(d, 0x1p-32f), hn::Set(d, 1.0f));
  return wide::mul(wide::div(wide::where_negative(x, e, hn::Set(d, 0x1p32f)), denominator), hn::Set(d, 0x1p-32f));
}

// x/2 (1 + tanh(w)) = x / (1 + exp(-2 w)) with 2 w = x (c + 0.044715 c x^2), c = 2 sqrt(2/pi).
template <typename V>
HWY_INLINE V gelu_tanh(F32 d, const V& x) {
  const V t = wide::at_most(hn::Set(d, 10.8f), wide::abs(x));  // v is then at most 107.2
  const V factor = wide::mul_add(wide::mul(t, t), hn::Set(d, 0.0713548163f), hn::Set(d, 1.59576912f));
  return minus_logistic_tail(d, x, t, V(wide::mul(t, factor)));
}

template <typename V>
HWY_INLINE V silu(F32 d, const V& x) {
  const V t = wide::at_most(hn::Set(d, 109.0f), wide::abs(x));
  return minus_logistic_tail(d, x, t, t);
}

template <int kActivation, typename V>
HWY_INLINE V activate(F32 d, const V& x) {
  (void)d;
  if constexpr (kActivation == GTN_ACT_GELU_ERF) return gelu_erf(d, x);
  if constexpr (kActivation == GTN_ACT_GELU_TANH) return gelu_tanh(d, x);
  if constexpr (kActivation == GTN_ACT_SILU) return silu(d, x);
  if constexpr (kActivation == GTN_ACT_RELU) return relu(d, x);
  return x;
}

// The same for a choice made at run time; loops hoist it or use the template.
template <typename V>
HWY_INLINE V activate(F32 d, const V& x, int32_t activation) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return gelu_erf(d, x);
    case GTN_ACT_GELU_TANH:
      return gelu_tanh(d, x);
    case GTN_ACT_SILU:
      return silu(d, x);
    case GTN_ACT_RELU:
      return relu(d, x);
    default:
      return x;
  }
}

template <typename T>
HWY_INLINE Four load_four(F32 d, const T* from) {
  const size_t lanes = hn::Lanes(d);
  return Four{load(d, from), load(d, from + lanes), load(d, from + 2 * lanes), load(d, from + 3 * lanes)};
}

template <bool kPast = false, typename T>
HWY_INLINE void store_four(F32 d, const Four& value, T* to) {
  const size_t lanes = hn::Lanes(d);
  store<kPast>(d, value.a, to);
  store<kPast>(d, value.b, to + lanes);
  store<kPast>(d, value.c, to + 2 * lanes);
  store<kPast>(d, value.e, to + 3 * lanes);
}

}  // namespace gatun::cpu::GATUN_LEVEL
