// Products by MFMA and WMMA with weights of 4 and 8 bits, FP8 among them, and rows of 16: see kernels-cu/gemm/quantized_products.h,
// also for the limit of BF16 rows, whose chains of 32 products sum before the scale.
#pragma once

#include "gemm/matrix_products.h"
#include "gemm/quantized_products.h"

namespace gatun::gpu::gemm {

// Which of a unit's 32 of k the first of pair `pair` of word `word` is: a word has the 8 of a chunk of 16 bytes of a row.
struct ChunkOrder {
  GPU_HOST_DEVICE static constexpr int k(int word, int pair) { return word * 8 + pair * 2; }
};

// Words become operands as they are loaded. A unit of 32 of k has four chunks, which one step takes, or two.
template <typename Tile, typename Element, typename Numbers = Integers<Element>>
struct QuantizedMatrixProducts : MatrixProducts<Tile, Element, true> {
  using T = Tile;
  using Base = MatrixProducts<Tile, Element, true>;
  using Unit = typename Base::Unit;
  static constexpr int kUnitChunks = kUnitDepth / 8;
  static_assert(kPanelColumns % T::kWarpColumns == 0);

  float scales[Base::kBuffers][Base::kN];

  GPU_DEVICE static bool ends_unit(int step) { return (step + 1) * Base::kStepChunks % kUnitChunks == 0; }

  GPU_DEVICE void load(int step, const char* rows, const char* columns) {
    Base::load_rows(step, rows);
    const char* words = columns + words_at<T>(this->column_base + lane() % 16);
    const char* records = columns + record_at<T>(this->column_base);
    const int column = this->column_base % kPanelColumns + lane() % 16;
    GPU_UNROLL
    for (int q = 0; q < Unit::kChunks; ++q) {
      const int chunk = step * Base::kStepChunks + Unit::chunk(q), unit = chunk / kUnitChunks;
      GPU_UNROLL
      for (int j = 0; j < Base::kN; ++j) {
        uint32_t word[T::kWords];
        load_integers(words + unit * T::kUnitBytes + j * 16 * T::kUnitColumnBytes + chunk % kUnitChunks * T::kWords * 4, word);
        const uint32_t zero = Numbers::template zero_of<T::kWords>(
            static_cast<uint8_t>(records[unit * kRecordBytes + kZerosAt + column + j * 16]));
        GPU_UNROLL
        for (int p = 0; p < 4; ++p) this->b[step % Base::kBuffers][j][q].word[p] = Numbers::pair(word, p, zero);
      }
    }
    if (!ends_unit(step)) return;
    const float* scale = reinterpret_cast<const float*>(records + step * Base::kStepChunks / kUnitChunks * kRecordBytes) + column;
    GPU_UNROLL
    for (int j = 0; j < Base::kN; ++j) scales[step % Base::kBuffers][j] = scale[j * 16];
  }

  GPU_DEVICE void multiply(int step) {
    Base::multiply(step);
    if (!ends_unit(step)) return;
    GPU_UNROLL
    for (int i = 0; i < Base::kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < Base::kN; ++j) {
        GPU_UNROLL
        for (int e = 0; e < Unit::kSums; ++e) {
          this->sums[i][j][e] = fma(this->chain[i][j][e], scales[step % Base::kBuffers][j], this->sums[i][j][e]);
        }
      }
    }
    Base::clear(this->chain);
  }

  GPU_DEVICE void multiply(const char* rows, const char* columns) {
    GPU_ROLLED
    for (int step = 0; step < Base::kUnitSteps; ++step) {
      load(step, rows, columns);
      multiply(step);
    }
  }

  GPU_DEVICE void end_block() {}
  GPU_DEVICE void complete() {}
};

// Rows, columns, warps of m, n and k, stages, bytes of a column in a block and in a unit.
template <typename Element, int kColumn, int kUnit, typename Numbers = Integers<Element>>
VariantTable quantized_variants(int32_t format, int32_t row_dtype) {
  static const Variant kVariants[] = {
      variant_of<QuantizedMatrixProducts<Tile<16, 64, 1, 1, 2, 2, kColumn, kUnit>, Element, Numbers>, 1>(format, row_dtype, false),
      variant_of<QuantizedMatrixProducts<Tile<64, 64, 2, 2, 1, 2, kColumn, kUnit>, Element, Numbers>, 1>(format, row_dtype, false),
      variant_of<QuantizedMatrixProducts<Tile<128, 64, 4, 1, 1, 2, kColumn, kUnit>, Element, Numbers>, 1>(format, row_dtype, false),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

template <typename Element>
VariantTable u4_variants(int32_t row_dtype) {
  return quantized_variants<Element, 32, 16>(GTN_U4, row_dtype);
}
template <typename Element>
VariantTable u8_variants(int32_t row_dtype) {
  return quantized_variants<Element, 64, 32>(GTN_U8, row_dtype);
}
template <typename Element, int32_t kFormat>
VariantTable f8_variants(int32_t row_dtype) {
  return quantized_variants<Element, 64, 32, Float8<Element, kFormat>>(kFormat, row_dtype);
}

}  // namespace gatun::gpu::gemm
