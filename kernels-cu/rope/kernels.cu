// Rotary position embedding, and the append to a cache.
//
//   pair (a, b) at the angle of its position and index: (a cos - b sin, b cos + a sin), in FP32
//   S8: scale = amax / 127, value = rint(x / scale) within -127 to 127, of the FP32 row after the rotation
//
// Bytes: every element is read once and written once, 8 of FP32; a token's row of the table serves all of its heads, from the
// cache. FLOPs: 3 for a rotated element, 4 for a quantized one. What binds it: memory. A warp takes four heads of a token at once:
// they share their angles, and the loads of all four are under way together.
//
// A row for S8 is rotated twice, once for amax and once for the values: it comes from the L1 cache then. amax is the largest of the
// magnitudes' bit patterns, where infinity and NaN come after all numbers: a row that has one gets scale NaN and values of 0.
// A scale that underflows to 0 has values of 0; a subnormal one is coarse, hence the bound of 127.
//
// A token whose position is not in the table is left out, and so are the key and value of one whose slot is not in the cache.
#include "rope/kernels.h"

#include "gpu/pack.h"

namespace gatun::gpu {
namespace {

constexpr int kThreads = 256;

// The two rotated elements. Same operations for both styles.
GPU_DEVICE void rotate(float a, float b, float cosine, float sine, float* first, float* second) {
  *first = fma(a, cosine, -(b * sine));
  *second = fma(b, cosine, a * sine);
}

// Calls body(head, element, value) with P rotated elements, or copied ones, of each head, by all lanes.
template <typename X, int P, int kHeads, typename Body>
GPU_DEVICE void each_element(const RopeArgs& a, const RopePart& part, const X* const (&x)[kHeads], int heads, const float* angles,
                             Body body) {
  const int64_t half = part.rotary / 2;
  for (int64_t i = static_cast<int64_t>(lane()) * P; i < half; i += kWarp * P) {
    // P pairs: i to i + P - 1 of the table.
    float cosine[P], sine[P], first[kHeads][P], second[kHeads][P];
#pragma unroll
    for (int j = 0; j < P; ++j) cosine[j] = angles[i + j], sine[j] = angles[half + i + j];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) break;
      if (a.interleaved != 0) {
#pragma unroll
        for (int j = 0; j < P; ++j) {
          float pair[2];
          if constexpr (P == 1) {
            pair[0] = to_float(x[h][2 * i]), pair[1] = to_float(x[h][2 * i + 1]);
          } else {
            load_pack(x[h] + 2 * (i + j), pair);
          }
          first[h][j] = pair[0], second[h][j] = pair[1];
        }
      } else {
        load_pack(x[h] + i, first[h]);
        load_pack(x[h] + half + i, second[h]);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (int j = 0; j < P; ++j) rotate(first[h][j], second[h][j], cosine[j], sine[j], &first[h][j], &second[h][j]);
      if (a.interleaved != 0) {
#pragma unroll
        for (int j = 0; j < P; ++j) {
          if constexpr (P == 1) {
            body(h, 2 * i, first[h]);
            body(h, 2 * i + 1, second[h]);
          } else {
            const float pair[2] = {first[h][j], second[h][j]};
            body(h, 2 * (i + j), pair);
          }
        }
      } else {
        body(h, i, first[h]);
        body(h, half + i, second[h]);
      }
    }
  }
  for (int64_t i = part.rotary + static_cast<int64_t>(lane()) * P; i < part.n; i += kWarp * P) {
    float v[kHeads][P];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h < heads) load_pack(x[h] + i, v[h]);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h < heads) body(h, i, v[h]);
    }
  }
}

GPU_DEVICE int8_t quantized(float v, float scale) {
  const float steps = at_most(at_least(v / scale, -127.0f), 127.0f);
  // The sum with 1.5 2^23 rounds to an integer, ties to even, which the lowest bits of the sum are.
  return static_cast<int8_t>(bits_of(steps + 0x1.8p23f) & 0xffu);
}

template <typename X, int P>
GPU_DEVICE void quantize_head(const RopeArgs& a, const RopePart& part, const X* from, const float* angles, int8_t* out,
                              float* to_scale) {
  const X* const x[1] = {from};
  uint32_t most = 0;
  each_element<X, P, 1>(a, part, x, 1, angles, [&](int, int64_t, const float(&v)[P]) {
#pragma unroll
    for (int j = 0; j < P; ++j) {
      const uint32_t bits = bits_of(absolute(v[j]));
      most = bits > most ? bits : most;
    }
  });
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const uint32_t other = shuffle_xor(most, mask);
    most = other > most ? other : most;
  }
  const float scale = most < 0x7f800000u ? float_of(most) / 127.0f : not_a_number();
  if (lane() == 0) *to_scale = scale;
  const bool zero = !(scale > 0.0f);
  each_element<X, P, 1>(a, part, x, 1, angles, [&](int, int64_t i, const float(&v)[P]) {
#pragma unroll
    for (int j = 0; j < P; ++j) out[i + j] = zero ? int8_t{0} : quantized(v[j], scale);
  });
}

template <typename X, typename Y, int P>
GPU_KERNEL(kThreads, 1) void rope_heads(const RopeArgs a) {
  const int64_t task = static_cast<int64_t>(block_x()) * (kThreads / kWarp) + warp();
  const int64_t token = task / a.tasks;
  if (token >= a.tokens) return;
  const int64_t position = a.positions[token];
  if (position < 0 || position >= a.max_position) return;
  int64_t rest = task - token * a.tasks;
  int which = 0;
  while (rest >= a.part[which].tasks) rest -= a.part[which++].tasks;
  const RopePart& part = a.part[which];
  const int64_t first = rest * kRopeHeads;
  const int heads = part.heads - first < kRopeHeads ? static_cast<int>(part.heads - first) : kRopeHeads;
  int64_t page = token, row = 0, slot = token;
  if (part.cached != 0) {
    if (a.slots != nullptr) slot = a.slots[token];
    if (slot < 0 || slot >= a.rows) return;
    page = slot / a.page_size;
    row = slot - page * a.page_size;
  }
  const float* angles = a.table + position * a.rotary;
  const X* from = static_cast<const X*>(part.x) + token * part.x_token + first * part.x_head;
  Y* to = static_cast<Y*>(part.out) + page * part.out_page + row * part.out_row + first * part.out_head;
  if constexpr (sizeof(Y) == 1) {
    for (int h = 0; h < heads; ++h) {
      quantize_head<X, P>(a, part, from + h * part.x_head, angles, to + h * part.out_head,
                          part.scales + slot * part.heads + first + h);
    }
  } else {
    const X* x[kRopeHeads];
#pragma unroll
    for (int h = 0; h < kRopeHeads; ++h) x[h] = from + h * part.x_head;
    each_element<X, P, kRopeHeads>(a, part, x, heads, angles, [&](int h, int64_t i, const float(&v)[P]) {
      store_pack(to + h * part.out_head + i, v);
    });
  }
}

template <typename X, typename Y>
RopeKernel kernel_for(bool paired) {
  if (paired) return {rope_heads<X, Y, 2>, kThreads, kThreads / kWarp};
  return {rope_heads<X, Y, 1>, kThreads, kThreads / kWarp};
}

template <typename X>
RopeKernel kernel_to(int out_type, bool paired) {
  switch (out_type) {
    case 0:
      return kernel_for<X, float>(paired);
    case 1:
      return kernel_for<X, Bf16>(paired);
    case 2:
      return kernel_for<X, Half>(paired);
    default:
      return kernel_for<X, int8_t>(paired);
  }
}

}  // namespace

RopeKernel rope_kernel(int x_type, int out_type, bool paired) {
  return x_type == 0   ? kernel_to<float>(out_type, paired)
         : x_type == 1 ? kernel_to<Bf16>(out_type, paired)
                       : kernel_to<Half>(out_type, paired);
}

}  // namespace gatun::gpu
