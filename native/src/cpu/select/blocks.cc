// Selection by the importance of blocks: keys are pooled once, and each block of queries weighs the pooled keys.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "cpu/select/plan.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr int64_t kPoolBlocks = 16;  // blocks that one task pools

class SelectBlocks final : public SelectPlan {
 public:
  SelectBlocks(const Device& device, const gtn_select_desc& desc)
      : SelectPlan(device, desc),
        bounds_(desc.pool == GTN_POOL_BOUNDS),
        depth_(bounds_ ? 2 * dk_ : dk_),
        pool_floats_(times(panels_of(blocks_), depth_)),
        importance_floats_(ceil_div(blocks_, kernels_.vector) * kernels_.vector) {}

 private:
  void take_own(Workspace* space, Call* c) const override {
    c->pools = space->take<float>(times(c->args.sequences * heads_k_, pool_floats_));
  }

  int64_t worker_bytes() const override {
    Workspace space(nullptr);
    lay_out_worker(&space);
    return space.used();
  }

  struct Scratch {
    float *kernel, *importance;
    int32_t* candidates;
  };
  Scratch lay_out_worker(Workspace* space) const {
    Scratch scratch;
    scratch.kernel = space->take<float>(kernels_.scratch(depth_, blocks_));
    scratch.importance = space->take<float>(importance_floats_);
    scratch.candidates = space->take<int32_t>(blocks_);
    return scratch;
  }

  void fill(Call& c) const override {
    const int64_t tasks = ceil_div(blocks_, kPoolBlocks), heads = c.args.sequences * heads_k_;
    parallel(device_.threads, heads * tasks, [&](int64_t task, int) {
      const int64_t at = task / tasks, s = at / heads_k_, first = task % tasks * kPoolBlocks;
      pool(c, s, at % heads_k_, first, c.pools + at * pool_floats_);
    });
    write_lists(c, 0, c.args.sequences * desc_.heads);
  }

  // kPoolBlocks blocks from `block`, and zeros in the place of those that fill up the last panel.
  void pool(const Call& c, int64_t s, int64_t head, int64_t block, float* panels) const {
    const Sequence of = sequence(c, s);
    const int64_t blocks = ceil_div(of.len_k, desc_.block_k), panel = kernels_.panel;
    const int64_t end = block + kPoolBlocks >= blocks ? panels_of(blocks) : block + kPoolBlocks;
    for (; block < end; ++block) {
      float* to = panels + block / panel * panel * depth_ + block % panel;
      if (block >= blocks) {
        for (int64_t d = 0; d < depth_; ++d) to[d * panel] = 0.0f;
        continue;
      }
      const int64_t first = block * desc_.block_k;
      kernels_.pool(k_rows(c, s, of, head, first, at_most(desc_.block_k, of.len_k - first)), bounds_, to, panel);
    }
  }

  // Blocks that begin at or before the position of query i.
  int64_t reachable(const Sequence& of, int64_t i) const { return ceil_div(visible(of, i), desc_.block_k); }

  int64_t list(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t block, char* memory, int32_t* chosen,
               float*) const override {
    Workspace space(memory);
    const Scratch scratch = lay_out_worker(&space);
    const int64_t first_query = block * desc_.block_q, last_query = at_most(first_query + desc_.block_q, of.len_q) - 1;
    const int64_t blocks = reachable(of, last_query);
    const int64_t first = at_most(desc_.first, blocks), local = at_most(desc_.local, blocks - first);
    const int64_t wanted = at_most(desc_.count, blocks) - first - local;
    int32_t* end = chosen;
    for (int64_t b = 0; b < first; ++b) *end++ = static_cast<int32_t>(b);
    if (wanted == blocks - first - local) {
      for (int64_t b = first; b < blocks - local; ++b) *end++ = static_cast<int32_t>(b);
    } else if (wanted > 0) {
      weigh(c, s, of, head, first_query, last_query, scratch);
      choose(scratch, first, blocks - local, wanted);
      end = std::copy(scratch.candidates, scratch.candidates + wanted, end);
    }
    for (int64_t b = blocks - local; b < blocks; ++b) *end++ = static_cast<int32_t>(b);
    return end - chosen;
  }

  // The importance of the blocks that the last query reaches. A row is a query and one of the query heads of the list.
  void weigh(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t first_query, int64_t last_query,
             const Scratch& scratch) const {
    const int64_t group = heads_q_ / desc_.heads, first_head = head * group;
    const int64_t key_head = first_head / (heads_q_ / heads_k_);
    const float* panels = c.pools + (s * heads_k_ + key_head) * pool_floats_;
    std::memset(scratch.importance, 0, static_cast<size_t>(importance_floats_) * sizeof(float));
    // As many heads of a query as fit beside each other, then as many queries.
    const int64_t heads = at_most(group, kSelectRows), queries = kSelectRows / heads;
    int64_t reach[kSelectRows];
    for (int64_t i = first_query; i <= last_query; i += queries) {
      const int64_t some = at_most(queries, last_query + 1 - i);
      for (int64_t h = 0; h < group; h += heads) {
        const int64_t side = at_most(heads, group - h);
        for (int64_t r = 0; r < some * side; ++r) reach[r] = reachable(of, i + r / side);
        kernels_.weigh(q_rows(c, s, of, first_head + h, i, some * side, side), bounds_, panels, reach, desc_.scale,
                       scratch.kernel, scratch.importance);
      }
    }
  }

  // Leaves the `wanted` most important of blocks first to last - 1 in the candidates, rising.
  static void choose(const Scratch& scratch, int64_t first, int64_t last, int64_t wanted) {
    float* importance = scratch.importance;
    int32_t* candidates = scratch.candidates;
    for (int64_t b = first; b < last; ++b) {
      candidates[b - first] = static_cast<int32_t>(b);
      if (std::isnan(importance[b])) importance[b] = -1.0f;  // less than any
    }
    std::nth_element(candidates, candidates + wanted, candidates + (last - first), [importance](int32_t a, int32_t b) {
      return importance[a] > importance[b] || (importance[a] == importance[b] && a < b);
    });
    std::sort(candidates, candidates + wanted);
  }

  const bool bounds_;
  const int64_t depth_;
  const int64_t pool_floats_;  // of a sequence and head
  const int64_t importance_floats_;
};

}  // namespace

SelectPlan* new_select_blocks(const Device& device, const gtn_select_desc& desc) {
  return new (std::nothrow) SelectBlocks(device, desc);
}

}  // namespace gatun::cpu
