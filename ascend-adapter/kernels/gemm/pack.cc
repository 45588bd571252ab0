// Packs weights on the host, and copies them to the device.
#include <cmath>
#include <cstring>

#include "cpu/halves.h"
#include "kernels/gemm/plan.h"
#include "kernels/gemm/weights.h"

namespace gatun::ascend {
namespace {

// Element i of an array of FP32, BF16 or F16.
float load(const void* source, int32_t dtype, int64_t i) {
  if (dtype == GTN_F32) return static_cast<const float*>(source)[i];
  const uint16_t half = static_cast<const uint16_t*>(source)[i];
  return dtype == GTN_BF16 ? cpu::from_bf16(half) : cpu::from_f16(half);
}

struct Source {
  const void* data;
  int32_t dtype;
  int64_t k_stride, n_stride;
  float at(int64_t i, int64_t j) const { return load(data, dtype, i * k_stride + j * n_stride); }
};

void pack_halves(const Source& source, const Weights& weights, uint16_t* b) {
  const bool bf16 = weights.format == GTN_BF16;
  for (int64_t j = 0; j < weights.n; ++j) {
    for (int64_t i = 0; i < weights.k; ++i) *b++ = bf16 ? cpu::to_bf16(source.at(i, j)) : cpu::to_f16(source.at(i, j));
  }
}

gtn_status pack_s8(const Source& source, const Weights& weights, int8_t* b, float* scales, int32_t* sums, gtn_message* message) {
  for (int64_t j = 0; j < weights.n; ++j) {
    float most = 0;
    for (int64_t i = 0; i < weights.k; ++i) {
      const float value = source.at(i, j);
      if (!std::isfinite(value)) {
        return fail(message, GTN_INVALID_ARGUMENT, "source[%lld, %lld] is %g, expected finite weights for S8",
                    static_cast<long long>(i), static_cast<long long>(j), static_cast<double>(value));
      }
      most = std::fabs(value) > most ? std::fabs(value) : most;
    }
    scales[j] = most / 127;
    sums[j] = 0;
    for (int64_t i = 0; i < weights.k; ++i) {
      const float steps = scales[j] > 0 ? std::nearbyint(source.at(i, j) / scales[j]) : 0;
      const int8_t q = static_cast<int8_t>(steps > 127 ? 127 : steps < -127 ? -127 : steps);
      sums[j] += q;
      *b++ = q;
    }
  }
  return GTN_OK;
}

// All groups, into the host's image of the device's memory.
gtn_status pack(const gtn_weights_desc& desc, const void* source, const Weights& weights, char* to, gtn_message* message) {
  const bool grouped = desc.source.rank == 3;
  const int64_t* strides = desc.source.strides + (grouped ? 1 : 0);
  const int64_t matrix = weights.k * weights.n, size = desc.source.dtype == GTN_F32 ? 4 : 2;
  float* scales = reinterpret_cast<float*>(to + weights.b_bytes());
  int32_t* sums = reinterpret_cast<int32_t*>(to + weights.b_bytes() + Weights::after(weights.columns() * 4));
  for (int64_t g = 0; g * weights.n < weights.columns(); ++g) {
    const Source from = {static_cast<const char*>(source) + (grouped ? g * desc.source.strides[0] * size : 0), desc.source.dtype,
                         strides[0], strides[1]};
    if (weights.format != GTN_S8) {
      pack_halves(from, weights, reinterpret_cast<uint16_t*>(to) + g * matrix);
      continue;
    }
    const gtn_status status = pack_s8(from, weights, reinterpret_cast<int8_t*>(to) + g * matrix, scales + g * weights.n,
                                      sums + g * weights.n, message);
    if (status != GTN_OK) return status;
  }
  return GTN_OK;
}

gtn_status upload(const Weights& weights, const char* from, gtn_message* message) {
  Queue* queue = nullptr;
  if (const gtn_status status = queue_create(weights.device, &queue, message); status != GTN_OK) return status;
  const gtn_status status = copy(queue, weights.memory, from, weights.bytes(), GTN_HOST_TO_DEVICE, message);
  queue_destroy(queue);
  return status;
}

}  // namespace

gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  if (desc.format != GTN_BF16 && desc.format != GTN_F16 && desc.format != GTN_S8) {
    return fail(message, GTN_UNSUPPORTED,
                "format: is %d, this backend has products of BF16 (%d), F16 (%d) and S8 (%d) weights", desc.format, GTN_BF16,
                GTN_F16, GTN_S8);
  }
  const bool grouped = desc.source.rank == 3;
  const int64_t groups = grouped ? desc.source.shape[0] : 0;
  const int64_t k = desc.source.shape[grouped ? 1 : 0], n = desc.source.shape[grouped ? 2 : 1];
  std::unique_ptr<Weights> packed(new (std::nothrow) Weights{device.index, desc.format, groups, k, n, nullptr});
  if (packed == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
  if (packed->bytes() > 0) {
    std::unique_ptr<char[]> host(new (std::nothrow) char[static_cast<size_t>(packed->bytes())]());
    if (host == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
    if (const gtn_status status = pack(desc, source, *packed, host.get(), message); status != GTN_OK) return status;
    void* memory = nullptr;
    if (const gtn_status status = allocate(device.index, packed->bytes(), &memory, message); status != GTN_OK) return status;
    packed->memory = static_cast<char*>(memory);
    if (const gtn_status status = upload(*packed, host.get(), message); status != GTN_OK) {
      release(device.index, memory);
      return status;
    }
  }
  info->format = desc.format;
  info->k = k, info->n = n;
  info->bytes = packed->bytes();
  info->groups = groups, info->group_size = 0;
  *weights = packed.release();
  return GTN_OK;
}

void gemm_weights_destroy(void* weights) {
  Weights* self = static_cast<Weights*>(weights);
  if (self->memory != nullptr) release(self->device, self->memory);
  delete self;
}

}  // namespace gatun::ascend
