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

using Entry = void();  // of as many addresses as the kernel has, as the twin calls it
extern "C" {
Entry gatun_rows_f32_s8, gatun_rows_bf16_s8, gatun_rows_f16_s8, gatun_rows_bf16_f32, gatun_rows_f32_bf16, gatun_rows_u8_bf16, gatun_thin_bf16;
Entry gatun_gemm_bf16_f32, gatun_gemm_bf16_bf16, gatun_gemm_f16_f32, gatun_gemm_f16_f16, gatun_gemm_s8_f32, gatun_gemm_s8_bf16;
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
  std::vector<int64_t> offsets = {};  // of groups of rows
  bool addend = false;
  bool scales = false;  // of columns; S8 always has them
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
    t_ = {};
    t_.m = c.m, t_.n = c.n, t_.k = c.k;
    t_.a_terms = t_.b_terms = 1;
    t_.a_stride = c.k + c.gap, t_.b_stride = c.k, t_.out_stride = c.n + c.gap;
    t_.groups = c.offsets.empty() ? 0 : static_cast<int64_t>(c.offsets.size()) - 1;
    t_.activation = c.activation, t_.has_bias = c.bias, t_.has_residual = c.residual, t_.has_addend = c.addend, t_.has_scales = c.scales;
    const int64_t columns = c.n * std::max<int64_t>(t_.groups, 1);
    addend_.resize(size(c.m * c.n));
    for (float& x : addend_) x = normal(random);
    a_.resize(size(c.m * t_.a_stride));
    b_.resize(size(columns * c.k));
    residual_.resize(size(c.m * t_.out_stride));
    bias_.resize(size(columns));
    column_scales_.resize(size(columns));
    column_sums_.resize(size(columns));
    row_scales_.resize(size(c.m));
    row_zeros_.resize(size(c.m));
    for (T& x : a_) value(x);
    for (T& x : b_) value(x);
    for (float& x : bias_) x = normal(random);
    for (Out& x : residual_) x = Out(normal(random));
    for (float& x : column_scales_) x = std::exp(normal(random)) / 4096;
    for (float& x : row_scales_) x = std::exp(normal(random)) / 4;
    for (int32_t& z : row_zeros_) z = whole(random) + 128;
    for (int64_t j = 0; kInt8 && j < columns; ++j) {
      for (int64_t l = 0; l < c.k; ++l)
        column_sums_[size(j)] += static_cast<int32_t>(static_cast<float>(b_[size(j * c.k + l)]));
    }
  }

  // Runs it, and says what is wrong with the result.
  std::string run(const Options& options, Result* result = nullptr) {
    if (!gemm_tiling(&t_)) return "refused";
    std::vector<uint8_t> workspace(static_cast<size_t>(gemm_workspace_bytes(c_.blocks)), 0xff);
    std::vector<Out> out(residual_.size(), Out(12345.0f));
    void* args[] = {a_.data(),           b_.data(),         c_.offsets.data(), addend_.data(),        bias_.data(),
                    residual_.data(),    row_scales_.data(), row_zeros_.data(), nullptr,               column_scales_.data(),
                    column_sums_.data(), out.data(),        workspace.data(),  &t_};
    const Range memory[] = {range(a_),          range(b_),         range(bias_),          range(residual_),    range(c_.offsets),
                            range(row_scales_), range(row_zeros_), range(column_scales_), range(column_sums_), range(addend_),
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
    int64_t group = 0;
    for (int64_t i = 0; i < c_.m; ++i) {
      while (t_.groups > 0 && group < t_.groups && i >= c_.offsets[size(group + 1)]) ++group;
      const int64_t first = group * c_.n;
      const bool there = t_.groups == 0 || group < t_.groups;
      for (int64_t j = 0; j < t_.out_stride; ++j) {
        const double got = static_cast<float>(out[size(i * t_.out_stride + j)]);
        if (j >= c_.n || !there) {
          if (got != static_cast<float>(Out(12345.0f))) return "wrote beyond the row " + std::to_string(i);
          continue;
        }
        double sum = 0, magnitude = 0;
        for (int64_t l = 0; l < c_.k; ++l) {
          const double x =
              static_cast<double>(static_cast<float>(a_[size(i * t_.a_stride + l)])) + (kInt8 ? 128 - row_zeros_[size(i)] : 0);
          const double p = x * static_cast<double>(static_cast<float>(b_[size((first + j) * c_.k + l)]));
          sum += p;
          magnitude += std::fabs(p);
        }
        if (kInt8) sum *= static_cast<double>(row_scales_[size(i)]) * static_cast<double>(column_scales_[size(first + j)]);
        double error = kInt8 ? 4 * u * std::fabs(sum) : static_cast<double>(c_.k) * u * magnitude;
        if (!kInt8 && c_.scales) {
          sum *= static_cast<double>(column_scales_[size(first + j)]);
          error = error * static_cast<double>(column_scales_[size(first + j)]) + u * std::fabs(sum);
        }
        if (c_.addend) sum += static_cast<double>(addend_[size(i * c_.n + j)]);
        if (c_.bias) sum += static_cast<double>(bias_[size(first + j)]);
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
  std::vector<float> addend_, bias_, column_scales_, row_scales_;
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
    {300, 130, 40, 0, true, false, 2, 0, {0, 5, 5, 140, 290}},
    {150, 130, 40, 3, true, true, 2, 0, {}, true},
    {150, 130, 40, 3, true, true, 2, 0, {}, true, true},
    {70, 128, 0, 1, true, true, 2, 0, {}, false, true},
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
TEST(Gemm, F16) {
  expect_right<half, float>(gatun_gemm_f16_f32);
  expect_right<half, half>(gatun_gemm_f16_f16);
}
TEST(Gemm, S8) {
  expect_right<int8_t, float>(gatun_gemm_s8_f32);
  expect_right<int8_t, bfloat16_t>(gatun_gemm_s8_bf16);
}

// Rows with their ranges on either side of 0, flat ones, and some that are not finite; every number is exact.
template <typename X>
class Rows {
 public:
  Rows(Entry* entry, int64_t k) : entry_(entry), t_{kRows, k, k + 3, k + 5, kRows, 0, 0, 0, 1} {
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
    void* args[] = {const_cast<X*>(x_.data()), nullptr, to.data(), scales.data(), zeros.data(), &t};
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
  Entry* entry_;
  GemmRowsTiling t_;
  std::vector<X> x_;
};

TEST(GemmRows, Quantizes) {
  for (int64_t k : {2, 31, 64, 1000, 4096, 4097, 9000}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      EXPECT_EQ(Rows<float>(gatun_rows_f32_s8, k).run({seed}), "") << k;
      EXPECT_EQ(Rows<bfloat16_t>(gatun_rows_bf16_s8, k).run({seed}), "") << k;
      EXPECT_EQ(Rows<half>(gatun_rows_f16_s8, k).run({seed}), "") << k;
    }
  }
}

// Rows by number, to FP32: exact.
class Converted {
 public:
  std::string run(const Options& options, Result* result) const {
    std::vector<bfloat16_t> x(static_cast<size_t>(kRowsX * kK));
    for (size_t i = 0; i < x.size(); ++i) x[i] = bfloat16_t(static_cast<float>(i % 251));
    std::vector<int32_t> index = {3, 0, -7, 1, 99, 2, 2};
    std::vector<float> to(index.size() * kK);
    GemmRowsTiling t = {static_cast<int64_t>(index.size()), kK, kK, kK, kRowsX, 0, 0, 1, 1};
    void* args[] = {x.data(), index.data(), to.data(), &t};
    const Range memory[] = {{x.data(), x.size() * 2}, {index.data(), index.size() * 4}, {to.data(), to.size() * 4}, {&t, sizeof t}};
    const Result r = launch(reinterpret_cast<const void*>(gatun_rows_bf16_f32), 2, args, std::size(args), memory, options);
    if (result) *result = r;
    if (!r.ok()) return r.error;
    for (size_t i = 0; i < to.size(); ++i) {
      const int64_t row = std::clamp<int64_t>(index[i / kK], 0, kRowsX - 1);
      if (to[i] != static_cast<float>(x[static_cast<size_t>(row * kK) + i % kK])) return "element " + std::to_string(i);
    }
    return "";
  }

 private:
  static constexpr int64_t kRowsX = 4, kK = 4500;
};

TEST(GemmRows, ConvertsByNumber) {
  for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(Converted().run({seed}, nullptr), "");
}

// Products of small integers: exact.
class Thin {
 public:
  Thin(int64_t m, int64_t n, int64_t k) : t_{m, n, k, k + 3, n + 2, n + 1, 0.5f, 0} {}

  std::string run(const Options& options, Result* result) const {
    std::vector<bfloat16_t> a(static_cast<size_t>(t_.m * t_.a_stride));
    std::vector<float> b(static_cast<size_t>(t_.k * t_.b_stride)), out(static_cast<size_t>(t_.m * t_.out_stride), 77.0f);
    for (size_t i = 0; i < a.size(); ++i) a[i] = bfloat16_t(static_cast<float>(static_cast<int>(i * 7 % 15) - 7));
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(static_cast<int>(i * 5 % 13) - 6);
    ThinTiling t = t_;
    void* args[] = {a.data(), b.data(), out.data(), &t};
    const Range memory[] = {{a.data(), a.size() * 2}, {b.data(), b.size() * 4}, {out.data(), out.size() * 4}, {&t, sizeof t}};
    const Result r = launch(reinterpret_cast<const void*>(gatun_thin_bf16), 2, args, std::size(args), memory, options);
    if (result) *result = r;
    if (!r.ok()) return r.error;
    for (int64_t i = 0; i < t.m; ++i) {
      for (int64_t j = 0; j < t.out_stride; ++j) {
        float sum = 0;
        for (int64_t l = 0; l < t.k && j < t.n; ++l)
          sum += static_cast<float>(a[static_cast<size_t>(i * t.a_stride + l)]) * b[static_cast<size_t>(l * t.b_stride + j)];
        if (out[static_cast<size_t>(i * t.out_stride + j)] != (j < t.n ? sum / 2 : 77.0f))
          return "row " + std::to_string(i) + ", column " + std::to_string(j);
      }
    }
    return "";
  }

 private:
  ThinTiling t_;
};

TEST(ThinProduct, IsRight) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT_EQ(Thin(1, 1, 1).run({seed}, nullptr), "");
    EXPECT_EQ(Thin(19, 260, 70).run({seed}, nullptr), "");
    EXPECT_EQ(Thin(9, 16, 200).run({seed}, nullptr), "");
  }
}

// Rows as terms: their sum is the element, exactly, and what is not finite is the first of them.
class Terms {
 public:
  std::string run(const Options& options, Result* result) const {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(kRows * kK));
    for (float& e : x) e = normal(random);
    x[3] = INFINITY, x[4] = -INFINITY, x[5] = NAN, x[6] = 0;
    std::vector<bfloat16_t> to(x.size() * 3);
    GemmRowsTiling t = {kRows, kK, kK, 3 * kK, kRows, kK, 0, 0, 3};
    void* args[] = {x.data(), nullptr, to.data(), &t};
    const Range memory[] = {{x.data(), x.size() * 4}, {to.data(), to.size() * 2}, {&t, sizeof t}};
    const Result r = launch(reinterpret_cast<const void*>(gatun_rows_f32_bf16), 2, args, std::size(args), memory, options);
    if (result) *result = r;
    if (!r.ok()) return r.error;
    for (size_t i = 0; i < x.size(); ++i) {
      double sum = 0;
      for (size_t term = 3; term-- > 0;) {
        const float of = static_cast<float>(to[(i / kK * 3 + term) * kK + i % kK]);
        if (term > 0 && !std::isfinite(of)) return "term " + std::to_string(term) + " of element " + std::to_string(i);
        sum += static_cast<double>(of);
      }
      if (std::isnan(x[i]) ? !std::isnan(sum) : sum != static_cast<double>(x[i])) return "element " + std::to_string(i);
    }
    return "";
  }

 private:
  static constexpr int64_t kRows = 3, kK = 4500;
};

// Columns of weights in groups, as terms whose sum is the FP32 product.
class Groups {
 public:
  std::string run(const Options& options, Result* result) const {
    std::mt19937 random(1);
    std::vector<uint8_t> x(static_cast<size_t>(kRows * kK));
    std::vector<float> scales(static_cast<size_t>(kRows * kGroups)), zeros(scales.size());
    for (uint8_t& e : x) e = static_cast<uint8_t>(random());
    for (float& e : scales) e = std::ldexp(static_cast<float>(random() % 16777216), -30);
    for (float& e : zeros) e = static_cast<float>(random() % 256);
    std::vector<bfloat16_t> to(x.size() * 3);
    GemmRowsTiling t = {kRows, kK, kK, kK, kRows, kRows * kK, kSize, 0, 3};
    void* args[] = {x.data(), to.data(), scales.data(), zeros.data(), &t};
    const Range memory[] = {{x.data(), x.size()},          {to.data(), to.size() * 2}, {scales.data(), scales.size() * 4},
                            {zeros.data(), zeros.size() * 4}, {&t, sizeof t}};
    const Result r = launch(reinterpret_cast<const void*>(gatun_rows_u8_bf16), 2, args, std::size(args), memory, options);
    if (result) *result = r;
    if (!r.ok()) return r.error;
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t group = i / kK * kGroups + i % kK / kSize;
      const float expected = (static_cast<float>(x[i]) - zeros[group]) * scales[group];
      float sum = 0;
      for (size_t term = 3; term-- > 0;) sum += static_cast<float>(to[term * x.size() + i]);
      if (sum != expected) return "element " + std::to_string(i);
    }
    return "";
  }

 private:
  static constexpr int64_t kRows = 3, kK = 4200, kSize = 32, kGroups = (kK + kSize - 1) / kSize;
};

TEST(Rows, Terms) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT_EQ(Terms().run({seed}, nullptr), "");
    EXPECT_EQ(Groups().run({seed}, nullptr), "");
  }
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

// All together: the barriers that instructions of kernels/vector.h bring along need not matter to each kernel.
TEST(Gemm, EverySiteMatters) {
  twin::expect_sites_matter(
      {run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {300, 140, 300, 3, true, true, 1}),
       run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {300, 140, 300, 1, false, true, 1}),
       run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {130, 128, 130, 1, false, false, 1}),
       run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {130, 130, 130, 0, true, false, 1, 0, {}, true}),
       run_of<bfloat16_t, float>(gatun_gemm_bf16_f32, {130, 130, 0, 1, true, true, 1}),
       run_of<int8_t, float>(gatun_gemm_s8_f32, {300, 140, 600, 3, true, true, 1}),
       run_of<int8_t, float>(gatun_gemm_s8_f32, {130, 128, 256, 0, false, false, 1}),
       [rows = Rows<float>(gatun_rows_f32_s8, 9000)](const Options& o, Result* r) { return rows.run(o, r); },
       [rows = Rows<float>(gatun_rows_f32_s8, 100)](const Options& o, Result* r) { return rows.run(o, r); },
       [](const Options& o, Result* r) { return Converted().run(o, r); },
       [](const Options& o, Result* r) { return Terms().run(o, r); },
       [](const Options& o, Result* r) { return Groups().run(o, r); },
       [](const Options& o, Result* r) { return Thin(19, 260, 70).run(o, r); },
       [](const Options& o, Result* r) { return Thin(9, 16, 200).run(o, r); }},
      110);
}

}  // namespace
}  // namespace gatun::ascend
