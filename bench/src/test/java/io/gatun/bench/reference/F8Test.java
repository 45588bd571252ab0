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
