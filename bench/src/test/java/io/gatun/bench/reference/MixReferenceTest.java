package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.MixReference.Gate;
import org.junit.jupiter.api.Test;

class MixReferenceTest {
    private static final float NAN = Float.NaN;

    @Test
    void byHand() {
        // Two parts of two rows of two elements.
        float[] x = {1, 2, 3, 4, 10, 20, 30, 40};
        float[] gates = {0.5f, 1, 2, -1};
        double[] sums = {20.5, 41, -27, -36};
        Expected expected = MixReference.compute(Gate.NONE, 2, 2, 2, x, gates, new boolean[4], null);
        assertArrayEquals(sums, expected.value());
        expected = MixReference.compute(Gate.NONE, 2, 2, 2, x, gates, new boolean[4], new float[] {100, 200, 300, 400});
        assertArrayEquals(new double[] {120.5, 241, 273, 364}, expected.value());
        expected = MixReference.compute(
                Gate.NONE, 2, 2, 2, x, gates, new boolean[] {false, true, false, false}, null);
        assertArrayEquals(new double[] {20.5, 41, -30, -40}, expected.value());
    }

    @Test
    void gates() {
        float[] gates = {(float) Math.log(3), 0};
        float[] x = {8, 100};
        boolean[] absent = new boolean[2];
        assertEquals(56, MixReference.compute(Gate.SIGMOID, 2, 1, 1, x, gates, absent, null).value()[0], 1e-6);
        assertEquals(6.4, MixReference.compute(Gate.TANH, 2, 1, 1, x, gates, absent, null).value()[0], 1e-6);
    }

    @Test
    void whatPartsAreOffByIsHandedOn() {
        Expected x = new Expected(new double[] {8, 100}, new double[] {1, 3}, new float[] {8, 100}, 2);
        Expected sum = MixReference.compute(Gate.NONE, 2, 1, 1, x, new float[] {-0.5f, 2}, new boolean[2], null);
        assertEquals(196, sum.value()[0]);
        assertEquals(6.5, sum.bound()[0], 1e-3);
        assertTrue(sum.bound()[0] > 6.5);
    }

    @Test
    void aGateOfNothingLooksAtNothing() {
        float[] x = {NAN, 3};
        boolean[] absent = new boolean[2];
        float off = Float.NEGATIVE_INFINITY;
        assertEquals(1.5, MixReference.compute(Gate.SIGMOID, 2, 1, 1, x, new float[] {off, 0}, absent, null).value()[0]);
        assertEquals(0, MixReference.compute(Gate.TANH, 2, 1, 1, x, new float[] {0, -0f}, absent, null).value()[0]);
        assertEquals(6, MixReference.compute(Gate.NONE, 2, 1, 1, x, new float[] {-0f, 2}, absent, null).value()[0]);
        double value = MixReference.compute(Gate.TANH, 2, 1, 1, x, new float[] {1e-30f, 0}, absent, null).value()[0];
        assertTrue(Double.isNaN(value));
        assertTrue(Double.isNaN(
                MixReference.compute(Gate.NONE, 2, 1, 1, new float[] {1, 2}, new float[] {NAN, 1}, absent, null)
                        .value()[0]));
    }
}
