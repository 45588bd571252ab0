// Selection of blocks of keys by their importance, and what all selection ends with: lists put one after the other.
//
//   pool_c = mean of the keys of block c, or their greatest elements and after those the least
//   weight of block c for a query = softmax over the blocks that it reaches of scale * q.pool_c
//   importance of block c = sum of its weights over the queries of a block and the heads of the list
//
// Bounds come down to the same product at twice the depth: the sum of max(q_d least_d, q_d greatest_d) is max(q, 0).greatest +
// min(q, 0).least.
//
// Bytes: keys are read once, and queries once for each block of 64 pooled blocks. FLOPs: 2 dk for each query, head and block
// (twice that with bounds) and some 20 for its softmax, 1 / block_k of dense attention's. What binds it: FP32
// multiplications. They are not left to the matrix units, since blocks of near importance would change places with the
// rounding of their operands; at 64 keys to a block this is 1/128 of the attention that it spares on units 16 times as fast.
// Products lie in workspace that the L2 cache holds, 64 rows for each block of threads. The choice is the best of the rest,
// `count` times; its time goes with count times blocks.
//
// Yuan et al. 2025, Native Sparse Attention (section 3.3.2); bounds: Tang et al. 2024, Quest (section 3.3).
#include "select/kernels.h"

#include "select/tile.h"

namespace gatun::gpu {
namespace {

using namespace select;

template <typename X>
GPU_KERNEL(kSelectThreads, 1) void pool_keys(const SelectArgs a) {
  const int block = block_x() % a.pool_blocks, at = block_x() / a.pool_blocks, s = at / a.heads_k;
  const Sequence of = sequence_of(a, s);
  const int64_t first = static_cast<int64_t>(block) * a.pool_keys;
  if (first >= of.len_k) return;
  const int keys = static_cast<int>(least_of(a.pool_keys, of.len_k - first));
  float* to = a.pools + block_x() * (a.bounds != 0 ? int64_t{2} : int64_t{1}) * a.dk;
  for (int d = thread(); d < a.dk; d += kSelectThreads) {
    const X* from = k_row<X>(a, s, of, at % a.heads_k, first) + d;
    float sum = 0.0f, least = infinity(), greatest = -infinity();
    for (int j = 0; j < keys; ++j) {
      const float v = to_float(from[j * a.k_row]);
      sum += v;
      least = v < least ? v : least;
      greatest = v > greatest ? v : greatest;
    }
    to[d] = a.bounds != 0 ? greatest : sum / static_cast<float>(keys);
    if (a.bounds != 0) to[a.dk + d] = least;
  }
}

// Rows of a list are its queries, each with the query heads that share the list.
struct List {
  int sequence, head, first_query, queries, group;
  Sequence of;
};

GPU_DEVICE List list_of(const SelectArgs& a, int64_t index) {
  List l;
  const int at = static_cast<int>(index / a.lists);
  l.sequence = at / a.heads;
  l.head = at % a.heads;
  l.of = sequence_of(a, l.sequence);
  l.first_query = static_cast<int>(least_of(index % a.lists * a.block_q, l.of.len_q));
  l.queries = least_of(a.block_q, l.of.len_q - l.first_query);
  l.group = a.heads_q / a.heads;
  return l;
}

GPU_DEVICE int reached(const SelectArgs& a, const Sequence& of, int query) {
  const int keys = visible(a, of, query);
  return keys / a.block_k + (keys % a.block_k != 0 ? 1 : 0);
}

// The softmax of a row of products, in its place, by a warp.
GPU_DEVICE void soften(float* products, int n) {
  float most = -infinity();
  for (int c = lane(); c < n; c += kWarp) most = greater_of(most, products[c]);
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) most = greater_of(most, shuffle_xor(most, mask));
  float sum = 0.0f;
  for (int c = lane(); c < n; c += kWarp) {
    const float weight = exp_nonpositive(products[c] - most);
    products[c] = weight;
    sum += weight;
  }
  const float share = 1.0f / warp_sum(sum);
  for (int c = lane(); c < n; c += kWarp) products[c] *= share;
}

template <typename X>
GPU_DEVICE void weigh_blocks(const SelectArgs& a, const List& l, int blocks, float* products, float* importance) {
  const int depth = a.bounds != 0 ? 2 * a.dk : a.dk, rows = l.queries * l.group;
  const int key_head = l.head * l.group / (a.heads_q / a.heads_k);
  const float* pools = a.pools + (static_cast<int64_t>(l.sequence) * a.heads_k + key_head) * a.pool_blocks * depth;
  for (int c = thread(); c < blocks; c += kSelectThreads) importance[c] = 0.0f;
  for (int first = 0; first < rows; first += kTile) {
    const auto query_of = [&](int r) { return l.first_query + (first + r) / l.group; };
    const auto row_at = [&](int r, int d) {
      if (first + r >= rows) return 0.0f;
      const X* row = q_row<X>(a, l.sequence, l.of, l.head * l.group + (first + r) % l.group, query_of(r));
      if (a.bounds == 0) return to_float(row[d]);
      const float v = to_float(row[d < a.dk ? d : d - a.dk]);
      return d < a.dk ? (v < 0.0f ? 0.0f : v) : (v > 0.0f ? 0.0f : v);
    };
    for (int from = 0; from < blocks; from += kTile) {
      const auto column_at = [&](int c, int d) {
        return from + c < blocks ? pools[static_cast<int64_t>(from + c) * depth + d] : 0.0f;
      };
      float sums[kOwn][kOwn];
      multiply<false>(depth, row_at, column_at, sums);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
          products[static_cast<int64_t>(own_row() + i) * a.stride + from + own_column() + j] = a.scale * sums[i][j];
        }
      }
    }
    sync_threads();
    const int there = least_of(kTile, rows - first);
    for (int r = warp(); r < there; r += kSelectThreads / kWarp) {
      soften(products + static_cast<int64_t>(r) * a.stride, reached(a, l.of, query_of(r)));
    }
    sync_threads();
    for (int c = thread(); c < blocks; c += kSelectThreads) {
      float sum = importance[c];
      for (int r = 0; r < there; ++r) {
        if (c < reached(a, l.of, query_of(r))) sum += products[static_cast<int64_t>(r) * a.stride + c];
      }
      importance[c] = sum;
    }
    sync_threads();
  }
}

template <typename X>
GPU_KERNEL(kSelectThreads, 1) void weigh(const SelectArgs a) {
  Team<kSelectThreads> team;
  float* importance = a.importance + block_x() * static_cast<int64_t>(a.stride);
  const int64_t lists = static_cast<int64_t>(a.sequences) * a.heads * a.lists;
  for (int64_t index = block_x(); index < lists; index += grid_x()) {
    const List l = list_of(a, index);
    const int blocks = l.queries > 0 ? reached(a, l.of, l.first_query + l.queries - 1) : 0;
    const int first = least_of(a.first, blocks), local = least_of(a.local, blocks - first);
    const int among = blocks - first - local, wanted = least_of(a.count, blocks) - first - local;
    Best last = {-infinity(), kNone};  // all of them
    if (wanted > 0 && wanted < among) {
      weigh_blocks<X>(a, l, blocks, a.products + block_x() * static_cast<int64_t>(kTile) * a.stride, importance);
      for (int c = thread(); c < blocks; c += kSelectThreads) {
        if (importance[c] != importance[c]) importance[c] = -1.0f;  // less than any
      }
      sync_threads();
      last = before_all();
      for (int i = 0; i < wanted; ++i) last = team.next(importance + first, among, last);
    }
    int32_t* to = a.columns + index * a.width;
    int count = 0;
    for (int base = 0; base < blocks; base += kSelectThreads) {
      const int b = base + thread();
      bool taken = b < first || (b >= blocks - local && b < blocks);
      if (!taken && b < blocks && wanted > 0) {
        taken = wanted == among || !before(last, {importance[b], b - first});
      }
      const int already = count, place = team.rank(taken, &count);
      if (taken) to[already + place] = b;
    }
    if (thread() == 0) a.counts[index] = count;
    sync_threads();  // the importance is read no more
  }
}

// The lengths of all lists, added up.
GPU_KERNEL(kSelectOffsetThreads, 1) void add_lengths(const SelectArgs a) {
  constexpr int kWarps = kSelectOffsetThreads / kWarp;
  const int64_t lists = static_cast<int64_t>(a.sequences) * a.heads * a.lists;
  int32_t* space = reinterpret_cast<int32_t*>(shared());
  int64_t base = 0;
  if (thread() == 0) a.block_offsets[0] = 0;
  for (int64_t first = 0, turn = 0; first < lists; first += kSelectOffsetThreads, turn ^= 1) {
    const int64_t list = first + thread();
    int32_t up_to = list < lists ? a.counts[list] : 0;
#pragma unroll
    for (int n = 1; n < kWarp; n *= 2) {
      const int32_t other = shuffle_up(up_to, n);
      if (lane() >= n) up_to += other;
    }
    int32_t* place = space + turn * kWarps;
    if (lane() == kWarp - 1) place[warp()] = up_to;
    sync_threads();
    int64_t before_mine = 0, all = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp()) before_mine = all;
      all += place[w];
    }
    if (list < lists) a.block_offsets[list + 1] = base + before_mine + up_to;
    base += all;
  }
}

GPU_KERNEL(kSelectThreads, 1) void copy_lists(const SelectArgs a) {
  const int64_t list = static_cast<int64_t>(block_x()) * (kSelectThreads / kWarp) + warp();
  if (list >= static_cast<int64_t>(a.sequences) * a.heads * a.lists) return;
  // Others may write to the offsets meanwhile: where a list goes is never beyond its room.
  const int32_t count = a.counts[list];
  const int64_t most = list * a.width, start = a.block_offsets[list];
  const int64_t to = start < 0 ? 0 : start > most ? most : start;
  for (int i = lane(); i < count; i += kWarp) {
    a.block_columns[to + i] = a.columns[most + i];
    if (a.biases != nullptr) a.block_bias[to + i] = a.biases[most + i];
  }
}

}  // namespace

SelectKernel select_pool_kernel(int type) {
  return type == 0 ? pool_keys<float> : type == 1 ? pool_keys<Bf16> : pool_keys<Half>;
}
SelectKernel select_weigh_kernel(int type) { return type == 0 ? weigh<float> : type == 1 ? weigh<Bf16> : weigh<Half>; }
SelectKernel select_offsets_kernel() { return add_lengths; }
SelectKernel select_copy_kernel() { return copy_lists; }

int select_tile_bytes() { return kTileAt + kTileBytes; }
int select_offsets_bytes() { return 2 * (kSelectOffsetThreads / kWarp) * 4; }

}  // namespace gatun::gpu
