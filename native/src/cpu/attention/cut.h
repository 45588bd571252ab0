// How the queries of a sequence and head are cut into tiles.
#pragma once

#include "cpu/attention/pattern.h"

namespace gatun::cpu {

// Slots of queries that tiles do not cross the ends of. No two segments of a sequence share a slot. Slot s is query
// first_query + (s - first_slot) * query_step, or that of the order.
struct Segment {
  int64_t first_slot, slots;
  int64_t first_query, query_step;
  bool globals;  // the global tokens, which the other segments then leave out
};

// How the queries of one sequence and head are cut into tiles: into segments, and these into tile_rows rows each. The
// segments are blocks of queries, or the classes of positions modulo the dilation, whose keys are a class as well, and
// the global tokens. All but the last block have one number of tiles, so that a tile's segment is found without a
// search.
class TileCut {
 public:
  // block: queries of a block, or 0; globals: queries that get tiles of their own.
  TileCut(int64_t len_q, int64_t block, int64_t dilation, int64_t globals, int64_t group, int64_t tile_rows)
      : len_q_(len_q), block_(block), globals_(globals), group_(group), tile_rows_(tile_rows) {
    if (len_q == 0) return;
    segments_ = block > 0 ? ceil_div(len_q, block) : at_most(dilation, len_q);
    longer_ = block > 0 ? len_q / block : len_q % segments_;
    slots_ = block > 0 ? len_q % block : len_q / segments_;
    long_tiles_ = tiles_of(block > 0 ? block : slots_ + 1);
    short_tiles_ = tiles_of(slots_);
  }

  int64_t tiles() const { return longer_ * long_tiles_ + (segments_ - longer_) * short_tiles_ + tiles_of(globals_); }

  // The segment of a tile, and the tile's first row in it. Global tokens come first, as their tiles see all keys, and the tiles
  // of a segment from its end: with a causal mask those are the long ones. The short ones then fill up the gaps between the
  // workers.
  Segment find(int64_t tile, int64_t* first_row) const {
    int64_t index, tiles = tiles_of(globals_);
    if (tile < tiles) {
      *first_row = (tiles - 1 - tile) * tile_rows_;
      return {len_q_, globals_, 0, 1, true};
    }
    tile -= tiles;
    if (tile < longer_ * long_tiles_) {
      index = tile / long_tiles_;
      tiles = long_tiles_;
      tile %= tiles;
    } else {
      tile -= longer_ * long_tiles_;
      index = longer_ + tile / short_tiles_;
      tiles = short_tiles_;
      tile %= tiles;
    }
    *first_row = (tiles - 1 - tile) * tile_rows_;
    if (block_ > 0) return {index * block_, index < longer_ ? block_ : slots_, index * block_, 1, false};
    const bool is_long = index < longer_;
    return {index * slots_ + (is_long ? index : longer_), is_long ? slots_ + 1 : slots_, index, segments_, false};
  }

  int64_t tile_rows() const { return tile_rows_; }

 private:
  int64_t tiles_of(int64_t slots) const { return ceil_div(slots * group_, tile_rows_); }

  const int64_t len_q_, block_, globals_, group_, tile_rows_;
  int64_t segments_ = 0, longer_ = 0, slots_ = 0;  // of the segments the first `longer_` are the longer ones
  int64_t long_tiles_ = 0, short_tiles_ = 0;
};

}  // namespace gatun::cpu
