// Every tile of the GEMM's tables, whichever the plan would choose: whole and partial tiles, k that ends anywhere within a block,
// rows that are gathered, and k in splits. Operands are small integers, and scales of groups 1 or 2, so that all sums are exact in
// every format and order.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cpu/halves.h"
#include "gemm/kernels.h"
#include "gemm/plan.h"
#include "model/device_array.h"

namespace gatun::gpu {
namespace {

using namespace gemm;

struct Product {
  int64_t m, k, n;
  bool gathered;
  int splits;
};

// Weights in groups, w[k, n] made to be those that they stand for.
gtn_status pack_groups(Device& device, int32_t format, int64_t k, int64_t n, int64_t group_size, std::vector<float>* w, void** packed,
                       gtn_weights_info* info, gtn_message* message) {
  std::minstd_rand random(5);
  const bool halves = format == GTN_U4;
  const int64_t in_byte = halves ? 2 : 1;
  const int64_t groups = up(k, group_size), zeros_of_column = up(groups, in_byte);
  std::vector<unsigned char> integers(static_cast<size_t>(n * groups * group_size / in_byte));
  std::vector<unsigned char> zeros(static_cast<size_t>(n * zeros_of_column));
  std::vector<float> scales(static_cast<size_t>(n * groups));
  for (unsigned char& pair : integers) pair = static_cast<unsigned char>(random());
  for (unsigned char& pair : zeros) pair = static_cast<unsigned char>(random());
  for (float& scale : scales) scale = static_cast<float>(1 + random() % 2);
  const auto integer = [halves](const std::vector<unsigned char>& of, int64_t i) {
    return halves ? of[static_cast<size_t>(i / 2)] >> (i % 2 * 4) & 15 : of[static_cast<size_t>(i)];
  };
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t c = 0; c < n; ++c) {
      const int64_t group = c * groups + p / group_size;
      const int step = integer(integers, group * group_size + p % group_size) - integer(zeros, c * zeros_of_column * in_byte + p / group_size);
      (*w)[static_cast<size_t>(p * n + c)] = static_cast<float>(step) * scales[static_cast<size_t>(group)];
    }
  }
  gtn_quantized_desc desc = {};
  desc.size = sizeof desc;
  desc.format = format;
  desc.k = k;
  desc.n = n;
  desc.group_size = group_size;
  return gemm_weights_pack_quantized(device, desc, integers.data(), scales.data(), zeros.data(), packed, info, message);
}

void check(const Variant& variant, const Product& product) {
  SCOPED_TRACE(testing::Message() << "format " << variant.format << ", rows of " << variant.row_dtype << ", tile " << variant.rows
                                  << "x" << variant.columns << ", m " << product.m << ", k " << product.k << ", n " << product.n
                                  << ", splits " << product.splits);
  std::minstd_rand random(7);
  const auto [m, k, n, gathered, splits] = product;
  const bool int8 = variant.format == GTN_S8;
  const int64_t element = element_bytes(variant.row_dtype);
  const int64_t rows_a = gathered ? m + 3 : m, stride = (k * element + 31) / 16 * 16;

  // Columns of INT8 have a weight of 127, those of FP8 their format's largest number, and so a scale of 1.
  std::vector<float> w(static_cast<size_t>(k * n));
  for (float& x : w) x = static_cast<float>(static_cast<int>(random() % 7) - 3);
  const bool f8 = is_f8(variant.format);
  const float most = int8 ? 127.0f : variant.format == GTN_F8E4M3 ? 448.0f : 57344.0f;
  for (int64_t c = 0; (int8 || f8) && c < n; ++c) w[static_cast<size_t>(c)] = most;
  std::vector<int> a(static_cast<size_t>(rows_a * k));
  std::vector<unsigned char> bytes(static_cast<size_t>(rows_a * stride), 0x7f);  // what lies between rows must not matter
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<int>(random() % 5) - (int8 ? 0 : 2);
    const size_t at = i / static_cast<size_t>(k) * static_cast<size_t>(stride) + i % static_cast<size_t>(k) * static_cast<size_t>(element);
    const float x = static_cast<float>(a[i]);
    const uint16_t half = variant.row_dtype == GTN_BF16 ? cpu::to_bf16(x) : cpu::to_f16(x);
    if (int8) bytes[at] = static_cast<unsigned char>(a[i]);
    if (element == 2) std::memcpy(&bytes[at], &half, 2);
    if (element == 4) std::memcpy(&bytes[at], &x, 4);
  }
  std::vector<int32_t> index(static_cast<size_t>(m)), zeros(static_cast<size_t>(m));
  for (int32_t& i : index) i = static_cast<int32_t>(random() % static_cast<unsigned>(rows_a));
  for (int32_t& z : zeros) z = static_cast<int32_t>(random() % 5);

  Device device;
  device.index = 0;
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = variant.format;
  desc.source.dtype = GTN_F32;
  desc.source.rank = 2;
  desc.source.shape[0] = k, desc.source.shape[1] = n;
  desc.source.strides[0] = n, desc.source.strides[1] = 1;
  void* packed = nullptr;
  gtn_weights_info info = {};
  gtn_message message = {sizeof message, ""};
  const int64_t group_size = f8 ? INT32_MAX : 32 << (k % 3);
  ASSERT_EQ(in_groups(variant.format) && !f8 ? pack_groups(device, variant.format, k, n, group_size, &w, &packed, &info, &message)
                                     : gemm_weights_pack(device, desc, w.data(), &packed, &info, &message),
            GTN_OK)
      << message.text;
  const PackedWeights& weights = *static_cast<PackedWeights*>(packed);

  const DeviceArray<unsigned char> rows(bytes);
  const DeviceArray<int32_t> numbers(index), row_zeros(zeros);
  const DeviceArray<float> row_scales(std::vector<float>(static_cast<size_t>(m), 1.0f));
  const DeviceArray<float> out(std::vector<float>(static_cast<size_t>(m * n), 0.5f));
  const int64_t partial_stride = weights.panels * kPanelColumns;
  const DeviceArray<int32_t> partial(std::vector<int32_t>(static_cast<size_t>(splits * m * partial_stride), 77));
  TilesArgs args = {};
  args.finish.n = n;
  args.finish.column_scales = weights.scales;
  args.finish.column_sums = weights.sums;
  args.finish.row_scales = row_scales.data();
  args.finish.row_zeros = row_zeros.data();
  args.finish.out = out.data();
  args.finish.out_stride = n;
  args.finish.out_dtype = GTN_F32;
  args.finish.vector = n % 4 == 0;
  args.a = reinterpret_cast<const char*>(rows.data());
  args.a_stride = stride;
  args.k_bytes = k * element;
  args.index = gathered ? numbers.data() : nullptr;
  args.rows_a = rows_a;
  args.rows = static_cast<int32_t>(m);
  args.weights = weights.data;
  args.panels = static_cast<int32_t>(weights.panels);
  args.blocks = static_cast<int32_t>(weights.blocks);
  args.panel_bytes = weights.blocks * kPanelBlockBytes;
  if (in_groups(variant.format)) {
    args.blocks = static_cast<int32_t>(weights.blocks * kUnitDepth * element / kBlockBytes);
    args.panel_bytes = weights.blocks * unit_bytes(variant.format);
    args.records = weights.records;
    args.records_bytes = up(weights.blocks * kUnitDepth, group_size) * kRecordBytes;
    args.group_size = static_cast<int32_t>(group_size);
  }
  args.tiles_m = static_cast<int32_t>(up(m, variant.rows));
  args.tiles_n = static_cast<int32_t>(up(n, variant.columns));
  args.split_blocks = static_cast<int32_t>(up(args.blocks, splits));
  args.partial = splits > 1 ? partial.data() : nullptr;
  Queue* queue = nullptr;
  ASSERT_EQ(queue_create(0, &queue, &message), GTN_OK);
  ASSERT_EQ(launch(queue, variant.kernel, {static_cast<int64_t>(args.tiles_m) * args.tiles_n, splits}, variant.threads,
                   variant.shared_bytes, &args, &message),
            GTN_OK)
      << message.text;
  queue_destroy(queue);

  int wrong = 0;
  for (int64_t r = 0; r < m; ++r) {
    const int64_t source = gathered ? index[static_cast<size_t>(r)] : r;
    for (int64_t c = 0; c < n; ++c) {
      int64_t expected = 0, columns = 0;
      for (int64_t p = 0; p < k; ++p) {
        const int64_t weight = static_cast<int64_t>(w[static_cast<size_t>(p * n + c)]);
        expected += a[static_cast<size_t>(source * k + p)] * weight;
        columns += weight;
      }
      double actual = 0;
      for (int s = 0; splits > 1 && s < splits; ++s) {
        const int32_t word = partial[static_cast<size_t>((s * m + r) * partial_stride + c)];
        float x;
        std::memcpy(&x, &word, sizeof x);
        actual += int8 ? static_cast<double>(word) : static_cast<double>(x);
      }
      if (splits == 1) {
        actual = static_cast<double>(out[static_cast<size_t>(r * n + c)]);
        if (int8) expected -= zeros[static_cast<size_t>(r)] * columns;
      } else if (int8) {
        expected -= kByteShift * columns;
      }
      if (actual != static_cast<double>(expected) && wrong++ < 3) {
        ADD_FAILURE() << "row " << r << ", column " << c << " is " << actual << ", expected " << expected;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
  gemm_weights_destroy(packed);
}

class GemmTiles : public testing::TestWithParam<VariantTable (*)()> {};

TEST_P(GemmTiles, ComputeWhatTheyShould) {
  const VariantTable table = GetParam()();
  ASSERT_GT(table.count, 0);
  for (int i = 0; i < table.count; ++i) {
    const Variant& v = table.variants[i];
    const int64_t depth = kBlockBytes / element_bytes(v.row_dtype);
    const int64_t round = depth * v.warps_k;
    check(v, {v.rows + 3, round * (v.stages + 1) + depth + 5, v.columns + 17, false, 1});
    check(v, {v.rows, round * v.stages, v.columns, false, 1});
    check(v, {1, depth * 3, 2 * v.columns + 4, true, 1});
    check(v, {2 * v.rows - 1, 1, 7, true, 1});
    check(v, {5, round * 3 + 1, v.columns + 1, false, 2});
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GemmTiles, testing::Values(f32_variants, bf16_variants, f16_variants, int8_variants, u4_f32_variants,
                                                             u4_bf16_variants, u4_f16_variants, u8_f32_variants,
                                                             u8_bf16_variants, u8_f16_variants, +[] { return f8_bf16_variants(GTN_F8E4M3); },
                                                             +[] { return f8_bf16_variants(GTN_F8E5M2); },
                                                             +[] { return f8_f16_variants(GTN_F8E4M3); },
                                                             +[] { return f8_f16_variants(GTN_F8E5M2); }));

}  // namespace
}  // namespace gatun::gpu
