package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class NormReferenceTest {
    private static final float[] ONES = {1, 1};

    @Test
    void byHand() {
        float[] x = {1, 3};
        assertArrayEquals(
                new double[] {-1, 1}, NormReference.layerNorm(1, 2, 0, x, null, ONES, null, false).value(), 1e-15);
        assertArrayEquals(
                new double[] {-0.5 * 2 + 10, 0.5 * 4 + 20},
                NormReference.layerNorm(1, 2, 3, x, null, new float[] {2, 4}, new float[] {10, 20}, false).value(),
                1e-14);
        double rms = Math.sqrt(5);
        assertArrayEquals(
                new double[] {2 / rms, 12 / rms},
                NormReference.rmsNorm(1, 2, 0, x, null, new float[] {2, 4}, false).value(),
                1e-15);
    }

    @Test
    void theResidualIsAddedFirst() {
        float[] x = {0.5f, 1};
        float[] residual = {0.5f, 2};
        assertArrayEquals(
                new double[] {-1, 1}, NormReference.layerNorm(1, 2, 0, x, residual, ONES, null, false).value(), 1e-15);
        assertArrayEquals(new double[] {1, 3}, NormReference.sum(x, residual, false).value());
    }

    @Test
    void constantRow() {
        float[] x = {7, 7};
        assertArrayEquals(
                new double[] {5, 6},
                NormReference.layerNorm(1, 2, 1e-12f, x, null, ONES, new float[] {5, 6}, false).value());
    }

    @Test
    void meanZeroVarianceOne() {
        int n = 1000;
        float[] gamma = new float[n];
        Arrays.fill(gamma, 1);
        double[] value = NormReference.layerNorm(
                        1, n, 0, GemmReferenceTest.gaussian(new Random(1), n), null, gamma, null, false)
                .value();
        double sum = 0;
        double squares = 0;
        for (double v : value) {
            sum += v;
            squares += v * v;
        }
        assertEquals(0, sum / n, 1e-15);
        assertEquals(1, squares / n, 1e-14);
    }

    @ParameterizedTest
    @ValueSource(floats = {0, 1, 100, 10_000})
    void theNaiveComputationIsWithinTheBound(float offset) {
        Random random = new Random(4);
        int rows = 40;
        int n = 257;
        float[] x = GemmReferenceTest.gaussian(random, rows * n);
        for (int i = 0; i < x.length; i++) {
            x[i] += offset;
        }
        float[] residual = GemmReferenceTest.gaussian(random, rows * n);
        float[] gamma = GemmReferenceTest.gaussian(random, n);
        float[] beta = GemmReferenceTest.gaussian(random, n);
        Bounds.hold(NormReference.layerNorm(rows, n, 1e-5f, x, null, gamma, beta, false));
        Bounds.hold(NormReference.layerNorm(rows, n, 1e-5f, x, residual, gamma, beta, false));
        Bounds.hold(NormReference.rmsNorm(rows, n, 1e-5f, x, null, gamma, false));
        Bounds.hold(NormReference.rmsNorm(rows, n, 1e-5f, x, residual, gamma, false));
        Bounds.hold(NormReference.sum(x, residual, false));
    }
}
