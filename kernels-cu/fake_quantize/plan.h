#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status fake_quantize_plan(Device& device, const gtn_fake_quantize_desc& desc, Plan** plan, gtn_plan_info* info,
                              gtn_message* message);
bool fake_quantize_serves(const Device& device, int32_t dtype);

}  // namespace gatun::gpu
