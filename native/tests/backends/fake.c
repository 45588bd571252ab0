/* A backend for tests of the core: one device, and a softmax whose run reports that it is inside and waits to be let go, so
 * that tests of closing during a run need no timing. Attention, selections, merges and embeddings are planned, and run without
 * doing anything; what it is told of patterns, an attention plan says in its info. Built several times: FAKE_ABI and
 * FAKE_SIZE make it one that the core must refuse or that is older than the core, FAKE_HALF gives it one of two slots that go
 * together, FAKE_NO_DRIVER makes it one whose vendor's driver is missing, and FAKE_CONSTRUCTOR and FAKE_DESTRUCTOR do
 * something terrible when the library is opened, or when its process ends. */
#include <gatun/backend.h>

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef FAKE_ABI
#define FAKE_ABI GTN_BACKEND_ABI_VERSION
#endif
#ifndef FAKE_SIZE
#define FAKE_SIZE sizeof(gtn_backend)
#endif
#ifndef FAKE_NAME
#define FAKE_NAME "fake"
#endif

#ifdef FAKE_CONSTRUCTOR
__attribute__((constructor)) static void construct(void) { FAKE_CONSTRUCTOR; }
#endif
#ifdef FAKE_DESTRUCTOR
__attribute__((destructor)) static void destruct(void) { FAKE_DESTRUCTOR; }
#endif

static int object;
static int32_t plans[GTN_OP_FAKE_QUANTIZE + 1]; /* one for each operator, to be told apart by its address */

static gtn_status device_count(int32_t* count, gtn_message* message) {
#ifdef FAKE_NO_DRIVER
  (void)count;
  snprintf(message->text, sizeof message->text, "no driver: libfake.so.1 was not found");
  return GTN_NOT_AVAILABLE;
#else
  (void)message;
  *count = 1;
  return GTN_OK;
#endif
}

static gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  (void)index, (void)message;
  snprintf(info->name, sizeof info->name, "%s", FAKE_NAME);
  info->host_memory = 1;
  info->memory_bytes = -1;
  return GTN_OK;
}

static gtn_status device_open(const char* selector, const gtn_device_options* options, void** device, gtn_message* message) {
  (void)selector, (void)options, (void)message;
  *device = &object;
  return GTN_OK;
}

static void close_object(void* closed) { (void)closed; }

static gtn_status device_describe(void* device, gtn_device_info* info, gtn_message* message) {
  (void)device;
  return device_info(0, info, message);
}

static gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  (void)device, (void)message;
  *memory = aligned_alloc((size_t)alignment, (size_t)((bytes + alignment - 1) / alignment * alignment));
  return *memory != NULL ? GTN_OK : GTN_OUT_OF_MEMORY;
}

static void memory_free(void* device, void* memory, int64_t bytes) {
  (void)device, (void)bytes;
  free(memory);
}

static gtn_status memory_copy(void* stream, void* to, const void* from, int64_t bytes, int32_t direction, gtn_message* message) {
  (void)stream, (void)to, (void)from, (void)bytes, (void)direction, (void)message;
  return GTN_OK;
}

static gtn_status create(void* device, void** created, gtn_message* message) {
  (void)device, (void)message;
  *created = &object;
  return GTN_OK;
}

static gtn_status synchronize(void* stream, gtn_message* message) {
  (void)stream, (void)message;
  return GTN_OK;
}

static gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                              gtn_message* message) {
  (void)device;
  plans[op] = op;
  *plan = &plans[op];
  switch (op) {
    case GTN_OP_SOFTMAX:
      snprintf(info->kernel, sizeof info->kernel, "fake.softmax");
      return GTN_OK;
    case GTN_OP_ATTENTION: {
      const gtn_attention_desc* attention = desc;
      info->blocks = attention->pattern_count;
      for (int64_t i = 0; i < attention->pattern_count; ++i) {
        const gtn_attention_pattern* pattern = &attention->patterns[i];
        if (pattern->size != sizeof *pattern) return GTN_INTERNAL;
        info->flops += pattern->masks;
        info->bytes += (double)pattern->window_left;
      }
      return GTN_OK;
    }
    case GTN_OP_MERGE:
    case GTN_OP_ROPE:
    case GTN_OP_SELECT:
    case GTN_OP_ROUTE:
    case GTN_OP_MIX:
    case GTN_OP_GLU:
      return GTN_OK;
    default:
      snprintf(message->text, sizeof message->text, "fake has no operator %d", op);
      return GTN_UNSUPPORTED;
  }
}

/* x[0] = 1: say so in out[1] and wait for x[0] to change. x[0] = 2: fail. */
static gtn_status run(void* plan, void* stream, const void* arguments, gtn_message* message) {
  (void)stream;
  if (*(int32_t*)plan != GTN_OP_SOFTMAX) return GTN_OK;
  const gtn_softmax_args* args = arguments;
  _Atomic int32_t* order = (_Atomic int32_t*)(uintptr_t)args->x;
  _Atomic int32_t* inside = (_Atomic int32_t*)args->out + 1;
  if (atomic_load(order) == 2) {
    snprintf(message->text, sizeof message->text, "fake fails as it was told");
    return GTN_DEVICE_LOST;
  }
  atomic_store(inside, 1);
  while (atomic_load(order) == 1) {
  }
  atomic_store(inside, 0);
  return GTN_OK;
}

const gtn_backend* gtn_backend_entry(void) {
  static const gtn_backend table = {
      .size = (uint32_t)FAKE_SIZE,
      .abi_version = FAKE_ABI,
      .name = FAKE_NAME,
      .version = "1",
      .device_count = device_count,
      .device_info = device_info,
      .device_open = device_open,
      .device_close = close_object,
      .device_describe = device_describe,
      .memory_alloc = memory_alloc,
      .memory_free = memory_free,
      .memory_copy = memory_copy,
      .stream_create = create,
      .stream_destroy = close_object,
      .stream_synchronize = synchronize,
      .plan_create = plan_create,
      .plan_destroy = close_object,
      .run = run,
#ifdef FAKE_HALF
      .FAKE_HALF = (void*)1,
#endif
#ifdef FAKE_BEYOND
      /* Past the end of an older table lies something else. */
      .supports = (void*)1,
      .measure = (void*)1,
#endif
  };
  return &table;
}
