package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Activation;
import org.junit.jupiter.api.Test;

class GluReferenceTest {
    @Test
    void multipliesByTheActivatedGate() {
        float[] gate = {1, -2, 3};
        float[] x = {2, 5, -1};
        Expected relu = GluReference.compute(Activation.RELU, gate, x);
        assertEquals(2, relu.value()[0]);
        assertEquals(0, Math.abs(relu.value()[1]));
        assertEquals(-3, relu.value()[2]);
        Expected silu = GluReference.compute(Activation.SILU, gate, x);
        assertEquals(2 / (1 + Math.exp(-1)), silu.value()[0], 1e-12);
        assertEquals(-10 / (1 + Math.exp(2)), silu.value()[1], 1e-12);
        assertTrue(silu.bound()[0] > 0 && silu.bound()[0] < 1e-5);
    }

    @Test
    void whatTheGateLeavesOpenStaysOpen() {
        Expected silu = GluReference.compute(Activation.SILU, new float[] {Float.NEGATIVE_INFINITY}, new float[] {1});
        assertEquals(Expected.ANY, silu.bound()[0]);
    }
}
