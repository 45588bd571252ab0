// Convolutions in one to three spatial dimensions, with a batch normalisation in the weights, bias, activation and residual.
//
// A run sees all of them as three-dimensional, and x with its channels side by side, in the type that the products read;
// where x is not so (channels first, or rounding), a part of the batch at a time is rewritten that way first. Then a grid of
// blocks of out, positions by panels of packed weights, is computed, each block by one call of one worker.
//
// Every element of out is one chain of multiply-adds over kernel positions and then channels in order, of pairs or of 32 at a time
// where those of cpu/gemm/gemm.h are, whatever the block or the thread it falls into.
#pragma once

#include "cpu/backend.h"
#include "cpu/gemm/gemm.h"

namespace gatun::cpu {

// Sizes by spatial dimension; those that are not there are in front, of size and kernel 1.
struct ConvShape {
  int64_t size[3], out_size[3];
  int64_t kernel[3], stride[3], dilation[3], pad[3];
  int64_t positions;          // of a kernel
  int64_t groups;
  int64_t channels, columns;  // of a group: of x, of out; depthwise runs: columns of all groups
};

struct ConvRun {
  ConvShape shape;
  int32_t format, out_dtype, activation;
  bool residual_first;
  const void* x;             // of this part of the batch; BF16: as GemmLayout says; depthwise: of x_dtype
  int32_t x_dtype;           // depthwise
  int64_t x_strides[4];      // elements: batch, spatial
  int64_t x_channel_stride;  // depthwise
  int64_t pitch;             // elements from each position to the next where a kernel of one position reads x in place; else 0
  int64_t batch;             // of this part
  const unsigned char* panels;
  int64_t panel_bytes, group_panels;
  const float* shift;        // [groups][group_panels * panel]
  const float* bias;         // may be null
  const void* residual;      // may be null
  void* out;
  int64_t out_strides[5];    // elements: batch, channels, spatial
};

// Positions of out, counted through the batch, by panels of one group.
struct ConvBlock {
  int64_t group;
  int64_t row, rows;
  int64_t panel, panels;
};

// x as products read it: [batch, spatial, channels] from any strides. A line is the last spatial dimension.
struct ConvLines {
  int32_t format, x_dtype;
  int64_t channels;
  int64_t size[3];
  const void* x;
  int64_t strides[5];  // elements: batch, channels, spatial
  void* to;
};

struct ConvKernels {
  void (*prepare)(const ConvLines& lines, int64_t first, int64_t count);
  // Bytes of a worker's scratch memory; a multiple of 64.
  int64_t (*scratch_bytes)(int32_t format, int64_t k, int64_t rows, int64_t panels);
  void (*compute)(const ConvRun& run, const ConvBlock& block, void* scratch);
  int64_t (*depthwise_scratch_bytes)(const ConvShape& shape);
  // Positions `first` to first + count - 1 of out, counted through the batch, in all channels.
  void (*depthwise)(const ConvRun& run, int64_t first, int64_t count, void* scratch);
  // The same where columns are side by side in x and out: planes of a channel, counted through depths, channels and the batch.
  int64_t (*planes_scratch_bytes)(const ConvShape& shape);
  void (*depthwise_planes)(const ConvRun& run, int64_t first, int64_t count, void* scratch);
};

struct ConvNorm;  // fold.h

gtn_status conv_plan(const Device& device, const gtn_conv_desc& desc, Plan** plan, gtn_plan_info* info,
                     gtn_message* message);

// An object that gemm_weights_destroy frees: PackedWeights of a matrix [kernel positions * channels, columns] for each group;
// depthwise, of one FP32 matrix [kernel positions, channels].
gtn_status conv_weights_pack(const Device& device, const gtn_conv_weights_desc& desc, const void* source, const ConvNorm& norm,
                             void** weights, gtn_weights_info* info, gtn_message* message);

}  // namespace gatun::cpu
