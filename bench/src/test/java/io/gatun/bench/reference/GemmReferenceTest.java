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
    void anActivationOfMinusInfinityStaysOpenUnderAResidual() {
        Expected expected = GemmReference.compute(
                DType.F32, 1, 1, 2, new float[] {1}, new float[] {Float.NEGATIVE_INFINITY, 1}, null, Activation.SILU,
                new float[] {5, 5});
        assertEquals(Expected.ANY, expected.bound()[0]);
        assertTrue(expected.bound()[1] < 1e-5);
    }

    @Test
    void int8RowThatIsNotFinite() {
        Expected expected = GemmReference.compute(
                DType.S8, 2, 1, 1, new float[] {Float.POSITIVE_INFINITY, 1}, new float[] {1}, null, Activation.RELU,
                new float[] {1, 1});
        assertTrue(Double.isNaN(expected.value()[0]));
        assertEquals(2, expected.value()[1], 1e-6);
    }

    @Test
    void groupsByHand() {
        // Rows 1, 0 | none | 1 of [1 2 3; 4 5 6]; the fourth row belongs to no group.
        float[] w = {1, -1, 0, 0, 0, 0, 0, 0, 0, 10, 0, 1};
        float[] matrices = new float[3 * 3 * 2];
        System.arraycopy(w, 0, matrices, 0, 6);
        System.arraycopy(w, 6, matrices, 12, 6);
        Expected expected = GemmReference.grouped(DType.F32, 4, 3, 2, new int[] {0, 2, 2, 3}, new int[] {1, 0, 1, 0}, A,
                matrices, new float[] {0, 100, 7, 7, 1, 2}, Activation.NONE, null);
        assertArrayEquals(new double[] {4, 96, 1, 99, 1, 58, 0, 0}, expected.value());
        for (int i = 0; i < 8; i++) {
            assertEquals(i >= 6, expected.bound()[i] == Expected.UNTOUCHED);
        }
        Expected inOrder = GemmReference.grouped(DType.F32, 2, 3, 2, new int[] {0, 1, 1, 2}, null, A, matrices, null,
                Activation.NONE, new float[] {1, 1, 1, 1});
        assertArrayEquals(new double[] {2, 0, 1, 57}, inOrder.value());
    }

    @Test
    void lowRankByHand() {
        // a down = [1+2+3, 1-3; 4+5+6, 4-6] = [6, -2; 15, -2], times 0.5 and up = [1, 0; 10, 1].
        GemmReference.LowRank low =
                new GemmReference.LowRank(2, 0.5f, new float[] {1, 1, 1, 0, 1, -1}, new float[] {1, 0, 10, 1});
        Expected expected = GemmReference.compute(
                DType.F32, 2, 3, 2, A, W, low, new float[] {0, 1}, Activation.RELU, null);
        // The product alone is [-2, 6; -2, 12].
        assertArrayEquals(new double[] {0, 6, 0, 12}, expected.value());
        expected = GemmReference.compute(DType.F32, 2, 3, 2, A, W, low, null, Activation.NONE, null);
        assertArrayEquals(new double[] {-9, 5, -4.5, 11}, expected.value());
    }

    /** No format rounds what the low rank multiplies. */
    @Test
    void lowRankIsOfTheElementsAsTheyAre() {
        GemmReference.LowRank low = new GemmReference.LowRank(1, 1, new float[] {1}, new float[] {1});
        float a = 1 + 0x1p-20f;
        for (DType format : new DType[] {DType.F32, DType.BF16, DType.S8}) {
            Expected expected = GemmReference.compute(
                    format, 1, 1, 1, new float[] {a}, new float[1], low, null, Activation.NONE, null);
            assertEquals(a, expected.value()[0]);
        }
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "S8"})
    void theNaiveComputationOfLowRankIsWithinTheBound(DType format) {
        Random random = new Random(7);
        GemmReference.LowRank low =
                new GemmReference.LowRank(20, 0.7f, gaussian(random, 300 * 20), gaussian(random, 20 * 11));
        Bounds.hold(GemmReference.compute(format, 9, 300, 11, gaussian(random, 2700), new float[3300], low,
                gaussian(random, 11), Activation.GELU_ERF, gaussian(random, 99)));
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
