// Packs weights on the host, and copies them to the device.
#include <cmath>
#include <cstring>

#include "kernels/gemm/plan.h"
#include "kernels/gemm/weights.h"

namespace gatun::ascend {
namespace {

// Element i of an array of FP32 or BF16.
float load(const void* source, int32_t dtype, int64_t i) {
  if (dtype == GTN_F32) return static_cast<const float*>(source)[i];
  const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(source)[i]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// To nearest, ties to even; NaN stays NaN.
uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Source {
  const void* data;
  int32_t dtype;
  int64_t k_stride, n_stride;
  float at(int64_t i, int64_t j) const { return load(data, dtype, i * k_stride + j * n_stride); }
};

void pack_bf16(const Source& source, const Weights& weights, char* to) {
  uint16_t* b = reinterpret_cast<uint16_t*>(to);
  for (int64_t j = 0; j < weights.n; ++j) {
    for (int64_t i = 0; i < weights.k; ++i) *b++ = to_bf16(source.at(i, j));
  }
}

gtn_status pack_s8(const Source& source, const Weights& weights, char* to, gtn_message* message) {
  int8_t* b = reinterpret_cast<int8_t*>(to);
  float* scales = reinterpret_cast<float*>(to + weights.b_bytes());
  int32_t* sums = reinterpret_cast<int32_t*>(to + weights.b_bytes() + Weights::after(weights.n * 4));
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
  if (desc.format != GTN_BF16 && desc.format != GTN_S8) {
    return fail(message, GTN_UNSUPPORTED, "format: is %d, this backend has products of BF16 (%d) and S8 (%d) weights",
                desc.format, GTN_BF16, GTN_S8);
  }
  if (desc.source.dtype == GTN_F16) return fail(message, GTN_UNSUPPORTED, "source: is F16, this backend packs F32 and BF16");
  if (desc.source.rank != 2) return fail(message, GTN_UNSUPPORTED, "source: has groups, this backend has no grouped products");
  const int64_t k = desc.source.shape[0], n = desc.source.shape[1];
  std::unique_ptr<Weights> packed(new (std::nothrow) Weights{device.index, desc.format, k, n, nullptr});
  if (packed == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
  if (packed->bytes() > 0) {
    std::unique_ptr<char[]> host(new (std::nothrow) char[static_cast<size_t>(packed->bytes())]());
    if (host == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
    const Source from = {source, desc.source.dtype, desc.source.strides[0], desc.source.strides[1]};
    if (desc.format == GTN_BF16) {
      pack_bf16(from, *packed, host.get());
    } else if (const gtn_status status = pack_s8(from, *packed, host.get(), message); status != GTN_OK) {
      return status;
    }
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
  info->groups = 0, info->group_size = 0;
  *weights = packed.release();
  return GTN_OK;
}

void gemm_weights_destroy(void* weights) {
  Weights* self = static_cast<Weights*>(weights);
  if (self->memory != nullptr) release(self->device, self->memory);
  delete self;
}

}  // namespace gatun::ascend
