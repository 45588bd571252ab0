// Fake quantization over rows: out = (clamp(rint(x / s) + z, least, most) - z) s, or its straight-through gradient, the gradient of
// out where the integer is within least to most, else 0.
//
// Bytes: every element is read once and written once, 8 bytes of FP32, 12 with a gradient; scales of columns stay in a cache.
// FLOPs: 7 an element, of which a division is some ten instructions. What binds it (a prediction): memory, at some 25 instructions
// for 4 bytes or more.
//
// A thread has a pack of 16 bytes of x or out, whichever is wider; as many threads as a multiprocessor holds have 32 KB under way.
#include "fake_quantize/kernels.h"

#include "gpu/divide.h"
#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

template <typename X, typename Y, int N>
GPU_KERNEL(kFakeQuantizeThreads, 1)
void fake_quantize(const FakeQuantizeArgs a) {
  const int64_t across = a.n / N, packs = a.rows * across;
  for (int64_t pack = static_cast<int64_t>(block_x()) * kFakeQuantizeThreads + thread(); pack < packs;
       pack += static_cast<int64_t>(grid_x()) * kFakeQuantizeThreads) {
    const int64_t row = divide(pack, across), column = (pack - row * across) * N;
    float x[N], y[N], gradient[N] = {}, scale[N], zero[N];
    load_pack(static_cast<const X*>(a.x) + row * a.x_stride + column, x);
    const int64_t to = row * a.out_stride + column;
    if (a.gradient != nullptr) load_pack(static_cast<const Y*>(a.gradient) + to, gradient);
    if (a.of_columns != 0) {
      load_pack(a.scales + column, scale);
    } else {
      scale[0] = a.scales[a.of_rows != 0 ? row : 0];
    }
    GPU_UNROLL
    for (int j = 0; j < N; ++j) {
      const int64_t grid = a.of_columns != 0 ? column + j : a.of_rows != 0 ? row : 0;
      if (a.of_columns == 0) scale[j] = scale[0];
      zero[j] = a.zero_points != nullptr ? static_cast<float>(a.zero_points[grid]) : 0.0f;
    }
    GPU_UNROLL
    for (int j = 0; j < N; ++j) {
      const float integer = rint(x[j] / scale[j]) + zero[j];
      if (a.gradient != nullptr) {
        y[j] = integer >= a.least && integer <= a.most ? gradient[j] : 0.0f;  // a NaN is nowhere
      } else {
        const float value = (at_most(at_least(integer, a.least), a.most) - zero[j]) * scale[j];
        y[j] = x[j] != x[j] ? x[j] : scale[j] == 0.0f ? 0.0f : value;
      }
    }
    store_pack(static_cast<Y*>(a.out) + to, y);
  }
}

template <typename X, typename Y>
FakeQuantizeKernel kernel_for(bool vector) {
  constexpr int N = kPackOf<X, Y>;
  if (vector) return {fake_quantize<X, Y, N>, N};
  return {fake_quantize<X, Y, 1>, 1};
}

}  // namespace

FakeQuantizeKernel fake_quantize_kernel(bool x_bf16, bool out_bf16, bool vector) {
  if (x_bf16) return out_bf16 ? kernel_for<Bf16, Bf16>(vector) : kernel_for<Bf16, float>(vector);
  return out_bf16 ? kernel_for<float, Bf16>(vector) : kernel_for<float, float>(vector);
}

}  // namespace gatun::gpu
