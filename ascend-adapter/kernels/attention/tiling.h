// What a launch of attention is told besides its tensors, and how the host computes it.
#pragma once

#include <cstdint>

namespace gatun::ascend {

constexpr int32_t kAttentionM = 128, kAttentionN = 128;  // queries and keys of a tile of scores
constexpr int32_t kAttentionAnyM = 64;                   // queries of a tile where the vector cores need room for masks
constexpr int32_t kAttentionHead = 128;                  // the largest head size, of keys and of values
constexpr int32_t kAttentionTerms = 3;                   // of BF16 that stand for a number, at most
constexpr int64_t kAttentionStride = 65535;              // the largest stride of rows: what Nd2NzParams has 16 bits for
constexpr int64_t kAttentionPositions = 1 << 22;         // keys and queries where positions are counted in FP32


// Element types, as gatun.h numbers them.
constexpr int32_t kAttentionF32 = 1, kAttentionBf16 = 2, kAttentionF16 = 3, kAttentionS8 = 4;

struct AttentionTiling {
  int64_t batch, heads_q, heads_k, len_q, len_k, dk, dv;                                                         // of this run
  int64_t q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head;  // in elements
  int64_t most_q, most_k;    // the longest sequence that arrays of the run have room for
  int64_t lq, lk;            // the plan's len_q and len_k, which arrays are laid out by: lse is [batch, heads_q, lq]
  int64_t first_head, heads; // the heads of this launch, which share a window
  int64_t left, right;       // in keys; -1: unlimited
  int64_t dilation, sinks;
  int64_t page_size, pages, table_width;                   // 0: not paged
  int64_t list_heads, block_q, block_k, list_entries;      // 0, or lists for as many heads; entries of all together, at most
  int64_t max_masks, max_globals, max_tree, document_heads, document_layers, order_heads;
  int64_t bias_batch, bias_head, bias_row;
  int64_t tile_m;
  float scale, softcap, self_bias;
  int32_t has_lse, has_q_index, has_k_index, packed_q, packed_k;
  int32_t has_prefix, has_slopes, has_bias, has_sink_logits, has_block_bias;
  int32_t has_gaps;  // tiles may have keys that no query sees, between others
  int32_t q_type, kv_type;
};

constexpr int32_t attention_element_bytes(int32_t type) { return type == kAttentionF32 ? 4 : type == kAttentionS8 ? 1 : 2; }

// Numbers of BF16, of 8 bits each, whose sum is an element of the type.
constexpr int32_t attention_terms(int32_t type) { return type == kAttentionF32 ? 3 : type == kAttentionF16 ? 2 : 1; }

// The first of those products of terms that are too small to matter: 2^-24 of the whole.
constexpr int32_t kAttentionLeastTerm = 3;

// Whether a step has the keys of several entries of a list.
constexpr bool attention_joins(const AttentionTiling& t) { return t.list_heads != 0 && 2 * t.block_k <= kAttentionN; }

// False where the kernels cannot take these sizes.
inline bool attention_tiling(const AttentionTiling& t) {
  if (t.dk < 1 || t.dk > kAttentionHead || t.dv < 1 || t.dv > kAttentionHead) return false;
  if (t.q_row < t.dk || t.k_row < t.dk || t.v_row < t.dv || t.out_row < t.dv) return false;
  if (t.out_row > kAttentionStride * kAttentionStride / 8) return false;  // its bytes have 32 bits
  return t.q_row <= kAttentionStride && t.k_row <= kAttentionStride && t.v_row <= kAttentionStride;
}

// Tiles there are at most: of packed sequences each may have one that is cut short.
inline int64_t attention_items(const AttentionTiling& t) {
  const int64_t blocks = t.list_heads != 0 ? (t.len_q + t.block_q - 1) / t.block_q : 1;
  const int64_t of_block = ((t.list_heads != 0 && t.block_q < t.len_q ? t.block_q : t.len_q) + t.tile_m - 1) / t.tile_m;
  const int64_t of_sequence = blocks * of_block;
  return t.heads * (t.packed_q != 0 ? of_sequence + t.batch * of_block : t.batch * of_sequence);
}

// Two tiles each of scores, of what weights make of values, of weights and of values, and two numbers for each key of two tiles;
// where operands are made of terms, two tiles of each term of values, keys and queries.
inline int64_t attention_workspace_bytes(int64_t blocks, bool terms) {
  const int64_t halves = kAttentionTerms + (terms ? 3 * kAttentionTerms : 1);
  return blocks * 2 * (kAttentionM * kAttentionN * (4 + 4 + halves * 2) + 2 * kAttentionN * 4);
}

}  // namespace gatun::ascend
