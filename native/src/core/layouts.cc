// The layout of every structure of gatun.h, as this compiler made it, put together while compiling.
#include <gatun/gatun.h>

#include <cstddef>

namespace gatun {
namespace {

struct Field {
  const char* name;
  size_t offset, bytes;
};

struct Structure {
  const char* name;
  size_t bytes;
  Field fields[32];  // the unused ones have no name
};

// GATUN_STRUCTURE(gtn_message, size, text) is a Structure with these fields. The macros of GATUN_FIELDS expand each other,
// one field at a time.
#define GATUN_PARENTHESES ()
#define GATUN_EXPAND(...) GATUN_EXPAND_9(GATUN_EXPAND_9(GATUN_EXPAND_9(GATUN_EXPAND_9(__VA_ARGS__))))
#define GATUN_EXPAND_9(...) GATUN_EXPAND_3(GATUN_EXPAND_3(GATUN_EXPAND_3(__VA_ARGS__)))
#define GATUN_EXPAND_3(...) GATUN_EXPAND_1(GATUN_EXPAND_1(GATUN_EXPAND_1(__VA_ARGS__)))
#define GATUN_EXPAND_1(...) __VA_ARGS__
#define GATUN_FIELDS(type, field, ...) \
  {#field, offsetof(type, field), sizeof(type::field)}, __VA_OPT__(GATUN_AGAIN GATUN_PARENTHESES(type, __VA_ARGS__))
#define GATUN_AGAIN() GATUN_FIELDS
#define GATUN_STRUCTURE(type, ...) {#type, sizeof(type), {GATUN_EXPAND(GATUN_FIELDS(type, __VA_ARGS__))}}

// A structure or a field that is missing here fails the tests of the bindings, which compare all of them.
constexpr Structure kStructures[] = {
    GATUN_STRUCTURE(gtn_message, size, text),
    GATUN_STRUCTURE(gtn_tensor_desc, size, dtype, rank, reserved, shape, strides),
    GATUN_STRUCTURE(gtn_backend_info, size, status, abi_version, device_count, name, version, path, reason),
    GATUN_STRUCTURE(gtn_device_info, size, status, name, description, reason, threads, host_memory, memory_bytes),
    GATUN_STRUCTURE(gtn_device_options, size, threads),
    GATUN_STRUCTURE(gtn_weights_desc, size, format, source, group_size, symmetric, quantize),
    GATUN_STRUCTURE(gtn_quantized_desc, size, format, groups, k, n, group_size),
    GATUN_STRUCTURE(gtn_weights_info, size, format, k, n, bytes, groups, group_size),
    GATUN_STRUCTURE(gtn_plan_info, size, op, kernel, flops, bytes, workspace_bytes, blocks),
    GATUN_STRUCTURE(gtn_gemm_desc, size, format, a, out, activation, has_bias, has_residual, has_row_index, groups, rank,
                    lora_dtype, lora_scale, group_size),
    GATUN_STRUCTURE(gtn_attention_pattern, size, masks, window_left, window_right, dilation, sinks),
    GATUN_STRUCTURE(gtn_attention_desc, size, scale, q, k, v, out, max_sequences, patterns, pattern_count, softcap, self_bias,
                    has_sink_logits, has_slopes, has_bias, paged, bias, max_len_k, max_globals, max_tree, document_heads,
                    document_layers, block_q, block_k, block_heads, max_blocks, max_block_masks, has_block_bias, reserved,
                    order_heads),
    GATUN_STRUCTURE(gtn_select_desc, size, kind, q, k, max_sequences, heads, block_q, block_k, count, first, local, causal, pool,
                    scale, reserved, buckets, layers, seed),
    GATUN_STRUCTURE(gtn_merge_desc, size, has_sink_logits, x, x_lse, out, lse),
    GATUN_STRUCTURE(gtn_route_desc, size, kind, x, top, groups, top_groups, has_bias, normalize, scale, reserved),
    GATUN_STRUCTURE(gtn_mix_desc, size, gate, x, gates, out, has_residual, has_row_index),
    GATUN_STRUCTURE(gtn_rope_desc, size, style, rotary, max_position, has_q, has_k, has_v, reserved, q, q_out, k, v, k_cache,
                    v_cache),
    GATUN_STRUCTURE(gtn_norm_desc, size, kind, x, out, epsilon, has_residual, has_beta, has_sum),
    GATUN_STRUCTURE(gtn_softmax_desc, size, scale, x, out),
    GATUN_STRUCTURE(gtn_activation_desc, size, activation, x, out, has_bias, reserved),
    GATUN_STRUCTURE(gtn_glu_desc, size, activation, gate, x, out),
    GATUN_STRUCTURE(gtn_conv_weights_desc, size, format, source, groups, has_norm, epsilon),
    GATUN_STRUCTURE(gtn_conv_desc, size, format, x, out, kernel, stride, dilation, pad_before, pad_after, groups, activation,
                    has_bias, has_residual, residual_first),
    GATUN_STRUCTURE(gtn_pooling_desc, size, kind, x, out, kernel, stride, dilation, pad_before, pad_after, count_padding,
                    reserved),
    GATUN_STRUCTURE(gtn_fake_quantize_desc, size, granularity, least, most, x, out, has_zero_points, gradient),
};

// Text that is written as far as there is room, and counted.
struct Text {
  char* to;
  size_t room;
  size_t length = 0;

  constexpr void put(char c) {
    if (length < room) to[length] = c;
    ++length;
  }
  constexpr void put(const char* text) {
    for (; *text != '\0'; ++text) put(*text);
  }
  constexpr void put(size_t number) {
    if (number >= 10) put(number / 10);
    put(static_cast<char>('0' + number % 10));
  }
};

constexpr size_t write_layouts(char* to, size_t room) {
  Text text{to, room};
  for (const Structure& structure : kStructures) {
    text.put(structure.name);
    text.put(' ');
    text.put(structure.bytes);
    for (const Field& field : structure.fields) {
      if (field.name == nullptr) break;
      text.put(&field == structure.fields ? ": " : ", ");
      text.put(field.name);
      text.put(' ');
      text.put(field.offset);
      text.put(' ');
      text.put(field.bytes);
    }
    text.put('\n');
  }
  text.put('\0');
  return text.length;
}

struct Layouts {
  char text[write_layouts(nullptr, 0)];

  constexpr Layouts() : text() { write_layouts(text, sizeof text); }
};

constexpr Layouts kLayouts;

}  // namespace
}  // namespace gatun

const char* gtn_layouts(void) { return gatun::kLayouts.text; }
