#include "bench.h"

namespace gatun::bench {
namespace {

struct Shape {
  const char* name;
  int64_t parts, batch, length, heads, size;
};

constexpr Shape kShapes[] = {
    {"decode_16", 16, 1, 1, 32, 128},     // one token, whose keys were read in 16 parts
    {"decode_2x64", 2, 64, 1, 32, 128},   // 64 sequences: a prefix that they share, and each one's own keys
    {"chunks_4x2048", 4, 1, 2048, 8, 64}  // a prompt against four stretches of keys
};

class Merge final : public Problem {
 public:
  Merge(const Device& device, int32_t dtype, const Shape& shape) : Problem(device), dtype_(dtype), shape_(shape) {
    gtn_merge_desc desc = {};
    desc.size = sizeof desc;
    desc.x = tensor(dtype, {shape.parts, shape.batch, shape.length, shape.heads, shape.size});
    desc.x_lse = tensor(GTN_F32, {shape.parts, shape.batch, shape.heads, shape.length});
    desc.out = tensor(dtype, {shape.batch, shape.length, shape.heads, shape.size});
    desc.lse = tensor(GTN_F32, {shape.batch, shape.heads, shape.length});
    Message message;
    check(gtn_merge_plan(device.handle, &desc, &plan_, &message), message);
  }

  void add() override {
    const int64_t rows = shape_.batch * shape_.length * shape_.heads;
    x_.emplace_back(device_, dtype_, shape_.parts * rows * shape_.size);
    x_lse_.emplace_back(device_, GTN_F32, shape_.parts * rows);
    out_.emplace_back(device_, dtype_, rows * shape_.size);
    lse_.emplace_back(device_, GTN_F32, rows);
  }

 private:
  gtn_status start(size_t set) const override {
    return gtn_merge_run(plan_, device_.stream, shape_.parts, shape_.batch, shape_.length, x_[set].data(),
                         x_lse_[set].data(), nullptr, out_[set].data(), lse_[set].data());
  }

  const int32_t dtype_;
  const Shape shape_;
  std::vector<Buffer> x_, x_lse_, out_, lse_;
};

}  // namespace

std::vector<Benchmark> merge_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16, GTN_F16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("merge/") + type_name(dtype) + "/" + shape.name, GTN_OP_MERGE, dtype, GTN_LIMIT_F32,
                     [=](const Device& device) { return std::make_unique<Merge>(device, dtype, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
