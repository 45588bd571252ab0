package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.bench.reference.Bf16;
import io.gatun.bench.reference.F16;
import java.util.random.RandomGenerator;

/** What the operands of a case hold. NORMAL goes unsaid in a case's line. */
enum Values {
    /** Normally distributed. */
    NORMAL,
    /** The first operand is all zero. */
    ZEROS,
    /** Infinities in every fourth row. */
    INF,
    /** NaN in every fourth row. */
    NAN,
    /** NaN in every fourth column of the weights. */
    NANW,
    /** Zeros in every fourth column of the weights. */
    ZEROW,
    /** A visible NaN and a visible infinity among the values of attention. */
    NANV,
    /** Keys, values and biases that no query sees are NaN. */
    HIDDEN,
    /**
     * Numbers below 2<sup>-126</sup>, scaled back by the other operand where there is one; in a product with weights of F16 or
     * FP8, weights that are subnormal there.
     */
    DENORMAL,
    /** A mean far from zero. */
    OFFSET,
    /** Magnitudes far from one. */
    LARGE,
    /** Every fourth row has a range that overflows FP32. */
    OVERFLOW,
    /** Values halfway between two steps of the 8-bit quantizer. */
    TIES,
    /** Every row holds one value throughout. */
    CONSTANT,
    /** Weights of every code of FP8: all of them in every fourth column, those of numbers in the others. */
    CODES,
    /** A ramp over the range in which an activation bends. */
    SWEEP;

    /** {@code count} normally distributed values of a deviation, rounded to {@code dtype}. */
    static float[] normal(RandomGenerator random, DType dtype, int count, double deviation) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) (random.nextGaussian() * deviation);
        }
        return rounded(values, dtype);
    }

    /** Values in place, rounded to {@code dtype}. */
    static float[] rounded(float[] values, DType dtype) {
        return switch (dtype) {
            case BF16 -> Bf16.round(values);
            case F16 -> F16.round(values);
            default -> values;
        };
    }

    /** Whether a row is one of those that carry the special values. */
    static boolean special(int row) {
        return row % 4 == 1;
    }
}
