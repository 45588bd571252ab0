// Rows of `a` for products of S8: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255, z = rint(-lo / s),
// q = clamp(rint(x / s) + z, 0, 255), written as q - 128, with s and z of each row. s = 0 gives q = z = 0; a row with an
// element that is not finite, or whose hi - lo overflows, gets the scale NaN, which makes its outputs NaN, and q = z = 0.
//
// Bytes: a row is read once to find its range and, where it does not fit the UB, once more to quantize; one byte an element is
// written. About 10 vector instructions an element, the division the dearest: the vector unit and memory are close.
#include "kernels/gemm/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

using AscendC::SetFlag;
using AscendC::WaitFlag;

template <typename X>
class QuantizeRows {
  static constexpr uint32_t kZero = 8;  // of the row's two numbers in UB: where the second is

 public:
  __aicore__ inline QuantizeRows(TPipe* pipe, const GemmRowsTiling& tiling, GM_ADDR x, GM_ADDR to, GM_ADDR scales,
                                 GM_ADDR zeros)
      : pipe_(pipe), t_(tiling) {
    x_ = global<X>(x);
    to_ = global<int8_t>(to);
    scales_ = global<float>(scales);
    zeros_ = global<int32_t>(zeros);
    const uint32_t chunk = kGemmRowsChunk;
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(to_out_, 2, chunk);
    pipe->InitBuffer(value_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(other_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(half_buffer_, chunk * sizeof(half));
    pipe->InitBuffer(found_buffer_, (3 * 8 + partial_elements(chunk)) * sizeof(float));
    pipe->InitBuffer(row_buffer_, 2 * kZero * sizeof(float));
    value_ = value_buffer_.template Get<float>();
    other_ = other_buffer_.template Get<float>();
    half_ = half_buffer_.template Get<half>();
    found_ = found_buffer_.template Get<float>();
    row_ = row_buffer_.template Get<float>();
  }

  __aicore__ inline void run() {
    const AscendC::TEventID copied = pipe_->AllocEventID<HardEvent::MTE3_S>();
    SetFlag<HardEvent::MTE3_S>(copied);  // orders nothing: there was no row before the first
    for (int64_t row = AscendC::GetBlockIdx(); row < t_.rows; row += AscendC::GetBlockNum()) {
      float low = 0.0f, high = 0.0f, odd = 0.0f;
      for (int64_t c = 0; c < t_.k; c += kGemmRowsChunk) range(row, c, &low, &high, &odd);
      const float span = high - low, whole = odd + span * 0.0f;  // 0, or NaN
      const float scale = span / 255.0f;
      const bool flat = !(whole == 0.0f) || scale == 0.0f;
      // To the nearest, ties to even: the sum has no bits for a fraction.
      const float zero = flat ? 0.0f : (-low / scale + 12582912.0f) - 12582912.0f;
      WaitFlag<HardEvent::MTE3_S>(copied);
      row_.SetValue(0, whole == 0.0f ? scale : float_of(0x7fc00000));
      row_.template ReinterpretCast<int32_t>().SetValue(kZero, static_cast<int32_t>(zero));
      const AscendC::TEventID written = pipe_->FetchEventID(HardEvent::S_MTE3);
      SetFlag<HardEvent::S_MTE3>(written);
      WaitFlag<HardEvent::S_MTE3>(written);
      copy_out(scales_[static_cast<uint64_t>(row)], row_, 1);
      copy_out(zeros_[static_cast<uint64_t>(row)], row_[kZero].template ReinterpretCast<int32_t>(), 1);
      SetFlag<HardEvent::MTE3_S>(copied);
      for (int64_t c = 0; c < t_.k; c += kGemmRowsChunk) quantize(row, c, flat, scale, zero);
    }
    WaitFlag<HardEvent::MTE3_S>(copied);  // orders nothing
    pipe_->ReleaseEventID<HardEvent::MTE3_S>(copied);
  }

 private:
  __aicore__ inline int32_t count(int64_t column) const {
    return static_cast<int32_t>(t_.k - column < kGemmRowsChunk ? t_.k - column : kGemmRowsChunk);
  }

  __aicore__ inline void fetch(int64_t row, int64_t column) {
    LocalTensor<X> x = x_in_.template AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(row * t_.x_stride + column)], count(column));
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
      fill(value_, -128.0f, n);
    } else {
      if (t_.k > kGemmRowsChunk) fetch(row, column);
      fill(other_, scale, n);
      div(value_, value_, other_, n);
      convert(value_, value_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
      adds(value_, value_, zero - 128.0f, n);
      maxs(value_, value_, -128.0f, n);
      mins(value_, value_, 127.0f, n);
    }
    // By way of halves, which hold these integers exactly.
    convert(half_, value_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
    LocalTensor<int8_t> to = to_out_.template AllocTensor<int8_t>();
    AscendC::Cast(to, half_, RoundMode::CAST_RINT, static_cast<uint32_t>(n));
    to_out_.EnQue(to);
    to = to_out_.template DeQue<int8_t>();
    copy_out(to_[static_cast<uint64_t>(row * t_.to_stride + column)], to, n);
    to_out_.FreeTensor(to);
  }

  TPipe* pipe_;
  const GemmRowsTiling t_;
  GlobalTensor<X> x_;
  GlobalTensor<int8_t> to_;
  GlobalTensor<float> scales_;
  GlobalTensor<int32_t> zeros_;
  TQue<TPosition::VECIN, 1> x_in_;
  TQue<TPosition::VECOUT, 1> to_out_;
  TBuf<TPosition::VECCALC> value_buffer_, other_buffer_, half_buffer_, found_buffer_, row_buffer_;
  LocalTensor<float> value_, other_, found_, row_;
  LocalTensor<half> half_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_GEMM_ROWS_ENTRY(name, X)                                                                                    \
  extern "C" __global__ __aicore__ void gatun_gemm_rows_##name##_s8(GM_ADDR x, GM_ADDR to, GM_ADDR scales, GM_ADDR zeros, \
                                                                    GM_ADDR tiling) {                                     \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                       \
    AscendC::TPipe pipe;                                                                                                  \
    gatun::ascend::QuantizeRows<X> rows(&pipe, gatun::ascend::read_tiling<gatun::ascend::GemmRowsTiling>(tiling), x, to,  \
                                        scales, zeros);                                                                   \
    rows.run();                                                                                                           \
  }

GATUN_GEMM_ROWS_ENTRY(f32, float)
GATUN_GEMM_ROWS_ENTRY(bf16, bfloat16_t)
