// Rows of `a` as tiles read them: the format's elements, each row at a multiple of 128 bytes, gathered if they are taken by number.
// A row that lies well and has the right type already is not prepared at all.
//
// Quantizing: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255),
// all in FP32 with true divisions and ties to even; s = 0 gives q = z = 0; a row with an element that is not finite, or whose
// hi - lo overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0. z may exceed 255 where s is so small (hi - lo
// below about 2^-140) that it has but a few bits.
//
// Rows that are quantized already are copied, with their scales and zero points, where they are gathered or not aligned.
//
// A block of threads has one row. It reads the row once from memory, and to quantize once more from the nearest caches; 5 to 8
// bytes an element and about 20 operations, against n multiply-adds: memory binds.
#pragma once

#include "gemm/epilogue.h"
#include "gemm/kernels.h"
#include "gpu/gpu.h"

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
  float lo = 0.0f, hi = 0.0f;
  bool odd = false;
  for (int64_t i = thread(); 4 * i < k; i += kRowsThreads) {
    float x[4];
    load_row_part(row, k, i, args.vector != 0, x);
    GPU_UNROLL
    for (int e = 0; e < 4; ++e) {
      lo = x[e] < lo ? x[e] : lo;
      hi = x[e] > hi ? x[e] : hi;
      odd = odd || !finite(x[e]);
    }
  }
  float* found = reinterpret_cast<float*>(shared());
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float l = shuffle_xor(lo, mask), h = shuffle_xor(hi, mask);
    lo = l < lo ? l : lo;
    hi = h > hi ? h : hi;
  }
  odd = any(odd);
  if (lane() == 0) {
    found[warp() * 4] = lo;
    found[warp() * 4 + 1] = hi;
    found[warp() * 4 + 2] = odd ? 1.0f : 0.0f;
  }
  sync_threads();
  for (int w = 0; w < kRowsThreads / kWarp; ++w) {
    lo = found[w * 4] < lo ? found[w * 4] : lo;
    hi = found[w * 4 + 1] > hi ? found[w * 4 + 1] : hi;
    odd = odd || found[w * 4 + 2] != 0.0f;
  }
  const float range = hi - lo;
  const float s = range / 255.0f;
  const bool whole = !odd && finite(range), flat = !whole || s == 0.0f;
  const int32_t z = flat ? 0 : static_cast<int32_t>(rint(-lo / s));
  if (thread() == 0) {
    args.scales[block_x()] = whole ? s : not_a_number();
    args.zeros[block_x()] = z;
  }
  char* to = args.to + block_x() * args.to_stride;
  for (int64_t i = thread(); i < parts; i += kRowsThreads) {
    uint32_t packed = 0;
    if (!flat) {
      float x[4];
      load_row_part(row, k, i, args.vector != 0, x);
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int32_t q = static_cast<int32_t>(rint(x[e] / s)) + z;
        packed |= static_cast<uint32_t>(q < 0 ? 0 : q > 255 ? 255 : q) << (8 * e);
      }
    }
    store_4(to + 4 * i, packed);
  }
}

}  // namespace gatun::gpu::gemm
