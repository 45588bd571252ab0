#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool glu_serves(const Device&, int32_t dtype);

}  // namespace gatun::ascend
