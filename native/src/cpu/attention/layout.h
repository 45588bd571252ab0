// How a tile is cut into panels and blocks of keys, and where its parts lie in a worker's scratch.
#pragma once

#include "cpu/attention/attention.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kLanes = HWY_LANES(float);
constexpr bool kManyRegisters = kLanes >= 16;  // 32 vector registers rather than 16

// Rows of a panel, in vectors: two, or one for the rest of a tile that fits one.
#if defined(GATUN_AMX_MODEL)
constexpr int kPanelVectors = 4;  // rows as AVX-512 has them
#else
constexpr int kPanelVectors = 2;
#endif
constexpr int kPanelRows = kPanelVectors * kLanes;

// Microkernel shapes. Scores: keys by vectors of rows. Weighing: rows by vectors of values, at most.
constexpr int kScoreKeys = kManyRegisters ? 12 : 6;
constexpr int kWeighRows = kManyRegisters ? 8 : 4;
constexpr int kWeighVectors = 3;

constexpr int kDirectRows = 4;

// A block of K and V in FP32 takes at most this much of the L2 cache, and the panels of a tile (Q and O) as much again.
#if defined(GATUN_LEVEL_amx)
constexpr bool kHasTiles = true;
constexpr int64_t kKeyStep = 32;  // a step of tiles
constexpr int64_t kLeastBlockKeys = 32, kMostBlockKeys = 192;
#else
constexpr bool kHasTiles = false;
constexpr int64_t kKeyStep = 12;  // a multiple of the heights of the score microkernel, 6 and 12
constexpr int64_t kLeastBlockKeys = 24, kMostBlockKeys = 132;
#endif
constexpr int64_t kBlockFloats = kMostBlockKeys * 256;
constexpr int64_t kMostTileRows = 256;

constexpr float kInfinity = __builtin_huge_valf();

// Of scratch that tiles need beyond what panels do: weights of two terms, by pairs of keys, and values twice, transposed.
constexpr int64_t tiled_floats(int64_t block_keys, int64_t dv_padded) {
  return 2 * (block_keys / 2 + 1) * kPanelRows + 2 * (block_keys / 2 + 16) * dv_padded;
}

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

// Where everything lies in a worker's scratch, in floats; every part starts on a cache line.
struct Layout {
  int64_t tile_rows, block_keys;
  int64_t dk_padded, dv_padded;  // whole vectors
  int64_t queries, outputs, maxima, sums, scores, added, keys, values, tiled, end;
};

Layout layout_of(int64_t dk, int64_t dv) {
  Layout l;
  l.dk_padded = round_up(dk, kLanes);
  l.dv_padded = round_up(dv, kLanes);
  const int64_t width = max_of(l.dk_padded + l.dv_padded, 1);
  l.block_keys = max_of(min_of(kBlockFloats / width / kKeyStep * kKeyStep, kMostBlockKeys), kLeastBlockKeys);
  l.tile_rows = max_of(min_of(kBlockFloats / width / 32 * 32, kMostTileRows), 32);
  int64_t next = 0;
  const auto take = [&next](int64_t floats) {
    const int64_t start = next;
    next += round_up(floats, 16);
    return start;
  };
  l.queries = take(l.tile_rows * l.dk_padded);
  l.outputs = take(l.tile_rows * l.dv_padded);
  l.maxima = take(l.tile_rows);
  l.sums = take(l.tile_rows);
  l.scores = take(max_of(kPanelRows, kDirectRows) * round_up(l.block_keys, kLanes));
  l.added = take(max_of(kPanelRows, kDirectRows) * round_up(l.block_keys, kLanes));
  l.keys = take(l.block_keys * l.dk_padded);
  l.values = take(l.block_keys * l.dv_padded);
  l.tiled = take(kHasTiles ? tiled_floats(l.block_keys, l.dv_padded) : 0);
  l.end = next;
  return l;
}

AttentionTiling tiling(int64_t dk, int64_t dv) {
  const Layout l = layout_of(dk, dv);
  return {l.tile_rows, l.block_keys, kKeyStep, l.end * static_cast<int64_t>(sizeof(float))};
}

HWY_INLINE int64_t element_bytes(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2; }

HWY_INLINE const char* query_at(const AttentionTile& t, int64_t row) {
  return t.q + (query_of(t, row) * t.q_row + head_of(t, row) * t.q_head) * element_bytes(t.q_dtype);
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
