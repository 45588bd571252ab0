// Attention plans: what the arguments mean, which tiles there are and what each of them looks at.
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "core/message.h"
#include "cpu/attention/call.h"
#include "cpu/attention/cut.h"
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

// Rows of a tile that share their labels are a tile of their own from so many on.
constexpr int64_t kAlikeRows = 16;

// Few rows over many keys make few tiles, each of one long pass over the keys (decode): such passes are cut into parts
// of this many blocks or more, which are merged by their log-sum-exps (split-KV, as in Flash-Decoding). It depends on
// the sequence alone, so that its result does not depend on what else is in the batch. The same part of all heads comes
// before the next one: their keys lie side by side, in pages whose addresses the TLB then still has.
constexpr int64_t kSplitRows = 64;
constexpr int64_t kPartBlocks = 4;
constexpr int64_t kMostParts = 64;

// Beyond these no index or size here is sure to fit 63 bits.
constexpr int64_t kMostElements = int64_t{1} << 40;
constexpr int64_t kMostHeadSize = int64_t{1} << 16;
constexpr int64_t kMostPositions = int64_t{1} << 31;  // where 32-bit numbers name them

int64_t element_bytes(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2; }

const char* short_name(int32_t dtype) {
  switch (dtype) {
    case GTN_F32: return "f32";
    case GTN_BF16: return "bf16";
    case GTN_F16: return "f16";
    default: return "s8";
  }
}

// An element of an array that may be null when it is empty.
const char* at(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + bytes;
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

// `patterns` has a pattern for each of desc.patterns.
Shape shape_of(const gtn_attention_desc& desc, Pattern* patterns) {
  Shape shape = {};
  shape.packed = desc.q.rank == 3;
  shape.paged = desc.paged != 0;
  shape.desc = desc;
  shape.desc.patterns = nullptr;  // the caller's
  shape.sequences = shape.packed ? desc.max_sequences : desc.q.shape[0];
  shape.len_q = desc.q.shape[desc.q.rank - 3];
  shape.len_k = shape.paged ? desc.max_len_k : desc.k.shape[desc.k.rank - 3];
  shape.heads_q = desc.q.shape[desc.q.rank - 2];
  shape.heads_k = desc.k.shape[desc.k.rank - 2];
  shape.per_key_head = shape.heads_q / shape.heads_k;
  shape.pages = shape.paged ? desc.k.shape[0] : 0;
  shape.page_size = shape.paged ? desc.k.shape[1] : 1;
  for (int64_t h = 0; h < desc.pattern_count; ++h) {
    const auto* given = reinterpret_cast<const char*>(desc.patterns) + h * desc.patterns->size;
    patterns[h] = pattern_of(*reinterpret_cast<const gtn_attention_pattern*>(given), shape.len_q, shape.len_k);
    shape.masks |= patterns[h].masks;
  }
  shape.patterns = patterns;
  shape.one_pattern = desc.pattern_count == 1;
  // Query heads of a key head share tiles where they share everything that decides what they see.
  const auto shared = [&](int64_t heads) { return heads < shape.heads_q || shape.per_key_head == 1; };
  bool share = (!shape.lists() || shared(desc.block_heads)) && (!shape.ordered() || shared(desc.order_heads)) &&
               (!shape.documents() || shared(desc.document_heads));
  for (int64_t h = 0; share && !shape.one_pattern && h < shape.heads_q; ++h) {
    share = patterns[h] == patterns[h / shape.per_key_head * shape.per_key_head];
  }
  shape.group = share ? shape.per_key_head : 1;
  shape.units = shape.heads_q / shape.group;
  if (shape.documents()) {
    shape.label_heads = desc.document_heads;
    if (shape.ordered() && desc.order_heads > shape.label_heads) shape.label_heads = desc.order_heads;
  }
  return shape;
}

class AttentionPlan final : public Plan {
 public:
  AttentionPlan(const Device& device, const gtn_attention_desc& desc, Pattern* patterns)
      : device_(device),
        patterns_(patterns),
        shape_(shape_of(desc, patterns)),
        q_dtype_(desc.q.dtype),
        k_dtype_(desc.k.dtype),
        v_dtype_(desc.v.dtype),
        out_dtype_(desc.out.dtype),
        q_(strides_of(desc.q)),
        k_(strides_of(desc.k)),
        v_(strides_of(desc.v)),
        out_(strides_of(desc.out)),
        dk_(desc.q.shape[desc.q.rank - 1]),
        dv_(desc.v.shape[desc.v.rank - 1]),
        tiling_(device.level->kernels->attention->tiling(dk_, dv_)),
        list_bytes_((3 * tiling_.block_keys * static_cast<int64_t>(sizeof(int32_t)) + 63) / 64 * 64),
        scratch_bytes_(list_bytes_ + tiling_.scratch_bytes) {}

  ~AttentionPlan() override { delete[] patterns_; }

  void describe(const gtn_attention_desc& desc, gtn_plan_info* info) const {
    char name[48];
    std::snprintf(name, sizeof name, "attention.%s%s%s%s%s%s", short_name(q_dtype_), k_dtype_ != q_dtype_ ? "." : "",
                  k_dtype_ != q_dtype_ ? short_name(k_dtype_) : "", shape_.paged ? ".paged" : "",
                  shape_.ordered() ? ".ordered" : "", shape_.lists() ? ".blocks" : "");
    name_kernel(info, device_, name);
    // Packed, the most work is one sequence of all tokens.
    const double copies = shape_.packed ? (shape_.sequences > 0 ? 1.0 : 0.0) : static_cast<double>(shape_.sequences);
    double pairs = 0, blocks = 0;
    for (int64_t h = 0; h < (shape_.one_pattern ? 1 : shape_.heads_q); ++h) {
      const double heads = shape_.one_pattern ? static_cast<double>(shape_.heads_q) : 1.0;
      pairs += heads * head_pairs(shape_.pattern(h));
    }
    for (int64_t unit = 0; unit < (shape_.one_pattern ? 1 : shape_.units); ++unit) {
      blocks += (shape_.one_pattern ? static_cast<double>(shape_.units) : 1.0) *
                count_blocks(shape_.pattern(unit * shape_.group));
    }
    info->flops = 2.0 * copies * pairs * static_cast<double>(dk_ + dv_);
    double bytes = elements_of(desc.q) * static_cast<double>(element_bytes(q_dtype_)) +
                   elements_of(desc.out) * static_cast<double>(element_bytes(out_dtype_));
    bytes += elements_of(desc.k) * static_cast<double>(element_bytes(k_dtype_)) +
             elements_of(desc.v) * static_cast<double>(element_bytes(v_dtype_));
    info->bytes = bytes;
    info->blocks = copies * blocks < 9e18 ? static_cast<int64_t>(copies * blocks) : INT64_MAX;
    gtn_attention_args most = {};
    most.sequences = at_most(shape_.sequences, kMostElements);
    most.len_q = shape_.len_q;
    most.len_k = shape_.len_k;
    Workspace space(nullptr);
    const Sequence longest = {0, at_most(shape_.len_q, kSplitRows / shape_.group), 0, shape_.len_k};
    int64_t partial = shape_.one_pattern ? times(shape_.units, partial_floats_of(longest, 0)) : 0;
    for (int64_t unit = 0; !shape_.one_pattern && unit < shape_.units; ++unit) {
      partial = at_most(partial + partial_floats_of(longest, unit), INT64_MAX / 2);
    }
    info->workspace_bytes =
        shape_.lay_out(&space, most, shape_.desc.max_blocks, worker_bytes(), times(most.sequences, partial), nullptr);
  }

  gtn_status run(Stream& stream, const void* args, gtn_message* message) const override {
    const gtn_attention_args& a = *static_cast<const gtn_attention_args*>(args);
    if (a.sequences > kMostElements / (shape_.units + 1)) {
      return fail(message, GTN_UNSUPPORTED, "sequences: is %lld, this backend takes up to 2^40 with all their heads",
                  static_cast<long long>(a.sequences));
    }
    // What is needed for copies and parts depends on what the arrays hold; whether that was true is seen in the copies.
    int64_t entries = 0;
    if (shape_.lists() && a.sequences > 0) {
      entries = a.block_offsets[shape_.list_rows(a.sequences)];
      if (entries < 0 || entries > shape_.desc.max_blocks) {
        return fail(message, GTN_INVALID_ARGUMENT, "block_offsets[%lld] is %lld, expected 0 to max_blocks = %lld",
                    static_cast<long long>(shape_.list_rows(a.sequences)), static_cast<long long>(entries),
                    static_cast<long long>(shape_.desc.max_blocks));
      }
    }
    const int64_t partial_floats = partial_floats_of(a);
    Call c;
    Workspace measure(nullptr);
    const int64_t bytes = shape_.lay_out(&measure, a, entries, worker_bytes(), partial_floats, &c);
    Workspace space(static_cast<char*>(stream.scratch(bytes)));
    if (space.memory() == nullptr) {
      return fail(message, GTN_OUT_OF_MEMORY, "no memory for %lld bytes of workspace", static_cast<long long>(bytes));
    }
    shape_.lay_out(&space, a, entries, worker_bytes(), partial_floats, &c);
    const gtn_status status = shape_.take_arrays(&c, entries, message);
    if (status != GTN_OK) return status;
    c.tile_rows = tiling_.tile_rows;
    int64_t items = count_items(&c);
    while (items < kWantedTiles && c.tile_rows > kLeastTileRows) {
      c.tile_rows = c.tile_rows / 2 < kLeastTileRows ? kLeastTileRows : c.tile_rows / 2;
      items = count_items(&c);
    }
    if (items == 0) return GTN_OK;
    if (c.first_partial[a.sequences * shape_.units] != partial_floats) {
      return fail(message, GTN_INVALID_ARGUMENT, "q_index or k_index: was changed while the run read it");
    }
    if (shape_.documents()) {
      parallel(device_.threads, a.sequences * shape_.label_heads, [&](int64_t task, int) { range_labels(c, task); });
    }
    const int64_t batch = items_per_task(c);
    parallel(device_.threads, ceil_div(items, batch), [&](int64_t task, int worker) {
      char* scratch = c.workers + worker * scratch_bytes_;
      const int64_t end = at_most((task + 1) * batch, items);
      for (int64_t item = task * batch; item < end; ++item) run_item(c, item, scratch);
    });
    if (partial_floats > 0) {
      parallel(device_.threads, a.sequences * shape_.units,
               [&](int64_t unit, int worker) { merge_parts(c, unit, c.workers + worker * scratch_bytes_); });
    }
    return GTN_OK;
  }

 private:
  // ---- What the plan is --------------------------------------------------------------------------------------------

  int64_t worker_bytes() const { return device_.threads * scratch_bytes_; }

  double head_pairs(const Pattern& p) const {
    if (p.masks & GTN_MASK_BLOCKS) {
      // All entries of the lists, shared evenly by sequences and heads of lists.
      const double entries = static_cast<double>(shape_.desc.max_blocks) /
                             static_cast<double>(shape_.desc.block_heads) /
                             (shape_.sequences > 0 ? static_cast<double>(shape_.sequences) : 1.0);
      const double listed =
          entries * static_cast<double>(shape_.desc.block_q) * static_cast<double>(shape_.desc.block_k);
      const double most = visible_pairs(p, shape_.len_q, shape_.len_k);
      return listed < most ? listed : most;
    }
    return visible_pairs(p, shape_.len_q, shape_.len_k);
  }

  // The blocks that the tiles of one unit visit in one sequence, with nothing known of the arrays.
  double count_blocks(const Pattern& p) const {
    if (shape_.len_q == 0 || shape_.len_k == 0) return 0;
    if (p.masks & GTN_MASK_BLOCKS) {
      return static_cast<double>(shape_.desc.max_blocks) / static_cast<double>(shape_.desc.block_heads) /
             (shape_.sequences > 0 ? static_cast<double>(shape_.sequences) : 1.0);
    }
    AttentionTile t = {};
    t.mask.len_q = shape_.len_q;
    t.mask.len_k = shape_.len_k;
    t.mask.left = p.left;
    t.mask.right = p.right;
    t.mask.dilation = p.dilation;
    t.mask.sinks = p.sinks;
    t.group = shape_.group;
    const TileCut cut(shape_.len_q, 0, p.dilation, 0, shape_.group, tiling_.tile_rows);
    const int64_t stride = ceil_div(cut.tiles(), kCounted);
    double blocks = 0;
    for (int64_t tile = 0; tile < cut.tiles(); tile += stride) {
      place(cut, tile, &t);
      int64_t visited = 0;
      // Nothing is gathered here: the blocks need no scratch.
      KeyBlocks(t, rows_of(t, KeySet{}), KeySet{}, tiling_, nullptr, CountBlocks{&visited}).visit_all();
      blocks += static_cast<double>(visited) * static_cast<double>(stride);
    }
    return blocks;
  }

  // ---- What a sequence and head see --------------------------------------------------------------------------

  Mask mask_of(const Call& c, int64_t s, int64_t head, const Sequence& of) const {
    const Pattern& p = shape_.pattern(head);
    Mask m = {};
    m.len_q = of.len_q;
    m.len_k = of.len_k;
    m.left = p.left;
    m.right = p.right;
    m.dilation = p.dilation;
    m.sinks = at_most(p.sinks, of.len_k);
    if (p.masks & GTN_MASK_PREFIX) m.prefix = at_most(c.prefixes[s], of.len_k);
    if (p.masks & GTN_MASK_GLOBALS) {
      m.globals = c.globals + s * shape_.desc.max_globals;
      m.global_count = c.global_counts[2 * s];
    }
    if (p.masks & GTN_MASK_DOCUMENTS) {
      const int64_t h = shape_.head_of(shape_.desc.document_heads, head);
      m.layers = shape_.desc.document_layers;
      m.q_layer = shape_.desc.document_heads * shape_.len_q;
      m.k_layer = shape_.desc.document_heads * shape_.len_k;
      m.q_labels = shape_.q_labels(c.args, s, h, of);
      m.k_labels = shape_.k_labels(c.args, s, h, of);
    }
    if (p.masks & GTN_MASK_TREE) {
      m.tree = c.args.tree + s * shape_.desc.max_tree * shape_.desc.max_tree;
      m.tree_row = shape_.desc.max_tree;
    }
    return m;
  }

  // Another thread may write labels meanwhile: that can hide keys or show them, no more.
  void range_labels(const Call& c, int64_t task) const {
    const int64_t s = task / shape_.label_heads;
    // A query head with these labels and this order.
    const int64_t head = task % shape_.label_heads * (shape_.heads_q / shape_.label_heads);
    const Sequence of = shape_.sequence(c.args, s);
    const int32_t* order =
        shape_.ordered() ? shape_.k_order(c, s, shape_.head_of(shape_.desc.order_heads, head), of) : nullptr;
    const int32_t* labels = shape_.k_labels(c.args, s, shape_.head_of(shape_.desc.document_heads, head), of);
    LabelRange* ranges = c.labels + task * c.label_chunks;
    for (int64_t chunk = 0; chunk * kLabelKeys < of.len_k; ++chunk) {
      LabelRange range = {INT32_MAX, INT32_MIN};
      const int64_t end = at_most((chunk + 1) * kLabelKeys, of.len_k);
      for (int64_t slot = chunk * kLabelKeys; slot < end; ++slot) {
        const int64_t token = order != nullptr ? order[slot] : slot;
        if (token < 0) continue;
        const int32_t label = labels[token];
        if (label < range.least) range.least = label;
        if (label > range.greatest) range.greatest = label;
      }
      ranges[chunk] = range;
    }
  }

  // ---- Tiles -------------------------------------------------------------------------------------------------------

  TileCut cut_of(const Call& c, const Sequence& of, int64_t s, int64_t head) const {
    const Pattern& p = shape_.pattern(head);
    const bool listed = (p.masks & GTN_MASK_BLOCKS) != 0;
    const bool plain = !listed && !shape_.ordered();
    return TileCut(of.len_q, listed ? shape_.desc.block_q : 0, plain ? p.dilation : 1,
                   plain && (p.masks & GTN_MASK_GLOBALS) != 0 ? c.global_counts[2 * s + 1] : 0, shape_.group,
                   c.tile_rows);
  }

  // Gives a tile its rows. `queries` is left as it is.
  Segment place(const TileCut& cut, int64_t index, AttentionTile* t) const {
    int64_t first_row;
    const Segment segment = cut.find(index, &first_row);
    t->first_row = segment.first_slot * shape_.group + first_row;
    t->rows = at_most(segment.slots * shape_.group - first_row, cut.tile_rows());
    t->first_query = segment.first_query - segment.first_slot * segment.query_step;
    t->query_step = segment.query_step;
    t->row_block = segment.slots * shape_.group;
    return segment;
  }

  // The parts that the keys of each tile of a head are cut into, and how many blocks each has.
  struct Parts {
    int64_t count, blocks;
  };

  Parts cut_keys(const Sequence& of, int64_t head) const {
    if (of.len_q == 0 || of.len_q * shape_.group > kSplitRows) return {1, 0};
    const Pattern& p = shape_.pattern(head);
    int64_t keys = of.len_k;
    const bool bounded =
        p.left >= 0 && p.right >= 0 && (p.masks & (GTN_MASK_PREFIX | GTN_MASK_GLOBALS)) == 0 && !shape_.ordered();
    if (bounded) keys = at_most(keys, (p.left + p.right + of.len_q) / p.dilation + 1 + p.sinks);
    const int64_t even = ceil_div(ceil_div(keys, tiling_.block_keys), kMostParts);
    const int64_t blocks = even < kPartBlocks ? kPartBlocks : even;
    const int64_t parts = ceil_div(keys, blocks * tiling_.block_keys);
    return {parts < 1 ? 1 : at_most(parts, kMostParts), blocks};
  }

  int64_t parts_of(const Sequence& of, int64_t head) const { return cut_keys(of, head).count; }

  // Floats of one part of a head's rows, those of global tokens included.
  int64_t part_floats(const Sequence& of) const {
    return times(times(of.len_q + (shape_.globals() ? shape_.desc.max_globals : 0), shape_.group), dv_ + 2);
  }

  // The room for partial results of one unit, at most what two of can be added.
  int64_t partial_floats_of(const Sequence& of, int64_t unit) const {
    const int64_t parts = parts_of(of, unit * shape_.group);
    return parts > 1 ? at_most(times(parts, part_floats(of)), INT64_MAX / 2) : 0;
  }

  // The room for those of a run. The arrays may not have been checked: what is no length counts as none.
  int64_t partial_floats_of(const gtn_attention_args& a) const {
    int64_t floats = 0;
    for (int64_t s = 0; s < a.sequences; ++s) {
      const Sequence of = shape_.sequence(a, s);
      if (of.len_q <= 0 || of.len_q > a.len_q || of.len_k < 0 || of.len_k > a.len_k) continue;
      for (int64_t unit = 0; unit < shape_.units; ++unit) {
        floats = at_most(floats + partial_floats_of(of, unit), INT64_MAX / 2);
      }
    }
    return floats;
  }

  // Counts the items of work, tiles by parts.
  int64_t count_items(Call* c) const {
    int64_t items = 0, partial = 0;
    for (int64_t s = 0; s < c->args.sequences; ++s) {
      const Sequence of = shape_.sequence(c->args, s);
      for (int64_t unit = 0; unit < shape_.units; ++unit) {
        const int64_t parts = parts_of(of, unit * shape_.group);
        c->first_item[s * shape_.units + unit] = items;
        c->first_partial[s * shape_.units + unit] = partial;
        items += cut_of(*c, of, s, unit * shape_.group).tiles() * parts;
        if (parts > 1) partial += parts * part_floats(of);
      }
    }
    c->first_item[c->args.sequences * shape_.units] = items;
    c->first_partial[c->args.sequences * shape_.units] = partial;
    return items;
  }

  // From the shapes alone, so that the same call is cut in the same way for any number of threads.
  int64_t items_per_task(const Call& c) const {
    const double width = static_cast<double>(dk_ + dv_);
    double flops = 1;
    for (int64_t s = 0; s < c.args.sequences; ++s) {
      const Sequence of = shape_.sequence(c.args, s);
      if (of.len_q == 0) continue;
      // A pair costs its products and sums and about 16 operations of softmax; a tile reads the keys of its queries.
      const double pairs = at_most_pairs(visible_pairs(shape_.pattern(0), of.len_q, of.len_k), of);
      const double keys = pairs / static_cast<double>(of.len_q);
      const double tiles = static_cast<double>(c.first_item[(s + 1) * shape_.units] - c.first_item[s * shape_.units]);
      flops += pairs * static_cast<double>(shape_.heads_q) * (2 * width + 16);
      flops += tiles * keys * width * static_cast<double>(element_bytes(k_dtype_)) * kFlopsPerByte;
    }
    const int64_t items = c.first_item[c.args.sequences * shape_.units];
    const double batch = kTaskFlops / flops * static_cast<double>(items);
    return batch <= 1.0 ? 1 : (batch >= static_cast<double>(items) ? items : static_cast<int64_t>(batch));
  }

  double at_most_pairs(double pairs, const Sequence& of) const {
    if (!shape_.lists()) return pairs;
    const double rows = static_cast<double>(shape_.list_rows(1));
    const double listed = rows == 0 ? 0
                                    : static_cast<double>(shape_.desc.max_blocks) / rows *
                                          static_cast<double>(shape_.desc.block_k) * static_cast<double>(of.len_q);
    return listed < pairs ? listed : pairs;
  }

  static TileRows rows_of(const AttentionTile& t, const KeySet& keys) {
    TileRows common = {};
    const bool mixed = t.globals == AttentionTile::kMixed;
    const int64_t shift = t.mask.len_k - t.mask.len_q;
    const bool listed = t.queries != nullptr;
    const int64_t first_slot = slot_of(t, 0), last_slot = slot_of(t, t.rows - 1);
    common.labels = {INT32_MAX, INT32_MIN};
    int64_t low = query_of(t, 0), high = query_of(t, t.rows - 1);
    common.all_global = common.some_global = t.globals == AttentionTile::kAlone;
    if (listed || mixed || keys.labels != nullptr) {
      bool all = true, some = false;
      if (keys.labels != nullptr) common.common_layers = low_bits(at_most(t.mask.layers - 1, kCommonLayers));
      const int64_t one = low;
      for (int64_t slot = first_slot; slot <= last_slot; ++slot) {
        const int64_t query = listed ? t.queries[slot] : t.first_query + slot * t.query_step;
        if (query < low) low = query;
        if (query > high) high = query;
        if (mixed) {
          const bool global = is_among(t.mask.globals, t.mask.global_count, query + shift);
          all = all && global;
          some = some || global;
        }
        if (keys.labels != nullptr) {
          const int32_t label = t.mask.q_labels[query];
          if (label < common.labels.least) common.labels.least = label;
          if (label > common.labels.greatest) common.labels.greatest = label;
          for (uint64_t layers = common.common_layers; layers != 0; layers &= layers - 1) {
            const int64_t back = (__builtin_ctzll(layers) + 1) * t.mask.q_layer;
            if (t.mask.q_labels[query - back] != t.mask.q_labels[one - back]) {
              common.common_layers &= ~(layers & ~(layers - 1));
            }
          }
        }
      }
      if (mixed) {
        common.all_global = some && all;
        common.some_global = some;
      }
    }
    common.low = {low, low + shift, common.all_global};
    common.high = {high, high + shift, common.all_global};
    common.one_residue =
        !listed && (t.mask.dilation == 1 || t.query_step % t.mask.dilation == 0 || first_slot == last_slot);
    return common;
  }

  void make_tile(const Call& c, int64_t s, int64_t unit, int64_t index, AttentionTile* tile, KeySet* keys) const {
    const gtn_attention_args& a = c.args;
    const Sequence of = shape_.sequence(c.args, s);
    const int64_t head = unit * shape_.group, key_head = head / shape_.per_key_head;
    const Pattern& p = shape_.pattern(head);
    AttentionTile& t = *tile;
    t = {};
    const Segment segment = place(cut_of(c, of, s, head), index, &t);
    const int64_t b = shape_.packed ? 0 : s;
    t.q_dtype = q_dtype_;
    t.out_dtype = out_dtype_;
    t.q = at(a.q, (b * q_.sequence + of.first_q * q_.row + head * q_.head) * element_bytes(q_dtype_));
    t.out = const_cast<char*>(
        at(a.out, (b * out_.sequence + of.first_q * out_.row + head * out_.head) * element_bytes(out_dtype_)));
    if (a.lse != nullptr) {
      const int64_t first =
          shape_.packed ? head * shape_.len_q + of.first_q : (s * shape_.heads_q + head) * shape_.len_q;
      t.lse = static_cast<float*>(a.lse) + first;
    }
    t.q_row = q_.row;
    t.q_head = q_.head;
    t.out_row = out_.row;
    t.out_head = out_.head;
    t.lse_head = shape_.len_q;
    t.k = source(a.k, k_dtype_, k_, a.k_scales, s, key_head, of);
    t.v = source(a.v, v_dtype_, v_, a.v_scales, s, key_head, of);
    t.page_size = shape_.page_size;
    if (shape_.paged) t.block_table = c.block_table + s * shape_.pages_per_sequence();
    t.dk = dk_;
    t.dv = dv_;
    t.group = shape_.group;
    t.scale = shape_.desc.scale;
    t.softcap = shape_.desc.softcap;
    t.self_bias = shape_.desc.self_bias;
    if (a.slopes != nullptr) t.slopes = a.slopes + head;
    if (a.sink_logits != nullptr) t.sink_logits = a.sink_logits + head;
    if (shape_.desc.has_bias != 0) {
      const int64_t* strides = shape_.desc.bias.strides;
      t.bias_dtype = shape_.desc.bias.dtype;
      t.bias = at(a.bias, (s * strides[0] + head * strides[1]) * element_bytes(t.bias_dtype));
      t.bias_head = strides[1];
      t.bias_row = strides[2];
      t.bias_key = strides[3];
    }
    t.mask = mask_of(c, s, head, of);
    *keys = {};
    if (segment.globals) {
      t.queries = c.global_queries + s * shape_.desc.max_globals - segment.first_slot;
      t.globals = AttentionTile::kAlone;
    } else if (shape_.ordered()) {
      const int64_t h = shape_.head_of(shape_.desc.order_heads, head);
      t.queries = shape_.q_order(c, s, h, of);
      keys->order = shape_.k_order(c, s, h, of);
    }
    if (p.masks & GTN_MASK_BLOCKS) {
      const int64_t row = (s * shape_.desc.block_heads + shape_.head_of(shape_.desc.block_heads, head)) *
                          ceil_div(shape_.len_q, shape_.desc.block_q);
      keys->list_offsets = c.block_offsets + row + segment.first_slot / shape_.desc.block_q;
      keys->list_columns = c.block_columns;
      t.lists = {shape_.desc.block_q, shape_.desc.block_k, c.block_mask_index, a.block_masks, a.block_bias};
    }
    if (t.mask.global_count > 0 && (shape_.ordered() || keys->list_offsets != nullptr)) {
      t.globals = AttentionTile::kMixed;
    }
    if (p.masks & GTN_MASK_DOCUMENTS) {
      keys->labels = c.labels + (s * shape_.label_heads + shape_.head_of(shape_.label_heads, head)) * c.label_chunks;
    }
  }

  KeySource source(const void* data, int32_t dtype, const Strides& strides, const float* scales, int64_t s,
                   int64_t key_head, const Sequence& of) const {
    KeySource result = {};
    const int64_t b = shape_.packed || shape_.paged ? 0 : s;
    result.dtype = dtype;
    result.row = strides.row;
    result.page = strides.sequence;
    result.data = of.len_k == 0 ? nullptr
                                : at(data, (b * strides.sequence + of.first_k * strides.row + key_head * strides.head) *
                                               element_bytes(dtype));
    if (scales != nullptr) result.scales = scales + (b * shape_.len_k + of.first_k) * shape_.heads_k + key_head;
    result.scale_row = shape_.heads_k;
    return result;
  }

  // ---- Work --------------------------------------------------------------------------------------------------------

  void run_item(const Call& c, int64_t item, char* scratch) const {
    int64_t u = 0, after = c.args.sequences * shape_.units;  // first_item[u] <= item < first_item[after]
    while (after - u > 1) {
      const int64_t middle = u + (after - u) / 2;
      (c.first_item[middle] <= item ? u : after) = middle;
    }
    const int64_t s = u / shape_.units;
    const Sequence of = shape_.sequence(c.args, s);
    const Parts parts = cut_keys(of, u % shape_.units * shape_.group);
    const int64_t tiles = (c.first_item[u + 1] - c.first_item[u]) / parts.count;
    int64_t index = item - c.first_item[u], part = index / tiles;
    index %= tiles;
    if (shape_.one_pattern) {  // all heads are cut alike: part by part, head by head
      const int64_t place = item - c.first_item[s * shape_.units], all = tiles * shape_.units;
      part = place / all;
      u = s * shape_.units + place % all / tiles;
      index = place % tiles;
    }
    const int64_t unit = u % shape_.units;
    AttentionTile tile;
    KeySet keys;
    make_tile(c, s, unit, index, &tile, &keys);
    const int64_t end = tile.first_row + tile.rows;
    while (tile.first_row < end) {
      tile.rows = alike(tile, end - tile.first_row);
      if (parts.count > 1) tile.partial = partial(c, u, of, part, tile);
      run_tile(tile, keys, part, parts, scratch);
      tile.first_row += tile.rows;
    }
  }

  void run_tile(const AttentionTile& tile, const KeySet& keys, int64_t part, const Parts& parts,
                char* scratch) const {
    const AttentionKernels& kernels = *device_.level->kernels->attention;
    int32_t* lists = reinterpret_cast<int32_t*>(scratch);
    void* memory = scratch + list_bytes_;
    kernels.begin(tile, memory);
    int64_t block = 0;
    const auto visit = [&](const KeyBlock& keys_of) {
      const int64_t of_part = parts.count == 1 ? 0 : block++ / parts.blocks;
      if (of_part == part || (of_part >= parts.count && part == parts.count - 1)) {
        kernels.block(tile, keys_of, memory);
      }
    };
    KeyBlocks(tile, rows_of(tile, keys), keys, tiling_, lists, visit).visit_all();
    kernels.finish(tile, memory);
  }

  // How many of the first `rows` rows from the tile's first one on go together, so that rows with other labels do not
  // make them walk over keys that they cannot see. Rows of few with the same labels stay together.
  int64_t alike(const AttentionTile& t, int64_t rows) const {
    if (t.mask.q_labels == nullptr) return rows;
    rows = alike_in(t, rows, 1);
    return t.mask.layers > 1 ? alike_in(t, rows, t.mask.layers) : rows;
  }

  // By the labels of the last `layers` layers: a run of at least kAlikeRows rows with the same ones, or else all up to
  // the next such run.
  static int64_t alike_in(const AttentionTile& t, int64_t rows, int64_t layers) {
    for (int64_t from = 0, to; from < rows; from = to) {
      const int64_t first = query_of(t, from);
      const auto same = [&](int64_t row) {
        const int64_t query = query_of(t, row);
        for (int64_t layer = 0; layer < layers; ++layer) {
          const int64_t back = layer * t.mask.q_layer;
          if (t.mask.q_labels[query - back] != t.mask.q_labels[first - back]) return false;
        }
        return true;
      };
      for (to = from + 1; to < rows && same(to);) ++to;
      if (to - from >= kAlikeRows) return from > 0 ? from : to;
    }
    return rows;
  }

  void merge_parts(const Call& c, int64_t u, char* scratch) const {
    const int64_t s = u / shape_.units, unit = u % shape_.units;
    const Sequence of = shape_.sequence(c.args, s);
    const int64_t parts = parts_of(of, unit * shape_.group);
    if (parts == 1) return;
    const int64_t tiles = (c.first_item[u + 1] - c.first_item[u]) / parts;
    for (int64_t index = 0; index < tiles; ++index) {
      AttentionTile tile;
      KeySet keys;
      make_tile(c, s, unit, index, &tile, &keys);
      device_.level->kernels->attention->merge(tile, partial(c, u, of, 0, tile), parts, part_floats(of),
                                               scratch + list_bytes_);
    }
  }

  float* partial(const Call& c, int64_t u, const Sequence& of, int64_t part, const AttentionTile& tile) const {
    return c.partial + c.first_partial[u] + part * part_floats(of) + tile.first_row * (dv_ + 2);
  }

  const Device& device_;
  const Pattern* const patterns_;  // owned
  const Shape shape_;
  const int32_t q_dtype_, k_dtype_, v_dtype_, out_dtype_;
  const Strides q_, k_, v_, out_;
  const int64_t dk_, dv_;
  const AttentionTiling tiling_;
  const int64_t list_bytes_, scratch_bytes_;  // of a worker: of the keys of a block, and of all
};

}  // namespace

gtn_status attention_plan(const Device& device, const gtn_attention_desc& desc, Plan** plan, gtn_plan_info* info,
                          gtn_message* message) {
  for (const gtn_tensor_desc* tensor : {&desc.q, &desc.k, &desc.v}) {
    for (int32_t d = 0; d < tensor->rank; ++d) {
      const int64_t most = d == tensor->rank - 1 ? kMostHeadSize : kMostElements;
      if (tensor->shape[d] <= most) continue;
      return fail(message, GTN_UNSUPPORTED, "%s.shape[%d]: is %lld, this backend takes up to %lld",
                  tensor == &desc.q ? "q" : tensor == &desc.k ? "k" : "v", d, static_cast<long long>(tensor->shape[d]),
                  static_cast<long long>(most));
    }
  }
  uint32_t masks = 0;
  for (int64_t h = 0; h < desc.pattern_count; ++h) masks |= desc.patterns[h].masks;
  const bool numbered = desc.order_heads > 0 || (masks & (GTN_MASK_GLOBALS | GTN_MASK_BLOCKS)) != 0 || desc.paged != 0;
  const int length = desc.q.rank == 3 ? 0 : 1;
  const int64_t len_k = desc.paged != 0 ? desc.max_len_k : desc.k.shape[length];
  if (len_k > (numbered ? kMostPositions - 1 : kMostElements) || (numbered && desc.q.shape[length] >= kMostPositions)) {
    return fail(message, GTN_UNSUPPORTED,
                "len_k: is %lld, this backend takes up to 2^31 - 1 queries and keys where 32-bit "
                "numbers name them",
                static_cast<long long>(len_k));
  }
  if ((masks & GTN_MASK_BLOCKS) != 0 &&
      (desc.max_blocks >= kMostPositions || desc.block_k >= kMostPositions || desc.block_q >= kMostPositions)) {
    return fail(message, GTN_UNSUPPORTED,
                "max_blocks: is %lld with blocks of %lld by %lld, this backend takes up to 2^31 - 1",
                static_cast<long long>(desc.max_blocks), static_cast<long long>(desc.block_q),
                static_cast<long long>(desc.block_k));
  }
  Pattern* patterns = new (std::nothrow) Pattern[static_cast<size_t>(desc.pattern_count)];
  AttentionPlan* created = patterns == nullptr ? nullptr : new (std::nothrow) AttentionPlan(device, desc, patterns);
  if (created == nullptr) {
    delete[] patterns;
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  }
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
