package io.gatun.bench.reference;

/** The BF16 format: the upper half of an FP32 number. */
public final class Bf16 {
    private Bf16() {}

    /** The bits of the BF16 number nearest to {@code value}, ties to even; a NaN stays a NaN. */
    public static short bits(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) (bits >>> 16 | 0x40);
        }
        return (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
    }

    /** The number that has these bits. */
    public static float value(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /** The BF16 number nearest to {@code value}, ties to even. */
    public static float round(float value) {
        return value(bits(value));
    }

    /** A copy of {@code values}, each rounded to BF16. */
    public static float[] round(float[] values) {
        float[] rounded = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            rounded[i] = round(values[i]);
        }
        return rounded;
    }
}
