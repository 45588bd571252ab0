// What the selection kernels share: sequences and their rows, and products of a few rows with many columns.
//
// Products are of FP32 on the vector unit: blocks of nearly the same importance would change places with the rounding of 16-bit
// operands, and labels near a boundary too. A column lies as a row of `pitch` elements; one instruction multiplies a row by 64
// elements each of up to 255 columns, and one more sums them.
#pragma once

#include "kernels/select/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {

// A sequence of the run, by arrays of which nothing was checked before.
struct SelectSequence {
  int64_t first_q = 0, len_q, first_k = 0, len_k;

  __aicore__ inline SelectSequence(const SelectTiling& t, const GlobalTensor<int64_t>& q_index,
                                   const GlobalTensor<int64_t>& k_index, int64_t s) {
    measure(t.has_q_index, t.packed, q_index, s, t.len_q, &first_q, &len_q);
    measure(t.has_k_index, t.packed, k_index, s, t.len_k, &first_k, &len_k);
  }
  // Keys that query i sees, and blocks of them.
  __aicore__ inline int64_t visible(const SelectTiling& t, int64_t i) const {
    return t.causal == 0 ? len_k : between(0, i + len_k - len_q + 1, len_k);
  }
  __aicore__ inline int64_t reached(const SelectTiling& t, int64_t i) const {
    return (visible(t, i) + t.block_k - 1) / t.block_k;
  }

 private:
  __aicore__ inline void measure(int32_t has_index, int32_t packed, const GlobalTensor<int64_t>& index, int64_t s, int64_t all,
                                 int64_t* first, int64_t* length) {
    const uint64_t at = static_cast<uint64_t>(s);
    const int64_t value = has_index != 0 ? between(0, index.GetValue(at), all) : all;
    *first = packed != 0 ? value : 0;
    *length = packed != 0 ? between(value, index.GetValue(at + 1), all) - value : value;
  }
};

// In [sequences * heads_q] order.
struct SelectPlace {
  int64_t sequence, head;
  SelectSequence of;
  __aicore__ inline SelectPlace(const SelectTiling& t, const GlobalTensor<int64_t>& q_index, const GlobalTensor<int64_t>& k_index,
                                int64_t at)
      : sequence(at / t.heads_q), head(at % t.heads_q), of(t, q_index, k_index, at / t.heads_q) {}
};

__aicore__ inline int64_t select_q_at(const SelectTiling& t, const SelectSequence& of, int64_t s, int64_t head, int64_t i) {
  return (t.packed != 0 ? 0 : s * t.q_batch) + (of.first_q + i) * t.q_row + head * t.q_head;
}
__aicore__ inline int64_t select_k_at(const SelectTiling& t, const SelectSequence& of, int64_t s, int64_t head, int64_t j) {
  return (t.packed != 0 ? 0 : s * t.k_batch) + (of.first_k + j) * t.k_row + head * t.k_head;
}

// The vector unit's results for the scalar unit, and back.
__aicore__ inline void vector_to_scalar(TPipe* pipe) {
  const AscendC::TEventID event = pipe->FetchEventID(HardEvent::V_S);
  AscendC::SetFlag<HardEvent::V_S>(event);
  AscendC::WaitFlag<HardEvent::V_S>(event);
}
__aicore__ inline void scalar_to_vector(TPipe* pipe) {
  const AscendC::TEventID event = pipe->FetchEventID(HardEvent::S_V);
  AscendC::SetFlag<HardEvent::S_V>(event);
  AscendC::WaitFlag<HardEvent::S_V>(event);
}
__aicore__ inline void scalar_to_out(TPipe* pipe) {
  const AscendC::TEventID event = pipe->FetchEventID(HardEvent::S_MTE3);
  AscendC::SetFlag<HardEvent::S_MTE3>(event);
  AscendC::WaitFlag<HardEvent::S_MTE3>(event);
}
__aicore__ inline void out_to_scalar(TPipe* pipe) {
  const AscendC::TEventID event = pipe->FetchEventID(HardEvent::MTE3_S);
  AscendC::SetFlag<HardEvent::MTE3_S>(event);
  AscendC::WaitFlag<HardEvent::MTE3_S>(event);
}

// A list on its way to the workspace, element by element, and its length.
class SelectLists {
 public:
  __aicore__ inline SelectLists(TPipe* pipe, GM_ADDR columns, GM_ADDR counts)
      : pipe_(pipe), columns_(global<int32_t>(columns)), counts_(global<int32_t>(counts)) {
    pipe->InitBuffer(buffer_, (kSelectBlocks + kCount) * sizeof(int32_t));
    list_ = buffer_.Get<int32_t>();
    copied_ = pipe_->AllocEventID<HardEvent::MTE3_S>();
    AscendC::SetFlag<HardEvent::MTE3_S>(copied_);  // orders nothing: there was no list before the first
  }

  __aicore__ inline void begin() {
    AscendC::WaitFlag<HardEvent::MTE3_S>(copied_);
    count_ = 0;
  }
  __aicore__ inline void add(int32_t column) { list_.SetValue(kCount + static_cast<uint32_t>(count_++), column); }
  __aicore__ inline int32_t count() const { return count_; }
  __aicore__ inline void end(int64_t list, int64_t width) {
    list_.SetValue(0, count_);
    scalar_to_out(pipe_);
    copy_out(counts_[static_cast<uint64_t>(list)], list_, 1);
    if (count_ > 0) copy_out(columns_[static_cast<uint64_t>(list * width)], list_[kCount], count_);
    AscendC::SetFlag<HardEvent::MTE3_S>(copied_);
  }
  __aicore__ inline void close() {
    AscendC::WaitFlag<HardEvent::MTE3_S>(copied_);  // orders nothing
    pipe_->ReleaseEventID<HardEvent::MTE3_S>(copied_);
  }

 private:
  static constexpr uint32_t kCount = 8;  // the length lies in a block of its own
  TPipe* pipe_;
  GlobalTensor<int32_t> columns_, counts_;
  TBuf<TPosition::VECCALC> buffer_;
  LocalTensor<int32_t> list_;
  AscendC::TEventID copied_;
  int32_t count_ = 0;
};

// The greatest of some numbers, and the first that equals one. What follows up to a multiple of 64 must be defined.
class SelectSearch {
 public:
  __aicore__ inline SelectSearch(TPipe* pipe, int64_t elements) : pipe_(pipe) {
    const uint32_t room = static_cast<uint32_t>((elements + 63) / 64 * 64);
    pipe->InitBuffer(partial_buffer_, partial_elements(room) * sizeof(float));
    pipe->InitBuffer(scalar_buffer_, 64);
    pipe->InitBuffer(bits_buffer_, room / 8);
    partial_ = partial_buffer_.Get<float>();
    scalar_ = scalar_buffer_.Get<float>();
    bits_ = bits_buffer_.Get<uint32_t>();
  }

  __aicore__ inline float greatest(const LocalTensor<float>& x, int32_t n) {
    return maximum_of(pipe_, scalar_, x, partial_, n);
  }
  __aicore__ inline float sum(const LocalTensor<float>& x, int32_t n) { return sum_of(pipe_, scalar_, x, partial_, n); }

  // n where there is none.
  __aicore__ inline int64_t first(const LocalTensor<float>& x, float value, int32_t n) {
    AscendC::CompareScalar(bits_.ReinterpretCast<uint8_t>(), x, value, AscendC::CMPMODE::EQ,
                           static_cast<uint32_t>((n + 63) / 64 * 64));
    vector_to_scalar(pipe_);
    for (int32_t word = 0; word * 32 < n; ++word) {
      const uint32_t bits = bits_.GetValue(static_cast<uint32_t>(word));
      for (int32_t b = 0; b < 32 && bits != 0; ++b) {
        if ((bits >> b & 1u) != 0) return least(word * 32 + b, n);
      }
    }
    return n;
  }

 private:
  TPipe* pipe_;
  TBuf<TPosition::VECCALC> partial_buffer_, scalar_buffer_, bits_buffer_;
  LocalTensor<float> partial_, scalar_;
  LocalTensor<uint32_t> bits_;
};

template <typename X>
class SelectProducts {
 public:
  __aicore__ inline SelectProducts(TPipe* pipe, const SelectTiling& t) : t_(t) {
    pipe->InitBuffer(x_in_, 1, static_cast<uint32_t>(t.pitch) * sizeof(X));
    pipe->InitBuffer(columns_in_, 2, kSelectColumns * sizeof(float));
    pipe->InitBuffer(row_buffer_, 8 * static_cast<uint32_t>(t.pitch) * sizeof(float));
    pipe->InitBuffer(work_buffer_, 2 * kSelectColumns * sizeof(float));
    pipe->InitBuffer(part_buffer_, 256 * sizeof(float));
    rows_ = row_buffer_.template Get<float>();
    work_ = work_buffer_.template Get<float>();
    part_ = part_buffer_.template Get<float>();
  }

  // Columns that come at a time: of a column of bounds there are two rows, the greatest elements and the least.
  __aicore__ inline int64_t some() const { return least(kSelectColumns / (t_.pitch * rows_of_column()) / 8 * 8, 248); }
  __aicore__ inline int64_t rows_of_column() const { return t_.bounds != 0 ? 2 : 1; }

  // Row r of those that columns are multiplied by.
  __aicore__ inline void take(int32_t r, const GlobalTensor<X>& x, int64_t at) {
    LocalTensor<X> row = x_in_.template AllocTensor<X>();
    copy_in(row, x[static_cast<uint64_t>(at)], static_cast<int32_t>(t_.dk));
    x_in_.EnQue(row);
    row = x_in_.template DeQue<X>();
    widen(rows_[static_cast<uint32_t>(r * t_.pitch)], row, static_cast<int32_t>(t_.dk));
    x_in_.FreeTensor(row);
  }

  // to[r * stride + c] = row r times column c, for `count` columns, at most some().
  __aicore__ inline void multiply(const GlobalTensor<float>& columns, int64_t count, int32_t rows, const LocalTensor<float>& to,
                                  int64_t stride) {
    LocalTensor<float> in = columns_in_.template AllocTensor<float>();
    copy_in(in, columns, static_cast<int32_t>(count * rows_of_column() * t_.pitch));
    columns_in_.EnQue(in);
    in = columns_in_.template DeQue<float>();
    const uint8_t step = static_cast<uint8_t>(rows_of_column() * t_.pitch / 8);  // blocks of 32 bytes from column to column
    for (int32_t r = 0; r < rows; ++r) {
      const LocalTensor<float> row = rows_[static_cast<uint32_t>(r * t_.pitch)], sums = to[static_cast<uint32_t>(r * stride)];
      for (int64_t d = 0; d < t_.dk; d += 64) {
        const uint64_t lanes = static_cast<uint64_t>(least(t_.dk - d, 64));
        const uint32_t at = static_cast<uint32_t>(d);
        const uint8_t repeats = static_cast<uint8_t>(count);
        AscendC::Mul(work_, in[at], row[at], lanes, repeats, AscendC::BinaryRepeatParams(1, 1, 1, 8, step, 0));
        if (t_.bounds != 0) {
          const LocalTensor<float> other = work_[kSelectColumns];
          AscendC::Mul(other, in[static_cast<uint32_t>(t_.pitch) + at], row[at], lanes, repeats,
                       AscendC::BinaryRepeatParams(1, 1, 1, 8, step, 0));
          AscendC::PipeBarrier<PIPE_V>();
          AscendC::Max(work_, work_, other, lanes, repeats, AscendC::BinaryRepeatParams(1, 1, 1, 8, 8, 8));
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::WholeReduceSum(d == 0 ? sums : part_, work_, static_cast<int32_t>(lanes), static_cast<int32_t>(count), 1, 1, 8);
        AscendC::PipeBarrier<PIPE_V>();
        if (d > 0) add(sums, sums, part_, static_cast<int32_t>(count));
      }
    }
    columns_in_.FreeTensor(in);
  }

 private:
  const SelectTiling& t_;
  TQue<TPosition::VECIN, 1> x_in_, columns_in_;
  TBuf<TPosition::VECCALC> row_buffer_, work_buffer_, part_buffer_;
  LocalTensor<float> rows_, work_, part_;
};

}  // namespace gatun::ascend

// What entries begin with.
#define GATUN_SELECT_BEGIN                        \
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY); \
  AscendC::TPipe pipe;                            \
  const gatun::ascend::SelectTiling t = gatun::ascend::read_tiling<gatun::ascend::SelectTiling>(tiling);
