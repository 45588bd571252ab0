// GEMM with further arrays, on every level. Grouped and gathered products must have the bits of plain products of the same
// rows, which gemm_test holds to references; what low rank adds is held to an FP64 reference here.
#include <algorithm>
#include <cfloat>
#include <numeric>

#include "device_test.h"

namespace gatun::test {
namespace {

const int32_t kFormats[] = {GTN_F32, GTN_BF16, GTN_F16, GTN_S8, GTN_F8E4M3, GTN_F8E5M2};
const float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kSentinel = -7776.0f;  // exact in BF16 too

struct Case {
  int64_t m = 1, k = 1, n = 1;  // m: rows of out
  int32_t format = GTN_F32;
  int32_t a_dtype = GTN_F32, w_dtype = GTN_F32, out_dtype = GTN_F32;
  int32_t activation = GTN_ACT_NONE;
  bool bias = false, residual = false, in_place = false, transposed = false;
  int64_t a_gap = 0, out_gap = 0;
  uint64_t seed = 1;
  std::vector<int64_t> sizes;  // of the groups; empty: one matrix
  std::vector<int32_t> index;  // rows of a; empty: in order
  int64_t rows_a = 0;          // with index
  int64_t rank = 0;
  int32_t lora_dtype = GTN_F32;
  float scale = 0.75f;

  int64_t groups() const { return static_cast<int64_t>(sizes.size()); }
  int64_t matrices() const { return sizes.empty() ? 1 : groups(); }
  int64_t a_rows() const { return index.empty() ? m : rows_a; }
  int64_t source(int64_t row) const { return index.empty() ? row : index[static_cast<size_t>(row)]; }
  int64_t a_stride() const { return k + a_gap; }
  int64_t out_stride() const { return n + out_gap; }
  std::vector<int64_t> offsets() const {
    std::vector<int64_t> all(1, 0);
    for (int64_t size : sizes) all.push_back(all.back() + size);
    return all;
  }
  int64_t computed() const { return sizes.empty() ? m : offsets().back(); }

  std::string text() const {
    std::string line = "m=" + std::to_string(m) + " k=" + std::to_string(k) + " n=" + std::to_string(n);
    line += " format=" + std::to_string(format) + " a=" + std::to_string(a_dtype) + " w=" + std::to_string(w_dtype);
    line += " out=" + std::to_string(out_dtype) + " activation=" + std::to_string(activation);
    line += " bias=" + std::to_string(bias) + " residual=" + std::to_string(residual) + " groups=";
    for (int64_t size : sizes) line += std::to_string(size) + ",";
    line += " index=" + std::to_string(index.size()) + "/" + std::to_string(rows_a) + " rank=" + std::to_string(rank);
    return line + " lora=" + std::to_string(lora_dtype) + " seed=" + std::to_string(seed);
  }
};

// The operands of a case. Gaps between the rows of `a` hold NaN: reading one would show.
struct Operands {
  Buffer a, w, bias, residual, lora_a, lora_b;

  explicit Operands(const Case& c)
      : a(c.a_dtype, c.a_rows() * c.a_stride()),
        w(c.w_dtype, c.matrices() * c.k * c.n),
        bias(GTN_F32, c.matrices() * c.n),
        residual(c.out_dtype, c.m * c.out_stride()),
        lora_a(c.lora_dtype, c.k * c.rank),
        lora_b(c.lora_dtype, c.rank * c.n) {
    std::mt19937_64 random(c.seed);
    for (Buffer* buffer : {&a, &w, &bias, &residual, &lora_a, &lora_b}) buffer->fill_normal(random);
    for (int64_t r = 0; r < c.a_rows(); ++r) {
      for (int64_t i = c.k; i < c.a_stride(); ++i) a.set(r * c.a_stride() + i, kNan);
    }
  }
};

// A plan and its weights, closed with the object.
class Product {
 public:
  // `matrix`: one matrix of the case alone, of rank 2; else all of them.
  Product(const OpenDevice& on, const Case& c, const Operands& x, int64_t matrix = -1) : on_(on) {
    const bool alone = matrix >= 0 || c.sizes.empty();
    gtn_weights_desc weights = {};
    weights.size = sizeof weights;
    weights.format = c.format;
    weights.source = alone ? tensor(c.w_dtype, {c.k, c.n}) : tensor(c.w_dtype, {c.groups(), c.k, c.n});
    if (c.transposed) {
      weights.source.strides[weights.source.rank - 2] = 1;
      weights.source.strides[weights.source.rank - 1] = c.k;
    }
    const int64_t skipped = std::max<int64_t>(matrix, 0) * c.k * c.n * Buffer::element_size(c.w_dtype);
    Message message;
    EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &weights, static_cast<const char*>(x.w.data()) + skipped, &weights_,
                                       &message))
        << message.text << c.text();
    gtn_gemm_desc desc = description(c);
    if (matrix >= 0) desc.groups = 0;
    EXPECT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan_, &message)) << message.text << c.text();
  }

  ~Product() {
    Message message;
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan_, &message)) << message.text;
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights_, &message)) << message.text;
  }

  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  static gtn_gemm_desc description(const Case& c) {
    gtn_gemm_desc desc = {};
    desc.size = sizeof desc;
    desc.format = c.format;
    desc.a = tensor(c.a_dtype, {c.a_rows(), c.k}, c.a_stride());
    desc.out = tensor(c.out_dtype, {c.m, c.n}, c.out_stride());
    desc.activation = c.activation;
    desc.has_bias = c.bias;
    desc.has_residual = c.residual;
    desc.has_row_index = !c.index.empty();
    desc.groups = c.groups();
    desc.rank = c.rank;
    desc.lora_dtype = c.rank > 0 ? c.lora_dtype : 0;
    desc.lora_scale = c.rank > 0 ? c.scale : 0;
    return desc;
  }

  gtn_plan plan() const { return plan_; }
  gtn_weights weights() const { return weights_; }

  gtn_status run(const Case& c, const Operands& x, const void* residual, void* out) const {
    const std::vector<int64_t> offsets = c.offsets();
    return gtn_gemm_run_with(plan_, on_.stream, weights_, c.m, c.a_rows(), x.a.data(), c.bias ? x.bias.data() : nullptr,
                             c.residual ? residual : nullptr, out, c.sizes.empty() ? nullptr : offsets.data(),
                             c.index.empty() ? nullptr : c.index.data(), c.rank > 0 ? x.lora_a.data() : nullptr,
                             c.rank > 0 ? x.lora_b.data() : nullptr);
  }

 private:
  const OpenDevice& on_;
  gtn_plan plan_ = 0;
  gtn_weights weights_ = 0;
};

Buffer untouched(const Case& c) {
  Buffer out(c.out_dtype, c.m * c.out_stride());
  out.fill(kSentinel);
  return out;
}

Buffer run(const OpenDevice& on, const Case& c, const Operands& x) {
  const Product product(on, c, x);
  Buffer out = untouched(c);
  const void* residual = x.residual.data();
  if (c.residual && c.in_place) {
    for (int64_t r = 0; r < c.m; ++r) {
      for (int64_t j = 0; j < c.n; ++j) out.set(r * c.out_stride() + j, x.residual.get(r * c.out_stride() + j));
    }
    residual = out.data();
  }
  EXPECT_EQ(GTN_OK, product.run(c, x, residual, out.data())) << on.message() << c.text();
  return out;
}

// What plain products give, a matrix after the other, with rows of `a` copied together.
Buffer run_apart(const OpenDevice& on, const Case& c, const Operands& x) {
  Buffer out = untouched(c);
  if (c.residual && c.in_place) {  // rows that no group has keep the residual
    for (int64_t r = 0; r < c.m; ++r) {
      for (int64_t j = 0; j < c.n; ++j) out.set(r * c.out_stride() + j, x.residual.get(r * c.out_stride() + j));
    }
  }
  const std::vector<int64_t> offsets = c.sizes.empty() ? std::vector<int64_t>{0, c.m} : c.offsets();
  for (int64_t g = 0; g < c.matrices(); ++g) {
    const int64_t first = offsets[static_cast<size_t>(g)], rows = offsets[static_cast<size_t>(g) + 1] - first;
    Case part = c;
    part.m = rows;
    part.sizes.clear();
    part.index.clear();
    part.a_gap = part.out_gap = 0;
    Operands y(part);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t p = 0; p < c.k; ++p) y.a.set(r * c.k + p, x.a.get(c.source(first + r) * c.a_stride() + p));
      for (int64_t j = 0; j < c.n; ++j) y.residual.set(r * c.n + j, x.residual.get((first + r) * c.out_stride() + j));
    }
    for (int64_t i = 0; i < c.k * c.n; ++i) y.w.set(i, x.w.get(g * c.k * c.n + i));
    for (int64_t j = 0; j < c.n; ++j) y.bias.set(j, x.bias.get(g * c.n + j));
    const Product product(on, part, y);
    Buffer some(c.out_dtype, rows * c.n);
    EXPECT_EQ(GTN_OK, gtn_gemm_run(product.plan(), on.stream, product.weights(), rows, y.a.data(),
                                   c.bias ? y.bias.data() : nullptr, c.residual ? y.residual.data() : nullptr, some.data()))
        << on.message() << part.text();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < c.n; ++j) out.set((first + r) * c.out_stride() + j, some.get(r * c.n + j));
    }
  }
  return out;
}

// Options in a different rhythm each.
Case with_options(int64_t k, int64_t n, int32_t format, uint64_t i) {
  Case c;
  c.k = k;
  c.n = n;
  c.format = format;
  c.a_dtype = i % 6 == 1 ? GTN_BF16 : i % 6 == 4 ? GTN_F16 : GTN_F32;
  c.w_dtype = i % 5 == 3 ? GTN_BF16 : i % 5 == 2 ? GTN_F16 : GTN_F32;
  c.out_dtype = i % 8 == 2 ? GTN_BF16 : i % 8 == 6 ? GTN_F16 : GTN_F32;
  c.activation = static_cast<int32_t>(i % 5);
  c.bias = i % 2 == 1;
  c.residual = i % 3 == 2;
  c.in_place = i % 2 == 0;
  c.transposed = i % 5 >= 3;
  c.a_gap = i % 4 == 1 ? 3 : 0;
  c.out_gap = i % 5 == 2 ? 5 : 0;
  c.seed = 100 + i;
  return c;
}

void take_rows(Case& c, int64_t rows_a) {
  std::mt19937_64 random(c.seed);
  c.rows_a = rows_a;
  for (int64_t r = 0; r < c.m; ++r) {
    c.index.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(rows_a)));
  }
}

class GemmGroupsTest : public testing::TestWithParam<std::string> {};

// Groups of no row, of one, of a few and of many; rows that belong to no group come last.
TEST_P(GemmGroupsTest, HaveTheBitsOfProductsApart) {
  const std::vector<int64_t> sizes[] = {{0, 1, 2, 0, 3, 7, 26, 0}, {0, 0, 41, 0}, {1, 1, 1, 1, 1, 1, 1},
                                        {17},                      {0, 0, 0},     {100, 4}};
  const int64_t shapes[][2] = {{5, 1}, {77, 19}, {40, 70}, {1601, 33}, {300, 257}};
  uint64_t i = 0;
  for (int32_t format : kFormats) {
    for (const auto& groups : sizes) {
      for (const auto& shape : shapes) {
        Case c = with_options(shape[0], shape[1], format, i);
        c.sizes = groups;
        c.m = c.offsets().back() + static_cast<int64_t>(i % 3);
        if (c.m > 0 && i % 4 == 3) take_rows(c, 1 + static_cast<int64_t>(i % 30));
        const Operands x(c);
        const OpenDevice on(GetParam(), 1 + static_cast<int>(i % 3));
        EXPECT_TRUE(run_apart(on, c, x).same_bytes(run(on, c, x))) << GetParam() << ": " << c.text();
        ++i;
      }
    }
  }
}

TEST_P(GemmGroupsTest, ThreadsChangeNoBit) {
  for (int32_t format : kFormats) {
    Case c = with_options(700, 300, format, 7);
    c.sizes = {3, 130, 0, 1, 60, 2};
    c.m = c.offsets().back();
    const Operands x(c);
    const Buffer out = run(OpenDevice(GetParam(), 1), c, x);
    for (int threads : {2, 3, 5}) {
      EXPECT_TRUE(out.same_bytes(run(OpenDevice(GetParam(), threads), c, x)))
          << GetParam() << " " << threads << " threads: " << c.text();
    }
  }
}

// More rows than are prepared at once (16 MiB of them): groups go on where the part before ended, or start within one.
TEST_P(GemmGroupsTest, ManyRows) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    for (bool gathered : {false, true}) {
      Case c;
      c.format = format;
      c.k = format == GTN_S8 ? 8000 : 4200;
      c.n = 5;
      c.a_dtype = GTN_BF16;
      c.residual = c.bias = true;
      const int64_t scale = format == GTN_S8 ? 2 : 1;
      c.sizes = {0, 500 * scale, 1, 0, 597 * scale, 0};
      c.m = c.offsets().back() + 1;
      if (gathered) take_rows(c, 50);
      const Operands x(c);
      EXPECT_TRUE(run_apart(on, c, x).same_bytes(run(on, c, x))) << GetParam() << ": " << c.text();
    }
  }
}

// Rows by number without groups: fewer, repeated, in any order, out of more or fewer than the product has.
TEST_P(GemmGroupsTest, GatheredRows) {
  uint64_t i = 0;
  for (int32_t format : kFormats) {
    for (int64_t m : {1, 3, 4, 50}) {
      for (int64_t rows_a : {1, 7, 90}) {
        Case c = with_options(1 + static_cast<int64_t>(i * 13 % 60), 1 + static_cast<int64_t>(i * 11 % 70), format, i);
        c.m = m;
        take_rows(c, rows_a);
        const Operands x(c);
        const OpenDevice on(GetParam(), 1 + static_cast<int>(i++ % 3));
        EXPECT_TRUE(run_apart(on, c, x).same_bytes(run(on, c, x))) << GetParam() << ": " << c.text();
      }
    }
  }
}

// A row with NaN is NaN in its group alone, and a matrix with NaN in its rows alone.
TEST_P(GemmGroupsTest, SpecialValuesStayInTheirGroup) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case c;
    c.k = 20;
    c.n = 19;
    c.format = format;
    c.sizes = {2, 3, 1};
    c.m = 6;
    Operands x(c);
    x.a.set(3 * c.k + 4, kNan);
    const bool keeps_nan = format == GTN_F32 || format == GTN_BF16 || format == GTN_F16;
    if (keeps_nan) x.w.set(2 * c.k * c.n + 5, kNan);
    const Buffer out = run(on, c, x);
    for (int64_t r = 0; r < c.m; ++r) {
      for (int64_t j = 0; j < c.n; ++j) {
        const bool expected = r == 3 || (r == 5 && j == 5 && keeps_nan);
        EXPECT_EQ(expected, std::isnan(out.get(r * c.n + j))) << GetParam() << " [" << r << ", " << j << "]: " << c.text();
      }
    }
  }
}

// Any strides of the source: here the columns of all groups lie beside each other.
TEST_P(GemmGroupsTest, SourceStrides) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case c = with_options(30, 21, format, 1);
    c.sizes = {2, 5, 1};
    c.m = 8;
    c.transposed = false;
    const Operands x(c);
    const Buffer expected = run(on, c, x);
    Operands y = x;
    for (int64_t g = 0; g < 3; ++g) {
      for (int64_t p = 0; p < c.k; ++p) {
        for (int64_t j = 0; j < c.n; ++j) y.w.set((p * 3 + g) * c.n + j, x.w.get((g * c.k + p) * c.n + j));
      }
    }
    const Product product(on, c, x);
    gtn_weights_desc desc = {sizeof desc, format, tensor(c.w_dtype, {3, c.k, c.n}), 0, 0, 0};
    desc.source.strides[0] = c.n;
    desc.source.strides[1] = 3 * c.n;
    gtn_weights weights = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, y.w.data(), &weights, &message)) << message.text;
    Buffer out = untouched(c);
    const std::vector<int64_t> offsets = c.offsets();
    EXPECT_EQ(GTN_OK, gtn_gemm_run_with(product.plan(), on.stream, weights, c.m, c.m, x.a.data(), x.bias.data(), nullptr,
                                        out.data(), offsets.data(), nullptr, nullptr, nullptr))
        << on.message();
    EXPECT_TRUE(expected.same_bytes(out)) << GetParam() << ": " << c.text();
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
  }
}

TEST_P(GemmGroupsTest, WeightsInfo) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case c;
    c.k = 100;
    c.n = 70;
    c.format = format;
    c.sizes = {1, 0, 0, 0};
    const Operands x(c);
    const Product grouped(on, c, x), one(on, c, x, 2);
    gtn_weights_info all = {}, single = {};
    all.size = single.size = sizeof all;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_weights_query(grouped.weights(), &all, &message)) << message.text;
    ASSERT_EQ(GTN_OK, gtn_weights_query(one.weights(), &single, &message)) << message.text;
    EXPECT_EQ(4, all.groups);
    EXPECT_EQ(0, single.groups);
    EXPECT_EQ(c.k, all.k);
    EXPECT_EQ(c.n, all.n);
    EXPECT_GT(all.bytes, 3 * single.bytes);
    EXPECT_LE(all.bytes, 4 * single.bytes);
    Buffer out(GTN_F32, c.n);
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_gemm_run(one.plan(), on.stream, grouped.weights(), 1, x.a.data(), nullptr, nullptr,
                                                 out.data()));
    EXPECT_NE(std::string::npos, on.message().find("[4, 100, 70], expected the plan's")) << on.message();
  }
}

TEST_P(GemmGroupsTest, WeightsThatAreNotFinite) {
  const OpenDevice on(GetParam());
  Case c;
  c.k = 40;
  c.n = 50;
  c.sizes = {1, 1, 1};
  Operands x(c);
  x.w.set((2 * c.k + 3) * c.n + 17, kNan);
  x.w.set((1 * c.k + 31) * c.n + 49, kNan);
  const gtn_weights_desc desc = {sizeof desc, GTN_S8, tensor(GTN_F32, {3, c.k, c.n}), 0, 0, 0};
  gtn_weights weights = 0;
  Message message;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, x.w.data(), &weights, &message));
  EXPECT_NE(std::string::npos, std::string(message.text).find("group = 1, k = 31, n = 49")) << message.text;
}

// What offsets and row numbers may not be: the element is named, and nothing is written.
TEST_P(GemmGroupsTest, WrongElementsAreNamed) {
  const OpenDevice on(GetParam());
  Case c;
  c.m = 8;
  c.k = 3;
  c.n = 2;
  c.sizes = {2, 3, 3};
  c.index = {0, 1, 2, 3, 4, 0, 0, 0};
  c.rows_a = 5;
  const Operands x(c);
  const Product product(on, c, x);
  struct Wrong {
    std::vector<int64_t> offsets;
    int64_t row;
    int32_t number;
    const char* text;
  };
  const std::vector<int64_t> right = {0, 2, 5, 7};
  const Wrong wrongs[] = {{{1, 2, 5, 7}, 0, 0, "group_offsets[0] is 1, expected 0"},
                          {{-1, 2, 5, 7}, 0, 0, "group_offsets[0] is -1, expected 0"},
                          {{0, 6, 5, 7}, 0, 0, "group_offsets[2] is 5, expected 6"},
                          {{0, -1, 5, 7}, 0, 0, "group_offsets[1] is -1, expected 0"},
                          {{0, 2, 5, 9}, 0, 0, "group_offsets[3] is 9, expected 5"},
                          {{0, 9, 5, 7}, 0, 0, "group_offsets[1] is 9, expected 0"},
                          {right, 3, -1, "row_index[3] is -1, expected 0 to rows_a - 1 = 4"},
                          {right, 6, 5, "row_index[6] is 5, expected 0 to rows_a - 1 = 4"},
                          {right, 7, INT32_MAX, "row_index[7] is 2147483647"}};  // a row of no group
  for (const Wrong& wrong : wrongs) {
    std::vector<int32_t> index = c.index;
    index[static_cast<size_t>(wrong.row)] = wrong.number;
    Buffer out = untouched(c);
    const Buffer before = out;
    EXPECT_EQ(GTN_INVALID_ARGUMENT,
              gtn_gemm_run_with(product.plan(), on.stream, product.weights(), c.m, c.rows_a, x.a.data(), nullptr, nullptr,
                                out.data(), wrong.offsets.data(), index.data(), nullptr, nullptr));
    EXPECT_NE(std::string::npos, on.message().find(wrong.text)) << on.message();
    EXPECT_TRUE(before.same_bytes(out)) << wrong.text;
  }
  // Of fewer rows of a, the last is out of reach.
  Buffer out = untouched(c);
  EXPECT_EQ(GTN_INVALID_ARGUMENT,
            gtn_gemm_run_with(product.plan(), on.stream, product.weights(), c.m, 4, x.a.data(), nullptr, nullptr, out.data(),
                              right.data(), c.index.data(), nullptr, nullptr));
  EXPECT_NE(std::string::npos, on.message().find("row_index[4] is 4, expected 0 to rows_a - 1 = 3")) << on.message();
}

// A plain run refuses what it lacks, by name, and is the same as one with no further array.
TEST_P(GemmGroupsTest, PlainRuns) {
  const OpenDevice on(GetParam());
  for (int kind = 0; kind < 4; ++kind) {
    Case c;
    c.m = 4;
    c.k = 9;
    c.n = 7;
    if (kind == 1) c.sizes = {1, 3};
    if (kind == 2) take_rows(c, 4);
    if (kind == 3) c.rank = 2;
    const Operands x(c);
    const Product product(on, c, x);
    Buffer out = untouched(c);
    const Buffer before = out;
    const gtn_status status =
        gtn_gemm_run(product.plan(), on.stream, product.weights(), c.m, x.a.data(), nullptr, nullptr, out.data());
    if (kind == 0) {
      EXPECT_EQ(GTN_OK, status) << on.message();
      EXPECT_TRUE(run(on, c, x).same_bytes(out));
      continue;
    }
    const char* const missing[] = {"", "group_offsets: is null", "row_index: is null", "lora_a: is null"};
    EXPECT_EQ(GTN_INVALID_ARGUMENT, status);
    EXPECT_NE(std::string::npos, on.message().find(missing[kind])) << on.message();
    EXPECT_TRUE(before.same_bytes(out));
  }
}

// What low rank adds, in FP64, for each element of out.
struct Added {
  double value, error;
};

// T = scale * (a * lora_a): k multiply-adds in FP32 stay within k u / (1 - k u) * sum |a A|, products of their own add one
// u, the scale another of the result. The second product has the errors of T times |B|, and (rank + 1) u of its terms.
std::vector<Added> low_rank(const Case& c, const Operands& x) {
  const double u = kUnitRoundoffF32, tiny = 0x1p-149;
  std::vector<Added> all;
  std::vector<double> t(static_cast<size_t>(c.rank)), error(t.size());
  for (int64_t r = 0; r < c.m; ++r) {
    for (int64_t i = 0; i < c.rank; ++i) {
      double sum = 0, terms = 0;
      for (int64_t p = 0; p < c.k; ++p) {
        const double product = static_cast<double>(x.a.get(r * c.a_stride() + p)) * x.lora_a.get(p * c.rank + i);
        sum += product;
        terms += std::fabs(product);
      }
      const double scale = c.scale;
      t[static_cast<size_t>(i)] = scale * sum;
      error[static_cast<size_t>(i)] =
          std::fabs(scale) * static_cast<double>(c.k + 2) * u * 1.001 * terms + static_cast<double>(c.k + 1) * tiny;
    }
    for (int64_t j = 0; j < c.n; ++j) {
      Added added = {0, static_cast<double>(c.rank) * tiny};
      for (size_t i = 0; i < t.size(); ++i) {
        const double b = x.lora_b.get(static_cast<int64_t>(i) * c.n + j);
        added.value += t[i] * b;
        added.error += std::fabs(b) * error[i];
        added.error += static_cast<double>(c.rank + 1) * u * 1.001 * std::fabs(b) * (std::fabs(t[i]) + error[i]);
      }
      all.push_back(added);
    }
  }
  return all;
}

void expect_low_rank(const OpenDevice& on, const std::string& device, const Case& c) {
  const double u = kUnitRoundoffF32;
  const Operands x(c);
  // The product itself, before anything is added: the plain one's bits.
  Case plain = c;
  plain.rank = 0;
  plain.bias = plain.residual = false;
  plain.activation = GTN_ACT_NONE;
  plain.out_dtype = GTN_F32;
  const Buffer products = run(on, plain, x), out = run(on, c, x);
  const std::vector<Added> added = low_rank(c, x);
  int reported = 0;
  for (int64_t r = 0; r < c.m; ++r) {
    for (int64_t j = 0; j < c.n; ++j) {
      const Added& low = added[static_cast<size_t>(r * c.n + j)];
      double value = products.get(r * c.out_stride() + j) + low.value;
      double error = low.error + u * (std::fabs(value) + low.error);
      if (c.bias) {
        value += static_cast<double>(x.bias.get(j));
        error += u * (std::fabs(value) + error);
      }
      if (c.activation == GTN_ACT_RELU) value = std::fmax(value, 0);
      if (c.residual) {
        value += static_cast<double>(x.residual.get(r * c.out_stride() + j));
        error += u * (std::fabs(value) + error);
      }
      if (c.out_dtype == GTN_BF16) error += 0x1p-8 * (std::fabs(value) + error);
      if (c.out_dtype == GTN_F16) error += 0x1p-11 * (std::fabs(value) + error) + 0x1p-25;
      const double got = out.get(r * c.out_stride() + j);
      if (!(std::fabs(got - value) <= error) && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected " << value << " within " << error
                      << ": " << c.text();
      }
    }
    for (int64_t j = c.n; j < c.out_stride(); ++j) EXPECT_EQ(kSentinel, out.get(r * c.out_stride() + j)) << c.text();
  }
}

// Ranks around the widths of panels, 4, 16 and 32, k around the depth of a slice, 256, and rows around every tile.
TEST_P(GemmGroupsTest, LowRank) {
  uint64_t i = 0;
  const int64_t shapes[][2] = {{1, 1}, {40, 15}, {255, 16}, {256, 17}, {257, 33}, {600, 70}, {31, 300}};
  for (int32_t format : kFormats) {
    for (int64_t rank : {1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 100}) {
      for (int64_t m : {1, 2, 3, 5, 6, 7, 12, 13, 50}) {
        const auto& shape = shapes[i % 7];
        Case c = with_options(shape[0], shape[1], format, i);
        c.m = m;
        c.rank = rank;
        c.lora_dtype = i % 3 == 0 ? GTN_F32 : i % 3 == 1 ? GTN_BF16 : GTN_F16;
        c.scale = i % 5 == 0 ? -0.03125f : 0.7f;
        if (c.activation != GTN_ACT_RELU) c.activation = GTN_ACT_NONE;  // the others are gemm_test's
        const OpenDevice on(GetParam(), 1 + static_cast<int>(i++ % 3));
        expect_low_rank(on, GetParam(), c);
      }
    }
  }
}

// Both loop orders over panels and depths, and the largest rank.
TEST_P(GemmGroupsTest, LowRankOfBlocks) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case deep = with_options(7000, 36, format, 0);
    deep.m = 50;
    deep.rank = 20;
    expect_low_rank(on, GetParam(), deep);
    Case wide = with_options(20, 40, format, 5);
    wide.m = 9;
    wide.rank = 1024;
    wide.activation = GTN_ACT_NONE;
    expect_low_rank(on, GetParam(), wide);
  }
}

TEST_P(GemmGroupsTest, LowRankDependsOnNeitherThreadsNorRows) {
  for (int32_t format : kFormats) {
    Case c = with_options(1100, 300, format, 5);
    c.m = 130;
    c.rank = 40;
    const Operands x(c);
    const OpenDevice on(GetParam(), 1);
    const Buffer out = run(on, c, x);
    for (int threads : {2, 3, 5}) {
      EXPECT_TRUE(out.same_bytes(run(OpenDevice(GetParam(), threads), c, x)))
          << GetParam() << " " << threads << " threads: " << c.text();
    }
    for (int64_t rows : {1, 2, 3, 5, 11, 25}) {
      const Product product(on, c, x);
      Buffer some(c.out_dtype, rows * c.n);
      const int64_t first = 130 - rows;
      const char* a = static_cast<const char*>(x.a.data()) + first * c.a_stride() * Buffer::element_size(c.a_dtype);
      const char* residual =
          static_cast<const char*>(x.residual.data()) + first * c.n * Buffer::element_size(c.out_dtype);
      ASSERT_EQ(GTN_OK, gtn_gemm_run_with(product.plan(), on.stream, product.weights(), rows, rows, a, x.bias.data(),
                                          residual, some.data(), nullptr, nullptr, x.lora_a.data(), x.lora_b.data()))
          << on.message();
      int64_t different = 0;
      for (int64_t i = 0; i < rows * c.n; ++i) different += some.get(i) != out.get(first * c.n + i);
      EXPECT_EQ(0, different) << GetParam() << " rows=" << rows << ": " << c.text();
    }
  }
}

// More rows than are projected at once: FP32 rows are read where they are, but their projections rest in scratch.
TEST_P(GemmGroupsTest, LowRankOfManyRows) {
  const OpenDevice on(GetParam());
  Case c;
  c.m = 70000;
  c.k = 2;
  c.n = 1;
  c.rank = 64;
  expect_low_rank(on, GetParam(), c);
}

// The product is of the elements of `a` as they are: no format of the weights rounds them.
TEST_P(GemmGroupsTest, LowRankIsOfTheElementsAsTheyAre) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case c;
    c.m = 2;
    c.k = 3;
    c.n = 2;
    c.format = format;
    c.rank = 1;
    c.scale = 2;
    Operands x(c);
    x.w.fill(0);
    x.a.fill(0);
    x.a.set(0, 1.0f + 0x1p-20f);
    x.a.set(4, 1.0f - 0x1p-20f);
    x.lora_a.fill(1);
    x.lora_b.fill(3);
    const Buffer out = run(on, c, x);
    EXPECT_EQ(6.0f * (1.0f + 0x1p-20f), out.get(0)) << GetParam();
    EXPECT_EQ(6.0f * (1.0f - 0x1p-20f), out.get(3)) << GetParam();
  }
}

TEST_P(GemmGroupsTest, EmptySizes) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    for (int64_t rows : {0, 5}) {
      for (int64_t k : {0, 4}) {
        for (int64_t n : {0, 3}) {
          Case c;
          c.format = format;
          c.m = rows;
          c.k = k;
          c.n = n;
          c.bias = true;
          c.sizes = {rows, 0};
          const Operands x(c);
          EXPECT_TRUE(run_apart(on, c, x).same_bytes(run(on, c, x))) << GetParam() << ": " << c.text();
          c.sizes.clear();
          c.rank = 2;
          const Operands y(c);
          const Buffer out = run(on, c, y);
          for (int64_t i = 0; k == 0 && i < out.size(); ++i) EXPECT_EQ(y.bias.get(i % n), out.get(i)) << c.text();
        }
      }
    }
  }
}

TEST_P(GemmGroupsTest, PlanInfo) {
  const OpenDevice on(GetParam());
  Case c;
  c.format = GTN_S8;
  c.m = 10;
  c.k = 20;
  c.n = 30;
  c.bias = true;
  c.sizes = {1, 2, 3};
  c.index.assign(10, 0);
  c.rows_a = 6;
  const auto info_of = [&](const Case& of) {
    const Operands x(of);
    const Product product(on, of, x);
    gtn_plan_info info = {};
    info.size = sizeof info;
    Message message;
    EXPECT_EQ(GTN_OK, gtn_plan_query(product.plan(), &info, &message)) << message.text;
    return info;
  };
  const std::string level = "cpu." + GetParam().substr(4);
  gtn_plan_info info = info_of(c);
  EXPECT_EQ(level + ".gemm.int8.grouped", info.kernel);
  EXPECT_EQ(2.0 * 10 * 20 * 30, info.flops);
  EXPECT_EQ(6.0 * 20 * 4 + 3 * (20 * 30 + 30 * 8 + 30 * 4) + 10 * 30 * 4 + 4 * 8 + 10 * 4, info.bytes);
  c.sizes.assign(12, 0);  // of which a run reads ten at most
  EXPECT_EQ(6.0 * 20 * 4 + 10 * (20 * 30 + 30 * 8 + 30 * 4) + 10 * 30 * 4 + 13 * 8 + 10 * 4, info_of(c).bytes);
  c.sizes.clear();
  c.index.clear();
  c.rank = 4;
  c.lora_dtype = GTN_BF16;
  c.format = GTN_BF16;
  info = info_of(c);
  EXPECT_EQ(level + ".gemm.bf16.lora", info.kernel);
  EXPECT_EQ(2.0 * 10 * 20 * 30 + 2.0 * 10 * 4 * 50, info.flops);
  EXPECT_EQ(10.0 * 20 * 4 + 20 * 30 * 2 + 30 * 4 + 10 * 30 * 4 + 4 * 50 * 2, info.bytes);
}

std::string test_name(const testing::TestParamInfo<std::string>& info) { return info.param.substr(4); }

INSTANTIATE_TEST_SUITE_P(Levels, GemmGroupsTest, testing::ValuesIn(cpu_devices()), test_name);

// S8 without a transcendental function is the same on every level, in groups too.
TEST(GemmGroupsLevels, QuantizedProductsAgreeToTheBit) {
  const std::vector<std::string> devices = cpu_devices();
  Case c = with_options(213, 70, GTN_S8, 5);
  c.sizes = {3, 0, 30, 1};
  c.m = c.offsets().back();
  const Operands x(c);
  const Buffer first = run(OpenDevice(devices[0], 1), c, x);
  for (const std::string& device : devices) {
    EXPECT_TRUE(first.same_bytes(run(OpenDevice(device, 2), c, x))) << device << " against " << devices[0];
  }
}

}  // namespace
}  // namespace gatun::test
