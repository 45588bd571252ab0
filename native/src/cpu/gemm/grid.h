// How products on packed weights are cut into blocks, and how rows lie for the microkernels: for the plans of families that use
// them.
#pragma once

#include "cpu/gemm/gemm.h"

namespace gatun::cpu {

// The columns of the largest block of `out` of one task: enough that fetching its rows is a small part of the time. The
// level says how many rows.
inline constexpr int64_t kBlockColumns = 256;

// Enough tasks to keep 64 threads busy to the end, as long as each is worth handing out: at least some 5 to 10 us of
// multiply-adds, against about 1 us for a task and a few for waking a worker.
inline constexpr int64_t kTasks = 128;
inline constexpr int64_t kTaskWork = int64_t{1} << 19;
inline constexpr int64_t kTaskWorkInt8 = int64_t{1} << 20;

inline int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }
inline int64_t round_up(int64_t value, int64_t to) { return ceil_div(value, to) * to; }

// Whether the rows of a tile stay out of each other's way in an L1 cache, whose sets repeat every 4 KB: no two closer
// than 256 bytes, modulo that. At a stride of 4 KB all of them, and the weights, compete for one set.
inline bool spreads_rows(int64_t stride_bytes, int64_t rows) {
  constexpr int64_t kSets = 4096, kApart = 256;
  for (int64_t r = 1; r < rows; ++r) {
    const int64_t apart = r * (stride_bytes % kSets) % kSets;
    if (apart < kApart || apart > kSets - kApart) return false;
  }
  return true;
}

// How `rows` rows by `panels` panels are cut into blocks, at most some `tasks` of them. It depends on sizes alone.
struct Grid {
  int64_t block_rows, block_panels;
  int64_t row_blocks, panel_blocks;

  Grid() = default;
  Grid(const GemmLayout& layout, int32_t format, int64_t rows, int64_t panels, int64_t k, int64_t tasks) {
    // Blocks of equal size, give or take a row tile.
    auto cut_rows = [&](int64_t most) {
      row_blocks = ceil_div(rows, most);
      block_rows = round_up(ceil_div(rows, row_blocks), layout.row_tile);
      row_blocks = ceil_div(rows, block_rows);
    };
    // A single row takes four panels at once.
    const int64_t unit = rows == 1 ? 4 : 1;
    auto cut_panels = [&](int64_t most) {
      panel_blocks = ceil_div(panels, most);
      block_panels = round_up(ceil_div(panels, panel_blocks), unit);
      panel_blocks = ceil_div(panels, block_panels);
    };
    cut_rows(layout.block_rows);
    cut_panels(max_panels(layout));
    // Few rows wait for the weights: they take about as long as four.
    const int64_t task_work = format == GTN_S8 ? kTaskWorkInt8 : kTaskWork;
    auto worth_halving = [&] {
      const int64_t high = block_rows < rows ? block_rows : rows;
      const int64_t depth = k < 16 ? 16 : k;
      return row_blocks * panel_blocks < tasks &&
             (high < 4 ? 4 : high) * block_panels * layout.panel * depth >= 2 * task_work;
    };
    // Panels first, then rows, then the last panels: each costs a little efficiency, in this order.
    while (block_panels > unit && block_panels * layout.panel > 64 && worth_halving()) {
      cut_panels(ceil_div(block_panels, 2));
    }
    while (block_rows > 2 * layout.row_tile && worth_halving()) cut_rows(ceil_div(block_rows, 2));
    while (block_panels > unit && worth_halving()) cut_panels(ceil_div(block_panels, 2));
  }

  static int64_t max_panels(const GemmLayout& layout) {
    const int64_t panels = kBlockColumns / layout.panel;
    return panels < 4 ? 4 : panels;
  }
};

}  // namespace gatun::cpu
