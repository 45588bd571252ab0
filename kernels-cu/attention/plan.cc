// Attention plans: what the arguments mean, which kernel serves them, and how the work is cut.
#include "attention/plan.h"

#include <cstdio>
#include <cstring>

#include "attention/kernels.h"
#include "gemm/plan.h"

namespace gatun::gpu {
namespace {

using attention::Args;
using attention::Kernel;
using attention::kTileThreads;
using attention::Operand;
using attention::Pattern;

// Positions in kernels have 32 bits, with room for a window's reach.
constexpr int64_t kMostPositions = int64_t{1} << 29;
constexpr int64_t kMostHeadSize = int64_t{1} << 14;
constexpr int64_t kMostBlocksOfGrid = (int64_t{1} << 31) - 1;

// Few rows over many keys make few tiles, each of one long pass over the keys (decode): such passes are cut into parts of at least
// this many keys, which are merged by their log-sum-exps (split-KV, as in Flash-Decoding). How a sequence is cut depends on it
// alone, so that its result does not depend on what else is in the batch.
constexpr int64_t kPartKeys = 256;
constexpr int64_t kMostParts = 64;

int64_t at_most(int64_t value, int64_t bound) { return value < bound ? value : bound; }
int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

// The sum over query = 0 to n - 1 of clamp(query + shift, 0, top), in closed form: zeros, then a ramp, then a plateau.
double sum_clamped(int64_t n, int64_t shift, int64_t top) {
  const int64_t ramp = shift < 0 ? at_most(-shift, n) : 0;
  int64_t plateau = top - shift;
  plateau = plateau < ramp ? ramp : at_most(plateau, n);
  const double steps = static_cast<double>(plateau - ramp);
  const double ends = static_cast<double>(ramp + shift) + static_cast<double>(plateau - 1 + shift);
  return (steps > 0 ? steps * ends / 2 : 0.0) + static_cast<double>(n - plateau) * static_cast<double>(top);
}

// Visible pairs of one head, as far as the plan can tell: what the arrays of a run hide or lift is not known, and of a dilated
// window every step but one in `dilation` is counted out.
double visible_pairs(const Pattern& p, int64_t len_q, int64_t len_k) {
  const int64_t shift = len_k - len_q;
  const double dense = static_cast<double>(len_q) * static_cast<double>(len_k);
  double pairs = p.right < 0 ? dense : sum_clamped(len_q, shift + p.right + 1, len_k);
  pairs -= p.left < 0 ? 0.0 : sum_clamped(len_q, shift - p.left, len_k);
  pairs /= static_cast<double>(p.dilation);
  if (p.left >= 0) pairs += sum_clamped(len_q, shift - p.left, p.sinks);
  return pairs;
}

Pattern pattern_of(const gtn_attention_pattern& given, int64_t len_q, int64_t len_k) {
  // A window that reaches over all keys from anywhere is no window, and steps over all of them are one.
  const int64_t reach = len_q + len_k;
  const int64_t dilation = at_most(given.dilation, reach + 1);
  const auto keys = [&](int64_t window) {
    return narrow(window < 0 || window > reach / dilation ? -1 : window * dilation);
  };
  Pattern p = {};
  p.masks = given.masks;
  p.left = keys(given.window_left);
  p.right = keys(given.window_right);
  p.dilation = narrow(dilation);
  p.sinks = narrow(at_most(given.sinks, len_k));
  if (p.dilation == 1 && p.left < 0 && p.right <= 0) p.sinks = 0;
  return p;
}

bool same(const Pattern& a, const Pattern& b) {
  return a.masks == b.masks && a.left == b.left && a.right == b.right && a.dilation == b.dilation && a.sinks == b.sinks;
}

const gtn_attention_pattern& given_pattern(const gtn_attention_desc& desc, int64_t head) {
  const auto* bytes = reinterpret_cast<const char*>(desc.patterns) + head * desc.patterns->size;
  return *reinterpret_cast<const gtn_attention_pattern*>(bytes);
}

Operand operand_of(const gtn_tensor_desc& tensor) {
  if (tensor.rank == 4) return {nullptr, tensor.strides[0], tensor.strides[1], tensor.strides[2]};
  return {nullptr, 0, tensor.strides[0], tensor.strides[1]};
}

// Whether rows can be copied in 16 bytes, but for the address of the first.
bool copies_rows(const gtn_tensor_desc& tensor, int32_t element) {
  if (tensor.dtype != element) return false;
  for (int32_t d = 0; d + 1 < tensor.rank; ++d) {
    if (tensor.shape[d] > 1 && tensor.strides[d] * element_bytes(element) % 16 != 0) return false;
  }
  return true;
}

double elements_of(const gtn_tensor_desc& tensor) {
  double elements = 1;
  for (int32_t d = 0; d < tensor.rank; ++d) elements *= static_cast<double>(tensor.shape[d]);
  return elements;
}

class AttentionPlan final : public Plan {
 public:
  gtn_status make(const Device& device, const gtn_attention_desc& desc, gtn_plan_info* info, gtn_message* message) {
    gtn_status status = take_shape(desc, message);
    if (status == GTN_OK) status = take_patterns(desc, message);
    if (status == GTN_OK) status = choose_kernel(device, desc, message);
    if (status != GTN_OK) return status;
    for (const Choice& choice : {many_, few_}) {
      status = prepare(device.index, choice.kernel->attend, choice.shared_bytes, message);
      if (status == GTN_OK) status = prepare(device.index, choice.kernel->merge, attention::kTileBytes, message);
      if (status != GTN_OK) return status;
    }
    describe(device, desc, info);
    return GTN_OK;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_attention_args& from = *static_cast<const gtn_attention_args*>(arguments);
    if (from.sequences == 0 || from.len_q == 0 || args_.heads_q == 0) return GTN_OK;
    if (from.sequences >= kMostPositions) {
      return fail(message, GTN_UNSUPPORTED, "sequences: is %lld, this backend takes up to %lld",
                  static_cast<long long>(from.sequences), static_cast<long long>(kMostPositions - 1));
    }
    Args a = args_;
    take_arrays(from, &a);
    const Choice& choice = choice_for(a);
    const int64_t tiles = cut(*choice.kernel, &a);
    const int64_t blocks = tiles * a.units * a.columns;
    if (tiles > kMostBlocksOfGrid || blocks > kMostBlocksOfGrid || blocks * a.parts > kMostBlocksOfGrid) {
      return fail(message, GTN_UNSUPPORTED, "sequences and len_q: make %lld tiles, this backend takes up to %lld",
                  static_cast<long long>(blocks), static_cast<long long>(kMostBlocksOfGrid));
    }
    if (a.parts > 1) {
      void* partial = nullptr;
      if (gtn_status status = stream.scratch(partial_bytes(a), &partial, message); status != GTN_OK) return status;
      a.partial = static_cast<float*>(partial);
    }
    gtn_status status = launch(stream.queue, choice.kernel->attend, {blocks * a.parts}, kTileThreads, choice.shared_bytes, a, message);
    if (status == GTN_OK && a.parts > 1) {
      status = launch(stream.queue, choice.kernel->merge, {blocks}, kTileThreads, attention::kTileBytes, a, message);
    }
    return status;
  }

 private:
  // A kernel, and its shared memory for the plan's head sizes.
  struct Choice {
    const Kernel* kernel;
    int shared_bytes;
  };

  gtn_status take_shape(const gtn_attention_desc& desc, gtn_message* message) {
    Args& a = args_;
    const bool paged = desc.paged != 0;
    const int length = desc.q.rank == 3 ? 0 : 1;
    const int64_t len_q = desc.q.shape[length], len_k = paged ? desc.max_len_k : desc.k.shape[length];
    for (const int64_t size : {len_q, len_k, desc.q.shape[0], desc.k.shape[0], desc.max_globals, desc.max_tree,
                               desc.document_layers, desc.block_q, desc.block_k, desc.max_blocks, desc.max_block_masks}) {
      if (size < kMostPositions) continue;
      return fail(message, GTN_UNSUPPORTED, "a length, a count or a size of blocks: is %lld, this backend takes up to %lld",
                  static_cast<long long>(size), static_cast<long long>(kMostPositions - 1));
    }
    const int64_t dk = desc.q.shape[desc.q.rank - 1], dv = desc.v.shape[desc.v.rank - 1];
    if (dk > kMostHeadSize || dv > kMostHeadSize) {
      return fail(message, GTN_UNSUPPORTED, "q and v: have head sizes %lld and %lld, this backend takes up to %lld",
                  static_cast<long long>(dk), static_cast<long long>(dv), static_cast<long long>(kMostHeadSize));
    }
    a.q = operand_of(desc.q);
    a.k = operand_of(desc.k);
    a.v = operand_of(desc.v);
    a.out = operand_of(desc.out);
    a.packed_q = desc.q.rank == 3;
    a.packed_k = a.packed_q && !paged;
    a.planned_q = narrow(len_q);
    a.planned_k = narrow(len_k);
    a.heads_q = narrow(desc.q.shape[desc.q.rank - 2]);
    a.heads_k = narrow(desc.k.shape[desc.k.rank - 2]);
    a.per_key_head = a.heads_k > 0 ? a.heads_q / a.heads_k : 1;
    a.dk = narrow(dk);
    a.dv = narrow(dv);
    a.page_size = paged ? narrow(desc.k.shape[1]) : 1;
    a.pages = paged ? narrow(desc.k.shape[0]) : 0;
    a.pages_per_sequence = paged && a.page_size > 0 ? narrow(ceil_div(len_k, a.page_size)) : 0;
    a.lse_head = len_q;
    a.lse_sequence = a.packed_q ? 0 : int64_t{a.heads_q} * len_q;
    a.max_globals = narrow(desc.max_globals);
    a.max_tree = narrow(desc.max_tree);
    a.document_heads = narrow(desc.document_heads);
    a.document_layers = narrow(desc.document_layers);
    a.block_q = narrow(desc.block_q);
    a.block_k = narrow(desc.block_k);
    a.block_heads = narrow(desc.block_heads);
    a.max_blocks = narrow(desc.max_blocks);
    a.max_block_masks = narrow(desc.max_block_masks);
    a.order_heads = narrow(desc.order_heads);
    a.q_dtype = desc.q.dtype;
    a.k_dtype = desc.k.dtype;
    a.out_dtype = desc.out.dtype;
    a.scale = desc.scale;
    a.softcap = desc.softcap;
    a.self_bias = desc.self_bias;
    if (desc.has_bias != 0) {
      a.bias_dtype = desc.bias.dtype;
      a.bias_sequence = desc.bias.strides[0];
      a.bias_head = desc.bias.strides[1];
      a.bias_row = desc.bias.strides[2];
      a.bias_key = desc.bias.strides[3];
      a.bias_sequences = narrow(at_most(desc.bias.shape[0], kMostPositions));
      a.bias_queries = narrow(at_most(desc.bias.shape[2], kMostPositions));
      a.bias_keys = narrow(at_most(desc.bias.shape[3], kMostPositions));
    }
    return GTN_OK;
  }

  // Query heads of a key head share tiles where they share everything that decides what they see.
  gtn_status take_patterns(const gtn_attention_desc& desc, gtn_message* message) {
    Args& a = args_;
    const auto of_head = [&](int64_t head) {
      return pattern_of(given_pattern(desc, desc.pattern_count == 1 ? 0 : head), a.planned_q, a.planned_k);
    };
    bool share = true;
    const auto shares = [&](int64_t heads) { return heads < a.heads_q || a.per_key_head == 1; };
    uint32_t masks = 0;
    for (int64_t h = 0; h < desc.pattern_count; ++h) {
      const Pattern p = of_head(h);
      masks |= p.masks;
      share = share && (desc.pattern_count == 1 || same(p, of_head(h / a.per_key_head * a.per_key_head)));
    }
    if ((masks & GTN_MASK_BLOCKS) != 0) share = share && shares(desc.block_heads);
    if ((masks & GTN_MASK_DOCUMENTS) != 0) share = share && shares(desc.document_heads);
    if (desc.order_heads > 0) share = share && shares(desc.order_heads);
    a.group = share ? a.per_key_head : 1;
    a.units = a.heads_q / a.group;
    a.pattern_count = 0;
    if (desc.pattern_count > 1 && a.units > attention::kMostUnits) {
      return fail(message, GTN_UNSUPPORTED, "pattern_count: is %lld, this backend takes patterns for up to %d heads",
                  static_cast<long long>(desc.pattern_count), attention::kMostUnits);
    }
    for (int64_t unit = 0; unit < (desc.pattern_count == 1 ? 1 : a.units); ++unit) {
      Pattern p = of_head(unit * a.group);
      int32_t known = 0;
      while (known < a.pattern_count && !same(p, a.patterns[known])) ++known;
      if (known == attention::kMostPatterns) {
        return fail(message, GTN_UNSUPPORTED, "patterns: more than %d are different", attention::kMostPatterns);
      }
      if (known == a.pattern_count) a.patterns[a.pattern_count++] = p;
      a.pattern_of[unit] = static_cast<uint8_t>(known);
    }
    return GTN_OK;
  }

  gtn_status choose_kernel(const Device& device, const gtn_attention_desc& desc, gtn_message* message) {
    Args& a = args_;
    const bool k_bf16 = a.k_dtype == GTN_BF16 || a.k_dtype == GTN_S8, k_f16 = a.k_dtype == GTN_F16 && !flushes_halves(device);
    const int32_t element = a.q_dtype == GTN_BF16 && k_bf16 ? GTN_BF16 : a.q_dtype == GTN_F16 && k_f16 ? GTN_F16 : GTN_F32;
    const auto& kernels = element == GTN_BF16  ? attention::bf16_kernels
                          : element == GTN_F16 ? attention::f16_kernels
                                               : attention::f32_kernels;
    const auto choose = [&](const attention::KernelTable& table, Choice* choice) {
      // Of those that fit, the first that takes all values at once, or else the first with the most columns.
      for (int i = 0; i < table.count; ++i) {
        const Kernel& kernel = table.kernels[i];
        if (kernel.exact && (kernel.columns != a.dk || kernel.columns != a.dv)) continue;
        const int bytes = kernel.shared_bytes(a.dk, a.dv);
        if (choice->kernel != nullptr && choice->shared_bytes <= device.properties.shared_bytes &&
            (choice->kernel->columns >= at_most(a.dv, kernel.columns) || bytes > device.properties.shared_bytes)) {
          continue;
        }
        *choice = {&kernel, bytes};
      }
    };
#ifdef GATUN_GPU_HOPPER
    if (device.properties.arch == 90 && element != GTN_F32 && a.out_dtype != GTN_F32) {
      choose(attention::hopper_kernels(element == GTN_BF16), &many_);
    }
#endif
    choose(kernels(false), &many_);
    choose(kernels(true), &few_);
    if (many_.shared_bytes > device.properties.shared_bytes) many_ = few_;
    if (few_.shared_bytes > device.properties.shared_bytes) few_ = many_;
    if (many_.shared_bytes > device.properties.shared_bytes) {
      return fail(message, GTN_UNSUPPORTED,
                  "q and v: head sizes %d and %d in %s take %d bytes of shared memory, this device has %d", a.dk, a.dv,
                  type_name(element), many_.shared_bytes, device.properties.shared_bytes);
    }
    a.exact = a.out_dtype == GTN_F32 ? 1 : 0;
    copies_q_ = copies_rows(desc.q, element);
    copies_k_ = copies_rows(desc.k, element);
    copies_v_ = copies_rows(desc.v, element);
    return GTN_OK;
  }

  void take_arrays(const gtn_attention_args& from, Args* a) const {
    const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    a->q.data = const_cast<char*>(static_cast<const char*>(from.q));
    a->k.data = const_cast<char*>(static_cast<const char*>(from.k));
    a->v.data = const_cast<char*>(static_cast<const char*>(from.v));
    a->out.data = static_cast<char*>(from.out);
    a->q_copies = copies_q_ && aligned(from.q);
    a->k_copies = copies_k_ && aligned(from.k);
    a->v_copies = copies_v_ && aligned(from.v);
    a->lse = static_cast<float*>(from.lse);
    a->q_index = from.q_index;
    a->k_index = from.k_index;
    a->k_scales = from.k_scales;
    a->v_scales = from.v_scales;
    a->block_table = from.block_table;
    a->sink_logits = from.sink_logits;
    a->slopes = from.slopes;
    a->bias = static_cast<const char*>(from.bias);
    a->prefixes = from.prefixes;
    a->globals = from.globals;
    a->q_documents = from.q_documents;
    a->k_documents = from.k_documents;
    a->tree = from.tree;
    a->block_offsets = from.block_offsets;
    a->block_columns = from.block_columns;
    a->block_mask_index = from.block_mask_index;
    a->block_masks = from.block_masks;
    a->block_bias = from.block_bias;
    a->q_order = from.q_order;
    a->k_order = from.k_order;
    a->sequences = narrow(from.sequences);
    a->len_q = narrow(from.len_q);
    a->len_k = narrow(from.len_k);
  }

  // Rows of a sequence, or, where the run's arrays say how many each has, of one on average.
  static int64_t rows_of(const Args& a) {
    return (a.packed_q ? ceil_div(a.len_q, a.sequences) : a.len_q) * a.group;
  }

  const Choice& choice_for(const Args& a) const { return rows_of(a) <= few_.kernel->rows ? few_ : many_; }

  // Segments, tiles and parts of a run; returns the tiles of a unit in all sequences.
  static int64_t cut(const Kernel& kernel, Args* a) {
    a->columns = narrow(ceil_div(a->dv > 0 ? a->dv : 1, kernel.columns));
    a->search = a->packed_q;
    int64_t most = 0;
    for (int32_t i = 0; i < a->pattern_count; ++i) {
      Pattern& p = a->patterns[i];
      int64_t segments = 1, slots = a->len_q;
      if ((p.masks & GTN_MASK_BLOCKS) != 0) {
        segments = ceil_div(a->len_q, a->block_q);
        slots = at_most(a->block_q, a->len_q);
      } else if (p.dilation > 1 && a->order_heads == 0) {
        segments = at_most(p.dilation, a->len_q);
        slots = ceil_div(a->len_q, p.dilation);
      }
      const int64_t tiles = ceil_div(slots * a->group, kernel.rows);
      p.segments = narrow(segments);
      p.tiles_per_segment = narrow(tiles);
      if (segments > 1 || (p.masks & GTN_MASK_BLOCKS) != 0) a->search = 0;
      most = segments * tiles > most ? segments * tiles : most;
    }
    a->tiles = narrow(most);
    // A tile that two sequences share is one of each.
    const int64_t tiles = a->search ? most + a->sequences - 1 : most * a->sequences;

    a->parts = 1;
    a->part_blocks = narrow(ceil_div(kPartKeys, kernel.keys));
    if (rows_of(*a) <= kernel.rows) {
      int64_t blocks = 0;
      for (int32_t i = 0; i < a->pattern_count; ++i) {
        const int64_t visited = blocks_of_rows(*a, a->patterns[i], kernel.keys);
        blocks = visited > blocks ? visited : blocks;
      }
      a->parts = narrow(at_most(ceil_div(blocks, a->part_blocks), kMostParts));
      if (a->parts < 1) a->parts = 1;
    }
    return tiles;
  }

  // At most, of a tile that has all rows of a sequence.
  static int64_t blocks_of_rows(const Args& a, const Pattern& p, int64_t block) {
    if ((p.masks & GTN_MASK_BLOCKS) != 0) return 1;
    int64_t keys = a.len_k;
    if (p.left >= 0 && p.right >= 0 && p.dilation == 1 && a.order_heads == 0 &&
        (p.masks & (GTN_MASK_PREFIX | GTN_MASK_GLOBALS)) == 0) {
      keys = at_most(keys, int64_t{p.left} + p.right + a.len_q + p.sinks);
    }
    return ceil_div(keys, block);
  }

  static int64_t partial_bytes(const Args& a) {
    const int64_t tokens = a.packed_q ? a.len_q : int64_t{a.sequences} * a.len_q;
    return a.parts * tokens * a.heads_q * (a.dv + 2) * static_cast<int64_t>(sizeof(float));
  }

  void describe(const Device& device, const gtn_attention_desc& desc, gtn_plan_info* info) {
    const Args& a = args_;
    Args most = a;
    most.sequences = narrow(at_most(a.packed_q ? desc.max_sequences : desc.q.shape[0], kMostPositions - 1));
    most.len_q = a.planned_q;
    most.len_k = a.planned_k;
    const Kernel& kernel = *(most.sequences > 0 ? choice_for(most) : many_).kernel;
    char name[80];
    std::snprintf(name, sizeof name, "attention.%s%s%s%s%s%s.%dx%dx%d", type_name(a.q_dtype), a.k_dtype != a.q_dtype ? "." : "",
                  a.k_dtype != a.q_dtype ? type_name(a.k_dtype) : "", desc.paged != 0 ? ".paged" : "",
                  a.order_heads > 0 ? ".ordered" : "", a.block_heads > 0 ? ".blocks" : "", kernel.rows,
                  kernel.keys, kernel.columns);
    name_kernel(info, device, name);
    // Packed, the most work is one sequence of all tokens.
    const double copies = a.packed_q ? (desc.max_sequences > 0 ? 1.0 : 0.0) : static_cast<double>(desc.q.shape[0]);
    double pairs = 0;
    for (int32_t unit = 0; unit < a.units; ++unit) {
      pairs += a.group * visible_pairs(a.patterns[a.pattern_count == 1 ? 0 : a.pattern_of[unit]], a.planned_q, a.planned_k);
    }
    info->flops = 2.0 * copies * pairs * static_cast<double>(a.dk + a.dv);
    info->bytes = elements_of(desc.q) * static_cast<double>(element_bytes(desc.q.dtype)) +
                  elements_of(desc.k) * static_cast<double>(element_bytes(desc.k.dtype)) +
                  elements_of(desc.v) * static_cast<double>(element_bytes(desc.v.dtype)) +
                  elements_of(desc.out) * static_cast<double>(element_bytes(desc.out.dtype));
    info->blocks = static_cast<int64_t>(copies * pairs / kernel.rows / kernel.keys);
    // Parts take the most where rows are as many as a tile has.
    for (const Choice& choice : {many_, few_}) {
      if (most.sequences == 0 || a.group == 0) break;
      most.len_q = narrow(at_most(a.planned_q, choice.kernel->rows / a.group * int64_t{a.packed_q ? most.sequences : 1}));
      if (most.len_q == 0) continue;
      cut(*choice.kernel, &most);
      const int64_t bytes = most.parts > 1 ? partial_bytes(most) : 0;
      info->workspace_bytes = bytes > info->workspace_bytes ? bytes : info->workspace_bytes;
    }
  }

  Args args_ = {};
  Choice many_ = {}, few_ = {};  // rows; the same where only one fits the device
  bool copies_q_ = false, copies_k_ = false, copies_v_ = false;
};

}  // namespace

bool attention_serves(const Device&, int32_t q_dtype) {
  return q_dtype == GTN_F32 || q_dtype == GTN_BF16 || q_dtype == GTN_F16;
}

gtn_status attention_plan(Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message) {
  auto created = make_plan<AttentionPlan>(message);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const gtn_status status = created->make(device, desc, info, message);
  if (status == GTN_OK) *plan = created.release();
  return status;
}

}  // namespace gatun::gpu
