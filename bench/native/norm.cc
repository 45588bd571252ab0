#include "bench.h"

namespace gatun::bench {
namespace {

// Normalisation of x + residual, with a beta where there is one.
class Norm final : public Problem {
 public:
  Norm(const Device& device, int32_t kind, int32_t dtype, Rows shape)
      : Problem(device), has_beta_(kind == GTN_NORM_LAYER), dtype_(dtype), shape_(shape) {
    gtn_norm_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = kind;
    desc.x = desc.out = tensor(dtype, {shape.rows, shape.n});
    desc.epsilon = 1e-5f;
    desc.has_residual = 1;
    desc.has_beta = has_beta_;
    Message message;
    check(gtn_norm_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    x_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
    residual_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
    gamma_.emplace_back(device_, GTN_F32, shape_.n);
    beta_.emplace_back(device_, GTN_F32, shape_.n);
    out_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_norm_run(plan_, device_.stream, shape_.rows, x_[set].data(), residual_[set].data(), gamma_[set].data(),
                        has_beta_ ? beta_[set].data() : nullptr, out_[set].data(), nullptr);
  }

  const bool has_beta_;
  const int32_t dtype_;
  const Rows shape_;
  std::vector<Buffer> x_, residual_, gamma_, beta_, out_;
};

}  // namespace

std::vector<Benchmark> norm_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
    for (int32_t dtype : {GTN_F32, GTN_BF16}) {
      for (const Rows& rows : kRows) {
        const std::string name = kind == GTN_NORM_LAYER ? "norm/layer/" : "norm/rms/";
        all.push_back({name + type_name(dtype) + "/" + rows.name(), GTN_OP_NORM, dtype, GTN_LIMIT_F32,
                       [=](const Device& device) { return std::make_unique<Norm>(device, kind, dtype, rows); },
                       rows.large});
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
