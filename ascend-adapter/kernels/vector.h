// What the vector kernels share: their tiling, rows between global memory and the unified buffer (UB), conversions, and
// scalars.
//
// A row may begin at any element and have any length: DataCopyPad moves just its bytes. Vector instructions take the row's own
// count, never more, so what lies behind it in the UB is never looked at.
#pragma once

#include <type_traits>

#include "kernel_operator.h"

namespace gatun::ascend {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::RoundMode;
using AscendC::TBuf;
using AscendC::TPipe;
using AscendC::TPosition;
using AscendC::TQue;

// The tiling of a launch lies in global memory; the scalar unit reads it word by word.
template <typename Tiling>
__aicore__ inline Tiling read_tiling(GM_ADDR from) {
  static_assert(sizeof(Tiling) % sizeof(uint32_t) == 0);
  union {
    Tiling tiling;
    uint32_t words[sizeof(Tiling) / sizeof(uint32_t)];
  } to;
  constexpr uint32_t kWords = sizeof(Tiling) / sizeof(uint32_t);
  GlobalTensor<uint32_t> words;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ uint32_t*>(from), kWords);
  for (uint32_t i = 0; i < kWords; ++i) to.words[i] = words.GetValue(i);
  return to.tiling;
}

template <typename T>
__aicore__ inline GlobalTensor<T> global(GM_ADDR address) {
  GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(address));
  return tensor;
}

template <typename T>
__aicore__ inline void copy_in(const LocalTensor<T>& to, const GlobalTensor<T>& from, int32_t count) {
  const uint32_t bytes = static_cast<uint32_t>(count) * sizeof(T);
  AscendC::DataCopyPad(to, from, AscendC::DataCopyExtParams(1, bytes, 0, 0, 0),
                       AscendC::DataCopyPadExtParams<T>(false, 0, 0, T()));
}

template <typename T>
__aicore__ inline void copy_out(const GlobalTensor<T>& to, const LocalTensor<T>& from, int32_t count) {
  AscendC::DataCopyPad(to, from, AscendC::DataCopyExtParams(1, static_cast<uint32_t>(count) * sizeof(T), 0, 0, 0));
}

// The instructions of the vector unit that these kernels take. The unit may start one before the last has written: each is
// followed by a barrier, since nearly all of them use what the one before them made.
#define GATUN_VECTOR(name, Instruction)                   \
  template <typename... Operands>                         \
  __aicore__ inline void name(const Operands&... operands) { \
    AscendC::Instruction(operands...);                    \
    AscendC::PipeBarrier<PIPE_V>();                       \
  }
GATUN_VECTOR(add, Add)
GATUN_VECTOR(sub, Sub)
GATUN_VECTOR(mul, Mul)
GATUN_VECTOR(div, Div)
GATUN_VECTOR(adds, Adds)
GATUN_VECTOR(muls, Muls)
GATUN_VECTOR(maxs, Maxs)
GATUN_VECTOR(mins, Mins)
GATUN_VECTOR(absolute, Abs)
GATUN_VECTOR(exponential, Exp)
GATUN_VECTOR(logarithm, Ln)
GATUN_VECTOR(fill, Duplicate)
GATUN_VECTOR(convert, Cast)
GATUN_VECTOR(gather, Gather)
GATUN_VECTOR(reduce_max, ReduceMax)
#undef GATUN_VECTOR

// To FP32, exactly.
__aicore__ inline void widen(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t count) {
  muls(to, from, 1.0f, count);
}

template <typename T>
__aicore__ inline void widen(const LocalTensor<float>& to, const LocalTensor<T>& from, int32_t count) {
  convert(to, from, RoundMode::CAST_NONE, static_cast<uint32_t>(count));
}

// From FP32, rounded to nearest even.
__aicore__ inline void narrow(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t count) {
  muls(to, from, 1.0f, count);
}

template <typename T>
__aicore__ inline void narrow(const LocalTensor<T>& to, const LocalTensor<float>& from, int32_t count) {
  convert(to, from, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
}

// Element 0 of what the vector unit was last told to write.
__aicore__ inline float scalar_of(TPipe* pipe, const LocalTensor<float>& from) {
  const AscendC::TEventID event = pipe->FetchEventID(HardEvent::V_S);
  AscendC::SetFlag<HardEvent::V_S>(event);
  AscendC::WaitFlag<HardEvent::V_S>(event);
  return from.GetValue(0);
}

// Elements of the work buffer that a reduction of `count` needs: ReduceMax keeps a value and an index of each 64, ReduceSum a
// value.
__aicore__ inline uint32_t partial_elements(uint32_t count) { return (2 * ((count + 63) / 64) + 7) / 8 * 8; }

// Sum and maximum of `count` elements. `scalar` has room for 8 elements and `partial` for partial_elements(count).
__aicore__ inline float sum_of(TPipe* pipe, const LocalTensor<float>& scalar, const LocalTensor<float>& from,
                               const LocalTensor<float>& partial, int32_t count) {
  AscendC::ReduceSum(scalar, from, partial, count);
  return scalar_of(pipe, scalar);
}

__aicore__ inline float maximum_of(TPipe* pipe, const LocalTensor<float>& scalar, const LocalTensor<float>& from,
                                   const LocalTensor<float>& partial, int32_t count) {
  AscendC::ReduceMax(scalar, from, partial, count);
  return scalar_of(pipe, scalar);
}

__aicore__ inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
__aicore__ inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
__aicore__ inline int64_t between(int64_t low, int64_t x, int64_t high) { return most(low, least(x, high)); }

__aicore__ inline uint32_t bits_of(float x) {
  union {
    float value;
    uint32_t bits;
  } both;
  both.value = x;
  return both.bits;
}

__aicore__ inline float float_of(uint32_t x) {
  union {
    uint32_t bits;
    float value;
  } both;
  both.bits = x;
  return both.value;
}

}  // namespace gatun::ascend
