// The elementary functions of gpu/math.h against double precision, with the bounds of its head. They are the same operations on
// every device: what the compiler of a GPU makes of them is a matter of FMA, which is only where written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gpu/gpu.h"

namespace gatun::gpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double ulp(double value) {
  const double magnitude = std::fabs(value);
  if (magnitude < 0x1p-126) return 0x1p-149;
  int exponent;
  std::frexp(magnitude, &exponent);
  return std::ldexp(1.0, exponent - 24);
}

// Every 4099th bit pattern, then 200000 numbers of -20 to 20, then the ends.
const std::vector<float>& arguments() {
  static const std::vector<float> all = [] {
    std::vector<float> x;
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) {
      const uint32_t pattern = static_cast<uint32_t>(bits);
      float value;
      std::memcpy(&value, &pattern, sizeof value);
      x.push_back(value);
    }
    for (int i = 0; i <= 200000; ++i) x.push_back(static_cast<float>(i - 100000) * 2e-4f);
    for (float end : {kInfinity, -kInfinity, 0.0f, -0.0f, 88.722839f, 88.72284f, -87.33655f, -103.97208f, -103.97209f, 127.99999f,
                      128.0f, -149.0f, -149.5f, -150.0f, 1e-45f, -1e-45f, 0.999999940f, 1.00000012f}) {
      x.push_back(end);
    }
    return x;
  }();
  return all;
}

using Allowed = double (*)(double x, double expected);

template <typename Function>
void check(const char* name, Function function, double (*reference)(double), Allowed allowed) {
  int wrong = 0;
  for (const float x : arguments()) {
    const double got = static_cast<double>(function(x));
    const double expected = reference(static_cast<double>(x));
    bool right;
    if (std::isnan(expected)) {
      right = std::isnan(got);
    } else if (std::isinf(expected) || std::fabs(expected) >= 0x1.ffffffp127) {
      right = got == std::copysign(static_cast<double>(kInfinity), expected);
    } else {
      right = std::fabs(got - expected) <= allowed(static_cast<double>(x), expected);
      // The largest half step before infinity may go either way.
      if (std::fabs(expected) >= 0x1.fffffep127) right = right || std::isinf(got);
    }
    if (right) continue;
    ADD_FAILURE() << name << "(" << x << ") is " << got << ", expected " << expected;
    if (++wrong == 5) return;
  }
}

template <int kTenths>
double ulps(double, double expected) {
  return kTenths / 10.0 * ulp(expected);
}

double normal(double x) { return std::erfc(-x * std::sqrt(0.5)) / 2; }
double tanh_argument(double x) { return 2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); }

TEST(GpuMath, EveryBinadeIsWithinTheStatedError) {
  check("exp", [](float x) { return exp(x); }, [](double x) { return std::exp(x); }, ulps<12>);
  check("exp_nonpositive", [](float x) { return exp_nonpositive(x > 0.0f ? -x : x); },
        [](double x) { return std::exp(x > 0 ? -x : x); }, ulps<12>);
  check("exp2", [](float x) { return exp2(x); }, [](double x) { return std::exp2(x); }, ulps<12>);
  check("log", [](float x) { return log(x); }, [](double x) { return std::log(x); }, ulps<20>);
  check("tanh", [](float x) { return tanh(x); }, [](double x) { return std::tanh(x); }, ulps<26>);
  check("sigmoid", [](float x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, ulps<23>);
  check("erf", [](float x) { return erf(x); }, [](double x) { return std::erf(x); }, ulps<23>);
  check("relu", [](float x) { return relu(x); }, [](double x) { return x < 0 ? 0 : x; }, ulps<0>);
  check("gelu_erf", [](float x) { return gelu_erf(x); },
        [](double x) { return std::isinf(x) ? (x > 0 ? x : 0) : x * normal(x); }, ulps<75>);
  check("silu", [](float x) { return silu(x); },
        [](double x) { return std::isinf(x) ? (x > 0 ? x : 0) : x / (1 + std::exp(-x)); }, ulps<35>);
  check("gelu_tanh", [](float x) { return gelu_tanh(x); },
        [](double x) { return std::isinf(x) ? (x > 0 ? x : 0) : x / (1 + std::exp(-tanh_argument(x))); },
        [](double x, double expected) {
          const double v = std::isinf(x) ? 0 : std::fmin(0.0, tanh_argument(x));
          return std::fabs(expected) * (7 + 3 * std::fabs(v)) * 0x1p-24 + 0x1p-149;
        });
}

TEST(GpuMath, ExactPlaces) {
  EXPECT_EQ(1.0f, exp(0.0f));
  EXPECT_EQ(0.0f, exp(-kInfinity));
  EXPECT_EQ(kInfinity, exp(kInfinity));
  EXPECT_EQ(0x1p-149f, exp2(-149.0f));
  EXPECT_EQ(8.0f, exp2(3.0f));
  EXPECT_EQ(0.0f, log(1.0f));
  EXPECT_EQ(-kInfinity, log(0.0f));
  EXPECT_TRUE(std::signbit(tanh(-0.0f)));
  EXPECT_EQ(-1.0f, erf(-kInfinity));
}

// What the hardware's own is documented to keep to; the model's is the same or better.
TEST(GpuMath, ApproximateExp2) {
  for (float x = -126.0f; x <= 127.0f; x += 0.001f) {
    const double expected = std::exp2(static_cast<double>(x));
    ASSERT_LE(std::fabs(static_cast<double>(exp2_approx(x)) - expected), 2 * ulp(expected)) << x;
  }
}

}  // namespace
}  // namespace gatun::gpu
