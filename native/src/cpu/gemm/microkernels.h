// The register tiles: kRows rows by kPanels panels of partial sums that stay in registers while k runs by. Per step of
// k one vector load per vector of weights, one broadcast load per row, and one multiply-add for each pair of them, so
// the multiply-add units bind as long as there are enough independent chains: latency times units, 8 on today's cores.
// Fewer rows than that needs take more panels at once, which for a single row also means several streams of weights
// from memory.
//
// Rows are read where they lie, a row after the other, not interleaved: each row's cache line serves 16 steps.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/simd.h"

#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
#include <arm_neon.h>
#endif

namespace gatun::cpu::GATUN_LEVEL {
namespace {

using I32 = hn::Rebind<int32_t, F32>;
using VI = hn::Vec<I32>;

// Tile shapes by register count: 16 registers hold 6 x 2 sums, 2 weights and a broadcast; 32 hold 12 x 2 of them, or 6 x 4
// where four vectors are a cache line of FP32, with room for the compiler. Without vectors the compiler packs four columns
// if it can.
#if HWY_TARGET == HWY_SCALAR
constexpr int kVectors = 4;  // of a panel
constexpr int kRowTile = 3;
#elif defined(GATUN_AMX_MODEL)
constexpr int kVectors = 4;  // columns of a panel as AVX-512 has them
constexpr int kRowTile = 3;
#elif HWY_MAX_BYTES >= 64
constexpr int kVectors = 2;
constexpr int kRowTile = 12;
#elif HWY_ARCH_ARM_A64
constexpr int kVectors = 4;
constexpr int kRowTile = 6;
#else
constexpr int kVectors = 2;
constexpr int kRowTile = 6;
#endif
constexpr int64_t kPanel = kVectors * static_cast<int64_t>(HWY_LANES(float));

// Panels that a tile of `rows` rows takes at once: as many as leave registers for their weights.
constexpr int kTwoPanelRows = HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR ? 2 : 3;
HWY_INLINE constexpr int panels_at_once(int64_t rows) { return rows == 1 ? 4 : rows <= kTwoPanelRows ? 2 : 1; }

// Whether tiles of AMX multiply a format (tiled.h).
template <typename Format>
constexpr bool kTiled = false;

// How far ahead of the multiply-adds weights are fetched, over all panels taken at once: enough to cover the latency of
// memory. What is fetched past a panel's end is the start of the next.
constexpr int64_t kPrefetchBytes = 512;

// What one call multiplies: sums[kRows][kPanel] of panel i lie at sums + i * sums_stride, and start from zero unless
// `accumulate`.
template <typename Row, typename Weight, typename Sum>
struct Product {
  int64_t steps;  // groups of k
  const Row* rows;
  int64_t row_stride;
  const Weight* weights;
  int64_t weights_stride;  // from panel to panel
  Sum* sums;
  int64_t sums_stride;
  bool accumulate;
  // What the L2 cache fetches meanwhile: weights that are multiplied next, so many bytes with each step.
  const unsigned char* next;
  int64_t next_bytes;
};

template <int kRows, int kPanels, typename D, typename V, typename Sum>
HWY_INLINE void load_sums(D d, const Sum* sums, int64_t stride, bool accumulate, V (&acc)[kRows][kPanels * kVectors]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      const Sum* from = sums + v / kVectors * stride + r * kPanel + v % kVectors * lanes;
      acc[r][v] = accumulate ? hn::LoadU(d, from) : hn::Zero(d);
    }
  }
}

template <int kRows, int kPanels, typename D, typename V, typename Sum>
HWY_INLINE void store_sums(D d, Sum* sums, int64_t stride, const V (&acc)[kRows][kPanels * kVectors]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      hn::StoreU(acc[r][v], d, sums + v / kVectors * stride + r * kPanel + v % kVectors * lanes);
    }
  }
}

// FP32.
struct FormatF32 {
  using Row = float;
  using Weight = float;
  using Sum = float;
  using V = VF;
  static constexpr int kGroup = 1;         // elements of k in a step
  static constexpr int kParts = 1;         // multiply-adds that they take
  static constexpr int kElementBytes = 4;  // of a weight

  template <int kPart>
  static HWY_INLINE V load_weights(const float* from) {
    return hn::Load(F32(), from);
  }
  template <int kPart>
  static HWY_INLINE V load_row(const float* from) {
    return hn::Set(F32(), *from);
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) { return hn::MulAdd(row, weights, sum); }
};

// F16, widened as it is loaded, subnormal numbers too: FP32 products of FP32 rows, with half the bytes of weights. What an
// instruction that sums in F16 would save in time it would lose in precision.
struct FormatF16 : FormatF32 {
  using Weight = f16;
  static constexpr int kElementBytes = 2;

  template <int kPart>
  static HWY_INLINE V load_weights(const f16* from) {
    return load(F32(), from);
  }
};

// BF16. vdpbf16ps multiplies a pair of rows' elements by one of weights: sum + upper * upper, then + lower * lower,
// each rounded to nearest even, with denormals of operands and sums taken and given as zeros. bfdot of Arm adds the two
// products first and then the sum, each rounded to odd, with denormals as zeros too. Without either weights are widened
// in registers: a pair of them fills a 32-bit lane, the upper is an FP32 once the lower is masked off, the lower once it
// is shifted up; rows are then FP32 that hold BF16 values, so products are exact.
struct FormatBf16 {
  using Weight = bf16;
  using Sum = float;
  using V = VF;
  static constexpr int kGroup = 2;
  static constexpr int kElementBytes = 2;

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  using Row = bf16;
  static constexpr int kParts = 1;

  template <int kPart>
  static HWY_INLINE V load_weights(const bf16* from) {
    return hn::Load(F32(), reinterpret_cast<const float*>(from));
  }
  template <int kPart>
  static HWY_INLINE V load_row(const bf16* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return hn::BitCast(F32(), hn::Set(I32(), pair));
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) {
#if HWY_ARCH_X86
    return V{_mm512_dpbf16_ps(sum.raw, (__m512bh)row.raw, (__m512bh)weights.raw)};
#else
    return V{vbfdotq_f32(sum.raw, vreinterpretq_bf16_f32(row.raw), vreinterpretq_bf16_f32(weights.raw))};
#endif
  }
#else
#if defined(GATUN_AMX_MODEL)
  using Row = bf16;  // as of the level that the model stands in for
#else
  using Row = float;
#endif
  static constexpr int kParts = 2;

  template <int kPart>
  static HWY_INLINE V load_weights(const bf16* from) {
    const hn::Rebind<uint32_t, F32> d32;
    const auto pair = hn::LoadU(d32, reinterpret_cast<const uint32_t*>(from));
    return hn::BitCast(F32(), kPart == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(d32, 0xffff0000u)));
  }
  template <int kPart>
  static HWY_INLINE V load_row(const Row* from) {
    return hn::Set(F32(), to_float(from[kPart]));
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) { return hn::MulAdd(row, weights, sum); }
#endif
};

// INT8: u8 rows by s8 weights, summed in 32 bits, exactly. A step multiplies the next kGroup elements of k in one
// instruction: vpdpbusd, or usdot of Arm's I8MM, sums four of them. sdot of Arm sums four too, but takes s8 rows, so those
// are kept less kRowOffset, and so are their zero points, which comes to the same. Without them, rows are kept as s16 and
// weights widened to s16 for vpmaddwd, which sums two (vpmaddubsw would take the bytes as they are, but saturates at 16
// bits), or for smlal, which sums one.
struct FormatS8 {
  using Weight = int8_t;
  using Sum = int32_t;
  using V = VI;
  static constexpr int kParts = 1;
  static constexpr int kElementBytes = 1;

#if defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_MATMUL_INT8)
  using Row = int8_t;
  static constexpr int32_t kRowOffset = 128;
#elif defined(__AVX512VNNI__) || defined(__ARM_FEATURE_MATMUL_INT8)
  using Row = uint8_t;
  static constexpr int32_t kRowOffset = 0;
#else
  using Row = int16_t;
  static constexpr int32_t kRowOffset = 0;
#endif

#if defined(__AVX512VNNI__) || defined(__ARM_FEATURE_DOTPROD)
  static constexpr int kGroup = 4;

  template <int kPart>
  static HWY_INLINE V load_weights(const int8_t* from) {
    const hn::Repartition<int8_t, I32> d8;
    return hn::BitCast(I32(), hn::LoadU(d8, from));
  }
  template <int kPart>
  static HWY_INLINE V load_row(const Row* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof four);
    return hn::Set(I32(), four);
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) {
#if HWY_ARCH_X86
    return V{_mm512_dpbusd_epi32(sum.raw, row.raw, weights.raw)};
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    return V{vusdotq_s32(sum.raw, vreinterpretq_u8_s32(row.raw), vreinterpretq_s8_s32(weights.raw))};
#else
    return V{vdotq_s32(sum.raw, vreinterpretq_s8_s32(row.raw), vreinterpretq_s8_s32(weights.raw))};
#endif
  }
#elif HWY_TARGET == HWY_SCALAR
  static constexpr int kGroup = 1;

  template <int kPart>
  static HWY_INLINE V load_weights(const int8_t* from) {
    return hn::Set(I32(), *from);
  }
  template <int kPart>
  static HWY_INLINE V load_row(const int16_t* from) {
    return hn::Set(I32(), *from);
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) { return hn::Add(sum, hn::Mul(row, weights)); }
#elif HWY_ARCH_ARM_A64
  static constexpr int kGroup = 1;

  // Four weights in the lower half, and again in the upper one, which nothing reads.
  template <int kPart>
  static HWY_INLINE V load_weights(const int8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof four);
    return V{vreinterpretq_s32_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))};
  }
  template <int kPart>
  static HWY_INLINE V load_row(const int16_t* from) {
    return V{vreinterpretq_s32_s16(vdupq_n_s16(*from))};
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) {
    return V{vmlal_s16(sum.raw, vget_low_s16(vreinterpretq_s16_s32(row.raw)),
                       vget_low_s16(vreinterpretq_s16_s32(weights.raw)))};
  }
#else
  static constexpr int kGroup = 2;

  template <int kPart>
  static HWY_INLINE V load_weights(const int8_t* from) {
    const hn::Repartition<int16_t, I32> d16;
    const hn::Rebind<int8_t, decltype(d16)> d8;
    return hn::BitCast(I32(), hn::PromoteTo(d16, hn::LoadU(d8, from)));
  }
  template <int kPart>
  static HWY_INLINE V load_row(const int16_t* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return hn::Set(I32(), pair);
  }
  static HWY_INLINE V multiply_add(V row, V weights, V sum) {
    const hn::Repartition<int16_t, I32> d16;
    V unused = hn::Zero(I32());
    return hn::ReorderWidenMulAccumulate(I32(), hn::BitCast(d16, row), hn::BitCast(d16, weights), sum, unused);
  }
#endif
};

template <typename Format>
using ProductOf = Product<typename Format::Row, typename Format::Weight, typename Format::Sum>;

// Keeps a multiplicand alive to this point. Where a loop's body holds two multiply-adds for each sum, GCC otherwise
// puts the first one's result into the register of its multiplicand, runs out of registers and spills the sums.
template <typename V>
HWY_INLINE void keep_alive(V multiplicand) {
#if HWY_ARCH_X86_64 && HWY_TARGET != HWY_SCALAR
  asm volatile("" : : "v"(multiplicand.raw));
#elif HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  asm volatile("" : : "w"(multiplicand.raw));
#else
  (void)multiplicand;
#endif
}

template <typename Format, int kPart, int kRows, int kPanels, typename Row, typename Weight, typename V>
HWY_INLINE void multiply_part(const Row* a, int64_t a_stride, const Weight* b, int64_t b_stride,
                              V (&acc)[kRows][kPanels * kVectors]) {
  constexpr int64_t kVector = static_cast<int64_t>(HWY_LANES(float)) * Format::kGroup;  // weights of one
  V w[kPanels * kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kPanels * kVectors; ++v) {
    w[v] = Format::template load_weights<kPart>(b + v / kVectors * b_stride + v % kVectors * kVector);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const V x = Format::template load_row<kPart>(a + r * a_stride);
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = Format::multiply_add(x, w[v], acc[r][v]);
    if (Format::kParts > 1) keep_alive(x);
  }
}

template <typename Format, int kRows, int kPanels>
HWY_NOINLINE void multiply_tile(const ProductOf<Format>& product) {
  using V = typename Format::V;
  const hn::DFromV<V> d;
  constexpr int64_t kAhead = kPrefetchBytes / kPanels / Format::kElementBytes;
  constexpr int64_t kLine = 64 / Format::kElementBytes;
  const typename Format::Row* a = product.rows;
  const typename Format::Weight* b = product.weights;
  const int64_t a_stride = product.row_stride, b_stride = product.weights_stride;
  V acc[kRows][kPanels * kVectors];
  load_sums<kRows, kPanels>(d, product.sums, product.sums_stride, product.accumulate, acc);
  const unsigned char* next = product.next;
  for (int64_t p = product.steps; p > 0; --p) {
    if (kPanels == 1) {
      __builtin_prefetch(next, 0, 2);
      next += product.next_bytes;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kPanels; ++i) {
#pragma GCC unroll 4
      for (int64_t line = 0; line < kPanel * Format::kGroup; line += kLine) {
        __builtin_prefetch(b + i * b_stride + kAhead + line);
      }
    }
    multiply_part<Format, 0, kRows, kPanels>(a, a_stride, b, b_stride, acc);
    if constexpr (Format::kParts > 1) multiply_part<Format, 1, kRows, kPanels>(a, a_stride, b, b_stride, acc);
    a += Format::kGroup;
    b += kPanel * Format::kGroup;
  }
  store_sums<kRows, kPanels>(d, product.sums, product.sums_stride, acc);
}

// The tile of as many rows and panels, found at compile time for each pair that the blocking asks for.
template <typename Format, int kRows = 1>
HWY_INLINE void multiply(int64_t rows, int64_t panels, const ProductOf<Format>& product) {
  if constexpr (kRows < kRowTile) {
    if (rows > kRows) return multiply<Format, kRows + 1>(rows, panels, product);
  }
  if constexpr (panels_at_once(kRows) > 1) {
    if (panels == panels_at_once(kRows)) return multiply_tile<Format, kRows, panels_at_once(kRows)>(product);
  }
  multiply_tile<Format, kRows, 1>(product);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
