// Selection by retrieval: rows are hashed into tables, and a query takes the keys that it meets in two of them or more.
//
//   unit of a row = x less the mean of the keys (queries: x), made of length 1
//   bit b of its code in table t = whether unit.R_(t, b) > 0, R of random numbers that are made where they are needed
//   a query's list = keys that share two codes or more, with bias -log of the probability of that at their angle
//
// Bytes: 2 for each key and table, for each query. FLOPs: 2 dk log2(buckets) tables for a row, which is hashed anew in each run: for
// few queries this is nearly all. So keys are not sorted into buckets: a query compares its codes with all of them, `tables`
// comparisons a key, and reads them side by side. What binds it: FP32 multiplications, and for many queries the comparisons.
//
// Chen et al. 2024, MagicPIG (section 4).
#include "select/kernels.h"

#include "select/tile.h"

namespace gatun::gpu {
namespace {

using namespace select;

// The mean of a head's keys, from those of kSelectMeanKeys each.
GPU_KERNEL(kSelectThreads, 1) void centre(const SelectArgs a) {
  const int at = block_x();
  const Sequence of = sequence_of(a, at / a.heads_k);
  for (int d = thread(); d < a.dk; d += kSelectThreads) {
    double sum = 0.0;
    for (int64_t first = 0; first < of.len_k; first += kSelectMeanKeys) {
      const float mean = a.pools[(static_cast<int64_t>(at) * a.pool_blocks + first / kSelectMeanKeys) * a.dk + d];
      sum += static_cast<double>(mean) * static_cast<double>(least_of(kSelectMeanKeys, of.len_k - first));
    }
    a.mean[static_cast<int64_t>(at) * a.dk + d] = of.len_k > 0 ? static_cast<float>(sum / of.len_k) : 0.0f;
  }
}

// Rows of length 1, or 0 where they are 0; NaN where a row is not finite. Divided by the greatest magnitude first, so that no
// square overflows or vanishes.
template <typename X>
GPU_KERNEL(kSelectThreads, 1) void unit(const SelectArgs a) {
  const bool keys = a.keys != 0;
  const int most = keys ? a.most_k : a.most_q, heads = keys ? a.heads_k : a.heads_q;
  const int64_t task = static_cast<int64_t>(block_x()) * (kSelectThreads / kWarp) + warp(), at = task / most, row = task - at * most;
  if (at >= static_cast<int64_t>(a.sequences) * heads) return;
  const int s = static_cast<int>(at / heads), head = static_cast<int>(at % heads);
  const Sequence of = sequence_of(a, s);
  if (row >= (keys ? of.len_k : of.len_q)) return;
  const X* from = keys ? k_row<X>(a, s, of, head, row) : q_row<X>(a, s, of, head, row);
  const float* mean = keys ? a.mean + at * a.dk : nullptr;
  float* to = (keys ? a.k_unit : a.q_unit) + task * a.dk;
  float most_of = 0.0f, poison = 0.0f;
  for (int d = lane(); d < a.dk; d += kWarp) {
    const float x = to_float(from[d]), v = mean != nullptr ? x - mean[d] : x;
    to[d] = v;
    most_of = greater_of(absolute(v), most_of);
    poison += v * 0.0f;  // NaN where it is not finite
  }
  most_of = warp_max(most_of);
  poison = warp_sum(poison);
  const float divisor = most_of > 0.0f ? most_of : 1.0f;
  float squares = 0.0f;
  for (int d = lane(); d < a.dk; d += kWarp) {
    const float v = to[d] / divisor;
    to[d] = v;
    squares = fma(v, v, squares);
  }
  squares = warp_sum(squares);
  const float length = squares > 0.0f ? sqrt(squares) : 1.0f;
  for (int d = lane(); d < a.dk; d += kWarp) to[d] = to[d] / length + poison;
}

GPU_KERNEL(kSelectThreads, 1) void code(const SelectArgs a) {
  const bool keys = a.keys != 0;
  const int most = keys ? a.most_k : a.most_q, tiles = (most + kTile - 1) / kTile, at = block_x() / tiles;
  const int head = at % a.heads_q, s = at / a.heads_q, first = block_x() % tiles * kTile;
  const Sequence of = sequence_of(a, s);
  const int length = keys ? of.len_k : of.len_q;
  if (first >= length) return;
  const int64_t of_units = keys ? static_cast<int64_t>(s) * a.heads_k + head / (a.heads_q / a.heads_k) : at;
  const float* units = (keys ? a.k_unit : a.q_unit) + (of_units * most + first) * a.dk;
  const auto row_at = [&](int r, int d) { return first + r < length ? units[static_cast<int64_t>(r) * a.dk + d] : 0.0f; };
  uint8_t* signs = reinterpret_cast<uint8_t*>(shared() + kTileAt + kTileBytes);  // [kTile][kTile]
  const int tables = kTile / a.bits;  // whole ones, of a tile
  for (int table = 0; table < a.layers; table += tables) {
    const int there = least_of(tables, a.layers - table);
    const auto column_at = [&](int c, int d) {
      const int t = c / a.bits;
      if (t >= there) return 0.0f;
      return rotation_entry(rotation_of(a, table + t, head), static_cast<int64_t>(d) * a.bits + c % a.bits);
    };
    float sums[kOwn][kOwn];
    multiply<true>(a.dk, row_at, column_at, sums);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) signs[(own_row() + i) * kTile + own_column() + j] = sums[i][j] > 0.0f ? 1 : 0;
    }
    sync_threads();
    for (int i = thread(); i < kTile * there; i += kSelectThreads) {
      const int row = i % kTile, t = i / kTile;
      if (first + row >= length) continue;
      uint32_t bits = 0;
      for (int b = 0; b < a.bits; ++b) bits |= static_cast<uint32_t>(signs[row * kTile + t * a.bits + b]) << b;
      if (keys) {
        a.k_codes[(static_cast<int64_t>(at) * a.layers + table + t) * most + first + row] = static_cast<uint16_t>(bits);
      } else {
        a.q_codes[(static_cast<int64_t>(at) * most + first + row) * a.layers + table + t] = static_cast<uint16_t>(bits);
      }
    }
    sync_threads();
  }
}

// -log of the probability that two unit vectors of this product share two codes or more.
GPU_DEVICE float bias_of(const SelectArgs& a, float product) {
  constexpr double kPi = 3.14159265358979323846;
  // At the far end of the range the probability is 0; the least angle that FP32 tells from it stands in.
  const double least = -1.0 + 0x1p-24, exact = static_cast<double>(product);
  const double cosine = exact < least ? least : exact > 1.0 ? 1.0 : exact;
  const double p = 1.0 - arc_cosine(cosine) / kPi, tables = static_cast<double>(a.layers);
  double x = 1.0;
  for (int b = 0; b < a.bits; ++b) x *= p;
  double log_u;
  if (x < 1e-8) {
    log_u = logarithm(tables * (tables - 1.0) / 2.0) + 2.0 * logarithm(x);  // two of the tables
  } else {
    log_u = logarithm(-exp_less_1((tables - 1.0) * log_1_plus(-x) + log_1_plus((tables - 1.0) * x)));
  }
  return static_cast<float>(0.0 - log_u);
}

constexpr int kCodesAt = Team<kSelectThreads>::kSharedBytes;
constexpr int kTalliesAt = kCodesAt + kSelectMostTables * 2;  // keys for each number of shared codes
constexpr int kRetrieveBytes = kTalliesAt + (kSelectMostTables + 1) * 4;

GPU_KERNEL(kSelectThreads, 1) void retrieve(const SelectArgs a) {
  Team<kSelectThreads> team;
  uint16_t* codes = reinterpret_cast<uint16_t*>(shared() + kCodesAt);
  int32_t* tallies = reinterpret_cast<int32_t*>(shared() + kTalliesAt);
  uint16_t* meetings = a.shared_codes + block_x() * static_cast<int64_t>(a.most_k);
  const int64_t lists = static_cast<int64_t>(a.sequences) * a.heads_q * a.lists;
  for (int64_t index = block_x(); index < lists; index += grid_x()) {
    const int at = static_cast<int>(index / a.lists), query = static_cast<int>(index % a.lists), s = at / a.heads_q;
    const Sequence of = sequence_of(a, s);
    const int keys = query < of.len_q ? visible(a, of, query) : 0;
    const int first = least_of(a.first, keys), local = least_of(a.local, keys - first), end = keys - local;
    const int64_t of_keys = static_cast<int64_t>(s) * a.heads_k + at % a.heads_q / (a.heads_q / a.heads_k);
    const float* q_unit = a.q_unit + (static_cast<int64_t>(at) * a.most_q + query) * a.dk;
    const float* k_units = a.k_unit + of_keys * a.most_k * a.dk;
    const bool hashed = first < end && q_unit[0] == q_unit[0];

    // How many codes each key shares with the query, and how many keys share how many. What has a place is the keys that share
    // more than `least`, and of those that share as many the last ones, without the first `skipped`.
    int least = 0, skipped = 0;
    if (hashed) {
      const uint16_t* k_codes = a.k_codes + static_cast<int64_t>(at) * a.layers * a.most_k;
      for (int t = thread(); t < a.layers; t += kSelectThreads) {
        codes[t] = a.q_codes[(static_cast<int64_t>(at) * a.most_q + query) * a.layers + t];
      }
      for (int i = thread(); i <= a.layers; i += kSelectThreads) tallies[i] = 0;
      sync_threads();
      for (int j = first + thread(); j < end; j += kSelectThreads) {
        int common = 0;
        if (k_units[static_cast<int64_t>(j) * a.dk] == k_units[static_cast<int64_t>(j) * a.dk]) {
          for (int t = 0; t < a.layers; ++t) common += k_codes[static_cast<int64_t>(t) * a.most_k + j] == codes[t] ? 1 : 0;
        }
        meetings[j] = static_cast<uint16_t>(common);
        if (common >= 2) atomic_add(&tallies[common], 1);
      }
      sync_threads();
      least = a.layers + 1;
      int left = a.count - first - local;
      while (least > 2 && left > 0) {
        const int as_many = tallies[--least];
        skipped = as_many > left ? as_many - left : 0;
        left -= as_many;
      }
    }

    int32_t* columns = a.columns + index * a.width;
    float* biases = a.biases + index * a.width;
    int count = 0, ties = 0;
    for (int base = 0; base < keys; base += kSelectThreads) {
      const int j = base + thread();
      const int common = hashed && j >= first && j < end ? meetings[j] : 0;
      const bool tied = common == least && common >= 2;
      const int ties_before = ties, tie = ties_before + team.rank(tied, &ties);
      const bool taken = j < keys && (j < first || j >= end || common > least || (tied && tie >= skipped));
      const int already = count, place = team.rank(taken, &count);
      if (taken) columns[already + place] = j;
    }
    sync_threads();
    for (int i = warp(); i < count; i += kSelectThreads / kWarp) {
      const int j = columns[i];
      float product = 0.0f;
      const bool found = j >= first && j < end;
      for (int d = lane(); found && d < a.dk; d += kWarp) {
        product = fma(q_unit[d], k_units[static_cast<int64_t>(j) * a.dk + d], product);
      }
      product = warp_sum(product);
      if (lane() == 0) biases[i] = found ? bias_of(a, product) : 0.0f;
    }
    if (thread() == 0) a.counts[index] = count;
    sync_threads();  // codes and tallies are read no more
  }
}

}  // namespace

SelectKernel select_centre_kernel() { return centre; }
SelectKernel select_unit_kernel(int type) { return type == 0 ? unit<float> : type == 1 ? unit<Bf16> : unit<Half>; }
SelectKernel select_code_kernel() { return code; }
SelectKernel select_retrieve_kernel() { return retrieve; }

int select_code_bytes() { return kTileAt + kTileBytes + kTile * kTile; }
int select_retrieve_bytes() { return kRetrieveBytes; }

}  // namespace gatun::gpu
