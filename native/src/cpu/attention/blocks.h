// The blocks of keys that a tile of queries looks at: what every pattern comes down to. The analytic patterns compute
// theirs from the positions of the tile's first and last row; block lists, orders and documents take theirs from the
// arrays of the run. A block is full where every row of the tile sees every key, and else says who decides.
//
// Each key comes in one block at most. Work is proportional to what is visible, up to the ends of blocks: nothing here
// walks over keys that no row of the tile can see, but for documents, whose labels are compared 64 keys at a time where
// keys lie in a row, and key by key where an order or a list names them.
#pragma once

#include <type_traits>

#include "cpu/attention/attention.h"

namespace gatun::cpu {

// Least and greatest label of kLabelKeys consecutive keys.
struct LabelRange {
  int32_t least, greatest;
};
constexpr int64_t kLabelKeys = 64;

// What the rows of a tile have in common.
struct TileRows {
  QueryRow low, high;  // of the lowest and the highest position
  bool all_global, some_global;
  bool one_residue;        // all positions are equal modulo the dilation
  LabelRange labels;       // of the queries, in the last layer
  uint64_t common_layers;  // bit l - 1: in the layer l before the last one all queries have one label
};

constexpr int64_t kCommonLayers = 64;  // so many layers before the last are looked at

// Bits 0 to count - 1.
inline uint64_t low_bits(int64_t count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// The keys of one sequence and head, and what the run says of them.
struct KeySet {
  const int32_t* order;         // null: none; else the key of each slot, -1 for none
  const LabelRange* labels;     // by kLabelKeys slots; null: no documents
  const int64_t* list_offsets;  // of the tile's block of queries: two entries; null: no block lists
  const int32_t* list_columns;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A visitor that only counts: runs of blocks are not gone through, which a plan of any length would wait for.
struct CountBlocks {
  int64_t* blocks;
  void operator()(const KeyBlock&) const { ++*blocks; }
  void operator()(int64_t more) const { *blocks += more; }
};

// Calls visit(block) for the blocks of a tile, in a fixed order. `scratch` holds 3 * tiling.block_keys numbers, which
// the blocks point into; patterns without arrays need none.
template <typename Visit>
class KeyBlocks {
  static constexpr bool kCounts = std::is_same_v<Visit, CountBlocks>;

 public:
  KeyBlocks(const AttentionTile& tile, const TileRows& rows, const KeySet& keys, const AttentionTiling& tiling,
            int32_t* scratch, Visit visit)
      : tile_(tile),
        mask_(tile.mask),
        rows_(rows),
        keys_(keys),
        tiling_(tiling),
        tokens_(scratch),
        places_used_(tile.lists.mask_index != nullptr || tile.lists.bias != nullptr),
        one_class_(rows.labels.least == rows.labels.greatest && mask_.layers - 1 <= kCommonLayers &&
                   rows.common_layers == low_bits(mask_.layers - 1)),
        visit_(visit) {}

  void visit_all() {
    if (keys_.list_offsets != nullptr) {
      listed();
    } else if (keys_.order != nullptr) {
      slots(0, mask_.len_k, false);
    } else {
      analytic();
    }
  }

 private:
  // ---- Where the keys are ------------------------------------------------------------------------------------------

  void analytic() {
    const int64_t lifted_end = window_of(mask_, rows_.high, true).last;
    if (rows_.some_global) return slots(0, lifted_end, rows_.all_global);
    const int64_t sinks = mask_.sinks < lifted_end ? mask_.sinks : lifted_end;
    slots(0, sinks, true);
    const KeyRange hull = {window_of(mask_, rows_.low, false).first, window_of(mask_, rows_.high, false).last};
    const int64_t step = rows_.one_residue ? mask_.dilation : 1;
    int64_t first = hull.first < sinks ? sinks : hull.first;
    if (step > 1) first += ((rows_.low.position - first) % step + step) % step;
    if (step > 1) {
      stepped(first, hull.last, step);
    } else {
      slots(first, hull.last, false);
    }
    // Global tokens that are not among those.
    for (int64_t i = 0; i < mask_.global_count; ++i) {
      const int64_t token = mask_.globals[i];
      if (token < sinks) continue;
      if (token >= lifted_end) break;
      if (token >= first && token < hull.last && (token - first) % step == 0) continue;
      if (hidden(token)) continue;
      if (count_ == tiling_.block_keys) flush(true);
      tokens_[count_++] = static_cast<int32_t>(token);
    }
    flush(true);
  }

  void listed() {
    // Without anything that lifts it, the window cuts lists short.
    KeyRange hull = {0, mask_.len_k};
    if (keys_.order == nullptr && mask_.sinks == 0 && mask_.global_count == 0) {
      hull = {window_of(mask_, rows_.low, false).first, window_of(mask_, rows_.high, false).last};
    }
    const int64_t width = tile_.lists.block_k;
    const bool gather = places_used_ || width < tiling_.block_keys / 4;
    KeyRange run = {0, 0};
    for (int64_t entry = keys_.list_offsets[0]; entry < keys_.list_offsets[1]; ++entry) {
      // A column is below 2^31, and so is the length of a sequence that has any.
      const int64_t first = keys_.list_columns[entry] * width;
      if (first >= mask_.len_k) break;
      const int64_t last = first + width < mask_.len_k ? first + width : mask_.len_k;
      if (first >= hull.last) break;
      if (last <= hull.first) continue;
      if (!gather) {
        if (first == run.last) {
          run.last = last;
          continue;
        }
        slots(run.first < hull.first ? hull.first : run.first, run.last, false);
        run = {first, last};
        continue;
      }
      for (int64_t slot = first; slot < last; ++slot) {
        const int64_t token = keys_.order != nullptr ? keys_.order[slot] : slot;
        if (hidden(token)) continue;
        if (count_ == tiling_.block_keys) flush(false);
        tokens_[count_] = static_cast<int32_t>(token);
        entries()[count_] = static_cast<int32_t>(entry);
        places()[count_] = static_cast<int32_t>(slot - first);
        ++count_;
      }
    }
    if (gather) {
      flush(false);
    } else {
      slots(run.first < hull.first ? hull.first : run.first, run.last < hull.last ? run.last : hull.last, false);
    }
  }

  // The keys of slots first to last - 1 whose labels may be those of the tile.
  void slots(int64_t first, int64_t last, bool lifted) {
    if (first >= last) return;
    if (keys_.labels == nullptr) return uniform(first, last, lifted);
    for (int64_t chunk = first / kLabelKeys; first < last; ++chunk) {
      const int64_t end = (chunk + 1) * kLabelKeys < last ? (chunk + 1) * kLabelKeys : last;
      if (!disjoint(keys_.labels[chunk])) continue_run(first, end, lifted);
      first = end;
    }
    end_run(lifted);
  }

  void continue_run(int64_t first, int64_t last, bool lifted) {
    if (run_.last != first || run_.first == run_.last) {
      end_run(lifted);
      run_.first = first;
    }
    run_.last = last;
  }

  void end_run(bool lifted) {
    if (run_.first < run_.last) uniform(run_.first, run_.last, lifted);
    run_ = {0, 0};
  }

  // ---- Cut into blocks ---------------------------------------------------------------------------------------------

  // Even blocks: a short one at the end would cost its share of the softmax's fixed work for few keys.
  int64_t block_size(int64_t keys) const {
    const int64_t even = ceil_div(keys, ceil_div(keys, tiling_.block_keys));
    return ceil_div(even, tiling_.key_step) * tiling_.key_step;
  }

  void uniform(int64_t first, int64_t last, bool lifted) {
    const int64_t size = block_size(last - first);
    if constexpr (kCounts) return visit_(ceil_div(last - first, size));
    if (keys_.order == nullptr) {
      for (int64_t slot = first; slot < last; slot += size) {
        emit_range(slot, last - slot < size ? last - slot : size, 1, lifted);
      }
      return;
    }
    for (int64_t slot = first; slot < last; ++slot) {
      const int32_t token = keys_.order[slot];
      tokens_[count_] = token;
      count_ += hidden(token) ? 0 : 1;
      if (count_ == size) flush(lifted);
    }
    flush(lifted);
  }

  void stepped(int64_t first, int64_t last, int64_t step) {
    if (first >= last) return;
    const int64_t keys = ceil_div(last - first, step);
    const int64_t size = block_size(keys);
    if constexpr (kCounts) return visit_(ceil_div(keys, size));
    for (int64_t key = 0; key < keys; key += size) {
      emit_range(first + key * step, keys - key < size ? keys - key : size, step, false);
    }
  }

  void emit_range(int64_t first, int64_t count, int64_t step, bool lifted) {
    const int64_t last = first + (count - 1) * step;
    same_labels_ = step == 1 && labels_equal(first, last + 1);
    visit_(KeyBlock{first, step, nullptr, static_cast<int32_t>(count), kind(first, last, step, lifted), lifted, nullptr,
                    nullptr});
  }

  // Of the collected keys; behind them in the scratch.
  int32_t* entries() const { return tokens_ + tiling_.block_keys; }
  int32_t* places() const { return tokens_ + 2 * tiling_.block_keys; }

  // The keys collected in tokens_, none of them hidden.
  void flush(bool lifted) {
    if (count_ == 0) return;
    same_labels_ = one_class_;
    KeyBlock block = {0, 0, tokens_, static_cast<int32_t>(count_), KeyBlock::kGeneral, lifted, nullptr, nullptr};
    if (keys_.list_offsets != nullptr && places_used_) {
      block.entries = entries();
      block.places = places();
    }
    // Orders by hashing rise within a label, and so do most of their blocks. Elsewhere all or nothing is what the least
    // and the greatest key can say.
    int32_t least = tokens_[0], greatest = tokens_[0];
    bool rising = true;
    for (int64_t t = 1; t < count_; ++t) {
      rising = rising && tokens_[t] > tokens_[t - 1];
      least = tokens_[t] < least ? tokens_[t] : least;
      greatest = tokens_[t] > greatest ? tokens_[t] : greatest;
    }
    block.kind = kind(least, greatest, 1, lifted);
    if (block.kind == KeyBlock::kRange && !rising) block.kind = KeyBlock::kGeneral;
    if (block.entries != nullptr && tile_.lists.mask_index != nullptr) {
      for (int64_t t = 0; t < count_; ++t) {
        if (tile_.lists.mask_index[block.entries[t]] >= 0) block.kind = KeyBlock::kGeneral;
      }
    }
    visit_(block);
    count_ = 0;
  }

  // ---- Who decides -------------------------------------------------------------------------------------------------

  bool disjoint(const LabelRange& labels) const {
    return labels.greatest < rows_.labels.least || labels.least > rows_.labels.greatest;
  }

  // Whether the token is no key, or one that labels hide from every query: by the last layer, or by one before it in
  // which all have the key's. Without branches: whether a key is hidden is as good as random.
  bool hidden(int64_t token) const {
    if (keys_.labels == nullptr) return token < 0;
    const int32_t* label = mask_.k_labels + (token < 0 ? 0 : token);
    const int32_t* theirs = mask_.q_labels + rows_.low.query;
    uint32_t hides = (token < 0 ? 1u : 0u) | (*label < rows_.labels.least ? 1u : 0u) |
                     (*label > rows_.labels.greatest ? 1u : 0u);
    for (uint64_t layers = rows_.common_layers; layers != 0; layers &= layers - 1) {
      const int64_t layer = __builtin_ctzll(layers) + 1;
      hides |= label[-layer * mask_.k_layer] == theirs[-layer * mask_.q_layer] ? 1u : 0u;
    }
    return hides != 0;
  }

  // Whether all keys of these slots have the one label of all queries.
  bool labels_equal(int64_t first, int64_t last) const {
    if (keys_.labels == nullptr || mask_.layers != 1 || rows_.labels.least != rows_.labels.greatest) return false;
    for (int64_t chunk = first / kLabelKeys; chunk * kLabelKeys < last; ++chunk) {
      const LabelRange& labels = keys_.labels[chunk];
      if (labels.least != rows_.labels.least || labels.greatest != rows_.labels.least) return false;
    }
    return true;
  }

  bool labels_admit_all() const { return mask_.q_labels == nullptr || same_labels_; }

  // No part of the pattern hides anything.
  bool is_open() const {
    return mask_.left < 0 && mask_.right < 0 && mask_.dilation == 1 && mask_.tree == nullptr && labels_admit_all();
  }

  // For keys from the least, `first`, to the greatest, `last`; kRange is for those that rise.
  KeyBlock::Kind kind(int64_t first, int64_t last, int64_t step, bool lifted) const {
    if (is_open()) return KeyBlock::kFull;
    if (!labels_admit_all()) return KeyBlock::kGeneral;
    if (mask_.tree != nullptr && last >= mask_.len_k - mask_.len_q) return KeyBlock::kGeneral;
    if (rows_.some_global && !rows_.all_global) return KeyBlock::kGeneral;
    const bool lift = lifted || rows_.all_global;
    if (mask_.dilation > 1 && !lift && (step % mask_.dilation != 0 || !rows_.one_residue)) return KeyBlock::kGeneral;
    if (first >= window_of(mask_, rows_.high, lifted).first && last < window_of(mask_, rows_.low, lifted).last) {
      return KeyBlock::kFull;
    }
    if (!lift && (first < mask_.sinks || any_global(first, last))) return KeyBlock::kGeneral;
    return KeyBlock::kRange;
  }

  bool any_global(int64_t first, int64_t last) const {
    for (int64_t i = 0; i < mask_.global_count && mask_.globals[i] <= last; ++i) {
      if (mask_.globals[i] >= first) return true;
    }
    return false;
  }

  const AttentionTile& tile_;
  const Mask& mask_;
  const TileRows& rows_;
  const KeySet& keys_;
  const AttentionTiling& tiling_;
  int32_t* tokens_;  // so far count_ of them
  const bool places_used_;
  const bool one_class_;  // all queries have the same labels: what is not hidden from them all, they all see
  int64_t count_ = 0;
  bool same_labels_ = false;
  KeyRange run_ = {0, 0};
  Visit visit_;
};

}  // namespace gatun::cpu
