// The AMD half of the layer of gpu.h: builtins of clang for amdgcn, with no header and no library of ROCm. Waves of 64 on CDNA
// (gfx90a, gfx942, gfx950) and of 32 on RDNA (gfx1100, gfx1200), as GATUN_GPU_WAVE says. Sources: "User Guide for AMDGPU
// Backend" of LLVM (memory model, kernel arguments of code object version 5) and the instruction set guides of CDNA 3 and RDNA
// 3.
//
// clang compiles a kernel file twice, for the device and for the host, where a kernel's address is what registers it
// (backend/registry.h).
#pragma once

#include <stddef.h>
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
// In scalar registers, on which branches need no masks of lanes.
template <typename T>
GPU_DEVICE T uniform(const T& v) {
  uint32_t words[sizeof(T) / 4];
  static_assert(sizeof words == sizeof v);
  __builtin_memcpy(words, &v, sizeof v);
  GPU_UNROLL
  for (uint32_t& word : words) word = __builtin_amdgcn_readfirstlane(word);
  T same;
  __builtin_memcpy(&same, words, sizeof same);
  return same;
}
GPU_DEVICE int anew(int v) {
  asm volatile("" : "+v"(v));
  return v;
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

// Asynchronous copies: these wait at once, since a path from memory to LDS past the registers is in gfx950's instructions
// alone, in 16 bytes. What is to be under way is left to other waves. A chunk is aligned, so all of it can be read where a part
// of it can: what is not valid is dropped.
GPU_DEVICE void copy_async_16(void* to_shared, const void* from_global, int valid = 16) {
  using Words = uint32_t __attribute__((ext_vector_type(4)));
  Words v = {0, 0, 0, 0};
  if (valid > 0) v = *(const __attribute__((address_space(1))) Words*)from_global;
  if (valid < 16) {
    GPU_UNROLL
    for (int w = 0; w < 4; ++w) {
      const int bytes = valid - 4 * w;
      v[w] &= bytes >= 4 ? 0xffffffffu : bytes > 0 ? (1u << 8 * bytes) - 1u : 0u;
    }
  }
  *(__attribute__((address_space(3))) Words*)to_shared = v;
}
GPU_DEVICE void copy_async_commit() {}
template <int kUnderWay>
GPU_DEVICE void copy_async_wait() {}

// Matrix units, one function for each instruction that matrix.h makes products of. gfx90a has 16 of k in 8 bits where later
// CDNA has 32, so there it is two.
namespace amd {
using Half4 = _Float16 __attribute__((ext_vector_type(4)));
using Half8 = _Float16 __attribute__((ext_vector_type(8)));
using Half16 = _Float16 __attribute__((ext_vector_type(16)));
using Short4 = short __attribute__((ext_vector_type(4)));
using Short8 = short __attribute__((ext_vector_type(8)));
using Short16 = short __attribute__((ext_vector_type(16)));
using Int2 = int __attribute__((ext_vector_type(2)));
using Int4 = int __attribute__((ext_vector_type(4)));
using Int8 = int __attribute__((ext_vector_type(8)));
using Float4 = float __attribute__((ext_vector_type(4)));
using Float8 = float __attribute__((ext_vector_type(8)));
template <typename To, typename From>
GPU_DEVICE To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
template <typename Vector, typename Sum, int kSums>
GPU_DEVICE void put(const Vector& from, Sum (&c)[kSums]) {
  GPU_UNROLL
  for (int i = 0; i < kSums; ++i) c[i] = from[i];
}
}  // namespace amd

#if defined(__HIP_DEVICE_COMPILE__)
#if GATUN_GPU_WAVE == 64
GPU_DEVICE void mfma_bf16(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2]) {
  amd::put(__builtin_amdgcn_mfma_f32_16x16x16bf16_1k(amd::as<amd::Short4>(a), amd::as<amd::Short4>(b), amd::as<amd::Float4>(c), 0,
                                                     0, 0),
           c);
}
GPU_DEVICE void mfma_f16(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2]) {
  amd::put(__builtin_amdgcn_mfma_f32_16x16x16f16(amd::as<amd::Half4>(a), amd::as<amd::Half4>(b), amd::as<amd::Float4>(c), 0, 0, 0),
           c);
}
GPU_DEVICE void mfma_s8(int32_t (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2]) {
#if defined(__gfx90a__)
  const amd::Int4 first = __builtin_amdgcn_mfma_i32_16x16x16i8(static_cast<int>(a[0]), static_cast<int>(b[0]),
                                                               amd::as<amd::Int4>(c), 0, 0, 0);
  amd::put(__builtin_amdgcn_mfma_i32_16x16x16i8(static_cast<int>(a[1]), static_cast<int>(b[1]), first, 0, 0, 0), c);
#else
  amd::put(__builtin_amdgcn_mfma_i32_16x16x32_i8(amd::as<long>(a), amd::as<long>(b), amd::as<amd::Int4>(c), 0, 0, 0), c);
#endif
}
#elif defined(__GFX12__)
GPU_DEVICE void wmma_bf16(float (&c)[8], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  amd::put(__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(amd::as<amd::Short8>(a), amd::as<amd::Short8>(b),
                                                             amd::as<amd::Float8>(c)),
           c);
}
GPU_DEVICE void wmma_f16(float (&c)[8], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  amd::put(__builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(amd::as<amd::Half8>(a), amd::as<amd::Half8>(b),
                                                            amd::as<amd::Float8>(c)),
           c);
}
GPU_DEVICE void wmma_u8s8(int32_t (&c)[8], const uint32_t (&a)[2], const uint32_t (&b)[2]) {
  amd::put(__builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(false, amd::as<amd::Int2>(a), true, amd::as<amd::Int2>(b),
                                                            amd::as<amd::Int8>(c), false),
           c);
}
#else
GPU_DEVICE void wmma_bf16(float (&c)[8], const uint32_t (&a)[8], const uint32_t (&b)[8]) {
  amd::put(__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(amd::as<amd::Short16>(a), amd::as<amd::Short16>(b),
                                                       amd::as<amd::Float8>(c)),
           c);
}
GPU_DEVICE void wmma_f16(float (&c)[8], const uint32_t (&a)[8], const uint32_t (&b)[8]) {
  amd::put(__builtin_amdgcn_wmma_f32_16x16x16_f16_w32(amd::as<amd::Half16>(a), amd::as<amd::Half16>(b), amd::as<amd::Float8>(c)), c);
}
GPU_DEVICE void wmma_u8s8(int32_t (&c)[8], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  amd::put(__builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(false, amd::as<amd::Int4>(a), true, amd::as<amd::Int4>(b),
                                                      amd::as<amd::Int8>(c), false),
           c);
}
#endif
#else
// The host's pass looks at kernels without making code of them.
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void mfma_bf16(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void mfma_f16(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void mfma_s8(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void wmma_bf16(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void wmma_f16(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void wmma_u8s8(Sum (&)[kSums], const uint32_t (&)[kOperands], const uint32_t (&)[kOperands]) {}
#endif

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
GPU_DEVICE uint32_t add_bf16(uint32_t x, uint32_t y) {
  return pack_bf16(float_of(x << 16) + float_of(y << 16), float_of(x & 0xffff0000u) + float_of(y & 0xffff0000u));
}
GPU_DEVICE uint32_t add_half(uint32_t x, uint32_t y) {
  using Pair = _Float16 __attribute__((ext_vector_type(2)));
  return __builtin_bit_cast(uint32_t, __builtin_bit_cast(Pair, x) + __builtin_bit_cast(Pair, y));
}

// Vectors of memory, global or shared.
using Words4 = uint32_t __attribute__((ext_vector_type(4)));
using Words2 = uint32_t __attribute__((ext_vector_type(2)));

GPU_DEVICE Bytes16 load_16(const void* p) { return __builtin_bit_cast(Bytes16, *static_cast<const Words4*>(p)); }
GPU_DEVICE Bytes8 load_8(const void* p) { return __builtin_bit_cast(Bytes8, *static_cast<const Words2*>(p)); }
GPU_DEVICE uint32_t load_4(const void* p) { return *static_cast<const uint32_t*>(p); }
GPU_DEVICE void store_16(void* p, Bytes16 v) { *static_cast<Words4*>(p) = __builtin_bit_cast(Words4, v); }
GPU_DEVICE void store_8(void* p, Bytes8 v) { *static_cast<Words2*>(p) = __builtin_bit_cast(Words2, v); }
GPU_DEVICE void store_4(void* p, uint32_t v) { *static_cast<uint32_t*>(p) = v; }

}  // namespace gatun::gpu
