package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import java.util.Arrays;

/**
 * Rotary position embedding: of a head's first {@code rotary} elements each pair (a, b) becomes (a cos - b sin, a sin +
 * b cos), and the others stay; and the 8-bit form of a row.
 *
 * <p>Two products and their sum round once each: u (|a cos| + |b sin| + |value|), and half the smallest number for
 * each. What stays is exact.
 *
 * <p>The 8-bit form of a row: scale = amax / 127 in FP32, value = rint(x / scale) within -127 to 127, ties to even; a
 * scale of 0 gives 0; a row that is not finite gives scale NaN and values of 0. Of an exact row these are FP32
 * operations by definition, and the result is exact. Of a rotated one, with errors of at most b<sub>i</sub> and B = max
 * b<sub>i</sub>, the scale errs by B / 127 + u scale, or half the smallest number, and a value is off from
 * x<sub>i</sub> / scale by 1/2 for the rounding, b<sub>i</sub> / scale, and |x<sub>i</sub> / scale| (B / amax + 3 u +
 * 2<sup>-149</sup> / scale) for the scale and the quotient.
 */
public final class RopeReference {
    private RopeReference() {}

    /** Which elements of a head are a pair. */
    public enum Style {
        /** x[i] and x[i + rotary / 2]. */
        HALVES,
        /** x[2 i] and x[2 i + 1]. */
        INTERLEAVED
    }

    /**
     * The 8-bit form of rows.
     *
     * @param values [rows, n]
     * @param scales [rows]
     */
    public record Quantized(Expected values, Expected scales) {}

    /**
     * Rotates heads.
     *
     * @param positions of each token
     * @param table [positions, rotary]: rotary / 2 cosines, then as many sines
     * @param x [tokens, heads, n]
     * @return [tokens, heads, n]
     */
    public static Expected rotate(Style style, int rotary, long[] positions, float[] table, int heads, int n,
            float[] x) {
        Expected expected = Expected.of(x.length, x.length);
        for (int i = 0; i < x.length; i++) {
            expected.set(i, x[i], 0, x[i]);
        }
        int half = rotary / 2;
        for (int row = 0; row < positions.length * heads; row++) {
            int angles = (int) positions[row / heads] * rotary;
            for (int i = 0; i < half; i++) {
                int first = row * n + (style == Style.HALVES ? i : 2 * i);
                int second = row * n + (style == Style.HALVES ? half + i : 2 * i + 1);
                float cos = table[angles + i];
                float sin = table[angles + half + i];
                sum(expected, first, x[first], cos, -x[second], sin);
                sum(expected, second, x[first], sin, x[second], cos);
            }
        }
        return expected;
    }

    /** a b + c d. */
    private static void sum(Expected expected, int index, float a, float b, float c, float d) {
        double value = (double) a * b + (double) c * d;
        double magnitude = Math.abs((double) a * b) + Math.abs((double) c * d) + Math.abs(value);
        expected.set(index, value, U * magnitude + 2 * TINY, a * b + c * d);
    }

    /** Quantizes rows of n elements. */
    public static Quantized quantize(Expected x, int n) {
        int rows = x.value().length / n;
        Quantized quantized = new Quantized(Expected.of(rows * n, rows), Expected.of(rows, rows));
        for (int row = 0; row < rows; row++) {
            int from = row * n;
            double amax = 0;
            double worst = 0;
            float naiveMax = 0;
            boolean finite = true;
            for (int i = from; i < from + n; i++) {
                finite &= Double.isFinite(x.value()[i]);
                amax = Math.max(amax, Math.abs(x.value()[i]));
                worst = Math.max(worst, x.bound()[i]);
                naiveMax = Math.max(naiveMax, Math.abs(x.naive()[i]));
            }
            if (!finite) {
                quantized.scales.set(row, Double.NaN, 0, Float.NaN);
                continue; // values of 0, exactly
            }
            float naiveScale = naiveMax / 127;
            boolean exact = Arrays.stream(x.bound(), from, from + n).allMatch(bound -> bound == 0);
            double scale = exact ? naiveScale : amax / 127;
            quantized.scales.set(row, scale, worst / 127 + (exact ? 0 : TINY), naiveScale);
            for (int i = from; i < from + n; i++) {
                float naive = naiveScale == 0 ? 0 : Math.clamp((float) Math.rint(x.naive()[i] / naiveScale), -127, 127);
                if (exact) {
                    quantized.values.set(i, naive, 0, naive);
                } else if (scale == 0) {
                    quantized.values.set(i, 0, 0, 0);
                } else {
                    double value = x.value()[i] / scale;
                    double bound = 0.5 + x.bound()[i] / scale + Math.abs(value) * (worst / amax + 3 * U + TINY / scale);
                    quantized.values.set(i, value, bound, naive);
                }
            }
        }
        return quantized;
    }
}
