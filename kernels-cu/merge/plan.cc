#include "merge/plan.h"

#include <cstdio>

#include "backend/row_kernel.h"
#include "merge/kernels.h"

namespace gatun::gpu {
namespace {

class MergePlan final : public Plan {
 public:
  explicit MergePlan(const gtn_merge_desc& desc) : desc_(desc) {
    const int64_t x_size = element_bytes(desc.x.dtype), out_size = element_bytes(desc.out.dtype);
    bool aligned = desc.x.shape[4] % 8 == 0;
    for (int d = 0; d < 4; ++d) aligned = aligned && desc.x.strides[d] * x_size % 16 == 0;
    for (int d = 0; d < 3; ++d) aligned = aligned && desc.out.strides[d] * out_size % 16 == 0;
    for (int i = 0; i < 2; ++i) {
      kernel_[i] = merge_kernel(type_index(desc.x.dtype), type_index(desc.out.dtype), i == 1 && aligned);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    const gtn_status status = prepare(device.index, kernel_[0].kernel, 0, message);
    return status != GTN_OK ? status : prepare(device.index, kernel_[1].kernel, 0, message);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_merge_args& args = *static_cast<const gtn_merge_args*>(arguments);
    const int64_t heads = desc_.x.shape[3];
    if (args.batch == 0 || args.length == 0 || heads == 0) return GTN_OK;
    const int64_t *x = desc_.x.strides, *x_lse = desc_.x_lse.strides, *out = desc_.out.strides, *lse = desc_.lse.strides;
    const MergeArgs to = {
        args.x,     args.x_lse, args.sink_logits, args.out,     args.lse, x[0],       x[1],       x[2],   x[3],
        x_lse[0],   x_lse[1],   x_lse[2],         x_lse[3],     out[0],   out[1],     out[2],     lse[0], lse[1],
        lse[2],     args.parts, args.batch,       args.length,  heads,    desc_.x.shape[4]};
    const MergeKernel& kernel = kernel_[is_aligned(args.x) && is_aligned(args.out)];
    const Grid grid = {(args.batch * args.length * heads + kernel.rows - 1) / kernel.rows};
    return launch(stream.queue, kernel.kernel, grid, kernel.threads, 0, to, message);
  }

 private:
  const gtn_merge_desc desc_;
  MergeKernel kernel_[2];  // for pointers of any alignment, and for 16 bytes
};

// Of a part: 2 for an element, and 30 for a row: the maximum, the exponential, its sum and the weight.
constexpr double kElementFlops = 2;
constexpr double kRowFlops = 30;

}  // namespace

bool merge_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status merge_plan(Device& device, const gtn_merge_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<MergePlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const double parts = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[4]);
  const double rows = static_cast<double>(desc.x.shape[1]) * static_cast<double>(desc.x.shape[2]) *
                      static_cast<double>(desc.x.shape[3]);
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype));
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  char name[40];
  std::snprintf(name, sizeof name, "merge.%s", type_name(desc.x.dtype));
  name_kernel(info, device, name);
  info->flops = rows * parts * (n * kElementFlops + kRowFlops);
  info->bytes = rows * (n * (parts * x_size + out_size) + 4 * (parts + 1)) +
                (desc.has_sink_logits != 0 ? 4.0 * static_cast<double>(desc.x.shape[3]) : 0.0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
