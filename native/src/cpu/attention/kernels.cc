// Attention kernels, compiled once per level: out = softmax(scale * q k^T) v for one tile, by an online softmax over a
// list of key blocks.
//
// The plan feeds a tile with blocks of keys (begin, block, finish), so nothing here knows a pattern but through the
// predicate of a block.
//
// Method. The forward pass of flash attention (Dao et al. 2022, algorithm 1, with the online softmax of Milakov and
// Gimelshein 2018): for each key block the scores s, the new maximum m of each row, the weights p = exp(s - m), and
// o = o * alpha + p v and l = l * alpha + sum p with alpha = exp(m_old - m); at the end out = o / l and lse = m + log
// l. There are three ways through a tile:
//
//   panels   (panels.h) Rows are lanes. A panel is two vectors of rows; its queries are packed once, transposed to
//            [dk][rows]. The scores are made as s^T [keys][rows] = k q^T with the keys broadcast from their rows as
//            they lie, so that K is never transposed; the softmax runs down the keys lane by lane, with no reduction
//            across lanes; and s^T is just the layout from which the second product broadcasts its weights. Both
//            products are outer-product microkernels with 12 accumulators (24 where there are 32 registers). Blocks of
//            K and V that are not FP32, are scattered (pages, lists, orders), or have rows far apart or an odd head
//            size are copied to FP32 scratch, once per tile; others are read in place.
//   rows     (few_rows.h) Up to kDirectRows rows (decode): dot products along the head size, weights by key, multiples
//            of value rows, straight from K and V where they are FP32 or BF16 and lie in a row, else from such a copy.
//   tiles    (tiled.h) With AMX, what panels do where everything is BF16.
//
// Cost. 2 (dk + dv) operations for a visible pair, and about 20 for its softmax. In panels the operands of the inner
// loops (a panel of Q, S and O: a few KiB each) come from L1 and the blocks of K and V from L2; memory traffic is K and
// V once per tile of up to kMostTileRows rows. So panels are bound by the FMA units, fed from L1, and rows by the
// bandwidth to K and V.
//
// Between the products come softcap, ALiBi and what is added: a matrix of biases with -inf where a row does not see a
// key, made element by element and only for the blocks that need it.
//
// Rules for values that are not finite (each has its test in attention_test.cc):
//   - a NaN score of a visible key, and a score of +inf (inf - inf), make the row NaN, its log-sum-exp included;
//   - a score of -inf has weight 0, as if it were masked; a row whose scores are all -inf, or that sees nothing, is 0
//     and its log-sum-exp -inf, whatever the values hold;
//   - keys that no row of a panel sees are not used for it, so nothing of theirs leaks; a value that is not finite and
//     is seen by some rows of a panel makes 0 * inf = NaN in those of its rows that do not see it.
//
// Limits. The number of lanes is a compile-time constant (no scalable vectors). Sums run along dk and along the keys of
// a block in index order, so the worst-case error grows linearly with both.
#include "cpu/attention/attention.h"

#include <math.h>
#include <string.h>

#include "cpu/attention/few_rows.h"
#include "cpu/attention/panels.h"
#include "cpu/attention/tiled.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

template <typename T>
void write_values(const float* o, float factor, int64_t size, T* out) {
  const F32 d;
  const VF scale = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(d, hn::Mul(hn::Load(d, o + i), scale), out + i);
  if (i < size) store_some(d, hn::Mul(hn::Load(d, o + i), scale), out + i, static_cast<size_t>(size - i));
}

// The output of a row with weights that sum up to `sum` at `maximum`. The sink logit is one more weight in the sum.
void write_row(const AttentionTile& t, int64_t row, float maximum, float sum, const float* o) {
  const int64_t query = query_of(t, row), head = head_of(t, row);
  char* out = t.out + (query * t.out_row + head * t.out_head) * element_bytes(t.out_dtype);
  if (t.lse != nullptr) t.lse[head * t.lse_head + query] = sum == 0.0f ? -kInfinity : maximum + logf(sum);
  if (sum == 0.0f) {  // NaN is not
    memset(out, 0, static_cast<size_t>(t.dv * element_bytes(t.out_dtype)));
    return;
  }
  float factor = 1.0f / sum;
  if (t.sink_logits != nullptr) {
    const float sink = t.sink_logits[head];
    const float top = sink > maximum ? sink : maximum;
    const float scale = expf(maximum - top);
    factor = scale / (sum * scale + expf(sink - top));
  }
  switch (t.out_dtype) {
    case GTN_F32: return write_values(o, factor, t.dv, reinterpret_cast<float*>(out));
    case GTN_BF16: return write_values(o, factor, t.dv, reinterpret_cast<bf16*>(out));
    default: return write_values(o, factor, t.dv, reinterpret_cast<f16*>(out));
  }
}

// By the rows of a block of queries, not of the tile: how tiles are cut depends on what else is in the batch, and a
// sequence's result should not.
HWY_INLINE bool are_few(const AttentionTile& t) { return t.row_block <= kDirectRows; }

template <typename T>
void begin(const AttentionTile& t, float* scratch) {
  const Layout layout = layout_of(t.dk, t.dv);
  if (are_few(t)) {
    begin_rows<T>(t, layout, scratch);
  } else {
    begin_panels<T>(t, layout, scratch);
  }
}

void begin_tile(const AttentionTile& t, void* memory) {
  float* scratch = static_cast<float*>(memory);
#if defined(GATUN_LEVEL_amx)
  if (is_tiled(t)) return begin_tiled(t, layout_of(t.dk, t.dv), scratch);
#endif
  switch (t.q_dtype) {
    case GTN_F32: return begin<float>(t, scratch);
    case GTN_BF16: return begin<bf16>(t, scratch);
    default: return begin<f16>(t, scratch);
  }
}

void block_of_tile(const AttentionTile& t, const KeyBlock& block, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* scratch = static_cast<float*>(memory);
#if defined(GATUN_LEVEL_amx)
  if (is_tiled(t)) return tiled_panels(t, block, layout, scratch);
#endif
  if (!are_few(t)) return panels(t, block, layout, scratch);
  switch (t.rows) {
    case 1: return rows<1>(t, block, layout, scratch);
    case 2: return rows<2>(t, block, layout, scratch);
    case 3: return rows<3>(t, block, layout, scratch);
    default: return rows<4>(t, block, layout, scratch);
  }
}

void finish_tile(const AttentionTile& t, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* scratch = static_cast<float*>(memory);
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* o = scratch + layout.outputs + r * layout.dv_padded;
#if defined(GATUN_LEVEL_amx)
    if (is_tiled(t)) o = tiled_row(t, r, layout, scratch);
#endif
    const float maximum = scratch[layout.maxima + r], sum = scratch[layout.sums + r];
    if (t.partial != nullptr) {
      float* to = t.partial + r * (t.dv + 2);
      memcpy(to, o, static_cast<size_t>(t.dv) * sizeof(float));
      to[t.dv] = maximum;
      to[t.dv + 1] = sum;
    } else if (!is_left_out(t, r)) {
      write_row(t, r, maximum, sum, o);
    }
  }
}

// o = sum of o_i exp(m_i - m), and the same for the sums of weights, with m the greatest maximum.
void merge_tile(const AttentionTile& t, const float* partial, int64_t parts, int64_t stride, void* memory) {
  const Layout layout = layout_of(t.dk, t.dv);
  float* o = static_cast<float*>(memory) + layout.outputs;
  for (int64_t r = 0; r < t.rows; ++r) {
    if (is_left_out(t, r)) continue;
    const float* row = partial + r * (t.dv + 2);
    float maximum = -kInfinity;
    for (int64_t p = 0; p < parts; ++p) {
      const float its = row[p * stride + t.dv];
      maximum = its > maximum ? its : maximum;
    }
    memset(o, 0, static_cast<size_t>(t.dv) * sizeof(float));
    float sum = 0.0f;
    for (int64_t p = 0; p < parts; ++p) {
      const float* part = row + p * stride;
      if (part[t.dv + 1] == 0.0f) continue;  // sees nothing; a NaN is not 0
      const float factor = expf(part[t.dv] - maximum);
      sum += part[t.dv + 1] * factor;
      for (int64_t i = 0; i < t.dv; ++i) o[i] += part[i] * factor;
    }
    write_row(t, r, maximum, sum, o);
  }
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels = {tiling, begin_tile, block_of_tile, finish_tile, merge_tile};

}  // namespace gatun::cpu::GATUN_LEVEL
