#include "bench.h"

namespace gatun::bench {
namespace {

// Normalisation of x + residual, with a beta where there is one, and quantized or not.
class Norm final : public Problem {
 public:
  Norm(const Device& device, int32_t kind, int32_t dtype, Rows shape, bool quantized)
      : Problem(device), has_beta_(kind == GTN_NORM_LAYER), quantized_(quantized), dtype_(dtype), shape_(shape) {
    gtn_norm_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = kind;
    desc.x = desc.out = tensor(dtype, {shape.rows, shape.n});
    if (quantized) desc.out.dtype = GTN_U8;
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
    out_.emplace_back(device_, quantized_ ? GTN_S8 : dtype_, shape_.rows * shape_.n);
    scales_.emplace_back(device_, GTN_F32, shape_.rows);
    zero_points_.emplace_back(device_, GTN_F32, shape_.rows);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_norm_run_quantized(plan_, device_.stream, shape_.rows, x_[set].data(), residual_[set].data(),
                                  gamma_[set].data(), has_beta_ ? beta_[set].data() : nullptr, out_[set].data(),
                                  quantized_ ? scales_[set].data() : nullptr,
                                  quantized_ ? zero_points_[set].data() : nullptr, nullptr);
  }

  const bool has_beta_, quantized_;
  const int32_t dtype_;
  const Rows shape_;
  std::vector<Buffer> x_, residual_, gamma_, beta_, out_, scales_, zero_points_;
};

}  // namespace

std::vector<Benchmark> norm_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t kind : {GTN_NORM_LAYER, GTN_NORM_RMS}) {
    for (int32_t dtype : {GTN_F32, GTN_BF16}) {
      for (bool quantized : {false, true}) {
        for (const Rows& rows : kRows) {
          const std::string name = kind == GTN_NORM_LAYER ? "norm/layer/" : "norm/rms/";
          all.push_back({name + type_name(dtype) + (quantized ? "/to_int8/" : "/") + rows.name(), GTN_OP_NORM, dtype,
                         GTN_LIMIT_F32, [=](const Device& device) {
                           return std::make_unique<Norm>(device, kind, dtype, rows, quantized);
                         }, rows.large});
        }
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
