// Activations over rows, in FP32 and rounded once, f of functions.h: out = f(x + bias), and the gated out = f(x) * other.
//
// Bytes: every element is read once and written once, 8 bytes of FP32, 12 where it is gated. FLOPs: 30 an element for GELU (erf)
// down to 6 for ReLU. What binds it: memory, but GELU (erf), which the vector unit may. Rows are cut into chunks; a vector core
// takes every chunk of its number modulo theirs, and has the next one on its way while it computes on one.
#include "kernels/activation/functions.h"
#include "kernels/activation/tiling.h"

namespace gatun::ascend {
namespace {

template <bool kGated, typename X, typename Y>
class ActivationRows {
  using Other = typename std::conditional<kGated, X, float>::type;

 public:
  __aicore__ inline void init(TPipe* pipe, const ActivationTiling& tiling, GM_ADDR x, GM_ADDR other, GM_ADDR out) {
    t_ = tiling;
    chunks_ = (t_.n + t_.chunk - 1) / t_.chunk;
    x_ = global<X>(x);
    other_ = global<Other>(other);
    out_ = global<Y>(out);
    const uint32_t chunk = static_cast<uint32_t>(t_.chunk);
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    if (t_.has_other != 0) pipe->InitBuffer(other_in_, 2, chunk * sizeof(Other));
    pipe->InitBuffer(out_out_, 2, chunk * sizeof(Y));
    pipe->InitBuffer(value_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(wide_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(scratch_buffer_, chunk * kActivationScratch * sizeof(float));
    value_ = value_buffer_.Get<float>();
    wide_ = wide_buffer_.Get<float>();
    scratch_ = scratch_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t all = t_.rows * chunks_, step = AscendC::GetBlockNum();
    int64_t i = AscendC::GetBlockIdx();
    if (i >= all) return;
    fetch(i);
    for (; i < all; i += step) {
      LocalTensor<X> x = x_in_.template DeQue<X>();
      LocalTensor<Other> other;
      if (t_.has_other != 0) other = other_in_.template DeQue<Other>();
      if (i + step < all) fetch(i + step);
      const int32_t n = count(i);
      widen(value_, x, n);
      x_in_.FreeTensor(x);
      if (t_.has_other != 0) {
        widen(wide_, other, n);
        other_in_.FreeTensor(other);
      }
      if (!kGated && t_.has_other != 0) add(value_, value_, wide_, n);
      activate(t_.activation, value_, scratch_, t_.chunk, n);
      if (kGated) mul(value_, value_, wide_, n);
      LocalTensor<Y> out = out_out_.template AllocTensor<Y>();
      narrow(out, value_, n);
      out_out_.EnQue(out);
      out = out_out_.template DeQue<Y>();
      copy_out(out_[static_cast<uint64_t>(i / chunks_ * t_.out_stride + column(i))], out, n);
      out_out_.FreeTensor(out);
    }
  }

 private:
  __aicore__ inline int64_t column(int64_t i) const { return i % chunks_ * t_.chunk; }

  __aicore__ inline int32_t count(int64_t i) const {
    const int64_t rest = t_.n - column(i);
    return static_cast<int32_t>(rest < t_.chunk ? rest : t_.chunk);
  }

  __aicore__ inline void fetch(int64_t i) {
    const int64_t row = i / chunks_;
    LocalTensor<X> x = x_in_.template AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(row * t_.x_stride + column(i))], count(i));
    x_in_.EnQue(x);
    if (t_.has_other == 0) return;
    LocalTensor<Other> other = other_in_.template AllocTensor<Other>();
    copy_in(other, other_[static_cast<uint64_t>(row * t_.other_stride + column(i))], count(i));
    other_in_.EnQue(other);
  }

  ActivationTiling t_;
  int64_t chunks_;
  GlobalTensor<X> x_;
  GlobalTensor<Other> other_;
  GlobalTensor<Y> out_;
  TQue<TPosition::VECIN, 1> x_in_, other_in_;
  TQue<TPosition::VECOUT, 1> out_out_;
  TBuf<TPosition::VECCALC> value_buffer_, wide_buffer_, scratch_buffer_;
  LocalTensor<float> value_, wide_, scratch_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_ACTIVATION_ENTRY(name, is_gated, x_name, X, y_name, Y)                                        \
  extern "C" __global__ __aicore__ void gatun_##name##_##x_name##_##y_name(GM_ADDR x, GM_ADDR other,        \
                                                                           GM_ADDR out, GM_ADDR tiling) {   \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                         \
    AscendC::TPipe pipe;                                                                                    \
    gatun::ascend::ActivationRows<is_gated, X, Y> rows;                                                     \
    rows.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::ActivationTiling>(tiling), x, other, out);   \
    rows.run();                                                                                             \
  }

GATUN_ACTIVATION_ENTRY(activation, false, f32, float, f32, float)
GATUN_ACTIVATION_ENTRY(activation, false, f32, float, bf16, bfloat16_t)
GATUN_ACTIVATION_ENTRY(activation, false, bf16, bfloat16_t, f32, float)
GATUN_ACTIVATION_ENTRY(activation, false, bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_ACTIVATION_ENTRY(glu, true, f32, float, f32, float)
GATUN_ACTIVATION_ENTRY(glu, true, f32, float, bf16, bfloat16_t)
GATUN_ACTIVATION_ENTRY(glu, true, f32, float, f16, half)
GATUN_ACTIVATION_ENTRY(glu, true, bf16, bfloat16_t, f32, float)
GATUN_ACTIVATION_ENTRY(glu, true, bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_ACTIVATION_ENTRY(glu, true, bf16, bfloat16_t, f16, half)
GATUN_ACTIVATION_ENTRY(glu, true, f16, half, f32, float)
GATUN_ACTIVATION_ENTRY(glu, true, f16, half, bf16, bfloat16_t)
GATUN_ACTIVATION_ENTRY(glu, true, f16, half, f16, half)
