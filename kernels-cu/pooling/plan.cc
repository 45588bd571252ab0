#include "pooling/plan.h"

#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "pooling/kernels.h"

namespace gatun::gpu {
namespace {

// Padding and dilation up to here, so that sums of positions fit.
constexpr int64_t kMaxSize = int64_t{1} << 40;

// Positions of a window from which on a warp has it, where positions lie side by side: half of its lanes and more have one.
constexpr double kTeamPositions = kWarp / 2 + 1;

// Batch, channels and three spatial dimensions. The stride of a dimension of one index does not matter, and is 0.
void strides_of(const gtn_tensor_desc& tensor, int64_t* strides) {
  const int missing = 5 - tensor.rank;
  for (int d = 0; d < 5; ++d) {
    const int from = d < 2 ? d : d - missing;
    strides[d] = from < (d < 2 ? 0 : 2) || tensor.shape[from] <= 1 ? 0 : tensor.strides[from];
  }
}

// Of a launch with one number of blocks: AMD counts its threads in 32 bits. NVIDIA takes more.
bool launches(const PoolingKernel& kernel, int64_t outputs) {
  return ceil_div(outputs, kernel.outputs) <= static_cast<int64_t>(UINT32_MAX) / kernel.threads;
}

class PoolingPlan final : public Plan {
 public:
  explicit PoolingPlan(const gtn_pooling_desc& desc) {
    args_.average = desc.kind == GTN_POOLING_AVERAGE;
    args_.count_padding = desc.count_padding;
    args_.channels = desc.x.shape[1];
    const int missing = 5 - desc.x.rank;
    for (int d = 0; d < 3; ++d) {
      const int from = d - missing;
      const bool there = from >= 0;
      args_.size[d] = there ? desc.x.shape[2 + from] : 1;
      args_.out_size[d] = there ? desc.out.shape[2 + from] : 1;
      args_.kernel[d] = there ? desc.kernel[from] : 1;
      args_.stride[d] = there ? desc.stride[from] : 1;
      args_.dilation[d] = args_.kernel[d] > 1 ? desc.dilation[from] : 1;
      args_.pad[d] = there ? desc.pad_before[from] : 0;
      out_volume_ = times(out_volume_, args_.out_size[d]);
      positions_ *= static_cast<double>(args_.kernel[d]);
    }
    args_.positions = static_cast<float>(positions_);
    strides_of(desc.x, args_.x_strides);
    strides_of(desc.out, args_.out_strides);
    args_.within = args_.channels > 1 && args_.x_strides[1] == 1;
    // So many outputs that a warp for each makes too large a launch have a thread each.
    const bool team = args_.within == 0 && positions_ >= kTeamPositions;
    kernel_ = pooling_kernel(type_index(desc.x.dtype), type_index(desc.out.dtype), team);
    const int64_t outputs = times(times(desc.x.shape[0], args_.channels), out_volume_);
    if (team && !launches(kernel_, outputs)) {
      kernel_ = pooling_kernel(type_index(desc.x.dtype), type_index(desc.out.dtype), false);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const { return prepare(device.index, kernel_.kernel, 0, message); }

  void describe(const gtn_pooling_desc& desc, gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double images = real(desc.x.shape[0]) * real(args_.channels), outputs = images * real(out_volume_);
    double inputs = images;
    for (const int64_t size : args_.size) inputs *= real(size);
    info->flops = outputs * positions_;
    info->bytes = inputs * real(element_bytes(desc.x.dtype)) + outputs * real(element_bytes(desc.out.dtype));
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_pooling_args& args = *static_cast<const gtn_pooling_args*>(arguments);
    PoolingArgs to = args_;
    to.x = args.x;
    to.out = args.out;
    to.outputs = args.batch * args_.channels * out_volume_;
    if (to.outputs == 0) return GTN_OK;
    return launch(stream.queue, kernel_.kernel, {ceil_div(to.outputs, kernel_.outputs)}, kernel_.threads, 0, to, message);
  }

 private:
  PoolingArgs args_ = {};
  PoolingKernel kernel_;
  int64_t out_volume_ = 1;
  double positions_ = 1;
};

}  // namespace

bool pooling_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status pooling_plan(Device& device, const gtn_pooling_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  for (int d = 0; d < desc.x.rank - 2; ++d) {
    for (const int64_t value : {desc.pad_before[d], desc.pad_after[d], desc.dilation[d], desc.stride[d]}) {
      if (value <= kMaxSize) continue;
      return fail(message, GTN_UNSUPPORTED, "padding, dilation or stride of %lld: this backend takes up to 2^40",
                  static_cast<long long>(value));
    }
  }
  auto created = make_plan<PoolingPlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  char name[40];
  std::snprintf(name, sizeof name, "pooling.%s.%s", desc.kind == GTN_POOLING_AVERAGE ? "average" : "max", type_name(desc.x.dtype));
  name_kernel(info, device, name);
  created->describe(desc, info);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
