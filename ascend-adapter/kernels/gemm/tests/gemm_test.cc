// The matrix products on the CPU twin against sums in FP64: sizes around those of the tiles, several schedules, and every
// synchronisation removed in turn. What runs here is the twin, not a processor.
#include "kernels/gemm/tiling.h"
#include "twin/numbers.h"
#include "twin/tests/removals.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

using Entry = void(uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*,
                   uint8_t*);
using RowsEntry = void(uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*);
extern "C" {
RowsEntry gatun_gemm_rows_f32_s8, gatun_gemm_rows_bf16_s8;
Entry gatun_gemm_bf16_f32, gatun_gemm_bf16_bf16, gatun_gemm_s8_f32, gatun_gemm_s8_bf16;
}

namespace gatun::ascend {
namespace {

using twin::launch, twin::Options, twin::Range, twin::Result;

struct Case {
  int64_t m, n, k;
  int32_t activation = 0;
  bool bias = false, residual = false;
  uint32_t blocks = 2;
  int64_t gap = 0;  // of rows of a and out
};

std::string text(const Case& c) {
  return std::to_string(c.m) + " x " + std::to_string(c.n) + " x " + std::to_string(c.k) + ", activation " +
         std::to_string(c.activation) + (c.bias ? ", bias" : "") + (c.residual ? ", residual" : "") + ", " +
         std::to_string(c.blocks) + " blocks";
}

double activated(int32_t activation, double x) {
  switch (activation) {
    case 1:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case 2:
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case 3:
      return x / (1 + std::exp(-x));
    case 4:
      return x > 0 ? x : 0;
    default:
      return x;
  }
}

template <typename T, typename Out>
class Product {
  static constexpr bool kInt8 = std::is_same_v<T, int8_t>;

 public:
  Product(Entry* entry, const Case& c) : entry_(entry), c_(c) {
    std::mt19937 random(static_cast<uint32_t>(c.m * 131 + c.n * 17 + c.k));
    std::normal_distribution<float> normal;
    std::uniform_int_distribution<int> whole(-128, 127);
    const auto value = [&](T& x) {
      if constexpr (kInt8) {
        x = static_cast<T>(whole(random));
      } else {
        x = T(normal(random));
      }
    };
    t_ = {c.m, c.n, c.k, c.k + c.gap, c.k, c.n + c.gap, 0, 0, c.activation, c.bias, c.residual, 0};
    a_.resize(size(c.m * t_.a_stride));
    b_.resize(size(c.n * c.k));
    residual_.resize(size(c.m * t_.out_stride));
    bias_.resize(size(c.n));
    column_scales_.resize(size(c.n));
    column_sums_.resize(size(c.n));
    row_scales_.resize(size(c.m));
    row_zeros_.resize(size(c.m));
    for (T& x : a_) value(x);
    for (T& x : b_) value(x);
    for (float& x : bias_) x = normal(random);
    for (Out& x : residual_) x = Out(normal(random));
    for (float& x : column_scales_) x = std::exp(normal(random)) / 4096;
    for (float& x : row_scales_) x = std::exp(normal(random)) / 4;
    for (int32_t& z : row_zeros_) z = whole(random) + 128;
    for (int64_t j = 0; kInt8 && j < c.n; ++j) {
      for (int64_t l = 0; l < c.k; ++l)
        column_sums_[size(j)] += static_cast<int32_t>(static_cast<float>(b_[size(j * c.k + l)]));
    }
  }

  // Runs it, and says what is wrong with the result.
  std::string run(const Options& options, Result* result = nullptr) {
    if (!gemm_tiling(&t_)) return "refused";
    std::vector<uint8_t> workspace(static_cast<size_t>(gemm_workspace_bytes(c_.blocks)), 0xff);
    std::vector<Out> out(residual_.size(), Out(12345.0f));
    void* args[] = {a_.data(),
                    b_.data(),
                    bias_.data(),
                    residual_.data(),
                    row_scales_.data(),
                    row_zeros_.data(),
                    column_scales_.data(),
                    column_sums_.data(),
                    out.data(),
                    workspace.data(),
                    &t_};
    const Range memory[] = {range(a_),          range(b_),         range(bias_),          range(residual_),
                            range(row_scales_), range(row_zeros_), range(column_scales_), range(column_sums_),
                            range(out),         range(workspace),  {&t_, sizeof t_}};
    const Result r = launch(reinterpret_cast<const void*>(entry_), c_.blocks, args, std::size(args), memory, options);
    if (result) *result = r;
    return r.ok() ? compare(out) : r.error;
  }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }
  template <typename V>
  static Range range(const std::vector<V>& v) {
    return {v.data(), v.size() * sizeof(V)};
  }

  // FP32 sums in any order: at most k roundings of the sum of magnitudes; the epilogue a few more, the result one of its own.
  // S8 sums are exact.
  std::string compare(const std::vector<Out>& out) const {
    const double u = std::ldexp(1.0, -24), unit = std::is_same_v<Out, float> ? u : u * 65536;
    for (int64_t i = 0; i < c_.m; ++i) {
      for (int64_t j = 0; j < t_.out_stride; ++j) {
        const double got = static_cast<float>(out[size(i * t_.out_stride + j)]);
        if (j >= c_.n) {
          if (got != static_cast<float>(Out(12345.0f))) return "wrote beyond the row " + std::to_string(i);
          continue;
        }
        double sum = 0, magnitude = 0;
        for (int64_t l = 0; l < c_.k; ++l) {
          const double x =
              static_cast<double>(static_cast<float>(a_[size(i * t_.a_stride + l)])) + (kInt8 ? 128 - row_zeros_[size(i)] : 0);
          const double p = x * static_cast<double>(static_cast<float>(b_[size(j * c_.k + l)]));
          sum += p;
          magnitude += std::fabs(p);
        }
        if (kInt8) sum *= static_cast<double>(row_scales_[size(i)]) * static_cast<double>(column_scales_[size(j)]);
        double error = kInt8 ? 4 * u * std::fabs(sum) : static_cast<double>(c_.k) * u * magnitude;
        if (c_.bias) sum += static_cast<double>(bias_[size(j)]);
        // Slopes of the activations stay below 1.2; their own error is a few units of what they are of.
        double y = activated(c_.activation, sum);
        error = 1.2 * error + 32 * u * std::fabs(sum);
        if (c_.residual) y += static_cast<double>(static_cast<float>(residual_[size(i * t_.out_stride + j)]));
        error += (unit + u) * (std::fabs(y) + error) + 1e-30;
        if (!(std::fabs(got - y) <= error)) {
          return "row " + std::to_string(i) + ", column " + std::to_string(j) + ": " + std::to_string(got) + " and not " +
                 std::to_string(y) + ", off by " + std::to_string(std::fabs(got - y) / error) + " times what is allowed";
        }
      }
    }
    return "";
  }

  Entry* entry_;
  Case c_;
  GemmTiling t_;
  std::vector<T> a_, b_;
  std::vector<Out> residual_;
  std::vector<float> bias_, column_scales_, row_scales_;
  std::vector<int32_t> column_sums_, row_zeros_;
};

const Case kCases[] = {
    {1, 1, 1},
    {1, 127, 300, 0, true},
    {2, 129, 127, 1, true, true},
    {127, 128, 129, 2, true, false, 1},
    {129, 65, 128, 3, false, true, 3},
    {130, 300, 257, 4, true, true, 2, 3},
    {400, 17, 31, 0, false, false, 1},
};

template <typename T, typename Out>
void expect_right(Entry* entry) {
  for (const Case& c : kCases) {
    Product<T, Out> product(entry, c);
    for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(product.run({seed}), "") << text(c) << ", seed " << seed;
  }
}

TEST(Gemm, Bf16) {
  expect_right<bfloat16_t, float>(gatun_gemm_bf16_f32);
  expect_right<bfloat16_t, bfloat16_t>(gatun_gemm_bf16_bf16);
}
TEST(Gemm, S8) {
  expect_right<int8_t, float>(gatun_gemm_s8_f32);
  expect_right<int8_t, bfloat16_t>(gatun_gemm_s8_bf16);
}

// Rows with their ranges on either side of 0, flat ones, and some that are not finite; every number is exact.
template <typename X>
class Rows {
 public:
  Rows(RowsEntry* entry, int64_t k) : entry_(entry), t_{kRows, k, k + 3, k + 5} {
    std::mt19937 random(static_cast<uint32_t>(k));
    std::normal_distribution<float> normal;
    x_.resize(static_cast<size_t>(kRows * t_.x_stride));
    const auto at = [&](int64_t row, int64_t c) -> X& { return x_[static_cast<size_t>(row * t_.x_stride + c)]; };
    for (X& x : x_) x = X(normal(random));
    for (int64_t c = 0; c < k; ++c) {
      at(1, c) = X(std::fabs(static_cast<float>(at(1, c))) + 1);
      at(2, c) = X(-std::fabs(static_cast<float>(at(2, c))) - 1);
      at(3, c) = X(0.0f);
      at(7, c) = X(static_cast<float>(c % 256) - 100.0f);  // ties everywhere
    }
    at(4, k / 2) = X(NAN);
    at(5, k - 1) = X(-INFINITY);
    at(6, 0) = X(3e38f);  // with the next, the range overflows FP32, or is infinite already
    at(6, k - 1) = X(-3e38f);
  }

  std::string run(const Options& options, Result* result = nullptr) const {
    std::vector<int8_t> to(static_cast<size_t>(kRows * t_.to_stride), 77);
    std::vector<float> scales(kRows, -1.0f);
    std::vector<int32_t> zeros(kRows, -1);
    GemmRowsTiling t = t_;
    void* args[] = {const_cast<X*>(x_.data()), to.data(), scales.data(), zeros.data(), &t};
    const Range memory[] = {{x_.data(), x_.size() * sizeof(X)},
                            {to.data(), to.size()},
                            {scales.data(), kRows * 4},
                            {zeros.data(), kRows * 4},
                            {&t, sizeof t}};
    const Result r = launch(reinterpret_cast<const void*>(entry_), 3, args, std::size(args), memory, options);
    if (result) *result = r;
    if (!r.ok()) return r.error;
    for (int64_t i = 0; i < kRows; ++i) {
      float low = 0, high = 0;
      bool whole = true;
      const auto x = [&](int64_t c) { return static_cast<float>(x_[static_cast<size_t>(i * t_.x_stride + c)]); };
      for (int64_t c = 0; c < t_.k; ++c) {
        low = std::min(low, x(c));
        high = std::max(high, x(c));
        whole = whole && std::isfinite(x(c));
      }
      whole = whole && std::isfinite(high - low);
      const float s = (high - low) / 255.0f;
      const bool flat = !whole || s == 0;
      const int32_t z = flat ? 0 : static_cast<int32_t>(std::nearbyint(-low / s));
      const std::string row = "row " + std::to_string(i);
      if (whole ? scales[static_cast<size_t>(i)] != s : !std::isnan(scales[static_cast<size_t>(i)]))
        return row + ": wrong scale";
      if (zeros[static_cast<size_t>(i)] != z) return row + ": wrong zero point";
      for (int64_t c = 0; c < t_.to_stride; ++c) {
        const int q = flat ? 0 : std::clamp(static_cast<int>(std::nearbyint(x(std::min(c, t_.k - 1)) / s)) + z, 0, 255);
        if (to[static_cast<size_t>(i * t_.to_stride + c)] != (c < t_.k ? q - 128 : 77))
          return row + ", column " + std::to_string(c);
      }
    }
    return "";
  }

 private:
  static constexpr int64_t kRows = 8;
  RowsEntry* entry_;
  GemmRowsTiling t_;
  std::vector<X> x_;
};

TEST(GemmRows, Quantizes) {
  for (int64_t k : {2, 31, 64, 1000, 4096, 4097, 9000}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      EXPECT_EQ(Rows<float>(gatun_gemm_rows_f32_s8, k).run({seed}), "") << k;
      EXPECT_EQ(Rows<bfloat16_t>(gatun_gemm_rows_bf16_s8, k).run({seed}), "") << k;
    }
  }
}

TEST(GemmRows, EverySiteMatters) {
  twin::expect_sites_matter(
      {[rows = Rows<float>(gatun_gemm_rows_f32_s8, 9000)](const Options& o, Result* r) { return rows.run(o, r); },
       [rows = Rows<float>(gatun_gemm_rows_f32_s8, 100)](const Options& o, Result* r) { return rows.run(o, r); }},
      30);
}

TEST(Gemm, RefusesWhatItCannotTake) {
  EXPECT_EQ((Product<bfloat16_t, float>(gatun_gemm_bf16_f32, {2, 2, 65536}).run({})), "refused");
  GemmTiling t = {};
  t.m = t.n = t.k = t.a_stride = t.b_stride = 2;
  t.out_stride = int64_t{1} << 30;
  EXPECT_FALSE(gemm_tiling(&t));
  t.out_stride -= 1;
  EXPECT_TRUE(gemm_tiling(&t));
}

template <typename T, typename Out>
twin::Run run_of(Entry* entry, const Case& c) {
  return [product = Product<T, Out>(entry, c)](const Options& options, Result* result) mutable {
    return product.run(options, result);
  };
}

TEST(Gemm, EverySiteMatters) {
  twin::expect_sites_matter({run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {300, 140, 300, 3, true, true, 1}),
                             run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {300, 140, 300, 1, false, true, 1}),
                             run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {130, 128, 130, 1, false, false, 1}),
                             run_of<int8_t, float>(gatun_gemm_s8_f32, {300, 140, 600, 3, true, true, 1}),
                             run_of<int8_t, float>(gatun_gemm_s8_f32, {130, 128, 256, 0, false, false, 1})},
                            60);
}

}  // namespace
}  // namespace gatun::ascend
