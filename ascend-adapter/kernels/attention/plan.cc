// Attention over batches of BF16 and FP16, with one window for all heads and lists of blocks of 128 by 128.
#include "kernels/attention/plan.h"

#include <cstdio>

#include "kernels/attention/tiling.h"

namespace gatun::ascend {
namespace {

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
  AttentionPlan(const AttentionTiling& tiling, const Kernel* kernel) : tiling_(tiling), kernel_(kernel) {}

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_attention_args& args = *static_cast<const gtn_attention_args*>(arguments);
    AttentionTiling tiling = tiling_;
    tiling.batch = args.sequences, tiling.len_q = args.len_q, tiling.len_k = args.len_k;
    if (tiling.batch == 0 || tiling.len_q == 0 || !attention_tiling(&tiling)) return GTN_OK;
    tiling.has_lse = args.lse != nullptr;
    tiling.has_q_lengths = args.q_index != nullptr, tiling.has_k_lengths = args.k_index != nullptr;
    const int64_t blocks = blocks_of(*stream.device, tiling);
    void* workspace = nullptr;
    if (gtn_status s = stream.scratch(attention_workspace_bytes(blocks), &workspace, message); s != GTN_OK) return s;
    return launch_with(stream, kernel_, blocks, tiling, message, args.q, args.k, args.v, static_cast<const void*>(args.q_index),
                       static_cast<const void*>(args.k_index), static_cast<const void*>(args.block_offsets),
                       static_cast<const void*>(args.block_columns), static_cast<const void*>(args.out),
                       static_cast<const void*>(args.lse), static_cast<const void*>(workspace));
  }

  static int64_t blocks_of(const Device& device, const AttentionTiling& tiling) {
    return least(tiling.items, device.properties.cube_cores);
  }

 private:
  const AttentionTiling tiling_;
  const Kernel* const kernel_;
};

// The first thing about attention that the kernels have not, or null.
const char* missing(const gtn_attention_desc& desc) {
  const gtn_attention_pattern& pattern = *desc.patterns;
  if (desc.q.dtype == GTN_F32) return "q: is F32, this backend takes BF16 and F16";
  if (desc.k.dtype != desc.q.dtype || desc.v.dtype != desc.q.dtype)
    return "k and v: this backend takes those of q's type alone";
  if (desc.q.rank != 4 || desc.paged != 0) return "q, k and v: this backend takes batches alone, neither packed nor paged";
  if (desc.pattern_count != 1) return "pattern_count: this backend has one pattern for all heads";
  if ((pattern.masks & ~static_cast<uint32_t>(GTN_MASK_BLOCKS)) != 0)
    return "patterns: this backend has windows and blocks alone";
  if (pattern.dilation != 1) return "patterns: this backend has no dilated windows";
  if (pattern.sinks != 0 && pattern.window_left >= 0) return "patterns: this backend has no sinks";
  if (pattern.sinks != 0 && pattern.window_right > 0) return "patterns: this backend has no sinks";
  if (desc.softcap != 0 || desc.self_bias != 0 || desc.has_slopes != 0 || desc.has_bias != 0)
    return "this backend adds nothing to scores";
  if (desc.has_sink_logits != 0) return "has_sink_logits: this backend has none";
  if (desc.order_heads != 0) return "order_heads: this backend takes no orders";
  if (pattern.masks != 0 && (desc.block_q != kAttentionM || desc.block_k != kAttentionN)) {
    return "block_q and block_k: this backend takes 128 and 128";
  }
  if (pattern.masks != 0 && (desc.max_block_masks != 0 || desc.has_block_bias != 0)) {
    return "max_block_masks and has_block_bias: this backend takes whole blocks alone";
  }
  return nullptr;
}

// Where there is a single row its stride means nothing.
int64_t row_stride(const gtn_tensor_desc& tensor) { return tensor.shape[1] > 1 ? tensor.strides[1] : tensor.shape[3]; }

}  // namespace

bool attention_serves(const Device&, int32_t dtype) { return dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status attention_plan(Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message) {
  if (const char* why = missing(desc); why != nullptr) return fail(message, GTN_UNSUPPORTED, "%s", why);
  AttentionTiling t = {};
  t.heads_q = desc.q.shape[2], t.heads_k = desc.k.shape[2], t.dk = desc.q.shape[3], t.dv = desc.v.shape[3];
  t.q_batch = desc.q.strides[0], t.q_row = row_stride(desc.q), t.q_head = desc.q.strides[2];
  t.k_batch = desc.k.strides[0], t.k_row = row_stride(desc.k), t.k_head = desc.k.strides[2];
  t.v_batch = desc.v.strides[0], t.v_row = row_stride(desc.v), t.v_head = desc.v.strides[2];
  t.out_batch = desc.out.strides[0], t.out_row = row_stride(desc.out), t.out_head = desc.out.strides[2];
  t.lse_row = desc.q.shape[1];
  t.left = desc.patterns->window_left, t.right = desc.patterns->window_right;
  t.list_heads = desc.patterns->masks != 0 ? desc.block_heads : 0;
  t.list_tiles = (desc.q.shape[1] + kAttentionM - 1) / kAttentionM;
  t.list_entries = desc.max_blocks;
  t.scale = desc.scale;
  t.batch = desc.q.shape[0] > 0 ? desc.q.shape[0] : 1, t.len_q = desc.q.shape[1] > 0 ? desc.q.shape[1] : 1,
  t.len_k = desc.k.shape[1];
  if (!attention_tiling(&t)) {
    return fail(message, GTN_UNSUPPORTED,
                "q, k and v: head sizes %lld and %lld with rows of %lld, %lld and %lld elements; this backend takes head sizes "
                "of 1 to %d "
                "and rows from there to %lld",
                static_cast<long long>(t.dk), static_cast<long long>(t.dv), static_cast<long long>(t.q_row),
                static_cast<long long>(t.k_row), static_cast<long long>(t.v_row), static_cast<int>(kAttentionHead),
                static_cast<long long>(kAttentionStride));
  }
  char name[48];
  std::snprintf(name, sizeof name, "gatun_attention_%s_%s", type_name(desc.q.dtype), type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<AttentionPlan>(message, t, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  std::snprintf(name, sizeof name, "attention.%s%s.128x128", type_name(desc.q.dtype), t.list_heads > 0 ? ".blocks" : "");
  name_kernel(info, name);
  const double batch = static_cast<double>(desc.q.shape[0]), heads_q = static_cast<double>(t.heads_q),
               heads_k = static_cast<double>(t.heads_k);
  const double len_q = static_cast<double>(desc.q.shape[1]), len_k = static_cast<double>(t.len_k);
  const double dk = static_cast<double>(t.dk), dv = static_cast<double>(t.dv);
  const double pairs = desc.q.shape[1] == 0 ? 0 : batch * heads_q * visible_pairs(t);
  info->flops = 2 * pairs * (dk + dv);
  info->bytes = 2 * batch * (len_q * heads_q * dk + len_k * heads_k * (dk + dv)) +
                batch * len_q * heads_q * dv * static_cast<double>(element_bytes(desc.out.dtype));
  info->blocks = static_cast<int64_t>(pairs / (kAttentionM * kAttentionN));
  info->workspace_bytes = attention_workspace_bytes(AttentionPlan::blocks_of(device, t));
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
