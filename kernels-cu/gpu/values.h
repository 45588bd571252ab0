// What every half of the layer moves: 16-bit numbers as their bits, and what one instruction loads or stores.
#pragma once

#include <stdint.h>

namespace gatun::gpu {

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

struct alignas(16) Bytes16 {
  uint32_t word[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

}  // namespace gatun::gpu
