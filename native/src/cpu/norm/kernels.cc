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
// The variance is mean (h - s)^2 - (mean (h - s))^2, and the mean s + mean (h - s), with the shift s the average of the
// first four vectors, or more (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983, shifted data).
// Where s is further from the mean than the deviation, a second pass takes the mean as the shift (their corrected two-
// pass algorithm). The error then depends on the deviation of a row, not on its offset.
//
// Squares outside FP32's range (|h| above about 1e19, or a mean square below 2^-100 that epsilon does not lift),
// overflowing sums, infinities and NaN send a row to a plain loop in double, which gives what the formula gives:
// finite results for finite rows; LayerNorm gives NaN for a row with an infinity, RMSNorm gives 0 with NaN at the
// infinities; NaN gives a row of NaN.
//
// Quantized results are those of FP32, a row of which waits in scratch to be quantized while it is in the L1 or L2 cache: 10
// operations an element more, and 1 byte written in place of 4.
//
// The order of summation is fixed: four vectors of partial sums, and the remainder in the second of them.
#include "cpu/norm/norm.h"

#include "cpu/math.h"
#include "cpu/quantize.h"

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

// First pass: h, its sum of squares and, for LayerNorm, its sum, both of h - shift.
template <bool kLayer>
HWY_INLINE void accumulate(VF h, VF shift, VF* sum, VF* square) {
  if constexpr (kLayer) {
    h = hn::Sub(h, shift);
    *sum = hn::Add(h, *sum);
  }
  *square = hn::MulAdd(h, h, *square);
}

// A row before and during its first pass. Where the FP32 row h is after it, and how the pass gets it there: see the
// head of this file. An FP32 `sum` is that row itself.
template <typename T>
struct Row {
  const T* x;
  const T* residual;
  T* sum;
  float* kept;     // where the pass writes h, or null
  const float* h;  // where it is then
  float shift;     // what LayerNorm's sums are relative to
  VF sums[4], squares[4];
};

HWY_INLINE const float* as_row(const float* x) { return x; }
HWY_INLINE const float* as_row(const bf16*) { return nullptr; }

template <bool kLayer, typename T>
HWY_INLINE void open_row(const NormRows& rows, int64_t r, Row<T>* row) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  row->x = static_cast<const T*>(rows.x) + r * rows.x_stride;
  row->residual = rows.residual == nullptr ? nullptr : static_cast<const T*>(rows.residual) + r * rows.x_stride;
  row->sum = rows.sum == nullptr ? nullptr : static_cast<T*>(rows.sum) + r * rows.x_stride;
  const float* whole = row->sum != nullptr ? as_row(row->sum) : row->residual == nullptr ? as_row(row->x) : nullptr;
  row->kept = whole != nullptr ? nullptr : rows.scratch;
  row->h = whole != nullptr ? whole : rows.scratch;
  for (VF& sum : row->sums) sum = hn::Zero(d);
  for (VF& square : row->squares) square = hn::Zero(d);
  if constexpr (kLayer) {
    if (rows.n < 4 * lanes) {
      row->shift = to_float(row->x[0]) + (row->residual != nullptr ? to_float(row->residual[0]) : 0.0f);
      return;
    }
    // What is between the shift and the mean grows in every sum, so the longer sums of fewer lanes need a better one.
    Four h = load_four(d, row->x);
    if (row->residual != nullptr) h = wide::add(h, load_four(d, row->residual));
    int64_t i = 4 * lanes;
    for (; i < 256 / lanes && i <= rows.n - 4 * lanes; i += 4 * lanes) {
      h = wide::add(h, load_four(d, row->x + i));
      if (row->residual != nullptr) h = wide::add(h, load_four(d, row->residual + i));
    }
    row->shift = total(d, h.a, h.b, h.c, h.e) / static_cast<float>(i);
  }
}

// Elements `from` to `to` - 1 of the first pass, `from` a multiple of four vectors.
template <bool kLayer, bool kResidual, bool kSum, bool kKeep, typename T>
HWY_INLINE void first_pass_of(F32 d, Row<T>* row, int64_t from, int64_t to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* x = row->x;
  const T* residual = row->residual;
  T* sum = row->sum;
  float* h = row->kept;
  const VF shift = kLayer ? hn::Set(d, row->shift) : hn::Zero(d);
  VF s0 = row->sums[0], s1 = row->sums[1], s2 = row->sums[2], s3 = row->sums[3];
  VF q0 = row->squares[0], q1 = row->squares[1], q2 = row->squares[2], q3 = row->squares[3];
  int64_t i = from;
#define GATUN_GATHER(at)                                                                                          \
  gather<kResidual, kSum, kKeep>(d, x + (at), kResidual ? residual + (at) : nullptr, kSum ? sum + (at) : nullptr, \
                                 kKeep ? h + (at) : nullptr)
  for (; i <= to - 4 * lanes; i += 4 * lanes) {
    prefetch<4>(d, x + i);
    if constexpr (kResidual) prefetch<4>(d, residual + i);
    const VF v0 = GATUN_GATHER(i);
    const VF v1 = GATUN_GATHER(i + lanes);
    const VF v2 = GATUN_GATHER(i + 2 * lanes);
    const VF v3 = GATUN_GATHER(i + 3 * lanes);
    accumulate<kLayer>(v0, shift, &s0, &q0);
    accumulate<kLayer>(v1, shift, &s1, &q1);
    accumulate<kLayer>(v2, shift, &s2, &q2);
    accumulate<kLayer>(v3, shift, &s3, &q3);
  }
  for (; i <= to - lanes; i += lanes) {
    const VF v0 = GATUN_GATHER(i);
    accumulate<kLayer>(v0, shift, &s0, &q0);
  }
#undef GATUN_GATHER
  if (i < to) {
    const size_t count = static_cast<size_t>(to - i);
    VF v = load_some(d, x + i, count, 0.0f);
    if constexpr (kResidual) v = hn::Add(v, load_some(d, residual + i, count, 0.0f));
    if constexpr (kSum) store_some(d, v, sum + i, count);
    if constexpr (kKeep) store_some(d, v, h + i, count);
    v = hn::IfThenElse(hn::FirstN(d, count), v, shift);  // adds nothing
    accumulate<kLayer>(v, shift, &s1, &q1);
  }
  row->sums[0] = s0;
  row->sums[1] = s1;
  row->sums[2] = s2;
  row->sums[3] = s3;
  row->squares[0] = q0;
  row->squares[1] = q1;
  row->squares[2] = q2;
  row->squares[3] = q3;
}

template <bool kLayer, typename T>
HWY_INLINE void first_pass(F32 d, Row<T>* row, int64_t from, int64_t to) {
  if (row->sum != nullptr && row->kept == nullptr) {
    if (row->residual != nullptr) return first_pass_of<kLayer, true, true, false>(d, row, from, to);
    return first_pass_of<kLayer, false, true, false>(d, row, from, to);
  }
  if (row->sum != nullptr) {
    if (row->residual != nullptr) return first_pass_of<kLayer, true, true, true>(d, row, from, to);
    return first_pass_of<kLayer, false, true, true>(d, row, from, to);
  }
  if (row->kept == nullptr) return first_pass_of<kLayer, false, false, false>(d, row, from, to);
  if (row->residual != nullptr) return first_pass_of<kLayer, true, false, true>(d, row, from, to);
  return first_pass_of<kLayer, false, false, true>(d, row, from, to);
}

// LayerNorm where the shift is further from the mean than the deviation: the sums of c = h - mean and of c^2.
HWY_NOINLINE Sums centred(const float* h, float mean, int64_t n) {
  const F32 d;
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
struct Scaling {
  float mean, rest, factor;
};

template <bool kLayer, bool kBeta>
HWY_INLINE VF scaled(F32 d, VF h, VF mean, VF rest, VF factor, VF gamma, VF beta) {
  if constexpr (kLayer) h = hn::Sub(hn::Sub(h, mean), rest);
  (void)d;
  const VF unit = hn::Mul(h, factor);
  if constexpr (kBeta) return hn::MulAdd(unit, gamma, beta);
  return hn::Mul(unit, gamma);
}

template <bool kLayer, bool kBeta, bool kPast, typename Y>
HWY_INLINE void last_pass_of(F32 d, const float* h, const Scaling& by, const float* gamma, const float* beta, Y* out,
                             int64_t from, int64_t to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF m = hn::Set(d, by.mean), r = hn::Set(d, by.rest), f = hn::Set(d, by.factor);
  int64_t i = from;
#define GATUN_SCALED(at)                                                                \
  scaled<kLayer, kBeta>(d, hn::LoadU(d, h + (at)), m, r, f, hn::LoadU(d, gamma + (at)), \
                        kBeta ? hn::LoadU(d, beta + (at)) : m)
  for (; i <= to - 4 * lanes; i += 4 * lanes) {
    const VF v0 = GATUN_SCALED(i);
    const VF v1 = GATUN_SCALED(i + lanes);
    const VF v2 = GATUN_SCALED(i + 2 * lanes);
    const VF v3 = GATUN_SCALED(i + 3 * lanes);
    store<kPast>(d, v0, out + i);
    store<kPast>(d, v1, out + i + lanes);
    store<kPast>(d, v2, out + i + 2 * lanes);
    store<kPast>(d, v3, out + i + 3 * lanes);
  }
  for (; i <= to - lanes; i += lanes) store<kPast>(d, GATUN_SCALED(i), out + i);
#undef GATUN_SCALED
  if (i < to) {
    const size_t count = static_cast<size_t>(to - i);
    const VF b = kBeta ? load_some(d, beta + i, count, 0.0f) : m;
    const VF v =
        scaled<kLayer, kBeta>(d, load_some(d, h + i, count, 0.0f), m, r, f, load_some(d, gamma + i, count, 0.0f), b);
    store_some(d, v, out + i, count);
  }
}

template <bool kLayer, bool kPast, typename Y>
HWY_INLINE void last_pass_to(F32 d, const NormRows& rows, const float* h, const Scaling& by, Y* out, int64_t from, int64_t to) {
  if constexpr (kLayer) {
    if (rows.beta != nullptr) {
      return last_pass_of<kLayer, true, kPast>(d, h, by, rows.gamma, rows.beta, out, from, to);
    }
  }
  last_pass_of<kLayer, false, kPast>(d, h, by, rows.gamma, nullptr, out, from, to);
}

template <bool kLayer, typename Y>
HWY_INLINE void last_pass(F32 d, const NormRows& rows, const float* h, const Scaling& by, Y* out, int64_t from, int64_t to) {
  if constexpr (sizeof(Y) == sizeof(float)) {
    if (rows.past_caches) return last_pass_to<kLayer, true>(d, rows, h, by, out, from, to);
  }
  last_pass_to<kLayer, false>(d, rows, h, by, out, from, to);
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

// How a row is scaled, from the sums of its first pass. Squares outside FP32's range give a factor of 0.
template <bool kLayer, typename T>
HWY_INLINE Scaling scaling_of(const Row<T>& row, float epsilon, int64_t n) {
  const F32 d;
  const float count = static_cast<float>(n);
  Scaling by = {};
  float square = total(d, row.squares[0], row.squares[1], row.squares[2], row.squares[3]) / count;
  if constexpr (kLayer) {
    by.mean = row.shift;
    by.rest = total(d, row.sums[0], row.sums[1], row.sums[2], row.sums[3]) / count;
    square -= by.rest * by.rest;
    if (!(by.rest * by.rest <= square)) {
      by.mean += by.rest;
      const Sums c = centred(row.h, by.mean, n);
      by.rest = c.sum / count;
      square = c.squares / count - by.rest * by.rest;
    }
  }
  if (in_range(square + epsilon)) by.factor = 1.0f / __builtin_sqrtf(square + epsilon);
  return by;
}

// The first pass over a row goes with the last one over the row before, a piece of each at a time: reading and writing
// then share the memory, as in a copy. (More rows at once, for one piece of gamma and beta, were slower: rows that lie
// a multiple of a page apart share few sets of the L1 cache.)
constexpr int64_t kPiece = 128;  // a multiple of four vectors

template <bool kLayer, typename T>
HWY_NOINLINE void open_first_row(const NormRows& rows, Row<T>* row) {
  open_row<kLayer>(rows, 0, row);
  first_pass<kLayer>(F32(), row, 0, rows.n);
}

// Y: what the last pass writes, FP32 for rows to be quantized.
template <bool kLayer, typename T, typename Y>
void norm_rows(const NormRows& rows) {
  const F32 d;
  const int64_t n = rows.n;
  Row<T> next;
  open_first_row<kLayer>(rows, &next);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const float* h = next.h;
    const Scaling by = scaling_of<kLayer>(next, rows.epsilon, n);
    Y* out = static_cast<Y*>(rows.out) + r * rows.out_stride;
    if constexpr (sizeof(Y) == sizeof(float)) {
      if (rows.unquantized != nullptr) out = rows.unquantized;
    }
    const bool plain = by.factor != 0.0f, more = r + 1 < rows.rows;
    if (!plain) row_in_double<kLayer>(h, rows.gamma, rows.beta, rows.epsilon, out, n);
    // Its h may take the place of this row's: a piece is read by the last pass before the first one writes it.
    if (more) open_row<kLayer>(rows, r + 1, &next);
    for (int64_t from = 0; from < n; from += kPiece) {
      const int64_t to = from + kPiece < n ? from + kPiece : n;
      if (plain) last_pass<kLayer>(d, rows, h, by, out, from, to);
      if (more) first_pass<kLayer>(d, &next, from, to);
    }
    if (rows.unquantized != nullptr) {
      uint8_t* quantized = static_cast<uint8_t*>(rows.out) + r * rows.out_stride;
      quantize_row(rows.unquantized, n, quantized, rows.scales + r, rows.zeros + r);
    }
  }
  if (rows.past_caches) hwy::FlushStream();
}

}  // namespace

extern const NormKernels norm_kernels;
const NormKernels norm_kernels = {
    {{norm_rows<true, float, float>, norm_rows<true, float, bf16>}, {norm_rows<true, bf16, float>, norm_rows<true, bf16, bf16>}},
    {{norm_rows<false, float, float>, norm_rows<false, float, bf16>},
     {norm_rows<false, bf16, float>, norm_rows<false, bf16, bf16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
