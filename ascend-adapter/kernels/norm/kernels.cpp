// Residual and LayerNorm or RMSNorm over rows.
//
//   h = x + residual, in FP32; sum = h
//   LayerNorm: out = (h - mean h) / sqrt(var h + epsilon) * gamma + beta
//   RMSNorm:   out = h / sqrt(mean h^2 + epsilon) * gamma
//
// Bytes: x, residual, out and sum once each. FLOPs: 10 an element for LayerNorm, 4 for RMSNorm. What binds it: memory. So a row
// that fits the UB is read once, and the next one is on its way while it is computed on; a longer row is read in chunks, again
// for each pass over it. Everything is written in the last pass, which makes it right in place. A vector core takes every row
// of its number modulo theirs; gamma and beta stay in the UB where a row does.
//
// The variance takes two passes and a correction (Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
// 1983): c = h - m with m the rounded mean, then var = mean c^2 - (mean c)^2, and mean c also corrects the mean. The first sum
// is of h - h_0, so that it does not lose the digits that an offset has in common.
//
// Where squares leave FP32's range, and the mean square is not a number from 2^-100 to 2^127, the row is done again times a
// power of two that brings the largest of its elements, or sqrt(epsilon), to 1 to 2.
#include "kernels/norm/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

// Whether a mean square came from squares inside FP32's range. False for NaN.
__aicore__ inline bool in_range(float mean_square) { return mean_square >= 0x1p-100f && mean_square < 0x1p127f; }

// 2^-e for 2^e <= x < 2^(e + 1) and e within -126 to 126.
__aicore__ inline float inverse_power(float x) {
  const uint32_t exponent = bits_of(x) >> 23;
  return float_of((254u - (exponent < 1u ? 1u : exponent > 253u ? 253u : exponent)) << 23);
}

struct Moments {
  float mean, rest, mean_square;
};

template <bool kLayer, typename X, typename Y>
class NormRows {
 public:
  __aicore__ inline void init(TPipe* pipe, const NormTiling& tiling, GM_ADDR x, GM_ADDR residual, GM_ADDR gamma, GM_ADDR beta,
                              GM_ADDR out, GM_ADDR sum) {
    pipe_ = pipe;
    t_ = tiling;
    chunks_ = static_cast<int32_t>((t_.n + t_.chunk - 1) / t_.chunk);
    x_ = global<X>(x);
    gamma_ = global<float>(gamma);
    out_ = global<Y>(out);
    const uint32_t chunk = static_cast<uint32_t>(t_.chunk);
    pipe->InitBuffer(x_in_, 2, chunk * sizeof(X));
    pipe->InitBuffer(gamma_in_, 2, chunk * sizeof(float));
    pipe->InitBuffer(out_out_, 2, chunk * sizeof(Y));
    if (t_.has_residual != 0) {
      residual_ = global<X>(residual);
      pipe->InitBuffer(residual_in_, 2, chunk * sizeof(X));
    }
    if (t_.has_beta != 0) {
      beta_ = global<float>(beta);
      pipe->InitBuffer(beta_in_, 2, chunk * sizeof(float));
    }
    if (t_.has_sum != 0) {
      sum_ = global<X>(sum);
      pipe->InitBuffer(sum_out_, 2, chunk * sizeof(X));
    }
    pipe->InitBuffer(h_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(work_buffer_, chunk * sizeof(float));
    pipe->InitBuffer(partial_buffer_, partial_elements(chunk) * sizeof(float));
    pipe->InitBuffer(scalar_buffer_, 64);
    h_ = h_buffer_.Get<float>();
    work_ = work_buffer_.Get<float>();
    partial_ = partial_buffer_.Get<float>();
    scalar_ = scalar_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t first = AscendC::GetBlockIdx(), step = AscendC::GetBlockNum();
    if (first >= t_.rows) return;
    if (chunks_ == 1) {
      fetch(first, 0);
      fetch_weights(0);
      gamma_row_ = gamma_in_.DeQue<float>();
      if (t_.has_beta != 0) beta_row_ = beta_in_.DeQue<float>();
    }
    for (int64_t row = first; row < t_.rows; row += step) {
      if (chunks_ == 1) load(row, 0, row + step, 0);
      normalise(row);
    }
    if (chunks_ == 1) free_weights();
  }

 private:
  __aicore__ inline int32_t count(int32_t c) const {
    const int64_t rest = t_.n - static_cast<int64_t>(c) * t_.chunk;
    return static_cast<int32_t>(rest < t_.chunk ? rest : t_.chunk);
  }

  // Starts to read a chunk of x and residual.
  __aicore__ inline void fetch(int64_t row, int32_t c) {
    const uint64_t at = static_cast<uint64_t>(row * t_.x_stride + static_cast<int64_t>(c) * t_.chunk);
    LocalTensor<X> x = x_in_.AllocTensor<X>();
    copy_in(x, x_[at], count(c));
    x_in_.EnQue(x);
    if (t_.has_residual == 0) return;
    LocalTensor<X> residual = residual_in_.AllocTensor<X>();
    copy_in(residual, residual_[at], count(c));
    residual_in_.EnQue(residual);
  }

  // h = x + residual of the chunk that was fetched last; the next one is fetched meanwhile, if there is one.
  __aicore__ inline void load(int64_t, int32_t c, int64_t next_row, int32_t next_c) {
    const int32_t n = count(c);
    LocalTensor<X> x = x_in_.DeQue<X>();
    LocalTensor<X> residual;
    if (t_.has_residual != 0) residual = residual_in_.DeQue<X>();
    if (next_row < t_.rows && next_c < chunks_) fetch(next_row, next_c);
    widen(h_, x, n);
    x_in_.FreeTensor(x);
    if (t_.has_residual == 0) return;
    widen(work_, residual, n);
    add(h_, h_, work_, n);
    residual_in_.FreeTensor(residual);
  }

  // Before each pass over a row, and for each chunk of it: a row of one chunk is in h already.
  __aicore__ inline void begin(int64_t row) {
    if (chunks_ > 1) fetch(row, 0);
  }
  __aicore__ inline void load(int64_t row, int32_t c) {
    if (chunks_ > 1) load(row, c, row, c + 1);
  }

  __aicore__ inline void fetch_weights(int32_t c) {
    const uint64_t at = static_cast<uint64_t>(c) * static_cast<uint64_t>(t_.chunk);
    LocalTensor<float> gamma = gamma_in_.AllocTensor<float>();
    copy_in(gamma, gamma_[at], count(c));
    gamma_in_.EnQue(gamma);
    if (t_.has_beta == 0) return;
    LocalTensor<float> beta = beta_in_.AllocTensor<float>();
    copy_in(beta, beta_[at], count(c));
    beta_in_.EnQue(beta);
  }

  __aicore__ inline void free_weights() {
    gamma_in_.FreeTensor(gamma_row_);
    if (t_.has_beta != 0) beta_in_.FreeTensor(beta_row_);
  }

  // work = (h times `power`) - `less`.
  __aicore__ inline void shifted(int32_t n, float power, float less) {
    if (power == 1.0f) {
      adds(work_, h_, -less, n);
    } else {
      muls(work_, h_, power, n);
      adds(work_, work_, -less, n);
    }
  }

  __aicore__ inline Moments moments(int64_t row, float power) {
    Moments m = {0.0f, 0.0f, 0.0f};
    const float elements = static_cast<float>(t_.n);
    float sum = 0.0f, squares = 0.0f, first = 0.0f;
    if constexpr (kLayer) {
      begin(row);
      for (int32_t c = 0; c < chunks_; ++c) {
        load(row, c);
        if (c == 0) first = scalar_of(pipe_, h_) * power;
        shifted(count(c), power, first);
        sum += sum_of(pipe_, scalar_, work_, partial_, count(c));
      }
      m.mean = first + sum / elements;
      sum = 0.0f;
    }
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      shifted(count(c), power, m.mean);
      if constexpr (kLayer) sum += sum_of(pipe_, scalar_, work_, partial_, count(c));
      mul(work_, work_, work_, count(c));
      squares += sum_of(pipe_, scalar_, work_, partial_, count(c));
    }
    m.rest = sum / elements;
    m.mean_square = squares / elements - m.rest * m.rest;
    return m;
  }

  __aicore__ inline float largest(int64_t row) {
    float most = 0.0f;
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      absolute(work_, h_, count(c));
      const float of_chunk = maximum_of(pipe_, scalar_, work_, partial_, count(c));
      most = of_chunk > most ? of_chunk : most;
    }
    return most;
  }

  // The vector unit has a square root, the scalar unit none.
  __aicore__ inline float root_of(float x) {
    fill(scalar_, x, 8);
    AscendC::Sqrt(scalar_, scalar_, 8);
    return scalar_of(pipe_, scalar_);
  }

  __aicore__ inline void normalise(int64_t row) {
    float power = 1.0f, epsilon = t_.epsilon;
    Moments m = moments(row, power);
    if (!in_range(m.mean_square + epsilon)) {
      float most = largest(row);
      const float least = root_of(epsilon);
      most = least > most ? least : most;
      if (most > 0.0f && most <= 0x1.fffffep127f) {
        power = inverse_power(most);
        epsilon = epsilon * power * power;
        m = moments(row, power);
      }
    }
    const float factor = 1.0f / root_of(m.mean_square + epsilon);
    begin(row);
    for (int32_t c = 0; c < chunks_; ++c) {
      load(row, c);
      write(row, c, power, m, factor);
    }
  }

  __aicore__ inline void write(int64_t row, int32_t c, float power, const Moments& m, float factor) {
    const int32_t n = count(c);
    const int64_t column = static_cast<int64_t>(c) * t_.chunk;
    if (chunks_ > 1) {
      fetch_weights(c);
      gamma_row_ = gamma_in_.DeQue<float>();
      if (t_.has_beta != 0) beta_row_ = beta_in_.DeQue<float>();
    }
    shifted(n, power, m.mean);
    if constexpr (kLayer) adds(work_, work_, -m.rest, n);
    muls(work_, work_, factor, n);
    mul(work_, work_, gamma_row_, n);
    if (kLayer && t_.has_beta != 0) add(work_, work_, beta_row_, n);
    if (chunks_ > 1) free_weights();
    if (t_.has_sum != 0) {
      LocalTensor<X> sum = sum_out_.AllocTensor<X>();
      narrow(sum, h_, n);
      sum_out_.EnQue(sum);
      sum = sum_out_.DeQue<X>();
      copy_out(sum_[static_cast<uint64_t>(row * t_.x_stride + column)], sum, n);
      sum_out_.FreeTensor(sum);
    }
    LocalTensor<Y> out = out_out_.AllocTensor<Y>();
    narrow(out, work_, n);
    out_out_.EnQue(out);
    out = out_out_.DeQue<Y>();
    copy_out(out_[static_cast<uint64_t>(row * t_.out_stride + column)], out, n);
    out_out_.FreeTensor(out);
  }

  TPipe* pipe_;
  NormTiling t_;
  int32_t chunks_;
  GlobalTensor<X> x_, residual_, sum_;
  GlobalTensor<Y> out_;
  GlobalTensor<float> gamma_, beta_;
  TQue<TPosition::VECIN, 1> x_in_, residual_in_, gamma_in_, beta_in_;
  TQue<TPosition::VECOUT, 1> out_out_, sum_out_;
  TBuf<TPosition::VECCALC> h_buffer_, work_buffer_, partial_buffer_, scalar_buffer_;
  LocalTensor<float> h_, work_, partial_, scalar_, gamma_row_, beta_row_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_NORM_ENTRY(kind, is_layer, x_name, X, y_name, Y)                                                          \
  extern "C" __global__ __aicore__ void gatun_norm_##kind##_##x_name##_##y_name(                                        \
      GM_ADDR x, GM_ADDR residual, GM_ADDR gamma, GM_ADDR beta, GM_ADDR out, GM_ADDR sum, GM_ADDR tiling) {             \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                     \
    AscendC::TPipe pipe;                                                                                                \
    gatun::ascend::NormRows<is_layer, X, Y> rows;                                                                       \
    rows.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::NormTiling>(tiling), x, residual, gamma, beta, out, sum); \
    rows.run();                                                                                                         \
  }

GATUN_NORM_ENTRY(layer, true, f32, float, f32, float)
GATUN_NORM_ENTRY(layer, true, f32, float, bf16, bfloat16_t)
GATUN_NORM_ENTRY(layer, true, bf16, bfloat16_t, f32, float)
GATUN_NORM_ENTRY(layer, true, bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_NORM_ENTRY(rms, false, f32, float, f32, float)
GATUN_NORM_ENTRY(rms, false, f32, float, bf16, bfloat16_t)
GATUN_NORM_ENTRY(rms, false, bf16, bfloat16_t, f32, float)
GATUN_NORM_ENTRY(rms, false, bf16, bfloat16_t, bf16, bfloat16_t)
