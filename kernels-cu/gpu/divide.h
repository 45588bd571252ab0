// Division of numbers that are not negative, for the places that a flat index stands for.
#pragma once

#include "gpu/gpu.h"

namespace gatun::gpu {

// i / size: 32 bits, where both fit, take a fraction of what 64 cost.
GPU_DEVICE int64_t divide(int64_t i, int64_t size) {
  if (i <= 0x7fffffff && size <= 0x7fffffff) return static_cast<uint32_t>(i) / static_cast<uint32_t>(size);
  return i / size;
}

}  // namespace gatun::gpu
