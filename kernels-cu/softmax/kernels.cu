// Softmax over rows: out = exp(scale x - max) / sum, where max is that of scale x.
//
// Bytes: every element is read once and written once, 8 bytes of FP32. FLOPs: about 24 an element. What binds it: memory, at some
// 60 operations to 8 bytes of traffic that an H100 has. So a row is held in registers from its only reading to its only
// writing, by a warp up to some hundred elements and by a block beyond; a row that does not fit is read again in the passes for
// the sum and for the result, from the L2 cache where that holds it.
//
// scale x is rounded before the subtraction, on purpose: the difference to the maximum is then never positive, while a fused one
// would keep the rounding error of the maximum itself, which for large scores overflows the exponential. NaN needs no test: it
// is dropped by the maximum, comes back through its exponential, and turns the sum, and so the whole row, into NaN; +inf
// does the same through inf - inf.
#include "softmax/kernels.h"

#include "gpu/pack.h"
#include "gpu/rows.h"

namespace gatun::gpu {
namespace {

// 2^32 exp(v) for v <= 0: the factor is that of the sum as well, and spares the rounding into the denormals.
GPU_DEVICE float exponential(float v) { return exp_scaled(at_least(v, -109.0f)); }

template <typename X, typename Y, int N, int kThreads, int kPacks>
GPU_KERNEL(kBlockOf<kThreads>, 1) void softmax_rows(const SoftmaxArgs a) {
  const int64_t row = group_row<kThreads>();
  if (row >= a.rows) return;
  const X* x = static_cast<const X*>(a.x) + row * a.x_stride;
  Y* out = static_cast<Y*>(a.out) + row * a.out_stride;

  const auto load = [&](float(&v)[N], int64_t i) {
    load_pack(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] *= a.scale;
  };
  float kept[kPacks > 0 ? kPacks : 1][N];
  if constexpr (kPacks > 0) each_kept<N, kThreads>(kept, a.n, load);
  const auto each = [&](auto body) {
    if constexpr (kPacks > 0) {
      each_kept<N, kThreads>(kept, a.n, body);
    } else {
      each_loaded<N, kThreads>(a.n, load, body);
    }
  };

  Group<kThreads> group;
  float maximum = -infinity();
  each([&](float(&v)[N], int64_t) {
#pragma unroll
    for (int j = 0; j < N; ++j) maximum = v[j] > maximum ? v[j] : maximum;
  });
  maximum = group.max(maximum);
  // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN, and a factor of
  // 0 makes the row 0 unless it has a NaN.
  const bool nothing = maximum == -infinity();
  if (nothing) maximum = 0.0f;
  float sum = 0.0f;
  each([&](float(&v)[N], int64_t) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      v[j] = exponential(v[j] - maximum);
      sum += v[j];
    }
  });
  sum = group.sum(sum);
  const float factor = nothing && sum == sum ? 0.0f : 1.0f / sum;
  each([&](float(&v)[N], int64_t i) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if constexpr (kPacks == 0) v[j] = exponential(v[j] - maximum);
      v[j] *= factor;
    }
    store_pack(out + i, v);
  });
}

template <typename X, typename Y>
RowKernel<SoftmaxArgs> kernel_for(int64_t n, bool aligned) {
  return row_kernel<SoftmaxArgs, kPackOf<X, Y>>(n, aligned, [](auto shape) {
    using Shape = decltype(shape);
    return softmax_rows<X, Y, Shape::kPack, Shape::kThreads, Shape::kPacks>;
  });
}

}  // namespace

RowKernel<SoftmaxArgs> softmax_kernel(bool x_bf16, bool out_bf16, int64_t n, bool aligned) {
  if (x_bf16) return out_bf16 ? kernel_for<Bf16, Bf16>(n, aligned) : kernel_for<Bf16, float>(n, aligned);
  return out_bf16 ? kernel_for<float, Bf16>(n, aligned) : kernel_for<float, float>(n, aligned);
}

}  // namespace gatun::gpu
