package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Activation;
import io.gatun.DType;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class GemmReferenceTest {
    private static final float[] A = {1, 2, 3, 4, 5, 6};
    private static final float[] W = {1, -1, 0, 2, -1, 1};

    @Test
    void byHand() {
        Expected product = GemmReference.compute(DType.F32, 2, 3, 2, A, W, null, Activation.NONE, null);
        assertArrayEquals(new double[] {-2, 6, -2, 12}, product.value());
        Expected all = GemmReference.compute(
                DType.F32, 2, 3, 2, A, W, new float[] {1, -10}, Activation.RELU, new float[] {1, 2, 3, 4});
        assertArrayEquals(new double[] {1, 2, 3, 6}, all.value());
    }

    @Test
    void nothingToMultiply() {
        Expected expected = GemmReference.compute(
                DType.S8, 2, 0, 2, new float[0], new float[0], new float[] {3, 4}, Activation.NONE, null);
        assertArrayEquals(new double[] {3, 4, 3, 4}, expected.value());
    }

    @Test
    void bf16RoundsBothOperandsFirst() {
        float a = 1 + 0x1p-8f;
        float w = 1 + 3 * 0x1p-8f;
        Expected expected = GemmReference.compute(
                DType.BF16, 1, 1, 1, new float[] {a}, new float[] {w}, null, Activation.NONE, null);
        assertEquals(1 + 0x1p-6, expected.value()[0]);
    }

    @Test
    void int8IsExactWhereTheScalesArePowersOfTwo() {
        float[] a = {0, 127.5f, 0.5f, -0f};
        float[] w = {127, -64, 3, 1};
        Expected expected = GemmReference.compute(DType.S8, 1, 4, 1, a, w, null, Activation.NONE, null);
        assertEquals(127.5 * -64 + 0.5 * 3, expected.value()[0]);
    }

    @Test
    void int8RowThatIsNotFinite() {
        Expected expected = GemmReference.compute(
                DType.S8, 2, 1, 1, new float[] {Float.POSITIVE_INFINITY, 1}, new float[] {1}, null, Activation.RELU,
                new float[] {1, 1});
        assertTrue(Double.isNaN(expected.value()[0]));
        assertEquals(2, expected.value()[1], 1e-6);
    }

    /** An 8-bit product is near the true one: half a step of each operand at most. */
    @Test
    void int8ApproximatesTheProduct() {
        Random random = new Random(5);
        float[] a = gaussian(random, 10 * 100);
        float[] w = gaussian(random, 100 * 7);
        Expected exact = GemmReference.compute(DType.F32, 10, 100, 7, a, w, null, Activation.NONE, null);
        Expected rounded = GemmReference.compute(DType.S8, 10, 100, 7, a, w, null, Activation.NONE, null);
        assertArrayEquals(exact.value(), rounded.value(), 0.6);
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "S8"})
    void theNaiveComputationIsWithinTheBound(DType format) {
        Random random = new Random(6);
        for (Activation activation : Activation.values()) {
            Bounds.hold(GemmReference.compute(format, 9, 300, 11, gaussian(random, 2700), gaussian(random, 3300),
                    gaussian(random, 11), activation, gaussian(random, 99)));
        }
    }

    static float[] gaussian(Random random, int count) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }
}
