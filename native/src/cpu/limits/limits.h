// Ceilings of a device: how many multiply-adds of each type and exponentials its instructions can do, and how fast it reads
// and copies memory.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// One level's loops. Each is called by all threads at once.
struct LimitKernels {
  // `operations` in each of `rounds` rounds, a multiply-add counted as two. The result is of no use; it keeps the compiler
  // from leaving out the work.
  struct Compute {
    int64_t operations;
    uint32_t (*run)(int64_t rounds);
  };
  Compute f32, bf16, s8, exp;

  // Reads `bytes`, a multiple of kReadUnit / 2, from 64-byte aligned memory. The result as above.
  uint32_t (*read)(const void* from, int64_t bytes);

  // Copies as much of the same alignment, past the caches.
  void (*copy)(const void* from, void* to, int64_t bytes);
};

inline constexpr int64_t kReadUnit = 64 << 10;

// Measures GTN_LIMIT_*, as gtn_device_measure describes it.
gtn_status measure_limit(const Device& device, int32_t limit, double* per_second, gtn_message* message);

}  // namespace gatun::cpu
