package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Native sparse attention (Yuan et al. 2025) put together from operators: attention to means of blocks, to the blocks
 * with the most importance, and to a window, joined by gates. {@code docs/attention.md} describes it.
 */
class NativeSparseAttentionTest {
    private static final int HEADS_Q = 4, HEADS_K = 2, SIZE = 16, BLOCK = 8, COUNT = 4, WINDOW = 12;
    private static final float SCALE = 0.25f; // 1 / sqrt(SIZE)

    /** Rounding of the FP32 operators, for sums of some hundred terms of size one; see the references in bench. */
    private static final double TOLERANCE = 2e-5;

    private final Arena arena = Arena.ofAuto();

    private Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    private Tensor random(Random random, long... shape) {
        Tensor tensor = tensor(DType.F32, shape);
        float[] values = new float[(int) tensor.spec().elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return tensor.copyFrom(values);
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 7, 8, 9, 61, 96})
    void threeGatedBranchesEqualTheirDefinition(int length) {
        Random random = new Random(length);
        int blocks = length / BLOCK; // whole ones: a block can be seen once all of it is past
        Tensor q = random(random, 1, length, HEADS_Q, SIZE);
        Tensor k = random(random, 1, length, HEADS_K, SIZE);
        Tensor v = random(random, 1, length, HEADS_K, SIZE);
        Tensor gates = random(random, length, 3, HEADS_Q);
        Tensor out = tensor(DType.F32, length, HEADS_Q, SIZE);
        Tensor branches = tensor(DType.F32, 3, 1, length, HEADS_Q, SIZE);
        Tensor[] branch = new Tensor[3];
        for (int b = 0; b < 3; b++) {
            branch[b] = branches.slice(0, b, b + 1).reshape(1, length, HEADS_Q, SIZE);
        }
        Tensor offsets;
        Tensor columns;
        try (Device device = Device.open("cpu", 2);
                Stream stream = device.newStream()) {
            // Means of blocks of keys and values are gated sums of their rows, all gates 1 / BLOCK.
            Tensor keys = means(device, stream, k, blocks);
            Tensor values = means(device, stream, v, blocks);
            Attention compressed = Attention.dense().blocks(1, 1, (long) length * blocks).scale(SCALE);
            try (Attention.Plan plan = compressed.plan(device, q.spec(), keys.spec(), values.spec())) {
                Attention.Arrays arrays = new Attention.Arrays();
                pastBlocks(arrays, length, blocks);
                plan.run(stream, arrays.q(q).k(keys).v(values).out(branch[0]));
            }
            Selection selection = Selection.blocks(1, BLOCK, COUNT)
                    .first(1).local(1).heads(HEADS_K).causal().scale(SCALE);
            try (Selection.Plan select = selection.plan(device, q.spec(), k.spec());
                    Attention.Plan plan = select.attention(Attention.causal().scale(SCALE))
                            .plan(device, q.spec(), k.spec(), v.spec())) {
                offsets = tensor(DType.S64, select.blockOffsets().shape());
                columns = tensor(DType.S32, select.blockColumns().shape());
                Selection.Lists lists = new Selection.Lists().blockOffsets(offsets).blockColumns(columns);
                select.run(stream, q, k, lists);
                plan.run(stream, lists.into(new Attention.Arrays().q(q).k(k).v(v).out(branch[1])));
            }
            try (Attention.Plan plan = Attention.causal().window(WINDOW - 1).scale(SCALE)
                    .plan(device, q.spec(), k.spec(), v.spec())) {
                plan.run(stream, q, k, v, branch[2]);
            }
            Tensor parts = branches.reshape(3, length, HEADS_Q, SIZE);
            try (Mix.Plan plan = Mix.sigmoid().plan(device, parts.spec(), gates.spec(), out.spec())) {
                plan.run(stream, parts, gates, null, null, out);
            }
        }
        for (int i = 0; i < length; i++) {
            for (int h = 0; h < HEADS_Q; h++) {
                int kv = h * HEADS_K / HEADS_Q;
                double[] expected = new double[SIZE];
                // Compressed: the mean of each block that has ended by i.
                double[][] meanKeys = new double[Math.min(blocks, (i + 1) / BLOCK)][];
                double[][] meanValues = new double[meanKeys.length][];
                for (int c = 0; c < meanKeys.length; c++) {
                    meanKeys[c] = mean(k, c, kv);
                    meanValues[c] = mean(v, c, kv);
                }
                add(expected, gates.getFloat(i, 0, h), q, i, h, meanKeys, meanValues);
                // Selected: the keys of the listed blocks up to i.
                List<Integer> seen = new ArrayList<>();
                long list = (long) kv * length + i;
                long from = offsets.memory().getAtIndex(ValueLayout.JAVA_LONG, list);
                long to = offsets.memory().getAtIndex(ValueLayout.JAVA_LONG, list + 1);
                assertEquals(Math.min(COUNT, i / BLOCK + 1), to - from);
                for (long entry = from; entry < to; entry++) {
                    int block = columns.memory().getAtIndex(ValueLayout.JAVA_INT, entry);
                    for (int j = block * BLOCK; j < (block + 1) * BLOCK && j <= i; j++) {
                        seen.add(j);
                    }
                }
                add(expected, gates.getFloat(i, 1, h), q, i, h, rows(k, seen, kv), rows(v, seen, kv));
                // The window.
                List<Integer> near = new ArrayList<>();
                for (int j = Math.max(0, i - WINDOW + 1); j <= i; j++) {
                    near.add(j);
                }
                add(expected, gates.getFloat(i, 2, h), q, i, h, rows(k, near, kv), rows(v, near, kv));
                for (int e = 0; e < SIZE; e++) {
                    assertEquals(expected[e], out.getFloat(i, h, e), TOLERANCE, "query " + i + ", head " + h);
                }
            }
        }
    }

    /** Every query sees the blocks that have ended by its position. */
    private void pastBlocks(Attention.Arrays arrays, int length, int blocks) {
        long[] offsets = new long[length + 1];
        long[] columns = new long[length * blocks];
        for (int i = 0; i < length; i++) {
            int past = (i + 1) / BLOCK;
            for (int c = 0; c < past; c++) {
                columns[(int) offsets[i] + c] = c;
            }
            offsets[i + 1] = offsets[i] + past;
        }
        arrays.blockOffsets(tensor(DType.S64, offsets.length).copyFrom(offsets));
        arrays.blockColumns(tensor(DType.S32, columns.length).copyFrom(columns));
    }

    private Tensor means(Device device, Stream stream, Tensor x, int blocks) {
        Tensor rows = x.reshape(x.size(1), HEADS_K, SIZE);
        Tensor index = tensor(DType.S32, blocks, BLOCK);
        long[] numbers = new long[blocks * BLOCK];
        for (int j = 0; j < numbers.length; j++) {
            numbers[j] = j;
        }
        index.copyFrom(numbers);
        Tensor share = Tensor.of(
                tensor(DType.F32, 1).copyFrom(new float[] {1f / BLOCK}).memory(),
                TensorSpec.of(DType.F32, blocks, BLOCK, HEADS_K).withStrides(0, 0, 0));
        Tensor means = tensor(DType.F32, blocks, HEADS_K, SIZE);
        try (Mix.Plan plan = Mix.of().rowIndex().plan(device, rows.spec(), share.spec(), means.spec())) {
            plan.run(stream, rows, share, index, null, means);
        }
        return means.reshape(1, blocks, HEADS_K, SIZE);
    }

    private static double[] mean(Tensor x, int block, int head) {
        double[] mean = new double[SIZE];
        for (int j = block * BLOCK; j < (block + 1) * BLOCK; j++) {
            for (int e = 0; e < SIZE; e++) {
                mean[e] += x.getFloat(0, j, head, e) / BLOCK;
            }
        }
        return mean;
    }

    private static double[][] rows(Tensor x, List<Integer> tokens, int head) {
        double[][] rows = new double[tokens.size()][SIZE];
        for (int t = 0; t < rows.length; t++) {
            for (int e = 0; e < SIZE; e++) {
                rows[t][e] = x.getFloat(0, tokens.get(t), head, e);
            }
        }
        return rows;
    }

    /** Adds sigmoid(gate) times attention of a query to these keys and values. */
    private static void add(double[] to, double gate, Tensor q, int i, int h, double[][] keys, double[][] values) {
        double[] weights = new double[keys.length];
        double sum = 0;
        for (int j = 0; j < keys.length; j++) {
            double score = 0;
            for (int e = 0; e < SIZE; e++) {
                score += SCALE * q.getFloat(0, i, h, e) * keys[j][e];
            }
            weights[j] = Math.exp(score);
            sum += weights[j];
        }
        for (int j = 0; j < keys.length; j++) {
            for (int e = 0; e < SIZE; e++) {
                to[e] += 1 / (1 + Math.exp(-gate)) * weights[j] / sum * values[j][e];
            }
        }
    }
}
