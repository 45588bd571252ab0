// What a kernel includes: one of the halves of the layer that kernels are written against, and the mathematics they share.
// Kernels are in namespace gatun::gpu, whose exp, fma and others hide those of the C library.
//
// A half is a header that provides the names below in gatun::gpu, the same ones with the same meaning:
//   nvidia.h   NVIDIA, compute capability 8.0 and up, by nvcc
//   amd.h      AMD, gfx90a and up, by clang (in rocm-adapter/gpu)
//   model.h    the host model, by any C++ compiler, with GATUN_GPU_MODEL defined
// What one architecture alone has lies in a header of its own beside these, for the tiles that use it: hopper.h (wgmma of sm_90a),
// and matrix.h of rocm-adapter/gpu (MFMA and WMMA). Tables of tiles say which kernels are made of what.
//
//   GPU_KERNEL(threads, min_blocks) void name(Args args)   a kernel: one argument, a structure that can be copied bitwise
//   GPU_DEVICE                       before a function of the device's
//   GPU_HOST_DEVICE                  before a function of both sides
//   GPU_UNROLL                       before a loop that indexes registers
//   GPU_UNROLL_BY(n)                 before a loop of which n turns are to be under way at once
//   GPU_ROLLED                       before a loop that is to stay one
//   thread()  block_x/y/z()  grid_x/y/z()  lane()  warp()  kWarp    one-dimensional blocks, three-dimensional grids
//   Lanes                            an unsigned number with a bit for each lane of a warp, which has 32 or 64 (wave.h)
//   shared()                         the block's dynamic shared memory, 128-byte aligned; there is no other
//   sync_threads()  sync_warp(mask)  sync_group(id, threads)        the last: a named barrier of 1 to 15, whole warps; not on AMD
//   shuffle(v, from)  shuffle_xor(v, mask)  shuffle_up(v, n)  shuffle_down(v, n)  ballot(p)  any(p)  all(p)
//                                    by all threads of a warp; of 4-byte values
//   uniform(v)                       v, of which all threads of a warp have the same: AMD keeps it once for a warp
//   anew(v)                          v, an int, of which nothing is computed ahead of a loop and kept: for what loops seldom need
//   atomic_add(p, v)  atomic_max(p, v)  fence()                     global or shared memory
//   copy_async_16(shared, global, valid)  copy_async_commit()  copy_async_wait<N>()
//                                    16 bytes, 16-byte aligned on both sides, of which the first `valid` are read and the
//                                    others become 0; wait leaves the N latest groups of this thread under way
// On NVIDIA:
//   load_matrix_x4/x2(r, row)  load_matrix_x4/x2_transposed(r, row) ldmatrix: lane i's pointer is row i % 8 of matrix i / 8
//   mma_bf16(c, a, b)  mma_f16       c += a b, m16n8k16, FP32 sums
//   mma_s8(c, a, b)  mma_u8s8        m16n8k32, 32-bit sums
// On AMD, 16 by 16 sums; matrix.h makes products of them:
//   mfma_bf16(c, a, b)  mfma_f16  mfma_s8       16, 16 and 32 of k, waves of 64
//   wmma_bf16(c, a, b)  wmma_f16  wmma_u8s8     16 of k, waves of 32
// On all:
//   exp2_approx(x)                   2^x to about 2 ulp, results below the normal range are 0
//   fma(a, b, c)  sqrt(x)  rint(x)   FP32, rounded once; nothing else is contracted: FMA only where written
//   greater_of(a, b)                 of a NaN and a number, the number
//   arc_cosine(x)  logarithm(x)  log_1_plus(x)  exp_less_1(x)    FP64, for a few numbers of a kernel
//   ones(x)                          how many bits of 32 or 64 are set
//   Bf16  Half  to_float(h)  to_bf16(f)  to_half(f)  pack_bf16(lo, hi)  pack_half(lo, hi)    ties to even, NaN kept
//   add_bf16(x, y)  add_half(x, y)   of pairs in a word, each sum rounded to nearest
//   Bytes16  Bytes8  load_16(p)  load_8(p)  load_4(p)  store_16(p, v)  store_8(p, v)  store_4(p, v)    aligned to their size
//   trap()                           ends the launch with an error
#pragma once

#include <stdint.h>

#include "gpu/values.h"
#include "gpu/wave.h"

#if defined(__HIP__)
#include "gpu/amd.h"
#elif defined(__CUDACC__)
#include "gpu/nvidia.h"
#elif defined(GATUN_GPU_MODEL)
#include "gpu/model.h"
#else
#error "kernels are compiled by nvcc, by clang for HIP, or for the host model with GATUN_GPU_MODEL"
#endif

namespace gatun::gpu {

GPU_DEVICE int lane() { return thread() & (kWarp - 1); }
GPU_DEVICE int warp() { return thread() / kWarp; }
GPU_DEVICE Lanes earlier_lanes() { return (Lanes{1} << lane()) - 1; }

// Of all threads of a warp; the order of the sums is that of a tree.
GPU_DEVICE float warp_sum(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

// NaN where any is NaN.
GPU_DEVICE float max_or_nan(float a, float b) { return a > b || a != a ? a : b; }

GPU_DEVICE float warp_max(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v = max_or_nan(v, shuffle_xor(v, mask));
  return v;
}

GPU_HOST_DEVICE constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
GPU_HOST_DEVICE constexpr int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace gatun::gpu

#include "gpu/math.h"
