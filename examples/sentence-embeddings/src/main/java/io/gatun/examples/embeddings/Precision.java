package io.gatun.examples.embeddings;

import io.gatun.DType;
import java.util.Locale;

/**
 * In what format the encoder multiplies matrices. The residual stream, the norms, the softmax and all sums are FP32
 * throughout; what follows in a lower format is the linear layers' weights and the activations between operators that
 * are about to be rounded anyway: query, key and value, the attention's output and the feed-forward's inner layer.
 */
public enum Precision {
    /** FP32 weights and activations. */
    F32(DType.F32, DType.F32),
    /** BF16 weights and activations: half the memory traffic. */
    BF16(DType.BF16, DType.BF16),
    /** 8-bit weights, one scale per output channel; each row of activations is quantized as it is multiplied. */
    INT8(DType.S8, DType.BF16);

    private final DType weights;
    private final DType activations;

    Precision(DType weights, DType activations) {
        this.weights = weights;
        this.activations = activations;
    }

    DType weights() {
        return weights;
    }

    DType activations() {
        return activations;
    }

    /** The name as the command line takes it: {@code f32}, {@code bf16}, {@code int8}. */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
