// Packing of FP8 weights, panel by panel.
#include <atomic>

#include "core/message.h"
#include "cpu/gemm/pack.h"
#include "cpu/gemm/to_float8.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// Packs panel by panel: `fill(matrix, first column, columns, to, scales)` a panel of zeros, false where it must not be.
// `complain` has the message of the first that must not.
template <typename Fill, typename Complain>
gtn_status pack_panels(const Device& device, int32_t format, int64_t groups, int64_t k, int64_t n, void** weights,
                       gtn_weights_info* info, gtn_message* message, Fill fill, Complain complain) {
  const GemmLayout& layout = device.level->kernels->gemm->layout;
  const int64_t matrices = groups > 0 ? groups : 1, panels = (n + layout.panel - 1) / layout.panel;
  int64_t panel_bytes, all_panels, bytes;
  if (k > INT64_MAX / 4 || __builtin_mul_overflow(k, layout.panel, &panel_bytes) || panel_bytes > INT64_MAX - 64 ||
      __builtin_mul_overflow(panels, matrices, &all_panels) ||
      __builtin_mul_overflow(round_up(panel_bytes, 64), all_panels, &bytes) || bytes > INT64_MAX / 2 ||
      all_panels > INT64_MAX / 1024) {
    return too_large(matrices, k, n, message);
  }
  panel_bytes = round_up(panel_bytes, 64);
  const int64_t columns = all_panels * layout.panel, scales_at = bytes;
  PackedWeights* packed;
  if (const gtn_status status = allocate_weights(bytes + round_up(columns * 4, 64), &packed, message); status != GTN_OK) {
    return status;
  }
  describe_weights(packed, layout, format, k, n, panel_bytes);
  float* scales = reinterpret_cast<float*>(packed->data + scales_at);
  packed->scales = scales;

  std::atomic<bool> good{true};
  const int64_t batch = panels_of_task(k * layout.panel);
  parallel(device.threads, (all_panels + batch - 1) / batch, [&](int64_t task, int) {
    for (int64_t p = task * batch; p < all_panels && p < (task + 1) * batch; ++p) {
      const int64_t first = p % panels * layout.panel;
      const int64_t here = n - first < layout.panel ? n - first : layout.panel;
      uint8_t* to = packed->data + p * panel_bytes;
      float* of_panel = scales + p * layout.panel;
      std::memset(to, 0, static_cast<size_t>(panel_bytes));
      for (int64_t c = 0; c < layout.panel; ++c) of_panel[c] = 0.0f;
      if (!fill(p / panels, first, here, to, of_panel)) good.store(false, std::memory_order_relaxed);
    }
  });
  if (!good.load(std::memory_order_relaxed)) {
    gemm_weights_destroy(packed);
    return complain();
  }
  report_weights(*packed, groups, info);
  *weights = packed;
  return GTN_OK;
}

}  // namespace

gtn_status pack_f8(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                   gtn_weights_info* info, gtn_message* message) {
  const ToFloat8 to_f8(desc.format);
  const int row = desc.source.rank - 2;
  const int64_t k = desc.source.shape[row], panel = device.level->kernels->gemm->layout.panel;
  return pack_panels(
      device, desc.format, row > 0 ? desc.source.shape[0] : 0, k, desc.source.shape[row + 1], weights, info, message,
      [&](int64_t matrix, int64_t first, int64_t columns, uint8_t* to, float* scales) {
        const Source from(desc, source, matrix);
        bool finite = true;
        for (int64_t p = 0; p < k; ++p) {
          for (int64_t c = 0; c < columns; ++c) {
            const float magnitude = std::fabs(from.at(p, first + c));
            finite &= is_finite(magnitude);
            scales[c] = magnitude > scales[c] ? magnitude : scales[c];
          }
        }
        if (!finite) return false;
        for (int64_t c = 0; c < columns; ++c) scales[c] /= to_f8.most;
        for (int64_t p = 0; p < k; ++p, to += panel) {
          for (int64_t c = 0; c < columns; ++c) to[c] = to_f8.number(from.at(p, first + c), scales[c]);
        }
        return true;
      },
      [&] { return not_finite(desc, source, message); });
}

gtn_status pack_ready_f8(const Device& device, const gtn_quantized_desc& desc, const void* numbers, const float* scales,
                         void** weights, gtn_weights_info* info, gtn_message* message) {
  const int64_t k = desc.k, n = desc.n, panel = device.level->kernels->gemm->layout.panel;
  return pack_panels(
      device, desc.format, desc.groups, k, n, weights, info, message,
      [&](int64_t matrix, int64_t first, int64_t columns, uint8_t* to, float* packed_scales) {
        bool finite = true;
        for (int64_t c = 0; c < columns && k > 0; ++c) {
          const int64_t column = matrix * n + first + c;
          const uint8_t* from = static_cast<const uint8_t*>(numbers) + column * k;
          packed_scales[c] = scales[column];
          finite &= is_finite(scales[column]);
          for (int64_t p = 0; p < k; ++p) {
            to[p * panel + c] = from[p];
            if (desc.format == GTN_F8E4M3 && is_nan_e4m3(from[p])) packed_scales[c] = std::nanf("");
          }
        }
        return finite;
      },
      [&] {
        for (int64_t i = 0; i < (desc.groups > 0 ? desc.groups : 1) * n; ++i) {
          if (is_finite(scales[i])) continue;
          return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld] is %g, expected a finite number",
                      static_cast<long long>(i), static_cast<double>(scales[i]));
        }
        return fail(message, GTN_INVALID_ARGUMENT, "scales changed while they were being packed");
      });
}

}  // namespace gatun::cpu
