// Plans of matrix products, and the weights they take.
#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool gemm_serves(const Device& device, int32_t format);
// What it claims: weights in groups, of which it serves those of 4 bits, are asked for as U8 where U4 is no type.
bool gemm_claims(const Device& device, int32_t format);
// Whether the matrix unit takes numbers of 16 bits below their normal range for 0, as that of gfx90a does ("Numerical accuracy" of
// PyTorch's notes, on MI200). Where such numbers are to count it is not used.
bool flushes_halves(const Device& device);
// The answer to a format that it does not serve.
gtn_status unsupported_format(gtn_message* message);

// Packs weights of the host's memory into the device's. They keep `device` and free their memory in weights_destroy.
gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
void gemm_weights_destroy(void* weights);

// The same in format GTN_U4, and of weights that are quantized already, GTN_U4 alone.
gtn_status gemm_weights_quantize(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                                 gtn_weights_info* info, gtn_message* message);
gtn_status gemm_weights_pack_quantized(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message);

}  // namespace gatun::gpu
