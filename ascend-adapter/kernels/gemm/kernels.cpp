// Matrix products: out = activation(a b^T + addend + bias) + residual, a [m, k], b [n, k], of BF16, F16 or S8, for cube and vector
// cores. With groups, each run of rows has a matrix, a bias, and for S8 scales and sums of its own.
//
// FLOPs: 2 m n k. Bytes: a tile of 128 x 128 reads (128 + 128) k elements, so a and b cross into L1 n/128 and m/128 times. A
// step of 32 KiB each does 2^21 (S8: 2^22) multiply-adds; the L2 cache and then memory bind small k and m, the cube unit the
// rest.
//
// The cube core has two of every buffer: while the cube unit works on one step, the next lies in L0 and the one after it is on
// its way to L1. Architecture 2201 has no way from L0C to a vector core, so sums go through global memory, two tiles of it per
// block, which stay in the L2 cache. There the two vector cores take half of the rows each, 32 at a time.
//
// Elements of more bits than BF16 has come as terms of it, which the kernels of rows make: the products of terms that matter
// are summed one after the other, the least first. Without k there are no sums.
//
// FP8 weights are numbers of BF16 here, with a scale for each column.
//
// S8: a holds q - 128, q being Gatun's unsigned rows, so that sum((q - z) w) = sum(a w) - (z - 128) sum(w), exactly in 32 bits.
#include "kernels/activation/functions.h"
#include "kernels/gemm/tiling.h"

namespace gatun::ascend {
namespace {

using AscendC::CrossCoreSetFlag;
using AscendC::CrossCoreWaitFlag;
using AscendC::PipeBarrier;
using AscendC::SetFlag;
using AscendC::WaitFlag;

// Flags between the cube core and its vector cores: a tile of sums is there, and has been read.
constexpr uint16_t kReady = 0, kFree = 1;

// The tiles of out, in the order of groups, rows and columns. Groups begin and end where `offsets` say, of which nothing was checked
// before: a group ends no earlier than it begins, and begins no earlier than the one before it ends.
class Tiles {
 public:
  int64_t row, column, group = -1;
  int32_t m, n;

  __aicore__ inline Tiles(const GemmTiling& t, GM_ADDR offsets) : t_(t), offsets_(global<int64_t>(offsets)) {}

  // Goes to tile i, which is no earlier than the last. False where there is none.
  __aicore__ inline bool find(int64_t i) {
    while (i >= first_ + count_) {
      if (++group >= most(t_.groups, 1)) return false;
      first_ += count_;
      const uint64_t at = static_cast<uint64_t>(group);
      begin_ = t_.groups == 0 ? 0 : between(end_, offsets_.GetValue(at), t_.m);
      end_ = t_.groups == 0 ? t_.m : between(begin_, offsets_.GetValue(at + 1), t_.m);
      count_ = (end_ - begin_ + kGemmM - 1) / kGemmM * t_.n_tiles;
    }
    row = begin_ + (i - first_) / t_.n_tiles * kGemmM;
    column = (i - first_) % t_.n_tiles * kGemmN;
    m = static_cast<int32_t>(least(end_ - row, kGemmM));
    n = static_cast<int32_t>(least(t_.n - column, kGemmN));
    return true;
  }

  // Where the columns begin in what each group has n of.
  __aicore__ inline int64_t of_group() const { return group * t_.n + column; }

 private:
  const GemmTiling& t_;
  GlobalTensor<int64_t> offsets_;
  int64_t first_ = 0, count_ = 0, begin_ = 0, end_ = 0;
};

// ---- The cube core.
template <typename T, typename Sum>
class Products {
  static constexpr int32_t kLine = 32 / sizeof(T), kFractal = 16 * kLine;
  static constexpr int32_t kStep = kGemmStepBytes / sizeof(T);
  static constexpr uint32_t kTileBytes = kGemmM * kGemmStepBytes, kSumBytes = kGemmM * kGemmN * 4;

 public:
  __aicore__ inline Products(TPipe* pipe, const GemmTiling& tiling, GM_ADDR a, GM_ADDR b, GM_ADDR offsets, GM_ADDR workspace)
      : t_(tiling), tile_(t_, offsets) {
    a_ = global<T>(a);
    b_ = global<T>(b);
    sums_ = global<Sum>(workspace);
    pipe->InitBuffer(l1_a_, 2 * kTileBytes);
    pipe->InitBuffer(l1_b_, 2 * kTileBytes);
    pipe->InitBuffer(l0_a_, 2 * kTileBytes);
    pipe->InitBuffer(l0_b_, 2 * kTileBytes);
    pipe->InitBuffer(l0_c_, 2 * kSumBytes);
  }

  __aicore__ inline void run() {
    if (t_.k == 0) return;
    // Every buffer is free, and at the end is so again. "Orders nothing" are words that the test looks for.
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::MTE1_MTE2>(i);  // orders nothing
      SetFlag<HardEvent::M_MTE1>(i);     // orders nothing
      SetFlag<HardEvent::FIX_M>(i);      // orders nothing
    }
    const int64_t block = AscendC::GetBlockIdx();
    int32_t step = 0, count = 0;
    for (int64_t i = block; tile_.find(i); i += AscendC::GetBlockNum(), ++count) {
      const int32_t slot = count % 2;
      const LocalTensor<Sum> sum = l0_c_.Get<Sum>()[static_cast<uint32_t>(slot * kGemmM * kGemmN)];
      WaitFlag<HardEvent::FIX_M>(slot);
      bool first = true;
      for (int32_t term = t_.a_terms * t_.b_terms - 1; term >= 0; --term) {
        const int32_t of_a = term % t_.a_terms, of_b = term / t_.a_terms;
        if (of_a + of_b >= kGemmTerms) continue;
        for (int64_t k = 0; k < t_.k; k += kStep, ++step, first = false)
          multiply(of_a * t_.a_term + k, of_b * t_.b_term + k, t_.k - k, first, step % 2, sum);
      }
      SetFlag<HardEvent::M_FIX>(slot);
      WaitFlag<HardEvent::M_FIX>(slot);
      if (count >= 2) CrossCoreWaitFlag<2, PIPE_FIX>(kFree);
      const uint16_t rows = static_cast<uint16_t>((tile_.m + 15) / 16 * 16);
      AscendC::Fixpipe(
          sums_[static_cast<uint64_t>((block * 2 + slot) * kGemmM * kGemmN)], sum,
          AscendC::FixpipeParamsV220(static_cast<uint16_t>(tile_.n), static_cast<uint16_t>(tile_.m), rows, kGemmN, false));
      SetFlag<HardEvent::FIX_M>(slot);
      CrossCoreSetFlag<2, PIPE_FIX>(kReady);
    }
    for (int32_t i = 0; i < count && i < 2; ++i) CrossCoreWaitFlag<2, PIPE_FIX>(kFree);  // orders nothing
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::MTE1_MTE2>(i);  // orders nothing
      WaitFlag<HardEvent::M_MTE1>(i);     // orders nothing
      WaitFlag<HardEvent::FIX_M>(i);      // orders nothing
    }
  }

 private:
  // Rows of k as NZ in L1: `rows` a multiple of 16, of which `count` are there. What lies in the others reaches sums that
  // nobody takes.
  __aicore__ inline void load(const LocalTensor<T>& to, const GlobalTensor<T>& from, int32_t count, int32_t rows, int32_t width,
                              int64_t stride) {
    AscendC::DataCopy(to, from,
                      AscendC::Nd2NzParams(1, static_cast<uint16_t>(count), static_cast<uint16_t>(width), 0,
                                           static_cast<uint16_t>(stride), static_cast<uint16_t>(rows), 1, 0));
  }

  // A step of what is left of k, from elements a_at and b_at of rows on.
  __aicore__ inline void multiply(int64_t a_at, int64_t b_at, int64_t left, bool first, int32_t slot, const LocalTensor<Sum>& sum) {
    const int32_t width = static_cast<int32_t>(least(left, kStep)), lines = (width + kLine - 1) / kLine;
    const int32_t m1 = (tile_.m + 15) / 16, n1 = (tile_.n + 15) / 16;
    const uint32_t at = static_cast<uint32_t>(slot * kGemmM * kStep);
    const LocalTensor<T> a1 = l1_a_.Get<T>()[at], b1 = l1_b_.Get<T>()[at];
    const LocalTensor<T> a0 = l0_a_.Get<T>()[at], b0 = l0_b_.Get<T>()[at];

    WaitFlag<HardEvent::MTE1_MTE2>(slot);
    load(a1, a_[static_cast<uint64_t>(tile_.row * t_.a_stride + a_at)], tile_.m, m1 * 16, width, t_.a_stride);
    load(b1, b_[static_cast<uint64_t>(tile_.of_group() * t_.b_stride + b_at)], tile_.n, n1 * 16, width, t_.b_stride);
    SetFlag<HardEvent::MTE2_MTE1>(slot);

    WaitFlag<HardEvent::MTE2_MTE1>(slot);
    WaitFlag<HardEvent::M_MTE1>(slot);
    // A: a row of fractals at a time, from columns to rows. B: its fractals lie as they are wanted.
    for (int32_t i = 0; i < m1; ++i) {
      AscendC::LoadData(a0[static_cast<uint32_t>(i * lines * kFractal)], a1[static_cast<uint32_t>(i * kFractal)],
                        AscendC::LoadData2DParams(0, static_cast<uint8_t>(lines), static_cast<uint16_t>(m1), 0, 0, false, 0));
    }
    AscendC::LoadData(b0, b1, AscendC::LoadData2DParams(0, static_cast<uint8_t>(lines * n1), 1, 0, 0, false, 0));
    SetFlag<HardEvent::MTE1_MTE2>(slot);
    SetFlag<HardEvent::MTE1_M>(slot);

    WaitFlag<HardEvent::MTE1_M>(slot);
    // A single row would be a product of a vector, for which A lies otherwise: whole fractals of rows.
    AscendC::Mmad(sum, a0, b0,
                  AscendC::MmadParams(static_cast<uint16_t>(m1 * 16), static_cast<uint16_t>(tile_.n),
                                      static_cast<uint16_t>(width), 0, false, first));
    PipeBarrier<PIPE_M>();
    SetFlag<HardEvent::M_MTE1>(slot);
  }

  const GemmTiling t_;
  Tiles tile_;
  GlobalTensor<T> a_, b_;
  GlobalTensor<Sum> sums_;
  TBuf<TPosition::A1> l1_a_;
  TBuf<TPosition::B1> l1_b_;
  TBuf<TPosition::A2> l0_a_;
  TBuf<TPosition::B2> l0_b_;
  TBuf<TPosition::CO1> l0_c_;
};

// ---- The vector cores.
struct Columns {
  GM_ADDR bias;
  GM_ADDR scales;
  GM_ADDR sums;
};
struct Rows {
  GM_ADDR scales;
  GM_ADDR zeros;
  GM_ADDR index;
};

template <typename Sum, typename Out>
class Finish {
  static constexpr bool kInt8 = std::is_same<Sum, int32_t>::value;
  static constexpr int32_t kRows = 32, kElements = kRows * kGemmN;
  static constexpr uint32_t kBias = 0, kScale = kGemmN, kSum = 2 * kGemmN;  // in what is kept of a tile's columns

 public:
  __aicore__ inline Finish(TPipe* pipe, const GemmTiling& tiling, const Columns& columns, const Rows& rows, GM_ADDR addend,
                           GM_ADDR residual, GM_ADDR out, GM_ADDR offsets, GM_ADDR workspace)
      : t_(tiling), tile_(t_, offsets) {
    bias_ = global<float>(columns.bias);
    column_scales_ = global<float>(columns.scales);
    column_sums_ = global<float>(columns.sums);
    row_scales_ = global<float>(rows.scales);
    row_zeros_ = global<int32_t>(rows.zeros);
    row_index_ = global<int32_t>(rows.index);
    addend_ = global<float>(addend);
    residual_ = global<Out>(residual);
    out_ = global<Out>(out);
    sums_ = global<Sum>(workspace);
    pipe->InitBuffer(sums_in_, 2, kElements * sizeof(Sum));
    pipe->InitBuffer(columns_in_, 1, 3 * kGemmN * sizeof(float));
    pipe->InitBuffer(residual_in_, 2, kElements * sizeof(Out));
    pipe->InitBuffer(out_out_, 2, kElements * sizeof(Out));
    pipe->InitBuffer(value_buffer_, kElements * sizeof(float));
    pipe->InitBuffer(scratch_buffer_, kElements * kActivationScratch * sizeof(float));
    value_ = value_buffer_.Get<float>();
    scratch_ = scratch_buffer_.Get<float>();
  }

  __aicore__ inline void run() {
    const int64_t block = AscendC::GetBlockIdx() / 2, sub = AscendC::GetSubBlockIdx();
    const bool has_columns = t_.has_bias != 0 || t_.has_scales != 0 || kInt8;
    int32_t count = 0;
    for (int64_t i = block; tile_.find(i); i += AscendC::GetBlockNum(), ++count) {
      const int32_t share = (tile_.m + 1) / 2;
      const int32_t first = sub == 0 ? 0 : share, end = sub == 0 ? share : tile_.m;
      const int64_t slot = (block * 2 + count % 2) * kGemmM * kGemmN;
      if (has_columns && first < end) fetch_columns();
      if (t_.k != 0) CrossCoreWaitFlag<2, PIPE_MTE2>(kReady);
      LocalTensor<float> columns;
      if (has_columns && first < end) columns = columns_in_.DeQue<float>();
      for (int32_t row = first; row < end; row += kRows) {
        const int32_t rows = static_cast<int32_t>(least(end - row, kRows));
        if (t_.k != 0) {
          LocalTensor<Sum> sums = sums_in_.AllocTensor<Sum>();
          AscendC::DataCopy(sums, sums_[static_cast<uint64_t>(slot + row * kGemmN)], static_cast<uint32_t>(rows * kGemmN));
          sums_in_.EnQue(sums);
        }
        finish(row, rows, columns);
      }
      if (t_.k != 0) CrossCoreSetFlag<2, PIPE_MTE2>(kFree);
      if (has_columns && first < end) columns_in_.FreeTensor(columns);
    }
  }

 private:
  __aicore__ inline void fetch_columns() {
    LocalTensor<float> columns = columns_in_.AllocTensor<float>();
    const uint64_t at = static_cast<uint64_t>(tile_.of_group());
    if (t_.has_bias != 0) copy_in(columns[kBias], bias_[at], tile_.n);
    if (t_.has_scales != 0 || kInt8) copy_in(columns[kScale], column_scales_[at], tile_.n);
    if (kInt8) copy_in(columns[kSum], column_sums_[at], tile_.n);
    columns_in_.EnQue(columns);
  }

  // Where run i of the elements that there are begins: all rows are one where the tile is as wide as they are.
  __aicore__ inline uint32_t run_at(int32_t i) const { return static_cast<uint32_t>(i * kGemmN); }

  // Where the numbers of a row lie: with an index those of the nearest row to what it says.
  __aicore__ inline uint64_t number_of(int64_t row) const {
    if (t_.has_index == 0) return static_cast<uint64_t>(row);
    return static_cast<uint64_t>(between(0, row_index_.GetValue(static_cast<uint64_t>(row)), t_.rows_x - 1));
  }

  // Sums of S8: value = float(sum - (zero - 128) * column sum) * (row scale * column scale).
  __aicore__ inline void scale(int32_t row, int32_t rows, const LocalTensor<int32_t>& sums,
                               const LocalTensor<float>& columns) {
    const LocalTensor<int32_t> column_sums = columns[kSum].template ReinterpretCast<int32_t>();
    const LocalTensor<int32_t> products = scratch_.template ReinterpretCast<int32_t>();
    const LocalTensor<float> scales = scratch_[kElements];
    for (int32_t r = 0; r < rows; ++r) {
      const uint32_t at = static_cast<uint32_t>(r * kGemmN);
      const uint64_t from = number_of(tile_.row + row + r);
      AscendC::Muls(products[at], column_sums, row_zeros_.GetValue(from) - 128, tile_.n);
      AscendC::Muls(scales[at], columns[kScale], row_scales_.GetValue(from), tile_.n);
    }
    PipeBarrier<PIPE_V>();
    for (int32_t i = 0; i < runs_; ++i) AscendC::Sub(sums[run_at(i)], sums[run_at(i)], products[run_at(i)], length_);
    PipeBarrier<PIPE_V>();
    for (int32_t i = 0; i < runs_; ++i)
      AscendC::Cast(value_[run_at(i)], sums[run_at(i)], RoundMode::CAST_RINT, static_cast<uint32_t>(length_));
    PipeBarrier<PIPE_V>();
    for (int32_t i = 0; i < runs_; ++i) AscendC::Mul(value_[run_at(i)], value_[run_at(i)], scales[run_at(i)], length_);
    PipeBarrier<PIPE_V>();
  }
  __aicore__ inline void scale(int32_t, int32_t rows, const LocalTensor<float>& sums,
                               const LocalTensor<float>& columns) {
    if (t_.has_scales != 0) {
      by_column([&](uint32_t c, uint64_t lanes) {
        AscendC::Mul(value_[c], sums[c], columns[kScale + c], lanes, static_cast<uint8_t>(rows),
                     AscendC::BinaryRepeatParams(1, 1, 1, 16, 16, 0));
      });
      return;
    }
    for (int32_t i = 0; i < runs_; ++i) AscendC::Muls(value_[run_at(i)], sums[run_at(i)], 1.0f, length_);
    PipeBarrier<PIPE_V>();
  }

  // A column's number for all rows: half of a row a repetition, the number staying where it is.
  template <typename F>
  __aicore__ inline void by_column(F f) {
    for (int32_t c = 0; c < tile_.n; c += 64) f(static_cast<uint32_t>(c), static_cast<uint64_t>(least(tile_.n - c, 64)));
    PipeBarrier<PIPE_V>();
  }

  // The buffers of sums, of which one is free, have room for what is added.
  __aicore__ inline void add_product(int32_t row, int32_t rows) {
    LocalTensor<float> addend = sums_in_.template AllocTensor<float>();
    const uint32_t bytes = static_cast<uint32_t>(tile_.n) * sizeof(float), gap = static_cast<uint32_t>(t_.n - tile_.n) * 4;
    AscendC::DataCopyPad(
        addend, addend_[static_cast<uint64_t>((tile_.row + row) * t_.n + tile_.column)],
        AscendC::DataCopyExtParams(static_cast<uint16_t>(rows), bytes, gap, kGemmN * 4 / 32 - (bytes + 31) / 32, 0),
        AscendC::DataCopyPadExtParams<float>(false, 0, 0, 0.0f));
    sums_in_.EnQue(addend);
    addend = sums_in_.template DeQue<float>();
    for (int32_t i = 0; i < runs_; ++i) AscendC::Add(value_[run_at(i)], value_[run_at(i)], addend[run_at(i)], length_);
    PipeBarrier<PIPE_V>();
    sums_in_.FreeTensor(addend);
  }

  __aicore__ inline void finish(int32_t row, int32_t rows, const LocalTensor<float>& columns) {
    const uint64_t at = static_cast<uint64_t>((tile_.row + row) * t_.out_stride + tile_.column);
    const uint32_t bytes = static_cast<uint32_t>(tile_.n) * sizeof(Out), blocks = (bytes + 31) / 32;
    const uint32_t gap = static_cast<uint32_t>(t_.out_stride - tile_.n) * sizeof(Out),
                   ub_gap = kGemmN * sizeof(Out) / 32 - blocks;
    if (t_.has_residual != 0) {
      LocalTensor<Out> residual = residual_in_.AllocTensor<Out>();
      AscendC::DataCopyPad(residual, residual_[at],
                           AscendC::DataCopyExtParams(static_cast<uint16_t>(rows), bytes, gap, ub_gap, 0),
                           AscendC::DataCopyPadExtParams<Out>(false, 0, 0, Out()));
      residual_in_.EnQue(residual);
    }
    runs_ = tile_.n == kGemmN ? 1 : rows;
    length_ = tile_.n == kGemmN ? rows * kGemmN : tile_.n;
    if (t_.k != 0) {
      LocalTensor<Sum> sums = sums_in_.DeQue<Sum>();
      scale(row, rows, sums, columns);
      sums_in_.FreeTensor(sums);
    } else {
      fill(value_, 0.0f, kElements);
    }
    if (t_.has_addend != 0) add_product(row, rows);
    if (t_.has_bias != 0) {
      by_column([&](uint32_t c, uint64_t lanes) {
        AscendC::Add(value_[c], value_[c], columns[kBias + c], lanes, static_cast<uint8_t>(rows),
                     AscendC::BinaryRepeatParams(1, 1, 1, 16, 16, 0));
      });
    }
    for (int32_t i = 0; i < runs_; ++i) activate(t_.activation, value_[run_at(i)], scratch_, kElements, length_);
    if (t_.has_residual != 0) {
      LocalTensor<Out> residual = residual_in_.DeQue<Out>();
      for (int32_t i = 0; i < runs_; ++i) widen(scratch_[run_at(i)], residual[run_at(i)], length_);
      residual_in_.FreeTensor(residual);
      for (int32_t i = 0; i < runs_; ++i) AscendC::Add(value_[run_at(i)], value_[run_at(i)], scratch_[run_at(i)], length_);
      PipeBarrier<PIPE_V>();
    }
    LocalTensor<Out> out = out_out_.AllocTensor<Out>();
    for (int32_t i = 0; i < runs_; ++i) narrow(out[run_at(i)], value_[run_at(i)], length_);
    out_out_.EnQue(out);
    out = out_out_.DeQue<Out>();
    AscendC::DataCopyPad(out_[at], out, AscendC::DataCopyExtParams(static_cast<uint16_t>(rows), bytes, ub_gap, gap, 0));
    out_out_.FreeTensor(out);
  }

  const GemmTiling t_;
  Tiles tile_;
  GlobalTensor<float> bias_, column_scales_, column_sums_, row_scales_, addend_;
  GlobalTensor<int32_t> row_zeros_, row_index_;
  GlobalTensor<Out> residual_, out_;
  GlobalTensor<Sum> sums_;
  TQue<TPosition::VECIN, 1> sums_in_, columns_in_, residual_in_;
  TQue<TPosition::VECOUT, 1> out_out_;
  TBuf<TPosition::VECCALC> value_buffer_, scratch_buffer_;
  LocalTensor<float> value_, scratch_;
  int32_t runs_ = 0, length_ = 0;  // of the rows at hand
};

}  // namespace
}  // namespace gatun::ascend

// column_sums (int32), the zero points and the scales of rows are of S8 alone, the scales of columns of FP8 too.
#define GATUN_GEMM_ENTRY(name, T, Sum, Out)                                                                                 \
  extern "C" __global__ __aicore__ void gatun_gemm_##name(                                                                  \
      GM_ADDR a, GM_ADDR b, GM_ADDR offsets, GM_ADDR addend, GM_ADDR bias, GM_ADDR residual, GM_ADDR row_scales,            \
      GM_ADDR row_zeros, GM_ADDR row_index, GM_ADDR column_scales, GM_ADDR column_sums, GM_ADDR out, GM_ADDR workspace, GM_ADDR tiling) {      \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                                      \
    AscendC::TPipe pipe;                                                                                                    \
    const gatun::ascend::GemmTiling t = gatun::ascend::read_tiling<gatun::ascend::GemmTiling>(tiling);                      \
    if (ASCEND_IS_AIC) {                                                                                                    \
      gatun::ascend::Products<T, Sum> products(&pipe, t, a, b, offsets, workspace);                                         \
      products.run();                                                                                                       \
    } else {                                                                                                                \
      gatun::ascend::Finish<Sum, Out> finish(&pipe, t, {bias, column_scales, column_sums}, {row_scales, row_zeros, row_index}, addend, \
                                             residual, out, offsets, workspace);                                            \
      finish.run();                                                                                                         \
    }                                                                                                                       \
  }

GATUN_GEMM_ENTRY(bf16_f32, bfloat16_t, float, float)
GATUN_GEMM_ENTRY(bf16_bf16, bfloat16_t, float, bfloat16_t)
GATUN_GEMM_ENTRY(bf16_f16, bfloat16_t, float, half)
GATUN_GEMM_ENTRY(f16_f32, half, float, float)
GATUN_GEMM_ENTRY(f16_bf16, half, float, bfloat16_t)
GATUN_GEMM_ENTRY(f16_f16, half, float, half)
GATUN_GEMM_ENTRY(s8_f32, int8_t, int32_t, float)
GATUN_GEMM_ENTRY(s8_bf16, int8_t, int32_t, bfloat16_t)
GATUN_GEMM_ENTRY(s8_f16, int8_t, int32_t, half)
