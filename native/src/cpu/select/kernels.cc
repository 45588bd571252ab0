// Selection kernels, compiled once per level: pooled keys and the importance of blocks, labels and codes by random
// rotations.
//
// Importance (Yuan et al. 2025, Native Sparse Attention, section 3.3.2; bounds: Tang et al. 2024, Quest, section 3.3).
// Bounds come down to the same product at twice the depth: the sum of max(q_d least_d, q_d greatest_d) is
// max(q, 0).greatest + min(q, 0).least. Labels: Kitaev et al. 2020, Reformer, section 2. Codes: Chen et al. 2024,
// MagicPIG, section 4.
//
// Cost, for n keys in blocks of b and each of m queries: pooling reads the keys once and is bound by memory. Importance
// takes 2 dk operations for each query and block (twice that with bounds) and about 20 for its softmax, 1/b of those of
// dense attention; a label takes dk * buckets operations a row, and a row's codes 2 dk * bits * tables. These are
// products by a microkernel of rows broadcast against vectors of columns, whose operands lie in L1, and are bound by
// the FMA units.
#include <math.h>

#include "cpu/math.h"
#include "cpu/select/select.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

constexpr int kLanes = HWY_LANES(float);
constexpr int64_t kPanel = 2 * kLanes;
constexpr int64_t kVector = 4 * kLanes;            // a Four
constexpr int64_t kStrip = 256 / kPanel * kPanel;  // columns whose products are looked at together
constexpr float kInfinity = __builtin_huge_valf();

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t scratch_floats(int64_t depth, int64_t columns) {
  return kSelectRows * (round_up(depth, 16) + round_up(columns < kStrip ? kStrip : columns, kVector)) + kVector;
}

template <typename T>
HWY_INLINE const T* row_at(const SelectRows& rows, int64_t r) {
  return static_cast<const T*>(rows.at) + r / rows.heads * rows.stride + r % rows.heads * rows.head_stride;
}

HWY_INLINE void store_up_to(F32 d, VF value, float* to, int64_t left) {
  if (left >= kLanes) {
    store(d, value, to);
  } else {
    store_some(d, value, to, static_cast<size_t>(left));
  }
}

// ---- Rows ----------------------------------------------------------------------------------------------------------

// As FP32, `stride` apart; `halves`: the positive part of each row and after it the negative one.
template <typename T>
void widen_as(const SelectRows& rows, bool halves, float* to, int64_t stride) {
  const F32 d;
  for (int64_t r = 0; r < rows.count; ++r, to += stride) {
    const T* from = row_at<T>(rows, r);
    for (int64_t i = 0; i < rows.dk; i += kLanes) {
      const int64_t left = rows.dk - i;
      const VF value = load_up_to(d, from + i, left);
      if (halves) {
        store_up_to(d, wide::max_or_nan(hn::Zero(d), value), to + i, left);
        store_up_to(d, wide::min_or_nan(hn::Zero(d), value), to + rows.dk + i, left);
      } else {
        store_up_to(d, value, to + i, left);
      }
    }
  }
}

void widen(const SelectRows& rows, bool halves, float* to, int64_t stride) {
  switch (rows.dtype) {
    case GTN_F32: return widen_as<float>(rows, halves, to, stride);
    case GTN_BF16: return widen_as<bf16>(rows, halves, to, stride);
    default: return widen_as<f16>(rows, halves, to, stride);
  }
}

template <typename T>
void pool_as(const SelectRows& rows, bool bounds, float* to, int64_t step) {
  const F32 d;
  const VF count = hn::Set(d, static_cast<float>(rows.count));
  HWY_ALIGN float lanes[2 * kLanes];
  for (int64_t i = 0; i < rows.dk; i += kLanes) {
    const int64_t left = rows.dk - i;
    VF sum = hn::Zero(d), least = hn::Set(d, kInfinity), greatest = hn::Set(d, -kInfinity);
    for (int64_t r = 0; r < rows.count; ++r) {
      const VF value = load_up_to(d, row_at<T>(rows, r) + i, left);
      if (bounds) {
        least = hn::Min(least, value);
        greatest = hn::Max(greatest, value);
      } else {
        sum = hn::Add(sum, value);
      }
    }
    hn::Store(bounds ? greatest : hn::Div(sum, count), d, lanes);
    hn::Store(least, d, lanes + kLanes);
    for (int64_t lane = 0; lane < min_of(left, kLanes); ++lane) {
      to[(i + lane) * step] = lanes[lane];
      if (bounds) to[(rows.dk + i + lane) * step] = lanes[kLanes + lane];
    }
  }
}

void pool(const SelectRows& rows, bool bounds, float* to, int64_t step) {
  switch (rows.dtype) {
    case GTN_F32: return pool_as<float>(rows, bounds, to, step);
    case GTN_BF16: return pool_as<bf16>(rows, bounds, to, step);
    default: return pool_as<f16>(rows, bounds, to, step);
  }
}

// Divided by the greatest magnitude first, so that no square overflows or vanishes.
template <typename T>
void unit_as(const SelectRows& rows, const float* mean, float* to, int64_t to_stride) {
  const F32 d;
  const int64_t whole = round_up(rows.dk, kLanes);
  for (int64_t r = 0; r < rows.count; ++r, to += to_stride) {
    const T* from = row_at<T>(rows, r);
    VF most = hn::Zero(d), zero = hn::Zero(d);
    for (int64_t i = 0; i < whole; i += kLanes) {
      const int64_t left = rows.dk - i;
      VF value = load_up_to(d, from + i, left);
      if (mean != nullptr) value = hn::Sub(value, load_up_to(d, mean + i, left));
      hn::StoreU(value, d, to + i);
      most = hn::Max(hn::Abs(value), most);
      zero = hn::Add(zero, hn::Mul(value, hn::Zero(d)));  // NaN where the value is not finite
    }
    const float greatest = hn::GetLane(hn::MaxOfLanes(d, most)), poison = hn::GetLane(hn::SumOfLanes(d, zero));
    VF squares = hn::Zero(d);
    const VF divisor = hn::Set(d, greatest > 0.0f ? greatest : 1.0f);
    for (int64_t i = 0; i < whole; i += kLanes) {
      const VF value = hn::Div(hn::LoadU(d, to + i), divisor);
      hn::StoreU(value, d, to + i);
      squares = hn::MulAdd(value, value, squares);
    }
    const float square = hn::GetLane(hn::SumOfLanes(d, squares));
    const VF length = hn::Set(d, square > 0.0f ? sqrtf(square) : 1.0f), nothing = hn::Set(d, poison);
    for (int64_t i = 0; i < whole; i += kLanes) {
      hn::StoreU(hn::Add(hn::Div(hn::LoadU(d, to + i), length), nothing), d, to + i);
    }
    for (int64_t i = whole; i < to_stride; ++i) to[i] = 0.0f;
  }
}

void unit(const SelectRows& rows, const float* mean, float* to, int64_t to_stride) {
  switch (rows.dtype) {
    case GTN_F32: return unit_as<float>(rows, mean, to, to_stride);
    case GTN_BF16: return unit_as<bf16>(rows, mean, to, to_stride);
    default: return unit_as<f16>(rows, mean, to, to_stride);
  }
}

float dot(const float* a, const float* b, int64_t size) {
  const F32 d;
  VF sum = hn::Zero(d);
  for (int64_t i = 0; i < size; i += kLanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// ---- Products ------------------------------------------------------------------------------------------------------

template <int ROWS>
HWY_INLINE void tile(const float* HWY_RESTRICT x, int64_t x_stride, int64_t depth, const float* HWY_RESTRICT panel,
                     float* HWY_RESTRICT to, int64_t to_stride) {
  const F32 d;
  VF low[ROWS], high[ROWS];
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = hn::Zero(d);
  for (int64_t i = 0; i < depth; ++i) {
    const VF a = hn::LoadU(d, panel + i * kPanel), b = hn::LoadU(d, panel + i * kPanel + kLanes);
    for (int r = 0; r < ROWS; ++r) {
      const VF value = hn::Set(d, x[r * x_stride + i]);
      low[r] = hn::MulAdd(value, a, low[r]);
      high[r] = hn::MulAdd(value, b, high[r]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    hn::StoreU(low[r], d, to + r * to_stride);
    hn::StoreU(high[r], d, to + r * to_stride + kLanes);
  }
}

// Of `count` rows with the whole panels of `columns`.
void multiply(const float* x, int64_t x_stride, int64_t count, int64_t depth, const float* panels, int64_t columns,
              float* to, int64_t to_stride) {
  for (int64_t c = 0; c < columns; c += kPanel, panels += depth * kPanel) {
    int64_t r = 0;
    for (; r + 6 <= count; r += 6)
      tile<6>(x + r * x_stride, x_stride, depth, panels, to + r * to_stride + c, to_stride);
    for (; r + 2 <= count; r += 2)
      tile<2>(x + r * x_stride, x_stride, depth, panels, to + r * to_stride + c, to_stride);
    if (r < count) tile<1>(x + r * x_stride, x_stride, depth, panels, to + r * to_stride + c, to_stride);
  }
}

// ---- Importance ----------------------------------------------------------------------------------------------------

// Adds the softmax of scale * products[0 .. count - 1]; there is room for whole Fours.
void add_softmax(float* products, int64_t count, float scale, float* importance) {
  const F32 d;
  const int64_t whole = round_up(count, kVector);
  const VF factor = hn::Set(d, scale);
  for (int64_t i = 0; i < whole; i += kVector) {
    store_four(d, wide::mul(load_four(d, products + i), factor), products + i);
  }
  for (int64_t i = count; i < whole; ++i) products[i] = -kInfinity;
  VF most = hn::Set(d, -kInfinity);
  // The accumulator stands second: of a NaN and a number, x86 takes the second operand, and the others the number.
  for (int64_t i = 0; i < whole; i += kLanes) most = hn::Max(hn::LoadU(d, products + i), most);
  most = hn::MaxOfLanes(d, most);
  Four sum = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  for (int64_t i = 0; i < whole; i += kVector) {
    const Four weight = exp_nonpositive(d, wide::sub(load_four(d, products + i), most));
    store_four(d, weight, products + i);
    sum = wide::add(sum, weight);
  }
  const VF total = hn::Add(hn::Add(sum.a, sum.b), hn::Add(sum.c, sum.e));
  const VF share = hn::Set(d, 1.0f / hn::GetLane(hn::SumOfLanes(d, total)));
  for (int64_t i = 0; i < whole; i += kVector) {
    store_four(d, wide::mul_add(load_four(d, products + i), share, load_four(d, importance + i)), importance + i);
  }
}

void weigh(const SelectRows& rows, bool bounds, const float* panels, const int64_t* visible, float scale,
           float* scratch, float* importance) {
  const int64_t depth = bounds ? 2 * rows.dk : rows.dk, x_stride = round_up(depth, 16);
  int64_t most = 0;
  for (int64_t r = 0; r < rows.count; ++r) most = visible[r] > most ? visible[r] : most;
  if (most == 0) return;
  float* products = scratch + kSelectRows * x_stride;
  const int64_t stride = round_up(most, kVector);
  widen(rows, bounds, scratch, x_stride);
  multiply(scratch, x_stride, rows.count, depth, panels, most, products, stride);
  for (int64_t r = 0; r < rows.count; ++r) {
    if (visible[r] > 0) add_softmax(products + r * stride, visible[r], scale, importance);
  }
}

// ---- Labels and codes ----------------------------------------------------------------------------------------------

// The best so far of a row, and what `count` products, those of columns `first` and up of a layer, make of it. Up to a
// vector beyond them is read. NaN wins nothing.
HWY_INLINE void argmax(const float* products, int64_t first, int64_t count, int64_t columns, float* best,
                       int32_t* best_label) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  VF most = hn::Set(d, *best);
  auto label = hn::Set(di, *best_label);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF product = hn::LoadU(d, products + i);
    const VF magnitude = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(count - i)), hn::Abs(product),
                                        hn::Set(d, -kInfinity));
    const auto column = hn::Iota(di, static_cast<int32_t>(first + i));
    const auto negative = hn::RebindMask(di, hn::Lt(product, hn::Zero(d)));
    const auto own = hn::IfThenElse(negative, hn::Add(column, hn::Set(di, static_cast<int32_t>(columns))), column);
    const auto lower = hn::RebindMask(d, hn::Lt(own, label));
    const auto wins = hn::Or(hn::Gt(magnitude, most), hn::And(hn::Eq(magnitude, most), lower));
    most = hn::IfThenElse(wins, magnitude, most);
    label = hn::IfThenElse(hn::RebindMask(di, wins), own, label);
  }
  const VF greatest = hn::MaxOfLanes(d, most);
  const auto others = hn::RebindMask(di, hn::Ne(most, greatest));
  *best = hn::GetLane(greatest);
  *best_label = hn::GetLane(hn::MinOfLanes(di, hn::IfThenElse(others, hn::Set(di, INT32_MAX), label)));
}

void label(const SelectRows& rows, const float* panels, int64_t columns, int64_t layers, float* scratch,
           int32_t* labels, int64_t layer_stride) {
  const int64_t x_stride = round_up(rows.dk, 16), all = layers * columns;
  float* products = scratch + kSelectRows * x_stride;
  float best[kSelectRows];
  widen(rows, false, scratch, x_stride);
  for (int64_t first = 0; first < all; first += kStrip) {
    const int64_t end = min_of(first + kStrip, all);
    multiply(scratch, x_stride, rows.count, rows.dk, panels + first * rows.dk, end - first, products, kStrip);
    for (int64_t c = first; c < end;) {
      const int64_t from = c % columns, some = min_of(columns - from, end - c);
      int32_t* its = labels + c / columns * layer_stride;
      for (int64_t r = 0; r < rows.count; ++r) {
        if (from == 0) {
          best[r] = -kInfinity;
          its[r] = 0;  // also of a row whose products are all NaN
        }
        argmax(products + r * kStrip + (c - first), from, some, columns, &best[r], &its[r]);
      }
      c += some;
    }
  }
}

// One bit for each product, whether it is greater than 0: whole bytes.
HWY_INLINE void signs(const float* products, int64_t count, uint8_t* to) {
  if constexpr (kLanes % 8 == 0) {
    const F32 d;
    for (int64_t i = 0; i < count; i += kLanes) {
      hn::StoreMaskBits(d, hn::Gt(hn::LoadU(d, products + i), hn::Zero(d)), to + i / 8);
    }
  } else {
    for (int64_t i = 0; i < count; i += 8) {
      uint8_t byte = 0;
      for (int64_t b = 0; b < min_of(count - i, 8); ++b) byte |= static_cast<uint8_t>((products[i + b] > 0.0f) << b);
      to[i / 8] = byte;
    }
  }
}

void code(const float* x, int64_t x_stride, int64_t count, int64_t dk, const float* panels, int64_t bits,
          int64_t tables, float* products, uint16_t* codes, int64_t row_step, int64_t table_step) {
  constexpr int64_t kMostColumns = 16 * 1024;
  const int64_t columns = bits * tables, stride = round_up(columns, kPanel);
  uint8_t row_bits[kMostColumns / 8 + 8];
  multiply(x, x_stride, count, dk, panels, columns, products, stride);
  for (int64_t r = 0; r < count; ++r) {
    signs(products + r * stride, columns, row_bits);
    uint16_t* to = codes + r * row_step;
    for (int64_t t = 0, bit = 0; t < tables; ++t, bit += bits) {
      uint32_t word;
      __builtin_memcpy(&word, row_bits + bit / 8, sizeof word);
      to[t * table_step] = static_cast<uint16_t>(word >> (bit % 8) & ((1u << bits) - 1u));
    }
  }
}

}  // namespace

extern const SelectKernels select_kernels;
const SelectKernels select_kernels = {kPanel, kVector, scratch_floats, pool, weigh, label, unit, code, dot};

}  // namespace gatun::cpu::GATUN_LEVEL
