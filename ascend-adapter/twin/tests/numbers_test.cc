// The conversions of numbers.h against what the formats say, value by value.
#include "twin/numbers.h"

#include <gtest/gtest.h>

namespace gatun::twin {
namespace {

TEST(Numbers, HalvesComeBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float x = half_value(static_cast<uint16_t>(h));
    if (std::isnan(x)) continue;
    EXPECT_EQ(half_bits(x), h);
    EXPECT_EQ(half_bits(x, Rounding::Odd), h);
  }
}

// The short way to the nearest against the one by doubles that all modes share.
TEST(Numbers, HalvesRoundToTheNearest) {
  for (uint32_t u = 0x33000000; u < 0x47900000; u += 997) {
    const float x = float_of(u), y = -float_of(u & ~uint32_t{0xfff});
    EXPECT_EQ(static_cast<double>(half_value(half_bits(x))),
              std::fabs(x) < 65520 ? round_float(x, 10, -14, Rounding::Rint) : INFINITY);
    EXPECT_EQ(static_cast<double>(half_value(half_bits(y))),
              std::fabs(y) < 65520 ? round_float(y, 10, -14, Rounding::Rint) : -INFINITY);
  }
}

TEST(Numbers, HalvesRound) {
  EXPECT_EQ(half_bits(65519.0f), 0x7bff);
  EXPECT_EQ(half_bits(65520.0f), 0x7c00);
  EXPECT_EQ(half_bits(2049.0f), half_bits(2048.0f));  // ties to even
  EXPECT_EQ(half_bits(2051.0f), half_bits(2052.0f));
  EXPECT_EQ(half_bits(2051.0f, Rounding::Floor), half_bits(2050.0f));
  EXPECT_EQ(half_bits(-2051.0f, Rounding::Floor), half_bits(-2052.0f));
  EXPECT_EQ(half_bits(2049.0f, Rounding::Ceil), half_bits(2050.0f));
  EXPECT_EQ(half_bits(2049.0f, Rounding::Round), half_bits(2050.0f));
  EXPECT_EQ(half_bits(-2049.0f, Rounding::Trunc), half_bits(-2048.0f));
  EXPECT_EQ(half_bits(2048.5f, Rounding::Odd), half_bits(2050.0f));
  EXPECT_EQ(half_bits(std::ldexp(1.0f, -25)), 0);  // half of the least, to even
  EXPECT_EQ(half_bits(std::ldexp(1.5f, -25)), 1);
}

TEST(Numbers, Bfloat16Rounds) {
  EXPECT_EQ(bfloat16_bits(1.00390625f), 0x3f80);  // 1 + 2^-8, to even
  EXPECT_EQ(bfloat16_bits(1.01171875f), 0x3f82);  // 1 + 3 * 2^-8
  EXPECT_EQ(bfloat16_bits(1.00390625f, Rounding::Ceil), 0x3f81);
  EXPECT_EQ(bfloat16_bits(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bfloat16_value(bfloat16_bits(float_of(0x7f800001)))));
  for (uint32_t u = 1; u < 0x7f800000; u += 977) {
    const float x = float_of(u);
    EXPECT_EQ(bfloat16_value(bfloat16_bits(x)), static_cast<float>(round_float(x, 7, -126, Rounding::Rint))) << u;
  }
}

TEST(Numbers, IntegersSaturate) {
  EXPECT_EQ(saturate<int8_t>(127.5, Rounding::Rint), 127);
  EXPECT_EQ(saturate<int8_t>(-300, Rounding::Rint), -128);
  EXPECT_EQ(saturate<int8_t>(2.5, Rounding::Rint), 2);
  EXPECT_EQ(saturate<int8_t>(2.5, Rounding::Round), 3);
  EXPECT_EQ(saturate<int8_t>(std::nan(""), Rounding::Rint), 0);
  EXPECT_EQ(saturate<int32_t>(3e9, Rounding::Trunc), 2147483647);
}

// CANN documentation, as measured: bits 0 to 12 of a scale do not count.
TEST(Numbers, FixpipeScalesKeepTenBits) {
  EXPECT_EQ(fixpipe_scale(0x3f801fff), 1.0f);
  EXPECT_EQ(fixpipe_scale(0x3f802000), 1.0f + std::ldexp(1.0f, -10));
}

}  // namespace
}  // namespace gatun::twin
