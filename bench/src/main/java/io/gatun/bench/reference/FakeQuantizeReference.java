package io.gatun.bench.reference;

import io.gatun.DType;

/**
 * Fake quantization: out = (clamp(rint(x / s) + z, least, most) - z) s, or its straight-through gradient. Every operation is one of
 * FP32 whose result IEEE 754 fixes, so an output may be no other number: the value is given as it is after the rounding to its type,
 * with a bound of 0.
 */
public final class FakeQuantizeReference {
    private FakeQuantizeReference() {}

    /** The values, of one element. */
    public static float value(float x, float scale, int zero, int least, int most) {
        if (Float.isNaN(x) || scale == 0) {
            return Float.isNaN(x) ? x : 0;
        }
        float integer = (float) Math.rint(x / scale) + zero;
        return (Math.clamp(integer, least, most) - zero) * scale;
    }

    /** The gradient, of one element. */
    public static float gradient(float x, float scale, int zero, int least, int most, float gradient) {
        float integer = (float) Math.rint(x / scale) + zero;
        return integer >= least && integer <= most ? gradient : 0;
    }

    /** What is expected of so many elements, before they are rounded to {@code out}. */
    public static Expected of(DType out, float[] values) {
        return Expected.exact(out == DType.BF16 ? Bf16.round(values) : values);
    }
}
