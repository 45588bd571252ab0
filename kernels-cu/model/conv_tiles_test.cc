// Every tile of the tables of convolutions, whichever the plan would choose: whole and partial tiles, windows that lie partly or
// wholly beside x, groups, k that ends within a block and in splits, out with channels last and first. Operands are small integers, so
// that all sums are exact in both formats and in any order.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "conv/kernels.h"
#include "conv/plan.h"
#include "cpu/halves.h"
#include "gemm/plan.h"
#include "model/device_array.h"

namespace gatun::gpu {
namespace {

using namespace conv;

// Two dimensions, of x [batch, height, width, groups, chunks].
struct Windows {
  int64_t batch, height, width, groups, chunks, columns;  // chunks, columns: of a group
  int64_t kernel[2], stride[2], dilation[2], before[2], after[2];
  int splits;
  bool planes;
};

void check(const Variant& variant, const Windows& w) {
  SCOPED_TRACE(testing::Message() << "format " << variant.format << ", tile " << variant.rows << "x" << variant.columns << ", "
                                  << w.height << "x" << w.width << ", columns " << w.columns << ", splits " << w.splits);
  std::minstd_rand random(11);
  const auto small = [&random] { return static_cast<float>(static_cast<int>(random() % 5) - 2); };
  const int64_t channels = w.chunks * chunk_elements(variant.format), all_channels = w.groups * channels, all_columns = w.groups * w.columns;
  const int64_t size[2] = {w.height, w.width};
  int64_t out_size[2];
  for (int d = 0; d < 2; ++d) {
    out_size[d] = (size[d] + w.before[d] + w.after[d] - w.dilation[d] * (w.kernel[d] - 1) - 1) / w.stride[d] + 1;
  }
  const int64_t rows = w.batch * out_size[0] * out_size[1], positions = w.kernel[0] * w.kernel[1];

  // x, with what lies beside it in memory a value that must not matter.
  std::vector<float> x(static_cast<size_t>(w.batch * w.height * w.width * all_channels));
  for (float& value : x) value = small();
  const size_t element = static_cast<size_t>(element_bytes(variant.format));
  std::vector<unsigned char> bytes(x.size() * element + 16, 0x7f);
  for (size_t i = 0; i < x.size(); ++i) {
    const uint16_t half = cpu::to_bf16(x[i]);
    std::memcpy(&bytes[i * element], element == 2 ? static_cast<const void*>(&half) : &x[i], element);
  }
  std::vector<float> weights(static_cast<size_t>(all_columns * channels * positions));  // [columns, channels, kernel]
  for (float& value : weights) value = small();

  Device device;
  device.index = 0;
  gtn_conv_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = variant.format;
  desc.groups = w.groups;
  desc.source.dtype = GTN_F32;
  desc.source.rank = 4;
  const int64_t shape[] = {all_columns, channels, w.kernel[0], w.kernel[1]};
  int64_t stride = 1;
  for (int d = 3; d >= 0; --d) {
    desc.source.shape[d] = shape[d];
    desc.source.strides[d] = stride;
    stride *= shape[d];
  }
  void* packed = nullptr;
  gtn_weights_info info = {};
  gtn_message message = {sizeof message, ""};
  ASSERT_EQ(conv_weights_pack(device, desc, weights.data(), nullptr, nullptr, nullptr, nullptr, &packed, &info, &message), GTN_OK)
      << message.text;
  const gemm::PackedWeights& of = *static_cast<gemm::PackedWeights*>(packed);

  const DeviceArray<unsigned char> input(bytes);
  std::vector<float> offsets(static_cast<size_t>(all_columns));
  for (float& value : offsets) value = small();
  const DeviceArray<float> bias(offsets), out(std::vector<float>(static_cast<size_t>(rows * all_columns), 0.5f));
  const int64_t partial_stride = of.panels * gemm::kPanelColumns;
  const DeviceArray<float> partial(std::vector<float>(static_cast<size_t>(w.splits * rows * partial_stride), 77.0f));
  const int64_t image_out = out_size[0] * out_size[1] * all_columns;
  const int64_t out_strides[3] = {image_out, w.planes ? out_size[1] : out_size[1] * all_columns, w.planes ? 1 : all_columns};

  ConvArgs args = {};
  args.finish.columns = w.columns;
  args.finish.shift = of.shift;
  args.finish.bias = bias.data();
  args.finish.out = out.data();
  args.finish.channel_stride = w.planes ? out_size[0] * out_size[1] : 1;
  args.finish.out_dtype = GTN_F32;
  args.finish.vector = !w.planes && w.columns % 4 == 0;
  args.places.to[0] = out_strides[0];
  args.places.stride[0] = 1;
  for (int d = 0; d < 3; ++d) args.size[d] = 1;
  for (int d = 0; d < 2; ++d) {
    args.places.size[1 + d] = Divisor(out_size[d]);
    args.places.stride[1 + d] = static_cast<int32_t>(w.stride[d]);
    args.places.pad[1 + d] = static_cast<int32_t>(w.before[d]);
    args.places.to[2 + d] = out_strides[1 + d];
    args.size[1 + d] = static_cast<int32_t>(size[d]);
    args.dilation[1 + d] = static_cast<int32_t>(w.dilation[d]);
    args.kernel[d] = Divisor(w.kernel[d]);
  }
  args.groups = static_cast<int32_t>(w.groups);
  args.planes = w.planes;
  args.x_strides[3] = static_cast<int32_t>(w.groups * w.chunks);
  args.x_strides[2] = static_cast<int32_t>(w.width) * args.x_strides[3];
  args.x_strides[0] = static_cast<int32_t>(w.height) * args.x_strides[2];
  args.chunks = Divisor(w.chunks);
  args.positions = static_cast<int32_t>(positions);
  args.tiles.a = reinterpret_cast<const char*>(input.data());
  args.tiles.weights = of.data;
  args.tiles.panel_bytes = of.blocks * gemm::kPanelBlockBytes;
  args.tiles.panels = static_cast<int32_t>(of.panels);
  args.tiles.blocks = static_cast<int32_t>(of.blocks);
  args.tiles.rows = static_cast<int32_t>(rows);
  args.tiles.tiles_m = static_cast<int32_t>(up(rows, variant.rows));
  args.tiles.tiles_n = static_cast<int32_t>(up(w.columns, variant.columns));
  args.tiles.split_blocks = static_cast<int32_t>(up(of.blocks, w.splits));
  args.tiles.partial = w.splits > 1 ? partial.data() : nullptr;
  Queue* queue = nullptr;
  ASSERT_EQ(queue_create(0, &queue, &message), GTN_OK);
  // Blocks of threads have several tiles, where there are more than one.
  const int64_t tiles = static_cast<int64_t>(args.tiles.tiles_m) * args.tiles.tiles_n * w.groups;
  ASSERT_EQ(launch(queue, variant.kernel, {up(tiles, 3), w.splits}, variant.threads, variant.shared_bytes, &args, &message), GTN_OK)
      << message.text;
  if (w.splits > 1) {
    const ConvReduceArgs reduce = {args, w.splits};
    ASSERT_EQ(launch(queue, reduce_kernel(), {up(w.columns, kReduceThreads), 7}, kReduceThreads, 0, &reduce, &message), GTN_OK)
        << message.text;
  }
  queue_destroy(queue);

  int wrong = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at[2] = {r / out_size[1] % out_size[0], r % out_size[1]}, image = r / out_size[1] / out_size[0];
    for (int64_t o = 0; o < all_columns; ++o) {
      float expected = offsets[static_cast<size_t>(o)];
      for (int64_t t = 0; t < positions; ++t) {
        const int64_t y = at[0] * w.stride[0] + t / w.kernel[1] * w.dilation[0] - w.before[0];
        const int64_t z = at[1] * w.stride[1] + t % w.kernel[1] * w.dilation[1] - w.before[1];
        if (y < 0 || y >= w.height || z < 0 || z >= w.width) continue;
        const int64_t from = ((image * w.height + y) * w.width + z) * all_channels + o / w.columns * channels;
        for (int64_t c = 0; c < channels; ++c) {
          expected += x[static_cast<size_t>(from + c)] * weights[static_cast<size_t>((o * channels + c) * positions + t)];
        }
      }
      const int64_t to = image * out_strides[0] + at[0] * out_strides[1] + at[1] * out_strides[2] + o * args.finish.channel_stride;
      const float actual = out[static_cast<size_t>(to)];
      if (actual != expected && wrong++ < 3) {
        ADD_FAILURE() << "row " << r << ", channel " << o << " is " << actual << ", expected " << expected;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
  gemm_weights_destroy(packed);
}

class ConvTiles : public testing::TestWithParam<VariantTable (*)()> {};

TEST_P(ConvTiles, ComputeWhatTheyShould) {
  const VariantTable table = GetParam()();
  ASSERT_GT(table.count, 0);
  for (int i = 0; i < table.count; ++i) {
    const Variant& v = table.variants[i];
    check(v, {2, 9, 11, 1, 3, v.columns + 17, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1, false});
    check(v, {1, 7, 9, 2, 1, 12, {2, 3}, {2, 1}, {1, 2}, {0, 3}, {1, 0}, 1, true});
    check(v, {3, 3, 5, 1, 2, 5, {4, 1}, {1, 3}, {1, 1}, {5, 0}, {4, 0}, 1, false});
    check(v, {1, 4, 4, 1, 4, v.columns, {3, 3}, {1, 1}, {1, 1}, {1, 0}, {1, 2}, 2, true});
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ConvTiles, testing::Values(f32_variants, bf16_variants));

// x with channels first and last becomes runs of channels of each group, filled up with zeros, by blocks that have several tiles.
TEST(ConvPrepare, FillsChunks) {
  constexpr int64_t kBatch = 2, kHeight = 5, kWidth = 9, kGroups = 3, kChannels = 35, kFilled = 40, kVolume = kHeight * kWidth;
  std::vector<float> x(kBatch * kVolume * kGroups * kChannels);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 251);
  const DeviceArray<float> input(x);
  for (const bool first : {true, false}) {
    const DeviceArray<uint16_t> to(std::vector<uint16_t>(kBatch * kVolume * kGroups * kFilled, 0x7fff));
    const int64_t channels = kGroups * kChannels;
    PrepareArgs args = {};
    args.x = input.data();
    const int64_t strides[5] = {channels * kVolume, first ? kVolume : 1, 0, first ? kWidth : kWidth * channels, first ? 1 : channels};
    std::memcpy(args.strides, strides, sizeof strides);
    args.size[1] = Divisor(kHeight);
    args.size[2] = Divisor(kWidth);
    args.positions = kBatch * kVolume;
    args.groups = kGroups;
    args.channels = kChannels;
    args.filled = kFilled;
    args.to = to.data();
    Queue* queue = nullptr;
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(queue_create(0, &queue, &message), GTN_OK);
    ASSERT_EQ(launch(queue, prepare_kernel(GTN_F32, GTN_BF16), {2}, kPrepareThreads, kPrepareShared, &args, &message), GTN_OK) << message.text;
    queue_destroy(queue);
    int wrong = 0;
    for (int64_t p = 0; p < kBatch * kVolume; ++p) {
      for (int64_t c = 0; c < kGroups * kFilled; ++c) {
        const int64_t channel = c / kFilled * kChannels + c % kFilled, image = p / kVolume, place = p % kVolume;
        const float expected =
            c % kFilled >= kChannels ? 0.0f : x[static_cast<size_t>(image * strides[0] + channel * strides[1] + place * strides[4])];
        wrong += cpu::from_bf16(to[static_cast<size_t>(p * kGroups * kFilled + c)]) != expected;
      }
    }
    EXPECT_EQ(wrong, 0) << (first ? "channels first" : "channels last");
  }
}

// The multiplications that stand for divisions.
TEST(ConvDivisor, DividesAsDivisionDoes) {
  std::minstd_rand random(3);
  for (const int64_t d : {1, 2, 3, 5, 7, 9, 64, 1000, 65537, 0x3fffffff, 0x40000000, 0x40000001, 0x7fffffff}) {
    const Divisor divisor(d);
    for (int i = 0; i < 2000; ++i) {
      const int64_t around = d * static_cast<int64_t>(random() % 100) + static_cast<int64_t>(random() % 3) - 1;
      for (const int64_t n : {static_cast<int64_t>(random() & 0x7fffffff), around & 0x7fffffff, int64_t{0x7fffffff} - i}) {
        ASSERT_EQ(static_cast<int64_t>(static_cast<uint64_t>(n) * divisor.factor >> divisor.shift), n / d) << n << " / " << d;
      }
    }
  }
}

}  // namespace
}  // namespace gatun::gpu
