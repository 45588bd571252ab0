// Depthwise convolution: out[y, c] = sum over kernel positions t of x[place(y, t), c] * w[t, c].
//
// A kernel of its own, since there is no matrix in it: each channel has one column of weights, of whose tile on a matrix unit, eight
// columns and more, all but one would be zeros.
//
// Bytes: x and out once each from memory, if caches keep what windows share; weights do not count. FLOPs: 2 for each kernel
// position and element of out, 18 with 3 x 3 for 4 bytes in BF16.
//
// What binds (predictions): memory. A100 has 10 bytes a cycle for each multiprocessor, 2.6 elements of out in BF16, and H100 15
// bytes, 3.7. A thread with one element would load 9 of x and 9 weights for it, and a multiprocessor 1.8 elements a cycle from its
// nearest cache. So a thread has four positions of a line in four channels: a weight is loaded for four positions, and 8 or 16 bytes
// at a time, which makes it some 4.7 elements a cycle.
//
//   channels side by side   a thread's positions follow each other in the last dimension; neighbouring threads have the next four
//                           channels.
//   planes                  else neighbouring threads have neighbouring places in the last dimension of one channel, and a thread's
//                           positions follow each other in the dimension before it: loads of a warp share sectors, and all its
//                           threads a weight. In one dimension three of a thread's four positions are idle.
//
// Sums are chains of FP32 multiply-adds over kernel positions in order. x is read where it lies, whatever its strides.
#include <type_traits>

#include "conv/finish.h"
#include "conv/kernels.h"
#include "gpu/divide.h"
#include "gpu/pack.h"

namespace gatun::gpu::conv {
namespace {

template <typename X, bool kPlanes>
GPU_KERNEL(kDepthwiseThreads, 1)
void convolve_depthwise(DepthwiseArgs args) {
  constexpr int kAlong = kPlanes ? 1 : 2;  // the dimension of a thread's positions
  constexpr int kWide = kPlanes ? 1 : kChannels;
  for (int64_t unit = static_cast<int64_t>(block_x()) * kDepthwiseThreads + thread(); unit < args.units;
       unit += static_cast<int64_t>(grid_x()) * kDepthwiseThreads) {
    int64_t left = unit, channel = 0;
    int32_t y[3];
    const auto next = [&left](int64_t size) {
      const int64_t above = divide(left, size), at = left - above * size;
      left = above;
      return at;
    };
    if constexpr (!kPlanes) channel = next(args.filled / kWide) * kWide;
    GPU_UNROLL
    for (int d = 2; d >= 0; --d) y[d] = static_cast<int32_t>(d == kAlong ? next(args.lines) * kPixels : next(args.out_size[d]));
    if constexpr (kPlanes) channel = next(args.channels);
    const int64_t image = left;
    const int count = static_cast<int>(args.channels - channel < kWide ? args.channels - channel : kWide);

    const X* x = static_cast<const X*>(args.x) + image * args.x_strides[0] + channel * args.x_strides[1];
    int32_t at[3];
    GPU_UNROLL
    for (int d = 0; d < 3; ++d) at[d] = y[d] * args.stride[d] - args.pad[d];
    float sums[kPixels][kWide];
    GPU_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      GPU_UNROLL
      for (int w = 0; w < kWide; ++w) sums[p][w] = 0.0f;
    }
    const auto inside = [&args](int32_t place, int d) { return static_cast<uint32_t>(place) < static_cast<uint32_t>(args.size[d]); };
    const float* weights = args.weights + channel;
    for (int i = 0; i < args.kernel[0]; ++i) {
      const int32_t depth = at[0] + i * args.dilation[0];
      if (!inside(depth, 0)) {
        weights += static_cast<int64_t>(args.kernel[1]) * args.kernel[2] * args.filled;
        continue;
      }
      for (int j = 0; j < args.kernel[1]; ++j) {
        const int32_t height = at[1] + j * args.dilation[1];
        for (int k = 0; k < args.kernel[2]; ++k, weights += args.filled) {
          const int32_t width = at[2] + k * args.dilation[2];
          if (!inside(kPlanes ? width : height, kPlanes ? 2 : 1)) continue;
          float weight[kWide];
          load_pack(weights, weight);
          GPU_UNROLL
          for (int p = 0; p < kPixels; ++p) {
            const int32_t moved = (kPlanes ? height : width) + p * args.stride[kAlong];
            if (y[kAlong] + p >= args.out_size[kAlong] || !inside(moved, kAlong)) continue;
            const X* from = x + depth * args.x_strides[2] + (kPlanes ? moved : height) * args.x_strides[3] +
                            (kPlanes ? width : moved) * args.x_strides[4];
            float value[kWide];
            if (kWide == 1 || (args.vector != 0 && count == kWide)) {
              load_pack(from, value);
            } else {
              GPU_UNROLL
              for (int w = 0; w < kWide; ++w) value[w] = w < count ? to_float(from[w * args.x_strides[1]]) : 0.0f;
            }
            GPU_UNROLL
            for (int w = 0; w < kWide; ++w) {
              if (std::is_same_v<X, float> && args.round != 0) value[w] = to_float(to_bf16(value[w]));
              sums[p][w] = fma(value[w], weight[w], sums[p][w]);
            }
          }
        }
      }
    }
    const ChannelFinish<kWide> finish(args.finish, 0, channel);
    GPU_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (y[kAlong] + p >= args.out_size[kAlong]) break;
      int64_t to = image * args.out_strides[0];
      GPU_UNROLL
      for (int d = 0; d < 3; ++d) to += (y[d] + (d == kAlong ? p : 0)) * args.out_strides[2 + d];
      finish.write(to, sums[p]);
    }
  }
}

}  // namespace

KernelPointer depthwise_kernel(int32_t x_dtype, bool planes) {
  if (x_dtype == GTN_F32) {
    return planes ? kernel_pointer(convolve_depthwise<float, true>) : kernel_pointer(convolve_depthwise<float, false>);
  }
  return planes ? kernel_pointer(convolve_depthwise<Bf16, true>) : kernel_pointer(convolve_depthwise<Bf16, false>);
}

}  // namespace gatun::gpu::conv
