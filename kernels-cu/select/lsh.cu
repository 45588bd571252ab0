// Selection by hashing: rows are labelled, sorted by label, and blocks of queries look at the keys of their labels.
//
//   label of x in layer r = argmax of [x R; -x R], R of random numbers that are made where they are needed
//
// Bytes: rows are read once for each 64 columns of a layer. FLOPs: dk * buckets for a row and layer, and about as many integer
// operations for 64 rows as 10 of them take: an entry of R is two rounds of mixing, and serves the 64 rows of a tile. What binds
// it: FP32 multiplications, as in kernels.cu; the matrix units are left out for the same reason. Sorting is bound by latency: a
// block sorts a sequence and head, each warp a run of it, an element for each lane at a time.
//
// Kitaev et al. 2020, Reformer (section 2).
#include "select/kernels.h"

#include "select/tile.h"

namespace gatun::gpu {
namespace {

using namespace select;

// In [sequences * heads_q] order.
struct Place {
  int sequence, head;
  Sequence of;
};

GPU_DEVICE Place place_of(const SelectArgs& a, int at) {
  const int s = at / a.heads_q;
  return {s, at % a.heads_q, sequence_of(a, s)};
}

// Where the labels of a head begin in an output of the attention's layout.
GPU_DEVICE int64_t document_at(const SelectArgs& a, const Place& p, int layer, bool keys) {
  const int64_t s = a.packed != 0 ? 0 : p.sequence;
  return ((s * a.layers + layer) * a.heads_q + p.head) * (keys ? a.most_k : a.most_q) + (keys ? p.of.first_k : p.of.first_q);
}

template <typename X>
GPU_KERNEL(kSelectThreads, 1) void label(const SelectArgs a) {
  const bool keys = a.keys != 0;
  const int most = keys ? a.most_k : a.most_q, tiles = (most + kTile - 1) / kTile, at = block_x() / tiles;
  const Place p = place_of(a, at);
  const int length = keys ? p.of.len_k : p.of.len_q, first = block_x() % tiles * kTile;
  if (first >= length) return;
  const auto row_at = [&](int r, int d) {
    const int64_t row = first + r;
    if (row >= length) return 0.0f;
    const int key_head = p.head / (a.heads_q / a.heads_k);
    return to_float(keys ? k_row<X>(a, p.sequence, p.of, key_head, row)[d] : q_row<X>(a, p.sequence, p.of, p.head, row)[d]);
  };
  for (int layer = 0; layer < a.layers; ++layer) {
    const uint64_t rotation = rotation_of(a, layer, p.head);
    float best[kOwn];
    int32_t label[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) best[i] = -infinity(), label[i] = 0;  // also of a row whose products are all NaN
    for (int from = 0; from < a.bits; from += kTile) {
      const auto column_at = [&](int c, int d) {
        return from + c < a.bits ? rotation_entry(rotation, static_cast<int64_t>(d) * a.bits + from + c) : 0.0f;
      };
      float sums[kOwn][kOwn];
      multiply<true>(a.dk, row_at, column_at, sums);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
          const int column = from + own_column() + j;
          if (column >= a.bits) continue;
          const float product = sums[i][j], magnitude = absolute(product);
          const int32_t own = product < 0.0f ? column + a.bits : column;
          if (magnitude > best[i] || (magnitude == best[i] && own < label[i])) best[i] = magnitude, label[i] = own;
        }
      }
    }
    // The threads of a row's columns are next to each other.
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int mask = kTile / kOwn / 2; mask > 0; mask /= 2) {
        const float other = shuffle_xor(best[i], mask);
        const int32_t its = shuffle_xor(label[i], mask);
        if (other > best[i] || (other == best[i] && its < label[i])) best[i] = other, label[i] = its;
      }
      const int64_t row = first + own_row() + i;
      if (own_column() != 0 || row >= length) continue;
      (keys ? a.k_documents : a.q_documents)[document_at(a, p, layer, keys) + row] = label[i];
      if (!keys) a.q_labels[(static_cast<int64_t>(at) * a.layers + layer) * most + row] = label[i];
      if (keys && layer == a.layers - 1) a.k_labels[static_cast<int64_t>(at) * most + row] = label[i];
    }
  }
}

// Positions by label and then as they were before (null: by position).
GPU_DEVICE void sort_by(const SelectArgs& a, const int32_t* labels, int length, int32_t* counts, const int32_t* before_it,
                        int32_t* order) {
  const int run = (length + kSelectSortRuns - 1) / kSelectSortRuns;
  const int64_t first = static_cast<int64_t>(warp()) * run, end = least_of(first + run, length);
  const auto position = [&](int64_t i) { return before_it != nullptr ? before_it[i] : static_cast<int32_t>(i); };
  for (int64_t i = thread(); i < static_cast<int64_t>(kSelectSortRuns) * a.buckets; i += kSelectThreads) counts[i] = 0;
  sync_threads();
  for (int64_t i = first + lane(); i < end; i += kWarp) {
    atomic_add(&counts[static_cast<int64_t>(warp()) * a.buckets + labels[position(i)]], 1);
  }
  sync_threads();
  starts_of_counts<kSelectThreads>(counts, kSelectSortRuns, a.buckets, reinterpret_cast<int32_t*>(shared()),
                                   [](int64_t, int32_t) {});
  sync_threads();
  give_out_places(
      counts + static_cast<int64_t>(warp()) * a.buckets, first, end, [&](int64_t i) { return labels[position(i)]; },
      [&](int64_t i, int32_t to) { order[to] = position(i); });
  sync_threads();
}

GPU_KERNEL(kSelectThreads, 1) void sort(const SelectArgs a) {
  const int at = block_x();
  const Place p = place_of(a, at);
  int32_t* counts = a.label_counts + static_cast<int64_t>(at) * kSelectSortRuns * a.buckets;
  const int64_t q_at = static_cast<int64_t>(at) * a.most_q, k_at = static_cast<int64_t>(at) * a.most_k;
  // By the layers in turn, each keeping the order of the ones before where labels are equal. The last goes to q_places.
  const int32_t* before_it = nullptr;
  for (int layer = a.causal != 0 ? a.layers - 1 : 0; layer < a.layers; ++layer) {
    int32_t* to = ((a.layers - layer) % 2 == 1 ? a.q_places : a.q_between) + q_at;
    sort_by(a, a.q_labels + (static_cast<int64_t>(at) * a.layers + layer) * a.most_q, p.of.len_q, counts, before_it, to);
    before_it = to;
  }
  sort_by(a, a.k_labels + k_at, p.of.len_k, counts, nullptr, a.k_places + k_at);
  const int64_t row = (a.packed != 0 ? 0 : static_cast<int64_t>(p.sequence) * a.heads_q) + p.head;
  for (int i = thread(); i < p.of.len_q; i += kSelectThreads) a.q_order[row * a.most_q + p.of.first_q + i] = a.q_places[q_at + i];
  for (int i = thread(); i < p.of.len_k; i += kSelectThreads) a.k_order[row * a.most_k + p.of.first_k + i] = a.k_places[k_at + i];
}

struct Run {
  int first, last;
};

// The blocks of rising runs that are nearest to `centre`, at most as many as a list has. By one thread.
GPU_DEVICE int nearest(const SelectArgs& a, const Run* runs, int count, int centre, int32_t* chosen) {
  // From the last run that starts at or before the centre downwards, and from there upwards.
  int low_run = count - 1;
  while (low_run >= 0 && runs[low_run].first > centre) --low_run;
  int high_run = low_run < 0 || runs[low_run].last <= centre ? low_run + 1 : low_run;
  int low = low_run < 0 ? -1 : least_of(runs[low_run].last, centre);
  int high = -1;
  if (high_run < count) high = runs[high_run].first > centre ? runs[high_run].first : centre + 1;
  int from = 0x7fffffff, to = -1;
  for (int taken = 0; taken < a.count && (low >= 0 || high >= 0); ++taken) {
    if (low >= 0 && (high < 0 || centre - low <= high - centre)) {
      from = low;
      to = to > low ? to : low;
      if (--low < runs[low_run].first) low = --low_run >= 0 ? runs[low_run].last : -1;
    } else {
      from = least_of(from, high);
      to = high;
      if (++high > runs[high_run].last) high = ++high_run < count ? runs[high_run].first : -1;
    }
  }
  int written = 0;
  for (int r = 0; r < count; ++r) {
    const int end = least_of(runs[r].last, to);
    for (int b = runs[r].first > from ? runs[r].first : from; b <= end; ++b) chosen[written++] = b;
  }
  return written;
}

GPU_KERNEL(kSelectThreads, 1) void near(const SelectArgs a) {
  const int64_t list = static_cast<int64_t>(block_x()) * (kSelectThreads / kWarp) + warp();
  if (list >= static_cast<int64_t>(a.sequences) * a.heads_q * a.lists) return;
  const int at = static_cast<int>(list / a.lists);
  const Place p = place_of(a, at);
  const int64_t first = list % a.lists * a.block_q;
  if (first >= p.of.len_q || p.of.len_k == 0) {
    if (lane() == 0) a.counts[list] = 0;
    return;
  }
  const int32_t* labels = a.q_labels + (static_cast<int64_t>(at) * a.layers + a.layers - 1) * a.most_q;
  const int32_t* k_labels = a.k_labels + static_cast<int64_t>(at) * a.most_k;
  const int32_t* q_order = a.q_places + static_cast<int64_t>(at) * a.most_q;
  const int32_t* k_order = a.k_places + static_cast<int64_t>(at) * a.most_k;
  const int64_t last = least_of(first + a.block_q, p.of.len_q) - 1;
  // The keys that sort up to (label, position).
  const auto keys_up_to = [&](int32_t label, int position) {
    int low = 0, high = p.of.len_k;
    while (low < high) {
      const int middle = (low + high) / 2, key = k_order[middle], its = k_labels[key];
      if (its < label || (its == label && key <= position)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const auto position = [&](int64_t slot) { return q_order[slot] + p.of.len_k - p.of.len_q; };
  // The blocks with keys that a query may see, by the labels of the queries: a lane looks for those of a slot.
  Run* runs = reinterpret_cast<Run*>(a.runs) + list * least_of(a.block_q, a.most_q);
  int count = 0;
  Run open = {0, -1};
  for (int64_t base = first; base <= last; base += kWarp) {
    const int64_t slot = base + lane();
    Run own = {0, -1};
    if (slot <= last) {
      const int32_t label = labels[q_order[slot]];
      if (slot == last || labels[q_order[slot + 1]] != label) {  // the last of a label sees most
        const int begin = keys_up_to(label - 1, p.of.len_k);
        const int end = keys_up_to(label, a.causal != 0 ? position(slot) : p.of.len_k);
        if (begin < end) own = {begin / a.block_k, (end - 1) / a.block_k};
      }
    }
    for (int from = 0; from < kWarp; ++from) {
      const Run next = {shuffle(own.first, from), shuffle(own.last, from)};
      if (next.last < 0) continue;
      if (open.last >= 0 && next.first <= open.last + 1) {
        open.last = next.last;
        continue;
      }
      if (open.last >= 0) {
        if (lane() == 0) runs[count] = open;
        ++count;
      }
      open = next;
    }
  }
  if (lane() != 0) return;
  if (open.last >= 0) runs[count++] = open;
  const int64_t middle = (first + last) / 2;
  const int keys = keys_up_to(labels[q_order[middle]], position(middle));
  a.counts[list] = nearest(a, runs, count, keys == 0 ? 0 : (keys - 1) / a.block_k, a.columns + list * a.width);
}

}  // namespace

SelectKernel select_label_kernel(int type) { return type == 0 ? label<float> : type == 1 ? label<Bf16> : label<Half>; }
SelectKernel select_sort_kernel() { return sort; }
SelectKernel select_near_kernel() { return near; }

int select_sort_bytes() { return 2 * (kSelectThreads / kWarp) * 4; }

}  // namespace gatun::gpu
