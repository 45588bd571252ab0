// The rope plan: a launch for each of q, k and v.
#include "kernels/rope/plan.h"

#include <cstdio>

#include "kernels/rope/tiling.h"

namespace gatun::ascend {
namespace {

struct Source {
  bool has;
  const gtn_tensor_desc &x, &out;
  int64_t rotary;
  bool cached;
};

struct Part {
  const Kernel* kernel;  // null: there is none of it
  RopeTiling tiling;
};

class RopePlan final : public Plan {
 public:
  explicit RopePlan(const Part (&parts)[3]) : parts_{parts[0], parts[1], parts[2]} {}

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_rope_args& args = *static_cast<const gtn_rope_args*>(arguments);
    const void* const from[] = {args.q, args.k, args.v};
    void* const to[] = {args.q_out, args.k_cache, args.v_cache};
    float* const scales[] = {nullptr, args.k_scales, args.v_scales};
    for (int i = 0; i < 3; ++i) {
      RopeTiling tiling = parts_[i].tiling;
      tiling.tokens = args.tokens;
      tiling.has_slots = tiling.cached != 0 && args.slots != nullptr ? 1 : 0;
      const int64_t all = tiling.tokens * tiling.heads;
      if (parts_[i].kernel == nullptr || all == 0 || tiling.n == 0 || (tiling.cached != 0 && tiling.rows == 0)) continue;
      const gtn_status status =
          launch_with(stream, parts_[i].kernel, vector_blocks(*stream.device, all), tiling, message, from[i],
                      static_cast<const void*>(args.positions), static_cast<const void*>(args.table),
                      static_cast<const void*>(args.slots), to[i], static_cast<void*>(scales[i]));
      if (status != GTN_OK) return status;
    }
    return GTN_OK;
  }

 private:
  const Part parts_[3];
};

RopeTiling tiling_of(const gtn_rope_desc& desc, const Source& from) {
  RopeTiling t = {};
  t.heads = from.x.shape[1], t.n = from.x.shape[2];
  t.x_token = from.x.strides[0], t.x_head = from.x.strides[1];
  t.out_page = from.out.strides[0];
  t.out_row = from.cached ? from.out.strides[1] : 0;
  t.out_head = from.out.strides[from.cached ? 2 : 1];
  t.page_size = from.cached && from.out.shape[1] > 0 ? from.out.shape[1] : 1;
  t.rows = from.cached ? from.out.shape[0] * from.out.shape[1] : 0;
  t.max_position = desc.max_position, t.table_row = desc.rotary;
  t.half = static_cast<int32_t>(from.rotary / 2);
  const int64_t rest = t.n - from.rotary, longest = rest > t.half ? rest : t.half;
  t.segment = static_cast<int32_t>((longest + 31) / 32 * 32);
  t.interleaved = desc.style == GTN_ROPE_INTERLEAVED ? 1 : 0;
  t.cached = from.cached ? 1 : 0;
  return t;
}

// Of an element: a rotation is 6 for a pair; S8 takes a magnitude, a maximum, a division and a rounding.
constexpr double kRotationFlops = 3;
constexpr double kQuantizationFlops = 4;

}  // namespace

bool rope_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16 || dtype == GTN_F16; }

gtn_status rope_plan(Device& device, const gtn_rope_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  const Source sources[] = {{desc.has_q != 0, desc.q, desc.q_out, desc.rotary, false},
                            {desc.has_k != 0, desc.k, desc.k_cache, desc.rotary, true},
                            {desc.has_v != 0, desc.v, desc.v_cache, 0, true}};
  const char* const names[] = {"q", "k", "v"};
  const gtn_tensor_desc& first = desc.has_q != 0 ? desc.q : desc.k;
  const double tokens = static_cast<double>(first.shape[0]), rotary = static_cast<double>(desc.rotary);
  const double positions = static_cast<double>(desc.max_position);
  double flops = 0, bytes = tokens * 8 + (tokens < positions ? tokens : positions) * rotary * 4;
  if (desc.has_k != 0 || desc.has_v != 0) bytes += tokens * 8;
  Part parts[3] = {};
  char name[48];
  for (int i = 0; i < 3; ++i) {
    const Source& from = sources[i];
    if (!from.has) continue;
    if (from.x.shape[2] > kRopeMaxHead) {
      return fail(message, GTN_UNSUPPORTED, "%s: has heads of %lld elements, this backend takes at most %lld", names[i],
                  static_cast<long long>(from.x.shape[2]), static_cast<long long>(kRopeMaxHead));
    }
    parts[i].tiling = tiling_of(desc, from);
    std::snprintf(name, sizeof name, "gatun_rope_%s_%s", type_name(from.x.dtype), type_name(from.out.dtype));
    if (const gtn_status status = find_kernel(device.index, name, &parts[i].kernel, message); status != GTN_OK) return status;
    const double rows = tokens * static_cast<double>(from.x.shape[1]), n = static_cast<double>(from.x.shape[2]);
    const bool quantized = from.out.dtype == GTN_S8;
    flops += rows * (static_cast<double>(from.rotary) * kRotationFlops + (quantized ? n * kQuantizationFlops : 0.0));
    bytes +=
        rows * (n * static_cast<double>(element_bytes(from.x.dtype) + element_bytes(from.out.dtype)) + (quantized ? 4 : 0));
  }
  auto created = make_plan<RopePlan>(message, parts);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  std::snprintf(name, sizeof name, "rope.%s.%s", desc.style == GTN_ROPE_INTERLEAVED ? "interleaved" : "halves",
                type_name(first.dtype));
  name_kernel(info, name);
  info->flops = flops;
  info->bytes = bytes;
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
