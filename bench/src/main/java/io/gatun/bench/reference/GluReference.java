package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.ANY;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import io.gatun.Activation;

/**
 * Gated activation: out = f(gate) x.
 *
 * <p>The error of f (see {@link ActivationReference}) is multiplied by |x|, and the product rounds once: u |out|, or half
 * the smallest number. Where f of -infinity is open, 0 or NaN, so is the product.
 */
public final class GluReference {
    private GluReference() {}

    /** out, of as many elements as {@code gate} and {@code x} have. */
    public static Expected compute(Activation activation, float[] gate, float[] x) {
        Expected expected = Expected.of(x.length, x.length);
        for (int i = 0; i < x.length; i++) {
            double value = ActivationReference.value(activation, gate[i]) * x[i];
            double bound = ActivationReference.bound(activation, gate[i], 0);
            double passed = bound == ANY ? ANY : bound * Math.abs((double) x[i]) + U * Math.abs(value) + TINY;
            expected.set(i, value, passed, ActivationReference.naive(activation, gate[i]) * x[i]);
        }
        return expected;
    }
}
