package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.RopeReference.Quantized;
import io.gatun.bench.reference.RopeReference.Style;
import java.util.Random;
import org.junit.jupiter.api.Test;

class RopeReferenceTest {
    /** Two positions: no angle, and a quarter of a turn for the first pair alone. */
    private static final float[] TABLE = {1, 1, 0, 0, 0, 1, 1, 0};

    private static double[] rotated(Style style, int rotary, float[] table, float... x) {
        return RopeReference.rotate(style, rotary, new long[] {1}, table, 1, x.length, x).value();
    }

    @Test
    void aQuarterOfATurn() {
        // (a, b) becomes (-b, a); the second pair and what is beyond both stay.
        assertArrayEquals(new double[] {-3, 2, 1, 4, 5}, rotated(Style.HALVES, 4, TABLE, 1, 2, 3, 4, 5));
        assertArrayEquals(new double[] {-2, 1, 3, 4, 5}, rotated(Style.INTERLEAVED, 4, TABLE, 1, 2, 3, 4, 5));
        assertArrayEquals(new double[] {1, 2, 3}, rotated(Style.HALVES, 0, new float[0], 1, 2, 3));
    }

    @Test
    void positionsAreThoseOfTokensAndSharedByHeads() {
        float[] x = {1, 2, 3, 4, 5, 6, 7, 8};
        float[] table = {1, 0, 0, 1};
        double[] value = RopeReference.rotate(Style.HALVES, 2, new long[] {1, 0}, table, 2, 2, x).value();
        assertArrayEquals(new double[] {-2, 1, -4, 3, 5, 6, 7, 8}, value);
    }

    @Test
    void anglesAddUp() {
        float cos = (float) Math.cos(0.3);
        float sin = (float) Math.sin(0.3);
        float[] table = {1, 0, cos, sin};
        double[] value = rotated(Style.HALVES, 2, table, (float) Math.cos(0.5), (float) Math.sin(0.5));
        assertArrayEquals(new double[] {Math.cos(0.8), Math.sin(0.8)}, value, 1e-7);
    }

    private static Quantized quantized(float... x) {
        Expected row = RopeReference.rotate(Style.HALVES, 0, new long[1], new float[0], 1, x.length, x);
        return RopeReference.quantize(row, x.length);
    }

    @Test
    void quantizationIsExactWithoutARotation() {
        Quantized quantized = quantized(127, 0.5f, 1.5f, -2.5f, 0.4f, -127);
        assertArrayEquals(new double[] {127, 0, 2, -2, 0, -127}, quantized.values().value());
        assertArrayEquals(new double[6], quantized.values().bound());
        assertEquals(1, quantized.scales().value()[0]);
        assertEquals(0, quantized.scales().bound()[0]);
    }

    @Test
    void quantizationOfWhatHasNoScale() {
        Quantized zeros = quantized(0, -0f);
        assertEquals(0, zeros.scales().value()[0]);
        assertArrayEquals(new double[2], zeros.values().value());
        // A scale of half the smallest number and less is 0; one of 1.5 times it is coarse, and its values stay in
        // range.
        assertArrayEquals(new double[] {0, 0}, quantized(30 * Float.MIN_VALUE, 0).values().value());
        Quantized coarse = quantized(-190 * Float.MIN_VALUE, 100 * Float.MIN_VALUE);
        assertArrayEquals(new double[] {-127, 100}, coarse.values().value());
        for (float wrong : new float[] {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY}) {
            Quantized none = quantized(1, wrong, 3);
            assertTrue(Double.isNaN(none.scales().value()[0]));
            assertArrayEquals(new double[3], none.values().value());
        }
    }

    @Test
    void theNaiveComputationIsWithinTheBound() {
        Random random = new Random(5);
        float[] x = GemmReferenceTest.gaussian(random, 40 * 3 * 10);
        float[] table = new float[60 * 8];
        for (int i = 0; i < table.length; i++) {
            table[i] = (float) Math.cos(random.nextInt(100));
        }
        long[] positions = random.longs(40, 0, 60).toArray();
        for (Style style : Style.values()) {
            Expected rotated = RopeReference.rotate(style, 8, positions, table, 3, 10, x);
            Bounds.hold(rotated);
            Quantized quantized = RopeReference.quantize(rotated, 10);
            Bounds.hold(quantized.values());
            Bounds.hold(quantized.scales());
        }
    }
}
