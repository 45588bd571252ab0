package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.U;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Routing of one token to experts: scores, the softmax of its logits or the sigmoid of each; the experts with the
 * highest score + bias, in the best groups where there are groups, the lower of two equals first; weights, the scores
 * of the chosen.
 *
 * <p>An exponential errs by E = u (4 |x| + 4 |max| + 4) of itself, as in a softmax, whose scores add the mean of these,
 * n u for their sum and 2 u. The score s of a sigmoid errs by s ((1 - s) E + 3 u) with max of 0. A score below
 * 2<sup>-126</sup> may count as zero. A key, score + bias, rounds once more, and so does the sum of two keys. A weight
 * inherits the error of its score and, where weights are divided by their sum T, that of T as well, with 4 u for the
 * quotient, the scale and the sum's own roundings, one for each term.
 *
 * <p>Where keys are no further apart than they may err, FP32 may choose either: the choice is then not clear. Keys of
 * the same logit and bias err alike, so that they stay equal and go by their numbers.
 */
public final class RouteReference {
    private RouteReference() {}

    /** What scores are. */
    public enum Kind {
        SOFTMAX,
        SIGMOID
    }

    /**
     * How experts are chosen and weighted.
     *
     * @param groups 0 for none
     */
    public record Rule(Kind kind, int top, int groups, int topGroups, boolean normalize, float scale) {}

    /**
     * What becomes of a token.
     *
     * @param experts the chosen, the highest first
     * @param weights their weights
     * @param clear whether no arithmetic of FP32 can choose otherwise
     */
    public record Choice(int[] experts, Expected weights, boolean clear) {}

    /**
     * Chooses for a token.
     *
     * @param x its logits
     * @param bias as many, or null
     */
    public static Choice choose(Rule rule, float[] x, float @Nullable [] bias) {
        int n = x.length;
        Expected weights = Expected.of(rule.top, 1);
        boolean wrong = false;
        for (float logit : x) {
            wrong |= Float.isNaN(logit) || rule.kind == Kind.SOFTMAX && logit == Float.POSITIVE_INFINITY;
        }
        if (wrong) {
            for (int i = 0; i < rule.top; i++) {
                weights.set(i, Double.NaN, 0, Float.NaN);
            }
            return new Choice(IntStream.range(0, rule.top).toArray(), weights, true);
        }
        double[] score = new double[n];
        double[] error = new double[n];
        float[] naive = new float[n];
        scores(rule.kind, x, score, error, naive);
        double[] key = new double[n];
        double[] keyError = new double[n];
        for (int e = 0; e < n; e++) {
            key[e] = score[e] + (bias == null ? 0 : bias[e]);
            keyError[e] = error[e] + (bias == null ? 0 : U * (Math.abs(key[e]) + error[e]));
        }
        Candidates candidates = new Candidates(x, bias, key, keyError);
        int size = n / Math.max(1, rule.groups);
        boolean[] open = new boolean[n];
        boolean clear = true;
        if (rule.groups == 0) {
            Arrays.fill(open, true);
        } else {
            clear = candidates.openGroups(rule, size, open);
        }
        int[] order = candidates.order(IntStream.range(0, n).filter(e -> open[e]).toArray());
        for (int i = 1; i < order.length; i++) {
            int above = Math.min(i, rule.top) - 1;
            clear &= candidates.apart(order[above], order[i]);
        }
        int[] chosen = Arrays.copyOf(order, rule.top);
        weigh(rule, chosen, score, error, naive, weights);
        return new Choice(chosen, weights, clear);
    }

    private static void scores(Kind kind, float[] x, double[] score, double[] error, float[] naive) {
        int n = x.length;
        double max = 0;
        if (kind == Kind.SOFTMAX) {
            max = Double.NEGATIVE_INFINITY;
            for (float logit : x) {
                max = Math.max(max, logit);
            }
            if (max == Double.NEGATIVE_INFINITY) {
                return; // scores of 0, exactly
            }
        }
        double sum = 0;
        double common = 0;
        float naiveSum = 0;
        for (int e = 0; e < n; e++) {
            double exponential = U * (4 * Math.abs(x[e]) + 4 * Math.abs(max) + 4);
            if (kind == Kind.SIGMOID) {
                score[e] = 1 / (1 + Math.exp(-x[e]));
                naive[e] = 1 / (1 + (float) Math.exp(-x[e]));
                error[e] = Float.isInfinite(x[e]) ? 0 : score[e] * ((1 - score[e]) * exponential + 3 * U) + FLUSH;
                continue;
            }
            score[e] = Math.exp(x[e] - max);
            error[e] = Float.isInfinite(x[e]) ? 0 : score[e] * exponential;
            sum += score[e];
            common += error[e];
            naive[e] = (float) Math.exp(x[e] - (float) max);
            naiveSum += naive[e];
        }
        if (kind == Kind.SOFTMAX) {
            for (int e = 0; e < n; e++) {
                score[e] /= sum;
                naive[e] /= naiveSum;
                boolean none = x[e] == Float.NEGATIVE_INFINITY;
                error[e] = none ? 0 : error[e] / sum + score[e] * (common / sum + (n + 2) * U) + FLUSH;
            }
        }
    }

    private static void weigh(
            Rule rule, int[] chosen, double[] score, double[] error, float[] naiveScore, Expected weights) {
        double total = 0;
        double totalError = 0;
        float naiveTotal = 0;
        for (int e : chosen) {
            total += score[e];
            totalError += error[e];
            naiveTotal += naiveScore[e];
        }
        for (int i = 0; i < chosen.length; i++) {
            double value = score[chosen[i]];
            double bound = error[chosen[i]];
            float naive = naiveScore[chosen[i]];
            if (rule.normalize && total > 0) {
                bound = (bound + value / total * totalError) / total + (chosen.length + 4) * U * value / total;
                value /= total;
                naive /= naiveTotal;
            }
            double scale = Math.abs((double) rule.scale);
            bound = bound == 0 && value == 0 ? 0 : (bound + 2 * U * value) * scale + FLUSH * scale;
            weights.set(i, value * rule.scale, bound, naive * rule.scale);
        }
    }

    /** Experts with their keys. */
    private record Candidates(float[] x, float @Nullable [] bias, double[] key, double[] error) {
        /** The highest first, of equals the lower. */
        int[] order(int[] experts) {
            return Arrays.stream(experts).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(e -> -key[e]).thenComparing(e -> e))
                    .mapToInt(e -> e).toArray();
        }

        /** Whether two keys are equal, or further apart than they may err. */
        boolean apart(int a, int b) {
            return alike(a, b) || key[a] - key[b] > error[a] + error[b];
        }

        boolean alike(int a, int b) {
            return x[a] == x[b] && (bias == null || bias[a] == bias[b]);
        }

        /** Opens the experts of the best groups, and says whether these are clear. */
        boolean openGroups(Rule rule, int size, boolean[] open) {
            int counted = rule.kind == Kind.SIGMOID ? Math.min(2, size) : 1;
            int[][] best = new int[rule.groups][];
            double[] worth = new double[rule.groups];
            double[] off = new double[rule.groups];
            for (int g = 0; g < rule.groups; g++) {
                best[g] = Arrays.copyOf(order(IntStream.range(g * size, (g + 1) * size).toArray()), counted);
                for (int e : best[g]) {
                    worth[g] += key[e];
                }
                for (int e = g * size; e < (g + 1) * size; e++) {
                    off[g] = Math.max(off[g], error[e]);
                }
                off[g] = counted * off[g] + U * Math.abs(worth[g]);
            }
            int[] order = IntStream.range(0, rule.groups).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(g -> -worth[g]).thenComparing(g -> g))
                    .mapToInt(g -> g).toArray();
            boolean clear = true;
            for (int i = 0; i < rule.groups; i++) {
                if (i < rule.topGroups) {
                    Arrays.fill(open, order[i] * size, (order[i] + 1) * size, true);
                }
                for (int j = rule.topGroups; i < rule.topGroups && j < rule.groups; j++) {
                    boolean same = true;
                    for (int c = 0; c < counted; c++) {
                        same &= alike(best[order[i]][c], best[order[j]][c]);
                    }
                    clear &= same || worth[order[i]] - worth[order[j]] > off[order[i]] + off[order[j]];
                }
            }
            return clear;
        }
    }
}
