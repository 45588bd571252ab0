// Routing of one token to its experts. Compiled once per level.
//
//   softmax: e_i = exp(x_i - max x), score_i = e_i / sum of e      sigmoid: score_i = 1 / (1 + exp(-x_i))
//   key_i = score_i + bias_i; of groups that are not among the best, -infinity
//   the `top` highest keys, the highest first; weights are their scores, over their sum if wanted, times a scale
//
// Bytes: a row of x is read once, 4 experts of FP32; what is written is 16 bytes for a choice. FLOPs: some 24 for an
// expert. What binds it: the exponentials, and then the choice, since a row is in the L1 cache: a token of 256 experts
// is 1 KiB. The methods are those of gatun.h: Fedus et al. 2021, DeepSeek-AI 2024 (section 2.1.2).
//
// The choice keeps the best so far in a heap, the worst of them at its root. A vector of keys that has none above the
// root is passed by with one comparison, and nearly all are: of n keys in random order, k + k log(n / k) enter a heap
// of k. Keys come in the order of experts, so one that equals the root never replaces it: the lower expert stays, and
// of two equals the higher one is the worse.
//
// NaN needs no test of its own: it makes the sum of the scores NaN, as does +inf - +inf of a softmax.
#include "cpu/route/route.h"

#include "cpu/math.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

// Scores, with 0 beyond the last. Returns their sum, which is NaN where a score is (or for softmax, their sum before
// the division).
template <typename X>
HWY_INLINE float softmax_scores(F32 d, const X* x, int64_t n, float* scores) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF most = hn::Set(d, -kInfinity);
  // The accumulator stands second: of a NaN and a number, x86 takes the second operand, and the others the number.
  for (int64_t i = 0; i < n; i += lanes) most = hn::Max(load_up_to(d, x + i, n - i, -kInfinity), most);
  const float maximum = hn::GetLane(hn::MaxOfLanes(d, most));
  // Nothing but -inf (and NaN): any finite value in the place of the maximum keeps -inf - -inf from being NaN.
  const VF m = hn::Set(d, maximum == -kInfinity ? 0.0f : maximum);
  VF sums = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const VF e = exp_nonpositive(d, hn::Sub(load_up_to(d, x + i, n - i, -kInfinity), m));
    hn::Store(e, d, scores + i);
    sums = hn::Add(sums, e);
  }
  const float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  const VF divisor = hn::Set(d, sum == 0.0f ? 1.0f : sum);
  for (int64_t i = 0; i < n; i += lanes) hn::Store(hn::Div(hn::Load(d, scores + i), divisor), d, scores + i);
  return sum;
}

template <typename X>
HWY_INLINE float sigmoid_scores(F32 d, const X* x, int64_t n, float* scores) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF sums = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const VF score = sigmoid(d, load_up_to(d, x + i, n - i, -kInfinity));
    hn::Store(score, d, scores + i);
    sums = hn::Add(sums, score);
  }
  return hn::GetLane(hn::SumOfLanes(d, sums));
}

// Whether a is to be left out before b.
HWY_INLINE bool worse(const float* keys, int32_t a, int32_t b) {
  return keys[a] < keys[b] || (keys[a] == keys[b] && a > b);
}

// Has the element at `at` sink to where none below it is worse.
HWY_INLINE void sink(const float* keys, int32_t* heap, int64_t at, int64_t size) {
  const int32_t moved = heap[at];
  for (int64_t below = 2 * at + 1; below < size; below = 2 * at + 1) {
    if (below + 1 < size && worse(keys, heap[below + 1], heap[below])) ++below;
    if (!worse(keys, heap[below], moved)) break;
    heap[at] = heap[below];
    at = below;
  }
  heap[at] = moved;
}

// The numbers of the `top` highest of n keys, the highest first. Keys are not NaN; beyond the last they are -inf.
HWY_INLINE void choose(F32 d, const float* keys, int64_t n, int64_t top, int32_t* heap) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < top; ++i) heap[i] = static_cast<int32_t>(i);
  for (int64_t i = top / 2; i-- > 0;) sink(keys, heap, i, top);
  for (int64_t i = top / lanes * lanes; i < n; i += lanes) {
    if (hn::AllFalse(d, hn::Gt(hn::Load(d, keys + i), hn::Set(d, keys[heap[0]])))) continue;
    for (int64_t j = i < top ? top : i; j < i + lanes; ++j) {
      if (!(keys[j] > keys[heap[0]])) continue;
      heap[0] = static_cast<int32_t>(j);
      sink(keys, heap, 0, top);
    }
  }
  for (int64_t last = top - 1; last > 0; --last) {
    const int32_t worst = heap[0];
    heap[0] = heap[last];
    heap[last] = worst;
    sink(keys, heap, 0, last);
  }
}

// Half of what a group is worth: a sum of two keys could overflow, the sum of their halves does not.
HWY_INLINE float half_worth(const float* keys, int64_t n, int32_t kind) {
  float first = -kInfinity, second = -kInfinity;
  for (int64_t i = 0; i < n; ++i) {
    const float least = keys[i] < first ? keys[i] : first;
    first = keys[i] > first ? keys[i] : first;
    second = least > second ? least : second;
  }
  if (kind == GTN_ROUTE_SOFTMAX || n == 1) return 0.5f * first;
  return 0.5f * first + 0.5f * second;
}

HWY_INLINE void fill(float* from, int64_t n, float value) {
  for (int64_t i = 0; i < n; ++i) from[i] = value;
}

HWY_INLINE void leave_out_groups(F32 d, const RouteToken& t) {
  const int64_t size = t.experts / t.groups;
  for (int64_t g = 0; g < t.groups; ++g) t.worth[g] = half_worth(t.keys + g * size, size, t.kind);
  fill(t.worth + t.groups, -t.groups & (kRoutePad - 1), -kInfinity);
  choose(d, t.worth, t.groups, t.top_groups, t.chosen);
  for (int64_t i = 0; i < t.top_groups; ++i) t.worth[t.chosen[i]] = kInfinity;
  for (int64_t g = 0; g < t.groups; ++g) {
    if (t.worth[g] != kInfinity) fill(t.keys + g * size, size, -kInfinity);
  }
}

template <typename X>
void token_of(const RouteToken& t) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const X* x = static_cast<const X*>(t.x);
  const float sum = t.kind == GTN_ROUTE_SOFTMAX ? softmax_scores(d, x, t.experts, t.scores)
                                                : sigmoid_scores(d, x, t.experts, t.scores);
  if (sum != sum) {
    for (int64_t i = 0; i < t.top; ++i) {
      t.chosen[i] = static_cast<int32_t>(i);
      t.weights[i] = __builtin_nanf("");
    }
    return;
  }
  for (int64_t i = 0; i < t.experts; i += lanes) {
    const VF score = hn::Load(d, t.scores + i);
    hn::Store(t.bias == nullptr ? score : hn::Add(score, hn::Load(d, t.bias + i)), d, t.keys + i);
  }
  fill(t.keys + t.experts, -t.experts & (kRoutePad - 1), -kInfinity);
  if (t.groups > 0) leave_out_groups(d, t);
  choose(d, t.keys, t.experts, t.top, t.chosen);
  float total = 0.0f;
  for (int64_t i = 0; i < t.top; ++i) total += t.scores[t.chosen[i]];
  const float divisor = t.normalize && total != 0.0f ? total : 1.0f;
  for (int64_t i = 0; i < t.top; ++i) t.weights[i] = t.scores[t.chosen[i]] / divisor * t.scale;
}

}  // namespace

extern const RouteKernels route_kernels;
const RouteKernels route_kernels = {{token_of<float>, token_of<bf16>, token_of<f16>}};

}  // namespace gatun::cpu::GATUN_LEVEL
