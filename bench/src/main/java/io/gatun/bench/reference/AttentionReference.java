package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.ANY;
import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.U;
import static io.gatun.bench.reference.Expected.UNTOUCHED;

import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Attention: out = softmax(scores over the visible keys) v, and the log-sum-exp of the scores.
 *
 * <p>Query i of a sequence sits at position p = i + len_k - len_q. Which keys it sees is said part by part by
 * {@link #sees} and what it calls. The score of key j is t = scale q k<sub>j</sub>, then, each where there is one,
 * c tanh(t / c), - slope |p - j|, + bias, where -infinity masks, + the bias of its block, + the self bias where j = p.
 * A query that sees nothing gives 0 and -infinity. A sink logit z adds exp(z) to the denominator of out alone.
 *
 * <p>With A<sub>j</sub> = |scale| &Sigma;<sub>d</sub> |q<sub>d</sub> k<sub>jd</sub>|, the product t errs by (dk + 6) u
 * A<sub>j</sub>: dk for the sum, the rest for the scale, its folding with log2 e and the range reduction. To that come,
 * as the sum T<sub>j</sub>,
 *
 * <ul>
 *   <li>keys in 8 bits: A<sub>j</sub>, one rounding of each element, or of the sum, by its scale;
 *   <li>softcap: 6 c: tanh has a slope of at most 1, so that it hands on the error of t as it is; the division by c
 *       adds |t| / cosh<sup>2</sup>(t / c) &lt; c, tanh 4 c, the product with c no more than c;
 *   <li>ALiBi: 2 |slope (p - j)|, for the product and the folding with log2 e, and the score after it, |s|, for the
 *       addition;
 *   <li>each bias b: |b| for the folding, and the score after it for the addition; what it is off by itself, over u.
 * </ul>
 *
 * <p>Subtracting the running maximum m adds 2 u (|s<sub>j</sub>| + |m|), which also pays for rescaling by exp(m - m'),
 * since those steps telescope; m counts the sink logit in. An exponential adds 4 u; the sums over n visible keys, with
 * rescaled partial sums, 2 n u, which pays for sums over parts of the keys as well, as n / parts + parts is at most n +
 * 1; the exponential, two products and the division that merge such a part add 8 u. So the weight of key j errs
 * relatively by
 *
 * <pre>e_j = u ((dk + 6) A_j + T_j + 2 (|s_j| + |m|) + 2 n + 16)</pre>
 *
 * and that of the sink by e<sub>z</sub> = u (|z| + 2 (|z| + |m|) + 16). Since an error common to all weights cancels
 * in the division, out errs by &Sigma; p<sub>j</sub> (|v<sub>j</sub>| + |out|) e<sub>j</sub>, p<sub>z</sub> |out|
 * e<sub>z</sub> and 2 u |out|, and where values are in 8 bits by u &Sigma; p<sub>j</sub> |v<sub>j</sub>| more. The
 * log-sum-exp errs by &Sigma; p<sub>j</sub> e<sub>j</sub>, with the p<sub>j</sub> of a softmax without the sink, and
 * 4 u (|m| + |lse| + 1).
 *
 * <p>A value that is not finite is allowed to reach rows that do not see it, if other rows of its sequence that read
 * the same head of it do: such elements may hold anything.
 */
public final class AttentionReference {
    private final int headsQ;
    private final int headsK;
    private final int dk;
    private final int dv;
    private final float scale;
    private List<Pattern> patterns = List.of(Pattern.DENSE);
    private float softcap;
    private float selfBias;
    private float @Nullable [] sinkLogits;
    private float @Nullable [] slopes;
    private int blockQ;
    private int blockK;

    /**
     * What the queries of a head see: the window, and which of a sequence's parts narrow or lift it.
     *
     * @param left keys before the query, in steps of {@code dilation}, -1 for all
     * @param right keys after it, -1 for all
     * @param sinks the first keys that the window does not hide
     */
    public record Pattern(long left, long right, long dilation, long sinks, boolean prefix, boolean globals,
            boolean documents, boolean tree, boolean blocks) {
        /** Every query sees every key. */
        public static final Pattern DENSE = window(-1, -1);

        /** A window alone. */
        public static Pattern window(long left, long right) {
            return new Pattern(left, right, 1, 0, false, false, false, false, false);
        }
    }

    /**
     * An entry in the list of a block of queries.
     *
     * @param column which block of keys
     * @param mask what of the block is seen, [block_q][block_k], or null for all of it
     * @param bias added to the scores of the block
     * @param error what the bias that is added may be off by
     */
    public record Block(int column, boolean @Nullable [][] mask, float bias, double error) {
        /** An entry with just that bias. */
        public Block(int column, boolean @Nullable [][] mask, float bias) {
            this(column, mask, bias, 0);
        }
    }

    /**
     * The keys and values of a run.
     *
     * @param k [rows, heads_k, dk]
     * @param v [rows, heads_k, dv]
     * @param scalesK what each row of k is multiplied by, [rows, heads_k], or null
     * @param scalesV the same for v
     */
    public record Cache(float[] k, float[] v, float @Nullable [] scalesK, float @Nullable [] scalesV) {
        /** Without scales. */
        public Cache(float[] k, float[] v) {
            this(k, v, null, null);
        }
    }

    /**
     * What one run should give.
     *
     * @param out [tokens_q, heads_q, dv]
     * @param lse [tokens_q, heads_q]
     */
    public record Result(Expected out, Expected lse) {}

    /**
     * One sequence: where its tokens lie, and the content of its arrays, each of which is there where a pattern, or the
     * attention, has it. Arrays of labels, lists and orders are for 1, heads_k or heads_q heads.
     */
    public static final class Sequence {
        final int fromQ;
        final int lenQ;
        final int[] rowsK;
        long prefix;
        int[] globals = {};
        int[][][] documentsQ = {};
        int[][][] documentsK = {};
        boolean[][] tree = {};
        Block[][][] blocks = {};
        int[][] ranksQ = {};
        int[][] ranksK = {};
        float[][][] bias = {};

        /**
         * A sequence.
         *
         * @param fromQ the row of q that its first query is
         * @param rowsK the row of k and v that each of its keys is
         */
        public Sequence(int fromQ, int lenQ, int[] rowsK) {
            this.fromQ = fromQ;
            this.lenQ = lenQ;
            this.rowsK = rowsK;
        }

        /** Keys that lie one after the other. */
        public Sequence(int fromQ, int lenQ, int fromK, int lenK) {
            this(fromQ, lenQ, rows(fromK, lenK));
        }

        private static int[] rows(int from, int count) {
            int[] rows = new int[count];
            Arrays.setAll(rows, j -> from + j);
            return rows;
        }

        /** Keys in pages: key j is row j % pageSize of page table[j / pageSize]. */
        public static Sequence paged(int fromQ, int lenQ, int lenK, int[] table, int pageSize) {
            int[] rows = new int[lenK];
            for (int j = 0; j < lenK; j++) {
                rows[j] = table[j / pageSize] * pageSize + j % pageSize;
            }
            return new Sequence(fromQ, lenQ, rows);
        }

        /** The first keys, to which the window's right end does not apply. */
        public Sequence prefix(long length) {
            prefix = length;
            return this;
        }

        /** The positions of its global tokens. */
        public Sequence globals(int... positions) {
            globals = positions;
            return this;
        }

        /** Labels of queries and keys, [layers][heads][length]. */
        public Sequence documents(int[][][] queries, int[][][] keys) {
            documentsQ = queries;
            documentsK = keys;
            return this;
        }

        /** Which of the last len_q keys a query follows, [len_q][len_q]. */
        public Sequence tree(boolean[][] follows) {
            tree = follows;
            return this;
        }

        /** The lists, [heads][blocks of queries][entries]. */
        public Sequence blocks(Block[][][] lists) {
            blocks = lists;
            return this;
        }

        /** Queries and keys in the order in which blocks count them, [heads][length]; -1 where a key is left out. */
        public Sequence orders(int[][] queries, int[][] keys) {
            ranksQ = ranks(queries, lenQ);
            ranksK = ranks(keys, rowsK.length);
            return this;
        }

        private static int[][] ranks(int[][] orders, int length) {
            int[][] ranks = new int[orders.length][length];
            for (int head = 0; head < orders.length; head++) {
                Arrays.fill(ranks[head], -1);
                for (int at = 0; at < orders[head].length; at++) {
                    if (orders[head][at] >= 0) {
                        ranks[head][orders[head][at]] = at;
                    }
                }
            }
            return ranks;
        }

        /** The additive bias, [heads_q][len_q][len_k]. */
        public Sequence bias(float[][][] scores) {
            bias = scores;
            return this;
        }

        /** The number of queries. */
        public int lenQ() {
            return lenQ;
        }

        /** The number of keys. */
        public int lenK() {
            return rowsK.length;
        }

        /** The row of k and v that a key is. */
        public int rowK(int key) {
            return rowsK[key];
        }
    }

    /** Attention without anything but a scale, in which every query sees every key. */
    public AttentionReference(int headsQ, int headsK, int dk, int dv, float scale) {
        this.headsQ = headsQ;
        this.headsK = headsK;
        this.dk = dk;
        this.dv = dv;
        this.scale = scale;
    }

    /** What all heads see, or each of heads_q. */
    public AttentionReference patterns(List<Pattern> ofHeads) {
        patterns = ofHeads;
        return this;
    }

    /** The sizes of the blocks that lists are made of. */
    public AttentionReference blocks(int queries, int keys) {
        blockQ = queries;
        blockK = keys;
        return this;
    }

    /** Bends scores to (-cap, cap); 0 for none. */
    public AttentionReference softcap(float cap) {
        softcap = cap;
        return this;
    }

    /** Adds to the score of a query's own position. */
    public AttentionReference selfBias(float bias) {
        selfBias = bias;
        return this;
    }

    /** The logit of each of heads_q that takes a share of the softmax and has no value. */
    public AttentionReference sinkLogits(float @Nullable [] ofHeads) {
        sinkLogits = ofHeads;
        return this;
    }

    /** ALiBi: what a step of distance takes from the score, for each of heads_q. */
    public AttentionReference slopes(float @Nullable [] ofHeads) {
        slopes = ofHeads;
        return this;
    }

    /**
     * Computes every sequence; tokens of no sequence are {@link Expected#UNTOUCHED}.
     *
     * @param tokensQ rows of the output
     * @param q [tokens_q, heads_q, dk]
     */
    public Result compute(int tokensQ, List<Sequence> sequences, float[] q, Cache cache) {
        long rows = headsQ * sequences.stream().mapToLong(Sequence::lenQ).sum();
        Expected out = Expected.of(tokensQ * headsQ * dv, rows);
        Expected lse = Expected.of(tokensQ * headsQ, rows);
        Arrays.fill(out.bound(), UNTOUCHED);
        Arrays.fill(lse.bound(), UNTOUCHED);
        Row row = new Row(q, cache, out, lse);
        for (Sequence sequence : sequences) {
            for (int head = 0; head < headsQ; head++) {
                for (int i = 0; i < sequence.lenQ; i++) {
                    row.compute(sequence, head, i);
                }
            }
            spillNonFinite(sequence, cache, out);
        }
        return new Result(out, lse);
    }

    // ---- Which keys a query sees

    /** Whether query i of a sequence sees key j, in a head of heads_q: what every part of the head's pattern admits. */
    public boolean sees(Sequence sequence, int head, int i, int j) {
        Pattern pattern = patterns.get(patterns.size() == 1 ? 0 : head);
        return window(pattern, sequence, i, j)
                && ordered(sequence, head, j)
                && (!pattern.documents || documents(sequence, head, i, j))
                && (!pattern.tree || tree(sequence, i, j))
                && (!pattern.blocks || block(sequence, head, i, j) != null);
    }

    /** Whether the additive bias masks key j for query i. */
    public boolean masked(Sequence sequence, int head, int i, int j) {
        return bias(sequence, head, i, j) == Float.NEGATIVE_INFINITY;
    }

    private static float bias(Sequence sequence, int head, int i, int j) {
        return sequence.bias.length == 0 ? 0 : sequence.bias[head][i][j];
    }

    private static long position(Sequence sequence, int i) {
        return (long) i + sequence.lenK() - sequence.lenQ;
    }

    /**
     * p - left dilation &le; j &le; p + right dilation, in steps of the dilation. Sinks, and global tokens on either
     * side, lift all of it but causality; a prefix lifts the right end, causality too.
     */
    private static boolean window(Pattern pattern, Sequence sequence, int i, int j) {
        long p = position(sequence, i);
        boolean lifted = j < pattern.sinks || pattern.globals && (global(sequence, j) || global(sequence, p));
        boolean causal = pattern.right == 0;
        boolean afterLeft = lifted || pattern.left < 0 || j >= p - reach(pattern.left, pattern.dilation);
        boolean beforeRight = pattern.prefix && j < sequence.prefix
                || pattern.right < 0
                || (lifted && !causal)
                || j <= p + reach(pattern.right, pattern.dilation);
        boolean onStep = lifted || (j - p) % pattern.dilation == 0;
        return afterLeft && beforeRight && onStep;
    }

    /** How far that many steps go; beyond every sequence it is all one. */
    private static long reach(long steps, long dilation) {
        long endless = 1L << 40;
        return steps > endless / dilation ? endless : steps * dilation;
    }

    private static boolean global(Sequence sequence, long position) {
        for (int global : sequence.globals) {
            if (global == position) {
                return true;
            }
        }
        return false;
    }

    /** A key that the order leaves out is not seen. */
    private boolean ordered(Sequence sequence, int head, int j) {
        return sequence.ranksK.length == 0 || sequence.ranksK[shared(head, sequence.ranksK.length)][j] >= 0;
    }

    /** The labels agree in the last layer, and differ in each layer before. */
    private boolean documents(Sequence sequence, int head, int i, int j) {
        int layers = sequence.documentsQ.length;
        for (int layer = 0; layer < layers; layer++) {
            int label = shared(head, sequence.documentsQ[layer].length);
            boolean same = sequence.documentsQ[layer][label][i] == sequence.documentsK[layer][label][j];
            if (same != (layer == layers - 1)) {
                return false;
            }
        }
        return true;
    }

    /** Before the drafted tokens everything, of them those that the query follows. */
    private static boolean tree(Sequence sequence, int i, int j) {
        int drafted = j - (sequence.lenK() - sequence.lenQ);
        return drafted < 0 || sequence.tree[i][drafted];
    }

    /** The entry that shows key j to query i, or null. */
    private @Nullable Block block(Sequence sequence, int head, int i, int j) {
        int order = sequence.ranksQ.length == 0 ? 0 : shared(head, sequence.ranksQ.length);
        int rankQ = sequence.ranksQ.length == 0 ? i : sequence.ranksQ[order][i];
        int rankK = sequence.ranksK.length == 0 ? j : sequence.ranksK[order][j];
        for (Block entry : sequence.blocks[shared(head, sequence.blocks.length)][rankQ / blockQ]) {
            if (entry.column == rankK / blockK) {
                return entry.mask == null || entry.mask[rankQ % blockQ][rankK % blockK] ? entry : null;
            }
        }
        return null;
    }

    /** Which of 1, heads_k or heads_q arrays a head of heads_q has. */
    private int shared(int head, int arrays) {
        return arrays == 1 ? 0 : arrays == headsQ ? head : headK(head);
    }

    private int headK(int head) {
        return head / (headsQ / headsK);
    }

    // ---- What a row gives

    /** One query of one head. */
    private final class Row {
        private final float[] q;
        private final Cache cache;
        private final Expected out;
        private final Expected lse;
        private int n;
        private int[] keys = {};
        private double[] score = {};
        private double[] error = {};
        private float[] naive = {};

        Row(float[] q, Cache cache, Expected out, Expected lse) {
            this.q = q;
            this.cache = cache;
            this.out = out;
            this.lse = lse;
        }

        void compute(Sequence sequence, int head, int i) {
            if (keys.length < sequence.lenK()) {
                keys = new int[sequence.lenK()];
                score = new double[sequence.lenK()];
                error = new double[sequence.lenK()];
                naive = new float[sequence.lenK()];
            }
            n = 0;
            for (int j = 0; j < sequence.lenK(); j++) {
                if (sees(sequence, head, i, j) && !masked(sequence, head, i, j)) {
                    score(sequence, head, i, j);
                }
            }
            int rowQ = (sequence.fromQ + i) * headsQ + head;
            if (n == 0) {
                lse.set(rowQ, Double.NEGATIVE_INFINITY, 0, Float.NEGATIVE_INFINITY);
                for (int d = 0; d < dv; d++) {
                    out.set(rowQ * dv + d, 0, 0, 0);
                }
            } else {
                softmax(sequence, head, rowQ);
            }
        }

        /** The score of a visible key, its error but for what depends on other keys, and the same in FP32. */
        private void score(Sequence sequence, int head, int i, int j) {
            int rowQ = (sequence.fromQ + i) * headsQ + head;
            int rowK = sequence.rowsK[j] * headsK + headK(head);
            double scaleK = cache.scalesK == null ? 1 : cache.scalesK[rowK];
            double sum = 0;
            double absolute = 0;
            float naiveSum = 0;
            for (int d = 0; d < dk; d++) {
                float x = q[rowQ * dk + d];
                double y = scaleK * cache.k[rowK * dk + d];
                sum += x * y;
                absolute += Math.abs(x * y);
                naiveSum += x * (float) y;
            }
            double s = scale * sum;
            float f = scale * naiveSum;
            double e = (dk + (cache.scalesK == null ? 6 : 7)) * Math.abs(scale) * absolute;
            if (softcap != 0) {
                s = softcap * Math.tanh(s / softcap);
                f = softcap * (float) Math.tanh(f / softcap);
                e += 6 * softcap;
            }
            long distance = Math.abs(position(sequence, i) - j);
            if (slopes != null) {
                s -= slopes[head] * (double) distance;
                f -= slopes[head] * distance;
                e += 2 * Math.abs(slopes[head] * (double) distance) + Math.abs(s);
            }
            Pattern pattern = patterns.get(patterns.size() == 1 ? 0 : head);
            Block block = pattern.blocks ? block(sequence, head, i, j) : null;
            float[] biases = {
                bias(sequence, head, i, j), block == null ? 0 : block.bias, distance == 0 ? selfBias : 0
            };
            for (float bias : biases) {
                if (bias != 0) {
                    s += bias;
                    f += bias;
                    e += Math.abs(bias) + Math.abs(s);
                }
            }
            e += block == null ? 0 : block.error / U;
            keys[n] = j;
            score[n] = s;
            error[n] = e + 2 * Math.abs(s);
            naive[n++] = f;
        }

        private void softmax(Sequence sequence, int head, int rowQ) {
            double max = Double.NEGATIVE_INFINITY;
            float naiveMax = Float.NEGATIVE_INFINITY;
            for (int j = 0; j < n; j++) {
                max = Math.max(max, score[j]);
                naiveMax = Math.max(naiveMax, naive[j]);
            }
            double sink = sinkLogits == null ? Double.NEGATIVE_INFINITY : sinkLogits[head];
            double largest = Math.max(Math.abs(max), sinkLogits == null ? 0 : Math.abs(sink));
            double total = 0;
            float naiveTotal = 0;
            double mean = 0;
            for (int j = 0; j < n; j++) {
                error[j] = U * (error[j] + 2 * largest + 2 * n + 16);
                score[j] = Math.exp(score[j] - max);
                naive[j] = (float) Math.exp(naive[j] - naiveMax);
                total += score[j];
                naiveTotal += naive[j];
                mean += score[j] * error[j];
            }
            double logSum = max + Math.log(total);
            double logError = mean / total + 4 * U * (Math.abs(max) + Math.abs(logSum) + 1);
            lse.set(rowQ, logSum, logError, naiveMax + (float) Math.log(naiveTotal));
            if (sinkLogits != null) {
                // Relative to the larger of the two: the sink may be far above all keys, or far below.
                double top = Math.max(max, sink);
                double share = Math.exp(sink - top);
                double shrink = Math.exp(max - top);
                float naiveTop = Math.max(naiveMax, (float) sink);
                float naiveShrink = (float) Math.exp(naiveMax - naiveTop);
                for (int j = 0; j < n; j++) {
                    score[j] *= shrink;
                    naive[j] *= naiveShrink;
                }
                mean = mean * shrink + share * U * (3 * Math.abs(sink) + 2 * largest + 16);
                total = total * shrink + share;
                naiveTotal = naiveTotal * naiveShrink + (float) Math.exp((float) sink - naiveTop);
            }
            values(sequence, head, rowQ, total, naiveTotal, mean / total);
        }

        private void values(Sequence sequence, int head, int rowQ, double total, float naiveTotal, double mean) {
            double[] sum = new double[dv];
            double[] spread = new double[dv];
            float[] naiveOut = new float[dv];
            for (int j = 0; j < n; j++) {
                int rowV = sequence.rowsK[keys[j]] * headsK + headK(head);
                double scaleV = cache.scalesV == null ? 1 : cache.scalesV[rowV];
                double p = score[j] / total;
                double off = p * (error[j] + (cache.scalesV == null ? 0 : U)) + FLUSH;
                for (int d = 0; d < dv; d++) {
                    double value = scaleV * cache.v[rowV * dv + d];
                    sum[d] += p * value;
                    spread[d] += Math.abs(value) * off;
                    naiveOut[d] += naive[j] * (float) value;
                }
            }
            for (int d = 0; d < dv; d++) {
                double bound = spread[d] + Math.abs(sum[d]) * (mean + n * FLUSH + 2 * U);
                out.set(rowQ * dv + d, sum[d], bound, naiveOut[d] / naiveTotal);
            }
        }
    }

    // ---- Where values that are not finite may get to

    /** Where a value that is not finite is seen by some rows, the others may hold anything in that column. */
    private void spillNonFinite(Sequence sequence, Cache cache, Expected out) {
        for (int j = 0; j < sequence.lenK(); j++) {
            for (int headK = 0; headK < headsK; headK++) {
                int rowV = sequence.rowsK[j] * headsK + headK;
                boolean scaled = cache.scalesV == null || Float.isFinite(cache.scalesV[rowV]);
                boolean[] columns = new boolean[dv];
                boolean any = false;
                for (int d = 0; d < dv; d++) {
                    columns[d] = !scaled || !Float.isFinite(cache.v[rowV * dv + d]);
                    any |= columns[d];
                }
                if (any) {
                    spill(sequence, j, headK, columns, out);
                }
            }
        }
    }

    private void spill(Sequence sequence, int key, int headK, boolean[] columns, Expected out) {
        int group = headsQ / headsK;
        boolean seen = false;
        for (int head = headK * group; head < (headK + 1) * group; head++) {
            for (int i = 0; i < sequence.lenQ; i++) {
                seen |= sees(sequence, head, i, key);
            }
        }
        for (int head = headK * group; seen && head < (headK + 1) * group; head++) {
            for (int i = 0; i < sequence.lenQ; i++) {
                boolean reached = masked(sequence, head, i, key) || !sees(sequence, head, i, key);
                for (int d = 0; d < dv; d++) {
                    if (reached && columns[d]) {
                        int index = ((sequence.fromQ + i) * headsQ + head) * dv + d;
                        out.set(index, out.value()[index], ANY, Float.NaN);
                    }
                }
            }
        }
    }
}
