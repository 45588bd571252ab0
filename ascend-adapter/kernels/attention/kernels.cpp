// Attention with an online softmax (Dao et al. 2022, FlashAttention) over lists of tiles of keys, for cube and vector cores 1
// to 2: windows, causal among them, and block lists; grouped heads; BF16 and FP16.
//
// FLOPs: 2 (dk + dv) per visible pair. Bytes: keys and values of a tile of queries once, from the L2 cache where heads share
// them. Scores, weights and their products pass through global memory (architecture 2201 has no other way between cube and
// vector cores): 12 bytes a pair at dv = 128 are written and read, 14 with three terms, kept in the L2 cache by two slots of
// each per block. That traffic and the vector cores' exponentials bind it, not the cube unit.
//
// A weight rounded to BF16 errs by 2^-8 of itself, far more than FP32 arithmetic does. So the cube core gets it as a sum of
// terms, each the rounding of what those before left, and sums all their products with the values, which costs it
// 2 (dk + terms dv) per pair. BF16 takes two, for 2^-17, and three where the output is FP32; F16 takes two, for 2^-23, of
// weights times 2^12, so that what small ones leave is no denormal. Sums of weights are of the FP32 values.
//
// Per tile of keys, step t:
//   cube    S(t) = Q K^T                      -> scores
//   vector  m, P(t) = exp(scale S - m), l     -> weights, and the factor exp(old m - m) for step t
//   cube    O(t) = P(t) V                     -> products
//   vector  acc = factor acc + O(t)
// The cube core makes S(t + 1) before O(t), so that it has work while the vector cores are at the softmax; they add O(t) after
// the softmax of t + 1. Nobody writes to a slot of step t before its reader has told of something later: O(t) follows the
// reading of P(t), P(t + 2) that of O(t) and of S(t + 2), so three flags between the cores are enough.
#include "kernels/attention/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

using AscendC::CrossCoreSetFlag;
using AscendC::CrossCoreWaitFlag;
using AscendC::PipeBarrier;
using AscendC::SetFlag;
using AscendC::WaitFlag;

constexpr uint16_t kScores = 0, kWeights = 1, kProducts = 2;
constexpr uint32_t kTile = kAttentionM * kAttentionN;  // kAttentionHead is as wide
constexpr float kMasked = -3e38f,
                kLeast = -1e30f;  // a score that is hidden, and a maximum that is above it and below all others

// The terms of a weight, and what weights are multiplied by before they are split.
template <typename T, typename Out>
constexpr int32_t kTerms = 2;
template <>
constexpr int32_t kTerms<bfloat16_t, float> = kAttentionTerms;
template <typename T>
constexpr float kUnit = 1;
template <>
constexpr float kUnit<half> = 4096;

__aicore__ inline int64_t between(int64_t low, int64_t x, int64_t high) { return most(low, least(x, high)); }

// What says which keys a tile of queries has, of which nothing was checked before: lengths int64 of each sequence, and lists as gatun.h has them.
struct Index {
  GlobalTensor<int64_t> q_lengths, k_lengths, offsets;
  GlobalTensor<int32_t> columns;
  __aicore__ inline Index(GM_ADDR q, GM_ADDR k, GM_ADDR block_offsets, GM_ADDR block_columns)
      : q_lengths(global<int64_t>(q)),
        k_lengths(global<int64_t>(k)),
        offsets(global<int64_t>(block_offsets)),
        columns(global<int32_t>(block_columns)) {}
};

// A tile of queries of a head, and its tiles of keys, which have no key that none of the queries sees: its value may be NaN,
// which the cube unit would not leave out for a weight of 0.
class Item {
 public:
  int64_t batch, head, row, m;

  __aicore__ inline Item(const AttentionTiling& t, const Index& index, int64_t i) : t_(t), index_(index) {
    const int64_t tile = i % t.q_tiles;
    batch = i / t.q_tiles / t.heads_q;
    head = i / t.q_tiles % t.heads_q;
    row = tile * kAttentionM;
    const uint64_t sequence = static_cast<uint64_t>(batch);
    const int64_t len_q = t.has_q_lengths != 0 ? between(0, index.q_lengths.GetValue(sequence), t.len_q) : t.len_q;
    const int64_t len_k = t.has_k_lengths != 0 ? between(0, index.k_lengths.GetValue(sequence), t.len_k) : t.len_k;
    position_ = row + len_k - len_q;
    m = most(least(len_q - row, kAttentionM), 0);
    low_ = t.left < 0 ? 0 : most(position_ - t.left, 0);
    high_ = t.right < 0 ? len_k : least(position_ + m + t.right, len_k);
    if (t.list_heads == 0) {
      first_ = 0;
      steps_ = (high_ - low_ + kAttentionN - 1) / kAttentionN;
    } else {
      const int64_t list = (batch * t.list_heads + head / (t.heads_q / t.list_heads)) * t.list_tiles + tile;
      first_ = between(0, index.offsets.GetValue(static_cast<uint64_t>(list)), t.list_entries);
      steps_ = between(first_, index.offsets.GetValue(static_cast<uint64_t>(list + 1)), t.list_entries) - first_;
      // A list that does not rise from 0 on cannot be followed: it is taken to be empty.
      int64_t before = -1;
      for (int64_t j = 0; j < steps_; ++j) {
        const int64_t here = column(j);
        if (here <= before) steps_ = 0;
        before = here;
      }
      for (; steps_ > 0 && column(0) + kAttentionN <= low_; ++first_) --steps_;
      while (steps_ > 0 && column(steps_ - 1) >= high_) --steps_;
    }
    if (m == 0 || high_ <= low_) steps_ = 0;
  }

  __aicore__ inline int64_t steps() const { return steps_; }
  // The first key of step i, and how many there are from it on.
  __aicore__ inline int64_t key(int64_t i) const {
    return t_.list_heads != 0 ? most(column(i), low_) : low_ + i * kAttentionN;
  }
  __aicore__ inline int64_t keys(int64_t key) const {
    return least(high_ - key, t_.list_heads != 0 ? kAttentionN - key % kAttentionN : kAttentionN);
  }
  // Of the first query.
  __aicore__ inline int64_t position() const { return position_; }
  __aicore__ inline int64_t head_k() const { return head / (t_.heads_q / t_.heads_k); }

 private:
  const AttentionTiling& t_;
  const Index& index_;
  int64_t position_, low_, high_, first_, steps_;

  __aicore__ inline int64_t column(int64_t i) const {
    return index_.columns.GetValue(static_cast<uint64_t>(first_ + i)) * static_cast<int64_t>(kAttentionN);
  }
};

// Two slots each of scores and products, then of weights, the terms of a slot one after another.
template <typename T>
struct Workspace {
  GlobalTensor<float> scores, products;
  GlobalTensor<T> weights;
  __aicore__ inline Workspace(GM_ADDR workspace) {
    const int64_t index = AscendC::GetBlockIdx() / (ASCEND_IS_AIV ? 2 : 1);
    GM_ADDR block = workspace + index * 2 * kTile * (8 + kAttentionTerms * static_cast<int64_t>(sizeof(T)));
    scores = global<float>(block);
    products = global<float>(block + 2 * kTile * 4);
    weights = global<T>(block + 2 * kTile * 8);
  }
};

// ---- The cube core.
template <typename T, int32_t kTerms>
class Products {
  static constexpr int32_t kLine = 32 / sizeof(T), kFractal = 16 * kLine;

 public:
  __aicore__ inline Products(TPipe* pipe, const AttentionTiling& t, GM_ADDR q, GM_ADDR k, GM_ADDR v, const Index& index,
                             GM_ADDR workspace)
      : t_(t), index_(index), space_(workspace) {
    q_ = global<T>(q);
    k_ = global<T>(k);
    v_ = global<T>(v);
    const uint32_t bytes = kTile * sizeof(T);
    pipe->InitBuffer(l1_q_, 2 * bytes);
    pipe->InitBuffer(l1_k_, 2 * bytes);
    pipe->InitBuffer(l1_p_, 2 * kTerms * bytes);
    pipe->InitBuffer(l1_v_, 2 * bytes);
    pipe->InitBuffer(l0_a_, 2 * bytes);
    pipe->InitBuffer(l0_b_, 2 * bytes);
    pipe->InitBuffer(l0_c_, 2 * kTile * sizeof(float));
  }

  __aicore__ inline void run() {
    // Every buffer is free, and at the end is so again. "Orders nothing" are words that the test looks for.
    for (int32_t i = 0; i < 4; ++i) SetFlag<HardEvent::MTE1_MTE2>(i);  // orders nothing
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::M_MTE1>(i);  // orders nothing
      SetFlag<HardEvent::FIX_M>(i);   // orders nothing
    }
    Step last = {0, 0, 0};
    int32_t count = 0;
    for (int64_t i = AscendC::GetBlockIdx(); i < t_.items; i += AscendC::GetBlockNum()) {
      const Item item(t_, index_, i);
      for (int64_t s = 0; s < item.steps(); ++s, ++count) {
        const int64_t key = item.key(s);
        score(item, key, s == 0, count % 2);
        if (count > 0) weigh(last, (count - 1) % 2);
        last = {item.batch * t_.v_batch + item.head_k() * t_.v_head + key * t_.v_row, item.m, item.keys(key)};
      }
    }
    if (count > 0) weigh(last, (count - 1) % 2);
    for (int32_t i = 0; i < 4; ++i) WaitFlag<HardEvent::MTE1_MTE2>(i);  // orders nothing
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::M_MTE1>(i);  // orders nothing
      WaitFlag<HardEvent::FIX_M>(i);   // orders nothing
    }
  }

 private:
  struct Step {
    int64_t v, m, n;
  };

  // Rows as NZ in L1, for whole fractals of rows: what lies in those that are not there reaches nothing that anyone takes.
  __aicore__ inline void load(const LocalTensor<T>& to, const GlobalTensor<T>& from, int64_t rows, int64_t width,
                              int64_t stride) {
    AscendC::DataCopy(to, from,
                      AscendC::Nd2NzParams(1, static_cast<uint16_t>(rows), static_cast<uint16_t>(width), 0,
                                           static_cast<uint16_t>(stride), static_cast<uint16_t>((rows + 15) / 16 * 16), 1, 0));
  }

  // The left factor: a row of fractals at a time, from columns to rows.
  __aicore__ inline void load_left(const LocalTensor<T>& to, const LocalTensor<T>& from, int64_t rows, int64_t width) {
    const int32_t m1 = static_cast<int32_t>((rows + 15) / 16), lines = static_cast<int32_t>((width + kLine - 1) / kLine);
    for (int32_t i = 0; i < m1; ++i) {
      AscendC::LoadData(to[static_cast<uint32_t>(i * lines * kFractal)], from[static_cast<uint32_t>(i * kFractal)],
                        AscendC::LoadData2DParams(0, static_cast<uint8_t>(lines), static_cast<uint16_t>(m1), 0, 0, false, 0));
    }
  }

  // Makes a sum, or adds to the one that there is.
  __aicore__ inline void multiply(int32_t id, int64_t m, int64_t n, int64_t k, bool first) {
    const uint32_t at = static_cast<uint32_t>(id) * kTile;
    WaitFlag<HardEvent::MTE1_M>(id);
    if (first) WaitFlag<HardEvent::FIX_M>(id);
    AscendC::Mmad(l0_c_.Get<float>()[at], l0_a_.Get<T>()[at], l0_b_.Get<T>()[at],
                  AscendC::MmadParams(whole(m), static_cast<uint16_t>(n), static_cast<uint16_t>(k), 0, false, first));
    SetFlag<HardEvent::M_MTE1>(id);
  }
  __aicore__ inline void store(int32_t id, int64_t m, int64_t n, const GlobalTensor<float>& to) {
    SetFlag<HardEvent::M_FIX>(id);
    WaitFlag<HardEvent::M_FIX>(id);
    AscendC::Fixpipe(to, l0_c_.Get<float>()[static_cast<uint32_t>(id) * kTile],
                     AscendC::FixpipeParamsV220(static_cast<uint16_t>(n), static_cast<uint16_t>(m), whole(m), kAttentionN,
                                                false));
    SetFlag<HardEvent::FIX_M>(id);
  }
  // Rows of whole fractals: a single one would be a product of a vector.
  __aicore__ inline uint16_t whole(int64_t m) const { return static_cast<uint16_t>((m + 15) / 16 * 16); }

  // The tile of scores. The queries come with the first tile of keys, and stay in L0A for the others.
  __aicore__ inline void score(const Item& item, int64_t key, bool first, int32_t slot) {
    const int64_t n = item.keys(key);
    const uint32_t at = static_cast<uint32_t>(slot) * kTile;
    const LocalTensor<T> q1 = l1_q_.Get<T>()[at], k1 = l1_k_.Get<T>()[at];
    // The weights of two steps before, which this pipe has waited for, came of the keys that lay here.
    WaitFlag<HardEvent::MTE1_MTE2>(slot);  // orders nothing
    if (first) {
      load(q1, q_[static_cast<uint64_t>(item.batch * t_.q_batch + item.head * t_.q_head + item.row * t_.q_row)], item.m, t_.dk,
           t_.q_row);
    }
    load(k1, k_[static_cast<uint64_t>(item.batch * t_.k_batch + item.head_k() * t_.k_head + key * t_.k_row)], n, t_.dk,
         t_.k_row);
    SetFlag<HardEvent::MTE2_MTE1>(slot);
    WaitFlag<HardEvent::MTE2_MTE1>(slot);
    WaitFlag<HardEvent::M_MTE1>(0);
    if (first) load_left(l0_a_.Get<T>(), q1, item.m, t_.dk);
    // Rows of keys are the columns that L0B is made of: their fractals lie as they are wanted.
    const int64_t fractals = (n + 15) / 16 * ((t_.dk + kLine - 1) / kLine);
    AscendC::LoadData(l0_b_.Get<T>(), k1, AscendC::LoadData2DParams(0, static_cast<uint8_t>(fractals), 1, 0, 0, false, 0));
    SetFlag<HardEvent::MTE1_MTE2>(slot);
    SetFlag<HardEvent::MTE1_M>(0);
    multiply(0, item.m, n, t_.dk, true);
    store(0, item.m, n, space_.scores[at]);
    CrossCoreSetFlag<2, PIPE_FIX>(kScores);
  }

  // Weights times values, which stay in L0B for all terms. A term is loaded when the product of the one before is made, so that
  // sums need no barrier.
  __aicore__ inline void weigh(const Step& step, int32_t slot) {
    const uint32_t at = static_cast<uint32_t>(slot) * kTile;
    const LocalTensor<T> p1 = l1_p_.Get<T>()[kTerms * at], v1 = l1_v_.Get<T>()[at];
    WaitFlag<HardEvent::MTE1_MTE2>(2 + slot);
    load(v1, v_[static_cast<uint64_t>(step.v)], step.n, t_.dv, t_.v_row);
    CrossCoreWaitFlag<2, PIPE_MTE2>(kWeights);
    for (uint32_t i = 0; i < kTerms; ++i) {
      load(p1[i * kTile], space_.weights[kTerms * at + i * kTile], step.m, step.n, kAttentionN);
    }
    SetFlag<HardEvent::MTE2_MTE1>(2 + slot);
    WaitFlag<HardEvent::MTE2_MTE1>(2 + slot);
    for (uint32_t i = 0; i < kTerms; ++i) {
      WaitFlag<HardEvent::M_MTE1>(1);
      if (i == 0) load_values(v1, step.n);
      load_left(l0_a_.Get<T>()[kTile], p1[i * kTile], step.m, step.n);
      if (i + 1 == kTerms) SetFlag<HardEvent::MTE1_MTE2>(2 + slot);
      SetFlag<HardEvent::MTE1_M>(1);
      multiply(1, step.m, t_.dv, step.n, i == 0);
    }
    store(1, step.m, t_.dv, space_.products[at]);
    CrossCoreSetFlag<2, PIPE_FIX>(kProducts);
  }

  // Rows of values are rows of L0B: each row of fractals is gathered, its fractals turned over.
  __aicore__ inline void load_values(const LocalTensor<T>& v1, int64_t n) {
    const int32_t k1 = static_cast<int32_t>((n + 15) / 16), n1 = static_cast<int32_t>((t_.dv + kLine - 1) / kLine);
    for (int32_t i = 0; i < k1; ++i) {
      AscendC::LoadData(l0_b_.Get<T>()[kTile + static_cast<uint32_t>(i * n1 * kFractal)],
                        v1[static_cast<uint32_t>(i * kFractal)],
                        AscendC::LoadData2DParams(0, static_cast<uint8_t>(n1), static_cast<uint16_t>(k1), 0, 0, true, 0));
    }
  }

  const AttentionTiling& t_;
  const Index& index_;
  Workspace<T> space_;
  GlobalTensor<T> q_, k_, v_;
  TBuf<TPosition::A1> l1_q_, l1_p_;
  TBuf<TPosition::B1> l1_k_, l1_v_;
  TBuf<TPosition::A2> l0_a_;   // queries, weights
  TBuf<TPosition::B2> l0_b_;   // keys, values
  TBuf<TPosition::CO1> l0_c_;  // scores, products
};

// ---- The vector cores: each has half of the queries of a tile.
template <typename T, typename Out>
class Softmax {
  static constexpr int32_t kRows = kAttentionM / 2;
  static constexpr uint32_t kPart = kRows * kAttentionN;
  // What is kept of a row: FP32, and its copies that fill 32 bytes.
  static constexpr uint32_t kBlock = 8;

 public:
  __aicore__ inline Softmax(TPipe* pipe, const AttentionTiling& t, const Index& index, GM_ADDR out, GM_ADDR lse,
                            GM_ADDR workspace)
      : t_(t), index_(index), space_(workspace) {
    out_ = global<Out>(out);
    lse_ = global<float>(lse);
    pipe->InitBuffer(scores_in_, 1, kPart * sizeof(float));
    pipe->InitBuffer(products_in_, 1, kPart * sizeof(float));
    // Two where the UB has room for them, so that a term is made while another leaves.
    pipe->InitBuffer(rows_out_, sizeof(Out) > sizeof(T) ? 1 : 2, kPart * sizeof(Out));
    pipe->InitBuffer(lse_out_, 1, kRows * sizeof(float));
    pipe->InitBuffer(sum_buffer_, kPart * sizeof(float));
    pipe->InitBuffer(distance_buffer_, kPart * sizeof(float));
    pipe->InitBuffer(half_buffer_, kRows * 64 * sizeof(float));
    pipe->InitBuffer(row_buffer_, 5 * kRows * sizeof(float));
    pipe->InitBuffer(block_buffer_, 3 * kRows * kBlock * sizeof(float));
    pipe->InitBuffer(bits_buffer_, kPart / 8);
    acc_ = sum_buffer_.Get<float>();
    distance_ = distance_buffer_.Get<float>();
    half_ = half_buffer_.Get<float>();
    const LocalTensor<float> rows = row_buffer_.Get<float>();
    max_ = rows;
    sum_ = rows[kRows];
    new_max_ = rows[2 * kRows];
    found_ = rows[3 * kRows];
    factor_ = rows[4 * kRows];
    blocks_ = block_buffer_.Get<float>();
    factors_ = blocks_[kRows * kBlock];
    bits_ = bits_buffer_.Get<uint8_t>();
  }

  __aicore__ inline void run() {
    // Element c of row r is c - r: how far a key is to the right of a query, but for a number that is the tile's.
    for (int32_t r = 0; r < kRows; ++r) {
      AscendC::CreateVecIndex(distance_[static_cast<uint32_t>(r * kAttentionN)], static_cast<float>(-r), kAttentionN);
    }
    fill(row_buffer_.Get<float>(), 0.0f, 5 * kRows);
    int32_t count = 0;
    for (int64_t i = AscendC::GetBlockIdx() / 2; i < t_.items; i += AscendC::GetBlockNum()) {
      const Item item(t_, index_, i);
      const int32_t share = static_cast<int32_t>((item.m + 1) / 2);
      first_ = AscendC::GetSubBlockIdx() == 0 ? 0 : share;
      rows_ = AscendC::GetSubBlockIdx() == 0 ? share : static_cast<int32_t>(item.m) - share;
      fill(max_, kLeast, kRows);
      fill(sum_, 0.0f, kRows);
      fill(acc_, 0.0f, static_cast<int32_t>(kPart));
      for (int64_t s = 0; s < item.steps(); ++s, ++count) {
        weights(item, item.key(s), count % 2);
        if (s > 0) accumulate((count - 1) % 2);
      }
      if (item.steps() > 0) accumulate((count - 1) % 2);
      if (rows_ > 0 && t_.has_lse != 0) write_lse(item);
      if (rows_ > 0) write(item);
    }
  }

 private:
  // Of the 64 columns from c on, those of n that there are.
  __aicore__ inline uint64_t lanes(int64_t n, int64_t c) const { return static_cast<uint64_t>(least(n - c, 64)); }

  // A number of each row to 8 copies of it, which then stand for all of its columns.
  __aicore__ inline void spread(const LocalTensor<float>& to, const LocalTensor<float>& from) {
    AscendC::Brcb(to, from, kRows / 8, AscendC::BrcbRepeatParams(1, 8));
    PipeBarrier<PIPE_V>();
  }
  __aicore__ inline AscendC::BinaryRepeatParams by_row() const { return AscendC::BinaryRepeatParams(1, 1, 0, 16, 16, 1); }

  // Hides what neither end of the window admits, and columns that are no keys.
  __aicore__ inline void mask(const LocalTensor<float>& s, const Item& item, int64_t key) {
    const int64_t position = item.position() + first_, n = item.keys(key);
    const int32_t count = rows_ * kAttentionN;
    // Key key + c is hidden from query r where key + c > position + r + right, and where key + c < position + r - left.
    if (t_.right >= 0 && key + n - 1 > position + t_.right) {
      hide(s, static_cast<float>(position + t_.right - key), AscendC::CMPMODE::LE, count);
    }
    if (t_.left >= 0 && key < position + rows_ - 1 - t_.left) {
      hide(s, static_cast<float>(position - t_.left - key), AscendC::CMPMODE::GE, count);
    }
    if (n == kAttentionN) return;
    // Row 0 of the distances counts columns.
    AscendC::CompareScalar(bits_, distance_, static_cast<float>(n), AscendC::CMPMODE::LT, kAttentionN);
    PipeBarrier<PIPE_V>();
    for (int32_t r = 0; r < rows_; ++r) {
      const LocalTensor<float> row = s[static_cast<uint32_t>(r * kAttentionN)];
      AscendC::Select(row, bits_, row, kMasked, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, kAttentionN);
    }
    PipeBarrier<PIPE_V>();
  }
  __aicore__ inline void hide(const LocalTensor<float>& s, float bound, AscendC::CMPMODE seen, int32_t count) {
    AscendC::CompareScalar(bits_, distance_, bound, seen, static_cast<uint32_t>(count));
    PipeBarrier<PIPE_V>();
    AscendC::Select(s, bits_, s, kMasked, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(count));
    PipeBarrier<PIPE_V>();
  }

  __aicore__ inline void weights(const Item& item, int64_t key, int32_t slot) {
    CrossCoreWaitFlag<2, PIPE_MTE2>(kScores);
    if (rows_ > 0) softmax(item, key, slot);
    CrossCoreSetFlag<2, PIPE_MTE3>(kWeights);
  }

  __aicore__ inline void softmax(const Item& item, int64_t key, int32_t slot) {
    const uint32_t row = static_cast<uint32_t>(first_ * kAttentionN), from = static_cast<uint32_t>(slot) * kTile + row,
                   to = static_cast<uint32_t>(slot * kTerms<T, Out>) * kTile + row;
    const int32_t count = rows_ * kAttentionN;
    const uint8_t rows = static_cast<uint8_t>(rows_);
    LocalTensor<float> s = scores_in_.AllocTensor<float>();
    AscendC::DataCopy(s, space_.scores[from], static_cast<uint32_t>(count));
    scores_in_.EnQue(s);
    s = scores_in_.DeQue<float>();
    muls(s, s, t_.scale, count);
    mask(s, item, key);
    AscendC::Max(half_, s, s[64], 64, rows, AscendC::BinaryRepeatParams(1, 1, 1, 8, 16, 16));
    PipeBarrier<PIPE_V>();
    AscendC::WholeReduceMax(found_, half_, 64, rows_, 1, 1, 8, AscendC::ReduceOrder::ORDER_ONLY_VALUE);
    PipeBarrier<PIPE_V>();
    AscendC::Max(new_max_, max_, found_, kRows);
    PipeBarrier<PIPE_V>();
    sub(factor_, max_, new_max_, kRows);
    exponential(factor_, factor_, kRows);
    muls(max_, new_max_, 1.0f, kRows);
    spread(blocks_, max_);
    spread(factors_[static_cast<uint32_t>(slot) * kRows * kBlock], factor_);
    for (uint32_t c = 0; c < kAttentionN; c += 64) AscendC::Sub(s[c], s[c], blocks_, lanes(kAttentionN, c), rows, by_row());
    PipeBarrier<PIPE_V>();
    exponential(s, s, count);
    AscendC::Add(half_, s, s[64], 64, rows, AscendC::BinaryRepeatParams(1, 1, 1, 8, 16, 16));
    PipeBarrier<PIPE_V>();
    AscendC::WholeReduceSum(found_, half_, 64, rows_, 1, 1, 8);
    mul(sum_, sum_, factor_, kRows);
    AscendC::Add(sum_, sum_, found_, kRows);
    if (kUnit<T> != 1) muls(s, s, kUnit<T>, count);
    for (int32_t i = 0; i < kTerms<T, Out>; ++i) {
      LocalTensor<T> p = rows_out_.AllocTensor<T>();
      narrow(p, s, count);
      if (i + 1 < kTerms<T, Out>) take(s, p, count / 2);
      rows_out_.EnQue(p);
      p = rows_out_.DeQue<T>();
      AscendC::DataCopy(space_.weights[to + static_cast<uint32_t>(i) * kTile], p, static_cast<uint32_t>(count));
      rows_out_.FreeTensor(p);
    }
    scores_in_.FreeTensor(s);
  }
  // s -= p, exactly, in two halves.
  __aicore__ inline void take(const LocalTensor<float>& s, const LocalTensor<T>& p, int32_t half_count) {
    for (uint32_t i = 0; i < 2; ++i) {
      const LocalTensor<float> part = s[i * static_cast<uint32_t>(half_count)];
      widen(half_, p[i * static_cast<uint32_t>(half_count)], half_count);
      sub(part, part, half_, half_count);
    }
  }

  __aicore__ inline void accumulate(int32_t slot) {
    CrossCoreWaitFlag<2, PIPE_MTE2>(kProducts);
    if (rows_ == 0) return;
    const uint32_t at = static_cast<uint32_t>(slot) * kTile + static_cast<uint32_t>(first_ * kAttentionN);
    const int32_t count = rows_ * kAttentionN;
    LocalTensor<float> products = products_in_.AllocTensor<float>();
    AscendC::DataCopy(products, space_.products[at], static_cast<uint32_t>(count));
    products_in_.EnQue(products);
    products = products_in_.DeQue<float>();
    const LocalTensor<float> factors = factors_[static_cast<uint32_t>(slot) * kRows * kBlock];
    for (uint32_t c = 0; c < t_.dv; c += 64)
      AscendC::Mul(acc_[c], acc_[c], factors, lanes(t_.dv, c), static_cast<uint8_t>(rows_), by_row());
    PipeBarrier<PIPE_V>();
    AscendC::Add(acc_, acc_, products, count);
    products_in_.FreeTensor(products);
  }

  // lse = m + ln(l), or -infinity for a query that saw nothing.
  __aicore__ inline void write_lse(const Item& item) {
    logarithm(found_, sum_, kRows);
    // The rows that followed on the way out have been waited for.
    LocalTensor<float> lse = lse_out_.AllocTensor<float>();  // orders nothing
    AscendC::Add(found_, found_, max_, kRows);
    AscendC::CompareScalar(bits_, sum_, 0.0f, AscendC::CMPMODE::NE, static_cast<uint32_t>(kRows));
    PipeBarrier<PIPE_V>();
    AscendC::Select(lse, bits_, found_, -float_of(0x7f800000), AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(kRows));
    lse_out_.EnQue(lse);
    lse = lse_out_.DeQue<float>();
    const int64_t to = (item.batch * t_.heads_q + item.head) * t_.lse_row + item.row + first_;
    copy_out(lse_[static_cast<uint64_t>(to)], lse, rows_);
    lse_out_.FreeTensor(lse);
  }

  // out = acc / l, or 0 for a query that saw nothing.
  __aicore__ inline void write(const Item& item) {
    maxs(sum_, sum_, 1e-30f, kRows);
    if (kUnit<T> != 1) muls(sum_, sum_, kUnit<T>, kRows);
    spread(blocks_, sum_);
    for (uint32_t c = 0; c < t_.dv; c += 64) {
      AscendC::Div(acc_[c], acc_[c], blocks_, lanes(t_.dv, c), static_cast<uint8_t>(rows_), by_row());
    }
    PipeBarrier<PIPE_V>();
    // The last products came of the weights that lay here.
    LocalTensor<Out> rows = rows_out_.AllocTensor<Out>();  // orders nothing
    round(rows, acc_, rows_ * kAttentionN);
    rows_out_.EnQue(rows);
    rows = rows_out_.DeQue<Out>();
    const uint32_t bytes = static_cast<uint32_t>(t_.dv) * sizeof(Out);
    const int64_t to = item.batch * t_.out_batch + item.head * t_.out_head + (item.row + first_) * t_.out_row;
    AscendC::DataCopyPad(
        out_[static_cast<uint64_t>(to)], rows,
        AscendC::DataCopyExtParams(static_cast<uint16_t>(rows_), bytes, kAttentionN * sizeof(Out) / 32 - (bytes + 31) / 32,
                                   static_cast<uint32_t>(t_.out_row - t_.dv) * sizeof(Out), 0));
    rows_out_.FreeTensor(rows);
  }
  __aicore__ inline void round(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t count) {
    AscendC::Muls(to, from, 1.0f, count);
  }
  template <typename Y>
  __aicore__ inline void round(const LocalTensor<Y>& to, const LocalTensor<float>& from, int32_t count) {
    AscendC::Cast(to, from, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
  }

  const AttentionTiling& t_;
  const Index& index_;
  Workspace<T> space_;
  GlobalTensor<Out> out_;
  GlobalTensor<float> lse_;
  TQue<TPosition::VECIN, 1> scores_in_, products_in_;
  TQue<TPosition::VECOUT, 1> rows_out_, lse_out_;
  TBuf<TPosition::VECCALC> sum_buffer_, distance_buffer_, half_buffer_, row_buffer_, block_buffer_, bits_buffer_;
  LocalTensor<float> acc_, distance_, half_, max_, sum_, new_max_, found_, factor_, blocks_, factors_;
  LocalTensor<uint8_t> bits_;
  int32_t first_ = 0, rows_ = 0;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_ATTENTION_ENTRY(name, T, Out)                                                                                \
  extern "C" __global__ __aicore__ void gatun_attention_##name(                                                            \
      GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR q_lengths, GM_ADDR k_lengths, GM_ADDR block_offsets, GM_ADDR block_columns, \
      GM_ADDR out, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling) {                                                       \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                                     \
    AscendC::TPipe pipe;                                                                                                   \
    const gatun::ascend::AttentionTiling t = gatun::ascend::read_tiling<gatun::ascend::AttentionTiling>(tiling);           \
    const gatun::ascend::Index index(q_lengths, k_lengths, block_offsets, block_columns);                                  \
    if (ASCEND_IS_AIC) {                                                                                                   \
      gatun::ascend::Products<T, gatun::ascend::kTerms<T, Out>> products(&pipe, t, q, k, v, index, workspace);             \
      products.run();                                                                                                      \
    } else {                                                                                                               \
      gatun::ascend::Softmax<T, Out> softmax(&pipe, t, index, out, lse, workspace);                                        \
      softmax.run();                                                                                                       \
    }                                                                                                                      \
  }

GATUN_ATTENTION_ENTRY(bf16_bf16, bfloat16_t, bfloat16_t)
GATUN_ATTENTION_ENTRY(bf16_f32, bfloat16_t, float)
GATUN_ATTENTION_ENTRY(f16_f16, half, half)
GATUN_ATTENTION_ENTRY(f16_f32, half, float)
