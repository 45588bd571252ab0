// Convolution as an implicit product of matrices. Compiled once per level, with depthwise convolution
// (depthwise.h, depthwise_planes.h).
//
//   out[row, o] = sum over kernel positions t and channels c of x[place(row, t), c] * w[t * channels + c, o]
//
// Bytes: x, the weights and out once each; a block gathers its rows, K = positions * channels elements each, from the caches
// into a panel of its own. FLOPs: 2 K a row and column. What binds it: the multiply-add units, as in cpu/gemm, whose register
// tiles and packed weights these are; gathering costs one load and one store of a vector against as many multiply-adds as
// there are columns in a block, some 5% with 64 columns. A block takes K in slices, so that its gathered rows stay in the L2
// cache while all panels of weights pass over them. A kernel of one position with a stride of 1 gathers nothing: its rows
// are those of x.
//
// x with channels first is rewritten with channels last before (prepare), a read and a write of x, since gathering single
// elements would cost more than their products; out with channels first is written from tiles of sums in the L1 cache.
#include "cpu/conv/conv.h"

#include <type_traits>

#include "cpu/caches.h"
#include "cpu/conv/depthwise.h"
#include "cpu/conv/depthwise_planes.h"
#include "cpu/conv/finish.h"
#include "cpu/gemm/tiled.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Gathered rows of a slice of K, as a part of the L2 cache.
int64_t slice_bytes() { return caches().l2 / 3; }

constexpr int64_t kStep = 32;  // slices of K are multiples of it, and of a step of tiles

// How a block takes K.
struct Slices {
  int64_t depth, count, stride;  // stride: elements from gathered row to row

  Slices(int64_t k, int64_t rows, int64_t element) {
    int64_t most = slice_bytes() / ((rows > kRowTile ? rows : kRowTile) * element) / kStep * kStep;
    if (most < 4 * kStep) most = 4 * kStep;
    count = (k + most - 1) / most;
    depth = ((k + count - 1) / count + kStep - 1) / kStep * kStep;
    count = (k + depth - 1) / depth;
    // An odd number of cache lines: rows of a tile then spread over the sets of the L1 cache.
    const int64_t lines = (depth * element + 63) / 64;
    stride = (lines | 1) * 64 / element;
  }
};

void find_places(const ConvRun& run, const ConvBlock& block, Place* places) {
  const ConvShape& s = run.shape;
  const int64_t volume = s.out_size[0] * s.out_size[1] * s.out_size[2];
  int64_t image = block.row / volume, left = block.row % volume;
  int64_t y[3];
  y[2] = left % s.out_size[2];
  left /= s.out_size[2];
  y[1] = left % s.out_size[1];
  y[0] = left / s.out_size[1];
  for (int64_t r = 0; r < block.rows; ++r) {
    Place& place = places[r];
    place.from = image * run.x_strides[0];
    place.to = image * run.out_strides[0];
    for (int d = 0; d < 3; ++d) {
      place.at[d] = y[d] * s.stride[d] - s.pad[d];
      place.to += y[d] * run.out_strides[2 + d];
    }
    for (int d = 2; d >= 0 && ++y[d] == s.out_size[d]; --d) {
      y[d] = 0;
      if (d == 0) ++image;
    }
  }
}

template <typename T>
HWY_INLINE void zero(T* to, int64_t count) {
  std::memset(static_cast<void*>(to), 0, static_cast<size_t>(count) * sizeof(T));
}

// Runs are short: a call would cost as much as the copy.
template <typename Row>
HWY_INLINE void copy(const Row* from, Row* to, int64_t count) {
  using Bits = std::conditional_t<sizeof(Row) == 2, uint16_t, float>;
  const auto* source = reinterpret_cast<const Bits*>(from);
  auto* target = reinterpret_cast<Bits*>(to);
  const hn::ScalableTag<Bits> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, source + i), d, target + i);
  if (i == count) return;
  if (count >= lanes) {
    hn::StoreU(hn::LoadU(d, source + count - lanes), d, target + count - lanes);
  } else {
    for (; i < count; ++i) target[i] = source[i];
  }
}

// Elements first to first + count - 1 of K, of one row.
template <typename Row>
void gather_row(const ConvRun& run, const Row* x, const Place& place, int64_t first, int64_t count, Row* to) {
  const ConvShape& s = run.shape;
  const int64_t channels = s.channels, width = s.kernel[2], line = width * channels;
  const int64_t step = s.dilation[2] * run.x_strides[3];
  // The kernel's positions of a line that lie in x.
  const int64_t at = place.at[2];
  int64_t low = at >= 0 ? 0 : (-at + s.dilation[2] - 1) / s.dilation[2];
  int64_t high = at >= s.size[2] ? 0 : (s.size[2] - 1 - at) / s.dilation[2] + 1;
  high = high < width ? high : width;
  low = low < high ? low : high;
  const int64_t end = first + count;
  for (int64_t l = first / line; l * line < end; ++l) {
    const int64_t start = l * line;
    int64_t i = first > start ? first - start : 0;
    const int64_t stop = end - start < line ? end - start : line;
    Row* row = to + (start - first);
    const int64_t depth = place.at[0] + l / s.kernel[1] * s.dilation[0];
    const int64_t height = place.at[1] + l % s.kernel[1] * s.dilation[1];
    if (!inside(depth, s.size[0]) || !inside(height, s.size[1]) || low == high) {
      zero(row + i, stop - i);
      continue;
    }
    const Row* from = x + place.from + depth * run.x_strides[1] + height * run.x_strides[2];
    if (const int64_t until = low * channels < stop ? low * channels : stop; i < until) {
      zero(row + i, until - i);
      i = until;
    }
    const int64_t until = high * channels < stop ? high * channels : stop;
    if (step == channels) {
      if (i < until) copy(from + at * run.x_strides[3] + i, row + i, until - i);
      i = i < until ? until : i;
    } else {
      while (i < until) {
        const int64_t t = i / channels, c = i - t * channels;
        const int64_t here = channels - c < until - i ? channels - c : until - i;
        copy(from + (at + t * s.dilation[2]) * run.x_strides[3] + c, row + i, here);
        i += here;
      }
    }
    if (i < stop) zero(row + i, stop - i);
  }
}

// A worker's scratch memory: places, a gathered slice, sums.
int64_t places_bytes(int64_t rows) { return (rows * static_cast<int64_t>(sizeof(Place)) + 63) / 64 * 64; }

// Brings in the lines that a panel of channels side by side goes to, while the products before it are under way.
HWY_INLINE void prefetch_out(const ConvRun& run, const Place* places, int64_t rows, int64_t channel) {
  if (run.out_strides[1] != 1) return;
  const int64_t bytes = run.out_dtype == GTN_F32 ? 4 : 2;
  for (int64_t r = 0; r < rows; ++r) {
    const char* out = static_cast<const char*>(run.out) + (places[r].to + channel) * bytes;
    for (int64_t i = 0; i < kPanel * bytes; i += 64) __builtin_prefetch(out + i, 1);
  }
}

template <typename Format>
void compute_block(const ConvRun& run, const ConvBlock& block, void* memory) {
  using Row = typename Format::Row;
  using Weight = typename Format::Weight;
  const ConvShape& s = run.shape;
  const int64_t k = s.positions * s.channels, rows = block.rows;
  const Slices slices(k, rows, sizeof(Row));
  Place* places = static_cast<Place*>(memory);
  Row* gathered = reinterpret_cast<Row*>(static_cast<char*>(memory) + places_bytes(rows));
  float* sums = reinterpret_cast<float*>(gathered + rows * slices.stride);
  find_places(run, block, places);
  const Row* x = static_cast<const Row*>(run.x) + block.group * s.channels;

  const RowTiles<Format> tiles(rows);
  TileUse use;
  ProductOf<Format> product;
  product.weights_stride = 0;
  product.row_stride = run.pitch > 0 ? run.pitch : slices.stride;
  product.sums_stride = rows * kPanel;
  product.next_bytes = kPanel * Format::kGroup * Format::kElementBytes / tiles.count;
  for (int64_t slice = 0; slice < slices.count; ++slice) {
    const int64_t first = slice * slices.depth;
    const int64_t depth = k - first < slices.depth ? k - first : slices.depth;
    if (run.pitch == 0) {
      for (int64_t r = 0; r < rows; ++r) {
        Row* row = gathered + r * slices.stride;
        gather_row(run, x, places[r], first, depth, row);
        for (int64_t i = depth; i % Format::kGroup != 0; ++i) row[i] = Row{};
      }
    }
    const Row* from = run.pitch > 0 ? x + block.row * run.pitch + first : gathered;
    product.steps = (depth + Format::kGroup - 1) / Format::kGroup;
    product.accumulate = slice > 0;
    for (int64_t panel = 0; panel < block.panels; ++panel) {
      const unsigned char* weights =
          run.panels + (block.group * run.group_panels + block.panel + panel) * run.panel_bytes;
      const int64_t offset = first * kPanel * Format::kElementBytes;
      product.weights = reinterpret_cast<const Weight*>(weights + offset);
      const unsigned char* next = panel + 1 < block.panels
                                      ? weights + offset + run.panel_bytes
                                      : weights + offset + slices.depth * kPanel * Format::kElementBytes -
                                            (block.panels - 1) * run.panel_bytes;
      float* of_panel = sums + (slices.count > 1 ? panel * rows * kPanel : 0);
      int64_t row = 0;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t count = tiles.at(tile, row);
        product.next = next + tile * product.next_bytes * product.steps;
        product.rows = from + row * product.row_stride;
        product.sums = of_panel + row * kPanel;
        const bool last = slice + 1 == slices.count;
        if (last) prefetch_out(run, places + row, count, block.group * s.columns + (block.panel + panel) * kPanel);
        multiply<Format>(use, count, 1, product);
        if (last) finish(run, product.sums, places + row, count, block.group, block.panel + panel);
        row += count;
      }
    }
  }
  use.end();
}

void compute(const ConvRun& run, const ConvBlock& block, void* scratch) {
  if (run.format == GTN_F32) {
    compute_block<FormatF32>(run, block, scratch);
  } else {
    compute_block<GemmBf16>(run, block, scratch);
  }
}

// Of blocks of at most as many rows and panels: fewer rows may take deeper slices, but not more elements than a slice may have.
int64_t scratch_bytes(int32_t format, int64_t k, int64_t rows, int64_t panels) {
  const int64_t element = static_cast<int64_t>(format == GTN_F32 ? sizeof(FormatF32::Row) : sizeof(GemmBf16::Row));
  const Slices slices(k, rows, element);
  const int64_t least = rows * 4 * kStep * element, most = slice_bytes() > least ? slice_bytes() : least;
  const int64_t all = slices.count == 1 ? rows * (k + kStep) * element : most;
  const int64_t gathered = (all < most ? all : most) + rows * 128;
  const int64_t sums = (slices.count > 1 ? panels : 1) * rows * kPanel * static_cast<int64_t>(sizeof(float));
  return places_bytes(rows) + (gathered + 63) / 64 * 64 + (sums + 63) / 64 * 64;
}

// ---- Channels last

HWY_INLINE float rounded(float value) {
  bf16 narrow;
  from_float(value, &narrow);
  return to_float(narrow);
}

template <bool kRound>
HWY_INLINE void set(float value, float* to) {
  *to = kRound ? rounded(value) : value;
}
template <bool kRound>
HWY_INLINE void set(float value, bf16* to) {
  from_float(value, to);
}

template <typename X, bool kRound, typename Row>
void prepare_lines(const ConvLines& lines, int64_t first, int64_t count) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t channels = lines.channels, width = lines.size[2];
  for (int64_t l = first; l < first + count; ++l) {
    const int64_t height = l % lines.size[1], depth = l / lines.size[1] % lines.size[0], image = l / lines.size[1] / lines.size[0];
    const X* x = static_cast<const X*>(lines.x) + image * lines.strides[0] + depth * lines.strides[2] + height * lines.strides[3];
    Row* to = static_cast<Row*>(lines.to) + l * width * channels;
    if (lines.strides[1] == 1) {
      for (int64_t w = 0; w < width; ++w, x += lines.strides[4], to += channels) {
        int64_t c = 0;
        if constexpr (!(kRound && sizeof(Row) == 4)) {
          for (; c + lanes <= channels; c += lanes) store(d, load(d, x + c), to + c);
        }
        for (; c < channels; ++c) set<kRound>(to_float(x[c]), to + c);
      }
      continue;
    }
    // A few channels at a time, so that what is written of a position is a part of a cache line or more.
    constexpr int64_t kChannels = 16;
    for (int64_t c = 0; c < channels; c += kChannels) {
      const int64_t here = channels - c < kChannels ? channels - c : kChannels;
      for (int64_t w = 0; w < width; ++w) {
        const X* from = x + w * lines.strides[4] + c * lines.strides[1];
        for (int64_t i = 0; i < here; ++i) set<kRound>(to_float(from[i * lines.strides[1]]), to + w * channels + c + i);
      }
    }
  }
}

void prepare(const ConvLines& lines, int64_t first, int64_t count) {
  const bool f32 = lines.x_dtype == GTN_F32;
  if (lines.format == GTN_F32) {
    (f32 ? prepare_lines<float, false, float> : prepare_lines<bf16, false, float>)(lines, first, count);
  } else {
    using Row = FormatBf16::Row;
    (f32 ? prepare_lines<float, true, Row> : prepare_lines<bf16, false, Row>)(lines, first, count);
  }
}

}  // namespace

extern const ConvKernels conv_kernels;
const ConvKernels conv_kernels = {prepare, scratch_bytes, compute, depthwise_scratch_bytes, depthwise, planes_scratch_bytes,
                                  depthwise_planes};

}  // namespace gatun::cpu::GATUN_LEVEL
