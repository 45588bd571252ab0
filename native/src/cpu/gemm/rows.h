// Rows of `a` as the microkernels read them: FP32, FP32 rounded to BF16, or quantized (cpu/quantize.h).
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/tiled.h"
#include "cpu/quantize.h"
#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

// Rows are filled up with zeros to a multiple of this many elements, the largest step of k.
constexpr int64_t kRowPadding = 4;

// Where the elements of a row of k end and the filling starts.
template <typename T>
HWY_INLINE void fill_up(T* row, int64_t k) {
  for (int64_t i = k; i % kRowPadding != 0; ++i) row[i] = T{};
}

template <typename A, bool kRound, typename Row>
void convert_row(const A* a, int64_t k, Row* to) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) {
    VF x = load(d, a + i);
    if (kRound) x = round_to_bf16(d, x);
    store(d, x, to + i);
  }
  if (i < k) {
    VF x = load_some(d, a + i, static_cast<size_t>(k - i), 0.0f);
    if (kRound) x = round_to_bf16(d, x);
    store_some(d, x, to + i, static_cast<size_t>(k - i));
  }
  fill_up(to, k);
}

// Rows that were quantized before, with scales and zero points of their own.
void copy_row(const uint8_t* a, int64_t k, GemmS8::Row* to) {
  for (int64_t i = 0; i < k; ++i) to[i] = static_cast<GemmS8::Row>(a[i] - GemmS8::kRowOffset);
  fill_up(to, k);
}

template <typename A>
void prepare_rows(const GemmRows& rows, int64_t first, int64_t count) {
  for (int64_t r = first; r < first + count; ++r) {
    const A* a = static_cast<const A*>(rows.a) + (rows.index == nullptr ? r : rows.index[r]) * rows.a_stride;
    if (rows.format == GTN_S8) {
      GemmS8::Row* to = static_cast<GemmS8::Row*>(rows.prepared) + r * rows.prepared_stride;
      quantize_row(a, rows.k, to, rows.scales + r, rows.zeros + r);
      fill_up(to, rows.k);
    } else if (rows.format == GTN_BF16) {
      using Row = GemmBf16::Row;  // whose stores round already where it is no FP32
      convert_row<A, sizeof(Row) == 4>(a, rows.k, static_cast<Row*>(rows.prepared) + r * rows.prepared_stride);
    } else {
      convert_row<A, false>(a, rows.k, static_cast<float*>(rows.prepared) + r * rows.prepared_stride);
    }
  }
}

void prepare_quantized_rows(const GemmRows& rows, int64_t first, int64_t count) {
  for (int64_t r = first; r < first + count; ++r) {
    const int64_t from = rows.index == nullptr ? r : rows.index[r];
    GemmS8::Row* to = static_cast<GemmS8::Row*>(rows.prepared) + r * rows.prepared_stride;
    copy_row(static_cast<const uint8_t*>(rows.a) + from * rows.a_stride, rows.k, to);
    rows.scales[r] = rows.a_scales[from];
    rows.zeros[r] = rows.a_zeros[from] - GemmS8::kRowOffset;
  }
}

void prepare(const GemmRows& rows, int64_t first, int64_t count) {
  if (rows.a_dtype == GTN_U8) {
    prepare_quantized_rows(rows, first, count);
  } else if (rows.a_dtype == GTN_F32) {
    prepare_rows<float>(rows, first, count);
  } else if (rows.a_dtype == GTN_BF16) {
    prepare_rows<bf16>(rows, first, count);
  } else {
    prepare_rows<f16>(rows, first, count);
  }
}

}  // namespace
}  // namespace gatun::cpu::GATUN_LEVEL
