// Rows on their way into a product, each by its number where there is an index: to another type, rounded to nearest even, or
// quantized.
//
// Quantizing: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255),
// written as q - 128 (int8) or q (uint8), with s and z of each row. s = 0 gives q = z = 0; a row with an element that is not
// finite, or whose hi - lo overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0.
//
// FP32 and F16 as terms of BF16: each the rounding of what those before left. An element that is not finite is its first term, and 0
// after it.
//
// Integers of 8 bits in groups, which are columns of weights: (q - zero) scale, with a scale and a zero point for each group.
//
// Bytes: a row is read once and written once, for each term; one that is quantized and does not fit the UB is read once more. Conversions are
// bound by memory; quantizing takes about 10 vector instructions an element, the division the dearest: the vector unit and
// memory are close.
#include "kernels/gemm/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

using AscendC::SetFlag;
using AscendC::WaitFlag;

// Which row of x row r is made of: the nearest there is to what the index says.
class RowIndex {
 public:
  __aicore__ inline RowIndex(const GemmRowsTiling& t, GM_ADDR index) : t_(t), index_(global<int32_t>(index)) {}
  __aicore__ inline int64_t of(int64_t row) const {
    return t_.has_index == 0 ? row : between(0, index_.GetValue(static_cast<uint64_t>(row)), t_.rows_x - 1);
  }

 private:
  const GemmRowsTiling& t_;
  GlobalTensor<int32_t> index_;
};

// The scale and the zero point of a row on their way out.
class RowNumbers {
  static constexpr uint32_t kZero = 8;  // of the two in UB: where the second is

 public:
  __aicore__ inline RowNumbers(TPipe* pipe, GM_ADDR scales, GM_ADDR zeros)
      : pipe_(pipe), scales_(global<float>(scales)), zeros_(global<int32_t>(zeros)) {
    pipe->InitBuffer(buffer_, 2 * kZero * sizeof(float));
    row_ = buffer_.Get<float>();
    copied_ = pipe_->AllocEventID<HardEvent::MTE3_S>();
    SetFlag<HardEvent::MTE3_S>(copied_);  // orders nothing: there was no row before the first
  }

  __aicore__ inline void put(int64_t row, float scale, int32_t zero) {
    WaitFlag<HardEvent::MTE3_S>(copied_);
    row_.SetValue(0, scale);
    row_.ReinterpretCast<int32_t>().SetValue(kZero, zero);
    const AscendC::TEventID written = pipe_->FetchEventID(HardEvent::S_MTE3);
    SetFlag<HardEvent::S_MTE3>(written);
    WaitFlag<HardEvent::S_MTE3>(written);
    copy_out(scales_[static_cast<uint64_t>(row)], row_, 1);
    copy_out(zeros_[static_cast<uint64_t>(row)], row_[kZero].ReinterpretCast<int32_t>(), 1);
    SetFlag<HardEvent::MTE3_S>(copied_);
  }

  __aicore__ inline void end() {
    WaitFlag<HardEvent::MTE3_S>(copied_);  // orders nothing
    pipe_->ReleaseEventID<HardEvent::MTE3_S>(copied_);
  }

 private:
  TPipe* pipe_;
  GlobalTensor<float> scales_;
  GlobalTensor<int32_t> zeros_;
  TBuf<TPosition::VECCALC> buffer_;
  LocalTensor<float> row_;
  AscendC::TEventID copied_;
};

// A vector core takes every chunk of its number modulo theirs, and has the next one on its way while it converts one.
template <typename X, typename Y>
class ConvertRows {
  static constexpr bool kBytes = sizeof(Y) == 1;   // without sign, less 128
  static constexpr bool kGroups = !kBytes && sizeof(X) == 1;

 public:
  __aicore__ inline ConvertRows(TPipe* pipe, const GemmRowsTiling& tiling, GM_ADDR x, GM_ADDR index, GM_ADDR to,
                                GM_ADDR scales = nullptr, GM_ADDR zeros = nullptr)
      : t_(tiling), index_(t_, index), x_(global<X>(x)), to_(global<Y>(to)), scales_(global<float>(scales)), zeros_(global<float>(zeros)) {
    const uint32_t chunk = kGemmRowsChunk;
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(to_out_, 2, chunk * sizeof(Y));
    pipe->InitBuffer(value_buffer_, 2 * chunk * sizeof(float));
    pipe->InitBuffer(bits_buffer_, chunk / 8);
    chunks_ = (t_.k + kGemmRowsChunk - 1) / kGemmRowsChunk;
  }

  __aicore__ inline void run() {
    const int64_t all = t_.rows * chunks_, step = AscendC::GetBlockNum();
    int64_t i = AscendC::GetBlockIdx();
    if (i < all) fetch(i);
    for (; i < all; i += step) {
      LocalTensor<X> x = x_in_.template DeQue<X>();
      if (i + step < all) fetch(i + step);
      LocalTensor<Y> to = to_out_.template AllocTensor<Y>();
      if constexpr (kGroups) {
        scale_groups(x, i);
        narrow(to, value_buffer_.template Get<float>(), count(i));
      } else {
        change(to, x, count(i));
      }
      x_in_.FreeTensor(x);
      write(to, i, 0);
      if constexpr (std::is_same<Y, bfloat16_t>::value) write_rest(i);
    }
  }

 private:
  __aicore__ inline int64_t column(int64_t i) const { return i % chunks_ * kGemmRowsChunk; }
  __aicore__ inline int32_t count(int64_t i) const { return static_cast<int32_t>(least(t_.k - column(i), kGemmRowsChunk)); }

  __aicore__ inline void fetch(int64_t i) {
    LocalTensor<X> x = x_in_.template AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(index_.of(i / chunks_) * t_.x_stride + column(i))], count(i));
    x_in_.EnQue(x);
  }

  // value = (x - zero) scale, by groups.
  __aicore__ inline void scale_groups(const LocalTensor<X>& x, int64_t i) {
    const LocalTensor<float> value = value_buffer_.template Get<float>(), other = value[kGemmRowsChunk];
    const LocalTensor<half> between = other.template ReinterpretCast<half>();
    const int32_t n = count(i);
    convert(between, x, RoundMode::CAST_NONE, static_cast<uint32_t>(n));
    widen(value, between, n);
    const int64_t first = i / chunks_ * ((t_.k + t_.group_size - 1) / t_.group_size) + column(i) / t_.group_size;
    const auto each = [&](auto f) {
      for (int64_t c = 0; c < n; c += t_.group_size)
        f(value[static_cast<uint32_t>(c)], static_cast<uint64_t>(first + c / t_.group_size), static_cast<int32_t>(least(n - c, t_.group_size)));
      AscendC::PipeBarrier<PIPE_V>();
    };
    each([&](const LocalTensor<float>& of, uint64_t group, int32_t some) { AscendC::Adds(of, of, -zeros_.GetValue(group), some); });
    each([&](const LocalTensor<float>& of, uint64_t group, int32_t some) { AscendC::Muls(of, of, scales_.GetValue(group), some); });
  }

  __aicore__ inline void write(LocalTensor<Y> to, int64_t i, int64_t term) {
    to_out_.EnQue(to);
    to = to_out_.template DeQue<Y>();
    copy_out(to_[static_cast<uint64_t>(i / chunks_ * t_.to_stride + term * t_.to_term + column(i))], to, count(i));
    to_out_.FreeTensor(to);
  }

  // The terms after the first, of the values that it was made of.
  __aicore__ inline void write_rest(int64_t i) {
    if (t_.terms == 1) return;
    const LocalTensor<float> value = value_buffer_.template Get<float>(), other = value[kGemmRowsChunk];
    const LocalTensor<uint8_t> finite = bits_buffer_.template Get<uint8_t>();
    const int32_t n = count(i);
    const uint32_t whole = static_cast<uint32_t>((n + 63) / 64 * 64);
    fill(other, 0.0f, kGemmRowsChunk);
    absolute(other, value, n);
    AscendC::CompareScalar(finite, other, float_of(0x7f800000u), AscendC::CMPMODE::LT, whole);
    for (int32_t term = 1; term < t_.terms; ++term) {
      LocalTensor<Y> to = to_out_.template AllocTensor<Y>();
      narrow(to, value, n);
      widen(other, to, n);
      sub(value, value, other, n);
      AscendC::Select(value, finite, value, 0.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(n));
      AscendC::PipeBarrier<PIPE_V>();
      narrow(to, value, n);
      write(to, i, term);
    }
  }

  __aicore__ inline void change(const LocalTensor<Y>& to, const LocalTensor<X>& x, int32_t n) {
    if constexpr (kBytes) {
      const LocalTensor<half> value = value_buffer_.template Get<half>();
      convert(value, x, RoundMode::CAST_NONE, static_cast<uint32_t>(n));
      adds(value, value, half(-128.0f), n);
      convert(to, value, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
    } else {
      const LocalTensor<float> value = value_buffer_.template Get<float>();
      widen(value, x, n);
      narrow(to, value, n);
    }
  }

  const GemmRowsTiling t_;
  RowIndex index_;
  int64_t chunks_;
  GlobalTensor<X> x_;
  GlobalTensor<Y> to_;
  GlobalTensor<float> scales_, zeros_;
  TQue<TPosition::VECIN, 1> x_in_;
  TQue<TPosition::VECOUT, 1> to_out_;
  TBuf<TPosition::VECCALC> value_buffer_, bits_buffer_;
};

template <typename X, typename Q>
class QuantizeRows {
  static constexpr float kLess = std::is_same<Q, int8_t>::value ? 128.0f : 0.0f;  // than q: what is written

 public:
  __aicore__ inline QuantizeRows(TPipe* pipe, const GemmRowsTiling& tiling, GM_ADDR x, GM_ADDR index, GM_ADDR to,
                                 GM_ADDR scales, GM_ADDR zeros)
      : pipe_(pipe), t_(tiling), index_(t_, index), numbers_(pipe, scales, zeros) {
    x_ = global<X>(x);
    to_ = global<Q>(to);
    const uint32_t chunk = kGemmRowsChunk;
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(to_out_, 2, chunk);
    pipe->InitBuffer(value_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(other_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(half_buffer_, chunk * sizeof(half));
    pipe->InitBuffer(found_buffer_, (3 * 8 + partial_elements(chunk)) * sizeof(float));
    value_ = value_buffer_.template Get<float>();
    other_ = other_buffer_.template Get<float>();
    half_ = half_buffer_.template Get<half>();
    found_ = found_buffer_.template Get<float>();
  }

  __aicore__ inline void run() {
    for (int64_t row = AscendC::GetBlockIdx(); row < t_.rows; row += AscendC::GetBlockNum()) {
      float low = 0.0f, high = 0.0f, odd = 0.0f;
      for (int64_t c = 0; c < t_.k; c += kGemmRowsChunk) range(row, c, &low, &high, &odd);
      const float span = high - low, whole = odd + span * 0.0f;  // 0, or NaN
      const float scale = span / 255.0f;
      const bool flat = !(whole == 0.0f) || scale == 0.0f;
      // To the nearest, ties to even: the sum has no bits for a fraction.
      const float zero = flat ? 0.0f : (-low / scale + 12582912.0f) - 12582912.0f;
      numbers_.put(row, whole == 0.0f ? scale : float_of(0x7fc00000), static_cast<int32_t>(zero));
      for (int64_t c = 0; c < t_.k; c += kGemmRowsChunk) quantize(row, c, flat, scale, zero);
    }
    numbers_.end();
  }

 private:
  __aicore__ inline int32_t count(int64_t column) const {
    return static_cast<int32_t>(t_.k - column < kGemmRowsChunk ? t_.k - column : kGemmRowsChunk);
  }

  __aicore__ inline void fetch(int64_t row, int64_t column) {
    LocalTensor<X> x = x_in_.template AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(index_.of(row) * t_.x_stride + column)], count(column));
    x_in_.EnQue(x);
    x = x_in_.template DeQue<X>();
    widen(value_, x, count(column));
    x_in_.FreeTensor(x);
  }

  __aicore__ inline void range(int64_t row, int64_t column, float* low, float* high, float* odd) {
    const int32_t n = count(column);
    const LocalTensor<float> work = found_[3 * 8];
    fetch(row, column);
    AscendC::ReduceMax(found_, value_, work, n);
    muls(other_, value_, -1.0f, n);
    reduce_max(found_[8], other_, work, n);
    muls(other_, value_, 0.0f, n);  // NaN where the element is not finite
    AscendC::ReduceSum(found_[16], other_, work, n);
    const float most = scalar_of(pipe_, found_), least = -found_.GetValue(8);
    *high = most > *high ? most : *high;
    *low = least < *low ? least : *low;
    *odd += found_.GetValue(16);
  }

  __aicore__ inline void quantize(int64_t row, int64_t column, bool flat, float scale, float zero) {
    const int32_t n = count(column);
    if (flat) {
      fill(value_, -kLess, n);
    } else {
      if (t_.k > kGemmRowsChunk) fetch(row, column);
      fill(other_, scale, n);
      div(value_, value_, other_, n);
      convert(value_, value_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
      adds(value_, value_, zero - kLess, n);
      maxs(value_, value_, -kLess, n);
      mins(value_, value_, 255.0f - kLess, n);
    }
    // By way of halves, which hold these integers exactly.
    convert(half_, value_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
    LocalTensor<Q> to = to_out_.template AllocTensor<Q>();
    AscendC::Cast(to, half_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
    to_out_.EnQue(to);
    to = to_out_.template DeQue<Q>();
    copy_out(to_[static_cast<uint64_t>(row * t_.to_stride + column)], to, n);
    to_out_.FreeTensor(to);
  }

  TPipe* pipe_;
  const GemmRowsTiling t_;
  RowIndex index_;
  RowNumbers numbers_;
  GlobalTensor<X> x_;
  GlobalTensor<Q> to_;
  TQue<TPosition::VECIN, 1> x_in_;
  TQue<TPosition::VECOUT, 1> to_out_;
  TBuf<TPosition::VECCALC> value_buffer_, other_buffer_, half_buffer_, found_buffer_;
  LocalTensor<float> value_, other_, found_;
  LocalTensor<half> half_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_ROWS_ENTRY(name, X, Y)                                                                                      \
  extern "C" __global__ __aicore__ void gatun_rows_##name(GM_ADDR x, GM_ADDR index, GM_ADDR to, GM_ADDR tiling) {         \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                       \
    AscendC::TPipe pipe;                                                                                                  \
    gatun::ascend::ConvertRows<X, Y> rows(&pipe, gatun::ascend::read_tiling<gatun::ascend::GemmRowsTiling>(tiling), x,    \
                                          index, to);                                                                     \
    rows.run();                                                                                                           \
  }

GATUN_ROWS_ENTRY(f32_bf16, float, bfloat16_t)
GATUN_ROWS_ENTRY(f32_f16, float, half)
GATUN_ROWS_ENTRY(bf16_f32, bfloat16_t, float)
GATUN_ROWS_ENTRY(bf16_bf16, bfloat16_t, bfloat16_t)
GATUN_ROWS_ENTRY(bf16_f16, bfloat16_t, half)
GATUN_ROWS_ENTRY(f16_f32, half, float)
GATUN_ROWS_ENTRY(f16_bf16, half, bfloat16_t)
GATUN_ROWS_ENTRY(f16_f16, half, half)
GATUN_ROWS_ENTRY(u8_s8, uint8_t, int8_t)

// Columns of weights in groups.
extern "C" __global__ __aicore__ void gatun_rows_u8_bf16(GM_ADDR x, GM_ADDR to, GM_ADDR scales, GM_ADDR zeros, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  AscendC::TPipe pipe;
  gatun::ascend::ConvertRows<uint8_t, bfloat16_t> rows(
      &pipe, gatun::ascend::read_tiling<gatun::ascend::GemmRowsTiling>(tiling), x, nullptr, to, scales, zeros);
  rows.run();
}

#define GATUN_QUANTIZE_ENTRY(name, X, Q)                                                                                  \
  extern "C" __global__ __aicore__ void gatun_rows_##name(GM_ADDR x, GM_ADDR index, GM_ADDR to, GM_ADDR scales,           \
                                                          GM_ADDR zeros, GM_ADDR tiling) {                                \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                       \
    AscendC::TPipe pipe;                                                                                                  \
    gatun::ascend::QuantizeRows<X, Q> rows(&pipe, gatun::ascend::read_tiling<gatun::ascend::GemmRowsTiling>(tiling), x,   \
                                           index, to, scales, zeros);                                                     \
    rows.run();                                                                                                           \
  }

GATUN_QUANTIZE_ENTRY(f32_s8, float, int8_t)
GATUN_QUANTIZE_ENTRY(bf16_s8, bfloat16_t, int8_t)
GATUN_QUANTIZE_ENTRY(f16_s8, half, int8_t)
GATUN_QUANTIZE_ENTRY(f32_u8, float, uint8_t)
