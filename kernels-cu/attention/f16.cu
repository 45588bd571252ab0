// Attention by mma.sync, with F16 operands: see kernel.h.
#include "attention/mma_products.h"

namespace gatun::gpu::attention {

KernelTable f16_kernels(bool few_rows) { return halves_kernels<Half>(few_rows); }

}  // namespace gatun::gpu::attention
