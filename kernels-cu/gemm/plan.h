// Plans of matrix products, and the weights they take.
#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool gemm_serves(const Device& device, int32_t format);
// The answer to a format that it does not serve.
gtn_status unsupported_format(gtn_message* message);

// Packs weights of the host's memory into the device's. They keep `device` and free their memory in weights_destroy.
gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
void gemm_weights_destroy(void* weights);

}  // namespace gatun::gpu
