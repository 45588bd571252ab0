// AMD's matrix instructions apart from any kernel. What the calculator says of each operand is restated as it says it, and a
// product over fragments is compared with the plain product of matrices.
#include "model/instructions.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <utility>
#include <vector>

namespace gatun::simt::amd {
namespace {

typedef Element (*Map)(int, int);

// Where the calculator finds element (row, column): v<register>{<lane>}, and of a register the bits from `low` on.
struct Place {
  int row, column, lane, reg, low;
};

void check(const char* name, Map map, int bits, const std::vector<Place>& places) {
  for (const Place& p : places) {
    const Element e = map(p.lane, p.reg * (32 / bits) + p.low / bits);
    EXPECT_EQ(e.row, p.row) << name << " v" << p.reg << "{" << p.lane << "} bit " << p.low;
    EXPECT_EQ(e.column, p.column) << name << " v" << p.reg << "{" << p.lane << "} bit " << p.low;
  }
}

TEST(Layouts, AreThoseOfTheCalculator) {
  check("v_mfma_f32_16x16x16_bf16 A", mfma16::a, 16,
        {{0, 0, 0, 0, 0}, {0, 1, 0, 0, 16}, {0, 2, 0, 1, 0}, {0, 4, 16, 0, 0}, {0, 7, 16, 1, 16}, {0, 8, 32, 0, 0},
         {1, 0, 1, 0, 0}, {1, 9, 33, 0, 16}, {2, 3, 2, 1, 16}, {7, 0, 7, 0, 0}, {15, 15, 63, 1, 16}});
  check("v_mfma_f32_16x16x16_bf16 B", mfma16::b, 16,
        {{0, 0, 0, 0, 0}, {0, 1, 1, 0, 0}, {1, 0, 0, 0, 16}, {1, 9, 9, 0, 16}, {2, 3, 3, 1, 0}, {4, 0, 16, 0, 0}, {7, 0, 16, 1, 16},
         {8, 0, 32, 0, 0}, {15, 15, 63, 1, 16}});
  check("v_mfma_f32_16x16x16_bf16 D", mfma16::c, 32,
        {{0, 0, 0, 0, 0}, {0, 8, 8, 0, 0}, {1, 0, 0, 1, 0}, {1, 9, 9, 1, 0}, {2, 3, 3, 2, 0}, {4, 0, 16, 0, 0}, {7, 0, 16, 3, 0},
         {8, 0, 32, 0, 0}, {15, 15, 63, 3, 0}});
  check("v_mfma_i32_16x16x32_i8 A", mfma8::a, 8,
        {{0, 0, 0, 0, 0}, {0, 1, 0, 0, 8}, {0, 4, 0, 1, 0}, {0, 7, 0, 1, 24}, {0, 8, 16, 0, 0}, {1, 9, 17, 0, 8}, {2, 3, 2, 0, 24},
         {15, 15, 31, 1, 24}});
  check("v_mfma_i32_16x16x32_i8 B", mfma8::b, 8,
        {{0, 0, 0, 0, 0}, {0, 8, 8, 0, 0}, {1, 9, 9, 0, 8}, {2, 3, 3, 0, 16}, {4, 0, 0, 1, 0}, {7, 0, 0, 1, 24}, {8, 0, 16, 0, 0},
         {15, 15, 31, 1, 24}});
  // Lanes 16 apart hold the same.
  for (int half = 0; half < 32; half += 16) {
    check("v_wmma_f32_16x16x16_bf16 A", wmma::a, 16,
          {{0, 0, half, 0, 0}, {0, 1, half, 0, 16}, {0, 7, half, 3, 16}, {0, 8, half, 4, 0}, {1, 9, half + 1, 4, 16},
           {7, 0, half + 7, 0, 0}, {15, 15, half + 15, 7, 16}});
    check("v_wmma_f32_16x16x16_bf16 B", wmma::b, 16,
          {{0, 1, half + 1, 0, 0}, {1, 9, half + 9, 0, 16}, {2, 3, half + 3, 1, 0}, {7, 0, half, 3, 16}, {15, 15, half + 15, 7, 16}});
    check("v_wmma_i32_16x16x16_iu8 A", wmma::a, 8,
          {{0, 4, half, 1, 0}, {0, 8, half, 2, 0}, {1, 9, half + 1, 2, 8}, {15, 15, half + 15, 3, 24}});
    check("v_wmma_i32_16x16x16_iu8 B", wmma::b, 8,
          {{1, 9, half + 9, 0, 8}, {7, 0, half, 1, 24}, {8, 0, half, 2, 0}, {15, 15, half + 15, 3, 24}});
  }
  check("v_wmma_f32_16x16x16_bf16 D", wmma::c, 32,
        {{0, 0, 0, 0, 0}, {0, 8, 8, 0, 0}, {1, 0, 16, 0, 0}, {1, 9, 25, 0, 0}, {2, 3, 3, 1, 0}, {4, 0, 0, 2, 0}, {7, 0, 16, 3, 0},
         {8, 0, 0, 4, 0}, {15, 15, 31, 7, 0}});
}

TEST(Layouts, HoldEachElement) {
  const struct {
    Map map;
    int lanes, elements, rows, columns, copies;
  } cases[] = {{mfma16::a, 64, 4, 16, 16, 1}, {mfma16::b, 64, 4, 16, 16, 1}, {mfma16::c, 64, 4, 16, 16, 1},
               {mfma8::a, 64, 8, 16, 32, 1},  {mfma8::b, 64, 8, 32, 16, 1},  {wmma::a, 32, 16, 16, 16, 2},
               {wmma::b, 32, 16, 16, 16, 2},  {wmma::c, 32, 8, 16, 16, 1}};
  for (const auto& c : cases) {
    std::map<std::pair<int, int>, int> seen;
    for (int lane = 0; lane < c.lanes; ++lane) {
      for (int i = 0; i < c.elements; ++i) {
        const Element e = c.map(lane, i);
        ASSERT_TRUE(e.row >= 0 && e.row < c.rows && e.column >= 0 && e.column < c.columns);
        ++seen[{e.row, e.column}];
      }
    }
    EXPECT_EQ(static_cast<int>(seen.size()), c.rows * c.columns);
    for (const auto& [at, copies] : seen) ASSERT_EQ(copies, c.copies) << at.first << ", " << at.second;
  }
}

struct Wave {
  uint32_t words[kMostLanes][kMostRegisters] = {};
  uint32_t (*lanes[kMostLanes])[kMostRegisters];
  const uint32_t (*constant[kMostLanes])[kMostRegisters];
  Wave() {
    for (int lane = 0; lane < kMostLanes; ++lane) lanes[lane] = &words[lane], constant[lane] = &words[lane];
  }
};

// Small whole numbers in each format, so that all sums are exact.
uint32_t encode(MatrixKind matrix, int value) {
  if (matrix == MatrixKind::kMfmaS8 || matrix == MatrixKind::kWmmaU8S8) return static_cast<uint32_t>(value) & 0xff;
  const float x = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (matrix == MatrixKind::kMfmaBf16 || matrix == MatrixKind::kWmmaBf16) return bits >> 16;
  // F16: a bias of 15 instead of 127, and 10 bits of the number's own.
  return value == 0 ? 0 : (bits >> 16 & 0x8000) | ((bits & 0x7fffffff) - (112u << 23)) >> 13;
}

TEST(Instructions, MultiplyMatrices) {
  const struct {
    MatrixKind matrix;
    Map a, b, c;
    int depth, bits;
    bool integers, unsigned_rows;
  } cases[] = {{MatrixKind::kMfmaBf16, mfma16::a, mfma16::b, mfma16::c, 16, 16, false, false},
               {MatrixKind::kMfmaF16, mfma16::a, mfma16::b, mfma16::c, 16, 16, false, false},
               {MatrixKind::kMfmaS8, mfma8::a, mfma8::b, mfma16::c, 32, 8, true, false},
               {MatrixKind::kWmmaBf16, wmma::a, wmma::b, wmma::c, 16, 16, false, false},
               {MatrixKind::kWmmaF16, wmma::a, wmma::b, wmma::c, 16, 16, false, false},
               {MatrixKind::kWmmaU8S8, wmma::a, wmma::b, wmma::c, 16, 8, true, true}};
  std::minstd_rand random(3);
  for (const auto& c : cases) {
    int left[16][32], right[32][16], sums[16][16];
    for (auto& row : left) {
      for (int& x : row) x = c.unsigned_rows ? static_cast<int>(random() % 256) : static_cast<int>(random() % 17) - 8;
    }
    for (auto& row : right) {
      for (int& x : row) x = c.integers ? static_cast<int>(random() % 256) - 128 : static_cast<int>(random() % 17) - 8;
    }
    for (auto& row : sums) {
      for (int& x : row) x = static_cast<int>(random() % 1000) - 500;
    }
    Wave a, b, d;
    const Shape shape = shape_of(c.matrix);
    const int per_word = 32 / c.bits;
    for (int lane = 0; lane < shape.lanes; ++lane) {
      for (int i = 0; i < shape.operands * per_word; ++i) {
        const Element l = c.a(lane, i), r = c.b(lane, i);
        a.words[lane][i / per_word] |= encode(c.matrix, left[l.row][l.column]) << i % per_word * c.bits;
        b.words[lane][i / per_word] |= encode(c.matrix, right[r.row][r.column]) << i % per_word * c.bits;
      }
      for (int i = 0; i < shape.sums; ++i) {
        const Element e = c.c(lane, i);
        const float x = static_cast<float>(sums[e.row][e.column]);
        if (c.integers) {
          d.words[lane][i] = static_cast<uint32_t>(sums[e.row][e.column]);
        } else {
          std::memcpy(&d.words[lane][i], &x, sizeof x);
        }
      }
    }
    ASSERT_TRUE(multiply(c.matrix, d.lanes, a.constant, b.constant));
    for (int lane = 0; lane < shape.lanes; ++lane) {
      for (int i = 0; i < shape.sums; ++i) {
        const Element e = c.c(lane, i);
        int expected = sums[e.row][e.column];
        for (int k = 0; k < c.depth; ++k) expected += left[e.row][k] * right[k][e.column];
        float x;
        std::memcpy(&x, &d.words[lane][i], sizeof x);
        const int actual = c.integers ? static_cast<int>(d.words[lane][i]) : static_cast<int>(x);
        ASSERT_EQ(actual, expected) << static_cast<int>(c.matrix) << ": " << e.row << ", " << e.column;
      }
    }
    // Halves of a wave that should hold the same and do not.
    if (shape.lanes == 32) {
      b.words[17][0] ^= 1;
      EXPECT_FALSE(multiply(c.matrix, d.lanes, a.constant, b.constant));
    }
  }
}

}  // namespace
}  // namespace gatun::simt::amd
