// The conv family against double precision.
#include "device_test.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kSentinel = -77.0f;
constexpr int64_t kLead = 3;  // elements of a buffer before and after what a run sees
constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16};

using Sizes = std::array<int64_t, 3>;

enum class Layout { kChannelsFirst, kChannelsLast, kSpread };

struct Problem {
  int32_t format = GTN_F32, x_dtype = GTN_F32, out_dtype = GTN_F32, w_dtype = GTN_F32;
  int rank = 2;
  int64_t batch = 1, channels = 1, columns = 1, groups = 1;
  Sizes size = {1, 1, 1}, kernel = {1, 1, 1}, stride = {1, 1, 1}, dilation = {1, 1, 1}, before = {0, 0, 0}, after = {0, 0, 0};
  Layout x_layout = Layout::kChannelsLast, out_layout = Layout::kChannelsLast;
  int32_t activation = GTN_ACT_NONE;
  bool norm = false, bias = false, residual = false, first = false, in_place = false;

  std::string text() const {
    char line[600];
    const auto at = [](const Sizes& s) { return std::to_string(s[0]) + "," + std::to_string(s[1]) + "," + std::to_string(s[2]); };
    std::snprintf(line, sizeof line,
                  "conv format=%d x=%d out=%d w=%d rank=%d batch=%lld channels=%lld columns=%lld groups=%lld size=%s kernel=%s "
                  "stride=%s dilation=%s before=%s after=%s layouts=%d,%d activation=%d%s%s%s%s%s",
                  format, x_dtype, out_dtype, w_dtype, rank, static_cast<long long>(batch), static_cast<long long>(channels),
                  static_cast<long long>(columns), static_cast<long long>(groups), at(size).c_str(), at(kernel).c_str(),
                  at(stride).c_str(), at(dilation).c_str(), at(before).c_str(), at(after).c_str(), static_cast<int>(x_layout),
                  static_cast<int>(out_layout), activation, norm ? " norm" : "", bias ? " bias" : "",
                  residual ? " residual" : "", first ? " first" : "", in_place ? " in place" : "");
    return line;
  }

  int64_t out_size(int d) const {
    const size_t i = static_cast<size_t>(d);
    if (d >= rank) return 1;
    const int64_t reach = dilation[i] * (kernel[i] - 1) + 1, padded = size[i] + before[i] + after[i];
    return padded < reach ? 0 : (padded - reach) / stride[i] + 1;
  }
  int64_t positions() const {
    int64_t count = 1;
    for (int d = 0; d < rank; ++d) count *= kernel[static_cast<size_t>(d)];
    return count;
  }

  static gtn_tensor_desc laid_out(int32_t dtype, const std::vector<int64_t>& shape, Layout layout) {
    gtn_tensor_desc t = tensor(dtype, shape);
    if (layout == Layout::kChannelsFirst) return t;
    int64_t stride = layout == Layout::kSpread ? 2 : 1;
    t.strides[1] = stride;
    stride *= shape[1];
    for (int d = t.rank - 1; d >= 2; --d) {
      if (layout == Layout::kSpread) stride += 3;
      t.strides[d] = stride;
      stride *= std::max<int64_t>(shape[static_cast<size_t>(d)], 1);
    }
    t.strides[0] = stride + (layout == Layout::kSpread ? 5 : 0);
    return t;
  }

  // The plan's batch is larger than what runs.
  gtn_conv_desc desc() const {
    gtn_conv_desc d = {};
    d.size = sizeof d;
    d.format = format;
    std::vector<int64_t> from = {batch + 1, channels}, to = {batch + 1, columns};
    for (int i = 0; i < rank; ++i) {
      const size_t s = static_cast<size_t>(i);
      from.push_back(size[s]);
      to.push_back(out_size(i));
      d.kernel[i] = kernel[s];
      d.stride[i] = stride[s];
      d.dilation[i] = dilation[s];
      d.pad_before[i] = before[s];
      d.pad_after[i] = after[s];
    }
    d.x = laid_out(x_dtype, from, x_layout);
    d.out = laid_out(out_dtype, to, out_layout);
    d.groups = groups;
    d.activation = activation;
    d.has_bias = bias;
    d.has_residual = residual;
    d.residual_first = first;
    return d;
  }

  gtn_conv_weights_desc weights_desc() const {
    gtn_conv_weights_desc d = {};
    d.size = sizeof d;
    d.format = format;
    std::vector<int64_t> shape = {columns, channels / groups};
    for (int i = 0; i < rank; ++i) shape.push_back(kernel[static_cast<size_t>(i)]);
    d.source = tensor(w_dtype, shape);
    d.groups = groups;
    d.has_norm = norm;
    d.epsilon = norm ? 1e-3f : 0.0f;
    return d;
  }
};

int64_t span(const gtn_tensor_desc& t) {
  int64_t elements = 1;
  for (int d = 0; d < t.rank; ++d) {
    if (t.shape[d] == 0) return 0;
    elements += (t.shape[d] - 1) * t.strides[d];
  }
  return elements;
}

// Element (image, channel, y0, y1, y2).
int64_t at(const gtn_tensor_desc& t, int64_t image, int64_t channel, const Sizes& y) {
  int64_t i = kLead + image * t.strides[0] + channel * t.strides[1];
  for (int d = 2; d < t.rank; ++d) i += y[static_cast<size_t>(d - 2)] * t.strides[d];
  return i;
}

struct Data {
  Buffer x, residual, out, w;
  std::vector<float> gamma, beta, mean, variance, bias;

  Data(const Problem& p, uint64_t seed)
      : x(p.x_dtype, 2 * kLead + span(p.desc().x)),
        residual(p.out_dtype, 2 * kLead + span(p.desc().out)),
        out(p.out_dtype, residual.size()),
        w(p.w_dtype, p.columns * (p.channels / p.groups) * p.positions()) {
    std::mt19937_64 random(seed);
    x.fill_normal(random);
    residual.fill_normal(random);
    w.fill_normal(random);
    out.fill(kSentinel);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (int64_t o = 0; o < p.columns; ++o) {
      gamma.push_back(1.0f + 0.3f * normal(random));
      beta.push_back(normal(random));
      mean.push_back(normal(random));
      variance.push_back(0.1f + std::fabs(normal(random)));
      bias.push_back(normal(random));
    }
  }
};

void* at_lead(Buffer& buffer) {
  return static_cast<char*>(buffer.data()) + kLead * Buffer::element_size(buffer.dtype());
}

gtn_weights pack(OpenDevice& on, const Problem& p, const Data& data) {
  Message message;
  const gtn_conv_weights_desc desc = p.weights_desc();
  gtn_weights weights = 0;
  const auto given = [&](const std::vector<float>& v) { return p.norm ? v.data() : nullptr; };
  EXPECT_EQ(GTN_OK, gtn_conv_weights_pack(on.device, &desc, data.w.data(), given(data.gamma), given(data.beta), given(data.mean),
                                          given(data.variance), &weights, &message))
      << p.text() << ": " << message.text;
  return weights;
}

gtn_status run(OpenDevice& on, const Problem& p, Data& data) {
  Message message;
  const gtn_conv_desc desc = p.desc();
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_conv_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const gtn_weights weights = pack(on, p, data);
  const gtn_status status =
      gtn_conv_run(plan, on.stream, weights, p.batch, at_lead(data.x), p.bias ? data.bias.data() : nullptr,
                   p.residual ? at_lead(data.residual) : nullptr, at_lead(p.in_place ? data.residual : data.out));
  EXPECT_EQ(GTN_OK, status) << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return status;
}

double rounded(double value, bool bf16) {
  return bf16 ? static_cast<double>(from_bf16(to_bf16(static_cast<float>(value)))) : value;
}

double activate(int32_t activation, double x) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case GTN_ACT_GELU_TANH:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case GTN_ACT_SILU:
      return x / (1 + std::exp(-x));
    case GTN_ACT_RELU:
      return x < 0 ? 0 : x;
    default:
      return x;
  }
}

// Every element of out, and of what must not be touched around it.
void check(OpenDevice& on, const Problem& p, uint64_t seed) {
  SCOPED_TRACE(p.text());
  Data data(p, seed);
  const Data before = data;
  const gtn_conv_desc desc = p.desc();
  if (run(on, p, data) != GTN_OK) return;
  const Buffer& out = p.in_place ? data.residual : data.out;
  std::vector<bool> written(static_cast<size_t>(out.size()), false);
  const bool bf16 = p.format == GTN_BF16;
  const int64_t channels = p.channels / p.groups, columns = p.columns / p.groups, positions = p.positions();
  const double terms = static_cast<double>(channels * positions);
  const Sizes ends = {p.out_size(0), p.rank > 1 ? p.out_size(1) : 1, p.rank > 2 ? p.out_size(2) : 1};
  int failures = 0;
  Sizes y;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t o = 0; o < p.columns; ++o) {
      const size_t channel = static_cast<size_t>(o);
      const double scale = p.norm ? data.gamma[channel] / std::sqrt(static_cast<double>(data.variance[channel]) +
                                                                   static_cast<double>(1e-3f))
                                  : 1.0;
      for (y[0] = 0; y[0] < ends[0]; ++y[0]) {
        for (y[1] = 0; y[1] < ends[1]; ++y[1]) {
          for (y[2] = 0; y[2] < ends[2]; ++y[2]) {
            double sum = 0, magnitude = 0;
            for (int64_t t = 0; t < positions; ++t) {
              int64_t left = t;
              Sizes from = {0, 0, 0};
              bool inside = true;
              for (int d = p.rank - 1; d >= 0; --d) {
                const size_t i = static_cast<size_t>(d);
                from[i] = y[i] * p.stride[i] - p.before[i] + left % p.kernel[i] * p.dilation[i];
                left /= p.kernel[i];
                inside = inside && from[i] >= 0 && from[i] < p.size[i];
              }
              if (!inside) continue;
              for (int64_t c = 0; c < channels; ++c) {
                const double x = rounded(before.x.get(at(desc.x, b, o / columns * channels + c, from)), bf16);
                const double w = rounded(static_cast<double>(before.w.get((o * channels + c) * positions + t)) * scale, bf16);
                sum += x * w;
                magnitude += std::fabs(x * w);
              }
            }
            if (p.norm) {
              sum += data.beta[channel] - data.mean[channel] * scale;
              magnitude += std::fabs(data.beta[channel]) + std::fabs(data.mean[channel] * scale);
            }
            if (p.bias) {
              sum += data.bias[channel];
              magnitude += std::fabs(data.bias[channel]);
            }
            const int64_t to = at(desc.out, b, o, y);
            const double residual = p.residual ? before.residual.get(to) : 0.0;
            if (p.first) sum += residual;
            double expected = activate(p.activation, sum);
            if (!p.first) expected += residual;
            magnitude += std::fabs(residual);
            // Each term, folding and each addition round once; activations are steep by less than 1.2 and add a few roundings.
            double allowed = 1.2 * (terms + 8) * kUnitRoundoffF32 * (magnitude + std::fabs(expected)) + 1e-36;
            if (p.out_dtype == GTN_BF16) allowed += 0x1p-8 * (std::fabs(expected) + allowed);
            // A weight that folding puts near a tie may round to the BF16 on the other side.
            if (bf16 && p.norm) allowed += 0x1p-8 * magnitude / std::sqrt(std::max(terms, 1.0));
            const double got = out.get(to);
            written[static_cast<size_t>(to)] = true;
            if (std::fabs(got - expected) <= allowed) continue;
            if (++failures > 3) return;
            ADD_FAILURE() << "out[" << b << "," << o << "," << y[0] << "," << y[1] << "," << y[2] << "] is " << got << ", expected "
                          << expected << " +- " << allowed;
          }
        }
      }
    }
  }
  const Buffer& untouched = p.in_place ? before.residual : before.out;
  for (int64_t i = 0; i < out.size(); ++i) {
    if (!written[static_cast<size_t>(i)] && out.get(i) != untouched.get(i)) {
      FAIL() << "element " << i << " of memory was written, which is no element of out";
    }
  }
}

class ConvTest : public testing::TestWithParam<std::string> {};

TEST_P(ConvTest, Shapes) {
  OpenDevice on(GetParam());
  std::vector<Problem> problems;
  const auto add = [&](int rank, int64_t batch, int64_t channels, int64_t columns, int64_t groups, Sizes size, Sizes kernel,
                       Sizes stride, Sizes dilation, Sizes before, Sizes after) {
    Problem p;
    p.rank = rank;
    p.batch = batch;
    p.channels = channels;
    p.columns = columns;
    p.groups = groups;
    p.size = size;
    p.kernel = kernel;
    p.stride = stride;
    p.dilation = dilation;
    p.before = before;
    p.after = after;
    problems.push_back(p);
  };
  const Sizes one = {1, 1, 1}, none = {0, 0, 0};
  add(2, 1, 1, 1, 1, one, one, one, one, none, none);
  add(1, 2, 3, 5, 1, {17, 1, 1}, {5, 1, 1}, one, one, {2, 0, 0}, {2, 0, 0});
  add(1, 1, 31, 33, 1, {40, 1, 1}, {3, 1, 1}, {2, 1, 1}, {4, 1, 1}, {7, 0, 0}, {1, 0, 0});
  add(1, 3, 64, 40, 1, {29, 1, 1}, {1, 1, 1}, one, one, none, none);               // in place
  add(2, 2, 80, 17, 1, {5, 7, 1}, {1, 1, 1}, one, one, none, none);
  add(2, 1, 48, 70, 1, {9, 11, 1}, {1, 1, 1}, {2, 3, 1}, one, none, none);
  add(2, 2, 3, 16, 1, {23, 19, 1}, {7, 7, 1}, {2, 2, 1}, one, {3, 3, 0}, {2, 3, 0});
  add(2, 1, 16, 65, 1, {13, 17, 1}, {3, 3, 1}, one, one, {1, 1, 0}, {1, 1, 0});
  add(2, 1, 37, 31, 1, {7, 5, 1}, {3, 2, 1}, {1, 2, 1}, {2, 3, 1}, {3, 0, 0}, {0, 5, 0});
  add(2, 1, 5, 7, 1, {2, 3, 1}, {3, 3, 1}, one, one, {4, 5, 0}, {5, 4, 0});         // padding larger than x
  add(2, 2, 4, 6, 1, {3, 3, 1}, {5, 5, 1}, one, one, none, none);                    // out is empty
  add(2, 2, 4, 6, 1, {0, 3, 1}, {2, 2, 1}, one, one, {1, 1, 0}, {2, 0, 0});         // x is empty, out is not
  add(2, 1, 12, 20, 4, {9, 8, 1}, {3, 3, 1}, one, one, {1, 1, 0}, {1, 1, 0});
  add(2, 2, 9, 36, 9, {6, 7, 1}, {3, 3, 1}, {2, 1, 1}, one, {1, 1, 0}, {0, 1, 0});   // four of each channel
  add(2, 2, 37, 37, 37, {9, 23, 1}, {3, 3, 1}, one, one, {1, 1, 0}, {1, 1, 0});      // depthwise
  add(2, 1, 96, 96, 96, {11, 13, 1}, {5, 3, 1}, {2, 2, 1}, {1, 2, 1}, {2, 5, 0}, {1, 4, 0});
  add(1, 2, 130, 130, 130, {19, 1, 1}, {4, 1, 1}, one, one, {3, 0, 0}, none);        // causal, as in state space models
  add(3, 1, 7, 11, 1, {5, 4, 6}, {3, 3, 3}, one, one, one, one);
  add(3, 2, 18, 34, 2, {3, 7, 5}, {2, 3, 1}, {1, 2, 1}, {2, 1, 1}, {1, 0, 2}, {0, 2, 1});
  add(3, 1, 19, 19, 19, {4, 5, 9}, {3, 2, 3}, {1, 1, 2}, one, {1, 1, 1}, {1, 0, 1});
  add(2, 1, 700, 300, 1, {6, 5, 1}, {3, 3, 1}, one, one, {1, 1, 0}, {1, 1, 0});      // several slices of k, several blocks
  uint64_t seed = 1;
  for (Problem p : problems) {
    const bool large = p.channels * p.columns > 20000;
    for (const int32_t format : kTypes) {
      for (const int32_t x_dtype : kTypes) {
        for (const Layout x_layout : {Layout::kChannelsFirst, Layout::kChannelsLast, Layout::kSpread}) {
          if (large && (x_layout != Layout::kChannelsLast || x_dtype != format)) continue;
          p.format = format;
          p.x_dtype = x_dtype;
          p.x_layout = x_layout;
          ++seed;
          p.out_layout = seed % 3 == 0 ? Layout::kChannelsFirst : seed % 3 == 1 ? Layout::kChannelsLast : Layout::kSpread;
          p.out_dtype = kTypes[seed / 2 % 2];
          p.w_dtype = kTypes[seed / 3 % 2];
          p.activation = static_cast<int32_t>(seed % 5);
          p.norm = seed % 2 == 0;
          p.bias = seed % 7 < 3;
          p.residual = seed % 4 < 2;
          p.first = p.residual && seed % 8 < 4;
          p.in_place = p.residual && seed % 3 == 0;
          check(on, p, seed);
        }
      }
    }
  }
}

// Every way to end, in both layouts.
TEST_P(ConvTest, Epilogues) {
  OpenDevice on(GetParam());
  uint64_t seed = 100;
  for (const int32_t out_dtype : kTypes) {
    for (const Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
      for (int32_t activation = GTN_ACT_NONE; activation <= GTN_ACT_RELU; ++activation) {
        for (int bits = 0; bits < 16; ++bits) {
          Problem p;
          p.channels = 5;
          p.columns = 37;
          p.size = {4, 5, 1};
          p.kernel = {2, 2, 1};
          p.out_dtype = out_dtype;
          p.out_layout = layout;
          p.activation = activation;
          p.norm = bits & 1;
          p.bias = bits & 2;
          p.residual = bits & 4;
          p.first = bits & 8;
          if (p.first && !p.residual) continue;
          check(on, p, ++seed);
        }
      }
    }
  }
}

// The same bits with one thread and with several, and for an image alone and among others.
TEST_P(ConvTest, BitsDoNotDependOnThreadsOrBatch) {
  OpenDevice one(GetParam(), 1), several(GetParam(), 3);
  for (const int32_t format : kTypes) {
    for (const int64_t groups : {int64_t{1}, int64_t{48}}) {
      Problem p;
      p.format = format;
      p.x_layout = Layout::kChannelsFirst;
      p.batch = 3;
      p.channels = p.columns = 48;
      p.groups = groups;
      p.size = {19, 21, 1};
      p.kernel = {3, 3, 1};
      p.before = p.after = {1, 1, 0};
      p.norm = true;
      p.activation = GTN_ACT_RELU;
      Data first(p, 7), second(p, 7);
      run(one, p, first);
      run(several, p, second);
      EXPECT_TRUE(first.out.same_bytes(second.out)) << p.text();
      Problem single = p;
      single.batch = 1;
      Data alone(single, 7);
      for (int64_t i = 0; i < alone.x.size(); ++i) alone.x.set(i, first.x.get(i));
      alone.w = first.w;
      alone.gamma = first.gamma;
      alone.beta = first.beta;
      alone.mean = first.mean;
      alone.variance = first.variance;
      run(several, single, alone);
      const gtn_tensor_desc out = single.desc().out;
      for (int64_t i = 0; i < out.strides[0]; ++i) ASSERT_EQ(first.out.get(kLead + i), alone.out.get(kLead + i)) << i;
    }
  }
}

// What is not finite reaches exactly the elements whose kernel meets it.
TEST_P(ConvTest, NonFinite) {
  OpenDevice on(GetParam());
  for (const int32_t format : kTypes) {
    for (const int64_t groups : {int64_t{1}, int64_t{20}}) {
      for (const float value : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
        Problem p;
        p.format = format;
        p.channels = p.columns = 20;
        p.groups = groups;
        p.size = {9, 9, 1};
        p.kernel = {3, 3, 1};
        p.before = p.after = {1, 1, 0};
        Data data(p, 3);
        const gtn_conv_desc desc = p.desc();
        data.x.set(at(desc.x, 0, 13, {4, 0, 0}), value);
        run(on, p, data);
        for (int64_t o = 0; o < 20; ++o) {
          for (int64_t h = 0; h < 9; ++h) {
            for (int64_t w = 0; w < 9; ++w) {
              const bool meets = std::abs(h - 4) <= 1 && w <= 1 && (groups == 1 || o == 13);
              EXPECT_EQ(meets, !std::isfinite(data.out.get(at(desc.out, 0, o, {h, w, 0})))) << o << " " << h << " " << w;
            }
          }
        }
      }
    }
  }
}

// Weights that fold to what is not finite are refused, by name.
TEST_P(ConvTest, WeightsThatAreNotFinite) {
  OpenDevice on(GetParam());
  for (const bool depthwise : {false, true}) {
    Problem p;
    p.channels = p.columns = 4;
    p.groups = depthwise ? 4 : 1;
    p.kernel = {3, 1, 1};
    p.norm = true;
    const gtn_conv_weights_desc desc = p.weights_desc();
    const auto refused = [&](const Data& data, const std::string& named) {
      Message message;
      gtn_weights weights = 0;
      EXPECT_EQ(GTN_INVALID_ARGUMENT,
                gtn_conv_weights_pack(on.device, &desc, data.w.data(), data.gamma.data(), data.beta.data(), data.mean.data(),
                                      data.variance.data(), &weights, &message));
      EXPECT_NE(std::string::npos, std::string(message.text).find(named)) << message.text;
      EXPECT_EQ(0u, weights);
    };
    Data data(p, 5);
    data.variance[2] = -1.0f;
    refused(data, "channel 2");
    data = Data(p, 5);
    data.mean[1] = std::nanf("");
    refused(data, "channel 1");
    data = Data(p, 5);
    data.w.set(0, std::numeric_limits<float>::infinity());
    refused(data, "channels 0 and 0 at position 0");
    data = Data(p, 5);
    data.w.set(0, 3e38f);
    data.gamma[0] = 100.0f;
    refused(data, "channels 0 and 0 at position 0");
  }
}

TEST_P(ConvTest, PlansSayWhatTheyAre) {
  OpenDevice on(GetParam());
  const std::string level = GetParam().substr(4);
  Problem p;
  p.batch = 2;
  p.channels = 80;
  p.columns = 24;
  p.size = {8, 8, 1};
  const auto info_of = [&](const Problem& of) {
    Message message;
    const gtn_conv_desc desc = of.desc();
    gtn_plan plan = 0;
    gtn_plan_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(GTN_OK, gtn_conv_plan(on.device, &desc, &plan, &message)) << message.text;
    EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message));
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    return info;
  };
  gtn_plan_info info = info_of(p);
  EXPECT_EQ("cpu." + level + ".conv.f32" + ".pointwise", info.kernel);
  EXPECT_EQ(GTN_OP_CONV, info.op);
  EXPECT_EQ(2.0 * 3 * 64 * 80 * 24, info.flops);
  for (int rank : {1, 3}) {
    Problem other = p;
    other.rank = rank;
    if (rank == 3) other.size = {5, 4, 3};
    EXPECT_EQ("cpu." + level + ".conv.f32.pointwise", info_of(other).kernel) << rank;
  }
  p.channels = 24;
  p.groups = 24;
  p.kernel = {3, 3, 1};
  info = info_of(p);
  EXPECT_EQ("cpu." + level + ".conv.f32.depthwise", info.kernel);
  EXPECT_EQ(2.0 * 3 * 36 * 24 * 9, info.flops);
  p.groups = 1;
  p.format = GTN_BF16;
  info = info_of(p);
  EXPECT_EQ("cpu." + level + ".conv.bf16", info.kernel);
  EXPECT_EQ(3.0 * 64 * 24 * 4 + 9 * 24 * 24 * 2 + 3.0 * 36 * 24 * 4 + 4 * 24, info.bytes);
}

INSTANTIATE_TEST_SUITE_P(Levels, ConvTest, testing::ValuesIn(cpu_devices()), [](const auto& level) {
  std::string name = level.param.substr(4);
  return name;
});

}  // namespace
}  // namespace gatun::test
