/* Calls of the smallest operator that there is, from C: what the same calls from Java are compared with. A library, so
 * that a benchmark in Java can run both in one process. */
#include <gatun/gatun.h>

#include <stddef.h>

#define CALLS_API __attribute__((visibility("default")))

static gtn_stream stream;
static gtn_plan plan;
static float x = 1, out;

/* Opens the device and plans a softmax of one element; the objects stay until the process ends. */
CALLS_API int gatun_calls_open(const char* device_name);
int gatun_calls_open(const char* device_name) {
  gtn_message message = {.size = sizeof message};
  gtn_device_options options = {.size = sizeof options, .threads = 1};
  gtn_device device;
  const gtn_tensor_desc one = {
      .size = sizeof one, .dtype = GTN_F32, .rank = 2, .shape = {1, 1}, .strides = {1, 1}};
  gtn_softmax_desc desc = {.size = sizeof desc, .x = one, .out = one, .scale = 1};
  int status = gtn_backend_discover(NULL, &message);
  if (status == GTN_OK) status = gtn_device_open(device_name, &options, &device, &message);
  if (status == GTN_OK) status = gtn_stream_create(device, &stream, &message);
  if (status == GTN_OK) status = gtn_softmax_plan(device, &desc, &plan, &message);
  return status;
}

/* Runs the plan so many times; the status of the first run that fails. */
CALLS_API int gatun_calls_run(int64_t count);
int gatun_calls_run(int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const gtn_status status = gtn_softmax_run(plan, stream, 1, &x, &out);
    if (status != GTN_OK) return status;
  }
  return GTN_OK;
}

/* What the last run gave: 1. */
CALLS_API float gatun_calls_result(void);
float gatun_calls_result(void) { return out; }
