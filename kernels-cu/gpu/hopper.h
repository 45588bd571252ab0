// What compute capability 9.0 alone has (sm_90a), beside nvidia.h: products by a warp group, four warps whose first is a multiple
// of four, which read operands from shared memory while the warps go on (PTX ISA 9.0, section 9.7.15: wgmma).
//
//   group_fence()                   before the first product after its registers were written
//   multiply_group(c, a, b, add, T*)    c = a b^T + (add ? c : 0) for 64 rows and 64 columns; a and b in shared memory
//   multiply_group(c, a, b, T*)     c += a b for 64 or 128 columns, a in registers, b's rows the sums' terms
//   settle(c)                       before a fence and after a wait, for sums
//   group_commit()  group_wait()    the products until here are one batch; wait until all are done
//   publish()                       what this thread wrote to shared memory is for the unit to read, after a barrier
//
// c is laid out as the sums of N / 8 neighbouring m16n8k16, the warp's 16 rows being those at 16 warp() % 64, and a in registers as
// their left operand. Operands in shared memory are panels of 128-byte rows, 1024-byte aligned, in which chunk c of 16 bytes of
// row r lies at c ^ (r & 7); a descriptor names one.
#pragma once

#include "gpu/gpu.h"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "this header is for sm_90a"
#endif

namespace gatun::gpu {

GPU_DEVICE void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
GPU_DEVICE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
GPU_DEVICE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
GPU_DEVICE void group_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// Sums are in their registers at this point: keeps the compiler from moving them between a fence and a wait.
template <int kTiles>
GPU_DEVICE void settle(float (&c)[kTiles][4]) {
  GPU_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(c[n][i])::"memory");
  }
}

// An operand in panels of 128-byte rows; `panel`: bytes from one to the next, where the rows are terms of the sums.
GPU_DEVICE uint64_t panel_descriptor(const void* first, int panel) {
  constexpr uint64_t kEightRows = 1024 >> 4, kSwizzle128 = 1;
  return (shared_address(first) & 0x3ffffu) >> 4 | static_cast<uint64_t>(panel >> 4) << 16 | kEightRows << 32 |
         kSwizzle128 << 62;
}

// clang-format off
#define GATUN_SUMS_4(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define GATUN_SUMS_32(c, n)                                                                          \
  GATUN_SUMS_4(c, n), GATUN_SUMS_4(c, n + 1), GATUN_SUMS_4(c, n + 2), GATUN_SUMS_4(c, n + 3),        \
  GATUN_SUMS_4(c, n + 4), GATUN_SUMS_4(c, n + 5), GATUN_SUMS_4(c, n + 6), GATUN_SUMS_4(c, n + 7)
#define GATUN_NAMES_32                                                                               \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define GATUN_NAMES_64                                                                               \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                 \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                 \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

#define GATUN_MULTIPLY_GROUP(Type, name)                                                             \
  GPU_DEVICE void multiply_group(float (&c)[8][4], uint64_t a, uint64_t b, bool add, Type*) {        \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"                                    \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " " GATUN_NAMES_32      \
                 ", %32, %33, add, 1, 1, 0, 0;\n}"                                                   \
                 : GATUN_SUMS_32(c, 0)                                                               \
                 : "l"(a), "l"(b), "r"(add ? 1 : 0));                                                \
  }                                                                                                  \
  GPU_DEVICE void multiply_group(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b, Type*) {      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " " GATUN_NAMES_32      \
                 ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                          \
                 : GATUN_SUMS_32(c, 0)                                                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
  }                                                                                                  \
  GPU_DEVICE void multiply_group(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b, Type*) {     \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." name "." name " " GATUN_NAMES_64     \
                 ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                          \
                 : GATUN_SUMS_32(c, 0), GATUN_SUMS_32(c, 8)                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
  }
GATUN_MULTIPLY_GROUP(Bf16, "bf16")
GATUN_MULTIPLY_GROUP(Half, "f16")
#undef GATUN_MULTIPLY_GROUP
#undef GATUN_NAMES_64
#undef GATUN_NAMES_32
#undef GATUN_SUMS_32
#undef GATUN_SUMS_4
// clang-format on

}  // namespace gatun::gpu
