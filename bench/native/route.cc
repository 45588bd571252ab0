#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  const char* name;
  int32_t kind;
  int64_t tokens, experts, top, groups, top_groups;
};

constexpr Shape kShapes[] = {
    {"decode_8_2", GTN_ROUTE_SOFTMAX, 16, 8, 2, 0, 0},
    {"prefill_128_8", GTN_ROUTE_SOFTMAX, 4096, 128, 8, 0, 0},
    {"prefill_256_8_groups", GTN_ROUTE_SIGMOID, 4096, 256, 8, 8, 4}  // with a bias
};

class Route final : public Problem {
 public:
  Route(const Device& device, int32_t dtype, const Shape& shape) : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_route_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = shape.kind;
    desc.x = tensor(dtype, {shape.tokens, shape.experts});
    desc.top = shape.top;
    desc.groups = shape.groups;
    desc.top_groups = shape.top_groups;
    desc.has_bias = shape.groups > 0;
    desc.normalize = 1;
    desc.scale = 1;
    Message message;
    check(gtn_route_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    const int64_t choices = shape_.tokens * shape_.top;
    x_.emplace_back(device_, dtype_, shape_.tokens * shape_.experts);
    bias_.emplace_back(device_, GTN_F32, shape_.experts);
    weights_.emplace_back(device_, GTN_F32, choices);
    // Integers: four bytes each, and eight.
    experts_.emplace_back(device_, GTN_F32, choices);
    rows_.emplace_back(device_, GTN_F32, choices);
    slots_.emplace_back(device_, GTN_F32, choices);
    offsets_.emplace_back(device_, GTN_F32, 2 * (shape_.experts + 1));
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_route_run(plan_, device_.stream, shape_.tokens, x_[set].data(),
                         shape_.groups > 0 ? bias_[set].data() : nullptr, experts_[set].data(), weights_[set].data(),
                         offsets_[set].data(), rows_[set].data(), slots_[set].data());
  }

  const int32_t dtype_;
  const Shape shape_;
  std::vector<Buffer> x_, bias_, experts_, weights_, offsets_, rows_, slots_;
};

}  // namespace

std::vector<Benchmark> route_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("route/") + type_name(dtype) + "/" + shape.name, GTN_OP_ROUTE, dtype, GTN_LIMIT_F32,
                     [=](const Device& device) { return std::make_unique<Route>(device, dtype, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
