package io.gatun;

/** The FP8 formats: how a byte of {@link DType#F8E4M3} or {@link DType#F8E5M2} stands for a number. */
final class Float8 {
    private Float8() {}

    private static int mantissa(DType dtype) {
        return dtype == DType.F8E4M3 ? 3 : 2;
    }

    private static int bias(DType dtype) {
        return dtype == DType.F8E4M3 ? 7 : 15;
    }

    static float toFloat(DType dtype, byte bits) {
        int mantissa = mantissa(dtype);
        int exponent = (bits & 0x7f) >> mantissa;
        int fraction = bits & (1 << mantissa) - 1;
        float magnitude;
        if (dtype == DType.F8E4M3 && (bits & 0x7f) == 0x7f) {
            magnitude = Float.NaN;
        } else if (dtype == DType.F8E5M2 && exponent == 31) {
            magnitude = fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
        } else {
            int steps = exponent == 0 ? fraction : fraction + (1 << mantissa);
            magnitude = Math.scalb((float) steps, Math.max(exponent, 1) - bias(dtype) - mantissa);
        }
        return bits < 0 ? -magnitude : magnitude;
    }

    /** To nearest, ties to even. What E4M3 cannot hold becomes its largest number, what E5M2 cannot infinity. */
    static byte ofFloat(DType dtype, float value) {
        int sign = Float.floatToRawIntBits(value) >>> 31 << 7;
        float magnitude = Math.abs(value);
        if (Float.isNaN(value)) {
            return (byte) (sign | (dtype == DType.F8E4M3 ? 0x7f : 0x7e));
        }
        if (dtype == DType.F8E4M3) {
            magnitude = Math.min(magnitude, 448);
        } else if (magnitude >= 61440) { // halfway from the largest number to the next power of two
            return (byte) (sign | 0x7c);
        }
        int least = 1 - bias(dtype);
        int exponent = Math.max(Math.getExponent(magnitude), least);
        int steps = (int) Math.rint(Math.scalb((double) magnitude, mantissa(dtype) - exponent));
        return (byte) (sign | (exponent - least << mantissa(dtype)) + steps);
    }
}
