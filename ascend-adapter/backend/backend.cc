// What the Ascend backend serves.
#include "backend/backend.h"

#include <cstdio>

#include "kernels/activation/plan.h"
#include "kernels/attention/plan.h"
#include "kernels/gemm/plan.h"
#include "kernels/merge/plan.h"
#include "kernels/norm/plan.h"
#include "kernels/rope/plan.h"
#include "kernels/select/plan.h"
#include "kernels/softmax/plan.h"

namespace gatun::ascend {

void name_kernel(gtn_plan_info* info, const char* rest) {
  std::snprintf(info->kernel, sizeof info->kernel, "%s.%s", kBackendName, rest);
}

namespace {

constexpr Operator kOperators[] = {
    {GTN_OP_GEMM, plan_of<gtn_gemm_desc, gemm_plan>, gemm_serves},
    {GTN_OP_ATTENTION, plan_of<gtn_attention_desc, attention_plan>, attention_serves},
    {GTN_OP_NORM, plan_of<gtn_norm_desc, norm_plan>, norm_serves},
    {GTN_OP_SOFTMAX, plan_of<gtn_softmax_desc, softmax_plan>, softmax_serves},
    {GTN_OP_ACTIVATION, plan_of<gtn_activation_desc, activation_plan>, activation_serves},
    {GTN_OP_MERGE, plan_of<gtn_merge_desc, merge_plan>, merge_serves},
    {GTN_OP_ROPE, plan_of<gtn_rope_desc, rope_plan>, rope_serves},
    {GTN_OP_SELECT, plan_of<gtn_select_desc, select_plan>, select_serves},
    {GTN_OP_GLU, plan_of<gtn_glu_desc, glu_plan>, glu_serves},
};

}  // namespace

const Served kServed = {kOperators, gemm_weights_pack, gemm_weights_destroy, nullptr, gemm_weights_pack_quantized};

}  // namespace gatun::ascend
