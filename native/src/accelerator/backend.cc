// The table of functions of an accelerator's backend: devices, memory, streams and events as the runtime has them, plans of the
// operators that the backend serves.
#include "backend/backend.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "core/version.h"

namespace gatun::GATUN_ACCELERATOR {

gtn_status Stream::scratch(int64_t bytes, void** memory, gtn_message* message) {
  if (bytes > INT64_MAX / 2) {
    return fail(message, GTN_OUT_OF_MEMORY, "there is no scratch memory of %lld bytes", static_cast<long long>(bytes));
  }
  if (bytes > workspace_bytes) {
    // Runs that still use the old one are in the queue.
    if (workspace != nullptr) {
      queue_synchronize(queue, nullptr);
      release(device->index, workspace);
    }
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

namespace {

template <size_t N>
void name_device(const char* selector, char (&name)[N]) {
  std::snprintf(name, N, "%s%s%s", kBackendName, *selector != '\0' ? ":" : "", selector);
}

void describe(const Properties& properties, gtn_device_info* info) {
  name_device(properties.selector, info->name);
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

gtn_status open_device(int index, void** device, gtn_message* message) {
  Properties properties;
  if (gtn_status status = device_properties(index, &properties, message); status != GTN_OK) return status;
  gtn_device_info info = {};
  describe(properties, &info);
  if (info.status != GTN_OK) return fail(message, info.status, "device '%s': %s", info.name, info.reason);
  if (gtn_status status = device_start(index, message); status != GTN_OK) return status;
  Device* opened = new (std::nothrow) Device{index, properties, {}, nullptr};
  if (opened == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a device");
  *device = opened;
  return GTN_OK;
}

// Without a selector, the first that is available is opened. No other device is asked for its properties, since with some
// runtimes that sets it up.
gtn_status device_open(const char* selector, const gtn_device_options*, void** device, gtn_message* message) {
  int count = 0;
  if (gtn_status status = device_count(&count, message); status != GTN_OK) return status;
  char there[128] = "";
  gtn_message refused = {};  // of the first device, where any will do
  refused.size = sizeof refused;
  for (int i = 0; i < count; ++i) {
    char own[sizeof Properties{}.selector];
    device_selector(i, own);
    if (*selector != '\0' && std::strcmp(selector, own) != 0) {
      char name[64];
      name_device(own, name);
      const size_t used = std::strlen(there);
      std::snprintf(there + used, sizeof there - used, "%s%s", i == 0 ? "" : ", ", name);
      continue;
    }
    const gtn_status status = open_device(i, device, message);
    if (status != GTN_NOT_AVAILABLE) return status;
    if (refused.text[0] == '\0') refused = *message;
  }
  if (refused.text[0] != '\0') return fail(message, GTN_NOT_AVAILABLE, "%s", refused.text);
  return fail(message, GTN_NOT_AVAILABLE, "there is no device '%s:%s', only %s", kBackendName, selector, there);
}

void device_close(void* device) { delete static_cast<Device*>(device); }

gtn_status device_describe(void* device, gtn_device_info* info, gtn_message*) {
  describe(static_cast<Device*>(device)->properties, info);
  return GTN_OK;
}

// A block of the runtime's, or, where that is not aligned as it must be, inside of a larger one.
gtn_status allocate_aligned(void* device, decltype(allocate)* from, decltype(release)* to, int64_t bytes, int64_t alignment,
                            void** memory, gtn_message* message) {
  Device& self = *static_cast<Device*>(device);
  void* plain = nullptr;
  if (gtn_status status = from(self.index, bytes, &plain, message); status != GTN_OK) return status;
  if (reinterpret_cast<uintptr_t>(plain) % static_cast<uintptr_t>(alignment) == 0) {
    *memory = plain;
    return GTN_OK;
  }
  to(self.index, plain);
  if (bytes > INT64_MAX - alignment) {
    return fail(message, GTN_OUT_OF_MEMORY, "there is no memory of %lld bytes", static_cast<long long>(bytes));
  }
  AlignedBlock* block = new (std::nothrow) AlignedBlock{};
  if (block == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a block");
  if (gtn_status status = from(self.index, bytes + alignment, &block->whole, message); status != GTN_OK) {
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

void release_aligned(void* device, decltype(release)* to, void* memory) {
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
  to(self.index, whole);
}

gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return allocate_aligned(device, allocate, release, bytes, alignment, memory, message);
}

void memory_free(void* device, void* memory, int64_t) { release_aligned(device, release, memory); }

gtn_status host_memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return allocate_aligned(device, allocate_host, release_host, bytes, alignment, memory, message);
}

void host_memory_free(void* device, void* memory, int64_t) { release_aligned(device, release_host, memory); }

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
  return kServed.weights_pack(*static_cast<Device*>(device), *desc, source, weights, info, message);
}

gtn_status weights_pack_quantized(void* device, const gtn_quantized_desc* desc, const void* integers, const float* scales,
                                  const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message) {
  return kServed.weights_pack_quantized(*static_cast<Device*>(device), *desc, integers, scales, zero_points, weights, info, message);
}

gtn_status conv_weights_pack(void* device, const gtn_conv_weights_desc* desc, const void* source, const float* gamma, const float* beta,
                             const float* mean, const float* variance, void** weights, gtn_weights_info* info, gtn_message* message) {
  return kServed.conv_weights_pack(*static_cast<Device*>(device), *desc, source, gamma, beta, mean, variance, weights, info, message);
}

void weights_destroy(void* weights) { kServed.weights_destroy(weights); }

const Operator* find(int32_t op) {
  for (const Operator& candidate : kServed.operators) {
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

gtn_status supports(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message*) {
  const Operator* found = find(op);
  *claimed = found != nullptr && found->serves(*static_cast<Device*>(device), dtype);
  return GTN_OK;
}

gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  return kServed.measure(*static_cast<Device*>(device), limit, per_second, message);
}

// The name is filled in when the entry is asked for: it is the runtime's.
gtn_backend table = {
    sizeof(gtn_backend), GTN_BACKEND_ABI_VERSION, nullptr, GATUN_VERSION,
    count_devices, device_info, device_open, device_close, device_describe,
    memory_alloc, memory_free, memory_copy,
    stream_create, stream_destroy, stream_synchronize,
    event_create, event_destroy, event_record, event_synchronize, event_query, event_elapsed,
    weights_pack, weights_destroy,
    plan_create, plan_destroy, run,
    supports, measure,
    weights_pack_quantized, conv_weights_pack,
    host_memory_alloc, host_memory_free,
};

}  // namespace
}  // namespace gatun::GATUN_ACCELERATOR

extern "C" const gtn_backend* gtn_backend_entry(void) {
  using namespace gatun::GATUN_ACCELERATOR;
  table.name = kBackendName;
  if (kServed.measure == nullptr) table.measure = nullptr;
  if (kServed.weights_pack_quantized == nullptr) table.weights_pack_quantized = nullptr;
  if (kServed.conv_weights_pack == nullptr) table.conv_weights_pack = nullptr;
  return &table;
}
