// What a launch of the selection kernels is told besides its tensors, and how much of it they take.
#pragma once

#include <cstdint>

namespace gatun::ascend {

constexpr int64_t kSelectBlocks = 8192;    // of keys, for their importance
constexpr int64_t kSelectDepth = 512;      // of a row, and of a pooled key
constexpr int64_t kSelectLength = 8192;    // of sequences that are sorted by label
constexpr int64_t kSelectBuckets = 8192;
constexpr int32_t kSelectProducts = 8192;  // FP32 of products that a vector core has at once
constexpr int32_t kSelectColumns = 4096;    // FP32 of columns, likewise

struct SelectTiling {
  int64_t sequences, len_q, len_k;                                // of the run
  int64_t lq, lk;                                                 // of the plan: what arrays are laid out by
  int64_t q_batch, q_row, q_head, k_batch, k_row, k_head;         // in elements
  int64_t heads_q, heads_k, heads, dk, pitch;                     // heads: of lists; pitch: of a row of columns, in FP32
  int64_t block_q, block_k, lists, blocks, width;                 // lists of a head; width: entries of a list at most
  int64_t count, first, local, buckets, layers;
  int64_t columns;                                                // of a layer's rotation
  float scale, log_pairs, right_angle;                            // log of the pairs of tables; the bias at a right angle
  int32_t packed, has_q_index, has_k_index, causal, bounds, keys;  // keys: labels are those of keys
  int32_t reserved;
};

// Where the rows of pooled keys, and of rotations, begin.
inline int64_t select_pitch(int64_t dk) { return (dk + 63) / 64 * 64; }

}  // namespace gatun::ascend
