// Rotary position embedding, and the append to a cache, of one of q, k and v.
//
//   pair (a, b) at the angle of its position and index: (a cos - b sin, b cos + a sin), in FP32
//   S8: scale = amax / 127, value = rint(x / scale) within -127 to 127, of the FP32 row after the rotation
//
// Bytes: every element is read once and written once, 8 of FP32; a token's row of the table serves all of its heads. FLOPs: 3
// for a rotated element, 4 for a quantized one. What binds it: memory, and for short heads the instructions' own time. A vector
// core has a run of (token, head) pairs in their order, and the next head on its way while it computes on one.
//
// A head lies in the UB in three segments that each begin at a block of 32 bytes: the first halves of the pairs, the second
// halves, and what is not rotated. Halves are read and written as they are; interleaved pairs are taken apart and put together
// by gathers, whose offsets are made once.
//
// A token whose position is not in the table is left out, and so are the key and value of one whose slot is not in the cache.
#include "kernels/rope/tiling.h"
#include "kernels/vector.h"

namespace gatun::ascend {
namespace {

// To S8, of whole numbers from -127 to 127: the vector unit has no cast from FP32.
__aicore__ inline void narrow(const LocalTensor<int8_t>& to, const LocalTensor<half>& by, const LocalTensor<float>& from,
                              int32_t count) {
  convert(by, from, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
  convert(to, by, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
}

template <typename X, typename Y>
class RopeHeads {
 public:
  __aicore__ inline void init(TPipe* pipe, const RopeTiling& tiling, GM_ADDR x, GM_ADDR positions, GM_ADDR table, GM_ADDR slots,
                              GM_ADDR out, GM_ADDR scales) {
    pipe_ = pipe;
    t_ = tiling;
    x_ = global<X>(x);
    positions_ = global<int64_t>(positions);
    table_ = global<float>(table);
    slots_ = global<int64_t>(slots);
    out_ = global<Y>(out);
    scales_ = global<float>(scales);
    second_ = static_cast<uint32_t>(t_.segment);
    rest_ = 2 * second_;
    span_ = 3 * t_.segment;
    const uint32_t span = static_cast<uint32_t>(span_);
    pipe->InitBuffer(x_in_, 2, span * sizeof(X));
    pipe->InitBuffer(angles_in_, 2, rest_ * sizeof(float));
    pipe->InitBuffer(out_out_, 2, span * sizeof(Y));
    pipe->InitBuffer(value_buffer_, span * sizeof(float));
    pipe->InitBuffer(turned_buffer_, span * sizeof(float));
    pipe->InitBuffer(work_buffer_, span * sizeof(float));
    value_ = value_buffer_.Get<float>();
    turned_ = turned_buffer_.Get<float>();
    work_ = work_buffer_.Get<float>();
    if constexpr (kQuantizes) {
      pipe->InitBuffer(scale_out_, 2, 32);
      pipe->InitBuffer(half_buffer_, span * sizeof(half));
      pipe->InitBuffer(partial_buffer_, partial_elements(span) * sizeof(float));
      pipe->InitBuffer(scalar_buffer_, 64);
      halves_ = half_buffer_.Get<half>();
      partial_ = partial_buffer_.Get<float>();
      scalar_ = scalar_buffer_.Get<float>();
      // What lies between the segments takes part in the largest magnitude.
      fill(turned_, 0.0f, span_);
    }
    if (t_.interleaved != 0 && t_.half > 0) make_offsets();
  }

  __aicore__ inline void run() {
    const int64_t all = t_.tokens * t_.heads, share = (all + AscendC::GetBlockNum() - 1) / AscendC::GetBlockNum();
    const int64_t first = share * AscendC::GetBlockIdx();
    end_ = first + share < all ? first + share : all;
    int64_t i = next(first);
    if (i < end_) fetch(i);
    while (i < end_) {
      const int64_t token = i / t_.heads, head = i % t_.heads;
      turn_to(token);
      LocalTensor<X> x = x_in_.DeQue<X>();
      const int64_t after = next(i + 1);
      if (after < end_) fetch(after);
      rotate(x);
      x_in_.FreeTensor(x);
      const int64_t slot = slot_of(token);
      const int64_t page = slot / t_.page_size, row = slot % t_.page_size;
      if constexpr (kQuantizes) quantize(slot * t_.heads + head);
      write(page * t_.out_page + row * t_.out_row + head * t_.out_head);
      i = after;
    }
    if (angles_of_ >= 0) angles_in_.FreeTensor(angles_);  // orders nothing
  }

 private:
  static constexpr bool kQuantizes = sizeof(Y) == 1;

  // Byte offsets into pairs, and into the segments of both halves.
  __aicore__ inline void make_offsets() {
    pipe_->InitBuffer(apart_buffer_, second_ * sizeof(uint32_t));
    pipe_->InitBuffer(together_buffer_, rest_ * sizeof(uint32_t));
    apart_ = apart_buffer_.Get<uint32_t>();
    together_ = together_buffer_.Get<uint32_t>();
    for (uint32_t i = 0; i < static_cast<uint32_t>(t_.half); ++i) {
      apart_.SetValue(i, static_cast<uint32_t>(2 * i * sizeof(float)));
      together_.SetValue(2 * i, static_cast<uint32_t>(i * sizeof(float)));
      together_.SetValue(2 * i + 1, static_cast<uint32_t>((second_ + i) * sizeof(float)));
    }
    const AscendC::TEventID event = pipe_->FetchEventID(HardEvent::S_V);
    AscendC::SetFlag<HardEvent::S_V>(event);
    AscendC::WaitFlag<HardEvent::S_V>(event);
  }

  __aicore__ inline int64_t slot_of(int64_t token) const {
    return t_.has_slots != 0 ? slots_.GetValue(static_cast<uint64_t>(token)) : token;
  }

  __aicore__ inline bool takes_part(int64_t token) const {
    const int64_t position = positions_.GetValue(static_cast<uint64_t>(token));
    if (position < 0 || position >= t_.max_position) return false;
    if (t_.cached == 0) return true;
    const int64_t slot = slot_of(token);
    return slot >= 0 && slot < t_.rows;
  }

  // The first from i on whose token takes part.
  __aicore__ inline int64_t next(int64_t i) const {
    while (i < end_ && !takes_part(i / t_.heads)) i = (i / t_.heads + 1) * t_.heads;
    return i;
  }

  __aicore__ inline void fetch(int64_t i) {
    const int64_t from = i / t_.heads * t_.x_token + i % t_.heads * t_.x_head;
    const int32_t rotary = 2 * t_.half, rest = static_cast<int32_t>(t_.n) - rotary;
    LocalTensor<X> x = x_in_.AllocTensor<X>();
    if (t_.interleaved != 0) {
      if (rotary > 0) copy_in(x, x_[static_cast<uint64_t>(from)], rotary);
    } else if (rotary > 0) {
      copy_in(x, x_[static_cast<uint64_t>(from)], t_.half);
      copy_in(x[second_], x_[static_cast<uint64_t>(from + t_.half)], t_.half);
    }
    if (rest > 0) copy_in(x[rest_], x_[static_cast<uint64_t>(from + rotary)], rest);
    x_in_.EnQue(x);
  }

  // angles = the cosines and sines of the token's position.
  __aicore__ inline void turn_to(int64_t token) {
    if (t_.half == 0 || angles_of_ == token) return;
    // The head that is at hand was fetched into the place of one that was turned by the angles that lay here, or later.
    if (angles_of_ >= 0) angles_in_.FreeTensor(angles_);  // orders nothing
    const int64_t from = positions_.GetValue(static_cast<uint64_t>(token)) * t_.table_row;
    LocalTensor<float> angles = angles_in_.AllocTensor<float>();  // orders nothing
    copy_in(angles, table_[static_cast<uint64_t>(from)], t_.half);
    copy_in(angles[second_], table_[static_cast<uint64_t>(from + t_.half)], t_.half);
    angles_in_.EnQue(angles);
    angles_ = angles_in_.DeQue<float>();
    angles_of_ = token;
  }

  // turned = the rotated head, in segments.
  __aicore__ inline void rotate(const LocalTensor<X>& x) {
    const int32_t half_of = t_.half, rest = static_cast<int32_t>(t_.n) - 2 * half_of;
    if (rest > 0) widen(turned_[rest_], x[rest_], rest);
    if (half_of == 0) return;
    if (t_.interleaved != 0) {
      widen(work_, x, 2 * half_of);
      gather(value_, work_, apart_, uint32_t{0}, static_cast<uint32_t>(half_of));
      gather(value_[second_], work_, apart_, uint32_t{sizeof(float)}, static_cast<uint32_t>(half_of));
    } else {
      widen(value_, x, half_of);
      widen(value_[second_], x[second_], half_of);
    }
    const LocalTensor<float> a = value_, b = value_[second_], cosine = angles_, sine = angles_[second_];
    const LocalTensor<float> first = turned_, second = turned_[second_];
    mul(first, a, cosine, half_of);
    mul(work_, b, sine, half_of);
    sub(first, first, work_, half_of);
    mul(second, b, cosine, half_of);
    mul(work_, a, sine, half_of);
    add(second, second, work_, half_of);
  }

  // turned = turned / scale as whole numbers, and the scale is written.
  __aicore__ inline void quantize(int64_t scale_at) {
    absolute(work_, turned_, span_);
    const float most = maximum_of(pipe_, scalar_, work_, partial_, span_);
    // 0, unless something is not finite.
    muls(work_, turned_, 0.0f, span_);
    const bool finite = sum_of(pipe_, scalar_, work_, partial_, span_) == 0.0f;
    const float scale = finite ? most / 127.0f : float_of(0x7fc00000u);
    if (scale > 0.0f) {
      fill(work_, scale, span_);
      div(turned_, turned_, work_, span_);
      maxs(turned_, turned_, -127.0f, span_);
      mins(turned_, turned_, 127.0f, span_);
      // The sum with 1.5 2^23 rounds to a whole number, ties to even.
      adds(turned_, turned_, 0x1.8p23f, span_);
      adds(turned_, turned_, -0x1.8p23f, span_);
    } else {
      fill(turned_, 0.0f, span_);
    }
    LocalTensor<float> out = scale_out_.AllocTensor<float>();
    fill(out, scale, 8);
    scale_out_.EnQue(out);
    out = scale_out_.DeQue<float>();
    copy_out(scales_[static_cast<uint64_t>(scale_at)], out, 1);
    scale_out_.FreeTensor(out);
  }

  __aicore__ inline void round(const LocalTensor<Y>& to, const LocalTensor<float>& from, int32_t count) {
    if constexpr (kQuantizes) {
      narrow(to, halves_, from, count);
    } else {
      ascend::narrow(to, from, count);
    }
  }

  __aicore__ inline void write(int64_t to) {
    const int32_t half_of = t_.half, rotary = 2 * half_of, rest = static_cast<int32_t>(t_.n) - rotary;
    LocalTensor<Y> out = out_out_.AllocTensor<Y>();
    if (half_of > 0 && t_.interleaved != 0) {
      gather(work_, turned_, together_, uint32_t{0}, static_cast<uint32_t>(rotary));
      round(out, work_, rotary);
    } else if (half_of > 0) {
      round(out, turned_, half_of);
      round(out[second_], turned_[second_], half_of);
    }
    if (rest > 0) round(out[rest_], turned_[rest_], rest);
    out_out_.EnQue(out);
    out = out_out_.DeQue<Y>();
    if (half_of > 0 && t_.interleaved != 0) {
      copy_out(out_[static_cast<uint64_t>(to)], out, rotary);
    } else if (half_of > 0) {
      copy_out(out_[static_cast<uint64_t>(to)], out, half_of);
      copy_out(out_[static_cast<uint64_t>(to + half_of)], out[second_], half_of);
    }
    if (rest > 0) copy_out(out_[static_cast<uint64_t>(to + rotary)], out[rest_], rest);
    out_out_.FreeTensor(out);
  }

  TPipe* pipe_;
  RopeTiling t_;
  uint32_t second_, rest_;  // where the second halves and the rest begin
  int32_t span_;
  int64_t end_, angles_of_ = -1;
  GlobalTensor<X> x_;
  GlobalTensor<int64_t> positions_, slots_;
  GlobalTensor<float> table_, scales_;
  GlobalTensor<Y> out_;
  TQue<TPosition::VECIN, 1> x_in_, angles_in_;
  TQue<TPosition::VECOUT, 1> out_out_, scale_out_;
  TBuf<TPosition::VECCALC> value_buffer_, turned_buffer_, work_buffer_, half_buffer_, partial_buffer_, scalar_buffer_,
      apart_buffer_, together_buffer_;
  LocalTensor<float> value_, turned_, work_, partial_, scalar_, angles_;
  LocalTensor<half> halves_;
  LocalTensor<uint32_t> apart_, together_;
};

}  // namespace
}  // namespace gatun::ascend

#define GATUN_ROPE_ENTRY(x_name, X, y_name, Y)                                                                                 \
  extern "C" __global__ __aicore__ void gatun_rope_##x_name##_##y_name(                                                        \
      GM_ADDR x, GM_ADDR positions, GM_ADDR table, GM_ADDR slots, GM_ADDR out, GM_ADDR scales, GM_ADDR tiling) {               \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                                            \
    AscendC::TPipe pipe;                                                                                                       \
    gatun::ascend::RopeHeads<X, Y> heads;                                                                                      \
    heads.init(&pipe, gatun::ascend::read_tiling<gatun::ascend::RopeTiling>(tiling), x, positions, table, slots, out, scales); \
    heads.run();                                                                                                               \
  }

GATUN_ROPE_ENTRY(f32, float, f32, float)
GATUN_ROPE_ENTRY(f32, float, bf16, bfloat16_t)
GATUN_ROPE_ENTRY(f32, float, f16, half)
GATUN_ROPE_ENTRY(f32, float, s8, int8_t)
GATUN_ROPE_ENTRY(bf16, bfloat16_t, f32, float)
GATUN_ROPE_ENTRY(bf16, bfloat16_t, bf16, bfloat16_t)
GATUN_ROPE_ENTRY(bf16, bfloat16_t, f16, half)
GATUN_ROPE_ENTRY(bf16, bfloat16_t, s8, int8_t)
GATUN_ROPE_ENTRY(f16, half, f32, float)
GATUN_ROPE_ENTRY(f16, half, bf16, bfloat16_t)
GATUN_ROPE_ENTRY(f16, half, f16, half)
GATUN_ROPE_ENTRY(f16, half, s8, int8_t)
