// Fake quantization over rows: out = (clamp(rint(x / s) + z, least, most) - z) s, or its straight-through gradient, the gradient of
// out where the integer is within least to most, else 0. Compiled once per level.
//
// Bytes: every element is read once and written once, 8 bytes of FP32, 12 with a gradient; scales of columns stay in a cache.
// FLOPs: 7 an element. What binds it: memory once the data leave the L2 cache; in the caches the division, 5 cycles for a
// vector with AVX2 and 8 or more with AVX-512.
//
// The last vector of a row overlaps the one before: it is computed before anything is written, which makes it right in place too.
// Limits: rows shorter than a vector go element by element into and out of a buffer.
#include "cpu/fake_quantize/fake_quantize.h"

#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// What columns i to i + lanes - 1 of a row are quantized with.
template <bool kColumns>
struct Grid {
  const float* scales;
  const int32_t* zero_points;

  HWY_INLINE VF scale(F32 d, int64_t i) const { return kColumns ? hn::LoadU(d, scales + i) : hn::Set(d, *scales); }

  HWY_INLINE VF zero(F32 d, int64_t i) const {
    if (zero_points == nullptr) return hn::Zero(d);
    if (!kColumns) return hn::Set(d, static_cast<float>(*zero_points));
    const hn::Rebind<int32_t, F32> d32;
    return hn::ConvertTo(d, hn::LoadU(d32, zero_points + i));
  }

  // The first `count` columns of a row.
  HWY_INLINE Grid some(size_t count, float* scale_lanes, int32_t* zero_lanes) const {
    if (!kColumns) return *this;
    for (size_t i = 0; i < HWY_MAX_BYTES / sizeof(float); ++i) {
      scale_lanes[i] = i < count ? scales[i] : 1.0f;
      zero_lanes[i] = i < count && zero_points != nullptr ? zero_points[i] : 0;
    }
    return {scale_lanes, zero_lanes};
  }
};

template <bool kGradient>
HWY_INLINE VF quantized(F32 d, VF x, VF gradient, VF scale, VF zero, VF least, VF most) {
  const VF integer = hn::Add(hn::Round(hn::Div(x, scale)), zero);
  if constexpr (kGradient) {  // a NaN is nowhere
    return hn::IfThenElseZero(hn::And(hn::Ge(integer, least), hn::Le(integer, most)), gradient);
  } else {
    const VF value = hn::Mul(hn::Sub(hn::Min(hn::Max(integer, least), most), zero), scale);
    return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Eq(scale, hn::Zero(d)), hn::Zero(d), value));
  }
}

template <bool kColumns, bool kGradient, bool kPast, typename X, typename Y>
HWY_INLINE void one_row(const FakeQuantizeRows& rows, Grid<kColumns> grid, const X* x, const Y* gradient, Y* out) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), n = rows.n;
  const VF least = hn::Set(d, rows.least), most = hn::Set(d, rows.most), none = hn::Zero(d);
  if (n < lanes) {
    const size_t count = static_cast<size_t>(n);
    float scale_lanes[HWY_MAX_BYTES / sizeof(float)];
    int32_t zero_lanes[HWY_MAX_BYTES / sizeof(float)];
    const Grid<kColumns> first = grid.some(count, scale_lanes, zero_lanes);
    const VF g = kGradient ? load_some(d, gradient, count, 0.0f) : none;
    store_some(d, quantized<kGradient>(d, load_some(d, x, count, 0.0f), g, first.scale(d, 0), first.zero(d, 0), least, most), out,
               count);
    return;
  }
  const auto at = [&](int64_t i) __attribute__((always_inline)) {
    const VF g = kGradient ? load(d, gradient + i) : none;
    return quantized<kGradient>(d, load(d, x + i), g, grid.scale(d, i), grid.zero(d, i), least, most);
  };
  const int64_t last = n - lanes;
  const VF end = at(last);
  int64_t i = 0;
  for (; i <= last; i += lanes) {
    prefetch<1>(d, x + i);
    if constexpr (kGradient) prefetch<1>(d, gradient + i);
    store<kPast>(d, at(i), out + i);
  }
  if (i < n) store(d, end, out + last);
}

template <bool kColumns, bool kGradient, bool kPast, typename X, typename Y>
void rows_with(const FakeQuantizeRows& rows) {
  const X* x = static_cast<const X*>(rows.x);
  const Y* gradient = static_cast<const Y*>(rows.gradient);
  Y* out = static_cast<Y*>(rows.out);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int64_t of = rows.of_rows ? r : 0;
    const Grid<kColumns> grid = {rows.scales + of, rows.zero_points == nullptr ? nullptr : rows.zero_points + of};
    one_row<kColumns, kGradient, kPast>(rows, grid, x + r * rows.x_stride, kGradient ? gradient + r * rows.out_stride : nullptr,
                                        out + r * rows.out_stride);
  }
  if constexpr (kPast) hwy::FlushStream();
}

template <bool kColumns, bool kGradient, typename X, typename Y>
void rows_of(const FakeQuantizeRows& rows) {
  if constexpr (sizeof(Y) == sizeof(float)) {
    if (rows.past_caches) return rows_with<kColumns, kGradient, true, X, Y>(rows);
  }
  rows_with<kColumns, kGradient, false, X, Y>(rows);
}

}  // namespace

#define GATUN_ROWS(columns, gradient)                                                                    \
  {                                                                                                      \
    {rows_of<columns, gradient, float, float>, rows_of<columns, gradient, float, bf16>}, {               \
      rows_of<columns, gradient, bf16, float>, rows_of<columns, gradient, bf16, bf16>                    \
    }                                                                                                    \
  }

extern const FakeQuantizeKernels fake_quantize_kernels;
const FakeQuantizeKernels fake_quantize_kernels = {
    {{GATUN_ROWS(false, false), GATUN_ROWS(false, true)}, {GATUN_ROWS(true, false), GATUN_ROWS(true, true)}}};

#undef GATUN_ROWS

}  // namespace gatun::cpu::GATUN_LEVEL
