// The vector unit's instructions against plain loops, as CANN's documentation describes them for Atlas A2.
#include "twin/numbers.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

extern "C" void twin_vector(uint8_t*, uint8_t*, uint8_t*);

namespace gatun::twin {
namespace {

using Floats = std::vector<float>;

struct Inputs {
  Floats a = Floats(256), b = Floats(256);  // b is positive
  Inputs() {
    for (size_t i = 0; i < 256; ++i) {
      a[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) * 0.3125f + 0.01f;
      b[i] = static_cast<float>(i * 11 % 23 + 1) * 0.75f;
    }
  }
};

Floats run(int32_t which, std::string* error = nullptr) {
  const Inputs x;
  Floats in = x.a, out(256, -1);
  in.insert(in.end(), x.b.begin(), x.b.end());
  void* args[] = {in.data(), out.data(), &which};
  const Range memory[] = {{in.data(), in.size() * 4}, {out.data(), out.size() * 4}};
  const Result r = launch(reinterpret_cast<const void*>(twin_vector), 1, args, 3, memory);
  if (error != nullptr) {
    *error = r.error;
  } else {
    EXPECT_EQ(r.error, "") << "instruction " << which;
  }
  return out;
}

TEST(Vector, Instructions) {
  const Inputs x;
  const Floats &a = x.a, &b = x.b;
  // What element i becomes; those after the count stay 0.
  struct Elementwise {
    int32_t which;
    std::function<float(size_t)> f;
  };
  const Elementwise elementwise[] = {
      {0, [&](size_t i) { return a[i] + b[i]; }},
      {1, [&](size_t i) { return a[i] - b[i]; }},
      {2, [&](size_t i) { return a[i] * b[i]; }},
      {3, [&](size_t i) { return a[i] / b[i]; }},
      {4, [&](size_t i) { return std::max(a[i], b[i]); }},
      {5, [&](size_t i) { return std::min(a[i], b[i]); }},
      {6, [&](size_t i) { return a[i] + 1.5f; }},
      {7, [&](size_t i) { return a[i] * 1.5f; }},
      {8, [&](size_t i) { return std::max(a[i], 1.5f); }},
      {9, [&](size_t i) { return std::min(a[i], 1.5f); }},
      {10, [&](size_t i) { return std::exp(a[i]); }},
      {11, [&](size_t i) { return std::log(b[i]); }},
      {12, [&](size_t i) { return std::fabs(a[i]); }},
      {13, [&](size_t i) { return std::sqrt(b[i]); }},
      {14, [&](size_t i) { return a[i] > 0 ? a[i] : 0; }},
      {15, [&](size_t) { return 2.5f; }},
      {24, [&](size_t i) { return static_cast<float>(i) - 3; }},
      {27, [&](size_t i) { return half_value(half_bits(a[i])); }},
      {28, [&](size_t i) { return bfloat16_value(bfloat16_bits(a[i])); }},
      {29, [&](size_t i) { return std::floor(a[i]); }},
      {30, [&](size_t i) { return std::round(half_value(half_bits(a[i]))); }},
      {31, [&](size_t i) { return std::trunc(a[i]); }},
  };
  for (const auto& [which, f] : elementwise) {
    const Floats out = run(which);
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(out[i], i < 250 ? f(i) : 0) << "instruction " << which << ", element " << i;
  }
}

TEST(Vector, Repeats) {
  const Inputs x;
  const Floats &a = x.a, &b = x.b;
  Floats expected(256);
  for (size_t r = 0; r < 2; ++r) {
    for (size_t i = 0; i < 24; ++i) expected[r * 128 + i] = a[r * 64 + i / 8 * 16 + i % 8] - b[i];
  }
  EXPECT_EQ(run(16), expected);

  expected.assign(256, 0);
  for (size_t r = 0; r < 3; ++r) {
    for (size_t i = 0; i < 50; ++i) expected[r * 64 + i] = a[r * 64 + i] * 2;
  }
  EXPECT_EQ(run(17), expected);

  for (size_t i = 0; i < 256; ++i) expected[i] = a[i] + b[i / 64 * 8 + i % 8];
  EXPECT_EQ(run(18), expected);
}

TEST(Vector, Reductions) {
  const Floats a = Inputs().a;
  const auto sum = [&](size_t first, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; ++i) s += static_cast<double>(a[first + i]);
    return s;
  };
  const Floats sums = run(19);
  for (size_t r = 0; r < 3; ++r) {
    EXPECT_NEAR(static_cast<double>(sums[2 * r]), sum(64 * r, 40), 1e-4);
    EXPECT_EQ(sums[2 * r + 1], 0);
  }
  const Floats greatest = run(20);
  EXPECT_EQ(greatest[0], *std::max_element(a.begin(), a.begin() + 64));
  EXPECT_EQ(greatest[1], *std::max_element(a.begin() + 128, a.begin() + 192));
  EXPECT_NEAR(static_cast<double>(run(21)[0]), sum(0, 250), 1e-3);
  EXPECT_EQ(run(22)[0], *std::max_element(a.begin(), a.begin() + 250));
}

// ReduceMax keeps an index of each repeat's value, and so needs twice the work buffer of ReduceSum.
TEST(Vector, WorkOfReductions) {
  run(32);
  std::string error;
  run(33, &error);
  EXPECT_NE(error.find("ReduceMax"), std::string::npos) << error;
  EXPECT_NE(error.find("of a tensor of 32 bytes in UB"), std::string::npos) << error;
  const Floats left = run(34);
  for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(left[i])) << i;
}

TEST(Vector, Rearrangements) {
  const Inputs x;
  Floats expected(256);
  for (size_t i = 0; i < 256; ++i) expected[i] = x.a[i / 8];
  EXPECT_EQ(run(23), expected);

  expected.assign(256, 0);
  for (size_t i = 0; i < 192; ++i) expected[i] = x.a[i] >= 0.25f ? x.b[i] : -7;
  EXPECT_EQ(run(25), expected);

  expected.assign(256, 0);
  for (size_t i = 0; i < 60; ++i) expected[i] = x.a[1 + 2 * i];
  EXPECT_EQ(run(26), expected);

  expected.assign(256, 0);
  for (size_t r = 0; r < 4; ++r) {
    float* const row = expected.data() + 16 * r;
    row[0] = row[6] = row[7] = 9;
    for (size_t i = 0; i < 5; ++i) row[1 + i] = x.a[8 * r + i];
  }
  EXPECT_EQ(run(99), expected);
}

}  // namespace
}  // namespace gatun::twin
