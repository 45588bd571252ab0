// GEMM plans: which tile for how many rows, the workspace, and the launches of a run.
#include "gemm/plan.h"

#include <cstdio>
#include <new>

#include "gemm/choice.h"
#include "gemm/kernels.h"

namespace gatun::gpu {
namespace {

using namespace gemm;

// Rows are prepared in parts of about this size, so that the workspace does not grow with their number.
constexpr int64_t kPreparedBytes = int64_t{256} << 20;
constexpr int64_t kPartRows = int64_t{1} << 22;
constexpr int64_t kMaxSize = INT32_MAX - 1024;  // of k, n and groups: the numbers of blocks, columns and tiles fit 32 bits

int64_t round_to(int64_t value, int64_t to) { return ceil_div(value, to) * to; }
bool aligned(const void* p, int64_t to) { return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(to) == 0; }

VariantTable variants_of(int32_t format, int32_t row_dtype) {
  switch (format) {
    case GTN_U4:
      return row_dtype == GTN_F32 ? u4_f32_variants() : row_dtype == GTN_BF16 ? u4_bf16_variants() : u4_f16_variants();
    case GTN_U8:
      return row_dtype == GTN_F32 ? u8_f32_variants() : row_dtype == GTN_BF16 ? u8_bf16_variants() : u8_f16_variants();
    case GTN_F8E4M3:
    case GTN_F8E5M2:
      return row_dtype == GTN_BF16 ? f8_bf16_variants(format) : f8_f16_variants(format);
    case GTN_S8:
      return int8_variants();
    case GTN_BF16:
      return bf16_variants();
    case GTN_F16:
      return f16_variants();
    default:
      return f32_variants();
  }
}

// Of rows as tiles read them. FP8 has no tile for FP32 rows, and where the unit takes small numbers of F16 for 0 none for those.
int32_t row_dtype_of(const Device& device, int32_t format, int32_t a_dtype) {
  if (format == GTN_S8) return GTN_U8;
  if (is_f8(format)) return a_dtype == GTN_F16 && !flushes_halves(device) ? GTN_F16 : GTN_BF16;
  return !in_groups(format) ? format : flushes_halves(device) ? GTN_F32 : a_dtype;
}

const char* name_of(int32_t format) {
  switch (format) {
    case GTN_S8:
      return "int8";
    case GTN_U4:
      return "u4";
    case GTN_F8E4M3:
      return "f8e4m3";
    case GTN_F8E5M2:
      return "f8e5m2";
    default:
      return type_name(format);
  }
}

class GemmPlan final : public Plan {
 public:
  GemmPlan(const Device& device, const gtn_gemm_desc& desc) : device_(device) {
    format_ = desc.format;
    a_dtype_ = desc.a.dtype;
    out_dtype_ = desc.out.dtype;
    activation_ = desc.activation;
    m_ = desc.out.shape[0];
    m_a_ = desc.a.shape[0];
    groups_ = desc.groups;
    rank_ = desc.rank;
    lora_dtype_ = desc.lora_dtype;
    lora_scale_ = desc.lora_scale;
    indexed_ = desc.has_row_index != 0;
    k_ = desc.a.shape[1];
    n_ = desc.out.shape[1];
    a_stride_ = k_ == 0 ? 0 : desc.a.strides[0];
    out_stride_ = desc.out.strides[0];
    group_size_ = is_f8(format_) ? INT32_MAX : desc.group_size;
    row_dtype_ = row_dtype_of(device, format_, a_dtype_);
    element_ = element_bytes(row_dtype_);
    panels_ = ceil_div(n_, kPanelColumns);
    if (in_groups(format_)) {
      const int64_t units = ceil_div(k_, 2 * kUnitDepth) * 2;
      blocks_ = units * kUnitDepth * element_ / kBlockBytes;
      panel_bytes_ = units * unit_bytes(format_);
      records_bytes_ = ceil_div(units * kUnitDepth, group_size_) * kRecordBytes;
    } else {
      blocks_ = ceil_div(k_ * element_, kBlockBytes);
      panel_bytes_ = blocks_ * kPanelBlockBytes;
    }
  }

  // Makes the kernels ready that a run may choose.
  gtn_status prepare_kernels(gtn_message* message) {
    gtn_status status = choices_.prepare(device_, variants_of(format_, row_dtype_), out_dtype_, message);
    if (status != GTN_OK) return status;
    rows_kernel_ = rows_kernel(a_dtype_, row_dtype_);
    status = gpu::prepare(device_.index, rows_kernel_, kQuantizeShared, message);
    if (status == GTN_OK && groups_ > 0) {
      status = gpu::prepare(device_.index, schedule_kernel(), kScheduleShared, message);
    }
    if (status == GTN_OK && rank_ > 0) {
      project_kernel_ = project_kernel(a_dtype_, lora_dtype_);
      status = gpu::prepare(device_.index, project_kernel_, kProjectShared, message);
    }
    if (status == GTN_OK) status = gpu::prepare(device_.index, reduce_kernel(), 0, message);
    return status;
  }

  void describe(const gtn_gemm_desc& desc, gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double m = real(m_), n = real(n_), k = real(k_), rank = real(rank_);
    const double a_bytes = real(element_bytes(a_dtype_)), out_bytes = real(element_bytes(out_dtype_));
    const double lora_bytes = lora_dtype_ == GTN_F32 ? 4 : 2;
    // A row reads one matrix and one row of `a`, so of more than there are rows some are not read.
    const double matrices = groups_ == 0 ? 1 : real(groups_ < m_ ? groups_ : m_);
    const double rows_a = real(m_a_ < m_ ? m_a_ : m_);
    info->op = GTN_OP_GEMM;
    char name[48];
    // In groups: with the scales, and without zero points, as for backends that keep those of asymmetric groups alone.
    const double weight_bytes = (format_ == GTN_U4 ? k / 2 : in_groups(format_) ? k : k * real(element_bytes(format_))) +
                                (in_groups(format_) ? 4 * real(ceil_div(k_, group_size_)) : 0);
    const Choice choice = choose(m_);
    const int length = std::snprintf(name, sizeof name, "gemm.%s%s.%dx%d", name_of(format_),
                                     groups_ > 0 ? ".grouped" : rank_ > 0 ? ".lora" : "", choice.variant->rows,
                                     choice.variant->columns);
    if (choice.splits > 1) {
      std::snprintf(name + length, sizeof name - static_cast<size_t>(length), ".split%d", static_cast<int>(choice.splits));
    }
    name_kernel(info, device_, name);
    info->flops = 2 * m * n * k + 2 * m * rank * (k + n);
    info->bytes = rows_a * (k * a_bytes + (a_dtype_ == GTN_U8 ? 8 : 0)) + matrices * n * weight_bytes + m * n * out_bytes * (desc.has_residual ? 2 : 1) +
                  (desc.has_bias ? 4 * matrices * n : 0) + (format_ == GTN_S8 ? 8 * matrices * n : 0) +
                  (groups_ > 0 ? 8 * (real(groups_) + 1) : 0) + (indexed_ ? 4 * m : 0) + rank * (k + n) * lora_bytes;
    info->workspace_bytes = Workspace(*this, m_, in_place(nullptr, m_), choice).bytes;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_gemm_args& args = *static_cast<const gtn_gemm_args*>(arguments);
    const PackedWeights& weights = *static_cast<const PackedWeights*>(args.weights);
    if (args.rows == 0 || n_ == 0) return GTN_OK;
    const bool as_it_is = in_place(args.a, args.rows);
    Choice choice = choose(args.rows < kPartRows ? args.rows : kPartRows);
    const Workspace workspace(*this, args.rows, as_it_is, choice);
    void* memory = nullptr;
    if (gtn_status status = stream.scratch(workspace.bytes, &memory, message); status != GTN_OK) return status;
    char* scratch = static_cast<char*>(memory);
    const int64_t a_bytes = element_bytes(a_dtype_), out_bytes = element_bytes(out_dtype_);
    const bool vector_a = aligned(args.a, 4 * a_bytes) && (a_stride_ % 4 == 0 || (args.rows == 1 && !indexed_));

    TilesArgs tiles = {};
    tiles.finish.n = n_;
    tiles.finish.column_scales = weights.scales;
    tiles.finish.column_sums = weights.sums;
    tiles.finish.row_scales = reinterpret_cast<float*>(scratch + workspace.scales_at);
    tiles.finish.row_zeros = reinterpret_cast<int32_t*>(scratch + workspace.zeros_at);
    tiles.finish.bias = static_cast<const float*>(args.bias);
    tiles.finish.out_stride = out_stride_;
    tiles.finish.out_dtype = out_dtype_;
    tiles.finish.activation = activation_;
    tiles.finish.vector = aligned(args.out, 4 * out_bytes) && aligned(args.residual, 4 * out_bytes) &&
                          (out_stride_ % 4 == 0 || args.rows == 1);
    tiles.k_bytes = k_ * element_;
    tiles.weights = weights.data;
    tiles.panel_bytes = panel_bytes_;
    tiles.records = weights.records;
    tiles.records_bytes = records_bytes_;
    tiles.group_size = static_cast<int32_t>(group_size_);
    tiles.panels = static_cast<int32_t>(panels_);
    tiles.blocks = static_cast<int32_t>(blocks_);
    tiles.offsets = args.group_offsets;
    tiles.groups = static_cast<int32_t>(groups_);
    tiles.starts = reinterpret_cast<int32_t*>(scratch + workspace.starts_at);
    tiles.rank = static_cast<int32_t>(rank_);
    tiles.lora_b = args.lora_b;
    tiles.lora_dtype = lora_dtype_;
    tiles.projected_stride = projected_stride();
    tiles.projected = reinterpret_cast<float*>(scratch + workspace.projected_at);

    for (int64_t first = 0; first < args.rows; first += workspace.rows_at_once) {
      const int64_t left = args.rows - first, here = left < workspace.rows_at_once ? left : workspace.rows_at_once;
      if (here != args.rows) choice = choose(here, false);
      const Variant& variant = *choice.variant;
      const char* a = static_cast<const char*>(args.a);
      const int32_t* index = args.row_index == nullptr ? nullptr : args.row_index + first;
      if (index == nullptr) a += first * a_stride_ * a_bytes;
      gtn_status status = GTN_OK;
      const int64_t skipped = index == nullptr ? first : 0;
      const float* a_scales = args.scales == nullptr ? nullptr : args.scales + skipped;
      const int32_t* a_zeros = args.zero_points == nullptr ? nullptr : args.zero_points + skipped;
      if (as_it_is) {
        if (a_dtype_ == GTN_U8) {
          tiles.finish.row_scales = a_scales;
          tiles.finish.row_zeros = a_zeros;
        }
        tiles.a = a;
        tiles.a_stride = a_stride_ * a_bytes;
        tiles.index = index;
        tiles.rows_a = index == nullptr ? here : args.rows_a;
      } else {
        RowsArgs rows = {};
        rows.a = a;
        rows.a_stride = a_stride_;
        rows.index = index;
        rows.rows_a = args.rows_a;
        rows.k = k_;
        rows.to = scratch;
        rows.to_stride = prepared_stride();
        rows.scales = reinterpret_cast<float*>(scratch + workspace.scales_at);
        rows.zeros = reinterpret_cast<int32_t*>(scratch + workspace.zeros_at);
        rows.a_scales = a_scales;
        rows.a_zeros = a_zeros;
        rows.vector = vector_a;
        status = gpu::launch(stream.queue, rows_kernel_, {here}, kRowsThreads, kQuantizeShared, &rows, message);
        tiles.a = scratch;
        tiles.a_stride = prepared_stride();
        tiles.index = nullptr;
        tiles.rows_a = here;
      }
      if (status == GTN_OK && groups_ > 0) {
        const ScheduleArgs schedule = {args.group_offsets, first, args.rows, static_cast<int32_t>(groups_), static_cast<int32_t>(here), variant.rows,
                                       reinterpret_cast<int32_t*>(scratch + workspace.starts_at)};
        status = gpu::launch(stream.queue, schedule_kernel(), {1}, kScheduleThreads, kScheduleShared, &schedule, message);
      }
      if (status == GTN_OK && rank_ > 0) {
        const ProjectArgs project = {a, a_stride_, here, k_, args.lora_a, static_cast<int32_t>(rank_), lora_scale_,
                                     reinterpret_cast<float*>(scratch + workspace.projected_at), projected_stride(),
                                     vector_a};
        status = gpu::launch(stream.queue, project_kernel_, {ceil_div(here, kProjectRows), ceil_div(rank_, kWarp)}, kProjectThreads,
                             kProjectShared, &project, message);
      }
      if (status != GTN_OK) return status;
      tiles.finish.out = static_cast<char*>(args.out) + first * out_stride_ * out_bytes;
      tiles.finish.residual =
          args.residual == nullptr ? nullptr : static_cast<const char*>(args.residual) + first * out_stride_ * out_bytes;
      tiles.rows = static_cast<int32_t>(here);
      tiles.first = first;
      tiles.tiles_m = static_cast<int32_t>(choice.tiles_m);
      tiles.tiles_n = static_cast<int32_t>(choice.tiles_n);
      tiles.split_blocks = static_cast<int32_t>(choice.split_blocks);
      tiles.partial = choice.splits > 1 ? scratch + workspace.partial_at : nullptr;
      const int64_t count = choice.tiles_m * choice.tiles_n;
      status = gpu::launch(stream.queue, variant.kernel, {count < INT32_MAX ? count : INT32_MAX, choice.splits}, variant.threads,
                           variant.shared_bytes, &tiles, message);
      if (status == GTN_OK && choice.splits > 1) {
        const ReduceArgs reduce = {tiles.finish, tiles.partial, here, panels_ * kPanelColumns, static_cast<int32_t>(choice.splits),
                                   format_ == GTN_S8};
        status = gpu::launch(stream.queue, reduce_kernel(), {ceil_div(n_, kReduceThreads), here < 65535 ? here : 65535},
                             kReduceThreads, 0, &reduce, message);
      }
      if (status != GTN_OK) return status;
    }
    return GTN_OK;
  }

 private:
  int64_t prepared_stride() const { return blocks_ * kBlockBytes; }
  int64_t projected_stride() const { return round_to(rank_, 4); }

  // Whether tiles read `a` itself: it has the elements that they multiply, with scales in the order of rows if it is quantized, and
  // copies of 16 bytes find their alignment.
  bool in_place(const void* a, int64_t rows) const {
    return a_dtype_ == row_dtype_ && !(a_dtype_ == GTN_U8 && indexed_) && aligned(a, 16) &&
           (a_stride_ * element_ % 16 == 0 || (rows == 1 && !indexed_));
  }

  Choice choose(int64_t rows, bool may_split = true) const {
    return choices_.choose({rows, n_, blocks_, groups_, 1, (panel_bytes_ + records_bytes_) * panels_, may_split && groups_ == 0 && rank_ == 0});
  }

  // The workspace of a run: rows as they are prepared, their scales and zero points, where groups' tiles start, projected rows,
  // and the sums of splits. Every offset is a multiple of 256.
  struct Workspace {
    int64_t rows_at_once, scales_at, zeros_at, starts_at, projected_at, partial_at, bytes;

    Workspace(const GemmPlan& plan, int64_t rows, bool in_place, const Choice& choice) {
      const int64_t row_bytes = in_place ? 0 : plan.prepared_stride(), projected_bytes = plan.projected_stride() * 4;
      rows_at_once = rows < kPartRows ? rows : kPartRows;
      if (row_bytes + projected_bytes > 0) {
        int64_t most = kPreparedBytes / (row_bytes + projected_bytes) / 256 * 256;
        if (most < 256) most = 256;
        if (rows_at_once > most) rows_at_once = most;
      }
      const bool scales = plan.format_ == GTN_S8 && !in_place;
      scales_at = round_to(rows_at_once * row_bytes, 256);
      zeros_at = scales_at + (scales ? round_to(rows_at_once * 4, 256) : 0);
      starts_at = zeros_at + (scales ? round_to(rows_at_once * 4, 256) : 0);
      projected_at = starts_at + (plan.groups_ > 0 ? round_to((plan.groups_ + 1) * 4, 256) : 0);
      partial_at = projected_at + round_to(rows_at_once * projected_bytes, 256);
      bytes = partial_at + (choice.splits > 1 ? choice.splits * rows * plan.panels_ * kPanelColumns * 4 : 0);
    }
  };

  const Device& device_;
  int32_t format_, a_dtype_, out_dtype_, activation_, lora_dtype_;
  int32_t row_dtype_;  // of rows as tiles read them
  int64_t m_, m_a_, k_, n_, a_stride_, out_stride_;
  int64_t groups_, rank_;  // 0: none
  float lora_scale_;
  bool indexed_;  // rows of `a` are taken by number
  int64_t element_, blocks_, panels_;
  int64_t panel_bytes_, records_bytes_ = 0, group_size_;  // the last two of weights in groups
  Choices choices_;
  KernelPointer rows_kernel_ = {}, project_kernel_ = {};
};

}  // namespace

gtn_status gemm_plan(Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  if (!gemm_serves(device, desc.format)) return unsupported_format(message);
  const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
  if (k > kMaxSize || n > kMaxSize || desc.groups > kMaxSize) {
    return fail(message, GTN_UNSUPPORTED, "weights of %lld times %lld x %lld: this backend takes up to %lld each way",
                static_cast<long long>(desc.groups), static_cast<long long>(k), static_cast<long long>(n),
                static_cast<long long>(kMaxSize));
  }
  GemmPlan* created = new (std::nothrow) GemmPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  if (const gtn_status status = created->prepare_kernels(message); status != GTN_OK) {
    delete created;
    return status;
  }
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::gpu
