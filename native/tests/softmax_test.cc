// The softmax family against double precision.
#include "device_test.h"

#include <algorithm>

#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -77.0f;  // the same in BF16, and no softmax
constexpr int64_t kLead = 3;         // elements of a buffer before and after what a run sees

struct Problem {
  int32_t x_dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t rows = 1, n = 1;
  int64_t x_stride = 1, out_stride = 1;
  float scale = 1.0f;
  bool in_place = false;

  std::string text() const {
    char line[200];
    std::snprintf(line, sizeof line, "softmax x=%s out=%s rows=%lld n=%lld strides=%lld,%lld scale=%g%s",
                  x_dtype == GTN_F32 ? "f32" : "bf16", out_dtype == GTN_F32 ? "f32" : "bf16",
                  static_cast<long long>(rows), static_cast<long long>(n), static_cast<long long>(x_stride),
                  static_cast<long long>(out_stride), static_cast<double>(scale), in_place ? " in place" : "");
    return line;
  }
};

int64_t extent(int64_t rows, int64_t n, int64_t stride) {
  return kLead + (rows > 0 ? (rows - 1) * stride + n : 0) + kLead;
}

void run(OpenDevice& on, const Problem& p, int64_t planned, Buffer& x, Buffer& out) {
  Message message;
  gtn_softmax_desc desc = {};
  desc.size = sizeof desc;
  desc.scale = p.scale;
  desc.x = tensor(p.x_dtype, {planned, p.n});
  desc.x.strides[0] = p.x_stride;
  desc.out = tensor(p.out_dtype, {planned, p.n});
  desc.out.strides[0] = p.out_stride;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_softmax_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const char* from = static_cast<const char*>(x.data()) + kLead * Buffer::element_size(p.x_dtype);
  char* to = static_cast<char*>(p.in_place ? x.data() : out.data()) + kLead * Buffer::element_size(p.out_dtype);
  EXPECT_EQ(GTN_OK, gtn_softmax_run(plan, on.stream, p.rows, from, to)) << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

int lanes_of(const std::string& device) {
  if (device == "cpu:scalar") return 1;
  if (device == "cpu:neon" || device == "cpu:dotprod" || device == "cpu:i8mm") return 4;
  return device == "cpu:avx2" ? 8 : 16;
}

// A row in double, with the bound on each element's error.
//
// s_i = scale x_i is an FP32 product by definition. With u = 2^-24 and d_i = s_i - max: the exponent is off by u
// |d_i| of the difference, and exp adds 1.1 ulp, at most 2.2 u. The sum inherits the weighted mean of those and adds
// one rounding for each level of the summation: a lane takes n / (4 lanes) elements, and 8 levels more end it. The
// reciprocal, the product and their second-order terms are 4 u.
struct Row {
  std::vector<double> value, bound;
};

Row reference(const std::vector<float>& x, float scale, int lanes) {
  constexpr double u = kUnitRoundoffF32;
  const size_t n = x.size();
  Row row;
  row.value.assign(n, 0.0);
  row.bound.assign(n, 0.0);
  double maximum = -INFINITY;
  bool nan = false;
  std::vector<double> s(n);
  for (size_t i = 0; i < n; ++i) {
    const float product = scale * x[i];
    s[i] = static_cast<double>(product);
    nan = nan || std::isnan(s[i]) || s[i] == INFINITY;
    maximum = std::fmax(maximum, s[i]);
  }
  if (nan) {
    row.value.assign(n, NAN);
    return row;
  }
  if (maximum == -INFINITY) return row;
  double sum = 0.0, error = 0.0;
  for (size_t i = 0; i < n; ++i) {
    const double e = std::exp(s[i] - maximum);
    if (e < 0x1p-160) continue;  // 0 in FP32 whatever the sum
    row.value[i] = e;
    row.bound[i] = u * (std::fabs(s[i] - maximum) + 2.2);
    sum += e;
    error += e * row.bound[i];
  }
  const double common = error / sum + u * (static_cast<double>(n) / (4.0 * lanes) + 8.0 + 4.0);
  for (size_t i = 0; i < n; ++i) {
    row.value[i] /= sum;
    row.bound[i] = row.value[i] * std::expm1(row.bound[i] + common) + 0x1p-149;
  }
  return row;
}

void check(OpenDevice& on, const std::string& device, const Problem& p, const Buffer& given) {
  Buffer x = given;
  Buffer out(p.out_dtype, extent(p.rows, p.n, p.out_stride));
  out.fill(kSentinel);
  run(on, p, p.rows + 2, x, out);
  const Buffer& result = p.in_place ? x : out;
  std::vector<bool> written(static_cast<size_t>(result.size()));
  std::vector<float> values(static_cast<size_t>(p.n));
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t i = 0; i < p.n; ++i) values[static_cast<size_t>(i)] = given.get(kLead + r * p.x_stride + i);
    const Row expected = reference(values, p.scale, lanes_of(device));
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t at = kLead + r * p.out_stride + i;
      written[static_cast<size_t>(at)] = true;
      const double got = static_cast<double>(result.get(at));
      const double want = expected.value[static_cast<size_t>(i)];
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(got)) << device << " " << p.text() << " row " << r << " column " << i << ": got " << got;
        continue;
      }
      double bound = expected.bound[static_cast<size_t>(i)];
      // BF16 has 8 significant bits, so half a step is at most 2^-8 of the value; below the normal range it is 2^-134.
      if (p.out_dtype == GTN_BF16) bound += 0x1p-8 * (want + bound) + 0x1p-134;
      ASSERT_LE(std::fabs(got - want), bound)
          << device << " " << p.text() << " row " << r << " column " << i << ": got " << got << ", expected " << want;
    }
  }
  for (int64_t i = 0; i < result.size(); ++i) {
    if (written[static_cast<size_t>(i)]) continue;
    const float before = p.in_place ? given.get(i) : kSentinel;
    ASSERT_EQ(before, result.get(i)) << device << " " << p.text() << ": element " << i << " of the buffer was written";
  }
  if (!p.in_place) {
    ASSERT_TRUE(given.same_bytes(x)) << device << " " << p.text() << ": the input was written";
  }
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed, float deviation) {
  std::mt19937_64 random(seed);
  Buffer x(p.x_dtype, extent(p.rows, p.n, p.x_stride));
  x.fill_normal(random, deviation);
  SCOPED_TRACE("seed=" + std::to_string(seed) + " deviation=" + std::to_string(deviation));
  check(on, device, p, x);
}

TEST(Softmax, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 3);
    for (int32_t dtype : {GTN_F32, GTN_BF16}) {
      for (int32_t out_dtype : {GTN_F32, GTN_BF16}) {
        Message message;
        gtn_softmax_desc desc = {};
        desc.size = sizeof desc;
        desc.scale = 1.0f;
        desc.x = tensor(dtype, {5, 7});
        desc.out = tensor(out_dtype, {5, 7});
        gtn_plan plan = 0;
        ASSERT_EQ(GTN_OK, gtn_softmax_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        const std::string level = name.substr(name.find(':') + 1);
        EXPECT_EQ("cpu." + level + ".softmax" + (dtype == GTN_F32 ? ".f32" : ".bf16"), info.kernel);
        EXPECT_EQ(GTN_OP_SOFTMAX, info.op);
        EXPECT_EQ(35.0 * static_cast<double>(Buffer::element_size(dtype) + Buffer::element_size(out_dtype)),
                  info.bytes);
        EXPECT_GE(info.flops, 35.0 * 4);
        EXPECT_EQ(3 * 64, info.workspace_bytes);  // a row of FP32 for each thread
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
      }
    }
  }
}

TEST(Softmax, ShapesStridesDtypesAndScales) {
  const int64_t widths[] = {0,  1,  2,  3,  7,  8,   9,   15,   16,   17,   31,  32,
                            33, 63, 64, 65, 67, 127, 129, 1009, 4096, 8191, 8193};
  const float scales[] = {1.0f, 0.125f, -2.0f, 0.0f, 30.0f};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1;
    for (int64_t n : widths) {
      for (int64_t rows : {int64_t{0}, int64_t{1}, int64_t{5}}) {
        for (int32_t x_dtype : {GTN_F32, GTN_BF16}) {
          for (int32_t out_dtype : {GTN_F32, GTN_BF16}) {
            Problem p;
            p.x_dtype = x_dtype;
            p.out_dtype = out_dtype;
            p.rows = rows;
            p.n = n;
            p.x_stride = seed % 3 == 0 ? n : n + 5;
            p.out_stride = seed % 4 == 0 ? n + 2 : n;
            p.scale = scales[seed % 5];
            check_random(on, name, p, seed, seed % 2 == 0 ? 1.0f : 8.0f);
            if (testing::Test::HasFatalFailure()) return;
            ++seed;
          }
        }
      }
    }
  }
}

TEST(Softmax, ManyShortRowsLongRowsAndBroadcastRows) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.rows = 2003;
    p.n = p.x_stride = p.out_stride = 13;
    check_random(on, name, p, 7, 2.0f);
    p.rows = 2;
    p.n = p.x_stride = p.out_stride = 100003;
    check_random(on, name, p, 8, 2.0f);
    p.out_dtype = GTN_BF16;
    check_random(on, name, p, 9, 2.0f);
    p.rows = 3;
    p.n = 100;
    p.x_stride = 0;
    p.out_stride = 101;
    check_random(on, name, p, 10, 2.0f);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Softmax, InPlace) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 100;
    for (int64_t n : {1, 7, 8, 9, 17, 33, 100, 131, 9001}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Problem p;
        p.x_dtype = p.out_dtype = dtype;
        p.rows = 3;
        p.n = n;
        p.x_stride = p.out_stride = n + static_cast<int64_t>(seed % 2) * 3;
        p.scale = 0.7f;
        p.in_place = true;
        check_random(on, name, p, seed++, 3.0f);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

// Infinities, NaN and scores at the ends of FP32's range, at every place of a row and with every kind of scale. The
// rules apply to scale * x.
TEST(Softmax, SpecialValues) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float specials[] = {kInfinity, -kInfinity, nan, 3.4e38f, -3.4e38f, 1e-45f, 1e30f};
  const float scales[] = {1.0f, -1.0f, 0.0f, 1e10f, -1e-30f};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t n : {1, 2, 8, 19, 40}) {
      for (float special : specials) {
        for (float scale : scales) {
          for (int32_t dtype : {GTN_F32, GTN_BF16}) {
            // Row r has the special value at column r; one more row has it everywhere; one more has it beside -inf
            // alone.
            Problem p;
            p.x_dtype = dtype;
            p.rows = n + 2;
            p.n = p.x_stride = p.out_stride = n;
            p.scale = scale;
            std::mt19937_64 random(static_cast<uint64_t>(n));
            Buffer x(dtype, extent(p.rows, p.n, p.x_stride));
            x.fill_normal(random);
            for (int64_t i = 0; i < n; ++i) {
              x.set(kLead + i * n + i, special);
              x.set(kLead + n * n + i, special);
              x.set(kLead + (n + 1) * n + i, i == n / 2 ? special : -kInfinity);
            }
            SCOPED_TRACE("special value " + std::to_string(special));
            check(on, name, p, x);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// The three rules of the interface, by themselves and in plain numbers.
TEST(Softmax, RowsOfInfinities) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.rows = 4;
    p.n = p.x_stride = p.out_stride = 21;
    Buffer x(GTN_F32, extent(4, 21, 21)), out(GTN_F32, extent(4, 21, 21));
    x.fill(0.0f);
    for (int64_t i = 0; i < 21; ++i) {
      x.set(kLead + i, -kInfinity);                            // -inf alone: 0
      x.set(kLead + 21 + i, i == 20 ? 5.0f : -kInfinity);      // one score: all of the weight
      x.set(kLead + 42 + i, i == 3 ? kInfinity : -kInfinity);  // +inf: NaN
    }
    run(on, p, 4, x, out);
    for (int64_t i = 0; i < 21; ++i) {
      EXPECT_EQ(0.0f, out.get(kLead + i)) << name;
      EXPECT_EQ(i == 20 ? 1.0f : 0.0f, out.get(kLead + 21 + i)) << name;
      EXPECT_TRUE(std::isnan(out.get(kLead + 42 + i))) << name;
      EXPECT_FLOAT_EQ(1.0f / 21.0f, out.get(kLead + 63 + i)) << name;
    }
  }
}

// Over a tensor, at most twice the error of the plain loop with FP32 sums in order of index.
TEST(Softmax, NoWorseThanTwiceThePlainLoop) {
  constexpr int64_t kRows = 16, kN = 4096;
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    std::mt19937_64 random(5);
    Problem p;
    p.rows = kRows;
    p.n = p.x_stride = p.out_stride = kN;
    Buffer x(GTN_F32, extent(kRows, kN, kN)), out(GTN_F32, extent(kRows, kN, kN));
    x.fill_normal(random, 2.0f);
    run(on, p, kRows, x, out);
    double ours = 0.0, plain = 0.0;
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<float> values(kN), e(kN);
      float maximum = -kInfinity, sum = 0.0f;
      for (int64_t i = 0; i < kN; ++i) {
        values[static_cast<size_t>(i)] = x.get(kLead + r * kN + i);
        maximum = std::fmax(maximum, values[static_cast<size_t>(i)]);
      }
      for (size_t i = 0; i < kN; ++i) {
        e[i] = std::exp(values[i] - maximum);
        sum += e[i];
      }
      const Row expected = reference(values, 1.0f, 1);
      for (size_t i = 0; i < kN; ++i) {
        ours += std::pow(static_cast<double>(out.get(kLead + r * kN + static_cast<int64_t>(i))) - expected.value[i], 2);
        plain += std::pow(static_cast<double>(e[i] / sum) - expected.value[i], 2);
      }
    }
    EXPECT_LE(std::sqrt(ours), 2.0 * std::sqrt(plain)) << name;
  }
}

TEST(Softmax, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int32_t out_dtype : {GTN_F32, GTN_BF16}) {
      std::mt19937_64 random(11);
      Problem p;
      p.out_dtype = out_dtype;
      p.rows = 67;
      p.n = p.x_stride = p.out_stride = 2503;
      Buffer x(GTN_F32, extent(p.rows, p.n, p.x_stride));
      x.fill_normal(random, 4.0f);
      Buffer first(out_dtype, x.size());
      for (int threads = 1; threads <= 3; ++threads) {
        OpenDevice on(name, threads);
        Buffer out(out_dtype, x.size());
        run(on, p, p.rows, x, out);
        if (threads == 1) {
          first = out;
        } else {
          EXPECT_TRUE(first.same_bytes(out)) << name << " " << p.text() << " threads=" << threads;
        }
      }
    }
  }
}

// More than the caches hold is stored past them, in lines: the result is that of a few rows at a time.
TEST(Softmax, LargeResultsAreThoseOfSmallRuns) {
  constexpr int64_t kRows = 1203, kWidth = 4109, kStride = 4112, kFew = 100;
  AlignedFloats x(kRows * kStride), large(kRows * kStride), small(kRows * kStride);
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < kRows * kStride; ++i) x[i] = normal(random);
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 2);
    Message message;
    gtn_softmax_desc desc = {};
    desc.size = sizeof desc;
    desc.scale = 0.7f;
    desc.x = tensor(GTN_F32, {kRows, kWidth});
    desc.x.strides[0] = kStride;
    desc.out = desc.x;
    gtn_plan plan = 0;
    ASSERT_EQ(GTN_OK, gtn_softmax_plan(on.device, &desc, &plan, &message)) << message.text;
    large.fill(-1.0f);
    small.fill(-1.0f);
    ASSERT_EQ(GTN_OK, gtn_softmax_run(plan, on.stream, kRows, x.data(), large.data()));
    for (int64_t row = 0; row < kRows; row += kFew) {
      ASSERT_EQ(GTN_OK, gtn_softmax_run(plan, on.stream, std::min(kFew, kRows - row), x.data() + row * kStride,
                                        small.data() + row * kStride));
    }
    EXPECT_EQ(0, std::memcmp(large.data(), small.data(), kRows * kStride * sizeof(float))) << name;
    EXPECT_EQ(-1.0f, large[kWidth]);
    EXPECT_NE(-1.0f, large[kRows * kStride - 4]);
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  }
}

}  // namespace
}  // namespace gatun::test
