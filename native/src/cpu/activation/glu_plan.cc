// The plan of a gated activation: splits a matrix into tasks of rows or of pieces of rows.
#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/activation/activation.h"
#include "cpu/levels.h"
#include "cpu/rows.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

int index_of(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }
int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }

class GluPlan final : public Plan {
 public:
  GluPlan(const Device& device, const gtn_glu_desc& desc)
      : kernel_(device.level->kernels->glu->rows[desc.activation][index_of(desc.gate.dtype)][index_of(desc.out.dtype)]),
        n_(desc.gate.shape[1]),
        gate_stride_(desc.gate.strides[0]),
        x_stride_(desc.x.strides[0]),
        out_stride_(desc.out.strides[0]),
        x_size_(size_of(desc.gate.dtype)),
        out_size_(size_of(desc.out.dtype)),
        dense_(gate_stride_ == n_ && x_stride_ == n_ && out_stride_ == n_) {}

  gtn_status run(Stream& stream, const void* arguments, gtn_message*) const override {
    const gtn_glu_args& args = *static_cast<const gtn_glu_args*>(arguments);
    // Rows that follow each other are one long row.
    const int64_t rows = dense_ ? 1 : args.rows;
    const int64_t n = dense_ ? args.rows * n_ : n_;
    const bool past = out_size_ == 4 && args.out != args.gate && args.out != args.x &&
                      past_caches(args.out, rows > 1 ? out_stride_ * out_size_ : 0, rows * n * out_size_,
                                  2 * rows * n * x_size_);
    const Pieces pieces(rows, n, past);
    parallel(stream.device->threads, pieces.count(), [&](int64_t task, int) {
      const auto [row, column, height, width] = pieces.at(task);
      GluRows part = {};
      part.gate = static_cast<const char*>(args.gate) + (row * gate_stride_ + column) * x_size_;
      part.x = static_cast<const char*>(args.x) + (row * x_stride_ + column) * x_size_;
      part.out = static_cast<char*>(args.out) + (row * out_stride_ + column) * out_size_;
      part.gate_stride = gate_stride_;
      part.x_stride = x_stride_;
      part.out_stride = out_stride_;
      part.rows = height;
      part.n = width;
      part.past_caches = past;
      kernel_(part);
    });
    return GTN_OK;
  }

 private:
  const GluKernels::Rows kernel_;
  const int64_t n_, gate_stride_, x_stride_, out_stride_, x_size_, out_size_;
  const bool dense_;
};

// Operations of the formulas in cpu/math.h, as the activation alone counts them.
constexpr double kFlops[] = {0, 50, 34, 30, 1};
constexpr const char* kNames[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};
constexpr const char* kTypes[] = {"f32", "bf16", "f16"};

}  // namespace

gtn_status glu_plan(const Device& device, const gtn_glu_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  *plan = new (std::nothrow) GluPlan(device, desc);
  if (*plan == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan of a gated activation");
  const double elements = static_cast<double>(desc.gate.shape[0]) * static_cast<double>(desc.gate.shape[1]);
  char name[48];
  std::snprintf(name, sizeof name, "glu.%s.%s", kNames[desc.activation], kTypes[index_of(desc.gate.dtype)]);
  name_kernel(info, device, name);
  info->op = GTN_OP_GLU;
  info->flops = elements * (kFlops[desc.activation] + 1);
  info->bytes = elements * static_cast<double>(2 * size_of(desc.gate.dtype) + size_of(desc.out.dtype));
  info->workspace_bytes = 0;
  return GTN_OK;
}

}  // namespace gatun::cpu
