// The host model's half of the layer of gpu.h, on native/simt. What waits or orders takes where it is called, so that
// reports name it and that it can be removed from a run to see whether a test notices.
#pragma once

#include <simt/simt.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define GPU_KERNEL(threads, min_blocks) __attribute__((noinline))
#define GPU_DEVICE inline __attribute__((always_inline))
#define GPU_HOST_DEVICE inline __attribute__((always_inline))
#define GPU_UNROLL
#define GPU_UNROLL_BY(times)
#define GPU_ROLLED

namespace gatun::gpu {

using simt::Where;

using Lanes = std::conditional_t<kWarp == 64, uint64_t, uint32_t>;
constexpr Lanes kAllLanes = static_cast<Lanes>(~Lanes{0});

GPU_DEVICE int thread() { return simt::thread(); }
GPU_DEVICE int block_x() { return simt::block(0); }
GPU_DEVICE int block_y() { return simt::block(1); }
GPU_DEVICE int block_z() { return simt::block(2); }
GPU_DEVICE int grid_x() { return simt::grid(0); }
GPU_DEVICE int grid_y() { return simt::grid(1); }
GPU_DEVICE int grid_z() { return simt::grid(2); }

GPU_DEVICE char* shared() { return simt::shared(); }

// Barriers and order.
GPU_DEVICE void sync_threads(Where where = Where::current()) { simt::sync_threads(where); }
GPU_DEVICE void sync_warp(Lanes mask = kAllLanes, Where where = Where::current()) { simt::sync_warp(mask, where); }
GPU_DEVICE void sync_group(int id, int threads, Where where = Where::current()) {
  simt::sync_group(id, threads, where);
}
GPU_DEVICE void fence(Where where = Where::current()) { simt::fence(where); }
GPU_DEVICE void trap(Where where = Where::current()) { simt::trap(where); }

// Within a warp.
template <typename To, typename From>
GPU_DEVICE To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, v);
}
template <typename T>
GPU_DEVICE T shuffle(T v, int from, Where where = Where::current()) {
  return bits_as<T>(simt::shuffle(simt::Shuffle::kFrom, bits_as<uint32_t>(v), from, where));
}
template <typename T>
GPU_DEVICE T shuffle_xor(T v, int mask, Where where = Where::current()) {
  return bits_as<T>(simt::shuffle(simt::Shuffle::kXor, bits_as<uint32_t>(v), mask, where));
}
template <typename T>
GPU_DEVICE T shuffle_up(T v, int n, Where where = Where::current()) {
  return bits_as<T>(simt::shuffle(simt::Shuffle::kUp, bits_as<uint32_t>(v), n, where));
}
template <typename T>
GPU_DEVICE T shuffle_down(T v, int n, Where where = Where::current()) {
  return bits_as<T>(simt::shuffle(simt::Shuffle::kDown, bits_as<uint32_t>(v), n, where));
}
// The first thread's, so that a difference shows.
template <typename T>
GPU_DEVICE T uniform(const T& v, Where where = Where::current()) {
  uint32_t words[sizeof(T) / 4];
  static_assert(sizeof words == sizeof v);
  std::memcpy(words, &v, sizeof v);
  for (uint32_t& word : words) word = shuffle(word, 0, where);
  T first;
  std::memcpy(&first, words, sizeof first);
  return first;
}
GPU_DEVICE int anew(int v) { return v; }
GPU_DEVICE Lanes ballot(bool p, Where where = Where::current()) {
  return static_cast<Lanes>(simt::ballot(p, where));
}
GPU_DEVICE bool any(bool p, Where where = Where::current()) { return simt::ballot(p, where) != 0; }
GPU_DEVICE bool all(bool p, Where where = Where::current()) { return simt::ballot(p, where) == kAllLanes; }

// Atomics give the value before.
template <typename T>
GPU_DEVICE T atomic_add(T* p, T v, Where where = Where::current()) {
  return simt::atomic_add(p, v, where);
}
template <typename T>
GPU_DEVICE T atomic_max(T* p, T v, Where where = Where::current()) {
  return simt::atomic_max(p, v, where);
}

// Asynchronous copies.
GPU_DEVICE void copy_async_16(void* to_shared, const void* from_global, int valid = 16,
                              Where where = Where::current()) {
  simt::copy_async_16(to_shared, from_global, valid, where);
}
GPU_DEVICE void copy_async_commit(Where where = Where::current()) { simt::copy_async_commit(where); }
template <int kUnderWay>
GPU_DEVICE void copy_async_wait(Where where = Where::current()) {
  simt::copy_async_wait(kUnderWay, where);
}

// Matrix units.
GPU_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  const simt::U4 v = simt::load_matrix(4, false, row, where);
  for (int i = 0; i < 4; ++i) r[i] = v[i];
}
GPU_DEVICE void load_matrix_x2(uint32_t (&r)[2], const void* row, Where where = Where::current()) {
  const simt::U4 v = simt::load_matrix(2, false, row, where);
  for (int i = 0; i < 2; ++i) r[i] = v[i];
}
GPU_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  const simt::U4 v = simt::load_matrix(4, true, row, where);
  for (int i = 0; i < 4; ++i) r[i] = v[i];
}
GPU_DEVICE void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row, Where where = Where::current()) {
  const simt::U4 v = simt::load_matrix(2, true, row, where);
  for (int i = 0; i < 2; ++i) r[i] = v[i];
}

template <typename Vector, typename T>
GPU_DEVICE void mma(Vector (*instruction)(Vector, simt::U4, uint64_t, Where), T (&c)[4], const uint32_t (&a)[4],
                    const uint32_t (&b)[2], Where where) {
  const Vector d = instruction(Vector{c[0], c[1], c[2], c[3]}, simt::U4{a[0], a[1], a[2], a[3]},
                               b[0] | static_cast<uint64_t>(b[1]) << 32, where);
  for (int i = 0; i < 4; ++i) c[i] = d[i];
}
GPU_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         Where where = Where::current()) {
  mma(simt::mma_bf16, c, a, b, where);
}
GPU_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where = Where::current()) {
  mma(simt::mma_f16, c, a, b, where);
}
GPU_DEVICE void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                       Where where = Where::current()) {
  mma(simt::mma_s8, c, a, b, where);
}
GPU_DEVICE void mma_u8s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         Where where = Where::current()) {
  mma(simt::mma_u8s8, c, a, b, where);
}

// AMD's: see rocm-adapter/gpu/matrix.h.
template <typename Sum, int kSums, int kOperands>
GPU_DEVICE void multiply(simt::MatrixKind kind, Sum (&c)[kSums], const uint32_t (&a)[kOperands], const uint32_t (&b)[kOperands],
                         Where where) {
  const auto wide = [](const auto& from) {
    simt::Words8 to = {};
    constexpr int kWords = static_cast<int>(sizeof from / 4);
    for (int i = 0; i < kWords; ++i) (i < 4 ? to.low : to.high)[i % 4] = bits_as<uint32_t>(from[i]);
    return to;
  };
  const simt::Words8 d = simt::multiply(kind, wide(c), wide(a), wide(b), where);
  for (int i = 0; i < kSums; ++i) c[i] = bits_as<Sum>((i < 4 ? d.low : d.high)[i % 4]);
}
GPU_DEVICE void mfma_bf16(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2], Where where = Where::current()) {
  multiply(simt::MatrixKind::kMfmaBf16, c, a, b, where);
}
GPU_DEVICE void mfma_f16(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2], Where where = Where::current()) {
  multiply(simt::MatrixKind::kMfmaF16, c, a, b, where);
}
GPU_DEVICE void mfma_s8(int32_t (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[2], Where where = Where::current()) {
  multiply(simt::MatrixKind::kMfmaS8, c, a, b, where);
}
GPU_DEVICE void wmma_bf16(float (&c)[8], const uint32_t (&a)[8], const uint32_t (&b)[8], Where where = Where::current()) {
  multiply(simt::MatrixKind::kWmmaBf16, c, a, b, where);
}
GPU_DEVICE void wmma_f16(float (&c)[8], const uint32_t (&a)[8], const uint32_t (&b)[8], Where where = Where::current()) {
  multiply(simt::MatrixKind::kWmmaF16, c, a, b, where);
}
GPU_DEVICE void wmma_u8s8(int32_t (&c)[8], const uint32_t (&a)[4], const uint32_t (&b)[4], Where where = Where::current()) {
  multiply(simt::MatrixKind::kWmmaU8S8, c, a, b, where);
}

// Arithmetic. Files are compiled with -ffp-contract=off.
GPU_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GPU_DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
GPU_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
GPU_DEVICE double sqrt(double x) { return __builtin_sqrt(x); }
GPU_DEVICE float greater_of(float a, float b) { return std::fmax(a, b); }
GPU_DEVICE float rint(float x) { return __builtin_rintf(x); }
GPU_DEVICE double arc_cosine(double x) { return std::acos(x); }
GPU_DEVICE double logarithm(double x) { return std::log(x); }
GPU_DEVICE double log_1_plus(double x) { return std::log1p(x); }
GPU_DEVICE double exp_less_1(double x) { return std::expm1(x); }
GPU_DEVICE int ones(uint32_t x) { return __builtin_popcount(x); }
GPU_DEVICE int ones(uint64_t x) { return __builtin_popcountll(x); }
GPU_DEVICE uint32_t bits_of(float x) { return bits_as<uint32_t>(x); }
GPU_DEVICE float float_of(uint32_t bits) { return bits_as<float>(bits); }
// Denormals, in and out, count as zero.
GPU_DEVICE float exp2_approx(float x) {
  const float y = __builtin_exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

// IEEE 754 binary16: GCC 12 knows it by one name on Arm and by another elsewhere.
#if defined(__aarch64__)
typedef __fp16 Binary16;
#else
typedef _Float16 Binary16;
#endif

GPU_DEVICE float to_float(float x) { return x; }
GPU_DEVICE float to_float(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
GPU_DEVICE float to_float(Half x) { return static_cast<float>(bits_as<Binary16>(x.bits)); }
GPU_DEVICE Bf16 to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
GPU_DEVICE Half to_half(float x) {
  if (x != x) return {0x7fff};
  return {bits_as<uint16_t>(static_cast<Binary16>(x))};
}
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
  const auto sum = [](uint32_t a, uint32_t b) {
    return to_float(Half{static_cast<uint16_t>(a)}) + to_float(Half{static_cast<uint16_t>(b)});
  };
  return pack_half(sum(x, y), sum(x >> 16, y >> 16));
}

// Vectors of memory, global or shared.
GPU_DEVICE Bytes16 load_16(const void* p, Where where = Where::current()) {
  return bits_as<Bytes16>(simt::load_16(p, where));
}
GPU_DEVICE Bytes8 load_8(const void* p, Where where = Where::current()) {
  return bits_as<Bytes8>(simt::load_8(p, where));
}
GPU_DEVICE uint32_t load_4(const void* p, Where where = Where::current()) { return simt::load_4(p, where); }
GPU_DEVICE void store_16(void* p, Bytes16 v, Where where = Where::current()) {
  simt::store_16(p, bits_as<simt::U4>(v), where);
}
GPU_DEVICE void store_8(void* p, Bytes8 v, Where where = Where::current()) {
  simt::store_8(p, bits_as<uint64_t>(v), where);
}
GPU_DEVICE void store_4(void* p, uint32_t v, Where where = Where::current()) { simt::store_4(p, v, where); }

}  // namespace gatun::gpu
