#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  int64_t m, n, k;
  std::string name() const { return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k); }
};

// From one token of a decoder, where reading the weights binds, to a batch, where the products do; then a layer whose
// weights are in few caches.
constexpr Shape kShapes[] = {{1, 1024, 1024},    {32, 1024, 1024}, {128, 1024, 1024},
                             {1024, 1024, 1024}, {1, 4096, 4096},  {32, 4096, 4096}};

// a, weights, bias and out; INT8 takes and gives FP32, the others their own type.
class Gemm final : public Problem {
 public:
  Gemm(const Device& device, int32_t format, Shape shape)
      : Problem(device),
        format_(format),
        dtype_(format == GTN_BF16 ? GTN_BF16 : GTN_F32),
        shape_(shape),
        source_(random_floats(shape.k * shape.n)) {
    gtn_gemm_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format;
    desc.a = tensor(dtype_, {shape.m, shape.k});
    desc.out = tensor(dtype_, {shape.m, shape.n});
    desc.has_bias = 1;
    Message message;
    check(gtn_gemm_plan(device.handle, &desc, &plan_, &message), message);
  }

  ~Gemm() override {
    for (gtn_weights weights : weights_) gtn_weights_close(weights, nullptr);
  }

  void add() override {
    gtn_weights_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format_;
    desc.source = tensor(GTN_F32, {shape_.k, shape_.n});
    Message message;
    gtn_weights packed = 0;
    check(gtn_weights_pack(device_.handle, &desc, source_.data(), &packed, &message), message);
    weights_.push_back(packed);
    a_.emplace_back(device_, dtype_, shape_.m * shape_.k);
    bias_.emplace_back(device_, GTN_F32, shape_.n);
    out_.emplace_back(device_, dtype_, shape_.m * shape_.n);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_gemm_run(plan_, device_.stream, weights_[set], shape_.m, a_[set].data(), bias_[set].data(), nullptr,
                        out_[set].data());
  }

  const int32_t format_, dtype_;
  const Shape shape_;
  const std::vector<float> source_;
  std::vector<gtn_weights> weights_;
  std::vector<Buffer> a_, bias_, out_;
};

}  // namespace

std::vector<Benchmark> gemm_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t format : {GTN_F32, GTN_BF16, GTN_S8}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("gemm/") + type_name(format) + "/" + shape.name(), GTN_OP_GEMM, format,
                     limit_of(format),
                     [=](const Device& device) { return std::make_unique<Gemm>(device, format, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
