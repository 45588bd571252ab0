// What the units reach on operands in registers, and what memory reaches in a sweep.
//
// Eight independent chains a thread: an instruction's latency is four cycles for FP32 and some twenty to thirty for the
// matrix units, and a multiprocessor holds 16 warps or more of these kernels. The matrix units are asked through mma.sync, as the kernels of
// this backend ask them: on compute capability 9.0 and up their own instructions reach more.
#include "limits/kernels.h"

#include "gpu/gpu.h"

namespace gatun::gpu {
namespace {

constexpr int kChains = 8;

// Writes where the compiler cannot know that nothing is written, so that it finds no work useless.
GPU_DEVICE void use(const LimitArgs& a, uint32_t bits) {
  if (bits == 0x12345678u && a.rounds < 0) store_4(a.to, bits);
}

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

// m16n8k16 is 2 16 8 16 operations of a warp, m16n8k32 twice as many.
const LimitKernel kLimitF32 = {f32_chains, 2.0 * kChains};
const LimitKernel kLimitExp = {exp_chains, 1.0 * kChains};
const LimitKernel kLimitBf16 = {bf16_chains, kChains * 4096.0 / kWarp};
const LimitKernel kLimitS8 = {s8_chains, kChains * 8192.0 / kWarp};
void (*const kLimitRead)(LimitArgs) = read_sweep;
void (*const kLimitCopy)(LimitArgs) = copy_sweep;

}  // namespace gatun::gpu
