// Weights of 4 and 8 bits (GTN_U4, GTN_U8), made FP32 as they are used: w = (q - z) * scale, the difference exact, the product
// rounded once. What follows is FP32 throughout, so a product has the bits of one with these weights in FP32.
//
// Up to a register tile of rows meet the weights right after they are unpacked, in registers: 0.5 bytes and a scale's share
// for each weight come from memory, and with AVX-512 a shift, a look-up, a subtraction, unless the look-up has done it, and a
// product make a vector of them. More rows would unpack each weight again for every tile; they share a slice of a panel,
// unpacked into the L1 cache.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

using U32 = hn::Rebind<uint32_t, F32>;
using VU = hn::Vec<U32>;

// Elements of k that are unpacked at once for many rows: whole groups, and a panel's slice of them takes a third of an L1
// cache.
constexpr int64_t kQuantizedDepth = kMaxQuantizedGroup;

// Panels that a tile of `rows` rows takes at once: their scales and zero points live in registers too.
HWY_INLINE constexpr int quantized_panels_at_once(int64_t rows) { return rows == 1 ? 2 : 1; }

// How far ahead of the products packed weights are fetched, of each panel.
constexpr int64_t kQuantizedAhead = 2048;

// What a product of FP32 rows by quantized weights is made of beside FormatF32.
template <int kBitsOf>
struct FormatQuantized : FormatF32 {
  static constexpr int kBits = kBitsOf;
  static constexpr int kLane = 32 / kBits;  // elements of k in a lane
  static constexpr int64_t kTileRows = kRowTile;

  // Integer kAt of each lane, less `kLess`, as FP32.
  template <int kAt, int kLess>
  static HWY_INLINE VF integer(VU lanes) {
    const U32 d;
    if constexpr (kAt > 0) lanes = hn::ShiftRight<kAt * kBits>(lanes);
#if HWY_MAX_BYTES >= 64
    if constexpr (kBits == 4) {  // the look-up reads no more than these bits
      constexpr float kFirst = -static_cast<float>(kLess);
      const __m512 table = _mm512_setr_ps(kFirst, kFirst + 1, kFirst + 2, kFirst + 3, kFirst + 4, kFirst + 5, kFirst + 6,
                                          kFirst + 7, kFirst + 8, kFirst + 9, kFirst + 10, kFirst + 11, kFirst + 12,
                                          kFirst + 13, kFirst + 14, kFirst + 15);
      return VF{_mm512_permutexvar_ps(lanes.raw, table)};
    }
#endif
    if constexpr ((kAt + 1) * kBits < 32) lanes = hn::And(lanes, hn::Set(d, (uint32_t{1} << kBits) - 1));
    const VF value = hn::ConvertTo(F32(), hn::BitCast(I32(), lanes));
    return kLess == 0 ? value : hn::Sub(value, hn::Set(F32(), static_cast<float>(kLess)));
  }
};

// One group of k of kPanels panels: where its lanes are, its scales and, with kZeros, its zero points; without, all are the
// format's own.
template <typename Format, int kPanels, bool kZeros>
struct QuantizedGroup {
  const uint32_t* lanes[kPanels];
  VF scales[kPanels * kVectors], zeros[kPanels * kVectors];

  HWY_INLINE QuantizedGroup(const GemmRun& run, const unsigned char* panel, int64_t group) {
    const F32 d;
    const int64_t count = static_cast<int64_t>(hn::Lanes(d));
    const int64_t group_bytes = quantized_group_bytes(kPanel, run.group_size, Format::kBits);
#pragma GCC unroll 4
    for (int i = 0; i < kPanels; ++i) {
      const unsigned char* of = panel + i * run.panel_bytes;
      const unsigned char* at = of + group * group_bytes;
      lanes[i] = reinterpret_cast<const uint32_t*>(at + kPanel * static_cast<int64_t>(sizeof(float)));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        scales[i * kVectors + v] = hn::LoadU(d, reinterpret_cast<const float*>(at) + v * count);
        if constexpr (kZeros) {
          zeros[i * kVectors + v] = hn::Set(d, static_cast<float>(quantized_zero(Format::kBits)));
          if (run.zeros_at == 0) continue;
          const hn::Rebind<uint8_t, F32> d8;
          const uint8_t* z = of + run.zeros_at + group * kPanel + v * count;
          zeros[i * kVectors + v] = hn::ConvertTo(d, hn::PromoteTo(I32(), hn::LoadU(d8, z)));
        }
      }
    }
  }

  template <int kAt>
  HWY_INLINE VF weights(VU from, int v) const {
    if constexpr (kZeros) {
      return hn::Mul(hn::Sub(Format::template integer<kAt, 0>(from), zeros[v]), scales[v]);
    } else {
      return hn::Mul(Format::template integer<kAt, quantized_zero(Format::kBits)>(from), scales[v]);
    }
  }
};

// Element kAt and those after it of the lanes `from`, as many as `count` says, for all rows.
template <typename Format, int kAt, int kRows, int kPanels, bool kZeros>
HWY_INLINE void multiply_lanes(const QuantizedGroup<Format, kPanels, kZeros>& group, const VU (&from)[kPanels * kVectors],
                               const float* a, int64_t a_stride, int64_t count, VF (&acc)[kRows][kPanels * kVectors]) {
  if constexpr (kAt < Format::kLane) {
    if (kAt >= count) return;
    VF w[kPanels * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) w[v] = group.template weights<kAt>(from[v], v);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const VF x = hn::Set(F32(), a[r * a_stride + kAt]);
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = hn::MulAdd(x, w[v], acc[r][v]);
    }
    multiply_lanes<Format, kAt + 1, kRows, kPanels>(group, from, a, a_stride, count, acc);
  }
}

// kRows rows, all of k, by kPanels panels: sums[kRows][kPanel] of panel i lie at sums + i * kRows * kPanel.
template <typename Format, int kRows, int kPanels, bool kZeros>
HWY_NOINLINE void multiply_quantized_tile(const GemmRun& run, const float* a, const unsigned char* panel, float* sums) {
  const F32 d;
  constexpr int64_t kStep = kPanel * static_cast<int64_t>(sizeof(uint32_t));  // bytes of a panel
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t a_stride = run.row_stride;
  VF acc[kRows][kPanels * kVectors];
  load_sums<kRows, kPanels>(d, sums, kRows * kPanel, false, acc);
  for (int64_t p = 0, g = 0; p < run.k; p += run.group_size, ++g) {
    QuantizedGroup<Format, kPanels, kZeros> group(run, panel, g);
    const int64_t end = run.k - p < run.group_size ? run.k - p : run.group_size;
    const float* from = a + p;
    const auto step = [&](int64_t count) __attribute__((always_inline)) {
      VU packed[kPanels * kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kPanels; ++i) {
        const char* ahead = reinterpret_cast<const char*>(group.lanes[i]) + kQuantizedAhead;
#pragma GCC unroll 4
        for (int64_t line = 0; line < kStep; line += 64) __builtin_prefetch(ahead + line);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) packed[i * kVectors + v] = hn::LoadU(U32(), group.lanes[i] + v * lanes);
        group.lanes[i] += kPanel;
      }
      multiply_lanes<Format, 0, kRows, kPanels>(group, packed, from, a_stride, count, acc);
      from += Format::kLane;
    };
    int64_t left = end;
    for (; left >= Format::kLane; left -= Format::kLane) step(Format::kLane);
    if (left > 0) step(left);
  }
  store_sums<kRows, kPanels>(d, sums, kRows * kPanel, acc);
}

// The tile of as many rows and panels, found at compile time.
template <typename Format, int kRows = 1>
HWY_INLINE void multiply_quantized(const GemmRun& run, const float* a, int64_t rows, const unsigned char* panel,
                                   int64_t panels, float* sums) {
  if constexpr (kRows < kRowTile) {
    if (rows > kRows) return multiply_quantized<Format, kRows + 1>(run, a, rows, panel, panels, sums);
  }
  if constexpr (quantized_panels_at_once(kRows) > 1) {
    if (panels == quantized_panels_at_once(kRows)) {
      // Where every operation counts.
      return run.zeros_at == 0
                 ? multiply_quantized_tile<Format, kRows, quantized_panels_at_once(kRows), false>(run, a, panel, sums)
                 : multiply_quantized_tile<Format, kRows, quantized_panels_at_once(kRows), true>(run, a, panel, sums);
    }
  }
  multiply_quantized_tile<Format, kRows, 1, true>(run, a, panel, sums);
}

template <typename Format, int kAt>
HWY_INLINE void unpack_lanes(const QuantizedGroup<Format, 1, true>& group, const VU (&from)[kVectors], float* to) {
  if constexpr (kAt < Format::kLane) {
    const F32 d;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const VF w = group.template weights<kAt>(from[v], v);
      hn::StoreU(w, d, to + kAt * kPanel + v * static_cast<int64_t>(hn::Lanes(d)));
    }
    unpack_lanes<Format, kAt + 1>(group, from, to);
  }
}

// Weights p to p + depth - 1 of a panel, as FormatF32 has them; p and, unless it ends with k, depth are whole groups. What
// fills the last lane is unpacked too: `to` has room for it.
template <typename Format>
HWY_NOINLINE void unpack(const GemmRun& run, const unsigned char* panel, int64_t p, int64_t depth, float* to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  for (int64_t g = p / run.group_size; depth > 0; ++g, depth -= run.group_size) {
    QuantizedGroup<Format, 1, true> group(run, panel, g);
    const int64_t here = depth < run.group_size ? depth : run.group_size;
    for (int64_t i = 0; i < here; i += Format::kLane, to += Format::kLane * kPanel) {
      VU packed[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) packed[v] = hn::LoadU(U32(), group.lanes[0] + v * lanes);
      group.lanes[0] += kPanel;
      unpack_lanes<Format, 0>(group, packed, to);
    }
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
