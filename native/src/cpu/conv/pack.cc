// Packing of weights of convolutions: a batch normalisation is folded into them, and the matrices that result are packed as those
// of GEMM are.
#include "cpu/conv/conv.h"
#include "cpu/conv/fold.h"
#include "cpu/gemm/pack.h"
#include "cpu/levels.h"

namespace gatun::cpu {

gtn_status conv_weights_pack(const Device& device, const gtn_conv_weights_desc& desc, const void* source, const ConvNorm& norm,
                             void** weights, gtn_weights_info* info, gtn_message* message) {
  const int64_t panel = device.level->kernels->gemm->layout.panel;
  FoldedWeights folded;
  if (gtn_status status = fold_weights(desc, source, norm, 1, panel, &folded, message); status != GTN_OK) return status;
  const gtn_weights_desc dense = matrices_of(folded, folded.depthwise ? GTN_F32 : desc.format);
  void* packed = nullptr;
  if (gtn_status status = gemm_weights_pack(device, dense, folded.weights.get(), &packed, info, message); status != GTN_OK) {
    return status;
  }
  static_cast<PackedWeights*>(packed)->shift = folded.shift.release();
  info->bytes += folded.matrices * folded.shift_columns * static_cast<int64_t>(sizeof(float));
  *weights = packed;
  return GTN_OK;
}

}  // namespace gatun::cpu
