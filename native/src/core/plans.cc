// Making plans: every description is checked here, once, so that backends and runs need not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>

#include "core/objects.h"

namespace gatun {
namespace {

// Rows that an extent covers at the plan's maxima are not kept: runs bring their own.
gtn_status check_matrix(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, bool output) {
  return check_tensor(message, name, tensor, kFloats, 2, 2, true, output);
}

gtn_status check_groups(gtn_message* message, const gtn_gemm_desc& desc) {
  const int64_t m = desc.out.shape[0], n = desc.out.shape[1];
  GATUN_CHECK(check_at_least(message, "desc.groups", desc.groups, 0));
  if (desc.has_row_index) GATUN_CHECK(check_array(message, "desc.out.shape[0]", "row_index", 4, {m}));
  if (desc.groups == 0) return GTN_OK;
  const int64_t ends = desc.groups < INT64_MAX ? desc.groups + 1 : desc.groups;
  GATUN_CHECK(check_array(message, "desc.groups", "group_offsets", 8, {ends}));
  return check_array(message, "desc.groups", "bias", 4, {desc.groups, n});
}

gtn_status check_low_rank(gtn_message* message, const gtn_gemm_desc& desc) {
  constexpr int64_t kMostRank = 1024;
  if (desc.rank < 0 || desc.rank > kMostRank) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.rank: is %lld, expected 0 to %lld", static_cast<long long>(desc.rank),
                static_cast<long long>(kMostRank));
  }
  if (desc.rank == 0) {
    if (desc.lora_dtype != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc.lora_dtype: is %d, expected 0, since the rank is", desc.lora_dtype);
    }
    if (desc.lora_scale == 0) return GTN_OK;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.lora_scale: is %g, expected 0, since the rank is",
                static_cast<double>(desc.lora_scale));
  }
  if (desc.a.dtype == GTN_U8) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.rank: is %lld, expected 0 with a of U8", static_cast<long long>(desc.rank));
  }
  if (desc.groups > 0 || desc.has_row_index) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.rank: is %lld, expected 0 with %s", static_cast<long long>(desc.rank),
                desc.groups > 0 ? "groups" : "row_index");
  }
  if (desc.lora_dtype != GTN_F32 && desc.lora_dtype != GTN_BF16 && desc.lora_dtype != GTN_F16) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.lora_dtype: is %s (%d), expected F32, BF16 or F16",
                dtype_name(desc.lora_dtype), desc.lora_dtype);
  }
  GATUN_CHECK(check_finite(message, "desc.lora_scale", desc.lora_scale));
  GATUN_CHECK(check_array(message, "desc.rank", "lora_a", element_size(desc.lora_dtype), {desc.a.shape[1], desc.rank}));
  return check_array(message, "desc.rank", "lora_b", element_size(desc.lora_dtype), {desc.rank, desc.out.shape[1]});
}

gtn_status check(gtn_message* message, const gtn_gemm_desc& desc) {
  GATUN_CHECK(check_format(message, desc.format, desc.group_size));
  const uint32_t quantized = desc.format == GTN_S8 ? 1u << GTN_U8 : 0;
  GATUN_CHECK(check_tensor(message, "desc.a", desc.a, kFloatsAndHalf | quantized, 2, 2, true, false));
  if (quantized != 0) GATUN_CHECK(check_array(message, "desc.a.shape[0]", "scales", 4, {desc.a.shape[0]}));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloatsAndHalf, 2, 2, true, true));
  GATUN_CHECK(check_flag(message, "desc.has_row_index", desc.has_row_index));
  if (!desc.has_row_index) GATUN_CHECK(check_size(message, "desc.out", desc.out, 0, "a's", desc.a.shape[0]));
  // 255 * 127 * k must fit 31 bits.
  constexpr int64_t kMostInt8 = 66311;
  if (desc.format == GTN_S8 && desc.a.shape[1] > kMostInt8) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.a.shape[1]: is %lld, expected at most %lld with INT8, whose sums have 32 bits",
                static_cast<long long>(desc.a.shape[1]), static_cast<long long>(kMostInt8));
  }
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  GATUN_CHECK(check_flag(message, "desc.has_residual", desc.has_residual));
  GATUN_CHECK(check_groups(message, desc));
  return check_low_rank(message, desc);
}

// x and out of one shape, as all row-wise operators have them.
gtn_status check_rows(gtn_message* message, const gtn_tensor_desc& x, const gtn_tensor_desc& out) {
  GATUN_CHECK(check_matrix(message, "desc.x", x, false));
  GATUN_CHECK(check_matrix(message, "desc.out", out, true));
  return check_same_shape(message, "desc.out", out, "x", x);
}

gtn_status check(gtn_message* message, const gtn_norm_desc& desc) {
  if (desc.kind != GTN_NORM_LAYER && desc.kind != GTN_NORM_RMS) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.kind: is %d, expected GTN_NORM_LAYER or GTN_NORM_RMS", desc.kind);
  }
  GATUN_CHECK(check_matrix(message, "desc.x", desc.x, false));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloats | 1u << GTN_U8, 2, 2, true, true));
  GATUN_CHECK(check_same_shape(message, "desc.out", desc.out, "x", desc.x));
  if (desc.out.dtype == GTN_U8) GATUN_CHECK(check_array(message, "desc.x.shape[0]", "scales", 4, {desc.x.shape[0]}));
  if (desc.x.shape[1] < 1) return fail(message, GTN_INVALID_ARGUMENT, "desc.x.shape[1]: is 0, expected 1 or more");
  if (!std::isfinite(desc.epsilon) || desc.epsilon < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.epsilon: is %g, expected a finite number, 0 or more",
                static_cast<double>(desc.epsilon));
  }
  GATUN_CHECK(check_flag(message, "desc.has_residual", desc.has_residual));
  GATUN_CHECK(check_flag(message, "desc.has_beta", desc.has_beta));
  GATUN_CHECK(check_flag(message, "desc.has_sum", desc.has_sum));
  if (desc.has_beta && desc.kind == GTN_NORM_RMS) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.has_beta: is 1, expected 0 with GTN_NORM_RMS");
  }
  // sum is written with x's strides, so x must be fit for an output.
  return desc.has_sum ? check_matrix(message, "desc.x", desc.x, true) : GTN_OK;
}

gtn_status check(gtn_message* message, const gtn_softmax_desc& desc) {
  GATUN_CHECK(check_finite(message, "desc.scale", desc.scale));
  return check_rows(message, desc.x, desc.out);
}

gtn_status check(gtn_message* message, const gtn_activation_desc& desc) {
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  return check_rows(message, desc.x, desc.out);
}

gtn_status check(gtn_message* message, const gtn_glu_desc& desc) {
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_tensor(message, "desc.gate", desc.gate, kFloatsAndHalf, 2, 2, true, false));
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, 1u << desc.gate.dtype, 2, 2, true, false));
  GATUN_CHECK(check_same_shape(message, "desc.x", desc.x, "gate", desc.gate));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloatsAndHalf, 2, 2, true, true));
  return check_same_shape(message, "desc.out", desc.out, "gate", desc.gate);
}

constexpr uint32_t kMasks = GTN_MASK_PREFIX | GTN_MASK_GLOBALS | GTN_MASK_DOCUMENTS | GTN_MASK_TREE | GTN_MASK_BLOCKS;

// The sizes of attention that its further arrays have in common.
struct AttentionSizes {
  explicit AttentionSizes(const gtn_attention_desc& desc)
      : packed(desc.q.rank == 3),
        paged(desc.paged != 0),
        sequences(packed ? desc.max_sequences : desc.q.shape[0]),
        len_q(desc.q.shape[desc.q.rank - 3]),
        len_k(paged ? desc.max_len_k : desc.k.shape[desc.k.rank - 3]),
        heads_q(desc.q.shape[desc.q.rank - 2]),
        heads_k(desc.k.shape[desc.k.rank - 2]) {}

  bool packed, paged;
  int64_t sequences, len_q, len_k, heads_q, heads_k;
};

gtn_status check_attention_tensors(gtn_message* message, const gtn_attention_desc& desc) {
  GATUN_CHECK(check_flag(message, "desc.paged", desc.paged));
  GATUN_CHECK(check_tensor(message, "desc.q", desc.q, kFloatsAndHalf, 3, 4, true, false));
  const int rank = desc.q.rank, rank_k = desc.paged ? 4 : rank;
  GATUN_CHECK(check_tensor(message, "desc.k", desc.k, kFloatsAndHalf | 1u << GTN_S8, rank_k, rank_k, true, false));
  GATUN_CHECK(check_tensor(message, "desc.v", desc.v, 1u << desc.k.dtype, rank_k, rank_k, true, false));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, 1u << GTN_F32 | 1u << desc.q.dtype, rank, rank, true, true));
  const int length = rank - 3, heads = rank - 2, size = rank - 1;
  const int length_k = rank_k - 3, heads_k = rank_k - 2, size_k = rank_k - 1;
  const int64_t *q = desc.q.shape, *k = desc.k.shape, *v = desc.v.shape;
  if (rank == 4) {
    if (!desc.paged) GATUN_CHECK(check_size(message, "desc.k", desc.k, 0, "q's", q[0]));
    GATUN_CHECK(check_size(message, "desc.out", desc.out, 0, "q's", q[0]));
  } else {
    GATUN_CHECK(check_at_least(message, "desc.max_sequences", desc.max_sequences, 0));
  }
  if (rank_k == 4) GATUN_CHECK(check_size(message, "desc.v", desc.v, 0, "k's", k[0]));
  GATUN_CHECK(check_size(message, "desc.v", desc.v, length_k, "k's", k[length_k]));
  GATUN_CHECK(check_size(message, "desc.out", desc.out, length, "q's", q[length]));
  GATUN_CHECK(check_size(message, "desc.v", desc.v, heads_k, "k's", k[heads_k]));
  GATUN_CHECK(check_size(message, "desc.out", desc.out, heads, "q's", q[heads]));
  GATUN_CHECK(check_size(message, "desc.k", desc.k, size_k, "q's", q[size]));
  GATUN_CHECK(check_size(message, "desc.out", desc.out, size, "v's", v[size_k]));
  if (k[heads_k] < 1 || q[heads] < 1 || q[heads] % k[heads_k] != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.k.shape[%d]: is %lld heads, expected a divisor of q's %lld", heads_k,
                static_cast<long long>(k[heads_k]), static_cast<long long>(q[heads]));
  }
  if (q[size] < 1 || v[size_k] < 1) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.%s.shape[%d]: is 0, expected a head size of 1 or more",
                q[size] < 1 ? "q" : "v", q[size] < 1 ? size : size_k);
  }
  if (desc.paged) {
    if (k[1] < 1) return fail(message, GTN_INVALID_ARGUMENT, "desc.k.shape[1]: is 0, expected a page size of 1 or more");
    GATUN_CHECK(check_at_least(message, "desc.max_len_k", desc.max_len_k, 0));
  }
  return GTN_OK;
}

// Complete copies of the patterns of a description, for as long as its plan is being made.
class Patterns {
 public:
  Patterns() = default;
  ~Patterns() { std::free(copies_); }
  Patterns(const Patterns&) = delete;
  Patterns& operator=(const Patterns&) = delete;

  // GTN_MASK_* of all of them.
  uint32_t masks() const { return masks_; }

  // Checks the patterns of `desc`, for heads_q heads, and has it point to the copies.
  gtn_status take(gtn_message* message, gtn_attention_desc& desc, int64_t heads_q) {
    if (desc.patterns == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "desc.patterns: is null");
    if (desc.pattern_count != 1 && desc.pattern_count != heads_q) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc.pattern_count: is %lld, expected 1 or %lld, one for each head of q",
                  static_cast<long long>(desc.pattern_count), static_cast<long long>(heads_q));
    }
    copies_ = static_cast<gtn_attention_pattern*>(
        std::calloc(static_cast<size_t>(desc.pattern_count), sizeof(gtn_attention_pattern)));
    if (copies_ == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the patterns");
    // The caller's may be longer than those that this library knows.
    const uint32_t step = desc.patterns->size;
    const char* from = reinterpret_cast<const char*>(desc.patterns);
    for (int64_t i = 0; i < desc.pattern_count; ++i, from += step) {
      GATUN_CHECK(take(message, i, from, step));
    }
    desc.patterns = copies_;
    return GTN_OK;
  }

 private:
  gtn_status take(gtn_message* message, int64_t i, const char* from, uint32_t step) {
    const long long index = i;
    char name[48];
    std::snprintf(name, sizeof name, "desc.patterns[%lld]", index);
    gtn_attention_pattern& pattern = copies_[i];
    uint32_t size;
    std::memcpy(&size, from, sizeof size);
    if (size != step) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.size: is %u, expected %u, that of the first", name, size, step);
    }
    GATUN_CHECK(copy_description(message, name, from, &pattern, sizeof pattern));
    pattern.size = sizeof pattern;
    if ((pattern.masks & ~kMasks) != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.masks: is %u, expected a sum of GTN_MASK_*, at most %u", name,
                  pattern.masks, kMasks);
    }
    struct Field {
      const char* name;
      int64_t value, least;
      const char* expected;
    };
    for (const Field& field : {Field{"window_left", pattern.window_left, -1, "-1 (unlimited), 0 or more"},
                               {"window_right", pattern.window_right, -1, "-1 (unlimited), 0 or more"},
                               {"dilation", pattern.dilation, 1, "1 or more"},
                               {"sinks", pattern.sinks, 0, "0 or more"}}) {
      if (field.value < field.least) {
        return fail(message, GTN_INVALID_ARGUMENT, "%s.%s: is %lld, expected %s", name, field.name,
                    static_cast<long long>(field.value), field.expected);
      }
    }
    masks_ |= pattern.masks;
    return GTN_OK;
  }

  gtn_attention_pattern* copies_ = nullptr;
  uint32_t masks_ = 0;
};

// How many heads an array is for: 1 serves all, heads_k one for each group of heads, heads_q one for each.
gtn_status check_array_heads(gtn_message* message, const char* name, int64_t heads, const AttentionSizes& sizes) {
  if (heads == 1 || heads == sizes.heads_k || heads == sizes.heads_q) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: is %lld, expected 1, %lld (heads of k) or %lld (heads of q)", name,
              static_cast<long long>(heads), static_cast<long long>(sizes.heads_k), static_cast<long long>(sizes.heads_q));
}

gtn_status check_bias(gtn_message* message, const gtn_attention_desc& desc, const AttentionSizes& sizes) {
  GATUN_CHECK(check_tensor(message, "desc.bias", desc.bias, 1u << GTN_F32 | 1u << desc.q.dtype, 4, 4, false, false));
  GATUN_CHECK(check_size(message, "desc.bias", desc.bias, 1, "q's heads,", sizes.heads_q));
  struct Most {
    int dimension;
    int64_t most;
    const char* what;
  };
  for (const Most& most : {Most{0, sizes.sequences, "sequences"}, {2, sizes.len_q, "len_q"}, {3, sizes.len_k, "len_k"}}) {
    if (desc.bias.shape[most.dimension] > most.most) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc.bias.shape[%d]: is %lld, expected at most %lld, the plan's %s",
                  most.dimension, static_cast<long long>(desc.bias.shape[most.dimension]), static_cast<long long>(most.most),
                  most.what);
    }
  }
  return GTN_OK;
}

// What scores are made of, and the fields that go with each mask.
gtn_status check_attention_parts(gtn_message* message, const gtn_attention_desc& desc, uint32_t masks,
                                 const AttentionSizes& sizes) {
  GATUN_CHECK(check_finite(message, "desc.scale", desc.scale));
  if (!std::isfinite(desc.softcap) || desc.softcap < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.softcap: is %g, expected 0 for none, or a finite number greater than 0",
                static_cast<double>(desc.softcap));
  }
  GATUN_CHECK(check_finite(message, "desc.self_bias", desc.self_bias));
  GATUN_CHECK(check_flag(message, "desc.has_sink_logits", desc.has_sink_logits));
  GATUN_CHECK(check_flag(message, "desc.has_slopes", desc.has_slopes));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  if (desc.has_bias) GATUN_CHECK(check_bias(message, desc, sizes));
  if (masks & GTN_MASK_GLOBALS) GATUN_CHECK(check_at_least(message, "desc.max_globals", desc.max_globals, 1));
  if (masks & GTN_MASK_TREE) GATUN_CHECK(check_at_least(message, "desc.max_tree", desc.max_tree, 1));
  if (masks & GTN_MASK_DOCUMENTS) {
    GATUN_CHECK(check_array_heads(message, "desc.document_heads", desc.document_heads, sizes));
    GATUN_CHECK(check_at_least(message, "desc.document_layers", desc.document_layers, 1));
  }
  if (masks & GTN_MASK_BLOCKS) {
    GATUN_CHECK(check_at_least(message, "desc.block_q", desc.block_q, 1));
    GATUN_CHECK(check_at_least(message, "desc.block_k", desc.block_k, 1));
    GATUN_CHECK(check_array_heads(message, "desc.block_heads", desc.block_heads, sizes));
    GATUN_CHECK(check_at_least(message, "desc.max_blocks", desc.max_blocks, 0));
    GATUN_CHECK(check_at_least(message, "desc.max_block_masks", desc.max_block_masks, 0));
    GATUN_CHECK(check_flag(message, "desc.has_block_bias", desc.has_block_bias));
  }
  return desc.order_heads == 0 ? GTN_OK : check_array_heads(message, "desc.order_heads", desc.order_heads, sizes);
}

int64_t blocks_of(int64_t length, int64_t block) { return length / block + (length % block != 0); }

// Finds which of the further arrays runs bring, and how large they are.
gtn_status check_attention_arrays(gtn_message* message, const gtn_attention_desc& desc, uint32_t masks,
                                  const AttentionSizes& sizes, RunArray (&arrays)[kAttentionArrays]) {
  struct Array {
    AttentionArray which;
    bool wanted;
    const char *name, *why;
    int64_t element;
    bool per_sequence;
    int64_t counts[3];
  };
  const bool s8 = desc.k.dtype == GTN_S8, documents = masks & GTN_MASK_DOCUMENTS, blocks = masks & GTN_MASK_BLOCKS;
  const bool masked = blocks && desc.max_block_masks > 0, orders = desc.order_heads > 0;
  const bool each_q = !sizes.packed, each_k = !sizes.packed || sizes.paged;
  const int64_t lq = sizes.len_q, lk = sizes.len_k, heads_k = sizes.heads_k;
  const int64_t labels = desc.document_heads, lists = desc.block_heads, order = desc.order_heads;
  // Of scales, those of all pages.
  const int64_t page = sizes.paged ? desc.k.shape[1] : 1, rows = sizes.paged ? desc.k.shape[0] : lk;
  const bool each_scale = each_q && !sizes.paged;
  const char* sequences = sizes.packed ? "desc.max_sequences" : "desc.q.shape[0]";
  for (const Array& array : {
           Array{kKScales, s8, "k_scales", "desc.k", 4, each_scale, {rows, page, heads_k}},
           {kVScales, s8, "v_scales", "desc.v", 4, each_scale, {rows, page, heads_k}},
           {kBlockTable, sizes.paged, "block_table", "desc.max_len_k", 4, true, {blocks_of(lk, page), 1, 1}},
           {kSinkLogits, desc.has_sink_logits != 0, "sink_logits", "desc.q", 4, false, {sizes.heads_q, 1, 1}},
           {kSlopes, desc.has_slopes != 0, "slopes", "desc.q", 4, false, {sizes.heads_q, 1, 1}},
           {kPrefixes, (masks & GTN_MASK_PREFIX) != 0, "prefixes", sequences, 8, true, {1, 1, 1}},
           {kGlobals, (masks & GTN_MASK_GLOBALS) != 0, "globals", "desc.max_globals", 4, true, {desc.max_globals, 1, 1}},
           {kQDocuments, documents, "q_documents", "desc.document_layers", 4, each_q, {desc.document_layers, labels, lq}},
           {kKDocuments, documents, "k_documents", "desc.document_layers", 4, each_k, {desc.document_layers, labels, lk}},
           {kTree, (masks & GTN_MASK_TREE) != 0, "tree", "desc.max_tree", 1, true, {desc.max_tree, desc.max_tree, 1}},
           // One more block than there is, for the offset at the end.
           {kBlockOffsets, blocks, "block_offsets", sequences, 8, true,
            {lists, blocks ? blocks_of(lq, desc.block_q) + 1 : 0, 1}},
           {kBlockColumns, blocks, "block_columns", "desc.max_blocks", 4, false, {desc.max_blocks, 1, 1}},
           {kBlockMaskIndex, masked, "block_mask_index", "desc.max_blocks", 4, false, {desc.max_blocks, 1, 1}},
           {kBlockMasks, masked, "block_masks", "desc.max_block_masks", 1, false,
            {desc.max_block_masks, desc.block_q, desc.block_k}},
           {kBlockBias, blocks && desc.has_block_bias, "block_bias", "desc.max_blocks", 4, false, {desc.max_blocks, 1, 1}},
           {kQOrder, orders, "q_order", "desc.q", 4, each_q, {order, lq, 1}},
           {kKOrder, orders, "k_order", "desc.k", 4, each_k, {order, lk, 1}},
       }) {
    if (!array.wanted) continue;
    const int64_t* counts = array.counts;
    GATUN_CHECK(check_array(message, array.why, array.name, array.element,
                            {array.per_sequence ? sizes.sequences : 1, counts[0], counts[1], counts[2]}));
    const int64_t bytes = array.element * counts[0] * counts[1] * counts[2];
    arrays[array.which] = {true, array.per_sequence, {array.element, bytes, bytes, true}};
  }
  if (blocks) {
    Extent& offsets = arrays[kBlockOffsets].extent;
    offsets.pitch = 8 * lists * blocks_of(lq, desc.block_q);
    offsets.width = offsets.pitch + 8;
  }
  if (desc.has_bias) {
    Extent bias = range_of(desc.bias, {1});
    bias.pitch = desc.bias.strides[0] * bias.element;
    arrays[kBias] = {true, true, bias};
  }
  return GTN_OK;
}

// [tokens, heads, head size] with something in it.
gtn_status check_heads(gtn_message* message, const char* name, const gtn_tensor_desc& tensor) {
  for (int d = 1; d < 3; ++d) {
    if (tensor.shape[d] < 1) return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[%d]: is 0, expected 1 or more", name, d);
  }
  return GTN_OK;
}

gtn_status check(gtn_message* message, const gtn_merge_desc& desc) {
  GATUN_CHECK(check_flag(message, "desc.has_sink_logits", desc.has_sink_logits));
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, kFloatsAndHalf, 5, 5, true, false));
  GATUN_CHECK(check_tensor(message, "desc.x_lse", desc.x_lse, 1u << GTN_F32, 4, 4, false, false));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloatsAndHalf, 4, 4, true, true));
  GATUN_CHECK(check_tensor(message, "desc.lse", desc.lse, 1u << GTN_F32, 3, 3, false, true));
  for (int d = 3; d < 5; ++d) {
    if (desc.x.shape[d] < 1) return fail(message, GTN_INVALID_ARGUMENT, "desc.x.shape[%d]: is 0, expected 1 or more", d);
  }
  const int64_t *x = desc.x.shape, lse[] = {x[0], x[1], x[3], x[2]};
  for (int d = 0; d < 4; ++d) GATUN_CHECK(check_size(message, "desc.x_lse", desc.x_lse, d, "x's", lse[d]));
  for (int d = 0; d < 4; ++d) GATUN_CHECK(check_size(message, "desc.out", desc.out, d, "x's", x[d + 1]));
  for (int d = 0; d < 3; ++d) GATUN_CHECK(check_size(message, "desc.lse", desc.lse, d, "x's", lse[d + 1]));
  return GTN_OK;
}

// The queries and keys of a selection, and its fields that all kinds have.
gtn_status check_select_tensors(gtn_message* message, const gtn_select_desc& desc) {
  GATUN_CHECK(check_tensor(message, "desc.q", desc.q, kFloatsAndHalf, 3, 4, true, false));
  const int rank = desc.q.rank, heads = rank - 2, size = rank - 1;
  GATUN_CHECK(check_tensor(message, "desc.k", desc.k, 1u << desc.q.dtype, rank, rank, true, false));
  const int64_t *q = desc.q.shape, *k = desc.k.shape;
  if (rank == 4) {
    GATUN_CHECK(check_size(message, "desc.k", desc.k, 0, "q's", q[0]));
  } else {
    GATUN_CHECK(check_at_least(message, "desc.max_sequences", desc.max_sequences, 0));
  }
  GATUN_CHECK(check_size(message, "desc.k", desc.k, size, "q's", q[size]));
  if (k[heads] < 1 || q[heads] < 1 || q[heads] % k[heads] != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.k.shape[%d]: is %lld heads, expected a divisor of q's %lld", heads,
                static_cast<long long>(k[heads]), static_cast<long long>(q[heads]));
  }
  if (q[size] < 1) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.q.shape[%d]: is 0, expected a head size of 1 or more", size);
  }
  GATUN_CHECK(check_at_least(message, "desc.block_q", desc.block_q, 1));
  GATUN_CHECK(check_at_least(message, "desc.block_k", desc.block_k, 1));
  GATUN_CHECK(check_at_least(message, "desc.count", desc.count, 1));
  GATUN_CHECK(check_at_least(message, "desc.first", desc.first, 0));
  GATUN_CHECK(check_at_least(message, "desc.local", desc.local, 0));
  if (desc.first > desc.count || desc.local > desc.count - desc.first) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.local: is %lld beside first of %lld, expected together at most %lld, the count",
                static_cast<long long>(desc.local), static_cast<long long>(desc.first), static_cast<long long>(desc.count));
  }
  return check_flag(message, "desc.causal", desc.causal);
}

// The fields of one kind; those of the others are 0.
gtn_status check_select_kind(gtn_message* message, const gtn_select_desc& desc) {
  const int heads = desc.q.rank - 2;
  const int64_t heads_q = desc.q.shape[heads], heads_k = desc.k.shape[heads];
  const bool blocks = desc.kind == GTN_SELECT_BLOCKS, lsh = desc.kind == GTN_SELECT_LSH;
  const bool retrieval = desc.kind == GTN_SELECT_RETRIEVAL;
  if (desc.heads != heads_q && !(blocks && desc.heads == heads_k)) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.heads: is %lld, expected %lld (heads of q)%s",
                static_cast<long long>(desc.heads), static_cast<long long>(heads_q), blocks ? " or those of k" : "");
  }
  if (blocks ? desc.pool != GTN_POOL_MEAN && desc.pool != GTN_POOL_BOUNDS : desc.pool != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.pool: is %d, expected %s", desc.pool,
                blocks ? "GTN_POOL_MEAN or GTN_POOL_BOUNDS" : "0, since this kind pools nothing");
  }
  GATUN_CHECK(check_finite(message, "desc.scale", desc.scale));
  struct Field {
    const char* name;
    int64_t value;
    bool right;
    const char* expected;
  };
  const int64_t buckets = desc.buckets;
  const bool in_range = buckets >= 2 && buckets <= 65536;
  for (const Field& field : {
           Field{"scale", desc.scale != 0, blocks || desc.scale == 0, "0 but for GTN_SELECT_BLOCKS"},
           {"block_q", desc.block_q, !retrieval || desc.block_q == 1, "1 with GTN_SELECT_RETRIEVAL"},
           {"block_k", desc.block_k, !retrieval || desc.block_k == 1, "1 with GTN_SELECT_RETRIEVAL"},
           {"first", desc.first, !lsh || desc.first == 0, "0 with GTN_SELECT_LSH"},
           {"local", desc.local, !lsh || desc.local == 0, "0 with GTN_SELECT_LSH"},
           {"buckets", buckets, !blocks || buckets == 0, "0 with GTN_SELECT_BLOCKS"},
           {"buckets", buckets, !lsh || (in_range && buckets % 2 == 0), "an even number, 2 to 65536"},
           {"buckets", buckets, !retrieval || (in_range && (buckets & (buckets - 1)) == 0), "a power of two, 2 to 65536"},
           {"layers", desc.layers, !blocks || desc.layers == 0, "0 with GTN_SELECT_BLOCKS"},
           {"layers", desc.layers, !lsh || (desc.layers >= 1 && desc.layers <= 64), "1 to 64"},
           {"layers", desc.layers, !retrieval || (desc.layers >= 2 && desc.layers <= 1024), "2 to 1024"},
           {"seed", static_cast<int64_t>(desc.seed), !blocks || desc.seed == 0, "0 with GTN_SELECT_BLOCKS"},
       }) {
    if (field.right) continue;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.%s: is %lld, expected %s", field.name,
                static_cast<long long>(field.value), field.expected);
  }
  return GTN_OK;
}

// Finds which arrays runs write, and how large they are.
gtn_status check_select_arrays(gtn_message* message, const gtn_select_desc& desc, RunArray (&arrays)[kAttentionArrays]) {
  struct Array {
    AttentionArray which;
    bool wanted;
    const char *name, *why;
    int64_t element;
    bool per_sequence;
    int64_t counts[3];
  };
  const bool packed = desc.q.rank == 3, lsh = desc.kind == GTN_SELECT_LSH;
  const int length = desc.q.rank - 3;
  const int64_t sequences = packed ? desc.max_sequences : desc.q.shape[0], heads_q = desc.q.shape[length + 1];
  const int64_t lq = desc.q.shape[length], lk = desc.k.shape[length], blocks = blocks_of(lq, desc.block_q);
  for (const Array& array : {
           // One more block than there is, for the offset at the end.
           Array{kBlockOffsets, true, "block_offsets", "desc.q", 8, true, {desc.heads, blocks + 1, 1}},
           {kBlockColumns, true, "block_columns", "desc.count", 4, true, {desc.heads, blocks, desc.count}},
           {kBlockBias, desc.kind == GTN_SELECT_RETRIEVAL, "block_bias", "desc.count", 4, true,
            {desc.heads, blocks, desc.count}},
           {kQOrder, lsh, "q_order", "desc.q", 4, !packed, {heads_q, lq, 1}},
           {kKOrder, lsh, "k_order", "desc.k", 4, !packed, {heads_q, lk, 1}},
           {kQDocuments, lsh, "q_documents", "desc.layers", 4, !packed, {desc.layers, heads_q, lq}},
           {kKDocuments, lsh, "k_documents", "desc.layers", 4, !packed, {desc.layers, heads_q, lk}},
       }) {
    if (!array.wanted) continue;
    const int64_t* counts = array.counts;
    GATUN_CHECK(check_array(message, array.why, array.name, array.element,
                            {array.per_sequence ? sequences : 1, counts[0], counts[1], counts[2]}));
    const int64_t bytes = array.element * counts[0] * counts[1] * counts[2];
    arrays[array.which] = {true, array.per_sequence, {array.element, bytes, bytes, true}};
  }
  Extent& offsets = arrays[kBlockOffsets].extent;
  offsets.pitch = 8 * desc.heads * blocks;
  offsets.width = offsets.pitch + 8;
  return GTN_OK;
}

gtn_status check(gtn_message* message, const gtn_rope_desc& desc) {
  if (desc.style != GTN_ROPE_HALVES && desc.style != GTN_ROPE_INTERLEAVED) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.style: is %d, expected GTN_ROPE_HALVES or GTN_ROPE_INTERLEAVED",
                desc.style);
  }
  GATUN_CHECK(check_at_least(message, "desc.max_position", desc.max_position, 1));
  GATUN_CHECK(check_flag(message, "desc.has_q", desc.has_q));
  GATUN_CHECK(check_flag(message, "desc.has_k", desc.has_k));
  GATUN_CHECK(check_flag(message, "desc.has_v", desc.has_v));
  if (!desc.has_q && !desc.has_k) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.has_q: is 0, expected 1 where has_k is 0: nothing is to be rotated");
  }
  constexpr uint32_t kCaches = kFloatsAndHalf | 1u << GTN_S8;
  if (desc.has_q) {
    GATUN_CHECK(check_tensor(message, "desc.q", desc.q, kFloatsAndHalf, 3, 3, true, false));
    GATUN_CHECK(check_tensor(message, "desc.q_out", desc.q_out, kFloatsAndHalf, 3, 3, true, true));
    GATUN_CHECK(check_same_shape(message, "desc.q_out", desc.q_out, "q", desc.q));
  }
  if (desc.has_k) {
    GATUN_CHECK(check_tensor(message, "desc.k", desc.k, kFloatsAndHalf, 3, 3, true, false));
    GATUN_CHECK(check_tensor(message, "desc.k_cache", desc.k_cache, kCaches, 4, 4, true, true));
  }
  if (desc.has_v) {
    const uint32_t values = desc.has_k ? 1u << desc.k.dtype : kFloatsAndHalf;
    GATUN_CHECK(check_tensor(message, "desc.v", desc.v, values, 3, 3, true, false));
    const uint32_t caches = desc.has_k ? 1u << desc.k_cache.dtype : kCaches;
    GATUN_CHECK(check_tensor(message, "desc.v_cache", desc.v_cache, caches, 4, 4, true, true));
  }
  const gtn_tensor_desc& first = desc.has_q ? desc.q : desc.k;
  const char* whose = desc.has_q ? "q's" : "k's";
  if (desc.has_k) {
    GATUN_CHECK(check_size(message, "desc.k", desc.k, 0, whose, first.shape[0]));
    GATUN_CHECK(check_size(message, "desc.k", desc.k, 2, whose, first.shape[2]));
  }
  if (desc.has_v) GATUN_CHECK(check_size(message, "desc.v", desc.v, 0, whose, first.shape[0]));
  if (desc.has_k && desc.has_v) {
    GATUN_CHECK(check_size(message, "desc.v", desc.v, 1, "k's", desc.k.shape[1]));
    GATUN_CHECK(check_size(message, "desc.v_cache", desc.v_cache, 0, "k_cache's", desc.k_cache.shape[0]));
    GATUN_CHECK(check_size(message, "desc.v_cache", desc.v_cache, 1, "k_cache's", desc.k_cache.shape[1]));
  }
  struct Stored {
    bool there;
    const char *name, *cache_name, *whose, *scales;
    const gtn_tensor_desc &tensor, &cache;
  };
  for (const Stored& stored : {Stored{desc.has_k != 0, "desc.k", "desc.k_cache", "k's", "k_scales", desc.k, desc.k_cache},
                               {desc.has_v != 0, "desc.v", "desc.v_cache", "v's", "v_scales", desc.v, desc.v_cache}}) {
    if (!stored.there) continue;
    const int64_t* shape = stored.cache.shape;
    GATUN_CHECK(check_heads(message, stored.name, stored.tensor));
    GATUN_CHECK(check_size(message, stored.cache_name, stored.cache, 2, stored.whose, stored.tensor.shape[1]));
    GATUN_CHECK(check_size(message, stored.cache_name, stored.cache, 3, stored.whose, stored.tensor.shape[2]));
    if (shape[1] < 1) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[1]: is 0, expected a page size of 1 or more", stored.cache_name);
    }
    GATUN_CHECK(check_array(message, stored.cache_name, stored.scales, 4, {shape[0], shape[1], shape[2]}));
  }
  if (desc.has_q) GATUN_CHECK(check_heads(message, "desc.q", desc.q));
  if (desc.rotary < 0 || desc.rotary > first.shape[2] || desc.rotary % 2 != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.rotary: is %lld, expected an even number, 0 to %lld, the head size",
                static_cast<long long>(desc.rotary), static_cast<long long>(first.shape[2]));
  }
  GATUN_CHECK(check_array(message, "desc.max_position", "table", 4, {desc.max_position, desc.rotary}));
  return check_array(message, desc.has_q ? "desc.q" : "desc.k", "positions", 8, {first.shape[0]});
}

gtn_status check(gtn_message* message, const gtn_route_desc& desc) {
  if (desc.kind != GTN_ROUTE_SOFTMAX && desc.kind != GTN_ROUTE_SIGMOID) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.kind: is %d, expected GTN_ROUTE_SOFTMAX or GTN_ROUTE_SIGMOID", desc.kind);
  }
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, kFloatsAndHalf, 2, 2, true, false));
  const struct {
    const char* name;
    int64_t value, least, most;
  } fields[] = {
      {"x.shape[1]", desc.x.shape[1], 1, 65536},
      {"top", desc.top, 1, desc.x.shape[1]},
      {"groups", desc.groups, 0, desc.x.shape[1]},
      {"top_groups", desc.top_groups, desc.groups > 0 ? 1 : 0, desc.groups},
  };
  for (const auto& field : fields) {
    if (field.value >= field.least && field.value <= field.most) continue;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.%s: is %lld, expected %lld to %lld", field.name,
                static_cast<long long>(field.value), static_cast<long long>(field.least), static_cast<long long>(field.most));
  }
  if (desc.groups > 0) {
    if (desc.x.shape[1] % desc.groups != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc.groups: is %lld, expected a divisor of the %lld experts",
                  static_cast<long long>(desc.groups), static_cast<long long>(desc.x.shape[1]));
    }
    const int64_t among = desc.x.shape[1] / desc.groups * desc.top_groups;
    if (desc.top > among) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc.top: is %lld, expected at most %lld, the experts of %lld groups",
                  static_cast<long long>(desc.top), static_cast<long long>(among), static_cast<long long>(desc.top_groups));
    }
  }
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  GATUN_CHECK(check_flag(message, "desc.normalize", desc.normalize));
  return check_finite(message, "desc.scale", desc.scale);
}

gtn_status check(gtn_message* message, const gtn_mix_desc& desc) {
  if (desc.gate < GTN_GATE_NONE || desc.gate > GTN_GATE_TANH) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.gate: is %d, expected GTN_GATE_NONE, GTN_GATE_SIGMOID or GTN_GATE_TANH",
                desc.gate);
  }
  GATUN_CHECK(check_flag(message, "desc.has_residual", desc.has_residual));
  GATUN_CHECK(check_flag(message, "desc.has_row_index", desc.has_row_index));
  const bool indexed = desc.has_row_index != 0;
  const int rank = indexed ? 3 : 4;
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, kFloatsAndHalf, rank, rank, true, false));
  GATUN_CHECK(check_tensor(message, "desc.gates", desc.gates, 1u << GTN_F32, 3, 3, false, false));
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloatsAndHalf, 3, 3, true, true));
  GATUN_CHECK(check_heads(message, "desc.out", desc.out));
  const int64_t *gates = desc.gates.shape, *out = desc.out.shape;
  GATUN_CHECK(check_size(message, "desc.gates", desc.gates, 0, "out's", out[0]));
  GATUN_CHECK(check_size(message, "desc.gates", desc.gates, 2, "out's", out[1]));
  if (!indexed) {
    GATUN_CHECK(check_size(message, "desc.x", desc.x, 0, "the parts of gates,", gates[1]));
    GATUN_CHECK(check_size(message, "desc.x", desc.x, 1, "out's", out[0]));
  }
  for (int d = 1; d < 3; ++d) GATUN_CHECK(check_size(message, "desc.x", desc.x, rank - 3 + d, "out's", out[d]));
  return check_array(message, "desc.gates", "row_index", 4, {gates[0], gates[1]});
}

// The size of `out` in a spatial dimension, or -1 where what it is made of does not fit 63 bits.
template <typename Desc>
int64_t window_size(const Desc& desc, int d) {
  int64_t padded, reach;
  if (__builtin_add_overflow(desc.x.shape[2 + d], desc.pad_before[d], &padded) ||
      __builtin_add_overflow(padded, desc.pad_after[d], &padded) ||
      __builtin_mul_overflow(desc.dilation[d], desc.kernel[d] - 1, &reach) ||
      __builtin_add_overflow(reach, 1, &reach)) {
    return -1;
  }
  return padded < reach ? 0 : (padded - reach) / desc.stride[d] + 1;
}

// How the windows of a convolution or a pooling lie.
template <typename Desc>
gtn_status check_windows(gtn_message* message, const Desc& desc) {
  const int spatial = desc.x.rank - 2;
  const struct {
    const char* name;
    const int64_t* values;
    int64_t least;
  } fields[] = {
      {"kernel", desc.kernel, 1},         {"stride", desc.stride, 1},       {"dilation", desc.dilation, 1},
      {"pad_before", desc.pad_before, 0}, {"pad_after", desc.pad_after, 0},
  };
  for (const auto& field : fields) {
    for (int d = 0; d < GTN_CONV_MAX_RANK; ++d) {
      const bool there = d < spatial;
      if (there ? field.values[d] >= field.least : field.values[d] == 0) continue;
      return fail(message, GTN_INVALID_ARGUMENT, there ? "desc.%s[%d]: is %lld, expected %lld or more"
                                                       : "desc.%s[%d]: is %lld, expected %lld beyond the spatial dimensions",
                  field.name, d, static_cast<long long>(field.values[d]), static_cast<long long>(there ? field.least : 0));
    }
  }
  return GTN_OK;
}

// The sizes of `out` that they make.
template <typename Desc>
gtn_status check_window_sizes(gtn_message* message, const Desc& desc) {
  for (int d = 0; d < desc.x.rank - 2; ++d) {
    const int64_t size = window_size(desc, d);
    if (size < 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "desc: padding and dilation of spatial dimension %d exceed 2^63", d);
    }
    if (desc.out.shape[2 + d] == size) continue;
    return fail(message, GTN_INVALID_ARGUMENT,
                "desc.out.shape[%d]: is %lld, expected %lld of x's %lld, kernel, stride, dilation and padding", 2 + d,
                static_cast<long long>(desc.out.shape[2 + d]), static_cast<long long>(size),
                static_cast<long long>(desc.x.shape[2 + d]));
  }
  return GTN_OK;
}

gtn_status check(gtn_message* message, const gtn_conv_desc& desc) {
  if (desc.format != GTN_F32 && desc.format != GTN_BF16) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.format: is %s (%d), expected F32 or BF16", dtype_name(desc.format),
                desc.format);
  }
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, kFloats, 3, 5, false, false));
  const int rank = desc.x.rank;
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloats, rank, rank, false, true));
  GATUN_CHECK(check_size(message, "desc.out", desc.out, 0, "x's", desc.x.shape[0]));
  GATUN_CHECK(check_at_least(message, "desc.x.shape[1]", desc.x.shape[1], 1));
  GATUN_CHECK(check_at_least(message, "desc.out.shape[1]", desc.out.shape[1], 1));
  for (const gtn_tensor_desc* tensor : {&desc.x, &desc.out}) {
    if (desc.groups >= 1 && tensor->shape[1] % desc.groups == 0) continue;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.groups: is %lld, expected a divisor of the %lld channels of %s",
                static_cast<long long>(desc.groups), static_cast<long long>(tensor->shape[1]),
                tensor == &desc.x ? "x" : "out");
  }
  GATUN_CHECK(check_windows(message, desc));
  GATUN_CHECK(check_array(message, "desc.kernel", "weights", 4,
                          {desc.out.shape[1], desc.x.shape[1] / desc.groups, desc.kernel[0],
                           desc.kernel[1], desc.kernel[2]}));
  GATUN_CHECK(check_window_sizes(message, desc));
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  GATUN_CHECK(check_flag(message, "desc.has_residual", desc.has_residual));
  GATUN_CHECK(check_flag(message, "desc.residual_first", desc.residual_first));
  if (!desc.residual_first || desc.has_residual) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "desc.residual_first: is 1, expected 0, since has_residual is");
}

void keep(Plan& plan, const gtn_conv_desc& desc) { plan.conv = desc; }

gtn_status check(gtn_message* message, const gtn_pooling_desc& desc) {
  if (desc.kind != GTN_POOLING_MAX && desc.kind != GTN_POOLING_AVERAGE) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.kind: is %d, expected GTN_POOLING_MAX or GTN_POOLING_AVERAGE", desc.kind);
  }
  GATUN_CHECK(check_tensor(message, "desc.x", desc.x, kFloatsAndHalf, 3, 5, false, false));
  const int rank = desc.x.rank;
  GATUN_CHECK(check_tensor(message, "desc.out", desc.out, kFloatsAndHalf, rank, rank, false, true));
  for (int d = 0; d < 2; ++d) GATUN_CHECK(check_size(message, "desc.out", desc.out, d, "x's", desc.x.shape[d]));
  GATUN_CHECK(check_at_least(message, "desc.x.shape[1]", desc.x.shape[1], 1));
  GATUN_CHECK(check_windows(message, desc));
  GATUN_CHECK(check_array(message, "desc.kernel", "a window", 4, {desc.kernel[0], desc.kernel[1], desc.kernel[2]}));
  GATUN_CHECK(check_window_sizes(message, desc));
  GATUN_CHECK(check_flag(message, "desc.count_padding", desc.count_padding));
  if (!desc.count_padding || desc.kind == GTN_POOLING_AVERAGE) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "desc.count_padding: is 1, expected 0 with GTN_POOLING_MAX");
}

void keep(Plan& plan, const gtn_pooling_desc& desc) { plan.pooling = desc; }

gtn_status check(gtn_message* message, const gtn_fake_quantize_desc& desc) {
  if (desc.granularity < GTN_SCALE_OF_TENSOR || desc.granularity > GTN_SCALE_OF_COLUMN) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.granularity: is %d, expected GTN_SCALE_OF_*, %d to %d", desc.granularity,
                GTN_SCALE_OF_TENSOR, GTN_SCALE_OF_COLUMN);
  }
  if (desc.least < -128 || desc.least >= desc.most || desc.most > (desc.least < 0 ? 127 : 255)) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.least, desc.most: are %d and %d, expected integers of 8 bits, one below the other",
                desc.least, desc.most);
  }
  GATUN_CHECK(check_flag(message, "desc.has_zero_points", desc.has_zero_points));
  GATUN_CHECK(check_flag(message, "desc.gradient", desc.gradient));
  GATUN_CHECK(check_rows(message, desc.x, desc.out));
  return check_array(message, "desc.x.shape", "scales", 4, {desc.x.shape[desc.granularity == GTN_SCALE_OF_COLUMN ? 1 : 0]});
}

void keep(Plan& plan, const gtn_fake_quantize_desc& desc) {
  plan.fake_quantize = desc;
  plan.x = extent_of(desc.x);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_gemm_desc& desc) {
  plan.gemm = desc;
  plan.x = extent_of(desc.a);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_norm_desc& desc) {
  plan.norm = desc;
  plan.x = extent_of(desc.x);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_softmax_desc& desc) {
  plan.softmax = desc;
  plan.x = extent_of(desc.x);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_activation_desc& desc) {
  plan.activation = desc;
  plan.x = extent_of(desc.x);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_glu_desc& desc) {
  plan.glu = desc;
  plan.k = extent_of(desc.gate);
  plan.x = extent_of(desc.x);
  plan.out = extent_of(desc.out);
}

// How many parts x may have when `out` is the first of them: any number where none shares memory with another.
int64_t parts_in_place(const gtn_tensor_desc& x, const gtn_tensor_desc& out) {
  if (x.dtype != out.dtype || !same_strides(out.rank, out.shape, out.strides, x.strides + 1)) return 0;
  int64_t reach;
  return crowded_dimension(x, &reach) < 0 ? INT64_MAX : 1;
}

void keep(Plan& plan, const gtn_merge_desc& desc) {
  plan.merge = desc;
  plan.in_place = parts_in_place(desc.x, desc.out);
  plan.lse_in_place = parts_in_place(desc.x_lse, desc.lse);
}

void keep(Plan& plan, const gtn_rope_desc& desc) {
  plan.rope = desc;
  if (desc.has_q) {
    plan.x = extent_of(desc.q);
    plan.out = extent_of(desc.q_out);
    plan.in_place = desc.q.dtype == desc.q_out.dtype && same_strides(3, desc.q.shape, desc.q.strides, desc.q_out.strides);
  }
  if (desc.has_k) {
    plan.k = extent_of(desc.k);
    plan.k_cache = extent_of(desc.k_cache);
  }
  if (desc.has_v) {
    plan.v = extent_of(desc.v);
    plan.v_cache = extent_of(desc.v_cache);
  }
}

void keep(Plan& plan, const gtn_route_desc& desc) {
  plan.route = desc;
  plan.x = extent_of(desc.x);
}

void keep(Plan& plan, const gtn_mix_desc& desc) {
  plan.mix = desc;
  plan.k = extent_of(desc.gates);
  plan.out = extent_of(desc.out);
  plan.x = extent_of(desc.x);
  if (desc.has_row_index) return;
  // A row is a token in all parts, wherever these lie.
  const gtn_tensor_desc& x = desc.x;
  plan.x.exact = true;
  plan.x.pitch = x.strides[1] * plan.x.element;
  plan.x.width = 0;
  if (x.shape[0] == 0) return;
  int64_t elements = 1;
  for (int d = 0; d < 4; ++d) elements += d == 1 ? 0 : (x.shape[d] - 1) * x.strides[d];
  plan.x.width = elements * plan.x.element;
}

// Has the device make a plan of what was checked; `keep_in` a Plan what runs need of it.
template <typename Desc, typename Keep>
gtn_status create_plan(gtn_device device, int32_t op, const Desc& checked, Keep keep_in, gtn_plan* plan,
                       gtn_message* message) {
  Inside inside(devices, device);
  if (!inside) return fail(message, GTN_STALE_HANDLE, "device: the handle is not open");
  Device& on = inside.object<Device>();
  Plan* created = new (std::nothrow) Plan{};
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->device = &on;
  created->op = op;
  created->info.size = sizeof created->info;
  created->info.op = op;
  keep_in(*created);
  Reason reason(message);
  const gtn_status status =
      reason.of(on.backend->plan_create(on.impl, op, &checked, &created->impl, &created->info, reason));
  if (status != GTN_OK) {
    delete created;
    return status;
  }
  const uint64_t handle = plans.open(created);
  if (handle == 0) {
    on.backend->plan_destroy(created->impl);
    delete created;
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a handle");
  }
  ++on.plans;
  *plan = handle;
  return GTN_OK;
}

template <typename Desc>
gtn_status make_plan(gtn_device device, int32_t op, const Desc* desc, gtn_plan* plan, gtn_message* message) {
  if (plan == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "plan: is null");
  Desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  GATUN_CHECK(check(message, checked));
  return create_plan(device, op, checked, [&](Plan& created) { keep(created, checked); }, plan, message);
}

}  // namespace
}  // namespace gatun

gtn_status gtn_gemm_plan(gtn_device device, const gtn_gemm_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_GEMM, desc, plan, message);
}

gtn_status gtn_attention_plan(gtn_device device, const gtn_attention_desc* desc, gtn_plan* plan, gtn_message* message) {
  using namespace gatun;
  if (plan == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "plan: is null");
  gtn_attention_desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  GATUN_CHECK(check_attention_tensors(message, checked));
  const AttentionSizes sizes(checked);
  Patterns patterns;
  GATUN_CHECK(patterns.take(message, checked, sizes.heads_q));
  GATUN_CHECK(check_attention_parts(message, checked, patterns.masks(), sizes));
  RunArray arrays[kAttentionArrays];
  GATUN_CHECK(check_attention_arrays(message, checked, patterns.masks(), sizes, arrays));
  const auto keep = [&](Plan& created) {
    created.attention = checked;
    created.attention.patterns = nullptr;
    created.masks = patterns.masks();
    created.x = extent_of(checked.q);
    created.k = extent_of(checked.k);
    created.v = extent_of(checked.v);
    created.out = extent_of(checked.out);
    std::copy(std::begin(arrays), std::end(arrays), created.arrays);
  };
  return create_plan(device, GTN_OP_ATTENTION, checked, keep, plan, message);
}

gtn_status gtn_norm_plan(gtn_device device, const gtn_norm_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_NORM, desc, plan, message);
}

gtn_status gtn_softmax_plan(gtn_device device, const gtn_softmax_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_SOFTMAX, desc, plan, message);
}

gtn_status gtn_activation_plan(gtn_device device, const gtn_activation_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_ACTIVATION, desc, plan, message);
}

gtn_status gtn_glu_plan(gtn_device device, const gtn_glu_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_GLU, desc, plan, message);
}

gtn_status gtn_select_plan(gtn_device device, const gtn_select_desc* desc, gtn_plan* plan, gtn_message* message) {
  using namespace gatun;
  if (plan == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "plan: is null");
  gtn_select_desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  if (checked.kind < GTN_SELECT_BLOCKS || checked.kind > GTN_SELECT_RETRIEVAL) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.kind: is %d, expected GTN_SELECT_*, %d to %d", checked.kind,
                GTN_SELECT_BLOCKS, GTN_SELECT_RETRIEVAL);
  }
  GATUN_CHECK(check_select_tensors(message, checked));
  GATUN_CHECK(check_select_kind(message, checked));
  RunArray arrays[kAttentionArrays];
  GATUN_CHECK(check_select_arrays(message, checked, arrays));
  const auto keep = [&](Plan& created) {
    created.select = checked;
    created.x = extent_of(checked.q);
    created.k = extent_of(checked.k);
    std::copy(std::begin(arrays), std::end(arrays), created.arrays);
  };
  return create_plan(device, GTN_OP_SELECT, checked, keep, plan, message);
}

gtn_status gtn_merge_plan(gtn_device device, const gtn_merge_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_MERGE, desc, plan, message);
}

gtn_status gtn_rope_plan(gtn_device device, const gtn_rope_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_ROPE, desc, plan, message);
}

gtn_status gtn_route_plan(gtn_device device, const gtn_route_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_ROUTE, desc, plan, message);
}

gtn_status gtn_mix_plan(gtn_device device, const gtn_mix_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_MIX, desc, plan, message);
}

gtn_status gtn_conv_plan(gtn_device device, const gtn_conv_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_CONV, desc, plan, message);
}

gtn_status gtn_pooling_plan(gtn_device device, const gtn_pooling_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_POOLING, desc, plan, message);
}

gtn_status gtn_fake_quantize_plan(gtn_device device, const gtn_fake_quantize_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_FAKE_QUANTIZE, desc, plan, message);
}
