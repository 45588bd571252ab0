package io.gatun.bench.reference;

import io.gatun.DType;
import java.util.Arrays;

/** The FP8 formats E4M3 and E5M2, by tables of their numbers, and weights in them with a scale for each column. */
public final class F8 {
    private static final float[] E4M3 = numbers(4, 3, 448);
    private static final float[] E5M2 = numbers(5, 2, 57344);

    private F8() {}

    /** Whether a type is one of them. */
    public static boolean is(DType dtype) {
        return dtype == DType.F8E4M3 || dtype == DType.F8E5M2;
    }

    /** What is not negative: that of index i has i in its lower seven bits. Numbers rise up to the largest. */
    private static float[] numbers(int exponentBits, int mantissaBits, float largest) {
        float[] numbers = new float[128];
        int bias = (1 << exponentBits - 1) - 1;
        for (int i = 0; i < 128; i++) {
            int exponent = i >> mantissaBits;
            double fraction = (i & (1 << mantissaBits) - 1) / (double) (1 << mantissaBits);
            double number = exponent == 0 ? fraction * Math.pow(2, 1 - bias) : (1 + fraction) * Math.pow(2, exponent - bias);
            // Beyond the largest E4M3 has only a NaN, with all bits of the fraction.
            numbers[i] = number <= largest ? (float) number : fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
        }
        return numbers;
    }

    private static float[] numbers(DType dtype) {
        return dtype == DType.F8E4M3 ? E4M3 : E5M2;
    }

    /** The bits of the largest number. */
    private static int last(DType dtype) {
        return dtype == DType.F8E4M3 ? 0x7e : 0x7b;
    }

    /** The largest number. */
    public static float largest(DType dtype) {
        return numbers(dtype)[last(dtype)];
    }

    /** The bits of the nearest number, that with an even last bit of two; the largest for what is beyond, NaN excluded. */
    public static byte bits(DType dtype, float value) {
        float[] numbers = numbers(dtype);
        double magnitude = Math.abs((double) value);
        int found = Arrays.binarySearch(numbers, 0, last(dtype) + 1, (float) magnitude);
        int above = found >= 0 ? found : Math.min(-found - 1, last(dtype));
        int nearest = above;
        if (above > 0 && numbers[above] > magnitude) {
            double up = numbers[above] - magnitude;
            double down = magnitude - numbers[above - 1];
            nearest = down < up || down == up && above % 2 != 0 ? above - 1 : above;
        }
        return (byte) (nearest | (Math.copySign(1, value) < 0 ? 0x80 : 0));
    }

    /** What these bits stand for: a number, infinity or NaN. */
    public static float value(DType dtype, byte bits) {
        float magnitude = numbers(dtype)[bits & 0x7f];
        return bits < 0 ? -magnitude : magnitude;
    }

    /**
     * Weights [k, n] as numbers of the format and a scale of amax / largest for each column, in FP32.
     *
     * @param numbers [k, n]
     * @param scales [n]
     */
    public record Weights(float[] numbers, float[] scales) {
        /** Those that codes [n, k] stand for. */
        public static Weights of(DType dtype, byte[] codes, float[] scales, int k) {
            int n = scales.length;
            float[] numbers = new float[codes.length];
            for (int i = 0; i < codes.length; i++) {
                numbers[i % k * n + i / k] = value(dtype, codes[i]);
            }
            return new Weights(numbers, scales);
        }

        /** Rounds w, which is finite. */
        public static Weights of(DType dtype, float[] w, int k, int n) {
            float[] numbers = new float[w.length];
            float[] scales = new float[n];
            float largest = largest(dtype);
            for (int j = 0; j < n; j++) {
                float amax = 0;
                for (int p = 0; p < k; p++) {
                    amax = Math.max(amax, Math.abs(w[p * n + j]));
                }
                scales[j] = amax / largest;
                for (int p = 0; p < k && scales[j] != 0; p++) {
                    numbers[p * n + j] = value(dtype, bits(dtype, w[p * n + j] / scales[j]));
                }
            }
            return new Weights(numbers, scales);
        }
    }
}
