#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct LimitArgs {
  const void* from;
  void* to;
  int64_t bytes;
  int64_t rounds;
};

struct LimitKernel {
  void (*kernel)(LimitArgs);
  double operations;  // of a thread, in a round
};

constexpr int kLimitThreads = 256;
constexpr int64_t kSweepUnit = 64;  // bytes of a thread, at once

extern const LimitKernel kLimitF32, kLimitBf16, kLimitS8, kLimitExp;

// `rounds` sweeps of all threads together through `bytes`, a multiple of kSweepUnit.
extern void (*const kLimitRead)(LimitArgs);
extern void (*const kLimitCopy)(LimitArgs);

}  // namespace gatun::gpu
