// Attention on FP32 units, in tiles of its own, which 64 KiB of LDS hold: see kernels-cu/attention/kernel.h.
#include "attention/kernel.h"

namespace gatun::gpu::attention {

// Warps of rows, columns, keys, and warps of keys where that is not what the rows leave. The last of the few serves head sizes
// up to 576 (MLA).
KernelTable f32_kernels(bool few_rows) {
  static constexpr Kernel kMany[] = {
      kernel_of<ScalarProducts<TileShape<4, 64, 64>, true>, 1>(),
      kernel_of<ScalarProducts<TileShape<4, 64, 64>, false>, 1>(),
      kernel_of<ScalarProducts<TileShape<4, 128, 16>, true>, 1>(),
      kernel_of<ScalarProducts<TileShape<4, 128, 16>, false>, 1>(),
  };
  static constexpr Kernel kFew[] = {
      kernel_of<ScalarProducts<TileShape<1, 64, 32>, false>, 1>(),
      kernel_of<ScalarProducts<TileShape<1, 128, 32>, false>, 1>(),
      kernel_of<ScalarProducts<TileShape<1, 128, 16, 2>, false>, 1>(),
      kernel_of<ScalarProducts<TileShape<1, 128, 8, 1>, false>, 1>(),
  };
  return few_rows ? KernelTable{kFew, 4} : KernelTable{kMany, 4};
}

}  // namespace gatun::gpu::attention
