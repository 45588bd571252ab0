// From sums of a convolution to `out`. In order, each operation rounded to FP32 as on the CPU:
//   x = sum + shift;  x = x + bias;  x = x + residual, if it comes first;  x = activation(x);  x = x + residual, if not;
//   out = x, rounded once more if of 16 bits
#pragma once

#include "conv/kernels.h"
#include "gemm/epilogue.h"
#include "gpu/gpu.h"
#include "gpu/pack.h"

namespace gatun::gpu::conv {

// kCount neighbouring channels of out at any positions: what of the epilogue is the channels' own.
template <int kCount>
struct ChannelFinish {
  const ConvFinishArgs& args;
  int count;            // of kCount, those there are
  int64_t first;        // element of out of the first channel
  float shift[kCount], bias[kCount];

  GPU_DEVICE ChannelFinish(const ConvFinishArgs& finish, int64_t group, int64_t column) : args(finish) {
    count = args.columns - column < kCount ? static_cast<int>(args.columns - column) : kCount;
    const int64_t channel = group * args.columns + column;
    first = channel * args.channel_stride;
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) {
      shift[w] = w < count ? args.shift[channel + w] : 0.0f;
      bias[w] = w < count && args.bias != nullptr ? args.bias[channel + w] : 0.0f;
    }
  }

  // `to`: element of out of the position.
  GPU_DEVICE void write(int64_t to, float (&x)[kCount]) const {
    switch (args.out_dtype) {
      case GTN_F32:
        return write(static_cast<const float*>(args.residual), static_cast<float*>(args.out), to + first, x);
      default:
        return write(static_cast<const Bf16*>(args.residual), static_cast<Bf16*>(args.out), to + first, x);
    }
  }

 private:
  template <typename Out>
  GPU_DEVICE void write(const Out* residual, Out* out, int64_t at, float (&x)[kCount]) const {
    const bool whole = count == kCount && (kCount == 1 || args.vector != 0);
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) {
      x[w] = x[w] + shift[w];
      if (args.bias != nullptr) x[w] = x[w] + bias[w];
    }
    if (args.residual_first != 0) add(residual, at, whole, x);
    gemm::activate_all(args.activation, x);
    if (args.residual_first == 0) add(residual, at, whole, x);
    if (whole) {
      store_pack(out + at, x);
    } else {
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) {
        if (w < count) from_float(x[w], out + at + w * args.channel_stride);
      }
    }
  }

  template <typename Out>
  GPU_DEVICE void add(const Out* residual, int64_t at, bool whole, float (&x)[kCount]) const {
    if (residual == nullptr) return;
    float r[kCount];
    if (whole) {
      load_pack(residual + at, r);
    } else {
      GPU_UNROLL
      for (int w = 0; w < kCount; ++w) r[w] = w < count ? to_float(residual[at + w * args.channel_stride]) : 0.0f;
    }
    GPU_UNROLL
    for (int w = 0; w < kCount; ++w) x[w] = x[w] + r[w];
  }
};

}  // namespace gatun::gpu::conv
