// Selection of keys on the CPU backend: the seam between the plans (compiled once) and the kernels (compiled once per
// level).
//
// Everything is products of rows, queries or keys, with columns: pooled keys or the columns of random rotations.
// Columns lie in panels, [depth][panel] of them, side by side as vectors.
#pragma once

#include "cpu/backend.h"

namespace gatun::cpu {

// Rows that a call of a kernel takes at most.
inline constexpr int64_t kSelectRows = 24;

// Row r is at + (r / heads) * stride + (r % heads) * head_stride; strides count elements of `dtype`.
struct SelectRows {
  const void* at;
  int32_t dtype;
  int64_t stride, head_stride, heads, count, dk;
};

struct SelectKernels {
  int64_t panel;   // columns of a panel
  int64_t vector;  // what rows of columns, and of unit vectors, are whole multiples of
  // Floats of scratch that a call takes: rows of `depth` against `columns` columns.
  int64_t (*scratch)(int64_t depth, int64_t columns);
  // The mean of any number of rows, or their greatest elements and after those the least: element d goes to to[d *
  // step].
  void (*pool)(const SelectRows& rows, bool bounds, float* to, int64_t step);
  // Adds to importance[c] the softmax over the first visible[r] columns of scale * row_r.column_c, for each row.
  // `bounds`: columns are bounds, as pool() makes them. `importance` is a whole number of vectors.
  void (*weigh)(const SelectRows& rows, bool bounds, const float* panels, const int64_t* visible, float scale,
                float* scratch, float* importance);
  // The labels of rows in each layer: the argmax of [x R; -x R] with the columns of R, `columns` of each layer side by
  // side. That of row r in a layer goes to labels[layer * layer_stride + r].
  void (*label)(const SelectRows& rows, const float* panels, int64_t columns, int64_t layers, float* scratch,
                int32_t* labels, int64_t layer_stride);
  // Rows less `mean` (null: 0), made of length 1, or 0 where they are 0; a row that is not finite becomes NaN.
  void (*unit)(const SelectRows& rows, const float* mean, float* to, int64_t to_stride);
  // Bit b of the code of row r in table t is whether x_r.column_(t * bits + b) > 0: it goes to codes[r * row_step +
  // t * table_step].
  void (*code)(const float* x, int64_t x_stride, int64_t count, int64_t dk, const float* panels, int64_t bits,
               int64_t tables, float* scratch, uint16_t* codes, int64_t row_step, int64_t table_step);
  float (*dot)(const float* a, const float* b, int64_t size);  // of whole vectors
};

gtn_status select_plan(const Device& device, const gtn_select_desc& desc, Plan** plan, gtn_plan_info* info,
                       gtn_message* message);

}  // namespace gatun::cpu
