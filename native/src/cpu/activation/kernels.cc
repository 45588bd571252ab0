// Bias and activation over rows: out = f(x + bias), f of cpu/math.h. Compiled once per level.
//
// Bytes: every element is read once and written once, 8 bytes of FP32. FLOPs: 50 an element for GELU (erf) down to 1
// for ReLU. What binds it: memory once the data leave the L2 cache; in the caches GELU (erf) is bound by its 50
// operations and a division, 2.5 cycles an element with AVX2 on Zen 3.
//
// Rows are taken in four vectors at a time, so that four independent chains of polynomial steps are under way. The last
// vector of a row overlaps the one before: it is loaded before anything is written, which makes it right in place too.
// Limits: rows shorter than a vector go element by element into and out of a buffer.
#include "cpu/activation/activation.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

template <int kActivation, bool kBias, typename X>
HWY_INLINE VF compute(F32 d, const X* x, const float* bias) {
  VF v = load(d, x);
  if constexpr (kBias) v = hn::Add(v, hn::LoadU(d, bias));
  return activate<kActivation>(d, v);
}

template <int kActivation, bool kBias, bool kPast, typename X, typename Y>
HWY_INLINE void one_row(const X* x, const float* bias, Y* out, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (n < lanes) {
    const size_t count = static_cast<size_t>(n);
    VF v = load_some(d, x, count, 0.0f);
    if constexpr (kBias) v = hn::Add(v, load_some(d, bias, count, 0.0f));
    store_some(d, activate<kActivation>(d, v), out, count);
    return;
  }
  const int64_t last = n - lanes;
  const VF end = compute<kActivation, kBias>(d, x + last, kBias ? bias + last : nullptr);
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    prefetch<4>(d, x + i);
    Four v = load_four(d, x + i);
    if constexpr (kBias) v = wide::add(v, load_four(d, bias + i));
    store_four<kPast>(d, activate<kActivation>(d, v), out + i);
  }
  for (; i <= last; i += lanes) {
    store<kPast>(d, compute<kActivation, kBias>(d, x + i, kBias ? bias + i : nullptr), out + i);
  }
  if (i < n) store(d, end, out + last);
}

template <int kActivation, bool kPast, typename X, typename Y>
void rows_with(const void* x, int64_t x_stride, const float* bias, void* out, int64_t out_stride, int64_t rows,
               int64_t n) {
  const X* from = static_cast<const X*>(x);
  Y* to = static_cast<Y*>(out);
  for (int64_t r = 0; r < rows; ++r) {
    if (bias != nullptr) {
      one_row<kActivation, true, kPast>(from + r * x_stride, bias, to + r * out_stride, n);
    } else {
      one_row<kActivation, false, kPast>(from + r * x_stride, bias, to + r * out_stride, n);
    }
  }
  if constexpr (kPast) hwy::FlushStream();
}

template <int kActivation, typename X, typename Y>
void rows_of(const void* x, int64_t x_stride, const float* bias, void* out, int64_t out_stride, int64_t rows,
             int64_t n, bool past_caches) {
  if constexpr (sizeof(Y) == sizeof(float)) {
    if (past_caches) return rows_with<kActivation, true, X, Y>(x, x_stride, bias, out, out_stride, rows, n);
  }
  rows_with<kActivation, false, X, Y>(x, x_stride, bias, out, out_stride, rows, n);
}

}  // namespace

#define GATUN_ROWS(activation)                                               \
  {                                                                          \
    {rows_of<activation, float, float>, rows_of<activation, float, bf16>}, { \
      rows_of<activation, bf16, float>, rows_of<activation, bf16, bf16>      \
    }                                                                        \
  }

extern const ActivationKernels activation_kernels;
const ActivationKernels activation_kernels = {{GATUN_ROWS(GTN_ACT_NONE), GATUN_ROWS(GTN_ACT_GELU_ERF),
                                               GATUN_ROWS(GTN_ACT_GELU_TANH), GATUN_ROWS(GTN_ACT_SILU),
                                               GATUN_ROWS(GTN_ACT_RELU)}};

#undef GATUN_ROWS

}  // namespace gatun::cpu::GATUN_LEVEL
