// Attention of BF16 by the tiles of AMX (cpu/tiles.h): the products of a panel, 32 rows of queries, and a block of keys.
//
//   s^T [keys][32] = k q^T    K is the tiles' rows as it lies, or copied; the queries are packed once by pairs of dk, as
//                             weights of a GEMM are.
//   o^T [dv][32] += v^T p^T   Weights p come from s^T lane by lane, by pairs of keys; V is transposed once per block, for all
//                             panels of a tile: 16 operations of vectors for 32 of its elements, against some 32 cycles of
//                             products of the 256 rows of a tile.
//
// A weight rounded to BF16 alone would err by 2^-9 of itself. So it is a sum of two terms, the second the rounding of what the
// first left, which takes half of the time of the second product again: 3/2 of the products' time in all. An output of BF16 hides
// what is lost beyond; others go through panels of FP32.
//
// Values that are not finite: 0 * inf would be NaN, so keys that no row of a panel sees get values of 0, and second terms, which
// may be 0 for a weight that is not, meet 0 in the place of what is not finite.
//
// Tiles take denormals for zeros, and give them as such: a result of less than 2^-126 may be 0 here and not in panels or rows.
#pragma once

#if defined(GATUN_LEVEL_amx)

#include "cpu/attention/panels.h"
#include "cpu/gemm/tiled.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int64_t kTiledKeys = 32;  // of a step of the second product

// Pairs of the elements of 32 rows: to[i][r]. Rows that are null are zeros.
inline void pack_pairs(const bf16* const (&rows)[kPanel], int64_t size, uint32_t* to) {
  for (int64_t r = 0; r < kPanel; ++r) {
    for (int64_t i = 0; i < size; i += 2) {
      uint32_t pair = 0;
      if (rows[r] != nullptr) std::memcpy(&pair, rows[r] + i, i + 1 < size ? 4 : 2);
      to[i / 2 * kPanel + r] = pair;
    }
  }
}

inline bool is_finite(bf16 value) { return (value.bits & 0x7f80) != 0x7f80; }

// to[i * stride + key] = row_of(key)[i], with a zero behind the last key, which completes a pair wherever it begins. Says whether
// all are finite.
template <typename RowOf>
bool transpose_values(RowOf row_of, int64_t keys, int64_t size, bf16* to, int64_t stride) {
  const hn::Full128<uint16_t> d16;
  const hn::Full128<uint32_t> d32;
  const hn::Full128<uint64_t> d64;
  const auto exponent = hn::Set(d16, uint16_t{0x7f80});
  auto odd = hn::Zero(d16);
  bool finite = true;
  int64_t key = 0;
  for (; key + 8 <= keys; key += 8) {
    const bf16* rows[8];
    for (int64_t j = 0; j < 8; ++j) rows[j] = row_of(key + j);
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
      hn::Vec<hn::Full128<uint32_t>> low[4], high[4];  // pairs of keys, of elements i to i + 3, and the next four
      for (int p = 0; p < 4; ++p) {
        const auto a = hn::LoadU(d16, &rows[2 * p][i].bits), b = hn::LoadU(d16, &rows[2 * p + 1][i].bits);
        odd = hn::Or(odd, hn::Or(hn::VecFromMask(d16, hn::Eq(hn::And(a, exponent), exponent)),
                                 hn::VecFromMask(d16, hn::Eq(hn::And(b, exponent), exponent))));
        low[p] = hn::BitCast(d32, hn::InterleaveLower(d16, a, b));
        high[p] = hn::BitCast(d32, hn::InterleaveUpper(d16, a, b));
      }
      for (int half = 0; half < 2; ++half) {
        const auto& x = half == 0 ? low : high;
        const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d32, x[0], x[1]));
        const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d32, x[0], x[1]));
        const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d32, x[2], x[3]));
        const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d32, x[2], x[3]));
        bf16* target = to + (i + 4 * half) * stride + key;
        hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, ab_low, ce_low)), d16, &target->bits);
        hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, ab_low, ce_low)), d16, &target[stride].bits);
        hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, ab_high, ce_high)), d16, &target[2 * stride].bits);
        hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, ab_high, ce_high)), d16, &target[3 * stride].bits);
      }
    }
    for (; i < size; ++i) {
      for (int64_t j = 0; j < 8; ++j) {
        to[i * stride + key + j] = rows[j][i];
        finite = finite && is_finite(rows[j][i]);
      }
    }
  }
  for (; key < keys; ++key) {
    const bf16* row = row_of(key);
    for (int64_t i = 0; i < size; ++i) {
      to[i * stride + key] = row[i];
      finite = finite && is_finite(row[i]);
    }
  }
  for (int64_t i = 0; i < size; ++i) to[i * stride + keys] = bf16{0};
  return finite && hn::AllTrue(d16, hn::Eq(odd, hn::Zero(d16)));
}

// Weights p [keys][32] as two terms, each by pairs of keys; zeros complete the last pair.
inline void split_weights(const float* p, int64_t keys, uint32_t* high, uint32_t* low) {
  const F32 d;
  const hn::Rebind<uint32_t, F32> d32;
  const auto upper = hn::Set(d32, 0xffff0000u);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t key = 0; key < keys; key += 2, p += 2 * kPanel, high += kPanel, low += kPanel) {
    for (int64_t r = 0; r < kPanel; r += lanes) {
      const VF a = hn::Load(d, p + r), b = key + 1 < keys ? hn::Load(d, p + kPanel + r) : hn::Zero(d);
      const VF high_a = round_to_bf16(d, a), high_b = round_to_bf16(d, b);
      hn::Store(hn::Or(hn::ShiftRight<16>(hn::BitCast(d32, high_a)), hn::BitCast(d32, high_b)), d32, high + r);
      const auto low_a = bf16_bits(hn::Sub(a, high_a)), low_b = bf16_bits(hn::Sub(b, high_b));
      hn::Store(hn::Or(hn::ShiftRight<16>(low_a), hn::And(low_b, upper)), d32, low + r);
    }
  }
}

// Adds rows of weights times the rows of values that tiles 4 and, if kTall, 5 hold.
template <bool kTall>
HWY_INLINE void weigh_term(const unsigned char* weights) {
  load_tile<6>(weights, kPanel * 4);
  multiply_bf16<0, 4, 6>();
  if constexpr (kTall) multiply_bf16<2, 5, 6>();
  load_tile<7>(weights + kTileBytes, kPanel * 4);
  multiply_bf16<1, 4, 7>();
  if constexpr (kTall) multiply_bf16<3, 5, 7>();
}

template <bool kTall>
HWY_INLINE void load_values(const unsigned char* values, int64_t stride) {
  load_tile<4>(values, stride);
  if constexpr (kTall) load_tile<5>(values + kTileRows * stride, stride);
}

// o [rows][32] += v^T p^T for up to 32 rows of transposed values, `stride` bytes apart, and `pairs` of keys. `low_values` are
// those that the second terms meet.
template <bool kTall>
HWY_NOINLINE void weigh_rows(int64_t rows, const bf16* values, const bf16* low_values, int64_t stride, const uint32_t* high,
                             const uint32_t* low, int64_t pairs, float* o) {
  constexpr int64_t kStepBytes = kTileSteps * kPanel * 4;
  begin_sums<0>(o, true);
  if constexpr (kTall) begin_sums<2>(o + kTileRows * kPanel, true);
  const auto* v = reinterpret_cast<const unsigned char*>(values);
  const auto* second = reinterpret_cast<const unsigned char*>(low_values);
  const auto* p = reinterpret_cast<const unsigned char*>(high);
  const auto* q = reinterpret_cast<const unsigned char*>(low);
  int64_t left = pairs;
  for (; left >= kTileSteps; left -= kTileSteps, v += kTileBytes, second += kTileBytes, p += kStepBytes, q += kStepBytes) {
    load_values<kTall>(v, stride);
    weigh_term<kTall>(p);
    if (second != v) load_values<kTall>(second, stride);
    weigh_term<kTall>(q);
  }
  if (left > 0) {
    alignas(64) unsigned char row_bytes[2 * kTileRows * kTileBytes], weight_bytes[kStepBytes];
    const auto fill = [&](const unsigned char* from, const unsigned char* weights) {
      copy_groups(from, stride, rows, left * 4, row_bytes, kTileBytes);
      std::memcpy(weight_bytes, weights, static_cast<size_t>(left * kPanel * 4));
      std::memset(weight_bytes + left * kPanel * 4, 0, static_cast<size_t>((kTileSteps - left) * kPanel * 4));
      load_values<kTall>(row_bytes, kTileBytes);
      weigh_term<kTall>(weight_bytes);
    };
    fill(v, p);
    fill(second, q);
  }
  end_sums<0>(o);
  if constexpr (kTall) end_sums<2>(o + kTileRows * kPanel);
}

// The same for all `size` rows.
inline void weigh_tiles(TileUse& use, int64_t size, const bf16* values, const bf16* low_values, int64_t stride,
                        const uint32_t* high, const uint32_t* low, int64_t pairs, float* o) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(bf16));
  for (int64_t i = 0; i < size; i += kTiledRows) {
    const int64_t rows = size - i < kTiledRows ? size - i : kTiledRows;
    use.shape(rows);
    if (rows > kTileRows) {
      weigh_rows<true>(rows, values + i * stride, low_values + i * stride, bytes, high, low, pairs, o + i * kPanel);
    } else {
      weigh_rows<false>(rows, values + i * stride, low_values + i * stride, bytes, high, low, pairs, o + i * kPanel);
    }
  }
}

static_assert(kPanelRows == kPanel, "a panel of queries is one of weights");

// By the way through a tile and by types alone, so that no result depends on what else is in the batch.
HWY_INLINE bool is_tiled(const AttentionTile& t) {
  return t.row_block > kDirectRows && t.q_dtype == GTN_BF16 && t.k.dtype == GTN_BF16 && t.v.dtype == GTN_BF16 &&
         t.out_dtype == GTN_BF16;
}

HWY_INLINE const bf16* row_at(const AttentionTile& t, const KeySource& source, int64_t token) {
  return reinterpret_cast<const bf16*>(source.data) + place_of(t, source, token).element;
}

// The products of panels and a block of keys.
class TiledProducts {
 public:
  TiledProducts(const AttentionTile& tile, const KeyBlock& block, const Layout& layout, float* scratch)
      : t(tile), values(reinterpret_cast<bf16*>(scratch + layout.values)), stride(round_up(block.count + 1, kTiledKeys)) {
    const int64_t terms = (layout.block_keys / 2 + 1) * kPanel, copy = (layout.block_keys / 2 + 16) * layout.dv_padded;
    high = reinterpret_cast<uint32_t*>(scratch + layout.tiled);
    low = high + terms;
    masked = reinterpret_cast<bf16*>(low + terms);
    masked_low = masked + 2 * copy;
    const int64_t even = even_stride(t, t.k, block);
    if (even > 0 && even <= 2 * t.dk && t.dk % 2 == 0) {
      k = row_at(t, t.k, block.first);
      k_row = even;
    } else {
      bf16* copied = reinterpret_cast<bf16*>(scratch + layout.keys);
      k = copied;
      k_row = round_up(t.dk, 2);
      for (int64_t j = 0; j < block.count; ++j) {
        if (j + kKeysAhead < block.count) prefetch_row(row_at(t, t.k, token_of(block, j + kKeysAhead)), t.dk);
        memcpy(copied + j * k_row, row_at(t, t.k, token_of(block, j)), static_cast<size_t>(t.dk) * sizeof(bf16));
        if (t.dk % 2 != 0) copied[j * k_row + t.dk] = bf16{0};
      }
    }
    finite = transpose_values([&](int64_t key) { return row_at(t, t.v, token_of(block, key)); }, block.count, t.dv, values, stride);
  }
  TiledProducts(const TiledProducts&) = delete;
  TiledProducts& operator=(const TiledProducts&) = delete;
  void end() const { use.end(); }

  void score(const Panel& panel, int64_t first, int64_t keys, float* s, VF* maximum) {
    const F32 d;
    ProductOf<TiledBf16> product = {(t.dk + 1) / 2, nullptr, k_row, reinterpret_cast<const bf16*>(panel.q), 0, nullptr, 0, false, nullptr, 0};
    for (int64_t j = 0; j < keys; j += kTiledRows) {
      product.rows = k + (first + j) * k_row;
      product.sums = s + j * kPanel;
      multiply<TiledBf16>(use, min_of(keys - j, kTiledRows), 1, product);
    }
    const VF factor = hn::Set(d, t.scale);
    for (int64_t j = 0; j < keys; ++j) {
      for (int c = 0; c < kPanelVectors; ++c) {
        float* at = s + j * kPanel + c * kLanes;
        const VF score = hn::Mul(hn::Load(d, at), factor);
        hn::Store(score, d, at);
        maximum[c] = hn::Max(maximum[c], score);
      }
    }
  }

  void weigh(const Panel& panel, const uint8_t* used, int64_t first, int64_t keys, const float* p, const float* alpha) {
    scale(panel.o, alpha);
    split_weights(p, keys, high, low);
    const bf16 *of_high = values + first, *of_low = of_high;
    if (!finite) {
      for (int64_t i = 0; i < t.dv; ++i) {
        for (int64_t key = 0; key < round_up(keys, 2); ++key) {
          const bool seen = key < keys && (used == nullptr || used[key] != 0);
          const bf16 value = seen ? values[i * stride + first + key] : bf16{0};
          masked[i * stride + key] = value;
          masked_low[i * stride + key] = is_finite(value) ? value : bf16{0};
        }
      }
      of_high = masked;
      of_low = masked_low;
    }
    weigh_tiles(use, t.dv, of_high, of_low, stride, high, low, (keys + 1) / 2, panel.o);
  }

 private:
  void scale(float* o, const float* alpha) const {
    const F32 d;
    const VF one = hn::Set(d, 1.0f);
    VF factors[kPanelVectors];
    bool all_one = true;
    for (int c = 0; c < kPanelVectors; ++c) {
      factors[c] = hn::Load(d, alpha + c * kLanes);
      all_one = all_one && hn::AllTrue(d, hn::Eq(factors[c], one));
    }
    for (int64_t i = 0; !all_one && i < t.dv; ++i) {
      for (int c = 0; c < kPanelVectors; ++c) {
        float* at = o + i * kPanel + c * kLanes;
        hn::Store(hn::Mul(hn::Load(d, at), factors[c]), d, at);
      }
    }
  }

  const AttentionTile& t;
  const bf16* k;
  int64_t k_row;
  bf16* values;    // [dv][stride]
  int64_t stride;  // whole steps of the second product
  bool finite;     // all values
  uint32_t *high, *low;
  bf16 *masked, *masked_low;
  TileUse use;
};

void begin_tiled(const AttentionTile& t, const Layout& layout, float* scratch) {
  const F32 d;
#if defined(GATUN_AMX_MODEL)
  memset(scratch + layout.keys, 0xff, static_cast<size_t>(layout.end - layout.keys) * sizeof(float));  // NaN to who reads first
#endif
  for (int64_t first = 0; first < panels_of(t) * kPanelRows; first += kPanelRows) {
    const bf16* rows[kPanel];
    for (int64_t r = 0; r < kPanel; ++r) {
      rows[r] = first + r < t.rows ? reinterpret_cast<const bf16*>(query_at(t, first + r)) : nullptr;
    }
    pack_pairs(rows, t.dk, reinterpret_cast<uint32_t*>(scratch + layout.queries + first * layout.dk_padded));
    for (int64_t r = first; r < first + kPanelRows; r += kLanes) {
      hn::Store(hn::Set(d, -kInfinity), d, scratch + layout.maxima + r);
      hn::Store(hn::Zero(d), d, scratch + layout.sums + r);
    }
  }
  memset(scratch + layout.outputs, 0, static_cast<size_t>(panels_of(t) * kPanelRows * layout.dv_padded) * sizeof(float));
}

void tiled_panels(const AttentionTile& t, const KeyBlock& block, const Layout& layout, float* scratch) {
  TiledProducts products(t, block, layout, scratch);
  for (int64_t first = 0; first < t.rows; first += kPanelRows) {
    const Panel panel = panel_at(t, first, layout, scratch);
    panel_block<kPanelVectors>(t, block, panel, products, scratch + layout.scores, scratch + layout.added);
  }
  products.end();
}

// A row of what panels of tiles have transposed, in the place of values, which are done with.
const float* tiled_row(const AttentionTile& t, int64_t row, const Layout& layout, float* scratch) {
  const float* from = scratch + layout.outputs + row / kPanelRows * kPanelRows * layout.dv_padded + row % kPanelRows;
  float* to = scratch + layout.values;
  for (int64_t i = 0; i < t.dv; ++i) to[i] = from[i * kPanelRows];
  return to;
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL

#endif
