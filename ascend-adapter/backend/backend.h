// What the plans of the Ascend kernels are made of.
#pragma once

#include "accelerator/backend.h"

namespace gatun::ascend {

// Launches `kernel` with these tensors, any of them null, and a copy of `tiling`.
template <typename Tiling, typename... Pointers>
gtn_status launch_with(Stream& stream, const Kernel* kernel, int64_t blocks, const Tiling& tiling, gtn_message* message,
                       Pointers... pointers) {
  static_assert(sizeof(Tiling) <= kMaxTilingBytes && sizeof...(pointers) <= kMaxPointers);
  const Arguments arguments = {{pointers...}, sizeof...(pointers), &tiling, sizeof tiling};
  return launch(stream.queue, kernel, static_cast<int>(blocks), arguments, message);
}

// Blocks for so many independent parts: one for each vector core, or fewer.
inline int64_t vector_blocks(const Device& device, int64_t parts) {
  return parts < device.properties.vector_cores ? parts : device.properties.vector_cores;
}

// The elements of a row of n that a vector core would take if all of them shared `rows` rows alike.
inline int64_t share(const Device& device, int64_t rows, int64_t n) {
  if (rows >= device.properties.vector_cores) return n;
  const int64_t cores_of_row = device.properties.vector_cores / rows;
  return (n + cores_of_row - 1) / cores_of_row;
}

// Fills info->kernel with "<backend>.<rest>", as "ascend.norm.rms.bf16".
void name_kernel(gtn_plan_info* info, const char* rest);

}  // namespace gatun::ascend
