// The families that the AMD build leaves out: their kernels are written for mma.sync's fragments, and their tiles for more shared
// memory than the 64 KiB of LDS that a work group has. A plan says so; nothing falls back to anything.
#include "attention/plan.h"
#include "gemm/plan.h"
#include "limits/limits.h"

namespace gatun::gpu {
namespace {

gtn_status declined(const char* family, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "%s: the %s backend has no kernels of it for AMD's matrix units (MFMA, WMMA) yet", family,
              kBackendName);
}

}  // namespace

gtn_status gemm_plan(Device&, const gtn_gemm_desc&, Plan**, gtn_plan_info*, gtn_message* message) {
  return declined("gemm", message);
}
bool gemm_serves(const Device&, int32_t) { return false; }
gtn_status gemm_weights_pack(Device&, const gtn_weights_desc&, const void*, void**, gtn_weights_info*, gtn_message* message) {
  return declined("packed weights", message);
}
void gemm_weights_destroy(void*) {}

gtn_status attention_plan(Device&, const gtn_attention_desc&, Plan**, gtn_plan_info*, gtn_message* message) {
  return declined("attention", message);
}
bool attention_serves(const Device&, int32_t) { return false; }

gtn_status measure_limit(Device&, int32_t, double*, gtn_message* message) {
  return fail(message, GTN_UNSUPPORTED, "limits: the %s backend measures none yet", kBackendName);
}

}  // namespace gatun::gpu
