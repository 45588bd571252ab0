// Attention of the CPU backend: the seam between the plan (compiled once) and the kernels (compiled once per level).
//
// Work comes in tiles: some rows of one sequence and one key/value head. The rows are the pairs of a query and one of
// the `group` query heads that read that head and share a pattern, query by query, so that a tile reads its keys and
// values once for the whole group. What a tile looks at comes to the kernel as blocks of keys, one after the other
// (blocks.h); a pattern is a way to make those blocks, together with the predicate (mask.h) that decides element by
// element in those that are marked partial.
#pragma once

#include "cpu/attention/mask.h"
#include "cpu/backend.h"

namespace gatun::cpu {

// One block of keys. No key outside of a tile's blocks is ever read.
struct KeyBlock {
  enum Kind : int32_t {
    kFull,     // every row of the tile sees every key
    kRange,    // a row sees those in its window_of(row, lifted); keys rise
    kGeneral,  // visible() decides, and the mask of the list's entry
  };
  int64_t first, step;    // key t is first + t * step ...
  const int32_t* tokens;  // ... or, unless null, tokens[t]
  int32_t count;
  Kind kind;
  bool lifted;
  // Of block lists, where masks or biases of entries are used, else null: the entry of key t, and its place in it.
  const int32_t *entries, *places;
};

// Functions here are static: a symbol that levels shared would be one level's code for all.
static inline int64_t token_of(const KeyBlock& block, int64_t t) {
  return block.tokens != nullptr ? block.tokens[t] : block.first + t * block.step;
}

// Where the rows of K or V of one sequence and head lie. Strides count elements of `dtype`.
struct KeySource {
  const char* data;
  int32_t dtype;
  int64_t row, page;    // strides; page: where block_table is used
  const float* scales;  // S8: of the first row; null otherwise
  int64_t scale_row;    // floats from row to row
};

// The lists of blocks, as far as scores need them.
struct BlockLists {
  int64_t block_q, block_k;
  const int32_t* mask_index;  // null: all entries are full blocks
  const uint8_t* masks;
  const float* bias;  // null: none
};

struct AttentionTile {
  // Of this sequence, at the first query head of the group. Strides count elements.
  const char* q;
  char* out;
  float* lse;  // or null; unit stride in the queries
  int32_t q_dtype, out_dtype;
  int64_t q_row, q_head, out_row, out_head, lse_head;
  KeySource k, v;
  const int32_t* block_table;  // null: K and V are not paged
  int64_t page_size;
  int64_t dk, dv;
  int64_t group;
  // Row r, from 0 to rows - 1, is of slot (first_row + r) / group and head (first_row + r) % group of the group. The
  // query of a slot is queries[slot] or, where that is null, first_query + slot * query_step.
  int64_t first_row, rows;
  const int32_t* queries;
  int64_t first_query, query_step;
  int64_t row_block;  // rows whose number, whatever the tile, decides the way through it
  float scale, softcap, self_bias;
  const float* slopes;       // of the first head of the group, or null
  const float* sink_logits;  // the same
  const char* bias;          // of this sequence at the first head of the group, or null
  int32_t bias_dtype;
  int64_t bias_head, bias_row, bias_key;
  BlockLists lists;
  Mask mask;
  // Rows that are global tokens: kApart, other tiles have them and here they are left out; kAlone, all rows are some;
  // kMixed, each row is looked at.
  enum Globals : int32_t { kApart, kAlone, kMixed } globals;
  float* partial;  // unless null, what finish() writes instead of out and lse: for each row o[dv], maximum and sum
};

static inline int64_t slot_of(const AttentionTile& tile, int64_t row) { return (tile.first_row + row) / tile.group; }
static inline int64_t head_of(const AttentionTile& tile, int64_t row) { return (tile.first_row + row) % tile.group; }

static inline int64_t query_of(const AttentionTile& tile, int64_t row) {
  const int64_t slot = slot_of(tile, row);
  return tile.queries != nullptr ? tile.queries[slot] : tile.first_query + slot * tile.query_step;
}

static inline QueryRow query_row_of(const AttentionTile& tile, int64_t row) {
  QueryRow result = row_of(tile.mask, query_of(tile, row));
  if (tile.globals != AttentionTile::kMixed) result.global = tile.globals == AttentionTile::kAlone;
  return result;
}

// Whether another tile writes the row.
static inline bool is_left_out(const AttentionTile& tile, int64_t row) {
  return tile.globals == AttentionTile::kApart && row_of(tile.mask, query_of(tile, row)).global;
}

// What a level wants for a pair of head sizes.
struct AttentionTiling {
  int64_t tile_rows;      // rows of a tile at most; fewer are as good when there is little to do
  int64_t block_keys;     // keys of a block at most, a multiple of key_step
  int64_t key_step;       // blocks of a multiple of this many keys leave no rest
  int64_t scratch_bytes;  // per worker, a multiple of 64
};

// A tile is begun, then given its blocks, then finished, with the same scratch.
struct AttentionKernels {
  AttentionTiling (*tiling)(int64_t dk, int64_t dv);
  void (*begin)(const AttentionTile& tile, void* scratch);
  void (*block)(const AttentionTile& tile, const KeyBlock& block, void* scratch);
  void (*finish)(const AttentionTile& tile, void* scratch);
  // Writes the rows of a tile from `parts` partial results, each `stride` floats after the one before.
  void (*merge)(const AttentionTile& tile, const float* partial, int64_t parts, int64_t stride, void* scratch);
};

gtn_status attention_plan(const Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message);

}  // namespace gatun::cpu
