// Gated activation over rows: out = f(gate) * x, f of gpu/math.h, in FP32 and rounded once.
//
// Bytes: both factors are read once and the product is written once, 12 bytes of FP32. FLOPs: one more than those of f an
// element. What binds it: memory, as for the activation alone, and sooner, with half as many bytes again.
//
// A thread has two packs of each factor, loaded before the first is computed on: side by side in long rows, or below each other
// in short ones.
#include "activation/kernels.h"

#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 2;
constexpr int kShortRow = 32;  // threads across a short row

template <int kActivation, typename X, typename Y, int N, int kAcross>
GPU_DEVICE void tile(const GluArgs& a) {
  constexpr bool kLong = kAcross == kThreads;
  constexpr int kTall = kThreads / kAcross;
  const int64_t block_row = block_x() / a.blocks_across;
  const int64_t column = (block_x() - block_row * a.blocks_across) * (kAcross * N * (kLong ? kPacks : 1)) +
                         static_cast<int64_t>(thread() % kAcross) * N;
  const int64_t row = block_row * (kLong ? 1 : kTall * kPacks) + thread() / kAcross;
  const auto row_of = [&](int p) { return kLong ? row : row + p * kTall; };
  const auto column_of = [&](int p) { return kLong ? column + static_cast<int64_t>(p) * kAcross * N : column; };
  float gate[kPacks][N], x[kPacks][N];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (row_of(p) >= a.rows || column_of(p) >= a.n) continue;
    load_pack(static_cast<const X*>(a.gate) + row_of(p) * a.gate_stride + column_of(p), gate[p]);
    load_pack(static_cast<const X*>(a.x) + row_of(p) * a.x_stride + column_of(p), x[p]);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (row_of(p) >= a.rows || column_of(p) >= a.n) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) x[p][j] = activate(kActivation, gate[p][j]) * x[p][j];
    store_pack(static_cast<Y*>(a.out) + row_of(p) * a.out_stride + column_of(p), x[p]);
  }
}

template <typename X, typename Y, int N, int kAcross>
GPU_KERNEL(kThreads, 1) void glu_tiles(const GluArgs a) {
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
GluKernel shape_for(int64_t n) {
  if (n > kShortRow * N * kPacks) return {glu_tiles<X, Y, N, kThreads>, kThreads, int64_t{kThreads} * N * kPacks, 1};
  return {glu_tiles<X, Y, N, kShortRow>, kThreads, int64_t{kShortRow} * N, kThreads / kShortRow * kPacks};
}

template <typename X, typename Y>
GluKernel kernel_for(int64_t n, bool aligned) {
  constexpr int N = kPackOf<X, Y>;
  return aligned && n % N == 0 ? shape_for<X, Y, N>(n) : shape_for<X, Y, 1>(n);
}

template <typename X>
GluKernel kernel_to(int out_type, int64_t n, bool aligned) {
  return out_type == 0   ? kernel_for<X, float>(n, aligned)
         : out_type == 1 ? kernel_for<X, Bf16>(n, aligned)
                         : kernel_for<X, Half>(n, aligned);
}

}  // namespace

GluKernel glu_kernel(int type, int out_type, int64_t n, bool aligned) {
  return type == 0   ? kernel_to<float>(out_type, n, aligned)
         : type == 1 ? kernel_to<Bf16>(out_type, n, aligned)
                     : kernel_to<Half>(out_type, n, aligned);
}

}  // namespace gatun::gpu
