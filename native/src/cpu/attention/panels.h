// Panels: rows are lanes, see kernels.cc. The softmax between the products is the same for products by vectors, which are here,
// and by tiles.
#pragma once

#include <string.h>

#include "cpu/attention/added.h"
#include "cpu/attention/weigh.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Scores of KEYS keys and NV vectors of rows, and the running maximum of each row.
template <int KEYS, int NV>
HWY_INLINE void score_keys(const float* HWY_RESTRICT k, int64_t k_row, const float* HWY_RESTRICT q, int64_t dk,
                           float scale, float* HWY_RESTRICT s, VF* HWY_RESTRICT maximum) {
  const F32 d;
  VF sum[KEYS][NV];
  HWY_UNROLL(12)
  for (int j = 0; j < KEYS; ++j) {
    HWY_UNROLL(2)
    for (int c = 0; c < NV; ++c) sum[j][c] = hn::Zero(d);
  }
  for (int64_t i = 0; i < dk; ++i) {
    VF query[NV];
    HWY_UNROLL(2)
    for (int c = 0; c < NV; ++c) query[c] = hn::Load(d, q + (i * NV + c) * kLanes);
    HWY_UNROLL(12)
    for (int j = 0; j < KEYS; ++j) {
      const VF key = hn::Set(d, k[j * k_row + i]);
      HWY_UNROLL(2)
      for (int c = 0; c < NV; ++c) sum[j][c] = hn::MulAdd(key, query[c], sum[j][c]);
    }
  }
  const VF factor = hn::Set(d, scale);
  HWY_UNROLL(12)
  for (int j = 0; j < KEYS; ++j) {
    HWY_UNROLL(2)
    for (int c = 0; c < NV; ++c) {
      const VF score = hn::Mul(sum[j][c], factor);
      hn::Store(score, d, s + (j * NV + c) * kLanes);
      maximum[c] = hn::Max(maximum[c], score);
    }
  }
}

// The rows of a panel within its tile, and what they know between key blocks.
struct Panel {
  int64_t first_row, rows;
  const float* q;  // [dk][width]
  float* o;        // [rows][dv_padded]
  float* m;        // maximum so far
  float* l;        // sum of weights so far
};

HWY_INLINE Panel panel_at(const AttentionTile& t, int64_t first_row, const Layout& layout, float* scratch) {
  return {first_row,
          min_of(t.rows - first_row, kPanelRows),
          scratch + layout.queries + first_row * layout.dk_padded,
          scratch + layout.outputs + first_row * layout.dv_padded,
          scratch + layout.maxima + first_row,
          scratch + layout.sums + first_row};
}

// Softcap, ALiBi, what is added, and the range of each row, as far as the block has them; then the maximum of each row.
// Also which keys some row uses, by what is added. All arrays are of the `keys` keys from `first` of the block.
template <int NV>
void finish_scores(const AttentionTile& t, const KeyBlock& block, int64_t first, int64_t keys, const Panel& panel,
                   const float* added, const float* from, const float* to, float* s, uint8_t* used, VF* maximum) {
  const F32 d;
  constexpr int kRows = NV * kLanes;
  const VF masked = hn::Set(d, -kInfinity);
  const int64_t origin = token_of(block, first);
  HWY_ALIGN float slopes[kRows];
  HWY_ALIGN float positions[kRows];
  if (t.slopes != nullptr) {
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t row = panel.first_row + min_of(r, panel.rows - 1);
      slopes[r] = t.slopes[head_of(t, row)];
      positions[r] = static_cast<float>(query_row_of(t, row).position - origin);
    }
  }
  for (int c = 0; c < NV; ++c) maximum[c] = masked;
  for (int64_t j = 0; j < keys; ++j) {
    VF distance = hn::Zero(d), index = distance;
    if (t.slopes != nullptr) distance = hn::Set(d, static_cast<float>(token_of(block, first + j) - origin));
    if (from != nullptr) index = hn::Set(d, static_cast<float>(j));
    bool any = added == nullptr;
    for (int c = 0; c < NV; ++c) {
      float* at = s + (j * NV + c) * kLanes;
      VF score = hn::Load(d, at);
      if (t.softcap > 0.0f) score = capped(t, score);
      if (t.slopes != nullptr) {
        const VF apart = hn::Abs(hn::Sub(hn::Load(d, positions + c * kLanes), distance));
        score = hn::NegMulAdd(hn::Load(d, slopes + c * kLanes), apart, score);
      }
      if (added != nullptr) {
        const VF more = hn::Load(d, added + (j * NV + c) * kLanes);
        const auto hidden = hn::Eq(more, masked);
        score = hn::IfThenElse(hidden, masked, hn::Add(score, more));
        any = any || !hn::AllTrue(d, hidden);
      }
      if (from != nullptr) {
        const auto inside =
            hn::And(hn::Ge(index, hn::Load(d, from + c * kLanes)), hn::Lt(index, hn::Load(d, to + c * kLanes)));
        score = hn::IfThenElse(inside, score, masked);
      }
      hn::Store(score, d, at);
      maximum[c] = hn::Max(maximum[c], score);
    }
    used[j] = any ? 1 : 0;
  }
}

// The products of a panel of NV vectors of rows and a block of keys and values in FP32, by vectors.
template <int NV>
struct VectorProducts {
  const AttentionTile& t;
  const float *k, *v;
  int64_t k_row, v_row, dv_padded;

  // s[key][row] = scale * k q, of the `keys` keys from `first` on, and the maximum of each row.
  void score(const Panel& panel, int64_t first, int64_t keys, float* s, VF* maximum) const {
    constexpr int kRows = NV * kLanes;
    constexpr int kKeys = NV == 1 ? 12 : kScoreKeys;
    const float* from = k + first * k_row;
    int64_t j = 0;
    for (; j + kKeys <= keys; j += kKeys) {
      score_keys<kKeys, NV>(from + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum);
    }
    if constexpr (kKeys > 6) {
      if (j + 6 <= keys) {
        score_keys<6, NV>(from + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum);
        j += 6;
      }
    }
    from += j * k_row;
    s += j * kRows;
    switch (keys - j) {
      case 5: return score_keys<5, NV>(from, k_row, panel.q, t.dk, t.scale, s, maximum);
      case 4: return score_keys<4, NV>(from, k_row, panel.q, t.dk, t.scale, s, maximum);
      case 3: return score_keys<3, NV>(from, k_row, panel.q, t.dk, t.scale, s, maximum);
      case 2: return score_keys<2, NV>(from, k_row, panel.q, t.dk, t.scale, s, maximum);
      case 1: return score_keys<1, NV>(from, k_row, panel.q, t.dk, t.scale, s, maximum);
      default: return;
    }
  }

  // o = o * alpha + p v. `used` as weigh_used() takes it.
  void weigh(const Panel& panel, const uint8_t* used, int64_t first, int64_t keys, const float* p, float* alpha) const {
    constexpr int kRows = NV * kLanes;
    constexpr int kGroup = kRows < kWeighRows ? kRows : kWeighRows;
    weigh_used<true, kGroup, kWeighVectors>(used, p, kRows, v + first * v_row, v_row, keys, alpha, kRows, panel.o, dv_padded,
                                            panel.rows, dv_padded / kLanes);
  }
};

// One panel against one block of keys. `s` and `added` are scratch for the scores.
template <int NV, typename Products>
void panel_block(const AttentionTile& t, const KeyBlock& block, const Panel& panel, Products& products, float* s, float* added) {
  const F32 d;
  constexpr int kRows = NV * kLanes;
  int64_t first = 0, keys = block.count;
  bool range = false;
  HWY_ALIGN float from[kRows];
  HWY_ALIGN float to[kRows];
  if (block.kind == KeyBlock::kRange) {
    // Cut to what some row of the panel sees; between what some and what all of its rows see the ranges decide.
    KeyRange some = {keys, 0}, all = {0, keys};
    KeyRange ranges[kRows];
    for (int64_t r = 0; r < panel.rows; ++r) {
      ranges[r] = keys_of(t, block, panel.first_row + r);
      some = {min_of(some.first, ranges[r].first), max_of(some.last, ranges[r].last)};
      all = {max_of(all.first, ranges[r].first), min_of(all.last, ranges[r].last)};
    }
    first = some.first;
    keys = some.last - first;
    if (keys <= 0) return;
    range = all.first > first || all.last < some.last;
    for (int64_t r = 0; range && r < kRows; ++r) {
      const KeyRange& its = ranges[min_of(r, panel.rows - 1)];
      from[r] = static_cast<float>(its.first - first);
      to[r] = static_cast<float>(its.last - first);
    }
  }

  VF maximum[NV];
  for (int c = 0; c < NV; ++c) maximum[c] = hn::Set(d, -kInfinity);
  products.score(panel, first, keys, s, maximum);
  const bool adds = needs_added(t, block);
  uint8_t used[kMostBlockKeys];
  if (adds && adds_by_panel(t, block)) {
    add_panel<NV>(t, block, first, keys, panel.first_row, panel.rows, added);
  } else if (adds) {
    for (int64_t r = 0; r < panel.rows; ++r) {
      add_row(t, block, first, keys, panel.first_row + r, added + r, kRows);
    }
    for (int64_t r = panel.rows; r < kRows; ++r) {
      for (int64_t key = 0; key < keys; ++key) added[key * kRows + r] = -kInfinity;
    }
  }
  if (adds || range || t.softcap > 0.0f || t.slopes != nullptr) {
    finish_scores<NV>(t, block, first, keys, panel, adds ? added : nullptr, range ? from : nullptr, to, s, used,
                      maximum);
  }

  // Max may lose a NaN; the weight of that key is NaN in any case, and with it the sum. A maximum of -inf would make
  // -inf - -inf of masked scores: there 0 takes its place, and all weights are 0.
  VF base[NV], sum[NV];
  HWY_ALIGN float alpha[kRows];
  for (int c = 0; c < NV; ++c) {
    const VF before = hn::Load(d, panel.m + c * kLanes);
    const VF now = hn::Max(before, maximum[c]);
    hn::Store(now, d, panel.m + c * kLanes);
    base[c] = hn::IfThenElse(hn::Eq(now, hn::Set(d, -kInfinity)), hn::Zero(d), now);
    hn::Store(exp_nonpositive(d, hn::Sub(before, base[c])), d, alpha + c * kLanes);
    sum[c] = hn::Zero(d);
  }
  for (int64_t key = 0; key < keys; ++key) {
    for (int c = 0; c < NV; ++c) {
      float* at = s + (key * NV + c) * kLanes;
      const VF weight = exp_nonpositive(d, hn::Sub(hn::Load(d, at), base[c]));
      hn::Store(weight, d, at);
      sum[c] = hn::Add(sum[c], weight);
    }
  }
  for (int c = 0; c < NV; ++c) {
    float* l = panel.l + c * kLanes;
    hn::Store(hn::MulAdd(hn::Load(d, l), hn::Load(d, alpha + c * kLanes), sum[c]), d, l);
  }

  products.weigh(panel, adds ? used : nullptr, first, keys, s, alpha);
}

HWY_INLINE int64_t panels_of(const AttentionTile& t) { return (t.rows + kPanelRows - 1) / kPanelRows; }

// The last panel is a single vector when its rows fit one.
HWY_INLINE bool is_narrow(const AttentionTile& t, int64_t panel) { return t.rows - panel * kPanelRows <= kLanes; }

template <typename T>
void begin_panels(const AttentionTile& t, const Layout& layout, float* scratch) {
  const F32 d;
  for (int64_t p = 0; p < panels_of(t); ++p) {
    const int64_t first = p * kPanelRows;
    pack_queries<T>(t, first, min_of(t.rows - first, kPanelRows), is_narrow(t, p) ? kLanes : kPanelRows,
                    scratch + layout.queries + first * layout.dk_padded);
    for (int64_t r = first; r < first + kPanelRows; r += kLanes) {
      hn::Store(hn::Set(d, -kInfinity), d, scratch + layout.maxima + r);
      hn::Store(hn::Zero(d), d, scratch + layout.sums + r);
    }
  }
  memset(scratch + layout.outputs, 0,
         static_cast<size_t>(panels_of(t) * kPanelRows * layout.dv_padded) * sizeof(float));
}

void panels(const AttentionTile& t, const KeyBlock& block, const Layout& layout, float* scratch) {
  const float* k = scratch + layout.keys;
  const float* v = scratch + layout.values;
  int64_t k_row = layout.dk_padded, v_row = layout.dv_padded;
  if (in_place(t, t.k, block, t.dk)) {
    k = reinterpret_cast<const float*>(t.k.data) + place_of(t, t.k, block.first).element;
    k_row = even_stride(t, t.k, block);
  } else {
    copy_block(t, t.k, block, t.dk, layout.dk_padded, scratch + layout.keys);
  }
  if (t.dv % kLanes == 0 && in_place(t, t.v, block, t.dv)) {
    v = reinterpret_cast<const float*>(t.v.data) + place_of(t, t.v, block.first).element;
    v_row = even_stride(t, t.v, block);
  } else {
    copy_block(t, t.v, block, t.dv, layout.dv_padded, scratch + layout.values);
  }
  for (int64_t p = 0; p < panels_of(t); ++p) {
    const Panel panel = panel_at(t, p * kPanelRows, layout, scratch);
    float* s = scratch + layout.scores;
    float* added = scratch + layout.added;
    if (is_narrow(t, p)) {
      VectorProducts<1> products = {t, k, v, k_row, v_row, layout.dv_padded};
      panel_block<1>(t, block, panel, products, s, added);
    } else {
      VectorProducts<kPanelVectors> products = {t, k, v, k_row, v_row, layout.dv_padded};
      panel_block<kPanelVectors>(t, block, panel, products, s, added);
    }
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
