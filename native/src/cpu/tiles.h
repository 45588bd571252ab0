// The tiles of AMX: eight registers of up to 16 rows of 64 bytes, and the product of two of them that a third adds up. For
// files that are compiled once per level. What each instruction does is in Intel's Software Developer's Manual, volume 2,
// and, for processors without, in tiles_model.h.
//
// Tiles have shapes, which a thread sets and which end with release_tiles(): what it leaves would be saved and restored with
// every switch to another thread.
#pragma once

#if defined(GATUN_LEVEL_amx)

#include <cstdint>

#if defined(GATUN_AMX_MODEL)
#include "cpu/tiles_model.h"
#endif

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kTileRows = 16, kTileBytes = 64;

// As LDTILECFG reads it.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved_0[14] = {};
  uint16_t bytes[8] = {kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes};
  uint8_t reserved_1[16] = {}, rows[8] = {}, reserved_2[8] = {};
};
static_assert(sizeof(TileShapes) == 64);

#if defined(GATUN_AMX_MODEL)

inline void set_tiles(const TileShapes& shapes) { model::set(shapes.palette, shapes.bytes, shapes.rows); }
inline void release_tiles() { model::release(); }
template <int kTile>
void zero_tile() {
  model::zero(kTile);
}
template <int kTile>
void load_tile(const void* from, int64_t stride) {
  model::load(kTile, from, stride);
}
template <int kTile>
void store_tile(void* to, int64_t stride) {
  model::store(kTile, to, stride);
}
template <int kSums, int kRows, int kColumns>
void multiply_bf16() {
  model::multiply_bf16(kSums, kRows, kColumns);
}
template <int kSums, int kRows, int kColumns>
void multiply_u8s8() {
  model::multiply_u8s8(kSums, kRows, kColumns);
}

#else

// The compiler's own functions for these do not say what memory they read: stores before them may come after, or never.
inline __attribute__((always_inline)) void set_tiles(const TileShapes& shapes) {
  asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}
inline __attribute__((always_inline)) void release_tiles() { asm volatile("tilerelease" : : : "memory"); }
template <int kTile>
inline __attribute__((always_inline)) void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline __attribute__((always_inline)) void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
// Sums of FP32: first the even elements of a row by those of a column and the odd ones, each a chain of fused multiply-adds from
// zero on, then both together to the sum; to nearest even, with denormals taken and given as zeros.
template <int kSums, int kRows, int kColumns>
inline __attribute__((always_inline)) void multiply_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kColumns));
}
// Sums of INT32, exact.
template <int kSums, int kRows, int kColumns>
inline __attribute__((always_inline)) void multiply_u8s8() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kColumns));
}

#endif

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL

#endif
