package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.ANY;
import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import io.gatun.Activation;
import io.gatun.DType;
import org.apache.commons.numbers.gamma.Erf;
import org.apache.commons.numbers.gamma.Erfc;
import org.jspecify.annotations.Nullable;

/**
 * Bias and activation: out = f(x + bias).
 *
 * <p>An argument y with error dy gives f an error of L dy, where L bounds |f'| (1.13 for both GELUs, 1.1 for SiLU). The
 * computation of f itself adds {@link #C} u |parts|: 4 u for the elementary function and four roundings around it, on
 * parts that do not cancel: y/2 (1 + |erf|) for GELU, where 1 + erf does cancel for negative y, and the value itself
 * for SiLU. Below -6 the parts of GELU count as if y were -6: there erf and tanh round to -1 in FP32, so 1 + erf is
 * exactly 0 and no error grows with y. Where exp(-y) overflows, SiLU is y times a number below 2<sup>-126</sup>, which
 * may be flushed.
 *
 * <p>NONE and RELU without a bias compute nothing: an output is x, or 0, rounded to nearest, ties to even, and no other
 * number will do. So the value is given as it is after that rounding, with a bound of 0. The half unit that a
 * comparison allows for the rounding of an output does not reach the next number, but for the one below a power of two.
 */
public final class ActivationReference {
    private static final double C = 8;
    private static final double SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);

    private ActivationReference() {}

    /**
     * out[rows, n].
     *
     * @param out its type
     * @param bias [n], or null
     */
    public static Expected compute(Activation activation, DType out, int rows, int n, float[] x,
            float @Nullable [] bias) {
        Expected expected = Expected.of(rows * n, (long) rows * n);
        boolean exact = bias == null && (activation == Activation.NONE || activation == Activation.RELU);
        if (exact && out == DType.BF16) {
            x = Bf16.round(x);
        }
        for (int i = 0; i < rows * n; i++) {
            double y = bias == null ? x[i] : (double) x[i] + bias[i % n];
            double dy = bias == null ? 0 : U * Math.abs(y);
            float naive = bias == null ? x[i] : x[i] + bias[i % n];
            expected.set(i, value(activation, y), bound(activation, y, dy), naive(activation, naive));
        }
        return expected;
    }

    /** f(y); at -infinity its limit, where the formula gives NaN and {@link #bound} leaves the value open. */
    public static double value(Activation activation, double y) {
        if (y == Double.NEGATIVE_INFINITY && activation != Activation.NONE) {
            return 0;
        }
        return switch (activation) {
            case NONE -> y;
            case GELU_ERF -> y / 2 * Erfc.value(-y / Math.sqrt(2));
            case GELU_TANH -> y / (1 + Math.exp(-2 * SQRT_2_OVER_PI * (y + 0.044715 * y * y * y)));
            case SILU -> y / (1 + Math.exp(-y));
            case RELU -> y < 0 ? 0 : y;
        };
    }

    /** The error of f computed in FP32 at an argument near y that is off by at most dy. */
    public static double bound(Activation activation, double y, double dy) {
        double magnitude = Math.abs(y);
        switch (activation) {
            case NONE, RELU -> {
                return dy;
            }
            case GELU_ERF, GELU_TANH -> {
                if (y == Double.NEGATIVE_INFINITY) {
                    return ANY;
                }
                // 1 + |erf| and 1 + |tanh| lie between 1 and 2, and 2 value - y is y times the function.
                double parts = y < -6 ? 6 : (magnitude + Math.abs(2 * value(activation, y) - y)) / 2;
                double slope = y + dy < -7 ? 0 : 1.13;
                return slope * dy + C * U * parts + TINY;
            }
            case SILU -> {
                if (y == Double.NEGATIVE_INFINITY) {
                    return ANY;
                }
                double value = Math.abs(value(activation, y));
                // |f'/f| is at most 1 + 1/|y| for negative y, which is what matters in the tail.
                double passed = y < -1 ? Math.min(1.1 * dy, value * Math.expm1(Math.min(2 * dy, 700))) : 1.1 * dy;
                return passed + C * U * value + (y < -20 ? FLUSH * magnitude : TINY);
            }
        }
        throw new AssertionError(activation);
    }

    /** f(y) by the textbook formula in FP32. */
    public static float naive(Activation activation, float y) {
        return switch (activation) {
            case NONE -> y;
            case GELU_ERF -> 0.5f * y * (1 + (float) Erf.value(y * (float) Math.sqrt(0.5)));
            case GELU_TANH ->
                0.5f * y * (1 + (float) Math.tanh((float) SQRT_2_OVER_PI * (y + 0.044715f * y * y * y)));
            case SILU -> y / (1 + (float) Math.exp(-y));
            case RELU -> y < 0 ? 0 : y;
        };
    }
}
