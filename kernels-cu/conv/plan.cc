// Plans of convolutions: how x is read, which tile, and the launches of a run. A large one whose x lies well is one launch; x is
// rewritten before in parts of the batch where tiles cannot read it, and sums of splits are added up after.
#include "conv/plan.h"

#include <cstdio>

#include "conv/kernels.h"
#include "gemm/choice.h"

namespace gatun::gpu {
namespace {

using namespace conv;

// x is rewritten in parts of about this size, or of an image.
constexpr int64_t kPreparedBytes = int64_t{256} << 20;

// What kernels count in 32 bits: places of a dimension with its padding, and three positions of a thread more; positions of out and
// chunks of x in a part of the batch; k, columns of a group and groups, as in GEMM.
constexpr int64_t kMaxPlaces = int64_t{1} << 28;
constexpr int64_t kMaxRows = int64_t{1} << 30;
constexpr int64_t kMaxChunks = int64_t{1} << 31;
constexpr int64_t kMaxSize = INT32_MAX - 1024;

constexpr int64_t kMostBlocks = int64_t{1} << 20;  // of kernels that go on with the next task

bool aligned(const void* p, int64_t to) { return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(to) == 0; }
int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

// Batch, channels and three spatial dimensions. The stride of a dimension of one index does not matter, and is 0.
void strides_of(const gtn_tensor_desc& tensor, int64_t* strides) {
  const int missing = 5 - tensor.rank;
  for (int d = 0; d < 5; ++d) {
    const int from = d < 2 ? d : d - missing;
    strides[d] = from < (d < 2 ? 0 : 2) || tensor.shape[from] <= 1 ? 0 : tensor.strides[from];
  }
}

// By spatial dimension; those that are not there are in front, of size and kernel 1.
struct Shape {
  int64_t size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
  int64_t volume = 1, out_volume = 1, positions = 1;
  int64_t groups, channels, columns;  // channels, columns: of a group
  bool depthwise;

  explicit Shape(const gtn_conv_desc& desc) {
    const int missing = 5 - desc.x.rank;
    for (int d = 0; d < 3; ++d) {
      const int from = d - missing;
      const bool there = from >= 0;
      size[d] = there ? desc.x.shape[2 + from] : 1;
      out_size[d] = there ? desc.out.shape[2 + from] : 1;
      kernel[d] = there ? desc.kernel[from] : 1;
      stride[d] = out_size[d] > 1 ? desc.stride[from] : 1;
      dilation[d] = kernel[d] > 1 ? desc.dilation[from] : 1;
      pad[d] = there ? desc.pad_before[from] : 0;
      volume = times(volume, size[d]);
      out_volume = times(out_volume, out_size[d]);
      positions = times(positions, kernel[d]);
    }
    groups = desc.groups;
    channels = desc.x.shape[1] / groups;
    columns = desc.out.shape[1] / groups;
    depthwise = channels == 1 && columns == 1 && groups > 1;
  }
};

class ConvPlan : public Plan {
 public:
  ConvPlan(const Device& device, const gtn_conv_desc& desc) : device_(device), desc_(desc), shape_(desc) {
    x_bytes_ = element_bytes(desc.x.dtype);
    out_bytes_ = element_bytes(desc.out.dtype);
    strides_of(desc.x, x_strides_);
    strides_of(desc.out, out_strides_);
  }

  virtual gtn_status ready(gtn_message* message) = 0;

  // Fills info but for the kernel's name and the workspace.
  void describe(gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double rows = real(desc_.x.shape[0]) * real(shape_.out_volume), columns = real(desc_.out.shape[1]);
    const double k = real(shape_.positions) * real(shape_.channels);
    const double weight_bytes = shape_.depthwise ? 4 : real(element_bytes(desc_.format));
    info->flops = 2 * rows * columns * k;
    info->bytes = real(desc_.x.shape[0]) * real(shape_.volume) * real(desc_.x.shape[1]) * real(x_bytes_) + k * columns * weight_bytes +
                  rows * columns * real(out_bytes_) * (desc_.has_residual ? 2 : 1) + (desc_.has_bias ? 8 : 4) * columns;
  }

 protected:
  ConvFinishArgs finish_of(const gtn_conv_args& args) const {
    const gemm::PackedWeights& weights = *static_cast<const gemm::PackedWeights*>(args.weights);
    ConvFinishArgs finish = {};
    finish.columns = shape_.depthwise ? desc_.out.shape[1] : shape_.columns;
    finish.shift = weights.shift;
    finish.bias = static_cast<const float*>(args.bias);
    finish.residual = args.residual;
    finish.out = args.out;
    finish.channel_stride = out_strides_[1];
    finish.out_dtype = desc_.out.dtype;
    finish.activation = desc_.activation;
    finish.residual_first = desc_.residual_first;
    bool vector = out_strides_[1] == 1 && (shape_.groups == 1 || shape_.depthwise || shape_.columns % 4 == 0) &&
                  aligned(args.out, 4 * out_bytes_) && aligned(args.residual, 4 * out_bytes_);
    for (const int d : {0, 2, 3, 4}) vector = vector && out_strides_[d] % 4 == 0;
    finish.vector = vector;
    return finish;
  }

  const Device& device_;
  const gtn_conv_desc desc_;
  const Shape shape_;
  int64_t x_bytes_, out_bytes_;
  int64_t x_strides_[5], out_strides_[5];
};

class TilesPlan final : public ConvPlan {
 public:
  TilesPlan(const Device& device, const gtn_conv_desc& desc) : ConvPlan(device, desc) {
    element_ = element_bytes(desc.format);
    const int64_t chunk = chunk_elements(desc.format), filled = ceil_div(shape_.channels, chunk) * chunk;
    chunks_ = filled / chunk;
    panels_ = ceil_div(shape_.columns, gemm::kPanelColumns);
    blocks_ = ceil_div(times(shape_.positions, filled) * element_, gemm::kBlockBytes);
    // Whether tiles read x itself, where it is aligned: channels of a group are whole chunks, and so are strides.
    in_place_ = desc.x.dtype == desc.format && x_strides_[1] == 1 && shape_.channels == filled;
    for (const int d : {0, 2, 3, 4}) in_place_ = in_place_ && x_strides_[d] % chunk == 0;
    int64_t span = 0;
    for (int d = 0; d < 3; ++d) span += times(shape_.size[d], x_strides_[2 + d] / chunk);
    in_place_ = in_place_ && span < kMaxChunks && x_strides_[0] / chunk < kMaxChunks;

    args_.groups = narrow(shape_.groups);
    args_.planes = out_strides_[1] != 1;
    args_.chunks = Divisor(chunks_);
    args_.positions = narrow(shape_.positions);
    args_.tiles.panels = narrow(panels_);
    args_.tiles.blocks = narrow(blocks_);
    args_.tiles.panel_bytes = blocks_ * gemm::kPanelBlockBytes;
    args_.places.to[0] = out_strides_[0];
    for (int d = 0; d < 3; ++d) {
      args_.places.size[d] = Divisor(shape_.out_size[d]);
      args_.places.stride[d] = narrow(shape_.stride[d]);
      args_.places.pad[d] = narrow(shape_.pad[d]);
      args_.places.to[1 + d] = out_strides_[2 + d];
      args_.size[d] = narrow(shape_.size[d]);
      args_.dilation[d] = narrow(shape_.dilation[d]);
      if (d > 0) args_.kernel[d - 1] = Divisor(shape_.kernel[d]);
    }
  }

  gtn_status ready(gtn_message* message) override {
    const VariantTable table = desc_.format == GTN_F32 ? f32_variants() : bf16_variants();
    gtn_status status = choices_.prepare(device_, table, desc_.out.dtype, message);
    prepare_ = prepare_kernel(desc_.x.dtype, desc_.format);
    if (status == GTN_OK) status = gpu::prepare(device_.index, prepare_, kPrepareShared, message);
    if (status == GTN_OK) status = gpu::prepare(device_.index, reduce_kernel(), 0, message);
    return status;
  }

  void name(gtn_plan_info* info) const {
    const int64_t batch = desc_.x.shape[0];
    const gemm::Choice choice = choose(batch, true);
    char name[48];
    const int length = std::snprintf(name, sizeof name, "conv.%s.%dx%d", type_name(desc_.format), choice.variant->rows,
                                     choice.variant->columns);
    if (choice.splits > 1) {
      std::snprintf(name + length, sizeof name - static_cast<size_t>(length), ".split%d", static_cast<int>(choice.splits));
    }
    name_kernel(info, device_, name);
    info->workspace_bytes = batch == 0 || shape_.out_volume == 0 ? 0 : Workspace(*this, batch, in_place_, choice).bytes;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_conv_args& args = *static_cast<const gtn_conv_args*>(arguments);
    if (args.batch == 0 || shape_.out_volume == 0) return GTN_OK;
    const bool in_place = in_place_ && aligned(args.x, 16);
    gemm::Choice choice = choose(args.batch, true);
    const Workspace workspace(*this, args.batch, in_place, choice);
    void* memory = nullptr;
    if (gtn_status status = stream.scratch(workspace.bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);

    ConvArgs to = args_;
    to.finish = finish_of(args);
    to.tiles.weights = static_cast<const gemm::PackedWeights*>(args.weights)->data;
    const int64_t per_chunk = 16 / element_;
    int64_t strides[4] = {x_strides_[0] / per_chunk, x_strides_[2] / per_chunk, x_strides_[3] / per_chunk, x_strides_[4] / per_chunk};
    if (!in_place) {
      strides[3] = shape_.groups * chunks_;
      strides[2] = times(shape_.size[2], strides[3]);
      strides[1] = times(shape_.size[1], strides[2]);
      strides[0] = times(shape_.size[0], strides[1]);
    }
    for (int d = 0; d < 4; ++d) to.x_strides[d] = narrow(strides[d]);
    for (int64_t image = 0; image < args.batch; image += workspace.images) {
      const int64_t left = args.batch - image, images = left < workspace.images ? left : workspace.images;
      if (images != args.batch) choice = choose(images, false);
      const char* x = args.x == nullptr ? nullptr : static_cast<const char*>(args.x) + image * x_strides_[0] * x_bytes_;
      gtn_status status = in_place ? GTN_OK : rewrite(stream, x, images, scratch, message);
      if (status != GTN_OK) return status;
      const int64_t out = image * out_strides_[0] * out_bytes_;
      to.finish.out = static_cast<char*>(args.out) + out;
      to.finish.residual = args.residual == nullptr ? nullptr : static_cast<const char*>(args.residual) + out;
      to.tiles.a = in_place ? x : scratch;
      to.tiles.rows = narrow(images * shape_.out_volume);
      to.tiles.tiles_m = narrow(choice.tiles_m);
      to.tiles.tiles_n = narrow(choice.tiles_n);
      to.tiles.split_blocks = narrow(choice.split_blocks);
      to.tiles.partial = choice.splits > 1 ? scratch + workspace.partial_at : nullptr;
      const int64_t count = times(choice.tiles_m * choice.tiles_n, shape_.groups);
      const gemm::Variant& variant = *choice.variant;
      status = launch(stream.queue, variant.kernel, {count < kMostBlocks ? count : kMostBlocks, choice.splits}, variant.threads,
                      variant.shared_bytes, &to, message);
      if (status == GTN_OK && choice.splits > 1) {
        const ConvReduceArgs reduce = {to, narrow(choice.splits)};
        status = launch(stream.queue, reduce_kernel(), {ceil_div(shape_.columns, kReduceThreads), to.tiles.rows}, kReduceThreads, 0,
                        &reduce, message);
      }
      if (status != GTN_OK) return status;
    }
    return GTN_OK;
  }

 private:
  // Images at once, the bytes of x as it is rewritten, and where the sums of splits start. Every offset is a multiple of 256.
  struct Workspace {
    int64_t images, partial_at, bytes;

    Workspace(const TilesPlan& plan, int64_t batch, bool in_place, const gemm::Choice& choice) {
      const Shape& s = plan.shape_;
      const int64_t chunks = times(s.volume, s.groups * plan.chunks_);  // of an image, rewritten
      images = kMaxRows / s.out_volume;
      const int64_t at_once = in_place ? (plan.x_strides_[0] == 0 ? batch : kMaxChunks / plan.image_chunks())
                                       : kPreparedBytes / 16 / (chunks > 0 ? chunks : 1);
      images = at_once < images ? at_once : images;
      images = images < 1 ? 1 : images < batch ? images : batch;
      partial_at = in_place ? 0 : ceil_div(times(times(images, chunks), 16), 256) * 256;
      bytes = partial_at + (choice.splits > 1 ? choice.splits * batch * s.out_volume * plan.panels_ * gemm::kPanelColumns * 4 : 0);
    }
  };

  // Chunks from an image of x where it lies to the next, and at least those that it extends over.
  int64_t image_chunks() const {
    const int64_t chunk = 16 / element_;
    int64_t span = x_strides_[0] / chunk;
    for (int d = 0; d < 3; ++d) span += times(shape_.size[d], x_strides_[2 + d] / chunk);
    return span > 0 ? span : 1;
  }

  gemm::Choice choose(int64_t images, bool may_split) const {
    const int64_t all = times(images, shape_.out_volume), rows = all < 1 ? 1 : all < kMaxRows ? all : kMaxRows;
    return choices_.choose({rows, shape_.columns, blocks_, 0, shape_.groups,
                            blocks_ * panels_ * gemm::kPanelBlockBytes, may_split && shape_.groups == 1});
  }

  gtn_status rewrite(Stream& stream, const char* x, int64_t images, char* to, gtn_message* message) const {
    PrepareArgs args = {};
    args.x = x;
    for (int d = 0; d < 5; ++d) args.strides[d] = x_strides_[d];
    for (int d = 0; d < 3; ++d) args.size[d] = Divisor(shape_.size[d]);
    args.positions = images * shape_.volume;
    if (args.positions == 0) return GTN_OK;
    args.groups = narrow(shape_.groups);
    args.channels = narrow(shape_.channels);
    args.filled = narrow(chunks_ * (16 / element_));
    args.to = to;
    const int64_t tiles = times(ceil_div(args.positions, kPrepareTile), ceil_div(args.filled, kPrepareTile) * shape_.groups);
    return launch(stream.queue, prepare_, {tiles < kMostBlocks ? tiles : kMostBlocks}, kPrepareThreads, kPrepareShared, &args, message);
  }

  int64_t element_, chunks_;  // chunks: of a kernel position of a group
  int64_t panels_, blocks_;
  bool in_place_;
  ConvArgs args_ = {};
  gemm::Choices choices_;
  KernelPointer prepare_ = {};
};

class DepthwisePlan final : public ConvPlan {
 public:
  DepthwisePlan(const Device& device, const gtn_conv_desc& desc) : ConvPlan(device, desc) {
    planes_ = x_strides_[1] != 1;
    kernel_ = depthwise_kernel(desc.x.dtype, planes_);
    args_.channels = desc.x.shape[1];
    args_.filled = ceil_div(args_.channels, kChannels) * kChannels;
    args_.round = desc.format == GTN_BF16;
    const int along = planes_ ? 1 : 2;
    args_.lines = ceil_div(shape_.out_size[along], kPixels);
    units_ = planes_ ? args_.channels : args_.filled / kChannels;
    for (int d = 0; d < 3; ++d) {
      units_ = times(units_, d == along ? args_.lines : shape_.out_size[d]);
      args_.size[d] = narrow(shape_.size[d]);
      args_.out_size[d] = narrow(shape_.out_size[d]);
      args_.kernel[d] = narrow(shape_.kernel[d]);
      args_.stride[d] = narrow(shape_.stride[d]);
      args_.dilation[d] = narrow(shape_.dilation[d]);
      args_.pad[d] = narrow(shape_.pad[d]);
    }
    for (int d = 0; d < 5; ++d) {
      args_.x_strides[d] = x_strides_[d];
      args_.out_strides[d] = out_strides_[d];
    }
  }

  gtn_status ready(gtn_message* message) override { return gpu::prepare(device_.index, kernel_, 0, message); }

  void name(gtn_plan_info* info) const {
    char name[48];
    std::snprintf(name, sizeof name, "conv.%s.depthwise", type_name(desc_.format));
    name_kernel(info, device_, name);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_conv_args& args = *static_cast<const gtn_conv_args*>(arguments);
    DepthwiseArgs to = args_;
    to.x = args.x;
    to.weights = reinterpret_cast<const float*>(static_cast<const gemm::PackedWeights*>(args.weights)->data);
    to.finish = finish_of(args);
    to.units = times(units_, args.batch);
    if (to.units == 0) return GTN_OK;
    bool vector = x_strides_[1] == 1 && aligned(args.x, kChannels * x_bytes_);
    for (const int d : {0, 2, 3, 4}) vector = vector && x_strides_[d] % kChannels == 0;
    to.vector = vector;
    const int64_t blocks = ceil_div(to.units, kDepthwiseThreads);
    return launch(stream.queue, kernel_, {blocks < kMostBlocks ? blocks : kMostBlocks}, kDepthwiseThreads, 0, &to, message);
  }

 private:
  bool planes_;
  int64_t units_;  // of an image
  KernelPointer kernel_;
  DepthwiseArgs args_ = {};
};

// GTN_OK where kernels can count it.
gtn_status check(const gtn_conv_desc& desc, gtn_message* message) {
  const Shape s(desc);
  for (int d = 0; d < desc.x.rank - 2; ++d) {
    if (desc.x.shape[2 + d] + desc.pad_before[d] + desc.pad_after[d] <= kMaxPlaces) continue;  // the core knows that it fits
    return fail(message, GTN_UNSUPPORTED, "spatial dimension %d of %lld with paddings of %lld and %lld: this backend takes up to 2^28 places", d,
                static_cast<long long>(desc.x.shape[2 + d]), static_cast<long long>(desc.pad_before[d]),
                static_cast<long long>(desc.pad_after[d]));
  }
  if (s.depthwise) return GTN_OK;
  const int64_t chunk = chunk_elements(desc.format), chunks = ceil_div(s.channels, chunk);
  if (times(s.positions, chunks * chunk) > kMaxSize || s.columns > kMaxSize || s.groups > kMaxSize) {
    return fail(message, GTN_UNSUPPORTED, "%lld groups of %lld channels by %lld kernel positions by %lld channels of out: this backend takes up to %lld of each",
                static_cast<long long>(s.groups), static_cast<long long>(s.channels), static_cast<long long>(s.positions),
                static_cast<long long>(s.columns), static_cast<long long>(kMaxSize));
  }
  if (s.out_volume > kMaxRows || times(s.volume, times(s.groups, chunks)) >= kMaxChunks) {
    return fail(message, GTN_UNSUPPORTED, "an image of %lld positions, of out %lld: this backend takes up to 2^30, and 32 GB of x",
                static_cast<long long>(s.volume), static_cast<long long>(s.out_volume));
  }
  return GTN_OK;
}

template <typename Kind>
gtn_status make(Device& device, const gtn_conv_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<Kind>(message, device, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(message); status != GTN_OK) return status;
  created->describe(info);
  created->name(info);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace

bool conv_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status conv_plan(Device& device, const gtn_conv_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (const gtn_status status = check(desc, message); status != GTN_OK) return status;
  return Shape(desc).depthwise ? make<DepthwisePlan>(device, desc, plan, info, message)
                               : make<TilesPlan>(device, desc, plan, info, message);
}

}  // namespace gatun::gpu
