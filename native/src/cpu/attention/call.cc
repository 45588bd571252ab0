// Taking the arrays of a call. Each error names the array, the place and what was expected there.
#include "cpu/attention/call.h"

#include <cstring>

#include "core/message.h"
#include "cpu/sequences.h"

namespace gatun::cpu {
namespace {

gtn_status check_order(const char* name, const int32_t* order, int64_t length, bool complete, int64_t s, int64_t head,
                       uint8_t* seen, gtn_message* message) {
  if (length > 0) std::memset(seen, 0, static_cast<size_t>(length));
  for (int64_t i = 0; i < length; ++i) {
    if (order[i] == -1 && !complete) continue;
    if (order[i] < 0 || order[i] >= length || seen[order[i]] != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "%s[%lld][%lld][%lld] is %d, expected each number below %lld once%s",
                  name, static_cast<long long>(s), static_cast<long long>(head), static_cast<long long>(i), order[i],
                  static_cast<long long>(length), complete ? "" : ", or -1");
    }
    seen[order[i]] = 1;
  }
  return GTN_OK;
}

}  // namespace

int64_t Shape::lay_out(Workspace* space, const gtn_attention_args& a, int64_t entries, int64_t worker_bytes,
                       int64_t partial_floats, Call* call) const {
  Call c = {};
  const int64_t s = a.sequences;
  const bool plan = call == nullptr;  // at the plan's maxima, with all arrays
  c.args = a;
  if (plan || a.q_index != nullptr) c.q_index = space->take<int64_t>(s + 1);
  if (plan || a.k_index != nullptr) c.k_index = space->take<int64_t>(s + 1);
  if (paged) c.block_table = space->take<int32_t>(times(s, pages_per_sequence()));
  if (masks & GTN_MASK_PREFIX) c.prefixes = space->take<int64_t>(s);
  if (globals()) {
    c.globals = space->take<int32_t>(times(s, desc.max_globals));
    c.global_queries = space->take<int32_t>(times(s, desc.max_globals));
    c.global_counts = space->take<int64_t>(2 * s);
  }
  if (lists()) {
    c.block_offsets = space->take<int64_t>(list_rows(s) + 1);
    c.block_columns = space->take<int32_t>(entries);
    if (desc.max_block_masks > 0) c.block_mask_index = space->take<int32_t>(entries);
  }
  if (ordered()) {
    c.q_order = space->take<int32_t>(times(packed ? 1 : s, desc.order_heads * len_q));
    c.k_order = space->take<int32_t>(times(packed && !paged ? 1 : s, desc.order_heads * len_k));
    c.seen = space->take<uint8_t>(len_q > len_k ? len_q : len_k);
  }
  if (documents()) {
    c.label_chunks = ceil_div(len_k, kLabelKeys);
    c.labels = space->take<LabelRange>(times(s, label_heads * c.label_chunks));
  }
  c.first_item = space->take<int64_t>(s * units + 1);
  c.first_partial = space->take<int64_t>(s * units + 1);
  c.workers = space->take<char>(worker_bytes);
  c.partial = space->take<float>(partial_floats);
  if (call != nullptr) *call = c;
  return space->used();
}

gtn_status Shape::take_arrays(Call* c, int64_t entries, gtn_message* message) const {
  const gtn_attention_args& a = c->args;
  const int64_t s = a.sequences;
  const auto copy = [](auto* to, const auto* from, int64_t count) {
    if (to != nullptr && count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof *to);
  };
  copy(c->q_index, a.q_index, s + (packed ? 1 : 0));
  copy(c->k_index, a.k_index, s + (packed && !paged ? 1 : 0));
  gtn_status status = check_index("q_index", c->q_index, packed, "len_q", a.len_q, s, message);
  if (status == GTN_OK) status = check_index("k_index", c->k_index, packed && !paged, "len_k", a.len_k, s, message);
  if (status != GTN_OK) return status;
  c->args.q_index = c->q_index;
  c->args.k_index = c->k_index;
  copy(c->block_table, a.block_table, s * pages_per_sequence());
  copy(c->prefixes, a.prefixes, s);
  copy(c->globals, a.globals, s * desc.max_globals);
  if (lists()) {
    copy(c->block_offsets, a.block_offsets, list_rows(s) + 1);
    copy(c->block_columns, a.block_columns, entries);
    copy(c->block_mask_index, a.block_mask_index, entries);
  }
  copy(c->q_order, a.q_order, (packed ? 1 : s) * desc.order_heads * len_q);
  copy(c->k_order, a.k_order, (packed && !paged ? 1 : s) * desc.order_heads * len_k);
  for (int64_t i = 0; status == GTN_OK && i < s; ++i) status = check_sequence(*c, i, message);
  if (status == GTN_OK && lists()) status = check_lists(*c, entries, message);
  return status;
}

// What the arrays say of one sequence; also finds which queries are global.
gtn_status Shape::check_sequence(const Call& c, int64_t s, gtn_message* message) const {
  const Sequence of = sequence(c.args, s);
  const auto wrong = [&](const char* name, int64_t i, int64_t value, const char* expected, int64_t limit) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s[%lld][%lld] is %lld, expected %s%lld", name,
                static_cast<long long>(s), static_cast<long long>(i), static_cast<long long>(value), expected,
                static_cast<long long>(limit));
  };
  for (int64_t i = 0; paged && i < ceil_div(of.len_k, page_size); ++i) {
    const int32_t page = c.block_table[s * pages_per_sequence() + i];
    if (page < 0 || page >= pages) return wrong("block_table", i, page, "a page below ", pages);
  }
  if (c.prefixes != nullptr && c.prefixes[s] < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "prefixes[%lld] is %lld, expected 0 or more", static_cast<long long>(s),
                static_cast<long long>(c.prefixes[s]));
  }
  if ((masks & GTN_MASK_TREE) != 0 && of.len_q > desc.max_tree) {
    return fail(message, GTN_INVALID_ARGUMENT,
                "len_q: is %lld in sequence %lld, expected at most the plan's max_tree of %lld",
                static_cast<long long>(of.len_q), static_cast<long long>(s), static_cast<long long>(desc.max_tree));
  }
  if (desc.has_bias != 0) {
    const int64_t* shape = desc.bias.shape;
    if (s >= shape[0] || of.len_q > shape[2] || of.len_k > shape[3]) {
      return fail(message, GTN_INVALID_ARGUMENT,
                  "bias: is [%lld, %lld, %lld, %lld], expected room for sequence %lld of %lld "
                  "queries and %lld keys",
                  static_cast<long long>(shape[0]), static_cast<long long>(shape[1]), static_cast<long long>(shape[2]),
                  static_cast<long long>(shape[3]), static_cast<long long>(s), static_cast<long long>(of.len_q),
                  static_cast<long long>(of.len_k));
    }
  }
  if (c.globals != nullptr) {
    const int32_t* positions = c.globals + s * desc.max_globals;
    int32_t* queries = c.global_queries + s * desc.max_globals;
    int64_t count = 0, found = 0;
    while (count < desc.max_globals && positions[count] >= 0) {
      const int32_t least = count == 0 ? 0 : positions[count - 1] + 1;
      if (positions[count] < least || positions[count] >= of.len_k) {
        return wrong("globals", count, positions[count], "rising positions below len_k = ", of.len_k);
      }
      const int64_t query = positions[count] - (of.len_k - of.len_q);
      if (query >= 0) queries[found++] = static_cast<int32_t>(query);
      ++count;
    }
    for (int64_t i = count; i < desc.max_globals; ++i) {
      if (positions[i] != -1) return wrong("globals", i, positions[i], "only ", -1);
    }
    c.global_counts[2 * s] = count;
    c.global_counts[2 * s + 1] = found;
  }
  for (int64_t h = 0; h < desc.order_heads; ++h) {
    gtn_status status = check_order("q_order", q_order(c, s, h, of), of.len_q, true, s, h, c.seen, message);
    if (status == GTN_OK) status = check_order("k_order", k_order(c, s, h, of), of.len_k, false, s, h, c.seen, message);
    if (status != GTN_OK) return status;
  }
  return GTN_OK;
}

gtn_status Shape::check_lists(const Call& c, int64_t entries, gtn_message* message) const {
  const int64_t rows = list_rows(c.args.sequences);
  if (c.block_offsets[0] != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "block_offsets[0] is %lld, expected 0",
                static_cast<long long>(c.block_offsets[0]));
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = c.block_offsets[row], last = c.block_offsets[row + 1];
    if (last < first || last > entries) {
      return fail(message, GTN_INVALID_ARGUMENT,
                  "block_offsets[%lld] is %lld, expected an offset that does not fall, %lld to %lld",
                  static_cast<long long>(row + 1), static_cast<long long>(last), static_cast<long long>(first),
                  static_cast<long long>(entries));
    }
    for (int64_t entry = first; entry < last; ++entry) {
      const int64_t least = entry == first ? 0 : int64_t{c.block_columns[entry - 1]} + 1;
      if (c.block_columns[entry] < least) {
        return fail(message, GTN_INVALID_ARGUMENT,
                    "block_columns[%lld] is %d, expected columns that rise, at least %lld",
                    static_cast<long long>(entry), c.block_columns[entry], static_cast<long long>(least));
      }
      if (c.block_mask_index != nullptr &&
          (c.block_mask_index[entry] < -1 || c.block_mask_index[entry] >= desc.max_block_masks)) {
        return fail(message, GTN_INVALID_ARGUMENT, "block_mask_index[%lld] is %d, expected -1 to %lld",
                    static_cast<long long>(entry), c.block_mask_index[entry],
                    static_cast<long long>(desc.max_block_masks - 1));
      }
    }
  }
  return GTN_OK;
}

}  // namespace gatun::cpu
