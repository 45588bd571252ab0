// The CPU backend: levels as devices, inline streams, and one plan class per operator family.
#include "cpu/backend.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/message.h"
#include "core/version.h"
#include "cpu/conv/fold.h"
#include "cpu/levels.h"
#include "cpu/threads.h"

namespace gatun::cpu {

void* Stream::scratch(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);  // null means that there is no memory, also to who needs none
  if (bytes <= workspace_bytes) return workspace;
  if (bytes > INT64_MAX / 2) return nullptr;
  std::free(workspace);
  workspace_bytes = 0;
  // A little more than asked for, so that growing batches do not reallocate on every step; in huge pages where it is a few
  // of them, since rows that are prepared there lie far apart.
  constexpr int64_t kHugePage = int64_t{2} << 20;
  const bool huge = bytes >= 2 * kHugePage;
  const int64_t page = huge ? kHugePage : 4096;
  const int64_t grown = (bytes + bytes / 4 + page - 1) / page * page;
  workspace = std::aligned_alloc(static_cast<size_t>(huge ? page : 64), static_cast<size_t>(grown));
  if (huge && workspace != nullptr) madvise(workspace, static_cast<size_t>(grown), MADV_HUGEPAGE);  // advice only
  if (workspace != nullptr) workspace_bytes = grown;
  return workspace;
}

void name_kernel(gtn_plan_info* info, const Device& device, const char* rest) {
  std::snprintf(info->kernel, sizeof info->kernel, "cpu.%s.%s", device.level->name, rest);
}

namespace {

// Atomic, since threads with streams of their own may record one event.
struct Event {
  std::atomic<std::chrono::steady_clock::time_point> recorded;
};

// The processor's own name, as the operating system tells it.
void processor_name(char* out, size_t capacity) {
  std::snprintf(out, capacity, "unknown processor");
  FILE* file = std::fopen("/proc/cpuinfo", "r");
  if (file == nullptr) return;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    const char* value = std::strchr(line, ':');
    if (std::strncmp(line, "model name", 10) != 0 || value == nullptr) continue;
    value += std::strspn(value, ": \t");
    std::snprintf(out, capacity, "%.*s", static_cast<int>(std::strcspn(value, "\n")), value);
    break;
  }
  std::fclose(file);
}

void describe(const Level& level, const char* name, int threads, gtn_device_info* info) {
  std::snprintf(info->name, sizeof info->name, "%s", name);
  char processor[128];
  processor_name(processor, sizeof processor);
  std::snprintf(info->description, sizeof info->description, "%s, level %s (%s)", processor, level.name, level.needs);
  info->threads = threads;
  info->host_memory = 1;
  info->memory_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  const char* why = why_unavailable(level);
  info->status = why == nullptr ? GTN_OK : GTN_NOT_AVAILABLE;
  std::snprintf(info->reason, sizeof info->reason, "%s", why == nullptr ? "" : why);
}

gtn_status device_count(int32_t* count, gtn_message*) {
  *count = 1 + level_count();
  return GTN_OK;
}

gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message*) {
  if (index > 0) {
    const Level& level = levels()[index - 1];
    char name[sizeof info->name];
    std::snprintf(name, sizeof name, "cpu:%s", level.name);
    describe(level, name, usable_threads(), info);
    return GTN_OK;
  }
  gtn_message why = {sizeof why, ""};
  if (const Level* level = default_level(&why)) {
    describe(*level, "cpu", usable_threads(), info);
  } else {
    describe(levels()[0], "cpu", usable_threads(), info);
    info->status = GTN_NOT_AVAILABLE;
    std::snprintf(info->reason, sizeof info->reason, "%.*s", static_cast<int>(sizeof info->reason - 1), why.text);
  }
  return GTN_OK;
}

gtn_status device_open(const char* selector, const gtn_device_options* options, void** device, gtn_message* message) {
  const Level* level = nullptr;
  if (*selector == '\0') {
    level = default_level(message);
    if (level == nullptr) return GTN_NOT_AVAILABLE;
  } else {
    level = find_level(selector);
    if (level == nullptr) return fail(message, GTN_NOT_AVAILABLE, "device 'cpu:%s': there is no level '%s'", selector, selector);
    if (const char* why = why_unavailable(*level)) {
      return fail(message, GTN_NOT_AVAILABLE, "device 'cpu:%s' (%s): %s", selector, level->needs, why);
    }
  }
  if (const char* why = refusal(*level)) {
    const char* forced = std::getenv("GATUN_CPU_ISA");
    if (*selector != '\0' || (forced != nullptr && *forced != '\0')) {
      return fail(message, GTN_NOT_AVAILABLE, "device 'cpu:%s' (%s): %s", level->name, level->needs, why);
    }
    --level;  // nobody asked for it by name, and the one before, which it goes beyond, is there too
  }
  int threads = options->threads > 0 ? options->threads : usable_threads();
  if (threads > kMostThreads) threads = kMostThreads;
  Device* opened = new (std::nothrow) Device{level, threads};
  if (opened == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a device");
  *device = opened;
  return GTN_OK;
}

void device_close(void* device) { delete static_cast<Device*>(device); }

gtn_status device_describe(void* device, gtn_device_info* info, gtn_message*) {
  const Device& self = *static_cast<Device*>(device);
  char name[sizeof info->name];
  std::snprintf(name, sizeof name, "cpu:%s", self.level->name);
  describe(*self.level, name, self.threads, info);
  return GTN_OK;
}

// Large blocks come straight from the operating system and go back to it with the free: malloc keeps what it has freed once,
// and serves the next blocks of that size from it. Smaller ones are malloc's.
constexpr int64_t kMapped = int64_t{256} << 10;

int64_t up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

void* map(int64_t bytes, int64_t alignment) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  if (bytes > INT64_MAX / 2) return nullptr;
  const int64_t size = up(bytes, page);
  const int64_t slack = alignment > page ? alignment : 0;
  void* mapped = mmap(nullptr, static_cast<size_t>(size + slack), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* start = static_cast<char*>(mapped);
  const int64_t before = slack == 0 ? 0 : -reinterpret_cast<intptr_t>(mapped) & (slack - 1);
  if (before > 0) munmap(start, static_cast<size_t>(before));
  if (before < slack) munmap(start + before + size, static_cast<size_t>(slack - before));
  return start + before;
}

gtn_status memory_alloc(void*, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  void* block = nullptr;
  if (bytes >= kMapped) {
    block = map(bytes, alignment);
  } else if (posix_memalign(&block, static_cast<size_t>(alignment), static_cast<size_t>(bytes)) != 0) {
    block = nullptr;
  }
  if (block == nullptr) {
    return fail(message, GTN_OUT_OF_MEMORY, "the system has no %lld bytes to give", static_cast<long long>(bytes));
  }
  constexpr int64_t kHugePage = int64_t{2} << 20;
  if (bytes >= kHugePage) {
    uintptr_t first = (reinterpret_cast<uintptr_t>(block) + kHugePage - 1) & ~static_cast<uintptr_t>(kHugePage - 1);
    uintptr_t last = (reinterpret_cast<uintptr_t>(block) + static_cast<uintptr_t>(bytes)) & ~static_cast<uintptr_t>(kHugePage - 1);
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice only
  }
  *memory = block;
  return GTN_OK;
}

void memory_free(void*, void* memory, int64_t bytes) {
  if (bytes >= kMapped) {
    munmap(memory, static_cast<size_t>(up(bytes, sysconf(_SC_PAGESIZE))));
  } else {
    std::free(memory);
  }
}

gtn_status memory_copy(void*, void* destination, const void* source, int64_t bytes, int32_t, gtn_message*) {
  std::memcpy(destination, source, static_cast<size_t>(bytes));
  return GTN_OK;
}

gtn_status stream_create(void* device, void** stream, gtn_message* message) {
  Stream* created = new (std::nothrow) Stream{static_cast<Device*>(device)};
  if (created == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
  *stream = created;
  return GTN_OK;
}

void stream_destroy(void* stream) {
  std::free(static_cast<Stream*>(stream)->workspace);
  delete static_cast<Stream*>(stream);
}

gtn_status stream_synchronize(void*, gtn_message*) { return GTN_OK; }

gtn_status event_create(void*, void** event, gtn_message* message) {
  *event = new (std::nothrow) Event{};
  return *event != nullptr ? GTN_OK : fail(message, GTN_OUT_OF_MEMORY, "no memory for an event");
}

void event_destroy(void* event) { delete static_cast<Event*>(event); }

gtn_status event_record(void* event, void*, gtn_message*) {
  static_cast<Event*>(event)->recorded = std::chrono::steady_clock::now();
  return GTN_OK;
}

gtn_status event_synchronize(void*, gtn_message*) { return GTN_OK; }

gtn_status event_query(void*, int32_t* done, gtn_message*) {
  *done = 1;
  return GTN_OK;
}

gtn_status event_elapsed(void* start, void* end, double* milliseconds, gtn_message*) {
  const auto from = static_cast<Event*>(start)->recorded.load();
  const auto to = static_cast<Event*>(end)->recorded.load();
  *milliseconds = std::chrono::duration<double, std::milli>(to - from).count();
  return GTN_OK;
}

gtn_status weights_pack(void* device, const gtn_weights_desc* desc, const void* source, void** weights,
                        gtn_weights_info* info, gtn_message* message) {
  return gemm_weights_pack(*static_cast<Device*>(device), *desc, source, weights, info, message);
}

gtn_status weights_pack_quantized(void* device, const gtn_quantized_desc* desc, const void* integers, const float* scales,
                                  const uint8_t* zero_points, void** weights, gtn_weights_info* info, gtn_message* message) {
  return gemm_weights_pack_quantized(*static_cast<Device*>(device), *desc, integers, scales, zero_points, weights, info,
                                     message);
}

gtn_status pack_conv_weights(void* device, const gtn_conv_weights_desc* desc, const void* source, const float* gamma,
                             const float* beta, const float* mean, const float* variance, void** weights,
                             gtn_weights_info* info, gtn_message* message) {
  return conv_weights_pack(*static_cast<Device*>(device), *desc, source, {gamma, beta, mean, variance}, weights, info, message);
}

void weights_destroy(void* weights) { gemm_weights_destroy(weights); }

gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                       gtn_message* message) {
  const Device& on = *static_cast<Device*>(device);
  Plan* created = nullptr;
  gtn_status status = GTN_INTERNAL;
  switch (op) {
    case GTN_OP_GEMM:
      status = gemm_plan(on, *static_cast<const gtn_gemm_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_ATTENTION:
      status = attention_plan(on, *static_cast<const gtn_attention_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_NORM:
      status = norm_plan(on, *static_cast<const gtn_norm_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_SOFTMAX:
      status = softmax_plan(on, *static_cast<const gtn_softmax_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_ACTIVATION:
      status = activation_plan(on, *static_cast<const gtn_activation_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_MERGE:
      status = merge_plan(on, *static_cast<const gtn_merge_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_ROPE:
      status = rope_plan(on, *static_cast<const gtn_rope_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_SELECT:
      status = select_plan(on, *static_cast<const gtn_select_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_ROUTE:
      status = route_plan(on, *static_cast<const gtn_route_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_MIX:
      status = mix_plan(on, *static_cast<const gtn_mix_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_GLU:
      status = glu_plan(on, *static_cast<const gtn_glu_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_CONV:
      status = conv_plan(on, *static_cast<const gtn_conv_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_POOLING:
      status = pooling_plan(on, *static_cast<const gtn_pooling_desc*>(desc), &created, info, message);
      break;
    case GTN_OP_FAKE_QUANTIZE:
      status = fake_quantize_plan(on, *static_cast<const gtn_fake_quantize_desc*>(desc), &created, info, message);
      break;
    default:
      return fail(message, GTN_UNSUPPORTED, "the cpu backend has no operator %d", op);
  }
  *plan = created;
  return status;
}

void plan_destroy(void* plan) { delete static_cast<Plan*>(plan); }

gtn_status run(void* plan, void* stream, const void* args, gtn_message* message) {
  return static_cast<const Plan*>(plan)->run(*static_cast<Stream*>(stream), args, message);
}

// The types that the plans above take.
gtn_status supports(void*, int32_t op, int32_t dtype, int32_t* claimed, gtn_message*) {
  const bool is_float = dtype == GTN_F32 || dtype == GTN_BF16;
  switch (op) {
    case GTN_OP_GEMM:
      *claimed = is_float || dtype == GTN_F16 || dtype == GTN_S8 || dtype == GTN_U8 || dtype == GTN_U4 ||
                 dtype == GTN_F8E4M3 || dtype == GTN_F8E5M2 || dtype == GTN_BF16_2OF4;
      break;
    case GTN_OP_ATTENTION:
    case GTN_OP_MERGE:
    case GTN_OP_ROPE:
    case GTN_OP_SELECT:
    case GTN_OP_ROUTE:
    case GTN_OP_MIX:
    case GTN_OP_GLU:
    case GTN_OP_POOLING:
      *claimed = is_float || dtype == GTN_F16;
      break;
    case GTN_OP_NORM:
    case GTN_OP_SOFTMAX:
    case GTN_OP_ACTIVATION:
    case GTN_OP_CONV:
    case GTN_OP_FAKE_QUANTIZE:
      *claimed = is_float;
      break;
    default:
      *claimed = 0;
  }
  return GTN_OK;
}

gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  return measure_limit(*static_cast<Device*>(device), limit, per_second, message);
}

const gtn_backend kBackend = {
    sizeof(gtn_backend), GTN_BACKEND_ABI_VERSION, "cpu", GATUN_VERSION,
    device_count, device_info, device_open, device_close, device_describe,
    memory_alloc, memory_free, memory_copy,
    stream_create, stream_destroy, stream_synchronize,
    event_create, event_destroy, event_record, event_synchronize, event_query, event_elapsed,
    weights_pack, weights_destroy,
    plan_create, plan_destroy, run,
    supports, measure,
    weights_pack_quantized,
    pack_conv_weights,
    memory_alloc, memory_free,  // a processor reaches all memory of the host
};

}  // namespace
}  // namespace gatun::cpu

extern "C" const gtn_backend* gtn_backend_entry(void) { return &gatun::cpu::kBackend; }
