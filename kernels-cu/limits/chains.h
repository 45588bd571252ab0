// Chains of dependent instructions on operands in registers. Eight of them a thread, which do not wait for each other: an
// instruction's latency is four cycles for FP32 and some twenty to thirty for the matrix units, and a multiprocessor holds 16
// warps or more of these kernels.
#pragma once

#include "gpu/gpu.h"
#include "limits/kernels.h"

namespace gatun::gpu {

constexpr int kChains = 8;

// Writes where the compiler cannot know that nothing is written, so that it finds no work useless.
GPU_DEVICE void use(const LimitArgs& a, uint32_t bits) {
  if (bits == 0x12345678u && a.rounds < 0) store_4(a.to, bits);
}

}  // namespace gatun::gpu
