// A product of [m, k] and [n, k] on a cube core, and one of [m, k] and [k, n], each in one step: `fault` chooses which rule is
// broken, 0 keeps them all.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

struct Shape {
  int32_t fault, m, n, k, transposed;
};

// Rows of GM as NZ in L1, for a matrix of `rows` padded to fractals.
template <typename T>
__aicore__ inline void load(const LocalTensor<T>& to, const GlobalTensor<T>& from, int rows, int width) {
  DataCopy(to, from,
           Nd2NzParams(1, static_cast<uint16_t>(rows), static_cast<uint16_t>(width), 0, static_cast<uint16_t>(width),
                       static_cast<uint16_t>((rows + 15) / 16 * 16), 1, 0));
}

template <typename T, typename Sum, typename Out>
__aicore__ inline void product(GM_ADDR a_, GM_ADDR b_, GM_ADDR c_, const Shape& s, QuantMode_t quant) {
  constexpr int kLine = 32 / sizeof(T);
  GlobalTensor<T> a, b;
  GlobalTensor<Out> c;
  a.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a_), static_cast<uint64_t>(s.m * s.k));
  b.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(b_), static_cast<uint64_t>(s.n * s.k));
  c.SetGlobalBuffer(reinterpret_cast<__gm__ Out*>(c_), static_cast<uint64_t>(s.m * s.n));
  TPipe pipe;
  TBuf<TPosition::A1> l1_a;
  TBuf<TPosition::B1> l1_b;
  TBuf<TPosition::A2> l0_a;
  TBuf<TPosition::B2> l0_b;
  TBuf<TPosition::CO1> l0_c;
  pipe.InitBuffer(l1_a, 64 << 10);
  pipe.InitBuffer(l1_b, 64 << 10);
  pipe.InitBuffer(l0_a, s.fault == 1 ? 65 << 10 : 32 << 10);
  pipe.InitBuffer(l0_b, 32 << 10);
  pipe.InitBuffer(l0_c, 64 << 10);
  const auto a1 = l1_a.Get<T>(), b1 = l1_b.Get<T>(), a2 = l0_a.Get<T>(), b2 = l0_b.Get<T>();
  const auto sum = l0_c.Get<Sum>();
  load(a1, a, s.m, s.k);
  s.transposed ? load(b1, b, s.k, s.n) : load(b1, b, s.n, s.k);
  SetFlag<HardEvent::MTE2_MTE1>(0);
  WaitFlag<HardEvent::MTE2_MTE1>(0);
  const int m1 = (s.m + 15) / 16, n1 = (s.n + 15) / 16, k1 = (s.k + kLine - 1) / kLine;
  for (int i = 0; i < m1; ++i) {
    LoadData(a2[i * k1 * 16 * kLine + (s.fault == 2 ? 16 : 0)], a1[i * 16 * kLine],
             LoadData2DParams(0, static_cast<uint8_t>(k1), static_cast<uint16_t>(m1), 0, 0, s.fault == 3 && sizeof(T) == 1, 0));
  }
  if (s.transposed) {  // k1 rows of fractals of [k, n], each turned over
    for (int i = 0; i < k1; ++i) {
      LoadData(b2[i * n1 * 16 * kLine], b1[i * 16 * kLine],
               LoadData2DParams(0, static_cast<uint8_t>(n1), static_cast<uint16_t>(k1), 0, 0, true, 0));
    }
  } else {
    for (int i = 0; i < k1; ++i) {
      LoadData(b2[i * n1 * 16 * kLine], b1[i * n1 * 16 * kLine],
               LoadData2DParams(0, static_cast<uint8_t>(n1), 1, 0, 0, false, 0));
    }
  }
  SetFlag<HardEvent::MTE1_M>(0);
  WaitFlag<HardEvent::MTE1_M>(0);
  const MmadParams params(static_cast<uint16_t>(s.fault == 4 ? 1 : s.m), static_cast<uint16_t>(s.n), static_cast<uint16_t>(s.k),
                          0, false, s.fault != 5);
  Mmad(s.fault == 6 ? sum[64] : sum, a2, b2, params);
  if (s.fault == 7) Mmad(sum, a2, b2, params);
  SetFlag<HardEvent::M_FIX>(0);
  WaitFlag<HardEvent::M_FIX>(0);
  FixpipeParamsV220 out(static_cast<uint16_t>(s.n), static_cast<uint16_t>(s.m),
                        static_cast<uint16_t>(s.fault == 8 ? s.m : m1 * 16), static_cast<uint32_t>(s.n), false);
  out.deqScalar = 0x3e801fff;  // 1/4, and bits that the fixpipe does not look at
  out.quantPre = s.fault == 9 ? QuantMode_t::DEQF16 : quant;
  Fixpipe(c, sum, out);
  if (s.fault == 10) Add(sum, sum, sum, 16);
}

}  // namespace

extern "C" __global__ __aicore__ void twin_cube_bf16(GM_ADDR a, GM_ADDR b, GM_ADDR c, GM_ADDR shape) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  product<bfloat16_t, float, float>(a, b, c, *reinterpret_cast<__gm__ Shape*>(shape), QuantMode_t::NoQuant);
}
extern "C" __global__ __aicore__ void twin_cube_f16(GM_ADDR a, GM_ADDR b, GM_ADDR c, GM_ADDR shape) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  product<half, float, half>(a, b, c, *reinterpret_cast<__gm__ Shape*>(shape), QuantMode_t::F322F16);
}
extern "C" __global__ __aicore__ void twin_cube_s8(GM_ADDR a, GM_ADDR b, GM_ADDR c, GM_ADDR shape) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  product<int8_t, int32_t, int32_t>(a, b, c, *reinterpret_cast<__gm__ Shape*>(shape), QuantMode_t::NoQuant);
}

extern "C" __global__ __aicore__ void twin_cube_s8_f16(GM_ADDR a, GM_ADDR b, GM_ADDR c, GM_ADDR shape) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  product<int8_t, int32_t, half>(a, b, c, *reinterpret_cast<__gm__ Shape*>(shape), QuantMode_t::DEQF16);
}

// Both vector cores double 64 numbers each; the cube core waits for both and moves them on; then all are told.
extern "C" __global__ __aicore__ void twin_cross(GM_ADDR in, GM_ADDR out, GM_ADDR, GM_ADDR shape) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  const int fault = reinterpret_cast<__gm__ Shape*>(shape)->fault;
  constexpr int kCount = 64;
  GlobalTensor<float> x, y;
  x.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(in), 1024);
  y.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(out), 1024);
  TPipe pipe;
  if (ASCEND_IS_AIC) {
    TBuf<TPosition::A1> buffer;
    pipe.InitBuffer(buffer, 2 * kCount * 4);
    const auto t = buffer.Get<float>();
    const int64_t mine = GetBlockIdx() * 4 * kCount;
    CrossCoreWaitFlag<2, PIPE_MTE2>(0);
    DataCopy(t, y[mine], 2 * kCount);
    SetFlag<HardEvent::MTE2_FIX>(0);
    WaitFlag<HardEvent::MTE2_FIX>(0);
    CrossCoreSetFlag<2, PIPE_FIX>(1);
    if (fault == 1) CrossCoreSetFlag<2, PIPE_FIX>(1);
    if (fault == 2) {
      for (int i = 0; i < 16; ++i) CrossCoreSetFlag<2, PIPE_FIX>(1);
    }
    if (fault == 3) CrossCoreWaitFlag<2, PIPE_FIX>(3);
    if (fault == 4) CrossCoreSetFlag<2, PIPE_S>(3);
    if (fault == 5) CrossCoreSetFlag<3, PIPE_FIX>(3);
    if (fault == 6) CrossCoreSetFlag<2, PIPE_FIX>(12);
  } else {
    TBuf<TPosition::VECCALC> buffer;
    pipe.InitBuffer(buffer, kCount * 4);
    const auto t = buffer.Get<float>();
    const int64_t mine = GetBlockIdx() / 2 * 4 * kCount + GetSubBlockIdx() * kCount;
    DataCopy(t, x[mine], kCount);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    Add(t, t, t, kCount);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    DataCopy(y[mine], t, kCount);
    CrossCoreSetFlag<2, PIPE_MTE3>(0);
    CrossCoreWaitFlag<2, PIPE_MTE3>(1);
    DataCopy(y[mine], t, kCount);  // the cube core has read it
  }
}
