// The first product of a low-rank pair (Hu et al. 2021, "LoRA", section 4.1): to = scale * (a * lora_a), FP32, of the elements of
// `a` as they are. The second one is added by the tiles (tile.h).
//
// A block of threads has 8 rows and 32 columns of the rank, a column a lane; its 8 warps take every eighth part of k each, and
// their sums are added in order. lora_a may be another in each run, so it is read where it lies: 4 rows of it are 4 loads for 32
// multiply-adds, beside 8 of `a` that all lanes share. 2 k rank operations a row, rank / n of those of the product itself; with
// few rows the way of lora_a from memory binds.
#pragma once

#include "gemm/rows.h"

namespace gatun::gpu::gemm {

template <typename A, typename Lora>
GPU_KERNEL(kProjectThreads, 1)
void project_rows(ProjectArgs args) {
  constexpr int kWarps = kProjectThreads / kWarp;
  const int64_t first = static_cast<int64_t>(block_x()) * kProjectRows, column = block_y() * kWarp + lane();
  const A* a = static_cast<const A*>(args.a) + first * args.a_stride;
  const Lora* lora = static_cast<const Lora*>(args.lora_a) + column;
  float sums[kProjectRows];
  GPU_UNROLL
  for (float& x : sums) x = 0.0f;
  for (int64_t i = warp(); 4 * i < args.k; i += kWarps) {
    float l[4];
    GPU_UNROLL
    for (int e = 0; e < 4; ++e) {
      l[e] = column < args.rank && 4 * i + e < args.k ? to_float(lora[(4 * i + e) * args.rank]) : 0.0f;
    }
    GPU_UNROLL
    for (int r = 0; r < kProjectRows; ++r) {
      if (first + r >= args.rows) continue;
      float x[4];
      load_row_part(a + r * args.a_stride, args.k, i, args.vector != 0, x);
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) {
        // What lies beyond k takes no part: 0 times infinity would.
        if (4 * i + e < args.k) sums[r] = fma(x[e], l[e], sums[r]);
      }
    }
  }
  float* found = reinterpret_cast<float*>(shared());
  GPU_UNROLL
  for (int r = 0; r < kProjectRows; ++r) found[(warp() * kProjectRows + r) * kWarp + lane()] = sums[r];
  sync_threads();
  // Warp r adds those of row r.
  static_assert(kWarps == kProjectRows);
  float sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += found[(w * kProjectRows + warp()) * kWarp + lane()];
  const int64_t row = first + warp();
  if (row < args.rows && column < args.stride) args.to[row * args.stride + column] = args.scale * sum;
}

}  // namespace gatun::gpu::gemm
