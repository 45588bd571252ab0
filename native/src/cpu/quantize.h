// Rows in 8 bits without sign, for files that are compiled once per level: what a GEMM makes of its rows, and a norm of its
// results.
//
// Quantizing: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s), q = clamp(rint(x / s) +
// z, 0, 255), all in FP32 with true divisions and ties to even; s = 0 gives q = z = 0; a row with an element that is
// not finite, or whose hi - lo overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0. One pass
// finds the range and one divides: 8 to 16 bytes and about 10 operations an element. A division takes as long as ten of
// them, so x * (1 / s) does where it cannot round to another integer. z may exceed 255 where s is so small (hi - lo below about
// 2^-140) that it has but a few bits.
#pragma once

#include <cstring>
#include <type_traits>

#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

using S32 = hn::Rebind<int32_t, F32>;
using VS32 = hn::Vec<S32>;

constexpr float kInfinity = __builtin_inff();

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
HWY_INLINE VS32 quantize(F32 d, VF x, VF scale, VF reciprocal, VS32 zero_less_magic) {
  const VF magic = hn::Set(d, 12582912.0f);
  const VF quotient = hn::Mul(x, reciprocal);
  VF shifted = hn::Add(quotient, magic);
  const VF from_integer = hn::Abs(hn::Sub(quotient, hn::Sub(shifted, magic)));
  if (HWY_UNLIKELY(!hn::AllTrue(d, hn::Lt(from_integer, hn::Set(d, 0.4999f))))) {
    shifted = hn::Add(hn::Div(x, scale), magic);
  }
  const VS32 q = hn::Add(hn::BitCast(S32(), shifted), zero_less_magic);
  return hn::Min(hn::Max(q, hn::Zero(S32())), hn::Set(S32(), 255));
}

// A row of k elements: U8, or S16 that hold the same, or S8 that hold it less 128, as does the zero point then.
template <typename A, typename Row>
void quantize_row(const A* a, int64_t k, Row* to, float* scale, int32_t* zero) {
  constexpr int32_t kOffset = std::is_same_v<Row, int8_t> ? 128 : 0;
  const F32 d;
  const hn::Rebind<Row, F32> narrow;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float lo, hi;
  bool finite;
  find_range(a, k, &lo, &hi, &finite);
  const float range = hi - lo;
  const float s = range / 255.0f;
  *zero = 0;
  if (!finite || !(range < kInfinity) || s == 0.0f) {
    *scale = finite && range < kInfinity ? 0.0f : __builtin_nanf("");
    std::memset(to, 0, static_cast<size_t>(k) * sizeof *to);
    return;
  }
  constexpr int32_t kMagic = 0x4b400000;  // the bits of 12582912.0f
  float shifted = -lo / s + 12582912.0f;
  int32_t z;
  std::memcpy(&z, &shifted, sizeof z);
  z -= kMagic;
  *scale = s;
  *zero = z - kOffset;
  const VF by = hn::Set(d, s);
  // Of scales from 2^-100 to 2^100, so that nothing is subnormal but what rounds to 0.
  const VF reciprocal = hn::Set(d, s > 0x1p-100f && s < 0x1p100f ? 1.0f / s : __builtin_nanf(""));
  const VS32 offset = hn::Set(S32(), z - kMagic);
  const auto kept = [&](VF x) __attribute__((always_inline)) {
    const VS32 q = quantize(d, x, by, reciprocal, offset);
    return kOffset == 0 ? q : hn::Sub(q, hn::Set(S32(), kOffset));
  };
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) hn::StoreU(hn::DemoteTo(narrow, kept(load(d, a + i))), narrow, to + i);
  for (; i < k; ++i) {
    const VS32 q = kept(hn::Set(d, to_float(a[i])));
    to[i] = static_cast<Row>(hn::GetLane(q));
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
