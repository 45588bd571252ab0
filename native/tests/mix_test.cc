// The mix family against double precision.
#include "device_test.h"

#include <cstdio>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -77.0f;  // the same in every dtype, and no result here
constexpr int64_t kLead = 3;         // elements of a buffer before and after what a run sees
constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16};
constexpr int32_t kGates[] = {GTN_GATE_NONE, GTN_GATE_SIGMOID, GTN_GATE_TANH};

const char* name_of(int32_t dtype) { return dtype == GTN_F32 ? "f32" : dtype == GTN_BF16 ? "bf16" : "f16"; }

enum class GateStrides { kDense, kTransposed, kPerPart, kPerHead, kOne };

struct Problem {
  int32_t gate = GTN_GATE_NONE, x_dtype = GTN_F32, out_dtype = GTN_F32;
  int64_t parts = 2, tokens = 1, heads = 1, n = 1;
  int64_t rows = -1;  // rows of x that are named by row_index; -1: none
  int64_t pad = 0;    // elements between rows
  GateStrides strides = GateStrides::kDense;
  bool residual = false, in_place = false, columns = false;  // columns: the parts of a token lie side by side

  bool indexed() const { return rows >= 0; }
  std::string text() const {
    char line[240];
    std::snprintf(line, sizeof line,
                  "mix gate=%d x=%s out=%s parts=%lld tokens=%lld heads=%lld n=%lld rows=%lld pad=%lld strides=%d%s%s%s",
                  gate, name_of(x_dtype), name_of(out_dtype), static_cast<long long>(parts), static_cast<long long>(tokens),
                  static_cast<long long>(heads), static_cast<long long>(n), static_cast<long long>(rows),
                  static_cast<long long>(pad), static_cast<int>(strides), residual ? " residual" : "",
                  in_place ? " in place" : "", columns ? " columns" : "");
    return line;
  }

  // The plan's maxima: beyond what runs, so that nothing can take them for lengths.
  gtn_mix_desc desc() const {
    const int64_t most = tokens + 2, row = n + pad;
    gtn_mix_desc d = {};
    d.size = sizeof d;
    d.gate = gate;
    d.has_residual = residual;
    d.has_row_index = indexed();
    d.gates = tensor(GTN_F32, {most, parts, heads});
    d.out = tensor(out_dtype, {most, heads, n});
    d.out.strides[0] = heads * row;
    d.out.strides[1] = row;
    if (indexed()) {
      d.x = tensor(x_dtype, {rows + 1, heads, n});
      d.x.strides[0] = heads * row;
      d.x.strides[1] = row;
    } else {
      d.x = tensor(x_dtype, {parts, most, heads, n});
      d.x.strides[0] = columns ? heads * row : most * heads * row;
      d.x.strides[1] = columns ? parts * heads * row : heads * row;
      d.x.strides[2] = row;
    }
    int64_t* s = d.gates.strides;
    if (strides == GateStrides::kTransposed) s[0] = 1, s[1] = most * heads, s[2] = most;
    if (strides == GateStrides::kPerPart) s[0] = 0, s[1] = 1, s[2] = 0;
    if (strides == GateStrides::kPerHead) s[0] = 0, s[1] = 0, s[2] = 1;
    if (strides == GateStrides::kOne) s[0] = s[1] = s[2] = 0;
    return d;
  }
};

struct Data {
  Buffer x, residual, out;
  std::vector<float> gates;
  std::vector<int32_t> row_index;

  explicit Data(const Problem& p)
      : x(p.x_dtype, 2 * kLead + (p.indexed() ? p.rows + 1 : p.parts * (p.tokens + 2)) * p.heads * (p.n + p.pad)),
        residual(p.out_dtype, 2 * kLead + (p.tokens + 2) * p.heads * (p.n + p.pad)),
        out(p.out_dtype, residual.size()),
        gates(static_cast<size_t>((p.tokens + 2) * p.parts * p.heads + 1), NAN),
        row_index(static_cast<size_t>(p.tokens * p.parts)) {
    out.fill(kSentinel);
  }

  int64_t gate_at(const gtn_mix_desc& d, int64_t t, int64_t part, int64_t h) const {
    return t * d.gates.strides[0] + part * d.gates.strides[1] + h * d.gates.strides[2];
  }
  // Where the row of a part begins, or -1.
  int64_t x_at(const Problem& p, const gtn_mix_desc& d, int64_t t, int64_t part, int64_t h) const {
    if (!p.indexed()) return kLead + part * d.x.strides[0] + t * d.x.strides[1] + h * d.x.strides[2];
    const int64_t row = row_index[static_cast<size_t>(t * p.parts + part)];
    return row < 0 ? -1 : kLead + row * d.x.strides[0] + h * d.x.strides[1];
  }

  // Some gates are 0, or so far down that their weights are, and the rows of those hold NaN; some rows are no part.
  void randomize(const Problem& p, uint64_t seed) {
    std::mt19937_64 random(seed);
    const gtn_mix_desc d = p.desc();
    x.fill_normal(random);
    residual.fill_normal(random);
    for (int32_t& row : row_index) {
      row = p.rows > 0 && random() % 6 != 0 ? static_cast<int32_t>(random() % static_cast<uint64_t>(p.rows)) : -1;
    }
    std::normal_distribution<float> normal(0.0f, 2.0f);
    for (int64_t t = 0; t < p.tokens; ++t) {
      for (int64_t part = 0; part < p.parts; ++part) {
        for (int64_t h = 0; h < p.heads; ++h) {
          float& gate = gates[static_cast<size_t>(gate_at(d, t, part, h))];
          gate = normal(random);
          if (random() % 6 != 0) continue;
          gate = p.gate == GTN_GATE_SIGMOID ? (random() % 2 ? -kInfinity : -150.0f) : random() % 2 ? 0.0f : -0.0f;
        }
      }
    }
    if (p.indexed() || p.strides > GateStrides::kTransposed) return;
    for (int64_t t = 0; t < p.tokens; ++t) {
      for (int64_t part = 0; part < p.parts; ++part) {
        for (int64_t h = 0; h < p.heads; ++h) {
          const float gate = gates[static_cast<size_t>(gate_at(d, t, part, h))];
          if (p.gate == GTN_GATE_SIGMOID ? gate > -104.5f : gate != 0.0f) continue;
          for (int64_t i = 0; i < p.n; ++i) x.set(x_at(p, d, t, part, h) + i, NAN);
        }
      }
    }
  }
};

void* at_lead(Buffer& buffer) {
  return static_cast<char*>(buffer.data()) + kLead * Buffer::element_size(buffer.dtype());
}

gtn_status run(OpenDevice& on, const Problem& p, Data& data) {
  Message message;
  const gtn_mix_desc desc = p.desc();
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_mix_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const gtn_status status = gtn_mix_run(
      plan, on.stream, p.tokens, p.indexed() ? p.rows : 0, at_lead(data.x), data.gates.data(),
      p.indexed() ? data.row_index.data() : nullptr, p.residual ? at_lead(data.residual) : nullptr,
      at_lead(p.in_place ? data.residual : data.out));
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return status;
}

// What rounding to the output's type adds: half a step of 8 or 11 significant bits, or of the subnormals'.
double with_rounding(int32_t dtype, double want, double bound) {
  if (dtype == GTN_BF16) return bound + 0x1p-8 * (std::fabs(want) + bound) + 0x1p-134;
  if (dtype == GTN_F16) return bound + 0x1p-11 * (std::fabs(want) + bound) + 0x1p-25;
  return bound;
}

// A weight is off by 2.3 ulp (sigmoid) or 2.6 ulp (tanh), an ulp being at most 2 u of itself, u = 2^-24; each part adds
// the rounding of a product and of a sum at most, the residual that of a sum; below the normal range each rounding is
// one of at most 2^-150.
void check(OpenDevice& on, const std::string& device, const Problem& p, const Data& given) {
  constexpr double u = kUnitRoundoffF32;
  Data data = given;
  ASSERT_EQ(GTN_OK, run(on, p, data)) << p.text() << ": " << on.message();
  const gtn_mix_desc d = p.desc();
  const Buffer& out = p.in_place ? data.residual : data.out;
  std::vector<bool> written(static_cast<size_t>(out.size()));
  const double of_weight = p.gate == GTN_GATE_SIGMOID ? 4.6 * u : p.gate == GTN_GATE_TANH ? 5.2 * u : 0.0;
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t row = kLead + t * d.out.strides[0] + h * d.out.strides[1];
      for (int64_t i = 0; i < p.n; ++i) {
        double want = 0.0, magnitude = 0.0, bound = 0.0;
        for (int64_t part = 0; part < p.parts; ++part) {
          const double gate = static_cast<double>(given.gates[static_cast<size_t>(given.gate_at(d, t, part, h))]);
          const double weight = p.gate == GTN_GATE_SIGMOID ? 1.0 / (1.0 + std::exp(-gate))
                                : p.gate == GTN_GATE_TANH  ? std::tanh(gate)
                                                           : gate;
          const int64_t at = given.x_at(p, d, t, part, h);
          if (at < 0 || static_cast<float>(weight) == 0.0f) continue;
          const double x = static_cast<double>(given.x.get(at + i));
          want += weight * x;
          magnitude += std::fabs(weight * x);
          bound += std::fabs(x) * (of_weight * std::fabs(weight) + 0x1p-148) + 0x1p-149;
        }
        if (p.residual) {
          const double residual = static_cast<double>(given.residual.get(row + i));
          want += residual;
          magnitude += std::fabs(residual);
        }
        bound += 1.001 * u * static_cast<double>(p.parts + 2) * magnitude;
        written[static_cast<size_t>(row + i)] = true;
        const double got = static_cast<double>(out.get(row + i));
        const auto where = [&] {
          return device + " " + p.text() + " token " + std::to_string(t) + " head " + std::to_string(h) + " element " +
                 std::to_string(i);
        };
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(got)) << where() << ": got " << got;
        } else if (std::isinf(want)) {
          ASSERT_EQ(want, got) << where();
        } else {
          ASSERT_LE(std::fabs(got - want), with_rounding(p.out_dtype, want, bound))
              << where() << ": got " << got << ", expected " << want;
        }
      }
    }
  }
  const Buffer& before = p.in_place ? given.residual : given.out;
  for (int64_t i = 0; i < out.size(); ++i) {
    if (written[static_cast<size_t>(i)]) continue;
    ASSERT_EQ(before.get(i), out.get(i)) << device << " " << p.text() << ": element " << i << " around out was written";
  }
  ASSERT_TRUE(given.x.same_bytes(data.x)) << device << " " << p.text() << ": x was written";
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed) {
  Data data(p);
  data.randomize(p, seed);
  SCOPED_TRACE("seed=" + std::to_string(seed));
  check(on, device, p, data);
}

TEST(Mix, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 2);
    for (int32_t dtype : kTypes) {
      const double size = static_cast<double>(Buffer::element_size(dtype));
      Problem p;
      p.gate = GTN_GATE_TANH;
      p.x_dtype = dtype;
      p.out_dtype = GTN_BF16;
      p.parts = 3;
      p.tokens = 8;  // and 2
      p.heads = 5;
      p.n = 7;
      p.residual = true;
      const auto info_of = [&] {
        Message message;
        const gtn_mix_desc desc = p.desc();
        gtn_plan plan = 0;
        EXPECT_EQ(GTN_OK, gtn_mix_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
        return info;
      };
      gtn_plan_info info = info_of();
      EXPECT_EQ("cpu." + name.substr(name.find(':') + 1) + ".mix.tanh." + name_of(dtype), info.kernel);
      EXPECT_EQ(GTN_OP_MIX, info.op);
      EXPECT_EQ(50.0 * (7 * (3 * size + 2 * 2) + 4 * 3), info.bytes);
      EXPECT_EQ(50.0 * (7 * 7 + 3 * 26), info.flops);
      EXPECT_EQ(2 * 3 * 64, info.workspace_bytes);
      // One gate, and rows that are named: at most as many as there are.
      p.gate = GTN_GATE_NONE;
      p.strides = GateStrides::kOne;
      p.residual = false;
      p.rows = 19;
      info = info_of();
      EXPECT_EQ("cpu." + name.substr(name.find(':') + 1) + ".mix." + name_of(dtype), info.kernel);
      EXPECT_EQ(20 * 5 * 7 * size + 50.0 * 7 * 2 + 4 + 30 * 4, info.bytes);
      EXPECT_EQ(50.0 * 7 * 6, info.flops);
      EXPECT_EQ(2 * 3 * 64 + 128, info.workspace_bytes);
    }
  }
}

// Random combinations of everything, over sizes around vectors, unrolled loops and tasks.
TEST(Mix, ShapesLayoutsDtypesAndOptions) {
  const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  const int64_t lengths[] = {0, 1, 2, 3, 17, 70}, heads[] = {1, 2, 3, 8, 17}, parts[] = {0, 1, 2, 3, 8, 19};
  const GateStrides strides[] = {GateStrides::kDense, GateStrides::kTransposed, GateStrides::kPerPart,
                                 GateStrides::kPerHead, GateStrides::kOne};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (uint64_t seed = 1; seed <= 500; ++seed) {
      std::mt19937_64 random(seed);
      Problem p;
      p.gate = kGates[random() % 3];
      p.x_dtype = kTypes[random() % 3];
      p.out_dtype = kTypes[random() % 3];
      p.n = sizes[random() % std::size(sizes)];
      p.tokens = lengths[random() % std::size(lengths)];
      p.heads = heads[random() % std::size(heads)];
      p.parts = parts[random() % std::size(parts)];
      p.rows = random() % 2 ? -1 : static_cast<int64_t>(random() % 30);
      p.pad = random() % 2 ? 0 : 5;
      p.strides = strides[random() % std::size(strides)];
      p.residual = random() % 2;
      p.in_place = p.residual && random() % 2;
      p.columns = random() % 2;
      check_random(on, name, p, seed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Mix, EveryPairOfDtypesAndEveryGate) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 1000;
    for (int32_t gate : kGates) {
      for (int32_t x_dtype : kTypes) {
        for (int32_t out_dtype : kTypes) {
          Problem p;
          p.gate = gate;
          p.x_dtype = x_dtype;
          p.out_dtype = out_dtype;
          p.parts = 3;
          p.tokens = 9;
          p.heads = 2;
          p.n = 77;
          p.residual = true;
          check_random(on, name, p, seed++);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Mix, InfinitiesAndNan) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t gate : kGates) {
      Problem p;
      p.gate = gate;
      p.tokens = 5;
      p.n = 19;
      p.residual = true;
      const gtn_mix_desc d = p.desc();
      Data data(p);
      data.randomize(p, 3);
      for (int64_t t = 0; t < p.tokens; ++t) {
        for (int64_t part = 0; part < p.parts; ++part) {
          data.gates[static_cast<size_t>(data.gate_at(d, t, part, 0))] = 0.75f;
          for (int64_t i = 0; i < p.n; ++i) data.x.set(data.x_at(p, d, t, part, 0) + i, 1.5f);
        }
      }
      // A gate of NaN, one of infinity, infinity and NaN in x, and in the residual.
      data.gates[static_cast<size_t>(data.gate_at(d, 0, 1, 0))] = NAN;
      data.gates[static_cast<size_t>(data.gate_at(d, 1, 0, 0))] = kInfinity;
      data.x.set(data.x_at(p, d, 2, 0, 0) + 3, kInfinity);
      data.x.set(data.x_at(p, d, 2, 1, 0) + 4, NAN);
      data.x.set(data.x_at(p, d, 2, 0, 0) + 18, kInfinity);
      data.x.set(data.x_at(p, d, 2, 1, 0) + 18, -kInfinity);
      data.residual.set(kLead + 3 * d.out.strides[0] + 2, -kInfinity);
      data.residual.set(kLead + 3 * d.out.strides[0] + 18, NAN);
      check(on, name, p, data);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// The order is that of the parts, the residual last: sums that any other order would round otherwise.
TEST(Mix, SumsInTheOrderOfParts) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t n : {5, 40}) {
      Problem p;
      p.parts = 3;
      p.n = n;
      p.residual = true;
      p.strides = GateStrides::kOne;
      const gtn_mix_desc d = p.desc();
      Data data(p);
      data.gates[0] = 1.0f;
      const float x[] = {1.0f, 0x1p24f, -0x1p24f};
      for (int64_t part = 0; part < 3; ++part) {
        for (int64_t i = 0; i < n; ++i) data.x.set(data.x_at(p, d, 0, part, 0) + i, x[part]);
      }
      data.residual.fill(0x1p-20f);
      ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
      // 1 + 2^24 is 2^24, ties to even, and what is left of it is 0.
      for (int64_t i = 0; i < n; ++i) EXPECT_EQ(0x1p-20f, data.out.get(kLead + i)) << name << " element " << i;
    }
  }
}

// A run of no parts needs no workspace; the first of a stream finds none either.
TEST(Mix, NoPartsOnANewStream) {
  for (const std::string& name : cpu_devices()) {
    for (int64_t rows : {int64_t{-1}, int64_t{5}}) {
      OpenDevice on(name);
      Problem p;
      p.parts = 0;
      p.tokens = 3;
      p.n = 5;
      p.rows = rows;
      p.residual = true;
      Data data(p);
      data.randomize(p, 1);
      check(on, name, p, data);
    }
  }
}

TEST(Mix, RowNumbersAreChecked) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.parts = 3;
    p.tokens = 4;
    p.n = 10;
    p.rows = 7;
    Data data(p);
    data.randomize(p, 1);
    for (int32_t wrong : {-2, 7, INT32_MAX, INT32_MIN}) {
      Data bad = data;
      bad.row_index[7] = wrong;
      EXPECT_EQ(GTN_INVALID_ARGUMENT, run(on, p, bad));
      EXPECT_EQ("row_index[2, 1] is " + std::to_string(wrong) + ", expected -1, or 0 to rows_x - 1 = 6", on.message());
      EXPECT_TRUE(data.out.same_bytes(bad.out));
    }
    for (int32_t& row : data.row_index) row = -1;
    check(on, name, p, data);
  }
}

TEST(Mix, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int64_t rows : {int64_t{-1}, int64_t{300}}) {
      Problem p;
      p.gate = GTN_GATE_SIGMOID;
      p.x_dtype = GTN_BF16;
      p.parts = 3;
      p.tokens = 150;
      p.heads = 4;
      p.n = 90;
      p.rows = rows;
      p.residual = true;
      Data given(p);
      given.randomize(p, 11);
      Data first = given;
      for (int threads = 1; threads <= 3; ++threads) {
        OpenDevice on(name, threads);
        Data data = given;
        ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
        if (threads == 1) first = data;
        EXPECT_TRUE(first.out.same_bytes(data.out)) << name << " " << p.text() << " threads=" << threads;
      }
    }
  }
}

}  // namespace
}  // namespace gatun::test
