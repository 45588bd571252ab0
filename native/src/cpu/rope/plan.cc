// The rope plan: checks what a run's positions and slots lead to, then splits it into tasks of whole tokens.
#include "cpu/rope/rope.h"

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// 32 KiB of FP32 in and as much out: long enough to hide the cost of handing out a task, short enough to balance.
constexpr int64_t kTaskElements = 8192;

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : dtype == GTN_F16 ? 2 : 3; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2; }
int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Elements of one token.
int64_t elements(const gtn_tensor_desc& x) { return x.shape[1] * x.shape[2]; }

class RopePlan final : public Plan {
 public:
  RopePlan(const Device& device, const gtn_rope_desc& desc) : kernels_(*device.level->kernels->rope), desc_(desc) {
    if (desc.has_q != 0) {
      q_ = kernel_of(desc.q, desc.q_out);
      token_elements_ += elements(desc.q);
    }
    if (desc.has_k != 0) {
      k_ = kernel_of(desc.k, desc.k_cache);
      token_elements_ += elements(desc.k);
      tokens_ = desc.k.shape[0];
      row_elements_ = desc.k.shape[2];
    }
    if (desc.has_v != 0) {
      v_ = kernel_of(desc.v, desc.v_cache);
      token_elements_ += elements(desc.v);
      if (desc.v.shape[2] > row_elements_) row_elements_ = desc.v.shape[2];
    }
    if (desc.has_q != 0) tokens_ = desc.q.shape[0];
    const bool caches = desc.has_k != 0 || desc.has_v != 0;
    const gtn_tensor_desc& cache = desc.has_k != 0 ? desc.k_cache : desc.v_cache;
    if (caches) page_size_ = cache.shape[1], rows_ = cache.shape[0] * cache.shape[1];
    if (!caches || cache.dtype != GTN_S8) row_elements_ = 0;
    angle_bytes_ = desc.style == GTN_ROPE_INTERLEAVED ? whole_lines(8 * desc.rotary) : 0;
    scratch_bytes_ = angle_bytes_ + whole_lines(4 * row_elements_);
  }

  int64_t workspace_bytes(int threads) const {
    return index_bytes(tokens_) * (rows_ > 0 ? 2 : 1) + scratch_bytes_ * threads;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_rope_args& args = *static_cast<const gtn_rope_args*>(arguments);
    if (args.tokens == 0) return GTN_OK;
    const int threads = stream.device->threads;
    const int64_t arrays = args.slots != nullptr ? 2 : 1;
    char* scratch = static_cast<char*>(stream.scratch(index_bytes(args.tokens) * arrays + scratch_bytes_ * threads));
    if (scratch == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a rope");
    // Both are copied and the copies checked: another thread may write to the originals while the run reads.
    int64_t* positions = reinterpret_cast<int64_t*>(scratch);
    int64_t* slots = nullptr;
    std::memcpy(positions, args.positions, static_cast<size_t>(args.tokens) * 8);
    scratch += index_bytes(args.tokens);
    if (args.slots != nullptr) {
      slots = reinterpret_cast<int64_t*>(scratch);
      std::memcpy(slots, args.slots, static_cast<size_t>(args.tokens) * 8);
      scratch += index_bytes(args.tokens);
    }
    for (int64_t t = 0; t < args.tokens; ++t) {
      if (positions[t] < 0 || positions[t] >= desc_.max_position) {
        return fail(message, GTN_INVALID_ARGUMENT, "positions[%lld] is %lld, expected 0 to max_position - 1 = %lld",
                    static_cast<long long>(t), static_cast<long long>(positions[t]),
                    static_cast<long long>(desc_.max_position - 1));
      }
      if (slots != nullptr && (slots[t] < -1 || slots[t] >= rows_)) {
        return fail(message, GTN_INVALID_ARGUMENT,
                    "slots[%lld] is %lld, expected -1, or 0 to pages * page size - 1 = %lld", static_cast<long long>(t),
                    static_cast<long long>(slots[t]), static_cast<long long>(rows_ - 1));
      }
    }
    const int64_t height = token_elements_ > 0 && token_elements_ < kTaskElements ? kTaskElements / token_elements_ : 1;
    parallel(threads, (args.tokens + height - 1) / height, [&](int64_t task, int worker) {
      char* mine = scratch + worker * scratch_bytes_;
      const int64_t end = (task + 1) * height < args.tokens ? (task + 1) * height : args.tokens;
      for (int64_t t = task * height; t < end; ++t) {
        one_token(args, t, positions[t], slots != nullptr ? slots[t] : t, mine);
      }
    });
    return GTN_OK;
  }

 private:
  static int64_t index_bytes(int64_t tokens) { return whole_lines(tokens * 8); }

  RopeKernels::Heads kernel_of(const gtn_tensor_desc& x, const gtn_tensor_desc& out) const {
    return kernels_.heads[desc_.style == GTN_ROPE_INTERLEAVED][index_of(x.dtype)][index_of(out.dtype)];
  }

  void one_token(const gtn_rope_args& args, int64_t t, int64_t position, int64_t slot, char* scratch) const {
    RopeHeads heads = {};
    const float* row = args.table + position * desc_.rotary;
    heads.angles = row;
    if (angle_bytes_ > 0) {
      heads.angles = reinterpret_cast<float*>(scratch);
      kernels_.angles(row, desc_.rotary, reinterpret_cast<float*>(scratch));
    }
    heads.scratch = reinterpret_cast<float*>(scratch + angle_bytes_);
    if (q_ != nullptr) {
      heads.rotary = desc_.rotary;
      heads.out = static_cast<char*>(args.q_out) + t * desc_.q_out.strides[0] * size_of(desc_.q_out.dtype);
      heads.out_stride = desc_.q_out.strides[1];
      run_heads(q_, heads, args.q, desc_.q, t);
    }
    if (slot < 0) return;
    if (k_ != nullptr) {
      heads.rotary = desc_.rotary;
      to_cache(heads, args.k_cache, args.k_scales, desc_.k_cache, slot);
      run_heads(k_, heads, args.k, desc_.k, t);
    }
    if (v_ != nullptr) {
      heads.rotary = 0;
      to_cache(heads, args.v_cache, args.v_scales, desc_.v_cache, slot);
      run_heads(v_, heads, args.v, desc_.v, t);
    }
  }

  void to_cache(RopeHeads& heads, void* cache, float* scales, const gtn_tensor_desc& desc, int64_t slot) const {
    const int64_t page = slot / page_size_, offset = slot % page_size_;
    heads.out = static_cast<char*>(cache) + (page * desc.strides[0] + offset * desc.strides[1]) * size_of(desc.dtype);
    heads.out_stride = desc.strides[2];
    heads.scales = scales == nullptr ? nullptr : scales + slot * desc.shape[2];
  }

  static void run_heads(RopeKernels::Heads kernel, RopeHeads& heads, const void* x, const gtn_tensor_desc& desc,
                        int64_t t) {
    heads.x = static_cast<const char*>(x) + t * desc.strides[0] * size_of(desc.dtype);
    heads.x_stride = desc.strides[1];
    heads.heads = desc.shape[1];
    heads.n = desc.shape[2];
    kernel(heads);
  }

  const RopeKernels& kernels_;
  const gtn_rope_desc desc_;
  RopeKernels::Heads q_ = nullptr, k_ = nullptr, v_ = nullptr;  // null: the plan has none of it
  int64_t tokens_ = 0;                                          // at most
  int64_t token_elements_ = 0;
  int64_t row_elements_ = 0;  // of the scratch row of S8
  int64_t page_size_ = 1, rows_ = 0;
  int64_t angle_bytes_, scratch_bytes_;  // of one worker: its token's angles; those and the scratch row
};

// Of an element: a rotation is 6 for a pair; S8 takes a magnitude, a maximum, a division and a rounding.
constexpr double kRotationFlops = 3;
constexpr double kQuantizationFlops = 4;

}  // namespace

gtn_status rope_plan(const Device& device, const gtn_rope_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message) {
  constexpr int64_t kMost = int64_t{1} << 48;  // times kMostThreads
  const gtn_tensor_desc& first = desc.has_q != 0 ? desc.q : desc.k;
  if (first.shape[0] > kMost) return fail(message, GTN_UNSUPPORTED, "tokens: are too many for a rope's workspace");
  if (desc.rotary > kMost || (desc.has_k != 0 && desc.k.shape[2] > kMost) ||
      (desc.has_v != 0 && desc.v.shape[2] > kMost))
    return fail(message, GTN_UNSUPPORTED, "the head size is too large for a rope's workspace");
  RopePlan* created = new (std::nothrow) RopePlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a rope plan");
  *plan = created;
  char name[48];
  const char* const types[] = {"f32", "bf16", "f16"};
  std::snprintf(name, sizeof name, "rope.%s.%s", desc.style == GTN_ROPE_INTERLEAVED ? "interleaved" : "halves",
                types[index_of(first.dtype)]);
  name_kernel(info, device, name);
  info->op = GTN_OP_ROPE;
  const double tokens = static_cast<double>(first.shape[0]), rotary = static_cast<double>(desc.rotary);
  const double positions = static_cast<double>(desc.max_position);
  info->bytes = tokens * 8 + (tokens < positions ? tokens : positions) * rotary * 4;
  info->flops = 0;
  if (desc.has_k != 0 || desc.has_v != 0) info->bytes += tokens * 8;
  struct Part {
    int32_t has;
    const gtn_tensor_desc &from, &to;
    double rotated;
  };
  for (const Part& part : {Part{desc.has_q, desc.q, desc.q_out, rotary}, {desc.has_k, desc.k, desc.k_cache, rotary},
                           {desc.has_v, desc.v, desc.v_cache, 0.0}}) {
    if (part.has == 0) continue;
    const double rows = tokens * static_cast<double>(part.from.shape[1]), n = static_cast<double>(part.from.shape[2]);
    const bool quantized = part.to.dtype == GTN_S8;
    info->flops += rows * (part.rotated * kRotationFlops + (quantized ? n * kQuantizationFlops : 0.0));
    info->bytes +=
        rows * (n * static_cast<double>(size_of(part.from.dtype) + size_of(part.to.dtype)) + (quantized ? 4 : 0));
  }
  info->workspace_bytes = created->workspace_bytes(device.threads);
  return GTN_OK;
}

}  // namespace gatun::cpu
