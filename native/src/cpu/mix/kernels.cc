// Gated sum. Compiled once per level.
//
//   out[i] = residual[i] + sum over parts of weight * x[i], in FP32, in the order of parts, the residual last
//
// Bytes: every part's row is read once, the residual too, and out is written once: 4 (parts + 2) of FP32 an element.
// FLOPs: 2 for an element of a part, 1 for the residual; some 26 for a gate, of which a row has few. What binds it:
// memory, since an element takes one load and one multiply-add. A row is therefore gone over once: four vectors of it
// are summed over all parts before the next four, and no partial sum goes to memory. Parts that have no share are left
// out before this loop, which has no branch.
//
// The methods of the gates are those of cpu/math.h. The uses are in gatun.h: Yuan et al. 2025 (equation 5), Alayrac et
// al. 2022 (section 2.2).
#include "cpu/mix/mix.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

HWY_INLINE VF weights_of(F32 d, int32_t gate, VF gates) {
  return gate == GTN_GATE_SIGMOID ? sigmoid(d, gates) : gate == GTN_GATE_TANH ? tanh(d, gates) : gates;
}

void weigh(int32_t gate, float* gates, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i <= n - lanes; i += lanes) hn::StoreU(weights_of(d, gate, hn::LoadU(d, gates + i)), d, gates + i);
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    store_some(d, weights_of(d, gate, load_some(d, gates + i, count, 0.0f)), gates + i, count);
  }
}

template <typename X, typename Y>
void row_of(const MixRow& row) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Y* residual = static_cast<const Y*>(row.residual);
  Y* out = static_cast<Y*>(row.out);
  int64_t i = 0;
  for (; i <= row.n - 4 * lanes; i += 4 * lanes) {
    Four sum = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (int64_t part = 0; part < row.parts; ++part) {
      const X* x = static_cast<const X*>(row.x[part]);
      sum = wide::mul_add(load_four(d, x + i), hn::Set(d, row.weights[part]), sum);
    }
    if (residual != nullptr) sum = wide::add(sum, load_four(d, residual + i));
    store_four(d, sum, out + i);
  }
  for (; i < row.n; i += lanes) {
    const bool whole = row.n - i >= lanes;
    const size_t count = static_cast<size_t>(whole ? lanes : row.n - i);
    VF sum = hn::Zero(d);
    for (int64_t part = 0; part < row.parts; ++part) {
      const X* x = static_cast<const X*>(row.x[part]) + i;
      sum = hn::MulAdd(whole ? load(d, x) : load_some(d, x, count, 0.0f), hn::Set(d, row.weights[part]), sum);
    }
    if (residual != nullptr) {
      sum = hn::Add(sum, whole ? load(d, residual + i) : load_some(d, residual + i, count, 0.0f));
    }
    if (whole) {
      store(d, sum, out + i);
    } else {
      store_some(d, sum, out + i, count);
    }
  }
}

}  // namespace

extern const MixKernels mix_kernels;
const MixKernels mix_kernels = {weigh,
                                {{row_of<float, float>, row_of<float, bf16>, row_of<float, f16>},
                                 {row_of<bf16, float>, row_of<bf16, bf16>, row_of<bf16, f16>},
                                 {row_of<f16, float>, row_of<f16, bf16>, row_of<f16, f16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
