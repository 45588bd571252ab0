// A call of an attention plan: its arrays, copied where they lead to memory and checked, and what they say of a
// sequence.
#pragma once

#include "cpu/attention/pattern.h"
#include "cpu/workspace.h"

namespace gatun::cpu {

struct Sequence {
  int64_t first_q, len_q, first_k, len_k;
};

// The length between two offsets, which may be anything as long as nothing has checked them.
inline int64_t length_between(int64_t first, int64_t last) {
  return static_cast<int64_t>(static_cast<uint64_t>(last) - static_cast<uint64_t>(first));
}

// A call with its arrays, of which those that lead to memory are copies: another thread may write to the originals.
struct Call {
  gtn_attention_args args;  // of which q_index and k_index are copies
  int64_t *q_index, *k_index;
  int32_t* block_table;
  int64_t* prefixes;
  int32_t* globals;         // [sequences][max_globals]
  int32_t* global_queries;  // their queries, those that are some, from the front
  int64_t* global_counts;   // [sequences][2]: of globals, of global_queries
  int64_t* block_offsets;
  int32_t* block_columns;
  int32_t* block_mask_index;
  int32_t *q_order, *k_order;
  uint8_t* seen;       // for the orders
  LabelRange* labels;  // [sequences][label heads][chunks]
  int64_t label_chunks;
  int64_t* first_item;     // [sequences * units + 1]
  int64_t* first_partial;  // the same: in floats
  float* partial;
  char* workers;
  int64_t tile_rows;
};

// What a plan knows of its calls.
struct Shape {
  bool packed, paged;
  gtn_attention_desc desc;  // without its patterns
  int64_t sequences, len_q, len_k;
  int64_t heads_q, heads_k, per_key_head;  // query heads of a key head
  int64_t pages, page_size;
  const Pattern* patterns;
  bool one_pattern;  // for all heads
  uint32_t masks;    // of all heads together
  int64_t group;     // query heads that share tiles
  int64_t units;     // groups
  int64_t label_heads;

  const Pattern& pattern(int64_t head) const { return patterns[one_pattern ? 0 : head]; }
  bool lists() const { return (masks & GTN_MASK_BLOCKS) != 0; }
  bool documents() const { return (masks & GTN_MASK_DOCUMENTS) != 0; }
  bool globals() const { return (masks & GTN_MASK_GLOBALS) != 0; }
  bool ordered() const { return desc.order_heads > 0; }
  // Block lists of `count` sequences.
  int64_t list_rows(int64_t count) const { return count * desc.block_heads * ceil_div(len_q, desc.block_q); }
  int64_t pages_per_sequence() const { return ceil_div(len_k, page_size); }

  // Of `heads` (1, heads_k or heads_q) heads of an array, the one for a query head.
  int64_t head_of(int64_t heads, int64_t head) const {
    return heads == 1 ? 0 : heads == heads_q ? head : head / per_key_head;
  }

  Sequence sequence(const gtn_attention_args& a, int64_t s) const {
    Sequence of;
    of.first_q = packed ? a.q_index[s] : 0;
    of.len_q = packed ? length_between(of.first_q, a.q_index[s + 1]) : a.q_index != nullptr ? a.q_index[s] : a.len_q;
    const bool offsets = packed && !paged;
    of.first_k = offsets ? a.k_index[s] : 0;
    of.len_k = offsets ? length_between(of.first_k, a.k_index[s + 1]) : a.k_index != nullptr ? a.k_index[s] : a.len_k;
    return of;
  }

  const int32_t* q_order(const Call& c, int64_t s, int64_t h, const Sequence& of) const {
    return c.q_order + ((packed ? 0 : s) * desc.order_heads + h) * len_q + of.first_q;
  }
  const int32_t* k_order(const Call& c, int64_t s, int64_t h, const Sequence& of) const {
    return c.k_order + ((packed && !paged ? 0 : s) * desc.order_heads + h) * len_k + of.first_k;
  }

  // Labels of the last layer, of head h of those that have labels.
  const int32_t* q_labels(const gtn_attention_args& a, int64_t s, int64_t h, const Sequence& of) const {
    const int64_t layer = (packed ? 0 : s) * desc.document_layers + desc.document_layers - 1;
    return a.q_documents + (layer * desc.document_heads + h) * len_q + of.first_q;
  }
  const int32_t* k_labels(const gtn_attention_args& a, int64_t s, int64_t h, const Sequence& of) const {
    const int64_t layer = (packed && !paged ? 0 : s) * desc.document_layers + desc.document_layers - 1;
    return a.k_documents + (layer * desc.document_heads + h) * len_k + of.first_k;
  }

  // Where everything of a call lies, with `entries` in its block lists; without `call`, of a call at the plan's maxima
  // with all arrays. Returns the bytes.
  int64_t lay_out(Workspace* space, const gtn_attention_args& args, int64_t entries, int64_t worker_bytes,
                  int64_t partial_floats, Call* call) const;

  // Copies and checks the arrays of call->args.
  gtn_status take_arrays(Call* call, int64_t entries, gtn_message* message) const;

 private:
  gtn_status check_sequence(const Call& c, int64_t s, gtn_message* message) const;
  gtn_status check_lists(const Call& c, int64_t entries, gtn_message* message) const;
};

}  // namespace gatun::cpu
