#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status activation_plan(Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool activation_serves(const Device& device, int32_t dtype);
gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool glu_serves(const Device& device, int32_t dtype);

}  // namespace gatun::gpu
