package io.gatun.bench.reference;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Selection of keys, in plain loops over rows of FP64. Which of two numbers is greater may depend on how FP32 rounds:
 * where it could, the answer is {@link #UNSURE} or null, so that cases can be made of data whose answer is one.
 *
 * <p>With u = 2<sup>-24</sup>, a product of n terms is off by n + 1 roundings of the sum of their magnitudes.
 */
public final class SelectionReference {
    /** What rounding may decide. */
    public static final int UNSURE = -1;

    private static final double U = Expected.U;

    private SelectionReference() {}

    /** The output function of SplitMix64. */
    private static long mix(long state) {
        long z = state + 0x9e3779b97f4a7c15L;
        z = (z ^ z >>> 30) * 0xbf58476d1ce4e5b9L;
        z = (z ^ z >>> 27) * 0x94d049bb133111ebL;
        return z ^ z >>> 31;
    }

    /** An entry of the random rotation of a layer and head, which has {@code columns} columns. */
    public static double rotation(long seed, int layer, int head, int d, int b, int columns) {
        long base = mix(mix(mix(seed) + layer) + head);
        return (Long.bitCount(mix(base + (long) d * columns + b)) - 32) / 4.0;
    }

    /**
     * The label of x by angular hashing: the argmax of [x R; -x R], of equal products the lower.
     *
     * @return the label, or {@link #UNSURE}
     */
    public static int label(double[] x, long seed, int layer, int head, int buckets) {
        int columns = buckets / 2;
        double[] product = new double[buckets];
        double[] error = new double[buckets];
        int best = 0;
        for (int b = 0; b < columns; b++) {
            double magnitude = 0;
            for (int d = 0; d < x.length; d++) {
                double term = x[d] * rotation(seed, layer, head, d, b, columns);
                product[b] += term;
                magnitude += Math.abs(term);
            }
            product[columns + b] = -product[b];
            error[b] = error[columns + b] = 1.01 * (x.length + 1) * U * magnitude;
        }
        for (int b = 1; b < buckets; b++) {
            best = product[b] > product[best] ? b : best;
        }
        for (int b = 0; b < buckets; b++) {
            double slack = error[b] + error[best];
            if (b != best && slack > 0 && product[b] + slack >= product[best]) {
                return UNSURE;
            }
        }
        return best;
    }

    /** Positions by their label in the last of some layers, then by that in the one before and so on, then as they are. */
    public static int[] order(int[]... layers) {
        Comparator<Integer> byLabels = Comparator.comparing(i -> layers[layers.length - 1][i]);
        for (int layer = layers.length - 2; layer >= 0; layer--) {
            int[] labels = layers[layer];
            byLabels = byLabels.thenComparing(i -> labels[i]);
        }
        return IntStream.range(0, layers[0].length)
                .boxed()
                .sorted(byLabels) // stable
                .mapToInt(Integer::intValue)
                .toArray();
    }

    /** The order of queries with labels in these layers. */
    public static int[] queryOrder(int[][] layers, boolean causal) {
        return causal ? order(layers[layers.length - 1]) : order(layers);
    }

    /**
     * The list of a block of queries by their labels and those of the keys.
     *
     * @param layers labels of the queries in each layer
     * @param kLabels labels of the keys in the last layer
     * @param first the block's first slot in the order of the queries
     * @param last the slot after its last
     */
    public static int[] sharing(int[][] layers, int[] kLabels, int first, int last, int blockK, int count,
            boolean causal) {
        int[] qLabels = layers[layers.length - 1];
        int[] qOrder = queryOrder(layers, causal);
        int[] kOrder = order(kLabels);
        int ahead = kLabels.length - qLabels.length;
        int middle = qOrder[(first + last - 1) / 2];
        int blocks = Math.ceilDiv(kLabels.length, blockK);
        boolean[] shared = new boolean[blocks];
        int centre = 0;
        for (int slot = 0; slot < kOrder.length; slot++) {
            int key = kOrder[slot];
            for (int q = first; q < last; q++) {
                if (qLabels[qOrder[q]] == kLabels[key] && (!causal || key <= qOrder[q] + ahead)) {
                    shared[slot / blockK] = true;
                }
            }
            if (kLabels[key] < qLabels[middle] || kLabels[key] == qLabels[middle] && key <= middle + ahead) {
                centre = slot / blockK;
            }
        }
        int at = centre;
        return IntStream.range(0, blocks)
                .filter(b -> shared[b])
                .boxed()
                .sorted((a, b) -> Math.abs(a - at) != Math.abs(b - at)
                        ? Integer.compare(Math.abs(a - at), Math.abs(b - at))
                        : Integer.compare(a, b))
                .limit(count)
                .sorted()
                .mapToInt(Integer::intValue)
                .toArray();
    }

    /**
     * The weights that a query gives blocks of keys.
     *
     * @param weight of each block, 0 for those that the query does not reach
     * @param error what FP32 may be off by
     */
    public record Weights(double[] weight, double[] error) {}

    /**
     * The softmax of a query over pooled blocks. A mean of n keys takes n roundings. A weight is an exponential, good
     * to 2.4 u, of a difference that rounds once, over a sum of such: twice the error of a logit, and a rounding for
     * each term.
     *
     * @param keys all keys of the head
     * @param blockK keys of a block
     * @param reached blocks that the query reaches
     * @param bounds whether blocks are pooled to their least and greatest elements, else to their mean
     */
    public static Weights weights(double[] q, double[][] keys, int blockK, int reached, boolean bounds, double scale) {
        int blocks = Math.ceilDiv(keys.length, blockK);
        double[] logit = new double[reached];
        double error = 0;
        double most = Double.NEGATIVE_INFINITY;
        double least = Double.POSITIVE_INFINITY;
        for (int b = 0; b < reached; b++) {
            int end = Math.min((b + 1) * blockK, keys.length);
            double magnitude = 0;
            for (int d = 0; d < q.length; d++) {
                double sum = 0;
                double size = 0;
                double low = Double.POSITIVE_INFINITY;
                double high = Double.NEGATIVE_INFINITY;
                for (int j = b * blockK; j < end; j++) {
                    sum += keys[j][d];
                    size += Math.abs(keys[j][d]);
                    low = Math.min(low, keys[j][d]);
                    high = Math.max(high, keys[j][d]);
                }
                int n = end - b * blockK;
                logit[b] += bounds ? Math.max(q[d] * low, q[d] * high) : q[d] * sum / n;
                magnitude += Math.abs(q[d]) * (bounds ? Math.max(Math.abs(low), Math.abs(high)) : size / n);
            }
            logit[b] *= scale;
            int roundings = (bounds ? 2 * q.length : q.length + blockK) + 3;
            error = Math.max(error, Math.abs(scale) * 1.01 * roundings * U * magnitude);
            most = Math.max(most, logit[b]);
            least = Math.min(least, logit[b]);
        }
        double sum = 0;
        for (double l : logit) {
            sum += Math.exp(l - most);
        }
        double[] weight = new double[blocks];
        double[] off = new double[blocks];
        // Without an error all logits are 0, and all weights the same quotient.
        double spread = Math.min(most - least + 2 * error, 105);
        double relative = error == 0 ? 0 : 2 * (error + U * spread) + (reached + 8) * U;
        for (int b = 0; b < reached; b++) {
            weight[b] = Math.exp(logit[b] - most) / sum;
            off[b] = weight[b] * Math.expm1(relative) + (error == 0 ? 0 : 0x1p-120);
        }
        return new Weights(weight, off);
    }

    /**
     * The most important blocks.
     *
     * @param importance the sum of their weights
     * @param error what that may be off by
     * @param reached blocks that the last query reaches
     * @param first how many of the first have their place
     * @param local how many of the last
     * @return the list, or null where rounding may decide
     */
    public static int @Nullable [] mostImportant(
            double[] importance, double[] error, int reached, int first, int local, int count) {
        int begin = Math.min(first, reached);
        int end = reached - Math.min(local, reached - begin);
        int wanted = Math.min(Math.min(count, reached) - begin - (reached - end), end - begin);
        int[] ranked = IntStream.range(begin, end)
                .boxed()
                .sorted((a, b) -> importance[a] != importance[b]
                        ? Double.compare(importance[b], importance[a])
                        : Integer.compare(a, b))
                .mapToInt(Integer::intValue)
                .toArray();
        for (int in = 0; in < wanted; in++) {
            for (int out = wanted; out < ranked.length; out++) {
                double slack = error[ranked[in]] + error[ranked[out]];
                if (slack > 0 && importance[ranked[in]] - slack <= importance[ranked[out]]) {
                    return null;
                }
            }
        }
        return IntStream.concat(
                        IntStream.concat(IntStream.range(0, begin), Arrays.stream(ranked).limit(wanted)),
                        IntStream.range(end, reached))
                .sorted()
                .toArray();
    }

    /** Keys less their mean. */
    public static double[][] centred(double[][] keys) {
        double[][] centred = new double[keys.length][];
        for (int j = 0; j < keys.length; j++) {
            centred[j] = keys[j].clone();
            for (int d = 0; d < keys[j].length; d++) {
                double mean = 0;
                for (double[] key : keys) {
                    mean += key[d] / keys.length;
                }
                centred[j][d] -= mean;
            }
        }
        return centred;
    }

    /** What the mean of keys may be off by in FP32: sums of at most all of them, and a rounding. */
    public static double meanError(double[][] keys) {
        double largest = 0;
        for (double[] key : keys) {
            for (double x : key) {
                largest = Math.max(largest, Math.abs(x));
            }
        }
        return 1.01 * (keys.length + 4) * U * largest;
    }

    /**
     * The code of x in a table: bit b is whether x.R_b is greater than 0.
     *
     * @param off what each element may be off by, besides four roundings
     * @return the code, or {@link #UNSURE}
     */
    public static int code(double[] x, double off, long seed, int table, int head, int bits) {
        int code = 0;
        boolean zero = Arrays.stream(x).allMatch(e -> e == 0);
        for (int b = 0; b < bits; b++) {
            double product = 0;
            double error = 0;
            for (int d = 0; d < x.length; d++) {
                double entry = rotation(seed, table, head, d, b, bits);
                product += x[d] * entry;
                error += Math.abs(entry) * (off + 1.01 * (x.length + 6) * U * Math.abs(x[d]));
            }
            if (!zero && Math.abs(product) <= error) {
                return UNSURE;
            }
            code |= product > 0 ? 1 << b : 0;
        }
        return code;
    }

    /** Minus the logarithm of the probability that two vectors share two codes or more, at the cosine between them. */
    public static double bias(double cosine, int bits, int tables) {
        double angle = Math.acos(Math.min(1, Math.max(0x1p-24 - 1, cosine)));
        double x = Math.pow(1 - angle / Math.PI, bits);
        // The sum of the terms of two shared codes and more, which does not cancel.
        double sum = 0;
        for (int shared = tables; shared >= 2; shared--) {
            double term = 1;
            for (int i = 0; i < shared; i++) {
                term *= (tables - i) / (double) (shared - i);
            }
            sum += term * Math.pow(x, shared) * Math.pow(1 - x, tables - shared);
        }
        return -Math.log(sum);
    }

    /** The cosine between two vectors; 0 where one is of length 0. */
    public static double cosine(double[] a, double[] b) {
        double product = 0;
        double aa = 0;
        double bb = 0;
        for (int d = 0; d < a.length; d++) {
            product += a[d] * b[d];
            aa += a[d] * a[d];
            bb += b[d] * b[d];
        }
        return aa == 0 || bb == 0 ? 0 : product / Math.sqrt(aa) / Math.sqrt(bb);
    }
}
