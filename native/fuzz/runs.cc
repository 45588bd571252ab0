// Runs of small plans with any counts, index arrays and pointers into one block of memory. Every pointer has room
// behind it for all that a right run may touch.
#include <algorithm>
#include <iterator>

#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

constexpr int64_t kStarts = 4096, kApart = 4096, kPlaces = 26, kArena = kPlaces * kApart + kMostBytes;

struct Bench {
  gtn_device device;
  gtn_stream stream = 0;
  char* arena = nullptr;

  explicit Bench(const char* name) : device(open_device(name)) {
    gtn_message message = empty_message();
    void* memory = nullptr;
    MUST(gtn_stream_create(device, &stream, &message) == GTN_OK);
    MUST(gtn_memory_alloc(device, kArena, 64, &memory, &message) == GTN_OK);
    arena = static_cast<char*>(memory);
  }
};

// Where an operand lies: mostly apart from the others, but also where another one does, or near it; sometimes anywhere,
// or nowhere. In a right run all lie apart.
class Places {
 public:
  Places(Input& input, char* arena, bool right) : input_(input), arena_(arena), right_(right) {}

  void* any() {
    if (right_) return next();
    switch (input_.ConsumeIntegralInRange(0, 15)) {
      case 0:
        return nullptr;
      case 1:
        return arena_ + input_.ConsumeIntegralInRange<int64_t>(0, kStarts);
      case 2:
      case 3:
        return taken();
      case 4:
      case 5:
        return taken() + input_.ConsumeIntegralInRange<int64_t>(1, 64) * 4;
      default:
        return next();
    }
  }

  // Null where the plan wants none, mostly.
  void* any(int32_t wanted) {
    if (right_) return wanted == 0 ? nullptr : any();
    return input_.ConsumeIntegralInRange(0, 15) != 0 && wanted == 0 ? nullptr : any();
  }

 private:
  char* next() { return arena_ + count_++ % kPlaces * kApart; }

  // One that was given before.
  char* taken() {
    const int64_t which = count_ == 0 ? 0 : input_.ConsumeIntegralInRange<int64_t>(0, count_ - 1);
    return arena_ + which % kPlaces * kApart;
  }

  Input& input_;
  char* arena_;
  bool right_;
  int64_t count_ = 0;
};

// Mostly a count that the plan allows.
int64_t any_count(Input& input, int64_t most, bool right) {
  const int how = input.ConsumeIntegralInRange(0, 7);
  if (!right && how == 0) return any_number(input);
  if (how == 1) return most;
  return input.ConsumeIntegralInRange<int64_t>(0, most < 8 ? most : 8);
}

// An index array in the arena: lengths or offsets, right or nearly.
void write_index(Input& input, void* at, bool packed, bool right) {
  if (at == nullptr || reinterpret_cast<uintptr_t>(at) % 8 != 0) return;
  int64_t value = 0;
  for (int s = 0; s < 5; ++s) {
    static_cast<int64_t*>(at)[s] = value;
    if (right) continue;
    if (input.ConsumeIntegralInRange(0, 15) == 0) {
      value = any_number(input);
    } else {
      value = (packed ? value % 8 : 0) + input.ConsumeIntegralInRange<int64_t>(0, 2);
    }
  }
}

// An array of 32-bit integers in the arena: rising from `first` where all is right, else small numbers, mostly.
void write_integers(Input& input, void* at, int64_t count, int32_t first, int32_t step, bool right) {
  if (at == nullptr || reinterpret_cast<uintptr_t>(at) % 4 != 0) return;
  for (int64_t i = 0; i < count; ++i) {
    int32_t value = first + static_cast<int32_t>(i) * step;
    if (!right && input.ConsumeIntegralInRange(0, 3) == 0) {
      const bool any = input.ConsumeIntegralInRange(0, 15) == 0;
      value = any ? input.ConsumeIntegral<int32_t>() : input.ConsumeIntegralInRange(-1, 5);
    }
    static_cast<int32_t*>(at)[i] = value;
  }
}

// Bytes of masks, and with them whatever else may have any content.
void write_bytes(Input& input, void* at, int64_t count) {
  if (at == nullptr || !input.ConsumeBool()) return;
  for (int64_t i = 0; i < count; ++i) static_cast<char*>(at)[i] = static_cast<char>(i % 3 == 0);
}

// The arrays of attention, with right content or nearly: lengths of 0, so that little is visible, else small ones.
gtn_status run_attention(Input& input, Places& places, const Description& made, gtn_plan plan, gtn_stream stream,
                         bool right) {
  const gtn_attention_desc& desc = made.attention;
  const uint32_t masks = masks_of(made);
  const bool packed = desc.q.rank == 3, paged = desc.paged != 0;
  void* q_index = places.any(packed || input.ConsumeBool());
  void* k_index = places.any(packed || paged || input.ConsumeBool());
  void *q = places.any(), *k = places.any(), *v = places.any(), *out = places.any();
  void* lse = places.any(input.ConsumeBool());
  write_index(input, q_index, packed, right);
  write_index(input, k_index, packed && !paged, right);
  const int64_t planned_q = desc.q.shape[packed ? 0 : 1];
  const int64_t planned_k = paged ? desc.max_len_k : desc.k.shape[packed ? 0 : 1];
  int64_t sequences = any_count(input, packed ? desc.max_sequences : desc.q.shape[0], right);
  int64_t len_q = any_count(input, planned_q, right), len_k = any_count(input, planned_k, right);
  if (right && desc.has_bias) {
    sequences = std::min(sequences, desc.bias.shape[0]);
    len_q = std::min(len_q, desc.bias.shape[2]);
    len_k = std::min(len_k, desc.bias.shape[3]);
  }
  if (right && (masks & GTN_MASK_TREE) != 0) len_q = std::min(len_q, desc.max_tree);

  const bool s8 = desc.k.dtype == GTN_S8, documents = masks & GTN_MASK_DOCUMENTS, blocks = masks & GTN_MASK_BLOCKS;
  const bool masked = blocks && desc.max_block_masks > 0, orders = desc.order_heads > 0;
  void *k_scales = places.any(s8), *v_scales = places.any(s8), *block_table = places.any(paged);
  void *sink_logits = places.any(desc.has_sink_logits), *slopes = places.any(desc.has_slopes);
  void* bias = places.any(desc.has_bias);
  void *prefixes = places.any((masks & GTN_MASK_PREFIX) != 0), *globals = places.any((masks & GTN_MASK_GLOBALS) != 0);
  void *q_documents = places.any(documents), *k_documents = places.any(documents);
  void* tree = places.any((masks & GTN_MASK_TREE) != 0);
  void *block_offsets = places.any(blocks), *block_columns = places.any(blocks), *block_mask_index = places.any(masked);
  void *block_masks = places.any(masked), *block_bias = places.any(blocks && desc.has_block_bias);
  void *q_order = places.any(orders), *k_order = places.any(orders);
  // Small plans alone have arrays as small as these.
  const bool small = planned_q <= 8 && planned_k <= 8;
  write_integers(input, block_table, 8, 0, 0, right);
  if (prefixes != nullptr && !right) write_index(input, prefixes, false, right);
  write_integers(input, globals, 12, right ? -1 : 0, right ? 0 : 1, right);
  write_integers(input, q_documents, 16, 0, 0, right);
  write_integers(input, k_documents, 16, 0, 0, right);
  write_bytes(input, tree, 100);
  if (!right) write_index(input, block_offsets, true, right);
  write_integers(input, block_columns, 6, 0, 1, right);
  write_integers(input, block_mask_index, 6, -1, 0, right);
  write_bytes(input, block_masks, 32);
  for (int64_t list = 0; small && list < 12; ++list) {
    const int64_t q_bytes = list * planned_q * 4, k_bytes = list * planned_k * 4;
    if (q_order != nullptr) write_integers(input, static_cast<char*>(q_order) + q_bytes, planned_q, 0, 1, right);
    if (k_order != nullptr) write_integers(input, static_cast<char*>(k_order) + k_bytes, planned_k, 0, 1, right);
  }
  const void* further[] = {k_scales, v_scales, block_table, sink_logits, slopes, bias, prefixes, globals, q_documents,
                           k_documents, tree, block_offsets, block_columns, block_mask_index, block_masks, block_bias,
                           q_order, k_order};
  const bool none = std::all_of(std::begin(further), std::end(further), [](const void* at) { return at == nullptr; });
  if (none && input.ConsumeBool()) {
    return gtn_attention_run(plan, stream, sequences, len_q, len_k, q_index, k_index, q, k, v, out, lse);
  }
  return gtn_attention_run_with(plan, stream, sequences, len_q, len_k, q_index, k_index, q, k, v, out, lse, k_scales, v_scales,
                                block_table, sink_logits, slopes, bias, prefixes, globals, q_documents, k_documents, tree,
                                block_offsets, block_columns, block_mask_index, block_masks, block_bias, q_order, k_order);
}

gtn_status run_rope(Input& input, Places& places, const gtn_rope_desc& desc, gtn_plan plan, gtn_stream stream, bool right) {
  const bool stores = desc.has_k || desc.has_v, s8 = (desc.has_k ? desc.k_cache : desc.v_cache).dtype == GTN_S8;
  const int64_t* cache = (desc.has_k ? desc.k_cache : desc.v_cache).shape;
  int64_t tokens = any_count(input, (desc.has_q ? desc.q : desc.k).shape[0], right);
  void *positions = places.any(), *table = places.any(), *slots = places.any(stores && input.ConsumeBool());
  void *q = places.any(desc.has_q), *k = places.any(desc.has_k), *v = places.any(desc.has_v), *q_out = places.any(desc.has_q);
  void *k_cache = places.any(desc.has_k), *v_cache = places.any(desc.has_v);
  void *k_scales = places.any(desc.has_k && s8), *v_scales = places.any(desc.has_v && s8);
  if (q != nullptr && input.ConsumeBool() && (!right || std::memcmp(&desc.q, &desc.q_out, sizeof desc.q) == 0)) q_out = q;
  write_index(input, positions, false, right);
  if (right) {
    if (slots != nullptr) std::memset(slots, 0xff, static_cast<size_t>(8 * std::min<int64_t>(tokens, 8)));
    if (stores && slots == nullptr) tokens = std::min(tokens, cache[0] * cache[1]);
  } else {
    write_index(input, slots, false, right);
  }
  return gtn_rope_run(plan, stream, tokens, positions, table, slots, q, k, v, q_out, k_cache, v_cache, k_scales, v_scales);
}

gtn_status run_select(Input& input, Places& places, const gtn_select_desc& desc, gtn_plan plan, gtn_stream stream, bool right) {
  const bool packed = desc.q.rank == 3, lsh = desc.kind == GTN_SELECT_LSH;
  void *q_index = places.any(packed || input.ConsumeBool()), *k_index = places.any(packed || input.ConsumeBool());
  write_index(input, q_index, packed, right);
  write_index(input, k_index, packed, right);
  void *q = places.any(), *k = places.any(), *offsets = places.any(), *columns = places.any();
  void *bias = places.any(desc.kind == GTN_SELECT_RETRIEVAL), *q_order = places.any(lsh), *k_order = places.any(lsh);
  void *q_documents = places.any(lsh), *k_documents = places.any(lsh);
  const int64_t sequences = any_count(input, packed ? desc.max_sequences : desc.q.shape[0], right);
  const int64_t len_q = any_count(input, desc.q.shape[packed ? 0 : 1], right);
  const int64_t len_k = any_count(input, desc.k.shape[packed ? 0 : 1], right);
  return gtn_select_run(plan, stream, sequences, len_q, len_k, q_index, k_index, q, k, offsets, columns, bias, q_order, k_order,
                        q_documents, k_documents);
}

gtn_weights pack(Input& input, gtn_device device, const gtn_conv_desc& planned, bool right) {
  const int spatial = planned.x.rank - 2;
  gtn_conv_weights_desc desc = {sizeof desc, planned.format, {sizeof(gtn_tensor_desc), GTN_F32, planned.x.rank, 0, {}, {}},
                                planned.groups, input.ConsumeIntegralInRange(0, 1), 0.0f};
  desc.source.shape[0] = planned.out.shape[1];
  desc.source.shape[1] = planned.groups > 0 ? planned.x.shape[1] / planned.groups : 0;
  std::copy_n(planned.kernel, spatial, desc.source.shape + 2);
  if (!right && input.ConsumeIntegralInRange(0, 7) == 0) {
    desc.source.shape[input.ConsumeIntegralInRange(0, spatial + 1)] += input.ConsumeIntegralInRange(-1, 2);
  }
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) desc.format = any_float(input);
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) desc.groups = input.ConsumeIntegralInRange(1, 3);
  int64_t elements = 1;
  for (int d = desc.source.rank - 1; d >= 0; --d) {
    desc.source.strides[d] = elements;
    elements *= desc.source.shape[d] < 1024 ? desc.source.shape[d] : 1024;
    if (elements > 1024) return 0;
  }
  static const float source[1024] = {1.0f, -2.0f, 0.5f};
  const float* norm = desc.has_norm != 0 ? source : nullptr;
  desc.epsilon = desc.has_norm != 0 ? 1e-5f : 0.0f;
  gtn_weights weights = 0;
  gtn_message message = empty_message();
  const gtn_status status =
      gtn_conv_weights_pack(device, &desc, source, norm, norm, norm, norm == nullptr ? nullptr : source + 512, &weights,
                            &message);
  MUST(!right || status == GTN_OK || desc.source.shape[0] > 64);
  return weights;
}

gtn_weights pack(Input& input, gtn_device device, const gtn_gemm_desc& planned, bool right) {
  int32_t format = planned.format;
  int64_t groups = planned.groups, k = planned.a.shape[1];
  const int64_t n = planned.out.shape[1];
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) k += input.ConsumeIntegralInRange(-1, 1);
  int64_t group_size = planned.group_size;
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) {
    format = any_format(input);
    group_size = any_group_size(input, format);
  }
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) groups = input.ConsumeIntegralInRange(0, 3);
  static const float source[1024] = {1.0f, -2.0f, 0.0f, 0.0f, 0.5f};  // no more than 2 of 4 in any column: pruned, too
  gtn_weights_desc desc = {sizeof desc, format, {sizeof(gtn_tensor_desc), GTN_F32, 2, 0, {k, n}, {n, 1}}, group_size, 0, 0};
  if (groups > 0) desc.source = {sizeof(gtn_tensor_desc), GTN_F32, 3, 0, {groups, k, n}, {0, n, 1}};
  gtn_weights weights = 0;
  gtn_message message = empty_message();
  gtn_status status;
  if (is_quantized(format) && input.ConsumeBool()) {
    const gtn_quantized_desc quantized = {sizeof quantized, format, groups, k, n, group_size};
    static const uint8_t integers[3 * 16 * 128] = {7, 200, 31};
    status = gtn_weights_pack_quantized(device, &quantized, integers, source, input.ConsumeBool() ? integers : nullptr,
                                        &weights, &message);
  } else {
    status = gtn_weights_pack(device, &desc, source, &weights, &message);
  }
  MUST(status == GTN_OK || groups > 3 || k < 0 || k > 16 || n > 16);
  return weights;
}

gtn_status run_gemm(Input& input, Places& places, const gtn_gemm_desc& desc, gtn_plan plan, gtn_stream stream,
                    gtn_weights weights, bool right) {
  void *a = places.any(), *bias = places.any(desc.has_bias), *residual = places.any(desc.has_residual);
  void* out = places.any();
  const bool indexed = desc.has_row_index != 0;
  int64_t rows = any_count(input, desc.out.shape[0], right), rows_a = rows;
  if (indexed || (!right && input.ConsumeIntegralInRange(0, 15) == 0)) rows_a = any_count(input, desc.a.shape[0], right);
  if (right && indexed && rows_a == 0) rows = 0;
  void *group_offsets = places.any(desc.groups > 0), *row_index = places.any(indexed);
  void *lora_a = places.any(desc.rank > 0), *lora_b = places.any(desc.rank > 0);
  write_index(input, group_offsets, true, right);
  for (int64_t g = 0; right && desc.groups <= 3 && g <= desc.groups && desc.groups > 0; ++g) {
    static_cast<int64_t*>(group_offsets)[g] = rows * g / desc.groups;
  }
  write_integers(input, row_index, 8, 0, 0, right);
  void *scales = places.any(desc.a.dtype == GTN_U8), *zero_points = places.any(desc.a.dtype == GTN_U8);
  if (scales != nullptr || zero_points != nullptr) {
    return gtn_gemm_run_quantized(plan, stream, weights, rows, rows_a, a, scales, zero_points, bias, residual, out,
                                  group_offsets, row_index);
  }
  if (group_offsets == nullptr && row_index == nullptr && lora_a == nullptr && lora_b == nullptr && input.ConsumeBool()) {
    return gtn_gemm_run(plan, stream, weights, rows, a, bias, residual, out);
  }
  return gtn_gemm_run_with(plan, stream, weights, rows, rows_a, a, bias, residual, out, group_offsets, row_index, lora_a,
                           lora_b);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static Bench checking("checking"), cpu("cpu:scalar");
  Input input(data, bytes);
  // The kernels believe what they are told, so the CPU gets no plan that describes more memory than there is.
  const int choice = input.ConsumeIntegralInRange(0, 3);
  Bench& on = choice == 0 ? cpu : checking;
  Description made = small_description(input);
  if (choice == 1) make_large(input, made);
  gtn_message message = empty_message();
  gtn_plan plan = 0;
  if (made.op == GTN_OP_ATTENTION) made.attention.patterns = made.patterns;
  if (make_plan(on.device, made.op, &made.gemm, &plan, &message) != GTN_OK) {
    MUST(choice == 1);
    return 0;
  }

  const bool right = input.ConsumeBool();
  Places places(input, on.arena, right);
  gtn_weights weights = 0;
  for (int left = input.ConsumeIntegralInRange(1, 3); left > 0; --left) {
    gtn_status status;
    std::memset(on.arena, 0, kArena);  // no run may depend on the one before
    switch (made.op) {
      case GTN_OP_GEMM:
        if (weights == 0) weights = pack(input, on.device, made.gemm, right);
        status = run_gemm(input, places, made.gemm, plan, on.stream, weights, right);
        break;
      case GTN_OP_CONV: {
        const gtn_conv_desc& desc = made.conv;
        if (weights == 0) weights = pack(input, on.device, desc, right);
        void *x = places.any(), *bias = places.any(desc.has_bias), *residual = places.any(desc.has_residual);
        void* out = residual != nullptr && input.ConsumeBool() ? residual : places.any();
        status = gtn_conv_run(plan, on.stream, weights, any_count(input, desc.x.shape[0], right), x, bias, residual, out);
        break;
      }
      case GTN_OP_POOLING: {
        void *x = places.any(), *out = places.any();
        status = gtn_pooling_run(plan, on.stream, any_count(input, made.pooling.x.shape[0], right), x, out);
        break;
      }
      case GTN_OP_FAKE_QUANTIZE: {
        const gtn_fake_quantize_desc& desc = made.fake_quantize;
        void *x = places.any(), *scales = places.any(), *zero_points = places.any(desc.has_zero_points);
        void *gradient = places.any(desc.gradient), *out = places.any();
        const int64_t rows = any_count(input, desc.x.shape[0], right);
        status = gtn_fake_quantize_run(plan, on.stream, rows, x, scales, zero_points, gradient, out);
        break;
      }
      case GTN_OP_ATTENTION:
        status = run_attention(input, places, made, plan, on.stream, right);
        break;
      case GTN_OP_NORM: {
        const gtn_norm_desc& desc = made.norm;
        void *x = places.any(), *residual = places.any(desc.has_residual), *gamma = places.any();
        void *beta = places.any(desc.has_beta), *out = places.any(), *sum = places.any(desc.has_sum);
        const int64_t rows = any_count(input, desc.x.shape[0], right);
        const int32_t quantized = desc.out.dtype == GTN_U8;
        void *scales = places.any(quantized), *zero_points = places.any(quantized);
        if (scales == nullptr && zero_points == nullptr && input.ConsumeBool()) {
          status = gtn_norm_run(plan, on.stream, rows, x, residual, gamma, beta, out, sum);
        } else {
          status = gtn_norm_run_quantized(plan, on.stream, rows, x, residual, gamma, beta, out, scales, zero_points, sum);
        }
        break;
      }
      case GTN_OP_SOFTMAX: {
        void *x = places.any(), *out = places.any();
        status = gtn_softmax_run(plan, on.stream, any_count(input, made.softmax.x.shape[0], right), x, out);
        break;
      }
      case GTN_OP_ACTIVATION: {
        void *x = places.any(), *bias = places.any(made.activation.has_bias), *out = places.any();
        status = gtn_activation_run(plan, on.stream, any_count(input, made.activation.x.shape[0], right), x, bias, out);
        break;
      }
      case GTN_OP_GLU: {
        void *gate = places.any(), *x = places.any(), *out = places.any();
        const int64_t rows = any_count(input, made.glu.gate.shape[0], right);
        status = gtn_glu_run(plan, on.stream, rows, gate, x, out);
        break;
      }
      case GTN_OP_MERGE: {
        const int64_t* shape = made.merge.x.shape;
        void *x = places.any(), *x_lse = places.any(), *sink_logits = places.any(made.merge.has_sink_logits);
        void *out = places.any(), *lse = places.any(input.ConsumeBool());
        if (!right && input.ConsumeIntegralInRange(0, 3) == 0) out = x;
        if (!right && input.ConsumeIntegralInRange(0, 3) == 0) lse = x_lse;
        const int64_t parts = any_count(input, shape[0], right), batch = any_count(input, shape[1], right);
        const int64_t length = any_count(input, shape[2], right);
        status = gtn_merge_run(plan, on.stream, parts, batch, length, x, x_lse, sink_logits, out, lse);
        break;
      }
      case GTN_OP_SELECT:
        status = run_select(input, places, made.select, plan, on.stream, right);
        break;
      case GTN_OP_ROUTE: {
        const gtn_route_desc& desc = made.route;
        void *x = places.any(), *bias = places.any(desc.has_bias), *experts = places.any(), *chosen = places.any();
        void *offsets = places.any(), *rows = places.any(), *slots = places.any();
        const int64_t tokens = any_count(input, desc.x.shape[0], right);
        write_bytes(input, x, 64);
        if (!right) write_integers(input, bias, 3, 0, 0, false);
        status = gtn_route_run(plan, on.stream, tokens, x, bias, experts, chosen, offsets, rows, slots);
        break;
      }
      case GTN_OP_MIX: {
        const gtn_mix_desc& desc = made.mix;
        void *x = places.any(), *gates = places.any(), *row_index = places.any(desc.has_row_index);
        void *residual = places.any(desc.has_residual), *out = places.any();
        if (residual != nullptr && input.ConsumeBool()) out = residual;
        const int64_t tokens = any_count(input, desc.out.shape[0], right);
        const bool named = desc.has_row_index != 0;
        const int64_t rows_x = !named ? right ? 0 : input.ConsumeIntegralInRange(0, 7) / 7
                                      : any_count(input, desc.x.shape[0], right);
        write_integers(input, row_index, 18, -1, 0, right);
        write_bytes(input, gates, 64);
        status = gtn_mix_run(plan, on.stream, tokens, rows_x, x, gates, row_index, residual, out);
        break;
      }
      default:
        status = run_rope(input, places, made.rope, plan, on.stream, right);
    }
    if (right && status != GTN_OK && choice != 1) {
      gtn_stream_message(on.stream, &message);
      std::fprintf(stderr, "operator %d: status %d, %s\n", made.op, status, message.text);
      MUST(!"a right run succeeds");
    }
    if (status == GTN_OK || status == GTN_STALE_HANDLE) continue;
    MUST(gtn_stream_message(on.stream, &message) == GTN_OK);
    check_failure(status, message);
  }
  MUST(gtn_plan_close(plan, &message) == GTN_OK);
  if (weights != 0) MUST(gtn_weights_close(weights, &message) == GTN_OK);
  return 0;
}
