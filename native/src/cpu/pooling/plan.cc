// Plans of pooling: which way windows go over x, and how lines of out become tasks.
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/pooling/pooling.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace gatun::cpu {
namespace {

// Positions of windows of a task: some 10 us.
constexpr int64_t kTaskWork = int64_t{1} << 16;

// Windows that see less than this part of a line of x leave the rest of it alone: to join lines takes less for each element,
// by a vector's width.
constexpr int64_t kSeldom = 16;

// Padding and dilation up to here, so that sums of positions fit.
constexpr int64_t kMaxSize = int64_t{1} << 40;

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }

// Batch, channels and three spatial dimensions. The stride of a dimension of one index does not matter, and is 0.
void strides_of(const gtn_tensor_desc& tensor, int64_t* strides) {
  const int missing = 5 - tensor.rank;
  for (int d = 0; d < 5; ++d) {
    const int from = d < 2 ? d : d - missing;
    strides[d] = from < (d < 2 ? 0 : 2) || tensor.shape[from] <= 1 ? 0 : tensor.strides[from];
  }
}

class PoolingPlan final : public Plan {
 public:
  PoolingPlan(const Device& device, const gtn_pooling_desc& desc) : device_(device) {
    run_.average = desc.kind == GTN_POOLING_AVERAGE;
    run_.count_padding = desc.count_padding != 0;
    run_.channels = desc.x.shape[1];
    volume_ = positions_ = out_volume_ = 1;
    const int missing = 5 - desc.x.rank;
    for (int d = 0; d < 3; ++d) {
      const int from = d - missing;
      const bool there = from >= 0;
      run_.size[d] = there ? desc.x.shape[2 + from] : 1;
      run_.out_size[d] = there ? desc.out.shape[2 + from] : 1;
      run_.kernel[d] = there ? desc.kernel[from] : 1;
      run_.stride[d] = there ? desc.stride[from] : 1;
      run_.dilation[d] = run_.kernel[d] > 1 ? desc.dilation[from] : 1;
      run_.pad[d] = there ? desc.pad_before[from] : 0;
      volume_ = times(volume_, run_.size[d]);
      positions_ *= run_.kernel[d];
      out_volume_ *= run_.out_size[d];
    }
    strides_of(desc.x, run_.x_strides);
    strides_of(desc.out, run_.out_strides);
    within_ = run_.channels > 1 && run_.x_strides[1] == 1 && run_.out_strides[1] == 1;
    run_.slice = within_ ? kPoolingSlice : 1;
    run_.slices = (run_.channels + run_.slice - 1) / run_.slice;
    across_ = !within_ && run_.size[2] / kSeldom / run_.kernel[2] < run_.out_size[2];
    const PoolingKernels& kernels = *device.level->kernels->pooling;
    lines_ = (within_   ? kernels.within
              : across_ ? kernels.across
                        : kernels.apart)[index_of(desc.x.dtype)][index_of(desc.out.dtype)];
  }

  void describe(const gtn_pooling_desc& desc, gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double images = real(desc.x.shape[0]) * real(run_.channels);
    info->op = GTN_OP_POOLING;
    char name[48];
    constexpr const char* kTypes[] = {"f32", "bf16", "f16"};
    std::snprintf(name, sizeof name, "pooling.%s.%s", run_.average ? "average" : "max", kTypes[index_of(desc.x.dtype)]);
    name_kernel(info, device_, name);
    info->flops = images * real(out_volume_) * real(positions_);
    info->bytes = images * (real(volume_) * real(size_of(desc.x.dtype)) + real(out_volume_) * real(size_of(desc.out.dtype)));
    info->workspace_bytes = workspace_bytes();
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_pooling_args& args = *static_cast<const gtn_pooling_args*>(arguments);
    char* scratch = static_cast<char*>(stream.scratch(workspace_bytes()));
    if (scratch == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a pooling");
    PoolingRun run = run_;
    run.x = args.x;
    run.out = args.out;
    const int64_t lines = args.batch * run.slices * run.out_size[0] * run.out_size[1];
    const int64_t channels = run.channels < run.slice ? run.channels : run.slice;
    double work = static_cast<double>(channels) * static_cast<double>(run.out_size[2]) * static_cast<double>(positions_);
    if (across_) work = std::fmax(work, static_cast<double>(run.kernel[0] * run.kernel[1]) * static_cast<double>(run.size[2]));
    const int64_t height = work < kTaskWork ? kTaskWork / (static_cast<int64_t>(work) + 1) + 1 : 1;
    parallel(device_.threads, (lines + height - 1) / height, [&](int64_t task, int worker) {
      const int64_t first = task * height;
      lines_(run, first, lines - first < height ? lines - first : height,
             reinterpret_cast<float*>(scratch + worker * line_bytes()));
    });
    return GTN_OK;
  }

 private:
  int64_t line_bytes() const {
    Workspace sizes(nullptr);
    sizes.take<float>(across_ ? run_.size[2] : 0);
    return sizes.used();
  }

  int64_t workspace_bytes() const { return times(line_bytes(), device_.threads); }

  const Device& device_;
  PoolingRun run_ = {};
  PoolingKernels::Lines lines_;
  bool within_;  // channels lie side by side
  bool across_;  // lines of x are joined
  int64_t volume_, positions_, out_volume_;
};

}  // namespace

gtn_status pooling_plan(const Device& device, const gtn_pooling_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message) {
  for (int d = 0; d < desc.x.rank - 2; ++d) {
    for (const int64_t value : {desc.pad_before[d], desc.pad_after[d], desc.dilation[d], desc.stride[d]}) {
      if (value <= kMaxSize) continue;
      return fail(message, GTN_UNSUPPORTED, "padding, dilation or stride of %lld: this backend takes up to 2^40",
                  static_cast<long long>(value));
    }
  }
  PoolingPlan* created = new (std::nothrow) PoolingPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan of a pooling");
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
