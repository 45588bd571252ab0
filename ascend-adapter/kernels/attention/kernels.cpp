// Attention with an online softmax (Dao et al. 2022, FlashAttention) over lists of tiles of keys, for cube and vector cores 1
// to 2: windows, causal among them, and block lists; grouped heads; queries of BF16 and FP16, keys and values of those, FP32 and S8.
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
//
// The cube unit makes NaN of a weight of 0 and a value that is not finite. So tiles have no keys that no query sees; where options
// leave some between others, the vector cores copy the values with 0 in their place, which adds 4 dv bytes of traffic a key.
//
// Operands of other types, or of two, are multiplied as sums of terms of BF16: S8 is one, FP16 two, FP32 three. The vector cores make
// those of queries and of the keys of step t + 1 before their softmax of step t, since the cube core makes S(t + 1) before O(t), and
// tell it by a fourth flag; they make those of the values of step t beside its weights. That is 4 terms dk bytes of traffic a key, and as
// many again for dv, and 3 instructions for 64 elements of S8, 9 of FP32. The scales of S8 are applied to scores and weights, by
// columns, so nothing is rounded for them.
#include "kernels/attention/scores.h"

namespace gatun::ascend {
namespace {

using AscendC::CrossCoreSetFlag;
using AscendC::CrossCoreWaitFlag;
using AscendC::PipeBarrier;
using AscendC::SetFlag;
using AscendC::WaitFlag;

constexpr uint16_t kScores = 0, kWeights = 1, kProducts = 2, kUnseen = 3, kPrepared = 4;
constexpr uint32_t kTile = kAttentionM * kAttentionN;  // kAttentionHead is as wide
constexpr float kLeast = -1e30f;  // a maximum that is above what is hidden and below all others

// What a kernel serves: windows, and lists of blocks as large as tiles; whatever gatun.h has for scores; that, of operands of any
// type, which the vector cores bring to terms of BF16.
enum class Serves { Windows, Options, Types };

// The terms of a weight, and what weights are multiplied by before they are split.
template <typename T, typename Out>
constexpr int32_t kTerms = std::is_same<T, Out>::value || std::is_same<T, half>::value ? 2 : kAttentionTerms;
template <typename T>
constexpr float kUnit = 1;
template <>
constexpr float kUnit<half> = 4096;

// Two slots each of scores and products, then of weights, the terms of a slot one after another, then of values and of what each
// of the vector cores knows of keys; then, where operands are made of terms, of keys and queries.
template <typename T, bool kMade>
struct Workspace {
  static constexpr uint32_t kOfSlot = (kMade ? kAttentionTerms : 1) * kTile;  // of values, keys and queries
  GlobalTensor<float> scores, products, unseen;
  GlobalTensor<T> weights, values, keys, queries;
  __aicore__ inline Workspace(GM_ADDR workspace) {
    const int64_t index = AscendC::GetBlockIdx() / (ASCEND_IS_AIV ? 2 : 1);
    GM_ADDR at = workspace + index * attention_workspace_bytes(1, kMade);
    const auto take = [&at](int64_t bytes) {
      GM_ADDR const taken = at;
      at += 2 * bytes;
      return taken;
    };
    scores = global<float>(take(kTile * 4));
    products = global<float>(take(kTile * 4));
    weights = global<T>(take(kAttentionTerms * kTile * sizeof(T)));
    values = global<T>(take(kOfSlot * sizeof(T)));
    unseen = global<float>(take(2 * kAttentionN * 4));
    if (!kMade) return;
    keys = global<T>(take(kOfSlot * sizeof(T)));
    queries = global<T>(take(kOfSlot * sizeof(T)));
  }
};

// ---- The cube core. kMade: the vector cores make terms of what is not BF16.
template <typename T, int32_t kTerms, bool kMade>
class Products {
  static constexpr int32_t kLine = 32 / sizeof(T), kFractal = 16 * kLine;
  // Elements of a term of queries, and of all of them: the rest of L0A is for weights.
  static constexpr uint32_t kTermOfQ = kMade ? kAttentionAnyM * kAttentionN : kTile;
  static constexpr uint32_t kQueries = (kMade ? 2 : 1) * kTermOfQ;  // F16 has two

 public:
  __aicore__ inline Products(TPipe* pipe, const AttentionTiling& t, GM_ADDR q, GM_ADDR k, GM_ADDR v,
                             const AttentionArrays& arrays, GM_ADDR workspace)
      : t_(t),
        item_(t, arrays),
        space_(workspace),
        q_terms_(kMade ? attention_terms(t.q_type) : 1),
        kv_terms_(kMade ? attention_terms(t.kv_type) : 1),
        made_q_(kMade && t.q_type != kAttentionBf16),
        made_kv_(kMade && t.kv_type != kAttentionBf16),
        copied_v_(made_kv_ || t.has_gaps != 0) {
    q_ = global<T>(q);
    k_ = global<T>(k);
    v_ = global<T>(v);
    const uint32_t bytes = kTile * sizeof(T);
    pipe->InitBuffer(l1_q_, 2 * kQueries * sizeof(T));
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
    Product last = {0, 0};
    int32_t count = 0;
    for (int64_t i = AscendC::GetBlockIdx(); item_.find(i); i += AscendC::GetBlockNum()) {
      AttentionStep step;
      for (bool first = true; item_.next(&step); first = false, ++count) {
        score(step, first, count % 2);
        if (count > 0) weigh(last, (count - 1) % 2);
        last = {item_.m, step.n};
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
  struct Product {
    int64_t m, n;
  };

  // Some of `rows` rows as NZ in L1, for whole fractals of rows: what lies in those that are not there reaches nothing that
  // anyone takes.
  __aicore__ inline void load(const LocalTensor<T>& to, const GlobalTensor<T>& from, int64_t some, int64_t rows, int64_t width,
                              int64_t stride) {
    AscendC::DataCopy(to, from,
                      AscendC::Nd2NzParams(1, static_cast<uint16_t>(some), static_cast<uint16_t>(width), 0,
                                           static_cast<uint16_t>(stride), whole(rows), 1, 0));
  }

  // The rows of keys or values of a step, as many at once as lie side by side.
  __aicore__ inline void load_keys(const LocalTensor<T>& to, const GlobalTensor<T>& from, const AttentionStep& step, int64_t width,
                                   int64_t batch, int64_t row, int64_t head) {
    for (int64_t i = 0; i < step.n;) {
      const int64_t some = item_.keys_side_by_side(step.key + i, step.n - i);
      load(to[static_cast<uint32_t>(i * kLine)],
           from[static_cast<uint64_t>(item_.at_k(step.key + i, batch, row) + item_.head_k() * head)], some, step.n, width, row);
      i += some;
    }
  }
  __aicore__ inline void load_queries(const LocalTensor<T>& to, int32_t slot) {
    if (made_q_) {
      for (int32_t i = 0; i < q_terms_; ++i)
        load(to[i * kTermOfQ], space_.queries[slot * space_.kOfSlot + i * kTile], item_.m, item_.m, t_.dk, kAttentionN);
      return;
    }
    for (int64_t i = 0; i < item_.m; i += item_.side_by_side(item_.m)) {
      const int64_t from = item_.at_q(item_.row + i, t_.q_batch, t_.q_row) + item_.head * t_.q_head;
      load(to[static_cast<uint32_t>(i * kLine)], q_[static_cast<uint64_t>(from)], item_.side_by_side(item_.m), item_.m, t_.dk,
           t_.q_row);
    }
  }

  // The left factor: a row of fractals at a time, from columns to rows.
  __aicore__ inline void load_left(const LocalTensor<T>& to, const LocalTensor<T>& from, int64_t rows, int64_t width) {
    const int32_t m1 = static_cast<int32_t>((rows + 15) / 16), lines = static_cast<int32_t>((width + kLine - 1) / kLine);
    for (int32_t i = 0; i < m1; ++i) {
      AscendC::LoadData(to[static_cast<uint32_t>(i * lines * kFractal)], from[static_cast<uint32_t>(i * kFractal)],
                        AscendC::LoadData2DParams(0, static_cast<uint8_t>(lines), static_cast<uint16_t>(m1), 0, 0, false, 0));
    }
  }

  // Makes a sum of what lies in L0A at `from` and in L0B, or adds to the one that there is.
  __aicore__ inline void multiply(int32_t id, uint32_t from, int64_t m, int64_t n, int64_t k, bool first) {
    const uint32_t at = static_cast<uint32_t>(id) * kTile;
    if (first) WaitFlag<HardEvent::FIX_M>(id);
    AscendC::Mmad(l0_c_.Get<float>()[at], l0_a_.Get<T>()[from], l0_b_.Get<T>()[at],
                  AscendC::MmadParams(whole(m), static_cast<uint16_t>(n), static_cast<uint16_t>(k), 0, false, first));
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

  // The tile of scores. The queries come with the first tile of keys, and stay in L0A for the others; the values come with the
  // keys, for the product that follows. Terms of keys take turns in the two buffers, as those of steps do; the least products are
  // summed first, so that those of the first terms have the roundings of a sum of their own.
  __aicore__ inline void score(const AttentionStep& step, bool first, int32_t slot) {
    if (kMade) CrossCoreWaitFlag<2, PIPE_MTE2>(kPrepared);
    for (int32_t turn = 0, j = kv_terms_ - 1; j >= 0; ++turn, --j) {
      const int32_t id = (slot * kv_terms_ + turn) % 2;
      const LocalTensor<T> q1 = l1_q_.Get<T>()[static_cast<uint32_t>(id) * kQueries];
      const LocalTensor<T> k1 = l1_k_.Get<T>()[static_cast<uint32_t>(id) * kTile];
      WaitFlag<HardEvent::MTE1_MTE2>(id);
      if (first && turn == 0) load_queries(q1, slot);
      if (made_kv_) {
        load(k1, space_.keys[slot * space_.kOfSlot + static_cast<uint32_t>(j) * kTile], step.n, step.n, t_.dk, kAttentionN);
      } else {
        load_keys(k1, k_, step, t_.dk, t_.k_batch, t_.k_row, t_.k_head);
      }
      SetFlag<HardEvent::MTE2_MTE1>(id);
      WaitFlag<HardEvent::MTE2_MTE1>(id);
      WaitFlag<HardEvent::M_MTE1>(0);
      for (int32_t i = 0; first && turn == 0 && i < q_terms_; ++i)
        load_left(l0_a_.Get<T>()[i * kTermOfQ], q1[i * kTermOfQ], item_.m, t_.dk);
      // Rows of keys are the columns that L0B is made of: their fractals lie as they are wanted.
      const int64_t fractals = (step.n + 15) / 16 * ((t_.dk + kLine - 1) / kLine);
      AscendC::LoadData(l0_b_.Get<T>(), k1, AscendC::LoadData2DParams(0, static_cast<uint8_t>(fractals), 1, 0, 0, false, 0));
      SetFlag<HardEvent::MTE1_MTE2>(id);
      SetFlag<HardEvent::MTE1_M>(0);
      WaitFlag<HardEvent::MTE1_M>(0);
      const int32_t terms = static_cast<int32_t>(least(q_terms_, kAttentionLeastTerm - j));
      for (int32_t i = terms - 1; i >= 0; --i) {
        multiply(0, i * kTermOfQ, item_.m, step.n, t_.dk, turn == 0 && i + 1 == terms);
        if (i > 0) PipeBarrier<PIPE_M>();
      }
      SetFlag<HardEvent::M_MTE1>(0);
    }
    store(0, item_.m, step.n, space_.scores[static_cast<uint32_t>(slot) * kTile]);
    CrossCoreSetFlag<2, PIPE_FIX>(kScores);
    if (copied_v_) return;
    WaitFlag<HardEvent::MTE1_MTE2>(2 + slot);
    load_keys(l1_v_.Get<T>()[static_cast<uint32_t>(slot) * kTile], v_, step, t_.dv, t_.v_batch, t_.v_row, t_.v_head);
  }

  // Weights times values, a term of which stays in L0B for all terms of weights. A term is loaded when the product of the one
  // before is made, so that sums need no barrier.
  __aicore__ inline void weigh(const Product& step, int32_t slot) {
    const LocalTensor<T> p1 = l1_p_.Get<T>()[kTerms * static_cast<uint32_t>(slot) * kTile];
    CrossCoreWaitFlag<2, PIPE_MTE2>(kWeights);
    for (int32_t turn = 0, j = kv_terms_ - 1; j >= 0; ++turn, --j) {
      const int32_t place = (slot * kv_terms_ + turn) % 2, id = 2 + place;
      const LocalTensor<T> v1 = l1_v_.Get<T>()[static_cast<uint32_t>(place) * kTile];
      if (copied_v_) {
        WaitFlag<HardEvent::MTE1_MTE2>(id);
        load(v1, space_.values[slot * space_.kOfSlot + static_cast<uint32_t>(j) * kTile], step.n, step.n, t_.dv, kAttentionN);
      }
      for (uint32_t i = 0; turn == 0 && i < kTerms; ++i) {
        load(p1[i * kTile], space_.weights[(kTerms * static_cast<uint32_t>(slot) + i) * kTile], step.m, step.m, step.n,
             kAttentionN);
      }
      SetFlag<HardEvent::MTE2_MTE1>(id);
      WaitFlag<HardEvent::MTE2_MTE1>(id);
      const int32_t terms = static_cast<int32_t>(least(kTerms, kAttentionLeastTerm - j));
      for (int32_t i = terms - 1; i >= 0; --i) {
        WaitFlag<HardEvent::M_MTE1>(1);
        if (i + 1 == terms) load_values(v1, step.n);
        load_left(l0_a_.Get<T>()[kQueries], p1[static_cast<uint32_t>(i) * kTile], step.m, step.n);
        if (i == 0) SetFlag<HardEvent::MTE1_MTE2>(id);
        SetFlag<HardEvent::MTE1_M>(1);
        WaitFlag<HardEvent::MTE1_M>(1);
        multiply(1, kQueries, step.m, t_.dv, step.n, turn == 0 && i + 1 == terms);
        SetFlag<HardEvent::M_MTE1>(1);
      }
    }
    store(1, step.m, t_.dv, space_.products[static_cast<uint32_t>(slot) * kTile]);
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
  AttentionItem item_;
  Workspace<T, kMade> space_;
  const int32_t q_terms_, kv_terms_;
  const bool made_q_, made_kv_, copied_v_;
  GlobalTensor<T> q_, k_, v_;
  TBuf<TPosition::A1> l1_q_, l1_p_;
  TBuf<TPosition::B1> l1_k_, l1_v_;
  TBuf<TPosition::A2> l0_a_;   // queries, weights
  TBuf<TPosition::B2> l0_b_;   // keys, values
  TBuf<TPosition::CO1> l0_c_;  // scores, products
};

// Rows of q, k or v in memory: their bytes, and what says where they lie, in elements.
struct AttentionRows {
  GlobalTensor<uint8_t> bytes;
  int32_t type;
  int64_t width, batch, row, head;
};

// ---- The vector cores: each has half of the queries of a tile.
template <typename T, typename Out, Serves kServes>
class Softmax {
  static constexpr bool kAny = kServes != Serves::Windows, kMade = kServes == Serves::Types;
  static constexpr int32_t kRows = (kAny ? kAttentionAnyM : kAttentionM) / 2;
  static constexpr uint32_t kPart = kRows * kAttentionN;
  // What is kept of a row: FP32, and its copies that fill 32 bytes.
  static constexpr uint32_t kBlock = 8;
  static constexpr int32_t kLanes = 64;  // of a comparison, at least
  static constexpr int32_t kValues = kAttentionN / 2;  // that each of two cores copies

 public:
  __aicore__ inline Softmax(TPipe* pipe, const AttentionTiling& t, GM_ADDR q, GM_ADDR k, GM_ADDR v,
                            const AttentionArrays& arrays, GM_ADDR out, GM_ADDR lse, GM_ADDR workspace)
      : pipe_(pipe),
        t_(t),
        item_(t, arrays),
        ahead_(t, arrays),
        space_(workspace),
        scores_(pipe, t, arrays),
        q_{global<uint8_t>(q), t.q_type, t.dk, t.q_batch, t.q_row, t.q_head},
        k_{global<uint8_t>(k), t.kv_type, t.dk, t.k_batch, t.k_row, t.k_head},
        v_{global<uint8_t>(v), t.kv_type, t.dv, t.v_batch, t.v_row, t.v_head},
        k_scales_(global<float>(arrays.k_scales)),
        v_scales_(global<float>(arrays.v_scales)),
        sink_logits_(global<float>(arrays.sink_logits)) {
    out_ = global<Out>(out);
    lse_ = global<float>(lse);
    pipe->InitBuffer(scores_in_, 1, kPart * sizeof(float));
    pipe->InitBuffer(products_in_, 1, kPart * sizeof(float));
    // Two where the UB has room for them, so that a term is made while another leaves.
    pipe->InitBuffer(rows_out_, sizeof(Out) > sizeof(T) ? 1 : 2, kPart * sizeof(Out));
    pipe->InitBuffer(lse_out_, 1, kRows * kBlock * sizeof(float));
    pipe->InitBuffer(sum_buffer_, kPart * sizeof(float));
    pipe->InitBuffer(half_buffer_, kRows * 64 * sizeof(float));
    pipe->InitBuffer(row_buffer_, 5 * kLanes * sizeof(float));
    pipe->InitBuffer(block_buffer_, 3 * kRows * kBlock * sizeof(float));
    pipe->InitBuffer(bits_buffer_, 32);
    if (kAny) {
      pipe->InitBuffer(unseen_out_, 1, kAttentionN * sizeof(float));
      pipe->InitBuffer(unseen_in_, 1, 2 * kAttentionN * sizeof(float));
      pipe->InitBuffer(value_buffer_, kMade ? kPart * sizeof(float) : kValues * kAttentionN * sizeof(T));
    }
    if (kMade) pipe->InitBuffer(scale_buffer_, kAttentionN * sizeof(float));
    acc_ = sum_buffer_.Get<float>();
    half_ = half_buffer_.Get<float>();
    const LocalTensor<float> rows = row_buffer_.Get<float>();
    max_ = rows;
    sum_ = rows[kLanes];
    new_max_ = rows[2 * kLanes];
    found_ = rows[3 * kLanes];
    factor_ = rows[4 * kLanes];
    blocks_ = block_buffer_.Get<float>();
    factors_ = blocks_[kRows * kBlock];
    bits_ = bits_buffer_.Get<uint8_t>();
  }

  __aicore__ inline void run() {
    fill(row_buffer_.Get<float>(), 0.0f, 5 * kLanes);
    if (kMade) prepare();
    int32_t count = 0;
    for (int64_t i = AscendC::GetBlockIdx() / 2; item_.find(i); i += AscendC::GetBlockNum()) {
      const int32_t share = static_cast<int32_t>((item_.m + 1) / 2);
      first_ = AscendC::GetSubBlockIdx() == 0 ? 0 : share;
      rows_ = AscendC::GetSubBlockIdx() == 0 ? share : static_cast<int32_t>(item_.m) - share;
      scores_.begin(item_, first_, rows_);
      fill(max_, kLeast, kRows);
      fill(sum_, 0.0f, kRows);
      fill(acc_, 0.0f, static_cast<int32_t>(kPart));
      AttentionStep step;
      bool any = false;
      for (; item_.next(&step); any = true, ++count) {
        if (kMade) prepare();
        weights(step, count % 2);
        if (any) accumulate((count - 1) % 2);
      }
      if (any) accumulate((count - 1) % 2);
      if (rows_ > 0 && t_.has_lse != 0) write_lse();
      if (rows_ > 0) write();
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

  __aicore__ inline void weights(const AttentionStep& step, int32_t slot) {
    CrossCoreWaitFlag<2, PIPE_MTE2>(kScores);
    LocalTensor<float> s;
    if (rows_ > 0) s = score(step, slot);
    if constexpr (kAny) {
      if (t_.has_gaps != 0) find_seen(slot);
      if (t_.has_gaps != 0 || (kMade && t_.kv_type != kAttentionBf16)) copy_values(step, slot);
    }
    if (rows_ > 0) softmax(s, step, slot);
    CrossCoreSetFlag<2, PIPE_MTE3>(kWeights);
  }

  __aicore__ inline LocalTensor<float> score(const AttentionStep& step, int32_t slot) {
    LocalTensor<float> s = scores_in_.AllocTensor<float>();
    AscendC::DataCopy(s, space_.scores[static_cast<uint32_t>(slot) * kTile + static_cast<uint32_t>(first_ * kAttentionN)],
                      static_cast<uint32_t>(rows_ * kAttentionN));
    scores_in_.EnQue(s);
    s = scores_in_.DeQue<float>();
    if (kMade && t_.kv_type == kAttentionS8) {
      fetch_scales(k_scales_, step);
      multiply_by_key(s, scale_buffer_.Get<float>(), rows_);
    }
    scores_.apply(s, item_, step);
    return s;
  }

  // What the cube core needs of the step after the one at hand, which may be of a later tile: it makes those scores before it
  // weighs the values of this one. What lies in the place of two steps before became scores that this core has waited for.
  __aicore__ inline void prepare() {
    bool first = false;
    while (!ahead_.next(&ahead_step_)) {
      if (!ahead_.find(AscendC::GetBlockIdx() / 2 + ahead_tiles_ * AscendC::GetBlockNum())) return;
      ++ahead_tiles_;
      first = true;
    }
    const uint32_t slot = static_cast<uint32_t>(ahead_steps_++ % 2) * space_.kOfSlot;
    const auto part = [](int64_t n, int64_t sub) { return sub == 0 ? 0 : sub == 1 ? (n + 1) / 2 : n; };
    const int64_t sub = AscendC::GetSubBlockIdx();
    if (first && t_.q_type != kAttentionBf16) {
      const int64_t from = part(ahead_.m, sub), rows = part(ahead_.m, sub + 1) - from;
      make_terms(q_, rows, space_.queries[slot + static_cast<uint32_t>(from) * kAttentionN], [&](int64_t i, int64_t n, int64_t* at) {
        *at = ahead_.at_q(ahead_.row + from + i, q_.batch, q_.row) + ahead_.head * q_.head;
        return ahead_.side_by_side(n);
      });
    }
    if (t_.kv_type != kAttentionBf16) {
      const int64_t from = part(ahead_step_.n, sub), rows = part(ahead_step_.n, sub + 1) - from;
      make_terms(k_, rows, space_.keys[slot + static_cast<uint32_t>(from) * kAttentionN], [&](int64_t c, int64_t n, int64_t* at) {
        *at = ahead_.at_k(ahead_step_.key + from + c, k_.batch, k_.row) + ahead_.head_k() * k_.head;
        return ahead_.keys_side_by_side(ahead_step_.key + from + c, n);
      });
    }
    CrossCoreSetFlag<2, PIPE_MTE3>(kPrepared);
  }

  // Copies rows to the UB, 128 elements apart, as many at once as place(row, rows left, &element) says lie side by side; one of
  // which it says 0 is left as it is.
  template <typename Place>
  __aicore__ inline void fetch(const LocalTensor<uint8_t>& to, const AttentionRows& from, int64_t first, int64_t end, Place place) {
    const int64_t size = attention_element_bytes(from.type);
    const uint32_t bytes = static_cast<uint32_t>(from.width * size), pitch = static_cast<uint32_t>(kAttentionN * size);
    for (int64_t i = first; i < end;) {
      int64_t at = 0;
      const int64_t some = place(i, end - i, &at);
      if (some > 0) {
        AscendC::DataCopyPad(to[static_cast<uint32_t>(i - first) * pitch], from.bytes[static_cast<uint64_t>(at * size)],
                             AscendC::DataCopyExtParams(static_cast<uint16_t>(some), bytes,
                                                        static_cast<uint32_t>((from.row - from.width) * size),
                                                        pitch / 32 - (bytes + 31) / 32, 0),
                             AscendC::DataCopyPadExtParams<uint8_t>(true, 0, static_cast<uint8_t>((32 - bytes % 32) % 32), 0));
      }
      i += some > 0 ? some : 1;
    }
  }

  // Rows as terms of BF16, exactly; of those that `place` says 0 of, zeros.
  template <typename Place>
  __aicore__ inline void make_terms(const AttentionRows& from, int64_t rows, const GlobalTensor<T>& to, Place place) {
    const LocalTensor<float> value = value_buffer_.template Get<float>();
    for (int64_t first = 0; first < rows; first += kRows) {
      const int64_t end = least(first + kRows, rows);
      const int32_t count = static_cast<int32_t>(end - first) * kAttentionN;
      LocalTensor<uint8_t> raw = products_in_.AllocTensor<uint8_t>();  // orders nothing: the zeros that come first do
      PipeBarrier<PIPE_V>();                                           // the products that lay here have been added
      fill(raw.ReinterpretCast<float>(), 0.0f, count / 4 * attention_element_bytes(from.type));
      order<HardEvent::V_MTE2>();
      fetch(raw, from, first, end, place);
      products_in_.EnQue(raw);
      raw = products_in_.DeQue<uint8_t>();
      if (from.type == kAttentionF32) widen(value, raw.ReinterpretCast<float>(), count);
      if (from.type == kAttentionBf16) widen(value, raw.ReinterpretCast<bfloat16_t>(), count);
      if (from.type == kAttentionF16) widen(value, raw.ReinterpretCast<half>(), count);
      if (from.type == kAttentionS8) {
        const LocalTensor<half> between = half_.ReinterpretCast<half>();
        convert(between, raw.ReinterpretCast<int8_t>(), RoundMode::CAST_NONE, static_cast<uint32_t>(count));
        widen(value, between, count);
      }
      products_in_.FreeTensor(raw);
      write_terms(value, attention_terms(from.type), count, to[static_cast<uint32_t>(first) * kAttentionN]);
    }
  }

  // The numbers that the rows of a step's keys are multiplied by, to a row; 0 behind the last.
  __aicore__ inline void fetch_scales(const GlobalTensor<float>& scales, const AttentionStep& step) {
    const LocalTensor<float> row = scale_buffer_.Get<float>();
    const int64_t batch = (t_.page_size != 0 ? t_.page_size : t_.lk) * t_.heads_k;
    LocalTensor<float> blocks = products_in_.AllocTensor<float>();
    for (int64_t c = 0; c < step.n;) {
      const int64_t some = item_.keys_side_by_side(step.key + c, step.n - c);
      const int64_t from = item_.at_k(step.key + c, batch, t_.heads_k) + item_.head_k();
      AscendC::DataCopyPad(
          blocks[static_cast<uint32_t>(c) * kBlock], scales[static_cast<uint64_t>(from)],
          AscendC::DataCopyExtParams(static_cast<uint16_t>(some), 4, static_cast<uint32_t>((t_.heads_k - 1) * 4), 0, 0),
          AscendC::DataCopyPadExtParams<float>(false, 0, 0, 0.0f));
      c += some;
    }
    products_in_.EnQue(blocks);
    blocks = products_in_.DeQue<float>();
    fill(row, 0.0f, kAttentionN);
    AscendC::WholeReduceSum(row, blocks, 1, static_cast<int32_t>(step.n), 1, 1, 1);
    PipeBarrier<PIPE_V>();
    products_in_.FreeTensor(blocks);
  }

  // A bit for each of the step's keys: 1 where a query of this vector core or of the other sees it.
  __aicore__ inline void find_seen(int32_t slot) {
    const uint32_t known = static_cast<uint32_t>(slot) * 2 * kAttentionN;
    // Both cores have told each other of what they know since they read what lay here, and in the queue that follows.
    LocalTensor<float> unseen = unseen_out_.AllocTensor<float>();  // orders nothing
    scores_.write_unseen(unseen);
    unseen_out_.EnQue(unseen);
    unseen = unseen_out_.DeQue<float>();
    AscendC::DataCopy(space_.unseen[known + static_cast<uint32_t>(AscendC::GetSubBlockIdx()) * kAttentionN], unseen, kAttentionN);
    unseen_out_.FreeTensor(unseen);
    CrossCoreSetFlag<1, PIPE_MTE3>(kUnseen);
    CrossCoreWaitFlag<1, PIPE_MTE2>(kUnseen);
    LocalTensor<float> both = unseen_in_.AllocTensor<float>();  // orders nothing
    AscendC::DataCopy(both, space_.unseen[known], 2 * kAttentionN);
    unseen_in_.EnQue(both);
    both = unseen_in_.DeQue<float>();
    AscendC::Min(both, both, both[kAttentionN], kAttentionN);
    PipeBarrier<PIPE_V>();
    AscendC::CompareScalar(bits_, both, 0.0f, AscendC::CMPMODE::EQ, kAttentionN);
    unseen_in_.FreeTensor(both);

    order<HardEvent::V_S>();
  }

  // The values of the step's keys for the cube core, 0 where no query of the tile sees a key. Each core copies half of them.
  __aicore__ inline void copy_values(const AttentionStep& step, int32_t slot) {
    const int64_t first = AscendC::GetSubBlockIdx() * kValues, rows = between(0, step.n - first, kValues);
    const GlobalTensor<T> to =
        space_.values[static_cast<uint32_t>(slot) * space_.kOfSlot + static_cast<uint32_t>(first) * kAttentionN];
    const auto place = [&](int64_t c, int64_t n, int64_t* at) {
      const int64_t key = step.key + first + c, most = item_.keys_side_by_side(key, n);
      int64_t some = 0;
      while (some < most && sees(static_cast<int32_t>(first + c + some))) ++some;
      *at = item_.at_k(key, v_.batch, v_.row) + item_.head_k() * v_.head;
      return some;
    };
    if (kMade) {
      make_terms(v_, rows, to, place);
      return;
    }
    const LocalTensor<T> values = value_buffer_.template Get<T>();
    order<HardEvent::MTE3_V>();
    AscendC::Duplicate(values, T(0.0f), kValues * kAttentionN);
    order<HardEvent::V_MTE2>();
    fetch(values.template ReinterpretCast<uint8_t>(), v_, 0, rows, place);
    order<HardEvent::MTE2_MTE3>();
    AscendC::DataCopy(to, values, kValues * kAttentionN);
  }
  // Whether a query of the tile sees key c of the step.
  __aicore__ inline bool sees(int32_t c) const {
    return t_.has_gaps == 0 || (bits_.GetValue(static_cast<uint32_t>(c / 8)) >> c % 8 & 1) != 0;
  }
  template <HardEvent kEvent>
  __aicore__ inline void order() {
    const AscendC::TEventID event = pipe_->FetchEventID(kEvent);
    SetFlag<kEvent>(event);
    WaitFlag<kEvent>(event);
  }

  __aicore__ inline void softmax(LocalTensor<float> s, const AttentionStep& step, int32_t slot) {
    const uint32_t to = static_cast<uint32_t>(slot * kTerms<T, Out>) * kTile + static_cast<uint32_t>(first_ * kAttentionN);
    const int32_t count = rows_ * kAttentionN;
    const uint8_t rows = static_cast<uint8_t>(rows_);
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
    if (kMade && t_.kv_type == kAttentionS8) scale_weights(s, step);
    write_terms(s, kTerms<T, Out>, count, space_.weights[to]);
    scores_in_.FreeTensor(s);
  }
  // The scale of a value that no query of the tile sees may be NaN.
  __aicore__ inline void scale_weights(const LocalTensor<float>& s, const AttentionStep& step) {
    const LocalTensor<float> scales = scale_buffer_.Get<float>();
    fetch_scales(v_scales_, step);
    if (t_.has_gaps != 0) {
      AscendC::Select(scales, bits_, scales, 0.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, kAttentionN);
      PipeBarrier<PIPE_V>();
    }
    multiply_by_key(s, scales, rows_);
  }

  // Writes a sum of terms of T, a tile apart, that is s, or nearly so; nothing is left of s.
  __aicore__ inline void write_terms(const LocalTensor<float>& s, int32_t terms, int32_t count, const GlobalTensor<T>& to) {
    for (int32_t i = 0; i < terms; ++i) {
      LocalTensor<T> p = rows_out_.template AllocTensor<T>();
      narrow(p, s, count);
      if (i + 1 < terms) take(s, p, count / 2);
      rows_out_.EnQue(p);
      p = rows_out_.template DeQue<T>();
      AscendC::DataCopy(to[static_cast<uint32_t>(i) * kTile], p, static_cast<uint32_t>(count));
      rows_out_.FreeTensor(p);
    }
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
  __aicore__ inline void write_lse() {
    logarithm(found_, sum_, kRows);
    AscendC::Add(found_, found_, max_, kRows);
    AscendC::CompareScalar(bits_, sum_, 0.0f, AscendC::CMPMODE::NE, static_cast<uint32_t>(kLanes));
    PipeBarrier<PIPE_V>();
    AscendC::Select(found_, bits_, found_, -float_of(0x7f800000), AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(kLanes));
    PipeBarrier<PIPE_V>();
    // The rows that followed on the way out have been waited for.
    LocalTensor<float> lse = lse_out_.AllocTensor<float>();  // orders nothing
    const int64_t to = (item_.sequence_q() * t_.heads_q + item_.head) * t_.lq + item_.first_q;
    if (t_.order_heads == 0) {
      muls(lse, found_, 1.0f, kRows);
    } else {
      spread(lse, found_);
    }
    lse_out_.EnQue(lse);
    lse = lse_out_.DeQue<float>();
    if (t_.order_heads == 0) {
      copy_out(lse_[static_cast<uint64_t>(to + item_.row + first_)], lse, rows_);
    } else {
      for (int32_t r = 0; r < rows_; ++r)
        copy_out(lse_[static_cast<uint64_t>(to + item_.query(item_.row + first_ + r))], lse[static_cast<uint32_t>(r) * kBlock], 1);
    }
    lse_out_.FreeTensor(lse);
  }

  // out = acc / l, or 0 for a query that saw nothing. A sink takes part in l alone; it is infinite beside a maximum of nothing.
  __aicore__ inline void write() {
    if (t_.has_sink_logits != 0) {
      fill(found_, sink_logits_.GetValue(static_cast<uint64_t>(item_.head)), kRows);
      sub(found_, found_, max_, kRows);
      exponential(found_, found_, kRows);
      add(sum_, sum_, found_, kRows);
    }
    maxs(sum_, sum_, 1e-30f, kRows);
    if (kUnit<T> != 1) muls(sum_, sum_, kUnit<T>, kRows);
    spread(blocks_, sum_);
    for (uint32_t c = 0; c < t_.dv; c += 64) {
      AscendC::Div(acc_[c], acc_[c], blocks_, lanes(t_.dv, c), static_cast<uint8_t>(rows_), by_row());
    }
    PipeBarrier<PIPE_V>();
    // The last products came of the weights that lay here.
    LocalTensor<Out> rows = rows_out_.template AllocTensor<Out>();  // orders nothing
    round(rows, acc_, rows_ * kAttentionN);
    rows_out_.EnQue(rows);
    rows = rows_out_.template DeQue<Out>();
    const uint32_t bytes = static_cast<uint32_t>(t_.dv) * sizeof(Out), pad = kAttentionN * sizeof(Out) / 32 - (bytes + 31) / 32;
    const int32_t some = static_cast<int32_t>(item_.side_by_side(rows_));
    for (int32_t r = 0; r < rows_; r += some) {
      const int64_t to = item_.at_q(item_.row + first_ + r, t_.out_batch, t_.out_row) + item_.head * t_.out_head;
      AscendC::DataCopyPad(out_[static_cast<uint64_t>(to)], rows[static_cast<uint32_t>(r * kAttentionN)],
                           AscendC::DataCopyExtParams(static_cast<uint16_t>(some), bytes, pad,
                                                      static_cast<uint32_t>(t_.out_row - t_.dv) * sizeof(Out), 0));
    }
    rows_out_.FreeTensor(rows);
  }
  __aicore__ inline void round(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t count) {
    AscendC::Muls(to, from, 1.0f, count);
  }
  template <typename Y>
  __aicore__ inline void round(const LocalTensor<Y>& to, const LocalTensor<float>& from, int32_t count) {
    AscendC::Cast(to, from, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
  }

  TPipe* pipe_;
  const AttentionTiling& t_;
  AttentionItem item_, ahead_;
  AttentionStep ahead_step_;
  int64_t ahead_tiles_ = 0, ahead_steps_ = 0;
  Workspace<T, kMade> space_;
  typename std::conditional<kAny, AttentionScores<kRows>, AttentionWindow<kRows>>::type scores_;
  const AttentionRows q_, k_, v_;
  GlobalTensor<float> k_scales_, v_scales_, sink_logits_;
  GlobalTensor<Out> out_;
  GlobalTensor<float> lse_;
  TQue<TPosition::VECIN, 1> scores_in_, products_in_, unseen_in_;
  TQue<TPosition::VECOUT, 1> rows_out_, lse_out_, unseen_out_;
  TBuf<TPosition::VECCALC> sum_buffer_, half_buffer_, row_buffer_, block_buffer_, bits_buffer_, value_buffer_, scale_buffer_;
  LocalTensor<float> acc_, half_, max_, sum_, new_max_, found_, factor_, blocks_, factors_;
  LocalTensor<uint8_t> bits_;
  int32_t first_ = 0, rows_ = 0;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_ATTENTION_ENTRY(name, kServes, T, Out)                                                                          \
  extern "C" __global__ __aicore__ void gatun_attention_##name(                                                               \
      GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR block_table, GM_ADDR block_offsets,          \
      GM_ADDR block_columns, GM_ADDR q_order, GM_ADDR k_order, GM_ADDR sink_logits, GM_ADDR slopes, GM_ADDR bias,             \
      GM_ADDR prefixes, GM_ADDR globals, GM_ADDR q_documents, GM_ADDR k_documents, GM_ADDR tree, GM_ADDR block_mask_index,    \
      GM_ADDR block_masks, GM_ADDR block_bias, GM_ADDR k_scales, GM_ADDR v_scales, GM_ADDR out, GM_ADDR lse,                  \
      GM_ADDR workspace, GM_ADDR tiling) {                                                                                    \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                                        \
    AscendC::TPipe pipe;                                                                                                      \
    const gatun::ascend::AttentionTiling t = gatun::ascend::read_tiling<gatun::ascend::AttentionTiling>(tiling);              \
    const gatun::ascend::AttentionArrays arrays = {                                                                           \
        q_index,  k_index, block_table, block_offsets, block_columns, q_order, k_order,          sink_logits, slopes,         \
        bias,     prefixes, globals,    q_documents,   k_documents,   tree,    block_mask_index, block_masks, block_bias,     \
        k_scales, v_scales};                                                                                                  \
    constexpr gatun::ascend::Serves serves = gatun::ascend::Serves::kServes;                                                  \
    if (ASCEND_IS_AIC) {                                                                                                      \
      gatun::ascend::Products<T, gatun::ascend::kTerms<T, Out>, serves == gatun::ascend::Serves::Types> products(             \
          &pipe, t, q, k, v, arrays, workspace);                                                                              \
      products.run();                                                                                                         \
    } else {                                                                                                                  \
      gatun::ascend::Softmax<T, Out, serves> softmax(&pipe, t, q, k, v, arrays, out, lse, workspace);                         \
      softmax.run();                                                                                                          \
    }                                                                                                                         \
  }

GATUN_ATTENTION_ENTRY(bf16_bf16, Windows, bfloat16_t, bfloat16_t)
GATUN_ATTENTION_ENTRY(bf16_f32, Windows, bfloat16_t, float)
GATUN_ATTENTION_ENTRY(f16_f16, Windows, half, half)
GATUN_ATTENTION_ENTRY(f16_f32, Windows, half, float)
GATUN_ATTENTION_ENTRY(any_bf16_bf16, Options, bfloat16_t, bfloat16_t)
GATUN_ATTENTION_ENTRY(any_bf16_f32, Options, bfloat16_t, float)
GATUN_ATTENTION_ENTRY(any_f16_f16, Options, half, half)
GATUN_ATTENTION_ENTRY(any_f16_f32, Options, half, float)
GATUN_ATTENTION_ENTRY(terms_bf16, Types, bfloat16_t, bfloat16_t)
GATUN_ATTENTION_ENTRY(terms_f16, Types, bfloat16_t, half)
GATUN_ATTENTION_ENTRY(terms_f32, Types, bfloat16_t, float)
