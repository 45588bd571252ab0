// GEMM with weights of 4 and 8 bits in groups of k, weight = (integer - zero point) * scale, and in FP8, weight = number * scale of
// the column: what the policies of products.h for them share, and the one for FP32 rows.
//
// Weights stay in their bits as far as shared memory and become numbers in registers. With rows of 16 bits they meet the matrix unit
// as integers less their zero points, -15 to 15 or -255 to 255, which BF16 and F16 have exactly, and so do products in FP32; a chain
// of sums begins at zero every 32 of k, the smallest group, and is multiplied by its scale as the FP32 units add it. No weight
// is rounded. Matrix units cut off where FP32 units round, by up to twice as much: docs/gpu-gemm.md has the bound. A chain sums
// before its scale, so it may overflow where a * weight would not: it does not while each |a| is below 2^128 / 480, some 7.08e35 (32
// products of up to 15), or in 8 bits 2^128 / 8160, some 4.17e34, which F16 always is. FP32 rows go through the FP32 units, with
// weights rounded to FP32.
//
// In 4 bits:
// Bytes: half a byte a weight, and 5 of each group of a column: at k = n = 4096 and groups of 128 9 MB, where BF16 has 34.
// Operations: 2 m n k; beside them, for 32 of k of a column, some 3 a pair of weights to make them numbers, which the rows of a
// warp's tile share, and a multiply-add for each sum.
// What binds (predictions): up to some 50 rows on A100 and some 75 on H100 memory does, a quarter of the rows of BF16 weights, at
// a time less than a third of theirs. There a multiprocessor of A100 is to turn some 30 weights a cycle into numbers, 50 operations
// of a thread, of the 128 and more that it issues. Beyond that the matrix unit and the issue of instructions are close to each other:
// for 32 of k, 64 x 32 sums of a warp are 32 products of 8 cycles on A100, and beside them some 48 operations on weights, 128 on sums
// and 20 loads. With FP32 rows the FP32 units bind from a few rows on: weights cost 4 operations each, for 4 or 8 rows.
// In 8 bits a weight is a byte, 17.5 MB, and becomes a number by way of FP32, some 7 operations a pair, in FP8 up to 9. Rows in FP32
// are rounded to BF16 for FP8.
#pragma once

#include <type_traits>

#include "gemm/products.h"
#include "gpu/gpu.h"

namespace gatun::gpu::gemm {

// Eight integers of packed weights, in a word or in two: integer e of pair p.
GPU_DEVICE uint32_t integer_of(const uint32_t (&words)[1], int p, int e) { return words[0] >> (4 * p + 16 * e) & 15u; }
GPU_DEVICE uint32_t integer_of(const uint32_t (&words)[2], int p, int e) {
  return (p < 2 ? words[0] : words[1]) >> (16 * (p % 2) + 8 * e) & 255u;
}

GPU_DEVICE void load_integers(const char* from, uint32_t (&words)[1]) { words[0] = load_4(from); }
GPU_DEVICE void load_integers(const char* from, uint32_t (&words)[2]) {
  const Bytes8 both = load_8(from);
  words[0] = both.word[0], words[1] = both.word[1];
}

// Pairs of them as numbers of Element, less their zero point. Nothing is rounded.
template <typename Element>
struct Integers {
  static constexpr bool kHalf = std::is_same_v<Element, Half>;

  // What pair() takes of a zero point, for integers in kWords words.
  template <int kWords>
  GPU_DEVICE static uint32_t zero_of(uint8_t zero) {
    if constexpr (kWords == 1) return (kHalf ? 0xe400e400u : 0xc300c300u) + zero * 0x10001u;
    return 0x4b000000u | zero;  // and 2^23
  }

  // In 4 bits: an integer becomes the last bits of a number, 128 or 1024 and the integer, from which as much and the zero point are taken.
  GPU_DEVICE static uint32_t pair(const uint32_t (&words)[1], int p, uint32_t zero) {
    const uint32_t integers = words[0] >> (4 * p) & 0x000f000fu;
    if constexpr (kHalf) {
      return add_half(integers | 0x64006400u, zero);
    } else {
      return add_bf16(integers | 0x43004300u, zero);
    }
  }

  // In 8 bits, for which BF16 has no such place: the same in FP32.
  GPU_DEVICE static uint32_t pair(const uint32_t (&words)[2], int p, uint32_t zero) {
    const float low = float_of(0x4b000000u | integer_of(words, p, 0)) - float_of(zero);
    const float high = float_of(0x4b000000u | integer_of(words, p, 1)) - float_of(zero);
    return kHalf ? pack_half(low, high) : pack_bf16(low, high);
  }
};

// The same of numbers in FP8, which BF16 and F16 have exactly: their bits, moved to where those of F16 are, are the number times
// 2^-8 in E4M3, and the number in E5M2.
template <typename Element, int32_t kFormat>
struct Float8 {
  template <int kWords>
  GPU_DEVICE static uint32_t zero_of(uint8_t) {
    return 0;
  }

  GPU_DEVICE static float number(const uint32_t (&words)[2], int p, int e) {
    const uint32_t byte = integer_of(words, p, e);
    if constexpr (kFormat == GTN_F8E5M2) return to_float(Half{static_cast<uint16_t>(byte << 8)});
    return to_float(Half{static_cast<uint16_t>((byte & 0x80u) << 8 | (byte & 0x7fu) << 7)}) * 256.0f;
  }

  GPU_DEVICE static uint32_t pair(const uint32_t (&words)[2], int p, uint32_t) {
    const float low = number(words, p, 0), high = number(words, p, 1);
    return std::is_same_v<Element, Half> ? pack_half(low, high) : pack_bf16(low, high);
  }
};

// Where in the columns of a block, as tiles copy them, a column's words of unit 0 and what its group has start.
template <typename T>
GPU_DEVICE int words_at(int column) {
  return column / kPanelColumns * kPanelColumns * T::kColumnBytes + column % kPanelColumns * T::kUnitColumnBytes;
}
template <typename T>
GPU_DEVICE int record_at(int column) {
  return T::kColumns * T::kColumnBytes + column / kPanelColumns * T::kUnits * kRecordBytes;
}

// FP32 units, by the threads' rows and columns of F32Products. Order: which of k a word's pairs are.
template <typename Tile, typename Order>
struct QuantizedF32Products : F32Products<Tile> {
  using T = Tile;
  using Base = F32Products<Tile>;

  GPU_DEVICE void multiply(const char* rows, const char* columns) {
    constexpr int kColumns = Base::kColumnCount * 4;
    const char* record = columns + record_at<T>(this->column_base);
    const int column = this->column_base % kPanelColumns;
    const char* words = columns + words_at<T>(this->column_base);
    float scale[kColumns], zero[kColumns];  // zero: and 2^23
    GPU_UNROLL
    for (int j = 0; j < Base::kColumnCount; ++j) {
      float four[4];
      load_pack(reinterpret_cast<const float*>(record) + column + j * 32, four);
      const uint32_t zeros = load_4(record + kZerosAt + column + j * 32);
      GPU_UNROLL
      for (int w = 0; w < 4; ++w) {
        scale[j * 4 + w] = four[w];
        zero[j * 4 + w] = float_of(0x4b000000u | (zeros >> (8 * w) & 0xffu));
      }
    }
    GPU_ROLLED
    for (int word = 0; word < 4; ++word) {
      uint32_t integers[kColumns][T::kWords];
      GPU_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        load_integers(words + (c / 4 * 32 + c % 4) * T::kUnitColumnBytes + word * T::kWords * 4, integers[c]);
      }
      GPU_UNROLL_BY(2)
      for (int pair = 0; pair < 4; ++pair) {
        const int k = Order::k(word, pair);
        float a[Base::kRowCount][2];
        GPU_UNROLL
        for (int i = 0; i < Base::kRowCount; ++i) {
          const int row = this->row(i);
          load_pack(reinterpret_cast<const float*>(rows + row * kBlockBytes + ((k / 4) ^ (row % 8)) * 16 + k % 4 * 4), a[i]);
        }
        GPU_UNROLL
        for (int e = 0; e < 2; ++e) {
          GPU_UNROLL
          for (int c = 0; c < kColumns; ++c) {
            const float weight = (float_of(0x4b000000u | integer_of(integers[c], pair, e)) - zero[c]) * scale[c];
            GPU_UNROLL
            for (int i = 0; i < Base::kRowCount; ++i) this->sums[i][c] = fma(a[i][e], weight, this->sums[i][c]);
          }
        }
      }
    }
  }
};

}  // namespace gatun::gpu::gemm
