// The selection family against double precision.
//
// FP32 decides here what is greater, so what it may decide either way is worked out with the bound on its error; what
// follows from a decision that was written (orders, documents, lists) must follow exactly.
#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

#include "device_test.h"

namespace gatun::test {
namespace {

constexpr double u = kUnitRoundoffF32;
constexpr int32_t kSentinel = -77;
constexpr int64_t kLead = 3;  // elements of a buffer before and after what a run sees
constexpr int32_t kTypes[] = {GTN_F32, GTN_BF16, GTN_F16};

const char* name_of(int32_t dtype) { return dtype == GTN_F32 ? "f32" : dtype == GTN_BF16 ? "bf16" : "f16"; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Problem {
  int32_t kind = GTN_SELECT_BLOCKS, dtype = GTN_F32;
  bool packed = false;
  std::vector<int64_t> len_q = {1}, len_k = {1};  // of each sequence
  bool indexed = true;                            // batched: lengths come as arrays, else all are alike
  int64_t heads_q = 1, heads_k = 1, dk = 1;
  int64_t heads = 1, block_q = 1, block_k = 1, count = 1, first = 0, local = 0;
  bool causal = false;
  int32_t pool = GTN_POOL_MEAN;
  float scale = 0.25f;
  int64_t buckets = 4, layers = 2;
  uint64_t seed = 7;
  int64_t pad = 0;
  bool head_major = false;

  int64_t sequences() const { return static_cast<int64_t>(len_q.size()); }

  std::string text() const {
    char line[400];
    std::snprintf(line, sizeof line,
                  "select kind=%d %s%s heads=%lld/%lld lists=%lld dk=%lld blocks=%lldx%lld count=%lld first=%lld "
                  "local=%lld%s pool=%d scale=%g buckets=%lld layers=%lld seed=%llu%s pad=%lld lengths",
                  kind, name_of(dtype), packed ? " packed" : "", static_cast<long long>(heads_q),
                  static_cast<long long>(heads_k), static_cast<long long>(heads), static_cast<long long>(dk),
                  static_cast<long long>(block_q), static_cast<long long>(block_k), static_cast<long long>(count),
                  static_cast<long long>(first), static_cast<long long>(local), causal ? " causal" : "", pool,
                  static_cast<double>(scale), static_cast<long long>(buckets), static_cast<long long>(layers),
                  static_cast<unsigned long long>(seed), head_major ? " head major" : "", static_cast<long long>(pad));
    std::string result = line;
    for (size_t s = 0; s < len_q.size(); ++s) {
      std::snprintf(line, sizeof line, " %lld/%lld", static_cast<long long>(len_q[s]),
                    static_cast<long long>(len_k[s]));
      result += line;
    }
    return result;
  }
};

// Lengths of the plan: beyond what runs.
int64_t planned(const Problem& p, const std::vector<int64_t>& lengths) {
  int64_t most = 0, sum = 0;
  for (int64_t length : lengths) {
    most = std::max(most, length);
    sum += length;
  }
  return (p.packed ? sum : most) + 3;
}

gtn_tensor_desc describe(const Problem& p, int64_t length, int64_t heads) {
  const int64_t row = p.dk + p.pad;
  gtn_tensor_desc desc =
      p.packed ? tensor(p.dtype, {length, heads, p.dk}) : tensor(p.dtype, {p.sequences() + 1, length, heads, p.dk});
  const int at = p.packed ? 0 : 1;
  if (!p.packed) desc.strides[0] = length * heads * row;
  desc.strides[at] = p.head_major ? row : heads * row;
  desc.strides[at + 1] = p.head_major ? length * row : row;
  return desc;
}

gtn_select_desc describe(const Problem& p) {
  gtn_select_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = p.kind;
  desc.q = describe(p, planned(p, p.len_q), p.heads_q);
  desc.k = describe(p, planned(p, p.len_k), p.heads_k);
  desc.max_sequences = p.sequences() + 1;
  desc.heads = p.heads;
  desc.block_q = p.block_q;
  desc.block_k = p.block_k;
  desc.count = p.count;
  desc.first = p.first;
  desc.local = p.local;
  desc.causal = p.causal;
  if (p.kind == GTN_SELECT_BLOCKS) {
    desc.pool = p.pool;
    desc.scale = p.scale;
  } else {
    desc.buckets = p.buckets;
    desc.layers = p.layers;
    desc.seed = p.seed;
  }
  return desc;
}

struct Data {
  Buffer q, k;
  explicit Data(const Problem& p) : q(p.dtype, size(p, p.len_q, p.heads_q)), k(p.dtype, size(p, p.len_k, p.heads_k)) {}
  static int64_t size(const Problem& p, const std::vector<int64_t>& lengths, int64_t heads) {
    return 2 * kLead + (p.packed ? 1 : p.sequences() + 1) * planned(p, lengths) * heads * (p.dk + p.pad);
  }
  void randomize(uint64_t seed, float deviation = 1.0f) {
    std::mt19937_64 random(seed);
    q.fill_normal(random, deviation);
    k.fill_normal(random, deviation);
  }
};

// Where position i of sequence s starts among those of all sequences.
int64_t start_of(const Problem& p, const std::vector<int64_t>& lengths, int64_t s) {
  int64_t start = 0;
  for (int64_t i = 0; p.packed && i < s; ++i) start += lengths[static_cast<size_t>(i)];
  return start;
}

int64_t at(const Problem& p, const std::vector<int64_t>& lengths, int64_t heads, int64_t s, int64_t i, int64_t head) {
  const gtn_tensor_desc desc = describe(p, planned(p, lengths), heads);
  const int64_t* strides = desc.strides;
  if (p.packed) return kLead + (start_of(p, lengths, s) + i) * strides[0] + head * strides[1];
  return kLead + s * strides[0] + i * strides[1] + head * strides[2];
}
int64_t q_at(const Problem& p, int64_t s, int64_t i, int64_t head) { return at(p, p.len_q, p.heads_q, s, i, head); }
int64_t k_at(const Problem& p, int64_t s, int64_t j, int64_t head) { return at(p, p.len_k, p.heads_k, s, j, head); }

std::vector<double> row(const Buffer& from, int64_t first, int64_t dk) {
  std::vector<double> result(static_cast<size_t>(dk));
  for (int64_t d = 0; d < dk; ++d) result[static_cast<size_t>(d)] = static_cast<double>(from.get(first + d));
  return result;
}
std::vector<double> q_row(const Problem& p, const Data& data, int64_t s, int64_t i, int64_t head) {
  return row(data.q, q_at(p, s, i, head), p.dk);
}
std::vector<double> k_row(const Problem& p, const Data& data, int64_t s, int64_t j, int64_t head) {
  return row(data.k, k_at(p, s, j, head), p.dk);
}

struct Result {
  std::vector<int64_t> offsets;
  std::vector<int32_t> columns, q_order, k_order, q_documents, k_documents;
  std::vector<float> biases;

  bool operator==(const Result& o) const {
    return offsets == o.offsets && columns == o.columns && q_order == o.q_order && k_order == o.k_order &&
           q_documents == o.q_documents && k_documents == o.k_documents &&
           biases.size() == o.biases.size() &&
           (biases.empty() || std::memcmp(biases.data(), o.biases.data(), biases.size() * 4) == 0);
  }
};

int64_t lists_of(const Problem& p) { return ceil_div(planned(p, p.len_q), p.block_q); }

template <typename T>
std::vector<T> filled(bool wanted, int64_t count) {
  return std::vector<T>(wanted ? static_cast<size_t>(count) + 2 : 0, static_cast<T>(kSentinel));
}

template <typename T>
T* memory(std::vector<T>& values) {
  return values.empty() ? nullptr : values.data() + 1;
}

Result run(OpenDevice& on, const Problem& p, const Data& data) {
  Message message;
  const gtn_select_desc desc = describe(p);
  const bool lsh = p.kind == GTN_SELECT_LSH;
  const int64_t lists = p.sequences() * p.heads * lists_of(p), each = p.packed ? 1 : p.sequences();
  const int64_t lq = planned(p, p.len_q), lk = planned(p, p.len_k);
  Result r;
  r.offsets = filled<int64_t>(true, lists + 1);
  r.columns = filled<int32_t>(true, lists * p.count);
  r.biases = filled<float>(p.kind == GTN_SELECT_RETRIEVAL, lists * p.count);
  r.q_order = filled<int32_t>(lsh, each * p.heads_q * lq);
  r.k_order = filled<int32_t>(lsh, each * p.heads_q * lk);
  r.q_documents = filled<int32_t>(lsh, each * p.layers * p.heads_q * lq);
  r.k_documents = filled<int32_t>(lsh, each * p.layers * p.heads_q * lk);
  std::vector<int64_t> q_index, k_index;
  int64_t len_q = 0, len_k = 0;
  if (p.packed) q_index = k_index = {0};
  for (size_t s = 0; s < p.len_q.size(); ++s) {
    len_q = p.packed ? len_q + p.len_q[s] : std::max(len_q, p.len_q[s]);
    len_k = p.packed ? len_k + p.len_k[s] : std::max(len_k, p.len_k[s]);
    q_index.push_back(p.packed ? len_q : p.len_q[s]);
    k_index.push_back(p.packed ? len_k : p.len_k[s]);
  }
  const bool index = p.packed || p.indexed;
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_select_plan(on.device, &desc, &plan, &message)) << p.text() << ": " << message.text;
  const auto lead = [](const Buffer& buffer) {
    return static_cast<const char*>(buffer.data()) + kLead * Buffer::element_size(buffer.dtype());
  };
  EXPECT_EQ(GTN_OK, gtn_select_run(plan, on.stream, p.sequences(), len_q, len_k, index ? q_index.data() : nullptr,
                                   index ? k_index.data() : nullptr, lead(data.q), lead(data.k), memory(r.offsets),
                                   memory(r.columns), memory(r.biases), memory(r.q_order), memory(r.k_order),
                                   memory(r.q_documents), memory(r.k_documents)))
      << p.text() << ": " << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  return r;
}

// ---- What a list may be ---------------------------------------------------------------------------------------------

// One list of a result.
struct List {
  int64_t s, head, block, first, last;  // entries
};

// Offsets, the order of columns and what must not be written; then `check` for each list.
template <typename Check>
void check_lists(const Problem& p, const Result& r, Check check) {
  const int64_t lists = lists_of(p);
  const int64_t* offsets = r.offsets.data() + 1;
  ASSERT_EQ(0, offsets[0]) << p.text();
  for (int64_t s = 0; s < p.sequences(); ++s) {
    for (int64_t head = 0; head < p.heads; ++head) {
      for (int64_t block = 0; block < lists; ++block) {
        const int64_t list = (s * p.heads + head) * lists + block, first = offsets[list], last = offsets[list + 1];
        ASSERT_LE(first, last) << p.text() << " list " << list;
        ASSERT_LE(last - first, p.count) << p.text() << " list " << list;
        if (block * p.block_q >= p.len_q[static_cast<size_t>(s)]) {
          ASSERT_EQ(first, last) << p.text() << " list " << list;
          continue;
        }
        const int64_t blocks = ceil_div(p.len_k[static_cast<size_t>(s)], p.block_k);
        for (int64_t e = first; e < last; ++e) {
          const int32_t column = r.columns[static_cast<size_t>(e + 1)];
          ASSERT_TRUE(column >= 0 && column < blocks)
              << p.text() << " list " << list << " entry " << e << ": " << column;
          if (e > first) {
            ASSERT_LT(r.columns[static_cast<size_t>(e)], column) << p.text() << " list " << list;
          }
        }
        check(List{s, head, block, first, last});
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
  const int64_t entries = offsets[p.sequences() * p.heads * lists];
  for (size_t e = static_cast<size_t>(entries) + 1; e < r.columns.size(); ++e) {
    ASSERT_EQ(kSentinel, r.columns[e]) << p.text() << ": entry beyond the last offset";
    if (!r.biases.empty()) {
      ASSERT_EQ(static_cast<float>(kSentinel), r.biases[e]) << p.text();
    }
  }
  ASSERT_EQ(kSentinel, r.offsets.front()) << p.text();
  ASSERT_EQ(kSentinel, r.offsets.back()) << p.text();
  ASSERT_EQ(kSentinel, r.columns.front()) << p.text();
}

std::set<int64_t> columns_of(const Result& r, const List& list) {
  return {r.columns.begin() + list.first + 1, r.columns.begin() + list.last + 1};
}

// ---- Blocks
// ----------------------------------------------------------------------------------------------------------

// Blocks that begin at or before the position of query i.
int64_t reachable(const Problem& p, int64_t s, int64_t i) {
  const int64_t len_q = p.len_q[static_cast<size_t>(s)], len_k = p.len_k[static_cast<size_t>(s)];
  const int64_t blocks = ceil_div(len_k, p.block_k);
  if (!p.causal) return blocks;
  const int64_t position = i + len_k - len_q;
  return position < 0 ? 0 : std::min(position / p.block_k + 1, blocks);
}

// Importance of blocks, each with the bound on its error.
//
// A mean of n keys is off by n u of the mean of their magnitudes (n - 1 additions, a division), a product by (depth +
// 1) u of the sum of magnitudes, and the scale rounds: that is the error `delta` of a logit. A weight is an
// exponential, good to 2.4 u, of a difference rounded once, divided by a sum of such; so it is off, of itself, by twice
// the greatest delta and spread of logits, and a rounding for each addition. Importances add up, a rounding each.
void importances(const Problem& p, const Data& data, const List& list, std::vector<double>* value,
                 std::vector<double>* error) {
  const int64_t len_k = p.len_k[static_cast<size_t>(list.s)], len_q = p.len_q[static_cast<size_t>(list.s)];
  const int64_t blocks = ceil_div(len_k, p.block_k), group = p.heads_q / p.heads;
  const int64_t key_head = list.head * group / (p.heads_q / p.heads_k);
  const bool bounds = p.pool == GTN_POOL_BOUNDS;
  const size_t dk = static_cast<size_t>(p.dk);
  // The mean, or least and greatest; and the mean or greatest magnitude.
  std::vector<std::vector<double>> low(static_cast<size_t>(blocks)), high(low), size(low);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * p.block_k, n = std::min(p.block_k, len_k - first);
    auto &l = low[static_cast<size_t>(b)], &h = high[static_cast<size_t>(b)], &m = size[static_cast<size_t>(b)];
    l.assign(dk, bounds ? INFINITY : 0.0);
    h.assign(dk, -INFINITY);
    m.assign(dk, 0.0);
    for (int64_t j = first; j < first + n; ++j) {
      const std::vector<double> key = k_row(p, data, list.s, j, key_head);
      for (size_t d = 0; d < dk; ++d) {
        l[d] = bounds ? std::min(l[d], key[d]) : l[d] + key[d] / static_cast<double>(n);
        h[d] = std::max(h[d], key[d]);
        m[d] = bounds ? std::max(m[d], std::fabs(key[d])) : m[d] + std::fabs(key[d]) / static_cast<double>(n);
      }
    }
  }
  value->assign(static_cast<size_t>(blocks), 0.0);
  error->assign(static_cast<size_t>(blocks), 0.0);
  const double roundings = static_cast<double>(bounds ? 2 * p.dk : p.dk + p.block_k) + 3.0;
  for (int64_t i = list.block * p.block_q; i < std::min((list.block + 1) * p.block_q, len_q); ++i) {
    for (int64_t g = 0; g < group; ++g) {
      const std::vector<double> q = q_row(p, data, list.s, i, list.head * group + g);
      const size_t some = static_cast<size_t>(reachable(p, list.s, i));
      std::vector<double> logit(some);
      double delta = 0.0, most = -INFINITY, least = INFINITY, sum = 0.0;
      for (size_t b = 0; b < some; ++b) {
        double product = 0.0, magnitude = 0.0;
        for (size_t d = 0; d < dk; ++d) {
          product += bounds ? std::max(q[d] * low[b][d], q[d] * high[b][d]) : q[d] * low[b][d];
          magnitude += std::fabs(q[d]) * size[b][d];
        }
        const double scale = static_cast<double>(p.scale);
        logit[b] = scale * product;
        delta = std::max(delta, std::fabs(scale) * (1.001 * roundings * u * magnitude) + 0x1p-140);
        most = std::max(most, logit[b]);
        least = std::min(least, logit[b]);
      }
      for (size_t b = 0; b < some; ++b) sum += std::exp(logit[b] - most);
      const double relative =
          2.0 * (delta + u * std::min(most - least + 2.0 * delta, 105.0)) + (static_cast<double>(some) + 8.0) * u;
      for (size_t b = 0; b < some; ++b) {
        const double weight = std::exp(logit[b] - most) / sum;
        (*value)[b] += weight;
        (*error)[b] += weight * std::expm1(relative) + 0x1p-120;
      }
    }
  }
  const double rows = static_cast<double>(p.block_q * group);
  for (size_t b = 0; b < value->size(); ++b) (*error)[b] += rows * u * (*value)[b];
}

void check_blocks(const Problem& p, const Data& data, const Result& r) {
  check_lists(p, r, [&](const List& list) {
    const int64_t last_query = std::min((list.block + 1) * p.block_q, p.len_q[static_cast<size_t>(list.s)]) - 1;
    const int64_t blocks = reachable(p, list.s, last_query);
    const std::set<int64_t> chosen = columns_of(r, list);
    const std::string where = p.text() + " sequence " + std::to_string(list.s) + " head " + std::to_string(list.head) +
                              " block " + std::to_string(list.block);
    ASSERT_EQ(std::min(p.count, blocks), static_cast<int64_t>(chosen.size())) << where;
    const int64_t first = std::min(p.first, blocks), local = std::min(p.local, blocks - first);
    std::vector<double> value, error;
    importances(p, data, list, &value, &error);
    double weakest = INFINITY;
    for (int64_t b : chosen) {
      ASSERT_LT(b, blocks) << where;
      const size_t i = static_cast<size_t>(b);
      if (b >= first && b < blocks - local) weakest = std::min(weakest, value[i] + error[i]);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (chosen.count(b) > 0) continue;
      ASSERT_TRUE(b >= first && b < blocks - local) << where << ": block " << b << " has its place";
      const size_t i = static_cast<size_t>(b);
      ASSERT_LE(value[i] - error[i], weakest) << where << ": block " << b << " is left out";
    }
  });
}

// ---- Hashing
// ---------------------------------------------------------------------------------------------------------

uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double rotation(const Problem& p, int64_t layer, int64_t head, int64_t d, int64_t b, int64_t columns) {
  const uint64_t base = mix(mix(mix(p.seed) + static_cast<uint64_t>(layer)) + static_cast<uint64_t>(head));
  return (__builtin_popcountll(mix(base + static_cast<uint64_t>(d * columns + b))) - 32) / 4.0;
}

// Products with all columns, and the bound on their errors: `factor` u of the sum of magnitudes.
void products(const Problem& p, const std::vector<double>& x, int64_t layer, int64_t head, int64_t columns,
              double factor, std::vector<double>* value, std::vector<double>* error) {
  value->assign(static_cast<size_t>(columns), 0.0);
  error->assign(static_cast<size_t>(columns), 0.0);
  for (int64_t b = 0; b < columns; ++b) {
    double sum = 0.0, magnitude = 0.0;
    for (int64_t d = 0; d < p.dk; ++d) {
      const double term = x[static_cast<size_t>(d)] * rotation(p, layer, head, d, b, columns);
      sum += term;
      magnitude += std::fabs(term);
    }
    (*value)[static_cast<size_t>(b)] = sum;
    (*error)[static_cast<size_t>(b)] = factor * u * magnitude;
  }
}

// Labels of one side: each the argmax, within the error, and orders that follow from them. `documents` and `order`
// start after what is before the output.
void check_labels(const Problem& p, const Data& data, const std::vector<int32_t>& documents,
                  const std::vector<int32_t>& order, bool keys) {
  const std::vector<int64_t>& lengths = keys ? p.len_k : p.len_q;
  const int64_t length = planned(p, lengths), columns = p.buckets / 2;
  std::vector<bool> labelled(documents.size()), ordered(order.size());
  for (int64_t s = 0; s < p.sequences(); ++s) {
    const int64_t n = lengths[static_cast<size_t>(s)], start = start_of(p, lengths, s), each = p.packed ? 0 : s;
    for (int64_t head = 0; head < p.heads_q; ++head) {
      // Labels from that of the last layer back, as far as they count, and the position.
      std::vector<std::pair<std::vector<int32_t>, int32_t>> expected;
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<double> x =
            keys ? k_row(p, data, s, i, head / (p.heads_q / p.heads_k)) : q_row(p, data, s, i, head);
        for (int64_t layer = 0; layer < p.layers; ++layer) {
          const size_t place =
              static_cast<size_t>(((each * p.layers + layer) * p.heads_q + head) * length + start + i + 1);
          labelled[place] = true;
          const int32_t label = documents[place];
          ASSERT_TRUE(label >= 0 && label < p.buckets) << p.text() << ": label " << label;
          if (layer == 0) expected.push_back({{}, static_cast<int32_t>(i)});
          if (layer == p.layers - 1 || (!keys && !p.causal)) {
            std::vector<int32_t>& labels = expected.back().first;
            labels.insert(labels.begin(), label);
          }
          std::vector<double> value, error;
          products(p, x, layer, head, columns, static_cast<double>(p.dk) + 1.0, &value, &error);
          if (std::isnan(value[0])) continue;
          const size_t own = static_cast<size_t>(label % columns);
          const double best = label < columns ? value[own] : -value[own];
          for (int64_t other = 0; other < p.buckets; ++other) {
            const size_t b = static_cast<size_t>(other % columns);
            const double product = other < columns ? value[b] : -value[b], slack = 1.001 * (error[own] + error[b]);
            ASSERT_LE(product - slack, best) << p.text() << (keys ? " key " : " query ") << i << " head " << head
                                             << " layer " << layer << ": label " << label << ", expected " << other;
            if (slack == 0.0 && product == best) {
              ASSERT_LE(label, other) << p.text() << ": of equal products the lower";
            }
          }
        }
      }
      std::sort(expected.begin(), expected.end());
      for (int64_t i = 0; i < n; ++i) {
        const size_t place = static_cast<size_t>((each * p.heads_q + head) * length + start + i + 1);
        ordered[place] = true;
        ASSERT_EQ(expected[static_cast<size_t>(i)].second, order[place])
            << p.text() << " head " << head << " slot " << i;
      }
    }
  }
  for (size_t i = 0; i < documents.size(); ++i) {
    if (!labelled[i]) {
      ASSERT_EQ(kSentinel, documents[i]) << p.text() << ": documents beyond a sequence";
    }
  }
  for (size_t i = 0; i < order.size(); ++i) {
    if (!ordered[i]) {
      ASSERT_EQ(kSentinel, order[i]) << p.text() << ": orders beyond a sequence";
    }
  }
}

void check_lsh(const Problem& p, const Data& data, const Result& r) {
  check_labels(p, data, r.q_documents, r.q_order, false);
  check_labels(p, data, r.k_documents, r.k_order, true);
  if (testing::Test::HasFatalFailure()) return;
  const int64_t lq = planned(p, p.len_q), lk = planned(p, p.len_k);
  check_lists(p, r, [&](const List& list) {
    const int64_t len_q = p.len_q[static_cast<size_t>(list.s)], len_k = p.len_k[static_cast<size_t>(list.s)];
    const int64_t each = p.packed ? 0 : list.s, layer = each * p.layers + p.layers - 1;
    const int32_t* q_order =
        &r.q_order[static_cast<size_t>((each * p.heads_q + list.head) * lq + start_of(p, p.len_q, list.s) + 1)];
    const int32_t* k_order =
        &r.k_order[static_cast<size_t>((each * p.heads_q + list.head) * lk + start_of(p, p.len_k, list.s) + 1)];
    const int32_t* q_labels =
        &r.q_documents[static_cast<size_t>((layer * p.heads_q + list.head) * lq + start_of(p, p.len_q, list.s) + 1)];
    const int32_t* k_labels =
        &r.k_documents[static_cast<size_t>((layer * p.heads_q + list.head) * lk + start_of(p, p.len_k, list.s) + 1)];
    const int64_t first = list.block * p.block_q, last = std::min(first + p.block_q, len_q) - 1;
    std::set<int64_t> shared;
    for (int64_t slot = first; slot <= last; ++slot) {
      const int32_t query = q_order[slot];
      for (int64_t t = 0; t < len_k; ++t) {
        const bool seen = !p.causal || k_order[t] <= query + len_k - len_q;
        if (seen && q_labels[query] == k_labels[k_order[t]]) shared.insert(t / p.block_k);
      }
    }
    // The block of the last key that sorts up to the middle query.
    const int32_t middle = q_order[(first + last) / 2];
    int64_t centre = 0;
    for (int64_t t = 0; t < len_k; ++t) {
      if (std::make_pair(static_cast<int64_t>(k_labels[k_order[t]]), static_cast<int64_t>(k_order[t])) <=
          std::make_pair(static_cast<int64_t>(q_labels[middle]), middle + len_k - len_q)) {
        centre = t / p.block_k;
      }
    }
    std::vector<std::pair<int64_t, int64_t>> nearest;
    for (int64_t b : shared) nearest.push_back({std::abs(b - centre), b});
    std::sort(nearest.begin(), nearest.end());
    std::set<int64_t> expected;
    for (size_t i = 0; i < std::min(nearest.size(), static_cast<size_t>(p.count)); ++i)
      expected.insert(nearest[i].second);
    ASSERT_EQ(expected, columns_of(r, list))
        << p.text() << " sequence " << list.s << " head " << list.head << " block " << list.block;
  });
}

// ---- Retrieval
// -------------------------------------------------------------------------------------------------------

// -log of the probability of two shared codes or more at a cosine.
double expected_bias(const Problem& p, double cosine, int64_t bits) {
  const double clamped = std::min(1.0, std::max(-1.0 + 0x1p-24, cosine));
  const long double x =
      std::pow(1.0L - std::acos(static_cast<long double>(clamped)) / std::acos(-1.0L), static_cast<long double>(bits));
  const long double tables = static_cast<long double>(p.layers);
  if (x < 1e-9L) return static_cast<double>(-std::log(tables * (tables - 1) / 2) - 2 * std::log(x));
  return static_cast<double>(-std::log(-std::expm1((tables - 1) * std::log1p(-x) + std::log1p((tables - 1) * x))));
}

struct Vector {
  std::vector<double> x;
  double length = 0.0, mean_error = 0.0;
  bool finite = true;
  std::vector<uint32_t> code, unsure;  // of each table: bits, and which of them FP32 may see otherwise
};

// A unit vector is off by 4 u of each element and by what its subtrahend is off by; a product adds (dk + 1) u.
Vector vector_of(const Problem& p, std::vector<double> x, const std::vector<double>& mean_error, int64_t head,
                 int64_t bits) {
  Vector v;
  v.x = std::move(x);
  for (size_t d = 0; d < v.x.size(); ++d) {
    v.finite = v.finite && std::isfinite(v.x[d]);
    v.length += v.x[d] * v.x[d];
    v.mean_error += mean_error[d] * mean_error[d];
  }
  v.length = std::sqrt(v.length);
  v.mean_error = std::sqrt(v.mean_error);
  for (int64_t table = 0; table < p.layers; ++table) {
    std::vector<double> value, error;
    products(p, v.x, table, head, bits, static_cast<double>(p.dk) + 6.0, &value, &error);
    uint32_t code = 0, unsure = 0;
    for (int64_t b = 0; b < bits; ++b) {
      double slack = 1.001 * error[static_cast<size_t>(b)] + 0x1p-60 * v.length;
      for (size_t d = 0; d < v.x.size(); ++d) {
        slack += mean_error[d] * std::fabs(rotation(p, table, head, static_cast<int64_t>(d), b, bits));
      }
      if (value[static_cast<size_t>(b)] > 0) code |= 1u << b;
      if (v.length > 0 && std::fabs(value[static_cast<size_t>(b)]) <= slack) unsure |= 1u << b;
    }
    v.code.push_back(code);
    v.unsure.push_back(unsure);
  }
  return v;
}

void check_retrieval(const Problem& p, const Data& data, const Result& r) {
  const int64_t bits = __builtin_ctzll(static_cast<uint64_t>(p.buckets));
  const size_t dk = static_cast<size_t>(p.dk);
  const std::vector<double> exact(dk, 0.0);
  std::vector<Vector> keys;
  int64_t of_s = -1, of_head = -1;
  check_lists(p, r, [&](const List& list) {
    const int64_t len_q = p.len_q[static_cast<size_t>(list.s)], len_k = p.len_k[static_cast<size_t>(list.s)];
    if (of_s != list.s || of_head != list.head) {
      of_s = list.s;
      of_head = list.head;
      std::vector<std::vector<double>> rows;
      std::vector<double> mean(dk, 0.0), size(dk, 0.0), mean_error(dk, 0.0);
      for (int64_t j = 0; j < len_k; ++j) {
        rows.push_back(k_row(p, data, list.s, j, list.head / (p.heads_q / p.heads_k)));
        for (size_t d = 0; d < dk; ++d) {
          mean[d] += rows.back()[d] / static_cast<double>(len_k);
          size[d] += std::fabs(rows.back()[d]) / static_cast<double>(len_k);
        }
      }
      // Sums of at most 256 keys, and a rounding of the mean.
      for (size_t d = 0; d < dk; ++d) mean_error[d] = 1.001 * 260.0 * u * size[d];
      keys.clear();
      for (auto& x : rows) {
        for (size_t d = 0; d < dk; ++d) x[d] -= mean[d];
        keys.push_back(vector_of(p, x, mean_error, list.head, bits));
      }
    }
    const Vector query = vector_of(p, q_row(p, data, list.s, list.block, list.head), exact, list.head, bits);
    const int64_t visible = p.causal ? std::clamp<int64_t>(list.block + len_k - len_q + 1, 0, len_k) : len_k;
    const int64_t first = std::min(p.first, visible), local = std::min(p.local, visible - first);
    const int64_t room = p.count - first - local;
    const std::string where = p.text() + " sequence " + std::to_string(list.s) + " head " + std::to_string(list.head) +
                              " query " + std::to_string(list.block);
    // The most that a chosen and the fewest that a left out key can share, with their positions.
    std::pair<int64_t, int64_t> weakest = {INT64_MAX, 0}, strongest = {-1, 0};
    int64_t entry = list.first, sampled = 0;
    for (int64_t j = 0; j < len_k; ++j) {
      const bool chosen = entry < list.last && r.columns[static_cast<size_t>(entry + 1)] == j;
      const float bias = chosen ? r.biases[static_cast<size_t>(entry + 1)] : 0.0f;
      entry += chosen;
      if (j < first || (j >= visible - local && j < visible)) {
        ASSERT_TRUE(chosen) << where << ": key " << j << " has its place";
        ASSERT_EQ(0.0f, bias) << where << ": key " << j;
        continue;
      }
      const Vector& key = keys[static_cast<size_t>(j)];
      if (j >= visible || !query.finite || !key.finite) {
        ASSERT_FALSE(chosen) << where << ": key " << j << " cannot be seen";
        continue;
      }
      int64_t sure = 0, possible = 0;
      for (size_t t = 0; t < query.code.size(); ++t) {
        const uint32_t unsure = query.unsure[t] | key.unsure[t];
        if (((query.code[t] ^ key.code[t]) & ~unsure) != 0) continue;
        ++possible;
        sure += unsure == 0;
      }
      if (!chosen) {
        if (sure >= 2) strongest = std::max(strongest, {sure, j});
        continue;
      }
      ++sampled;
      ASSERT_GE(possible, 2) << where << ": key " << j << " shares no two codes";
      weakest = std::min(weakest, {possible, j});
      double product = 0.0;
      for (size_t d = 0; d < dk; ++d) product += query.x[d] * key.x[d];
      double cosine = 0.0, slack = 0.0;
      if (query.length > 0 && key.length > 0) {
        cosine = product / query.length / key.length;
        slack = (2.0 * static_cast<double>(p.dk) + 16.0) * u + 2.0 * key.mean_error / key.length;
      }
      const double most = expected_bias(p, cosine - slack, bits), least = expected_bias(p, cosine + slack, bits);
      ASSERT_LE(static_cast<double>(bias), most * (1 + 2 * u) + 1e-7)
          << where << ": key " << j << " at cosine " << cosine;
      ASSERT_GE(static_cast<double>(bias), least * (1 - 2 * u) - 1e-7)
          << where << ": key " << j << " at cosine " << cosine;
    }
    if (strongest.first >= 0) {
      ASSERT_EQ(room, sampled) << where << ": key " << strongest.second << " is left out";
      ASSERT_LT(strongest, weakest) << where << ": key " << strongest.second << " is left out";
    }
  });
}

void check(OpenDevice& on, const Problem& p, const Data& data) {
  const Data before = data;
  const Result r = run(on, p, data);
  if (testing::Test::HasFailure()) return;
  switch (p.kind) {
    case GTN_SELECT_BLOCKS: return check_blocks(p, data, r);
    case GTN_SELECT_LSH: return check_lsh(p, data, r);
    default: return check_retrieval(p, data, r);
  }
}

// ---- Tests
// -----------------------------------------------------------------------------------------------------------

Problem random_problem(int32_t kind, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto one_of = [&](std::initializer_list<int64_t> values) { return values.begin()[random() % values.size()]; };
  Problem p;
  p.kind = kind;
  p.dtype = kTypes[random() % 3];
  p.packed = random() % 3 == 0;
  p.len_q.clear();
  p.len_k.clear();
  const int64_t sequences = one_of({0, 1, 1, 2, 3});
  p.indexed = random() % 2;
  for (int64_t s = 0; s < sequences; ++s) {
    const bool alike = !p.packed && !p.indexed && s > 0;
    p.len_q.push_back(alike ? p.len_q[0] : one_of({0, 1, 2, 5, 16, 17, 31, 40}));
    p.len_k.push_back(alike ? p.len_k[0] : one_of({0, 1, 3, 15, 16, 33, 40, 64, 100}));
  }
  p.heads_k = one_of({1, 1, 2});
  p.heads_q = p.heads_k * one_of({1, 2, 3});
  p.dk = one_of({1, 3, 7, 8, 16, 17, 33, 64});
  p.causal = random() % 2;
  p.heads = kind == GTN_SELECT_BLOCKS && random() % 2 ? p.heads_k : p.heads_q;
  if (kind != GTN_SELECT_RETRIEVAL) {
    p.block_q = one_of({1, 2, 7, 16, 64});
    p.block_k = one_of({1, 3, 8, 16, 200});
  }
  p.count = one_of({1, 2, 3, 4, 9, 30, 200});
  if (kind != GTN_SELECT_LSH) {
    p.first = std::min(p.count, one_of({0, 0, 1, 2}));
    p.local = std::min(p.count - p.first, one_of({0, 0, 1, 3}));
  }
  p.pool = random() % 2 ? GTN_POOL_MEAN : GTN_POOL_BOUNDS;
  p.scale = static_cast<float>(one_of({-1, 0, 1, 4})) * 0.125f;
  p.buckets = kind == GTN_SELECT_LSH ? one_of({2, 4, 6, 10, 34, 600}) : one_of({2, 4, 8, 16, 64});
  p.layers = kind == GTN_SELECT_LSH ? one_of({1, 2, 5}) : one_of({2, 3, 10, 17});
  p.seed = random();
  p.pad = random() % 2 ? 0 : 5;
  p.head_major = random() % 2;
  return p;
}

void check_random(int32_t kind, uint64_t problems) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (uint64_t seed = 1; seed <= problems; ++seed) {
      SCOPED_TRACE(name + " seed=" + std::to_string(seed));
      const Problem p = random_problem(kind, seed);
      Data data(p);
      data.randomize(seed);
      check(on, p, data);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(Select, BlocksByImportance) { check_random(GTN_SELECT_BLOCKS, 400); }
TEST(Select, LshByLabels) { check_random(GTN_SELECT_LSH, 300); }
TEST(Select, RetrievalByCodes) { check_random(GTN_SELECT_RETRIEVAL, 200); }

// More of everything than a tile, a strip of columns, a round of lists and a chunk of a mean take.
TEST(Select, LargeSizes) {
  for (const std::string& name : cpu_devices()) {
    SCOPED_TRACE(name);
    OpenDevice on(name);
    Problem p;
    p.len_q = {700};
    p.len_k = {1100};
    p.heads_q = 2;
    p.heads = 2;
    p.dk = 20;
    p.causal = true;
    p.count = 37;
    p.first = 1;
    p.local = 2;
    p.block_k = 2;
    Data data(p);
    data.randomize(3);
    check(on, p, data);
    if (testing::Test::HasFailure()) return;
    p.kind = GTN_SELECT_LSH;
    p.first = p.local = 0;
    p.block_q = 16;
    p.buckets = 1200;
    check(on, p, data);
    p.buckets = 8;
    check(on, p, data);
    if (testing::Test::HasFailure()) return;
    p.kind = GTN_SELECT_RETRIEVAL;
    p.first = 4;
    p.local = 5;
    p.block_q = p.block_k = 1;
    p.len_q = {60};
    p.buckets = 32;
    p.layers = 40;
    Data fewer(p);
    fewer.randomize(4);
    check(on, p, fewer);
    p.count = 1000;
    check(on, p, fewer);
    if (testing::Test::HasFailure()) return;
  }
}

// A group of more query heads than a call of the kernel takes.
TEST(Select, ManyHeadsShareAList) {
  for (const std::string& name : cpu_devices()) {
    SCOPED_TRACE(name);
    OpenDevice on(name);
    Problem p;
    p.heads_q = 62;
    p.heads_k = 2;
    p.heads = 2;
    p.dk = 12;
    p.len_q = {3};
    p.len_k = {90};
    p.block_k = 4;
    p.count = 5;
    Data data(p);
    data.randomize(5);
    check(on, p, data);
  }
}

// Equal importance: the lower blocks, whichever lane or panel they are in.
TEST(Select, EqualBlocksLowerFirst) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t pool : {GTN_POOL_MEAN, GTN_POOL_BOUNDS}) {
      Problem p;
      p.dk = 9;
      p.len_q = {4};
      p.len_k = {150};
      p.block_q = 4;
      p.count = 7;
      p.local = 2;
      p.pool = pool;
      Data data(p);
      data.randomize(6);
      for (int64_t j = 0; j < 150; ++j) {
        for (int64_t d = 0; d < p.dk; ++d) data.k.set(k_at(p, 0, j, 0) + d, data.k.get(k_at(p, 0, 0, 0) + d));
      }
      const Result r = run(on, p, data);
      EXPECT_EQ((std::vector<int32_t>{0, 1, 2, 3, 4, 148, 149}),
                std::vector<int32_t>(r.columns.begin() + 1, r.columns.begin() + 8))
          << name;
    }
  }
}

// By hand: queries e0 and e1, and keys of which block 2 points along e0 and block 1 along e1.
TEST(Select, BlocksByHand) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Problem p;
    p.dk = 2;
    p.len_q = {2};
    p.len_k = {6};
    p.block_k = 2;
    p.scale = 1.0f;
    Data data(p);
    data.q.fill(0.0f);
    data.k.fill(0.0f);
    data.q.set(q_at(p, 0, 0, 0), 1.0f);
    data.q.set(q_at(p, 0, 1, 0) + 1, 1.0f);
    for (int64_t j : {4, 5}) data.k.set(k_at(p, 0, j, 0), 2.0f);
    for (int64_t j : {2, 3}) data.k.set(k_at(p, 0, j, 0) + 1, 2.0f);
    Result r = run(on, p, data);
    EXPECT_EQ((std::vector<int32_t>{2, 1}), std::vector<int32_t>(r.columns.begin() + 1, r.columns.begin() + 3)) << name;
    // One strong key in a block is what bounds see and means do not.
    data.k.set(k_at(p, 0, 0, 0), 5.0f);
    data.k.set(k_at(p, 0, 1, 0), -5.0f);
    p.pool = GTN_POOL_BOUNDS;
    r = run(on, p, data);
    EXPECT_EQ(0, r.columns[1]) << name;
  }
}

// The first numbers of the rotations, which other backends must make as well: entry (d, b) of layer 0, head 0, seed 1.
TEST(Select, LabelsByHand) {
  Problem p;
  p.kind = GTN_SELECT_LSH;
  p.dk = 2;
  p.buckets = 4;
  p.layers = 1;
  p.seed = 1;
  p.len_q = {3};
  p.len_k = {3};
  p.block_q = p.block_k = 4;
  // x R with x = e0 is the first row of R.
  const double first = rotation(p, 0, 0, 0, 0, 2), second = rotation(p, 0, 0, 0, 1, 2);
  ASSERT_NE(std::fabs(first), std::fabs(second));
  const int32_t best = std::fabs(first) > std::fabs(second) ? (first > 0 ? 0 : 2) : second > 0 ? 1 : 3;
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    Data data(p);
    data.q.fill(0.0f);
    data.k.fill(0.0f);
    data.q.set(q_at(p, 0, 0, 0), 1.0f);
    data.q.set(q_at(p, 0, 1, 0), -1.0f);
    const Result r = run(on, p, data);
    EXPECT_EQ(best, r.q_documents[1]) << name;
    EXPECT_EQ((best + 2) % 4, r.q_documents[2]) << name;
    EXPECT_EQ(0, r.q_documents[3]) << name << ": zeros, whose products are all equal";
    EXPECT_EQ(0, r.k_documents[1]) << name;
  }
}

// Of values that are not finite, lists stay lists, labels labels and orders orders; retrieval leaves them out.
TEST(Select, NanAndInfinity) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (int32_t kind : {GTN_SELECT_BLOCKS, GTN_SELECT_LSH, GTN_SELECT_RETRIEVAL}) {
      for (int which = 0; which < 6; ++which) {
        SCOPED_TRACE(name + " case " + std::to_string(which));
        Problem p;
        p.kind = kind;
        p.len_q = p.len_k = {90};
        p.dk = 11;
        p.count = 20;
        if (kind != GTN_SELECT_RETRIEVAL) p.block_q = p.block_k = 4;
        p.pool = which % 2 ? GTN_POOL_MEAN : GTN_POOL_BOUNDS;
        p.causal = which >= 3;
        p.buckets = 8;
        Data data(p);
        data.randomize(8);
        for (int64_t i : {3, 50}) {
          for (int64_t d = 0; d < p.dk; d += which == 2 ? 1 : 4) {
            const float value = which < 2 ? nan : which == 2 ? -inf : which == 3 ? inf : 3e38f;
            data.q.set(q_at(p, 0, i, 0) + d, value);
            if (which != 1) data.k.set(k_at(p, 0, i, 0) + d, value);
          }
        }
        const Result r = run(on, p, data);
        if (kind == GTN_SELECT_LSH) {
          std::vector<bool> seen(90);
          for (size_t i = 1; i <= 90; ++i) {
            ASSERT_TRUE(r.k_order[i] >= 0 && r.k_order[i] < 90 && !seen[static_cast<size_t>(r.k_order[i])]);
            seen[static_cast<size_t>(r.k_order[i])] = true;
            ASSERT_TRUE(r.k_documents[i] >= 0 && r.k_documents[i] < 8);
          }
        }
        if (kind == GTN_SELECT_RETRIEVAL && which == 1) {
          EXPECT_EQ(r.offsets[4], r.offsets[5]) << "query 3 is NaN";
          EXPECT_LT(r.offsets[1], r.offsets[91]) << "others are not";
        }
        check_lists(p, r, [&](const List& list) {
          const int64_t last = std::min<int64_t>((list.block + 1) * p.block_q, 90) - 1;
          if (kind == GTN_SELECT_BLOCKS) {
            ASSERT_EQ(std::min(p.count, reachable(p, 0, last)), list.last - list.first);
          }
          for (int64_t e = list.first; kind == GTN_SELECT_RETRIEVAL && e < list.last; ++e) {
            ASSERT_TRUE(std::isfinite(r.biases[static_cast<size_t>(e + 1)]));
          }
        });
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Magnitudes at both ends of FP32: angles do not change with length, and opposite vectors have finite biases.
TEST(Select, RetrievalAtAnyLength) {
  for (const std::string& name : cpu_devices()) {
    SCOPED_TRACE(name);
    OpenDevice on(name);
    Problem p;
    p.kind = GTN_SELECT_RETRIEVAL;
    p.len_q = {30};
    p.len_k = {60};
    p.dk = 10;
    p.count = 60;
    p.layers = 12;
    p.buckets = 4;
    Data data(p);
    data.randomize(9);
    const Result plain = run(on, p, data);
    for (float scale : {0x1p-100f, 0x1p100f}) {
      Data scaled = data;
      for (int64_t i = 0; i < data.q.size(); ++i) scaled.q.set(i, data.q.get(i) * scale);
      for (int64_t i = 0; i < data.k.size(); ++i) scaled.k.set(i, data.k.get(i) * scale);
      EXPECT_TRUE(plain == run(on, p, scaled)) << scale;
    }
    for (int64_t i = 0; i < data.q.size(); ++i) data.q.set(i, 0.0f);
    check(on, p, data);
    // Two keys that differ: less their mean they are opposite, and one of them is the query.
    p.len_k = {2};
    Data two(p);
    two.randomize(10);
    for (int64_t d = 0; d < p.dk; ++d) {
      two.q.set(q_at(p, 0, 0, 0) + d, two.k.get(k_at(p, 0, 0, 0) + d) - two.k.get(k_at(p, 0, 1, 0) + d));
    }
    check(on, p, two);
    const Result r = run(on, p, two);
    EXPECT_EQ(0, r.columns[1]);
    EXPECT_NEAR(0.0f, r.biases[1], 1e-5f) << "in all tables";
  }
}

TEST(Select, ThreadsDoNotChangeAnything) {
  for (const std::string& name : cpu_devices()) {
    for (int32_t kind : {GTN_SELECT_BLOCKS, GTN_SELECT_LSH, GTN_SELECT_RETRIEVAL}) {
      Problem p;
      p.kind = kind;
      p.len_q = {130, 77};
      p.len_k = {130, 200};
      p.heads_q = 2;
      p.heads = 2;
      p.dk = 16;
      p.count = 9;
      p.buckets = 8;
      if (kind != GTN_SELECT_RETRIEVAL) p.block_q = p.block_k = 8;
      Data data(p);
      data.randomize(11);
      Result first;
      for (int threads = 1; threads <= 3; ++threads) {
        OpenDevice on(name, threads);
        const Result r = run(on, p, data);
        if (threads == 1) first = r;
        EXPECT_TRUE(first == r) << name << " " << p.text() << " threads=" << threads;
      }
    }
  }
}

TEST(Select, KernelsNameTheirLevelAndCountTheirWork) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name, 3);
    std::string level = "cpu.";
    level += name.substr(name.find(':') + 1) + ".select.";
    struct Named {
      int32_t kind, pool;
      const char* kernel;
      double flops, bytes;
    };
    // 100 queries and 50 keys of 16 elements in 3 and 1 heads; blocks of 1 x 1.
    const double rows = 300 * 16 * 4 + 50 * 16 * 4, lists = 300 * 8 + 8;
    for (const Named& named :
         {Named{GTN_SELECT_BLOCKS, GTN_POOL_MEAN, "mean", 300 * 50 * 2 * 16, rows + lists + 300 * 5 * 4},
          {GTN_SELECT_BLOCKS, GTN_POOL_BOUNDS, "bounds", 300 * 50 * 4 * 16, rows + lists + 300 * 5 * 4},
          {GTN_SELECT_LSH, 0, "lsh", 450 * 16 * 8 * 2, rows + lists + 300 * 5 * 4 + 450 * 3 * 4},
          {GTN_SELECT_RETRIEVAL, 0, "retrieval", 450 * 16 * 2 * 3 * 2, rows + lists + 300 * 5 * 8}}) {
      Message message;
      gtn_select_desc desc = {};
      desc.size = sizeof desc;
      desc.kind = named.kind;
      desc.q = tensor(GTN_F32, {1, 100, 3, 16});
      desc.k = tensor(GTN_F32, {1, 50, 1, 16});
      desc.heads = 3;
      desc.block_q = desc.block_k = 1;
      desc.count = 5;
      desc.pool = named.pool;
      if (named.kind != GTN_SELECT_BLOCKS) {
        desc.buckets = 8;
        desc.layers = 2;
      }
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_select_plan(on.device, &desc, &plan, &message)) << message.text;
      gtn_plan_info info = {};
      info.size = sizeof info;
      ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
      EXPECT_EQ(level + named.kernel, info.kernel);
      EXPECT_EQ(GTN_OP_SELECT, info.op);
      EXPECT_GE(info.flops, named.flops);
      EXPECT_LE(info.flops, 2.2 * named.flops);
      EXPECT_EQ(named.bytes, info.bytes);
      EXPECT_GT(info.workspace_bytes, 0);
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

// Arrays whose content is wrong are refused before anything is written.
TEST(Select, IndexesAreChecked) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice on(name);
    for (const bool packed : {false, true}) {
      Problem p;
      p.packed = packed;
      p.len_q = p.len_k = {4, 4};
      p.dk = 4;
      p.count = 8;
      const Data data(p);
      const gtn_select_desc desc = describe(p);
      Message message;
      gtn_plan plan = 0;
      ASSERT_EQ(GTN_OK, gtn_select_plan(on.device, &desc, &plan, &message)) << message.text;
      std::vector<int64_t> offsets(100, kSentinel);
      std::vector<int32_t> columns(1000, kSentinel);
      const auto run_with = [&](std::vector<int64_t> q, std::vector<int64_t> k) {
        const gtn_status status =
            gtn_select_run(plan, on.stream, 2, packed ? 8 : 4, packed ? 8 : 4, q.data(), k.data(), data.q.data(),
                           data.k.data(), offsets.data(), columns.data(), nullptr, nullptr, nullptr, nullptr, nullptr);
        return status == GTN_OK ? "" : on.message();
      };
      if (packed) {
        EXPECT_EQ("q_index[0] is 1, expected 0, where the first sequence starts", run_with({1, 4, 8}, {0, 4, 8}));
        EXPECT_EQ("k_index[2] is 3, expected an offset that does not fall, 4 to len_k = 8",
                  run_with({0, 4, 8}, {0, 4, 3}));
        EXPECT_EQ("k_index[2] is 9, expected an offset that does not fall, 4 to len_k = 8",
                  run_with({0, 4, 8}, {0, 4, 9}));
      } else {
        EXPECT_EQ("q_index[1] is -1, expected a length of 0 to len_q = 4", run_with({4, -1}, {4, 4}));
        EXPECT_EQ("k_index[0] is 5, expected a length of 0 to len_k = 4", run_with({4, 4}, {5, 4}));
      }
      for (int64_t offset : offsets) ASSERT_EQ(kSentinel, offset);
      for (int32_t column : columns) ASSERT_EQ(kSentinel, column);
      EXPECT_EQ("", packed ? run_with({0, 4, 8}, {0, 4, 8}) : run_with({4, 3}, {4, 0}));
      EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    }
  }
}

// What is too large for this backend is declined.
TEST(Select, TooLargeIsUnsupported) {
  OpenDevice on(cpu_devices().front());
  Message message;
  gtn_plan plan = 0;
  Problem p;
  gtn_select_desc desc = describe(p);
  desc.k.shape[1] = int64_t{1} << 31;
  desc.k.strides[0] = int64_t{1} << 31;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_select_plan(on.device, &desc, &plan, &message));
  EXPECT_STREQ("k.shape[1]: is 2147483648, this backend takes up to 2147483647", message.text);
  p.kind = GTN_SELECT_LSH;
  p.buckets = 65536;
  p.layers = 64;
  p.dk = 256;
  desc = describe(p);
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_select_plan(on.device, &desc, &plan, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "1 GiB")) << message.text;
}

}  // namespace
}  // namespace gatun::test
