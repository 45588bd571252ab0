#include "bench.h"

namespace gatun::bench {
namespace {

// Bias and activation.
class Activation final : public Problem {
 public:
  Activation(const Device& device, int32_t activation, int32_t dtype, Rows shape)
      : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_activation_desc desc = {};
    desc.size = sizeof desc;
    desc.activation = activation;
    desc.x = desc.out = tensor(dtype, {shape.rows, shape.n});
    desc.has_bias = 1;
    Message message;
    check(gtn_activation_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    x_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
    bias_.emplace_back(device_, GTN_F32, shape_.n);
    out_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_activation_run(plan_, device_.stream, shape_.rows, x_[set].data(), bias_[set].data(), out_[set].data());
  }

  const int32_t dtype_;
  const Rows shape_;
  std::vector<Buffer> x_, bias_, out_;
};

constexpr struct {
  int32_t activation;
  const char* name;
} kActivations[] = {
    {GTN_ACT_GELU_ERF, "gelu_erf"}, {GTN_ACT_GELU_TANH, "gelu_tanh"}, {GTN_ACT_SILU, "silu"}, {GTN_ACT_RELU, "relu"}};

}  // namespace

std::vector<Benchmark> activation_benchmarks() {
  std::vector<Benchmark> all;
  for (const auto& [activation, name] : kActivations) {
    for (int32_t dtype : {GTN_F32, GTN_BF16}) {
      for (const Rows& rows : kRows) {
        all.push_back({std::string("activation/") + name + "/" + type_name(dtype) + "/" + rows.name(),
                       GTN_OP_ACTIVATION, dtype, GTN_LIMIT_F32, [=, which = activation](const Device& device) {
                         return std::make_unique<Activation>(device, which, dtype, rows);
                       }, rows.large});
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
