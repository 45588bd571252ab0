// Depthwise convolution of x with the columns of a line side by side (channels first), out likewise: a plane of a channel at a
// time, vectors along columns.
//
// Bytes: x, the weights and out once each. FLOPs: 2 for each kernel position and element of out. The load units bind: a vector
// of x, at any address, for each multiply-add, and a read and a write more of what is copied.
//
// A slab of lines of a plane, with the zeros around it, is copied into a buffer in the L1 cache, in which every kernel position
// is a fixed distance from the first: lines of x that are a stride apart follow each other, and so do columns. Then out is one
// long row of sums over shifted copies of the buffer, ends of lines and the next line's beginnings alike; what falls between
// lines is computed and dropped.
#pragma once

#include "cpu/conv/conv.h"
#include "cpu/conv/finish.h"
#include "cpu/gemm/microkernels.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kPlaneVectors = 8;  // sums in registers: enough for the latency of multiply-adds
constexpr int64_t kPlaneStep = kPlaneVectors * static_cast<int64_t>(HWY_LANES(float));
constexpr int64_t kSlabElements = 6144;  // of buffer and sums: most of an L1 cache

struct Slab {
  int64_t pitch;   // elements of a line, of each of the strides' remainders
  int64_t height;  // lines of out
  int64_t lines;   // of x, of each of the strides' remainders
  int64_t depth;   // elements of the lines that meet one depth of the kernel
  int64_t sums;    // elements of out, and of what is computed past it

  explicit Slab(const ConvShape& s) {
    const int64_t reach = s.out_size[2] + ((s.kernel[2] - 1) * s.dilation[2]) / s.stride[2];
    pitch = reach > 0 ? reach : 1;
    const int64_t more = (s.kernel[1] - 1) * s.dilation[1] / s.stride[1];  // lines beside those of the first kernel position
    const int64_t apart = s.stride[1] * s.stride[2] * s.kernel[0];
    height = (kSlabElements / pitch - more * apart) / (apart + 1);
    height = height < 1 ? 1 : height > s.out_size[1] ? s.out_size[1] : height;
    lines = height + more;
    depth = s.stride[1] * s.stride[2] * lines * pitch;
    sums = (height * pitch + kPlaneStep - 1) / kPlaneStep * kPlaneStep;
  }

  // What the last vectors read past the lines.
  int64_t beyond() const { return pitch + kPlaneStep; }
  int64_t buffer_elements(const ConvShape& s) const { return s.kernel[0] * depth + beyond(); }
};

struct Tap {
  int64_t offset;
  float weight;
};

HWY_INLINE int64_t taps_bytes(const ConvShape& s) { return (s.positions * static_cast<int64_t>(sizeof(Tap)) + 63) / 64 * 64; }

template <bool kRound, typename X>
HWY_INLINE float widened(X value) {
  if constexpr (!kRound) return to_float(value);
  bf16 narrow;
  from_float(to_float(value), &narrow);
  return to_float(narrow);
}

// Columns of a line whose number leaves the remainder `phase` by the stride, from the first of the first kernel position on.
template <bool kRound, typename X>
HWY_INLINE void copy_line(const ConvShape& s, const X* x, int64_t phase, int64_t pitch, float* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), stride = s.stride[2];
  const int64_t first = phase - s.pad[2];  // column of x of element 0
  int64_t low = first >= 0 ? 0 : (-first + stride - 1) / stride;
  int64_t high = s.size[2] > first ? (s.size[2] - first + stride - 1) / stride : 0;
  low = low < pitch ? low : pitch;
  high = high < low ? low : high < pitch ? high : pitch;
  for (int64_t i = 0; i < low; ++i) to[i] = 0.0f;
  int64_t i = low;
  const X* from = x + first;
  if (!kRound && stride == 1) {
    for (; i + lanes <= high; i += lanes) store(d, load(d, from + i), to + i);
  }
  for (; i < high; ++i) to[i] = widened<kRound>(from[i * stride]);
  for (; i < pitch; ++i) to[i] = 0.0f;
}

// The lines of x that `rows` lines of out from `y` on meet, at one depth of x.
template <bool kRound, typename X>
void copy_slab(const ConvShape& s, const Slab& slab, const X* x, int64_t line_stride, int64_t y, float* to) {
  for (int64_t phase = 0; phase < s.stride[2]; ++phase) {
    for (int64_t q = 0; q < s.stride[1]; ++q) {
      for (int64_t l = 0; l < slab.lines; ++l, to += slab.pitch) {
        const int64_t height = (y + l) * s.stride[1] + q - s.pad[1];
        if (inside(height, s.size[1])) {
          copy_line<kRound>(s, x + height * line_stride, phase, slab.pitch, to);
        } else {
          std::memset(to, 0, static_cast<size_t>(slab.pitch) * sizeof(float));
        }
      }
    }
  }
}

HWY_INLINE void sum_taps(const float* x, const Tap* taps, int64_t count, float shift, float bias, int64_t elements,
                         float* sums) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < elements; i += kPlaneStep) {
    VF acc[kPlaneVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kPlaneVectors; ++v) acc[v] = hn::Zero(d);
    for (int64_t t = 0; t < count; ++t) {
      const VF w = hn::Set(d, taps[t].weight);
      const float* from = x + taps[t].offset + i;
#pragma GCC unroll 8
      for (int v = 0; v < kPlaneVectors; ++v) acc[v] = hn::MulAdd(hn::LoadU(d, from + v * lanes), w, acc[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kPlaneVectors; ++v) {
      hn::StoreU(hn::Add(hn::Add(acc[v], hn::Set(d, shift)), hn::Set(d, bias)), d, sums + i + v * lanes);
    }
  }
}

template <typename X, bool kRound, typename Out>
void sum_planes(const ConvRun& run, int64_t first, int64_t count, void* memory) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const ConvShape& s = run.shape;
  const Slab slab(s);
  Tap* taps = static_cast<Tap*>(memory);
  float* buffer = reinterpret_cast<float*>(static_cast<char*>(memory) + taps_bytes(s));
  float* sums = buffer + slab.buffer_elements(s);
  const Out* residual = static_cast<const Out*>(run.residual);
  const bool before = residual != nullptr && run.residual_first, after = residual != nullptr && !before;
  for (int64_t plane = first; plane < first + count; ++plane) {
    const int64_t y0 = plane % s.out_size[0], c = plane / s.out_size[0] % s.columns, image = plane / s.out_size[0] / s.columns;
    const float* weights = reinterpret_cast<const float*>(run.panels + c / kPanel * run.panel_bytes) + c % kPanel;
    const X* x = static_cast<const X*>(run.x) + image * run.x_strides[0] + c * run.x_channel_stride;
    const int64_t to = image * run.out_strides[0] + c * run.out_strides[1] + y0 * run.out_strides[2];
    for (int64_t y = 0; y < s.out_size[1]; y += slab.height) {
      const int64_t rows = s.out_size[1] - y < slab.height ? s.out_size[1] - y : slab.height;
      int64_t used = 0;
      float* end = buffer;
      for (int64_t t0 = 0; t0 < s.kernel[0]; ++t0) {
        const int64_t depth = y0 * s.stride[0] - s.pad[0] + t0 * s.dilation[0];
        if (!inside(depth, s.size[0])) continue;
        copy_slab<kRound>(s, slab, x + depth * run.x_strides[1], run.x_strides[2], y, end);
        for (int64_t t1 = 0; t1 < s.kernel[1]; ++t1) {
          const int64_t down = t1 * s.dilation[1];
          for (int64_t t2 = 0; t2 < s.kernel[2]; ++t2) {
            const int64_t right = t2 * s.dilation[2];
            const int64_t block = right % s.stride[2] * s.stride[1] + down % s.stride[1];
            taps[used].offset = end - buffer + (block * slab.lines + down / s.stride[1]) * slab.pitch + right / s.stride[2];
            taps[used++].weight = weights[((t0 * s.kernel[1] + t1) * s.kernel[2] + t2) * kPanel];
          }
        }
        end += slab.depth;
      }
      std::memset(end, 0, static_cast<size_t>(slab.beyond()) * sizeof(float));
      sum_taps(buffer, taps, used, run.shift[c], run.bias == nullptr ? 0.0f : run.bias[c], rows * slab.pitch,
               sums);
      for (int64_t r = 0; before && r < rows; ++r) {
        const Out* from = residual + to + (y + r) * run.out_strides[3];
        for (int64_t i = 0; i < s.out_size[2]; ++i) sums[r * slab.pitch + i] += to_float(from[i]);
      }
      if (run.activation != GTN_ACT_NONE) {
        activate_tile(run.activation, sums, (rows * slab.pitch + kPanel - 1) / kPanel, kVectors);
      }
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = to + (y + r) * run.out_strides[3];
        Out* line = static_cast<Out*>(run.out) + at;
        float* from = sums + r * slab.pitch;
        for (int64_t i = 0; after && i < s.out_size[2]; ++i) from[i] += to_float(residual[at + i]);
        int64_t i = 0;
        for (; i + lanes <= s.out_size[2]; i += lanes) store(d, hn::LoadU(d, from + i), line + i);
        for (; i < s.out_size[2]; ++i) from_float(from[i], line + i);
      }
    }
  }
}

int64_t planes_scratch_bytes(const ConvShape& shape) {
  const Slab slab(shape);
  const int64_t floats = slab.buffer_elements(shape) + slab.sums + kPanel;
  return taps_bytes(shape) + (floats * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
}

// Planes first to first + count - 1 of out, counted through depths, channels and the batch.
void depthwise_planes(const ConvRun& run, int64_t first, int64_t count, void* scratch) {
  const bool wide = run.out_dtype == GTN_F32;
  if (run.x_dtype == GTN_BF16) {
    (wide ? sum_planes<bf16, false, float> : sum_planes<bf16, false, bf16>)(run, first, count, scratch);
  } else if (run.format == GTN_BF16) {
    (wide ? sum_planes<float, true, float> : sum_planes<float, true, bf16>)(run, first, count, scratch);
  } else {
    (wide ? sum_planes<float, false, float> : sum_planes<float, false, bf16>)(run, first, count, scratch);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
