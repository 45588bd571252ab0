#include "kernels/merge/plan.h"

#include <cstdio>

#include "kernels/merge/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class MergePlan final : public Plan {
 public:
  MergePlan(const gtn_merge_desc& desc, const Kernel* kernel) : kernel_(kernel) {
    const int64_t *x = desc.x.strides, *x_lse = desc.x_lse.strides, *out = desc.out.strides, *lse = desc.lse.strides;
    tiling_.heads = desc.x.shape[3], tiling_.n = desc.x.shape[4];
    tiling_.x_part = x[0], tiling_.x_batch = x[1], tiling_.x_token = x[2], tiling_.x_head = x[3];
    tiling_.x_lse_part = x_lse[0], tiling_.x_lse_batch = x_lse[1], tiling_.x_lse_head = x_lse[2],
    tiling_.x_lse_token = x_lse[3];
    tiling_.out_batch = out[0], tiling_.out_token = out[1], tiling_.out_head = out[2];
    tiling_.lse_batch = lse[0], tiling_.lse_head = lse[1], tiling_.lse_token = lse[2];
    tiling_.chunk = chunk_elements(tiling_.n, merge_element_bytes(element_bytes(desc.x.dtype), element_bytes(desc.out.dtype)),
                                   kMergeBytes);
    tiling_.has_sink_logits = desc.has_sink_logits;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_merge_args& args = *static_cast<const gtn_merge_args*>(arguments);
    const int64_t rows = args.batch * args.length * tiling_.heads;
    if (rows == 0) return GTN_OK;
    MergeTiling tiling = tiling_;
    tiling.parts = args.parts, tiling.batch = args.batch, tiling.length = args.length;
    tiling.has_lse = args.lse != nullptr ? 1 : 0;
    return launch_with(stream, kernel_, vector_blocks(*stream.device, rows), tiling, message, args.x,
                       static_cast<const void*>(args.x_lse), static_cast<const void*>(args.sink_logits), args.out,
                       static_cast<void*>(args.lse));
  }

 private:
  const Kernel* const kernel_;
  MergeTiling tiling_ = {};
};

// Of a part: 2 for an element, and 30 for a row: the maximum, the exponential, its sum and the weight.
constexpr double kElementFlops = 2;
constexpr double kRowFlops = 30;

}  // namespace

bool merge_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status merge_plan(Device& device, const gtn_merge_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (desc.x.shape[0] > kMergeMaxParts) {
    return fail(message, GTN_UNSUPPORTED, "x: has %lld parts, this backend merges at most %lld",
                static_cast<long long>(desc.x.shape[0]), static_cast<long long>(kMergeMaxParts));
  }
  char name[48];
  std::snprintf(name, sizeof name, "gatun_merge_%s_%s", type_name(desc.x.dtype), type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<MergePlan>(message, desc, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const double parts = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[4]);
  const double rows = static_cast<double>(desc.x.shape[1]) * static_cast<double>(desc.x.shape[2]) *
                      static_cast<double>(desc.x.shape[3]);
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype));
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  std::snprintf(name, sizeof name, "merge.%s", type_name(desc.x.dtype));
  name_kernel(info, name);
  info->flops = rows * parts * (n * kElementFlops + kRowFlops);
  info->bytes = rows * (n * (parts * x_size + out_size) + 4 * (parts + 1)) +
                (desc.has_sink_logits != 0 ? 4.0 * static_cast<double>(desc.x.shape[3]) : 0.0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
