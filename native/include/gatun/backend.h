/*
 * backend.h: what a vendor implements: one table of functions, returned by one exported symbol.
 *
 * A backend is a shared library libgatun_<name>.so that exports gtn_backend_entry(). The core checks every argument that it
 * can see before it calls (null, ranges, overflow, alignment, overlap, handles, devices, threads), so a backend repeats none
 * of that; it declines what it does not serve with GTN_UNSUPPORTED and a message. The core calls a stream's functions from
 * one thread at a time, and never destroys an object that a run is inside. The library must load on a machine without its
 * vendor's driver: open the driver at run time and let device_count or device_info say what is missing. Unless the
 * application vouches for the file, a child process opens the library first, calls device_count and device_info, and ends;
 * it has ten seconds.
 *
 * The objects behind the void pointers are the backend's own. `message` is never NULL here, and always whole.
 */
#ifndef GATUN_BACKEND_H
#define GATUN_BACKEND_H

#include <gatun/gatun.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a slot or an argument structure changes its meaning; slots are only ever added at the end. Operators, types
 * and formats are added without that: a backend declines those that it does not know. Version 2: weights that come quantized
 * may have no groups. */
#define GTN_BACKEND_ABI_VERSION 2

/* What a run gets besides the plan and the stream: exactly the arguments of the public run function, checked. `weights` is
 * the backend's own object. */
typedef struct gtn_gemm_args {
  void* weights;
  int64_t rows;
  const void *a, *bias, *residual;
  void* out;
  int64_t rows_a;
  const int64_t* group_offsets; /* in device memory, as all arrays: their content is the backend's to check */
  const int32_t* row_index;
  const void *lora_a, *lora_b;
  const float* scales; /* of rows of GTN_U8 */
  const int32_t* zero_points;
} gtn_gemm_args;

typedef struct gtn_attention_args {
  int64_t sequences, len_q, len_k;
  const int64_t *q_index, *k_index;
  const void *q, *k, *v;
  void *out, *lse;
  const float *k_scales, *v_scales;
  const int32_t* block_table;
  const float *sink_logits, *slopes;
  const void* bias;
  const int64_t* prefixes;
  const int32_t *globals, *q_documents, *k_documents;
  const uint8_t* tree;
  const int64_t* block_offsets;
  const int32_t *block_columns, *block_mask_index;
  const uint8_t* block_masks;
  const float* block_bias;
  const int32_t *q_order, *k_order;
} gtn_attention_args;

typedef struct gtn_select_args {
  int64_t sequences, len_q, len_k;
  const int64_t *q_index, *k_index;
  const void *q, *k;
  int64_t* block_offsets;
  int32_t* block_columns;
  float* block_bias;
  int32_t *q_order, *k_order, *q_documents, *k_documents;
} gtn_select_args;

typedef struct gtn_route_args {
  int64_t tokens;
  const void* x;
  const float* bias;
  int32_t* experts;
  float* weights;
  int64_t* offsets;
  int32_t *rows, *slots;
} gtn_route_args;

typedef struct gtn_mix_args {
  int64_t tokens, rows_x;
  const void* x;
  const float* gates;
  const int32_t* row_index;
  const void* residual;
  void* out;
} gtn_mix_args;

typedef struct gtn_merge_args {
  int64_t parts, batch, length;
  const void* x;
  const float *x_lse, *sink_logits;
  void* out;
  float* lse;
} gtn_merge_args;

typedef struct gtn_rope_args {
  int64_t tokens;
  const int64_t* positions;
  const float* table;
  const int64_t* slots;
  const void *q, *k, *v;
  void *q_out, *k_cache, *v_cache;
  float *k_scales, *v_scales;
} gtn_rope_args;

typedef struct gtn_norm_args {
  int64_t rows;
  const void *x, *residual, *gamma, *beta;
  void *out, *sum;
  float* scales; /* of an out of GTN_U8 */
  int32_t* zero_points;
} gtn_norm_args;

typedef struct gtn_softmax_args {
  int64_t rows;
  const void* x;
  void* out;
} gtn_softmax_args;

typedef struct gtn_activation_args {
  int64_t rows;
  const void *x, *bias;
  void* out;
} gtn_activation_args;

typedef struct gtn_glu_args {
  int64_t rows;
  const void *gate, *x;
  void* out;
} gtn_glu_args;

typedef struct gtn_conv_args {
  void* weights;
  int64_t batch;
  const void *x, *bias, *residual;
  void* out;
} gtn_conv_args;

typedef struct gtn_pooling_args {
  int64_t batch;
  const void* x;
  void* out;
} gtn_pooling_args;

typedef struct gtn_fake_quantize_args {
  int64_t rows;
  const void* x;
  const float* scales;
  const int32_t* zero_points;
  const void* gradient;
  void* out;
} gtn_fake_quantize_args;

typedef struct gtn_backend {
  uint32_t size;        /* sizeof(gtn_backend) that the backend was compiled with */
  uint32_t abi_version; /* GTN_BACKEND_ABI_VERSION */
  const char* name;     /* as in libgatun_<name>.so */
  const char* version;

  /* Devices. A selector is what follows the colon in a device's name; empty is the default device. device_count says why
   * there is none: GTN_NOT_AVAILABLE and a message. */
  gtn_status (*device_count)(int32_t* count, gtn_message* message);
  gtn_status (*device_info)(int32_t index, gtn_device_info* info, gtn_message* message);
  gtn_status (*device_open)(const char* selector, const gtn_device_options* options, void** device, gtn_message* message);
  void (*device_close)(void* device);
  gtn_status (*device_describe)(void* device, gtn_device_info* info, gtn_message* message);

  /* Memory. `alignment` is a power of two. */
  gtn_status (*memory_alloc)(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message);
  void (*memory_free)(void* device, void* memory, int64_t bytes);
  gtn_status (*memory_copy)(void* stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                            gtn_message* message);

  /* Streams. */
  gtn_status (*stream_create)(void* device, void** stream, gtn_message* message);
  void (*stream_destroy)(void* stream);
  gtn_status (*stream_synchronize)(void* stream, gtn_message* message);

  /* Events: optional as a whole (NULL: the device answers GTN_UNSUPPORTED). Several threads may use one at once. */
  gtn_status (*event_create)(void* device, void** event, gtn_message* message);
  void (*event_destroy)(void* event);
  gtn_status (*event_record)(void* event, void* stream, gtn_message* message);
  gtn_status (*event_synchronize)(void* event, gtn_message* message);
  gtn_status (*event_query)(void* event, int32_t* done, gtn_message* message);
  gtn_status (*event_elapsed)(void* start, void* end, double* milliseconds, gtn_message* message);

  /* Packed weights: optional as a whole (NULL: no GEMM). info->size is set; the rest is for the backend to fill. */
  gtn_status (*weights_pack)(void* device, const gtn_weights_desc* desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
  void (*weights_destroy)(void* weights);

  /* Plans. `desc` is the structure of that operator (gtn_gemm_desc for GTN_OP_GEMM, ...), complete and checked, and neither
   * it nor what it points to need outlive the call. `args` is the structure of that operator above. run is the hot path: it
   * allocates nothing, except that a stream may grow its workspace the first time that a plan needs more. */
  gtn_status (*plan_create)(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                            gtn_message* message);
  void (*plan_destroy)(void* plan);
  gtn_status (*run)(void* plan, void* stream, const void* args, gtn_message* message);

  /* Optional (NULL: nothing is claimed): *claimed = 1 where the device is meant to serve `op` on elements of `dtype`, as
   * gtn_device_supports describes it, else 0. Validation compares the claim with what the device declined. */
  gtn_status (*supports)(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message);

  /* Optional (NULL: reports show no roofline): measures GTN_LIMIT_*, as gtn_device_measure describes it. */
  gtn_status (*measure)(void* device, int32_t limit, double* per_second, gtn_message* message);

  /* Optional (NULL: GTN_UNSUPPORTED), with weights_pack: weights that are quantized already, as gtn_weights_pack_quantized
   * describes them. `zero_points` may be NULL. */
  gtn_status (*weights_pack_quantized)(void* device, const gtn_quantized_desc* desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info,
                                       gtn_message* message);

  /* Optional (NULL: no convolutions): packs weights of convolutions, as weights_pack those of GEMM; weights_destroy frees
   * both. */
  gtn_status (*conv_weights_pack)(void* device, const gtn_conv_weights_desc* desc, const void* source, const float* gamma,
                                  const float* beta, const float* mean, const float* variance, void** weights,
                                  gtn_weights_info* info, gtn_message* message);

  /* Optional, both or neither (NULL: GTN_UNSUPPORTED): memory of the host that the device reaches by itself, as
   * gtn_host_memory_alloc describes it. memory_copy takes it as any host memory. */
  gtn_status (*host_memory_alloc)(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message);
  void (*host_memory_free)(void* device, void* memory, int64_t bytes);
} gtn_backend;

/* The one symbol that a backend exports; the table has static storage. */
GTN_API const gtn_backend* gtn_backend_entry(void);

#ifdef __cplusplus
}
#endif

#endif
