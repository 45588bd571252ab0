// What the fuzzers share: devices, numbers near where mistakes are made, and small descriptions that are right.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>
#include <gatun/gatun.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/must.h"

namespace gatun::fuzz {

using Input = FuzzedDataProvider;

inline gtn_message empty_message() { return {sizeof(gtn_message), ""}; }

// A failure must be one of the statuses, and say something.
inline void check_failure(gtn_status status, const gtn_message& message) {
  MUST(status > GTN_OK && status < GTN_INTERNAL);
  MUST(message.text[0] != '\0' && std::memchr(message.text, '\0', sizeof message.text) != nullptr);
}

// Opens a device, "checking" or "cpu:scalar", whose backend is loaded for that.
inline gtn_device open_device(const std::string& name, int32_t threads = 1) {
  const std::string backend = name.substr(0, name.find(':'));
  gtn_message message = empty_message();
  const std::string directory = GATUN_FUZZ_LIBRARIES + std::string(backend == "checking" ? "/fuzz" : "");
  if (gtn_backend_load((directory + "/libgatun_" + backend + ".so").c_str(), 1, &message) != GTN_OK) {
    std::fprintf(stderr, "%s\n", message.text);
    std::abort();
  }
  const gtn_device_options options = {sizeof options, threads};
  gtn_device device = 0;
  MUST(gtn_device_open(name.c_str(), &options, &device, &message) == GTN_OK);
  return device;
}

// A number: small, a power of two or beside one, the negative of either, or anything.
inline int64_t any_number(Input& input) {
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return input.ConsumeIntegralInRange<int64_t>(-2, 20);
    case 1: {
      const int64_t power = int64_t{1} << input.ConsumeIntegralInRange(0, 62);
      return power + input.ConsumeIntegralInRange(-1, 1);
    }
    case 2: {
      const int64_t power = int64_t{1} << input.ConsumeIntegralInRange(0, 62);
      return input.ConsumeBool() ? -power : INT64_MAX - (power - 1);
    }
    default:
      return input.ConsumeIntegral<int64_t>();
  }
}

template <typename T>
T one_of(Input& input, std::initializer_list<T> values) {
  return values.begin()[input.ConsumeIntegralInRange<size_t>(0, values.size() - 1)];
}

inline int32_t any_float(Input& input) { return one_of(input, {GTN_F32, GTN_BF16}); }

// Of packed weights.
inline int32_t any_format(Input& input) {
  return one_of<int32_t>(input, {GTN_F32, GTN_BF16, GTN_F16, GTN_S8, GTN_U4, GTN_U8, GTN_F8E4M3, GTN_F8E5M2, GTN_BF16_2OF4});
}

inline bool is_f8(int32_t format) { return format == GTN_F8E4M3 || format == GTN_F8E5M2; }

inline bool is_quantized(int32_t format) { return format == GTN_U4 || format == GTN_U8; }

inline int64_t any_group_size(Input& input, int32_t format) {
  return is_quantized(format) ? one_of<int64_t>(input, {32, 64, 128}) : 0;
}

inline int32_t any_float_or_half(Input& input) { return one_of(input, {GTN_F32, GTN_BF16, GTN_F16}); }

// A description of any operator.
struct Description {
  int32_t op;
  gtn_attention_pattern patterns[4];  // of attention, whose description points to them once it lies still
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

  size_t bytes() const {
    switch (op) {
      case GTN_OP_GEMM:
        return sizeof gemm;
      case GTN_OP_ATTENTION:
        return sizeof attention;
      case GTN_OP_NORM:
        return sizeof norm;
      case GTN_OP_SOFTMAX:
        return sizeof softmax;
      case GTN_OP_ACTIVATION:
        return sizeof activation;
      case GTN_OP_MERGE:
        return sizeof merge;
      case GTN_OP_ROUTE:
        return sizeof route;
      case GTN_OP_MIX:
        return sizeof mix;
      case GTN_OP_GLU:
        return sizeof glu;
      case GTN_OP_SELECT:
        return sizeof select;
      case GTN_OP_CONV:
        return sizeof conv;
      case GTN_OP_POOLING:
        return sizeof pooling;
      case GTN_OP_FAKE_QUANTIZE:
        return sizeof fake_quantize;
      default:
        return sizeof rope;
    }
  }
};

inline gtn_status make_plan(gtn_device device, int32_t op, const void* desc, gtn_plan* plan, gtn_message* message) {
  switch (op) {
    case GTN_OP_GEMM:
      return gtn_gemm_plan(device, static_cast<const gtn_gemm_desc*>(desc), plan, message);
    case GTN_OP_ATTENTION:
      return gtn_attention_plan(device, static_cast<const gtn_attention_desc*>(desc), plan, message);
    case GTN_OP_NORM:
      return gtn_norm_plan(device, static_cast<const gtn_norm_desc*>(desc), plan, message);
    case GTN_OP_SOFTMAX:
      return gtn_softmax_plan(device, static_cast<const gtn_softmax_desc*>(desc), plan, message);
    case GTN_OP_ACTIVATION:
      return gtn_activation_plan(device, static_cast<const gtn_activation_desc*>(desc), plan, message);
    case GTN_OP_MERGE:
      return gtn_merge_plan(device, static_cast<const gtn_merge_desc*>(desc), plan, message);
    case GTN_OP_ROUTE:
      return gtn_route_plan(device, static_cast<const gtn_route_desc*>(desc), plan, message);
    case GTN_OP_GLU:
      return gtn_glu_plan(device, static_cast<const gtn_glu_desc*>(desc), plan, message);
    case GTN_OP_MIX:
      return gtn_mix_plan(device, static_cast<const gtn_mix_desc*>(desc), plan, message);
    case GTN_OP_SELECT:
      return gtn_select_plan(device, static_cast<const gtn_select_desc*>(desc), plan, message);
    case GTN_OP_CONV:
      return gtn_conv_plan(device, static_cast<const gtn_conv_desc*>(desc), plan, message);
    case GTN_OP_POOLING:
      return gtn_pooling_plan(device, static_cast<const gtn_pooling_desc*>(desc), plan, message);
    case GTN_OP_FAKE_QUANTIZE:
      return gtn_fake_quantize_plan(device, static_cast<const gtn_fake_quantize_desc*>(desc), plan, message);
    default:
      return gtn_rope_plan(device, static_cast<const gtn_rope_desc*>(desc), plan, message);
  }
}

// A matrix with room between its rows; one that is only read may also have rows that share memory.
inline gtn_tensor_desc matrix(Input& input, int32_t dtype, int64_t rows, int64_t n, bool output) {
  const int64_t stride = input.ConsumeIntegralInRange<int64_t>(output || input.ConsumeBool() ? n : 0, n + 3);
  return {sizeof(gtn_tensor_desc), dtype, 2, 0, {rows, n}, {stride, 1}};
}

// A dense tensor whose dimensions but the last lie in any order in memory.
inline gtn_tensor_desc heads(Input& input, int32_t dtype, const std::vector<int64_t>& shape) {
  gtn_tensor_desc tensor = {sizeof tensor, dtype, static_cast<int32_t>(shape.size()), 0, {}, {}};
  std::vector<size_t> order(shape.size() - 1);
  for (size_t d = 0; d < order.size(); ++d) order[d] = d;
  for (size_t d = 0; d + 1 < order.size(); ++d) {
    std::swap(order[d], order[input.ConsumeIntegralInRange(d, order.size() - 1)]);
  }
  int64_t stride = shape.back();
  for (size_t d : order) {
    tensor.strides[d] = stride + input.ConsumeIntegralInRange<int64_t>(0, 2);
    stride = tensor.strides[d] * (shape[d] > 0 ? shape[d] : 1);
  }
  for (size_t d = 0; d < shape.size(); ++d) tensor.shape[d] = shape[d];
  tensor.strides[shape.size() - 1] = 1;
  return tensor;
}

// A tensor whose dimensions lie in any order in memory.
inline gtn_tensor_desc image(Input& input, int32_t dtype, std::vector<int64_t> shape) {
  shape.push_back(1);
  gtn_tensor_desc tensor = heads(input, dtype, shape);
  --tensor.rank;
  return tensor;
}

// No tensor of a small description takes more than this.
constexpr int64_t kMostBytes = 8192;

// Attention with any of its parts.
inline void small_attention(Input& input, Description& made) {
  const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
  const auto flag = [&] { return input.ConsumeIntegralInRange(0, 1); };
  const int64_t len_q = count(0, 5), len_k = count(0, 5), heads_k = count(1, 2), heads_q = heads_k * count(1, 2);
  const int64_t dk = count(1, 5), dv = count(1, 5);
  const auto some_heads = [&] { return one_of(input, {int64_t{1}, heads_k, heads_q}); };
  const int64_t batch = count(-1, 3);
  const auto tensor = [&](int32_t dtype, std::vector<int64_t> shape, int64_t leading) {
    if (leading >= 0) shape.insert(shape.begin(), leading);
    return heads(input, dtype, shape);
  };
  gtn_attention_desc& desc = made.attention;
  desc.size = sizeof desc;
  desc.scale = 0.5f;
  desc.max_sequences = count(0, 4);
  // Mostly attention alone, since each part narrows what is looked at.
  const bool parts = input.ConsumeBool();
  const int32_t from = any_float_or_half(input);
  const int32_t kv = one_of<int32_t>(input, {from, from, GTN_F32, GTN_BF16, GTN_F16, GTN_S8});
  if (parts) desc.paged = flag();
  const int64_t rows = desc.paged ? count(1, 3) : len_k, leading = desc.paged ? count(1, 4) : batch;
  desc.q = tensor(from, {len_q, heads_q, dk}, batch);
  desc.k = tensor(kv, {rows, heads_k, dk}, leading);
  desc.v = tensor(kv, {rows, heads_k, dv}, leading);
  desc.out = tensor(one_of<int32_t>(input, {from, GTN_F32}), {len_q, heads_q, dv}, batch);
  desc.max_len_k = count(0, 7);
  desc.pattern_count = parts && input.ConsumeBool() ? heads_q : 1;
  for (gtn_attention_pattern& pattern : made.patterns) {
    const auto limit = [&] { return input.ConsumeIntegralInRange(0, 7) == 0 ? INT64_MAX : count(-1, 3); };
    pattern = {sizeof pattern, 0, limit(), limit(), 1, 0};
    if (!parts) continue;
    pattern.masks = input.ConsumeIntegralInRange<uint32_t>(0, 31);
    pattern.dilation = input.ConsumeIntegralInRange(0, 7) == 0 ? INT64_MAX : count(1, 3);
    pattern.sinks = input.ConsumeIntegralInRange(0, 7) == 0 ? INT64_MAX : count(0, 3);
  }
  if (!parts) return;
  desc.softcap = one_of(input, {0.0f, 20.0f});
  desc.self_bias = one_of(input, {0.0f, -5.0f});
  desc.has_sink_logits = flag();
  desc.has_slopes = flag();
  desc.has_bias = flag();
  if (desc.has_bias) {
    const int64_t sequences = desc.q.rank == 3 ? desc.max_sequences : batch, keys = desc.paged ? desc.max_len_k : len_k;
    desc.bias = heads(input, one_of<int32_t>(input, {from, GTN_F32}),
                      {count(0, sequences), heads_q, count(0, len_q), count(0, keys)});
    for (int64_t& stride : desc.bias.strides) {
      if (input.ConsumeIntegralInRange(0, 3) == 0) stride = 0;
    }
  }
  desc.max_globals = count(1, 3);
  desc.max_tree = count(1, 6);
  desc.document_heads = some_heads();
  desc.document_layers = count(1, 2);
  desc.block_q = count(1, 4);
  desc.block_k = count(1, 4);
  desc.block_heads = some_heads();
  desc.max_blocks = count(0, 6);
  desc.max_block_masks = count(0, 2);
  desc.has_block_bias = flag();
  desc.order_heads = input.ConsumeBool() ? some_heads() : 0;
}

// The size of what windows make of x in spatial dimension d: Desc is that of a convolution, or of a pooling.
template <typename Desc>
int64_t size_of_windows(const Desc& desc, int d) {
  const __int128 padded = static_cast<__int128>(desc.x.shape[2 + d]) + desc.pad_before[d] + desc.pad_after[d];
  const __int128 reach = static_cast<__int128>(desc.dilation[d]) * (desc.kernel[d] - 1) + 1;
  return padded < reach ? 0 : static_cast<int64_t>(std::min<__int128>((padded - reach) / desc.stride[d] + 1, INT64_MAX));
}

// Windows over x in one to three dimensions, x and out: all but the strides of those two.
template <typename Desc>
void small_windows(Input& input, Desc& desc, int32_t x_dtype, int32_t out_dtype, int64_t x_channels, int64_t out_channels) {
  const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
  const int spatial = input.ConsumeIntegralInRange(1, GTN_CONV_MAX_RANK);
  // In three dimensions little is left of what a tensor may take.
  const int64_t batch = count(0, spatial < 3 ? 2 : 1), largest = 8 - 2 * spatial;
  std::vector<int64_t> x = {batch, x_channels}, out = {batch, out_channels};
  for (int d = 0; d < spatial; ++d) {
    x.push_back(count(0, largest));
    desc.x.shape[2 + d] = x.back();
    desc.kernel[d] = count(1, 3);
    desc.stride[d] = count(1, 3);
    desc.dilation[d] = count(1, 2);
    desc.pad_before[d] = count(0, 1);
    desc.pad_after[d] = count(0, 1);
    out.push_back(size_of_windows(desc, d));
  }
  desc.x = image(input, x_dtype, x);
  desc.out = image(input, out_dtype, out);
}

inline void small_conv(Input& input, gtn_conv_desc& desc) {
  const auto flag = [&] { return input.ConsumeIntegralInRange(0, 1); };
  desc.size = sizeof desc;
  desc.format = any_float(input);
  desc.groups = input.ConsumeIntegralInRange<int64_t>(1, 2);
  const int64_t x_channels = desc.groups << flag(), out_channels = desc.groups << flag();
  const int32_t from = any_float(input), to = any_float(input);
  small_windows(input, desc, from, to, x_channels, out_channels);
  desc.activation = input.ConsumeIntegralInRange<int32_t>(GTN_ACT_NONE, GTN_ACT_RELU);
  desc.has_bias = flag();
  desc.has_residual = flag();
  desc.residual_first = desc.has_residual ? flag() : 0;
}

inline void small_pooling(Input& input, gtn_pooling_desc& desc) {
  desc.size = sizeof desc;
  desc.kind = one_of<int32_t>(input, {GTN_POOLING_MAX, GTN_POOLING_AVERAGE});
  desc.count_padding = desc.kind == GTN_POOLING_AVERAGE ? input.ConsumeIntegralInRange(0, 1) : 0;
  const int64_t channels = input.ConsumeIntegralInRange<int64_t>(1, 4);
  const int32_t from = any_float_or_half(input), to = any_float_or_half(input);
  small_windows(input, desc, from, to, channels, channels);
}

// The masks of all patterns.
inline uint32_t masks_of(const Description& made) {
  uint32_t masks = 0;
  for (int64_t i = 0; i < made.attention.pattern_count; ++i) masks |= made.patterns[i].masks;
  return masks;
}

// A description that every check must let pass; the patterns of attention are not pointed to yet.
inline Description small_description(Input& input) {
  Description made = {};
  made.op = input.ConsumeIntegralInRange<int32_t>(GTN_OP_GEMM, GTN_OP_FAKE_QUANTIZE);
  const auto flag = [&] { return input.ConsumeIntegralInRange(0, 1); };
  const int64_t rows = input.ConsumeIntegralInRange<int64_t>(0, 6), n = input.ConsumeIntegralInRange<int64_t>(0, 9);
  const int32_t from = any_float(input), to = any_float(input);
  switch (made.op) {
    case GTN_OP_GEMM: {
      const int64_t k = input.ConsumeIntegralInRange<int64_t>(0, 9);
      const bool low_rank = input.ConsumeBool();
      const int64_t groups = low_rank ? 0 : input.ConsumeIntegralInRange<int64_t>(0, 3);
      const int32_t indexed = low_rank ? 0 : flag();
      const int64_t rows_a = indexed == 1 ? input.ConsumeIntegralInRange<int64_t>(0, 6) : rows;
      const int32_t format = any_format(input);
      made.gemm = {sizeof made.gemm, format, matrix(input, any_float_or_half(input), rows_a, k, false),
                   matrix(input, any_float_or_half(input), rows, n, true),
                   input.ConsumeIntegralInRange<int32_t>(GTN_ACT_NONE, GTN_ACT_RELU), flag(), flag(), indexed, groups,
                   low_rank ? input.ConsumeIntegralInRange<int64_t>(1, 9) : 0, low_rank ? any_float_or_half(input) : 0,
                   low_rank ? 0.5f : 0.0f, any_group_size(input, format)};
      if (format == GTN_S8 && !low_rank && input.ConsumeBool()) made.gemm.a.dtype = GTN_U8;
      break;
    }
    case GTN_OP_ATTENTION:
      small_attention(input, made);
      break;
    case GTN_OP_CONV:
      small_conv(input, made.conv);
      break;
    case GTN_OP_POOLING:
      small_pooling(input, made.pooling);
      break;
    case GTN_OP_FAKE_QUANTIZE: {
      const bool with_sign = input.ConsumeBool();
      made.fake_quantize = {sizeof made.fake_quantize,
                            one_of<int32_t>(input, {GTN_SCALE_OF_TENSOR, GTN_SCALE_OF_ROW, GTN_SCALE_OF_COLUMN}),
                            with_sign ? -128 : 0,
                            with_sign ? 127 : 255,
                            matrix(input, from, rows, n, false),
                            matrix(input, to, rows, n, true),
                            flag(),
                            flag()};
      break;
    }
    case GTN_OP_NORM: {
      const int32_t kind = one_of(input, {GTN_NORM_LAYER, GTN_NORM_RMS});
      const int32_t sum = flag();
      made.norm = {sizeof made.norm,
                   kind,
                   matrix(input, from, rows, n + 1, sum == 1),
                   matrix(input, input.ConsumeBool() ? to : GTN_U8, rows, n + 1, true),
                   1e-5f,
                   flag(),
                   kind == GTN_NORM_LAYER ? flag() : 0,
                   sum};
      break;
    }
    case GTN_OP_SOFTMAX:
      made.softmax = {sizeof made.softmax, 0.5f, matrix(input, from, rows, n, false), matrix(input, to, rows, n, true)};
      break;
    case GTN_OP_ACTIVATION:
      made.activation = {sizeof made.activation, input.ConsumeIntegralInRange<int32_t>(GTN_ACT_NONE, GTN_ACT_RELU),
                         matrix(input, from, rows, n, false), matrix(input, to, rows, n, true), flag(), 0};
      break;
    case GTN_OP_GLU: {
      const int32_t factors = any_float_or_half(input);
      made.glu = {sizeof made.glu, input.ConsumeIntegralInRange<int32_t>(GTN_ACT_NONE, GTN_ACT_RELU),
                  matrix(input, factors, rows, n, false), matrix(input, factors, rows, n, false),
                  matrix(input, any_float_or_half(input), rows, n, true)};
      break;
    }
    case GTN_OP_MERGE: {
      const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
      const int64_t parts = count(0, 3), batch = count(0, 3), length = count(0, 4), h = count(1, 3), dv = count(1, 5);
      made.merge = {sizeof made.merge, flag(), heads(input, any_float_or_half(input), {parts, batch, length, h, dv}),
                    heads(input, GTN_F32, {parts, batch, h, length}),
                    heads(input, any_float_or_half(input), {batch, length, h, dv}),
                    heads(input, GTN_F32, {batch, h, length})};
      if (input.ConsumeBool()) {
        // Laid out so that the first part may be the output.
        made.merge.out.dtype = made.merge.x.dtype;
        std::copy_n(made.merge.x.strides + 1, 4, made.merge.out.strides);
        std::copy_n(made.merge.x_lse.strides + 1, 3, made.merge.lse.strides);
      }
      if (input.ConsumeIntegralInRange(0, 3) == 0) made.merge.x.strides[0] = 0;
      break;
    }
    case GTN_OP_ROUTE: {
      const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
      const int64_t groups = count(0, 3), size = count(1, 4), experts = size * (groups > 0 ? groups : 1);
      const int64_t top_groups = groups > 0 ? count(1, groups) : 0;
      made.route = {sizeof made.route, one_of(input, {GTN_ROUTE_SOFTMAX, GTN_ROUTE_SIGMOID}),
                    matrix(input, any_float_or_half(input), rows, experts, false),
                    count(1, groups > 0 ? size * top_groups : experts), groups, top_groups, flag(), flag(),
                    one_of(input, {1.0f, -2.5f, 0.0f}), 0};
      break;
    }
    case GTN_OP_MIX: {
      const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
      const int64_t parts = count(0, 3), h = count(1, 3), size = count(1, 5), named = count(0, 4);
      gtn_mix_desc& desc = made.mix;
      desc.size = sizeof desc;
      desc.gate = one_of(input, {GTN_GATE_NONE, GTN_GATE_SIGMOID, GTN_GATE_TANH});
      desc.has_residual = flag();
      desc.has_row_index = flag();
      const int32_t dtype = any_float_or_half(input);
      desc.x = desc.has_row_index ? heads(input, dtype, {named, h, size}) : heads(input, dtype, {parts, rows, h, size});
      desc.gates = heads(input, GTN_F32, {rows, parts, h});
      for (int64_t& stride : desc.gates.strides) {
        if (input.ConsumeIntegralInRange(0, 3) == 0) stride = 0;
      }
      desc.out = heads(input, any_float_or_half(input), {rows, h, size});
      break;
    }
    case GTN_OP_SELECT: {
      const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
      gtn_select_desc& desc = made.select;
      desc.size = sizeof desc;
      desc.kind = one_of(input, {GTN_SELECT_BLOCKS, GTN_SELECT_LSH, GTN_SELECT_RETRIEVAL});
      const bool packed = input.ConsumeBool(), blocks = desc.kind == GTN_SELECT_BLOCKS;
      const int64_t batch = count(0, 2), len_q = count(0, 5), len_k = count(0, 6), group = count(1, 2), dk = count(1, 5);
      const int64_t heads_k = count(1, 2), heads_q = heads_k * group;
      const int32_t dtype = any_float_or_half(input);
      desc.q = packed ? heads(input, dtype, {len_q, heads_q, dk}) : heads(input, dtype, {batch, len_q, heads_q, dk});
      desc.k = packed ? heads(input, dtype, {len_k, heads_k, dk}) : heads(input, dtype, {batch, len_k, heads_k, dk});
      desc.max_sequences = batch;
      desc.heads = blocks && input.ConsumeBool() ? heads_k : heads_q;
      desc.block_q = desc.kind == GTN_SELECT_RETRIEVAL ? 1 : count(1, 3);
      desc.block_k = desc.kind == GTN_SELECT_RETRIEVAL ? 1 : count(1, 3);
      desc.count = count(1, 4);
      if (desc.kind != GTN_SELECT_LSH) {
        desc.first = count(0, desc.count);
        desc.local = count(0, desc.count - desc.first);
      }
      desc.causal = flag();
      if (blocks) {
        desc.pool = one_of(input, {GTN_POOL_MEAN, GTN_POOL_BOUNDS});
        desc.scale = 0.5f;
      } else {
        desc.buckets = one_of<int64_t>(input, {2, 4, 16});
        desc.layers = count(2, 4);
        desc.seed = input.ConsumeIntegral<uint8_t>();
      }
      break;
    }
    default: {
      const auto count = [&](int64_t least, int64_t most) { return input.ConsumeIntegralInRange(least, most); };
      const int64_t heads_k = count(1, 3), dk = count(1, 6), dv = count(1, 6), pages = count(0, 3), page = count(1, 4);
      const int32_t stored = any_float_or_half(input), cache = one_of(input, {GTN_F32, GTN_BF16, GTN_F16, GTN_S8});
      gtn_rope_desc& desc = made.rope;
      desc.size = sizeof desc;
      desc.style = one_of(input, {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED});
      desc.rotary = 2 * count(0, dk / 2);
      desc.max_position = count(1, 5);
      desc.has_q = flag();
      desc.has_k = desc.has_q == 0 ? 1 : flag();
      desc.has_v = flag();
      desc.q = heads(input, any_float_or_half(input), {rows, count(1, 3), dk});
      desc.q_out = heads(input, any_float_or_half(input), {rows, desc.q.shape[1], dk});
      if (input.ConsumeBool()) desc.q_out = desc.q;
      desc.k = heads(input, stored, {rows, heads_k, dk});
      desc.v = heads(input, stored, {rows, heads_k, dv});
      desc.k_cache = heads(input, cache, {pages, page, heads_k, dk});
      desc.v_cache = heads(input, cache, {pages, page, heads_k, dv});
    }
  }
  return made;
}

// A size of x, or one that says how windows go over it, and what follows from it for out.
template <typename Desc>
void enlarge_windows(Input& input, Desc& desc, int64_t large) {
  const int d = input.ConsumeIntegralInRange(0, desc.x.rank - 3);
  switch (input.ConsumeIntegralInRange(0, 2)) {
    case 0:
      desc.x.shape[0] = desc.out.shape[0] = large;
      return;
    case 1:
      desc.x.shape[2 + d] = large;
      break;
    default:
      one_of(input, {desc.kernel, desc.stride, desc.dilation, desc.pad_before, desc.pad_after})[d] = large;
  }
  desc.out.shape[2 + d] = size_of_windows(desc, d);
}

// Makes a dimension, the same in every tensor that has it, any number: so large, mostly, that no memory is described.
inline void make_large(Input& input, Description& made) {
  const int64_t number = any_number(input), large = number > 0 ? number : 8;
  const auto grow = [&](gtn_tensor_desc& tensor, int d) {
    tensor.shape[d] = large;
    if (d == 1 && tensor.rank == 2 && tensor.strides[0] < large) tensor.strides[0] = large;
  };
  const int d = input.ConsumeIntegralInRange(0, 1);
  switch (made.op) {
    case GTN_OP_GEMM:
      if (made.gemm.groups > 0 && input.ConsumeBool()) {
        made.gemm.groups = large;
        return;
      }
      if (d == 0 && (made.gemm.has_row_index == 0 || input.ConsumeBool())) grow(made.gemm.a, 0);
      if (d == 0 || input.ConsumeBool()) return grow(made.gemm.out, d);
      return grow(made.gemm.a, 1);
    case GTN_OP_ATTENTION: {
      // q and out, or k and v, have their length and heads in common; q and k, or v and out, their head size.
      gtn_attention_desc& desc = made.attention;
      desc.max_sequences = large;
      if (input.ConsumeBool()) {
        // Or a size of an array.
        *one_of(input, {&desc.max_len_k, &desc.max_globals, &desc.max_tree, &desc.document_layers, &desc.block_q,
                        &desc.block_k, &desc.max_blocks, &desc.max_block_masks}) = large;
        return;
      }
      const int dimension = input.ConsumeIntegralInRange(0, desc.q.rank - 1);
      const bool batch = desc.q.rank == 4 && dimension == 0, size = dimension == desc.q.rank - 1;
      const bool other = input.ConsumeBool();
      if (batch || !other) grow(desc.q, dimension);
      if (batch || other) grow(desc.v, dimension);
      if (batch || size != other) grow(desc.k, dimension);
      if (batch || size == other) grow(desc.out, dimension);
      return;
    }
    case GTN_OP_NORM:
      return grow(made.norm.x, d), grow(made.norm.out, d);
    case GTN_OP_SOFTMAX:
      return grow(made.softmax.x, d), grow(made.softmax.out, d);
    case GTN_OP_ACTIVATION:
      return grow(made.activation.x, d), grow(made.activation.out, d);
    case GTN_OP_GLU:
      return grow(made.glu.gate, d), grow(made.glu.x, d), grow(made.glu.out, d);
    case GTN_OP_MERGE: {
      // The dimensions of x, and where the others have them.
      constexpr int kOthers[5][3] = {{0, -1, -1}, {1, 0, 0}, {3, 1, 2}, {2, 2, 1}, {-1, 3, -1}};
      const int dimension = input.ConsumeIntegralInRange(0, 4);
      gtn_tensor_desc* others[] = {&made.merge.x_lse, &made.merge.out, &made.merge.lse};
      grow(made.merge.x, dimension);
      for (int i = 0; i < 3; ++i) {
        if (kOthers[dimension][i] >= 0) grow(*others[i], kOthers[dimension][i]);
      }
      return;
    }
    case GTN_OP_ROUTE:
      if (d == 0) return grow(made.route.x, 0);
      *one_of(input, {&made.route.top, &made.route.groups, &made.route.top_groups, &made.route.x.shape[1]}) = large;
      return;
    case GTN_OP_MIX: {
      gtn_mix_desc& desc = made.mix;
      const int first = desc.has_row_index ? 0 : 1;
      switch (input.ConsumeIntegralInRange(0, 3)) {
        case 0:
          grow(desc.gates, 0), grow(desc.out, 0);
          if (!desc.has_row_index) grow(desc.x, 1);
          return;
        case 1:
          grow(desc.gates, 1);
          if (!desc.has_row_index) grow(desc.x, 0);
          return;
        case 2:
          return grow(desc.gates, 2), grow(desc.out, 1), grow(desc.x, first + 1);
        default:
          return grow(desc.out, 2), grow(desc.x, first + 2);
      }
    }
    case GTN_OP_SELECT: {
      gtn_select_desc& desc = made.select;
      if (input.ConsumeBool()) {
        *one_of(input, {&desc.max_sequences, &desc.heads, &desc.block_q, &desc.block_k, &desc.count, &desc.first, &desc.local,
                        &desc.buckets, &desc.layers}) = large;
        return;
      }
      const int dimension = input.ConsumeIntegralInRange(0, desc.q.rank - 1);
      const bool both = (desc.q.rank == 4 && dimension == 0) || dimension == desc.q.rank - 1;
      if (both || input.ConsumeBool()) grow(desc.q, dimension);
      if (both || input.ConsumeBool()) grow(desc.k, dimension);
      return;
    }
    case GTN_OP_CONV:
      if (input.ConsumeIntegralInRange(0, 3) == 0) return grow(input.ConsumeBool() ? made.conv.x : made.conv.out, 1);
      return enlarge_windows(input, made.conv, large);
    case GTN_OP_POOLING:
      return enlarge_windows(input, made.pooling, large);
    default: {
      gtn_rope_desc& desc = made.rope;
      switch (input.ConsumeIntegralInRange(0, 4)) {
        case 0:
          desc.max_position = large;
          return;
        case 1:
          for (gtn_tensor_desc* tensor : {&desc.q, &desc.q_out, &desc.k, &desc.v}) grow(*tensor, 0);
          return;
        case 2:
          return grow(desc.q, 1), grow(desc.q_out, 1);
        case 3:
          return grow(desc.k, 1), grow(desc.v, 1), grow(desc.k_cache, 2), grow(desc.v_cache, 2);
        default: {
          const int dimension = input.ConsumeIntegralInRange(0, 1);
          return grow(desc.k_cache, dimension), grow(desc.v_cache, dimension);
        }
      }
    }
  }
}

// Overwrites some of the fields, or half of one, with any number.
inline void spoil(Input& input, void* structure, size_t bytes) {
  for (int left = input.ConsumeIntegralInRange(0, 3); left > 0; --left) {
    const int64_t number = any_number(input);
    const size_t width = input.ConsumeBool() ? 8 : 4;
    const size_t at = input.ConsumeIntegralInRange<size_t>(0, bytes / width - 1) * width;
    std::memcpy(static_cast<char*>(structure) + at, &number, width);
  }
}

// A structure in memory of just the bytes that it says it has: to read or write one more is the sanitizer's to find.
class Exact {
 public:
  Exact(const void* structure, size_t bytes) {
    uint32_t size;
    std::memcpy(&size, structure, sizeof size);
    // Every size is refused before the memory behind it counts, but for those in between.
    bytes_.resize(size < sizeof size ? sizeof size : size > (1u << 16) ? bytes : size);
    std::memcpy(bytes_.data(), structure, bytes < bytes_.size() ? bytes : bytes_.size());
    bytes_.shrink_to_fit();
  }
  char* data() { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }

 private:
  std::vector<char> bytes_;
};

// The patterns of a description in memory of just the bytes that the first of them says each has.
class ExactPatterns {
 public:
  explicit ExactPatterns(const Description& made) {
    const uint32_t size = made.patterns[0].size;
    const size_t known = sizeof(gtn_attention_pattern);
    const size_t step = size < sizeof size ? sizeof size : size > (1u << 16) ? known : size;
    const size_t count = static_cast<size_t>(std::size(made.patterns));
    bytes_.resize(count * step);
    for (size_t i = 0; i < count; ++i) std::memcpy(&bytes_[i * step], &made.patterns[i], std::min(step, known));
    bytes_.shrink_to_fit();
  }
  gtn_attention_pattern* data() { return reinterpret_cast<gtn_attention_pattern*>(bytes_.data()); }

 private:
  std::vector<char> bytes_;
};

}  // namespace gatun::fuzz
