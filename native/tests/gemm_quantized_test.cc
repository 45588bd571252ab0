// GEMM with weights of 4 and 8 bits on every level: against a plain FP64 product with the weights that the integers stand for,
// and, bit for bit, against an FP32 product with them; the quantizer against its definition, element by element.
#include "packed_product.h"

namespace gatun::test {
namespace {

constexpr int32_t kU4 = GTN_U4, kU8 = GTN_U8;

struct Case : Product {
  int64_t group_size = 32;
  int32_t format = GTN_U4;
  bool symmetric = false;
  int32_t method = GTN_QUANTIZE_NEAREST;
  bool ready = false;  // quantized by the test

  int64_t groups_k() const { return (k + group_size - 1) / group_size; }
  int32_t most() const { return format == GTN_U4 ? 15 : 255; }
  int32_t half() const { return format == GTN_U4 ? 8 : 128; }

  std::string text() const {
    char line[128];
    std::snprintf(line, sizeof line, "group_size=%d format=%d symmetric=%d method=%d ready=%d", static_cast<int>(group_size), format,
                  symmetric, method, ready);
    return Product::text() + line;
  }
};

// Integers, scales and zero points of [matrices, n, groups of k], and the weights that they stand for, [matrices, k, n].
struct Quantized {
  std::vector<int32_t> integers, zeros;
  std::vector<float> scales, weights;
  double squared_error = 0;

  void stand_for(const Case& c) {
    weights.resize(static_cast<size_t>(c.matrices() * c.k * c.n));
    for (int64_t e = 0; e < c.matrices(); ++e) {
      for (int64_t p = 0; p < c.k; ++p) {
        for (int64_t j = 0; j < c.n; ++j) {
          const size_t g = static_cast<size_t>((e * c.n + j) * c.groups_k() + p / c.group_size);
          const size_t i = g * static_cast<size_t>(c.group_size) + static_cast<size_t>(p % c.group_size);
          weights[static_cast<size_t>((e * c.k + p) * c.n + j)] = static_cast<float>(integers[i] - zeros[g]) * scales[g];
        }
      }
    }
  }
};

// The integers of a scale and a zero point, and their squared error.
double quantize_with(const Case& c, const std::vector<double>& w, float scale, int32_t zero, std::vector<int32_t>* integers) {
  double sum = 0;
  integers->clear();
  for (double x : w) {
    const double s = static_cast<double>(scale), most = c.most();
    const double integer = s == 0 ? 0 : std::clamp(std::nearbyint(x / s) + zero, 0.0, most);
    integers->push_back(static_cast<int32_t>(integer));
    const double off = x - (integer - zero) * s;
    sum += off * off;
  }
  return sum;
}

// The definition of gatun.h for one group: the best of the ranges that are asked for, and then of scales that fit.
void quantize(const Case& c, const std::vector<double>& w, int32_t* integers, int32_t* zero, float* scale, double* error) {
  double lo = 0, hi = 0, largest = 0;
  for (double x : w) {
    lo = std::min(lo, x);
    hi = std::max(hi, x);
    if (std::fabs(x) > std::fabs(largest)) largest = x;
  }
  *error = std::numeric_limits<double>::infinity();
  std::vector<int32_t> q;
  const auto take = [&](float s, int32_t z) {
    const double sum = quantize_with(c, w, s, z, &q);
    if (!(sum < *error)) return false;
    *error = sum;
    *zero = z;
    *scale = s;
    std::copy(q.begin(), q.end(), integers);
    return true;
  };
  for (int part = 32; part >= (c.method == GTN_QUANTIZE_NEAREST ? 32 : 16); --part) {
    const double range = part / 32.0;
    const float s = static_cast<float>(c.symmetric ? range * std::max(hi, -lo) / (c.half() - 1) : (range * hi - range * lo) / c.most());
    int32_t z = c.symmetric ? c.half() : 0;
    if (!c.symmetric && s != 0) {
      z = static_cast<int32_t>(std::clamp(std::nearbyint(-(range * lo) / static_cast<double>(s)), 0.0, static_cast<double>(c.most())));
    }
    take(s, z);
  }
  if (c.method != GTN_QUANTIZE_FIT) return;
  for (int part = 32; c.symmetric && part >= 16; --part) {
    const float s = static_cast<float>(-(part / 32.0 * largest) / c.half());
    if (s != 0) take(s, c.half());
  }
  bool better = *scale != 0;
  for (int turn = 0; better && turn < 16; ++turn) {
    const float s = *scale;
    const int32_t z = *zero;
    better = false;
    for (int32_t tried : {z, z - 1, z + 1}) {
      if ((c.symmetric && tried != z) || tried < 0 || tried > c.most()) continue;
      quantize_with(c, w, s, tried, &q);
      double products = 0, squares = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        products += w[i] * (q[i] - tried);
        squares += static_cast<double>(q[i] - tried) * (q[i] - tried);
      }
      const float fitted = squares == 0 ? 0.0f : static_cast<float>(products / squares);
      if (fitted != 0) better |= take(fitted, tried);
    }
  }
}

struct Operands : ProductOperands {
  Quantized quantized;

  explicit Operands(const Case& c) : Operands(c, std::mt19937_64(c.seed)) {}

 private:
  Operands(const Case& c, std::mt19937_64&& random) : ProductOperands(c, random) {
    const size_t groups = static_cast<size_t>(c.matrices() * c.n * c.groups_k());
    quantized.integers.resize(groups * static_cast<size_t>(c.group_size));
    quantized.zeros.resize(groups);
    quantized.scales.resize(groups);
    for (size_t g = 0; g < groups; ++g) {
      int32_t* integers = &quantized.integers[g * static_cast<size_t>(c.group_size)];
      if (c.ready) {  // whatever fits; what fills the last group up is not zero either
        for (int64_t i = 0; i < c.group_size; ++i) integers[i] = static_cast<int32_t>(random() % static_cast<uint64_t>(c.most() + 1));
        quantized.zeros[g] = c.symmetric ? c.half() : static_cast<int32_t>(random() % static_cast<uint64_t>(c.most() + 1));
        quantized.scales[g] = (static_cast<float>(random() % 1000) - 300.0f) * 0.001f;
        continue;
      }
      const int64_t column = static_cast<int64_t>(g) / c.groups_k(), first = static_cast<int64_t>(g) % c.groups_k() * c.group_size;
      std::vector<double> values;
      for (int64_t p = first; p < std::min(first + c.group_size, c.k); ++p) {
        values.push_back(w.get(w_at(c, column / c.n, p, column % c.n)));
      }
      double error = 0;
      quantize(c, values, integers, &quantized.zeros[g], &quantized.scales[g], &error);
      quantized.squared_error += error;
    }
    quantized.stand_for(c);
  }
};

gtn_weights pack(const OpenDevice& on, const Case& c, const Operands& x) {
  Message message;
  gtn_weights weights = 0;
  if (c.ready) {
    const bool halves = c.format == GTN_U4;
    const int64_t zeros_of_column = halves ? (c.groups_k() + 1) / 2 : c.groups_k();
    std::vector<uint8_t> integers, zeros(static_cast<size_t>(c.matrices() * c.n * zeros_of_column), halves ? 0xb0 : 0);
    for (size_t i = 0; i < x.quantized.integers.size(); i += halves ? 2 : 1) {
      const int32_t upper = halves ? x.quantized.integers[i + 1] * 16 : 0;
      integers.push_back(static_cast<uint8_t>(x.quantized.integers[i] + upper));
    }
    for (int64_t g = 0; g < static_cast<int64_t>(x.quantized.zeros.size()); ++g) {
      const int64_t at = g % c.groups_k(), zero = x.quantized.zeros[static_cast<size_t>(g)];
      uint8_t& byte = zeros[static_cast<size_t>(g / c.groups_k() * zeros_of_column + (halves ? at / 2 : at))];
      byte = static_cast<uint8_t>(!halves ? zero : at % 2 == 0 ? (byte & 0xf0) + zero : (byte & 0x0f) + zero * 16);
    }
    gtn_quantized_desc desc = {};
    desc.size = sizeof desc;
    desc.format = c.format;
    desc.groups = c.groups;
    desc.k = c.k;
    desc.n = c.n;
    desc.group_size = c.group_size;
    EXPECT_EQ(GTN_OK, gtn_weights_pack_quantized(on.device, &desc, integers.data(), x.quantized.scales.data(),
                                                 c.symmetric ? nullptr : zeros.data(), &weights, &message))
        << message.text << c.text();
    return weights;
  }
  gtn_weights_desc desc = weights_desc(c, c.format);
  desc.group_size = c.group_size;
  desc.symmetric = c.symmetric;
  desc.quantize = c.method;
  EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, x.w.data(), &weights, &message)) << message.text << c.text();
  return weights;
}

Buffer run(const OpenDevice& on, const Case& c, const Operands& x, int64_t rows) {
  const gtn_weights weights = pack(on, c, x);
  Message message;
  gtn_weights_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_weights_query(weights, &info, &message)) << message.text;
  EXPECT_EQ(c.format, info.format);
  EXPECT_EQ(c.group_size, info.group_size);
  // A scale, a zero point and the integers of each group, in whole panels of at most 64 columns.
  const int64_t columns = (c.n + 63) / 64 * 64, bits = c.format == GTN_U4 ? 4 : 8;
  EXPECT_LE(info.bytes, c.matrices() * columns * (c.groups_k() * (5 + c.group_size * bits / 8) + 64));
  const std::string kernel = std::string(c.format == GTN_U4 ? ".gemm.u4" : ".gemm.u8") + (c.groups > 0 ? ".grouped" : "");
  return run_product(on, c, x, weights, c.format, c.group_size, kernel, rows);
}

// In terms of the FP64 product the weights are rounded, and a product with one is where it stands by itself.
void check(const OpenDevice& on, const std::string& device, const Case& c) {
  const Operands x(c);
  const Buffer out = run(on, c, x, c.m);
  EXPECT_TRUE(out.same_bytes(run_in_fp32(on, c, x, x.quantized.weights.data()))) << device << " differs from FP32: " << c.text();
  if (c.activation != GTN_ACT_NONE) return;
  expect_fp64_product(device, c.text(), c, x, out, 2, [&](int64_t e, int64_t p, int64_t j) {
    const size_t g = static_cast<size_t>((e * c.n + j) * c.groups_k() + p / c.group_size);
    const size_t i = g * static_cast<size_t>(c.group_size) + static_cast<size_t>(p % c.group_size);
    return (x.quantized.integers[i] - x.quantized.zeros[g]) * static_cast<double>(x.quantized.scales[g]);
  });
}

Case with_options(int64_t m, int64_t k, int64_t n, uint64_t index) {
  Case c;
  c.m = m;
  c.k = k;
  c.n = n;
  c.group_size = 32 << index % 3;
  c.format = index % 5 < 3 ? kU4 : kU8;
  c.symmetric = index % 2 == 1;
  c.ready = index % 4 < 2;
  c.method = index % 8 == 3 ? GTN_QUANTIZE_SEARCH : index % 8 == 6 ? GTN_QUANTIZE_FIT : GTN_QUANTIZE_NEAREST;
  c.take_options(index);
  c.seed = 4000 + index;
  return c;
}

class GemmQuantizedTest : public testing::TestWithParam<std::string> {};

// Up to a register tile of rows (3, 6 and 12), and more; panels are 4, 16 and 32 columns and one row takes two.
TEST_P(GemmQuantizedTest, SmallShapes) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25}) {
    for (int64_t n : {1, 3, 4, 15, 16, 17, 31, 33, 64, 65, 97, 131}) {
      check(on, GetParam(), with_options(m, 1 + static_cast<int64_t>(index * 29 % 170), n, index));
      ++index;
    }
  }
}

// Groups and slices that end at every place, of both ways through.
TEST_P(GemmQuantizedTest, Depths) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int64_t k : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 255, 256, 257, 383, 1000, 2048, 2061}) {
    for (int64_t m : {1, 7, 30}) check(on, GetParam(), with_options(m, k, 1 + static_cast<int64_t>(index * 11 % 70), index)), ++index;
  }
}

// Several blocks and tasks, with k inside and outside.
TEST_P(GemmQuantizedTest, Blocks) {
  const OpenDevice on(GetParam());
  const int64_t shapes[][3] = {{97, 65, 257}, {193, 40, 300}, {101, 1601, 70}, {40, 3500, 40}, {11, 2500, 300}, {1, 1000, 1100}};
  uint64_t index = 0;
  for (const auto& shape : shapes) check(on, GetParam(), with_options(shape[0], shape[1], shape[2], index++));
}

TEST_P(GemmQuantizedTest, EveryWayOfQuantizing) {
  const OpenDevice on(GetParam(), 1);
  for (uint64_t way = 0; way < 72; ++way) {
    Case c;
    c.m = way % 2 == 0 ? 3 : 40;
    c.k = 141;
    c.n = 37;
    c.format = way / 2 % 2 == 0 ? kU4 : kU8;
    c.symmetric = way / 4 % 2 == 1;
    c.method = static_cast<int32_t>(way / 8 % 3);
    c.group_size = 32 << way / 24;
    c.groups = way % 3 == 1 ? 2 : 0;
    c.bias = true;
    check(on, GetParam(), c);
    c.ready = true;
    check(on, GetParam(), c);
  }
}

// Rows of the unit matrix give the weights themselves: none may be off by an integer.
TEST_P(GemmQuantizedTest, WeightsAreThoseOfTheDefinition) {
  const OpenDevice on(GetParam(), 1);
  for (uint64_t way = 0; way < 12; ++way) {
    Case c;
    c.m = c.k = 100;
    c.n = 45;
    c.format = way % 2 == 0 ? kU4 : kU8;
    c.symmetric = way / 2 % 2 == 1;
    c.method = static_cast<int32_t>(way / 4);
    Operands x(c);
    // Groups of one sign, of zeros, of a single large weight, of halves of a step, and of the least numbers.
    for (int64_t p = 0; p < c.k; ++p) {
      x.w.set(p * c.n + 0, std::fabs(x.w.get(p * c.n)));
      x.w.set(p * c.n + 1, -std::fabs(x.w.get(p * c.n)));
      x.w.set(p * c.n + 2, 0.0f);
      x.w.set(p * c.n + 3, p % 32 == 5 ? 1000.0f : x.w.get(p * c.n + 3));
      x.w.set(p * c.n + 4, static_cast<float>(p % 31) * 0.5f);
      x.w.set(p * c.n + 5, x.w.get(p * c.n + 5) * 0x1p-146f);
      x.w.set(p * c.n + 6, p % 2 == 0 ? 3e38f : -3e38f);
    }
    for (int64_t j = 0; j < c.n; ++j) {
      for (int64_t g = 0; g < c.groups_k(); ++g) {
        const int64_t first = g * c.group_size, at = j * c.groups_k() + g;
        std::vector<double> values;
        for (int64_t p = first; p < std::min(first + c.group_size, c.k); ++p) values.push_back(x.w.get(p * c.n + j));
        double error = 0;
        quantize(c, values, &x.quantized.integers[static_cast<size_t>(at * c.group_size)], &x.quantized.zeros[static_cast<size_t>(at)],
                 &x.quantized.scales[static_cast<size_t>(at)], &error);
      }
    }
    x.quantized.stand_for(c);
    for (int64_t p = 0; p < c.m; ++p) {
      for (int64_t i = 0; i < c.k; ++i) x.a.set(p * c.k + i, p == i ? 1.0f : 0.0f);
    }
    const Buffer out = run(on, c, x, c.m);
    int reported = 0;
    for (int64_t i = 0; i < c.k * c.n; ++i) {
      const float expected = x.quantized.weights[static_cast<size_t>(i)];
      if (out.get(i) != expected && reported++ < 3) {
        ADD_FAILURE() << GetParam() << " weight [" << i / c.n << ", " << i % c.n << "] is " << out.get(i) << ", expected " << expected
                      << " of " << x.w.get(i) << ": " << c.text();
      }
    }
  }
}

// The search and the fit may only lower the error, and do lower that of normally distributed weights.
TEST(GemmQuantized, SearchAndFitLowerTheError) {
  for (int32_t format : {kU4, kU8}) {
    for (bool symmetric : {false, true}) {
      Case c;
      c.k = 512;
      c.n = 20;
      c.format = format;
      c.symmetric = symmetric;
      const double nearest = Operands(c).quantized.squared_error;
      c.method = GTN_QUANTIZE_SEARCH;
      const double searched = Operands(c).quantized.squared_error;
      EXPECT_LE(searched, nearest) << c.text();
      if (format == kU4) {
        EXPECT_LT(searched, 0.98 * nearest) << c.text();
      }
      c.method = GTN_QUANTIZE_FIT;
      EXPECT_LT(Operands(c).quantized.squared_error, (symmetric ? 0.93 : 0.99) * searched) << c.text();
    }
  }
}

TEST_P(GemmQuantizedTest, RowsDoNotDependOnTheirNumber) {
  const OpenDevice on(GetParam());
  Case c = with_options(110, 700, 75, 12);
  c.out_dtype = GTN_F32;
  const Operands x(c);
  const Buffer all = run(on, c, x, c.m);
  for (int64_t rows : {1, 2, 3, 4, 6, 7, 12, 13, 25, 97}) {
    const Buffer some = run(on, c, x, rows);
    EXPECT_EQ(0, std::memcmp(all.data(), some.data(), static_cast<size_t>(rows * c.n) * 4)) << GetParam() << " " << rows << " rows";
    EXPECT_EQ(-7776.0f, some.get(rows * c.n)) << rows;
  }
}

TEST_P(GemmQuantizedTest, EmptySizes) {
  const OpenDevice on(GetParam());
  for (uint64_t index = 0; index < 8; ++index) {
    check(on, GetParam(), with_options(5, 0, 37, index));
    check(on, GetParam(), with_options(0, 33, 5, index));
    check(on, GetParam(), with_options(5, 33, 0, index));
  }
}

// A NaN in a row reaches all of that row and nothing else.
TEST_P(GemmQuantizedTest, NanStaysInItsRow) {
  const OpenDevice on(GetParam());
  for (int64_t m : {5, 40}) {
    Case c;
    c.m = m;
    c.k = 77;
    c.n = 50;
    Operands x(c);
    x.a.set(3 * c.k + 76, std::numeric_limits<float>::quiet_NaN());
    const Buffer out = run(on, c, x, c.m);
    for (int64_t i = 0; i < c.m * c.n; ++i) ASSERT_EQ(i / c.n == 3, std::isnan(out.get(i))) << GetParam() << " " << i;
  }
}

TEST(GemmQuantized, RefusesWhatCannotBe) {
  const OpenDevice on("cpu");
  Message message;
  float ones[64 * 3];
  for (float& one : ones) one = 1;
  gtn_weights weights = 0;
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = GTN_U4;
  desc.source = tensor(GTN_F32, {64, 3});
  const auto refused = [&](const char* text) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, ones, &weights, &message)) << text;
    EXPECT_STREQ(text, message.text);
  };
  desc.group_size = 48;
  refused("desc.group_size: is 48, expected 32, 64 or 128 with U4");
  desc.group_size = 32;
  desc.symmetric = 2;
  refused("desc.symmetric: is 2, expected 0 or 1");
  desc.symmetric = 0;
  desc.quantize = 3;
  refused("desc.quantize: is 3, expected GTN_QUANTIZE_*, 0 to 2");
  desc.quantize = 0;
  ones[4] = -std::numeric_limits<float>::infinity();
  refused("source[k = 1, n = 1] is -inf; weights of format GTN_U4 must be finite");
  ones[4] = 1;
  desc.format = GTN_F32;
  refused("desc.group_size: is 32, expected 0 with F32");
  desc.group_size = 0;
  desc.symmetric = 1;
  refused("desc.symmetric: is 1, expected 0 with F32");
  desc.symmetric = 0;
  desc.quantize = 1;
  refused("desc.quantize: is 1, expected 0 with F32");
  desc.quantize = 0;
  desc.format = 12;
  refused("desc.format: is no dtype (12), expected F32, BF16, F16, S8, U4, U8, F8E4M3, F8E5M2 or BF16_2OF4");

  gtn_quantized_desc quantized = {};
  quantized.size = sizeof quantized;
  quantized.format = GTN_U8;
  quantized.k = 64;
  quantized.n = 3;
  quantized.group_size = 32;
  uint8_t integers[3 * 64] = {};
  const auto refuses = [&](const void* from, const void* scales, const char* text) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack_quantized(on.device, &quantized, from, scales, nullptr, &weights, &message));
    EXPECT_STREQ(text, message.text);
  };
  refuses(nullptr, ones, "integers: is null, expected memory");
  refuses(integers, nullptr, "scales: is null, expected memory");
  ones[5] = std::numeric_limits<float>::quiet_NaN();
  refuses(integers, ones, "scales[n = 2, group = 1] is nan, expected a finite number");
  ones[5] = 1;
  quantized.format = GTN_S8;
  refuses(integers, ones, "desc.format: is S8 (4), expected U4, U8, F8E4M3 or F8E5M2");
  quantized.format = GTN_U8;
  quantized.group_size = 0;
  refuses(integers, ones, "desc.group_size: is 0, expected 32, 64 or 128 with U8");
  quantized.group_size = 32;
  quantized.k = -1;
  refuses(integers, ones, "desc.k: is -1, expected 0 or more");
  quantized.k = INT64_MAX;
  refuses(integers, ones, "desc.k: makes integers exceed 2^63 bytes");
  quantized.k = 64;
  quantized.groups = -1;
  refuses(integers, ones, "desc.groups: is -1, expected 0 or more");
  quantized.groups = 0;

  // A plan and weights of other groups.
  ASSERT_EQ(GTN_OK, gtn_weights_pack_quantized(on.device, &quantized, integers, ones, nullptr, &weights, &message)) << message.text;
  gtn_gemm_desc gemm = {};
  gemm.size = sizeof gemm;
  gemm.format = GTN_U8;
  gemm.a = tensor(GTN_F32, {1, 64});
  gemm.out = tensor(GTN_F32, {1, 3});
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_gemm_plan(on.device, &gemm, &plan, &message));
  EXPECT_STREQ("desc.group_size: is 0, expected 32, 64 or 128 with U8", message.text);
  gemm.group_size = 64;
  ASSERT_EQ(GTN_OK, gtn_gemm_plan(on.device, &gemm, &plan, &message)) << message.text;
  float out[3];
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_gemm_run(plan, on.stream, weights, 1, ones + 64, nullptr, nullptr, out));
  EXPECT_EQ("weights: are U8 in groups of 32 [64, 3], expected the plan's U8 in groups of 64 [64, 3]", on.message());
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
}

INSTANTIATE_TEST_SUITE_P(Levels, GemmQuantizedTest, testing::ValuesIn(cpu_devices()), [](const auto& test) {
  return test.param.substr(4);
});

}  // namespace
}  // namespace gatun::test
