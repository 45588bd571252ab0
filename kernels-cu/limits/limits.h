// Ceilings of a device, measured.
#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status measure_limit(Device& device, int32_t limit, double* per_second, gtn_message* message);

}  // namespace gatun::gpu
