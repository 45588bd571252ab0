// What the AMD build leaves out: the loops that measure limits.
#include "limits/limits.h"

namespace gatun::gpu {

gtn_status measure_limit(Device&, int32_t, double*, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "limits: the %s backend measures none yet", kBackendName);
}

}  // namespace gatun::gpu
