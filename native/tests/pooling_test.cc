// Pooling against double precision, on every level: the maximum exactly, the mean within its derived tolerance.
#include "device_test.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kSentinel = -77.0f;
constexpr int64_t kLead = 3;  // elements of a buffer before and after what a run sees
constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16};
const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInf = std::numeric_limits<float>::infinity();

using Sizes = std::array<int64_t, 3>;

enum class Layout { kChannelsFirst, kChannelsLast, kSpread };

struct Problem {
  int32_t kind = GTN_POOLING_MAX, x_dtype = GTN_F32, out_dtype = GTN_F32;
  int rank = 2;
  int64_t batch = 1, channels = 1;
  Sizes size = {1, 1, 1}, kernel = {1, 1, 1}, stride = {1, 1, 1}, dilation = {1, 1, 1};
  Sizes before = {0, 0, 0}, after = {0, 0, 0};
  Layout x_layout = Layout::kChannelsFirst, out_layout = Layout::kChannelsFirst;
  bool count_padding = false;

  std::string text() const {
    char line[500];
    const auto at = [](const Sizes& s) {
      return std::to_string(s[0]) + "," + std::to_string(s[1]) + "," + std::to_string(s[2]);
    };
    std::snprintf(line, sizeof line,
                  "pooling kind=%d x=%d out=%d rank=%d batch=%lld channels=%lld size=%s kernel=%s stride=%s dilation=%s "
                  "before=%s after=%s layouts=%d,%d%s",
                  kind, x_dtype, out_dtype, rank, static_cast<long long>(batch), static_cast<long long>(channels),
                  at(size).c_str(), at(kernel).c_str(), at(stride).c_str(), at(dilation).c_str(), at(before).c_str(),
                  at(after).c_str(), static_cast<int>(x_layout), static_cast<int>(out_layout),
                  count_padding ? " count padding" : "");
    return line;
  }

  int64_t out_size(int d) const {
    const size_t i = static_cast<size_t>(d);
    if (d >= rank) return 1;
    const int64_t reach = dilation[i] * (kernel[i] - 1) + 1, padded = size[i] + before[i] + after[i];
    return padded < reach ? 0 : (padded - reach) / stride[i] + 1;
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
  gtn_pooling_desc desc() const {
    gtn_pooling_desc d = {};
    d.size = sizeof d;
    d.kind = kind;
    std::vector<int64_t> from = {batch + 1, channels}, to = from;
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
    d.count_padding = count_padding;
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
  Buffer x, out;

  Data(const Problem& p, uint64_t seed)
      : x(p.x_dtype, 2 * kLead + span(p.desc().x)), out(p.out_dtype, 2 * kLead + span(p.desc().out)) {
    std::mt19937_64 random(seed);
    x.fill_normal(random);
    out.fill(kSentinel);
  }
};

// What a window sees.
struct Window {
  double sum = 0, magnitude = 0, most = -std::numeric_limits<double>::infinity();
  int64_t inside = 0;
  bool nan = false;
};

Window window(const Problem& p, const gtn_tensor_desc& from, const Buffer& x, int64_t image, int64_t channel, const Sizes& y) {
  Window w;
  Sizes t;
  for (t[0] = 0; t[0] < p.kernel[0]; ++t[0]) {
    for (t[1] = 0; t[1] < p.kernel[1]; ++t[1]) {
      for (t[2] = 0; t[2] < p.kernel[2]; ++t[2]) {
        Sizes position = {0, 0, 0};
        bool inside = true;
        for (size_t d = 0; d < 3; ++d) {
          position[d] = y[d] * p.stride[d] + t[d] * p.dilation[d] - p.before[d];
          inside = inside && position[d] >= 0 && position[d] < p.size[d];
        }
        if (!inside) continue;
        const double value = static_cast<double>(x.get(at(from, image, channel, position)));
        ++w.inside;
        w.sum += value;
        w.magnitude += std::fabs(value);
        w.nan = w.nan || std::isnan(value);
        w.most = std::max(w.most, value);
      }
    }
  }
  return w;
}

float rounded(int32_t dtype, double value) {
  Buffer one(dtype, 1);
  one.set(0, static_cast<float>(value));
  return one.get(0);
}

// A maximum is one of the numbers of x, rounded to the type of out: the same bits, but for the sign of zero. The sum of n
// numbers is within (n - 1) u sum|x| in any order (Higham, section 4.2), a division rounds once, and out once more.
void check(const std::string& device, const Problem& p, const Data& data, const Buffer& out) {
  const double u = kUnitRoundoffF32;
  const double unit = p.out_dtype == GTN_F32 ? 0 : p.out_dtype == GTN_BF16 ? 0x1p-8 : 0x1p-11;
  const double least = p.out_dtype == GTN_F32 ? 0 : p.out_dtype == GTN_BF16 ? 0x1p-134 : 0x1p-25;
  const gtn_tensor_desc from = p.desc().x, to = p.desc().out;
  std::vector<bool> written(static_cast<size_t>(out.size()), false);
  int reported = 0;
  Sizes y;
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t channel = 0; channel < p.channels; ++channel) {
      for (y[0] = 0; y[0] < p.out_size(0); ++y[0]) {
        for (y[1] = 0; y[1] < p.out_size(1); ++y[1]) {
          for (y[2] = 0; y[2] < p.out_size(2); ++y[2]) {
            const int64_t i = at(to, image, channel, y);
            written[static_cast<size_t>(i)] = true;
            const Window w = window(p, from, data.x, image, channel, y);
            double expected, error = 0;
            if (p.kind == GTN_POOLING_MAX) {
              expected = w.nan ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(rounded(p.out_dtype, w.most));
            } else {
              const int64_t all = p.kernel[0] * p.kernel[1] * p.kernel[2];
              const double by = static_cast<double>(p.count_padding ? all : std::max<int64_t>(w.inside, 1));
              expected = w.sum / by;
              error = static_cast<double>(w.inside) * u * w.magnitude / by + u * std::fabs(expected) + 0x1p-149;
              error += unit * (std::fabs(expected) + error) + least;
            }
            const double got = static_cast<double>(out.get(i));
            const bool same = std::isnan(expected)   ? std::isnan(got)
                              : std::isinf(expected) ? got == expected
                                                     : std::fabs(got - expected) <= error;
            if (!same && reported++ < 3) {
              ADD_FAILURE() << device << " out[" << image << ", " << channel << ", " << y[0] << ", " << y[1] << ", " << y[2]
                            << "] is " << got << ", expected " << expected << " within " << error << ": " << p.text();
            }
          }
        }
      }
    }
  }
  for (int64_t i = 0; i < out.size(); ++i) {
    if (!written[static_cast<size_t>(i)] && out.get(i) != kSentinel) {
      ADD_FAILURE() << device << " wrote element " << i << ", which is none of out: " << p.text();
      break;
    }
  }
}

Buffer run(const OpenDevice& on, const Problem& p, const Data& data) {
  Message message;
  gtn_pooling_desc desc = p.desc();
  gtn_plan plan = 0;
  Buffer out = data.out;
  EXPECT_EQ(GTN_OK, gtn_pooling_plan(on.device, &desc, &plan, &message)) << message.text << p.text();
  const int64_t x_element = Buffer::element_size(p.x_dtype), out_element = Buffer::element_size(p.out_dtype);
  EXPECT_EQ(GTN_OK, gtn_pooling_run(plan, on.stream, p.batch, static_cast<const char*>(data.x.data()) + kLead * x_element,
                                    static_cast<char*>(out.data()) + kLead * out_element))
      << on.message() << p.text();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return out;
}

void check(const OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed) {
  const Data data(p, seed);
  check(device, p, data, run(on, p, data));
}

class PoolingTest : public testing::TestWithParam<std::string> {};

// One to three dimensions, all layouts and types, with windows that begin, end and lie in the padding, and lines and
// channels of fewer and more elements than vectors of any level have.
TEST_P(PoolingTest, Windows) {
  const OpenDevice on(GetParam());
  std::mt19937_64 random(1);
  const auto pick = [&](std::initializer_list<int64_t> values) { return values.begin()[random() % values.size()]; };
  for (uint64_t i = 0; i < 600; ++i) {
    Problem p;
    p.kind = i % 2 == 0 ? GTN_POOLING_MAX : GTN_POOLING_AVERAGE;
    p.rank = 1 + static_cast<int>(i % 3);
    p.x_dtype = kTypes[random() % 3];
    p.out_dtype = kTypes[random() % 3];
    p.batch = pick({1, 2, 3});
    p.channels = pick({1, 2, 7, 8, 17, 33, 70, 300});
    for (int d = 0; d < p.rank; ++d) {
      const size_t s = static_cast<size_t>(d);
      p.size[s] = p.rank == 1 ? pick({1, 5, 31, 64, 130}) : p.rank == 2 ? pick({1, 4, 9, 17, 40}) : pick({1, 3, 6, 10});
      p.kernel[s] = pick({1, 2, 3, 3, 5});
      p.stride[s] = pick({1, 1, 2, 2, 3});
      p.dilation[s] = pick({1, 1, 1, 2});
      p.before[s] = pick({0, 0, 1, 2, 6});
      p.after[s] = pick({0, 0, 1, 2});
    }
    p.x_layout = static_cast<Layout>(random() % 3);
    p.out_layout = random() % 2 == 0 ? p.x_layout : static_cast<Layout>(random() % 3);
    p.count_padding = p.kind == GTN_POOLING_AVERAGE && random() % 2 == 0;
    check(on, GetParam(), p, i + 1);
  }
}

// A whole plane each, in one line and in many, of few channels and of many.
TEST_P(PoolingTest, Global) {
  const OpenDevice on(GetParam());
  for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
    for (int32_t dtype : kTypes) {
      for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast, Layout::kSpread}) {
        for (const Sizes& size : {Sizes{1, 1, 1}, Sizes{7, 7, 1}, Sizes{3, 301, 1}, Sizes{64, 65, 1}}) {
          for (int64_t channels : {1, 5, 64, 257, 600}) {
            Problem p;
            p.kind = kind;
            p.x_dtype = dtype;
            p.channels = channels;
            p.size = p.kernel = size;
            p.x_layout = layout;
            p.out_layout = layout == Layout::kSpread ? Layout::kChannelsFirst : layout;
            check(on, GetParam(), p, static_cast<uint64_t>(channels + size[1]));
          }
        }
      }
    }
  }
}

// NaN and infinities reach every window that sees them and no other; subnormal numbers are numbers.
TEST_P(PoolingTest, SpecialValues) {
  const OpenDevice on(GetParam());
  for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
    for (int32_t dtype : kTypes) {
      for (int64_t stride : {1, 2, 3}) {
        Problem p;
        p.x_dtype = p.out_dtype = dtype;
        p.channels = 9;
        p.size = {12, 45, 1};
        p.kernel = {3, 3, 1};
        p.stride = {1, stride, 1};
        p.before = p.after = {1, 1, 0};
        p.x_layout = p.out_layout = layout;
        Data data(p, 7);
        const gtn_tensor_desc x = p.desc().x;
        data.x.set(at(x, 0, 2, {5, 20, 0}), kNan);
        data.x.set(at(x, 0, 3, {4, 11, 0}), kInf);
        data.x.set(at(x, 0, 4, {4, 30, 0}), -kInf);
        const float least = dtype == GTN_F16 ? 0x1p-24f : 0x1p-133f;
        for (int64_t i = 0; i < 12 * 45; ++i) {
          data.x.set(at(x, 0, 5, {i / 45, i % 45, 0}), -kInf);
          data.x.set(at(x, 0, 6, {i / 45, i % 45, 0}), least * static_cast<float>(1 + i % 7));
        }
        for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
          p.kind = kind;
          check(GetParam(), p, data, run(on, p, data));
        }
      }
    }
  }
}

// Maxima that F16 rounds to its largest number, and from 65520 on to infinity.
TEST_P(PoolingTest, MaximaBeyondF16) {
  const OpenDevice on(GetParam());
  for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast, Layout::kSpread}) {
    for (int32_t x_dtype : {GTN_F32, GTN_BF16}) {
      for (int64_t kernel : {1, 2}) {
        Problem p;
        p.x_dtype = x_dtype;
        p.out_dtype = GTN_F16;
        p.channels = 19;
        p.size = {7, 37, 1};
        p.kernel = {kernel, kernel, 1};
        p.x_layout = p.out_layout = layout;
        Data data(p, 3);
        const float edges[] = {65504.0f, 65519.996f, 65520.0f, 65536.0f, -65519.996f, -65520.0f, 3e38f, -3e38f};
        for (int64_t i = 0; i < data.x.size(); ++i) data.x.set(i, i % 3 == 0 ? edges[i / 3 % 8] : data.x.get(i) * 4e4f);
        check(GetParam(), p, data, run(on, p, data));
      }
    }
  }
}

// Windows that see little of a line of x, of which they leave the rest alone.
TEST_P(PoolingTest, FewOfALine) {
  const OpenDevice on(GetParam());
  uint64_t index = 0;
  for (Layout layout : {Layout::kChannelsFirst, Layout::kSpread}) {
    for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
      for (int32_t dtype : kTypes) {
        Problem p;
        p.kind = kind;
        p.x_dtype = dtype;
        p.out_dtype = kTypes[index++ % 3];
        p.channels = 5;
        p.x_layout = p.out_layout = layout;
        p.size = {4, 5000, 1};
        p.kernel = {2, 3, 1};
        p.stride = {1, 400, 1};
        p.dilation = {1, 2, 1};
        p.before = {1, 900, 0};
        p.after = {0, 401, 0};
        check(on, GetParam(), p, index);
        p.size = {2, 3, 301};
        p.kernel = {2, 1, 1};
        p.stride = p.dilation = {1, 1, 300};
        p.before = p.after = {0, 0, 0};
        p.rank = 3;
        p.count_padding = kind == GTN_POOLING_AVERAGE;
        check(on, GetParam(), p, index);
      }
    }
  }
}

// A dilation or a stride of windows times a stride of x is more than 64 bits hold, but no element lies there.
TEST_P(PoolingTest, PositionsFarBeyondX) {
  constexpr int64_t kFar = int64_t{1} << 40, kApart = int64_t{1} << 23;
  const OpenDevice on(GetParam());
  std::vector<float> x(kApart + 2);  // [2 channels, 2 positions]
  for (int64_t i = 0; i < 4; ++i) x[static_cast<size_t>(i % 2 + i / 2 * kApart)] = static_cast<float>(i + 1);
  const struct {
    int64_t kernel, stride, dilation, before, after;
    bool second;  // whether the second window sees the second position, or nothing
  } cases[] = {{2, 1, kFar, kFar, 0, true}, {2, 1, kFar, 0, kFar, true}, {1, kFar, 1, 0, kFar, false}};
  for (const auto& c : cases) {
    for (int d = 0; d < 3; ++d) {
      for (bool channels_last : {true, false}) {
        for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
          gtn_pooling_desc desc = {};
          desc.size = sizeof desc;
          desc.kind = kind;
          desc.x = desc.out = tensor(GTN_F32, {1, 2, 1, 1, 1});
          desc.x.strides[1] = 1;
          desc.out.strides[1] = channels_last ? 1 : 2;
          for (int i = 0; i < 3; ++i) desc.kernel[i] = desc.stride[i] = desc.dilation[i] = 1;
          desc.x.shape[2 + d] = desc.out.shape[2 + d] = 2;
          desc.x.strides[2 + d] = kApart;
          desc.out.strides[2 + d] = channels_last ? 2 : 1;
          desc.kernel[d] = c.kernel;
          desc.stride[d] = c.stride;
          desc.dilation[d] = c.dilation;
          desc.pad_before[d] = c.before;
          desc.pad_after[d] = c.after;
          gtn_plan plan = 0;
          Message message;
          ASSERT_EQ(GTN_OK, gtn_pooling_plan(on.device, &desc, &plan, &message)) << message.text;
          float out[4];
          ASSERT_EQ(GTN_OK, gtn_pooling_run(plan, on.stream, 1, x.data(), out)) << on.message();
          for (int64_t i = 0; i < 4; ++i) {
            const float seen = i < 2 || c.second ? static_cast<float>(i + 1) : kind == GTN_POOLING_MAX ? -kInf : 0.0f;
            EXPECT_EQ(seen, out[channels_last ? i : i % 2 * 2 + i / 2])
                << GetParam() << " dimension " << d << ", position " << i / 2 << " of channel " << i % 2;
          }
          EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
        }
      }
    }
  }
}

// Windows that see nothing of x: -infinity, and 0.
TEST_P(PoolingTest, Empty) {
  const OpenDevice on(GetParam());
  for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
    for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
      Problem p;
      p.kind = kind;
      p.channels = 5;
      p.x_layout = p.out_layout = layout;
      p.size = {0, 4, 1};
      p.before = {4, 3, 0};
      p.kernel = {2, 2, 1};
      check(on, GetParam(), p, 1);
      p.size = {3, 20, 1};
      check(on, GetParam(), p, 1);
      p.kernel = {9, 2, 1};  // out has no element
      check(on, GetParam(), p, 1);
      p.batch = 0;
      check(on, GetParam(), p, 1);
    }
  }
}

TEST_P(PoolingTest, ThreadsChangeNoBit) {
  for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
    for (int32_t kind : {GTN_POOLING_MAX, GTN_POOLING_AVERAGE}) {
      for (int64_t stride : {2, 29}) {
        Problem p;
        p.kind = kind;
        p.batch = 3;
        p.channels = 300;
        p.size = {30, 61, 1};
        p.kernel = {3, stride == 2 ? 3 : 1, 1};
        p.stride = {2, stride, 1};
        p.before = {1, 1, 0};
        p.x_layout = p.out_layout = layout;
        const Data data(p, 1);
        const Buffer one = run(OpenDevice(GetParam(), 1), p, data);
        EXPECT_TRUE(one.same_bytes(run(OpenDevice(GetParam(), 2), p, data))) << GetParam() << p.text();
        EXPECT_TRUE(one.same_bytes(run(OpenDevice(GetParam(), 3), p, data))) << GetParam() << p.text();
      }
    }
  }
}

TEST_P(PoolingTest, PlanInfo) {
  const OpenDevice on(GetParam());
  Problem p;
  p.channels = 6;
  p.batch = 3;
  p.size = {8, 10, 1};
  p.kernel = {2, 2, 1};
  p.stride = {2, 2, 1};
  p.x_dtype = GTN_BF16;
  const gtn_pooling_desc desc = p.desc();
  gtn_plan plan = 0;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_pooling_plan(on.device, &desc, &plan, &message)) << message.text;
  gtn_plan_info info = {};
  info.size = sizeof info;
  ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_EQ(GTN_OP_POOLING, info.op);
  EXPECT_EQ("cpu." + GetParam().substr(4) + ".pooling.max.bf16", info.kernel);
  EXPECT_EQ(4.0 * 6 * 20 * 4, info.flops);
  EXPECT_EQ(4.0 * 6 * (80 * 2 + 20 * 4), info.bytes);
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
}

std::string test_name(const testing::TestParamInfo<std::string>& info) { return info.param.substr(4); }

INSTANTIATE_TEST_SUITE_P(Levels, PoolingTest, testing::ValuesIn(cpu_devices()), test_name);

}  // namespace
}  // namespace gatun::test
