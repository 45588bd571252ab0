// Up to kDirectRows rows: keys and values straight from where they lie, see kernels.cc.
#pragma once

#include <string.h>

#include "cpu/attention/added.h"
#include "cpu/attention/weigh.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Scores of KEYS keys and ROWS rows: s[row * s_row + key]. Head sizes are whole vectors.
template <int ROWS, int KEYS, typename T>
HWY_INLINE void dot_keys(const T* HWY_RESTRICT k, int64_t k_row, const float* HWY_RESTRICT q, int64_t dk_padded,
                         float scale, float* HWY_RESTRICT s, int64_t s_row) {
  const F32 d;
  VF sum[ROWS][KEYS];
  HWY_UNROLL(4)
  for (int r = 0; r < ROWS; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < KEYS; ++j) sum[r][j] = hn::Zero(d);
  }
  for (int64_t i = 0; i < dk_padded; i += kLanes) {
    VF key[KEYS];
    HWY_UNROLL(4)
    for (int j = 0; j < KEYS; ++j) key[j] = load(d, k + j * k_row + i);
    HWY_UNROLL(4)
    for (int r = 0; r < ROWS; ++r) {
      const VF query = hn::Load(d, q + r * dk_padded + i);
      HWY_UNROLL(4)
      for (int j = 0; j < KEYS; ++j) sum[r][j] = hn::MulAdd(query, key[j], sum[r][j]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < ROWS; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < KEYS; ++j) s[r * s_row + j] = scale * hn::GetLane(hn::SumOfLanes(d, sum[r][j]));
  }
}

// One block for ROWS rows; K and V as T with whole vectors.
template <int ROWS, typename T>
void row_block(const AttentionTile& t, const KeyBlock& block, const T* k, int64_t k_row, const T* v, int64_t v_row,
               const Layout& layout, float* scratch) {
  const F32 d;
  constexpr int kKeys = ROWS <= 2 ? 4 : 2;
  constexpr int kStrip = ROWS == 1 ? 8 : (ROWS == 2 ? 4 : 3);
  const float* q = scratch + layout.queries;
  float* s = scratch + layout.scores;
  float* added = scratch + layout.added;
  float* m = scratch + layout.maxima;
  float* l = scratch + layout.sums;
  int64_t first = 0, keys = block.count;
  KeyRange ranges[ROWS];
  if (block.kind == KeyBlock::kRange) {
    KeyRange some = {keys, 0};
    for (int r = 0; r < ROWS; ++r) {
      ranges[r] = keys_of(t, block, r);
      some = {min_of(some.first, ranges[r].first), max_of(some.last, ranges[r].last)};
    }
    first = some.first;
    keys = some.last - first;
    if (keys <= 0) return;
    k += first * k_row;
    v += first * v_row;
  }
  const int64_t padded = round_up(keys, kLanes);
  int64_t j = 0;
  // The first values are asked for while the last keys are at hand, and the first keys of a next block while the last
  // values are: the memory would stand idle from one to the other.
  const int64_t ahead = rows_ahead<T>(layout.dk_padded);
  for (; j + kKeys <= keys; j += kKeys) {
    for (int64_t a = j + ahead; a < j + ahead + kKeys; ++a) {
      if (a < keys) {
        prefetch_row(k + a * k_row, layout.dk_padded);
      } else if (a - keys < keys) {
        prefetch_row(v + (a - keys) * v_row, layout.dv_padded);
      }
    }
    dot_keys<ROWS, kKeys>(k + j * k_row, k_row, q, layout.dk_padded, t.scale, s + j, padded);
  }
  for (; j < keys; ++j) dot_keys<ROWS, 1>(k + j * k_row, k_row, q, layout.dk_padded, t.scale, s + j, padded);

  const bool adds = needs_added(t, block);
  uint8_t used[kMostBlockKeys];
  for (int64_t i = 0; adds && i < keys; ++i) used[i] = 0;
  const int64_t origin = token_of(block, first);
  float alpha[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    float* row = s + r * padded;
    for (int64_t i = keys; i < padded; ++i) row[i] = -kInfinity;
    for (int64_t i = 0; t.softcap > 0.0f && i < padded; i += kLanes) {
      hn::Store(capped(t, hn::Load(d, row + i)), d, row + i);
    }
    if (t.slopes != nullptr) {
      const float slope = t.slopes[head_of(t, r)];
      const int64_t position = query_row_of(t, r).position;
      for (int64_t i = 0; i < keys; ++i) {
        row[i] -= slope * fabsf(static_cast<float>(position - origin) -
                                static_cast<float>(token_of(block, first + i) - origin));
      }
    }
    if (adds) {
      add_row(t, block, first, keys, r, added, 1);
      for (int64_t i = 0; i < keys; ++i) {
        const bool hidden = added[i] == -kInfinity;
        row[i] = hidden ? -kInfinity : row[i] + added[i];
        if (!hidden) used[i] = 1;
      }
    }
    for (int64_t i = keys; i < padded; ++i) row[i] = -kInfinity;
    if (block.kind == KeyBlock::kRange) {
      for (int64_t i = 0; i < ranges[r].first - first; ++i) row[i] = -kInfinity;
      for (int64_t i = ranges[r].last - first; i < keys; ++i) row[i] = -kInfinity;
    }
    VF maximum = hn::Set(d, m[r]);
    const VF before = maximum;
    for (int64_t i = 0; i < padded; i += kLanes) maximum = hn::Max(maximum, hn::Load(d, row + i));
    maximum = hn::MaxOfLanes(d, maximum);
    const VF base = hn::IfThenElse(hn::Eq(maximum, hn::Set(d, -kInfinity)), hn::Zero(d), maximum);
    alpha[r] = hn::GetLane(exp_nonpositive(d, hn::Sub(before, base)));
    VF sum = hn::Zero(d);
    for (int64_t i = 0; i < padded; i += kLanes) {
      const VF weight = exp_nonpositive(d, hn::Sub(hn::Load(d, row + i), base));
      hn::Store(weight, d, row + i);
      sum = hn::Add(sum, weight);
    }
    l[r] = l[r] * alpha[r] + hn::GetLane(hn::SumOfLanes(d, sum));
    m[r] = hn::GetLane(maximum);
  }
  if (block.tokens == nullptr && t.block_table == nullptr) {
    for (int64_t a = keys; a < keys + ahead; ++a) prefetch_row(k + a * k_row, layout.dk_padded);
  }
  weigh_used<false, ROWS, kStrip>(adds ? used : nullptr, s, padded, v, v_row, keys, alpha, ROWS,
                                    scratch + layout.outputs, layout.dv_padded, ROWS, layout.dv_padded / kLanes);
}

template <typename T>
void begin_rows(const AttentionTile& t, const Layout& layout, float* scratch) {
  for (int64_t r = 0; r < t.rows; ++r) {
    copy_row(reinterpret_cast<const T*>(query_at(t, r)), t.dk, layout.dk_padded, 1.0f,
             scratch + layout.queries + r * layout.dk_padded);
    scratch[layout.maxima + r] = -kInfinity;
    scratch[layout.sums + r] = 0.0f;
  }
  memset(scratch + layout.outputs, 0, static_cast<size_t>(t.rows * layout.dv_padded) * sizeof(float));
}

template <int ROWS>
void rows(const AttentionTile& t, const KeyBlock& block, const Layout& layout, float* scratch) {
  // A head size of whole vectors is read in place; the tail of another would cost more than its copy.
  const bool whole = t.dk % kLanes == 0 && t.dv % kLanes == 0 && t.k.dtype == t.v.dtype;
  const int64_t k_row = even_stride(t, t.k, block), v_row = even_stride(t, t.v, block);
  const int64_t k_first = place_of(t, t.k, block.first).element, v_first = place_of(t, t.v, block.first).element;
  if (whole && k_row > 0 && v_row > 0 && t.k.dtype == GTN_F32) {
    row_block<ROWS>(t, block, reinterpret_cast<const float*>(t.k.data) + k_first, k_row,
                    reinterpret_cast<const float*>(t.v.data) + v_first, v_row, layout, scratch);
  } else if (whole && k_row > 0 && v_row > 0 && t.k.dtype == GTN_BF16) {
    row_block<ROWS>(t, block, reinterpret_cast<const bf16*>(t.k.data) + k_first, k_row,
                    reinterpret_cast<const bf16*>(t.v.data) + v_first, v_row, layout, scratch);
  } else {
    copy_block(t, t.k, block, t.dk, layout.dk_padded, scratch + layout.keys);
    copy_block(t, t.v, block, t.dv, layout.dv_padded, scratch + layout.values);
    const float* keys = scratch + layout.keys;
    const float* values = scratch + layout.values;
    row_block<ROWS>(t, block, keys, layout.dk_padded, values, layout.dv_padded, layout, scratch);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
