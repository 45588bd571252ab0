// Plans of activations, alone and gated: one kernel, of one or two operands.
#include "kernels/activation/plan.h"

#include <cstdio>

#include "kernels/activation/tiling.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

struct Shape {
  ActivationTiling tiling;
  int64_t element_bytes;  // of buffers
  bool dense;             // rows that follow each other are one long row
};

class ActivationPlan : public Plan {
 public:
  ActivationPlan(const Shape& shape, const Kernel* kernel) : shape_(shape), kernel_(kernel) {}

 protected:
  gtn_status launch_rows(Stream& stream, int64_t rows, const void* x, const void* other, void* out, gtn_message* message) const {
    ActivationTiling tiling = shape_.tiling;
    if (rows == 0 || tiling.n == 0) return GTN_OK;
    tiling.rows = rows;
    if (shape_.dense) {
      tiling.n *= rows;
      tiling.rows = 1;
    }
    tiling.chunk = chunk_elements(share(*stream.device, tiling.rows, tiling.n), shape_.element_bytes);
    return launch_with(stream, kernel_, vector_blocks(*stream.device, chunks(tiling.rows, tiling.n, tiling.chunk)), tiling,
                       message, x, other, static_cast<const void*>(out));
  }

 private:
  const Shape shape_;
  const Kernel* const kernel_;
};

class BiasedPlan final : public ActivationPlan {
 public:
  using ActivationPlan::ActivationPlan;
  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_activation_args& args = *static_cast<const gtn_activation_args*>(arguments);
    return launch_rows(stream, args.rows, args.x, args.bias, args.out, message);
  }
};

class GatedPlan final : public ActivationPlan {
 public:
  using ActivationPlan::ActivationPlan;
  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_glu_args& args = *static_cast<const gtn_glu_args*>(arguments);
    return launch_rows(stream, args.rows, args.gate, args.x, args.out, message);
  }
};

// `other`: what the second operand's rows are like, or null.
template <typename P>
gtn_status make(Device& device, const char* op, const gtn_tensor_desc& x, const gtn_tensor_desc* other,
                const gtn_tensor_desc& out, int32_t activation, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  char name[48];
  std::snprintf(name, sizeof name, "gatun_%s_%s_%s", op, type_name(x.dtype), type_name(out.dtype));
  const Kernel* kernel = nullptr;
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  const int64_t n = x.shape[1], other_bytes = other != nullptr ? element_bytes(other->dtype) : 0;
  Shape shape = {};
  shape.tiling.n = n;
  shape.tiling.x_stride = x.strides[0], shape.tiling.out_stride = out.strides[0];
  shape.tiling.other_stride = other != nullptr ? other->strides[0] : 0;
  shape.tiling.activation = activation, shape.tiling.has_other = other != nullptr;
  shape.element_bytes = activation_element_bytes(element_bytes(x.dtype), other_bytes, element_bytes(out.dtype));
  shape.dense = x.strides[0] == n && out.strides[0] == n && (other == nullptr || other->strides[0] == n);
  auto created = make_plan<P>(message, shape, kernel);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  std::snprintf(name, sizeof name, "%s.%s.%s", op, kActivationNames[activation], type_name(x.dtype));
  name_kernel(info, name);
  const double rows = static_cast<double>(x.shape[0]), row = static_cast<double>(n);
  info->flops = rows * row * (kActivationFlops[activation] + (other != nullptr ? 1 : 0));
  info->bytes = rows * row * static_cast<double>(element_bytes(x.dtype) + element_bytes(out.dtype)) +
                (other != nullptr && other->strides[0] == 0 ? 1 : rows) * row * static_cast<double>(other_bytes);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace

bool activation_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status activation_plan(Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message) {
  gtn_tensor_desc bias = {};  // one row for all
  bias.dtype = GTN_F32;
  return make<BiasedPlan>(device, "activation", desc.x, desc.has_bias != 0 ? &bias : nullptr, desc.out, desc.activation, plan,
                          info, message);
}

bool glu_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status glu_plan(Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  return make<GatedPlan>(device, "glu", desc.gate, &desc.x, desc.out, desc.activation, plan, info, message);
}

}  // namespace gatun::ascend
