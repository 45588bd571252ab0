#include "bench.h"

namespace gatun::bench {
namespace {

// Gated activations; halves: gate and x lie side by side, as one product gives them.
class Glu final : public Problem {
 public:
  Glu(const Device& device, int32_t activation, int32_t dtype, Rows shape, bool halves)
      : Problem(device), dtype_(dtype), shape_(shape), halves_(halves) {
    gtn_glu_desc desc = {};
    desc.size = sizeof desc;
    desc.activation = activation;
    desc.gate = desc.x = desc.out = tensor(dtype, {shape.rows, shape.n});
    if (halves) desc.gate.strides[0] = desc.x.strides[0] = 2 * shape.n;
    Message message;
    check(gtn_glu_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    const int64_t elements = shape_.rows * shape_.n;
    gate_.emplace_back(device_, dtype_, halves_ ? 2 * elements : elements);
    if (!halves_) x_.emplace_back(device_, dtype_, elements);
    out_.emplace_back(device_, dtype_, elements);
  }

 private:
  gtn_status start(size_t set) const override {
    const char* gate = static_cast<const char*>(gate_[set].data());
    const void* x = halves_ ? gate + shape_.n * (dtype_ == GTN_F32 ? 4 : 2) : x_[set].data();
    return gtn_glu_run(plan_, device_.stream, shape_.rows, gate, x, out_[set].data());
  }

  const int32_t dtype_;
  const Rows shape_;
  const bool halves_;
  std::vector<Buffer> gate_, x_, out_;
};

constexpr struct {
  int32_t activation;
  const char* name;
} kActivations[] = {
    {GTN_ACT_GELU_ERF, "gelu_erf"}, {GTN_ACT_GELU_TANH, "gelu_tanh"}, {GTN_ACT_SILU, "silu"}, {GTN_ACT_RELU, "relu"}};

}  // namespace

std::vector<Benchmark> glu_benchmarks() {
  std::vector<Benchmark> all;
  for (const auto& [activation, name] : kActivations) {
    for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
      for (bool halves : {false, true}) {
        for (const Rows& rows : kRows) {
          all.push_back({std::string("glu/") + name + "/" + type_name(dtype) + (halves ? "/halves/" : "/") + rows.name(),
                         GTN_OP_GLU, dtype, GTN_LIMIT_F32, [=, which = activation](const Device& device) {
                           return std::make_unique<Glu>(device, which, dtype, rows, halves);
                         }, rows.large});
        }
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
