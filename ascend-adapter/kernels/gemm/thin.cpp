// Products of FP32 on the vector cores, out = scale a b with a [m, k] and b [k, n]: the two of a low-rank product (Hu et al. 2021,
// LoRA), of which one side is thin and whose operands are not to be rounded.
//
// FLOPs: 2 m n k, at 64 multiplications and then 64 additions for two instructions. Bytes: b once for each 8 rows, from the L2
// cache. What binds it: the vector unit. With a rank of 16 both products take 32 m (k + n) FLOPs, beside 2 m n k on the cube unit.
//
// A vector core takes every tile of its number modulo theirs. An element of a is a scalar for a row of b: 32 of each row of a are
// brought to FP32, then the rows of b that meet them are added one after the other to the 8 rows of sums.
#include "kernels/gemm/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

template <typename X>
class ThinProduct {
  static constexpr uint32_t kLineX = 32 / sizeof(X);
  static_assert(kThinDepth % kLineX == 0 && kThinColumns % 8 == 0);

 public:
  __aicore__ inline ThinProduct(TPipe* pipe, const ThinTiling& tiling, GM_ADDR a, GM_ADDR b, GM_ADDR out)
      : pipe_(pipe), t_(tiling), a_(global<X>(a)), b_(global<float>(b)), out_(global<float>(out)) {
    pipe->InitBuffer(a_in_, 2, kThinRows * kThinDepth * sizeof(X));
    pipe->InitBuffer(b_in_, 2, kThinDepth * kThinColumns * sizeof(float));
    pipe->InitBuffer(out_out_, 2, kThinRows * kThinColumns * sizeof(float));
    pipe->InitBuffer(factor_buffer_, kThinRows * kThinDepth * sizeof(float));
    pipe->InitBuffer(sum_buffer_, kThinRows * kThinColumns * sizeof(float));
    pipe->InitBuffer(product_buffer_, kThinRows * kThinColumns * sizeof(float));
    factors_ = factor_buffer_.template Get<float>();
    sums_ = sum_buffer_.template Get<float>();
    products_ = product_buffer_.template Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t across = (t_.n + kThinColumns - 1) / kThinColumns, tiles = (t_.m + kThinRows - 1) / kThinRows * across;
    fill(factors_, 0.0f, kThinRows * kThinDepth);
    fill(products_, 0.0f, kThinRows * kThinColumns);
    for (int64_t i = AscendC::GetBlockIdx(); i < tiles; i += AscendC::GetBlockNum()) {
      row_ = i / across * kThinRows;
      column_ = i % across * kThinColumns;
      m_ = static_cast<int32_t>(least(t_.m - row_, kThinRows));
      n_ = static_cast<int32_t>(least(t_.n - column_, kThinColumns));
      pitch_ = (n_ + 63) / 64 * 64;
      fill(sums_, 0.0f, kThinRows * kThinColumns);
      fetch(0);
      for (int64_t k = 0; k < t_.k; k += kThinDepth) add_products(k);
      write();
    }
  }

 private:
  __aicore__ inline int32_t depth(int64_t k) const { return static_cast<int32_t>(least(t_.k - k, kThinDepth)); }

  __aicore__ inline void fetch(int64_t k) {
    // The scalar unit has waited for what became of the rows of a that lay here, and the rows of b follow those of a: what queues
    // order of a is ordered already.
    LocalTensor<X> a = a_in_.template AllocTensor<X>();  // orders nothing
    for (int32_t r = 0; r < m_; ++r)
      copy_in(a[static_cast<uint32_t>(r * kThinDepth)], a_[static_cast<uint64_t>((row_ + r) * t_.a_stride + k)], depth(k));
    a_in_.EnQue(a);  // orders nothing
    LocalTensor<float> b = b_in_.template AllocTensor<float>();
    const uint32_t bytes = static_cast<uint32_t>(n_) * 4, gap = static_cast<uint32_t>(pitch_) * 4 / 32 - (bytes + 31) / 32;
    AscendC::DataCopyPad(b, b_[static_cast<uint64_t>(k * t_.b_stride + column_)],
                         AscendC::DataCopyExtParams(static_cast<uint16_t>(depth(k)), bytes,
                                                    static_cast<uint32_t>(t_.b_stride - n_) * 4,
                                                    gap, 0),
                         AscendC::DataCopyPadExtParams<float>(false, 0, 0, 0.0f));
    b_in_.EnQue(b);
  }

  // sums += a b over the step of k that was fetched last; the next one is fetched meanwhile.
  __aicore__ inline void add_products(int64_t k) {
    LocalTensor<X> a = a_in_.template DeQue<X>();  // orders nothing
    LocalTensor<float> b = b_in_.template DeQue<float>();
    if (k + kThinDepth < t_.k) fetch(k + kThinDepth);
    for (int32_t r = 0; r < m_; ++r) {
      const uint32_t at = static_cast<uint32_t>(r * kThinDepth);
      widen(factors_[at], a[at], depth(k));
    }
    a_in_.FreeTensor(a);  // orders nothing
    scalar_of(pipe_, factors_);
    for (int32_t i = 0; i < depth(k); ++i) {
      const LocalTensor<float> row = b[static_cast<uint32_t>(i * pitch_)];
      for (int32_t r = 0; r < m_; ++r) {
        const float factor = factors_.GetValue(static_cast<uint32_t>(r * kThinDepth + i));
        AscendC::Muls(products_[static_cast<uint32_t>(r * pitch_)], row, factor, n_);
      }
      AscendC::PipeBarrier<PIPE_V>();
      add(sums_, sums_, products_, m_ * pitch_);
    }
    b_in_.FreeTensor(b);
  }

  __aicore__ inline void write() {
    LocalTensor<float> out = out_out_.template AllocTensor<float>();
    muls(out, sums_, t_.scale, m_ * pitch_);
    out_out_.EnQue(out);
    out = out_out_.template DeQue<float>();
    const uint32_t bytes = static_cast<uint32_t>(n_) * 4, gap = static_cast<uint32_t>(pitch_) * 4 / 32 - (bytes + 31) / 32;
    AscendC::DataCopyPad(out_[static_cast<uint64_t>(row_ * t_.out_stride + column_)], out,
                         AscendC::DataCopyExtParams(static_cast<uint16_t>(m_), bytes,
                                                    gap,
                                                    static_cast<uint32_t>(t_.out_stride - n_) * 4, 0));
    out_out_.FreeTensor(out);
  }

  TPipe* pipe_;
  const ThinTiling t_;
  int64_t row_ = 0, column_ = 0;
  int32_t m_ = 0, n_ = 0, pitch_ = 0;  // of the tile at hand
  GlobalTensor<X> a_;
  GlobalTensor<float> b_, out_;
  TQue<TPosition::VECIN, 1> a_in_, b_in_;
  TQue<TPosition::VECOUT, 1> out_out_;
  TBuf<TPosition::VECCALC> factor_buffer_, sum_buffer_, product_buffer_;
  LocalTensor<float> factors_, sums_, products_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_THIN_ENTRY(name, X)                                                                                    \
  extern "C" __global__ __aicore__ void gatun_thin_##name(GM_ADDR a, GM_ADDR b, GM_ADDR out, GM_ADDR tiling) {       \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                  \
    AscendC::TPipe pipe;                                                                                             \
    gatun::ascend::ThinProduct<X> product(&pipe, gatun::ascend::read_tiling<gatun::ascend::ThinTiling>(tiling), a, b, \
                                          out);                                                                      \
    product.run();                                                                                                   \
  }

GATUN_THIN_ENTRY(f32, float)
GATUN_THIN_ENTRY(bf16, bfloat16_t)
GATUN_THIN_ENTRY(f16, half)
