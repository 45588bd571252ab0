// From sums to `out`: dequantize, low-rank product, bias, activation, residual, rounding to the dtype of `out`; one tile
// at a time, while its sums are in the L1 cache. In order, each operation rounded to FP32:
//   S8 only:  x = float(sum - z * column sum) * (row scale * column scale), the difference exact in 32 bits
//   FP8 only: x = sum * column scale
//   x = x + low-rank product;  x = x + bias;  x = activation(x);  x = x + residual;  out = x, rounded if of 16 bits
// No multiply-add is contracted here, so an S8 product without activation has the same bits at every level.
#pragma once

#include "cpu/gemm/activate.h"
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/tiled.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// `rows` rows, at most kMostRows, from `row` on of the panel whose first column is `column`; `sums` as Product has them, and
// `low_rank`, which may be null, likewise.
using Finish = void (*)(const GemmRun& run, const void* sums, const float* low_rank, int64_t row, int64_t rows,
                        int64_t column);

// What sums are: the product itself, one that has yet to be multiplied by its columns' scales, or one of integers.
enum class Sums { kWhole, kUnscaled, kIntegers };

template <Sums kSums, typename Out>
void finish(const GemmRun& run, const void* sums, const float* low_rank, int64_t row, int64_t rows, int64_t column) {
  const F32 d;
  const I32 d32;
  const hn::Rebind<uint32_t, F32> u32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t columns = run.n - column < kPanel ? run.n - column : kPanel;
  const int64_t vectors = (columns + lanes - 1) / lanes;
  const Out* residual = static_cast<const Out*>(run.residual);
  Out* out = static_cast<Out*>(run.out);
  const bool active = run.activation != GTN_ACT_NONE;
  HWY_ALIGN float tile[kMostRows * kPanel];

  auto write = [&](VF x, int64_t r, int64_t v) __attribute__((always_inline)) {
    const int64_t at = (row + r) * run.out_stride + column + v * lanes;
    const int64_t left = columns - v * lanes;
    if (left >= lanes) {
      if (residual != nullptr) x = hn::Add(x, load(d, residual + at));
      store(d, x, out + at);
    } else {
      const size_t count = static_cast<size_t>(left);
      if (residual != nullptr) x = hn::Add(x, load_some(d, residual + at, count, 0.0f));
      store_some(d, x, out + at, count);
    }
  };

  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t first = column + v * lanes;
    const int64_t left = columns - v * lanes;
    VF bias = hn::Zero(d), column_scale = hn::Zero(d);
    auto column_sum = hn::Zero(u32);
    if (run.bias != nullptr) {
      bias = left >= lanes ? load(d, run.bias + first)
                           : load_some(d, run.bias + first, static_cast<size_t>(left), 0.0f);
    }
    if constexpr (kSums != Sums::kWhole) column_scale = load(d, run.column_scales + first);
    if constexpr (kSums == Sums::kIntegers) {
      column_sum = hn::BitCast(u32, hn::LoadU(d32, run.column_sums + first));
    }
    for (int64_t r = 0; r < rows; ++r) {
      VF x;
      if constexpr (kSums == Sums::kIntegers) {
        const auto sum = hn::BitCast(u32, hn::LoadU(d32, static_cast<const int32_t*>(sums) + r * kPanel + v * lanes));
        const auto zero = hn::Set(u32, static_cast<uint32_t>(run.row_zeros[row + r]));
        const VI difference = hn::BitCast(d32, hn::Sub(sum, hn::Mul(zero, column_sum)));
        x = hn::Mul(hn::ConvertTo(d, difference), hn::Mul(hn::Set(d, run.row_scales[row + r]), column_scale));
      } else {
        x = hn::LoadU(d, static_cast<const float*>(sums) + r * kPanel + v * lanes);
        if constexpr (kSums == Sums::kUnscaled) x = hn::Mul(x, column_scale);
      }
      if (low_rank != nullptr) x = hn::Add(x, hn::LoadU(d, low_rank + r * kPanel + v * lanes));
      if (run.bias != nullptr) x = hn::Add(x, bias);
      if (active) {
        hn::Store(x, d, tile + r * kPanel + v * lanes);
      } else {
        write(x, r, v);
      }
    }
  }
  if (!active) return;
  activate_tile(run.activation, tile, rows, vectors);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t v = 0; v < vectors; ++v) write(hn::Load(d, tile + r * kPanel + v * lanes), r, v);
  }
}

template <Sums kSums>
Finish finish_of(int32_t out_dtype) {
  return out_dtype == GTN_F32 ? finish<kSums, float> : out_dtype == GTN_BF16 ? finish<kSums, bf16> : finish<kSums, f16>;
}

Finish find_finish(const GemmRun& run) {
  if (run.format == GTN_S8) return finish_of<Sums::kIntegers>(run.out_dtype);
  return is_f8(run.format) ? finish_of<Sums::kUnscaled>(run.out_dtype) : finish_of<Sums::kWhole>(run.out_dtype);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
