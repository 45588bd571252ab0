// Attention by mma.sync, with BF16 operands: see kernel.h.
#include "attention/mma_products.h"

namespace gatun::gpu::attention {

KernelTable bf16_kernels(bool few_rows) { return halves_kernels<Bf16>(few_rows); }

}  // namespace gatun::gpu::attention
