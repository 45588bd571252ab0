package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.ANY;
import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.U;
import static io.gatun.bench.reference.Expected.UNTOUCHED;

import java.util.Arrays;
import java.util.List;

/**
 * Attention: out = softmax(scale q k<sup>T</sup> over the visible keys) v, and the log-sum-exp of the scaled scores.
 *
 * <p>Query i of a sequence sits at position p = i + len_k - len_q and sees the keys p - left &le; j &le; p + right; -1
 * is unlimited. A query that sees nothing gives 0 and -infinity.
 *
 * <p>With A<sub>j</sub> = |scale| &Sigma;<sub>d</sub> |q<sub>d</sub> k<sub>jd</sub>|, a score errs by (dk + 6) u
 * A<sub>j</sub>: dk for the product, the rest for the scale, its folding with log2 e and the range reduction.
 * Subtracting the running maximum m adds 2 u (|s<sub>j</sub>| + |m|), which also pays for rescaling by exp(m - m'),
 * since those steps telescope. An exponential adds 4 u; the sums over n visible keys, with rescaled partial sums, 2 n
 * u. So the weight of key j errs relatively by
 *
 * <pre>e_j = u ((dk + 6) A_j + 2 (|s_j| + |m|) + 2 n + 8)</pre>
 *
 * and, since an error common to all weights cancels in the division, out errs by &Sigma; p<sub>j</sub>
 * (|v<sub>j</sub>| + |out|) e<sub>j</sub> + 2 u |out|. The log-sum-exp errs by &Sigma; p<sub>j</sub> e<sub>j</sub> and
 * 4 u (|m| + |lse| + 1).
 *
 * <p>A value that is not finite is allowed to reach rows that do not see it, if other rows of its sequence do: such
 * elements may hold anything.
 */
public final class AttentionReference {
    private final int headsQ;
    private final int headsK;
    private final int dk;
    private final int dv;
    private final long left;
    private final long right;
    private final float scale;

    /** One sequence: where its tokens start in q and in k and v, and how many it has. */
    public record Sequence(int fromQ, int lenQ, int fromK, int lenK) {}

    /**
     * What one run should give.
     *
     * @param out [tokens_q, heads_q, dv]
     * @param lse [tokens_q, heads_q]
     */
    public record Result(Expected out, Expected lse) {}

    /** Attention with windows of {@code left} and {@code right} keys, -1 for unlimited. */
    public AttentionReference(int headsQ, int headsK, int dk, int dv, long left, long right, float scale) {
        this.headsQ = headsQ;
        this.headsK = headsK;
        this.dk = dk;
        this.dv = dv;
        this.left = left;
        this.right = right;
        this.scale = scale;
    }

    /**
     * Computes every sequence; tokens of no sequence are {@link Expected#UNTOUCHED}.
     *
     * @param tokensQ rows of the output
     * @param q [tokens_q, heads_q, dk]
     * @param k [tokens_k, heads_k, dk]
     * @param v [tokens_k, heads_k, dv]
     */
    public Result compute(int tokensQ, List<Sequence> sequences, float[] q, float[] k, float[] v) {
        long rows = headsQ * sequences.stream().mapToLong(Sequence::lenQ).sum();
        Expected out = Expected.of(tokensQ * headsQ * dv, rows);
        Expected lse = Expected.of(tokensQ * headsQ, rows);
        Arrays.fill(out.bound(), UNTOUCHED);
        Arrays.fill(lse.bound(), UNTOUCHED);
        for (Sequence sequence : sequences) {
            for (int head = 0; head < headsQ; head++) {
                for (int i = 0; i < sequence.lenQ(); i++) {
                    row(sequence, head, i, q, k, v, out, lse);
                }
            }
            spillNonFinite(sequence, v, out);
        }
        return new Result(out, lse);
    }

    private int firstKey(Sequence sequence, int i) {
        long position = (long) i + sequence.lenK() - sequence.lenQ();
        return left < 0 ? 0 : Math.clamp(position - left, 0, sequence.lenK());
    }

    private int endKey(Sequence sequence, int i) {
        long position = (long) i + sequence.lenK() - sequence.lenQ();
        return right < 0 ? sequence.lenK() : Math.clamp(position + right + 1, 0, sequence.lenK());
    }

    private void row(Sequence sequence, int head, int i, float[] q, float[] k, float[] v, Expected out, Expected lse) {
        int rowQ = (sequence.fromQ() + i) * headsQ + head;
        int headK = head / (headsQ / headsK);
        int first = firstKey(sequence, i);
        int n = Math.max(0, endKey(sequence, i) - first);
        if (n == 0) {
            lse.set(rowQ, Double.NEGATIVE_INFINITY, 0, Float.NEGATIVE_INFINITY);
            for (int d = 0; d < dv; d++) {
                out.set(rowQ * dv + d, 0, 0, 0);
            }
            return;
        }
        double[] score = new double[n];
        double[] magnitude = new double[n];
        float[] naive = new float[n];
        double max = Double.NEGATIVE_INFINITY;
        float naiveMax = Float.NEGATIVE_INFINITY;
        for (int j = 0; j < n; j++) {
            int rowK = (sequence.fromK() + first + j) * headsK + headK;
            double sum = 0;
            double absolute = 0;
            float naiveSum = 0;
            for (int d = 0; d < dk; d++) {
                float x = q[rowQ * dk + d];
                float y = k[rowK * dk + d];
                double product = (double) x * y;
                sum += product;
                absolute += Math.abs(product);
                naiveSum += x * y;
            }
            score[j] = scale * sum;
            magnitude[j] = Math.abs(scale) * absolute;
            naive[j] = scale * naiveSum;
            max = Math.max(max, score[j]);
            naiveMax = Math.max(naiveMax, naive[j]);
        }
        double total = 0;
        float naiveTotal = 0;
        double[] error = new double[n];
        double mean = 0;
        for (int j = 0; j < n; j++) {
            error[j] = U * ((dk + 6) * magnitude[j] + 2 * (Math.abs(score[j]) + Math.abs(max)) + 2 * n + 8);
            score[j] = Math.exp(score[j] - max);
            naive[j] = (float) Math.exp(naive[j] - naiveMax);
            total += score[j];
            naiveTotal += naive[j];
        }
        double[] sum = new double[dv];
        double[] spread = new double[dv];
        float[] naiveOut = new float[dv];
        for (int j = 0; j < n; j++) {
            int rowV = (sequence.fromK() + first + j) * headsK + headK;
            double p = score[j] / total;
            mean += p * error[j];
            for (int d = 0; d < dv; d++) {
                double value = v[rowV * dv + d];
                sum[d] += p * value;
                spread[d] += Math.abs(value) * (p * error[j] + FLUSH);
                naiveOut[d] += naive[j] * v[rowV * dv + d];
            }
        }
        for (int d = 0; d < dv; d++) {
            double bound = spread[d] + Math.abs(sum[d]) * (mean + n * FLUSH + 2 * U);
            out.set(rowQ * dv + d, sum[d], bound, naiveOut[d] / naiveTotal);
        }
        double logSum = max + Math.log(total);
        double logError = mean + 4 * U * (Math.abs(max) + Math.abs(logSum) + 1);
        lse.set(rowQ, logSum, logError, naiveMax + (float) Math.log(naiveTotal));
    }

    /** Where a value that is not finite is seen by some rows, the others may hold anything in that column. */
    private void spillNonFinite(Sequence sequence, float[] v, Expected out) {
        for (int j = 0; j < sequence.lenK(); j++) {
            for (int head = 0; head < headsQ; head++) {
                int headK = head / (headsQ / headsK);
                for (int d = 0; d < dv; d++) {
                    if (!Float.isFinite(v[((sequence.fromK() + j) * headsK + headK) * dv + d])) {
                        spill(sequence, j, head, d, out);
                    }
                }
            }
        }
    }

    private void spill(Sequence sequence, int key, int head, int d, Expected out) {
        boolean seen = false;
        for (int i = 0; i < sequence.lenQ(); i++) {
            seen |= sees(sequence, i, key);
        }
        for (int i = 0; seen && i < sequence.lenQ(); i++) {
            if (!sees(sequence, i, key)) {
                int index = ((sequence.fromQ() + i) * headsQ + head) * dv + d;
                out.set(index, out.value()[index], ANY, Float.NaN);
            }
        }
    }

    /** Whether query i of a sequence sees a key. */
    public boolean sees(Sequence sequence, int i, int key) {
        return firstKey(sequence, i) <= key && key < endKey(sequence, i);
    }
}
