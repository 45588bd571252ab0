// Packs weights on the host, and copies them to the device.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/gemm/group_quantizer.h"
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
  const bool f16 = weights.format == GTN_F16;
  for (int64_t j = 0; j < weights.n; ++j) {
    for (int64_t i = 0; i < weights.k; ++i) *b++ = f16 ? cpu::to_f16(source.at(i, j)) : cpu::to_bf16(source.at(i, j));
  }
}

// The product is that of a dense matrix: this only holds the source to what the format promises.
gtn_status check_pruned(const Source& source, const Weights& weights, gtn_message* message) {
  for (int64_t j = 0; j < weights.n; ++j) {
    for (int64_t i = 0; i < weights.k; i += 4) {
      int kept = 0;
      for (int64_t l = i; l < i + 4 && l < weights.k; ++l) kept += source.at(l, j) != 0;
      if (kept <= 2) continue;
      return fail(message, GTN_INVALID_ARGUMENT,
                  "source[k = %lld to %lld, n = %lld] has more than 2 weights that are not 0; those of format GTN_BF16_2OF4 are pruned",
                  static_cast<long long>(i), static_cast<long long>(i + 3 < weights.k ? i + 3 : weights.k - 1), static_cast<long long>(j));
    }
  }
  return GTN_OK;
}

// The scale that makes the greatest magnitude of column j `largest`.
gtn_status find_scale(const Source& source, const Weights& weights, int64_t j, float largest, float* scale, gtn_message* message) {
  float most = 0;
  for (int64_t i = 0; i < weights.k; ++i) {
    const float value = source.at(i, j);
    if (!std::isfinite(value)) {
      return fail(message, GTN_INVALID_ARGUMENT, "source[%lld, %lld] is %g, expected finite weights for this format",
                  static_cast<long long>(i), static_cast<long long>(j), static_cast<double>(value));
    }
    most = std::fabs(value) > most ? std::fabs(value) : most;
  }
  *scale = most / largest;
  return GTN_OK;
}

gtn_status pack_s8(const Source& source, const Weights& weights, int8_t* b, float* scales, int32_t* sums, gtn_message* message) {
  for (int64_t j = 0; j < weights.n; ++j) {
    if (const gtn_status status = find_scale(source, weights, j, 127, &scales[j], message); status != GTN_OK) return status;
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

// Bits of the mantissa, the exponent's bias and the largest number of FP8.
struct Float8 {
  int mantissa, bias;
  float most;
  explicit Float8(int32_t format)
      : mantissa(format == GTN_F8E4M3 ? 3 : 2), bias(format == GTN_F8E4M3 ? 7 : 15), most(format == GTN_F8E4M3 ? 448.0f : 57344.0f) {}

  // To nearest, ties to even, within the largest.
  float round(float value) const {
    value = value > most ? most : value < -most ? -most : value;
    int exponent = 0;
    std::frexp(value, &exponent);
    const int least = 2 - bias;
    const int step = (exponent < least ? least : exponent) - 1 - mantissa;
    return std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
  }
  // Of its bits. NaN and infinity have the largest exponent; E4M3 has no infinity, and numbers beside its NaN.
  float number(uint8_t bits) const {
    const int exponent = (bits & 0x7f) >> mantissa, of_one = 1 << mantissa, rest = bits & (of_one - 1);
    float value = std::ldexp(static_cast<float>(exponent == 0 ? rest : rest + of_one), (exponent == 0 ? 1 : exponent) - bias - mantissa);
    if (mantissa == 3 ? (bits & 0x7f) == 0x7f : exponent == 31 && rest != 0) value = NAN;
    if (mantissa == 2 && exponent == 31 && rest == 0) value = INFINITY;
    return (bits & 0x80) != 0 ? -value : value;
  }
};

gtn_status pack_f8(const Source& source, const Weights& weights, uint16_t* b, float* scales, gtn_message* message) {
  const Float8 f8(weights.format);
  for (int64_t j = 0; j < weights.n; ++j) {
    if (const gtn_status status = find_scale(source, weights, j, f8.most, &scales[j], message); status != GTN_OK) return status;
    for (int64_t i = 0; i < weights.k; ++i) *b++ = cpu::to_bf16(scales[j] > 0 ? f8.round(source.at(i, j) / scales[j]) : 0);
  }
  return GTN_OK;
}

// Makes each group of integers of a column, `read(column, group, first, count, Group*)`; false is an error.
template <typename Read>
bool pack_groups(const Weights& weights, char* to, Read read) {
  float* scales = reinterpret_cast<float*>(to + weights.b_bytes());
  float* zeros = reinterpret_cast<float*>(to + weights.b_bytes() + Weights::after(weights.numbers() * 4));
  for (int64_t j = 0; j < weights.columns(); ++j) {
    for (int64_t g = 0; g < weights.of_column(); ++g) {
      cpu::Group group;
      const int64_t first = g * weights.group_size, count = std::min(weights.k - first, weights.group_size);
      if (!read(j, g, first, count, &group)) return false;
      std::memcpy(to + j * weights.k + first, group.integers, static_cast<size_t>(count));
      *scales++ = group.scale;
      *zeros++ = group.zero;
    }
  }
  return true;
}

gtn_status quantize(const gtn_weights_desc& desc, const void* source, const Weights& weights, char* to, gtn_message* message) {
  const int row = desc.source.rank - 2;
  const int64_t* strides = desc.source.strides;
  const cpu::Quantizer quantizer{desc.format == GTN_U4 ? 4 : 8, desc.symmetric != 0, desc.quantize};
  int64_t wrong_k = 0, wrong_column = 0;
  float wrong = 0;
  const bool done = pack_groups(weights, to, [&](int64_t j, int64_t, int64_t first, int64_t count, cpu::Group* group) {
    float w[sizeof group->integers];
    for (int64_t i = 0; i < count; ++i) {
      w[i] = load(source, desc.source.dtype,
                  (row == 1 ? j / weights.n * strides[0] : 0) + (first + i) * strides[row] + j % weights.n * strides[row + 1]);
      if (std::isfinite(w[i])) continue;
      wrong_k = first + i, wrong_column = j, wrong = w[i];
      return false;
    }
    quantizer.quantize(w, count, group);
    return true;
  });
  if (done) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "source[k = %lld, column = %lld] is %g; weights in groups must be finite",
              static_cast<long long>(wrong_k), static_cast<long long>(wrong_column), static_cast<double>(wrong));
}

// All groups, into the host's image of the device's memory.
gtn_status pack(const gtn_weights_desc& desc, const void* source, const Weights& weights, char* to, gtn_message* message) {
  if (in_groups(desc.format)) return quantize(desc, source, weights, to, message);
  const bool grouped = desc.source.rank == 3;
  const int64_t* strides = desc.source.strides + (grouped ? 1 : 0);
  const int64_t matrix = weights.k * weights.n, size = desc.source.dtype == GTN_F32 ? 4 : 2;
  float* scales = reinterpret_cast<float*>(to + weights.b_bytes());
  int32_t* sums = reinterpret_cast<int32_t*>(to + weights.b_bytes() + Weights::after(weights.columns() * 4));
  for (int64_t g = 0; g * weights.n < weights.columns(); ++g) {
    const Source from = {static_cast<const char*>(source) + (grouped ? g * desc.source.strides[0] * size : 0), desc.source.dtype,
                         strides[0], strides[1]};
    if (weights.format == GTN_BF16_2OF4) {
      if (const gtn_status status = check_pruned(from, weights, message); status != GTN_OK) return status;
    }
    if (is_f8(weights.format)) {
      const gtn_status status = pack_f8(from, weights, reinterpret_cast<uint16_t*>(to) + g * matrix, scales + g * weights.n, message);
      if (status != GTN_OK) return status;
      continue;
    }
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

// Weights as `pack_into(weights, host's image)` makes them, on the device.
template <typename Pack>
gtn_status make_weights(const Weights& of, void** weights, gtn_weights_info* info, gtn_message* message, Pack pack_into) {
  std::unique_ptr<Weights> packed(new (std::nothrow) Weights(of));
  if (packed == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
  if (packed->bytes() > 0) {
    std::unique_ptr<char[]> host(new (std::nothrow) char[static_cast<size_t>(packed->bytes())]());
    if (host == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
    if (const gtn_status status = pack_into(*packed, host.get()); status != GTN_OK) return status;
    void* memory = nullptr;
    if (const gtn_status status = allocate(of.device, packed->bytes(), &memory, message); status != GTN_OK) return status;
    packed->memory = static_cast<char*>(memory);
    if (const gtn_status status = upload(*packed, host.get(), message); status != GTN_OK) {
      release(of.device, memory);
      return status;
    }
  }
  info->format = of.format;
  info->k = of.k, info->n = of.n;
  info->bytes = packed->bytes();
  info->groups = of.groups, info->group_size = of.group_size;
  *weights = packed.release();
  return GTN_OK;
}

}  // namespace

gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  if (!gemm_serves(device, desc.format)) return declines_format(desc.format, message);
  const bool grouped = desc.source.rank == 3;
  const int64_t groups = grouped ? desc.source.shape[0] : 0;
  const int64_t k = desc.source.shape[grouped ? 1 : 0], n = desc.source.shape[grouped ? 2 : 1];
  return make_weights({device.index, desc.format, groups, k, n, nullptr, desc.group_size}, weights, info, message,
                      [&](const Weights& of, char* to) { return pack(desc, source, of, to, message); });
}

gtn_status gemm_weights_pack_quantized(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message) {
  if (is_f8(desc.format)) {
    return make_weights({device.index, desc.format, desc.groups, desc.k, desc.n, nullptr, 0}, weights, info, message,
                        [&](const Weights& of, char* to) -> gtn_status {
                          const Float8 f8(desc.format);
                          const uint8_t* numbers = static_cast<const uint8_t*>(integers);
                          for (int64_t i = 0; i < of.elements(); ++i)
                            reinterpret_cast<uint16_t*>(to)[i] = cpu::to_bf16(f8.number(numbers[i]));
                          for (int64_t j = 0; j < of.columns(); ++j) {
                            if (std::isfinite(scales[j])) continue;
                            return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld] is %g, expected a finite number",
                                        static_cast<long long>(j), static_cast<double>(scales[j]));
                          }
                          std::memcpy(to + of.b_bytes(), scales, static_cast<size_t>(of.columns()) * sizeof *scales);
                          return GTN_OK;
                        });
  }
  if (!in_groups(desc.format)) return declines_format(desc.format, message);
  const auto pack_them = [&](const Weights& of, char* to) -> gtn_status {
    const bool u4 = desc.format == GTN_U4;
    const int64_t column_bytes = of.of_column() * desc.group_size / (u4 ? 2 : 1);
    const int64_t zeros_of_column = u4 ? (of.of_column() + 1) / 2 : of.of_column();
    const auto integer = [u4](const uint8_t* from, int64_t i) {
      return u4 ? static_cast<uint8_t>(from[i / 2] >> (i % 2 * 4) & 15) : from[i];
    };
    int64_t wrong = 0;
    const bool done = pack_groups(of, to, [&](int64_t j, int64_t g, int64_t first, int64_t count, cpu::Group* group) {
      wrong = j * of.of_column() + g;
      group->scale = scales[wrong];
      group->zero = zero_points == nullptr ? (u4 ? 8 : 128) : integer(zero_points + j * zeros_of_column, g);
      const uint8_t* column = static_cast<const uint8_t*>(integers) + j * column_bytes;
      for (int64_t i = 0; i < count; ++i) group->integers[i] = integer(column, first + i);
      return std::isfinite(group->scale);
    });
    if (done) return GTN_OK;
    return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld, group = %lld] is %g, expected a finite number",
                static_cast<long long>(wrong / of.of_column()), static_cast<long long>(wrong % of.of_column()),
                static_cast<double>(scales[wrong]));
  };
  return make_weights({device.index, desc.format, desc.groups, desc.k, desc.n, nullptr, desc.group_size}, weights, info, message,
                      pack_them);
}

void gemm_weights_destroy(void* weights) {
  Weights* self = static_cast<Weights*>(weights);
  if (self->memory != nullptr) release(self->device, self->memory);
  delete self;
}

}  // namespace gatun::ascend
