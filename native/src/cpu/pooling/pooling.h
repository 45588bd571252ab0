// Pooling: the maximum or the mean of a window that moves over one to three spatial dimensions.
//
// A run sees all of them as three-dimensional, and is split into lines of out, the outputs of its last spatial dimension: of
// one channel each where positions lie side by side, of a slice of channels where channels do. Every element of out is found
// by one call of one worker, in an order that depends on shapes and strides alone.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// Sizes by spatial dimension; those that are not there are in front, of size and kernel 1.
struct PoolingRun {
  bool average, count_padding;
  int64_t size[3], out_size[3];
  int64_t kernel[3], stride[3], dilation[3], pad[3];
  const void* x;
  void* out;
  int64_t x_strides[5], out_strides[5];  // elements: batch, channels, spatial
  int64_t channels;
  int64_t slice;                         // channels of a line; 1 where positions lie side by side
  int64_t slices;                        // of all channels
};

// Channels of a line, at most, where they lie side by side: sixteen vectors of the widest level.
constexpr int64_t kPoolingSlice = 256;

struct PoolingKernels {
  // Lines first to first + count - 1, counted by batch, slices of channels, and the first two spatial dimensions of out.
  // Scratch memory holds a line of x in FP32, size[2] elements, for `across` alone.
  using Lines = void (*)(const PoolingRun& run, int64_t first, int64_t count, float* scratch);

  Lines across[3][3];  // one channel; by dtype of x and of out: FP32, BF16, F16
  Lines apart[3][3];   // one channel whose windows see little of a line of x
  Lines within[3][3];  // a slice of channels
};

gtn_status pooling_plan(const Device& device, const gtn_pooling_desc& desc, Plan** plan, gtn_plan_info* info,
                        gtn_message* message);

}  // namespace gatun::cpu
