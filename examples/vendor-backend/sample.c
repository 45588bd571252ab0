/* libgatun_sample.so: a whole backend in one file of C, to be read from top to bottom and copied.
 *
 * Its device, "sample:0", is an accelerator made up for the purpose. As a real one does, it has memory of its own that
 * the host reaches through copies alone, and it serves what it has kernels for: softmax, and bias with activation, on
 * FP32 and BF16. The kernels are plain loops on the host. Where a driver would do the work instead, a comment says what
 * to call.
 *
 * The core has checked every argument before it calls a function of this file: nulls, ranges, alignment, overlap,
 * handles, and that only one thread is inside a stream. A run whose output is empty does not get here. Nothing below
 * repeats that. */
#define _POSIX_C_SOURCE 200809L

#include <gatun/backend.h>

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* Writes a sentence for the user, within the size of the caller's message, and gives back the status: every refusal is
 * one line. Say what was asked, and what is served instead. */
__attribute__((format(printf, 3, 4)))
static gtn_status fail(gtn_message* message, gtn_status status, const char* format, ...) {
  size_t room = message->size < sizeof *message ? message->size : sizeof *message;
  if (room <= offsetof(gtn_message, text)) return status;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message->text, room - offsetof(gtn_message, text), format, arguments);
  va_end(arguments);
  return status;
}

/* ---- Devices ---------------------------------------------------------------------------------------------------- */

/* A block of the device's memory. */
struct block {
  struct block* next;
  char* start;
  int64_t bytes;
};

/* An opened device. A driver's handle (a context, an ordinal) would be here. Memory is allocated and runs are made from
 * any thread, hence the lock. */
struct device {
  pthread_mutex_t lock;
  struct block* blocks;
};

/* The library must load where the driver is missing: open the driver here with dlopen, once, and not by linking.
 * Without it return GTN_NOT_AVAILABLE and say what is missing, as "libsample.so.1 was not found: install the driver,
 * 2.0 or later". */
static gtn_status device_count(int32_t* count, gtn_message* message) {
  (void)message;
  *count = 1;
  return GTN_OK;
}

static void describe(gtn_device_info* info) {
  info->status = GTN_OK; /* or GTN_NOT_AVAILABLE and a reason: in exclusive use, too old for the kernels, ... */
  snprintf(info->name, sizeof info->name, "sample:0");
  snprintf(info->description, sizeof info->description, "an accelerator made up as an example, in plain loops");
  info->threads = 0;       /* of no meaning here */
  info->host_memory = 0;   /* pointers of a run must be in memory of memory_alloc */
  info->memory_bytes = -1; /* ask the driver */
}

static gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  (void)index, (void)message;
  describe(info);
  return GTN_OK;
}

/* `selector` is what follows the colon of "sample:0", and empty for the default device. */
static gtn_status device_open(const char* selector, const gtn_device_options* options, void** device,
                              gtn_message* message) {
  (void)options; /* threads: for devices that have any */
  if (*selector != '\0' && strcmp(selector, "0") != 0) {
    return fail(message, GTN_NOT_AVAILABLE, "there is no device 'sample:%s', only sample:0", selector);
  }
  struct device* opened = calloc(1, sizeof *opened);
  if (opened == NULL) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a device");
  pthread_mutex_init(&opened->lock, NULL);
  *device = opened;
  return GTN_OK;
}

/* Comes last: streams, events, plans and memory of the device are all closed by then. */
static void device_close(void* device) {
  struct device* self = device;
  pthread_mutex_destroy(&self->lock);
  free(self);
}

static gtn_status device_describe(void* device, gtn_device_info* info, gtn_message* message) {
  (void)device, (void)message;
  describe(info);
  return GTN_OK;
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* A driver's allocator goes here. If its pointers are aligned to less than `alignment` asks for, allocate more and keep
 * the original pointer. Content is undefined. */
static gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  struct device* self = device;
  struct block* block = malloc(sizeof *block);
  void* start = NULL;
  if (block == NULL || posix_memalign(&start, (size_t)alignment, (size_t)bytes) != 0) {
    free(block);
    return fail(message, GTN_OUT_OF_MEMORY, "sample:0 has no %lld bytes left", (long long)bytes);
  }
  pthread_mutex_lock(&self->lock);
  *block = (struct block){self->blocks, start, bytes};
  self->blocks = block;
  pthread_mutex_unlock(&self->lock);
  *memory = start;
  return GTN_OK;
}

static void memory_free(void* device, void* memory, int64_t bytes) {
  (void)bytes;
  struct device* self = device;
  pthread_mutex_lock(&self->lock);
  struct block** link = &self->blocks;
  while ((*link)->start != memory) link = &(*link)->next;
  struct block* block = *link;
  *link = block->next;
  pthread_mutex_unlock(&self->lock);
  free(block->start);
  free(block);
}

/* Whether all of a range is memory of the device. Real hardware does this by itself: it cannot reach the host's memory,
 * and a kernel that tries is stopped with GTN_DEVICE_LOST at best. Here it finds callers that pass the wrong kind of
 * pointer. */
static gtn_status check_range(struct device* device, const char* name, const void* start, int64_t bytes,
                              gtn_message* message) {
  bool found = false;
  const uintptr_t from = (uintptr_t)start;
  pthread_mutex_lock(&device->lock);
  for (const struct block* block = device->blocks; block != NULL && !found; block = block->next) {
    const uintptr_t first = (uintptr_t)block->start, end = first + (uintptr_t)block->bytes;
    found = from >= first && from <= end && (uintptr_t)bytes <= end - from;
  }
  pthread_mutex_unlock(&device->lock);
  if (found) return GTN_OK;
  return fail(message, GTN_INVALID_ARGUMENT, "%s: %lld bytes at %p are not in a block of memory of sample:0", name,
              (long long)bytes, (void*)from);
}

/* ---- Streams ---------------------------------------------------------------------------------------------------- */

/* A queue of the driver goes here, and the workspace of its runs, which a run grows when a plan needs more than any
 * before. This device has no queue: every call is done when it returns. */
struct stream {
  struct device* device;
};

static gtn_status stream_create(void* device, void** stream, gtn_message* message) {
  struct stream* created = malloc(sizeof *created);
  if (created == NULL) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a stream");
  created->device = device;
  *stream = created;
  return GTN_OK;
}

/* With a queue: wait for it first. */
static void stream_destroy(void* stream) { free(stream); }

/* With a queue: wait for it, and give the first error of what was in it. GTN_DEVICE_LOST when the device stopped. */
static gtn_status stream_synchronize(void* stream, gtn_message* message) {
  (void)stream, (void)message;
  return GTN_OK;
}

/* With a queue: a copy in its order, which returns when the host's memory may be used again. For data that the driver
 * has staged elsewhere, or that comes from pinned memory, that is before the copy is done. */
static gtn_status memory_copy(void* stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                              gtn_message* message) {
  struct device* device = ((struct stream*)stream)->device;
  gtn_status status = GTN_OK;
  if (direction != GTN_DEVICE_TO_HOST) status = check_range(device, "destination", destination, bytes, message);
  if (status == GTN_OK && direction != GTN_HOST_TO_DEVICE) {
    status = check_range(device, "source", source, bytes, message);
  }
  if (status == GTN_OK) memcpy(destination, source, (size_t)bytes);
  return status;
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

/* Points in a stream. Optional as a whole; a driver has its own events for each of these functions. Without a queue, a
 * point is reached as soon as it is recorded. The core lets no event in here that was not recorded before. */
struct event {
  double seconds;
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static gtn_status event_create(void* device, void** event, gtn_message* message) {
  (void)device;
  *event = calloc(1, sizeof(struct event));
  return *event != NULL ? GTN_OK : fail(message, GTN_OUT_OF_MEMORY, "no memory for an event");
}

static void event_destroy(void* event) { free(event); }

static gtn_status event_record(void* event, void* stream, gtn_message* message) {
  (void)stream, (void)message;
  ((struct event*)event)->seconds = now();
  return GTN_OK;
}

static gtn_status event_synchronize(void* event, gtn_message* message) {
  (void)event, (void)message;
  return GTN_OK;
}

static gtn_status event_query(void* event, int32_t* done, gtn_message* message) {
  (void)event, (void)message;
  *done = 1;
  return GTN_OK;
}

static gtn_status event_elapsed(void* start, void* end, double* milliseconds, gtn_message* message) {
  (void)message;
  *milliseconds = 1e3 * (((struct event*)end)->seconds - ((struct event*)start)->seconds);
  return GTN_OK;
}

/* ---- Kernels ---------------------------------------------------------------------------------------------------- */

/* A plan is all that a run needs besides its pointers and its number of rows. It never changes once it is made: any
 * number of streams may run it at once. A driver's function handle and launch shape would be here. */
struct plan {
  struct device* device;
  int32_t op, activation;
  int32_t x_type, out_type;
  int64_t columns, x_stride, out_stride; /* strides of rows, in elements; columns follow each other */
  float scale;
  bool has_bias;
};

static int64_t element_bytes(int32_t type) { return type == GTN_BF16 ? 2 : 4; }

static double load(int32_t type, const void* data, int64_t i) {
  if (type == GTN_F32) return ((const float*)data)[i];
  const uint32_t bits = (uint32_t)((const uint16_t*)data)[i] << 16; /* BF16 is the upper half of an FP32 */
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void store(int32_t type, void* data, int64_t i, double value) {
  const float narrow = (float)value;
  if (type == GTN_F32) {
    ((float*)data)[i] = narrow;
    return;
  }
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  if (isnan(narrow)) {
    bits |= 0x400000; /* quiet, and still NaN when the lower half is cut off */
  } else {
    bits += 0x7fff + (bits >> 16 & 1); /* to the nearest, ties to even; what is too large becomes infinity */
  }
  ((uint16_t*)data)[i] = (uint16_t)(bits >> 16);
}

/* out = exp(scale x - max) / sum. Three passes over a row: its maximum, its sum, its results. Nothing is kept between
 * them, so there is no workspace, and out may be x: a score is read for the last time just before its result takes its
 * place. */
static void softmax_row(const struct plan* plan, const void* x, void* out) {
  double max = -INFINITY, sum = 0;
  for (int64_t j = 0; j < plan->columns; ++j) {
    const double score = plan->scale * load(plan->x_type, x, j);
    if (!(score <= max)) max = score; /* NaN is taken as well */
    if (isnan(max)) break;            /* and kept */
  }
  if (max == -INFINITY) { /* every score is masked: 0 by definition, where the formula gives NaN */
    for (int64_t j = 0; j < plan->columns; ++j) store(plan->out_type, out, j, 0);
    return;
  }
  /* A maximum of +infinity or NaN needs no case of its own: the sum is NaN, and all of the row with it. */
  for (int64_t j = 0; j < plan->columns; ++j) sum += exp(plan->scale * load(plan->x_type, x, j) - max);
  for (int64_t j = 0; j < plan->columns; ++j) {
    store(plan->out_type, out, j, exp(plan->scale * load(plan->x_type, x, j) - max) / sum);
  }
}

static double activate(int32_t activation, double x) {
  switch (activation) {
    case GTN_ACT_GELU_ERF:
      return x / 2 * erfc(-x * sqrt(0.5)); /* 1 + erf(y), without its cancellation for negative y */
    case GTN_ACT_GELU_TANH:
      /* (1 + tanh y) / 2 = 1 / (1 + exp(-2 y)), and sqrt(2/pi) = 0.7978845608028654 */
      return x / (1 + exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case GTN_ACT_SILU:
      return x / (1 + exp(-x));
    case GTN_ACT_RELU:
      return x < 0 ? 0 : x; /* NaN stays NaN */
    default:
      return x;
  }
}

static void activation_row(const struct plan* plan, const void* x, const float* bias, void* out) {
  for (int64_t j = 0; j < plan->columns; ++j) {
    const double value = load(plan->x_type, x, j) + (bias != NULL ? bias[j] : 0);
    store(plan->out_type, out, j, activate(plan->activation, value));
  }
}

/* ---- Plans ------------------------------------------------------------------------------------------------------ */

/* What the device is meant to serve: the one place that decides, for claims and for plans alike. */
static bool serves(int32_t op, int32_t type) {
  return (op == GTN_OP_SOFTMAX || op == GTN_OP_ACTIVATION) && (type == GTN_F32 || type == GTN_BF16);
}

/* Optional: what validation holds the device to. What is claimed and declined all the same counts against it. */
static gtn_status supports(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message) {
  (void)device, (void)message;
  *claimed = serves(op, dtype);
  return GTN_OK;
}

/* What the plan is, for reports: the name begins with the backend's, an elementary function counts as 20 operations,
 * and the bytes are those that no kernel could avoid. */
static void fill_info(const struct plan* plan, int64_t rows, gtn_plan_info* info) {
  static const char* const activations[] = {"none", "gelu_erf", "gelu_tanh", "silu", "relu"};
  static const double activation_flops[] = {0, 23, 28, 23, 1};
  const char* type = plan->x_type == GTN_BF16 ? "bf16" : "f32";
  const double elements = (double)rows * (double)plan->columns;
  if (plan->op == GTN_OP_SOFTMAX) {
    snprintf(info->kernel, sizeof info->kernel, "sample.softmax.%s", type);
    info->flops = 24 * elements; /* scale, maximum, exponential, sum, quotient */
  } else {
    snprintf(info->kernel, sizeof info->kernel, "sample.activation.%s.%s", activations[plan->activation], type);
    info->flops = elements * (activation_flops[plan->activation] + (plan->has_bias ? 1 : 0));
  }
  info->bytes = elements * (double)(element_bytes(plan->x_type) + element_bytes(plan->out_type)) +
                (plan->has_bias ? 4.0 * (double)plan->columns : 0);
  info->workspace_bytes = 0;
}

/* Chooses and compiles what a run needs; may take its time. Declines what is not served with GTN_UNSUPPORTED and a
 * sentence. The description does not outlive the call: keep what matters. */
static gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                              gtn_message* message) {
  struct plan made = {.device = device, .op = op};
  const gtn_tensor_desc *x = NULL, *out = NULL;
  if (op == GTN_OP_SOFTMAX) {
    const gtn_softmax_desc* softmax = desc;
    x = &softmax->x;
    out = &softmax->out;
    made.scale = softmax->scale;
  } else if (op == GTN_OP_ACTIVATION) {
    const gtn_activation_desc* activation = desc;
    x = &activation->x;
    out = &activation->out;
    made.activation = activation->activation;
    made.has_bias = activation->has_bias != 0;
  } else {
    return fail(message, GTN_UNSUPPORTED, "sample has kernels for softmax and activation alone, none for operator %d",
                op);
  }
  if (!serves(op, x->dtype) || !serves(op, out->dtype)) {
    return fail(message, GTN_UNSUPPORTED, "sample has kernels for F32 and BF16 alone, not from dtype %d to %d",
                x->dtype, out->dtype);
  }
  made.x_type = x->dtype;
  made.out_type = out->dtype;
  made.columns = x->shape[1];
  made.x_stride = x->strides[0];
  made.out_stride = out->strides[0];
  struct plan* created = malloc(sizeof *created);
  if (created == NULL) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a plan");
  *created = made;
  fill_info(created, x->shape[0], info);
  *plan = created;
  return GTN_OK;
}

static void plan_destroy(void* plan) { free(plan); }

/* Bytes from the first element of a matrix to behind its last. */
static int64_t extent(int64_t rows, int64_t columns, int64_t stride, int32_t type) {
  return ((rows - 1) * stride + columns) * element_bytes(type);
}

/* The hot path. With a queue: launch on the stream's and return; synchronize tells how it went. Nothing is allocated
 * here. */
static gtn_status run(void* plan, void* stream, const void* args, gtn_message* message) {
  (void)stream; /* the core has seen to it that it is on the plan's device */
  const struct plan* self = plan;
  int64_t rows;
  const char* x;
  const float* bias = NULL;
  char* out;
  if (self->op == GTN_OP_SOFTMAX) {
    const gtn_softmax_args* softmax = args;
    rows = softmax->rows;
    x = softmax->x;
    out = softmax->out;
  } else {
    const gtn_activation_args* activation = args;
    rows = activation->rows;
    x = activation->x;
    bias = activation->bias;
    out = activation->out;
  }
  const int64_t x_bytes = extent(rows, self->columns, self->x_stride, self->x_type);
  const int64_t out_bytes = extent(rows, self->columns, self->out_stride, self->out_type);
  gtn_status status = check_range(self->device, "x", x, x_bytes, message);
  if (status == GTN_OK && bias != NULL) status = check_range(self->device, "bias", bias, 4 * self->columns, message);
  if (status == GTN_OK) status = check_range(self->device, "out", out, out_bytes, message);
  if (status != GTN_OK) return status;
  for (int64_t i = 0; i < rows; ++i) {
    const void* from = x + i * self->x_stride * element_bytes(self->x_type);
    void* to = out + i * self->out_stride * element_bytes(self->out_type);
    if (self->op == GTN_OP_SOFTMAX) {
      softmax_row(self, from, to);
    } else {
      activation_row(self, from, bias, to);
    }
  }
  return GTN_OK;
}

/* ---- Ceilings --------------------------------------------------------------------------------------------------- */

/* A reader of results that nothing else needs, so that the work behind them is not optimised away. */
static volatile double sink;

/* Multiplications and additions per second, of numbers as the kernels have them: eight chains, none of which waits for
 * another. */
static double multiply_adds_per_second(void) {
  enum { CHAINS = 8, STEPS = 1 << 16 };
  double chains[CHAINS] = {0};
  const double factor = 0.5 + sink; /* not known to the compiler */
  const double start = now();
  double operations = 0, seconds;
  do {
    for (int i = 0; i < STEPS; ++i) {
      for (int c = 0; c < CHAINS; ++c) chains[c] = chains[c] * factor + 1;
    }
    operations += 2.0 * CHAINS * STEPS;
    seconds = now() - start;
  } while (seconds < 0.1);
  for (int c = 0; c < CHAINS; ++c) sink = chains[c];
  sink = 0;
  return operations / seconds;
}

/* Bytes read per second, from more than caches hold; 0 when there is no memory for that. */
static double bytes_per_second(void) {
  const size_t bytes = (size_t)256 << 20, count = bytes / sizeof(uint64_t);
  uint64_t* memory = malloc(bytes);
  if (memory == NULL) return 0;
  memset(memory, 1, bytes);
  uint64_t sum = 0;
  const double start = now();
  double swept = 0, seconds;
  do {
    for (size_t i = 0; i < count; ++i) sum += memory[i];
    swept += (double)bytes;
    seconds = now() - start;
  } while (seconds < 0.1);
  sink = (double)sum;
  sink = 0;
  free(memory);
  return swept / seconds;
}

/* Optional: what reports set times beside. Measured with kernels of the vendor's own, never taken from a data sheet: a
 * time says something only beside what the same device reached in the same minute. */
static gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  (void)device;
  switch (limit) {
    case GTN_LIMIT_F32:
    case GTN_LIMIT_BF16: /* the kernels compute on both alike */
      *per_second = multiply_adds_per_second();
      return GTN_OK;
    case GTN_LIMIT_MEMORY: {
      const double measured = bytes_per_second();
      if (measured == 0) return fail(message, GTN_OUT_OF_MEMORY, "no memory for a sweep through 256 MiB");
      *per_second = measured;
      return GTN_OK;
    }
    default:
      return fail(message, GTN_UNSUPPORTED, "sample has no arithmetic for limit %d", limit);
  }
}

/* ---- The table -------------------------------------------------------------------------------------------------- */

/* The one symbol that the library exports. Slots that are not named are NULL: this backend packs no weights, so there
 * is no GEMM on it. */
const gtn_backend* gtn_backend_entry(void) {
  static const gtn_backend table = {
      .size = sizeof(gtn_backend),
      .abi_version = GTN_BACKEND_ABI_VERSION,
      .name = "sample",
      .version = "1.0",
      .device_count = device_count,
      .device_info = device_info,
      .device_open = device_open,
      .device_close = device_close,
      .device_describe = device_describe,
      .memory_alloc = memory_alloc,
      .memory_free = memory_free,
      .memory_copy = memory_copy,
      .stream_create = stream_create,
      .stream_destroy = stream_destroy,
      .stream_synchronize = stream_synchronize,
      .event_create = event_create,
      .event_destroy = event_destroy,
      .event_record = event_record,
      .event_synchronize = event_synchronize,
      .event_query = event_query,
      .event_elapsed = event_elapsed,
      .plan_create = plan_create,
      .plan_destroy = plan_destroy,
      .run = run,
      .supports = supports,
      .measure = measure,
  };
  return &table;
}
