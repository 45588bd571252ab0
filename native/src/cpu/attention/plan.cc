// Attention plans: what the arguments mean, which tiles there are and what each of them looks at.
#include "cpu/attention/attention.h"

#include <cstring>
#include <initializer_list>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// Fewer operations than this (some tens of microseconds) are not worth another worker: tiles are handed out in batches
// of about as many. Reading a byte of K or V from memory takes as long as some operations.
constexpr double kTaskFlops = 1 << 21;
constexpr double kFlopsPerByte = 4;

// Tiles shrink, down to kLeastTileRows, until a run has this many, so that few heads still fill a processor.
constexpr int64_t kWantedTiles = 64;
constexpr int64_t kLeastTileRows = 32;

constexpr int64_t kAlignment = 64;

// Beyond these no index or size here is sure to fit 63 bits.
constexpr int64_t kMostElements = int64_t{1} << 40;
constexpr int64_t kMostHeadSize = int64_t{1} << 16;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// An element of an array that may be null when it is empty.
const char* at(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + bytes;
}

// The sum over query = 0 to n - 1 of clamp(query + shift, 0, top), in closed form: zeros, then a ramp, then a plateau.
double sum_clamped(int64_t n, int64_t shift, int64_t top) {
  const int64_t ramp = shift < 0 ? (-shift < n ? -shift : n) : 0;  // the first query with query + shift >= 0
  int64_t plateau = top - shift;                                   // the first query with query + shift >= top
  plateau = plateau < ramp ? ramp : (plateau > n ? n : plateau);
  const double steps = static_cast<double>(plateau - ramp);
  const double ends = static_cast<double>(ramp + shift) + static_cast<double>(plateau - 1 + shift);
  return (steps > 0 ? steps * ends / 2 : 0.0) + static_cast<double>(n - plateau) * static_cast<double>(top);
}

// Pairs of a query and a key that it sees.
double visible_pairs(const AttentionMask& mask) {
  const int64_t shift = mask.len_k - mask.len_q;
  const double dense = static_cast<double>(mask.len_q) * static_cast<double>(mask.len_k);
  const double last = mask.right < 0 ? dense : sum_clamped(mask.len_q, shift + mask.right + 1, mask.len_k);
  const double first = mask.left < 0 ? 0.0 : sum_clamped(mask.len_q, shift - mask.left, mask.len_k);
  return last - first;
}

// The list of the analytic patterns: the range that any row of the tile sees, cut into blocks, of which those inside
// the range that every row sees are full.
int64_t fill_blocks(const AttentionMask& mask, int64_t first_query, int64_t last_query, const AttentionTiling& tiling,
                    KeyBlock* blocks) {
  const KeyRange head = visible_keys(mask, first_query);
  const KeyRange tail = visible_keys(mask, last_query);
  const int64_t range = tail.last - head.first;
  if (range <= 0) return 0;
  // Even blocks: a short one at the end would cost its share of the softmax's fixed work for few keys.
  const int64_t even = ceil_div(range, ceil_div(range, tiling.block_keys));
  const int64_t size = ceil_div(even, tiling.key_step) * tiling.key_step;
  int64_t count = 0;
  for (int64_t key = head.first; key < tail.last; key += size) {
    const int64_t keys = tail.last - key < size ? tail.last - key : size;
    const bool full = key >= tail.first && key + keys <= head.last;
    blocks[count++] = {key, static_cast<int32_t>(keys), full ? 0 : 1};
  }
  return count;
}

struct Strides {
  int64_t sequence, row, head;
};

Strides strides_of(const gtn_tensor_desc& tensor) {
  if (tensor.rank == 4) return {tensor.strides[0], tensor.strides[1], tensor.strides[2]};
  return {0, tensor.strides[0], tensor.strides[1]};
}

double elements_of(const gtn_tensor_desc& tensor) {
  double elements = 1;
  for (int32_t d = 0; d < tensor.rank; ++d) elements *= static_cast<double>(tensor.shape[d]);
  return elements;
}

class AttentionPlan final : public Plan {
 public:
  AttentionPlan(const Device& device, const gtn_attention_desc& desc)
      : device_(device),
        packed_(desc.q.rank == 3),
        bf16_(desc.q.dtype == GTN_BF16),
        scale_(desc.scale),
        q_(strides_of(desc.q)),
        k_(strides_of(desc.k)),
        v_(strides_of(desc.v)),
        out_(strides_of(desc.out)),
        sequences_(packed_ ? desc.max_sequences : desc.q.shape[0]),
        len_q_(desc.q.shape[packed_ ? 0 : 1]),
        len_k_(desc.k.shape[packed_ ? 0 : 1]),
        heads_q_(desc.q.shape[packed_ ? 1 : 2]),
        heads_k_(desc.k.shape[packed_ ? 1 : 2]),
        group_(heads_k_ > 0 ? heads_q_ / heads_k_ : 0),
        dk_(desc.q.shape[packed_ ? 2 : 3]),
        dv_(desc.v.shape[packed_ ? 2 : 3]),
        tiling_(device.level->kernels->attention->tiling(dk_, dv_)) {
    // A window that reaches over all keys from anywhere is no window.
    const int64_t reach = len_q_ + len_k_;
    left_ = desc.window_left < reach ? desc.window_left : -1;
    right_ = desc.window_right < reach ? desc.window_right : -1;
    list_bytes_ = aligned((len_k_ / tiling_.block_keys + 2) * static_cast<int64_t>(sizeof(KeyBlock)));
  }

  void describe(const gtn_attention_desc& desc, gtn_plan_info* info) const {
    name_kernel(info, device_, bf16_ ? "attention.bf16" : "attention.f32");
    // Packed, the most work is one sequence of all tokens.
    const double copies = packed_ ? (sequences_ > 0 ? 1.0 : 0.0) : static_cast<double>(sequences_);
    info->flops = 2.0 * copies * visible_pairs({left_, right_, len_q_, len_k_}) * static_cast<double>(dk_ + dv_) *
                  static_cast<double>(heads_q_);
    info->bytes = (elements_of(desc.q) + elements_of(desc.k) + elements_of(desc.v) + elements_of(desc.out)) *
                  (bf16_ ? 2.0 : 4.0);
    info->workspace_bytes = workspace_bytes(sequences_ < kMostElements ? sequences_ : kMostElements);
  }

  gtn_status run(Stream& stream, const void* args, gtn_message* message) const override {
    gtn_attention_args a = *static_cast<const gtn_attention_args*>(args);
    if (a.sequences > kMostElements) {
      return fail(message, GTN_UNSUPPORTED, "sequences: is %lld, this backend takes up to 2^40",
                  static_cast<long long>(a.sequences));
    }
    const int64_t array_bytes = per_sequence_bytes(a.sequences);
    char* workspace = static_cast<char*>(stream.scratch(workspace_bytes(a.sequences)));
    if (workspace == nullptr) {
      return fail(message, GTN_OUT_OF_MEMORY, "no memory for %lld bytes of workspace",
                  static_cast<long long>(workspace_bytes(a.sequences)));
    }
    // The indices are copied and the copies checked: another thread may write to the originals while the run reads.
    a.q_index = copy_index(a.q_index, a.sequences, workspace + array_bytes);
    a.k_index = copy_index(a.k_index, a.sequences, workspace + 2 * array_bytes);
    const gtn_status status = check_index(a, message);
    if (status != GTN_OK) return status;

    // first_tile[s]: the number of tiles of the sequences before s, over all key heads.
    int64_t* first_tile = reinterpret_cast<int64_t*>(workspace);
    int64_t tile_rows = tiling_.tile_rows;
    int64_t tiles = count_tiles(a, tile_rows, first_tile);
    while (tiles < kWantedTiles && tile_rows > kLeastTileRows) {
      tile_rows = tile_rows / 2 < kLeastTileRows ? kLeastTileRows : tile_rows / 2;
      tiles = count_tiles(a, tile_rows, first_tile);
    }
    if (tiles == 0) return GTN_OK;

    const int64_t batch = tiles_per_task(a, first_tile);
    parallel(device_.threads, ceil_div(tiles, batch), [&](int64_t task, int worker) {
      char* scratch = workspace + 3 * array_bytes + worker * (list_bytes_ + tiling_.scratch_bytes);
      const int64_t end = (task + 1) * batch < tiles ? (task + 1) * batch : tiles;
      for (int64_t tile = task * batch; tile < end; ++tile) run_tile(a, first_tile, tile_rows, tile, scratch);
    });
    return GTN_OK;
  }

 private:
  struct Sequence {
    int64_t first_q, len_q, first_k, len_k;
  };

  Sequence sequence(const gtn_attention_args& a, int64_t s) const {
    if (packed_) {
      return {a.q_index[s], a.q_index[s + 1] - a.q_index[s], a.k_index[s], a.k_index[s + 1] - a.k_index[s]};
    }
    return {0, a.q_index != nullptr ? a.q_index[s] : a.len_q, 0, a.k_index != nullptr ? a.k_index[s] : a.len_k};
  }

  // An array with an entry for each sequence, and one more.
  static int64_t per_sequence_bytes(int64_t sequences) {
    return aligned((sequences + 1) * static_cast<int64_t>(sizeof(int64_t)));
  }

  // The first tiles and the copies of the indices, then each worker's list of blocks and tile.
  int64_t workspace_bytes(int64_t sequences) const {
    return 3 * per_sequence_bytes(sequences) + device_.threads * (list_bytes_ + tiling_.scratch_bytes);
  }

  const int64_t* copy_index(const int64_t* index, int64_t sequences, char* to) const {
    if (index == nullptr) return nullptr;
    std::memcpy(to, index, static_cast<size_t>(sequences + (packed_ ? 1 : 0)) * sizeof *index);
    return reinterpret_cast<const int64_t*>(to);
  }

  gtn_status check_index(const gtn_attention_args& a, gtn_message* message) const {
    const gtn_status status = check_index("q_index", a.q_index, "len_q", a.len_q, a.sequences, message);
    return status != GTN_OK ? status : check_index("k_index", a.k_index, "len_k", a.len_k, a.sequences, message);
  }

  gtn_status check_index(const char* name, const int64_t* index, const char* limit_name, int64_t limit,
                         int64_t sequences, gtn_message* message) const {
    if (index == nullptr) return GTN_OK;
    if (packed_ && index[0] != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s[0] is %lld, expected 0, where the first sequence starts", name,
                  static_cast<long long>(index[0]));
    }
    for (int64_t s = 0; s < sequences; ++s) {
      const int64_t i = packed_ ? s + 1 : s;
      const int64_t least = packed_ ? index[s] : 0;
      if (index[i] >= least && index[i] <= limit) continue;
      return fail(message, GTN_INVALID_ARGUMENT, "%s[%lld] is %lld, expected %s%lld to %s = %lld", name,
                  static_cast<long long>(i), static_cast<long long>(index[i]),
                  packed_ ? "an offset that does not fall, " : "a length of ", static_cast<long long>(least),
                  limit_name, static_cast<long long>(limit));
    }
    return GTN_OK;
  }

  int64_t count_tiles(const gtn_attention_args& a, int64_t tile_rows, int64_t* first_tile) const {
    int64_t tiles = 0;
    for (int64_t s = 0; s < a.sequences; ++s) {
      first_tile[s] = tiles;
      tiles += ceil_div(sequence(a, s).len_q * group_, tile_rows) * heads_k_;
    }
    first_tile[a.sequences] = tiles;
    return tiles;
  }

  // From the shapes alone, so that the same call is cut in the same way for any number of threads.
  int64_t tiles_per_task(const gtn_attention_args& a, const int64_t* first_tile) const {
    const double width = static_cast<double>(dk_ + dv_);
    double flops = 1;
    for (int64_t s = 0; s < a.sequences; ++s) {
      const Sequence of = sequence(a, s);
      if (of.len_q == 0) continue;
      // A pair costs its products and sums and about 16 operations of softmax; a tile reads the keys of its queries.
      const double pairs = visible_pairs({left_, right_, of.len_q, of.len_k});
      const double keys = pairs / static_cast<double>(of.len_q);
      flops += pairs * static_cast<double>(heads_q_) * (2 * width + 16);
      flops += static_cast<double>(first_tile[s + 1] - first_tile[s]) * keys * width * (bf16_ ? 2 : 4) * kFlopsPerByte;
    }
    const int64_t tiles = first_tile[a.sequences];
    const double batch = kTaskFlops / flops * static_cast<double>(tiles);
    return batch <= 1.0 ? 1 : (batch >= static_cast<double>(tiles) ? tiles : static_cast<int64_t>(batch));
  }

  // A decode step of few sequences over long caches makes few tiles, each of one pass over all keys: cutting those
  // passes into parts that are merged by their log-sum-exp (split-KV) belongs here, between the tiles and their lists.
  void run_tile(const gtn_attention_args& a, const int64_t* first_tile, int64_t tile_rows, int64_t tile,
                char* scratch) const {
    int64_t s = 0, after = a.sequences;  // first_tile[s] <= tile < first_tile[after]
    while (after - s > 1) {
      const int64_t middle = s + (after - s) / 2;
      (first_tile[middle] <= tile ? s : after) = middle;
    }
    const Sequence of = sequence(a, s);
    const int64_t rows = of.len_q * group_;
    const int64_t per_head = ceil_div(rows, tile_rows);
    const int64_t head = (tile - first_tile[s]) / per_head;
    // The tiles of a head from its end: with a causal mask those are the long ones, and the short ones then fill up the
    // gaps between the workers.
    const int64_t part = per_head - 1 - (tile - first_tile[s]) % per_head;
    const int64_t size = bf16_ ? 2 : 4;
    const int64_t b = packed_ ? 0 : s;

    AttentionTile t;
    t.q = at(a.q, (b * q_.sequence + of.first_q * q_.row + head * group_ * q_.head) * size);
    t.k = of.len_k == 0 ? nullptr : at(a.k, (b * k_.sequence + of.first_k * k_.row + head * k_.head) * size);
    t.v = of.len_k == 0 ? nullptr : at(a.v, (b * v_.sequence + of.first_k * v_.row + head * v_.head) * size);
    const int64_t to = b * out_.sequence + of.first_q * out_.row + head * group_ * out_.head;
    t.out = const_cast<char*>(at(a.out, to * size));
    t.lse = nullptr;
    if (a.lse != nullptr) {
      const int64_t first = packed_ ? head * group_ * len_q_ + of.first_q : (s * heads_q_ + head * group_) * len_q_;
      t.lse = static_cast<float*>(a.lse) + first;
    }
    t.q_row = q_.row;
    t.q_head = q_.head;
    t.k_row = k_.row;
    t.v_row = v_.row;
    t.out_row = out_.row;
    t.out_head = out_.head;
    t.lse_head = len_q_;
    t.dk = dk_;
    t.dv = dv_;
    t.group = group_;
    t.first_row = part * tile_rows;
    t.rows = rows - t.first_row < tile_rows ? rows - t.first_row : tile_rows;
    t.scale = scale_;
    t.mask = {left_, right_, of.len_q, of.len_k};
    KeyBlock* blocks = reinterpret_cast<KeyBlock*>(scratch);
    t.blocks = blocks;
    t.block_count = fill_blocks(t.mask, t.first_row / group_, (t.first_row + t.rows - 1) / group_, tiling_, blocks);
    const AttentionKernels& kernels = *device_.level->kernels->attention;
    (bf16_ ? kernels.bf16 : kernels.f32)(t, scratch + list_bytes_);
  }

  const Device& device_;
  const bool packed_, bf16_;
  const float scale_;
  const Strides q_, k_, v_, out_;
  const int64_t sequences_, len_q_, len_k_, heads_q_, heads_k_, group_, dk_, dv_;
  const AttentionTiling tiling_;
  int64_t left_, right_;
  int64_t list_bytes_;  // of a worker's list of key blocks
};

}  // namespace

gtn_status attention_plan(const Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message) {
  if (desc.q.dtype != GTN_F32 && desc.q.dtype != GTN_BF16) {
    return fail(message, GTN_UNSUPPORTED, "q has dtype %d, expected GTN_F32 or GTN_BF16", desc.q.dtype);
  }
  for (const gtn_tensor_desc* tensor : {&desc.q, &desc.k, &desc.v}) {
    for (int32_t d = 0; d < tensor->rank; ++d) {
      const int64_t most = d == tensor->rank - 1 ? kMostHeadSize : kMostElements;
      if (tensor->shape[d] <= most) continue;
      return fail(message, GTN_UNSUPPORTED, "%s.shape[%d]: is %lld, this backend takes up to %lld",
                  tensor == &desc.q ? "q" : tensor == &desc.k ? "k" : "v", d, static_cast<long long>(tensor->shape[d]),
                  static_cast<long long>(most));
    }
  }
  AttentionPlan* created = new (std::nothrow) AttentionPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
