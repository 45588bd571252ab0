package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.bench.reference.Expected;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * How far outputs are from what was expected.
 *
 * <p><b>Each element</b> may be off by its bound in FP32 arithmetic ({@link Expected}) plus one rounding to the
 * output's type: u (|value| + bound), where u is 2<sup>-24</sup> for FP32, 2<sup>-8</sup> for BF16 and 2<sup>-11</sup>
 * for F16, and half the smallest number; results below 2<sup>-126</sup> may be flushed to zero in BF16. NaN is
 * expected where the reference is NaN, and infinities must be equal. A finite value is expected otherwise, except that
 * one within its tolerance of the largest number may overflow.
 *
 * <p><b>The tensor</b> as a whole must be at most twice as far off as the naive computation, plus the output's
 * rounding: with every error divided by the element's tolerance, rms(error) &le; 2 rms(naive error) + rms(output
 * rounding). The bounds of the elements hold for the worst signs of all roundings and grow with the length of a sum;
 * real errors grow with its square root, so this is the sharper test. It needs {@value #ENOUGH} independent results:
 * the deviation of a root mean square over n samples is about 1 / sqrt(2n) of it, so that a factor of 2 is then far
 * from chance.
 *
 * <p>Memory outside the expected elements must be as it was, and no expected element may still hold what it was
 * poisoned with.
 */
final class Comparison {
    private static final int ENOUGH = 32;

    private final List<String> failures = new ArrayList<>();
    private long telling;
    private double ratio;
    private double error;
    private double tolerance;

    /** Adds a failure that concerns no single element. */
    void fail(String why) {
        failures.add(why);
    }

    /** Adds an output, given what its memory held before the run. */
    void add(Trial.Output output, byte[] before) {
        new Elements(output, before).compare();
    }

    /** What was wrong, or empty. */
    List<String> failures() {
        return failures;
    }

    /** Elements that tell right from wrong: not zero, finite, and several times their tolerance. */
    long telling() {
        return telling;
    }

    /** The worst error, as a part of its tolerance: above 1 fails. */
    double ratio() {
        return ratio;
    }

    /** The absolute error of the element with the worst ratio. */
    double error() {
        return error;
    }

    /** The tolerance of the element with the worst ratio. */
    double tolerance() {
        return tolerance;
    }

    /**
     * What an operator is given that reads what another wrote: off by a rounding to the type more, the naive result
     * rounded as well.
     */
    static Expected stored(Expected expected, DType dtype) {
        Expected stored = new Expected(expected.value(), expected.bound().clone(),
                Values.rounded(expected.naive().clone(), dtype), expected.rows());
        for (int i = 0; i < stored.bound().length; i++) {
            double value = expected.value()[i];
            double bound = expected.bound()[i];
            stored.bound()[i] += Double.isFinite(value) && bound != Expected.UNTOUCHED
                    ? rounding(dtype, value) + unit(dtype) * bound
                    : 0;
        }
        return stored;
    }

    /** What rounding to a type may change. */
    private static double rounding(DType dtype, double value) {
        if (dtype == DType.BF16 && Math.abs(value) < Expected.FLUSH) {
            return Expected.FLUSH;
        }
        double smallest = dtype == DType.F16 ? 0x1p-14 : Expected.FLUSH; // of the normal numbers
        return unit(dtype) * (Math.abs(value) + smallest);
    }

    private static double unit(DType dtype) {
        return switch (dtype) {
            case BF16 -> 0x1p-8;
            case F16 -> 0x1p-11;
            default -> Expected.U;
        };
    }

    private static double largest(DType dtype) {
        return switch (dtype) {
            case BF16 -> 0x1.fep127;
            case F16 -> 0x1.ffcp15;
            default -> Float.MAX_VALUE;
        };
    }

    /** One output, element by element. */
    private final class Elements {
        private final Trial.Output output;
        private final Operand operand;
        private final Expected expected;
        private final byte[] before;
        private final double unit;
        private final double largest;
        private long wrong;
        private String first = "";
        private long counted;
        private double squares;
        private double naiveSquares;
        private double roundingSquares;

        Elements(Trial.Output output, byte[] before) {
            this.output = output;
            this.operand = output.operand();
            this.expected = output.expected();
            this.before = before;
            this.unit = unit(operand.dtype());
            this.largest = largest(operand.dtype());
        }

        void compare() {
            operand.forEach(output.run(), this::element);
            String written = operand.difference(before);
            if (!written.isEmpty()) {
                failures.add(written);
            }
            if (wrong > 0) {
                failures.add(first + (wrong > 1 ? ", and " + (wrong - 1) + " more of " + expected.value().length : ""));
            }
            if (wrong == 0 && expected.rows() >= ENOUGH && counted > 0) {
                tensor();
            }
        }

        private void element(int index, long element) {
            double bound = expected.bound()[index];
            if (bound == Expected.UNTOUCHED) {
                return; // not to be written: it stays, to be compared with what was there before
            }
            double value = expected.value()[index];
            double actual = operand.get(element);
            boolean written = !output.fresh() || !operand.isPoison(element);
            operand.restore(element, before);
            if (!written) {
                wrong(index, "was not written");
            } else if (bound == Expected.ANY) {
                return;
            } else if (Double.isNaN(value) || Double.isInfinite(value)) {
                if (Double.compare(actual, value) != 0) {
                    wrong(index, "is " + (float) actual + ", expected " + value);
                }
            } else {
                finite(index, value, bound, actual);
            }
        }

        private void finite(int index, double value, double bound, double actual) {
            double rounding = rounding(operand.dtype(), value);
            double allowed = bound + rounding + unit * bound;
            if (Double.isInfinite(actual) && Math.abs(value) + allowed >= largest && actual > 0 == value > 0) {
                return;
            }
            double off = Math.abs(actual - value);
            if (!(off <= allowed)) {
                wrong(index, String.format(Locale.ROOT, "is %.9g, expected %.9g within %.2g", actual, value, allowed));
            }
            if (!(off / allowed <= ratio)) {
                ratio = off / allowed;
                error = off;
                tolerance = allowed;
            }
            if (Math.abs(value) > 4 * allowed) {
                telling++;
            }
            double naive = Math.abs(expected.naive()[index] - value);
            if (Double.isFinite(naive) && Double.isFinite(off)) {
                counted++;
                squares += square(off / allowed);
                naiveSquares += square(naive / allowed);
                roundingSquares += square(rounding / allowed);
            }
        }

        private void tensor() {
            double actual = Math.sqrt(squares / counted);
            double limit = 2 * Math.sqrt(naiveSquares / counted) + Math.sqrt(roundingSquares / counted);
            if (actual > limit) {
                failures.add(String.format(Locale.ROOT,
                        "%s is %.2g times as far off, over all, as twice the naive computation and one rounding",
                        operand.name(), actual / limit));
            }
            if (actual / limit > ratio) {
                ratio = actual / limit;
            }
        }

        private void wrong(int index, String what) {
            if (wrong++ == 0) {
                first = operand.name() + Operand.position(output.run(), index) + " " + what;
            }
        }

        private static double square(double x) {
            return x * x;
        }
    }
}
