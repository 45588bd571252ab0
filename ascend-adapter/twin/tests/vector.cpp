// One instruction of the vector unit at a time, on x of 256 floats and of 256 more: `which` chooses it.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void twin_vector(GM_ADDR in, GM_ADDR out, GM_ADDR which_) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  const int which = *reinterpret_cast<__gm__ int32_t*>(which_);
  constexpr int kCount = 256;
  GlobalTensor<float> x, y;
  x.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(in), 2 * kCount);
  y.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(out), kCount);
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 8 * kCount * 4);
  const LocalTensor<float> all = buffer.Get<float>();
  const LocalTensor<float> a = all, b = all[kCount], d = all[2 * kCount], t = all[3 * kCount];
  const LocalTensor<half> h = t.ReinterpretCast<half>();
  const LocalTensor<bfloat16_t> f = t.ReinterpretCast<bfloat16_t>();
  const LocalTensor<int32_t> i = t.ReinterpretCast<int32_t>();
  const LocalTensor<uint32_t> o = t.ReinterpretCast<uint32_t>();
  const LocalTensor<uint8_t> m = t.ReinterpretCast<uint8_t>();
  const LocalTensor<int8_t> c = all[4 * kCount].ReinterpretCast<int8_t>();
  const LocalTensor<half> h2 = all[5 * kCount].ReinterpretCast<half>();
  DataCopy(a, x, 2 * kCount);
  SetFlag<HardEvent::MTE2_V>(0);
  WaitFlag<HardEvent::MTE2_V>(0);
  Duplicate(d, 0.0f, kCount);
  PipeBarrier<PIPE_V>();
  switch (which) {
    case 0:
      Add(d, a, b, 250);
      break;
    case 1:
      Sub(d, a, b, 250);
      break;
    case 2:
      Mul(d, a, b, 250);
      break;
    case 3:
      Div(d, a, b, 250);
      break;
    case 4:
      Max(d, a, b, 250);
      break;
    case 5:
      Min(d, a, b, 250);
      break;
    case 6:
      Adds(d, a, 1.5f, 250);
      break;
    case 7:
      Muls(d, a, 1.5f, 250);
      break;
    case 8:
      Maxs(d, a, 1.5f, 250);
      break;
    case 9:
      Mins(d, a, 1.5f, 250);
      break;
    case 10:
      Exp(d, a, 250);
      break;
    case 11:
      Ln(d, b, 250);
      break;
    case 12:
      Abs(d, a, 250);
      break;
    case 13:
      Sqrt(d, b, 250);
      break;
    case 14:
      Relu(d, a, 250);
      break;
    case 15:
      Duplicate(d, 2.5f, 250);
      break;
    case 16:  // 24 lanes of each of 2 repeats: every other block of a, the same row of b, every other repeat of d
      Sub(d, a, b, 24, 2, BinaryRepeatParams(1, 2, 1, 16, 8, 0));
      break;
    case 17:
      Muls(d, a, 2.0f, 50, 3, UnaryRepeatParams(1, 1, 8, 8));
      break;
    case 18:
      Add(d, a, b, 64, 4, BinaryRepeatParams(1, 1, 0, 8, 8, 1));
      break;
    case 19:
      WholeReduceSum(d, a, 40, 3, 2, 1, 8);
      break;
    case 20:
      WholeReduceMax(d, a, 64, 2, 1, 1, 16, ReduceOrder::ORDER_ONLY_VALUE);
      break;
    case 21:
      ReduceSum(d, a, t, 250);
      break;
    case 22:
      ReduceMax(d, a, t, 250);
      break;
    case 23:
      Brcb(d, a, 4, BrcbRepeatParams(1, 8));
      break;
    case 24:
      CreateVecIndex(d, -3.0f, 250);
      break;
    case 25:
      CompareScalar(m, a, 0.25f, CMPMODE::GE, 192);
      PipeBarrier<PIPE_V>();
      Select(d, m, b, -7.0f, SELMODE::VSEL_TENSOR_SCALAR_MODE, 192);
      break;
    case 26:
      CreateVecIndex(i, int32_t{0}, 60);
      PipeBarrier<PIPE_V>();
      Muls(i, i, int32_t{8}, 60);
      PipeBarrier<PIPE_V>();
      Gather(d, a, o, 4, 60);
      break;
    case 27:
      Cast(h, a, RoundMode::CAST_RINT, 250);
      PipeBarrier<PIPE_V>();
      Cast(d, h, RoundMode::CAST_NONE, 250);
      break;
    case 28:
      Cast(f, a, RoundMode::CAST_RINT, 250);
      PipeBarrier<PIPE_V>();
      Cast(d, f, RoundMode::CAST_NONE, 250);
      break;
    case 29:
      Cast(i, a, RoundMode::CAST_FLOOR, 250);
      PipeBarrier<PIPE_V>();
      Cast(d, i, RoundMode::CAST_RINT, 250);
      break;
    case 30:
      Cast(h, a, RoundMode::CAST_RINT, 250);
      PipeBarrier<PIPE_V>();
      Cast(c, h, RoundMode::CAST_ROUND, 250);
      PipeBarrier<PIPE_V>();
      Cast(h2, c, RoundMode::CAST_NONE, 250);
      PipeBarrier<PIPE_V>();
      Cast(d, h2, RoundMode::CAST_NONE, 250);
      break;
    case 31:
      Cast(d, a, RoundMode::CAST_TRUNC, 250);
      break;
    case 32:  // room for a value of each repeat
      ReduceSum(d, a, all[8 * kCount - 8], 320);
      break;
    case 33:  // and not for an index as well
      ReduceMax(d, a, all[8 * kCount - 8], 320);
      break;
    case 34:  // what it leaves in its work buffer
      ReduceMax(d, a, t, 320);
      PipeBarrier<PIPE_V>();
      Muls(d, t, 1.0f, 16);
      break;
    default:  // rows of 5 elements, with a gap of 3 in GM, padded by two on the right: a row is 32 bytes
      SetFlag<HardEvent::V_MTE2>(0);
      WaitFlag<HardEvent::V_MTE2>(0);
      DataCopyPad(d, x, DataCopyExtParams(4, 20, 12, 1, 0), DataCopyPadExtParams<float>(true, 1, 2, 9.0f));
  }
  SetFlag<HardEvent::V_MTE3>(0);
  WaitFlag<HardEvent::V_MTE3>(0);
  SetFlag<HardEvent::MTE2_MTE3>(0);
  WaitFlag<HardEvent::MTE2_MTE3>(0);
  DataCopy(y, d, kCount);
}
