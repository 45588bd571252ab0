// The rope plan: one launch where q is of the types of k and v, else one for each.
#include "rope/plan.h"

#include <cstdio>
#include <initializer_list>

#include "rope/kernels.h"

namespace gatun::gpu {
namespace {

int out_index(int32_t dtype) { return dtype == GTN_S8 ? 3 : type_index(dtype); }

struct Source {
  bool has;
  const gtn_tensor_desc &x, &out;
  int64_t rotary;
  bool cached;
};

class RopePlan final : public Plan {
 public:
  explicit RopePlan(const gtn_rope_desc& desc) : desc_(desc) {
    const bool caches = desc.has_k != 0 || desc.has_v != 0;
    const gtn_tensor_desc& cache = desc.has_k != 0 ? desc.k_cache : desc.v_cache;
    if (caches) page_size_ = cache.shape[1], rows_ = cache.shape[0] * cache.shape[1];
    paired_ = desc.rotary % 4 == 0;
    const Source sources[] = {{desc.has_q != 0, desc.q, desc.q_out, desc.rotary, false},
                              {desc.has_k != 0, desc.k, desc.k_cache, desc.rotary, true},
                              {desc.has_v != 0, desc.v, desc.v_cache, 0, true}};
    for (int i = 0; i < 3; ++i) {
      const Source& from = sources[i];
      if (!from.has) continue;
      RopePart& part = part_[i];
      part.x_token = from.x.strides[0], part.x_head = from.x.strides[1];
      part.heads = from.x.shape[1], part.n = from.x.shape[2];
      part.out_page = from.out.strides[0];
      part.out_row = from.cached ? from.out.strides[1] : 0;
      part.out_head = from.out.strides[from.cached ? 2 : 1];
      part.rotary = from.rotary;
      part.cached = from.cached ? 1 : 0;
      part.tasks = (part.heads + kRopeHeads - 1) / kRopeHeads;
      x_type_[i] = type_index(from.x.dtype), out_type_[i] = out_index(from.out.dtype);
      has_[i] = true;
      for (const int64_t even : {part.x_token, part.x_head, part.out_page, part.out_row, part.out_head, part.n}) {
        paired_ = paired_ && even % 2 == 0;
      }
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    for (int i = 0; i < 3; ++i) {
      for (const bool paired : {false, true}) {
        if (!has_[i]) continue;
        const gtn_status status = prepare(device.index, rope_kernel(x_type_[i], out_type_[i], paired).kernel, 0, message);
        if (status != GTN_OK) return status;
      }
    }
    return GTN_OK;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_rope_args& args = *static_cast<const gtn_rope_args*>(arguments);
    if (args.tokens == 0) return GTN_OK;
    RopePart parts[] = {part_[0], part_[1], part_[2]};
    parts[0].x = args.q, parts[0].out = args.q_out;
    parts[1].x = args.k, parts[1].out = args.k_cache, parts[1].scales = args.k_scales;
    parts[2].x = args.v, parts[2].out = args.v_cache, parts[2].scales = args.v_scales;
    bool paired = paired_;
    for (int i = 0; i < 3; ++i) {
      if (!has_[i]) continue;
      paired = paired && reinterpret_cast<uintptr_t>(parts[i].x) % 8 == 0 && reinterpret_cast<uintptr_t>(parts[i].out) % 8 == 0;
    }
    for (int first = 0; first < 3; ++first) {
      if (!has_[first] || taken_before(first)) continue;
      RopeArgs to = {};
      to.positions = args.positions, to.slots = args.slots, to.table = args.table;
      to.tokens = args.tokens, to.max_position = desc_.max_position, to.rotary = desc_.rotary;
      to.page_size = page_size_, to.rows = rows_;
      to.interleaved = desc_.style == GTN_ROPE_INTERLEAVED ? 1 : 0;
      for (int i = first; i < 3; ++i) {
        if (!has_[i] || !same(first, i)) continue;
        to.part[to.parts++] = parts[i];
        to.tasks += parts[i].tasks;
      }
      if (to.tasks == 0) continue;
      const RopeKernel kernel = rope_kernel(x_type_[first], out_type_[first], paired);
      const Grid grid = {(to.tokens * to.tasks + kernel.tasks - 1) / kernel.tasks};
      const gtn_status status = launch(stream.queue, kernel.kernel, grid, kernel.threads, 0, to, message);
      if (status != GTN_OK) return status;
    }
    return GTN_OK;
  }

 private:
  bool same(int a, int b) const { return x_type_[a] == x_type_[b] && out_type_[a] == out_type_[b]; }
  bool taken_before(int i) const {
    for (int before = 0; before < i; ++before) {
      if (has_[before] && same(before, i)) return true;
    }
    return false;
  }

  const gtn_rope_desc desc_;
  bool has_[3] = {};
  int x_type_[3] = {}, out_type_[3] = {};
  RopePart part_[3] = {};
  bool paired_;
  int64_t page_size_ = 1, rows_ = 0;
};

// Of an element: a rotation is 6 for a pair; S8 takes a magnitude, a maximum, a division and a rounding.
constexpr double kRotationFlops = 3;
constexpr double kQuantizationFlops = 4;

}  // namespace

bool rope_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status rope_plan(Device& device, const gtn_rope_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  auto created = make_plan<RopePlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const gtn_tensor_desc& first = desc.has_q != 0 ? desc.q : desc.k;
  char name[40];
  std::snprintf(name, sizeof name, "rope.%s.%s", desc.style == GTN_ROPE_INTERLEAVED ? "interleaved" : "halves",
                type_name(first.dtype));
  name_kernel(info, device, name);
  const double tokens = static_cast<double>(first.shape[0]), rotary = static_cast<double>(desc.rotary);
  const double positions = static_cast<double>(desc.max_position);
  info->bytes = tokens * 8 + (tokens < positions ? tokens : positions) * rotary * 4;
  info->flops = 0;
  if (desc.has_k != 0 || desc.has_v != 0) info->bytes += tokens * 8;
  const Source sources[] = {{desc.has_q != 0, desc.q, desc.q_out, desc.rotary, false},
                            {desc.has_k != 0, desc.k, desc.k_cache, desc.rotary, true},
                            {desc.has_v != 0, desc.v, desc.v_cache, 0, true}};
  for (const Source& from : sources) {
    if (!from.has) continue;
    const double rows = tokens * static_cast<double>(from.x.shape[1]), n = static_cast<double>(from.x.shape[2]);
    const bool quantized = from.out.dtype == GTN_S8;
    info->flops += rows * (static_cast<double>(from.rotary) * kRotationFlops + (quantized ? n * kQuantizationFlops : 0.0));
    info->bytes += rows * (n * static_cast<double>(element_bytes(from.x.dtype) + element_bytes(from.out.dtype)) +
                           (quantized ? 4 : 0));
  }
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
