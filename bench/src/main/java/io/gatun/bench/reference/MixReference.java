package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import org.jspecify.annotations.Nullable;

/**
 * Gated sum: out = residual + &Sigma; f(gate<sub>p</sub>) x<sub>p</sub> over the parts in order, the residual last.
 *
 * <p>A weight w errs by e: nothing where f is none; for the sigmoid by w ((1 - w) u (4 |gate| + 4) + 3 u), since the
 * scaling by log2 e, the reduction of the range and exp's 4 u change the exponential, and a sum and a quotient round;
 * for tanh by 8 u w. A weight below 2<sup>-126</sup> may count as zero. Each of n parts adds the rounding of a product
 * and of a sum, the residual that of a sum:
 *
 * <pre>
 * &Sigma; |x<sub>p</sub>| (e<sub>p</sub> + 2<sup>-126</sup>) + (n + 2) u (&Sigma; |w<sub>p</sub> x<sub>p</sub>| +
 * |residual|)
 * </pre>
 *
 * A part that an operator before made, and that may be off by b, counts with |x<sub>p</sub>| + b in these, and adds
 * |w<sub>p</sub>| b.
 */
public final class MixReference {
    private MixReference() {}

    /** What a gate becomes. */
    public enum Gate {
        /** Itself. */
        NONE,
        /** 1 / (1 + exp(-gate)). */
        SIGMOID,
        /** tanh(gate). */
        TANH
    }

    /**
     * Sums rows, each a token's head.
     *
     * @param x [parts, rows, n]
     * @param gates [parts, rows]
     * @param absent [parts, rows]: whether there is no such part, whatever x holds
     * @param residual [rows, n], or null
     */
    public static Expected compute(Gate gate, int parts, int rows, int n, float[] x, float[] gates, boolean[] absent,
            float @Nullable [] residual) {
        return compute(gate, parts, rows, n, Expected.exact(x), gates, absent, residual);
    }

    /** The same of parts that operators before made, as they may be. */
    public static Expected compute(Gate gate, int parts, int rows, int n, Expected x, float[] gates, boolean[] absent,
            float @Nullable [] residual) {
        Expected expected = Expected.of(rows * n, (long) rows * n);
        for (int row = 0; row < rows; row++) {
            for (int j = 0; j < n; j++) {
                double value = 0;
                double magnitude = 0;
                double bound = TINY;
                float naive = 0;
                for (int part = 0; part < parts; part++) {
                    float g = gates[part * rows + row];
                    double weight = weight(gate, g);
                    if (weight == 0 || absent[part * rows + row]) {
                        continue;
                    }
                    int at = (part * rows + row) * n + j;
                    double most = Math.abs(x.value()[at]) + x.bound()[at];
                    value += weight * x.value()[at];
                    magnitude += Math.abs(weight) * most;
                    bound += most * (error(gate, g, weight) + FLUSH) + Math.abs(weight) * x.bound()[at];
                    naive += (float) weight * x.naive()[at];
                }
                if (residual != null) {
                    value += residual[row * n + j];
                    magnitude += Math.abs(residual[row * n + j]);
                    naive += residual[row * n + j];
                }
                expected.set(row * n + j, value, bound + (parts + 2) * U * magnitude, naive);
            }
        }
        return expected;
    }

    private static double weight(Gate gate, float g) {
        return switch (gate) {
            case NONE -> g;
            case SIGMOID -> 1 / (1 + Math.exp(-g));
            case TANH -> Math.tanh(g);
        };
    }

    private static double error(Gate gate, float g, double weight) {
        return switch (gate) {
            case NONE -> 0;
            case SIGMOID -> Double.isInfinite(g) ? 0 : weight * ((1 - weight) * U * (4 * Math.abs(g) + 4) + 3 * U);
            case TANH -> 8 * U * Math.abs(weight);
        };
    }
}
