// The merge plan: splits [batch, length, heads] into tiles of tokens and heads.
#include "cpu/merge/merge.h"

#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace gatun::cpu {
namespace {

// A line of the cache holds the log-sum-exps of as many tokens.
constexpr int64_t kTileTokens = 16;

// What x is where there are no parts.
constexpr float kNothing = 0.0f;

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }

class MergePlan final : public Plan {
 public:
  MergePlan(const Device& device, const gtn_merge_desc& desc)
      : kernel_(device.level->kernels->merge->tile[index_of(desc.x.dtype)][index_of(desc.out.dtype)]), desc_(desc) {}

  int64_t workspace_bytes(int threads) const { return times(scratch_bytes(desc_.x.shape[0]), threads); }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_merge_args& args = *static_cast<const gtn_merge_args*>(arguments);
    const int64_t heads = desc_.x.shape[3];
    if (args.batch == 0 || args.length == 0 || heads == 0) return GTN_OK;
    const int threads = stream.device->threads;
    const int64_t scratch_of_one = scratch_bytes(args.parts);
    char* scratch = static_cast<char*>(stream.scratch(times(scratch_of_one, threads)));
    if (scratch == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a merge");
    const int64_t tokens = args.length < kTileTokens ? args.length : kTileTokens;
    const int64_t most_heads = kMergeRows / tokens;
    const int64_t tile_heads = heads < most_heads ? heads : most_heads;
    const int64_t across = (heads + tile_heads - 1) / tile_heads, along = (args.length + tokens - 1) / tokens;
    const int64_t x_size = size_of(desc_.x.dtype), out_size = size_of(desc_.out.dtype);
    parallel(threads, args.batch * along * across, [&](int64_t task, int worker) {
      const int64_t head = task % across * tile_heads;
      const int64_t token = task / across % along * tokens;
      const int64_t sequence = task / across / along;
      const int64_t *x = desc_.x.strides, *x_lse = desc_.x_lse.strides, *out = desc_.out.strides,
                    *lse = desc_.lse.strides;
      MergeTile tile = {};
      if (args.parts > 0) {
        tile.x = static_cast<const char*>(args.x) + (sequence * x[1] + token * x[2] + head * x[3]) * x_size;
        tile.x_part = x[0];
        tile.x_token = x[2];
        tile.x_head = x[3];
        tile.x_lse = args.x_lse + sequence * x_lse[1] + head * x_lse[2] + token * x_lse[3];
        tile.x_lse_part = x_lse[0];
        tile.x_lse_head = x_lse[2];
        tile.x_lse_token = x_lse[3];
      } else {
        tile.x = tile.x_lse = &kNothing;  // never read
      }
      if (args.sink_logits != nullptr) tile.sink_logits = args.sink_logits + head;
      tile.out = static_cast<char*>(args.out) + (sequence * out[0] + token * out[1] + head * out[2]) * out_size;
      tile.out_token = out[1];
      tile.out_head = out[2];
      if (args.lse != nullptr) tile.lse = args.lse + sequence * lse[0] + head * lse[1] + token * lse[2];
      tile.lse_head = lse[1];
      tile.lse_token = lse[2];
      tile.parts = args.parts;
      tile.tokens = args.length - token < tokens ? args.length - token : tokens;
      tile.heads = heads - head < tile_heads ? heads - head : tile_heads;
      tile.n = desc_.x.shape[4];
      tile.weights = reinterpret_cast<float*>(scratch + worker * scratch_of_one);
      kernel_(tile);
    });
    return GTN_OK;
  }

 private:
  static int64_t scratch_bytes(int64_t parts) { return times(parts > 0 ? parts : 1, kMergeRows * 4); }

  const MergeKernels::Tile kernel_;
  const gtn_merge_desc desc_;
};

// Of a part: 2 for an element, and 30 for a row: the maximum, the exponential, its sum and the weight.
constexpr double kElementFlops = 2;
constexpr double kRowFlops = 30;

}  // namespace

gtn_status merge_plan(const Device& device, const gtn_merge_desc& desc, Plan** plan, gtn_plan_info* info,
                      gtn_message* message) {
  if (desc.x.shape[0] > (int64_t{1} << 40))  // times kMergeRows and kMostThreads
    return fail(message, GTN_UNSUPPORTED, "x.shape[0]: is too large for a merge's workspace");
  MergePlan* created = new (std::nothrow) MergePlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a merge plan");
  *plan = created;
  const double parts = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[4]);
  const double rows = static_cast<double>(desc.x.shape[1]) * static_cast<double>(desc.x.shape[2]) *
                      static_cast<double>(desc.x.shape[3]);
  const double x_size = static_cast<double>(size_of(desc.x.dtype));
  const double out_size = static_cast<double>(size_of(desc.out.dtype));
  const char* const names[] = {"merge.f32", "merge.bf16", "merge.f16"};
  name_kernel(info, device, names[index_of(desc.x.dtype)]);
  info->op = GTN_OP_MERGE;
  info->flops = rows * parts * (n * kElementFlops + kRowFlops);
  info->bytes = rows * (n * (parts * x_size + out_size) + 4 * (parts + 1)) +
                (desc.has_sink_logits != 0 ? 4.0 * static_cast<double>(desc.x.shape[3]) : 0.0);
  info->workspace_bytes = created->workspace_bytes(device.threads);
  return GTN_OK;
}

}  // namespace gatun::cpu
