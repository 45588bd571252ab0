#include "fake_quantize/plan.h"

#include <cstdio>

#include "backend/row_kernel.h"
#include "fake_quantize/kernels.h"

namespace gatun::gpu {
namespace {

constexpr int64_t kMostBlocks = int64_t{1} << 20;  // which go on with the next packs

class FakeQuantizePlan final : public Plan {
 public:
  explicit FakeQuantizePlan(const gtn_fake_quantize_desc& desc)
      : desc_(desc),
        n_(desc.x.shape[1]),
        dense_(desc.granularity == GTN_SCALE_OF_TENSOR && desc.x.strides[0] == n_ && desc.out.strides[0] == n_),
        aligned_(desc.x.strides[0] * element_bytes(desc.x.dtype) % 16 == 0 &&
                 desc.out.strides[0] * element_bytes(desc.out.dtype) % 16 == 0) {
    for (int vector = 0; vector < 2; ++vector) {
      kernel_[vector] = fake_quantize_kernel(desc.x.dtype == GTN_BF16, desc.out.dtype == GTN_BF16, vector == 1);
    }
  }

  gtn_status ready(const Device& device, gtn_message* message) const {
    const gtn_status status = prepare(device.index, kernel_[0].kernel, 0, message);
    return status != GTN_OK ? status : prepare(device.index, kernel_[1].kernel, 0, message);
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_fake_quantize_args& args = *static_cast<const gtn_fake_quantize_args*>(arguments);
    if (args.rows == 0 || n_ == 0) return GTN_OK;
    FakeQuantizeArgs to = {};
    to.x = args.x, to.gradient = args.gradient, to.out = args.out;
    to.scales = args.scales, to.zero_points = args.zero_points;
    to.x_stride = desc_.x.strides[0], to.out_stride = desc_.out.strides[0];
    // With one scale, rows that follow each other are one long row.
    to.rows = dense_ ? 1 : args.rows, to.n = dense_ ? args.rows * n_ : n_;
    to.least = static_cast<float>(desc_.least), to.most = static_cast<float>(desc_.most);
    to.of_rows = desc_.granularity == GTN_SCALE_OF_ROW, to.of_columns = desc_.granularity == GTN_SCALE_OF_COLUMN;
    bool vector = (dense_ || aligned_) && to.n % kernel_[1].elements == 0;
    for (const void* p : {to.x, to.gradient, static_cast<const void*>(to.out)}) vector = vector && is_aligned(p);
    if (to.of_columns != 0) vector = vector && is_aligned(to.scales);
    const FakeQuantizeKernel& kernel = kernel_[vector];
    const int64_t blocks = ceil_div(to.rows * (to.n / kernel.elements), kFakeQuantizeThreads);
    return launch(stream.queue, kernel.kernel, {blocks < kMostBlocks ? blocks : kMostBlocks}, kFakeQuantizeThreads, 0, to, message);
  }

 private:
  const gtn_fake_quantize_desc desc_;
  const int64_t n_;
  const bool dense_, aligned_;
  FakeQuantizeKernel kernel_[2];  // for pointers of any alignment, and for 16 bytes
};

constexpr double kFlops = 7;

}  // namespace

bool fake_quantize_serves(const Device&, int32_t dtype) { return dtype == GTN_F32 || dtype == GTN_BF16; }

gtn_status fake_quantize_plan(Device& device, const gtn_fake_quantize_desc& desc, Plan** plan, gtn_plan_info* info,
                              gtn_message* message) {
  auto created = make_plan<FakeQuantizePlan>(message, desc);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  if (const gtn_status status = created->ready(device, message); status != GTN_OK) return status;
  const double rows = static_cast<double>(desc.x.shape[0]), n = static_cast<double>(desc.x.shape[1]);
  const double x_size = static_cast<double>(element_bytes(desc.x.dtype)), out_size = static_cast<double>(element_bytes(desc.out.dtype));
  const double grids = desc.granularity == GTN_SCALE_OF_ROW ? rows : desc.granularity == GTN_SCALE_OF_COLUMN ? n : 1;
  char name[40];
  std::snprintf(name, sizeof name, "fake_quantize.%s%s", type_name(desc.x.dtype), desc.gradient != 0 ? ".gradient" : "");
  name_kernel(info, device, name);
  info->flops = rows * n * kFlops;
  info->bytes = rows * n * (x_size + out_size * (desc.gradient != 0 ? 2 : 1)) + grids * (desc.has_zero_points != 0 ? 8 : 4);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
