// Residual and LayerNorm or RMSNorm over rows.
//
//   h = x + residual, in FP32; sum = h
//   LayerNorm: out = (h - mean h) / sqrt(var h + epsilon) * gamma + beta
//   RMSNorm:   out = h / sqrt(mean h^2 + epsilon) * gamma
//
// Bytes: x, residual, out and sum once each; gamma and beta come from the cache. FLOPs: 10 an element for LayerNorm, 4 for
// RMSNorm. What binds it: memory. So a row is held in registers from its only reading to its only writing, by a warp up to some
// hundred elements and by a block beyond; a row that does not fit is read again, from the L2 cache where that holds it.
// Everything is written in the last pass, after all of the row was read, which makes it right in place.
//
// An out in 8 bits (gpu/quantize.h) is computed twice, from what is held or read again: for its range, and to be quantized. That
// is some 20 operations an element more.
//
// The variance takes two passes and a correction (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983):
// c = h - m with m the rounded mean, then var = mean c^2 - (mean c)^2, and mean c also corrects the mean. The first sum is of
// h - h_0, so that it does not lose the digits that an offset has in common.
//
// Where squares or sums leave FP32's range, and the mean square is not a number from 2^-100 to 2^127, the row is done again times a
// power of two that brings the largest of its elements, or sqrt(epsilon), to 1 to 2. The formula gives the rest: NaN for a
// LayerNorm of a row with an infinity, 0 with NaN at the infinities for RMSNorm, NaN for a row with NaN.
#include "norm/kernels.h"

#include <type_traits>

#include "gpu/pack.h"
#include "gpu/quantize.h"
#include "gpu/rows.h"

namespace gatun::gpu {
namespace {

// Whether a mean square came from squares inside FP32's range. False for NaN.
GPU_DEVICE bool in_range(float mean_square) { return mean_square >= 0x1p-100f && mean_square < 0x1p127f; }

// 2^-e for 2^e <= x < 2^(e + 1) and e within -126 to 126.
GPU_DEVICE float inverse_power(float x) {
  const uint32_t exponent = bits_of(x) >> 23;
  return float_of((254u - (exponent < 1u ? 1u : exponent > 253u ? 253u : exponent)) << 23);
}

struct Moments {
  float mean, rest, mean_square;
};

template <bool kLayer, typename X, typename Y, int N, int kThreads, int kPacks>
GPU_KERNEL(kBlockOf<kThreads>, 1) void norm_rows(const NormArgs a) {
  const int64_t row = group_row<kThreads>();
  if (row >= a.rows) return;
  const X* x = static_cast<const X*>(a.x) + row * a.x_stride;
  const X* residual = a.residual == nullptr ? nullptr : static_cast<const X*>(a.residual) + row * a.x_stride;
  X* sum = a.sum == nullptr ? nullptr : static_cast<X*>(a.sum) + row * a.x_stride;
  Y* out = static_cast<Y*>(a.out) + row * a.out_stride;
  const int64_t n = a.n;
  const float count = static_cast<float>(n);

  const auto load = [&](float(&v)[N], int64_t i) {
    load_pack(x + i, v);
    if (residual == nullptr) return;
    float r[N];
    load_pack(residual + i, r);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += r[j];
  };
  float kept[kPacks > 0 ? kPacks : 1][N];
  if constexpr (kPacks > 0) each_kept<N, kThreads>(kept, n, load);
  const auto each = [&](auto body) {
    if constexpr (kPacks > 0) {
      each_kept<N, kThreads>(kept, n, body);
    } else {
      each_loaded<N, kThreads>(n, load, body);
    }
  };

  Group<kThreads> group;
  float first = 0.0f;
  if constexpr (kLayer) {
    first = to_float(x[0]);
    if (residual != nullptr) first += to_float(residual[0]);
    // In place, the first thread writes there in the end. A block's barriers are in the sums.
    if constexpr (kThreads == kWarp) sync_warp();
  }
  // By the power of two only where it is needed: the multiplications cost.
  const auto moments = [&](auto scaled, float power) {
    const auto times = [&](float v) { return decltype(scaled)::value ? v * power : v; };
    Moments m = {0.0f, 0.0f, 0.0f};
    float s = 0.0f, squares = 0.0f;
    if constexpr (kLayer) {
      each([&](const float(&v)[N], int64_t) {
#pragma unroll
        for (int j = 0; j < N; ++j) s += times(v[j] - first);
      });
      m.mean = times(first) + group.sum(s) / count;
      s = 0.0f;
    }
    each([&](const float(&v)[N], int64_t) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float c = times(v[j]) - m.mean;
        if constexpr (kLayer) s += c;
        squares = fma(c, c, squares);
      }
    });
    if constexpr (kLayer) {
      group.sum(&s, &squares);
      m.rest = s / count;
      m.mean_square = squares / count - m.rest * m.rest;
    } else {
      m.mean_square = group.sum(squares) / count;
    }
    return m;
  };

  float scale = 1.0f, epsilon = a.epsilon;
  Moments m = moments(std::false_type(), 1.0f);
  if (!in_range(m.mean_square + epsilon)) {
    float most = 0.0f;
    each([&](const float(&v)[N], int64_t) {
#pragma unroll
      for (int j = 0; j < N; ++j) most = absolute(v[j]) > most ? absolute(v[j]) : most;
    });
    most = group.max(most);
    const float root = sqrt(epsilon);
    most = root > most ? root : most;
    if (most > 0.0f && finite(most)) {
      scale = inverse_power(most);
      epsilon = epsilon * scale * scale;
      m = moments(std::true_type(), scale);
    }
  }
  const float factor = 1.0f / sqrt(m.mean_square + epsilon);

  const auto normed = [&](const float(&v)[N], int64_t i, float(&y)[N]) {
    float gamma[N];
    load_pack(a.gamma + i, gamma);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float h = v[j] * scale;
      y[j] = kLayer ? (h - m.mean - m.rest) * factor : h * factor;
    }
    if (kLayer && a.beta != nullptr) {
      float beta[N];
      load_pack(a.beta + i, beta);
#pragma unroll
      for (int j = 0; j < N; ++j) y[j] = fma(y[j], gamma[j], beta[j]);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) y[j] *= gamma[j];
    }
  };
  if constexpr (sizeof(Y) > 1) {
    each([&](const float(&v)[N], int64_t i) {
      float y[N];
      normed(v, i, y);
      if (sum != nullptr) store_pack(sum + i, v);
      store_pack(out + i, y);
    });
  } else {
    RowRange range;
    each([&](const float(&v)[N], int64_t i) {
      float y[N];
      normed(v, i, y);
#pragma unroll
      for (int j = 0; j < N; ++j) range.take(y[j]);
    });
    range.lo = -group.max(-range.lo);
    range.hi = group.max(range.hi);
    range.odd = group.max(range.odd ? 1.0f : 0.0f) > 0.0f;
    const RowGrid grid(range);
    if (group_thread<kThreads>() == 0) {
      a.scales[row] = grid.scale;
      a.zeros[row] = grid.zero;
    }
    each([&](const float(&v)[N], int64_t i) {
      uint32_t words[N < 4 ? 1 : N / 4] = {};
      if (!grid.flat) {
        float y[N];
        normed(v, i, y);
#pragma unroll
        for (int j = 0; j < N; ++j) words[j / 4] |= grid.quantize(y[j]) << (8 * (j % 4));
      }
      if (sum != nullptr) store_pack(sum + i, v);
      if constexpr (N == 1) {
        out[i] = static_cast<Y>(words[0]);
      } else {
#pragma unroll
        for (int w = 0; w < N / 4; ++w) store_4(out + i + 4 * w, words[w]);
      }
    });
  }
}

template <bool kLayer, typename X, typename Y>
RowKernel<NormArgs> kernel_for(int64_t n, bool aligned) {
  constexpr int N = kPackOf<X, Y>;
  return row_kernel<NormArgs, N>(n, aligned, [](auto shape) {
    using Shape = decltype(shape);
    return norm_rows<kLayer, X, Y, Shape::kPack, Shape::kThreads, Shape::kPacks>;
  });
}

template <bool kLayer, typename X>
RowKernel<NormArgs> kernel_to(int32_t out_dtype, int64_t n, bool aligned) {
  return out_dtype == GTN_F32    ? kernel_for<kLayer, X, float>(n, aligned)
         : out_dtype == GTN_BF16 ? kernel_for<kLayer, X, Bf16>(n, aligned)
                                 : kernel_for<kLayer, X, uint8_t>(n, aligned);
}

}  // namespace

RowKernel<NormArgs> norm_kernel(bool layer, bool x_bf16, int32_t out_dtype, int64_t n, bool aligned) {
  if (layer) return x_bf16 ? kernel_to<true, Bf16>(out_dtype, n, aligned) : kernel_to<true, float>(out_dtype, n, aligned);
  return x_bf16 ? kernel_to<false, Bf16>(out_dtype, n, aligned) : kernel_to<false, float>(out_dtype, n, aligned);
}

}  // namespace gatun::gpu
