// Residual and LayerNorm or RMSNorm over rows. Compiled once per level.
//
//   h = x + residual, in FP32
//   LayerNorm: out = (h - mean h) / sqrt(var h + epsilon) * gamma + beta
//   RMSNorm:   out = h / sqrt(mean h^2 + epsilon) * gamma
//
// Bytes: x, residual, out and sum once each from the memory's point of view; gamma and beta stay in the cache. FLOPs:
// 10 an element for LayerNorm, 4 for RMSNorm. What binds it: memory, for every row that fits the L2 cache; the later
// passes over a row find it in L1 or L2.
//
// h is kept in FP32 between the passes: in x itself where it is FP32 and has no residual, in `sum` where that is
// FP32, else in a scratch row. So a BF16 `sum` is rounded, and the normalisation sees h before that rounding.
//
// The variance takes two passes and a correction (Chan, Golub and LeVeque, "Algorithms for computing the sample
// variance", 1983, the corrected two-pass algorithm): c = h - m with m the rounded mean, then var = mean c^2 - (mean
// c)^2, and mean c also corrects the mean. The first sum is of h - h_0, so that it does not lose the digits that an
// offset has in common. The error then depends on the deviation of a row, not on its offset.
//
// Squares outside FP32's range (|h| above about 1e19, or a mean square below 2^-100 that epsilon does not lift),
// overflowing sums, infinities and NaN send a row to a plain loop in double, which gives what the formula gives:
// finite results for finite rows; LayerNorm gives NaN for a row with an infinity, RMSNorm gives 0 with NaN at the
// infinities; NaN gives a row of NaN.
//
// The order of summation is fixed: four vectors of partial sums, and the remainder in the second of them.
#include "cpu/norm/norm.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

struct Sums {
  float sum;
  float squares;
};

HWY_INLINE float total(F32 d, VF a, VF b, VF c, VF e) {
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

// h at x, written to `sum` and to `h` where those are not null. kKeep and kSum say which.
template <bool kResidual, bool kSum, bool kKeep, typename T>
HWY_INLINE VF gather(F32 d, const T* x, const T* residual, T* sum, float* h) {
  VF v = load(d, x);
  if constexpr (kResidual) v = hn::Add(v, load(d, residual));
  if constexpr (kSum) store(d, v, sum);
  if constexpr (kKeep) hn::StoreU(v, d, h);
  return v;
}

// First pass: h, and its sum of squares or, relative to the first element, its sum.
template <bool kSquares>
HWY_INLINE VF accumulate(VF h, VF first, VF sum) {
  return kSquares ? hn::MulAdd(h, h, sum) : hn::Add(hn::Sub(h, first), sum);
}

template <bool kSquares, bool kResidual, bool kSum, bool kKeep, typename T>
HWY_INLINE float first_pass_of(F32 d, const T* x, const T* residual, T* sum, float* h, int64_t n, VF first) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
#define GATUN_GATHER(at)                                                                                          \
  gather<kResidual, kSum, kKeep>(d, x + (at), kResidual ? residual + (at) : nullptr, kSum ? sum + (at) : nullptr, \
                                 kKeep ? h + (at) : nullptr)
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    const VF v0 = GATUN_GATHER(i);
    const VF v1 = GATUN_GATHER(i + lanes);
    const VF v2 = GATUN_GATHER(i + 2 * lanes);
    const VF v3 = GATUN_GATHER(i + 3 * lanes);
    s0 = accumulate<kSquares>(v0, first, s0);
    s1 = accumulate<kSquares>(v1, first, s1);
    s2 = accumulate<kSquares>(v2, first, s2);
    s3 = accumulate<kSquares>(v3, first, s3);
  }
  for (; i <= n - lanes; i += lanes) {
    const VF v0 = GATUN_GATHER(i);
    s0 = accumulate<kSquares>(v0, first, s0);
  }
#undef GATUN_GATHER
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    VF v = load_some(d, x + i, count, 0.0f);
    if constexpr (kResidual) v = hn::Add(v, load_some(d, residual + i, count, 0.0f));
    if constexpr (kSum) store_some(d, v, sum + i, count);
    if constexpr (kKeep) store_some(d, v, h + i, count);
    v = hn::IfThenElse(hn::FirstN(d, count), v, first);  // adds nothing
    s1 = accumulate<kSquares>(v, first, s1);
  }
  return total(d, s0, s1, s2, s3);
}

// Where the FP32 row h is after the first pass, and how the pass gets it there: see the head of this file. An FP32
// `sum` is that row itself.
HWY_INLINE const float* as_row(const float* x) { return x; }
HWY_INLINE const float* as_row(const bf16*) { return nullptr; }

template <bool kSquares, typename T>
HWY_INLINE float first_pass(F32 d, const T* x, const T* residual, T* sum, float* scratch, int64_t n, VF first,
                            const float** h) {
  if (sum != nullptr) {
    if (as_row(sum) != nullptr) {
      *h = as_row(sum);
      if (residual != nullptr)
        return first_pass_of<kSquares, true, true, false>(d, x, residual, sum, scratch, n, first);
      return first_pass_of<kSquares, false, true, false>(d, x, residual, sum, scratch, n, first);
    }
    *h = scratch;
    if (residual != nullptr) return first_pass_of<kSquares, true, true, true>(d, x, residual, sum, scratch, n, first);
    return first_pass_of<kSquares, false, true, true>(d, x, residual, sum, scratch, n, first);
  }
  if (residual == nullptr && as_row(x) != nullptr) {
    *h = as_row(x);
    return first_pass_of<kSquares, false, false, false>(d, x, residual, sum, scratch, n, first);
  }
  *h = scratch;
  if (residual != nullptr) return first_pass_of<kSquares, true, false, true>(d, x, residual, sum, scratch, n, first);
  return first_pass_of<kSquares, false, false, true>(d, x, residual, sum, scratch, n, first);
}

// Second pass of LayerNorm: the sums of c = h - mean and of c^2. (Prefetching the next rows here was slower.)
HWY_INLINE Sums centred(F32 d, const float* h, float mean, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF m = hn::Set(d, mean);
  VF s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  VF q0 = hn::Zero(d), q1 = hn::Zero(d), q2 = hn::Zero(d), q3 = hn::Zero(d);
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    const VF c0 = hn::Sub(hn::LoadU(d, h + i), m);
    const VF c1 = hn::Sub(hn::LoadU(d, h + i + lanes), m);
    const VF c2 = hn::Sub(hn::LoadU(d, h + i + 2 * lanes), m);
    const VF c3 = hn::Sub(hn::LoadU(d, h + i + 3 * lanes), m);
    s0 = hn::Add(s0, c0);
    s1 = hn::Add(s1, c1);
    s2 = hn::Add(s2, c2);
    s3 = hn::Add(s3, c3);
    q0 = hn::MulAdd(c0, c0, q0);
    q1 = hn::MulAdd(c1, c1, q1);
    q2 = hn::MulAdd(c2, c2, q2);
    q3 = hn::MulAdd(c3, c3, q3);
  }
  for (; i <= n - lanes; i += lanes) {
    const VF c0 = hn::Sub(hn::LoadU(d, h + i), m);
    s0 = hn::Add(s0, c0);
    q0 = hn::MulAdd(c0, c0, q0);
  }
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    const VF c1 = hn::Sub(load_some(d, h + i, count, mean), m);  // 0 in the spare lanes
    s1 = hn::Add(s1, c1);
    q1 = hn::MulAdd(c1, c1, q1);
  }
  return {total(d, s0, s1, s2, s3), total(d, q0, q1, q2, q3)};
}

// Last pass: ((h - mean) - rest) * factor * gamma + beta, the mean in two parts; RMSNorm has no mean and no beta.
template <bool kLayer, bool kBeta>
HWY_INLINE VF scaled(F32 d, VF h, VF mean, VF rest, VF factor, VF gamma, VF beta) {
  if constexpr (kLayer) h = hn::Sub(hn::Sub(h, mean), rest);
  (void)d;
  const VF unit = hn::Mul(h, factor);
  if constexpr (kBeta) return hn::MulAdd(unit, gamma, beta);
  return hn::Mul(unit, gamma);
}

template <bool kLayer, bool kBeta, typename Y>
HWY_INLINE void last_pass(F32 d, const float* h, float mean, float rest, float factor, const float* gamma,
                          const float* beta, Y* out, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF m = hn::Set(d, mean), r = hn::Set(d, rest), f = hn::Set(d, factor);
  int64_t i = 0;
#define GATUN_SCALED(at)                                                                \
  scaled<kLayer, kBeta>(d, hn::LoadU(d, h + (at)), m, r, f, hn::LoadU(d, gamma + (at)), \
                        kBeta ? hn::LoadU(d, beta + (at)) : m)
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    const VF v0 = GATUN_SCALED(i);
    const VF v1 = GATUN_SCALED(i + lanes);
    const VF v2 = GATUN_SCALED(i + 2 * lanes);
    const VF v3 = GATUN_SCALED(i + 3 * lanes);
    store(d, v0, out + i);
    store(d, v1, out + i + lanes);
    store(d, v2, out + i + 2 * lanes);
    store(d, v3, out + i + 3 * lanes);
  }
  for (; i <= n - lanes; i += lanes) store(d, GATUN_SCALED(i), out + i);
#undef GATUN_SCALED
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    const VF b = kBeta ? load_some(d, beta + i, count, 0.0f) : m;
    const VF v =
        scaled<kLayer, kBeta>(d, load_some(d, h + i, count, 0.0f), m, r, f, load_some(d, gamma + i, count, 0.0f), b);
    store_some(d, v, out + i, count);
  }
}

// The whole formula in double: squares of FP32 numbers stay in its range.
template <bool kLayer, typename Y>
HWY_NOINLINE void row_in_double(const float* h, const float* gamma, const float* beta, float epsilon, Y* out,
                                int64_t n) {
  double mean = 0.0, squares = 0.0;
  if constexpr (kLayer) {
    for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(h[i]);
    mean /= static_cast<double>(n);
  }
  for (int64_t i = 0; i < n; ++i) {
    const double c = static_cast<double>(h[i]) - mean;
    squares += c * c;
  }
  const double factor = 1.0 / __builtin_sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
  for (int64_t i = 0; i < n; ++i) {
    double v = (static_cast<double>(h[i]) - mean) * factor * static_cast<double>(gamma[i]);
    if (beta != nullptr) v += static_cast<double>(beta[i]);
    from_float(static_cast<float>(v), out + i);
  }
}

// Whether a mean square came from squares inside FP32's range. False for NaN.
HWY_INLINE bool in_range(float mean_square) { return mean_square >= 0x1p-100f && mean_square < 0x1p127f; }

template <typename T, typename Y>
void layer_rows(const NormRows& rows) {
  const F32 d;
  const float count = static_cast<float>(rows.n);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T* x = static_cast<const T*>(rows.x) + r * rows.x_stride;
    const T* residual = rows.residual == nullptr ? nullptr : static_cast<const T*>(rows.residual) + r * rows.x_stride;
    T* sum = rows.sum == nullptr ? nullptr : static_cast<T*>(rows.sum) + r * rows.x_stride;
    Y* out = static_cast<Y*>(rows.out) + r * rows.out_stride;
    const float* h;
    float first = to_float(x[0]);
    if (residual != nullptr) first += to_float(residual[0]);
    const float mean =
        first + first_pass<false>(d, x, residual, sum, rows.scratch, rows.n, hn::Set(d, first), &h) / count;
    const Sums c = centred(d, h, mean, rows.n);
    const float rest = c.sum / count;
    const float variance = c.squares / count - rest * rest;
    if (!in_range(variance + rows.epsilon)) {
      row_in_double<true>(h, rows.gamma, rows.beta, rows.epsilon, out, rows.n);
      continue;
    }
    const float factor = 1.0f / __builtin_sqrtf(variance + rows.epsilon);
    if (rows.beta != nullptr) {
      last_pass<true, true>(d, h, mean, rest, factor, rows.gamma, rows.beta, out, rows.n);
    } else {
      last_pass<true, false>(d, h, mean, rest, factor, rows.gamma, rows.beta, out, rows.n);
    }
  }
}

template <typename T, typename Y>
void rms_rows(const NormRows& rows) {
  const F32 d;
  const float count = static_cast<float>(rows.n);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T* x = static_cast<const T*>(rows.x) + r * rows.x_stride;
    const T* residual = rows.residual == nullptr ? nullptr : static_cast<const T*>(rows.residual) + r * rows.x_stride;
    T* sum = rows.sum == nullptr ? nullptr : static_cast<T*>(rows.sum) + r * rows.x_stride;
    Y* out = static_cast<Y*>(rows.out) + r * rows.out_stride;
    const float* h;
    const float mean_square = first_pass<true>(d, x, residual, sum, rows.scratch, rows.n, hn::Zero(d), &h) / count;
    if (!in_range(mean_square + rows.epsilon)) {
      row_in_double<false>(h, rows.gamma, rows.beta, rows.epsilon, out, rows.n);
      continue;
    }
    const float factor = 1.0f / __builtin_sqrtf(mean_square + rows.epsilon);
    last_pass<false, false>(d, h, 0.0f, 0.0f, factor, rows.gamma, rows.beta, out, rows.n);
  }
}

}  // namespace

extern const NormKernels norm_kernels;
const NormKernels norm_kernels = {
    {{layer_rows<float, float>, layer_rows<float, bf16>}, {layer_rows<bf16, float>, layer_rows<bf16, bf16>}},
    {{rms_rows<float, float>, rms_rows<float, bf16>}, {rms_rows<bf16, float>, rms_rows<bf16, bf16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
