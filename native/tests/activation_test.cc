// The activation family against double precision: sweeps of float bit patterns for the functions themselves, and
// shapes, strides, aliasing, dtypes and thread counts for the loops around them.
#include "device_test.h"

#include <algorithm>

#include <cstdio>

namespace gatun::test {
namespace {

constexpr int32_t kActivations[] = {GTN_ACT_NONE, GTN_ACT_GELU_ERF, GTN_ACT_GELU_TANH, GTN_ACT_SILU, GTN_ACT_RELU};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The argument of the logistic function in the tanh form of GELU: x/2 (1 + tanh w) = x / (1 + exp(-2 w)).
double twice_w(double x) { return 2.0 * std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x); }

double logistic_product(double x, double v) {
  if (v >= 0.0) return x / (1.0 + std::exp(-v));
  const double e = std::exp(v);
  return e == 0.0 ? 0.0 : x * e / (1.0 + e);
}

double reference(int32_t activation, double x) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      if (x == -INFINITY) return 0.0;
      return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
    case GTN_ACT_GELU_TANH:
      return x == -INFINITY ? 0.0 : logistic_product(x, twice_w(x));
    case GTN_ACT_SILU:
      return x == -INFINITY ? 0.0 : logistic_product(x, x);
    case GTN_ACT_RELU:
      return x > 0.0 ? x : 0.0;
    default:
      return x;
  }
}

double ulp(double value) {
  const double magnitude = std::fabs(value);
  if (magnitude < 0x1p-126) return 0x1p-149;
  int exponent;
  std::frexp(magnitude, &exponent);
  return std::ldexp(1.0, exponent - 24);
}

// What math.h promises for an FP32 argument, plus the rounding of a BF16 result.
//   gelu_erf: about a dozen roundings, of which exp's 1.1 ulp and the two polynomials' take half; 7.5 ulp.
//   silu: 1.1 ulp of exp, a product, a sum, a quotient, the last difference; 3.5 ulp.
//   gelu_tanh: v = 2 w is three roundings away from its value, and exp multiplies a relative error of v by |v|. That
//   counts for the tail alone, which for positive x is at most |v| exp(-|v|) of the result, below 1.
double tolerance(int32_t activation, double x, double expected, int32_t out_dtype) {
  double bound = 0.0;
  if (activation == GTN_ACT_GELU_ERF) bound = 7.5 * ulp(expected);
  if (activation == GTN_ACT_SILU) bound = 3.5 * ulp(expected);
  if (activation == GTN_ACT_GELU_TANH) {
    bound = 0x1p-148;
    if (expected != 0.0) {
      bound += (7.0 + (x < 0.0 ? 3.0 * std::fabs(twice_w(x)) : 0.0)) * kUnitRoundoffF32 * std::fabs(expected);
    }
  }
  // BF16 has 8 significant bits, so half a step is at most 2^-8 of the value; below the normal range it is 2^-134.
  if (out_dtype == GTN_BF16) bound += 0x1p-8 * (std::fabs(expected) + bound) + 0x1p-134;
  return bound;
}

// True when `got` is what activation(x) may be.
bool right(int32_t activation, float x, float got, int32_t out_dtype) {
  if (std::isnan(x)) return std::isnan(got);
  const double expected = reference(activation, static_cast<double>(x));
  if (std::isinf(expected)) return static_cast<double>(got) == expected;
  // Above the largest BF16 (which only the rounding of the largest floats reaches) lies infinity.
  if (out_dtype == GTN_BF16 && std::fabs(expected) >= 0x1.ffp127)
    return got == static_cast<float>(std::copysign(INFINITY, expected)) || std::fabs(got) >= 0x1.fep127f;
  return std::fabs(static_cast<double>(got) - expected) <=
         tolerance(activation, static_cast<double>(x), expected, out_dtype);
}

struct Problem {
  int32_t activation = GTN_ACT_NONE;
  int32_t x_dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t rows = 1, n = 1;
  int64_t x_stride = 1, out_stride = 1;
  bool bias = false;
  bool in_place = false;

  std::string text() const {
    char line[200];
    std::snprintf(line, sizeof line, "%s x=%s out=%s rows=%lld n=%lld strides=%lld,%lld%s%s", kNames[activation],
                  x_dtype == GTN_F32 ? "f32" : "bf16", out_dtype == GTN_F32 ? "f32" : "bf16",
                  static_cast<long long>(rows), static_cast<long long>(n), static_cast<long long>(x_stride),
                  static_cast<long long>(out_stride), bias ? " bias" : "", in_place ? " in place" : "");
    return line;
  }
};

// Runs on the first `rows` of a plan for `planned` rows. x and out start `kLead` elements into their buffers.
constexpr int64_t kLead = 3;

void run(OpenDevice& on, const Problem& p, int64_t planned, Buffer& x, const std::vector<float>& bias, Buffer& out) {
  Message message;
  gtn_activation_desc desc = {};
  desc.size = sizeof desc;
  desc.activation = p.activation;
  desc.x = tensor(p.x_dtype, {planned, p.n});
  desc.x.strides[0] = p.x_stride;
  desc.out = tensor(p.out_dtype, {planned, p.n});
  desc.out.strides[0] = p.out_stride;
  desc.has_bias = p.bias ? 1 : 0;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_activation_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const char* from = static_cast<const char*>(x.data()) + kLead * Buffer::element_size(p.x_dtype);
  char* to = static_cast<char*>(p.in_place ? x.data() : out.data()) + kLead * Buffer::element_size(p.out_dtype);
  EXPECT_EQ(GTN_OK, gtn_activation_run(plan, on.stream, p.rows, from, p.bias ? bias.data() : nullptr, to))
      << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

int64_t extent(int64_t rows, int64_t n, int64_t stride) {
  return kLead + (rows > 0 ? (rows - 1) * stride + n : 0) + kLead;
}

constexpr float kSentinel = -77.0f;

// One problem on one device, every element checked, and every element around them.
void check(OpenDevice& on, const Problem& p, uint64_t seed, float deviation = 3.0f) {
  std::mt19937_64 random(seed);
  Buffer x(p.x_dtype, extent(p.rows, p.n, p.x_stride));
  x.fill_normal(random, deviation);
  Buffer out(p.out_dtype, extent(p.rows, p.n, p.out_stride));
  out.fill(kSentinel);
  std::vector<float> bias(static_cast<size_t>(p.n));
  for (float& b : bias) b = std::normal_distribution<float>()(random);
  Buffer given = x;
  run(on, p, p.rows + 2, x, bias, out);
  const Buffer& result = p.in_place ? x : out;
  std::vector<bool> written(static_cast<size_t>(result.size()));
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t i = 0; i < p.n; ++i) {
      // The sum with the bias is an FP32 addition by definition.
      float v = given.get(kLead + r * p.x_stride + i);
      if (p.bias) v += bias[static_cast<size_t>(i)];
      const int64_t at = kLead + r * p.out_stride + i;
      written[static_cast<size_t>(at)] = true;
      const float got = result.get(at);
      ASSERT_TRUE(right(p.activation, v, got, p.out_dtype))
          << p.text() << " seed=" << seed << " row " << r << " column " << i << ": of " << v << " got " << got
          << ", expected " << reference(p.activation, static_cast<double>(v));
    }
  }
  for (int64_t i = 0; i < result.size(); ++i) {
    if (written[static_cast<size_t>(i)]) continue;
    const float before = p.in_place ? given.get(i) : kSentinel;
    ASSERT_EQ(before, result.get(i)) << p.text() << " seed=" << seed << ": element " << i
                                     << " of the buffer was written";
  }
  if (!p.in_place) {
    ASSERT_TRUE(given.same_bytes(x)) << p.text() << " seed=" << seed << ": the input was written";
  }
}

TEST(Activation, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Message message;
        gtn_activation_desc desc = {};
        desc.size = sizeof desc;
        desc.activation = activation;
        desc.x = tensor(dtype, {5, 7});
        desc.out = tensor(GTN_F32, {5, 7});
        desc.has_bias = 1;
        gtn_plan plan = 0;
        ASSERT_EQ(GTN_OK, gtn_activation_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        const std::string level = name.substr(name.find(':') + 1);
        const std::string expected =
            "cpu." + level + ".activation." + kNames[activation] + (dtype == GTN_F32 ? ".f32" : ".bf16");
        EXPECT_EQ(expected, info.kernel);
        EXPECT_EQ(GTN_OP_ACTIVATION, info.op);
        EXPECT_EQ(35.0 * (dtype == GTN_F32 ? 8 : 6) + 7 * 4, info.bytes);
        EXPECT_GE(info.flops, 35.0);
        EXPECT_EQ(0, info.workspace_bytes);
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
      }
    }
  }
}

// Runs one long row and checks it.
void sweep(OpenDevice& on, const std::string& device, int32_t activation, Buffer& x, int32_t out_dtype) {
  Problem p;
  p.activation = activation;
  p.x_dtype = x.dtype();
  p.out_dtype = out_dtype;
  p.n = x.size() - 2 * kLead;
  p.x_stride = p.out_stride = p.n;
  Buffer out(out_dtype, x.size());
  run(on, p, 1, x, {}, out);
  int wrong = 0;
  for (int64_t i = kLead; i < kLead + p.n && wrong < 5; ++i) {
    const float v = x.get(i), got = out.get(i);
    if (right(activation, v, got, out_dtype)) continue;
    ++wrong;
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    const double expected = reference(activation, static_cast<double>(v));
    ADD_FAILURE() << device << " " << p.text() << ": of " << v << " (bits " << std::hex << bits << std::dec << ") got "
                  << got << ", expected " << expected << ", off by "
                  << (static_cast<double>(got) - expected) / ulp(expected) << " ulp";
  }
}

// All binades of both signs, NaN and infinity among them: every 4099th bit pattern.
TEST(Activation, EveryBinadeIsWithinTheStatedError) {
  constexpr uint32_t kStep = 4099;
  const int64_t count = static_cast<int64_t>((uint64_t{1} << 32) / kStep);
  Buffer x(GTN_F32, count + 2 * kLead);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(i) * kStep;
    std::memcpy(static_cast<char*>(x.data()) + (i + kLead) * 4, &bits, 4);
  }
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) sweep(on, name, activation, x, GTN_F32);
    sweep(on, name, GTN_ACT_SILU, x, GTN_BF16);
    sweep(on, name, GTN_ACT_NONE, x, GTN_BF16);
  }
}

// Where the functions bend, and where their tails end.
TEST(Activation, DenseRangesAreWithinTheStatedError) {
  struct Range {
    float from, to;
  };
  constexpr Range kRanges[] = {{-1.0f, 1.0f},    {-16.0f, 16.0f},   {-11.0f, -9.0f},
                               {-14.6f, -12.5f}, {-110.0f, -85.0f}, {85.0f, 90.0f}};
  constexpr int64_t kCount = 40000;
  Buffer x(GTN_F32, 6 * kCount + 2 * kLead);
  int64_t at = kLead;
  for (const Range& range : kRanges) {
    for (int64_t i = 0; i < kCount; ++i) {
      x.set(at++, range.from + (range.to - range.from) * static_cast<float>(i) / static_cast<float>(kCount - 1));
    }
  }
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) sweep(on, name, activation, x, GTN_F32);
  }
}

// All 65536 BF16 arguments.
TEST(Activation, EveryBf16IsWithinTheStatedError) {
  Buffer x(GTN_BF16, 65536 + 2 * kLead);
  for (int64_t i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    std::memcpy(static_cast<char*>(x.data()) + (i + kLead) * 2, &bits, 2);
  }
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) {
      sweep(on, name, activation, x, GTN_BF16);
      sweep(on, name, activation, x, GTN_F32);
    }
  }
}

TEST(Activation, InfinitiesZerosAndNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float values[] = {kInfinity, -kInfinity, nan, 0.0f, -0.0f, 3.4e38f, -3.4e38f, 1e-45f, -1e-45f};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) {
      Problem p;
      p.activation = activation;
      p.n = 9;
      Buffer x(GTN_F32, 9 + 2 * kLead), out(GTN_F32, 9 + 2 * kLead);
      for (int64_t i = 0; i < 9; ++i) x.set(kLead + i, values[i]);
      p.x_stride = p.out_stride = 9;
      run(on, p, 1, x, {}, out);
      const bool none = activation == GTN_ACT_NONE;
      EXPECT_EQ(kInfinity, out.get(kLead)) << name << " " << p.text();
      EXPECT_EQ(none ? -kInfinity : 0.0f, out.get(kLead + 1)) << name << " " << p.text();
      EXPECT_TRUE(std::isnan(out.get(kLead + 2))) << name << " " << p.text();
      EXPECT_EQ(0.0f, out.get(kLead + 3)) << name << " " << p.text();
      EXPECT_EQ(0.0f, out.get(kLead + 4)) << name << " " << p.text();
      EXPECT_EQ(3.4e38f, out.get(kLead + 5)) << name << " " << p.text();
      EXPECT_EQ(none ? -3.4e38f : 0.0f, out.get(kLead + 6)) << name << " " << p.text();
      EXPECT_LE(std::fabs(out.get(kLead + 7)), 1.5e-45f) << name << " " << p.text();
      EXPECT_LE(std::fabs(out.get(kLead + 8)), 1.5e-45f) << name << " " << p.text();
    }
  }
}

TEST(Activation, ShapesStridesAndDtypes) {
  const int64_t widths[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 127, 129, 1009, 8191, 8193};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1;
    for (int64_t n : widths) {
      for (int64_t rows : {int64_t{0}, int64_t{1}, int64_t{5}}) {
        for (int32_t x_dtype : {GTN_F32, GTN_BF16}) {
          for (int32_t out_dtype : {GTN_F32, GTN_BF16}) {
            Problem p;
            p.activation = kActivations[seed % 5];
            p.x_dtype = x_dtype;
            p.out_dtype = out_dtype;
            p.rows = rows;
            p.n = n;
            p.x_stride = seed % 3 == 0 ? n : n + 5;
            p.out_stride = seed % 4 == 0 ? n + 2 : n;
            p.bias = seed % 2 == 0;
            check(on, p, seed);
            if (testing::Test::HasFatalFailure()) return;
            ++seed;
          }
        }
      }
    }
  }
}

// Dense rows without a bias are one long row, and a long row is several tasks.
TEST(Activation, DenseAndLongRows) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (bool bias : {false, true}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Problem p;
        p.activation = GTN_ACT_SILU;
        p.x_dtype = p.out_dtype = dtype;
        p.bias = bias;
        p.rows = 2003;
        p.n = p.x_stride = p.out_stride = 13;
        check(on, p, 7);
        p.rows = 2;
        p.n = p.x_stride = p.out_stride = 30011;
        check(on, p, 8);
        p.x_stride = 0;  // one row of input for all rows
        p.rows = 3;
        check(on, p, 9);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(Activation, InPlace) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 100;
    for (int32_t activation : kActivations) {
      for (int64_t n : {1, 7, 8, 9, 17, 33, 100, 131, 9001}) {
        for (int32_t dtype : {GTN_F32, GTN_BF16}) {
          Problem p;
          p.activation = activation;
          p.x_dtype = p.out_dtype = dtype;
          p.rows = 3;
          p.n = n;
          p.x_stride = p.out_stride = n + static_cast<int64_t>(seed % 2) * 3;
          p.bias = seed % 3 == 0;
          p.in_place = true;
          check(on, p, seed++);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Activation, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (bool bias : {false, true}) {
      std::mt19937_64 random(11);
      Problem p;
      p.activation = GTN_ACT_GELU_ERF;
      p.rows = 37;
      p.n = p.x_stride = p.out_stride = 5003;
      p.bias = bias;
      Buffer x(GTN_F32, extent(p.rows, p.n, p.x_stride));
      x.fill_normal(random);
      std::vector<float> b(static_cast<size_t>(p.n), 0.25f);
      Buffer first(GTN_F32, x.size());
      for (int threads = 1; threads <= 3; ++threads) {
        OpenDevice on(name, threads);
        Buffer out(GTN_F32, x.size());
        run(on, p, p.rows, x, b, out);
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
TEST(Activation, LargeResultsAreThoseOfSmallRuns) {
  constexpr int64_t kRows = 1203, kWidth = 4109, kStride = 4112, kFew = 100;
  AlignedFloats x(kRows * kStride), large(kRows * kStride), small(kRows * kStride);
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < kRows * kStride; ++i) x[i] = normal(random);
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 2);
    for (int32_t activation : {GTN_ACT_GELU_ERF, GTN_ACT_GELU_TANH, GTN_ACT_SILU}) {
      Message message;
      gtn_activation_desc desc = {};
      desc.size = sizeof desc;
      desc.activation = activation;
      desc.x = tensor(GTN_F32, {kRows, kWidth});
      desc.x.strides[0] = kStride;
      desc.out = desc.x;
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_activation_plan(on.device, &desc, &plan, &message)) << message.text;
      large.fill(-77.0f);
      small.fill(-77.0f);
      ASSERT_EQ(GTN_OK, gtn_activation_run(plan, on.stream, kRows, x.data(), nullptr, large.data()));
      for (int64_t row = 0; row < kRows; row += kFew) {
        ASSERT_EQ(GTN_OK, gtn_activation_run(plan, on.stream, std::min(kFew, kRows - row), x.data() + row * kStride,
                                             nullptr, small.data() + row * kStride));
      }
      EXPECT_EQ(0, std::memcmp(large.data(), small.data(), kRows * kStride * sizeof(float)))
          << name << " " << activation;
      EXPECT_EQ(-77.0f, large[kWidth]);
      EXPECT_NE(-77.0f, large[kRows * kStride - 4]);
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

}  // namespace
}  // namespace gatun::test
