#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status select_plan(Device& device, const gtn_select_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool select_serves(const Device&, int32_t dtype);

}  // namespace gatun::ascend
