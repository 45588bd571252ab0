// Bias and activation over rows: out = f(x + bias), f of gpu/math.h.
//
// Bytes: every element is read once and written once, 8 bytes of FP32. FLOPs: 50 an element for GELU (erf) down to 1 for ReLU.
// What binds it: memory for FP32, where an H100 has some 60 operations to an element's 8 bytes; GELU of BF16, with 4 bytes, is
// bound by its operations.
//
// A thread has four packs, all of them loaded before the first is computed on: side by side in long rows, or below each other in
// short ones, where they share their bias.
#include "activation/kernels.h"

#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 4;
constexpr int kShortRow = 32;  // threads across a short row

template <int kActivation, typename X, typename Y, int N, int kAcross>
GPU_DEVICE void tile(const ActivationArgs& a) {
  constexpr int kWide = kAcross;                // threads across
  constexpr int kTall = kThreads / kAcross;     // and down
  constexpr bool kLong = kAcross == kThreads;
  const int64_t block_row = block_x() / a.blocks_across;
  const int64_t column = (block_x() - block_row * a.blocks_across) * (kWide * N * (kLong ? kPacks : 1)) +
                         static_cast<int64_t>(thread() % kWide) * N;
  const int64_t row = block_row * (kLong ? 1 : kTall * kPacks) + thread() / kWide;
  const X* x = static_cast<const X*>(a.x);
  Y* out = static_cast<Y*>(a.out);
  float v[kPacks][N];
  const auto row_of = [&](int p) { return kLong ? row : row + p * kTall; };
  const auto column_of = [&](int p) { return kLong ? column + static_cast<int64_t>(p) * kWide * N : column; };
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (row_of(p) < a.rows && column_of(p) < a.n) load_pack(x + row_of(p) * a.x_stride + column_of(p), v[p]);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (row_of(p) >= a.rows || column_of(p) >= a.n) continue;
    if (a.bias != nullptr) {
      float bias[N];
      load_pack(a.bias + column_of(p), bias);
#pragma unroll
      for (int j = 0; j < N; ++j) v[p][j] += bias[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) v[p][j] = activate(kActivation, v[p][j]);
    store_pack(out + row_of(p) * a.out_stride + column_of(p), v[p]);
  }
}

template <typename X, typename Y, int N, int kAcross>
GPU_KERNEL(kThreads, 1) void activation_tiles(const ActivationArgs a) {
  switch (a.activation) {
    case 1:
      return tile<1, X, Y, N, kAcross>(a);
    case 2:
      return tile<2, X, Y, N, kAcross>(a);
    case 3:
      return tile<3, X, Y, N, kAcross>(a);
    case 4:
      return tile<4, X, Y, N, kAcross>(a);
    default:
      return tile<0, X, Y, N, kAcross>(a);
  }
}

template <typename X, typename Y, int N>
ActivationKernel shape_for(int64_t n) {
  if (n > kShortRow * N * kPacks) {
    return {activation_tiles<X, Y, N, kThreads>, kThreads, int64_t{kThreads} * N * kPacks, 1};
  }
  return {activation_tiles<X, Y, N, kShortRow>, kThreads, int64_t{kShortRow} * N, kThreads / kShortRow * kPacks};
}

template <typename X, typename Y>
ActivationKernel kernel_for(int64_t n, bool aligned) {
  constexpr int N = kPackOf<X, Y>;
  return aligned && n % N == 0 ? shape_for<X, Y, N>(n) : shape_for<X, Y, 1>(n);
}

}  // namespace

ActivationKernel activation_kernel(bool x_bf16, bool out_bf16, int64_t n, bool aligned) {
  if (x_bf16) return out_bf16 ? kernel_for<Bf16, Bf16>(n, aligned) : kernel_for<Bf16, float>(n, aligned);
  return out_bf16 ? kernel_for<float, Bf16>(n, aligned) : kernel_for<float, float>(n, aligned);
}

}  // namespace gatun::gpu
