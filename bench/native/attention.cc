#include <cmath>

#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  const char* name;
  int64_t batch, len_q, len_k, heads_q, heads_k, size;
  int64_t left, right;  // the window
  int64_t dilation = 1;
  int64_t globals = 0;  // global tokens, evenly spread
  bool large = false;
};

constexpr Shape kShapes[] = {
    {"dense_8x128", 8, 128, 128, 12, 12, 32, -1, -1},   // an encoder of sentences
    {"causal_1024", 1, 1024, 1024, 16, 16, 64, -1, 0},  // the prompt of a decoder
    {"window_4096", 1, 4096, 4096, 8, 8, 64, 255, 0},   // 256 keys for each query, whatever the length
    {"decode_4096", 1, 1, 4096, 32, 8, 128, -1, 0},     // one token, which reads every key and value once
    // What patterns cost, against each other: twice the tokens, as many keys further apart, and and the
    // mean number of keys of a causal prompt of 4096 as a window, with global tokens.
    {"causal_4096", 1, 4096, 4096, 2, 2, 64, -1, 0},
    {"window_16384", 1, 16384, 16384, 2, 2, 64, 1023, 0},
    {"window_32768", 1, 32768, 32768, 2, 2, 64, 1023, 0},
    {"dense_16384", 1, 16384, 16384, 2, 2, 64, -1, -1},
    {"dense_16384x128", 1, 16384, 16384, 2, 2, 128, -1, -1},
    {"dilated_16384", 1, 16384, 16384, 2, 2, 64, 1023, 0, 4},
    {"globals_16384", 1, 16384, 16384, 2, 2, 64, 2047, 0, 1, 64},
    // What fills an accelerator: prompts, a window in a long one, and a batch of decoders.
    {"causal_4x4096x32x128", 4, 4096, 4096, 32, 32, 128, -1, 0, 1, 0, true},
    {"dense_4x4096x32x128", 4, 4096, 4096, 32, 32, 128, -1, -1, 1, 0, true},
    {"causal_4x4096x32x64", 4, 4096, 4096, 32, 32, 64, -1, 0, 1, 0, true},
    {"window_32768x32x128", 1, 32768, 32768, 32, 8, 128, 4095, 0, 1, 0, true},
    {"decode_64x8192x32x128", 64, 1, 8192, 32, 8, 128, -1, 0, 1, 0, true},
};

class Attention final : public Problem {
 public:
  Attention(const Device& device, int32_t dtype, const Shape& shape) : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_attention_desc desc = {};
    desc.size = sizeof desc;
    desc.scale = 1 / std::sqrt(static_cast<float>(shape.size));
    desc.q = desc.out = tensor(dtype, {shape.batch, shape.len_q, shape.heads_q, shape.size});
    desc.k = desc.v = tensor(dtype, {shape.batch, shape.len_k, shape.heads_k, shape.size});
    const uint32_t masks = shape.globals > 0 ? GTN_MASK_GLOBALS : 0;
    const gtn_attention_pattern pattern = {sizeof pattern, masks, shape.left, shape.right, shape.dilation, 0};
    desc.max_globals = shape.globals;
    desc.patterns = &pattern;
    desc.pattern_count = 1;
    Message message;
    check(gtn_attention_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    const int64_t queries = shape_.batch * shape_.len_q * shape_.heads_q * shape_.size;
    const int64_t keys = shape_.batch * shape_.len_k * shape_.heads_k * shape_.size;
    q_.emplace_back(device_, dtype_, queries);
    k_.emplace_back(device_, dtype_, keys);
    v_.emplace_back(device_, dtype_, keys);
    out_.emplace_back(device_, dtype_, queries);
    std::vector<int32_t> positions;
    for (int64_t i = 0; i < shape_.batch * shape_.globals; ++i) {
      positions.push_back(static_cast<int32_t>(i % shape_.globals * (shape_.len_k / shape_.globals)));
    }
    if (!positions.empty()) globals_.emplace_back(device_, positions);
  }

 private:
  gtn_status start(size_t set) const override {
    const void* globals = globals_.empty() ? nullptr : globals_[set].data();
    return gtn_attention_run_with(plan_, device_.stream, shape_.batch, shape_.len_q, shape_.len_k, nullptr, nullptr,
                                  q_[set].data(), k_[set].data(), v_[set].data(), out_[set].data(), nullptr, nullptr,
                                  nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, globals, nullptr, nullptr, nullptr,
                                  nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
  }

  const int32_t dtype_;
  const Shape shape_;
  std::vector<Buffer> q_, k_, v_, out_, globals_;
};

}  // namespace

std::vector<Benchmark> attention_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("attention/") + type_name(dtype) + "/" + shape.name, GTN_OP_ATTENTION, dtype,
                     limit_of(dtype),
                     [=](const Device& device) { return std::make_unique<Attention>(device, dtype, shape); }, shape.large});
    }
  }
  return all;
}

}  // namespace gatun::bench
