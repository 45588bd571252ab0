// Attention with the products of Hopper's warp groups (sm_90a): the kernel of kernel.h for the head sizes 64 and 128, of which the
// four warps make each product of 64 rows together. wgmma reads keys and values from shared memory itself, at twice the rate
// of mma.sync, and no warp loads fragments. Blocks in which not all keys count have the second product by mma.sync: there
// each warp leaves out the keys that none of its rows sees. Weights are two terms, so outputs are of 16 bits.
//
// Cost of a tile of 64 rows and 64 keys with dk = dv = 128, in cycles of a multiprocessor: 256 of the unit for the scores, 512 for two
// terms of weights; 4096 exponentials at 16 a cycle are 256, and what surrounds them, about 500 instructions of each warp, as much again,
// while the unit works for the two other thread blocks; 32 KiB of keys and values from L2 at about 24 bytes a cycle take 1300. Measured: 0.40
// of the rate of mma.sync (docs/gpu-attention.md), bound by the latency of the softmax; more rows for the same keys gained nothing.
#include "attention/mma_products.h"
#include "gpu/hopper.h"

namespace gatun::gpu::attention {
namespace {

// Rows in panels of 64 columns: those of 128 bytes that the unit reads.
template <int kChunks, int kRows>
struct PanelRows {
  static constexpr int kPanel = kRows * 128;

  char* data;
  int given;

  GPU_DEVICE int chunks() const { return kChunks; }
  GPU_DEVICE int stride() const { return 8; }
  GPU_DEVICE int swizzle() const { return 7; }
  GPU_DEVICE int offset(int chunk) const { return chunk / 8 * kPanel + chunk % 8 * 16; }
  GPU_DEVICE char* at(int row, int chunk) const { return data + row * 128 + offset(chunk ^ (row & 7)); }
};

template <typename T, int kColumnsOfTile>
struct GroupProducts : MatrixProducts<T, 4, kColumnsOfTile, true, PanelRows<kColumnsOfTile / 8, 64>> {
  using Base = MatrixProducts<T, 4, kColumnsOfTile, true, PanelRows<kColumnsOfTile / 8, 64>>;
  using InputRows = typename Base::InputRows;
  using Shape = typename Base::Shape;
  static constexpr bool kTogether = true;
  static constexpr int kColumns = kColumnsOfTile, kKeys = 64;
  static_assert(Shape::kRows == 64 && Shape::kKeys == kKeys);
  static_assert((kTileBytes + 2 * sizeof(KeyInfo<kKeys>)) % 1024 == 0, "panels start at multiples of 1024 bytes");

  static GPU_DEVICE void publish() { gpu::publish(); }

  static GPU_DEVICE void scores(const InputRows& q, int, const InputRows& k, int, float (&s)[kKeys / 8][4]) {
    settle(s);
    group_fence();
    GPU_UNROLL
    for (int c = 0; c < kColumns / 8; c += 2) {
      multiply_group(s, panel_descriptor(q.data + q.offset(c), 0), panel_descriptor(k.data + k.offset(c), 0), c > 0,
                     static_cast<T*>(nullptr));
    }
    group_commit();
    group_wait();
    settle(s);
  }

  template <bool kMasked>
  static GPU_DEVICE void weigh(float (&p)[kKeys / 8][4], const InputRows& v, int first, int columns, uint32_t used, bool,
                               float (&o)[kColumns / 8][4]) {
    if constexpr (kMasked) {
      Base::template weigh<true>(p, v, first, columns, used, false, o);
    } else {
      constexpr T* kType = nullptr;
      uint32_t terms[kKeys / 16][2][4];
      GPU_UNROLL
      for (int n = 0; n < kKeys / 16; ++n) {
        GPU_UNROLL
        for (int term = 0; term < 2; ++term) {
          GPU_UNROLL
          for (int i = 0; i < 4; ++i) {
            float(&pair)[4] = p[2 * n + i / 2];
            terms[n][term][i] = take_pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1], kType);
          }
        }
      }
      settle(o);
      group_fence();
      GPU_UNROLL
      for (int n = 0; n < kKeys / 16; ++n) {
        const uint64_t values = panel_descriptor(v.data + n * 16 * 128, InputRows::kPanel);
        multiply_group(o, terms[n][0], values, kType);
        multiply_group(o, terms[n][1], values, kType);
      }
      group_commit();
      group_wait();
      settle(o);
    }
  }
};

}  // namespace

// The last numbers: thread blocks that a multiprocessor is to hold, which limits registers.
KernelTable hopper_kernels(bool bf16) {
  static constexpr Kernel kBf16[] = {kernel_of<GroupProducts<Bf16, 64>, 3>(), kernel_of<GroupProducts<Bf16, 128>, 3>()};
  static constexpr Kernel kF16[] = {kernel_of<GroupProducts<Half, 64>, 3>(), kernel_of<GroupProducts<Half, 128>, 3>()};
  return bf16 ? KernelTable{kBf16, 2} : KernelTable{kF16, 2};
}

}  // namespace gatun::gpu::attention
