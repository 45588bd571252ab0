// Packing of weights: once per matrix, on the host, block by block into a buffer that is copied to the device whenever it is full.
// The layout is that of kernels.h.
//
// S8: scale = amax / 127 of each output channel, q = clamp(rint(w / scale), -127, 127), ties to even; where the scale is 0 (amax = 0,
// or so small that a 127th of it is), q = 0.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "cpu/halves.h"
#include "gemm/kernels.h"
#include "gemm/plan.h"

namespace gatun::gpu {
namespace {

using namespace gemm;

constexpr int64_t kBufferBlocks = 2048;  // 16 MB

// One source matrix.
struct Source {
  const void* data;
  int32_t dtype;
  int64_t first;  // element of this matrix
  int64_t k, n, k_stride, n_stride;

  float at(int64_t p, int64_t column) const {
    const int64_t i = first + p * k_stride + column * n_stride;
    if (dtype == GTN_F32) return static_cast<const float*>(data)[i];
    const uint16_t half = static_cast<const uint16_t*>(data)[i];
    return dtype == GTN_BF16 ? cpu::from_bf16(half) : cpu::from_f16(half);
  }
};

// |value| below 2^22: the sum with 1.5 * 2^23 has no fraction bits, so the addition itself rounds, ties to even.
float round_to_even(float value) { return (value + 12582912.0f) - 12582912.0f; }

// Elements [columns][depth] of a block, in the order that the source lies in; zeros beyond its edges.
struct Elements {
  float x[kPanelColumns][kBlockBytes];
  int64_t columns, depth;

  Elements(const Source& source, int64_t k, int64_t column, int64_t most) {
    columns = source.n - column < kPanelColumns ? source.n - column : kPanelColumns;
    depth = source.k - k < most ? source.k - k : most;
    if (columns < kPanelColumns || depth < most) std::memset(x, 0, sizeof x);
    if (source.n_stride <= source.k_stride) {
      for (int64_t p = 0; p < depth; ++p) {
        for (int64_t c = 0; c < columns; ++c) x[c][p] = source.at(k + p, column + c);
      }
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t p = 0; p < depth; ++p) x[c][p] = source.at(k + p, column + c);
      }
    }
  }
};

// Byte `byte` of a column's 128 in a block of BF16, F16 or S8.
char* place(char* block, int64_t column, int64_t byte) {
  return block + column * kBlockBytes + ((byte / 16) ^ (column % 8)) * 16 + byte % 16;
}

// What a panel's columns are multiplied by and sum up to, S8.
struct Columns {
  float* scales;
  int32_t* sums;
};

// False when a weight is not finite.
bool find_scales(const Source& source, int64_t column, const Columns& columns) {
  bool whole = true;
  for (int64_t p = 0; p < source.k; p += kBlockBytes) {
    const Elements block(source, p, column, kBlockBytes);
    for (int64_t c = 0; c < block.columns; ++c) {
      for (int64_t i = 0; i < block.depth; ++i) {
        const float magnitude = std::fabs(block.x[c][i]);
        whole &= magnitude <= 3.402823466e38f;
        columns.scales[c] = magnitude > columns.scales[c] ? magnitude : columns.scales[c];
      }
    }
  }
  for (int64_t c = 0; c < kPanelColumns; ++c) columns.scales[c] /= 127.0f;
  return whole;
}

void pack_block(const Source& source, int32_t format, int64_t block, int64_t column, const Columns& of, char* to) {
  if (format == GTN_F32) {
    constexpr int64_t kDepth = kBlockBytes / 4;
    const Elements elements(source, block * kDepth, column, kDepth);
    float* floats = reinterpret_cast<float*>(to);
    for (int64_t p = 0; p < kDepth; ++p) {
      for (int64_t c = 0; c < kPanelColumns; ++c) floats[p * kPanelColumns + c] = elements.x[c][p];
    }
  } else if (format == GTN_BF16 || format == GTN_F16) {
    constexpr int64_t kDepth = kBlockBytes / 2;
    const Elements elements(source, block * kDepth, column, kDepth);
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      for (int64_t p = 0; p < kDepth; ++p) {
        const float x = elements.x[c][p];
        const uint16_t bits = format == GTN_BF16 ? cpu::to_bf16(x) : cpu::to_f16(x);
        std::memcpy(place(to, c, 2 * p), &bits, sizeof bits);
      }
    }
  } else {
    const Elements elements(source, block * kBlockBytes, column, kBlockBytes);
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      for (int64_t p = 0; p < kBlockBytes; ++p) {
        float q = of.scales[c] == 0.0f ? 0.0f : round_to_even(elements.x[c][p] / of.scales[c]);
        q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
        *place(to, c, p) = static_cast<char>(static_cast<int8_t>(q));
        of.sums[c] += static_cast<int32_t>(q);
      }
    }
  }
}

gtn_status not_finite(const gtn_weights_desc& desc, const Source& source, int64_t group, int64_t column, gtn_message* message) {
  for (int64_t p = 0; p < source.k; ++p) {
    for (int64_t c = column; c < source.n && c < column + kPanelColumns; ++c) {
      const float value = source.at(p, c);
      if (std::fabs(value) <= 3.402823466e38f) continue;
      char which[40] = "";
      if (desc.source.rank == 3) std::snprintf(which, sizeof which, "group = %lld, ", static_cast<long long>(group));
      return fail(message, GTN_INVALID_ARGUMENT, "source[%sk = %lld, n = %lld] is %g; weights of format GTN_S8 must be finite",
                  which, static_cast<long long>(p), static_cast<long long>(c), static_cast<double>(value));
    }
  }
  return fail(message, GTN_INVALID_ARGUMENT, "source changed while it was being packed");
}

// Bytes of the panels, of the whole, and where columns' scales and sums start; false where they do not fit 64 bits.
struct Extent {
  int64_t panels, blocks, all_panels, columns, scales_at, sums_at, bytes;

  bool set(int32_t format, int64_t matrices, int64_t k, int64_t n) {
    const int64_t depth = kBlockBytes / element_bytes(format);
    panels = n / kPanelColumns + (n % kPanelColumns != 0);
    blocks = k / depth + (k % depth != 0);
    if (__builtin_mul_overflow(panels, matrices, &all_panels) || __builtin_mul_overflow(all_panels, blocks, &bytes) ||
        bytes > INT64_MAX / (2 * kPanelBlockBytes) || all_panels > INT64_MAX / (32 * kPanelColumns)) {
      return false;
    }
    bytes *= kPanelBlockBytes;
    columns = format == GTN_S8 ? all_panels * kPanelColumns : 0;
    scales_at = bytes;
    sums_at = scales_at + columns * 4;
    bytes = sums_at + columns * 4;
    return true;
  }
};

struct QueueDestroy {
  void operator()(Queue* queue) const { queue_destroy(queue); }
};
struct WeightsDestroy {
  void operator()(PackedWeights* weights) const { gemm_weights_destroy(weights); }
};

}  // namespace

bool flushes_halves(const Device& device) { return std::strcmp(device.properties.arch_name, "gfx90a") == 0; }

bool gemm_serves(const Device& device, int32_t format) {
  if (format == GTN_F16) return !flushes_halves(device);
  return format == GTN_F32 || format == GTN_BF16 || format == GTN_S8 || in_groups(format);
}

gtn_status unsupported_format(gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "desc.format: this backend takes weights of F32, BF16, S8, U4, U8, F8E4M3, F8E5M2 and, but for gfx90a, F16");
}

gtn_status gemm_weights_pack(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  if (!gemm_serves(device, desc.format)) return unsupported_format(message);
  if (in_groups(desc.format)) return gemm_weights_quantize(device, desc, source, weights, info, message);
  const int row = desc.source.rank - 2;
  const int64_t matrices = row == 1 ? desc.source.shape[0] : 1;
  const int64_t k = desc.source.shape[row], n = desc.source.shape[row + 1];
  Extent extent;
  if (!extent.set(desc.format, matrices, k, n)) {
    return fail(message, GTN_OUT_OF_MEMORY, "packed weights of %lld times %lld x %lld do not fit the address space",
                static_cast<long long>(matrices), static_cast<long long>(k), static_cast<long long>(n));
  }
  std::unique_ptr<PackedWeights, WeightsDestroy> packed(new (std::nothrow) PackedWeights{});
  if (packed == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
  packed->device = device.index;
  packed->format = desc.format;
  packed->panels = extent.panels;
  packed->blocks = extent.blocks;
  void* data = nullptr;
  if (const gtn_status status = allocate(device.index, extent.bytes > 0 ? extent.bytes : 1, &data, message); status != GTN_OK) {
    return status;
  }
  packed->data = static_cast<char*>(data);
  if (desc.format == GTN_S8) {
    packed->scales = reinterpret_cast<float*>(packed->data + extent.scales_at);
    packed->sums = reinterpret_cast<int32_t*>(packed->data + extent.sums_at);
  }

  const int64_t all_blocks = extent.all_panels * extent.blocks;
  const int64_t room = all_blocks < kBufferBlocks ? all_blocks : kBufferBlocks;
  const std::unique_ptr<char[]> buffer(new (std::nothrow) char[static_cast<size_t>(room * kPanelBlockBytes + 1)]);
  const std::unique_ptr<float[]> scales(new (std::nothrow) float[static_cast<size_t>(extent.columns + 1)]());
  const std::unique_ptr<int32_t[]> sums(new (std::nothrow) int32_t[static_cast<size_t>(extent.columns + 1)]());
  if (buffer == nullptr || scales == nullptr || sums == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory of the host to pack weights in");
  }
  Queue* created = nullptr;
  if (const gtn_status status = queue_create(device.index, &created, message); status != GTN_OK) return status;
  const std::unique_ptr<Queue, QueueDestroy> queue(created);

  int64_t filled = 0, copied = 0;
  const auto flush = [&]() -> gtn_status {
    if (filled == 0) return GTN_OK;
    const gtn_status status = copy(queue.get(), packed->data + copied * kPanelBlockBytes, buffer.get(), filled * kPanelBlockBytes,
                                   GTN_HOST_TO_DEVICE, message);
    copied += filled;
    filled = 0;
    return status;
  };
  const bool empty = extent.blocks == 0;  // there may be very many panels of nothing
  for (int64_t panel = 0; panel < extent.all_panels && !empty; ++panel) {
    const int64_t group = panel / extent.panels, column = panel % extent.panels * kPanelColumns;
    const Source from = {source, desc.source.dtype, row == 1 ? group * desc.source.strides[0] : 0,
                         k,      n, desc.source.strides[row], desc.source.strides[row + 1]};
    Columns columns = {};
    if (desc.format == GTN_S8) {
      columns = {scales.get() + panel * kPanelColumns, sums.get() + panel * kPanelColumns};
      if (!find_scales(from, column, columns)) return not_finite(desc, from, group, column, message);
    }
    for (int64_t block = 0; block < extent.blocks; ++block) {
      pack_block(from, desc.format, block, column, columns, buffer.get() + filled * kPanelBlockBytes);
      if (++filled < room) continue;
      if (const gtn_status status = flush(); status != GTN_OK) return status;
    }
  }
  if (const gtn_status status = flush(); status != GTN_OK) return status;
  if (extent.columns > 0) {
    gtn_status status = copy(queue.get(), packed->scales, scales.get(), extent.columns * 4, GTN_HOST_TO_DEVICE, message);
    if (status == GTN_OK) status = copy(queue.get(), packed->sums, sums.get(), extent.columns * 4, GTN_HOST_TO_DEVICE, message);
    if (status != GTN_OK) return status;
  }
  if (const gtn_status status = queue_synchronize(queue.get(), message); status != GTN_OK) return status;
  info->format = desc.format;
  info->k = k;
  info->n = n;
  info->bytes = extent.bytes;
  info->groups = row == 1 ? matrices : 0;
  *weights = packed.release();
  return GTN_OK;
}

void gemm_weights_destroy(void* weights) {
  PackedWeights* packed = static_cast<PackedWeights*>(weights);
  if (packed == nullptr) return;
  if (packed->data != nullptr) release(packed->device, packed->data);
  if (packed->shift != nullptr) release(packed->device, packed->shift);
  delete packed;
}

}  // namespace gatun::gpu
