// The first product of a low-rank pair (Hu et al. 2021, "LoRA", section 4.1): to = scale * (a * lora_a), FP32, of the elements
// of `a` as they are. The second one is added by the tiles (tile.h).
//
// A block of threads has 8 rows and as many columns of the rank as a warp has lanes, a column a lane; its warps take 4 of k at
// a time by turns, 16 loads of lora_a ahead, and their sums are added in order. lora_a may be another in each run, so it is
// read where it lies: 4 rows of it are 4 loads for 32 multiply-adds, beside 8 of `a` that all lanes share. 2 k rank operations
// a row, rank / n of those of the product itself; with few rows there are few blocks, and the latency of memory binds: hence
// the many warps.
#pragma once

#include "gemm/rows.h"

namespace gatun::gpu::gemm {

template <bool kVector, typename A, typename Lora>
GPU_DEVICE void project(const ProjectArgs& args, int64_t first, const Lora* lora, float (&sums)[kProjectRows]) {
  constexpr int kWarps = kProjectThreads / kWarp, kAhead = 4;
  // Rows beyond the last are the last once more.
  const A* rows[kProjectRows];
  GPU_UNROLL
  for (int r = 0; r < kProjectRows; ++r) {
    rows[r] = static_cast<const A*>(args.a) + (first + r < args.rows ? first + r : args.rows - 1) * args.a_stride;
  }
  const int64_t whole = args.k / 4;
  for (int64_t i = warp(); i < whole; i += kWarps * kAhead) {
    float l[kAhead][4];
    GPU_UNROLL
    for (int q = 0; q < kAhead; ++q) {
      const int64_t at = i + q * kWarps;
      GPU_UNROLL
      for (int e = 0; e < 4; ++e) l[q][e] = at < whole ? to_float(lora[(4 * at + e) * args.rank]) : 0.0f;
    }
    GPU_UNROLL
    for (int r = 0; r < kProjectRows; ++r) {
      GPU_UNROLL
      for (int q = 0; q < kAhead; ++q) {
        const int64_t at = i + q * kWarps;
        if (at >= whole) continue;  // the same for the whole warp
        float x[4];
        load_row_part(rows[r], args.k, at, kVector, x);
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) sums[r] = fma(x[e], l[q][e], sums[r]);
      }
    }
  }
  // The last up to 3 of k.
  if (warp() == kWarps - 1) {
    for (int64_t p = 4 * whole; p < args.k; ++p) {
      const float l = to_float(lora[p * args.rank]);
      GPU_UNROLL
      for (int r = 0; r < kProjectRows; ++r) sums[r] = fma(to_float(rows[r][p]), l, sums[r]);
    }
  }
}

template <typename A, typename Lora>
GPU_KERNEL(kProjectThreads, 1)
void project_rows(ProjectArgs args) {
  constexpr int kWarps = kProjectThreads / kWarp;
  const int64_t first = static_cast<int64_t>(block_x()) * kProjectRows;
  const int column = block_y() * kWarp + lane();
  // Lanes beyond the rank do what the last column's does, to no end.
  const Lora* lora = static_cast<const Lora*>(args.lora_a) + (column < args.rank ? column : args.rank - 1);
  float sums[kProjectRows];
  GPU_UNROLL
  for (float& x : sums) x = 0.0f;
  if (args.vector != 0) {
    project<true, A>(args, first, lora, sums);
  } else {
    project<false, A>(args, first, lora, sums);
  }
  float* found = reinterpret_cast<float*>(shared());
  GPU_UNROLL
  for (int r = 0; r < kProjectRows; ++r) found[(warp() * kProjectRows + r) * kWarp + lane()] = sums[r];
  sync_threads();
  // Warp r adds those of row r.
  static_assert(kWarps >= kProjectRows);
  const int64_t row = first + warp();
  if (warp() >= kProjectRows || row >= args.rows || column >= args.stride) return;
  float sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += found[(w * kProjectRows + warp()) * kWarp + lane()];
  args.to[row * args.stride + column] = column < args.rank ? args.scale * sum : 0.0f;
}

}  // namespace gatun::gpu::gemm
