// Gated activations against double precision: values, shapes, strides, halves of one matrix, aliasing, dtypes, thread counts
// and what is special. The activations themselves are swept in activation_test.cc.
#include "device_test.h"

#include <cstdio>

namespace gatun::test {
namespace {

constexpr int32_t kActivations[] = {GTN_ACT_NONE, GTN_ACT_GELU_ERF, GTN_ACT_GELU_TANH, GTN_ACT_SILU, GTN_ACT_RELU};
constexpr int32_t kDtypes[] = {GTN_F32, GTN_BF16, GTN_F16};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};
constexpr const char* kTypes[] = {"", "f32", "bf16", "f16"};
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

double activated(int32_t activation, double g) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return g * 0.5 * std::erfc(-g * std::sqrt(0.5));
    case GTN_ACT_GELU_TANH:
      return g / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g)));
    case GTN_ACT_SILU:
      return g / (1.0 + std::exp(-g));
    case GTN_ACT_RELU:
      return g > 0.0 ? g : 0.0;
    default:
      return g;
  }
}

// Units in the last place that cpu/math.h promises of an activation: 7.5, 7 + 3 |v| and 3.5; then the product's rounding and
// that of the output. A unit in the last place is at most two unit roundoffs.
double tolerance(int32_t activation, double g, double x, int32_t out_dtype) {
  const double exact = std::fabs(activated(activation, g) * x);
  double units = 0.0;
  if (activation == GTN_ACT_GELU_ERF) units = 7.5;
  if (activation == GTN_ACT_SILU) units = 3.5;
  if (activation == GTN_ACT_GELU_TANH) units = 7.0 + 3.0 * std::fabs(2.0 * (g + 0.044715 * g * g * g));
  const double computed = exact * (2.0 * units + 1.0) * kUnitRoundoffF32 + 0x1p-149 * (1.0 + std::fabs(x));
  const double rounded = out_dtype == GTN_F32 ? 0.0 : out_dtype == GTN_BF16 ? 0x1p-8 : 0x1p-11;
  return computed + rounded * (exact + computed) + (out_dtype == GTN_F16 ? 0x1p-25 : 0x1p-134);
}

struct Problem {
  int32_t activation = GTN_ACT_SILU, dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t rows = 1, n = 1;
  int64_t gate_gap = 0, x_gap = 0, out_gap = 0;  // elements between rows
  bool halves = false;                           // gate and x are those of one matrix, gate the first

  std::string text() const {
    char line[200];
    std::snprintf(line, sizeof line, "%s %s->%s rows=%lld n=%lld gaps=%lld,%lld,%lld%s", kNames[activation], kTypes[dtype],
                  kTypes[out_dtype], static_cast<long long>(rows), static_cast<long long>(n),
                  static_cast<long long>(gate_gap), static_cast<long long>(x_gap), static_cast<long long>(out_gap),
                  halves ? " halves" : "");
    return line;
  }
};

// The operands of a problem, with a sentinel in every gap of the output.
constexpr float kSentinel = -77.0f;

struct Operands {
  explicit Operands(const Problem& p)
      : gate_stride(p.halves ? 2 * p.n + p.gate_gap : p.n + p.gate_gap),
        x_stride(p.halves ? gate_stride : p.n + p.x_gap),
        out_stride(p.n + p.out_gap),
        gate(p.dtype, p.rows * gate_stride),
        x(p.dtype, p.halves ? 0 : p.rows * x_stride),
        out(p.out_dtype, p.rows * out_stride) {
    out.fill(kSentinel);
  }

  Buffer& second(const Problem& p) { return p.halves ? gate : x; }

  int64_t gate_stride, x_stride, out_stride;
  Buffer gate, x, out;
};

gtn_glu_desc description(const Problem& p, const Operands& operands, int64_t planned) {
  gtn_glu_desc desc = {};
  desc.size = sizeof desc;
  desc.activation = p.activation;
  desc.gate = tensor(p.dtype, {planned, p.n}, operands.gate_stride);
  desc.x = tensor(p.dtype, {planned, p.n}, operands.x_stride);
  desc.out = tensor(p.out_dtype, {planned, p.n}, operands.out_stride);
  return desc;
}

// out = null: the operands' own.
void run(OpenDevice& on, const Problem& p, Operands& operands, void* out = nullptr) {
  Message message;
  const gtn_glu_desc desc = description(p, operands, p.rows + 2);
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_glu_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  char* gate = static_cast<char*>(operands.gate.data());
  void* x = p.halves ? gate + p.n * Buffer::element_size(p.dtype) : operands.x.data();
  EXPECT_EQ(GTN_OK, gtn_glu_run(plan, on.stream, p.rows, gate, x, out == nullptr ? operands.out.data() : out))
      << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

float gate_of(const Operands& operands, int64_t r, int64_t i) { return operands.gate.get(r * operands.gate_stride + i); }

float x_of(const Problem& p, const Operands& operands, int64_t r, int64_t i) {
  return p.halves ? operands.gate.get(r * operands.gate_stride + p.n + i) : operands.x.get(r * operands.x_stride + i);
}

void expect_right(const Problem& p, const Operands& given, const Buffer& out, int64_t stride, const std::string& device) {
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t i = 0; i < stride && r * stride + i < out.size(); ++i) {
      const double got = static_cast<double>(out.get(r * stride + i));
      if (i >= p.n) {
        ASSERT_EQ(static_cast<double>(kSentinel), got) << device << ": " << p.text() << ": wrote beyond row " << r;
        continue;
      }
      const double g = static_cast<double>(gate_of(given, r, i)), x = static_cast<double>(x_of(p, given, r, i));
      ASSERT_LE(std::fabs(got - activated(p.activation, g) * x), tolerance(p.activation, g, x, p.out_dtype))
          << device << ": " << p.text() << " row " << r << " column " << i << ": of " << g << " and " << x << " got " << got;
    }
  }
}

void check(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed) {
  std::mt19937_64 random(seed);
  Operands operands(p);
  operands.gate.fill_normal(random, 3.0f);
  operands.x.fill_normal(random);
  run(on, p, operands);
  expect_right(p, operands, operands.out, operands.out_stride, device);
}

TEST(Glu, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) {
      for (int32_t dtype : kDtypes) {
        Problem p;
        p.activation = activation;
        p.dtype = dtype;
        p.rows = 3;
        p.n = 7;
        Message message;
        const gtn_glu_desc desc = description(p, Operands(p), 5);
        gtn_plan plan = 0;
        ASSERT_EQ(GTN_OK, gtn_glu_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        EXPECT_EQ("cpu." + name.substr(name.find(':') + 1) + ".glu." + kNames[activation] + "." + kTypes[dtype],
                  std::string(info.kernel));
        EXPECT_EQ(GTN_OP_GLU, info.op);
        EXPECT_EQ(35.0 * (dtype == GTN_F32 ? 12 : 8), info.bytes);
        EXPECT_GE(info.flops, 35.0);
        EXPECT_EQ(0, info.workspace_bytes);
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
      }
    }
  }
}

TEST(Glu, ShapesStridesAndDtypes) {
  uint64_t seed = 1;
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t activation : kActivations) {
      for (int32_t dtype : kDtypes) {
        for (int32_t out_dtype : kDtypes) {
          for (int64_t n : {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130}) {
            Problem p;
            p.activation = activation;
            p.dtype = dtype;
            p.out_dtype = out_dtype;
            p.rows = 1 + static_cast<int64_t>(seed % 4);
            p.n = n;
            p.halves = seed % 3 == 0;
            p.gate_gap = seed % 2 == 0 ? 5 : 0;
            p.x_gap = seed / 2 % 2 == 0 ? 3 : 0;
            p.out_gap = seed / 4 % 2 == 0 ? 2 : 0;
            ASSERT_NO_FATAL_FAILURE(check(on, name, p, seed++));
          }
        }
      }
    }
  }
}

// Pieces of long rows, many short rows, and what goes past the caches.
TEST(Glu, LongRowsAndManyRows) {
  struct Shape {
    int64_t rows, n, out_gap;
  };
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (const Shape& shape : {Shape{1, 20001, 0}, {3, 8200, 3}, {700, 33, 0}, {1000, 3, 1}}) {
      for (int32_t dtype : kDtypes) {
        Problem p;
        p.dtype = p.out_dtype = dtype;
        p.rows = shape.rows;
        p.n = shape.n;
        p.out_gap = shape.out_gap;
        ASSERT_NO_FATAL_FAILURE(check(on, name, p, 99));
      }
    }
  }
}

TEST(Glu, TheOutputMayTakeThePlaceOfEither) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t dtype : kDtypes) {
      for (int64_t n : {5, 16, 77, 200}) {
        for (bool second : {false, true}) {
          for (bool halves : {false, true}) {
            Problem p;
            p.dtype = p.out_dtype = dtype;
            p.rows = 3;
            p.n = n;
            p.halves = halves;
            p.out_gap = halves ? n : 0;
            std::mt19937_64 random(7);
            Operands operands(p);
            operands.gate.fill_normal(random);
            operands.x.fill_normal(random);
            Operands given = operands;
            Buffer& place = second ? operands.second(p) : operands.gate;
            const int64_t skip = halves && second ? n : 0;
            run(on, p, operands, static_cast<char*>(place.data()) + skip * Buffer::element_size(dtype));
            run(on, p, given);
            for (int64_t r = 0; r < p.rows; ++r) {
              for (int64_t i = 0; i < n; ++i) {
                const float got = place.get(r * operands.out_stride + skip + i);
                ASSERT_EQ(given.out.get(r * operands.out_stride + i), got) << name << ": " << p.text() << " in place";
              }
            }
          }
        }
      }
    }
  }
}

TEST(Glu, InfinitiesAndNan) {
  struct Special {
    int32_t activation;
    float gate, x, expected;
  };
  const Special specials[] = {
      {GTN_ACT_SILU, kNan, 1.0f, kNan},          {GTN_ACT_SILU, 1.0f, kNan, kNan},
      {GTN_ACT_SILU, kInfinity, 2.0f, kInfinity}, {GTN_ACT_SILU, kInfinity, -2.0f, -kInfinity},
      {GTN_ACT_SILU, 0.0f, kInfinity, kNan},      {GTN_ACT_RELU, -3.0f, kInfinity, kNan},
      {GTN_ACT_RELU, 3.0f, -kInfinity, -kInfinity}, {GTN_ACT_RELU, kNan, 0.0f, kNan},
      {GTN_ACT_GELU_ERF, kInfinity, 1.0f, kInfinity}, {GTN_ACT_GELU_TANH, kNan, 0.0f, kNan},
      {GTN_ACT_NONE, kInfinity, 0.0f, kNan},      {GTN_ACT_NONE, -2.0f, kInfinity, -kInfinity},
      {GTN_ACT_SILU, -kInfinity, 5.0f, 0.0f},     {GTN_ACT_GELU_ERF, -kInfinity, 5.0f, 0.0f}};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (const Special& special : specials) {
      for (int64_t n : {1, 40}) {
        Problem p;
        p.activation = special.activation;
        p.n = n;
        Operands operands(p);
        operands.gate.fill(1.5f);
        operands.x.fill(2.0f);
        operands.gate.set(n / 2, special.gate);
        operands.x.set(n / 2, special.x);
        run(on, p, operands);
        for (int64_t i = 0; i < n; ++i) {
          const float got = operands.out.get(i);
          if (i != n / 2) {
            EXPECT_TRUE(std::isfinite(got)) << name << ": " << p.text() << " spreads to column " << i;
          } else if (std::isnan(special.expected)) {
            EXPECT_TRUE(std::isnan(got)) << name << ": " << p.text() << " got " << got;
          } else {
            EXPECT_EQ(special.expected, got) << name << ": " << p.text();
          }
        }
      }
    }
  }
}

TEST(Glu, ThreadsDoNotChangeBits) {
  Problem p;
  p.rows = 37;
  p.n = 1003;
  std::mt19937_64 random(3);
  Operands operands(p);
  operands.gate.fill_normal(random);
  operands.x.fill_normal(random);
  for (const std::string& name : cpu_devices()) {
    OpenDevice one(name, 1);
    run(one, p, operands);
    const Buffer expected = operands.out;
    for (int threads : {2, 3, 7}) {
      OpenDevice several(name, threads);
      operands.out.fill(kSentinel);
      run(several, p, operands);
      EXPECT_TRUE(expected.same_bytes(operands.out)) << name << " with " << threads << " threads";
    }
  }
}

// Results that go past the caches have the bits of those that stay in them.
TEST(Glu, LargeResultsAreThoseOfSmallRuns) {
  constexpr int64_t kRows = 2600, kN = 4096;
  AlignedFloats gate(kRows * kN), x(kRows * kN), out(kRows * kN), some(4 * kN);
  std::mt19937_64 random(11);
  for (int64_t i = 0; i < 8 * kN; ++i) gate[i] = std::normal_distribution<float>()(random);
  for (int64_t i = 8 * kN; i < kRows * kN; ++i) gate[i] = gate[i % (7 * kN)];
  for (int64_t i = 0; i < kRows * kN; ++i) x[i] = gate[(i + 31) % (6 * kN)];
  gtn_glu_desc desc = {};
  desc.size = sizeof desc;
  desc.activation = GTN_ACT_SILU;
  desc.gate = desc.x = desc.out = tensor(GTN_F32, {kRows, kN});
  for (const std::string& name : cpu_devices()) {
    if (name == "cpu:scalar") continue;  // slow, and without such stores of its own
    OpenDevice on(name);
    Message message;
    gtn_plan plan = 0;
    ASSERT_EQ(GTN_OK, gtn_glu_plan(on.device, &desc, &plan, &message)) << message.text;
    out.fill(kSentinel);
    ASSERT_EQ(GTN_OK, gtn_glu_run(plan, on.stream, kRows, gate.data(), x.data(), out.data())) << on.message();
    for (int64_t r = 0; r < kRows; r += 4) {
      ASSERT_EQ(GTN_OK, gtn_glu_run(plan, on.stream, 4, gate.data() + r * kN, x.data() + r * kN, some.data()));
      ASSERT_EQ(0, std::memcmp(some.data(), out.data() + r * kN, sizeof(float) * 4 * kN)) << name << " from row " << r;
    }
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  }
}

}  // namespace
}  // namespace gatun::test
