// The rope family against double precision.
#include "device_test.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace gatun::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSentinel = -77.0f;  // the same in every dtype, and no result here
constexpr int64_t kLead = 3;         // elements of a buffer before and after what a run sees

const char* name_of(int32_t dtype) {
  return dtype == GTN_F32 ? "f32" : dtype == GTN_BF16 ? "bf16" : dtype == GTN_F16 ? "f16" : "s8";
}

struct Problem {
  int32_t style = GTN_ROPE_HALVES;
  int32_t q_dtype = GTN_F32, out_dtype = GTN_F32, k_dtype = GTN_F32, cache_dtype = GTN_F32;
  int64_t rotary = 2, max_position = 10, tokens = 1, heads_q = 1, heads_k = 1, dk = 2, dv = 2;
  int64_t pages = 1, page_size = 16;
  int64_t pad = 0;          // elements between heads
  bool head_major = false;  // q: heads before tokens; caches: heads before the rows of a page
  bool has_q = true, has_k = true, has_v = true, slots = true, in_place = false;

  int64_t rows() const { return pages * page_size; }
  std::string text() const {
    char line[320];
    std::snprintf(line, sizeof line,
                  "rope %s q=%s out=%s k=%s cache=%s rotary=%lld positions=%lld tokens=%lld heads=%lld/%lld dk=%lld "
                  "dv=%lld pages=%lldx%lld pad=%lld%s%s%s%s%s%s",
                  style == GTN_ROPE_HALVES ? "halves" : "interleaved", name_of(q_dtype), name_of(out_dtype),
                  name_of(k_dtype), name_of(cache_dtype), static_cast<long long>(rotary),
                  static_cast<long long>(max_position),
                  static_cast<long long>(tokens), static_cast<long long>(heads_q), static_cast<long long>(heads_k),
                  static_cast<long long>(dk), static_cast<long long>(dv), static_cast<long long>(pages),
                  static_cast<long long>(page_size), static_cast<long long>(pad), head_major ? " head major" : "",
                  has_q ? " q" : "", has_k ? " k" : "", has_v ? " v" : "", slots ? " slots" : "",
                  in_place ? " in place" : "");
    return line;
  }
};

// Tokens that are planned: more than run.
int64_t planned(const Problem& p) { return p.tokens + 2; }

gtn_tensor_desc heads_of(const Problem& p, int32_t dtype, int64_t heads, int64_t n, bool head_major) {
  gtn_tensor_desc desc = tensor(dtype, {planned(p), heads, n});
  desc.strides[0] = head_major ? n + p.pad : heads * (n + p.pad);
  desc.strides[1] = head_major ? planned(p) * (n + p.pad) : n + p.pad;
  return desc;
}

gtn_tensor_desc cache_of(const Problem& p, int64_t n) {
  gtn_tensor_desc desc = tensor(p.cache_dtype, {p.pages, p.page_size, p.heads_k, n});
  const int64_t row = n + p.pad;
  desc.strides[0] = p.page_size * p.heads_k * row;
  desc.strides[1] = p.head_major ? row : p.heads_k * row;
  desc.strides[2] = p.head_major ? p.page_size * row : row;
  return desc;
}

gtn_rope_desc describe(const Problem& p) {
  gtn_rope_desc desc = {};
  desc.size = sizeof desc;
  desc.style = p.style;
  desc.rotary = p.rotary;
  desc.max_position = p.max_position;
  desc.has_q = p.has_q;
  desc.has_k = p.has_k;
  desc.has_v = p.has_v;
  if (p.has_q) {
    desc.q = heads_of(p, p.q_dtype, p.heads_q, p.dk, p.head_major);
    desc.q_out = heads_of(p, p.out_dtype, p.heads_q, p.dk, p.head_major);
  }
  if (p.has_k) {
    desc.k = heads_of(p, p.k_dtype, p.heads_k, p.dk, false);
    desc.k_cache = cache_of(p, p.dk);
  }
  if (p.has_v) {
    desc.v = heads_of(p, p.k_dtype, p.heads_k, p.dv, false);
    desc.v_cache = cache_of(p, p.dv);
  }
  return desc;
}

struct Data {
  Buffer q, q_out, k, v, k_cache, v_cache, k_scales, v_scales, table;
  std::vector<int64_t> positions, slots;

  explicit Data(const Problem& p)
      : q(p.q_dtype, 2 * kLead + planned(p) * p.heads_q * (p.dk + p.pad)),
        q_out(p.out_dtype, q.size()),
        k(p.k_dtype, 2 * kLead + planned(p) * p.heads_k * (p.dk + p.pad)),
        v(p.k_dtype, 2 * kLead + planned(p) * p.heads_k * (p.dv + p.pad)),
        k_cache(p.cache_dtype, 2 * kLead + p.rows() * p.heads_k * (p.dk + p.pad)),
        v_cache(p.cache_dtype, 2 * kLead + p.rows() * p.heads_k * (p.dv + p.pad)),
        k_scales(GTN_F32, 2 * kLead + p.rows() * p.heads_k),
        v_scales(GTN_F32, k_scales.size()),
        table(GTN_F32, p.max_position * p.rotary),
        positions(static_cast<size_t>(p.tokens)),
        slots(static_cast<size_t>(p.tokens)) {
    for (Buffer* output : {&q_out, &k_cache, &v_cache, &k_scales, &v_scales}) output->fill(kSentinel);
  }

  // Positions in any order, some of them twice; each slot once, some tokens without.
  void randomize(const Problem& p, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (Buffer* input : {&q, &k, &v}) input->fill_normal(random);
    for (int64_t position = 0; position < p.max_position; ++position) {
      for (int64_t i = 0; i < p.rotary / 2; ++i) {
        const double part = static_cast<double>(2 * i) / static_cast<double>(p.rotary);
        const double angle = static_cast<double>(position) * std::pow(1e4, -part);
        table.set(position * p.rotary + i, static_cast<float>(std::cos(angle)));
        table.set(position * p.rotary + p.rotary / 2 + i, static_cast<float>(std::sin(angle)));
      }
    }
    for (int64_t& position : positions) {
      position = static_cast<int64_t>(random() % static_cast<uint64_t>(p.max_position));
    }
    std::vector<int64_t> rows(static_cast<size_t>(p.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    std::shuffle(rows.begin(), rows.end(), random);
    for (size_t t = 0; t < slots.size(); ++t) slots[t] = t < rows.size() && random() % 5 != 0 ? rows[t] : -1;
  }
};

void* at_lead(Buffer& buffer, bool there) {
  return there ? static_cast<char*>(buffer.data()) + kLead * Buffer::element_size(buffer.dtype()) : nullptr;
}

gtn_status run(OpenDevice& on, const Problem& p, Data& data) {
  Message message;
  const gtn_rope_desc desc = describe(p);
  gtn_plan plan = 0;
  gtn_status status = gtn_rope_plan(on.device, &desc, &plan, &message);
  EXPECT_EQ(GTN_OK, status) << p.text() << ": " << message.text;
  if (status != GTN_OK) return status;
  const bool caches = p.has_k || p.has_v, quantized = p.cache_dtype == GTN_S8;
  status = gtn_rope_run(plan, on.stream, p.tokens, data.positions.data(), data.table.data(),
                        p.slots && caches ? data.slots.data() : nullptr, at_lead(data.q, p.has_q),
                        at_lead(data.k, p.has_k), at_lead(data.v, p.has_v),
                        at_lead(p.in_place ? data.q : data.q_out, p.has_q), at_lead(data.k_cache, p.has_k),
                        at_lead(data.v_cache, p.has_v),
                        at_lead(data.k_scales, p.has_k && quantized), at_lead(data.v_scales, p.has_v && quantized));
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return status;
}

// A head in double, with the bound on each element's error in FP32, before the output's rounding: a product of a pair
// and the sum are rounded, each by u = 2^-24 of itself or 2^-150; the other product is too where there is no FMA. What
// is copied has none.
struct Row {
  std::vector<double> value, bound;
  bool rotated = false;
};

Row reference(const Problem& p, const Buffer& x, int64_t at, int64_t n, int64_t rotary, const Data& data,
              int64_t token) {
  constexpr double u = kUnitRoundoffF32;
  Row row;
  row.rotated = rotary > 0;
  for (int64_t i = 0; i < n; ++i) {
    row.value.push_back(static_cast<double>(x.get(at + i)));
    row.bound.push_back(0.0);
  }
  const int64_t half = rotary / 2, angles = data.positions[static_cast<size_t>(token)] * p.rotary;
  for (int64_t i = 0; i < half; ++i) {
    const bool halves = p.style == GTN_ROPE_HALVES;
    const size_t first = static_cast<size_t>(halves ? i : 2 * i);
    const size_t second = static_cast<size_t>(halves ? half + i : 2 * i + 1);
    const double a = row.value[first], b = row.value[second];
    const double cosine = static_cast<double>(data.table.get(angles + i));
    const double sine = static_cast<double>(data.table.get(angles + half + i));
    row.value[first] = a * cosine - b * sine;
    row.value[second] = a * sine + b * cosine;
    for (size_t at_pair : {first, second}) {
      const double products = at_pair == first ? std::fabs(a * cosine) + std::fabs(b * sine)
                                               : std::fabs(a * sine) + std::fabs(b * cosine);
      row.bound[at_pair] = 1.001 * u * (products + std::fabs(row.value[at_pair])) + 0x1p-148;
    }
  }
  return row;
}

// Whether an element of a row in a float type is right.
bool right(int32_t dtype, double got, double want, double bound) {
  const double most = dtype == GTN_F16 ? 65520.0 : dtype == GTN_BF16 ? 0x1.ffp127 : 0x1.ffffffp127;
  if (std::isnan(want)) return std::isnan(got);
  if (std::fabs(want) >= most) return got == std::copysign(INFINITY, want);
  if (bound == 0.0) {
    Buffer rounded(dtype, 1);
    rounded.set(0, static_cast<float>(want));
    return got == static_cast<double>(rounded.get(0));
  }
  if (dtype == GTN_BF16) bound += 0x1p-8 * (std::fabs(want) + bound) + 0x1p-134;
  if (dtype == GTN_F16) bound += 0x1p-11 * (std::fabs(want) + bound) + 0x1p-25;
  return std::fabs(got - want) <= bound;
}

// A row in S8: exactly what the definition gives for a row that is copied; for a rotated one the scale that an error of
// a bound leaves possible, and values within half a step of that scale, the error and the quotient's rounding.
void check_quantized(const std::string& where, const Row& row, const Buffer& cache, int64_t at, float scale) {
  double amax = 0.0, worst = 0.0;
  bool finite = true;
  for (size_t i = 0; i < row.value.size(); ++i) {
    finite = finite && std::fabs(row.value[i]) < 0x1.ffffffp127;
    amax = std::fmax(amax, std::fabs(row.value[i]));
    worst = std::fmax(worst, row.bound[i]);
  }
  if (!finite) {
    ASSERT_TRUE(std::isnan(scale)) << where << ": scale " << scale;
    for (size_t i = 0; i < row.value.size(); ++i) ASSERT_EQ(0.0f, cache.get(at + static_cast<int64_t>(i))) << where;
    return;
  }
  if (!row.rotated) {
    const float expected = static_cast<float>(amax) / 127.0f;
    ASSERT_EQ(expected, scale) << where << ": amax " << amax;
    for (size_t i = 0; i < row.value.size(); ++i) {
      float value = 0.0f;
      if (scale > 0.0f) value = std::nearbyint(static_cast<float>(row.value[i]) / scale);
      value = std::fmin(std::fmax(value, -127.0f), 127.0f);
      ASSERT_EQ(value, cache.get(at + static_cast<int64_t>(i))) << where << " element " << i << ": of " << row.value[i];
    }
    return;
  }
  const double s = static_cast<double>(scale);
  ASSERT_LE(std::fabs(s - amax / 127.0), worst / 127.0 + kUnitRoundoffF32 * amax / 127.0 * 1.001 + 0x1p-149) << where;
  for (size_t i = 0; i < row.value.size(); ++i) {
    const double got = static_cast<double>(cache.get(at + static_cast<int64_t>(i)));
    if (s == 0.0) {
      ASSERT_EQ(0.0, got) << where;
    } else {
      ASSERT_LE(std::fabs(got - row.value[i] / s), 0.5 + row.bound[i] / s + 0x1p-16) << where << " element " << i;
    }
  }
}

void same(const std::string& where, const Buffer& before, const Buffer& after, const std::vector<bool>& except,
          const char* what) {
  for (int64_t i = 0; i < after.size(); ++i) {
    if (except[static_cast<size_t>(i)]) continue;
    const float was = before.get(i), is = after.get(i);
    ASSERT_TRUE(was == is || (std::isnan(was) && std::isnan(is)))
        << where << ": element " << i << " of " << what << " was written";
  }
}

// One problem: every element, and everything around them.
void check(OpenDevice& on, const std::string& device, const Problem& p, const Data& given) {
  Data data = given;
  ASSERT_EQ(GTN_OK, run(on, p, data)) << p.text() << ": " << on.message();
  const gtn_rope_desc desc = describe(p);
  const auto none = [](const Buffer& buffer) { return std::vector<bool>(static_cast<size_t>(buffer.size())); };
  const auto mark = [](std::vector<bool>& written, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) written[static_cast<size_t>(at + i)] = true;
  };
  const Buffer& out = p.in_place ? data.q : data.q_out;
  std::vector<bool> q_written = none(out), k_written = none(data.k_cache), v_written = none(data.v_cache),
                    scales_written = none(data.k_scales);
  for (int64_t t = 0; t < p.tokens; ++t) {
    const auto where = [&](const char* what, int64_t head, int64_t i) {
      return device + " " + p.text() + ": " + what + " of token " + std::to_string(t) + " head " +
             std::to_string(head) + " element " + std::to_string(i);
    };
    for (int64_t h = 0; p.has_q && h < p.heads_q; ++h) {
      const int64_t at = kLead + t * desc.q.strides[0] + h * desc.q.strides[1];
      const Row row = reference(p, given.q, at, p.dk, p.rotary, given, t);
      mark(q_written, at, p.dk);
      for (int64_t i = 0; i < p.dk; ++i) {
        const double got = static_cast<double>(out.get(at + i)), want = row.value[static_cast<size_t>(i)];
        ASSERT_TRUE(right(p.out_dtype, got, want, row.bound[static_cast<size_t>(i)]))
            << where("q", h, i) << ": got " << got << ", expected " << want;
      }
    }
    const int64_t slot = p.slots ? given.slots[static_cast<size_t>(t)] : t;
    if (slot < 0) continue;
    struct Part {
      bool there;
      const char* name;
      const Buffer &x, &cache, &scales;
      const gtn_tensor_desc &x_desc, &cache_desc;
      int64_t n, rotary;
      std::vector<bool>& written;
    };
    for (const Part& part :
         {Part{p.has_k, "k", given.k, data.k_cache, data.k_scales, desc.k, desc.k_cache, p.dk, p.rotary, k_written},
          Part{p.has_v, "v", given.v, data.v_cache, data.v_scales, desc.v, desc.v_cache, p.dv, 0, v_written}}) {
      if (!part.there) continue;
      for (int64_t h = 0; h < p.heads_k; ++h) {
        const int64_t from = kLead + t * part.x_desc.strides[0] + h * part.x_desc.strides[1];
        const int64_t at = kLead + slot / p.page_size * part.cache_desc.strides[0] +
                           slot % p.page_size * part.cache_desc.strides[1] + h * part.cache_desc.strides[2];
        const Row row = reference(p, part.x, from, part.n, part.rotary, given, t);
        mark(part.written, at, part.n);
        if (p.cache_dtype == GTN_S8) {
          const int64_t scale_at = kLead + slot * p.heads_k + h;
          scales_written[static_cast<size_t>(scale_at)] = true;
          check_quantized(where(part.name, h, 0), row, part.cache, at, part.scales.get(scale_at));
          if (testing::Test::HasFatalFailure()) return;
          continue;
        }
        for (int64_t i = 0; i < part.n; ++i) {
          const double got = static_cast<double>(part.cache.get(at + i)), want = row.value[static_cast<size_t>(i)];
          ASSERT_TRUE(right(p.cache_dtype, got, want, row.bound[static_cast<size_t>(i)]))
              << where(part.name, h, i) << ": got " << got << ", expected " << want;
        }
      }
    }
  }
  const std::string where = device + " " + p.text();
  same(where, p.in_place ? given.q : given.q_out, out, q_written, "q_out");
  same(where, given.k_cache, data.k_cache, k_written, "k_cache");
  same(where, given.v_cache, data.v_cache, v_written, "v_cache");
  same(where, given.k_scales, data.k_scales, p.has_k ? scales_written : none(data.k_scales), "k_scales");
  same(where, given.v_scales, data.v_scales, p.has_v ? scales_written : none(data.v_scales), "v_scales");
  if (!p.in_place) {
    ASSERT_TRUE(given.q.same_bytes(data.q)) << where << ": q was written";
  }
  ASSERT_TRUE(given.k.same_bytes(data.k)) << where << ": k was written";
  ASSERT_TRUE(given.v.same_bytes(data.v)) << where << ": v was written";
  ASSERT_TRUE(given.table.same_bytes(data.table)) << where << ": the table was written";
  ASSERT_TRUE(given.positions == data.positions) << where << ": positions were written";
  ASSERT_TRUE(given.slots == data.slots) << where << ": slots were written";
}

void check_random(OpenDevice& on, const std::string& device, const Problem& p, uint64_t seed) {
  Data data(p);
  data.randomize(p, seed);
  SCOPED_TRACE("seed=" + std::to_string(seed));
  check(on, device, p, data);
}

constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16, GTN_S8};

TEST(Rope, KernelsNameTheirLevelAndCountTheirBytes) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 3);
    for (int32_t style : {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED}) {
      for (int32_t cache_dtype : {GTN_BF16, GTN_S8}) {
        Message message;
        Problem p;
        p.style = style;
        p.q_dtype = GTN_F16;
        p.cache_dtype = cache_dtype;
        p.rotary = 6;
        p.max_position = 4;
        p.tokens = 8;  // planned: 10
        p.heads_q = 6;
        p.heads_k = 3;
        p.dk = 10;
        p.dv = 17;
        const gtn_rope_desc desc = describe(p);
        gtn_plan plan = 0;
        ASSERT_EQ(GTN_OK, gtn_rope_plan(on.device, &desc, &plan, &message)) << message.text;
        gtn_plan_info info = {};
        info.size = sizeof info;
        ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
        const std::string level = name.substr(name.find(':') + 1);
        const bool halves = style == GTN_ROPE_HALVES, quantized = cache_dtype == GTN_S8;
        EXPECT_EQ("cpu." + level + ".rope." + (halves ? "halves" : "interleaved") + ".f16", info.kernel);
        EXPECT_EQ(GTN_OP_ROPE, info.op);
        // Positions and slots; four rows of the table; queries; keys and values with their scales.
        const double stored = static_cast<double>(Buffer::element_size(cache_dtype));
        EXPECT_EQ(10 * 16 + 4 * 24 + 10 * 6 * 10 * 6 + 10 * 3 * (27 * (4 + stored) + (quantized ? 8 : 0)), info.bytes);
        EXPECT_EQ(10 * 9 * 6 * 3 + (quantized ? 10 * 3 * 27 * 4 : 0), info.flops);
        // Both arrays of integers; of each thread, its token's angles and a row of FP32.
        EXPECT_EQ(2 * 128 + 3 * ((halves ? 0 : 64) + (quantized ? 128 : 0)), info.workspace_bytes);
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
      }
    }
  }
}

// Random combinations of everything, over sizes around vectors.
TEST(Rope, ShapesLayoutsDtypesAndOptions) {
  const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 130};
  const int64_t tokens[] = {0, 1, 2, 3, 17, 40}, heads[] = {1, 2, 3, 8};
  const int64_t pages[] = {1, 2, 5}, page_sizes[] = {1, 3, 16, 64};
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (uint64_t seed = 1; seed <= 600; ++seed) {
      std::mt19937_64 random(seed);
      Problem p;
      p.style = random() % 2 ? GTN_ROPE_HALVES : GTN_ROPE_INTERLEAVED;
      p.q_dtype = kTypes[random() % 3];
      p.out_dtype = kTypes[random() % 3];
      p.k_dtype = kTypes[random() % 3];
      p.cache_dtype = kTypes[random() % 4];
      p.dk = sizes[random() % std::size(sizes)];
      p.dv = sizes[random() % std::size(sizes)];
      p.rotary = random() % 2 ? p.dk / 2 * 2 : static_cast<int64_t>(random() % static_cast<uint64_t>(p.dk + 1)) / 2 * 2;
      p.max_position = 1 + static_cast<int64_t>(random() % 100);
      p.tokens = tokens[random() % std::size(tokens)];
      p.heads_k = heads[random() % std::size(heads)];
      p.heads_q = heads[random() % std::size(heads)];
      p.pages = pages[random() % std::size(pages)];
      p.page_size = page_sizes[random() % std::size(page_sizes)];
      p.pad = random() % 2 ? 0 : 5;
      p.head_major = random() % 2;
      p.has_q = random() % 4 != 0;
      p.has_k = !p.has_q || random() % 4 != 0;
      p.has_v = random() % 3 != 0;
      p.slots = random() % 2 || p.rows() < p.tokens;
      p.in_place = p.q_dtype == p.out_dtype && random() % 2;
      check_random(on, name, p, seed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Rope, EveryPairOfDtypesAndBothStyles) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    uint64_t seed = 5000;
    for (int32_t style : {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED}) {
      for (int from = 0; from < 3; ++from) {
        for (int to = 0; to < 4; ++to) {
          for (int64_t rotary : {0, 64, 46}) {
            Problem p;
            p.style = style;
            p.q_dtype = p.k_dtype = kTypes[from];
            p.cache_dtype = kTypes[to];
            p.out_dtype = kTypes[to % 3];
            p.rotary = rotary;
            p.max_position = 3000;
            p.tokens = 60;
            p.pages = 5;
            p.heads_q = 3;
            p.heads_k = 2;
            p.dk = 64;
            p.dv = 40;
            check_random(on, name, p, seed++);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// The two styles are one computation on other pairs.
TEST(Rope, StylesDifferInTheirPairsAlone) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t rotary : {2, 6, 16, 30, 64, 70}) {
      Problem p;
      p.rotary = p.dk = rotary;
      p.tokens = 9;
      p.has_k = p.has_v = false;
      Data halves(p), interleaved(p);
      halves.randomize(p, 3);
      interleaved.randomize(p, 3);
      const auto paired = [&](int64_t i) { return i < rotary / 2 ? 2 * i : 2 * (i - rotary / 2) + 1; };
      for (int64_t t = 0; t < p.tokens; ++t) {
        for (int64_t i = 0; i < rotary; ++i) {
          interleaved.q.set(kLead + t * rotary + paired(i), halves.q.get(kLead + t * rotary + i));
        }
      }
      ASSERT_EQ(GTN_OK, run(on, p, halves)) << on.message();
      p.style = GTN_ROPE_INTERLEAVED;
      ASSERT_EQ(GTN_OK, run(on, p, interleaved)) << on.message();
      for (int64_t t = 0; t < p.tokens; ++t) {
        for (int64_t i = 0; i < rotary; ++i) {
          ASSERT_EQ(halves.q_out.get(kLead + t * rotary + i), interleaved.q_out.get(kLead + t * rotary + paired(i)))
              << name << " rotary " << rotary << " element " << i;
        }
      }
    }
  }
}

// One row of values that are stored as they are, in S8.
void check_row(OpenDevice& on, const std::string& device, const std::vector<float>& values) {
  Problem p;
  p.has_q = p.has_k = true;
  p.cache_dtype = GTN_S8;
  p.dv = static_cast<int64_t>(values.size());
  Data data(p);
  data.randomize(p, 1);
  data.slots[0] = 5;
  for (size_t i = 0; i < values.size(); ++i) data.v.set(kLead + static_cast<int64_t>(i), values[i]);
  check(on, device, p, data);
}

TEST(Rope, QuantizationRoundsTiesToEvenAndDivides) {
  std::mt19937_64 random(9);
  std::uniform_real_distribution<float> magnitude(1.0f, 100.0f);
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    std::vector<float> ties = {127.0f};
    for (int i = -126; i <= 126; ++i) ties.push_back(static_cast<float>(i) + 0.5f);
    check_row(on, name, ties);
    // Rows whose second value is one that the product with the reciprocal of the scale would round to the other side.
    int found = 0;
    for (int attempt = 0; attempt < 100000 && found < 20; ++attempt) {
      const float amax = magnitude(random), scale = amax / 127.0f;
      for (float step = 0.5f; step < 127.0f; ++step) {
        const float value = step * scale;
        if (std::nearbyint(value / scale) == std::nearbyint(value * (1.0f / scale))) continue;
        ++found;
        check_row(on, name, std::vector<float>{amax, value, -value});
        break;
      }
    }
    EXPECT_EQ(20, found);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Zeros have scale 0; what is not finite has scale NaN and values of 0, wherever it stands; the smallest numbers have
// scales that underflow, and the largest do not overflow.
TEST(Rope, QuantizationOfZerosInfinitiesAndTheEnds) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (size_t n : {1, 7, 8, 20, 33}) {
      check_row(on, name, std::vector<float>(n, 0.0f));
      check_row(on, name, std::vector<float>(n, -0.0f));
      for (float value : {1e-45f, 1e-43f, 2.5e-43f, -2.5e-43f, 1e-40f, 1e-38f, 3.4028235e38f, -3.4028235e38f, kInfinity,
                          -kInfinity, nan, -nan}) {
        for (size_t i = 0; i < n; ++i) {
          std::vector<float> row(n, 0.25f * std::fmin(1.0f, std::isfinite(value) ? std::fabs(value) : 1.0f));
          row[i] = value;
          check_row(on, name, row);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Rope, InfinitiesNanAndOverflow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t style : {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED}) {
      for (int32_t cache_dtype : kTypes) {
        for (float value : {kInfinity, -kInfinity, nan, 3.4e38f, 7e4f, 1e-45f}) {
          Problem p;
          p.style = style;
          p.cache_dtype = cache_dtype;
          p.out_dtype = cache_dtype == GTN_S8 ? GTN_F32 : cache_dtype;
          p.rotary = 22;
          p.dk = 27;
          p.dv = 13;
          p.tokens = p.dk + 2;
          p.pages = 3;
          p.heads_q = p.heads_k = 2;
          // Token t has the value at element t; one has it everywhere; one is without it.
          Data data(p);
          data.randomize(p, 77);
          for (int64_t i = 0; i < p.dk; ++i) {
            data.q.set(kLead + i * 2 * p.dk + i, value);
            data.k.set(kLead + i * 2 * p.dk + i, value);
            data.q.set(kLead + p.dk * 2 * p.dk + i, value);
            data.k.set(kLead + p.dk * 2 * p.dk + i, value);
            if (i < p.dv) data.v.set(kLead + i * 2 * p.dv + i, value);
          }
          check(on, name, p, data);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

// Positions and slots out of range are found before anything is written, wherever they stand.
TEST(Rope, WrongPositionsAndSlotsChangeNothing) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (bool slots : {false, true}) {
      for (int64_t wrong : {INT64_MIN, int64_t{-2}, int64_t{-1}, int64_t{32}, int64_t{50}, INT64_MAX}) {
        for (int64_t token : {0, 7, 28}) {
          Problem p;
          p.cache_dtype = GTN_S8;
          p.tokens = 29;
          p.max_position = slots ? 60 : 32;
          p.pages = 2;
          Data data(p);
          data.randomize(p, 4);
          (slots ? data.slots : data.positions)[static_cast<size_t>(token)] = wrong;
          const Data given = data;
          if (slots && wrong == -1) {
            check(on, name, p, given);
            continue;
          }
          EXPECT_EQ(GTN_INVALID_ARGUMENT, run(on, p, data));
          char expected[120];
          std::snprintf(expected, sizeof expected, "%s[%lld] is %lld, expected %s = 31", slots ? "slots" : "positions",
                        static_cast<long long>(token), static_cast<long long>(wrong),
                        slots ? "-1, or 0 to pages * page size - 1" : "0 to max_position - 1");
          EXPECT_EQ(expected, on.message());
          EXPECT_TRUE(given.q_out.same_bytes(data.q_out) && given.k_cache.same_bytes(data.k_cache) &&
                      given.v_cache.same_bytes(data.v_cache) && given.k_scales.same_bytes(data.k_scales) &&
                      given.v_scales.same_bytes(data.v_scales))
              << name << " " << expected;
        }
      }
    }
  }
}

TEST(Rope, MoreTokensThanItsWorkspaceCountsAreDeclined) {
  Problem p;
  p.has_k = p.has_v = p.slots = false;
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    gtn_rope_desc desc = describe(p);
    desc.q.shape[0] = desc.q_out.shape[0] = int64_t{1} << 49;
    gtn_plan plan = 0;
    Message message;
    EXPECT_EQ(GTN_UNSUPPORTED, gtn_rope_plan(on.device, &desc, &plan, &message)) << name;
    EXPECT_NE(nullptr, std::strstr(message.text, "tokens")) << message.text;
  }
}

TEST(Rope, ThreadsDoNotChangeBits) {
  for (const std::string& name : cpu_devices()) {
    for (int32_t style : {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED}) {
      for (int32_t dtype : kTypes) {
        Problem p;
        p.style = style;
        p.cache_dtype = dtype;
        p.rotary = p.dk = 80;
        p.dv = 66;
        p.tokens = 201;
        p.pages = 20;
        p.heads_q = 6;
        p.heads_k = 3;
        Data given(p);
        given.randomize(p, 13);
        Data first = given;
        for (int threads = 1; threads <= 3; ++threads) {
          OpenDevice on(name, threads);
          Data data = given;
          ASSERT_EQ(GTN_OK, run(on, p, data)) << on.message();
          if (threads == 1) {
            first = data;
          } else {
            EXPECT_TRUE(first.q_out.same_bytes(data.q_out) && first.k_cache.same_bytes(data.k_cache) &&
                        first.v_cache.same_bytes(data.v_cache) && first.k_scales.same_bytes(data.k_scales) &&
                        first.v_scales.same_bytes(data.v_scales))
                << name << " " << p.text() << " threads=" << threads;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace gatun::test
