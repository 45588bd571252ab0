// Every synchronisation of the vector kernels removed in turn, on the CPU twin: the twin must see it, or the result must change.
// That results are right is for ./gatun validate to say.
#include "kernels/activation/tiling.h"
#include "kernels/attention/tiling.h"
#include "kernels/merge/tiling.h"
#include "kernels/norm/tiling.h"
#include "kernels/rope/tiling.h"
#include "kernels/select/tiling.h"
#include "kernels/softmax/tiling.h"
#include "twin/numbers.h"
#include "twin/tests/removals.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

using Entry = void();  // of as many addresses as the kernel has, as the twin calls it
extern "C" {
Entry gatun_activation_bf16_bf16, gatun_glu_bf16_f16, gatun_norm_layer_bf16_bf16, gatun_norm_rms_f32_f32, gatun_softmax_bf16_f32,
    gatun_merge_bf16_bf16, gatun_rope_bf16_bf16, gatun_rope_bf16_s8, gatun_select_pool_bf16, gatun_select_weigh_bf16,
    gatun_select_lengths, gatun_select_copy, gatun_select_label_bf16, gatun_select_sort, gatun_select_near,
    gatun_select_unit_bf16, gatun_select_code, gatun_select_retrieve, gatun_attention_bf16_f32, gatun_attention_any_bf16_bf16,
    gatun_attention_terms_bf16;
}

namespace gatun::ascend {
namespace {

using twin::launch, twin::Options, twin::Range, twin::Result;

// Bytes of a tensor: numbers, or what the caller makes of it.
using Bytes = std::vector<uint8_t>;

template <typename T>
Bytes numbers(int64_t count, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Bytes bytes(static_cast<size_t>(count) * sizeof(T));
  for (int64_t i = 0; i < count; ++i) {
    const T x = T(normal(random));
    std::memcpy(bytes.data() + static_cast<size_t>(i) * sizeof(T), &x, sizeof(T));
  }
  return bytes;
}

template <typename T>
Bytes list(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

Bytes room(int64_t bytes) { return Bytes(static_cast<size_t>(bytes), 0x5a); }

// A launch whose every byte of memory must be what it is with nothing removed.
template <typename Tiling>
twin::Run run_of(Entry* entry, const Tiling& tiling, const std::vector<Bytes>& tensors, uint32_t blocks = 2) {
  const auto run = [=](std::vector<Bytes>& all, const Options& options) {
    Tiling t = tiling;
    std::vector<void*> args;
    std::vector<Range> memory;
    for (Bytes& bytes : all) {
      args.push_back(bytes.empty() ? nullptr : bytes.data());
      if (!bytes.empty()) memory.push_back({bytes.data(), bytes.size()});
    }
    args.push_back(&t);
    memory.push_back({&t, sizeof t});
    return launch(reinterpret_cast<const void*>(entry), blocks, args.data(), args.size(), memory, options);
  };
  std::vector<Bytes> expected = tensors;
  EXPECT_EQ(run(expected, {}).error, "");
  EXPECT_NE(expected, tensors) << "nothing was written";
  return [=](const Options& options, Result* result) -> std::string {
    std::vector<Bytes> all = tensors;
    *result = run(all, options);
    if (!result->ok()) return result->error;
    return all == expected ? "" : "another result";
  };
}

std::vector<twin::Run> activation() {
  ActivationTiling t = {};
  t.rows = 5, t.n = 150, t.x_stride = t.out_stride = 150, t.chunk = 64, t.activation = 1, t.has_other = 1;
  ActivationTiling gated = t;
  gated.other_stride = 150, gated.activation = 3;
  const Bytes x = numbers<bfloat16_t>(750);
  std::vector<twin::Run> runs = {run_of(gatun_glu_bf16_f16, gated, {x, numbers<bfloat16_t>(750, 2), room(1500)})};
  for (int32_t activation : {1, 2, 4}) {
    t.activation = activation;
    runs.push_back(run_of(gatun_activation_bf16_bf16, t, {x, numbers<float>(150), room(1500)}));
  }
  t.has_other = 0;
  runs.push_back(run_of(gatun_activation_bf16_bf16, t, {x, {}, room(1500)}));
  return runs;
}

std::vector<twin::Run> norm() {
  NormTiling t = {};
  t.rows = 5, t.n = 150, t.x_stride = t.out_stride = 150, t.chunk = 192, t.epsilon = 1e-5f;
  t.has_residual = t.has_beta = t.has_sum = 1;
  NormTiling chunks = t;
  chunks.chunk = 64;
  const std::vector<Bytes> halves = {numbers<bfloat16_t>(750), numbers<bfloat16_t>(750, 2), numbers<float>(150, 3),
                                     numbers<float>(150, 4),   room(1500),                  room(1500)};
  NormTiling rms = chunks;
  rms.has_beta = 0;
  Bytes wide = numbers<float>(750);
  for (size_t i = 0; i < 150; ++i) {
    const float huge = 1e30f * static_cast<float>(i % 7);  // squares leave FP32's range
    std::memcpy(wide.data() + i * 4, &huge, 4);
  }
  const std::vector<Bytes> floats = {wide, numbers<float>(750, 2), numbers<float>(150, 3), {}, room(3000), room(3000)};
  NormTiling alone = t;
  alone.has_residual = alone.has_beta = alone.has_sum = 0;
  const std::vector<Bytes> few = {halves[0], {}, halves[2], {}, room(1500), {}};
  return {run_of(gatun_norm_layer_bf16_bf16, t, halves), run_of(gatun_norm_layer_bf16_bf16, chunks, halves),
          run_of(gatun_norm_rms_f32_f32, rms, floats), run_of(gatun_norm_layer_bf16_bf16, alone, few)};
}

std::vector<twin::Run> softmax() {
  SoftmaxTiling t = {5, 150, 150, 150, 192, 1.5f};
  SoftmaxTiling chunks = t;
  chunks.chunk = 64;
  const std::vector<Bytes> tensors = {numbers<bfloat16_t>(750), room(3000)};
  return {run_of(gatun_softmax_bf16_f32, t, tensors), run_of(gatun_softmax_bf16_f32, chunks, tensors)};
}

std::vector<twin::Run> merge() {
  MergeTiling t = {};
  t.parts = 3, t.batch = 1, t.length = 4, t.heads = 2, t.n = 100;
  t.x_part = 800, t.x_batch = 800, t.x_token = 200, t.x_head = 100;
  t.x_lse_part = 8, t.x_lse_batch = 8, t.x_lse_head = 4, t.x_lse_token = 1;
  t.out_batch = 800, t.out_token = 200, t.out_head = 100;
  t.lse_batch = 8, t.lse_head = 4, t.lse_token = 1;
  t.chunk = 64, t.has_sink_logits = 1, t.has_lse = 1;
  return {run_of(gatun_merge_bf16_bf16, t,
                 {numbers<bfloat16_t>(2400), numbers<float>(24, 2), numbers<float>(2, 3), room(1600), room(32)})};
}

std::vector<twin::Run> rope() {
  RopeTiling t = {};
  t.tokens = 5, t.heads = 3, t.n = 48, t.x_token = 144, t.x_head = 48;
  t.out_page = 144, t.out_head = 48, t.page_size = 1;
  t.max_position = 9, t.table_row = 32, t.half = 16, t.segment = 32;
  RopeTiling pairs = t;
  pairs.interleaved = 1;
  RopeTiling cache = t;
  cache.cached = cache.has_slots = 1, cache.rows = 8;
  const Bytes x = numbers<bfloat16_t>(720), positions = list<int64_t>({3, 0, 8, 4, 4}), table = numbers<float>(9 * 32, 2);
  const Bytes slots = list<int64_t>({7, -1, 2, 0, 3});
  return {
      run_of(gatun_rope_bf16_bf16, t, {x, positions, table, {}, room(1440), {}}),
      run_of(gatun_rope_bf16_bf16, pairs, {x, positions, table, {}, room(1440), {}}),
      run_of(gatun_rope_bf16_s8, cache, {x, positions, table, slots, room(8 * 144), room(8 * 3 * 4)})};
}

std::vector<twin::Run> select() {
  SelectTiling t = {};
  t.sequences = 1, t.len_q = t.lq = 12, t.len_k = t.lk = 40;
  t.q_row = 160, t.q_head = 80, t.q_batch = 1920, t.k_row = 80, t.k_head = 80, t.k_batch = 3200;
  t.heads_q = 2, t.heads_k = 1, t.heads = 1, t.dk = 80, t.pitch = select_pitch(80);
  t.block_q = 4, t.block_k = 2, t.lists = 3, t.blocks = 20, t.width = 6, t.count = 6, t.first = 1, t.local = 1;
  t.scale = 0.3f, t.causal = 1;
  SelectTiling bounds = t;
  bounds.bounds = 1;
  const Bytes q = numbers<bfloat16_t>(1920), k = numbers<bfloat16_t>(3200, 2);
  const int64_t pools = 20 * t.pitch;
  Bytes pooled = numbers<float>(2 * pools, 3);
  const Bytes columns = list<int32_t>({0, 1, 2, 3, 4, 5, 0, 2, 4, 6, 8, 9, 0, 1, 7, 9, 9, 9});
  const Bytes counts = list<int32_t>({6, 6, 4}), offsets = list<int64_t>({0, 6, 12, 16});
  SelectTiling wide = t;  // more columns than come at a time
  wide.len_k = wide.lk = 400, wide.blocks = 200;
  SelectTiling many = t;
  many.lists = 5000;
  return {run_of(gatun_select_pool_bf16, t, {k, {}, {}, room(pools * 4)}, 1),
          run_of(gatun_select_pool_bf16, bounds, {k, {}, {}, room(2 * pools * 4)}, 1),
          run_of(gatun_select_weigh_bf16, t, {q, {}, {}, pooled, room(72), room(12)}, 1),
          run_of(gatun_select_weigh_bf16, bounds, {q, {}, {}, pooled, room(72), room(12)}, 1),
          run_of(gatun_select_weigh_bf16, wide, {q, {}, {}, numbers<float>(200 * t.pitch, 3), room(72), room(12)}, 1),
          run_of(gatun_select_copy, t, {columns, counts, offsets, room(72)}, 1),
          run_of(gatun_select_lengths, many, {list(std::vector<int32_t>(5000, 3)), room(5001 * 8)}, 1)};
}

std::vector<twin::Run> select_by_hashing() {
  SelectTiling t = {};
  t.sequences = 1, t.len_q = t.lq = 12, t.len_k = t.lk = 20;
  t.q_row = 80, t.q_head = 80, t.q_batch = 960, t.k_row = 80, t.k_head = 80, t.k_batch = 1600;
  t.heads_q = t.heads_k = t.heads = 1, t.dk = 80, t.pitch = select_pitch(80);
  t.block_q = t.block_k = 4, t.lists = 3, t.blocks = 5, t.width = t.count = 4;
  t.buckets = 12, t.layers = 2;
  const Bytes rotations = numbers<float>(2 * 6 * t.pitch, 3);
  const Bytes q_labels = list<int32_t>({1, 5, 2, 2, 9, 0, 1, 1, 7, 5, 0, 3, 4, 4, 0, 1, 11, 2, 4, 1, 0, 0, 4, 6});
  const Bytes k_labels = list<int32_t>({4, 1, 0, 11, 2, 2, 4, 4, 1, 0, 6, 6, 3, 9, 4, 1, 0, 0, 2, 5});
  const Bytes q_places = list<int32_t>({2, 8, 9, 3, 7, 5, 0, 1, 6, 10, 11, 4});
  const Bytes k_places = list<int32_t>({2, 9, 16, 17, 1, 8, 15, 4, 5, 18, 12, 0, 6, 7, 14, 19, 10, 11, 13, 3});
  return {run_of(gatun_select_label_bf16, t, {numbers<bfloat16_t>(960), {}, {}, rotations, room(96), room(96)}, 1),
          run_of(gatun_select_sort, t, {{}, {}, q_labels, k_labels, room(48), room(80), room(48), room(80)}, 1),
          run_of(gatun_select_near, t, {{}, {}, q_labels, k_labels, q_places, k_places, room(48), room(12)}, 1)};
}

std::vector<twin::Run> select_by_retrieval() {
  SelectTiling t = {};
  t.sequences = 1, t.len_q = t.lq = 6, t.len_k = t.lk = 200;
  t.q_row = 80, t.q_head = 80, t.q_batch = 480, t.k_row = 80, t.k_head = 80, t.k_batch = 16000;
  t.heads_q = t.heads_k = t.heads = 1, t.dk = 80, t.pitch = select_pitch(80);
  t.block_q = t.block_k = 1, t.lists = 6, t.blocks = 200, t.width = t.count = 110, t.first = 2, t.local = 1;
  t.buckets = 4, t.layers = 3, t.columns = 2, t.causal = 1, t.log_pairs = 1.1f, t.right_angle = 2;
  SelectTiling keys = t;
  keys.keys = 1;
  const auto codes = [](uint32_t seed, int64_t pitch) {
    std::mt19937 random(seed);
    std::vector<float> all(static_cast<size_t>(3 * pitch));
    for (float& code : all) code = static_cast<float>(random() % 4);
    return list(all);
  };
  const int64_t pitch = t.pitch;
  return {run_of(gatun_select_unit_bf16, t, {numbers<bfloat16_t>(480), {}, {}, {}, room(6 * pitch * 4)}, 1),
          run_of(gatun_select_unit_bf16, keys, {numbers<bfloat16_t>(16000), {}, {}, numbers<float>(pitch, 2), room(200 * pitch * 4)}, 1),
          run_of(gatun_select_code, t, {numbers<float>(6 * pitch), {}, {}, numbers<float>(6 * pitch, 2), room(3 * 64 * 4)}, 1),
          run_of(gatun_select_code, keys, {numbers<float>(200 * pitch), {}, {}, numbers<float>(6 * pitch, 2), room(3 * 256 * 4)}, 1),
          run_of(gatun_select_retrieve, t,
                 {{}, {}, numbers<float>(6 * pitch), numbers<float>(200 * pitch, 2), codes(1, 64), codes(2, 256), room(6 * 110 * 4),
                  room(6 * 110 * 4), room(6 * 4)}, 1)};
}

// Of one head of 16 elements, with no use for arrays but q, k and v.
AttentionTiling attention_tiling_of(int64_t len_q, int64_t len_k) {
  AttentionTiling t = {};
  t.batch = t.heads_q = t.heads_k = t.heads = 1, t.len_q = t.lq = t.most_q = len_q, t.len_k = t.lk = t.most_k = len_k;
  t.dk = t.dv = t.q_row = t.q_head = t.k_row = t.k_head = t.v_row = t.v_head = t.out_row = t.out_head = 16;
  t.tile_m = kAttentionAnyM, t.scale = 0.25f, t.left = t.right = -1, t.dilation = 1, t.has_lse = 1;
  t.q_type = t.kv_type = kAttentionBf16;
  return t;
}

std::vector<twin::Run> attention_windows() {
  std::vector<twin::Run> runs;
  for (const int64_t queries : {150, 20}) {
    AttentionTiling t = attention_tiling_of(queries, 650);
    t.tile_m = kAttentionM;
    if (queries == 150) t.left = 300, t.right = 0;
    std::vector<Bytes> tensors(26);
    tensors[0] = numbers<bfloat16_t>(queries * 16), tensors[1] = numbers<bfloat16_t>(650 * 16, 2);
    tensors[2] = numbers<bfloat16_t>(650 * 16, 3), tensors[23] = room(queries * 16 * 4), tensors[24] = room(queries * 4);
    tensors[25] = room(attention_workspace_bytes(1, false));
    runs.push_back(run_of(gatun_attention_bf16_f32, t, tensors, 1));
  }
  return runs;
}

std::vector<twin::Run> attention_with_options() {
  constexpr int64_t kQ = 40, kK = 300, kHead = 16;
  const AttentionTiling t = attention_tiling_of(kQ, kK);
  enum { kBlockOffsets = 6, kBlockColumns, kQOrder, kKOrder, kSinkLogits, kSlopes, kBias, kPrefixes, kGlobals, kQDocuments,
         kKDocuments, kTree, kMaskIndex, kMasks, kBlockBias, kKScales, kVScales, kOut, kLse, kWorkspace };
  std::vector<Bytes> tensors(kWorkspace + 1);
  tensors[0] = numbers<bfloat16_t>(kQ * kHead), tensors[1] = numbers<bfloat16_t>(kK * kHead, 2);
  tensors[2] = numbers<bfloat16_t>(kK * kHead, 3);
  tensors[kOut] = room(kQ * kHead * 2), tensors[kLse] = room(kQ * 4), tensors[kWorkspace] = room(attention_workspace_bytes(1, false));
  const auto labels = [](int64_t n) {
    std::vector<int32_t> all(static_cast<size_t>(2 * n));
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i * 7 % 3);
    return list(all);
  };

  AttentionTiling added = t;
  added.softcap = 5, added.self_bias = 2, added.has_slopes = 1, added.has_bias = 1, added.bias_row = kK, added.left = 200;
  added.right = 30, added.dilation = 2, added.sinks = 3, added.has_prefix = 1, added.max_globals = 3;
  std::vector<Bytes> with_added = tensors;
  with_added[kSlopes] = numbers<float>(1), with_added[kBias] = numbers<float>(kQ * kK, 5);
  with_added[kPrefixes] = list<int64_t>({20}), with_added[kGlobals] = list<int32_t>({5, 270, -1});

  AttentionTiling halves = t;
  halves.has_bias = 2, halves.bias_row = kK, halves.max_tree = kQ, halves.right = 0, halves.has_sink_logits = 1;
  std::vector<Bytes> with_halves = tensors;
  with_halves[kBias] = numbers<bfloat16_t>(kQ * kK, 5), with_halves[kSinkLogits] = numbers<float>(1);
  with_halves[kTree] = Bytes(kQ * kQ);
  for (size_t i = 0; i < with_halves[kTree].size(); ++i) with_halves[kTree][i] = i % 3 == 0;

  AttentionTiling ordered = t;
  ordered.order_heads = ordered.document_heads = ordered.list_heads = 1, ordered.document_layers = 2, ordered.right = 0;
  ordered.block_q = 16, ordered.block_k = 32, ordered.list_entries = 7, ordered.max_masks = 2, ordered.has_block_bias = 1;
  std::vector<Bytes> with_order = tensors;
  std::vector<int32_t> q_order(kQ), k_order(kK);
  for (int64_t i = 0; i < kQ; ++i) q_order[static_cast<size_t>(i)] = static_cast<int32_t>(i * 7 % kQ);
  for (int64_t i = 0; i < kK; ++i) k_order[static_cast<size_t>(i)] = i == 11 ? -1 : static_cast<int32_t>(i * 7 % kK);
  with_order[kQOrder] = list(q_order), with_order[kKOrder] = list(k_order);
  with_order[kQDocuments] = labels(kQ), with_order[kKDocuments] = labels(kK);
  with_order[kBlockOffsets] = list<int64_t>({0, 3, 5, 7}), with_order[kBlockColumns] = list<int32_t>({0, 4, 9, 1, 2, 0, 7});
  with_order[kMaskIndex] = list<int32_t>({0, -1, 1, 1, -1, 0, -1}), with_order[kBlockBias] = numbers<float>(7, 6);
  with_order[kMasks] = Bytes(2 * 16 * 32, 1);
  for (size_t i = 0; i < with_order[kMasks].size(); i += 5) with_order[kMasks][i] = 0;

  AttentionTiling masked = t;  // entries that are not joined
  masked.list_heads = 1, masked.block_q = 16, masked.block_k = 128, masked.list_entries = 6, masked.max_masks = 2;
  masked.has_block_bias = 1, masked.has_bias = kAttentionF32, masked.bias_row = kK;
  std::vector<Bytes> with_masks = tensors;
  with_masks[kBlockOffsets] = list<int64_t>({0, 3, 5, 6}), with_masks[kBlockColumns] = list<int32_t>({0, 1, 2, 1, 2, 0});
  with_masks[kMaskIndex] = list<int32_t>({0, -1, 1, 1, -1, 0}), with_masks[kBlockBias] = numbers<float>(6, 6);
  with_masks[kBias] = numbers<float>(kQ * kK, 5);
  with_masks[kMasks] = Bytes(2 * 16 * 128, 1);
  for (size_t i = 0; i < with_masks[kMasks].size(); i += 5) with_masks[kMasks][i] = 0;

  AttentionTiling tree = t;  // in an order
  tree.order_heads = 1, tree.max_tree = kQ, tree.has_bias = kAttentionF32, tree.bias_row = kK;
  std::vector<Bytes> with_tree = with_halves;
  with_tree[kQOrder] = with_order[kQOrder], with_tree[kKOrder] = with_order[kKOrder];
  with_tree[kBias] = numbers<float>(kQ * kK, 5);

  for (AttentionTiling* each : {&added, &halves, &ordered, &masked, &tree}) each->has_gaps = 1;

  AttentionTiling bytes = masked;
  bytes.kv_type = kAttentionS8;
  std::vector<Bytes> with_bytes = with_masks;
  with_bytes[1] = numbers<bfloat16_t>(kK * kHead / 2, 2), with_bytes[2] = numbers<bfloat16_t>(kK * kHead / 2, 3);
  with_bytes[kKScales] = numbers<float>(kK, 7), with_bytes[kVScales] = numbers<float>(kK, 8);
  with_bytes[kWorkspace] = room(attention_workspace_bytes(1, true));

  AttentionTiling wide = t;  // three terms of keys and values, two of queries
  wide.q_type = kAttentionF16, wide.kv_type = kAttentionF32;
  std::vector<Bytes> with_wide = with_bytes;
  with_wide[0] = numbers<half>(kQ * kHead), with_wide[1] = numbers<float>(kK * kHead, 2);
  with_wide[2] = numbers<float>(kK * kHead, 3);

  AttentionTiling sloped = t;
  sloped.has_slopes = 1;
  std::vector<Bytes> with_slopes = tensors;
  with_slopes[kSlopes] = numbers<float>(1);

  return {run_of(gatun_attention_any_bf16_bf16, sloped, with_slopes, 1),
          run_of(gatun_attention_any_bf16_bf16, added, with_added, 1),
          run_of(gatun_attention_any_bf16_bf16, halves, with_halves, 1),
          run_of(gatun_attention_any_bf16_bf16, ordered, with_order, 1),
          run_of(gatun_attention_any_bf16_bf16, masked, with_masks, 1),
          run_of(gatun_attention_any_bf16_bf16, tree, with_tree, 1),
          run_of(gatun_attention_terms_bf16, bytes, with_bytes, 1), run_of(gatun_attention_terms_bf16, wide, with_wide, 1)};
}

// All together: the barriers that instructions of kernels/vector.h bring along need not matter to each family.
TEST(Removals, EverySiteMatters) {
  std::vector<twin::Run> runs;
  for (const auto family : {activation, norm, softmax, merge, rope, select, select_by_hashing, select_by_retrieval, attention_windows, attention_with_options})
    for (twin::Run& run : family()) runs.push_back(std::move(run));
  twin::expect_sites_matter(runs, 400);
}

}  // namespace
}  // namespace gatun::ascend
