#include "core/checks.h"

#include <cmath>
#include <cstdio>

namespace gatun {

int64_t element_size(int32_t dtype) {
  switch (dtype) {
    case GTN_F32:
    case GTN_S32:
      return 4;
    case GTN_BF16:
    case GTN_F16:
      return 2;
    case GTN_S8:
    case GTN_U8:
      return 1;
    case GTN_S64:
      return 8;
    default:
      return 0;
  }
}

namespace {

// "F32, BF16 or F16", of a mask of dtypes.
struct Alternatives {
  char text[64] = "";

  explicit Alternatives(uint32_t dtypes) {
    size_t length = 0;
    for (int32_t dtype = GTN_F32; dtype <= GTN_S64; ++dtype) {
      if ((dtypes >> dtype & 1u) == 0) continue;
      const char* between = length == 0 ? "" : (dtypes >> (dtype + 1)) == 0 ? " or " : ", ";
      length += static_cast<size_t>(std::snprintf(text + length, sizeof text - length, "%s%s", between, dtype_name(dtype)));
    }
  }
};

}  // namespace

gtn_status copy_description(gtn_message* message, const char* name, const void* from, void* copy, uint32_t known) {
  if (from == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "%s: is null", name);
  uint32_t size;
  std::memcpy(&size, from, sizeof size);
  if (size < known) {
    // Every structure is still at its first version, so less than all of it was never right.
    return fail(message, GTN_INVALID_ARGUMENT, "%s.size: is %u, expected sizeof the structure (%u)", name, size, known);
  }
  if (size > (uint32_t{1} << 16)) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.size: is %u, more than any structure has", name, size);
  }
  const char* bytes = static_cast<const char*>(from);
  for (uint32_t i = known; i < size; ++i) {
    if (bytes[i] != 0) {
      return fail(message, GTN_UNSUPPORTED, "%s: uses a field at byte %u that this library does not know (it knows %u bytes)",
                  name, i, known);
    }
  }
  std::memcpy(copy, from, known);
  return GTN_OK;
}

gtn_status check_tensor(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, uint32_t dtypes, int min_rank,
                        int max_rank, bool unit_stride, bool output) {
  if (tensor.size != sizeof tensor) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.size: is %u, expected %zu", name, tensor.size, sizeof tensor);
  }
  if (element_size(tensor.dtype) == 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.dtype: is %d, which is no dtype", name, tensor.dtype);
  }
  if ((dtypes >> tensor.dtype & 1u) == 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.dtype: is %s, expected %s", name, dtype_name(tensor.dtype),
                Alternatives(dtypes).text);
  }
  if (tensor.rank < min_rank || tensor.rank > max_rank) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.rank: is %d, expected %d to %d", name, tensor.rank, min_rank, max_rank);
  }
  int64_t elements = 1;  // of the bounding range
  bool empty = false;
  for (int d = 0; d < tensor.rank; ++d) {
    if (tensor.shape[d] < 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[%d]: is %lld, expected 0 or more", name, d,
                  static_cast<long long>(tensor.shape[d]));
    }
    if (tensor.strides[d] < 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.strides[%d]: is %lld, expected 0 or more", name, d,
                  static_cast<long long>(tensor.strides[d]));
    }
    empty = empty || tensor.shape[d] == 0;
  }
  const int last = tensor.rank - 1;
  if (unit_stride && tensor.shape[last] > 1 && tensor.strides[last] != 1) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.strides[%d]: is %lld, expected 1", name, last,
                static_cast<long long>(tensor.strides[last]));
  }
  // The range must fit 63 bits even for an empty tensor's other dimensions, since kernels multiply shapes with strides.
  int64_t product = element_size(tensor.dtype);
  for (int d = 0; d < tensor.rank; ++d) {
    int64_t reach, bytes;
    const int64_t steps = tensor.shape[d] > 0 ? tensor.shape[d] : 1;
    if (__builtin_mul_overflow(steps, tensor.strides[d], &reach) || __builtin_add_overflow(elements, reach, &elements) ||
        __builtin_mul_overflow(elements, element_size(tensor.dtype), &bytes) ||
        __builtin_mul_overflow(product, steps, &product)) {
      return fail(message, GTN_INVALID_ARGUMENT,
                  "%s: dimension %d of %lld elements with stride %lld makes it exceed 2^63 bytes", name, d,
                  static_cast<long long>(tensor.shape[d]), static_cast<long long>(tensor.strides[d]));
    }
  }
  int64_t reach;
  if (const int d = output && !empty ? crowded_dimension(tensor, &reach) : -1; d >= 0) {
    return fail(message, GTN_INVALID_ARGUMENT,
                "%s.strides[%d]: is %lld, expected %lld or more, since no two elements of an output may share memory", name, d,
                static_cast<long long>(tensor.strides[d]), static_cast<long long>(reach));
  }
  return GTN_OK;
}

int crowded_dimension(const gtn_tensor_desc& tensor, int64_t* reach) {
  int order[GTN_MAX_RANK];  // by stride
  for (int d = 0; d < tensor.rank; ++d) {
    int at = d;
    for (; at > 0 && tensor.strides[order[at - 1]] > tensor.strides[d]; --at) order[at] = order[at - 1];
    order[at] = d;
  }
  *reach = 1;
  for (int i = 0; i < tensor.rank; ++i) {
    const int d = order[i];
    if (tensor.shape[d] == 1) continue;
    if (tensor.strides[d] < *reach) return d;
    *reach += (tensor.shape[d] - 1) * tensor.strides[d];
  }
  return -1;
}

Extent extent_of(const gtn_tensor_desc& tensor) {
  Extent extent;
  extent.element = element_size(tensor.dtype);
  const int position = tensor.rank == 4 ? 1 : 0;
  int64_t width = 1;
  for (int d = position + 1; d < tensor.rank; ++d) {
    if (tensor.shape[d] == 0) return extent;  // nothing in a row
    width += (tensor.shape[d] - 1) * tensor.strides[d];
  }
  extent.width = width * extent.element;
  extent.pitch = tensor.strides[position] * extent.element;
  if (tensor.rank == 4) {
    // Seen as shape[0] * shape[1] rows of one pitch where the batches follow each other so; else as one wide row a batch.
    if (tensor.shape[0] > 1 && tensor.strides[0] != tensor.shape[1] * tensor.strides[1]) {
      extent.exact = false;
      extent.width += tensor.shape[1] == 0 ? 0 : (tensor.shape[1] - 1) * extent.pitch;
      extent.pitch = tensor.strides[0] * extent.element;
    }
  }
  return extent;
}

bool overlap(const Extent& a, const void* at_a, int64_t rows_a, const Extent& b, const void* at_b, int64_t rows_b) {
  const uintptr_t first_a = reinterpret_cast<uintptr_t>(at_a), first_b = reinterpret_cast<uintptr_t>(at_b);
  const int64_t bytes_a = extent_bytes(a, rows_a), bytes_b = extent_bytes(b, rows_b);
  if (bytes_a == 0 || bytes_b == 0) return false;
  if (first_a + static_cast<uint64_t>(bytes_a) <= first_b || first_b + static_cast<uint64_t>(bytes_b) <= first_a) return false;
  if (a.pitch != b.pitch || a.pitch <= 0) return true;
  if (a.width > a.pitch || b.width > b.pitch) return true;
  const uint64_t pitch = static_cast<uint64_t>(a.pitch);
  const uint64_t ahead = first_b >= first_a ? (first_b - first_a) % pitch : (pitch - (first_a - first_b) % pitch) % pitch;
  return !(ahead >= static_cast<uint64_t>(a.width) && ahead + static_cast<uint64_t>(b.width) <= pitch);
}

Extent range_of(const gtn_tensor_desc& tensor, std::initializer_list<int64_t> sizes) {
  Extent extent;
  extent.element = element_size(tensor.dtype);
  int64_t width = 1;
  for (int d = 0; d < tensor.rank; ++d) {
    const int64_t size = static_cast<size_t>(d) < sizes.size() ? sizes.begin()[d] : tensor.shape[d];
    if (size == 0) return extent;
    width += (size - 1) * tensor.strides[d];
  }
  extent.width = extent.pitch = width * extent.element;
  return extent;
}

bool same_strides(int rank, const int64_t* shape, const int64_t* strides, const int64_t* other) {
  for (int d = 0; d < rank; ++d) {
    if (shape[d] > 1 && strides[d] != other[d]) return false;
  }
  return true;
}

gtn_status check_array(gtn_message* message, const char* why, const char* array, int64_t element,
                       std::initializer_list<int64_t> elements) {
  int64_t bytes = element;
  for (int64_t size : elements) {
    // An empty array is no larger for being empty: kernels may multiply its other sizes.
    if (__builtin_mul_overflow(bytes, size > 0 ? size : 1, &bytes)) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s: makes %s exceed 2^63 bytes", why, array);
    }
  }
  return GTN_OK;
}

gtn_status check_flag(gtn_message* message, const char* name, int32_t value) {
  if (value == 0 || value == 1) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: is %d, expected 0 or 1", name, value);
}

gtn_status check_at_least(gtn_message* message, const char* name, int64_t value, int64_t least) {
  if (value >= least) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: is %lld, expected %lld or more", name, static_cast<long long>(value),
              static_cast<long long>(least));
}

gtn_status check_finite(gtn_message* message, const char* name, float value) {
  if (std::isfinite(value)) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: is %g, expected a finite number", name, static_cast<double>(value));
}

gtn_status check_size(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, int dimension, const char* whose,
                      int64_t expected) {
  if (tensor.shape[dimension] == expected) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[%d]: is %lld, expected %s %lld", name, dimension,
              static_cast<long long>(tensor.shape[dimension]), whose, static_cast<long long>(expected));
}

gtn_status check_activation(gtn_message* message, int32_t activation) {
  if (activation >= GTN_ACT_NONE && activation <= GTN_ACT_RELU) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "activation: is %d, which is no activation", activation);
}

gtn_status check_format(gtn_message* message, int32_t format, int64_t group_size) {
  switch (format) {
    case GTN_F32:
    case GTN_BF16:
    case GTN_F16:
    case GTN_S8:
    case GTN_F8E4M3:
    case GTN_F8E5M2:
    case GTN_BF16_2OF4:
      if (group_size == 0) return GTN_OK;
      return fail(message, GTN_INVALID_ARGUMENT, "desc.group_size: is %lld, expected 0 with %s",
                  static_cast<long long>(group_size), dtype_name(format));
    case GTN_U4:
    case GTN_U8:
      if (group_size == 32 || group_size == 64 || group_size == 128) return GTN_OK;
      return fail(message, GTN_INVALID_ARGUMENT, "desc.group_size: is %lld, expected 32, 64 or 128 with %s",
                  static_cast<long long>(group_size), dtype_name(format));
    default:
      return fail(message, GTN_INVALID_ARGUMENT,
                  "desc.format: is %s (%d), expected F32, BF16, F16, S8, U4, U8, F8E4M3, F8E5M2 or BF16_2OF4",
                  dtype_name(format), format);
  }
}

gtn_status check_same_shape(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, const char* other_name,
                            const gtn_tensor_desc& other) {
  if (tensor.rank != other.rank) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.rank: is %d, expected %s's %d", name, tensor.rank, other_name, other.rank);
  }
  for (int d = 0; d < tensor.rank; ++d) {
    if (tensor.shape[d] != other.shape[d]) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s.shape[%d]: is %lld, expected %s's %lld", name, d,
                  static_cast<long long>(tensor.shape[d]), other_name, static_cast<long long>(other.shape[d]));
    }
  }
  return GTN_OK;
}

}  // namespace gatun
