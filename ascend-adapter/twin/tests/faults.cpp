// Tiny kernels, one per rule of the twin: `fault` chooses which rule is broken, 0 keeps them all.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr int kCount = 64;

struct Vector {
  GlobalTensor<float> x, y;
  Vector(GM_ADDR in, GM_ADDR out) {
    x.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(in), 256);
    y.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(out), 256);
  }
};

}  // namespace

// Doubles 64 numbers by way of flags.
extern "C" __global__ __aicore__ void twin_flags(GM_ADDR in, GM_ADDR out, GM_ADDR fault_) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  const int fault = *reinterpret_cast<__gm__ int32_t*>(fault_);
  Vector g(in, out);
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer, other, rest;
  pipe.InitBuffer(buffer, kCount * 4);
  pipe.InitBuffer(other, kCount * 4);
  if (fault == 1) pipe.InitBuffer(rest, 192 * 1024 - 511);
  LocalTensor<float> a = buffer.Get<float>(), b = other.Get<float>();
  DataCopy(a, g.x, fault == 2 ? 4 : fault == 3 ? kCount + 8 : kCount);
  if (fault == 4) DataCopy(a, g.x[256 - 32], kCount);
  SetFlag<HardEvent::MTE2_V>(fault == 5 ? 8 : 0);
  if (fault == 6) SetFlag<HardEvent::MTE2_V>(0);
  if (fault != 7) WaitFlag<HardEvent::MTE2_V>(0);
  if (fault == 8) WaitFlag<HardEvent::MTE2_V>(0);
  if (fault == 9) Add(b[4], a, a, 32);
  if (fault == 10) Add(b, a, b, kCount);
  if (fault == 11) Add(a[8], a, a, 32);
  if (fault == 12) Adds(a, a, 1.0f, uint64_t{64}, 0, UnaryRepeatParams{});
  if (fault == 13) Adds(a, a, 1.0f, uint64_t{65}, 1, UnaryRepeatParams{});
  if (fault == 14) Cast(b, a, RoundMode::CAST_NONE, kCount);
  if (fault == 15) CompareScalar(b.ReinterpretCast<uint8_t>(), a, 0.0f, CMPMODE::GT, 32u);
  Add(b, a, a, kCount);
  if (fault != 16) PipeBarrier<PIPE_V>();
  Muls(b, b, 1.0f, kCount);
  if (fault == 17) b.GetValue(0);
  if (fault == 18) a.SetValue(0, 1.0f);
  SetFlag<HardEvent::V_MTE3>(1);
  WaitFlag<HardEvent::V_MTE3>(1);
  DataCopy(fault == 19 ? g.y[256] : g.y, b, kCount);
  if (fault == 20) DataCopy(g.y, b, kCount);
  if (fault == 21) SetFlag<HardEvent::M_FIX>(0);
  if (fault == 22) CrossCoreSetFlag<0, PIPE_MTE3>(0);
  if (fault == 23) SyncAll();
  if (fault == 24) DataCopy(a, g.y, kCount);
  if (fault == 25) {
    LocalTensor<float> nothing;
    Add(nothing, a, a, kCount);
  }
}

// Doubles 2 * 64 numbers by way of queues.
extern "C" __global__ __aicore__ void twin_queues(GM_ADDR in, GM_ADDR out, GM_ADDR fault_) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  const int fault = *reinterpret_cast<__gm__ int32_t*>(fault_);
  Vector g(in, out);
  TPipe pipe;
  TQue<TPosition::VECIN, 1> from;
  TQue<TPosition::VECOUT, 1> to;
  if (fault != 1) pipe.InitBuffer(from, 2, kCount * 4);
  pipe.InitBuffer(to, 1, kCount * 4);
  if (fault == 2) SetFlag<HardEvent::MTE2_V>(7);
  for (int i = 0; i < 2; ++i) {
    LocalTensor<float> a = from.AllocTensor<float>();
    if (fault == 3) from.AllocTensor<float>(), from.AllocTensor<float>();
    DataCopy(a, g.x[i * kCount], kCount);
    if (fault == 4) from.DeQue<float>();
    from.EnQue(a);
    if (fault == 5) {
      LocalTensor<float> more = from.AllocTensor<float>();
      DataCopy(more, g.x, kCount);
      from.EnQue(more);
    }
    if (fault == 6) Add(a, a, a, kCount);
    a = from.DeQue<float>();
    LocalTensor<float> b = to.AllocTensor<float>();
    if (fault == 7) from.FreeTensor(b);
    if (fault == 8) from.FreeTensor(a);
    Add(b, a, a, kCount);
    if (fault == 9) DataCopy(g.y[i * kCount], b, kCount);
    if (fault != 8 && fault != 10) from.FreeTensor(a);
    if (fault == 11) from.FreeTensor(a);
    to.EnQue(b);
    b = to.DeQue<float>();
    if (fault == 12) Adds(b, b, 1.0f, kCount);
    DataCopy(g.y[i * kCount], b, kCount);
    if (fault != 13 || i == 0) to.FreeTensor(b);
  }
}

// Two vector cores that hand a row over: each doubles its own, and both then add the other's.
extern "C" __global__ __aicore__ void twin_sync_all(GM_ADDR in, GM_ADDR out, GM_ADDR fault_) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIV_1_0);
  const int fault = *reinterpret_cast<__gm__ int32_t*>(fault_);
  Vector g(in, out);
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 2 * kCount * 4);
  LocalTensor<float> a = buffer.Get<float>(), b = a[kCount];
  const int me = static_cast<int>(GetBlockIdx());
  DataCopy(a, g.x[me * kCount], kCount);
  SetFlag<HardEvent::MTE2_V>(0);
  WaitFlag<HardEvent::MTE2_V>(0);
  Add(a, a, a, kCount);
  SetFlag<HardEvent::V_MTE3>(0);
  WaitFlag<HardEvent::V_MTE3>(0);
  DataCopy(g.y[me * kCount], a, kCount);
  if (fault != 1 && (fault != 2 || me == 0)) SyncAll();
  DataCopy(b, g.y[(1 - me) * kCount], kCount);
  SetFlag<HardEvent::MTE2_V>(0);
  WaitFlag<HardEvent::MTE2_V>(0);
  Add(b, a, b, kCount);
  SetFlag<HardEvent::V_MTE3>(0);
  WaitFlag<HardEvent::V_MTE3>(0);
  DataCopy(g.y[(2 + me) * kCount], b, kCount);
}

extern "C" __global__ __aicore__ void twin_undeclared(GM_ADDR, GM_ADDR, GM_ADDR) { TPipe pipe; }
