// The route plan: checks a run's bias, has a level's kernel choose for every token, and sorts the choices by expert.
#include "cpu/route/route.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace gatun::cpu {
namespace {

// 32 KiB of FP32: long enough to hide the cost of handing out a task, short enough to balance.
constexpr int64_t kTaskElements = 8192;
// Choices that are worth a thread of their own when they are sorted.
constexpr int64_t kSortedElements = 16384;

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }
int64_t padded(int64_t floats) { return (floats + kRoutePad - 1) / kRoutePad * kRoutePad; }

// What one worker needs for a token.
struct Rows {
  float *scores, *keys, *worth;
  int32_t* chosen;

  static Rows take(Workspace& workspace, const gtn_route_desc& desc) {
    Rows rows;
    rows.scores = workspace.take<float>(padded(desc.x.shape[1]));
    rows.keys = workspace.take<float>(padded(desc.x.shape[1]));
    rows.worth = workspace.take<float>(padded(desc.groups));
    rows.chosen = workspace.take<int32_t>(desc.top > desc.top_groups ? desc.top : desc.top_groups);
    return rows;
  }
};

// What a run needs: a finite bias, the choices of all tokens, and for each run of tokens that is sorted by itself where
// the rows of each expert start. The choices are copies, since another thread may write to the outputs meanwhile.
struct Memory {
  float* bias;
  int32_t* choices;
  int32_t* starts;
  char* rows;

  static Memory take(Workspace& workspace, const gtn_route_desc& desc, int64_t tokens, int64_t runs, int64_t row_bytes,
                     int threads) {
    Memory memory;
    memory.bias = workspace.take<float>(desc.has_bias != 0 ? padded(desc.x.shape[1]) : 0);
    memory.choices = workspace.take<int32_t>(times(tokens, desc.top));
    memory.starts = workspace.take<int32_t>(times(runs, desc.x.shape[1]));
    memory.rows = workspace.take<char>(times(row_bytes, threads));
    return memory;
  }
};

class RoutePlan final : public Plan {
 public:
  RoutePlan(const Device& device, const gtn_route_desc& desc)
      : kernel_(device.level->kernels->route->token[index_of(desc.x.dtype)]),
        desc_(desc),
        experts_(desc.x.shape[1]),
        height_(experts_ < kTaskElements ? kTaskElements / experts_ : 1) {
    Workspace sizes(nullptr);
    Rows::take(sizes, desc);
    row_bytes_ = sizes.used();
  }

  int64_t workspace_bytes(int threads, int64_t tokens) const {
    Workspace sizes(nullptr);
    Memory::take(sizes, desc_, tokens, runs_of(tokens, threads), row_bytes_, threads);
    return sizes.used();
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_route_args& args = *static_cast<const gtn_route_args*>(arguments);
    const int threads = stream.device->threads;
    Workspace workspace(static_cast<char*>(stream.scratch(workspace_bytes(threads, args.tokens))));
    if (workspace.memory() == nullptr) {
      return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a route");
    }
    const int64_t runs = runs_of(args.tokens, threads);
    const Memory memory = Memory::take(workspace, desc_, args.tokens, runs, row_bytes_, threads);
    if (desc_.has_bias != 0) {
      std::memcpy(memory.bias, args.bias, static_cast<size_t>(experts_) * 4);
      for (int64_t i = 0; i < experts_; ++i) {
        if (std::isfinite(memory.bias[i])) continue;
        return fail(message, GTN_INVALID_ARGUMENT, "bias[%lld] is %g, expected a finite number",
                    static_cast<long long>(i), static_cast<double>(memory.bias[i]));
      }
      for (int64_t i = experts_; i < padded(experts_); ++i) memory.bias[i] = 0.0f;
    }
    parallel(threads, (args.tokens + height_ - 1) / height_, [&](int64_t task, int worker) {
      const int64_t first = task * height_, end = args.tokens - first < height_ ? args.tokens : first + height_;
      choose(args, memory, first, end, memory.rows + worker * row_bytes_);
    });
    sort(args, memory, runs, threads);
    return GTN_OK;
  }

 private:
  // How many runs of tokens are sorted by themselves. Counting costs an expert as much as a choice, so there are no
  // more runs than that choices outnumber experts.
  int64_t runs_of(int64_t tokens, int threads) const {
    const int64_t runs = times(tokens, desc_.top) / (experts_ > kSortedElements ? experts_ : kSortedElements);
    return runs < 1 ? 1 : runs < threads ? runs : threads;
  }

  void choose(const gtn_route_args& args, const Memory& memory, int64_t first, int64_t end, char* scratch) const {
    Workspace workspace(scratch);
    const Rows rows = Rows::take(workspace, desc_);
    const int64_t top = desc_.top;
    RouteToken token = {};
    token.bias = memory.bias;
    token.kind = desc_.kind;
    token.experts = experts_;
    token.top = top;
    token.groups = desc_.groups;
    token.top_groups = desc_.top_groups;
    token.normalize = desc_.normalize != 0;
    token.scale = desc_.scale;
    token.chosen = rows.chosen;
    token.scores = rows.scores;
    token.keys = rows.keys;
    token.worth = rows.worth;
    for (int64_t t = first; t < end; ++t) {
      token.x = static_cast<const char*>(args.x) + t * desc_.x.strides[0] * size_of(desc_.x.dtype);
      token.weights = args.weights + t * top;
      kernel_(token);
      std::memcpy(memory.choices + t * top, rows.chosen, static_cast<size_t>(top) * 4);
      std::memcpy(args.experts + t * top, rows.chosen, static_cast<size_t>(top) * 4);
    }
  }

  // A counting sort, stable, so that the rows of an expert are in the order of tokens however many runs there are.
  void sort(const gtn_route_args& args, const Memory& memory, int64_t runs, int threads) const {
    const int64_t top = desc_.top, length = (args.tokens + runs - 1) / runs;
    const auto end_of = [&](int64_t run) {
      return (run + 1) * length < args.tokens ? (run + 1) * length : args.tokens;
    };
    parallel(threads, runs, [&](int64_t run, int) {
      int32_t* counts = memory.starts + run * experts_;
      std::memset(counts, 0, static_cast<size_t>(experts_) * 4);
      for (int64_t i = run * length * top; i < end_of(run) * top; ++i) ++counts[memory.choices[i]];
    });
    int32_t start = 0;
    for (int64_t expert = 0; expert < experts_; ++expert) {
      args.offsets[expert] = start;
      for (int64_t run = 0; run < runs; ++run) {
        int32_t& entry = memory.starts[run * experts_ + expert];
        const int32_t count = entry;
        entry = start;
        start += count;
      }
    }
    args.offsets[experts_] = start;
    parallel(threads, runs, [&](int64_t run, int) {
      int32_t* next = memory.starts + run * experts_;
      for (int64_t t = run * length; t < end_of(run); ++t) {
        for (int64_t i = t * top; i < (t + 1) * top; ++i) {
          const int32_t slot = next[memory.choices[i]]++;
          args.slots[i] = slot;
          args.rows[slot] = static_cast<int32_t>(t);
        }
      }
    });
  }

  const RouteKernels::Token kernel_;
  const gtn_route_desc desc_;
  const int64_t experts_;
  const int64_t height_;  // tokens of a task
  int64_t row_bytes_;     // of one worker
};

// Of an expert: 24 for its score, as in a softmax, and one each for the bias and for the comparison.
constexpr double kScoreFlops = 24;

}  // namespace

gtn_status route_plan(const Device& device, const gtn_route_desc& desc, Plan** plan, gtn_plan_info* info,
                      gtn_message* message) {
  RoutePlan* created = new (std::nothrow) RoutePlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a route plan");
  *plan = created;
  char name[48];
  const char* const types[] = {"f32", "bf16", "f16"};
  std::snprintf(name, sizeof name, "route.%s.%s", desc.kind == GTN_ROUTE_SOFTMAX ? "softmax" : "sigmoid",
                types[index_of(desc.x.dtype)]);
  name_kernel(info, device, name);
  info->op = GTN_OP_ROUTE;
  const double tokens = static_cast<double>(desc.x.shape[0]), experts = static_cast<double>(desc.x.shape[1]);
  const bool bias = desc.has_bias != 0;
  info->flops = tokens * experts * (kScoreFlops + 1 + (bias ? 1 : 0));
  // Of a choice: its expert, weight, row and slot.
  info->bytes = tokens * (experts * static_cast<double>(size_of(desc.x.dtype)) + 16 * static_cast<double>(desc.top)) +
                8 * (experts + 1) + (bias ? 4 * experts : 0);
  // Runs take fewer tokens than have numbers of 31 bits.
  const int64_t most = INT32_MAX / desc.top;
  info->workspace_bytes = created->workspace_bytes(device.threads, desc.x.shape[0] < most ? desc.x.shape[0] : most);
  return GTN_OK;
}

}  // namespace gatun::cpu
