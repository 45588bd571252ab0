// Depthwise convolution of x with channels side by side:
//
//   out[y, c] = sum over kernel positions t of x[place(y, t), c] * w[t, c]
//
// Bytes: x, the weights and out once each. FLOPs: 2 for each kernel position and element of out, a few for each byte, so memory
// or the caches that hold x bind; the multiply-add units do so only for large kernels.
//
// Up to kPixels positions of a line of out are computed at once, all channels of them before the next, a panel of channels at a
// time: x is then read in the order in which it lies, and each cache line of it once for a line of the kernel. Three or five
// weights of such a line stay in registers while the columns of x pass by, each loaded once for all the sums that it is part
// of; lines of other kernels load a weight for kPixels columns. Positions whose kernel is partly outside of x, left or right,
// are computed singly.
#pragma once

#include "cpu/conv/conv.h"
#include "cpu/conv/finish.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kPixels = 4;

// A line of the kernel that lies in x, or the part of one that does.
template <typename X>
struct KernelLine {
  const X* x;            // column 0
  const float* weights;  // of the first panel
};

template <typename X>
struct KernelLines {
  const KernelLine<X>* lines;
  int64_t count;
  int64_t low, high;  // the positions of a line that lie in x
};

// kCount positions, one after the other in a line of out, by kVecs vectors of channels. `at` is the column of x of the first's
// first kernel position; `channel` and `weight` are elements from where lines start. kWidth: weights of a line, which has no
// dilation; 0: any.
template <int kCount, int kVecs, int kWidth, int kStride, typename X, typename Load>
HWY_INLINE void sum_vectors(const ConvRun& run, const KernelLines<X>& kernel, int64_t at, int64_t channel, int64_t weight,
                            Load load_x, VF (&acc)[kCount][kVecs]) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), pitch = run.x_strides[3];
#pragma GCC unroll 16
  for (int p = 0; p < kCount; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[p][v] = hn::Zero(d);
  }
  for (int64_t n = 0; n < kernel.count; ++n) {
    const X* x = kernel.lines[n].x + at * pitch + channel;
    const float* from = kernel.lines[n].weights + weight;
    if constexpr (kWidth > 0) {
      VF w[kWidth][kVecs];
#pragma GCC unroll 8
      for (int t = 0; t < kWidth; ++t) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) w[t][v] = hn::Load(d, from + t * kPanel + v * lanes);
      }
#pragma GCC unroll 32
      for (int j = 0; j < (kCount - 1) * kStride + kWidth; ++j, x += pitch) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          const VF value = load_x(x + v * lanes);
#pragma GCC unroll 8
          for (int t = 0; t < kWidth; ++t) {
            const int p = (j - t) / kStride;
            if (j >= t && (j - t) % kStride == 0 && p < kCount) acc[p][v] = hn::MulAdd(value, w[t][v], acc[p][v]);
          }
        }
      }
    } else {
      const int64_t step = run.shape.dilation[2] * pitch, apart = run.shape.stride[2] * pitch;
      for (int64_t t = kernel.low; t < kernel.high; ++t) {
        VF w[kVecs];
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) w[v] = hn::Load(d, from + t * kPanel + v * lanes);
#pragma GCC unroll 8
        for (int p = 0; p < kCount; ++p) {
#pragma GCC unroll 4
          for (int v = 0; v < kVecs; ++v) {
            acc[p][v] = hn::MulAdd(load_x(x + t * step + p * apart + v * lanes), w[v], acc[p][v]);
          }
        }
      }
    }
  }
}

// Sums of a panel to out: shift, bias and perhaps ReLU.
template <bool kRelu, int kCount, typename Out>
HWY_INLINE void write_panel(const ConvRun& run, int64_t channel, const VF (&acc)[kCount][kVectors], Out* out, int64_t apart) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const VF moved = hn::LoadU(d, run.shift + channel + v * lanes);
    const VF bias = run.bias == nullptr ? hn::Zero(d) : hn::LoadU(d, run.bias + channel + v * lanes);
#pragma GCC unroll 16
    for (int p = 0; p < kCount; ++p) {
      const VF x = hn::Add(hn::Add(acc[p][v], moved), bias);
      store(d, activate<kRelu ? GTN_ACT_RELU : GTN_ACT_NONE>(d, x), out + p * apart + channel + v * lanes);
    }
  }
}

template <int kCount, typename Out>
HWY_INLINE void write_panel(const ConvRun& run, int64_t channel, bool relu, const VF (&acc)[kCount][kVectors], Out* out,
                            int64_t apart) {
  if (relu) {
    write_panel<true>(run, channel, acc, out, apart);
  } else {
    write_panel<false>(run, channel, acc, out, apart);
  }
}

// All channels of kCount positions, whose elements of out are `apart` apart from `to` on.
template <int kCount, int kWidth, int kStride, typename X>
HWY_NOINLINE void sum_pixels(const ConvRun& run, const KernelLines<X>& kernel, int64_t at, int64_t to, int64_t apart) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), columns = run.shape.columns;
  const int64_t panel_stride = run.panel_bytes / static_cast<int64_t>(sizeof(float));
  const bool relu = run.activation == GTN_ACT_RELU;
  // Straight from registers, else by way of a tile in memory.
  const bool straight = run.residual == nullptr && (relu || run.activation == GTN_ACT_NONE) && run.out_strides[1] == 1;
  const auto whole = [&](const X* from) __attribute__((always_inline)) { return load(d, from); };
  HWY_ALIGN float sums[kCount * kPanel];
  Place places[kCount];
  for (int p = 0; p < kCount; ++p) places[p].to = to + p * apart;
  for (int64_t panel = 0, first = 0; first < columns; ++panel, first += kPanel) {
    if (HWY_LIKELY(first + kPanel <= columns)) {
      VF acc[kCount][kVectors];
      sum_vectors<kCount, kVectors, kWidth, kStride>(run, kernel, at, first, panel * panel_stride, whole, acc);
      if (straight && run.out_dtype == GTN_F32) {
        write_panel(run, first, relu, acc, static_cast<float*>(run.out) + to, apart);
        continue;
      }
      if (straight) {
        write_panel(run, first, relu, acc, static_cast<bf16*>(run.out) + to, apart);
        continue;
      }
      store_sums<kCount, 1>(d, sums, 0, acc);
    } else {
      for (int v = 0; v < kVectors && first + v * lanes < columns; ++v) {
        const int64_t channel = first + v * lanes, left = columns - channel, weight = panel * panel_stride + v * lanes;
        const auto some = [&](const X* from) __attribute__((always_inline)) { return load_up_to(d, from, left); };
        for (int p = 0; p < kCount; ++p) {
          VF acc[1][1];
          sum_vectors<1, 1, 0, 0>(run, kernel, at + p * run.shape.stride[2], channel, weight, some, acc);
          hn::StoreU(acc[0][0], d, sums + p * kPanel + v * lanes);
        }
      }
    }
    finish(run, sums, places, kCount, 0, panel);
  }
}

// `count` positions of one line of out, none of which has a part of its kernel beside x.
template <int kWidth, int kStride, typename X>
void sum_line(const ConvRun& run, const KernelLines<X>& kernel, int64_t at, int64_t count, int64_t to) {
  const int64_t stride = run.shape.stride[2], apart = run.out_strides[4];
  const auto move = [&](int64_t by) {
    at += by * stride;
    to += by * apart;
    count -= by;
  };
  for (; count >= kPixels; move(kPixels)) sum_pixels<kPixels, kWidth, kStride>(run, kernel, at, to, apart);
  if (count >= 2) {
    sum_pixels<2, kWidth, kStride>(run, kernel, at, to, apart);
    move(2);
  }
  if (count == 1) sum_pixels<1, kWidth, kStride>(run, kernel, at, to, apart);
}

template <typename X>
using SumLine = void (*)(const ConvRun&, const KernelLines<X>&, int64_t, int64_t, int64_t);

template <typename X>
SumLine<X> find_sum_line(const ConvShape& s) {
  if (s.dilation[2] == 1 && s.kernel[2] == 3 && s.stride[2] == 1) return sum_line<3, 1, X>;
  if (s.dilation[2] == 1 && s.kernel[2] == 3 && s.stride[2] == 2) return sum_line<3, 2, X>;
  if (s.dilation[2] == 1 && s.kernel[2] == 5 && s.stride[2] == 1) return sum_line<5, 1, X>;
  return sum_line<0, 0, X>;
}

template <typename X>
void depthwise_positions(const ConvRun& run, int64_t first, int64_t count, void* memory) {
  const ConvShape& s = run.shape;
  const SumLine<X> sum_whole = find_sum_line<X>(s);
  const X* x = static_cast<const X*>(run.x);
  KernelLine<X>* lines = static_cast<KernelLine<X>*>(memory);
  const int64_t width = s.kernel[2], dilation = s.dilation[2];
  while (count > 0) {
    const int64_t line = first / s.out_size[2], column = first % s.out_size[2];
    const int64_t y1 = line % s.out_size[1], y0 = line / s.out_size[1] % s.out_size[0];
    const int64_t image = line / s.out_size[1] / s.out_size[0];
    KernelLines<X> kernel = {lines, 0, 0, width};
    for (int64_t t0 = 0; t0 < s.kernel[0]; ++t0) {
      const int64_t depth = y0 * s.stride[0] - s.pad[0] + t0 * s.dilation[0];
      if (!inside(depth, s.size[0])) continue;
      for (int64_t t1 = 0; t1 < s.kernel[1]; ++t1) {
        const int64_t height = y1 * s.stride[1] - s.pad[1] + t1 * s.dilation[1];
        if (!inside(height, s.size[1])) continue;
        lines[kernel.count].x = x + image * run.x_strides[0] + depth * run.x_strides[1] + height * run.x_strides[2];
        lines[kernel.count].weights =
            reinterpret_cast<const float*>(run.panels) + (t0 * s.kernel[1] + t1) * width * kPanel;
        ++kernel.count;
      }
    }
    const int64_t to = image * run.out_strides[0] + y0 * run.out_strides[2] + y1 * run.out_strides[3];
    const int64_t end = s.out_size[2] - column < count ? s.out_size[2] : column + count;
    for (int64_t y = column; y < end;) {
      const int64_t at = y * s.stride[2] - s.pad[2], room = s.size[2] - 1 - (width - 1) * dilation - at;
      if (at >= 0 && room >= 0) {
        const int64_t fit = room / s.stride[2] + 1, here = fit < end - y ? fit : end - y;
        sum_whole(run, kernel, at, here, to + y * run.out_strides[4]);
        y += here;
        continue;
      }
      KernelLines<X> part = kernel;
      if (at < 0) part.low = (-at + dilation - 1) / dilation;
      if (room < 0) part.high = at < s.size[2] ? (s.size[2] - 1 - at) / dilation + 1 : 0;
      sum_pixels<1, 0, 0>(run, part, at, to + y * run.out_strides[4], 0);
      ++y;
    }
    count -= end - column;
    first += end - column;
  }
}

// No more lines of the kernel lie in x than x has.
int64_t depthwise_scratch_bytes(const ConvShape& shape) {
  int64_t lines = 1;
  for (int d = 0; d < 2; ++d) lines *= shape.kernel[d] < shape.size[d] ? shape.kernel[d] : shape.size[d];
  return (lines * static_cast<int64_t>(sizeof(KernelLine<float>)) + 63) / 64 * 64;
}

// Positions first to first + count - 1 of out, counted through the batch.
void depthwise(const ConvRun& run, int64_t first, int64_t count, void* scratch) {
  if (run.x_dtype == GTN_F32) {
    depthwise_positions<float>(run, first, count, scratch);
  } else {
    depthwise_positions<bf16>(run, first, count, scratch);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
