// Products of BF16 and INT8 by the tiles of AMX (cpu/tiles.h), of packed weights as the vector units take them: a group of k of
// a panel is 32 columns of 4 bytes, so 16 groups are two tiles, a row 128 bytes after the other.
//
// Up to 32 rows by a panel are four tiles of sums; each step of k (64 bytes of a row) loads two tiles of rows and two of
// weights for four products, so that the product unit binds (16 cycles each) and loads (8 cycles each) hide behind it, as
// long as they come from the L1 cache. Up to 16 rows take two panels at once, again four tiles of sums: few rows wait for
// the stream of weights alone. What k has beyond whole steps is copied and filled up with zeros.
//
// Sums of BF16 are not one chain: see multiply_bf16(). They are the same for any number of rows.
#pragma once

#include "cpu/gemm/microkernels.h"

#if defined(GATUN_LEVEL_amx)
#include "cpu/tiles.h"
#endif

namespace gatun::cpu::GATUN_LEVEL {
namespace {

#if defined(GATUN_LEVEL_amx)

struct TiledBf16 {
  using Row = bf16;
  using Weight = bf16;
  using Sum = float;
  static constexpr int kGroup = 2, kElementBytes = 2;

  template <int kSums, int kRows, int kColumns>
  static HWY_INLINE void multiply_add() {
    multiply_bf16<kSums, kRows, kColumns>();
  }
};

struct TiledS8 {
  using Row = uint8_t;
  using Weight = int8_t;
  using Sum = int32_t;
  static constexpr int kGroup = 4, kElementBytes = 1;
  static constexpr int32_t kRowOffset = 0;

  template <int kSums, int kRows, int kColumns>
  static HWY_INLINE void multiply_add() {
    multiply_u8s8<kSums, kRows, kColumns>();
  }
};

template <>
constexpr bool kTiled<TiledBf16> = true;
template <>
constexpr bool kTiled<TiledS8> = true;

constexpr int kTiledRows = 2 * kTileRows;
constexpr int64_t kPanelTiles = kPanel * 4 / kTileBytes;
constexpr int64_t kTileSteps = kTileBytes / 4;  // groups of k in a tile
static_assert(kPanelTiles == 2, "a panel is two tiles of weights");

// Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights.
//
// Up to 16 rows: sums of the first panel in 0 and 1, of the second in 2 and 3, rows in 4. More: of the first 16 rows in 0 and 1,
// of the rest in 2 and 3; rows in 4 and 5.
class TileUse {
 public:
  void end() const {
    if (rows_ > 0) release_tiles();
  }

  void shape(int64_t rows) {
    if (rows == rows_) return;
    rows_ = rows;
    const uint8_t first = static_cast<uint8_t>(rows < kTileRows ? rows : kTileRows);
    const uint8_t second = static_cast<uint8_t>(rows > kTileRows ? rows - kTileRows : first);
    TileShapes shapes;
    for (int t : {0, 1, 4}) shapes.rows[t] = first;
    for (int t : {2, 3, 5}) shapes.rows[t] = second;
    for (int t : {6, 7}) shapes.rows[t] = kTileRows;
    set_tiles(shapes);
  }

 private:
  int64_t rows_ = 0;
};

template <int kFirst, typename Sum>
HWY_INLINE void begin_sums(const Sum* sums, bool accumulate) {
  if (accumulate) {
    load_tile<kFirst>(sums, kPanel * 4);
    load_tile<kFirst + 1>(sums + kTileRows, kPanel * 4);
  } else {
    zero_tile<kFirst>();
    zero_tile<kFirst + 1>();
  }
}

template <int kFirst, typename Sum>
HWY_INLINE void end_sums(Sum* sums) {
  store_tile<kFirst>(sums, kPanel * 4);
  store_tile<kFirst + 1>(sums + kTileRows, kPanel * 4);
}

// A step of k: `rows` and `weights` are where it begins. `second` are the rows after the first 16, or the second panel.
template <typename Format, bool kTall>
HWY_INLINE void tile_step(const unsigned char* rows, int64_t row_stride, const unsigned char* weights,
                          const unsigned char* second) {
  load_tile<4>(rows, row_stride);
  load_tile<6>(weights, kPanel * 4);
  Format::template multiply_add<0, 4, 6>();
  load_tile<7>(weights + kTileBytes, kPanel * 4);
  Format::template multiply_add<1, 4, 7>();
  if constexpr (kTall) {
    load_tile<5>(second, row_stride);
    Format::template multiply_add<2, 5, 6>();
    Format::template multiply_add<3, 5, 7>();
  } else if (second != nullptr) {
    load_tile<6>(second, kPanel * 4);
    Format::template multiply_add<2, 4, 6>();
    load_tile<7>(second + kTileBytes, kPanel * 4);
    Format::template multiply_add<3, 4, 7>();
  }
}

// `count` groups of k, fewer than a tile has, as a whole step: copied, with zeros behind them.
HWY_INLINE void copy_groups(const unsigned char* from, int64_t stride, int64_t rows, int64_t bytes, unsigned char* to,
                            int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r, from += stride, to += to_stride) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    std::memset(to + bytes, 0, static_cast<size_t>(to_stride - bytes));
  }
}

template <typename Format, bool kTall>
HWY_NOINLINE void multiply_tiles(int64_t rows, int64_t panels, const ProductOf<Format>& product) {
  constexpr int64_t kAhead = 4096;  // bytes of each panel, where nothing but its stream is waited for
  constexpr int64_t kStepBytes = kTileSteps * kPanel * 4;
  const bool two = !kTall && panels > 1;
  typename Format::Sum* sums = product.sums;
  typename Format::Sum* more = kTall ? sums + kTileRows * kPanel : sums + product.sums_stride;
  begin_sums<0>(sums, product.accumulate);
  if (kTall || two) begin_sums<2>(more, product.accumulate);

  const auto* a = reinterpret_cast<const unsigned char*>(product.rows);
  const auto* b = reinterpret_cast<const unsigned char*>(product.weights);
  const int64_t a_stride = product.row_stride * Format::kElementBytes, b_stride = product.weights_stride * Format::kElementBytes;
  const unsigned char* next = product.next;
  const int64_t steps = product.steps / kTileSteps;
  for (int64_t s = 0; s < steps; ++s, a += kTileBytes, b += kStepBytes) {
    if constexpr (kTall) {
      for (int64_t i = 0; i < product.next_bytes * kTileSteps; i += 64) __builtin_prefetch(next + i, 0, 2);
      next += product.next_bytes * kTileSteps;
    } else {
      for (int64_t i = 0; i < kStepBytes; i += 64) {
        __builtin_prefetch(b + kAhead + i);
        if (two) __builtin_prefetch(b + b_stride + kAhead + i);
      }
    }
    tile_step<Format, kTall>(a, a_stride, b, kTall ? a + kTileRows * a_stride : two ? b + b_stride : nullptr);
  }
  if (const int64_t left = product.steps % kTileSteps; left > 0) {
    alignas(64) unsigned char row_bytes[2 * kTileRows * kTileBytes], weight_bytes[2 * kStepBytes];
    copy_groups(a, a_stride, rows, left * 4, row_bytes, kTileBytes);
    for (int64_t i = 0; i < (two ? 2 : 1); ++i) {
      std::memcpy(weight_bytes + i * kStepBytes, b + i * b_stride, static_cast<size_t>(left * kPanel * 4));
      std::memset(weight_bytes + i * kStepBytes + left * kPanel * 4, 0, static_cast<size_t>((kTileSteps - left) * kPanel * 4));
    }
    tile_step<Format, kTall>(row_bytes, kTileBytes, weight_bytes,
                             kTall ? row_bytes + kTileRows * kTileBytes : two ? weight_bytes + kStepBytes : nullptr);
  }

  end_sums<0>(sums);
  if (kTall || two) end_sums<2>(more);
}

template <typename Format>
HWY_INLINE void multiply(TileUse& use, int64_t rows, int64_t panels, const ProductOf<Format>& product) {
  if constexpr (kTiled<Format>) {
    use.shape(rows);
    if (rows > kTileRows) {
      multiply_tiles<Format, true>(rows, panels, product);
    } else {
      multiply_tiles<Format, false>(rows, panels, product);
    }
  } else {
    multiply<Format>(rows, panels, product);
  }
}

using GemmBf16 = TiledBf16;
using GemmS8 = TiledS8;
constexpr int kMostRows = kTiledRows;

#else

using GemmBf16 = FormatBf16;
using GemmS8 = FormatS8;
constexpr int kMostRows = kRowTile;  // of any format's largest tile

struct TileUse {
  void end() const {}
};

template <typename Format>
HWY_INLINE void multiply(TileUse&, int64_t rows, int64_t panels, const ProductOf<Format>& product) {
  multiply<Format>(rows, panels, product);
}

#endif

// How rows are cut into tiles: into ones that differ by at most one row, since a last tile of one row would leave the
// multiply-add units waiting; or for AMX into full ones and a rest, as its tiles take as long however few of their rows are
// there.
template <typename Format>
struct RowTiles {
  const int64_t rows, count;  // count: of tiles

  explicit RowTiles(int64_t all) : rows(all), count((all + kMost - 1) / kMost) {}

  // Rows of a tile, `row` of them before it.
  int64_t at(int64_t tile, int64_t row) const {
    if (kTiled<Format>) return rows - row < kMost ? rows - row : kMost;
    return rows / count + (tile < rows % count ? 1 : 0);
  }

  static constexpr int64_t kMost = kTiled<Format> ? kMostRows : kRowTile;
};

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
