// Attention on FP32 units: see kernel.h.
#include "attention/kernel.h"

namespace gatun::gpu::attention {
namespace {

template <int kRowWarps, int kColumns>
using Shape = TileShape<kRowWarps, kColumns, (kColumns <= 64 ? 64 : kRowWarps == 1 || kColumns <= 128 ? 32 : 16)>;

template <int kRowWarps, int kColumns, bool kExact, int kBlocks>
constexpr Kernel kernel() {
  return kernel_of<ScalarProducts<Shape<kRowWarps, kColumns>, kExact>, kBlocks>();
}

}  // namespace

// The last numbers: thread blocks that a multiprocessor is to hold, which limits registers.
KernelTable f32_kernels(bool few_rows) {
  static constexpr Kernel kMany[] = {kernel<4, 64, true, 3>(), kernel<4, 64, false, 3>(), kernel<4, 128, true, 2>(),
                                     kernel<4, 128, false, 2>(), kernel<4, 256, false, 2>()};
  static constexpr Kernel kFew[] = {kernel<1, 64, false, 3>(), kernel<1, 128, false, 3>(), kernel<1, 256, false, 2>()};
  return few_rows ? KernelTable{kFew, 3} : KernelTable{kMany, 5};
}

}  // namespace gatun::gpu::attention
