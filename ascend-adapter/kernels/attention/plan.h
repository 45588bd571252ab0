#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

gtn_status attention_plan(Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message);
bool attention_serves(const Device&, int32_t dtype);

}  // namespace gatun::ascend
