// The choice of a kernel for rows of a length: see gpu/rows.h.
#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

template <typename Args>
struct RowKernel {
  void (*kernel)(Args);
  int threads;  // of a block
  int rows;     // of a block
  int shared_bytes;
};

template <int kPackElements, int kGroupThreads, int kThreadPacks>
struct RowShape {
  static constexpr int kPack = kPackElements, kThreads = kGroupThreads, kPacks = kThreadPacks;
};

// get(shape) gives the kernel of a shape, whose packs have N elements, or 1 where rows are not aligned.
template <typename Args, int N, typename Get>
RowKernel<Args> row_kernel(int64_t n, bool aligned, Get get) {
  constexpr int kWarpBlock = 256, kWarpRows = kWarpBlock / kWarp, kSmallBlock = 256, kBlock = 512;
  constexpr int kShared = 2 * 2 * (kBlock / kWarp) * 4;  // Group of gpu/rows.h
  if (aligned && n % N == 0) {
    if (n <= kWarp * N * 2) return {get(RowShape<N, kWarp, 2>()), kWarpBlock, kWarpRows, 0};
    if (n <= kWarp * N * 8) return {get(RowShape<N, kWarp, 8>()), kWarpBlock, kWarpRows, 0};
    // Several blocks on a multiprocessor: some compute or wait for each other while others load.
    if (n <= kSmallBlock * N * 4) return {get(RowShape<N, kSmallBlock, 4>()), kSmallBlock, 1, kShared};
    if (n <= kBlock * N * 4) return {get(RowShape<N, kBlock, 4>()), kBlock, 1, kShared};
    return {get(RowShape<N, kBlock, 0>()), kBlock, 1, kShared};
  }
  if (n <= kWarp * 8) return {get(RowShape<1, kWarp, 8>()), kWarpBlock, kWarpRows, 0};
  return {get(RowShape<1, kBlock, 0>()), kBlock, 1, kShared};
}

template <typename Args>
gtn_status launch_rows(Queue* queue, const RowKernel<Args>& kernel, int64_t rows, const Args& args, gtn_message* message) {
  const Grid grid = {(rows + kernel.rows - 1) / kernel.rows};
  return launch(queue, kernel.kernel, grid, kernel.threads, kernel.shared_bytes, args, message);
}

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace gatun::gpu
