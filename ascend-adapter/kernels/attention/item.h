// What a tile of queries is and which keys it meets: read by the cube core and the vector cores alike, of the arrays of a run, of
// which nothing was checked before. What leads nowhere is left out, or taken to be the nearest that does.
#pragma once

#include "kernels/attention/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {

// The arrays of a run that say what is where and what is seen, as gatun.h has them; null where a plan has no use for one.
struct AttentionArrays {
  GM_ADDR q_index;
  GM_ADDR k_index;
  GM_ADDR block_table;
  GM_ADDR block_offsets;
  GM_ADDR block_columns;
  GM_ADDR q_order;
  GM_ADDR k_order;
  GM_ADDR sink_logits;
  GM_ADDR slopes;
  GM_ADDR bias;
  GM_ADDR prefixes;
  GM_ADDR globals;
  GM_ADDR q_documents;
  GM_ADDR k_documents;
  GM_ADDR tree;
  GM_ADDR block_mask_index;
  GM_ADDR block_masks;
  GM_ADDR block_bias;
  GM_ADDR k_scales;
  GM_ADDR v_scales;
};

// Places key to key + n - 1: keys of the sequence, in their order where there is one; or, where entries of the block list are joined,
// theirs, block_k for each of the list. `entry`: of the block list, or -1.
struct AttentionStep {
  int64_t key, n, entry;
};

// Tiles go by sequence, head and block of queries. A tile's steps have no key that lies outside of the window for all of its
// queries: its value may be NaN, which the cube unit would not leave out for a weight of 0.
class AttentionItem {
 public:
  int64_t sequence = -1, head = 0, row = 0, m = 0;      // the tile's first query and how many there are
  int64_t first_q = 0, first_k = 0, len_q = 0, len_k = 0;  // of the sequence
  int64_t prefix = 0;

  __aicore__ inline AttentionItem(const AttentionTiling& t, const AttentionArrays& a)
      : t_(t),
        q_index_(global<int64_t>(a.q_index)),
        k_index_(global<int64_t>(a.k_index)),
        prefixes_(global<int64_t>(a.prefixes)),
        offsets_(global<int64_t>(a.block_offsets)),
        columns_(global<int32_t>(a.block_columns)),
        table_(global<int32_t>(a.block_table)),
        q_order_(global<int32_t>(a.q_order)),
        k_order_(global<int32_t>(a.k_order)) {}

  // Goes to tile i, which is no earlier than the last, and before its first step. False where there is none.
  __aicore__ inline bool find(int64_t i) {
    while (i >= first_item_ + items_) {
      if (++sequence >= t_.batch) return false;
      first_item_ += items_;
      measure(t_.has_q_index, t_.packed_q, q_index_, t_.len_q, t_.most_q, &first_q, &len_q);
      measure(t_.has_k_index, t_.packed_k, k_index_, t_.len_k, t_.most_k, &first_k, &len_k);
      prefix = t_.has_prefix != 0 ? between(0, prefixes_.GetValue(static_cast<uint64_t>(sequence)), len_k) : 0;
      tiles_ = blocks(len_q) * tiles_of_block();
      items_ = t_.heads * tiles_;
    }
    head = t_.first_head + (i - first_item_) / tiles_;
    const int64_t tile = (i - first_item_) % tiles_, block = tile / tiles_of_block();
    const int64_t span = t_.list_heads != 0 ? t_.block_q : len_q;
    row = block * span + tile % tiles_of_block() * t_.tile_m;
    m = between(0, least(least((block + 1) * span, len_q) - row, t_.tile_m), t_.tile_m);
    bound();
    if (t_.list_heads != 0) find_list(block);
    key_ = 0;
    return true;
  }

  __aicore__ inline bool next(AttentionStep* step) {
    if (t_.list_heads == 0) {
      if (key_ >= sinks_ && key_ < low_) key_ = low_;
      if (key_ >= high_) return false;
      const int64_t end = key_ < sinks_ && sinks_ < low_ ? least(sinks_, high_) : high_;
      *step = {key_, whole(key_, least(end - key_, kAttentionN)), -1};
      key_ += step->n;
      return true;
    }
    if (attention_joins(t_)) return join(step);
    for (; entry_ < last_entry_; ++entry_, key_ = 0) {
      const int64_t start = column(entry_) * t_.block_k;
      const int64_t from = most(start + key_, low_), end = least(start + t_.block_k, high_);
      if (from >= end) continue;
      *step = {from, whole(from, least(end - from, kAttentionN)), entry_};
      key_ = from + step->n - start;
      return true;
    }
    return false;
  }

  // Of the first query, where there is no order.
  __aicore__ inline int64_t position() const { return row + len_k - len_q; }
  __aicore__ inline int64_t head_k() const { return head / (t_.heads_q / t_.heads_k); }
  // The run's arrays lie by sequence, or are one for all tokens.
  __aicore__ inline int64_t sequence_q() const { return t_.packed_q != 0 ? 0 : sequence; }
  __aicore__ inline int64_t sequence_k() const { return t_.packed_k != 0 ? 0 : sequence; }

  // The query and the key of a place in their orders; -1: no key.
  __aicore__ inline int64_t query(int64_t place) const {
    if (t_.order_heads == 0) return place;
    const int64_t at = (sequence_q() * t_.order_heads + order_head()) * t_.lq + first_q + place;
    return between(0, q_order_.GetValue(static_cast<uint64_t>(at)), len_q - 1);
  }
  __aicore__ inline int64_t key(int64_t place) const {
    if (attention_joins(t_)) place = column(place / t_.block_k) * t_.block_k + place % t_.block_k;
    if (t_.order_heads == 0) return place;
    const int64_t at = (sequence_k() * t_.order_heads + order_head()) * t_.lk + first_k + place;
    return between(-1, k_order_.GetValue(static_cast<uint64_t>(at)), len_k - 1);
  }

  // Where rows lie, in elements, and how many of `count` from a place on follow each other.
  __aicore__ inline int64_t side_by_side(int64_t count) const { return t_.order_heads != 0 ? 1 : count; }
  // Keys need not follow each other as their places do.
  __aicore__ inline bool keys_apart() const { return t_.order_heads != 0 || attention_joins(t_); }
  __aicore__ inline int64_t keys_side_by_side(int64_t place, int64_t count) const {
    if (t_.order_heads != 0) return 1;
    if (attention_joins(t_)) count = least(count, t_.block_k - place % t_.block_k);
    return t_.page_size == 0 ? count : least(count, t_.page_size - key(place) % t_.page_size);
  }
  __aicore__ inline int64_t at_q(int64_t place, int64_t batch_stride, int64_t row_stride) const {
    return t_.packed_q != 0 ? (first_q + query(place)) * row_stride : sequence * batch_stride + query(place) * row_stride;
  }
  __aicore__ inline int64_t at_k(int64_t place, int64_t batch_stride, int64_t row_stride) const {
    const int64_t j = most(key(place), 0);
    if (t_.page_size != 0) {
      const int64_t entry = sequence * t_.table_width + j / t_.page_size;
      const int64_t page = between(0, table_.GetValue(static_cast<uint64_t>(entry)), t_.pages - 1);
      return page * batch_stride + j % t_.page_size * row_stride;
    }
    return t_.packed_k != 0 ? (first_k + j) * row_stride : sequence * batch_stride + j * row_stride;
  }

 private:
  __aicore__ inline int64_t blocks(int64_t queries) const {
    return t_.list_heads != 0 ? (queries + t_.block_q - 1) / t_.block_q : queries > 0;
  }
  __aicore__ inline int64_t tiles_of_block() const {
    return ((t_.list_heads != 0 ? least(t_.block_q, most(len_q, 1)) : len_q) + t_.tile_m - 1) / t_.tile_m;
  }
  __aicore__ inline int64_t order_head() const { return head / (t_.heads_q / t_.order_heads); }

  __aicore__ inline void measure(int32_t has_index, int32_t packed, const GlobalTensor<int64_t>& index, int64_t all,
                                 int64_t longest, int64_t* first, int64_t* length) const {
    const uint64_t at = static_cast<uint64_t>(sequence);
    const int64_t value = has_index != 0 ? between(0, index.GetValue(at), all) : all;
    *first = packed != 0 ? value : 0;
    *length = least(packed != 0 ? between(value, index.GetValue(at + 1), all) - value : value, longest);
  }

  // Keys that some query of the tile may see lie from low to high - 1, but for sinks before them.
  __aicore__ inline void bound() {
    const bool ordered = t_.order_heads != 0, lifted = ordered || t_.max_globals > 0;
    sinks_ = t_.left >= 0 ? least(t_.sinks, len_k) : 0;
    low_ = t_.left < 0 || lifted ? 0 : most(position() - t_.left, 0);
    high_ = len_k;
    if (!ordered && t_.right == 0) high_ = between(0, most(position() + m, prefix), len_k);
    if (!lifted && t_.right > 0) high_ = between(0, most(most(position() + m + t_.right, prefix), t_.sinks), len_k);
    if (m == 0) high_ = low_ = sinks_ = 0;
  }

  // A list that does not rise from 0 on cannot be followed: it is taken to be empty. Where there are sinks all of it is looked at.
  __aicore__ inline void find_list(int64_t block) {
    const int64_t lists = (t_.lq + t_.block_q - 1) / t_.block_q;
    const int64_t list = (sequence * t_.list_heads + head / (t_.heads_q / t_.list_heads)) * lists + block;
    entry_ = between(0, offsets_.GetValue(static_cast<uint64_t>(list)), t_.list_entries);
    last_entry_ = between(entry_, offsets_.GetValue(static_cast<uint64_t>(list + 1)), t_.list_entries);
    int64_t before = -1;
    for (int64_t e = entry_; e < last_entry_; ++e) {
      const int64_t here = column(e);
      if (here <= before) last_entry_ = entry_;
      before = here;
    }
    if (sinks_ > 0) low_ = 0;
  }
  // As many entries as a tile has room for, of those that have keys which some query may see: they follow each other.
  __aicore__ inline bool join(AttentionStep* step) {
    const auto outside = [this](int64_t entry) {
      const int64_t start = column(entry) * t_.block_k;
      return start + t_.block_k <= low_ || start >= high_;
    };
    while (entry_ < last_entry_ && outside(entry_)) ++entry_;
    const int64_t first = entry_, end = least(last_entry_, first + kAttentionN / t_.block_k);
    while (entry_ < end && !outside(entry_)) ++entry_;
    if (entry_ == first) return false;
    const int64_t beyond = most((column(entry_ - 1) + 1) * t_.block_k - high_, 0);
    *step = {first * t_.block_k, (entry_ - first) * t_.block_k - beyond, first};
    return true;
  }
  __aicore__ inline int64_t column(int64_t entry) const { return columns_.GetValue(static_cast<uint64_t>(entry)); }

  // Trees begin with a step of their own.
  __aicore__ inline int64_t whole(int64_t key, int64_t n) const {
    const int64_t drafted = len_k - len_q;
    return t_.max_tree != 0 && key < drafted && key + n > drafted ? drafted - key : n;
  }

  const AttentionTiling& t_;
  GlobalTensor<int64_t> q_index_, k_index_, prefixes_, offsets_;
  GlobalTensor<int32_t> columns_, table_, q_order_, k_order_;
  int64_t first_item_ = 0, items_ = 0, tiles_ = 1;
  int64_t low_ = 0, high_ = 0, sinks_ = 0, key_ = 0, entry_ = 0, last_entry_ = 0;
};

}  // namespace gatun::ascend
