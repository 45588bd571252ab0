// Rows of `a` as the microkernels read them: FP32, FP32 rounded to BF16, or quantized.
//
// Quantizing: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s), q = clamp(rint(x / s) +
// z, 0, 255), all in FP32 with true divisions and ties to even; s = 0 gives q = z = 0; a row with an element that is
// not finite, or whose hi - lo overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0. One pass
// finds the range and one divides: 8 to 16 bytes and about 10 operations an element, once per row and run, against n
// multiply-adds. A division takes as long as ten of them, so x * (1 / s) does where it cannot round to another
// integer. z may exceed 255 where s is so small (hi - lo below about 2^-140) that it has but a few bits.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

// Rows are filled up with zeros to a multiple of this many elements, the largest step of k.
constexpr int64_t kRowPadding = 4;

HWY_INLINE VF round_to_bf16(F32 d, VF value) {
  const hn::Rebind<uint32_t, F32> u32;
  const auto bits = hn::BitCast(u32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(u32, 0x7fffu)));
  const auto quiet = hn::Or(bits, hn::Set(u32, 0x400000u));
  const auto result = hn::IfThenElse(hn::RebindMask(u32, hn::IsNaN(value)), quiet, rounded);
  return hn::BitCast(d, hn::And(result, hn::Set(u32, 0xffff0000u)));
}

// Where the elements of a row of k end and the filling starts.
template <typename T>
HWY_INLINE void fill_up(T* row, int64_t k) {
  for (int64_t i = k; i % kRowPadding != 0; ++i) row[i] = T{};
}

template <typename A, bool kRound, typename Row>
void convert_row(const A* a, int64_t k, Row* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) {
    VF x = load(d, a + i);
    if (kRound) x = round_to_bf16(d, x);
    store(d, x, to + i);
  }
  if (i < k) {
    VF x = load_some(d, a + i, static_cast<size_t>(k - i), 0.0f);
    if (kRound) x = round_to_bf16(d, x);
    store_some(d, x, to + i, static_cast<size_t>(k - i));
  }
  fill_up(to, k);
}

// The lowest and highest element and 0, and +0 bits in every lane of `odd` as long as all are finite.
template <typename A>
HWY_INLINE void find_range(const A* a, int64_t k, float* lo, float* hi, bool* finite) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Two of each: a minimum takes 4 cycles, two loads 1.
  VF low0 = hn::Zero(d), low1 = low0, high0 = low0, high1 = low0, odd0 = low0, odd1 = low0;
  int64_t i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    const VF x0 = load(d, a + i), x1 = load(d, a + i + lanes);
    low0 = hn::Min(low0, x0);
    low1 = hn::Min(low1, x1);
    high0 = hn::Max(high0, x0);
    high1 = hn::Max(high1, x1);
    odd0 = hn::Or(odd0, hn::Sub(x0, x0));  // +0 for a finite x, NaN for the others
    odd1 = hn::Or(odd1, hn::Sub(x1, x1));
  }
  for (; i < k; i += lanes) {
    const VF x = k - i >= lanes ? load(d, a + i) : load_some(d, a + i, static_cast<size_t>(k - i), 0.0f);
    low0 = hn::Min(low0, x);
    high0 = hn::Max(high0, x);
    odd0 = hn::Or(odd0, hn::Sub(x, x));
  }
  *lo = hn::GetLane(hn::MinOfLanes(d, hn::Min(low0, low1)));
  *hi = hn::GetLane(hn::MaxOfLanes(d, hn::Max(high0, high1)));
  *finite = hn::AllTrue(d, hn::Eq(hn::Or(odd0, odd1), hn::Zero(d)));
}

// rint(x / s) + z as an integer, for |x / s| below 2^22: adding 1.5 * 2^23 leaves no fraction bits, so the addition
// itself rounds, ties to even, and the integer stands in the low bits.
//
// x * (1 / s) is off from x / s by two roundings, 255 * 2^-23 at most, and the quotient as a division rounds it by half as
// much. So both round to one integer unless they are that near to a tie: then, or if 1 / s is given as NaN, it divides.
HWY_INLINE VI quantize(F32 d, VF x, VF scale, VF reciprocal, VI zero_less_magic) {
  const VF magic = hn::Set(d, 12582912.0f);
  const VF quotient = hn::Mul(x, reciprocal);
  VF shifted = hn::Add(quotient, magic);
  const VF from_integer = hn::Abs(hn::Sub(quotient, hn::Sub(shifted, magic)));
  if (HWY_UNLIKELY(!hn::AllTrue(d, hn::Lt(from_integer, hn::Set(d, 0.4999f))))) {
    shifted = hn::Add(hn::Div(x, scale), magic);
  }
  const VI q = hn::Add(hn::BitCast(I32(), shifted), zero_less_magic);
  return hn::Min(hn::Max(q, hn::Zero(I32())), hn::Set(I32(), 255));
}

template <typename A>
void quantize_row(const A* a, int64_t k, FormatS8::Row* to, float* scale, int32_t* zero) {
  const F32 d;
  const hn::Rebind<FormatS8::Row, F32> narrow;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float lo, hi;
  bool finite;
  find_range(a, k, &lo, &hi, &finite);
  const float range = hi - lo;
  const float s = range / 255.0f;
  *zero = 0;
  if (!finite || !(range < kInfinity) || s == 0.0f) {
    *scale = finite && range < kInfinity ? 0.0f : __builtin_nanf("");
    std::memset(to, 0, static_cast<size_t>((k + kRowPadding - 1) / kRowPadding * kRowPadding) * sizeof *to);
    return;
  }
  constexpr int32_t kMagic = 0x4b400000;  // the bits of 12582912.0f
  float shifted = -lo / s + 12582912.0f;
  int32_t z;
  std::memcpy(&z, &shifted, sizeof z);
  z -= kMagic;
  *scale = s;
  *zero = z;
  const VF by = hn::Set(d, s);
  // Of scales from 2^-100 to 2^100, so that nothing is subnormal but what rounds to 0.
  const VF reciprocal = hn::Set(d, s > 0x1p-100f && s < 0x1p100f ? 1.0f / s : __builtin_nanf(""));
  const VI offset = hn::Set(I32(), z - kMagic);
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) {
    hn::StoreU(hn::DemoteTo(narrow, quantize(d, load(d, a + i), by, reciprocal, offset)), narrow, to + i);
  }
  for (; i < k; ++i) {
    const VI q = quantize(d, hn::Set(d, to_float(a[i])), by, reciprocal, offset);
    to[i] = static_cast<FormatS8::Row>(hn::GetLane(q));
  }
  fill_up(to, k);
}

template <typename A>
void prepare_rows(const GemmRows& rows, int64_t first, int64_t count) {
  for (int64_t r = first; r < first + count; ++r) {
    const A* a = static_cast<const A*>(rows.a) + (rows.index == nullptr ? r : rows.index[r]) * rows.a_stride;
    if (rows.format == GTN_S8) {
      FormatS8::Row* to = static_cast<FormatS8::Row*>(rows.prepared) + r * rows.prepared_stride;
      quantize_row(a, rows.k, to, rows.scales + r, rows.zeros + r);
    } else if (rows.format == GTN_BF16) {
      using Row = FormatBf16::Row;  // whose stores round already where it is no FP32
      convert_row<A, sizeof(Row) == 4>(a, rows.k, static_cast<Row*>(rows.prepared) + r * rows.prepared_stride);
    } else {
      convert_row<A, false>(a, rows.k, static_cast<float*>(rows.prepared) + r * rows.prepared_stride);
    }
  }
}

void prepare(const GemmRows& rows, int64_t first, int64_t count) {
  if (rows.a_dtype == GTN_F32) {
    prepare_rows<float>(rows, first, count);
  } else {
    prepare_rows<bf16>(rows, first, count);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
