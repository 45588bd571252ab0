#include "model/instructions.h"

#include <cstring>

namespace gatun::simt::amd {
namespace {

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// IEEE 754 binary16: GCC 12 knows it by one name on Arm and by another elsewhere.
#if defined(__aarch64__)
typedef __fp16 Binary16;
#else
typedef _Float16 Binary16;
#endif

struct Bf16 {
  static constexpr int kBits = 16;
  static float value(uint32_t bits) { return float_of(bits << 16); }
};
struct F16 {
  static constexpr int kBits = 16;
  static float value(uint32_t bits) { return static_cast<float>(__builtin_bit_cast(Binary16, static_cast<uint16_t>(bits))); }
};
// Unsigned, so that sums wrap.
struct S8 {
  static constexpr int kBits = 8;
  static uint32_t value(uint32_t bits) { return static_cast<uint32_t>(static_cast<int8_t>(bits)); }
};
struct U8 {
  static constexpr int kBits = 8;
  static uint32_t value(uint32_t bits) { return bits & 0xff; }
};

float sum_of(uint32_t word, float) { return float_of(word); }
uint32_t sum_of(uint32_t word, uint32_t) { return word; }
uint32_t word_of(float sum) { return bits_of(sum); }
uint32_t word_of(uint32_t sum) { return sum; }

// An operand as a matrix; false where two lanes hold an element, and not alike.
template <typename Type, Element (*kMap)(int, int), int kRows, int kColumns, typename Value>
bool gather(MatrixKind matrix, const uint32_t (*const registers[])[kMostRegisters], Value (&to)[kRows][kColumns]) {
  const Shape shape = shape_of(matrix);
  constexpr int kPerWord = 32 / Type::kBits;
  bool written[kRows][kColumns] = {};
  for (int lane = 0; lane < shape.lanes; ++lane) {
    for (int i = 0; i < shape.operands * kPerWord; ++i) {
      const Element e = kMap(lane, i);
      const uint32_t bits = (*registers[lane])[i / kPerWord] >> i % kPerWord * Type::kBits & ((1u << Type::kBits) - 1);
      const Value value = Type::value(bits);
      if (written[e.row][e.column] && std::memcmp(&value, &to[e.row][e.column], sizeof value) != 0) return false;
      written[e.row][e.column] = true;
      to[e.row][e.column] = value;
    }
  }
  return true;
}

template <typename Left, typename Right, int kDepth, Element (*kA)(int, int), Element (*kB)(int, int), Element (*kC)(int, int)>
bool product(MatrixKind matrix, uint32_t (*const c[])[kMostRegisters], const uint32_t (*const a[])[kMostRegisters],
             const uint32_t (*const b[])[kMostRegisters]) {
  using Value = decltype(Left::value(0));
  Value left[16][kDepth], right[kDepth][16], sums[16][16];
  if (!gather<Left, kA>(matrix, a, left) || !gather<Right, kB>(matrix, b, right)) return false;
  const Shape shape = shape_of(matrix);
  for (int lane = 0; lane < shape.lanes; ++lane) {
    for (int i = 0; i < shape.sums; ++i) sums[kC(lane, i).row][kC(lane, i).column] = sum_of((*c[lane])[i], Value());
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < kDepth; ++k) {
      for (int n = 0; n < 16; ++n) sums[row][n] += left[row][k] * right[k][n];
    }
  }
  for (int lane = 0; lane < shape.lanes; ++lane) {
    for (int i = 0; i < shape.sums; ++i) (*c[lane])[i] = word_of(sums[kC(lane, i).row][kC(lane, i).column]);
  }
  return true;
}

}  // namespace

bool multiply(MatrixKind matrix, uint32_t (*const c[])[kMostRegisters], const uint32_t (*const a[])[kMostRegisters],
              const uint32_t (*const b[])[kMostRegisters]) {
  switch (matrix) {
    case MatrixKind::kMfmaBf16:
      return product<Bf16, Bf16, 16, mfma16::a, mfma16::b, mfma16::c>(matrix, c, a, b);
    case MatrixKind::kMfmaF16:
      return product<F16, F16, 16, mfma16::a, mfma16::b, mfma16::c>(matrix, c, a, b);
    case MatrixKind::kMfmaS8:
      return product<S8, S8, 32, mfma8::a, mfma8::b, mfma16::c>(matrix, c, a, b);
    case MatrixKind::kWmmaBf16:
      return product<Bf16, Bf16, 16, wmma::a, wmma::b, wmma::c>(matrix, c, a, b);
    case MatrixKind::kWmmaF16:
      return product<F16, F16, 16, wmma::a, wmma::b, wmma::c>(matrix, c, a, b);
    default:
      return product<U8, S8, 16, wmma::a, wmma::b, wmma::c>(matrix, c, a, b);
  }
}

}  // namespace gatun::simt::amd
