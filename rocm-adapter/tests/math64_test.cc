// The functions of gpu/math64.h beside those of the C library in long double.
#define GPU_DEVICE inline
#include "gpu/math64.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace gatun::gpu {
namespace {

double units_off(double got, long double expected) {
  const double near = std::fabs(static_cast<double>(expected));
  return static_cast<double>(std::fabs(static_cast<long double>(got) - expected) /
                             static_cast<long double>(std::nextafter(near, INFINITY) - near));
}

TEST(Math64, IsWithinAFewUnits) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> part(0, 1);
  double log = 0, log_1 = 0, acos = 0, expm1 = 0;
  for (int i = 0; i < 500000; ++i) {
    const double x = std::exp((part(random) - 0.5) * 300);
    log = std::fmax(log, units_off(math64::logarithm(x), std::log(static_cast<long double>(x))));
    const double small = i % 2 == 0 ? -part(random) * 0.999999 : std::exp((part(random) - 0.9) * 30) * (i % 4 == 1 ? 1 : -1e-3);
    if (small > -0.999999) {
      log_1 = std::fmax(log_1, units_off(math64::log_1_plus(small), std::log1p(static_cast<long double>(small))));
    }
    const double c = i % 3 == 0 ? 1 - std::exp(-part(random) * 30) : i % 3 == 1 ? 2 * part(random) - 1 : -1 + part(random) * 1e-6;
    acos = std::fmax(acos, units_off(math64::arc_cosine(c), std::acos(static_cast<long double>(c))));
    const double negative = -std::exp((part(random) - 0.8) * 30);
    if (negative > -600) {
      expm1 = std::fmax(expm1, units_off(math64::exp_less_1(negative), std::expm1(static_cast<long double>(negative))));
    }
  }
  EXPECT_LT(log, 8);
  EXPECT_LT(log_1, 8);
  EXPECT_LT(acos, 8);
  EXPECT_LT(expm1, 8);
  EXPECT_EQ(math64::arc_cosine(1.0), 0.0);
  EXPECT_EQ(math64::exp_less_1(-1000.0), -1.0);
  EXPECT_EQ(math64::logarithm(0.0), -INFINITY);
  EXPECT_TRUE(std::isnan(math64::logarithm(-1.0)));
}

}  // namespace
}  // namespace gatun::gpu
