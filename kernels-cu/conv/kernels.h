// What the host and the kernels of convolutions share: arguments, and the tables of tiles.
//
// Convolutions have three spatial dimensions here; those that an image lacks are in front, of size and kernel 1.
#pragma once

#include <cstdint>

#include "gemm/kernels.h"

namespace gatun::gpu::conv {

// A divisor known before a launch. n / d for n below 2^31 is a product and a shift (Granlund and Montgomery 1994, "Division by
// Invariant Integers using Multiplication", section 4): with l = ceil(log2 d) and m = ceil(2^(31 + l) / d), n m / 2^(31 + l).
struct Divisor {
  uint32_t by = 1, factor = uint32_t{1} << 31;
  int32_t shift = 31;

  Divisor() = default;
  explicit Divisor(int64_t d) : by(d > 0 ? static_cast<uint32_t>(d) : 1) {
    while ((int64_t{1} << (shift - 31)) < d) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << shift) + by - 1) / by);
  }
};

// Positions of out, counted through the batch.
struct Places {
  Divisor size[3];  // of out
  int32_t stride[3], pad[3];
  int64_t to[4];    // elements of out: batch, spatial
};

// What follows the sums; see finish.h.
struct ConvFinishArgs {
  int64_t columns;  // of a group
  const float* shift;     // [channels of out]
  const float* bias;      // likewise; may be null
  const void* residual;   // may be null
  void* out;
  int64_t channel_stride;  // elements of out
  int32_t out_dtype, activation, residual_first;
  int32_t vector;  // 1: channels of out and residual are side by side, and runs of 4 aligned
};

// Tiles of an implicit product. Of `tiles` what is of out, of groups of rows and of low rank is not used; `a` is x in the type
// that products read, channels side by side and filled up to whole chunks of 16 bytes.
struct ConvArgs {
  gemm::TilesArgs tiles;
  Places places;
  ConvFinishArgs finish;
  int32_t groups;
  int32_t planes;       // 1: positions of out are side by side rather than channels
  int32_t x_strides[4];  // chunks of 16 bytes: batch, spatial
  int32_t size[3], dilation[3];
  Divisor chunks;       // of a kernel position of a group
  Divisor kernel[2];    // its middle and its last size
  int32_t positions;    // of the kernel
};

// Sums of splits of k, of one group.
struct ConvReduceArgs {
  ConvArgs conv;
  int32_t splits;
};

// x rewritten as tiles read it: [positions][groups][channels, filled up with zeros].
struct PrepareArgs {
  const void* x;
  int64_t strides[5];  // elements: batch, channels, spatial
  Divisor size[3];
  int64_t positions;   // through the batch
  int32_t groups, channels, filled;  // channels: of a group
  void* to;
};

// Depthwise; see depthwise.cu.
struct DepthwiseArgs {
  const void* x;
  const float* weights;  // [positions][columns, filled up to 4]
  int64_t channels, filled;
  int64_t units;   // of work
  int64_t lines;   // of a unit's dimension: sets of kPixels
  int64_t x_strides[5], out_strides[5];  // elements: batch, channels, spatial
  int32_t size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
  int32_t round;   // 1: x in FP32 is rounded to BF16
  int32_t vector;  // 1: four channels of x lie side by side, aligned
  ConvFinishArgs finish;
};

using gemm::Variant;
using gemm::VariantTable;
VariantTable f32_variants();
VariantTable bf16_variants();

constexpr int kPrepareThreads = 256, kPrepareTile = 32;
constexpr int kPrepareShared = kPrepareTile * (kPrepareTile + 1) * 4;
constexpr int kReduceThreads = 256;
constexpr int kDepthwiseThreads = 128, kPixels = 4, kChannels = 4;

// From x_dtype to `dtype`, F32 or BF16.
KernelPointer prepare_kernel(int32_t x_dtype, int32_t dtype);
KernelPointer reduce_kernel();
// planes: a thread has positions of one channel, else four channels of each.
KernelPointer depthwise_kernel(int32_t x_dtype, bool planes);

}  // namespace gatun::gpu::conv
