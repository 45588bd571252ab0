package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.ANY;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import org.jspecify.annotations.Nullable;

/**
 * The 8-bit form of rows that themselves have errors: lo = min(0, min x), hi = max(0, max x), s = (hi - lo) / 255,
 * z = rint(-lo / s), q = clamp(rint(x / s) + z, 0, 255), ties to even; s = 0 gives q = z = 0, a row that is not finite
 * the scale NaN and q = z = 0.
 *
 * <p>With errors of at most b<sub>i</sub> and B = max b<sub>i</sub>, s errs by 2 B / 255 + 2 u s + 2<sup>-149</sup>, let
 * that be e s, so that a quotient y / s of a y with the error b errs by (b / s + |y / s| (e + u)) / (1 - e). An integer is
 * exact where a quotient with its error rounds to just one, and else off by half a step and that error. Where e is a
 * quarter or more there is nothing but errors to quantize, and integers are open.
 */
public final class QuantizedReference {
    private QuantizedReference() {}

    /**
     * Rows in 8 bits.
     *
     * @param values [rows, n]
     * @param scales [rows]
     * @param zeros [rows]
     */
    public record Quantized(Expected values, Expected scales, Expected zeros) {}

    /** Quantizes rows of n elements, 1 or more. */
    public static Quantized rows(Expected x, int n) {
        int rows = x.value().length / n;
        Quantized quantized =
                new Quantized(Expected.of(rows * n, rows), Expected.of(rows, rows), Expected.of(rows, rows));
        RowQuantizer naive = new RowQuantizer(n);
        for (int row = 0; row < rows; row++) {
            boolean representable = naive.quantize(x.naive(), row * n);
            row(x, row, n, representable ? naive : null, quantized);
        }
        return quantized;
    }

    private static void row(Expected x, int row, int n, @Nullable RowQuantizer naive, Quantized to) {
        int from = row * n;
        double lo = 0;
        double hi = 0;
        double worst = 0;
        boolean finite = true;
        for (int i = from; i < from + n; i++) {
            finite &= Double.isFinite(x.value()[i]);
            lo = Math.min(lo, x.value()[i]);
            hi = Math.max(hi, x.value()[i]);
            worst = Math.max(worst, x.bound()[i]);
        }
        if (!finite) {
            to.scales.set(row, Double.NaN, 0, Float.NaN);
            return;
        }
        double s = (hi - lo) / 255;
        boolean nothing = s == 0 && worst == 0;
        double error = nothing ? 0 : 2 * worst / 255 + 2 * U * s + TINY;
        to.scales.set(row, s, error, naive == null ? Float.NaN : naive.scale());
        if (nothing) {
            return;
        }
        double e = error / s;
        if (!(e < 0.25)) {
            to.zeros.set(row, 0, ANY, 0);
            for (int i = from; i < from + n; i++) {
                to.values.set(i, 0, ANY, 0);
            }
            return;
        }
        Rounded zero = new Rounded(-lo / s, (worst / s - lo / s * (e + U)) / (1 - e));
        to.zeros.set(row, zero.value, zero.bound, naive == null ? Float.NaN : naive.zero());
        for (int i = from; i < from + n; i++) {
            double y = x.value()[i] / s;
            Rounded q = new Rounded(y, (x.bound()[i] / s + Math.abs(y) * (e + U)) / (1 - e));
            to.values.set(i, Math.clamp(q.value + zero.value, 0, 255), q.bound + zero.bound,
                    naive == null ? Float.NaN : naive.values()[i - from]);
        }
    }

    /** The nearest integer to a number with an error: exact where there is but one. */
    private record Rounded(double value, double bound) {
        Rounded {
            double nearest = Math.rint(value);
            boolean one = Math.abs(value - nearest) + bound < 0.5;
            value = one ? nearest : value;
            bound = one ? 0 : 0.5 + bound;
        }
    }
}
