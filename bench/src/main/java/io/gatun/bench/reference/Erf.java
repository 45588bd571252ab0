package io.gatun.bench.reference;

/**
 * The error function in FP64, to about 1e-15 (absolute for erf; relative in the tail of erfc).
 *
 * <p>Below {@value #SPLIT} the series erf x = 2/&radic;&pi; e<sup>-x&sup2;</sup> &Sigma; 2<sup>n</sup>
 * x<sup>2n+1</sup> / (1&middot;3&middot;5&hellip;(2n+1)), whose terms are all positive (DLMF 7.6.2); above it the
 * continued fraction erfc x = e<sup>-x&sup2;</sup> / (x&radic;&pi;) &middot; 1/(1+ t/(1+ 2t/(1+ 3t/(1+ &hellip;))))
 * with t = 1/(2x&sup2;) (DLMF 7.9.1), from the inside out.
 */
public final class Erf {
    private static final double SPLIT = 2.5;
    private static final double SQRT_PI = Math.sqrt(Math.PI);

    private Erf() {}

    /** The integral 2/&radic;&pi; &int; e<sup>-t&sup2;</sup> dt from 0 to x. */
    public static double erf(double x) {
        double magnitude = Math.abs(x);
        double erf = magnitude < SPLIT ? series(magnitude) : 1 - fraction(magnitude);
        return Double.isNaN(x) ? x : Math.copySign(erf, x);
    }

    /** 1 - erf x, without the cancellation. */
    public static double erfc(double x) {
        if (x < SPLIT) {
            return x > -SPLIT ? 1 - erf(x) : 2 - fraction(-x);
        }
        return Double.isNaN(x) ? x : fraction(x);
    }

    private static double series(double x) {
        double term = x;
        double sum = x;
        for (int n = 1; term > sum * 0x1p-56; n++) {
            term *= 2 * x * x / (2 * n + 1);
            sum += term;
        }
        return 2 / SQRT_PI * gaussian(x) * sum;
    }

    private static double fraction(double x) {
        if (x > 27) {
            return 0;
        }
        double t = 1 / (2 * x * x);
        double inner = 1;
        for (int n = 150; n >= 1; n--) {
            inner = 1 + n * t / inner;
        }
        return gaussian(x) / (x * SQRT_PI * inner);
    }

    /** e<sup>-x&sup2;</sup>, with the rounding error of the square put back. */
    private static double gaussian(double x) {
        double square = x * x;
        return Math.exp(-square) * (1 - Math.fma(x, x, -square));
    }
}
