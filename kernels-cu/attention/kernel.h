// Attention: out = softmax(scale q k^T + ...) v over the visible keys, for every sequence and head, by an online softmax over a
// list of blocks of keys (Dao et al. 2022, FlashAttention, algorithm 1; Milakov and Gimelshein 2018). One thread block has one
// tile of 64 rows (tile.h), or one part of its keys; each of its 4 warps has 16 rows. A pattern is a list of blocks and the
// predicate that decides in those that not every row sees whole.
//
// A block of keys, in two steps with a barrier before each, and one buffer each for keys and values:
//   1. the keys are there:    start to copy the values; s = q k^T; mask; p = exp(s - max), and what that does to sums
//   2. the values are there:  start to copy the next keys; o = o alpha + p v
// so that one of the two copies is always under way, and other thread blocks of the multiprocessor fill what gaps remain.
//
// Cost, for a pair of a query and a key that it sees: 2 (dk + dv) operations of FP32 arithmetic. On matrix units 2 dk + 4 dv,
// since weights are two terms (products.h), and about 25 instructions of 32 lanes for 64 pairs of softmax. Bytes: q and out once,
// k and v once per tile, of which all but the first time come from L2 where the keys of the heads under way fit it. Prefill of n
// keys does 64 n (2 dk + 4 dv) operations for n (dk + dv) elements read: with dk = dv = 128 in BF16 96 operations a byte of
// L2, and 64 n of memory. Predicted limits: prefill the matrix unit's rate of mma.sync, on A100 (312 T/s, 2.0 TB/s) and H100 (about
// 620 T/s of mma.sync, 3.35 TB/s) alike, at 2/3 of it at most for the second term; decode (few rows) the memory's rate, as long as
// there are parts enough for all multiprocessors. FP32: the rate of FMA, at about half for the loads of operands. Measured on an
// H200: 0.24 of mma.sync, 0.64 of reads in decode, 0.37 of FMA.
//
// Rules for values that are not finite are those of native/src/cpu/attention/kernels.cc: a NaN score of a visible key, and
// +infinity, make the row NaN; a row that sees nothing is 0 with a log-sum-exp of -infinity; keys that none of a warp's 16 rows sees
// are not used for them, whatever they hold.
//
// Limits. Rows of q, of a block of k and of a block of v must fit shared memory. Values of more than kColumns take several thread
// blocks, which all make the scores.
#pragma once

#include "attention/kernels.h"
#include "attention/products.h"
#include "attention/tile.h"

namespace gatun::gpu::attention {

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// ---- Shared memory -------------------------------------------------------------------------------------------------

// Where a key's row lies; page is -1 where there is no key.
struct Place {
  int page, row;
};

// What is known of the keys of a block beside their first and step.
template <int kKeys>
struct KeyInfo {
  Place place[kKeys];
  int token[kKeys];
  float k_scale[kKeys], v_scale[kKeys];
};

template <typename Products>
GPU_HOST_DEVICE constexpr int chunks_of(int size, int step) {
  return (size + Products::kPerChunk * step - 1) / (Products::kPerChunk * step) * step;
}

// Of a head's value row, the columns that one thread block has.
GPU_HOST_DEVICE constexpr int columns_of(int dv, int column, int most) { return dv - column < most ? dv - column : most; }

// When all products are made, the warps' outputs lie over the rows of q, k and v: of each row kColumns values, then its maximum
// and sum, with a distance that spreads what a warp writes over all banks.
template <typename Products>
constexpr int kOutputStride = Products::kColumns + 8;

template <typename Products>
constexpr int shared_bytes(int dk, int dv) {
  using Shape = typename Products::Shape;
  const int k = row_stride(chunks_of<Products>(dk, Products::kChunkStep)) * 16;
  const int v = row_stride(chunks_of<Products>(columns_of(dv, 0, Products::kColumns), Products::kValueStep)) * 16;
  const int inputs = Shape::kRows * k + Shape::kKeys * (k + v);
  const int outputs = kTileWarps * 16 * kOutputStride<Products> * 4;
  return kTileBytes + 2 * static_cast<int>(sizeof(KeyInfo<Shape::kKeys>)) + (inputs > outputs ? inputs : outputs);
}

// ---- Reading -------------------------------------------------------------------------------------------------------

GPU_DEVICE int bytes_of(int dtype) { return dtype == kF32 ? 4 : dtype == kS8 ? 1 : 2; }

GPU_DEVICE float element_at(const char* data, int dtype, int64_t index) {
  switch (dtype) {
    case kF32: return reinterpret_cast<const float*>(data)[index];
    case kBf16: return to_float(reinterpret_cast<const Bf16*>(data)[index]);
    case kF16: return to_float(reinterpret_cast<const Half*>(data)[index]);
    default: return static_cast<float>(reinterpret_cast<const int8_t*>(data)[index]);
  }
}

// Elements `from` to from + left - 1 of a row as a chunk; beyond `left` there are zeros.
GPU_DEVICE void convert_chunk(char* to, const char* data, int dtype, int64_t from, int left, float*) {
  Bytes16 chunk;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) chunk.word[i] = i < left ? bits_of(element_at(data, dtype, from + i)) : 0u;
  store_16(to, chunk);
}
GPU_DEVICE uint32_t pack(float lo, float hi, Bf16*) { return pack_bf16(lo, hi); }
GPU_DEVICE uint32_t pack(float lo, float hi, Half*) { return pack_half(lo, hi); }
template <typename T>
GPU_DEVICE void convert_chunk(char* to, const char* data, int dtype, int64_t from, int left, T*) {
  Bytes16 chunk;
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float lo = 2 * i < left ? element_at(data, dtype, from + 2 * i) : 0.0f;
    const float hi = 2 * i + 1 < left ? element_at(data, dtype, from + 2 * i + 1) : 0.0f;
    chunk.word[i] = pack(lo, hi, static_cast<T*>(nullptr));
  }
  store_16(to, chunk);
}

// Copies or converts rows to shared memory; element_of(row) is where a row starts among the elements of `data`, or -1 for a row of
// zeros. Neighbouring threads have neighbouring chunks; where that gives a thread one number of chunk in all of its rows, what
// follows from it is found once.
template <typename Element, typename To, typename ElementOf>
GPU_DEVICE void load_rows(const To& to, int rows, const char* data, int dtype, bool copies, int size, ElementOf element_of) {
  constexpr int kPerChunk = 16 / static_cast<int>(sizeof(Element));
  const int chunks = to.chunks();
  if (chunks == 0) return;
  const int rows_on = kTileThreads / chunks, chunks_on = kTileThreads % chunks;
  int row = thread() / chunks, chunk = thread() % chunks;
  if (copies && chunks_on == 0) {
    const int valid = at_most(at_least(size - chunk * kPerChunk, 0) * static_cast<int>(sizeof(Element)), 16);
    const char* from = data + (valid > 0 ? chunk * 16 : 0);
    GPU_ROLLED
    for (; row < rows; row += rows_on) {
      const int64_t at = element_of(row);
      copy_async_16(to.at(row, chunk), from + (at < 0 ? 0 : at) * static_cast<int64_t>(sizeof(Element)), at < 0 ? 0 : valid);
    }
    return;
  }
  while (row < rows) {
    const int64_t at = element_of(row);
    const int left = at >= 0 ? at_least(size - chunk * kPerChunk, 0) : 0;
    if (copies) {
      const int valid = at_most(left * static_cast<int>(sizeof(Element)), 16);
      copy_async_16(to.at(row, chunk), valid > 0 ? data + at * static_cast<int64_t>(sizeof(Element)) + chunk * 16 : data,
                    valid);
    } else {
      convert_chunk(to.at(row, chunk), data, dtype, at + chunk * kPerChunk, left, static_cast<Element*>(nullptr));
    }
    row += rows_on;
    chunk += chunks_on;
    if (chunk >= chunks) {
      chunk -= chunks;
      ++row;
    }
  }
}

// The rows of q.
template <typename Products>
GPU_DEVICE void load_queries(const Args& a, const Tile& t, const typename Products::InputRows& to) {
  const int64_t first = (a.packed_q ? 0 : t.sequence * a.q.sequence) + t.first_q * a.q.row;
  load_rows<typename Products::Element>(
      to, Products::Shape::kRows, a.q.data, a.q_dtype, a.q_copies != 0, a.dk, [&](int row) -> int64_t {
        if (row >= t.rows) return -1;
        return first + query_of(a, t, row) * a.q.row + (t.head + (t.first_row + row) % a.group) * a.q.head;
      });
}

// A block of k or v; `size` elements of a row from `column` on.
template <typename Products>
GPU_DEVICE void load_keys(const Args& a, const Tile& t, const KeyBlock& block, const Place* places, const Operand& from,
                          bool copies, int column, int size, const typename Products::InputRows& to) {
  using Element = typename Products::Element;
  constexpr int kKeys = Products::Shape::kKeys;
  const bool paged = a.block_table != nullptr;
  const int64_t first =
      (paged || a.packed_k ? 0 : t.sequence * from.sequence) + t.first_k * from.row + t.key_head * from.head + column;
  if (places != nullptr) {
    load_rows<Element>(to, kKeys, from.data, a.k_dtype, copies, size, [&](int row) -> int64_t {
      const Place place = places[row];
      if (place.page < 0) return -1;
      return first + (paged ? place.page * from.sequence : 0) + place.row * from.row;
    });
    return;
  }
  if constexpr (Products::kExact) {
    if (copies) {
      // The usual case: rows at one distance, in memory and in shared memory.
      constexpr int kChunks = Products::kColumns / Products::kPerChunk, kRowsOn = kTileThreads / kChunks;
      static_assert(kKeys % kRowsOn == 0);
      const int row = thread() / kChunks, chunk = thread() % kChunks;
      const int64_t step = block.step * from.row * static_cast<int64_t>(sizeof(Element));
      const char* at = from.data + (first + block.first * from.row) * static_cast<int64_t>(sizeof(Element)) + row * step +
                       chunk * 16;
      GPU_UNROLL
      for (int i = 0; i < kKeys / kRowsOn; ++i) {
        char* const target =
            kRowsOn % 8 == 0 ? to.at(row, chunk) + i * kRowsOn * to.stride() * 16 : to.at(row + i * kRowsOn, chunk);
        copy_async_16(target, at, row + i * kRowsOn < block.count ? 16 : 0);
        at += kRowsOn * step;
      }
      return;
    }
  }
  load_rows<Element>(to, kKeys, from.data, a.k_dtype, copies, size, [&](int row) -> int64_t {
    return row < block.count ? first + (block.first + static_cast<int64_t>(row) * block.step) * from.row : -1;
  });
}

// Where the keys of a block lie, and their scales.
template <typename Products>
GPU_DEVICE void look_up_keys(const Args& a, const Tile& t, const KeyBlock& block, int index,
                             KeyInfo<Products::Shape::kKeys>* info) {
  const int i = thread();
  if (i >= Products::Shape::kKeys) return;
  int token = i < block.count ? block.first + i * block.step : -1;
  if (block.gathered) token = token_of(a, t, block, index, i);
  Place place = {token < 0 ? -1 : 0, token};
  if (a.block_table != nullptr && token >= 0) {
    const int32_t* table = a.block_table + static_cast<int64_t>(t.sequence) * a.pages_per_sequence;
    place = {clamp(table[token / a.page_size], 0, a.pages - 1), token % a.page_size};
  }
  info->token[i] = token;
  info->place[i] = place;
  if (a.k_scales == nullptr) return;
  float k_scale = 0.0f, v_scale = 0.0f;
  if (token >= 0) {
    const int64_t row = a.block_table != nullptr ? static_cast<int64_t>(place.page) * a.page_size + place.row
                        : a.packed_k             ? t.first_k + token
                                                 : static_cast<int64_t>(t.sequence) * a.planned_k + token;
    k_scale = a.k_scales[row * a.heads_k + t.key_head];
    v_scale = a.v_scales[row * a.heads_k + t.key_head];
  }
  info->k_scale[i] = k_scale;
  info->v_scale[i] = v_scale;
}

// ---- Between the products ------------------------------------------------------------------------------------------

// What a thread knows of each of its rows.
struct RowState {
  QueryRow query;
  int head, slot;
  bool there;
};

GPU_DEVICE RowState state_of(const Args& a, const Tile& t, int row) {
  RowState state = {};
  state.there = row < t.rows;
  if (!state.there) return state;
  state.query = row_of(t.mask, query_of(a, t, row));
  state.slot = (t.first_row + row) / a.group;
  state.head = t.head + (t.first_row + row) % a.group;
  return state;
}

template <typename Products>
constexpr int kRowsOf = Products::Layout::kRows;
template <typename Products>
constexpr int kScores = Products::kKeys / Products::Layout::kTile * Products::Layout::kSums;  // of a thread
template <typename Products>
using Scores = float[Products::kKeys / Products::Layout::kTile][Products::Layout::kSums];

// Score n kSums + i of a thread is sum i of its tile n. Its row, of the thread's, and its key, where that of the warp's first
// is given.
template <typename Products>
GPU_HOST_DEVICE constexpr int row_of_score(int score) {
  return Products::Layout::row_of(score % Products::Layout::kSums);
}
template <typename Products>
GPU_DEVICE int column_of(int first, int score) {
  using Layout = typename Products::Layout;
  return first + score / Layout::kSums * Layout::kTile + Layout::column(score % Layout::kSums);
}
template <typename Products>
GPU_DEVICE float& score_at(Scores<Products>& s, int score) {
  return s[score / Products::Layout::kSums][score % Products::Layout::kSums];
}

// The columns from the first that are tokens from this one on.
GPU_DEVICE int column_from(const KeyBlock& block, int token) {
  return at_most(at_least(token - block.first + block.step - 1, 0) / block.step, block.count);
}

// Which of its pairs a thread's rows see by the window, where that tells: a bit for each score. `key` is the warp's first.
template <typename Products>
GPU_DEVICE uint32_t window_pairs(const Tile& t, const KeyBlock& block, const RowState (&rows)[kRowsOf<Products>], int key) {
  int first[kRowsOf<Products>], last[kRowsOf<Products>];
  GPU_UNROLL
  for (int r = 0; r < kRowsOf<Products>; ++r) {
    first[r] = 0;
    last[r] = rows[r].there ? block.count : 0;
    if (block.kind != KeyBlock::kFull && rows[r].there) {
      const KeyRange window = window_of(t.mask, rows[r].query, block.lifted);
      first[r] = column_from(block, window.first);
      last[r] = column_from(block, window.last);
    }
  }
  uint32_t bits = 0;
  GPU_UNROLL
  for (int bit = 0; bit < kScores<Products>; ++bit) {
    const int column = column_of<Products>(key, bit), r = row_of_score<Products>(bit);
    if (column >= first[r] && column < last[r]) bits |= 1u << bit;
  }
  return bits;
}

// The same for every kind of block.
template <typename Products, typename Info>
GPU_DEVICE uint32_t visible_pairs(const Args& a, const Tile& t, const KeyBlock& block, int index, const Info& info,
                                  const RowState (&rows)[kRowsOf<Products>], int key) {
  uint32_t bits = 0;
  if (block.kind != KeyBlock::kGeneral) {
    bits = window_pairs<Products>(t, block, rows, key);
    if (block.kind != KeyBlock::kLifted) return bits;
    // Which keys are lifted is found once for all rows, a key to each lane: of as many keys a thread has 16 scores.
    GPU_UNROLL
    for (int part = 0; part < (Products::kKeys + kWarp - 1) / kWarp; ++part) {
      const int token = block.first + (key + part * kWarp + lane()) * block.step;
      const Lanes lifted = ballot(token < t.mask.sinks || is_among(t.mask.globals, t.mask.global_count, token));
      GPU_UNROLL
      for (int r = 0; r < kRowsOf<Products>; ++r) {
        const int end = rows[r].there ? column_from(block, window_of(t.mask, rows[r].query, true).last) : 0;
        GPU_UNROLL
        for (int bit = 16 * part; bit < at_most(16 * part + 16, kScores<Products>); ++bit) {
          const int column = column_of<Products>(key, bit);
          if (row_of_score<Products>(bit) == r && (lifted >> ((column - key) & (kWarp - 1)) & 1) != 0 && column < end) {
            bits |= 1u << bit;
          }
        }
      }
    }
    return bits;
  }
  GPU_ROLLED
  for (int bit = 0; bit < kScores<Products>; ++bit) {
    const int column = column_of<Products>(key, bit);
    const RowState row = row_of_score<Products>(bit) == 0 ? rows[0] : rows[kRowsOf<Products> - 1];
    if (column >= block.count || !row.there) continue;
    const int token = block.gathered ? info.token[column] : block.first + column * block.step;
    if (token < 0 || !visible(t.mask, row.query, token)) continue;
    if (t.listed && entry_hides(a, t, index, column, row.slot)) continue;
    bits |= 1u << bit;
  }
  return bits;
}

GPU_DEVICE bool adds_biases(const Args& a, const Tile& t) {
  return a.bias != nullptr || a.self_bias != 0.0f || (t.listed && a.block_bias != nullptr);
}

// The scores of a block in units of log2, from the products of q and k, where more is done to them than scaling. Clears the bits of
// pairs that a bias masks.
template <typename Products, typename Info>
GPU_DEVICE void finish_scores(const Args& a, const Tile& t, const KeyBlock& block, int index, const Info& info,
                              const RowState (&rows)[kRowsOf<Products>], int key, Scores<Products>& s, uint32_t* bits) {
  if (a.k_scales != nullptr) {
    GPU_UNROLL
    for (int bit = 0; bit < kScores<Products>; ++bit) score_at<Products>(s, bit) *= info.k_scale[column_of<Products>(key, bit)];
  }
  GPU_UNROLL
  for (int bit = 0; bit < kScores<Products>; ++bit) score_at<Products>(s, bit) *= a.scale;
  if (a.softcap > 0.0f) {
    GPU_UNROLL
    for (int bit = 0; bit < kScores<Products>; ++bit) {
      score_at<Products>(s, bit) = a.softcap * tanh(score_at<Products>(s, bit) / a.softcap);
    }
  }
  if (a.slopes != nullptr) {
    float slope[kRowsOf<Products>];
    GPU_UNROLL
    for (int r = 0; r < kRowsOf<Products>; ++r) slope[r] = rows[r].there ? a.slopes[rows[r].head] : 0.0f;
    GPU_UNROLL
    for (int bit = 0; bit < kScores<Products>; ++bit) {
      const int column = column_of<Products>(key, bit), r = row_of_score<Products>(bit);
      const int token = block.gathered ? info.token[column] : block.first + column * block.step;
      const int apart = rows[r].query.position - token;
      score_at<Products>(s, bit) = fma(-slope[r], static_cast<float>(apart < 0 ? -apart : apart), score_at<Products>(s, bit));
    }
  }
  if (adds_biases(a, t)) {
    GPU_UNROLL
    for (int bit = 0; bit < kScores<Products>; ++bit) {
      if ((*bits >> bit & 1) != 0) {
        const int column = column_of<Products>(key, bit), r = row_of_score<Products>(bit);
        const int token = block.gathered ? info.token[column] : block.first + column * block.step;
        float& score = score_at<Products>(s, bit);
        if (a.bias != nullptr && token < a.bias_keys && rows[r].query.query < a.bias_queries) {
          const float bias = element_at(a.bias, a.bias_dtype,
                                        t.sequence * a.bias_sequence + rows[r].head * a.bias_head +
                                            rows[r].query.query * a.bias_row + token * a.bias_key);
          if (bias == -infinity()) *bits &= ~(1u << bit);
          score += bias;
        }
        if (t.listed && a.block_bias != nullptr) {
          int place;
          score += a.block_bias[entry_of(a, t, index, column, &place)];
        }
        if (token == rows[r].query.position) score += a.self_bias;
      }
    }
  }
  GPU_UNROLL
  for (int bit = 0; bit < kScores<Products>; ++bit) score_at<Products>(s, bit) *= kLog2E;
}

// ---- Writing -------------------------------------------------------------------------------------------------------

// ln x for x > 0 that is normal, infinity or NaN: x = 2^k m with m about 1, and ln m = 2 atanh((m - 1) / (m + 1)).
GPU_DEVICE float natural_log(float x) {
  if (!(x < infinity())) return x;
  const uint32_t bits = bits_of(x) + (0x3f800000u - 0x3f3504f3u);
  const float k = static_cast<float>(static_cast<int>(bits >> 23) - 127);
  const float m = float_of((bits & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1.0f) / (m + 1.0f), z = s * s;
  float series = fma(z, 2.0f / 9, 2.0f / 7);
  series = fma(series, z, 2.0f / 5);
  series = fma(series, z, 2.0f / 3);
  const float low = fma(series * z, s, k * 1.42860677e-6f);
  return fma(k, 0x1.62e4p-1f, fma(2.0f, s, low));
}

GPU_DEVICE int64_t out_row(const Args& a, const Tile& t, const RowState& row) {
  return (a.packed_q ? 0 : t.sequence * a.out.sequence) + (t.first_q + row.query.query) * a.out.row +
         row.head * a.out.head;
}

// The rows of partial results: maximum (of log2) and sum come after dv values.
GPU_DEVICE float* partial_row(const Args& a, const Tile& t, const RowState& row, int part) {
  const int64_t tokens = a.packed_q ? a.len_q : static_cast<int64_t>(a.sequences) * a.len_q;
  const int64_t token = (a.packed_q ? t.first_q : static_cast<int64_t>(t.sequence) * a.len_q) + row.query.query;
  return a.partial + ((part * tokens + token) * a.heads_q + row.head) * (a.dv + 2);
}

GPU_DEVICE void store_value(const Args& a, int64_t index, float value) {
  switch (a.out_dtype) {
    case kF32: reinterpret_cast<float*>(a.out.data)[index] = value; return;
    case kBf16: reinterpret_cast<Bf16*>(a.out.data)[index] = to_bf16(value); return;
    default: reinterpret_cast<Half*>(a.out.data)[index] = to_half(value); return;
  }
}

// What a row's sums of weighted values are multiplied by; its log-sum-exp is written where it is wanted. The sink logit is one
// more weight in the sum.
GPU_DEVICE float finish_row(const Args& a, const Tile& t, const RowState& row, float maximum, float sum,
                            bool writes_lse) {
  if (writes_lse && a.lse != nullptr) {
    const int64_t at = (a.packed_q ? 0 : t.sequence * a.lse_sequence) + row.head * a.lse_head + t.first_q + row.query.query;
    a.lse[at] = sum == 0.0f ? -infinity() : fma(maximum, kLn2, natural_log(sum));
  }
  if (sum == 0.0f) return 0.0f;  // NaN is not
  if (a.sink_logits == nullptr) return 1.0f / sum;
  const float sink = a.sink_logits[row.head] * kLog2E;
  const float top = sink > maximum ? sink : maximum;
  const float scale = exp2(maximum - top);
  return scale / (sum * scale + exp2(sink - top));
}

// Writes a row of the tile from `count` shares of it, up to 64: o = sum of o_i 2^(m_i - m), the same for the sums of weights, with m
// the greatest maximum. share(i) are the values of a share; its maximum and sum are `tail` behind. All lanes of a warp; to
// `partial` unless it is null.
template <typename Share>
GPU_DEVICE void write_row(const Args& a, const Tile& t, const RowState& row, int columns, int count, int tail,
                          float* partial, Share share) {
  float maxima[2], sums[2], factors[2];
  GPU_UNROLL
  for (int i = 0; i < 2; ++i) {
    const bool there = lane() + i * kWarp < count;
    const float* its = share(there ? lane() + i * kWarp : 0) + tail;
    maxima[i] = there ? its[0] : -infinity();
    sums[i] = there ? its[1] : 0.0f;
  }
  const float maximum = warp_max(maxima[0] > maxima[1] ? maxima[0] : maxima[1]);
  const float base = maximum == -infinity() ? 0.0f : maximum;
  // A share of nothing has no part in it, whatever it holds; a NaN is not nothing.
  GPU_UNROLL
  for (int i = 0; i < 2; ++i) factors[i] = sums[i] == 0.0f ? 0.0f : exp2(maxima[i] - base);
  const float sum = warp_sum(sums[0] * factors[0] + sums[1] * factors[1]);
  float factor = 1.0f;
  if (partial == nullptr) {
    factor = finish_row(a, t, row, maximum, sum, lane() == 0 && t.column == 0);
  } else if (lane() == 0 && t.column == 0) {
    partial[a.dv] = maximum;
    partial[a.dv + 1] = sum;
  }
  const int64_t to = out_row(a, t, row) + t.column;
  for (int base_column = 0; base_column < columns; base_column += kWarp) {
    const int column = base_column + lane();
    const int safe = column < columns ? column : 0;
    float o = 0.0f;
    for (int i = 0; i < count; ++i) {
      const float its = shuffle(i < kWarp ? factors[0] : factors[1], i % kWarp);
      if (its != 0.0f) o = fma(share(i)[safe], its, o);
    }
    if (column >= columns) continue;
    if (partial != nullptr) {
      partial[t.column + column] = o;
    } else {
      store_value(a, to + column, sum == 0.0f ? 0.0f : o * factor);
    }
  }
}

// ---- The kernel ----------------------------------------------------------------------------------------------------

// Warp 0 finds the tile, and leaves it in shared memory for all; false where there is none.
template <typename Shape>
GPU_DEVICE bool find_tile_together(const Args& a, bool parts) {
  static_assert(sizeof(Tile) + 16 <= kTileBytes);
  int& found = *reinterpret_cast<int*>(shared() + kTileBytes - 16);
  if (warp() == 0) {
    Tile tile;
    const bool is = find_tile<Shape::kRows, Shape::kKeys, Shape::kColumns>(a, parts, &tile);
    if (lane() == 0) {
      if (is) *reinterpret_cast<Tile*>(shared()) = tile;
      found = is ? 1 : 0;
    }
  }
  sync_threads();
  return found != 0;
}

// The part of a tile's blocks that a thread block looks at, from `index` to end - 1.
template <int kKeys>
struct Blocks {
  const Args& a;
  const Tile& t;
  int index, end;

  // Moves on to the next block that has keys.
  GPU_DEVICE KeyBlock find() {
    KeyBlock block = {};
    for (; index < end; ++index) {
      block = block_at<kKeys>(a, t, index);
      if (block.count > 0) break;
    }
    index = uniform(index);
    return uniform(block);
  }
};

GPU_DEVICE bool is_looked_up(const Args& a, const KeyBlock& block) {
  return block.gathered || a.block_table != nullptr || a.k_scales != nullptr;
}

// Whether not every pair of the block counts.
template <int kKeys>
GPU_DEVICE bool is_masked(const Args& a, const KeyBlock& block) {
  return block.kind != KeyBlock::kFull || block.count < kKeys || a.bias != nullptr;
}

GPU_DEVICE bool scales_alone(const Args& a, const Tile& t) {
  return a.k_scales == nullptr && a.softcap <= 0.0f && a.slopes == nullptr && !adds_biases(a, t);
}

// What a thread has of the online softmax of its rows, `row` of the tile and, where it has two, the one after 8.
template <typename Products>
struct Softmax {
  using Layout = typename Products::Layout;
  static constexpr int kTilesOfKeys = Products::kKeys / Layout::kTile, kTilesOfColumns = Products::kColumns / Layout::kTile;
  static constexpr int kSums = Layout::kSums, kRows = Layout::kRows, kScores = attention::kScores<Products>;
  static_assert(kScores <= 32, "a bit for each");

  int row, first_key;  // the warp's first key, of the block's
  float maximum[kRows], sum[kRows];
  float alpha[kRows];  // what the latest weights leave of the outputs before them
  float o[kTilesOfColumns][kSums];

  GPU_DEVICE void start() {
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      maximum[r] = -infinity();
      sum[r] = 0.0f;
      alpha[r] = 1.0f;
    }
    GPU_UNROLL
    for (int n = 0; n < kTilesOfColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < kSums; ++i) o[n][i] = 0.0f;
    }
  }

  // Makes weights of the products of q and k, with what that does to the sums of weights; the outputs before them wait for
  // rescale(). Returns the bits of pairs that any row of the warp sees, where the block is masked: those of the thread's first
  // row tell.
  template <typename Info>
  GPU_DEVICE uint32_t weights(const Args& a, const Tile& t, const KeyBlock& block, int index, const Info& info, bool masked,
                              bool simple, Scores<Products>& s) {
    uint32_t bits = 0xffffffffu, used = 0;
    if (masked || !simple) {
      RowState rows[kRows];
      GPU_UNROLL
      for (int r = 0; r < kRows; ++r) rows[r] = state_of(a, t, row + r * 8);
      const int key = anew(first_key);
      if (masked) bits = visible_pairs<Products>(a, t, block, index, info, rows, key);
      if (!simple) finish_scores<Products>(a, t, block, index, info, rows, key, s, &bits);
    }
    if (simple) {
      const float factor = a.scale * kLog2E;
      GPU_UNROLL
      for (int bit = 0; bit < kScores; ++bit) score_at<Products>(s, bit) *= factor;
    }
    if (masked) {
      GPU_UNROLL
      for (int bit = 0; bit < kScores; ++bit) {
        if ((bits >> bit & 1) == 0) score_at<Products>(s, bit) = -infinity();
      }
      used = kRows == 2 ? bits | bits >> 2 : bits;
      GPU_UNROLL
      for (int lanes = Layout::kSameColumn.first; lanes < Layout::kSameColumn.end; lanes *= 2) used |= shuffle_xor(used, lanes);
    }

    // Max loses a NaN; the weight of that key is NaN in any case, and with it the sum. A maximum of -inf would make -inf - -inf
    // of masked scores: there 0 takes its place, and all weights are 0.
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float now = maximum[r];
      GPU_UNROLL
      for (int bit = 0; bit < kScores; ++bit) {
        if (row_of_score<Products>(bit) == r) now = greater_of(score_at<Products>(s, bit), now);
      }
      GPU_UNROLL
      for (int lanes = Layout::kSameRow.first; lanes < Layout::kSameRow.end; lanes *= 2) {
        const float other = shuffle_xor(now, lanes);
        now = other > now ? other : now;
      }
      const float base = (now == -infinity() ? 0.0f : now) - Products::kShift;
      alpha[r] = exp2_approx(maximum[r] - Products::kShift - base);
      maximum[r] = now;
      float added = 0.0f;
      GPU_UNROLL
      for (int bit = 0; bit < kScores; bit += 2) {
        if (row_of_score<Products>(bit) != r) continue;
        float &one = score_at<Products>(s, bit), &other = score_at<Products>(s, bit + 1);
        one = exp2_approx(one - base);
        other = exp2_approx(other - base);
        added += one + other;
      }
      sum[r] = fma(sum[r], alpha[r], added);
    }
    if (a.v_scales != nullptr) {
      GPU_UNROLL
      for (int bit = 0; bit < kScores; ++bit) {
        const bool sees = !masked || (used >> (bit - 2 * row_of_score<Products>(bit)) & 1) != 0;
        score_at<Products>(s, bit) *= sees ? info.v_scale[column_of<Products>(first_key, bit)] : 0.0f;
      }
    }
    return used;
  }

  // Whether any row of the warp sees anything.
  GPU_DEVICE static bool any_used(uint32_t used) { return any((used & (kRows == 2 ? 0x33333333u : 0xffffffffu)) != 0); }

  GPU_DEVICE void rescale() {
    bool changes = false;
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) changes = changes || alpha[r] != 1.0f;
    if (!any(changes)) return;
    GPU_UNROLL
    for (int n = 0; n < kTilesOfColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < kSums; ++i) o[n][i] *= alpha[Layout::row_of(i)];
    }
  }

  // The thread's rows to shared memory: line `line` of `outputs`, and the one after 8.
  GPU_DEVICE void store(const Tile& t, float* outputs, int line) {
    constexpr float kUnshift = Products::kShift == 0.0f ? 1.0f : 0x1p-12f;
    static_assert(Products::kShift == 0.0f || Products::kShift == 12.0f);
    constexpr LaneBits kSameRow = Layout::kSameRow;
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float its = sum[r] * kUnshift;
      GPU_UNROLL
      for (int lanes = kSameRow.first; lanes < kSameRow.end; lanes *= 2) its += shuffle_xor(its, lanes);
      if (row + r * 8 >= t.rows) continue;
      float* to = outputs + (line + r * 8) * kOutputStride<Products>;
      Layout::store_row(to, r, o, kUnshift);
      if ((lane() & (kSameRow.end - kSameRow.first)) == 0) {
        to[Products::kColumns] = maximum[r];
        to[Products::kColumns + 1] = its;
      }
    }
  }
};

template <typename Products>
GPU_DEVICE void attend(const Args& a) {
  using Shape = typename Products::Shape;
  using Layout = typename Products::Layout;
  constexpr int kKeys = Shape::kWarpKeys, kColumns = Shape::kColumns;  // of a warp
  static_assert(Shape::kKeys <= kTileThreads);
  using Info = KeyInfo<Shape::kKeys>;

  if (!find_tile_together<Shape>(a, a.parts > 1)) return;
  const Tile& t = *reinterpret_cast<const Tile*>(shared());
  int part_blocks;
  if (t.part >= parts_of(a, t, Shape::kRows, &part_blocks)) return;
  const int first_block = uniform(t.part * part_blocks);
  Blocks<Shape::kKeys> blocks = {a, t, first_block, uniform(at_most(first_block + part_blocks, t.blocks))};

  const int columns = Products::kExact ? kColumns : at_least(columns_of(a.dv, t.column, kColumns), 0);
  Info* const infos = reinterpret_cast<Info*>(shared() + kTileBytes);
  char* memory = shared() + kTileBytes + 2 * sizeof(Info);
  float* const outputs = reinterpret_cast<float*>(memory);
  const typename Products::InputRows q = {memory, chunks_of<Products>(a.dk, Products::kChunkStep)};
  memory += Shape::kRows * q.stride() * 16;
  const typename Products::InputRows k = {memory, q.given};
  memory += Shape::kKeys * k.stride() * 16;
  const typename Products::InputRows v = {memory, chunks_of<Products>(columns, Products::kValueStep)};

  const int first_row = warp() / Shape::kKeyWarps * 16;
  const bool active = Products::kTogether || first_row < t.rows;  // else the warp copies, and waits for the others
  const bool simple = scales_alone(a, t);
  Softmax<Products> softmax;
  softmax.row = first_row + Layout::row();
  softmax.first_key = warp() % Shape::kKeyWarps * kKeys;
  softmax.start();

  KeyBlock block = blocks.find();
  int turn = 0;
  load_queries<Products>(a, t, q);
  if (blocks.index < blocks.end) {
    if (is_looked_up(a, block)) {
      look_up_keys<Products>(a, t, block, blocks.index, infos);
      sync_threads();
    }
    load_keys<Products>(a, t, block, is_looked_up(a, block) ? infos->place : nullptr, a.k, a.k_copies != 0, 0, a.dk, k);
  }
  copy_async_commit();

  while (blocks.index < blocks.end) {
    const Info& info = infos[turn];
    copy_async_wait<0>();
    Products::publish();
    sync_threads();  // the keys are there, and all are done with the values before
    load_keys<Products>(a, t, block, is_looked_up(a, block) ? info.place : nullptr, a.v, a.v_copies != 0, t.column, columns,
                        v);
    copy_async_commit();

    Scores<Products> s;
    uint32_t used = 0;
    const bool masked = is_masked<Shape::kKeys>(a, block);
    if (active) {
      Products::scores(q, first_row, k, softmax.first_key, s);
      used = softmax.weights(a, t, block, blocks.index, info, masked, simple, s);
      softmax.rescale();
    }

    ++blocks.index;
    block = blocks.find();
    turn ^= 1;
    if (blocks.index < blocks.end && is_looked_up(a, block)) {
      look_up_keys<Products>(a, t, block, blocks.index, infos + turn);
    }
    copy_async_wait<0>();
    Products::publish();
    sync_threads();  // the values are there, and all are done with the keys
    if (blocks.index < blocks.end) {
      load_keys<Products>(a, t, block, is_looked_up(a, block) ? infos[turn].place : nullptr, a.k, a.k_copies != 0, 0, a.dk, k);
    }
    copy_async_commit();
    if (active && !masked) {
      Products::template weigh<false>(s, v, softmax.first_key, columns, 0, a.exact != 0, softmax.o);
    } else if (active && softmax.any_used(used)) {
      Products::template weigh<true>(s, v, softmax.first_key, columns, used, a.exact != 0, softmax.o);
    }
  }
  copy_async_wait<0>();

  sync_threads();  // all are done with q, k and v, which the outputs take the place of
  softmax.store(t, outputs, warp() * 16 + Layout::row());
  sync_threads();
  const int parts = parts_of(a, t, Shape::kRows, &part_blocks);
  for (int r = warp(); r < t.rows; r += kTileWarps) {
    const RowState state = state_of(a, t, r);
    const float* first = outputs + (r / 16 * Shape::kKeyWarps * 16 + r % 16) * kOutputStride<Products>;
    write_row(a, t, state, columns, Shape::kKeyWarps, kColumns, parts > 1 ? partial_row(a, t, state, t.part) : nullptr,
              [&](int i) { return first + i * 16 * kOutputStride<Products>; });
  }
}

// Puts the parts of a tile together, in their order.
template <typename Shape>
GPU_DEVICE void merge_parts(const Args& a) {
  if (!find_tile_together<Shape>(a, false)) return;
  const Tile& t = *reinterpret_cast<const Tile*>(shared());
  int part_blocks;
  const int parts = parts_of(a, t, Shape::kRows, &part_blocks);
  if (parts == 1) return;
  const int columns = at_least(columns_of(a.dv, t.column, Shape::kColumns), 0);
  for (int r = warp(); r < t.rows; r += kTileWarps) {
    const RowState row = state_of(a, t, r);
    write_row(a, t, row, columns, parts, a.dv - t.column, nullptr,
              [&](int part) { return partial_row(a, t, row, part) + t.column; });
  }
}

// kBlocks: thread blocks that a multiprocessor is to hold, which limits registers.
template <typename Products, int kBlocks>
GPU_KERNEL(kTileThreads, kBlocks)
void attend_tiles(const Args a) {
  attend<Products>(a);
}

template <typename Shape>
GPU_KERNEL(kTileThreads, 1)
void merge_tiles(const Args a) {
  merge_parts<Shape>(a);
}

// A line of a table.
template <typename Products, int kBlocks>
constexpr Kernel kernel_of() {
  using Shape = typename Products::Shape;
  return {attend_tiles<Products, kBlocks>, merge_tiles<Shape>, Shape::kRows,         Shape::kColumns,
          Products::kExact,                Shape::kKeys,       shared_bytes<Products>};
}

}  // namespace gatun::gpu::attention
