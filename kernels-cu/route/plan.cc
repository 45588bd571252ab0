#include "route/plan.h"

#include <algorithm>
#include <cstdio>

#include "route/kernels.h"

namespace gatun::gpu {
namespace {

constexpr int64_t kSharedBytes = 48 * 1024;   // of shared memory at most
constexpr int64_t kBlocksMultiprocessor = 4;  // that take tokens by turns
constexpr int64_t kRun = 512;                 // choices of a run at least

class RoutePlan final : public Plan {
 public:
  RoutePlan(const Device& device, const gtn_route_desc& desc)
      : desc_(desc),
        experts_(desc.x.shape[1]),
        kernel_(route_kernel(type_index(desc.x.dtype), experts_)),
        keys_stride_(experts_ + desc.groups),
        most_blocks_(device.properties.multiprocessors * kBlocksMultiprocessor) {
    const int64_t bytes = kernel_.team_bytes + kernel_.tokens * keys_stride_ * 4;
    in_shared_ = bytes <= kSharedBytes;
    shared_bytes_ = static_cast<int>(in_shared_ ? bytes : kernel_.team_bytes);
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    gtn_status status = prepare(device.index, kernel_.kernel, shared_bytes_, message);
    if (status == GTN_OK) status = prepare(device.index, route_count_kernel(), 0, message);
    if (status == GTN_OK) status = prepare(device.index, route_start_kernel(), kStartShared, message);
    return status != GTN_OK ? status : prepare(device.index, route_place_kernel(), 0, message);
  }

  // The choices, the starts of the runs, and keys that shared memory does not hold.
  struct Workspace {
    int64_t starts_at, keys_at, bytes;
  };
  Workspace workspace(int64_t tokens) const {
    const int64_t choices = times(tokens, desc_.top);
    Workspace space;
    space.starts_at = times(choices, 4);
    space.keys_at = space.starts_at + times(times(runs(choices), experts_), 4);
    space.bytes = space.keys_at + (in_shared_ ? 0 : times(times(blocks(tokens), keys_stride_), 4));
    return space;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_route_args& args = *static_cast<const gtn_route_args*>(arguments);
    const Workspace space = workspace(args.tokens);
    void* memory = nullptr;
    if (gtn_status status = stream.scratch(space.bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);
    RouteSortArgs sort = {};
    sort.choices = reinterpret_cast<int32_t*>(scratch);
    sort.starts = reinterpret_cast<int32_t*>(scratch + space.starts_at);
    sort.offsets = args.offsets, sort.rows = args.rows, sort.slots = args.slots;
    sort.count = args.tokens * desc_.top, sort.experts = experts_, sort.top = desc_.top;
    sort.runs = runs(sort.count), sort.length = length();
    if (args.tokens > 0) {
      RouteArgs to = {};
      to.x = args.x, to.bias = args.bias, to.experts = args.experts, to.weights = args.weights;
      to.choices = reinterpret_cast<int32_t*>(scratch);
      to.keys = in_shared_ ? nullptr : reinterpret_cast<float*>(scratch + space.keys_at);
      to.keys_stride = keys_stride_;
      to.tokens = args.tokens, to.x_stride = desc_.x.strides[0], to.count = experts_, to.top = desc_.top;
      to.groups = desc_.groups, to.top_groups = desc_.top_groups, to.scale = desc_.scale;
      to.sigmoid = desc_.kind == GTN_ROUTE_SIGMOID, to.normalize = desc_.normalize;
      gtn_status status =
          launch(stream.queue, kernel_.kernel, {blocks(args.tokens)}, kernel_.threads, shared_bytes_, to, message);
      if (status == GTN_OK) status = launch(stream.queue, route_count_kernel(), {sort.runs}, kRouteCountThreads, 0, sort, message);
      if (status != GTN_OK) return status;
    }
    const gtn_status status = launch(stream.queue, route_start_kernel(), {}, kRouteStartThreads, kStartShared, sort, message);
    if (status != GTN_OK || args.tokens == 0) return status;
    return launch(stream.queue, route_place_kernel(), {ceil_div(sort.runs, kRoutePlaceThreads / kWarp)}, kRoutePlaceThreads, 0,
                  sort, message);
  }

 private:
  static constexpr int kStartShared = 2 * (kRouteStartThreads / kWarp) * 4;

  int64_t blocks(int64_t tokens) const { return std::min(ceil_div(tokens, kernel_.tokens), most_blocks_); }

  // Counting costs an expert as much as a choice, so a run has as many of these at least.
  int64_t length() const { return std::max(kRun, experts_); }
  int64_t runs(int64_t choices) const { return ceil_div(choices, length()); }

  const gtn_route_desc desc_;
  const int64_t experts_;
  const RouteKernel kernel_;
  const int64_t keys_stride_;  // floats of a token: experts, and groups
  const int64_t most_blocks_;
  bool in_shared_;
  int shared_bytes_;
};

// Of an expert: its score, as in a softmax, and one each for the bias and for the comparison.
constexpr double kScoreFlops = 24;

}  // namespace

bool route_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status route_plan(Device& device, const gtn_route_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<RoutePlan>(message, device, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  char name[40];
  std::snprintf(name, sizeof name, "route.%s.%s", desc.kind == GTN_ROUTE_SOFTMAX ? "softmax" : "sigmoid",
                type_name(desc.x.dtype));
  name_kernel(info, device, name);
  const double tokens = static_cast<double>(desc.x.shape[0]), experts = static_cast<double>(desc.x.shape[1]);
  const bool bias = desc.has_bias != 0;
  info->flops = tokens * experts * (kScoreFlops + 1 + (bias ? 1 : 0));
  // Of a choice: its expert, weight, row and slot.
  info->bytes = tokens * (experts * static_cast<double>(element_bytes(desc.x.dtype)) + 16 * static_cast<double>(desc.top)) +
                8 * (experts + 1) + (bias ? 4 * experts : 0);
  // Runs take fewer choices than have numbers of 31 bits.
  info->workspace_bytes = created->workspace(std::min(desc.x.shape[0], INT32_MAX / desc.top)).bytes;
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
