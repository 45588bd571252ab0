/*
 * gatun.h: the C interface of Gatun, hand-written AI kernels behind one ABI.
 *
 * The whole interface in five sentences. A device belongs to a backend, a shared library that is found at run time. A
 * plan describes an operator once: its arguments are checked, a kernel is chosen and the workspace is known; the shapes
 * in a plan are maxima. A run executes a plan on a stream with the memory, row counts and lengths of one call; it
 * allocates nothing. Packed weights are an object of their own that any number of plans may share. Every object is a
 * 64-bit handle, and a handle that was closed is detected, never followed.
 *
 * Conventions
 *   - Every function returns a gtn_status; nothing throws, aborts or prints. An error leaves every output untouched.
 *   - Text comes back in a gtn_message of the caller's (NULL is allowed). The message names the argument, its value and
 *     what was expected. Runs keep theirs in the stream: gtn_stream_message() reads it.
 *   - Structures start with `size`, which the caller sets to sizeof the structure it was compiled with, so that they can
 *     grow. Fields beyond a caller's size take the value zero.
 *   - All sizes, shapes and strides are 64-bit; strides count elements, not bytes.
 *   - Handles are safe to use from any thread. A stream serves one thread at a time: a second one gets GTN_BUSY.
 *     Closing an object while a run is inside it gives GTN_BUSY and closes nothing.
 *   - Data pointers must be aligned to their element and valid for the extent that the plan and the run arguments
 *     describe; the library cannot check that a pointer leads to memory.
 */
#ifndef GATUN_GATUN_H
#define GATUN_GATUN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GTN_API __attribute__((visibility("default")))
#else
#define GTN_API
#endif

/* The version of this interface. A library and a header with the same number understand each other. */
#define GTN_ABI_VERSION 1

#define GTN_MAX_RANK 6

/* Results of every function. */
typedef int32_t gtn_status;
enum {
  GTN_OK = 0,
  GTN_INVALID_ARGUMENT = 1, /* an argument that can be seen to be wrong; outputs are untouched */
  GTN_STALE_HANDLE = 2,     /* a handle that was never given out, or whose object was closed */
  GTN_BUSY = 3,             /* a stream used by a second thread, or a close while a run is inside */
  GTN_UNSUPPORTED = 4,      /* a legal request that this device does not serve */
  GTN_NOT_AVAILABLE = 5,    /* a backend, device or instruction-set level that is not there */
  GTN_OUT_OF_MEMORY = 6,
  GTN_DEVICE_LOST = 7,
  GTN_INTERNAL = 8 /* a defect of the library or of a backend */
};

/* Element types. BF16 is the upper half of an FP32; F16 is IEEE 754 binary16. */
enum { GTN_F32 = 1, GTN_BF16 = 2, GTN_F16 = 3, GTN_S8 = 4, GTN_U8 = 5, GTN_S32 = 6, GTN_S64 = 7 };

/* Operators. */
enum { GTN_OP_GEMM = 1, GTN_OP_ATTENTION = 2, GTN_OP_NORM = 3, GTN_OP_SOFTMAX = 4, GTN_OP_ACTIVATION = 5 };

/* Element-wise functions, alone (gtn_activation_desc) or in a GEMM's epilogue. */
enum {
  GTN_ACT_NONE = 0,
  GTN_ACT_GELU_ERF = 1,  /* x/2 * (1 + erf(x / sqrt 2)) */
  GTN_ACT_GELU_TANH = 2, /* x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) */
  GTN_ACT_SILU = 3,      /* x / (1 + exp(-x)) */
  GTN_ACT_RELU = 4       /* max(x, 0); NaN stays NaN */
};

/* Normalisations over the last dimension. */
enum {
  GTN_NORM_LAYER = 1, /* (h - mean h) / sqrt(var h + epsilon) * gamma + beta; var is the biased variance */
  GTN_NORM_RMS = 2    /* h / sqrt(mean h^2 + epsilon) * gamma */
};

/* Handles: 0 is never valid. */
typedef uint64_t gtn_device;
typedef uint64_t gtn_stream;
typedef uint64_t gtn_event;
typedef uint64_t gtn_plan;
typedef uint64_t gtn_weights;

/* Where a function writes its message: UTF-8, NUL-terminated, cut to fit. On success it is left as it was. */
typedef struct gtn_message {
  uint32_t size;
  char text[1020];
} gtn_message;

/* A dense or strided array: element (i0, i1, ...) lies at data + sum of i_d * strides[d]. Row-major is strides of
 * {..., shape[r-1], 1}; other layouts (head-major attention, transposed weights) are strides, not flags. */
typedef struct gtn_tensor_desc {
  uint32_t size;
  int32_t dtype;
  int32_t rank; /* 1 to GTN_MAX_RANK */
  int32_t reserved;
  int64_t shape[GTN_MAX_RANK];   /* 0 is allowed; entries beyond rank are ignored */
  int64_t strides[GTN_MAX_RANK]; /* elements, not negative; entries beyond rank are ignored */
} gtn_tensor_desc;

/* ---- Library ---------------------------------------------------------------------------------------------------- */

/* The ABI version of the library that was loaded, to compare with GTN_ABI_VERSION. */
GTN_API uint32_t gtn_abi_version(void);

/* The release and a hash of the sources that it was built from, such as "0.1.0+3f9a1c0b7d25". Static storage. */
GTN_API const char* gtn_version(void);

/* How this library was compiled to lay out the structures of this header, for bindings to compare themselves with: a
 * line for each structure, "gtn_message 1024: size 0 4, text 4 1020", that gives its name and bytes, and of each field
 * its name, offset and bytes. Static storage. */
GTN_API const char* gtn_layouts(void);

/* ---- Backends --------------------------------------------------------------------------------------------------- */

typedef struct gtn_backend_info {
  uint32_t size;
  gtn_status status; /* GTN_OK, or why it cannot be used, with the sentence in `reason` */
  uint32_t abi_version; /* the backend ABI that it was built for; 0 when unknown */
  int32_t device_count;
  char name[32];        /* "cpu", "cuda", ... */
  char version[64];
  char path[1024];      /* the library, or empty when none was found */
  char reason[512];     /* empty when status is GTN_OK */
} gtn_backend_info;

/* Opens the backend library at `path` and adds it to the list. One that cannot be used (missing, damaged, of another ABI
 * version, or without its vendor's driver) is listed all the same, with the reason, and the status says so; the others
 * are unaffected. A library is never unloaded. Loading the same path again, once it worked, does nothing and is GTN_OK.
 * `trusted`: 1 when the caller knows that the file is whole, as by its hash; it is then opened at once. 0: a damaged
 * library can kill the process that opens it, so a child process opens it first, asks for its devices, and says whether
 * it survived. */
GTN_API gtn_status gtn_backend_load(const char* path, int32_t trusted, gtn_message* message);

/* Loads every libgatun_<name>.so in `directory` (NULL: the directory of this library), none of them trusted, and lists
 * each of Gatun's own backends that is not there as not available. GTN_OK also when some of them could not be used:
 * gtn_backend_query says which. */
GTN_API gtn_status gtn_backend_discover(const char* directory, gtn_message* message);

GTN_API gtn_status gtn_backend_count(int32_t* count, gtn_message* message);
GTN_API gtn_status gtn_backend_query(int32_t index, gtn_backend_info* info, gtn_message* message);

/* ---- Devices ---------------------------------------------------------------------------------------------------- */

typedef struct gtn_device_info {
  uint32_t size;
  gtn_status status;     /* GTN_OK, or why it cannot be opened */
  char name[64];         /* what gtn_device_open takes: "cpu", "cpu:avx2", "cuda:0" */
  char description[256]; /* the processor's own name and the chosen level */
  char reason[256];      /* empty when status is GTN_OK */
  int32_t threads;       /* worker threads that a run may use, the caller's included; 0 where that has no meaning */
  int32_t host_memory;   /* 1: the device computes on any host memory; 0: only on memory of gtn_memory_alloc */
  int64_t memory_bytes;  /* memory of the device; -1 when unknown */
} gtn_device_info;

typedef struct gtn_device_options {
  uint32_t size;
  int32_t threads; /* worker threads at most, the caller's included; 0: as many as the process may use; a backend may use fewer */
} gtn_device_options;

/* Describes device `device` of 0 to device_count - 1 of backend `backend`, opened or not. */
GTN_API gtn_status gtn_device_query(int32_t backend, int32_t device, gtn_device_info* info, gtn_message* message);

/* Opens a device by name: "<backend>" or "<backend>:<which>". `options` may be NULL. */
GTN_API gtn_status gtn_device_open(const char* name, const gtn_device_options* options, gtn_device* device,
                                   gtn_message* message);
GTN_API gtn_status gtn_device_describe(gtn_device device, gtn_device_info* info, gtn_message* message);

/* Whether the device claims to serve operator GTN_OP_* with elements of type `dtype`: that of the packed weights for
 * GTN_OP_GEMM, of q for GTN_OP_ATTENTION, of x for the others. *claimed is 1, 0, or -1 where the backend makes no claims. A
 * plan may still be declined with GTN_UNSUPPORTED, for a shape say. */
GTN_API gtn_status gtn_device_supports(gtn_device device, int32_t op, int32_t dtype, int32_t* claimed,
                                       gtn_message* message);

/* Ceilings of a device: multiply-add operations per second on operands of a type, a multiply-add counted as two, and bytes
 * per second read from memory. */
enum { GTN_LIMIT_F32 = 1, GTN_LIMIT_BF16 = 2, GTN_LIMIT_S8 = 3, GTN_LIMIT_MEMORY = 4 };

/* Measures a ceiling now, with all threads of the device, in about a tenth of a second: what its fastest instructions for
 * that type reach on operands in the nearest memory, or a sweep through memory larger than its caches. GTN_UNSUPPORTED
 * where the backend cannot say. */
GTN_API gtn_status gtn_device_measure(gtn_device device, int32_t limit, double* per_second, gtn_message* message);

/* GTN_BUSY while the device has open streams, events, plans, packed weights or memory. */
GTN_API gtn_status gtn_device_close(gtn_device device, gtn_message* message);

/* ---- Streams and events ----------------------------------------------------------------------------------------- */

/* A queue of runs, executed in order. A CPU stream runs each call inline, in the caller's thread and the worker pool. */
GTN_API gtn_status gtn_stream_create(gtn_device device, gtn_stream* stream, gtn_message* message);

/* Returns when everything given to the stream is done, with the first error of it. */
GTN_API gtn_status gtn_stream_synchronize(gtn_stream stream, gtn_message* message);

/* Copies the message of the last run on this stream that failed with any status but GTN_STALE_HANDLE and GTN_BUSY
 * (those two never got as far as the stream). */
GTN_API gtn_status gtn_stream_message(gtn_stream stream, gtn_message* message);
GTN_API gtn_status gtn_stream_close(gtn_stream stream, gtn_message* message);

GTN_API gtn_status gtn_event_create(gtn_device device, gtn_event* event, gtn_message* message);

/* Marks the point that the stream has been given work up to. */
GTN_API gtn_status gtn_event_record(gtn_event event, gtn_stream stream, gtn_message* message);

/* Returns when the recorded point is reached. An event never recorded is GTN_INVALID_ARGUMENT. */
GTN_API gtn_status gtn_event_synchronize(gtn_event event, gtn_message* message);

/* *done is 1 when the recorded point is reached, else 0. */
GTN_API gtn_status gtn_event_query(gtn_event event, int32_t* done, gtn_message* message);

/* Milliseconds from the point of `start` to the point of `end`, both reached. */
GTN_API gtn_status gtn_event_elapsed(gtn_event start, gtn_event end, double* milliseconds, gtn_message* message);
GTN_API gtn_status gtn_event_close(gtn_event event, gtn_message* message);

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* Memory that the device computes on. Its content is undefined. `alignment` is a power of two, 64 to 2 MiB; `bytes` is
 * at least 1. */
GTN_API gtn_status gtn_memory_alloc(gtn_device device, int64_t bytes, int64_t alignment, void** memory,
                                    gtn_message* message);

/* `memory` must come from gtn_memory_alloc on the same device: any other pointer is GTN_INVALID_ARGUMENT. */
GTN_API gtn_status gtn_memory_free(gtn_device device, void* memory, gtn_message* message);

enum { GTN_HOST_TO_DEVICE = 1, GTN_DEVICE_TO_HOST = 2, GTN_DEVICE_TO_DEVICE = 3 };

/* Copies in stream order. The two ranges must not overlap. The host's memory is free for reuse on return. */
GTN_API gtn_status gtn_memory_copy(gtn_stream stream, void* destination, const void* source, int64_t bytes,
                                   int32_t direction, gtn_message* message);

/* ---- Packed weights --------------------------------------------------------------------------------------------- */

typedef struct gtn_weights_desc {
  uint32_t size;
  int32_t format;         /* GTN_F32, GTN_BF16, or GTN_S8: one scale of amax/127 per output channel, round to nearest even */
  gtn_tensor_desc source; /* [k, n], GTN_F32 or GTN_BF16, any strides: a transposed [n, k] matrix has strides {1, k} */
} gtn_weights_desc;

typedef struct gtn_weights_info {
  uint32_t size;
  int32_t format;
  int64_t k, n;
  int64_t bytes; /* memory that the packed form occupies */
} gtn_weights_info;

/* Packs a weight matrix once, in the device's own layout; `source` is host memory, and free for reuse on return. A weight
 * that is not finite is kept by GTN_F32 and GTN_BF16 and is GTN_INVALID_ARGUMENT with GTN_S8. */
GTN_API gtn_status gtn_weights_pack(gtn_device device, const gtn_weights_desc* desc, const void* source,
                                    gtn_weights* weights, gtn_message* message);
GTN_API gtn_status gtn_weights_query(gtn_weights weights, gtn_weights_info* info, gtn_message* message);
GTN_API gtn_status gtn_weights_close(gtn_weights weights, gtn_message* message);

/* ---- Plans ------------------------------------------------------------------------------------------------------ */

typedef struct gtn_plan_info {
  uint32_t size;
  int32_t op;
  char kernel[64];         /* the chosen kernel, as "cpu.avx2.gemm.int8" */
  double flops;            /* floating-point or integer operations at the plan's maxima; a multiply-add is two */
  double bytes;            /* compulsory memory traffic at the plan's maxima: each input read and each output written once */
  int64_t workspace_bytes; /* scratch memory that a stream holds for the plan */
} gtn_plan_info;

GTN_API gtn_status gtn_plan_query(gtn_plan plan, gtn_plan_info* info, gtn_message* message);
GTN_API gtn_status gtn_plan_close(gtn_plan plan, gtn_message* message);

/* GEMM: out[m, n] = activation(a[m, k] * w[k, n] + bias[n]) + residual[m, n].
 *
 * format GTN_F32: FP32 throughout. format GTN_BF16: a is rounded to BF16 (ties to even), products and sums are FP32.
 * format GTN_S8: each row of a is quantized to 8 bits without sign: lo = min(0, min x), hi = max(0, max x),
 * s = (hi - lo) / 255 in FP32, z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255), ties to even; s = 0 gives q = z = 0;
 * a row with a NaN, an infinity or a range that overflows gives a row of NaN. The sums are exact in 32 bits, which limits k
 * to 66311; the epilogue is FP32. */
typedef struct gtn_gemm_desc {
  uint32_t size;
  int32_t format;      /* GTN_F32, GTN_BF16, GTN_S8: the format of the packed weights it will run with */
  gtn_tensor_desc a;   /* [m, k], GTN_F32 or GTN_BF16, unit stride in k; m is the largest number of rows */
  gtn_tensor_desc out; /* [m, n], GTN_F32 or GTN_BF16, unit stride in n */
  int32_t activation;  /* GTN_ACT_* */
  int32_t has_bias;    /* 1: bias, FP32 [n] */
  int32_t has_residual; /* 1: residual, laid out and typed as out */
  int32_t reserved;
} gtn_gemm_desc;

GTN_API gtn_status gtn_gemm_plan(gtn_device device, const gtn_gemm_desc* desc, gtn_plan* plan, gtn_message* message);

/* rows: 0 to m. bias and residual are NULL exactly where the plan has none. out may equal residual; it may overlap nothing
 * else. */
GTN_API gtn_status gtn_gemm_run(gtn_plan plan, gtn_stream stream, gtn_weights weights, int64_t rows, const void* a,
                                const void* bias, const void* residual, void* out);

/* Attention: out = softmax(scale * q k^T over the visible keys) v, for every sequence and head, by an online softmax that
 * never holds the score matrix.
 *
 * Query i of a sequence with len_q queries and len_k keys sits at position p = i + len_k - len_q (bottom-right aligned) and
 * sees the keys j with p - window_left <= j <= p + window_right; -1 is unlimited; causal is window_right = 0. A query that
 * sees nothing gives 0 and a log-sum-exp of -infinity. Query head h reads key/value head h / (heads_q / heads_k).
 *
 * Batched: rank 4, [batch, length, heads, head size]. Packed: rank 3, [tokens, heads, head size], where sequence b has the
 * tokens offsets[b] to offsets[b + 1] - 1. q, k, v and out share a rank and a dtype, GTN_F32 or GTN_BF16, and have unit
 * stride in the head size; sums and the softmax are FP32. */
typedef struct gtn_attention_desc {
  uint32_t size;
  float scale;         /* finite; usually 1 / sqrt(head size of q) */
  gtn_tensor_desc q;   /* [batch, len_q, heads_q, dk] or [tokens_q, heads_q, dk] */
  gtn_tensor_desc k;   /* [batch, len_k, heads_k, dk] or [tokens_k, heads_k, dk]; heads_k divides heads_q */
  gtn_tensor_desc v;   /* [batch, len_k, heads_k, dv] or [tokens_k, heads_k, dv] */
  gtn_tensor_desc out; /* [batch, len_q, heads_q, dv] or [tokens_q, heads_q, dv] */
  int64_t window_left;  /* -1 unlimited, else 0 or more */
  int64_t window_right; /* -1 unlimited, else 0 or more */
  int64_t max_sequences; /* packed: the largest number of sequences; batched: ignored */
} gtn_attention_desc;

GTN_API gtn_status gtn_attention_plan(gtn_device device, const gtn_attention_desc* desc, gtn_plan* plan,
                                      gtn_message* message);

/* Batched: sequences <= batch, len_q and len_k <= those of the plan, and q_index and k_index are NULL (all sequences have
 * len_q and len_k) or the lengths of each sequence, int64 [sequences], 0 to len_q and 0 to len_k; rows of out beyond a
 * sequence's length are not touched. Packed: len_q and len_k are the token counts, and q_index and k_index are offsets,
 * int64 [sequences + 1], from 0, never falling, the last at most the token count.
 * lse: NULL, or FP32, the natural-log sum of exponentials of the scaled scores, dense [sequences, heads_q, len_q] batched
 * with the plan's len_q as its row length, or [heads_q, tokens_q] packed with the plan's tokens_q; entries beyond a
 * sequence's length are not touched either.
 * The index arrays are memory of the device. out and lse overlap nothing; q, k and v may alias. */
GTN_API gtn_status gtn_attention_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                                     const void* q_index, const void* k_index, const void* q, const void* k,
                                     const void* v, void* out, void* lse);

/* Normalisation with a fused residual: h = x + residual; out = norm(h); sum = h. */
typedef struct gtn_norm_desc {
  uint32_t size;
  int32_t kind;         /* GTN_NORM_* */
  gtn_tensor_desc x;    /* [rows, n], GTN_F32 or GTN_BF16, unit stride in n; n at least 1 */
  gtn_tensor_desc out;  /* as x in shape, GTN_F32 or GTN_BF16 */
  float epsilon;        /* finite, not negative */
  int32_t has_residual; /* 1: residual, laid out and typed as x */
  int32_t has_beta;     /* 1: beta is added (GTN_NORM_LAYER only) */
  int32_t has_sum;      /* 1: h is written too, laid out and typed as x */
} gtn_norm_desc;

GTN_API gtn_status gtn_norm_plan(gtn_device device, const gtn_norm_desc* desc, gtn_plan* plan, gtn_message* message);

/* gamma and beta are FP32 [n]; gamma is never NULL. out may equal x or residual where dtype and strides match; sum may equal
 * x or residual; out and sum do not overlap. */
GTN_API gtn_status gtn_norm_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual,
                                const void* gamma, const void* beta, void* out, void* sum);

/* Softmax over the last dimension: out = exp(scale x - max) / sum. A row of -infinity alone gives 0; a row with a NaN or
 * +infinity gives NaN. */
typedef struct gtn_softmax_desc {
  uint32_t size;
  float scale;         /* finite */
  gtn_tensor_desc x;   /* [rows, n], GTN_F32 or GTN_BF16, unit stride in n */
  gtn_tensor_desc out; /* as x in shape, GTN_F32 or GTN_BF16 */
} gtn_softmax_desc;

GTN_API gtn_status gtn_softmax_plan(gtn_device device, const gtn_softmax_desc* desc, gtn_plan* plan,
                                    gtn_message* message);

/* out may equal x where dtype and strides match. */
GTN_API gtn_status gtn_softmax_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, void* out);

/* Bias and activation: out = activation(x + bias). */
typedef struct gtn_activation_desc {
  uint32_t size;
  int32_t activation;  /* GTN_ACT_* */
  gtn_tensor_desc x;   /* [rows, n], GTN_F32 or GTN_BF16, unit stride in n */
  gtn_tensor_desc out; /* as x in shape, GTN_F32 or GTN_BF16 */
  int32_t has_bias;    /* 1: bias, FP32 [n] */
  int32_t reserved;
} gtn_activation_desc;

GTN_API gtn_status gtn_activation_plan(gtn_device device, const gtn_activation_desc* desc, gtn_plan* plan,
                                       gtn_message* message);

/* out may equal x where dtype and strides match. */
GTN_API gtn_status gtn_activation_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* bias,
                                      void* out);

#ifdef __cplusplus
}
#endif

#endif
