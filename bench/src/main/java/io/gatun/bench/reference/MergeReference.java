package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import org.jspecify.annotations.Nullable;

/**
 * Merge of attention over parts of the keys: out = &Sigma; e<sup>l<sub>i</sub></sup> x<sub>i</sub> /
 * (&Sigma; e<sup>l<sub>i</sub></sup> + e<sup>sink</sup>), and lse = log &Sigma; e<sup>l<sub>i</sub></sup>, without the
 * sink.
 *
 * <p>An exponent errs by e<sub>i</sub> = u (4 |l<sub>i</sub>| + 4 |m|) with m the maximum, the sink's included: the
 * scaling by log2 e, on its own or in the difference to the maximum, the difference and the reduction of the range
 * round once each; exp adds 4 u. The sum of n exponentials errs by n u and by the mean of its terms' errors, c =
 * &Sigma; p<sub>i</sub> (e<sub>i</sub> + 4 u). A merge relative to the maximum m' of the parts alone, with the sink
 * brought in by a factor of its own, errs by that factor's s = u (4 |m'| + 4 |m| + 4) as well, twice: in the weight and
 * in the sum. With the quotient, two products, and n additions of weighted parts,
 *
 * <pre>
 * &Sigma; w<sub>i</sub> |x<sub>i</sub>| (e<sub>i</sub> + c + (2 n + 12) u + [2 s]) + 2<sup>-126</sup> &Sigma;
 * |x<sub>i</sub>|
 * </pre>
 *
 * with the bracketed terms where there is a sink, and a weight below 2<sup>-126</sup> that may count as zero. The
 * log-sum-exp errs by c + n u of the parts alone and by 4 u (|m| + |lse| + 1).
 *
 * <p>What a part holds that is not finite must be weighted by more than FP32 can lose: a weight that rounds to zero
 * leaves it open whether the result is finite.
 */
public final class MergeReference {
    private MergeReference() {}

    /**
     * What a merge gives.
     *
     * @param out [rows, n]
     * @param lse [rows]
     */
    public record Result(Expected out, Expected lse) {}

    /**
     * Merges rows, each a token's head. A part whose log-sum-exp is -infinity has no share, whatever it holds; a row of
     * them gives 0 and -infinity; a NaN or +infinity among the log-sum-exps gives NaN.
     *
     * @param x [parts, rows, n]
     * @param lse [parts, rows]
     * @param sink the sink logit of each row, or null
     */
    public static Result compute(int parts, int rows, int n, float[] x, float[] lse, float @Nullable [] sink) {
        Result result = new Result(Expected.of(rows * n, rows), Expected.of(rows, rows));
        for (int row = 0; row < rows; row++) {
            row(parts, rows, n, row, x, lse, sink, result);
        }
        return result;
    }

    private static void row(int parts, int rows, int n, int row, float[] x, float[] lse, float @Nullable [] sinks,
            Result result) {
        double own = Double.NEGATIVE_INFINITY;
        for (int part = 0; part < parts; part++) {
            own = Math.max(own, lse[part * rows + row]); // NaN stays
        }
        if (own == Double.NEGATIVE_INFINITY) {
            result.lse.set(row, own, 0, (float) own);
            return; // out is 0, exactly
        }
        double sink = sinks == null ? Double.NEGATIVE_INFINITY : sinks[row];
        double max = Math.max(own, sink);
        double sum = 0;
        double ownSum = 0;
        float naiveSum = 0;
        float naiveOwnSum = 0;
        for (int part = 0; part < parts; part++) {
            float l = lse[part * rows + row];
            sum += Math.exp(l - max);
            ownSum += Math.exp(l - own);
            naiveSum += (float) Math.exp(l - (float) max);
            naiveOwnSum += (float) Math.exp(l - (float) own);
        }
        sum += Math.exp(sink - max);
        naiveSum += (float) Math.exp((float) sink - (float) max);
        double common = Math.exp(sink - max) / sum * error(sink, max);
        double ownError = 0;
        for (int part = 0; part < parts; part++) {
            float l = lse[part * rows + row];
            common += Math.exp(l - max) / sum * error(l, max);
            ownError += Math.exp(l - own) / ownSum * error(l, own);
        }
        double total = own + Math.log(ownSum);
        double bound = ownError + parts * U + 4 * U * (Math.abs(own) + Math.abs(total) + 1);
        result.lse.set(row, total, bound, (float) own + (float) Math.log(naiveOwnSum));
        common += (2 * parts + 12) * U + (sinks == null ? 0 : 2 * error(own, max));
        for (int j = 0; j < n; j++) {
            double value = 0;
            double error = TINY;
            float naive = 0;
            for (int part = 0; part < parts; part++) {
                float l = lse[part * rows + row];
                if (l == Float.NEGATIVE_INFINITY) {
                    continue;
                }
                float element = x[(part * rows + row) * n + j];
                double weight = Math.exp(l - max) / sum;
                value += weight * element;
                error += Math.abs(element) * (weight * (error(l, max) + common) + FLUSH);
                naive += (float) Math.exp(l - (float) max) / naiveSum * element;
            }
            result.out.set(row * n + j, value, error, naive);
        }
    }

    private static double error(double exponent, double max) {
        return exponent == Double.NEGATIVE_INFINITY ? 0 : U * (4 * Math.abs(exponent) + 4 * Math.abs(max) + 4);
    }
}
