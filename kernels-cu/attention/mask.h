// What the queries of one sequence and head see: the predicate of gatun.h, element by element. Positions are 32-bit: the plan
// declines lengths of 2^29 and more.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu::attention {

// Keys first to last - 1.
struct KeyRange {
  int first, last;
};

struct Mask {
  int len_q, len_k;
  int left, right;  // reach of the window in keys, or -1
  int dilation;
  int sinks, prefix;       // 0 to len_k
  const int32_t* globals;  // positions, rising
  int global_count;
  // Labels of the last layer; those of the layer before lie `q_layer` and `k_layer` back. Null: no documents.
  const int32_t *q_labels, *k_labels;
  int layers;
  int64_t q_layer, k_layer;
  const uint8_t* tree;  // null: none
  int tree_row;
};

struct QueryRow {
  int query, position;
  bool global;
};

GPU_DEVICE int at_least(int a, int b) { return a > b ? a : b; }
GPU_DEVICE int at_most(int a, int b) { return a < b ? a : b; }

// The first of `count` rising numbers that is not below `position`.
GPU_DEVICE int lower_bound(const int32_t* numbers, int count, int position) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (numbers[middle] < position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

GPU_DEVICE bool is_among(const int32_t* numbers, int count, int position) {
  const int at = lower_bound(numbers, count, position);
  return at < count && numbers[at] == position;
}

GPU_DEVICE QueryRow row_of(const Mask& mask, int query) {
  const int position = query + mask.len_k - mask.len_q;
  return {query, position, mask.global_count > 0 && is_among(mask.globals, mask.global_count, position)};
}

// The keys that the window leaves a row; `lifted`: keys that are sinks or global tokens.
GPU_DEVICE KeyRange window_of(const Mask& mask, const QueryRow& row, bool lifted) {
  const bool lift = lifted || row.global;
  int last = mask.len_k;
  if (mask.right == 0 || (mask.right > 0 && !lift)) {
    last = at_least(at_most(at_least(row.position + mask.right + 1, mask.prefix), mask.len_k), 0);
  }
  const int first = mask.left < 0 || lift ? 0 : at_least(row.position - mask.left, 0);
  return {at_most(first, last), last};
}

GPU_DEVICE bool labels_admit(const Mask& mask, int query, int key) {
  const int32_t* q = mask.q_labels + query;
  const int32_t* k = mask.k_labels + key;
  if (*q != *k) return false;
  for (int layer = 1; layer < mask.layers; ++layer) {
    if (q[-layer * mask.q_layer] == k[-layer * mask.k_layer]) return false;
  }
  return true;
}

// Everything but block lists.
GPU_DEVICE bool visible(const Mask& mask, const QueryRow& row, int key) {
  const bool lifted =
      row.global || key < mask.sinks || (mask.global_count > 0 && is_among(mask.globals, mask.global_count, key));
  const KeyRange window = window_of(mask, row, lifted);
  if (key < window.first || key >= window.last) return false;
  if (mask.dilation > 1 && !lifted && (row.position - key) % mask.dilation != 0) return false;
  if (mask.q_labels != nullptr && !labels_admit(mask, row.query, key)) return false;
  if (mask.tree != nullptr) {
    const int drafted = key - (mask.len_k - mask.len_q);
    if (drafted >= 0 && mask.tree[static_cast<int64_t>(row.query) * mask.tree_row + drafted] == 0) return false;
  }
  return true;
}

}  // namespace gatun::gpu::attention
