// Attention against an FP64 reference, on every level of this machine.
//
// Tolerance, per element of out, with u = 2^-24. Let s_j be the scores of a row's n visible keys, p_j their softmax and
// m = max s_j.
//   - A score is a sum of dk products, and a multiplication by scale: |error of s_j| <= (dk + 1) u |scale| sum |q_i
//     k_ij|.
//   - A weight exp(s_j - m) takes a subtraction (relative error u |s_j - m| of the exponential) and exp itself (2 ulp,
//     4 u). Whatever maximum was subtracted cancels between numerator and denominator. A block that raises the maximum
//     multiplies what came before by an alpha of the same error (the differences of maxima add up to at most |s_j - m|)
//     and one rounding; a block has at least 24 keys, so there are at most b = n / 24 + 2 of them, and each costs (4 +
//     1) u.
//   Together weight j is exp(s_j) (1 + e_j) up to a common factor, with
//     |e_j| <= eta_j = (dk + 1) u |scale| sum |q_i k_ij| + u |s_j - m| + (4 + 5 b) u.
//   - The sums of weights and of weights by values have n + b terms: (n + b) u each; the division is a reciprocal and a
//     product: 2 u.
// So |error of out| <= sum p_j |v_j| (eta_j + sum p_i eta_i + (2 (n + b) + 2) u), plus one rounding to the type of out;
// and |error of lse| <= sum p_j eta_j + (n + b) u, plus 2 ulp of the logarithm and one rounding of the sum. Terms of
// second order are covered by 1% on top. BF16 inputs are exact in FP32. The bound is for the worst case, so over a
// whole tensor the root mean square error may also be at most twice that of the naive computation in FP32, plus one
// rounding to the type of out.
#include "device_test.h"

#include <algorithm>
#include <functional>
#include <sstream>

namespace gatun::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The relative error of rounding to nearest with 8 and 24 significant bits: half a unit of the last of them, against a
// first that is 1.
double rounding(int32_t dtype) { return dtype == GTN_BF16 ? 0x1p-8 : 0x1p-24; }

// How the elements of q, k, v and out lie.
enum class Memory {
  kTokens,  // [.., length, heads, head size], dense
  kHeads,   // [.., heads, length, head size], dense
  kCache,   // k and v: rows of a longer cache; q and out: as kTokens
  kGaps,    // every stride odd, and the first element one off
};

struct Case {
  int32_t dtype = GTN_F32;
  bool packed = false;
  int64_t batch = 1;  // packed: the number of sequences, through the lengths
  int64_t len_q = 1, len_k = 1;
  int64_t heads_q = 1, heads_k = 1;
  int64_t dk = 8, dv = 8;
  int64_t left = -1, right = -1;
  std::vector<int64_t> lengths_q, lengths_k;  // one per sequence: batched, NULL when empty; packed, always
  Memory memory = Memory::kTokens;
  float scale = 0.0f;  // 0: 1 / sqrt(dk)
  float deviation = 1.0f;
  bool lse = true;
  uint64_t seed = 1;

  std::string text() const {
    std::ostringstream out;
    out << (dtype == GTN_F32 ? "f32" : "bf16") << (packed ? " packed" : " batched") << " batch " << batch << " len "
        << len_q << "/" << len_k << " heads " << heads_q << "/" << heads_k << " d " << dk << "/" << dv << " window "
        << left << "/" << right << " memory " << static_cast<int>(memory) << " scale " << scale << " seed " << seed;
    for (size_t s = 0; s < lengths_q.size(); ++s) out << " q" << lengths_q[s];
    for (size_t s = 0; s < lengths_k.size(); ++s) out << " k" << lengths_k[s];
    return out.str();
  }
};

// A described array with its memory. Memory that the description does not reach holds NaN.
struct Array {
  gtn_tensor_desc desc;
  int64_t start = 0;
  Buffer buffer{GTN_F32, 0};

  int64_t at(int64_t sequence, int64_t row, int64_t head, int64_t i) const {
    const int64_t* s = desc.strides;
    if (desc.rank == 4) return start + sequence * s[0] + row * s[1] + head * s[2] + i * s[3];
    return start + row * s[0] + head * s[1] + i * s[2];
  }
  char* data() { return static_cast<char*>(buffer.data()) + start * Buffer::element_size(desc.dtype); }
};

Array make_array(const Case& c, int64_t length, int64_t heads, int64_t size, bool cache) {
  Array array;
  if (c.packed) {
    array.desc = tensor(c.dtype, {length, heads, size});
  } else {
    array.desc = tensor(c.dtype, {c.batch, length, heads, size});
  }
  int64_t* s = array.desc.strides + (c.packed ? 0 : 1);  // row, head, element
  int64_t rows = length;
  switch (c.memory) {
    case Memory::kTokens:
      break;
    case Memory::kHeads:
      s[0] = size;
      s[1] = length * size;
      break;
    case Memory::kCache:
      if (cache) rows = 2 * length + 5;
      break;
    case Memory::kGaps:
      s[1] = size + 3;
      s[0] = heads * (size + 3) + 7;
      array.start = 1;
      break;
  }
  int64_t per_sequence = c.memory == Memory::kHeads ? heads * length * size : rows * s[0];
  if (c.memory == Memory::kGaps) per_sequence += 5;
  if (!c.packed) array.desc.strides[0] = per_sequence;
  array.buffer = Buffer(c.dtype, array.start + (c.packed ? 1 : c.batch) * per_sequence + 8);
  array.buffer.fill(kNan);
  return array;
}

struct Sequence {
  int64_t first_q, len_q, first_k, len_k;
};

std::vector<Sequence> sequences_of(const Case& c) {
  std::vector<Sequence> result;
  int64_t q = 0, k = 0;
  for (int64_t s = 0; s < c.batch; ++s) {
    const int64_t lq = c.lengths_q.empty() ? c.len_q : c.lengths_q[static_cast<size_t>(s)];
    const int64_t lk = c.lengths_k.empty() ? c.len_k : c.lengths_k[static_cast<size_t>(s)];
    result.push_back({q, lq, k, lk});
    if (c.packed) {
      q += lq;
      k += lk;
    }
  }
  return result;
}

bool visible(const Case& c, const Sequence& s, int64_t query, int64_t key) {
  const int64_t position = query + s.len_k - s.len_q;
  return (c.left < 0 || key >= position - c.left) && (c.right < 0 || key <= position + c.right);
}

float scale_of(const Case& c) { return c.scale != 0.0f ? c.scale : 1.0f / std::sqrt(static_cast<float>(c.dk)); }

// The tensors of one case, and the answer with its tolerance and the naive FP32 answer.
struct Problem {
  Case c;
  std::vector<Sequence> sequences;
  gtn_attention_pattern pattern;
  Array q, k, v;
  std::vector<int64_t> index_q, index_k;  // as the run takes them; empty: NULL

  // By sequence, head, query, and element for out.
  std::vector<double> out, out_tolerance, lse, lse_tolerance;
  std::vector<float> naive;

  void answer();
};

Problem make_problem(const Case& c) {
  Problem p;
  p.c = c;
  p.sequences = sequences_of(c);
  p.pattern = {sizeof p.pattern, 0, c.left, c.right, 1, 0};
  p.q = make_array(c, c.len_q, c.heads_q, c.dk, false);
  p.k = make_array(c, c.len_k, c.heads_k, c.dk, true);
  p.v = make_array(c, c.len_k, c.heads_k, c.dv, true);
  std::mt19937_64 random(c.seed);
  std::normal_distribution<float> normal(0.0f, c.deviation);
  for (int64_t s = 0; s < c.batch; ++s) {
    const Sequence& of = p.sequences[static_cast<size_t>(s)];
    for (int64_t i = 0; i < of.len_q; ++i) {
      for (int64_t h = 0; h < c.heads_q; ++h) {
        for (int64_t e = 0; e < c.dk; ++e) p.q.buffer.set(p.q.at(s, of.first_q + i, h, e), normal(random));
      }
    }
    for (int64_t j = 0; j < of.len_k; ++j) {
      for (int64_t h = 0; h < c.heads_k; ++h) {
        for (int64_t e = 0; e < c.dk; ++e) p.k.buffer.set(p.k.at(s, of.first_k + j, h, e), normal(random));
        for (int64_t e = 0; e < c.dv; ++e) p.v.buffer.set(p.v.at(s, of.first_k + j, h, e), normal(random));
      }
    }
  }
  if (c.packed) {
    p.index_q.push_back(0);
    p.index_k.push_back(0);
    for (const Sequence& s : p.sequences) {
      p.index_q.push_back(s.first_q + s.len_q);
      p.index_k.push_back(s.first_k + s.len_k);
    }
  } else {
    p.index_q = c.lengths_q;
    p.index_k = c.lengths_k;
  }
  return p;
}

void Problem::answer() {
  const double u = rounding(GTN_F32);
  const double scale = scale_of(c);
  const int64_t group = c.heads_q / std::max<int64_t>(c.heads_k, 1);
  out.clear();
  out_tolerance.clear();
  lse.clear();
  lse_tolerance.clear();
  naive.clear();
  std::vector<double> queries(static_cast<size_t>(c.dk)), keys, values;
  for (int64_t b = 0; b < c.batch; ++b) {
    const Sequence& s = sequences[static_cast<size_t>(b)];
    for (int64_t h = 0; h < c.heads_q; ++h) {
      keys.resize(static_cast<size_t>(s.len_k * c.dk));
      values.resize(static_cast<size_t>(s.len_k * c.dv));
      for (int64_t j = 0; j < s.len_k; ++j) {
        for (int64_t e = 0; e < c.dk; ++e) {
          keys[static_cast<size_t>(j * c.dk + e)] = k.buffer.get(k.at(b, s.first_k + j, h / group, e));
        }
        for (int64_t e = 0; e < c.dv; ++e) {
          values[static_cast<size_t>(j * c.dv + e)] = v.buffer.get(v.at(b, s.first_k + j, h / group, e));
        }
      }
      for (int64_t i = 0; i < s.len_q; ++i) {
        for (int64_t e = 0; e < c.dk; ++e) {
          queries[static_cast<size_t>(e)] = q.buffer.get(q.at(b, s.first_q + i, h, e));
        }
        // Scores; a score of -inf is as good as masked.
        std::vector<int64_t> seen;
        std::vector<double> score, eta;
        std::vector<float> naive_score;
        bool nan = false;
        for (int64_t j = 0; j < s.len_k; ++j) {
          if (!visible(c, s, i, j)) continue;
          double dot = 0, size = 0;
          float naive_dot = 0;
          for (int64_t e = 0; e < c.dk; ++e) {
            const double product = queries[static_cast<size_t>(e)] * keys[static_cast<size_t>(j * c.dk + e)];
            dot += product;
            size += std::abs(product);
            naive_dot += static_cast<float>(queries[static_cast<size_t>(e)]) *
                         static_cast<float>(keys[static_cast<size_t>(j * c.dk + e)]);
          }
          if (std::isnan(dot) || dot * scale == kInf) nan = true;
          if (dot * scale == -kInf) continue;
          seen.push_back(j);
          score.push_back(dot * scale);
          eta.push_back(static_cast<double>(c.dk + 1) * u * std::abs(scale) * size);
          naive_score.push_back(naive_dot * static_cast<float>(scale));
        }
        const size_t n = seen.size();
        const double blocks = static_cast<double>(n) / 24 + 2;
        const double maximum = n == 0 ? 0.0 : *std::max_element(score.begin(), score.end());
        const float naive_maximum = n == 0 ? 0.0f : *std::max_element(naive_score.begin(), naive_score.end());
        double sum = 0, mean_eta = 0;
        float naive_sum = 0;
        std::vector<double> weight(n);
        std::vector<float> naive_weight(n);
        for (size_t j = 0; j < n; ++j) {
          weight[j] = std::exp(score[j] - maximum);
          sum += weight[j];
          naive_weight[j] = std::exp(naive_score[j] - naive_maximum);
          naive_sum += naive_weight[j];
          eta[j] += u * std::abs(score[j] - maximum) + (4 + 5 * blocks) * u;
        }
        for (size_t j = 0; j < n; ++j) mean_eta += weight[j] / sum * eta[j];
        const double sums = (static_cast<double>(n) + blocks) * u;
        if (nan) {
          lse.push_back(std::nan(""));
        } else {
          lse.push_back(n == 0 ? -kInf : maximum + std::log(sum));
        }
        const double log = std::log(sum);
        lse_tolerance.push_back(
            n == 0 ? 0.0 : 1.01 * (mean_eta + sums + 4 * u * std::abs(log) + u * std::abs(maximum + log)));
        for (int64_t e = 0; e < c.dv; ++e) {
          double total = 0, size = 0;
          float naive_total = 0;
          for (size_t j = 0; j < n; ++j) {
            const double value = values[static_cast<size_t>(seen[j] * c.dv + e)];
            total += weight[j] / sum * value;
            size += weight[j] / sum * std::abs(value) * (eta[j] + mean_eta + 2 * sums + 2 * u);
            naive_total += naive_weight[j] * static_cast<float>(value);
          }
          out.push_back(nan ? std::nan("") : total);
          const double tolerance = 1.01 * size + 0x1p-126;
          const double stored = c.dtype == GTN_BF16 ? rounding(GTN_BF16) * (std::abs(total) + tolerance) : 0.0;
          out_tolerance.push_back(tolerance + stored);
          const float quotient = n == 0 ? 0.0f : naive_total / naive_sum;
          naive.push_back(c.dtype == GTN_BF16 ? from_bf16(to_bf16(quotient)) : quotient);
        }
      }
    }
  }
}

gtn_attention_desc describe(const Problem& p, const Array& out) {
  gtn_attention_desc desc = {};
  desc.size = sizeof desc;
  desc.scale = scale_of(p.c);
  desc.q = p.q.desc;
  desc.k = p.k.desc;
  desc.v = p.v.desc;
  desc.out = out.desc;
  desc.patterns = &p.pattern;
  desc.pattern_count = 1;
  desc.max_sequences = p.c.packed ? p.c.batch : 0;
  return desc;
}

struct Result {
  Array out;
  Buffer lse{GTN_F32, 0};
};

constexpr float kSentinel = -1234.5f;
constexpr int64_t kGuard = 64;  // elements around lse

Result make_result(const Problem& p) {
  Result r;
  r.out = make_array(p.c, p.c.len_q, p.c.heads_q, p.c.dv, false);
  r.out.buffer.fill(kSentinel);
  r.lse = Buffer(GTN_F32, (p.c.packed ? 1 : p.c.batch) * p.c.heads_q * p.c.len_q + 2 * kGuard);
  r.lse.fill(kSentinel);
  return r;
}

int64_t lse_at(const Problem& p, int64_t b, int64_t h, int64_t i) {
  const Case& c = p.c;
  if (c.packed) return kGuard + h * c.len_q + p.sequences[static_cast<size_t>(b)].first_q + i;
  return kGuard + (b * c.heads_q + h) * c.len_q + i;
}

// Plans and runs, and expects that to work.
Result run(const OpenDevice& on, const std::string& name, Problem& p) {
  Result r = make_result(p);
  const gtn_attention_desc desc = describe(p, r.out);
  gtn_plan plan = 0;
  Message message;
  EXPECT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text << "; " << p.c.text();
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message));
  const std::string level = name.substr(name.find(':') + 1);
  EXPECT_EQ("cpu." + level + ".attention." + (p.c.dtype == GTN_F32 ? "f32" : "bf16"), info.kernel);
  const int64_t* index_q = p.index_q.empty() ? nullptr : p.index_q.data();
  const int64_t* index_k = p.index_k.empty() ? nullptr : p.index_k.data();
  float* lse = p.c.lse ? static_cast<float*>(r.lse.data()) + kGuard : nullptr;
  EXPECT_EQ(GTN_OK, gtn_attention_run(plan, on.stream, p.c.batch, p.c.len_q, p.c.len_k, index_q, index_k, p.q.data(),
                                      p.k.data(), p.v.data(), r.out.data(), lse))
      << on.message() << "; " << p.c.text();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return r;
}

std::string where(const Problem& p, const std::string& device, int64_t b, int64_t h, int64_t i, int64_t e) {
  std::ostringstream out;
  out << device << ": " << p.c.text() << ": sequence " << b << " head " << h << " query " << i << " element " << e;
  return out.str();
}

// True when `got` is within the tolerance, or both are NaN, or both the same infinity.
bool near(double got, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(got);
  if (std::isinf(expected)) return got == expected;
  return std::abs(got - expected) <= tolerance;  // false for NaN
}

// Everything in its place within tolerance, and everything else untouched.
void expect_answer(const Problem& p, const Result& r, const std::string& device) {
  const Case& c = p.c;
  Buffer out_left = r.out.buffer, lse_left = r.lse;
  size_t next = 0, row = 0;
  double error = 0, naive_error = 0, size = 0;
  for (int64_t b = 0; b < c.batch; ++b) {
    const Sequence& s = p.sequences[static_cast<size_t>(b)];
    for (int64_t h = 0; h < c.heads_q; ++h) {
      for (int64_t i = 0; i < s.len_q; ++i) {
        for (int64_t e = 0; e < c.dv; ++e) {
          const int64_t at = r.out.at(b, s.first_q + i, h, e);
          const double got = r.out.buffer.get(at);
          ASSERT_TRUE(near(got, p.out[next], p.out_tolerance[next]))
              << where(p, device, b, h, i, e) << ": got " << got << ", expected " << p.out[next] << " within "
              << p.out_tolerance[next];
          if (!std::isnan(p.out[next])) {
            error += (got - p.out[next]) * (got - p.out[next]);
            naive_error += (p.naive[next] - p.out[next]) * (p.naive[next] - p.out[next]);
            size += p.out[next] * p.out[next];
          }
          out_left.set(at, kSentinel);
          ++next;
        }
        if (c.lse) {
          const int64_t at = lse_at(p, b, h, i);
          const double got = r.lse.get(at);
          ASSERT_TRUE(near(got, p.lse[row], p.lse_tolerance[row]))
              << where(p, device, b, h, i, -1) << ": lse is " << got << ", expected " << p.lse[row] << " within "
              << p.lse_tolerance[row];
          lse_left.set(at, kSentinel);
        }
        ++row;
      }
    }
  }
  // Of a few numbers the naive computation may happen to be right.
  EXPECT_TRUE(next < 32 || std::sqrt(error) <= 2 * std::sqrt(naive_error) + rounding(c.dtype) * std::sqrt(size))
      << device << ": " << c.text() << ": root mean square error against the naive computation";
  const Result untouched = make_result(p);
  EXPECT_TRUE(out_left.same_bytes(untouched.out.buffer)) << device << ": " << c.text() << ": wrote around out";
  EXPECT_TRUE(lse_left.same_bytes(untouched.lse)) << device << ": " << c.text() << ": wrote around lse";
}

// Runs one problem on every device.
void check(Problem& p) {
  p.answer();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    expect_answer(p, run(on, name, p), name);
  }
}

void check(const Case& c) {
  Problem p = make_problem(c);
  check(p);
}

// ---- Shapes
// ------------------------------------------------------------------------------------------------------------

// Lengths around the vector, panel, block and tile sizes of all levels, and windows of all kinds.
TEST(Attention, Lengths) {
  const std::vector<std::pair<int64_t, int64_t>> lengths = {
      {0, 0},  {0, 5},   {1, 0},   {5, 0},    {1, 1},    {1, 2},   {2, 1},    {3, 7},     {4, 4},    {5, 5},    {7, 24},
      {8, 23},  {15, 16}, {16, 15}, {17, 25},  {31, 33}, {32, 32},   {33, 31},   {63, 64},   {64, 131}, {65, 132},
      {1, 257}, {2, 265}, {4, 263}, {5, 264},  {9, 128}, {127, 133}, {128, 128}, {129, 127}, {131, 257}, {97, 13},
      {255, 8}, {256, 9}, {257, 7}, {263, 265}};
  const std::vector<std::pair<int64_t, int64_t>> windows = {{-1, -1}, {-1, 0}, {17, 3}};
  uint64_t seed = 100;
  for (const auto& [len_q, len_k] : lengths) {
    for (const auto& [left, right] : windows) {
      Case c;
      c.len_q = len_q;
      c.len_k = len_k;
      c.left = left;
      c.right = right;
      c.dk = 24;
      c.dv = 16;
      c.dtype = seed % 2 == 0 ? GTN_F32 : GTN_BF16;
      c.memory = static_cast<Memory>(seed % 4);
      c.seed = seed++;
      check(c);
    }
  }
}

TEST(Attention, HeadSizes) {
  const std::vector<std::pair<int64_t, int64_t>> sizes = {
      {1, 1},   {5, 3},   {3, 5},    {7, 9},     {8, 24},   {15, 17},   {32, 32}, {33, 31}, {64, 64},
      {80, 80}, {64, 128}, {128, 128}, {128, 64}, {192, 128}, {96, 40}, {1, 64},  {64, 1},  {576, 512}};
  uint64_t seed = 200;
  for (const auto& [dk, dv] : sizes) {
    for (int64_t len_q : {1, 3, 21, 50}) {
      for (int32_t dtype : {GTN_F32, GTN_BF16}) {
        Case c;
        c.dtype = dtype;
        c.len_q = len_q;
        c.len_k = 59;
        c.right = 0;
        c.dk = dk;
        c.dv = dv;
        c.memory = static_cast<Memory>(seed % 4);
        c.seed = seed++;
        check(c);
      }
    }
  }
}

TEST(Attention, GroupedHeads) {
  const std::vector<std::pair<int64_t, int64_t>> heads = {{1, 1}, {2, 2}, {2, 1}, {4, 2}, {3, 1},
                                                          {6, 2}, {8, 1}, {16, 2}, {40, 1}};
  uint64_t seed = 300;
  for (const auto& [heads_q, heads_k] : heads) {
    for (int64_t len_q : {1, 2, 19}) {
      for (Memory memory : {Memory::kTokens, Memory::kHeads, Memory::kCache, Memory::kGaps}) {
        Case c;
        c.dtype = seed % 2 == 0 ? GTN_F32 : GTN_BF16;
        c.batch = 2;
        c.len_q = len_q;
        c.len_k = 37;
        c.heads_q = heads_q;
        c.heads_k = heads_k;
        c.dk = 16;
        c.dv = 24;
        c.left = 11;
        c.right = 0;
        c.memory = memory;
        c.seed = seed++;
        check(c);
      }
    }
  }
}

TEST(Attention, BatchedLengths) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (Memory memory : {Memory::kTokens, Memory::kHeads, Memory::kCache, Memory::kGaps}) {
      Case c;
      c.dtype = dtype;
      c.batch = 6;
      c.len_q = 40;
      c.len_k = 133;
      c.heads_q = 4;
      c.heads_k = 2;
      c.dk = 16;
      c.dv = 16;
      c.right = 0;
      c.lengths_q = {40, 0, 7, 1, 33, 39};
      c.lengths_k = {133, 5, 0, 131, 12, 40};
      c.memory = memory;
      c.seed = 400;
      check(c);
      c.lengths_q.clear();  // only the keys have lengths
      check(c);
    }
  }
}

TEST(Attention, PackedLengths) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (Memory memory : {Memory::kTokens, Memory::kHeads, Memory::kGaps}) {
      Case c;
      c.dtype = dtype;
      c.packed = true;
      c.batch = 9;
      c.lengths_q = {0, 3, 0, 130, 1, 17, 0, 2, 0};
      c.lengths_k = {0, 3, 9, 130, 201, 5, 0, 0, 1};
      c.len_q = 160;  // tokens: more than the sequences fill
      c.len_k = 360;
      c.heads_q = 3;
      c.heads_k = 1;
      c.dk = 20;
      c.dv = 12;
      c.left = 50;
      c.right = 0;
      c.memory = memory;
      c.seed = 500;
      check(c);
    }
  }
}

TEST(Attention, LongCausalWindow) {
  Case c;
  c.len_q = 1537;
  c.len_k = 1537;
  c.heads_q = 2;
  c.heads_k = 1;
  c.dk = 16;
  c.dv = 24;
  c.left = 300;
  c.right = 0;
  c.seed = 600;
  check(c);
}

// Enough heads that tiles keep their full size.
TEST(Attention, ManyHeads) {
  for (int64_t left : {-1, 40}) {
    Case c;
    c.dtype = left < 0 ? GTN_F32 : GTN_BF16;
    c.batch = 3;
    c.len_q = 261;
    c.len_k = 140;
    c.heads_q = 24;
    c.heads_k = 24;
    c.left = left;
    c.right = 0;
    c.lengths_q = {261, 3, 256};
    c.lengths_k = {140, 140, 139};
    c.seed = 650;
    check(c);
  }
}

TEST(Attention, ChunkedPrefillAndLongDecode) {
  for (int64_t len_q : {1, 3, 100}) {
    Case c;
    c.dtype = GTN_BF16;
    c.len_q = len_q;
    c.len_k = 2003;
    c.heads_q = 2;
    c.heads_k = 2;
    c.dk = 32;
    c.dv = 32;
    c.right = 0;
    c.memory = Memory::kCache;
    c.seed = 700;
    check(c);
  }
}

TEST(Attention, NothingToDo) {
  for (const std::string& name : cpu_devices()) {
    for (bool packed : {false, true}) {
      Case c;
      c.packed = packed;
      c.batch = 0;
      c.len_q = 0;
      c.len_k = 0;
      Problem p = make_problem(c);
      p.answer();
      OpenDevice on(name);
      expect_answer(p, run(on, name, p), name);
    }
  }
}

// A run may be smaller than its plan in every direction; lse keeps the plan's row length.
TEST(Attention, RunsSmallerThanThePlan) {
  for (const std::string& name : cpu_devices()) {
    Case c;
    c.batch = 4;
    c.len_q = 12;
    c.len_k = 50;
    c.heads_q = 2;
    c.heads_k = 2;
    c.right = 0;
    c.lengths_q = {5, 9, 0, 0};  // the last two by running two sequences alone
    c.lengths_k = {31, 31, 0, 0};
    Problem p = make_problem(c);
    p.answer();
    OpenDevice on(name);
    Result r = make_result(p);
    const gtn_attention_desc desc = describe(p, r.out);
    gtn_plan plan = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
    EXPECT_EQ(GTN_OK, gtn_attention_run(plan, on.stream, 2, 9, 31, p.index_q.data(), nullptr, p.q.data(), p.k.data(),
                                        p.v.data(), r.out.data(), static_cast<float*>(r.lse.data()) + kGuard))
        << on.message();
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    expect_answer(p, r, name);
  }
}

// ---- Which keys a query sees
// ---------------------------------------------------------------------------------------------

// With q = 0 all visible keys weigh the same, and with v the unit matrix element j of out is the weight of key j: the
// mask itself, compared exactly.
TEST(Attention, WindowsSeeExactlyTheirKeys) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t len_q : {1, 2, 5, 9, 40}) {
      for (int64_t len_k : {1, 2, 5, 9, 37}) {
        for (int64_t left : {-1, 0, 1, 2, 7, 36, 100}) {
          for (int64_t right : {-1, 0, 1, 3, 50}) {
            Case c;
            c.len_q = len_q;
            c.len_k = len_k;
            c.heads_q = 2;
            c.left = left;
            c.right = right;
            c.dk = 4;
            c.dv = len_k;
            Problem p = make_problem(c);
            for (int64_t i = 0; i < len_q; ++i) {
              for (int64_t h = 0; h < 2; ++h) {
                for (int64_t e = 0; e < c.dk; ++e) p.q.buffer.set(p.q.at(0, i, h, e), 0.0f);
              }
            }
            for (int64_t j = 0; j < len_k; ++j) {
              for (int64_t e = 0; e < c.dv; ++e) p.v.buffer.set(p.v.at(0, j, 0, e), j == e ? 1.0f : 0.0f);
            }
            const Result r = run(on, name, p);
            for (int64_t i = 0; i < len_q; ++i) {
              int64_t count = 0;
              for (int64_t j = 0; j < len_k; ++j) count += visible(c, p.sequences[0], i, j) ? 1 : 0;
              for (int64_t h = 0; h < 2; ++h) {
                for (int64_t j = 0; j < len_k; ++j) {
                  const float expected =
                      visible(c, p.sequences[0], i, j) ? 1.0f / static_cast<float>(count) : 0.0f;
                  ASSERT_EQ(expected, r.out.buffer.get(r.out.at(0, i, h, j))) << where(p, name, 0, h, i, j);
                }
                const double lse = r.lse.get(lse_at(p, 0, h, i));
                ASSERT_TRUE(near(lse, std::log(static_cast<double>(count)), 1e-6))
                    << where(p, name, 0, h, i, -1) << " " << lse;
              }
            }
          }
        }
      }
    }
  }
}

// The same on a length of several tiles and key blocks: v is the number of the key, so out is the middle of the
// window.
TEST(Attention, WindowsOverManyBlocks) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t left : {-1, 0, 1, 63, 119, 120, 121, 255, 600}) {
      for (int64_t right : {0, 1, 130}) {
        Case c;
        c.len_q = 300;
        c.len_k = 520;
        c.left = left;
        c.right = right;
        c.dk = 1;
        c.dv = 1;
        Problem p = make_problem(c);
        for (int64_t i = 0; i < c.len_q; ++i) p.q.buffer.set(p.q.at(0, i, 0, 0), 0.0f);
        for (int64_t j = 0; j < c.len_k; ++j) p.v.buffer.set(p.v.at(0, j, 0, 0), static_cast<float>(j));
        const Result r = run(on, name, p);
        for (int64_t i = 0; i < c.len_q; ++i) {
          const int64_t position = i + c.len_k - c.len_q;
          const int64_t first = left < 0 ? 0 : std::max<int64_t>(0, position - left);
          const int64_t last = std::min(c.len_k - 1, position + right);
          const double middle = static_cast<double>(first + last) / 2;
          // All sums of whole numbers here are exact, and the reciprocal of the count and the product cost 2 u.
          ASSERT_NEAR(middle, r.out.buffer.get(r.out.at(0, i, 0, 0)), 2 * rounding(GTN_F32) * 1.01 * middle)
              << where(p, name, 0, 0, i, 0);
        }
      }
    }
  }
}

TEST(Attention, QueriesThatSeeNothingGiveZeroAndMinusInfinity) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (int64_t len_q : {2, 40, 200}) {
      for (int64_t len_k : {0, 1, 30}) {
        Case c;
        c.dtype = dtype;
        c.len_q = len_q;
        c.len_k = len_k;
        c.right = 0;
        Problem p = make_problem(c);
        p.answer();
        for (const std::string& name : cpu_devices()) {
          OpenDevice on(name);
          const Result r = run(on, name, p);
          expect_answer(p, r, name);
          for (int64_t i = 0; i < len_q - len_k; ++i) {
            ASSERT_EQ(0.0f, r.out.buffer.get(r.out.at(0, i, 0, 3))) << where(p, name, 0, 0, i, 3);
            ASSERT_EQ(-kInf, r.lse.get(lse_at(p, 0, 0, i))) << where(p, name, 0, 0, i, -1);
          }
        }
      }
    }
  }
}

// ---- What never leaks
// ----------------------------------------------------------------------------------------------------

// make_array() leaves NaN in all rows beyond a sequence's length, so every comparison above would see a leak; here the
// rows of out and lse beyond the lengths are also looked at by name.
TEST(Attention, RowsBeyondALengthAreUntouched) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Case c;
    c.batch = 2;
    c.len_q = 20;
    c.len_k = 30;
    c.lengths_q = {20, 6};
    c.lengths_k = {7, 30};
    Problem p = make_problem(c);
    const Result r = run(on, name, p);
    for (int64_t i = 0; i < 20; ++i) {
      const float out = r.out.buffer.get(r.out.at(1, i, 0, 0)), lse = r.lse.get(lse_at(p, 1, 0, i));
      EXPECT_TRUE(i < 6 ? std::isfinite(out) && out != kSentinel : out == kSentinel) << where(p, name, 1, 0, i, 0);
      EXPECT_TRUE(i < 6 ? std::isfinite(lse) && lse != kSentinel : lse == kSentinel) << where(p, name, 1, 0, i, -1);
    }
  }
}

// Keys that a block of queries cannot see are never touched: NaN in them does not reach it, although other queries of
// the same tile see them. Blocks of queries have at most 32 rows on any level; with so many heads tiles have all of 256.
TEST(Attention, KeysInvisibleToABlockOfQueriesNeverLeak) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    Case c;
    c.dtype = dtype;
    c.len_q = 256;
    c.len_k = 256;
    c.heads_q = 64;
    c.heads_k = 64;
    c.left = 20;
    c.right = 0;
    c.seed = 800;
    Problem clean = make_problem(c);
    Problem p = make_problem(c);
    for (int64_t j = 96; j < 104; ++j) {
      for (int64_t h = 0; h < c.heads_k; ++h) {
        for (int64_t e = 0; e < c.dk; ++e) {
          p.k.buffer.set(p.k.at(0, j, h, e), kNan);
          p.v.buffer.set(p.v.at(0, j, h, e), kNan);
        }
      }
    }
    for (const std::string& name : cpu_devices()) {
      OpenDevice on(name);
      const Result r = run(on, name, p);
      const Result expected = run(on, name, clean);
      for (int64_t h = 0; h < c.heads_q; ++h) {
        for (int64_t i = 0; i < 256; ++i) {
          const float got = r.out.buffer.get(r.out.at(0, i, h, 0));
          if (i < 96 || i >= 128) {
            ASSERT_EQ(expected.out.buffer.get(r.out.at(0, i, h, 0)), got) << where(p, name, 0, h, i, 0);
          } else if (i < 124) {
            ASSERT_TRUE(std::isnan(got)) << where(p, name, 0, h, i, 0);
          }
        }
      }
    }
  }
}

// In decode, a window leaves all but the last keys alone.
TEST(Attention, DecodeReadsOnlyItsWindow) {
  for (int64_t group : {1, 3, 8}) {
    Case c;
    c.len_q = 1;
    c.len_k = 500;
    c.heads_q = group;
    c.left = 9;
    c.right = 0;
    c.seed = 810;
    Problem p = make_problem(c);
    for (int64_t j = 0; j < 490; ++j) {
      for (int64_t e = 0; e < c.dk; ++e) {
        p.k.buffer.set(p.k.at(0, j, 0, e), kNan);
        p.v.buffer.set(p.v.at(0, j, 0, e), kNan);
      }
    }
    check(p);
  }
}

// ---- Values that are not finite
// --------------------------------------------------------------------------------------------

// Lengths that take each way through the kernels.
const std::vector<int64_t> kWays = {1, 3, 6, 40};

// One key with the given first element where the first element of each query is 1.
Problem with_key(int64_t len_q, int64_t key, float value, int32_t dtype = GTN_F32) {
  Case c;
  c.dtype = dtype;
  c.len_q = len_q;
  c.len_k = 200;
  c.right = 0;
  c.seed = 900;
  Problem p = make_problem(c);
  for (int64_t i = 0; i < len_q; ++i) p.q.buffer.set(p.q.at(0, i, 0, 0), 1.0f);
  p.k.buffer.set(p.k.at(0, key, 0, 0), value);
  return p;
}

TEST(Attention, ANanScoreMakesItsRowNanAndNoOther) {
  for (int64_t len_q : kWays) {
    for (int64_t key : {0, 130, 180, 199}) {  // 180 is visible to some rows of the longest case alone
      Problem p = with_key(len_q, key, kNan);
      check(p);
    }
    Problem p = with_key(len_q, 5, 1.0f, GTN_BF16);
    p.q.buffer.set(p.q.at(0, 0, 0, 2), kNan);  // a NaN query
    check(p);
  }
}

TEST(Attention, AnInfiniteScoreMakesItsRowNan) {
  for (int64_t len_q : kWays) {
    for (int64_t key : {0, 130, 180, 199}) {
      Problem p = with_key(len_q, key, std::numeric_limits<float>::infinity());
      check(p);
    }
  }
}

TEST(Attention, AScoreOfMinusInfinityIsMasked) {
  for (int64_t len_q : kWays) {
    for (int64_t key : {0, 130, 180, 199}) {
      Problem p = with_key(len_q, key, -std::numeric_limits<float>::infinity());
      check(p);
    }
  }
}

TEST(Attention, OnlyScoresOfMinusInfinityGiveZeroAndMinusInfinity) {
  for (int64_t len_q : kWays) {
    Problem p = with_key(len_q, 0, 1.0f);
    for (int64_t j = 0; j < 200; ++j) p.k.buffer.set(p.k.at(0, j, 0, 0), -std::numeric_limits<float>::infinity());
    check(p);
    p.v.buffer.set(p.v.at(0, 3, 0, 0), kNan);  // whatever the values hold
    for (const std::string& name : cpu_devices()) {
      OpenDevice on(name);
      const Result r = run(on, name, p);
      for (int64_t i = 0; i < len_q; ++i) {
        for (int64_t e = 0; e < p.c.dv; ++e) {
          ASSERT_EQ(0.0f, r.out.buffer.get(r.out.at(0, i, 0, e))) << where(p, name, 0, 0, i, e);
        }
        ASSERT_EQ(-kInf, r.lse.get(lse_at(p, 0, 0, i))) << where(p, name, 0, 0, i, -1);
      }
    }
    // A first block that is all -inf, and finite scores after it.
    Problem late = with_key(len_q, 0, 1.0f);
    for (int64_t j = 0; j < 150; ++j) late.k.buffer.set(late.k.at(0, j, 0, 0), -std::numeric_limits<float>::infinity());
    check(late);
  }
}

// A value that is not finite reaches the rows that give it weight.
TEST(Attention, AnInfiniteValueReachesTheRowsThatSeeIt) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int64_t len_q : kWays) {
      Problem p = with_key(len_q, 0, 1.0f);
      p.v.buffer.set(p.v.at(0, 100, 0, 2), std::numeric_limits<float>::infinity());
      const Result r = run(on, name, p);
      for (int64_t i = 0; i < len_q; ++i) {
        EXPECT_EQ(kInf, r.out.buffer.get(r.out.at(0, i, 0, 2))) << where(p, name, 0, 0, i, 2);
        EXPECT_TRUE(std::isfinite(r.out.buffer.get(r.out.at(0, i, 0, 3)))) << where(p, name, 0, 0, i, 3);
      }
    }
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  for (int64_t len_q : kWays) {
    Case c;
    c.len_q = len_q;
    c.len_k = 150;
    c.dk = 16;
    c.deviation = 40.0f;  // scores in the thousands: weights underflow, maxima rise by hundreds
    c.scale = 1.0f;
    c.seed = 910;
    check(c);
    c.scale = -1.0f;
    check(c);
    c.deviation = 1e18f;  // scores near the end of the range
    c.scale = 0.01f;
    Problem p = make_problem(c);
    for (const std::string& name : cpu_devices()) {
      OpenDevice on(name);
      const Result r = run(on, name, p);
      for (int64_t i = 0; i < len_q; ++i) {
        ASSERT_TRUE(std::isfinite(r.out.buffer.get(r.out.at(0, i, 0, 0)))) << where(p, name, 0, 0, i, 0);
      }
    }
  }
}

TEST(Attention, ALargeOffsetOfAllScoresCancels) {
  for (int64_t len_q : kWays) {
    Problem p = with_key(len_q, 0, 1.0f);
    for (int64_t j = 0; j < 200; ++j) p.k.buffer.set(p.k.at(0, j, 0, 0), 4096.0f);
    check(p);
  }
}

TEST(Attention, Denormals) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (int64_t len_q : kWays) {
      Case c;
      c.dtype = dtype;
      c.len_q = len_q;
      c.len_k = 50;
      c.deviation = 1e-39f;
      c.scale = 1.0f;
      c.seed = 920;
      Problem p = make_problem(c);
      p.answer();
      for (const std::string& name : cpu_devices()) {
        OpenDevice on(name);
        const Result r = run(on, name, p);
        size_t next = 0;
        for (int64_t i = 0; i < len_q; ++i) {
          for (int64_t e = 0; e < c.dv; ++e, ++next) {
            // Sums of denormals are exact up to their spacing, 2^-149 (BF16: 2^-133). Tiles of AMX take them for zeros.
            const double spacing = dtype == GTN_F32 ? 0x1p-149 : name == "cpu:amx" ? 0x1p-126 : 0x1p-133;
            ASSERT_NEAR(p.out[next], r.out.buffer.get(r.out.at(0, i, 0, e)), 60 * 0x1p-149 + spacing)
                << where(p, name, 0, 0, i, e);
          }
        }
      }
    }
  }
}

// ---- Sharing
// -------------------------------------------------------------------------------------------------------------

TEST(Attention, KeysMayBeTheValues) {
  for (int64_t len_q : kWays) {
    for (int32_t dtype : {GTN_F32, GTN_BF16}) {
      Case c;
      c.dtype = dtype;
      c.len_q = len_q;
      c.len_k = 70;
      c.dk = 24;
      c.dv = 16;  // a view of the first elements of each key
      c.seed = 1000;
      Problem p = make_problem(c);
      p.v = p.k;
      p.v.desc.shape[3] = c.dv;
      p.answer();
      for (const std::string& name : cpu_devices()) {
        OpenDevice on(name);
        Result r = make_result(p);
        const gtn_attention_desc desc = describe(p, r.out);
        gtn_plan plan = 0;
        Message message;
        ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
        EXPECT_EQ(GTN_OK,
                  gtn_attention_run(plan, on.stream, 1, len_q, 70, nullptr, nullptr, p.q.data(), p.k.data(), p.k.data(),
                                    r.out.data(), static_cast<float*>(r.lse.data()) + kGuard))
            << on.message();
        EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
        expect_answer(p, r, name);
      }
    }
  }
}

TEST(Attention, WithoutLse) {
  Case c;
  c.len_q = 30;
  c.len_k = 30;
  c.right = 0;
  c.lse = false;
  check(c);
}

TEST(Attention, SameBitsForAnyNumberOfThreads) {
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (int64_t len_q : {1, 150}) {
      Case c;
      c.dtype = dtype;
      c.batch = 3;
      c.len_q = len_q;
      c.len_k = len_q == 1 ? 1100 : 233;
      c.heads_q = 6;
      c.heads_k = 3;
      c.dk = 32;
      c.dv = 24;
      c.right = 0;
      c.lengths_k = {c.len_k, 1, 140};
      c.seed = 1100;
      Problem p = make_problem(c);
      for (const std::string& name : cpu_devices()) {
        OpenDevice one(name, 1);
        const Result expected = run(one, name, p);
        for (int threads : {2, 3}) {
          OpenDevice on(name, threads);
          for (int repeat = 0; repeat < 2; ++repeat) {
            const Result r = run(on, name, p);
            EXPECT_TRUE(r.out.buffer.same_bytes(expected.out.buffer) && r.lse.same_bytes(expected.lse))
                << name << " " << threads << " threads " << c.text();
          }
        }
      }
    }
  }
}

// ---- Arguments
// -------------------------------------------------------------------------------------------------------------

// Expects a run with these index arrays to fail, with a message that holds all of `words`, and to write nothing.
void expect_refused(const Case& c, const std::vector<int64_t>& index_q, const std::vector<int64_t>& index_k,
                    const std::vector<std::string>& words) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p = make_problem(c);
    Result r = make_result(p);
    const gtn_attention_desc desc = describe(p, r.out);
    gtn_plan plan = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
    EXPECT_EQ(GTN_INVALID_ARGUMENT,
              gtn_attention_run(plan, on.stream, c.batch, c.len_q, c.len_k, index_q.data(), index_k.data(), p.q.data(),
                                p.k.data(), p.v.data(), r.out.data(), static_cast<float*>(r.lse.data()) + kGuard));
    for (const std::string& word : words) {
      EXPECT_NE(std::string::npos, on.message().find(word)) << on.message() << ": " << word;
    }
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
    const Result untouched = make_result(p);
    EXPECT_TRUE(r.out.buffer.same_bytes(untouched.out.buffer)) << on.message();
    EXPECT_TRUE(r.lse.same_bytes(untouched.lse)) << on.message();
  }
}

TEST(Attention, WrongLengthsAreRefused) {
  Case c;
  c.batch = 3;
  c.len_q = 8;
  c.len_k = 9;
  expect_refused(c, {8, 1, 9}, {9, 9, 9}, {"q_index[2]", " 9", "0 to len_q = 8"});
  expect_refused(c, {8, -1, 8}, {9, 9, 9}, {"q_index[1]", "-1", "0 to len_q = 8"});
  expect_refused(c, {8, 1, 8}, {10, 9, 9}, {"k_index[0]", "10", "0 to len_k = 9"});
  expect_refused(c, {8, 1, 8}, {9, std::numeric_limits<int64_t>::min(), 9}, {"k_index[1]", "-9223372036854775808"});
}

TEST(Attention, WrongOffsetsAreRefused) {
  Case c;
  c.packed = true;
  c.batch = 3;
  c.len_q = 8;
  c.len_k = 9;
  c.lengths_q = {2, 3, 3};
  c.lengths_k = {3, 3, 3};
  expect_refused(c, {1, 2, 5, 8}, {0, 3, 6, 9}, {"q_index[0]", " 1", "0"});
  expect_refused(c, {0, 5, 4, 8}, {0, 3, 6, 9}, {"q_index[2]", " 4", "5 to len_q = 8"});
  expect_refused(c, {0, 2, 5, 8}, {0, 3, 6, 10}, {"k_index[3]", "10", "6 to len_k = 9"});
  expect_refused(c, {0, 2, 5, 8}, {0, -3, 6, 9}, {"k_index[1]", "-3", "0 to len_k = 9"});
}

// ---- What a plan says
// --------------------------------------------------------------------------------------------------------

TEST(Attention, PlansCountVisiblePairsExactly) {
  const std::string name = cpu_devices().front();
  OpenDevice on(name);
  for (bool packed : {false, true}) {
    for (int64_t len_q : {0, 1, 7, 20}) {
      for (int64_t len_k : {0, 1, 7, 33}) {
        for (int64_t left : {-1, 0, 3, 40}) {
          for (int64_t right : {-1, 0, 3, 40}) {
            Case c;
            c.dtype = packed ? GTN_BF16 : GTN_F32;
            c.packed = packed;
            c.batch = packed ? 1 : 3;
            if (packed) {
              c.lengths_q = {len_q};
              c.lengths_k = {len_k};
            }
            c.len_q = len_q;
            c.len_k = len_k;
            c.heads_q = 6;
            c.heads_k = 2;
            c.dk = 5;
            c.dv = 3;
            c.left = left;
            c.right = right;
            Problem p = make_problem(c);
            Result r = make_result(p);
            const gtn_attention_desc desc = describe(p, r.out);
            gtn_plan plan = 0;
            Message message;
            ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
            gtn_plan_info info = {};
            info.size = sizeof info;
            ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
            double pairs = 0;
            for (const Sequence& s : p.sequences) {
              for (int64_t i = 0; i < len_q; ++i) {
                for (int64_t j = 0; j < len_k; ++j) pairs += visible(c, s, i, j) ? 1 : 0;
              }
            }
            EXPECT_EQ(2.0 * pairs * 8 * 6, info.flops) << c.text();
            const double tokens_q = static_cast<double>(c.batch * len_q);
            const double tokens_k = static_cast<double>(c.batch * len_k);
            EXPECT_EQ((tokens_q * 6 * (5 + 3) + tokens_k * 2 * (5 + 3)) * (packed ? 2 : 4), info.bytes) << c.text();
            EXPECT_EQ(GTN_OP_ATTENTION, info.op);
            EXPECT_GT(info.workspace_bytes, 0);
            EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
          }
        }
      }
    }
  }
}

TEST(Attention, PlansOfAnyLengthAreMadeAtOnce) {
  OpenDevice on(cpu_devices().front());
  const int64_t keys = int64_t{1} << 40;  // all of them the same one in memory
  for (int64_t dilation : {1, 3}) {
    const gtn_attention_pattern pattern = {sizeof pattern, 0, -1, -1, dilation, 0};
    gtn_attention_desc desc = {};
    desc.size = sizeof desc;
    desc.scale = 1.0f;
    desc.q = tensor(GTN_F32, {1, 5, 2, 8});
    desc.out = desc.q;
    desc.k = tensor(GTN_F32, {1, 1, 2, 8});
    desc.k.shape[1] = keys;
    desc.k.strides[0] = desc.k.strides[1] = 0;
    desc.v = desc.k;
    desc.pattern_count = 1;
    desc.patterns = &pattern;
    gtn_plan plan = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
    gtn_plan_info info = {};
    info.size = sizeof info;
    ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
    EXPECT_GT(info.blocks, static_cast<double>(keys) / 3 / 4096);
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message));
  }
}

}  // namespace
}  // namespace gatun::test
