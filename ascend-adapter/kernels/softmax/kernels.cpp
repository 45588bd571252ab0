// Softmax over rows: out = exp(scale x - max) / sum, where max is that of scale x.
//
// Bytes: every element is read once and written once, 8 bytes of FP32. FLOPs: about 24 an element. What binds it: memory. A row
// that fits the UB is read once, and the next one is on its way while it is computed on; a longer row is read in chunks, again
// for the sum and for the result. A vector core takes every row of its number modulo theirs.
//
// NaN needs no test: where the maximum drops it, it comes back through its exponential, and turns the sum, and so the whole
// row, into NaN; +inf does the same through inf - inf.
#include "kernels/softmax/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

template <typename X, typename Y>
class SoftmaxRows {
 public:
  __aicore__ inline void init(TPipe* pipe, const SoftmaxTiling& tiling, GM_ADDR x, GM_ADDR out) {
    pipe_ = pipe;
    t_ = tiling;
    chunks_ = static_cast<int32_t>((t_.n + t_.chunk - 1) / t_.chunk);
    x_ = global<X>(x);
    out_ = global<Y>(out);
    const uint32_t chunk = static_cast<uint32_t>(t_.chunk);
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(out_out_, 2, chunk * sizeof(Y));
    pipe->InitBuffer(h_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(partial_buffer_, partial_elements(chunk) * sizeof(float));
    pipe->InitBuffer(scalar_buffer_, 64);
    h_ = h_buffer_.Get<float>();
    partial_ = partial_buffer_.Get<float>();
    scalar_ = scalar_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t first = AscendC::GetBlockIdx(), step = AscendC::GetBlockNum();
    if (first >= t_.rows) return;
    if (chunks_ == 1) fetch(first, 0);
    for (int64_t row = first; row < t_.rows; row += step) {
      if (chunks_ == 1) load(row + step, 0, t_.n);
      normalise(row);
    }
  }

 private:
  __aicore__ inline int32_t count(int32_t c) const {
    const int64_t rest = t_.n - static_cast<int64_t>(c) * t_.chunk;
    return static_cast<int32_t>(rest < t_.chunk ? rest : t_.chunk);
  }

  __aicore__ inline void fetch(int64_t row, int32_t c) {
    LocalTensor<X> x = x_in_.AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(row * t_.x_stride + static_cast<int64_t>(c) * t_.chunk)], count(c));
    x_in_.EnQue(x);
  }

  // h = scale x of the chunk of n elements that was fetched last; the next one is fetched meanwhile, if there is one. scale x
  // is rounded before the maximum is subtracted, so that the difference is never positive.
  __aicore__ inline void load(int64_t next_row, int32_t next_c, int64_t n) {
    LocalTensor<X> x = x_in_.DeQue<X>();
    if (next_row < t_.rows && next_c < chunks_) fetch(next_row, next_c);
    widen(h_, x, static_cast<int32_t>(n));
    x_in_.FreeTensor(x);
    muls(h_, h_, t_.scale, static_cast<int32_t>(n));
  }

  // Before each pass over a row, and for each chunk of it: a row of one chunk is in h already.
  __aicore__ inline void begin(int64_t row) {
    if (chunks_ > 1) fetch(row, 0);
  }
  __aicore__ inline void load(int64_t row, int32_t c) {
    if (chunks_ > 1) load(row, c + 1, count(c));
  }

  // h = exp(h - most).
  __aicore__ inline void exponentials(int32_t n, float most) {
    adds(h_, h_, -most, n);
    exponential(h_, h_, n);
  }

  __aicore__ inline void normalise(int64_t row) {
    const float infinity = float_of(0x7f800000u);
    float most = -infinity, sum = 0.0f;
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      const float of_chunk = maximum_of(pipe_, scalar_, h_, partial_, count(c));
      most = of_chunk > most ? of_chunk : most;
    }
    // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN, and a factor
    // of 0 makes the row 0 unless it has a NaN.
    const bool nothing = most == -infinity;
    if (nothing) most = 0.0f;
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      exponentials(count(c), most);
      sum += sum_of(pipe_, scalar_, h_, partial_, count(c));
    }
    const float factor = nothing && sum == sum ? 0.0f : 1.0f / sum;
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      if (chunks_ > 1) exponentials(count(c), most);
      muls(h_, h_, factor, count(c));
      LocalTensor<Y> out = out_out_.AllocTensor<Y>();
      narrow(out, h_, count(c));
      out_out_.EnQue(out);
      out = out_out_.DeQue<Y>();
      copy_out(out_[static_cast<uint64_t>(row * t_.out_stride + static_cast<int64_t>(c) * t_.chunk)], out, count(c));
      out_out_.FreeTensor(out);
    }
  }

  TPipe* pipe_;
  SoftmaxTiling t_;
  int32_t chunks_;
  GlobalTensor<X> x_;
  GlobalTensor<Y> out_;
  TQue<TPosition::VECIN, 1> x_in_;
  TQue<TPosition::VECOUT, 1> out_out_;
  TBuf<TPosition::VECCALC> h_buffer_, partial_buffer_, scalar_buffer_;
  LocalTensor<float> h_, partial_, scalar_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_SOFTMAX_ENTRY(x_name, X, y_name, Y)                                                                          \
  extern "C" __global__ __aicore__ void gatun_softmax_##x_name##_##y_name(GM_ADDR x, GM_ADDR out, GM_ADDR tiling) {        \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                        \
    AscendC::TPipe pipe;                                                                                                   \
    gatun::ascend::SoftmaxRows<X, Y> rows;                                                                                 \
    rows.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::SoftmaxTiling>(tiling), x, out);                            \
    rows.run();                                                                                                            \
  }

GATUN_SOFTMAX_ENTRY(f32, float, f32, float)
GATUN_SOFTMAX_ENTRY(f32, float, bf16, bfloat16_t)
GATUN_SOFTMAX_ENTRY(bf16, bfloat16_t, f32, float)
GATUN_SOFTMAX_ENTRY(bf16, bfloat16_t, bf16, bfloat16_t)
