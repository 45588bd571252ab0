package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/**
 * That every part of a pattern and every array gets to where it is meant to, and that wrong ones are named. Queries and
 * keys are zeros and the values are the unit matrix, so that the output of a query is the weights of its keys.
 */
class AttentionArraysTest {
    private static final Arena ARENA = Arena.ofShared();
    private static final Device DEVICE = Device.open("cpu", 1);
    private static final Stream STREAM = DEVICE.newStream();
    private static final float TOLERANCE = 1e-5f;
    private static final int LENGTH = 4;

    @AfterAll
    static void close() {
        STREAM.close();
        DEVICE.close();
        ARENA.close();
    }

    private static Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(ARENA, dtype, shape);
    }

    private static Tensor floats(long[] shape, float... values) {
        return tensor(DType.F32, shape).copyFrom(values);
    }

    private static Tensor integers(DType dtype, long[] shape, long... values) {
        return tensor(dtype, shape).copyFrom(values);
    }

    private static long[] shape(long... sizes) {
        return sizes;
    }

    private static TensorSpec spec(long... shape) {
        return TensorSpec.of(DType.F32, shape);
    }

    private static Tensor bytes(long[] shape, int... values) {
        Tensor tensor = tensor(DType.U8, shape);
        float[] converted = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            converted[i] = values[i];
        }
        return tensor.copyFrom(converted);
    }

    /** The weights of four keys for each of {@code lenQ} queries of one sequence and head, row by row. */
    private static float[] weights(Attention attention, int lenQ, Consumer<Attention.Arrays> set) {
        return weights(attention, lenQ, 1, set);
    }

    private static float[] weights(Attention attention, int lenQ, int heads, Consumer<Attention.Arrays> set) {
        Tensor q = tensor(DType.F32, 1, lenQ, heads, 2);
        Tensor k = tensor(DType.F32, 1, LENGTH, 1, 2);
        Tensor v = tensor(DType.F32, 1, LENGTH, 1, LENGTH);
        for (int j = 0; j < LENGTH; j++) {
            v.setFloat(1, 0, j, 0, j);
        }
        Tensor out = tensor(DType.F32, 1, lenQ, heads, LENGTH);
        Attention.Arrays arrays = new Attention.Arrays().q(q).k(k).v(v).out(out);
        set.accept(arrays);
        try (Attention.Plan plan = attention.plan(DEVICE, q.spec(), k.spec(), v.spec())) {
            plan.run(STREAM, arrays);
        }
        return out.toFloatArray();
    }

    /** The weights of keys with these scores; the others are not seen. */
    private static float[] softmax(double... scores) {
        double sum = 0;
        for (double score : scores) {
            sum += Math.exp(score);
        }
        float[] weights = new float[scores.length];
        for (int j = 0; j < scores.length; j++) {
            weights[j] = sum == 0 ? 0 : (float) (Math.exp(scores[j]) / sum);
        }
        return weights;
    }

    /** Keys of equal scores. */
    private static float[] seen(int... keys) {
        double[] scores = {HIDDEN, HIDDEN, HIDDEN, HIDDEN};
        for (int key : keys) {
            scores[key] = 0;
        }
        return softmax(scores);
    }

    private static final double HIDDEN = Double.NEGATIVE_INFINITY;

    private static void assertRows(float[] actual, float[]... rows) {
        float[] expected = new float[actual.length];
        assertEquals(actual.length, rows.length * LENGTH);
        for (int i = 0; i < rows.length; i++) {
            System.arraycopy(rows[i], 0, expected, i * LENGTH, LENGTH);
        }
        assertArrayEquals(expected, actual, TOLERANCE);
    }

    @Test
    void windowsWithSinksAndDilation() {
        Attention attention = Attention.causal().window(1);
        assertRows(weights(attention.sinks(1), 4, a -> {}), seen(0), seen(0, 1), seen(0, 1, 2), seen(0, 2, 3));
        assertRows(weights(attention.dilation(2), 4, a -> {}), seen(0), seen(1), seen(0, 2), seen(1, 3));
    }

    @Test
    void prefixes() {
        assertRows(
                weights(Attention.causal().prefix(), 4, a -> a.prefixes(integers(DType.S64, shape(1), 3))),
                seen(0, 1, 2), seen(0, 1, 2), seen(0, 1, 2), seen(0, 1, 2, 3));
    }

    @Test
    void globals() {
        Tensor globals = integers(DType.S32, shape(1, 2), 1, -1);
        assertRows(
                weights(Attention.causal().window(0).globals(2), 4, a -> a.globals(globals)),
                seen(0), seen(0, 1), seen(1, 2), seen(1, 3));
    }

    @Test
    void documents() {
        Tensor queries = integers(DType.S32, shape(1, 1, 1, 4), 7, 8, 8, 9);
        Tensor keys = integers(DType.S32, shape(1, 1, 1, 4), 8, 7, 8, 7);
        assertRows(
                weights(Attention.dense().documents(), 4, a -> a.qDocuments(queries).kDocuments(keys)),
                seen(1, 3), seen(0, 2), seen(0, 2), seen());
        // The first layer takes away what its labels have in common.
        Tensor queryLayers = integers(DType.S32, shape(1, 2, 1, 4), 1, 1, 2, 2, 7, 8, 8, 9);
        Tensor keyLayers = integers(DType.S32, shape(1, 2, 1, 4), 1, 2, 3, 1, 8, 7, 8, 7);
        assertRows(
                weights(Attention.dense().documents(1, 2), 4, a -> a.qDocuments(queryLayers).kDocuments(keyLayers)),
                seen(1), seen(2), seen(0, 2), seen());
    }

    @Test
    void trees() {
        Tensor tree = bytes(shape(1, 3, 3), 1, 0, 0, 0, 1, 0, 0, 0, 0);
        assertRows(
                weights(Attention.dense().tree(3), 2, a -> a.tree(tree)),
                seen(0, 1, 2), seen(0, 1, 3));
    }

    @Test
    void blocks() {
        Tensor offsets = integers(DType.S64, shape(3), 0, 1, 3);
        Tensor columns = integers(DType.S32, shape(3), 1, 0, 1);
        Attention attention = Attention.dense().blocks(2, 2, 3);
        assertRows(
                weights(attention, 4, a -> a.blockOffsets(offsets).blockColumns(columns)),
                seen(2, 3), seen(2, 3), seen(0, 1, 2, 3), seen(0, 1, 2, 3));
        Tensor index = integers(DType.S32, shape(3), -1, 1, 0);
        Tensor masks = bytes(shape(2, 2, 2), 1, 1, 0, 0, 1, 0, 0, 1);
        Tensor bias = floats(shape(3), 5, 1, 2);
        assertRows(
                weights(attention.blockMasks(2).blockBias(), 4, a -> a.blockOffsets(offsets)
                        .blockColumns(columns)
                        .blockMaskIndex(index)
                        .blockMasks(masks)
                        .blockBias(bias)),
                seen(2, 3), seen(2, 3), softmax(1, HIDDEN, 2, 2), softmax(HIDDEN, 1, HIDDEN, HIDDEN));
    }

    @Test
    void orders() {
        Tensor offsets = integers(DType.S64, shape(3), 0, 1, 2);
        Tensor columns = integers(DType.S32, shape(2), 0, 1);
        Tensor queries = integers(DType.S32, shape(1, 1, 4), 0, 2, 1, 3);
        Tensor keys = integers(DType.S32, shape(1, 1, 4), 3, 1, 2, -1);
        Attention attention = Attention.dense().blocks(2, 2, 2).order(1);
        assertRows(
                weights(attention, 4, a -> a.blockOffsets(offsets).blockColumns(columns).qOrder(queries).kOrder(keys)),
                seen(1, 3), seen(2), seen(1, 3), seen(2));
        Expect.illegalArgument("q_order", () -> weights(attention, 4,
                a -> a.blockOffsets(offsets).blockColumns(columns).qOrder(keys).kOrder(keys)));
        Tensor permuted = integers(DType.S32, shape(1, 1, 4), 3, 1, 2, 0);
        assertRows(
                weights(attention, 4,
                        a -> a.blockOffsets(offsets).blockColumns(columns).qOrder(queries).kOrder(permuted)),
                seen(1, 3), seen(0, 2), seen(1, 3), seen(0, 2));
    }

    @Test
    void scores() {
        Tensor slope = floats(shape(1), 0.5f);
        assertRows(
                weights(Attention.dense().slopes(), 2, a -> a.slopes(slope)),
                softmax(-1, -0.5, 0, -0.5), softmax(-1.5, -1, -0.5, 0));
        Tensor bias = floats(shape(1, 1, 2, 4), 0, 1, 2, 3, Float.NEGATIVE_INFINITY, 1, 1, 0);
        assertRows(
                weights(Attention.dense().bias(bias.spec()), 2, a -> a.bias(bias)),
                softmax(0, 1, 2, 3), softmax(HIDDEN, 1, 1, 0));
        assertRows(weights(Attention.dense().selfBias(-3), 2, a -> {}), softmax(0, 0, -3, 0), softmax(0, 0, 0, -3));
        Tensor logit = floats(shape(1), 2);
        Tensor lse = tensor(DType.F32, 1, 1, 1);
        float share = (float) (1 / (4 + Math.exp(2)));
        assertArrayEquals(
                new float[] {share, share, share, share},
                weights(Attention.dense().sinkLogits(), 1, a -> a.sinkLogits(logit).lse(lse)),
                TOLERANCE);
        assertEquals(Math.log(4), lse.getFloat(0, 0, 0), TOLERANCE, "leaves the sink logit out");
    }

    @Test
    void softcapOfLargeScores() {
        Tensor q = floats(shape(1, 1, 1, 1), 30);
        Tensor k = floats(shape(1, 2, 1, 1), 1, 0);
        Tensor v = floats(shape(1, 2, 1, 2), 1, 0, 0, 1);
        Tensor out = tensor(DType.F32, 1, 1, 1, 2);
        try (Attention.Plan plan = Attention.dense().softcap(2).plan(DEVICE, q.spec(), k.spec(), v.spec())) {
            plan.run(STREAM, q, k, v, out);
        }
        assertArrayEquals(softmax(2 * Math.tanh(15), 0), out.toFloatArray(), TOLERANCE);
    }

    @Test
    void headsWithPatternsOfTheirOwn() {
        Attention each = Attention.heads(Attention.causal(), Attention.dense().window(0, 0).globals(1));
        Tensor globals = integers(DType.S32, shape(1, 1), 3);
        assertRows(
                weights(each.scale(1), 2, 2, a -> a.globals(globals)),
                seen(0, 1, 2), seen(2), seen(0, 1, 2, 3), seen(0, 1, 2, 3));
    }

    /** Packed queries of half precision over pages of INT8, with an output of F32. */
    @Test
    void pages() {
        TensorSpec q = TensorSpec.of(DType.F16, 3, 1, 1);
        TensorSpec pages = TensorSpec.of(DType.S8, 4, 2, 1, 1);
        Tensor queries = Tensor.of(ARENA.allocate(6, 64), q).copyFrom(new float[] {1, 1, 1});
        Tensor keys = Tensor.of(ARENA.allocate(8, 64), pages).copyFrom(new float[] {0, 0, 10, 20, 0, 0, 30, 40});
        Tensor values = Tensor.of(ARENA.allocate(8, 64), pages).copyFrom(new float[] {0, 0, 1, 2, 0, 0, 3, 4});
        Tensor out = tensor(DType.F32, 3, 1, 1);
        Attention.Arrays arrays = new Attention.Arrays()
                .q(queries)
                .k(keys)
                .v(values)
                .out(out)
                .qIndex(integers(DType.S64, shape(3), 0, 1, 3))
                .kIndex(integers(DType.S64, shape(2), 3, 2))
                .blockTable(integers(DType.S32, shape(2, 2), 3, 1, 1, -7)) // no page beyond the second's length
                .kScales(floats(shape(4, 2, 1), 9, 9, 0.1f, 0.1f, 9, 9, 0.1f, 0.05f))
                .vScales(floats(shape(4, 2, 1), 9, 9, 10, 100, 9, 9, 1000, 10000));
        try (Attention.Plan plan = Attention.dense().packed(2).paged(4).scale(1).plan(DEVICE, q, pages, pages,
                out.spec())) {
            plan.run(STREAM, arrays.lenK(3));
            float[] first = softmax(3, 2, 1);
            float[] second = softmax(1, 2);
            float expected = first[0] * 3000 + first[1] * 40000 + first[2] * 10;
            float other = second[0] * 10 + second[1] * 200;
            assertArrayEquals(new float[] {expected, other, other}, out.toFloatArray(), 0.1f);
            Expect.illegalArgument("lenK: 5, expected 0 to 4", () -> plan.run(STREAM, arrays.lenK(5)));
            Expect.illegalArgument("lenK: -2", () -> plan.run(STREAM, arrays.lenK(-2)));
            plan.run(STREAM, arrays.lenK(-1)); // the plan's
            Expect.illegalArgument("kIndex: S64[1], expected 2 in dimension 0",
                    () -> plan.run(STREAM, arrays.kIndex(integers(DType.S64, shape(1), 2))));
            Expect.illegalArgument("kIndex: null, expected S64 lengths", () -> plan.run(STREAM, arrays.kIndex(null)));
        }
    }

    @Test
    void descriptionsAreChecked() {
        Attention dense = Attention.dense();
        Expect.illegalArgument("dilation: 0, expected 1 or more", () -> dense.dilation(0));
        Expect.illegalArgument("sinks: -1", () -> dense.sinks(-1));
        Expect.illegalArgument("maxGlobals: 0", () -> dense.globals(0));
        Expect.illegalArgument("heads: 0", () -> dense.documents(0, 1));
        Expect.illegalArgument("layers: 0", () -> dense.documents(1, 0));
        Expect.illegalArgument("maxTree: 0", () -> dense.tree(0));
        Expect.illegalArgument("blockQ: 0", () -> dense.blocks(0, 1, 1));
        Expect.illegalArgument("blockK: -1", () -> dense.blocks(1, -1, 1));
        Expect.illegalArgument("heads: 0", () -> dense.blocks(1, 1, 0, 1));
        Expect.illegalArgument("maxBlocks: -1", () -> dense.blocks(1, 1, -1));
        Expect.illegalArgument("maxMasks: -1", () -> dense.blockMasks(-1));
        Expect.illegalArgument("heads: 0", () -> dense.order(0));
        Expect.illegalArgument("cap: -1.0", () -> dense.softcap(-1));
        Expect.illegalArgument("cap: NaN", () -> dense.softcap(Float.NaN));
        Expect.illegalArgument("cap: Infinity", () -> dense.softcap(Float.POSITIVE_INFINITY));
        Expect.illegalArgument("bias: NaN", () -> dense.selfBias(Float.NaN));
        Expect.illegalArgument("maxLenK: -1", () -> dense.paged(-1));
        assertThrows(NullPointerException.class, () -> dense.bias(null));
    }

    @Test
    void patternsOfHeadsAreChecked() {
        Attention causal = Attention.causal();
        Attention each = Attention.heads(causal, causal);
        Expect.illegalArgument("ofEachHead: none", Attention::heads);
        Expect.illegalArgument("ofEachHead[1]: patterns for each of 2 heads", () -> Attention.heads(causal, each));
        Expect.illegalArgument("ofEachHead[2]: maxGlobals 3, expected 2",
                () -> Attention.heads(causal.globals(2), causal, causal.globals(3)));
        Expect.illegalArgument("ofEachHead[1]: blockK 2, expected 1",
                () -> Attention.heads(causal.blocks(1, 1, 5), causal.blocks(1, 2, 5)));
        Expect.illegalArgument("ofEachHead[1]: blockBias 1, expected 0",
                () -> Attention.heads(causal.blocks(1, 1, 5), causal.blocks(1, 1, 5).blockBias()));
        Expect.illegalArgument("ofEachHead[1]: layers of documents 2",
                () -> Attention.heads(causal.documents(), causal.documents(1, 2)));
        assertThrows(NullPointerException.class, () -> Attention.heads(causal, null));
        for (BiFunction<Attention, Long, Attention> change :
                List.<BiFunction<Attention, Long, Attention>>of(Attention::window, Attention::sinks,
                        Attention::dilation, Attention::globals, Attention::tree, (a, n) -> a.prefix())) {
            Expect.illegalState("before heads(...)", () -> change.apply(each, 1L));
        }
        TensorSpec three = spec(1, 2, 3, 8);
        Expect.illegalArgument("expected 2 heads, as many as heads(...) was given",
                () -> each.plan(DEVICE, three, three, three));
    }

    @Test
    void plansAreChecked() {
        TensorSpec q = spec(2, 5, 4, 8);
        TensorSpec k = spec(2, 7, 2, 8);
        TensorSpec pages = spec(9, 16, 2, 8);
        Attention dense = Attention.dense();
        Expect.illegalArgument("q: S8[2, 5, 4, 8], expected F32, BF16 or F16",
                () -> dense.plan(DEVICE, TensorSpec.of(DType.S8, 2, 5, 4, 8), k, k));
        Expect.illegalArgument("k: U8", () -> dense.plan(DEVICE, q, TensorSpec.of(DType.U8, 2, 7, 2, 8), k));
        Expect.illegalArgument("v: F32[2, 7, 2, 8], expected S8",
                () -> dense.plan(DEVICE, q, TensorSpec.of(DType.S8, 2, 7, 2, 8), k));
        Expect.illegalArgument("out: BF16[2, 5, 4, 8], expected F32",
                () -> dense.plan(DEVICE, q, k, k, TensorSpec.of(DType.BF16, 2, 5, 4, 8)));
        Expect.illegalArgument("k: F32[9, 2, 8], expected [pages, page size, heads, head size]",
                () -> dense.paged(4).plan(DEVICE, q, spec(9, 2, 8), pages));
        Expect.illegalArgument("v: F32[8, 16, 2, 8], expected 9 in dimension 0, the pages of k",
                () -> dense.paged(4).plan(DEVICE, q, pages, spec(8, 16, 2, 8)));
        Expect.illegalArgument("k: F32[9, 0, 2, 8], expected a page size",
                () -> dense.paged(4).plan(DEVICE, q, spec(9, 0, 2, 8), spec(9, 0, 2, 8)));
        Expect.illegalArgument("documents: 3 heads, expected 1, 2 as the keys have, or 4",
                () -> dense.documents(3, 1).plan(DEVICE, q, k, k));
        Expect.illegalArgument("blocks: 3 heads", () -> dense.blocks(1, 1, 3, 1).plan(DEVICE, q, k, k));
        Expect.illegalArgument("order: 3 heads", () -> dense.order(3).plan(DEVICE, q, k, k));
        Expect.illegalArgument("blockMasks: 2, expected blocks(...) too",
                () -> dense.blockMasks(2).plan(DEVICE, q, k, k));
        Expect.illegalArgument("blockBias: set", () -> dense.blockBias().plan(DEVICE, q, k, k));
        Expect.illegalArgument("bias", () -> dense.bias(spec(2, 4, 5)).plan(DEVICE, q, k, k));
        Expect.illegalArgument("bias", () -> dense.bias(spec(2, 4, 5, 8)).plan(DEVICE, q, k, k));
        Expect.illegalArgument("bias", () -> dense.bias(spec(2, 1, 5, 7)).plan(DEVICE, q, k, k));
        Expect.illegalArgument("globals", () -> dense.globals(Long.MAX_VALUE).plan(DEVICE, q, k, k));
        Expect.illegalArgument("tree", () -> dense.tree(1L << 40).plan(DEVICE, q, k, k));
        Expect.illegalArgument("blockOffsets", () -> dense.packed(Long.MAX_VALUE / 32).blocks(1, 1, 4, 1)
                .plan(DEVICE, spec(5, 4, 8), spec(7, 2, 8), spec(7, 2, 8)));
        Expect.illegalArgument("maxSequences", () -> dense.packed(Long.MAX_VALUE)
                .plan(DEVICE, spec(5, 4, 8), spec(7, 2, 8), spec(7, 2, 8)));
    }

    /** An array and how it is set. */
    private record Setting(String name, Tensor tensor, BiFunction<Attention.Arrays, Tensor, Attention.Arrays> set) {}

    private static List<Setting> everyArray() {
        return List.of(
                new Setting("kScales", tensor(DType.F32, 7, 16, 2), Attention.Arrays::kScales),
                new Setting("vScales", tensor(DType.F32, 7, 16, 2), Attention.Arrays::vScales),
                new Setting("blockTable", tensor(DType.S32, 2, 3), Attention.Arrays::blockTable),
                new Setting("sinkLogits", tensor(DType.F32, 4), Attention.Arrays::sinkLogits),
                new Setting("slopes", tensor(DType.F32, 4), Attention.Arrays::slopes),
                new Setting("bias", tensor(DType.F32, 2, 4, 3, 40), Attention.Arrays::bias),
                new Setting("prefixes", tensor(DType.S64, 2), Attention.Arrays::prefixes),
                new Setting("globals", integers(DType.S32, shape(2, 2), -1, -1, -1, -1), Attention.Arrays::globals),
                new Setting("qDocuments", tensor(DType.S32, 2, 1, 2, 3), Attention.Arrays::qDocuments),
                new Setting("kDocuments", tensor(DType.S32, 2, 1, 2, 40), Attention.Arrays::kDocuments),
                new Setting("tree", tensor(DType.U8, 2, 3, 3), Attention.Arrays::tree),
                new Setting("blockOffsets", tensor(DType.S64, 2 * 2 * 4 + 1), Attention.Arrays::blockOffsets),
                new Setting("blockColumns", tensor(DType.S32, 9), Attention.Arrays::blockColumns),
                new Setting("blockMaskIndex", tensor(DType.S32, 9), Attention.Arrays::blockMaskIndex),
                new Setting("blockMasks", tensor(DType.U8, 3, 2, 16), Attention.Arrays::blockMasks),
                new Setting("blockBias", tensor(DType.F32, 9), Attention.Arrays::blockBias),
                new Setting("qOrder", integers(DType.S32, shape(2, 1, 3), 0, 1, 2, 0, 1, 2), Attention.Arrays::qOrder),
                new Setting("kOrder", tensor(DType.S32, 2, 1, 40), Attention.Arrays::kOrder));
    }

    @Test
    void runsAreChecked() {
        TensorSpec pages = TensorSpec.of(DType.S8, 7, 16, 2, 8);
        TensorSpec q = spec(2, 3, 4, 8);
        Attention everything = Attention.dense().prefix().globals(2).documents(2, 1).tree(3).blocks(2, 16, 4, 9)
                .blockMasks(3).blockBias().order(1).sinkLogits().slopes().bias(spec(2, 4, 3, 40)).paged(40);
        Tensor out = tensor(DType.F32, 2, 3, 4, 8);
        Attention.Arrays arrays = new Attention.Arrays();
        List<Setting> settings = everyArray();
        try (Attention.Plan plan = everything.plan(DEVICE, q, pages, pages)) {
            Expect.illegalArgument("q: null", () -> plan.run(STREAM, arrays));
            arrays.q(tensor(DType.F32, 2, 3, 4, 8));
            Expect.illegalArgument("k: null", () -> plan.run(STREAM, arrays));
            arrays.k(tensor(DType.S8, 7, 16, 2, 8));
            Expect.illegalArgument("v: null", () -> plan.run(STREAM, arrays));
            arrays.v(tensor(DType.S8, 7, 16, 2, 8));
            Expect.illegalArgument("out: null", () -> plan.run(STREAM, arrays));
            arrays.out(out);
            Expect.illegalArgument("kIndex: null", () -> plan.run(STREAM, arrays));
            arrays.kIndex(tensor(DType.S64, 2));
            for (Setting setting : settings) {
                // The first one that is missing.
                Expect.illegalArgument(setting.name + ": null, expected", () -> plan.run(STREAM, arrays));
                setting.set.apply(arrays, setting.tensor);
            }
            plan.run(STREAM, arrays);
            assertTrue(plan.info().blocks() >= 0);
            for (Setting setting : settings) {
                TensorSpec spec = setting.tensor.spec();
                DType other = spec.dtype() == DType.U8 ? DType.S8 : DType.U8;
                long[] more = spec.shape();
                more[more.length - 1]++;
                List<Tensor> wrong = new ArrayList<>(List.of(tensor(other, spec.shape()), tensor(spec.dtype(), more)));
                if (spec.rank() > 1 && spec.size(0) == 2) { // one for each sequence
                    wrong.add(setting.tensor.slice(0, 0, 1));
                }
                for (Tensor tensor : wrong) {
                    setting.set.apply(arrays, tensor);
                    Expect.illegalArgument(setting.name, () -> plan.run(STREAM, arrays));
                }
                setting.set.apply(arrays, setting.tensor);
            }
            Expect.illegalArgument("out: read-only",
                    () -> plan.run(STREAM, arrays.out(Tensor.of(out.memory().asReadOnly(), out.spec()))));
            arrays.out(out);
            // Fewer sequences than planned, of arrays that have as many.
            arrays.q(tensor(DType.F32, 1, 3, 4, 8)).out(out.slice(0, 0, 1)).kIndex(tensor(DType.S64, 1));
            Expect.illegalArgument("blockTable: S32[2, 3], expected 1 in dimension 0, for the run's 1 sequences",
                    () -> plan.run(STREAM, arrays));
            for (Setting setting : settings) {
                TensorSpec spec = setting.tensor.spec();
                if (setting.name.equals("blockOffsets")) {
                    setting.set.apply(arrays, setting.tensor.slice(0, 0, 2 * 4 + 1));
                } else if (spec.size(0) == 2) {
                    setting.set.apply(arrays, setting.tensor.slice(0, 0, 1));
                }
            }
            plan.run(STREAM, arrays);
        }
        Tensor key = tensor(DType.F32, 2, 5, 2, 8);
        try (Attention.Plan plain = Attention.dense().plan(DEVICE, q, key.spec(), key.spec())) {
            for (Setting setting : settings) {
                Attention.Arrays none = new Attention.Arrays()
                        .q(tensor(DType.F32, 2, 3, 4, 8)).k(key).v(key).out(out);
                setting.set.apply(none, setting.tensor);
                Expect.illegalArgument(setting.name + ": " + setting.tensor.spec() + ", expected null",
                        () -> plain.run(STREAM, none));
            }
            Expect.illegalArgument("lenK: 3, expected -1, because k is not paged",
                    () -> plain.run(STREAM, new Attention.Arrays()
                            .q(tensor(DType.F32, 2, 3, 4, 8)).k(key).v(key).out(out).lenK(3)));
            assertThrows(NullPointerException.class, () -> plain.run(STREAM, null));
        }
        try (Attention.Plan sloped = Attention.dense().slopes().plan(DEVICE, q, key.spec(), key.spec())) {
            Expect.illegalArgument("slopes: null, expected F32[4] as planned",
                    () -> sloped.run(STREAM, tensor(DType.F32, 2, 3, 4, 8), key, key, out));
        }
    }
}
