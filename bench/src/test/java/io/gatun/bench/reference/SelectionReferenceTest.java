package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

/** The reference on examples whose results were worked out by hand. */
class SelectionReferenceTest {
    /** SplitMix64 from state 0 gives 0xe220a8397b1dcdaf first (Vigna's reference implementation), which has 33 ones. */
    @Test
    void rotationsCountTheOnesOfSplitMix() {
        long first = 0xe220a8397b1dcdafL;
        long base = mix(mix(first + 2) + 3);
        assertEquals(33, Long.bitCount(first));
        assertEquals((Long.bitCount(mix(base + 4 * 5 + 1)) - 32) / 4.0, SelectionReference.rotation(0, 2, 3, 4, 1, 5));
    }

    private static long mix(long state) {
        long z = state + 0x9e3779b97f4a7c15L;
        z = (z ^ z >>> 30) * 0xbf58476d1ce4e5b9L;
        z = (z ^ z >>> 27) * 0x94d049bb133111ebL;
        return z ^ z >>> 31;
    }

    @Test
    void labelsAreTheGreatestProduct() {
        double[] x = {1, 0};
        double first = SelectionReference.rotation(7, 0, 0, 0, 0, 2);
        double second = SelectionReference.rotation(7, 0, 0, 0, 1, 2);
        int expected = Math.abs(first) > Math.abs(second) ? (first > 0 ? 0 : 2) : second > 0 ? 1 : 3;
        assertEquals(expected, SelectionReference.label(x, 7, 0, 0, 4));
        assertEquals((expected + 2) % 4, SelectionReference.label(new double[] {-1, 0}, 7, 0, 0, 4));
        assertEquals(0, SelectionReference.label(new double[2], 7, 0, 0, 4), "of equal products the lower label");
        double other = SelectionReference.rotation(7, 0, 0, 1, 0, 1);
        double own = SelectionReference.rotation(7, 0, 0, 0, 0, 1);
        double[] turned = {other, -own * (1 + 1e-9)};
        assertEquals(SelectionReference.UNSURE, SelectionReference.label(turned, 7, 0, 0, 2), "a product of nearly 0");
    }

    @Test
    void listsNameBlocksOfSharedLabels() {
        int[][] q = {{1, 0, 1, 2}};
        int[] k = {1, 1, 2, 0, 1, 0};
        assertArrayEquals(new int[] {1, 0, 2, 3}, SelectionReference.queryOrder(q, false));
        assertArrayEquals(new int[] {3, 5, 0, 1, 4, 2}, SelectionReference.order(k));
        // Queries 1 and 0 have labels 0 and 1: keys 3, 5 | 0, 1 | 4; the middle query is 1, of label 0 and position 3.
        assertArrayEquals(new int[] {0, 1, 2}, SelectionReference.sharing(q, k, 0, 2, 2, 9, false));
        assertArrayEquals(new int[] {0, 1}, SelectionReference.sharing(q, k, 0, 2, 2, 2, false));
        // Causal, query 0 at position 2 does not see key 4.
        assertArrayEquals(new int[] {0, 1}, SelectionReference.sharing(q, k, 0, 2, 2, 9, true));
        // Of blocks as near, the earlier one: the middle query 2, of label 1, sorts after key 4.
        assertArrayEquals(new int[] {2, 3, 4}, SelectionReference.sharing(q, k, 2, 3, 1, 9, false));
        assertArrayEquals(new int[] {4}, SelectionReference.sharing(q, k, 2, 3, 1, 1, false));
    }

    @Test
    void queriesOfOneLabelLieByThoseOfTheLayersBefore() {
        int[][] q = {{2, 0, 1, 0, 1}, {0, 1, 1, 1, 0}, {1, 0, 1, 1, 1}};
        assertArrayEquals(new int[] {1, 4, 0, 3, 2}, SelectionReference.queryOrder(q, false));
        assertArrayEquals(new int[] {1, 0, 2, 3, 4}, SelectionReference.queryOrder(q, true));
        // The middle one of the queries 4, 0 and 3 is 0, before all keys of label 1.
        assertArrayEquals(new int[] {1, 2, 3}, SelectionReference.sharing(q, new int[] {0, 1, 1, 1}, 1, 4, 1, 9, false));
        assertArrayEquals(new int[] {1, 2}, SelectionReference.sharing(q, new int[] {0, 1, 1, 1}, 1, 4, 1, 2, false));
    }

    @Test
    void blocksAreWeighedByTheirMeanOrBounds() {
        double[][] keys = {{2, 0}, {0, 0}, {1, 1}, {1, -1}};
        double[] q = {Math.log(3), 0};
        // Means (1, 0) and (1, 0); bounds of 2 log 3 and log 3.
        double[] means = SelectionReference.weights(q, keys, 2, 2, false, 1).weight();
        assertArrayEquals(new double[] {0.5, 0.5}, means, 1e-12);
        double[] bounds = SelectionReference.weights(q, keys, 2, 2, true, 1).weight();
        assertArrayEquals(new double[] {0.75, 0.25}, bounds, 1e-12);
        double[] first = SelectionReference.weights(q, keys, 2, 1, true, 1).weight();
        assertArrayEquals(new double[] {1, 0}, first, 1e-12);
    }

    @Test
    void theMostImportantAreListed() {
        double[] importance = {1, 5, 3, 3, 4, 2};
        double[] exact = new double[6];
        assertArrayEquals(new int[] {1, 2, 4}, SelectionReference.mostImportant(importance, exact, 6, 0, 0, 3));
        assertArrayEquals(new int[] {0, 1, 5}, SelectionReference.mostImportant(importance, exact, 6, 1, 1, 3));
        assertArrayEquals(new int[] {0, 1}, SelectionReference.mostImportant(importance, exact, 2, 1, 1, 3));
        double[] error = {0, 0, 0.1, 0, 0, 0};
        assertNull(SelectionReference.mostImportant(importance, error, 6, 0, 0, 3));
        assertArrayEquals(new int[] {1, 4}, SelectionReference.mostImportant(importance, error, 6, 0, 0, 2));
    }

    @Test
    void codesAreSignsAndBiasesWhatTheyLeaveOut() {
        double[] x = {3, -1};
        int code = SelectionReference.code(x, 0, 5, 1, 0, 2);
        for (int b = 0; b < 2; b++) {
            double product = 3 * SelectionReference.rotation(5, 1, 0, 0, b, 2)
                    - SelectionReference.rotation(5, 1, 0, 1, b, 2);
            assertEquals(product > 0, (code & 1 << b) != 0);
        }
        assertEquals(0, SelectionReference.code(new double[2], 0, 5, 1, 0, 2));
        assertEquals(SelectionReference.UNSURE, SelectionReference.code(x, 100, 5, 1, 0, 2));
        // At a right angle p = 1/2: with one bit and three tables, 3/8 + 1/8.
        assertEquals(Math.log(2), SelectionReference.bias(0, 1, 3), 1e-12);
        assertEquals(0, SelectionReference.bias(1, 4, 20), 1e-12);
        // At 45 degrees p = 3/4: with two bits and two tables p^4.
        assertEquals(-4 * Math.log(0.75), SelectionReference.bias(Math.sqrt(0.5), 2, 2), 1e-12);
        assertTrue(Double.isFinite(SelectionReference.bias(-1, 16, 100)));
    }

    @Test
    void keysAreCentred() {
        assertArrayEquals(new double[] {-1, 2}, SelectionReference.centred(new double[][] {{1, 4}, {3, 0}})[0]);
        assertEquals(0, SelectionReference.cosine(new double[2], new double[] {1, 2}));
        assertEquals(0.6, SelectionReference.cosine(new double[] {5, 0}, new double[] {3, 4}), 1e-12);
    }
}
