// Gated activation over rows: out = f(gate) * x, f of cpu/math.h, in FP32 and rounded once. Compiled once per level.
//
// Bytes: both factors are read once and the product is written once, 12 bytes of FP32. FLOPs: one more than those of f
// an element. What binds it: memory once the data leave the L2 cache, in the caches f, as for the activation alone.
//
// Four vectors at a time, as there, and the last vector of a row overlaps the one before: it is computed before
// anything is written, which makes it right in place too. Limits: rows shorter than a vector go element by element into
// and out of a buffer.
#include "cpu/activation/activation.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

template <int kActivation, typename V>
HWY_INLINE V gated(F32 d, const V& gate, const V& x) {
  return wide::mul(activate<kActivation>(d, gate), x);
}

template <int kActivation, bool kPast, typename X, typename Y>
HWY_INLINE void one_row(const X* gate, const X* x, Y* out, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (n < lanes) {
    const size_t count = static_cast<size_t>(n);
    const VF g = load_some(d, gate, count, 0.0f), v = load_some(d, x, count, 0.0f);
    store_some(d, gated<kActivation>(d, g, v), out, count);
    return;
  }
  const int64_t last = n - lanes;
  const VF end = gated<kActivation>(d, load(d, gate + last), load(d, x + last));
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    prefetch<4>(d, gate + i);
    prefetch<4>(d, x + i);
    store_four<kPast>(d, gated<kActivation>(d, load_four(d, gate + i), load_four(d, x + i)), out + i);
  }
  for (; i <= last; i += lanes) store<kPast>(d, gated<kActivation>(d, load(d, gate + i), load(d, x + i)), out + i);
  if (i < n) store(d, end, out + last);
}

template <int kActivation, bool kPast, typename X, typename Y>
void rows_with(const GluRows& rows) {
  const X* gate = static_cast<const X*>(rows.gate);
  const X* x = static_cast<const X*>(rows.x);
  Y* out = static_cast<Y*>(rows.out);
  for (int64_t r = 0; r < rows.rows; ++r) {
    one_row<kActivation, kPast>(gate + r * rows.gate_stride, x + r * rows.x_stride, out + r * rows.out_stride, rows.n);
  }
  if constexpr (kPast) hwy::FlushStream();
}

template <int kActivation, typename X, typename Y>
void rows_of(const GluRows& rows) {
  if constexpr (sizeof(Y) == sizeof(float)) {
    if (rows.past_caches) return rows_with<kActivation, true, X, Y>(rows);
  }
  rows_with<kActivation, false, X, Y>(rows);
}

}  // namespace

#define GATUN_OUTPUTS(activation, X) \
  { rows_of<activation, X, float>, rows_of<activation, X, bf16>, rows_of<activation, X, f16> }
#define GATUN_ROWS(activation) \
  { GATUN_OUTPUTS(activation, float), GATUN_OUTPUTS(activation, bf16), GATUN_OUTPUTS(activation, f16) }

extern const GluKernels glu_kernels;
const GluKernels glu_kernels = {{GATUN_ROWS(GTN_ACT_NONE), GATUN_ROWS(GTN_ACT_GELU_ERF), GATUN_ROWS(GTN_ACT_GELU_TANH),
                                 GATUN_ROWS(GTN_ACT_SILU), GATUN_ROWS(GTN_ACT_RELU)}};

#undef GATUN_ROWS
#undef GATUN_OUTPUTS

}  // namespace gatun::cpu::GATUN_LEVEL
