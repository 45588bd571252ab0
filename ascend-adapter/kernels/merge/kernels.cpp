// Merge of attention over parts of the keys.
//
//   m = max lse_i,  e_i = exp(lse_i - m),  S = sum of e_i
//   out = sum of e_i x_i / (S + exp(sink - m)),  lse = m + log S
//
// Bytes: x is read once and out written once, 4 (parts + 1) of FP32 for an element of out; a log-sum-exp is 4 bytes for a whole
// row. FLOPs: 2 parts for an element, and some 30 parts for a row. What binds it: memory, and for short rows the log-sum-exps,
// which the scalar unit collects one by one, since their strides are any. A vector core takes every row of out of its number
// modulo theirs; the next part is on its way while one is added.
//
// A sink logit above the maximum would overflow e_i's counterpart, so both are taken relative to M = max(m, sink): out's
// weights are e_i f / (S f + g) with f = exp(m - M), g = exp(sink - M), one of which is 1.
//
// A weight of 0 is no share: of a part whose log-sum-exp is -inf, or far below the maximum, x is not looked at. NaN among the
// log-sum-exps is dropped by the maximum and comes back through its exponential; +inf does the same through inf - inf; both
// turn the row and its log-sum-exp into NaN.
#include "kernels/merge/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

template <typename X, typename Y>
class MergeRows {
 public:
  __aicore__ inline void init(TPipe* pipe, const MergeTiling& tiling, GM_ADDR x, GM_ADDR x_lse, GM_ADDR sink_logits,
                              GM_ADDR out, GM_ADDR lse) {
    pipe_ = pipe;
    t_ = tiling;
    x_ = global<X>(x);
    x_lse_ = global<float>(x_lse);
    sink_logits_ = global<float>(sink_logits);
    out_ = global<Y>(out);
    lse_ = global<float>(lse);
    const uint32_t chunk = static_cast<uint32_t>(t_.chunk);
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(out_out_, 2, chunk * sizeof(Y));
    pipe->InitBuffer(lse_out_, 2, 32);
    pipe->InitBuffer(sum_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(part_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(weight_buffer_, kMergeMaxParts * sizeof(float));
    pipe->InitBuffer(partial_buffer_, kMergeMaxParts / 64 * sizeof(float) + 64);
    pipe->InitBuffer(scalar_buffer_, 64);
    sum_ = sum_buffer_.Get<float>();
    part_ = part_buffer_.Get<float>();
    weights_ = weight_buffer_.Get<float>();
    partial_ = partial_buffer_.Get<float>();
    scalar_ = scalar_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t rows = t_.batch * t_.length * t_.heads;
    for (int64_t row = AscendC::GetBlockIdx(); row < rows; row += AscendC::GetBlockNum()) {
      const int64_t token_row = row / t_.heads, head = row % t_.heads;
      merge(token_row / t_.length, token_row % t_.length, head);
    }
  }

 private:
  __aicore__ inline void scalar_to_vector() {
    const AscendC::TEventID event = pipe_->FetchEventID(HardEvent::S_V);
    AscendC::SetFlag<HardEvent::S_V>(event);
    AscendC::WaitFlag<HardEvent::S_V>(event);
  }

  __aicore__ inline void merge(int64_t sequence, int64_t token, int64_t head) {
    const float infinity = float_of(0x7f800000u);
    const int32_t parts = static_cast<int32_t>(t_.parts);
    const int64_t first = sequence * t_.x_lse_batch + head * t_.x_lse_head + token * t_.x_lse_token;
    float most = -infinity, sum = 0.0f;
    for (int32_t part = 0; part < parts; ++part) {
      const float lse = x_lse_.GetValue(static_cast<uint64_t>(first + part * t_.x_lse_part));
      weights_.SetValue(static_cast<uint32_t>(part), lse);
      most = lse > most ? lse : most;
    }
    // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN.
    const float m = most == -infinity ? 0.0f : most;
    if (parts > 0) {
      scalar_to_vector();
      adds(weights_, weights_, -m, parts);
      exponential(weights_, weights_, parts);
      sum = sum_of(pipe_, scalar_, weights_, partial_, parts);
    }
    float factor = 1.0f / sum;
    if (t_.has_sink_logits != 0) {
      const float sink = sink_logits_.GetValue(static_cast<uint64_t>(head));
      const float both = sink > m ? sink : m;
      const float f = exponential_of(m - both);
      factor = f / (sum * f + exponential_of(sink - both));
    }
    if (sum == 0.0f) factor = 0.0f;

    const int64_t from = sequence * t_.x_batch + token * t_.x_token + head * t_.x_head;
    const int64_t to = sequence * t_.out_batch + token * t_.out_token + head * t_.out_head;
    for (int64_t column = 0; column < t_.n; column += t_.chunk) {
      const int64_t rest = t_.n - column;
      const int32_t n = static_cast<int32_t>(rest < t_.chunk ? rest : t_.chunk);
      fill(sum_, 0.0f, n);
      int32_t part = next_part(0, factor);
      if (part < parts) fetch(from + part * t_.x_part + column, n);
      while (part < parts) {
        const float weight = weights_.GetValue(static_cast<uint32_t>(part)) * factor;
        part = next_part(part + 1, factor);
        LocalTensor<X> x = x_in_.DeQue<X>();
        if (part < parts) fetch(from + part * t_.x_part + column, n);
        widen(part_, x, n);
        x_in_.FreeTensor(x);
        muls(part_, part_, weight, n);
        add(sum_, sum_, part_, n);
      }
      LocalTensor<Y> out = out_out_.AllocTensor<Y>();
      narrow(out, sum_, n);
      out_out_.EnQue(out);
      out = out_out_.DeQue<Y>();
      copy_out(out_[static_cast<uint64_t>(to + column)], out, n);
      out_out_.FreeTensor(out);
    }
    if (t_.has_lse != 0) {
      // All log-sum-exps of the row have been read: the first part's may be where this goes.
      const float total = sum == 0.0f ? -infinity : m + logarithm_of(sum);
      // The rows that follow on the way out are waited for in its stead.
      LocalTensor<float> lse = lse_out_.AllocTensor<float>();  // orders nothing
      fill(lse, total, 8);
      lse_out_.EnQue(lse);
      lse = lse_out_.DeQue<float>();
      copy_out(lse_[static_cast<uint64_t>(sequence * t_.lse_batch + head * t_.lse_head + token * t_.lse_token)], lse, 1);
      lse_out_.FreeTensor(lse);  // orders nothing
    }
  }

  // The first part from `part` on that has a share.
  __aicore__ inline int32_t next_part(int32_t part, float factor) {
    while (part < static_cast<int32_t>(t_.parts) && weights_.GetValue(static_cast<uint32_t>(part)) * factor == 0.0f) ++part;
    return part;
  }

  __aicore__ inline void fetch(int64_t at, int32_t n) {
    LocalTensor<X> x = x_in_.AllocTensor<X>();
    copy_in(x, x_[static_cast<uint64_t>(at)], n);
    x_in_.EnQue(x);
  }

  // The scalar unit has neither.
  __aicore__ inline float exponential_of(float x) {
    fill(scalar_, x, 8);
    exponential(scalar_, scalar_, 8);
    return scalar_of(pipe_, scalar_);
  }
  __aicore__ inline float logarithm_of(float x) {
    fill(scalar_, x, 8);
    logarithm(scalar_, scalar_, 8);
    return scalar_of(pipe_, scalar_);
  }

  TPipe* pipe_;
  MergeTiling t_;
  GlobalTensor<X> x_;
  GlobalTensor<float> x_lse_, sink_logits_, lse_;
  GlobalTensor<Y> out_;
  TQue<TPosition::VECIN, 1> x_in_;
  TQue<TPosition::VECOUT, 1> out_out_, lse_out_;
  TBuf<TPosition::VECCALC> sum_buffer_, part_buffer_, weight_buffer_, partial_buffer_, scalar_buffer_;
  LocalTensor<float> sum_, part_, weights_, partial_, scalar_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_MERGE_ENTRY(x_name, X, y_name, Y)                                                                             \
  extern "C" __global__ __aicore__ void gatun_merge_##x_name##_##y_name(GM_ADDR x, GM_ADDR x_lse, GM_ADDR sink_logits,      \
                                                                        GM_ADDR out, GM_ADDR lse, GM_ADDR tiling) {         \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                         \
    AscendC::TPipe pipe;                                                                                                    \
    gatun::ascend::MergeRows<X, Y> rows;                                                                                    \
    rows.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::MergeTiling>(tiling), x, x_lse, sink_logits, out, lse);      \
    rows.run();                                                                                                             \
  }

GATUN_MERGE_ENTRY(f32, float, f32, float)
GATUN_MERGE_ENTRY(f32, float, bf16, bfloat16_t)
GATUN_MERGE_ENTRY(f32, float, f16, half)
GATUN_MERGE_ENTRY(bf16, bfloat16_t, f32, float)
GATUN_MERGE_ENTRY(bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_MERGE_ENTRY(bf16, bfloat16_t, f16, half)
GATUN_MERGE_ENTRY(f16, half, f32, float)
GATUN_MERGE_ENTRY(f16, half, bf16, bfloat16_t)
GATUN_MERGE_ENTRY(f16, half, f16, half)
