#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status norm_plan(Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool norm_serves(const Device&, int32_t dtype);

}  // namespace gatun::ascend
