package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

/**
 * Pooling in three dimensions: the maximum or the mean of a window.
 *
 * <p>The maximum is exact. A sum of n elements errs by at most (n - 1) u &Sigma;|x| in any order, the division rounds once,
 * so the mean by at most n u &Sigma;|x| / divisor + u |mean| + 2<sup>-149</sup>.
 */
public final class PoolingReference {
    private PoolingReference() {}

    /**
     * A pooling's sizes; those of dimensions that it lacks are 1, and their padding is 0.
     *
     * @param out sizes of the output
     */
    public record Shape(int batch, int channels, int[] size, int[] kernel, int[] stride, int[] dilation, int[] before,
            int[] out) {}

    /**
     * out[batch, channels, sizes].
     *
     * @param countPadding whether a mean is of all positions of a window
     * @param x [batch, channels, sizes]
     */
    public static Expected compute(boolean average, boolean countPadding, Shape shape, float[] x) {
        int volume = shape.size[0] * shape.size[1] * shape.size[2];
        int outVolume = shape.out[0] * shape.out[1] * shape.out[2];
        int positions = shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
        int elements = shape.batch * shape.channels * outVolume;
        Expected expected = Expected.of(elements, elements);
        for (int i = 0; i < elements; i++) {
            int place = i % outVolume;
            int plane = i / outVolume * volume;
            int[] y = {place / shape.out[2] / shape.out[1], place / shape.out[2] % shape.out[1], place % shape.out[2]};
            double sum = 0;
            double magnitude = 0;
            double most = Double.NEGATIVE_INFINITY;
            float naive = 0;
            int inside = 0;
            for (int t = 0; t < positions; t++) {
                int from = source(shape, y, t);
                if (from < 0) {
                    continue;
                }
                float value = x[plane + from];
                inside++;
                sum += value;
                magnitude += Math.abs(value);
                naive += value;
                most = Math.max(most, value); // NaN if one is
            }
            if (average) {
                int divisor = countPadding ? positions : Math.max(inside, 1);
                double mean = sum / divisor;
                expected.set(i, mean, inside * U * magnitude / divisor + U * Math.abs(mean) + TINY, naive / divisor);
            } else {
                expected.set(i, most, 0, (float) most);
            }
        }
        return expected;
    }

    /** Where position t of the window meets x, or -1 outside of it. */
    private static int source(Shape shape, int[] y, int t) {
        int[] at = {t / shape.kernel[2] / shape.kernel[1], t / shape.kernel[2] % shape.kernel[1], t % shape.kernel[2]};
        int from = 0;
        for (int d = 0; d < 3; d++) {
            int position = y[d] * shape.stride[d] + at[d] * shape.dilation[d] - shape.before[d];
            if (position < 0 || position >= shape.size[d]) {
                return -1;
            }
            from = from * shape.size[d] + position;
        }
        return from;
    }
}
