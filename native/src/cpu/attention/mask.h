// What the queries of one sequence and head see: the predicate of gatun.h, element by element. Both the blocks of keys
// (compiled once) and the kernels (compiled once per level) use it, so everything here is static.
#pragma once

#include <cstdint>

namespace gatun::cpu {

// Keys first to last - 1.
struct KeyRange {
  int64_t first, last;
};

struct Mask {
  int64_t len_q, len_k;
  int64_t left, right;  // reach of the window in keys, or -1: unlimited; at most len_q + len_k of the plan
  int64_t dilation;
  int64_t sinks, prefix;   // 0 to len_k
  const int32_t* globals;  // positions, rising
  int64_t global_count;
  // Labels of the last layer; those of the layer before lie `q_layer` and `k_layer` back. Null: no documents.
  const int32_t *q_labels, *k_labels;
  int64_t layers, q_layer, k_layer;
  const uint8_t* tree;  // null: none
  int64_t tree_row;
};

struct QueryRow {
  int64_t query, position;
  bool global;
};

// Whether `position` is among `count` rising numbers.
static inline bool is_among(const int32_t* numbers, int64_t count, int64_t position) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (numbers[middle] == position) return true;
    if (numbers[middle] < position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return false;
}

static inline QueryRow row_of(const Mask& mask, int64_t query) {
  const int64_t position = query + mask.len_k - mask.len_q;
  return {query, position, is_among(mask.globals, mask.global_count, position)};
}

// The keys that the window leaves a row; `lifted`: keys that are sinks or global tokens. Neither end falls from one
// query to the next, as long as both are global or neither is.
static inline KeyRange window_of(const Mask& mask, const QueryRow& row, bool lifted) {
  const bool lift = lifted || row.global;
  int64_t last = mask.len_k;
  if (mask.right == 0 || (mask.right > 0 && !lift)) {
    last = row.position + mask.right + 1;
    if (last < mask.prefix) last = mask.prefix;
    if (last > mask.len_k) last = mask.len_k;
    if (last < 0) last = 0;
  }
  int64_t first = mask.left < 0 || lift ? 0 : row.position - mask.left;
  if (first < 0) first = 0;
  if (first > last) first = last;
  return {first, last};
}

static inline bool labels_admit(const Mask& mask, int64_t query, int64_t key) {
  const int32_t* q = mask.q_labels + query;
  const int32_t* k = mask.k_labels + key;
  if (*q != *k) return false;
  for (int64_t layer = 1; layer < mask.layers; ++layer) {
    if (q[-layer * mask.q_layer] == k[-layer * mask.k_layer]) return false;
  }
  return true;
}

// Everything but block lists.
static inline bool visible(const Mask& mask, const QueryRow& row, int64_t key) {
  const bool lifted = row.global || key < mask.sinks || is_among(mask.globals, mask.global_count, key);
  const KeyRange window = window_of(mask, row, lifted);
  if (key < window.first || key >= window.last) return false;
  if (mask.dilation > 1 && !lifted && (row.position - key) % mask.dilation != 0) return false;
  if (mask.q_labels != nullptr && !labels_admit(mask, row.query, key)) return false;
  if (mask.tree != nullptr) {
    const int64_t drafted = key - (mask.len_k - mask.len_q);
    if (drafted >= 0 && mask.tree[row.query * mask.tree_row + drafted] == 0) return false;
  }
  return true;
}

}  // namespace gatun::cpu
