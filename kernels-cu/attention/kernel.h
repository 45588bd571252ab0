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
// there are parts enough for all multiprocessors. FP32: the rate of FMA, at about half for the loads of operands. Nothing of this
// has been measured yet.
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



template <typename Products>
constexpr int shared_bytes(int dk, int dv) {
  const int k = row_stride(chunks_of<Products>(dk, Products::kChunkStep)) * 16;
  const int v = row_stride(chunks_of<Products>(columns_of(dv, 0, Products::kColumns), 2)) * 16;
  return kTileBytes + 2 * static_cast<int>(sizeof(KeyInfo<Products::kKeys>)) + kTileRows * k + Products::kKeys * (k + v);
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

// Calls visit(row, chunk) for the thread's share of rows times chunks, neighbours for neighbouring threads.
template <typename Visit>
GPU_DEVICE void for_chunks(int rows, int chunks, Visit visit) {
  if (chunks == 0) return;
  const int rows_on = kTileThreads / chunks, chunks_on = kTileThreads % chunks;
  int row = thread() / chunks, chunk = thread() % chunks;
  while (row < rows) {
    visit(row, chunk);
    row += rows_on;
    chunk += chunks_on;
    if (chunk >= chunks) {
      chunk -= chunks;
      ++row;
    }
  }
}

template <typename Element>
GPU_DEVICE void load_chunk(char* to, const char* data, int dtype, bool copies, int64_t row, int chunk, int size) {
  constexpr int kPerChunk = 16 / static_cast<int>(sizeof(Element));
  const int from = chunk * kPerChunk;
  const int left = row >= 0 ? at_least(size - from, 0) : 0;
  if (copies) {
    const int valid = at_most(left * static_cast<int>(sizeof(Element)), 16);
    copy_async_16(to, valid > 0 ? data + (row + from) * static_cast<int64_t>(sizeof(Element)) : data, valid);
  } else {
    convert_chunk(to, data, dtype, row + from, left, static_cast<Element*>(nullptr));
  }
}

// The rows of q.
template <typename Products>
GPU_DEVICE void load_queries(const Args& a, const Tile& t, const Rows& to) {
  const int64_t first = (a.packed_q ? 0 : t.sequence * a.q.sequence) + t.first_q * a.q.row;
  for_chunks(kTileRows, to.chunks, [&](int row, int chunk) {
    int64_t at = -1;
    if (row < t.rows) {
      at = first + query_of(a, t, row) * a.q.row + (t.head + (t.first_row + row) % a.group) * a.q.head;
    }
    load_chunk<typename Products::Element>(to.at(row, chunk), a.q.data, a.q_dtype, a.q_copies != 0, at, chunk, a.dk);
  });
}

// A block of k or v; `size` elements of a row from `column` on.
template <typename Products>
GPU_DEVICE void load_keys(const Args& a, const Tile& t, const KeyBlock& block, const Place* places,
                          const Operand& from, bool copies, int column, int size, const Rows& to) {
  const bool paged = a.block_table != nullptr;
  const int64_t first =
      (paged || a.packed_k ? 0 : t.sequence * from.sequence) + t.first_k * from.row + t.key_head * from.head + column;
  for_chunks(Products::kKeys, to.chunks, [&](int row, int chunk) {
    int64_t at = -1;
    if (places != nullptr) {
      const Place place = places[row];
      if (place.page >= 0) at = first + (paged ? place.page * from.sequence : 0) + place.row * from.row;
    } else if (row < block.count) {
      at = first + (block.first + static_cast<int64_t>(row) * block.step) * from.row;
    }
    load_chunk<typename Products::Element>(to.at(row, chunk), from.data, a.k_dtype, copies, at, chunk, size);
  });
}

// Where the keys of a block lie, and their scales.
template <typename Products>
GPU_DEVICE void look_up_keys(const Args& a, const Tile& t, const KeyBlock& block, int index,
                             KeyInfo<Products::kKeys>* info) {
  const int i = thread();
  if (i >= Products::kKeys) return;
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

// What a thread knows of each of its two rows.
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

// Bit 4 n + 2 r + i is that of row r of the thread and its key of columns 8 n + 2 (lane % 4) + i.
GPU_DEVICE int column_of(int bit) { return bit / 4 * 8 + lane() % 4 * 2 + bit % 2; }

// Which of its pairs a thread's rows see.
template <int kKeys>
GPU_DEVICE uint32_t visible_pairs(const Args& a, const Tile& t, const KeyBlock& block, int index,
                                  const KeyInfo<kKeys>& info, const RowState (&rows)[2]) {
  uint32_t bits = 0;
  if (block.kind != KeyBlock::kGeneral) {
    int first[2], last[2];
    GPU_UNROLL
    for (int r = 0; r < 2; ++r) {
      first[r] = 0;
      last[r] = rows[r].there ? block.count : 0;
      if (block.kind == KeyBlock::kRange && rows[r].there) {
        const KeyRange window = window_of(t.mask, rows[r].query, block.lifted);
        first[r] = at_least(window.first - block.first + block.step - 1, 0) / block.step;
        last[r] = at_most(at_least(window.last - block.first + block.step - 1, 0) / block.step, block.count);
      }
    }
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) {
      const int column = column_of(bit), r = bit / 2 % 2;
      if (column >= first[r] && column < last[r]) bits |= 1u << bit;
    }
    return bits;
  }
  GPU_ROLLED
  for (int bit = 0; bit < kKeys / 2; ++bit) {
    const int column = column_of(bit);
    const RowState row = bit / 2 % 2 == 0 ? rows[0] : rows[1];
    if (column >= block.count || !row.there) continue;
    const int token = block.gathered ? info.token[column] : block.first + column * block.step;
    if (token < 0 || !visible(t.mask, row.query, token)) continue;
    if (t.listed && entry_hides(a, t, index, column, row.slot)) continue;
    bits |= 1u << bit;
  }
  return bits;
}

// The scores of a block in units of log2, from the products of q and k. Clears the bits of pairs that a bias masks.
template <int kKeys>
GPU_DEVICE void finish_scores(const Args& a, const Tile& t, const KeyBlock& block, int index,
                              const KeyInfo<kKeys>& info, const RowState (&rows)[2], float (&s)[kKeys / 8][4],
                              uint32_t* bits) {
  if (a.k_scales != nullptr) {
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) s[bit / 4][bit % 4] *= info.k_scale[column_of(bit)];
  }
  const bool adds = a.bias != nullptr || a.self_bias != 0.0f || (t.listed && a.block_bias != nullptr);
  if (a.softcap <= 0.0f && a.slopes == nullptr && !adds) {
    const float factor = a.scale * kLog2E;
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) s[bit / 4][bit % 4] *= factor;
    return;
  }
  GPU_UNROLL
  for (int bit = 0; bit < kKeys / 2; ++bit) s[bit / 4][bit % 4] *= a.scale;
  if (a.softcap > 0.0f) {
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) {
      s[bit / 4][bit % 4] = a.softcap * tanh(s[bit / 4][bit % 4] / a.softcap);
    }
  }
  if (a.slopes != nullptr) {
    const float slope[2] = {rows[0].there ? a.slopes[rows[0].head] : 0.0f, rows[1].there ? a.slopes[rows[1].head] : 0.0f};
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) {
      const int column = column_of(bit), r = bit / 2 % 2;
      const int token = block.gathered ? info.token[column] : block.first + column * block.step;
      const int apart = rows[r].query.position - token;
      s[bit / 4][bit % 4] = fma(-slope[r], static_cast<float>(apart < 0 ? -apart : apart), s[bit / 4][bit % 4]);
    }
  }
  if (adds) {
    GPU_UNROLL
    for (int bit = 0; bit < kKeys / 2; ++bit) {
      if ((*bits >> bit & 1) != 0) {
        const int column = column_of(bit), r = bit / 2 % 2;
        const int token = block.gathered ? info.token[column] : block.first + column * block.step;
        float& score = s[bit / 4][bit % 4];
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
  for (int bit = 0; bit < kKeys / 2; ++bit) s[bit / 4][bit % 4] *= kLog2E;
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

// ---- The kernel ----------------------------------------------------------------------------------------------------

template <typename Products>
GPU_DEVICE void attend(const Args& a) {
  constexpr int kKeys = Products::kKeys, kColumns = Products::kColumns;
  constexpr int kTilesOfKeys = kKeys / 8, kTilesOfColumns = kColumns / 8;
  static_assert(sizeof(Tile) + 16 <= kTileBytes && kKeys <= 64);

  Tile& t = *reinterpret_cast<Tile*>(shared());
  int& found = *reinterpret_cast<int*>(shared() + kTileBytes - 16);
  if (warp() == 0) {
    Tile mine;
    const bool is = find_tile<kTileRows, kKeys, kColumns>(a, a.parts > 1, &mine);
    if (lane() == 0) {
      if (is) t = mine;
      found = is ? 1 : 0;
    }
  }
  sync_threads();
  if (found == 0) return;
  int part_blocks;
  const int parts = parts_of(a, t, kTileRows, &part_blocks);
  if (t.part >= parts) return;
  int index = t.part * part_blocks;
  const int end = at_most(index + part_blocks, t.blocks);

  const int columns = at_least(columns_of(a.dv, t.column, kColumns), 0);
  KeyInfo<kKeys>* const infos = reinterpret_cast<KeyInfo<kKeys>*>(shared() + kTileBytes);
  char* memory = shared() + kTileBytes + 2 * sizeof(KeyInfo<kKeys>);
  const Rows q = rows_at(memory, chunks_of<Products>(a.dk, Products::kChunkStep));
  memory += kTileRows * q.stride * 16;
  const Rows k = rows_at(memory, q.chunks);
  memory += kKeys * k.stride * 16;
  const Rows v = rows_at(memory, chunks_of<Products>(columns, 2));

  const int first_row = warp() * 16;
  const RowState rows[2] = {state_of(a, t, first_row + lane() / 4), state_of(a, t, first_row + lane() / 4 + 8)};
  float o[kTilesOfColumns][4];
  GPU_UNROLL
  for (int n = 0; n < kTilesOfColumns; ++n) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) o[n][i] = 0.0f;
  }
  float maximum[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};

  // Moves `index` on to the next block that has keys.
  const auto find_block = [&]() {
    KeyBlock block = {};
    for (; index < end; ++index) {
      block = block_at<kKeys>(a, t, index);
      if (block.count > 0) break;
    }
    return block;
  };
  const auto is_looked_up = [&](const KeyBlock& block) {
    return block.gathered || a.block_table != nullptr || a.k_scales != nullptr;
  };

  KeyBlock block = find_block();
  int turn = 0;
  load_queries<Products>(a, t, q);
  if (index < end) {
    if (is_looked_up(block)) {
      look_up_keys<Products>(a, t, block, index, infos);
      sync_threads();
    }
    load_keys<Products>(a, t, block, is_looked_up(block) ? infos->place : nullptr, a.k, a.k_copies != 0, 0, a.dk, k);
  }
  copy_async_commit();

  while (index < end) {
    KeyInfo<kKeys>& info = infos[turn];
    copy_async_wait<0>();
    sync_threads();  // the keys are there, and all are done with the values before
    load_keys<Products>(a, t, block, is_looked_up(block) ? info.place : nullptr, a.v, a.v_copies != 0, t.column, columns,
                        v);
    copy_async_commit();

    float s[kTilesOfKeys][4];
    Products::scores(q, first_row, k, s);

    const bool whole = block.kind == KeyBlock::kFull && block.count == kKeys;
    uint32_t bits = 0xffffffffu;
    if (!whole) bits = visible_pairs<kKeys>(a, t, block, index, info, rows);
    finish_scores<kKeys>(a, t, block, index, info, rows, s, &bits);
    uint32_t used = 0;
    const bool masked = !whole || a.bias != nullptr;
    if (masked) {
      GPU_UNROLL
      for (int bit = 0; bit < kKeys / 2; ++bit) {
        if ((bits >> bit & 1) == 0) s[bit / 4][bit % 4] = -infinity();
      }
      used = bits | bits >> 2;
      GPU_UNROLL
      for (int lanes = 4; lanes < kWarp; lanes *= 2) used |= shuffle_xor(used, lanes);
    }

    // Max loses a NaN; the weight of that key is NaN in any case, and with it the sum. A maximum of -inf would make -inf - -inf of
    // masked scores: there 0 takes its place, and all weights are 0.
    float alpha[2];
    GPU_UNROLL
    for (int r = 0; r < 2; ++r) {
      float now = maximum[r];
      GPU_UNROLL
      for (int n = 0; n < kTilesOfKeys; ++n) {
        now = s[n][2 * r] > now ? s[n][2 * r] : now;
        now = s[n][2 * r + 1] > now ? s[n][2 * r + 1] : now;
      }
      GPU_UNROLL
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        const float other = shuffle_xor(now, lanes);
        now = other > now ? other : now;
      }
      const float base = (now == -infinity() ? 0.0f : now) - Products::kShift;
      alpha[r] = exp2_approx(maximum[r] - Products::kShift - base);
      maximum[r] = now;
      float added = 0.0f;
      GPU_UNROLL
      for (int n = 0; n < kTilesOfKeys; ++n) {
        s[n][2 * r] = exp2_approx(s[n][2 * r] - base);
        s[n][2 * r + 1] = exp2_approx(s[n][2 * r + 1] - base);
        added += s[n][2 * r] + s[n][2 * r + 1];
      }
      sum[r] = fma(sum[r], alpha[r], added);
    }
    if (a.v_scales != nullptr) {
      GPU_UNROLL
      for (int bit = 0; bit < kKeys / 2; ++bit) {
        const bool sees = !masked || (used >> (bit & ~2) & 1) != 0;
        s[bit / 4][bit % 4] *= sees ? info.v_scale[column_of(bit)] : 0.0f;
      }
    }
    if (any(alpha[0] != 1.0f || alpha[1] != 1.0f)) {
      GPU_UNROLL
      for (int n = 0; n < kTilesOfColumns; ++n) {
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) o[n][i] *= alpha[i / 2];
      }
    }

    ++index;
    const KeyBlock next = find_block();
    turn ^= 1;
    if (index < end && is_looked_up(next)) look_up_keys<Products>(a, t, next, index, infos + turn);
    copy_async_wait<0>();
    sync_threads();  // the values are there, and all are done with the keys
    if (index < end) {
      load_keys<Products>(a, t, next, is_looked_up(next) ? infos[turn].place : nullptr, a.k, a.k_copies != 0, 0, a.dk, k);
    }
    copy_async_commit();
    if (masked) {
      Products::template weigh<true>(s, v, columns, used, a.exact != 0, o);
    } else {
      Products::template weigh<false>(s, v, columns, 0, a.exact != 0, o);
    }
    block = next;
  }
  copy_async_wait<0>();

  GPU_UNROLL
  for (int r = 0; r < 2; ++r) {
    GPU_UNROLL
    for (int lanes = 1; lanes < 4; lanes *= 2) sum[r] += shuffle_xor(sum[r], lanes);
  }
  const float unshift = exp2(-Products::kShift);
  const int column = lane() % 4 * 2;
  GPU_UNROLL
  for (int r = 0; r < 2; ++r) {
    const RowState& row = rows[r];
    if (!row.there) continue;
    if (parts > 1) {
      float* to = partial_row(a, t, row, t.part);
      GPU_UNROLL
      for (int n = 0; n < kTilesOfColumns; ++n) {
        GPU_UNROLL
        for (int i = 0; i < 2; ++i) {
          if (n * 8 + column + i < columns) to[t.column + n * 8 + column + i] = o[n][2 * r + i] * unshift;
        }
      }
      if (lane() % 4 == 0 && t.column == 0) {
        to[a.dv] = maximum[r];
        to[a.dv + 1] = sum[r] * unshift;
      }
      continue;
    }
    const bool empty = sum[r] == 0.0f;
    const float factor = finish_row(a, t, row, maximum[r], sum[r] * unshift, lane() % 4 == 0 && t.column == 0) * unshift;
    const int64_t at = out_row(a, t, row) + t.column;
    GPU_UNROLL
    for (int n = 0; n < kTilesOfColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int c = n * 8 + column + i;
        if (c < columns) store_value(a, at + c, empty ? 0.0f : o[n][2 * r + i] * factor);
      }
    }
  }
}

// Puts the parts of a tile together, in their order: o = sum of o_i 2^(m_i - m), the same for the sums of weights, with m the
// greatest maximum. A warp has every fourth row of the tile, and its lanes the columns.
template <typename Products>
GPU_DEVICE void merge_parts(const Args& a) {
  Tile& t = *reinterpret_cast<Tile*>(shared());
  int& found = *reinterpret_cast<int*>(shared() + kTileBytes - 16);
  if (warp() == 0) {
    Tile mine;
    const bool is = find_tile<kTileRows, Products::kKeys, Products::kColumns>(a, false, &mine);
    if (lane() == 0) {
      if (is) t = mine;
      found = is ? 1 : 0;
    }
  }
  sync_threads();
  if (found == 0) return;
  int part_blocks;
  const int parts = parts_of(a, t, kTileRows, &part_blocks);
  if (parts == 1) return;
  const int columns = columns_of(a.dv, t.column, Products::kColumns);
  for (int r = warp(); r < t.rows; r += kTileThreads / kWarp) {
    const RowState row = state_of(a, t, r);
    float maximum = -infinity();
    for (int part = 0; part < parts; ++part) {
      const float its = partial_row(a, t, row, part)[a.dv];
      maximum = its > maximum ? its : maximum;
    }
    const float base = maximum == -infinity() ? 0.0f : maximum;
    float sum = 0.0f;
    for (int part = 0; part < parts; ++part) {
      const float* its = partial_row(a, t, row, part) + a.dv;
      if (its[1] != 0.0f) sum = fma(its[1], exp2(its[0] - base), sum);
    }
    const float factor = finish_row(a, t, row, maximum, sum, lane() == 0 && t.column == 0);
    for (int c = lane(); c < columns; c += kWarp) {
      float o = 0.0f;
      for (int part = 0; part < parts; ++part) {
        const float* its = partial_row(a, t, row, part);
        if (its[a.dv + 1] != 0.0f) o = fma(its[t.column + c], exp2(its[a.dv] - base), o);
      }
      store_value(a, out_row(a, t, row) + t.column + c, sum == 0.0f ? 0.0f : o * factor);
    }
  }
}

}  // namespace gatun::gpu::attention
