// Products with BF16 and S8 weights. Rows of another type are brought to theirs first, in scratch memory: FP32 is rounded to
// BF16 by the activation kernel that does nothing else, and for S8 every row is quantized.
#include "kernels/gemm/plan.h"

#include <cstdio>

#include "kernels/activation/tiling.h"
#include "kernels/gemm/tiling.h"
#include "kernels/gemm/weights.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

class GemmPlan final : public Plan {
 public:
  GemmPlan(const gtn_gemm_desc& desc, const GemmTiling& tiling, const Kernel* kernel, const Kernel* rows)
      : desc_(desc), tiling_(tiling), kernel_(kernel), rows_(rows) {}

  // Of a stream, for the plan's most rows.
  int64_t workspace_bytes(const Device& device) const { return scratch_of(device, desc_.a.shape[0]).bytes; }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_gemm_args& args = *static_cast<const gtn_gemm_args*>(arguments);
    const Weights& weights = *static_cast<const Weights*>(args.weights);
    if (args.rows == 0) return GTN_OK;
    const Scratch parts = scratch_of(*stream.device, args.rows);
    void* memory = nullptr;
    if (const gtn_status status = stream.scratch(parts.bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);
    const void* a = args.a;
    if (rows_ != nullptr) {
      a = scratch + parts.a;
      if (const gtn_status status = prepare_rows(stream, args, parts, scratch, message); status != GTN_OK) return status;
    }
    GemmTiling tiling = tiling_;
    tiling.m = args.rows;
    gemm_tiling(&tiling);
    const bool s8 = desc_.format == GTN_S8;
    const auto of_s8 = [&](const void* p) { return s8 ? p : nullptr; };
    return launch_with(stream, kernel_, blocks(*stream.device, args.rows), tiling, message, a,
                       static_cast<const void*>(weights.memory), args.bias, args.residual, of_s8(scratch + parts.scales),
                       of_s8(scratch + parts.zeros), of_s8(weights.scales()), of_s8(weights.sums()),
                       static_cast<const void*>(args.out), static_cast<const void*>(scratch));
  }

 private:
  // Where things lie in the scratch memory: sums first.
  struct Scratch {
    int64_t a, scales, zeros, bytes;
  };

  int64_t blocks(const Device& device, int64_t rows) const {
    const int64_t tiles = (rows + kGemmM - 1) / kGemmM * ((tiling_.n + kGemmN - 1) / kGemmN);
    return tiles < device.properties.cube_cores ? tiles : device.properties.cube_cores;
  }

  Scratch scratch_of(const Device& device, int64_t rows) const {
    Scratch s = {};
    s.a = Weights::after(gemm_workspace_bytes(blocks(device, rows)));
    s.scales = s.a + (rows_ != nullptr ? Weights::after(rows * tiling_.k * element_bytes(desc_.format)) : 0);
    const int64_t of_rows = desc_.format == GTN_S8 ? Weights::after(rows * 4) : 0;
    s.zeros = s.scales + of_rows;
    s.bytes = s.zeros + of_rows;
    return s;
  }

  gtn_status prepare_rows(Stream& stream, const gtn_gemm_args& args, const Scratch& parts, char* scratch,
                          gtn_message* message) const {
    const int64_t k = tiling_.k;
    if (desc_.format == GTN_S8) {
      const GemmRowsTiling tiling = {args.rows, k, desc_.a.strides[0], k};
      return launch_with(stream, rows_, vector_blocks(*stream.device, args.rows), tiling, message, args.a,
                         static_cast<const void*>(scratch + parts.a), static_cast<const void*>(scratch + parts.scales),
                         static_cast<const void*>(scratch + parts.zeros));
    }
    ActivationTiling tiling = {};
    tiling.rows = args.rows, tiling.n = k;
    tiling.x_stride = desc_.a.strides[0], tiling.out_stride = k;
    tiling.chunk = chunk_elements(share(*stream.device, args.rows, k), activation_element_bytes(4, 2, false));
    tiling.activation = GTN_ACT_NONE;
    return launch_with(stream, rows_, vector_blocks(*stream.device, chunks(args.rows, k, tiling.chunk)), tiling, message,
                       args.a, static_cast<const void*>(nullptr), static_cast<const void*>(scratch + parts.a));
  }

  const gtn_gemm_desc desc_;
  const GemmTiling tiling_;
  const Kernel *const kernel_, *const rows_;  // rows: null where a is of the weights' type
};

// The first thing about a product that the kernels have not, or null.
const char* missing(const gtn_gemm_desc& desc) {
  if (desc.format != GTN_BF16 && desc.format != GTN_S8) return "format: this backend has products of BF16 and S8 weights alone";
  if (desc.groups != 0) return "groups: this backend has no grouped products";
  if (desc.has_row_index != 0) return "has_row_index: this backend takes no rows by number";
  if (desc.rank != 0) return "rank: this backend adds no low-rank products";
  if (desc.a.dtype == GTN_F16 || desc.out.dtype == GTN_F16) return "a or out: is F16, this backend takes and gives F32 and BF16";
  if (desc.a.dtype == GTN_U8) return "a: is U8, this backend takes no rows that come quantized";
  return nullptr;
}

}  // namespace

bool gemm_serves(const Device&, int32_t dtype) { return dtype == GTN_BF16 || dtype == GTN_S8; }

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (const char* why = missing(desc); why != nullptr) return fail(message, GTN_UNSUPPORTED, "%s", why);
  const bool s8 = desc.format == GTN_S8, prepared = s8 || desc.a.dtype != GTN_BF16;
  GemmTiling tiling = {};
  tiling.m = desc.a.shape[0] > 0 ? desc.a.shape[0] : 1;
  tiling.k = desc.a.shape[1], tiling.n = desc.out.shape[1];
  tiling.a_stride = prepared ? tiling.k : desc.a.strides[0];
  tiling.b_stride = tiling.k, tiling.out_stride = desc.out.strides[0];
  tiling.activation = desc.activation;
  tiling.has_bias = desc.has_bias, tiling.has_residual = desc.has_residual;
  if (!gemm_tiling(&tiling)) {
    return fail(message, GTN_UNSUPPORTED,
                "a: k is %lld in rows of %lld, and n is %lld in rows of %lld; this backend takes k and rows of a of 1 to %lld, "
                "n from 1, and rows of out of up to %lld",
                static_cast<long long>(tiling.k), static_cast<long long>(tiling.a_stride), static_cast<long long>(tiling.n),
                static_cast<long long>(tiling.out_stride), static_cast<long long>(kGemmMost),
                static_cast<long long>(kGemmMostOut));
  }
  const Kernel *kernel = nullptr, *rows = nullptr;
  char name[48];
  std::snprintf(name, sizeof name, "gatun_gemm_%s_%s", type_name(desc.format), type_name(desc.out.dtype));
  if (const gtn_status status = find_kernel(device.index, name, &kernel, message); status != GTN_OK) return status;
  if (prepared) {
    std::snprintf(name, sizeof name, s8 ? "gatun_gemm_rows_%s_s8" : "gatun_activation_%s_bf16", type_name(desc.a.dtype));
    if (const gtn_status status = find_kernel(device.index, name, &rows, message); status != GTN_OK) return status;
  }
  std::unique_ptr<GemmPlan> created(new (std::nothrow) GemmPlan(desc, tiling, kernel, rows));
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  const double m = static_cast<double>(desc.a.shape[0]), n = static_cast<double>(tiling.n), k = static_cast<double>(tiling.k);
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  name_kernel(info, s8 ? "gemm.int8" : "gemm.bf16");
  info->flops = 2 * m * n * k;
  info->bytes = m * k * static_cast<double>(element_bytes(desc.a.dtype)) +
                k * n * static_cast<double>(element_bytes(desc.format)) + m * n * out_size * (1 + desc.has_residual) +
                4 * n * (desc.has_bias + (s8 ? 2 : 0));
  info->workspace_bytes = created->workspace_bytes(device);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
