#include "bench.h"

namespace gatun::bench {
namespace {

class Softmax final : public Problem {
 public:
  Softmax(const Device& device, int32_t dtype, Rows shape) : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_softmax_desc desc = {};
    desc.size = sizeof desc;
    desc.scale = 0.125f;
    desc.x = desc.out = tensor(dtype, {shape.rows, shape.n});
    Message message;
    check(gtn_softmax_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    x_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
    out_.emplace_back(device_, dtype_, shape_.rows * shape_.n);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_softmax_run(plan_, device_.stream, shape_.rows, x_[set].data(), out_[set].data());
  }

  const int32_t dtype_;
  const Rows shape_;
  std::vector<Buffer> x_, out_;
};

}  // namespace

std::vector<Benchmark> softmax_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (const Rows& rows : kRows) {
      all.push_back({std::string("softmax/") + type_name(dtype) + "/" + rows.name(), GTN_OP_SOFTMAX, dtype,
                     GTN_LIMIT_F32,
                     [=](const Device& device) { return std::make_unique<Softmax>(device, dtype, rows); }, rows.large});
    }
  }
  return all;
}

}  // namespace gatun::bench
