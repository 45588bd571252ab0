package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.U;

/**
 * Softmax over the last dimension: out = exp(scale x - max) / sum.
 *
 * <p>The exponent errs by e<sub>j</sub> = u (4 |s<sub>j</sub>| + 4 |max|): the scaling (folded with log2 e or not), the
 * subtraction and the reduction of the range round once each; exp adds 4 u. The sum of the exponentials errs by n u and
 * by the mean of the exponents' errors, &Sigma; p<sub>j</sub> (e<sub>j</sub> + 4 u). The division rounds once more.
 */
public final class SoftmaxReference {
    private SoftmaxReference() {}

    /** out[rows, n]. A row of -infinity alone gives 0; a row with a NaN or +infinity gives NaN. */
    public static Expected compute(int rows, int n, float scale, float[] x) {
        Expected expected = Expected.of(rows * n, rows);
        double[] score = new double[n];
        double[] power = new double[n];
        float[] naive = new float[n];
        for (int i = 0; i < rows; i++) {
            double max = Double.NEGATIVE_INFINITY;
            float naiveMax = Float.NEGATIVE_INFINITY;
            for (int j = 0; j < n; j++) {
                score[j] = (double) scale * x[i * n + j];
                max = Math.max(max, score[j]);
                naiveMax = Math.max(naiveMax, scale * x[i * n + j]);
            }
            if (max == Double.NEGATIVE_INFINITY) {
                continue; // expected is 0, exactly
            }
            double sum = 0;
            float naiveSum = 0;
            for (int j = 0; j < n; j++) {
                power[j] = Math.exp(score[j] - max);
                naive[j] = (float) Math.exp(scale * x[i * n + j] - naiveMax);
                sum += power[j];
                naiveSum += naive[j];
            }
            double common = 0;
            for (int j = 0; j < n; j++) {
                common += power[j] / sum * error(score[j], max);
            }
            for (int j = 0; j < n; j++) {
                double value = power[j] / sum;
                double bound = value == 0 ? FLUSH : value * (error(score[j], max) + common + (n + 2) * U) + FLUSH;
                expected.set(i * n + j, value, bound, naive[j] / naiveSum);
            }
        }
        return expected;
    }

    private static double error(double score, double max) {
        return score == Double.NEGATIVE_INFINITY ? 0 : U * (4 * Math.abs(score) + 4 * Math.abs(max) + 4);
    }
}
