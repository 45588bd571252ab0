// Attention kernels, compiled once per level: out = softmax(scale * q k^T) v for one tile, by an online softmax over a
// list of key blocks.
//
// The plan feeds a tile with blocks of keys (begin, block, finish), so nothing here knows a pattern but through the
// predicate of a block.
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
//            microkernels with 12 accumulators (24 where there are 32 registers). Blocks of K and V that are not FP32,
//            are scattered (pages, lists, orders), or have rows far apart or an odd head size are copied to FP32
//            scratch, once per tile; others are read in place.
//   rows     Up to kDirectRows rows (decode): dot products along the head size, weights by key, multiples of value
//            rows, straight from K and V where they are FP32 or BF16 and lie in a row, else from such a copy.
//
// Cost. 2 (dk + dv) operations for a visible pair, and about 20 for its softmax. In panels the operands of the inner
// loops (a panel of Q, S and O: a few KiB each) come from L1 and the blocks of K and V from L2; memory traffic is K and
// V once per tile of up to kMostTileRows rows. So panels are bound by the FMA units, fed from L1, and rows by the
// bandwidth to K and V.
//
//   tiles    With AMX, what panels do where everything is BF16: see tiled.h.
//
// Between the products come softcap, ALiBi and what is added: a matrix of biases with -inf where a row does not see a
// key, made element by element and only for the blocks that need it.
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
#include <string.h>

#include "cpu/attention/tiled.h"
#include "cpu/math.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kLanes = HWY_LANES(float);
constexpr bool kManyRegisters = kLanes >= 16;  // 32 vector registers rather than 16

// Rows of a panel, in vectors: two, or one for the rest of a tile that fits one.
#if defined(GATUN_AMX_MODEL)
constexpr int kPanelVectors = 4;  // rows as AVX-512 has them
#else
constexpr int kPanelVectors = 2;
#endif
constexpr int kPanelRows = kPanelVectors * kLanes;

// Microkernel shapes. Scores: keys by vectors of rows. Weighing: rows by vectors of values, at most.
constexpr int kScoreKeys = kManyRegisters ? 12 : 6;
constexpr int kWeighRows = kManyRegisters ? 8 : 4;
constexpr int kWeighVectors = 3;

constexpr int kDirectRows = 4;

// A block of K and V in FP32 takes at most this much of the L2 cache, and the panels of a tile (Q and O) as much again.
#if defined(GATUN_LEVEL_amx)
constexpr bool kHasTiles = true;
constexpr int64_t kKeyStep = 32;  // a step of tiles
constexpr int64_t kLeastBlockKeys = 32, kMostBlockKeys = 192;
#else
constexpr bool kHasTiles = false;
constexpr int64_t kKeyStep = 12;  // a multiple of the heights of the score microkernel, 6 and 12
constexpr int64_t kLeastBlockKeys = 24, kMostBlockKeys = 132;
#endif
constexpr int64_t kBlockFloats = kMostBlockKeys * 256;
constexpr int64_t kMostTileRows = 256;

constexpr float kInfinity = __builtin_huge_valf();

// Of scratch that tiles need beyond what panels do: weights of two terms, by pairs of keys, and values twice, transposed.
constexpr int64_t tiled_floats(int64_t block_keys, int64_t dv_padded) {
  return 2 * (block_keys / 2 + 1) * kPanelRows + 2 * (block_keys / 2 + 16) * dv_padded;
}

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

// Where everything lies in a worker's scratch, in floats; every part starts on a cache line.
struct Layout {
  int64_t tile_rows, block_keys;
  int64_t dk_padded, dv_padded;  // whole vectors
  int64_t queries, outputs, maxima, sums, scores, added, keys, values, tiled, end;
};

Layout layout_of(int64_t dk, int64_t dv) {
  Layout l;
  l.dk_padded = round_up(dk, kLanes);
  l.dv_padded = round_up(dv, kLanes);
  const int64_t width = max_of(l.dk_padded + l.dv_padded, 1);
  l.block_keys = max_of(min_of(kBlockFloats / width / kKeyStep * kKeyStep, kMostBlockKeys), kLeastBlockKeys);
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
  l.added = take(max_of(kPanelRows, kDirectRows) * round_up(l.block_keys, kLanes));
  l.keys = take(l.block_keys * l.dk_padded);
  l.values = take(l.block_keys * l.dv_padded);
  l.tiled = take(kHasTiles ? tiled_floats(l.block_keys, l.dv_padded) : 0);
  l.end = next;
  return l;
}

AttentionTiling tiling(int64_t dk, int64_t dv) {
  const Layout l = layout_of(dk, dv);
  return {l.tile_rows, l.block_keys, kKeyStep, l.end * static_cast<int64_t>(sizeof(float))};
}

HWY_INLINE int64_t element_bytes(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2; }

HWY_INLINE const char* query_at(const AttentionTile& t, int64_t row) {
  return t.q + (query_of(t, row) * t.q_row + head_of(t, row) * t.q_head) * element_bytes(t.q_dtype);
}

// ---- Reading -------------------------------------------------------------------------------------------------------

// Rows that are far apart are no stream that the hardware would foresee: they are asked for this many rows ahead. Not
// more: at strides of a power of two few of them fit the sets of a cache.
constexpr int64_t kAhead = 8;

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
    if (j + kAhead < block.count) prefetch_row(data + place_of(t, source, token_of(block, j + kAhead)).element, size);
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

// ---- The second product: o = o * alpha + p v -----------------------------------------------------------------------

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

// ---- Between the products ------------------------------------------------------------------------------------------

// Whether the block's scores need a matrix of what is added to them.
HWY_INLINE bool needs_added(const AttentionTile& t, const KeyBlock& block) {
  return block.kind == KeyBlock::kGeneral || t.bias != nullptr || t.self_bias != 0.0f ||
         (block.entries != nullptr && t.lists.bias != nullptr);
}

HWY_INLINE float bias_at(const AttentionTile& t, int64_t element) {
  switch (t.bias_dtype) {
    case GTN_F32: return reinterpret_cast<const float*>(t.bias)[element];
    case GTN_BF16: return to_float(reinterpret_cast<const bf16*>(t.bias)[element]);
    default: return to_float(reinterpret_cast<const f16*>(t.bias)[element]);
  }
}

// The few keys from `origin` on that sinks and global tokens are, for a row whose other keys are done.
void add_lifted(const Mask& mask, const QueryRow& row, int64_t origin, int64_t keys, float* added, int64_t step) {
  for (int64_t j = 0; j < keys && origin + j < mask.sinks; ++j) {
    added[j * step] = visible(mask, row, origin + j) ? 0.0f : -kInfinity;
  }
  int64_t next = 0, end = mask.global_count;  // the first global token from `origin` on
  while (next < end) {
    const int64_t middle = (next + end) / 2;
    if (mask.globals[middle] < origin) {
      next = middle + 1;
    } else {
      end = middle;
    }
  }
  for (; next < mask.global_count && mask.globals[next] < origin + keys; ++next) {
    const int64_t j = mask.globals[next] - origin;
    added[j * step] = visible(mask, row, origin + j) ? 0.0f : -kInfinity;
  }
}

static inline int64_t within(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

// Keys first to first + keys - 1 of a block against one row: what is added to each score, -inf where the row does not
// see the key. added[j * step] is that of key first + j.
void add_row(const AttentionTile& t, const KeyBlock& block, int64_t first, int64_t keys, int64_t tile_row, float* added,
             int64_t step) {
  const QueryRow row = query_row_of(t, tile_row);
  const Mask& mask = t.mask;
  if (block.kind == KeyBlock::kGeneral) {
    const bool masks = block.entries != nullptr && t.lists.mask_index != nullptr;
    const bool lifts = mask.global_count > 0 || mask.sinks > 0;
    if (mask.tree == nullptr && mask.dilation == 1 && !masks && (!lifts || block.tokens == nullptr)) {
      const KeyRange window = window_of(mask, row, block.lifted);
      const int32_t* labels = mask.q_labels != nullptr ? mask.k_labels : nullptr;
      if (labels == nullptr && block.tokens == nullptr && block.step == 1) {
        const int64_t origin = token_of(block, first);
        const int64_t before = within(window.first - origin, keys), until = within(window.last - origin, keys);
        int64_t j = 0;
        for (; j < before; ++j) added[j * step] = -kInfinity;
        for (; j < until; ++j) added[j * step] = 0.0f;
        for (; j < keys; ++j) added[j * step] = -kInfinity;
      } else {
        const int32_t label = labels != nullptr ? mask.q_labels[row.query] : 0;
        for (int64_t j = 0; j < keys; ++j) {
          const int64_t token = token_of(block, first + j);
          const bool sees = token >= window.first && token < window.last &&
                            (labels == nullptr ||
                             (labels[token] == label && (mask.layers == 1 || labels_admit(mask, row.query, token))));
          added[j * step] = sees ? 0.0f : -kInfinity;
        }
      }
      if (lifts && !block.lifted && !row.global) add_lifted(mask, row, token_of(block, first), keys, added, step);
    } else {
      const int64_t line = slot_of(t, tile_row) % max_of(t.lists.block_q, 1) * t.lists.block_k;
      for (int64_t j = 0; j < keys; ++j) {
        bool sees = visible(mask, row, token_of(block, first + j));
        if (masks && sees) {
          const int64_t index = t.lists.mask_index[block.entries[first + j]];
          sees = index < 0 ||
                 t.lists.masks[index * t.lists.block_q * t.lists.block_k + line + block.places[first + j]] != 0;
        }
        added[j * step] = sees ? 0.0f : -kInfinity;
      }
    }
  } else {
    for (int64_t j = 0; j < keys; ++j) added[j * step] = 0.0f;
  }
  if (t.bias != nullptr) {
    const int64_t at = row.query * t.bias_row + head_of(t, tile_row) * t.bias_head;
    for (int64_t j = 0; j < keys; ++j) {
      if (added[j * step] != -kInfinity) added[j * step] += bias_at(t, at + token_of(block, first + j) * t.bias_key);
    }
  }
  if (block.entries != nullptr && t.lists.bias != nullptr) {
    for (int64_t j = 0; j < keys; ++j) added[j * step] += t.lists.bias[block.entries[first + j]];
  }
  if (t.self_bias != 0.0f) {
    for (int64_t j = 0; j < keys; ++j) {
      if (token_of(block, first + j) == row.position) added[j * step] += t.self_bias;
    }
  }
}

// The layers of labels that add_panel takes at most.
constexpr int64_t kPanelLayers = 8;

// Whether windows and labels alone decide, and nothing but that is added.
HWY_INLINE bool adds_by_panel(const AttentionTile& t, const KeyBlock& block) {
  const Mask& mask = t.mask;
  return block.kind == KeyBlock::kGeneral && mask.tree == nullptr && mask.dilation == 1 && mask.global_count == 0 &&
         mask.sinks == 0 && (mask.q_labels == nullptr || mask.layers <= kPanelLayers) && mask.len_k < INT32_MAX &&
         t.bias == nullptr && t.self_bias == 0.0f &&
         (block.entries == nullptr || (t.lists.mask_index == nullptr && t.lists.bias == nullptr));
}

// What add_row does, for all rows of a panel at once: rows are lanes, and a key's labels are compared with all of
// theirs.
template <int NV>
void add_panel(const AttentionTile& t, const KeyBlock& block, int64_t first, int64_t keys, int64_t first_row,
               int64_t rows, float* added) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  constexpr int64_t kRows = NV * kLanes;
  const Mask& mask = t.mask;
  const int64_t layers = mask.q_labels == nullptr ? 0 : mask.layers;
  HWY_ALIGN int32_t before[kRows], last[kRows], labels[kPanelLayers * kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    const QueryRow row = query_row_of(t, first_row + min_of(r, rows - 1));
    const KeyRange window = r < rows ? window_of(mask, row, block.lifted) : KeyRange{0, 0};
    before[r] = static_cast<int32_t>(window.first) - 1;
    last[r] = static_cast<int32_t>(window.last);
    for (int64_t layer = 0; layer < layers; ++layer) {
      labels[layer * kRows + r] = mask.q_labels[row.query - layer * mask.q_layer];
    }
  }
  for (int64_t j = 0; j < keys; ++j) {
    const int64_t token = token_of(block, first + j);
    const auto key = hn::Set(d32, static_cast<int32_t>(token));
    for (int64_t c = 0; c < NV; ++c) {
      auto sees = hn::And(hn::Gt(key, hn::Load(d32, before + c * kLanes)),
                          hn::Lt(key, hn::Load(d32, last + c * kLanes)));
      for (int64_t layer = 0; layer < layers; ++layer) {
        const auto label = hn::Set(d32, mask.k_labels[token - layer * mask.k_layer]);
        const auto same = hn::Eq(hn::Load(d32, labels + layer * kRows + c * kLanes), label);
        sees = layer == 0 ? hn::And(sees, same) : hn::AndNot(same, sees);
      }
      hn::Store(hn::IfThenElse(hn::RebindMask(d, sees), hn::Zero(d), hn::Set(d, -kInfinity)), d,
                added + j * kRows + c * kLanes);
    }
  }
}

// The keys of a block, whose tokens rise, before `token`.
HWY_INLINE int64_t keys_before(const KeyBlock& block, int64_t token) {
  if (block.tokens == nullptr) {
    return min_of(max_of((token - block.first + block.step - 1) / block.step, 0), block.count);
  }
  int64_t low = 0, high = block.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (block.tokens[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The keys of a block of kind kRange that a row sees.
HWY_INLINE KeyRange keys_of(const AttentionTile& t, const KeyBlock& block, int64_t tile_row) {
  const KeyRange window = window_of(t.mask, query_row_of(t, tile_row), block.lifted);
  const int64_t first = keys_before(block, window.first);
  return {first, max_of(keys_before(block, window.last), first)};
}

HWY_INLINE VF capped(const AttentionTile& t, VF score) {
  const F32 d;
  return hn::Mul(hn::Set(d, t.softcap), tanh(d, hn::Div(score, hn::Set(d, t.softcap))));
}

// ---- Writing -------------------------------------------------------------------------------------------------------

template <typename T>
void write_values(const float* o, float factor, int64_t size, T* out) {
  const F32 d;
  const VF scale = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(d, hn::Mul(hn::Load(d, o + i), scale), out + i);
  if (i < size) store_some(d, hn::Mul(hn::Load(d, o + i), scale), out + i, static_cast<size_t>(size - i));
}

// The output of a row with weights that sum up to `sum` at `maximum`. The sink logit is one more weight in the sum.
void write_row(const AttentionTile& t, int64_t row, float maximum, float sum, const float* o) {
  const int64_t query = query_of(t, row), head = head_of(t, row);
  char* out = t.out + (query * t.out_row + head * t.out_head) * element_bytes(t.out_dtype);
  if (t.lse != nullptr) t.lse[head * t.lse_head + query] = sum == 0.0f ? -kInfinity : maximum + logf(sum);
  if (sum == 0.0f) {  // NaN is not
    memset(out, 0, static_cast<size_t>(t.dv * element_bytes(t.out_dtype)));
    return;
  }
  float factor = 1.0f / sum;
  if (t.sink_logits != nullptr) {
    const float sink = t.sink_logits[head];
    const float top = sink > maximum ? sink : maximum;
    const float scale = expf(maximum - top);
    factor = scale / (sum * scale + expf(sink - top));
  }
  switch (t.out_dtype) {
    case GTN_F32: return write_values(o, factor, t.dv, reinterpret_cast<float*>(out));
    case GTN_BF16: return write_values(o, factor, t.dv, reinterpret_cast<bf16*>(out));
    default: return write_values(o, factor, t.dv, reinterpret_cast<f16*>(out));
  }
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
struct Panel {
  int64_t first_row, rows;
  const float* q;  // [dk][width]
  float* o;        // [rows][dv_padded]
  float* m;        // maximum so far
  float* l;        // sum of weights so far
};

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
    const int64_t first = p * kPanelRows;
    const Panel panel = {first,
                         min_of(t.rows - first, kPanelRows),
                         scratch + layout.queries + first * layout.dk_padded,
                         scratch + layout.outputs + first * layout.dv_padded,
                         scratch + layout.maxima + first,
                         scratch + layout.sums + first};
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

// ---- Panels of tiles -----------------------------------------------------------------------------------------------

#if defined(GATUN_LEVEL_amx)

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
        if (j + kAhead < block.count) prefetch_row(row_at(t, t.k, token_of(block, j + kAhead)), t.dk);
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
    const Panel panel = {first,
                         min_of(t.rows - first, kPanelRows),
                         scratch + layout.queries + first * layout.dk_padded,
                         scratch + layout.outputs + first * layout.dv_padded,
                         scratch + layout.maxima + first,
                         scratch + layout.sums + first};
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

#endif

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

// ---- Tiles ---------------------------------------------------------------------------------------------------------

// By the rows of a block of queries, not of the tile: how tiles are cut depends on what else is in the batch, and a
// sequence's result should not.
HWY_INLINE bool are_few(const AttentionTile& t) { return t.row_block <= kDirectRows; }

template <typename T>
void begin(const AttentionTile& t, float* scratch) {
  const Layout layout = layout_of(t.dk, t.dv);
  if (are_few(t)) {
    begin_rows<T>(t, layout, scratch);
  } else {
    begin_panels<T>(t, layout, scratch);
  }
}

void begin_tile(const AttentionTile& t, void* memory) {
  float* scratch = static_cast<float*>(memory);
#if defined(GATUN_LEVEL_amx)
  if (is_tiled(t)) return begin_tiled(t, layout_of(t.dk, t.dv), scratch);
#endif
  switch (t.q_dtype) {
    case GTN_F32: return begin<float>(t, scratch);
    case GTN_BF16: return begin<bf16>(t, scratch);
    default: return begin<f16>(t, scratch);
  }
}

void block_of_tile(const AttentionTile& t, const KeyBlock& block, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* scratch = static_cast<float*>(memory);
#if defined(GATUN_LEVEL_amx)
  if (is_tiled(t)) return tiled_panels(t, block, layout, scratch);
#endif
  if (!are_few(t)) return panels(t, block, layout, scratch);
  switch (t.rows) {
    case 1: return rows<1>(t, block, layout, scratch);
    case 2: return rows<2>(t, block, layout, scratch);
    case 3: return rows<3>(t, block, layout, scratch);
    default: return rows<4>(t, block, layout, scratch);
  }
}

void finish_tile(const AttentionTile& t, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* scratch = static_cast<float*>(memory);
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* o = scratch + layout.outputs + r * layout.dv_padded;
#if defined(GATUN_LEVEL_amx)
    if (is_tiled(t)) o = tiled_row(t, r, layout, scratch);
#endif
    const float maximum = scratch[layout.maxima + r], sum = scratch[layout.sums + r];
    if (t.partial != nullptr) {
      float* to = t.partial + r * (t.dv + 2);
      memcpy(to, o, static_cast<size_t>(t.dv) * sizeof(float));
      to[t.dv] = maximum;
      to[t.dv + 1] = sum;
    } else if (!is_left_out(t, r)) {
      write_row(t, r, maximum, sum, o);
    }
  }
}

// o = sum of o_i exp(m_i - m), and the same for the sums of weights, with m the greatest maximum.
void merge_tile(const AttentionTile& t, const float* partial, int64_t parts, int64_t stride, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* o = static_cast<float*>(memory) + layout.outputs;
  for (int64_t r = 0; r < t.rows; ++r) {
    if (is_left_out(t, r)) continue;
    const float* row = partial + r * (t.dv + 2);
    float maximum = -kInfinity;
    for (int64_t p = 0; p < parts; ++p) {
      const float its = row[p * stride + t.dv];
      maximum = its > maximum ? its : maximum;
    }
    memset(o, 0, static_cast<size_t>(t.dv) * sizeof(float));
    float sum = 0.0f;
    for (int64_t p = 0; p < parts; ++p) {
      const float* part = row + p * stride;
      if (part[t.dv + 1] == 0.0f) continue;  // sees nothing; a NaN is not 0
      const float factor = expf(part[t.dv] - maximum);
      sum += part[t.dv + 1] * factor;
      for (int64_t i = 0; i < t.dv; ++i) o[i] += part[i] * factor;
    }
    write_row(t, r, maximum, sum, o);
  }
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels = {tiling, begin_tile, block_of_tile, finish_tile, merge_tile};

}  // namespace gatun::cpu::GATUN_LEVEL
