// The activation plan: splits a matrix into tasks of rows or of pieces of rows.
#include "cpu/activation/activation.h"

#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/rows.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

class ActivationPlan final : public Plan {
 public:
  ActivationPlan(const Device& device, const gtn_activation_desc& desc)
      : kernel_(device.level->kernels->activation
                    ->rows[desc.activation][desc.x.dtype == GTN_BF16][desc.out.dtype == GTN_BF16]),
        n_(desc.x.shape[1]),
        x_stride_(desc.x.strides[0]),
        out_stride_(desc.out.strides[0]),
        x_size_(desc.x.dtype == GTN_BF16 ? 2 : 4),
        out_size_(desc.out.dtype == GTN_BF16 ? 2 : 4),
        dense_(desc.has_bias == 0 && x_stride_ == n_ && out_stride_ == n_) {}

  gtn_status run(Stream& stream, const void* arguments, gtn_message*) const override {
    const gtn_activation_args& args = *static_cast<const gtn_activation_args*>(arguments);
    // Without a bias, rows that follow each other are one long row.
    const int64_t rows = dense_ ? (args.rows > 0 ? 1 : 0) : args.rows;
    const int64_t n = dense_ ? args.rows * n_ : n_;
    if (rows == 0 || n == 0) return GTN_OK;
    const bool past = out_size_ == 4 && args.out != args.x &&
                      past_caches(args.out, rows > 1 ? out_stride_ * out_size_ : 0, rows * n * out_size_,
                                  rows * n * x_size_);
    const Pieces pieces(rows, n, past);
    const char* x = static_cast<const char*>(args.x);
    const float* bias = static_cast<const float*>(args.bias);
    char* out = static_cast<char*>(args.out);
    parallel(stream.device->threads, pieces.count(), [&](int64_t task, int) {
      const Pieces::Piece p = pieces.at(task);
      kernel_(x + (p.row * x_stride_ + p.column) * x_size_, x_stride_, bias == nullptr ? nullptr : bias + p.column,
              out + (p.row * out_stride_ + p.column) * out_size_, out_stride_, p.rows, p.n, past);
    });
    return GTN_OK;
  }

 private:
  const ActivationKernels::Rows kernel_;
  const int64_t n_, x_stride_, out_stride_, x_size_, out_size_;
  const bool dense_;
};

// Operations of the formulas in cpu/math.h, one for each addition, multiplication, division or comparison.
constexpr double kFlops[] = {0, 50, 34, 30, 1};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};

}  // namespace

gtn_status activation_plan(const Device& device, const gtn_activation_desc& desc, Plan** plan, gtn_plan_info* info,
                           gtn_message* message) {
  *plan = new (std::nothrow) ActivationPlan(device, desc);
  if (*plan == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for an activation plan");
  const double rows = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[1]);
  const double element = (desc.x.dtype == GTN_BF16 ? 2 : 4) + (desc.out.dtype == GTN_BF16 ? 2 : 4);
  char name[48];
  std::snprintf(name, sizeof name, "activation.%s.%s", kNames[desc.activation],
                desc.x.dtype == GTN_BF16 ? "bf16" : "f32");
  name_kernel(info, device, name);
  info->op = GTN_OP_ACTIVATION;
  info->flops = rows * n * (kFlops[desc.activation] + (desc.has_bias != 0 ? 1 : 0));
  info->bytes = rows * n * element + (desc.has_bias != 0 ? 4 * n : 0);
  info->workspace_bytes = 0;
  return GTN_OK;
}

}  // namespace gatun::cpu
