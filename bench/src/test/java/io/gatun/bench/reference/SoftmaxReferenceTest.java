package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

class SoftmaxReferenceTest {
    private static final float INF = Float.POSITIVE_INFINITY;

    @Test
    void byHand() {
        float[] x = {0, (float) Math.log(3)};
        double third = Math.exp(x[1]);
        double[] value = SoftmaxReference.compute(1, 2, 1, x).value();
        assertArrayEquals(new double[] {1 / (1 + third), third / (1 + third)}, value, 1e-15);
    }

    @Test
    void rowsSumToOneAndDoNotSeeAShift() {
        float[] x = GemmReferenceTest.gaussian(new Random(1), 60);
        float[] shifted = x.clone();
        for (int i = 0; i < x.length; i++) {
            x[i] = Math.round(x[i] * 64) / 64f; // so that the shift is exact
            shifted[i] = x[i] + 512;
        }
        double[] value = SoftmaxReference.compute(3, 20, 2, x).value();
        for (int i = 0; i < 3; i++) {
            assertEquals(1, Arrays.stream(value, 20 * i, 20 * i + 20).sum(), 1e-14);
        }
        assertArrayEquals(value, SoftmaxReference.compute(3, 20, 2, shifted).value(), 1e-14);
    }

    @Test
    void masks() {
        double[] value = SoftmaxReference.compute(
                        4, 2, 1, new float[] {-INF, -INF, -INF, 5, INF, 0, Float.NaN, -INF})
                .value();
        assertArrayEquals(new double[] {0, 0, 0, 1}, Arrays.copyOf(value, 4));
        for (int i = 4; i < 8; i++) {
            assertTrue(Double.isNaN(value[i]), "element " + i);
        }
    }

    @Test
    void theNaiveComputationIsWithinTheBound() {
        float[] x = GemmReferenceTest.gaussian(new Random(2), 100 * 333);
        for (float scale : new float[] {1, -3, 100}) {
            Bounds.hold(SoftmaxReference.compute(100, 333, scale, x));
        }
    }
}
