// Products of GEMM by mma.sync: policies of products.h for BF16, F16 and INT8.
#pragma once

#include "gemm/products.h"

namespace gatun::gpu::gemm {

// mma.sync, m16n8 and 32 bytes of k. Fragments by ldmatrix: of rows 16 x 32 bytes at once, of columns 16 x 32 bytes as well,
// which are two of the instruction's. A warp of 64 x 32 sums reads 96 bytes of shared memory for each 1024 multiply-adds of BF16.
template <typename Tile, typename SumType>
struct MmaTile {
  using T = Tile;
  using Sum = SumType;
  static constexpr int kM = T::kWarpRows / 16, kN = T::kWarpColumns / 8;
  static constexpr int kSteps = kBlockBytes / 32;
  static_assert(T::kWarpRows % 16 == 0 && T::kWarpColumns % 16 == 0);

  int warp_k, row_base, column_base;
  int row_at, column_at;  // of this thread's ldmatrix rows, at step 0
  uint32_t a[2][kM][4], b[2][kN / 2][4];  // fragments of two steps, by turns
  Sum sums[kM][kN][4];

  GPU_DEVICE MmaTile() {
    const int w = warp();
    warp_k = w / (T::kWarpsM * T::kWarpsN);
    const int m = w / T::kWarpsN % T::kWarpsM, n = w % T::kWarpsN;
    row_base = m * T::kWarpRows;
    column_base = n * T::kWarpColumns;
    // Step s takes chunks 2 s and 2 s + 1: an exclusive or with 2 s, since the rest of the address is aligned.
    const int swizzle = lane() % 8;
    row_at = (row_base + lane() % 16) * kBlockBytes + ((lane() / 16) ^ swizzle) * 16;
    column_at = (column_base + lane() / 16 * 8 + lane() % 8) * kBlockBytes + ((lane() / 8 % 2) ^ swizzle) * 16;
    clear(sums);
  }

  template <typename X>
  GPU_DEVICE static void clear(X (&x)[kM][kN][4]) {
    GPU_UNROLL
    for (int i = 0; i < kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < kN; ++j) {
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) x[i][j][e] = 0;
      }
    }
  }

  GPU_DEVICE void store(Sum* to, int stride) const {
    to += (row_base + lane() / 4) * stride + column_base + lane() % 4 * 2;
    GPU_UNROLL
    for (int i = 0; i < 2 * kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < kN; ++j) {
        const Sum(&s)[4] = sums[i / 2][j];
        store_8(to + i * 8 * stride + j * 8, {{bits_of_sum(s[i % 2 * 2]), bits_of_sum(s[i % 2 * 2 + 1])}});
      }
    }
  }

  GPU_DEVICE void load_rows(int step, const char* rows) {
    GPU_UNROLL
    for (int i = 0; i < kM; ++i) load_matrix_x4(a[step % 2][i], rows + ((row_at + i * 16 * kBlockBytes) ^ (step * 32)));
  }

  GPU_DEVICE void load(int step, const char* rows, const char* columns) {
    load_rows(step, rows);
    GPU_UNROLL
    for (int j = 0; j < kN / 2; ++j) {
      load_matrix_x4(b[step % 2][j], columns + ((column_at + j * 16 * kBlockBytes) ^ (step * 32)));
    }
  }

  template <typename Mma>
  GPU_DEVICE void multiply_into(Sum (&to)[kM][kN][4], int step, Mma mma) const {
    GPU_UNROLL
    for (int j = 0; j < kN; ++j) {
      const uint32_t pair[2] = {b[step % 2][j / 2][j % 2 * 2], b[step % 2][j / 2][j % 2 * 2 + 1]};
      GPU_UNROLL
      for (int i = 0; i < kM; ++i) mma(to[i][j], a[step % 2][i], pair);
    }
  }
};

// Of elements of 16 bits, Bf16 or Half.
template <typename Element>
struct MmaHalves {
  GPU_DEVICE void operator()(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    if constexpr (std::is_same_v<Element, Half>) {
      mma_f16(c, a, b);
    } else {
      mma_bf16(c, a, b);
    }
  }
};

struct MmaU8S8 {
  GPU_DEVICE void operator()(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const { mma_u8s8(c, a, b); }
};

template <typename Tile>
struct S8Products : MmaTile<Tile, int32_t> {
  GPU_DEVICE void multiply(int step) { this->multiply_into(this->sums, step, MmaU8S8()); }
  GPU_DEVICE void end_block() {}
  GPU_DEVICE void complete() {}
};

// For an output of 16 bits, whose rounding hides what the matrix unit does to long sums.
template <typename Tile, typename Element>
struct RoundedProducts : MmaTile<Tile, float> {
  GPU_DEVICE void multiply(int step) { this->multiply_into(this->sums, step, MmaHalves<Element>()); }
  GPU_DEVICE void end_block() {}
  GPU_DEVICE void complete() {}
};

// As exact as FP32 sums are: the matrix unit adds to its sums by cutting off what does not fit (Ootomo and Yokota 2022,
// "Recovering single precision accuracy from Tensor Cores"), and always towards zero, so over k / 16 additions the errors pile up
// instead of averaging out: at k = 4096 some 6 times the error of a plain FP32 loop (a prediction). So chains of 128 begin
// at zero, where sums are small, and are added by the FP32 units, which round. It costs a second set of registers.
template <typename Tile, typename Element>
struct ExactProducts : MmaTile<Tile, float> {
  using Base = MmaTile<Tile, float>;
  static constexpr int kChainBlocks = 2;

  float chain[Base::kM][Base::kN][4];
  int blocks = 0;

  GPU_DEVICE ExactProducts() { Base::clear(chain); }

  GPU_DEVICE void multiply(int step) { this->multiply_into(chain, step, MmaHalves<Element>()); }

  GPU_DEVICE void end_block() {
    if (++blocks == kChainBlocks) complete();
  }

  GPU_DEVICE void complete() {
    GPU_UNROLL
    for (int i = 0; i < Base::kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < Base::kN; ++j) {
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) this->sums[i][j][e] += chain[i][j][e];
      }
    }
    Base::clear(chain);
    blocks = 0;
  }
};

// The tiles of a format of 16 bits: rows, columns, warps of m, n and k, stages. A variant of sm_90a (wgmma on what bulk copies
// bring: weights are packed for it) is a line of its own here, with the architecture as one more condition of the plan's choice.
template <typename Element>
VariantTable halves_variants(int32_t format) {
  static const Variant kVariants[] = {
      variant_of<ExactProducts<Tile<16, 32, 1, 1, 4, 3>, Element>, 3>(format, format, false),
      variant_of<ExactProducts<Tile<32, 64, 1, 2, 2, 3>, Element>, 3>(format, format, false),
      variant_of<ExactProducts<Tile<64, 64, 2, 2, 1, 4>, Element>, 3>(format, format, false),
      variant_of<ExactProducts<Tile<128, 64, 2, 2, 1, 3>, Element>, 1>(format, format, false),
      variant_of<ExactProducts<Tile<128, 128, 2, 4, 1, 3>, Element>, 1>(format, format, false),
      variant_of<RoundedProducts<Tile<128, 128, 2, 2, 1, 3>, Element>, 1>(format, format, true),
      variant_of<RoundedProducts<Tile<128, 256, 2, 4, 1, 3>, Element>, 1>(format, format, true),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

}  // namespace gatun::gpu::gemm
