// Softmax over rows: out = exp(scale x - max) / sum, where max is that of scale x. Compiled once per level.
//
// Three passes over a row: the maximum; the exponentials, kept in a scratch row, and their sum; the division, as a
// product with 1 / sum. They go over three rows at once, a piece of each at a time: products of one row are written
// while the exponentials of the next are computed, in their place, and the maximum of the one after that is read. So
// reading, computing and writing share the time, as in a copy; one pass after the other would leave the memory idle in
// the second.
//
// Bytes: every element is read once and written once from the memory's point of view, 8 bytes of FP32. FLOPs: about
// 24 an element. What binds it: memory, once the data leave the L2 cache; in the caches the exponential. A row longer
// than the L2 cache comes from memory twice, and a matrix of one row is one thread's work.
//
// The order of summation is fixed: four vectors of partial sums, element i into lane i mod (4 lanes), added pairwise
// at the end. scale x is rounded before the subtraction, on purpose: the difference to the maximum is then never
// positive, while a fused one would keep the rounding error of the maximum itself, which for large scores overflows
// the exponential.
//
// NaN needs no test: it is dropped by the maximum, comes back through its exponential, and turns the sum, and so the
// whole row, into NaN; +inf does the same through inf - inf.
#include "cpu/softmax/softmax.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

// scale * x at its first `count` lanes, -inf in the others. (x times a negative or zero scale must not see a filling
// -inf.)
template <typename X>
HWY_INLINE VF some_scaled(F32 d, VF scale, const X* x, size_t count) {
  return hn::IfThenElse(hn::FirstN(d, count), hn::Mul(load_some(d, x, count, 0.0f), scale), hn::Set(d, -kInfinity));
}

// Elements `from` to `to` - 1 of each pass over a row, `from` a multiple of four vectors. Partial results go from piece
// to piece in four vectors.
struct Partial {
  VF a, b, c, e;
};

// The largest of scale * x, without NaN: -inf for an empty row or a row of NaN.
template <typename X>
HWY_INLINE void maximum_of(F32 d, VF scale, const X* x, int64_t from, int64_t to, Partial* so_far) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF m0 = so_far->a, m1 = so_far->b, m2 = so_far->c, m3 = so_far->e;
  int64_t i = from;
  // The accumulator stands second: of a NaN and a number, x86 takes the second operand, and the others the number.
  for (; i <= to - 4 * lanes; i += 4 * lanes) {
    prefetch<4>(d, x + i);
    m0 = hn::Max(hn::Mul(load(d, x + i), scale), m0);
    m1 = hn::Max(hn::Mul(load(d, x + i + lanes), scale), m1);
    m2 = hn::Max(hn::Mul(load(d, x + i + 2 * lanes), scale), m2);
    m3 = hn::Max(hn::Mul(load(d, x + i + 3 * lanes), scale), m3);
  }
  for (; i <= to - lanes; i += lanes) m0 = hn::Max(hn::Mul(load(d, x + i), scale), m0);
  if (i < to) m1 = hn::Max(some_scaled(d, scale, x + i, static_cast<size_t>(to - i)), m1);
  *so_far = {m0, m1, m2, m3};
}

// 2^32 exp(v) for v <= 0: the factor is that of the sum as well, and spares the rounding into the denormals.
template <typename V>
HWY_INLINE V exponential(F32 d, const V& v) {
  return exp_scaled(d, wide::at_least(hn::Set(d, -109.0f), v));
}

// exp(scale x - maximum) times 2^32, stored in e, and its sum; and, if kBefore, what e held before, of another row,
// times `factor`, stored in `out`.
template <bool kBefore, bool kPast, typename X, typename Y>
HWY_INLINE void exponentials_of(F32 d, VF scale, VF maximum, const X* x, float* e, VF factor, Y* out, int64_t from,
                                int64_t to, Partial* so_far) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF s0 = so_far->a, s1 = so_far->b, s2 = so_far->c, s3 = so_far->e;
  int64_t i = from;
  for (; i <= to - 4 * lanes; i += 4 * lanes) {
    const Four x4 = load_four(d, x + i);
    if constexpr (kBefore) store_four<kPast>(d, wide::mul(load_four(d, e + i), factor), out + i);
    const Four e4 = exponential(d, wide::sub(wide::mul(x4, scale), maximum));
    store_four(d, e4, e + i);
    s0 = hn::Add(s0, e4.a);
    s1 = hn::Add(s1, e4.b);
    s2 = hn::Add(s2, e4.c);
    s3 = hn::Add(s3, e4.e);
  }
  for (; i <= to - lanes; i += lanes) {
    if constexpr (kBefore) store<kPast>(d, hn::Mul(hn::LoadU(d, e + i), factor), out + i);
    const VF e0 = exponential(d, hn::Sub(hn::Mul(load(d, x + i), scale), maximum));
    hn::StoreU(e0, d, e + i);
    s0 = hn::Add(s0, e0);
  }
  if (i < to) {
    const size_t count = static_cast<size_t>(to - i);
    if constexpr (kBefore) store_some(d, hn::Mul(load_some(d, e + i, count, 0.0f), factor), out + i, count);
    const VF e0 = exponential(d, hn::Sub(some_scaled(d, scale, x + i, count), maximum));
    store_some(d, e0, e + i, count);
    s1 = hn::Add(s1, e0);
  }
  *so_far = {s0, s1, s2, s3};
}

// The products alone, of a last row.
template <bool kPast, typename Y>
HWY_INLINE void products_of(F32 d, VF factor, const float* e, Y* out, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    store_four<kPast>(d, wide::mul(load_four(d, e + i), factor), out + i);
  }
  for (; i <= n - lanes; i += lanes) store<kPast>(d, hn::Mul(hn::LoadU(d, e + i), factor), out + i);
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    store_some(d, hn::Mul(load_some(d, e + i, count, 0.0f), factor), out + i, count);
  }
}

// What is loaded is loaded before something is stored at the same place of a page: stores hold up later loads that look
// alike in the lower bits of their addresses.
constexpr int64_t kPiece = 128;  // a multiple of four vectors

template <bool kPast, typename X, typename Y>
void rows_with(const SoftmaxRows& rows) {
  const F32 d;
  const VF scale = hn::Set(d, rows.scale), lowest = hn::Set(d, -kInfinity), zero = hn::Zero(d);
  const Partial no_maximum = {lowest, lowest, lowest, lowest}, no_sum = {zero, zero, zero, zero};
  const int64_t n = rows.n;
  const X* x = static_cast<const X*>(rows.x);
  Y* out = static_cast<Y*>(rows.out);
  float* e = rows.scratch;
  Partial next = no_maximum;
  maximum_of(d, scale, x, 0, n, &next);
  VF factor = zero;  // of row r - 1
  for (int64_t r = 0; r < rows.rows; ++r) {
    const X* row = x + r * rows.x_stride;
    const float maximum = hn::GetLane(hn::MaxOfLanes(d, hn::Max(hn::Max(next.a, next.b), hn::Max(next.c, next.e))));
    // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN, and
    // a factor of 0 makes the row 0 unless it has a NaN.
    const bool nothing = maximum == -kInfinity;
    const VF base = hn::Set(d, nothing ? 0.0f : maximum);
    Partial sums = no_sum;
    next = no_maximum;
    for (int64_t from = 0; from < n; from += kPiece) {
      const int64_t to = from + kPiece < n ? from + kPiece : n;
      if (r + 1 < rows.rows) maximum_of(d, scale, row + rows.x_stride, from, to, &next);
      if (r > 0) {
        Y* before = out + (r - 1) * rows.out_stride;
        exponentials_of<true, kPast>(d, scale, base, row, e, factor, before, from, to, &sums);
      } else {
        exponentials_of<false, kPast>(d, scale, base, row, e, factor, out, from, to, &sums);
      }
    }
    const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums.a, sums.b), hn::Add(sums.c, sums.e))));
    factor = hn::Set(d, nothing && sum == sum ? 0.0f : 1.0f / sum);
  }
  products_of<kPast>(d, factor, e, out + (rows.rows - 1) * rows.out_stride, n);
  if constexpr (kPast) hwy::FlushStream();
}

template <typename X, typename Y>
void rows_of(const SoftmaxRows& rows) {
  if constexpr (sizeof(Y) == sizeof(float)) {
    if (rows.past_caches) return rows_with<true, X, Y>(rows);
  }
  rows_with<false, X, Y>(rows);
}

}  // namespace

extern const SoftmaxKernels softmax_kernels;
const SoftmaxKernels softmax_kernels = {
    {{rows_of<float, float>, rows_of<float, bf16>}, {rows_of<bf16, float>, rows_of<bf16, bf16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
