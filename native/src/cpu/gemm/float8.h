// FP8 weights (GTN_F8E4M3, GTN_F8E5M2), made FP32 as they are loaded, exactly and without tables: the bits of either, moved to
// where F16 has its exponent, are an F16 with the number's own mantissa and sign, and hardware widens that, subnormal numbers
// too. E5M2 is the upper half of an F16; E4M3 has half its range of exponents, so what comes out is 2^-8 of the number. Its NaN
// alone would come out as a number; a column that has one got a scale of NaN when it was packed.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

struct f8e4m3 {
  uint8_t bits;
};

struct f8e5m2 {
  uint8_t bits;
};

HWY_INLINE VF widen_halves(hn::Vec<hn::Rebind<uint16_t, F32>> halves) {
  const F32 d;
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, to_float(f16{hn::GetLane(halves)}));
#else
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(d, hn::BitCast(d16, halves));
#endif
}

HWY_INLINE VF widen(F32 d, const f8e4m3* from) {
  const hn::Rebind<int8_t, F32> d8;
  const hn::Rebind<int16_t, F32> s16;
  const hn::Rebind<uint16_t, F32> d16;
  const auto wide = hn::BitCast(d16, hn::PromoteTo(s16, hn::LoadU(d8, reinterpret_cast<const int8_t*>(from))));
  const auto shifted = hn::ShiftLeft<7>(wide);  // the sign, spread by the promotion, is in place too; the bit below it is not
  return hn::Mul(widen_halves(hn::And(shifted, hn::Set(d16, uint16_t{0xbf80}))), hn::Set(d, 256.0f));
}

HWY_INLINE VF widen(F32, const f8e5m2* from) {
  const hn::Rebind<uint8_t, F32> d8;
  const hn::Rebind<uint16_t, F32> d16;
  return widen_halves(hn::ShiftLeft<8>(hn::PromoteTo(d16, hn::LoadU(d8, &from->bits))));
}

// FP32 products of FP32 rows and the numbers; sums have yet to be multiplied by their columns' scales.
template <typename F8>
struct FormatF8 : FormatF32 {
  using Weight = F8;
  static constexpr int kElementBytes = 1;

  template <int kPart>
  static HWY_INLINE V load_weights(const F8* from) {
    return widen(F32(), from);
  }
};

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
