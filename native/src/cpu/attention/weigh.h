// The second product, o = o * alpha + p v, by vectors.
#pragma once

#include "cpu/attention/read.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// ROWS rows by NV vectors of values. Weights lie by key ([key][stride], rows adjacent) or by row ([row][stride], keys
// adjacent).
template <bool by_key, int ROWS, int NV, typename T>
HWY_INLINE void weigh_block(const float* HWY_RESTRICT p, int64_t stride, const T* HWY_RESTRICT v, int64_t v_row,
                            int64_t keys, const float* HWY_RESTRICT alpha, float* HWY_RESTRICT o, int64_t o_row) {
  const F32 d;
  const int64_t ahead = rows_ahead<T>(NV * kLanes);
  VF sum[ROWS][NV];
  HWY_UNROLL(8)
  for (int r = 0; r < ROWS; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < NV; ++c) {
      sum[r][c] = hn::Mul(hn::Load(d, o + r * o_row + c * kLanes), hn::Set(d, alpha[r]));
    }
  }
  for (int64_t key = 0; key < keys; ++key) {
    if (!by_key && key + ahead < keys) prefetch_row(v + (key + ahead) * v_row, NV * kLanes);
    VF value[NV];
    HWY_UNROLL(8)
    for (int c = 0; c < NV; ++c) value[c] = load(d, v + key * v_row + c * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < ROWS; ++r) {
      const VF weight = hn::Set(d, by_key ? p[key * stride + r] : p[r * stride + key]);
      HWY_UNROLL(8)
      for (int c = 0; c < NV; ++c) sum[r][c] = hn::MulAdd(weight, value[c], sum[r][c]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < ROWS; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < NV; ++c) hn::Store(sum[r][c], d, o + r * o_row + c * kLanes);
  }
}

// The same for `vectors` of 1 to NV.
template <bool by_key, int ROWS, int NV, typename T>
HWY_INLINE void weigh_strip(int64_t vectors, const float* p, int64_t stride, const T* v, int64_t v_row, int64_t keys,
                            const float* alpha, float* o, int64_t o_row) {
  if (vectors == NV) {
    weigh_block<by_key, ROWS, NV>(p, stride, v, v_row, keys, alpha, o, o_row);
  } else if constexpr (NV > 1) {
    weigh_strip<by_key, ROWS, NV - 1>(vectors, p, stride, v, v_row, keys, alpha, o, o_row);
  }
}

// All vectors of values, cut into even strips of at most `most`, for groups of ROWS rows: a strip of V stays in L1 from
// group to group.
template <bool by_key, int ROWS, int most, typename T>
void weigh(const float* p, int64_t stride, const T* v, int64_t v_row, int64_t keys, const float* alpha, float* o,
           int64_t o_row, int64_t rows, int64_t vectors) {
  const int64_t strips = (vectors + most - 1) / most;
  int64_t column = 0;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t width = vectors / strips + (strip < vectors % strips ? 1 : 0);
    for (int64_t r = 0; r < rows; r += ROWS) {
      weigh_strip<by_key, ROWS, most>(width, p + (by_key ? r : r * stride), stride, v + column * kLanes, v_row, keys,
                                      alpha + r, o + r * o_row + column * kLanes, o_row);
    }
    column += width;
  }
}

// The same for the keys that some row uses, a run of such keys after the other: a value that no row sees is not read.
// `used` is null where all are. `alpha` is then all 1.
template <bool by_key, int ROWS, int most, typename T>
void weigh_used(const uint8_t* used, const float* p, int64_t stride, const T* v, int64_t v_row, int64_t keys,
                float* alpha, int64_t alphas, float* o, int64_t o_row, int64_t rows, int64_t vectors) {
  if (used == nullptr) {
    weigh<by_key, ROWS, most>(p, stride, v, v_row, keys, alpha, o, o_row, rows, vectors);
    return;
  }
  int64_t key = 0;
  do {
    int64_t end = key;
    while (end < keys && used[end] != 0) ++end;
    weigh<by_key, ROWS, most>(p + (by_key ? key * stride : key), stride, v + key * v_row, v_row, end - key, alpha, o,
                              o_row, rows, vectors);
    for (int64_t r = 0; r < alphas; ++r) alpha[r] = 1.0f;
    for (key = end; key < keys && used[key] == 0;) ++key;
  } while (key < keys);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
