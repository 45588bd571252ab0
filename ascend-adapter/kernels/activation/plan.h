#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status activation_plan(Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message);
bool activation_serves(const Device&, int32_t dtype);

gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool glu_serves(const Device&, int32_t dtype);

// By GTN_ACT_*: as plans name them, and the operations of the formulas in functions.h on an element, 20 for an exponential.
constexpr const char* kActivationNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};
constexpr double kActivationFlops[] = {0, 45, 26, 23, 1};

}  // namespace gatun::ascend
