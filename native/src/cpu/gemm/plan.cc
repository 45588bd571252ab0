// GEMM plans: checks of what a run brings, the preparation of rows, and the grid of blocks.
#include <cstdio>
#include <cstring>
#include <new>

#include "core/message.h"
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/grid.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// Rows are prepared in parts of about this size, so that the workspace does not grow with their number.
constexpr int64_t kPreparedBytes = int64_t{16} << 20;
constexpr int64_t kPrepareTaskElements = 32768;

// Row tiles that a task projects at least: a slice of lora_a is widened once for all of them.
constexpr int64_t kProjectionTiles = 4;

constexpr int64_t kMaxSize = int64_t{1} << 40;

const char* format_name(int32_t format) {
  switch (format) {
    case GTN_F32:
      return "f32";
    case GTN_BF16:
      return "bf16";
    case GTN_F16:
      return "f16";
    case GTN_S8:
      return "int8";
    case GTN_F8E4M3:
      return "f8e4m3";
    case GTN_F8E5M2:
      return "f8e5m2";
    case GTN_U4:
      return "u4";
    case GTN_BF16_2OF4:
      return "bf16_2of4";
    default:
      return "u8";
  }
}

// Rows of one group among those that were prepared together, and their place among the tasks.
struct Segment {
  int64_t group, row, rows;
  int64_t first_task;
  Grid grid;
};

class GemmPlan final : public Plan {
 public:
  GemmPlan(const Device& device, const gtn_gemm_desc& desc)
      : device_(device), kernels_(*device.level->kernels->gemm), layout_(kernels_.layout) {
    format_ = desc.format;
    const bool tiled = layout_.tiled_row_tile > 0 && (format_ == GTN_BF16 || format_ == GTN_S8);
    if (tiled) {
      layout_.row_tile = layout_.tiled_row_tile;
      layout_.block_rows = layout_.tiled_block_rows;
    }
    a_dtype_ = desc.a.dtype;
    a_bytes_ = a_dtype_ == GTN_F32 ? 4 : a_dtype_ == GTN_U8 ? 1 : 2;
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
    element_ = format_ == GTN_S8     ? kernels_.layout.int8_row_bytes
               : format_ == GTN_BF16 ? kernels_.layout.bf16_row_bytes
                                     : static_cast<int64_t>(sizeof(float));
    const int64_t rows_together = tiled ? layout_.row_tile / 2 : layout_.row_tile;  // of one load of a tile of AMX, or of a loop
    int64_t stride_bytes = round_up(k_ * element_, 64);
    while (!spreads_rows(stride_bytes, rows_together)) stride_bytes += 64;  // 7 times at most
    stride_ = stride_bytes / element_;
    // An odd k leaves half a pair, which prepared rows fill up.
    const bool pairs = a_dtype_ == GTN_BF16 && element_ == 2 && k_ % 2 == 0;
    // And one of quantized rows that is no multiple of what an instruction sums leaves a part of that.
    const bool bytes = a_dtype_ == GTN_U8 && kernels_.layout.int8_rows_are_u8 && k_ % kernels_.layout.int8_group == 0;
    same_type_ = (format_ == GTN_BF16 ? pairs : format_ == GTN_S8 ? bytes : a_dtype_ == GTN_F32) && !indexed_;
    as_they_are_ = same_type_ && spreads_rows(a_stride_ % 4096 * element_, rows_together);
  }

  void describe(const gtn_gemm_desc& desc, gtn_plan_info* info) const {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double m = real(m_), n = real(n_), k = real(k_), rank = real(rank_);
    const double a_bytes = real(a_bytes_), out_bytes = out_dtype_ == GTN_F32 ? 4 : 2;
    // Of quantized weights with the scales, and without zero points, which only weights know to have.
    const double groups_k = real(is_quantized(format_) ? ceil_div(k_, desc.group_size) : 0);
    const double weight_bytes = format_ == GTN_U4                           ? 0.5
                                : format_ == GTN_BF16_2OF4                  ? 1.125
                                : format_ == GTN_F32                        ? 4
                                : format_ == GTN_BF16 || format_ == GTN_F16 ? 2
                                                                            : 1;
    const double column_bytes = format_ == GTN_S8 ? 8 : is_f8(format_) ? 4 : 0;  // scales, and sums of S8
    const double lora_bytes = lora_dtype_ == GTN_F32 ? 4 : 2;
    // A row reads one matrix and one row of `a`, so of more than there are rows some are not read.
    const double matrices = groups_ == 0 ? 1 : real(groups_ < m_ ? groups_ : m_);
    const double rows_a = real(m_a_ < m_ ? m_a_ : m_);
    info->op = GTN_OP_GEMM;
    char name[32];
    std::snprintf(name, sizeof name, "gemm.%s%s", format_name(format_),
                  groups_ > 0 ? ".grouped" : rank_ > 0 ? ".lora" : "");
    name_kernel(info, device_, name);
    info->flops = (format_ == GTN_BF16_2OF4 ? 1 : 2) * m * n * k + 2 * m * rank * (k + n);
    info->bytes = rows_a * (k * a_bytes + (a_dtype_ == GTN_U8 ? 8 : 0)) +
                  matrices * n * (k * weight_bytes + groups_k * 4 + column_bytes) +
                  m * n * out_bytes * (desc.has_residual ? 2 : 1) + (desc.has_bias ? 4 * matrices * n : 0) +
                  (groups_ > 0 ? 8 * (real(groups_) + 1) : 0) + (indexed_ ? 4 * m : 0) + rank * (k + n) * lora_bytes;
    info->workspace_bytes = Workspace(*this, m_).bytes;
  }

  gtn_status run(Stream& stream, const void* arguments, gtn_message* message) const override {
    const gtn_gemm_args& args = *static_cast<const gtn_gemm_args*>(arguments);
    const PackedWeights& weights = *static_cast<const PackedWeights*>(args.weights);
    if (weights.layout != &kernels_.layout) {
      return fail(message, GTN_INVALID_ARGUMENT, "weights were packed for another level than the plan's, %s",
                  device_.level->name);
    }
    if (args.rows == 0 || n_ == 0) return GTN_OK;
    const Workspace workspace(*this, args.rows);
    unsigned char* scratch = static_cast<unsigned char*>(stream.scratch(workspace.bytes));
    if (scratch == nullptr) {
      return fail(message, GTN_OUT_OF_MEMORY, "no memory for %lld bytes of workspace",
                  static_cast<long long>(workspace.bytes));
    }

    // Both arrays are copied and the copies checked: another thread may write to the originals while the run reads.
    const int64_t whole[] = {0, args.rows};
    const int64_t* offsets = whole;
    Segment one;
    Segment* segments = &one;
    if (groups_ > 0) {
      offsets = reinterpret_cast<const int64_t*>(scratch + workspace.offsets_at);
      segments = reinterpret_cast<Segment*>(scratch + workspace.segments_at);
      std::memcpy(scratch + workspace.offsets_at, args.group_offsets, static_cast<size_t>(groups_ + 1) * 8);
      if (const gtn_status status = check_offsets(offsets, args.rows, message); status != GTN_OK) return status;
    }
    const int32_t* index = nullptr;
    if (indexed_) {
      index = reinterpret_cast<const int32_t*>(scratch + workspace.index_at);
      std::memcpy(scratch + workspace.index_at, args.row_index, static_cast<size_t>(args.rows) * 4);
      if (const gtn_status status = check_index(index, args, message); status != GTN_OK) return status;
    }
    const int64_t all = offsets[groups_ > 0 ? groups_ : 1];

    GemmRun run = {};
    run.format = format_;
    run.out_dtype = out_dtype_;
    run.activation = activation_;
    run.k = k_;
    run.n = n_;
    run.panels = weights.data;
    run.panel_bytes = weights.panel_bytes;
    run.column_scales = weights.scales;
    run.column_sums = weights.sums;
    run.group_size = weights.group_size;
    run.zeros_at = weights.zeros_at;
    run.bias = static_cast<const float*>(args.bias);
    run.out_stride = out_stride_;
    run.rank = rank_;
    run.lora_dtype = lora_dtype_;
    run.lora_b = args.lora_b;
    GemmRows rows = {};
    rows.format = format_;
    rows.a_dtype = a_dtype_;
    rows.k = k_;
    rows.a_stride = a_stride_;
    rows.prepared = scratch;
    rows.prepared_stride = stride_;
    rows.scales = reinterpret_cast<float*>(scratch + workspace.scales_at);
    rows.zeros = reinterpret_cast<int32_t*>(scratch + workspace.zeros_at);
    GemmProjection projection = {};
    projection.a_dtype = a_dtype_;
    projection.lora_dtype = lora_dtype_;
    projection.k = k_;
    projection.rank = rank_;
    projection.scale = lora_scale_;
    projection.a_stride = a_stride_;
    projection.lora_a = args.lora_a;
    projection.to = reinterpret_cast<float*>(scratch + workspace.projected_at);
    projection.stride = workspace.rows_at_once * kernels_.layout.panel;
    run.projected = projection.to;
    run.projected_stride = projection.stride;
    const int64_t a_bytes = a_bytes_, out_bytes = out_dtype_ == GTN_F32 ? 4 : 2;
    const bool in_place = as_they_are(args.rows);
    const auto worker_scratch = [&](int worker) {
      return scratch + workspace.workers_at + worker * workspace.worker_bytes;
    };

    int64_t group = 0;  // the first that has rows from `first` on
    for (int64_t first = 0; first < all; first += workspace.rows_at_once) {
      const int64_t left = all - first;
      const int64_t here = left < workspace.rows_at_once ? left : workspace.rows_at_once;
      const unsigned char* a = static_cast<const unsigned char*>(args.a);
      if (k_ > 0 && index == nullptr) a += first * a_stride_ * a_bytes;
      const int64_t skipped = index == nullptr ? first : 0;
      const float* a_scales = args.scales == nullptr ? nullptr : args.scales + skipped;
      const int32_t* a_zeros = args.zero_points == nullptr ? nullptr : args.zero_points + skipped;
      if (in_place) {
        run.rows = a;
        run.row_stride = a_stride_;
        run.row_scales = a_scales;
        run.row_zeros = a_zeros;
      } else {
        rows.a = a;
        rows.a_scales = a_scales;
        rows.a_zeros = a_zeros;
        rows.index = index == nullptr ? nullptr : index + first;
        run.rows = rows.prepared;
        run.row_stride = stride_;
        run.row_scales = rows.scales;
        run.row_zeros = rows.zeros;
      }
      projection.a = a;
      const int64_t batch = kPrepareTaskElements / (k_ + 1) + 1;
      const int64_t preparations = in_place ? 0 : ceil_div(here, batch);
      const int64_t height = projection_rows(), heights = ceil_div(here, height);
      const int64_t projections = heights * ceil_div(rank_, kernels_.layout.panel);
      parallel(device_.threads, preparations + projections, [&](int64_t task, int worker) {
        if (task < preparations) {
          const int64_t from = task * batch;
          kernels_.prepare(rows, from, here - from < batch ? here - from : batch);
        } else {
          const int64_t from = (task - preparations) % heights * height, panel = (task - preparations) / heights;
          const int64_t count = here - from < height ? here - from : height;
          kernels_.project(projection, from, count, panel, worker_scratch(worker));
        }
      });
      run.out = static_cast<unsigned char*>(args.out) + first * out_stride_ * out_bytes;
      if (args.residual != nullptr) {
        run.residual = static_cast<const unsigned char*>(args.residual) + first * out_stride_ * out_bytes;
      }
      while (offsets[group + 1] <= first) ++group;
      int64_t count = 0, tasks = 0;
      for (int64_t g = group; first + here > offsets[g]; ++g) {
        Segment& segment = segments[count];
        segment.group = g;
        segment.row = offsets[g] > first ? offsets[g] - first : 0;
        segment.rows = (offsets[g + 1] < first + here ? offsets[g + 1] - first : here) - segment.row;
        if (segment.rows > 0) {
          segment.first_task = tasks;
          segment.grid = Grid(layout_, format_, segment.rows, weights.panels, k_,
                              ceil_div(kTasks * segment.rows, here));
          tasks += segment.grid.row_blocks * segment.grid.panel_blocks;
          ++count;
        }
        if (offsets[g + 1] == all) break;
      }
      // Row blocks vary fastest: tasks that run side by side share panels in the common cache.
      parallel(device_.threads, tasks, [&](int64_t task, int worker) {
        const Segment& segment = find(segments, count, task);
        const Grid& grid = segment.grid;
        const int64_t block_row = (task - segment.first_task) % grid.row_blocks * grid.block_rows;
        const int64_t rows_left = segment.rows - block_row;
        GemmBlock block;
        block.row = segment.row + block_row;
        block.rows = rows_left < grid.block_rows ? rows_left : grid.block_rows;
        block.panel = (task - segment.first_task) / grid.row_blocks * grid.block_panels;
        const int64_t panels_left = weights.panels - block.panel;
        block.panels = panels_left < grid.block_panels ? panels_left : grid.block_panels;
        if (segment.group == 0) return kernels_.compute(run, block, worker_scratch(worker));
        GemmRun of_group = run;
        of_group.panels += segment.group * weights.panels * weights.panel_bytes;
        if (weights.scales != nullptr) of_group.column_scales += segment.group * weights.column_stride;
        if (weights.sums != nullptr) of_group.column_sums += segment.group * weights.column_stride;
        if (of_group.bias != nullptr) of_group.bias += segment.group * n_;
        kernels_.compute(of_group, block, worker_scratch(worker));
      });
    }
    return GTN_OK;
  }

 private:
  gtn_status check_offsets(const int64_t* offsets, int64_t rows, gtn_message* message) const {
    if (offsets[0] != 0) {
      return fail(message, GTN_INVALID_ARGUMENT, "group_offsets[0] is %lld, expected 0",
                  static_cast<long long>(offsets[0]));
    }
    for (int64_t g = 1; g <= groups_; ++g) {
      if (offsets[g] < offsets[g - 1] || offsets[g] > rows) {
        return fail(message, GTN_INVALID_ARGUMENT,
                    "group_offsets[%lld] is %lld, expected %lld, the offset before it, to %lld, the rows of the run",
                    static_cast<long long>(g), static_cast<long long>(offsets[g]),
                    static_cast<long long>(offsets[g - 1]), static_cast<long long>(rows));
      }
    }
    return GTN_OK;
  }

  static gtn_status check_index(const int32_t* index, const gtn_gemm_args& args, gtn_message* message) {
    for (int64_t r = 0; r < args.rows; ++r) {
      if (index[r] < 0 || index[r] >= args.rows_a) {
        return fail(message, GTN_INVALID_ARGUMENT, "row_index[%lld] is %d, expected 0 to rows_a - 1 = %lld",
                    static_cast<long long>(r), index[r], static_cast<long long>(args.rows_a - 1));
      }
    }
    return GTN_OK;
  }

  // The segment of a task: the last that does not start after it.
  static const Segment& find(const Segment* segments, int64_t count, int64_t task) {
    int64_t low = 0;
    while (count - low > 1) {
      const int64_t middle = low + (count - low) / 2;
      (segments[middle].first_task <= task ? low : count) = middle;
    }
    return segments[low];
  }

  // Rows of a task that projects: enough to be worth handing out, in whole tiles.
  int64_t projection_rows() const {
    const GemmLayout& layout = kernels_.layout;
    const int64_t worth = kTaskWork / ((k_ + 1) * layout.panel);
    return round_up(worth > kProjectionTiles * layout.row_tile ? worth : kProjectionTiles * layout.row_tile,
                    layout.row_tile);
  }

  // Whether the microkernels read `a` itself. A few rows do not get in each other's way.
  bool as_they_are(int64_t rows) const { return as_they_are_ || (same_type_ && rows < 4); }

  // The workspace of a run of `rows` rows: rows as they are prepared and projected, their scales and zero points, copies
  // of the arrays, segments, and each worker's sums.
  struct Workspace {
    int64_t rows_at_once, scales_at, zeros_at, projected_at, offsets_at, segments_at, index_at, workers_at;
    int64_t worker_bytes, bytes;

    Workspace(const GemmPlan& plan, int64_t rows) {
      const GemmLayout& layout = plan.layout_;
      const int64_t block_rows = layout.block_rows;
      const bool in_place = plan.as_they_are(rows);
      const int64_t row_bytes = in_place ? 0 : plan.stride_ * plan.element_;
      const int64_t projected_bytes = round_up(plan.rank_, layout.panel) * 4;
      rows_at_once = rows;
      if (row_bytes + projected_bytes > 0) {
        int64_t most = kPreparedBytes / (row_bytes + projected_bytes) / block_rows * block_rows;
        if (most < block_rows) most = block_rows;
        if (rows_at_once > most) rows_at_once = most;
      }
      scales_at = round_up(rows_at_once * row_bytes, 64);
      zeros_at = scales_at + (in_place ? 0 : round_up(rows_at_once * 4, 64));
      projected_at = zeros_at + (in_place ? 0 : round_up(rows_at_once * 4, 64));
      offsets_at = projected_at + round_up(rows_at_once * projected_bytes, 64);
      segments_at = offsets_at + (plan.groups_ > 0 ? round_up((plan.groups_ + 1) * 8, 64) : 0);
      index_at = segments_at + plan.groups_ * static_cast<int64_t>(sizeof(Segment));
      workers_at = round_up(index_at + (plan.indexed_ ? rows * 4 : 0), 64);
      worker_bytes = plan.kernels_.scratch_bytes(plan.format_, plan.k_, rows < block_rows ? rows : block_rows,
                                                 Grid::max_panels(layout), plan.rank_);
      bytes = workers_at + worker_bytes * plan.device_.threads;
    }
  };

  const Device& device_;
  const GemmKernels& kernels_;
  GemmLayout layout_;  // the level's, with the rows of this format's tiles and blocks
  int32_t format_, a_dtype_, out_dtype_, activation_, lora_dtype_;
  int64_t m_, m_a_, k_, n_, a_bytes_, a_stride_, out_stride_;
  int64_t groups_, rank_;     // 0: none
  float lora_scale_;
  bool indexed_;              // rows of `a` are taken by number
  int64_t element_, stride_;  // of prepared rows
  bool same_type_;            // microkernels read the rows' type, where they are
  bool as_they_are_;          // and lie well for any number of them
};

}  // namespace

gtn_status gemm_plan(const Device& device, const gtn_gemm_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message) {
  const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
  if (k > kMaxSize || n > kMaxSize) {
    return fail(message, GTN_UNSUPPORTED, "weights of %lld x %lld: this backend takes up to 2^40 each way",
                static_cast<long long>(k), static_cast<long long>(n));
  }
  if (desc.groups > kMaxSize || (desc.has_row_index != 0 && desc.out.shape[0] > kMaxSize)) {
    return fail(message, GTN_UNSUPPORTED, "%s: is %lld, this backend takes up to 2^40",
                desc.groups > kMaxSize ? "groups" : "rows that are taken by number",
                static_cast<long long>(desc.groups > kMaxSize ? desc.groups : desc.out.shape[0]));
  }
  GemmPlan* created = new (std::nothrow) GemmPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
