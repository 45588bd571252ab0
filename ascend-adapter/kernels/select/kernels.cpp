// Selection of blocks of keys by their importance, and what all selection ends with: lists put one after the other.
//
//   pool_c = mean of the keys of block c, or their greatest elements and after those the least
//   weight of block c for a query = softmax over the blocks that it reaches of scale * q.pool_c
//   importance of block c = sum of its weights over the queries of a block and the heads of the list
//
// Bytes: keys are read once; pooled keys come from the L2 cache, once for each 8 rows of queries. FLOPs: 2 dk for each query, head
// and block (bounds: 4 dk) and some 20 for its softmax. What binds it: the vector unit, 3 instructions for 64 products each, 5 with
// bounds. Yuan et al. 2025, Native Sparse Attention (section 3.3.2); bounds: Tang et al. 2024, Quest (section 3.3).
#include "kernels/select/rows.h"

namespace gatun::ascend {
namespace {

constexpr float kLess = -1.0f, kTaken = -2.0f;  // than any importance; a block that has its place

template <typename X>
class PoolKeys {
 public:
  __aicore__ inline PoolKeys(TPipe* pipe, const SelectTiling& t, GM_ADDR k, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR pools)
      : t_(t), k_(global<X>(k)), q_index_(global<int64_t>(q_index)), k_index_(global<int64_t>(k_index)), pools_(global<float>(pools)) {
    const uint32_t row = static_cast<uint32_t>(t.pitch);
    pipe->InitBuffer(k_in_, 2, row * sizeof(X));
    pipe->InitBuffer(pool_out_, 2, 2 * row * sizeof(float));
    pipe->InitBuffer(buffer_, 3 * row * sizeof(float));
    row_ = buffer_.template Get<float>();
    sum_ = row_[row];
    less_ = row_[2 * row];
  }

  __aicore__ inline void run() {
    const int64_t all = t_.sequences * t_.heads_k * t_.blocks;
    for (int64_t i = AscendC::GetBlockIdx(); i < all; i += AscendC::GetBlockNum()) {
      const int64_t block = i % t_.blocks, head = i / t_.blocks % t_.heads_k, s = i / t_.blocks / t_.heads_k;
      const SelectSequence of(t_, q_index_, k_index_, s);
      const int64_t first = block * t_.block_k, keys = least(t_.block_k, of.len_k - first);
      if (keys > 0) pool(select_k_at(t_, of, s, head, first), keys, i);
    }
  }

 private:
  __aicore__ inline void fetch(int64_t at) {
    LocalTensor<X> k = k_in_.template AllocTensor<X>();
    copy_in(k, k_[static_cast<uint64_t>(at)], static_cast<int32_t>(t_.dk));
    k_in_.EnQue(k);
  }

  __aicore__ inline void pool(int64_t at, int64_t keys, int64_t to) {
    const int32_t n = static_cast<int32_t>(t_.dk), pitch = static_cast<int32_t>(t_.pitch);
    fill(sum_, t_.bounds != 0 ? -float_of(0x7f800000u) : 0.0f, n);
    fill(less_, float_of(0x7f800000u), n);
    fetch(at);
    for (int64_t j = 0; j < keys; ++j) {
      LocalTensor<X> k = k_in_.template DeQue<X>();
      if (j + 1 < keys) fetch(at + (j + 1) * t_.k_row);
      widen(row_, k, n);
      k_in_.FreeTensor(k);
      if (t_.bounds != 0) {
        AscendC::Max(sum_, sum_, row_, n);
        AscendC::Min(less_, less_, row_, n);
        AscendC::PipeBarrier<PIPE_V>();
      } else {
        add(sum_, sum_, row_, n);
      }
    }
    LocalTensor<float> out = pool_out_.template AllocTensor<float>();
    fill(out, 0.0f, 2 * pitch);
    fill(row_, static_cast<float>(keys), n);
    if (t_.bounds != 0) {
      muls(out, sum_, 1.0f, n);
      muls(out[static_cast<uint32_t>(pitch)], less_, 1.0f, n);
    } else {
      div(out, sum_, row_, n);
    }
    pool_out_.EnQue(out);
    out = pool_out_.template DeQue<float>();
    const int64_t rows = t_.bounds != 0 ? 2 : 1;
    copy_out(pools_[static_cast<uint64_t>(to * rows * pitch)], out, static_cast<int32_t>(rows) * pitch);
    pool_out_.FreeTensor(out);
  }

  const SelectTiling t_;
  GlobalTensor<X> k_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<float> pools_;
  TQue<TPosition::VECIN, 1> k_in_;
  TQue<TPosition::VECOUT, 1> pool_out_;
  TBuf<TPosition::VECCALC> buffer_;
  LocalTensor<float> row_, sum_, less_;
};

template <typename X>
class WeighBlocks {
 public:
  __aicore__ inline WeighBlocks(TPipe* pipe, const SelectTiling& t, GM_ADDR q, GM_ADDR q_index, GM_ADDR k_index, GM_ADDR pools,
                                GM_ADDR columns, GM_ADDR counts)
      : pipe_(pipe),
        t_(t),
        products_(pipe, t_),
        lists_(pipe, columns, counts),
        search_(pipe, (most(t.blocks, 1) + 255) / 256 * 256 + 64),
        q_(global<X>(q)),
        q_index_(global<int64_t>(q_index)),
        k_index_(global<int64_t>(k_index)),
        pools_(global<float>(pools)) {
    stride_ = (most(t.blocks, 1) + 255) / 256 * 256;
    pipe->InitBuffer(score_buffer_, static_cast<uint32_t>(most(kSelectProducts, stride_)) * sizeof(float));
    pipe->InitBuffer(importance_buffer_, static_cast<uint32_t>(stride_ + 64) * sizeof(float));
    scores_ = score_buffer_.template Get<float>();
    importance_ = importance_buffer_.template Get<float>();
    rows_ = static_cast<int32_t>(between(1, kSelectProducts / stride_, 8));
  }

  __aicore__ inline void run() {
    const int64_t all = t_.sequences * t_.heads * t_.lists;
    for (int64_t i = AscendC::GetBlockIdx(); i < all; i += AscendC::GetBlockNum()) {
      const int64_t s = i / t_.lists / t_.heads;
      const SelectSequence of(t_, q_index_, k_index_, s);
      const int64_t first_query = i % t_.lists * t_.block_q, end = least(first_query + t_.block_q, of.len_q);
      const int64_t blocks = first_query < end ? of.reached(t_, end - 1) : 0;
      const int64_t first = least(t_.first, blocks), local = least(t_.local, blocks - first), last = blocks - local;
      const int64_t wanted = least(t_.count, blocks) - first - local;
      const bool all_of_them = wanted == last - first;
      if (!all_of_them && wanted > 0) {
        weigh(of, s, i / t_.lists % t_.heads, first_query, end);
        for (int64_t n = 0; n < wanted; ++n) take(first, last);
      }
      lists_.begin();
      for (int64_t b = 0; b < blocks; ++b) {
        const bool taken = b < first || b >= last || all_of_them ||
                           (wanted > 0 && importance_.GetValue(static_cast<uint32_t>(b)) == kTaken);
        if (taken) lists_.add(static_cast<int32_t>(b));
      }
      lists_.end(i, t_.width);
    }
    lists_.close();
  }

 private:
  // A row is a query and one of the query heads of the list.
  __aicore__ inline void weigh(const SelectSequence& of, int64_t s, int64_t head, int64_t first_query, int64_t end) {
    const int64_t group = t_.heads_q / t_.heads, key_head = head * group / (t_.heads_q / t_.heads_k);
    const int64_t pools = (s * t_.heads_k + key_head) * t_.blocks, rows = (end - first_query) * group;
    fill(importance_, 0.0f, static_cast<int32_t>(stride_) + 64);
    for (int64_t r = 0; r < rows; r += rows_) {
      const int32_t some = static_cast<int32_t>(least(rows - r, rows_));
      int64_t furthest = 0;
      for (int32_t i = 0; i < some; ++i) {
        const int64_t query = first_query + (r + i) / group;
        products_.take(i, q_, select_q_at(t_, of, s, head * group + (r + i) % group, query));
        furthest = most(furthest, of.reached(t_, query));
      }
      for (int64_t c = 0; c < furthest; c += products_.some()) {
        const int64_t at = (pools + c) * products_.rows_of_column() * t_.pitch;
        products_.multiply(pools_[static_cast<uint64_t>(at)], least(products_.some(), furthest - c), some,
                           scores_[static_cast<uint32_t>(c)], stride_);
      }
      for (int32_t i = 0; i < some; ++i) {
        const int32_t n = static_cast<int32_t>(of.reached(t_, first_query + (r + i) / group));
        if (n > 0) add_softmax(scores_[static_cast<uint32_t>(i * stride_)], n);
      }
    }
  }

  __aicore__ inline void add_softmax(const LocalTensor<float>& x, int32_t n) {
    muls(x, x, t_.scale, n);
    adds(x, x, -search_.greatest(x, n), n);
    exponential(x, x, n);
    const float sum = search_.sum(x, n);
    muls(x, x, 1.0f / sum, n);
    add(importance_, importance_, x, n);
  }

  // Marks the most important of blocks first to last - 1 that are left, the lower of two equals; where none is a number the
  // lowest that is left.
  __aicore__ inline void take(int64_t first, int64_t last) {
    // Comparisons begin at blocks of 32 bytes: what lies before `first` is never looked for.
    const int64_t from = first / 8 * 8;
    const int32_t n = static_cast<int32_t>(last - from);
    const LocalTensor<float> left = importance_[static_cast<uint32_t>(from)];
    vector_to_scalar(pipe_);
    for (int64_t b = from; b < first; ++b) importance_.SetValue(static_cast<uint32_t>(b), kTaken);
    scalar_to_vector(pipe_);
    const float greatest = search_.greatest(left, n);
    int64_t found = from + search_.first(left, greatest, n);
    if (found == last || greatest < 0.0f) {
      for (found = first; found + 1 < last && importance_.GetValue(static_cast<uint32_t>(found)) == kTaken;) ++found;
    }
    importance_.SetValue(static_cast<uint32_t>(found), kTaken);
    scalar_to_vector(pipe_);
  }

  TPipe* pipe_;
  const SelectTiling t_;
  SelectProducts<X> products_;
  SelectLists lists_;
  SelectSearch search_;
  GlobalTensor<X> q_;
  GlobalTensor<int64_t> q_index_, k_index_;
  GlobalTensor<float> pools_;
  TBuf<TPosition::VECCALC> score_buffer_, importance_buffer_;
  LocalTensor<float> scores_, importance_;
  int64_t stride_;
  int32_t rows_;
};

// The lengths of all lists, added up by one core.
class AddLengths {
 public:
  __aicore__ inline AddLengths(TPipe* pipe, const SelectTiling& t, GM_ADDR counts, GM_ADDR offsets)
      : pipe_(pipe), t_(t), counts_(global<int32_t>(counts)), offsets_(global<int64_t>(offsets)) {
    pipe->InitBuffer(buffer_, kSome * sizeof(int64_t));
    sums_ = buffer_.Get<int64_t>();
  }

  __aicore__ inline void run() {
    const int64_t all = t_.sequences * t_.heads * t_.lists + 1;
    int64_t sum = 0;
    for (int64_t first = 0; first < all; first += kSome) {
      const int32_t some = static_cast<int32_t>(least(all - first, kSome));
      if (first > 0) out_to_scalar(pipe_);
      for (int32_t i = 0; i < some; ++i) {
        if (first + i > 0) sum += counts_.GetValue(static_cast<uint64_t>(first + i - 1));
        sums_.SetValue(static_cast<uint32_t>(i), sum);
      }
      scalar_to_out(pipe_);
      copy_out(offsets_[static_cast<uint64_t>(first)], sums_, some);
    }
  }

 private:
  static constexpr int64_t kSome = 4096;
  TPipe* pipe_;
  const SelectTiling t_;
  GlobalTensor<int32_t> counts_;
  GlobalTensor<int64_t> offsets_;
  TBuf<TPosition::VECCALC> buffer_;
  LocalTensor<int64_t> sums_;
};

// Lists from the workspace to their places. Others may write to the offsets meanwhile: where a list goes is never beyond its room.
class CopyLists {
 public:
  __aicore__ inline CopyLists(TPipe* pipe, const SelectTiling& t, GM_ADDR columns, GM_ADDR counts, GM_ADDR offsets, GM_ADDR to)
      : t_(t),
        columns_(global<int32_t>(columns)),
        counts_(global<int32_t>(counts)),
        to_(global<int32_t>(to)),
        offsets_(global<int64_t>(offsets)) {
    pipe->InitBuffer(through_, 2, kSome * sizeof(int32_t));
  }

  __aicore__ inline void run() {
    const int64_t all = t_.sequences * t_.heads * t_.lists;
    for (int64_t i = AscendC::GetBlockIdx(); i < all; i += AscendC::GetBlockNum()) {
      const int64_t count = counts_.GetValue(static_cast<uint64_t>(i));
      const int64_t place = between(0, offsets_.GetValue(static_cast<uint64_t>(i)), i * t_.width);
      for (int64_t c = 0; c < count; c += kSome) {
        const int32_t some = static_cast<int32_t>(least(count - c, kSome));
        LocalTensor<int32_t> part = through_.AllocTensor<int32_t>();
        copy_in(part, columns_[static_cast<uint64_t>(i * t_.width + c)], some);
        through_.EnQue(part);
        part = through_.DeQue<int32_t>();
        copy_out(to_[static_cast<uint64_t>(place + c)], part, some);
        through_.FreeTensor(part);
      }
    }
  }

 private:
  static constexpr int64_t kSome = 8192;
  const SelectTiling t_;
  GlobalTensor<int32_t> columns_, counts_, to_;
  GlobalTensor<int64_t> offsets_;
  AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> through_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_SELECT_ENTRIES(name, X)                                                                                      \
  extern "C" __global__ __aicore__ void gatun_select_pool_##name(GM_ADDR k, GM_ADDR q_index, GM_ADDR k_index,              \
                                                                 GM_ADDR pools, GM_ADDR tiling) {                          \
    GATUN_SELECT_BEGIN                                                                                                     \
    gatun::ascend::PoolKeys<X> kernel(&pipe, t, k, q_index, k_index, pools);                                               \
    kernel.run();                                                                                                          \
  }                                                                                                                        \
  extern "C" __global__ __aicore__ void gatun_select_weigh_##name(GM_ADDR q, GM_ADDR q_index, GM_ADDR k_index,             \
                                                                  GM_ADDR pools, GM_ADDR columns, GM_ADDR counts,          \
                                                                  GM_ADDR tiling) {                                        \
    GATUN_SELECT_BEGIN                                                                                                     \
    gatun::ascend::WeighBlocks<X> kernel(&pipe, t, q, q_index, k_index, pools, columns, counts);                           \
    kernel.run();                                                                                                          \
  }

GATUN_SELECT_ENTRIES(f32, float)
GATUN_SELECT_ENTRIES(bf16, bfloat16_t)
GATUN_SELECT_ENTRIES(f16, half)

extern "C" __global__ __aicore__ void gatun_select_lengths(GM_ADDR counts, GM_ADDR offsets, GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::AddLengths kernel(&pipe, t, counts, offsets);
  kernel.run();
}
extern "C" __global__ __aicore__ void gatun_select_copy(GM_ADDR columns, GM_ADDR counts, GM_ADDR offsets, GM_ADDR to,
                                                        GM_ADDR tiling) {
  GATUN_SELECT_BEGIN
  gatun::ascend::CopyLists kernel(&pipe, t, columns, counts, offsets, to);
  kernel.run();
}
