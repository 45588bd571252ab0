// GEMM against plain references, on every level: shapes around every tile size, strides, dtypes, special values, the
// quantizer's corner cases, and the promises that results depend neither on threads nor on the number of rows.
#include <algorithm>
#include <cfloat>

#include "device_test.h"

namespace gatun::test {
namespace {

// What one product looks like. Strides are in elements beyond the dense row.
struct Case {
  int64_t m = 1, k = 1, n = 1;
  int32_t format = GTN_F32;
  int32_t a_dtype = GTN_F32, w_dtype = GTN_F32, out_dtype = GTN_F32;
  int32_t activation = GTN_ACT_NONE;
  bool bias = false, residual = false, in_place = false, transposed = false;
  int64_t a_gap = 0, out_gap = 0;
  uint64_t seed = 1;

  std::string text() const {
    char line[256];
    std::snprintf(line, sizeof line,
                  "m=%lld k=%lld n=%lld format=%d a=%d w=%d out=%d activation=%d bias=%d residual=%d in_place=%d "
                  "transposed=%d gaps=%lld,%lld seed=%llu",
                  static_cast<long long>(m), static_cast<long long>(k), static_cast<long long>(n), format, a_dtype,
                  w_dtype, out_dtype, activation, bias, residual, in_place, transposed, static_cast<long long>(a_gap),
                  static_cast<long long>(out_gap), static_cast<unsigned long long>(seed));
    return line;
  }
};

// Of 24, 8 and 11 significant bits, to nearest.
double roundoff(int32_t dtype) { return dtype == GTN_F32 ? kUnitRoundoffF32 : dtype == GTN_BF16 ? 0x1p-8 : 0x1p-11; }

// Half a step of the smallest numbers, or what counts as zero.
double smallest(int32_t dtype) { return dtype == GTN_F16 ? 0x1p-25 : 0x1p-133; }

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInf = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -7776.0f;  // exact in BF16 too
constexpr int64_t kGuard = 64;         // sentinels before and after `out`

// The operands of a case. Gaps between the rows of `a` hold NaN: reading one would show.
struct Operands {
  Buffer a, w, bias, residual;

  Operands(const Case& c, float deviation = 1.0f)
      : a(c.a_dtype, c.m * (c.k + c.a_gap)), w(c.w_dtype, c.k * c.n), bias(GTN_F32, c.n),
        residual(c.out_dtype, c.m * (c.n + c.out_gap)) {
    std::mt19937_64 random(c.seed);
    if (a.size() < (1 << 20)) {
      a.fill_normal(random, deviation);
    } else {  // uniform, because normal takes ten times as long
      for (int64_t i = 0; i < a.size(); ++i) {
        a.set(i, deviation * static_cast<float>(static_cast<int64_t>(random()) >> 40) * 0x1p-23f);
      }
    }
    w.fill_normal(random);
    bias.fill_normal(random);
    residual.fill_normal(random);
    for (int64_t r = 0; r < c.m; ++r) {
      for (int64_t i = c.k; i < c.k + c.a_gap; ++i) a.set(r * (c.k + c.a_gap) + i, kNan);
    }
  }
};

float a_at(const Case& c, const Operands& x, int64_t row, int64_t k) { return x.a.get(row * (c.k + c.a_gap) + k); }
float w_at(const Case& c, const Operands& x, int64_t k, int64_t n) {
  return x.w.get(c.transposed ? n * c.k + k : k * c.n + n);
}

gtn_weights pack(const OpenDevice& on, const Case& c, const Operands& x, Message* message,
                 gtn_status expected = GTN_OK) {
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = c.format;
  desc.source = tensor(c.w_dtype, {c.k, c.n});
  if (c.transposed) {
    desc.source.strides[0] = 1;
    desc.source.strides[1] = c.k;
  }
  gtn_weights weights = 0;
  EXPECT_EQ(expected, gtn_weights_pack(on.device, &desc, x.w.data(), &weights, message)) << message->text << c.text();
  return weights;
}

gtn_plan make_plan(const OpenDevice& on, const Case& c) {
  gtn_gemm_desc desc = {};
  desc.size = sizeof desc;
  desc.format = c.format;
  desc.a = tensor(c.a_dtype, {c.m, c.k}, c.k + c.a_gap);
  desc.out = tensor(c.out_dtype, {c.m, c.n}, c.n + c.out_gap);
  desc.activation = c.activation;
  desc.has_bias = c.bias;
  desc.has_residual = c.residual;
  gtn_plan plan = 0;
  Message message;
  EXPECT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text << c.text();
  return plan;
}

// Runs the case and gives back `out` with its guards; whatever is not an element of `out` must still be a sentinel.
Buffer run(const OpenDevice& on, const Case& c, const Operands& x, int64_t first_row = 0, int64_t rows = -1) {
  if (rows < 0) rows = c.m;
  Message message;
  const gtn_weights weights = pack(on, c, x, &message);
  const gtn_plan plan = make_plan(on, c);
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  gtn_device_info device = {};
  device.size = sizeof device;
  EXPECT_EQ(GTN_OK, gtn_device_describe(on.device, &device, &message)) << message.text;
  const std::string level = std::string(device.name).substr(4);
  const std::string kind = c.format == GTN_S8       ? "int8"
                           : c.format == GTN_BF16   ? "bf16"
                           : c.format == GTN_F16    ? "f16"
                           : c.format == GTN_F8E4M3 ? "f8e4m3"
                           : c.format == GTN_F8E5M2 ? "f8e5m2"
                                                    : "f32";
  EXPECT_EQ("cpu." + level + ".gemm." + kind, info.kernel);
  EXPECT_EQ(2.0 * static_cast<double>(c.m) * static_cast<double>(c.n) * static_cast<double>(c.k), info.flops);

  const int64_t stride = c.n + c.out_gap;
  Buffer out(c.out_dtype, c.m * stride + 2 * kGuard);
  out.fill(kSentinel);
  const float sentinel = out.get(0);
  const int64_t element = Buffer::element_size(c.out_dtype);
  unsigned char* at = static_cast<unsigned char*>(out.data()) + kGuard * element;
  const unsigned char* a =
      static_cast<const unsigned char*>(x.a.data()) + first_row * (c.k + c.a_gap) * Buffer::element_size(c.a_dtype);
  const unsigned char* residual = static_cast<const unsigned char*>(x.residual.data()) + first_row * stride * element;
  if (c.in_place && c.residual) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < c.n; ++i) out.set(kGuard + r * stride + i, x.residual.get((first_row + r) * stride + i));
    }
    residual = at;
  }
  EXPECT_EQ(GTN_OK, gtn_gemm_run(plan, on.stream, weights, rows, a, c.bias ? x.bias.data() : nullptr,
                                 c.residual ? residual : nullptr, at))
      << on.message() << c.text();
  EXPECT_EQ(GTN_OK, gtn_stream_synchronize(on.stream, &message));
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t p = i - kGuard;
    const bool element_of_out = p >= 0 && stride > 0 && p / stride < rows && p % stride < c.n;
    if (!element_of_out && out.get(i) != sentinel) {
      ADD_FAILURE() << device.name << " wrote outside out, at " << p << ": " << c.text();
      break;
    }
  }
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  return out;
}

double activate(int32_t activation, double x) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case GTN_ACT_GELU_TANH:
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case GTN_ACT_SILU:
      return x / (1 + std::exp(-x));
    case GTN_ACT_RELU:
      return std::isnan(x) ? x : std::fmax(x, 0);
    default:
      return x;
  }
}

// The quantizer and the S8 epilogue as they are specified, in plain FP32.
struct QuantizedRow {
  float scale = 0;
  int32_t zero = 0;
  std::vector<int32_t> q;
};

QuantizedRow quantize(const std::vector<float>& x) {
  float lo = 0, hi = 0;
  bool finite = true;
  for (float value : x) {
    finite &= std::isfinite(value);
    if (value < lo) lo = value;
    if (value > hi) hi = value;
  }
  QuantizedRow row{0, 0, std::vector<int32_t>(x.size(), 0)};
  const float range = hi - lo;
  if (!finite || std::isinf(range)) {
    row.scale = kNan;
    return row;
  }
  row.scale = range / 255.0f;
  if (row.scale == 0) return row;
  row.zero = static_cast<int32_t>(std::nearbyint(-lo / row.scale));
  for (size_t i = 0; i < x.size(); ++i) {
    const int32_t q = static_cast<int32_t>(std::nearbyint(x[i] / row.scale)) + row.zero;
    row.q[i] = q < 0 ? 0 : q > 255 ? 255 : q;
  }
  return row;
}

bool is_f8(int32_t format) { return format == GTN_F8E4M3 || format == GTN_F8E5M2; }

float most_of(int32_t format) { return format == GTN_F8E4M3 ? 448.0f : 57344.0f; }

// The number nearest to |x| up to the largest, ties to even: steps are 2^-3 or 2^-2 of a power of two, from 2^-6 or 2^-14 on.
float to_f8(int32_t format, float x) {
  const int mantissa = format == GTN_F8E4M3 ? 3 : 2, least = format == GTN_F8E4M3 ? -6 : -14;
  if (x == 0) return 0;
  const int exponent = std::max(std::ilogb(x), least);
  const double steps = std::nearbyint(std::ldexp(static_cast<double>(x), mantissa - exponent));
  return static_cast<float>(std::ldexp(steps, exponent - mantissa));
}

struct Sums {
  double x;        // the product before bias
  double terms;    // sum of |a_i b_i|
  float naive;     // FP32 in index order
  float rounded;   // S8: the FP32 value that the specified order of operations gives
};

// All products of a case.
std::vector<Sums> products(const Case& c, const Operands& x) {
  std::vector<Sums> sums(static_cast<size_t>(c.m * c.n));
  std::vector<float> w(static_cast<size_t>(c.k * c.n)), scales(static_cast<size_t>(c.n), 0.0f);
  for (int64_t j = 0; j < c.n; ++j) {
    for (int64_t p = 0; p < c.k; ++p) w[static_cast<size_t>(j * c.k + p)] = w_at(c, x, p, j);
    float* column = w.data() + j * c.k;
    if (c.format == GTN_BF16) {
      for (int64_t p = 0; p < c.k; ++p) column[p] = from_bf16(to_bf16(column[p]));
    } else if (c.format == GTN_F16) {
      for (int64_t p = 0; p < c.k; ++p) column[p] = from_f16(to_f16(column[p]));
    } else if (is_f8(c.format)) {
      float amax = 0;
      for (int64_t p = 0; p < c.k; ++p) amax = std::fmax(amax, std::fabs(column[p]));
      const float most = most_of(c.format), scale = amax / most;
      scales[static_cast<size_t>(j)] = scale;
      for (int64_t p = 0; p < c.k; ++p) {
        const float q = scale == 0 ? 0 : column[p] / scale;
        column[p] = to_f8(c.format, q > most ? most : q < -most ? -most : q);
      }
    } else if (c.format == GTN_S8) {
      float amax = 0;
      for (int64_t p = 0; p < c.k; ++p) amax = std::fmax(amax, std::fabs(column[p]));
      const float scale = amax / 127.0f;
      scales[static_cast<size_t>(j)] = scale;
      for (int64_t p = 0; p < c.k; ++p) {
        const float q = scale == 0 ? 0 : std::nearbyint(column[p] / scale);
        column[p] = q < -127 ? -127 : q > 127 ? 127 : q;
      }
    }
  }
  for (int64_t r = 0; r < c.m; ++r) {
    std::vector<float> a(static_cast<size_t>(c.k));
    for (int64_t p = 0; p < c.k; ++p) {
      a[static_cast<size_t>(p)] = a_at(c, x, r, p);
      if (c.format == GTN_BF16) a[static_cast<size_t>(p)] = from_bf16(to_bf16(a[static_cast<size_t>(p)]));
    }
    QuantizedRow row;
    if (c.format == GTN_S8) row = quantize(a);
    for (int64_t j = 0; j < c.n; ++j) {
      Sums& to = sums[static_cast<size_t>(r * c.n + j)];
      to = {};
      const float* column = w.data() + j * c.k;
      if (c.format == GTN_S8) {
        int64_t sum = 0;
        for (int64_t p = 0; p < c.k; ++p) {
          sum += static_cast<int64_t>(row.q[static_cast<size_t>(p)] - row.zero) * static_cast<int32_t>(column[p]);
        }
        const float scale = scales[static_cast<size_t>(j)];
        to.x = static_cast<double>(sum) * row.scale * scale;
        to.terms = std::fabs(to.x);
        to.rounded = static_cast<float>(static_cast<int32_t>(sum)) * (row.scale * scale);
      } else {
        for (int64_t p = 0; p < c.k; ++p) {
          const float product = a[static_cast<size_t>(p)] * column[p];
          to.x += static_cast<double>(a[static_cast<size_t>(p)]) * column[p];
          to.terms += std::fabs(static_cast<double>(a[static_cast<size_t>(p)]) * column[p]);
          to.naive += product;
        }
        if (is_f8(c.format)) {
          const float scale = scales[static_cast<size_t>(j)];
          to.x *= static_cast<double>(scale);
          to.terms *= static_cast<double>(scale);
          to.naive *= scale;
        }
      }
    }
  }
  return sums;
}

// Compares `out` with the reference. Per element, with u = 2^-24, in the order of the operations:
//   the sum: every order of k multiply-adds stays within k u / (1 - k u) * sum|a_i b_i| (Higham, Accuracy and
//     Stability of Numerical Algorithms, section 3.1), separate products add one u: c = k + 1. S8: the integers are
//     exact; conversion, product of the scales and their application round once each, c = 3; FP8: the scale rounds once more;
//   the bias: u of the result;
//   the activation: 1.13 (the largest slope of GELU; SiLU 1.1) times the error so far, and the function's own, at most
//     10 u of its value, and for GELU-tanh (4 + 2 |v|) u with its inner argument v;
//   the residual: u of the result, and the rounding to the dtype of `out`.
// Over the tensor the error in the root mean square is at most twice that of FP32 accumulation in index order, with one
// u of the result for the conversion of the reference.
void expect_close(const std::string& device, const Case& c, const Operands& x, const Buffer& out) {
  const double u = kUnitRoundoffF32;
  const std::vector<Sums> sums = products(c, x);
  const int64_t stride = c.n + c.out_gap;
  double error2 = 0, naive2 = 0, result2 = 0;
  int reported = 0;
  for (int64_t r = 0; r < c.m; ++r) {
    for (int64_t j = 0; j < c.n; ++j) {
      const Sums& sum = sums[static_cast<size_t>(r * c.n + j)];
      const double factor = c.format == GTN_S8 ? 3 : static_cast<double>(c.k) + (is_f8(c.format) ? 2 : 1);
      double value = sum.x, error = factor * u * sum.terms * 1.001 + DBL_MIN;
      if (c.bias) {
        value += static_cast<double>(x.bias.get(j));
        error += u * std::fabs(value) + u * error;
      }
      if (c.activation != GTN_ACT_NONE) {
        const double v = c.activation == GTN_ACT_GELU_TANH ? 2 * 0.8 * (value + 0.044715 * value * value * value) : 0;
        const double result = activate(c.activation, value);
        error = 1.13 * error + (10 + 2 * std::fabs(v)) * u * (std::fabs(result) + error) + std::fabs(value) * 0x1p-149;
        value = result;
      }
      if (c.residual) {
        value += static_cast<double>(x.residual.get(r * stride + j));
        error += u * (std::fabs(value) + error);
      }
      error += roundoff(c.out_dtype) * (std::fabs(value) + error) + smallest(c.out_dtype);
      const double got = out.get(kGuard + r * stride + j);
      if (!(std::fabs(got - value) <= error) && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected " << value << " within "
                      << error << ": " << c.text();
      }
      const double naive = static_cast<double>(sum.naive) - sum.x;
      error2 += (got - value) * (got - value);
      naive2 += naive * naive;
      result2 += value * value;
    }
  }
  if (c.format != GTN_S8 && c.activation == GTN_ACT_NONE && c.out_dtype == GTN_F32 && c.m * c.n >= 64) {
    EXPECT_LE(std::sqrt(error2), 2 * std::sqrt(naive2) + u * std::sqrt(result2)) << device << ": " << c.text();
  }
}

// S8 without a transcendental function has one right answer, bit for bit.
void expect_same_bits_as_reference(const std::string& device, const Case& c, const Operands& x, const Buffer& out) {
  ASSERT_TRUE(c.format == GTN_S8 && (c.activation == GTN_ACT_NONE || c.activation == GTN_ACT_RELU));
  const std::vector<Sums> sums = products(c, x);
  const int64_t stride = c.n + c.out_gap;
  int reported = 0;
  for (int64_t r = 0; r < c.m; ++r) {
    for (int64_t j = 0; j < c.n; ++j) {
      float value = sums[static_cast<size_t>(r * c.n + j)].rounded;
      if (c.bias) value += x.bias.get(j);
      if (c.activation == GTN_ACT_RELU && value < 0) value = 0;
      if (c.residual) value += x.residual.get(r * stride + j);
      if (c.out_dtype == GTN_BF16) value = from_bf16(to_bf16(value));
      if (c.out_dtype == GTN_F16) value = from_f16(to_f16(value));
      const float got = out.get(kGuard + r * stride + j);
      const bool same = std::isnan(value) ? std::isnan(got) : got == value;
      if (!same && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected exactly " << value << ": "
                      << c.text();
      }
    }
  }
}

void check(const OpenDevice& on, const std::string& device, const Case& c) {
  const Operands x(c);
  const Buffer out = run(on, c, x);
  expect_close(device, c, x, out);
  if (c.format == GTN_S8 && (c.activation == GTN_ACT_NONE || c.activation == GTN_ACT_RELU)) {
    expect_same_bits_as_reference(device, c, x, out);
  }
}

const int32_t kFormats[] = {GTN_F32, GTN_BF16, GTN_F16, GTN_S8, GTN_F8E4M3, GTN_F8E5M2};

const int32_t kFloats[] = {GTN_F32, GTN_BF16, GTN_F16};

// Every option in turn, in a different rhythm each, so that a few dozen cases meet most pairs.
Case with_options(int64_t m, int64_t k, int64_t n, int32_t format, uint64_t index) {
  Case c;
  c.m = m;
  c.k = k;
  c.n = n;
  c.format = format;
  c.a_dtype = index % 6 == 1 ? GTN_BF16 : index % 6 == 4 ? GTN_F16 : GTN_F32;
  c.w_dtype = index % 7 == 3 ? GTN_BF16 : index % 7 == 5 ? GTN_F16 : GTN_F32;
  c.out_dtype = index % 8 == 2 ? GTN_BF16 : index % 8 == 6 ? GTN_F16 : GTN_F32;
  c.activation = static_cast<int32_t>(index % 5);
  c.bias = index % 2 == 1;
  c.residual = index % 3 == 2;
  c.in_place = index % 2 == 0;
  c.transposed = index % 5 >= 3;
  c.a_gap = index % 4 == 1 ? 3 : 0;
  c.out_gap = index % 5 == 2 ? 5 : 0;
  c.seed = 1000 + index;
  return c;
}

class GemmTest : public testing::TestWithParam<std::string> {};

// Row tiles are 3, 6 and 12 rows, panels 4, 16 and 32 columns, and one row takes four panels at once.
TEST_P(GemmTest, SmallShapes) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int32_t format : kFormats) {
    for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 24, 25}) {
      for (int64_t n : {1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 127, 131}) {
        const int64_t k = 1 + static_cast<int64_t>(index * 13 % 41);
        check(on, GetParam(), with_options(m, k, n, format, index++));
      }
    }
  }
}

// k is cut into depths of at most 768, 1536 or 6144 (FP32), 1536, 3072 or 12288 (BF16), 3072, 6144 or 24576 (S8);
// groups of k are 1, 2 and 4.
TEST_P(GemmTest, Depths) {
  const OpenDevice on(GetParam(), 1);
  uint64_t index = 0;
  for (int32_t format : kFormats) {
    for (int64_t k : {1,    2,    3,    4,    5,    6,    7,    8,    63,   127,  384,  767,   768,  769,
                      1535, 1536, 1537, 1539, 3071, 3072, 3073, 3075, 6143, 6144, 6145, 12289, 24579}) {
      const int64_t m = 1 + static_cast<int64_t>(index * 5 % 14);
      const int64_t n = 1 + static_cast<int64_t>(index * 11 % 37);
      check(on, GetParam(), with_options(m, k, n, format, index++));
    }
  }
}

// Blocks of several row tiles and panels, both loop orders (k inside and outside), and several tasks.
TEST_P(GemmTest, Blocks) {
  const OpenDevice on(GetParam());
  const int64_t shapes[][3] = {{95, 127, 129}, {96, 384, 255},  {97, 65, 257},  {193, 40, 300}, {101, 1601, 70},
                               {32, 384, 384}, {60, 3500, 40}, {300, 31, 33}, {50, 6500, 36}, {11, 25000, 9}};
  uint64_t index = 0;
  for (int32_t format : kFormats) {
    for (const auto& shape : shapes) check(on, GetParam(), with_options(shape[0], shape[1], shape[2], format, index++));
  }
}

TEST_P(GemmTest, EveryActivationAndDtype) {
  const OpenDevice on(GetParam(), 2);
  for (int32_t format : kFormats) {
    for (int32_t activation = GTN_ACT_NONE; activation <= GTN_ACT_RELU; ++activation) {
      for (int32_t dtypes = 0; dtypes < 18; ++dtypes) {
        Case c = with_options(19, 29, 45, format, static_cast<uint64_t>(dtypes + 1));
        c.activation = activation;
        c.a_dtype = kFloats[dtypes % 3];
        c.out_dtype = kFloats[dtypes / 3 % 3];
        c.residual = dtypes >= 9;
        c.bias = true;
        check(on, GetParam(), c);
      }
    }
  }
}

TEST_P(GemmTest, EmptySizes) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    for (int32_t activation : {GTN_ACT_NONE, GTN_ACT_GELU_ERF}) {
      Case c = with_options(7, 0, 37, format, 5);  // k = 0: activation(bias) + residual
      c.activation = activation;
      c.bias = c.residual = true;
      check(on, GetParam(), c);
      check(on, GetParam(), with_options(0, 9, 5, format, 1));
      check(on, GetParam(), with_options(5, 9, 0, format, 1));
      check(on, GetParam(), with_options(0, 0, 0, format, 1));
    }
    Case c = with_options(20, 33, 17, format, 1);
    const Operands x(c);
    run(on, c, x, 0, 0);  // no rows: the guard check sees that nothing was written
  }
}

TEST_P(GemmTest, ThreadsChangeNoBit) {
  // Several tasks each, by columns and by rows, with k inside and outside.
  const int64_t shapes[][3] = {{1, 1000, 1100}, {5, 700, 700}, {130, 300, 200}, {97, 2100, 100}};
  for (int32_t format : kFormats) {
    for (const auto& shape : shapes) {
      Case c = with_options(shape[0], shape[1], shape[2], format, 7);
      c.activation = GTN_ACT_GELU_TANH;
      const Operands x(c);
      const OpenDevice one(GetParam(), 1), two(GetParam(), 2), three(GetParam(), 3);
      const Buffer out = run(one, c, x);
      EXPECT_TRUE(out.same_bytes(run(two, c, x))) << GetParam() << " 2 threads: " << c.text();
      EXPECT_TRUE(out.same_bytes(run(three, c, x))) << GetParam() << " 3 threads: " << c.text();
    }
  }
}

// A row gives the same bits alone, among a few and among many.
TEST_P(GemmTest, RowsDoNotDependOnTheirNumber) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    // At a stride of 8 KB rows are copied, from four on.
    Case c = with_options(110, format == GTN_F32 ? 2048 : 1700, 75, format, 2);
    c.activation = GTN_ACT_SILU;
    c.out_dtype = GTN_F32;
    const Operands x(c);
    const Buffer all = run(on, c, x);
    const int64_t stride = c.n + c.out_gap;
    for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 25, 97}) {
      const int64_t first = (rows * 7) % (c.m - rows);
      const Buffer some = run(on, c, x, first, rows);
      int64_t different = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < c.n; ++j) {
          different += some.get(kGuard + r * stride + j) != all.get(kGuard + (first + r) * stride + j);
        }
      }
      EXPECT_EQ(0, different) << GetParam() << " rows=" << rows << ": " << c.text();
    }
  }
}

// More rows than are prepared at once (16 MiB of them).
TEST_P(GemmTest, ManyRows) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    Case c;
    c.format = format;
    c.m = format == GTN_S8 ? 2200 : 1100;
    c.k = format == GTN_S8 ? 8000 : 4200;
    c.n = 5;
    c.a_dtype = GTN_BF16;
    c.residual = true;
    Operands x(c);
    const Buffer all = run(on, c, x);
    Case few = c;
    few.m = 9;
    for (int64_t first = 0; first + few.m <= c.m; first += 97) {
      Operands part(few);
      for (int64_t i = 0; i < few.m * c.k; ++i) part.a.set(i, x.a.get(first * c.k + i));
      for (int64_t i = 0; i < c.k * c.n; ++i) part.w.set(i, x.w.get(i));
      for (int64_t i = 0; i < few.m * c.n; ++i) part.residual.set(i, x.residual.get(first * c.n + i));
      const Buffer out = run(on, few, part);
      if (first == 97) expect_close(GetParam(), few, part, out);
      int64_t different = 0;
      for (int64_t i = 0; i < few.m * c.n; ++i) different += out.get(kGuard + i) != all.get(kGuard + first * c.n + i);
      EXPECT_EQ(0, different) << GetParam() << " first=" << first << ": " << c.text();
    }
  }
}

TEST_P(GemmTest, SpecialValuesStayInTheirRowsAndColumns) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFloats) {
    for (int32_t activation : {GTN_ACT_NONE, GTN_ACT_GELU_ERF, GTN_ACT_GELU_TANH, GTN_ACT_SILU, GTN_ACT_RELU}) {
      Case c = with_options(15, 21, 35, format, 3);
      c.a_dtype = c.w_dtype = GTN_F32;
      c.activation = activation;
      c.residual = false;
      Operands x(c);
      const int64_t a_stride = c.k + c.a_gap, stride = c.n + c.out_gap;
      x.a.set(2 * a_stride + 20, kNan);
      x.a.set(4 * a_stride + 0, kInf);
      x.w.set(c.transposed ? 34 * c.k + 3 : 3 * c.n + 34, kNan);
      const Buffer out = run(on, c, x);
      for (int64_t r = 0; r < c.m; ++r) {
        for (int64_t j = 0; j < c.n; ++j) {
          const float got = out.get(kGuard + r * stride + j);
          if (r == 2 || j == 34) {
            EXPECT_TRUE(std::isnan(got)) << GetParam() << " [" << r << ", " << j << "] " << got << ": " << c.text();
          } else if (r == 4) {
            const double limit = activate(activation, w_at(c, x, 0, j) > 0 ? 1e30 : -1e30);
            const float expected = limit > 1 ? kInf : limit == 0 ? 0 : -kInf;
            EXPECT_EQ(expected, got) << GetParam() << " [" << r << ", " << j << "]: " << c.text();
          } else {
            EXPECT_TRUE(std::isfinite(got)) << GetParam() << " [" << r << ", " << j << "] " << got << ": " << c.text();
          }
        }
      }
    }
  }
}

// Sums of denormals, of huge terms that cancel, and of a large offset.
TEST_P(GemmTest, ExtremeMagnitudes) {
  const OpenDevice on(GetParam());
  for (float deviation : {1e-39f, 1e-20f, 1e18f, 1e30f}) {
    Case c = with_options(13, 57, 41, GTN_F32, 4);
    c.activation = GTN_ACT_NONE;
    c.bias = c.residual = false;
    c.a_dtype = c.w_dtype = c.out_dtype = GTN_F32;
    const Operands x(c, deviation);
    const Buffer out = run(on, c, x);
    // Products of denormals may round by half a denormal's step each, which the relative bound does not cover.
    if (deviation > 1e-30f) {
      expect_close(GetParam(), c, x, out);
    } else {
      const std::vector<Sums> sums = products(c, x);
      for (int64_t i = 0; i < c.m * c.n; ++i) {
        const double got = out.get(kGuard + i / c.n * (c.n + c.out_gap) + i % c.n);
        const double bound = 2 * static_cast<double>(c.k) * 0x1p-149;
        EXPECT_NEAR(sums[static_cast<size_t>(i)].x, got, bound) << GetParam() << ": " << c.text();
      }
    }
  }
  for (int32_t format : kFormats) {
    Case c = with_options(9, 300, 33, format, 2);
    c.a_dtype = GTN_F32;
    c.activation = GTN_ACT_NONE;
    Operands x(c);
    for (int64_t i = 0; i < c.m * (c.k + c.a_gap); ++i) x.a.set(i, x.a.get(i) + 1e4f);
    expect_close(GetParam(), c, x, run(on, c, x));
  }
}

// Each row a corner of the quantizer; every level must agree with the plain code above on every bit.
TEST_P(GemmTest, QuantizerCorners) {
  const OpenDevice on(GetParam());
  for (int64_t k : {1, 2, 3, 7, 8, 15, 16, 17, 33, 100}) {
    for (int32_t a_dtype : kFloats) {
      Case c;
      c.format = GTN_S8;
      c.a_dtype = a_dtype;
      c.k = k;
      c.m = 24;
      c.n = 37;
      c.a_gap = 2;
      Operands x(c);
      std::mt19937_64 random(static_cast<uint64_t>(k));
      std::uniform_int_distribution<int> any(-300, 300);
      std::normal_distribution<float> normal;
      for (int64_t r = 0; r < c.m; ++r) {
        for (int64_t i = 0; i < k; ++i) {
          const float g = normal(random);
          float value = g;
          switch (r) {
            case 0: value = 0; break;
            case 1: value = -0.0f; break;
            case 2: value = i == k - 1 ? kNan : g; break;
            case 3: value = i == k - 1 ? kInf : g; break;
            case 4: value = i == k / 2 ? -kInf : g; break;
            case 5: value = i % 2 == 0 ? 3e38f : -3e38f; break;  // the range overflows from k = 2 on
            case 6: value = -std::fabs(g); break;
            case 7: value = std::fabs(g); break;
            case 8: value = g * 1e-39f; break;                          // denormals
            case 9: value = static_cast<float>(any(random)) * 0x1p-149f; break;  // a scale of one or two steps
            case 10: value = i % 2 == 0 ? 0x1p-149f : 0; break;         // the scale underflows to 0
            case 11: value = i % 2 == 0 ? 382 * 0x1p-149f : -5 * 0x1p-149f; break;
            case 12: value = i % 2 == 0 ? -382 * 0x1p-149f : 0; break;  // the zero point exceeds 255
            case 13: value = i == 0 ? 255.0f : 0.5f + static_cast<float>(i % 200); break;    // ties, scale 1
            case 14: value = i == 0 ? -255.0f : -0.5f - static_cast<float>(i % 200); break;  // ties, zero 255
            case 15: value = i == 0 ? 127.5f : i == 1 ? -127.5f : static_cast<float>(i % 100) - 50; break;  // z a tie
            case 16: value = g + 1e6f; break;
            case 17: value = g - 1e6f; break;
            case 18: value = 1.7e38f * (i % 2 == 0 ? 1.0f : -1.0f); break;  // a range just below overflow
            case 19: value = FLT_MAX; break;
            case 20: value = -FLT_MAX; break;
            case 21: value = i == 0 ? 1.0f : 1e-30f; break;
            case 22: value = i == 0 ? 25.5f : (static_cast<float>(i % 200) + 0.5f) * 0.1f; break;  // nearly ties
            case 23:  // and the floats beside them
              value = (static_cast<float>(i % 200) + 0.5f) * 0.3f;
              value = i == 0 ? 76.5f : std::nextafter(value, i % 2 == 0 ? 0.0f : 100.0f);
              break;
            default: break;
          }
          x.a.set(r * (k + c.a_gap) + i, value);
        }
      }
      for (int64_t p = 0; p < k; ++p) {  // weights of 190 steps on a scale of one: clamped
        x.w.set(c.transposed ? 5 * k + p : p * c.n + 5, (p % 3 == 0 ? 190 : -190) * 0x1p-149f);
      }
      const Buffer out = run(on, c, x);
      expect_same_bits_as_reference(GetParam(), c, x, out);
      for (int64_t j = 0; j < c.n; ++j) {
        for (int64_t r : {2, 3, 4}) {
          EXPECT_TRUE(std::isnan(out.get(kGuard + r * c.n + j))) << GetParam() << " row " << r;
        }
        if (k > 1) {
          EXPECT_TRUE(std::isnan(out.get(kGuard + 5 * c.n + j))) << GetParam();
        }
        EXPECT_EQ(0, out.get(kGuard + j)) << GetParam();
      }
    }
  }
}

// Which unit multiplied: vdpbf16ps, tdpbf16ps and bfdot take a denormal weight for zero, a widened one is a number like any other.
TEST_P(GemmTest, Bf16UnitIsThatOfTheLevel) {
  const OpenDevice on(GetParam());
  Case c;
  c.format = GTN_BF16;
  c.a_dtype = GTN_BF16;
  c.w_dtype = GTN_BF16;
  for (int64_t rows : {1, 3, 30}) {
    c.m = rows;
    c.k = 6;
    c.n = 40;
    Operands x(c);
    x.a.fill(0x1p100f);
    x.w.fill(0x1p-130f);
    const Buffer out = run(on, c, x);
    const bool flushes = GetParam() == "cpu:bf16" || GetParam() == "cpu:amx" || GetParam() == "cpu:i8mm";
    const float expected = flushes ? 0.0f : 6 * 0x1p-30f;
    for (int64_t i = 0; i < c.m * c.n; ++i) EXPECT_EQ(expected, out.get(kGuard + i)) << GetParam() << " " << i;
  }
}

// What F16 has that others have not: subnormal weights count, in every step of the smallest; from 65520 on they are infinite.
// Activations stay as they are, beyond the range of F16 too.
TEST_P(GemmTest, HalvesOfEveryMagnitude) {
  const OpenDevice on(GetParam());
  for (int32_t w_dtype : {GTN_F32, GTN_F16}) {
    for (int64_t rows : {1, 3, 30}) {
      Case c;
      c.format = GTN_F16;
      c.w_dtype = w_dtype;
      c.m = rows;
      c.k = 1;
      c.n = 1024 + 4;
      Operands x(c);
      x.a.fill(0x1p20f);
      for (int64_t j = 0; j < 1024; ++j) x.w.set(j, static_cast<float>(j) * (j % 2 == 0 ? 0x1p-24f : -0x1p-24f));
      const float large[] = {65504.0f, w_dtype == GTN_F32 ? 65519.0f : 65504.0f, 65520.0f, -kInf};
      for (int64_t j = 0; j < 4; ++j) x.w.set(1024 + j, large[j]);
      const Buffer out = run(on, c, x);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < 1024; ++j) {
          ASSERT_EQ(static_cast<float>(j % 2 == 0 ? j : -j) * 0x1p-4f, out.get(kGuard + r * c.n + j)) << GetParam() << " " << j;
        }
        const float expected[] = {65504.0f * 0x1p20f, 65504.0f * 0x1p20f, kInf, -kInf};
        for (int64_t j = 0; j < 4; ++j) EXPECT_EQ(expected[j], out.get(kGuard + r * c.n + 1024 + j)) << GetParam() << " " << j;
      }
    }
  }
}

// What a code of FP8 stands for.
float f8_number(int32_t format, int bits) {
  const int mantissa = format == GTN_F8E4M3 ? 3 : 2, bias = format == GTN_F8E4M3 ? 7 : 15;
  const int exponent = (bits & 127) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  const int steps = exponent == 0 ? fraction : fraction + (1 << mantissa);
  float number = std::ldexp(static_cast<float>(steps), std::max(exponent, 1) - bias - mantissa);
  if (format == GTN_F8E5M2 && exponent == 31) number = fraction == 0 ? kInf : kNan;
  if (format == GTN_F8E4M3 && (bits & 127) == 127) number = kNan;
  return bits >= 128 ? -number : number;
}

// Every number of either format, and its NaN and infinities, as they come from elsewhere; numbers are exact and so are sums
// of one.
TEST_P(GemmTest, EveryNumberOfFp8) {
  const OpenDevice on(GetParam());
  for (int32_t format : {GTN_F8E4M3, GTN_F8E5M2}) {
    std::vector<uint8_t> numbers(256);
    std::vector<float> scales(256, 0.5f);
    for (size_t i = 0; i < 256; ++i) numbers[i] = static_cast<uint8_t>(i);
    const gtn_quantized_desc desc = {sizeof desc, format, 0, 1, 256, 0};
    gtn_weights weights = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_weights_pack_quantized(on.device, &desc, numbers.data(), scales.data(), nullptr, &weights, &message))
        << message.text;
    for (int64_t rows : {1, 2, 4, 30}) {
      Case c;
      c.format = format;
      c.m = rows;
      c.n = 256;
      const gtn_plan plan = make_plan(on, c);
      const std::vector<float> a(static_cast<size_t>(rows), 2.0f);
      std::vector<float> out(static_cast<size_t>(rows * 256));
      ASSERT_EQ(GTN_OK, gtn_gemm_run(plan, on.stream, weights, rows, a.data(), nullptr, nullptr, out.data())) << on.message();
      for (int64_t i = 0; i < rows * 256; ++i) {
        const float expected = f8_number(format, static_cast<int>(i % 256)), got = out[static_cast<size_t>(i)];
        EXPECT_TRUE(std::isnan(expected) ? std::isnan(got) : got == expected)
            << GetParam() << " " << format << " " << i % 256 << " is " << got << ", expected " << expected;
      }
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    }
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
  }
}

// Weights that come in FP8, in groups with scales of their own.
TEST_P(GemmTest, ReadyFp8) {
  const OpenDevice on(GetParam());
  for (int32_t format : {GTN_F8E4M3, GTN_F8E5M2}) {
    constexpr int64_t kGroups = 2, kK = 37, kN = 41, kRows = 9;
    std::mt19937_64 random(5);
    std::vector<uint8_t> numbers(kGroups * kN * kK);
    std::vector<float> scales(kGroups * kN), a(kRows * kK), out(kRows * kN);
    for (uint8_t& number : numbers) number = static_cast<uint8_t>(random() % 0x70 + (random() % 2) * 128);
    for (float& scale : scales) scale = static_cast<float>(1 + random() % 100) * 0x1p-9f;
    for (float& value : a) value = static_cast<float>(static_cast<int64_t>(random() % 17) - 8);
    const gtn_quantized_desc ready = {sizeof ready, format, kGroups, kK, kN, 0};
    gtn_weights weights = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_weights_pack_quantized(on.device, &ready, numbers.data(), scales.data(), nullptr, &weights, &message))
        << message.text;
    gtn_weights_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(GTN_OK, gtn_weights_query(weights, &info, &message));
    EXPECT_TRUE(info.format == format && info.k == kK && info.n == kN && info.groups == kGroups && info.group_size == 0);
    gtn_gemm_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format;
    desc.a = tensor(GTN_F32, {kRows, kK});
    desc.out = tensor(GTN_F32, {kRows, kN});
    desc.groups = kGroups;
    gtn_plan plan = 0;
    ASSERT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text;
    const int64_t offsets[] = {0, 4, kRows};
    ASSERT_EQ(GTN_OK, gtn_gemm_run_with(plan, on.stream, weights, kRows, kRows, a.data(), nullptr, nullptr, out.data(), offsets,
                                        nullptr, nullptr, nullptr))
        << on.message();
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < kN; ++j) {
        const int64_t column = (r < 4 ? 0 : kN) + j;
        double sum = 0, terms = 0;
        for (int64_t p = 0; p < kK; ++p) {
          const double number = static_cast<double>(f8_number(format, numbers[static_cast<size_t>(column * kK + p)]));
          const double term = static_cast<double>(a[static_cast<size_t>(r * kK + p)]) * number;
          sum += term;
          terms += std::fabs(term);
        }
        const double scale = static_cast<double>(scales[static_cast<size_t>(column)]);
        EXPECT_NEAR(sum * scale, out[static_cast<size_t>(r * kN + j)], (kK + 2) * kUnitRoundoffF32 * terms * scale)
            << GetParam() << " " << format << " [" << r << ", " << j << "]";
      }
    }
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));

    scales[50] = kInf;
    EXPECT_EQ(GTN_INVALID_ARGUMENT,
              gtn_weights_pack_quantized(on.device, &ready, numbers.data(), scales.data(), nullptr, &weights, &message));
    EXPECT_NE(nullptr, std::strstr(message.text, "scales[n = 50] is inf")) << message.text;
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack_quantized(on.device, &ready, numbers.data(), scales.data(), numbers.data(),
                                                               &weights, &message));
    EXPECT_NE(nullptr, std::strstr(message.text, "zero_points: is not null")) << message.text;
  }
}

// Weights are rounded to nearest, ties to even: every number, every midpoint and the floats beside both, in columns whose
// largest is that of the format, so that the scale is 1. A column whose scale is 0 is zeros.
TEST_P(GemmTest, RoundingToFp8) {
  const OpenDevice on(GetParam());
  for (int32_t format : {GTN_F8E4M3, GTN_F8E5M2}) {
    const float most = most_of(format);
    const int last = format == GTN_F8E4M3 ? 0x7e : 0x7b;
    ASSERT_EQ(most, f8_number(format, last));
    std::vector<float> values, expected;
    const auto add = [&](float value, float rounded) {
      values.insert(values.end(), {value, -value});
      expected.insert(expected.end(), {rounded, -rounded});
    };
    for (int bits = 0; bits <= last; ++bits) {
      const float number = f8_number(format, bits);
      add(number, number);
      if (bits > 0) add(std::nextafter(number, 0.0f), number);
      if (bits == last) break;
      const float next = f8_number(format, bits + 1), middle = number + (next - number) / 2;
      add(std::nextafter(number, most), number);
      add(std::nextafter(middle, 0.0f), number);
      add(middle, bits % 2 == 0 ? number : next);
      add(std::nextafter(middle, most), next);
    }
    for (int64_t rows : {1, 30}) {
      Case c;
      c.format = format;
      c.m = rows;
      c.k = 2;
      c.n = static_cast<int64_t>(values.size()) + 3;
      Operands x(c);
      for (int64_t r = 0; r < rows; ++r) {
        x.a.set(r * 2, 0.0f);
        x.a.set(r * 2 + 1, 1.0f);
      }
      x.w.fill(0.0f);
      for (int64_t j = 0; j < c.n - 3; ++j) {
        x.w.set(j, most);
        x.w.set(c.n + j, values[static_cast<size_t>(j)]);
      }
      // 2^-149 and half of `most` times it make a scale that rounds to 0, a step more one that does not.
      const float small[] = {0x1p-149f, most / 2 * 0x1p-149f, (most / 2 + 1) * 0x1p-149f};
      for (int64_t j = 0; j < 3; ++j) x.w.set(2 * c.n - 3 + j, small[j]);
      const Buffer out = run(on, c, x);
      for (int64_t i = 0; i < rows * c.n; ++i) {
        const int64_t j = i % c.n;
        const float got = out.get(kGuard + i);
        if (j < c.n - 3) {
          const size_t at = static_cast<size_t>(j);
          EXPECT_EQ(expected[at], got) << GetParam() << " " << format << " " << values[at];
        } else {
          EXPECT_EQ(j < c.n - 1 ? 0.0f : most / 2 * 0x1p-149f, got) << GetParam() << " " << format << " column " << j;
        }
      }
    }
  }
}

// A row that cannot be quantized is NaN through bias, every activation and the residual.
TEST_P(GemmTest, QuantizedNanSurvivesTheEpilogue) {
  const OpenDevice on(GetParam());
  for (int32_t activation = GTN_ACT_NONE; activation <= GTN_ACT_RELU; ++activation) {
    for (int32_t out_dtype : kFloats) {
      Case c;
      c.format = GTN_S8;
      c.m = 3;
      c.k = 20;
      c.n = 19;
      c.activation = activation;
      c.out_dtype = out_dtype;
      c.bias = c.residual = true;
      Operands x(c);
      x.a.set(c.k + 4, kNan);
      const Buffer out = run(on, c, x);
      for (int64_t r = 0; r < c.m; ++r) {
        for (int64_t j = 0; j < c.n; ++j) {
          EXPECT_EQ(r == 1, std::isnan(out.get(kGuard + r * c.n + j)))
              << GetParam() << " [" << r << ", " << j << "]: " << c.text();
        }
      }
    }
  }
}

// The longest k at the largest values: sums reach 255 * 127 * 66311 = 2^31 - 1913, and z * column sum as well.
TEST_P(GemmTest, LongestExactSums) {
  const OpenDevice on(GetParam());
  Case c;
  c.format = GTN_S8;
  c.m = 5;
  c.k = 66311;
  c.n = 6;
  Operands x(c);
  for (int64_t p = 0; p < c.k; ++p) {
    const float row[] = {1.0f, -1.0f, p % 2 == 0 ? 1.0f : -1.0f, p == 0 ? -1.0f : 1e-3f, p < c.k / 2 ? 1.0f : 0.0f};
    const float sign = p % 2 == 0 ? 1.0f : -1.0f;
    const float column[] = {1.0f, -1.0f, sign, -sign, p < c.k / 2 ? 1.0f : -1.0f, 0.0f};
    for (int64_t r = 0; r < c.m; ++r) x.a.set(r * c.k + p, row[r]);
    for (int64_t j = 0; j < c.n; ++j) x.w.set(p * c.n + j, column[j]);
  }
  const Buffer out = run(on, c, x);
  expect_same_bits_as_reference(GetParam(), c, x, out);
  // What the first element must be, by hand: 255 * 127 * k times 1/255 times 1/127.
  EXPECT_NEAR(66311.0, out.get(kGuard), 0.02) << GetParam();
  EXPECT_NEAR(-66311.0, out.get(kGuard + c.n), 0.02) << GetParam();
}

// Weights: dense, transposed and BF16 sources that hold the same numbers pack to the same thing.
TEST_P(GemmTest, SourceStridesAndDtypes) {
  const OpenDevice on(GetParam(), 2);
  for (int32_t format : kFormats) {
    Case c = with_options(8, 77, 50, format, 0);
    c.w_dtype = GTN_BF16;
    const Operands x(c);
    const Buffer expected = run(on, c, x);
    for (int variant = 0; variant < 3; ++variant) {
      Case other = c;
      other.w_dtype = variant < 2 ? GTN_F32 : GTN_BF16;
      other.transposed = variant > 0;
      Operands y(other);
      for (int64_t i = 0; i < c.m * (c.k + c.a_gap); ++i) y.a.set(i, x.a.get(i));
      for (int64_t i = 0; i < c.m * (c.n + c.out_gap); ++i) y.residual.set(i, x.residual.get(i));
      for (int64_t j = 0; j < c.n; ++j) y.bias.set(j, x.bias.get(j));
      for (int64_t p = 0; p < c.k; ++p) {
        for (int64_t j = 0; j < c.n; ++j) y.w.set(other.transposed ? j * c.k + p : p * c.n + j, x.w.get(p * c.n + j));
      }
      EXPECT_TRUE(expected.same_bytes(run(on, other, y)))
          << GetParam() << " variant " << variant << ": " << other.text();
    }
  }
}

TEST_P(GemmTest, ColumnScales) {
  const OpenDevice on(GetParam());
  Case c;
  c.format = GTN_S8;
  c.m = 4;
  c.k = 9;
  c.n = 20;
  Operands x(c);
  for (int64_t p = 0; p < c.k; ++p) {
    x.w.set(p * c.n + 0, 0.0f);                                             // amax 0
    x.w.set(p * c.n + 1, p == 0 ? 0x1p-149f : 0.0f);                        // a scale that underflows to 0
    x.w.set(p * c.n + 2, static_cast<float>(p * 20 + 3) * 0x1p-149f);       // a scale of one step: clamps at 127
    x.w.set(p * c.n + 3, p == 0 ? 127.0f : static_cast<float>(p) + 0.5f);   // ties
    x.w.set(p * c.n + 4, p == 0 ? -127.0f : static_cast<float>(p) - 4.5f);  // ties of both signs
    x.w.set(p * c.n + 5, p % 2 == 0 ? FLT_MAX : -FLT_MAX);
    x.w.set(p * c.n + 6, p == 0 ? 0x1p-126f : 0x1p-149f);
  }
  const Buffer out = run(on, c, x);
  expect_same_bits_as_reference(GetParam(), c, x, out);
  for (int64_t r = 0; r < c.m; ++r) EXPECT_EQ(0, out.get(kGuard + r * c.n)) << GetParam();
}

TEST_P(GemmTest, WeightsThatAreNotFinite) {
  const OpenDevice on(GetParam());
  const std::pair<int32_t, const char*> formats[] = {
      {GTN_S8, "GTN_S8 "}, {GTN_F8E4M3, "GTN_F8E4M3 "}, {GTN_F8E5M2, "GTN_F8E5M2 "}};
  for (const auto& [format, name] : formats) {
    for (float bad : {kNan, kInf, -kInf}) {
      for (bool transposed : {false, true}) {
        Case c = with_options(1, 40, 50, format, 0);
        c.transposed = transposed;
        Operands x(c);
        x.w.set(transposed ? 17 * c.k + 31 : 31 * c.n + 17, bad);
        x.w.set(transposed ? 3 * c.k + 32 : 32 * c.n + 3, bad);  // a later k: not the one that is named
        Message message;
        EXPECT_EQ(0u, pack(on, c, x, &message, GTN_INVALID_ARGUMENT));
        const std::string text = message.text;
        EXPECT_NE(std::string::npos, text.find("k = 31, n = 17")) << text;
        EXPECT_NE(std::string::npos, text.find(std::isnan(bad) ? "nan" : bad > 0 ? "is inf" : "is -inf")) << text;
        EXPECT_NE(std::string::npos, text.find(name)) << text;
      }
    }
  }
}

TEST_P(GemmTest, WeightsInfo) {
  const OpenDevice on(GetParam());
  for (int32_t format : kFormats) {
    const Case c = with_options(1, 100, 70, format, 0);
    const Operands x(c);
    Message message;
    const gtn_weights weights = pack(on, c, x, &message);
    gtn_weights_info info = {};
    info.size = sizeof info;
    ASSERT_EQ(GTN_OK, gtn_weights_query(weights, &info, &message)) << message.text;
    EXPECT_EQ(format, info.format);
    EXPECT_EQ(c.k, info.k);
    EXPECT_EQ(c.n, info.n);
    const int64_t element = format == GTN_F32 ? 4 : format == GTN_BF16 || format == GTN_F16 ? 2 : 1;
    EXPECT_GE(info.bytes, c.k * c.n * element);
    EXPECT_LE(info.bytes, (c.k + 64) * (c.n + 32) * element + 2048);
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  }
}

// Weights of another k, n or format: the message names both, and `out` stays as it was.
TEST_P(GemmTest, WeightsThatDoNotFitThePlan) {
  const OpenDevice on(GetParam());
  for (int wrong = 0; wrong < 3; ++wrong) {
    Case c;
    c.m = 4;
    c.k = 24;
    c.n = 18;
    Case other = c;
    if (wrong == 0) other.k = 23;
    if (wrong == 1) other.n = 19;
    if (wrong == 2) other.format = GTN_S8;
    const Operands x(c), y(other);
    Message message;
    const gtn_weights weights = pack(on, other, y, &message);
    const gtn_plan plan = make_plan(on, c);
    Buffer out(GTN_F32, c.m * c.n);
    out.fill(kSentinel);
    EXPECT_EQ(GTN_INVALID_ARGUMENT,
              gtn_gemm_run(plan, on.stream, weights, c.m, x.a.data(), nullptr, nullptr, out.data()));
    const std::string text = on.message();
    if (wrong == 0) {
      EXPECT_TRUE(text.find("23") != std::string::npos && text.find("24") != std::string::npos) << text;
    } else if (wrong == 1) {
      EXPECT_TRUE(text.find("19") != std::string::npos && text.find("18") != std::string::npos) << text;
    } else {
      EXPECT_TRUE(text.find("S8") != std::string::npos && text.find("F32") != std::string::npos) << text;
    }
    for (int64_t i = 0; i < out.size(); ++i) ASSERT_EQ(kSentinel, out.get(i));
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message));
  }
}

TEST_P(GemmTest, PlanInfo) {
  const OpenDevice on(GetParam());
  Case c;
  c.m = 10;
  c.k = 20;
  c.n = 30;
  c.bias = c.residual = true;
  const gtn_plan plan = make_plan(on, c);
  gtn_plan_info info = {};
  info.size = sizeof info;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_EQ(GTN_OP_GEMM, info.op);
  EXPECT_EQ(2.0 * 10 * 20 * 30, info.flops);
  EXPECT_EQ(4.0 * (10 * 20 + 20 * 30 + 2 * 10 * 30 + 30), info.bytes);
  EXPECT_GE(info.workspace_bytes, 0);
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
}

std::string test_name(const testing::TestParamInfo<std::string>& info) { return info.param.substr(4); }

INSTANTIATE_TEST_SUITE_P(Levels, GemmTest, testing::ValuesIn(cpu_devices()), test_name);

// S8 without a transcendental function, and the whole of each case's memory, is the same on every level.
TEST(GemmLevels, QuantizedProductsAgreeToTheBit) {
  const std::vector<std::string> devices = cpu_devices();
  for (uint64_t index = 0; index < 12; ++index) {
    const int64_t m = 1 + static_cast<int64_t>(index * 9), k = 1 + static_cast<int64_t>(index * 211);
    Case c = with_options(m, k, 70, GTN_S8, index);
    c.activation = index % 2 == 0 ? GTN_ACT_NONE : GTN_ACT_RELU;
    const Operands x(c);
    const Buffer first = run(OpenDevice(devices[0], 1), c, x);
    for (const std::string& device : devices) {
      EXPECT_TRUE(first.same_bytes(run(OpenDevice(device, 2), c, x)))
          << device << " against " << devices[0] << ": " << c.text();
    }
  }
}

}  // namespace
}  // namespace gatun::test
