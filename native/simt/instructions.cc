#include "simt/instructions.h"

#include <cstring>

namespace gatun::simt {
namespace {

float bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// binary16 to binary32 is exact.
float f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t rest = bits & 0x7fff;
  uint32_t wide;
  float value;
  if (rest >= 0x7c00) {
    wide = sign | 0x7f800000 | (rest & 0x3ff) << 13;
  } else if (rest >= 0x400) {
    wide = sign | ((rest << 13) + (112u << 23));
  } else {
    value = static_cast<float>(rest) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// The maps, laid out once as offsets into dense matrices: A row-major, B by k then n, C row-major.
template <int kCount, int kStride, Element (*kMap)(int, int)>
struct Offsets {
  uint16_t at[kWarp][kCount];
  constexpr Offsets() : at() {
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < kCount; ++i) {
        const Element e = kMap(lane, i);
        at[lane][i] = static_cast<uint16_t>(e.row * kStride + e.column);
      }
    }
  }
};
constexpr Offsets<8, 16, fragment::a16> kA16;
constexpr Offsets<4, 8, fragment::b16> kB16;
constexpr Offsets<16, 32, fragment::a8> kA8;
constexpr Offsets<8, 8, fragment::b8> kB8;
constexpr Offsets<4, 8, fragment::c> kC;

template <int kDepth, typename Sum, typename Left, typename Right>
void multiply(Sum (&c)[16 * 8], const Left (&a)[16 * kDepth], const Right (&b)[kDepth * 8]) {
  for (int row = 0; row < 16; ++row) {
    Sum sum[8];
    for (int n = 0; n < 8; ++n) sum[n] = c[row * 8 + n];
    for (int k = 0; k < kDepth; ++k) {
      for (int n = 0; n < 8; ++n) sum[n] += a[row * kDepth + k] * b[k * 8 + n];
    }
    for (int n = 0; n < 8; ++n) c[row * 8 + n] = sum[n];
  }
}

template <float (*kDecode)(uint16_t)>
void mma_16(float (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  float left[16 * 16], right[16 * 8], sum[16 * 8];
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 8; ++i)
      left[kA16.at[lane][i]] = kDecode(static_cast<uint16_t>((*a[lane])[i / 2] >> i % 2 * 16));
    for (int i = 0; i < 4; ++i)
      right[kB16.at[lane][i]] = kDecode(static_cast<uint16_t>((*b[lane])[i / 2] >> i % 2 * 16));
    for (int i = 0; i < 4; ++i) sum[kC.at[lane][i]] = (*c[lane])[i];
  }
  multiply<16>(sum, left, right);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) (*c[lane])[i] = sum[kC.at[lane][i]];
  }
}

template <typename Left>
void mma_8(int32_t (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  uint32_t left[16 * 32], right[32 * 8], sum[16 * 8];  // unsigned, so that sums wrap
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 16; ++i) {
      left[kA8.at[lane][i]] = static_cast<uint32_t>(static_cast<Left>((*a[lane])[i / 4] >> i % 4 * 8));
    }
    for (int i = 0; i < 8; ++i) {
      right[kB8.at[lane][i]] = static_cast<uint32_t>(static_cast<int8_t>((*b[lane])[i / 4] >> i % 4 * 8));
    }
    for (int i = 0; i < 4; ++i) sum[kC.at[lane][i]] = static_cast<uint32_t>((*c[lane])[i]);
  }
  multiply<32>(sum, left, right);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) (*c[lane])[i] = static_cast<int32_t>(sum[kC.at[lane][i]]);
  }
}

}  // namespace

void mma_bf16(float (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  mma_16<bf16>(c, a, b);
}

void mma_f16(float (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  mma_16<f16>(c, a, b);
}

void mma_s8(int32_t (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  mma_8<int8_t>(c, a, b);
}

void mma_u8s8(int32_t (*const c[kWarp])[4], const uint32_t (*const a[kWarp])[4], const uint32_t (*const b[kWarp])[2]) {
  mma_8<uint8_t>(c, a, b);
}

void load_matrix(int matrices, bool transposed, uint32_t (*const d[kWarp])[4], const void* const rows[kWarp]) {
  for (int m = 0; m < matrices; ++m) {
    uint16_t values[8][8];
    for (int r = 0; r < 8; ++r) std::memcpy(values[r], rows[matrix_row_lane(m, r)], sizeof values[r]);
    for (int lane = 0; lane < kWarp; ++lane) {
      uint32_t word = 0;
      for (int i = 0; i < 2; ++i) {
        const Element e = transposed ? fragment::matrix_transposed(lane, i) : fragment::matrix(lane, i);
        word |= static_cast<uint32_t>(values[e.row][e.column]) << i * 16;
      }
      (*d[lane])[m] = word;
    }
  }
}

}  // namespace gatun::simt
