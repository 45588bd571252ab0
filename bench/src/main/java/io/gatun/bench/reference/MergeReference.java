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
 * <p>Parts and log-sum-exps may be off themselves, by b<sub>i</sub> and c<sub>i</sub>, where operators before made
 * them. A part then adds w<sub>i</sub> b<sub>i</sub>. Its weight is 1 / (w<sub>i</sub> + &Sigma;<sub>j &ne; i</sub>
 * w<sub>j</sub> e<sup>d<sub>j</sub> - d<sub>i</sub></sup>) times as large, with |d| &le; c, and so off by no more than
 * S<sub>i</sub> / (1 - S<sub>i</sub>) of itself with S<sub>i</sub> = &Sigma;<sub>j &ne; i</sub> w<sub>j</sub>
 * (e<sup>c<sub>i</sub> + c<sub>j</sub></sup> - 1); where there is a sink, it is one of the others, with c = 0. The
 * log-sum-exp adds &Sigma; p<sub>j</sub> (e<sup>c<sub>j</sub></sup> - 1).
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
        return compute(parts, rows, n, Expected.exact(x), Expected.exact(lse), sink);
    }

    /** The same of parts that operators before made, as they may be. */
    public static Result compute(int parts, int rows, int n, Expected x, Expected lse, float @Nullable [] sink) {
        Result result = new Result(Expected.of(rows * n, rows), Expected.of(rows, rows));
        for (int row = 0; row < rows; row++) {
            row(parts, rows, n, row, x, lse, sink, result);
        }
        return result;
    }

    private static void row(int parts, int rows, int n, int row, Expected x, Expected lse, float @Nullable [] sinks,
            Result result) {
        double own = Double.NEGATIVE_INFINITY;
        float naiveOwn = Float.NEGATIVE_INFINITY;
        for (int part = 0; part < parts; part++) {
            own = Math.max(own, lse.value()[part * rows + row]); // NaN stays
            naiveOwn = Math.max(naiveOwn, lse.naive()[part * rows + row]);
        }
        if (own == Double.NEGATIVE_INFINITY) {
            result.lse.set(row, own, 0, (float) own);
            return; // out is 0, exactly
        }
        double sink = sinks == null ? Double.NEGATIVE_INFINITY : sinks[row];
        double max = Math.max(own, sink);
        float naiveMax = Math.max(naiveOwn, (float) sink);
        double sum = 0;
        double ownSum = 0;
        float naiveSum = 0;
        float naiveOwnSum = 0;
        for (int part = 0; part < parts; part++) {
            double l = lse.value()[part * rows + row];
            sum += Math.exp(l - max);
            ownSum += Math.exp(l - own);
            naiveSum += (float) Math.exp(lse.naive()[part * rows + row] - naiveMax);
            naiveOwnSum += (float) Math.exp(lse.naive()[part * rows + row] - naiveOwn);
        }
        sum += Math.exp(sink - max);
        naiveSum += (float) Math.exp((float) sink - naiveMax);
        double common = Math.exp(sink - max) / sum * error(sink, max);
        double ownError = 0;
        for (int part = 0; part < parts; part++) {
            double l = lse.value()[part * rows + row];
            common += Math.exp(l - max) / sum * error(l, max);
            ownError += Math.exp(l - own) / ownSum * (error(l, own) + Math.expm1(lse.bound()[part * rows + row]));
        }
        double total = own + Math.log(ownSum);
        double bound = ownError + parts * U + 4 * U * (Math.abs(own) + Math.abs(total) + 1);
        result.lse.set(row, total, bound, naiveOwn + (float) Math.log(naiveOwnSum));
        common += (2 * parts + 12) * U + (sinks == null ? 0 : 2 * error(own, max));
        double[] given = given(parts, rows, row, lse, max, sum, sink);
        for (int j = 0; j < n; j++) {
            double value = 0;
            double error = TINY;
            float naive = 0;
            for (int part = 0; part < parts; part++) {
                double l = lse.value()[part * rows + row];
                if (l == Double.NEGATIVE_INFINITY) {
                    continue;
                }
                int at = (part * rows + row) * n + j;
                double element = x.value()[at];
                double off = x.bound()[at];
                double weight = Math.exp(l - max) / sum;
                value += weight * element;
                error += (Math.abs(element) + off) * (weight * (error(l, max) + common + given[part]) + FLUSH);
                error += weight * off;
                naive += (float) Math.exp(lse.naive()[part * rows + row] - naiveMax) / naiveSum * x.naive()[at];
            }
            result.out.set(row * n + j, value, error, naive);
        }
    }

    /** What each weight is off by, as a part of it, because log-sum-exps are. */
    private static double[] given(int parts, int rows, int row, Expected lse, double max, double sum, double sink) {
        double[] given = new double[parts];
        for (int part = 0; part < parts; part++) {
            double own = lse.bound()[part * rows + row];
            double others = Math.exp(sink - max) / sum * Math.expm1(own);
            for (int other = 0; other < parts; other++) {
                int at = other * rows + row;
                others += other == part ? 0 : Math.exp(lse.value()[at] - max) / sum * Math.expm1(own + lse.bound()[at]);
            }
            given[part] = others < 1 ? others / (1 - others) : Double.POSITIVE_INFINITY;
        }
        return given;
    }

    private static double error(double exponent, double max) {
        return exponent == Double.NEGATIVE_INFINITY ? 0 : U * (4 * Math.abs(exponent) + 4 * Math.abs(max) + 4);
    }
}
