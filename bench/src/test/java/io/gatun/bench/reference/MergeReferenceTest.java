package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import org.junit.jupiter.api.Test;

class MergeReferenceTest {
    private static final float INF = Float.POSITIVE_INFINITY;
    private static final float NAN = Float.NaN;

    @Test
    void byHand() {
        float[] x = {1, 10, 5, 50};
        float[] lse = {0, (float) Math.log(3)};
        double third = Math.exp(lse[1]);
        MergeReference.Result result = MergeReference.compute(2, 1, 2, x, lse, null);
        double[] expected = {(1 + 5 * third) / (1 + third), (10 + 50 * third) / (1 + third)};
        assertArrayEquals(expected, result.out().value(), 1e-13);
        assertEquals(Math.log(1 + third), result.lse().value()[0], 1e-15);
    }

    @Test
    void aSinkTakesItsShareAndIsNotInTheLogSumExp() {
        float[] x = {8};
        MergeReference.Result result = MergeReference.compute(1, 1, 1, x, new float[] {2}, new float[] {2});
        assertEquals(4, result.out().value()[0], 1e-15);
        assertEquals(2, result.lse().value()[0]);
        result = MergeReference.compute(1, 1, 1, x, new float[] {2}, new float[] {-INF});
        assertEquals(8, result.out().value()[0]);
        result = MergeReference.compute(1, 1, 1, x, new float[] {-800}, new float[] {50});
        assertEquals(0, result.out().value()[0], 1e-300);
        assertEquals(-800, result.lse().value()[0]);
    }

    @Test
    void partsThatSeeNothingHaveNoShare() {
        float[] lse = {-INF, -INF, 3, -INF};
        MergeReference.Result result =
                MergeReference.compute(2, 2, 1, new float[] {NAN, NAN, 7, INF}, lse, null);
        assertArrayEquals(new double[] {7, 0}, result.out().value());
        assertArrayEquals(new double[] {3, Double.NEGATIVE_INFINITY}, result.lse().value());
        assertEquals(0, result.out().bound()[1]);
        result = MergeReference.compute(0, 1, 2, new float[0], new float[0], new float[] {1});
        assertArrayEquals(new double[2], result.out().value());
        assertEquals(Double.NEGATIVE_INFINITY, result.lse().value()[0]);
    }

    /** Two parts of the same weight, whose log-sum-exps may be off by c, and so their weights by tanh(c) of it. */
    @Test
    void whatPartsAreOffByIsHandedOn() {
        double c = 0.01;
        double b = 0.125;
        Expected x = new Expected(new double[] {0, 1}, new double[] {b, 0}, new float[] {0, 1}, 2);
        Expected lse = new Expected(new double[2], new double[] {c, c}, new float[2], 2);
        MergeReference.Result result = MergeReference.compute(2, 1, 1, x, lse, null);
        double exact = MergeReference.compute(2, 1, 1, new float[] {0, 1}, new float[2], null).out().bound()[0];
        double worst = 0.5 * Math.exp(c) / Math.cosh(c) - 0.5 + b * 0.5 * Math.exp(c) / Math.cosh(c);
        assertEquals(0.5, result.out().value()[0]);
        assertTrue(result.out().bound()[0] >= worst + exact, "covers the worst case");
        assertTrue(result.out().bound()[0] <= 1.05 * (worst + exact), "and little more");
        assertTrue(result.lse().bound()[0] >= c && result.lse().bound()[0] < 1.05 * c);
        lse = new Expected(new double[] {0, Double.NEGATIVE_INFINITY}, new double[] {c, 0}, new float[2], 2);
        result = MergeReference.compute(2, 1, 1, x, lse, null);
        assertEquals(b, result.out().bound()[0], 1e-5, "one part alone keeps its weight");
    }

    @Test
    void whatIsNotANumber() {
        for (float wrong : new float[] {NAN, INF}) {
            for (float other : new float[] {1, -INF}) {
                MergeReference.Result result =
                        MergeReference.compute(2, 1, 1, new float[] {5, 6}, new float[] {other, wrong}, null);
                assertTrue(Double.isNaN(result.out().value()[0]), wrong + " beside " + other);
                assertTrue(Double.isNaN(result.lse().value()[0]), wrong + " beside " + other);
            }
        }
        MergeReference.Result result =
                MergeReference.compute(2, 1, 2, new float[] {5, -INF, NAN, 6}, new float[] {1, 2}, null);
        assertTrue(Double.isNaN(result.out().value()[0]));
        assertEquals(Double.NEGATIVE_INFINITY, result.out().value()[1]);
    }

    /** Merging in two steps is merging at once: the log-sum-exp stands for what it sums. */
    @Test
    void mergesOfMerges() {
        Random random = new Random(3);
        float[] x = {1, -2, 4};
        float[] lse = {(float) random.nextGaussian(), (float) random.nextGaussian(), 0.5f};
        MergeReference.Result whole = MergeReference.compute(3, 1, 1, x, lse, null);
        MergeReference.Result two = MergeReference.compute(2, 1, 1, x, lse, null);
        MergeReference.Result again = MergeReference.compute(2, 1, 1, new float[] {(float) two.out().value()[0], 4},
                new float[] {(float) two.lse().value()[0], 0.5f}, null);
        assertEquals(whole.out().value()[0], again.out().value()[0], 1e-6);
        assertEquals(whole.lse().value()[0], again.lse().value()[0], 1e-6);
    }

    @Test
    void theNaiveComputationIsWithinTheBound() {
        Random random = new Random(4);
        for (float spread : new float[] {0, 1, 30, 1000}) {
            float[] x = GemmReferenceTest.gaussian(random, 7 * 50 * 9);
            float[] lse = GemmReferenceTest.gaussian(random, 7 * 50);
            float[] sink = GemmReferenceTest.gaussian(random, 50);
            for (int i = 0; i < lse.length; i++) {
                lse[i] *= spread;
            }
            for (float[] sinks : new float[][] {null, sink}) {
                MergeReference.Result result = MergeReference.compute(7, 50, 9, x, lse, sinks);
                Bounds.hold(result.out());
                Bounds.hold(result.lse());
            }
        }
    }
}
