// Fragments and warp-wide instructions apart from any kernel. The maps are written down here a second time, in the form
// of the manual's figures, and a product over fragments is compared with the plain product of matrices.
#include "simt/instructions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <utility>

namespace gatun::simt {
namespace {

template <int kCount>
void check_bijection(Element (*map)(int, int), int rows, int columns) {
  std::set<std::pair<int, int>> seen;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < kCount; ++i) {
      const Element e = map(lane, i);
      EXPECT_TRUE(e.row >= 0 && e.row < rows && e.column >= 0 && e.column < columns);
      EXPECT_TRUE(seen.emplace(e.row, e.column).second) << lane << " " << i;
    }
  }
  EXPECT_EQ(static_cast<int>(seen.size()), rows * columns);
}

TEST(Fragments, HoldEachElementOnce) {
  check_bijection<8>(fragment::a16, 16, 16);
  check_bijection<4>(fragment::b16, 16, 8);
  check_bijection<16>(fragment::a8, 16, 32);
  check_bijection<8>(fragment::b8, 32, 8);
  check_bijection<4>(fragment::c, 16, 8);
  check_bijection<2>(fragment::matrix, 8, 8);
  check_bijection<2>(fragment::matrix_transposed, 8, 8);
}

// The manual's formulas, case by case.
TEST(Fragments, AreThoseOfTheManual) {
  for (int lane = 0; lane < kWarp; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
      EXPECT_EQ(fragment::a16(lane, i).row, upper ? group : group + 8);
      EXPECT_EQ(fragment::a16(lane, i).column, i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8);
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(fragment::b16(lane, i).row, i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8);
      EXPECT_EQ(fragment::b16(lane, i).column, group);
      EXPECT_EQ(fragment::c(lane, i).row, i < 2 ? group : group + 8);
      EXPECT_EQ(fragment::c(lane, i).column, in_group * 2 + (i & 1));
    }
    for (int i = 0; i < 16; ++i) {
      const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
      EXPECT_EQ(fragment::a8(lane, i).row, upper ? group : group + 8);
      EXPECT_EQ(fragment::a8(lane, i).column, i < 8 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16);
    }
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(fragment::b8(lane, i).row, i < 4 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16);
      EXPECT_EQ(fragment::b8(lane, i).column, group);
    }
    // Figure of ldmatrix: lane 0 holds elements 0 and 1 of row 0, lane 4 the first two of row 1.
    EXPECT_EQ(fragment::matrix(lane, 0).row, lane / 4);
    EXPECT_EQ(fragment::matrix(lane, 1).column, lane % 4 * 2 + 1);
  }
}

// Registers of a warp, and the pointers that the instructions take.
template <typename T, int kWords>
struct Registers {
  T word[kWarp][kWords] = {};
  using Lane = T[kWords];
  Lane* lanes[kWarp];
  const T (*constant[kWarp])[kWords];
  Registers() {
    for (int lane = 0; lane < kWarp; ++lane) {
      lanes[lane] = &word[lane];
      constant[lane] = &word[lane];
    }
  }
};

uint16_t bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}
#if defined(__aarch64__)
typedef __fp16 Binary16;
#else
typedef _Float16 Binary16;
#endif
uint16_t f16(float x) {
  const Binary16 h = static_cast<Binary16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, sizeof bits);
  return bits;
}

template <typename Instruction>
void check_floats(Instruction instruction, uint16_t (*encode)(float), float (*decode)(uint16_t)) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Registers<float, 4> c;
  Registers<uint32_t, 4> a;
  Registers<uint32_t, 2> b;
  double left[16][16], right[16][8], expected[16][8], size[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const uint16_t bits = encode(normal(random));
      a.word[lane][i / 2] |= static_cast<uint32_t>(bits) << i % 2 * 16;
      const Element e = fragment::a16(lane, i);
      left[e.row][e.column] = static_cast<double>(decode(bits));
    }
    for (int i = 0; i < 4; ++i) {
      const uint16_t bits = encode(normal(random));
      b.word[lane][i / 2] |= static_cast<uint32_t>(bits) << i % 2 * 16;
      const Element e = fragment::b16(lane, i);
      right[e.row][e.column] = static_cast<double>(decode(bits));
      c.word[lane][i] = normal(random);
      const Element s = fragment::c(lane, i);
      expected[s.row][s.column] = static_cast<double>(c.word[lane][i]);
      size[s.row][s.column] = std::fabs(expected[s.row][s.column]);
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 16; ++k) {
        expected[m][n] += left[m][k] * right[k][n];
        size[m][n] += std::fabs(left[m][k] * right[k][n]);
      }
    }
  }
  instruction(c.lanes, a.constant, b.constant);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element s = fragment::c(lane, i);
      EXPECT_NEAR(static_cast<double>(c.word[lane][i]), expected[s.row][s.column],
                  16 * 0x1p-24 * size[s.row][s.column]);
    }
  }
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}
float from_f16(uint16_t bits) {
  Binary16 h;
  std::memcpy(&h, &bits, sizeof h);
  return static_cast<float>(h);
}

TEST(Mma, Bf16IsTheProduct) { check_floats(mma_bf16, bf16, from_bf16); }
TEST(Mma, F16IsTheProduct) { check_floats(mma_f16, f16, from_f16); }

// Each pattern of 16 bits goes through the unit unchanged when it is multiplied by 1, denormals and infinities
// included.
template <typename Instruction>
void check_decoding(Instruction instruction, uint16_t one, float (*decode)(uint16_t)) {
  for (uint32_t bits = 0; bits < 65536; bits += 16) {
    Registers<float, 4> c;
    Registers<uint32_t, 4> a;
    Registers<uint32_t, 2> b;
    // A: element (row, 0) is pattern bits + row. B: row 0 is ones.
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const Element e = fragment::a16(lane, i);
        if (e.column == 0) a.word[lane][i / 2] |= (bits + static_cast<uint32_t>(e.row)) << i % 2 * 16;
      }
      for (int i = 0; i < 4; ++i) {
        if (fragment::b16(lane, i).row == 0) b.word[lane][i / 2] |= static_cast<uint32_t>(one) << i % 2 * 16;
      }
    }
    instruction(c.lanes, a.constant, b.constant);
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const float expected = decode(static_cast<uint16_t>(bits + static_cast<uint32_t>(fragment::c(lane, i).row)));
        const float found = c.word[lane][i];
        EXPECT_TRUE(found == expected || (found != found && expected != expected)) << bits;
      }
    }
  }
}

TEST(Mma, Bf16DecodesEveryPattern) { check_decoding(mma_bf16, bf16(1.0f), from_bf16); }
TEST(Mma, F16DecodesEveryPattern) { check_decoding(mma_f16, f16(1.0f), from_f16); }

template <typename Left, typename Instruction>
void check_integers(Instruction instruction) {
  std::mt19937 random(7);
  Registers<int32_t, 4> c;
  Registers<uint32_t, 4> a;
  Registers<uint32_t, 2> b;
  int64_t left[16][32], right[32][8], expected[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    for (uint32_t& w : a.word[lane]) w = static_cast<uint32_t>(random());
    for (uint32_t& w : b.word[lane]) w = static_cast<uint32_t>(random());
    for (int i = 0; i < 16; ++i) {
      const Element e = fragment::a8(lane, i);
      left[e.row][e.column] = static_cast<Left>(a.word[lane][i / 4] >> i % 4 * 8);
    }
    for (int i = 0; i < 8; ++i) {
      const Element e = fragment::b8(lane, i);
      right[e.row][e.column] = static_cast<int8_t>(b.word[lane][i / 4] >> i % 4 * 8);
    }
    for (int i = 0; i < 4; ++i) {
      c.word[lane][i] = static_cast<int32_t>(random());
      const Element e = fragment::c(lane, i);
      expected[e.row][e.column] = c.word[lane][i];
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 32; ++k) expected[m][n] += left[m][k] * right[k][n];
    }
  }
  instruction(c.lanes, a.constant, b.constant);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element e = fragment::c(lane, i);
      EXPECT_EQ(c.word[lane][i], static_cast<int32_t>(static_cast<uint32_t>(expected[e.row][e.column])));
    }
  }
}

TEST(Mma, S8IsTheProduct) { check_integers<int8_t>(mma_s8); }
TEST(Mma, U8S8IsTheProduct) { check_integers<uint8_t>(mma_u8s8); }

void check_load(int matrices, bool transposed) {
  uint16_t memory[4][8][8];
  for (int m = 0; m < 4; ++m) {
    for (int r = 0; r < 8; ++r) {
      for (int e = 0; e < 8; ++e) memory[m][r][e] = static_cast<uint16_t>(m * 64 + r * 8 + e);
    }
  }
  Registers<uint32_t, 4> d;
  const void* rows[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) rows[lane] = lane < matrices * 8 ? memory[lane / 8][lane % 8] : nullptr;
  load_matrix(matrices, transposed, d.lanes, rows);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int m = 0; m < matrices; ++m) {
      const uint16_t low = transposed ? memory[m][lane % 4 * 2][lane / 4] : memory[m][lane / 4][lane % 4 * 2];
      const uint16_t high = transposed ? memory[m][lane % 4 * 2 + 1][lane / 4] : memory[m][lane / 4][lane % 4 * 2 + 1];
      EXPECT_EQ(d.word[lane][m], low | static_cast<uint32_t>(high) << 16);
    }
  }
}

TEST(LoadMatrix, GivesRowsOrColumns) {
  for (const int matrices : {1, 2, 4}) {
    check_load(matrices, false);
    check_load(matrices, true);
  }
}

// What the maps are for: an A of row-major rows by ldmatrix is the A of mma, and a row-major B by its transposing form
// its B.
TEST(LoadMatrix, MakesTheFragmentsOfMma) {
  uint16_t a[16][16], b[16][8];
  for (int r = 0; r < 16; ++r) {
    for (int k = 0; k < 16; ++k) a[r][k] = static_cast<uint16_t>(r * 16 + k);
    for (int n = 0; n < 8; ++n) b[r][n] = static_cast<uint16_t>(r * 8 + n);
  }
  Registers<uint32_t, 4> left, right;
  const void *left_rows[kWarp], *right_rows[kWarp] = {};
  for (int lane = 0; lane < kWarp; ++lane) left_rows[lane] = &a[lane % 16][lane / 16 * 8];
  for (int lane = 0; lane < 16; ++lane) right_rows[lane] = b[lane];
  load_matrix(4, false, left.lanes, left_rows);
  load_matrix(2, true, right.lanes, right_rows);
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const Element e = fragment::a16(lane, i);
      EXPECT_EQ(static_cast<uint16_t>(left.word[lane][i / 2] >> i % 2 * 16), a[e.row][e.column]);
    }
    for (int i = 0; i < 4; ++i) {
      const Element e = fragment::b16(lane, i);
      EXPECT_EQ(static_cast<uint16_t>(right.word[lane][i / 2] >> i % 2 * 16), b[e.row][e.column]);
    }
  }
}

}  // namespace
}  // namespace gatun::simt
