// Argument checks: each names the argument, its value and what was expected. Descriptions are checked once, when a plan is
// made; runs check pointers and counts against what the plan keeps.
#pragma once

#include <gatun/backend.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "core/dtype.h"
#include "core/message.h"

namespace gatun {

#define GATUN_CHECK(expression)                                     \
  do {                                                              \
    if (gtn_status gatun_status_ = (expression); gatun_status_ != GTN_OK) return gatun_status_; \
  } while (false)

int64_t element_size(int32_t dtype);  // 0 when there is no such dtype

// A structure that the caller passes in: copies what the caller's size covers into `*copy`, the rest is zero. A size below
// the structure's first version or, beyond what this library knows, anything but zero is refused.
gtn_status copy_description(gtn_message* message, const char* name, const void* from, void* copy, uint32_t known);

template <typename T>
gtn_status take(gtn_message* message, const char* name, const T* from, T* copy) {
  return copy_description(message, name, from, copy, sizeof(T));
}

// A structure that the library fills: it must have a size that at least holds its first field.
template <typename T>
gtn_status check_output(gtn_message* message, const char* name, const T* output) {
  if (output == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "%s: is null", name);
  if (output->size < 8) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s.size: is %u, expected sizeof the structure (%zu)", name, output->size,
                sizeof(T));
  }
  return GTN_OK;
}

// Gives `from` to the caller: as much as the caller's size covers; the size stays the caller's.
template <typename T>
void give(const T& from, T* to) {
  constexpr size_t start = sizeof(uint32_t);
  std::memcpy(reinterpret_cast<char*>(to) + start, reinterpret_cast<const char*>(&from) + start,
              std::min<size_t>(to->size, sizeof(T)) - start);
}

// What a run must know of a tensor to check memory against it: bytes as function of the rows in use, and whether two overlap.
// A tensor is seen as rows of `width` bytes, `pitch` bytes apart; `rows` counts them.
struct Extent {
  int64_t element = 1;  // bytes, and so the alignment
  int64_t width = 0;    // bytes from a row's first to past its last element
  int64_t pitch = 0;    // bytes from row to row
  bool exact = true;    // false: positions are not all `pitch` apart, so a row is a whole batch of them
};

// Bytes from the first to past the last of `rows` rows.
inline int64_t extent_bytes(const Extent& extent, int64_t rows) {
  return rows == 0 || extent.width == 0 ? 0 : (rows - 1) * extent.pitch + extent.width;
}

// Whether memory of the two is shared. Interleaved tensors of one pitch, such as columns of one matrix or keys and values
// that share their pages, are told apart.
bool overlap(const Extent& a, const void* at_a, int64_t rows_a, const Extent& b, const void* at_b, int64_t rows_b);

// dtype in `dtypes` (a mask of 1 << dtype), rank, shape, strides and extent (which must fit 63 bits); unit stride in the last
// dimension. `output`: no two elements may share memory.
gtn_status check_tensor(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, uint32_t dtypes, int min_rank,
                        int max_rank, bool unit_stride, bool output);

constexpr uint32_t kFloats = (1u << GTN_F32) | (1u << GTN_BF16);
constexpr uint32_t kFloatsAndHalf = kFloats | (1u << GTN_F16);

// An array of a run, without gaps, whose sizes come from a description: `elements` of them, each 0 or more, multiplied. Its
// bytes must fit 63 bits, so that kernels may multiply. `why` names the field that says how large it is.
gtn_status check_array(gtn_message* message, const char* why, const char* array, int64_t element,
                       std::initializer_list<int64_t> elements);

// Rank 2: the extent of its rows. Ranks 3 and 4 (attention): rows are positions, over heads and head size.
Extent extent_of(const gtn_tensor_desc& tensor);

// The rows of `batches` of `length` positions, of a tensor of rank 4 planned with batches of `planned`.
inline int64_t rows_of(const Extent& extent, int64_t batches, int64_t length, int64_t planned) {
  return extent.exact ? (batches - 1) * planned + length : batches;
}

// The outer range of a tensor whose first sizes are `sizes`, as one row: for ranks without an extent.
Extent range_of(const gtn_tensor_desc& tensor, std::initializer_list<int64_t> sizes);

// Whether elements with the same indices lie the same way: strides of dimensions of at most one index do not matter.
bool same_strides(int rank, const int64_t* shape, const int64_t* strides, const int64_t* other);

// A dimension that does not step over all that those of smaller strides reach, so that elements may share memory, or -1.
// `*reach` is the least stride that would.
int crowded_dimension(const gtn_tensor_desc& tensor, int64_t* reach);

gtn_status check_flag(gtn_message* message, const char* name, int32_t value);
gtn_status check_activation(gtn_message* message, int32_t activation);
// The format of packed weights, with the size of the groups of quantized ones.
gtn_status check_format(gtn_message* message, int32_t format, int64_t group_size);
gtn_status check_at_least(gtn_message* message, const char* name, int64_t value, int64_t least);
gtn_status check_finite(gtn_message* message, const char* name, float value);
gtn_status check_same_shape(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, const char* other_name,
                            const gtn_tensor_desc& other);
// One dimension of `tensor` against one of another, `whose`.
gtn_status check_size(gtn_message* message, const char* name, const gtn_tensor_desc& tensor, int dimension, const char* whose,
                      int64_t expected);

// A run's pointer: null exactly where the plan has none, and aligned to its element.
inline gtn_status check_pointer(gtn_message* message, const char* name, const void* pointer, bool wanted, int64_t alignment) {
  if ((pointer != nullptr) != wanted) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s: is %s, expected %s", name, pointer == nullptr ? "null" : "not null",
                wanted ? "memory" : "null, since the plan has none");
  }
  if ((reinterpret_cast<uintptr_t>(pointer) & static_cast<uintptr_t>(alignment - 1)) != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s: is %p, expected an address aligned to its element of %lld bytes", name,
                pointer, static_cast<long long>(alignment));
  }
  return GTN_OK;
}

inline gtn_status check_count(gtn_message* message, const char* name, int64_t value, int64_t most) {
  if (value < 0 || value > most) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s: is %lld, expected 0 to %lld, the plan's maximum", name,
                static_cast<long long>(value), static_cast<long long>(most));
  }
  return GTN_OK;
}

}  // namespace gatun
