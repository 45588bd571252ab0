package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import org.jspecify.annotations.Nullable;

/**
 * Normalisations over the last dimension with a fused residual: h = x + residual, out = norm(h), sum = h.
 *
 * <p>Layer normalisation, with r = 1 / sqrt(var h + epsilon), d = h - mean h and H = mean |h|, in two passes: the mean
 * errs by (n + 1) u H, and h itself by u |h| where it is a sum. An error common to all of d cancels from the variance
 * to first order, because d sums to 0, and leaves its square; the rest of the variance errs by (n + 4) u relatively,
 * and by 2 u rms(h) / std through the error of h. So out errs by
 *
 * <pre>
 * |gamma| r ((n + 1) u H + [u |h|]) + |gamma d r| ((n + 4) u / 2 + [u r rms h] + ((n + 1) u H r)^2 / 2 + 8 u) + u |out|
 * </pre>
 *
 * with the bracketed terms where there is a residual: 4 u for the square root and the division, 4 u for the products
 * around it. A one-pass variance (mean of squares less the square of the mean) errs by u (mean / std)^2 instead and is
 * caught by rows with an offset.
 *
 * <p>RMS normalisation has no cancellation: |out| ((n + 2) u / 2 + 8 u), plus 2 u |out| for a residual.
 */
public final class NormReference {
    private NormReference() {}

    /**
     * Layer normalisation: (h - mean h) / sqrt(var h + epsilon) * gamma + beta, the variance biased; out[rows, n].
     *
     * @param residual [rows, n], or null
     * @param gamma [n]
     * @param beta [n], or null
     * @param flush whether operands below 2<sup>-126</sup> may count as zero (BF16)
     */
    public static Expected layerNorm(int rows, int n, float epsilon, float[] x, float @Nullable [] residual,
            float[] gamma, float @Nullable [] beta, boolean flush) {
        Expected expected = Expected.of(rows * n, rows);
        double[] h = new double[n];
        float[] naive = new float[n];
        for (int i = 0; i < rows; i++) {
            hidden(x, residual, i * n, h, naive);
            double mean = 0;
            double magnitude = 0;
            double square = 0;
            float naiveMean = 0;
            for (int j = 0; j < n; j++) {
                mean += h[j];
                magnitude += Math.abs(h[j]);
                square += h[j] * h[j];
                naiveMean += naive[j];
            }
            mean /= n;
            magnitude /= n;
            naiveMean /= n;
            double variance = 0;
            float naiveVariance = 0;
            for (int j = 0; j < n; j++) {
                variance += (h[j] - mean) * (h[j] - mean);
                naiveVariance += (naive[j] - naiveMean) * (naive[j] - naiveMean);
            }
            double r = 1 / Math.sqrt(variance / n + epsilon);
            float naiveR = 1 / (float) Math.sqrt(naiveVariance / n + epsilon);
            double added = residual == null ? 0 : U;
            double shift = (n + 1) * U * magnitude;
            double relative = (n + 4) * U / 2 + added * r * Math.sqrt(square / n) + shift * r * shift * r / 2 + 8 * U;
            double lost = flush ? FLUSH : TINY;
            for (int j = 0; j < n; j++) {
                double unit = (h[j] - mean) * r;
                double value = unit * gamma[j] + (beta == null ? 0 : beta[j]);
                double bound = Math.abs(gamma[j])
                        * (r * (shift + added * Math.abs(h[j]) + 2 * lost) + Math.abs(unit) * relative)
                        + U * Math.abs(value) + TINY;
                float naiveValue = (naive[j] - naiveMean) * naiveR * gamma[j] + (beta == null ? 0 : beta[j]);
                expected.set(i * n + j, value, bound, naiveValue);
            }
        }
        return expected;
    }

    /** RMS normalisation: h / sqrt(mean h&sup2; + epsilon) * gamma; out[rows, n]. Parameters as for layerNorm. */
    public static Expected rmsNorm(int rows, int n, float epsilon, float[] x, float @Nullable [] residual,
            float[] gamma, boolean flush) {
        Expected expected = Expected.of(rows * n, rows);
        double[] h = new double[n];
        float[] naive = new float[n];
        for (int i = 0; i < rows; i++) {
            hidden(x, residual, i * n, h, naive);
            double square = 0;
            float naiveSquare = 0;
            for (int j = 0; j < n; j++) {
                square += h[j] * h[j];
                naiveSquare += naive[j] * naive[j];
            }
            double r = 1 / Math.sqrt(square / n + epsilon);
            float naiveR = 1 / (float) Math.sqrt(naiveSquare / n + epsilon);
            double relative = (n + 2) * U / 2 + 8 * U + (residual == null ? 0 : 2 * U);
            double lost = flush ? FLUSH : TINY;
            for (int j = 0; j < n; j++) {
                double value = h[j] * r * gamma[j];
                double bound = Math.abs(value) * relative + Math.abs(gamma[j]) * r * 2 * lost + TINY;
                expected.set(i * n + j, value, bound, naive[j] * naiveR * gamma[j]);
            }
        }
        return expected;
    }

    /** h = x + residual: one rounding; sum[rows, n]. */
    public static Expected sum(float[] x, float @Nullable [] residual, boolean flush) {
        Expected expected = Expected.of(x.length, x.length);
        for (int i = 0; i < x.length; i++) {
            double value = residual == null ? x[i] : (double) x[i] + residual[i];
            double bound = (residual == null ? 0 : U * Math.abs(value)) + (flush ? 2 * FLUSH : 0);
            expected.set(i, value, bound, residual == null ? x[i] : x[i] + residual[i]);
        }
        return expected;
    }

    private static void hidden(float[] x, float @Nullable [] residual, int from, double[] h, float[] naive) {
        for (int j = 0; j < h.length; j++) {
            h[j] = residual == null ? x[from + j] : (double) x[from + j] + residual[from + j];
            naive[j] = residual == null ? x[from + j] : x[from + j] + residual[from + j];
        }
    }
}
