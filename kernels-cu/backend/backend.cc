// What a GPU backend serves.
#include "backend/backend.h"

#include <cstdio>

#include "activation/plan.h"
#include "attention/plan.h"
#include "conv/plan.h"
#include "fake_quantize/plan.h"
#include "gemm/plan.h"
#include "limits/limits.h"
#include "merge/plan.h"
#include "mix/plan.h"
#include "norm/plan.h"
#include "pooling/plan.h"
#include "rope/plan.h"
#include "route/plan.h"
#include "select/plan.h"
#include "softmax/plan.h"

namespace gatun::gpu {

void name_kernel(gtn_plan_info* info, const Device& device, const char* rest) {
  std::snprintf(info->kernel, sizeof info->kernel, "%s.%s.%s", kBackendName, device.properties.arch_name, rest);
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
    {GTN_OP_ROUTE, plan_of<gtn_route_desc, route_plan>, route_serves},
    {GTN_OP_MIX, plan_of<gtn_mix_desc, mix_plan>, mix_serves},
    {GTN_OP_GLU, plan_of<gtn_glu_desc, glu_plan>, glu_serves},
    {GTN_OP_CONV, plan_of<gtn_conv_desc, conv_plan>, conv_serves},
    {GTN_OP_POOLING, plan_of<gtn_pooling_desc, pooling_plan>, pooling_serves},
    {GTN_OP_FAKE_QUANTIZE, plan_of<gtn_fake_quantize_desc, fake_quantize_plan>, fake_quantize_serves},
};

gtn_status measure(Device& device, int32_t limit, double* per_second, gtn_message* message) {
  if (!kIsHardware) return fail(message, GTN_UNSUPPORTED, "times of a host model say nothing about a GPU");
  return measure_limit(device, limit, per_second, message);
}

}  // namespace

const Served kServed = {kOperators, gemm_weights_pack, gemm_weights_destroy, measure, gemm_weights_pack_quantized,
                        conv_weights_pack};

}  // namespace gatun::gpu
