// What the instructions of AMX do, in plain code, after Intel's Software Developer's Manual, volume 2 (LDTILECFG, TILELOADD,
// TILESTORED, TDPBF16PS, TDPBUSD): stands in for them in builds with GATUN_AMX_MODEL, which are for tests of kernels of
// tiles on processors that have none. What would be an invalid instruction ends the process.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace gatun::cpu::GATUN_LEVEL {
namespace {
namespace model {

struct Tiles {
  bool set = false;
  int bytes[8] = {}, rows[8] = {};
  uint8_t data[8][16][64] = {};
};

inline thread_local Tiles tiles;

inline void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "model of AMX: %s\n", what);
  std::abort();
}

inline void set(int palette, const uint16_t* bytes, const uint8_t* rows) {
  require(palette == 1, "LDTILECFG: the palette is not 1");
  tiles = Tiles();
  tiles.set = true;
  for (int t = 0; t < 8; ++t) {
    require(bytes[t] <= 64 && rows[t] <= 16 && (rows[t] == 0) == (bytes[t] == 0), "LDTILECFG: a shape that is none");
    tiles.bytes[t] = bytes[t];
    tiles.rows[t] = rows[t];
  }
}

inline void release() { tiles = Tiles(); }

inline void require_shape(int tile, const char* what) { require(tiles.set && tiles.rows[tile] > 0, what); }

inline void zero(int tile) {
  require_shape(tile, "TILEZERO: the tile has no shape");
  std::memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

inline void load(int tile, const void* from, int64_t stride) {
  zero(tile);
  for (int r = 0; r < tiles.rows[tile]; ++r) {
    std::memcpy(tiles.data[tile][r], static_cast<const uint8_t*>(from) + r * stride, static_cast<size_t>(tiles.bytes[tile]));
  }
}

inline void store(int tile, void* to, int64_t stride) {
  require_shape(tile, "TILESTORED: the tile has no shape");
  for (int r = 0; r < tiles.rows[tile]; ++r) {
    std::memcpy(static_cast<uint8_t*>(to) + r * stride, tiles.data[tile][r], static_cast<size_t>(tiles.bytes[tile]));
  }
}

inline void require_product(int sums, int rows, int columns) {
  require_shape(sums, "a product's sums have no shape");
  require_shape(rows, "a product's rows have no shape");
  require_shape(columns, "a product's columns have no shape");
  require(sums != rows && sums != columns && rows != columns, "a product takes a tile twice");
  require(tiles.rows[sums] == tiles.rows[rows] && tiles.bytes[sums] == tiles.bytes[columns] &&
              tiles.bytes[rows] == 4 * tiles.rows[columns],
          "shapes of a product do not fit");
}

// Denormals are zeros.
inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

inline float widen(const uint8_t* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof half);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return flush(value);
}

inline void multiply_bf16(int sums, int rows, int columns) {
  require_product(sums, rows, columns);
  for (int m = 0; m < tiles.rows[sums]; ++m) {
    for (int n = 0; n < tiles.bytes[sums] / 4; ++n) {
      float even = 0.0f, odd = 0.0f;
      for (int k = 0; k < tiles.rows[columns]; ++k) {
        const uint8_t* a = tiles.data[rows][m] + 4 * k;
        const uint8_t* b = tiles.data[columns][k] + 4 * n;
        even = flush(std::fma(widen(a), widen(b), even));
        odd = flush(std::fma(widen(a + 2), widen(b + 2), odd));
      }
      float sum;
      std::memcpy(&sum, tiles.data[sums][m] + 4 * n, sizeof sum);
      sum = flush(flush(sum) + flush(even + odd));
      std::memcpy(tiles.data[sums][m] + 4 * n, &sum, sizeof sum);
    }
  }
}

inline void multiply_u8s8(int sums, int rows, int columns) {
  require_product(sums, rows, columns);
  for (int m = 0; m < tiles.rows[sums]; ++m) {
    for (int n = 0; n < tiles.bytes[sums] / 4; ++n) {
      int32_t sum;
      std::memcpy(&sum, tiles.data[sums][m] + 4 * n, sizeof sum);
      uint32_t wrapped = static_cast<uint32_t>(sum);
      for (int k = 0; k < 4 * tiles.rows[columns]; ++k) {
        const int32_t a = tiles.data[rows][m][k];
        const int32_t b = static_cast<int8_t>(tiles.data[columns][k / 4][4 * n + k % 4]);
        wrapped += static_cast<uint32_t>(a * b);
      }
      std::memcpy(tiles.data[sums][m] + 4 * n, &wrapped, sizeof wrapped);
    }
  }
}

}  // namespace model
}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
