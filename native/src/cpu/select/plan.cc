// Selection plans: which blocks of keys each block of queries is to look at, by pooled importance or by hashing.
#include "cpu/select/plan.h"

#include <cstring>
#include <initializer_list>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/sequences.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr int64_t kMostPositions = int64_t{1} << 31;  // positions and blocks have 32 bits
constexpr int64_t kMostHeadSize = int64_t{1} << 16;
constexpr int64_t kMostRotationFloats = int64_t{1} << 28;  // 1 GiB of random rotations
constexpr int64_t kRoundLists = 1024;                      // lists that are made before they are written
constexpr int64_t kTaskLists = 4;

}  // namespace

SelectPlan::SelectPlan(const Device& device, const gtn_select_desc& desc)
    : device_(device),
      kernels_(*device.level->kernels->select),
      desc_(desc),
      packed_(desc.q.rank == 3),
      element_(desc.q.dtype == GTN_F32 ? 4 : 2),
      sequences_(packed_ ? desc.max_sequences : desc.q.shape[0]),
      len_q_(desc.q.shape[packed_ ? 0 : 1]),
      len_k_(desc.k.shape[packed_ ? 0 : 1]),
      heads_q_(desc.q.shape[packed_ ? 1 : 2]),
      heads_k_(desc.k.shape[packed_ ? 1 : 2]),
      dk_(desc.q.shape[packed_ ? 2 : 3]),
      lists_(ceil_div(len_q_, desc.block_q)),
      blocks_(ceil_div(len_k_, desc.block_k)),
      width_(at_most(desc.count, blocks_)) {}

gtn_status SelectPlan::make_rotations(int64_t bits, gtn_message* message) {
  const int64_t columns = desc_.layers * bits, padded = panels_of(columns), floats = times(heads_q_, padded * dk_);
  rotation_columns_ = columns;
  if (floats > kMostRotationFloats) {
    return fail(message, GTN_UNSUPPORTED,
                "layers: %lld of them with %lld buckets for %lld heads take rotations of more "
                "than the 1 GiB that this backend keeps",
                static_cast<long long>(desc_.layers), static_cast<long long>(desc_.buckets),
                static_cast<long long>(heads_q_));
  }
  float* made = new (std::nothrow) float[static_cast<size_t>(floats)];
  if (made == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the rotations of a plan");
  rotations_ = made;
  for (int64_t head = 0; head < heads_q_; ++head, made += padded * dk_) {
    for (int64_t c = 0; c < padded; ++c) {
      const int64_t r = c / bits, b = c % bits;
      const uint64_t base = mix(mix(mix(desc_.seed) + static_cast<uint64_t>(r)) + static_cast<uint64_t>(head));
      float* column = made + c / kernels_.panel * kernels_.panel * dk_ + c % kernels_.panel;
      for (int64_t d = 0; d < dk_; ++d) {
        const int ones = __builtin_popcountll(mix(base + static_cast<uint64_t>(d * bits + b)));
        column[d * kernels_.panel] = c < columns ? static_cast<float>(ones - 32) * 0.25f : 0.0f;
      }
    }
  }
  return GTN_OK;
}

// Of a product, a multiply-add; of an importance, its softmax; of a table, the walk.
void SelectPlan::describe(gtn_plan_info* info) const {
  const bool bounds = desc_.pool == GTN_POOL_BOUNDS;
  const double s = packed_ ? 1.0 : static_cast<double>(sequences_), causal = desc_.causal != 0 ? 0.5 : 1.0;
  const double rows_q = s * static_cast<double>(len_q_) * static_cast<double>(heads_q_);
  const double rows_k = s * static_cast<double>(len_k_) * static_cast<double>(heads_k_);
  const double hashed = rows_q + s * static_cast<double>(len_k_) * static_cast<double>(heads_q_);
  const double dk = static_cast<double>(dk_), lists = s * static_cast<double>(desc_.heads * lists_);
  info->op = GTN_OP_SELECT;
  info->bytes = (rows_q + rows_k) * dk * static_cast<double>(element_) +
                lists * (8.0 + static_cast<double>(width_) * (desc_.kind == GTN_SELECT_RETRIEVAL ? 8.0 : 4.0)) + 8.0;
  if (desc_.kind == GTN_SELECT_BLOCKS) {
    name_kernel(info, device_, bounds ? "select.bounds" : "select.mean");
    info->flops = rows_k * dk + rows_q * static_cast<double>(blocks_) * (dk * (bounds ? 4.0 : 2.0) + 20.0) * causal;
  } else {
    const bool lsh = desc_.kind == GTN_SELECT_LSH;
    name_kernel(info, device_, lsh ? "select.lsh" : "select.retrieval");
    const double layers = static_cast<double>(desc_.layers);
    info->flops = hashed * dk * 2.0 * static_cast<double>(rotation_columns_);
    if (lsh) info->bytes += hashed * 4.0 * (layers + 1.0);
  }
  Workspace space(nullptr);
  gtn_select_args most = {};
  most.sequences = sequences_;
  info->workspace_bytes = lay_out(&space, most, nullptr);
}

int64_t SelectPlan::lay_out(Workspace* space, const gtn_select_args& a, Call* call) const {
  Call c = {};
  c.args = a;
  const int64_t s = a.sequences;
  if (call == nullptr || a.q_index != nullptr) c.q_index = space->take<int64_t>(s + 1);
  if (call == nullptr || a.k_index != nullptr) c.k_index = space->take<int64_t>(s + 1);
  const int64_t round = at_most(kRoundLists, s * desc_.heads * lists_);
  c.columns = space->take<int32_t>(times(round, width_));
  if (desc_.kind == GTN_SELECT_RETRIEVAL) c.biases = space->take<float>(times(round, width_));
  c.counts = space->take<int64_t>(round);
  take_own(space, &c);
  c.workers = space->take<char>(times(device_.threads, worker_bytes()));
  if (call != nullptr) *call = c;
  return space->used();
}

gtn_status SelectPlan::run(Stream& stream, const void* args, gtn_message* message) const {
  const gtn_select_args& a = *static_cast<const gtn_select_args*>(args);
  Workspace measure(nullptr);
  Call c = {};
  const int64_t bytes = lay_out(&measure, a, &c);
  char* memory = static_cast<char*>(stream.scratch(bytes));
  if (memory == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for %lld bytes of workspace", static_cast<long long>(bytes));
  }
  Workspace space(memory);
  lay_out(&space, a, &c);
  gtn_status status = take_index("q_index", "len_q", a.q_index, a.len_q, a.sequences, c.q_index, message);
  if (status == GTN_OK) status = take_index("k_index", "len_k", a.k_index, a.len_k, a.sequences, c.k_index, message);
  if (status != GTN_OK) return status;
  a.block_offsets[0] = 0;
  fill(c);
  return GTN_OK;
}

// Copies an index and checks the copy: another thread may write to the original meanwhile.
gtn_status SelectPlan::take_index(const char* name, const char* limit_name, const int64_t* index, int64_t limit,
                                  int64_t sequences, int64_t* copy, gtn_message* message) const {
  const int64_t count = index == nullptr ? 0 : sequences + (packed_ ? 1 : 0);
  if (count > 0) std::memcpy(copy, index, static_cast<size_t>(count) * sizeof *copy);
  return check_index(name, index == nullptr ? nullptr : copy, packed_, limit_name, limit, sequences, message);
}

void SelectPlan::write_lists(Call& c, int64_t from, int64_t to) const {
  const int64_t end = to * lists_;
  for (int64_t first = from * lists_; first < end; first += kRoundLists) {
    const int64_t lists = at_most(kRoundLists, end - first);
    parallel(device_.threads, ceil_div(lists, kTaskLists), [&](int64_t task, int on) {
      for (int64_t i = task * kTaskLists; i < at_most((task + 1) * kTaskLists, lists); ++i) {
        const int64_t of_all = first + i, s = of_all / lists_ / desc_.heads;
        const Sequence of = sequence(c, s);
        const int64_t block = of_all % lists_;
        c.counts[i] = 0;
        if (block * desc_.block_q >= of.len_q || of.len_k == 0) continue;
        c.counts[i] = list(c, s, of, of_all / lists_ % desc_.heads, block, worker(c, on), c.columns + i * width_,
                           c.biases == nullptr ? nullptr : c.biases + i * width_);
      }
    });
    for (int64_t i = 0; i < lists; ++i) {
      const size_t bytes = static_cast<size_t>(c.counts[i]) * 4;
      if (bytes > 0) std::memcpy(c.args.block_columns + c.entries, c.columns + i * width_, bytes);
      if (bytes > 0 && c.biases != nullptr) std::memcpy(c.args.block_bias + c.entries, c.biases + i * width_, bytes);
      c.entries += c.counts[i];
      c.args.block_offsets[first + i + 1] = c.entries;
    }
  }
}

SelectRows SelectPlan::q_rows(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t i, int64_t count,
                              int64_t heads) const {
  const int64_t* strides = desc_.q.strides;
  const int64_t row = strides[packed_ ? 0 : 1], across = strides[packed_ ? 1 : 2];
  const int64_t at = (packed_ ? 0 : s * strides[0]) + (of.first_q + i) * row + head * across;
  return {static_cast<const char*>(c.args.q) + at * element_, desc_.q.dtype, row, across, heads, count, dk_};
}

SelectRows SelectPlan::k_rows(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t j,
                              int64_t count) const {
  const int64_t* strides = desc_.k.strides;
  const int64_t row = strides[packed_ ? 0 : 1], across = strides[packed_ ? 1 : 2];
  const int64_t at = (packed_ ? 0 : s * strides[0]) + (of.first_k + j) * row + head * across;
  return {static_cast<const char*>(c.args.k) + at * element_, desc_.k.dtype, row, 0, 1, count, dk_};
}

gtn_status select_plan(const Device& device, const gtn_select_desc& desc, Plan** plan, gtn_plan_info* info,
                       gtn_message* message) {
  for (const gtn_tensor_desc* tensor : {&desc.q, &desc.k}) {
    for (int32_t d = 0; d < tensor->rank; ++d) {
      const int64_t most = d == tensor->rank - 1 ? kMostHeadSize : kMostPositions - 1;
      if (tensor->shape[d] <= most) continue;
      return fail(message, GTN_UNSUPPORTED, "%s.shape[%d]: is %lld, this backend takes up to %lld",
                  tensor == &desc.q ? "q" : "k", d, static_cast<long long>(tensor->shape[d]),
                  static_cast<long long>(most));
    }
  }
  if (desc.max_sequences >= kMostPositions) {
    return fail(message, GTN_UNSUPPORTED, "max_sequences: is %lld, this backend takes fewer than 2^31",
                static_cast<long long>(desc.max_sequences));
  }
  int64_t bits = 0;
  SelectPlan* created;
  switch (desc.kind) {
    case GTN_SELECT_BLOCKS: created = new_select_blocks(device, desc); break;
    case GTN_SELECT_LSH:
      created = new_select_lsh(device, desc);
      bits = desc.buckets / 2;
      break;
    default:
      created = new_select_retrieval(device, desc);
      bits = __builtin_ctzll(static_cast<uint64_t>(desc.buckets));
  }
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a selection plan");
  const gtn_status status = bits == 0 ? GTN_OK : created->make_rotations(bits, message);
  if (status != GTN_OK) {
    delete created;
    return status;
  }
  created->describe(info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
