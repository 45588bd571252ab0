// Merge of attention over parts of the keys.
//
//   m = max lse_i,  e_i = exp(lse_i - m),  S = sum of e_i
//   out = sum of e_i x_i / (S + exp(sink - m)),  lse = m + log S
//
// Bytes: x is read once and out written once, 4 (parts + 1) of FP32 for an element of out; a log-sum-exp is 4 bytes for a whole
// row. FLOPs: 2 parts for an element, and some 30 parts for a row. What binds it: memory. A warp has a row of out: its lanes read the
// log-sum-exp of a part each at once, and hand around the weights they make of them; a pack of out is summed over all parts in
// registers. Only the last step writes lse, which may be the first part's.
//
// A sink logit above the maximum would overflow e_i's counterpart, so both are taken relative to M = max(m, sink): out's weights
// are e_i f / (S f + g) with f = exp(m - M), g = exp(sink - M), one of which is 1.
//
// A weight of 0 is no share: of a part whose log-sum-exp is -inf, or more than 104 below the maximum, x is not looked at. NaN among
// the log-sum-exps is dropped by the maximum and comes back through its exponential; +inf does the same through inf - inf; both
// turn the row and its log-sum-exp into NaN. Weights are added by a tree, rows in the order of the parts.
#include "merge/kernels.h"

#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 2;

template <typename X, typename Y, int N>
GPU_KERNEL(kThreads, 1) void merge_rows(const MergeArgs a) {
  const int64_t row = static_cast<int64_t>(block_x()) * (kThreads / kWarp) + warp();
  if (row >= a.batch * a.length * a.heads) return;
  const int64_t token_row = row / a.heads, head = row - token_row * a.heads;
  const int64_t sequence = token_row / a.length, token = token_row - sequence * a.length;
  const float* x_lse = a.x_lse + sequence * a.x_lse_batch + head * a.x_lse_head + token * a.x_lse_token;
  const auto lse_of = [&](int64_t part) { return part < a.parts ? x_lse[part * a.x_lse_part] : -infinity(); };

  float most = -infinity();
  for (int64_t first = 0; first < a.parts; first += kWarp) {
    const float lse = lse_of(first + lane());
    most = lse > most ? lse : most;
  }
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(most, mask);
    most = other > most ? other : most;
  }
  // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN.
  const float m = most == -infinity() ? 0.0f : most;
  float sum = 0.0f;
  for (int64_t first = 0; first < a.parts; first += kWarp) sum += exp_nonpositive(lse_of(first + lane()) - m);
  sum = warp_sum(sum);
  float factor;
  if (a.sink_logits != nullptr) {
    const float sink = a.sink_logits[head];
    const float both = sink > m ? sink : m;
    const float f = exp_nonpositive(m - both);
    factor = f / fma(sum, f, exp_nonpositive(sink - both));
  } else {
    factor = 1.0f / sum;
  }
  if (sum == 0.0f) factor = 0.0f;

  const X* x = static_cast<const X*>(a.x) + sequence * a.x_batch + token * a.x_token + head * a.x_head;
  Y* out = static_cast<Y*>(a.out) + sequence * a.out_batch + token * a.out_token + head * a.out_head;
  for (int64_t start = 0; start < a.n; start += kWarp * N * kPacks) {
    const int64_t column = start + static_cast<int64_t>(lane()) * N;
    float total[kPacks][N] = {};
    for (int64_t first = 0; first < a.parts; first += kWarp) {
      const float mine = exp_nonpositive(lse_of(first + lane()) - m) * factor;
      const int count = a.parts - first < kWarp ? static_cast<int>(a.parts - first) : kWarp;
      for (int i = 0; i < count; ++i) {
        const float weight = shuffle(mine, i);
        if (weight == 0.0f) continue;
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
          const int64_t c = column + static_cast<int64_t>(p) * kWarp * N;
          if (c >= a.n) continue;
          float v[N];
          load_pack(x + (first + i) * a.x_part + c, v);
#pragma unroll
          for (int j = 0; j < N; ++j) total[p][j] = fma(v[j], weight, total[p][j]);
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t c = column + static_cast<int64_t>(p) * kWarp * N;
      if (c < a.n) store_pack(out + c, total[p]);
    }
  }
  sync_warp();  // all lanes have read the log-sum-exps
  if (a.lse != nullptr && lane() == 0) {
    a.lse[sequence * a.lse_batch + head * a.lse_head + token * a.lse_token] = m + log(sum);
  }
}

template <typename X, typename Y>
MergeKernel kernel_for(bool aligned) {
  if (aligned) return {merge_rows<X, Y, kPackOf<X, Y>>, kThreads, kThreads / kWarp};
  return {merge_rows<X, Y, 1>, kThreads, kThreads / kWarp};
}

template <typename X>
MergeKernel kernel_to(int out_type, bool aligned) {
  return out_type == 0   ? kernel_for<X, float>(aligned)
         : out_type == 1 ? kernel_for<X, Bf16>(aligned)
                         : kernel_for<X, Half>(aligned);
}

}  // namespace

MergeKernel merge_kernel(int x_type, int out_type, bool aligned) {
  return x_type == 0   ? kernel_to<float>(out_type, aligned)
         : x_type == 1 ? kernel_to<Bf16>(out_type, aligned)
                       : kernel_to<Half>(out_type, aligned);
}

}  // namespace gatun::gpu
