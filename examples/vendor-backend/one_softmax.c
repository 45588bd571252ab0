/* One softmax on a backend library, from C: one_softmax <library> <device>. The exit status is 0 when the result is
 * right. */
#include <gatun/gatun.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static gtn_message message = {sizeof message, ""};

static void check(const char* call, gtn_status status) {
  if (status == GTN_OK) return;
  fprintf(stderr, "%s: status %d: %s\n", call, status, message.text);
  exit(1);
}

#define DO(call) check(#call, call)

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const float x[4] = {0.0f, 1.0f, 2.0f, -INFINITY};
  float out[4] = {0};
  gtn_device device = 0;
  gtn_stream stream = 0;
  gtn_plan plan = 0;
  void *device_x = NULL, *device_out = NULL;
  const gtn_tensor_desc row = {sizeof row, GTN_F32, 2, 0, {1, 4}, {4, 1}};
  const gtn_softmax_desc softmax = {sizeof softmax, 1.0f, row, row};
  DO(gtn_backend_load(argv[1], 0, &message));
  DO(gtn_device_open(argv[2], NULL, &device, &message));
  DO(gtn_stream_create(device, &stream, &message));
  DO(gtn_softmax_plan(device, &softmax, &plan, &message));
  DO(gtn_memory_alloc(device, sizeof x, 64, &device_x, &message));
  DO(gtn_memory_alloc(device, sizeof out, 64, &device_out, &message));
  DO(gtn_memory_copy(stream, device_x, x, sizeof x, GTN_HOST_TO_DEVICE, &message));
  DO(gtn_softmax_run(plan, stream, 1, device_x, device_out));
  DO(gtn_memory_copy(stream, out, device_out, sizeof out, GTN_DEVICE_TO_HOST, &message));
  DO(gtn_stream_synchronize(stream, &message));
  DO(gtn_memory_free(device, device_x, &message));
  DO(gtn_memory_free(device, device_out, &message));
  DO(gtn_plan_close(plan, &message));
  DO(gtn_stream_close(stream, &message));
  DO(gtn_device_close(device, &message));
  printf("%s: softmax(0, 1, 2, -infinity) = %.6f %.6f %.6f %.6f\n", argv[2], out[0], out[1], out[2], out[3]);
  const double e = exp(1.0), sum = 1 + e + e * e;
  const int right = fabs(out[0] - 1 / sum) < 1e-6 && fabs(out[1] - e / sum) < 1e-6 && fabs(out[2] - e * e / sum) < 1e-6;
  return right && out[3] == 0 ? 0 : 1;
}
