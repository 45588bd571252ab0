// Making plans: every description is checked here, once, so that backends and runs need not.
#include <cmath>
#include <new>

#include "core/objects.h"

namespace gatun {
namespace {

// Rows that an extent covers at the plan's maxima are not kept: runs bring their own.
gtn_status check_matrix(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, bool output) {
  return check_tensor(message, name, tensor, kFloats, 2, 2, true, output);
}

gtn_status check(gtn_message* message, const gtn_gemm_desc& desc) {
  if (desc.format != GTN_F32 && desc.format != GTN_BF16 && desc.format != GTN_S8) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.format: is %s (%d), expected F32, BF16 or S8", dtype_name(desc.format),
                desc.format);
  }
  GATUN_CHECK(check_matrix(message, "desc.a", desc.a, false));
  GATUN_CHECK(check_matrix(message, "desc.out", desc.out, true));
  if (desc.a.shape[0] != desc.out.shape[0]) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.out.shape[0]: is %lld, expected a's %lld",
                static_cast<long long>(desc.out.shape[0]), static_cast<long long>(desc.a.shape[0]));
  }
  // 255 * 127 * k must fit 31 bits.
  constexpr int64_t kMostInt8 = 66311;
  if (desc.format == GTN_S8 && desc.a.shape[1] > kMostInt8) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.a.shape[1]: is %lld, expected at most %lld with INT8, whose sums have 32 bits",
                static_cast<long long>(desc.a.shape[1]), static_cast<long long>(kMostInt8));
  }
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  return check_flag(message, "desc.has_residual", desc.has_residual);
}

gtn_status check(gtn_message* message, const gtn_attention_desc& desc) {
  if (!std::isfinite(desc.scale)) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.scale: is %g, expected a finite number", static_cast<double>(desc.scale));
  }
  GATUN_CHECK(check_tensor(message, "desc.q", desc.q, kFloats, 3, 4, true, false));
  const int rank = desc.q.rank;
  const uint32_t same = 1u << desc.q.dtype;
  struct Other {
    const char* name;
    const gtn_tensor_desc& tensor;
    bool output;
  };
  for (const Other& other : {Other{"desc.k", desc.k, false}, {"desc.v", desc.v, false}, {"desc.out", desc.out, true}}) {
    GATUN_CHECK(check_tensor(message, other.name, other.tensor, kFloats, rank, rank, true, other.output));
    if ((same >> other.tensor.dtype & 1u) == 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.dtype: is %s, expected q's %s", other.name, dtype_name(other.tensor.dtype),
                  dtype_name(desc.q.dtype));
    }
  }
  const auto equal = [&](const char* name, const gtn_tensor_desc& tensor, int dimension, const char* whose,
                         const gtn_tensor_desc& expected) {
    if (tensor.shape[dimension] == expected.shape[dimension]) return gtn_status{GTN_OK};
    return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[%d]: is %lld, expected %s's %lld", name, dimension,
                static_cast<long long>(tensor.shape[dimension]), whose, static_cast<long long>(expected.shape[dimension]));
  };
  const int heads = rank - 2, size = rank - 1;
  if (rank == 4) {
    GATUN_CHECK(equal("desc.k", desc.k, 0, "q", desc.q));
    GATUN_CHECK(equal("desc.v", desc.v, 0, "q", desc.q));
    GATUN_CHECK(equal("desc.out", desc.out, 0, "q", desc.q));
  } else if (desc.max_sequences < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.max_sequences: is %lld, expected 0 or more",
                static_cast<long long>(desc.max_sequences));
  }
  GATUN_CHECK(equal("desc.v", desc.v, rank - 3, "k", desc.k));
  GATUN_CHECK(equal("desc.out", desc.out, rank - 3, "q", desc.q));
  GATUN_CHECK(equal("desc.v", desc.v, heads, "k", desc.k));
  GATUN_CHECK(equal("desc.out", desc.out, heads, "q", desc.q));
  GATUN_CHECK(equal("desc.k", desc.k, size, "q", desc.q));
  GATUN_CHECK(equal("desc.out", desc.out, size, "v", desc.v));
  const int64_t heads_q = desc.q.shape[heads], heads_k = desc.k.shape[heads];
  if (heads_k < 1 || heads_q < 1 || heads_q % heads_k != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.k.shape[%d]: is %lld heads, expected a divisor of q's %lld", heads,
                static_cast<long long>(heads_k), static_cast<long long>(heads_q));
  }
  if (desc.q.shape[size] < 1 || desc.v.shape[size] < 1) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.%s.shape[%d]: is 0, expected a head size of 1 or more",
                desc.q.shape[size] < 1 ? "q" : "v", size);
  }
  if (desc.window_left < -1) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.window_left: is %lld, expected -1 (unlimited), 0 or more",
                static_cast<long long>(desc.window_left));
  }
  if (desc.window_right < -1) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.window_right: is %lld, expected -1 (unlimited), 0 or more",
                static_cast<long long>(desc.window_right));
  }
  return GTN_OK;
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
  GATUN_CHECK(check_rows(message, desc.x, desc.out));
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
  if (!std::isfinite(desc.scale)) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.scale: is %g, expected a finite number", static_cast<double>(desc.scale));
  }
  return check_rows(message, desc.x, desc.out);
}

gtn_status check(gtn_message* message, const gtn_activation_desc& desc) {
  GATUN_CHECK(check_activation(message, desc.activation));
  GATUN_CHECK(check_flag(message, "desc.has_bias", desc.has_bias));
  return check_rows(message, desc.x, desc.out);
}

void keep(Plan& plan, const gtn_gemm_desc& desc) {
  plan.gemm = desc;
  plan.x = extent_of(desc.a);
  plan.out = extent_of(desc.out);
}

void keep(Plan& plan, const gtn_attention_desc& desc) {
  plan.attention = desc;
  plan.x = extent_of(desc.q);
  plan.k = extent_of(desc.k);
  plan.v = extent_of(desc.v);
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

template <typename Desc>
gtn_status make_plan(gtn_device device, int32_t op, const Desc* desc, gtn_plan* plan, gtn_message* message) {
  if (plan == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "plan: is null");
  Desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  GATUN_CHECK(check(message, checked));
  Inside inside(devices, device);
  if (!inside) return fail(message, GTN_STALE_HANDLE, "device: the handle is not open");
  Device& on = inside.object<Device>();
  Plan* created = new (std::nothrow) Plan{};
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->device = &on;
  created->op = op;
  created->info.size = sizeof created->info;
  created->info.op = op;
  keep(*created, checked);
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

}  // namespace
}  // namespace gatun

gtn_status gtn_gemm_plan(gtn_device device, const gtn_gemm_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_GEMM, desc, plan, message);
}

gtn_status gtn_attention_plan(gtn_device device, const gtn_attention_desc* desc, gtn_plan* plan, gtn_message* message) {
  return gatun::make_plan(device, GTN_OP_ATTENTION, desc, plan, message);
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
