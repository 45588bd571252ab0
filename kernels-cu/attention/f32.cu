// Attention on FP32 units: see kernel.h.
#include "attention/kernel.h"

namespace gatun::gpu::attention {
namespace {

template <int kRowWarps, int kColumns, bool kExact>
using Products = ScalarProducts<kRowWarps, kColumns, kExact>;

template <int kRowWarps, int kColumns, bool kExact, int kBlocks>
GPU_KERNEL(kTileThreads, kBlocks) void attention_f32(const Args a) {
  attend<Products<kRowWarps, kColumns, kExact>>(a);
}

template <int kRowWarps, int kColumns>
GPU_KERNEL(kTileThreads, 1) void merge_f32(const Args a) {
  merge_parts<Products<kRowWarps, kColumns, false>>(a);
}

template <int kRowWarps, int kColumns, bool kExact, int kBlocks>
constexpr Kernel kernel() {
  using P = Products<kRowWarps, kColumns, kExact>;
  using Shape = typename P::Shape;
  return {attention_f32<kRowWarps, kColumns, kExact, kBlocks>, merge_f32<kRowWarps, kColumns>,
          Shape::kRows, kColumns, kExact, Shape::kKeys, shared_bytes<P>};
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
