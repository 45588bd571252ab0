package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import io.gatun.MemoryPlan.Lifetime;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class MemoryPlanTest {
    private static Lifetime bytes(long bytes, int first, int last) {
        return new Lifetime(bytes, 1, first, last);
    }

    /** Checks a plan against its definition, tensor by tensor and step by step. */
    private static void check(List<Lifetime> lifetimes, MemoryPlan plan) {
        long end = 0;
        long maxLive = 0;
        long alignment = 1;
        for (int i = 0; i < lifetimes.size(); i++) {
            Lifetime a = lifetimes.get(i);
            long from = plan.offset(i);
            long to = from + a.bytes();
            assertTrue(from >= 0 && from % a.alignment() == 0, "offset " + from + " of " + a);
            end = Math.max(end, to);
            alignment = Math.max(alignment, a.alignment());
            long live = 0; // in the step that a begins in: every maximum begins with some tensor
            for (int j = 0; j < lifetimes.size(); j++) {
                Lifetime b = lifetimes.get(j);
                if (b.first() <= a.first() && a.first() <= b.last()) {
                    live += b.bytes();
                }
                boolean together = a.first() <= b.last() && b.first() <= a.last();
                boolean apart = to <= plan.offset(j) || plan.offset(j) + b.bytes() <= from;
                if (i != j && together && !apart && a.bytes() > 0 && b.bytes() > 0) {
                    fail(a + " at " + from + " overlaps " + b + " at " + plan.offset(j));
                }
            }
            maxLive = Math.max(maxLive, live);
        }
        assertEquals(end, plan.bytes());
        assertEquals(maxLive, plan.maxLiveBytes());
        assertEquals(alignment, plan.alignment());
    }

    private static MemoryPlan planned(List<Lifetime> lifetimes) {
        MemoryPlan plan = MemoryPlan.of(lifetimes);
        check(lifetimes, plan);
        return plan;
    }

    private static void assertOffsets(MemoryPlan plan, long... offsets) {
        for (int i = 0; i < offsets.length; i++) {
            assertEquals(offsets[i], plan.offset(i), "tensor " + i);
        }
    }

    @Test
    void nothingTakesNothing() {
        MemoryPlan plan = planned(List.of());
        assertEquals(0, plan.bytes());
        assertEquals(1, plan.alignment());
        assertEquals(0, planned(List.of(bytes(0, 0, 3), bytes(0, 1, 1))).bytes());
    }

    @Test
    void aChainTakesTwoPlaces() {
        MemoryPlan plan = planned(List.of(bytes(100, 0, 1), bytes(100, 1, 2), bytes(100, 2, 3), bytes(100, 3, 4)));
        assertEquals(200, plan.bytes());
        assertOffsets(plan, 0, 100, 0, 100);
    }

    @Test
    void theLastStepIsInside() {
        assertEquals(20, planned(List.of(bytes(10, 0, 1), bytes(10, 1, 2))).bytes());
        assertEquals(10, planned(List.of(bytes(10, 0, 1), bytes(10, 2, 3))).bytes());
    }

    @Test
    void offsetsAreAligned() {
        MemoryPlan plan = planned(List.of(bytes(100, 0, 0), new Lifetime(1, 256, 0, 0), new Lifetime(1, 256, 0, 0)));
        assertEquals(257, plan.bytes());
        assertEquals(256, plan.alignment());
        assertEquals(102, plan.maxLiveBytes());
    }

    /** On these the best greedy order needs 1.0165 times the bound on average. */
    @Test
    void searchFindsWhatGreedyOrdersMiss() {
        Random random = new Random(7);
        double ratios = 0;
        int plans = 100;
        for (int round = 0; round < plans; round++) {
            List<Lifetime> lifetimes = new ArrayList<>();
            for (int i = 0; i < 60; i++) {
                int first = random.nextInt(40);
                int last = Math.min(39, first + (int) (40 * Math.pow(random.nextDouble(), 3)));
                lifetimes.add(bytes(1 + random.nextInt(9), first, last));
            }
            MemoryPlan plan = planned(lifetimes);
            ratios += (double) plan.bytes() / plan.maxLiveBytes();
        }
        assertTrue(ratios / plans < 1.01, "on average " + ratios / plans);
    }

    private static List<Lifetime> random(Random random, int count, int steps, int mostAlignment) {
        List<Lifetime> lifetimes = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            int first = random.nextInt(steps);
            int last = Math.min(steps - 1, first + (int) (steps * Math.pow(random.nextDouble(), 3)));
            long bytes = random.nextInt(8) == 0 ? 0 : (long) Math.exp(random.nextDouble() * 12);
            lifetimes.add(new Lifetime(bytes, 1L << random.nextInt(1 + Long.numberOfTrailingZeros(mostAlignment)),
                    first, last));
        }
        return lifetimes;
    }

    @Test
    void randomLifetimesNeverOverlapAndPlansRepeat() {
        Random random = new Random(1);
        for (int round = 0; round < 300; round++) {
            List<Lifetime> lifetimes =
                    random(random, 1 + random.nextInt(120), 1 + random.nextInt(100), 1 << random.nextInt(8));
            MemoryPlan plan = planned(lifetimes);
            MemoryPlan again = MemoryPlan.of(lifetimes);
            for (int i = 0; i < lifetimes.size(); i++) {
                assertEquals(plan.offset(i), again.offset(i));
            }
        }
    }

    /** A graph in the order of its steps: each operation writes one tensor and reads others. */
    private static final class Graph {
        private final List<long[]> tensors = new ArrayList<>(); // bytes, first, last
        private int steps;

        /** Adds an operation, and returns the number of the tensor of {@code floats} values that it writes. */
        int add(long floats, int... inputs) {
            for (int input : inputs) {
                tensors.get(input)[2] = steps;
            }
            tensors.add(new long[] {floats * Float.BYTES, steps, steps});
            steps++;
            return tensors.size() - 1;
        }

        /** Lets the operation that was added last have scratch memory. */
        void scratch(long floats) {
            tensors.add(new long[] {floats * Float.BYTES, steps - 1, steps - 1});
        }

        List<Lifetime> lifetimes() {
            return tensors.stream().map(t -> new Lifetime(t[0], 64, (int) t[1], (int) t[2])).toList();
        }
    }

    /** The forward pass of a decoder with pre-normalisation and residuals, such as GPT-2. */
    private static List<Lifetime> transformer(
            int layers, long tokens, long width, long heads, long hidden, long words, boolean scores) {
        Graph graph = new Graph();
        int x = graph.add(tokens * width);
        for (int layer = 0; layer < layers; layer++) {
            int norm = graph.add(tokens * width, x);
            int q = graph.add(tokens * width, norm);
            int k = graph.add(tokens * width, norm);
            int v = graph.add(tokens * width, norm);
            int mixed;
            if (scores) { // attention from its parts, as a graph without a fused kernel has it
                int products = graph.add(heads * tokens * tokens, q, k);
                int weights = graph.add(heads * tokens * tokens, products);
                mixed = graph.add(tokens * width, weights, v);
            } else {
                mixed = graph.add(tokens * width, q, k, v);
            }
            int projected = graph.add(tokens * width, mixed);
            int sum = graph.add(tokens * width, x, projected);
            int second = graph.add(tokens * width, sum);
            int up = graph.add(tokens * hidden, second);
            int activated = graph.add(tokens * hidden, up);
            int down = graph.add(tokens * width, activated);
            x = graph.add(tokens * width, sum, down);
        }
        int last = graph.add(tokens * width, x);
        graph.add(tokens * words, last);
        return graph.lifetimes();
    }

    /** ResNet-50 (He et al. 2016, table 1): a convolution, and its normalisation and activation. */
    private static List<Lifetime> resNet50(long images, boolean columns) {
        Graph graph = new Graph();
        int input = graph.add(images * 3 * 224 * 224);
        int x = convolution(graph, input, images, 3, 64, 7, 112, columns);
        x = graph.add(images * 64 * 112 * 112, x);
        x = graph.add(images * 64 * 56 * 56, x); // pooling
        long channels = 64;
        int[] blocks = {3, 4, 6, 3};
        for (int stage = 0; stage < 4; stage++) {
            long side = 56 >> stage;
            long narrow = 64L << stage;
            for (int block = 0; block < blocks[stage]; block++) {
                long before = block == 0 && stage > 0 ? 2 * side : side;
                int a = convolution(graph, x, images, channels, narrow, 1, before, columns);
                a = graph.add(images * narrow * before * before, a);
                int b = convolution(graph, a, images, narrow, narrow, 3, side, columns);
                b = graph.add(images * narrow * side * side, b);
                int c = convolution(graph, b, images, narrow, 4 * narrow, 1, side, columns);
                int shortcut = block == 0
                        ? convolution(graph, x, images, channels, 4 * narrow, 1, side, columns)
                        : x;
                int sum = graph.add(images * 4 * narrow * side * side, c, shortcut);
                x = graph.add(images * 4 * narrow * side * side, sum);
                channels = 4 * narrow;
            }
        }
        int pooled = graph.add(images * channels, x);
        graph.add(images * 1000, pooled);
        return graph.lifetimes();
    }

    private static int convolution(
            Graph graph, int x, long images, long in, long out, int kernel, long side, boolean columns) {
        int convolved = graph.add(images * out * side * side, x);
        if (columns && kernel > 1) {
            graph.scratch(in * kernel * kernel * side * side); // the columns of one image
        }
        return graph.add(images * out * side * side, convolved);
    }

    private static void assertTight(String name, List<Lifetime> lifetimes) {
        MemoryPlan plan = planned(lifetimes);
        assertTrue(plan.bytes() <= plan.maxLiveBytes() * 1.05, name + ": " + plan);
    }

    @Test
    void transformersNeedHardlyMoreThanWhatLives() {
        assertTight("GPT-2", transformer(12, 1024, 768, 12, 3072, 50257, false));
        assertTight("GPT-2 with scores", transformer(12, 1024, 768, 12, 3072, 50257, true));
        assertTight("BERT of 128 tokens", transformer(12, 128, 768, 12, 3072, 2, true));
        assertTight("12 layers of 1000 odd sizes", transformer(12, 1000, 771, 7, 2049, 333, true));
    }

    @Test
    void resNet50NeedsHardlyMoreThanWhatLives() {
        assertTight("ResNet-50", resNet50(1, false));
        assertTight("ResNet-50 of 32 images", resNet50(32, false));
        assertTight("ResNet-50 with columns", resNet50(1, true));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 100, 10_000})
    void manyTensorsDoNotOverlap(int steps) {
        List<Lifetime> lifetimes = random(new Random(3), 10_000, steps, 64);
        check(lifetimes, MemoryPlan.of(lifetimes));
    }

    @Test
    void tensorsLieInOneBlockOfAPool() {
        TensorSpec rows = TensorSpec.of(DType.F32, 3, 5);
        TensorSpec row = TensorSpec.of(DType.BF16, 5);
        MemoryPlan plan = planned(List.of(Lifetime.of(rows, 0, 1), Lifetime.of(row, 1, 2), Lifetime.of(rows, 2, 2)));
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device)) {
            MemorySegment block = pool.allocate(plan.bytes(), plan.alignment());
            Tensor a = plan.tensor(block, 0, rows);
            Tensor b = plan.tensor(block, 1, row);
            Tensor c = plan.tensor(block, 2, rows);
            assertEquals(block.address() + plan.offset(1), b.memory().address());
            assertEquals(0, b.memory().address() % 64);
            assertEquals(a.memory().address(), c.memory().address());
            a.setFloat(3, 2, 4);
            b.setFloat(1, 4);
            assertEquals(3, c.getFloat(2, 4));
            Expect.illegalArgument("memory: 10 bytes, expected at least 60", () -> plan.tensor(block, 1, rows));
            Expect.illegalArgument("block: " + (plan.bytes() - 1) + " bytes, expected at least " + plan.bytes(),
                    () -> plan.slice(block.asSlice(0, plan.bytes() - 1), 0));
            assertThrows(IndexOutOfBoundsException.class, () -> plan.slice(block, 3));
            assertThrows(IndexOutOfBoundsException.class, () -> plan.offset(-1));
            pool.free(block);
            assertEquals(0, pool.statistics().blocks());
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment askew = arena.allocate(plan.bytes() + 64, 64).asSlice(8);
            Expect.illegalArgument("block: address 0x", () -> plan.slice(askew, 0));
        }
        assertEquals("3 tensors in " + plan.bytes() + " bytes, of which 70 live at most", plan.toString());
    }

    @Test
    void wrongLifetimesAreNamed() {
        Expect.illegalArgument("bytes: -1, expected 0 or more", () -> new Lifetime(-1, 1, 0, 0));
        Expect.illegalArgument("alignment: 0, expected a power of two", () -> new Lifetime(1, 0, 0, 0));
        Expect.illegalArgument("alignment: 48, expected a power of two", () -> new Lifetime(1, 48, 0, 0));
        Expect.illegalArgument("alignment: 4194304, expected", () -> new Lifetime(1, 4 << 20, 0, 0));
        Expect.illegalArgument("first: -1, expected 0 or more", () -> new Lifetime(1, 1, -1, 0));
        Expect.illegalArgument("last: 2, expected 3 or more", () -> new Lifetime(1, 1, 3, 2));
        Expect.illegalArgument("lifetimes: more bytes in the first 2 of them",
                () -> MemoryPlan.of(List.of(bytes(Long.MAX_VALUE / 2, 0, 0), bytes(Long.MAX_VALUE / 2, 0, 0))));
        assertThrows(NullPointerException.class, () -> MemoryPlan.of(null));
        // Steps need not be dense.
        assertEquals(7, planned(List.of(bytes(7, 0, 10), bytes(6, 11, Integer.MAX_VALUE))).bytes());
    }
}
