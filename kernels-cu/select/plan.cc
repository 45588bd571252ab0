#include "select/plan.h"

#include <algorithm>
#include <cstdio>

#include "select/kernels.h"

namespace gatun::gpu {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;         // positions, blocks and what there is of each have 32 bits
constexpr int64_t kMostHeadSize = int64_t{1} << 16;
constexpr int64_t kBlocksMultiprocessor = 2;        // that take lists by turns
constexpr int kWarps = kSelectThreads / kWarp;

// Arrays one after the other in a workspace, or their size alone where that is null.
class Layout {
 public:
  explicit Layout(char* memory) : memory_(memory) {}

  template <typename T>
  void take(T** array, int64_t count) {
    *array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ = std::min(bytes_ + ceil_div(times(count, sizeof(T)), 256) * 256, INT64_MAX / 2);
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* const memory_;
  int64_t bytes_ = 0;
};

class SelectPlan final : public Plan {
 public:
  SelectPlan(const Device& device, const gtn_select_desc& desc)
      : kind_(desc.kind),
        type_(type_index(desc.q.dtype)),
        most_blocks_(device.properties.multiprocessors * kBlocksMultiprocessor) {
    const bool packed = desc.q.rank == 3;
    const int64_t *q = desc.q.shape + (packed ? 0 : 1), *k = desc.k.shape + (packed ? 0 : 1);
    const int64_t *q_strides = desc.q.strides + (packed ? 0 : 1), *k_strides = desc.k.strides + (packed ? 0 : 1);
    SelectArgs& a = args_;
    a.packed = packed;
    if (!packed) a.q_sequence = desc.q.strides[0], a.k_sequence = desc.k.strides[0];
    a.q_row = q_strides[0], a.q_head = q_strides[1], a.k_row = k_strides[0], a.k_head = k_strides[1];
    const auto small = [](int64_t n) { return static_cast<int32_t>(std::min(n, kMost - 1)); };
    a.most_q = small(q[0]), a.heads_q = small(q[1]), a.dk = small(q[2]);
    a.most_k = small(k[0]), a.heads_k = small(k[1]), a.heads = small(desc.heads);
    a.block_q = small(desc.block_q), a.block_k = small(desc.block_k);
    a.lists = small(ceil_div(a.most_q, a.block_q));
    const int64_t blocks = ceil_div(a.most_k, a.block_k);
    a.count = small(desc.count), a.first = small(desc.first), a.local = small(desc.local);
    a.width = small(std::min(desc.count, blocks));
    a.causal = desc.causal, a.bounds = desc.pool == GTN_POOL_BOUNDS, a.scale = desc.scale, a.seed = desc.seed;
    a.buckets = small(desc.buckets), a.layers = small(desc.layers);
    if (kind_ == GTN_SELECT_LSH) a.bits = a.buckets / 2;
    if (kind_ == GTN_SELECT_RETRIEVAL) a.bits = __builtin_ctz(static_cast<unsigned>(a.buckets));
    a.pool_keys = kind_ == GTN_SELECT_RETRIEVAL ? kSelectMeanKeys : a.block_k;
    a.pool_blocks = small(ceil_div(a.most_k, a.pool_keys));
    a.stride = static_cast<int32_t>(ceil_div(blocks, kSelectTile) * kSelectTile);
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    gtn_status status = GTN_OK;
    const auto also = [&](SelectKernel kernel, int bytes) {
      if (status == GTN_OK) status = prepare(device.index, kernel, bytes, message);
    };
    switch (kind_) {
      case GTN_SELECT_BLOCKS:
        also(select_pool_kernel(type_), 0);
        also(select_weigh_kernel(type_), select_tile_bytes());
        break;
      case GTN_SELECT_LSH:
        also(select_label_kernel(type_), select_tile_bytes());
        also(select_sort_kernel(), select_sort_bytes());
        also(select_near_kernel(), 0);
        break;
      default:
        also(select_pool_kernel(type_), 0);
        also(select_centre_kernel(), 0);
        also(select_unit_kernel(type_), 0);
        also(select_code_kernel(), select_code_bytes());
        also(select_retrieve_kernel(), select_retrieve_bytes());
    }
    also(select_offsets_kernel(), select_offsets_bytes());
    also(select_copy_kernel(), 0);
    return status;
  }

  int64_t workspace_bytes(int64_t sequences) const {
    SelectArgs a = args_;
    return lay_out(nullptr, sequences, &a);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_select_args& args = *static_cast<const gtn_select_args*>(arguments);
    SelectArgs a = args_;
    const int64_t bytes = lay_out(nullptr, args.sequences, &a);
    void* memory = nullptr;
    if (gtn_status status = stream.scratch(bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);
    lay_out(scratch, args.sequences, &a);
    const int64_t lists = times(times(args.sequences, a.heads), a.lists), heads = times(args.sequences, a.heads_q);
    const int64_t longest = std::max(a.most_q, a.most_k);
    if (lists >= kMost || times(heads, std::max(ceil_div(longest, kWarps), int64_t{a.pool_blocks})) >= kMost) {
      return fail(message, GTN_UNSUPPORTED, "sequences: %lld of them make more lists or rows than this backend takes",
                  static_cast<long long>(args.sequences));
    }
    a.q = args.q, a.k = args.k, a.q_index = args.q_index, a.k_index = args.k_index;
    a.sequences = static_cast<int32_t>(args.sequences);
    a.len_q = static_cast<int32_t>(args.len_q), a.len_k = static_cast<int32_t>(args.len_k);
    a.block_offsets = args.block_offsets, a.block_columns = args.block_columns, a.block_bias = args.block_bias;
    a.q_order = args.q_order, a.k_order = args.k_order, a.q_documents = args.q_documents, a.k_documents = args.k_documents;

    gtn_status status = GTN_OK;
    const auto start = [&](SelectKernel kernel, int64_t blocks, int shared_bytes) {
      if (status == GTN_OK && blocks > 0) {
        status = launch(stream.queue, kernel, {blocks}, kSelectThreads, shared_bytes, a, message);
      }
    };
    // The same for queries and for keys.
    const auto start_both = [&](SelectKernel kernel, int64_t q_blocks, int64_t k_blocks, int shared_bytes) {
      a.keys = 0;
      start(kernel, q_blocks, shared_bytes);
      a.keys = 1;
      start(kernel, k_blocks, shared_bytes);
    };
    const auto pool = [&] { start(select_pool_kernel(type_), args.sequences * a.heads_k * a.pool_blocks, 0); };
    const int64_t q_tiles = heads * ceil_div(a.most_q, kSelectTile), k_tiles = heads * ceil_div(a.most_k, kSelectTile);
    switch (kind_) {
      case GTN_SELECT_BLOCKS:
        pool();
        start(select_weigh_kernel(type_), grid(lists), select_tile_bytes());
        break;
      case GTN_SELECT_LSH:
        start_both(select_label_kernel(type_), q_tiles, k_tiles, select_tile_bytes());
        start(select_sort_kernel(), heads, select_sort_bytes());
        start(select_near_kernel(), ceil_div(lists, kWarps), 0);
        break;
      default:
        pool();
        start(select_centre_kernel(), args.sequences * a.heads_k, 0);
        start_both(select_unit_kernel(type_), ceil_div(heads * a.most_q, kWarps),
                   ceil_div(args.sequences * a.heads_k * a.most_k, kWarps), 0);
        start_both(select_code_kernel(), q_tiles, k_tiles, select_code_bytes());
        start(select_retrieve_kernel(), grid(lists), select_retrieve_bytes());
    }
    if (status == GTN_OK) {
      status = launch(stream.queue, select_offsets_kernel(), {}, kSelectOffsetThreads, select_offsets_bytes(), a, message);
    }
    start(select_copy_kernel(), ceil_div(lists, kWarps), 0);
    return status;
  }

  void describe(const Device& device, const gtn_select_desc& desc, gtn_plan_info* info) const {
    const SelectArgs& a = args_;
    const double s = a.packed != 0 ? 1.0 : static_cast<double>(desc.q.shape[0]), causal = a.causal != 0 ? 0.5 : 1.0;
    const double rows_q = s * a.most_q * a.heads_q, rows_k = s * a.most_k * a.heads_k, hashed = rows_q + s * a.most_k * a.heads_q;
    const double lists = s * a.heads * a.lists, blocks = static_cast<double>(ceil_div(a.most_k, a.block_k));
    info->bytes = (rows_q + rows_k) * a.dk * static_cast<double>(element_bytes(desc.q.dtype)) +
                  lists * (8.0 + a.width * (kind_ == GTN_SELECT_RETRIEVAL ? 8.0 : 4.0)) + 8.0;
    const char* const names[] = {a.bounds != 0 ? "select.bounds" : "select.mean", "select.lsh", "select.retrieval"};
    name_kernel(info, device, names[kind_ - GTN_SELECT_BLOCKS]);
    if (kind_ == GTN_SELECT_BLOCKS) {
      info->flops = rows_k * a.dk + rows_q * blocks * (a.dk * (a.bounds != 0 ? 4.0 : 2.0) + 20.0) * causal;
    } else {
      info->flops = hashed * a.dk * 2.0 * a.layers * a.bits;
      if (kind_ == GTN_SELECT_LSH) info->bytes += hashed * 4.0 * (a.layers + 1.0);
    }
    info->workspace_bytes = workspace_bytes(a.packed != 0 ? desc.max_sequences : desc.q.shape[0]);
  }

 private:
  int64_t grid(int64_t lists) const { return std::min(lists, most_blocks_); }

  int64_t lay_out(char* memory, int64_t sequences, SelectArgs* a) const {
    Layout space(memory);
    const int64_t lists = times(times(sequences, a->heads), a->lists), entries = times(lists, a->width);
    const int64_t heads_q = times(sequences, a->heads_q), heads_k = times(sequences, a->heads_k);
    const int64_t rows_q = times(heads_q, a->most_q), rows_k = times(heads_q, a->most_k);
    const int64_t pools = times(times(heads_k, a->pool_blocks), times(a->dk, a->bounds != 0 ? 2 : 1));
    space.take(&a->columns, entries);
    space.take(&a->counts, lists);
    switch (kind_) {
      case GTN_SELECT_BLOCKS:
        space.take(&a->pools, pools);
        space.take(&a->importance, times(grid(lists), a->stride));
        space.take(&a->products, times(times(grid(lists), a->stride), kSelectTile));
        break;
      case GTN_SELECT_LSH:
        space.take(&a->q_labels, times(rows_q, a->layers));
        space.take(&a->k_labels, rows_k);
        space.take(&a->q_places, rows_q);
        space.take(&a->k_places, rows_k);
        if (a->causal == 0 && a->layers > 1) space.take(&a->q_between, rows_q);
        space.take(&a->label_counts, times(heads_q, kSelectSortRuns * int64_t{a->buckets}));
        space.take(&a->runs, times(times(lists, std::min(a->block_q, a->most_q)), 2));
        break;
      default:
        space.take(&a->biases, entries);
        space.take(&a->pools, pools);
        space.take(&a->mean, times(heads_k, a->dk));
        space.take(&a->q_unit, times(rows_q, a->dk));
        space.take(&a->k_unit, times(times(heads_k, a->most_k), a->dk));
        space.take(&a->q_codes, times(rows_q, a->layers));
        space.take(&a->k_codes, times(rows_k, a->layers));
        space.take(&a->shared_codes, times(grid(lists), a->most_k));
    }
    return space.bytes();
  }

  const int32_t kind_;
  const int type_;
  const int64_t most_blocks_;
  SelectArgs args_ = {};
};

}  // namespace

bool select_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status select_plan(Device& device, const gtn_select_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  for (const gtn_tensor_desc* tensor : {&desc.q, &desc.k}) {
    for (int32_t d = 0; d < tensor->rank; ++d) {
      const int64_t most = d == tensor->rank - 1 ? kMostHeadSize : kMost - 1;
      if (tensor->shape[d] <= most) continue;
      return fail(message, GTN_UNSUPPORTED, "%s.shape[%d]: is %lld, this backend takes up to %lld",
                  tensor == &desc.q ? "q" : "k", d, static_cast<long long>(tensor->shape[d]), static_cast<long long>(most));
    }
  }
  if (desc.max_sequences >= kMost) {
    return fail(message, GTN_UNSUPPORTED, "max_sequences: is %lld, this backend takes fewer than 2^31",
                static_cast<long long>(desc.max_sequences));
  }
  auto created = make_plan<SelectPlan>(message, device, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  created->describe(device, desc, info);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
