// Attention on FP32 units: see kernel.h.
#include "attention/kernel.h"

namespace gatun::gpu::attention {
namespace {

template <int kRowWarps, int kColumns>
using Products = ScalarProducts<kRowWarps, kColumns>;

template <int kRowWarps, int kColumns, int kBlocks>
GPU_KERNEL(kTileThreads, kBlocks) void attention_f32(const Args a) {
  attend<Products<kRowWarps, kColumns>>(a);
}

template <int kRowWarps, int kColumns>
GPU_KERNEL(kTileThreads, 1) void merge_f32(const Args a) {
  merge_parts<Products<kRowWarps, kColumns>>(a);
}

template <int kRowWarps, int kColumns, int kBlocks>
constexpr Kernel kernel() {
  using P = Products<kRowWarps, kColumns>;
  using Shape = typename P::Shape;
  return {attention_f32<kRowWarps, kColumns, kBlocks>, merge_f32<kRowWarps, kColumns>,
          Shape::kRows, kColumns, Shape::kKeys, shared_bytes<P>};
}

}  // namespace

// The last numbers: thread blocks that a multiprocessor is to hold, which limits registers.
const Kernel& f32_kernel(bool few_rows, int index) {
  static constexpr Kernel kMany[kKernels] = {kernel<4, 64, 3>(), kernel<4, 128, 2>(), kernel<4, 256, 2>()};
  static constexpr Kernel kFew[kKernels] = {kernel<1, 64, 4>(), kernel<1, 128, 3>(), kernel<1, 256, 2>()};
  return few_rows ? kFew[index] : kMany[index];
}

}  // namespace gatun::gpu::attention
