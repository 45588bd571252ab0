#include "core/objects.h"

#include <cmath>
#include <new>
#include <utility>

#include "core/backends.h"
#include "core/version.h"

namespace gatun {

constinit HandleTable devices{Kind::kDevice}, streams{Kind::kStream}, events{Kind::kEvent}, plans{Kind::kPlan},
    weights{Kind::kWeights};

namespace {

char gone;  // its address marks a removed allocation
void* const kGone = &gone;

size_t hash(const void* memory) {
  uint64_t bits = reinterpret_cast<uintptr_t>(memory);
  return static_cast<size_t>((bits >> 6) * 0x9e3779b97f4a7c15u >> 16);
}

// Closes and opens are rare: one at a time.
std::mutex lifecycle;

// Marks of a held stream: the plan's index + 1 in bits 0 to 27, that of the weights in bits 28 to 55.
constexpr int kWeightsShift = 28;
constexpr uint64_t kIndexMask = (uint64_t{1} << kWeightsShift) - 1;

}  // namespace

Allocations::Allocation* Allocations::find(void* memory) const {
  if (capacity_ == 0) return nullptr;
  for (size_t i = hash(memory) & (capacity_ - 1);; i = (i + 1) & (capacity_ - 1)) {
    if (slots_[i].memory == memory) return &slots_[i];
    if (slots_[i].memory == nullptr) return nullptr;
  }
}

bool Allocations::reserve() {
  if ((used_ + 1) * 2 <= capacity_) return true;
  size_t live = 0;
  for (size_t i = 0; i < capacity_; ++i) live += slots_[i].memory != nullptr && slots_[i].memory != kGone;
  size_t grown = 16;
  while (grown < (live + 1) * 4) grown *= 2;
  Allocation* slots = new (std::nothrow) Allocation[grown]{};
  if (slots == nullptr) return false;
  Allocation* old = slots_;
  size_t old_capacity = capacity_;
  slots_ = slots;
  capacity_ = grown;
  used_ = 0;
  for (size_t i = 0; i < old_capacity; ++i) {
    if (old[i].memory != nullptr && old[i].memory != kGone) add(old[i].memory, old[i].bytes);
  }
  delete[] old;
  return true;
}

void Allocations::add(void* memory, int64_t bytes) {
  size_t i = hash(memory) & (capacity_ - 1);
  while (slots_[i].memory != nullptr) i = (i + 1) & (capacity_ - 1);
  slots_[i] = {memory, bytes};
  ++used_;
}

int64_t Allocations::take(void* memory) {
  Allocation* allocation = find(memory);
  if (allocation == nullptr) return -1;
  allocation->memory = kGone;
  return allocation->bytes;
}

HeldStream::HeldStream(gtn_stream handle, gtn_plan plan, gtn_weights packed) {
  Slot* slot = streams.slot(handle);
  if (slot == nullptr || slot->generation.load(std::memory_order_relaxed) != HandleTable::generation(handle)) {
    status_ = GTN_STALE_HANDLE;
    return;
  }
  uint64_t marks = Slot::kHeld;
  if (plan != 0) marks |= HandleTable::index(plan) + uint64_t{1};
  if (packed != 0) marks |= (HandleTable::index(packed) + uint64_t{1}) << kWeightsShift;
  uint64_t nobody = 0;
  if (!slot->hold.compare_exchange_strong(nobody, marks, std::memory_order_seq_cst)) {
    status_ = GTN_BUSY;
    return;
  }
  // Closed between the first look and the mark?
  if (slot->generation.load(std::memory_order_seq_cst) != HandleTable::generation(handle)) {
    slot->hold.store(0, std::memory_order_release);
    status_ = GTN_STALE_HANDLE;
    return;
  }
  slot_ = slot;
  status_ = GTN_OK;
}

bool HeldStream::uses(uint64_t hold, Kind kind, uint32_t index) {
  const uint64_t mark = kind == Kind::kPlan ? hold & kIndexMask : hold >> kWeightsShift & kIndexMask;
  return (hold & Slot::kHeld) != 0 && mark == index + uint64_t{1};
}

namespace {

// Closes the object of a handle other than a stream's: refuse(object) may decline with a status and a message; destroy(object)
// ends it. Nothing changes unless the result is GTN_OK.
template <typename T, typename Refuse, typename Destroy>
gtn_status close(HandleTable& table, uint64_t handle, Kind kind, const char* what, gtn_message* message, Refuse refuse,
                 Destroy destroy) {
  std::lock_guard<std::mutex> lock(lifecycle);
  Slot* slot = table.slot(handle);
  const uint32_t generation = HandleTable::generation(handle);
  if (slot == nullptr || slot->generation.load() != generation || (generation & Slot::kStateMask) != Slot::kOpen) {
    return fail(message, GTN_STALE_HANDLE, "%s: the handle is not open", what);
  }
  slot->generation.store(generation | Slot::kClosing, std::memory_order_seq_cst);
  bool inside = slot->hold.load(std::memory_order_seq_cst) != 0;
  if (kind == Kind::kPlan || kind == Kind::kWeights) {
    streams.for_each([&](const Slot& stream) {
      inside = inside || HeldStream::uses(stream.hold.load(std::memory_order_seq_cst), kind, HandleTable::index(handle));
    });
  }
  T* object = static_cast<T*>(slot->object);
  gtn_status status = inside ? fail(message, GTN_BUSY, "%s: a call is inside it", what) : refuse(*object);
  if (status != GTN_OK) {
    slot->generation.store(generation, std::memory_order_seq_cst);
    return status;
  }
  destroy(*object);
  delete object;
  table.release(slot, handle);
  return GTN_OK;
}

constexpr auto kNeverRefuse = [](const auto&) { return GTN_OK; };

// Hands out a handle for a new object, or undoes it.
template <typename T, typename Undo>
gtn_status open(HandleTable& table, T* object, uint64_t* handle, gtn_message* message, Undo undo) {
  uint64_t given = table.open(object);
  if (given == 0) {
    undo();
    delete object;
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a handle");
  }
  *handle = given;
  return GTN_OK;
}

gtn_status stale(gtn_message* message, const char* what) {
  return fail(message, GTN_STALE_HANDLE, "%s: the handle is not open", what);
}

gtn_status not_held(const HeldStream& held, gtn_message* message) {
  return held.status() == GTN_BUSY ? fail(message, GTN_BUSY, "stream: another thread is inside it")
                                   : stale(message, "stream");
}

}  // namespace

}  // namespace gatun

using namespace gatun;

uint32_t gtn_abi_version(void) { return GTN_ABI_VERSION; }

const char* gtn_version(void) { return GATUN_VERSION; }

// ---- Devices

gtn_status gtn_device_query(int32_t backend, int32_t device, gtn_device_info* info, gtn_message* message) {
  GATUN_CHECK(check_output(message, "info", info));
  const gtn_backend* table = nullptr;
  GATUN_CHECK(usable_backend(backend, &table, message));
  Reason reason(message);
  int32_t count = 0;
  GATUN_CHECK(reason.of(table->device_count(&count, reason)));
  if (device < 0 || device >= count) {
    return fail(message, GTN_INVALID_ARGUMENT, "device: is %d, expected 0 to %d", device, count - 1);
  }
  gtn_device_info found = {};
  found.size = sizeof found;
  GATUN_CHECK(reason.of(table->device_info(device, &found, reason)));
  give(found, info);
  return GTN_OK;
}

gtn_status gtn_device_open(const char* name, const gtn_device_options* options, gtn_device* device, gtn_message* message) {
  if (name == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "name: is null, expected a device such as \"cpu\"");
  if (device == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "device: is null");
  gtn_device_options chosen = {sizeof chosen, 0};
  if (options != nullptr) GATUN_CHECK(take(message, "options", options, &chosen));
  if (chosen.threads < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "options.threads: is %d, expected 0 or more", chosen.threads);
  }
  const size_t length = std::strcspn(name, ":");
  const char* selector = name[length] == ':' ? name + length + 1 : "";
  if (length == 0 || length >= sizeof gtn_backend_info{}.name || std::strlen(selector) > 63 ||
      (name[length] == ':' && *selector == '\0')) {
    return fail(message, GTN_INVALID_ARGUMENT, "name: is '%.100s', expected \"<backend>\" or \"<backend>:<which>\"", name);
  }
  const gtn_backend* backend = find_backend(name, length, message);
  if (backend == nullptr) return GTN_NOT_AVAILABLE;
  void* impl = nullptr;
  Reason reason(message);
  GATUN_CHECK(reason.of(backend->device_open(selector, &chosen, &impl, reason)));
  Device* opened = new (std::nothrow) Device(backend, impl);
  if (opened == nullptr) {
    backend->device_close(impl);
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a device");
  }
  return open(devices, opened, device, message, [&] { backend->device_close(impl); });
}

gtn_status gtn_device_describe(gtn_device device, gtn_device_info* info, gtn_message* message) {
  GATUN_CHECK(check_output(message, "info", info));
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  const Device& self = inside.object<Device>();
  Reason reason(message);
  gtn_device_info found = {};
  found.size = sizeof found;
  GATUN_CHECK(reason.of(self.backend->device_describe(self.impl, &found, reason)));
  give(found, info);
  return GTN_OK;
}

gtn_status gtn_device_supports(gtn_device device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message) {
  if (claimed == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "claimed: is null");
  if (op < GTN_OP_GEMM || op > GTN_OP_FAKE_QUANTIZE) {
    return fail(message, GTN_INVALID_ARGUMENT, "op: is %d, expected GTN_OP_*, %d to %d", op, GTN_OP_GEMM,
                GTN_OP_FAKE_QUANTIZE);
  }
  if (dtype < GTN_F32 || dtype > GTN_BF16_2OF4) {
    return fail(message, GTN_INVALID_ARGUMENT, "dtype: is %d, expected a dtype, %d to %d", dtype, GTN_F32, GTN_BF16_2OF4);
  }
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  const Device& self = inside.object<Device>();
  Reason reason(message);
  int32_t answer = -1;
  if (self.backend->supports != nullptr) {
    GATUN_CHECK(reason.of(self.backend->supports(self.impl, op, dtype, &answer, reason)));
  }
  *claimed = answer;
  return GTN_OK;
}

gtn_status gtn_device_measure(gtn_device device, int32_t limit, double* per_second, gtn_message* message) {
  if (per_second == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "per_second: is null");
  if (limit < GTN_LIMIT_F32 || limit > GTN_LIMIT_EXP) {
    return fail(message, GTN_INVALID_ARGUMENT, "limit: is %d, expected GTN_LIMIT_*, %d to %d", limit, GTN_LIMIT_F32,
                GTN_LIMIT_EXP);
  }
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  const Device& self = inside.object<Device>();
  if (self.backend->measure == nullptr) {
    return fail(message, GTN_UNSUPPORTED, "the %s backend measures no limits", self.backend->name);
  }
  Reason reason(message);
  double measured = 0;
  GATUN_CHECK(reason.of(self.backend->measure(self.impl, limit, &measured, reason)));
  *per_second = measured;
  return GTN_OK;
}

gtn_status gtn_device_close(gtn_device device, gtn_message* message) {
  return close<Device>(
      devices, device, Kind::kDevice, "device", message,
      [&](const Device& self) {
        if (self.streams + self.events + self.plans + self.weights + self.blocks == 0) return gtn_status{GTN_OK};
        return fail(message, GTN_BUSY,
                    "device: still has open %lld streams, %lld events, %lld plans, %lld packed weights, %lld memory blocks",
                    static_cast<long long>(self.streams), static_cast<long long>(self.events),
                    static_cast<long long>(self.plans), static_cast<long long>(self.weights),
                    static_cast<long long>(self.blocks));
      },
      [](Device& self) { self.backend->device_close(self.impl); });
}

// ---- Streams

gtn_status gtn_stream_create(gtn_device device, gtn_stream* stream, gtn_message* message) {
  if (stream == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "stream: is null");
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  Reason reason(message);
  void* impl = nullptr;
  GATUN_CHECK(reason.of(on.backend->stream_create(on.impl, &impl, reason)));
  Stream* created = new (std::nothrow) Stream{&on, impl, {sizeof(gtn_message), ""}};
  if (created == nullptr) {
    on.backend->stream_destroy(impl);
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
  }
  GATUN_CHECK(open(streams, created, stream, message, [&] { on.backend->stream_destroy(impl); }));
  ++on.streams;
  return GTN_OK;
}

gtn_status gtn_stream_synchronize(gtn_stream stream, gtn_message* message) {
  HeldStream held(stream);
  if (held.status() != GTN_OK) return not_held(held, message);
  Reason reason(message);
  return reason.of(held->device->backend->stream_synchronize(held->impl, reason));
}

gtn_status gtn_stream_message(gtn_stream stream, gtn_message* message) {
  if (message == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "message: is null");
  HeldStream held(stream);
  if (held.status() != GTN_OK) return not_held(held, message);
  say(message, "%s", held->message.text);
  return GTN_OK;
}

gtn_status gtn_stream_close(gtn_stream stream, gtn_message* message) {
  std::lock_guard<std::mutex> lock(lifecycle);
  Slot* slot = streams.slot(stream);
  const uint32_t generation = HandleTable::generation(stream);
  if (slot == nullptr || slot->generation.load() != generation || (generation & Slot::kStateMask) != Slot::kOpen) {
    return stale(message, "stream");
  }
  uint64_t nobody = 0;
  if (!slot->hold.compare_exchange_strong(nobody, Slot::kHeld, std::memory_order_seq_cst)) {
    return fail(message, GTN_BUSY, "stream: another thread is inside it");
  }
  slot->generation.store(generation | Slot::kClosing, std::memory_order_seq_cst);
  Stream* self = static_cast<Stream*>(slot->object);
  self->device->backend->stream_destroy(self->impl);
  --self->device->streams;
  delete self;
  // Let go of before it is given back: the next stream of this slot must not seem busy.
  slot->hold.store(0, std::memory_order_release);
  streams.release(slot, stream);
  return GTN_OK;
}

// ---- Events

gtn_status gtn_event_create(gtn_device device, gtn_event* event, gtn_message* message) {
  if (event == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "event: is null");
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  if (on.backend->event_create == nullptr) {
    return fail(message, GTN_UNSUPPORTED, "the %s backend has no events", on.backend->name);
  }
  Reason reason(message);
  void* impl = nullptr;
  GATUN_CHECK(reason.of(on.backend->event_create(on.impl, &impl, reason)));
  Event* created = new (std::nothrow) Event(&on, impl);
  if (created == nullptr) {
    on.backend->event_destroy(impl);
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for an event");
  }
  GATUN_CHECK(open(events, created, event, message, [&] { on.backend->event_destroy(impl); }));
  ++on.events;
  return GTN_OK;
}

gtn_status gtn_event_record(gtn_event event, gtn_stream stream, gtn_message* message) {
  Inside inside(events, event);
  if (!inside) return stale(message, "event");
  HeldStream held(stream);
  if (held.status() != GTN_OK) return not_held(held, message);
  Event& self = inside.object<Event>();
  if (self.device != held->device) {
    return fail(message, GTN_INVALID_ARGUMENT, "stream: is on another device than the event");
  }
  Reason reason(message);
  GATUN_CHECK(reason.of(self.device->backend->event_record(self.impl, held->impl, reason)));
  self.recorded = true;
  return GTN_OK;
}

namespace {

gtn_status recorded(const Event& event, const char* name, gtn_message* message) {
  return event.recorded ? GTN_OK : fail(message, GTN_INVALID_ARGUMENT, "%s: was never recorded", name);
}

}  // namespace

gtn_status gtn_event_synchronize(gtn_event event, gtn_message* message) {
  Inside inside(events, event);
  if (!inside) return stale(message, "event");
  const Event& self = inside.object<Event>();
  GATUN_CHECK(recorded(self, "event", message));
  Reason reason(message);
  return reason.of(self.device->backend->event_synchronize(self.impl, reason));
}

gtn_status gtn_event_query(gtn_event event, int32_t* done, gtn_message* message) {
  if (done == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "done: is null");
  Inside inside(events, event);
  if (!inside) return stale(message, "event");
  const Event& self = inside.object<Event>();
  GATUN_CHECK(recorded(self, "event", message));
  Reason reason(message);
  return reason.of(self.device->backend->event_query(self.impl, done, reason));
}

gtn_status gtn_event_elapsed(gtn_event start, gtn_event end, double* milliseconds, gtn_message* message) {
  if (milliseconds == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "milliseconds: is null");
  Inside from(events, start), to(events, end);
  if (!from) return stale(message, "start");
  if (!to) return stale(message, "end");
  const Event &first = from.object<Event>(), &last = to.object<Event>();
  if (first.device != last.device) return fail(message, GTN_INVALID_ARGUMENT, "end: is on another device than start");
  GATUN_CHECK(recorded(first, "start", message));
  GATUN_CHECK(recorded(last, "end", message));
  Reason reason(message);
  return reason.of(first.device->backend->event_elapsed(first.impl, last.impl, milliseconds, reason));
}

gtn_status gtn_event_close(gtn_event event, gtn_message* message) {
  return close<Event>(events, event, Kind::kEvent, "event", message, kNeverRefuse, [](Event& self) {
    self.device->backend->event_destroy(self.impl);
    --self.device->events;
  });
}

// ---- Memory

namespace {

// Memory of the device or, by host_memory_alloc, of the host.
gtn_status allocate(gtn_device device, bool of_host, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  if (memory == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "memory: is null");
  if (bytes < 1) {
    return fail(message, GTN_INVALID_ARGUMENT, "bytes: is %lld, expected 1 or more", static_cast<long long>(bytes));
  }
  if (alignment < 64 || alignment > (int64_t{2} << 20) || (alignment & (alignment - 1)) != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "alignment: is %lld, expected a power of two from 64 to 2097152",
                static_cast<long long>(alignment));
  }
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  const auto from = of_host ? on.backend->host_memory_alloc : on.backend->memory_alloc;
  if (from == nullptr) {
    return fail(message, GTN_UNSUPPORTED, "the backend %s has no memory of the host that its devices reach by themselves",
                on.backend->name);
  }
  Reason reason(message);
  std::lock_guard<std::mutex> lock(on.memory_mutex);
  Allocations& allocations = of_host ? on.host_allocations : on.allocations;
  if (!allocations.reserve()) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a memory block's record");
  void* given = nullptr;
  GATUN_CHECK(reason.of(from(on.impl, bytes, alignment, &given, reason)));
  allocations.add(given, bytes);
  ++on.blocks;
  *memory = given;
  return GTN_OK;
}

gtn_status release(gtn_device device, bool of_host, void* memory, gtn_message* message) {
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  std::lock_guard<std::mutex> lock(on.memory_mutex);
  const int64_t bytes = memory == nullptr ? -1 : (of_host ? on.host_allocations : on.allocations).take(memory);
  if (bytes < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "memory: %p is no open block of this device's %s", memory,
                of_host ? "gtn_host_memory_alloc" : "gtn_memory_alloc");
  }
  (of_host ? on.backend->host_memory_free : on.backend->memory_free)(on.impl, memory, bytes);
  --on.blocks;
  return GTN_OK;
}

}  // namespace

gtn_status gtn_memory_alloc(gtn_device device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return allocate(device, false, bytes, alignment, memory, message);
}

gtn_status gtn_memory_free(gtn_device device, void* memory, gtn_message* message) {
  return release(device, false, memory, message);
}

gtn_status gtn_host_memory_alloc(gtn_device device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return allocate(device, true, bytes, alignment, memory, message);
}

gtn_status gtn_host_memory_free(gtn_device device, void* memory, gtn_message* message) {
  return release(device, true, memory, message);
}

gtn_status gtn_memory_copy(gtn_stream stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                           gtn_message* message) {
  if (bytes < 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "bytes: is %lld, expected 0 or more", static_cast<long long>(bytes));
  }
  if (direction < GTN_HOST_TO_DEVICE || direction > GTN_DEVICE_TO_DEVICE) {
    return fail(message, GTN_INVALID_ARGUMENT, "direction: is %d, expected 1 to 3", direction);
  }
  if (bytes > 0) {
    if (destination == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "destination: is null");
    if (source == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "source: is null");
    const Extent range = {1, bytes, bytes, false};
    if (overlap(range, destination, 1, range, source, 1)) {
      return fail(message, GTN_INVALID_ARGUMENT, "source: overlaps destination");
    }
  }
  HeldStream held(stream);
  if (held.status() != GTN_OK) return not_held(held, message);
  if (bytes == 0) return GTN_OK;
  Reason reason(message);
  return reason.of(held->device->backend->memory_copy(held->impl, destination, source, bytes, direction, reason));
}

// ---- Packed weights

namespace {

gtn_status open_weights(const Weights& made, gtn_weights* packed, gtn_message* message) {
  Weights* created = new (std::nothrow) Weights(made);
  if (created == nullptr) {
    made.device->backend->weights_destroy(made.impl);
    return fail(message, GTN_OUT_OF_MEMORY, "no memory for packed weights");
  }
  GATUN_CHECK(open(weights, created, packed, message, [&] { made.device->backend->weights_destroy(made.impl); }));
  ++made.device->weights;
  return GTN_OK;
}

// Packs by the backend's function and keeps what comes of it.
template <typename Pack>
gtn_status pack_weights(gtn_device device, bool quantized, int32_t format, int64_t group_size, int64_t groups, int64_t k, int64_t n,
                        gtn_weights* packed, gtn_message* message, Pack pack) {
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  if (on.backend->weights_pack == nullptr || (quantized && on.backend->weights_pack_quantized == nullptr)) {
    return fail(message, GTN_UNSUPPORTED, "the %s backend packs no %sweights", on.backend->name, quantized ? "quantized " : "");
  }
  Reason reason(message);
  gtn_weights_info info = {};
  info.size = sizeof info;
  void* impl = nullptr;
  GATUN_CHECK(reason.of(pack(on, &impl, &info, reason)));
  info.format = format;
  info.k = k;
  info.n = n;
  info.groups = groups;
  info.group_size = group_size;
  return open_weights({&on, impl, info, GTN_OP_GEMM, 0, {}}, packed, message);
}

gtn_status check_quantize(gtn_message* message, const gtn_weights_desc& desc) {
  const bool quantized = desc.format == GTN_U4 || desc.format == GTN_U8;
  if (quantized) {
    GATUN_CHECK(check_flag(message, "desc.symmetric", desc.symmetric));
    if (desc.quantize >= GTN_QUANTIZE_NEAREST && desc.quantize <= GTN_QUANTIZE_FIT) return GTN_OK;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.quantize: is %d, expected GTN_QUANTIZE_*, %d to %d", desc.quantize,
                GTN_QUANTIZE_NEAREST, GTN_QUANTIZE_FIT);
  }
  if (desc.symmetric == 0 && desc.quantize == 0) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "desc.%s: is %d, expected 0 with %s", desc.symmetric != 0 ? "symmetric" : "quantize",
              desc.symmetric != 0 ? desc.symmetric : desc.quantize, dtype_name(desc.format));
}

}  // namespace

gtn_status gtn_weights_pack(gtn_device device, const gtn_weights_desc* desc, const void* source, gtn_weights* packed,
                            gtn_message* message) {
  if (packed == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "weights: is null");
  gtn_weights_desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  GATUN_CHECK(check_format(message, checked.format, checked.group_size));
  GATUN_CHECK(check_quantize(message, checked));
  GATUN_CHECK(check_tensor(message, "desc.source", checked.source, kFloatsAndHalf, 2, 3, false, false));
  const int row = checked.source.rank - 2;
  const int64_t k = checked.source.shape[row], n = checked.source.shape[row + 1];
  if (checked.source.rank == 3) GATUN_CHECK(check_at_least(message, "desc.source.shape[0]", checked.source.shape[0], 1));
  const bool empty = k == 0 || n == 0;
  GATUN_CHECK(check_pointer(message, "source", source, !(empty && source == nullptr), element_size(checked.source.dtype)));
  const int64_t groups = row > 0 ? checked.source.shape[0] : 0;
  return pack_weights(device, false, checked.format, checked.group_size, groups, k, n, packed, message,
                      [&](const Device& on, void** impl, gtn_weights_info* info, gtn_message* reason) {
                        return on.backend->weights_pack(on.impl, &checked, source, impl, info, reason);
                      });
}

gtn_status gtn_weights_pack_quantized(gtn_device device, const gtn_quantized_desc* desc, const void* integers, const void* scales,
                                      const void* zero_points, gtn_weights* packed, gtn_message* message) {
  if (packed == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "weights: is null");
  gtn_quantized_desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  const bool float8 = checked.format == GTN_F8E4M3 || checked.format == GTN_F8E5M2;
  if (checked.format != GTN_U4 && checked.format != GTN_U8 && !float8) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.format: is %s (%d), expected U4, U8, F8E4M3 or F8E5M2",
                dtype_name(checked.format), checked.format);
  }
  GATUN_CHECK(check_format(message, checked.format, checked.group_size));
  GATUN_CHECK(check_at_least(message, "desc.groups", checked.groups, 0));
  GATUN_CHECK(check_at_least(message, "desc.k", checked.k, 0));
  GATUN_CHECK(check_at_least(message, "desc.n", checked.n, 0));
  const int64_t size = float8 ? std::max<int64_t>(checked.k, 1) : checked.group_size;
  const int64_t blocks = checked.k / size + (checked.k % size != 0 ? 1 : 0);
  const int64_t matrices = checked.groups > 0 ? checked.groups : 1;
  GATUN_CHECK(check_array(message, "desc.k", "integers", size, {matrices, checked.n, blocks}));
  GATUN_CHECK(check_array(message, "desc.k", "scales", 4, {matrices, checked.n, blocks}));
  const bool empty = checked.k == 0 || checked.n == 0;
  GATUN_CHECK(check_pointer(message, "integers", integers, !(empty && integers == nullptr), 1));
  GATUN_CHECK(check_pointer(message, "scales", scales, !(empty && scales == nullptr), 4));
  if (float8 && zero_points != nullptr) {
    return fail(message, GTN_INVALID_ARGUMENT, "zero_points: is not null, expected null with %s", dtype_name(checked.format));
  }
  return pack_weights(device, true, checked.format, checked.group_size, checked.groups, checked.k, checked.n, packed, message,
                      [&](const Device& on, void** impl, gtn_weights_info* info, gtn_message* reason) {
                        return on.backend->weights_pack_quantized(on.impl, &checked, integers, static_cast<const float*>(scales),
                                                                  static_cast<const uint8_t*>(zero_points), impl, info, reason);
                      });
}

gtn_status gtn_conv_weights_pack(gtn_device device, const gtn_conv_weights_desc* desc, const void* source, const void* gamma,
                                 const void* beta, const void* mean, const void* variance, gtn_weights* packed,
                                 gtn_message* message) {
  if (packed == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "weights: is null");
  gtn_conv_weights_desc checked;
  GATUN_CHECK(take(message, "desc", desc, &checked));
  if (checked.format != GTN_F32 && checked.format != GTN_BF16) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.format: is %s (%d), expected F32 or BF16", dtype_name(checked.format),
                checked.format);
  }
  const gtn_tensor_desc& from = checked.source;
  GATUN_CHECK(check_tensor(message, "desc.source", from, kFloats, 3, 5, false, false));
  for (int d = 0; d < from.rank; ++d) {
    if (from.shape[d] >= 1) continue;
    return fail(message, GTN_INVALID_ARGUMENT, "desc.source.shape[%d]: is 0, expected 1 or more", d);
  }
  if (checked.groups < 1 || from.shape[0] % checked.groups != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.groups: is %lld, expected a divisor of the %lld channels of out",
                static_cast<long long>(checked.groups), static_cast<long long>(from.shape[0]));
  }
  GATUN_CHECK(check_flag(message, "desc.has_norm", checked.has_norm));
  if (!std::isfinite(checked.epsilon) || checked.epsilon < 0 || (!checked.has_norm && checked.epsilon != 0)) {
    return fail(message, GTN_INVALID_ARGUMENT, "desc.epsilon: is %g, expected %s", static_cast<double>(checked.epsilon),
                checked.has_norm ? "a finite number, 0 or more" : "0, since has_norm is");
  }
  GATUN_CHECK(check_pointer(message, "source", source, true, element_size(from.dtype)));
  for (const auto& [name, array] : {std::pair{"gamma", gamma}, {"beta", beta}, {"mean", mean}, {"variance", variance}}) {
    GATUN_CHECK(check_pointer(message, name, array, checked.has_norm != 0, 4));
  }
  Inside inside(devices, device);
  if (!inside) return stale(message, "device");
  Device& on = inside.object<Device>();
  if (on.backend->conv_weights_pack == nullptr) {
    return fail(message, GTN_UNSUPPORTED, "the %s backend packs no weights of convolutions", on.backend->name);
  }
  Reason reason(message);
  gtn_weights_info info = {};
  info.size = sizeof info;
  void* impl = nullptr;
  GATUN_CHECK(reason.of(on.backend->conv_weights_pack(
      on.impl, &checked, source, static_cast<const float*>(gamma), static_cast<const float*>(beta),
      static_cast<const float*>(mean), static_cast<const float*>(variance), &impl, &info, reason)));
  Weights made = {&on, impl, info, GTN_OP_CONV, from.rank - 2, {}};
  made.info.format = checked.format;
  made.info.k = from.shape[1];
  made.info.n = from.shape[0];
  made.info.groups = checked.groups;
  for (int d = 0; d < made.spatial; ++d) {
    made.kernel[d] = from.shape[2 + d];
    made.info.k *= from.shape[2 + d];
  }
  return open_weights(made, packed, message);
}

gtn_status gtn_weights_query(gtn_weights packed, gtn_weights_info* info, gtn_message* message) {
  GATUN_CHECK(check_output(message, "info", info));
  Inside inside(weights, packed);
  if (!inside) return stale(message, "weights");
  give(inside.object<Weights>().info, info);
  return GTN_OK;
}

gtn_status gtn_weights_close(gtn_weights packed, gtn_message* message) {
  return close<Weights>(weights, packed, Kind::kWeights, "weights", message, kNeverRefuse, [](Weights& self) {
    self.device->backend->weights_destroy(self.impl);
    --self.device->weights;
  });
}

gtn_status gtn_plan_query(gtn_plan plan, gtn_plan_info* info, gtn_message* message) {
  GATUN_CHECK(check_output(message, "info", info));
  Inside inside(plans, plan);
  if (!inside) return stale(message, "plan");
  give(inside.object<Plan>().info, info);
  return GTN_OK;
}

gtn_status gtn_plan_close(gtn_plan plan, gtn_message* message) {
  return close<Plan>(plans, plan, Kind::kPlan, "plan", message, kNeverRefuse, [](Plan& self) {
    self.device->backend->plan_destroy(self.impl);
    --self.device->plans;
  });
}
