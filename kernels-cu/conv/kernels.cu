// Beside the tiles of a convolution: x rewritten where tiles cannot read it as it is, and sums of splits added up.
//
// prepare_x   Where channels do not lie side by side, or not at multiples of 16 bytes, or have another type. Bytes: x once, and once
//             what it becomes, with channels of a group filled up to 16 bytes; no operations. Memory binds, if reads and writes
//             both take whole sectors: a block of threads takes 32 positions by 32 channels through shared memory, rows of 33
//             words, in the order in which x has them and then in that of channels.
// reduce      Adds the sums of the splits of k in their order, and finishes. A thread has an element; few rows alone are split.
#include "conv/kernels.h"

#include "conv/finish.h"
#include "conv/places.h"
#include "gpu/pack.h"

namespace gatun::gpu::conv {

template <typename X, typename To>
GPU_KERNEL(kPrepareThreads, 1)
void prepare_x(PrepareArgs args) {
  constexpr int kTile = kPrepareTile, kStep = kPrepareThreads / kTile;
  float* memory = reinterpret_cast<float*>(shared());
  const int fast = thread() % kTile, slow = thread() / kTile;
  const int64_t of_group = blocks_of(args.filled, kTile), tiles = blocks_of(args.positions, kTile) * of_group * args.groups;
  const bool side_by_side = args.strides[1] == 1;
  for (int64_t tile = block_x(); tile < tiles; tile += grid_x()) {
    // All channels of a group of positions before the next.
    const int64_t above = tile / of_group, group = above % args.groups;
    const int channel = static_cast<int>(tile - above * of_group) * kTile;
    const int64_t position = above / args.groups * kTile;
    const X* x = static_cast<const X*>(args.x) + group * args.channels * args.strides[1];
    for (int i = slow; i < kTile; i += kStep) {
      const int c = side_by_side ? fast : i, p = side_by_side ? i : fast;
      float value = 0.0f;
      if (position + p < args.positions && channel + c < args.channels) {
        uint32_t at[3], left = static_cast<uint32_t>(position + p);
        int64_t from = (channel + c) * args.strides[1];
        GPU_UNROLL
        for (int d = 2; d >= 0; --d) {
          at[d] = left;
          left = take(at[d], args.size[d]);
          from += at[d] * args.strides[2 + d];
        }
        value = to_float(x[from + left * args.strides[0]]);
      }
      memory[c * (kTile + 1) + p] = value;
    }
    sync_threads();
    To* to = static_cast<To*>(args.to) + (position * args.groups + group) * args.filled + channel + fast;
    for (int p = slow; p < kTile; p += kStep) {
      if (position + p < args.positions && channel + fast < args.filled) {
        from_float(memory[fast * (kTile + 1) + p], to + p * args.groups * static_cast<int64_t>(args.filled));
      }
    }
    sync_threads();  // before the next tile overwrites this one
  }
}

GPU_KERNEL(kReduceThreads, 1)
void reduce_convolution(ConvReduceArgs args) {
  const ConvArgs& conv = args.conv;
  const int64_t column = static_cast<int64_t>(block_x()) * kReduceThreads + thread();
  if (column >= conv.finish.columns) return;
  const ChannelFinish<1> finish(conv.finish, 0, column);
  const int64_t stride = static_cast<int64_t>(conv.tiles.panels) * gemm::kPanelColumns;
  const float* partial = static_cast<const float*>(conv.tiles.partial);
  for (int row = block_y(); row < conv.tiles.rows; row += grid_y()) {
    float sum[1] = {0.0f};
    for (int s = 0; s < args.splits; ++s) sum[0] += partial[(static_cast<int64_t>(s) * conv.tiles.rows + row) * stride + column];
    finish.write(place_of(conv.places, static_cast<uint32_t>(row)).to, sum);
  }
}

KernelPointer prepare_kernel(int32_t x_dtype, int32_t dtype) {
  if (x_dtype == GTN_F32) {
    return dtype == GTN_F32 ? kernel_pointer(prepare_x<float, float>) : kernel_pointer(prepare_x<float, Bf16>);
  }
  return dtype == GTN_F32 ? kernel_pointer(prepare_x<Bf16, float>) : kernel_pointer(prepare_x<Bf16, Bf16>);
}

KernelPointer reduce_kernel() { return kernel_pointer(reduce_convolution); }

}  // namespace gatun::gpu::conv
