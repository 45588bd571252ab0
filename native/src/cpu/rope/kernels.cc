// Rotary position embedding, and the append to a cache. Compiled once per level.
//
//   pair (a, b) at the angle of its position and index: (a cos - b sin, b cos + a sin), in FP32
//   S8: scale = amax / 127, value = rint(x / scale) within -127 to 127, of the FP32 row after the rotation
//
// Bytes: every element is read once and written once, 8 of FP32; a token's row of the table serves all of its heads.
// FLOPs: 3 for a rotated element, 4 for a quantized one. What binds it: memory; in the caches the loads and stores, the
// rounding to BF16, and the division of S8.
//
// The styles compute a pair by the same operations, so they differ in nothing but which elements are pairs. Interleaved
// pairs stay interleaved: x times the cosine of each element, plus x with neighbours exchanged times the sine of each,
// the sign in the sine. Exchanging lanes once is cheaper than parting the pairs and joining them again.
//
// A row for S8 is rotated into scratch, in FP32, and gone over twice there, once for amax and once for the values. amax
// is the largest of the magnitudes' bit patterns, where infinity and NaN come after all numbers: a row that has one
// gets scale NaN and values of 0. A scale that underflows to 0 has values of 0; a subnormal one is coarse, hence the
// bound of 127.
#include "cpu/rope/rope.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

void angles_of(const float* row, int64_t rotary, float* angles) {
  const int64_t half = rotary / 2;
  for (int64_t i = 0; i < half; ++i) {
    angles[2 * i] = angles[2 * i + 1] = row[i];
    angles[rotary + 2 * i] = -row[half + i];
    angles[rotary + 2 * i + 1] = row[half + i];
  }
}

template <typename X, typename Y>
constexpr bool kSame = false;
template <typename X>
constexpr bool kSame<X, X> = true;

template <typename X, typename Y>
HWY_INLINE void copy(F32 d, const X* x, Y* out, int64_t n) {
  if constexpr (kSame<X, Y>) {
    if (x != out) __builtin_memcpy(out, x, static_cast<size_t>(n) * sizeof(X));
  } else {
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    int64_t i = 0;
    for (; i <= n - lanes; i += lanes) store(d, load(d, x + i), out + i);
    if (i < n) {
      const size_t count = static_cast<size_t>(n - i);
      store_some(d, load_some(d, x + i, count, 0.0f), out + i, count);
    }
  }
}

HWY_INLINE void rotate_pairs(VF a, VF b, VF cosine, VF sine, VF* first, VF* second) {
  *first = hn::MulSub(a, cosine, hn::Mul(b, sine));
  *second = hn::MulAdd(b, cosine, hn::Mul(a, sine));
}

template <typename X, typename Y>
HWY_INLINE void rotate_halves(F32 d, const X* x, Y* out, const float* angles, int64_t rotary) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = rotary / 2;
  const float* sines = angles + half;
  VF first, second;
  int64_t i = 0;
  for (; i <= half - lanes; i += lanes) {
    rotate_pairs(load(d, x + i), load(d, x + half + i), hn::LoadU(d, angles + i), hn::LoadU(d, sines + i), &first,
                 &second);
    store(d, first, out + i);
    store(d, second, out + half + i);
  }
  if (i < half) {
    const size_t count = static_cast<size_t>(half - i);
    rotate_pairs(load_some(d, x + i, count, 0.0f), load_some(d, x + half + i, count, 0.0f),
                 load_some(d, angles + i, count, 0.0f), load_some(d, sines + i, count, 0.0f), &first, &second);
    store_some(d, first, out + i, count);
    store_some(d, second, out + half + i, count);
  }
}

template <typename X, typename Y>
HWY_INLINE void rotate_interleaved(F32 d, const X* x, Y* out, const float* angles, int64_t rotary) {
  const float* sines = angles + rotary;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < rotary; i += 2) {
    VF first, second;
    rotate_pairs(load(d, x + i), load(d, x + i + 1), hn::Set(d, angles[i]), hn::Set(d, sines[i + 1]), &first, &second);
    store(d, first, out + i);
    store(d, second, out + i + 1);
  }
#else
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i <= rotary - lanes; i += lanes) {
    const VF v = load(d, x + i);
    const VF crossed = hn::Mul(hn::Shuffle2301(v), hn::LoadU(d, sines + i));
    store(d, hn::MulAdd(v, hn::LoadU(d, angles + i), crossed), out + i);
  }
  if (i < rotary) {
    const size_t count = static_cast<size_t>(rotary - i);
    const VF v = load_some(d, x + i, count, 0.0f);
    const VF crossed = hn::Mul(hn::Shuffle2301(v), load_some(d, sines + i, count, 0.0f));
    store_some(d, hn::MulAdd(v, load_some(d, angles + i, count, 0.0f), crossed), out + i, count);
  }
#endif
}

template <bool kInterleaved, typename X, typename Y>
HWY_INLINE void rotate(F32 d, const X* x, Y* out, const float* angles, int64_t rotary, int64_t n) {
  if constexpr (kInterleaved) {
    rotate_interleaved(d, x, out, angles, rotary);
  } else {
    rotate_halves(d, x, out, angles, rotary);
  }
  copy(d, x + rotary, out + rotary, n - rotary);
}

template <bool kInterleaved, typename X, typename Y>
void heads_of(const RopeHeads& h) {
  const F32 d;
  for (int64_t head = 0; head < h.heads; ++head) {
    rotate<kInterleaved>(d, static_cast<const X*>(h.x) + head * h.x_stride,
                         static_cast<Y*>(h.out) + head * h.out_stride, h.angles, h.rotary, h.n);
  }
}

using S32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;

HWY_INLINE hn::Vec<S32> magnitude_bits(VF v) { return hn::BitCast(S32(), hn::Abs(v)); }

// The values of a vector: the sum with 1.5 2^23 rounds to an integer, ties to even, which the lowest bits of the sum
// are. `scale` is not 0.
HWY_INLINE hn::Vec<U32> quantized(F32 d, VF v, VF scale) {
  const VF most = hn::Set(d, 127.0f);
  const VF steps = hn::Min(hn::Max(hn::Div(v, scale), hn::Neg(most)), most);
  return hn::BitCast(U32(), hn::Add(steps, hn::Set(d, 0x1.8p23f)));
}

template <typename X>
HWY_INLINE void quantize(F32 d, const X* x, uint8_t* out, float* scale, int64_t n) {
  const hn::Rebind<uint8_t, F32> d8;
  const S32 d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<S32> m0 = hn::Zero(d32), m1 = m0;
  int64_t i = 0;
  for (; i <= n - 2 * lanes; i += 2 * lanes) {
    m0 = hn::Max(m0, magnitude_bits(load(d, x + i)));
    m1 = hn::Max(m1, magnitude_bits(load(d, x + i + lanes)));
  }
  for (; i <= n - lanes; i += lanes) m0 = hn::Max(m0, magnitude_bits(load(d, x + i)));
  if (i < n) m1 = hn::Max(m1, magnitude_bits(load_some(d, x + i, static_cast<size_t>(n - i), 0.0f)));
  const int32_t largest = hn::GetLane(hn::MaxOfLanes(d32, hn::Max(m0, m1)));
  float amax;
  __builtin_memcpy(&amax, &largest, sizeof amax);
  *scale = largest < 0x7f800000 ? amax / 127.0f : __builtin_nanf("");
  if (!(*scale > 0.0f)) {
    __builtin_memset(out, 0, static_cast<size_t>(n));
    return;
  }
  const VF divisor = hn::Set(d, *scale);
  for (i = 0; i <= n - lanes; i += lanes) {
    hn::StoreU(hn::TruncateTo(d8, quantized(d, load(d, x + i), divisor)), d8, out + i);
  }
  if (i < n) {
    const size_t count = static_cast<size_t>(n - i);
    HWY_ALIGN uint8_t last[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(hn::TruncateTo(d8, quantized(d, load_some(d, x + i, count, 0.0f), divisor)), d8, last);
    __builtin_memcpy(out + i, last, count);
  }
}

template <bool kInterleaved, typename X>
void quantized_heads_of(const RopeHeads& h) {
  const F32 d;
  for (int64_t head = 0; head < h.heads; ++head) {
    const X* x = static_cast<const X*>(h.x) + head * h.x_stride;
    uint8_t* out = static_cast<uint8_t*>(h.out) + head * h.out_stride;
    if (h.rotary == 0) {
      quantize(d, x, out, &h.scales[head], h.n);
    } else {
      rotate<kInterleaved>(d, x, h.scratch, h.angles, h.rotary, h.n);
      quantize(d, h.scratch, out, &h.scales[head], h.n);
    }
  }
}

}  // namespace

#define GATUN_ROPE_OF(interleaved, X)                                                               \
  {                                                                                                 \
    heads_of<interleaved, X, float>, heads_of<interleaved, X, bf16>, heads_of<interleaved, X, f16>, \
        quantized_heads_of<interleaved, X>                                                          \
  }

extern const RopeKernels rope_kernels;
const RopeKernels rope_kernels = {
    angles_of,
    {{GATUN_ROPE_OF(false, float), GATUN_ROPE_OF(false, bf16), GATUN_ROPE_OF(false, f16)},
     {GATUN_ROPE_OF(true, float), GATUN_ROPE_OF(true, bf16), GATUN_ROPE_OF(true, f16)}}};

#undef GATUN_ROPE_OF

}  // namespace gatun::cpu::GATUN_LEVEL
