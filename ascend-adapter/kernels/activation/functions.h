// The activations on vectors of FP32, from what the vector unit has: exp and division, no erf and no tanh.
//
// GELU (erf): x Phi(x) = max(x, 0) - |x| Phi(-|x|), which never cancels; the lower tail Phi(-t) of the normal distribution as
// exp(-t^2/2) times a rational function with the coefficients of native/src/cpu/math.h. GELU (tanh) and SiLU: x / (1 +
// exp(-w)), since x/2 (1 + tanh(w/2)) is the same. Where the exponential overflows the result is -0.
//
// The minimum and maximum of the vector unit may drop a NaN. What must stay NaN passes through an operation that keeps it.
#pragma once

#include "kernels/vector.h"

namespace gatun::ascend {

// GTN_ACT_* of gatun.h.
enum class Activation : int32_t { None = 0, GeluErf = 1, GeluTanh = 2, Silu = 3, Relu = 4 };

// FP32 of scratch memory that activate takes for each element.
constexpr int32_t kActivationScratch = 4;

// p = p t + coefficient.
__aicore__ inline void horner(const LocalTensor<float>& p, const LocalTensor<float>& t, float coefficient, int32_t n) {
  mul(p, p, t, n);
  adds(p, p, coefficient, n);
}

__aicore__ inline void gelu_erf(const LocalTensor<float>& x, const LocalTensor<float>& t, const LocalTensor<float>& e,
                                const LocalTensor<float>& p, const LocalTensor<float>& q, int32_t n) {
  absolute(t, x, n);
  mins(t, t, 14.5f, n);  // from there on the second term is below half the smallest denormal
  mul(e, t, t, n);
  muls(e, e, -0.5f, n);
  exponential(e, e, n);
  muls(p, t, 0.00411631027f, n);
  adds(p, p, 0.0406332426f, n);
  horner(p, t, 0.183235198f, n);
  horner(p, t, 0.438295007f, n);
  horner(p, t, 0.5f, n);
  muls(q, t, 0.0103179403f, n);
  adds(q, q, 0.101858877f, n);
  horner(q, t, 0.469470799f, n);
  horner(q, t, 1.20250332f, n);
  horner(q, t, 1.67447495f, n);
  horner(q, t, 1.0f, n);
  mul(p, p, e, n);
  div(p, p, q, n);
  mul(p, p, t, n);
  // max(x, 0) as x/2 + |x|/2, which keeps NaN.
  absolute(e, x, n);
  muls(e, e, 0.5f, n);
  muls(x, x, 0.5f, n);
  add(x, x, e, n);
  sub(x, x, p, n);
}

// x / (1 + exp(minus_w)).
__aicore__ inline void gated(const LocalTensor<float>& x, const LocalTensor<float>& minus_w, int32_t n) {
  exponential(minus_w, minus_w, n);
  adds(minus_w, minus_w, 1.0f, n);
  div(x, x, minus_w, n);
}

// x = f(x) on n elements. `scratch` has kActivationScratch parts of `part` elements, a multiple of 8.
__aicore__ inline void activate(int32_t activation, const LocalTensor<float>& x, const LocalTensor<float>& scratch,
                                int32_t part, int32_t n) {
  const LocalTensor<float> t = scratch;
  switch (static_cast<Activation>(activation)) {
    case Activation::GeluErf: {
      const uint32_t next = static_cast<uint32_t>(part);
      gelu_erf(x, t, scratch[next], scratch[2 * next], scratch[3 * next], n);
      break;
    }
    case Activation::GeluTanh:
      // w = x (c + 0.044715 c x^2), c = 2 sqrt(2/pi).
      mul(t, x, x, n);
      muls(t, t, -0.0713548163f, n);
      adds(t, t, -1.59576912f, n);
      mul(t, t, x, n);
      gated(x, t, n);
      break;
    case Activation::Silu:
      muls(t, x, -1.0f, n);
      gated(x, t, n);
      break;
    case Activation::Relu:
      // exp(-|x|) is a number unless x is none; times 0 it leaves the maximum as it is, or makes it NaN.
      absolute(t, x, n);
      muls(t, t, -1.0f, n);
      exponential(t, t, n);
      muls(t, t, 0.0f, n);
      maxs(x, x, 0.0f, n);
      add(x, x, t, n);
      break;
    default:
      break;
  }
}

}  // namespace gatun::ascend
