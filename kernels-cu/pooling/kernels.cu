// Pooling: the maximum or the mean of a window that moves over one to three spatial dimensions.
//
// Bytes: x is read once from memory and out written once, if caches keep what windows share. Operations: one for each position of a
// window, 9 for 2 or 4 bytes read with 3 x 3, beside its load, which comes from the nearest cache but for the first. What binds
// it (a prediction): memory for windows without a position in common, loads for 3 x 3 at a stride of 1.
//
// A thread has an output. Neighbouring threads have neighbouring channels where those lie side by side, and else neighbouring
// positions, so that a warp's loads share sectors. Where windows are large and positions side by side, as in global pooling, a warp has an
// output, and its lanes the window's positions by turns.
//
// The maximum begins at -infinity and takes x where x is greater or NaN, so a NaN stays. Means are FP32 sums, divided once.
#include "pooling/kernels.h"

#include "gpu/divide.h"
#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;

// i / size, which leaves the remainder in *i.
GPU_DEVICE int64_t take(int64_t* i, int64_t size) {
  const int64_t whole = *i, quotient = divide(whole, size);
  *i = whole - quotient * size;
  return quotient;
}

GPU_DEVICE float join(bool average, float so_far, float x) {
  if (average) return so_far + x;
  return x > so_far || x != x ? x : so_far;
}

template <typename X, typename Y, int kTeam>
GPU_KERNEL(kThreads, 1)
void pool(const PoolingArgs a) {
  const int64_t output = (static_cast<int64_t>(block_x()) * kThreads + thread()) / kTeam;
  if (output >= a.outputs) return;
  // Batch, channel and the position in each dimension.
  int64_t at[5], rest = output;
  if (a.within != 0) {
    int64_t above = take(&rest, a.channels);
    at[1] = rest;
    GPU_UNROLL
    for (int d = 2; d >= 0; --d) {
      rest = above;
      above = take(&rest, a.out_size[d]);
      at[2 + d] = rest;
    }
    at[0] = above;
  } else {
    int64_t above = rest;
    GPU_UNROLL
    for (int d = 2; d >= 0; --d) {
      rest = above;
      above = take(&rest, a.out_size[d]);
      at[2 + d] = rest;
    }
    rest = above;
    at[0] = take(&rest, a.channels);
    at[1] = rest;
  }

  // The positions of the window that lie in x: `count` of them in each dimension, in steps of the dilation.
  const X* x = static_cast<const X*>(a.x) + at[0] * a.x_strides[0] + at[1] * a.x_strides[1];
  int64_t count[3], step[3], inside = 1;
  GPU_UNROLL
  for (int d = 0; d < 3; ++d) {
    const int64_t start = at[2 + d] * a.stride[d] - a.pad[d];
    const int64_t skipped = start < 0 ? (-start - 1) / a.dilation[d] + 1 : 0;
    const int64_t first = start + skipped * a.dilation[d];
    const int64_t there = first < a.size[d] ? (a.size[d] - 1 - first) / a.dilation[d] + 1 : 0;
    const int64_t left = a.kernel[d] - skipped;
    count[d] = left < 0 ? 0 : left < there ? left : there;
    step[d] = a.dilation[d] * a.x_strides[2 + d];
    inside *= count[d];
    if (count[d] > 0) x += first * a.x_strides[2 + d];
  }
  const bool average = a.average != 0;
  float found = average ? 0.0f : -infinity();
  if constexpr (kTeam == 1) {
    for (int64_t i = 0; i < count[0]; ++i) {
      for (int64_t j = 0; j < count[1]; ++j) {
        const X* line = x + i * step[0] + j * step[1];
        for (int64_t k = 0; k < count[2]; ++k) found = join(average, found, to_float(line[k * step[2]]));
      }
    }
  } else {
    for (int64_t p = lane(); p < inside; p += kWarp) {
      int64_t k = p;
      int64_t j = take(&k, count[2]);
      const int64_t i = take(&j, count[1]);
      found = join(average, found, to_float(x[i * step[0] + j * step[1] + k * step[2]]));
    }
    for (int mask = kWarp / 2; mask > 0; mask /= 2) found = join(average, found, shuffle_xor(found, mask));
    if (lane() != 0) return;
  }
  const float divisor = a.count_padding != 0 ? a.positions : static_cast<float>(inside);
  if (average && divisor > 0.0f) found = found / divisor;
  int64_t to = 0;
  GPU_UNROLL
  for (int d = 0; d < 5; ++d) to += at[d] * a.out_strides[d];
  from_float(found, static_cast<Y*>(a.out) + to);
}

template <typename X, typename Y>
PoolingKernel kernel_for(bool team) {
  if (team) return {pool<X, Y, kWarp>, kThreads, kThreads / kWarp};
  return {pool<X, Y, 1>, kThreads, kThreads};
}

template <typename X>
PoolingKernel kernel_to(int out_type, bool team) {
  return out_type == 0   ? kernel_for<X, float>(team)
         : out_type == 1 ? kernel_for<X, Bf16>(team)
                         : kernel_for<X, Half>(team);
}

}  // namespace

PoolingKernel pooling_kernel(int x_type, int out_type, bool team) {
  return x_type == 0   ? kernel_to<float>(out_type, team)
         : x_type == 1 ? kernel_to<Bf16>(out_type, team)
                       : kernel_to<Half>(out_type, team);
}

}  // namespace gatun::gpu
