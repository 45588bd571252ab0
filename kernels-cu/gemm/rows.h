// Rows of `a` as tiles read them: the format's elements, each row at a multiple of 128 bytes, gathered if they are taken by number.
// A row that lies well and has the right type already is not prepared at all.
//
// Quantizing is that of gpu/quantize.h.
//
// Rows that are quantized already are copied, with their scales and zero points, where they are gathered or not aligned.
//
// A block of threads has one row. It reads the row once from memory, and to quantize once more from the nearest caches; 5 to 8
// bytes an element and about 20 operations, against n multiply-adds: memory binds.
#pragma once

#include "gemm/epilogue.h"
#include "gemm/kernels.h"
#include "gpu/gpu.h"
#include "gpu/quantize.h"

namespace gatun::gpu::gemm {

// Elements 4 i to 4 i + 3 of a row of k; those that are not there are 0.
template <typename A>
GPU_DEVICE void load_row_part(const A* row, int64_t k, int64_t i, bool vector, float (&x)[4]) {
  if (vector && 4 * i + 4 <= k) {
    load_pack(row + 4 * i, x);
  } else {
    GPU_UNROLL
    for (int e = 0; e < 4; ++e) x[e] = 4 * i + e < k ? to_float(row[4 * i + e]) : 0.0f;
  }
}

// The row of `a` for this block's row, or null where its number is wrong.
template <typename A>
GPU_DEVICE const A* row_of(const RowsArgs& args) {
  int64_t row = block_x();
  if (args.index != nullptr) {
    row = args.index[row];
    if (row < 0 || row >= args.rows_a) return nullptr;
  }
  return static_cast<const A*>(args.a) + row * args.a_stride;
}

template <typename A, typename To>
GPU_KERNEL(kRowsThreads, 1)
void convert_rows(RowsArgs args) {
  const A* row = row_of<A>(args);
  To* to = reinterpret_cast<To*>(args.to + block_x() * args.to_stride);
  const int64_t parts = blocks_of(args.k, 4);
  for (int64_t i = thread(); i < parts; i += kRowsThreads) {
    float x[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (row != nullptr) load_row_part(row, args.k, i, args.vector != 0, x);
    store_pack(to + 4 * i, x);
  }
}

GPU_KERNEL(kRowsThreads, 1)
void copy_quantized_rows(RowsArgs args) {
  const uint8_t* row = row_of<uint8_t>(args);
  const int64_t from = args.index != nullptr ? args.index[block_x()] : block_x();
  if (thread() == 0) {
    args.scales[block_x()] = row != nullptr ? args.a_scales[from] : 0.0f;
    args.zeros[block_x()] = row != nullptr ? args.a_zeros[from] : 0;
  }
  char* to = args.to + block_x() * args.to_stride;
  for (int64_t i = thread(); i < blocks_of(args.k, 4); i += kRowsThreads) {
    uint32_t packed = 0;
    if (row != nullptr && args.vector != 0 && 4 * i + 4 <= args.k) {
      packed = load_4(row + 4 * i);
    } else if (row != nullptr) {
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) packed |= 4 * i + e < args.k ? static_cast<uint32_t>(row[4 * i + e]) << (8 * e) : 0;
    }
    store_4(to + 4 * i, packed);
  }
}

template <typename A>
GPU_KERNEL(kRowsThreads, 1)
void quantize_rows(RowsArgs args) {
  const A* row = row_of<A>(args);
  const int64_t k = row != nullptr ? args.k : 0, parts = blocks_of(args.k, 4);
  RowRange range;
  for (int64_t i = thread(); 4 * i < k; i += kRowsThreads) {
    float x[4];
    load_row_part(row, k, i, args.vector != 0, x);
    GPU_UNROLL
    for (int e = 0; e < 4; ++e) range.take(x[e]);
  }
  float* found = reinterpret_cast<float*>(shared());
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float l = shuffle_xor(range.lo, mask), h = shuffle_xor(range.hi, mask);
    range.lo = l < range.lo ? l : range.lo;
    range.hi = h > range.hi ? h : range.hi;
  }
  range.odd = any(range.odd);
  if (lane() == 0) {
    found[warp() * 4] = range.lo;
    found[warp() * 4 + 1] = range.hi;
    found[warp() * 4 + 2] = range.odd ? 1.0f : 0.0f;
  }
  sync_threads();
  for (int w = 0; w < kRowsThreads / kWarp; ++w) {
    range.lo = found[w * 4] < range.lo ? found[w * 4] : range.lo;
    range.hi = found[w * 4 + 1] > range.hi ? found[w * 4 + 1] : range.hi;
    range.odd = range.odd || found[w * 4 + 2] != 0.0f;
  }
  const RowGrid grid(range);
  if (thread() == 0) {
    args.scales[block_x()] = grid.scale;
    args.zeros[block_x()] = grid.zero;
  }
  char* to = args.to + block_x() * args.to_stride;
  for (int64_t i = thread(); i < parts; i += kRowsThreads) {
    uint32_t packed = 0;
    if (!grid.flat) {
      float x[4];
      load_row_part(row, k, i, args.vector != 0, x);
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) packed |= grid.quantize(x[e]) << (8 * e);
    }
    store_4(to + 4 * i, packed);
  }
}

}  // namespace gatun::gpu::gemm
