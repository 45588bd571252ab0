// Packing of weights of convolutions: a batch normalisation is folded into them, in double precision, and the matrices that
// result are packed as those of GEMM are.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "core/message.h"
#include "cpu/conv/conv.h"
#include "cpu/gemm/pack.h"
#include "cpu/levels.h"

namespace gatun::cpu {
namespace {

// A source of weights, seen with three spatial dimensions.
struct Weights {
  const void* data;
  bool bf16;
  int64_t columns, channels, kernel[3];
  int64_t strides[5];

  Weights(const gtn_tensor_desc& desc, const void* from) : data(from), bf16(desc.dtype == GTN_BF16) {
    columns = desc.shape[0];
    channels = desc.shape[1];
    strides[0] = desc.strides[0];
    strides[1] = desc.strides[1];
    const int missing = 5 - desc.rank;
    for (int d = 0; d < 3; ++d) {
      kernel[d] = d < missing ? 1 : desc.shape[2 + d - missing];
      strides[2 + d] = d < missing ? 0 : desc.strides[2 + d - missing];
    }
  }

  int64_t positions() const { return kernel[0] * kernel[1] * kernel[2]; }
  double at(int64_t column, int64_t channel, int64_t position) const {
    const int64_t i = column * strides[0] + channel * strides[1] + position / (kernel[1] * kernel[2]) * strides[2] +
                      position / kernel[2] % kernel[1] * strides[3] + position % kernel[2] * strides[4];
    return bf16 ? from_bf16(static_cast<const uint16_t*>(data)[i]) : static_cast<const float*>(data)[i];
  }
};

struct Free {
  void operator()(float* floats) const { std::free(floats); }
};
using Floats = std::unique_ptr<float, Free>;

Floats zeros(int64_t count) { return Floats(static_cast<float*>(std::calloc(static_cast<size_t>(count), sizeof(float)))); }

}  // namespace

gtn_status conv_weights_pack(const Device& device, const gtn_conv_weights_desc& desc, const void* source, const ConvNorm& norm,
                             void** weights, gtn_weights_info* info, gtn_message* message) {
  const Weights from(desc.source, source);
  const int64_t positions = from.positions(), channels = from.channels, k = positions * channels;
  const bool depthwise = channels == 1 && desc.groups == from.columns && desc.groups > 1;
  const int64_t matrices = depthwise ? 1 : desc.groups, columns = from.columns / matrices;
  const int64_t panel = device.level->kernels->gemm->layout.panel, padded = (columns + panel - 1) / panel * panel;
  const Floats folded = zeros(k * from.columns);  // [matrices][positions][channels][columns]
  Floats shift = zeros(matrices * padded);
  if (folded == nullptr || shift == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory to fold %lld x %lld weights", static_cast<long long>(k),
                static_cast<long long>(from.columns));
  }
  for (int64_t n = 0; n < from.columns; ++n) {
    double scale = 1.0;
    const int64_t matrix = n / columns, column = n % columns;
    if (desc.has_norm) {
      scale = static_cast<double>(norm.gamma[n]) / std::sqrt(static_cast<double>(norm.variance[n]) + desc.epsilon);
      const float moved = static_cast<float>(norm.beta[n] - norm.mean[n] * scale);
      if (!std::isfinite(moved) || !std::isfinite(scale)) {
        return fail(message, GTN_INVALID_ARGUMENT,
                    "gamma, beta, mean and variance of channel %lld (%g, %g, %g, %g) give no finite scale and shift",
                    static_cast<long long>(n), static_cast<double>(norm.gamma[n]), static_cast<double>(norm.beta[n]),
                    static_cast<double>(norm.mean[n]), static_cast<double>(norm.variance[n]));
      }
      shift.get()[matrix * padded + column] = moved;
    }
    for (int64_t t = 0; t < positions; ++t) {
      for (int64_t c = 0; c < channels; ++c) {
        const float value = static_cast<float>(from.at(n, c, t) * scale);
        const float kept = desc.format == GTN_BF16 ? from_bf16(to_bf16(value)) : value;
        if (!std::isfinite(kept)) {
          return fail(message, GTN_INVALID_ARGUMENT, "source: the weight of channels %lld and %lld at position %lld is %g and makes one that is not finite",
                      static_cast<long long>(n), static_cast<long long>(c), static_cast<long long>(t),
                      from.at(n, c, t));
        }
        folded.get()[((matrix * positions + t) * channels + c) * columns + column] = kept;
      }
    }
  }
  gtn_weights_desc dense = {};
  dense.size = sizeof dense;
  dense.format = depthwise ? GTN_F32 : desc.format;
  dense.source.size = sizeof dense.source;
  dense.source.dtype = GTN_F32;
  dense.source.rank = 3;
  const int64_t shape[] = {matrices, k, columns}, strides[] = {k * columns, columns, 1};
  std::memcpy(dense.source.shape, shape, sizeof shape);
  std::memcpy(dense.source.strides, strides, sizeof strides);
  void* packed = nullptr;
  if (gtn_status status = gemm_weights_pack(device, dense, folded.get(), &packed, info, message); status != GTN_OK) {
    return status;
  }
  static_cast<PackedWeights*>(packed)->shift = shift.release();
  info->bytes += matrices * padded * static_cast<int64_t>(sizeof(float));
  *weights = packed;
  return GTN_OK;
}

}  // namespace gatun::cpu
