package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RowQuantizerTest {
    private static RowQuantizer quantize(float... row) {
        RowQuantizer quantizer = new RowQuantizer(row.length);
        assertTrue(quantizer.quantize(row, 0));
        return quantizer;
    }

    @Test
    void spansZeroEvenWhereTheRowDoesNot() {
        RowQuantizer positive = quantize(51, 255, 102);
        assertEquals(1f, positive.scale());
        assertEquals(0, positive.zero());
        assertArrayEquals(new int[] {51, 255, 102}, positive.values());

        RowQuantizer negative = quantize(-51, -255, -102);
        assertEquals(1f, negative.scale());
        assertEquals(255, negative.zero());
        assertArrayEquals(new int[] {204, 0, 153}, negative.values());
    }

    @Test
    void tiesGoToEven() {
        RowQuantizer row = quantize(-2.5f, 252.5f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f);
        assertEquals(1f, row.scale());
        assertEquals(2, row.zero(), "rint(2.5)");
        assertArrayEquals(new int[] {0, 254, 2, 4, 4, 2, 0}, row.values());
    }

    @Test
    void clampsWhereZeroWasRoundedDown() {
        // rint(2.5) + rint(253.5) would be 256.
        RowQuantizer row = quantize(-1.5f, 253.5f);
        assertEquals(2, row.zero());
        assertArrayEquals(new int[] {0, 255}, row.values());
    }

    @Test
    void zeroRow() {
        RowQuantizer row = quantize(0, -0f, 0);
        assertEquals(0f, row.scale());
        assertEquals(0, row.zero());
        assertArrayEquals(new int[3], row.values());
    }

    @Test
    void aRangeTooSmallForAScaleCountsAsZero() {
        RowQuantizer row = quantize(Float.MIN_VALUE, -Float.MIN_VALUE);
        assertEquals(0f, row.scale());
        assertArrayEquals(new int[2], row.values());
    }

    @ParameterizedTest
    @ValueSource(floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY})
    void notFinite(float value) {
        assertFalse(new RowQuantizer(3).quantize(new float[] {1, value, 2}, 0));
    }

    @Test
    void overflowingRange() {
        assertFalse(new RowQuantizer(2).quantize(new float[] {3e38f, -3e38f}, 0));
        assertTrue(new RowQuantizer(2).quantize(new float[] {3e38f, -1e37f}, 0));
    }
}
