// The table of functions of the Ascend backend: devices, memory, streams and events as the runtime has them, and the operators.
#include "backend/backend.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "core/version.h"
#include "kernels/activation/plan.h"
#include "kernels/attention/plan.h"
#include "kernels/gemm/plan.h"
#include "kernels/glu/plan.h"
#include "kernels/merge/plan.h"
#include "kernels/norm/plan.h"
#include "kernels/rope/plan.h"
#include "kernels/softmax/plan.h"

namespace gatun::ascend {

gtn_status Stream::scratch(int64_t bytes, void** memory, gtn_message* message) {
  if (bytes > INT64_MAX / 2) {
    return fail(message, GTN_OUT_OF_MEMORY, "there is no scratch memory of %lld bytes", static_cast<long long>(bytes));
  }
  if (bytes > workspace_bytes) {
    // Runs that still use the old one may be under way; release waits for them.
    if (workspace != nullptr) release(device->index, workspace);
    workspace = nullptr;
    workspace_bytes = 0;
    // A little more than asked for, so that growing batches do not reallocate on every step.
    const int64_t grown = (bytes + bytes / 4 + 4095) & ~int64_t{4095};
    void* allocated = nullptr;
    if (gtn_status status = allocate(device->index, grown, &allocated, message); status != GTN_OK) return status;
    workspace = allocated;
    workspace_bytes = grown;
  }
  *memory = workspace;
  return GTN_OK;
}

void name_kernel(gtn_plan_info* info, const char* rest) {
  std::snprintf(info->kernel, sizeof info->kernel, "%s.%s", kBackendName, rest);
}

namespace {

void describe(const Properties& properties, gtn_device_info* info) {
  std::snprintf(info->name, sizeof info->name, "%s%s%s", kBackendName, properties.selector[0] != '\0' ? ":" : "",
                properties.selector);
  std::snprintf(info->description, sizeof info->description, "%s", properties.description);
  info->threads = 0;
  info->host_memory = 0;
  info->memory_bytes = properties.memory_bytes;
  info->status = properties.unusable[0] == '\0' ? GTN_OK : GTN_NOT_AVAILABLE;
  std::snprintf(info->reason, sizeof info->reason, "%s", properties.unusable);
}

gtn_status count_devices(int32_t* count, gtn_message* message) { return device_count(count, message); }

gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  Properties properties;
  const gtn_status status = device_properties(index, &properties, message);
  if (status == GTN_OK) describe(properties, info);
  return status;
}

gtn_status open_device(int index, const char* selector, void** device, gtn_message* message) {
  Properties properties;
  if (gtn_status status = device_properties(index, &properties, message); status != GTN_OK) return status;
  // A backend of one device has no numbers: the message says so already.
  if (*selector != '\0' && std::strcmp(selector, properties.selector) != 0) return GTN_NOT_AVAILABLE;
  gtn_device_info info = {};
  describe(properties, &info);
  if (info.status != GTN_OK) return fail(message, info.status, "device '%s': %s", info.name, info.reason);
  if (gtn_status status = device_start(index, message); status != GTN_OK) return status;
  Device* opened = new (std::nothrow) Device{index, properties, {}, nullptr};
  if (opened == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a device");
  *device = opened;
  return GTN_OK;
}

// A selector is a device's index; without one, the first that is available is opened. No other device is asked for anything,
// since that sets it up.
gtn_status device_open(const char* selector, const gtn_device_options*, void** device, gtn_message* message) {
  int count = 0;
  if (gtn_status status = device_count(&count, message); status != GTN_OK) return status;
  gtn_status status = fail(message, GTN_NOT_AVAILABLE, "there is no device '%s:%s', only %d from '%s' on", kBackendName,
                           selector, count, kBackendName);
  for (int i = 0; i < count && status == GTN_NOT_AVAILABLE; ++i) {
    char index[16];
    std::snprintf(index, sizeof index, "%d", i);
    if (*selector == '\0' || std::strcmp(selector, index) == 0) status = open_device(i, selector, device, message);
  }
  return status;
}

void device_close(void* device) { delete static_cast<Device*>(device); }

gtn_status device_describe(void* device, gtn_device_info* info, gtn_message*) {
  describe(static_cast<Device*>(device)->properties, info);
  return GTN_OK;
}

gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  Device& self = *static_cast<Device*>(device);
  if (alignment <= kAllocationAlignment) return allocate(self.index, bytes, memory, message);
  if (bytes > INT64_MAX - alignment) {
    return fail(message, GTN_OUT_OF_MEMORY, "there is no memory of %lld bytes", static_cast<long long>(bytes));
  }
  AlignedBlock* block = new (std::nothrow) AlignedBlock{};
  if (block == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a block");
  if (gtn_status status = allocate(self.index, bytes + alignment, &block->whole, message); status != GTN_OK) {
    delete block;
    return status;
  }
  const uintptr_t mask = static_cast<uintptr_t>(alignment) - 1;
  block->aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block->whole) + mask) & ~mask);
  *memory = block->aligned;
  const std::lock_guard<std::mutex> guard(self.lock);
  block->next = self.aligned;
  self.aligned = block;
  return GTN_OK;
}

void memory_free(void* device, void* memory, int64_t) {
  Device& self = *static_cast<Device*>(device);
  void* whole = memory;
  {
    const std::lock_guard<std::mutex> guard(self.lock);
    AlignedBlock** at = &self.aligned;
    while (*at != nullptr && (*at)->aligned != memory) at = &(*at)->next;
    if (AlignedBlock* block = *at) {
      whole = block->whole;
      *at = block->next;
      delete block;
    }
  }
  release(self.index, whole);
}

gtn_status memory_copy(void* stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                       gtn_message* message) {
  return copy(static_cast<Stream*>(stream)->queue, destination, source, bytes, direction, message);
}

gtn_status stream_create(void* device, void** stream, gtn_message* message) {
  Device* self = static_cast<Device*>(device);
  Queue* queue = nullptr;
  if (gtn_status status = queue_create(self->index, &queue, message); status != GTN_OK) return status;
  Stream* created = new (std::nothrow) Stream{self, queue};
  if (created == nullptr) {
    queue_destroy(queue);
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
  }
  *stream = created;
  return GTN_OK;
}

void stream_destroy(void* stream) {
  Stream* self = static_cast<Stream*>(stream);
  queue_destroy(self->queue);
  if (self->workspace != nullptr) release(self->device->index, self->workspace);
  delete self;
}

gtn_status stream_synchronize(void* stream, gtn_message* message) {
  return queue_synchronize(static_cast<Stream*>(stream)->queue, message);
}

gtn_status event_create(void* device, void** event, gtn_message* message) {
  Mark* mark = nullptr;
  const gtn_status status = mark_create(static_cast<Device*>(device)->index, &mark, message);
  *event = mark;
  return status;
}

void event_destroy(void* event) { mark_destroy(static_cast<Mark*>(event)); }

gtn_status event_record(void* event, void* stream, gtn_message* message) {
  return mark_record(static_cast<Mark*>(event), static_cast<Stream*>(stream)->queue, message);
}

gtn_status event_synchronize(void* event, gtn_message* message) {
  return mark_synchronize(static_cast<Mark*>(event), message);
}

gtn_status event_query(void* event, int32_t* done, gtn_message* message) {
  bool reached = false;
  const gtn_status status = mark_query(static_cast<Mark*>(event), &reached, message);
  *done = reached ? 1 : 0;
  return status;
}

gtn_status event_elapsed(void* start, void* end, double* milliseconds, gtn_message* message) {
  return mark_elapsed(static_cast<Mark*>(start), static_cast<Mark*>(end), milliseconds, message);
}

gtn_status weights_pack(void* device, const gtn_weights_desc* desc, const void* source, void** weights, gtn_weights_info* info,
                        gtn_message* message) {
  return gemm_weights_pack(*static_cast<Device*>(device), *desc, source, weights, info, message);
}

// An operator: how its plans are made, and what it serves.
struct Operator {
  int32_t op;
  gtn_status (*plan)(Device& device, const void* desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
  bool (*serves)(int32_t dtype);
};

template <typename Desc, gtn_status (*kPlan)(Device&, const Desc&, Plan**, gtn_plan_info*, gtn_message*)>
gtn_status plan_of(Device& device, const void* desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  return kPlan(device, *static_cast<const Desc*>(desc), plan, info, message);
}

constexpr Operator kOperators[] = {
    {GTN_OP_GEMM, plan_of<gtn_gemm_desc, gemm_plan>, gemm_serves},
    {GTN_OP_ATTENTION, plan_of<gtn_attention_desc, attention_plan>, attention_serves},
    {GTN_OP_NORM, plan_of<gtn_norm_desc, norm_plan>, norm_serves},
    {GTN_OP_SOFTMAX, plan_of<gtn_softmax_desc, softmax_plan>, softmax_serves},
    {GTN_OP_ACTIVATION, plan_of<gtn_activation_desc, activation_plan>, activation_serves},
    {GTN_OP_MERGE, plan_of<gtn_merge_desc, merge_plan>, merge_serves},
    {GTN_OP_ROPE, plan_of<gtn_rope_desc, rope_plan>, rope_serves},
    {GTN_OP_GLU, plan_of<gtn_glu_desc, glu_plan>, glu_serves},
};

const Operator* find(int32_t op) {
  for (const Operator& candidate : kOperators) {
    if (candidate.op == op) return &candidate;
  }
  return nullptr;
}

gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info, gtn_message* message) {
  const Operator* found = find(op);
  if (found == nullptr) return fail(message, GTN_UNSUPPORTED, "the %s backend has no operator %d", kBackendName, op);
  Plan* created = nullptr;
  const gtn_status status = found->plan(*static_cast<Device*>(device), desc, &created, info, message);
  if (status == GTN_OK) {
    info->op = op;
    *plan = created;
  }
  return status;
}

void plan_destroy(void* plan) { delete static_cast<Plan*>(plan); }

gtn_status run(void* plan, void* stream, const void* args, gtn_message* message) {
  return static_cast<const Plan*>(plan)->run(*static_cast<Stream*>(stream), args, message);
}

gtn_status supports(void*, int32_t op, int32_t dtype, int32_t* claimed, gtn_message*) {
  const Operator* found = find(op);
  *claimed = found != nullptr && found->serves(dtype);
  return GTN_OK;
}

// The name is filled in when the entry is asked for: it is the runtime's.
gtn_backend table = {
    sizeof(gtn_backend), GTN_BACKEND_ABI_VERSION, nullptr, GATUN_VERSION,
    count_devices, device_info, device_open, device_close, device_describe,
    memory_alloc, memory_free, memory_copy,
    stream_create, stream_destroy, stream_synchronize,
    event_create, event_destroy, event_record, event_synchronize, event_query, event_elapsed,
    weights_pack, gemm_weights_destroy,
    plan_create, plan_destroy, run,
    supports,
    nullptr, nullptr, nullptr,  // no limits are measured, no weights that come quantized, no convolutions
};

}  // namespace
}  // namespace gatun::ascend

extern "C" const gtn_backend* gtn_backend_entry(void) {
  gatun::ascend::table.name = gatun::ascend::kBackendName;
  return &gatun::ascend::table;
}
