// Packing of weights of 4 and 8 bits, from floating point or as they come quantized, a panel's column and group at a time.
#include <atomic>

#include "core/message.h"
#include "cpu/gemm/group_quantizer.h"
#include "cpu/gemm/pack.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// Packs `matrices` of [k, n], or one where that is 0, whose groups `read(matrix, column, group, count, Group*)` makes; false
// from it is an error, which `complain` words.
template <typename Read, typename Complain>
gtn_status pack_groups(const Device& device, int32_t format, int64_t matrices, int64_t k, int64_t n, int64_t group_size,
                       bool zeros, void** weights, gtn_weights_info* info, gtn_message* message, Read read, Complain complain) {
  const GemmLayout& layout = device.level->kernels->gemm->layout;
  const int bits = quantized_bits(format), in_lane = 32 / bits;
  const int64_t groups = k / group_size + (k % group_size != 0 ? 1 : 0);
  const int64_t group_bytes = quantized_group_bytes(layout.panel, group_size, bits);
  const int64_t panels = n / layout.panel + (n % layout.panel != 0 ? 1 : 0);
  int64_t panel_bytes, all_panels, bytes;
  if (__builtin_mul_overflow(groups, group_bytes + (zeros ? layout.panel : 0), &panel_bytes) || panel_bytes > INT64_MAX / 4 ||
      __builtin_mul_overflow(panels, matrices > 0 ? matrices : 1, &all_panels) ||
      __builtin_mul_overflow(round_up(panel_bytes, 64), all_panels, &bytes) || bytes > INT64_MAX / 2) {
    return too_large(matrices > 0 ? matrices : 1, k, n, message);
  }
  panel_bytes = round_up(panel_bytes, 64);
  PackedWeights* packed;
  if (const gtn_status status = allocate_weights(bytes, &packed, message); status != GTN_OK) return status;
  describe_weights(packed, layout, format, k, n, panel_bytes);
  packed->group_size = group_size;
  packed->zeros_at = zeros ? groups * group_bytes : 0;

  std::atomic<bool> good{true};
  const int64_t batch = panels_of_task(k * layout.panel);
  const int64_t filled = bytes > 0 ? all_panels : 0;
  parallel(device.threads, (filled + batch - 1) / batch, [&](int64_t task, int) {
    for (int64_t p = task * batch; p < all_panels && p < (task + 1) * batch; ++p) {
      unsigned char* panel = packed->data + p * panel_bytes;
      std::memset(panel, 0, static_cast<size_t>(panel_bytes));
      const int64_t first = p % panels * layout.panel;
      for (int64_t c = 0; c < layout.panel && first + c < n; ++c) {
        for (int64_t g = 0; g < groups; ++g) {
          Group group;
          const int64_t count = k - g * group_size < group_size ? k - g * group_size : group_size;
          if (!read(p / panels, first + c, g, count, &group)) good.store(false, std::memory_order_relaxed);
          float* scales = reinterpret_cast<float*>(panel + g * group_bytes);
          uint32_t* lanes = reinterpret_cast<uint32_t*>(scales + layout.panel) + c;
          scales[c] = group.scale;
          for (int64_t i = 0; i < count; ++i) {
            lanes[i / in_lane * layout.panel] |= static_cast<uint32_t>(group.integers[i]) << (i % in_lane * bits);
          }
          if (zeros) panel[packed->zeros_at + g * layout.panel + c] = group.zero;
        }
      }
    }
  });
  if (!good.load(std::memory_order_relaxed)) {
    gemm_weights_destroy(packed);
    return complain();
  }
  report_weights(*packed, matrices, info);
  *weights = packed;
  return GTN_OK;
}

}  // namespace

gtn_status quantize_weights(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                            gtn_weights_info* info, gtn_message* message) {
  const int row = desc.source.rank - 2;
  const Quantizer quantizer{quantized_bits(desc.format), desc.symmetric != 0, desc.quantize};
  return pack_groups(
      device, desc.format, row > 0 ? desc.source.shape[0] : 0, desc.source.shape[row], desc.source.shape[row + 1],
      desc.group_size, desc.symmetric == 0, weights, info, message,
      [&](int64_t matrix, int64_t column, int64_t group, int64_t count, Group* to) {
        const Source from(desc, source, matrix);
        float w[kMaxQuantizedGroup];
        bool finite = true;
        for (int64_t i = 0; i < count; ++i) {
          w[i] = from.at(group * desc.group_size + i, column);
          finite &= is_finite(w[i]);
        }
        if (finite) quantizer.quantize(w, count, to);
        return finite;
      },
      [&] { return not_finite(desc, source, message); });
}

gtn_status gemm_weights_pack_quantized(const Device& device, const gtn_quantized_desc& desc, const void* integers,
                                       const float* scales, const uint8_t* zeros, void** weights, gtn_weights_info* info,
                                       gtn_message* message) {
  if (is_f8(desc.format)) return pack_ready_f8(device, desc, integers, scales, weights, info, message);
  const bool halves = desc.format == GTN_U4;
  const int bits = quantized_bits(desc.format);
  const int64_t matrices = desc.groups > 0 ? desc.groups : 1;
  const int64_t groups = desc.k / desc.group_size + (desc.k % desc.group_size != 0 ? 1 : 0);
  const int64_t bytes_of_group = desc.group_size * bits / 8, zeros_of_column = halves ? (groups + 1) / 2 : groups;
  // Element i of bytes that hold one or two each.
  const auto element = [&](const void* from, int64_t i) {
    const uint8_t* bytes = static_cast<const uint8_t*>(from);
    return static_cast<uint8_t>(halves ? bytes[i / 2] >> (i % 2 * 4) & 15 : bytes[i]);
  };
  return pack_groups(
      device, desc.format, desc.groups, desc.k, desc.n, desc.group_size, zeros != nullptr, weights, info, message,
      [&](int64_t matrix, int64_t column, int64_t group, int64_t count, Group* to) {
        const int64_t of_column = matrix * desc.n + column;
        to->scale = scales[of_column * groups + group];
        to->zero = zeros == nullptr ? 0 : element(zeros + of_column * zeros_of_column, group);
        const uint8_t* from = static_cast<const uint8_t*>(integers) + (of_column * groups + group) * bytes_of_group;
        for (int64_t i = 0; i < count; ++i) to->integers[i] = element(from, i);
        return is_finite(to->scale);
      },
      [&] {
        for (int64_t i = 0; i < matrices * desc.n * groups; ++i) {
          if (is_finite(scales[i])) continue;
          return fail(message, GTN_INVALID_ARGUMENT, "scales[n = %lld, group = %lld] is %g, expected a finite number",
                      static_cast<long long>(i / groups), static_cast<long long>(i % groups), static_cast<double>(scales[i]));
        }
        return fail(message, GTN_INVALID_ARGUMENT, "scales changed while they were being packed");
      });
}

}  // namespace gatun::cpu
