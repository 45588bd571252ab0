// The low-rank product (Hu et al. 2021, "LoRA", section 4.1): scale * (a * lora_a) once for each row, then for each tile
// of `out` its rows of that times lora_b, while the tile is finished. Both are FP32 chains in index order, over k and over
// the rank, by the register tiles of FP32 products.
//
// Of a row 2 k rank and 2 rank n operations, rank / n and rank / k of those of the product itself. lora_a and lora_b may
// be others in each run, so nothing is packed ahead: a slice of a panel is widened into scratch memory, which stays in
// the nearest caches while all rows of a task pass over it. That takes the rows' pitch out of the way too, which for lora_b
// is n, often a power of two.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/gemm/rows.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// k of one slice of lora_a: 16 or 32 KB of it, beside the slices of a tile's rows. A multiple of kRowPadding.
constexpr int64_t kProjectionDepth = 256;

// `rows` rows of `columns` elements, at most kPanel, as a panel filled up with zeros.
template <typename T>
void widen_panel(const T* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t p = 0; p < rows; ++p, from += stride, to += kPanel) {
    if (columns == kPanel) {
      for (int64_t v = 0; v < kPanel; v += lanes) store(d, load(d, from + v), to + v);
    } else {
      for (int64_t c = 0; c < kPanel; ++c) to[c] = c < columns ? to_float(from[c]) : 0.0f;
    }
  }
}

template <typename A, typename Lora>
void project_rows(const GemmProjection& projection, int64_t first, int64_t count, int64_t panel, float* scratch) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t left = projection.rank - panel * kPanel;
  float* rows = scratch + kProjectionDepth * kPanel;
  float* to = projection.to + panel * projection.stride + first * kPanel;
  for (int64_t p = 0; p < projection.k; p += kProjectionDepth) {
    const int64_t depth = projection.k - p < kProjectionDepth ? projection.k - p : kProjectionDepth;
    widen_panel(static_cast<const Lora*>(projection.lora_a) + p * projection.rank + panel * kPanel, projection.rank,
                depth, left < kPanel ? left : kPanel, scratch);
    ProductOf<FormatF32> product = {depth, rows, kProjectionDepth, scratch, 0, nullptr, 0, p > 0, nullptr, 0};
    for (int64_t row = 0; row < count; row += kRowTile) {
      const int64_t here = count - row < kRowTile ? count - row : kRowTile;
      for (int64_t r = 0; r < here; ++r) {
        const A* a = static_cast<const A*>(projection.a) + (first + row + r) * projection.a_stride + p;
        convert_row<A, false>(a, depth, rows + r * kProjectionDepth);
      }
      product.sums = to + row * kPanel;
      multiply<FormatF32>(here, 1, product);
    }
  }
  if (projection.k == 0) std::memset(to, 0, static_cast<size_t>(count * kPanel) * sizeof *to);
  const VF scale = hn::Set(d, projection.scale);
  for (int64_t i = 0; i < count * kPanel; i += lanes) store(d, hn::Mul(load(d, to + i), scale), to + i);
}

template <typename A>
void project_rows(const GemmProjection& projection, int64_t first, int64_t count, int64_t panel, float* scratch) {
  if (projection.lora_dtype == GTN_F32) return project_rows<A, float>(projection, first, count, panel, scratch);
  if (projection.lora_dtype == GTN_BF16) return project_rows<A, bf16>(projection, first, count, panel, scratch);
  project_rows<A, f16>(projection, first, count, panel, scratch);
}

void project(const GemmProjection& projection, int64_t first, int64_t count, int64_t panel, void* memory) {
  float* scratch = static_cast<float*>(memory);
  if (projection.a_dtype == GTN_F32) return project_rows<float>(projection, first, count, panel, scratch);
  if (projection.a_dtype == GTN_BF16) return project_rows<bf16>(projection, first, count, panel, scratch);
  project_rows<f16>(projection, first, count, panel, scratch);
}

constexpr int64_t kProjectionBytes = kProjectionDepth * (kPanel + kRowTile) * static_cast<int64_t>(sizeof(float));

// The panel of lora_b whose first column is `column`, [rank][kPanel].
HWY_NOINLINE void widen_lora_b(const GemmRun& run, int64_t column, float* to) {
  const int64_t columns = run.n - column < kPanel ? run.n - column : kPanel;
  if (run.lora_dtype == GTN_F32) {
    widen_panel(static_cast<const float*>(run.lora_b) + column, run.n, run.rank, columns, to);
  } else if (run.lora_dtype == GTN_BF16) {
    widen_panel(static_cast<const bf16*>(run.lora_b) + column, run.n, run.rank, columns, to);
  } else {
    widen_panel(static_cast<const f16*>(run.lora_b) + column, run.n, run.rank, columns, to);
  }
}

// What a tile of `count` rows from `row` on adds to the columns of that panel, [count][kPanel].
HWY_NOINLINE void multiply_low_rank(const GemmRun& run, int64_t row, int64_t count, const float* panel, float* tile) {
  for (int64_t j = 0; j < run.rank; j += kPanel) {
    const float* rows = run.projected + j / kPanel * run.projected_stride + row * kPanel;
    const int64_t steps = run.rank - j < kPanel ? run.rank - j : kPanel;
    for (int64_t r = 0; r < count; r += kRowTile) {
      const int64_t here = count - r < kRowTile ? count - r : kRowTile;
      multiply<FormatF32>(here, 1, {steps, rows + r * kPanel, kPanel, panel + j * kPanel, 0, tile + r * kPanel, 0, j > 0, nullptr, 0});
    }
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
