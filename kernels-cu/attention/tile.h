// Which rows a tile has, and the blocks of keys that it looks at: what every pattern comes down to.
//
// Blocks are numbered, and block i is found without the ones before it, so that parts of a list are as easy as all of it. All
// of it is computed by every thread of a block alike, from arguments and from arrays of the run, which lie in the device's
// memory and which nobody has checked: numbers from there are cut to what there is before they lead anywhere.
#pragma once

#include "attention/args.h"
#include "attention/mask.h"

namespace gatun::gpu::attention {

// GTN_MASK_* and GTN_* of gatun.h, by number so that kernels need not include it.
constexpr uint32_t kMaskPrefix = 1, kMaskGlobals = 2, kMaskDocuments = 4, kMaskTree = 8, kMaskBlocks = 16;
constexpr int kF32 = 1, kBf16 = 2, kF16 = 3, kS8 = 4;

struct KeyBlock {
  enum Kind : int {
    kFull,     // every row of the tile sees every key
    kRange,    // a row sees those in its window
    kLifted,   // and those of its window's other keys that are sinks or global tokens, up to its last
    kGeneral,  // visible() decides, and the mask of the list's entry
  };
  int first, step;  // unless gathered, key t is first + t * step
  int count;        // of keys
  Kind kind;
  bool lifted;
  bool gathered;  // the keys are what token_of says
};

struct Tile {
  int sequence, head, key_head;
  int64_t first_q, first_k;
  int len_q, len_k;
  int column;  // the first of the values
  // Row r is of slot (first_row + r) / group of the segment and head (first_row + r) % group of the group.
  int first_row, rows;
  int first_query, query_step;
  const int32_t *q_order, *k_order;  // or null
  int64_t first_slot;                // of the segment
  Mask mask;
  int part;

  // What the rows have in common.
  int low, high;  // positions
  bool all_global, some_global, one_residue;
  int least_label, greatest_label;

  // The keys: sinks, then the window, then global tokens ...
  int keys0, first1, last1, step1, blocks0, blocks1;
  bool lifted0;
  // ... or slots of the order, or entries of the lists.
  int64_t entry;
  int entries, per_block, per_entry;
  bool listed;
  int blocks;
  // A window alone, of neighbouring keys: every row sees keys full_first to full_last - 1.
  bool plain;
  int full_first, full_last;
};

GPU_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
GPU_DEVICE int clamp(int64_t value, int64_t low, int64_t high) {
  return static_cast<int>(value < low ? low : value > high ? high : value);
}
GPU_DEVICE int head_among(const Args& a, int heads, int head) {
  return heads == 1 ? 0 : heads == a.heads_q ? head : head / a.per_key_head;
}
GPU_DEVICE int positive_mod(int a, int b) {
  const int r = a % b;
  return r < 0 ? r + b : r;
}

// Where a sequence lies.
GPU_DEVICE void place_sequence(const Args& a, int s, Tile* t) {
  t->sequence = s;
  t->first_q = t->first_k = 0;
  t->len_q = a.len_q;
  t->len_k = a.len_k;
  if (a.packed_q) {
    t->first_q = clamp(a.q_index[s], 0, a.len_q);
    t->len_q = clamp(a.q_index[s + 1] - t->first_q, 0, a.len_q - t->first_q);
  } else if (a.q_index != nullptr) {
    t->len_q = clamp(a.q_index[s], 0, a.len_q);
  }
  if (a.packed_k) {
    t->first_k = clamp(a.k_index[s], 0, a.len_k);
    t->len_k = clamp(a.k_index[s + 1] - t->first_k, 0, a.len_k - t->first_k);
  } else if (a.k_index != nullptr) {
    t->len_k = clamp(a.k_index[s], 0, a.len_k);
  }
}

GPU_DEVICE int query_of(const Args& a, const Tile& t, int row) {
  const int slot = (t.first_row + row) / a.group;
  if (t.q_order == nullptr) return t.first_query + slot * t.query_step;
  return clamp(t.q_order[t.first_slot + slot], 0, t.len_q - 1);
}

// Among packed sequences of one segment each, the one that tile `index` of all is of; false past the last.
template <int kRows>
GPU_DEVICE bool find_sequence(const Args& a, int64_t index, int* sequence, int* tile) {
  for (int base = 0; base < a.sequences; base += kWarp) {
    const int s = base + lane();
    int tiles = 0;
    if (s < a.sequences) {
      const int first = clamp(a.q_index[s], 0, a.len_q);
      tiles = ceil_div(clamp(a.q_index[s + 1] - first, 0, a.len_q - first) * a.group, kRows);
    }
    int end = tiles;
    for (int n = 1; n < kWarp; n *= 2) {
      const int before = shuffle_up(end, n);
      if (lane() >= n) end += before;
    }
    const Lanes beyond = ballot(end > index);
    if (beyond != 0) {
      int from = 0;
      while ((beyond >> from & 1) == 0) ++from;
      *sequence = base + from;
      *tile = static_cast<int>(index) - (shuffle(end, from) - shuffle(tiles, from));
      return true;
    }
    index -= shuffle(end, kWarp - 1);
  }
  return false;
}

// The labels of a tile's queries and of its positions: a look at each of its queries where positions alone do not tell.
template <int kRows>
GPU_DEVICE void look_at_rows(const Args& a, Tile* t) {
  int low = query_of(a, *t, 0), high = query_of(a, *t, t->rows - 1);
  t->least_label = INT32_MAX;
  t->greatest_label = INT32_MIN;
  if (t->q_order != nullptr || t->mask.q_labels != nullptr) {
    int least = INT32_MAX, greatest = INT32_MIN;
    for (int row = lane(); row < t->rows; row += kWarp) {
      const int query = query_of(a, *t, row);
      low = at_most(low, query);
      high = at_least(high, query);
      if (t->mask.q_labels != nullptr) {
        const int label = t->mask.q_labels[query];
        least = at_most(least, label);
        greatest = at_least(greatest, label);
      }
    }
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      low = at_most(low, shuffle_xor(low, mask));
      high = at_least(high, shuffle_xor(high, mask));
      least = at_most(least, shuffle_xor(least, mask));
      greatest = at_least(greatest, shuffle_xor(greatest, mask));
    }
    t->least_label = least;
    t->greatest_label = greatest;
  }
  const int shift = t->len_k - t->len_q;
  t->low = low + shift;
  t->high = high + shift;
  t->all_global = t->some_global = false;
  if (t->mask.global_count > 0) {
    bool some = false, all = true;
    for (int row = lane(); row < t->rows; row += kWarp) {
      const bool global = is_among(t->mask.globals, t->mask.global_count, query_of(a, *t, row) + shift);
      some = some || global;
      all = all && global;
    }
    t->some_global = any(some);
    t->all_global = gpu::all(all);
  }
  t->one_residue =
      t->q_order == nullptr && (t->mask.dilation == 1 || t->query_step % t->mask.dilation == 0 || low == high);
}

GPU_DEVICE QueryRow low_row(const Tile& t) { return {0, t.low, t.all_global}; }
GPU_DEVICE QueryRow high_row(const Tile& t) { return {0, t.high, t.all_global}; }

// Which keys the tile's blocks are of; kKeys: of a block.
template <int kKeys>
GPU_DEVICE void list_keys(const Args& a, const Pattern& p, Tile* t) {
  const Mask& mask = t->mask;
  t->keys0 = t->blocks0 = 0;
  t->lifted0 = true;
  t->step1 = 1;
  t->listed = (p.masks & kMaskBlocks) != 0;
  t->entries = 0;
  t->entry = 0;
  t->per_block = t->per_entry = 1;
  t->plain = false;
  int globals = 0;
  if (t->listed) {
    // first_row counts rows of the segment, which is one block of queries.
    const int64_t row = (static_cast<int64_t>(t->sequence) * a.block_heads + head_among(a, a.block_heads, t->head)) *
                            ceil_div(a.planned_q, a.block_q) +
                        t->first_slot / a.block_q;
    t->entry = clamp(a.block_offsets[row], 0, a.max_blocks);
    t->entries = clamp(a.block_offsets[row + 1], t->entry, a.max_blocks) - static_cast<int>(t->entry);
    if (a.block_k <= kKeys) {
      t->per_block = kKeys / a.block_k;
      t->blocks = ceil_div(t->entries, t->per_block);
    } else {
      t->per_entry = ceil_div(a.block_k, kKeys);
      t->blocks = t->entries * t->per_entry;
    }
    return;
  }
  if (t->k_order != nullptr || t->some_global) {
    t->first1 = 0;
    t->last1 = t->k_order != nullptr ? t->len_k : window_of(mask, high_row(*t), true).last;
  } else {
    const int lifted_end = window_of(mask, high_row(*t), true).last;
    const int sinks = at_most(mask.sinks, lifted_end);
    const int first = window_of(mask, low_row(*t), false).first;
    t->last1 = window_of(mask, high_row(*t), false).last;
    t->step1 = t->one_residue ? mask.dilation : 1;
    t->first1 = at_least(first, sinks);
    if (t->step1 > 1) {
      t->first1 += positive_mod(t->low - t->first1, t->step1);
      t->keys0 = sinks;
    } else if (sinks > 0 && first - sinks < kKeys && t->last1 > sinks) {
      t->first1 = 0;  // the gap is less than a block: one range, in which each key is looked at
    } else {
      t->keys0 = sinks;
    }
    globals = mask.global_count;
  }
  t->blocks0 = ceil_div(t->keys0, kKeys);
  t->blocks1 = t->last1 > t->first1 ? ceil_div(ceil_div(t->last1 - t->first1, t->step1), kKeys) : 0;
  t->blocks = t->blocks0 + t->blocks1 + ceil_div(globals, kKeys);
  t->plain = t->blocks == t->blocks1 && t->step1 == 1 && t->k_order == nullptr && mask.sinks == 0 &&
             mask.global_count == 0 && mask.q_labels == nullptr && mask.tree == nullptr && mask.dilation == 1;
  t->full_first = window_of(mask, high_row(*t), false).first;
  t->full_last = window_of(mask, low_row(*t), false).last;
}

// The tile of a thread block; false where there is none.
template <int kRows, int kKeys, int kColumns>
GPU_DEVICE bool find_tile(const Args& a, bool parts, Tile* t) {
  int64_t item = block_x();
  t->part = 0;
  if (parts) {
    t->part = static_cast<int>(item % a.parts);
    item /= a.parts;
  }
  t->column = static_cast<int>(item % a.columns) * kColumns;
  item /= a.columns;
  const int unit = static_cast<int>(item % a.units);
  item /= a.units;
  int sequence, index;
  if (a.search) {
    if (!find_sequence<kRows>(a, item, &sequence, &index)) return false;
  } else {
    sequence = static_cast<int>(item / a.tiles);
    index = a.tiles - 1 - static_cast<int>(item % a.tiles);  // with a causal mask the long ones come first
  }
  place_sequence(a, sequence, t);
  if (t->len_q == 0) return false;
  t->head = unit * a.group;
  t->key_head = t->head / a.per_key_head;
  const Pattern& p = a.patterns[a.pattern_count == 1 ? 0 : a.pattern_of[unit]];

  int slots = t->len_q;
  int segment = 0;
  t->first_query = 0;
  t->query_step = 1;
  t->first_slot = 0;
  if (!a.search) {
    segment = index / p.tiles_per_segment;
    index %= p.tiles_per_segment;
    if (segment >= p.segments) return false;
  }
  const bool ordered = a.order_heads > 0;
  if ((p.masks & kMaskBlocks) != 0) {
    t->first_slot = static_cast<int64_t>(segment) * a.block_q;
    if (t->first_slot >= t->len_q) return false;
    t->first_query = static_cast<int>(t->first_slot);
    slots = at_most(a.block_q, t->len_q - t->first_query);
  } else if (p.dilation > 1 && !ordered) {
    if (segment >= t->len_q) return false;
    t->first_query = segment;
    t->query_step = p.dilation;
    slots = ceil_div(t->len_q - segment, p.dilation);
  }
  const int64_t first_row = static_cast<int64_t>(index) * kRows;
  const int64_t segment_rows = static_cast<int64_t>(slots) * a.group;
  if (first_row >= segment_rows) return false;
  t->first_row = static_cast<int>(first_row);
  t->rows = segment_rows - first_row < kRows ? static_cast<int>(segment_rows - first_row) : kRows;

  t->q_order = t->k_order = nullptr;
  if (ordered) {
    const int h = head_among(a, a.order_heads, t->head);
    t->q_order = a.q_order +
                 (static_cast<int64_t>(a.packed_q ? 0 : sequence) * a.order_heads + h) * a.planned_q + t->first_q;
    t->k_order = a.k_order +
                 (static_cast<int64_t>(a.packed_k ? 0 : sequence) * a.order_heads + h) * a.planned_k + t->first_k;
  }
  Mask& m = t->mask;
  m.len_q = t->len_q;
  m.len_k = t->len_k;
  m.left = p.left;
  m.right = p.right;
  m.dilation = p.dilation;
  m.sinks = at_most(p.sinks, t->len_k);
  m.prefix = (p.masks & kMaskPrefix) != 0 ? clamp(a.prefixes[sequence], 0, t->len_k) : 0;
  m.globals = nullptr;
  m.global_count = 0;
  if ((p.masks & kMaskGlobals) != 0) {
    m.globals = a.globals + static_cast<int64_t>(sequence) * a.max_globals;
    for (int base = 0; base < a.max_globals; base += kWarp) {
      const int i = base + lane();
      const Lanes used = ballot(i < a.max_globals && m.globals[i] >= 0 && m.globals[i] < t->len_k);
      int count = 0;
      while (count < kWarp && (used >> count & 1) != 0) ++count;
      m.global_count += count;
      if (count < kWarp) break;
    }
  }
  m.q_labels = m.k_labels = nullptr;
  m.layers = 0;
  m.q_layer = m.k_layer = 0;
  if ((p.masks & kMaskDocuments) != 0) {
    const int h = head_among(a, a.document_heads, t->head);
    m.layers = a.document_layers;
    m.q_layer = static_cast<int64_t>(a.document_heads) * a.planned_q;
    m.k_layer = static_cast<int64_t>(a.document_heads) * a.planned_k;
    const int last = a.document_layers - 1;
    m.q_labels = a.q_documents +
                 ((static_cast<int64_t>(a.packed_q ? 0 : sequence) * a.document_layers + last) * a.document_heads + h) *
                     a.planned_q +
                 t->first_q;
    m.k_labels = a.k_documents +
                 ((static_cast<int64_t>(a.packed_k ? 0 : sequence) * a.document_layers + last) * a.document_heads + h) *
                     a.planned_k +
                 t->first_k;
  }
  m.tree = nullptr;
  m.tree_row = a.max_tree;
  if ((p.masks & kMaskTree) != 0 && t->len_q <= a.max_tree) {
    m.tree = a.tree + static_cast<int64_t>(sequence) * a.max_tree * a.max_tree;
  }
  look_at_rows<kRows>(a, t);
  list_keys<kKeys>(a, p, t);
  return true;
}

// The parts of the tile's keys, and the blocks of one.
GPU_DEVICE int parts_of(const Args& a, const Tile& t, int rows, int* part_blocks) {
  if (a.parts == 1 || static_cast<int64_t>(t.len_q) * a.group > rows) {
    *part_blocks = t.blocks;
    return 1;
  }
  *part_blocks = at_least(a.part_blocks, ceil_div(t.blocks, a.parts));
  return at_least(ceil_div(t.blocks, *part_blocks), 1);
}

// ---- Blocks --------------------------------------------------------------------------------------------------------

GPU_DEVICE bool any_global(const Mask& mask, int first, int last) {
  const int at = lower_bound(mask.globals, mask.global_count, first);
  return at < mask.global_count && mask.globals[at] <= last;
}

// For keys from the least, `first`, to the greatest, `last`; `same_labels`: all have the one label of all queries.
GPU_DEVICE KeyBlock::Kind kind_of(const Tile& t, int first, int last, int step, bool lifted, bool same_labels) {
  const Mask& mask = t.mask;
  if (mask.q_labels != nullptr && !same_labels) return KeyBlock::kGeneral;
  if (mask.left < 0 && mask.right < 0 && mask.dilation == 1 && mask.tree == nullptr) return KeyBlock::kFull;
  if (mask.tree != nullptr && last >= mask.len_k - mask.len_q) return KeyBlock::kGeneral;
  const bool lift = lifted || t.all_global;
  if (mask.dilation > 1 && !lift && (step % mask.dilation != 0 || !t.one_residue)) return KeyBlock::kGeneral;
  if (first >= window_of(mask, high_row(t), lifted).first && last < window_of(mask, low_row(t), lifted).last) {
    return KeyBlock::kFull;
  }
  if (!lift && (first < mask.sinks || (mask.global_count > 0 && any_global(mask, first, last)))) {
    return KeyBlock::kLifted;
  }
  return KeyBlock::kRange;
}

// The entry of the lists that key `t` of block `index` is of, and its place there.
GPU_DEVICE int64_t entry_of(const Args& a, const Tile& tile, int index, int t, int* place) {
  if (tile.per_entry > 1) {
    *place = index % tile.per_entry * ceil_div(a.block_k, tile.per_entry) + t;
    return tile.entry + index / tile.per_entry;
  }
  *place = t % a.block_k;
  return tile.entry + static_cast<int64_t>(index) * tile.per_block + t / a.block_k;
}

// Block `index`, below tile.blocks.
template <int kKeys>
GPU_DEVICE KeyBlock block_at(const Args& a, const Tile& t, int index) {
  KeyBlock b;
  b.step = 1;
  b.lifted = false;
  b.gathered = false;
  if (t.plain) {
    b.first = t.first1 + index * kKeys;
    b.count = at_most(kKeys, t.last1 - b.first);
    b.kind = b.first >= t.full_first && b.first + b.count <= t.full_last ? KeyBlock::kFull : KeyBlock::kRange;
    return b;
  }
  b.first = 0;
  b.kind = KeyBlock::kGeneral;
  if (t.listed) {
    b.gathered = true;
    if (t.per_entry > 1) {
      const int size = ceil_div(a.block_k, t.per_entry);
      b.count = at_most(size, a.block_k - index % t.per_entry * size);
    } else {
      b.count = at_most(t.per_block, t.entries - index * t.per_block) * a.block_k;
    }
    return b;
  }
  if (index < t.blocks0) {
    b.first = index * kKeys;
    b.count = at_most(kKeys, t.keys0 - b.first);
    b.lifted = true;
  } else if (index < t.blocks0 + t.blocks1) {
    b.step = t.step1;
    b.first = t.first1 + (index - t.blocks0) * kKeys * b.step;
    b.count = at_most(kKeys, ceil_div(t.last1 - b.first, b.step));
    b.lifted = t.all_global;
    b.gathered = t.k_order != nullptr;
  } else {
    b.first = (index - t.blocks0 - t.blocks1) * kKeys;
    b.count = at_most(kKeys, t.mask.global_count - b.first);
    b.lifted = true;
    b.gathered = true;
  }
  if (b.gathered) return b;
  bool same_labels = false;
  if (t.mask.q_labels != nullptr) {
    // One look at the labels, by every warp for itself: a block without any of the tile's is skipped.
    int least = INT32_MAX, greatest = INT32_MIN;
    for (int i = lane(); i < b.count; i += kWarp) {
      const int label = t.mask.k_labels[b.first + i * b.step];
      least = at_most(least, label);
      greatest = at_least(greatest, label);
    }
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      least = at_most(least, shuffle_xor(least, mask));
      greatest = at_least(greatest, shuffle_xor(greatest, mask));
    }
    if (greatest < t.least_label || least > t.greatest_label) b.count = 0;
    same_labels = t.mask.layers == 1 && least == greatest && least == t.least_label && least == t.greatest_label;
  }
  b.kind = kind_of(t, b.first, b.first + (b.count - 1) * b.step, b.step, b.lifted, same_labels);
  return b;
}

// Key `i` of a gathered block, or -1 for none.
GPU_DEVICE int token_of(const Args& a, const Tile& t, const KeyBlock& b, int index, int i) {
  if (i >= b.count) return -1;
  int slot = b.first + i;
  if (t.listed) {
    int place;
    const int64_t entry = entry_of(a, t, index, i, &place);
    const int column = a.block_columns[entry];
    const int64_t key = static_cast<int64_t>(column) * a.block_k + place;
    if (column < 0 || key >= t.len_k) return -1;
    slot = static_cast<int>(key);
  } else if (t.k_order == nullptr) {
    // Global tokens that the other blocks have not.
    const int token = t.mask.globals[slot];
    if (token < 0 || token >= window_of(t.mask, high_row(t), true).last) return -1;
    if (token < t.keys0) return -1;
    if (token >= t.first1 && token < t.last1 && (token - t.first1) % t.step1 == 0) return -1;
    return token;
  }
  if (t.k_order == nullptr) return slot;
  const int token = t.k_order[slot];
  return token < 0 || token >= t.len_k ? -1 : token;
}

// Whether the mask of a list's entry hides a key from a row.
GPU_DEVICE bool entry_hides(const Args& a, const Tile& t, int index, int i, int slot) {
  if (a.block_mask_index == nullptr) return false;
  int place;
  const int64_t entry = entry_of(a, t, index, i, &place);
  const int mask = a.block_mask_index[entry];
  if (mask < 0 || mask >= a.max_block_masks) return false;
  return a.block_masks[(static_cast<int64_t>(mask) * a.block_q + slot) * a.block_k + place] == 0;
}

}  // namespace gatun::gpu::attention
