// Packing of weights of 4 and 8 bits in groups, and in FP8, from floating point or as they come: on the host, a panel at a time. The layout is that of
// kernels.h. All panels' units come first, then all records. A known cost: one thread packs, and it reads a column at a time, which for
// dense rows is a stride of n.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "cpu/gemm/group_quantizer.h"
#include "cpu/gemm/to_float8.h"
#include "cpu/halves.h"
#include "gemm/kernels.h"
#include "gemm/plan.h"

namespace gatun::gpu {
namespace {

using namespace gemm;
using Group = cpu::Group;

struct Shape {
  int32_t format;
  int64_t matrices;  // 0: one
  int64_t k, n, group_size;  // group_size: FP8, the numbers that are read at a time, of a column that has one record
};
constexpr int64_t kFloat8Read = sizeof Group::integers;

const char* name_of(int32_t format) {
  return format == GTN_U4 ? "GTN_U4" : format == GTN_U8 ? "GTN_U8" : format == GTN_F8E4M3 ? "GTN_F8E4M3" : "GTN_F8E5M2";
}

bool is_finite(float value) { return std::fabs(value) <= 3.402823466e38f; }

// Where the integers of a unit's column lie, in steps of their bits, by k.
struct Places {
  int of[kUnitDepth];
  explicit Places(int32_t format) {
    for (int word = 0; word < kUnitDepth / 8; ++word) {
      for (int i = 0; i < 8; ++i) of[packed_k(word, i)] = word * 8 + (format == GTN_U4 ? i : i % 4 * 2 + i / 4);
    }
  }
};

// `read(matrix, column, group, count, Group*)` makes a group, false is an error, which `complain` words.
template <typename Read, typename Complain>
gtn_status pack_groups(Device& device, const Shape& shape, void** weights, gtn_weights_info* info, gtn_message* message, Read read,
                       Complain complain) {
  const auto [format, matrices, k, n, group_size] = shape;
  const int64_t depth = ceil_div(k, 2 * kUnitDepth) * 2 * kUnitDepth, panels = ceil_div(n, kPanelColumns);
  const bool whole = is_f8(format);
  const int64_t groups = whole ? (k > 0 ? 1 : 0) : ceil_div(depth, group_size), of_k = ceil_div(k, group_size);
  int64_t all_panels, panel_bytes, records_bytes, bytes;
  if (k > INT64_MAX / 64 || __builtin_mul_overflow(panels, matrices > 0 ? matrices : 1, &all_panels) ||
      __builtin_mul_overflow(depth / kUnitDepth, unit_bytes(format), &panel_bytes) || __builtin_mul_overflow(groups, kRecordBytes, &records_bytes) ||
      panel_bytes > INT64_MAX / 4 || records_bytes > INT64_MAX / 4 ||
      __builtin_mul_overflow(panel_bytes + records_bytes, all_panels, &bytes)) {
    return fail(message, GTN_OUT_OF_MEMORY, "packed weights of %lld times %lld x %lld do not fit the address space",
                static_cast<long long>(matrices > 0 ? matrices : 1), static_cast<long long>(k), static_cast<long long>(n));
  }
  struct Destroy {
    void operator()(PackedWeights* packed) const { gemm_weights_destroy(packed); }
    void operator()(Queue* queue) const { queue_destroy(queue); }
  };
  std::unique_ptr<PackedWeights, Destroy> packed(new (std::nothrow) PackedWeights{});
  const size_t buffer_bytes = static_cast<size_t>(panel_bytes + records_bytes);
  const std::unique_ptr<unsigned char[]> buffer(new (std::nothrow) unsigned char[buffer_bytes + 1]);
  if (packed == nullptr || buffer == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory of the host to pack weights in");
  }
  packed->device = device.index;
  packed->format = format;
  packed->panels = panels;
  packed->blocks = depth / kUnitDepth;
  void* data = nullptr;
  if (const gtn_status status = allocate(device.index, bytes > 0 ? bytes : 1, &data, message); status != GTN_OK) return status;
  packed->data = static_cast<char*>(data);
  packed->records = packed->data + all_panels * panel_bytes;
  Queue* created = nullptr;
  if (const gtn_status status = queue_create(device.index, &created, message); status != GTN_OK) return status;
  const std::unique_ptr<Queue, Destroy> queue(created);

  const Places places(format);
  unsigned char *units = buffer.get(), *records = units + panel_bytes;
  for (int64_t panel = 0; panel < all_panels && k > 0; ++panel) {
    std::memset(units, 0, buffer_bytes);
    const int64_t first = panel % panels * kPanelColumns;
    for (int64_t c = 0; c < kPanelColumns && first + c < n; ++c) {
      for (int64_t g = 0; g < of_k; ++g) {
        Group group;
        const int64_t from = g * group_size, count = k - from < group_size ? k - from : group_size;
        if (!read(panel / panels, first + c, g, count, &group)) return complain();
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = from + i;
          const int place = places.of[at % kUnitDepth];
          unsigned char* column = units + at / kUnitDepth * unit_bytes(format) + c * unit_column_bytes(format);
          if (format == GTN_U4) {
            column[place / 2] |= static_cast<unsigned char>(group.integers[i] << (place % 2 * 4));
          } else {
            column[place] = group.integers[i];
          }
        }
        unsigned char* record = records + (whole ? 0 : g) * kRecordBytes;
        std::memcpy(record + c * 4, &group.scale, sizeof group.scale);
        record[kZerosAt + c] = group.zero;
      }
    }
    gtn_status status = copy(queue.get(), packed->data + panel * panel_bytes, units, panel_bytes, GTN_HOST_TO_DEVICE, message);
    if (status == GTN_OK) {
      status = copy(queue.get(), packed->records + panel * records_bytes, records, records_bytes, GTN_HOST_TO_DEVICE, message);
    }
    if (status != GTN_OK) return status;
  }
  if (const gtn_status status = queue_synchronize(queue.get(), message); status != GTN_OK) return status;
  info->format = format;
  info->k = k;
  info->n = n;
  info->bytes = bytes;
  info->groups = matrices;
  info->group_size = whole ? 0 : group_size;
  *weights = packed.release();
  return GTN_OK;
}

}  // namespace

gtn_status gemm_weights_quantize(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                                 gtn_weights_info* info, gtn_message* message) {
  const gtn_tensor_desc& of = desc.source;
  const int row = of.rank - 2;
  const int64_t size = is_f8(desc.format) ? kFloat8Read : desc.group_size;
  const cpu::ToFloat8 to_f8(desc.format);
  const cpu::Quantizer quantizer{desc.format == GTN_U4 ? 4 : 8, desc.symmetric != 0, desc.quantize};
  const auto weight = [&](int64_t matrix, int64_t k, int64_t column) {
    const int64_t i = (row == 1 ? matrix * of.strides[0] : 0) + k * of.strides[row] + column * of.strides[row + 1];
    if (of.dtype == GTN_F32) return static_cast<const float*>(source)[i];
    const uint16_t half = static_cast<const uint16_t*>(source)[i];
    return of.dtype == GTN_BF16 ? cpu::from_bf16(half) : cpu::from_f16(half);
  };
  struct {
    int64_t matrix = 0, k = 0, column = 0;
    float value = 0;
  } wrong;
  float scale = 0;  // FP8: of the column
  return pack_groups(
      device, {desc.format, row == 1 ? of.shape[0] : 0, of.shape[row], of.shape[row + 1], size}, weights, info, message,
      [&](int64_t matrix, int64_t column, int64_t group, int64_t count, Group* to) {
        float w[sizeof to->integers];
        for (int64_t i = 0; i < count; ++i) {
          const int64_t k = group * size + i;
          w[i] = weight(matrix, k, column);
          if (is_finite(w[i])) continue;
          wrong = {matrix, k, column, w[i]};
          return false;
        }
        if (!is_f8(desc.format)) {
          quantizer.quantize(w, count, to);
          return true;
        }
        if (group == 0) {
          scale = 0;
          for (int64_t k = 0; k < of.shape[row]; ++k) {
            const float magnitude = std::fabs(weight(matrix, k, column));
            scale = magnitude > scale ? magnitude : scale;
          }
          scale /= to_f8.most;
        }
        to->scale = scale;
        for (int64_t i = 0; i < count; ++i) to->integers[i] = to_f8.number(w[i], scale);
        return true;
      },
      [&] {
        char which[40] = "";
        if (row == 1) std::snprintf(which, sizeof which, "group = %lld, ", static_cast<long long>(wrong.matrix));
        return fail(message, GTN_INVALID_ARGUMENT, "source[%sk = %lld, n = %lld] is %g; weights of format %s must be finite", which,
                    static_cast<long long>(wrong.k), static_cast<long long>(wrong.column), static_cast<double>(wrong.value), name_of(desc.format));
      });
}

namespace {

gtn_status pack_float8(Device& device, const gtn_quantized_desc& desc, const uint8_t* numbers, const float* scales, void** weights,
                       gtn_weights_info* info, gtn_message* message) {
  int64_t wrong = 0;
  float scale = 0;  // of the column
  return pack_groups(
      device, {desc.format, desc.groups, desc.k, desc.n, kFloat8Read}, weights, info, message,
      [&](int64_t matrix, int64_t column, int64_t group, int64_t count, Group* to) {
        wrong = matrix * desc.n + column;
        const uint8_t* from = numbers + wrong * desc.k;
        if (group == 0) {
          scale = scales[wrong];
          if (!is_finite(scale)) return false;
          for (int64_t k = 0; desc.format == GTN_F8E4M3 && k < desc.k; ++k) scale = cpu::is_nan_e4m3(from[k]) ? std::nanf("") : scale;
        }
        to->scale = scale;
        std::memcpy(to->integers, from + group * kFloat8Read, static_cast<size_t>(count));
        return true;
      },
      [&] {
        return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld] is %g, expected a finite number", static_cast<long long>(wrong),
                    static_cast<double>(scales[wrong]));
      });
}

}  // namespace

gtn_status gemm_weights_pack_quantized(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message) {
  if (!in_groups(desc.format)) return unsupported_format(message);
  if (is_f8(desc.format)) return pack_float8(device, desc, static_cast<const uint8_t*>(integers), scales, weights, info, message);
  const bool halves = desc.format == GTN_U4;
  const uint8_t symmetric = halves ? 8 : 128;
  const int64_t groups = ceil_div(desc.k, desc.group_size), zeros_of_column = halves ? ceil_div(groups, 2) : groups;
  const auto integer = [halves](const uint8_t* bytes, int64_t i) {
    return halves ? static_cast<uint8_t>(bytes[i / 2] >> (i % 2 * 4) & 15) : bytes[i];
  };
  int64_t wrong = 0;
  return pack_groups(
      device, {desc.format, desc.groups, desc.k, desc.n, desc.group_size}, weights, info, message,
      [&](int64_t matrix, int64_t column, int64_t group, int64_t count, Group* to) {
        const int64_t of_column = matrix * desc.n + column;
        wrong = of_column * groups + group;
        to->scale = scales[wrong];
        to->zero = zero_points == nullptr ? symmetric : integer(zero_points + of_column * zeros_of_column, group);
        const uint8_t* from = static_cast<const uint8_t*>(integers) + wrong * (halves ? desc.group_size / 2 : desc.group_size);
        for (int64_t i = 0; i < count; ++i) to->integers[i] = integer(from, i);
        return is_finite(to->scale);
      },
      [&] {
        return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld, group = %lld] is %g, expected a finite number",
                    static_cast<long long>(wrong / groups), static_cast<long long>(wrong % groups), static_cast<double>(scales[wrong]));
      });
}

}  // namespace gatun::gpu
