// Plans of convolutions: how x is read, and the grid of blocks.
#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/conv/conv.h"
#include "cpu/gemm/grid.h"
#include "cpu/levels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace gatun::cpu {
namespace {

// x is rewritten in parts of about this size, or of an image.
constexpr int64_t kPreparedBytes = int64_t{16} << 20;
constexpr int64_t kPrepareTaskElements = 32768;

// Elements of out and kernel positions of a depthwise task: some 10 us.
constexpr int64_t kDepthwiseTaskWork = int64_t{1} << 17;

ConvShape shape_of(const gtn_conv_desc& desc) {
  ConvShape shape = {};
  const int missing = 5 - desc.x.rank;
  shape.positions = 1;
  for (int d = 0; d < 3; ++d) {
    const int from = d - missing;
    const bool there = from >= 0;
    shape.size[d] = there ? desc.x.shape[2 + from] : 1;
    shape.out_size[d] = there ? desc.out.shape[2 + from] : 1;
    shape.kernel[d] = there ? desc.kernel[from] : 1;
    shape.stride[d] = there ? desc.stride[from] : 1;
    shape.dilation[d] = there ? desc.dilation[from] : 1;
    shape.pad[d] = there ? desc.pad_before[from] : 0;
    shape.positions *= shape.kernel[d];
  }
  shape.groups = desc.groups;
  shape.channels = desc.x.shape[1] / desc.groups;
  shape.columns = desc.out.shape[1] / desc.groups;
  return shape;
}

// Batch, channels and three spatial dimensions. The stride of a dimension of one index does not matter, and is 0.
void strides_of(const gtn_tensor_desc& tensor, int64_t* strides) {
  const int missing = 5 - tensor.rank;
  for (int d = 0; d < 5; ++d) {
    const int from = d < 2 ? d : d - missing;
    strides[d] = from < (d < 2 ? 0 : 2) || tensor.shape[from] <= 1 ? 0 : tensor.strides[from];
  }
}

class ConvPlan final : public Plan {
 public:
  ConvPlan(const Device& device, const gtn_conv_desc& desc)
      : device_(device), kernels_(*device.level->kernels->conv), layout_(device.level->kernels->gemm->layout), desc_(desc),
        shape_(shape_of(desc)) {
    depthwise_ = shape_.channels == 1 && shape_.columns == 1 && shape_.groups > 1;
    volume_ = shape_.size[0] * shape_.size[1] * shape_.size[2];
    out_volume_ = shape_.out_size[0] * shape_.out_size[1] * shape_.out_size[2];
    element_ = desc.format == GTN_BF16 ? layout_.bf16_row_bytes : static_cast<int64_t>(sizeof(float));
    strides_of(desc.x, x_strides_);
    strides_of(desc.out, out_strides_);
    const int64_t channels = desc.x.shape[1];
    const bool same_type = (desc.x.dtype == GTN_F32 ? 4 : 2) == element_ && (desc.format == GTN_BF16) == (desc.x.dtype == GTN_BF16);
    // Depthwise kernels widen as they load; of channels side by side, they do not round.
    planes_ = depthwise_ && by_planes();
    const bool readable = depthwise_ ? desc.format == GTN_F32 || desc.x.dtype == GTN_BF16 : same_type;
    in_place_ = planes_ || (readable && (channels == 1 || x_strides_[1] == 1));
    if (!in_place_) {
      x_strides_[1] = 1;
      x_strides_[4] = channels;
      x_strides_[3] = times(shape_.size[2], channels);
      x_strides_[2] = times(shape_.size[1], x_strides_[3]);
      x_strides_[0] = times(volume_, channels);
    }
    pitch_ = pitch();
  }

  void describe(gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double rows = real(desc_.x.shape[0]) * real(out_volume_), columns = real(desc_.out.shape[1]);
    const double k = real(shape_.positions) * real(shape_.channels);
    const double x_bytes = desc_.x.dtype == GTN_F32 ? 4 : 2, out_bytes = desc_.out.dtype == GTN_F32 ? 4 : 2;
    const double weight_bytes = desc_.format == GTN_BF16 && !depthwise_ ? 2 : 4;
    info->op = GTN_OP_CONV;
    char name[32];
    std::snprintf(name, sizeof name, "conv.%s%s", desc_.format == GTN_BF16 ? "bf16" : "f32",
                  depthwise_ ? ".depthwise" : pitch_ > 0 ? ".pointwise" : "");
    name_kernel(info, device_, name);
    info->flops = 2 * rows * columns * k;
    info->bytes = real(desc_.x.shape[0]) * real(volume_) * real(desc_.x.shape[1]) * x_bytes + k * columns * weight_bytes +
                  rows * columns * out_bytes * (desc_.has_residual ? 2 : 1) + (desc_.has_bias ? 8 : 4) * columns;
    const int64_t batch = desc_.x.shape[0];
    info->workspace_bytes = batch == 0 || out_volume_ == 0 ? 0 : workspace_bytes(part(batch));
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_conv_args& args = *static_cast<const gtn_conv_args*>(arguments);
    const PackedWeights& weights = *static_cast<const PackedWeights*>(args.weights);
    const int64_t most = part(args.batch);
    char* memory = static_cast<char*>(stream.scratch(workspace_bytes(most)));
    if (memory == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a convolution");

    ConvRun run;
    run.shape = shape_;
    if (depthwise_) run.shape.columns = desc_.out.shape[1];
    run.format = desc_.format;
    run.out_dtype = desc_.out.dtype;
    run.activation = desc_.activation;
    run.x_dtype = in_place_ ? desc_.x.dtype : element_ == 2 ? GTN_BF16 : GTN_F32;
    run.residual_first = desc_.residual_first != 0;
    run.x_strides[0] = x_strides_[0];
    for (int d = 0; d < 3; ++d) run.x_strides[1 + d] = x_strides_[2 + d];
    run.x_channel_stride = x_strides_[1];
    run.pitch = pitch_;
    run.panels = weights.data;
    run.panel_bytes = weights.panel_bytes;
    run.group_panels = weights.panels;
    run.shift = weights.shift;
    run.bias = static_cast<const float*>(args.bias);
    for (int d = 0; d < 5; ++d) run.out_strides[d] = out_strides_[d];

    const int64_t x_bytes = desc_.x.dtype == GTN_F32 ? 4 : 2, out_bytes = desc_.out.dtype == GTN_F32 ? 4 : 2;
    for (int64_t image = 0; image < args.batch; image += most) {
      run.batch = args.batch - image < most ? args.batch - image : most;
      const char* x = static_cast<const char*>(args.x) + (args.x == nullptr ? 0 : image * desc_.x.strides[0] * x_bytes);
      const int64_t to = image * desc_.out.strides[0] * out_bytes;
      run.x = in_place_ ? x : memory;
      run.residual = args.residual == nullptr ? nullptr : static_cast<const char*>(args.residual) + to;
      run.out = static_cast<char*>(args.out) + to;
      if (!in_place_) prepare(x, run.batch, memory);
      compute(run, memory + prepared_bytes(most));
    }
    return GTN_OK;
  }

 private:
  // Whether a depthwise kernel copies slabs of planes: columns are side by side, and what a slab has beside its columns is small.
  bool by_planes() const {
    constexpr int64_t kColumns = 16384, kKernel = 16, kStride = 4, kMostSlab = int64_t{1} << 20;
    if (x_strides_[1] == 1 || out_strides_[1] == 1 || shape_.out_size[2] > kColumns || shape_.kernel[0] > kKernel) return false;
    if ((shape_.size[2] > 1 && x_strides_[4] != 1) || (shape_.out_size[2] > 1 && out_strides_[4] != 1)) return false;
    for (int d = 1; d < 3; ++d) {
      if (shape_.kernel[d] > kKernel || shape_.stride[d] > kStride || shape_.dilation[d] > kStride) return false;
    }
    return kernels_.planes_scratch_bytes(shape_) <= kMostSlab;
  }

  // Elements from each position of x to the next, where they are all that far apart and rows lie well where they are; else 0.
  int64_t pitch() const {
    if (shape_.positions != 1 || depthwise_) return 0;
    if (element_ == 2 && shape_.channels % 2 != 0) return 0;  // half a pair, which gathering fills up
    int64_t apart = 0, steps = 1;  // steps: positions of the dimensions so far
    for (int d = 2; d >= -1; --d) {
      if (d >= 0 && (shape_.stride[d] != 1 || shape_.pad[d] != 0 || shape_.out_size[d] != shape_.size[d])) return 0;
      const int64_t size = d >= 0 ? shape_.size[d] : desc_.x.shape[0];
      const int64_t stride = x_strides_[d >= 0 ? 2 + d : 0];
      if (size > 1) {
        if (steps == 1) apart = stride;
        if (stride != times(apart, steps)) return 0;
      }
      steps = times(steps, size);
    }
    return spreads_rows(apart % 4096 * element_, layout_.row_tile / 2) ? apart : 0;
  }

  // Images of a part: all, unless x has to be rewritten.
  int64_t part(int64_t batch) const {
    const int64_t bytes = times(x_strides_[0], element_);
    if (in_place_ || times(batch, bytes) <= kPreparedBytes) return batch;
    return bytes < kPreparedBytes ? kPreparedBytes / bytes : 1;
  }

  int64_t prepared_bytes(int64_t images) const {
    const int64_t bytes = in_place_ ? 0 : times(times(images, volume_), times(desc_.x.shape[1], element_));
    return bytes > INT64_MAX - 64 ? bytes : round_up(bytes, 64);
  }

  int64_t workspace_bytes(int64_t images) const {
    Workspace sizes(nullptr);
    sizes.take<char>(prepared_bytes(images));
    sizes.take<char>(worker_bytes() * device_.threads);
    return sizes.used();
  }

  int64_t worker_bytes() const {
    if (planes_) return kernels_.planes_scratch_bytes(shape_);
    if (depthwise_) return kernels_.depthwise_scratch_bytes(shape_);
    return kernels_.scratch_bytes(desc_.format, shape_.positions * shape_.channels, layout_.block_rows, Grid::max_panels(layout_));
  }

  void prepare(const char* x, int64_t images, void* to) const {
    ConvLines lines;
    lines.format = desc_.format;
    lines.x_dtype = desc_.x.dtype;
    lines.channels = desc_.x.shape[1];
    for (int d = 0; d < 3; ++d) lines.size[d] = shape_.size[d];
    lines.x = x;
    strides_of(desc_.x, lines.strides);
    lines.to = to;
    const int64_t count = images * shape_.size[0] * shape_.size[1];
    if (volume_ == 0) return;
    const int64_t elements = shape_.size[2] * lines.channels;
    const int64_t height = elements < kPrepareTaskElements ? kPrepareTaskElements / elements : 1;
    parallel(device_.threads, ceil_div(count, height), [&](int64_t task, int) {
      const int64_t first = task * height;
      kernels_.prepare(lines, first, count - first < height ? count - first : height);
    });
  }

  void compute(const ConvRun& run, char* scratch) const {
    const int64_t rows = run.batch * out_volume_, bytes = worker_bytes();
    if (planes_) {
      const int64_t planes = run.batch * run.shape.columns * shape_.out_size[0];
      const int64_t work = out_volume_ / (shape_.out_size[0] > 0 ? shape_.out_size[0] : 1) * shape_.positions;
      const int64_t height = work < kDepthwiseTaskWork ? ceil_div(kDepthwiseTaskWork, work > 0 ? work : 1) : 1;
      parallel(device_.threads, rows > 0 ? ceil_div(planes, height) : 0, [&](int64_t task, int worker) {
        const int64_t first = task * height;
        kernels_.depthwise_planes(run, first, planes - first < height ? planes - first : height, scratch + worker * bytes);
      });
      return;
    }
    if (depthwise_) {
      // Whole lines of out, where those are not longer than what is worth handing out.
      const int64_t work = run.shape.columns * shape_.positions, line = shape_.out_size[2];
      int64_t height = ceil_div(kDepthwiseTaskWork, work);
      if (height > line) height = round_up(height, line);
      parallel(device_.threads, ceil_div(rows, height), [&](int64_t task, int worker) {
        const int64_t first = task * height;
        kernels_.depthwise(run, first, rows - first < height ? rows - first : height, scratch + worker * bytes);
      });
      return;
    }
    const Grid grid(layout_, desc_.format, rows, run.group_panels, shape_.positions * shape_.channels,
                    ceil_div(kTasks, shape_.groups));
    // Blocks of the same rows one after the other: what they gather is then near.
    parallel(device_.threads, grid.row_blocks * grid.panel_blocks * shape_.groups, [&](int64_t task, int worker) {
      ConvBlock block;
      block.panel = task % grid.panel_blocks * grid.block_panels;
      task /= grid.panel_blocks;
      block.group = task % shape_.groups;
      block.row = task / shape_.groups * grid.block_rows;
      block.rows = rows - block.row < grid.block_rows ? rows - block.row : grid.block_rows;
      block.panels = run.group_panels - block.panel < grid.block_panels ? run.group_panels - block.panel : grid.block_panels;
      kernels_.compute(run, block, scratch + worker * bytes);
    });
  }

  const Device& device_;
  const ConvKernels& kernels_;
  const GemmLayout& layout_;
  const gtn_conv_desc desc_;
  const ConvShape shape_;
  bool depthwise_;
  bool planes_;              // depthwise, by planes of a channel
  bool in_place_;            // products read x itself
  int64_t volume_, out_volume_;
  int64_t element_;          // bytes of what products read
  int64_t x_strides_[5];     // of what products read
  int64_t out_strides_[5];
  int64_t pitch_;
};

}  // namespace

gtn_status conv_plan(const Device& device, const gtn_conv_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message) {
  ConvPlan* created = new (std::nothrow) ConvPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->describe(info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
