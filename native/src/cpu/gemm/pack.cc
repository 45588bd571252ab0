// Packing of weights: once per matrix, so plain code, split over panels. Of several matrices, all panels of one come
// before those of the next.
//
// S8: scale = amax / 127 of each output channel, q = clamp(rint(w / scale), -127, 127), ties to even; where the scale
// is 0 (amax = 0, or so small that a 127th of it is), q = 0.
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/dtype.h"
#include "core/message.h"
#include "cpu/gemm/pack.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// |value| below 2^22: the sum with 1.5 * 2^23 has no fraction bits, so the addition itself rounds, ties to even.
float round_to_even(float value) { return (value + 12582912.0f) - 12582912.0f; }

void pack_f32(const Source& source, int64_t k, int64_t panel, int64_t first, int64_t columns, float* to) {
  for (int64_t p = 0; p < k; ++p, to += panel) {
    for (int64_t c = 0; c < columns; ++c) to[c] = source.at(p, first + c);
    for (int64_t c = columns; c < panel; ++c) to[c] = 0.0f;
  }
}

void pack_bf16(const Source& source, int64_t k, int64_t panel, int64_t first, int64_t columns, uint16_t* to) {
  std::memset(to, 0, static_cast<size_t>(round_up(k, 2) * panel) * sizeof *to);
  for (int64_t p = 0; p < k; ++p) {
    uint16_t* pairs = to + p / 2 * 2 * panel + p % 2;
    for (int64_t c = 0; c < columns; ++c) pairs[2 * c] = to_bf16(source.at(p, first + c));
  }
}

void pack_f16(const Source& source, int64_t k, int64_t panel, int64_t first, int64_t columns, uint16_t* to) {
  for (int64_t p = 0; p < k; ++p, to += panel) {
    for (int64_t c = 0; c < columns; ++c) to[c] = to_f16(source.at(p, first + c));
    for (int64_t c = columns; c < panel; ++c) to[c] = 0;
  }
}

// False when a weight is not finite.
bool pack_s8(const Source& source, int64_t k, int64_t panel, int64_t group, int64_t first, int64_t columns, int8_t* to,
             float* scales, int32_t* sums) {
  for (int64_t c = 0; c < panel; ++c) {
    scales[c] = 0.0f;
    sums[c] = 0;
  }
  bool finite = true;
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t c = 0; c < columns; ++c) {
      const float magnitude = std::fabs(source.at(p, first + c));
      finite &= is_finite(magnitude);
      scales[c] = magnitude > scales[c] ? magnitude : scales[c];
    }
  }
  if (!finite) return false;
  for (int64_t c = 0; c < columns; ++c) scales[c] /= 127.0f;
  std::memset(to, 0, static_cast<size_t>(round_up(k, group) * panel));
  for (int64_t p = 0; p < k; ++p) {
    int8_t* groups = to + p / group * group * panel + p % group;
    for (int64_t c = 0; c < columns; ++c) {
      if (scales[c] == 0.0f) continue;
      float q = round_to_even(source.at(p, first + c) / scales[c]);
      q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
      groups[c * group] = static_cast<int8_t>(q);
      sums[c] += static_cast<int32_t>(q);
    }
  }
  return true;
}

}  // namespace

gtn_status allocate_weights(int64_t bytes, PackedWeights** weights, gtn_message* message) {
  PackedWeights* packed = new (std::nothrow) PackedWeights{};
  // Large matrices in huge pages: a panel is a long stream, and small pages would stop the prefetchers every 4 KB.
  const bool huge = bytes >= 2 * kHugePage;
  const int64_t allocated = round_up(bytes > 0 ? bytes : 64, huge ? kHugePage : 64);
  const size_t alignment = static_cast<size_t>(huge ? kHugePage : 64);
  void* data = packed == nullptr ? nullptr : std::aligned_alloc(alignment, static_cast<size_t>(allocated));
  if (data == nullptr) {
    delete packed;
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for %lld bytes of packed weights",
                static_cast<long long>(bytes));
  }
  if (huge) madvise(data, static_cast<size_t>(allocated), MADV_HUGEPAGE);  // advice only
  packed->data = static_cast<unsigned char*>(data);
  packed->bytes = bytes;
  *weights = packed;
  return GTN_OK;
}

void describe_weights(PackedWeights* packed, const GemmLayout& layout, int32_t format, int64_t k, int64_t n,
                      int64_t panel_bytes) {
  packed->layout = &layout;
  packed->format = format;
  packed->k = k;
  packed->n = n;
  packed->panels = (n + layout.panel - 1) / layout.panel;
  packed->column_stride = packed->panels * layout.panel;
  packed->panel_bytes = panel_bytes;
}

void report_weights(const PackedWeights& packed, int64_t groups, gtn_weights_info* info) {
  info->format = packed.format;
  info->k = packed.k;
  info->n = packed.n;
  info->bytes = packed.bytes;
  info->groups = groups;
  info->group_size = packed.group_size;
}

gtn_status too_large(int64_t matrices, int64_t k, int64_t n, gtn_message* message) {
  return fail(message, GTN_OUT_OF_MEMORY, "packed weights of %lld times %lld x %lld do not fit the address space",
              static_cast<long long>(matrices), static_cast<long long>(k), static_cast<long long>(n));
}

gtn_status not_finite(const gtn_weights_desc& desc, const void* source, gtn_message* message) {
  const int row = desc.source.rank - 2;
  const int64_t matrices = row > 0 ? desc.source.shape[0] : 1;
  for (int64_t g = 0; g < matrices; ++g) {
    const Source matrix(desc, source, g);
    for (int64_t p = 0; p < desc.source.shape[row]; ++p) {
      for (int64_t c = 0; c < desc.source.shape[row + 1]; ++c) {
        const float value = matrix.at(p, c);
        if (is_finite(value)) continue;
        char which[40] = "";
        if (row > 0) std::snprintf(which, sizeof which, "group = %lld, ", static_cast<long long>(g));
        return fail(message, GTN_INVALID_ARGUMENT,
                    "source[%sk = %lld, n = %lld] is %g; weights of format GTN_%s must be finite", which,
                    static_cast<long long>(p), static_cast<long long>(c), static_cast<double>(value), dtype_name(desc.format));
      }
    }
  }
  return fail(message, GTN_INVALID_ARGUMENT, "source changed while it was being packed");
}

gtn_status gemm_weights_pack(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  if (is_f8(desc.format)) return pack_f8(device, desc, source, weights, info, message);
  if (desc.format == GTN_BF16_2OF4) return pack_sparse(device, desc, source, weights, info, message);
  if (is_quantized(desc.format)) return quantize_weights(device, desc, source, weights, info, message);
  const GemmLayout& layout = device.level->kernels->gemm->layout;
  const int row = desc.source.rank - 2;
  const int64_t matrices = desc.source.rank == 3 ? desc.source.shape[0] : 1;
  const int64_t k = desc.source.shape[row], n = desc.source.shape[row + 1];
  const int64_t group = desc.format == GTN_S8 ? layout.int8_group : desc.format == GTN_BF16 ? 2 : 1;
  const int64_t element = desc.format == GTN_S8 ? 1 : desc.format == GTN_F32 ? 4 : 2;
  int64_t panel_bytes, all_panels, bytes;
  const int64_t panels = (n + layout.panel - 1) / layout.panel;
  if (k > INT64_MAX / 4 || __builtin_mul_overflow(round_up(k, group) * element, layout.panel, &panel_bytes) ||
      panel_bytes > INT64_MAX - 64 || __builtin_mul_overflow(panels, matrices, &all_panels) ||
      __builtin_mul_overflow(round_up(panel_bytes, 64), all_panels, &bytes) || bytes > INT64_MAX / 2 ||
      all_panels > INT64_MAX / 1024) {
    return too_large(matrices, k, n, message);
  }
  panel_bytes = round_up(panel_bytes, 64);
  const int64_t columns = all_panels * layout.panel;
  const int64_t scales_at = bytes;
  const int64_t sums_at = scales_at + round_up(columns * 4, 64);
  if (desc.format == GTN_S8) bytes = sums_at + round_up(columns * 4, 64);

  PackedWeights* packed;
  if (const gtn_status status = allocate_weights(bytes, &packed, message); status != GTN_OK) return status;
  describe_weights(packed, layout, desc.format, k, n, panel_bytes);
  float* scales = nullptr;
  int32_t* sums = nullptr;
  if (desc.format == GTN_S8) {
    scales = reinterpret_cast<float*>(packed->data + scales_at);
    sums = reinterpret_cast<int32_t*>(packed->data + sums_at);
  }
  packed->scales = scales;
  packed->sums = sums;

  std::atomic<bool> finite{true};
  const int64_t batch = panels_of_task(k * layout.panel);
  const int64_t filled = bytes > 0 ? all_panels : 0;  // there may be very many empty ones
  parallel(device.threads, (filled + batch - 1) / batch, [&](int64_t task, int) {
    for (int64_t p = task * batch; p < all_panels && p < (task + 1) * batch; ++p) {
      const Source from(desc, source, p / panels);
      const int64_t first = p % panels * layout.panel;
      const int64_t here = n - first < layout.panel ? n - first : layout.panel;
      unsigned char* to = packed->data + p * panel_bytes;
      if (desc.format == GTN_F32) {
        pack_f32(from, k, layout.panel, first, here, reinterpret_cast<float*>(to));
      } else if (desc.format == GTN_BF16) {
        pack_bf16(from, k, layout.panel, first, here, reinterpret_cast<uint16_t*>(to));
      } else if (desc.format == GTN_F16) {
        pack_f16(from, k, layout.panel, first, here, reinterpret_cast<uint16_t*>(to));
      } else if (!pack_s8(from, k, layout.panel, group, first, here, reinterpret_cast<int8_t*>(to),
                          scales + p * layout.panel, sums + p * layout.panel)) {
        finite.store(false, std::memory_order_relaxed);
      }
    }
  });
  if (!finite.load(std::memory_order_relaxed)) {
    gemm_weights_destroy(packed);
    return not_finite(desc, source, message);
  }
  report_weights(*packed, row > 0 ? matrices : 0, info);
  *weights = packed;
  return GTN_OK;
}

void gemm_weights_destroy(void* weights) {
  PackedWeights* packed = static_cast<PackedWeights*>(weights);
  if (packed == nullptr) return;
  std::free(packed->data);
  std::free(packed->shift);
  delete packed;
}

}  // namespace gatun::cpu
