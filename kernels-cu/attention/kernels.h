// The attention kernels there are: for each type of elements in shared memory, and for values of up to so many columns.
#pragma once

#include "attention/args.h"

namespace gatun::gpu::attention {

struct Kernel {
  void (*attend)(Args);
  void (*merge)(Args);
  int columns;  // of the values that one thread block has
  int keys;     // of a block
  int (*shared_bytes)(int dk, int dv);
};

// By rising columns; the last has shared memory for any head size or none has.
constexpr int kKernels = 3;
const Kernel& bf16_kernel(int index);
const Kernel& f16_kernel(int index);
const Kernel& f32_kernel(int index);

constexpr int kTileRows = 64;
constexpr int kTileThreads = 128;
constexpr int kTileBytes = 512;  // of shared memory, for what a tile is: all that merging needs

}  // namespace gatun::gpu::attention
