#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status pooling_plan(Device& device, const gtn_pooling_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool pooling_serves(const Device& device, int32_t dtype);

}  // namespace gatun::gpu
