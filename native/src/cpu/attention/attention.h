// Attention of the CPU backend: the seam between the plan (compiled once) and the kernels (compiled once per level).
//
// Work comes in tiles: some consecutive rows of one sequence and one key/value head. The rows of a key head are the
// pairs of a query and one of the `group` query heads that read it, query by query, so that a tile reads its keys and
// values once for the whole group. What a tile looks at is a list of key blocks, made by the plan; a mask pattern is a
// way to fill in that list, together with the predicate that decides element by element inside the blocks marked
// partial.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// Keys first to last - 1.
struct KeyRange {
  int64_t first, last;
};

// The predicate of the analytic patterns (dense, causal, sliding window) for one sequence: -1 is unlimited. The windows
// are at most len_q + len_k of the plan, so that no sum here overflows.
struct AttentionMask {
  int64_t left, right;
  int64_t len_q, len_k;
};

// The keys that a query sees. Both ends never fall from one query to the next: all who narrow a range by the first and
// the last query of a tile rely on it.
static inline KeyRange visible_keys(const AttentionMask& mask, int64_t query) {
  const int64_t position = query + mask.len_k - mask.len_q;
  int64_t last = mask.right < 0 ? mask.len_k : position + mask.right + 1;
  if (last > mask.len_k) last = mask.len_k;
  if (last < 0) last = 0;
  int64_t first = mask.left < 0 ? 0 : position - mask.left;
  if (first < 0) first = 0;
  if (first > last) first = last;
  return {first, last};
}

// One entry of a tile's list: `count` keys from `first`. In a full block every row of the tile sees every key; in a
// partial one the predicate decides. No key outside of the list is ever read.
struct KeyBlock {
  int64_t first;
  int32_t count;
  int32_t partial;
};

struct AttentionTile {
  // Of this sequence and key head; q, out and lse at the first query head of its group. Strides count elements.
  const void *q, *k, *v;
  void* out;
  float* lse;  // or null; unit stride in the queries
  int64_t q_row, q_head, k_row, v_row, out_row, out_head, lse_head;
  int64_t dk, dv;
  int64_t group;
  int64_t first_row, rows;  // row r is query r / group and head r % group of the group
  float scale;
  AttentionMask mask;
  const KeyBlock* blocks;
  int64_t block_count;
};

// What a level wants for a pair of head sizes.
struct AttentionTiling {
  int64_t tile_rows;      // rows of a tile at most; fewer are as good when there is little to do
  int64_t block_keys;     // keys of a block at most, a multiple of key_step
  int64_t key_step;       // blocks of a multiple of this many keys leave no rest
  int64_t scratch_bytes;  // per worker, a multiple of 64
};

struct AttentionKernels {
  AttentionTiling (*tiling)(int64_t dk, int64_t dv);
  void (*f32)(const AttentionTile& tile, void* scratch);
  void (*bf16)(const AttentionTile& tile, void* scratch);
};

gtn_status attention_plan(const Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message);

}  // namespace gatun::cpu
