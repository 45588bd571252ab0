// The NVIDIA half of the layer of gpu.h: PTX for compute capability 8.0 and up. The PTX ISA manual, version 9.0, defines the
// instructions: section 9.7.9 cp.async, 9.7.14 mma and ldmatrix.
#pragma once

#include <stdint.h>

#define GPU_KERNEL(threads, min_blocks) __global__ __launch_bounds__(threads, min_blocks)
#define GPU_DEVICE __device__ __forceinline__
#define GPU_HOST_DEVICE __host__ __device__ __forceinline__
#define GPU_UNROLL _Pragma("unroll")
#define GPU_TEXT(words) #words
#define GPU_UNROLL_BY(times) _Pragma(GPU_TEXT(unroll times))
#define GPU_ROLLED _Pragma("unroll 1")

namespace gatun::gpu {

using Lanes = uint32_t;
constexpr Lanes kAllLanes = 0xffffffffu;

GPU_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
GPU_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
GPU_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
GPU_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
GPU_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
GPU_DEVICE int grid_y() { return static_cast<int>(gridDim.y); }
GPU_DEVICE int grid_z() { return static_cast<int>(gridDim.z); }

GPU_DEVICE char* shared() {
  extern __shared__ __align__(1024) char block_memory[];
  return block_memory;
}

// Barriers and order.
GPU_DEVICE void sync_threads() { __syncthreads(); }
GPU_DEVICE void sync_warp(Lanes mask = kAllLanes) { __syncwarp(mask); }
GPU_DEVICE void sync_group(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
GPU_DEVICE void fence() { __threadfence(); }
GPU_DEVICE void trap() { __trap(); }

// Within a warp.
template <typename T>
GPU_DEVICE T shuffle(T v, int from) {
  static_assert(sizeof(T) == 4);
  return __shfl_sync(kAllLanes, v, from);
}
template <typename T>
GPU_DEVICE T shuffle_xor(T v, int mask) {
  static_assert(sizeof(T) == 4);
  return __shfl_xor_sync(kAllLanes, v, mask);
}
template <typename T>
GPU_DEVICE T shuffle_up(T v, int n) {
  static_assert(sizeof(T) == 4);
  return __shfl_up_sync(kAllLanes, v, static_cast<unsigned>(n));
}
template <typename T>
GPU_DEVICE T shuffle_down(T v, int n) {
  static_assert(sizeof(T) == 4);
  return __shfl_down_sync(kAllLanes, v, static_cast<unsigned>(n));
}
template <typename T>
GPU_DEVICE T uniform(const T& v) {
  return v;
}
GPU_DEVICE int anew(int v) { return v; }
GPU_DEVICE Lanes ballot(bool p) { return __ballot_sync(kAllLanes, p); }
GPU_DEVICE bool any(bool p) { return __any_sync(kAllLanes, p) != 0; }
GPU_DEVICE bool all(bool p) { return __all_sync(kAllLanes, p) != 0; }

// Atomics give the value before.
GPU_DEVICE float atomic_add(float* p, float v) { return atomicAdd(p, v); }
GPU_DEVICE int32_t atomic_add(int32_t* p, int32_t v) { return atomicAdd(p, v); }
GPU_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
GPU_DEVICE int32_t atomic_max(int32_t* p, int32_t v) { return atomicMax(p, v); }
GPU_DEVICE uint32_t atomic_max(uint32_t* p, uint32_t v) { return atomicMax(p, v); }

// Asynchronous copies.
GPU_DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

GPU_DEVICE void copy_async_16(void* to_shared, const void* from_global, int valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from_global),
               "r"(valid)
               : "memory");
}
GPU_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kUnderWay>
GPU_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kUnderWay) : "memory");
}

// Matrix units.
GPU_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
GPU_DEVICE void load_matrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
GPU_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
GPU_DEVICE void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

GPU_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
GPU_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
GPU_DEVICE void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
GPU_DEVICE void mma_u8s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Arithmetic. Files are compiled with --fmad=false.
GPU_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GPU_DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
GPU_DEVICE float greater_of(float a, float b) { return fmaxf(a, b); }
GPU_DEVICE float rint(float x) {
  float y;
  asm("cvt.rni.f32.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GPU_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GPU_DEVICE double arc_cosine(double x) { return ::acos(x); }
GPU_DEVICE double logarithm(double x) { return ::log(x); }
GPU_DEVICE double log_1_plus(double x) { return ::log1p(x); }
GPU_DEVICE double exp_less_1(double x) { return ::expm1(x); }
GPU_DEVICE int ones(uint32_t x) { return __popc(x); }
GPU_DEVICE int ones(uint64_t x) { return __popcll(x); }
GPU_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
GPU_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

GPU_DEVICE float to_float(float x) { return x; }
GPU_DEVICE float to_float(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
GPU_DEVICE float to_float(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
GPU_DEVICE Bf16 to_bf16(float x) {
  Bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
GPU_DEVICE Half to_half(float x) {
  Half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
// `lo` in the lower half.
GPU_DEVICE uint32_t pack_bf16(float lo, float hi) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
GPU_DEVICE uint32_t pack_half(float lo, float hi) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
GPU_DEVICE uint32_t add_bf16(uint32_t x, uint32_t y) {
  constexpr uint32_t kOnes = 0x3f803f80u;  // 8.0 has no addition of pairs
  uint32_t sum;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(x), "r"(kOnes), "r"(y));
  return sum;
}
GPU_DEVICE uint32_t add_half(uint32_t x, uint32_t y) {
  uint32_t sum;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(x), "r"(y));
  return sum;
}

// Vectors of memory, global or shared.
GPU_DEVICE Bytes16 load_16(const void* p) {
  const uint4 v = *static_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
GPU_DEVICE Bytes8 load_8(const void* p) {
  const uint2 v = *static_cast<const uint2*>(p);
  return {{v.x, v.y}};
}
GPU_DEVICE uint32_t load_4(const void* p) { return *static_cast<const uint32_t*>(p); }
GPU_DEVICE void store_16(void* p, Bytes16 v) {
  *static_cast<uint4*>(p) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
}
GPU_DEVICE void store_8(void* p, Bytes8 v) { *static_cast<uint2*>(p) = make_uint2(v.word[0], v.word[1]); }
GPU_DEVICE void store_4(void* p, uint32_t v) { *static_cast<uint32_t*>(p) = v; }

}  // namespace gatun::gpu
