// Random combinations of everything that attention can be asked for, against an FP64 reference, on every level of this
// machine. Keys that no query sees, unused slots of pages and everything around the tensors hold NaN.
//
// Tolerance: the derivation in attention_test.cc, where a score's error grows by what is done to it: softcap, whose
// derivative is at most 1, by 8 u |c| (division, tanh of 3 ulp, product); ALiBi by 2 u |slope| |p - j|; each addend by
// 2 u of itself, as the sum of addends and the sum with the score are rounded; and each of these leaves one rounding of
// the score, u |s|. INT8 keys and values take one rounding, u, of each element. Parts of a long pass over the keys are
// merged like further blocks. A sink logit adds one term to the sum of weights, and 8 u for its exponentials.
#include <algorithm>
#include <functional>
#include <numeric>
#include <sstream>

#include "device_test.h"

namespace gatun::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kU = 0x1p-24;

double rounding(int32_t dtype) { return dtype == GTN_F32 ? 0x1p-24 : dtype == GTN_F16 ? 0x1p-11 : 0x1p-8; }

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  int64_t of(std::initializer_list<int64_t> values) {
    return values.begin()[below(static_cast<int64_t>(values.size()))];
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  float normal() { return normal_(random_); }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_{0.0f, 1.0f};
};

struct Sequence {
  int64_t first_q, len_q, first_k, len_k;
};

struct Problem {
  uint64_t seed;
  int32_t q_dtype, k_dtype, out_dtype;
  bool packed, paged, lse;
  int64_t sequences, len_q, len_k;  // of the plan: tokens where packed
  int64_t heads_q, heads_k, dk, dv, page_size = 1, pages = 0, table_row = 0;
  std::vector<Sequence> parts;
  std::vector<gtn_attention_pattern> patterns;
  gtn_attention_desc desc = {};
  Buffer q{GTN_F32, 0}, k{GTN_F32, 0}, v{GTN_F32, 0}, out{GTN_F32, 0}, sums{GTN_F32, 0}, bias{GTN_F32, 0};
  std::vector<float> k_scales, v_scales, sink_logits, slopes, block_bias;
  std::vector<int64_t> q_index, k_index, prefixes, block_offsets;
  std::vector<int32_t> table, globals, q_documents, k_documents, columns, mask_index, q_order, k_order;
  std::vector<uint8_t> tree, masks;

  const gtn_attention_pattern& pattern(int64_t h) const {
    return patterns[patterns.size() == 1 ? 0 : static_cast<size_t>(h)];
  }
  bool uses(uint32_t mask) const {
    return std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) { return (p.masks & mask) != 0; });
  }
  int64_t head_of(int64_t heads, int64_t h) const {
    return heads == 1 ? 0 : heads == heads_q ? h : h / (heads_q / heads_k);
  }
  int64_t q_at(int64_t s, int64_t i, int64_t h) const {
    return (packed ? parts[static_cast<size_t>(s)].first_q + i : s * len_q + i) * heads_q + h;
  }
  // Of a row of k or v, in rows of heads.
  int64_t k_at(int64_t s, int64_t j, int64_t h) const {
    if (paged) {
      return (table[static_cast<size_t>(s * table_row + j / page_size)] * page_size + j % page_size) * heads_k + h;
    }
    return (packed ? parts[static_cast<size_t>(s)].first_k + j : s * len_k + j) * heads_k + h;
  }
  int64_t slot_q(int64_t s, int64_t h, int64_t heads, int64_t i) const {
    return packed ? h * len_q + parts[static_cast<size_t>(s)].first_q + i : (s * heads + h) * len_q + i;
  }
  int64_t slot_k(int64_t s, int64_t h, int64_t heads, int64_t j) const {
    return packed && !paged ? h * len_k + parts[static_cast<size_t>(s)].first_k + j : (s * heads + h) * len_k + j;
  }

  bool listed(int64_t s, int64_t h, int64_t i, int64_t j, double* extra) const;
  bool visible(int64_t s, int64_t h, int64_t i, int64_t j, double* extra) const;
  std::string text() const;
};

std::string Problem::text() const {
  std::ostringstream o;
  o << "seed " << seed << ": q " << q_dtype << " k " << k_dtype << " out " << out_dtype << (packed ? " packed" : "")
    << (paged ? " paged " : "") << (paged ? page_size : 0) << " heads " << heads_q << "/" << heads_k << " d " << dk
    << "/" << dv << " len " << len_q << "/" << len_k;
  for (const Sequence& p : parts) o << " [" << p.len_q << "," << p.len_k << "]";
  for (const auto& p : patterns) {
    o << " {masks " << p.masks << " window " << p.window_left << "," << p.window_right << " dilation " << p.dilation
      << " sinks " << p.sinks << "}";
  }
  o << " softcap " << desc.softcap << " self " << desc.self_bias << " slopes " << desc.has_slopes << " bias "
    << desc.has_bias << " sinklogits " << desc.has_sink_logits << " layers " << desc.document_layers << " blocks "
    << desc.block_q << "x" << desc.block_k << " order " << desc.order_heads;
  return o.str();
}

bool Problem::listed(int64_t s, int64_t h, int64_t i, int64_t j, double* extra) const {
  int64_t slot_i = i, slot_j = j;
  const Sequence& of = parts[static_cast<size_t>(s)];
  if (desc.order_heads > 0) {
    const int64_t oh = head_of(desc.order_heads, h);
    slot_i = slot_j = -1;
    for (int64_t x = 0; x < of.len_q; ++x) {
      if (q_order[static_cast<size_t>(slot_q(s, oh, desc.order_heads, x))] == i) slot_i = x;
    }
    for (int64_t x = 0; x < of.len_k; ++x) {
      if (k_order[static_cast<size_t>(slot_k(s, oh, desc.order_heads, x))] == j) slot_j = x;
    }
    if (slot_j < 0) return false;
  }
  if ((pattern(h).masks & GTN_MASK_BLOCKS) == 0) return true;
  const int64_t rows = (len_q + desc.block_q - 1) / desc.block_q;
  const int64_t row = (s * desc.block_heads + head_of(desc.block_heads, h)) * rows + slot_i / desc.block_q;
  for (int64_t e = block_offsets[static_cast<size_t>(row)]; e < block_offsets[static_cast<size_t>(row + 1)]; ++e) {
    if (columns[static_cast<size_t>(e)] != slot_j / desc.block_k) continue;
    if (!block_bias.empty()) *extra += static_cast<double>(block_bias[static_cast<size_t>(e)]);
    if (mask_index.empty() || mask_index[static_cast<size_t>(e)] < 0) return true;
    return masks[static_cast<size_t>((mask_index[static_cast<size_t>(e)] * desc.block_q + slot_i % desc.block_q) *
                                         desc.block_k +
                                     slot_j % desc.block_k)] != 0;
  }
  return false;
}

bool Problem::visible(int64_t s, int64_t h, int64_t i, int64_t j, double* extra) const {
  const gtn_attention_pattern& p = pattern(h);
  const Sequence& of = parts[static_cast<size_t>(s)];
  const int64_t position = i + of.len_k - of.len_q;
  const auto is_global = [&](int64_t x) {
    if ((p.masks & GTN_MASK_GLOBALS) == 0 || x < 0) return false;
    const auto first = globals.begin() + s * desc.max_globals;
    return std::find(first, first + desc.max_globals, static_cast<int32_t>(x)) != first + desc.max_globals;
  };
  const bool lifted = j < p.sinks || is_global(j) || is_global(position);
  bool left = p.window_left < 0 || j >= position - p.window_left * p.dilation || lifted;
  bool right = p.window_right < 0 || j <= position + p.window_right * p.dilation;
  if (lifted && p.window_right > 0) right = true;
  if ((p.masks & GTN_MASK_PREFIX) != 0 && j < prefixes[static_cast<size_t>(s)]) right = true;
  const bool step = lifted || std::abs(position - j) % p.dilation == 0;
  if (!left || !right || !step) return false;
  if (p.masks & GTN_MASK_DOCUMENTS) {
    const int64_t layers = desc.document_layers, heads = desc.document_heads, dh = head_of(heads, h);
    for (int64_t layer = 0; layer < layers; ++layer) {
      const int64_t qa =
          packed ? (layer * heads + dh) * len_q + of.first_q + i : ((s * layers + layer) * heads + dh) * len_q + i;
      const int64_t ka = packed && !paged ? (layer * heads + dh) * len_k + of.first_k + j
                                          : ((s * layers + layer) * heads + dh) * len_k + j;
      const bool equal = q_documents[static_cast<size_t>(qa)] == k_documents[static_cast<size_t>(ka)];
      if (equal != (layer == layers - 1)) return false;
    }
  }
  if (p.masks & GTN_MASK_TREE) {
    const int64_t drafted = j - (of.len_k - of.len_q);
    if (drafted >= 0 && tree[static_cast<size_t>((s * desc.max_tree + i) * desc.max_tree + drafted)] == 0) return false;
  }
  return listed(s, h, i, j, extra);
}

std::vector<int32_t> shuffled(Draw& draw, int64_t n) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n; i-- > 1;) std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(draw.below(i + 1))]);
  return order;
}

gtn_attention_pattern draw_pattern(Draw& draw, uint32_t masks) {
  gtn_attention_pattern p = {sizeof p, masks, -1, -1, 1, 0};
  if (draw.one_in(2)) p.window_right = 0;
  if (draw.one_in(2)) p.window_left = draw.of({0, 1, 3, 7, 20, 63, 150});
  if (draw.one_in(4)) p.window_right = draw.of({0, 2, 9, 40});
  if (draw.one_in(4)) p.dilation = draw.of({2, 3, 5, 400});
  if (draw.one_in(3)) p.sinks = draw.of({1, 4, 17, 1000});
  return p;
}

Problem make_problem(uint64_t seed) {
  Draw draw(seed);
  Problem p;
  p.seed = seed;
  p.q_dtype = static_cast<int32_t>(draw.of({GTN_F32, GTN_F32, GTN_BF16, GTN_F16}));
  p.k_dtype = static_cast<int32_t>(draw.one_in(3) ? draw.of({GTN_F32, GTN_BF16, GTN_F16, GTN_S8}) : p.q_dtype);
  p.out_dtype = draw.one_in(2) ? p.q_dtype : static_cast<int32_t>(GTN_F32);
  p.packed = draw.one_in(3);
  p.paged = draw.one_in(3);
  p.lse = draw.one_in(2);
  p.heads_k = draw.of({1, 1, 2, 3});
  p.heads_q = p.heads_k * draw.of({1, 1, 2, 4});
  p.dk = draw.of({1, 8, 16, 32, 33, 40});
  p.dv = draw.of({8, p.dk, 24, 5});
  p.sequences = draw.of({1, 2, 3});
  // Few queries over many keys are split among workers; many queries are cut into several tiles.
  const bool deep = draw.one_in(25), tall = draw.one_in(25);
  const int64_t longest_q = deep ? draw.of({1, 2, 5}) : tall ? 300 : draw.of({1, 2, 5, 17, 40, 70});
  const int64_t longest_k = deep ? draw.of({2100, 5000}) : draw.of({1, 7, 33, 64, 130, 140, 300});
  int64_t tokens_q = 0, tokens_k = 0;
  const bool vary = p.packed || draw.one_in(2);
  for (int64_t s = 0; s < p.sequences; ++s) {
    Sequence of = {p.packed ? tokens_q : 0, longest_q, p.packed && !p.paged ? tokens_k : 0, longest_k};
    if (vary) of.len_q = draw.below(longest_q + 1);
    if (vary || p.paged) of.len_k = draw.below(longest_k + 1);
    p.parts.push_back(of);
    tokens_q += of.len_q;
    tokens_k += of.len_k;
  }
  p.len_q = p.packed ? tokens_q + draw.below(3) : longest_q;
  p.len_k = p.packed && !p.paged ? tokens_k + draw.below(3) : longest_k;
  if (p.packed) {
    p.q_index.push_back(0);
    for (const Sequence& of : p.parts) p.q_index.push_back(of.first_q + of.len_q);
  } else if (vary) {
    for (const Sequence& of : p.parts) p.q_index.push_back(of.len_q);
  }
  if (p.packed && !p.paged) {
    p.k_index.push_back(0);
    for (const Sequence& of : p.parts) p.k_index.push_back(of.first_k + of.len_k);
  } else if (vary || p.paged) {
    for (const Sequence& of : p.parts) p.k_index.push_back(of.len_k);
  }

  uint32_t masks = 0;
  for (uint32_t mask : {GTN_MASK_PREFIX, GTN_MASK_GLOBALS, GTN_MASK_DOCUMENTS, GTN_MASK_TREE, GTN_MASK_BLOCKS}) {
    if (draw.one_in(5)) masks |= mask;
  }
  const bool per_head = draw.one_in(4);
  for (int64_t h = 0; h < (per_head ? p.heads_q : 1); ++h) {
    p.patterns.push_back(
        draw_pattern(draw, per_head && draw.one_in(2) ? masks & static_cast<uint32_t>(draw.below(32)) : masks));
  }
  gtn_attention_desc& d = p.desc;
  d.size = sizeof d;
  d.scale = draw.one_in(4) ? -0.3f : 1.0f / std::sqrt(static_cast<float>(p.dk));
  const int64_t heads[] = {1, p.heads_k, p.heads_q};
  if (p.packed) {
    d.q = tensor(p.q_dtype, {p.len_q, p.heads_q, p.dk});
    d.out = tensor(p.out_dtype, {p.len_q, p.heads_q, p.dv});
    d.max_sequences = p.sequences;
  } else {
    d.q = tensor(p.q_dtype, {p.sequences, p.len_q, p.heads_q, p.dk});
    d.out = tensor(p.out_dtype, {p.sequences, p.len_q, p.heads_q, p.dv});
  }
  if (p.paged) {
    p.page_size = draw.of({1, 3, 16, 64, 256});
    p.table_row = (p.len_k + p.page_size - 1) / p.page_size;
    p.pages = p.sequences * p.table_row + 2;
    const std::vector<int32_t> order = shuffled(draw, p.pages);
    p.table.assign(order.begin(), order.begin() + p.sequences * p.table_row);
    d.paged = 1;
    d.max_len_k = p.len_k;
    d.k = tensor(p.k_dtype, {p.pages, p.page_size, p.heads_k, p.dk});
    d.v = tensor(p.k_dtype, {p.pages, p.page_size, p.heads_k, p.dv});
  } else if (p.packed) {
    d.k = tensor(p.k_dtype, {p.len_k, p.heads_k, p.dk});
    d.v = tensor(p.k_dtype, {p.len_k, p.heads_k, p.dv});
  } else {
    d.k = tensor(p.k_dtype, {p.sequences, p.len_k, p.heads_k, p.dk});
    d.v = tensor(p.k_dtype, {p.sequences, p.len_k, p.heads_k, p.dv});
  }
  if (draw.one_in(4)) d.softcap = 2.5f;
  if (draw.one_in(4)) d.self_bias = draw.one_in(2) ? -1e5f : 0.7f;
  const auto fill = [&](std::vector<float>& array, int64_t n, float scale) {
    for (int64_t i = 0; i < n; ++i) array.push_back(scale * draw.normal());
  };
  if (draw.one_in(4)) fill(p.sink_logits, p.heads_q, 2.0f);
  if (draw.one_in(4)) {
    for (int64_t h = 0; h < p.heads_q; ++h) p.slopes.push_back(0.5f / static_cast<float>(h + 1));
  }
  d.has_sink_logits = !p.sink_logits.empty();
  d.has_slopes = !p.slopes.empty();
  if (draw.one_in(4)) {
    d.has_bias = 1;
    const int64_t most_q = std::min(longest_q, p.len_q), most_k = std::min(longest_k, p.len_k);
    const bool repeat_s = draw.one_in(2), repeat_h = draw.one_in(2), repeat_q = draw.one_in(4);
    const int64_t bs = repeat_s ? 1 : p.sequences, bh = repeat_h ? 1 : p.heads_q, bq = repeat_q ? 1 : most_q;
    d.bias =
        tensor(draw.one_in(2) ? p.q_dtype : static_cast<int32_t>(GTN_F32), {p.sequences, p.heads_q, most_q, most_k});
    d.bias.strides[0] = repeat_s ? 0 : bh * bq * most_k;
    d.bias.strides[1] = repeat_h ? 0 : bq * most_k;
    d.bias.strides[2] = repeat_q ? 0 : most_k;
    p.bias = Buffer(d.bias.dtype, bs * bh * bq * most_k);
    for (int64_t i = 0; i < p.bias.size(); ++i) {
      p.bias.set(i, draw.one_in(6) ? -std::numeric_limits<float>::infinity() : draw.normal());
    }
  }
  if (p.uses(GTN_MASK_PREFIX)) {
    for (int64_t s = 0; s < p.sequences; ++s) p.prefixes.push_back(draw.of({0, 3, 50, INT64_MAX}));
  }
  if (p.uses(GTN_MASK_GLOBALS)) {
    d.max_globals = draw.of({1, 3, 20});
    for (const Sequence& of : p.parts) {
      std::vector<int32_t> some = shuffled(draw, of.len_k);
      some.resize(static_cast<size_t>(std::min(draw.below(d.max_globals + 1), of.len_k)));
      std::sort(some.begin(), some.end());
      some.resize(static_cast<size_t>(d.max_globals), -1);
      p.globals.insert(p.globals.end(), some.begin(), some.end());
    }
  }
  if (p.uses(GTN_MASK_DOCUMENTS)) {
    d.document_heads = heads[draw.below(3)];
    d.document_layers = draw.of({1, 1, 2, 3});
    const bool sorted = draw.one_in(2);
    const auto labels = [&](std::vector<int32_t>& array, int64_t n, int64_t length) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = i % std::max<int64_t>(length, 1);
        array.push_back(static_cast<int32_t>(sorted ? at / 30 - 1 : draw.below(3)));
      }
    };
    labels(p.q_documents, (p.packed ? 1 : p.sequences) * d.document_layers * d.document_heads * p.len_q, p.len_q);
    labels(p.k_documents, (p.packed && !p.paged ? 1 : p.sequences) * d.document_layers * d.document_heads * p.len_k,
           p.len_k);
  }
  if (p.uses(GTN_MASK_TREE)) {
    d.max_tree = longest_q + draw.below(3);
    for (int64_t i = 0; i < p.sequences * d.max_tree * d.max_tree; ++i) p.tree.push_back(draw.one_in(2) ? 0 : 1);
  }
  if (p.uses(GTN_MASK_BLOCKS)) {
    d.block_q = draw.of({1, 2, 16, 33});
    d.block_k = draw.of({1, 3, 16, 64, 200});
    d.block_heads = heads[draw.below(3)];
    const int64_t rows = (p.len_q + d.block_q - 1) / d.block_q, cols = (p.len_k + d.block_k - 1) / d.block_k;
    p.block_offsets.push_back(0);
    for (int64_t row = 0; row < p.sequences * d.block_heads * rows; ++row) {
      const int64_t density = draw.of({1, 2, 4, 1000});
      for (int64_t c = 0; c < cols; ++c) {
        if (draw.one_in(density)) p.columns.push_back(static_cast<int32_t>(c));
      }
      p.block_offsets.push_back(static_cast<int64_t>(p.columns.size()));
    }
    const int64_t entries = static_cast<int64_t>(p.columns.size());
    d.max_blocks = entries + draw.below(3);
    if (draw.one_in(2)) fill(p.block_bias, d.max_blocks, 1.0f);
    d.has_block_bias = !p.block_bias.empty();
    if (draw.one_in(2)) {
      d.max_block_masks = 3;
      for (int64_t e = 0; e < d.max_blocks; ++e) p.mask_index.push_back(static_cast<int32_t>(draw.below(4)) - 1);
      for (int64_t i = 0; i < 3 * d.block_q * d.block_k; ++i) p.masks.push_back(draw.one_in(2) ? 0 : 1);
    }
    p.columns.resize(static_cast<size_t>(d.max_blocks), -77);
  }
  if (draw.one_in(5)) {
    d.order_heads = heads[draw.below(3)];
    p.q_order.assign(static_cast<size_t>((p.packed ? 1 : p.sequences) * d.order_heads * p.len_q), -77);
    p.k_order.assign(static_cast<size_t>((p.packed && !p.paged ? 1 : p.sequences) * d.order_heads * p.len_k), -77);
    for (int64_t s = 0; s < p.sequences; ++s) {
      for (int64_t h = 0; h < d.order_heads; ++h) {
        const Sequence& of = p.parts[static_cast<size_t>(s)];
        const std::vector<int32_t> q = shuffled(draw, of.len_q);
        std::vector<int32_t> k = shuffled(draw, of.len_k);
        for (int32_t& key : k) key = draw.one_in(9) ? -1 : key;
        std::copy(q.begin(), q.end(), p.q_order.begin() + p.slot_q(s, h, d.order_heads, 0));
        std::copy(k.begin(), k.end(), p.k_order.begin() + p.slot_k(s, h, d.order_heads, 0));
      }
    }
  }

  // Values, NaN where none is used.
  const int64_t rows_q = (p.packed ? 1 : p.sequences) * p.len_q * p.heads_q;
  const int64_t rows_k = (p.paged ? p.pages * p.page_size : p.packed ? p.len_k : p.sequences * p.len_k) * p.heads_k;
  p.q = Buffer(p.q_dtype, rows_q * p.dk);
  p.k = Buffer(p.k_dtype, rows_k * p.dk);
  p.v = Buffer(p.k_dtype, rows_k * p.dv);
  p.out = Buffer(p.out_dtype, rows_q * p.dv);
  p.sums = Buffer(GTN_F32, rows_q);
  p.q.fill(kNan);
  const bool s8 = p.k_dtype == GTN_S8;
  if (s8) {
    p.k_scales.assign(static_cast<size_t>(rows_k), kNan);
    p.v_scales.assign(static_cast<size_t>(rows_k), kNan);
    for (int64_t i = 0; i < p.k.size(); ++i) p.k.set(i, static_cast<float>(draw.below(255) - 127));
    for (int64_t i = 0; i < p.v.size(); ++i) p.v.set(i, static_cast<float>(draw.below(255) - 127));
  } else {
    p.k.fill(kNan);
    p.v.fill(kNan);
  }
  const int64_t group = p.heads_q / p.heads_k;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const Sequence& of = p.parts[static_cast<size_t>(s)];
    for (int64_t i = 0; i < of.len_q * p.heads_q; ++i) {
      const int64_t row = p.q_at(s, i / p.heads_q, i % p.heads_q);
      for (int64_t e = 0; e < p.dk; ++e) p.q.set(row * p.dk + e, draw.normal());
    }
    for (int64_t j = 0; j < of.len_k; ++j) {
      for (int64_t h = 0; h < p.heads_k; ++h) {
        bool seen = false;
        for (int64_t i = 0; i < of.len_q * group && !seen; ++i) {
          double extra = 0;
          seen = p.visible(s, h * group + i % group, i / group, j, &extra);
        }
        if (!seen) continue;
        const int64_t row = p.k_at(s, j, h);
        if (s8) {
          p.k_scales[static_cast<size_t>(row)] = 0.01f * (1.0f + std::abs(draw.normal()));
          p.v_scales[static_cast<size_t>(row)] = 0.01f * (1.0f + std::abs(draw.normal()));
          continue;
        }
        for (int64_t e = 0; e < p.dk; ++e) p.k.set(row * p.dk + e, draw.normal());
        for (int64_t e = 0; e < p.dv; ++e) p.v.set(row * p.dv + e, draw.normal());
      }
    }
  }
  return p;
}

template <typename T>
const T* or_null(const std::vector<T>& array, bool used) {
  static const T empty = {};
  return !used ? nullptr : array.empty() ? &empty : array.data();
}

void run(Problem& p, const std::string& device, int threads) {
  OpenDevice on(device, threads);
  Message message;
  gtn_plan plan = 0;
  p.desc.patterns = p.patterns.data();
  p.desc.pattern_count = static_cast<int64_t>(p.patterns.size());
  ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &p.desc, &plan, &message)) << message.text << "; " << p.text();
  p.out.fill(-1234.5f);
  p.sums.fill(-1234.5f);
  const bool documents = p.uses(GTN_MASK_DOCUMENTS), blocks = p.uses(GTN_MASK_BLOCKS), s8 = p.k_dtype == GTN_S8;
  const bool ordered = p.desc.order_heads > 0, masks = blocks && p.desc.max_block_masks > 0;
  ASSERT_EQ(
      GTN_OK,
      gtn_attention_run_with(
          plan, on.stream, p.sequences, p.len_q, p.len_k, p.q_index.empty() ? nullptr : p.q_index.data(),
          p.k_index.empty() ? nullptr : p.k_index.data(), p.q.size() > 0 ? p.q.data() : &p,
          p.k.size() > 0 ? p.k.data() : nullptr, p.v.size() > 0 ? p.v.data() : nullptr,
          p.out.size() > 0 ? p.out.data() : &p, p.lse ? p.sums.data() : nullptr, or_null(p.k_scales, s8),
          or_null(p.v_scales, s8), or_null(p.table, p.paged), or_null(p.sink_logits, p.desc.has_sink_logits),
          or_null(p.slopes, p.desc.has_slopes), p.desc.has_bias ? (p.bias.size() > 0 ? p.bias.data() : &p) : nullptr,
          or_null(p.prefixes, p.uses(GTN_MASK_PREFIX)), or_null(p.globals, p.uses(GTN_MASK_GLOBALS)),
          or_null(p.q_documents, documents), or_null(p.k_documents, documents), or_null(p.tree, p.uses(GTN_MASK_TREE)),
          or_null(p.block_offsets, blocks), or_null(p.columns, blocks), or_null(p.mask_index, masks),
          or_null(p.masks, masks), or_null(p.block_bias, blocks && p.desc.has_block_bias), or_null(p.q_order, ordered),
          or_null(p.k_order, ordered)))
      << on.message() << "; " << p.text();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
}

bool near(double got, double expected, double tolerance) {
  if (std::isinf(expected)) return got == expected;
  return std::abs(got - expected) <= tolerance;  // false for NaN
}

// Compares one row; false after the first failure of a problem.
bool expect_row(const Problem& p, const std::string& device, int64_t s, int64_t h, int64_t i) {
  const Sequence& of = p.parts[static_cast<size_t>(s)];
  const int64_t hk = h / (p.heads_q / p.heads_k), row = p.q_at(s, i, h), position = i + of.len_k - of.len_q;
  const double c = static_cast<double>(p.desc.softcap);
  std::vector<double> score, eta;
  std::vector<int64_t> seen;
  const bool s8 = p.k_dtype == GTN_S8;
  for (int64_t j = 0; j < of.len_k; ++j) {
    double extra = 0;
    if (!p.visible(s, h, i, j, &extra)) continue;
    double bias = 0;
    if (p.desc.has_bias) {
      const int64_t* stride = p.desc.bias.strides;
      bias = static_cast<double>(p.bias.get(s * stride[0] + h * stride[1] + i * stride[2] + j * stride[3]));
      if (bias == -kInf) continue;
    }
    const int64_t at = p.k_at(s, j, hk);
    double dot = 0, size = 0;
    for (int64_t e = 0; e < p.dk; ++e) {
      const double scale = s8 ? static_cast<double>(p.k_scales[static_cast<size_t>(at)]) : 1.0;
      const double product =
          static_cast<double>(p.q.get(row * p.dk + e)) * scale * static_cast<double>(p.k.get(at * p.dk + e));
      dot += product;
      size += std::abs(product);
    }
    const double scale = static_cast<double>(p.desc.scale);
    double value = scale * dot, error = static_cast<double>(p.dk + 2) * kU * std::abs(scale) * size;
    if (c > 0) {
      value = c * std::tanh(value / c);
      error += 8 * kU * c;
    }
    if (!p.slopes.empty()) {
      const double less =
          static_cast<double>(p.slopes[static_cast<size_t>(h)]) * static_cast<double>(std::abs(position - j));
      value -= less;
      error += 2 * kU * std::abs(less) + kU * std::abs(value);
    }
    const double self = j == position ? static_cast<double>(p.desc.self_bias) : 0.0;
    value += bias + extra + self;
    error += 2 * kU * (std::abs(bias) + std::abs(extra) + std::abs(self)) + kU * std::abs(value);
    seen.push_back(at);
    score.push_back(value);
    eta.push_back(error);
  }
  const size_t n = seen.size();
  double maximum = -kInf, sum = 0, mean_eta = 0;
  for (double value : score) maximum = std::max(maximum, value);
  const double blocks = static_cast<double>(of.len_k) + 2;  // pages and lists may make blocks of a key
  std::vector<double> weight(n);
  for (size_t j = 0; j < n; ++j) {
    weight[j] = std::exp(score[j] - maximum);
    sum += weight[j];
    eta[j] += kU * std::abs(score[j] - maximum) + (4 + 5 * blocks) * kU;
  }
  for (size_t j = 0; j < n; ++j) mean_eta += weight[j] / sum * eta[j];
  const double sums = (static_cast<double>(n) + blocks) * kU;
  double total = sum, sink_error = 0;
  if (p.desc.has_sink_logits && n > 0) {
    const double sink = static_cast<double>(p.sink_logits[static_cast<size_t>(h)]);
    total += std::exp(sink - maximum);
    sink_error = (8 + std::abs(sink - maximum)) * kU;
  }
  for (int64_t e = 0; e < p.dv; ++e) {
    double value = 0, tolerance = 0x1p-126;
    for (size_t j = 0; j < n; ++j) {
      const double scale = s8 ? static_cast<double>(p.v_scales[static_cast<size_t>(seen[j])]) : 1.0;
      const double x = scale * static_cast<double>(p.v.get(seen[j] * p.dv + e));
      value += weight[j] / total * x;
      tolerance += 1.01 * weight[j] / total * std::abs(x) * (eta[j] + mean_eta + 2 * sums + sink_error + 4 * kU);
    }
    if (p.out_dtype != GTN_F32) {
      tolerance += rounding(p.out_dtype) * (std::abs(value) + tolerance) + (p.out_dtype == GTN_F16 ? 0x1p-25 : 0);
    }
    const double got = static_cast<double>(p.out.get(row * p.dv + e));
    EXPECT_TRUE(near(got, value, tolerance))
        << device << ": sequence " << s << " head " << h << " query " << i << " element " << e << ": got " << got
        << ", expected " << value << " within " << tolerance << "; " << p.text();
    if (!near(got, value, tolerance)) return false;
  }
  if (!p.lse) return true;
  const double lse = n == 0 ? -kInf : maximum + std::log(sum);
  const double tolerance =
      n == 0 ? 0 : 1.01 * (mean_eta + sums + 4 * kU * (std::abs(std::log(sum)) + std::abs(lse) + std::abs(maximum)));
  const int64_t at = p.packed ? h * p.len_q + of.first_q + i : (s * p.heads_q + h) * p.len_q + i;
  const double got = static_cast<double>(p.sums.get(at));
  EXPECT_TRUE(near(got, lse, tolerance)) << device << ": sequence " << s << " head " << h << " query " << i
                                         << ": lse is " << got << ", expected " << lse << " within " << tolerance
                                         << "; " << p.text();
  return near(got, lse, tolerance);
}

void check(Problem& p) {
  for (const std::string& device : cpu_devices()) {
    run(p, device, 0);
    if (::testing::Test::HasFatalFailure()) return;
    int64_t written = 0;
    bool right = true;
    for (int64_t s = 0; s < p.sequences && right; ++s) {
      for (int64_t i = 0; i < p.parts[static_cast<size_t>(s)].len_q * p.heads_q && right; ++i) {
        right = expect_row(p, device, s, i % p.heads_q, i / p.heads_q);
        written += p.dv;
      }
    }
    if (!right) return;
    int64_t untouched = 0;
    Buffer sentinel(p.out_dtype, 1);
    sentinel.set(0, -1234.5f);
    for (int64_t i = 0; i < p.out.size(); ++i) untouched += p.out.get(i) == sentinel.get(0);
    EXPECT_EQ(p.out.size() - written, untouched) << device << ": wrote beyond a length; " << p.text();
    Buffer first = p.out, first_sums = p.sums;
    run(p, device, 1);
    EXPECT_TRUE(first.same_bytes(p.out) && first_sums.same_bytes(p.sums))
        << device << ": other bits with one thread; " << p.text();
  }
}

// One seed: GATUN_TEST_SEED=<n> attention_patterns_test.
TEST(AttentionPatterns, RandomCombinations) {
  const char* only = std::getenv("GATUN_TEST_SEED");
  const uint64_t first = only != nullptr ? std::strtoull(only, nullptr, 10) : 1;
  const uint64_t last = only != nullptr ? first : 600;
  int failed = 0;
  for (uint64_t seed = first; seed <= last && failed < 5; ++seed) {
    const int before = ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
    Problem p = make_problem(seed);
    check(p);
    failed += ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() > before ? 1 : 0;
  }
}

// ---- One rule at a time --------------------------------------------------------------------------------------------

// Heads of one key head, F32, whose values are the unit vectors: a row of the output is the weights of the keys.
struct Weights {
  Weights(int64_t queries, int64_t keys, int64_t query_heads = 1) : len_q(queries), len_k(keys), heads(query_heads) {
    desc.size = sizeof desc;
    desc.scale = 1.0f;
    desc.q = tensor(GTN_F32, {1, queries, heads, 1});
    desc.k = tensor(GTN_F32, {1, keys, 1, 1});
    desc.v = tensor(GTN_F32, {1, keys, 1, keys});
    desc.out = tensor(GTN_F32, {1, queries, heads, keys});
    q.assign(static_cast<size_t>(queries * heads), 1.0f);
    for (int64_t j = 0; j < keys; ++j) k.push_back(0.1f * static_cast<float>(j));
    v.assign(static_cast<size_t>(keys * keys), 0.0f);
    for (int64_t j = 0; j < keys; ++j) v[static_cast<size_t>(j * keys + j)] = 1.0f;
    out.assign(static_cast<size_t>(queries * heads * keys), kNan);
    lse.assign(static_cast<size_t>(queries * heads), kNan);
  }

  // The status of a run, and its message.
  std::pair<gtn_status, std::string> status(const std::string& device) {
    OpenDevice on(device);
    Message message;
    gtn_plan plan = 0;
    desc.patterns = patterns.empty() ? &pattern : patterns.data();
    desc.pattern_count = patterns.empty() ? 1 : static_cast<int64_t>(patterns.size());
    const gtn_status planned = gtn_attention_plan(on.device, &desc, &plan, &message);
    if (planned != GTN_OK) return {planned, message.text};
    const gtn_status ran = gtn_attention_run_with(
        plan, on.stream, 1, len_q, len_k, nullptr, table.empty() ? nullptr : &len_k, q.data(), k.data(), v.data(),
        out.data(), lse.data(), nullptr, nullptr, or_null(table, !table.empty()),
        or_null(sink_logits, !sink_logits.empty()), or_null(slopes, !slopes.empty()), or_null(bias, !bias.empty()),
        or_null(prefixes, !prefixes.empty()), or_null(globals, !globals.empty()),
        or_null(documents, !documents.empty()), or_null(documents, !documents.empty()), nullptr, nullptr, nullptr,
        nullptr, nullptr, nullptr, or_null(q_order, !q_order.empty()), or_null(k_order, !k_order.empty()));
    const std::string text = ran == GTN_OK ? "" : on.message();
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    return {ran, text};
  }

  void run(const std::string& device) {
    const auto [status_of_run, text] = status(device);
    ASSERT_EQ(GTN_OK, status_of_run) << device << ": " << text;
  }

  // The keys that a row of the output, a query and head, sees, as "0123".
  std::string seen(int64_t row) const {
    std::string text;
    for (int64_t j = 0; j < len_k; ++j) {
      if (out[static_cast<size_t>(row * len_k + j)] != 0.0f) text += std::to_string(j);  // NaN is not 0
    }
    return text;
  }

  // Those of all rows, as "0123 | 01".
  std::string seen() const {
    std::string text = seen(0);
    for (int64_t row = 1; row < len_q * heads; ++row) text += " | " + seen(row);
    return text;
  }

  int64_t len_q, len_k, heads;
  gtn_attention_desc desc = {};
  gtn_attention_pattern pattern = {sizeof pattern, 0, -1, -1, 1, 0};
  std::vector<gtn_attention_pattern> patterns;  // one for each head; none: `pattern` for all
  std::vector<float> q, k, v, out, lse, sink_logits, slopes, bias;
  std::vector<int32_t> table, globals, documents, q_order, k_order;
  std::vector<int64_t> prefixes;
};

void expect_seen(Weights w, const std::string& expected) {
  for (const std::string& device : cpu_devices()) {
    w.run(device);
    EXPECT_EQ(expected, w.seen()) << device;
  }
}

TEST(AttentionPatterns, TheLastQuerySeesTheLastKey) {
  Weights w(2, 5);
  w.pattern.window_right = 0;
  expect_seen(w, "0123 | 01234");
}

TEST(AttentionPatterns, QueriesBeforeTheFirstKeySeeNothing) {
  Weights w(5, 2);
  w.pattern.window_right = 0;
  expect_seen(w, " |  |  | 0 | 01");
  w.run("cpu:scalar");
  EXPECT_EQ(-kInf, static_cast<double>(w.lse[0]));
}

TEST(AttentionPatterns, BothEndsOfAWindowAreInside) {
  Weights w(5, 5);
  w.pattern.window_left = 2;
  w.pattern.window_right = 1;
  expect_seen(w, "01 | 012 | 0123 | 1234 | 234");
}

TEST(AttentionPatterns, DilationCountsKeysNotPositions) {
  Weights w(6, 6);
  w.pattern.window_left = 2;
  w.pattern.window_right = 0;
  w.pattern.dilation = 2;
  expect_seen(w, "0 | 1 | 02 | 13 | 024 | 135");
}

// More keys of one residue than a block has, and none beyond the last.
TEST(AttentionPatterns, DilatedKeysEndWithTheSequence) {
  for (const int64_t keys : {401, 1000, 1001}) {
    Weights w(1, keys);
    w.pattern.dilation = 3;
    w.k.assign(w.k.size(), 0.0f);
    const int64_t seen = (keys + 2) / 3;
    for (const std::string& device : cpu_devices()) {
      w.run(device);
      for (int64_t j = 0; j < keys; ++j) {
        const double expected = (keys - 1 - j) % 3 == 0 ? 1.0 / static_cast<double>(seen) : 0.0;
        const double weight = static_cast<double>(w.out[static_cast<size_t>(j)]);
        EXPECT_NEAR(expected, weight, 16 * kU * expected) << device << " " << j;
      }
    }
  }
}

TEST(AttentionPatterns, SinksLiftTheWindowAndNotCausality) {
  Weights w(5, 5);
  w.pattern.window_left = 0;
  w.pattern.window_right = 0;
  w.pattern.sinks = 2;
  expect_seen(w, "0 | 01 | 012 | 013 | 014");
}

TEST(AttentionPatterns, GlobalTokensSeeAndAreSeenButNotAgainstCausality) {
  Weights w(5, 5);
  w.pattern.window_left = 0;
  w.pattern.window_right = 0;
  w.pattern.masks = GTN_MASK_GLOBALS;
  w.desc.max_globals = 2;
  w.globals = {2, -1};
  expect_seen(w, "0 | 1 | 012 | 23 | 24");
  w.pattern.window_right = 1;
  expect_seen(w, "012 | 12 | 01234 | 234 | 24");
}

TEST(AttentionPatterns, SinksAndGlobalTokensStayInTheirDocument) {
  Weights w(4, 4);
  w.pattern.window_left = 0;
  w.pattern.window_right = 0;
  w.pattern.masks = GTN_MASK_GLOBALS | GTN_MASK_DOCUMENTS;
  w.pattern.sinks = 1;
  w.desc.max_globals = 1;
  w.desc.document_heads = w.desc.document_layers = 1;
  w.globals = {1};
  w.documents = {7, 7, 9, 9};
  expect_seen(w, "0 | 01 | 2 | 3");
}

// Longer than the runs of keys that are skipped by their labels, and not in step with them.
TEST(AttentionPatterns, DocumentsEndAnywhere) {
  Weights w(300, 300);
  w.pattern.masks = GTN_MASK_DOCUMENTS;
  w.desc.document_heads = w.desc.document_layers = 1;
  w.documents.resize(300);
  std::string expected;
  for (int32_t i = 0; i < 300; ++i) {
    w.documents[static_cast<size_t>(i)] = i / 70;
    if (i > 0) expected += " | ";
    for (int32_t j = i / 70 * 70; j < 300 && j / 70 == i / 70; ++j) expected += std::to_string(j);
  }
  expect_seen(w, expected);
}

TEST(AttentionPatterns, HeadsThatShareKeysMayDifferInOnePart) {
  const gtn_attention_pattern base = {sizeof base, 0, 1, 1, 2, 1};
  for (int part = 0; part < 5; ++part) {
    gtn_attention_pattern other = base;
    switch (part) {
      case 0: other.window_left = 0; break;
      case 1: other.window_right = 0; break;
      case 2: other.dilation = 1; break;
      case 3: other.sinks = 2; break;
      default: other.masks = GTN_MASK_DOCUMENTS; break;
    }
    for (const std::string& device : cpu_devices()) {
      std::vector<Weights> alone;
      for (const gtn_attention_pattern& pattern : {base, other}) {
        Weights one(7, 7);
        one.pattern = pattern;
        one.desc.document_heads = one.desc.document_layers = 1;
        if (pattern.masks != 0) one.documents = {1, 1, 1, 2, 2, 2, 2};
        one.run(device);
        alone.push_back(one);
      }
      Weights both(7, 7, 2);
      both.patterns = {base, other};
      both.desc.document_heads = both.desc.document_layers = 1;
      if (other.masks != 0) both.documents = {1, 1, 1, 2, 2, 2, 2};
      both.run(device);
      std::string expected;
      for (int64_t i = 0; i < 7; ++i) expected += (i > 0 ? " | " : "") + alone[0].seen(i) + " | " + alone[1].seen(i);
      EXPECT_EQ(expected, both.seen()) << device << ", part " << part;
    }
  }
}

TEST(AttentionPatterns, OrdersNameEachQueryAndKeyOnce) {
  for (const std::string& device : cpu_devices()) {
    for (const bool keys : {false, true}) {
      for (const size_t at : {size_t{0}, size_t{2}, size_t{4}}) {
        for (const int32_t wrong : {-2, 5, 1}) {  // 1 stands elsewhere, too
          Weights w(5, 5);
          w.desc.order_heads = 1;
          w.q_order = w.k_order = {3, 1, 4, 0, 2};
          (keys ? w.k_order : w.q_order)[at] = wrong;
          const auto [status, text] = w.status(device);
          EXPECT_EQ(GTN_INVALID_ARGUMENT, status) << device << ", " << at << ": " << wrong;
          EXPECT_NE(std::string::npos, text.find(keys ? "k_order" : "q_order")) << text;
        }
      }
    }
    Weights w(5, 5);
    w.desc.order_heads = 1;
    w.q_order = {3, 1, 4, 0, 2};
    w.k_order = {3, -1, 4, 0, -1};
    w.run(device);
    EXPECT_EQ("034 | 034 | 034 | 034 | 034", w.seen()) << device;
  }
}

TEST(AttentionPatterns, APrefixLiftsCausality) {
  Weights w(4, 4);
  w.pattern.window_right = 0;
  w.pattern.masks = GTN_MASK_PREFIX;
  w.prefixes = {2};
  expect_seen(w, "01 | 01 | 012 | 0123");
}

// The log-sum-exp of a query that sees one key is its score.
TEST(AttentionPatterns, SoftcapComesBeforeAlibiBeforeBias) {
  Weights w(1, 2);
  w.k = {3.0f, 5.0f};
  w.desc.softcap = 2.0f;
  w.desc.has_slopes = w.desc.has_bias = 1;
  w.slopes = {0.25f};
  w.desc.bias = tensor(GTN_F32, {1, 1, 1, 2});
  w.bias = {4.0f, -std::numeric_limits<float>::infinity()};
  for (const std::string& device : cpu_devices()) {
    w.run(device);
    EXPECT_NEAR(2.0 * std::tanh(1.5) - 0.25 + 4.0, static_cast<double>(w.lse[0]), 16 * kU * 6) << device;
    EXPECT_EQ("0", w.seen()) << device;
  }
}

TEST(AttentionPatterns, ASinkLogitTakesWeightAndLeavesTheLogSumExpAlone) {
  Weights w(1, 1);
  w.k = {0.5f};
  w.desc.has_sink_logits = 1;
  w.sink_logits = {1.5f};
  for (const std::string& device : cpu_devices()) {
    w.run(device);
    EXPECT_NEAR(1.0 / (1.0 + std::exp(1.0)), static_cast<double>(w.out[0]), 16 * kU) << device;
    EXPECT_NEAR(0.5, static_cast<double>(w.lse[0]), 4 * kU) << device;
  }
}

TEST(AttentionPatterns, UnusedSlotsOfPagesNeverLeak) {
  Weights w(3, 5);
  w.desc.paged = 1;
  w.desc.max_len_k = 5;
  w.desc.k = tensor(GTN_F32, {4, 4, 1, 1});
  w.desc.v = tensor(GTN_F32, {4, 4, 1, 5});
  w.table = {3, 1};
  w.k.assign(16, kNan);
  w.v.assign(16 * 5, kNan);
  for (int64_t j = 0; j < 5; ++j) {
    const int64_t row = w.table[static_cast<size_t>(j / 4)] * 4 + j % 4;
    w.k[static_cast<size_t>(row)] = 0.0f;
    for (int64_t e = 0; e < 5; ++e) w.v[static_cast<size_t>(row * 5 + e)] = e == j ? 1.0f : 0.0f;
  }
  for (const std::string& device : cpu_devices()) {
    w.run(device);
    for (float weight : w.out) EXPECT_NEAR(0.2, static_cast<double>(weight), 4 * kU) << device;
  }
}

TEST(AttentionPatterns, PartsOfTheKeysMergeToTheWhole) {
  Weights whole(2, 8), first(2, 3), second(2, 5);
  whole.sink_logits = {0.3f};
  whole.desc.has_sink_logits = 1;
  second.k.assign(whole.k.begin() + 3, whole.k.end());
  // Both parts give weights of all eight keys.
  for (Weights* part : {&first, &second}) {
    const int64_t from = part == &first ? 0 : 3;
    part->desc.v = tensor(GTN_F32, {1, part->len_k, 1, 8});
    part->desc.out = tensor(GTN_F32, {1, 2, 1, 8});
    part->v.assign(whole.v.begin() + from * 8, whole.v.begin() + (from + part->len_k) * 8);
    part->out.assign(16, kNan);
  }
  for (const std::string& device : cpu_devices()) {
    whole.run(device);
    first.run(device);
    second.run(device);
    gtn_merge_desc desc = {};
    desc.size = sizeof desc;
    desc.has_sink_logits = 1;
    desc.x = tensor(GTN_F32, {2, 1, 2, 1, 8});
    desc.x_lse = tensor(GTN_F32, {2, 1, 1, 2});
    desc.out = tensor(GTN_F32, {1, 2, 1, 8});
    desc.lse = tensor(GTN_F32, {1, 1, 2});
    std::vector<float> x = first.out, x_lse = first.lse, out(16), lse(2);
    x.insert(x.end(), second.out.begin(), second.out.end());
    x_lse.insert(x_lse.end(), second.lse.begin(), second.lse.end());
    OpenDevice on(device);
    Message message;
    gtn_plan plan = 0;
    ASSERT_EQ(GTN_OK, gtn_merge_plan(on.device, &desc, &plan, &message)) << message.text;
    ASSERT_EQ(GTN_OK, gtn_merge_run(plan, on.stream, 2, 1, 2, x.data(), x_lse.data(), whole.sink_logits.data(),
                                    out.data(), lse.data()))
        << on.message();
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(whole.out[i]), static_cast<double>(out[i]), 32 * kU) << device;
    }
    for (size_t i = 0; i < lse.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(whole.lse[i]), static_cast<double>(lse[i]), 32 * kU) << device;
    }
  }
}

}  // namespace
}  // namespace gatun::test
