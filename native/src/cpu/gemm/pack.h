// What both ways of packing share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/grid.h"
#include "cpu/halves.h"

namespace gatun::cpu {

inline bool is_finite(float value) { return std::fabs(value) <= 3.402823466e38f; }

// A source element as FP32, whatever its dtype and strides.
struct Source {
  const void* data;
  int32_t dtype;
  int64_t first;  // element of this matrix
  int64_t k_stride, n_stride;

  // Matrix g of a description.
  Source(const gtn_weights_desc& desc, const void* source, int64_t g)
      : data(source), dtype(desc.source.dtype),
        first(desc.source.rank == 3 ? g * desc.source.strides[0] : 0), k_stride(desc.source.strides[desc.source.rank - 2]),
        n_stride(desc.source.strides[desc.source.rank - 1]) {}

  float at(int64_t k, int64_t n) const {
    const int64_t i = first + k * k_stride + n * n_stride;
    if (dtype == GTN_F32) return static_cast<const float*>(data)[i];
    const uint16_t half = static_cast<const uint16_t*>(data)[i];
    return dtype == GTN_BF16 ? from_bf16(half) : from_f16(half);
  }
};

// Panels are packed in groups of at least some 16 thousand elements, so that small matrices stay with the caller.
inline int64_t panels_of_task(int64_t panel_elements) {
  return panel_elements >= 16384 ? 1 : 16384 / (panel_elements + 1) + 1;
}

// Packed weights of `bytes` of content, of which format, sizes and offsets are the caller's to fill in.
gtn_status allocate_weights(int64_t bytes, PackedWeights** weights, gtn_message* message);

// Fills the sizes in, of `matrices` of so many panels.
void describe_weights(PackedWeights* packed, const GemmLayout& layout, int32_t format, int64_t k, int64_t n,
                      int64_t panel_bytes);

// `groups`: matrices, 0 where the source was one.
void report_weights(const PackedWeights& packed, int64_t groups, gtn_weights_info* info);

gtn_status too_large(int64_t matrices, int64_t k, int64_t n, gtn_message* message);

// The message of the first weight that is not finite.
gtn_status not_finite(const gtn_weights_desc& desc, const void* source, gtn_message* message);

// Of floating point, in format GTN_U4 or GTN_U8.
gtn_status quantize_weights(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                            gtn_weights_info* info, gtn_message* message);

// Of floating point with no more than 2 of 4 in k that are not 0, in format GTN_BF16_2OF4.
gtn_status pack_sparse(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                       gtn_weights_info* info, gtn_message* message);

// Of floating point, or of numbers [groups, n, k] and scales [groups, n], in format GTN_F8E4M3 or GTN_F8E5M2.
gtn_status pack_f8(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                   gtn_weights_info* info, gtn_message* message);
gtn_status pack_ready_f8(const Device& device, const gtn_quantized_desc& desc, const void* numbers, const float* scales,
                         void** weights, gtn_weights_info* info, gtn_message* message);

}  // namespace gatun::cpu
