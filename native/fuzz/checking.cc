// A backend that computes nothing and believes nothing: whatever gatun/backend.h promises of a call, it looks for
// itself, its own way, and ends the process where the core did not keep it. Small tensors are gone through element by
// element.
#include <gatun/backend.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <vector>

#include "fuzz/must.h"

namespace gatun::fuzz {
namespace {

// Tensors up to here are gone through element by element, and their memory must lie in one block of the device: fuzzers
// leave as much room behind every pointer that they pass.
constexpr int64_t kMostElements = 1024;

enum class Kind : uint32_t {
  kDevice = 0x47415444,
  kStream = 0x47415453,
  kEvent = 0x47415445,
  kWeights = 0x47415457,
  kPlan = 0x47415450
};

struct Device;

// What every object starts with. A call on a destroyed one is the address sanitizer's to find; on one of another kind,
// ours.
struct Object {
  Kind kind;
  Device* device;
};

struct Device : Object {
  int64_t objects = 0;
  std::map<char*, int64_t> blocks;
};

struct Stream : Object {
  std::atomic<bool> inside{false};
};

struct Event : Object {
  bool recorded = false;
};

struct Weights : Object {
  int32_t format;
  int64_t group_size, groups, k, n;
  int32_t rank;  // of a convolution's source, whose shape is below; else 0
  int64_t shape[5];
};

struct Plan : Object {
  int32_t op;
  union {
    gtn_gemm_desc gemm;
    gtn_attention_desc attention;
    gtn_norm_desc norm;
    gtn_softmax_desc softmax;
    gtn_activation_desc activation;
    gtn_merge_desc merge;
    gtn_rope_desc rope;
    gtn_route_desc route;
    gtn_mix_desc mix;
    gtn_glu_desc glu;
    gtn_select_desc select;
    gtn_conv_desc conv;
    gtn_pooling_desc pooling;
    gtn_fake_quantize_desc fake_quantize;
  };
  uint32_t masks;  // of attention's patterns, which are only there while the plan is made
};

template <typename T>
T& as(void* object, Kind kind) {
  MUST(object != nullptr);
  MUST(static_cast<Object*>(object)->kind == kind);
  return *static_cast<T*>(object);
}

template <typename T>
T* made(Kind kind, Device& on) {
  T* object = new T();
  object->kind = kind;
  object->device = &on;
  ++on.objects;
  return object;
}

template <typename T>
void destroyed(void* object, Kind kind) {
  T& self = as<T>(object, kind);
  MUST(--self.device->objects >= 0);
  delete &self;
}

// A message is all there and can be written to.
void check(gtn_message* message) {
  MUST(message != nullptr);
  MUST(message->size >= sizeof *message);
  std::memset(message->text, 'x', sizeof message->text - 1);
  message->text[sizeof message->text - 1] = '\0';
}

int64_t bytes_of(int32_t dtype) {
  switch (dtype) {
    case GTN_S64:
      return 8;
    case GTN_F32:
    case GTN_S32:
      return 4;
    case GTN_BF16:
    case GTN_F16:
      return 2;
    default:
      MUST(dtype == GTN_S8 || dtype == GTN_U8);
      return 1;
  }
}

void check_type(const gtn_tensor_desc& tensor, std::initializer_list<int32_t> types) {
  MUST(std::find(types.begin(), types.end(), tensor.dtype) != types.end());
}

// The bytes from a tensor's first to past its last element, as wide as that may be.
__int128 extent(const gtn_tensor_desc& tensor) {
  __int128 reach = 1;
  for (int d = 0; d < tensor.rank; ++d) {
    if (tensor.shape[d] == 0) return 0;
    reach += (static_cast<__int128>(tensor.shape[d]) - 1) * tensor.strides[d];
  }
  return reach * bytes_of(tensor.dtype);
}

__int128 elements(const gtn_tensor_desc& tensor) {
  __int128 product = 1;
  for (int d = 0; d < tensor.rank; ++d) {
    product *= tensor.shape[d];
    if (product > INT64_MAX) return product;
  }
  return product;
}

// Offsets of the elements of a tensor, in elements.
std::vector<int64_t> offsets(const gtn_tensor_desc& tensor) {
  if (elements(tensor) == 0) return {};
  std::vector<int64_t> all = {0};
  for (int d = 0; d < tensor.rank; ++d) {
    std::vector<int64_t> next;
    for (int64_t from : all) {
      for (int64_t i = 0; i < tensor.shape[d]; ++i) next.push_back(from + i * tensor.strides[d]);
    }
    all = next;
  }
  return all;
}

void check(const gtn_tensor_desc& tensor, int rank, bool unit_stride, bool output) {
  MUST(tensor.size == sizeof tensor);
  MUST(tensor.rank == rank);
  for (int d = 0; d < rank; ++d) {
    MUST(tensor.shape[d] >= 0);
    MUST(tensor.strides[d] >= 0);
    MUST(static_cast<__int128>(tensor.shape[d]) * tensor.strides[d] * bytes_of(tensor.dtype) <= INT64_MAX);
  }
  MUST(extent(tensor) <= INT64_MAX);
  MUST(elements(tensor) * bytes_of(tensor.dtype) <= INT64_MAX);
  if (unit_stride) MUST(tensor.shape[rank - 1] <= 1 || tensor.strides[rank - 1] == 1);
  if (output && elements(tensor) <= kMostElements) {
    std::vector<int64_t> all = offsets(tensor);
    std::sort(all.begin(), all.end());
    MUST(std::adjacent_find(all.begin(), all.end()) == all.end());
  }
}

void check_flag(int32_t flag) { MUST(flag == 0 || flag == 1); }

void check_activation(int32_t activation) { MUST(activation >= GTN_ACT_NONE && activation <= GTN_ACT_RELU); }

void check_rows(const gtn_tensor_desc& x, const gtn_tensor_desc& out) {
  check_type(x, {GTN_F32, GTN_BF16});
  check_type(out, {GTN_F32, GTN_BF16});
  check(x, 2, true, false);
  check(out, 2, true, true);
  MUST(x.shape[0] == out.shape[0] && x.shape[1] == out.shape[1]);
}

// That a kernel may multiply the sizes of an array: what they are for is told by one of them.
void check_bytes(int32_t dtype, std::initializer_list<int64_t> sizes) {
  __int128 bytes = bytes_of(dtype);
  for (int64_t size : sizes) {
    MUST(size >= 0);
    bytes *= size > 0 ? size : 1;
    MUST(bytes <= INT64_MAX);
  }
}

void check_format(int32_t format, int64_t group_size) {
  if (format == GTN_U4 || format == GTN_U8) {
    MUST(group_size == 32 || group_size == 64 || group_size == 128);
  } else {
    MUST(format == GTN_F32 || format == GTN_BF16 || format == GTN_F16 || format == GTN_S8 || format == GTN_F8E4M3 ||
         format == GTN_F8E5M2 || format == GTN_BF16_2OF4);
    MUST(group_size == 0);
  }
}

void check(const gtn_gemm_desc& desc) {
  MUST(desc.size >= sizeof desc);
  check_format(desc.format, desc.group_size);
  if (desc.a.dtype == GTN_U8) {
    MUST(desc.format == GTN_S8 && desc.rank == 0);
    check_bytes(GTN_S32, {desc.a.shape[0]});
  } else {
    check_type(desc.a, {GTN_F32, GTN_BF16, GTN_F16});
  }
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_F16});
  check(desc.a, 2, true, false);
  check(desc.out, 2, true, true);
  check_flag(desc.has_row_index);
  MUST(desc.has_row_index == 1 || desc.a.shape[0] == desc.out.shape[0]);
  MUST(desc.groups >= 0 && desc.groups < INT64_MAX);
  if (desc.has_row_index == 1) check_bytes(GTN_S32, {desc.out.shape[0]});
  if (desc.groups > 0) {
    check_bytes(GTN_S64, {desc.groups + 1});
    check_bytes(GTN_F32, {desc.groups, desc.out.shape[1]});
  }
  MUST(desc.rank >= 0 && desc.rank <= 1024);
  if (desc.rank > 0) {
    MUST(desc.groups == 0 && desc.has_row_index == 0);
    MUST(desc.lora_dtype == GTN_F32 || desc.lora_dtype == GTN_BF16 || desc.lora_dtype == GTN_F16);
    MUST(std::isfinite(desc.lora_scale));
    check_bytes(desc.lora_dtype, {desc.a.shape[1], desc.rank});
    check_bytes(desc.lora_dtype, {desc.rank, desc.out.shape[1]});
  } else {
    MUST(desc.lora_dtype == 0 && desc.lora_scale == 0);
  }
  MUST(desc.format != GTN_S8 || static_cast<__int128>(desc.a.shape[1]) * 255 * 127 <= INT32_MAX);
  check_activation(desc.activation);
  check_flag(desc.has_bias);
  check_flag(desc.has_residual);
}

uint32_t masks_of(const gtn_attention_desc& desc) {
  uint32_t masks = 0;
  for (int64_t i = 0; i < desc.pattern_count; ++i) masks |= desc.patterns[i].masks;
  return masks;
}

// One of the numbers of heads that an array may be for.
void check_heads(int64_t heads, int64_t heads_q, int64_t heads_k) {
  MUST(heads == 1 || heads == heads_q || heads == heads_k);
}

void check(const gtn_attention_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(std::isfinite(desc.scale) && std::isfinite(desc.softcap) && desc.softcap >= 0 && std::isfinite(desc.self_bias));
  for (int32_t flag : {desc.paged, desc.has_sink_logits, desc.has_slopes, desc.has_bias}) check_flag(flag);
  const int rank = desc.q.rank;
  MUST(rank == 3 || rank == 4);
  const int rank_k = desc.paged ? 4 : rank;
  check_type(desc.q, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.k, {GTN_F32, GTN_BF16, GTN_F16, GTN_S8});
  check_type(desc.v, {desc.k.dtype});
  check_type(desc.out, {GTN_F32, desc.q.dtype});
  check(desc.q, rank, true, false);
  check(desc.k, rank_k, true, false);
  check(desc.v, rank_k, true, false);
  check(desc.out, rank, true, true);
  if (rank == 4) MUST(desc.out.shape[0] == desc.q.shape[0] && (desc.paged || desc.k.shape[0] == desc.q.shape[0]));
  const int length = rank - 3, heads = rank - 2, size = rank - 1;
  for (int d = 0; d < rank_k - 1; ++d) MUST(desc.k.shape[d] == desc.v.shape[d]);
  MUST(desc.q.shape[length] == desc.out.shape[length] && desc.q.shape[heads] == desc.out.shape[heads]);
  const int64_t heads_q = desc.q.shape[heads], heads_k = desc.k.shape[rank_k - 2];
  MUST(desc.q.shape[size] == desc.k.shape[rank_k - 1] && desc.v.shape[rank_k - 1] == desc.out.shape[size]);
  MUST(heads_q >= 1 && heads_k >= 1 && heads_q % heads_k == 0);
  MUST(desc.q.shape[size] >= 1 && desc.v.shape[rank_k - 1] >= 1);
  MUST(rank == 4 || desc.max_sequences >= 0);
  const int64_t sequences = rank == 4 ? desc.q.shape[0] : desc.max_sequences;
  const int64_t len_q = desc.q.shape[length], len_k = desc.paged ? desc.max_len_k : desc.k.shape[length];
  if (desc.paged) {
    MUST(desc.k.shape[1] >= 1 && desc.max_len_k >= 0);
    check_bytes(GTN_S32, {sequences, len_k / desc.k.shape[1]});
  }
  MUST(desc.pattern_count == 1 || desc.pattern_count == heads_q);
  for (int64_t i = 0; i < desc.pattern_count; ++i) {
    const gtn_attention_pattern& pattern = desc.patterns[i];
    MUST(pattern.size == sizeof pattern && pattern.masks < 2 * GTN_MASK_BLOCKS);
    MUST(pattern.window_left >= -1 && pattern.window_right >= -1 && pattern.dilation >= 1 && pattern.sinks >= 0);
  }
  if (desc.has_bias) {
    check_type(desc.bias, {GTN_F32, desc.q.dtype});
    check(desc.bias, 4, false, false);
    const int64_t* bias = desc.bias.shape;
    MUST(bias[0] <= sequences && bias[1] == heads_q && bias[2] <= len_q && bias[3] <= len_k);
  }
  const int64_t each = rank == 4 ? sequences : 1, each_k = rank == 4 || desc.paged ? sequences : 1;
  const uint32_t masks = masks_of(desc);
  if (masks & GTN_MASK_PREFIX) check_bytes(GTN_S64, {sequences});
  if (masks & GTN_MASK_GLOBALS) {
    MUST(desc.max_globals >= 1);
    check_bytes(GTN_S32, {sequences, desc.max_globals});
  }
  if (masks & GTN_MASK_TREE) {
    MUST(desc.max_tree >= 1);
    check_bytes(GTN_U8, {sequences, desc.max_tree, desc.max_tree});
  }
  if (masks & GTN_MASK_DOCUMENTS) {
    MUST(desc.document_layers >= 1);
    check_heads(desc.document_heads, heads_q, heads_k);
    check_bytes(GTN_S32, {each, desc.document_layers, desc.document_heads, len_q});
    check_bytes(GTN_S32, {each_k, desc.document_layers, desc.document_heads, len_k});
  }
  if (masks & GTN_MASK_BLOCKS) {
    MUST(desc.block_q >= 1 && desc.block_k >= 1 && desc.max_blocks >= 0 && desc.max_block_masks >= 0);
    check_heads(desc.block_heads, heads_q, heads_k);
    check_flag(desc.has_block_bias);
    check_bytes(GTN_S64, {sequences, desc.block_heads, len_q / desc.block_q});
    check_bytes(GTN_S32, {desc.max_blocks});
    if (desc.max_block_masks > 0) check_bytes(GTN_U8, {desc.max_block_masks, desc.block_q, desc.block_k});
  }
  if (desc.order_heads != 0) {
    check_heads(desc.order_heads, heads_q, heads_k);
    check_bytes(GTN_S32, {each, desc.order_heads, len_q});
    check_bytes(GTN_S32, {each_k, desc.order_heads, len_k});
  }
}

void check(const gtn_norm_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.kind == GTN_NORM_LAYER || desc.kind == GTN_NORM_RMS);
  check_type(desc.x, {GTN_F32, GTN_BF16});
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_U8});
  check(desc.x, 2, true, false);
  check(desc.out, 2, true, true);
  MUST(desc.x.shape[0] == desc.out.shape[0] && desc.x.shape[1] == desc.out.shape[1]);
  if (desc.out.dtype == GTN_U8) check_bytes(GTN_S32, {desc.x.shape[0]});
  MUST(desc.x.shape[1] >= 1);
  MUST(std::isfinite(desc.epsilon) && desc.epsilon >= 0);
  check_flag(desc.has_residual);
  check_flag(desc.has_beta);
  check_flag(desc.has_sum);
  MUST(desc.kind == GTN_NORM_LAYER || desc.has_beta == 0);
  if (desc.has_sum) check(desc.x, 2, true, true);
}

void check(const gtn_softmax_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(std::isfinite(desc.scale));
  check_rows(desc.x, desc.out);
}

void check(const gtn_activation_desc& desc) {
  MUST(desc.size >= sizeof desc);
  check_activation(desc.activation);
  check_flag(desc.has_bias);
  check_rows(desc.x, desc.out);
}

void check(const gtn_glu_desc& desc) {
  MUST(desc.size >= sizeof desc);
  check_activation(desc.activation);
  check_type(desc.gate, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.x, {desc.gate.dtype});
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_F16});
  check(desc.gate, 2, true, false);
  check(desc.x, 2, true, false);
  check(desc.out, 2, true, true);
  for (int d = 0; d < 2; ++d) MUST(desc.gate.shape[d] == desc.x.shape[d] && desc.gate.shape[d] == desc.out.shape[d]);
}

void check(const gtn_merge_desc& desc) {
  MUST(desc.size >= sizeof desc);
  check_flag(desc.has_sink_logits);
  check_type(desc.x, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.x_lse, {GTN_F32});
  check_type(desc.lse, {GTN_F32});
  check(desc.x, 5, true, false);
  check(desc.x_lse, 4, false, false);
  check(desc.out, 4, true, true);
  check(desc.lse, 3, false, true);
  const int64_t *x = desc.x.shape, *x_lse = desc.x_lse.shape, *out = desc.out.shape, *lse = desc.lse.shape;
  MUST(x[3] >= 1 && x[4] >= 1);
  MUST(x_lse[0] == x[0] && x_lse[1] == x[1] && x_lse[2] == x[3] && x_lse[3] == x[2]);
  MUST(out[0] == x[1] && out[1] == x[2] && out[2] == x[3] && out[3] == x[4]);
  MUST(lse[0] == x[1] && lse[1] == x[3] && lse[2] == x[2]);
}

void check(const gtn_select_desc& desc) {
  MUST(desc.size >= sizeof desc);
  const bool blocks = desc.kind == GTN_SELECT_BLOCKS, lsh = desc.kind == GTN_SELECT_LSH;
  const bool retrieval = desc.kind == GTN_SELECT_RETRIEVAL;
  MUST(blocks || lsh || retrieval);
  check_type(desc.q, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.k, {desc.q.dtype});
  MUST(desc.q.rank == 3 || desc.q.rank == 4);
  check(desc.q, desc.q.rank, true, false);
  check(desc.k, desc.q.rank, true, false);
  const int length = desc.q.rank - 3;
  const int64_t *q = desc.q.shape, *k = desc.k.shape;
  MUST(length == 1 ? q[0] == k[0] : desc.max_sequences >= 0);
  MUST(q[length + 2] >= 1 && q[length + 2] == k[length + 2]);
  MUST(k[length + 1] >= 1 && q[length + 1] >= 1 && q[length + 1] % k[length + 1] == 0);
  MUST(desc.heads == q[length + 1] || (blocks && desc.heads == k[length + 1]));
  MUST(desc.block_q >= 1 && desc.block_k >= 1 && (!retrieval || (desc.block_q == 1 && desc.block_k == 1)));
  MUST(desc.count >= 1 && desc.first >= 0 && desc.first <= desc.count);
  MUST(desc.local >= 0 && desc.local <= desc.count - desc.first && (!lsh || (desc.first == 0 && desc.local == 0)));
  check_flag(desc.causal);
  MUST(blocks ? desc.pool == GTN_POOL_MEAN || desc.pool == GTN_POOL_BOUNDS : desc.pool == 0);
  MUST(blocks ? std::isfinite(desc.scale) : desc.scale == 0);
  MUST(blocks ? desc.buckets == 0 && desc.layers == 0 && desc.seed == 0 : desc.buckets >= 2 && desc.buckets <= 65536);
  MUST(!lsh || (desc.buckets % 2 == 0 && desc.layers >= 1 && desc.layers <= 64));
  MUST(!retrieval || ((desc.buckets & (desc.buckets - 1)) == 0 && desc.layers >= 2 && desc.layers <= 1024));
}

void check(const gtn_rope_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.style == GTN_ROPE_HALVES || desc.style == GTN_ROPE_INTERLEAVED);
  for (int32_t flag : {desc.has_q, desc.has_k, desc.has_v}) check_flag(flag);
  MUST(desc.has_q || desc.has_k);
  const gtn_tensor_desc& first = desc.has_q ? desc.q : desc.k;
  MUST(desc.rotary >= 0 && desc.rotary % 2 == 0 && desc.rotary <= first.shape[2]);
  MUST(desc.max_position >= 1);
  check_bytes(GTN_F32, {desc.max_position, desc.rotary});
  check_bytes(GTN_S64, {first.shape[0]});
  if (desc.has_q) {
    check_type(desc.q, {GTN_F32, GTN_BF16, GTN_F16});
    check_type(desc.q_out, {GTN_F32, GTN_BF16, GTN_F16});
    check(desc.q, 3, true, false);
    check(desc.q_out, 3, true, true);
    MUST(std::equal(desc.q.shape, desc.q.shape + 3, desc.q_out.shape));
    MUST(desc.q.shape[1] >= 1 && desc.q.shape[2] >= 1);
  }
  const auto check_stored = [&](const gtn_tensor_desc& tensor, const gtn_tensor_desc& cache) {
    check_type(tensor, {GTN_F32, GTN_BF16, GTN_F16});
    check_type(cache, {GTN_F32, GTN_BF16, GTN_F16, GTN_S8});
    check(tensor, 3, true, false);
    check(cache, 4, true, true);
    MUST(tensor.shape[0] == first.shape[0] && tensor.shape[1] >= 1 && tensor.shape[2] >= 1);
    MUST(cache.shape[1] >= 1 && cache.shape[2] == tensor.shape[1] && cache.shape[3] == tensor.shape[2]);
    check_bytes(GTN_F32, {cache.shape[0], cache.shape[1], cache.shape[2]});
  };
  if (desc.has_k) {
    check_stored(desc.k, desc.k_cache);
    MUST(desc.k.shape[2] == first.shape[2]);
  }
  if (desc.has_v) check_stored(desc.v, desc.v_cache);
  if (desc.has_k && desc.has_v) {
    MUST(desc.v.dtype == desc.k.dtype && desc.v_cache.dtype == desc.k_cache.dtype);
    MUST(desc.v.shape[1] == desc.k.shape[1]);
    MUST(desc.v_cache.shape[0] == desc.k_cache.shape[0] && desc.v_cache.shape[1] == desc.k_cache.shape[1]);
  }
}

void check(const gtn_route_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.kind == GTN_ROUTE_SOFTMAX || desc.kind == GTN_ROUTE_SIGMOID);
  check_type(desc.x, {GTN_F32, GTN_BF16, GTN_F16});
  check(desc.x, 2, true, false);
  const int64_t experts = desc.x.shape[1];
  MUST(experts >= 1 && experts <= 65536 && desc.top >= 1 && desc.top <= experts);
  MUST(desc.groups >= 0 && desc.groups <= experts);
  if (desc.groups == 0) {
    MUST(desc.top_groups == 0);
  } else {
    MUST(experts % desc.groups == 0 && desc.top_groups >= 1 && desc.top_groups <= desc.groups);
    MUST(desc.top <= experts / desc.groups * desc.top_groups);
  }
  check_flag(desc.has_bias);
  check_flag(desc.normalize);
  MUST(std::isfinite(desc.scale));
}

void check(const gtn_mix_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.gate >= GTN_GATE_NONE && desc.gate <= GTN_GATE_TANH);
  check_flag(desc.has_residual);
  check_flag(desc.has_row_index);
  check_type(desc.x, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.gates, {GTN_F32});
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_F16});
  const int rank = desc.has_row_index ? 3 : 4;
  check(desc.x, rank, true, false);
  check(desc.gates, 3, false, false);
  check(desc.out, 3, true, true);
  const int64_t *x = desc.x.shape, *gates = desc.gates.shape, *out = desc.out.shape;
  MUST(gates[0] == out[0] && gates[2] == out[1] && out[1] >= 1 && out[2] >= 1);
  MUST(x[rank - 2] == out[1] && x[rank - 1] == out[2]);
  if (!desc.has_row_index) MUST(x[0] == gates[1] && x[1] == out[0]);
  check_bytes(GTN_S32, {gates[0], gates[1]});
}

// Windows over x, of a convolution or a pooling: kernels multiply and add their sizes, so all must stay within 63 bits.
template <typename Desc>
void check_windows(const Desc& desc) {
  MUST(desc.x.rank >= 3 && desc.x.rank <= 5);
  check(desc.x, desc.x.rank, false, false);
  check(desc.out, desc.x.rank, false, true);
  MUST(desc.x.shape[0] == desc.out.shape[0] && desc.x.shape[1] >= 1);
  for (int d = 0; d < GTN_CONV_MAX_RANK; ++d) {
    if (d >= desc.x.rank - 2) {
      MUST(desc.kernel[d] == 0 && desc.stride[d] == 0 && desc.dilation[d] == 0);
      MUST(desc.pad_before[d] == 0 && desc.pad_after[d] == 0);
      continue;
    }
    MUST(desc.kernel[d] >= 1 && desc.stride[d] >= 1 && desc.dilation[d] >= 1);
    MUST(desc.pad_before[d] >= 0 && desc.pad_after[d] >= 0);
    const __int128 padded = static_cast<__int128>(desc.x.shape[2 + d]) + desc.pad_before[d] + desc.pad_after[d];
    const __int128 reach = static_cast<__int128>(desc.kernel[d] - 1) * desc.dilation[d] + 1;
    MUST(padded <= INT64_MAX && reach <= INT64_MAX);
    MUST(desc.out.shape[2 + d] == (padded < reach ? 0 : (padded - reach) / desc.stride[d] + 1));
  }
}

void check(const gtn_conv_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.format == GTN_F32 || desc.format == GTN_BF16);
  check_type(desc.x, {GTN_F32, GTN_BF16});
  check_type(desc.out, {GTN_F32, GTN_BF16});
  check_windows(desc);
  MUST(desc.out.shape[1] >= 1);
  MUST(desc.groups >= 1 && desc.x.shape[1] % desc.groups == 0 && desc.out.shape[1] % desc.groups == 0);
  check_bytes(GTN_F32, {desc.out.shape[1], desc.x.shape[1] / desc.groups, desc.kernel[0], desc.kernel[1], desc.kernel[2]});
  check_activation(desc.activation);
  check_flag(desc.has_bias);
  check_flag(desc.has_residual);
  MUST(desc.residual_first == 0 || (desc.residual_first == 1 && desc.has_residual == 1));
}

void check(const gtn_pooling_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.kind == GTN_POOLING_MAX || desc.kind == GTN_POOLING_AVERAGE);
  check_type(desc.x, {GTN_F32, GTN_BF16, GTN_F16});
  check_type(desc.out, {GTN_F32, GTN_BF16, GTN_F16});
  check_windows(desc);
  MUST(desc.x.shape[1] == desc.out.shape[1]);
  check_bytes(GTN_F32, {desc.kernel[0], desc.kernel[1], desc.kernel[2]});
  check_flag(desc.count_padding);
  MUST(desc.count_padding == 0 || desc.kind == GTN_POOLING_AVERAGE);
}

void check(const gtn_fake_quantize_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.granularity == GTN_SCALE_OF_TENSOR || desc.granularity == GTN_SCALE_OF_ROW || desc.granularity == GTN_SCALE_OF_COLUMN);
  MUST(desc.least >= -128 && desc.least < desc.most && desc.most <= (desc.least < 0 ? 127 : 255));
  check_rows(desc.x, desc.out);
  check_flag(desc.has_zero_points);
  check_flag(desc.gradient);
}

// ---- Memory of a run

// An operand: a tensor, with the shape that this run uses, at an address.
struct Operand {
  const void* at;
  gtn_tensor_desc tensor;

  bool is_small() const { return elements(tensor) <= kMostElements && extent(tensor) <= kMostElements * 8; }
  bool is_empty() const { return elements(tensor) == 0; }
  // Strides of dimensions of at most one index do not matter.
  bool has_layout_of(const Operand& other) const {
    if (tensor.dtype != other.tensor.dtype || tensor.rank != other.tensor.rank) return false;
    for (int d = 0; d < tensor.rank; ++d) {
      if (tensor.shape[d] > 1 && tensor.strides[d] != other.tensor.strides[d]) return false;
    }
    return true;
  }
};

Operand dense(const void* at, int32_t dtype, int64_t count) {
  return {at, {sizeof(gtn_tensor_desc), dtype, 1, 0, {count}, {1}}};
}

// `tensor` with other counts in its first dimensions.
Operand part(const void* at, gtn_tensor_desc tensor, int64_t first) {
  tensor.shape[0] = first;
  return {at, tensor};
}

Operand part(const void* at, gtn_tensor_desc tensor, int64_t first, int64_t second) {
  tensor.shape[1] = second;
  return part(at, tensor, first);
}

// The addresses of an operand's elements, in order.
std::vector<uintptr_t> addresses(const Operand& operand) {
  std::vector<uintptr_t> all;
  for (int64_t offset : offsets(operand.tensor)) {
    const int64_t bytes = offset * bytes_of(operand.tensor.dtype);
    all.push_back(reinterpret_cast<uintptr_t>(operand.at) + static_cast<uintptr_t>(bytes));
  }
  std::sort(all.begin(), all.end());
  return all;
}

void check_memory(const Device& device, const Operand& operand) {
  if (operand.at == nullptr || operand.is_empty()) return;
  MUST(reinterpret_cast<uintptr_t>(operand.at) % static_cast<uintptr_t>(bytes_of(operand.tensor.dtype)) == 0);
  if (!operand.is_small()) return;
  const char* first = static_cast<const char*>(operand.at);
  auto block = device.blocks.upper_bound(const_cast<char*>(first));
  MUST(block != device.blocks.begin());
  --block;
  MUST(first - block->first + static_cast<int64_t>(extent(operand.tensor)) <= block->second);
}

void check_apart(const Operand& output, const Operand& other) {
  if (other.at == nullptr || output.at == nullptr || !output.is_small() || !other.is_small()) return;
  const std::vector<uintptr_t> written = addresses(output);
  const uintptr_t own = static_cast<uintptr_t>(bytes_of(output.tensor.dtype));
  const uintptr_t others = static_cast<uintptr_t>(bytes_of(other.tensor.dtype));
  for (uintptr_t element : addresses(other)) {
    const auto next = std::upper_bound(written.begin(), written.end(), element - own);
    MUST(next == written.end() || *next >= element + others);
  }
}

void check_apart_or_equal(const Operand& output, const Operand& other) {
  if (output.at == other.at && output.has_layout_of(other)) return;
  check_apart(output, other);
}

// An array without gaps that is there exactly when it is wanted; where it would be empty, either will do.
Operand array(const void* at, bool wanted, int32_t dtype, std::initializer_list<int64_t> sizes) {
  __int128 count = std::find(sizes.begin(), sizes.end(), 0) == sizes.end() ? 1 : 0;
  for (int64_t size : sizes) count = std::min<__int128>(count * size, INT64_MAX);
  MUST(at == nullptr ? !wanted || count == 0 : wanted);
  return dense(at, dtype, static_cast<int64_t>(count));
}

void check_run(const Plan& plan, const gtn_gemm_args& args) {
  const gtn_gemm_desc& desc = plan.gemm;
  const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
  const Weights& weights = as<Weights>(args.weights, Kind::kWeights);
  MUST(weights.device == plan.device);
  MUST(weights.rank == 0 && weights.group_size == desc.group_size);
  MUST(weights.format == desc.format && weights.k == k && weights.n == n && weights.groups == desc.groups);
  MUST(args.rows >= 1 && args.rows <= desc.out.shape[0] && n > 0);
  MUST(args.rows_a >= 0 && args.rows_a <= desc.a.shape[0]);
  MUST(desc.has_row_index == 1 || args.rows_a == args.rows);
  MUST((args.a != nullptr || k == 0 || args.rows_a == 0) && args.out != nullptr);
  MUST((args.bias != nullptr) == (desc.has_bias == 1) && (args.residual != nullptr) == (desc.has_residual == 1));
  const Operand a = part(args.a, desc.a, args.rows_a), out = part(args.out, desc.out, args.rows);
  const int32_t lora = desc.rank > 0 ? desc.lora_dtype : GTN_F32;
  const Operand residual = part(args.residual, desc.out, args.rows);
  for (const Operand& input :
       {a, array(args.bias, desc.has_bias == 1, GTN_F32, {std::max<int64_t>(desc.groups, 1), n}),
        array(args.group_offsets, desc.groups > 0, GTN_S64, {desc.groups + 1}),
        array(args.row_index, desc.has_row_index == 1, GTN_S32, {args.rows}),
        array(args.lora_a, desc.rank > 0, lora, {k, desc.rank}), array(args.lora_b, desc.rank > 0, lora, {desc.rank, n})}) {
    check_memory(*plan.device, input);
    check_apart(out, input);
  }
  for (const Operand& operand : {out, residual}) check_memory(*plan.device, operand);
  check_apart_or_equal(out, residual);
  const bool quantized = desc.a.dtype == GTN_U8;
  for (const Operand& input : {array(args.scales, quantized, GTN_F32, {args.rows_a}),
                               array(args.zero_points, quantized, GTN_S32, {args.rows_a})}) {
    check_memory(*plan.device, input);
    check_apart(out, input);
  }
}

int64_t blocks_of(int64_t length, int64_t block) { return length == 0 ? 0 : (length - 1) / block + 1; }

void check_run(const Plan& plan, const gtn_attention_args& args) {
  const gtn_attention_desc& desc = plan.attention;
  const bool packed = desc.q.rank == 3, paged = desc.paged == 1, scaled = desc.k.dtype == GTN_S8;
  const int length = packed ? 0 : 1;
  const int64_t sequences = args.sequences, heads_q = desc.q.shape[length + 1], lq = desc.q.shape[length];
  const int64_t lk = paged ? desc.max_len_k : desc.k.shape[length], heads_k = desc.k.shape[desc.k.rank - 2];
  MUST(sequences >= 1 && sequences <= (packed ? desc.max_sequences : desc.q.shape[0]));
  MUST(args.len_q >= 1 && args.len_q <= lq);
  MUST(args.len_k >= 0 && args.len_k <= lk);
  MUST(!packed || args.q_index != nullptr);
  MUST(!(packed || paged) || args.k_index != nullptr);
  MUST(args.q != nullptr && args.out != nullptr);
  MUST(args.len_k == 0 || (args.k != nullptr && args.v != nullptr));
  if (desc.has_bias) {
    MUST(sequences <= desc.bias.shape[0]);
    MUST(args.q_index != nullptr || args.len_q <= desc.bias.shape[2]);
    MUST(args.k_index != nullptr || args.len_k <= desc.bias.shape[3]);
  }
  MUST((plan.masks & GTN_MASK_TREE) == 0 || args.q_index != nullptr || args.len_q <= desc.max_tree);
  const auto used = [&](const void* at, const gtn_tensor_desc& tensor, int64_t rows) {
    return packed ? part(at, tensor, rows) : part(at, tensor, sequences, rows);
  };
  const Operand q = used(args.q, desc.q, args.len_q), out = used(args.out, desc.out, args.len_q);
  const Operand k = paged ? Operand{args.k, desc.k} : used(args.k, desc.k, args.len_k);
  const Operand v = paged ? Operand{args.v, desc.v} : used(args.v, desc.v, args.len_k);
  const Operand lse = array(args.lse, args.lse != nullptr, GTN_F32, {packed ? 1 : sequences, heads_q, lq});
  const int64_t each = packed ? 1 : sequences, each_k = packed && !paged ? 1 : sequences;
  const bool documents = plan.masks & GTN_MASK_DOCUMENTS, blocks = plan.masks & GTN_MASK_BLOCKS;
  const bool masked = blocks && desc.max_block_masks > 0, biased = blocks && desc.has_block_bias;
  const bool ordered = desc.order_heads > 0;
  const int64_t page = paged ? desc.k.shape[1] : 1, rows = paged ? desc.k.shape[0] : lk, scales = paged ? 1 : each;
  // The offsets of so many sequences may be more than 63 bits of bytes, as only these and the log-sum-exps may.
  const int64_t one = sequences < INT64_MAX ? 1 : 0;
  const Operand inputs[] = {
      q, k, v,
      array(args.q_index, args.q_index != nullptr, GTN_S64, {packed ? sequences + one : sequences}),
      array(args.k_index, args.k_index != nullptr, GTN_S64, {packed && !paged ? sequences + one : sequences}),
      array(args.k_scales, scaled, GTN_F32, {scales, rows, page, heads_k}),
      array(args.v_scales, scaled, GTN_F32, {scales, rows, page, heads_k}),
      array(args.block_table, paged, GTN_S32, {sequences, blocks_of(lk, page)}),
      array(args.sink_logits, desc.has_sink_logits, GTN_F32, {heads_q}),
      array(args.slopes, desc.has_slopes, GTN_F32, {heads_q}),
      array(args.prefixes, plan.masks & GTN_MASK_PREFIX, GTN_S64, {sequences}),
      array(args.globals, plan.masks & GTN_MASK_GLOBALS, GTN_S32, {sequences, desc.max_globals}),
      array(args.q_documents, documents, GTN_S32, {each, desc.document_layers, desc.document_heads, lq}),
      array(args.k_documents, documents, GTN_S32, {each_k, desc.document_layers, desc.document_heads, lk}),
      array(args.tree, plan.masks & GTN_MASK_TREE, GTN_U8, {sequences, desc.max_tree, desc.max_tree}),
      array(args.block_offsets, blocks, GTN_S64,
            {blocks ? sequences * desc.block_heads * blocks_of(lq, desc.block_q) + 1 : 0}),
      array(args.block_columns, blocks, GTN_S32, {desc.max_blocks}),
      array(args.block_mask_index, masked, GTN_S32, {desc.max_blocks}),
      array(args.block_masks, masked, GTN_U8, {desc.max_block_masks, desc.block_q, desc.block_k}),
      array(args.block_bias, biased, GTN_F32, {desc.max_blocks}),
      array(args.q_order, ordered, GTN_S32, {each, desc.order_heads, lq}),
      array(args.k_order, ordered, GTN_S32, {each_k, desc.order_heads, lk}),
  };
  check_memory(*plan.device, out);
  check_memory(*plan.device, lse);
  for (const Operand& input : inputs) {
    check_memory(*plan.device, input);
    check_apart(out, input);
    check_apart(lse, input);
  }
  check_apart(out, lse);
  MUST(args.bias == nullptr ? desc.has_bias == 0 || elements(desc.bias) == 0 : desc.has_bias == 1);
  if (desc.has_bias) {
    const Operand bias = part(args.bias, desc.bias, sequences);
    check_memory(*plan.device, bias);
    check_apart(out, bias);
    check_apart(lse, bias);
  }
}

void check_run(const Plan& plan, const gtn_select_args& args) {
  const gtn_select_desc& desc = plan.select;
  const bool packed = desc.q.rank == 3, lsh = desc.kind == GTN_SELECT_LSH;
  const int length = packed ? 0 : 1;
  const int64_t sequences = args.sequences, heads_q = desc.q.shape[length + 1];
  const int64_t lq = desc.q.shape[length], lk = desc.k.shape[length], blocks = blocks_of(lq, desc.block_q);
  MUST(sequences >= 0 && sequences <= (packed ? desc.max_sequences : desc.q.shape[0]));
  MUST(args.len_q >= 0 && args.len_q <= lq && args.len_k >= 0 && args.len_k <= lk);
  MUST(!packed || (args.q_index != nullptr && args.k_index != nullptr));
  const int64_t some = sequences > 0, one = sequences < INT64_MAX, each = packed ? some : sequences;
  const auto used = [&](const void* at, const gtn_tensor_desc& tensor, int64_t rows) {
    MUST(at != nullptr || some == 0 || rows == 0);
    return packed ? part(at, tensor, some * rows) : part(at, tensor, sequences, rows);
  };
  const Operand inputs[] = {
      used(args.q, desc.q, args.len_q), used(args.k, desc.k, args.len_k),
      array(args.q_index, args.q_index != nullptr, GTN_S64, {packed ? sequences + one : sequences}),
      array(args.k_index, args.k_index != nullptr, GTN_S64, {packed ? sequences + one : sequences}),
  };
  const bool biased = desc.kind == GTN_SELECT_RETRIEVAL;
  const Operand outputs[] = {
      array(args.block_offsets, true, GTN_S64, {sequences * desc.heads * blocks + 1}),
      array(args.block_columns, true, GTN_S32, {sequences, desc.heads, blocks, desc.count}),
      array(args.block_bias, biased, GTN_F32, {sequences, desc.heads, blocks, desc.count}),
      array(args.q_order, lsh, GTN_S32, {each, heads_q, lq}),
      array(args.k_order, lsh, GTN_S32, {each, heads_q, lk}),
      array(args.q_documents, lsh, GTN_S32, {each, desc.layers, heads_q, lq}),
      array(args.k_documents, lsh, GTN_S32, {each, desc.layers, heads_q, lk}),
  };
  for (const Operand& input : inputs) check_memory(*plan.device, input);
  for (const Operand& output : outputs) {
    check_memory(*plan.device, output);
    for (const Operand& input : inputs) check_apart(output, input);
    for (const Operand* other = outputs; other != &output; ++other) check_apart(output, *other);
  }
}

void check_run(const Plan& plan, const gtn_norm_args& args) {
  const gtn_norm_desc& desc = plan.norm;
  const int64_t n = desc.x.shape[1];
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0]);
  MUST(args.x != nullptr && args.gamma != nullptr && args.out != nullptr);
  MUST((args.residual != nullptr) == (desc.has_residual == 1));
  MUST((args.beta != nullptr) == (desc.has_beta == 1));
  MUST((args.sum != nullptr) == (desc.has_sum == 1));
  const Operand x = part(args.x, desc.x, args.rows), residual = part(args.residual, desc.x, args.rows);
  const Operand out = part(args.out, desc.out, args.rows), sum = part(args.sum, desc.x, args.rows);
  const Operand gamma = dense(args.gamma, GTN_F32, n), beta = dense(args.beta, GTN_F32, n);
  for (const Operand& operand : {x, residual, out, sum, gamma, beta}) check_memory(*plan.device, operand);
  for (const Operand& output : {out, sum}) {
    check_apart_or_equal(output, x);
    check_apart_or_equal(output, residual);
    check_apart(output, gamma);
    check_apart(output, beta);
  }
  check_apart(out, sum);
  const bool quantized = desc.out.dtype == GTN_U8;
  MUST((args.scales != nullptr) == quantized && (args.zero_points != nullptr) == quantized);
  if (!quantized) return;
  const Operand scales = dense(args.scales, GTN_F32, args.rows), zeros = dense(args.zero_points, GTN_S32, args.rows);
  for (const Operand& output : {scales, zeros}) {
    check_memory(*plan.device, output);
    for (const Operand& operand : {x, residual, out, sum, gamma, beta}) check_apart(output, operand);
  }
  check_apart(scales, zeros);
}

void check_run(const Plan& plan, const gtn_softmax_args& args) {
  const gtn_softmax_desc& desc = plan.softmax;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.x != nullptr && args.out != nullptr);
  const Operand x = part(args.x, desc.x, args.rows), out = part(args.out, desc.out, args.rows);
  check_memory(*plan.device, x);
  check_memory(*plan.device, out);
  check_apart_or_equal(out, x);
}

void check_run(const Plan& plan, const gtn_activation_args& args) {
  const gtn_activation_desc& desc = plan.activation;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.x != nullptr && args.out != nullptr && (args.bias != nullptr) == (desc.has_bias == 1));
  const Operand x = part(args.x, desc.x, args.rows), out = part(args.out, desc.out, args.rows);
  const Operand bias = dense(args.bias, GTN_F32, desc.x.shape[1]);
  for (const Operand& operand : {x, out, bias}) check_memory(*plan.device, operand);
  check_apart_or_equal(out, x);
  check_apart(out, bias);
}

void check_run(const Plan& plan, const gtn_glu_args& args) {
  const gtn_glu_desc& desc = plan.glu;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.gate != nullptr && args.x != nullptr && args.out != nullptr);
  const Operand out = part(args.out, desc.out, args.rows);
  check_memory(*plan.device, out);
  for (const Operand& input : {part(args.gate, desc.gate, args.rows), part(args.x, desc.x, args.rows)}) {
    check_memory(*plan.device, input);
    check_apart_or_equal(out, input);
  }
  MUST(desc.gate.dtype == desc.out.dtype || (args.out != args.gate && args.out != args.x));
}

void check_run(const Plan& plan, const gtn_conv_args& args) {
  const gtn_conv_desc& desc = plan.conv;
  const Weights& weights = as<Weights>(args.weights, Kind::kWeights);
  MUST(weights.device == plan.device);
  MUST(weights.format == desc.format && weights.rank == desc.x.rank && weights.groups == desc.groups);
  MUST(weights.shape[0] == desc.out.shape[1] && weights.shape[1] == desc.x.shape[1] / desc.groups);
  for (int d = 0; d < desc.x.rank - 2; ++d) MUST(weights.shape[2 + d] == desc.kernel[d]);
  MUST(args.batch >= 1 && args.batch <= desc.x.shape[0]);
  const Operand x = part(args.x, desc.x, args.batch), out = part(args.out, desc.out, args.batch);
  MUST(!out.is_empty() && args.out != nullptr && (args.x != nullptr || x.is_empty()));
  MUST((args.bias != nullptr) == (desc.has_bias == 1) && (args.residual != nullptr) == (desc.has_residual == 1));
  const Operand residual = part(args.residual, desc.out, args.batch), bias = dense(args.bias, GTN_F32, desc.out.shape[1]);
  for (const Operand& operand : {x, out, bias, residual}) check_memory(*plan.device, operand);
  check_apart(out, x);
  check_apart(out, bias);
  check_apart_or_equal(out, residual);
}

void check_run(const Plan& plan, const gtn_pooling_args& args) {
  const gtn_pooling_desc& desc = plan.pooling;
  MUST(args.batch >= 1 && args.batch <= desc.x.shape[0]);
  const Operand x = part(args.x, desc.x, args.batch), out = part(args.out, desc.out, args.batch);
  MUST(!out.is_empty() && args.out != nullptr && (args.x != nullptr || x.is_empty()));
  for (const Operand& operand : {x, out}) check_memory(*plan.device, operand);
  check_apart(out, x);
}

void check_run(const Plan& plan, const gtn_fake_quantize_args& args) {
  const gtn_fake_quantize_desc& desc = plan.fake_quantize;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.x != nullptr && args.out != nullptr && args.scales != nullptr);
  MUST((args.zero_points != nullptr) == (desc.has_zero_points == 1) && (args.gradient != nullptr) == (desc.gradient == 1));
  const int64_t grids = desc.granularity == GTN_SCALE_OF_TENSOR ? 1 : desc.granularity == GTN_SCALE_OF_ROW ? args.rows : desc.x.shape[1];
  const Operand x = part(args.x, desc.x, args.rows), out = part(args.out, desc.out, args.rows);
  const Operand gradient = part(args.gradient, desc.out, args.rows);
  const Operand scales = dense(args.scales, GTN_F32, grids), zero_points = dense(args.zero_points, GTN_S32, grids);
  for (const Operand& operand : {x, out, gradient, scales, zero_points}) check_memory(*plan.device, operand);
  check_apart_or_equal(out, x);
  check_apart_or_equal(out, gradient);
  check_apart(out, scales);
  check_apart(out, zero_points);
}

void check_run(const Plan& plan, const gtn_merge_args& args) {
  const gtn_merge_desc& desc = plan.merge;
  const int64_t heads = desc.x.shape[3];
  MUST(args.parts >= 0 && args.parts <= desc.x.shape[0]);
  MUST(args.batch >= 1 && args.batch <= desc.x.shape[1] && args.length >= 1 && args.length <= desc.x.shape[2]);
  MUST(args.parts == 0 || (args.x != nullptr && args.x_lse != nullptr));
  MUST(args.out != nullptr);
  const auto with = [](const void* at, gtn_tensor_desc tensor, std::initializer_list<int64_t> sizes) {
    std::copy(sizes.begin(), sizes.end(), tensor.shape);
    return Operand{at, tensor};
  };
  const Operand x = with(args.x, desc.x, {args.parts, args.batch, args.length});
  const Operand x_lse = with(args.x_lse, desc.x_lse, {args.parts, args.batch, heads, args.length});
  const Operand out = with(args.out, desc.out, {args.batch, args.length});
  const Operand lse = with(args.lse, desc.lse, {args.batch, heads, args.length});
  const Operand sink = array(args.sink_logits, desc.has_sink_logits, GTN_F32, {heads});
  for (const Operand& operand : {x, x_lse, out, lse, sink}) check_memory(*plan.device, operand);
  // The first part, and the others behind it.
  const auto check_parts = [&](const Operand& output, const Operand& input) {
    if (input.is_empty() || input.at == nullptr) return;
    gtn_tensor_desc first = input.tensor, others = input.tensor;
    first.rank = output.tensor.rank;
    for (int d = 0; d < first.rank; ++d) {
      first.shape[d] = input.tensor.shape[d + 1];
      first.strides[d] = input.tensor.strides[d + 1];
    }
    --others.shape[0];
    check_apart_or_equal(output, {input.at, first});
    const int64_t step = others.shape[0] == 0 ? 0 : input.tensor.strides[0] * bytes_of(others.dtype);
    check_apart(output, {static_cast<const char*>(input.at) + step, others});
  };
  check_parts(out, x);
  check_parts(lse, x_lse);
  check_apart(out, x_lse);
  check_apart(lse, x);
  check_apart(out, sink);
  check_apart(lse, sink);
  check_apart(out, lse);
}

void check_run(const Plan& plan, const gtn_rope_args& args) {
  const gtn_rope_desc& desc = plan.rope;
  const gtn_tensor_desc& first = desc.has_q ? desc.q : desc.k;
  const gtn_tensor_desc& cache = desc.has_k ? desc.k_cache : desc.v_cache;
  const bool stores = desc.has_k || desc.has_v;
  MUST(args.tokens >= 1 && args.tokens <= first.shape[0]);
  MUST(stores || args.slots == nullptr);
  MUST(!stores || args.slots != nullptr || args.tokens <= cache.shape[0] * cache.shape[1]);
  // What a plan does not have has no description either.
  const auto tensor = [&](const void* at, int32_t wanted, gtn_tensor_desc of, bool tokens) {
    if (!wanted) of = dense(nullptr, GTN_F32, 0).tensor;
    if (wanted && tokens) of.shape[0] = args.tokens;
    MUST(at == nullptr ? !wanted || elements(of) == 0 : wanted);
    return Operand{at, of};
  };
  const auto scales = [&](const void* at, int32_t wanted, const gtn_tensor_desc& of) {
    const bool scaled = wanted && of.dtype == GTN_S8;
    if (!scaled) return array(at, false, GTN_F32, {0});
    return array(at, true, GTN_F32, {of.shape[0], of.shape[1], of.shape[2]});
  };
  const Operand outputs[] = {tensor(args.q_out, desc.has_q, desc.q_out, true),
                             tensor(args.k_cache, desc.has_k, desc.k_cache, false),
                             tensor(args.v_cache, desc.has_v, desc.v_cache, false),
                             scales(args.k_scales, desc.has_k, desc.k_cache),
                             scales(args.v_scales, desc.has_v, desc.v_cache)};
  const Operand inputs[] = {tensor(args.q, desc.has_q, desc.q, true),
                            tensor(args.k, desc.has_k, desc.k, true),
                            tensor(args.v, desc.has_v, desc.v, true),
                            array(args.positions, true, GTN_S64, {args.tokens}),
                            array(args.table, true, GTN_F32, {desc.max_position, desc.rotary}),
                            array(args.slots, args.slots != nullptr, GTN_S64, {args.tokens})};
  for (const Operand& input : inputs) check_memory(*plan.device, input);
  for (const Operand& output : outputs) {
    check_memory(*plan.device, output);
    for (const Operand& input : inputs) {
      if (&output == outputs && &input == inputs) {
        check_apart_or_equal(output, input);
      } else {
        check_apart(output, input);
      }
    }
    for (const Operand* other = outputs; other != &output; ++other) check_apart(output, *other);
  }
}

void check_run(const Plan& plan, const gtn_route_args& args) {
  const gtn_route_desc& desc = plan.route;
  const int64_t experts = desc.x.shape[1];
  MUST(args.tokens >= 0 && args.tokens <= desc.x.shape[0] && args.tokens <= INT32_MAX / desc.top);
  MUST(args.tokens == 0 || args.x != nullptr);
  const auto choices = [&](const void* at, int32_t dtype) { return array(at, true, dtype, {args.tokens, desc.top}); };
  const Operand outputs[] = {choices(args.experts, GTN_S32), choices(args.weights, GTN_F32),
                             array(args.offsets, true, GTN_S64, {experts + 1}), choices(args.rows, GTN_S32),
                             choices(args.slots, GTN_S32)};
  const Operand inputs[] = {part(args.x, desc.x, args.tokens), array(args.bias, desc.has_bias, GTN_F32, {experts})};
  for (const Operand& input : inputs) check_memory(*plan.device, input);
  for (const Operand& output : outputs) {
    check_memory(*plan.device, output);
    for (const Operand& input : inputs) check_apart(output, input);
    for (const Operand* other = outputs; other != &output; ++other) check_apart(output, *other);
  }
}

void check_run(const Plan& plan, const gtn_mix_args& args) {
  const gtn_mix_desc& desc = plan.mix;
  const int64_t parts = desc.gates.shape[1];
  MUST(args.tokens >= 1 && args.tokens <= desc.out.shape[0] && args.out != nullptr);
  MUST(args.rows_x >= 0 && args.rows_x <= (desc.has_row_index ? desc.x.shape[0] : 0));
  const Operand x =
      desc.has_row_index ? part(args.x, desc.x, args.rows_x) : part(args.x, desc.x, parts, args.tokens);
  const Operand gates = part(args.gates, desc.gates, args.tokens), out = part(args.out, desc.out, args.tokens);
  const Operand residual = part(args.residual, desc.out, args.tokens);
  const Operand row_index = array(args.row_index, desc.has_row_index, GTN_S32, {args.tokens, parts});
  MUST((args.x != nullptr || x.is_empty()) && (args.gates != nullptr || parts == 0));
  MUST((args.residual != nullptr) == (desc.has_residual == 1));
  for (const Operand& operand : {x, gates, row_index, residual, out}) check_memory(*plan.device, operand);
  check_apart(out, x);
  check_apart(out, gates);
  check_apart(out, row_index);
  check_apart_or_equal(out, residual);
}

// ---- The table

gtn_status device_count(int32_t* count, gtn_message* message) {
  check(message);
  *count = 2;
  return GTN_OK;
}

gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  check(message);
  MUST(index >= 0 && index < 2);
  MUST(info->size == sizeof *info);
  std::snprintf(info->name, sizeof info->name, index == 0 ? "checking" : "checking:%d", index);
  info->memory_bytes = -1;
  return GTN_OK;
}

gtn_status device_open(const char* selector, const gtn_device_options* options, void** device, gtn_message* message) {
  check(message);
  MUST(selector != nullptr && std::strlen(selector) < 64);
  MUST(options != nullptr && options->size >= sizeof *options && options->threads >= 0);
  if (std::strcmp(selector, "gone") == 0) return GTN_DEVICE_LOST;
  Device* opened = new Device();
  opened->kind = Kind::kDevice;
  *device = opened;
  return GTN_OK;
}

void device_close(void* device) {
  Device& self = as<Device>(device, Kind::kDevice);
  MUST(self.objects == 0 && self.blocks.empty());
  delete &self;
}

gtn_status device_describe(void* device, gtn_device_info* info, gtn_message* message) {
  as<Device>(device, Kind::kDevice);
  return device_info(0, info, message);
}

gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  check(message);
  MUST(bytes >= 1);
  MUST(alignment >= 64 && alignment <= (2 << 20) && (alignment & (alignment - 1)) == 0);
  if (bytes > (1 << 20)) return GTN_OUT_OF_MEMORY;
  if (posix_memalign(memory, static_cast<size_t>(alignment), static_cast<size_t>(bytes)) != 0) return GTN_OUT_OF_MEMORY;
  as<Device>(device, Kind::kDevice).blocks[static_cast<char*>(*memory)] = bytes;
  return GTN_OK;
}

void memory_free(void* device, void* memory, int64_t bytes) {
  std::map<char*, int64_t>& blocks = as<Device>(device, Kind::kDevice).blocks;
  const auto block = blocks.find(static_cast<char*>(memory));
  MUST(block != blocks.end() && block->second == bytes);
  blocks.erase(block);
  std::free(memory);
}

// A stream while a call is inside it.
class Entered {
 public:
  explicit Entered(void* stream) : stream_(as<Stream>(stream, Kind::kStream)) { MUST(!stream_.inside.exchange(true)); }
  ~Entered() { stream_.inside = false; }
  Stream* operator->() { return &stream_; }

 private:
  Stream& stream_;
};

gtn_status memory_copy(void* stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                       gtn_message* message) {
  Entered entered(stream);
  check(message);
  MUST(bytes >= 1 && destination != nullptr && source != nullptr);
  MUST(direction >= GTN_HOST_TO_DEVICE && direction <= GTN_DEVICE_TO_DEVICE);
  std::memcpy(destination, source, static_cast<size_t>(bytes));  // the address sanitizer knows whether they overlap
  return GTN_OK;
}

gtn_status stream_create(void* device, void** stream, gtn_message* message) {
  check(message);
  *stream = made<Stream>(Kind::kStream, as<Device>(device, Kind::kDevice));
  return GTN_OK;
}

void stream_destroy(void* stream) {
  MUST(!as<Stream>(stream, Kind::kStream).inside);
  destroyed<Stream>(stream, Kind::kStream);
}

gtn_status stream_synchronize(void* stream, gtn_message* message) {
  Entered entered(stream);
  check(message);
  return GTN_OK;
}

gtn_status event_create(void* device, void** event, gtn_message* message) {
  check(message);
  *event = made<Event>(Kind::kEvent, as<Device>(device, Kind::kDevice));
  return GTN_OK;
}

void event_destroy(void* event) { destroyed<Event>(event, Kind::kEvent); }

gtn_status event_record(void* event, void* stream, gtn_message* message) {
  Entered entered(stream);
  check(message);
  Event& self = as<Event>(event, Kind::kEvent);
  MUST(self.device == entered->device);
  self.recorded = true;
  return GTN_OK;
}

gtn_status event_synchronize(void* event, gtn_message* message) {
  check(message);
  MUST(as<Event>(event, Kind::kEvent).recorded);
  return GTN_OK;
}

gtn_status event_query(void* event, int32_t* done, gtn_message* message) {
  MUST(done != nullptr);
  *done = 1;
  return event_synchronize(event, message);
}

gtn_status event_elapsed(void* start, void* end, double* milliseconds, gtn_message* message) {
  MUST(milliseconds != nullptr);
  MUST(as<Event>(start, Kind::kEvent).device == as<Event>(end, Kind::kEvent).device);
  *milliseconds = 0;
  event_synchronize(start, message);
  return event_synchronize(end, message);
}

gtn_status weights_pack(void* device, const gtn_weights_desc* desc, const void* source, void** weights,
                        gtn_weights_info* info, gtn_message* message) {
  check(message);
  MUST(desc->size >= sizeof *desc && info->size == sizeof *info);
  check_format(desc->format, desc->group_size);
  const bool quantized = desc->group_size > 0;
  MUST(desc->symmetric == 0 || (quantized && desc->symmetric == 1));
  MUST(desc->quantize == GTN_QUANTIZE_NEAREST ||
       (quantized && (desc->quantize == GTN_QUANTIZE_SEARCH || desc->quantize == GTN_QUANTIZE_FIT)));
  check_type(desc->source, {GTN_F32, GTN_BF16, GTN_F16});
  const int row = desc->source.rank - 2;
  MUST(row == 0 || row == 1);
  check(desc->source, desc->source.rank, false, false);
  MUST(row == 0 || desc->source.shape[0] >= 1);
  MUST(source != nullptr || elements(desc->source) == 0);
  MUST(reinterpret_cast<uintptr_t>(source) % static_cast<uintptr_t>(bytes_of(desc->source.dtype)) == 0);
  Weights* packed = made<Weights>(Kind::kWeights, as<Device>(device, Kind::kDevice));
  packed->format = desc->format;
  packed->group_size = desc->group_size;
  packed->groups = row == 1 ? desc->source.shape[0] : 0;
  packed->k = desc->source.shape[row];
  packed->n = desc->source.shape[row + 1];
  *weights = packed;
  return GTN_OK;
}

gtn_status weights_pack_quantized(void* device, const gtn_quantized_desc* desc, const void* integers, const float* scales,
                                  const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message) {
  check(message);
  MUST(desc->size >= sizeof *desc && info->size == sizeof *info);
  const bool f8 = desc->format == GTN_F8E4M3 || desc->format == GTN_F8E5M2;
  MUST(desc->format == GTN_U4 || desc->format == GTN_U8 || f8);
  check_format(desc->format, desc->group_size);
  MUST(desc->groups >= 0 && desc->k >= 0 && desc->n >= 0);
  const int64_t size = !f8 ? desc->group_size : desc->k > 0 ? desc->k : 1;
  const int64_t blocks = desc->k / size + (desc->k % size != 0 ? 1 : 0);
  check_bytes(GTN_S8, {desc->groups, desc->n, blocks, size});
  MUST(!f8 || zero_points == nullptr);
  MUST((integers != nullptr && scales != nullptr) || desc->k == 0 || desc->n == 0);
  MUST(reinterpret_cast<uintptr_t>(scales) % 4 == 0);
  Weights* packed = made<Weights>(Kind::kWeights, as<Device>(device, Kind::kDevice));
  packed->format = desc->format;
  packed->group_size = desc->group_size;
  packed->groups = desc->groups;
  packed->k = desc->k;
  packed->n = desc->n;
  *weights = packed;
  return GTN_OK;
}

gtn_status conv_weights_pack(void* device, const gtn_conv_weights_desc* desc, const void* source, const float* gamma,
                             const float* beta, const float* mean, const float* variance, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  check(message);
  MUST(desc->size >= sizeof *desc && info->size == sizeof *info);
  MUST(desc->format == GTN_F32 || desc->format == GTN_BF16);
  const gtn_tensor_desc& from = desc->source;
  check_type(from, {GTN_F32, GTN_BF16});
  MUST(from.rank >= 3 && from.rank <= 5 && elements(from) >= 1);
  check(from, from.rank, false, false);
  MUST(desc->groups >= 1 && from.shape[0] % desc->groups == 0);
  check_flag(desc->has_norm);
  MUST(std::isfinite(desc->epsilon) && desc->epsilon >= 0 && (desc->has_norm == 1 || desc->epsilon == 0));
  MUST(source != nullptr && reinterpret_cast<uintptr_t>(source) % static_cast<uintptr_t>(bytes_of(from.dtype)) == 0);
  for (const float* array : {gamma, beta, mean, variance}) {
    MUST((array != nullptr) == (desc->has_norm == 1) && reinterpret_cast<uintptr_t>(array) % 4 == 0);
  }
  Weights* packed = made<Weights>(Kind::kWeights, as<Device>(device, Kind::kDevice));
  packed->format = desc->format;
  packed->groups = desc->groups;
  packed->rank = from.rank;
  std::copy_n(from.shape, from.rank, packed->shape);
  *weights = packed;
  return GTN_OK;
}

void weights_destroy(void* weights) { destroyed<Weights>(weights, Kind::kWeights); }

template <typename Desc>
gtn_status keep(Desc& kept, const void* desc) {
  const Desc& given = *static_cast<const Desc*>(desc);
  check(given);
  kept = given;
  return GTN_OK;
}

gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                       gtn_message* message) {
  check(message);
  MUST(info->size == sizeof *info && info->op == op);
  Plan* created = made<Plan>(Kind::kPlan, as<Device>(device, Kind::kDevice));
  created->op = op;
  *plan = created;
  switch (op) {
    case GTN_OP_GEMM:
      return keep(created->gemm, desc);
    case GTN_OP_ATTENTION:
      created->masks = masks_of(*static_cast<const gtn_attention_desc*>(desc));
      return keep(created->attention, desc);
    case GTN_OP_NORM:
      return keep(created->norm, desc);
    case GTN_OP_SOFTMAX:
      return keep(created->softmax, desc);
    case GTN_OP_ACTIVATION:
      return keep(created->activation, desc);
    case GTN_OP_MERGE:
      return keep(created->merge, desc);
    case GTN_OP_ROPE:
      return keep(created->rope, desc);
    case GTN_OP_ROUTE:
      return keep(created->route, desc);
    case GTN_OP_GLU:
      return keep(created->glu, desc);
    case GTN_OP_MIX:
      return keep(created->mix, desc);
    case GTN_OP_SELECT:
      return keep(created->select, desc);
    case GTN_OP_CONV:
      return keep(created->conv, desc);
    case GTN_OP_POOLING:
      return keep(created->pooling, desc);
    case GTN_OP_FAKE_QUANTIZE:
      return keep(created->fake_quantize, desc);
    default:
      MUST(!"an operator");
      return GTN_INTERNAL;
  }
}

void plan_destroy(void* plan) { destroyed<Plan>(plan, Kind::kPlan); }

gtn_status run(void* plan, void* stream, const void* args, gtn_message* message) {
  Entered entered(stream);
  check(message);
  const Plan& self = as<Plan>(plan, Kind::kPlan);
  MUST(self.device == entered->device);
  switch (self.op) {
    case GTN_OP_GEMM:
      check_run(self, *static_cast<const gtn_gemm_args*>(args));
      break;
    case GTN_OP_ATTENTION:
      check_run(self, *static_cast<const gtn_attention_args*>(args));
      break;
    case GTN_OP_NORM:
      check_run(self, *static_cast<const gtn_norm_args*>(args));
      break;
    case GTN_OP_SOFTMAX:
      check_run(self, *static_cast<const gtn_softmax_args*>(args));
      break;
    case GTN_OP_ACTIVATION:
      check_run(self, *static_cast<const gtn_activation_args*>(args));
      break;
    case GTN_OP_MERGE:
      check_run(self, *static_cast<const gtn_merge_args*>(args));
      break;
    case GTN_OP_ROUTE:
      check_run(self, *static_cast<const gtn_route_args*>(args));
      break;
    case GTN_OP_GLU:
      check_run(self, *static_cast<const gtn_glu_args*>(args));
      break;
    case GTN_OP_MIX:
      check_run(self, *static_cast<const gtn_mix_args*>(args));
      break;
    case GTN_OP_SELECT:
      check_run(self, *static_cast<const gtn_select_args*>(args));
      break;
    case GTN_OP_CONV:
      check_run(self, *static_cast<const gtn_conv_args*>(args));
      break;
    case GTN_OP_POOLING:
      check_run(self, *static_cast<const gtn_pooling_args*>(args));
      break;
    case GTN_OP_FAKE_QUANTIZE:
      check_run(self, *static_cast<const gtn_fake_quantize_args*>(args));
      break;
    default:
      check_run(self, *static_cast<const gtn_rope_args*>(args));
  }
  return GTN_OK;
}

gtn_status supports(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message) {
  check(message);
  as<Device>(device, Kind::kDevice);
  MUST(op >= GTN_OP_GEMM && op <= GTN_OP_FAKE_QUANTIZE && dtype >= GTN_F32 && dtype <= GTN_BF16_2OF4 && claimed != nullptr);
  *claimed = 1;
  return GTN_OK;
}

gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  check(message);
  as<Device>(device, Kind::kDevice);
  MUST(limit >= GTN_LIMIT_F32 && limit <= GTN_LIMIT_EXP && per_second != nullptr);
  *per_second = 1;
  return GTN_OK;
}

const gtn_backend kTable = {
    sizeof(gtn_backend), GTN_BACKEND_ABI_VERSION, "checking", "1",
    device_count, device_info, device_open, device_close, device_describe,
    memory_alloc, memory_free, memory_copy,
    stream_create, stream_destroy, stream_synchronize,
    event_create, event_destroy, event_record, event_synchronize, event_query, event_elapsed,
    weights_pack, weights_destroy,
    plan_create, plan_destroy, run,
    supports, measure,
    weights_pack_quantized,
    conv_weights_pack,
    memory_alloc, memory_free,  // of the host
};

}  // namespace
}  // namespace gatun::fuzz

extern "C" const gtn_backend* gtn_backend_entry(void) { return &gatun::fuzz::kTable; }
