// Selection by hashing: rows are labelled, sorted by label, and blocks of queries look at the keys of their labels.
//
//   label of x in a layer = argmax of [x R; -x R]
//
// Bytes: the rotations of a head once for each few rows, from the L2 cache. FLOPs: dk * buckets for a row and layer, as in
// kernels.cpp by the vector unit, which binds labels. Sorting by counting and the search for blocks are the scalar unit's, one
// sequence and head, or one list, after the other. Kitaev et al. 2020, Reformer (section 2).
#include "kernels/select/rows.h"

namespace gatun::ascend {
namespace {

template <typename X>
class LabelRows {
 public:
  __aicore__ inline LabelRows(TPipe* pipe, const SelectTiling& t, GM_ADDR x, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR rotations,
                              GM_ADDR documents, GM_ADDR labels)
      : pipe_(pipe),
        t_(t),
        products_(pipe, t_),
        search_(pipe, (t.buckets / 2 + 255) / 256 * 256),
        x_(global<X>(x)),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)),
        rotations_(global<float>(rotations)),
        documents_(global<int32_t>(documents)),
        labels_(global<int32_t>(labels)) {
    columns_ = t.buckets / 2;
    stride_ = (columns_ + 255) / 256 * 256;
    rows_ = static_cast<int32_t>(between(1, kSelectProducts / stride_, 8));
    const uint32_t room = static_cast<uint32_t>(most(kSelectProducts, stride_));
    pipe->InitBuffer(score_buffer_, room * sizeof(float));
    pipe->InitBuffer(other_buffer_, static_cast<uint32_t>(stride_) * sizeof(float));
    pipe->InitBuffer(label_buffer_, 32);
    scores_ = score_buffer_.template Get<float>();
    other_ = other_buffer_.template Get<float>();
    label_ = label_buffer_.template Get<int32_t>();
    fill(scores_, 0.0f, static_cast<int32_t>(room));
    fill(other_, 0.0f, static_cast<int32_t>(stride_));
  }

  __aicore__ inline void run() {
    const int64_t length = t_.keys != 0 ? t_.lk : t_.lq, tiles = (length + rows_ - 1) / rows_;
    const int64_t all = t_.sequences * t_.heads_q * tiles;
    for (int64_t i = AscendC::GetBlockIdx(); i < all; i += AscendC::GetBlockNum()) {
      const int64_t at = i / tiles, first = i % tiles * rows_;
      const SelectPlace p(t_, q_index_, k_index_, at);
      const int64_t there = t_.keys != 0 ? p.of.len_k : p.of.len_q;
      if (first < there) label(p, at, first, static_cast<int32_t>(least(there - first, rows_)), length);
    }
  }

 private:
  __aicore__ inline void label(const SelectPlace& p, int64_t at, int64_t first, int32_t some, int64_t length) {
    for (int32_t r = 0; r < some; ++r) {
      const int64_t key_head = p.head / (t_.heads_q / t_.heads_k);
      products_.take(r, x_, t_.keys != 0 ? select_k_at(t_, p.of, p.sequence, key_head, first + r)
                                         : select_q_at(t_, p.of, p.sequence, p.head, first + r));
    }
    for (int64_t layer = 0; layer < t_.layers; ++layer) {
      const int64_t from = (p.head * t_.layers + layer) * columns_;
      for (int64_t c = 0; c < columns_; c += products_.some()) {
        products_.multiply(rotations_[static_cast<uint64_t>((from + c) * t_.pitch)], least(products_.some(), columns_ - c), some,
                           scores_[static_cast<uint32_t>(c)], stride_);
      }
      for (int32_t r = 0; r < some; ++r)
        label_.SetValue(static_cast<uint32_t>(r), best(scores_[static_cast<uint32_t>(r * stride_)]));
      scalar_to_out(pipe_);
      const int64_t outer = (t_.packed != 0 ? 0 : p.sequence) * t_.layers + layer;
      const int64_t start = t_.keys != 0 ? p.of.first_k : p.of.first_q;
      copy_out(documents_[static_cast<uint64_t>((outer * t_.heads_q + p.head) * length + start + first)], label_, some);
      // Of keys, those of the last layer are what is sorted.
      if (t_.keys == 0) {
        copy_out(labels_[static_cast<uint64_t>((at * t_.layers + layer) * length + first)], label_, some);
      } else if (layer + 1 == t_.layers) {
        copy_out(labels_[static_cast<uint64_t>(at * length + first)], label_, some);
      }
      out_to_scalar(pipe_);
    }
  }

  // The lower label of equals; 0 where no product is a number.
  __aicore__ inline int32_t best(const LocalTensor<float>& products) {
    const int32_t n = static_cast<int32_t>(columns_);
    muls(other_, products, -1.0f, n);
    const float above = search_.greatest(products, n), below = search_.greatest(other_, n);
    const bool negative = below > above;
    const int64_t found = negative ? search_.first(other_, below, n) : search_.first(products, above, n);
    return found == n ? 0 : static_cast<int32_t>(negative ? found + columns_ : found);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  SelectProducts<X> products_;
  SelectSearch search_;
  GlobalTensor<X> x_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<float> rotations_;
  GlobalTensor<int32_t> documents_, labels_;
  TBuf<TPosition::VECCALC> score_buffer_, other_buffer_, label_buffer_;
  LocalTensor<float> scores_, other_;
  LocalTensor<int32_t> label_;
  int64_t columns_, stride_;
  int32_t rows_;
};

// Places of queries and keys by label and then as they were, by counting, since labels are small numbers.
class SortLabels {
 public:
  __aicore__ inline SortLabels(TPipe* pipe, const SelectTiling& t, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_labels,
                               GM_ADDR k_labels, GM_ADDR q_places, GM_ADDR k_places, GM_ADDR q_order, GM_ADDR k_order)
      : pipe_(pipe),
        t_(t),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)),
        q_labels_(global<int32_t>(q_labels)),
        k_labels_(global<int32_t>(k_labels)),
        q_places_(global<int32_t>(q_places)),
        k_places_(global<int32_t>(k_places)),
        q_order_(global<int32_t>(q_order)),
        k_order_(global<int32_t>(k_order)) {
    pipe->InitBuffer(label_buffer_, kSelectLength * sizeof(int32_t));
    pipe->InitBuffer(order_buffer_, 2 * kSelectLength * sizeof(int32_t));
    pipe->InitBuffer(start_buffer_, (kSelectBuckets + 8) * sizeof(int32_t));
    labels_ = label_buffer_.Get<int32_t>();
    orders_ = order_buffer_.Get<int32_t>();
    starts_ = start_buffer_.Get<int32_t>();
  }

  __aicore__ inline void run() {
    for (int64_t at = AscendC::GetBlockIdx(); at < t_.sequences * t_.heads_q; at += AscendC::GetBlockNum()) {
      const SelectPlace p(t_, q_index_, k_index_, at);
      const int64_t out = (t_.packed != 0 ? 0 : p.sequence) * t_.heads_q + p.head;
      // By the layers in turn, each keeping the order of the ones before where labels are equal.
      int32_t turn = 0;
      bool before = false;
      for (int64_t layer = t_.causal != 0 ? t_.layers - 1 : 0; layer < t_.layers && p.of.len_q > 0; ++layer) {
        turn = sort(q_labels_, (at * t_.layers + layer) * t_.lq, p.of.len_q, turn, before);
        before = true;
      }
      write(turn, p.of.len_q, q_places_, at * t_.lq, q_order_, out * t_.lq + p.of.first_q);
      turn = p.of.len_k > 0 ? sort(k_labels_, at * t_.lk, p.of.len_k, 0, false) : 0;
      write(turn, p.of.len_k, k_places_, at * t_.lk, k_order_, out * t_.lk + p.of.first_k);
    }
  }

 private:
  // Into the other of two orders, whose number it gives; `before`: from the one of this number.
  __aicore__ inline int32_t sort(const GlobalTensor<int32_t>& labels, int64_t from, int64_t length, int32_t turn, bool before) {
    const uint32_t n = static_cast<uint32_t>(length), buckets = static_cast<uint32_t>(t_.buckets);
    const LocalTensor<int32_t> old = orders_[static_cast<uint32_t>(turn * kSelectLength)],
                               to = orders_[static_cast<uint32_t>((1 - turn) * kSelectLength)];
    const AscendC::TEventID read = pipe_->FetchEventID(HardEvent::S_MTE2);
    // The scalar unit has what it read before it goes on to the copy; the documentation asks for a flag nevertheless.
    AscendC::SetFlag<HardEvent::S_MTE2>(read);   // orders nothing
    AscendC::WaitFlag<HardEvent::S_MTE2>(read);  // orders nothing
    copy_in(labels_, labels[static_cast<uint64_t>(from)], static_cast<int32_t>(n));
    const AscendC::TEventID there = pipe_->FetchEventID(HardEvent::MTE2_S);
    AscendC::SetFlag<HardEvent::MTE2_S>(there);
    AscendC::WaitFlag<HardEvent::MTE2_S>(there);
    for (uint32_t b = 0; b <= buckets; ++b) starts_.SetValue(b, 0);
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t b = static_cast<uint32_t>(labels_.GetValue(i)) + 1;
      starts_.SetValue(b, starts_.GetValue(b) + 1);
    }
    for (uint32_t b = 0; b < buckets; ++b) starts_.SetValue(b + 1, starts_.GetValue(b + 1) + starts_.GetValue(b));
    for (uint32_t i = 0; i < n; ++i) {
      const int32_t place = before ? old.GetValue(i) : static_cast<int32_t>(i);
      const uint32_t b = static_cast<uint32_t>(labels_.GetValue(static_cast<uint32_t>(place)));
      const int32_t next = starts_.GetValue(b);
      to.SetValue(static_cast<uint32_t>(next), place);
      starts_.SetValue(b, next + 1);
    }
    return 1 - turn;
  }

  __aicore__ inline void write(int32_t turn, int64_t length, const GlobalTensor<int32_t>& places, int64_t place,
                               const GlobalTensor<int32_t>& order, int64_t to) {
    if (length == 0) return;
    const LocalTensor<int32_t> sorted = orders_[static_cast<uint32_t>(turn * kSelectLength)];
    const int32_t n = static_cast<int32_t>(length);
    scalar_to_out(pipe_);
    copy_out(places[static_cast<uint64_t>(place)], sorted, n);
    copy_out(order[static_cast<uint64_t>(to)], sorted, n);
    out_to_scalar(pipe_);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<int32_t> q_labels_, k_labels_, q_places_, k_places_, q_order_, k_order_;
  TBuf<TPosition::VECCALC> label_buffer_, order_buffer_, start_buffer_;
  LocalTensor<int32_t> labels_, orders_, starts_;
};

// The blocks of keys of each list.
class NearBlocks {
 public:
  __aicore__ inline NearBlocks(TPipe* pipe, const SelectTiling& t, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_labels,
                               GM_ADDR k_labels, GM_ADDR q_places, GM_ADDR k_places, GM_ADDR columns, GM_ADDR counts)
      : t_(t),
        lists_(pipe, columns, counts),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)),
        q_labels_(global<int32_t>(q_labels)),
        k_labels_(global<int32_t>(k_labels)),
        q_places_(global<int32_t>(q_places)),
        k_places_(global<int32_t>(k_places)) {
    pipe->InitBuffer(run_buffer_, 2 * kSelectLength * sizeof(int32_t));
    runs_ = run_buffer_.Get<int32_t>();
  }

  __aicore__ inline void run() {
    const int64_t all = t_.sequences * t_.heads_q * t_.lists;
    for (int64_t i = AscendC::GetBlockIdx(); i < all; i += AscendC::GetBlockNum()) {
      at_ = i / t_.lists;
      const SelectPlace p(t_, q_index_, k_index_, at_);
      len_k_ = p.of.len_k;
      shift_ = p.of.len_k - p.of.len_q;
      const int64_t first = i % t_.lists * t_.block_q;
      lists_.begin();
      if (first < p.of.len_q && len_k_ > 0) find(first, least(first + t_.block_q, p.of.len_q) - 1);
      lists_.end(i, t_.width);
    }
    lists_.close();
  }

 private:
  // By their place in the order.
  __aicore__ inline int64_t query(int64_t place) const { return q_places_.GetValue(static_cast<uint64_t>(at_ * t_.lq + place)); }
  __aicore__ inline int32_t label(int64_t place) const {
    return q_labels_.GetValue(static_cast<uint64_t>((at_ * t_.layers + t_.layers - 1) * t_.lq + query(place)));
  }

  // The keys that sort up to (label, position).
  __aicore__ inline int64_t keys_up_to(int32_t own, int64_t position) const {
    int64_t low = 0, high = len_k_;
    while (low < high) {
      const int64_t middle = (low + high) / 2, key = k_places_.GetValue(static_cast<uint64_t>(at_ * t_.lk + middle));
      const int32_t its = k_labels_.GetValue(static_cast<uint64_t>(at_ * t_.lk + key));
      if (its < own || (its == own && key <= position)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // Of run r of blocks: its first and its last.
  __aicore__ inline int64_t first_of(int64_t r) const { return runs_.GetValue(static_cast<uint32_t>(2 * r)); }
  __aicore__ inline int64_t last_of(int64_t r) const { return runs_.GetValue(static_cast<uint32_t>(2 * r + 1)); }

  __aicore__ inline void find(int64_t first, int64_t last) {
    // The blocks with keys that a query may see, by the labels of the queries.
    int64_t count = 0;
    for (int64_t place = first; place <= last; ++place) {
      const int32_t own = label(place);
      if (place < last && label(place + 1) == own) continue;  // the last of a label sees most
      const int64_t begin = keys_up_to(own - 1, len_k_);
      const int64_t end = keys_up_to(own, t_.causal != 0 ? query(place) + shift_ : len_k_);
      if (begin >= end) continue;
      const int64_t from = begin / t_.block_k, to = (end - 1) / t_.block_k;
      if (count == 0 || from > last_of(count - 1) + 1) runs_.SetValue(static_cast<uint32_t>(2 * count++), from);
      runs_.SetValue(static_cast<uint32_t>(2 * count - 1), to);
    }
    const int64_t middle = (first + last) / 2, keys = keys_up_to(label(middle), query(middle) + shift_);
    take_nearest(count, keys == 0 ? 0 : (keys - 1) / t_.block_k);
  }

  // From the last run that starts at or before the centre downwards, and from there upwards.
  __aicore__ inline void take_nearest(int64_t count, int64_t centre) {
    int64_t low_run = count - 1;
    while (low_run >= 0 && first_of(low_run) > centre) --low_run;
    int64_t high_run = low_run < 0 || last_of(low_run) <= centre ? low_run + 1 : low_run;
    int64_t low = low_run < 0 ? -1 : least(last_of(low_run), centre);
    int64_t high = high_run < count ? most(first_of(high_run), centre + 1) : -1;
    int64_t from = t_.blocks, to = -1;
    for (int64_t taken = 0; taken < t_.count && (low >= 0 || high >= 0); ++taken) {
      if (low >= 0 && (high < 0 || centre - low <= high - centre)) {
        from = low;
        to = most(to, low);
        if (--low < first_of(low_run)) low = --low_run >= 0 ? last_of(low_run) : -1;
      } else {
        from = least(from, high);
        to = high;
        if (++high > last_of(high_run)) high = ++high_run < count ? first_of(high_run) : -1;
      }
    }
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t b = most(first_of(r), from); b <= least(last_of(r), to); ++b) lists_.add(static_cast<int32_t>(b));
    }
  }

  const SelectTiling t_;
  SelectLists lists_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<int32_t> q_labels_, k_labels_, q_places_, k_places_;
  TBuf<TPosition::VECCALC> run_buffer_;
  LocalTensor<int32_t> runs_;
  int64_t at_ = 0, len_k_ = 0, shift_ = 0;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_LABEL_ENTRY(name, X)                                                                                         \
  extern "C" __global__ __aicore__ void gatun_select_label_##name(GM_ADDR x, GM_ADDR q_index, GM_ADDR k_index,             \
                                                                  GM_ADDR rotations, GM_ADDR documents, GM_ADDR labels,    \
                                                                  GM_ADDR tiling) {                                        \
    GATUN_SELECT_BEGIN                                                                                                     \
    gatun::ascend::LabelRows<X> kernel(&pipe, t, x, q_index, k_index, rotations, documents, labels);                       \
    kernel.run();                                                                                                          \
  }

GATUN_LABEL_ENTRY(f32, float)
GATUN_LABEL_ENTRY(bf16, bfloat16_t)
GATUN_LABEL_ENTRY(f16, half)

extern "C" __global__ __aicore__ void gatun_select_sort(GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_labels, GM_ADDR k_labels,
                                                        GM_ADDR q_places, GM_ADDR k_places, GM_ADDR q_order, GM_ADDR k_order,
                                                        GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::SortLabels kernel(&pipe, t, q_index, k_index, q_labels, k_labels, q_places, k_places, q_order, k_order);
  kernel.run();
}
extern "C" __global__ __aicore__ void gatun_select_near(GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_labels, GM_ADDR k_labels,
                                                        GM_ADDR q_places, GM_ADDR k_places, GM_ADDR columns, GM_ADDR counts,
                                                        GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::NearBlocks kernel(&pipe, t, q_index, k_index, q_labels, k_labels, q_places, k_places, columns, counts);
  kernel.run();
}
