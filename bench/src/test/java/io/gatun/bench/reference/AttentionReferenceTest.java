package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.AttentionReference.Result;
import io.gatun.bench.reference.AttentionReference.Sequence;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class AttentionReferenceTest {
    private static Result run(int lenQ, int lenK, long left, long right, float scale, float[] q, float[] k, float[] v) {
        int dk = q.length / lenQ;
        return new AttentionReference(1, 1, dk, v.length / lenK, left, right, scale)
                .compute(lenQ, List.of(new Sequence(0, lenQ, 0, lenK)), q, k, v);
    }

    @Test
    void oneKeyGivesItsValue() {
        Result result = run(2, 1, -1, -1, 0.5f, new float[] {1, 2, 3, 4}, new float[] {5, 6}, new float[] {7, 8, 9});
        assertArrayEquals(new double[] {7, 8, 9, 7, 8, 9}, result.out().value());
        assertArrayEquals(new double[] {8.5, 19.5}, result.lse().value());
    }

    @Test
    void twoKeysByHand() {
        Result result = run(1, 2, -1, -1, 1, new float[] {1}, new float[] {0, 2}, new float[] {10, 20});
        double p = 1 / (1 + Math.exp(2));
        assertEquals(10 * p + 20 * (1 - p), result.out().value()[0], 1e-14);
        assertEquals(Math.log(1 + Math.exp(2)), result.lse().value()[0], 1e-15);
    }

    /** With queries of zero the output is the mean of the visible values, and v_j = 2^j tells which they are. */
    @ParameterizedTest
    @CsvSource({
        "3, 3, -1, -1, '111 111 111'",
        "3, 3, -1, 0, '001 011 111'",
        "2, 4, -1, 0, '0111 1111'",
        "4, 2, -1, 0, '00 00 01 11'",
        "4, 4, 1, 0, '0001 0011 0110 1100'",
        "4, 4, 0, 0, '0001 0010 0100 1000'",
        "3, 3, 0, -1, '111 110 100'",
        "2, 4, 1, 1, '1110 1100'",
        "4, 2, 0, 1, '00 01 11 10'",
        "1, 4, 2, 0, '1110'",
        "2, 1, 5, 5, '1 1'"
    })
    void visibility(int lenQ, int lenK, long left, long right, String rows) {
        float[] v = new float[lenK];
        for (int j = 0; j < lenK; j++) {
            v[j] = 1 << j;
        }
        Result result = run(lenQ, lenK, left, right, 1, new float[lenQ], new float[lenK], v);
        String[] expected = rows.split(" ");
        for (int i = 0; i < lenQ; i++) {
            int mask = Integer.parseInt(expected[i], 2);
            int keys = Integer.bitCount(mask);
            assertEquals(keys == 0 ? 0 : (double) mask / keys, result.out().value()[i], 1e-14, "query " + i);
            assertEquals(Math.log(keys), result.lse().value()[i], 1e-15, "query " + i);
        }
    }

    @Test
    void queryHeadsShareKeyHeadsInOrder() {
        float[] v = {1, 2};
        Result result = new AttentionReference(4, 2, 1, 1, -1, -1, 1)
                .compute(1, List.of(new Sequence(0, 1, 0, 1)), new float[4], new float[2], v);
        assertArrayEquals(new double[] {1, 1, 2, 2}, result.out().value());
    }

    @Test
    void sequencesDoNotSeeEachOther() {
        List<Sequence> sequences = List.of(new Sequence(0, 1, 1, 1), new Sequence(2, 1, 0, 1));
        Result result = new AttentionReference(1, 1, 1, 1, -1, -1, 1)
                .compute(3, sequences, new float[3], new float[2], new float[] {5, 6});
        assertArrayEquals(new double[] {6, 0, 5}, result.out().value());
        assertEquals(Expected.UNTOUCHED, result.out().bound()[1]);
        assertEquals(Expected.UNTOUCHED, result.lse().bound()[1]);
    }

    @Test
    void nanReachesTheRowsThatSeeIt() {
        float[] v = {Float.NaN, 1};
        Result result = run(2, 2, 0, 0, 1, new float[2], new float[2], v);
        assertTrue(Double.isNaN(result.out().value()[0]));
        assertEquals(Expected.ANY, result.out().bound()[1], "the other row may get it from its block");
        Result hidden = run(1, 2, 0, 0, 1, new float[1], new float[2], v);
        assertEquals(1, hidden.out().value()[0]);
        assertTrue(hidden.out().bound()[0] < 1e-5, "a value that no query sees reaches none");
    }

    @Test
    void theNaiveComputationIsWithinTheBound() {
        Random random = new Random(8);
        int tokens = 150;
        for (double size : new double[] {1, 5}) {
            float[] q = GemmReferenceTest.gaussian(random, tokens * 2 * 32);
            for (int i = 0; i < q.length; i++) {
                q[i] *= (float) size;
            }
            float[] k = GemmReferenceTest.gaussian(random, tokens * 32);
            float[] v = GemmReferenceTest.gaussian(random, tokens * 16);
            Result result = new AttentionReference(2, 1, 32, 16, 70, 10, 0.2f)
                    .compute(tokens, List.of(new Sequence(0, tokens, 0, tokens)), q, k, v);
            Bounds.hold(result.out());
            Bounds.hold(result.lse());
        }
    }
}
