package io.gatun.bench.quality;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Device;
import io.gatun.MemoryPool;
import io.gatun.Merge;
import io.gatun.Selection;
import io.gatun.Stream;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import java.io.PrintStream;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/**
 * How good attention to a selected eighth of the keys is, and how fast, against attention to all of them.
 *
 * <p>Data are made, not measured on a model: {@value #TOKENS} tokens of {@value #CLUSTERS} clusters. A key is its
 * cluster's direction and noise of {@value #NOISE} of its length; a query the same with noise of its own, times a gain
 * that is found so that the true top eighth of the keys holds a given share of the softmax. The first half of a value
 * is its cluster's and as much noise, so that keys of a cluster can stand for each other; the second half is noise
 * alone, which shows every key that is missed. The cosine is given of either. In <i>runs</i> tokens of a cluster lie
 * side by side, at least 64 and at most 511 of them, as in text about one thing after the other, with no regard for
 * blocks; <i>scattered</i>, each token is of any cluster. Top-k blocks are made for the first and hashing for the
 * second; both are shown on both.
 *
 * <p>Needles: keys of noise alone, but for one for each query, that points as the query does, but for noise, and is
 * twice as long as the others. Found is one that attention sees; each query has a list of its own, as queries that have
 * nothing in common must. All else is the same for needles and clusters: blocks are chosen by bounds, and hashing has
 * {@value #ROUNDS} rounds of {@value #BUCKETS} buckets.
 */
public final class SelectionQuality {
    private static final int TOKENS = 16384;
    private static final int SIZE = 64;
    private static final int CLUSTERS = 16;
    private static final double NOISE = 0.15;
    private static final int NEEDLES = 128;
    private static final int SAMPLES = 96;
    private static final int BLOCK = 64;
    private static final int COUNT = TOKENS / 8 / BLOCK;
    private static final int QUERIES = 32;
    private static final int ROUNDS = 4;
    private static final int BUCKETS = 128;
    private static final int TIMES = 3;

    private final Device device;
    private final Stream stream;
    private final MemoryPool pool;
    private final PrintStream out;

    private SelectionQuality(Device device, Stream stream, MemoryPool pool, PrintStream out) {
        this.device = device;
        this.stream = stream;
        this.pool = pool;
        this.out = out;
    }

    /**
     * Measures and prints.
     *
     * @param arguments the name of a device, or nothing for the CPU
     */
    public static void main(String[] arguments) {
        try (Device device = Device.open(arguments.length > 0 ? arguments[0] : "cpu");
                MemoryPool pool = MemoryPool.of(device);
                Stream stream = device.newStream()) {
            new SelectionQuality(device, stream, pool, System.out).run();
        }
    }

    /** Queries, keys and values of one head, and what attention to all keys gives. */
    private final class Data {
        final int queries;
        final float[] q;
        final float[] k;
        final Tensor qTensor;
        final Tensor kTensor;
        final Tensor vTensor;
        final Tensor dense;
        final double scale = 1 / Math.sqrt(SIZE);

        Data(float[] q, float[] k, float[] v) {
            this.queries = q.length / SIZE;
            this.q = q;
            this.k = k;
            qTensor = pool.tensor(DType.F32, 1, queries, 1, SIZE).copyFrom(q);
            kTensor = pool.tensor(DType.F32, 1, TOKENS, 1, SIZE).copyFrom(k);
            vTensor = pool.tensor(DType.F32, 1, TOKENS, 1, SIZE).copyFrom(v);
            dense = pool.tensor(DType.F32, 1, queries, 1, SIZE);
        }

        /** The softmax of a query over all keys. */
        double[] weights(int query) {
            return softmax(q, query, k, scale);
        }
    }

    private static double[] softmax(float[] q, int query, float[] k, double scale) {
        double[] weights = new double[k.length / SIZE];
        double most = Double.NEGATIVE_INFINITY;
        for (int j = 0; j < weights.length; j++) {
            double product = 0;
            for (int d = 0; d < SIZE; d++) {
                product += (double) q[query * SIZE + d] * k[j * SIZE + d];
            }
            weights[j] = scale * product;
            most = Math.max(most, weights[j]);
        }
        double sum = 0;
        for (int j = 0; j < weights.length; j++) {
            weights[j] = Math.exp(weights[j] - most);
            sum += weights[j];
        }
        for (int j = 0; j < weights.length; j++) {
            weights[j] /= sum;
        }
        return weights;
    }

    /** The share of the softmax that its greatest eighth holds, in the mean of some queries. */
    private static double topMass(float[] q, float[] k, double gain) {
        double mass = 0;
        int samples = 16;
        for (int i = 0; i < samples; i++) {
            double[] weights = softmax(q, i * (TOKENS / samples), k, gain / Math.sqrt(SIZE));
            Arrays.sort(weights);
            for (int j = TOKENS - TOKENS / 8; j < TOKENS; j++) {
                mass += weights[j] / samples;
            }
        }
        return mass;
    }

    private Data clusters(boolean runs, double mass) {
        SplittableRandom random = new SplittableRandom(runs ? 1 : 2);
        float[][] centres = new float[CLUSTERS][];
        float[][] meanings = new float[CLUSTERS][];
        for (int c = 0; c < CLUSTERS; c++) {
            centres[c] = normal(random, 1);
            meanings[c] = normal(random, 1);
        }
        float[] q = new float[TOKENS * SIZE];
        float[] k = new float[TOKENS * SIZE];
        float[] v = new float[TOKENS * SIZE];
        int cluster = 0;
        int left = 0;
        for (int i = 0; i < TOKENS; i++) {
            if (!runs || left-- == 0) {
                cluster = random.nextInt(CLUSTERS);
                left = random.nextInt(BLOCK - 1, 511);
            }
            add(centres[cluster], normal(random, NOISE), q, i);
            add(centres[cluster], normal(random, NOISE), k, i);
            add(meanings[cluster], normal(random, 1), v, i);
            System.arraycopy(normal(random, 1), 0, v, i * SIZE + SIZE / 2, SIZE / 2);
        }
        double low = 0;
        double high = 64;
        for (int step = 0; step < 20; step++) {
            double gain = (low + high) / 2;
            if (topMass(q, k, gain) < mass) {
                low = gain;
            } else {
                high = gain;
            }
        }
        for (int i = 0; i < q.length; i++) {
            q[i] *= (float) high;
        }
        return new Data(q, k, v);
    }

    private Data needles() {
        SplittableRandom random = new SplittableRandom(3);
        float[] q = new float[NEEDLES * SIZE];
        float[] k = new float[TOKENS * SIZE];
        float[] v = new float[TOKENS * SIZE];
        for (int j = 0; j < TOKENS; j++) {
            add(normal(random, 1), normal(random, 0), k, j);
            add(normal(random, 1), normal(random, 0), v, j);
        }
        for (int i = 0; i < NEEDLES; i++) {
            float[] direction = normal(random, 2);
            add(direction, normal(random, 0), q, i);
            float[] noise = normal(random, 2 * NOISE);
            add(direction, noise, k, needle(i));
        }
        return new Data(q, k, v);
    }

    private static int needle(int query) {
        return (int) (query * 2654435761L % TOKENS);
    }

    /** Normally distributed, of a mean square of {@code size} squared. */
    private static float[] normal(SplittableRandom random, double size) {
        float[] x = new float[SIZE];
        for (int d = 0; d < SIZE; d++) {
            x[d] = (float) (size * random.nextGaussian());
        }
        return x;
    }

    private static void add(float[] a, float[] b, float[] to, int row) {
        for (int d = 0; d < SIZE; d++) {
            to[row * SIZE + d] = a[d] + b[d];
        }
    }

    /** What attends to a part of the keys. */
    private interface Way extends AutoCloseable {
        void run();

        Tensor result();

        /** The keys that a query sees. */
        BitSet seen(int query);

        @Override
        void close();
    }

    private Attention.Plan dense(Data data) {
        return Attention.dense()
                .plan(device, data.qTensor.spec(), data.kTensor.spec(), data.vTensor.spec(), data.dense.spec());
    }

    private Way blocks(Arena arena, Data data, int blockQ) {
        Selection.Plan select = Selection.blocks(blockQ, BLOCK, COUNT)
                .pool(Selection.Pool.BOUNDS)
                .plan(device, data.qTensor.spec(), data.kTensor.spec());
        Attention.Plan plan = select.attention(Attention.dense())
                .plan(device, data.qTensor.spec(), data.kTensor.spec(), data.vTensor.spec(), data.dense.spec());
        Tensor offsets = tensor(arena, select.blockOffsets());
        Tensor columns = tensor(arena, select.blockColumns());
        Tensor result = tensor(arena, data.dense.spec());
        Selection.Lists lists = new Selection.Lists().blockOffsets(offsets).blockColumns(columns);
        Attention.Arrays arrays = lists.into(
                new Attention.Arrays().q(data.qTensor).k(data.kTensor).v(data.vTensor).out(result));
        return new Way() {
            @Override
            public void run() {
                select.run(stream, data.qTensor, data.kTensor, lists);
                plan.run(stream, arrays);
            }

            @Override
            public Tensor result() {
                return result;
            }

            @Override
            public BitSet seen(int query) {
                BitSet seen = new BitSet(TOKENS);
                see(seen, offsets, columns, query / blockQ, null);
                return seen;
            }

            @Override
            public void close() {
                plan.close();
                select.close();
            }
        };
    }

    /** Adds the keys of a list's blocks, which count in an order or as they are. */
    private static void see(BitSet seen, Tensor offsets, Tensor columns, int list, int @Nullable [] order) {
        long first = offsets.memory().getAtIndex(ValueLayout.JAVA_LONG, list);
        long last = offsets.memory().getAtIndex(ValueLayout.JAVA_LONG, list + 1);
        for (long entry = first; entry < last; entry++) {
            int block = columns.memory().getAtIndex(ValueLayout.JAVA_INT, entry);
            for (int slot = block * BLOCK; slot < Math.min((block + 1) * BLOCK, TOKENS); slot++) {
                seen.set(order == null ? slot : order[slot]);
            }
        }
    }

    private static Tensor tensor(Arena arena, TensorSpec spec) {
        return Tensor.allocate(arena, spec.dtype(), spec.shape());
    }

    /** One round of hashing. */
    private final class Round {
        final Selection.Plan select;
        final Attention.Plan plan;
        final Tensor offsets;
        final Tensor columns;
        final Tensor qOrder;
        final Tensor kOrder;
        final Tensor qLabels;
        final Tensor kLabels;
        final Selection.Lists lists;
        final Attention.Arrays arrays;
        final int layers;
        final int blockQ;

        Round(Arena arena, Data data, int layers, int blockQ, Tensor result, Tensor lse) {
            this.layers = layers;
            this.blockQ = blockQ;
            select = Selection.lsh(BUCKETS, layers, 5, blockQ, BLOCK, COUNT)
                    .plan(device, data.qTensor.spec(), data.kTensor.spec());
            plan = select.attention(Attention.dense())
                    .plan(device, data.qTensor.spec(), data.kTensor.spec(), data.vTensor.spec(), data.dense.spec());
            offsets = tensor(arena, select.blockOffsets());
            columns = tensor(arena, select.blockColumns());
            qOrder = Tensor.allocate(arena, DType.S32, 1, 1, data.queries);
            kOrder = Tensor.allocate(arena, DType.S32, 1, 1, TOKENS);
            qLabels = Tensor.allocate(arena, DType.S32, 1, layers, 1, data.queries);
            kLabels = Tensor.allocate(arena, DType.S32, 1, layers, 1, TOKENS);
            lists = new Selection.Lists()
                    .blockOffsets(offsets)
                    .blockColumns(columns)
                    .qOrder(qOrder)
                    .kOrder(kOrder)
                    .qDocuments(qLabels)
                    .kDocuments(kLabels);
            arrays = lists.into(new Attention.Arrays()
                    .q(data.qTensor)
                    .k(data.kTensor)
                    .v(data.vTensor)
                    .out(result)
                    .lse(lse));
        }

        void see(BitSet seen, int query, int queries) {
            int[] order = qOrder.memory().toArray(ValueLayout.JAVA_INT);
            int[] q = qLabels.memory().toArray(ValueLayout.JAVA_INT);
            int[] k = kLabels.memory().toArray(ValueLayout.JAVA_INT);
            int slot = 0;
            while (order[slot] != query) {
                slot++;
            }
            BitSet listed = new BitSet(TOKENS);
            int[] keys = kOrder.memory().toArray(ValueLayout.JAVA_INT);
            SelectionQuality.see(listed, offsets, columns, slot / blockQ, keys);
            int last = layers - 1;
            listed.stream()
                    .filter(j -> q[last * queries + query] == k[last * TOKENS + j])
                    .forEach(seen::set);
        }

        void close() {
            plan.close();
            select.close();
        }
    }

    private Way lsh(Arena arena, Data data, int blockQ) {
        Tensor parts = Tensor.allocate(arena, DType.F32, ROUNDS, 1, data.queries, 1, SIZE);
        Tensor partsLse = Tensor.allocate(arena, DType.F32, ROUNDS, 1, 1, data.queries);
        Tensor result = tensor(arena, data.dense.spec());
        Tensor lse = Tensor.allocate(arena, DType.F32, 1, 1, data.queries);
        List<Round> all = new ArrayList<>();
        for (int r = 0; r < ROUNDS; r++) {
            all.add(new Round(
                    arena,
                    data,
                    r + 1,
                    blockQ,
                    parts.slice(0, r, r + 1).reshape(1, data.queries, 1, SIZE),
                    partsLse.slice(0, r, r + 1).reshape(1, 1, data.queries)));
        }
        Merge.Plan merge = Merge.of().plan(device, parts.spec(), partsLse.spec(), result.spec(), lse.spec());
        return new Way() {
            @Override
            public void run() {
                for (Round round : all) {
                    round.select.run(stream, data.qTensor, data.kTensor, round.lists);
                    round.plan.run(stream, round.arrays);
                }
                merge.run(stream, parts, partsLse, result);
            }

            @Override
            public Tensor result() {
                return result;
            }

            @Override
            public BitSet seen(int query) {
                BitSet seen = new BitSet(TOKENS);
                for (Round round : all) {
                    round.see(seen, query, data.queries);
                }
                return seen;
            }

            @Override
            public void close() {
                merge.close();
                all.forEach(Round::close);
            }
        };
    }

    private static double milliseconds(Runnable run) {
        long start = System.nanoTime();
        run.run();
        return (System.nanoTime() - start) / 1e6;
    }

    private static double median(double[] values) {
        Arrays.sort(values);
        return values[values.length / 2];
    }

    private void compare(String name, Data data, Way way) {
        try (Attention.Plan dense = dense(data)) {
            Runnable all = () -> dense.run(stream, data.qTensor, data.kTensor, data.vTensor, data.dense);
            all.run();
            way.run();
            double[] ratios = new double[TIMES];
            for (int i = 0; i < TIMES; i++) {
                ratios[i] = milliseconds(all) / milliseconds(way::run);
            }
            double mass = 0;
            double share = 0;
            double top = 0;
            for (int sample = 0; sample < SAMPLES; sample++) {
                int query = sample * (data.queries / SAMPLES) + sample % 64;
                double[] weights = data.weights(query);
                BitSet seen = way.seen(query);
                mass += seen.stream().mapToDouble(j -> weights[j]).sum() / SAMPLES;
                share += (double) seen.cardinality() / TOKENS / SAMPLES;
                double[] sorted = weights.clone();
                Arrays.sort(sorted);
                double least = sorted[TOKENS - TOKENS / 8];
                top += seen.stream().filter(j -> weights[j] >= least).count() / (TOKENS / 8.0) / SAMPLES;
            }
            out.printf("%-36s keys %5.1f%%  mass %.3f  top keys %.3f  cosine %.4f, %.4f  %5.2f times as fast%n",
                    name, 100 * share, mass, top, cosine(data, way.result(), 0),
                    cosine(data, way.result(), SIZE / 2), median(ratios));
        }
    }

    /** Between halves of rows, in the mean. */
    private static double cosine(Data data, Tensor result, int half) {
        float[] a = data.dense.memory().toArray(ValueLayout.JAVA_FLOAT);
        float[] b = result.memory().toArray(ValueLayout.JAVA_FLOAT);
        double sum = 0;
        for (int i = 0; i < data.queries; i++) {
            double product = 0;
            double aa = 0;
            double bb = 0;
            for (int d = i * SIZE + half; d < i * SIZE + half + SIZE / 2; d++) {
                product += (double) a[d] * b[d];
                aa += (double) a[d] * a[d];
                bb += (double) b[d] * b[d];
            }
            sum += aa * bb == 0 ? 0 : product / Math.sqrt(aa * bb);
        }
        return sum / data.queries;
    }

    private void find(String name, Way way) {
        way.run();
        int found = 0;
        for (int i = 0; i < NEEDLES; i++) {
            found += way.seen(i).get(needle(i)) ? 1 : 0;
        }
        out.printf("%-36s %d of %d needles%n", name, found, NEEDLES);
    }

    private void run() {
        out.printf("%d tokens, head size %d, FP32, on %s with %d threads; lists of %d blocks of %d keys%n",
                TOKENS, SIZE, device.info().name(), device.info().threads(), COUNT, BLOCK);
        for (double mass : new double[] {0.90, 0.95, 0.99}) {
            for (boolean runs : new boolean[] {true, false}) {
                String of = (runs ? "runs" : "scattered") + String.format(", top eighth %.2f: ", mass);
                Data data = clusters(runs, mass);
                try (Arena arena = Arena.ofShared();
                        Way blocks = blocks(arena, data, QUERIES);
                        Way lsh = lsh(arena, data, BLOCK)) {
                    compare(of + "blocks", data, blocks);
                    compare(of + "lsh", data, lsh);
                }
            }
        }
        Data data = needles();
        try (Arena arena = Arena.ofShared();
                Way blocks = blocks(arena, data, 1);
                Way lsh = lsh(arena, data, 1)) {
            find("needles: blocks", blocks);
            find("needles: lsh", lsh);
        }
    }
}
