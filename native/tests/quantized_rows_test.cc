// Rows in 8 bits from one operator to the next: what norms quantize, and products of rows that were quantized before. Both are
// held, to the bit, to the rule in plain FP32 and to what products make of FP32 rows by themselves.
#include "device_test.h"

#include <algorithm>
#include <memory>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// Rows of U8 with gaps between them, their scales and zero points.
struct QuantizedRows {
  QuantizedRows(int64_t rows, int64_t n, int64_t gap)
      : stride(n + gap),
        values(static_cast<size_t>(rows * stride), 0xa5),
        scales(static_cast<size_t>(rows), -1.0f),
        zeros(static_cast<size_t>(rows), -1) {}

  bool same(const QuantizedRows& other) const {
    return values == other.values && zeros == other.zeros &&
           std::memcmp(scales.data(), other.scales.data(), scales.size() * sizeof(float)) == 0;
  }

  int64_t stride;
  std::vector<uint8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> zeros;
};

// The rule of gatun.h.
void quantize(const float* x, int64_t n, uint8_t* to, float* scale, int32_t* zero) {
  float lo = 0.0f, hi = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    lo = std::min(lo, x[i]);
    hi = std::max(hi, x[i]);
  }
  const float range = hi - lo, s = range / 255.0f;
  std::fill_n(to, n, uint8_t{0});
  *zero = 0;
  *scale = finite && std::isfinite(range) ? s : kNan;
  if (std::isnan(*scale) || s == 0.0f) return;
  const float z = std::nearbyint(-lo / s);
  *zero = static_cast<int32_t>(z);
  for (int64_t i = 0; i < n; ++i) {
    to[i] = static_cast<uint8_t>(std::clamp(std::nearbyint(x[i] / s) + z, 0.0f, 255.0f));
  }
}

QuantizedRows quantized(const std::vector<float>& x, int64_t rows, int64_t n, int64_t gap) {
  QuantizedRows made(rows, n, gap);
  for (int64_t r = 0; r < rows; ++r) {
    quantize(&x[static_cast<size_t>(r * n)], n, &made.values[static_cast<size_t>(r * made.stride)],
             &made.scales[static_cast<size_t>(r)], &made.zeros[static_cast<size_t>(r)]);
  }
  return made;
}

// Among ordinary rows some of zeros, of one sign, of tiny and of large numbers, with ties, with NaN and with infinities.
std::vector<float> some_rows(int64_t rows, int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * n));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      float& v = x[static_cast<size_t>(r * n + i)];
      v = normal(random);
      switch (r % 9) {
        case 1: v = 0.0f; break;
        case 2: v = std::fabs(v); break;
        case 3: v = -std::fabs(v) - 5.0f; break;
        case 4: v *= 1e-39f; break;
        case 5: v *= 1e30f; break;
        case 6: v = i == 0 ? -2.5f : i == 1 ? 252.5f : std::nearbyint(v * 40.0f) + 0.5f; break;
        case 7: v = i == n / 2 ? (r % 2 == 0 ? kNan : kInfinity) : v; break;
        default: break;
      }
    }
  }
  return x;
}

struct Norm {
  int32_t kind = GTN_NORM_LAYER, x_dtype = GTN_F32;
  int64_t rows = 1, n = 1, gap = 0;
  bool residual = false, beta = false, sum = false;
};

// out of U8 where `to` is not null, else of FP32.
void run(OpenDevice& on, const Norm& p, const Buffer& x, const Buffer& residual, const std::vector<float>& gamma,
         const std::vector<float>& beta, Buffer& sum, QuantizedRows* to, std::vector<float>* floats) {
  Message message;
  gtn_norm_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = p.kind;
  desc.x = tensor(p.x_dtype, {p.rows + 1, p.n});
  desc.out = to != nullptr ? tensor(GTN_U8, {p.rows + 1, p.n}, to->stride) : tensor(GTN_F32, {p.rows + 1, p.n});
  desc.epsilon = 1e-5f;
  desc.has_residual = p.residual;
  desc.has_beta = p.beta;
  desc.has_sum = p.sum;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
  const void* added = p.residual ? residual.data() : nullptr;
  const void* shift = p.beta ? beta.data() : nullptr;
  void* total = p.sum ? sum.data() : nullptr;
  if (to != nullptr) {
    EXPECT_EQ(GTN_OK, gtn_norm_run_quantized(plan, on.stream, p.rows, x.data(), added, gamma.data(), shift, to->values.data(),
                                             to->scales.data(), to->zeros.data(), total)) << on.message();
  } else {
    EXPECT_EQ(GTN_OK, gtn_norm_run(plan, on.stream, p.rows, x.data(), added, gamma.data(), shift, floats->data(), total))
        << on.message();
  }
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

void check(OpenDevice& on, const std::string& name, const Norm& p, uint64_t seed) {
  const std::vector<float> values = some_rows(p.rows, p.n, seed);
  std::mt19937_64 random(seed);
  Buffer x(p.x_dtype, p.rows * p.n), residual(p.x_dtype, p.rows * p.n), sum(p.x_dtype, p.rows * p.n), total = sum;
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, values[static_cast<size_t>(i)]);
  residual.fill_normal(random);
  std::vector<float> gamma(static_cast<size_t>(p.n)), beta(gamma);
  for (float& g : gamma) g = 1.0f + 0.3f * std::normal_distribution<float>()(random);
  for (float& b : beta) b = std::normal_distribution<float>()(random);
  std::vector<float> floats(static_cast<size_t>(p.rows * p.n));
  QuantizedRows got(p.rows, p.n, p.gap);
  run(on, p, x, residual, gamma, beta, sum, nullptr, &floats);
  run(on, p, x, residual, gamma, beta, total, &got, nullptr);
  EXPECT_TRUE(sum.same_bytes(total)) << name << ": the sum";
  const QuantizedRows expected = quantized(floats, p.rows, p.n, p.gap);
  ASSERT_TRUE(expected.zeros == got.zeros && expected.values == got.values && expected.same(got))
      << name << ": kind " << p.kind << " dtype " << p.x_dtype << " rows " << p.rows << " n " << p.n << " seed " << seed;
}

TEST(QuantizedRows, NormsHaveTheBitsOfTheirFp32) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1;
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        for (int64_t n : {1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 128, 129, 384, 1000}) {
          Norm p;
          p.kind = kind;
          p.x_dtype = dtype;
          p.rows = n < 10 ? 40 : 12;
          p.n = n;
          p.gap = seed % 2 == 0 ? 3 : 0;
          p.residual = seed % 3 == 0;
          p.beta = kind == GTN_NORM_LAYER && seed % 4 != 0;
          p.sum = seed % 5 == 0;
          ASSERT_NO_FATAL_FAILURE(check(on, name, p, seed++));
        }
      }
    }
  }
}

TEST(QuantizedRows, NormPlansCountTheirBytes) {
  OpenDevice on(cpu_devices().front());
  Message message;
  gtn_norm_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = GTN_NORM_RMS;
  desc.x = tensor(GTN_F32, {5, 7});
  desc.out = tensor(GTN_U8, {5, 7});
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
  gtn_plan_info info = {};
  info.size = sizeof info;
  ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_EQ(35.0 * (4 + 1) + 7 * 4 + 5 * 8, info.bytes);
  EXPECT_GT(info.workspace_bytes, 0);
  EXPECT_TRUE(std::string(info.kernel).ends_with(".norm.rms.f32.int8")) << info.kernel;
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

struct Product {
  int64_t rows = 1, k = 1, n = 1, gap = 0;
  int32_t out_dtype = GTN_F32;
  int64_t groups = 0;
  bool indexed = false;
};

void check(OpenDevice& on, const std::string& name, const Product& p, uint64_t seed) {
  const int64_t sources = p.indexed ? p.rows + 3 : p.rows, matrices = std::max<int64_t>(p.groups, 1);
  const std::vector<float> x = some_rows(sources, p.k, seed);
  QuantizedRows a = quantized(x, sources, p.k, p.gap);
  std::mt19937_64 random(seed);
  Buffer source(GTN_F32, matrices * p.k * p.n), residual(p.out_dtype, p.rows * p.n);
  source.fill_normal(random);
  residual.fill_normal(random);
  std::vector<float> bias(static_cast<size_t>(matrices * p.n), 0.25f);
  std::vector<int32_t> index;
  for (int64_t r = 0; r < p.rows; ++r) index.push_back(static_cast<int32_t>((r * 5 + 2) % sources));
  std::vector<int64_t> offsets;
  for (int64_t g = 0; g <= p.groups; ++g) offsets.push_back(p.rows * g / matrices);

  Message message;
  gtn_weights_desc weights_desc = {};
  weights_desc.size = sizeof weights_desc;
  weights_desc.format = GTN_S8;
  weights_desc.source = p.groups > 0 ? tensor(GTN_F32, {p.groups, p.k, p.n}) : tensor(GTN_F32, {p.k, p.n});
  gtn_weights weights = 0;
  ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &weights_desc, source.data(), &weights, &message)) << message.text;
  gtn_gemm_desc desc = {};
  desc.size = sizeof desc;
  desc.format = GTN_S8;
  desc.out = tensor(p.out_dtype, {p.rows, p.n});
  desc.activation = GTN_ACT_SILU;
  desc.has_bias = desc.has_residual = 1;
  desc.has_row_index = p.indexed;
  desc.groups = p.groups;
  Buffer expected(p.out_dtype, p.rows * p.n), got(p.out_dtype, p.rows * p.n);
  const void* numbers = p.indexed ? index.data() : nullptr;
  const void* ends = p.groups > 0 ? offsets.data() : nullptr;
  for (bool given : {false, true}) {
    desc.a = given ? tensor(GTN_U8, {sources, p.k}, a.stride) : tensor(GTN_F32, {sources, p.k});
    gtn_plan plan = 0;
    ASSERT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text;
    const gtn_status status =
        given ? gtn_gemm_run_quantized(plan, on.stream, weights, p.rows, sources, a.values.data(), a.scales.data(),
                                       a.zeros.data(), bias.data(), residual.data(), got.data(), ends, numbers)
              : gtn_gemm_run_with(plan, on.stream, weights, p.rows, sources, x.data(), bias.data(), residual.data(),
                                  expected.data(), ends, numbers, nullptr, nullptr);
    EXPECT_EQ(GTN_OK, status) << on.message();
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  }
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  for (int64_t i = 0; i < got.size(); ++i) {
    const float of_floats = expected.get(i), of_bytes = got.get(i);
    ASSERT_TRUE(std::memcmp(&of_floats, &of_bytes, 4) == 0 || (std::isnan(of_floats) && std::isnan(of_bytes)))
        << name << ": rows " << p.rows << " k " << p.k << " n " << p.n << " gap " << p.gap << " groups " << p.groups
        << (p.indexed ? " indexed" : "") << " element " << i << ": " << of_floats << " and " << of_bytes;
  }
}

TEST(QuantizedRows, ProductsHaveTheBitsOfFp32Rows) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1;
    for (int64_t rows : {1, 3, 9, 40, 130}) {
      for (int64_t k : {1, 3, 4, 7, 32, 61, 64, 128, 257}) {
        Product p;
        p.rows = rows;
        p.k = k;
        p.n = 1 + static_cast<int64_t>(seed * 7 % 40);
        p.gap = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 0 : 4;
        p.out_dtype = seed % 2 == 0 ? GTN_F32 : GTN_BF16;
        ASSERT_NO_FATAL_FAILURE(check(on, name, p, seed));
        p.indexed = true;
        ASSERT_NO_FATAL_FAILURE(check(on, name, p, seed));
        p.groups = 3;
        p.indexed = seed % 2 == 0;
        ASSERT_NO_FATAL_FAILURE(check(on, name, p, seed++));
      }
    }
  }
}

// More rows than are prepared at once, where rows are widened.
TEST(QuantizedRows, ProductsOfManyRows) {
  for (const std::string& name : cpu_devices()) {
    if (name != "cpu:avx2") continue;
    OpenDevice on(name);
    Product p;
    p.rows = 9000;
    p.k = 1030;
    p.n = 3;
    ASSERT_NO_FATAL_FAILURE(check(on, name, p, 5));
  }
}

TEST(QuantizedRows, ProductPlansCountTheirBytes) {
  OpenDevice on(cpu_devices().front());
  Message message;
  gtn_gemm_desc desc = {};
  desc.size = sizeof desc;
  desc.format = GTN_S8;
  desc.a = tensor(GTN_U8, {6, 8});
  desc.out = tensor(GTN_F32, {6, 3});
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text;
  gtn_plan_info info = {};
  info.size = sizeof info;
  ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_EQ(6.0 * (8 + 8) + 8 * 3 + 8 * 3 + 6 * 3 * 4, info.bytes);
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

}  // namespace
}  // namespace gatun::test
