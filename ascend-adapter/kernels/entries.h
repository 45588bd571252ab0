// The entries of all kernels, F(name) for each: what a binary of them holds, and what plans look up by name.
#pragma once

// f32 and bf16 for what is read and for what is written.
#define GATUN_ASCEND_PAIRS(F, name) F(name##_f32_f32) F(name##_f32_bf16) F(name##_bf16_f32) F(name##_bf16_bf16)

// f16 as well.
#define GATUN_ASCEND_TRIPLES(F, name)                                                \
  GATUN_ASCEND_PAIRS(F, name)                                                        \
  F(name##_f32_f16) F(name##_bf16_f16) F(name##_f16_f32) F(name##_f16_bf16) F(name##_f16_f16)

#define GATUN_ASCEND_ENTRIES(F)            \
  GATUN_ASCEND_PAIRS(F, gatun_activation)  \
  F(gatun_attention_bf16_f32) F(gatun_attention_bf16_bf16) F(gatun_attention_f16_f32) F(gatun_attention_f16_f16) \
  F(gatun_attention_any_bf16_f32) F(gatun_attention_any_bf16_bf16) \
  F(gatun_attention_any_f16_f32) F(gatun_attention_any_f16_f16) \
  F(gatun_attention_terms_f32) F(gatun_attention_terms_bf16) F(gatun_attention_terms_f16) \
  F(gatun_gemm_bf16_f32) F(gatun_gemm_bf16_bf16) F(gatun_gemm_bf16_f16) \
  F(gatun_gemm_f16_f32) F(gatun_gemm_f16_bf16) F(gatun_gemm_f16_f16) \
  F(gatun_gemm_s8_f32) F(gatun_gemm_s8_bf16) F(gatun_gemm_s8_f16) \
  GATUN_ASCEND_TRIPLES(F, gatun_glu)       \
  GATUN_ASCEND_TRIPLES(F, gatun_merge)     \
  GATUN_ASCEND_PAIRS(F, gatun_norm_layer)  \
  GATUN_ASCEND_PAIRS(F, gatun_norm_rms)    \
  GATUN_ASCEND_TRIPLES(F, gatun_rope)      \
  F(gatun_rope_f32_s8) F(gatun_rope_bf16_s8) F(gatun_rope_f16_s8) \
  F(gatun_rows_f32_bf16) F(gatun_rows_f32_f16) F(gatun_rows_bf16_f32) F(gatun_rows_bf16_bf16) F(gatun_rows_bf16_f16) \
  F(gatun_rows_f16_f32) F(gatun_rows_f16_bf16) F(gatun_rows_f16_f16) F(gatun_rows_u8_s8) F(gatun_rows_u8_bf16) \
  F(gatun_rows_f32_s8) F(gatun_rows_bf16_s8) F(gatun_rows_f16_s8) F(gatun_rows_f32_u8) \
  F(gatun_select_pool_f32) F(gatun_select_pool_bf16) F(gatun_select_pool_f16) \
  F(gatun_select_weigh_f32) F(gatun_select_weigh_bf16) F(gatun_select_weigh_f16) \
  F(gatun_select_label_f32) F(gatun_select_label_bf16) F(gatun_select_label_f16) \
  F(gatun_select_unit_f32) F(gatun_select_unit_bf16) F(gatun_select_unit_f16) F(gatun_select_code) F(gatun_select_retrieve) \
  F(gatun_select_sort) F(gatun_select_near) F(gatun_select_lengths) F(gatun_select_copy) \
  GATUN_ASCEND_PAIRS(F, gatun_softmax)     \
  F(gatun_thin_f32) F(gatun_thin_bf16) F(gatun_thin_f16)
