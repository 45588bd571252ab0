// Selection by retrieval: rows are hashed into tables, and a query takes the keys that it meets in two of them or more.
//
//   unit of a row = x less the mean of the keys (of a query: x), made of length 1
//   code of a row in a table = a bit for each column of the table's rotation: 1 where unit.column > 0
//   list of a query = the keys that share two codes with it or more, with a bias of -log of the probability of that
//
// Bytes: 4 for each key and table, for each query, from the L2 cache; a row of FP32 for each key that is chosen. FLOPs: 2 dk
// log2(buckets) tables for a row; then a query's codes are compared with those of all keys, 3 instructions for 64 of them and a
// table. What binds it: the vector unit; where many keys are chosen, the time of the copies of their rows. Chen et al. 2024, MagicPIG
// (section 4).
#include "kernels/select/rows.h"

namespace gatun::ascend {
namespace {

// A code that no key has, and one that no query has: of rows that are not finite.
constexpr float kNoQuery = -1.0f, kNoKey = -2.0f;

// Rows of codes begin where a comparison may.
__aicore__ inline int64_t code_pitch(int64_t length) { return (length + 63) / 64 * 64; }

template <typename X>
class UnitRows {
 public:
  __aicore__ inline UnitRows(TPipe* pipe, const SelectTiling& t, GM_ADDR x, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR means,
                             GM_ADDR units)
      : pipe_(pipe),
        t_(t),
        x_(global<X>(x)),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)),
        means_(global<float>(means)),
        units_(global<float>(units)) {
    const uint32_t row = static_cast<uint32_t>(t.pitch);
    pipe->InitBuffer(x_in_, 2, row * sizeof(X));
    pipe->InitBuffer(mean_in_, 1, row * sizeof(float));
    pipe->InitBuffer(unit_out_, 2, row * sizeof(float));
    pipe->InitBuffer(buffer_, 2 * row * sizeof(float));
    pipe->InitBuffer(partial_buffer_, partial_elements(row) * sizeof(float));
    pipe->InitBuffer(scalar_buffer_, 64);
    value_ = buffer_.template Get<float>();
    other_ = value_[row];
    partial_ = partial_buffer_.template Get<float>();
    scalar_ = scalar_buffer_.template Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t heads = t_.keys != 0 ? t_.heads_k : t_.heads_q, length = t_.keys != 0 ? t_.lk : t_.lq;
    for (int64_t i = AscendC::GetBlockIdx(); i < t_.sequences * heads * length; i += AscendC::GetBlockNum()) {
      const int64_t at = i / length, row = i % length, s = at / heads, head = at % heads;
      const SelectSequence of(t_, q_index_, k_index_, s);
      if (row >= (t_.keys != 0 ? of.len_k : of.len_q)) continue;
      fetch(t_.keys != 0 ? select_k_at(t_, of, s, head, row) : select_q_at(t_, of, s, head, row), at);
      make_unit();
      LocalTensor<float> unit = unit_out_.template AllocTensor<float>();
      fill(unit, 0.0f, static_cast<int32_t>(t_.pitch));
      muls(unit, value_, 1.0f, static_cast<int32_t>(t_.dk));
      unit_out_.EnQue(unit);
      unit = unit_out_.template DeQue<float>();
      copy_out(units_[static_cast<uint64_t>(i * t_.pitch)], unit, static_cast<int32_t>(t_.pitch));
      unit_out_.FreeTensor(unit);
    }
  }

 private:
  __aicore__ inline void fetch(int64_t from, int64_t at) {
    const int32_t n = static_cast<int32_t>(t_.dk);
    // The scalar unit has waited for what became of the row before.
    LocalTensor<X> x = x_in_.template AllocTensor<X>();  // orders nothing
    copy_in(x, x_[static_cast<uint64_t>(from)], n);
    x_in_.EnQue(x);
    x = x_in_.template DeQue<X>();
    widen(value_, x, n);
    x_in_.FreeTensor(x);
    if (t_.keys == 0) return;
    LocalTensor<float> mean = mean_in_.template AllocTensor<float>();  // orders nothing
    copy_in(mean, means_[static_cast<uint64_t>(at * t_.pitch)], n);
    mean_in_.EnQue(mean);
    mean = mean_in_.template DeQue<float>();
    sub(value_, value_, mean, n);
    mean_in_.FreeTensor(mean);
  }

  // NaN of a row that is not finite. Divided by the greatest magnitude first, so that no square overflows or vanishes.
  __aicore__ inline void make_unit() {
    const int32_t n = static_cast<int32_t>(t_.dk);
    absolute(other_, value_, n);
    const float greatest = maximum_of(pipe_, scalar_, other_, partial_, n);
    muls(other_, value_, 0.0f, n);
    if (sum_of(pipe_, scalar_, other_, partial_, n) != 0.0f) {
      fill(value_, float_of(0x7fc00000u), n);
    } else if (greatest > 0.0f) {
      divide(greatest, n);
      mul(other_, value_, value_, n);
      AscendC::ReduceSum(scalar_, other_, partial_, n);
      AscendC::PipeBarrier<PIPE_V>();
      AscendC::Sqrt(scalar_, scalar_, 1);
      divide(scalar_of(pipe_, scalar_), n);
    }
  }
  __aicore__ inline void divide(float by, int32_t n) {
    fill(other_, by, n);
    div(value_, value_, other_, n);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  GlobalTensor<X> x_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<float> means_, units_;
  TQue<TPosition::VECIN, 1> x_in_, mean_in_;
  TQue<TPosition::VECOUT, 1> unit_out_;
  TBuf<TPosition::VECCALC> buffer_, partial_buffer_, scalar_buffer_;
  LocalTensor<float> value_, other_, partial_, scalar_;
};

// Codes as numbers of FP32, [sequences * heads_q][tables] rows: 0 to buckets - 1.
class CodeRows {
 public:
  __aicore__ inline CodeRows(TPipe* pipe, const SelectTiling& t, GM_ADDR units, GM_ADDR q_index, GM_ADDR k_index,
                             GM_ADDR rotations, GM_ADDR codes)
      : pipe_(pipe),
        t_(t),
        products_(pipe, t_),
        units_(global<float>(units)),
        rotations_(global<float>(rotations)),
        codes_(global<float>(codes)),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)) {
    columns_ = t.columns * t.layers;
    stride_ = (columns_ + 255) / 256 * 256;
    rows_ = static_cast<int32_t>(between(1, kSelectProducts / stride_, kRows));
    const uint32_t room = static_cast<uint32_t>(most(kSelectProducts, stride_));
    pipe->InitBuffer(score_buffer_, room * sizeof(float));
    pipe->InitBuffer(bits_buffer_, static_cast<uint32_t>(stride_) / 8 + 32);
    pipe->InitBuffer(code_buffer_, static_cast<uint32_t>(t.layers * kRows) * sizeof(float));
    scores_ = score_buffer_.Get<float>();
    bits_ = bits_buffer_.Get<uint32_t>();
    block_ = code_buffer_.Get<float>();
    fill(scores_, 0.0f, static_cast<int32_t>(room));
  }

  __aicore__ inline void run() {
    const int64_t length = t_.keys != 0 ? t_.lk : t_.lq, tiles = (length + rows_ - 1) / rows_;
    for (int64_t i = AscendC::GetBlockIdx(); i < t_.sequences * t_.heads_q * tiles; i += AscendC::GetBlockNum()) {
      const int64_t at = i / tiles, first = i % tiles * rows_;
      const SelectPlace p(t_, q_index_, k_index_, at);
      const int64_t there = t_.keys != 0 ? p.of.len_k : p.of.len_q;
      if (first < there) code(p, at, first, static_cast<int32_t>(least(there - first, rows_)), length);
    }
  }

 private:
  static constexpr int64_t kRows = 8;  // a block of 32 bytes

  __aicore__ inline void code(const SelectPlace& p, int64_t at, int64_t first, int32_t some, int64_t length) {
    const int64_t group = t_.heads_q / t_.heads_k;
    const int64_t head = t_.keys != 0 ? p.sequence * t_.heads_k + p.head / group : at;
    const int64_t unit = (head * length + first) * t_.pitch;
    for (int32_t r = 0; r < some; ++r) products_.take(r, units_, unit + r * t_.pitch);
    for (int64_t c = 0; c < columns_; c += products_.some()) {
      products_.multiply(rotations_[static_cast<uint64_t>((p.head * columns_ + c) * t_.pitch)],
                         least(products_.some(), columns_ - c), some, scores_[static_cast<uint32_t>(c)], stride_);
    }
    for (int32_t r = 0; r < some; ++r) {
      AscendC::CompareScalar(bits_.ReinterpretCast<uint8_t>(), scores_[static_cast<uint32_t>(r * stride_)], 0.0f,
                             AscendC::CMPMODE::GT, static_cast<uint32_t>((columns_ + 63) / 64 * 64));
      vector_to_scalar(pipe_);
      const bool finite = (bits_of(units_.GetValue(static_cast<uint64_t>(unit + r * t_.pitch))) & 0x7fffffffu) <= 0x7f800000u;
      for (int64_t table = 0; table < t_.layers; ++table) {
        const float value = finite ? static_cast<float>(field(table * t_.columns)) : t_.keys != 0 ? kNoQuery : kNoKey;
        block_.SetValue(static_cast<uint32_t>(table * kRows + r), value);
      }
    }
    scalar_to_out(pipe_);
    const int64_t pitch = code_pitch(length);
    AscendC::DataCopyPad(codes_[static_cast<uint64_t>(at * t_.layers * pitch + first)], block_,
                         AscendC::DataCopyExtParams(static_cast<uint16_t>(t_.layers), static_cast<uint32_t>(some) * 4, 0,
                                                    static_cast<uint32_t>(pitch - some) * 4, 0));
    out_to_scalar(pipe_);
  }

  // The bits of a code, which may lie in two words.
  __aicore__ inline uint32_t field(int64_t first) const {
    const uint32_t word = static_cast<uint32_t>(first / 32), shift = static_cast<uint32_t>(first % 32);
    uint32_t value = bits_.GetValue(word) >> shift;
    if (shift + static_cast<uint32_t>(t_.columns) > 32) value |= bits_.GetValue(word + 1) << (32 - shift);
    return value & ((1u << t_.columns) - 1);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  SelectProducts<float> products_;
  GlobalTensor<float> units_, rotations_, codes_;
  GlobalTensor<int64_t> q_index_, k_index_;
  TBuf<TPosition::VECCALC> score_buffer_, bits_buffer_, code_buffer_;
  LocalTensor<float> scores_, block_;
  LocalTensor<uint32_t> bits_;
  int64_t columns_, stride_;
  int32_t rows_;
};

// The bias of keys by the cosines of their angles to a query: -log u, where u is the probability that two vectors share a code of
// `bits` bits in two of `tables` tables or more,
//
//   x = p^bits, p = 1 - angle / pi
//   u = 1 - (1 - x)^tables - tables x (1 - x)^(tables - 1)
//
// of which the first terms that do not cancel are taken where (tables - 1) x is below 1.
class RetrievalBias {
 public:
  static constexpr int32_t kCount = 64;  // cosines at a time

  __aicore__ inline RetrievalBias(TPipe* pipe, const SelectTiling& t) : t_(t) {
    pipe->InitBuffer(buffer_, 8 * kCount * sizeof(float));
    pipe->InitBuffer(bits_buffer_, 32);
    const LocalTensor<float> all = buffer_.Get<float>();
    p_ = all;
    x_ = all[kCount];
    sum_ = all[2 * kCount];
    rest_ = all[3 * kCount];
    a_ = all[4 * kCount];
    b_ = all[5 * kCount];
    c_ = all[6 * kCount];
    rare_ = all[7 * kCount];
    bits_ = bits_buffer_.Get<uint8_t>();
  }

  __aicore__ inline void apply(const LocalTensor<float>& to, const LocalTensor<float>& cosine) {
    const float others = static_cast<float>(t_.layers - 1);
    share_of_angle(cosine);
    muls(x_, p_, 1.0f, kCount);
    for (int64_t b = 1; b < t_.columns; ++b) mul(x_, x_, p_, kCount);
    log_rest(rest_, x_);
    // Few shared codes: the term of two, and what the terms of more add to it.
    muls(a_, x_, -1.0f, kCount);
    adds(a_, a_, 1.0f, kCount);
    div(b_, x_, a_, kCount);
    fill(sum_, 1.0f, kCount);
    for (int64_t shared = least(t_.layers, 14); shared > 2; --shared) {
      mul(sum_, sum_, b_, kCount);
      muls(sum_, sum_, static_cast<float>(t_.layers - shared + 1) / static_cast<float>(shared), kCount);
      adds(sum_, sum_, 1.0f, kCount);
    }
    logarithm(rare_, sum_, kCount);
    muls(a_, rest_, others - 1.0f, kCount);
    if (t_.layers > 2) add(rare_, rare_, a_, kCount);
    logarithm(a_, p_, kCount);
    muls(a_, a_, 2.0f * static_cast<float>(t_.columns), kCount);
    add(rare_, rare_, a_, kCount);
    adds(rare_, rare_, t_.log_pairs, kCount);
    // Many: 1 less the terms of none and of one.
    muls(sum_, rest_, others, kCount);
    exponential(sum_, sum_, kCount);
    muls(b_, x_, others, kCount);
    adds(a_, b_, 1.0f, kCount);
    mul(x_, sum_, a_, kCount);
    muls(p_, b_, 1.0f, kCount);
    log_rest(sum_, x_);
    choose(sum_, p_, 1.0f, AscendC::CMPMODE::LT, rare_, sum_);
    muls(to, sum_, -1.0f, kCount);
    fill(a_, t_.right_angle, kCount);
    choose(to, cosine, 0.0f, AscendC::CMPMODE::NE, to, a_);
  }

 private:
  __aicore__ inline void choose(const LocalTensor<float>& to, const LocalTensor<float>& x, float bound, AscendC::CMPMODE mode,
                                const LocalTensor<float>& yes, const LocalTensor<float>& no) {
    AscendC::CompareScalar(bits_, x, bound, mode, static_cast<uint32_t>(kCount));
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Select(to, bits_, yes, no, AscendC::SELMODE::VSEL_TENSOR_TENSOR_MODE, static_cast<uint32_t>(kCount));
    AscendC::PipeBarrier<PIPE_V>();
  }

  // p = 1 - acos(cosine) / pi, of at least the cosine 2^-24 - 1. The arc cosine of a positive number is sqrt(1 - c) times a polynomial,
  // to 2e-8 (Abramowitz and Stegun 1964, 4.4.46).
  __aicore__ inline void share_of_angle(const LocalTensor<float>& cosine) {
    constexpr float kTerms[] = {-0.0012624911f, 0.0066700901f, -0.0170881256f, 0.0308918810f,
                                -0.0501743046f, 0.0889789874f, -0.2145988016f, 1.5707963050f};
    maxs(c_, cosine, -1.0f + 0x1p-24f, kCount);
    mins(c_, c_, 1.0f, kCount);
    absolute(a_, c_, kCount);
    fill(b_, kTerms[0], kCount);
    for (int32_t i = 1; i < 8; ++i) {
      mul(b_, b_, a_, kCount);
      adds(b_, b_, kTerms[i], kCount);
    }
    muls(a_, a_, -1.0f, kCount);
    adds(a_, a_, 1.0f, kCount);
    AscendC::Sqrt(a_, a_, kCount);
    AscendC::PipeBarrier<PIPE_V>();
    mul(b_, b_, a_, kCount);
    muls(b_, b_, 0.31830988618f, kCount);
    muls(a_, b_, -1.0f, kCount);
    adds(a_, a_, 1.0f, kCount);
    choose(p_, c_, 0.0f, AscendC::CMPMODE::GE, a_, b_);
  }

  // to = ln(1 - y), of y from 0 to 1: below a half -2 (t + t^3 / 3 + ...) up to t^17, t = y / (2 - y). Leaves nothing of a, b and c.
  __aicore__ inline void log_rest(const LocalTensor<float>& to, const LocalTensor<float>& y) {
    muls(a_, y, -1.0f, kCount);
    adds(b_, a_, 2.0f, kCount);
    div(b_, y, b_, kCount);
    mul(c_, b_, b_, kCount);
    fill(to, 1.0f / 17, kCount);
    for (int32_t k = 15; k > 0; k -= 2) {
      mul(to, to, c_, kCount);
      adds(to, to, 1.0f / static_cast<float>(k), kCount);
    }
    mul(to, to, b_, kCount);
    muls(to, to, -2.0f, kCount);
    adds(a_, a_, 1.0f, kCount);
    logarithm(a_, a_, kCount);
    choose(to, y, 0.5f, AscendC::CMPMODE::LT, to, a_);
  }

  const SelectTiling& t_;
  TBuf<TPosition::VECCALC> buffer_, bits_buffer_;
  LocalTensor<float> p_, x_, sum_, rest_, a_, b_, c_, rare_;
  LocalTensor<uint8_t> bits_;
};

class RetrieveKeys {
 public:
  __aicore__ inline RetrieveKeys(TPipe* pipe, const SelectTiling& t, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_units,
                                 GM_ADDR k_units, GM_ADDR q_codes, GM_ADDR k_codes, GM_ADDR columns, GM_ADDR biases, GM_ADDR counts)
      : pipe_(pipe),
        t_(t),
        products_(pipe, t_),
        lists_(pipe, columns, counts),
        bias_(pipe, t_),
        q_units_(global<float>(q_units)),
        k_units_(global<float>(k_units)),
        q_codes_(global<float>(q_codes)),
        k_codes_(global<float>(k_codes)),
        biases_(global<float>(biases)),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)) {
    pipe->InitBuffer(codes_in_, 2, kSome * sizeof(float));
    pipe->InitBuffer(bias_out_, 1, kBatch * sizeof(float));
    pipe->InitBuffer(shared_buffer_, kSelectLength * sizeof(float));
    pipe->InitBuffer(work_buffer_, 2 * kSome * sizeof(float));
    pipe->InitBuffer(bits_buffer_, kSome / 8);
    pipe->InitBuffer(tally_buffer_, static_cast<uint32_t>(t.layers + 1) * sizeof(int32_t));
    pipe->InitBuffer(cosine_buffer_, kBatch * 9 * sizeof(float));
    shared_ = shared_buffer_.Get<float>();
    ones_ = work_buffer_.Get<float>();
    work_ = ones_[kSome];
    bits_ = bits_buffer_.Get<uint8_t>();
    tally_ = tally_buffer_.Get<int32_t>();
    cosines_ = cosine_buffer_.Get<float>();
    blocks_ = cosines_[kBatch];
    fill(ones_, 1.0f, kSome);
  }

  __aicore__ inline void run() {
    for (int64_t i = AscendC::GetBlockIdx(); i < t_.sequences * t_.heads_q * t_.lists; i += AscendC::GetBlockNum()) {
      const int64_t at = i / t_.lists, query = i % t_.lists;
      const SelectPlace p(t_, q_index_, k_index_, at);
      lists_.begin();
      if (query < p.of.len_q) find(p, at, query, i * t_.width);
      lists_.end(i, t_.width);
    }
    lists_.close();
  }

 private:
  static constexpr int32_t kSome = 1024, kBatch = RetrievalBias::kCount;

  // The list of a query: the first keys, those that share codes with it, and the last. `to`: where its biases go.
  __aicore__ inline void find(const SelectPlace& p, int64_t at, int64_t query, int64_t to) {
    const int64_t keys = p.of.visible(t_, query), first = least(t_.first, keys), local = least(t_.local, keys - first);
    const int64_t last = keys - local, room = t_.count - first - local;
    for (int64_t j = 0; j < first; ++j) lists_.add(static_cast<int32_t>(j));
    write_zeros(to, first);
    if (first < last && room > 0) {
      count_shared(at, query, last);
      take(p, at, query, first, last, room, to);
    }
    write_zeros(to + lists_.count(), local);
    for (int64_t j = last; j < keys; ++j) lists_.add(static_cast<int32_t>(j));
  }

  // shared = how many codes each of `n` keys shares with the query.
  __aicore__ inline void count_shared(int64_t at, int64_t query, int64_t n) {
    const int64_t whole = code_pitch(n), k_pitch = code_pitch(t_.lk), q_pitch = code_pitch(t_.lq);
    fill(shared_, 0.0f, static_cast<int32_t>(whole));
    for (int64_t c = 0; c < whole; c += kSome) {
      const int32_t some = static_cast<int32_t>(least(whole - c, kSome));
      const LocalTensor<float> shared = shared_[static_cast<uint32_t>(c)];
      for (int64_t table = at * t_.layers; table < (at + 1) * t_.layers; ++table) {
        LocalTensor<float> codes = codes_in_.AllocTensor<float>();
        copy_in(codes, k_codes_[static_cast<uint64_t>(table * k_pitch + c)], some);
        codes_in_.EnQue(codes);
        codes = codes_in_.DeQue<float>();
        AscendC::CompareScalar(bits_, codes, q_codes_.GetValue(static_cast<uint64_t>(table * q_pitch + query)),
                               AscendC::CMPMODE::EQ, static_cast<uint32_t>(some));
        codes_in_.FreeTensor(codes);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Select(work_, bits_, ones_, 0.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(some));
        AscendC::PipeBarrier<PIPE_V>();
        add(shared, shared, work_, some);
      }
    }
    vector_to_scalar(pipe_);
  }
  __aicore__ inline int32_t shared(int64_t j) const { return static_cast<int32_t>(shared_.GetValue(static_cast<uint32_t>(j))); }

  // Of keys `first` to `last` - 1 those that share two codes or more; where they are more than `room` those that share most, later ones
  // before earlier ones.
  __aicore__ inline void take(const SelectPlace& p, int64_t at, int64_t query, int64_t first, int64_t last, int64_t room,
                              int64_t to) {
    const int32_t tables = static_cast<int32_t>(t_.layers);
    for (int32_t n = 0; n <= tables; ++n) tally_.SetValue(static_cast<uint32_t>(n), 0);
    int64_t found = 0;
    for (int64_t j = first; j < last; ++j) {
      const uint32_t n = static_cast<uint32_t>(shared(j));
      if (n < 2) continue;
      tally_.SetValue(n, tally_.GetValue(n) + 1);
      ++found;
    }
    int32_t fewest = 2;
    int64_t skipped = 0;  // of those that share the fewest, the earliest
    if (found > room) {
      int64_t more = 0;
      for (fewest = tables; more + tally_.GetValue(static_cast<uint32_t>(fewest)) < room; --fewest)
        more += tally_.GetValue(static_cast<uint32_t>(fewest));
      skipped = more + tally_.GetValue(static_cast<uint32_t>(fewest)) - room;
    }
    const int64_t units = (p.sequence * t_.heads_k + p.head / (t_.heads_q / t_.heads_k)) * t_.lk;
    products_.take(0, q_units_, (at * t_.lq + query) * t_.pitch);
    int32_t batch = 0;
    for (int64_t j = first; j < last; ++j) {
      if (shared(j) < fewest || (shared(j) == fewest && skipped-- > 0)) continue;
      products_.multiply(k_units_[static_cast<uint64_t>((units + j) * t_.pitch)], 1, 1, blocks_[static_cast<uint32_t>(batch) * 8], 0);
      lists_.add(static_cast<int32_t>(j));
      if (++batch < kBatch) continue;
      write_biases(to + lists_.count() - batch, batch);
      batch = 0;
    }
    if (batch > 0) write_biases(to + lists_.count() - batch, batch);
  }

  __aicore__ inline void write_biases(int64_t to, int32_t n) {
    fill(cosines_, 0.0f, kBatch);
    AscendC::WholeReduceSum(cosines_, blocks_, 1, n, 1, 1, 1);
    AscendC::PipeBarrier<PIPE_V>();
    LocalTensor<float> out = bias_out_.AllocTensor<float>();
    bias_.apply(out, cosines_);
    write_out(out, to, n);
  }
  __aicore__ inline void write_zeros(int64_t to, int64_t n) {
    for (int64_t i = 0; i < n; i += kBatch) {
      LocalTensor<float> out = bias_out_.AllocTensor<float>();
      fill(out, 0.0f, kBatch);
      write_out(out, to + i, static_cast<int32_t>(least(n - i, kBatch)));
    }
  }
  __aicore__ inline void write_out(LocalTensor<float> out, int64_t to, int32_t n) {
    bias_out_.EnQue(out);
    out = bias_out_.DeQue<float>();
    copy_out(biases_[static_cast<uint64_t>(to)], out, n);
    bias_out_.FreeTensor(out);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  SelectProducts<float> products_;
  SelectLists lists_;
  RetrievalBias bias_;
  GlobalTensor<float> q_units_, k_units_, q_codes_, k_codes_, biases_;
  GlobalTensor<int64_t> q_index_, k_index_;
  TQue<TPosition::VECIN, 1> codes_in_;
  TQue<TPosition::VECOUT, 1> bias_out_;
  TBuf<TPosition::VECCALC> shared_buffer_, work_buffer_, bits_buffer_, tally_buffer_, cosine_buffer_;
  LocalTensor<float> shared_, ones_, work_, cosines_, blocks_;
  LocalTensor<uint8_t> bits_;
  LocalTensor<int32_t> tally_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_UNIT_ENTRY(name, X)                                                                                       \
  extern "C" __global__ __aicore__ void gatun_select_unit_##name(GM_ADDR x, GM_ADDR q_index, GM_ADDR k_index,           \
                                                                 GM_ADDR means, GM_ADDR units, GM_ADDR tiling) {        \
    GATUN_SELECT_BEGIN                                                                                                  \
    gatun::ascend::UnitRows<X> kernel(&pipe, t, x, q_index, k_index, means, units);                                     \
    kernel.run();                                                                                                       \
  }

GATUN_UNIT_ENTRY(f32, float)
GATUN_UNIT_ENTRY(bf16, bfloat16_t)
GATUN_UNIT_ENTRY(f16, half)

extern "C" __global__ __aicore__ void gatun_select_code(GM_ADDR units, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR rotations,
                                                        GM_ADDR codes, GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::CodeRows kernel(&pipe, t, units, q_index, k_index, rotations, codes);
  kernel.run();
}
extern "C" __global__ __aicore__ void gatun_select_retrieve(GM_ADDR q_index, GM_ADDR k_index, GM_ADDR q_units, GM_ADDR k_units,
                                                            GM_ADDR q_codes, GM_ADDR k_codes, GM_ADDR columns, GM_ADDR biases,
                                                            GM_ADDR counts, GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::RetrieveKeys kernel(&pipe, t, q_index, k_index, q_units, k_units, q_codes, k_codes, columns, biases, counts);
  kernel.run();
}
