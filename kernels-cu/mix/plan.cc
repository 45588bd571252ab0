#include "mix/plan.h"

#include <cstdio>

#include "backend/row_kernel.h"
#include "mix/kernels.h"

namespace gatun::gpu {
namespace {

class MixPlan final : public Plan {
 public:
  explicit MixPlan(const gtn_mix_desc& desc) : desc_(desc) {
    const int64_t x_size = element_bytes(desc.x.dtype), out_size = element_bytes(desc.out.dtype);
    bool aligned = desc.out.shape[2] % 8 == 0;
    for (int d = 0; d < desc.x.rank - 1; ++d) aligned = aligned && desc.x.strides[d] * x_size % 16 == 0;
    for (int d = 0; d < 2; ++d) aligned = aligned && desc.out.strides[d] * out_size % 16 == 0;
    for (int i = 0; i < 2; ++i) {
      kernel_[i] = mix_kernel(type_index(desc.x.dtype), type_index(desc.out.dtype), i == 1 && aligned);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    const gtn_status status = prepare(device.index, kernel_[0].kernel, 0, message);
    return status != GTN_OK ? status : prepare(device.index, kernel_[1].kernel, 0, message);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_mix_args& args = *static_cast<const gtn_mix_args*>(arguments);
    MixArgs to = {};
    to.x = args.x, to.gates = args.gates, to.row_index = args.row_index, to.residual = args.residual, to.out = args.out;
    const int64_t* x = desc_.x.strides;
    if (desc_.has_row_index != 0) {
      to.x_token = x[0], to.x_head = x[1];
    } else {
      to.x_part = x[0], to.x_token = x[1], to.x_head = x[2];
    }
    to.gate_token = desc_.gates.strides[0], to.gate_part = desc_.gates.strides[1], to.gate_head = desc_.gates.strides[2];
    to.out_token = desc_.out.strides[0], to.out_head = desc_.out.strides[1];
    to.tokens = args.tokens, to.heads = desc_.out.shape[1], to.n = desc_.out.shape[2];
    to.parts = desc_.gates.shape[1], to.rows_x = args.rows_x, to.gate = desc_.gate;
    if (to.tokens == 0) return GTN_OK;
    const MixKernel& kernel = kernel_[is_aligned(args.x) && is_aligned(args.residual) && is_aligned(args.out)];
    to.tiles = (to.n + kernel.width - 1) / kernel.width;
    const Grid grid = {(to.tokens * to.heads * to.tiles + kernel.tasks - 1) / kernel.tasks};
    return launch(stream.queue, kernel.kernel, grid, kernel.threads, 0, to, message);
  }

 private:
  const gtn_mix_desc desc_;
  MixKernel kernel_[2];  // for pointers of any alignment, and for 16 bytes
};

// Of an element of a part, and of a gate: the exponential and what is around it.
constexpr double kElementFlops = 2;
constexpr double kGateFlops = 26;

}  // namespace

bool mix_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status mix_plan(Device& device, const gtn_mix_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<MixPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  char name[40];
  const char* const gates[] = {"mix", "mix.sigmoid", "mix.tanh"};
  std::snprintf(name, sizeof name, "%s.%s", gates[desc.gate], type_name(desc.x.dtype));
  name_kernel(info, device, name);
  const double tokens = static_cast<double>(desc.out.shape[0]), heads = static_cast<double>(desc.out.shape[1]);
  const double n = static_cast<double>(desc.out.shape[2]), parts = static_cast<double>(desc.gates.shape[1]);
  const double rows = tokens * heads, out_size = static_cast<double>(element_bytes(desc.out.dtype));
  const bool indexed = desc.has_row_index != 0, residual = desc.has_residual != 0;
  // A row of x that several tokens name is read once, and a gate that is repeated by its strides too.
  const double named = tokens * parts, there = static_cast<double>(desc.x.shape[0]);
  const double rows_x = heads * (indexed && there < named ? there : named);
  double distinct = 1;
  for (int d = 0; d < 3; ++d) {
    if (desc.gates.strides[d] != 0 || desc.gates.shape[d] == 0) distinct *= static_cast<double>(desc.gates.shape[d]);
  }
  info->flops =
      rows * (parts * n * kElementFlops + (residual ? n : 0) + (desc.gate != GTN_GATE_NONE ? parts * kGateFlops : 0));
  info->bytes = rows_x * n * static_cast<double>(element_bytes(desc.x.dtype)) + rows * n * out_size * (residual ? 2 : 1) +
                4 * distinct + (indexed ? 4 * named : 0);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
