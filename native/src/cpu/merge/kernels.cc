// Merge of attention over parts of the keys. Compiled once per level.
//
//   m = max lse_i,  e_i = exp(lse_i - m),  S = sum of e_i
//   out = sum of e_i x_i / (S + exp(sink - m)),  lse = m + log S
//
// A tile goes through three steps. Its log-sum-exps are collected, so that a vector holds those of as many rows
// whichever of heads and tokens lie side by side in memory; they become weights, in place; and the rows of x are added
// up, each weighted, in the order in which they lie in memory.
//
// Bytes: x is read once and out written once, 4 (parts + 1) of FP32 for an element of out; a log-sum-exp is 4 bytes for
// a whole row. FLOPs: 2 parts for an element, and some 30 parts for a row. What binds it: memory, wherever the data
// come from, since an element takes one load and one multiply-add.
//
// A sink logit above the maximum would overflow e_i's counterpart, so both are taken relative to M = max(m, sink):
// out's weights are e_i f / (S f + g) with f = exp(m - M), g = exp(sink - M), one of which is 1.
//
// A weight of 0 is no share: of a part whose log-sum-exp is -inf, or more than 104 below the maximum, x is not looked
// at. NaN among the log-sum-exps is dropped by the maximum and comes back through its exponential; +inf does the same
// through inf - inf; both turn the row and its log-sum-exp into NaN. The order of summation is that of the parts.
#include "cpu/merge/merge.h"

#include <math.h>

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

// Row r is token r % tokens of head r / tokens. What is beyond the last row, up to a whole vector, is -inf.
HWY_INLINE void collect(const MergeTile& t, int64_t padded) {
  for (int64_t part = 0; part < t.parts; ++part) {
    float* row = t.weights + part * kMergeRows;
    for (int64_t head = 0; head < t.heads; ++head) {
      const float* from = t.x_lse + part * t.x_lse_part + head * t.x_lse_head;
      for (int64_t token = 0; token < t.tokens; ++token) *row++ = from[token * t.x_lse_token];
    }
    for (int64_t r = t.heads * t.tokens; r < padded; ++r) *row++ = -kInfinity;
  }
}

// Log-sum-exps become weights, a vector of rows at a time; `lse` gets m and `sums` S.
HWY_INLINE void weigh(F32 d, const MergeTile& t, int64_t padded, const float* sinks, float* lse, float* sums) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < padded; r += lanes) {
    float* column = t.weights + r;
    VF maximum = hn::Set(d, -kInfinity);
    // The accumulator stands second: of a NaN and a number, x86 takes the second operand, and the others the number.
    for (int64_t part = 0; part < t.parts; ++part) {
      maximum = hn::Max(hn::Load(d, column + part * kMergeRows), maximum);
    }
    // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN.
    const VF m = hn::IfThenElse(hn::Eq(maximum, hn::Set(d, -kInfinity)), hn::Zero(d), maximum);
    VF sum = hn::Zero(d);
    for (int64_t part = 0; part < t.parts; ++part) {
      const VF e = exp_nonpositive(d, hn::Sub(hn::Load(d, column + part * kMergeRows), m));
      hn::Store(e, d, column + part * kMergeRows);
      sum = hn::Add(sum, e);
    }
    VF factor;
    if (t.sink_logits != nullptr) {
      const VF sink = hn::Load(d, sinks + r);
      const VF both = hn::Max(sink, m);
      const VF f = exp_nonpositive(d, hn::Sub(m, both));
      factor = hn::Div(f, hn::MulAdd(sum, f, exp_nonpositive(d, hn::Sub(sink, both))));
    } else {
      factor = hn::Div(hn::Set(d, 1.0f), sum);
    }
    factor = hn::IfThenElse(hn::Eq(sum, hn::Zero(d)), hn::Zero(d), factor);
    for (int64_t part = 0; part < t.parts; ++part) {
      const VF weight = hn::Mul(hn::Load(d, column + part * kMergeRows), factor);
      hn::Store(weight, d, column + part * kMergeRows);
    }
    hn::Store(m, d, lse + r);
    hn::Store(sum, d, sums + r);
  }
}

// One row of out from the same row of every part.
template <typename X, typename Y>
HWY_INLINE void add_up(F32 d, const X* x, int64_t x_part, const float* weights, int64_t parts, Y* out, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    Four sum = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (int64_t part = 0; part < parts; ++part) {
      const float weight = weights[part * kMergeRows];
      if (weight == 0.0f) continue;
      sum = wide::mul_add(load_four(d, x + part * x_part + i), hn::Set(d, weight), sum);
    }
    store_four(d, sum, out + i);
  }
  for (; i < n; i += lanes) {
    const size_t count = n - i < lanes ? static_cast<size_t>(n - i) : static_cast<size_t>(lanes);
    const bool whole = n - i >= lanes;
    VF sum = hn::Zero(d);
    for (int64_t part = 0; part < parts; ++part) {
      const float weight = weights[part * kMergeRows];
      if (weight == 0.0f) continue;
      const X* from = x + part * x_part + i;
      sum = hn::MulAdd(whole ? load(d, from) : load_some(d, from, count, 0.0f), hn::Set(d, weight), sum);
    }
    if (whole) {
      store(d, sum, out + i);
    } else {
      store_some(d, sum, out + i, count);
    }
  }
}

template <typename X, typename Y>
void tile_of(const MergeTile& t) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t padded = (t.heads * t.tokens + lanes - 1) / lanes * lanes;
  HWY_ALIGN float sinks[kMergeRows], lse[kMergeRows], sums[kMergeRows];
  if (t.sink_logits != nullptr) {
    for (int64_t r = 0; r < padded; ++r) {
      sinks[r] = r < t.heads * t.tokens ? t.sink_logits[r / t.tokens] : 0.0f;
    }
  }
  collect(t, padded);
  weigh(d, t, padded, sinks, lse, sums);
  for (int64_t token = 0; token < t.tokens; ++token) {
    for (int64_t head = 0; head < t.heads; ++head) {
      const int64_t r = head * t.tokens + token;
      add_up(d, static_cast<const X*>(t.x) + token * t.x_token + head * t.x_head, t.x_part, t.weights + r, t.parts,
             static_cast<Y*>(t.out) + token * t.out_token + head * t.out_head, t.n);
    }
  }
  if (t.lse == nullptr) return;
  for (int64_t head = 0; head < t.heads; ++head) {
    for (int64_t token = 0; token < t.tokens; ++token) {
      const int64_t r = head * t.tokens + token;
      t.lse[head * t.lse_head + token * t.lse_token] = lse[r] + logf(sums[r]);  // log 0 is -inf
    }
  }
}

}  // namespace

extern const MergeKernels merge_kernels;
const MergeKernels merge_kernels = {{{tile_of<float, float>, tile_of<float, bf16>, tile_of<float, f16>},
                                     {tile_of<bf16, float>, tile_of<bf16, bf16>, tile_of<bf16, f16>},
                                     {tile_of<f16, float>, tile_of<f16, bf16>, tile_of<f16, f16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
