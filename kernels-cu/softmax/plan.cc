#include "softmax/plan.h"

#include <cstdio>

#include "softmax/kernels.h"

namespace gatun::gpu {
namespace {

class SoftmaxPlan final : public Plan {
 public:
  explicit SoftmaxPlan(const gtn_softmax_desc& desc) : desc_(desc) {
    const bool rows_aligned = desc.x.strides[0] * element_bytes(desc.x.dtype) % 16 == 0 &&
                              desc.out.strides[0] * element_bytes(desc.out.dtype) % 16 == 0;
    for (int aligned = 0; aligned < 2; ++aligned) {
      kernel_[aligned] = softmax_kernel(desc.x.dtype == GTN_BF16, desc.out.dtype == GTN_BF16, desc.x.shape[1],
                                        aligned == 1 && rows_aligned);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    const gtn_status status = prepare(device.index, kernel_[0].kernel, kernel_[0].shared_bytes, message);
    return status != GTN_OK ? status : prepare(device.index, kernel_[1].kernel, kernel_[1].shared_bytes, message);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_softmax_args& args = *static_cast<const gtn_softmax_args*>(arguments);
    if (args.rows == 0 || desc_.x.shape[1] == 0) return GTN_OK;
    const SoftmaxArgs to = {args.x,    args.out,         desc_.x.strides[0], desc_.out.strides[0],
                            args.rows, desc_.x.shape[1], desc_.scale};
    return launch_rows(stream.queue, kernel_[is_aligned(args.x) && is_aligned(args.out)], args.rows, to, message);
  }

 private:
  const gtn_softmax_desc desc_;
  RowKernel<SoftmaxArgs> kernel_[2];  // for pointers of any alignment, and for 16 bytes
};

// Of an element: 2 for the maximum, 20 for the exponential, 1 for the sum and 1 for the quotient.
constexpr double kFlops = 24;

}  // namespace

bool softmax_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status softmax_plan(Device& device, const gtn_softmax_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message) {
  auto created = make_plan<SoftmaxPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const double elements = static_cast<double>(desc.x.shape[0]) * static_cast<double>(desc.x.shape[1]);
  char name[40];
  std::snprintf(name, sizeof name, "softmax.%s", type_name(desc.x.dtype));
  name_kernel(info, device, name);
  info->flops = elements * kFlops;
  info->bytes = elements * static_cast<double>(element_bytes(desc.x.dtype) + element_bytes(desc.out.dtype));
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
