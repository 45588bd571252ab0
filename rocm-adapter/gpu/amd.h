// The AMD half of the layer of gpu.h: builtins of clang for amdgcn, with no header and no library of ROCm. Waves of 64 on CDNA
// (gfx90a, gfx942, gfx950) and of 32 on RDNA (gfx1100, gfx1200), as GATUN_GPU_WAVE says. Sources: "User Guide for AMDGPU Backend" of LLVM
// (memory model, kernel arguments of code object version 5) and the instruction set guides of CDNA 3 and RDNA 3.
//
// clang compiles a kernel file twice, for the device and for the host, where a kernel's address is what registers it
// (backend/registry.h).
#pragma once

#include <stdint.h>

#define GPU_KERNEL(threads, min_blocks) __attribute__((global, amdgpu_flat_work_group_size(threads, threads)))
#define GPU_DEVICE __attribute__((device, always_inline)) inline
#define GPU_HOST_DEVICE __attribute__((host, device, always_inline)) inline
#define GPU_UNROLL _Pragma("unroll")
#define GPU_TEXT(words) #words
#define GPU_UNROLL_BY(times) _Pragma(GPU_TEXT(unroll times))
#define GPU_ROLLED _Pragma("unroll 1")

#include "gpu/math64.h"

// What clang wants to know for the stubs that it makes of kernels on the host's side. Nobody calls them.
struct dim3 {
  unsigned x, y, z;
};
extern "C" int hipLaunchKernel(const void*, dim3, dim3, void**, size_t, void*);
extern "C" int __hipPushCallConfiguration(dim3, dim3, size_t, void*);
extern "C" int __hipPopCallConfiguration(dim3*, dim3*, size_t*, void*);

namespace gatun::gpu {

#if GATUN_GPU_WAVE == 64
using Lanes = uint64_t;
#else
using Lanes = uint32_t;
#endif
constexpr Lanes kAllLanes = ~Lanes{0};
#if defined(__HIP_DEVICE_COMPILE__) && defined(__GFX9__)
static_assert(kWarp == 64, "CDNA has waves of 64");
#elif defined(__HIP_DEVICE_COMPILE__)
static_assert(kWarp == 32, "RDNA is run with waves of 32");
#endif

GPU_DEVICE int thread() { return static_cast<int>(__builtin_amdgcn_workitem_id_x()); }
GPU_DEVICE int block_x() { return static_cast<int>(__builtin_amdgcn_workgroup_id_x()); }
GPU_DEVICE int block_y() { return static_cast<int>(__builtin_amdgcn_workgroup_id_y()); }
GPU_DEVICE int block_z() { return static_cast<int>(__builtin_amdgcn_workgroup_id_z()); }
// The first hidden arguments of code object version 5 are the numbers of work groups.
GPU_DEVICE int hidden_argument(int i) {
  using Constant = const __attribute__((address_space(4))) uint32_t;
  return static_cast<int>(((Constant*)__builtin_amdgcn_implicitarg_ptr())[i]);
}
GPU_DEVICE int grid_x() { return hidden_argument(0); }
GPU_DEVICE int grid_y() { return hidden_argument(1); }
GPU_DEVICE int grid_z() { return hidden_argument(2); }

GPU_DEVICE char* shared() {
  extern __attribute__((shared, aligned(1024))) char block_memory[];
  return block_memory;
}

// Barriers and order. The lanes of a wave go in step: only the compiler is to be kept from moving accesses.
GPU_DEVICE void sync_threads() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
GPU_DEVICE void sync_warp(Lanes = kAllLanes) {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
GPU_DEVICE void fence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
GPU_DEVICE void trap() { __builtin_trap(); }

// Within a wave: ds_bpermute takes a byte address of four times the lane.
template <typename T>
GPU_DEVICE T shuffle(T v, int from) {
  static_assert(sizeof(T) == 4);
  return __builtin_bit_cast(T, __builtin_amdgcn_ds_bpermute((from & (kWarp - 1)) << 2, __builtin_bit_cast(int, v)));
}
GPU_DEVICE int own_lane() { return thread() & (kWarp - 1); }
template <typename T>
GPU_DEVICE T shuffle_xor(T v, int mask) {
  return shuffle(v, own_lane() ^ mask);
}
template <typename T>
GPU_DEVICE T shuffle_up(T v, int n) {
  const int from = own_lane() - n;
  return shuffle(v, from < 0 ? own_lane() : from);
}
template <typename T>
GPU_DEVICE T shuffle_down(T v, int n) {
  const int from = own_lane() + n;
  return shuffle(v, from >= kWarp ? own_lane() : from);
}
GPU_DEVICE Lanes ballot(bool p) {
#if GATUN_GPU_WAVE == 64
  return __builtin_amdgcn_ballot_w64(p);
#else
  return __builtin_amdgcn_ballot_w32(p);
#endif
}
GPU_DEVICE bool any(bool p) { return ballot(p) != 0; }
GPU_DEVICE bool all(bool p) { return ballot(p) == kAllLanes; }

// Atomics give the value before.
template <typename T>
GPU_DEVICE T atomic_add(T* p, T v) {
  return __hip_atomic_fetch_add(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
template <typename T>
GPU_DEVICE T atomic_max(T* p, T v) {
  return __hip_atomic_fetch_max(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// Arithmetic. Files are compiled with -ffp-contract=off.
GPU_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GPU_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
GPU_DEVICE float greater_of(float a, float b) { return __builtin_fmaxf(a, b); }
GPU_DEVICE float rint(float x) { return __builtin_rintf(x); }
// v_exp_f32 gives 0 for results below the normal range.
GPU_DEVICE float exp2_approx(float x) { return __builtin_amdgcn_exp2f(x); }
GPU_DEVICE int ones(uint32_t x) { return __builtin_popcount(x); }
GPU_DEVICE int ones(uint64_t x) { return __builtin_popcountll(x); }
GPU_DEVICE uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
GPU_DEVICE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }
GPU_DEVICE double arc_cosine(double x) { return math64::arc_cosine(x); }
GPU_DEVICE double logarithm(double x) { return math64::logarithm(x); }
GPU_DEVICE double log_1_plus(double x) { return math64::log_1_plus(x); }
GPU_DEVICE double exp_less_1(double x) { return math64::exp_less_1(x); }

// 16-bit numbers, as their bits.
struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

GPU_DEVICE float to_float(float x) { return x; }
GPU_DEVICE float to_float(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
GPU_DEVICE float to_float(Half x) { return static_cast<float>(__builtin_bit_cast(_Float16, x.bits)); }
GPU_DEVICE Bf16 to_bf16(float x) { return {__builtin_bit_cast(uint16_t, static_cast<__bf16>(x))}; }
GPU_DEVICE Half to_half(float x) { return {__builtin_bit_cast(uint16_t, static_cast<_Float16>(x))}; }
// `lo` in the lower half.
GPU_DEVICE uint32_t pack_bf16(float lo, float hi) {
  return to_bf16(lo).bits | static_cast<uint32_t>(to_bf16(hi).bits) << 16;
}
GPU_DEVICE uint32_t pack_half(float lo, float hi) {
  return to_half(lo).bits | static_cast<uint32_t>(to_half(hi).bits) << 16;
}

// Vectors of memory, global or shared.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};
using Words4 = uint32_t __attribute__((ext_vector_type(4)));
using Words2 = uint32_t __attribute__((ext_vector_type(2)));

GPU_DEVICE Bytes16 load_16(const void* p) { return __builtin_bit_cast(Bytes16, *static_cast<const Words4*>(p)); }
GPU_DEVICE Bytes8 load_8(const void* p) { return __builtin_bit_cast(Bytes8, *static_cast<const Words2*>(p)); }
GPU_DEVICE uint32_t load_4(const void* p) { return *static_cast<const uint32_t*>(p); }
GPU_DEVICE void store_16(void* p, Bytes16 v) { *static_cast<Words4*>(p) = __builtin_bit_cast(Words4, v); }
GPU_DEVICE void store_8(void* p, Bytes8 v) { *static_cast<Words2*>(p) = __builtin_bit_cast(Words2, v); }
GPU_DEVICE void store_4(void* p, uint32_t v) { *static_cast<uint32_t*>(p) = v; }

}  // namespace gatun::gpu
