// The norm family against double precision.
#include "device_test.h"

#include <algorithm>

#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -77.0f;  // the same in BF16
constexpr int64_t kLead = 3;         // elements of a buffer before and after what a run sees

// Which input an output shares its memory with.
enum Alias { kNone, kX, kResidual };

struct Problem {
  int32_t kind = GTN_NORM_LAYER;
  int32_t x_dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t rows = 1, n = 1;
  int64_t x_stride = 1, out_stride = 1;
  float epsilon = 1e-5f;
  bool residual = false, beta = false, sum = false;
  Alias out_is = kNone, sum_is = kNone;

  std::string text() const {
    static const char* const aliases[] = {"", "x", "residual"};
    char line[240];
    std::snprintf(line, sizeof line,
                  "norm %s x=%s out=%s rows=%lld n=%lld strides=%lld,%lld epsilon=%g%s%s%s out_is=%s sum_is=%s",
                  kind == GTN_NORM_LAYER ? "layer" : "rms", x_dtype == GTN_F32 ? "f32" : "bf16",
                  out_dtype == GTN_F32 ? "f32" : "bf16", static_cast<long long>(rows), static_cast<long long>(n),
                  static_cast<long long>(x_stride), static_cast<long long>(out_stride), static_cast<double>(epsilon),
                  residual ? " residual" : "", beta ? " beta" : "", sum ? " sum" : "", aliases[out_is],
                  aliases[sum_is]);
    return line;
  }
};

int64_t extent(int64_t rows, int64_t n, int64_t stride) {
  return kLead + (rows > 0 ? (rows - 1) * stride + n : 0) + kLead;
}

// The buffers of a run; x and residual, out and sum start kLead elements in.
struct Data {
  Buffer x, residual, out, sum;
  std::vector<float> gamma, beta;

  explicit Data(const Problem& p)
      : x(p.x_dtype, extent(p.rows, p.n, p.x_stride)),
        residual(p.x_dtype, x.size()),
        out(p.out_dtype, extent(p.rows, p.n, p.out_stride)),
        sum(p.x_dtype, x.size()),
        gamma(static_cast<size_t>(p.n), 1.0f),
        beta(static_cast<size_t>(p.n), 0.0f) {
    x.fill(kSentinel);
    residual.fill(kSentinel);
    out.fill(kSentinel);
    sum.fill(kSentinel);
  }

  void randomize(uint64_t seed, float offset, float deviation) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < x.size(); ++i) {
      x.set(i, offset + deviation * normal(random));
      residual.set(i, deviation * normal(random));
    }
    for (float& g : gamma) g = normal(random);
    for (float& b : beta) b = normal(random);
  }

  Buffer& out_buffer(const Problem& p) { return p.out_is == kX ? x : p.out_is == kResidual ? residual : out; }
  Buffer& sum_buffer(const Problem& p) { return p.sum_is == kX ? x : p.sum_is == kResidual ? residual : sum; }
};

void run(OpenDevice& on, const Problem& p, int64_t planned, Data& data) {
  Message message;
  gtn_norm_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = p.kind;
  desc.x = tensor(p.x_dtype, {planned, p.n});
  desc.x.strides[0] = p.x_stride;
  desc.out = tensor(p.out_dtype, {planned, p.n});
  desc.out.strides[0] = p.out_stride;
  desc.epsilon = p.epsilon;
  desc.has_residual = p.residual ? 1 : 0;
  desc.has_beta = p.beta ? 1 : 0;
  desc.has_sum = p.sum ? 1 : 0;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const int64_t lead = kLead * Buffer::element_size(p.x_dtype);
  char* out = static_cast<char*>(data.out_buffer(p).data()) + kLead * Buffer::element_size(p.out_dtype);
  EXPECT_EQ(GTN_OK, gtn_norm_run(plan, on.stream, p.rows, static_cast<char*>(data.x.data()) + lead,
                                 p.residual ? static_cast<char*>(data.residual.data()) + lead : nullptr,
                                 data.gamma.data(), p.beta ? data.beta.data() : nullptr, out,
                                 p.sum ? static_cast<char*>(data.sum_buffer(p).data()) + lead : nullptr))
      << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

int lanes_of(const std::string& device) {
  if (device == "cpu:scalar") return 1;
  if (device == "cpu:neon" || device == "cpu:dotprod" || device == "cpu:i8mm") return 4;
  return device == "cpu:avx2" ? 8 : 16;
}

// A row in double, with the bound on each element's error. h = x + residual is an FP32 addition by definition.
//
// With u = 2^-24 and depth = n / (4 lanes) + 8, the roundings on the way of an element through a sum:
//   LayerNorm: c = h - m with m the rounded mean, off by R <= u |mean h| + depth u mean|h - h_0| (its sum is taken from
//   the first element on), and at least by a denormal's step; so |c| is at most |c_true| + R, and its rounding u of
//   that. mean c, which corrects m, is off by (depth + 2) u mean|c|. The variance is off by (depth + 4) u (var + R^2) +
//   2 R (depth + 2) u mean|c|, half of which, relatively, goes to the factor, and the square root and the quotient add
//   2 u. The second subtraction, two products and the sum with beta are 4 u of what they give.
//   RMSNorm: the mean square is off by (depth + 2) u relatively, and half of that goes to the factor; 5 u for the rest.
struct Row {
  std::vector<double> value, bound;
};

Row reference(const Problem& p, const std::vector<float>& h, const Data& data, int lanes) {
  constexpr double u = kUnitRoundoffF32;
  const size_t n = h.size();
  const double count = static_cast<double>(n), depth = count / (4.0 * lanes) + 8.0;
  Row row;
  double mean = 0.0, mean_shifted = 0.0;
  for (float v : h) {
    mean += static_cast<double>(v) / count;
    mean_shifted += std::fabs(static_cast<double>(v) - static_cast<double>(h[0])) / count;
  }
  const bool layer = p.kind == GTN_NORM_LAYER;
  if (!layer) mean = 0.0;
  double variance = 0.0, mean_centred = 0.0;
  for (float v : h) {
    const double c = static_cast<double>(v) - mean;
    variance += c * c / count;
    mean_centred += std::fabs(c) / count;
  }
  const double total = variance + static_cast<double>(p.epsilon);
  const double factor = 1.0 / std::sqrt(total);
  const double R = layer ? u * std::fabs(mean) + depth * u * mean_shifted + 0x1p-149 : 0.0;
  const double c_mean = mean_centred + R;
  const double relative =
      layer ? 0.5 * u * ((depth + 4.0) * (variance + R * R) + 2.0 * R * (depth + 2.0) * c_mean) / total + 6.0 * u
            : 0.5 * (depth + 2.0) * u + 5.0 * u;
  for (size_t i = 0; i < n; ++i) {
    const double c = static_cast<double>(h[i]) - mean, gamma = static_cast<double>(data.gamma[i]);
    const double beta = p.beta ? static_cast<double>(data.beta[i]) : 0.0;
    const double value = c * factor * gamma + beta;
    double bound = relative * std::fabs(c * factor * gamma) + u * std::fabs(value);
    if (layer)
      bound += factor * std::fabs(gamma) * (2.0 * u * (std::fabs(c) + R) + (depth + 2.0) * u * c_mean + 0x1p-148);
    row.value.push_back(value);
    row.bound.push_back(1.001 * bound + 0x1p-148);
  }
  return row;
}

// One problem on one device with the given data: every element, every element around them, and every alias.
void check(OpenDevice& on, const std::string& device, const Problem& p, const Data& given) {
  Data data = given;
  run(on, p, p.rows + 2, data);
  const Buffer& out = data.out_buffer(p);
  const Buffer& sum = data.sum_buffer(p);
  std::vector<bool> written(static_cast<size_t>(out.size()));
  Buffer expected_sum = p.sum_is == kX ? given.x : p.sum_is == kResidual ? given.residual : given.sum;
  std::vector<float> h(static_cast<size_t>(p.n));
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t at = kLead + r * p.x_stride + i;
      float v = given.x.get(at);
      if (p.residual) v += given.residual.get(at);
      h[static_cast<size_t>(i)] = v;
      if (p.sum) expected_sum.set(at, v);
    }
    const Row expected = reference(p, h, given, lanes_of(device));
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t at = kLead + r * p.out_stride + i;
      written[static_cast<size_t>(at)] = true;
      const double got = static_cast<double>(out.get(at));
      const double want = expected.value[static_cast<size_t>(i)];
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(got)) << device << " " << p.text() << " row " << r << " column " << i << ": got " << got;
        continue;
      }
      if (std::isinf(want)) {
        ASSERT_EQ(want, got) << device << " " << p.text() << " row " << r << " column " << i;
        continue;
      }
      double bound = expected.bound[static_cast<size_t>(i)];
      // BF16 has 8 significant bits, so half a step is at most 2^-8 of the value; below the normal range it is 2^-134.
      if (p.out_dtype == GTN_BF16) bound += 0x1p-8 * (std::fabs(want) + bound) + 0x1p-134;
      ASSERT_LE(std::fabs(got - want), bound)
          << device << " " << p.text() << " row " << r << " column " << i << ": got " << got << ", expected " << want
          << ", of h = " << h[static_cast<size_t>(i)];
    }
  }
  if (p.sum) {
    ASSERT_TRUE(expected_sum.same_bytes(sum))
        << device << " " << p.text() << ": sum is not x + residual, or more was written";
  }
  const Buffer& out_before = p.out_is == kX ? given.x : p.out_is == kResidual ? given.residual : given.out;
  for (int64_t i = 0; i < out.size(); ++i) {
    if (written[static_cast<size_t>(i)]) continue;
    ASSERT_EQ(out_before.get(i), out.get(i))
        << device << " " << p.text() << ": element " << i << " around out was written";
  }
  if (p.out_is != kX && p.sum_is != kX) {
    ASSERT_TRUE(given.x.same_bytes(data.x)) << device << " " << p.text() << ": x was written";
  }
  if (p.out_is != kResidual && p.sum_is != kResidual) {
    ASSERT_TRUE(given.residual.same_bytes(data.residual)) << device << " " << p.text() << ": residual was written";
  }
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed, float offset = 0.5f,
                  float deviation = 1.0f) {
  Data data(p);
  data.randomize(seed, offset, deviation);
  SCOPED_TRACE("seed=" + std::to_string(seed));
  check(on, device, p, data);
}

TEST(Norm, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 3);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Message message;
        gtn_norm_desc desc = {};
        desc.size = sizeof desc;
        desc.kind = kind;
        desc.x = tensor(dtype, {5, 7});
        desc.out = tensor(GTN_F32, {5, 7});
        desc.has_residual = 1;
        desc.has_sum = 1;
        gtn_plan plan = 0;
        ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        const std::string level = name.substr(name.find(':') + 1);
        const std::string expected = "cpu." + level + ".norm." + (kind == GTN_NORM_LAYER ? "layer" : "rms") +
                                     (dtype == GTN_F32 ? ".f32" : ".bf16");
        EXPECT_EQ(expected, info.kernel);
        EXPECT_EQ(GTN_OP_NORM, info.op);
        EXPECT_EQ(35.0 * static_cast<double>(3 * Buffer::element_size(dtype) + 4) + 7 * 4, info.bytes);
        EXPECT_GE(info.flops, 35.0 * 5);
        EXPECT_EQ(dtype == GTN_F32 ? 0 : 3 * 64,
                  info.workspace_bytes);  // a row of FP32 for each thread, where one is needed
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
      }
    }
  }
}

// Every combination of kind, dtypes, residual, beta and sum over the widths around vectors and unrolled loops.
TEST(Norm, ShapesStridesDtypesAndOptions) {
  const int64_t widths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 127, 129, 1009, 8191, 8193};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1;
    for (int64_t n : widths) {
      for (int options = 0; options < 64; ++options) {
        Problem p;
        p.kind = options & 1 ? GTN_NORM_LAYER : GTN_NORM_RMS;
        p.x_dtype = options & 2 ? GTN_F32 : GTN_BF16;
        p.out_dtype = options & 4 ? GTN_F32 : GTN_BF16;
        p.residual = (options & 8) != 0;
        p.sum = (options & 16) != 0;
        p.beta = (options & 32) != 0 && p.kind == GTN_NORM_LAYER;
        p.rows = n > 1000 ? 2 : static_cast<int64_t>(seed % 4);
        p.n = n;
        p.x_stride = seed % 3 == 0 ? n : n + 5;
        p.out_stride = seed % 5 == 0 ? n + 2 : n;
        check_random(on, name, p, seed);
        if (testing::Test::HasFatalFailure()) return;
        ++seed;
      }
    }
  }
}

TEST(Norm, ManyShortRowsLongRowsAndBroadcastRows) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      Problem p;
      p.kind = kind;
      p.residual = true;
      p.rows = 2003;
      p.n = p.x_stride = p.out_stride = 13;
      check_random(on, name, p, 7);
      p.rows = 2;
      p.n = p.x_stride = p.out_stride = 100003;
      check_random(on, name, p, 8);
      p.rows = 3;
      p.n = 100;
      p.x_stride = 0;
      p.out_stride = 101;
      check_random(on, name, p, 9);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Norm, OutputsMayTakeThePlaceOfInputs) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 200;
    for (int64_t n : {1, 7, 8, 9, 33, 131, 4097}) {
      for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
        for (int32_t dtype : {GTN_F32, GTN_BF16}) {
          for (Alias out_is : {kNone, kX, kResidual}) {
            for (Alias sum_is : {kNone, kX, kResidual}) {
              for (bool sum : {false, true}) {
                if (sum ? (out_is != kNone && out_is == sum_is) : sum_is != kNone) continue;
                for (bool residual : {false, true}) {
                  if (!residual && (out_is == kResidual || sum_is == kResidual)) continue;
                  Problem p;
                  p.kind = kind;
                  p.x_dtype = p.out_dtype = dtype;
                  p.rows = 3;
                  p.n = n;
                  p.x_stride = p.out_stride = n + static_cast<int64_t>(seed % 2) * 3;
                  p.residual = residual;
                  p.sum = sum;
                  p.out_is = out_is;
                  p.sum_is = sum_is;
                  check_random(on, name, p, seed++);
                  if (testing::Test::HasFatalFailure()) return;
                }
              }
            }
          }
        }
      }
    }
  }
}

// A mean of 10^4 and more with a deviation of 1. The one-pass formula mean h^2 - (mean h)^2 fails on the same data by
// far, which shows that the data can tell.
TEST(Norm, LayerNormIsAccurateAtLargeOffsets) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (float offset : {1e4f, -3e5f, 4e6f}) {
      for (int64_t n : {77, 1024, 4099}) {
        Problem p;
        p.rows = 2;
        p.n = p.x_stride = p.out_stride = n;
        p.beta = true;
        Data data(p);
        data.randomize(static_cast<uint64_t>(n), offset, 1.0f);
        check(on, name, p, data);
        if (testing::Test::HasFatalFailure()) return;

        std::vector<float> h;
        float sum = 0.0f, squares = 0.0f;
        for (int64_t i = 0; i < n; ++i) {
          h.push_back(data.x.get(kLead + i));
          sum += h.back();
          squares += h.back() * h.back();
        }
        const float mean = sum / static_cast<float>(n);
        const float variance = std::fmax(0.0f, squares / static_cast<float>(n) - mean * mean);
        const Row expected = reference(p, h, data, lanes_of(name));
        double worst = 0.0;
        for (size_t i = 0; i < h.size(); ++i) {
          const float got = (h[i] - mean) / std::sqrt(variance + p.epsilon) * data.gamma[i] + data.beta[i];
          worst = std::fmax(worst, std::fabs(static_cast<double>(got) - expected.value[i]) / expected.bound[i]);
        }
        EXPECT_GT(worst, 10.0) << "offset " << offset << " n " << n;
      }
    }
  }
}

// A row whose beginning says nothing of its mean: the first numbers are further from it than the deviation.
TEST(Norm, LayerNormOfRowsThatBeginFarFromTheirMean) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t n : {8193, 20011}) {
      Problem p;
      p.rows = 2;
      p.n = p.x_stride = p.out_stride = n;
      p.beta = true;
      Data data(p);
      data.randomize(static_cast<uint64_t>(n), 0.0f, 1.0f);
      for (int64_t r = 0; r < p.rows; ++r) {
        for (int64_t i = 0; i < 256; ++i) data.x.set(kLead + r * n + i, 1000.0f + static_cast<float>(i % 3));
      }
      check(on, name, p, data);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Squares beyond FP32's range on either side give what the formula gives.
TEST(Norm, SquaresOutsideTheRangeOfFp32) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      for (int64_t n : {1, 5, 40, 1000}) {
        for (float deviation : {1e18f, 1e19f, 1e25f, 1e37f, 1e-17f, 1e-20f, 1e-30f, 1e-38f, 1e-42f}) {
          for (float epsilon : {0.0f, 1e-38f, 1e-5f}) {
            if (n == 1 && kind == GTN_NORM_LAYER && epsilon == 0.0f) continue;  // 0 / 0
            Problem p;
            p.kind = kind;
            p.rows = 2;
            p.n = p.x_stride = p.out_stride = n;
            p.epsilon = epsilon;
            Data data(p);
            data.randomize(static_cast<uint64_t>(n), 0.0f, deviation);
            check(on, name, p, data);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(Norm, InfinitiesAndNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      for (float special : {kInfinity, -kInfinity, nan, 3.4e38f}) {
        for (int64_t n : {1, 8, 19, 40}) {
          // Row r has the special value at column r; one more row has it everywhere; one more is without it.
          Problem p;
          p.kind = kind;
          p.rows = n + 2;
          p.n = p.x_stride = p.out_stride = n;
          Data data(p);
          data.randomize(static_cast<uint64_t>(n), 0.5f, 1.0f);
          for (int64_t i = 0; i < n; ++i) {
            data.x.set(kLead + i * n + i, special);
            data.x.set(kLead + n * n + i, special);
          }
          check(on, name, p, data);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

// A BF16 sum is rounded, and the normalisation is of h before that: with FP32 out it is right to FP32's bounds, which
// the rounded h would miss.
TEST(Norm, ABf16SumDoesNotRoundWhatIsNormalised) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      Problem p;
      p.kind = kind;
      p.x_dtype = GTN_BF16;
      p.rows = 2;
      p.n = p.x_stride = p.out_stride = 300;
      p.residual = p.sum = true;
      Data data(p);
      data.randomize(3, 0.0f, 1.0f);
      check(on, name, p, data);
      std::vector<float> h, rounded;
      for (int64_t i = 0; i < p.n; ++i) {
        h.push_back(data.x.get(kLead + i) + data.residual.get(kLead + i));
        rounded.push_back(from_bf16(to_bf16(h.back())));
      }
      const Row right = reference(p, h, data, lanes_of(name)), wrong = reference(p, rounded, data, lanes_of(name));
      double worst = 0.0;
      for (size_t i = 0; i < h.size(); ++i) {
        worst = std::fmax(worst, std::fabs(right.value[i] - wrong.value[i]) / right.bound[i]);
      }
      EXPECT_GT(worst, 100.0);
    }
  }
}

TEST(Norm, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Problem p;
        p.kind = kind;
        p.x_dtype = p.out_dtype = dtype;
        p.rows = 67;
        p.n = p.x_stride = p.out_stride = 2503;
        p.residual = true;
        p.sum = kind == GTN_NORM_RMS;
        Data given(p);
        given.randomize(11, 0.5f, 1.0f);
        Data first = given;
        for (int threads = 1; threads <= 3; ++threads) {
          OpenDevice on(name, threads);
          Data data = given;
          run(on, p, p.rows, data);
          if (threads == 1) {
            first = data;
          } else {
            EXPECT_TRUE(first.out.same_bytes(data.out)) << name << " " << p.text() << " threads=" << threads;
            EXPECT_TRUE(first.sum.same_bytes(data.sum)) << name << " " << p.text() << " threads=" << threads;
          }
        }
      }
    }
  }
}

// More than the caches hold is stored past them, in lines: the result is that of a few rows at a time.
TEST(Norm, LargeResultsAreThoseOfSmallRuns) {
  constexpr int64_t kRows = 1203, kWidth = 4109, kStride = 4112, kFew = 100;
  AlignedFloats x(kRows * kStride), large(kRows * kStride), small(kRows * kStride);
  std::vector<float> gamma(kWidth), beta(kWidth);
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < kRows * kStride; ++i) x[i] = normal(random);
  for (float& g : gamma) g = normal(random);
  for (float& b : beta) b = normal(random);
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 2);
    for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
      Message message;
      gtn_norm_desc desc = {};
      desc.size = sizeof desc;
      desc.kind = kind;
      desc.x = tensor(GTN_F32, {kRows, kWidth});
      desc.x.strides[0] = kStride;
      desc.out = desc.x;
      desc.epsilon = 1e-5f;
      desc.has_beta = kind == GTN_NORM_LAYER;
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
      const void* added = desc.has_beta != 0 ? beta.data() : nullptr;
      large.fill(kSentinel);
      small.fill(kSentinel);
      ASSERT_EQ(GTN_OK, gtn_norm_run(plan, on.stream, kRows, x.data(), nullptr, gamma.data(), added, large.data(),
                                     nullptr));
      for (int64_t row = 0; row < kRows; row += kFew) {
        ASSERT_EQ(GTN_OK, gtn_norm_run(plan, on.stream, std::min(kFew, kRows - row), x.data() + row * kStride, nullptr,
                                       gamma.data(), added, small.data() + row * kStride, nullptr));
      }
      EXPECT_EQ(0, std::memcmp(large.data(), small.data(), kRows * kStride * sizeof(float))) << name << " " << kind;
      EXPECT_EQ(kSentinel, large[kWidth]);
      EXPECT_NE(kSentinel, large[kRows * kStride - 4]);
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

}  // namespace
}  // namespace gatun::test
