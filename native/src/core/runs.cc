// The hot path: from the public run functions to the backend, with one compare-and-swap, a few loads and comparisons.
#include <algorithm>
#include <cstdio>

#include "core/objects.h"

namespace gatun {
namespace {

const char* const kOperators[] = {"none", "gemm", "attention", "norm", "softmax", "activation", "merge", "rope",
                                   "select", "route", "mix", "glu", "conv", "pooling", "fake_quantize"};

// A plan of operator `op` on a stream, held together for one run. After status() is GTN_OK both may be used.
class Run {
 public:
  Run(int32_t op, gtn_plan plan, gtn_stream stream, gtn_weights packed = 0) : stream_(stream, plan, packed) {
    if ((status_ = stream_.status()) != GTN_OK) return;
    const Slot* slot = plans.slot(plan);
    if (slot == nullptr || !still_open(*slot, plan)) {
      status_ = GTN_STALE_HANDLE;
      return;
    }
    plan_ = static_cast<const Plan*>(slot->object);
    if (plan_->op != op) {
      status_ = fail(message(), GTN_INVALID_ARGUMENT, "plan: is for %s, expected %s", kOperators[plan_->op], kOperators[op]);
    } else if (plan_->device != stream_->device) {
      status_ = fail(message(), GTN_INVALID_ARGUMENT, "stream: is on another device than the plan");
    }
  }

  gtn_status status() const { return status_; }
  const Plan& plan() const { return *plan_; }
  gtn_message* message() const { return &stream_->message; }

  gtn_status with(const void* args) const {
    return plan_->device->backend->run(plan_->impl, stream_->impl, args, message());
  }

 private:
  HeldStream stream_;
  const Plan* plan_ = nullptr;
  gtn_status status_;
};

// Memory of one run, to check outputs against everything else.
struct Region {
  const char* name;
  const Extent& extent;
  const void* at;
  int64_t rows;
};

gtn_status check_apart(gtn_message* message, const Region& output, const Region& other) {
  if (other.at == nullptr || !overlap(output.extent, output.at, output.rows, other.extent, other.at, other.rows)) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: overlaps %s (%p and %p)", output.name, other.name, output.at, other.at);
}

// Apart, or the same memory in the same layout.
gtn_status check_apart_or_equal(gtn_message* message, const Region& output, const Region& other) {
  if (other.at == output.at && other.extent.element == output.extent.element && other.extent.pitch == output.extent.pitch) {
    return GTN_OK;
  }
  return check_apart(message, output, other);
}

// A count of the run against an array that need not be as large as the plan's maxima.
gtn_status check_reach(gtn_message* message, const char* name, int64_t value, int64_t most, const char* array) {
  if (value <= most) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: is %lld, expected at most %lld, the most that %s takes", name,
              static_cast<long long>(value), static_cast<long long>(most), array);
}

// "F32 [24, 18]", or "F32 [8, 24, 18]" of groups, or "U4 in groups of 32 [24, 18]".
struct WeightsText {
  char text[128];

  WeightsText(int32_t format, int64_t group_size, int64_t groups, int64_t k, int64_t n) {
    char in[40] = "", of[32] = "";
    if (group_size > 0) std::snprintf(in, sizeof in, " in groups of %lld", static_cast<long long>(group_size));
    if (groups > 0) std::snprintf(of, sizeof of, "%lld, ", static_cast<long long>(groups));
    std::snprintf(text, sizeof text, "%s%s [%s%lld, %lld]", dtype_name(format), in, of, static_cast<long long>(k),
                  static_cast<long long>(n));
  }
};

// What weights of convolutions must have in common with a plan: "BF16 [64, 16, 3, 3] in 4 groups".
struct ConvWeights {
  int32_t format, spatial;
  int64_t n, groups, k;
  const int64_t* kernel;

  bool operator==(const ConvWeights& other) const {
    return format == other.format && spatial == other.spatial && n == other.n && groups == other.groups && k == other.k &&
           std::equal(kernel, kernel + spatial, other.kernel);
  }

  struct Text {
    char text[128];
  };
  Text text() const {
    Text to;
    int64_t channels = k;
    for (int d = 0; d < spatial; ++d) channels /= kernel[d];
    int length = std::snprintf(to.text, sizeof to.text, "%s [%lld, %lld", dtype_name(format), static_cast<long long>(n),
                               static_cast<long long>(channels));
    for (int d = 0; d < spatial; ++d) {
      length += std::snprintf(to.text + length, sizeof to.text - static_cast<size_t>(length), ", %lld",
                              static_cast<long long>(kernel[d]));
    }
    std::snprintf(to.text + length, sizeof to.text - static_cast<size_t>(length), "] in %lld groups",
                  static_cast<long long>(groups));
    return to;
  }
};

// An array of `count` times `times` elements without gaps. A plan may be of more elements than there are bytes to address.
Extent dense(int64_t element, int64_t count, int64_t times = 1) {
  int64_t bytes;
  if (__builtin_mul_overflow(count, times, &bytes) || __builtin_mul_overflow(bytes, element, &bytes)) bytes = INT64_MAX;
  return {element, bytes, bytes, true};
}

// What a GEMM may be run with.
struct GemmArrays {
  const void *group_offsets, *row_index, *lora_a, *lora_b, *scales, *zero_points;
};

gtn_status run_gemm(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t rows, int64_t rows_a, const void* a,
                    const void* bias, const void* residual, void* out, const GemmArrays& arrays) {
  Run run(GTN_OP_GEMM, plan, stream, packed);
  if (run.status() != GTN_OK) return run.status();
  const Slot* slot = weights.slot(packed);
  if (slot == nullptr || !still_open(*slot, packed)) return GTN_STALE_HANDLE;
  const Weights& w = *static_cast<const Weights*>(slot->object);
  const Plan& self = run.plan();
  const gtn_gemm_desc& desc = self.gemm;
  gtn_message* message = run.message();
  const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
  if (w.device != self.device) return fail(message, GTN_INVALID_ARGUMENT, "weights: are on another device than the plan");
  if (w.op != GTN_OP_GEMM) return fail(message, GTN_INVALID_ARGUMENT, "weights: are for %s, expected gemm", kOperators[w.op]);
  if (w.info.format != desc.format || w.info.group_size != desc.group_size || w.info.k != k || w.info.n != n ||
      w.info.groups != desc.groups) {
    return fail(message, GTN_INVALID_ARGUMENT, "weights: are %s, expected the plan's %s",
                WeightsText(w.info.format, w.info.group_size, w.info.groups, w.info.k, w.info.n).text,
                WeightsText(desc.format, desc.group_size, desc.groups, k, n).text);
  }
  GATUN_CHECK(check_count(message, "rows", rows, desc.out.shape[0]));
  GATUN_CHECK(check_pointer(message, "group_offsets", arrays.group_offsets, desc.groups > 0, 8));
  const bool indexed = desc.has_row_index && (arrays.row_index != nullptr || rows > 0);
  GATUN_CHECK(check_pointer(message, "row_index", arrays.row_index, indexed, 4));
  if (desc.has_row_index) {
    GATUN_CHECK(check_count(message, "rows_a", rows_a, desc.a.shape[0]));
  } else if (rows_a != rows) {
    return fail(message, GTN_INVALID_ARGUMENT, "rows_a: is %lld, expected the %lld of rows, since the plan has no row_index",
                static_cast<long long>(rows_a), static_cast<long long>(rows));
  }
  if (rows == 0 || n == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "a", a, a != nullptr || (k > 0 && rows_a > 0), self.x.element));
  GATUN_CHECK(check_pointer(message, "bias", bias, desc.has_bias != 0, 4));
  GATUN_CHECK(check_pointer(message, "residual", residual, desc.has_residual != 0, self.out.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const Region output = {"out", self.out, out, rows};
  GATUN_CHECK(check_apart(message, output, {"a", self.x, a, rows_a}));
  const Extent floats = dense(4, n, desc.groups > 0 ? desc.groups : 1);
  GATUN_CHECK(check_apart(message, output, {"bias", floats, bias, 1}));
  GATUN_CHECK(check_apart_or_equal(message, output, {"residual", self.out, residual, rows}));
  const int64_t factor = desc.rank > 0 ? element_size(desc.lora_dtype) : 1;
  GATUN_CHECK(check_pointer(message, "lora_a", arrays.lora_a, desc.rank > 0 && (arrays.lora_a != nullptr || k > 0), factor));
  GATUN_CHECK(check_pointer(message, "lora_b", arrays.lora_b, desc.rank > 0, factor));
  const Extent offsets = dense(8, desc.groups + 1), index = dense(4, rows);
  const Extent down = dense(factor, k, desc.rank), up = dense(factor, desc.rank, n);
  GATUN_CHECK(check_apart(message, output, {"group_offsets", offsets, arrays.group_offsets, 1}));
  GATUN_CHECK(check_apart(message, output, {"row_index", index, arrays.row_index, 1}));
  GATUN_CHECK(check_apart(message, output, {"lora_a", down, arrays.lora_a, 1}));
  GATUN_CHECK(check_apart(message, output, {"lora_b", up, arrays.lora_b, 1}));
  const bool quantized = desc.a.dtype == GTN_U8;
  const bool some = quantized && rows_a > 0;
  GATUN_CHECK(check_pointer(message, "scales", arrays.scales, arrays.scales == nullptr ? some : quantized, 4));
  GATUN_CHECK(check_pointer(message, "zero_points", arrays.zero_points, arrays.zero_points == nullptr ? some : quantized, 4));
  const Extent words = dense(4, rows_a);
  GATUN_CHECK(check_apart(message, output, {"scales", words, arrays.scales, 1}));
  GATUN_CHECK(check_apart(message, output, {"zero_points", words, arrays.zero_points, 1}));
  const gtn_gemm_args args = {w.impl, rows, a, bias, residual, out, rows_a, static_cast<const int64_t*>(arrays.group_offsets),
                              static_cast<const int32_t*>(arrays.row_index), arrays.lora_a, arrays.lora_b,
                              static_cast<const float*>(arrays.scales), static_cast<const int32_t*>(arrays.zero_points)};
  return run.with(&args);
}

gtn_status run_norm(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual, const void* gamma,
                    const void* beta, void* out, void* sum, void* scales, void* zero_points) {
  Run run(GTN_OP_NORM, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_norm_desc& desc = self.norm;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "rows", rows, desc.x.shape[0]));
  if (rows == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "x", x, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "residual", residual, desc.has_residual != 0, self.x.element));
  GATUN_CHECK(check_pointer(message, "gamma", gamma, true, 4));
  GATUN_CHECK(check_pointer(message, "beta", beta, desc.has_beta != 0, 4));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  GATUN_CHECK(check_pointer(message, "sum", sum, desc.has_sum != 0, self.x.element));
  const bool quantized = desc.out.dtype == GTN_U8;
  GATUN_CHECK(check_pointer(message, "scales", scales, quantized, 4));
  GATUN_CHECK(check_pointer(message, "zero_points", zero_points, quantized, 4));
  const Extent floats = dense(4, desc.x.shape[1]), words = dense(4, rows);
  const Region input = {"x", self.x, x, rows}, added = {"residual", self.x, residual, rows};
  const Region scale = {"gamma", floats, gamma, 1}, shift = {"beta", floats, beta, 1};
  const Region output = {"out", self.out, out, rows}, total = {"sum", self.x, sum, rows};
  GATUN_CHECK(check_apart_or_equal(message, output, input));
  GATUN_CHECK(check_apart_or_equal(message, output, added));
  GATUN_CHECK(check_apart(message, output, scale));
  GATUN_CHECK(check_apart(message, output, shift));
  if (sum != nullptr) {
    GATUN_CHECK(check_apart(message, output, total));
    GATUN_CHECK(check_apart_or_equal(message, total, input));
    GATUN_CHECK(check_apart_or_equal(message, total, added));
    GATUN_CHECK(check_apart(message, total, scale));
    GATUN_CHECK(check_apart(message, total, shift));
  }
  if (quantized) {
    const Region steps = {"scales", words, scales, 1}, zeros = {"zero_points", words, zero_points, 1};
    for (const Region& written : {steps, zeros}) {
      for (const Region& other : {input, added, scale, shift, output, total}) GATUN_CHECK(check_apart(message, written, other));
    }
    GATUN_CHECK(check_apart(message, steps, zeros));
  }
  const gtn_norm_args args = {rows, x, residual, gamma, beta, out, sum, static_cast<float*>(scales),
                              static_cast<int32_t*>(zero_points)};
  return run.with(&args);
}

}  // namespace
}  // namespace gatun

using namespace gatun;

gtn_status gtn_gemm_run(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t rows, const void* a, const void* bias,
                        const void* residual, void* out) {
  return gtn_gemm_run_with(plan, stream, packed, rows, rows, a, bias, residual, out, nullptr, nullptr, nullptr, nullptr);
}

gtn_status gtn_gemm_run_with(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t rows, int64_t rows_a, const void* a,
                             const void* bias, const void* residual, void* out, const void* group_offsets,
                             const void* row_index, const void* lora_a, const void* lora_b) {
  const GemmArrays arrays = {group_offsets, row_index, lora_a, lora_b, nullptr, nullptr};
  return run_gemm(plan, stream, packed, rows, rows_a, a, bias, residual, out, arrays);
}

gtn_status gtn_gemm_run_quantized(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t rows, int64_t rows_a,
                                  const void* a, const void* scales, const void* zero_points, const void* bias,
                                  const void* residual, void* out, const void* group_offsets, const void* row_index) {
  const GemmArrays arrays = {group_offsets, row_index, nullptr, nullptr, scales, zero_points};
  return run_gemm(plan, stream, packed, rows, rows_a, a, bias, residual, out, arrays);
}

gtn_status gtn_attention_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                             const void* q_index, const void* k_index, const void* q, const void* k, const void* v, void* out,
                             void* lse) {
  return gtn_attention_run_with(plan, stream, sequences, len_q, len_k, q_index, k_index, q, k, v, out, lse, nullptr, nullptr,
                                nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
}

gtn_status gtn_attention_run_with(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                                  const void* q_index, const void* k_index, const void* q, const void* k, const void* v,
                                  void* out, void* lse, const void* k_scales, const void* v_scales, const void* block_table,
                                  const void* sink_logits, const void* slopes, const void* bias, const void* prefixes,
                                  const void* globals, const void* q_documents, const void* k_documents, const void* tree,
                                  const void* block_offsets, const void* block_columns, const void* block_mask_index,
                                  const void* block_masks, const void* block_bias, const void* q_order, const void* k_order) {
  Run run(GTN_OP_ATTENTION, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_attention_desc& desc = self.attention;
  gtn_message* message = run.message();
  const bool packed = desc.q.rank == 3, paged = desc.paged != 0;
  const int64_t planned_q = desc.q.shape[packed ? 0 : 1], heads_q = desc.q.shape[packed ? 1 : 2];
  const int64_t planned_k = paged ? desc.max_len_k : desc.k.shape[packed ? 0 : 1];
  GATUN_CHECK(check_count(message, "sequences", sequences, packed ? desc.max_sequences : desc.q.shape[0]));
  GATUN_CHECK(check_count(message, "len_q", len_q, planned_q));
  GATUN_CHECK(check_count(message, "len_k", len_k, planned_k));
  GATUN_CHECK(check_pointer(message, "q_index", q_index, q_index != nullptr || packed, 8));
  GATUN_CHECK(check_pointer(message, "k_index", k_index, k_index != nullptr || packed || paged, 8));
  if (sequences == 0 || len_q == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "q", q, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "k", k, k != nullptr || len_k > 0, self.k.element));
  GATUN_CHECK(check_pointer(message, "v", v, v != nullptr || len_k > 0, self.v.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  GATUN_CHECK(check_pointer(message, "lse", lse, lse != nullptr, 4));
  // Lengths in index arrays are the backend's to check; those of all sequences are not.
  if (self.masks & GTN_MASK_TREE && q_index == nullptr) {
    GATUN_CHECK(check_reach(message, "len_q", len_q, desc.max_tree, "the tree"));
  }
  if (desc.has_bias) {
    GATUN_CHECK(check_reach(message, "sequences", sequences, desc.bias.shape[0], "bias"));
    if (q_index == nullptr) GATUN_CHECK(check_reach(message, "len_q", len_q, desc.bias.shape[2], "bias"));
    if (k_index == nullptr) GATUN_CHECK(check_reach(message, "len_k", len_k, desc.bias.shape[3], "bias"));
  }
  const auto rows = [&](const Extent& extent, int64_t length, int64_t planned) {
    return packed ? length : rows_of(extent, sequences, length, planned);
  };
  const auto rows_k = [&](const Extent& extent) {
    return paged ? rows_of(extent, desc.k.shape[0], desc.k.shape[1], desc.k.shape[1]) : rows(extent, len_k, planned_k);
  };
  const Extent lengths = dense(8, sequences), offsets = dense(8, sequences < INT64_MAX ? sequences + 1 : sequences);
  const Extent logs = dense(4, heads_q * planned_q, packed ? 1 : sequences);
  const Region output = {"out", self.out, out, rows(self.out, len_q, planned_q)};
  const Region sums = {"lse", logs, lse, 1};
  const auto check_input = [&](const Region& input) {
    GATUN_CHECK(check_apart(message, output, input));
    return lse == nullptr ? GTN_OK : check_apart(message, sums, input);
  };
  for (const Region& input : {Region{"q", self.x, q, rows(self.x, len_q, planned_q)},
                              {"k", self.k, k, rows_k(self.k)},
                              {"v", self.v, v, rows_k(self.v)},
                              {"q_index", packed ? offsets : lengths, q_index, 1},
                              {"k_index", packed && !paged ? offsets : lengths, k_index, 1}}) {
    GATUN_CHECK(check_input(input));
  }
  GATUN_CHECK(check_apart(message, output, sums));
  const struct {
    const char* name;
    const void* at;
  } further[kAttentionArrays] = {
      {"k_scales", k_scales}, {"v_scales", v_scales}, {"block_table", block_table}, {"sink_logits", sink_logits},
      {"slopes", slopes}, {"bias", bias}, {"prefixes", prefixes}, {"globals", globals}, {"q_documents", q_documents},
      {"k_documents", k_documents}, {"tree", tree}, {"block_offsets", block_offsets}, {"block_columns", block_columns},
      {"block_mask_index", block_mask_index}, {"block_masks", block_masks}, {"block_bias", block_bias}, {"q_order", q_order},
      {"k_order", k_order},
  };
  for (int i = 0; i < kAttentionArrays; ++i) {
    const RunArray& array = self.arrays[i];
    const void* at = further[i].at;
    if (!array.wanted && at == nullptr) continue;
    const int64_t count = array.per_sequence ? sequences : 1;
    const bool wanted = array.wanted && (at != nullptr || extent_bytes(array.extent, count) > 0);
    GATUN_CHECK(check_pointer(message, further[i].name, at, wanted, array.extent.element));
    GATUN_CHECK(check_input({further[i].name, array.extent, at, count}));
  }
  const gtn_attention_args args = {sequences, len_q, len_k,
                                   static_cast<const int64_t*>(q_index), static_cast<const int64_t*>(k_index),
                                   q, k, v, out, lse,
                                   static_cast<const float*>(k_scales), static_cast<const float*>(v_scales),
                                   static_cast<const int32_t*>(block_table),
                                   static_cast<const float*>(sink_logits), static_cast<const float*>(slopes),
                                   bias,
                                   static_cast<const int64_t*>(prefixes),
                                   static_cast<const int32_t*>(globals),
                                   static_cast<const int32_t*>(q_documents), static_cast<const int32_t*>(k_documents),
                                   static_cast<const uint8_t*>(tree),
                                   static_cast<const int64_t*>(block_offsets), static_cast<const int32_t*>(block_columns),
                                   static_cast<const int32_t*>(block_mask_index), static_cast<const uint8_t*>(block_masks),
                                   static_cast<const float*>(block_bias),
                                   static_cast<const int32_t*>(q_order), static_cast<const int32_t*>(k_order)};
  return run.with(&args);
}

gtn_status gtn_select_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                          const void* q_index, const void* k_index, const void* q, const void* k, void* block_offsets,
                          void* block_columns, void* block_bias, void* q_order, void* k_order, void* q_documents,
                          void* k_documents) {
  Run run(GTN_OP_SELECT, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_select_desc& desc = self.select;
  gtn_message* message = run.message();
  const bool packed = desc.q.rank == 3;
  const int64_t planned_q = desc.q.shape[packed ? 0 : 1], planned_k = desc.k.shape[packed ? 0 : 1];
  GATUN_CHECK(check_count(message, "sequences", sequences, packed ? desc.max_sequences : desc.q.shape[0]));
  GATUN_CHECK(check_count(message, "len_q", len_q, planned_q));
  GATUN_CHECK(check_count(message, "len_k", len_k, planned_k));
  GATUN_CHECK(check_pointer(message, "q_index", q_index, q_index != nullptr || packed, 8));
  GATUN_CHECK(check_pointer(message, "k_index", k_index, k_index != nullptr || packed, 8));
  const bool some = sequences > 0;
  GATUN_CHECK(check_pointer(message, "q", q, q != nullptr || (some && len_q > 0), self.x.element));
  GATUN_CHECK(check_pointer(message, "k", k, k != nullptr || (some && len_k > 0), self.k.element));
  const auto rows = [&](const Extent& extent, int64_t length, int64_t planned) {
    return !some || length == 0 ? 0 : packed ? length : rows_of(extent, sequences, length, planned);
  };
  const Extent lengths = dense(8, sequences), offsets = dense(8, sequences < INT64_MAX ? sequences + 1 : sequences);
  const Region inputs[] = {{"q", self.x, q, rows(self.x, len_q, planned_q)},
                           {"k", self.k, k, rows(self.k, len_k, planned_k)},
                           {"q_index", packed ? offsets : lengths, q_index, 1},
                           {"k_index", packed ? offsets : lengths, k_index, 1}};
  const struct {
    const char* name;
    const void* at;
    AttentionArray which;
  } outputs[] = {{"block_offsets", block_offsets, kBlockOffsets}, {"block_columns", block_columns, kBlockColumns},
                 {"block_bias", block_bias, kBlockBias},          {"q_order", q_order, kQOrder},
                 {"k_order", k_order, kKOrder},                   {"q_documents", q_documents, kQDocuments},
                 {"k_documents", k_documents, kKDocuments}};
  // Without sequences there is one offset, and nothing else.
  const auto region = [&](const auto& output) {
    const RunArray& array = self.arrays[output.which];
    static constexpr Extent kOneOffset = {8, 8, 8, true};
    if (!some && output.which == kBlockOffsets) return Region{output.name, kOneOffset, output.at, 1};
    return Region{output.name, array.extent, output.at, array.per_sequence ? sequences : some};
  };
  for (const auto& output : outputs) {
    const bool wanted = self.arrays[output.which].wanted;
    if (!wanted && output.at == nullptr) continue;
    const Region written = region(output);
    GATUN_CHECK(check_pointer(message, output.name, output.at,
                              wanted && (output.at != nullptr || extent_bytes(written.extent, written.rows) > 0),
                              written.extent.element));
    for (const Region& input : inputs) GATUN_CHECK(check_apart(message, written, input));
    for (const auto* other = outputs; other != &output; ++other) GATUN_CHECK(check_apart(message, written, region(*other)));
  }
  const gtn_select_args args = {sequences, len_q, len_k,
                                static_cast<const int64_t*>(q_index), static_cast<const int64_t*>(k_index), q, k,
                                static_cast<int64_t*>(block_offsets), static_cast<int32_t*>(block_columns),
                                static_cast<float*>(block_bias), static_cast<int32_t*>(q_order),
                                static_cast<int32_t*>(k_order), static_cast<int32_t*>(q_documents),
                                static_cast<int32_t*>(k_documents)};
  return run.with(&args);
}

gtn_status gtn_merge_run(gtn_plan plan, gtn_stream stream, int64_t parts, int64_t batch, int64_t length, const void* x,
                         const void* x_lse, const void* sink_logits, void* out, void* lse) {
  Run run(GTN_OP_MERGE, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_merge_desc& desc = self.merge;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "parts", parts, desc.x.shape[0]));
  GATUN_CHECK(check_count(message, "batch", batch, desc.x.shape[1]));
  GATUN_CHECK(check_count(message, "length", length, desc.x.shape[2]));
  if (batch == 0 || length == 0) return GTN_OK;
  const int64_t heads = desc.x.shape[3];
  const Extent terms = range_of(desc.x, {parts, batch, length}), logs = range_of(desc.x_lse, {parts, batch, heads, length});
  const Extent merged = range_of(desc.out, {batch, length}), sums = range_of(desc.lse, {batch, heads, length});
  const Extent floats = dense(4, heads);
  GATUN_CHECK(check_pointer(message, "x", x, x != nullptr || parts > 0, terms.element));
  GATUN_CHECK(check_pointer(message, "x_lse", x_lse, x_lse != nullptr || parts > 0, 4));
  GATUN_CHECK(check_pointer(message, "sink_logits", sink_logits, desc.has_sink_logits != 0, 4));
  GATUN_CHECK(check_pointer(message, "out", out, true, merged.element));
  GATUN_CHECK(check_pointer(message, "lse", lse, lse != nullptr, 4));
  const Region output = {"out", merged, out, 1};
  const Region total = {"lse", sums, lse, 1}, input = {"x", terms, x, 1}, input_logs = {"x_lse", logs, x_lse, 1};
  const Region sink = {"sink_logits", floats, sink_logits, 1};
  if (out != x || parts > self.in_place) GATUN_CHECK(check_apart(message, output, input));
  GATUN_CHECK(check_apart(message, output, input_logs));
  GATUN_CHECK(check_apart(message, output, sink));
  if (lse != nullptr) {
    GATUN_CHECK(check_apart(message, output, total));
    GATUN_CHECK(check_apart(message, total, input));
    if (lse != x_lse || parts > self.lse_in_place) GATUN_CHECK(check_apart(message, total, input_logs));
    GATUN_CHECK(check_apart(message, total, sink));
  }
  const gtn_merge_args args = {parts, batch, length, x, static_cast<const float*>(x_lse),
                               static_cast<const float*>(sink_logits), out, static_cast<float*>(lse)};
  return run.with(&args);
}

gtn_status gtn_rope_run(gtn_plan plan, gtn_stream stream, int64_t tokens, const void* positions, const void* table,
                        const void* slots, const void* q, const void* k, const void* v, void* q_out, void* k_cache,
                        void* v_cache, void* k_scales, void* v_scales) {
  Run run(GTN_OP_ROPE, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_rope_desc& desc = self.rope;
  gtn_message* message = run.message();
  const bool has_q = desc.has_q != 0, has_k = desc.has_k != 0, has_v = desc.has_v != 0;
  GATUN_CHECK(check_count(message, "tokens", tokens, has_q ? desc.q.shape[0] : desc.k.shape[0]));
  if (tokens == 0) return GTN_OK;
  const bool k_scaled = has_k && desc.k_cache.dtype == GTN_S8, v_scaled = has_v && desc.v_cache.dtype == GTN_S8;
  GATUN_CHECK(check_pointer(message, "positions", positions, true, 8));
  GATUN_CHECK(check_pointer(message, "table", table, table != nullptr || desc.rotary > 0, 4));
  GATUN_CHECK(check_pointer(message, "slots", slots, slots != nullptr && (has_k || has_v), 8));
  GATUN_CHECK(check_pointer(message, "q", q, has_q, self.x.element));
  GATUN_CHECK(check_pointer(message, "k", k, has_k, self.k.element));
  GATUN_CHECK(check_pointer(message, "v", v, has_v, self.v.element));
  GATUN_CHECK(check_pointer(message, "q_out", q_out, has_q, self.out.element));
  // A cache without pages takes no token.
  const int64_t* cache = has_k ? desc.k_cache.shape : desc.v_cache.shape;
  const int64_t pages = has_k || has_v ? cache[0] : 0, page = pages > 0 ? cache[1] : 0;
  GATUN_CHECK(check_pointer(message, "k_cache", k_cache, has_k && (k_cache != nullptr || pages > 0), self.k_cache.element));
  GATUN_CHECK(check_pointer(message, "v_cache", v_cache, has_v && (v_cache != nullptr || pages > 0), self.v_cache.element));
  GATUN_CHECK(check_pointer(message, "k_scales", k_scales, k_scaled && (k_scales != nullptr || pages > 0), 4));
  GATUN_CHECK(check_pointer(message, "v_scales", v_scales, v_scaled && (v_scales != nullptr || pages > 0), 4));
  if (slots == nullptr && (has_k || has_v)) {
    GATUN_CHECK(check_reach(message, "tokens", tokens, pages * page, "a cache without slots"));
  }
  const Extent integers = dense(8, tokens), angles = dense(4, desc.max_position, desc.rotary);
  const Extent scales = dense(4, pages * page, has_k ? desc.k.shape[1] : desc.v.shape[1]);
  const Region outputs[] = {{"q_out", self.out, q_out, tokens},
                            {"k_cache", self.k_cache, k_cache, rows_of(self.k_cache, pages, page, page)},
                            {"v_cache", self.v_cache, v_cache, rows_of(self.v_cache, pages, page, page)},
                            {"k_scales", scales, k_scales, 1},
                            {"v_scales", scales, v_scales, 1}};
  const Region inputs[] = {{"q", self.x, q, tokens},
                           {"k", self.k, k, tokens},
                           {"v", self.v, v, tokens},
                           {"positions", integers, positions, 1},
                           {"table", angles, table, 1},
                           {"slots", integers, slots, 1}};
  const bool in_place = q_out == q && self.in_place > 0;
  for (const Region& output : outputs) {
    if (output.at == nullptr) continue;
    for (const Region& input : inputs) {
      if (in_place && &output == outputs && &input == inputs) continue;
      GATUN_CHECK(check_apart(message, output, input));
    }
    for (const Region* other = outputs; other != &output; ++other) GATUN_CHECK(check_apart(message, output, *other));
  }
  const gtn_rope_args args = {tokens, static_cast<const int64_t*>(positions), static_cast<const float*>(table),
                              static_cast<const int64_t*>(slots), q, k, v, q_out, k_cache, v_cache,
                              static_cast<float*>(k_scales), static_cast<float*>(v_scales)};
  return run.with(&args);
}

gtn_status gtn_route_run(gtn_plan plan, gtn_stream stream, int64_t tokens, const void* x, const void* bias, void* experts,
                         void* shares, void* offsets, void* rows, void* slots) {
  Run run(GTN_OP_ROUTE, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_route_desc& desc = self.route;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "tokens", tokens, desc.x.shape[0]));
  const int64_t most = INT32_MAX / desc.top;
  if (tokens > most) {
    return fail(message, GTN_INVALID_ARGUMENT, "tokens: is %lld, expected at most %lld, for which rows have numbers of 31 bits",
                static_cast<long long>(tokens), static_cast<long long>(most));
  }
  // Without tokens there are offsets all the same.
  const bool some = tokens > 0;
  GATUN_CHECK(check_pointer(message, "x", x, x != nullptr || some, self.x.element));
  GATUN_CHECK(check_pointer(message, "bias", bias, desc.has_bias != 0, 4));
  GATUN_CHECK(check_pointer(message, "experts", experts, experts != nullptr || some, 4));
  GATUN_CHECK(check_pointer(message, "weights", shares, shares != nullptr || some, 4));
  GATUN_CHECK(check_pointer(message, "offsets", offsets, true, 8));
  GATUN_CHECK(check_pointer(message, "rows", rows, rows != nullptr || some, 4));
  GATUN_CHECK(check_pointer(message, "slots", slots, slots != nullptr || some, 4));
  const Extent each = dense(4, desc.x.shape[1]), starts = dense(8, desc.x.shape[1] + 1), choices = dense(4, tokens, desc.top);
  const Region outputs[] = {{"experts", choices, experts, 1},
                            {"weights", choices, shares, 1},
                            {"offsets", starts, offsets, 1},
                            {"rows", choices, rows, 1},
                            {"slots", choices, slots, 1}};
  const Region inputs[] = {{"x", self.x, x, tokens}, {"bias", each, bias, 1}};
  for (const Region& output : outputs) {
    if (output.at == nullptr) continue;
    for (const Region& input : inputs) GATUN_CHECK(check_apart(message, output, input));
    for (const Region* other = outputs; other != &output; ++other) GATUN_CHECK(check_apart(message, output, *other));
  }
  const gtn_route_args args = {tokens, x, static_cast<const float*>(bias), static_cast<int32_t*>(experts),
                               static_cast<float*>(shares), static_cast<int64_t*>(offsets), static_cast<int32_t*>(rows),
                               static_cast<int32_t*>(slots)};
  return run.with(&args);
}

gtn_status gtn_mix_run(gtn_plan plan, gtn_stream stream, int64_t tokens, int64_t rows_x, const void* x, const void* gates,
                       const void* row_index, const void* residual, void* out) {
  Run run(GTN_OP_MIX, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_mix_desc& desc = self.mix;
  gtn_message* message = run.message();
  const bool indexed = desc.has_row_index != 0;
  const int64_t parts = desc.gates.shape[1];
  GATUN_CHECK(check_count(message, "tokens", tokens, desc.out.shape[0]));
  GATUN_CHECK(check_count(message, "rows_x", rows_x, indexed ? desc.x.shape[0] : 0));
  if (tokens == 0) return GTN_OK;
  const bool read = indexed ? rows_x > 0 : parts > 0;
  GATUN_CHECK(check_pointer(message, "x", x, x != nullptr || read, self.x.element));
  GATUN_CHECK(check_pointer(message, "gates", gates, gates != nullptr || parts > 0, 4));
  GATUN_CHECK(check_pointer(message, "row_index", row_index, indexed && (row_index != nullptr || parts > 0), 4));
  GATUN_CHECK(check_pointer(message, "residual", residual, desc.has_residual != 0, self.out.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const Extent indices = dense(4, tokens, parts);
  const Region output = {"out", self.out, out, tokens};
  GATUN_CHECK(check_apart(message, output, {"x", self.x, x, indexed ? rows_x : tokens}));
  GATUN_CHECK(check_apart(message, output, {"gates", self.k, gates, tokens}));
  GATUN_CHECK(check_apart(message, output, {"row_index", indices, row_index, 1}));
  GATUN_CHECK(check_apart_or_equal(message, output, {"residual", self.out, residual, tokens}));
  const gtn_mix_args args = {tokens, rows_x, x, static_cast<const float*>(gates), static_cast<const int32_t*>(row_index),
                             residual, out};
  return run.with(&args);
}

gtn_status gtn_norm_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual, const void* gamma,
                        const void* beta, void* out, void* sum) {
  return run_norm(plan, stream, rows, x, residual, gamma, beta, out, sum, nullptr, nullptr);
}

gtn_status gtn_norm_run_quantized(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual,
                                  const void* gamma, const void* beta, void* out, void* scales, void* zero_points, void* sum) {
  return run_norm(plan, stream, rows, x, residual, gamma, beta, out, sum, scales, zero_points);
}

gtn_status gtn_softmax_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, void* out) {
  Run run(GTN_OP_SOFTMAX, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "rows", rows, self.softmax.x.shape[0]));
  if (rows == 0 || self.softmax.x.shape[1] == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "x", x, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  GATUN_CHECK(check_apart_or_equal(message, {"out", self.out, out, rows}, {"x", self.x, x, rows}));
  const gtn_softmax_args args = {rows, x, out};
  return run.with(&args);
}

gtn_status gtn_activation_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* bias, void* out) {
  Run run(GTN_OP_ACTIVATION, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_activation_desc& desc = self.activation;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "rows", rows, desc.x.shape[0]));
  if (rows == 0 || desc.x.shape[1] == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "x", x, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "bias", bias, desc.has_bias != 0, 4));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const Extent floats = dense(4, desc.x.shape[1]);
  GATUN_CHECK(check_apart_or_equal(message, {"out", self.out, out, rows}, {"x", self.x, x, rows}));
  GATUN_CHECK(check_apart(message, {"out", self.out, out, rows}, {"bias", floats, bias, 1}));
  const gtn_activation_args args = {rows, x, bias, out};
  return run.with(&args);
}

gtn_status gtn_glu_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* gate, const void* x, void* out) {
  Run run(GTN_OP_GLU, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "rows", rows, self.glu.gate.shape[0]));
  if (rows == 0 || self.glu.gate.shape[1] == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "gate", gate, true, self.k.element));
  GATUN_CHECK(check_pointer(message, "x", x, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const Region output = {"out", self.out, out, rows};
  const auto check_in = self.glu.out.dtype == self.glu.gate.dtype ? check_apart_or_equal : check_apart;
  GATUN_CHECK(check_in(message, output, {"gate", self.k, gate, rows}));
  GATUN_CHECK(check_in(message, output, {"x", self.x, x, rows}));
  const gtn_glu_args args = {rows, gate, x, out};
  return run.with(&args);
}

gtn_status gtn_conv_run(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t batch, const void* x, const void* bias,
                        const void* residual, void* out) {
  Run run(GTN_OP_CONV, plan, stream, packed);
  if (run.status() != GTN_OK) return run.status();
  const Slot* slot = weights.slot(packed);
  if (slot == nullptr || !still_open(*slot, packed)) return GTN_STALE_HANDLE;
  const Weights& w = *static_cast<const Weights*>(slot->object);
  const Plan& self = run.plan();
  const gtn_conv_desc& desc = self.conv;
  gtn_message* message = run.message();
  if (w.device != self.device) return fail(message, GTN_INVALID_ARGUMENT, "weights: are on another device than the plan");
  if (w.op != GTN_OP_CONV) return fail(message, GTN_INVALID_ARGUMENT, "weights: are for %s, expected conv", kOperators[w.op]);
  const ConvWeights have = {w.info.format, w.spatial, w.info.n, w.info.groups, w.info.k, w.kernel};
  int64_t k = desc.x.shape[1] / desc.groups;
  for (int d = 0; d < desc.x.rank - 2; ++d) k *= desc.kernel[d];
  const ConvWeights want = {desc.format, desc.x.rank - 2, desc.out.shape[1], desc.groups, k, desc.kernel};
  if (!(have == want)) {
    return fail(message, GTN_INVALID_ARGUMENT, "weights: are %s, expected the plan's %s", have.text().text, want.text().text);
  }
  GATUN_CHECK(check_count(message, "batch", batch, desc.x.shape[0]));
  const Extent output = range_of(desc.out, {batch});
  if (extent_bytes(output, 1) == 0) return GTN_OK;
  const Extent input = range_of(desc.x, {batch});
  GATUN_CHECK(check_pointer(message, "x", x, x != nullptr || extent_bytes(input, 1) > 0, input.element));
  GATUN_CHECK(check_pointer(message, "bias", bias, desc.has_bias != 0, 4));
  GATUN_CHECK(check_pointer(message, "residual", residual, desc.has_residual != 0, output.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, output.element));
  const Region to = {"out", output, out, 1};
  const Extent floats = dense(4, desc.out.shape[1]);
  GATUN_CHECK(check_apart(message, to, {"x", input, x, 1}));
  GATUN_CHECK(check_apart(message, to, {"bias", floats, bias, 1}));
  GATUN_CHECK(check_apart_or_equal(message, to, {"residual", output, residual, 1}));
  const gtn_conv_args args = {w.impl, batch, x, bias, residual, out};
  return run.with(&args);
}

gtn_status gtn_pooling_run(gtn_plan plan, gtn_stream stream, int64_t batch, const void* x, void* out) {
  Run run(GTN_OP_POOLING, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const gtn_pooling_desc& desc = run.plan().pooling;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "batch", batch, desc.x.shape[0]));
  const Extent output = range_of(desc.out, {batch});
  if (extent_bytes(output, 1) == 0) return GTN_OK;
  const Extent input = range_of(desc.x, {batch});
  GATUN_CHECK(check_pointer(message, "x", x, x != nullptr || extent_bytes(input, 1) > 0, input.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, output.element));
  GATUN_CHECK(check_apart(message, {"out", output, out, 1}, {"x", input, x, 1}));
  const gtn_pooling_args args = {batch, x, out};
  return run.with(&args);
}

gtn_status gtn_fake_quantize_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* scales,
                                 const void* zero_points, const void* gradient, void* out) {
  Run run(GTN_OP_FAKE_QUANTIZE, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_fake_quantize_desc& desc = self.fake_quantize;
  gtn_message* message = run.message();
  GATUN_CHECK(check_count(message, "rows", rows, desc.x.shape[0]));
  if (rows == 0 || desc.x.shape[1] == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "x", x, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "scales", scales, true, 4));
  GATUN_CHECK(check_pointer(message, "zero_points", zero_points, desc.has_zero_points != 0, 4));
  GATUN_CHECK(check_pointer(message, "gradient", gradient, desc.gradient != 0, self.out.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const int64_t grids = desc.granularity == GTN_SCALE_OF_ROW ? rows : desc.granularity == GTN_SCALE_OF_COLUMN ? desc.x.shape[1] : 1;
  const Extent array = dense(4, grids);
  const Region to = {"out", self.out, out, rows};
  GATUN_CHECK(check_apart_or_equal(message, to, {"x", self.x, x, rows}));
  GATUN_CHECK(check_apart_or_equal(message, to, {"gradient", self.out, gradient, rows}));
  GATUN_CHECK(check_apart(message, to, {"scales", array, scales, 1}));
  GATUN_CHECK(check_apart(message, to, {"zero_points", array, zero_points, 1}));
  const gtn_fake_quantize_args args = {rows, x, static_cast<const float*>(scales), static_cast<const int32_t*>(zero_points), gradient,
                                       out};
  return run.with(&args);
}
