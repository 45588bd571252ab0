// What an attention kernel is given, and how a plan cuts the work: the seam between plan.cc and the kernels.
//
// Work comes in tiles: some rows of one sequence and one key/value head. The rows are the pairs of a query and one of the
// `group` query heads that read that head and share a pattern, query by query, so that a tile reads its keys and values once
// for the whole group. A tile's queries come from one segment: all of a sequence, or the queries of one class modulo the
// dilation (whose keys are a class as well), or those of one block of the block lists.
#pragma once

#include <stdint.h>

namespace gatun::gpu::attention {

// What a head sees; reach in keys, or -1. Sinks that lift nothing are taken out.
struct Pattern {
  uint32_t masks;  // GTN_MASK_*
  int32_t left, right, dilation, sinks;
  int32_t segments, tiles_per_segment;
};

constexpr int kMostPatterns = 16;  // different ones of one plan
constexpr int kMostUnits = 512;    // with different patterns

// Strides count elements.
struct Operand {
  char* data;
  int64_t sequence, row, head;  // sequence: of a page where paged
};

struct Args {
  Operand q, k, v, out;
  float* lse;  // or null
  int64_t lse_sequence, lse_head;
  const int64_t *q_index, *k_index;  // or null
  const float *k_scales, *v_scales;  // or null
  const int32_t* block_table;        // null: not paged
  const float *sink_logits, *slopes;
  const char* bias;
  int64_t bias_sequence, bias_head, bias_row, bias_key;
  const int64_t* prefixes;
  const int32_t *globals, *q_documents, *k_documents;
  const uint8_t* tree;
  const int64_t* block_offsets;
  const int32_t *block_columns, *block_mask_index;
  const uint8_t* block_masks;
  const float* block_bias;
  const int32_t *q_order, *k_order;
  float* partial;  // of parts of the keys: [part][token][head] of dv values, maximum and sum

  int32_t sequences, len_q, len_k;      // of the run
  int32_t planned_q, planned_k;         // of the plan
  int32_t heads_q, heads_k, per_key_head, group, units;
  int32_t dk, dv;
  int32_t page_size, pages, pages_per_sequence;
  int32_t max_globals, max_tree, document_heads, document_layers;
  int32_t block_q, block_k, block_heads, max_blocks, max_block_masks, order_heads;
  int32_t bias_sequences, bias_queries, bias_keys;  // the sizes of the bias
  int32_t q_dtype, k_dtype, out_dtype, bias_dtype;
  float scale, softcap, self_bias;
  // 1: all rows can be copied in 16 bytes as they are.
  uint8_t q_copies, k_copies, v_copies;
  uint8_t packed_q, packed_k;
  uint8_t exact;  // 1: weights are split into so many 16-bit terms that nothing of FP32 is lost

  int32_t tiles;    // of a unit: of each sequence, or of all where packed and `search` is 1
  int32_t search;
  int32_t columns;  // parts that the values of a head are cut into, each of the kernel's columns
  int32_t parts, part_blocks;  // of the keys, at most, and blocks of one at least
  int32_t pattern_count;
  Pattern patterns[kMostPatterns];
  uint8_t pattern_of[kMostUnits];
};

}  // namespace gatun::gpu::attention
