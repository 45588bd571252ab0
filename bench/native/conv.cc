#include "bench.h"

namespace gatun::bench {
namespace {

// Channels of x and out, sizes of x, kernel, stride, in two or three dimensions; padding keeps sizes, less the stride.
struct Shape {
  const char* name;
  int rank;
  int64_t channels, columns, size, kernel, stride, groups;
};

// The layers of ResNet-50 (He et al. 2016, table 1) with most products, an image each; its first; a depthwise layer of MobileNet
// (Howard et al. 2017, table 1); a layer of a network on volumes.
constexpr Shape kShapes[] = {
    {"resnet_64_3x3_56", 2, 64, 64, 56, 3, 1, 1},       {"resnet_128_3x3_28", 2, 128, 128, 28, 3, 1, 1},
    {"resnet_256_3x3_14", 2, 256, 256, 14, 3, 1, 1},    {"resnet_512_3x3_7", 2, 512, 512, 7, 3, 1, 1},
    {"resnet_256_64_1x1_56", 2, 256, 64, 56, 1, 1, 1},  {"resnet_64_256_1x1_56", 2, 64, 256, 56, 1, 1, 1},
    {"resnet_1024_256_1x1_14", 2, 1024, 256, 14, 1, 1, 1}, {"resnet_3_64_7x7_224", 2, 3, 64, 224, 7, 2, 1},
    {"depthwise_128_3x3_56", 2, 128, 128, 56, 3, 1, 128}, {"volume_32_32_3x3x3_64", 3, 32, 32, 64, 3, 1, 1},
};

// x and out with channels last, weights with a batch normalisation, and an activation.
class Conv final : public Problem {
 public:
  Conv(const Device& device, int32_t format, Shape shape)
      : Problem(device), format_(format), shape_(shape), source_(random_floats(shape.columns * terms())),
        norm_(random_floats(shape.columns)), variance_(static_cast<size_t>(shape.columns), 1.0f) {
    gtn_conv_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format;
    desc.x = channels_last(shape.channels, shape.size);
    desc.out = channels_last(shape.columns, out_size());
    for (int d = 0; d < shape.rank; ++d) {
      desc.kernel[d] = shape.kernel;
      desc.stride[d] = shape.stride;
      desc.dilation[d] = 1;
      desc.pad_before[d] = desc.pad_after[d] = shape.kernel / 2;
    }
    desc.groups = shape.groups;
    desc.activation = GTN_ACT_RELU;
    Message message;
    check(gtn_conv_plan(device.handle, &desc, &plan_, &message), message);
  }

  ~Conv() override {
    for (gtn_weights weights : weights_) gtn_weights_close(weights, nullptr);
  }

  void add() override {
    gtn_conv_weights_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format_;
    const int64_t c = shape_.channels / shape_.groups, k = shape_.kernel;
    desc.source = shape_.rank == 2 ? tensor(GTN_F32, {shape_.columns, c, k, k}) : tensor(GTN_F32, {shape_.columns, c, k, k, k});
    desc.groups = shape_.groups;
    desc.has_norm = 1;
    Message message;
    gtn_weights packed = 0;
    check(gtn_conv_weights_pack(device_.handle, &desc, source_.data(), norm_.data(), norm_.data(), norm_.data(),
                                variance_.data(), &packed, &message),
          message);
    weights_.push_back(packed);
    x_.emplace_back(device_, format_, shape_.channels * volume(shape_.size));
    out_.emplace_back(device_, format_, shape_.columns * volume(out_size()));
  }

 private:
  int64_t volume(int64_t size) const { return shape_.rank == 2 ? size * size : size * size * size; }
  int64_t terms() const { return shape_.channels / shape_.groups * volume(shape_.kernel); }
  int64_t out_size() const { return (shape_.size + shape_.kernel / 2 * 2 - shape_.kernel) / shape_.stride + 1; }

  gtn_tensor_desc channels_last(int64_t channels, int64_t size) const {
    gtn_tensor_desc t = shape_.rank == 2 ? tensor(format_, {1, channels, size, size})
                                         : tensor(format_, {1, channels, size, size, size});
    int64_t stride = channels;
    for (int d = t.rank - 1; d >= 2; --d, stride *= size) t.strides[d] = stride;
    t.strides[1] = 1;
    return t;
  }

  gtn_status start(size_t set) const override {
    return gtn_conv_run(plan_, device_.stream, weights_[set], 1, x_[set].data(), nullptr, nullptr, out_[set].data());
  }

  const int32_t format_;
  const Shape shape_;
  const std::vector<float> source_, norm_, variance_;
  std::vector<gtn_weights> weights_;
  std::vector<Buffer> x_, out_;
};

}  // namespace

std::vector<Benchmark> conv_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t format : {GTN_F32, GTN_BF16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("conv/") + type_name(format) + "/" + shape.name, GTN_OP_CONV, format, limit_of(format),
                     [=](const Device& device) { return std::make_unique<Conv>(device, format, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
