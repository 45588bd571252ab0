// What a launch of attention is told besides its tensors, and how the host computes it.
#pragma once

#include <cstdint>

namespace gatun::ascend {

constexpr int32_t kAttentionM = 128, kAttentionN = 128;  // queries and keys of a tile of scores
constexpr int32_t kAttentionHead = 128;                  // the largest head size, of keys and of values
constexpr int32_t kAttentionTerms = 3;                   // of a weight, at most
constexpr int64_t kAttentionStride = 65535;              // the largest stride of rows: what Nd2NzParams has 16 bits for

struct AttentionTiling {
  int64_t batch, heads_q, heads_k, len_q, len_k, dk, dv;                                                         // of this run
  int64_t q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head;  // in elements
  int64_t lse_row;                 // the plan's len_q: lse is [batch, heads_q, lse_row]
  int64_t left, right;             // -1: unlimited
  // 0, or lists of tiles of keys for as many heads and tiles of queries; entries of all lists together, at most.
  int64_t list_heads, list_tiles, list_entries;
  int64_t q_tiles, items;
  float scale;
  int32_t has_lse, has_q_lengths, has_k_lengths;
};

// False where the kernels cannot take these sizes.
inline bool attention_tiling(AttentionTiling* t) {
  if (t->batch < 1 || t->heads_q < 1 || t->heads_k < 1 || t->heads_q % t->heads_k || t->len_q < 1 || t->len_k < 0) return false;
  if (t->dk < 1 || t->dk > kAttentionHead || t->dv < 1 || t->dv > kAttentionHead) return false;
  if (t->q_row < t->dk || t->k_row < t->dk || t->v_row < t->dv || t->out_row < t->dv) return false;
  if (t->out_row > kAttentionStride * kAttentionStride / 8) return false;  // its bytes have 32 bits
  if (t->q_row > kAttentionStride || t->k_row > kAttentionStride || t->v_row > kAttentionStride) return false;
  t->q_tiles = (t->len_q + kAttentionM - 1) / kAttentionM;
  t->items = t->batch * t->heads_q * t->q_tiles;
  return true;
}

// Two tiles each of scores, of weights and of what they weigh, for each block.
inline int64_t attention_workspace_bytes(int64_t blocks) {
  return blocks * 2 * (kAttentionM * kAttentionN * (4 + kAttentionTerms * 2) + kAttentionM * kAttentionHead * 4);
}

}  // namespace gatun::ascend
