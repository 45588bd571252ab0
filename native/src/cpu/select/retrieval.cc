// Selection by retrieval: keys are hashed into tables, and a query takes those that it meets in two of them or more.
//
// One sequence and head after the other, so that the tables of one fill the caches: keys are hashed and sorted into
// buckets, by counting; then each query counts the keys in its buckets. That walk, of some n / buckets keys in each
// table, and the hashing are the cost.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "cpu/select/plan.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr int64_t kMeanKeys = 256;  // that are summed in FP32
constexpr int64_t kHashTasks = 8;   // times kSelectRows rows that one task hashes

class SelectRetrieval final : public SelectPlan {
 public:
  SelectRetrieval(const Device& device, const gtn_select_desc& desc)
      : SelectPlan(device, desc),
        bits_(__builtin_ctzll(static_cast<uint64_t>(desc.buckets))),
        tables_(desc.layers),
        padded_(ceil_div(dk_, kernels_.vector) * kernels_.vector) {}

 private:
  void take_own(Workspace* space, Call* c) const override {
    c->chunk_means = space->take<float>(times(ceil_div(len_k_, kMeanKeys), dk_));
    c->mean = space->take<float>(dk_);
    c->q_unit = space->take<float>(times(len_q_, padded_));
    c->k_unit = space->take<float>(times(len_k_, padded_));
    c->q_codes = space->take<uint16_t>(times(len_q_, tables_));
    c->k_codes = space->take<uint16_t>(times(len_k_, tables_));
    c->table_keys = space->take<int32_t>(times(len_k_, tables_));
    c->table_starts = space->take<int32_t>(tables_ * (desc_.buckets + 1));
  }

  struct Scratch {
    float* kernel;
    uint16_t* shared;  // how many codes a key shares with the query; 0 between queries
    uint64_t* found;   // codes shared and key
  };
  Scratch lay_out_worker(Workspace* space) const {
    Scratch scratch;
    scratch.kernel = space->take<float>(kernels_.scratch(dk_, panels_of(bits_ * tables_)));
    scratch.shared = space->take<uint16_t>(len_k_);
    scratch.found = space->take<uint64_t>(len_k_);
    return scratch;
  }

  int64_t worker_bytes() const override {
    Workspace space(nullptr);
    lay_out_worker(&space);
    return space.used();
  }

  void fill(Call& c) const override {
    for (int on = 0; on < device_.threads && len_k_ > 0; ++on) {
      Workspace space(worker(c, on));
      std::memset(lay_out_worker(&space).shared, 0, static_cast<size_t>(len_k_) * sizeof(uint16_t));
    }
    for (int64_t at = 0; at < c.args.sequences * heads_q_; ++at) {
      const int64_t s = at / heads_q_, head = at % heads_q_, per_key_head = heads_q_ / heads_k_;
      const Sequence of = sequence(c, s);
      if (of.len_q > 0 && of.len_k > 0) {
        if (head % per_key_head == 0) centre(c, s, of, head / per_key_head);
        hash(c, s, of, head, true);
        hash(c, s, of, head, false);
        parallel(device_.threads, tables_, [&](int64_t table, int) { sort(c, of, table); });
      }
      write_lists(c, at, at + 1);
    }
  }

  // The mean of a head's keys: sums of a few in FP32, and of those in FP64.
  void centre(const Call& c, int64_t s, const Sequence& of, int64_t key_head) const {
    const int64_t chunks = ceil_div(of.len_k, kMeanKeys);
    parallel(device_.threads, chunks, [&](int64_t chunk, int) {
      const int64_t first = chunk * kMeanKeys, count = at_most(kMeanKeys, of.len_k - first);
      kernels_.pool(k_rows(c, s, of, key_head, first, count), false, c.chunk_means + chunk * dk_, 1);
    });
    for (int64_t d = 0; d < dk_; ++d) {
      double sum = 0.0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        sum += static_cast<double>(c.chunk_means[chunk * dk_ + d]) *
               static_cast<double>(at_most(kMeanKeys, of.len_k - chunk * kMeanKeys));
      }
      c.mean[d] = static_cast<float>(sum / static_cast<double>(of.len_k));
    }
  }

  void hash(const Call& c, int64_t s, const Sequence& of, int64_t head, bool keys) const {
    constexpr int64_t kRows = kSelectRows * kHashTasks;
    const int64_t length = keys ? of.len_k : of.len_q;
    parallel(device_.threads, ceil_div(length, kRows), [&](int64_t task, int on) {
      Workspace space(worker(c, on));
      const Scratch scratch = lay_out_worker(&space);
      const int64_t end = at_most((task + 1) * kRows, length);
      for (int64_t first = task * kRows; first < end; first += kSelectRows) {
        const int64_t some = at_most(kSelectRows, end - first);
        float* unit = (keys ? c.k_unit : c.q_unit) + first * padded_;
        if (keys) {
          kernels_.unit(k_rows(c, s, of, head / (heads_q_ / heads_k_), first, some), c.mean, unit, padded_);
        } else {
          kernels_.unit(q_rows(c, s, of, head, first, some), nullptr, unit, padded_);
        }
        uint16_t* codes = keys ? c.k_codes + first : c.q_codes + first * tables_;
        kernels_.code(unit, padded_, some, dk_, rotation(head), bits_, tables_, scratch.kernel, codes,
                      keys ? 1 : tables_, keys ? len_k_ : 1);
      }
    });
  }

  // The keys of a table by code and then by position, without those that are not finite.
  void sort(const Call& c, const Sequence& of, int64_t table) const {
    const uint16_t* codes = c.k_codes + table * len_k_;
    int32_t *keys = c.table_keys + table * len_k_, *starts = c.table_starts + table * (desc_.buckets + 1);
    std::memset(starts, 0, static_cast<size_t>(desc_.buckets + 1) * sizeof *starts);
    for (int64_t j = 0; j < of.len_k; ++j) {
      if (is_hashed(c.k_unit, j)) ++starts[codes[j]];
    }
    // Ends of the buckets, which filling them from behind makes their starts.
    for (int64_t b = 0; b < desc_.buckets; ++b) starts[b + 1] += starts[b];
    for (int64_t j = of.len_k - 1; j >= 0; --j) {
      if (is_hashed(c.k_unit, j)) keys[--starts[codes[j]]] = static_cast<int32_t>(j);
    }
  }

  bool is_hashed(const float* unit, int64_t row) const { return !std::isnan(unit[row * padded_]); }

  int64_t list(const Call& c, int64_t, const Sequence& of, int64_t, int64_t query, char* memory, int32_t* chosen,
               float* biases) const override {
    Workspace space(memory);
    const Scratch scratch = lay_out_worker(&space);
    const int64_t keys = visible(of, query);
    const int64_t first = at_most(desc_.first, keys), local = at_most(desc_.local, keys - first);
    int64_t found = 0;
    if (is_hashed(c.q_unit, query) && first + local < keys) {
      found = walk(c, query, first, keys - local, scratch);
    }
    // The most shared codes, then the latest.
    const int64_t room = at_most(found, desc_.count - first - local);
    uint64_t* kept = scratch.found;
    if (room < found) std::nth_element(kept, kept + room, kept + found, [](uint64_t a, uint64_t b) { return a > b; });
    std::sort(kept, kept + room, [](uint64_t a, uint64_t b) { return key_of(a) < key_of(b); });
    int64_t count = 0;
    for (int64_t j = 0; j < first; ++j) put(j, 0.0f, &count, chosen, biases);
    for (int64_t i = 0; i < room; ++i) {
      const int64_t j = key_of(kept[i]);
      put(j, bias(kernels_.dot(c.q_unit + query * padded_, c.k_unit + j * padded_, padded_)), &count, chosen, biases);
    }
    for (int64_t j = keys - local; j < keys; ++j) put(j, 0.0f, &count, chosen, biases);
    return count;
  }

  static void put(int64_t key, float bias, int64_t* count, int32_t* chosen, float* biases) {
    chosen[*count] = static_cast<int32_t>(key);
    biases[(*count)++] = bias;
  }

  static int64_t key_of(uint64_t found) { return static_cast<int64_t>(found & 0xffffffffu); }

  // Finds the keys from `first` to `last` - 1 that share two codes with the query or more.
  int64_t walk(const Call& c, int64_t query, int64_t first, int64_t last, const Scratch& scratch) const {
    const uint16_t* codes = c.q_codes + query * tables_;
    int64_t found = 0;
    const auto each = [&](const auto& visit) {
      for (int64_t table = 0; table < tables_; ++table) {
        const int32_t* starts = c.table_starts + table * (desc_.buckets + 1) + codes[table];
        const int32_t* keys = c.table_keys + table * len_k_;
        for (int32_t i = starts[0]; i < starts[1] && keys[i] < last; ++i) visit(keys[i]);
      }
    };
    each([&](int32_t key) {
      if (++scratch.shared[key] == 2 && key >= first) scratch.found[found++] = static_cast<uint64_t>(key);
    });
    for (int64_t i = 0; i < found; ++i) {
      scratch.found[i] |= static_cast<uint64_t>(scratch.shared[scratch.found[i]]) << 32;
    }
    each([&](int32_t key) { scratch.shared[key] = 0; });
    return found;
  }

  // -log of the probability that two unit vectors of this product share two codes or more.
  float bias(float product) const {
    constexpr double kPi = 3.14159265358979323846;
    // At the far end of the range the probability is 0; the least angle that FP32 tells from it stands in.
    const double cosine = std::clamp(static_cast<double>(product), -1.0 + 0x1p-24, 1.0);
    const double p = 1.0 - std::acos(cosine) / kPi, tables = static_cast<double>(tables_);
    double x = 1.0;
    for (int64_t b = 0; b < bits_; ++b) x *= p;
    double log_u;
    if (x < 1e-8) {
      log_u = std::log(tables * (tables - 1.0) / 2.0) + 2.0 * std::log(x);  // two of the tables
    } else {
      log_u = std::log(-std::expm1((tables - 1.0) * std::log1p(-x) + std::log1p((tables - 1.0) * x)));
    }
    return static_cast<float>(0.0 - log_u);
  }

  const int64_t bits_, tables_;
  const int64_t padded_;  // floats of a unit vector
};

}  // namespace

SelectPlan* new_select_retrieval(const Device& device, const gtn_select_desc& desc) {
  return new (std::nothrow) SelectRetrieval(device, desc);
}

}  // namespace gatun::cpu
