// Which tile of a table, and in how many parts k: for plans of matrix products and of convolutions.
#pragma once

#include "backend/backend.h"
#include "gemm/kernels.h"

namespace gatun::gpu::gemm {

struct Choice {
  const Variant* variant;
  int64_t splits, split_blocks;
  int64_t tiles_m, tiles_n;  // of a matrix
};

// What there is to multiply.
struct Product {
  int64_t rows, n, blocks;  // blocks: of k
  int64_t groups;           // rows are in so many groups, each with a matrix of its own; 0: they are not
  int64_t matrices;         // that each row meets, without groups; with them 1
  int64_t matrix_bytes;
  bool may_split;
};

class Choices {
 public:
  // Makes the kernels of a table ready that the device has the shared memory for; out_dtype: of what sums become.
  gtn_status prepare(const Device& device, VariantTable table, int32_t out_dtype, gtn_message* message);

  // The variant and the number of splits that should take the fewest cycles: an estimate whose purpose is to be right about the
  // order. It depends on sizes and the device alone.
  Choice choose(const Product& product) const;

 private:
  static constexpr int kMost = 16;
  struct Candidate {
    const Variant* variant;
    int resident;  // blocks of threads on a multiprocessor
  };

  const Properties* properties_ = nullptr;
  Candidate candidates_[kMost];
  int count_ = 0;
};

}  // namespace gatun::gpu::gemm
