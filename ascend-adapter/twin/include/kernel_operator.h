// The subset of Ascend C that our kernels use, for the CPU twin: what twin.h says. Names and signatures are those of CANN's
// documentation for Atlas A2 and A3, so that the vendor's compiler takes the same sources with its own header of this name.
// A function of Ascend C that is not here is one that the twin declines.
#pragma once

#include "twin/machine.h"
#include "twin/numbers.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#define __aicore__
#define __global__
#define __gm__
#define GM_ADDR __gm__ uint8_t*
#define ASCEND_IS_AIC (::gatun::twin::is_cube())
#define ASCEND_IS_AIV (!::gatun::twin::is_cube())
#define KERNEL_TASK_TYPE_DEFAULT(type) ::gatun::twin::declare(type, ::gatun::twin::Where::here())

inline constexpr auto KERNEL_TYPE_AIV_ONLY = gatun::twin::CoreType::AivOnly;
inline constexpr auto KERNEL_TYPE_AIC_ONLY = gatun::twin::CoreType::AicOnly;
inline constexpr auto KERNEL_TYPE_MIX_AIV_1_0 = gatun::twin::CoreType::MixAiv;
inline constexpr auto KERNEL_TYPE_MIX_AIC_1_2 = gatun::twin::CoreType::MixAic1To2;

enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_FIX, PIPE_ALL };

namespace AscendC {

using gatun::twin::Op, gatun::twin::Pipe, gatun::twin::Rounding, gatun::twin::Space, gatun::twin::Stretch, gatun::twin::Where;

inline int64_t GetBlockNum() { return gatun::twin::block_number(); }
inline int64_t GetBlockIdx() { return gatun::twin::block_index(); }
inline int64_t GetSubBlockIdx() { return gatun::twin::sub_block_index(); }
inline int64_t GetSubBlockNum() { return gatun::twin::sub_block_number(); }

// ---- Tensors.
enum class TPosition : uint8_t { GM, A1, A2, B1, B2, C1, C2, CO1, CO2, VECIN, VECOUT, VECCALC, C2PIPE2GM };

constexpr Space space_of(TPosition p) {
  switch (p) {
    case TPosition::A1:
    case TPosition::B1:
    case TPosition::C1:
      return Space::L1;
    case TPosition::A2:
      return Space::L0A;
    case TPosition::B2:
      return Space::L0B;
    case TPosition::CO1:
      return Space::L0C;
    case TPosition::C2:
      return Space::Bias;
    case TPosition::C2PIPE2GM:
      return Space::Fixpipe;
    case TPosition::VECIN:
    case TPosition::VECOUT:
    case TPosition::VECCALC:
      return Space::Ub;
    default:
      return Space::Gm;
  }
}

template <typename T>
class GlobalTensor {
 public:
  using PrimType = T;
  void SetGlobalBuffer(__gm__ T* buffer, uint64_t size) {
    p_ = buffer;
    size_ = size;
  }
  void SetGlobalBuffer(__gm__ T* buffer) { SetGlobalBuffer(buffer, ~uint64_t{0} / sizeof(T)); }
  GlobalTensor operator[](uint64_t offset) const {
    GlobalTensor t;
    t.p_ = p_ + offset;
    t.size_ = offset < size_ ? size_ - offset : 0;
    return t;
  }
  T GetValue(uint64_t i, Where at = Where::here()) const {
    if (i >= size_) gatun::twin::fail(at, "GetValue: beyond the end of the tensor");
    return *static_cast<const T*>(gatun::twin::scalar_read_global(p_ + i, sizeof(T), at));
  }
  uint64_t GetSize() const { return size_; }

  const T* twin_read(Op& op, uint64_t first, uint64_t bytes) const {
    check(op, first, bytes);
    return static_cast<const T*>(op.read_global(p_ + first, bytes));
  }
  T* twin_write(Op& op, uint64_t first, uint64_t bytes) const {
    check(op, first, bytes);
    return static_cast<T*>(op.write_global(p_ + first, bytes));
  }

 private:
  void check(Op& op, uint64_t first, uint64_t bytes) const {
    if (first > size_ || bytes > (size_ - first) * sizeof(T)) {
      op.fail("%llu bytes at element %llu of a global tensor of %llu elements", static_cast<unsigned long long>(bytes),
              static_cast<unsigned long long>(first), static_cast<unsigned long long>(size_));
    }
  }
  T* p_ = nullptr;
  uint64_t size_ = 0;
};

template <typename T>
class LocalTensor {
 public:
  using PrimType = T;
  LocalTensor operator[](uint32_t offset) const {
    LocalTensor t = *this;
    t.stretch_.begin = static_cast<uint32_t>(std::min<uint64_t>(stretch_.end, stretch_.begin + uint64_t{offset} * sizeof(T)));
    return t;
  }
  T GetValue(uint32_t i, Where at = Where::here()) const {
    T value;
    std::memcpy(&value, gatun::twin::scalar_read(stretch_, uint64_t{i} * sizeof(T), sizeof(T), at), sizeof(T));
    return value;
  }
  template <typename S>
  void SetValue(uint32_t i, S value, Where at = Where::here()) const {
    const T v = static_cast<T>(value);
    gatun::twin::scalar_write(stretch_, uint64_t{i} * sizeof(T), &v, sizeof(T), at);
  }
  uint32_t GetSize() const { return (stretch_.end - stretch_.begin) / static_cast<uint32_t>(sizeof(T)); }
  template <typename U>
  LocalTensor<U> ReinterpretCast() const {
    LocalTensor<U> t;
    t.twin_set(stretch_, position_);
    return t;
  }
  int32_t GetPosition() const { return static_cast<int32_t>(position_); }

  void twin_set(const Stretch& s, TPosition position) {
    stretch_ = s;
    position_ = position;
  }
  const Stretch& twin_stretch() const { return stretch_; }
  Space twin_space() const { return stretch_.space; }
  // The first `count` elements, as an operand. Operations of the vector unit name UB alone.
  const T* twin_read(Op& op, uint64_t count, uint32_t alignment = 0) const {
    return static_cast<const T*>(op.read(stretch_, 0, count * sizeof(T), false, alignment));
  }
  T* twin_write(Op& op, uint64_t count, uint32_t alignment = 0) const {
    return static_cast<T*>(op.write(stretch_, 0, count * sizeof(T), alignment));
  }

 private:
  Stretch stretch_;
  TPosition position_ = TPosition::GM;
};

// ---- Buffers and queues.
enum class HardEvent : uint8_t {
  MTE2_MTE1,
  MTE1_MTE2,
  MTE1_M,
  M_MTE1,
  MTE2_V,
  V_MTE2,
  MTE3_V,
  V_MTE3,
  M_V,
  V_M,
  V_V,
  MTE3_MTE1,
  MTE1_MTE3,
  MTE1_V,
  MTE2_M,
  M_MTE2,
  V_MTE1,
  M_FIX,
  FIX_M,
  MTE3_MTE2,
  MTE2_MTE3,
  S_V,
  V_S,
  S_MTE2,
  MTE2_S,
  S_MTE3,
  MTE3_S,
  MTE2_FIX,
  FIX_MTE2,
  FIX_S,
  M_S,
  FIX_MTE3,
  MTE1_FIX,
  FIX_MTE1,
  FIX_FIX,
  MAX
};
using TEventID = int8_t;

struct EventPipes {
  Pipe from, to;
};
constexpr EventPipes pipes_of(HardEvent e) {
  constexpr Pipe S = Pipe::S, V = Pipe::V, M = Pipe::M, Mte1 = Pipe::Mte1, Mte2 = Pipe::Mte2, Mte3 = Pipe::Mte3,
                 Fix = Pipe::Fix;
  constexpr EventPipes table[] = {{Mte2, Mte1}, {Mte1, Mte2}, {Mte1, M}, {M, Mte1},   {Mte2, V},    {V, Mte2},    {Mte3, V},
                                  {V, Mte3},    {M, V},       {V, M},    {V, V},      {Mte3, Mte1}, {Mte1, Mte3}, {Mte1, V},
                                  {Mte2, M},    {M, Mte2},    {V, Mte1}, {M, Fix},    {Fix, M},     {Mte3, Mte2}, {Mte2, Mte3},
                                  {S, V},       {V, S},       {S, Mte2}, {Mte2, S},   {S, Mte3},    {Mte3, S},    {Mte2, Fix},
                                  {Fix, Mte2},  {Fix, S},     {M, S},    {Fix, Mte3}, {Mte1, Fix},  {Fix, Mte1},  {Fix, Fix}};
  return table[static_cast<int>(e)];
}

// Who fills and who empties what a queue hands over.
constexpr EventPipes queue_pipes(TPosition src, TPosition dst) {
  switch (src) {
    case TPosition::VECIN:
      return {Pipe::Mte2, dst == TPosition::VECOUT ? Pipe::Mte3 : Pipe::V};
    case TPosition::VECOUT:
      return {Pipe::V, Pipe::Mte3};
    case TPosition::A1:
    case TPosition::B1:
    case TPosition::C1:
      return {Pipe::Mte2, Pipe::Mte1};
    case TPosition::A2:
    case TPosition::B2:
      return {Pipe::Mte1, Pipe::M};
    case TPosition::CO1:
      return {Pipe::M, Pipe::Fix};
    default:
      return {Pipe::S, Pipe::S};
  }
}

template <TPosition src, TPosition dst, int32_t depth, auto mask = 0>
class TQueBind {
  static_assert(mask == 0, "the twin knows queues without a mask alone");
  static_assert(queue_pipes(src, dst).from != Pipe::S, "a position that no queue hands over");

 public:
  template <typename T>
  LocalTensor<T> AllocTensor(Where at = Where::here()) {
    return tensor<T>(gatun::twin::queue_alloc(index_, at));
  }
  template <typename T>
  bool EnQue(const LocalTensor<T>& t, Where at = Where::here()) {
    gatun::twin::queue_enqueue(index_, t.twin_stretch(), at);
    return true;
  }
  template <typename T>
  LocalTensor<T> DeQue(Where at = Where::here()) {
    return tensor<T>(gatun::twin::queue_dequeue(index_, at));
  }
  template <typename T>
  void FreeTensor(LocalTensor<T>& t, Where at = Where::here()) {
    gatun::twin::queue_free(index_, t.twin_stretch(), at);
  }

  void twin_init(uint8_t count, uint32_t bytes, Where at) {
    constexpr EventPipes pipes = queue_pipes(src, dst);
    index_ = gatun::twin::queue(space_of(src), pipes.from, pipes.to, depth, count, bytes, at);
  }

 private:
  template <typename T>
  LocalTensor<T> tensor(const Stretch& s) {
    LocalTensor<T> t;
    t.twin_set(s, src);
    return t;
  }
  int32_t index_ = -1;
};

template <TPosition pos, int32_t depth, auto mask = 0>
class TQue : public TQueBind<pos, pos == TPosition::VECIN ? TPosition::VECCALC : TPosition::GM, depth, mask> {};

template <TPosition pos = TPosition::VECCALC>
class TBuf {
 public:
  template <typename T>
  LocalTensor<T> Get() {
    LocalTensor<T> t;
    t.twin_set(stretch_, pos);
    return t;
  }
  template <typename T>
  LocalTensor<T> Get(uint32_t size) {
    LocalTensor<T> t;
    Stretch s = stretch_;
    s.end = static_cast<uint32_t>(std::min<uint64_t>(s.end, s.begin + uint64_t{size} * sizeof(T)));
    t.twin_set(s, pos);
    return t;
  }
  void twin_init(uint32_t bytes, Where at) { stretch_ = gatun::twin::buffer(space_of(pos), bytes, at); }

 private:
  Stretch stretch_;
};

class TPipe {
 public:
  explicit TPipe(Where at = Where::here()) : at_(at) { gatun::twin::pipe_begin(at); }
  ~TPipe() { gatun::twin::pipe_end(at_); }
  TPipe(const TPipe&) = delete;
  TPipe& operator=(const TPipe&) = delete;
  template <typename Queue>
  bool InitBuffer(Queue& queue, uint8_t count, uint32_t bytes, Where at = Where::here()) {
    queue.twin_init(count, bytes, at);
    return true;
  }
  template <TPosition pos>
  bool InitBuffer(TBuf<pos>& buffer, uint32_t bytes, Where at = Where::here()) {
    buffer.twin_init(bytes, at);
    return true;
  }
  TEventID FetchEventID(HardEvent e, Where at = Where::here()) {
    return static_cast<TEventID>(gatun::twin::fetch_event(pipes_of(e).from, pipes_of(e).to, false, at));
  }
  template <HardEvent e>
  TEventID AllocEventID(Where at = Where::here()) {
    return static_cast<TEventID>(gatun::twin::fetch_event(pipes_of(e).from, pipes_of(e).to, true, at));
  }
  template <HardEvent e>
  void ReleaseEventID(TEventID id, Where at = Where::here()) {
    gatun::twin::release_event(pipes_of(e).from, pipes_of(e).to, id, at);
  }

 private:
  Where at_;
};

// ---- Synchronisation.
constexpr Pipe pipe_of(pipe_t p) { return static_cast<Pipe>(p == PIPE_ALL ? 0 : p); }

template <HardEvent e>
void SetFlag(int32_t id, Where at = Where::here()) {
  gatun::twin::set_flag(pipes_of(e).from, pipes_of(e).to, id, at);
}
template <HardEvent e>
void WaitFlag(int32_t id, Where at = Where::here()) {
  gatun::twin::wait_flag(pipes_of(e).from, pipes_of(e).to, id, at);
}
template <pipe_t p>
void PipeBarrier(Where at = Where::here()) {
  gatun::twin::pipe_barrier(pipe_of(p), p == PIPE_ALL, at);
}
template <uint8_t modeId, pipe_t p>
void CrossCoreSetFlag(uint16_t flagId, Where at = Where::here()) {
  gatun::twin::cross_set(modeId, pipe_of(p), flagId, at);
}
template <uint8_t modeId = 0, pipe_t p = PIPE_S>
void CrossCoreWaitFlag(uint16_t flagId, Where at = Where::here()) {
  static_assert(p != PIPE_ALL);
  gatun::twin::cross_wait(modeId, pipe_of(p), flagId, at);
}
template <bool isAIVOnly = true>
void SyncAll(Where at = Where::here()) {
  gatun::twin::sync_all(isAIVOnly, at);
}

// ---- Data movement. Lengths and strides of DataCopyParams are in units of 32 bytes, strides are gaps.
struct DataCopyParams {
  uint16_t blockCount = 1, blockLen = 0, srcStride = 0, dstStride = 0;
  DataCopyParams() = default;
  DataCopyParams(uint16_t count, uint16_t len, uint16_t src, uint16_t dst)
      : blockCount(count), blockLen(len), srcStride(src), dstStride(dst) {}
};
// Bytes; the stride in UB counts 32 bytes.
struct DataCopyExtParams {
  uint16_t blockCount = 1;
  uint32_t blockLen = 0, srcStride = 0, dstStride = 0, rsv = 0;
  DataCopyExtParams() = default;
  DataCopyExtParams(uint16_t count, uint32_t len, uint32_t src, uint32_t dst, uint32_t r)
      : blockCount(count), blockLen(len), srcStride(src), dstStride(dst), rsv(r) {}
};
template <typename T>
struct DataCopyPadExtParams {
  bool isPad = false;
  uint8_t leftPadding = 0, rightPadding = 0;
  T paddingValue{};
  DataCopyPadExtParams() = default;
  DataCopyPadExtParams(bool pad, uint8_t left, uint8_t right, T value)
      : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value) {}
};

constexpr bool takes_from_gm(Space s) { return s == Space::Ub || s == Space::L1; }

template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& p, Where at = Where::here()) {
  Op op(Pipe::Mte2, "DataCopy", at);
  op.require(takes_from_gm(dst.twin_space()), "GM is copied to UB and L1 alone");
  op.require(p.blockCount >= 1 && p.blockCount <= 4095 && p.blockLen >= 1, "blockCount is 1 to 4095 and blockLen at least 1");
  const uint64_t bytes = p.blockLen * 32ull, from = bytes + p.srcStride * 32ull, to = bytes + p.dstStride * 32ull;
  uint8_t* d = nullptr;
  const uint8_t* s = nullptr;
  for (uint64_t i = p.blockCount; i-- > 0;) {
    d = static_cast<uint8_t*>(op.write(dst.twin_stretch(), i * to, bytes));
    s = reinterpret_cast<const uint8_t*>(src.twin_read(op, i * from / sizeof(T), bytes));
  }
  op.issue([=] {
    for (uint64_t i = 0; i < p.blockCount; ++i) std::memcpy(d + i * to, s + i * from, bytes);
  });
}

template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& p, Where at = Where::here()) {
  Op op(Pipe::Mte3, "DataCopy", at);
  op.require(src.twin_space() == Space::Ub, "GM is written from UB alone");
  op.require(p.blockCount >= 1 && p.blockCount <= 4095 && p.blockLen >= 1, "blockCount is 1 to 4095 and blockLen at least 1");
  const uint64_t bytes = p.blockLen * 32ull, from = bytes + p.srcStride * 32ull, to = bytes + p.dstStride * 32ull;
  uint8_t* d = nullptr;
  const uint8_t* s = nullptr;
  for (uint64_t i = p.blockCount; i-- > 0;) {
    s = static_cast<const uint8_t*>(op.read(src.twin_stretch(), i * from, bytes));
    d = reinterpret_cast<uint8_t*>(dst.twin_write(op, i * to / sizeof(T), bytes));
  }
  op.issue([=] {
    for (uint64_t i = 0; i < p.blockCount; ++i) std::memcpy(d + i * to, s + i * from, bytes);
  });
}

template <typename T>
DataCopyParams in_blocks(uint32_t count, Where at) {
  const uint64_t bytes = uint64_t{count} * sizeof(T);
  if (bytes % 32 || bytes == 0) gatun::twin::fail(at, "DataCopy: %u elements are not a multiple of 32 bytes", count);
  if (bytes / 32 > 65535) gatun::twin::fail(at, "DataCopy: %u elements are more than 65535 blocks of 32 bytes", count);
  return {1, static_cast<uint16_t>(bytes / 32), 0, 0};
}
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, uint32_t count, Where at = Where::here()) {
  DataCopy(dst, src, in_blocks<T>(count, at), at);
}
template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, uint32_t count, Where at = Where::here()) {
  DataCopy(dst, src, in_blocks<T>(count, at), at);
}

inline void check_pad(Op& op, const DataCopyExtParams& p) {
  op.require(p.blockCount >= 1 && p.blockCount <= 4095, "blockCount is 1 to 4095");
  op.require(p.blockLen >= 1 && p.blockLen < 1u << 21, "blockLen is 1 to 2097151 bytes");
}

// Each block begins at a multiple of 32 bytes of UB. What follows it up to the next has no meaning but for the padding.
template <typename T>
void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyExtParams& p,
                 const DataCopyPadExtParams<T>& pad, Where at = Where::here()) {
  Op op(Pipe::Mte2, "DataCopyPad", at);
  check_pad(op, p);
  op.require(dst.twin_space() == Space::Ub, "pads in UB alone");
  const uint64_t left = pad.isPad ? pad.leftPadding * sizeof(T) : 0, right = pad.isPad ? pad.rightPadding * sizeof(T) : 0;
  op.require(left <= 32 && right <= 32, "padding is at most 32 bytes");
  op.require(p.blockLen % sizeof(T) == 0 && p.srcStride % sizeof(T) == 0, "lengths are whole elements");
  const uint64_t bytes = left + p.blockLen + right, whole = (bytes + 31) / 32 * 32;
  const uint64_t to = whole + p.dstStride * 32ull, from = uint64_t{p.blockLen} + p.srcStride;
  uint8_t* d = nullptr;
  const uint8_t* s = nullptr;
  for (uint64_t i = p.blockCount; i-- > 0;) {
    if (whole > bytes) op.spoil(dst.twin_stretch(), i * to + bytes, whole - bytes);
    d = static_cast<uint8_t*>(op.write(dst.twin_stretch(), i * to, bytes));
    s = reinterpret_cast<const uint8_t*>(src.twin_read(op, i * from / sizeof(T), p.blockLen));
  }
  op.issue([=] {
    for (uint64_t i = 0; i < p.blockCount; ++i) {
      uint8_t* const row = d + i * to;
      for (uint64_t b = 0; b < left; b += sizeof(T)) std::memcpy(row + b, &pad.paddingValue, sizeof(T));
      std::memcpy(row + left, s + i * from, p.blockLen);
      for (uint64_t b = left + p.blockLen; b < bytes; b += sizeof(T)) std::memcpy(row + b, &pad.paddingValue, sizeof(T));
      for (uint64_t b = bytes; b < whole; ++b) row[b] = b % 2 ? 0x7f : 0xff;
    }
  });
}
template <typename T>
void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyExtParams& p, Where at = Where::here()) {
  Op op(Pipe::Mte3, "DataCopyPad", at);
  check_pad(op, p);
  op.require(src.twin_space() == Space::Ub, "GM is written from UB alone");
  op.require(p.blockLen % sizeof(T) == 0 && p.dstStride % sizeof(T) == 0, "lengths are whole elements");
  const uint64_t from = (p.blockLen + 31ull) / 32 * 32 + p.srcStride * 32ull, to = uint64_t{p.blockLen} + p.dstStride;
  uint8_t* d = nullptr;
  const uint8_t* s = nullptr;
  for (uint64_t i = p.blockCount; i-- > 0;) {
    s = static_cast<const uint8_t*>(op.read(src.twin_stretch(), i * from, p.blockLen));
    d = reinterpret_cast<uint8_t*>(dst.twin_write(op, i * to / sizeof(T), p.blockLen));
  }
  op.issue([=] {
    for (uint64_t i = 0; i < p.blockCount; ++i) std::memcpy(d + i * to, s + i * from, p.blockLen);
  });
}

// ---- Vector compute: forms that take a count of elements, and those that take a mask of the first lanes and repeats.
struct BinaryRepeatParams {
  uint8_t dstBlkStride = 1, src0BlkStride = 1, src1BlkStride = 1, dstRepStride = 8, src0RepStride = 8, src1RepStride = 8;
  BinaryRepeatParams() = default;
  BinaryRepeatParams(uint8_t d, uint8_t s0, uint8_t s1, uint8_t dr, uint8_t s0r, uint8_t s1r)
      : dstBlkStride(d), src0BlkStride(s0), src1BlkStride(s1), dstRepStride(dr), src0RepStride(s0r), src1RepStride(s1r) {}
};
struct UnaryRepeatParams {
  uint16_t dstBlkStride = 1, srcBlkStride = 1;
  uint8_t dstRepStride = 8, srcRepStride = 8;
  UnaryRepeatParams() = default;
  UnaryRepeatParams(uint16_t d, uint16_t s, uint8_t dr, uint8_t sr)
      : dstBlkStride(d), srcBlkStride(s), dstRepStride(dr), srcRepStride(sr) {}
};

// The lanes of an operand over repeats of 256 bytes: 8 blocks of 32 bytes, of which `mask` elements take part.
template <typename T>
struct Lanes {
  uint32_t block_stride, repeat_stride;
  static constexpr uint32_t kBlock = 32 / sizeof(T);
  uint64_t at(uint32_t repeat, uint64_t lane) const {
    return (uint64_t{repeat} * repeat_stride + lane / kBlock * block_stride) * kBlock + lane % kBlock;
  }
  template <typename F>
  void each_block(uint64_t mask, uint32_t repeats, F f) const {
    for (uint32_t r = 0; r < repeats; ++r) {
      for (uint64_t lane = 0; lane < mask; lane += kBlock)
        f(at(r, lane) * sizeof(T), std::min<uint64_t>(kBlock, mask - lane) * sizeof(T));
    }
  }
};

inline const Stretch& in_ub(const Op& op, const Stretch& s) {
  if (s.space != Space::Ub) op.fail("the vector unit reaches UB alone");
  return s;
}
template <typename T>
const T* ub_read(Op& op, const LocalTensor<T>& t, uint64_t count) {
  return static_cast<const T*>(op.read(in_ub(op, t.twin_stretch()), 0, count * sizeof(T)));
}
template <typename T>
T* ub_write(Op& op, const LocalTensor<T>& t, uint64_t count) {
  return static_cast<T*>(op.write(in_ub(op, t.twin_stretch()), 0, count * sizeof(T)));
}
// Sources may lie where the result does, element on element, or apart from it.
template <typename T, typename U>
void check_overlap(const Op& op, const LocalTensor<T>& dst, uint64_t dst_count, const LocalTensor<U>& src, uint64_t src_count) {
  const Stretch &d = dst.twin_stretch(), &s = src.twin_stretch();
  if (d.begin == s.begin && sizeof(T) == sizeof(U)) return;
  if (d.begin < s.begin + src_count * sizeof(U) && s.begin < d.begin + dst_count * sizeof(T)) {
    op.fail("result and source overlap in part");
  }
}
inline uint64_t elements(const Op& op, int64_t count) {
  if (count <= 0) op.fail("a count of %lld elements", static_cast<long long>(count));
  return static_cast<uint64_t>(count);
}
template <typename T>
void check_repeats(const Op& op, uint64_t mask, uint32_t repeats) {
  if (mask < 1 || mask > 256 / sizeof(T)) op.fail("a mask of %llu lanes", static_cast<unsigned long long>(mask));
  if (repeats < 1 || repeats > 255) op.fail("%u repeats: they are 1 to 255", repeats);
}
template <typename T>
void lanes_read(Op& op, const LocalTensor<T>& t, const Lanes<T>& lanes, uint64_t mask, uint32_t repeats) {
  in_ub(op, t.twin_stretch());
  ub_read(op, t, 1);
  lanes.each_block(mask, repeats, [&](uint64_t offset, uint64_t bytes) { op.read(t.twin_stretch(), offset, bytes); });
}
template <typename T>
void lanes_write(Op& op, const LocalTensor<T>& t, const Lanes<T>& lanes, uint64_t mask, uint32_t repeats) {
  in_ub(op, t.twin_stretch());
  op.require(repeats == 1 || lanes.repeat_stride != 0, "repeats that all write to the same place");
  op.require(lanes.block_stride != 0, "blocks that are all written to the same place");
  lanes.each_block(mask, repeats, [&](uint64_t offset, uint64_t bytes) { op.write(t.twin_stretch(), offset, bytes); });
}

template <typename T>
constexpr bool is_float = std::is_same_v<T, float> || std::is_same_v<T, half>;
template <typename T>
constexpr bool is_arithmetic = is_float<T> || std::is_same_v<T, int32_t> || std::is_same_v<T, int16_t>;

// Halves are computed in float and rounded once, which for one sum, product or quotient is the rounded exact result.
template <typename F>
auto on_numbers(F f) {
  return [f](auto... x) {
    using T = std::common_type_t<decltype(x)...>;
    if constexpr (std::is_same_v<T, half>) {
      return half(f(static_cast<float>(x)...));
    } else if constexpr (std::is_same_v<T, float>) {
      return f(x...);
    } else {
      return static_cast<T>(f(static_cast<int64_t>(x)...));
    }
  };
}

template <typename T, typename F>
void binary(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& a, const LocalTensor<T>& b, int64_t count, F f,
            Where at) {
  Op op(Pipe::V, name, at);
  const uint64_t n = elements(op, count);
  check_overlap(op, dst, n, a, n);
  check_overlap(op, dst, n, b, n);
  const T *x = ub_read(op, a, n), *y = ub_read(op, b, n);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) d[i] = f(x[i], y[i]);
  });
}
template <typename T, typename F>
void binary(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& a, const LocalTensor<T>& b, uint64_t mask,
            uint32_t repeats, const BinaryRepeatParams& p, F f, Where at) {
  Op op(Pipe::V, name, at);
  check_repeats<T>(op, mask, repeats);
  const Lanes<T> of_d{p.dstBlkStride, p.dstRepStride}, of_a{p.src0BlkStride, p.src0RepStride},
      of_b{p.src1BlkStride, p.src1RepStride};
  lanes_read(op, a, of_a, mask, repeats);
  lanes_read(op, b, of_b, mask, repeats);
  lanes_write(op, dst, of_d, mask, repeats);
  const T *x = ub_read(op, a, 1), *y = ub_read(op, b, 1);
  T* const d = ub_write(op, dst, 1);
  op.issue([=] {
    for (uint32_t r = 0; r < repeats; ++r) {
      for (uint64_t i = 0; i < mask; ++i) d[of_d.at(r, i)] = f(x[of_a.at(r, i)], y[of_b.at(r, i)]);
    }
  });
}

template <typename T, typename F>
void unary(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& src, int64_t count, F f, Where at) {
  Op op(Pipe::V, name, at);
  const uint64_t n = elements(op, count);
  check_overlap(op, dst, n, src, n);
  const T* const s = ub_read(op, src, n);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) d[i] = f(s[i]);
  });
}
template <typename T, typename F>
void unary(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& src, uint64_t mask, uint32_t repeats,
           const UnaryRepeatParams& p, F f, Where at) {
  Op op(Pipe::V, name, at);
  check_repeats<T>(op, mask, repeats);
  const Lanes<T> of_d{p.dstBlkStride, p.dstRepStride}, of_s{p.srcBlkStride, p.srcRepStride};
  lanes_read(op, src, of_s, mask, repeats);
  lanes_write(op, dst, of_d, mask, repeats);
  const T* const s = ub_read(op, src, 1);
  T* const d = ub_write(op, dst, 1);
  op.issue([=] {
    for (uint32_t r = 0; r < repeats; ++r) {
      for (uint64_t i = 0; i < mask; ++i) d[of_d.at(r, i)] = f(s[of_s.at(r, i)]);
    }
  });
}

#define GATUN_TWIN_BINARY(Name, types, expression)                                                                       \
  template <typename T>                                                                                                  \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1, const int32_t& count,     \
            Where at = Where::here()) {                                                                                  \
    static_assert(types<T>, #Name " of this type is not of architecture 2201");                                          \
    binary(#Name, dst, src0, src1, count, on_numbers([](auto x, auto y) { return expression; }), at);                    \
  }                                                                                                                      \
  template <typename T>                                                                                                  \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1, uint64_t mask,            \
            const uint8_t repeatTime, const BinaryRepeatParams& params, Where at = Where::here()) {                      \
    static_assert(types<T>, #Name " of this type is not of architecture 2201");                                          \
    binary(#Name, dst, src0, src1, mask, repeatTime, params, on_numbers([](auto x, auto y) { return expression; }), at); \
  }
GATUN_TWIN_BINARY(Add, is_arithmetic, x + y)
GATUN_TWIN_BINARY(Sub, is_arithmetic, x - y)
GATUN_TWIN_BINARY(Mul, is_arithmetic, x* y)
GATUN_TWIN_BINARY(Div, is_float, x / y)
GATUN_TWIN_BINARY(Max, is_arithmetic, x > y ? x : y)
GATUN_TWIN_BINARY(Min, is_arithmetic, x < y ? x : y)
#undef GATUN_TWIN_BINARY

#define GATUN_TWIN_SCALAR(Name, expression)                                                                   \
  template <typename T>                                                                                       \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, const int32_t& count, \
            Where at = Where::here()) {                                                                       \
    static_assert(is_arithmetic<T>, #Name " of this type is not of architecture 2201");                       \
    const auto f = on_numbers([](auto x, auto y) { return expression; });                                     \
    unary(#Name, dst, src, count, [=](T x) { return f(x, scalarValue); }, at);                                \
  }                                                                                                           \
  template <typename T>                                                                                       \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, uint64_t mask,        \
            const uint8_t repeatTime, const UnaryRepeatParams& params, Where at = Where::here()) {            \
    static_assert(is_arithmetic<T>, #Name " of this type is not of architecture 2201");                       \
    const auto f = on_numbers([](auto x, auto y) { return expression; });                                     \
    unary(#Name, dst, src, mask, repeatTime, params, [=](T x) { return f(x, scalarValue); }, at);             \
  }
GATUN_TWIN_SCALAR(Adds, x + y)
GATUN_TWIN_SCALAR(Muls, x* y)
GATUN_TWIN_SCALAR(Maxs, x > y ? x : y)
GATUN_TWIN_SCALAR(Mins, x < y ? x : y)
#undef GATUN_TWIN_SCALAR

#define GATUN_TWIN_UNARY(Name, expression)                                                                          \
  template <typename T>                                                                                             \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count, Where at = Where::here()) { \
    static_assert(is_float<T>, #Name " of this type is not of architecture 2201");                                  \
    unary(#Name, dst, src, count, on_numbers([](auto x) { return expression; }), at);                               \
  }                                                                                                                 \
  template <typename T>                                                                                             \
  void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, uint64_t mask, const uint8_t repeatTime,          \
            const UnaryRepeatParams& params, Where at = Where::here()) {                                            \
    static_assert(is_float<T>, #Name " of this type is not of architecture 2201");                                  \
    unary(#Name, dst, src, mask, repeatTime, params, on_numbers([](auto x) { return expression; }), at);            \
  }
GATUN_TWIN_UNARY(Exp, std::exp(x))
GATUN_TWIN_UNARY(Ln, std::log(x))
GATUN_TWIN_UNARY(Abs, std::fabs(x))
GATUN_TWIN_UNARY(Sqrt, std::sqrt(x))
GATUN_TWIN_UNARY(Relu, x > 0 ? x : 0 * x)
#undef GATUN_TWIN_UNARY

template <typename T>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const int32_t& count, Where at = Where::here()) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Duplicate of this type is not of architecture 2201");
  Op op(Pipe::V, "Duplicate", at);
  const uint64_t n = elements(op, count);
  T* const d = ub_write(op, dst, n);
  op.issue([=] { std::fill(d, d + n, scalarValue); });
}

enum class RoundMode : uint8_t { CAST_NONE, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC, CAST_ODD };

// Where architecture 2201 casts from U to T: to wider numbers with CAST_NONE, to narrower ones with a rounding mode.
enum class CastKind : uint8_t { No, Exact, Rounds };
template <typename T, typename U>
constexpr CastKind cast_kind() {
  constexpr bool f32 = std::is_same_v<U, float>, f16 = std::is_same_v<U, half>, bf16 = std::is_same_v<U, bfloat16_t>;
  constexpr bool i32 = std::is_same_v<U, int32_t>, i16 = std::is_same_v<U, int16_t>;
  constexpr bool i8 = std::is_same_v<U, int8_t> || std::is_same_v<U, uint8_t>;
  constexpr bool to_f32 = std::is_same_v<T, float>, to_f16 = std::is_same_v<T, half>, to_bf16 = std::is_same_v<T, bfloat16_t>;
  constexpr bool to_i32 = std::is_same_v<T, int32_t>, to_i16 = std::is_same_v<T, int16_t>;
  constexpr bool to_i8 = std::is_same_v<T, int8_t> || std::is_same_v<T, uint8_t>;
  if ((f16 && to_f32) || (bf16 && to_f32) || (i16 && to_f32) || (i8 && to_f16)) return CastKind::Exact;
  if (f32 && (to_f32 || to_f16 || to_bf16 || to_i32 || to_i16)) return CastKind::Rounds;
  if (f16 && (to_i32 || to_i16 || to_i8)) return CastKind::Rounds;
  if ((bf16 && to_i32) || (i32 && to_f32) || (i16 && to_f16)) return CastKind::Rounds;
  return CastKind::No;
}

template <typename T, typename U>
T cast_number(U x, Rounding mode) {
  const float f = static_cast<float>(x);
  if constexpr (std::is_same_v<T, half>) {
    T h;
    h.bits = gatun::twin::half_bits(f, mode);
    return h;
  } else if constexpr (std::is_same_v<T, bfloat16_t>) {
    T b;
    b.bits = gatun::twin::bfloat16_bits(f, mode);
    return b;
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<U, float>) {
    return static_cast<float>(gatun::twin::round_to(f, 1, mode));
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<U, int32_t>) {
    return static_cast<float>(gatun::twin::round_float(x, 23, -126, mode));
  } else if constexpr (std::is_same_v<T, float>) {
    return f;
  } else {
    return gatun::twin::saturate<T>(f, mode);
  }
}

template <typename T, typename U>
void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode, const uint32_t count,
          Where at = Where::here()) {
  constexpr CastKind kind = cast_kind<T, U>();
  static_assert(kind != CastKind::No, "Cast between these types is not of architecture 2201");
  Op op(Pipe::V, "Cast", at);
  const bool none = roundMode == RoundMode::CAST_NONE;
  op.require((kind == CastKind::Exact) == none,
             kind == CastKind::Exact ? "takes CAST_NONE between these types" : "needs a rounding mode between these types");
  op.require(roundMode != RoundMode::CAST_ODD || (std::is_same_v<T, half> && std::is_same_v<U, float>),
             "CAST_ODD is of float to half");
  const Rounding mode = none ? Rounding::Rint : static_cast<Rounding>(static_cast<int>(roundMode) - 1);
  const uint64_t n = elements(op, count);
  check_overlap(op, dst, n, src, n);
  const U* const s = ub_read(op, src, n);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) d[i] = cast_number<T>(s[i], mode);
  });
}

// Sums by pairs, as trees of adders do; the order inside the hardware is not documented.
template <typename At>
float tree_sum(uint64_t n, const At& at, uint64_t first = 0) {
  if (n == 1) return at(first);
  const uint64_t h = (n + 1) / 2;
  return tree_sum(h, at, first) + tree_sum(n - h, at, first + h);
}
template <typename At>
float greatest(uint64_t n, At at) {
  float best = at(0);
  for (uint64_t i = 1; i < n; ++i) best = at(i) > best ? at(i) : best;
  return best;
}

// `kept` numbers of each repeat are left in tmp, in an order that is not documented: the twin leaves NaN there.
template <typename T, typename F>
void reduce(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& tmp, int64_t count,
            uint64_t kept, F f, Where at) {
  static_assert(is_float<T>, "reductions are of half and float");
  Op op(Pipe::V, name, at);
  const uint64_t n = elements(op, count), lanes = 256 / sizeof(T), block = 32 / sizeof(T);
  const T* const s = ub_read(op, src, n);
  const uint64_t left = (kept * ((n + lanes - 1) / lanes) + block - 1) / block * block;
  T* const w = ub_write(op, tmp, left);
  T* const d = ub_write(op, dst, 1);
  op.issue([=] {
    const T result = T(f(n, [s](uint64_t i) { return static_cast<float>(s[i]); }));
    std::fill(w, w + left, T(std::numeric_limits<float>::quiet_NaN()));
    d[0] = result;
  });
}
template <typename T, bool isSetMask = true>
void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& tmp, const int32_t count,
               Where at = Where::here()) {
  reduce("ReduceSum", dst, src, tmp, count, 1, [](uint64_t n, auto x) { return tree_sum(n, x); }, at);
}
// Keeps the index of each value as well, whether it is asked for or not.
template <typename T>
void ReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& tmp, const int32_t count,
               bool calIndex = 0, Where at = Where::here()) {
  if (calIndex) gatun::twin::fail(at, "ReduceMax: the twin does not give indices");
  reduce("ReduceMax", dst, src, tmp, count, 2, [](uint64_t n, auto x) { return greatest(n, x); }, at);
}

// A result per repeat. dstRepStride counts elements.
template <typename T, typename F>
void reduce_repeats(const char* name, const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t mask, int32_t repeats,
                    int32_t dst_stride, int32_t src_block, int32_t src_repeat, F f, Where at) {
  static_assert(is_float<T>, "reductions are of half and float");
  Op op(Pipe::V, name, at);
  check_repeats<T>(op, static_cast<uint64_t>(mask), static_cast<uint32_t>(repeats));
  op.require(dst_stride >= 1 || repeats == 1, "repeats that all write to the same place");
  const Lanes<T> lanes{static_cast<uint32_t>(src_block), static_cast<uint32_t>(src_repeat)};
  const uint64_t n = static_cast<uint64_t>(mask);
  const uint32_t count = static_cast<uint32_t>(repeats), stride = static_cast<uint32_t>(dst_stride);
  lanes_read(op, src, lanes, n, count);
  const T* const s = ub_read(op, src, 1);
  for (uint32_t r = 0; r < count; ++r)
    op.write(in_ub(op, dst.twin_stretch()), uint64_t{r} * stride * sizeof(T), sizeof(T), sizeof(T));
  T* const d = static_cast<T*>(op.write(dst.twin_stretch(), 0, sizeof(T), sizeof(T)));
  op.issue([=] {
    for (uint32_t r = 0; r < count; ++r) {
      d[uint64_t{r} * stride] = T(f(n, [&](uint64_t i) { return static_cast<float>(s[lanes.at(r, i)]); }));
    }
  });
}
template <typename T, bool isSetMask = true>
void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask, const int32_t repeatTimes,
                    const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,
                    Where at = Where::here()) {
  reduce_repeats(
      "WholeReduceSum", dst, src, mask, repeatTimes, dstRepStride, srcBlkStride, srcRepStride,
      [](uint64_t n, auto x) { return tree_sum(n, x); }, at);
}
enum class ReduceOrder : uint8_t { ORDER_VALUE_INDEX, ORDER_INDEX_VALUE, ORDER_ONLY_VALUE, ORDER_ONLY_INDEX };
template <typename T, bool isSetMask = true>
void WholeReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask, const int32_t repeatTimes,
                    const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,
                    ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX, Where at = Where::here()) {
  if (order != ReduceOrder::ORDER_ONLY_VALUE)
    gatun::twin::fail(at, "WholeReduceMax: the twin gives values alone (ORDER_ONLY_VALUE)");
  reduce_repeats(
      "WholeReduceMax", dst, src, mask, repeatTimes, dstRepStride, srcBlkStride, srcRepStride,
      [](uint64_t n, auto x) { return greatest(n, x); }, at);
}

struct BrcbRepeatParams {
  uint16_t dstBlkStride = 1, dstRepStride = 8;
  BrcbRepeatParams() = default;
  BrcbRepeatParams(uint16_t block, uint16_t repeat) : dstBlkStride(block), dstRepStride(repeat) {}
};
// Each repeat takes 8 elements and fills a block of 32 bytes with each.
template <typename T>
void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const uint8_t repeatTime, const BrcbRepeatParams& params,
          Where at = Where::here()) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Brcb is of 16 and 32 bits");
  Op op(Pipe::V, "Brcb", at);
  op.require(repeatTime >= 1, "repeats are 1 to 255");
  const Lanes<T> lanes{params.dstBlkStride, params.dstRepStride};
  const T* const s = ub_read(op, src0, repeatTime * 8ull);
  lanes_write(op, dst, lanes, 256 / sizeof(T), repeatTime);
  T* const d = ub_write(op, dst, 1);
  op.issue([=] {
    for (uint32_t r = 0; r < repeatTime; ++r) {
      for (uint64_t i = 0; i < 256 / sizeof(T); ++i) d[lanes.at(r, i)] = s[r * 8 + i / Lanes<T>::kBlock];
    }
  });
}

enum class CMPMODE : uint8_t { LT, GT, EQ, LE, GE, NE };
enum class SELMODE : uint8_t { VSEL_CMPMASK_SPR, VSEL_TENSOR_SCALAR_MODE, VSEL_TENSOR_TENSOR_MODE };
// A bit per element, the lowest first.
template <typename T, typename U>
void CompareScalar(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T scalar, CMPMODE cmpMode, uint32_t count,
                   Where at = Where::here()) {
  static_assert(is_float<T> && (std::is_same_v<U, uint8_t> || std::is_same_v<U, int8_t>),
                "CompareScalar: float or half to bits");
  Op op(Pipe::V, "CompareScalar", at);
  const uint64_t n = elements(op, count);
  op.require(n * sizeof(T) % 256 == 0, "the count is of whole repeats of 256 bytes");
  const T* const s = ub_read(op, src0, n);
  U* const d = ub_write(op, dst, n / 8);
  const float y = static_cast<float>(scalar);
  op.issue([=] {
    std::memset(d, 0, n / 8);
    for (uint64_t i = 0; i < n; ++i) {
      const float x = static_cast<float>(s[i]);
      const bool holds[] = {x<y, x> y, x == y, x <= y, x >= y, x != y};
      if (holds[static_cast<int>(cmpMode)]) d[i / 8] = static_cast<U>(d[i / 8] | 1 << i % 8);
    }
  });
}
// Where the bit is set src0, else the scalar.
template <typename T, typename U>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0, T src1, SELMODE selMode,
            uint32_t count, Where at = Where::here()) {
  static_assert(is_float<T> && sizeof(U) == 1, "Select: float or half by bits");
  Op op(Pipe::V, "Select", at);
  op.require(selMode == SELMODE::VSEL_TENSOR_SCALAR_MODE, "a scalar goes with VSEL_TENSOR_SCALAR_MODE");
  const uint64_t n = elements(op, count);
  check_overlap(op, dst, n, src0, n);
  const U* const m = ub_read(op, selMask, (n + 7) / 8);
  const T* const s = ub_read(op, src0, n);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) d[i] = m[i / 8] >> i % 8 & 1 ? s[i] : src1;
  });
}
// Where the bit is set src0, else src1.
template <typename T, typename U>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
            SELMODE selMode, uint32_t count, Where at = Where::here()) {
  static_assert(is_float<T> && sizeof(U) == 1, "Select: float or half by bits");
  Op op(Pipe::V, "Select", at);
  op.require(selMode == SELMODE::VSEL_TENSOR_TENSOR_MODE, "a tensor goes with VSEL_TENSOR_TENSOR_MODE");
  const uint64_t n = elements(op, count);
  check_overlap(op, dst, n, src0, n);
  check_overlap(op, dst, n, src1, n);
  const U* const m = ub_read(op, selMask, (n + 7) / 8);
  const T *const s0 = ub_read(op, src0, n), *const s1 = ub_read(op, src1, n);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) d[i] = m[i / 8] >> i % 8 & 1 ? s0[i] : s1[i];
  });
}

// dst[i] = the element `base + byteOffset[i]` bytes into src.
template <typename T>
void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<uint32_t>& byteOffset, const uint32_t base,
            const uint32_t count, Where at = Where::here()) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Gather is of 16 and 32 bits");
  Op op(Pipe::V, "Gather", at);
  const uint64_t n = elements(op, count), size = src.GetSize();
  const uint32_t* const o = ub_read(op, byteOffset, n);
  const T* const s = static_cast<const T*>(op.read(in_ub(op, src.twin_stretch()), 0, size * sizeof(T), true));
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t e = (uint64_t{base} + o[i]) / sizeof(T);
      if ((base + o[i]) % sizeof(T) || e >= size) {
        gatun::twin::fail_execution(Pipe::V, at, "Gather: an offset that is not of an element of the source");
        return;
      }
      d[i] = s[e];
    }
  });
}
// first, first + 1, ...
template <typename T>
void CreateVecIndex(const LocalTensor<T>& dst, const T& firstValue, const uint32_t count, Where at = Where::here()) {
  static_assert(is_arithmetic<T>, "CreateVecIndex of this type is not of architecture 2201");
  Op op(Pipe::V, "CreateVecIndex", at);
  const uint64_t n = elements(op, count);
  T* const d = ub_write(op, dst, n);
  op.issue([=] {
    for (uint64_t i = 0; i < n; ++i) {
      if constexpr (is_float<T>) {
        d[i] = T(static_cast<float>(firstValue) + static_cast<float>(i));
      } else {
        d[i] = static_cast<T>(firstValue + static_cast<T>(i));
      }
    }
  });
}

}  // namespace AscendC

#include "twin/cube.h"
