// What the matrix units reach through mma.sync, as most kernels of this backend ask them: on compute capability 9.0 and up
// their own instructions reach more.
#include "limits/chains.h"

namespace gatun::gpu {
namespace {

GPU_KERNEL(kLimitThreads, 2) void bf16_chains(const LimitArgs a) {
  float c[kChains][4] = {};
  const uint32_t word = pack_bf16(static_cast<float>(lane()), 0.5f);
  const uint32_t left[4] = {word, word + 1, word + 2, word + 3};
  const uint32_t right[2] = {word, word + 4};
  for (int64_t r = 0; r < a.rounds; ++r) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) mma_bf16(c[i], left, right);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  use(a, bits_of(sum));
}

GPU_KERNEL(kLimitThreads, 2) void s8_chains(const LimitArgs a) {
  int32_t c[kChains][4] = {};
  const uint32_t word = 0x01020304u * static_cast<uint32_t>(lane());
  const uint32_t left[4] = {word, word + 1, word + 2, word + 3};
  const uint32_t right[2] = {word, word + 4};
  for (int64_t r = 0; r < a.rounds; ++r) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) mma_s8(c[i], left, right);
  }
  int32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  use(a, static_cast<uint32_t>(sum));
}

}  // namespace

// m16n8k16 is 2 16 8 16 operations of a warp, m16n8k32 twice as many.
const LimitKernel kLimitBf16 = {bf16_chains, kChains * 4096.0 / kWarp};
const LimitKernel kLimitS8 = {s8_chains, kChains * 8192.0 / kWarp};

}  // namespace gatun::gpu
