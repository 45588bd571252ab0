#include "attention/kernel.h"

namespace gatun::gpu::attention {
namespace {

template <int kColumns, int kBlocks>
GPU_KERNEL(kTileThreads, kBlocks) void attention_f16(const Args a) {
  attend<MatrixProducts<Half, kColumns>>(a);
}

template <int kColumns>
GPU_KERNEL(kTileThreads, 1) void merge_f16(const Args a) {
  merge_parts<MatrixProducts<Half, kColumns>>(a);
}

template <int kColumns, int kBlocks>
constexpr Kernel kernel() {
  using Products = MatrixProducts<Half, kColumns>;
  return {attention_f16<kColumns, kBlocks>, merge_f16<kColumns>, kColumns, Products::kKeys, shared_bytes<Products>};
}

}  // namespace

const Kernel& f16_kernel(int index) {
  static constexpr Kernel kAll[kKernels] = {kernel<64, 3>(), kernel<128, 2>(), kernel<256, 2>()};
  return kAll[index];
}

}  // namespace gatun::gpu::attention
