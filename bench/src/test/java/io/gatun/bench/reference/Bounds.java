package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertTrue;

/** A bound that the naive computation itself breaks, or that says nothing, is wrong. */
final class Bounds {
    private Bounds() {}

    static void hold(Expected expected) {
        for (int i = 0; i < expected.value().length; i++) {
            double value = expected.value()[i];
            double allowed = expected.bound()[i] + Expected.U * Math.abs(value) + Expected.TINY;
            double error = Math.abs(expected.naive()[i] - value);
            int element = i;
            assertTrue(
                    error <= allowed,
                    () -> "element " + element + ": " + value + " off by " + error + ", bound " + allowed);
        }
    }
}
