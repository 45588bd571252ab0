// What attention adds to scores and hides of them, on a vector core: rows of scores of 128 keys, in FP32.
//
// AttentionScores does everything by arithmetic on whole tiles. How far a key lies to the right of a query is a tile of FP32, from
// which windows, dilation, slopes and the query's own key follow; each reason to hide a score adds to a second tile, `hidden`, by
// how much it is out of reach, and a score is hidden where that is not 0. About 40 instructions for each 64 scores, where the
// window alone would take 4, so the vector cores bind.
#pragma once

#include "kernels/attention/item.h"

namespace gatun::ascend {

// A score that is hidden.
constexpr float kMasked = -3e38f;

// One window, and nothing that is added.
template <int32_t kRows>
class AttentionWindow {
 public:
  __aicore__ inline AttentionWindow(TPipe* pipe, const AttentionTiling& t, const AttentionArrays&) : t_(t) {
    pipe->InitBuffer(distance_buffer_, kRows * kAttentionN * sizeof(float));
    pipe->InitBuffer(bits_buffer_, kRows * kAttentionN / 8);
    distance_ = distance_buffer_.template Get<float>();
    bits_ = bits_buffer_.template Get<uint8_t>();
    // Element c of row r is c - r: how far a key is to the right of a query, but for a number that is the tile's.
    for (int32_t r = 0; r < kRows; ++r) {
      AscendC::CreateVecIndex(distance_[static_cast<uint32_t>(r * kAttentionN)], static_cast<float>(-r), kAttentionN);
    }
  }

  // The queries of a tile that this core has.
  __aicore__ inline void begin(const AttentionItem&, int32_t first, int32_t rows) {
    first_ = first;
    rows_ = rows;
  }

  // s: products of the step's keys with the queries; makes them scores. Hides what neither end of the window admits, and columns
  // that are no keys.
  __aicore__ inline void apply(const LocalTensor<float>& s, const AttentionItem& item, const AttentionStep& step) {
    const int64_t position = item.position() + first_, key = step.key;
    const int32_t count = rows_ * kAttentionN;
    muls(s, s, t_.scale, count);
    // Key key + c is hidden from query r where key + c > position + r + right, and where key + c < position + r - left.
    if (t_.right >= 0 && key + step.n - 1 > position + t_.right) {
      hide(s, static_cast<float>(position + t_.right - key), AscendC::CMPMODE::LE, count);
    }
    if (t_.left >= 0 && key < position + rows_ - 1 - t_.left) {
      hide(s, static_cast<float>(position - t_.left - key), AscendC::CMPMODE::GE, count);
    }
    if (step.n == kAttentionN) return;
    // Row 0 of the distances counts columns.
    AscendC::CompareScalar(bits_, distance_, static_cast<float>(step.n), AscendC::CMPMODE::LT, kAttentionN);
    AscendC::PipeBarrier<PIPE_V>();
    for (int32_t r = 0; r < rows_; ++r) {
      const LocalTensor<float> row = s[static_cast<uint32_t>(r * kAttentionN)];
      AscendC::Select(row, bits_, row, kMasked, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, kAttentionN);
    }
    AscendC::PipeBarrier<PIPE_V>();
  }

 private:
  __aicore__ inline void hide(const LocalTensor<float>& s, float bound, AscendC::CMPMODE seen, int32_t count) {
    AscendC::CompareScalar(bits_, distance_, bound, seen, static_cast<uint32_t>(count));
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Select(s, bits_, s, kMasked, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(count));
    AscendC::PipeBarrier<PIPE_V>();
  }

  const AttentionTiling& t_;
  TBuf<TPosition::VECCALC> distance_buffer_, bits_buffer_;
  LocalTensor<float> distance_;
  LocalTensor<uint8_t> bits_;
  int32_t first_ = 0, rows_ = 0;
};

// Multiplies columns of a tile by a number each.
__aicore__ inline void multiply_by_key(const LocalTensor<float>& tile, const LocalTensor<float>& row, int32_t rows) {
  for (uint32_t c = 0; c < kAttentionN; c += 64) {
    AscendC::Mul(tile[c], tile[c], row[c], 64, static_cast<uint8_t>(rows), AscendC::BinaryRepeatParams(1, 1, 1, 16, 16, 0));
  }
  AscendC::PipeBarrier<PIPE_V>();
}

// Whatever gatun.h has for scores.
template <int32_t kRows>
class AttentionScores {
  static constexpr int32_t kN = kAttentionN;
  static constexpr uint32_t kTile = kRows * kN, kCopies = kRows * 8;  // copies of a number of each row that fill 32 bytes

 public:
  __aicore__ inline AttentionScores(TPipe* pipe, const AttentionTiling& t, const AttentionArrays& a)
      : pipe_(pipe),
        t_(t),
        slopes_(global<float>(a.slopes)),
        block_bias_(global<float>(a.block_bias)),
        bias_f32_(global<float>(a.bias)),
        bias_bf16_(global<bfloat16_t>(a.bias)),
        bias_f16_(global<half>(a.bias)),
        globals_(global<int32_t>(a.globals)),
        q_documents_(global<int32_t>(a.q_documents)),
        k_documents_(global<int32_t>(a.k_documents)),
        mask_index_(global<int32_t>(a.block_mask_index)),
        tree_(global<uint8_t>(a.tree)),
        masks_(global<uint8_t>(a.block_masks)) {
    pipe->InitBuffer(distance_buffer_, kTile * sizeof(float));
    pipe->InitBuffer(hidden_buffer_, kTile * sizeof(float));
    pipe->InitBuffer(work_buffer_, kTile * sizeof(float));
    pipe->InitBuffer(row_in_, 1, kTile * sizeof(float));
    pipe->InitBuffer(half_buffer_, kTile * sizeof(half));
    pipe->InitBuffer(key_buffer_, 4 * kN * sizeof(float));
    pipe->InitBuffer(query_buffer_, (3 * kRows + 3 * kCopies) * sizeof(float));
    pipe->InitBuffer(bits_buffer_, kTile / 8);
    distance_ = distance_buffer_.template Get<float>();
    hidden_ = hidden_buffer_.template Get<float>();
    work_ = work_buffer_.template Get<float>();
    half_ = half_buffer_.template Get<half>();
    keys_ = key_buffer_.template Get<float>();
    bounded_ = keys_[kN];      // 0 where the window's ends are lifted for a key
    after_prefix_ = keys_[2 * kN];
    row_ = keys_[3 * kN];
    queries_ = query_buffer_.template Get<float>();
    not_global_ = queries_[kRows];
    labels_ = queries_[2 * kRows];
    query_copies_ = queries_[3 * kRows];
    global_copies_ = query_copies_[kCopies];
    label_copies_ = query_copies_[2 * kCopies];
    bits_ = bits_buffer_.template Get<uint8_t>();
    fill(queries_, 0.0f, 3 * kRows);
    fill(row_, 0.0f, kN);
  }

  // The queries of a tile that this core has.
  __aicore__ inline void begin(const AttentionItem& item, int32_t first, int32_t rows) {
    first_ = first;
    rows_ = rows;
    if (rows == 0) return;
    const float offset = static_cast<float>(item.len_k - item.len_q);
    if (t_.order_heads == 0) {
      AscendC::CreateVecIndex(queries_, static_cast<float>(item.row + first) + offset, static_cast<uint32_t>(kRows));
      AscendC::PipeBarrier<PIPE_V>();
    } else {
      vector_to_scalar();
      for (int32_t r = 0; r < rows; ++r)
        queries_.SetValue(static_cast<uint32_t>(r), static_cast<float>(item.query(item.row + first + r)) + offset);
      scalar_to_vector();
    }
    copies(query_copies_, queries_);
    if (t_.max_globals == 0) return;
    fill(not_global_, 1.0f, kRows);
    vector_to_scalar();
    for (int64_t g = 0; g < t_.max_globals; ++g) {
      const int64_t place = global_at(item, g);
      if (place < 0) break;
      for (int32_t r = 0; r < rows; ++r) {
        const int64_t position = item.query(item.row + first + r) + item.len_k - item.len_q;
        if (position == place) not_global_.SetValue(static_cast<uint32_t>(r), 0.0f);
      }
    }
    scalar_to_vector();
    copies(global_copies_, not_global_);
  }

  // s: products of the step's keys with the queries; makes them scores.
  __aicore__ inline void apply(const LocalTensor<float>& s, const AttentionItem& item, const AttentionStep& step) {
    count_ = rows_ * kN;
    number_keys(item, step);
    muls(s, s, t_.scale, count_);
    if (t_.softcap != 0.0f) cap(s);
    by_key_and_query([this](uint32_t c) {
      AscendC::Sub(distance_[c], keys_[c], query_copies_, 64, repeats(), AscendC::BinaryRepeatParams(1, 1, 0, 16, 0, 1));
    });
    add_to(s, step, item);
    hide_by_window();
    if (t_.has_bias == kAttentionF32) add_bias(s, bias_f32_, item, step);
    if (t_.has_bias == kAttentionBf16) add_bias(s, bias_bf16_, item, step);
    if (t_.has_bias == kAttentionF16) add_bias(s, bias_f16_, item, step);
    if (t_.document_layers != 0) hide_by_documents(item, step);
    if (t_.max_tree != 0) hide_by_tree(item, step);
    if (t_.max_masks != 0) hide_by_masks(item, step);
    AscendC::CompareScalar(bits_, hidden_, 0.0f, AscendC::CMPMODE::EQ, static_cast<uint32_t>(count_));
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Select(s, bits_, s, kMasked, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(count_));
    AscendC::PipeBarrier<PIPE_V>();
  }

  // A number for each key of the step, 0 where a query sees it. Takes what apply() knew of its step.
  __aicore__ inline void write_unseen(const LocalTensor<float>& to) {
    if (rows_ == 0) {
      AscendC::Duplicate(to, 1.0f, kN);
      return;
    }
    for (int32_t rows = rows_; rows > 1;) {
      const int32_t half = (rows + 1) / 2;
      AscendC::Min(hidden_, hidden_, hidden_[static_cast<uint32_t>(half * kN)], (rows - half) * kN);
      AscendC::PipeBarrier<PIPE_V>();
      rows = half;
    }
    AscendC::Muls(to, hidden_, 1.0f, kN);
  }

 private:
  __aicore__ inline uint8_t repeats() const { return static_cast<uint8_t>(rows_); }

  __aicore__ inline void vector_to_scalar() {
    const AscendC::TEventID event = pipe_->FetchEventID(HardEvent::V_S);
    AscendC::SetFlag<HardEvent::V_S>(event);
    AscendC::WaitFlag<HardEvent::V_S>(event);
  }
  __aicore__ inline void scalar_to_vector() {
    const AscendC::TEventID event = pipe_->FetchEventID(HardEvent::S_V);
    AscendC::SetFlag<HardEvent::S_V>(event);
    AscendC::WaitFlag<HardEvent::S_V>(event);
  }

  // Something with a barrier of its own comes before the copies are used.
  __aicore__ inline void copies(const LocalTensor<float>& to, const LocalTensor<float>& from) {
    AscendC::Brcb(to, from, kRows / 8, AscendC::BrcbRepeatParams(1, 8));
  }

  // For each row, and for both halves of the tile's columns.
  template <typename F>
  __aicore__ inline void by_query(F f) {
    for (int32_t r = 0; r < rows_; ++r) f(static_cast<uint32_t>(r * kN));
    AscendC::PipeBarrier<PIPE_V>();
  }
  template <typename F>
  __aicore__ inline void by_key_and_query(F f) {
    for (uint32_t c = 0; c < kN; c += 64) f(c);
    AscendC::PipeBarrier<PIPE_V>();
  }
  __aicore__ inline void multiply_by_query(const LocalTensor<float>& tile, const LocalTensor<float>& row_copies) {
    by_key_and_query([&](uint32_t c) {
      AscendC::Mul(tile[c], tile[c], row_copies, 64, repeats(), AscendC::BinaryRepeatParams(1, 1, 0, 16, 16, 1));
    });
  }

  __aicore__ inline int64_t global_at(const AttentionItem& item, int64_t g) const {
    return globals_.GetValue(static_cast<uint64_t>(item.sequence * t_.max_globals + g));
  }

  // The positions of the step's keys, -1 where there is none; those whose window is not lifted, and those behind the prefix.
  __aicore__ inline void number_keys(const AttentionItem& item, const AttentionStep& step) {
    fill(keys_, -1.0f, kN);
    AscendC::CreateVecIndex(keys_, static_cast<float>(step.key), static_cast<uint32_t>(step.n));
    AscendC::PipeBarrier<PIPE_V>();
    if (item.keys_apart()) {
      vector_to_scalar();
      for (int64_t c = 0; c < step.n; ++c)
        keys_.SetValue(static_cast<uint32_t>(c), static_cast<float>(item.key(step.key + c)));
      scalar_to_vector();
    }
    // 1 from `first` on, else 0.
    const auto from = [this](const LocalTensor<float>& to, int64_t first) {
      adds(to, keys_, static_cast<float>(1 - first), kN);
      maxs(to, to, 0.0f, kN);
      mins(to, to, 1.0f, kN);
    };
    from(after_prefix_, item.prefix);
    from(bounded_, t_.sinks);
    if (t_.max_globals == 0) return;
    vector_to_scalar();
    for (int64_t g = 0; g < t_.max_globals; ++g) {
      const int64_t place = global_at(item, g);
      if (place < 0) break;
      for (int64_t c = 0; c < step.n; ++c) {
        if (item.key(step.key + c) == place) bounded_.SetValue(static_cast<uint32_t>(c), 0.0f);
        if (!item.keys_apart()) c += most(place - step.key - c - 1, 0);
      }
    }
    scalar_to_vector();
  }

  // s = c tanh(s / c). With y = s / c, tanh y = 1 - 2 / (exp(2 y) + 1), which overflows to 1 and cancels near 0: where y^2 is small
  // it is what Lambert's continued fraction y / (1 + y^2 / (3 + y^2 / (5 + ...))) gives up to its 9, to 2^-33 of itself.
  __aicore__ inline void cap(const LocalTensor<float>& s) {
    const LocalTensor<float>&square = work_, &small = hidden_, &divisor = distance_;
    muls(s, s, 1.0f / t_.softcap, count_);
    mul(square, s, s, count_);
    adds(small, square, 105.0f, count_);
    mul(small, small, square, count_);
    adds(small, small, 945.0f, count_);
    mul(small, small, s, count_);
    muls(divisor, square, 15.0f, count_);
    adds(divisor, divisor, 420.0f, count_);
    mul(divisor, divisor, square, count_);
    adds(divisor, divisor, 945.0f, count_);
    div(small, small, divisor, count_);
    muls(s, s, 2.0f, count_);
    exponential(s, s, count_);
    adds(s, s, 1.0f, count_);
    fill(divisor, -2.0f, count_);
    div(s, divisor, s, count_);
    adds(s, s, 1.0f, count_);
    AscendC::CompareScalar(bits_, square, 0.25f, AscendC::CMPMODE::LT, static_cast<uint32_t>(count_));
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Select(s, bits_, small, s, AscendC::SELMODE::VSEL_TENSOR_TENSOR_MODE, static_cast<uint32_t>(count_));
    AscendC::PipeBarrier<PIPE_V>();
    muls(s, s, t_.softcap, count_);
  }

  __aicore__ inline void add_to(const LocalTensor<float>& s, const AttentionStep& step, const AttentionItem& item) {
    if (t_.has_slopes != 0) {
      absolute(work_, distance_, count_);
      muls(work_, work_, -slopes_.GetValue(static_cast<uint64_t>(item.head)), count_);
      add(s, s, work_, count_);
    }
    if (t_.has_block_bias != 0) add_block_bias(s, step);
    if (t_.self_bias != 0.0f) {
      differs();
      muls(work_, work_, -t_.self_bias, count_);
      adds(work_, work_, t_.self_bias, count_);
      add(s, s, work_, count_);
    }
  }

  __aicore__ inline void add_block_bias(const LocalTensor<float>& s, const AttentionStep& step) {
    const auto bias = [&](int64_t entry) { return block_bias_.GetValue(static_cast<uint64_t>(entry)); };
    if (!attention_joins(t_)) {
      adds(s, s, bias(step.entry), count_);
      return;
    }
    vector_to_scalar();
    for (int64_t c = 0; c < step.n; ++c) row_.SetValue(static_cast<uint32_t>(c), bias(step.entry + c / t_.block_k));
    scalar_to_vector();
    add_by_key(s, row_);
  }
  __aicore__ inline void add_by_key(const LocalTensor<float>& tile, const LocalTensor<float>& row) {
    by_key_and_query([&](uint32_t c) {
      AscendC::Add(tile[c], tile[c], row[c], 64, repeats(), AscendC::BinaryRepeatParams(1, 1, 1, 16, 16, 0));
    });
  }

  // work = 0 where a query meets its own key, else 1.
  __aicore__ inline void differs() {
    absolute(work_, distance_, count_);
    mins(work_, work_, 1.0f, count_);
  }

  // rows = the n elements from at(r) on.
  template <typename B, typename At>
  __aicore__ inline void copy_rows(const LocalTensor<B>& rows, const GlobalTensor<B>& from, int32_t n, At at) {
    for (int32_t r = 0; r < rows_; ++r) copy_in(rows[static_cast<uint32_t>(r * kN)], from[static_cast<uint64_t>(at(r))], n);
  }
  // rows = value(at(r), the key of c, c), one by one, where nothing lies side by side.
  template <typename B, typename At, typename Value>
  __aicore__ inline void set_rows(const LocalTensor<B>& rows, int32_t n, At at, Value value) {
    vector_to_scalar();
    for (int32_t r = 0; r < rows_; ++r) {
      const int64_t from = at(r);
      for (int32_t c = 0; c < n; ++c) {
        const int64_t key = static_cast<int64_t>(keys_.GetValue(static_cast<uint32_t>(c)));
        rows.SetValue(static_cast<uint32_t>(r * kN + c), value(from, key, c));
      }
    }
    scalar_to_vector();
  }

  // Hides what has a bias of -infinity: the score may be NaN.
  template <typename B>
  __aicore__ inline void add_bias(const LocalTensor<float>& s, const GlobalTensor<B>& bias, const AttentionItem& item,
                                  const AttentionStep& step) {
    // The scores that this step began with lie where those of the last did, which were done with after this.
    LocalTensor<B> rows = row_in_.template AllocTensor<B>();  // orders nothing
    const int32_t n = static_cast<int32_t>(step.n);
    const int64_t head = item.sequence * t_.bias_batch + item.head * t_.bias_head;
    const auto place = [&](int32_t r, int64_t key) { return head + item.query(item.row + first_ + r) * t_.bias_row + key; };
    if (item.keys_apart()) {
      set_rows(rows, n, [&](int32_t r) { return place(r, 0); },
               [&](int64_t from, int64_t key, int32_t) { return bias.GetValue(static_cast<uint64_t>(from + most(key, 0))); });
    } else {
      copy_rows(rows, bias, n, [&](int32_t r) { return place(r, step.key); });
    }
    row_in_.EnQue(rows);
    rows = row_in_.template DeQue<B>();
    if (n < kN) fill(work_, 0.0f, count_);
    by_query([&](uint32_t at) { widen_row(work_[at], rows[at], n); });
    row_in_.FreeTensor(rows);
    AscendC::CompareScalar(bits_, work_, -float_of(0x7f800000), AscendC::CMPMODE::NE, static_cast<uint32_t>(count_));
    add(s, s, work_, count_);
    AscendC::Select(hidden_, bits_, hidden_, 1.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(count_));
    AscendC::PipeBarrier<PIPE_V>();
  }
  __aicore__ inline void widen_row(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t n) {
    AscendC::Muls(to, from, 1.0f, n);
  }
  template <typename B>
  __aicore__ inline void widen_row(const LocalTensor<float>& to, const LocalTensor<B>& from, int32_t n) {
    AscendC::Cast(to, from, RoundMode::CAST_NONE, static_cast<uint32_t>(n));
  }

  // hidden += how far work is above 0.
  __aicore__ inline void hide_above() {
    maxs(work_, work_, 0.0f, count_);
    add(hidden_, hidden_, work_, count_);
  }

  __aicore__ inline void hide_by_window() {
    fill(hidden_, 0.0f, count_);
    if (t_.left >= 0) {
      muls(work_, distance_, -1.0f, count_);
      adds(work_, work_, -static_cast<float>(t_.left), count_);
      hide_above();
    }
    if (t_.right > 0) {
      adds(work_, distance_, -static_cast<float>(t_.right), count_);
      maxs(work_, work_, 0.0f, count_);
      multiply_by_key(work_, after_prefix_, rows_);
      add(hidden_, hidden_, work_, count_);
    }
    if (t_.dilation > 1) {
      // What is left of a division: FP32 holds positions and their multiples exactly.
      const float step = static_cast<float>(t_.dilation);
      muls(work_, distance_, 1.0f / step, count_);
      convert(work_, work_, RoundMode::CAST_RINT, static_cast<uint32_t>(count_));
      muls(work_, work_, -step, count_);
      add(work_, work_, distance_, count_);
      absolute(work_, work_, count_);
      hide_above();
    }
    multiply_by_key(hidden_, bounded_, rows_);
    if (t_.max_globals > 0) multiply_by_query(hidden_, global_copies_);
    if (t_.right == 0) {
      maxs(work_, distance_, 0.0f, count_);
      multiply_by_key(work_, after_prefix_, rows_);
      hide_above();
    }
    // Places that are no key, and those that an order leaves out.
    muls(row_, keys_, -1.0f, kN);
    maxs(row_, row_, 0.0f, kN);
    add_by_key(hidden_, row_);
  }

  // Labels are compared by their difference, which is exact modulo 2^32, and not 0 in FP32 either.
  __aicore__ inline void hide_by_documents(const AttentionItem& item, const AttentionStep& step) {
    const LocalTensor<int32_t> k_labels = row_.template ReinterpretCast<int32_t>(),
                               q_labels = labels_.template ReinterpretCast<int32_t>(),
                               copies_of = label_copies_.template ReinterpretCast<int32_t>(),
                               difference = work_.template ReinterpretCast<int32_t>();
    const int64_t head = item.head / (t_.heads_q / t_.document_heads);
    for (int64_t layer = 0; layer < t_.document_layers; ++layer) {
      const int64_t q_at = ((item.sequence_q() * t_.document_layers + layer) * t_.document_heads + head) * t_.lq + item.first_q;
      const int64_t k_at = ((item.sequence_k() * t_.document_layers + layer) * t_.document_heads + head) * t_.lk + item.first_k;
      vector_to_scalar();
      for (int32_t r = 0; r < rows_; ++r) {
        const int64_t at = q_at + item.query(item.row + first_ + r);
        q_labels.SetValue(static_cast<uint32_t>(r), q_documents_.GetValue(static_cast<uint64_t>(at)));
      }
      for (int64_t c = 0; c < step.n; ++c) {
        const int64_t at = k_at + most(item.key(step.key + c), 0);
        k_labels.SetValue(static_cast<uint32_t>(c), k_documents_.GetValue(static_cast<uint64_t>(at)));
      }
      scalar_to_vector();
      AscendC::Brcb(copies_of, q_labels, kRows / 8, AscendC::BrcbRepeatParams(1, 8));
      AscendC::PipeBarrier<PIPE_V>();
      by_key_and_query([&](uint32_t c) {
        AscendC::Sub(difference[c], k_labels[c], copies_of, 64, repeats(), AscendC::BinaryRepeatParams(1, 1, 0, 16, 0, 1));
      });
      convert(work_, difference, RoundMode::CAST_RINT, static_cast<uint32_t>(count_));
      absolute(work_, work_, count_);
      mins(work_, work_, 1.0f, count_);
      if (layer + 1 < t_.document_layers) {
        muls(work_, work_, -1.0f, count_);
        adds(work_, work_, 1.0f, count_);
      }
      add(hidden_, hidden_, work_, count_);
    }
  }

  // Keys before the drafted ones are seen by all; a drafted one by the queries that follow it.
  __aicore__ inline void hide_by_tree(const AttentionItem& item, const AttentionStep& step) {
    const int64_t drafted = item.len_k - item.len_q;
    if (!item.keys_apart() && step.key < drafted) return;
    const int32_t n = static_cast<int32_t>(step.n);
    const auto at = [&](int32_t r, int64_t key) {
      return (item.sequence * t_.max_tree + item.query(item.row + first_ + r)) * t_.max_tree + key - drafted;
    };
    LocalTensor<uint8_t> rows = row_in_.template AllocTensor<uint8_t>();
    if (item.keys_apart()) {
      set_rows(rows, n, [&](int32_t r) { return at(r, 0); }, [&](int64_t from, int64_t key, int32_t) {
        return key < drafted ? uint8_t{1} : tree_.GetValue(static_cast<uint64_t>(from + key));
      });
    } else {
      copy_rows(rows, tree_, n, [&](int32_t r) { return at(r, step.key); });
    }
    hide_by_bytes(rows, n);
  }

  __aicore__ inline void hide_by_masks(const AttentionItem& item, const AttentionStep& step) {
    const int64_t row = (item.row + first_) % t_.block_q, n = step.n;
    const auto index = [&](int64_t entry) { return mask_index_.GetValue(static_cast<uint64_t>(entry)); };
    const auto there = [&](int64_t i) { return i >= 0 && i < t_.max_masks; };
    const auto at = [&](int64_t i, int64_t r, int64_t key) { return (i * t_.block_q + r) * t_.block_k + key % t_.block_k; };
    const int64_t last = step.entry + (attention_joins(t_) ? (n - 1) / t_.block_k : 0);
    bool any = false;
    for (int64_t e = step.entry; e <= last; ++e) any = any || there(index(e));
    if (!any) return;
    LocalTensor<uint8_t> rows = row_in_.template AllocTensor<uint8_t>();
    if (attention_joins(t_)) {
      set_rows(rows, static_cast<int32_t>(n), [&](int32_t r) { return row + r; }, [&](int64_t r, int64_t, int32_t c) {
        const int64_t i = index(step.entry + c / t_.block_k);
        return there(i) ? masks_.GetValue(static_cast<uint64_t>(at(i, r, c))) : uint8_t{1};
      });
    } else {
      copy_rows(rows, masks_, static_cast<int32_t>(n), [&](int32_t r) { return at(index(step.entry), row + r, step.key); });
    }
    hide_by_bytes(rows, static_cast<int32_t>(n));
  }

  // Hides what has a byte of 0.
  __aicore__ inline void hide_by_bytes(LocalTensor<uint8_t> rows, int32_t count) {
    row_in_.EnQue(rows);
    rows = row_in_.template DeQue<uint8_t>();
    by_query([&](uint32_t at) { AscendC::Cast(half_[at], rows[at], RoundMode::CAST_NONE, static_cast<uint32_t>(count)); });
    row_in_.FreeTensor(rows);
    by_query([&](uint32_t at) { AscendC::Cast(work_[at], half_[at], RoundMode::CAST_NONE, static_cast<uint32_t>(count)); });
    by_query([&](uint32_t at) { AscendC::Mins(work_[at], work_[at], 1.0f, count); });
    by_query([&](uint32_t at) { AscendC::Adds(work_[at], work_[at], -1.0f, count); });
    by_query([&](uint32_t at) { AscendC::Sub(hidden_[at], hidden_[at], work_[at], count); });
  }

  TPipe* pipe_;
  const AttentionTiling& t_;
  GlobalTensor<float> slopes_, block_bias_, bias_f32_;
  GlobalTensor<bfloat16_t> bias_bf16_;
  GlobalTensor<half> bias_f16_;
  GlobalTensor<int32_t> globals_, q_documents_, k_documents_, mask_index_;
  GlobalTensor<uint8_t> tree_, masks_;
  TQue<TPosition::VECIN, 1> row_in_;
  TBuf<TPosition::VECCALC> distance_buffer_, hidden_buffer_, work_buffer_, half_buffer_, key_buffer_, query_buffer_, bits_buffer_;
  LocalTensor<float> distance_, hidden_, work_, keys_, bounded_, after_prefix_, row_;
  LocalTensor<float> queries_, not_global_, labels_, query_copies_, global_copies_, label_copies_;
  LocalTensor<half> half_;
  LocalTensor<uint8_t> bits_;
  int32_t first_ = 0, rows_ = 0, count_ = 0;
};

}  // namespace gatun::ascend
