// Products with weights of BF16, pruned or not, F16, FP8, S8 and in groups. Rows of another type, and rows by number, are brought to where the
// product reads them first, in scratch memory: rounded, or as terms of BF16 where weights are in groups or pruned; for S8 they are quantized. Weights in
// groups are brought to terms of BF16 there too, in each run. A low-rank product is made there too, and added by the epilogue.
#include "kernels/gemm/plan.h"

#include <cstdio>

#include "kernels/gemm/tiling.h"
#include "kernels/gemm/weights.h"
#include "kernels/tiling.h"

namespace gatun::ascend {
namespace {

// What a product launches. `rows` and `weights` are null where a and the weights are taken as they are, the others where there is no low-rank product, and `widen`
// where its factors are FP32.
struct Kernels {
  const Kernel *product = nullptr, *rows = nullptr, *weights = nullptr, *down = nullptr, *up = nullptr, *widen = nullptr;
};

class GemmPlan final : public Plan {
 public:
  GemmPlan(const gtn_gemm_desc& desc, const GemmTiling& tiling, const Kernels& kernels)
      : desc_(desc), tiling_(tiling), kernels_(kernels) {}

  // Of a stream, for the plan's most rows.
  int64_t workspace_bytes(const Device& device) const { return scratch_of(device, desc_.out.shape[0]).bytes; }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_gemm_args& args = *static_cast<const gtn_gemm_args*>(arguments);
    const Weights& weights = *static_cast<const Weights*>(args.weights);
    if (args.rows == 0 || tiling_.n == 0) return GTN_OK;
    if (desc_.has_row_index != 0 && args.rows_a == 0) return GTN_OK;  // no number leads anywhere
    const Scratch parts = scratch_of(*stream.device, args.rows);
    void* memory = nullptr;
    if (const gtn_status status = stream.scratch(parts.bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);
    if (kernels_.rows != nullptr) {
      if (const gtn_status status = prepare_rows(stream, args, parts, scratch, message); status != GTN_OK) return status;
    }
    if (kernels_.weights != nullptr) {
      if (const gtn_status status = prepare_weights(stream, weights, scratch + parts.b, message); status != GTN_OK) return status;
    }
    if (kernels_.down != nullptr) {
      if (const gtn_status status = multiply_low_rank(stream, args, parts, scratch, message); status != GTN_OK) return status;
    }
    GemmTiling tiling = tiling_;
    tiling.m = args.rows, tiling.rows_x = args.rows_a;
    tiling.b_term = weights.elements();
    gemm_tiling(&tiling);
    const bool s8 = desc_.format == GTN_S8, quantized = desc_.a.dtype == GTN_U8;
    const auto when = [](bool there, const void* p) { return there ? p : nullptr; };
    return launch_with(stream, kernels_.product, blocks(*stream.device, args.rows), tiling, message,
                       kernels_.rows != nullptr ? scratch + parts.a : args.a, static_cast<const void*>(kernels_.weights != nullptr ? scratch + parts.b : weights.memory),
                       static_cast<const void*>(args.group_offsets), when(kernels_.down != nullptr, scratch + parts.addend),
                       args.bias, args.residual, quantized ? args.scales : when(s8, scratch + parts.scales),
                       quantized ? args.zero_points : when(s8, scratch + parts.zeros),
                       when(tiling.has_index != 0, args.row_index), when(s8 || tiling.has_scales != 0, weights.scales()), when(s8, weights.sums()),
                       static_cast<const void*>(args.out), static_cast<const void*>(scratch));
  }

 private:
  // Where things lie in the scratch memory: sums first.
  struct Scratch {
    int64_t a, b, scales, zeros, lora_a, lora_b, between, addend, bytes;
  };

  int64_t blocks(const Device& device, int64_t rows) const {
    GemmTiling tiling = tiling_;
    tiling.m = rows > 0 ? rows : 1;
    gemm_tiling(&tiling);
    return tiling.tiles < device.properties.cube_cores ? tiling.tiles : device.properties.cube_cores;
  }

  Scratch scratch_of(const Device& device, int64_t rows) const {
    Scratch s = {};
    int64_t end = gemm_workspace_bytes(blocks(device, rows));
    const auto take = [&end](bool needed, int64_t bytes) {
      const int64_t at = Weights::after(end);
      end = needed ? at + bytes : end;
      return at;
    };
    const bool own_numbers = desc_.format == GTN_S8 && desc_.a.dtype != GTN_U8, low_rank = kernels_.down != nullptr;
    s.a = take(kernels_.rows != nullptr, rows * tiling_.a_stride * element_bytes(product_type(desc_.format)));
    s.b = take(kernels_.weights != nullptr, tiling_.b_terms * columns() * tiling_.k * 2);
    s.scales = take(own_numbers, rows * 4);
    s.zeros = take(own_numbers, rows * 4);
    s.lora_a = take(kernels_.widen != nullptr, tiling_.k * desc_.rank * 4);
    s.lora_b = take(kernels_.widen != nullptr, desc_.rank * tiling_.n * 4);
    s.between = take(low_rank, rows * desc_.rank * 4);
    s.addend = take(low_rank, rows * tiling_.n * 4);
    s.bytes = end;
    return s;
  }

  int64_t columns() const { return (desc_.groups > 0 ? desc_.groups : 1) * tiling_.n; }

  gtn_status prepare_weights(Stream& stream, const Weights& weights, const char* to, gtn_message* message) const {
    const int64_t k = tiling_.k;
    const GemmRowsTiling tiling = {columns(), k, k, k, columns(), weights.elements(), weights.group_size, 0, tiling_.b_terms};
    return launch_with(stream, kernels_.weights, vector_blocks(*stream.device, chunks(columns(), k, kGemmRowsChunk)), tiling, message,
                       static_cast<const void*>(weights.memory), static_cast<const void*>(to),
                       static_cast<const void*>(weights.scales()), static_cast<const void*>(weights.zeros()));
  }

  gtn_status prepare_rows(Stream& stream, const gtn_gemm_args& args, const Scratch& parts, char* scratch,
                          gtn_message* message) const {
    const GemmRowsTiling tiling = {args.rows,   tiling_.k,    desc_.a.strides[0],  tiling_.a_stride,
                                   args.rows_a, tiling_.k, 0, desc_.has_row_index, tiling_.a_terms};
    const void *index = args.row_index, *to = scratch + parts.a;
    if (desc_.format == GTN_S8 && desc_.a.dtype != GTN_U8) {
      return launch_with(stream, kernels_.rows, vector_blocks(*stream.device, args.rows), tiling, message, args.a, index, to,
                         static_cast<const void*>(scratch + parts.scales), static_cast<const void*>(scratch + parts.zeros));
    }
    return launch_with(stream, kernels_.rows, vector_blocks(*stream.device, chunks(args.rows, tiling_.k, kGemmRowsChunk)), tiling,
                       message, args.a, index, to);
  }

  gtn_status multiply_low_rank(Stream& stream, const gtn_gemm_args& args, const Scratch& parts, char* scratch,
                               gtn_message* message) const {
    const int64_t rank = desc_.rank, k = tiling_.k, n = tiling_.n;
    const void *lora_a = args.lora_a, *lora_b = args.lora_b, *between = scratch + parts.between;
    gtn_status status = GTN_OK;
    const auto widen = [&](const void** x, int64_t at, int64_t elements) {
      if (kernels_.widen == nullptr || status != GTN_OK) return;
      const GemmRowsTiling tiling = {1, elements, elements, elements, 1, 0, 0, 0, 1};
      const void* to = scratch + at;
      status = launch_with(stream, kernels_.widen, vector_blocks(*stream.device, chunks(1, elements, kGemmRowsChunk)), tiling,
                           message, *x, static_cast<const void*>(nullptr), to);
      *x = to;
    };
    const auto multiply = [&](const Kernel* kernel, const ThinTiling& tiling, const void* a, const void* b, const void* out) {
      if (status != GTN_OK) return;
      status = launch_with(stream, kernel, vector_blocks(*stream.device, thin_tiles(tiling.m, tiling.n)), tiling, message, a, b,
                           out);
    };
    widen(&lora_a, parts.lora_a, k * rank);
    widen(&lora_b, parts.lora_b, rank * n);
    multiply(kernels_.down, {args.rows, rank, k, desc_.a.strides[0], rank, rank, desc_.lora_scale, 0}, args.a, lora_a, between);
    multiply(kernels_.up, {args.rows, n, rank, rank, n, n, 1.0f, 0}, between, lora_b,
             static_cast<const void*>(scratch + parts.addend));
    return status;
  }

  const gtn_gemm_desc desc_;
  const GemmTiling tiling_;
  const Kernels kernels_;
};

}  // namespace

bool gemm_serves(const Device&, int32_t dtype) {
  return dtype == GTN_BF16 || dtype == GTN_F16 || dtype == GTN_S8 || dtype == GTN_BF16_2OF4 || in_groups(dtype) || is_f8(dtype);
}

gtn_status declines_format(int32_t format, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED,
              "format: is %d, this backend has products of BF16 (%d), F16 (%d), S8 (%d), U4 (%d), U8 (%d), F8E4M3 (%d), F8E5M2 (%d) "
              "and BF16_2OF4 (%d) weights",
              format, GTN_BF16, GTN_F16, GTN_S8, GTN_U4, GTN_U8, GTN_F8E4M3, GTN_F8E5M2, GTN_BF16_2OF4);
}

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (!gemm_serves(device, desc.format)) return declines_format(desc.format, message);
  if (in_groups(desc.format) && desc.a.dtype == GTN_F32) {
    return fail(message, GTN_UNSUPPORTED,
                "a: is F32, with weights in groups this backend takes BF16 and F16: terms of BF16 would lose what is below 2^-133 of it");
  }
  const bool s8 = desc.format == GTN_S8, empty = desc.a.shape[1] == 0;
  const int32_t type = product_type(desc.format);
  const bool prepared = !empty && (desc.a.dtype != type || desc.has_row_index != 0);
  GemmTiling tiling = {};
  // A product that takes a as it is has as many terms as its type needs.
  const bool exact = desc.format == GTN_BF16_2OF4 || in_groups(desc.format);
  tiling.a_terms = !exact ? 1 : desc.a.dtype == GTN_F32 ? kGemmTerms : desc.a.dtype == GTN_F16 ? 2 : 1;
  tiling.b_terms = in_groups(desc.format) ? kGemmTerms : 1;
  tiling.m = desc.out.shape[0] > 0 ? desc.out.shape[0] : 1;
  tiling.k = desc.a.shape[1], tiling.n = desc.out.shape[1];
  // A single row may have any stride.
  tiling.a_stride = prepared ? tiling.k * tiling.a_terms : desc.a.shape[0] <= 1 ? tiling.k : desc.a.strides[0];
  tiling.a_term = tiling.k;
  tiling.b_stride = tiling.k, tiling.out_stride = desc.out.shape[0] <= 1 ? tiling.n : desc.out.strides[0];
  tiling.groups = desc.groups;
  tiling.activation = desc.activation;
  tiling.has_scales = is_f8(desc.format);
  tiling.has_bias = desc.has_bias, tiling.has_residual = desc.has_residual, tiling.has_addend = desc.rank > 0 && !empty;
  tiling.has_index = desc.has_row_index != 0 && desc.a.dtype == GTN_U8;
  if (!gemm_tiling(&tiling) || (desc.rank > 0 && tiling.n > kThinMost)) {
    return fail(message, GTN_UNSUPPORTED,
                "a: k is %lld in rows of %lld, and n is %lld in rows of %lld; this backend takes k and rows of a of up to %lld, "
                "with a low-rank product n of up to %lld, and rows of out of up to %lld",
                static_cast<long long>(tiling.k), static_cast<long long>(tiling.a_stride), static_cast<long long>(tiling.n),
                static_cast<long long>(tiling.out_stride), static_cast<long long>(kGemmMost),
                static_cast<long long>(kThinMost), static_cast<long long>(kGemmMostOut));
  }
  Kernels kernels;
  gtn_status status = GTN_OK;
  const auto find = [&](const Kernel** kernel, const char* family, const char* from, const char* to) {
    char name[48];
    std::snprintf(name, sizeof name, "gatun_%s_%s%s%s", family, from, *to != '\0' ? "_" : "", to);
    if (status == GTN_OK) status = find_kernel(device.index, name, kernel, message);
  };
  find(&kernels.product, "gemm", type_name(type), type_name(desc.out.dtype));
  if (prepared) find(&kernels.rows, "rows", type_name(desc.a.dtype), type_name(type));
  if (in_groups(desc.format) && !empty) find(&kernels.weights, "rows", "u8", "bf16");
  if (tiling.has_addend != 0) {
    find(&kernels.down, "thin", type_name(desc.a.dtype), "");
    find(&kernels.up, "thin", "f32", "");
    if (desc.lora_dtype != GTN_F32) find(&kernels.widen, "rows", type_name(desc.lora_dtype), "f32");
  }
  if (status != GTN_OK) return status;
  auto created = make_plan<GemmPlan>(message, desc, tiling, kernels);
  if (created == nullptr) return GTN_OUT_OF_MEMORY;
  const double m = static_cast<double>(desc.out.shape[0]), n = static_cast<double>(tiling.n), k = static_cast<double>(tiling.k);
  const double groups = desc.groups > 0 ? static_cast<double>(desc.groups) : 1, rank = static_cast<double>(desc.rank);
  const double out_size = static_cast<double>(element_bytes(desc.out.dtype));
  name_kernel(info, s8                               ? "gemm.int8"
                    : desc.format == GTN_U4          ? "gemm.u4"
                    : desc.format == GTN_U8          ? "gemm.u8"
                    : desc.format == GTN_BF16_2OF4   ? "gemm.bf16_2of4"
                    : desc.format == GTN_F8E4M3      ? "gemm.f8e4m3"
                    : desc.format == GTN_F8E5M2      ? "gemm.f8e5m2"
                    : type == GTN_BF16               ? "gemm.bf16"
                                                     : "gemm.f16");
  info->flops = 2 * m * n * k + 2 * m * rank * (k + n);
  info->bytes = static_cast<double>(desc.a.shape[0]) * k * static_cast<double>(element_bytes(desc.a.dtype)) +
                groups * k * n * static_cast<double>(in_groups(desc.format) ? 1 : element_bytes(type)) + m * n * out_size * (1 + desc.has_residual) +
                4 * groups * n * (desc.has_bias + (s8 ? 2 : tiling.has_scales)) + 4 * m * desc.has_row_index;
  if (desc.rank > 0) info->bytes += rank * (k + n) * static_cast<double>(element_bytes(desc.lora_dtype));
  info->workspace_bytes = created->workspace_bytes(device);
  *plan = created.release();
  return GTN_OK;
}

}  // namespace gatun::ascend
