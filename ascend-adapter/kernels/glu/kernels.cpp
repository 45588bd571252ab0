// Gated activation over rows: out = f(gate) * x, f of activation/functions.h, in FP32 and rounded once.
//
// Bytes: both factors are read once and the product is written once, 12 bytes of FP32. FLOPs: one more than those of f an
// element. What binds it: memory, as for the activation alone, and sooner. Rows are cut into chunks; a vector core takes every
// chunk of its number modulo theirs, and has the next one on its way while it computes on one.
#include "kernels/activation/functions.h"
#include "kernels/glu/tiling.h"

namespace gatun::ascend {
namespace {

template <typename X, typename Y>
class GluRows {
 public:
  __aicore__ inline void init(TPipe* pipe, const GluTiling& tiling, GM_ADDR gate, GM_ADDR x, GM_ADDR out) {
    t_ = tiling;
    chunks_ = (t_.n + t_.chunk - 1) / t_.chunk;
    gate_ = global<X>(gate);
    x_ = global<X>(x);
    out_ = global<Y>(out);
    const uint32_t chunk = static_cast<uint32_t>(t_.chunk);
    pipe->InitBuffer(gate_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(out_out_, 2, chunk * sizeof(Y));
    pipe->InitBuffer(value_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(factor_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(scratch_buffer_, chunk * kActivationScratch * sizeof(float));
    value_ = value_buffer_.Get<float>();
    factor_ = factor_buffer_.Get<float>();
    scratch_ = scratch_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t all = t_.rows * chunks_, step = AscendC::GetBlockNum();
    int64_t i = AscendC::GetBlockIdx();
    if (i >= all) return;
    fetch(i);
    for (; i < all; i += step) {
      LocalTensor<X> gate = gate_in_.DeQue<X>();
      LocalTensor<X> x = x_in_.DeQue<X>();
      if (i + step < all) fetch(i + step);
      const int32_t n = count(i);
      widen(value_, gate, n);
      gate_in_.FreeTensor(gate);
      widen(factor_, x, n);
      x_in_.FreeTensor(x);
      activate(t_.activation, value_, scratch_, t_.chunk, n);
      mul(value_, value_, factor_, n);
      LocalTensor<Y> out = out_out_.AllocTensor<Y>();
      narrow(out, value_, n);
      out_out_.EnQue(out);
      out = out_out_.DeQue<Y>();
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
    LocalTensor<X> gate = gate_in_.AllocTensor<X>();
    copy_in(gate, gate_[static_cast<uint64_t>(i / chunks_ * t_.gate_stride + column(i))], count(i));
    gate_in_.EnQue(gate);
    LocalTensor<X> x = x_in_.AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(i / chunks_ * t_.x_stride + column(i))], count(i));
    x_in_.EnQue(x);
  }

  GluTiling t_;
  int64_t chunks_;
  GlobalTensor<X> gate_, x_;
  GlobalTensor<Y> out_;
  TQue<TPosition::VECIN, 1> gate_in_, x_in_;
  TQue<TPosition::VECOUT, 1> out_out_;
  TBuf<TPosition::VECCALC> value_buffer_, factor_buffer_, scratch_buffer_;
  LocalTensor<float> value_, factor_, scratch_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_GLU_ENTRY(x_name, X, y_name, Y)                                                                                 \
  extern "C" __global__ __aicore__ void gatun_glu_##x_name##_##y_name(GM_ADDR gate, GM_ADDR x, GM_ADDR out, GM_ADDR tiling) { \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                           \
    AscendC::TPipe pipe;                                                                                                      \
    gatun::ascend::GluRows<X, Y> rows;                                                                                        \
    rows.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::GluTiling>(tiling), gate, x, out);                             \
    rows.run();                                                                                                               \
  }

GATUN_GLU_ENTRY(f32, float, f32, float)
GATUN_GLU_ENTRY(f32, float, bf16, bfloat16_t)
GATUN_GLU_ENTRY(f32, float, f16, half)
GATUN_GLU_ENTRY(bf16, bfloat16_t, f32, float)
GATUN_GLU_ENTRY(bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_GLU_ENTRY(bf16, bfloat16_t, f16, half)
GATUN_GLU_ENTRY(f16, half, f32, float)
GATUN_GLU_ENTRY(f16, half, bf16, bfloat16_t)
GATUN_GLU_ENTRY(f16, half, f16, half)
