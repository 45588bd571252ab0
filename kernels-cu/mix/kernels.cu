// Gated sum.
//
//   out[i] = residual[i] + sum over parts of weight * x[i], in FP32, in the order of parts, the residual last
//
// Bytes: every part's row is read once, the residual too, and out is written once: 4 (parts + 2) of FP32 an element. FLOPs: 2
// for an element of a part, 1 for the residual; some 26 for a gate, of which a row has few. What binds it: memory. So a warp goes over
// a tile of a row once, with the sums in registers, and has several packs of a part under way. Its lanes compute a part's weight
// each at once and hand them around; a part without a share is not looked at.
//
// A row_index outside of x counts as -1, no part.
//
// The uses are in gatun.h: Yuan et al. 2025 (equation 5), Alayrac et al. 2022 (section 2.2).
#include "mix/kernels.h"

#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 2;

GPU_DEVICE float weight_of(int gate, float v) { return gate == 1 ? sigmoid(v) : gate == 2 ? tanh(v) : v; }

template <typename X, typename Y, int N>
GPU_KERNEL(kThreads, 1) void mix_tiles(const MixArgs a) {
  const int64_t task = static_cast<int64_t>(block_x()) * (kThreads / kWarp) + warp();
  const int64_t row = task / a.tiles;
  if (row >= a.tokens * a.heads) return;
  const int64_t token = row / a.heads, head = row - token * a.heads;
  const int64_t column = (task - row * a.tiles) * (kWarp * N * kPacks) + static_cast<int64_t>(lane()) * N;

  float sum[kPacks][N] = {};
  for (int64_t first = 0; first < a.parts; first += kWarp) {
    // The lane's part: its weight, and the number of its row, where that is something.
    const int64_t mine = first + lane();
    float weight = 0.0f;
    int32_t index = -1;
    if (mine < a.parts) {
      weight = weight_of(a.gate, a.gates[token * a.gate_token + mine * a.gate_part + head * a.gate_head]);
      if (a.row_index != nullptr) {
        index = a.row_index[token * a.parts + mine];
        if (index < 0 || index >= a.rows_x) weight = 0.0f;
      }
    }
    const int count = a.parts - first < kWarp ? static_cast<int>(a.parts - first) : kWarp;
    for (int i = 0; i < count; ++i) {
      const float w = shuffle(weight, i);
      const int64_t at = a.row_index != nullptr ? static_cast<int64_t>(shuffle(index, i)) * a.x_token
                                                : (first + i) * a.x_part + token * a.x_token;
      if (w == 0.0f) continue;
      const X* x = static_cast<const X*>(a.x) + at + head * a.x_head;
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int64_t c = column + static_cast<int64_t>(p) * kWarp * N;
        if (c >= a.n) continue;
        float v[N];
        load_pack(x + c, v);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[p][j] = fma(v[j], w, sum[p][j]);
      }
    }
  }
  const int64_t to = token * a.out_token + head * a.out_head;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t c = column + static_cast<int64_t>(p) * kWarp * N;
    if (c >= a.n) continue;
    if (a.residual != nullptr) {
      float r[N];
      load_pack(static_cast<const Y*>(a.residual) + to + c, r);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[p][j] += r[j];
    }
    store_pack(static_cast<Y*>(a.out) + to + c, sum[p]);
  }
}

template <typename X, typename Y>
MixKernel kernel_for(bool aligned) {
  constexpr int N = kPackOf<X, Y>;
  if (aligned) return {mix_tiles<X, Y, N>, kThreads, kThreads / kWarp, int64_t{kWarp} * N * kPacks};
  return {mix_tiles<X, Y, 1>, kThreads, kThreads / kWarp, int64_t{kWarp} * kPacks};
}

template <typename X>
MixKernel kernel_to(int out_type, bool aligned) {
  return out_type == 0   ? kernel_for<X, float>(aligned)
         : out_type == 1 ? kernel_for<X, Bf16>(aligned)
                         : kernel_for<X, Half>(aligned);
}

}  // namespace

MixKernel mix_kernel(int x_type, int out_type, bool aligned) {
  return x_type == 0   ? kernel_to<float>(out_type, aligned)
         : x_type == 1 ? kernel_to<Bf16>(out_type, aligned)
                       : kernel_to<Half>(out_type, aligned);
}

}  // namespace gatun::gpu
