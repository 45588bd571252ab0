// GEMM with pruned weights on every level: bit for bit against an FP32 product with the same weights, zeros included, and against a
// plain FP64 product.
#include "packed_product.h"

namespace gatun::test {
namespace {

constexpr int32_t kSparse = GTN_BF16_2OF4;

struct Operands : ProductOperands {
  Buffer rounded;  // FP32 [matrices, k, n] of the weights in BF16

  explicit Operands(const Product& p) : Operands(p, std::mt19937_64(p.seed)) {}

 private:
  Operands(const Product& p, std::mt19937_64&& random)
      : ProductOperands(p, random), rounded(GTN_F32, p.matrices() * p.k * p.n) {
    Buffer half(GTN_BF16, 1);
    for (int64_t e = 0; e < p.matrices(); ++e) {
      for (int64_t j = 0; j < p.n; ++j) {
        for (int64_t four = 0; four < p.k; four += 4) {
          // Two, one or none of them, at any places.
          const int64_t kept = random() % 8, first = random() % 4, second = (first + 1 + static_cast<int64_t>(random() % 3)) % 4;
          for (int64_t i = 0; i < std::min<int64_t>(4, p.k - four); ++i) {
            const bool keep = (kept > 0 && i == first) || (kept > 1 && i == second);
            const int64_t at = w_at(p, e, four + i, j);
            if (!keep) w.set(at, 0.0f);
            half.set(0, w.get(at));
            rounded.set((e * p.k + four + i) * p.n + j, half.get(0));
          }
        }
      }
    }
  }
};

Buffer run(const OpenDevice& on, const Product& p, const Operands& x, int64_t rows) {
  const gtn_weights_desc desc = weights_desc(p, kSparse);
  Message message;
  gtn_weights weights = 0;
  EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, x.w.data(), &weights, &message)) << message.text << p.text();
  return run_product(on, p, x, weights, kSparse, 0, ".gemm.bf16_2of4", rows);
}

void check(const OpenDevice& on, const std::string& device, const Product& p) {
  const Operands x(p);
  const Buffer out = run(on, p, x, p.m), dense = run_in_fp32(on, p, x, static_cast<const float*>(x.rounded.data()));
  int reported = 0;
  for (int64_t i = 0; i < p.m * p.n; ++i) {
    if (out.get(i) != dense.get(i) && reported++ < 3) {
      ADD_FAILURE() << device << " [" << i / p.n << ", " << i % p.n << "] is " << out.get(i) << ", in FP32 " << dense.get(i) << ": "
                    << p.text();
    }
  }
  if (p.activation != GTN_ACT_NONE || p.rank > 0) return;
  expect_fp64_product(device, p.text(), p, x, out, 0, [&](int64_t e, int64_t i, int64_t j) {
    return static_cast<double>(x.rounded.get((e * p.k + i) * p.n + j));
  });
}

Product with_options(int64_t m, int64_t k, int64_t n, uint64_t index) {
  Product p;
  p.m = m;
  p.k = k;
  p.n = n;
  p.take_options(index);
  p.groups = index % 11 == 7 ? 3 : 0;
  p.rank = index % 11 == 4 ? 5 : 0;
  p.seed = 6000 + index;
  return p;
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
  Product c = with_options(110, 701, 75, 12);
  c.out_dtype = GTN_F32;
  const Operands x(c);
  const Buffer all = run(on, c, x, c.m);
  for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 25, 97}) {
    const Buffer some = run(on, c, x, rows);
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
    Product c;
    c.m = m;
    c.k = 77;
    c.n = 50;
    Operands x(c);
    x.a.set(3 * c.k + 76, std::numeric_limits<float>::quiet_NaN());
    const Buffer out = run(on, c, x, c.m);
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
