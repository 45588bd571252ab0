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
 *   - Arrays of lengths, offsets, indices and masks lie in the device's memory. Where that is the host's, a run refuses content
 *     that leads nowhere. Elsewhere no one has seen it when the run returns: what leads nowhere is then left out or taken to
 *     be the nearest that does, and nothing outside of the tensors is read or written.
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

/* The format of weights of 4 bits, two in a byte; no tensor has it as its dtype. */
enum { GTN_U4 = 8 };

/* The formats of weights of 8 bits in floating point (Micikevicius et al. 2022, "FP8 formats for deep learning"; OCP OFP8): E4M3
 * has 4 bits of exponent with a bias of 7, numbers up to 448, no infinities, and NaN where the 7 lower bits are set; E5M2 has 5
 * with a bias of 15, numbers up to 57344, infinities and NaN as IEEE 754 has them. No tensor has them as its dtype. */
enum { GTN_F8E4M3 = 9, GTN_F8E5M2 = 10 };

/* The format of pruned weights in BF16: of each column's k = 4 i to 4 i + 3, two are stored, with the places that they had in 2
 * bits each (Mishra et al. 2021, "Accelerating sparse deep neural networks"), and the others are 0. No tensor has it as its
 * dtype. */
enum { GTN_BF16_2OF4 = 11 };

/* Operators. */
enum {
  GTN_OP_GEMM = 1,
  GTN_OP_ATTENTION = 2,
  GTN_OP_NORM = 3,
  GTN_OP_SOFTMAX = 4,
  GTN_OP_ACTIVATION = 5,
  GTN_OP_MERGE = 6,
  GTN_OP_ROPE = 7,
  GTN_OP_SELECT = 8,
  GTN_OP_ROUTE = 9,
  GTN_OP_MIX = 10,
  GTN_OP_GLU = 11,
  GTN_OP_CONV = 12,
  GTN_OP_POOLING = 13,
  GTN_OP_FAKE_QUANTIZE = 14
};

/* Element-wise functions, alone (gtn_activation_desc), as a gate (gtn_glu_desc) or in a GEMM's epilogue. */
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

/* Opens the backend library at `path` and adds it to the list, in the place of one of its name that was listed as not
 * there. One that cannot be used (missing, damaged, of another ABI version, or without its vendor's driver) is listed all the
 * same, with the reason, and the status says so; the others are unaffected. A library is never unloaded. Loading the same path
 * again, once it worked, does nothing and is GTN_OK. `trusted`: 1 when the caller knows that the file is whole, as by its
 * hash; it is then opened at once. 0: a damaged library can kill the process that opens it, so a child process opens it first,
 * asks for its devices, and says whether it survived. */
GTN_API gtn_status gtn_backend_load(const char* path, int32_t trusted, gtn_message* message);

/* Loads every libgatun_<name>.so in `directory` (NULL: the directory of this library), none of them trusted, and lists
 * each of Gatun's own backends that is not there as not available, until it is loaded from elsewhere. GTN_OK also when some of
 * them could not be used: gtn_backend_query says which. */
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
 * GTN_OP_GEMM and GTN_OP_CONV, of q for GTN_OP_ATTENTION and GTN_OP_SELECT, of q or k for GTN_OP_ROPE, of x for the others. *claimed is 1,
 * 0, or -1 where the backend makes no claims. A plan may still be declined with GTN_UNSUPPORTED, for a shape say. */
GTN_API gtn_status gtn_device_supports(gtn_device device, int32_t op, int32_t dtype, int32_t* claimed,
                                       gtn_message* message);

/* Ceilings of a device: multiply-add operations per second on operands of a type, a multiply-add counted as two; bytes per
 * second read from memory, read from the largest cache, and copied, those read and those written counted both; FP32
 * exponentials per second. */
enum {
  GTN_LIMIT_F32 = 1,
  GTN_LIMIT_BF16 = 2,
  GTN_LIMIT_S8 = 3,
  GTN_LIMIT_MEMORY = 4,
  GTN_LIMIT_CACHE = 5,
  GTN_LIMIT_COPY = 6,
  GTN_LIMIT_EXP = 7
};

/* Measures a ceiling now, with all threads of the device, in about a tenth of a second: what its fastest instructions for
 * that type reach on operands in the nearest memory, or a sweep through memory larger than its caches, or a sweep that
 * the largest cache holds and no smaller one. GTN_UNSUPPORTED where the backend cannot say. */
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

/* Memory of the host that the device reaches by itself (pinned): the driver copies between it and the device without a
 * buffer of its own. The host uses it as any memory, runs take it only where the device computes on any host memory, and
 * the system cannot give its pages to others. Its content is undefined; arguments are as in gtn_memory_alloc.
 * GTN_UNSUPPORTED where the backend has none. */
GTN_API gtn_status gtn_host_memory_alloc(gtn_device device, int64_t bytes, int64_t alignment, void** memory,
                                         gtn_message* message);

/* `memory` must come from gtn_host_memory_alloc on the same device: any other pointer is GTN_INVALID_ARGUMENT. */
GTN_API gtn_status gtn_host_memory_free(gtn_device device, void* memory, gtn_message* message);

enum { GTN_HOST_TO_DEVICE = 1, GTN_DEVICE_TO_HOST = 2, GTN_DEVICE_TO_DEVICE = 3 };

/* Copies in stream order. The two ranges must not overlap. The host's memory is free for reuse on return. */
GTN_API gtn_status gtn_memory_copy(gtn_stream stream, void* destination, const void* source, int64_t bytes,
                                   int32_t direction, gtn_message* message);

/* ---- Packed weights --------------------------------------------------------------------------------------------- */

/* Quantized weights (GTN_U4 and GTN_U8: 4 and 8 bits without sign): in each column, every group_size elements of k share an
 * FP32 scale and a zero point, and integer q stands for the weight (q - zero point) * scale, rounded to FP32 once. The last group
 * of a column may have fewer elements.
 *
 * Packed from floating point, a group of the range lo = c min(0, min w) to hi = c max(0, max w) gets, with most = 15 or 255, the
 * scale s = (hi - lo) / most, the zero point z = rint(-lo / s) and the integers clamp(rint(w / s) + z, 0, most); symmetric, with
 * h = 8 or 128, the scale s = c max |w| / (h - 1), the zero point h and integers likewise. The scale is computed in FP64 and
 * rounded to FP32; quotients are of FP64; ties go to even; s = 0 gives integers and, unless symmetric, a zero point of 0.
 * GTN_QUANTIZE_NEAREST takes c = 1. GTN_QUANTIZE_SEARCH takes that of c = 1, 31/32, ..., 16/32 whose sum of (w - (q - z) s)^2, in
 * FP64 and in the order of k, is least, the first of equals: some groups are better off with their largest weights clipped.
 * GTN_QUANTIZE_FIT fits scale and integers to each other by turns, as Zhang et al. 2018 (LQ-Nets, section 3.2) do. It begins with
 * what GTN_QUANTIZE_SEARCH finds; symmetric, where 0 is one step further from h than most is, s = -c w* / h takes part for the
 * same c after those, w* being the weight of the largest magnitude, the first of equals. A turn takes, with that s, the integers of z
 * and, unless symmetric, of z - 1 and z + 1, where they are 0 to most; the scale of each that has the least error for its integers,
 * sum of w (q - z) / sum of (q - z)^2, in FP64 and rounded to FP32; and of these the first whose new integers have the least
 * error. Turns go on while the error falls, 16 at most; one without a step but 0 or whose scale is 0 counts for nothing. */
enum { GTN_QUANTIZE_NEAREST = 0, GTN_QUANTIZE_SEARCH = 1, GTN_QUANTIZE_FIT = 2 };

typedef struct gtn_weights_desc {
  uint32_t size;
  int32_t format;         /* GTN_F32; GTN_BF16; GTN_F16: from 65520 on weights become infinite; GTN_S8: one scale of amax/127 per
                             output channel, round to nearest even; GTN_F8E4M3 or GTN_F8E5M2: the same of amax/448 or
                             amax/57344; where a scale rounds to 0, so do the weights of its channel; GTN_U4 or GTN_U8;
                             GTN_BF16_2OF4: as GTN_BF16, of a source that is pruned: no more than 2 of 4 are not 0 */
  gtn_tensor_desc source; /* [k, n], or [groups, k, n] for grouped products, GTN_F32, GTN_BF16 or GTN_F16, any strides: a
                             transposed [n, k] matrix has strides {1, k} */
  int64_t group_size;     /* GTN_U4 and GTN_U8: 32, 64 or 128; else 0 */
  int32_t symmetric;      /* GTN_U4 and GTN_U8: 1 for zero points of 8 and 128; else 0 */
  int32_t quantize;       /* GTN_U4 and GTN_U8: GTN_QUANTIZE_*; else 0 */
} gtn_weights_desc;

/* Weights that are quantized already: in groups, as the operator MatMulNBits of ONNX Runtime takes them, or in FP8. */
typedef struct gtn_quantized_desc {
  uint32_t size;
  int32_t format;         /* GTN_U4, GTN_U8, GTN_F8E4M3 or GTN_F8E5M2 */
  int64_t groups;         /* matrices of a grouped product; 0: one */
  int64_t k, n;
  int64_t group_size;     /* GTN_U4 and GTN_U8: 32, 64 or 128; else 0 */
} gtn_quantized_desc;

typedef struct gtn_weights_info {
  uint32_t size;
  int32_t format;
  int64_t k, n;
  int64_t bytes;  /* memory that the packed form occupies */
  int64_t groups; /* matrices; 0 where the source was one, of rank 2 */
  int64_t group_size; /* GTN_U4 and GTN_U8; else 0 */
} gtn_weights_info;

/* Packs a weight matrix once, in the device's own layout; `source` is host memory, and free for reuse on return. A weight
 * that is not finite is kept by GTN_F32, GTN_BF16, GTN_F16 and GTN_BF16_2OF4 and is GTN_INVALID_ARGUMENT with the others. */
GTN_API gtn_status gtn_weights_pack(gtn_device device, const gtn_weights_desc* desc, const void* source,
                                    gtn_weights* weights, gtn_message* message);

/* Packs weights that are quantized already; the arrays are host memory without gaps, with b = ceil(k / group_size), and a dimension
 * [groups] before the others where there are groups:
 *   integers     GTN_U4: bytes [n, b, group_size / 2], the first of two integers in the lower half; GTN_U8: [n, b, group_size]
 *   scales       FP32 [n, b], finite
 *   zero_points  GTN_U4: bytes [n, ceil(b / 2)], the first of two in the lower half; GTN_U8: [n, b]; NULL: all 8 or 128
 * What fills up the last group and the last byte is ignored. In FP8 a column is one group: integers are the bytes of numbers,
 * [n, k], scales [n], and zero_points NULL. A number that is NaN or infinite is kept. */
GTN_API gtn_status gtn_weights_pack_quantized(gtn_device device, const gtn_quantized_desc* desc, const void* integers,
                                              const void* scales, const void* zero_points, gtn_weights* weights,
                                              gtn_message* message);
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
  int64_t blocks;          /* attention: blocks of keys that tiles of queries visit at the plan's maxima, with every array of the
                              run taken to hide nothing but what lies outside of the window; else 0 */
} gtn_plan_info;

GTN_API gtn_status gtn_plan_query(gtn_plan plan, gtn_plan_info* info, gtn_message* message);
GTN_API gtn_status gtn_plan_close(gtn_plan plan, gtn_message* message);

/* GEMM: out[m, n] = activation(a[m, k] * w[k, n] + bias[n]) + residual[m, n].
 *
 * Grouped (groups > 0), as for the experts of a mixture: the rows of out from group_offsets[g] to group_offsets[g + 1] - 1 are
 * products with matrix g of the weights, and take row g of bias, FP32 [groups, n]. With row_index, row r of the product is of
 * row row_index[r] of a, so that rows are gathered as they are read.
 * Low-rank (rank > 0): lora_scale * (a * lora_a[k, rank]) * lora_b[rank, n] is added before the bias in the same pass over out
 * (Hu et al. 2021, LoRA); both products are FP32, of the elements of a as they are, whatever the format of the weights.
 *
 * format GTN_F32: FP32 throughout. format GTN_BF16: a is rounded to BF16 (ties to even), products and sums are FP32.
 * format GTN_F16: a stays as it is, or is rounded to F16 (ties to even, from 65520 on to infinity) where a device multiplies
 * F16 alone; products and sums are FP32, and weights below 2^-14 are numbers like any other.
 * format GTN_S8: each row of a is quantized to 8 bits without sign: lo = min(0, min x), hi = max(0, max x),
 * s = (hi - lo) / 255 in FP32, z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255), ties to even; s = 0 gives q = z = 0;
 * a row with a NaN, an infinity or a range that overflows gives a row of NaN. The sums are exact in 32 bits, which limits k
 * to 66311; the epilogue is FP32. Rows of GTN_U8 were quantized before, by a norm say: they come with a scale s and a zero point
 * z of each, stand for (q - z) s, and give what their FP32 would that is quantized to them. format GTN_U4 or GTN_U8: as
 * GTN_F32, with the weights that the integers stand for. format GTN_F8E4M3 or GTN_F8E5M2: a stays as it is, or is rounded to
 * BF16 where a device multiplies BF16 alone; products of a and the numbers and their sums are FP32, and a sum is multiplied by
 * its column's scale. format GTN_BF16_2OF4: a stays as it is; products and sums are FP32. An element of a that meets a weight of 0
 * may take part or not, which matters where it is not finite. */
typedef struct gtn_gemm_desc {
  uint32_t size;
  int32_t format;      /* GTN_F32, GTN_BF16, GTN_F16, GTN_S8, GTN_U4, GTN_U8, GTN_F8E4M3, GTN_F8E5M2 or GTN_BF16_2OF4: that of
                          the packed weights it will run with */
  gtn_tensor_desc a;   /* [m, k], GTN_F32, GTN_BF16 or GTN_F16, or GTN_U8 with format GTN_S8 and rank 0; unit stride in k; m is
                          the largest number of rows */
  gtn_tensor_desc out; /* [m, n], GTN_F32, GTN_BF16 or GTN_F16, unit stride in n */
  int32_t activation;  /* GTN_ACT_* */
  int32_t has_bias;    /* 1: bias, FP32 [n] */
  int32_t has_residual; /* 1: residual, laid out and typed as out */
  int32_t has_row_index; /* 1: rows of a are taken by number; a may have another m than out */
  int64_t groups;       /* 0: one matrix of weights; else as many, 1 or more */
  int64_t rank;         /* 0: none; else that of the low-rank product, 1 to 1024; not with groups or row_index */
  int32_t lora_dtype;   /* rank > 0: GTN_F32, GTN_BF16 or GTN_F16, of both; else 0 */
  float lora_scale;     /* rank > 0: finite; else 0 */
  int64_t group_size;   /* GTN_U4 and GTN_U8: 32, 64 or 128, that of the weights; else 0 */
} gtn_gemm_desc;

GTN_API gtn_status gtn_gemm_plan(gtn_device device, const gtn_gemm_desc* desc, gtn_plan* plan, gtn_message* message);

/* rows: 0 to m. bias and residual are NULL exactly where the plan has none. out may equal residual; it may overlap nothing
 * else. */
GTN_API gtn_status gtn_gemm_run(gtn_plan plan, gtn_stream stream, gtn_weights weights, int64_t rows, const void* a,
                                const void* bias, const void* residual, void* out);

/* The same with the further arrays, all memory of the device, without gaps, each NULL exactly where the plan has no use for it.
 * rows_a: rows of a that there are, 0 to its m; `rows` where the plan has no row_index.
 *   group_offsets   int64 [groups + 1]: from 0, never falling, the last at most `rows`; rows beyond it are not written
 *   row_index       int32 [rows]: 0 to rows_a - 1
 *   lora_a, lora_b  [k, rank] and [rank, n] */
GTN_API gtn_status gtn_gemm_run_with(gtn_plan plan, gtn_stream stream, gtn_weights weights, int64_t rows, int64_t rows_a,
                                     const void* a, const void* bias, const void* residual, void* out,
                                     const void* group_offsets, const void* row_index, const void* lora_a, const void* lora_b);

/* The same with rows of GTN_U8: scales FP32 [rows_a] and zero_points int32 [rows_a], without gaps. */
GTN_API gtn_status gtn_gemm_run_quantized(gtn_plan plan, gtn_stream stream, gtn_weights weights, int64_t rows, int64_t rows_a,
                                          const void* a, const void* scales, const void* zero_points, const void* bias,
                                          const void* residual, void* out, const void* group_offsets, const void* row_index);

/* Attention: out = softmax(scores over the visible keys) v, for every sequence and head, by an online softmax that never
 * holds the score matrix (Dao et al. 2022, FlashAttention).
 *
 * Query i of a sequence with len_q queries and len_k keys sits at position p = i + len_k - len_q (bottom-right aligned).
 * The score of key j is s = scale * q.k; then, each where the plan has it, s = c tanh(s / c) (softcap), s - slope |p - j|
 * (ALiBi), s + bias, where -infinity masks, s + block_bias, and s + self_bias where j = p. A query that sees nothing gives 0
 * and a log-sum-exp of -infinity. Query head h reads key/value head h / (heads_q / heads_k).
 *
 * Visible is what every part of the head's pattern admits:
 *   window    p - left * dilation <= j <= p + right * dilation, in steps of `dilation` from p; -1 is unlimited; causal is
 *             right = 0. Three things lift it: sinks (j < sinks) and global tokens (j is global, or p is) lift all of it
 *             except causality, that is j <= p where right = 0; a prefix (j < prefix) lifts the right end, causality too.
 *             Sliding and dilated windows and global tokens are those of Longformer (Beltagy et al. 2020, section 3.1).
 *   documents the label of the query equals that of the key in the last layer, and differs in each layer before.
 *   tree      j < len_k - len_q, or tree[i][j - (len_k - len_q)] is not 0: which drafted tokens a drafted token follows.
 *   blocks    the list of i's block of queries names the block of keys of j, and that entry's mask, if any, is not 0 there.
 *
 * Batched: rank 4, [batch, length, heads, head size]. Packed: rank 3, [tokens, heads, head size], where sequence b has the
 * tokens offsets[b] to offsets[b + 1] - 1. Paged: k and v are pages, [pages, page size, heads_k, head size], for batched or
 * packed q; key j of a sequence is row j % page size of page block_table[sequence][j / page size].
 * All have unit stride in the head size; sums and the softmax are FP32. */
enum { GTN_MASK_PREFIX = 1, GTN_MASK_GLOBALS = 2, GTN_MASK_DOCUMENTS = 4, GTN_MASK_TREE = 8, GTN_MASK_BLOCKS = 16 };

/* What the queries of a head see. */
typedef struct gtn_attention_pattern {
  uint32_t size;
  uint32_t masks;       /* GTN_MASK_*: the parts, each with arrays of the run, that narrow or lift the window */
  int64_t window_left;  /* -1 unlimited, else 0 or more */
  int64_t window_right; /* -1 unlimited, else 0 or more */
  int64_t dilation;     /* 1 or more */
  int64_t sinks;        /* the first keys that the window does not hide, 0 or more */
} gtn_attention_pattern;

typedef struct gtn_attention_desc {
  uint32_t size;
  float scale;         /* finite; usually 1 / sqrt(head size of q) */
  gtn_tensor_desc q;   /* [batch, len_q, heads_q, dk] or [tokens_q, heads_q, dk]; GTN_F32, GTN_BF16 or GTN_F16 */
  gtn_tensor_desc k;   /* [batch, len_k, heads_k, dk] or [tokens_k, heads_k, dk], or pages; heads_k divides heads_q;
                          GTN_F32, GTN_BF16, GTN_F16, or GTN_S8 with k_scales */
  gtn_tensor_desc v;   /* as k in all but the head size dv; k and v may be views of one tensor */
  gtn_tensor_desc out; /* [batch, len_q, heads_q, dv] or [tokens_q, heads_q, dv]; GTN_F32 or as q */
  int64_t max_sequences; /* packed: the largest number of sequences; batched: ignored */
  const gtn_attention_pattern* patterns; /* host memory, read while the plan is made; each of the size of the first */
  int64_t pattern_count;                 /* 1, or one for each of heads_q */
  float softcap;           /* 0: none; else c, finite and greater than 0 */
  float self_bias;         /* finite; added to the score of a query's own position */
  int32_t has_sink_logits; /* 1: a further column of the softmax with no value, FP32 [heads_q]; lse leaves it out */
  int32_t has_slopes;      /* 1: ALiBi, FP32 [heads_q] */
  int32_t has_bias;        /* 1: `bias` describes an additive bias */
  int32_t paged;           /* 1: k and v are pages */
  gtn_tensor_desc bias;    /* [sequences, heads_q, len_q, len_k], at most the maxima of the plan; GTN_F32 or as q; strides of
                              0 repeat it */
  int64_t max_len_k;       /* paged: the longest sequence of keys; else ignored */
  int64_t max_globals;     /* GTN_MASK_GLOBALS: tokens in the list of a sequence, 1 or more */
  int64_t max_tree;        /* GTN_MASK_TREE: the longest len_q of a sequence, 1 or more */
  int64_t document_heads;  /* GTN_MASK_DOCUMENTS: labels for 1, heads_k or heads_q heads */
  int64_t document_layers; /* GTN_MASK_DOCUMENTS: 1 or more */
  int64_t block_q, block_k; /* GTN_MASK_BLOCKS: queries and keys of a block, 1 or more */
  int64_t block_heads;     /* GTN_MASK_BLOCKS: lists for 1, heads_k or heads_q heads */
  int64_t max_blocks;      /* GTN_MASK_BLOCKS: entries of all lists together, 0 or more */
  int64_t max_block_masks; /* GTN_MASK_BLOCKS: masks of partial blocks; 0: every entry is a full block */
  int32_t has_block_bias;  /* GTN_MASK_BLOCKS: 1: a bias for each entry */
  int32_t reserved;
  int64_t order_heads;     /* 0: none; else queries and keys are taken in orders for 1, heads_k or heads_q heads */
} gtn_attention_desc;

GTN_API gtn_status gtn_attention_plan(gtn_device device, const gtn_attention_desc* desc, gtn_plan* plan,
                                      gtn_message* message);

/* Runs a plan that needs none of the further arrays of gtn_attention_run_with.
 *
 * Batched: sequences <= batch, len_q and len_k <= those of the plan, and q_index and k_index are NULL (all sequences have
 * len_q and len_k) or the lengths of each sequence, int64 [sequences], 0 to len_q and 0 to len_k; rows of out beyond a
 * sequence's length are not touched. Packed: len_q and len_k are the token counts, and q_index and k_index are offsets,
 * int64 [sequences + 1], from 0, never falling, the last at most the token count. Paged: len_k is at most max_len_k, and
 * k_index is never NULL and holds lengths, int64 [sequences], 0 to len_k, also where q is packed.
 * lse: NULL, or FP32, the natural-log sum of exponentials of the scores, dense [sequences, heads_q, len_q] batched
 * with the plan's len_q as its row length, or [heads_q, tokens_q] packed with the plan's tokens_q; entries beyond a
 * sequence's length are not touched either.
 * The index arrays are memory of the device. out and lse overlap nothing; q, k and v may alias. */
GTN_API gtn_status gtn_attention_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                                     const void* q_index, const void* k_index, const void* q, const void* k,
                                     const void* v, void* out, void* lse);

/* The same with the further arrays, each NULL exactly where the plan has no use for it; all are memory of the device, without
 * gaps. LQ and LK are the plan's len_q and len_k: tokens where packed, and LK is max_len_k where paged. [s, ...] is
 * [sequences, ...] batched, and one array for all tokens where packed (k_documents and k_order: also batched where paged).
 *
 *   k_scales, v_scales  GTN_S8: FP32 [s, LK, heads_k], or [pages, page size, heads_k] where paged: what each row is multiplied by
 *   block_table         paged: int32 [sequences, ceil(LK / page size)], pages; entries beyond a sequence's length are not read
 *   sink_logits, slopes FP32 [heads_q]
 *   bias                as described by the plan
 *   prefixes            GTN_MASK_PREFIX: int64 [sequences], 0 or more
 *   globals             GTN_MASK_GLOBALS: int32 [sequences, max_globals]: positions in rising order, below the sequence's
 *                       len_k; the unused rest is -1
 *   q_documents         GTN_MASK_DOCUMENTS: int32 [s, document_layers, document_heads, LQ]: labels, compared as they are
 *   k_documents         the same with LK
 *   tree                GTN_MASK_TREE: uint8 [sequences, max_tree, max_tree]
 *   block_offsets       GTN_MASK_BLOCKS: int64 [sequences * block_heads * ceil(LQ / block_q) + 1]: where the list of a sequence,
 *                       head and block of queries starts; from 0, never falling, the last at most max_blocks
 *   block_columns       int32 [max_blocks]: blocks of keys, rising within a list; those beyond a sequence are not read
 *   block_mask_index    max_block_masks > 0: int32 [max_blocks]: the mask of an entry, or -1 for a full block
 *   block_masks         max_block_masks > 0: uint8 [max_block_masks, block_q, block_k]
 *   block_bias          has_block_bias: FP32 [max_blocks], added to the scores of the entry's block
 *   q_order             order_heads > 0: int32 [s, order_heads, LQ]: queries of the sequence, each of them once; tiles and blocks
 *                       of queries count in this order, while positions stay the queries' own
 *   k_order             the same for keys; keys may be left out, with -1 in their place, and are then not seen
 */
GTN_API gtn_status gtn_attention_run_with(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                                          const void* q_index, const void* k_index, const void* q, const void* k,
                                          const void* v, void* out, void* lse, const void* k_scales, const void* v_scales,
                                          const void* block_table, const void* sink_logits, const void* slopes,
                                          const void* bias, const void* prefixes, const void* globals,
                                          const void* q_documents, const void* k_documents, const void* tree,
                                          const void* block_offsets, const void* block_columns,
                                          const void* block_mask_index, const void* block_masks, const void* block_bias,
                                          const void* q_order, const void* k_order);

/* Merge of attention over parts of the keys, by their log-sum-exps: out = sum of exp(lse_i) x_i / (sum of exp(lse_i) +
 * exp(sink logit)), lse = log of the sum of exp(lse_i), which leaves the sink logit out. Exact up to rounding: attention over a
 * shared prefix and over each sequence's own keys merge to attention over both. A part whose log-sum-exp is -infinity has no
 * share, whatever its x holds; all -infinity gives 0 and -infinity; a NaN or +infinity among the log-sum-exps gives NaN. */
typedef struct gtn_merge_desc {
  uint32_t size;
  int32_t has_sink_logits; /* 1: FP32 [heads] */
  gtn_tensor_desc x;       /* [parts, batch, length, heads, dv], GTN_F32, GTN_BF16 or GTN_F16, unit stride in dv */
  gtn_tensor_desc x_lse;   /* [parts, batch, heads, length], GTN_F32 */
  gtn_tensor_desc out;     /* [batch, length, heads, dv], GTN_F32, GTN_BF16 or GTN_F16, unit stride in dv */
  gtn_tensor_desc lse;     /* [batch, heads, length], GTN_F32 */
} gtn_merge_desc;

GTN_API gtn_status gtn_merge_plan(gtn_device device, const gtn_merge_desc* desc, gtn_plan* plan, gtn_message* message);

/* parts, batch and length are at most those of the plan. lse may be NULL. out may equal the first part of x where dtype and
 * strides match, and lse that of x_lse; else they overlap nothing. */
GTN_API gtn_status gtn_merge_run(gtn_plan plan, gtn_stream stream, int64_t parts, int64_t batch, int64_t length,
                                 const void* x, const void* x_lse, const void* sink_logits, void* out, void* lse);

/* Selection: which keys attention is to look at, found from the queries and keys themselves. Each kind writes arrays as
 * gtn_attention_run_with takes them, for lists of `heads` heads; what they say is attended to exactly. The same input and seed
 * give the same lists. Where queries or keys are not finite, what is chosen is of no meaning, but as valid as ever.
 *
 * GTN_SELECT_BLOCKS: for each block of queries the blocks of keys with the most importance (Yuan et al. 2025, Native Sparse
 * Attention, section 3.3.2). Query i gives block c of keys the weight softmax_c(scale * q_i.pool_c) over the blocks that
 * begin at or before its position (causal) or over all; a block's importance is the sum of its weights over the queries of the
 * block and the query heads of the list's head. pool_c is the mean of the block's keys (GTN_POOL_MEAN), or, as an upper bound,
 * q.pool is the sum over d of max(q_d least_d, q_d greatest_d) with the least and greatest element d of the block's keys
 * (GTN_POOL_BOUNDS: Tang et al. 2024, Quest, section 3.3). The first `first` blocks and the `local` last of those that the last
 * query may see always have their place among the `count`; of equal importance the lower block comes first.
 *
 * GTN_SELECT_LSH: angular hashing by random rotations (Kitaev et al. 2020, Reformer, section 2). In layer r the label of a vector x
 * is the argmax of [x R; -x R] with R of [dk, buckets / 2]: its entry at (d, b) is (bits - 32) / 4 where `bits` counts the ones in
 * mix(mix(mix(mix(seed) + r) + head) + d * buckets / 2 + b), and mix(z) is the output function of SplitMix64 on
 * z + 0x9e3779b97f4a7c15; of equal products the lower label. Labels of layers 0 to layers - 1 go to q_documents and k_documents;
 * the orders sort by the last layer's label, then, queries unless causal, by that of the layer before it and so on back to layer
 * 0, so that queries which have seen the same keys lie together, and then by position. A block of queries in that order lists the
 * blocks of keys, in theirs, that hold a key of one of its labels in the last layer (causal: one that a query of that label may
 * see), at most `count`: those nearest to the block of the last key whose label and position are at most those of its middle
 * query, that of slot (first + last) / 2, or to block 0 without such a key; of two as near the earlier one. Attention with these
 * documents, orders and lists then sees pairs of one label that no layer before has seen together, so rounds 0, 1, ... of layers
 * 1, 2, ... merge (gtn_merge) to attention over their union;
 * self_bias gives Reformer's attention to oneself only where there is nothing else.
 *
 * GTN_SELECT_RETRIEVAL: for each query a sample of the keys, by hashing (Chen et al. 2024, MagicPIG, section 4). In each of L =
 * layers tables a vector x has a code of K = log2(buckets) bits: bit b is 1 where x.R_b > 0, with the columns R_b of an
 * R of [dk, K] as above (d * K + b in place of d * buckets / 2 + b). Keys are hashed less the mean of the keys of their sequence
 * and head, which moves all scores of a query by the same. A query retrieves the keys that share its code in two tables or
 * more, and the bias of such an entry is -log u, with u = 1 - (1 - p^K)^L - L p^K (1 - p^K)^(L - 1) the probability of that at the
 * angle a between the two, p = 1 - a / pi: attention with these lists and biases estimates attention over all keys by
 * importance sampling. The first `first` keys and the `local` last that the query may see are always there, with a bias of 0, and
 * count among the `count`; of more, those that share the most codes stay, later ones before earlier ones. A query or key
 * of length 0 is at a right angle to all, and one that is not finite in no table; p is taken to be at least that of the angle whose
 * cosine is 2^-24 - 1. */
enum { GTN_SELECT_BLOCKS = 1, GTN_SELECT_LSH = 2, GTN_SELECT_RETRIEVAL = 3 };
enum { GTN_POOL_MEAN = 1, GTN_POOL_BOUNDS = 2 };

typedef struct gtn_select_desc {
  uint32_t size;
  int32_t kind;            /* GTN_SELECT_* */
  gtn_tensor_desc q;       /* as for attention: [batch, len_q, heads_q, dk], or [tokens_q, heads_q, dk] packed; GTN_F32, GTN_BF16
                              or GTN_F16, unit stride in dk */
  gtn_tensor_desc k;       /* [batch, len_k, heads_k, dk] or [tokens_k, heads_k, dk], as q in dtype */
  int64_t max_sequences;   /* packed: the largest number of sequences; batched: ignored */
  int64_t heads;           /* GTN_SELECT_BLOCKS: lists for heads_k or heads_q heads; else heads_q */
  int64_t block_q, block_k; /* queries and keys of a block, 1 or more; GTN_SELECT_RETRIEVAL: 1 */
  int64_t count;           /* blocks of a list at most, 1 or more */
  int64_t first, local;    /* 0 or more, together at most count; GTN_SELECT_LSH: 0 */
  int32_t causal;          /* 1: queries see keys up to their position (bottom-right aligned) */
  int32_t pool;            /* GTN_SELECT_BLOCKS: GTN_POOL_*; else 0 */
  float scale;             /* GTN_SELECT_BLOCKS: finite; else 0 */
  int32_t reserved;
  int64_t buckets;         /* GTN_SELECT_LSH: even, 2 to 65536; GTN_SELECT_RETRIEVAL: a power of two, 2 to 65536; else 0 */
  int64_t layers;          /* GTN_SELECT_LSH: 1 to 64; GTN_SELECT_RETRIEVAL: 2 to 1024; else 0 */
  uint64_t seed;           /* of the rotations; GTN_SELECT_BLOCKS: 0 */
} gtn_select_desc;

GTN_API gtn_status gtn_select_plan(gtn_device device, const gtn_select_desc* desc, gtn_plan* plan, gtn_message* message);

/* sequences, len_q, len_k, q_index and k_index as for gtn_attention_run. block_offsets: int64 [sequences * heads * ceil(LQ /
 * block_q) + 1]; block_columns: int32, room for count times as many as there are lists. GTN_SELECT_LSH also writes q_order and
 * k_order, int32 [s, heads, LQ] and [s, heads, LK], and q_documents and k_documents, int32 [s, layers, heads, LQ] and
 * [s, layers, heads, LK], with LQ, LK and [s, ...] as for gtn_attention_run_with; GTN_SELECT_RETRIEVAL also writes
 * block_bias, FP32, as many as block_columns; what a kind does not write is NULL. What lies beyond a sequence's length, and entries
 * beyond the last offset, are not written. Outputs overlap nothing. */
GTN_API gtn_status gtn_select_run(gtn_plan plan, gtn_stream stream, int64_t sequences, int64_t len_q, int64_t len_k,
                                  const void* q_index, const void* k_index, const void* q, const void* k,
                                  void* block_offsets, void* block_columns, void* block_bias, void* q_order, void* k_order,
                                  void* q_documents, void* k_documents);

/* Routing: which experts of a mixture each token goes to, with what weights, and the order that brings the tokens of an expert
 * together for a grouped GEMM.
 *
 * Scores are the softmax of a token's logits over all experts (GTN_ROUTE_SOFTMAX: Fedus et al. 2021, Switch Transformer; Jiang et
 * al. 2024, Mixtral, with normalize) or the sigmoid of each (GTN_ROUTE_SIGMOID: DeepSeek-AI 2024, DeepSeek-V3, section
 * 2.1.2). The `top` experts of the highest score + bias are chosen, the lower expert of two equals first; bias takes part in the
 * choice alone. With groups, experts are in `groups` equal runs, and only those of the top_groups best are chosen from: a
 * group's worth is its highest score + bias (softmax) or the sum of its two highest (sigmoid). The weights are the scores of the
 * chosen, divided by their sum where normalize is 1 (a sum of 0 leaves 0), times scale. A token with a NaN among its logits, or
 * with GTN_ROUTE_SOFTMAX +infinity, gets experts 0 to top - 1 with NaN weights; logits of -infinity alone give scores of 0. */
enum { GTN_ROUTE_SOFTMAX = 1, GTN_ROUTE_SIGMOID = 2 };

typedef struct gtn_route_desc {
  uint32_t size;
  int32_t kind;              /* GTN_ROUTE_* */
  gtn_tensor_desc x;         /* [tokens, experts], GTN_F32, GTN_BF16 or GTN_F16, unit stride in experts; experts 1 to 65536 */
  int64_t top;               /* experts of a token, 1 to experts */
  int64_t groups;            /* 0: none; else a divisor of experts */
  int64_t top_groups;        /* groups > 0: 1 to groups, with `top` experts or more in them; else 0 */
  int32_t has_bias;          /* 1: FP32 [experts], finite */
  int32_t normalize;
  float scale;               /* finite */
  int32_t reserved;
} gtn_route_desc;

GTN_API gtn_status gtn_route_plan(gtn_device device, const gtn_route_desc* desc, gtn_plan* plan, gtn_message* message);

/* tokens: 0 to those of the plan, tokens * top below 2^31. All outputs are without gaps and overlap nothing:
 *   experts  int32 [tokens, top]: the highest choice first
 *   weights  FP32 [tokens, top]
 *   offsets  int64 [experts + 1]: where the rows of an expert start among tokens * top, sorted by expert and then by token
 *   rows     int32 [tokens * top]: the token of each of these rows
 *   slots    int32 [tokens, top]: the row of each token and choice */
GTN_API gtn_status gtn_route_run(gtn_plan plan, gtn_stream stream, int64_t tokens, const void* x, const void* bias, void* experts,
                                 void* weights, void* offsets, void* rows, void* slots);

/* Gated sum: out[t, h, :] = residual[t, h, :] + sum over parts p of f(gates[t, p, h]) * x_p[t, h, :], summed in FP32 in the order of
 * parts, the residual last. It joins the branches of native sparse attention (Yuan et al. 2025, equation 5: sigmoid), adds
 * gated cross-attention to a stream (Alayrac et al. 2022, Flamingo, section 2.2: tanh, one gate with strides of 0), and sums the
 * rows of a token's experts (row_index: the slots of gtn_route_run, heads of 1). A gate that f makes 0 takes no part, whatever x
 * holds. */
enum { GTN_GATE_NONE = 0, GTN_GATE_SIGMOID = 1, GTN_GATE_TANH = 2 };

typedef struct gtn_mix_desc {
  uint32_t size;
  int32_t gate;            /* GTN_GATE_*: f */
  gtn_tensor_desc x;       /* [parts, tokens, heads, n], or [rows, heads, n] with row_index, GTN_F32, GTN_BF16 or GTN_F16, unit
                              stride in n */
  gtn_tensor_desc gates;   /* [tokens, parts, heads], GTN_F32, any strides */
  gtn_tensor_desc out;     /* [tokens, heads, n], heads and n 1 or more, GTN_F32, GTN_BF16 or GTN_F16, unit stride in n */
  int32_t has_residual;    /* 1: laid out and typed as out */
  int32_t has_row_index;   /* 1: x is [rows, heads, n], and part p of token t is row row_index[t, p] */
} gtn_mix_desc;

GTN_API gtn_status gtn_mix_plan(gtn_device device, const gtn_mix_desc* desc, gtn_plan* plan, gtn_message* message);

/* tokens: 0 to those of the plan. rows_x: with row_index the rows of x that there are, 0 to its first size; else 0. row_index:
 * int32 [tokens, parts], 0 to rows_x - 1, or -1 for no part. out may equal residual; else it overlaps nothing. */
GTN_API gtn_status gtn_mix_run(gtn_plan plan, gtn_stream stream, int64_t tokens, int64_t rows_x, const void* x, const void* gates,
                               const void* row_index, const void* residual, void* out);

/* Rotary position embedding (Su et al. 2021, RoFormer) of queries and keys, with the append of keys and values to a cache, in
 * one pass. The first `rotary` elements of a head are rotated, pair by pair, by the angles of the token's position; the
 * others are copied: (a, b) becomes (a cos - b sin, a sin + b cos). */
enum {
  GTN_ROPE_HALVES = 1,     /* pair i is (x[i], x[i + rotary / 2]) */
  GTN_ROPE_INTERLEAVED = 2 /* pair i is (x[2 i], x[2 i + 1]) */
};

typedef struct gtn_rope_desc {
  uint32_t size;
  int32_t style;           /* GTN_ROPE_* */
  int64_t rotary;          /* even, 0 to dk */
  int64_t max_position;    /* positions that the table has, 1 or more */
  int32_t has_q, has_k, has_v; /* 1: queries are rotated; keys are rotated and stored; values are stored. has_q or has_k is 1 */
  int32_t reserved;
  gtn_tensor_desc q;       /* [tokens, heads_q, dk], GTN_F32, GTN_BF16 or GTN_F16, unit stride in dk */
  gtn_tensor_desc q_out;   /* as q in shape; GTN_F32, GTN_BF16 or GTN_F16 */
  gtn_tensor_desc k;       /* [tokens, heads_k, dk], GTN_F32, GTN_BF16 or GTN_F16 */
  gtn_tensor_desc v;       /* [tokens, heads_k, dv], as k in dtype */
  gtn_tensor_desc k_cache; /* [pages, page size, heads_k, dk]: pages, or sequences and their longest length; GTN_F32, GTN_BF16,
                              GTN_F16, or GTN_S8 with a scale of amax/127 for each token and head, round to nearest even */
  gtn_tensor_desc v_cache; /* [pages, page size, heads_k, dv], as k_cache in pages and dtype */
} gtn_rope_desc;

GTN_API gtn_status gtn_rope_plan(gtn_device device, const gtn_rope_desc* desc, gtn_plan* plan, gtn_message* message);

/* tokens: 0 to those of the plan. positions: int64 [tokens], 0 to max_position - 1. table: FP32 [max_position, rotary], for each
 * position rotary / 2 cosines, then as many sines. slots: int64 [tokens], the row page * page size + offset of the caches that
 * a token's key and value go to, or -1 for nowhere; NULL: token t goes to row t. Two tokens of one slot leave one of them
 * there, in parts of either. k_scales and v_scales: GTN_S8 caches, FP32 [pages, page size, heads_k], written where rows are; a
 * value is within -127 to 127; a row of zeros, or one so small that its scale is, has scale 0 and values of 0; a row that is
 * not finite has scale NaN and values of 0.
 * q_out may equal q where dtype and strides match; else outputs overlap nothing. A NULL where the plan has none of it. */
GTN_API gtn_status gtn_rope_run(gtn_plan plan, gtn_stream stream, int64_t tokens, const void* positions, const void* table,
                                const void* slots, const void* q, const void* k, const void* v, void* q_out, void* k_cache,
                                void* v_cache, void* k_scales, void* v_scales);

/* Normalisation with a fused residual: h = x + residual; out = norm(h); sum = h. An out of GTN_U8 is norm(h) in FP32 as a product
 * with weights of GTN_S8 would quantize its rows, each to a scale and a zero point of its own: see gtn_gemm_desc. */
typedef struct gtn_norm_desc {
  uint32_t size;
  int32_t kind;         /* GTN_NORM_* */
  gtn_tensor_desc x;    /* [rows, n], GTN_F32 or GTN_BF16, unit stride in n; n at least 1 */
  gtn_tensor_desc out;  /* as x in shape, GTN_F32, GTN_BF16 or GTN_U8 */
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

/* The same with an out of GTN_U8: scales FP32 [rows] and zero_points int32 [rows], without gaps, are written too and overlap
 * nothing. */
GTN_API gtn_status gtn_norm_run_quantized(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* residual,
                                          const void* gamma, const void* beta, void* out, void* scales, void* zero_points,
                                          void* sum);

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

/* Gated activation: out = activation(gate) * x, element by element, of the family of gated linear units (Shazeer 2020, "GLU
 * variants improve transformer"): SwiGLU with GTN_ACT_SILU, GEGLU with GTN_ACT_GELU_ERF or GTN_ACT_GELU_TANH, ReGLU with
 * GTN_ACT_RELU, the bilinear one with GTN_ACT_NONE. Both factors and their product are FP32; out is rounded once. gate and x
 * are two tensors, or the two halves of one of [rows, 2 n]: each then has the row stride of the whole, and one a pointer n
 * elements further on. */
typedef struct gtn_glu_desc {
  uint32_t size;
  int32_t activation;   /* GTN_ACT_* */
  gtn_tensor_desc gate; /* [rows, n], GTN_F32, GTN_BF16 or GTN_F16, unit stride in n */
  gtn_tensor_desc x;    /* as gate in shape and dtype */
  gtn_tensor_desc out;  /* as gate in shape; GTN_F32, GTN_BF16 or GTN_F16 */
} gtn_glu_desc;

GTN_API gtn_status gtn_glu_plan(gtn_device device, const gtn_glu_desc* desc, gtn_plan* plan, gtn_message* message);

/* rows: 0 to those of the plan. out may equal gate or x where dtype and strides match; it may overlap nothing else. */
GTN_API gtn_status gtn_glu_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* gate, const void* x, void* out);

/* Convolution: out[b, o, y] = activation(norm(sum over channels c of o's group and kernel positions t of
 * w[o, c, t] * x[b, c, y * stride + t * dilation - pad_before]) + bias[o]) + residual[b, o, y], in one to three spatial
 * dimensions, where x is 0 outside of its sizes; with residual_first the residual is added before the activation, as in He et
 * al. 2016. norm is a batch normalisation as it is at inference (Ioffe and Szegedy 2015), which packing folds, in FP64, into
 * weights and a shift: (sum - mean) * gamma / sqrt(variance + epsilon) + beta.
 *
 * Channels of x and out are in `groups` equal runs; those of out see the run of x that has their number. As many groups as
 * channels of both is a depthwise convolution.
 * Dimensions are named in one order, whatever lies next to what in memory: channels last ([batch, y, x, channels] in memory)
 * is a stride of 1 for channels.
 *
 * format GTN_F32: FP32 throughout. format GTN_BF16: x and folded weights are rounded to BF16 (ties to even), products and
 * sums are FP32. */
typedef struct gtn_conv_weights_desc {
  uint32_t size;
  int32_t format;          /* GTN_F32 or GTN_BF16 */
  gtn_tensor_desc source;  /* [channels of out, channels of x / groups, kernel sizes], rank 3 to 5, none of them 0, GTN_F32 or
                              GTN_BF16, any strides */
  int64_t groups;          /* 1 or more, a divisor of the channels of out */
  int32_t has_norm;        /* 1: gamma, beta, mean and variance, FP32 [channels of out] */
  float epsilon;           /* has_norm: finite, not negative; else 0 */
} gtn_conv_weights_desc;

/* Packs weights of convolutions once, in the device's own layout, for plans of any stride, dilation and padding. The arrays are
 * host memory, and free for reuse on return; gamma, beta, mean and variance are NULL exactly where has_norm is 0. A folded
 * weight or shift that is not finite is GTN_INVALID_ARGUMENT. gtn_weights_query tells k = channels of x / groups * kernel
 * sizes, n = channels of out, and groups. */
GTN_API gtn_status gtn_conv_weights_pack(gtn_device device, const gtn_conv_weights_desc* desc, const void* source,
                                         const void* gamma, const void* beta, const void* mean, const void* variance,
                                         gtn_weights* weights, gtn_message* message);

#define GTN_CONV_MAX_RANK 3

typedef struct gtn_conv_desc {
  uint32_t size;
  int32_t format;      /* GTN_F32 or GTN_BF16: that of the packed weights it will run with */
  gtn_tensor_desc x;   /* [batch, channels, spatial sizes], rank 3 to 5, channels not 0; GTN_F32 or GTN_BF16, any strides */
  gtn_tensor_desc out; /* [batch, channels of out, spatial sizes]; GTN_F32 or GTN_BF16, any strides. A spatial size is
                          (size + pad_before + pad_after - dilation * (kernel - 1) - 1) / stride + 1, or 0 where the padded
                          size is below the kernel's dilation * (kernel - 1) + 1 */
  int64_t kernel[GTN_CONV_MAX_RANK];     /* by spatial dimension, 1 or more; what lies beyond those there are is 0, as below */
  int64_t stride[GTN_CONV_MAX_RANK];     /* 1 or more */
  int64_t dilation[GTN_CONV_MAX_RANK];   /* 1 or more */
  int64_t pad_before[GTN_CONV_MAX_RANK]; /* 0 or more */
  int64_t pad_after[GTN_CONV_MAX_RANK];  /* 0 or more */
  int64_t groups;         /* 1 or more, a divisor of the channels of both */
  int32_t activation;     /* GTN_ACT_* */
  int32_t has_bias;       /* 1: bias, FP32 [channels of out] */
  int32_t has_residual;   /* 1: residual, laid out and typed as out */
  int32_t residual_first; /* 1: it is added before the activation; 0 without one */
} gtn_conv_desc;

GTN_API gtn_status gtn_conv_plan(gtn_device device, const gtn_conv_desc* desc, gtn_plan* plan, gtn_message* message);

/* batch: 0 to that of the plan. out may equal residual; it may overlap nothing else. */
GTN_API gtn_status gtn_conv_run(gtn_plan plan, gtn_stream stream, gtn_weights weights, int64_t batch, const void* x,
                                const void* bias, const void* residual, void* out);

/* Pooling: out[b, c, y] is the maximum or the mean of x[b, c, y * stride + t * dilation - pad_before] over the kernel positions t
 * that lie in x, in one to three spatial dimensions. Global pooling is a kernel as large as x, and an out of size 1.
 *
 * The maximum of a window with a NaN is NaN, of one that sees nothing of x -infinity; of zeros of both signs it is either. A
 * mean is an FP32 sum, in any order, divided by the number of those positions, or with count_padding by all of the kernel's; of
 * a window that sees nothing of x it is 0. out is rounded once. */
enum { GTN_POOLING_MAX = 1, GTN_POOLING_AVERAGE = 2 };

typedef struct gtn_pooling_desc {
  uint32_t size;
  int32_t kind;        /* GTN_POOLING_* */
  gtn_tensor_desc x;   /* [batch, channels, spatial sizes], rank 3 to 5, channels not 0; GTN_F32, GTN_BF16 or GTN_F16, any strides:
                          channels last is a stride of 1 for channels */
  gtn_tensor_desc out; /* [batch, channels, spatial sizes], as for a convolution; GTN_F32, GTN_BF16 or GTN_F16, any strides */
  int64_t kernel[GTN_CONV_MAX_RANK];     /* by spatial dimension, 1 or more; what lies beyond those there are is 0, as below */
  int64_t stride[GTN_CONV_MAX_RANK];     /* 1 or more */
  int64_t dilation[GTN_CONV_MAX_RANK];   /* 1 or more */
  int64_t pad_before[GTN_CONV_MAX_RANK]; /* 0 or more */
  int64_t pad_after[GTN_CONV_MAX_RANK];  /* 0 or more */
  int32_t count_padding; /* GTN_POOLING_AVERAGE: 1: a sum is divided by the number of kernel positions; else 0 */
  int32_t reserved;
} gtn_pooling_desc;

GTN_API gtn_status gtn_pooling_plan(gtn_device device, const gtn_pooling_desc* desc, gtn_plan* plan, gtn_message* message);

/* batch: 0 to that of the plan. out overlaps nothing. */
GTN_API gtn_status gtn_pooling_run(gtn_plan plan, gtn_stream stream, int64_t batch, const void* x, void* out);

/* Fake quantization: out = (clamp(rint(x / s) + z, least, most) - z) * s, what x would be after quantization to integers, for
 * training that is aware of it (Jacob et al. 2018, "Quantization and training of neural networks for efficient
 * integer-arithmetic-only inference", section 3). In FP32, ties to even, division not reciprocal; out is rounded once more. A NaN
 * stays NaN; s = 0 gives 0.
 *
 * With `gradient` it is the straight-through gradient of that (Bengio et al. 2013, "Estimating or propagating gradients through
 * stochastic neurons for conditional computation", section 3): out = gradient where rint(x / s) + z is least to most, else 0, which
 * is also where x is NaN, and with s = 0. */
enum { GTN_SCALE_OF_TENSOR = 1, GTN_SCALE_OF_ROW = 2, GTN_SCALE_OF_COLUMN = 3 };

typedef struct gtn_fake_quantize_desc {
  uint32_t size;
  int32_t granularity;     /* GTN_SCALE_OF_*: what has a scale and a zero point of its own */
  int32_t least, most;     /* integers of 8 bits, -128 to 127 or 0 to 255, least below most: -127 and 127, 0 and 15, ... */
  gtn_tensor_desc x;       /* [rows, n], GTN_F32 or GTN_BF16, unit stride in n */
  gtn_tensor_desc out;     /* as x in shape, GTN_F32 or GTN_BF16 */
  int32_t has_zero_points; /* 1: zero_points; else all are 0 */
  int32_t gradient;        /* 1: the gradient of x */
} gtn_fake_quantize_desc;

GTN_API gtn_status gtn_fake_quantize_plan(gtn_device device, const gtn_fake_quantize_desc* desc, gtn_plan* plan,
                                          gtn_message* message);

/* rows: 0 to those of the plan. scales: FP32 [1], [rows] or [n], without gaps; zero_points: int32 likewise; gradient: laid out and
 * typed as out; both NULL exactly where the plan has none. out may equal x where dtype and strides match, or gradient; it may
 * overlap nothing else. */
GTN_API gtn_status gtn_fake_quantize_run(gtn_plan plan, gtn_stream stream, int64_t rows, const void* x, const void* scales,
                                         const void* zero_points, const void* gradient, void* out);

#ifdef __cplusplus
}
#endif

#endif
