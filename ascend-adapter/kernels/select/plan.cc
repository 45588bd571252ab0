// Selection of blocks of keys, by their importance: keys are pooled, and each block of queries weighs the pooled keys; or by
// hashing: rows are labelled and sorted, and blocks of queries look for keys of their labels; or by retrieval: rows are hashed into
// tables, and queries look for keys that they meet there. The lists are put one after the other when all lengths are known.
#include "kernels/select/plan.h"

#include <cmath>
#include <cstdio>

#include "kernels/select/tiling.h"

namespace gatun::ascend {
namespace {

constexpr int64_t kMostRotationFloats = int64_t{1} << 28;  // 1 GiB

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
int64_t after(int64_t bytes) { return (bytes + 63) / 64 * 64; }

struct Kernels {
  const Kernel *pool, *weigh;         // by importance
  const Kernel *label, *sort, *near;  // by hashing
  const Kernel *unit, *code, *retrieve;  // by retrieval, and pool
  const Kernel *lengths, *copy;
};

// The output function of SplitMix64 (Steele, Lea and Flood 2014) on the state after z.
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// [heads_q][layers][columns] rows of the plan's pitch.
void make_rotations(const SelectTiling& t, uint64_t seed, float* to) {
  const int64_t columns = t.columns;
  for (int64_t head = 0; head < t.heads_q; ++head) {
    for (int64_t layer = 0; layer < t.layers; ++layer) {
      const uint64_t base = mix(mix(mix(seed) + static_cast<uint64_t>(layer)) + static_cast<uint64_t>(head));
      for (int64_t c = 0; c < columns; ++c, to += t.pitch) {
        for (int64_t d = 0; d < t.pitch; ++d) {
          const int ones = __builtin_popcountll(mix(base + static_cast<uint64_t>(d * columns + c)));
          to[d] = d < t.dk ? static_cast<float>(ones - 32) * 0.25f : 0.0f;
        }
      }
    }
  }
}

class SelectPlan final : public Plan {
 public:
  SelectPlan(const Device& device, int32_t kind, const SelectTiling& tiling, const Kernels& kernels)
      : device_(device.index), kind_(kind), tiling_(tiling), kernels_(kernels) {}
  ~SelectPlan() override {
    if (rotations_ != nullptr) release(device_, rotations_);
  }

  // Copies the rotations to the device.
  gtn_status take_rotations(uint64_t seed, gtn_message* message) {
    const int64_t floats = rotation_floats(tiling_);
    if (floats == 0) return GTN_OK;
    std::unique_ptr<float[]> made(new (std::nothrow) float[static_cast<size_t>(floats)]);
    if (made == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the rotations of a plan");
    make_rotations(tiling_, seed, made.get());
    if (gtn_status status = allocate(device_, floats * 4, &rotations_, message); status != GTN_OK) return status;
    Queue* queue = nullptr;
    if (gtn_status status = queue_create(device_, &queue, message); status != GTN_OK) return status;
    const gtn_status status = copy(queue, rotations_, made.get(), floats * 4, GTN_HOST_TO_DEVICE, message);
    queue_destroy(queue);
    return status;
  }

  static int64_t rotation_floats(const SelectTiling& t) { return t.heads_q * t.layers * t.columns * t.pitch; }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_select_args& args = *static_cast<const gtn_select_args*>(arguments);
    SelectTiling t = tiling_;
    t.sequences = args.sequences, t.len_q = args.len_q, t.len_k = args.len_k;
    t.has_q_index = args.q_index != nullptr, t.has_k_index = args.k_index != nullptr;
    const Scratch parts = scratch_of(args.sequences);
    void* memory = nullptr;
    if (gtn_status status = stream.scratch(parts.bytes, &memory, message); status != GTN_OK) return status;
    const char* scratch = static_cast<const char*>(memory);
    const auto of = [](const void* p) { return p; };
    const auto part = [scratch](int64_t at) { return static_cast<const void*>(scratch + at); };
    const Device& device = *stream.device;
    const int64_t lists = t.sequences * t.heads * t.lists, pools = t.sequences * t.heads_k * t.blocks;
    gtn_status status = GTN_OK;
    const auto start = [&](const Kernel* kernel, int64_t blocks, auto... pointers) {
      if (status == GTN_OK && blocks > 0) status = launch_with(stream, kernel, vector_blocks(device, blocks), t, message, pointers...);
    };
    const void *q_index = args.q_index, *k_index = args.k_index;
    const auto columns = part(parts.columns), counts = part(parts.counts);
    const auto biases = part(parts.biases);
    if (kind_ == GTN_SELECT_RETRIEVAL) {
      const auto means = part(parts.pools), q_units = part(parts.q_units), k_units = part(parts.k_units);
      const auto q_codes = part(parts.q_labels), k_codes = part(parts.k_labels);
      const int64_t q_heads = t.sequences * t.heads_q, k_heads = t.sequences * t.heads_k;
      // The mean of all keys of a head.
      t.block_k = t.lk > 0 ? t.lk : 1, t.blocks = 1;
      start(kernels_.pool, k_heads, args.k, q_index, k_index, means);
      t.block_k = tiling_.block_k, t.blocks = tiling_.blocks;
      start(kernels_.unit, q_heads * t.lq, args.q, q_index, k_index, means, q_units);
      start(kernels_.code, q_heads * t.lq, q_units, q_index, k_index, of(rotations_), q_codes);
      t.keys = 1;
      start(kernels_.unit, k_heads * t.lk, args.k, q_index, k_index, means, k_units);
      start(kernels_.code, q_heads * t.lk, k_units, q_index, k_index, of(rotations_), k_codes);
      start(kernels_.retrieve, lists, q_index, k_index, q_units, k_units, q_codes, k_codes, columns, biases, counts);
    } else if (kind_ == GTN_SELECT_BLOCKS) {
      start(kernels_.pool, pools, args.k, q_index, k_index, part(parts.pools));
      start(kernels_.weigh, lists, args.q, q_index, k_index, part(parts.pools), columns, counts);
    } else {
      const auto q_labels = part(parts.q_labels), k_labels = part(parts.k_labels);
      const auto q_places = part(parts.q_places), k_places = part(parts.k_places);
      const int64_t heads = t.sequences * t.heads_q;
      start(kernels_.label, heads * t.len_q, args.q, q_index, k_index, of(rotations_), of(args.q_documents), q_labels);
      t.keys = 1;
      start(kernels_.label, heads * t.len_k, args.k, q_index, k_index, of(rotations_), of(args.k_documents), k_labels);
      start(kernels_.sort, heads, q_index, k_index, q_labels, k_labels, q_places, k_places, of(args.q_order), of(args.k_order));
      start(kernels_.near, lists, q_index, k_index, q_labels, k_labels, q_places, k_places, columns, counts);
    }
    start(kernels_.lengths, 1, counts, of(args.block_offsets));
    start(kernels_.copy, lists, columns, counts, of(args.block_offsets), of(args.block_columns));
    if (kind_ == GTN_SELECT_RETRIEVAL) start(kernels_.copy, lists, biases, counts, of(args.block_offsets), of(args.block_bias));
    return status;
  }

  int64_t workspace_bytes(int64_t sequences) const { return scratch_of(sequences).bytes; }

 private:
  struct Scratch {
    int64_t columns, biases, counts, pools, q_units, k_units, q_labels, k_labels, q_places, k_places, bytes;
  };

  Scratch scratch_of(int64_t sequences) const {
    const SelectTiling& t = tiling_;
    const int64_t lists = sequences * t.heads * t.lists, heads = sequences * t.heads_q;
    const bool hashed = kind_ == GTN_SELECT_LSH, retrieval = kind_ == GTN_SELECT_RETRIEVAL;
    const int64_t pools = hashed ? 0 : sequences * t.heads_k * (retrieval ? 1 : t.blocks) * (t.bounds != 0 ? 2 : 1);
    Scratch s = {};
    const auto take = [&s](int64_t words) {
      const int64_t at = s.bytes;
      s.bytes += after(words * 4 + 4);
      return at;
    };
    s.columns = take(lists * t.width);
    s.biases = take(retrieval ? lists * t.width : 0);
    s.counts = take(lists);
    s.pools = take(pools * t.pitch);
    s.q_units = take(retrieval ? heads * t.lq * t.pitch : 0);
    s.k_units = take(retrieval ? sequences * t.heads_k * t.lk * t.pitch : 0);
    // Labels, or codes, whose rows begin at multiples of 64.
    s.q_labels = take(heads * t.layers * (retrieval ? ceil_div(t.lq, 64) * 64 : t.lq));
    s.k_labels = take(retrieval ? heads * t.layers * ceil_div(t.lk, 64) * 64 : hashed ? heads * t.lk : 0);
    s.q_places = take(hashed ? heads * t.lq : 0);
    s.k_places = take(hashed ? heads * t.lk : 0);
    return s;
  }

  const int device_;
  const int32_t kind_;
  const SelectTiling tiling_;
  const Kernels kernels_;
  void* rotations_ = nullptr;
};

// What the bias of a key depends on besides its angle: gatun.h has the formula. At a right angle, where keys and queries of length 0
// are, it is 2^-buckets that two share a code.
void take_odds(SelectTiling* t) {
  const double tables = static_cast<double>(t->layers), x = 1 / static_cast<double>(t->buckets);
  t->log_pairs = static_cast<float>(std::log(tables * (tables - 1) / 2));
  t->right_angle = static_cast<float>(-std::log(-std::expm1((tables - 1) * std::log1p(-x) + std::log1p((tables - 1) * x))));
}

}  // namespace

bool select_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status select_plan(Device& device, const gtn_select_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  const bool hashed = desc.kind == GTN_SELECT_LSH, retrieval = desc.kind == GTN_SELECT_RETRIEVAL;
  const bool packed = desc.q.rank == 3;
  const int32_t at = packed ? 0 : 1;
  SelectTiling t = {};
  t.packed = packed;
  t.q_batch = packed ? 0 : desc.q.strides[0], t.q_row = desc.q.strides[at], t.q_head = desc.q.strides[at + 1];
  t.k_batch = packed ? 0 : desc.k.strides[0], t.k_row = desc.k.strides[at], t.k_head = desc.k.strides[at + 1];
  t.lq = desc.q.shape[at], t.lk = desc.k.shape[at];
  t.heads_q = desc.q.shape[at + 1], t.heads_k = desc.k.shape[at + 1], t.dk = desc.q.shape[at + 2];
  t.heads = desc.heads;
  t.pitch = select_pitch(t.dk);
  t.block_q = least(desc.block_q, t.lq > 0 ? t.lq : 1), t.block_k = least(desc.block_k, t.lk > 0 ? t.lk : 1);
  t.lists = ceil_div(t.lq, t.block_q), t.blocks = ceil_div(t.lk, t.block_k);
  t.width = least(desc.count, t.blocks);
  t.count = least(desc.count, t.blocks), t.first = least(desc.first, t.count), t.local = least(desc.local, t.count);
  t.buckets = desc.buckets, t.layers = desc.layers;
  t.columns = retrieval ? __builtin_ctzll(static_cast<uint64_t>(t.buckets)) : t.buckets / 2;
  if (retrieval) take_odds(&t);
  t.causal = desc.causal, t.bounds = desc.pool == GTN_POOL_BOUNDS, t.scale = desc.scale;
  const int64_t most_depth = t.bounds != 0 ? kSelectDepth / 2 : kSelectDepth;
  if (t.dk < 1 || t.dk > most_depth || t.blocks > kSelectBlocks) {
    return fail(message, GTN_UNSUPPORTED, "q and k: heads of %lld elements and %lld blocks of keys, this backend takes heads of 1 "
                "to %lld and up to %lld blocks", static_cast<long long>(t.dk), static_cast<long long>(t.blocks),
                static_cast<long long>(most_depth), static_cast<long long>(kSelectBlocks));
  }
  if ((hashed && (t.buckets > kSelectBuckets || t.lq > kSelectLength)) ||
      (t.layers > 0 && (t.lk > kSelectLength || SelectPlan::rotation_floats(t) > kMostRotationFloats))) {
    return fail(message, GTN_UNSUPPORTED,
                "q, k, buckets and layers: lengths of %lld and %lld with %lld buckets, this backend takes lengths of keys up to "
                "%lld, which it sorts, and as many queries, by up to %lld labels, and keeps up to 1 GiB of rotations",
                static_cast<long long>(t.lq), static_cast<long long>(t.lk), static_cast<long long>(t.buckets),
                static_cast<long long>(kSelectLength), static_cast<long long>(kSelectBuckets));
  }
  Kernels kernels = {};
  gtn_status status = GTN_OK;
  const auto find = [&](const Kernel** kernel, const char* what, const char* type) {
    char name[48];
    std::snprintf(name, sizeof name, "gatun_select_%s%s%s", what, *type != '\0' ? "_" : "", type);
    if (status == GTN_OK) status = find_kernel(device.index, name, kernel, message);
  };
  if (retrieval) {
    find(&kernels.pool, "pool", type_name(desc.q.dtype));
    find(&kernels.unit, "unit", type_name(desc.q.dtype));
    find(&kernels.code, "code", "");
    find(&kernels.retrieve, "retrieve", "");
  } else if (hashed) {
    find(&kernels.label, "label", type_name(desc.q.dtype));
    find(&kernels.sort, "sort", "");
    find(&kernels.near, "near", "");
  } else {
    find(&kernels.pool, "pool", type_name(desc.q.dtype));
    find(&kernels.weigh, "weigh", type_name(desc.q.dtype));
  }
  find(&kernels.lengths, "lengths", "");
  find(&kernels.copy, "copy", "");
  if (status != GTN_OK) return status;
  auto created = make_plan<SelectPlan>(message, device, desc.kind, t, kernels);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (status = created->take_rotations(desc.seed, message); status != GTN_OK) return status;
  const double s = packed ? 1.0 : static_cast<double>(desc.q.shape[0]), dk = static_cast<double>(t.dk);
  const double rows_q = s * static_cast<double>(t.lq * t.heads_q), rows_k = s * static_cast<double>(t.lk * t.heads_k);
  const double lists = s * static_cast<double>(t.heads * t.lists);
  name_kernel(info, hashed ? "select.lsh" : retrieval ? "select.retrieval" : t.bounds != 0 ? "select.bounds" : "select.mean");
  info->flops = rows_k * dk + rows_q * static_cast<double>(t.blocks) * (dk * (t.bounds != 0 ? 4 : 2) + 20) *
                                  (t.causal != 0 ? 0.5 : 1.0);
  info->bytes = (rows_q + rows_k) * dk * static_cast<double>(element_bytes(desc.q.dtype)) +
                lists * (8 + 4 * static_cast<double>(t.width)) + 8;
  if (t.layers > 0) {
    const double rows = rows_q + s * static_cast<double>(t.lk * t.heads_q), layers = static_cast<double>(t.layers);
    info->flops = rows * dk * layers * 2 * static_cast<double>(t.columns);
    info->bytes += retrieval ? lists * 4 * static_cast<double>(t.width) : rows * 4 * (layers + 1);
  }
  info->workspace_bytes = created->workspace_bytes(packed ? desc.max_sequences : desc.q.shape[0]);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
