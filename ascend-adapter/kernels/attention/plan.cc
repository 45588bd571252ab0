// Attention of queries of BF16 and F16: windows, and lists of blocks of 128 by 128, by the kernels that have nothing else; the rest by
// those that have all of it, on tiles half as high; keys and values of another type by those that make terms of them.
#include "kernels/attention/plan.h"

#include <cstdio>
#include <memory>
#include <new>

#include "kernels/attention/tiling.h"

namespace gatun::ascend {
namespace {

static_assert(kAttentionF32 == GTN_F32 && kAttentionBf16 == GTN_BF16 && kAttentionF16 == GTN_F16 && kAttentionS8 == GTN_S8);

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// The sum of first + i, no less than 0 and no more than `most`, over i from 0 to n - 1.
double clamped_sum(int64_t first, int64_t n, int64_t most) {
  const int64_t rises = clamp(-first, 0, n), falls = clamp(most - first, rises, n);
  const double low = static_cast<double>(first + rises), count = static_cast<double>(falls - rises);
  return count * low + count * (count - 1) / 2 + static_cast<double>(n - falls) * static_cast<double>(most);
}

// Pairs of a query and a key that it sees, but for lists.
double visible_pairs(const AttentionTiling& t) {
  const int64_t position = t.len_k - t.len_q;
  const double all = static_cast<double>(t.len_q) * static_cast<double>(t.len_k);
  const double to = t.right < 0 ? all : clamped_sum(position + t.right + 1, t.len_q, t.len_k);
  return to - (t.left < 0 ? 0 : clamped_sum(position - t.left, t.len_q, t.len_k));
}

class AttentionPlan final : public Plan {
 public:
  // Takes the launches over.
  AttentionPlan(AttentionTiling* launches, int64_t count, const Kernel* kernel)
      : launches_(launches), count_(count), kernel_(kernel) {}

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_attention_args& args = *static_cast<const gtn_attention_args*>(arguments);
    if (args.sequences == 0 || args.len_q == 0) return GTN_OK;
    for (int64_t i = 0; i < count_; ++i) {
      AttentionTiling tiling = launches_[i];
      tiling.batch = args.sequences, tiling.len_q = args.len_q, tiling.len_k = args.len_k;
      tiling.has_lse = args.lse != nullptr;
      tiling.has_q_index = args.q_index != nullptr, tiling.has_k_index = args.k_index != nullptr;
      const int64_t blocks = blocks_of(*stream.device, tiling);
      void* workspace = nullptr;
      gtn_status status = stream.scratch(attention_workspace_bytes(blocks, has_terms(tiling)), &workspace, message);
      if (status == GTN_OK) status = launch_one(stream, tiling, blocks, args, workspace, message);
      if (status != GTN_OK) return status;
    }
    return GTN_OK;
  }

  // Whether the kernels that make terms of their operands serve it: the others multiply those of one 16-bit type.
  static bool has_terms(const AttentionTiling& t) { return t.q_type != t.kv_type; }

  static int64_t blocks_of(const Device& device, const AttentionTiling& tiling) {
    return least(attention_items(tiling), device.properties.cube_cores);
  }

 private:
  gtn_status launch_one(Stream& stream, const AttentionTiling& tiling, int64_t blocks, const gtn_attention_args& args,
                        const void* workspace, gtn_message* message) const {
    const auto of = [](const void* p) { return p; };
    return launch_with(stream, kernel_, blocks, tiling, message, args.q, args.k, args.v, of(args.q_index), of(args.k_index),
                       of(args.block_table), of(args.block_offsets), of(args.block_columns), of(args.q_order),
                       of(args.k_order), of(args.sink_logits), of(args.slopes), args.bias, of(args.prefixes), of(args.globals),
                       of(args.q_documents), of(args.k_documents), of(args.tree), of(args.block_mask_index),
                       of(args.block_masks), of(args.block_bias), of(args.k_scales), of(args.v_scales), of(args.out), of(args.lse), workspace);
  }

  const std::unique_ptr<AttentionTiling[]> launches_;  // one for each run of heads that share a pattern
  const int64_t count_;
  const Kernel* const kernel_;
};

// The first thing about attention that the kernels have not, or null.
const char* missing(const gtn_attention_desc& desc) {
  if (desc.q.dtype == GTN_F32) return "q: is F32, this backend takes BF16 and F16: terms of BF16 would lose what is below 2^-133 of it";
  if (desc.has_bias != 0 && desc.bias.shape[3] > 1 && desc.bias.strides[3] != 1)
    return "bias: this backend takes a stride of 1 between keys";
  return nullptr;
}

// Whether the kernels for windows, and lists of whole blocks of their own size, serve a pattern.
bool is_plain(const gtn_attention_desc& desc, const gtn_attention_pattern& pattern) {
  if (desc.softcap != 0 || desc.self_bias != 0 || desc.has_slopes != 0 || desc.has_bias != 0) return false;
  if (desc.has_sink_logits != 0 || desc.order_heads != 0 || pattern.dilation != 1) return false;
  if (pattern.sinks != 0 && (pattern.window_left >= 0 || pattern.window_right > 0)) return false;
  if (pattern.masks == 0) return true;
  return pattern.masks == GTN_MASK_BLOCKS && desc.block_q == kAttentionM && desc.block_k == kAttentionN &&
         desc.max_block_masks == 0 && desc.has_block_bias == 0;
}

// What a tensor of heads is like: [batch, row, head], the first of them missing where it is packed.
struct Layout {
  int64_t batch, row, head;
};
Layout layout_of(const gtn_tensor_desc& tensor) {
  const int32_t at = tensor.rank - 3;
  // Where there is a single row its stride means nothing.
  const int64_t row = tensor.shape[at] > 1 ? tensor.strides[at] : tensor.shape[at + 2];
  return {at > 0 ? tensor.strides[0] : 0, row, tensor.strides[at + 1]};
}

void add_pattern(const gtn_attention_desc& desc, const gtn_attention_pattern& pattern, AttentionTiling* t) {
  const int64_t reach = t->lq + t->lk, dilation = least(pattern.dilation, reach + 1);
  const auto keys = [&](int64_t window) { return window < 0 || window > reach / dilation ? -1 : window * dilation; };
  const auto when = [&](uint32_t mask, int64_t value) { return (pattern.masks & mask) != 0 ? value : 0; };
  t->left = keys(pattern.window_left), t->right = keys(pattern.window_right);
  t->dilation = dilation;
  t->sinks = least(pattern.sinks, t->lk);
  t->has_prefix = static_cast<int32_t>(when(GTN_MASK_PREFIX, 1));
  t->max_globals = when(GTN_MASK_GLOBALS, desc.max_globals);
  t->max_tree = when(GTN_MASK_TREE, desc.max_tree);
  t->document_heads = when(GTN_MASK_DOCUMENTS, desc.document_heads);
  t->document_layers = when(GTN_MASK_DOCUMENTS, desc.document_layers);
  t->list_heads = when(GTN_MASK_BLOCKS, desc.block_heads);
  t->block_q = when(GTN_MASK_BLOCKS, desc.block_q), t->block_k = when(GTN_MASK_BLOCKS, desc.block_k);
  t->list_entries = when(GTN_MASK_BLOCKS, desc.max_blocks);
  t->max_masks = when(GTN_MASK_BLOCKS, desc.max_block_masks);
  t->has_block_bias = static_cast<int32_t>(when(GTN_MASK_BLOCKS, desc.has_block_bias));
  const bool between_steps = t->sinks == 0 || t->list_heads == 0;  // lie the keys that sinks leave out
  t->has_gaps = dilation > 1 || !between_steps || t->max_globals != 0 || t->max_tree != 0 || t->document_layers != 0 ||
                t->max_masks != 0 || t->order_heads != 0 || t->has_bias != 0 || (attention_joins(*t) && t->left >= 0);
  t->most_q = t->lq, t->most_k = t->lk;
  if (t->max_tree != 0) t->most_q = least(t->most_q, t->max_tree);
  if (t->has_bias != 0) t->most_q = least(t->most_q, desc.bias.shape[2]), t->most_k = least(t->most_k, desc.bias.shape[3]);
}

bool same_pattern(const gtn_attention_pattern& a, const gtn_attention_pattern& b) {
  return a.masks == b.masks && a.window_left == b.window_left && a.window_right == b.window_right && a.dilation == b.dilation &&
         a.sinks == b.sinks;
}

}  // namespace

bool attention_serves(const Device&, int32_t dtype) { return dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status attention_plan(Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message) {
  if (const char* why = missing(desc); why != nullptr) return fail(message, GTN_UNSUPPORTED, "%s", why);
  const bool packed = desc.q.rank == 3, paged = desc.paged != 0;
  const Layout q = layout_of(desc.q), k = layout_of(desc.k), v = layout_of(desc.v), out = layout_of(desc.out);
  const int64_t* q_shape = desc.q.shape + desc.q.rank - 3;
  const int64_t* k_shape = desc.k.shape + desc.k.rank - 3;
  AttentionTiling t = {};
  t.heads_q = q_shape[1], t.heads_k = k_shape[1], t.dk = q_shape[2], t.dv = desc.v.shape[desc.v.rank - 1];
  t.q_batch = q.batch, t.q_row = q.row, t.q_head = q.head;
  t.k_batch = k.batch, t.k_row = k.row, t.k_head = k.head;
  t.v_batch = v.batch, t.v_row = v.row, t.v_head = v.head;
  t.out_batch = out.batch, t.out_row = out.row, t.out_head = out.head;
  t.batch = packed ? desc.max_sequences : desc.q.shape[0];
  t.len_q = t.lq = q_shape[0];
  t.len_k = t.lk = paged ? desc.max_len_k : k_shape[0];
  t.packed_q = packed, t.packed_k = packed && !paged;
  if (paged) {
    t.page_size = k_shape[0], t.pages = desc.k.shape[0];
    t.table_width = t.page_size > 0 ? (t.lk + t.page_size - 1) / t.page_size : 0;
  }
  t.order_heads = desc.order_heads;
  t.scale = desc.scale, t.softcap = desc.softcap, t.self_bias = desc.self_bias;
  t.has_slopes = desc.has_slopes, t.has_sink_logits = desc.has_sink_logits;
  t.has_bias = desc.has_bias == 0 ? 0 : desc.bias.dtype;
  t.q_type = desc.q.dtype, t.kv_type = desc.k.dtype;
  if (t.has_bias != 0)
    t.bias_batch = desc.bias.strides[0], t.bias_head = desc.bias.strides[1], t.bias_row = desc.bias.strides[2];
  if (!attention_tiling(t) || (paged && (t.pages < 1 || t.page_size < 1))) {
    return fail(message, GTN_UNSUPPORTED,
                "q, k and v: head sizes %lld and %lld with rows of %lld, %lld and %lld elements; this backend takes head sizes "
                "of 1 to %d, rows from there to %lld, and pages that are not empty",
                static_cast<long long>(t.dk), static_cast<long long>(t.dv), static_cast<long long>(t.q_row),
                static_cast<long long>(t.k_row), static_cast<long long>(t.v_row), static_cast<int>(kAttentionHead),
                static_cast<long long>(kAttentionStride));
  }
  const bool terms = AttentionPlan::has_terms(t);
  bool plain = !terms;
  for (int64_t h = 0; h < desc.pattern_count; ++h) plain = plain && is_plain(desc, desc.patterns[h]);
  if (!plain && (t.lq > kAttentionPositions || t.lk > kAttentionPositions)) {
    return fail(message, GTN_UNSUPPORTED, "q and k: sequences of %lld and %lld; with these options this backend takes up to %lld",
                static_cast<long long>(t.lq), static_cast<long long>(t.lk), static_cast<long long>(kAttentionPositions));
  }
  t.tile_m = plain ? kAttentionM : kAttentionAnyM;
  std::unique_ptr<AttentionTiling[]> launches(new (std::nothrow) AttentionTiling[static_cast<size_t>(t.heads_q)]);
  if (launches == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  int64_t count = 0;
  for (int64_t h = 0; h < t.heads_q;) {
    const gtn_attention_pattern& pattern = desc.patterns[desc.pattern_count > 1 ? h : 0];
    AttentionTiling& launch = launches[count++];
    launch = t;
    launch.first_head = h;
    while (++h < t.heads_q && (desc.pattern_count == 1 || same_pattern(pattern, desc.patterns[h]))) {
    }
    launch.heads = h - launch.first_head;
    add_pattern(desc, pattern, &launch);
  }
  char name[48];
  std::snprintf(name, sizeof name, "gatun_attention_%s%s%s%s", plain ? "" : terms ? "terms" : "any_",
                terms ? "" : type_name(desc.q.dtype), "_", type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<AttentionPlan>(message, launches.get(), count, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const AttentionTiling* all = launches.release();
  const bool lists = (desc.patterns->masks & GTN_MASK_BLOCKS) != 0;
  std::snprintf(name, sizeof name, "attention.%s%s%s%s.%lldx128", type_name(desc.q.dtype),
                desc.q.dtype == desc.k.dtype ? "" : ".", desc.q.dtype == desc.k.dtype ? "" : type_name(desc.k.dtype),
                lists ? ".blocks" : "", static_cast<long long>(t.tile_m));
  name_kernel(info, name);
  const double batch = packed ? 1 : static_cast<double>(desc.q.shape[0]);
  const double len_q = static_cast<double>(t.lq), len_k = static_cast<double>(t.lk);
  const double dk = static_cast<double>(t.dk), dv = static_cast<double>(t.dv);
  double pairs = 0;
  for (int64_t i = 0; i < count; ++i)
    pairs += t.lq == 0 ? 0 : batch * static_cast<double>(all[i].heads) * visible_pairs(all[i]);
  info->flops = 2 * pairs * (dk + dv);
  const double q_size = static_cast<double>(element_bytes(desc.q.dtype)), kv_size = static_cast<double>(element_bytes(desc.k.dtype));
  info->bytes = batch * (q_size * len_q * static_cast<double>(t.heads_q) * dk +
                         len_k * static_cast<double>(t.heads_k) * (kv_size * (dk + dv) + (t.kv_type == GTN_S8 ? 8 : 0))) +
                batch * len_q * static_cast<double>(t.heads_q) * dv * static_cast<double>(element_bytes(desc.out.dtype));
  info->blocks = static_cast<int64_t>(pairs / static_cast<double>(t.tile_m * kAttentionN));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bytes = attention_workspace_bytes(AttentionPlan::blocks_of(device, all[i]), terms);
    info->workspace_bytes = bytes > info->workspace_bytes ? bytes : info->workspace_bytes;
  }
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
