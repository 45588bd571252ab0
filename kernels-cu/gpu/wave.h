// How many threads a warp has: 32 of NVIDIA, RDNA and the host models of both, 64 of CDNA, where AMD says wave. It is settled when
// a library is compiled (GATUN_GPU_WAVE), for its kernels and for the plans that share out work among warps.
#pragma once

#ifndef GATUN_GPU_WAVE
#define GATUN_GPU_WAVE 32
#endif

namespace gatun::gpu {

constexpr int kWarp = GATUN_GPU_WAVE;
static_assert(kWarp == 32 || kWarp == 64);

}  // namespace gatun::gpu
