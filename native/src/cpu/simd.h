// Portable SIMD for files that are compiled once per level: Google Highway with static dispatch, and the few loads
// and stores that every family needs. Nothing here may leave a symbol that the linker could share between levels:
// everything is static or always inline, and kernel files call no inline function of the standard library.
#pragma once

#if !defined(GATUN_LEVEL)
#error "simd.h is for files that are compiled once per level (cmake/CpuLevels.cmake)"
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gatun::cpu::GATUN_LEVEL {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using VF = hn::Vec<F32>;

// BF16 in memory: the upper half of an FP32.
struct bf16 {
  uint16_t bits;
};

// F16 in memory: IEEE 754 binary16.
struct f16 {
  uint16_t bits;
};

HWY_INLINE float to_float(float value) { return value; }
HWY_INLINE float to_float(int8_t value) { return static_cast<float>(value); }

HWY_INLINE float to_float(bf16 value) {
  uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Bit arithmetic at every level: for single elements and for the scalar level, which has no F16C. NaN becomes quiet, as
// F16C makes it.
HWY_INLINE float to_float(f16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {
    bits = 0x7f800000u | (magnitude << 13) | (magnitude > 0x7c00u ? 0x400000u : 0u);
  } else if (magnitude >= 0x400u) {
    bits = (magnitude << 13) + (112u << 23);  // the exponents' biases are 127 and 15
  } else {
    const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
    std::memcpy(&bits, &subnormal, sizeof bits);
  }
  bits |= sign;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Round to nearest, ties to even; NaN stays a (quiet) NaN.
HWY_INLINE void from_float(float value, float* out) { *out = value; }

HWY_INLINE void from_float(float value, bf16* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = static_cast<uint16_t>((bits >> 16) | 0x40u);
  } else {
    out->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

HWY_INLINE void from_float(float value, f16* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x1ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal; a carry out of the largest exponent is infinity
    const uint32_t rebiased = magnitude - (112u << 23);
    half = (rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13;
  } else {
    // A step of the floats from 1/2 to 1 is 2^-24, a step of the subnormal halves: the addition rounds. The bits of 1/2
    // itself are above the lower 16.
    float sum;
    std::memcpy(&sum, &magnitude, sizeof sum);
    sum += 0.5f;
    std::memcpy(&half, &sum, sizeof half);
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

HWY_INLINE VF load(F32 d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE VF load(F32 d, const bf16* from) {
  const hn::Rebind<uint16_t, F32> d16;
  const hn::Rebind<uint32_t, F32> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

HWY_INLINE VF load(F32 d, const int8_t* from) {
  const hn::Rebind<int8_t, F32> d8;
  const hn::Rebind<int32_t, F32> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, from)));
}

HWY_INLINE VF load(F32 d, const f16* from) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, to_float(*from));
#else
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
#endif
}

HWY_INLINE void store(F32 d, VF value, float* to) { hn::StoreU(value, d, to); }

// Rounded to BF16, ties to even, which the upper 16 bits of each lane then are; what the lower hold is of no meaning.
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, F32>> bf16_bits(VF value) {
  const hn::Rebind<uint32_t, F32> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fffu)));
  const auto quiet = hn::Or(bits, hn::Set(d32, 0x400000u));
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), quiet, rounded);
}

HWY_INLINE VF round_to_bf16(F32 d, VF value) {
  const hn::Rebind<uint32_t, F32> d32;
  return hn::BitCast(d, hn::And(bf16_bits(value), hn::Set(d32, 0xffff0000u)));
}

HWY_INLINE void store(F32, VF value, bf16* to) {
  const hn::Rebind<uint16_t, F32> d16;
  const hn::Rebind<int32_t, F32> s32;
  // 0 to 65535 in signed 32 bits: the demotion saturates nothing.
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(s32, hn::ShiftRight<16>(bf16_bits(value)))), d16, &to->bits);
}

HWY_INLINE void store(F32, VF value, f16* to) {
#if HWY_TARGET == HWY_SCALAR
  from_float(hn::GetLane(value), to);
#else
  const hn::Rebind<hwy::float16_t, F32> d16;
  hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(to));
#endif
}

// A store that, if kPast, leaves the caches as they are: for what is too much for them, and for whole cache lines, else
// memory reads what it is about to overwrite. hwy::FlushStream() comes before anyone else may read it.
template <bool kPast, typename T>
HWY_INLINE void store(F32 d, VF value, T* to) {
  if constexpr (kPast) {
    hn::Stream(value, d, to);
  } else {
    store(d, value, to);
  }
}

// Asks for what kVectors vectors of a stream are kPrefetchBytes further on, which hardware does not foresee at the ends
// of pages of 4 KiB. As much comes in the time that memory takes to answer, with room to spare: with a third of it a
// norm of rows was a quarter slower.
constexpr int64_t kPrefetchBytes = 6144;

template <int kVectors, typename T>
HWY_INLINE void prefetch(F32 d, const T* from) {
  constexpr int64_t kBytes = kVectors * HWY_LANES(float) * static_cast<int64_t>(sizeof(T));
  (void)d;
#pragma GCC unroll 8
  for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + kPrefetchBytes + i);
}

// The first `count` lanes (fewer than a vector); the others are `fill`, and memory beyond is not touched.
template <typename T>
HWY_INLINE VF load_some(F32 d, const T* from, size_t count, float fill) {
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = i < count ? to_float(from[i]) : fill;
  return hn::Load(d, lanes);
}

// The first `count` lanes, which may be all or more.
template <typename T>
HWY_INLINE VF load_up_to(F32 d, const T* from, int64_t count, float fill = 0.0f) {
  if (HWY_LIKELY(count >= static_cast<int64_t>(hn::Lanes(d)))) return load(d, from);
  return load_some(d, from, static_cast<size_t>(count), fill);
}

template <typename T>
HWY_INLINE void store_some(F32 d, VF value, T* to, size_t count) {
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(value, d, lanes);
  for (size_t i = 0; i < count; ++i) from_float(lanes[i], &to[i]);
}

}  // namespace gatun::cpu::GATUN_LEVEL
