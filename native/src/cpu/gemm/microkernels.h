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

namespace gatun::cpu::GATUN_LEVEL {
namespace {

using I32 = hn::Rebind<int32_t, F32>;
using VI = hn::Vec<I32>;

// Tile shapes by register count: 16 registers hold 6 x 2 sums, 2 weights and a broadcast; 32 hold 12 x 2 of them with
// room for the compiler. Without vectors the compiler packs four columns if it can.
#if HWY_TARGET == HWY_SCALAR
constexpr int kVectors = 4;  // of a panel
constexpr int kRowTile = 3;
#elif HWY_MAX_BYTES >= 64
constexpr int kVectors = 2;
constexpr int kRowTile = 12;
#else
constexpr int kVectors = 2;
constexpr int kRowTile = 6;
#endif
constexpr int64_t kPanel = kVectors * static_cast<int64_t>(HWY_LANES(float));

// Panels that a tile of `rows` rows takes at once.
HWY_INLINE constexpr int panels_at_once(int64_t rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

// How far ahead of the multiply-adds weights are fetched, over all panels taken at once: enough to cover the latency of
// memory. What is fetched past a panel's end is the start of the next.
constexpr int64_t kPrefetchBytes = 1024;

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

// Keeps a multiplicand alive to this point. Where a loop's body holds two multiply-adds for each sum, GCC otherwise
// puts the first one's result into the register of its multiplicand, runs out of registers and spills the sums.
HWY_INLINE void keep_alive(VF multiplicand) {
#if HWY_ARCH_X86_64 && HWY_TARGET != HWY_SCALAR
  asm volatile("" : : "v"(multiplicand.raw));
#else
  (void)multiplicand;
#endif
}

// FP32.
struct FormatF32 {
  using Row = float;
  using Weight = float;
  using Sum = float;
  static constexpr int kGroup = 1;         // elements of k in a step
  static constexpr int kElementBytes = 4;  // of a weight

  template <int kRows, int kPanels>
  static HWY_NOINLINE void multiply(const Product<Row, Weight, Sum>& product) {
    const F32 d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const float* a = product.rows;
    const float* b = product.weights;
    const int64_t a_stride = product.row_stride, b_stride = product.weights_stride;
    VF acc[kRows][kPanels * kVectors];
    load_sums<kRows, kPanels>(d, product.sums, product.sums_stride, product.accumulate, acc);
    for (int64_t p = product.steps; p > 0; --p) {
#pragma GCC unroll 16
      for (int i = 0; i < kPanels; ++i) {
        __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels / 4);
        if (kPanel > 16) __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels / 4 + 16);
      }
      VF w[kPanels * kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) {
        w[v] = hn::Load(d, b + v / kVectors * b_stride + v % kVectors * lanes);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const VF x = hn::Set(d, a[r * a_stride]);
#pragma GCC unroll 16
        for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = hn::MulAdd(x, w[v], acc[r][v]);
      }
      ++a;
      b += kPanel;
    }
    store_sums<kRows, kPanels>(d, product.sums, product.sums_stride, acc);
  }
};

// BF16 weights, widened in registers: a pair of them fills a 32-bit lane, the upper is an FP32 once the lower is masked
// off, the lower once it is shifted up. Rows are FP32 that hold BF16 values, so products are exact.
struct FormatBf16 {
  using Row = float;
  using Weight = bf16;
  using Sum = float;
  static constexpr int kGroup = 2;
  static constexpr int kElementBytes = 2;

  template <int kRows, int kPanels>
  static HWY_NOINLINE void multiply(const Product<Row, Weight, Sum>& product) {
    const F32 d;
    const hn::Rebind<uint32_t, F32> d32;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const float* a = product.rows;
    const bf16* b = product.weights;
    const int64_t a_stride = product.row_stride, b_stride = product.weights_stride;
    VF acc[kRows][kPanels * kVectors];
    load_sums<kRows, kPanels>(d, product.sums, product.sums_stride, product.accumulate, acc);
    for (int64_t p = product.steps; p > 0; --p) {
#pragma GCC unroll 16
      for (int i = 0; i < kPanels; ++i) {
        __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels / 2);
        if (kPanel > 16) __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels / 2 + 32);
      }
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        VF w[kPanels * kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kPanels * kVectors; ++v) {
          const bf16* at = b + v / kVectors * b_stride + v % kVectors * lanes * 2;
          const auto pair = hn::LoadU(d32, reinterpret_cast<const uint32_t*>(at));
          w[v] = hn::BitCast(d, half == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(d32, 0xffff0000u)));
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const VF x = hn::Set(d, a[r * a_stride + half]);
#pragma GCC unroll 16
          for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = hn::MulAdd(x, w[v], acc[r][v]);
          keep_alive(x);
        }
      }
      a += 2;
      b += 2 * kPanel;
    }
    store_sums<kRows, kPanels>(d, product.sums, product.sums_stride, acc);
  }
};

// INT8: u8 rows by s8 weights, summed in 32 bits, exactly. A step multiplies the next kGroup elements of k in one
// instruction: vpdpbusd sums four of them; without it, rows are kept as s16 and weights widened to s16 for vpmaddwd,
// which sums two (vpmaddubsw would take the bytes as they are, but saturates at 16 bits).
struct FormatS8 {
#if defined(__AVX512VNNI__)
  using Row = uint8_t;
  static constexpr int kGroup = 4;
#elif HWY_TARGET == HWY_SCALAR
  using Row = int16_t;
  static constexpr int kGroup = 1;
#else
  using Row = int16_t;
  static constexpr int kGroup = 2;
#endif
  using Weight = int8_t;
  using Sum = int32_t;
  static constexpr int kElementBytes = 1;

  // One step's weights of one vector of columns, as the multiply-add reads them.
#if defined(__AVX512VNNI__)
  static HWY_INLINE VI load_weights(const int8_t* from) {
    const hn::Repartition<int8_t, I32> d8;
    return hn::BitCast(I32(), hn::LoadU(d8, from));
  }
  static HWY_INLINE VI load_row(const uint8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof four);
    return hn::Set(I32(), four);
  }
  static HWY_INLINE VI multiply_add(VI row, VI weights, VI sum) {
    return VI{_mm512_dpbusd_epi32(sum.raw, row.raw, weights.raw)};
  }
#elif HWY_TARGET == HWY_SCALAR
  static HWY_INLINE VI load_weights(const int8_t* from) { return hn::Set(I32(), *from); }
  static HWY_INLINE VI load_row(const int16_t* from) { return hn::Set(I32(), *from); }
  static HWY_INLINE VI multiply_add(VI row, VI weights, VI sum) { return hn::Add(sum, hn::Mul(row, weights)); }
#else
  static HWY_INLINE VI load_weights(const int8_t* from) {
    const hn::Repartition<int16_t, I32> d16;
    const hn::Rebind<int8_t, decltype(d16)> d8;
    return hn::BitCast(I32(), hn::PromoteTo(d16, hn::LoadU(d8, from)));
  }
  static HWY_INLINE VI load_row(const int16_t* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return hn::Set(I32(), pair);
  }
  static HWY_INLINE VI multiply_add(VI row, VI weights, VI sum) {
    const hn::Repartition<int16_t, I32> d16;
    VI unused = hn::Zero(I32());
    return hn::ReorderWidenMulAccumulate(I32(), hn::BitCast(d16, row), hn::BitCast(d16, weights), sum, unused);
  }
#endif

  template <int kRows, int kPanels>
  static HWY_NOINLINE void multiply(const Product<Row, Weight, Sum>& product) {
    const I32 d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const Row* a = product.rows;
    const int8_t* b = product.weights;
    const int64_t a_stride = product.row_stride, b_stride = product.weights_stride;
    VI acc[kRows][kPanels * kVectors];
    load_sums<kRows, kPanels>(d, product.sums, product.sums_stride, product.accumulate, acc);
    for (int64_t p = product.steps; p > 0; --p) {
#pragma GCC unroll 16
      for (int i = 0; i < kPanels; ++i) {
        __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels);
        if (kPanel * kGroup > 64) __builtin_prefetch(b + i * b_stride + kPrefetchBytes / kPanels + 64);
      }
      VI w[kPanels * kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) {
        w[v] = load_weights(b + v / kVectors * b_stride + v % kVectors * lanes * kGroup);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const VI x = load_row(a + r * a_stride);
#pragma GCC unroll 16
        for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = multiply_add(x, w[v], acc[r][v]);
      }
      a += kGroup;
      b += kPanel * kGroup;
    }
    store_sums<kRows, kPanels>(d, product.sums, product.sums_stride, acc);
  }
};

template <typename Format>
using ProductOf = Product<typename Format::Row, typename Format::Weight, typename Format::Sum>;

// The tile of as many rows and panels, found at compile time for each pair that the blocking asks for.
template <typename Format, int kRows = 1>
HWY_INLINE void multiply(int64_t rows, int64_t panels, const ProductOf<Format>& product) {
  if constexpr (kRows < kRowTile) {
    if (rows > kRows) return multiply<Format, kRows + 1>(rows, panels, product);
  }
  if constexpr (panels_at_once(kRows) > 1) {
    if (panels == panels_at_once(kRows)) return Format::template multiply<kRows, panels_at_once(kRows)>(product);
  }
  Format::template multiply<kRows, 1>(product);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
