// The merge family against double precision.
#include "device_test.h"

#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -77.0f;  // the same in every dtype, and no result here
constexpr int64_t kLead = 3;         // elements of a buffer before and after what a run sees

const char* name_of(int32_t dtype) { return dtype == GTN_F32 ? "f32" : dtype == GTN_BF16 ? "bf16" : "f16"; }

struct Problem {
  int32_t x_dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t parts = 2, batch = 1, length = 1, heads = 1, n = 1;
  int64_t pad = 0;          // elements between rows
  bool head_major = false;  // x, out: heads before tokens; log-sum-exps: tokens before heads
  bool sinks = false, lse = true, in_place = false;

  std::string text() const {
    char line[240];
    std::snprintf(line, sizeof line,
                  "merge x=%s out=%s parts=%lld batch=%lld length=%lld heads=%lld n=%lld pad=%lld%s%s%s%s",
                  name_of(x_dtype), name_of(out_dtype), static_cast<long long>(parts), static_cast<long long>(batch),
                  static_cast<long long>(length), static_cast<long long>(heads), static_cast<long long>(n),
                  static_cast<long long>(pad), head_major ? " head major" : "", sinks ? " sinks" : "",
                  lse ? " lse" : "", in_place ? " in place" : "");
    return line;
  }
};

// The plan's maxima: beyond what runs, so that nothing can take them for lengths.
gtn_merge_desc describe(const Problem& p) {
  const int64_t parts = p.parts + 1, batch = p.batch + 2, length = p.length + 3;
  gtn_merge_desc desc = {};
  desc.size = sizeof desc;
  desc.has_sink_logits = p.sinks;
  desc.x = tensor(p.x_dtype, {parts, batch, length, p.heads, p.n});
  desc.x_lse = tensor(GTN_F32, {parts, batch, p.heads, length});
  desc.out = tensor(p.out_dtype, {batch, length, p.heads, p.n});
  desc.lse = tensor(GTN_F32, {batch, p.heads, length});
  const int64_t row = p.n + p.pad;
  const int64_t token = p.head_major ? row : p.heads * row, head = p.head_major ? length * row : row;
  const int64_t sequence = length * p.heads * row;
  const int64_t lse_token = p.head_major ? p.heads : 1, lse_head = p.head_major ? 1 : length;
  const int64_t x[] = {batch * sequence, sequence, token, head};
  const int64_t lse[] = {batch * p.heads * length, p.heads * length, lse_head, lse_token};
  for (int d = 0; d < 4; ++d) {
    desc.x.strides[d] = x[d];
    desc.x_lse.strides[d] = lse[d];
    if (d == 0) continue;
    desc.out.strides[d - 1] = x[d];
    desc.lse.strides[d - 1] = lse[d];
  }
  return desc;
}

struct Data {
  Buffer x, x_lse, sinks, out, lse;

  explicit Data(const Problem& p)
      : x(p.x_dtype, 2 * kLead + (p.parts + 1) * extent(p)),
        x_lse(GTN_F32, 2 * kLead + (p.parts + 1) * rows(p)),
        sinks(GTN_F32, 2 * kLead + p.heads),
        out(p.out_dtype, 2 * kLead + extent(p)),
        lse(GTN_F32, 2 * kLead + rows(p)) {
    out.fill(kSentinel);
    lse.fill(kSentinel);
  }

  static int64_t rows(const Problem& p) { return (p.batch + 2) * (p.length + 3) * p.heads; }
  static int64_t extent(const Problem& p) { return rows(p) * (p.n + p.pad); }

  // Some parts see nothing, and what they hold is NaN.
  void randomize(const Problem& p, uint64_t seed, float spread) {
    std::mt19937_64 random(seed);
    x.fill_normal(random);
    x_lse.fill_normal(random, spread);
    sinks.fill_normal(random, spread);
    const gtn_merge_desc desc = describe(p);
    for (int64_t part = 0; part < p.parts; ++part) {
      for (int64_t b = 0; b < p.batch; ++b) {
        for (int64_t t = 0; t < p.length; ++t) {
          for (int64_t h = 0; h < p.heads; ++h) {
            if (random() % 5 != 0) continue;
            x_lse.set(lse_at(desc, part, b, h, t), -kInfinity);
            for (int64_t i = 0; i < p.n; ++i) x.set(x_at(desc, part, b, t, h) + i, NAN);
          }
        }
      }
    }
  }

  static int64_t x_at(const gtn_merge_desc& desc, int64_t part, int64_t b, int64_t t, int64_t h) {
    const int64_t* s = desc.x.strides;
    return kLead + part * s[0] + b * s[1] + t * s[2] + h * s[3];
  }
  static int64_t lse_at(const gtn_merge_desc& desc, int64_t part, int64_t b, int64_t h, int64_t t) {
    const int64_t* s = desc.x_lse.strides;
    return kLead + part * s[0] + b * s[1] + h * s[2] + t * s[3];
  }
};

void* at_lead(Buffer& buffer) {
  return static_cast<char*>(buffer.data()) + kLead * Buffer::element_size(buffer.dtype());
}

void run(OpenDevice& on, const Problem& p, Data& data) {
  Message message;
  const gtn_merge_desc desc = describe(p);
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_merge_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  void* out = at_lead(p.in_place ? data.x : data.out);
  void* lse = p.lse ? at_lead(p.in_place ? data.x_lse : data.lse) : nullptr;
  EXPECT_EQ(GTN_OK, gtn_merge_run(plan, on.stream, p.parts, p.batch, p.length, at_lead(data.x), at_lead(data.x_lse),
                                  p.sinks ? at_lead(data.sinks) : nullptr, out, lse))
      << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

// A row in double, with the bound on the error of each element and of the log-sum-exp.
//
// With u = 2^-24, d_i = lse_i - m and exp good to 1.2 ulp, at most 2.4 u: e_i is off by u |d_i| + 2.4 u of itself,
// which S inherits as a weighted mean, with a rounding for each addition. f and g are such exponentials too; the
// multiply-add of the denominator, the quotient and the product with e_i are a rounding each, and so is each addition
// of the row. An exponential, a quotient or a weight below the normal range is off by at most 2^-149 instead, which the
// factors after it do not raise. log S is good to 1 ulp, 2 u of itself, and the last addition rounds.
struct Row {
  std::vector<double> value, bound;
  double lse = 0.0, lse_bound = 0.0;
};

Row reference(const Problem& p, const Data& data, const gtn_merge_desc& desc, int64_t b, int64_t t, int64_t h) {
  constexpr double u = kUnitRoundoffF32;
  const size_t parts = static_cast<size_t>(p.parts), n = static_cast<size_t>(p.n);
  Row row;
  row.value.assign(n, 0.0);
  row.bound.assign(n, 0.0);
  std::vector<double> lse(parts), error(parts);
  double m = -INFINITY;
  bool nan = false;
  for (size_t i = 0; i < parts; ++i) {
    lse[i] = static_cast<double>(data.x_lse.get(Data::lse_at(desc, static_cast<int64_t>(i), b, h, t)));
    nan = nan || std::isnan(lse[i]) || lse[i] == INFINITY;
    m = std::fmax(m, lse[i]);
  }
  if (nan) {
    row.value.assign(n, NAN);
    row.lse = NAN;
    return row;
  }
  if (m == -INFINITY) {
    row.lse = -INFINITY;
    return row;
  }
  double sum = 0.0, sum_error = 0.0;
  for (size_t i = 0; i < parts; ++i) {
    error[i] = lse[i] == -INFINITY ? 0.0 : u * (m - lse[i]) + 2.4 * u;
    const double e = std::exp(lse[i] - m);
    sum += e;
    if (e > 0.0) sum_error += e * error[i];
  }
  sum_error = sum_error / sum + static_cast<double>(parts) * (u + 0x1p-149);
  row.lse = m + std::log(sum);
  row.lse_bound = 1.001 * (sum_error + 2.0 * u * std::log(sum) + u * std::fabs(row.lse)) + 0x1p-149;
  double f = 1.0, g = 0.0, f_error = 0.0, g_error = 0.0;
  if (p.sinks) {
    const double sink = static_cast<double>(data.sinks.get(kLead + h)), both = std::fmax(m, sink);
    f = std::exp(m - both);
    g = std::exp(sink - both);
    f_error = u * (both - m) + 2.4 * u;
    if (g > 0.0) g_error = u * (both - sink) + 2.4 * u;
  }
  const double denominator = sum * f + g;
  const double common = f_error + ((sum_error + f_error) * sum * f + g_error * g) / denominator +
                        (3.0 + static_cast<double>(parts)) * u;
  for (size_t part = 0; part < parts; ++part) {
    if (lse[part] == -INFINITY) continue;
    const double weight = std::exp(lse[part] - m) * f / denominator;
    const double weight_error = weight == 0.0 ? 0x1p-147 : weight * std::expm1(error[part] + common) + 0x1p-147;
    for (size_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(
          data.x.get(Data::x_at(desc, static_cast<int64_t>(part), b, t, h) + static_cast<int64_t>(i)));
      row.value[i] += weight * x;
      row.bound[i] += std::fabs(x) * weight_error + 0x1p-149;
    }
  }
  return row;
}

// What rounding to the output's type adds: half a step of 8 or 11 significant bits, or of the subnormals'.
double with_rounding(int32_t dtype, double want, double bound) {
  if (dtype == GTN_BF16) return bound + 0x1p-8 * (std::fabs(want) + bound) + 0x1p-134;
  if (dtype == GTN_F16) return bound + 0x1p-11 * (std::fabs(want) + bound) + 0x1p-25;
  return bound;
}

void check(OpenDevice& on, const std::string& device, const Problem& p, const Data& given) {
  Data data = given;
  run(on, p, data);
  const gtn_merge_desc desc = describe(p);
  const Buffer& out = p.in_place ? data.x : data.out;
  const Buffer& lse = p.in_place && p.lse ? data.x_lse : data.lse;
  std::vector<bool> written(static_cast<size_t>(out.size())), written_lse(static_cast<size_t>(lse.size()));
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t t = 0; t < p.length; ++t) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const Row expected = reference(p, given, desc, b, t, h);
        const auto where = [&] {
          return device + " " + p.text() + " sequence " + std::to_string(b) + " token " + std::to_string(t) +
                 " head " + std::to_string(h);
        };
        for (int64_t i = 0; i < p.n; ++i) {
          const int64_t at = Data::x_at(desc, 0, b, t, h) + i;
          written[static_cast<size_t>(at)] = true;
          const double got = static_cast<double>(out.get(at)), want = expected.value[static_cast<size_t>(i)];
          if (std::isnan(want)) {
            ASSERT_TRUE(std::isnan(got)) << where() << " element " << i << ": got " << got;
          } else if (std::isinf(want)) {
            ASSERT_EQ(want, got) << where() << " element " << i;
          } else {
            ASSERT_LE(std::fabs(got - want), with_rounding(p.out_dtype, want, expected.bound[static_cast<size_t>(i)]))
                << where() << " element " << i << ": got " << got << ", expected " << want;
          }
        }
        if (!p.lse) continue;
        const int64_t at = Data::lse_at(desc, 0, b, h, t);
        written_lse[static_cast<size_t>(at)] = true;
        const double got = static_cast<double>(lse.get(at));
        if (std::isnan(expected.lse)) {
          ASSERT_TRUE(std::isnan(got)) << where() << ": log-sum-exp " << got;
        } else if (std::isinf(expected.lse)) {
          ASSERT_EQ(expected.lse, got) << where();
        } else {
          ASSERT_LE(std::fabs(got - expected.lse), expected.lse_bound)
              << where() << ": log-sum-exp " << got << ", expected " << expected.lse;
        }
      }
    }
  }
  const auto same = [&](const Buffer& before, const Buffer& after, const std::vector<bool>& except, const char* what) {
    for (int64_t i = 0; i < after.size(); ++i) {
      if (except[static_cast<size_t>(i)]) continue;
      const float was = before.get(i), is = after.get(i);
      ASSERT_TRUE(was == is || (std::isnan(was) && std::isnan(is)))
          << device << " " << p.text() << ": element " << i << " around " << what << " was written";
    }
  };
  same(p.in_place ? given.x : given.out, out, written, "out");
  same(p.in_place && p.lse ? given.x_lse : given.lse, lse, written_lse, "lse");
  if (!p.in_place) {
    ASSERT_TRUE(given.x.same_bytes(data.x)) << device << " " << p.text() << ": x was written";
  }
  if (!p.in_place || !p.lse) {
    ASSERT_TRUE(given.x_lse.same_bytes(data.x_lse)) << device << " " << p.text() << ": x_lse was written";
  }
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed, float spread = 3.0f) {
  Data data(p);
  data.randomize(p, seed, spread);
  SCOPED_TRACE("seed=" + std::to_string(seed));
  check(on, device, p, data);
}

constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16};

TEST(Merge, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 3);
    for (int32_t dtype : kTypes) {
      Message message;
      gtn_merge_desc desc = {};
      desc.size = sizeof desc;
      desc.has_sink_logits = 1;
      desc.x = tensor(dtype, {3, 2, 5, 7, 11});
      desc.x_lse = tensor(GTN_F32, {3, 2, 7, 5});
      desc.out = tensor(GTN_F32, {2, 5, 7, 11});
      desc.lse = tensor(GTN_F32, {2, 7, 5});
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_merge_plan(on.device, &desc, &plan, &message)) << message.text;
      gtn_plan_info info = {};
      info.size = sizeof info;
      ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
      EXPECT_EQ("cpu." + name.substr(name.find(':') + 1) + ".merge." + name_of(dtype), info.kernel);
      EXPECT_EQ(GTN_OP_MERGE, info.op);
      EXPECT_EQ(70.0 * (11 * static_cast<double>(3 * Buffer::element_size(dtype) + 4) + 4 * 4) + 7 * 4, info.bytes);
      EXPECT_GE(info.flops, 70.0 * 3 * 11 * 2);
      EXPECT_EQ(3 * 3 * 128 * 4, info.workspace_bytes);  // of each thread, a weight for each part of 128 rows
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

// Random combinations of everything, over sizes around vectors, unrolled loops and tiles.
TEST(Merge, ShapesLayoutsDtypesAndOptions) {
  const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  const int64_t lengths[] = {0, 1, 2, 3, 15, 16, 17, 33}, heads[] = {1, 2, 3, 7, 8, 9, 17};
  const int64_t parts[] = {0, 1, 2, 3, 5, 17};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (uint64_t seed = 1; seed <= 300; ++seed) {
      std::mt19937_64 random(seed);
      Problem p;
      p.x_dtype = kTypes[random() % 3];
      p.out_dtype = kTypes[random() % 3];
      p.n = sizes[random() % std::size(sizes)];
      p.length = lengths[random() % std::size(lengths)];
      p.heads = heads[random() % std::size(heads)];
      p.parts = parts[random() % std::size(parts)];
      p.batch = static_cast<int64_t>(random() % 4);
      p.pad = random() % 2 ? 0 : 5;
      p.head_major = random() % 2;
      p.sinks = random() % 2;
      p.lse = random() % 3 != 0;
      p.in_place = p.x_dtype == p.out_dtype && p.parts > 0 && random() % 2;
      check_random(on, name, p, seed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Every pair of dtypes, and more heads than a tile takes, with one token and with many.
TEST(Merge, EveryPairOfDtypesAndTilesOfHeads) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1000;
    for (int32_t x_dtype : kTypes) {
      for (int32_t out_dtype : kTypes) {
        for (bool head_major : {false, true}) {
          Problem p;
          p.x_dtype = x_dtype;
          p.out_dtype = out_dtype;
          p.head_major = head_major;
          p.sinks = true;
          p.n = 24;
          p.heads = 131;
          check_random(on, name, p, seed++);
          p.heads = 19;
          p.length = 37;
          p.parts = 3;
          check_random(on, name, p, seed++);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

// Differences of log-sum-exps beyond what exp has, and beyond what FP32 has.
TEST(Merge, LogSumExpsFarApart) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (float spread : {0.0f, 1e-3f, 30.0f, 60.0f, 1e3f, 1e20f, 1e38f}) {
      for (bool sinks : {false, true}) {
        Problem p;
        p.parts = 4;
        p.length = 40;
        p.heads = 3;
        p.n = 21;
        p.sinks = sinks;
        check_random(on, name, p, 17, spread);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(Merge, InfinitiesAndNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (bool sinks : {false, true}) {
      for (int64_t length : {1, 9, 20}) {
        Problem p;
        p.parts = 3;
        p.length = length;
        p.heads = 4;
        p.n = 19;
        p.sinks = sinks;
        const gtn_merge_desc desc = describe(p);
        Data data(p);
        std::mt19937_64 random(5);
        data.x.fill_normal(random);
        data.x_lse.fill_normal(random);
        data.sinks.fill_normal(random);
        // Of the first token's heads: one sees nothing and holds NaN, one has a NaN and one an infinity among its
        // log-sum-exps, one has infinities and NaN in x. Every other row is as it would be without them.
        for (int64_t part = 0; part < p.parts; ++part) {
          data.x_lse.set(Data::lse_at(desc, part, 0, 0, 0), -kInfinity);
          for (int64_t i = 0; i < p.n; ++i) data.x.set(Data::x_at(desc, part, 0, 0, 0) + i, nan);
        }
        data.x_lse.set(Data::lse_at(desc, 1, 0, 1, 0), nan);
        data.x_lse.set(Data::lse_at(desc, 2, 0, 2, 0), kInfinity);
        data.x.set(Data::x_at(desc, 0, 0, 0, 3) + 2, kInfinity);
        data.x.set(Data::x_at(desc, 1, 0, 0, 3) + 3, -kInfinity);
        data.x.set(Data::x_at(desc, 2, 0, 0, 3) + 4, nan);
        data.x.set(Data::x_at(desc, 0, 0, 0, 3) + 18, kInfinity);
        data.x.set(Data::x_at(desc, 1, 0, 0, 3) + 18, -kInfinity);
        check(on, name, p, data);
        // NaN beside nothing else is NaN all the same.
        data.x_lse.set(Data::lse_at(desc, 0, 0, 1, 0), -kInfinity);
        data.x_lse.set(Data::lse_at(desc, 2, 0, 1, 0), -kInfinity);
        check(on, name, p, data);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

// A sink of -infinity is none, a sink far above takes all, one far below nothing, NaN makes NaN; none of them is in
// lse.
TEST(Merge, SinkLogitsAtTheEnds) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (float sink : {-kInfinity, -3e38f, -200.0f, 50.0f, 95.0f, 104.0f, 500.0f, 3e38f, nan}) {
      Problem p;
      p.parts = 3;
      p.length = 6;
      p.heads = 3;
      p.n = 33;
      p.sinks = true;
      Data data(p);
      data.randomize(p, 23, 2.0f);
      for (int64_t h = 0; h < p.heads; ++h) data.sinks.set(kLead + h, sink);
      check(on, name, p, data);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// One part is the result, and two equal ones are as well, bit by bit.
TEST(Merge, OnePartAndEqualPartsAreExact) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t dtype : kTypes) {
      for (int64_t parts : {1, 2}) {
        Problem p;
        p.x_dtype = p.out_dtype = dtype;
        p.parts = parts;
        p.length = 21;
        p.heads = 5;
        p.n = 70;
        const gtn_merge_desc desc = describe(p);
        Data data(p);
        std::mt19937_64 random(7);
        data.x.fill_normal(random);
        data.x_lse.fill_normal(random, 9.0f);
        for (int64_t t = 0; t < p.length; ++t) {
          for (int64_t h = 0; h < p.heads; ++h) {
            data.x_lse.set(Data::lse_at(desc, parts - 1, 0, h, t), data.x_lse.get(Data::lse_at(desc, 0, 0, h, t)));
            for (int64_t i = 0; i < p.n; ++i) {
              data.x.set(Data::x_at(desc, parts - 1, 0, t, h) + i, data.x.get(Data::x_at(desc, 0, 0, t, h) + i));
            }
          }
        }
        run(on, p, data);
        for (int64_t t = 0; t < p.length; ++t) {
          for (int64_t h = 0; h < p.heads; ++h) {
            const int64_t at = Data::lse_at(desc, 0, 0, h, t);
            if (parts == 1) {
              ASSERT_EQ(data.x_lse.get(at), data.lse.get(at)) << name << " " << p.text();
            } else {
              ASSERT_NEAR(data.x_lse.get(at) + 0.69314718f, data.lse.get(at), 4e-6f) << name << " " << p.text();
            }
            for (int64_t i = 0; i < p.n; ++i) {
              const int64_t element = Data::x_at(desc, 0, 0, t, h) + i;
              ASSERT_EQ(data.x.get(element), data.out.get(element)) << name << " " << p.text();
            }
          }
        }
      }
    }
  }
}

TEST(Merge, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int32_t dtype : kTypes) {
      Problem p;
      p.x_dtype = p.out_dtype = dtype;
      p.parts = 3;
      p.batch = 3;
      p.length = 50;
      p.heads = 11;
      p.n = 40;
      p.sinks = true;
      Data given(p);
      given.randomize(p, 11, 3.0f);
      Data first = given;
      for (int threads = 1; threads <= 3; ++threads) {
        OpenDevice on(name, threads);
        Data data = given;
        run(on, p, data);
        if (threads == 1) {
          first = data;
        } else {
          EXPECT_TRUE(first.out.same_bytes(data.out)) << name << " " << p.text() << " threads=" << threads;
          EXPECT_TRUE(first.lse.same_bytes(data.lse)) << name << " " << p.text() << " threads=" << threads;
        }
      }
    }
  }
}

}  // namespace
}  // namespace gatun::test
