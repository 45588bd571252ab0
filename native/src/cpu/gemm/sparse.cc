// Packing of pruned weights (GTN_BF16_2OF4): of four that follow each other in k the two that are not 0, and their places. Once per
// matrix, so plain code.
#include <atomic>
#include <cstdio>

#include "core/message.h"
#include "cpu/gemm/pack.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {
namespace {

// Which two of the four from k = p on are stored, the first place in the lower two bits: those that are not 0, filled up with the
// first others. -1 where more than two are not 0.
int places(const Source& from, int64_t k, int64_t p, int64_t column) {
  int kept[4] = {}, count = 0, stored = 0;
  const int here = k - p < 4 ? static_cast<int>(k - p) : 4;
  bool used[4] = {};
  for (int i = 0; i < here; ++i) {
    used[i] = from.at(p + i, column) != 0.0f;
    stored += used[i];
  }
  if (stored > 2) return -1;
  for (int i = 0; stored < 2; ++i) {
    if (used[i]) continue;
    used[i] = true;
    ++stored;
  }
  for (int i = 0; i < 4; ++i) {
    if (used[i]) kept[count++] = i;
  }
  return kept[0] | kept[1] << 2;
}

gtn_status not_pruned(const gtn_weights_desc& desc, const void* source, gtn_message* message) {
  const int row = desc.source.rank - 2;
  const int64_t matrices = row > 0 ? desc.source.shape[0] : 1, k = desc.source.shape[row];
  for (int64_t g = 0; g < matrices; ++g) {
    const Source matrix(desc, source, g);
    for (int64_t p = 0; p < k; p += 4) {
      for (int64_t c = 0; c < desc.source.shape[row + 1]; ++c) {
        if (places(matrix, k, p, c) >= 0) continue;
        char which[40] = "";
        if (row > 0) std::snprintf(which, sizeof which, "group = %lld, ", static_cast<long long>(g));
        return fail(message, GTN_INVALID_ARGUMENT,
                    "source[%sk = %lld to %lld, n = %lld] has more than 2 weights that are not 0; those of format GTN_BF16_2OF4 are "
                    "pruned",
                    which, static_cast<long long>(p), static_cast<long long>(p + 3 < k ? p + 3 : k - 1), static_cast<long long>(c));
      }
    }
  }
  return fail(message, GTN_INVALID_ARGUMENT, "source changed while it was being packed");
}

}  // namespace

gtn_status pack_sparse(const Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                       gtn_weights_info* info, gtn_message* message) {
  const GemmLayout& layout = device.level->kernels->gemm->layout;
  const int row = desc.source.rank - 2;
  const int64_t matrices = row > 0 ? desc.source.shape[0] : 1, k = desc.source.shape[row], n = desc.source.shape[row + 1];
  const int64_t blocks = k / kSparseBlock + (k % kSparseBlock != 0 ? 1 : 0), block_bytes = sparse_block_bytes(layout.panel);
  const int64_t panels = n / layout.panel + (n % layout.panel != 0 ? 1 : 0);
  int64_t panel_bytes, all_panels, bytes;
  if (__builtin_mul_overflow(blocks, block_bytes, &panel_bytes) || panel_bytes > INT64_MAX / 4 ||
      __builtin_mul_overflow(panels, matrices, &all_panels) ||
      __builtin_mul_overflow(round_up(panel_bytes, 64), all_panels, &bytes) || bytes > INT64_MAX / 2) {
    return too_large(matrices, k, n, message);
  }
  panel_bytes = round_up(panel_bytes, 64);
  PackedWeights* packed;
  if (const gtn_status status = allocate_weights(bytes, &packed, message); status != GTN_OK) return status;
  describe_weights(packed, layout, desc.format, k, n, panel_bytes);

  std::atomic<bool> pruned{true};
  const int64_t batch = panels_of_task(k * layout.panel);
  const int64_t filled = bytes > 0 ? all_panels : 0;
  parallel(device.threads, (filled + batch - 1) / batch, [&](int64_t task, int) {
    for (int64_t p = task * batch; p < all_panels && p < (task + 1) * batch; ++p) {
      unsigned char* panel = packed->data + p * panel_bytes;
      std::memset(panel, 0, static_cast<size_t>(panel_bytes));
      const Source from(desc, source, p / panels);
      const int64_t first = p % panels * layout.panel;
      for (int64_t i = 0; i < k; i += 4) {
        uint32_t* lanes = reinterpret_cast<uint32_t*>(panel + i / kSparseBlock * block_bytes);
        uint16_t* values = reinterpret_cast<uint16_t*>(lanes + layout.panel) + i % kSparseBlock / 2 * layout.panel;
        for (int64_t c = 0; c < layout.panel && first + c < n; ++c) {
          const int two = places(from, k, i, first + c);
          if (two < 0) {
            pruned.store(false, std::memory_order_relaxed);
            continue;
          }
          lanes[c] |= static_cast<uint32_t>(two) << i % kSparseBlock;
          for (int v = 0; v < 2; ++v) {
            const int64_t at = i + (two >> 2 * v & 3);
            if (at < k) values[v * layout.panel + c] = to_bf16(from.at(at, first + c));
          }
        }
      }
    }
  });
  if (!pruned.load(std::memory_order_relaxed)) {
    gemm_weights_destroy(packed);
    return not_pruned(desc, source, message);
  }
  report_weights(*packed, row > 0 ? matrices : 0, info);
  *weights = packed;
  return GTN_OK;
}

}  // namespace gatun::cpu
