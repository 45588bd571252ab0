package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import io.gatun.Activation;
import io.gatun.DType;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * GEMM with its epilogue: out[m, n] = f(a[m, k] w[k, n] + low rank + bias[n]) + residual[m, n].
 *
 * <p>F32 and BF16: the product errs by at most (k + 1) u &Sigma;|a w| + k 2<sup>-149</sup> (the sum's n u, one more for
 * a rescaling), and the bias adds one rounding of the sum. BF16 rounds both operands first, which is exact arithmetic
 * on known numbers and no error; an operand below 2<sup>-126</sup> may count as zero, so its products are added whole.
 * F16 rounds the weights, and allows for a device that rounds a as well: by &Sigma;|a - F16(a)| |w|, and by anything where
 * F16(a) is infinite and a is not.
 *
 * <p>FP8: weights are numbers of the format and a scale for each column, exactly known; the product of a and the numbers
 * errs as in F32, and its multiplication by the scale by u of the result more. A device that rounds a to BF16 is allowed
 * for as in F16.
 *
 * <p>S8: both quantizations and the sum are exact, so there is no k in the bound: the scaling acc s s<sub>w</sub> takes
 * three roundings (the conversion of acc, two products).
 *
 * <p>Low rank: t = scale &Sigma; a A errs by at most |scale| ((k + 2) u &Sigma;|a A| + k 2<sup>-149</sup>) +
 * 2<sup>-149</sup> (as above, one more for the scale); &Sigma; t B by what that makes of each |B|, and by (rank + 1) u
 * &Sigma;|t B| + rank 2<sup>-149</sup>; adding it rounds once. The elements of a are taken as they are in every format.
 *
 * <p>The activation passes the error on (see {@link ActivationReference}), and the residual adds one rounding.
 */
public final class GemmReference {
    private final int m;
    private final int k;
    private final int n;
    private final float @Nullable [] bias;
    private final Activation activation;
    private final float @Nullable [] residual;
    private final @Nullable Added added;
    private final Expected expected;
    private float @Nullable [] scales; // of columns, that sums are multiplied by

    /**
     * What a low rank adds to the product before the bias: scale a[m, k] down[k, rank] up[rank, n].
     *
     * @param down [k, rank]
     * @param up [rank, n]
     */
    public record LowRank(int rank, float scale, float[] down, float[] up) {}

    /** That, for each element of the output. */
    private record Added(double[] value, double[] error, float[] naive) {}

    private GemmReference(int m, int k, int n, float @Nullable [] bias, Activation activation,
            float @Nullable [] residual, @Nullable Added added) {
        this.m = m;
        this.k = k;
        this.n = n;
        this.bias = bias;
        this.activation = activation;
        this.residual = residual;
        this.added = added;
        this.expected = Expected.of(m * n, (long) m * n);
    }

    /**
     * out[m, n].
     *
     * @param format F32, BF16, F16, S8, F8E4M3 or F8E5M2
     * @param a [m, k]
     * @param w [k, n]
     * @param bias [n], or null
     * @param residual [m, n], or null
     */
    public static Expected compute(DType format, int m, int k, int n, float[] a, float[] w, float @Nullable [] bias,
            Activation activation, float @Nullable [] residual) {
        return compute(format, m, k, n, a, w, null, bias, activation, residual);
    }

    /**
     * out[m, n], grouped: rows offsets[g] to offsets[g + 1] - 1 are products with matrix g and take bias g; rows beyond
     * the last offset stay as they were.
     *
     * @param offsets [groups + 1]
     * @param index [m]: the row of a for each row of the product, or null for rows in order
     * @param a [rows, k]
     * @param w [groups, k, n]
     * @param bias [groups, n], or null
     * @param residual [m, n], or null
     */
    public static Expected grouped(DType format, int m, int k, int n, int[] offsets, int @Nullable [] index, float[] a,
            float[] w, float @Nullable [] bias, Activation activation, float @Nullable [] residual) {
        Expected all = Expected.of(m * n, (long) m * n);
        Arrays.fill(all.bound(), Expected.UNTOUCHED);
        for (int g = 0; g + 1 < offsets.length; g++) {
            int first = offsets[g];
            int rows = offsets[g + 1] - first;
            float[] x = new float[rows * k];
            for (int r = 0; r < rows; r++) {
                System.arraycopy(a, (index == null ? first + r : index[first + r]) * k, x, r * k, k);
            }
            Expected some = compute(format, rows, k, n, x, Arrays.copyOfRange(w, g * k * n, (g + 1) * k * n),
                    bias == null ? null : Arrays.copyOfRange(bias, g * n, (g + 1) * n), activation,
                    residual == null ? null : Arrays.copyOfRange(residual, first * n, (first + rows) * n));
            System.arraycopy(some.value(), 0, all.value(), first * n, rows * n);
            System.arraycopy(some.bound(), 0, all.bound(), first * n, rows * n);
            System.arraycopy(some.naive(), 0, all.naive(), first * n, rows * n);
        }
        return all;
    }

    /**
     * out[m, n], with a product of low rank.
     *
     * @param low what is added, or null
     */
    public static Expected compute(DType format, int m, int k, int n, float[] a, float[] w, @Nullable LowRank low,
            float @Nullable [] bias, Activation activation, float @Nullable [] residual) {
        Added added = low == null ? null : added(m, k, n, a, low);
        GemmReference gemm = new GemmReference(m, k, n, bias, activation, residual, added);
        switch (format) {
            case F32 -> gemm.floats(a, a, w, false);
            case BF16 -> gemm.floats(Bf16.round(a), Bf16.round(a), Bf16.round(w), true);
            case F16 -> gemm.floats(a, F16.round(a), F16.round(w), false);
            case F8E4M3, F8E5M2 -> gemm.float8(a, F8.Weights.of(format, w, k, n));
            case S8 -> gemm.integers(a, w);
            default -> throw new IllegalArgumentException("no GEMM has the format " + format);
        }
        return gemm.expected;
    }

    /**
     * out[m, n], with weights that are in FP8 already, NaN and infinities among them.
     *
     * @param weights [k, n]
     */
    public static Expected compute(int m, int k, int n, float[] a, F8.Weights weights, float @Nullable [] bias,
            Activation activation, float @Nullable [] residual) {
        GemmReference gemm = new GemmReference(m, k, n, bias, activation, residual, null);
        gemm.float8(a, weights);
        return gemm.expected;
    }

    private void float8(float[] a, F8.Weights weights) {
        scales = weights.scales();
        floats(a, Bf16.round(a), weights.numbers(), false);
    }

    private static Added added(int m, int k, int n, float[] a, LowRank low) {
        Added added = new Added(new double[m * n], new double[m * n], new float[m * n]);
        for (int i = 0; i < m; i++) {
            for (int r = 0; r < low.rank; r++) {
                double sum = 0;
                double magnitude = 0;
                float naive = 0;
                for (int p = 0; p < k; p++) {
                    float x = a[i * k + p];
                    float y = low.down[p * low.rank + r];
                    sum += (double) x * y;
                    magnitude += Math.abs((double) x * y);
                    naive += x * y;
                }
                double t = low.scale * sum;
                double error = Math.abs(low.scale) * ((k + 2) * U * magnitude + k * TINY) + TINY;
                naive *= low.scale;
                for (int j = 0; j < n; j++) {
                    double up = low.up[r * n + j];
                    int at = i * n + j;
                    added.value[at] += t * up;
                    added.error[at] += Math.abs(up) * (error + (low.rank + 1) * U * (Math.abs(t) + error)) + TINY;
                    added.naive[at] += naive * low.up[r * n + j];
                }
            }
        }
        return added;
    }

    /** @param rounded what a device may take in place of a */
    private void floats(float[] a, float[] rounded, float[] w, boolean flush) {
        double[] wide = new double[w.length];
        for (int i = 0; i < w.length; i++) {
            wide[i] = w[i];
        }
        boolean small = flush && (hasSubnormal(a) || hasSubnormal(w));
        double[] sum = new double[n];
        double[] magnitude = new double[n];
        double[] freedom = new double[n];
        float[] naive = new float[n];
        for (int i = 0; i < m; i++) {
            Arrays.fill(sum, 0);
            Arrays.fill(magnitude, 0);
            Arrays.fill(freedom, 0);
            Arrays.fill(naive, 0);
            int p = 0;
            for (; p + 4 <= k; p += 4) {
                accumulate(sum, magnitude, a, i * k + p, wide, p * n);
            }
            for (; p < k; p++) {
                accumulate(sum, magnitude, a[i * k + p], wide, p * n);
            }
            for (p = 0; p < k; p++) {
                accumulate(naive, rounded[i * k + p], w, p * n);
                allow(freedom, a[i * k + p], rounded[i * k + p], w, p * n, small);
            }
            for (int j = 0; j < n; j++) {
                if (Double.isInfinite(freedom[j])) {
                    expected.set(i * n + j, 0, Expected.ANY, 0);
                } else {
                    double error = (k + 1) * U * magnitude[j] + k * TINY + freedom[j];
                    if (scales == null) {
                        epilogue(i, j, sum[j], error, naive[j]);
                    } else {
                        double product = sum[j] * scales[j];
                        epilogue(i, j, product, error * scales[j] * (1 + U) + U * Math.abs(product) + TINY,
                                naive[j] * scales[j]);
                    }
                }
            }
        }
    }

    // No references take longer than these loops. Each is a method of its own, which the compiler makes vectors of.

    private static void accumulate(double[] sum, double[] magnitude, double x, double[] w, int from) {
        for (int j = 0; j < sum.length; j++) {
            sum[j] += x * w[from + j];
        }
        for (int j = 0; j < sum.length; j++) {
            magnitude[j] += Math.abs(x * w[from + j]);
        }
    }

    private static void accumulate(float[] naive, float x, float[] w, int from) {
        for (int j = 0; j < naive.length; j++) {
            naive[j] += x * w[from + j];
        }
    }

    /** Four elements of a, from {@code at} on, and the rows of w that they meet. */
    private static void accumulate(double[] sum, double[] magnitude, float[] a, int at, double[] w, int first) {
        int n = sum.length;
        accumulate(sum, a[at], a[at + 1], a[at + 2], a[at + 3], w, first, first + n, first + 2 * n, first + 3 * n);
        accumulateMagnitude(magnitude, a[at], a[at + 1], a[at + 2], a[at + 3], w, first, first + n, first + 2 * n,
                first + 3 * n);
    }

    private static void accumulate(double[] sum, double x0, double x1, double x2, double x3, double[] w, int row0,
            int row1, int row2, int row3) {
        for (int j = 0; j < sum.length; j++) {
            sum[j] += x0 * w[row0 + j] + x1 * w[row1 + j] + x2 * w[row2 + j] + x3 * w[row3 + j];
        }
    }

    private static void accumulateMagnitude(double[] sum, double x0, double x1, double x2, double x3, double[] w,
            int row0, int row1, int row2, int row3) {
        for (int j = 0; j < sum.length; j++) {
            sum[j] += Math.abs(x0 * w[row0 + j]) + Math.abs(x1 * w[row1 + j]) + Math.abs(x2 * w[row2 + j])
                    + Math.abs(x3 * w[row3 + j]);
        }
    }

    /** Adds what a device may make of an element of a, times those of a row of w. */
    private static void allow(double[] freedom, float x, float taken, float[] w, int from, boolean small) {
        int n = freedom.length;
        if (taken != x && !Float.isNaN(x)) {
            double off = Math.abs((double) x - taken);
            if (Double.isInfinite(off)) {
                Arrays.fill(freedom, off);
            } else {
                float most = taken == 0 ? Float.POSITIVE_INFINITY : Float.MAX_VALUE; // else infinite either way
                for (int j = 0; j < n; j++) {
                    freedom[j] += off * Math.min(Math.abs(w[from + j]), most);
                }
            }
        }
        if (small) {
            for (int j = 0; j < n; j++) {
                if (Math.abs(x) < FLUSH || Math.abs(w[from + j]) < FLUSH) {
                    freedom[j] += Math.abs((double) x * w[from + j]);
                }
            }
        }
    }

    private static boolean hasSubnormal(float[] values) {
        for (float value : values) {
            if (value != 0 && Math.abs(value) < FLUSH) {
                return true;
            }
        }
        return false;
    }

    private void integers(float[] a, float[] w) {
        float[] scales = new float[n];
        int[] weights = quantizeWeights(w, scales);
        RowQuantizer row = new RowQuantizer(k);
        int[] sum = new int[n];
        for (int i = 0; i < m; i++) {
            boolean finite = row.quantize(a, i * k);
            Arrays.fill(sum, 0);
            for (int p = 0; p < k; p++) {
                int x = row.values()[p] - row.zero();
                for (int j = 0; j < n; j++) {
                    sum[j] += x * weights[p * n + j];
                }
            }
            for (int j = 0; j < n; j++) {
                if (finite) {
                    double value = (double) sum[j] * row.scale() * scales[j];
                    double error = 3 * U * Math.abs(value) + Math.abs((double) sum[j]) * TINY;
                    epilogue(i, j, value, error, sum[j] * (row.scale() * scales[j]));
                } else {
                    expected.set(i * n + j, Double.NaN, 0, Float.NaN);
                }
            }
        }
    }

    /** Symmetric 8-bit weights: one scale of amax / 127 per column, in FP32, ties to even. */
    private int[] quantizeWeights(float[] w, float[] scales) {
        int[] quantized = new int[w.length];
        for (int j = 0; j < n; j++) {
            float amax = 0;
            for (int p = 0; p < k; p++) {
                amax = Math.max(amax, Math.abs(w[p * n + j]));
            }
            scales[j] = amax / 127f;
            for (int p = 0; p < k && scales[j] != 0; p++) {
                quantized[p * n + j] = (int) Math.clamp(Math.rint(w[p * n + j] / scales[j]), -127, 127);
            }
        }
        return quantized;
    }

    private void epilogue(int i, int j, double sum, double error, float naiveSum) {
        double y = sum;
        double dy = error;
        float naive = naiveSum;
        if (added != null) {
            y += added.value[i * n + j];
            dy += added.error[i * n + j] + U * Math.abs(y);
            naive += added.naive[i * n + j];
        }
        if (bias != null) {
            y += bias[j];
            dy += U * Math.abs(y);
            naive += bias[j];
        }
        double value = ActivationReference.value(activation, y);
        double bound = ActivationReference.bound(activation, y, dy);
        naive = ActivationReference.naive(activation, naive);
        if (residual != null) {
            value += residual[i * n + j];
            bound += U * Math.abs(value);
            naive += residual[i * n + j];
        }
        expected.set(i * n + j, value, bound, naive);
    }
}
