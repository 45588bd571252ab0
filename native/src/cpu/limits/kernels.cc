// Loops that do nothing but what a ceiling counts. Compiled once per level.
//
// Multiply-adds: a GEMM's tile, its operands in the L1 cache: two loads of weights (four on Arm), a broadcast for each row,
// and a multiply-add for each of them. So the units bind, as there are more chains than latency times units (12 for
// vdpbf16ps, 8 for the others on today's cores), as long as the loads keep up; a GEMM can do no better. FP32 is FMA (a
// multiplication and an addition at the scalar level, four lanes of each, which the compiler makes of the scalar
// kernels too). BF16 is vdpbf16ps or bfdot, which sum two products; else pairs of weights, widened to FP32 and
// multiplied. INT8 is vpdpbusd, usdot or sdot, which sum four products, or vpmaddwd, which sums two and takes an addition
// more, or smlal, which sums one, of weights that are 16 bits already; the scalar level does one by one. Tiles of AMX: two of
// rows and two of weights, loaded from the L1 cache for four products.
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
#include "cpu/tiles.h"

#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
#include <arm_neon.h>
#endif

namespace gatun::cpu::GATUN_LEVEL {
namespace {

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

template <typename V, int kCount>
HWY_INLINE uint32_t result(const V (&sums)[kCount]) {
  uint32_t all = 0;
#pragma GCC unroll 32
  for (int i = 0; i < kCount; ++i) all ^= first(sums[i]);
  return all;
}

// A level's multiply-adds of one type: kParts of them take the words of rows and weights that belong together.
// Operands are such that no sum leaves the normal numbers.
struct UnitF32 {
  using V = Floats;
  static constexpr int kParts = 1;
  static constexpr int64_t kProducts = kFloats;
  static constexpr uint32_t kRow = 0x3f000000u, kWeight = 0x35800000u;  // 1/2 and 2^-20

  template <int kPart>
  static HWY_INLINE V weights(const uint32_t* from) {
    return reinterpret_cast<V>(load_words(from));
  }
  static HWY_INLINE V row(const uint32_t* from) { return splat(*reinterpret_cast<const float*>(from)); }
  static HWY_INLINE V multiply_add(V x, V w, V sum) { return gatun::cpu::GATUN_LEVEL::multiply_add(x, w, sum); }
};

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

struct UnitBf16 : UnitF32 {
  static constexpr int64_t kProducts = 2 * kFloats;
  static constexpr uint32_t kRow = 0x3f003f00u, kWeight = 0x35803580u;

#if HWY_ARCH_X86
  static HWY_INLINE V multiply_add(V x, V w, V sum) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w); }
#else
  static HWY_INLINE V multiply_add(V x, V w, V sum) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(x), vreinterpretq_bf16_f32(w));
  }
#endif
};

#else

struct UnitBf16 : UnitF32 {
  static constexpr int kParts = 2;
  static constexpr uint32_t kWeight = 0x35803580u;

  template <int kPart>
  static HWY_INLINE V weights(const uint32_t* from) {
    return kPart == 0 ? lower_half(load_words(from)) : upper_half(load_words(from));
  }
};

#endif

#if HWY_TARGET != HWY_SCALAR

using I32 = hn::Rebind<int32_t, F32>;
using I16 = hn::Repartition<int16_t, I32>;
using VI = hn::Vec<I32>;

struct UnitS8 {
  using V = Words;
  static constexpr int kParts = 1;
  static constexpr uint32_t kRow = 0x01020304u, kWeight = 0x05060708u;

  template <int kPart>
  static HWY_INLINE V weights(const uint32_t* from) {
    return load_words(from);
  }
  static HWY_INLINE V row(const uint32_t* from) { return hn::Set(U32(), *from).raw; }
#if defined(__AVX512VNNI__)
  static constexpr int64_t kProducts = 4 * kFloats;
  static HWY_INLINE V multiply_add(V x, V w, V sum) { return _mm512_dpbusd_epi32(sum, x, w); }
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr int64_t kProducts = 4 * kFloats;
  static HWY_INLINE V multiply_add(V x, V w, V sum) {
    return vreinterpretq_u32_s32(
        vusdotq_s32(vreinterpretq_s32_u32(sum), vreinterpretq_u8_u32(x), vreinterpretq_s8_u32(w)));
  }
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr int64_t kProducts = 4 * kFloats;
  static HWY_INLINE V multiply_add(V x, V w, V sum) {
    return vreinterpretq_u32_s32(
        vdotq_s32(vreinterpretq_s32_u32(sum), vreinterpretq_s8_u32(x), vreinterpretq_s8_u32(w)));
  }
#elif HWY_ARCH_ARM_A64
  static constexpr int64_t kProducts = kFloats;
  static HWY_INLINE V multiply_add(V x, V w, V sum) {
    return vreinterpretq_u32_s32(vmlal_s16(vreinterpretq_s32_u32(sum), vget_low_s16(vreinterpretq_s16_u32(x)),
                                           vget_low_s16(vreinterpretq_s16_u32(w))));
  }
#else
  static constexpr int64_t kProducts = 2 * kFloats;
  static HWY_INLINE V multiply_add(V x, V w, V sum) {
    VI unused = hn::Zero(I32());
    return hn::ReorderWidenMulAccumulate(I32(), hn::BitCast(I16(), VI{x}), hn::BitCast(I16(), VI{w}), VI{sum}, unused)
        .raw;
  }
#endif
};

#endif

// The tile of a GEMM: two vectors of weights, four on Arm, by as many rows as there are registers for.
constexpr int kRows = HWY_MAX_BYTES >= 64 ? 12 : 6;
constexpr int kColumns = HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR ? 4 : 2;  // in vectors
constexpr int kSteps = 64;  // of a round

template <typename Unit, int kPart, typename V>
HWY_INLINE void step(const uint32_t* rows, const uint32_t* weights, V (&sums)[kColumns * kRows]) {
  V w[kColumns];
#pragma GCC unroll 4
  for (int c = 0; c < kColumns; ++c) w[c] = Unit::template weights<kPart>(weights + c * kFloats);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    V x = Unit::row(rows + r * kSteps * Unit::kParts + kPart);
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      V& sum = sums[kColumns * r + c];
      sum = Unit::multiply_add(x, w[c], sum);
    }
    // Alive to this point: GCC otherwise puts sums into the registers of multiplicands and spills others.
    if (Unit::kParts > 1) touch(x);
  }
  if (Unit::kParts > 1) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) touch(w[c]);
  }
}

template <typename Unit>
uint32_t run_tile(int64_t rounds) {
  using V = typename Unit::V;
  HWY_ALIGN uint32_t rows[kRows * kSteps * Unit::kParts], weights[kSteps * kColumns * kFloats];
  for (uint32_t& row : rows) row = Unit::kRow;
  for (uint32_t& weight : weights) weight = Unit::kWeight;
  V sums[kColumns * kRows];
  // Chains that start from one value would be one chain to the compiler.
#pragma GCC unroll 32
  for (int i = 0; i < kColumns * kRows; ++i) {
    sums[i] = reinterpret_cast<V>(splat(1.0f));
    touch(sums[i]);
  }
  for (int64_t r = 0; r < rounds; ++r) {
    const uint32_t* a = rows;
    const uint32_t* w = weights;
    asm volatile("" : "+r"(a), "+r"(w) : : "memory");
    for (int p = kSteps; p > 0; --p, a += Unit::kParts, w += kColumns * kFloats) {
      step<Unit, 0>(a, w, sums);
      if constexpr (Unit::kParts > 1) step<Unit, 1>(a, w, sums);
    }
  }
  return result(sums);
}

template <typename Unit>
constexpr LimitKernels::Compute kCompute = {int64_t{2} * Unit::kProducts * Unit::kParts * kColumns * kRows * kSteps,
                                            run_tile<Unit>};

#if HWY_TARGET == HWY_SCALAR

// One by one.
uint32_t run_s8(int64_t rounds) {
  uint32_t x = 3, w = 5;
  uint32_t a = 0, b = 0, c = 0, e = 0;
  for (int64_t r = 0; r < rounds * kSteps; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i += 2) {
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

constexpr LimitKernels::Compute kComputeS8 = {int64_t{2} * 2 * kRows * kSteps, run_s8};

#else

constexpr LimitKernels::Compute kComputeS8 = kCompute<UnitS8>;

#endif

#if defined(GATUN_LEVEL_amx)

template <int kSums, int kRowTile, int kColumnTile, bool kIntegers>
HWY_INLINE void multiply_tile() {
  if constexpr (kIntegers) {
    multiply_u8s8<kSums, kRowTile, kColumnTile>();
  } else {
    multiply_bf16<kSums, kRowTile, kColumnTile>();
  }
}

template <bool kIntegers>
uint32_t run_tiles(int64_t rounds) {
  constexpr int kBytes = kTileRows * kTileBytes, kTilesOf = 8;  // of rows and of weights, each
  alignas(64) uint32_t rows[kTilesOf * kBytes / 4], weights[kTilesOf * kBytes / 4];
  for (uint32_t& row : rows) row = kIntegers ? 0x01020304u : 0x3f003f00u;
  for (uint32_t& weight : weights) weight = kIntegers ? 0x05060708u : 0x35803580u;
  TileShapes shapes;
  for (uint8_t& count : shapes.rows) count = kTileRows;
  set_tiles(shapes);
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for (int64_t r = 0; r < rounds; ++r) {
    for (int p = 0; p < kSteps; ++p) {
      const int at = p * 2 % kTilesOf * kBytes / 4;
      load_tile<4>(rows + at, kTileBytes);
      load_tile<6>(weights + at, kTileBytes);
      multiply_tile<0, 4, 6, kIntegers>();
      load_tile<7>(weights + at + kBytes / 4, kTileBytes);
      multiply_tile<1, 4, 7, kIntegers>();
      load_tile<5>(rows + at + kBytes / 4, kTileBytes);
      multiply_tile<2, 5, 6, kIntegers>();
      multiply_tile<3, 5, 7, kIntegers>();
    }
  }
  store_tile<0>(rows, kTileBytes);
  release_tiles();
  return rows[0];
}

template <bool kIntegers>
constexpr LimitKernels::Compute kTiles = {int64_t{2} * 4 * kTileRows * kTileRows * (kTileBytes / (kIntegers ? 1 : 2)) * kSteps,
                                          run_tiles<kIntegers>};

constexpr LimitKernels::Compute kComputeBf16 = kTiles<false>, kComputeInt8 = kTiles<true>;

#else

constexpr LimitKernels::Compute kComputeBf16 = kCompute<UnitBf16>, kComputeInt8 = kComputeS8;

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
const LimitKernels limit_kernels = {kCompute<UnitF32>,
                                    kComputeBf16,
                                    kComputeInt8,
                                    {4 * static_cast<int64_t>(HWY_LANES(float)), run_exp},
                                    read,
                                    copy};

}  // namespace gatun::cpu::GATUN_LEVEL
