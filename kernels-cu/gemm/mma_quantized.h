// Products by mma.sync with weights of 4 and 8 bits, FP8 among them, and rows of 16: see quantized_products.h, also for the limit of BF16
// rows, whose chains of 32 products sum before the scale.
#pragma once

#include "gemm/mma_products.h"
#include "gemm/quantized_products.h"

namespace gatun::gpu::gemm {

// Which of a unit's 32 of k the first of pair `pair` of word `word` is: word t of a column has what lane t of four holds of the
// right operands of two m16n8k16, in the order of its registers.
struct MmaOrder {
  GPU_HOST_DEVICE static constexpr int k(int word, int pair) { return pair * 8 + word * 2; }
};

// A unit of 32 of k is two steps. Its words are loaded before the first one, and its scales before the second, so that nothing is
// read of a stage after the barrier that its last step passes.
template <typename Tile, typename Element, typename Numbers = Integers<Element>>
struct QuantizedProducts : MmaTile<Tile, float> {
  using T = Tile;
  using Base = MmaTile<Tile, float>;
  static_assert(kPanelColumns % T::kWarpColumns == 0 && Base::kSteps == 2 * T::kUnits);

  int word_at, zero_at, scale_at;  // of this thread, in the columns of a block
  uint32_t words[2][Base::kN][T::kWords], zeros[2][Base::kN];
  float scales[Base::kN][2];
  float chain[Base::kM][Base::kN][4];

  GPU_DEVICE QuantizedProducts() {
    word_at = words_at<T>(this->column_base + lane() / 4) + lane() % 4 * T::kWords * 4;
    const int record = record_at<T>(this->column_base), column = this->column_base % kPanelColumns;
    zero_at = record + kZerosAt + column + lane() / 4;
    scale_at = record + (column + lane() % 4 * 2) * 4;
    Base::clear(chain);
  }

  GPU_DEVICE void load(int step, const char* rows, const char* columns) {
    Base::load_rows(step, rows);
    const int unit = step / 2;
    GPU_UNROLL
    for (int j = 0; j < Base::kN; ++j) {
      if (step % 2 == 0) {
        load_integers(columns + word_at + unit * T::kUnitBytes + j * 8 * T::kUnitColumnBytes, words[unit][j]);
        zeros[unit][j] = Numbers::template zero_of<T::kWords>(static_cast<uint8_t>(columns[zero_at + unit * kRecordBytes + j * 8]));
      } else {
        load_pack(reinterpret_cast<const float*>(columns + scale_at + unit * kRecordBytes) + j * 8, scales[j]);
      }
    }
  }

  GPU_DEVICE void multiply(int step) {
    GPU_UNROLL
    for (int j = 0; j < Base::kN; ++j) {
      const uint32_t(&word)[T::kWords] = words[step / 2][j];
      const uint32_t zero = zeros[step / 2][j];
      const int first = step % 2 * 2;
      const uint32_t pair[2] = {Numbers::pair(word, first, zero), Numbers::pair(word, first + 1, zero)};
      GPU_UNROLL
      for (int i = 0; i < Base::kM; ++i) MmaHalves<Element>()(chain[i][j], this->a[step % 2][i], pair);
    }
    if (step % 2 == 0) return;
    GPU_UNROLL
    for (int i = 0; i < Base::kM; ++i) {
      GPU_UNROLL
      for (int j = 0; j < Base::kN; ++j) {
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) this->sums[i][j][e] = fma(chain[i][j][e], scales[j][e % 2], this->sums[i][j][e]);
      }
    }
    Base::clear(chain);
  }

  GPU_DEVICE void end_block() {}
  GPU_DEVICE void complete() {}
};

// Rows, columns, warps of m, n and k, stages, bytes of a column in a block and in a unit.
template <typename Element>
VariantTable u4_variants(int32_t row_dtype) {
  static const Variant kVariants[] = {
      variant_of<QuantizedProducts<Tile<16, 64, 1, 1, 4, 4, 32, 16>, Element>, 2>(GTN_U4, row_dtype, false),
      variant_of<QuantizedProducts<Tile<32, 64, 1, 2, 2, 4, 32, 16>, Element>, 2>(GTN_U4, row_dtype, false),
      variant_of<QuantizedProducts<Tile<64, 64, 2, 2, 1, 4, 32, 16>, Element>, 2>(GTN_U4, row_dtype, false),
      variant_of<QuantizedProducts<Tile<128, 128, 2, 4, 1, 3, 32, 16>, Element>, 1>(GTN_U4, row_dtype, false),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

template <typename Element>
VariantTable u8_variants(int32_t row_dtype) {
  static const Variant kVariants[] = {
      variant_of<QuantizedProducts<Tile<16, 64, 1, 1, 4, 3, 64, 32>, Element>, 2>(GTN_U8, row_dtype, false),
      variant_of<QuantizedProducts<Tile<32, 64, 1, 2, 2, 4, 64, 32>, Element>, 2>(GTN_U8, row_dtype, false),
      variant_of<QuantizedProducts<Tile<64, 64, 2, 2, 1, 4, 64, 32>, Element>, 2>(GTN_U8, row_dtype, false),
      variant_of<QuantizedProducts<Tile<128, 128, 2, 4, 1, 3, 64, 32>, Element>, 1>(GTN_U8, row_dtype, false),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

template <typename Element, int32_t kFormat>
VariantTable f8_variants(int32_t row_dtype) {
  using Numbers = Float8<Element, kFormat>;
  static const Variant kVariants[] = {
      variant_of<QuantizedProducts<Tile<16, 64, 1, 1, 4, 3, 64, 32>, Element, Numbers>, 2>(kFormat, row_dtype, false),
      variant_of<QuantizedProducts<Tile<64, 64, 2, 2, 1, 4, 64, 32>, Element, Numbers>, 2>(kFormat, row_dtype, false),
      variant_of<QuantizedProducts<Tile<128, 128, 2, 4, 1, 3, 64, 32>, Element, Numbers>, 1>(kFormat, row_dtype, false),
  };
  return {kVariants, sizeof kVariants / sizeof kVariants[0]};
}

}  // namespace gatun::gpu::gemm
