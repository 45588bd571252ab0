// GEMM: out[m, n] = activation(a[m, k] * w[k, n] + low-rank product + bias[n]) + residual[m, n], with weights packed once, for FP32,
// BF16, F16 and INT8 (u8 rows by s8 weights).
//
// A run is up to five launches: rows are prepared where tiles cannot read them as they are (rows.h); the tiles of each group are
// counted; the rows of a low-rank product are projected (low_rank.h); tiles are multiplied (tile.h, products.h) and finished
// (epilogue.h); and where k was split, the sums of the splits are added in order and finished. A large product of rows that lie
// well is one launch.
//
// Cost: 2 m n k operations; m k + k n elements read and m n written once from memory. From L2 a tile reads (rows + columns) k
// elements for rows * columns * k multiply-adds.
//
// What binds (predictions from data sheets, for BF16, and F16 likewise):
//   A100  312 TFLOPS, 1.56 TB/s: memory below 200 operations a byte, that is below some 200 rows where n and k are large. Per
//         multiprocessor 1024 multiply-adds a cycle: a tile of 128 x 128 by warps of 64 x 32 needs 1024 cycles for a block of k (64)
//         and as many of shared memory: balanced.
//   H100  989 TFLOPS, 3.35 TB/s: memory below 295 rows. mma.sync reaches about 0.62 of the unit's rate: 825 cycles for the same
//         tile, against 1024 of shared memory with warps of 64 x 32, and 768 with warps of 64 x 64. From L2 the tile
//         reads 32 KB for that, near what L2 gives (some 30 bytes a cycle), and 128 x 256 needs 0.75 of it. So 0.5 to 0.6 of the peak;
//         beyond that lies wgmma, which reads shared memory itself.
//   INT8 doubles the unit's rate and k of a block at the same bytes: the same limits of shared memory and L2, for twice the
//   operations. FP32 does 64 (A100) or 128 (H100) multiply-adds a cycle, 16 reads of 16 bytes for 256 of a thread's: the FP32
//   units bind from some 16 rows on.
//   Few rows: the weights' one way from memory. Each multiprocessor needs some 20 KB under way on H100; 3 stages of tiles of
//   16 x 32 with 4 blocks of k each have 48 KB under way, of which 16 KB of weights in each stage.
#include "gemm/kernels.h"

#include "gemm/low_rank.h"
#include "gemm/rows.h"
#include "gemm/tile.h"

namespace gatun::gpu::gemm {

// Where the tiles of each group start: a prefix sum over groups, by one block of threads. Offsets lie in device memory, where
// nobody has checked them: where they do not begin at 0, fall, or go beyond the rows of the run, there are no tiles at all, and
// `out` stays as it was.
GPU_KERNEL(kScheduleThreads, 1)
void schedule_tiles(ScheduleArgs args) {
  constexpr int kWarps = kScheduleThreads / kWarp;
  int32_t* found = reinterpret_cast<int32_t*>(shared());
  int32_t carry = 0;
  bool wrong = args.offsets[0] != 0;
  for (int base = 0; base < args.groups; base += kScheduleThreads) {
    const int g = base + thread();
    int32_t count = 0;
    if (g < args.groups) {
      const bool here = args.offsets[g] <= args.offsets[g + 1] && args.offsets[g + 1] <= args.rows_total;
      if (here) {
        const GroupRows rows = rows_of_group(args.offsets, g, args.first, args.rows);
        count = static_cast<int32_t>(blocks_of(rows.end - rows.begin, args.tile_rows));
      }
      wrong = wrong || !here;
    }
    int32_t upto = count;
    for (int n = 1; n < kWarp; n *= 2) {
      const int32_t before = shuffle_up(upto, n);
      if (lane() >= n) upto += before;
    }
    wrong = any(wrong);
    // The count of a warp, or -1 where offsets are wrong.
    if (lane() == kWarp - 1) found[warp()] = wrong ? -1 : upto;
    sync_threads();
    int32_t start = carry, total = 0;
    for (int w = 0; w < kWarps; ++w) {
      wrong = wrong || found[w] < 0;
      if (w < warp()) start += found[w];
      total += found[w];
    }
    if (g < args.groups) args.starts[g] = start + upto - count;
    carry = wrong ? 0 : carry + total;
    sync_threads();
  }
  if (thread() == 0) args.starts[args.groups] = carry;
}

// Adds the sums of the splits, in their order, and finishes. A thread has one element.
template <typename Sum>
GPU_DEVICE void reduce(const ReduceArgs& args) {
  const int64_t column = static_cast<int64_t>(block_x()) * kReduceThreads + thread();
  if (column >= args.finish.n) return;
  const ColumnFinish<Sum, 1> finish(args.finish, 0, 0, column);
  const Sum* partial = static_cast<const Sum*>(args.partial);
  for (int64_t row = block_y(); row < args.rows; row += grid_y()) {
    Sum sum[1] = {0};
    for (int s = 0; s < args.splits; ++s) sum[0] += partial[(s * args.rows + row) * args.stride + column];
    float x[1];
    finish.scale(row, sum, x);
    finish.write(row, x);
  }
}

GPU_KERNEL(kReduceThreads, 1)
void reduce_splits(ReduceArgs args) {
  if (args.s8 != 0) {
    reduce<int32_t>(args);
  } else {
    reduce<float>(args);
  }
}

namespace {

template <typename A>
KernelPointer rows_kernel_of(int32_t dtype) {
  switch (dtype) {
    case GTN_F32:
      return kernel_pointer(convert_rows<A, float>);
    case GTN_BF16:
      return kernel_pointer(convert_rows<A, Bf16>);
    case GTN_F16:
      return kernel_pointer(convert_rows<A, Half>);
    default:
      return kernel_pointer(quantize_rows<A>);
  }
}

template <typename A>
KernelPointer project_kernel_of(int32_t lora_dtype) {
  switch (lora_dtype) {
    case GTN_F32:
      return kernel_pointer(project_rows<A, float>);
    case GTN_BF16:
      return kernel_pointer(project_rows<A, Bf16>);
    default:
      return kernel_pointer(project_rows<A, Half>);
  }
}

}  // namespace

KernelPointer rows_kernel(int32_t a_dtype, int32_t dtype) {
  switch (a_dtype) {
    case GTN_F32:
      return rows_kernel_of<float>(dtype);
    case GTN_BF16:
      return rows_kernel_of<Bf16>(dtype);
    case GTN_F16:
      return rows_kernel_of<Half>(dtype);
    default:
      return kernel_pointer(copy_quantized_rows);
  }
}

KernelPointer schedule_kernel() { return kernel_pointer(schedule_tiles); }

KernelPointer project_kernel(int32_t a_dtype, int32_t lora_dtype) {
  switch (a_dtype) {
    case GTN_F32:
      return project_kernel_of<float>(lora_dtype);
    case GTN_BF16:
      return project_kernel_of<Bf16>(lora_dtype);
    default:
      return project_kernel_of<Half>(lora_dtype);
  }
}

KernelPointer reduce_kernel() { return kernel_pointer(reduce_splits); }

}  // namespace gatun::gpu::gemm
