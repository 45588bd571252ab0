// The mix plan: checks what a run's rows are, then splits it into tasks of whole tokens.
#include "cpu/mix/mix.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace gatun::cpu {
namespace {

// 32 KiB of FP32: long enough to hide the cost of handing out a task, short enough to balance.
constexpr int64_t kTaskElements = 8192;

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }

// What a worker has of one token: the weights of all its parts and heads, and of one head those that are not 0.
struct Token {
  float* all;      // [parts, heads]
  float* weights;  // [parts]
  const void** x;  // [parts]

  static Token take(Workspace& workspace, int64_t parts, int64_t heads) {
    Token token;
    token.all = workspace.take<float>(times(parts, heads));
    token.weights = workspace.take<float>(parts);
    token.x = workspace.take<const void*>(parts);
    return token;
  }
};

class MixPlan final : public Plan {
 public:
  MixPlan(const Device& device, const gtn_mix_desc& desc)
      : kernels_(*device.level->kernels->mix),
        row_(kernels_.row[index_of(desc.x.dtype)][index_of(desc.out.dtype)]),
        desc_(desc),
        parts_(desc.gates.shape[1]) {
    const int64_t heads = desc.out.shape[1];
    Workspace sizes(nullptr);
    Token::take(sizes, parts_, heads);
    token_bytes_ = sizes.used();
    const int64_t elements = times(times(heads, desc.out.shape[2]), parts_ + 1);
    if (elements < kTaskElements) height_ = kTaskElements / elements;
  }

  int64_t workspace_bytes(int threads, int64_t tokens) const {
    Workspace sizes(nullptr);
    if (desc_.has_row_index != 0) sizes.take<int32_t>(times(tokens, parts_));
    sizes.take<char>(times(token_bytes_, threads));
    return sizes.used();
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_mix_args& args = *static_cast<const gtn_mix_args*>(arguments);
    if (args.tokens == 0) return GTN_OK;
    const int threads = stream.device->threads;
    Workspace workspace(static_cast<char*>(stream.scratch(workspace_bytes(threads, args.tokens))));
    if (workspace.memory() == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a mix");
    const int32_t* row_index = nullptr;
    if (desc_.has_row_index != 0 && parts_ > 0) {
      // Copied, and the copy checked: another thread may write to the original while the run reads.
      const int64_t count = args.tokens * parts_;
      int32_t* copy = workspace.take<int32_t>(count);
      std::memcpy(copy, args.row_index, static_cast<size_t>(count) * 4);
      for (int64_t i = 0; i < count; ++i) {
        if (copy[i] >= -1 && copy[i] < args.rows_x) continue;
        return fail(message, GTN_INVALID_ARGUMENT,
                    "row_index[%lld, %lld] is %d, expected -1, or 0 to rows_x - 1 = %lld",
                    static_cast<long long>(i / parts_), static_cast<long long>(i % parts_), copy[i],
                    static_cast<long long>(args.rows_x - 1));
      }
      row_index = copy;
    }
    char* scratch = workspace.take<char>(token_bytes_ * threads);
    parallel(threads, (args.tokens - 1) / height_ + 1, [&](int64_t task, int worker) {
      Workspace mine(scratch + worker * token_bytes_);
      const Token token = Token::take(mine, parts_, desc_.out.shape[1]);
      const int64_t first = task * height_, end = args.tokens - first < height_ ? args.tokens : first + height_;
      for (int64_t t = first; t < end; ++t) {
        one_token(args, t, row_index == nullptr ? nullptr : row_index + t * parts_, token);
      }
    });
    return GTN_OK;
  }

 private:
  void one_token(const gtn_mix_args& args, int64_t t, const int32_t* row_index, const Token& token) const {
    const int64_t heads = desc_.out.shape[1], n = desc_.out.shape[2];
    const int64_t *gates = desc_.gates.strides, *out = desc_.out.strides;
    for (int64_t part = 0; part < parts_; ++part) {
      for (int64_t head = 0; head < heads; ++head) {
        token.all[part * heads + head] = args.gates[t * gates[0] + part * gates[1] + head * gates[2]];
      }
    }
    if (desc_.gate != GTN_GATE_NONE) kernels_.weigh(desc_.gate, token.all, parts_ * heads);
    const bool indexed = desc_.has_row_index != 0;
    const int64_t* x = desc_.x.strides;
    for (int64_t head = 0; head < heads; ++head) {
      MixRow row = {token.x, token.weights, 0, n, nullptr, nullptr};
      for (int64_t part = 0; part < parts_; ++part) {
        const float weight = token.all[part * heads + head];
        if (weight == 0.0f || (indexed && row_index[part] < 0)) continue;
        const int64_t at = indexed ? row_index[part] * x[0] + head * x[1] : part * x[0] + t * x[1] + head * x[2];
        token.x[row.parts] = static_cast<const char*>(args.x) + at * size_of(desc_.x.dtype);
        token.weights[row.parts++] = weight;
      }
      const int64_t at = (t * out[0] + head * out[1]) * size_of(desc_.out.dtype);
      if (args.residual != nullptr) row.residual = static_cast<const char*>(args.residual) + at;
      row.out = static_cast<char*>(args.out) + at;
      row_(row);
    }
  }

  const MixKernels& kernels_;
  const MixKernels::Row row_;
  const gtn_mix_desc desc_;
  const int64_t parts_;
  int64_t token_bytes_;  // of one worker
  int64_t height_ = 1;   // tokens of a task
};

// Of an element of a part, and of a gate: the exponential and what is around it.
constexpr double kElementFlops = 2;
constexpr double kGateFlops = 26;

}  // namespace

gtn_status mix_plan(const Device& device, const gtn_mix_desc& desc, Plan** plan, gtn_plan_info* info,
                    gtn_message* message) {
  constexpr int64_t kMost = int64_t{1} << 40;  // times kMostThreads
  if (times(desc.gates.shape[1], desc.out.shape[1]) > kMost) {
    return fail(message, GTN_UNSUPPORTED, "gates: are too many of a token for a mix's workspace");
  }
  MixPlan* created = new (std::nothrow) MixPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a mix plan");
  *plan = created;
  char name[48];
  const char* const types[] = {"f32", "bf16", "f16"};
  const char* const gates[] = {"mix", "mix.sigmoid", "mix.tanh"};
  std::snprintf(name, sizeof name, "%s.%s", gates[desc.gate], types[index_of(desc.x.dtype)]);
  name_kernel(info, device, name);
  info->op = GTN_OP_MIX;
  const double tokens = static_cast<double>(desc.out.shape[0]), heads = static_cast<double>(desc.out.shape[1]);
  const double n = static_cast<double>(desc.out.shape[2]), parts = static_cast<double>(desc.gates.shape[1]);
  const double rows = tokens * heads, out_size = static_cast<double>(size_of(desc.out.dtype));
  const bool indexed = desc.has_row_index != 0, residual = desc.has_residual != 0;
  // A row of x that several tokens name is read once, and a gate that is repeated by its strides too.
  const double named = tokens * parts, there = static_cast<double>(desc.x.shape[0]);
  const double rows_x = heads * (indexed && there < named ? there : named);
  double distinct = 1;
  for (int d = 0; d < 3; ++d) {
    const double size = static_cast<double>(desc.gates.shape[d]);
    if (desc.gates.strides[d] != 0 || desc.gates.shape[d] == 0) distinct *= size;
  }
  info->flops = rows * (parts * n * kElementFlops + (residual ? n : 0) +
                        (desc.gate != GTN_GATE_NONE ? parts * kGateFlops : 0));
  info->bytes = rows_x * n * static_cast<double>(size_of(desc.x.dtype)) + rows * n * out_size * (residual ? 2 : 1) +
                4 * distinct + (indexed ? 4 * named : 0);
  info->workspace_bytes = created->workspace_bytes(device.threads, desc.out.shape[0]);
  return GTN_OK;
}

}  // namespace gatun::cpu
