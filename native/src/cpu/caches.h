// How large the caches are that one core of this machine sees.
#pragma once

#include <cstdint>

namespace gatun::cpu {

struct Caches {
  int64_t l1;    // of data, one core's own
  int64_t l2;    // one core's own, or that of a few
  int64_t last;  // the largest, which cores share; l2 where there is no other
};

// Found at the first call.
const Caches& caches();

}  // namespace gatun::cpu
