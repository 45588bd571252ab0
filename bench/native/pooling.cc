#include "bench.h"

namespace gatun::bench {
namespace {

// Square windows of an image; a kernel of 0 is all of it.
struct Shape {
  const char* name;
  int32_t kind;
  int64_t channels, size, kernel, stride, padding;
};

// The first pooling of ResNet-50 (He et al. 2016, table 1) and its last, global one; one of VGG (Simonyan and Zisserman 2015); the
// mean of 3 x 3 beside other branches, as in Szegedy et al. 2015.
constexpr Shape kShapes[] = {
    {"max_64_3x3s2_112", GTN_POOLING_MAX, 64, 112, 3, 2, 1},
    {"max_128_2x2s2_112", GTN_POOLING_MAX, 128, 112, 2, 2, 0},
    {"average_192_3x3_28", GTN_POOLING_AVERAGE, 192, 28, 3, 1, 1},
    {"global_average_2048_7", GTN_POOLING_AVERAGE, 2048, 7, 0, 1, 0},
};

class Pooling final : public Problem {
 public:
  Pooling(const Device& device, int32_t dtype, Shape shape, bool channels_last)
      : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_pooling_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = shape.kind;
    desc.x = tensor(dtype, {1, shape.channels, shape.size, shape.size});
    desc.out = tensor(dtype, {1, shape.channels, out_size(), out_size()});
    for (gtn_tensor_desc* t : {&desc.x, &desc.out}) {
      if (!channels_last) continue;
      t->strides[1] = 1;
      t->strides[3] = shape.channels;
      t->strides[2] = shape.channels * t->shape[3];
    }
    for (int d = 0; d < 2; ++d) {
      desc.kernel[d] = kernel();
      desc.stride[d] = shape.stride;
      desc.dilation[d] = 1;
      desc.pad_before[d] = desc.pad_after[d] = shape.padding;
    }
    Message message;
    check(gtn_pooling_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    x_.emplace_back(device_, dtype_, shape_.channels * shape_.size * shape_.size);
    out_.emplace_back(device_, dtype_, shape_.channels * out_size() * out_size());
  }

 private:
  int64_t kernel() const { return shape_.kernel == 0 ? shape_.size : shape_.kernel; }
  int64_t out_size() const { return (shape_.size + 2 * shape_.padding - kernel()) / shape_.stride + 1; }

  gtn_status start(size_t set) const override {
    return gtn_pooling_run(plan_, device_.stream, 1, x_[set].data(), out_[set].data());
  }

  const int32_t dtype_;
  const Shape shape_;
  std::vector<Buffer> x_, out_;
};

}  // namespace

std::vector<Benchmark> pooling_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
    for (bool channels_last : {false, true}) {
      for (const Shape& shape : kShapes) {
        all.push_back({std::string("pooling/") + type_name(dtype) + (channels_last ? "/channels_last/" : "/") + shape.name,
                       GTN_OP_POOLING, dtype, GTN_LIMIT_F32, [=](const Device& device) {
                         return std::make_unique<Pooling>(device, dtype, shape, channels_last);
                       }});
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
