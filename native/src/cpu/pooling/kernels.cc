// Pooling, a line of out at a time.
//
// An element of out takes as many operations as its window has positions, on data that windows share: 9 for 2 or 4 bytes read
// in a window of 3 x 3. Memory binds small windows and that of a whole plane (global pooling), loads from the L1 cache those
// between.
//
// Channels side by side: a vector of them goes through the window and stays in its register. Positions side by side: windows
// are products of ranges, so the lines of x that a line of out looks at become one first, element by element; windows then
// move over that line alone, which turns kernel^3 operations into kernel^2 on vectors and kernel on what is left. Where windows
// lie so far apart that they see little of those lines, each goes over x itself.
//
// The maximum begins at -infinity and takes x where x is greater or NaN, so a NaN stays. Means are FP32 sums, divided once.
#include "cpu/pooling/pooling.h"

#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr float kLowest = -__builtin_inff();

struct Maximum {
  static constexpr float kStart = kLowest;
  static HWY_INLINE VF join(VF so_far, VF x) {
    return hn::IfThenElse(hn::Or(hn::Gt(x, so_far), hn::IsNaN(x)), x, so_far);
  }
  static HWY_INLINE float join(float so_far, float x) { return x > so_far || x != x ? x : so_far; }
};

struct Sum {
  static constexpr float kStart = 0.0f;
  static HWY_INLINE VF join(VF so_far, VF x) { return hn::Add(so_far, x); }
  static HWY_INLINE float join(float so_far, float x) { return so_far + x; }
};

// The positions of a window that lie in x, from `first` on in steps of the dilation.
struct Range {
  int64_t first, count;

  Range(const PoolingRun& run, int d, int64_t at) {
    const int64_t start = at * run.stride[d] - run.pad[d], step = run.dilation[d];
    const int64_t skipped = start < 0 ? (-start - 1) / step + 1 : 0;
    first = start + skipped * step;
    const int64_t inside = first < run.size[d] ? (run.size[d] - 1 - first) / step + 1 : 0;
    const int64_t left = run.kernel[d] - skipped;
    count = left < 0 ? 0 : left < inside ? left : inside;
  }
};

// What a sum of so many positions is divided by; 1 where there are none, so that their mean is 0.
HWY_INLINE float divisor(const PoolingRun& run, int64_t inside) {
  const int64_t count = run.count_padding ? run.kernel[0] * run.kernel[1] * run.kernel[2] : inside;
  return count > 0 ? static_cast<float>(count) : 1.0f;
}

// A line of out: where it is, and the ranges of its windows in the first two dimensions.
struct Line {
  int64_t batch, channel, channels, z, y;

  Line(const PoolingRun& run, int64_t index) {
    y = index % run.out_size[1];
    index /= run.out_size[1];
    z = index % run.out_size[0];
    index /= run.out_size[0];
    channel = index % run.slices * run.slice;
    batch = index / run.slices;
    channels = run.channels - channel < run.slice ? run.channels - channel : run.slice;
  }

  template <typename T>
  const T* x(const PoolingRun& run) const {
    return static_cast<const T*>(run.x) + batch * run.x_strides[0] + channel * run.x_strides[1];
  }
  template <typename T>
  T* out(const PoolingRun& run) const {
    return static_cast<T*>(run.out) + batch * run.out_strides[0] + channel * run.out_strides[1] + z * run.out_strides[2] +
           y * run.out_strides[3];
  }
};

// kVectors vectors of channels, or the last `channels` of them where those are fewer than one.
template <typename Join, int kVectors, typename X, typename Out>
HWY_INLINE void pool_channels(const PoolingRun& run, const X* x, const Range (&ranges)[3], int64_t channels, VF by, Out* out) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF acc[kVectors];
  for (int v = 0; v < kVectors; ++v) acc[v] = hn::Set(d, Join::kStart);
  for (int64_t i = 0; i < ranges[0].count; ++i) {
    const X* plane = x + (ranges[0].first + i * run.dilation[0]) * run.x_strides[2];
    for (int64_t j = 0; j < ranges[1].count; ++j) {
      const X* line = plane + (ranges[1].first + j * run.dilation[1]) * run.x_strides[3];
      for (int64_t k = 0; k < ranges[2].count; ++k) {
        // Only positions in x: a dilation times a stride may be more than 64 bits hold.
        const X* at = line + (ranges[2].first + k * run.dilation[2]) * run.x_strides[4];
        for (int v = 0; v < kVectors; ++v) acc[v] = Join::join(acc[v], load_up_to(d, at + v * lanes, channels));
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    if (run.average) acc[v] = hn::Div(acc[v], by);
    if (channels >= lanes) {
      store(d, acc[v], out + v * lanes);
    } else {
      store_some(d, acc[v], out, static_cast<size_t>(channels));
    }
  }
}

template <typename Join, typename X, typename Out>
void lines_within(const PoolingRun& run, int64_t first, int64_t count) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t index = first; index < first + count; ++index) {
    const Line line(run, index);
    const X* x = line.x<X>(run);
    Out* out = line.out<Out>(run);
    const Range z(run, 0, line.z), y(run, 1, line.y);
    for (int64_t at = 0; at < run.out_size[2]; ++at, out += run.out_strides[4]) {
      const Range ranges[] = {z, y, Range(run, 2, at)};
      const VF by = hn::Set(d, divisor(run, z.count * y.count * ranges[2].count));
      int64_t c = 0;
      for (; c + 4 * lanes <= line.channels; c += 4 * lanes) {
        pool_channels<Join, 4>(run, x + c, ranges, lanes, by, out + c);
      }
      for (; c < line.channels; c += lanes) pool_channels<Join, 1>(run, x + c, ranges, line.channels - c, by, out + c);
    }
  }
}

// The lines of x that windows of this line look at, made one.
template <typename Join, typename X>
void join_lines(const PoolingRun& run, const X* x, const Range& z, const Range& y, float* line) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = run.size[2], step = run.x_strides[4];
  for (int64_t i = 0; i < z.count; ++i) {
    for (int64_t j = 0; j < y.count; ++j) {
      const X* from =
          x + (z.first + i * run.dilation[0]) * run.x_strides[2] + (y.first + j * run.dilation[1]) * run.x_strides[3];
      const bool begins = i == 0 && j == 0;
      int64_t k = 0;
      for (; step == 1 && k + lanes <= width; k += lanes) {
        const VF value = load(d, from + k);
        store(d, begins ? value : Join::join(load(d, line + k), value), line + k);
      }
      for (; k < width; ++k) line[k] = begins ? to_float(from[k * step]) : Join::join(line[k], to_float(from[k * step]));
    }
  }
}

// One window of a line.
template <typename Join>
HWY_INLINE float join_window(const PoolingRun& run, const float* line, const Range& range) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), step = run.dilation[2];
  float result = Join::kStart;
  int64_t k = 0;
  if (step == 1 && range.count >= 4 * lanes) {  // as of a whole line
    VF acc[4];
    for (int v = 0; v < 4; ++v) acc[v] = hn::Set(d, Join::kStart);
    for (; k + 4 * lanes <= range.count; k += 4 * lanes) {
      for (int v = 0; v < 4; ++v) acc[v] = Join::join(acc[v], load(d, line + range.first + k + v * lanes));
    }
    acc[0] = Join::join(Join::join(acc[0], acc[1]), Join::join(acc[2], acc[3]));
    HWY_ALIGN float each[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(acc[0], d, each);
    for (int64_t i = 0; i < lanes; ++i) result = Join::join(result, each[i]);
  }
  for (; k < range.count; ++k) result = Join::join(result, line[range.first + k * step]);
  return result;
}

// Every first or every second element.
HWY_INLINE VF load_each(F32 d, const float* from, int64_t stride) {
  if (stride == 1) return load(d, from);
  VF even, odd;
  hn::LoadInterleaved2(d, from, even, odd);
  return even;
}

template <typename Join, typename X, typename Out>
void lines_across(const PoolingRun& run, int64_t first, int64_t count, float* scratch) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t reach = (run.kernel[2] - 1) * run.dilation[2];
  const bool vectors = run.stride[2] <= 2 && run.out_strides[4] == 1;
  for (int64_t index = first; index < first + count; ++index) {
    const Line line(run, index);
    const Range z(run, 0, line.z), y(run, 1, line.y);
    const int64_t above = z.count * y.count;
    if (above > 0) join_lines<Join>(run, line.x<X>(run), z, y, scratch);
    Out* out = line.out<Out>(run);
    const float by = divisor(run, above * run.kernel[2]);
    for (int64_t at = 0; at < run.out_size[2];) {
      const int64_t start = at * run.stride[2] - run.pad[2];
      const bool whole = above > 0 && start >= 0 && start + reach < run.size[2];
      if (whole && vectors && at + lanes <= run.out_size[2] && start + reach + run.stride[2] * lanes <= run.size[2]) {
        VF acc = hn::Set(d, Join::kStart);
        for (int64_t k = 0; k <= reach; k += run.dilation[2]) {
          acc = Join::join(acc, load_each(d, scratch + start + k, run.stride[2]));
        }
        if (run.average) acc = hn::Div(acc, hn::Set(d, by));
        store(d, acc, out + at);
        at += lanes;
        continue;
      }
      float result;
      if (whole && run.kernel[2] < 4 * lanes) {
        result = Join::kStart;
        for (int64_t k = 0; k <= reach; k += run.dilation[2]) result = Join::join(result, scratch[start + k]);
        if (run.average) result /= by;
      } else {
        Range range(run, 2, at);
        if (above == 0) range.count = 0;
        result = join_window<Join>(run, scratch, range);
        if (run.average) result /= divisor(run, above * range.count);
      }
      from_float(result, &out[at * run.out_strides[4]]);
      ++at;
    }
  }
}

template <typename Join, typename X, typename Out>
void lines_apart(const PoolingRun& run, int64_t first, int64_t count) {
  for (int64_t index = first; index < first + count; ++index) {
    const Line line(run, index);
    const X* x = line.x<X>(run);
    Out* out = line.out<Out>(run);
    const Range z(run, 0, line.z), y(run, 1, line.y);
    for (int64_t at = 0; at < run.out_size[2]; ++at) {
      const Range range(run, 2, at);
      float result = Join::kStart;
      for (int64_t i = 0; i < z.count; ++i) {
        const X* plane = x + (z.first + i * run.dilation[0]) * run.x_strides[2];
        for (int64_t j = 0; j < y.count; ++j) {
          const X* from = plane + (y.first + j * run.dilation[1]) * run.x_strides[3];
          for (int64_t k = 0; k < range.count; ++k) {
            result = Join::join(result, to_float(from[(range.first + k * run.dilation[2]) * run.x_strides[4]]));
          }
        }
      }
      if (run.average) result /= divisor(run, z.count * y.count * range.count);
      from_float(result, &out[at * run.out_strides[4]]);
    }
  }
}

template <typename X, typename Out>
void across(const PoolingRun& run, int64_t first, int64_t count, float* scratch) {
  if (run.average) return lines_across<Sum, X, Out>(run, first, count, scratch);
  lines_across<Maximum, X, Out>(run, first, count, scratch);
}

template <typename X, typename Out>
void apart(const PoolingRun& run, int64_t first, int64_t count, float*) {
  if (run.average) return lines_apart<Sum, X, Out>(run, first, count);
  lines_apart<Maximum, X, Out>(run, first, count);
}

template <typename X, typename Out>
void within(const PoolingRun& run, int64_t first, int64_t count, float*) {
  if (run.average) return lines_within<Sum, X, Out>(run, first, count);
  lines_within<Maximum, X, Out>(run, first, count);
}

}  // namespace

extern const PoolingKernels pooling_kernels;
const PoolingKernels pooling_kernels = {
    {{across<float, float>, across<float, bf16>, across<float, f16>},
     {across<bf16, float>, across<bf16, bf16>, across<bf16, f16>},
     {across<f16, float>, across<f16, bf16>, across<f16, f16>}},
    {{apart<float, float>, apart<float, bf16>, apart<float, f16>},
     {apart<bf16, float>, apart<bf16, bf16>, apart<bf16, f16>},
     {apart<f16, float>, apart<f16, bf16>, apart<f16, f16>}},
    {{within<float, float>, within<float, bf16>, within<float, f16>},
     {within<bf16, float>, within<bf16, bf16>, within<bf16, f16>},
     {within<f16, float>, within<f16, bf16>, within<f16, f16>}}};

}  // namespace gatun::cpu::GATUN_LEVEL
