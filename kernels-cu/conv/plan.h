// Plans of convolutions, and the weights they take.
#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status conv_plan(Device& device, const gtn_conv_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool conv_serves(const Device& device, int32_t dtype);

// gemm_weights_destroy frees them.
gtn_status conv_weights_pack(Device& device, const gtn_conv_weights_desc& desc, const void* source, const float* gamma, const float* beta,
                             const float* mean, const float* variance, void** weights, gtn_weights_info* info, gtn_message* message);

namespace conv {

// Channels of a kernel position as weights and tiles have them: whole chunks of 16 bytes.
constexpr int64_t chunk_elements(int32_t format) { return format == GTN_F32 ? 4 : 8; }

}  // namespace conv

}  // namespace gatun::gpu
