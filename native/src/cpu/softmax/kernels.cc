// Softmax over rows: out = exp(scale x - max) / sum, where max is that of scale x. Compiled once per level.
//
// Three passes over a row, after the first of which it is in the cache: the maximum; the exponentials, their sum, and
// their storing; the division, as a product with 1 / sum. Exponentials are stored in `out` where that is FP32, else
// in a scratch row, so that they are rounded to BF16 once, at the end.
//
// Bytes: every element is read once and written once from the memory's point of view, 8 bytes of FP32. FLOPs: about
// 24 an element. What binds it: memory, once the data leave the L2 cache; in the caches the exponential, 1.5 cycles an
// element with AVX2. A row longer than the L2 cache comes from memory three times, and a matrix of one row is one
// thread's work.
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

// The largest of scale * x, without NaN: -inf for an empty row or a row of NaN.
template <typename X>
HWY_INLINE float row_maximum(F32 d, VF scale, const X* x, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF m0 = hn::Set(d, -kInfinity);
  VF m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  // The accumulator stands second: of a NaN and a number, x86 takes the second operand, and the others the number.
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    m0 = hn::Max(hn::Mul(load(d, x + i), scale), m0);
    m1 = hn::Max(hn::Mul(load(d, x + i + lanes), scale), m1);
    m2 = hn::Max(hn::Mul(load(d, x + i + 2 * lanes), scale), m2);
    m3 = hn::Max(hn::Mul(load(d, x + i + 3 * lanes), scale), m3);
  }
  for (; i <= n - lanes; i += lanes) m0 = hn::Max(hn::Mul(load(d, x + i), scale), m0);
  if (i < n) m1 = hn::Max(some_scaled(d, scale, x + i, static_cast<size_t>(n - i)), m1);
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

// 2^32 exp(v) for v <= 0: the factor is that of the sum as well, and spares the rounding into the denormals.
template <typename V>
HWY_INLINE V exponential(F32 d, const V& v) {
  return exp_scaled(d, wide::at_least(hn::Set(d, -109.0f), v));
}

// exp(scale x - maximum) times 2^32, stored, and its sum. This pass leaves the memory idle, so it asks for the rows
// to come, into L2: no hardware prefetcher expects them while a row is being gone over again.
template <typename X, typename Y>
HWY_INLINE float row_exponentials(F32 d, VF scale, float maximum, const X* x, float* e, const X* next_x,
                                  const Y* next_out, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF m = hn::Set(d, maximum);
  VF s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    __builtin_prefetch(next_x + i, 0, 2);
    __builtin_prefetch(next_x + i + 2 * lanes, 0, 2);
    __builtin_prefetch(next_out + i, 1, 2);
    __builtin_prefetch(next_out + i + 2 * lanes, 1, 2);
    const Four e4 = exponential(d, wide::sub(wide::mul(load_four(d, x + i), scale), m));
    store_four(d, e4, e + i);
    s0 = hn::Add(s0, e4.a);
    s1 = hn::Add(s1, e4.b);
    s2 = hn::Add(s2, e4.c);
    s3 = hn::Add(s3, e4.e);
  }
  for (; i <= n - lanes; i += lanes) {
    const VF e0 = exponential(d, hn::Sub(hn::Mul(load(d, x + i), scale), m));
    hn::StoreU(e0, d, e + i);
    s0 = hn::Add(s0, e0);
  }
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    const VF e0 = exponential(d, hn::Sub(some_scaled(d, scale, x + i, count), m));
    store_some(d, e0, e + i, count);
    s1 = hn::Add(s1, e0);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

template <typename Y>
HWY_INLINE void row_product(F32 d, float factor, const float* e, Y* out, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i <= n - 4 * lanes; i += 4 * lanes) {
    store_four(d, wide::mul(load_four(d, e + i), f), out + i);
  }
  for (; i <= n - lanes; i += lanes) store(d, hn::Mul(hn::LoadU(d, e + i), f), out + i);
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    store_some(d, hn::Mul(load_some(d, e + i, count, 0.0f), f), out + i, count);
  }
}

HWY_INLINE float* exponentials_of(float* out, float*) { return out; }
HWY_INLINE float* exponentials_of(bf16*, float* scratch) { return scratch; }

template <typename X, typename Y>
void rows_of(float scale, const void* x, int64_t x_stride, void* out, int64_t out_stride, int64_t rows, int64_t n,
             float* scratch) {
  const F32 d;
  const VF factor = hn::Set(d, scale);
  for (int64_t r = 0; r < rows; ++r) {
    const X* from = static_cast<const X*>(x) + r * x_stride;
    Y* to = static_cast<Y*>(out) + r * out_stride;
    const float maximum = row_maximum(d, factor, from, n);
    // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN, and
    // a factor of 0 makes the row 0 unless it has a NaN.
    const bool nothing = maximum == -kInfinity;
    float* e = exponentials_of(to, scratch);
    const float sum = row_exponentials(d, factor, nothing ? 0.0f : maximum, from, e,
                                       r + 1 < rows ? from + x_stride : from, r + 1 < rows ? to + out_stride : to, n);
    row_product(d, nothing && sum == sum ? 0.0f : 1.0f / sum, e, to, n);
  }
}

}  // namespace

extern const SoftmaxKernels softmax_kernels;
const SoftmaxKernels softmax_kernels = {
    {{rows_of<float, float>, rows_of<float, bf16>}, {rows_of<bf16, float>, rows_of<bf16, bf16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
