// Pruned weights (GTN_BF16_2OF4): of four that follow each other in k two are stored, in BF16, and their places in 2 bits each.
//
// Few rows wait for the weights, and these are 1.125 bytes for each of k where BF16 has 2. A row's four elements lie in one 128-bit
// block, which is loaded into all blocks of a vector; a look-up by the places then gives each column the element that its weight
// meets. So four in k are, for each row and vector of columns, two look-ups and two multiply-adds where FP32 has four multiply-adds:
// many rows, a tile after the other, gain nothing.
//
// Weights that are not stored add nothing, so a product of finite rows has the bits of one in FP32 with the pruned weights, but for
// the sign of a zero.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/gemm/quantized.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// What a product of FP32 rows by pruned weights is made of beside FormatF32. A tile leaves registers for weights and places.
struct FormatSparse : FormatF32 {
  static constexpr int64_t kTileRows = kRowTile * 2 / 3;
};

// How far ahead of the products packed weights are fetched, of each panel.
constexpr int64_t kSparseAhead = 2304;

// The elements of four that the lowest two bits of each lane tell.
HWY_INLINE VF pick(const float* four, VU places) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(F32(), four[hn::GetLane(places) & 3]);
#else
  const F32 d;
  return hn::TableLookupLanes(hn::LoadDup128(d, four), hn::IndicesFromVec(d, hn::And(places, hn::Set(U32(), 3u))));
#endif
}

// kRows rows, all of k, by kPanels panels: sums[kRows][kPanel] of panel i lie at sums + i * kRows * kPanel.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_sparse_tile(const GemmRun& run, const float* a, const unsigned char* panel, float* sums) {
  const F32 d;
  constexpr int64_t kBytes = sparse_block_bytes(kPanel);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF acc[kRows][kPanels * kVectors];
  load_sums<kRows, kPanels>(d, sums, kRows * kPanel, false, acc);
  HWY_ALIGN float rest[kRows * 4] = {};  // where k ends within four
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t i = run.k / 4 * 4; i < run.k; ++i) rest[r * 4 + i % 4] = a[r * run.row_stride + i];
  }
  for (int64_t p = 0; p < run.k; p += kSparseBlock) {
    VU places[kPanels * kVectors];
    const bf16* values[kPanels];
#pragma GCC unroll 4
    for (int i = 0; i < kPanels; ++i) {
      const unsigned char* block = panel + i * run.panel_bytes + p / kSparseBlock * kBytes;
#pragma GCC unroll 32
      for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(block + kSparseAhead + line);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        places[i * kVectors + v] = hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(block) + v * lanes);
      }
      values[i] = reinterpret_cast<const bf16*>(block + kPanel * 4);
    }
    const int64_t end = run.k - p < kSparseBlock ? run.k : p + kSparseBlock;
    for (int64_t q = p; q < end; q += 4) {
      const bool whole = q + 4 <= run.k;
      const float* from = whole ? a + q : rest;
      const int64_t stride = whole ? run.row_stride : 4;
#pragma GCC unroll 2
      for (int stored = 0; stored < 2; ++stored) {
        VF w[kPanels * kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kPanels * kVectors; ++v) w[v] = load(d, values[v / kVectors] + v % kVectors * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
          for (int v = 0; v < kPanels * kVectors; ++v) acc[r][v] = hn::MulAdd(pick(from + r * stride, places[v]), w[v], acc[r][v]);
        }
#pragma GCC unroll 16
        for (int v = 0; v < kPanels * kVectors; ++v) places[v] = hn::ShiftRight<2>(places[v]);
#pragma GCC unroll 4
        for (int i = 0; i < kPanels; ++i) values[i] += kPanel;
      }
    }
  }
  store_sums<kRows, kPanels>(d, sums, kRows * kPanel, acc);
}

// The tile of as many rows and panels, found at compile time.
template <int kRows = 1>
HWY_INLINE void multiply_sparse(const GemmRun& run, const float* a, int64_t rows, const unsigned char* panel, int64_t panels,
                                float* sums) {
  if constexpr (kRows < FormatSparse::kTileRows) {
    if (rows > kRows) return multiply_sparse<kRows + 1>(run, a, rows, panel, panels, sums);
  }
  if constexpr (quantized_panels_at_once(kRows) > 1) {
    if (panels == quantized_panels_at_once(kRows)) {
      return multiply_sparse_tile<kRows, quantized_panels_at_once(kRows)>(run, a, panel, sums);
    }
  }
  multiply_sparse_tile<kRows, 1>(run, a, panel, sums);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
