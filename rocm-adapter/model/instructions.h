// AMD's matrix instructions as data, apart from any kernel: which element of which matrix each lane holds, and what they
// compute. Sources: AMD's matrix instruction calculator (github.com/ROCm/amd_matrix_instruction_calculator, architectures
// cdna2, cdna3 and rdna3), whose output instructions_test.cc restates, and the instruction set guides of CDNA 3 ("Matrix
// Arithmetic Instructions") and RDNA 3 ("Wave Matrix Multiply Accumulate").
//
// All multiply 16 rows by 16 columns. Element i of a lane is counted from the low bits of its first register.
#pragma once

#include <cstdint>

#include "simt/simt.h"

namespace gatun::simt::amd {

struct Element {
  int row, column;
};

// v_mfma_f32_16x16x16_bf16(_1k) and _f16, waves of 64: four 16-bit elements of A and B, four sums.
namespace mfma16 {
constexpr Element a(int lane, int i) { return {lane % 16, lane / 16 * 4 + i}; }
constexpr Element b(int lane, int i) { return {lane / 16 * 4 + i, lane % 16}; }
constexpr Element c(int lane, int i) { return {lane / 16 * 4 + i, lane % 16}; }
}  // namespace mfma16

// v_mfma_i32_16x16x32_i8, waves of 64, CDNA 3: eight bytes of A and B, both signed; sums as above.
namespace mfma8 {
constexpr Element a(int lane, int i) { return {lane % 16, lane / 16 * 8 + i}; }
constexpr Element b(int lane, int i) { return {lane / 16 * 8 + i, lane % 16}; }
}  // namespace mfma8

// v_wmma_*_16x16x16_bf16, _f16 and _iu8, waves of 32, RDNA 3: sixteen elements of A and B, which lanes 16 apart hold alike;
// eight sums.
namespace wmma {
constexpr Element a(int lane, int i) { return {lane % 16, i}; }
constexpr Element b(int lane, int i) { return {i, lane % 16}; }
constexpr Element c(int lane, int i) { return {i * 2 + lane / 16, lane % 16}; }
}  // namespace wmma

// 32-bit registers of a lane for A (and as many for B), and for the sums.
struct Shape {
  int lanes, operands, sums;
};
constexpr Shape shape_of(MatrixKind matrix) {
  switch (matrix) {
    case MatrixKind::kWmmaBf16:
    case MatrixKind::kWmmaF16:
      return {32, 8, 8};
    case MatrixKind::kWmmaU8S8:
      return {32, 4, 8};
    default:
      return {64, 2, 4};
  }
}

// c = a b + c over a wave, of `registers` 32-bit registers a lane: c[lane][i]. Products are exact in FP32, unless they leave
// its range, and added to c in the order of k, rounding to nearest each time; the guides do not say how the units round. 32-bit
// sums wrap. False, and nothing done, where lanes that are to hold A or B alike do not.
constexpr int kMostLanes = 64, kMostRegisters = 8;
bool multiply(MatrixKind matrix, uint32_t (*const c[])[kMostRegisters], const uint32_t (*const a[])[kMostRegisters],
              const uint32_t (*const b[])[kMostRegisters]);

}  // namespace gatun::simt::amd
