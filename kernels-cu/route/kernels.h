#pragma once

#include <cstdint>

#include "backend/runtime.h"

namespace gatun::gpu {

struct RouteArgs {
  const void* x;
  const float* bias;  // null: none
  int32_t* experts;
  float* weights;
  int32_t* choices;  // a copy of `experts`, which somebody may write to meanwhile
  float* keys;       // workspace: `keys_stride` floats for a block; null: they are in shared memory
  int64_t keys_stride;
  int64_t tokens, x_stride, count, top, groups, top_groups;  // count: experts
  float scale;
  int32_t sigmoid, normalize;
};

// Runs of `length` choices are sorted by themselves.
struct RouteSortArgs {
  const int32_t* choices;  // [choices]
  int32_t* starts;         // [runs][experts]: how many there are, and then where the next one goes
  int64_t* offsets;
  int32_t *rows, *slots;
  int64_t count, runs, length, experts, top;  // count: choices
};

// Tokens are taken by groups of threads, several of them to a block. A group keeps its keys in shared memory, where they fit.
struct RouteKernel {
  void (*kernel)(RouteArgs);
  int threads;     // of a block
  int tokens;      // of a block
  int team_bytes;  // of shared memory, in front of the keys
};

// type: 0 FP32, 1 BF16, 2 F16.
RouteKernel route_kernel(int type, int64_t experts);

constexpr int kRouteCountThreads = 256;  // a block for a run
constexpr int kRouteStartThreads = 512;  // one block
constexpr int kRoutePlaceThreads = 128;  // a warp for a run
void (*route_count_kernel())(RouteSortArgs);
void (*route_start_kernel())(RouteSortArgs);
void (*route_place_kernel())(RouteSortArgs);

}  // namespace gatun::gpu
