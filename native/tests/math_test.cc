// exp, tanh, the sigmoid and erf of cpu/math.h at every level of this machine, against double precision.
#include "cpu/built_levels.h"
#include "device_test.h"
#include "math_levels.h"

namespace gatun::cpu {
#define GATUN_DECLARE_LEVEL(level, vectors, tiles) \
  namespace level {                \
  extern const gatun::test::MathLevel math_level; \
  }
GATUN_BUILT_LEVELS(GATUN_DECLARE_LEVEL)
}  // namespace gatun::cpu

namespace gatun::test {
namespace {

const MathLevel* level_of(const std::string& device) {
#define GATUN_IS_IT(level, vectors, tiles) \
  if (device == "cpu:" #level) return &cpu::level::math_level;
  GATUN_BUILT_LEVELS(GATUN_IS_IT)
#undef GATUN_IS_IT
  return nullptr;
}

double ulp(double value) {
  const double magnitude = std::fabs(value);
  if (magnitude < 0x1p-126) return 0x1p-149;
  int exponent;
  std::frexp(magnitude, &exponent);
  return std::ldexp(1.0, exponent - 24);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Every 4099th bit pattern, then 200000 numbers of -20 to 20, then the ends.
std::vector<float> arguments() {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) {
    const uint32_t pattern = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &pattern, sizeof value);
    x.push_back(value);
  }
  for (int i = 0; i <= 200000; ++i) x.push_back(static_cast<float>(i - 100000) * 2e-4f);
  for (float end : {kInfinity, -kInfinity, 0.0f, -0.0f, 88.722839f, 88.72284f, -87.33655f, -103.97208f, -103.97209f,
                    1e-45f, -1e-45f}) {
    x.push_back(end);
  }
  while (x.size() % 64 != 0) x.push_back(1.0f);
  return x;
}

void check(const std::string& device, const char* name, MathLevel::Function function, double (*reference)(double),
           double bound, bool nonpositive_only) {
  std::vector<float> x = arguments();
  if (nonpositive_only) {
    for (float& v : x) v = v > 0.0f ? -v : v;
  }
  std::vector<float> out(x.size());
  function(x.data(), out.data(), static_cast<int64_t>(x.size()));
  int wrong = 0;
  for (size_t i = 0; i < x.size() && wrong < 5; ++i) {
    const double got = static_cast<double>(out[i]);
    bool right;
    if (std::isnan(x[i])) {
      right = std::isnan(got);
    } else {
      const double expected = reference(static_cast<double>(x[i]));
      // Beyond the largest float lies infinity; the largest half step before it may go either way.
      if (expected >= 0x1.ffffffp127) {
        right = got == static_cast<double>(kInfinity);
      } else {
        right = std::fabs(got - expected) <= bound * ulp(expected) && std::signbit(got) == std::signbit(expected);
        if (expected >= 0x1.fffffep127) right = right || got == static_cast<double>(kInfinity);
      }
    }
    if (right) continue;
    ++wrong;
    ADD_FAILURE() << device << " " << name << "(" << x[i] << ") is " << got << ", expected "
                  << reference(static_cast<double>(x[i]));
  }
}

double exp_of(double x) { return std::exp(x); }
double tanh_of(double x) { return std::tanh(x); }
double sigmoid_of(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double erf_of(double x) { return std::erf(x); }

// The bounds are those of the head of math.h.
TEST(Math, EveryBinadeIsWithinTheStatedError) {
  for (const std::string& device : cpu_devices()) {
    const MathLevel* level = level_of(device);
    ASSERT_NE(nullptr, level) << device;
    check(device, "exp", level->exp, exp_of, 1.2, false);
    check(device, "exp_nonpositive", level->exp_nonpositive, exp_of, 1.2, true);
    check(device, "tanh", level->tanh, tanh_of, 2.6, false);
    check(device, "sigmoid", level->sigmoid, sigmoid_of, 2.3, false);
    check(device, "erf", level->erf, erf_of, 2.3, false);
  }
}

TEST(Math, ExactPlaces) {
  for (const std::string& device : cpu_devices()) {
    const MathLevel* level = level_of(device);
    ASSERT_NE(nullptr, level) << device;
    std::vector<float> x(64, 0.0f), out(64);
    x[1] = -0.0f;
    x[2] = -kInfinity;
    x[3] = kInfinity;
    level->exp(x.data(), out.data(), 64);
    EXPECT_EQ(1.0f, out[0]) << device;
    EXPECT_EQ(1.0f, out[1]) << device;
    EXPECT_EQ(0.0f, out[2]) << device;
    EXPECT_EQ(kInfinity, out[3]) << device;
    level->tanh(x.data(), out.data(), 64);
    EXPECT_EQ(-1.0f, out[2]) << device;
    EXPECT_EQ(1.0f, out[3]) << device;
    level->sigmoid(x.data(), out.data(), 64);
    EXPECT_EQ(0.5f, out[0]) << device;
    EXPECT_EQ(0.5f, out[1]) << device;
    EXPECT_EQ(0.0f, out[2]) << device;
    EXPECT_EQ(1.0f, out[3]) << device;
    level->erf(x.data(), out.data(), 64);
    EXPECT_EQ(-1.0f, out[2]) << device;
    EXPECT_EQ(1.0f, out[3]) << device;
  }
}

}  // namespace
}  // namespace gatun::test
