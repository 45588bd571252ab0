package io.gatun.bench.reference;

/** The F16 format: IEEE 754 binary16. */
public final class F16 {
    private F16() {}

    /** The bits of the F16 number nearest to {@code value}, ties to even; a NaN stays a NaN. */
    public static short bits(float value) {
        return Float.floatToFloat16(value);
    }

    /** The number that has these bits. */
    public static float value(short bits) {
        return Float.float16ToFloat(bits);
    }

    /** A copy of {@code values}, each rounded to F16. */
    public static float[] round(float[] values) {
        float[] rounded = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            rounded[i] = value(bits(values[i]));
        }
        return rounded;
    }
}
