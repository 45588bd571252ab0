// GEMM plans: checks of what a run brings, the preparation of rows, and the grid of blocks.
#include <new>

#include "core/message.h"
#include "cpu/gemm/gemm.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// The columns of the largest block of `out` of one task: enough that fetching its rows is a small part of the time. The
// level says how many rows.
constexpr int64_t kBlockColumns = 256;

// Enough tasks to keep 64 threads busy to the end, as long as each is worth handing out: at least some 5 to 10 us of
// multiply-adds, against about 1 us for a task and a few for waking a worker.
constexpr int64_t kTasks = 128;
constexpr int64_t kTaskWork = int64_t{1} << 19;
constexpr int64_t kTaskWorkInt8 = int64_t{1} << 20;

// Rows are prepared in parts of about this size, so that the workspace does not grow with their number.
constexpr int64_t kPreparedBytes = int64_t{16} << 20;
constexpr int64_t kPrepareTaskElements = 32768;

constexpr int64_t kMaxSize = int64_t{1} << 40;

int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }
int64_t round_up(int64_t value, int64_t to) { return ceil_div(value, to) * to; }

// Whether the rows of a tile stay out of each other's way in an L1 cache, whose sets repeat every 4 KB: no two closer
// than 256 bytes, modulo that. At a stride of 4 KB all of them, and the weights, compete for one set.
bool spreads_rows(int64_t stride_bytes, int64_t rows) {
  constexpr int64_t kSets = 4096, kApart = 256;
  for (int64_t r = 1; r < rows; ++r) {
    const int64_t apart = r * (stride_bytes % kSets) % kSets;
    if (apart < kApart || apart > kSets - kApart) return false;
  }
  return true;
}

// How `rows` rows by `panels` panels are cut into blocks. It depends on sizes alone.
struct Grid {
  int64_t block_rows, block_panels;
  int64_t row_blocks, panel_blocks;

  Grid(const GemmLayout& layout, int32_t format, int64_t rows, int64_t panels, int64_t k) {
    // Blocks of equal size, give or take a row tile.
    auto cut_rows = [&](int64_t most) {
      row_blocks = ceil_div(rows, most);
      block_rows = round_up(ceil_div(rows, row_blocks), layout.row_tile);
      row_blocks = ceil_div(rows, block_rows);
    };
    // A single row takes four panels at once.
    const int64_t unit = rows == 1 ? 4 : 1;
    auto cut_panels = [&](int64_t most) {
      panel_blocks = ceil_div(panels, most);
      block_panels = round_up(ceil_div(panels, panel_blocks), unit);
      panel_blocks = ceil_div(panels, block_panels);
    };
    cut_rows(layout.block_rows);
    cut_panels(max_panels(layout));
    // Few rows wait for the weights: they take about as long as four.
    const int64_t task_work = format == GTN_S8 ? kTaskWorkInt8 : kTaskWork;
    auto worth_halving = [&] {
      const int64_t high = block_rows < rows ? block_rows : rows;
      const int64_t depth = k < 16 ? 16 : k;
      return row_blocks * panel_blocks < kTasks &&
             (high < 4 ? 4 : high) * block_panels * layout.panel * depth >= 2 * task_work;
    };
    // Panels first, then rows, then the last panels: each costs a little efficiency, in this order.
    while (block_panels > unit && block_panels * layout.panel > 64 && worth_halving()) {
      cut_panels(ceil_div(block_panels, 2));
    }
    while (block_rows > 2 * layout.row_tile && worth_halving()) cut_rows(ceil_div(block_rows, 2));
    while (block_panels > unit && worth_halving()) cut_panels(ceil_div(block_panels, 2));
  }

  static int64_t max_panels(const GemmLayout& layout) {
    const int64_t panels = kBlockColumns / layout.panel;
    return panels < 4 ? 4 : panels;
  }
};

class GemmPlan final : public Plan {
 public:
  GemmPlan(const Device& device, const gtn_gemm_desc& desc) : device_(device), kernels_(*device.level->kernels->gemm) {
    format_ = desc.format;
    a_dtype_ = desc.a.dtype;
    out_dtype_ = desc.out.dtype;
    activation_ = desc.activation;
    m_ = desc.a.shape[0];
    k_ = desc.a.shape[1];
    n_ = desc.out.shape[1];
    a_stride_ = k_ == 0 ? 0 : desc.a.strides[0];
    out_stride_ = desc.out.strides[0];
    element_ = format_ == GTN_S8 ? kernels_.layout.int8_row_bytes : static_cast<int64_t>(sizeof(float));
    int64_t stride_bytes = round_up(k_ * element_, 64);
    while (!spreads_rows(stride_bytes, kernels_.layout.row_tile)) stride_bytes += 64;  // 7 times at most
    stride_ = stride_bytes / element_;
    same_type_ = format_ == GTN_F32 && a_dtype_ == GTN_F32;
    as_they_are_ = same_type_ && spreads_rows(a_stride_ % 4096 * 4, kernels_.layout.row_tile);
  }

  void describe(const gtn_gemm_desc& desc, gtn_plan_info* info) const {
    const double m = static_cast<double>(m_), n = static_cast<double>(n_), k = static_cast<double>(k_);
    const double a_bytes = a_dtype_ == GTN_F32 ? 4 : 2, out_bytes = out_dtype_ == GTN_F32 ? 4 : 2;
    const double weight_bytes = format_ == GTN_S8 ? 1 : format_ == GTN_BF16 ? 2 : 4;
    info->op = GTN_OP_GEMM;
    name_kernel(info, device_, format_ == GTN_S8 ? "gemm.int8" : format_ == GTN_BF16 ? "gemm.bf16" : "gemm.f32");
    info->flops = 2 * m * n * k;
    info->bytes = m * k * a_bytes + k * n * weight_bytes + m * n * out_bytes * (desc.has_residual ? 2 : 1) +
                  (desc.has_bias ? 4 * n : 0) + (format_ == GTN_S8 ? 8 * n : 0);
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
    run.bias = static_cast<const float*>(args.bias);
    run.out_stride = out_stride_;
    GemmRows rows = {};
    rows.format = format_;
    rows.a_dtype = a_dtype_;
    rows.k = k_;
    rows.a_stride = a_stride_;
    rows.prepared = scratch;
    rows.prepared_stride = stride_;
    rows.scales = reinterpret_cast<float*>(scratch + workspace.scales_at);
    rows.zeros = reinterpret_cast<int32_t*>(scratch + workspace.zeros_at);
    const int64_t a_bytes = a_dtype_ == GTN_F32 ? 4 : 2, out_bytes = out_dtype_ == GTN_F32 ? 4 : 2;

    for (int64_t first = 0; first < args.rows; first += workspace.rows_at_once) {
      const int64_t left = args.rows - first;
      const int64_t here = left < workspace.rows_at_once ? left : workspace.rows_at_once;
      const unsigned char* a = static_cast<const unsigned char*>(args.a);
      if (k_ > 0) a += first * a_stride_ * a_bytes;
      if (as_they_are(args.rows)) {
        run.rows = a;
        run.row_stride = a_stride_;
      } else {
        rows.a = a;
        const int64_t batch = kPrepareTaskElements / (k_ + 1) + 1;
        parallel(device_.threads, ceil_div(here, batch), [&](int64_t task, int) {
          const int64_t from = task * batch;
          kernels_.prepare(rows, from, here - from < batch ? here - from : batch);
        });
        run.rows = rows.prepared;
        run.row_stride = stride_;
        run.row_scales = rows.scales;
        run.row_zeros = rows.zeros;
      }
      run.out = static_cast<unsigned char*>(args.out) + first * out_stride_ * out_bytes;
      if (args.residual != nullptr) {
        run.residual = static_cast<const unsigned char*>(args.residual) + first * out_stride_ * out_bytes;
      }
      const Grid grid(kernels_.layout, format_, here, weights.panels, k_);
      // Row blocks vary fastest: tasks that run side by side share panels in the common cache.
      parallel(device_.threads, grid.row_blocks * grid.panel_blocks, [&](int64_t task, int worker) {
        GemmBlock block;
        block.row = task % grid.row_blocks * grid.block_rows;
        block.rows = here - block.row < grid.block_rows ? here - block.row : grid.block_rows;
        block.panel = task / grid.row_blocks * grid.block_panels;
        const int64_t panels_left = weights.panels - block.panel;
        block.panels = panels_left < grid.block_panels ? panels_left : grid.block_panels;
        kernels_.compute(run, block, scratch + workspace.workers_at + worker * workspace.worker_bytes);
      });
    }
    return GTN_OK;
  }

 private:
  // Whether the microkernels read `a` itself. A few rows do not get in each other's way.
  bool as_they_are(int64_t rows) const { return as_they_are_ || (same_type_ && rows < 4); }

  // The workspace of a run of `rows` rows: prepared rows, their scales and zero points, and each worker's sums.
  struct Workspace {
    int64_t rows_at_once, scales_at, zeros_at, workers_at, worker_bytes, bytes;

    Workspace(const GemmPlan& plan, int64_t rows) {
      const int64_t block_rows = plan.kernels_.layout.block_rows;
      rows_at_once = rows;
      scales_at = zeros_at = workers_at = 0;
      if (!plan.as_they_are(rows)) {
        const int64_t row_bytes = plan.stride_ * plan.element_;
        int64_t most = kPreparedBytes / row_bytes / block_rows * block_rows;
        if (most < block_rows) most = block_rows;
        if (rows_at_once > most) rows_at_once = most;
        scales_at = round_up(rows_at_once * row_bytes, 64);
        zeros_at = scales_at + round_up(rows_at_once * 4, 64);
        workers_at = zeros_at + round_up(rows_at_once * 4, 64);
      }
      worker_bytes = plan.kernels_.scratch_bytes(plan.format_, plan.k_, rows < block_rows ? rows : block_rows,
                                                 Grid::max_panels(plan.kernels_.layout));
      bytes = workers_at + worker_bytes * plan.device_.threads;
    }
  };

  const Device& device_;
  const GemmKernels& kernels_;
  int32_t format_, a_dtype_, out_dtype_, activation_;
  int64_t m_, k_, n_, a_stride_, out_stride_;
  int64_t element_, stride_;  // of prepared rows
  bool same_type_;            // rows are FP32 and stay so
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
  GemmPlan* created = new (std::nothrow) GemmPlan(device, desc);
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  created->describe(desc, info);
  *plan = created;
  return GTN_OK;
}

}  // namespace gatun::cpu
