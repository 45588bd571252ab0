// The plan of fake quantization: splits a matrix into tasks of rows or of pieces of rows.
#include <cstdio>
#include <new>

#include "core/message.h"
#include "cpu/fake_quantize/fake_quantize.h"
#include "cpu/levels.h"
#include "cpu/rows.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

class FakeQuantizePlan final : public Plan {
 public:
  FakeQuantizePlan(const Device& device, const gtn_fake_quantize_desc& desc)
      : granularity_(desc.granularity),
        kernel_(device.level->kernels->fake_quantize
                    ->rows[granularity_ == GTN_SCALE_OF_COLUMN][desc.gradient != 0][desc.x.dtype == GTN_BF16]
                          [desc.out.dtype == GTN_BF16]),
        n_(desc.x.shape[1]),
        x_size_(desc.x.dtype == GTN_BF16 ? 2 : 4),
        out_size_(desc.out.dtype == GTN_BF16 ? 2 : 4),
        dense_(granularity_ == GTN_SCALE_OF_TENSOR && desc.x.strides[0] == n_ && desc.out.strides[0] == n_) {
    form_.x_stride = desc.x.strides[0];
    form_.out_stride = desc.out.strides[0];
    form_.least = static_cast<float>(desc.least);
    form_.most = static_cast<float>(desc.most);
    form_.of_rows = granularity_ == GTN_SCALE_OF_ROW;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message*) const override {
    const gtn_fake_quantize_args& args = *static_cast<const gtn_fake_quantize_args*>(arguments);
    // With one scale, rows that follow each other are one long row.
    const int64_t rows = dense_ ? (args.rows > 0 ? 1 : 0) : args.rows;
    const int64_t n = dense_ ? args.rows * n_ : n_;
    if (rows == 0 || n == 0) return GTN_OK;
    FakeQuantizeRows form = form_;
    form.past_caches = out_size_ == 4 && args.out != args.x && args.out != args.gradient &&
                       past_caches(args.out, rows > 1 ? form.out_stride * out_size_ : 0, rows * n * out_size_, rows * n * x_size_);
    const Pieces pieces(rows, n, form.past_caches);
    parallel(stream.device->threads, pieces.count(), [&](int64_t task, int) {
      const auto [row, column, height, width] = pieces.at(task);
      const int64_t grid = granularity_ == GTN_SCALE_OF_ROW ? row : granularity_ == GTN_SCALE_OF_COLUMN ? column : 0;
      const int64_t out = (row * form.out_stride + column) * out_size_;
      FakeQuantizeRows part = form;
      part.x = static_cast<const char*>(args.x) + (row * form.x_stride + column) * x_size_;
      part.gradient = args.gradient == nullptr ? nullptr : static_cast<const char*>(args.gradient) + out;
      part.scales = args.scales + grid;
      part.zero_points = args.zero_points == nullptr ? nullptr : args.zero_points + grid;
      part.out = static_cast<char*>(args.out) + out;
      part.rows = height;
      part.n = width;
      kernel_(part);
    });
    return GTN_OK;
  }

 private:
  const int32_t granularity_;
  const FakeQuantizeKernels::Rows kernel_;
  const int64_t n_, x_size_, out_size_;
  const bool dense_;
  FakeQuantizeRows form_ = {};
};

constexpr double kFlops = 7;

}  // namespace

gtn_status fake_quantize_plan(const Device& device, const gtn_fake_quantize_desc& desc, Plan** plan, gtn_plan_info* info,
                              gtn_message* message) {
  *plan = new (std::nothrow) FakeQuantizePlan(device, desc);
  if (*plan == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan of fake quantization");
  const double rows = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[1]);
  const double x_size = desc.x.dtype == GTN_BF16 ? 2 : 4, out_size = desc.out.dtype == GTN_BF16 ? 2 : 4;
  const double grids = desc.granularity == GTN_SCALE_OF_ROW ? rows : desc.granularity == GTN_SCALE_OF_COLUMN ? n : 1;
  char name[48];
  std::snprintf(name, sizeof name, "fake_quantize.%s%s", desc.x.dtype == GTN_BF16 ? "bf16" : "f32",
                desc.gradient != 0 ? ".gradient" : "");
  name_kernel(info, device, name);
  info->op = GTN_OP_FAKE_QUANTIZE;
  info->flops = rows * n * kFlops;
  info->bytes = rows * n * (x_size + out_size * (desc.gradient != 0 ? 2 : 1)) + grids * (desc.has_zero_points != 0 ? 8 : 4);
  info->workspace_bytes = 0;
  return GTN_OK;
}

}  // namespace gatun::cpu
