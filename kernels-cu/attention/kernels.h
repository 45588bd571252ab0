// The attention kernels there are: for each type of elements in shared memory, and for values of up to so many columns.
#pragma once

#include "attention/args.h"
#include "gpu/wave.h"

namespace gatun::gpu::attention {

struct Kernel {
  void (*attend)(Args);
  void (*merge)(Args);
  int rows;     // of a tile
  int columns;  // of the values that one thread block has
  bool exact;   // it serves head sizes of k and v that equal its columns, and no others
  int keys;     // of a block
  int (*shared_bytes)(int dk, int dv);
};

// By rising columns, what is exact first; the last serves all head sizes that shared memory has room for.
struct KernelTable {
  const Kernel* kernels;
  int count;
};

// With 64 rows, or with 16 for tiles of few.
KernelTable bf16_kernels(bool few_rows);
KernelTable f16_kernels(bool few_rows);
KernelTable f32_kernels(bool few_rows);

// For compute capability 9.0, 64 rows and outputs of 16 bits, where the build has them (GATUN_GPU_HOPPER).
KernelTable hopper_kernels(bool bf16);

constexpr int kTileWarps = 4, kTileThreads = kTileWarps * kWarp;
constexpr int kTileBytes = 512;  // of shared memory, for what a tile is: all that merging needs

}  // namespace gatun::gpu::attention
