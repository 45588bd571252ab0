// BF16 and F16 in memory (cpu/simd.h) at every level of this machine: widening of all bit patterns, and rounding
// against what a definition by search finds.
#include "half_levels.h"

#include <algorithm>

#include "cpu/built_levels.h"
#include "device_test.h"

namespace gatun::cpu {
#define GATUN_DECLARE_LEVEL(level, vectors, tiles) \
  namespace level {                \
  extern const gatun::test::HalfLevel half_level; \
  }
GATUN_BUILT_LEVELS(GATUN_DECLARE_LEVEL)
}  // namespace gatun::cpu

namespace gatun::test {
namespace {

const HalfLevel* level_of(const std::string& device) {
#define GATUN_IS_IT(level, vectors, tiles) \
  if (device == "cpu:" #level) return &cpu::level::half_level;
  GATUN_BUILT_LEVELS(GATUN_IS_IT)
#undef GATUN_IS_IT
  return nullptr;
}

// A 16-bit float: bits of fraction, and the bias of the exponent.
struct Format {
  const char* name;
  int fraction, bias;
  const HalfLevel::Type& (*of)(const HalfLevel&);
};

const Format kFormats[] = {
    {"bf16", 7, 127, [](const HalfLevel& level) -> const HalfLevel::Type& { return level.bf16; }},
    {"f16", 10, 15, [](const HalfLevel& level) -> const HalfLevel::Type& { return level.f16; }},
};

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t infinity(const Format& format) { return 0x7fffu >> format.fraction << format.fraction; }

// What a pattern that is no NaN stands for; the pattern of infinity for the next power of two, as rounding has it.
double value_of(const Format& format, uint32_t bits) {
  const int exponent = static_cast<int>((bits & 0x7fffu) >> format.fraction);
  const double fraction = static_cast<double>(bits & ((1u << format.fraction) - 1));
  const double unit = std::ldexp(1.0, (exponent == 0 ? 1 : exponent) - format.bias - format.fraction);
  const double magnitude = (fraction + (exponent == 0 ? 0.0 : std::ldexp(1.0, format.fraction))) * unit;
  return (bits & 0x8000u) != 0 ? -magnitude : magnitude;
}

// The nearest of all patterns, the even one of two; NaN gives `infinity` and a fraction.
uint32_t nearest(const Format& format, float value) {
  const uint32_t sign = bits_of(value) >> 16 & 0x8000u;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(value)) return sign | infinity(format);
  uint32_t low = 0, high = infinity(format);
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (value_of(format, middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - value_of(format, low), above = value_of(format, high) - magnitude;
  return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

TEST(Half, EveryPatternWidens) {
  std::vector<uint16_t> x(65536);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i);
  for (const std::string& device : cpu_devices()) {
    const HalfLevel* level = level_of(device);
    ASSERT_NE(nullptr, level) << device;
    for (const Format& format : kFormats) {
      const HalfLevel::Type& type = format.of(*level);
      for (HalfLevel::Widen widen : {type.load, type.to_float, type.load_some}) {
        std::vector<float> out(x.size());
        widen(x.data(), out.data(), static_cast<int64_t>(x.size()));
        for (uint32_t i = 0; i < 65536; ++i) {
          const uint32_t got = bits_of(out[i]);
          if ((i & 0x7fffu) > infinity(format)) {
            // The sign stays and the fraction moves up whole; as in F16C, a signalling NaN of F16 becomes quiet.
            const uint32_t moved = (i & 0x8000u) << 16 | 0x7f800000u | (i << (23 - format.fraction) & 0x7fffffu);
            const uint32_t expected = format.fraction == 10 ? moved | 0x400000u : moved;
            ASSERT_EQ(expected, got) << device << " " << format.name << " " << i;
          } else if ((i & 0x7fffu) == infinity(format)) {
            ASSERT_EQ((i & 0x8000u) << 16 | 0x7f800000u, got) << device << " " << format.name << " " << i;
          } else {
            const uint32_t expected = bits_of(static_cast<float>(value_of(format, i)));
            ASSERT_EQ(expected, got) << device << " " << format.name << " " << i;
          }
        }
      }
    }
  }
}

// Every value of the format, the ties between neighbours, the floats around both, the subnormal and overflowing ends,
// NaN, and random patterns.
std::vector<float> arguments(const Format& format) {
  std::vector<float> x;
  const auto around = [&x](double value) {
    const uint32_t bits = bits_of(static_cast<float>(value));
    for (uint32_t near : {bits - 1, bits, bits + 1}) {
      if ((near & 0x7fffffffu) <= 0x7f800000u) {
        x.push_back(float_of(near));
        x.push_back(-float_of(near));
      }
    }
  };
  for (uint32_t i = 0; i < infinity(format); ++i) {
    around(value_of(format, i));
    const double tie = (value_of(format, i) + value_of(format, i + 1)) / 2;
    if (static_cast<double>(static_cast<float>(tie)) == tie) around(tie);
  }
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) x.push_back(float_of(static_cast<uint32_t>(random())));
  for (uint32_t bits :
       {0x7f800000u, 0xff800000u, 0x7f7fffffu, 0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu, 1u}) {
    x.push_back(float_of(bits));
  }
  while (x.size() % 64 != 0) x.push_back(1.0f);
  return x;
}

TEST(Half, StoresRoundToNearestWithTiesToEven) {
  for (const Format& format : kFormats) {
    const std::vector<float> x = arguments(format);
    std::vector<uint32_t> expected;
    for (float value : x) expected.push_back(std::isnan(value) ? 0 : nearest(format, value));
    for (const std::string& device : cpu_devices()) {
      const HalfLevel* level = level_of(device);
      ASSERT_NE(nullptr, level) << device;
      const HalfLevel::Type& type = format.of(*level);
      for (HalfLevel::Narrow narrow : {type.store, type.from_float, type.store_some}) {
        std::vector<uint16_t> out(x.size());
        narrow(x.data(), out.data(), static_cast<int64_t>(x.size()));
        for (size_t i = 0; i < x.size(); ++i) {
          if (std::isnan(x[i])) {
            const uint32_t quiet = infinity(format) | 1u << (format.fraction - 1);
            ASSERT_EQ(quiet, out[i] & quiet) << device << " " << format.name << " of bits " << bits_of(x[i]);
            ASSERT_EQ(bits_of(x[i]) >> 16 & 0x8000u, out[i] & 0x8000u) << device << " " << format.name;
          } else {
            ASSERT_EQ(expected[i], out[i]) << device << " " << format.name << " of " << x[i];
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace gatun::test
