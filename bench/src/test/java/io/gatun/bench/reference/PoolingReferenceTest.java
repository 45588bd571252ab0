package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class PoolingReferenceTest {
    /** A line of four elements, windows of three in steps of two, one element of padding before. */
    private static final PoolingReference.Shape LINE = new PoolingReference.Shape(1, 1, new int[] {1, 1, 4},
            new int[] {1, 1, 3}, new int[] {1, 1, 2}, new int[] {1, 1, 1}, new int[] {0, 0, 1}, new int[] {1, 1, 2});

    private static final float[] X = {1, -2, 4, 3};

    @Test
    void theMaximumIsOfWhatLiesInside() {
        Expected expected = PoolingReference.compute(false, false, LINE, X);
        assertArrayEquals(new double[] {1, 4}, expected.value());
        assertArrayEquals(new double[] {0, 0}, expected.bound());
        assertEquals(Double.NaN, PoolingReference.compute(false, false, LINE, new float[] {1, Float.NaN, 4, 3}).value()[1]);
    }

    @Test
    void aMeanCountsPaddingWhereItIsTold() {
        assertArrayEquals(new double[] {-0.5, 5 / 3.0}, PoolingReference.compute(true, false, LINE, X).value());
        assertArrayEquals(new double[] {-1 / 3.0, 5 / 3.0}, PoolingReference.compute(true, true, LINE, X).value());
    }

    @Test
    void aWindowThatSeesNothing() {
        PoolingReference.Shape shape = new PoolingReference.Shape(1, 1, new int[] {1, 1, 1}, new int[] {1, 1, 1},
                new int[] {1, 1, 1}, new int[] {1, 1, 1}, new int[] {0, 0, 1}, new int[] {1, 1, 2});
        assertEquals(Double.NEGATIVE_INFINITY, PoolingReference.compute(false, false, shape, new float[] {7}).value()[0]);
        assertArrayEquals(new double[] {0, 7}, PoolingReference.compute(true, false, shape, new float[] {7}).value());
    }
}
