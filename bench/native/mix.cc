#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  const char* name;
  int32_t gate;
  int64_t parts, tokens, heads, size;
  bool residual;
};

constexpr Shape kShapes[] = {
    {"decode_3", GTN_GATE_SIGMOID, 3, 1, 32, 128, false},         // one token of three sparse branches
    {"branches_3x1024", GTN_GATE_SIGMOID, 3, 1024, 32, 128, false},
    {"cross_2048", GTN_GATE_TANH, 1, 2048, 1, 2048, true}         // gated cross-attention joins the stream
};

class Mix final : public Problem {
 public:
  Mix(const Device& device, int32_t dtype, const Shape& shape) : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_mix_desc desc = {};
    desc.size = sizeof desc;
    desc.gate = shape.gate;
    desc.x = tensor(dtype, {shape.parts, shape.tokens, shape.heads, shape.size});
    desc.gates = tensor(GTN_F32, {shape.tokens, shape.parts, shape.heads});
    desc.out = tensor(dtype, {shape.tokens, shape.heads, shape.size});
    desc.has_residual = shape.residual;
    Message message;
    check(gtn_mix_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    const int64_t rows = shape_.tokens * shape_.heads;
    x_.emplace_back(device_, dtype_, shape_.parts * rows * shape_.size);
    gates_.emplace_back(device_, GTN_F32, shape_.parts * rows);
    residual_.emplace_back(device_, dtype_, shape_.residual ? rows * shape_.size : 1);
    out_.emplace_back(device_, dtype_, rows * shape_.size);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_mix_run(plan_, device_.stream, shape_.tokens, 0, x_[set].data(), gates_[set].data(), nullptr,
                       shape_.residual ? residual_[set].data() : nullptr, out_[set].data());
  }

  const int32_t dtype_;
  const Shape shape_;
  std::vector<Buffer> x_, gates_, residual_, out_;
};

}  // namespace

std::vector<Benchmark> mix_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("mix/") + type_name(dtype) + "/" + shape.name, GTN_OP_MIX, dtype, GTN_LIMIT_F32,
                     [=](const Device& device) { return std::make_unique<Mix>(device, dtype, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
