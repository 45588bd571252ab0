// From sums to `out`. In order, each operation rounded to FP32 as on the CPU:
//   S8 only:  x = float(sum - z * column sum) * (row scale * column scale), the difference exact in 32 bits
//   x = x + low-rank product;  x = x + bias;  x = activation(x);  x = x + residual;  out = x, rounded once more if of 16 bits
#pragma once

#include <type_traits>

#include "gemm/kernels.h"
#include "gpu/gpu.h"
#include "gpu/pack.h"

namespace gatun::gpu::gemm {

// Sums as the words that they are stored as.
template <typename Sum>
GPU_DEVICE Sum sum_of(uint32_t word) {
  if constexpr (std::is_same_v<Sum, int32_t>) {
    return static_cast<int32_t>(word);
  } else {
    return float_of(word);
  }
}
GPU_DEVICE uint32_t bits_of_sum(int32_t x) { return static_cast<uint32_t>(x); }
GPU_DEVICE uint32_t bits_of_sum(float x) { return bits_of(x); }

// The choice is outside of the loops, so that the elements' chains of operations run side by side.
template <int kCount>
GPU_DEVICE void activate_all(int32_t activation, float (&x)[kCount]) {
  switch (activation) {
    case GTN_ACT_NONE:
      break;
    case GTN_ACT_GELU_ERF:
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) x[w] = gelu_erf(x[w]);
      break;
    case GTN_ACT_GELU_TANH:
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) x[w] = gelu_tanh(x[w]);
      break;
    case GTN_ACT_SILU:
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) x[w] = silu(x[w]);
      break;
    default:
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) x[w] = relu(x[w]);
  }
}

// kCount neighbouring columns of any rows: what of the epilogue is the columns' own.
template <typename Sum, int kCount>
struct ColumnFinish {
  static constexpr bool kInt8 = std::is_same_v<Sum, int32_t>;

  const FinishArgs& args;
  int64_t column;
  int count;  // of kCount, those there are
  float bias[kCount], column_scale[kCount];
  uint32_t sum[kCount];

  // `group`: whose columns; each has `columns` in scales and sums.
  GPU_DEVICE ColumnFinish(const FinishArgs& finish, int64_t group, int64_t columns, int64_t first)
      : args(finish), column(first) {
    count = args.n - column < kCount ? static_cast<int>(args.n - column) : kCount;
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) {
      const bool there = w < count;
      bias[w] = there && args.bias != nullptr ? args.bias[group * args.n + column + w] : 0.0f;
      if constexpr (kInt8) {
        column_scale[w] = there ? args.column_scales[group * columns + column + w] : 0.0f;
        sum[w] = there ? static_cast<uint32_t>(args.column_sums[group * columns + column + w]) : 0;
      }
    }
  }

  // What the sums of row `row` of this part stand for.
  GPU_DEVICE void scale(int64_t row, const Sum (&sums)[kCount], float (&x)[kCount]) const {
    if constexpr (kInt8) {
      const float row_scale = args.row_scales[row];
      const uint32_t row_zero = static_cast<uint32_t>(args.row_zeros[row]) - static_cast<uint32_t>(kByteShift);
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) {
        const uint32_t difference = static_cast<uint32_t>(sums[w]) - row_zero * sum[w];
        x[w] = static_cast<float>(static_cast<int32_t>(difference)) * (row_scale * column_scale[w]);
      }
    } else {
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) x[w] = sums[w];
    }
  }

  // The rest of it.
  GPU_DEVICE void write(int64_t row, float (&x)[kCount]) const {
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) {
      if (args.bias != nullptr) x[w] = x[w] + bias[w];
    }
    activate_all(args.activation, x);
    switch (args.out_dtype) {
      case GTN_F32:
        return store(static_cast<const float*>(args.residual), static_cast<float*>(args.out), row, x);
      case GTN_BF16:
        return store(static_cast<const Bf16*>(args.residual), static_cast<Bf16*>(args.out), row, x);
      default:
        return store(static_cast<const Half*>(args.residual), static_cast<Half*>(args.out), row, x);
    }
  }

 private:
  template <typename Out>
  GPU_DEVICE void store(const Out* residual, Out* out, int64_t row, float (&x)[kCount]) const {
    const int64_t at = row * args.out_stride + column;
    if (count == kCount && (kCount == 1 || args.vector != 0)) {
      if (residual != nullptr) {
        float r[kCount];
        load_pack(residual + at, r);
        GPU_UNROLL
        for (int w = 0; w < kCount; ++w) x[w] = x[w] + r[w];
      }
      store_pack(out + at, x);
    } else {
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) {
        if (w >= count) break;
        const float y = residual != nullptr ? x[w] + to_float(residual[at + w]) : x[w];
        from_float(y, out + at + w);
      }
    }
  }
};

}  // namespace gatun::gpu::gemm
