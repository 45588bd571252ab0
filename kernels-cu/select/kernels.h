// Selection of keys on a GPU: the seam between the plan and the kernels, in the order in which a run launches them.
//
//   blocks      pool, weigh
//   LSH         label (queries, keys), sort, near
//   retrieval   pool (for the mean of the keys), centre, unit (queries, keys), code (queries, keys), retrieve
//   all         offsets, copy
//
// A list is made in workspace, [lists][width], and copied to its place when all lengths are known.
#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

constexpr int kSelectThreads = 256;
constexpr int kSelectTile = 64;          // rows and columns of a tile of products
constexpr int kSelectMeanKeys = 256;     // keys that are summed in FP32, for the mean of all
constexpr int kSelectMostTables = 1024;
constexpr int kSelectSortRuns = kSelectThreads / kWarp;
constexpr int kSelectOffsetThreads = 1024;

struct SelectArgs {
  const void *q, *k;
  const int64_t *q_index, *k_index;                        // or null
  int64_t q_sequence, q_row, q_head, k_sequence, k_row, k_head;  // strides, in elements
  int32_t packed;                                          // the index has starts; else it has lengths
  int32_t sequences, len_q, len_k;                         // of the run
  int32_t most_q, most_k;                                  // of the plan: what outputs and workspace are laid out by
  int32_t heads_q, heads_k, heads, dk;                     // heads: of lists
  int32_t block_q, block_k, lists, width;                  // lists of a sequence and head; width: entries of a list at most
  int32_t count, first, local, causal, bounds;
  int32_t buckets, layers, bits;                           // bits: columns of a layer's rotation
  float scale;
  uint64_t seed;
  int32_t keys;  // label, unit and code: 1 for keys, 0 for queries

  int64_t* block_offsets;
  int32_t* block_columns;
  float* block_bias;
  int32_t *q_order, *k_order, *q_documents, *k_documents;

  // Workspace.
  int32_t* columns;  // [sequences * heads * lists][width]
  float* biases;     // the same, or null
  int32_t* counts;   // [sequences * heads * lists]
  int32_t pool_keys, pool_blocks;  // keys of a pooled block, and how many blocks there are at most
  float* pools;      // [sequences * heads_k][pool_blocks][depth]; depth: dk, or twice that with bounds
  float* products;   // [grid of weigh][kSelectTile][stride]
  float* importance; // [grid of weigh][stride]
  int32_t stride;
  int32_t *q_labels, *k_labels;              // [sequences * heads_q][layers][most_q], [sequences * heads_q][most_k]
  int32_t *q_places, *k_places, *q_between;  // the orders, [sequences * heads_q][most_q] or [most_k]
  int32_t* label_counts;                     // [sequences * heads_q][kSelectSortRuns][buckets]
  int32_t* runs;                             // [sequences * heads_q * lists][queries of a block][2]
  float* mean;                               // [sequences * heads_k][dk]
  float *q_unit, *k_unit;                    // [sequences * heads][most][dk] with each one's own heads
  uint16_t *q_codes, *k_codes;               // [sequences * heads_q][most_q][layers], [sequences * heads_q][layers][most_k]
  uint16_t* shared_codes;                    // [grid of retrieve][most_k]
};

using SelectKernel = void (*)(SelectArgs);

// type: 0 FP32, 1 BF16, 2 F16.
SelectKernel select_pool_kernel(int type);     // a block for a pooled block
SelectKernel select_weigh_kernel(int type);    // blocks take lists by turns
SelectKernel select_label_kernel(int type);    // a block for kSelectTile rows
SelectKernel select_sort_kernel();             // a block for a sequence and head
SelectKernel select_near_kernel();             // a warp for a list
SelectKernel select_centre_kernel();           // a block for a sequence and head of keys
SelectKernel select_unit_kernel(int type);     // a warp for a row
SelectKernel select_code_kernel();             // a block for kSelectTile rows
SelectKernel select_retrieve_kernel();         // blocks take queries by turns
SelectKernel select_offsets_kernel();          // one block, of kSelectOffsetThreads
SelectKernel select_copy_kernel();             // a warp for a list

// Shared memory of the kernels that have some.
int select_tile_bytes();  // weigh, label
int select_code_bytes();
int select_sort_bytes();
int select_retrieve_bytes();
int select_offsets_bytes();

}  // namespace gatun::gpu
