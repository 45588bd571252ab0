// The hot path: from the public run functions to the backend, with one compare-and-swap, a few loads and comparisons.
#include "core/objects.h"

namespace gatun {
namespace {

const char* const kOperators[] = {"none", "gemm", "attention", "norm", "softmax", "activation"};

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

// An array of `count` times `times` elements without gaps. A plan may be of more elements than there are bytes to address.
Extent dense(int64_t element, int64_t count, int64_t times = 1) {
  int64_t bytes;
  if (__builtin_mul_overflow(count, times, &bytes) || __builtin_mul_overflow(bytes, element, &bytes)) bytes = INT64_MAX;
  return {element, bytes, bytes, true};
}

}  // namespace
}  // namespace gatun

using namespace gatun;

gtn_status gtn_gemm_run(gtn_plan plan, gtn_stream stream, gtn_weights packed, int64_t rows, const void* a, const void* bias,
                        const void* residual, void* out) {
  Run run(GTN_OP_GEMM, plan, stream, packed);
  if (run.status() != GTN_OK) return run.status();
  const Slot* slot = weights.slot(packed);
  if (slot == nullptr || !still_open(*slot, packed)) return GTN_STALE_HANDLE;
  const Weights& w = *static_cast<const Weights*>(slot->object);
  const Plan& self = run.plan();
  const gtn_gemm_desc& desc = self.gemm;
  gtn_message* message = run.message();
  if (w.device != self.device) return fail(message, GTN_INVALID_ARGUMENT, "weights: are on another device than the plan");
  if (w.info.format != desc.format || w.info.k != desc.a.shape[1] || w.info.n != desc.out.shape[1]) {
    return fail(message, GTN_INVALID_ARGUMENT, "weights: are %s [%lld, %lld], expected the plan's %s [%lld, %lld]",
                dtype_name(w.info.format), static_cast<long long>(w.info.k), static_cast<long long>(w.info.n),
                dtype_name(desc.format), static_cast<long long>(desc.a.shape[1]), static_cast<long long>(desc.out.shape[1]));
  }
  GATUN_CHECK(check_count(message, "rows", rows, desc.a.shape[0]));
  if (rows == 0 || desc.out.shape[1] == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "a", a, a != nullptr || desc.a.shape[1] > 0, self.x.element));
  GATUN_CHECK(check_pointer(message, "bias", bias, desc.has_bias != 0, 4));
  GATUN_CHECK(check_pointer(message, "residual", residual, desc.has_residual != 0, self.out.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  const Extent floats = dense(4, desc.out.shape[1]);
  const Region output = {"out", self.out, out, rows};
  GATUN_CHECK(check_apart(message, output, {"a", self.x, a, rows}));
  GATUN_CHECK(check_apart(message, output, {"bias", floats, bias, 1}));
  GATUN_CHECK(check_apart_or_equal(message, output, {"residual", self.out, residual, rows}));
  const gtn_gemm_args args = {w.impl, rows, a, bias, residual, out};
  return run.with(&args);
}

gtn_status gtn_attention_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                             const void* q_index, const void* k_index, const void* q, const void* k, const void* v, void* out,
                             void* lse) {
  Run run(GTN_OP_ATTENTION, plan, stream);
  if (run.status() != GTN_OK) return run.status();
  const Plan& self = run.plan();
  const gtn_attention_desc& desc = self.attention;
  gtn_message* message = run.message();
  const bool packed = desc.q.rank == 3;
  const int position = packed ? 0 : 1;
  GATUN_CHECK(check_count(message, "sequences", sequences, packed ? desc.max_sequences : desc.q.shape[0]));
  GATUN_CHECK(check_count(message, "len_q", len_q, desc.q.shape[position]));
  GATUN_CHECK(check_count(message, "len_k", len_k, desc.k.shape[position]));
  GATUN_CHECK(check_pointer(message, "q_index", q_index, q_index != nullptr || packed, 8));
  GATUN_CHECK(check_pointer(message, "k_index", k_index, k_index != nullptr || packed, 8));
  if (sequences == 0 || len_q == 0) return GTN_OK;
  GATUN_CHECK(check_pointer(message, "q", q, true, self.x.element));
  GATUN_CHECK(check_pointer(message, "k", k, k != nullptr || len_k > 0, self.k.element));
  GATUN_CHECK(check_pointer(message, "v", v, v != nullptr || len_k > 0, self.v.element));
  GATUN_CHECK(check_pointer(message, "out", out, true, self.out.element));
  GATUN_CHECK(check_pointer(message, "lse", lse, lse != nullptr, 4));
  const auto rows = [&](const Extent& extent, int64_t length, int64_t planned) {
    return packed ? length : extent.exact ? (sequences - 1) * planned + length : sequences;
  };
  const int64_t planned_q = desc.q.shape[position], planned_k = desc.k.shape[position];
  const int64_t heads_q = desc.q.shape[position + 1];
  const Extent index = packed ? dense(8, sequences < INT64_MAX ? sequences + 1 : sequences) : dense(8, sequences);
  const Extent logs = dense(4, heads_q * planned_q, packed ? 1 : sequences);
  const Region inputs[] = {{"q", self.x, q, rows(self.x, len_q, planned_q)},
                           {"k", self.k, k, rows(self.k, len_k, planned_k)},
                           {"v", self.v, v, rows(self.v, len_k, planned_k)},
                           {"q_index", index, q_index, 1},
                           {"k_index", index, k_index, 1}};
  const Region output = {"out", self.out, out, rows(self.out, len_q, planned_q)};
  const Region sums = {"lse", logs, lse, 1};
  for (const Region& input : inputs) {
    GATUN_CHECK(check_apart(message, output, input));
    if (lse != nullptr) GATUN_CHECK(check_apart(message, sums, input));
  }
  GATUN_CHECK(check_apart(message, output, sums));
  const gtn_attention_args args = {sequences, len_q, len_k, static_cast<const int64_t*>(q_index),
                                   static_cast<const int64_t*>(k_index), q, k, v, out, lse};
  return run.with(&args);
}

gtn_status gtn_norm_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual, const void* gamma,
                        const void* beta, void* out, void* sum) {
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
  const Extent floats = dense(4, desc.x.shape[1]);
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
  const gtn_norm_args args = {rows, x, residual, gamma, beta, out, sum};
  return run.with(&args);
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
