package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.DType;
import org.junit.jupiter.api.Test;

class F8Test {
    @Test
    void numbersAreThoseOfTheFormats() {
        assertEquals(448, F8.largest(DType.F8E4M3));
        assertEquals(57344, F8.largest(DType.F8E5M2));
        assertEquals(0x1p-9f, F8.value(DType.F8E4M3, (byte) 1));
        assertEquals(-0x1p-16f, F8.value(DType.F8E5M2, (byte) 0x81));
        assertEquals(1, F8.value(DType.F8E4M3, (byte) 0x38));
        assertEquals(1, F8.value(DType.F8E5M2, (byte) 0x3c));
    }

    @Test
    void everyCodeStandsForSomething() {
        for (int code = 0; code < 256; code++) {
            int magnitude = code & 0x7f;
            float e4m3 = F8.value(DType.F8E4M3, (byte) code);
            float e5m2 = F8.value(DType.F8E5M2, (byte) code);
            assertEquals(magnitude == 0x7f, Float.isNaN(e4m3));
            assertEquals(magnitude > 0x7c, Float.isNaN(e5m2));
            assertEquals(magnitude == 0x7c, Float.isInfinite(e5m2));
            if (magnitude < 0x7f) {
                assertEquals((byte) code, F8.bits(DType.F8E4M3, e4m3));
            }
            if (magnitude < 0x7c) {
                assertEquals((byte) code, F8.bits(DType.F8E5M2, e5m2));
            }
        }
        assertEquals(Float.NEGATIVE_INFINITY, F8.value(DType.F8E5M2, (byte) 0xfc));
    }

    @Test
    void theNearestIsTakenAndTiesGoToEven() {
        assertEquals(0x38, F8.bits(DType.F8E4M3, 1.0625f)); // halfway from 1 to 1.125
        assertEquals(0x3a, F8.bits(DType.F8E4M3, 1.1875f)); // halfway from 1.125 to 1.25
        assertEquals((byte) 0xb9, F8.bits(DType.F8E4M3, -1.07f));
        assertEquals(0x7e, F8.bits(DType.F8E4M3, 1e9f));
        assertEquals(0, F8.bits(DType.F8E5M2, 0x1p-17f));
    }

    @Test
    void columnsHaveScales() {
        F8.Weights weights = F8.Weights.of(DType.F8E4M3, new float[] {448, 0, -1, 0}, 2, 2);
        assertArrayEquals(new float[] {1, 0}, weights.scales());
        assertArrayEquals(new float[] {448, 0, -1, 0}, weights.numbers());
    }
}
