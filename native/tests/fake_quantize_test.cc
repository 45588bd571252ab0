// Fake quantization and its straight-through gradient on every level: element by element against the definition in gatun.h, whose
// FP32 operations are exact to the bit.
#include "device_test.h"

#include <algorithm>

namespace gatun::test {
namespace {

struct Case {
  int64_t rows = 1, n = 1, gap = 0;
  int32_t granularity = GTN_SCALE_OF_TENSOR, least = -127, most = 127;
  int32_t x_dtype = GTN_F32, out_dtype = GTN_F32;
  bool zero_points = false, gradient = false, in_place = false;
  uint64_t seed = 1;

  int64_t grids() const { return granularity == GTN_SCALE_OF_TENSOR ? 1 : granularity == GTN_SCALE_OF_ROW ? rows : n; }
  int64_t grid_of(int64_t r, int64_t j) const { return granularity == GTN_SCALE_OF_TENSOR ? 0 : granularity == GTN_SCALE_OF_ROW ? r : j; }

  std::string text() const {
    char line[256];
    std::snprintf(line, sizeof line, "rows=%lld n=%lld gap=%lld granularity=%d %d to %d x=%d out=%d zeros=%d gradient=%d in_place=%d",
                  static_cast<long long>(rows), static_cast<long long>(n), static_cast<long long>(gap), granularity, least, most,
                  x_dtype, out_dtype, zero_points, gradient, in_place);
    return line;
  }
};

float expected(const Case& c, float x, float scale, int32_t zero, float gradient) {
  const float integer = std::nearbyint(x / scale) + static_cast<float>(zero);
  if (c.gradient) return integer >= static_cast<float>(c.least) && integer <= static_cast<float>(c.most) ? gradient : 0.0f;
  if (std::isnan(x)) return x;
  if (scale == 0.0f) return 0.0f;
  const float clamped = std::clamp(integer, static_cast<float>(c.least), static_cast<float>(c.most));
  return (clamped - static_cast<float>(zero)) * scale;
}

void check(const OpenDevice& on, const std::string& device, const Case& c, int64_t rows = -1) {
  if (rows < 0) rows = c.rows;
  std::mt19937_64 random(c.seed);
  const int64_t stride = c.n + c.gap, elements = c.rows * stride;
  Buffer x(c.x_dtype, elements), out(c.out_dtype, elements), gradient(c.out_dtype, elements), scales(GTN_F32, c.grids());
  x.fill_normal(random, 3.0f);
  gradient.fill_normal(random);
  std::vector<int32_t> zeros(static_cast<size_t>(c.grids()));
  for (int64_t i = 0; i < c.grids(); ++i) {
    scales.set(i, random() % 13 == 0 ? 0.0f : static_cast<float>(random() % 1000 + 1) * 0.0001f);
    zeros[static_cast<size_t>(i)] = c.zero_points ? c.least + static_cast<int32_t>(random() % static_cast<uint64_t>(c.most - c.least + 1)) : 0;
  }
  if (c.granularity == GTN_SCALE_OF_TENSOR) scales.set(0, 0.03125f);  // quotients that are halves, for BF16 at least
  const float specials[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), 0.0f, -0.0f, 1e-40f, 3e38f, 0.015625f, 0.046875f, -0.015625f};
  for (int64_t i = 0; i < elements; i += 7) x.set(i, specials[static_cast<size_t>(i / 7) % std::size(specials)]);
  out.fill(-7776.0f);

  gtn_fake_quantize_desc desc = {};
  desc.size = sizeof desc;
  desc.granularity = c.granularity;
  desc.least = c.least;
  desc.most = c.most;
  desc.x = tensor(c.x_dtype, {c.rows, c.n});
  desc.out = tensor(c.out_dtype, {c.rows, c.n});
  desc.x.strides[0] = desc.out.strides[0] = stride;
  desc.has_zero_points = c.zero_points;
  desc.gradient = c.gradient;
  Message message;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_fake_quantize_plan(on.device, &desc, &plan, &message)) << message.text << c.text();
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_NE(std::string(info.kernel).find(".fake_quantize."), std::string::npos) << info.kernel;
  const Buffer before = c.gradient ? gradient : x;
  Buffer& target = !c.in_place ? out : c.gradient ? gradient : x;
  ASSERT_EQ(GTN_OK, gtn_fake_quantize_run(plan, on.stream, rows, x.data(), scales.data(), c.zero_points ? zeros.data() : nullptr,
                                          c.gradient ? gradient.data() : nullptr, target.data()))
      << on.message() << c.text();
  int reported = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t j = 0; j < stride; ++j) {
      const int64_t i = r * stride + j;
      float wanted = c.in_place ? before.get(i) : -7776.0f;
      if (r < rows && j < c.n) {
        const int64_t grid = c.grid_of(r, j);
        const float from = c.in_place && !c.gradient ? before.get(i) : x.get(i);
        const float through = c.gradient ? before.get(i) : 0.0f;
        Buffer rounded(c.out_dtype, 1);
        rounded.set(0, expected(c, from, scales.get(grid), zeros[static_cast<size_t>(grid)], through));
        wanted = rounded.get(0);
      }
      const float got = target.get(i);
      const bool same = std::isnan(wanted) ? std::isnan(got) : got == wanted;
      if (!same && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected " << wanted << " of " << before.get(i) << ": "
                      << c.text();
      }
    }
  }
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
}

class FakeQuantizeTest : public testing::TestWithParam<std::string> {};

TEST_P(FakeQuantizeTest, EveryKind) {
  const OpenDevice on(GetParam());
  const int32_t ranges[][2] = {{-127, 127}, {-128, 127}, {0, 255}, {-7, 7}, {-8, 7}, {0, 15}, {0, 1}};
  uint64_t index = 0;
  for (int64_t rows : {1, 2, 5, 33}) {
    for (int64_t n : {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257}) {
      for (int32_t granularity : {GTN_SCALE_OF_TENSOR, GTN_SCALE_OF_ROW, GTN_SCALE_OF_COLUMN}) {
        for (bool gradient : {false, true}) {
          Case c;
          c.rows = rows;
          c.n = n;
          c.granularity = granularity;
          c.gradient = gradient;
          c.least = ranges[index % 7][0];
          c.most = ranges[index % 7][1];
          c.zero_points = index % 2 == 1;
          c.x_dtype = index % 3 == 1 ? GTN_BF16 : GTN_F32;
          c.out_dtype = index % 5 < 2 ? GTN_BF16 : GTN_F32;
          c.gap = index % 4 == 3 ? 5 : 0;
          c.in_place = c.x_dtype == c.out_dtype && index % 11 < 4;
          c.seed = 300 + index++;
          check(on, GetParam(), c);
        }
      }
    }
  }
}

// Several tasks, rows that are cut, and what passes the caches by.
TEST_P(FakeQuantizeTest, LargeSizes) {
  const OpenDevice on(GetParam());
  for (uint64_t index = 0; index < 6; ++index) {
    Case c;
    c.rows = index % 2 == 0 ? 700 : 3;
    c.n = index % 2 == 0 ? 301 : 50000;
    c.granularity = static_cast<int32_t>(GTN_SCALE_OF_TENSOR + index % 3);
    c.gradient = index >= 3;
    c.zero_points = true;
    c.least = 0;
    c.most = 255;
    check(on, GetParam(), c);
    check(on, GetParam(), c, c.rows - 2);
  }
}

TEST_P(FakeQuantizeTest, EmptySizes) {
  const OpenDevice on(GetParam());
  for (int32_t granularity : {GTN_SCALE_OF_TENSOR, GTN_SCALE_OF_ROW, GTN_SCALE_OF_COLUMN}) {
    Case c;
    c.granularity = granularity;
    c.rows = 0;
    c.n = 5;
    check(on, GetParam(), c);
    c.rows = 5;
    c.n = 0;
    check(on, GetParam(), c);
    c.n = 9;
    check(on, GetParam(), c, 0);
  }
}

TEST(FakeQuantize, RefusesWhatIsWrong) {
  const OpenDevice on("cpu");
  Message message;
  gtn_fake_quantize_desc right = {};
  right.size = sizeof right;
  right.granularity = GTN_SCALE_OF_COLUMN;
  right.least = 0;
  right.most = 255;
  right.x = right.out = tensor(GTN_F32, {4, 6});
  right.has_zero_points = 1;
  right.gradient = 1;
  const struct {
    const char* named;
    void (*change)(gtn_fake_quantize_desc&);
  } all[] = {
      {"desc.size: is 8", [](gtn_fake_quantize_desc& d) { d.size = 8; }},
      {"desc.granularity: is 0, expected GTN_SCALE_OF_*, 1 to 3", [](gtn_fake_quantize_desc& d) { d.granularity = 0; }},
      {"desc.granularity: is 4", [](gtn_fake_quantize_desc& d) { d.granularity = 4; }},
      {"desc.least, desc.most: are 0 and 256", [](gtn_fake_quantize_desc& d) { d.most = 256; }},
      {"desc.least, desc.most: are -1 and 128", [](gtn_fake_quantize_desc& d) { d.least = -1, d.most = 128; }},
      {"desc.least, desc.most: are -129 and 7", [](gtn_fake_quantize_desc& d) { d.least = -129, d.most = 7; }},
      {"desc.least, desc.most: are 7 and 7", [](gtn_fake_quantize_desc& d) { d.least = d.most = 7; }},
      {"desc.has_zero_points: is 2", [](gtn_fake_quantize_desc& d) { d.has_zero_points = 2; }},
      {"desc.gradient: is -1", [](gtn_fake_quantize_desc& d) { d.gradient = -1; }},
      {"desc.x.dtype: is F16", [](gtn_fake_quantize_desc& d) { d.x.dtype = GTN_F16; }},
      {"desc.out.dtype: is S8", [](gtn_fake_quantize_desc& d) { d.out.dtype = GTN_S8; }},
      {"desc.out.shape[1]: is 5", [](gtn_fake_quantize_desc& d) { d.out = tensor(GTN_F32, {4, 5}); }},
      {"desc.x.strides[1]: is 2", [](gtn_fake_quantize_desc& d) { d.x.strides[1] = 2; }},
  };
  gtn_plan plan = 0;
  for (const auto& wrong : all) {
    gtn_fake_quantize_desc desc = right;
    wrong.change(desc);
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_fake_quantize_plan(on.device, &desc, &plan, &message)) << wrong.named;
    EXPECT_NE(nullptr, std::strstr(message.text, wrong.named)) << wrong.named << ": " << message.text;
  }
  ASSERT_EQ(GTN_OK, gtn_fake_quantize_plan(on.device, &right, &plan, &message)) << message.text;
  float x[24] = {}, scales[6] = {}, gradient[24] = {}, out[30] = {};
  int32_t zeros[6] = {};
  const auto refused = [&](int64_t rows, const void* s, const void* z, const void* g, void* to, const char* text) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_fake_quantize_run(plan, on.stream, rows, x, s, z, g, to)) << text;
    EXPECT_NE(std::string::npos, on.message().find(text)) << on.message();
  };
  refused(5, scales, zeros, gradient, out, "rows: is 5, expected 0 to 4");
  refused(4, nullptr, zeros, gradient, out, "scales: is null");
  refused(4, scales, nullptr, gradient, out, "zero_points: is null");
  refused(4, scales, zeros, nullptr, out, "gradient: is null");
  refused(4, scales, zeros, gradient, nullptr, "out: is null");
  refused(4, scales, zeros, gradient, x + 1, "out");
  refused(4, scales, zeros, gradient, gradient + 6, "out");
  refused(4, out + 23, zeros, gradient, out, "out");
  EXPECT_EQ(GTN_OK, gtn_fake_quantize_run(plan, on.stream, 4, x, out + 24, zeros, gradient, out)) << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
}

INSTANTIATE_TEST_SUITE_P(Levels, FakeQuantizeTest, testing::ValuesIn(cpu_devices()), [](const auto& test) {
  return test.param.substr(4);
});

}  // namespace
}  // namespace gatun::test
