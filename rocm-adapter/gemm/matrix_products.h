// A wave's part of a GEMM tile's sums on AMD's matrix units: a policy of gemm/products.h, over gpu/matrix.h.
//
// LDS. A lane reads 16 bytes of each of its rows and columns for a step: with the swizzle of packed weights, the 8 lanes that
// are served together read 8 different chunks of 16 bytes, so no bank twice. A wave of 32 x 32 sums reads 4 KiB for 2 x 2 x 16
// x 16 x 32 multiply-adds of BF16.
#pragma once

#include "gemm/products.h"
#include "gpu/matrix.h"

namespace gatun::gpu::gemm {

// kChains: sums of two blocks of k begin at zero and are added by the FP32 units, as in ExactProducts; how AMD's units round
// long sums is not documented.
template <typename Tile, typename Element, bool kChains>
struct MatrixProducts {
  using T = Tile;
  using Unit = matrix::Unit<Element>;
  using Sum = typename Unit::Sum;
  static constexpr int kM = T::kWarpRows / 16, kN = T::kWarpColumns / 16;
  static constexpr int kUnitSteps = kBlockBytes / Unit::kStepBytes, kStepChunks = Unit::kStepBytes / 16;
  static constexpr int kSteps = Unit::kAhead ? kUnitSteps : 1, kBuffers = Unit::kAhead ? 2 : 1;
  static constexpr int kChainBlocks = 2;
  static_assert(T::kWarpRows % 16 == 0 && T::kWarpColumns % 16 == 0);

  int warp_k, row_base, column_base;
  int blocks = 0;
  Bytes16 a[kBuffers][kM][Unit::kChunks], b[kBuffers][kN][Unit::kChunks];  // operands of steps, by turns
  Sum sums[kM][kN][Unit::kSums], chain[kChains ? kM : 1][kChains ? kN : 1][Unit::kSums];

  GPU_DEVICE MatrixProducts() {
    const int w = warp();
    warp_k = w / (T::kWarpsM * T::kWarpsN);
    row_base = w / T::kWarpsN % T::kWarpsM * T::kWarpRows;
    column_base = w % T::kWarpsN * T::kWarpColumns;
    clear(sums);
    clear(chain);
  }

  template <int kRows, int kColumns>
  GPU_DEVICE static void clear(Sum (&x)[kRows][kColumns][Unit::kSums]) {
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) {
      GPU_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        GPU_UNROLL
        for (int e = 0; e < Unit::kSums; ++e) x[i][j][e] = 0;
      }
    }
  }

  // The place of the lane's q-th chunk of a step in its row: rows 16 apart are swizzled alike.
  GPU_DEVICE static int place(int step, int q) {
    return lane() % 16 * kBlockBytes + ((step * kStepChunks + Unit::chunk(q)) ^ (lane() % 8)) * 16;
  }

  GPU_DEVICE void load_rows(int step, const char* rows) {
    GPU_UNROLL
    for (int q = 0; q < Unit::kChunks; ++q) {
      GPU_UNROLL
      for (int i = 0; i < kM; ++i) a[step % kBuffers][i][q] = load_16(rows + (row_base + i * 16) * kBlockBytes + place(step, q));
    }
  }

  GPU_DEVICE void load(int step, const char* rows, const char* columns) {
    load_rows(step, rows);
    GPU_UNROLL
    for (int q = 0; q < Unit::kChunks; ++q) {
      GPU_UNROLL
      for (int j = 0; j < kN; ++j) {
        b[step % kBuffers][j][q] = load_16(columns + (column_base + j * 16) * kBlockBytes + place(step, q));
      }
    }
  }

  GPU_DEVICE void multiply(int step) {
    GPU_UNROLL
    for (int j = 0; j < kN; ++j) {
      GPU_UNROLL
      for (int i = 0; i < kM; ++i) {
        if constexpr (kChains) {
          Unit::multiply(chain[i][j], a[step % kBuffers][i], b[step % kBuffers][j]);
        } else {
          Unit::multiply(sums[i][j], a[step % kBuffers][i], b[step % kBuffers][j]);
        }
      }
    }
  }

  // A block, where operands are not on their way ahead of their products.
  GPU_DEVICE void multiply(const char* rows, const char* columns) {
    GPU_ROLLED
    for (int step = 0; step < kUnitSteps; ++step) {
      load(step, rows, columns);
      multiply(step);
    }
    end_block();
  }

  GPU_DEVICE void end_block() {
    if (kChains && ++blocks == kChainBlocks) complete();
  }

  GPU_DEVICE void complete() {
    if constexpr (kChains) {
      GPU_UNROLL
      for (int i = 0; i < kM; ++i) {
        GPU_UNROLL
        for (int j = 0; j < kN; ++j) {
          GPU_UNROLL
          for (int e = 0; e < Unit::kSums; ++e) sums[i][j][e] += chain[i][j][e];
        }
      }
      clear(chain);
      blocks = 0;
    }
  }

  GPU_DEVICE void store(Sum* to, int stride) const {
    GPU_UNROLL
    for (int i = 0; i < kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < kN; ++j) {
        GPU_UNROLL
        for (int e = 0; e < Unit::kSums; ++e) {
          store_4(to + (row_base + i * 16 + Unit::row(e)) * stride + column_base + j * 16 + lane() % 16,
                  bits_of_sum(sums[i][j][e]));
        }
      }
    }
  }
};

// The tiles of a format of 16 bits, those that 64 KiB of LDS hold: rows, columns, warps of m, n and k, stages. Which of them is
// taken is an estimate of the plan's that no AMD device has confirmed.
template <typename Element>
VariantTable halves_variants(int32_t format) {
  static const Variant kVariants[] = {
      variant_of<MatrixProducts<Tile<32, 32, 1, 1, 2, 2>, Element, true>, 1>(format, format, false),
      variant_of<MatrixProducts<Tile<64, 64, 2, 2, 1, 2>, Element, true>, 1>(format, format, false),
      variant_of<MatrixProducts<Tile<128, 64, 4, 1, 1, 2>, Element, true>, 1>(format, format, false),
      variant_of<MatrixProducts<Tile<128, 64, 2, 2, 1, 2>, Element, false>, 1>(format, format, true),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

}  // namespace gatun::gpu::gemm
