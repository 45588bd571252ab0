package io.gatun;

import io.gatun.bindings.c.gatun_h;

/** The operators that a device may serve: see {@link Device#supports}. */
public enum Operator {
    /** {@link Gemm}. */
    GEMM,
    /** {@link Attention}. */
    ATTENTION,
    /** {@link LayerNorm} and {@link RmsNorm}. */
    NORM,
    /** {@link Softmax}. */
    SOFTMAX,
    /** {@link BiasActivation}. */
    ACTIVATION,
    /** {@link Merge}. */
    MERGE,
    /** {@link Rope}. */
    ROPE,
    /** {@link Selection}. */
    SELECT,
    /** {@link Route}. */
    ROUTE,
    /** {@link Mix}. */
    MIX,
    /** {@link Glu}. */
    GLU,
    /** {@link Conv}. */
    CONV,
    /** {@link Pooling}. */
    POOLING,
    /** {@link FakeQuantize}. */
    FAKE_QUANTIZE;

    int code() {
        return switch (this) {
            case GEMM -> gatun_h.GTN_OP_GEMM();
            case ATTENTION -> gatun_h.GTN_OP_ATTENTION();
            case NORM -> gatun_h.GTN_OP_NORM();
            case SOFTMAX -> gatun_h.GTN_OP_SOFTMAX();
            case ACTIVATION -> gatun_h.GTN_OP_ACTIVATION();
            case MERGE -> gatun_h.GTN_OP_MERGE();
            case ROPE -> gatun_h.GTN_OP_ROPE();
            case SELECT -> gatun_h.GTN_OP_SELECT();
            case ROUTE -> gatun_h.GTN_OP_ROUTE();
            case MIX -> gatun_h.GTN_OP_MIX();
            case GLU -> gatun_h.GTN_OP_GLU();
            case CONV -> gatun_h.GTN_OP_CONV();
            case POOLING -> gatun_h.GTN_OP_POOLING();
            case FAKE_QUANTIZE -> gatun_h.GTN_OP_FAKE_QUANTIZE();
        };
    }
}
