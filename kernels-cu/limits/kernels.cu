// What the FP32 units reach on operands in registers, and what memory reaches in a sweep. mma.cu and rocm-adapter/limits have
// the matrix units.
#include "limits/chains.h"

namespace gatun::gpu {
namespace {

GPU_KERNEL(kLimitThreads, 2) void f32_chains(const LimitArgs a) {
  float x[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) x[i] = static_cast<float>(thread() + i);
  const float factor = 1.0f - 0x1p-20f * static_cast<float>(block_x() & 1);
  for (int64_t r = 0; r < a.rounds; ++r) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) x[i] = fma(x[i], factor, 0.5f);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += x[i];
  use(a, bits_of(sum));
}

GPU_KERNEL(kLimitThreads, 2) void exp_chains(const LimitArgs a) {
  float x[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) x[i] = -0.01f * static_cast<float>(thread() + i);
  for (int64_t r = 0; r < a.rounds; ++r) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) x[i] = -exp_nonpositive(x[i]);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += x[i];
  use(a, bits_of(sum));
}

// A block goes through consecutive tiles of four 16-byte loads a thread.
GPU_KERNEL(kLimitThreads, 2) void read_sweep(const LimitArgs a) {
  constexpr int64_t kTile = kLimitThreads * kSweepUnit;
  const char* from = static_cast<const char*>(a.from);
  uint32_t sum = 0;
  for (int64_t r = 0; r < a.rounds; ++r) {
    for (int64_t tile = block_x() * kTile; tile < a.bytes; tile += grid_x() * kTile) {
      Bytes16 v[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = tile + (i * kLimitThreads + thread()) * int64_t{16};
        if (at < a.bytes) v[i] = load_16(from + at);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sum ^= v[i].word[0] ^ v[i].word[1] ^ v[i].word[2] ^ v[i].word[3];
    }
  }
  use(a, sum);
}

GPU_KERNEL(kLimitThreads, 2) void copy_sweep(const LimitArgs a) {
  constexpr int64_t kTile = kLimitThreads * kSweepUnit;
  for (int64_t r = 0; r < a.rounds; ++r) {
    for (int64_t tile = block_x() * kTile; tile < a.bytes; tile += grid_x() * kTile) {
      Bytes16 v[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = tile + (i * kLimitThreads + thread()) * int64_t{16};
        if (at < a.bytes) v[i] = load_16(static_cast<const char*>(a.from) + at);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = tile + (i * kLimitThreads + thread()) * int64_t{16};
        if (at < a.bytes) store_16(static_cast<char*>(a.to) + at, v[i]);
      }
    }
  }
}

}  // namespace

const LimitKernel kLimitF32 = {f32_chains, 2.0 * kChains};
const LimitKernel kLimitExp = {exp_chains, 1.0 * kChains};
void (*const kLimitRead)(LimitArgs) = read_sweep;
void (*const kLimitCopy)(LimitArgs) = copy_sweep;

}  // namespace gatun::gpu
