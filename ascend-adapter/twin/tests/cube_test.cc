// The cube core on the twin: layouts against plain loops, and its faults.
#include "twin/numbers.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

using Kernel = void(uint8_t*, uint8_t*, uint8_t*, uint8_t*);
extern "C" {
Kernel twin_cube_bf16, twin_cube_f16, twin_cube_s8, twin_cube_s8_f16, twin_cross;
}

namespace gatun::twin {
namespace {

struct Shape {
  int32_t fault, m, n, k, transposed;
};

template <typename T, typename Out>
Result product(Kernel* kernel, Shape shape, const Options& options, std::vector<T>& a, std::vector<T>& b, std::vector<Out>& c) {
  a.resize(static_cast<size_t>(shape.m * shape.k));
  b.resize(static_cast<size_t>(shape.n * shape.k));
  c.resize(static_cast<size_t>(shape.m * shape.n));
  for (size_t i = 0; i < a.size(); ++i) a[i] = T(static_cast<float>(static_cast<int>(i * 7 % 13) - 6));
  for (size_t i = 0; i < b.size(); ++i) b[i] = T(static_cast<float>(static_cast<int>(i * 5 % 11) - 5));
  void* args[] = {a.data(), b.data(), c.data(), &shape};
  const Range memory[] = {
      {a.data(), a.size() * sizeof(T)}, {b.data(), b.size() * sizeof(T)}, {c.data(), c.size() * sizeof(Out)}};
  return launch(reinterpret_cast<const void*>(kernel), 1, args, 4, memory, options);
}

// Small integers: every sum is exact.
template <typename T, typename Out>
void expect_products(Kernel* kernel, bool transposes, float scale = 1) {
  const int32_t sizes[][3] = {{16, 16, 32}, {2, 1, 1}, {17, 33, 31}, {48, 16, 65}, {33, 47, 16}};
  for (const auto& size : sizes) {
    for (int32_t transposed = 0; transposed <= (transposes ? 1 : 0); ++transposed) {
      const Shape s = {0, size[0], size[1], size[2], transposed};
      std::vector<T> a, b;
      std::vector<Out> c;
      for (uint64_t seed = 0; seed < 4; ++seed) {
        ASSERT_EQ(product(kernel, s, {seed}, a, b, c).error, "") << s.m << ' ' << s.n << ' ' << s.k;
        for (int32_t i = 0; i < s.m; ++i) {
          for (int32_t j = 0; j < s.n; ++j) {
            float sum = 0;
            for (int32_t l = 0; l < s.k; ++l) {
              sum += static_cast<float>(a[static_cast<size_t>(i * s.k + l)]) *
                     static_cast<float>(b[static_cast<size_t>(transposed ? l * s.n + j : j * s.k + l)]);
            }
            ASSERT_EQ(static_cast<float>(c[static_cast<size_t>(i * s.n + j)]), sum * scale)
                << i << ' ' << j << " of " << s.m << ' ' << s.n << ' ' << s.k;
          }
        }
      }
    }
  }
}

TEST(Cube, Products) {
  expect_products<bfloat16_t, float>(twin_cube_bf16, true);
  expect_products<half, half>(twin_cube_f16, true);
  expect_products<int8_t, int32_t>(twin_cube_s8, false);
  expect_products<int8_t, half>(twin_cube_s8_f16, false, 0.25f);
}

TEST(Cube, Faults) {
  const std::pair<int32_t, const char*> faults[] = {{1, "InitBuffer: 66560 bytes, where 65536"},
                                                    {2, "not a multiple of 512"},
                                                    {4, "one row makes a product of a vector"},
                                                    {5, "which nothing has defined"},
                                                    {6, "not a multiple of 1024"},
                                                    {7, "nothing orders the two"},
                                                    {8, "srcStride is that of L0C"},
                                                    {9, "quantPre does not lead"},
                                                    {10, "cube cores have no pipe V"}};
  std::vector<bfloat16_t> a, b;
  std::vector<float> c;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (const auto& [fault, message] : faults) {
      const std::string error = product(twin_cube_bf16, {fault, 17, 33, 31, 0}, {seed}, a, b, c).error;
      EXPECT_NE(error.find(message), std::string::npos) << "fault " << fault << ": " << error;
    }
  }
  std::vector<int8_t> a8, b8;
  std::vector<int32_t> c8;
  EXPECT_NE(product(twin_cube_s8, {3, 16, 16, 32, 0}, {}, a8, b8, c8).error.find("transposes 16-bit data alone"),
            std::string::npos);
}

TEST(Cube, EverySiteMatters) {
  std::vector<bfloat16_t> a, b;
  std::vector<float> c;
  const Shape s = {0, 17, 33, 31, 0};
  const Result whole = product(twin_cube_bf16, s, {}, a, b, c);
  ASSERT_EQ(whole.sites.size(), 6u);
  for (const Site& site : whole.sites) {
    for (Removal removal : {Removal::Deleted, Removal::Weakened}) {
      for (uint64_t seed = 0; seed < 8; ++seed) {
        EXPECT_NE(product(twin_cube_bf16, s, {seed, &site, removal}, a, b, c).error, "") << site.line;
      }
    }
  }
}

Result cross(int32_t fault, const Options& options, std::vector<float>& out) {
  std::vector<float> in(1024);
  out.assign(1024, 0);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  Shape shape = {fault, 0, 0, 0, 0};
  void* args[] = {in.data(), out.data(), nullptr, &shape};
  const Range memory[] = {{in.data(), 4096}, {out.data(), 4096}};
  return launch(reinterpret_cast<const void*>(twin_cross), 2, args, 4, memory, options);
}

TEST(CrossCore, Flags) {
  std::vector<float> out;
  Result whole;
  for (uint64_t seed = 0; seed < 16; ++seed) {
    whole = cross(0, {seed}, out);
    EXPECT_EQ(whole.error, "");
    for (size_t i = 0; i < 128; ++i) EXPECT_EQ(out[i], 2.0f * static_cast<float>(i));
  }
  const std::pair<int32_t, const char*> faults[] = {{1, "flag 1 still counts"},  {2, "counts beyond 15"},
                                                    {3, "waits for flag 3"},     {4, "and not PIPE_S"},
                                                    {5, "mode 3 is not one of"}, {6, "flag 12 is not one of"}};
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (const auto& [fault, message] : faults) {
      const std::string error = cross(fault, {seed}, out).error;
      EXPECT_NE(error.find(message), std::string::npos) << "fault " << fault << ": " << error;
    }
    for (const Site& site : whole.sites) {
      for (Removal removal : {Removal::Deleted, Removal::Weakened}) {
        EXPECT_NE(cross(0, {seed, &site, removal}, out).error, "") << site.call << ' ' << site.line << " seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace gatun::twin
