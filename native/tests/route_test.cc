// The route family against double precision.
#include "device_test.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <utility>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kLead = 3;  // elements of an array before and after what a run sees
constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16};

const char* name_of(int32_t dtype) { return dtype == GTN_F32 ? "f32" : dtype == GTN_BF16 ? "bf16" : "f16"; }

struct Problem {
  int32_t kind = GTN_ROUTE_SOFTMAX, dtype = GTN_F32;
  int64_t tokens = 1, experts = 8, top = 2, groups = 0, top_groups = 0;
  int64_t pad = 0;  // elements between rows
  bool bias = false, normalize = false;
  float scale = 1.0f;

  std::string text() const {
    char line[240];
    std::snprintf(line, sizeof line,
                  "route %s %s tokens=%lld experts=%lld top=%lld groups=%lld/%lld pad=%lld scale=%g%s%s",
                  kind == GTN_ROUTE_SOFTMAX ? "softmax" : "sigmoid", name_of(dtype), static_cast<long long>(tokens),
                  static_cast<long long>(experts), static_cast<long long>(top), static_cast<long long>(top_groups),
                  static_cast<long long>(groups), static_cast<long long>(pad), static_cast<double>(scale),
                  bias ? " bias" : "", normalize ? " normalize" : "");
    return line;
  }

  gtn_route_desc desc() const {
    gtn_route_desc d = {};
    d.size = sizeof d;
    d.kind = kind;
    d.x = tensor(dtype, {tokens + 2, experts}, experts + pad);
    d.top = top;
    d.groups = groups;
    d.top_groups = top_groups;
    d.has_bias = bias;
    d.normalize = normalize;
    d.scale = scale;
    return d;
  }
};

// An array that a run writes, with elements around it that it must not.
template <typename T>
struct Output {
  std::vector<T> elements;

  explicit Output(int64_t count) : elements(static_cast<size_t>(count + 2 * kLead), static_cast<T>(-77)) {}
  T* data() { return elements.data() + kLead; }
  T operator[](int64_t i) const { return elements[static_cast<size_t>(i + kLead)]; }
  bool whole() const {
    for (size_t i = 0; i < static_cast<size_t>(kLead); ++i) {
      if (elements[i] != static_cast<T>(-77) || elements[elements.size() - 1 - i] != static_cast<T>(-77)) return false;
    }
    return true;
  }
};

struct Data {
  Buffer x;
  std::vector<float> bias;
  Output<int32_t> experts, rows, slots;
  Output<float> weights;
  Output<int64_t> offsets;

  explicit Data(const Problem& p)
      : x(p.dtype, p.tokens * (p.experts + p.pad)),
        bias(static_cast<size_t>(p.experts)),
        experts(p.tokens * p.top),
        rows(p.tokens * p.top),
        slots(p.tokens * p.top),
        weights(p.tokens * p.top),
        offsets(p.experts + 1) {
    x.fill(NAN);
  }

  void randomize(const Problem& p, uint64_t seed, float spread) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0.0f, spread);
    for (int64_t t = 0; t < p.tokens; ++t) {
      for (int64_t e = 0; e < p.experts; ++e) x.set(t * (p.experts + p.pad) + e, normal(random));
    }
    std::normal_distribution<float> small(0.0f, 0.1f);
    for (float& b : bias) b = small(random);
  }

  float logit(const Problem& p, int64_t t, int64_t e) const { return x.get(t * (p.experts + p.pad) + e); }
};

gtn_status run(OpenDevice& on, const Problem& p, Data& data) {
  Message message;
  const gtn_route_desc desc = p.desc();
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_route_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const gtn_status status =
      gtn_route_run(plan, on.stream, p.tokens, data.x.data(), p.bias ? data.bias.data() : nullptr, data.experts.data(),
                    data.weights.data(), data.offsets.data(), data.rows.data(), data.slots.data());
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return status;
}

// Scores of a token in double, with bounds on their errors, and the same of score + bias.
//
// With u = 2^-24. Softmax: d_i = x_i - max is rounded once, and exp is good to 1.2 ulp, at most 2.4 u: e_i is off by
// u |d_i| + 2.4 u of itself, which the sum inherits as a weighted mean, with a rounding for each addition; the division
// rounds. Sigmoid: 2.3 ulp, at most 4.6 u. Below the normal range a step of 2^-149 takes the place of each.
struct Scores {
  std::vector<double> score, error, key, key_error;
};

Scores reference(const Problem& p, const Data& data, int64_t t) {
  constexpr double u = kUnitRoundoffF32;
  const size_t n = static_cast<size_t>(p.experts);
  Scores r;
  r.score.assign(n, 0.0);
  r.error.assign(n, 0.0);
  double maximum = -INFINITY, sum = 0.0, sum_error = 0.0;
  for (int64_t e = 0; e < p.experts; ++e) maximum = std::fmax(maximum, static_cast<double>(data.logit(p, t, e)));
  for (size_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(data.logit(p, t, static_cast<int64_t>(i)));
    if (p.kind == GTN_ROUTE_SIGMOID) {
      r.score[i] = 1.0 / (1.0 + std::exp(-x));
      r.error[i] = 4.6 * u * r.score[i] + 0x1p-147;
    } else if (x != -INFINITY) {
      r.score[i] = std::exp(x - maximum);
      r.error[i] = 0x1p-148;
      if (r.score[i] > 0.0) r.error[i] += r.score[i] * std::expm1(u * (maximum - x) + 2.4 * u);
      sum += r.score[i];
      sum_error += r.error[i];
    }
  }
  if (p.kind == GTN_ROUTE_SOFTMAX && sum > 0.0) {
    const double of_sum = sum_error / sum + static_cast<double>(n) * u;
    for (size_t i = 0; i < n; ++i) {
      r.score[i] /= sum;
      r.error[i] = 1.001 * (r.error[i] / sum + r.score[i] * (of_sum + u)) + 0x1p-149;
    }
  }
  r.key = r.score;
  r.key_error = r.error;
  for (size_t i = 0; i < n && p.bias; ++i) {
    r.key[i] += static_cast<double>(data.bias[i]);
    r.key_error[i] += u * (std::fabs(r.key[i]) + r.error[i]);
  }
  return r;
}

// The groups that may be chosen from, and those that must be: 2 for the latter, 1 for the others, 0 for none.
std::vector<int> groups_of(const Problem& p, const Scores& r) {
  const int64_t groups = std::max<int64_t>(p.groups, 1), size = p.experts / groups;
  std::vector<double> worth, error;
  for (int64_t g = 0; g < groups; ++g) {
    std::vector<double> keys(r.key.begin() + g * size, r.key.begin() + (g + 1) * size);
    const double most_error = *std::max_element(r.key_error.begin() + g * size, r.key_error.begin() + (g + 1) * size);
    std::sort(keys.begin(), keys.end(), std::greater<double>());
    const bool two = p.kind == GTN_ROUTE_SIGMOID && size > 1;
    worth.push_back(keys[0] + (two ? keys[1] : 0.0));
    error.push_back(2.0 * most_error + (two ? kUnitRoundoffF32 * std::fabs(worth.back()) : 0.0) + 0x1p-147);
  }
  std::vector<int> result(static_cast<size_t>(groups), 2);
  if (p.groups == 0) return result;
  for (size_t g = 0; g < result.size(); ++g) {
    int64_t above = 0, not_below = 0;
    for (size_t h = 0; h < result.size(); ++h) {
      if (h == g) continue;
      above += worth[h] - error[h] > worth[g] + error[g];
      not_below += worth[h] + error[h] >= worth[g] - error[g];
    }
    result[g] = not_below < p.top_groups ? 2 : above < p.top_groups ? 1 : 0;
  }
  return result;
}

void check_token(const Problem& p, const Data& data, int64_t t, const std::string& where) {
  bool nan = false;
  for (int64_t e = 0; e < p.experts; ++e) {
    const float x = data.logit(p, t, e);
    nan = nan || std::isnan(x) || (x == kInfinity && p.kind == GTN_ROUTE_SOFTMAX);
  }
  if (nan) {
    for (int64_t i = 0; i < p.top; ++i) {
      ASSERT_EQ(i, data.experts[t * p.top + i]) << where;
      ASSERT_TRUE(std::isnan(data.weights[t * p.top + i])) << where;
    }
    return;
  }
  const Scores r = reference(p, data, t);
  std::vector<int> allowed = groups_of(p, r);
  const int64_t size = p.experts / std::max<int64_t>(p.groups, 1);
  std::vector<bool> taken(static_cast<size_t>(p.experts));
  double total = 0.0, total_error = 0.0;
  size_t last = 0;
  for (int64_t i = 0; i < p.top; ++i) {
    const int32_t expert = data.experts[t * p.top + i];
    ASSERT_GE(expert, 0) << where;
    ASSERT_LT(expert, p.experts) << where;
    const size_t e = static_cast<size_t>(expert);
    ASSERT_FALSE(taken[e]) << where << " expert " << expert << " twice";
    int& group = allowed[e / static_cast<size_t>(size)];
    ASSERT_GT(group, 0) << where << " expert " << expert << " is of a group that is not among the best";
    group = 2;
    taken[e] = true;
    if (i > 0) {
      ASSERT_GE(r.key[last] + r.key_error[last], r.key[e] - r.key_error[e]) << where << " choice " << i;
      if (r.key[last] == r.key[e] && r.score[last] == r.score[e] &&
          data.logit(p, t, static_cast<int64_t>(last)) == data.logit(p, t, expert)) {
        ASSERT_LT(last, e) << where << " choice " << i << ": the lower of two equals comes first";
      }
    }
    last = e;
    total += r.score[e];
    total_error += r.error[e] + kUnitRoundoffF32 * total;
  }
  for (size_t e = 0; e < taken.size(); ++e) {
    if (taken[e] || allowed[e / static_cast<size_t>(size)] != 2) continue;
    ASSERT_GE(r.key[last] + r.key_error[last], r.key[e] - r.key_error[e]) << where << " leaves out expert " << e;
  }
  const double scale = std::fabs(static_cast<double>(p.scale));
  for (int64_t i = 0; i < p.top; ++i) {
    const size_t e = static_cast<size_t>(data.experts[t * p.top + i]);
    const double got = static_cast<double>(data.weights[t * p.top + i]);
    double want = r.score[e], bound = r.error[e];
    if (p.normalize && total_error >= 0.5 * total) {
      // Nothing but steps below the normal range: the sum is of no accuracy, and a weight is a share of it.
      want = bound = 0.5;
    } else if (p.normalize) {
      want /= total;
      bound = (bound + want * total_error) / (total - total_error) + kUnitRoundoffF32 * want;
    }
    bound = 1.001 * (bound * scale + kUnitRoundoffF32 * want * scale) + 0x1p-149;
    ASSERT_LE(std::fabs(got - want * static_cast<double>(p.scale)), bound)
        << where << " choice " << i << " is " << got << ", expected " << want * static_cast<double>(p.scale);
  }
}

void check(OpenDevice& on, const std::string& device, const Problem& p, Data& data) {
  const Buffer given = data.x;
  ASSERT_EQ(GTN_OK, run(on, p, data)) << p.text() << ": " << on.message();
  ASSERT_TRUE(given.same_bytes(data.x)) << p.text();
  ASSERT_TRUE(data.experts.whole() && data.weights.whole() && data.offsets.whole() && data.rows.whole() &&
              data.slots.whole())
      << device << " " << p.text() << ": wrote around an output";
  for (int64_t t = 0; t < p.tokens; ++t) {
    check_token(p, data, t, device + " " + p.text() + " token " + std::to_string(t));
    if (testing::Test::HasFatalFailure()) return;
  }
  // The order, by the definition: experts, and tokens within them.
  int64_t row = 0;
  for (int64_t e = 0; e < p.experts; ++e) {
    ASSERT_EQ(row, data.offsets[e]) << device << " " << p.text() << " expert " << e;
    if (p.experts * p.tokens * p.top > 4000000) {  // which the loops below would take long for
      row = data.offsets[e + 1];
      continue;
    }
    for (int64_t i = 0; i < p.tokens * p.top; ++i) {
      if (data.experts[i] != e) continue;
      ASSERT_EQ(row, data.slots[i]) << device << " " << p.text() << " expert " << e;
      ASSERT_EQ(i / p.top, data.rows[row]) << device << " " << p.text() << " expert " << e;
      ++row;
    }
  }
  ASSERT_EQ(p.tokens * p.top, data.offsets[p.experts]) << device << " " << p.text();
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed, float spread = 2.0f) {
  Data data(p);
  data.randomize(p, seed, spread);
  SCOPED_TRACE("seed=" + std::to_string(seed));
  check(on, device, p, data);
}

TEST(Route, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 2);
    for (int32_t dtype : kTypes) {
      Message message;
      Problem p;
      p.kind = GTN_ROUTE_SIGMOID;
      p.dtype = dtype;
      p.tokens = 8;  // and 2
      p.experts = 12;
      p.top = 3;
      p.bias = true;
      const gtn_route_desc desc = p.desc();
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_route_plan(on.device, &desc, &plan, &message)) << message.text;
      gtn_plan_info info = {};
      info.size = sizeof info;
      ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
      EXPECT_EQ("cpu." + name.substr(name.find(':') + 1) + ".route.sigmoid." + name_of(dtype), info.kernel);
      EXPECT_EQ(GTN_OP_ROUTE, info.op);
      EXPECT_EQ(10.0 * (12 * static_cast<double>(Buffer::element_size(dtype)) + 3 * 16) + 13 * 8 + 12 * 4, info.bytes);
      EXPECT_EQ(10.0 * 12 * 26, info.flops);
      // The bias, the choices, one run's starts, and for each thread scores, keys and choices, all in whole lines.
      EXPECT_EQ(64 + 128 + 64 + 2 * (64 + 64 + 64), info.workspace_bytes);
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

// Random combinations of everything, over sizes around vectors.
TEST(Route, ShapesLayoutsDtypesAndOptions) {
  const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 60, 64, 96, 127, 128, 160, 256, 384};
  const int64_t lengths[] = {0, 1, 2, 3, 17, 40};
  const float scales[] = {1.0f, 2.5f, -0.5f, 0.0f};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (uint64_t seed = 1; seed <= 600; ++seed) {
      std::mt19937_64 random(seed);
      Problem p;
      p.kind = random() % 2 ? GTN_ROUTE_SOFTMAX : GTN_ROUTE_SIGMOID;
      p.dtype = kTypes[random() % 3];
      p.tokens = lengths[random() % std::size(lengths)];
      p.experts = sizes[random() % std::size(sizes)];
      if (random() % 2) {
        std::vector<int64_t> divisors;
        for (int64_t g = 1; g <= p.experts; ++g) {
          if (p.experts % g == 0) divisors.push_back(g);
        }
        p.groups = divisors[random() % divisors.size()];
        p.top_groups = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(p.groups));
      }
      const int64_t among = p.groups > 0 ? p.experts / p.groups * p.top_groups : p.experts;
      const int64_t most = random() % 4 ? std::min<int64_t>(among, 10) : among;
      p.top = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(most));
      p.pad = random() % 2 ? 0 : 5;
      p.bias = random() % 2;
      p.normalize = random() % 2;
      p.scale = scales[random() % std::size(scales)];
      check_random(on, name, p, seed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Logits from all equal to far apart: scores below the normal range, and of 0.
TEST(Route, LogitsFarApart) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (float spread : {0.0f, 1e-6f, 30.0f, 100.0f, 1e4f, 1e38f}) {
      for (int32_t kind : {GTN_ROUTE_SOFTMAX, GTN_ROUTE_SIGMOID}) {
        for (bool normalize : {false, true}) {
          Problem p;
          p.kind = kind;
          p.tokens = 20;
          p.experts = 40;
          p.top = 7;
          p.normalize = normalize;
          check_random(on, name, p, 5, spread);
          p.groups = 8;
          p.top_groups = 3;
          p.bias = true;
          check_random(on, name, p, 6, spread);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

// One logit is so far above the others that they get nothing: at every place of a vector, the first and the last among them.
TEST(Route, OneLogitAboveAll) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t experts : {1, 2, 7, 8, 9, 16, 17, 33}) {
      Problem p;
      p.tokens = experts;
      p.experts = experts;
      p.top = 1;
      Data data(p);
      data.randomize(p, 11, 1.0f);
      for (int64_t t = 0; t < experts; ++t) data.x.set(t * experts + t, 500.0f);
      check(on, name, p, data);
      if (testing::Test::HasFatalFailure()) return;
      for (int64_t t = 0; t < experts; ++t) {
        ASSERT_EQ(t, data.experts[t]) << name << " " << p.text();
        ASSERT_EQ(1.0f, data.weights[t]) << name << " " << p.text();
      }
    }
  }
}

// A group is worth the sum of its two best: each of the two decides between groups whose other one is a little better.
TEST(Route, TheTwoBestOfAGroupCountAlike) {
  const auto logit = [](double score) { return static_cast<float>(std::log(score / (1.0 - score))); };
  const double scores[2][6] = {{0.90, 0.10, 0.02, 0.52, 0.50, 0.01}, {0.90, 0.12, 0.02, 0.51, 0.50, 0.01}};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.kind = GTN_ROUTE_SIGMOID;
    p.tokens = 2;
    p.experts = 6;
    p.top = 1;
    p.groups = 2;
    p.top_groups = 1;
    Data data(p);
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t e = 0; e < 6; ++e) data.x.set(t * 6 + e, logit(scores[t][e]));
    }
    check(on, name, p, data);
    if (testing::Test::HasFatalFailure()) return;
    EXPECT_EQ(3, data.experts[0]) << name;  // 1.02 against 1.00
    EXPECT_EQ(0, data.experts[1]) << name;  // 1.01 against 1.02
  }
}

TEST(Route, AsManyExpertsAsThereCanBe) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t top : {1, 16, 65536}) {
      Problem p;
      p.kind = GTN_ROUTE_SIGMOID;
      p.tokens = 2;
      p.experts = 65536;
      p.top = top;
      check_random(on, name, p, 9);
      p.groups = 512;
      p.top_groups = 512;
      p.bias = true;
      check_random(on, name, p, 10);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Few distinct logits: the lower expert of two equals is chosen, and stands first.
TEST(Route, EqualScoresGoByTheirNumbers) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_ROUTE_SOFTMAX, GTN_ROUTE_SIGMOID}) {
      for (int64_t groups : {0, 6}) {
        for (uint64_t seed = 0; seed < 40; ++seed) {
          std::mt19937_64 random(seed);
          Problem p;
          p.kind = kind;
          p.tokens = 3;
          p.experts = 54;
          p.top = 1 + static_cast<int64_t>(random() % 18);
          p.groups = groups;
          p.top_groups = groups > 0 ? 2 : 0;
          p.bias = true;
          Data data(p);
          const float logits[] = {-kInfinity, -1.0f, 0.5f};
          for (int64_t i = 0; i < data.x.size(); ++i) data.x.set(i, logits[random() % 3]);
          for (float& b : data.bias) b = static_cast<float>(random() % 2) * 4.0f;
          ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
          for (int64_t t = 0; t < p.tokens; ++t) {
            // Whole numbers in the order of keys, and of sums of two: no rounding can make or break an equality.
            std::vector<int> key(54), expected;
            for (int64_t e = 0; e < 54; ++e) {
              const float x = data.logit(p, t, e);
              key[static_cast<size_t>(e)] = (x == -kInfinity ? 0 : x < 0.0f ? 269 : 622) +
                                            1000 * static_cast<int>(data.bias[static_cast<size_t>(e)]);
            }
            std::vector<std::pair<int, int>> order;  // of groups: worth, and number for the lower to come first
            for (int g = 0; g < groups; ++g) {
              std::vector<int> own(key.begin() + g * 9, key.begin() + (g + 1) * 9);
              std::sort(own.begin(), own.end(), std::greater<int>());
              order.push_back({own[0] + (kind == GTN_ROUTE_SIGMOID ? own[1] : 0), -g});
            }
            std::sort(order.begin(), order.end(), std::greater<>());
            for (int e = 0; e < 54; ++e) {
              if (groups == 0 || e / 9 == -order[0].second || e / 9 == -order[1].second) expected.push_back(e);
            }
            std::sort(expected.begin(), expected.end(), [&](int left, int right) {
              const int difference = key[static_cast<size_t>(left)] - key[static_cast<size_t>(right)];
              return difference != 0 ? difference > 0 : left < right;
            });
            for (int64_t i = 0; i < p.top; ++i) {
              ASSERT_EQ(expected[static_cast<size_t>(i)], data.experts[t * p.top + i])
                  << name << " " << p.text() << " seed " << seed << " token " << t << " choice " << i;
            }
          }
        }
      }
    }
  }
}

TEST(Route, InfinitiesAndNan) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_ROUTE_SOFTMAX, GTN_ROUTE_SIGMOID}) {
      for (int32_t dtype : kTypes) {
        for (int64_t experts : {6, 21, 63}) {
          for (bool normalize : {false, true}) {
            Problem p;
            p.kind = kind;
            p.dtype = dtype;
            p.tokens = 6;
            p.experts = experts;
            p.top = 4;
            p.normalize = normalize;
            p.groups = normalize ? 3 : 0;
            p.top_groups = normalize ? 2 : 0;
            Data data(p);
            data.randomize(p, 3, 1.0f);
            for (int64_t e = 0; e < experts; ++e) data.x.set(e, -kInfinity);
            data.x.set(1 * experts + experts - 1, NAN);
            data.x.set(2 * experts, kInfinity);
            data.x.set(3 * experts + 2, -kInfinity);
            for (int64_t e = 0; e < experts; ++e) data.x.set(4 * experts + e, NAN);
            check(on, name, p, data);
            if (testing::Test::HasFatalFailure()) return;
            for (int64_t i = 0; i < p.top; ++i) EXPECT_EQ(0.0f, data.weights[i]) << "-infinity alone has scores of 0";
          }
        }
      }
    }
  }
}

// Biases whose sums overflow, in groups of which one holds two of them.
TEST(Route, BiasesAtTheEnds) {
  const float most = std::numeric_limits<float>::max();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.kind = GTN_ROUTE_SIGMOID;
    p.experts = 8;
    p.top = 2;
    p.groups = 4;
    p.top_groups = 1;
    p.bias = true;
    Data data(p);
    data.randomize(p, 4, 1.0f);
    data.bias = {0.9f * most, 0.8f * most, -most, -most, most, most, 0.0f, 1.0f};
    ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
    EXPECT_EQ(4, data.experts[0]) << name;
    EXPECT_EQ(5, data.experts[1]) << name;
    for (float wrong : {kInfinity, -kInfinity, NAN}) {
      data.bias[7] = wrong;
      EXPECT_EQ(GTN_INVALID_ARGUMENT, run(on, p, data)) << name;
      EXPECT_EQ("bias[7] is ", on.message().substr(0, 11));
    }
  }
}

// Worked by hand: DeepSeek-V3's way, in small.
TEST(Route, AnExampleByHand) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.kind = GTN_ROUTE_SIGMOID;
    p.tokens = 2;
    p.experts = 6;
    p.top = 2;
    p.groups = 3;
    p.top_groups = 2;
    p.bias = true;
    p.normalize = true;
    p.scale = 2.0f;
    Data data(p);
    // Scores 0.5, 0.75, 0.2, 0.5, 0.9, 0.1; with a bias of 1 for expert 2 groups are worth 1.25, 1.7 and 1.
    const float three = 1.0986123f, four = 1.3862944f, nine = 2.1972246f;
    const float logits[] = {0.0f, three, -four, 0.0f, nine, -nine};
    for (int64_t e = 0; e < 6; ++e) data.x.set(e, logits[e]);
    // Zero everywhere: the bias alone decides, and the groups that are equal go by their numbers.
    for (int64_t e = 0; e < 6; ++e) data.x.set(6 + e, 0.0f);
    data.bias = {0.0f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f};
    ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
    const int32_t experts[] = {2, 1, 2, 0}, slots[] = {2, 1, 3, 0}, rows[] = {1, 0, 0, 1};
    const float weights[] = {0.4210526f, 1.5789474f, 1.0f, 1.0f};
    const int64_t offsets[] = {0, 1, 2, 4, 4, 4, 4};
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(experts[i], data.experts[i]) << name << " " << i;
      EXPECT_EQ(slots[i], data.slots[i]) << name << " " << i;
      EXPECT_EQ(rows[i], data.rows[i]) << name << " " << i;
      EXPECT_NEAR(weights[i], data.weights[i], 1e-6f) << name << " " << i;
    }
    for (int64_t e = 0; e < 7; ++e) EXPECT_EQ(offsets[e], data.offsets[e]) << name << " " << e;
  }
}

// Enough choices that every thread sorts some of them, the last fewer.
TEST(Route, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int64_t experts : {8, 100}) {
      Problem p;
      p.tokens = 33001;
      p.experts = experts;
      p.top = 2;
      p.normalize = true;
      Data given(p);
      given.randomize(p, 8, 2.0f);
      Data first = given;
      for (int threads : {1, 2, 3, 4}) {
        OpenDevice on(name, threads);
        Data data = given;
        ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
        if (threads == 1) {
          first = data;
          check(on, name, p, data);
          if (testing::Test::HasFatalFailure()) return;
          continue;
        }
        EXPECT_EQ(first.experts.elements, data.experts.elements) << name << " threads=" << threads;
        EXPECT_EQ(first.weights.elements, data.weights.elements) << name << " threads=" << threads;
        EXPECT_EQ(first.offsets.elements, data.offsets.elements) << name << " threads=" << threads;
        EXPECT_EQ(first.rows.elements, data.rows.elements) << name << " threads=" << threads;
        EXPECT_EQ(first.slots.elements, data.slots.elements) << name << " threads=" << threads;
      }
    }
  }
}

}  // namespace
}  // namespace gatun::test
