package io.gatun;

import io.gatun.bindings.c.gatun_h;

/** An element-wise function, alone ({@link BiasActivation}), as a gate ({@link Glu}) or at the end of a {@link Gemm}. */
public enum Activation {
    /** x. */
    NONE,
    /** x / 2 * (1 + erf(x / sqrt 2)). */
    GELU_ERF,
    /** x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). */
    GELU_TANH,
    /** x / (1 + exp(-x)). */
    SILU,
    /** max(x, 0); NaN stays NaN. */
    RELU;

    int code() {
        return switch (this) {
            case NONE -> gatun_h.GTN_ACT_NONE();
            case GELU_ERF -> gatun_h.GTN_ACT_GELU_ERF();
            case GELU_TANH -> gatun_h.GTN_ACT_GELU_TANH();
            case SILU -> gatun_h.GTN_ACT_SILU();
            case RELU -> gatun_h.GTN_ACT_RELU();
        };
    }
}
