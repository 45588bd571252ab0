// What the warp-wide instructions do, as data apart from any kernel: which element of which matrix each lane holds, and
// how the matrix units compute. From the PTX ISA manual, version 9.0:
//   9.7.14.5.8   mma.m16n8k16, floating point: fragments
//   9.7.14.5.10  mma.m16n8k32, 8-bit integers: fragments
//   9.7.14.5.14  mma
//   9.7.14.5.15  ldmatrix
// (Section numbers shift between versions of the manual; the titles stay.)
#pragma once

#include <cstdint>

namespace gatun::simt {

inline constexpr int kWarp = 32;

struct Element {
  int row, column;
};

// Element i, counted from the low bits of the first register, of the fragment that `lane` holds. In the manual's words:
// groupID = lane / 4, threadID_in_group = lane % 4.
namespace fragment {

// A of m16n8k16: 16 x 16, 8 elements of 16 bits a lane.
constexpr Element a16(int lane, int i) {
  return {lane / 4 + (i / 2 % 2 == 0 ? 0 : 8), lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8)};
}
// B of m16n8k16: 16 x 8, 4 elements a lane.
constexpr Element b16(int lane, int i) { return {lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8), lane / 4}; }

// A of m16n8k32: 16 x 32, 16 elements of 8 bits a lane.
constexpr Element a8(int lane, int i) {
  return {lane / 4 + (i / 4 % 2 == 0 ? 0 : 8), lane % 4 * 4 + i % 4 + (i < 8 ? 0 : 16)};
}
// B of m16n8k32: 32 x 8, 8 elements a lane.
constexpr Element b8(int lane, int i) { return {lane % 4 * 4 + i % 4 + (i < 4 ? 0 : 16), lane / 4}; }

// C and D of both: 16 x 8, 4 elements of 32 bits a lane.
constexpr Element c(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + i % 2}; }

// ldmatrix .m8n8 .b16: each lane receives elements i = 0, 1 of each 8 x 8 matrix.
constexpr Element matrix(int lane, int i) { return {lane / 4, lane % 4 * 2 + i}; }
constexpr Element matrix_transposed(int lane, int i) { return {lane % 4 * 2 + i, lane / 4}; }

}  // namespace fragment

// The address of row r of matrix m comes from this lane.
constexpr int matrix_row_lane(int matrix, int row) { return matrix * 8 + row; }

// d = a b + c over a warp: one pointer a lane, to its fragment. The manual promises products exact enough for FP32 and
// sums of at least single precision in an unspecified order; here each product is exact in FP32 (unless it leaves the
// range) and is added to c in the order of k, rounding to nearest each time, which is one of the orders allowed.
void mma_bf16(float (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]);
void mma_f16(float (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]);
// Without .satfinite: 32-bit sums that wrap.
void mma_s8(int32_t (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]);
void mma_u8s8(int32_t (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]);

// ldmatrix with 1, 2 or 4 matrices: rows[lane] is the address that the lane gave, results in d.
void load_matrix(int matrices, bool transposed, uint32_t (*const d[kWarp])[4], const void* const rows[kWarp]);

}  // namespace gatun::simt
