// Plans of matrix products, and the weights they take.
#pragma once

#include "backend/backend.h"

namespace gatun::gpu {

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool gemm_serves(const Device& device, int32_t format);
// Whether the matrix unit takes numbers of 16 bits below their normal range for 0, as that of gfx90a does ("Numerical accuracy" of
// PyTorch's notes, on MI200). Where such numbers are to count it is not used.
bool flushes_halves(const Device& device);
// The answer to a format that it does not serve.
gtn_status unsupported_format(gtn_message* message);

// Packs weights of the host's memory into the device's. They keep `device` and free their memory in weights_destroy.
gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
void gemm_weights_destroy(void* weights);

inline bool is_f8(int32_t format) { return format == GTN_F8E4M3 || format == GTN_F8E5M2; }
// Weights that have a record for each group of k, of which in FP8 a column is one.
inline bool in_groups(int32_t format) { return format == GTN_U4 || format == GTN_U8 || is_f8(format); }

// The same in formats GTN_U4, GTN_U8, GTN_F8E4M3 and GTN_F8E5M2, also of weights that come in them.
gtn_status gemm_weights_quantize(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                                 gtn_weights_info* info, gtn_message* message);
gtn_status gemm_weights_pack_quantized(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message);

}  // namespace gatun::gpu
