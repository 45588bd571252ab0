// A warp's part of a tile's sums, and how a block of k adds to them.
//
// A policy has: T, the tile; Sum; warp_k, the group of warps that the thread is in; kSteps, in which it takes a block of k;
// complete(), after the last block; store(to, stride), which puts the sums of the tile's rows into shared memory. With one
// step, multiply(rows, columns) takes a block of both from shared memory; with more, load(step, rows, columns) takes a step's
// part of both into registers, where multiply(step) finds it, and end_block() follows a block's last.
#pragma once

#include "gemm/tile.h"
#include "gpu/gpu.h"

namespace gatun::gpu::gemm {

// FP32 units: a warp has 64 columns, a thread every fourth row of the warp (of a warp of 64, every eighth) and two runs of 4
// columns. For each 4 of k it reads its rows (the same for 8 threads) and its columns 16 bytes at a time: 8 rows take 16 reads
// for 256 multiply-adds.
template <typename Tile>
struct F32Products {
  using T = Tile;
  using Sum = float;
  static constexpr int kSteps = 1;
  static constexpr int kRowStep = kWarp / 8, kRowCount = T::kWarpRows / kRowStep, kColumnCount = 2;
  static_assert(T::kWarpColumns == kPanelColumns && T::kWarpRows % kRowStep == 0);

  int warp_k, row_base, column_base;
  float sums[kRowCount][kColumnCount * 4];

  GPU_DEVICE F32Products() {
    const int w = warp();
    warp_k = w / (T::kWarpsM * T::kWarpsN);
    const int m = w / T::kWarpsN % T::kWarpsM, n = w % T::kWarpsN;
    row_base = m * T::kWarpRows + lane() / 8;
    column_base = n * T::kWarpColumns + lane() % 8 * 4;
    GPU_UNROLL
    for (int i = 0; i < kRowCount; ++i) {
      GPU_UNROLL
      for (int c = 0; c < kColumnCount * 4; ++c) sums[i][c] = 0.0f;
    }
  }

  GPU_DEVICE int row(int i) const { return row_base + i * kRowStep; }

  GPU_DEVICE void store(float* to, int stride) const {
    GPU_UNROLL
    for (int i = 0; i < kRowCount; ++i) {
      GPU_UNROLL
      for (int j = 0; j < kColumnCount; ++j) {
        float x[4];
        GPU_UNROLL
        for (int w = 0; w < 4; ++w) x[w] = sums[i][j * 4 + w];
        store_pack(to + row(i) * stride + column_base + j * 32, x);
      }
    }
  }

  GPU_DEVICE void multiply(const char* rows, const char* columns) {
    // Column n of the tile is column n % 64 of panel n / 64, and row k of the panel's block has 256 bytes.
    const char* panel = columns + column_base / kPanelColumns * kPanelBlockBytes + column_base % kPanelColumns * 4;
    GPU_UNROLL
    for (int chunk = 0; chunk < kBlockBytes / 16; ++chunk) {
      float a[kRowCount][4];
      GPU_UNROLL
      for (int i = 0; i < kRowCount; ++i) {
        load_pack(reinterpret_cast<const float*>(rows + row(i) * kBlockBytes + (chunk ^ (row(i) % 8)) * 16), a[i]);
      }
      GPU_UNROLL
      for (int p = 0; p < 4; ++p) {
        float b[kColumnCount][4];
        GPU_UNROLL
        for (int j = 0; j < kColumnCount; ++j) {
          load_pack(reinterpret_cast<const float*>(panel + (chunk * 4 + p) * kPanelColumns * 4 + j * 128), b[j]);
        }
        GPU_UNROLL
        for (int i = 0; i < kRowCount; ++i) {
          GPU_UNROLL
          for (int c = 0; c < kColumnCount * 4; ++c) sums[i][c] = fma(a[i][p], b[c / 4][c % 4], sums[i][c]);
        }
      }
    }
  }

  GPU_DEVICE void complete() {}
};

// A line of the table of variants. kBlocks: of threads on a multiprocessor, for which registers must suffice.
template <typename Products, int kBlocks>
Variant variant_of(int32_t format, int32_t row_dtype, bool rounded) {
  using T = typename Products::T;
  return {format,     row_dtype,  T::kRows,    T::kColumns, T::kWarpsM, T::kWarpsN,
          T::kWarpsK, T::kStages, T::kThreads, T::template kSharedBytes<typename MatrixRows<T>::Entry>,
          T::kColumnBytes, rounded, kernel_pointer(multiply_tiles<Products, kBlocks>)};
}

}  // namespace gatun::gpu::gemm
