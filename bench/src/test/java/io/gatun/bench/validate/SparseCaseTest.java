package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.Expected;
import io.gatun.bench.report.Verdict;
import io.gatun.bench.validate.SelectCase.Data;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The chains' references against definitions in plain loops, and what a case says of a chain that has a fault. */
class SparseCaseTest {
    private static final int QUERIES = 7;
    private static final int KEYS = 10;
    private static final int SIZE = 8;
    private static final String SHAPE = " b1 q7 k10 hq2 hk1 dk8 ";

    private static SparseCase parse(String line) {
        return (SparseCase) Case.parse(line);
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "sparse f16 bounds b2 q9 k20 hq4 hk2 dk16 bq4 bk8 count4 first1 local2 causal groups ragged slack dv24 seed=9",
        "sparse f32 mean b1 q9 k20 hq4 hk4 dk16 bq1 bk1 count4 first0 local0 given selfbias=-5.0 zeros seed=1",
        "sparse bf16 lsh b2 q9 k20 hq4 hk2 dk16 bq4 bk8 count4 first0 local0 packed ragged buckets=4 layers=3 seed=9",
        "sparse f32 retrieval b1 q9 k20 hq4 hk2 dk16 bq1 bk1 count4 first1 local1 buckets=4 layers=6 sinklogits seed=9",
        "sparse f32 nsa b1 q9 k20 hq4 hk2 dk16 bq1 bk8 count4 first1 local1 causal groups dv24 window=7 seed=9"
    })
    void everyWordIsInTheLineAgain(String line) {
        assertEquals(line, parse(line).name());
    }

    /** Adds the values of some keys by the softmax of a query over them, each with a bias where there are some. */
    private static void attend(double[] out, double[] q, List<double[]> keys, List<double[]> values,
            List<Double> biases) {
        double[] weights = new double[keys.size()];
        double sum = 0;
        for (int j = 0; j < weights.length; j++) {
            double product = 0;
            for (int d = 0; d < q.length; d++) {
                product += q[d] * keys.get(j)[d];
            }
            weights[j] = Math.exp(product * (float) (1 / Math.sqrt(SIZE)) + (biases.isEmpty() ? 0 : biases.get(j)));
            sum += weights[j];
        }
        for (int j = 0; j < weights.length; j++) {
            for (int d = 0; d < out.length; d++) {
                out[d] += weights[j] / sum * values.get(j)[d];
            }
        }
    }

    private static double[] value(SparseCase test, int key) {
        double[] value = new double[SIZE];
        for (int d = 0; d < SIZE; d++) {
            value[d] = test.drawnValues()[key * SIZE + d];
        }
        return value;
    }

    private static int position(int query) {
        return query + KEYS - QUERIES;
    }

    /** Says which keys a query of a head sees, and their biases. */
    @FunctionalInterface
    private interface Seen {
        void of(int head, int query, List<Integer> keys, List<Double> biases);
    }

    private static double[] row(SparseCase test, int head, int query, Seen seen) {
        Data data = test.data();
        List<Integer> keys = new ArrayList<>();
        List<Double> biases = new ArrayList<>();
        seen.of(head, query, keys, biases);
        double[] out = new double[SIZE];
        attend(out, data.q.getFirst()[head][query], keys.stream().map(j -> data.k.getFirst()[0][j]).toList(),
                keys.stream().map(j -> value(test, j)).toList(), biases);
        return out;
    }

    private static void assertRows(SparseCase test, double tolerance, Seen seen) {
        Expected expected = test.expected();
        for (int query = 0; query < QUERIES; query++) {
            for (int head = 0; head < 2; head++) {
                double[] row = row(test, head, query, seen);
                for (int d = 0; d < SIZE; d++) {
                    double value = expected.value()[(query * 2 + head) * SIZE + d];
                    assertEquals(row[d], value, tolerance, "query " + query + ", head " + head);
                }
            }
        }
    }

    /** Rounds whose lists name all blocks there are, so that every pair that shares some label is seen, once. */
    @ParameterizedTest
    @ValueSource(strings = {"", "causal"})
    void roundsMergeToTheUnionOfWhatSharesALabel(String causal) {
        SparseCase test = parse("sparse f32 lsh" + SHAPE + "bq2 bk3 count4 buckets=4 layers=3 " + causal);
        Data data = test.data();
        int[] pairs = new int[3];
        assertRows(test, 1e-13, (head, i, keys, _) -> {
            for (int j = 0; j < (causal.isEmpty() ? KEYS : position(i) + 1); j++) {
                for (int layer = 0; layer < 3; layer++) {
                    if (data.qLabels.getFirst()[head][layer][i] == data.kLabels.getFirst()[head][layer][j]) {
                        keys.add(j);
                        pairs[layer]++;
                        break;
                    }
                }
            }
        });
        assertTrue(pairs[0] > 0 && pairs[1] > 0 && pairs[2] > 0, "every round finds something new");
    }

    @Test
    void listsOfBlocksAreAttendedTo() {
        SparseCase test = parse("sparse f32 bounds" + SHAPE + "bq2 bk3 count2 first1 local0 causal");
        assertRows(test, 1e-13, (head, i, keys, _) -> {
            for (int block : test.data().lists.getFirst().get(head * 4 + i / 2).columns()) {
                for (int j = 3 * block; j < Math.min(3 * block + 3, position(i) + 1); j++) {
                    keys.add(j);
                }
            }
        });
    }

    /** The reference takes biases as FP32 has them. */
    @Test
    void aSampleIsWeighedByItsBiases() {
        SparseCase test = parse("sparse f32 retrieval" + SHAPE + "count6 first1 local1 causal buckets=2 layers=4");
        int[] biased = new int[1];
        assertRows(test, 1e-6, (head, i, keys, biases) -> {
            SelectCase.Listed list = test.data().lists.getFirst().get(head * QUERIES + i);
            for (int entry = 0; entry < list.columns().length; entry++) {
                keys.add(list.columns()[entry]);
                biases.add(list.bias()[entry]);
                biased[0] += list.bias()[entry] != 0 ? 1 : 0;
            }
        });
        assertTrue(biased[0] > 0);
    }

    @Test
    void threeBranchesAreSummed() {
        SparseCase test = parse("sparse f32 nsa" + SHAPE + "bk4 count1 local1 causal window=2");
        Data data = test.data();
        Expected expected = test.expected();
        for (int i = 0; i < QUERIES; i++) {
            int p = position(i);
            List<double[]> meanKeys = new ArrayList<>();
            List<double[]> meanValues = new ArrayList<>();
            for (int block = 0; block < (p + 1) / 4; block++) {
                double[] key = new double[SIZE];
                double[] value = new double[SIZE];
                for (int j = 4 * block; j < 4 * block + 4; j++) {
                    for (int d = 0; d < SIZE; d++) {
                        key[d] += data.k.getFirst()[0][j][d] / 4;
                        value[d] += value(test, j)[d] / 4;
                    }
                }
                meanKeys.add(key);
                meanValues.add(value);
            }
            for (int head = 0; head < 2; head++) {
                double[] q = data.q.getFirst()[head][i];
                double[][] branch = new double[3][SIZE];
                attend(branch[0], q, meanKeys, meanValues, List.of());
                attend(branch[1], q, keys(data, p / 4 * 4, p), values(test, p / 4 * 4, p), List.of()); // its own block
                attend(branch[2], q, keys(data, p - 1, p), values(test, p - 1, p), List.of());
                for (int d = 0; d < SIZE; d++) {
                    double sum = 0;
                    for (int b = 0; b < 3; b++) {
                        sum += branch[b][d] / (1 + Math.exp(-test.gate(i, b, head)));
                    }
                    assertEquals(sum, expected.value()[(i * 2 + head) * SIZE + d], 1e-13, "query " + i);
                }
            }
        }
    }

    private static List<double[]> keys(Data data, int first, int last) {
        List<double[]> keys = new ArrayList<>();
        for (int j = first; j <= last; j++) {
            keys.add(data.k.getFirst()[0][j]);
        }
        return keys;
    }

    private static List<double[]> values(SparseCase test, int first, int last) {
        List<double[]> values = new ArrayList<>();
        for (int j = first; j <= last; j++) {
            values.add(value(test, j));
        }
        return values;
    }

    /** Seeds put operands in different places. */
    @ParameterizedTest
    @ValueSource(strings = {"mean bk4", "lsh bk4 layers=3", "retrieval", "nsa bk4 window=3", "mean bk4 given"})
    void nothingToDoPasses(String kind) {
        try (Validation validation = Validation.open("cpu:scalar", 1)) {
            Subject subject = validation.subjects().getFirst();
            for (String lengths : List.of("b0 q3 k5", "b1 q0 k5", "b2 q3 k0")) {
                for (int seed = 0; seed < 6; seed++) {
                    SparseCase test = parse("sparse f32 " + kind + " " + lengths + " hq2 dk8 count2 seed=" + seed);
                    Finding finding = test.prepare().on(subject);
                    assertEquals(Verdict.PASS, finding.verdict(), test.name() + ": " + finding.detail());
                }
            }
        }
    }

    /** What the first line expects in the end of the chain of the second, whose steps all do what they are to do. */
    @ParameterizedTest
    @CsvSource({
        "sparse f32 nsa b1 q9 k20 hq2 dk16 bk4 count3 groups causal window=6, window=6, window=7",
        "sparse f32 nsa b1 q9 k20 hq2 dk16 bk4 count3 groups causal window=6, window=6, window=5",
        "sparse bf16 nsa b1 q9 k20 hq2 dk16 bk4 count3 groups causal window=6, window=6, window=7",
        "sparse f32 lsh b1 q17 k20 hq2 dk16 bq4 bk4 count9 buckets=4 layers=3, layers=3, layers=2",
        "sparse f16 lsh b1 q17 k20 hq2 dk16 bq4 bk4 count9 buckets=4 layers=3 packed, layers=3, layers=2",
        "sparse f32 lsh b1 q17 k17 hq2 dk16 bq4 bk4 count9 buckets=4 layers=2 selfbias=-5, selfbias=-5, selfbias=0",
        "sparse f32 lsh b1 q17 k17 hq2 dk16 bq4 bk4 count9 buckets=4 layers=2 sinklogits, sinklogits, ''",
        "sparse f32 mean b1 q9 k20 hq2 dk16 bq2 bk4 count3 given causal, causal, ''"
    })
    void aWrongChainIsFound(String line, String right, String wrong) {
        SparseCase test = parse(line);
        SparseCase other = parse(line.replace(right, wrong));
        try (Validation validation = Validation.open("cpu:scalar", 1)) {
            Subject subject = validation.subjects().getFirst();
            Finding same = new ValueExamination(test, test.problem(test)).on(subject);
            assertEquals(Verdict.PASS, same.verdict(), same.detail());
            Finding found = new ValueExamination(test, test.problem(other)).on(subject);
            assertEquals(Verdict.FAIL, found.verdict());
            assertTrue(found.detail().startsWith("out["), found.detail());
        }
    }
}
