#include "kernels/softmax/plan.h"

#include <cstdio>

#include "kernels/softmax/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class SoftmaxPlan final : public Plan {
 public:
  SoftmaxPlan(const gtn_softmax_desc& desc, const Kernel* kernel) : kernel_(kernel) {
    tiling_.n = desc.x.shape[1];
    tiling_.x_stride = desc.x.strides[0], tiling_.out_stride = desc.out.strides[0];
    tiling_.chunk =
        chunk_elements(tiling_.n, softmax_element_bytes(element_bytes(desc.x.dtype), element_bytes(desc.out.dtype)));
    tiling_.scale = desc.scale;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_softmax_args& args = *static_cast<const gtn_softmax_args*>(arguments);
    if (args.rows == 0 || tiling_.n == 0) return GTN_OK;
    SoftmaxTiling tiling = tiling_;
    tiling.rows = args.rows;
    return launch_with(stream, kernel_, vector_blocks(*stream.device, args.rows), tiling, message, args.x, args.out);
  }

 private:
  const Kernel* const kernel_;
  SoftmaxTiling tiling_ = {};
};

// Of an element: 2 for the maximum, 20 for the exponential, 1 for the sum and 1 for the quotient.
constexpr double kFlops = 24;

}  // namespace

bool softmax_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status softmax_plan(Device& device, const gtn_softmax_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  char name[48];
  std::snprintf(name, sizeof name, "gatun_softmax_%s_%s", type_name(desc.x.dtype), type_name(desc.out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  auto created = make_plan<SoftmaxPlan>(message, desc, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const double elements = static_cast<double>(desc.x.shape[0]) * static_cast<double>(desc.x.shape[1]);
  std::snprintf(name, sizeof name, "softmax.%s", type_name(desc.x.dtype));
  name_kernel(info, name);
  info->flops = elements * kFlops;
  info->bytes = elements * static_cast<double>(element_bytes(desc.x.dtype) + element_bytes(desc.out.dtype));
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
