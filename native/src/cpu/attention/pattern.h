// The pattern of a head as a plan keeps it, and how much of it is visible as far as the plan can tell.
#pragma once

#include "cpu/attention/blocks.h"

namespace gatun::cpu {

// Where a plan counts tile by tile or class by class, it looks at this many at most, evenly spread.
constexpr int64_t kCounted = 4096;

inline int64_t at_most(int64_t value, int64_t bound) { return value < bound ? value : bound; }

// The sum over query = 0 to n - 1 of clamp(query + shift, 0, top), in closed form: zeros, then a ramp, then a plateau.
inline double sum_clamped(int64_t n, int64_t shift, int64_t top) {
  const int64_t ramp = shift < 0 ? (-shift < n ? -shift : n) : 0;  // the first query with query + shift >= 0
  int64_t plateau = top - shift;                                   // the first query with query + shift >= top
  plateau = plateau < ramp ? ramp : (plateau > n ? n : plateau);
  const double steps = static_cast<double>(plateau - ramp);
  const double ends = static_cast<double>(ramp + shift) + static_cast<double>(plateau - 1 + shift);
  return (steps > 0 ? steps * ends / 2 : 0.0) + static_cast<double>(n - plateau) * static_cast<double>(top);
}

// Pairs of a query, of n whose first sits at position `shift`, and a key of `len_k` in its window; left and right count
// keys.
inline double window_pairs(int64_t n, int64_t shift, int64_t len_k, int64_t left, int64_t right) {
  const double dense = static_cast<double>(n) * static_cast<double>(len_k);
  const double last = right < 0 ? dense : sum_clamped(n, shift + right + 1, len_k);
  const double first = left < 0 ? 0.0 : sum_clamped(n, shift - left, len_k);
  return last - first;
}

// What a head sees. Sinks that lift nothing are taken out.
struct Pattern {
  uint32_t masks;
  int64_t left, right;  // reach in keys, or -1
  int64_t dilation, sinks;

  bool operator==(const Pattern& other) const {
    return masks == other.masks && left == other.left && right == other.right && dilation == other.dilation &&
           sinks == other.sinks;
  }
};

inline Pattern pattern_of(const gtn_attention_pattern& given, int64_t len_q, int64_t len_k) {
  // A window that reaches over all keys from anywhere is no window, and steps over all of them are one.
  const int64_t reach = len_q + len_k;
  const int64_t dilation = at_most(given.dilation, reach + 1);
  const auto keys = [&](int64_t window) { return window < 0 || window > reach / dilation ? -1 : window * dilation; };
  Pattern p = {given.masks, keys(given.window_left), keys(given.window_right), dilation, at_most(given.sinks, len_k)};
  if (p.dilation == 1 && p.left < 0 && p.right <= 0) p.sinks = 0;
  return p;
}

// Visible pairs of one head, as far as the plan can tell: what the arrays of a run hide or lift is not known.
inline double visible_pairs(const Pattern& p, int64_t len_q, int64_t len_k) {
  const int64_t shift = len_k - len_q;
  if (p.dilation == 1) {
    double pairs = window_pairs(len_q, shift, len_k, p.left, p.right);
    // Sinks to the left of the window, and to its right.
    if (p.left >= 0) pairs += sum_clamped(len_q, shift - p.left, p.sinks);
    if (p.right > 0) {
      pairs +=
          static_cast<double>(len_q) * static_cast<double>(p.sinks) - sum_clamped(len_q, shift + p.right + 1, p.sinks);
    }
    return pairs;
  }
  // Each class of positions modulo the dilation is a sequence of its own.
  const int64_t d = p.dilation;
  double pairs = 0;
  const int64_t classes = at_most(d, len_q), stride = ceil_div(classes, kCounted);
  for (int64_t i = 0; i < classes; i += stride) {
    const int64_t position = i + shift, residue = (position % d + d) % d;
    const int64_t queries = (len_q - i + d - 1) / d, keys = residue < len_k ? (len_k - residue + d - 1) / d : 0;
    pairs += static_cast<double>(stride) * window_pairs(queries, (position - residue) / d, keys,
                                                        p.left < 0 ? -1 : p.left / d, p.right < 0 ? -1 : p.right / d);
  }
  // Of the sinks, those out of the steps of the window or beyond its left end.
  if (p.sinks > 0) {
    const double rows = static_cast<double>(at_most(len_q, len_k)), others = 1.0 - 1.0 / static_cast<double>(d);
    pairs += rows * static_cast<double>(p.sinks) * others;
  }
  return pairs;
}

}  // namespace gatun::cpu
