// What comes between the products: what is added to scores, -inf where a row does not see a key, and the keys that it sees.
#pragma once

#include "cpu/attention/layout.h"
#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Whether the block's scores need a matrix of what is added to them.
HWY_INLINE bool needs_added(const AttentionTile& t, const KeyBlock& block) {
  return block.kind == KeyBlock::kGeneral || t.bias != nullptr || t.self_bias != 0.0f ||
         (block.entries != nullptr && t.lists.bias != nullptr);
}

HWY_INLINE float bias_at(const AttentionTile& t, int64_t element) {
  switch (t.bias_dtype) {
    case GTN_F32: return reinterpret_cast<const float*>(t.bias)[element];
    case GTN_BF16: return to_float(reinterpret_cast<const bf16*>(t.bias)[element]);
    default: return to_float(reinterpret_cast<const f16*>(t.bias)[element]);
  }
}

// The few keys from `origin` on that sinks and global tokens are, for a row whose other keys are done.
void add_lifted(const Mask& mask, const QueryRow& row, int64_t origin, int64_t keys, float* added, int64_t step) {
  for (int64_t j = 0; j < keys && origin + j < mask.sinks; ++j) {
    added[j * step] = visible(mask, row, origin + j) ? 0.0f : -kInfinity;
  }
  int64_t next = 0, end = mask.global_count;  // the first global token from `origin` on
  while (next < end) {
    const int64_t middle = (next + end) / 2;
    if (mask.globals[middle] < origin) {
      next = middle + 1;
    } else {
      end = middle;
    }
  }
  for (; next < mask.global_count && mask.globals[next] < origin + keys; ++next) {
    const int64_t j = mask.globals[next] - origin;
    added[j * step] = visible(mask, row, origin + j) ? 0.0f : -kInfinity;
  }
}

static inline int64_t within(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

// Keys first to first + keys - 1 of a block against one row: what is added to each score, -inf where the row does not
// see the key. added[j * step] is that of key first + j.
void add_row(const AttentionTile& t, const KeyBlock& block, int64_t first, int64_t keys, int64_t tile_row, float* added,
             int64_t step) {
  const QueryRow row = query_row_of(t, tile_row);
  const Mask& mask = t.mask;
  if (block.kind == KeyBlock::kGeneral) {
    const bool masks = block.entries != nullptr && t.lists.mask_index != nullptr;
    const bool lifts = mask.global_count > 0 || mask.sinks > 0;
    if (mask.tree == nullptr && mask.dilation == 1 && !masks && (!lifts || block.tokens == nullptr)) {
      const KeyRange window = window_of(mask, row, block.lifted);
      const int32_t* labels = mask.q_labels != nullptr ? mask.k_labels : nullptr;
      if (labels == nullptr && block.tokens == nullptr && block.step == 1) {
        const int64_t origin = token_of(block, first);
        const int64_t before = within(window.first - origin, keys), until = within(window.last - origin, keys);
        int64_t j = 0;
        for (; j < before; ++j) added[j * step] = -kInfinity;
        for (; j < until; ++j) added[j * step] = 0.0f;
        for (; j < keys; ++j) added[j * step] = -kInfinity;
      } else {
        const int32_t label = labels != nullptr ? mask.q_labels[row.query] : 0;
        for (int64_t j = 0; j < keys; ++j) {
          const int64_t token = token_of(block, first + j);
          const bool sees = token >= window.first && token < window.last &&
                            (labels == nullptr ||
                             (labels[token] == label && (mask.layers == 1 || labels_admit(mask, row.query, token))));
          added[j * step] = sees ? 0.0f : -kInfinity;
        }
      }
      if (lifts && !block.lifted && !row.global) add_lifted(mask, row, token_of(block, first), keys, added, step);
    } else {
      const int64_t line = slot_of(t, tile_row) % max_of(t.lists.block_q, 1) * t.lists.block_k;
      for (int64_t j = 0; j < keys; ++j) {
        bool sees = visible(mask, row, token_of(block, first + j));
        if (masks && sees) {
          const int64_t index = t.lists.mask_index[block.entries[first + j]];
          sees = index < 0 ||
                 t.lists.masks[index * t.lists.block_q * t.lists.block_k + line + block.places[first + j]] != 0;
        }
        added[j * step] = sees ? 0.0f : -kInfinity;
      }
    }
  } else {
    for (int64_t j = 0; j < keys; ++j) added[j * step] = 0.0f;
  }
  if (t.bias != nullptr) {
    const int64_t at = row.query * t.bias_row + head_of(t, tile_row) * t.bias_head;
    for (int64_t j = 0; j < keys; ++j) {
      if (added[j * step] != -kInfinity) added[j * step] += bias_at(t, at + token_of(block, first + j) * t.bias_key);
    }
  }
  if (block.entries != nullptr && t.lists.bias != nullptr) {
    for (int64_t j = 0; j < keys; ++j) added[j * step] += t.lists.bias[block.entries[first + j]];
  }
  if (t.self_bias != 0.0f) {
    for (int64_t j = 0; j < keys; ++j) {
      if (token_of(block, first + j) == row.position) added[j * step] += t.self_bias;
    }
  }
}

// The layers of labels that add_panel takes at most.
constexpr int64_t kPanelLayers = 8;

// Whether windows and labels alone decide, and nothing but that is added.
HWY_INLINE bool adds_by_panel(const AttentionTile& t, const KeyBlock& block) {
  const Mask& mask = t.mask;
  return block.kind == KeyBlock::kGeneral && mask.tree == nullptr && mask.dilation == 1 && mask.global_count == 0 &&
         mask.sinks == 0 && (mask.q_labels == nullptr || mask.layers <= kPanelLayers) && mask.len_k < INT32_MAX &&
         t.bias == nullptr && t.self_bias == 0.0f &&
         (block.entries == nullptr || (t.lists.mask_index == nullptr && t.lists.bias == nullptr));
}

// What add_row does, for all rows of a panel at once: rows are lanes, and a key's labels are compared with all of
// theirs.
template <int NV>
void add_panel(const AttentionTile& t, const KeyBlock& block, int64_t first, int64_t keys, int64_t first_row,
               int64_t rows, float* added) {
  const F32 d;
  const hn::Rebind<int32_t, F32> d32;
  constexpr int64_t kRows = NV * kLanes;
  const Mask& mask = t.mask;
  const int64_t layers = mask.q_labels == nullptr ? 0 : mask.layers;
  HWY_ALIGN int32_t before[kRows], last[kRows], labels[kPanelLayers * kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    const QueryRow row = query_row_of(t, first_row + min_of(r, rows - 1));
    const KeyRange window = r < rows ? window_of(mask, row, block.lifted) : KeyRange{0, 0};
    before[r] = static_cast<int32_t>(window.first) - 1;
    last[r] = static_cast<int32_t>(window.last);
    for (int64_t layer = 0; layer < layers; ++layer) {
      labels[layer * kRows + r] = mask.q_labels[row.query - layer * mask.q_layer];
    }
  }
  for (int64_t j = 0; j < keys; ++j) {
    const int64_t token = token_of(block, first + j);
    const auto key = hn::Set(d32, static_cast<int32_t>(token));
    for (int64_t c = 0; c < NV; ++c) {
      auto sees = hn::And(hn::Gt(key, hn::Load(d32, before + c * kLanes)),
                          hn::Lt(key, hn::Load(d32, last + c * kLanes)));
      for (int64_t layer = 0; layer < layers; ++layer) {
        const auto label = hn::Set(d32, mask.k_labels[token - layer * mask.k_layer]);
        const auto same = hn::Eq(hn::Load(d32, labels + layer * kRows + c * kLanes), label);
        sees = layer == 0 ? hn::And(sees, same) : hn::AndNot(same, sees);
      }
      hn::Store(hn::IfThenElse(hn::RebindMask(d, sees), hn::Zero(d), hn::Set(d, -kInfinity)), d,
                added + j * kRows + c * kLanes);
    }
  }
}

// The keys of a block, whose tokens rise, before `token`.
HWY_INLINE int64_t keys_before(const KeyBlock& block, int64_t token) {
  if (block.tokens == nullptr) {
    return min_of(max_of((token - block.first + block.step - 1) / block.step, 0), block.count);
  }
  int64_t low = 0, high = block.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (block.tokens[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The keys of a block of kind kRange that a row sees.
HWY_INLINE KeyRange keys_of(const AttentionTile& t, const KeyBlock& block, int64_t tile_row) {
  const KeyRange window = window_of(t.mask, query_row_of(t, tile_row), block.lifted);
  const int64_t first = keys_before(block, window.first);
  return {first, max_of(keys_before(block, window.last), first)};
}

HWY_INLINE VF capped(const AttentionTile& t, VF score) {
  const F32 d;
  return hn::Mul(hn::Set(d, t.softcap), tanh(d, hn::Div(score, hn::Set(d, t.softcap))));
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
