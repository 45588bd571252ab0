#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status merge_plan(Device& device, const gtn_merge_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool merge_serves(const Device&, int32_t dtype);

}  // namespace gatun::ascend
