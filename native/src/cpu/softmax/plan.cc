// The softmax plan: splits a matrix into tasks of whole rows.
#include "cpu/softmax/softmax.h"

#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/levels.h"
#include "cpu/rows.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

class SoftmaxPlan final : public Plan {
 public:
  SoftmaxPlan(const Device& device, const gtn_softmax_desc& desc)
      : kernel_(device.level->kernels->softmax->rows[desc.x.dtype == GTN_BF16][desc.out.dtype == GTN_BF16]),
        scale_(desc.scale),
        n_(desc.x.shape[1]),
        x_stride_(desc.x.strides[0]),
        out_stride_(desc.out.strides[0]),
        x_size_(desc.x.dtype == GTN_BF16 ? 2 : 4),
        out_size_(desc.out.dtype == GTN_BF16 ? 2 : 4),
        scratch_bytes_((n_ * 4 + 63) / 64 * 64) {}

  int64_t workspace_bytes(int threads) const { return scratch_bytes_ * threads; }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_softmax_args& args = *static_cast<const gtn_softmax_args*>(arguments);
    if (args.rows == 0 || n_ == 0) return GTN_OK;
    const int threads = stream.device->threads;
    char* scratch = static_cast<char*>(stream.scratch(workspace_bytes(threads)));
    if (scratch == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for the workspace of a softmax");
    const int64_t height = task_rows(args.rows, n_, threads);
    const int64_t tasks = (args.rows + height - 1) / height;
    const int64_t elements = args.rows * n_;
    const bool past = out_size_ == 4 && args.out != args.x &&
                      past_caches(args.out, out_stride_ * out_size_, elements * out_size_, elements * x_size_);
    parallel(threads, tasks, [&](int64_t task, int worker) {
      const int64_t row = task * height;
      SoftmaxRows rows = {};
      rows.x = static_cast<const char*>(args.x) + row * x_stride_ * x_size_;
      rows.out = static_cast<char*>(args.out) + row * out_stride_ * out_size_;
      rows.x_stride = x_stride_;
      rows.out_stride = out_stride_;
      rows.rows = args.rows - row < height ? args.rows - row : height;
      rows.n = n_;
      rows.scale = scale_;
      rows.scratch = reinterpret_cast<float*>(scratch + worker * scratch_bytes_);
      rows.past_caches = past;
      kernel_(rows);
    });
    return GTN_OK;
  }

 private:
  const SoftmaxKernels::Rows kernel_;
  const float scale_;
  const int64_t n_, x_stride_, out_stride_, x_size_, out_size_;
  const int64_t scratch_bytes_;  // of one worker
};

// Of an element: 2 for the maximum, 20 for the exponential, 1 for the sum and 1 for the quotient.
constexpr double kFlops = 24;

}  // namespace

gtn_status softmax_plan(const Device& device, const gtn_softmax_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message) {
  const int64_t n = desc.x.shape[1];
  if (n > (int64_t{1} << 48))  // times kMostThreads
    return fail(message, GTN_UNSUPPORTED, "x.shape[1]: is too large for a softmax's workspace");
  SoftmaxPlan* created = new (std::nothrow) SoftmaxPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a softmax plan");
  *plan = created;
  const double elements = static_cast<double>(desc.x.shape[0]) * static_cast<double>(n);
  char name[48];
  std::snprintf(name, sizeof name, "softmax.%s", desc.x.dtype == GTN_BF16 ? "bf16" : "f32");
  name_kernel(info, device, name);
  info->op = GTN_OP_SOFTMAX;
  info->flops = elements * kFlops;
  info->bytes = elements * ((desc.x.dtype == GTN_BF16 ? 2 : 4) + (desc.out.dtype == GTN_BF16 ? 2 : 4));
  info->workspace_bytes = created->workspace_bytes(device.threads);
  return GTN_OK;
}

}  // namespace gatun::cpu
