// What the AMD build leaves out: attention, whose kernels hand the fragments of one product on to the next as mma.sync lays
// them out, and the loops that measure limits. A plan says so; nothing falls back to anything.
#include "attention/plan.h"
#include "limits/limits.h"

namespace gatun::gpu {
namespace {

gtn_status declined(const char* family, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "%s: the %s backend has no kernels of it for AMD's matrix units (MFMA, WMMA) yet", family,
              kBackendName);
}

}  // namespace

gtn_status attention_plan(Device&, const gtn_attention_desc&, Plan**, gtn_plan_info*, gtn_message* message) {
  return declined("attention", message);
}
bool attention_serves(const Device&, int32_t) { return false; }

gtn_status measure_limit(Device&, int32_t, double*, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "limits: the %s backend measures none yet", kBackendName);
}

}  // namespace gatun::gpu
