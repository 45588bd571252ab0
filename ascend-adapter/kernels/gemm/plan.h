#pragma once

#include "backend/backend.h"

namespace gatun::ascend {

// Says which weights there are products with.
gtn_status declines_format(int32_t format, gtn_message* message);
gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
bool gemm_serves(const Device&, int32_t dtype);

// Weights in the layout of the kernels: [n, k], BF16 or S8 with a scale and a sum for each column of the product.
gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
gtn_status gemm_weights_pack_quantized(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message);
void gemm_weights_destroy(void* weights);

}  // namespace gatun::ascend
