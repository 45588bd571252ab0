// Weights of a convolution with a batch normalisation folded into them, in double precision: what each backend then packs as
// matrices of GEMM.
#pragma once

#include <gatun/gatun.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/message.h"
#include "cpu/halves.h"

namespace gatun::cpu {

struct ConvNorm {
  const float *gamma, *beta, *mean, *variance;  // all null: none
};

struct FreeFloats {
  void operator()(float* floats) const { std::free(floats); }
};
using Floats = std::unique_ptr<float, FreeFloats>;

struct FoldedWeights {
  bool depthwise;                    // one matrix [positions, channels of out], where a channel of out sees one of x
  int64_t matrices, k, columns;      // else a matrix for each group; k: positions * channels, as filled up
  Floats weights;                    // [matrices][k][columns]
  Floats shift;                      // [matrices][columns, filled up]
  int64_t shift_columns;
};

// A source of weights, seen with three spatial dimensions.
struct ConvWeightsSource {
  const void* data;
  bool bf16;
  int64_t columns, channels, kernel[3];
  int64_t strides[5];

  ConvWeightsSource(const gtn_tensor_desc& desc, const void* from) : data(from), bf16(desc.dtype == GTN_BF16) {
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

// Channels of a kernel position are filled up with zeros to a multiple of `channel_multiple`, but for depthwise weights; columns of
// the shift to one of `column_multiple`.
inline gtn_status fold_weights(const gtn_conv_weights_desc& desc, const void* source, const ConvNorm& norm, int64_t channel_multiple,
                               int64_t column_multiple, FoldedWeights* folded, gtn_message* message) {
  const ConvWeightsSource from(desc.source, source);
  const auto up = [](int64_t n, int64_t to) { return (n + to - 1) / to * to; };
  const int64_t positions = from.positions();
  folded->depthwise = from.channels == 1 && desc.groups == from.columns && desc.groups > 1;
  const int64_t channels = folded->depthwise ? 1 : up(from.channels, channel_multiple);
  folded->matrices = folded->depthwise ? 1 : desc.groups;
  folded->k = positions * channels;
  folded->columns = from.columns / folded->matrices;
  folded->shift_columns = up(folded->columns, column_multiple);
  const auto zeros = [](int64_t count, int64_t of) {
    return Floats(static_cast<float*>(std::calloc(static_cast<size_t>(count), static_cast<size_t>(of) * sizeof(float))));
  };
  folded->weights = zeros(folded->k, from.columns);
  folded->shift = zeros(folded->matrices, folded->shift_columns);
  if (folded->weights == nullptr || folded->shift == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "no memory to fold %lld x %lld weights", static_cast<long long>(folded->k),
                static_cast<long long>(from.columns));
  }
  for (int64_t n = 0; n < from.columns; ++n) {
    double scale = 1.0;
    const int64_t matrix = n / folded->columns, column = n % folded->columns;
    if (desc.has_norm) {
      scale = static_cast<double>(norm.gamma[n]) / std::sqrt(static_cast<double>(norm.variance[n]) + desc.epsilon);
      const float moved = static_cast<float>(norm.beta[n] - norm.mean[n] * scale);
      if (!std::isfinite(moved) || !std::isfinite(scale)) {
        return fail(message, GTN_INVALID_ARGUMENT,
                    "gamma, beta, mean and variance of channel %lld (%g, %g, %g, %g) give no finite scale and shift",
                    static_cast<long long>(n), static_cast<double>(norm.gamma[n]), static_cast<double>(norm.beta[n]),
                    static_cast<double>(norm.mean[n]), static_cast<double>(norm.variance[n]));
      }
      folded->shift.get()[matrix * folded->shift_columns + column] = moved;
    }
    for (int64_t t = 0; t < positions; ++t) {
      for (int64_t c = 0; c < from.channels; ++c) {
        const float value = static_cast<float>(from.at(n, c, t) * scale);
        const float kept = desc.format == GTN_BF16 ? from_bf16(to_bf16(value)) : value;
        if (!std::isfinite(kept)) {
          return fail(message, GTN_INVALID_ARGUMENT, "source: the weight of channels %lld and %lld at position %lld is %g and makes one that is not finite",
                      static_cast<long long>(n), static_cast<long long>(c), static_cast<long long>(t),
                      from.at(n, c, t));
        }
        folded->weights.get()[((matrix * positions + t) * channels + c) * folded->columns + column] = kept;
      }
    }
  }
  return GTN_OK;
}

// The matrices as a source that is packed in `format`.
inline gtn_weights_desc matrices_of(const FoldedWeights& folded, int32_t format) {
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = format;
  desc.source.size = sizeof desc.source;
  desc.source.dtype = GTN_F32;
  desc.source.rank = 3;
  const int64_t shape[] = {folded.matrices, folded.k, folded.columns}, strides[] = {folded.k * folded.columns, folded.columns, 1};
  for (int d = 0; d < 3; ++d) {
    desc.source.shape[d] = shape[d];
    desc.source.strides[d] = strides[d];
  }
  return desc;
}

}  // namespace gatun::cpu
