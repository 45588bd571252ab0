#include "bench.h"

namespace gatun::bench {
namespace {

// A decoder's layer: its queries are rotated in place, its keys and values go to a cache of 16 rows to a page.
constexpr int64_t kHeadsQ = 32, kHeadsK = 8, kSize = 128, kPositions = 4096, kPageSize = 16;

struct Shape {
  const char* name;
  int64_t tokens;
};

constexpr Shape kShapes[] = {{"decode_16", 16}, {"prompt_2048", 2048}};

class Rope final : public Problem {
 public:
  Rope(const Device& device, int32_t style, int32_t dtype, int32_t cache, int64_t tokens)
      : Problem(device), dtype_(dtype), cache_(cache), tokens_(tokens) {
    gtn_rope_desc desc = {};
    desc.size = sizeof desc;
    desc.style = style;
    desc.rotary = kSize;
    desc.max_position = kPositions;
    desc.has_q = desc.has_k = desc.has_v = 1;
    desc.q = desc.q_out = tensor(dtype, {tokens, kHeadsQ, kSize});
    desc.k = desc.v = tensor(dtype, {tokens, kHeadsK, kSize});
    desc.k_cache = desc.v_cache = tensor(cache, {tokens / kPageSize, kPageSize, kHeadsK, kSize});
    Message message;
    check(gtn_rope_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    std::vector<int64_t> positions, slots;
    for (int64_t t = 0; t < tokens_; ++t) {
      positions.push_back(kPositions - tokens_ + t);
      slots.push_back(tokens_ - kPageSize - t / kPageSize * kPageSize + t % kPageSize);  // the last page first
    }
    positions_.emplace_back(device_, positions);
    slots_.emplace_back(device_, slots);
    table_.emplace_back(device_, GTN_F32, kPositions * kSize);
    q_.emplace_back(device_, dtype_, tokens_ * kHeadsQ * kSize);
    for (auto* inputs : {&k_, &v_}) inputs->emplace_back(device_, dtype_, tokens_ * kHeadsK * kSize);
    for (auto* caches : {&k_cache_, &v_cache_}) caches->emplace_back(device_, cache_, tokens_ * kHeadsK * kSize);
    for (auto* scales : {&k_scales_, &v_scales_}) scales->emplace_back(device_, GTN_F32, tokens_ * kHeadsK);
  }

 private:
  gtn_status start(size_t set) const override {
    const bool scaled = cache_ == GTN_S8;
    return gtn_rope_run(plan_, device_.stream, tokens_, positions_[set].data(), table_[set].data(), slots_[set].data(),
                        q_[set].data(), k_[set].data(), v_[set].data(), q_[set].data(), k_cache_[set].data(),
                        v_cache_[set].data(), scaled ? k_scales_[set].data() : nullptr,
                        scaled ? v_scales_[set].data() : nullptr);
  }

  const int32_t dtype_, cache_;
  const int64_t tokens_;
  std::vector<Buffer> positions_, slots_, table_, q_, k_, v_, k_cache_, v_cache_, k_scales_, v_scales_;
};

}  // namespace

std::vector<Benchmark> rope_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t style : {GTN_ROPE_HALVES, GTN_ROPE_INTERLEAVED}) {
    for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
      for (int32_t cache : {dtype, int32_t{GTN_S8}}) {
        for (const Shape& shape : kShapes) {
          const int64_t tokens = shape.tokens;
          const std::string name = std::string(style == GTN_ROPE_HALVES ? "rope/halves/" : "rope/interleaved/") +
                                   type_name(dtype) + "/to_" + type_name(cache) + "/" + shape.name;
          all.push_back({name, GTN_OP_ROPE, dtype, GTN_LIMIT_F32, [=](const Device& device) {
                           return std::make_unique<Rope>(device, style, dtype, cache, tokens);
                         }});
        }
      }
    }
  }
  return all;
}

}  // namespace gatun::bench
