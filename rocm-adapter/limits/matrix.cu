// What MFMA and WMMA reach: kernels-cu/limits/mma.cu for AMD, whose instructions are others.
#include "gpu/matrix.h"
#include "limits/chains.h"

namespace gatun::gpu {
namespace {

template <typename Element>
GPU_DEVICE void multiply_chains(const LimitArgs& a, uint32_t word) {
  using Unit = matrix::Unit<Element>;
  typename Unit::Sum c[kChains][Unit::kSums] = {};
  Bytes16 left[Unit::kChunks], right[Unit::kChunks];
  GPU_UNROLL
  for (int i = 0; i < Unit::kChunks; ++i) {
    GPU_UNROLL
    for (uint32_t w = 0; w < 4; ++w) left[i].word[w] = word + w, right[i].word[w] = word + 4 * w;
  }
  for (int64_t r = 0; r < a.rounds; ++r) {
    GPU_UNROLL
    for (int i = 0; i < kChains; ++i) Unit::multiply(c[i], left, right);
  }
  float sum = 0.0f;
  GPU_UNROLL
  for (int i = 0; i < kChains; ++i) {
    GPU_UNROLL
    for (int e = 0; e < Unit::kSums; ++e) sum += static_cast<float>(c[i][e]);
  }
  use(a, bits_of(sum));
}

// Lanes 16 apart hold the same, as WMMA of RDNA 3 wants it.
GPU_KERNEL(kLimitThreads, 2) void bf16_chains(const LimitArgs a) {
  multiply_chains<Bf16>(a, pack_bf16(static_cast<float>(lane() % 16), 0.5f));
}
GPU_KERNEL(kLimitThreads, 2) void s8_chains(const LimitArgs a) {
  multiply_chains<matrix::S8>(a, 0x01020304u * static_cast<uint32_t>(lane() % 16));
}

// Of a thread in a step of so many bytes of k, for 16 by 16 sums of a wave.
constexpr double operations(int bytes, int element_bytes) { return 2.0 * 16 * 16 * bytes / element_bytes / kWarp; }

}  // namespace

const LimitKernel kLimitBf16 = {bf16_chains, kChains * operations(matrix::Unit<Bf16>::kStepBytes, 2)};
const LimitKernel kLimitS8 = {s8_chains, kChains * operations(matrix::Unit<matrix::S8>::kStepBytes, 1)};

}  // namespace gatun::gpu
