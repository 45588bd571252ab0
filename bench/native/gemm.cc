#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  int64_t m, n, k;
  bool large = false;
  std::string name() const { return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k); }
};

// From one token of a decoder, where reading the weights binds, to a batch, where the products do; then a layer whose
// weights are in few caches.
constexpr Shape kShapes[] = {{1, 1024, 1024},    {32, 1024, 1024}, {128, 1024, 1024},
                             {1024, 1024, 1024}, {1, 4096, 4096},  {32, 4096, 4096},
                             {128, 4096, 4096, true}, {4096, 4096, 4096, true}, {8192, 8192, 8192, true}};

// What a product has beside its shape: rows in equal groups, an expert each, or an adapter.
struct Further {
  const char* name;
  int64_t groups, rank;
  bool quantized = false;  // rows of U8
};
constexpr Further kPlain = {"", 0, 0};

// Tokens of a decoder that meet an expert or two each, and of a prompt; adapters of the usual ranks, for one token and
// a prompt. The plain products of the same sizes are above.
constexpr struct {
  Shape shape;
  Further further;
} kFurther[] = {{{128, 1024, 1024}, {"/experts_64", 64, 0}}, {{1024, 1024, 1024}, {"/experts_8", 8, 0}},
                {{1, 4096, 4096}, {"/lora_16", 0, 16}},      {{1, 4096, 4096}, {"/lora_64", 0, 64}},
                {{1024, 1024, 1024}, {"/lora_16", 0, 16}},   {{1024, 1024, 1024}, {"/lora_64", 0, 64}}};

// Elements of k that share a scale, of weights of 4 and 8 bits.
constexpr int64_t kGroupSize = 32;

std::vector<float> weights_of(int32_t format, int64_t k, int64_t n) {
  std::vector<float> weights = random_floats(k * n);
  if (format != GTN_BF16_2OF4) return weights;
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < n; ++j) {
      if ((p + j) % 2 == 0) weights[static_cast<size_t>(p * n + j)] = 0.0f;  // two of four
    }
  }
  return weights;
}

// a, weights, bias and out; BF16 and F16 take and give their own type, the others FP32.
class Gemm final : public Problem {
 public:
  Gemm(const Device& device, int32_t format, Shape shape, Further further)
      : Problem(device),
        format_(format),
        a_dtype_(further.quantized ? GTN_U8 : row_type(format)),
        dtype_(row_type(format)),
        shape_(shape),
        further_(further),
        source_(weights_of(format, matrices() * shape.k, shape.n)) {
    gtn_gemm_desc desc = {};
    desc.size = sizeof desc;
    desc.format = format;
    desc.a = tensor(a_dtype_, {shape.m, shape.k});
    desc.out = tensor(dtype_, {shape.m, shape.n});
    desc.has_bias = 1;
    desc.groups = further.groups;
    desc.rank = further.rank;
    desc.lora_dtype = further.rank > 0 ? dtype_ : 0;
    desc.lora_scale = further.rank > 0 ? 0.5f : 0.0f;
    desc.group_size = is_quantized() ? kGroupSize : 0;
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
    desc.source = further_.groups > 0 ? tensor(GTN_F32, {further_.groups, shape_.k, shape_.n})
                                      : tensor(GTN_F32, {shape_.k, shape_.n});
    desc.group_size = is_quantized() ? kGroupSize : 0;
    desc.symmetric = is_quantized();
    Message message;
    gtn_weights packed = 0;
    check(gtn_weights_pack(device_.handle, &desc, source_.data(), &packed, &message), message);
    weights_.push_back(packed);
    a_.emplace_back(device_, further_.quantized ? GTN_S8 : dtype_, shape_.m * shape_.k);
    scales_.emplace_back(device_, GTN_F32, shape_.m);
    zero_points_.emplace_back(device_, std::vector<int32_t>(static_cast<size_t>(shape_.m), 100));
    bias_.emplace_back(device_, GTN_F32, matrices() * shape_.n);
    out_.emplace_back(device_, dtype_, shape_.m * shape_.n);
    std::vector<int64_t> offsets;
    for (int64_t g = 0; g <= further_.groups; ++g) offsets.push_back(shape_.m * g / matrices());
    offsets_.emplace_back(device_, offsets);
    lora_a_.emplace_back(device_, dtype_, shape_.k * further_.rank + 1);
    lora_b_.emplace_back(device_, dtype_, further_.rank * shape_.n + 1);
  }

 private:
  static int32_t row_type(int32_t format) { return format == GTN_BF16 || format == GTN_F16 ? format : GTN_F32; }
  bool is_quantized() const { return format_ == GTN_U4 || format_ == GTN_U8; }
  int64_t matrices() const { return further_.groups > 0 ? further_.groups : 1; }

  gtn_status start(size_t set) const override {
    const bool low_rank = further_.rank > 0;
    if (further_.quantized) {
      return gtn_gemm_run_quantized(plan_, device_.stream, weights_[set], shape_.m, shape_.m, a_[set].data(),
                                    scales_[set].data(), zero_points_[set].data(), bias_[set].data(), nullptr,
                                    out_[set].data(), nullptr, nullptr);
    }
    return gtn_gemm_run_with(plan_, device_.stream, weights_[set], shape_.m, shape_.m, a_[set].data(),
                             bias_[set].data(), nullptr, out_[set].data(), further_.groups > 0 ? offsets_[set].data() : nullptr, nullptr,
                             low_rank ? lora_a_[set].data() : nullptr, low_rank ? lora_b_[set].data() : nullptr);
  }

  const int32_t format_, a_dtype_, dtype_;
  const Shape shape_;
  const Further further_;
  const std::vector<float> source_;
  std::vector<gtn_weights> weights_;
  std::vector<Buffer> a_, bias_, out_, offsets_, lora_a_, lora_b_, scales_, zero_points_;
};

}  // namespace

std::vector<Benchmark> gemm_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t format : std::initializer_list<int32_t>{GTN_F32, GTN_BF16, GTN_F16, GTN_S8, GTN_U4, GTN_U8, GTN_F8E4M3,
                                                       GTN_F8E5M2, GTN_BF16_2OF4}) {
    const auto add = [&](Shape shape, Further further) {
      all.push_back({std::string("gemm/") + type_name(format) + "/" + shape.name() + further.name, GTN_OP_GEMM, format,
                     limit_of(format), [=](const Device& device) {
                       return std::make_unique<Gemm>(device, format, shape, further);
                     }, shape.large});
    };
    for (const Shape& shape : kShapes) add(shape, kPlain);
    for (const auto& more : kFurther) add(more.shape, more.further);
    if (format == GTN_S8) add({1024, 1024, 1024}, {"/quantized", 0, 0, true});
  }
  return all;
}

}  // namespace gatun::bench
