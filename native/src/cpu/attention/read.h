// Reading of queries, keys and values: rows as FP32, in place where they can be, transposed for panels.
#pragma once

#include "cpu/attention/layout.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Rows that are far apart are no stream that the hardware would foresee: they are asked for this many rows ahead. Not
// more: at strides of a power of two few of them fit the sets of a cache.
constexpr int64_t kKeysAhead = 8;

// The same of a pass of few rows over keys and values, which is bound by the memory alone: as many rows as are 4 KiB.
template <typename T>
HWY_INLINE int64_t rows_ahead(int64_t size) {
  const int64_t row = size * static_cast<int64_t>(sizeof(T));
  return row >= 512 ? 8 : row >= 256 ? 16 : 32;
}

template <typename T>
HWY_INLINE void prefetch_row(const T* row, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + i);
}

// A row as FP32 with whole vectors, zeros after the end.
template <typename T>
HWY_INLINE void copy_row(const T* from, int64_t size, int64_t padded, float scale, float* to) {
  const F32 d;
  const VF factor = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const VF value = load(d, from + i);
    hn::Store(sizeof(T) == 1 ? hn::Mul(value, factor) : value, d, to + i);
  }
  if (i < padded) {
    const VF value = load_some(d, from + i, static_cast<size_t>(size - i), 0.0f);
    hn::Store(sizeof(T) == 1 ? hn::Mul(value, factor) : value, d, to + i);
  }
}

// Where a key's row lies, in elements of the source, and in rows of its scales.
struct Place {
  int64_t element, row;
};

HWY_INLINE Place place_of(const AttentionTile& t, const KeySource& source, int64_t token) {
  if (t.block_table == nullptr) return {token * source.row, token};
  const int64_t page = t.block_table[token / t.page_size], offset = token % t.page_size;
  return {page * source.page + offset * source.row, page * t.page_size + offset};
}

template <typename T>
void copy_keys(const AttentionTile& t, const KeySource& source, const KeyBlock& block, int64_t size, int64_t padded,
               float* to) {
  const T* data = reinterpret_cast<const T*>(source.data);
  for (int64_t j = 0; j < block.count; ++j) {
    if (j + kKeysAhead < block.count) prefetch_row(data + place_of(t, source, token_of(block, j + kKeysAhead)).element, size);
    const Place place = place_of(t, source, token_of(block, j));
    const float scale = sizeof(T) == 1 ? source.scales[place.row * source.scale_row] : 1.0f;
    copy_row(data + place.element, size, padded, scale, to + j * padded);
  }
}

void copy_block(const AttentionTile& t, const KeySource& source, const KeyBlock& block, int64_t size, int64_t padded,
                float* to) {
  switch (source.dtype) {
    case GTN_F32: return copy_keys<float>(t, source, block, size, padded, to);
    case GTN_BF16: return copy_keys<bf16>(t, source, block, size, padded, to);
    case GTN_F16: return copy_keys<f16>(t, source, block, size, padded, to);
    default: return copy_keys<int8_t>(t, source, block, size, padded, to);
  }
}

// Elements from key to key of a block whose keys lie evenly; 0 where they do not.
HWY_INLINE int64_t even_stride(const AttentionTile& t, const KeySource& source, const KeyBlock& block) {
  if (block.tokens != nullptr) return 0;
  if (t.block_table != nullptr && block.first / t.page_size != token_of(block, block.count - 1) / t.page_size) return 0;
  return source.row * block.step;
}

// Rows of FP32 that lie close together are read in place: far ones cost a TLB entry each and share few cache sets, over
// and over for each panel.
HWY_INLINE bool in_place(const AttentionTile& t, const KeySource& source, const KeyBlock& block, int64_t size) {
  const int64_t stride = even_stride(t, source, block);
  return source.dtype == GTN_F32 && stride > 0 && stride <= 2 * size;
}

#if HWY_TARGET != HWY_SCALAR
using F32x4 = hn::Full128<float>;

HWY_INLINE hn::Vec<F32x4> load4(const float* from) { return hn::LoadU(F32x4(), from); }

HWY_INLINE hn::Vec<F32x4> load4(const bf16* from) {
  const hn::Rebind<uint16_t, F32x4> d16;
  const hn::Rebind<uint32_t, F32x4> d32;
  return hn::BitCast(F32x4(), hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

HWY_INLINE hn::Vec<F32x4> load4(const f16* from) {
  HWY_ALIGN float lanes[4];
  for (int i = 0; i < 4; ++i) lanes[i] = to_float(from[i]);
  return hn::Load(F32x4(), lanes);
}

// Four rows of queries, transposed into four columns of a panel of `width` rows.
template <typename T>
HWY_INLINE void transpose_four(const T* const* rows, int64_t dk, int64_t width, float* to) {
  const F32x4 d;
  const hn::Repartition<uint64_t, F32x4> d64;
  const int64_t whole = dk / 4 * 4;
  for (int64_t i = 0; i < whole; i += 4) {
    const auto a = load4(rows[0] + i), b = load4(rows[1] + i), c = load4(rows[2] + i), e = load4(rows[3] + i);
    const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b));   // a0 b0 a1 b1
    const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));  // a2 b2 a3 b3
    const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
    const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
    float* target = to + i * width;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low)), d, target);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)), d, target + width);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)), d, target + 2 * width);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)), d, target + 3 * width);
  }
  for (int64_t i = whole; i < dk; ++i) {
    for (int r = 0; r < 4; ++r) to[i * width + r] = to_float(rows[r][i]);
  }
}
#endif

// Rows `first_row` and on of the tile, transposed to [dk][width]; rows that the panel lacks are 0.
template <typename T>
void pack_queries(const AttentionTile& t, int64_t first_row, int64_t rows, int64_t width, float* to) {
  const T* row[kPanelRows];
  for (int64_t r = 0; r < width; ++r) {
    row[r] = r < rows ? reinterpret_cast<const T*>(query_at(t, first_row + r)) : nullptr;
  }
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; r + 4 <= rows; r += 4) transpose_four(row + r, t.dk, width, to + r);
#endif
  for (; r < width; ++r) {
    for (int64_t i = 0; i < t.dk; ++i) to[i * width + r] = row[r] != nullptr ? to_float(row[r][i]) : 0.0f;
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
