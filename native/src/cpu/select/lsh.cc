// Selection by hashing: rows are labelled, sorted by label, and blocks of queries look at the keys of their labels.
#include <algorithm>
#include <cstring>
#include <new>

#include "cpu/select/plan.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr int64_t kLabelTasks = 8;  // times kSelectRows rows that one task labels
constexpr int64_t kMostLayers = 64;

class SelectLsh final : public SelectPlan {
 public:
  SelectLsh(const Device& device, const gtn_select_desc& desc)
      : SelectPlan(device, desc), columns_(desc.buckets / 2), most_runs_(at_most(desc.block_q, len_q_)) {}

 private:
  // Blocks of keys `first` to `last`.
  struct Run {
    int64_t first, last;
  };

  void take_own(Workspace* space, Call* c) const override {
    const int64_t heads = c->args.sequences * heads_q_;
    c->q_labels = space->take<int32_t>(times(heads, desc_.layers * len_q_));
    c->k_labels = space->take<int32_t>(times(heads, len_k_));
    c->q_order = space->take<int32_t>(times(heads, len_q_));
    c->k_order = space->take<int32_t>(times(heads, len_k_));
    if (sorts_by_all()) c->q_sorting = space->take<int32_t>(times(heads, len_q_));
  }

  // Whether queries of one label in the last layer lie by those of the other layers.
  bool sorts_by_all() const { return desc_.layers > 1 && desc_.causal == 0; }

  const int32_t* q_labels(const Call& c, int64_t at, int64_t layer) const {
    return c.q_labels + (at * desc_.layers + layer) * len_q_;
  }

  // A task labels, or sorts, or makes lists.
  int64_t worker_bytes() const override {
    Workspace labels(nullptr), sorting(nullptr), lists(nullptr);
    labels.take<float>(kernels_.scratch(dk_, 0));
    sorting.take<int32_t>(desc_.buckets + 1);
    lists.take<Run>(most_runs_);
    return std::max({labels.used(), sorting.used(), lists.used()});
  }

  void fill(Call& c) const override {
    for (const bool keys : {false, true}) label(c, keys);
    parallel(device_.threads, c.args.sequences * heads_q_, [&](int64_t at, int on) {
      order(c, at / heads_q_, at % heads_q_, reinterpret_cast<int32_t*>(worker(c, on)));
    });
    write_lists(c, 0, c.args.sequences * heads_q_);
  }

  void label(const Call& c, bool keys) const {
    constexpr int64_t kRows = kSelectRows * kLabelTasks;
    const int64_t parts = ceil_div(keys ? c.args.len_k : c.args.len_q, kRows), length = keys ? len_k_ : len_q_;
    const int64_t per_key_head = heads_q_ / heads_k_;
    parallel(device_.threads, c.args.sequences * heads_q_ * parts, [&](int64_t task, int on) {
      const int64_t at = task / parts, s = at / heads_q_, head = at % heads_q_;
      const Sequence of = sequence(c, s);
      int32_t* labels = keys ? c.k_labels + at * length : c.q_labels + at * desc_.layers * length;
      int32_t* documents = keys ? c.args.k_documents + of.first_k : c.args.q_documents + of.first_q;
      const int64_t end = at_most((task % parts + 1) * kRows, keys ? of.len_k : of.len_q);
      for (int64_t first = task % parts * kRows; first < end; first += kSelectRows) {
        const int64_t some = at_most(kSelectRows, end - first);
        const SelectRows rows =
            keys ? k_rows(c, s, of, head / per_key_head, first, some) : q_rows(c, s, of, head, first, some);
        // Of keys, what is left of the labels is those of the last layer.
        int32_t own[kSelectRows * kMostLayers];
        kernels_.label(rows, rotation(head), columns_, desc_.layers, reinterpret_cast<float*>(worker(c, on)), own,
                       kSelectRows);
        for (int64_t layer = 0; layer < desc_.layers; ++layer) {
          const size_t bytes = static_cast<size_t>(some) * sizeof *own;
          int32_t* to = documents + (((packed_ ? 0 : s) * desc_.layers + layer) * heads_q_ + head) * length + first;
          std::memcpy(to, own + layer * kSelectRows, bytes);
          std::memcpy(labels + first + (keys ? 0 : layer * length), own + layer * kSelectRows, bytes);
        }
      }
    });
  }

  void order(const Call& c, int64_t s, int64_t head, int32_t* starts) const {
    const Sequence of = sequence(c, s);
    const int64_t at = s * heads_q_ + head, out = (packed_ ? 0 : s) * heads_q_ + head;
    // By the layers in turn, each keeping the order of the ones before where labels are equal.
    const int32_t* before = nullptr;
    for (int64_t layer = sorts_by_all() ? 0 : desc_.layers - 1; layer < desc_.layers; ++layer) {
      const bool last = (desc_.layers - layer) % 2 == 1;  // which the last one is
      int32_t* to = (last ? c.q_order : c.q_sorting) + at * len_q_;
      sort(q_labels(c, at, layer), of.len_q, starts, before, to);
      before = to;
    }
    sort(c.k_labels + at * len_k_, of.len_k, starts, nullptr, c.k_order + at * len_k_);
    std::copy_n(c.q_order + at * len_q_, of.len_q, c.args.q_order + out * len_q_ + of.first_q);
    std::copy_n(c.k_order + at * len_k_, of.len_k, c.args.k_order + out * len_k_ + of.first_k);
  }

  // Positions by label and then as they were, null: by position. By counting, since labels are small numbers.
  void sort(const int32_t* labels, int64_t length, int32_t* starts, const int32_t* before, int32_t* order) const {
    if (length == 0) return;
    std::memset(starts, 0, static_cast<size_t>(desc_.buckets + 1) * sizeof *starts);
    for (int64_t i = 0; i < length; ++i) ++starts[labels[i] + 1];
    for (int64_t b = 0; b < desc_.buckets; ++b) starts[b + 1] += starts[b];
    for (int64_t i = 0; i < length; ++i) {
      const int32_t at = before != nullptr ? before[i] : static_cast<int32_t>(i);
      order[starts[labels[at]]++] = at;
    }
  }

  int64_t list(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t block, char* memory, int32_t* chosen,
               float*) const override {
    const int64_t at = s * heads_q_ + head;
    const int32_t *labels = q_labels(c, at, desc_.layers - 1), *k_labels = c.k_labels + at * len_k_;
    const int32_t *q_order = c.q_order + at * len_q_, *k_order = c.k_order + at * len_k_;
    const int64_t first = block * desc_.block_q, last = at_most(first + desc_.block_q, of.len_q) - 1;
    // The keys that sort up to (label, position).
    const auto keys_up_to = [&](int32_t label, int64_t position) {
      return std::partition_point(
                 k_order, k_order + of.len_k,
                 [&](int32_t key) { return k_labels[key] < label || (k_labels[key] == label && key <= position); }) -
             k_order;
    };
    const auto position = [&](int64_t slot) { return q_order[slot] + of.len_k - of.len_q; };
    // The blocks with keys that a query may see, by the labels of the queries.
    Run* runs = reinterpret_cast<Run*>(memory);
    int64_t count = 0;
    for (int64_t slot = first; slot <= last; ++slot) {
      const int32_t label = labels[q_order[slot]];
      if (slot < last && labels[q_order[slot + 1]] == label) continue;  // the last of a label sees most
      const int64_t begin = keys_up_to(label - 1, of.len_k);
      const int64_t end = keys_up_to(label, desc_.causal != 0 ? position(slot) : of.len_k);
      if (begin >= end) continue;
      const Run run = {begin / desc_.block_k, (end - 1) / desc_.block_k};
      if (count > 0 && run.first <= runs[count - 1].last + 1) {
        runs[count - 1].last = run.last;
      } else {
        runs[count++] = run;
      }
    }
    const int64_t middle = (first + last) / 2;
    const int64_t keys = keys_up_to(labels[q_order[middle]], position(middle));
    return nearest(runs, count, keys == 0 ? 0 : (keys - 1) / desc_.block_k, chosen);
  }

  // The blocks of rising runs that are nearest to `centre`, at most as many as a list has.
  int64_t nearest(const Run* runs, int64_t count, int64_t centre, int32_t* chosen) const {
    // From the last run that starts at or before the centre downwards, and from there upwards.
    int64_t low_run = count - 1;
    while (low_run >= 0 && runs[low_run].first > centre) --low_run;
    int64_t high_run = low_run < 0 || runs[low_run].last <= centre ? low_run + 1 : low_run;
    int64_t low = low_run < 0 ? -1 : at_most(runs[low_run].last, centre);
    int64_t high = high_run < count ? std::max(runs[high_run].first, centre + 1) : -1;
    int64_t from = INT64_MAX, to = -1;
    for (int64_t taken = 0; taken < desc_.count && (low >= 0 || high >= 0); ++taken) {
      if (low >= 0 && (high < 0 || centre - low <= high - centre)) {
        from = low;
        to = std::max(to, low);
        if (--low < runs[low_run].first) low = --low_run >= 0 ? runs[low_run].last : -1;
      } else {
        from = at_most(from, high);
        to = high;
        if (++high > runs[high_run].last) high = ++high_run < count ? runs[high_run].first : -1;
      }
    }
    int32_t* end = chosen;
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t b = std::max(runs[r].first, from); b <= at_most(runs[r].last, to); ++b)
        *end++ = static_cast<int32_t>(b);
    }
    return end - chosen;
  }

  const int64_t columns_;
  const int64_t most_runs_;
};

}  // namespace

SelectPlan* new_select_lsh(const Device& device, const gtn_select_desc& desc) {
  return new (std::nothrow) SelectLsh(device, desc);
}

}  // namespace gatun::cpu
