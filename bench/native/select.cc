#include <cmath>

#include "bench.h"

namespace gatun::bench {
namespace {

// An eighth of the keys, whichever way; what attention to all takes is attention's dense_16384.
struct Shape {
  const char* name;
  int32_t kind;
  int64_t len_q, len_k, heads_q, heads_k, size;
  int64_t block_q, block_k, count;
  int32_t pool;
  int64_t buckets, layers;
  bool attends;  // attention to what was selected is part of the run
};

constexpr Shape kShapes[] = {
    {"decode_2048", GTN_SELECT_BLOCKS, 1, 2048, 32, 8, 128, 1, 32, 8, GTN_POOL_BOUNDS, 0, 0, false},
    {"decode_16384", GTN_SELECT_BLOCKS, 1, 16384, 32, 8, 128, 1, 32, 64, GTN_POOL_BOUNDS, 0, 0, false},
    {"blocks_16384", GTN_SELECT_BLOCKS, 16384, 16384, 2, 2, 64, 64, 64, 32, GTN_POOL_MEAN, 0, 0, false},
    {"bounds_16384", GTN_SELECT_BLOCKS, 16384, 16384, 2, 2, 64, 64, 64, 32, GTN_POOL_BOUNDS, 0, 0, false},
    {"lsh_16384", GTN_SELECT_LSH, 16384, 16384, 2, 2, 64, 64, 64, 32, 0, 8, 1, false},
    {"retrieval_16384", GTN_SELECT_RETRIEVAL, 16384, 16384, 2, 2, 64, 1, 1, 2048, 0, 256, 30, false},
    {"blocks_16384_attended", GTN_SELECT_BLOCKS, 16384, 16384, 2, 2, 64, 64, 64, 32, GTN_POOL_MEAN, 0, 0, true},
    {"lsh_16384_attended", GTN_SELECT_LSH, 16384, 16384, 2, 2, 64, 64, 64, 32, 0, 8, 1, true},
    {"blocks_16384x128_attended", GTN_SELECT_BLOCKS, 16384, 16384, 2, 2, 128, 64, 64, 32, GTN_POOL_MEAN, 0, 0, true},
    {"lsh_16384x128_attended", GTN_SELECT_LSH, 16384, 16384, 2, 2, 128, 64, 64, 32, 0, 8, 1, true},
};

class Select final : public Problem {
 public:
  Select(const Device& device, int32_t dtype, const Shape& shape)
      : Problem(device), dtype_(dtype), shape_(shape), lists_(shape.heads_q * ((shape.len_q - 1) / shape.block_q + 1)) {
    const float scale = 1 / std::sqrt(static_cast<float>(shape.size));
    gtn_select_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = shape.kind;
    desc.q = tensor(dtype, {1, shape.len_q, shape.heads_q, shape.size});
    desc.k = tensor(dtype, {1, shape.len_k, shape.heads_k, shape.size});
    desc.heads = shape.heads_q;
    desc.block_q = shape.block_q;
    desc.block_k = shape.block_k;
    desc.count = shape.count;
    desc.pool = shape.pool;
    if (shape.kind == GTN_SELECT_BLOCKS) desc.scale = scale;
    desc.buckets = shape.buckets;
    desc.layers = shape.layers;
    Message message;
    check(gtn_select_plan(device.handle, &desc, &plan_, &message), message);
    if (!shape.attends) return;
    gtn_attention_desc attention = {};
    attention.size = sizeof attention;
    attention.scale = scale;
    attention.q = attention.out = desc.q;
    attention.k = attention.v = desc.k;
    const uint32_t documents = hashes() ? GTN_MASK_DOCUMENTS : 0;
    const gtn_attention_pattern pattern = {sizeof pattern, GTN_MASK_BLOCKS | documents, -1, -1, 1, 0};
    attention.patterns = &pattern;
    attention.pattern_count = 1;
    attention.block_q = shape.block_q;
    attention.block_k = shape.block_k;
    attention.block_heads = shape.heads_q;
    attention.max_blocks = lists_ * shape.count;
    if (hashes()) {
      attention.document_heads = attention.order_heads = shape.heads_q;
      attention.document_layers = shape.layers;
    }
    check(gtn_attention_plan(device.handle, &attention, &attention_, &message), message);
  }
  ~Select() override {
    if (attention_ != 0) gtn_plan_close(attention_, nullptr);
  }

  void add() override {
    const int64_t queries = shape_.len_q * shape_.heads_q, keys = shape_.len_k * shape_.heads_k;
    Set set;
    const auto take = [&](int32_t dtype, int64_t elements) {
      buffers_.emplace_back(device_, dtype, elements);
      return buffers_.back().data();
    };
    set.q = take(dtype_, queries * shape_.size);
    set.k = take(dtype_, keys * shape_.size);
    set.offsets = take(GTN_F32, 2 * (lists_ + 1));
    set.columns = take(GTN_F32, lists_ * shape_.count);
    if (shape_.kind == GTN_SELECT_RETRIEVAL) set.bias = take(GTN_F32, lists_ * shape_.count);
    if (hashes()) {
      set.q_order = take(GTN_F32, queries);
      set.k_order = take(GTN_F32, shape_.len_k * shape_.heads_q);
      set.q_documents = take(GTN_F32, shape_.layers * queries);
      set.k_documents = take(GTN_F32, shape_.layers * shape_.len_k * shape_.heads_q);
    }
    if (shape_.attends) {
      set.v = take(dtype_, keys * shape_.size);
      set.out = take(dtype_, queries * shape_.size);
    }
    sets_.push_back(set);
  }

 private:
  struct Set {
    void *q = nullptr, *k = nullptr, *v = nullptr, *out = nullptr, *offsets = nullptr, *columns = nullptr, *bias = nullptr;
    void *q_order = nullptr, *k_order = nullptr, *q_documents = nullptr, *k_documents = nullptr;
  };

  bool hashes() const { return shape_.kind == GTN_SELECT_LSH; }

  gtn_status start(size_t set) const override {
    const Set& s = sets_[set];
    const gtn_status status = gtn_select_run(plan_, device_.stream, 1, shape_.len_q, shape_.len_k, nullptr, nullptr, s.q, s.k,
                                             s.offsets, s.columns, s.bias, s.q_order, s.k_order, s.q_documents, s.k_documents);
    if (status != GTN_OK || !shape_.attends) return status;
    return gtn_attention_run_with(attention_, device_.stream, 1, shape_.len_q, shape_.len_k, nullptr, nullptr, s.q, s.k, s.v,
                                  s.out, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                  s.q_documents, s.k_documents, nullptr, s.offsets, s.columns, nullptr, nullptr, nullptr,
                                  s.q_order, s.k_order);
  }

  const int32_t dtype_;
  const Shape shape_;
  const int64_t lists_;
  gtn_plan attention_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<Set> sets_;
};

}  // namespace

std::vector<Benchmark> select_benchmarks() {
  std::vector<Benchmark> all;
  for (int32_t dtype : {GTN_F32, GTN_BF16}) {
    for (const Shape& shape : kShapes) {
      all.push_back({std::string("select/") + type_name(dtype) + "/" + shape.name, GTN_OP_SELECT, dtype, GTN_LIMIT_F32,
                     [=](const Device& device) { return std::make_unique<Select>(device, dtype, shape); }});
    }
  }
  return all;
}

}  // namespace gatun::bench
