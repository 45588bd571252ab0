// Packing of weights of convolutions: a batch normalisation is folded into them, and the matrices that result, with the channels
// of each kernel position filled up to whole chunks of 16 bytes, are packed as those of GEMM are. Depthwise weights are FP32
// [kernel positions, channels filled up to 4].
#include <cstring>
#include <memory>

#include "conv/kernels.h"
#include "conv/plan.h"
#include "cpu/conv/fold.h"
#include "gemm/plan.h"

namespace gatun::gpu {
namespace {

struct QueueDestroy {
  void operator()(Queue* queue) const { queue_destroy(queue); }
};
struct WeightsDestroy {
  void operator()(gemm::PackedWeights* weights) const { gemm_weights_destroy(weights); }
};
using Packed = std::unique_ptr<gemm::PackedWeights, WeightsDestroy>;

// A copy of the host's floats in memory of the device's.
gtn_status upload(Device& device, const float* from, int64_t count, float** to, gtn_message* message) {
  void* memory = nullptr;
  if (gtn_status status = allocate(device.index, count * 4, &memory, message); status != GTN_OK) return status;
  *to = static_cast<float*>(memory);
  Queue* created = nullptr;
  if (gtn_status status = queue_create(device.index, &created, message); status != GTN_OK) return status;
  const std::unique_ptr<Queue, QueueDestroy> queue(created);
  const gtn_status status = copy(created, memory, from, count * 4, GTN_HOST_TO_DEVICE, message);
  return status == GTN_OK ? queue_synchronize(created, message) : status;
}

gtn_status pack_depthwise(Device& device, const cpu::FoldedWeights& folded, Packed* packed, gtn_weights_info* info, gtn_message* message) {
  const int64_t filled = ceil_div(folded.columns, conv::kChannels) * conv::kChannels, count = times(folded.k, filled);
  const cpu::Floats rows(static_cast<float*>(std::calloc(static_cast<size_t>(count), sizeof(float))));
  packed->reset(new (std::nothrow) gemm::PackedWeights{});
  if (rows == nullptr || *packed == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory of the host to pack weights in");
  for (int64_t t = 0; t < folded.k; ++t) {
    std::memcpy(rows.get() + t * filled, folded.weights.get() + t * folded.columns, static_cast<size_t>(folded.columns) * sizeof(float));
  }
  (*packed)->device = device.index;
  (*packed)->format = GTN_F32;
  info->bytes = count * 4;
  float* data = nullptr;
  const gtn_status status = upload(device, rows.get(), count, &data, message);
  (*packed)->data = reinterpret_cast<char*>(data);
  return status;
}

}  // namespace

gtn_status conv_weights_pack(Device& device, const gtn_conv_weights_desc& desc, const void* source, const float* gamma, const float* beta,
                             const float* mean, const float* variance, void** weights, gtn_weights_info* info, gtn_message* message) {
  cpu::FoldedWeights folded;
  gtn_status status = cpu::fold_weights(desc, source, {gamma, beta, mean, variance}, conv::chunk_elements(desc.format), 1, &folded, message);
  if (status != GTN_OK) return status;
  Packed packed;
  if (folded.depthwise) {
    status = pack_depthwise(device, folded, &packed, info, message);
  } else {
    void* matrices = nullptr;
    status = gemm_weights_pack(device, cpu::matrices_of(folded, desc.format), folded.weights.get(), &matrices, info, message);
    packed.reset(static_cast<gemm::PackedWeights*>(matrices));
  }
  if (status != GTN_OK) return status;
  const int64_t channels = desc.source.shape[0];
  if (status = upload(device, folded.shift.get(), channels, &packed->shift, message); status != GTN_OK) return status;
  info->bytes += channels * 4;
  *weights = packed.release();
  return GTN_OK;
}

}  // namespace gatun::gpu
