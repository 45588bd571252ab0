// What follows the sums of a convolution, and where they go.
#pragma once

#include "cpu/conv/conv.h"
#include "cpu/gemm/activate.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Where a row of a block comes from and goes to. Positions may lie outside of x.
struct Place {
  int64_t from;   // element of x at which its image starts
  int64_t at[3];  // of the kernel's first position
  int64_t to;     // element of out, in its first channel
};

HWY_INLINE bool inside(int64_t at, int64_t size) { return at >= 0 && at < size; }

// Sums of a panel to out: shift, bias, activation, residual, in the order of gatun.h, each rounded to FP32. `channel` is the
// panel's first, of out; with `shift`, which is filled up.
template <typename Out>
void finish(const ConvRun& run, float* sums, const Place* places, int64_t rows, int64_t channel, int64_t columns,
            const float* shift) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t vectors = (columns + lanes - 1) / lanes;
  const int64_t step = run.out_strides[1];
  const Out* residual = static_cast<const Out*>(run.residual);
  Out* out = static_cast<Out*>(run.out);
  const bool side_by_side = step == 1 || columns == 1;
  const bool before = residual != nullptr && run.residual_first, after = residual != nullptr && !before;
  const bool relu = run.activation == GTN_ACT_RELU, active = !relu && run.activation != GTN_ACT_NONE;

  // Channels that lie apart: the residual goes into the tile first, a column at a time, and the tile to out likewise.
  const auto add_columns = [&]() {
    for (int64_t c = 0; c < columns; ++c) {
      const Out* from = residual + (channel + c) * step;
      for (int64_t r = 0; r < rows; ++r) sums[r * kPanel + c] += to_float(from[places[r].to]);
    }
  };
  const auto write = [&](VF x, int64_t r, int64_t v) __attribute__((always_inline)) {
    const int64_t to = places[r].to + (channel + v * lanes) * step, left = columns - v * lanes;
    if (left >= lanes) {
      store(d, x, out + to);
    } else {
      store_some(d, x, out + to, static_cast<size_t>(left));
    }
  };
  const auto with_residual = [&](VF x, int64_t r, int64_t v) __attribute__((always_inline)) {
    const int64_t from = places[r].to + (channel + v * lanes) * step, left = columns - v * lanes;
    return hn::Add(x, load_up_to(d, residual + from, left));
  };

  const bool at_once = side_by_side && !active;
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t left = columns - v * lanes;
    const VF moved = hn::LoadU(d, shift + v * lanes);
    VF bias = hn::Zero(d);
    if (run.bias != nullptr) {
      const float* from = run.bias + channel + v * lanes;
      bias = load_up_to(d, from, left);
    }
    for (int64_t r = 0; r < rows; ++r) {
      float* at = sums + r * kPanel + v * lanes;
      VF x = hn::Add(hn::LoadU(d, at), moved);
      if (run.bias != nullptr) x = hn::Add(x, bias);
      if (before && side_by_side) x = with_residual(x, r, v);
      if (relu && (side_by_side || !before)) x = activate<GTN_ACT_RELU>(d, x);
      if (!at_once) {
        hn::StoreU(x, d, at);
        continue;
      }
      if (after) x = with_residual(x, r, v);
      write(x, r, v);
    }
  }
  if (at_once) return;
  if (before && !side_by_side) add_columns();
  if (active || (relu && before)) activate_tile(run.activation, sums, rows, vectors);
  if (side_by_side) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t v = 0; v < vectors; ++v) {
        VF x = hn::LoadU(d, sums + r * kPanel + v * lanes);
        if (after) x = with_residual(x, r, v);
        write(x, r, v);
      }
    }
    return;
  }
  if (after) add_columns();
  for (int64_t c = 0; c < columns; ++c) {
    Out* to = out + (channel + c) * step;
    for (int64_t r = 0; r < rows; ++r) from_float(sums[r * kPanel + c], &to[places[r].to]);
  }
}

void finish(const ConvRun& run, float* sums, const Place* places, int64_t rows, int64_t group, int64_t panel) {
  const int64_t left = run.shape.columns - panel * kPanel;
  const int64_t channel = group * run.shape.columns + panel * kPanel;
  const float* shift = run.shift + (group * run.group_panels + panel) * kPanel;
  const auto of_dtype = run.out_dtype == GTN_F32 ? finish<float> : finish<bf16>;
  of_dtype(run, sums, places, rows, channel, left < kPanel ? left : kPanel, shift);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
