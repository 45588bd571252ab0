// Activations of tiles of sums, rows of kPanel elements each, in place.
#pragma once

#include "cpu/gemm/microkernels.h"
#include "cpu/math.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// One function per activation, on a tile of its own: inlined into each epilogue they would be most of this family's
// code.
template <int kActivation>
HWY_NOINLINE void activate_tile(float* tile, int64_t rows, int64_t vectors) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t v = 0; v < vectors; ++v) {
      float* at = tile + r * kPanel + v * lanes;
      store(d, activate<kActivation>(d, load(d, at)), at);
    }
  }
}

HWY_NOINLINE void activate_tile(int32_t activation, float* tile, int64_t rows, int64_t vectors) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return activate_tile<GTN_ACT_GELU_ERF>(tile, rows, vectors);
    case GTN_ACT_GELU_TANH:
      return activate_tile<GTN_ACT_GELU_TANH>(tile, rows, vectors);
    case GTN_ACT_SILU:
      return activate_tile<GTN_ACT_SILU>(tile, rows, vectors);
    default:
      return activate_tile<GTN_ACT_RELU>(tile, rows, vectors);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
