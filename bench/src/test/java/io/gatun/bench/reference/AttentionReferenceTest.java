package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.AttentionReference.Block;
import io.gatun.bench.reference.AttentionReference.Cache;
import io.gatun.bench.reference.AttentionReference.Pattern;
import io.gatun.bench.reference.AttentionReference.Result;
import io.gatun.bench.reference.AttentionReference.Sequence;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class AttentionReferenceTest {
    private static final float INF = Float.POSITIVE_INFINITY;

    private static AttentionReference one(Pattern pattern, float scale) {
        return new AttentionReference(1, 1, 1, 1, scale).patterns(List.of(pattern));
    }

    private static Result run(int lenQ, int lenK, long left, long right, float scale, float[] q, float[] k, float[] v) {
        int dk = q.length / lenQ;
        return new AttentionReference(1, 1, dk, v.length / lenK, scale)
                .patterns(List.of(Pattern.window(left, right)))
                .compute(lenQ, List.of(new Sequence(0, lenQ, 0, lenK)), q, new Cache(k, v));
    }

    /** The scores of one query, from its outputs: with one key at a time, the log-sum-exp is the score. */
    private static double[] scores(AttentionReference attention, Sequence sequence, float[] q, float[] k) {
        double[] scores = new double[k.length];
        for (int j = 0; j < k.length; j++) {
            float[][][] only = new float[1][1][k.length];
            for (int other = 0; other < k.length; other++) {
                only[0][0][other] = other == j ? 0 : -INF;
            }
            Result result = attention.compute(1, List.of(sequence.bias(only)), q, new Cache(k, new float[k.length]));
            scores[j] = result.lse().value()[0];
        }
        return scores;
    }

    /**
     * Which keys each query sees, as 0 and 1: with queries of zero the output is the mean of the visible values, and
     * v_j = 2^j tells which they are.
     */
    private static String visible(Pattern pattern, Sequence sequence) {
        return visible(one(pattern, 1), 1, sequence)[0];
    }

    private static String[] visible(AttentionReference attention, int heads, Sequence sequence) {
        int lenK = sequence.lenK();
        float[] v = new float[lenK];
        for (int j = 0; j < lenK; j++) {
            v[j] = 1 << j;
        }
        Result result = attention.compute(sequence.lenQ(), List.of(sequence), new float[sequence.lenQ() * heads],
                new Cache(new float[lenK], v));
        String[] ofHeads = new String[heads];
        for (int head = 0; head < heads; head++) {
            StringBuilder text = new StringBuilder();
            for (int i = 0; i < sequence.lenQ(); i++) {
                double mean = result.out().value()[i * heads + head];
                int keys = (int) Math.round(Math.exp(result.lse().value()[i * heads + head]));
                long mask = Math.round(mean * keys);
                assertEquals(keys == 0 ? Double.NEGATIVE_INFINITY : Math.log(keys),
                        result.lse().value()[i * heads + head], 1e-15);
                text.append(i == 0 ? "" : " ");
                for (int j = 0; j < lenK; j++) {
                    text.append(mask >> j & 1);
                }
            }
            ofHeads[head] = text.toString();
        }
        return ofHeads;
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

    /** Bottom-right alignment: the last query sits at the last key, whichever of the two are more. */
    @ParameterizedTest
    @CsvSource({
        "3, 3, -1, -1, '111 111 111'",
        "3, 3, -1, 0, '100 110 111'",
        "2, 4, -1, 0, '1110 1111'",
        "4, 2, -1, 0, '00 00 10 11'",
        "4, 4, 1, 0, '1000 1100 0110 0011'",
        "4, 4, 0, 0, '1000 0100 0010 0001'",
        "3, 3, 0, -1, '111 011 001'",
        "2, 4, 1, 1, '0111 0011'",
        "4, 2, 0, 1, '00 10 11 01'",
        "1, 4, 2, 0, '0111'",
        "2, 1, 5, 5, '1 1'"
    })
    void bothEndsOfTheWindowAreInside(int lenQ, int lenK, long left, long right, String rows) {
        assertEquals(rows, visible(Pattern.window(left, right), new Sequence(0, lenQ, 0, lenK)));
    }

    @Test
    void aQueryThatSeesNothingGivesZeroAndMinusInfinity() {
        Result result = run(2, 1, -1, 0, 1, new float[] {1, 1}, new float[] {1}, new float[] {5});
        assertArrayEquals(new double[] {0, 5}, result.out().value());
        assertArrayEquals(new double[] {Double.NEGATIVE_INFINITY, 1}, result.lse().value());
        Result sink = one(Pattern.window(-1, 0), 1).sinkLogits(new float[] {3})
                .compute(2, List.of(new Sequence(0, 2, 0, 1)), new float[2], new Cache(new float[1], new float[] {5}));
        assertEquals(0, sink.out().value()[0]);
        assertEquals(Double.NEGATIVE_INFINITY, sink.lse().value()[0]);
    }

    @ParameterizedTest
    @CsvSource({
        "1, 6, 2, 0, 2, '010101'",
        "1, 6, -1, 0, 3, '001001'",
        "2, 6, 1, 1, 2, '001010 000101'",
        "2, 4, -1, -1, 2, '1010 0101'",
        "1, 5, 1, 0, 4, '10001'"
    })
    void dilationCountsStepsFromTheQuery(int lenQ, int lenK, long left, long right, long dilation, String rows) {
        Pattern pattern = new Pattern(left, right, dilation, 0, false, false, false, false, false);
        assertEquals(rows, visible(pattern, new Sequence(0, lenQ, 0, lenK)));
    }

    @ParameterizedTest
    @CsvSource({
        // what a causal window hides on the left, sinks show, steps of a dilation included; the future stays hidden
        "5, 5, 0, 0, 1, 2, '10000 11000 11100 11010 11001'",
        "2, 5, 1, 0, 2, 1, '11010 10101'",
        "3, 3, 0, 0, 1, 3, '100 110 111'",
        // without causality they lift the right end of a window too
        "3, 5, 0, 1, 1, 5, '11111 11111 11111'",
        "4, 2, 0, 0, 1, 1, '00 00 10 11'",
        "3, 1, 0, 1, 1, 1, '1 1 1'"
    })
    void sinksLiftTheWindowButNotCausality(int lenQ, int lenK, long left, long right, long dilation, long sinks,
            String rows) {
        Pattern pattern = new Pattern(left, right, dilation, sinks, false, false, false, false, false);
        assertEquals(rows, visible(pattern, new Sequence(0, lenQ, 0, lenK)));
    }

    @ParameterizedTest
    @CsvSource({
        // key 2 is seen by all, and query 2 sees all
        "5, 5, 0, 1, '11100 01100 11111 00111 00101'",
        "5, 5, 0, 0, '10000 01000 11100 00110 00101'",
        // query 0 sits at position 2
        "2, 4, 0, 0, '1110 0011'",
        // query 0 sits at position -2, which no token is
        "5, 3, 0, 0, '000 000 100 010 111'"
    })
    void globalTokensSeeAndAreSeenButNotAcrossCausality(int lenQ, int lenK, long left, long right, String rows) {
        Pattern pattern = new Pattern(left, right, 1, 0, false, true, false, false, false);
        assertEquals(rows, visible(pattern, new Sequence(0, lenQ, 0, lenK).globals(2)));
    }

    @Test
    void thePrefixLiftsTheRightEndAndCausalityButNotTheLeftEnd() {
        Pattern causal = new Pattern(-1, 0, 1, 0, true, false, false, false, false);
        assertEquals("1100 1100 1110 1111", visible(causal, new Sequence(0, 4, 0, 4).prefix(2)));
        assertEquals("1111 1111", visible(causal, new Sequence(0, 2, 0, 4).prefix(100)));
        Pattern window = new Pattern(0, 0, 1, 0, true, false, false, false, false);
        assertEquals("1110 0110 0010 0001", visible(window, new Sequence(0, 4, 0, 4).prefix(3)));
        Pattern steps = new Pattern(-1, 0, 2, 0, true, false, false, false, false);
        assertEquals("1010 0101 1010 0101", visible(steps, new Sequence(0, 4, 0, 4).prefix(4)));
        Pattern sinks = new Pattern(0, 0, 1, 2, true, false, false, false, false);
        assertEquals("1000 1100 1110 1101", visible(sinks, new Sequence(0, 4, 0, 4).prefix(1)));
    }

    @Test
    void labelsAgreeInTheLastLayerAndDifferBefore() {
        Pattern pattern = new Pattern(-1, -1, 1, 0, false, false, true, false, false);
        int[][][] one = {{{7, 7, -1}}};
        assertEquals("110 110 001", visible(pattern, new Sequence(0, 3, 0, 3).documents(one, one)));
        int[][][] two = {{{1, 1, 2}}, {{5, 5, 5}}};
        assertEquals("001 001 110", visible(pattern, new Sequence(0, 3, 0, 3).documents(two, two)));
        int[][][] queries = {{{1}}};
        int[][][] keys = {{{0, 1, 1}}};
        assertEquals("011", visible(pattern, new Sequence(0, 1, 0, 3).documents(queries, keys)));
    }

    @Test
    void sinksAndGlobalTokensDoNotLiftDocuments() {
        Pattern pattern = new Pattern(0, 0, 1, 1, true, true, true, false, false);
        int[][][] labels = {{{0, 0, 1, 1}}};
        Sequence sequence = new Sequence(0, 4, 0, 4).documents(labels, labels).globals(3).prefix(4);
        assertEquals("1100 1100 0011 0011", visible(pattern, sequence));
    }

    @Test
    void draftedTokensSeeThoseThatTheyFollow() {
        Pattern pattern = new Pattern(-1, -1, 1, 0, false, false, false, true, false);
        boolean[][] follows = {{true, false, false}, {true, true, false}, {true, false, true}};
        assertEquals("11100 11110 11101", visible(pattern, new Sequence(0, 3, 0, 5).tree(follows)));
        assertEquals("00 10 01", visible(pattern, new Sequence(0, 3, 0, 2).tree(follows)));
    }

    @Test
    void listsNameBlocksAndMasksWhatIsInThem() {
        AttentionReference attention = one(new Pattern(-1, -1, 1, 0, false, false, false, false, true), 1).blocks(2, 2);
        boolean[][] mask = {{true, false}, {false, true}};
        Block[][][] lists = {{{new Block(0, null, 0), new Block(2, null, 0)}, {new Block(1, mask, 0)}}};
        assertEquals("11001 11001 00100", visible(attention, 1, new Sequence(0, 3, 0, 5).blocks(lists))[0]);
        Pattern causal = new Pattern(-1, 0, 1, 0, false, false, false, false, true);
        boolean[][] half = {{false, true}, {true, true}};
        Block[][][] beyond = {{{new Block(2, null, 0)}, {new Block(1, half, 0)}}};
        assertEquals("00000 00000 00010",
                visible(one(causal, 1).blocks(2, 2), 1, new Sequence(0, 3, 0, 5).blocks(beyond))[0]);
    }

    @Test
    void ordersSayWhichBlockATokenIsInAndWhichKeysTakePart() {
        Pattern blocks = new Pattern(-1, -1, 1, 0, false, false, false, false, true);
        Block[][][] lists = {{{new Block(0, null, 0)}, {new Block(1, new boolean[][] {{false, true}}, 0)}}};
        // queries 2 and 0 are the first block, query 1 the second; keys 3 and 1, then 0 and 2
        int[][] queries = {{2, 0, 1}};
        int[][] keys = {{3, 1, 0, 2}};
        Sequence sequence = new Sequence(0, 3, 0, 4).orders(queries, keys).blocks(lists);
        assertEquals("0101 0010 0101", visible(one(blocks, 1).blocks(2, 2), 1, sequence)[0]);
        // positions stay the tokens' own
        Sequence causal = new Sequence(0, 3, 0, 4).orders(queries, new int[][] {{3, 1, 0, -1}});
        assertEquals("1100 1100 1101", visible(Pattern.window(-1, 0), causal), "key 2 is left out");
        Sequence holes = new Sequence(0, 3, 0, 4).orders(queries, new int[][] {{3, -1, 1, 0}}).blocks(lists);
        assertEquals("0001 1000 0001", visible(one(blocks, 1).blocks(2, 2), 1, holes)[0], "and its place counts");
    }

    @Test
    void headsHaveTheirOwnPatterns() {
        AttentionReference attention = new AttentionReference(2, 1, 1, 1, 1)
                .patterns(List.of(Pattern.window(-1, 0), new Pattern(0, 0, 1, 1, false, true, false, false, false)));
        assertArrayEquals(new String[] {"100 110 111", "100 110 111"},
                visible(attention, 2, new Sequence(0, 3, 0, 3).globals(2)));
        assertArrayEquals(new String[] {"100 110 111", "100 110 101"}, visible(attention, 2, new Sequence(0, 3, 0, 3)));
    }

    @Test
    void arraysAreForOneHeadOrThoseOfKeysOrOfQueries() {
        Pattern documents = new Pattern(-1, -1, 1, 0, false, false, true, false, false);
        AttentionReference attention = new AttentionReference(4, 2, 1, 1, 1).patterns(List.of(documents));
        for (int heads : new int[] {1, 2, 4}) {
            int[][][] queries = new int[1][heads][1];
            int[][][] keys = new int[1][heads][4];
            for (int head = 0; head < heads; head++) {
                queries[0][head][0] = head;
                keys[0][head] = new int[] {0, 1, 2, 3};
            }
            Result result = attention.compute(1, List.of(new Sequence(0, 1, 0, 4).documents(queries, keys)),
                    new float[4], new Cache(new float[8], new float[] {1, 1, 2, 2, 4, 4, 8, 8}));
            assertArrayEquals(switch (heads) {
                case 1 -> new double[] {1, 1, 1, 1};
                case 2 -> new double[] {1, 1, 2, 2};
                default -> new double[] {1, 2, 4, 8};
            }, result.out().value());
        }
    }

    /** scale, softcap, ALiBi, bias, the block's bias and the self bias, in this order: each term tells itself apart. */
    @Test
    void softcapComesBeforeAlibiBeforeBiases() {
        Pattern blocks = new Pattern(-1, -1, 1, 0, false, false, false, false, true);
        float[] q = {2};
        float[] k = {3, 1};
        double[] products = {3, 1}; // scaled
        assertArrayEquals(products, scores(one(Pattern.DENSE, 0.5f), new Sequence(0, 1, 0, 2), q, k), 1e-14);
        double[] capped = {4 * Math.tanh(0.75), 4 * Math.tanh(0.25)};
        assertArrayEquals(capped, scores(one(Pattern.DENSE, 0.5f).softcap(4), new Sequence(0, 1, 0, 2), q, k), 1e-14);
        AttentionReference all = one(blocks, 0.5f).softcap(4).slopes(new float[] {100}).selfBias(-7).blocks(1, 1);
        Sequence sequence = new Sequence(0, 1, 0, 2)
                .blocks(new Block[][][] {{{new Block(0, null, 20), new Block(1, null, 30)}}});
        assertArrayEquals(new double[] {capped[0] - 100 + 20, capped[1] + 30 - 7}, scores(all, sequence, q, k), 1e-13);
        Result biased = one(Pattern.DENSE, 0.5f).softcap(4).compute(1,
                List.of(new Sequence(0, 1, 0, 2).bias(new float[][][] {{{50, -INF}}})), q,
                new Cache(k, new float[] {1, 2}));
        assertEquals(capped[0] + 50, biased.lse().value()[0], 1e-13, "a bias is not capped, and -infinity masks");
        assertEquals(1, biased.out().value()[0]);
    }

    @Test
    void alibiIsTheDistanceOnBothSides() {
        AttentionReference attention = one(Pattern.DENSE, 1).slopes(new float[] {2});
        Sequence sequence = new Sequence(0, 4, 0, 3);
        Result result = attention.compute(4, List.of(sequence), new float[4], new Cache(new float[3], new float[3]));
        assertEquals(Math.log(Math.exp(-2) + Math.exp(-4) + Math.exp(-6)), result.lse().value()[0], 1e-14, "p = -1");
        assertEquals(Math.log(1 + 2 * Math.exp(-2)), result.lse().value()[2], 1e-14, "p = 1");
    }

    @Test
    void theSelfBiasIsForTheQuerysOwnPosition() {
        Result result = one(Pattern.DENSE, 1).selfBias(-1000).compute(2, List.of(new Sequence(0, 2, 0, 3)),
                new float[2], new Cache(new float[3], new float[] {1, 2, 4}));
        assertArrayEquals(new double[] {2.5, 1.5}, result.out().value(), 1e-14);
        Result alone = one(Pattern.window(0, 0), 1).selfBias(-1000).compute(1, List.of(new Sequence(0, 1, 0, 1)),
                new float[1], new Cache(new float[1], new float[] {3}));
        assertArrayEquals(new double[] {3}, alone.out().value(), 0, "a finite bias hides nothing");
        assertEquals(-1000, alone.lse().value()[0]);
    }

    @Test
    void theSinkLogitTakesItsShareAndStaysOutOfTheLogSumExp() {
        for (float sink : new float[] {0, 5, -5, 200, -200}) {
            Result result = one(Pattern.DENSE, 1).sinkLogits(new float[] {sink}).compute(1,
                    List.of(new Sequence(0, 1, 0, 2)), new float[] {1},
                    new Cache(new float[] {1, 2}, new float[] {3, 4}));
            double total = Math.exp(1) + Math.exp(2) + Math.exp(sink);
            double expected = (3 * Math.exp(1) + 4 * Math.exp(2)) / total;
            assertEquals(expected, result.out().value()[0], 1e-14 * expected);
            assertEquals(Math.log(Math.exp(1) + Math.exp(2)), result.lse().value()[0], 1e-15);
        }
    }

    @Test
    void keysAndValuesOfEightBitsHaveAScaleForEachRow() {
        Cache cache = new Cache(new float[] {4, -2}, new float[] {10, 100}, new float[] {0.5f, 0.25f},
                new float[] {2, 0.125f});
        Result result = one(Pattern.DENSE, 1).compute(1, List.of(new Sequence(0, 1, 0, 2)), new float[] {1}, cache);
        double p = 1 / (1 + Math.exp(-2.5));
        assertEquals(20 * p + 12.5 * (1 - p), result.out().value()[0], 1e-14);
    }

    @Test
    void keysOfASequenceLieInPages() {
        float[] v = {0, 1, 2, 3, 4, 5};
        Sequence sequence = Sequence.paged(0, 3, 3, new int[] {2, 0}, 2);
        Result result = one(Pattern.window(0, 0), 1).compute(3, List.of(sequence), new float[3],
                new Cache(new float[6], v));
        assertArrayEquals(new double[] {4, 5, 0}, result.out().value());
    }

    @Test
    void queryHeadsShareKeyHeadsInOrder() {
        Result result = new AttentionReference(4, 2, 1, 1, 1)
                .compute(1, List.of(new Sequence(0, 1, 0, 1)), new float[4],
                        new Cache(new float[2], new float[] {1, 2}));
        assertArrayEquals(new double[] {1, 1, 2, 2}, result.out().value());
    }

    @Test
    void sequencesDoNotSeeEachOther() {
        List<Sequence> sequences = List.of(new Sequence(0, 1, 1, 1), new Sequence(2, 1, 0, 1));
        Result result = new AttentionReference(1, 1, 1, 1, 1)
                .compute(3, sequences, new float[3], new Cache(new float[2], new float[] {5, 6}));
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
            AttentionReference plain = new AttentionReference(2, 1, 32, 16, 0.2f)
                    .patterns(List.of(Pattern.window(70, 10)));
            hold(plain.compute(tokens, List.of(new Sequence(0, tokens, 0, tokens)), q, new Cache(k, v)));
            float[][][] bias = new float[2][tokens][];
            for (int head = 0; head < 2; head++) {
                for (int i = 0; i < tokens; i++) {
                    bias[head][i] = GemmReferenceTest.gaussian(random, tokens);
                }
            }
            AttentionReference all = new AttentionReference(2, 1, 32, 16, 0.2f)
                    .patterns(List.of(Pattern.window(70, 10)))
                    .softcap(3)
                    .slopes(new float[] {0.3f, 0.01f})
                    .selfBias(-2)
                    .sinkLogits(new float[] {1, -3});
            float[] scales = new float[tokens];
            for (int token = 0; token < tokens; token++) {
                scales[token] = 0.7f + token * 0.01f;
            }
            hold(all.compute(tokens, List.of(new Sequence(0, tokens, 0, tokens).bias(bias)), q,
                    new Cache(k, v, scales, scales)));
        }
    }

    private static void hold(Result result) {
        Bounds.hold(result.out());
        Bounds.hold(result.lse());
    }
}
