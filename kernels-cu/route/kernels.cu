// Routing of tokens to experts, and the order that brings the tokens of an expert together.
//
//   softmax: e_i = exp(x_i - max x), score_i = e_i / sum of e      sigmoid: score_i = 1 / (1 + exp(-x_i))
//   key_i = score_i + bias_i; of groups that are not among the best, -infinity
//   the `top` highest keys, the highest first; weights are their scores, over their sum if wanted, times a scale
//
// Bytes: a row of x is read once, 4 an expert of FP32; a choice writes 20 and is read back twice. FLOPs: some 24 for an expert,
// and a comparison for each choice. What binds it: latency. A token of 256 experts is 1 KiB, and its choices come one after
// the other, each a reduction over the group; so a warp has a token to itself up to some hundred experts, and a block beyond.
//
// The keys stay as they are: the next choice is the best of those that come after the last one, in the order of rising expert
// within falling key. Only a bias that is not finite makes a key NaN (the host cannot look at it): it counts as -infinity.
//
// Choices are sorted by counting, in runs: each is counted by a block, one block adds the counts up, and a warp a run gives out
// places, a choice for each lane at a time, in their order. So the rows of an expert are in the order of tokens.
//
// The methods are those of gatun.h: Fedus et al. 2021, DeepSeek-AI 2024 (section 2.1.2).
#include "route/kernels.h"

#include "gpu/choice.h"

namespace gatun::gpu {
namespace {

// Half of what a group is worth: a sum of two keys could overflow, the sum of their halves does not.
GPU_DEVICE float half_worth(const float* keys, int64_t n, bool two) {
  float first = -infinity(), second = -infinity();
  for (int64_t i = 0; i < n; ++i) {
    const float key = keys[i], least = key < first ? key : first;
    first = key > first ? key : first;
    second = least > second ? least : second;
  }
  return two && n > 1 ? 0.5f * first + 0.5f * second : 0.5f * first;
}

template <typename X, int kThreads>
GPU_DEVICE void route_token(const RouteArgs& a, int64_t token, float* keys, Team<kThreads>& team, Group<kThreads>& group) {
  const int64_t n = a.count;
  const int me = group_thread<kThreads>();
  const X* x = static_cast<const X*>(a.x) + token * a.x_stride;
  float maximum = 0.0f;
  if (a.sigmoid == 0) {
    maximum = -infinity();
    for (int64_t i = me; i < n; i += kThreads) maximum = greater_of(maximum, to_float(x[i]));
    maximum = group.max(maximum);
    // Nothing but -inf (and NaN): any finite value in its place keeps -inf - -inf from being NaN.
    if (maximum == -infinity()) maximum = 0.0f;
  }
  const auto undivided = [&](int64_t i) {
    const float v = to_float(x[i]);
    return a.sigmoid != 0 ? sigmoid(v) : exp_nonpositive(v - maximum);
  };
  float sum = 0.0f;
  for (int64_t i = me; i < n; i += kThreads) {
    const float score = undivided(i);
    keys[i] = score;
    sum += score;
  }
  sum = group.sum(sum);
  float* weights = a.weights + token * a.top;
  const auto choose = [&](int64_t i, int32_t expert, float weight) {
    a.experts[token * a.top + i] = a.choices[token * a.top + i] = expert;
    weights[i] = weight;
  };
  // NaN in any score is NaN in their sum, as is the +inf - +inf of a softmax.
  if (sum != sum) {
    for (int64_t i = me; i < a.top; i += kThreads) choose(i, static_cast<int32_t>(i), not_a_number());
    return;
  }
  const float divisor = a.sigmoid != 0 || sum == 0.0f ? 1.0f : sum;
  for (int64_t i = me; i < n; i += kThreads) {
    const float score = keys[i] / divisor, key = a.bias == nullptr ? score : score + a.bias[i];
    keys[i] = key == key ? key : -infinity();
  }
  team.sync();
  if (a.groups > 0) {
    float* worth = keys + n;
    const int64_t size = n / a.groups;
    for (int64_t g = me; g < a.groups; g += kThreads) worth[g] = half_worth(keys + g * size, size, a.sigmoid != 0);
    team.sync();
    Best last = before_all();
    for (int64_t i = 0; i < a.top_groups; ++i) last = team.next(worth, a.groups, last);
    for (int64_t i = me; i < n; i += kThreads) {
      const Best of = {worth[i / size], static_cast<int32_t>(i / size)};
      if (before(last, of)) keys[i] = -infinity();
    }
    team.sync();
  }
  Best last = before_all();
  float total = 0.0f;
  for (int64_t i = 0; i < a.top; ++i) {
    last = team.next(keys, n, last);
    const float score = undivided(last.at) / divisor;
    total += score;
    // Of these, each thread writes and reads back its own.
    if (i % kThreads == me) choose(i, last.at, score);
  }
  const float share = a.normalize != 0 && total != 0.0f ? total : 1.0f;
  for (int64_t i = me; i < a.top; i += kThreads) weights[i] = weights[i] / share * a.scale;
}

template <typename X, int kThreads>
GPU_KERNEL(kTeamBlock, 1) void route_tokens(const RouteArgs a) {
  constexpr int kTokens = kTeamBlock / kThreads;
  float* keys;
  if (a.keys != nullptr) {
    keys = a.keys + block_x() * a.keys_stride;
  } else {
    keys = reinterpret_cast<float*>(shared() + Team<kThreads>::kSharedBytes);
    if constexpr (kTokens > 1) keys += warp() * a.keys_stride;
  }
  Team<kThreads> team;
  Group<kThreads> group;
  for (int64_t token = group_row<kThreads>(); token < a.tokens; token += static_cast<int64_t>(grid_x()) * kTokens) {
    route_token<X, kThreads>(a, token, keys, team, group);
    team.sync();  // the keys are read no more
  }
}

template <typename X>
RouteKernel kernel_for(int64_t experts) {
  constexpr int64_t kWarpExperts = 512;
  if (experts <= kWarpExperts) return {route_tokens<X, kWarp>, kTeamBlock, kTeamBlock / kWarp, Team<kWarp>::kSharedBytes};
  return {route_tokens<X, kTeamBlock>, kTeamBlock, 1, Team<kTeamBlock>::kSharedBytes};
}

GPU_KERNEL(kRouteCountThreads, 1) void route_count(const RouteSortArgs a) {
  const int64_t run = block_x();
  int32_t* counts = a.starts + run * a.experts;
  for (int64_t e = thread(); e < a.experts; e += kRouteCountThreads) counts[e] = 0;
  sync_threads();
  const int64_t end = (run + 1) * a.length < a.count ? (run + 1) * a.length : a.count;
  for (int64_t i = run * a.length + thread(); i < end; i += kRouteCountThreads) atomic_add(&counts[a.choices[i]], 1);
}

GPU_KERNEL(kRouteStartThreads, 1) void route_start(const RouteSortArgs a) {
  const int32_t choices = starts_of_counts<kRouteStartThreads>(a.starts, a.runs, a.experts, reinterpret_cast<int32_t*>(shared()),
                                                               [&](int64_t expert, int32_t start) { a.offsets[expert] = start; });
  if (thread() == 0) a.offsets[a.experts] = choices;
}

GPU_KERNEL(kRoutePlaceThreads, 1) void route_place(const RouteSortArgs a) {
  const int64_t run = static_cast<int64_t>(block_x()) * (kRoutePlaceThreads / kWarp) + warp();
  if (run >= a.runs) return;
  const int64_t end = (run + 1) * a.length < a.count ? (run + 1) * a.length : a.count;
  give_out_places(
      a.starts + run * a.experts, run * a.length, end, [&](int64_t i) { return a.choices[i]; },
      [&](int64_t i, int32_t slot) {
        a.slots[i] = slot;
        a.rows[slot] = static_cast<int32_t>(i / a.top);
      });
}

}  // namespace

RouteKernel route_kernel(int type, int64_t experts) {
  return type == 0 ? kernel_for<float>(experts) : type == 1 ? kernel_for<Bf16>(experts) : kernel_for<Half>(experts);
}

void (*route_count_kernel())(RouteSortArgs) { return route_count; }
void (*route_start_kernel())(RouteSortArgs) { return route_start; }
void (*route_place_kernel())(RouteSortArgs) { return route_place; }

}  // namespace gatun::gpu
