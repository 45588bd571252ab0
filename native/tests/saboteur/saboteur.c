/* The saboteur: an honest backend behind a table that forwards every call, with one fault added, to see that validation finds
 * it. Its environment says which:
 *
 *   GATUN_SABOTEUR_INNER  the honest library, libgatun_cpu.so
 *   GATUN_SABOTEUR_LEVEL  the honest device's selector, such as avx2; the default device when unset
 *   GATUN_SABOTEUR_FAULT  a name of faults.h; none when unset
 *
 * It has one device, "saboteur". A fault is made where it is easiest to make: by changing the description of a plan, the
 * arguments of a run, its outputs, or the status. */
#define _DEFAULT_SOURCE
#include <gatun/backend.h>

#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "faults.h"

enum fault {
#define IDENTIFIER(id, ...) id,
  SABOTEUR_FAULTS(IDENTIFIER) FAULT_COUNT
};

static const gtn_backend* inner;
static enum fault fault;
static char unusable[256]; /* why the honest backend cannot be used; empty when it can */

/* Slots that a backend may be too old to have. */
#define INNER_HAS(slot) \
  (inner->size >= offsetof(gtn_backend, slot) + sizeof inner->slot && inner->slot != NULL)

struct device {
  void* inner;
  int32_t threads;
};

struct stream {
  void* inner;
};

struct weights {
  void* inner;
};

union desc {
  gtn_gemm_desc gemm;
  gtn_attention_desc attention;
  gtn_norm_desc norm;
  gtn_softmax_desc softmax;
  gtn_activation_desc activation;
};

union args {
  gtn_gemm_args gemm;
  gtn_attention_args attention;
  gtn_norm_args norm;
  gtn_softmax_args softmax;
  gtn_activation_args activation;
};

struct plan {
  void* inner;
  const struct device* device;
  int32_t op;
  bool forwarded;  /* no fault is made in what it computes */
  union desc desc; /* as it was asked for; of forwarded plans, nothing */
};

static const char* level(void) {
  const char* chosen = getenv("GATUN_SABOTEUR_LEVEL");
  return chosen != NULL ? chosen : "";
}

/* ---- Elements ----------------------------------------------------------------------------------------------------- */

static int64_t size_of(int32_t dtype) { return dtype == GTN_F32 ? 4 : 2; }

static float half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float finite = ldexpf((float)(exponent > 0 ? fraction + 1024 : fraction), (exponent > 0 ? exponent : 1) - 25);
  return copysignf(exponent < 31 ? finite : fraction == 0 ? INFINITY : NAN, bits >> 15 != 0 ? -1.0f : 1.0f);
}

static float get(int32_t dtype, const void* at) {
  if (dtype == GTN_F32) return *(const float*)at;
  if (dtype == GTN_F16) return half(*(const uint16_t*)at);
  const uint32_t bits = (uint32_t)*(const uint16_t*)at << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Towards zero for BF16: whatever else is stored here fits it. */
static void set(int32_t dtype, void* at, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (dtype == GTN_F32) {
    *(float*)at = value;
  } else {
    *(uint16_t*)at = (uint16_t)(bits >> 16);
  }
}

/* What a run reads of its first operand, or writes: element (batch, row, head, i). Matrices have one batch and one head. */
struct view {
  char* data;
  int32_t dtype;
  int64_t batches, rows, heads, n;
  int64_t batch, row, head; /* strides in elements */
  const int64_t* lengths;   /* rows of each batch; null: all */
};

static struct view view_of(const gtn_tensor_desc* tensor, const void* data, int64_t batches, int64_t rows,
                           const int64_t* lengths) {
  const int64_t *shape = tensor->shape, *strides = tensor->strides;
  struct view view = {(char*)(uintptr_t)data, tensor->dtype, 1, rows, 1, shape[tensor->rank - 1], 0, strides[0], 0, NULL};
  if (tensor->rank == 3) {
    view.heads = shape[1];
    view.head = strides[1];
  } else if (tensor->rank == 4) {
    view.batches = batches;
    view.heads = shape[2];
    view.batch = strides[0];
    view.row = strides[1];
    view.head = strides[2];
    view.lengths = lengths;
  }
  return view;
}

static char* row_at(const struct view* view, int64_t batch, int64_t row, int64_t head) {
  return view->data + (batch * view->batch + row * view->row + head * view->head) * size_of(view->dtype);
}

/* The element after the last. */
static char* end_of(const struct view* view) {
  return row_at(view, view->batches - 1, view->rows - 1, view->heads - 1) + view->n * size_of(view->dtype);
}

static bool empty(const struct view* view) {
  return view->data == NULL || view->batches <= 0 || view->rows <= 0 || view->heads <= 0 || view->n <= 0;
}

/* Lengths and offsets have not been checked where a run has yet to refuse them. */
static int64_t at_most(int64_t length, int64_t most) { return length < most ? length : most; }

/* Calls visit for every row, in order. */
static void each_row(const struct view* view, void (*visit)(const struct view* view, char* row, void* context), void* context) {
  if (empty(view)) return;
  for (int64_t b = 0; b < view->batches; ++b) {
    const int64_t rows = view->lengths != NULL ? at_most(view->lengths[b], view->rows) : view->rows;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < view->heads; ++h) visit(view, row_at(view, b, r, h), context);
    }
  }
}

static void map_row(const struct view* view, char* row, void* function) {
  float (*const map)(float) = *(float (**)(float))function;
  const int64_t size = size_of(view->dtype);
  for (int64_t i = 0; i < view->n; ++i) set(view->dtype, row + i * size, map(get(view->dtype, row + i * size)));
}

static void map(const struct view* view, float (*function)(float)) { each_row(view, map_row, &function); }

static float zero(float x) { return (void)x, 0.0f; }
static float twice(float x) { return 2 * x; }
static float without_nan(float x) { return x != x ? 0 : x; }
static float without_infinity(float x) { return isinf(x) ? copysignf(0x1.fep127f, x) : x; } /* the largest of BF16 */
static float without_denormals(float x) { return fabsf(x) < FLT_MIN ? 0 : x; }

static void shift_row(const struct view* view, char* row, void* context) {
  (void)context;
  float* x = (float*)row;
  float lowest = 0;
  for (int64_t i = 0; i < view->n; ++i) lowest = fminf(lowest, x[i]);
  for (int64_t i = 0; i < view->n; ++i) x[i] -= lowest;
}

/* Of FP32 sums alone, and of no zero: elsewhere the tolerance is so narrow that the value itself would be found wrong. */
static void flip_last_bit(const struct view* view, char* row) {
  if (view->dtype == GTN_F32 && isnormal(*(float*)row)) *row ^= 1;
}

static void flip_last_bits(const struct view* view, char* row, void* context) {
  (void)context;
  flip_last_bit(view, row);
}

/* ---- What runs are given ------------------------------------------------------------------------------------------ */

static const gtn_tensor_desc* input_desc(int32_t op, const union desc* desc) {
  switch (op) {
    case GTN_OP_GEMM: return &desc->gemm.a;
    case GTN_OP_ATTENTION: return &desc->attention.q;
    case GTN_OP_NORM: return &desc->norm.x;
    case GTN_OP_SOFTMAX: return &desc->softmax.x;
    default: return &desc->activation.x;
  }
}

static gtn_tensor_desc* output_desc(int32_t op, union desc* desc) {
  switch (op) {
    case GTN_OP_GEMM: return &desc->gemm.out;
    case GTN_OP_ATTENTION: return &desc->attention.out;
    case GTN_OP_NORM: return &desc->norm.out;
    case GTN_OP_SOFTMAX: return &desc->softmax.out;
    default: return &desc->activation.out;
  }
}

static const void** input_of(int32_t op, union args* args) {
  switch (op) {
    case GTN_OP_GEMM: return &args->gemm.a;
    case GTN_OP_ATTENTION: return &args->attention.q;
    case GTN_OP_NORM: return &args->norm.x;
    case GTN_OP_SOFTMAX: return &args->softmax.x;
    default: return &args->activation.x;
  }
}

static void** output_of(int32_t op, union args* args) {
  switch (op) {
    case GTN_OP_GEMM: return &args->gemm.out;
    case GTN_OP_ATTENTION: return &args->attention.out;
    case GTN_OP_NORM: return &args->norm.out;
    case GTN_OP_SOFTMAX: return &args->softmax.out;
    default: return &args->activation.out;
  }
}

/* Null for attention, whose run arguments have no count of rows. */
static int64_t* rows_of(int32_t op, union args* args) {
  switch (op) {
    case GTN_OP_GEMM: return &args->gemm.rows;
    case GTN_OP_NORM: return &args->norm.rows;
    case GTN_OP_SOFTMAX: return &args->softmax.rows;
    case GTN_OP_ACTIVATION: return &args->activation.rows;
    default: return NULL;
  }
}

/* An operand that lies as `tensor` says: the first input, the output, or another of their shape. */
static struct view operand(const struct plan* plan, const gtn_tensor_desc* tensor, union args* args, const void* data) {
  if (plan->op != GTN_OP_ATTENTION) return view_of(tensor, data, 1, *rows_of(plan->op, args), NULL);
  const gtn_attention_args* a = &args->attention;
  if (tensor->rank == 3) {
    return view_of(tensor, data, 1, at_most(a->q_index[a->sequences], a->len_q), NULL);
  }
  return view_of(tensor, data, a->sequences, a->len_q, a->q_index);
}

static struct view input_view(const struct plan* plan, union args* args) {
  return operand(plan, input_desc(plan->op, &plan->desc), args, *input_of(plan->op, args));
}

static struct view output_view(struct plan* plan, union args* args) {
  return operand(plan, output_desc(plan->op, &plan->desc), args, *output_of(plan->op, args));
}

/* ---- Faults of plans ---------------------------------------------------------------------------------------------- */

/* Whether a plan has the one shape that some faults lie in wait for. */
static bool is_trap(int32_t op, const union desc* desc) { return op == GTN_OP_SOFTMAX && desc->softmax.x.shape[1] == 17; }

/* Whether faults can be made in a plan: of these operators alone, and not in attention that is more than a window, nor in
 * a product with further arrays, nor where something is quantized or in F16. */
static bool is_plain(int32_t op, const void* asked) {
  if (op == GTN_OP_SOFTMAX || op == GTN_OP_ACTIVATION) return true;
  if (op == GTN_OP_NORM) return ((const gtn_norm_desc*)asked)->out.dtype != GTN_U8;
  if (op == GTN_OP_GEMM) {
    const gtn_gemm_desc* gemm = asked;
    return gemm->groups == 0 && !gemm->has_row_index && gemm->rank == 0 && gemm->a.dtype != GTN_U8 &&
           gemm->a.dtype != GTN_F16 && gemm->out.dtype != GTN_F16;
  }
  if (op != GTN_OP_ATTENTION) return false;
  const gtn_attention_desc* desc = asked;
  const gtn_attention_pattern* pattern = desc->patterns;
  const int32_t dtype = desc->q.dtype;
  return desc->pattern_count == 1 && pattern->masks == 0 && pattern->dilation == 1 && pattern->sinks == 0 &&
         desc->softcap == 0 && desc->self_bias == 0 && !desc->has_sink_logits && !desc->has_slopes && !desc->has_bias &&
         !desc->paged && desc->order_heads == 0 && (dtype == GTN_F32 || dtype == GTN_BF16) && desc->k.dtype == dtype &&
         desc->out.dtype == dtype;
}

static void change_attention(gtn_attention_desc* desc, gtn_attention_pattern* pattern) {
  *pattern = *desc->patterns;
  desc->patterns = pattern;
  if (fault == WINDOW_LEFT && pattern->window_left >= 0) ++pattern->window_left;
  if (fault == WINDOW_RIGHT && pattern->window_right > 0) ++pattern->window_right;
  if (fault == CAUSAL && pattern->window_right == 0) pattern->window_right = 1;
  if (fault == HEADS && desc->k.rank > 0) {
    const int position = desc->k.rank - 2;
    if (desc->q.shape[position] == desc->k.shape[position]) return;
    desc->k.strides[position] *= -1; /* runs move the start to the last head */
    desc->v.strides[position] *= -1;
  }
}

/* BF16 outputs that are to be cut off are computed in FP32, without gaps. */
static bool is_truncated(int32_t op, union desc* desc) {
  return fault == TRUNCATED && op != GTN_OP_GEMM && op != GTN_OP_ATTENTION && output_desc(op, desc)->dtype == GTN_BF16;
}

/* `pattern` is where that of attention goes. */
static void change_desc(int32_t op, union desc* desc, gtn_attention_pattern* pattern) {
  if (op == GTN_OP_ATTENTION) change_attention(&desc->attention, pattern);
  if (fault == SCALE && op == GTN_OP_ATTENTION) desc->attention.scale *= 1.001f;
  if (fault == SCALE && op == GTN_OP_SOFTMAX) desc->softmax.scale *= 1.001f;
  if (fault == EPSILON && op == GTN_OP_NORM) desc->norm.epsilon = 0;
  int32_t* activation = op == GTN_OP_GEMM         ? &desc->gemm.activation
                        : op == GTN_OP_ACTIVATION ? &desc->activation.activation
                                                  : NULL;
  if (fault == GELU && activation != NULL && *activation == GTN_ACT_GELU_ERF) *activation = GTN_ACT_GELU_TANH;
  if (fault == STRIDES && op != GTN_OP_ATTENTION) {
    gtn_tensor_desc* input = (gtn_tensor_desc*)(uintptr_t)input_desc(op, desc);
    input->strides[0] = input->shape[1];
  }
  if (is_truncated(op, desc)) {
    gtn_tensor_desc* output = output_desc(op, desc);
    output->dtype = GTN_F32;
    output->strides[0] = output->shape[1];
  }
}

static void leak(void) {
  static _Atomic(void*) lost; /* what only looks like a use cannot be left out */
  void* memory = malloc(4096);
  if (memory != NULL) memset(memory, 1, 4096);
  atomic_store(&lost, memory);
}

static void leak_pages(void) {
  void* pages = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages != MAP_FAILED) memset(pages, 1, 65536);
}

static void follow_null(void) {
  volatile int* volatile nothing = NULL; /* both: or the compiler leaves the access out */
  *nothing = 1;
}

static gtn_status plan_create(void* device, int32_t op, const void* asked, void** created, gtn_plan_info* info,
                              gtn_message* message) {
  static const size_t sizes[] = {0, sizeof(gtn_gemm_desc), sizeof(gtn_attention_desc), sizeof(gtn_norm_desc),
                                 sizeof(gtn_softmax_desc), sizeof(gtn_activation_desc)};
  const struct device* self = device;
  struct plan* plan = calloc(1, sizeof *plan);
  if (plan == NULL) return GTN_OUT_OF_MEMORY;
  plan->device = self;
  plan->op = op;
  plan->forwarded = !is_plain(op, asked);
  if (!plan->forwarded) memcpy(&plan->desc, asked, sizes[op]);
  gtn_status status = GTN_OK;
  if (op == GTN_OP_SOFTMAX && plan->desc.softmax.x.dtype == GTN_BF16) {
    if (fault == DECLINES || fault == OVERCLAIMS) status = GTN_UNSUPPORTED;
    if (fault == INTERNAL) status = GTN_INTERNAL;
  }
  if (status != GTN_OK) {
    snprintf(message->text, sizeof message->text, "the saboteur has no softmax of BF16");
  } else if (fault == PADDING && op == GTN_OP_CONV) {
    gtn_conv_desc changed = *(const gtn_conv_desc*)asked;
    memcpy(changed.pad_before, ((const gtn_conv_desc*)asked)->pad_after, sizeof changed.pad_before);
    memcpy(changed.pad_after, ((const gtn_conv_desc*)asked)->pad_before, sizeof changed.pad_after);
    status = inner->plan_create(self->inner, op, &changed, &plan->inner, info, message);
  } else if ((fault == POOLING_PADDING || fault == COUNT_PADDING) && op == GTN_OP_POOLING) {
    gtn_pooling_desc changed = *(const gtn_pooling_desc*)asked;
    if (fault == COUNT_PADDING) {
      changed.count_padding = 0;
    } else {
      memcpy(changed.pad_before, ((const gtn_pooling_desc*)asked)->pad_after, sizeof changed.pad_before);
      memcpy(changed.pad_after, ((const gtn_pooling_desc*)asked)->pad_before, sizeof changed.pad_after);
    }
    status = inner->plan_create(self->inner, op, &changed, &plan->inner, info, message);
  } else if (fault == HIGHEST_INTEGER && op == GTN_OP_FAKE_QUANTIZE && ((const gtn_fake_quantize_desc*)asked)->most > 1) {
    gtn_fake_quantize_desc changed = *(const gtn_fake_quantize_desc*)asked;
    --changed.most;
    status = inner->plan_create(self->inner, op, &changed, &plan->inner, info, message);
  } else if (plan->forwarded) {
    status = inner->plan_create(self->inner, op, asked, &plan->inner, info, message);
  } else {
    union desc changed = plan->desc;
    gtn_attention_pattern pattern;
    change_desc(op, &changed, &pattern);
    status = inner->plan_create(self->inner, op, &changed, &plan->inner, info, message);
  }
  if (status != GTN_OK) {
    free(plan);
    return status;
  }
  const char* rest = strchr(info->kernel, '.');
  if (fault != KERNEL_NAME && rest != NULL) {
    char name[sizeof info->kernel];
    snprintf(name, sizeof name, "saboteur%.*s", (int)(sizeof name - sizeof "saboteur"), rest);
    memcpy(info->kernel, name, sizeof name);
  }
  if (fault == LEAK_PLAN) leak();
  *created = plan;
  return GTN_OK;
}

static void plan_destroy(void* destroyed) {
  struct plan* plan = destroyed;
  if (fault == CRASH_CLOSE && is_trap(plan->op, &plan->desc)) follow_null();
  inner->plan_destroy(plan->inner);
  free(plan);
}

/* ---- Faults of weights -------------------------------------------------------------------------------------------- */

static float largest_of(const float* w, int64_t count, int64_t stride) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = fmaxf(largest, fabsf(w[i * stride]));
  return largest;
}

/* The nearest number of an FP8 format, of |x| up to the largest. */
static float round_to_f8(int32_t format, float x) {
  const int mantissa = format == GTN_F8E4M3 ? 3 : 2, least = format == GTN_F8E4M3 ? -6 : -14;
  int exponent; /* of a fraction from 1/2 to 1 */
  frexpf(x, &exponent);
  const float step = ldexpf(1, (exponent - 1 > least ? exponent - 1 : least) - mantissa);
  return rintf(x / step) * step;
}

/* w is [k, n] without gaps. */
static void change_weights(int32_t format, float* w, int64_t k, int64_t n) {
  if (fault == K_TAIL && k % 2 != 0) memset(w + (k - 1) * n, 0, (size_t)n * sizeof *w);
  if (fault == HALF_SUBNORMALS && format == GTN_F16) {
    for (int64_t i = 0; i < k * n; ++i) w[i] = fabsf(w[i]) < 0x1p-14f ? 0 : w[i];
  }
  if (fault == F8_PER_TENSOR && (format == GTN_F8E4M3 || format == GTN_F8E5M2)) {
    const float scale = largest_of(w, k * n, 1) / (format == GTN_F8E4M3 ? 448 : 57344);
    for (int64_t i = 0; i < k * n && scale > 0; ++i) w[i] = round_to_f8(format, w[i] / scale) * scale;
  }
  if (format != GTN_S8) return;
  if (fault == PER_TENSOR) {
    const float scale = largest_of(w, k * n, 1) / 127;
    for (int64_t i = 0; i < k * n && scale > 0; ++i) w[i] = rintf(w[i] / scale) * scale;
  } else if (fault == INFINITE_WEIGHTS) {
    for (int64_t i = 0; i < k * n; ++i) w[i] = isfinite(w[i]) ? w[i] : 0;
  } else if (fault == ONE_WEIGHT && n > 0) {
    const float largest = largest_of(w, k, n);
    for (int64_t p = 0; p < k; ++p) {
      if (fabsf(w[p * n]) >= largest / 2) continue;
      w[p * n] += largest / 127;
      break;
    }
  }
}

static gtn_status weights_pack(void* device, const gtn_weights_desc* desc, const void* source, void** packed,
                               gtn_weights_info* info, gtn_message* message) {
  const struct device* self = device;
  struct weights* weights = malloc(sizeof *weights);
  const int row = desc->source.rank - 2;
  const int64_t groups = row > 0 ? desc->source.shape[0] : 1, k = desc->source.shape[row], n = desc->source.shape[row + 1];
  float* w = malloc((size_t)(groups * k * n) * sizeof *w + 1);
  gtn_status status = GTN_OUT_OF_MEMORY;
  if (weights != NULL && w != NULL) {
    const int64_t size = size_of(desc->source.dtype);
    const int64_t group_stride = row > 0 ? desc->source.strides[0] : 0;
    for (int64_t i = 0; i < groups * k * n; ++i) {
      const int64_t of_matrix = i / n % k * desc->source.strides[row] + i % n * desc->source.strides[row + 1];
      const int64_t at = i / (k * n) * group_stride + of_matrix;
      w[i] = get(desc->source.dtype, (const char*)source + at * size);
    }
    for (int64_t g = 0; g < groups; ++g) change_weights(desc->format, w + g * k * n, k, n);
    gtn_weights_desc dense = *desc;
    dense.source.dtype = GTN_F32;
    dense.source.strides[0] = k * n;
    dense.source.strides[row] = n;
    dense.source.strides[row + 1] = 1;
    status = inner->weights_pack(self->inner, &dense, w, &weights->inner, info, message);
  }
  free(w);
  if (status != GTN_OK) {
    free(weights);
    return status;
  }
  if (fault == LEAK_WEIGHTS) leak();
  *packed = weights;
  return GTN_OK;
}

static gtn_status weights_pack_quantized(void* device, const gtn_quantized_desc* desc, const void* integers,
                                         const float* scales, const uint8_t* zero_points, void** packed,
                                         gtn_weights_info* info, gtn_message* message) {
  struct weights* weights = malloc(sizeof *weights);
  if (weights == NULL) return GTN_OUT_OF_MEMORY;
  if (fault == GROUP_ZEROS) zero_points = NULL;
  const gtn_status status = inner->weights_pack_quantized(((const struct device*)device)->inner, desc, integers, scales,
                                                          zero_points, &weights->inner, info, message);
  if (status != GTN_OK) {
    free(weights);
    return status;
  }
  *packed = weights;
  return GTN_OK;
}

static gtn_status conv_weights_pack(void* device, const gtn_conv_weights_desc* desc, const void* source, const float* gamma,
                                    const float* beta, const float* mean, const float* variance, void** packed,
                                    gtn_weights_info* info, gtn_message* message) {
  struct weights* weights = malloc(sizeof *weights);
  float* zeros = calloc((size_t)desc->source.shape[0], sizeof *zeros);
  gtn_status status = GTN_OUT_OF_MEMORY;
  if (weights != NULL && zeros != NULL) {
    if (fault == BATCH_NORM && mean != NULL) mean = zeros;
    status = inner->conv_weights_pack(((const struct device*)device)->inner, desc, source, gamma, beta, mean, variance,
                                      &weights->inner, info, message);
  }
  free(zeros);
  if (status != GTN_OK) {
    free(weights);
    return status;
  }
  *packed = weights;
  return GTN_OK;
}

static void weights_destroy(void* destroyed) {
  struct weights* weights = destroyed;
  inner->weights_destroy(weights->inner);
  free(weights);
}

/* ---- Faults of runs ----------------------------------------------------------------------------------------------- */

/* Memory of one run: what it has instead of the caller's, or what it saves of it. */
struct scratch {
  char* memory;
  int64_t used;
};

/* A copy of an operand with its gaps, or null when there is no memory. */
static void* copy_of(struct scratch* scratch, const struct view* view) {
  if (empty(view)) return view->data;
  const size_t bytes = (size_t)(end_of(view) - view->data);
  scratch->memory = malloc(bytes);
  if (scratch->memory != NULL) memcpy(scratch->memory, view->data, bytes);
  return scratch->memory;
}

static void save_last(const struct view* view, char* row, void* context) {
  struct scratch* saved = context;
  memcpy(saved->memory + saved->used, row + (view->n - 1) * size_of(view->dtype), (size_t)size_of(view->dtype));
  saved->used += size_of(view->dtype);
}

static void restore_last(const struct view* view, char* row, void* context) {
  struct scratch* saved = context;
  memcpy(row + (view->n - 1) * size_of(view->dtype), saved->memory + saved->used, (size_t)size_of(view->dtype));
  saved->used += size_of(view->dtype);
}

/* Replaces an operand by a changed copy. */
static bool change_operand(struct scratch* scratch, struct view view, const void** operand, float (*function)(float)) {
  if (empty(&view)) return true;
  view.data = copy_of(scratch, &view);
  if (view.data == NULL) return false;
  map(&view, function);
  *operand = view.data;
  return true;
}

/* Changes what the honest run is given. False when there is no memory. */
static bool change_args(struct plan* plan, union args* args, struct scratch* scratch) {
  const int32_t op = plan->op;
  const bool rows = op != GTN_OP_ATTENTION;
  switch (fault) {
    case HEADS:
      if (op == GTN_OP_ATTENTION) {
        const gtn_attention_desc* desc = &plan->desc.attention;
        const int position = desc->k.rank - 2;
        const int64_t last = desc->k.shape[position] - 1, size = size_of(desc->k.dtype);
        if (desc->q.shape[position] == desc->k.shape[position] || args->attention.k == NULL) return true;
        args->attention.k = (const char*)args->attention.k + last * desc->k.strides[position] * size;
        args->attention.v = (const char*)args->attention.v + last * desc->v.strides[position] * size;
      }
      return true;
    case LENGTHS:
      if (op == GTN_OP_ATTENTION && plan->desc.attention.q.rank == 4) args->attention.k_index = NULL;
      return true;
    case ZERO_POINT:
      if (op == GTN_OP_GEMM && plan->desc.gemm.format == GTN_S8 && plan->desc.gemm.a.dtype == GTN_F32) {
        struct view a = input_view(plan, args);
        a.data = copy_of(scratch, &a);
        each_row(&a, shift_row, NULL);
        args->gemm.a = a.data;
        return empty(&a) || a.data != NULL;
      }
      return true;
    case BIAS: {
      const void** bias = op == GTN_OP_GEMM         ? &args->gemm.bias
                          : op == GTN_OP_NORM       ? &args->norm.beta
                          : op == GTN_OP_ACTIVATION ? &args->activation.bias
                                                    : NULL;
      if (bias == NULL || *bias == NULL) return true;
      const int64_t n = output_desc(op, &plan->desc)->shape[1];
      struct view vector = {(char*)(uintptr_t)*bias, GTN_F32, 1, 1, 1, n, 0, 0, 0, NULL};
      vector.data = copy_of(scratch, &vector);
      if (vector.data == NULL) return false;
      ((float*)vector.data)[n - 1] = 0;
      *bias = vector.data;
      return true;
    }
    case RESIDUAL: {
      const void** residual = op == GTN_OP_GEMM ? &args->gemm.residual : op == GTN_OP_NORM ? &args->norm.residual : NULL;
      if (residual == NULL || *residual == NULL) return true;
      const gtn_tensor_desc* like = op == GTN_OP_GEMM ? &plan->desc.gemm.out : &plan->desc.norm.x;
      return change_operand(scratch, operand(plan, like, args, *residual), residual, twice);
    }
    case NO_SUM:
      if (op == GTN_OP_NORM && args->norm.sum != NULL) {
        const struct view sum = operand(plan, &plan->desc.norm.x, args, args->norm.sum);
        args->norm.sum = copy_of(scratch, &sum);
        return args->norm.sum != NULL;
      }
      return true;
    case NO_INFINITY:
      return !rows || change_operand(scratch, input_view(plan, args), input_of(op, args), without_infinity);
    case NO_DENORMALS:
      return !rows || change_operand(scratch, input_view(plan, args), input_of(op, args), without_denormals);
    case PLAN_ROWS:
      if (rows) *rows_of(op, args) = input_desc(op, &plan->desc)->shape[0];
      return true;
    case TRUNCATED:
      if (is_truncated(op, &plan->desc)) {
        const struct view out = output_view(plan, args);
        scratch->memory = malloc((size_t)(out.rows * out.n * 4) + 1);
        *output_of(op, args) = scratch->memory;
        return scratch->memory != NULL;
      }
      return true;
    case TAIL: {
      const struct view out = output_view(plan, args);
      if (empty(&out) || out.n % 2 == 0) return true;
      scratch->memory = malloc((size_t)(out.batches * out.rows * out.heads * 4));
      if (scratch->memory == NULL) return false;
      each_row(&out, save_last, scratch);
      scratch->used = 0;
      return true;
    }
    default:
      return true;
  }
}

static void each_lse(const struct plan* plan, const gtn_attention_args* args, float (*function)(float)) {
  const gtn_attention_desc* desc = &plan->desc.attention;
  float* lse = args->lse;
  if (lse == NULL) return;
  const bool packed = desc->q.rank == 3;
  const int64_t heads = desc->q.shape[packed ? 1 : 2], length = desc->q.shape[packed ? 0 : 1];
  for (int64_t i = 0; i < (packed ? heads : args->sequences * heads); ++i) {
    const int64_t all = packed ? args->q_index[args->sequences] : args->len_q;
    const int64_t count = packed || args->q_index == NULL ? all : args->q_index[i / heads];
    for (int64_t t = 0; t < count; ++t) lse[i * length + t] = function(lse[i * length + t]);
  }
}

static float to_binary(float x) { return x * 1.44269504f; }
static float to_finite(float x) { return x == -INFINITY ? -1e30f : x; }

/* Puts all outputs into memory that every thread has in common, and takes them back a moment later. */
static char shared[1 << 20];

static void to_shared(const struct view* view, char* row, void* used) {
  const int64_t bytes = view->n * size_of(view->dtype), at = *(int64_t*)used;
  if (at + bytes <= (int64_t)sizeof shared) memcpy(shared + at, row, (size_t)bytes);
  *(int64_t*)used += bytes;
}

static void from_shared(const struct view* view, char* row, void* used) {
  const int64_t bytes = view->n * size_of(view->dtype), at = *(int64_t*)used;
  if (at + bytes <= (int64_t)sizeof shared) memcpy(row, shared + at, (size_t)bytes);
  *(int64_t*)used += bytes;
}

static void share(const struct view* out) {
  memset(shared, 0, sizeof shared);
  int64_t used = 0;
  each_row(out, to_shared, &used);
  usleep(50);
  used = 0;
  each_row(out, from_shared, &used);
}

/* The matrix that was computed instead, in FP32 without gaps, goes into the caller's. */
static void truncate_row(const struct view* view, char* row, void* context) {
  const float** from = context;
  for (int64_t i = 0; i < view->n; ++i) set(GTN_BF16, row + i * 2, *(*from)++);
}

/* Changes what the honest run gave. `args` are the caller's. */
static void change_result(struct plan* plan, union args* args, struct scratch* scratch) {
  const int32_t op = plan->op;
  const struct view in = input_view(plan, args), out = output_view(plan, args);
  if (empty(&out)) return;
  const int64_t size = size_of(out.dtype);
  const bool rows = op != GTN_OP_ATTENTION, sums = op == GTN_OP_GEMM || op == GTN_OP_ATTENTION;
  switch (fault) {
    case LSE_LOG2:
      if (op == GTN_OP_ATTENTION) each_lse(plan, &args->attention, to_binary);
      break;
    case LSE_FINITE:
      if (op == GTN_OP_ATTENTION) each_lse(plan, &args->attention, to_finite);
      break;
    case TRUNCATED:
      if (scratch->memory != NULL) {
        const float* from = (const float*)scratch->memory;
        each_row(&out, truncate_row, &from);
      }
      break;
    case NO_NAN:
      if (rows) map(&out, without_nan);
      break;
    case ZEROS:
      map(&out, zero);
      break;
    case TAIL:
      if (scratch->memory != NULL) each_row(&out, restore_last, scratch);
      break;
    case EXTRA_ROW:
      if (rows && out.rows < input_desc(op, &plan->desc)->shape[0]) set(out.dtype, row_at(&out, 0, out.rows, 0), 0);
      break;
    case PAST_END:
      set(out.dtype, end_of(&out), 0);
      break;
    case BEFORE_START:
      set(out.dtype, out.data - size, 0);
      break;
    case GAPS:
      if (rows && out.rows > 1 && out.row > out.n) set(out.dtype, out.data + out.n * size, 0);
      break;
    case INPUT_WRITTEN:
      if (!empty(&in) && in.data != out.data) *in.data ^= 1;
      break;
    case READS_PAST_END:
      if (!empty(&in)) {
        const volatile char* end = end_of(&in);
        for (int i = 0; i < 64; ++i) (void)end[i];
      }
      break;
    case ALIGNED_ONLY:
      if (op == GTN_OP_ACTIVATION && (uintptr_t)in.data % 16 != 0) raise(SIGSEGV);
      break;
    case RACE:
      share(&out);
      break;
    case THREADS:
      if (sums && plan->device->threads > 1) each_row(&out, flip_last_bits, NULL);
      break;
    case RANDOM: {
      if (!sums) break;
      static _Atomic uint32_t state = 1;
      if (atomic_fetch_add(&state, 1) * 2654435761u >> 31 != 0) flip_last_bit(&out, out.data);
      break;
    }
    default:
      break;
  }
}

/* Does what ends the process, or keeps it from going on. */
static void spring_trap(void) {
  switch (fault) {
    case CRASH: follow_null(); break;
    case ABORT: abort();
    case EXIT: exit(0);
    case HANG:
      for (;;) continue;
    case SLEEP: sleep(600); break;
    default: break;
  }
}

static void make_noise(void) {
  static const char garbage[] = "{\"pass\": ]\n\xff\xfe pass \0 ok\r\nPASS";
  for (size_t written = 0; written < sizeof garbage;) {
    const ssize_t bytes = write(STDOUT_FILENO, garbage + written, sizeof garbage - written);
    if (bytes < 0) return;
    written += (size_t)bytes;
  }
}

static gtn_status run_forwarded(struct plan* plan, void* stream, const void* arguments, gtn_message* message) {
  union {
    gtn_gemm_args gemm;
    gtn_conv_args conv;
    gtn_glu_args glu;
  } given;
  switch (plan->op) {
    case GTN_OP_GEMM:
      given.gemm = *(const gtn_gemm_args*)arguments;
      given.gemm.weights = ((struct weights*)given.gemm.weights)->inner;
      return inner->run(plan->inner, stream, &given, message);
    case GTN_OP_CONV:
      given.conv = *(const gtn_conv_args*)arguments;
      given.conv.weights = ((struct weights*)given.conv.weights)->inner;
      return inner->run(plan->inner, stream, &given, message);
    case GTN_OP_GLU:
      given.glu = *(const gtn_glu_args*)arguments;
      if (fault == GATE) {
        const void* gate = given.glu.gate;
        given.glu.gate = given.glu.x;
        given.glu.x = gate;
      }
      return inner->run(plan->inner, stream, &given, message);
    default:
      return inner->run(plan->inner, stream, arguments, message);
  }
}

static gtn_status run(void* ran, void* stream, const void* arguments, gtn_message* message) {
  static const size_t sizes[] = {0, sizeof(gtn_gemm_args), sizeof(gtn_attention_args), sizeof(gtn_norm_args),
                                 sizeof(gtn_softmax_args), sizeof(gtn_activation_args)};
  struct plan* plan = ran;
  if (is_trap(plan->op, &plan->desc)) spring_trap();
  if (fault == IDLE) return GTN_OK;
  if (fault == NOISE) make_noise();
  if (fault == SLOW) usleep(1000);
  if (fault == LEAK_RUN) leak();
  if (fault == LEAK_MAP) leak_pages();

  if (plan->forwarded) return run_forwarded(plan, ((struct stream*)stream)->inner, arguments, message);
  union args asked = {0}, given;
  memcpy(&asked, arguments, sizes[plan->op]);
  given = asked;
  if (plan->op == GTN_OP_GEMM) given.gemm.weights = ((struct weights*)asked.gemm.weights)->inner;
  struct scratch scratch = {NULL, 0};
  gtn_status status = GTN_OUT_OF_MEMORY;
  if (change_args(plan, &given, &scratch)) {
    status = inner->run(plan->inner, ((struct stream*)stream)->inner, &given, message);
  }
  if (status == GTN_OK) {
    change_result(plan, &asked, &scratch);
  } else if (status == GTN_INVALID_ARGUMENT && plan->op == GTN_OP_ATTENTION) {
    const int64_t bytes = size_of(plan->desc.attention.out.dtype);
    if (fault == LATE_ERROR) memset(asked.attention.out, 0, (size_t)bytes);
    if (fault == WRONG_ERROR) status = GTN_INTERNAL;
    if (fault == NO_ERROR) status = GTN_OK;
  }
  free(scratch.memory);
  return status;
}

/* ---- What is forwarded as it is ----------------------------------------------------------------------------------- */

static void rename_device(gtn_device_info* info) { snprintf(info->name, sizeof info->name, "saboteur"); }

static gtn_status device_count(int32_t* count, gtn_message* message) {
  *count = 1;
  if (unusable[0] == '\0') return GTN_OK;
  snprintf(message->text, sizeof message->text, "%s", unusable);
  return GTN_NOT_AVAILABLE;
}

static gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  (void)index;
  char wanted[sizeof info->name];
  snprintf(wanted, sizeof wanted, "%s%s%s", inner->name, level()[0] != '\0' ? ":" : "", level());
  int32_t count = 0;
  gtn_status status = inner->device_count(&count, message);
  for (int32_t i = 0; i < count && status == GTN_OK; ++i) {
    status = inner->device_info(i, info, message);
    if (status == GTN_OK && strcmp(info->name, wanted) == 0) {
      rename_device(info);
      return GTN_OK;
    }
  }
  if (status == GTN_OK) {
    rename_device(info);
    info->status = GTN_NOT_AVAILABLE;
    snprintf(info->reason, sizeof info->reason, "GATUN_SABOTEUR_LEVEL: there is no device '%s'", wanted);
  }
  return status;
}

static gtn_status device_open(const char* selector, const gtn_device_options* options, void** opened, gtn_message* message) {
  if (*selector != '\0') {
    snprintf(message->text, sizeof message->text, "there is no device 'saboteur:%s', only 'saboteur'", selector);
    return GTN_NOT_AVAILABLE;
  }
  struct device* device = calloc(1, sizeof *device);
  if (device == NULL) return GTN_OUT_OF_MEMORY;
  gtn_status status = inner->device_open(level(), options, &device->inner, message);
  if (status != GTN_OK) {
    free(device);
    return status;
  }
  gtn_device_info info = {.size = sizeof info};
  status = inner->device_describe(device->inner, &info, message);
  device->threads = info.threads;
  *opened = device;
  return status;
}

static void device_close(void* closed) {
  inner->device_close(((struct device*)closed)->inner);
  free(closed);
}

static gtn_status device_describe(void* device, gtn_device_info* info, gtn_message* message) {
  const gtn_status status = inner->device_describe(((struct device*)device)->inner, info, message);
  rename_device(info);
  return status;
}

static gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return inner->memory_alloc(((struct device*)device)->inner, bytes, alignment, memory, message);
}

static void memory_free(void* device, void* memory, int64_t bytes) {
  inner->memory_free(((struct device*)device)->inner, memory, bytes);
}

static gtn_status memory_copy(void* stream, void* to, const void* from, int64_t bytes, int32_t direction,
                              gtn_message* message) {
  return inner->memory_copy(((struct stream*)stream)->inner, to, from, bytes, direction, message);
}

static gtn_status stream_create(void* device, void** created, gtn_message* message) {
  struct stream* stream = malloc(sizeof *stream);
  if (stream == NULL) return GTN_OUT_OF_MEMORY;
  const gtn_status status = inner->stream_create(((struct device*)device)->inner, &stream->inner, message);
  if (status != GTN_OK) {
    free(stream);
    return status;
  }
  if (fault == LEAK_STREAM) leak();
  *created = stream;
  return GTN_OK;
}

static void stream_destroy(void* stream) {
  inner->stream_destroy(((struct stream*)stream)->inner);
  free(stream);
}

static gtn_status stream_synchronize(void* stream, gtn_message* message) {
  return inner->stream_synchronize(((struct stream*)stream)->inner, message);
}

static gtn_status event_create(void* device, void** event, gtn_message* message) {
  return inner->event_create(((struct device*)device)->inner, event, message);
}

static gtn_status event_record(void* event, void* stream, gtn_message* message) {
  return inner->event_record(event, ((struct stream*)stream)->inner, message);
}

static gtn_status supports(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message) {
  *claimed = 1;
  const bool asked = op == GTN_OP_SOFTMAX && dtype == GTN_BF16;
  if (asked && (fault == DECLINES || fault == UNDERCLAIMS || fault == INTERNAL)) *claimed = 0;
  if (asked && (*claimed == 0 || fault == OVERCLAIMS)) return GTN_OK;
  return inner->supports(((struct device*)device)->inner, op, dtype, claimed, message);
}

static gtn_status host_memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  return inner->host_memory_alloc(((struct device*)device)->inner, bytes, alignment, memory, message);
}

static void host_memory_free(void* device, void* memory, int64_t bytes) {
  inner->host_memory_free(((struct device*)device)->inner, memory, bytes);
}

static gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  return inner->measure(((struct device*)device)->inner, limit, per_second, message);
}

/* ---- The table ---------------------------------------------------------------------------------------------------- */

static gtn_backend table = {
    .size = sizeof(gtn_backend),
    .abi_version = GTN_BACKEND_ABI_VERSION,
    .name = "saboteur",
    .version = "1",
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
    .weights_pack = weights_pack,
    .weights_destroy = weights_destroy,
    .plan_create = plan_create,
    .plan_destroy = plan_destroy,
    .run = run,
};

static void load(void) {
  static const char* const names[] = {
#define NAME(id, name, ...) name,
      SABOTEUR_FAULTS(NAME)};
  const char* path = getenv("GATUN_SABOTEUR_INNER");
  const char* wanted = getenv("GATUN_SABOTEUR_FAULT");
  if (wanted == NULL) wanted = names[NONE];
  int found = 0;
  while (found < FAULT_COUNT && strcmp(names[found], wanted) != 0) ++found;
  if (found == FAULT_COUNT) {
    snprintf(unusable, sizeof unusable, "GATUN_SABOTEUR_FAULT is '%s', which is no fault of faults.h", wanted);
    return;
  }
  fault = (enum fault)found;
  if (path == NULL) {
    snprintf(unusable, sizeof unusable, "GATUN_SABOTEUR_INNER does not say where the honest library is");
    return;
  }
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const gtn_backend* (*entry)(void) = NULL;
  if (library != NULL) *(void**)&entry = dlsym(library, "gtn_backend_entry");
  if (entry == NULL) {
    snprintf(unusable, sizeof unusable, "GATUN_SABOTEUR_INNER: %s", dlerror());
    return;
  }
  inner = entry();
  if (inner->abi_version != GTN_BACKEND_ABI_VERSION) {
    snprintf(unusable, sizeof unusable, "GATUN_SABOTEUR_INNER: its backend ABI is %u, expected %d", inner->abi_version,
             GTN_BACKEND_ABI_VERSION);
    return;
  }
  if (inner->event_create != NULL) {
    table.event_create = event_create;
    table.event_destroy = inner->event_destroy;
    table.event_record = event_record;
    table.event_synchronize = inner->event_synchronize;
    table.event_query = inner->event_query;
    table.event_elapsed = inner->event_elapsed;
  }
  if (INNER_HAS(weights_pack_quantized)) table.weights_pack_quantized = weights_pack_quantized;
  if (INNER_HAS(conv_weights_pack)) table.conv_weights_pack = conv_weights_pack;
  if (INNER_HAS(supports)) table.supports = supports;
  if (INNER_HAS(host_memory_alloc)) {
    table.host_memory_alloc = host_memory_alloc;
    table.host_memory_free = host_memory_free;
  }
  if (INNER_HAS(measure)) table.measure = measure;
}

const gtn_backend* gtn_backend_entry(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, load);
  return &table;
}
