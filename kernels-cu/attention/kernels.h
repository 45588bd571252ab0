// The attention kernels there are: for each type of elements in shared memory, and for values of up to so many columns.
#pragma once

#include "attention/args.h"

namespace gatun::gpu::attention {

struct Kernel {
  void (*attend)(Args);
  void (*merge)(Args);
  int rows;     // of a tile
  int columns;  // of the values that one thread block has
  int keys;     // of a block
  int (*shared_bytes)(int dk, int dv);
};

// By rising columns; with 64 rows, or with 16 for tiles of few.
constexpr int kKernels = 3;
const Kernel& bf16_kernel(bool few_rows, int index);
const Kernel& f16_kernel(bool few_rows, int index);
const Kernel& f32_kernel(bool few_rows, int index);

constexpr int kTileThreads = 128;
constexpr int kTileBytes = 512;  // of shared memory, for what a tile is: all that merging needs

}  // namespace gatun::gpu::attention
