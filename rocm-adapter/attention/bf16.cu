// Attention by MFMA and WMMA, with BF16 operands; its own since their tiles are: see matrix_products.h.
#include "attention/matrix_products.h"

namespace gatun::gpu::attention {

KernelTable bf16_kernels(bool few_rows) { return halves_kernels<Bf16>(few_rows); }

}  // namespace gatun::gpu::attention
