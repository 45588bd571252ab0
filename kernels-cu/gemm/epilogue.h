// From sums to `out`, in registers. In order, each operation rounded to FP32 as on the CPU:
//   S8 only:  x = float(sum - z * column sum) * (row scale * column scale), the difference exact in 32 bits
//   x = x + low-rank product;  x = x + bias;  x = activation(x);  x = x + residual;  out = x, rounded once more if BF16
#pragma once

#include <type_traits>

#include "gemm/kernels.h"
#include "gpu/gpu.h"
#include "gpu/pack.h"

namespace gatun::gpu::gemm {

// kCount neighbouring columns of all rows that a thread has: what of the epilogue is the columns' own.
template <typename Sum, int kCount>
struct ColumnFinish {
  static constexpr bool kInt8 = std::is_same_v<Sum, int32_t>;

  const FinishArgs& args;
  int64_t column;
  int count;  // of kCount, those there are
  float bias[kCount], scale[kCount];
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
        scale[w] = there ? args.column_scales[group * columns + column + w] : 0.0f;
        sum[w] = there ? static_cast<uint32_t>(args.column_sums[group * columns + column + w]) : 0;
      }
    }
  }

  // Row `row` of this part. `low_rank`: what is added, or null.
  GPU_DEVICE void write(int64_t row, const Sum (&sums)[kCount], float row_scale, int32_t row_zero, const float* low_rank) const {
    float x[kCount];
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) {
      if constexpr (kInt8) {
        const uint32_t difference = static_cast<uint32_t>(sums[w]) - static_cast<uint32_t>(row_zero) * sum[w];
        x[w] = static_cast<float>(static_cast<int32_t>(difference)) * (row_scale * scale[w]);
      } else {
        x[w] = sums[w];
      }
      if (low_rank != nullptr) x[w] = x[w] + low_rank[w];
      if (args.bias != nullptr) x[w] = x[w] + bias[w];
      x[w] = activate(args.activation, x[w]);
    }
    if (args.out_bf16 != 0) {
      store(static_cast<const Bf16*>(args.residual), static_cast<Bf16*>(args.out), row, x);
    } else {
      store(static_cast<const float*>(args.residual), static_cast<float*>(args.out), row, x);
    }
  }

 private:
  template <typename Out>
  GPU_DEVICE void store(const Out* residual, Out* out, int64_t row, float (&x)[kCount]) const {
    const int64_t at = row * args.out_stride + column;
    if (count == kCount && args.vector >= kCount) {
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
        float one[1] = {x[w]};
        if (residual != nullptr) one[0] = one[0] + to_float(residual[at + w]);
        store_pack(out + at + w, one);
      }
    }
  }
};

}  // namespace gatun::gpu::gemm
