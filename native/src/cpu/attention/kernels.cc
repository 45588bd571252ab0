// Attention kernels, compiled once per level: out = softmax(scale * q k^T) v for one tile, by an online softmax over a
// list of key blocks.
//
// Method. The forward pass of flash attention (Dao et al. 2022, algorithm 1, with the online softmax of Milakov and
// Gimelshein 2018): for each key block the scores s, the new maximum m of each row, the weights p = exp(s - m), and
// o = o * alpha + p v and l = l * alpha + sum p with alpha = exp(m_old - m); at the end out = o / l and lse = m + log
// l. There are two ways through a tile:
//
//   panels   Rows are lanes. A panel is two vectors of rows; its queries are packed once, transposed to [dk][rows]. The
//            scores are made as s^T [keys][rows] = k q^T with the keys broadcast from their rows as they lie, so that K
//            is never transposed; the softmax runs down the keys lane by lane, with no reduction across lanes; and s^T
//            is just the layout from which the second product broadcasts its weights. Both products are outer-product
//            microkernels with 12 accumulators (24 where there are 32 registers). Blocks of K and V that are BF16, have
//            rows far apart or an odd head size are copied to FP32 scratch, once per tile; others are read in place.
//   rows     Up to kDirectRows rows (decode): dot products along the head size, weights by key, multiples of value
//            rows, straight from K and V in their own type, which are read once for all rows.
//
// Cost. 2 (dk + dv) operations for a visible pair, and about 20 for its softmax. In panels the operands of the inner
// loops (a panel of Q, S and O: a few KiB each) come from L1 and the blocks of K and V from L2; memory traffic is K and
// V once per tile of up to kMostTileRows rows. So panels are bound by the FMA units, fed from L1, and rows by the
// bandwidth to K and V.
//
// Rules for values that are not finite (each has its test in attention_test.cc):
//   - a NaN score of a visible key, and a score of +inf (inf - inf), make the row NaN, its log-sum-exp included;
//   - a score of -inf has weight 0, as if it were masked; a row whose scores are all -inf, or that sees nothing, is 0
//     and its log-sum-exp -inf, whatever the values hold;
//   - keys that no row of a panel sees are not used for it, so nothing of theirs leaks; a value that is not finite and
//     is seen by some rows of a panel makes 0 * inf = NaN in those of its rows that do not see it.
//
// Limits. The number of lanes is a compile-time constant (no scalable vectors). Sums run along dk and along the keys of
// a block in index order, so the worst-case error grows linearly with both.
#include "cpu/attention/attention.h"

#include <math.h>

#include "cpu/math.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kLanes = HWY_LANES(float);
constexpr bool kManyRegisters = kLanes >= 16;  // 32 vector registers rather than 16

// Rows of a panel, in vectors: two, or one for the rest of a tile that fits one.
constexpr int kPanelVectors = 2;
constexpr int kPanelRows = kPanelVectors * kLanes;

// Microkernel shapes. Scores: keys by vectors of rows. Weighing: rows by vectors of values, at most.
constexpr int kScoreKeys = kManyRegisters ? 12 : 6;
constexpr int kWeighRows = kManyRegisters ? 8 : 4;
constexpr int kWeighVectors = 3;

constexpr int kDirectRows = 4;

// A block of K and V in FP32 takes at most this much of the L2 cache, and the panels of a tile (Q and O) as much again.
constexpr int64_t kKeyStep = 12;  // a multiple of the heights of the score microkernel, 6 and 12
constexpr int64_t kMostBlockKeys = 132;
constexpr int64_t kBlockFloats = kMostBlockKeys * 256;
constexpr int64_t kMostTileRows = 256;

constexpr float kInfinity = __builtin_huge_valf();

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

// Where everything lies in a worker's scratch, in floats; every part starts on a cache line.
struct Layout {
  int64_t tile_rows, block_keys;
  int64_t dk_padded, dv_padded;  // whole vectors
  int64_t queries, outputs, maxima, sums, scores, keys, values, end;
};

Layout layout_of(int64_t dk, int64_t dv) {
  Layout l;
  l.dk_padded = round_up(dk, kLanes);
  l.dv_padded = round_up(dv, kLanes);
  const int64_t width = max_of(l.dk_padded + l.dv_padded, 1);
  l.block_keys = max_of(min_of(kBlockFloats / width / kKeyStep * kKeyStep, kMostBlockKeys), 24);
  l.tile_rows = max_of(min_of(kBlockFloats / width / 32 * 32, kMostTileRows), 32);
  int64_t next = 0;
  const auto take = [&next](int64_t floats) {
    const int64_t start = next;
    next += round_up(floats, 16);
    return start;
  };
  l.queries = take(l.tile_rows * l.dk_padded);
  l.outputs = take(l.tile_rows * l.dv_padded);
  l.maxima = take(l.tile_rows);
  l.sums = take(l.tile_rows);
  l.scores = take(max_of(kPanelRows, kDirectRows) * round_up(l.block_keys, kLanes));
  l.keys = take(l.block_keys * l.dk_padded);
  l.values = take(l.block_keys * l.dv_padded);
  l.end = next;
  return l;
}

AttentionTiling tiling(int64_t dk, int64_t dv) {
  const Layout l = layout_of(dk, dv);
  return {l.tile_rows, l.block_keys, kKeyStep, l.end * static_cast<int64_t>(sizeof(float))};
}

template <typename T>
HWY_INLINE const T* query_row(const AttentionTile& t, int64_t row) {
  return static_cast<const T*>(t.q) + row / t.group * t.q_row + row % t.group * t.q_head;
}

// ---- Reading -------------------------------------------------------------------------------------------------------

// Rows that are far apart are no stream that the hardware would foresee: they are asked for this many rows ahead. Not
// more: at strides of a power of two few of them fit the sets of a cache.
constexpr int64_t kAhead = 8;

template <typename T>
HWY_INLINE void prefetch_row(const T* row, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + i);
}

// Rows of K or V as FP32 with whole vectors, zeros after the end.
template <typename T>
void copy_rows(const T* from, int64_t stride, int64_t rows, int64_t size, int64_t padded, float* to) {
  const F32 d;
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    const T* source = from + row * stride;
    float* target = to + row * padded;
    if (row + kAhead < rows) prefetch_row(source + kAhead * stride, size);
    for (int64_t i = 0; i < whole; i += kLanes) hn::Store(load(d, source + i), d, target + i);
    if (whole < size) {
      hn::Store(load_some(d, source + whole, static_cast<size_t>(size - whole), 0.0f), d, target + whole);
    }
  }
}

// Rows of FP32 that lie close together are read in place: far ones cost a TLB entry each and share few cache sets, over
// and over for each panel.
HWY_INLINE bool in_place(const float*, int64_t stride, int64_t size) { return stride <= 2 * size; }
HWY_INLINE bool in_place(const bf16*, int64_t, int64_t) { return false; }

#if HWY_TARGET != HWY_SCALAR
using F32x4 = hn::Full128<float>;

HWY_INLINE hn::Vec<F32x4> load4(const float* from) { return hn::LoadU(F32x4(), from); }

HWY_INLINE hn::Vec<F32x4> load4(const bf16* from) {
  const hn::Rebind<uint16_t, F32x4> d16;
  const hn::Rebind<uint32_t, F32x4> d32;
  return hn::BitCast(F32x4(), hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

// Four rows of queries, transposed into four columns of a panel of `width` rows.
template <int width, typename T>
HWY_INLINE void transpose_four(const T* const* rows, int64_t dk, float* to) {
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

// Rows first_row and on, transposed to [dk][width]; rows that the panel lacks are 0.
template <int width, typename T>
void pack_queries(const AttentionTile& t, int64_t first_row, int64_t rows, float* to) {
  const T* row[width];
  for (int r = 0; r < width; ++r) row[r] = r < rows ? query_row<T>(t, first_row + r) : nullptr;
  int r = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; r + 4 <= rows; r += 4) transpose_four<width>(row + r, t.dk, to + r);
#endif
  for (; r < width; ++r) {
    for (int64_t i = 0; i < t.dk; ++i) to[i * width + r] = row[r] != nullptr ? to_float(row[r][i]) : 0.0f;
  }
}

// ---- The second product: o = o * alpha + p v -----------------------------------------------------------------------

// ROWS rows by NV vectors of values. Weights lie by key ([key][stride], rows adjacent) or by row ([row][stride], keys
// adjacent).
template <bool by_key, int ROWS, int NV, typename T>
HWY_INLINE void weigh_block(const float* HWY_RESTRICT p, int64_t stride, const T* HWY_RESTRICT v, int64_t v_row,
                            int64_t keys, const float* HWY_RESTRICT alpha, bool first, float* HWY_RESTRICT o,
                            int64_t o_row) {
  const F32 d;
  VF sum[ROWS][NV];
  HWY_UNROLL(8)
  for (int r = 0; r < ROWS; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < NV; ++c) {
      sum[r][c] = first ? hn::Zero(d) : hn::Mul(hn::Load(d, o + r * o_row + c * kLanes), hn::Set(d, alpha[r]));
    }
  }
  for (int64_t key = 0; key < keys; ++key) {
    if (!by_key && key + kAhead < keys) prefetch_row(v + (key + kAhead) * v_row, NV * kLanes);
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
                            const float* alpha, bool first, float* o, int64_t o_row) {
  if (vectors == NV) {
    weigh_block<by_key, ROWS, NV>(p, stride, v, v_row, keys, alpha, first, o, o_row);
  } else if constexpr (NV > 1) {
    weigh_strip<by_key, ROWS, NV - 1>(vectors, p, stride, v, v_row, keys, alpha, first, o, o_row);
  }
}

// All vectors of values, cut into even strips of at most `most`, for groups of ROWS rows: a strip of V stays in L1 from
// group to group.
template <bool by_key, int ROWS, int most, typename T>
void weigh(const float* p, int64_t stride, const T* v, int64_t v_row, int64_t keys, const float* alpha, bool first,
           float* o, int64_t o_row, int64_t rows, int64_t vectors) {
  const int64_t strips = (vectors + most - 1) / most;
  int64_t column = 0;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t width = vectors / strips + (strip < vectors % strips ? 1 : 0);
    for (int64_t r = 0; r < rows; r += ROWS) {
      weigh_strip<by_key, ROWS, most>(width, p + (by_key ? r : r * stride), stride, v + column * kLanes, v_row, keys,
                                      alpha + r, first, o + r * o_row + column * kLanes, o_row);
    }
    column += width;
  }
}

// ---- Writing -------------------------------------------------------------------------------------------------------

template <typename T>
void write_row(const AttentionTile& t, int64_t row, float maximum, float sum, const float* o) {
  const F32 d;
  const int64_t query = row / t.group, head = row % t.group;
  T* out = static_cast<T*>(t.out) + query * t.out_row + head * t.out_head;
  const bool empty = sum == 0.0f;  // NaN is not
  const VF scale = hn::Set(d, empty ? 0.0f : 1.0f / sum);
  int64_t i = 0;
  for (; i + kLanes <= t.dv; i += kLanes) {
    const VF value = empty ? hn::Zero(d) : hn::Mul(hn::Load(d, o + i), scale);
    store(d, value, out + i);
  }
  if (i < t.dv) {
    const VF value = empty ? hn::Zero(d) : hn::Mul(hn::Load(d, o + i), scale);
    store_some(d, value, out + i, static_cast<size_t>(t.dv - i));
  }
  if (t.lse != nullptr) t.lse[head * t.lse_head + query] = empty ? -kInfinity : maximum + logf(sum);
}

// ---- Panels --------------------------------------------------------------------------------------------------------

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
template <int NV>
struct Panel {
  int64_t first_row, rows;  // of the sequence and key head
  const float* q;           // [dk][NV * kLanes]
  float* o;                 // [rows][dv_padded]
  float* m;                 // maximum so far
  float* l;                 // sum of weights so far
};

// -inf for the keys outside of each row's range; range ends are relative to the first key, as floats.
template <int NV>
HWY_INLINE void mask_scores(float* s, int64_t keys, const float* first, const float* last, VF* maximum) {
  const F32 d;
  const VF masked = hn::Set(d, -kInfinity);
  VF from[NV], to[NV];
  for (int c = 0; c < NV; ++c) {
    from[c] = hn::Load(d, first + c * kLanes);
    to[c] = hn::Load(d, last + c * kLanes);
    maximum[c] = masked;
  }
  for (int64_t j = 0; j < keys; ++j) {
    const VF key = hn::Set(d, static_cast<float>(j));
    for (int c = 0; c < NV; ++c) {
      float* at = s + (j * NV + c) * kLanes;
      const VF score = hn::IfThenElse(hn::And(hn::Ge(key, from[c]), hn::Lt(key, to[c])), hn::Load(d, at), masked);
      hn::Store(score, d, at);
      maximum[c] = hn::Max(maximum[c], score);
    }
  }
}

// One panel against one block of keys whose rows lie at k and v. `s` is scratch for the scores.
template <int NV>
void panel_block(const AttentionTile& t, const KeyBlock& block, const Panel<NV>& panel, const float* k, int64_t k_row,
                 const float* v, int64_t v_row, float* s, int64_t dv_padded, bool* started) {
  const F32 d;
  constexpr int kRows = NV * kLanes;
  int64_t first = 0, keys = block.count;
  bool mask = false;
  HWY_ALIGN float from[kRows];
  HWY_ALIGN float to[kRows];
  if (block.partial != 0) {
    // Cut to what the panel sees; between what some and what all of its rows see the predicate decides.
    const int64_t last_row = panel.first_row + panel.rows - 1;
    const KeyRange head = visible_keys(t.mask, panel.first_row / t.group);
    const KeyRange tail = visible_keys(t.mask, last_row / t.group);
    first = max_of(head.first - block.first, 0);
    const int64_t end = min_of(tail.last - block.first, block.count);
    keys = end - first;
    if (keys <= 0) return;
    mask = tail.first - block.first > first || head.last - block.first < end;
    if (mask) {
      for (int64_t r = 0; r < kRows; ++r) {
        const KeyRange range =
            visible_keys(t.mask, min_of(panel.first_row + r, last_row) / t.group);
        // Beyond the panel's keys the distance does not matter; near ends are exact in a float.
        const int64_t start = block.first + first;
        from[r] = static_cast<float>(min_of(max_of(range.first - start, 0), keys));
        to[r] = static_cast<float>(min_of(max_of(range.last - start, 0), keys));
      }
    }
  }
  k += first * k_row;
  v += first * v_row;

  VF maximum[NV];
  for (int c = 0; c < NV; ++c) maximum[c] = hn::Set(d, -kInfinity);
  constexpr int kKeys = NV == 1 ? 12 : kScoreKeys;
  int64_t j = 0;
  for (; j + kKeys <= keys; j += kKeys) {
    score_keys<kKeys, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum);
  }
  if constexpr (kKeys > 6) {
    if (j + 6 <= keys) {
      score_keys<6, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum);
      j += 6;
    }
  }
  switch (keys - j) {
    case 5: score_keys<5, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum); break;
    case 4: score_keys<4, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum); break;
    case 3: score_keys<3, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum); break;
    case 2: score_keys<2, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum); break;
    case 1: score_keys<1, NV>(k + j * k_row, k_row, panel.q, t.dk, t.scale, s + j * kRows, maximum); break;
    default: break;
  }
  if (mask) mask_scores<NV>(s, keys, from, to, maximum);

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

  constexpr int kGroup = kRows < kWeighRows ? kRows : kWeighRows;
  weigh<true, kGroup, kWeighVectors>(s, kRows, v, v_row, keys, alpha, !*started, panel.o, dv_padded, panel.rows,
                                     dv_padded / kLanes);
  *started = true;
}

template <typename T>
void panels(const AttentionTile& t, const Layout& layout, float* scratch) {
  const F32 d;
  constexpr int64_t kMostPanels = (kMostTileRows + kPanelRows - 1) / kPanelRows;
  bool started[kMostPanels];
  const int64_t count = (t.rows + kPanelRows - 1) / kPanelRows;
  // The last panel is a single vector when its rows fit one.
  const int64_t rest = t.rows - (count - 1) * kPanelRows;
  const bool narrow = rest <= kLanes;
  for (int64_t p = 0; p < count; ++p) {
    const int64_t rows = p + 1 < count ? kPanelRows : rest;
    float* q = scratch + layout.queries + p * kPanelRows * layout.dk_padded;
    if (p + 1 == count && narrow) {
      pack_queries<kLanes, T>(t, t.first_row + p * kPanelRows, rows, q);
    } else {
      pack_queries<kPanelRows, T>(t, t.first_row + p * kPanelRows, rows, q);
    }
    for (int64_t r = p * kPanelRows; r < (p + 1) * kPanelRows; r += kLanes) {
      hn::Store(hn::Set(d, -kInfinity), d, scratch + layout.maxima + r);
      hn::Store(hn::Zero(d), d, scratch + layout.sums + r);
    }
    started[p] = false;
  }

  const bool keys_in_place = in_place(static_cast<const T*>(t.k), t.k_row, t.dk);
  const bool values_in_place = in_place(static_cast<const T*>(t.v), t.v_row, t.dv) && t.dv % kLanes == 0;
  for (int64_t b = 0; b < t.block_count; ++b) {
    const KeyBlock& block = t.blocks[b];
    const T* k_source = static_cast<const T*>(t.k) + block.first * t.k_row;
    const T* v_source = static_cast<const T*>(t.v) + block.first * t.v_row;
    const float* k = scratch + layout.keys;
    const float* v = scratch + layout.values;
    int64_t k_row = layout.dk_padded, v_row = layout.dv_padded;
    if (keys_in_place) {
      k = reinterpret_cast<const float*>(k_source);
      k_row = t.k_row;
    } else {
      copy_rows(k_source, t.k_row, block.count, t.dk, layout.dk_padded, scratch + layout.keys);
    }
    if (values_in_place) {
      v = reinterpret_cast<const float*>(v_source);
      v_row = t.v_row;
    } else {
      copy_rows(v_source, t.v_row, block.count, t.dv, layout.dv_padded, scratch + layout.values);
    }
    for (int64_t p = 0; p < count; ++p) {
      const int64_t first_row = t.first_row + p * kPanelRows;
      const float* q = scratch + layout.queries + p * kPanelRows * layout.dk_padded;
      float* o = scratch + layout.outputs + p * kPanelRows * layout.dv_padded;
      float* m = scratch + layout.maxima + p * kPanelRows;
      float* l = scratch + layout.sums + p * kPanelRows;
      float* s = scratch + layout.scores;
      if (p + 1 == count && narrow) {
        const Panel<1> panel = {first_row, rest, q, o, m, l};
        panel_block<1>(t, block, panel, k, k_row, v, v_row, s, layout.dv_padded, &started[p]);
      } else {
        const Panel<kPanelVectors> panel = {first_row, p + 1 < count ? kPanelRows : rest, q, o, m, l};
        panel_block<kPanelVectors>(t, block, panel, k, k_row, v, v_row, s, layout.dv_padded, &started[p]);
      }
    }
  }

  for (int64_t r = 0; r < t.rows; ++r) {
    write_row<T>(t, t.first_row + r, scratch[layout.maxima + r], scratch[layout.sums + r],
                 scratch + layout.outputs + r * layout.dv_padded);
  }
}

// ---- Few rows ------------------------------------------------------------------------------------------------------

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
               const Layout& layout, float* scratch, bool first_block) {
  const F32 d;
  constexpr int kKeys = ROWS <= 2 ? 4 : 2;
  constexpr int kVectors = ROWS == 1 ? 8 : (ROWS == 2 ? 4 : 3);
  const float* q = scratch + layout.queries;
  float* s = scratch + layout.scores;
  float* m = scratch + layout.maxima;
  float* l = scratch + layout.sums;
  const int64_t keys = block.count;
  const int64_t padded = round_up(keys, kLanes);
  int64_t j = 0;
  for (; j + kKeys <= keys; j += kKeys) {
    if (j + kAhead + kKeys <= keys) {
      for (int64_t a = j + kAhead; a < j + kAhead + kKeys; ++a) prefetch_row(k + a * k_row, layout.dk_padded);
    }
    dot_keys<ROWS, kKeys>(k + j * k_row, k_row, q, layout.dk_padded, t.scale, s + j, padded);
  }
  for (; j < keys; ++j) dot_keys<ROWS, 1>(k + j * k_row, k_row, q, layout.dk_padded, t.scale, s + j, padded);

  float alpha[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    float* row = s + r * padded;
    for (int64_t i = keys; i < padded; ++i) row[i] = -kInfinity;
    if (block.partial != 0) {
      const KeyRange range = visible_keys(t.mask, (t.first_row + r) / t.group);
      const int64_t from = min_of(max_of(range.first - block.first, 0), keys);
      const int64_t to = min_of(max_of(range.last - block.first, from), keys);
      for (int64_t i = 0; i < from; ++i) row[i] = -kInfinity;
      for (int64_t i = to; i < keys; ++i) row[i] = -kInfinity;
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
  weigh<false, ROWS, kVectors>(s, padded, v, v_row, keys, alpha, first_block, scratch + layout.outputs,
                               layout.dv_padded, ROWS, layout.dv_padded / kLanes);
}

template <int ROWS, typename T>
void rows(const AttentionTile& t, const Layout& layout, float* scratch) {
  for (int64_t r = 0; r < ROWS; ++r) {
    copy_rows(query_row<T>(t, t.first_row + r), 0, 1, t.dk, layout.dk_padded,
              scratch + layout.queries + r * layout.dk_padded);
    scratch[layout.maxima + r] = -kInfinity;
    scratch[layout.sums + r] = 0.0f;
  }
  // A head size of whole vectors is read in place; the tail of another would cost more than its copy.
  const bool whole = t.dk % kLanes == 0 && t.dv % kLanes == 0;
  for (int64_t b = 0; b < t.block_count; ++b) {
    const KeyBlock& block = t.blocks[b];
    const T* k = static_cast<const T*>(t.k) + block.first * t.k_row;
    const T* v = static_cast<const T*>(t.v) + block.first * t.v_row;
    if (whole) {
      row_block<ROWS, T>(t, block, k, t.k_row, v, t.v_row, layout, scratch, b == 0);
    } else {
      copy_rows(k, t.k_row, block.count, t.dk, layout.dk_padded, scratch + layout.keys);
      copy_rows(v, t.v_row, block.count, t.dv, layout.dv_padded, scratch + layout.values);
      row_block<ROWS, float>(t, block, scratch + layout.keys, layout.dk_padded, scratch + layout.values,
                             layout.dv_padded, layout, scratch, b == 0);
    }
  }
  for (int64_t r = 0; r < ROWS; ++r) {
    write_row<T>(t, t.first_row + r, scratch[layout.maxima + r], scratch[layout.sums + r],
                 scratch + layout.outputs + r * layout.dv_padded);
  }
}

template <typename T>
void tile(const AttentionTile& t, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* scratch = static_cast<float*>(memory);
  // By the rows of the whole sequence, not of the tile: how tiles are cut depends on what else is in the batch, and a
  // sequence's result should not.
  switch (t.group * t.mask.len_q) {
    case 1: return rows<1, T>(t, layout, scratch);
    case 2: return rows<2, T>(t, layout, scratch);
    case 3: return rows<3, T>(t, layout, scratch);
    case 4: return rows<4, T>(t, layout, scratch);
    default: return panels<T>(t, layout, scratch);
  }
}

void tile_f32(const AttentionTile& t, void* scratch) { tile<float>(t, scratch); }
void tile_bf16(const AttentionTile& t, void* scratch) { tile<bf16>(t, scratch); }

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels = {tiling, tile_f32, tile_bf16};

}  // namespace gatun::cpu::GATUN_LEVEL
