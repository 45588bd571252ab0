// The norm plan: splits a matrix into tasks of whole rows.
#include "cpu/norm/norm.h"

#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/rows.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

NormKernels::Rows kernel_of(const NormKernels& kernels, const gtn_norm_desc& desc) {
  const auto& table = desc.kind == GTN_NORM_LAYER ? kernels.layer : kernels.rms;
  return table[desc.x.dtype == GTN_BF16][desc.out.dtype == GTN_BF16];
}

int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_BF16 ? 2 : 1; }

class NormPlan final : public Plan {
 public:
  NormPlan(const Device& device, const gtn_norm_desc& desc)
      : kernel_(kernel_of(*device.level->kernels->norm, desc)),
        epsilon_(desc.epsilon),
        n_(desc.x.shape[1]),
        x_stride_(desc.x.strides[0]),
        out_stride_(desc.out.strides[0]),
        x_size_(size_of(desc.x.dtype)),
        out_size_(size_of(desc.out.dtype)),
        row_bytes_((n_ * 4 + 63) / 64 * 64),
        scratch_bytes_(row_bytes_ * ((needs_scratch(desc) ? 1 : 0) + (out_size_ == 1 ? 1 : 0))) {}

  int64_t workspace_bytes(int threads) const { return scratch_bytes_ * threads; }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_norm_args& args = *static_cast<const gtn_norm_args*>(arguments);
    if (args.rows == 0) return GTN_OK;
    const int threads = stream.device->threads;
    char* scratch = nullptr;
    if (scratch_bytes_ > 0) {
      scratch = static_cast<char*>(stream.scratch(workspace_bytes(threads)));
      if (scratch == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a norm");
    }
    const int64_t height = task_rows(args.rows, n_, threads);
    const int64_t elements = args.rows * n_;
    const bool past = out_size_ == 4 && args.out != args.x && args.out != args.residual &&
                      past_caches(args.out, out_stride_ * out_size_, elements * out_size_, elements * x_size_);
    const int64_t tasks = (args.rows + height - 1) / height;
    parallel(threads, tasks, [&](int64_t task, int worker) {
      const int64_t row = task * height;
      const int64_t x_offset = row * x_stride_ * x_size_;
      NormRows rows = {};
      rows.x = static_cast<const char*>(args.x) + x_offset;
      if (args.residual != nullptr) rows.residual = static_cast<const char*>(args.residual) + x_offset;
      rows.gamma = static_cast<const float*>(args.gamma);
      rows.beta = static_cast<const float*>(args.beta);
      rows.out = static_cast<char*>(args.out) + row * out_stride_ * out_size_;
      if (args.sum != nullptr) rows.sum = static_cast<char*>(args.sum) + x_offset;
      rows.x_stride = x_stride_;
      rows.out_stride = out_stride_;
      rows.rows = args.rows - row < height ? args.rows - row : height;
      rows.n = n_;
      rows.epsilon = epsilon_;
      if (scratch != nullptr) rows.scratch = reinterpret_cast<float*>(scratch + worker * scratch_bytes_);
      if (out_size_ == 1) {
        rows.unquantized = reinterpret_cast<float*>(scratch + (worker + 1) * scratch_bytes_ - row_bytes_);
        rows.scales = args.scales + row;
        rows.zeros = args.zero_points + row;
      }
      rows.past_caches = past;
      kernel_(rows);
    });
    return GTN_OK;
  }

 private:
  // The kernels keep h in x or in sum where that holds it in FP32.
  static bool needs_scratch(const gtn_norm_desc& desc) {
    return desc.x.dtype == GTN_BF16 || (desc.has_residual != 0 && desc.has_sum == 0);
  }

  const NormKernels::Rows kernel_;
  const float epsilon_;
  const int64_t n_, x_stride_, out_stride_, x_size_, out_size_;
  const int64_t row_bytes_;      // of a row of FP32
  const int64_t scratch_bytes_;  // of one worker
};

// Of an element. LayerNorm: 2 for the mean, 4 for the centred sums, 4 for the last pass. RMSNorm: 2 and 2. Quantizing: 3 for the
// range, 2 to divide and round, 1 for the zero point, 2 to clamp, and 2 for ties.
constexpr double kLayerFlops = 10;
constexpr double kRmsFlops = 4;
constexpr double kQuantizeFlops = 10;

}  // namespace

gtn_status norm_plan(const Device& device, const gtn_norm_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message) {
  const int64_t n = desc.x.shape[1];
  if (n > (int64_t{1} << 48))  // times kMostThreads
    return fail(message, GTN_UNSUPPORTED, "x.shape[1]: is too large for a norm's workspace");
  NormPlan* created = new (std::nothrow) NormPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a norm plan");
  *plan = created;
  const bool layer = desc.kind == GTN_NORM_LAYER;
  const bool has_residual = desc.has_residual != 0, has_beta = desc.has_beta != 0, has_sum = desc.has_sum != 0;
  const double elements = static_cast<double>(desc.x.shape[0]) * static_cast<double>(n);
  const bool quantized = desc.out.dtype == GTN_U8;
  const double x_size = static_cast<double>(size_of(desc.x.dtype)), out_size = static_cast<double>(size_of(desc.out.dtype));
  char name[48];
  std::snprintf(name, sizeof name, "norm.%s.%s%s", layer ? "layer" : "rms", desc.x.dtype == GTN_BF16 ? "bf16" : "f32",
                quantized ? ".int8" : "");
  name_kernel(info, device, name);
  info->op = GTN_OP_NORM;
  info->flops = elements * ((layer ? kLayerFlops : kRmsFlops) + (has_residual ? 1 : 0) + (has_beta ? 1 : 0) +
                            (quantized ? kQuantizeFlops : 0));
  info->bytes = elements * (x_size * (1 + has_residual + has_sum) + out_size) +
                4.0 * static_cast<double>(n) * (1 + has_beta) + (quantized ? 8.0 * static_cast<double>(desc.x.shape[0]) : 0);
  info->workspace_bytes = created->workspace_bytes(device.threads);
  return GTN_OK;
}

}  // namespace gatun::cpu
