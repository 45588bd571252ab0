// GEMM with pruned weights on every level: bit for bit against an FP32 product with the same weights, zeros included, and against a
// plain FP64 product.
#include <algorithm>

#include "device_test.h"

namespace gatun::test {
namespace {

constexpr int32_t kSparse = GTN_BF16_2OF4;

struct Case {
  int64_t m = 1, k = 1, n = 1;
  int32_t a_dtype = GTN_F32, w_dtype = GTN_F32, out_dtype = GTN_F32;
  int32_t activation = GTN_ACT_NONE;
  bool bias = false, residual = false, transposed = false;
  int64_t groups = 0, rank = 0;
  uint64_t seed = 1;

  int64_t matrices() const { return groups > 0 ? groups : 1; }

  std::string text() const {
    char line[256];
    std::snprintf(line, sizeof line,
                  "m=%lld k=%lld n=%lld a=%d w=%d out=%d activation=%d bias=%d residual=%d transposed=%d groups=%lld rank=%lld "
                  "seed=%llu",
                  static_cast<long long>(m), static_cast<long long>(k), static_cast<long long>(n), a_dtype, w_dtype, out_dtype,
                  activation, bias, residual, transposed, static_cast<long long>(groups), static_cast<long long>(rank),
                  static_cast<unsigned long long>(seed));
    return line;
  }
};

struct Operands {
  Buffer a, w, rounded, bias, residual, lora_a, lora_b;  // rounded: FP32 [matrices, k, n] of the weights in BF16
  std::vector<int64_t> offsets;

  explicit Operands(const Case& c)
      : a(c.a_dtype, c.m * c.k), w(c.w_dtype, c.matrices() * c.k * c.n), rounded(GTN_F32, c.matrices() * c.k * c.n),
        bias(GTN_F32, c.matrices() * c.n), residual(c.out_dtype, c.m * c.n), lora_a(GTN_F32, c.k * c.rank),
        lora_b(GTN_F32, c.rank * c.n) {
    std::mt19937_64 random(c.seed);
    a.fill_normal(random);
    w.fill_normal(random);
    bias.fill_normal(random);
    residual.fill_normal(random);
    lora_a.fill_normal(random);
    lora_b.fill_normal(random);
    for (int64_t e = 0; e <= c.groups; ++e) offsets.push_back(c.m * e / c.matrices());
    Buffer half(GTN_BF16, 1);
    for (int64_t e = 0; e < c.matrices(); ++e) {
      for (int64_t j = 0; j < c.n; ++j) {
        for (int64_t p = 0; p < c.k; p += 4) {
          // Two, one or none of them, at any places.
          const uint64_t kept = random() % 8, first = random() % 4, second = (first + 1 + random() % 3) % 4;
          for (uint64_t i = 0; i < 4 && p + static_cast<int64_t>(i) < c.k; ++i) {
            const bool keep = (kept > 0 && i == first) || (kept > 1 && i == second);
            const int64_t row = p + static_cast<int64_t>(i);
            const int64_t at = e * c.k * c.n + (c.transposed ? j * c.k + row : row * c.n + j);
            if (!keep) w.set(at, 0.0f);
            half.set(0, w.get(at));
            rounded.set((e * c.k + row) * c.n + j, half.get(0));
          }
        }
      }
    }
  }
};

// The case on its pruned weights or, as a product of FP32, on all of them.
Buffer run(const OpenDevice& on, const Case& c, const Operands& x, bool sparse, int64_t rows = -1) {
  if (rows < 0) rows = c.m;
  Message message;
  gtn_weights weights = 0;
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = sparse ? kSparse : static_cast<int32_t>(GTN_F32);
  const int32_t dtype = sparse ? c.w_dtype : static_cast<int32_t>(GTN_F32);
  desc.source = c.groups > 0 ? tensor(dtype, {c.groups, c.k, c.n}) : tensor(dtype, {c.k, c.n});
  if (sparse && c.transposed) {
    desc.source.strides[desc.source.rank - 2] = 1;
    desc.source.strides[desc.source.rank - 1] = c.k;
  }
  EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, sparse ? x.w.data() : x.rounded.data(), &weights, &message))
      << message.text << c.text();
  gtn_gemm_desc gemm = {};
  gemm.size = sizeof gemm;
  gemm.format = desc.format;
  gemm.a = tensor(c.a_dtype, {c.m, c.k});
  gemm.out = tensor(c.out_dtype, {c.m, c.n});
  gemm.activation = c.activation;
  gemm.has_bias = c.bias;
  gemm.has_residual = c.residual;
  gemm.groups = c.groups;
  gemm.rank = c.rank;
  gemm.lora_dtype = c.rank > 0 ? GTN_F32 : 0;
  gemm.lora_scale = c.rank > 0 ? 0.5f : 0.0f;
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_gemm_plan(on.device, &gemm, &plan, &message)) << message.text << c.text();
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  if (sparse) {
    EXPECT_NE(std::string(info.kernel).find(".gemm.bf16_2of4"), std::string::npos) << info.kernel;
  }
  Buffer out(c.out_dtype, c.m * c.n);
  out.fill(-7776.0f);
  EXPECT_EQ(GTN_OK, gtn_gemm_run_with(plan, on.stream, weights, rows, rows, x.a.data(), c.bias ? x.bias.data() : nullptr,
                                      c.residual ? x.residual.data() : nullptr, out.data(),
                                      c.groups > 0 ? x.offsets.data() : nullptr, nullptr, c.rank > 0 ? x.lora_a.data() : nullptr,
                                      c.rank > 0 ? x.lora_b.data() : nullptr))
      << on.message() << c.text();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  return out;
}

// Per element at most k u sum|a w|, of k multiply-adds in index order, each rounded once; the bias and the conversion round once
// each (see gemm_test.cc).
void check(const OpenDevice& on, const std::string& device, const Case& c) {
  const Operands x(c);
  const Buffer out = run(on, c, x, true), dense = run(on, c, x, false);
  int reported = 0;
  for (int64_t i = 0; i < c.m * c.n; ++i) {
    if (out.get(i) != dense.get(i) && reported++ < 3) {
      ADD_FAILURE() << device << " [" << i / c.n << ", " << i % c.n << "] is " << out.get(i) << ", in FP32 " << dense.get(i) << ": "
                    << c.text();
    }
  }
  if (c.activation != GTN_ACT_NONE || c.rank > 0) return;
  const double u = kUnitRoundoffF32;
  for (int64_t r = 0, e = 0; r < c.m; ++r) {
    while (c.groups > 0 && r >= x.offsets[static_cast<size_t>(e + 1)]) ++e;
    for (int64_t j = 0; j < c.n; ++j) {
      double value = 0, terms = 0;
      for (int64_t p = 0; p < c.k; ++p) {
        const double product = static_cast<double>(x.a.get(r * c.k + p)) * static_cast<double>(x.rounded.get((e * c.k + p) * c.n + j));
        value += product;
        terms += std::fabs(product);
      }
      double error = static_cast<double>(c.k) * u * terms * 1.001;
      if (c.bias) {
        value += static_cast<double>(x.bias.get(e * c.n + j));
        error += u * (std::fabs(value) + error);
      }
      if (c.residual) {
        value += static_cast<double>(x.residual.get(r * c.n + j));
        error += u * (std::fabs(value) + error);
      }
      error += (c.out_dtype == GTN_F32 ? u : c.out_dtype == GTN_F16 ? 0x1p-11 : 0x1p-8) * (std::fabs(value) + error);
      const double got = static_cast<double>(out.get(r * c.n + j));
      if (!(std::fabs(got - value) <= error) && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected " << value << " within " << error << ": "
                      << c.text();
      }
    }
  }
}

Case with_options(int64_t m, int64_t k, int64_t n, uint64_t index) {
  Case c;
  c.m = m;
  c.k = k;
  c.n = n;
  c.a_dtype = index % 6 == 1 ? GTN_BF16 : index % 6 == 4 ? GTN_F16 : GTN_F32;
  c.w_dtype = index % 7 == 3 ? GTN_BF16 : index % 7 == 5 ? GTN_F16 : GTN_F32;
  c.out_dtype = index % 8 == 2 ? GTN_BF16 : index % 8 == 6 ? GTN_F16 : GTN_F32;
  c.activation = index % 6 == 5 ? static_cast<int32_t>(1 + index / 6 % 4) : GTN_ACT_NONE;
  c.bias = index % 2 == 0;
  c.residual = index % 3 == 2;
  c.transposed = index % 5 >= 3;
  c.groups = index % 11 == 7 ? 3 : 0;
  c.rank = index % 11 == 4 ? 5 : 0;
  c.seed = 6000 + index;
  return c;
}

class GemmSparseTest : public testing::TestWithParam<std::string> {};

// Up to a register tile of rows (2, 4 and 8), up to one of FP32 (3, 6 and 12), and more; one row takes two panels.
TEST_P(GemmSparseTest, SmallShapes) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 25}) {
    for (int64_t n : {1, 3, 4, 15, 16, 17, 31, 33, 64, 65, 97, 131}) {
      check(on, GetParam(), with_options(m, 1 + static_cast<int64_t>(index * 29 % 170), n, index));
      ++index;
    }
  }
}

// Fours, blocks and slices that end at every place, of both ways through.
TEST_P(GemmSparseTest, Depths) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int64_t k : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 34, 35, 63, 64, 65, 96, 127, 128, 129, 160, 255, 256, 257, 1000, 2048, 2061}) {
    for (int64_t m : {1, 3, 7, 30}) check(on, GetParam(), with_options(m, k, 1 + static_cast<int64_t>(index * 11 % 70), index)), ++index;
  }
}

// Several blocks and tasks, with k inside and outside.
TEST_P(GemmSparseTest, Blocks) {
  const OpenDevice on(GetParam());
  const int64_t shapes[][3] = {{97, 65, 257}, {193, 40, 300}, {101, 1601, 70}, {40, 3500, 40}, {11, 2500, 300}, {1, 1000, 1100}};
  uint64_t index = 0;
  for (const auto& shape : shapes) check(on, GetParam(), with_options(shape[0], shape[1], shape[2], index++));
}

TEST_P(GemmSparseTest, RowsDoNotDependOnTheirNumber) {
  const OpenDevice on(GetParam());
  Case c = with_options(110, 701, 75, 12);
  c.out_dtype = GTN_F32;
  const Operands x(c);
  const Buffer all = run(on, c, x, true);
  for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 25, 97}) {
    const Buffer some = run(on, c, x, true, rows);
    EXPECT_EQ(0, std::memcmp(all.data(), some.data(), static_cast<size_t>(rows * c.n) * 4)) << GetParam() << " " << rows << " rows";
    EXPECT_EQ(-7776.0f, some.get(rows * c.n)) << rows;
  }
}

TEST_P(GemmSparseTest, EmptySizes) {
  const OpenDevice on(GetParam());
  for (uint64_t index = 0; index < 12; ++index) {
    check(on, GetParam(), with_options(5, 0, 37, index));
    check(on, GetParam(), with_options(0, 33, 5, index));
    check(on, GetParam(), with_options(5, 33, 0, index));
  }
}

// A NaN in a row reaches the columns whose weight there is not 0, and no other row.
TEST_P(GemmSparseTest, NanStaysInItsRow) {
  const OpenDevice on(GetParam());
  for (int64_t m : {5, 40}) {
    Case c;
    c.m = m;
    c.k = 77;
    c.n = 50;
    Operands x(c);
    x.a.set(3 * c.k + 76, std::numeric_limits<float>::quiet_NaN());
    const Buffer out = run(on, c, x, true);
    for (int64_t i = 0; i < c.m * c.n; ++i) {
      const bool meets = x.rounded.get(76 * c.n + i % c.n) != 0;
      if (i / c.n != 3 || meets) {
        ASSERT_EQ(i / c.n == 3, std::isnan(out.get(i))) << GetParam() << " " << i;
      }
    }
  }
}

TEST(GemmSparse, PacksLittleMoreThanHalf) {
  const OpenDevice on("cpu");
  Message message;
  const Buffer zeros(GTN_F32, 1024 * 256);
  int64_t bytes[2];
  for (int i = 0; i < 2; ++i) {
    gtn_weights_desc desc = {};
    desc.size = sizeof desc;
    desc.format = i == 0 ? static_cast<int32_t>(GTN_BF16) : kSparse;
    desc.source = tensor(GTN_F32, {1024, 256});
    gtn_weights weights = 0;
    ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, zeros.data(), &weights, &message)) << message.text;
    gtn_weights_info info = {};
    info.size = sizeof info;
    ASSERT_EQ(GTN_OK, gtn_weights_query(weights, &info, &message)) << message.text;
    EXPECT_EQ(desc.format, info.format);
    bytes[i] = info.bytes;
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
  }
  EXPECT_EQ(bytes[0] * 9, bytes[1] * 16);
}

TEST(GemmSparse, RefusesWhatIsNotPruned) {
  const OpenDevice on("cpu");
  Message message;
  std::vector<float> w(2 * 7 * 3);
  gtn_weights weights = 0;
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = kSparse;
  desc.source = tensor(GTN_F32, {2, 7, 3});
  const auto refused = [&](const char* text) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, w.data(), &weights, &message)) << text;
    EXPECT_STREQ(text, message.text);
  };
  for (int64_t p : {4, 5, 6}) w[static_cast<size_t>(21 + p * 3 + 1)] = 1;
  refused("source[group = 1, k = 4 to 6, n = 1] has more than 2 weights that are not 0; those of format GTN_BF16_2OF4 are pruned");
  w[21 + 6 * 3 + 1] = 0;
  desc.group_size = 32;
  refused("desc.group_size: is 32, expected 0 with BF16_2OF4");
  desc.group_size = 0;
  desc.symmetric = 1;
  refused("desc.symmetric: is 1, expected 0 with BF16_2OF4");
  desc.symmetric = 0;
  ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, w.data(), &weights, &message)) << message.text;

  // A plan of another format.
  gtn_gemm_desc gemm = {};
  gemm.size = sizeof gemm;
  gemm.format = GTN_BF16;
  gemm.groups = 2;
  gemm.a = tensor(GTN_F32, {1, 7});
  gemm.out = tensor(GTN_F32, {1, 3});
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_gemm_plan(on.device, &gemm, &plan, &message)) << message.text;
  float a[7] = {}, out[3];
  const int64_t offsets[] = {0, 0, 1};
  EXPECT_EQ(GTN_INVALID_ARGUMENT,
            gtn_gemm_run_with(plan, on.stream, weights, 1, 1, a, nullptr, nullptr, out, offsets, nullptr, nullptr, nullptr));
  EXPECT_EQ(0u, on.message().find("weights: are ")) << on.message();
  EXPECT_NE(std::string::npos, on.message().find("BF16_2OF4")) << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
}

INSTANTIATE_TEST_SUITE_P(Levels, GemmSparseTest, testing::ValuesIn(cpu_devices()), [](const auto& test) {
  return test.param.substr(4);
});

}  // namespace
}  // namespace gatun::test
