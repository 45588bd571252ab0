// Loops that do nothing but what a ceiling counts. Compiled once per level.
//
// Multiply-adds: chains of them in registers, so only their units bind. They need latency times units chains to stay busy:
// 8 on today's cores, and there are 12, as many as a GEMM tile of 16 registers has. FP32 is FMA (a multiplication and an
// addition at the scalar level, four lanes of each, which the compiler makes of the scalar kernels too). BF16 is what that
// GEMM does: pairs of weights from memory, widened to FP32 and multiplied. INT8 is its multiply-add as well: vpdpbusd sums
// four products, vpmaddwd two and takes an addition more, the scalar level one by one.
//
// Reading: four streams a quarter of the range apart, as hardware prefetchers follow several; one addition for each vector,
// so the memory binds, or the L2 cache's queue of misses when few threads read. Copying: the same four streams, with stores
// that do not read what they overwrite.
//
// Exponentials: those of math.h that a softmax takes, of four vectors at a time as its hot loops do, in registers.
#include "cpu/limits/limits.h"

#include <hwy/cache_control.h>

#include "cpu/math.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kChains = 12;

// What the compiler must take to have changed here: it can neither move work on `value` out of a loop nor leave it out.
template <typename T>
HWY_INLINE void touch(T& value) {
#if HWY_ARCH_X86
  asm volatile("" : "+v"(value));
#else
  asm volatile("" : "+w"(value));
#endif
}

#if HWY_TARGET == HWY_SCALAR

using Floats = float __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(16)));
constexpr int64_t kFloats = 4;

HWY_INLINE Floats splat(float value) { return Floats{value, value, value, value}; }
HWY_INLINE Floats multiply_add(Floats x, Floats w, Floats sum) { return sum + x * w; }
HWY_INLINE Words load_words(const uint32_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}
HWY_INLINE Floats lower_half(Words pairs) { return reinterpret_cast<Floats>(pairs << 16); }
HWY_INLINE Floats upper_half(Words pairs) { return reinterpret_cast<Floats>(pairs & 0xffff0000u); }
HWY_INLINE Words add(Words a, Words b) { return a + b; }
HWY_INLINE uint32_t first(Floats value) { return reinterpret_cast<Words>(value)[0]; }
HWY_INLINE uint32_t first(Words value) { return value[0]; }

#else

using U32 = hn::Rebind<uint32_t, F32>;
using Raw = decltype(VF::raw);
using Floats = Raw;
using Words = decltype(hn::Vec<U32>::raw);
constexpr int64_t kFloats = static_cast<int64_t>(HWY_LANES(float));

HWY_INLINE Floats splat(float value) { return hn::Set(F32(), value).raw; }
HWY_INLINE Floats multiply_add(Floats x, Floats w, Floats sum) { return hn::MulAdd(VF{x}, VF{w}, VF{sum}).raw; }
HWY_INLINE Words load_words(const uint32_t* from) { return hn::Load(U32(), from).raw; }
HWY_INLINE Floats lower_half(Words pairs) {
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::Vec<U32>{pairs})).raw;
}
HWY_INLINE Floats upper_half(Words pairs) {
  return hn::BitCast(F32(), hn::And(hn::Vec<U32>{pairs}, hn::Set(U32(), 0xffff0000u))).raw;
}
HWY_INLINE Words add(Words a, Words b) { return hn::Add(hn::Vec<U32>{a}, hn::Vec<U32>{b}).raw; }
HWY_INLINE uint32_t first(Floats value) { return hn::GetLane(hn::BitCast(U32(), VF{value})); }
HWY_INLINE uint32_t first(Words value) { return hn::GetLane(hn::Vec<U32>{value}); }

#endif

// Sums to start from. Chains that start from one value would be one chain to the compiler.
template <typename V>
HWY_INLINE void start(V (&sums)[kChains], V from) {
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) {
    sums[i] = from;
    touch(sums[i]);
  }
}

template <typename V, int kCount>
HWY_INLINE uint32_t result(const V (&sums)[kCount]) {
  uint32_t all = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) all ^= first(sums[i]);
  return all;
}

uint32_t run_f32(int64_t rounds) {
  Floats x = splat(0.5f), w = splat(0x1p-20f);
  Floats sums[kChains];
  start(sums, splat(1.0f));
  for (int64_t r = 0; r < rounds; ++r) {
    touch(x);
    touch(w);
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = multiply_add(x, w, sums[i]);
  }
  return result(sums);
}

// The weights of two vectors of columns, six rows: the tile of the GEMM with 16 registers.
uint32_t run_bf16(int64_t rounds) {
  HWY_ALIGN uint32_t weights[2 * kFloats];
  for (int64_t i = 0; i < 2 * kFloats; ++i) weights[i] = 0x35803580u;  // twice 2^-20
  Floats x = splat(0.5f);
  Floats sums[kChains];
  start(sums, splat(1.0f));
  const uint32_t* from = weights;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+r"(from) : : "memory");
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Words left = load_words(from), right = load_words(from + kFloats);
      Floats w[2] = {half == 0 ? lower_half(left) : upper_half(left), half == 0 ? lower_half(right) : upper_half(right)};
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) sums[i] = multiply_add(x, w[i % 2], sums[i]);
      // Alive to this point: GCC otherwise puts sums into the registers of multiplicands and spills others.
      touch(w[0]);
      touch(w[1]);
      touch(x);
    }
  }
  return result(sums);
}

#if HWY_TARGET == HWY_SCALAR

constexpr int64_t kProducts = 1;  // of one multiply-add

uint32_t run_s8(int64_t rounds) {
  uint32_t x = 3, w = 5;
  uint32_t a = 0, b = 0, c = 0, e = 0;
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; i += 4) {
      asm volatile("" : "+r"(x), "+r"(w));
      a += x * w;
      asm volatile("" : "+r"(x));
      b += x * w;
      asm volatile("" : "+r"(x));
      c += x * w;
      asm volatile("" : "+r"(x));
      e += x * w;
    }
  }
  return a ^ b ^ c ^ e;
}

#else

using I32 = hn::Rebind<int32_t, F32>;
using I16 = hn::Repartition<int16_t, I32>;
using VI = hn::Vec<I32>;

#if defined(__AVX512VNNI__)
constexpr int64_t kProducts = 4 * kFloats;
HWY_INLINE Words multiply_add_integers(Words x, Words w, Words sum) { return _mm512_dpbusd_epi32(sum, x, w); }
#else
constexpr int64_t kProducts = 2 * kFloats;
HWY_INLINE Words multiply_add_integers(Words x, Words w, Words sum) {
  VI unused = hn::Zero(I32());
  return hn::ReorderWidenMulAccumulate(I32(), hn::BitCast(I16(), VI{x}), hn::BitCast(I16(), VI{w}), VI{sum}, unused).raw;
}
#endif

uint32_t run_s8(int64_t rounds) {
  Words x = hn::Set(I32(), 0x01020304).raw, w = hn::Set(I32(), 0x05060708).raw;
  Words sums[kChains];
  start(sums, hn::Zero(I32()).raw);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      touch(x);  // else products of one x and w are the same each time, and taken out of the loop
      sums[i] = multiply_add_integers(x, w, sums[i]);
    }
  }
  return result(sums);
}

#endif

uint32_t run_exp(int64_t rounds) {
  const F32 d;
  VF a = hn::Set(d, -0.5f), b = hn::Set(d, -1.5f), c = hn::Set(d, -2.5f), e = hn::Set(d, -3.5f);
  VF sum = hn::Zero(d);
  for (int64_t r = 0; r < rounds; ++r) {
    touch(a.raw);
    touch(b.raw);
    touch(c.raw);
    touch(e.raw);
    const Four all = exp_nonpositive(d, Four{a, b, c, e});
    sum = hn::Add(sum, hn::Add(hn::Add(all.a, all.b), hn::Add(all.c, all.e)));
  }
  return hn::GetLane(hn::BitCast(hn::RebindToUnsigned<F32>(), sum));
}

constexpr int kStreams = 4;  // of a sweep through memory

uint32_t read(const void* from, int64_t bytes) {
  constexpr int kVectors = 2;  // of a stream, at a time
  const uint32_t* words = static_cast<const uint32_t*>(from);
  const int64_t stream = bytes / kStreams / static_cast<int64_t>(sizeof(uint32_t));
  Words sums[kStreams * kVectors] = {};
  for (int64_t i = 0; i < stream; i += kVectors * kFloats) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        Words& sum = sums[s * kVectors + v];
        sum = add(sum, load_words(words + s * stream + i + v * kFloats));
      }
    }
  }
  return result(sums);
}

void copy(const void* from, void* to, int64_t bytes) {
  const F32 d;
  const float* source = static_cast<const float*>(from);
  float* target = static_cast<float*>(to);
  const int64_t stream = bytes / kStreams / static_cast<int64_t>(sizeof(float));
  constexpr int64_t kLine = 64 / sizeof(float), kLanes = static_cast<int64_t>(HWY_LANES(float));
  for (int64_t i = 0; i < stream; i += kLine) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      // Whole lines: a store past the caches waits for the rest of its line.
#pragma GCC unroll 16
      for (int64_t v = 0; v < kLine; v += kLanes) {
        hn::Stream(hn::Load(d, source + s * stream + i + v), d, target + s * stream + i + v);
      }
    }
  }
  hwy::FlushStream();
}

}  // namespace

extern const LimitKernels limit_kernels;
const LimitKernels limit_kernels = {{2 * kChains * kFloats, run_f32},
                                    {4 * kChains * kFloats, run_bf16},
                                    {2 * kChains * kProducts, run_s8},
                                    {4 * static_cast<int64_t>(HWY_LANES(float)), run_exp},
                                    read,
                                    copy};

}  // namespace gatun::cpu::GATUN_LEVEL
