package io.gatun;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.reflect.Method;
import org.junit.jupiter.api.Test;

/** A run makes no object on the Java heap, and a block of a pool one. */
class AllocationTest {
    private static final int RUNS = 100_000;
    private static final int ROUNDS = 40; // of which all but the last may warm up

    /** The bytes of a segment, at most: 40, or 48 with wide references. */
    private static final int ONE_SEGMENT = 48;

    private interface Runs {
        void run(int count);
    }

    @Test
    void runsAllocateNothing() throws ReflectiveOperationException {
        try (Arena confined = Arena.ofConfined();
                Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device);
                Stream stream = device.newStream()) {
            Tensor x = Tensor.allocate(confined, DType.F32, 2, 8);
            Tensor row = Tensor.allocate(confined, DType.F32, 8);
            Tensor out = pool.tensor(DType.F32, 2, 8);
            Tensor sum = pool.tensor(DType.F32, 2, 8);
            TensorSpec spec = x.spec();
            Tensor fewer = x.slice(0, 0, 1);
            Tensor fewerOut = out.slice(0, 0, 1);
            try (Softmax.Plan softmax = Softmax.of().plan(device, spec, spec)) {
                measure("softmax", count -> {
                    for (int i = 0; i < count; i++) {
                        softmax.run(stream, x, out);
                    }
                });
                measure("softmax of fewer rows", count -> {
                    for (int i = 0; i < count; i++) {
                        softmax.run(stream, fewer, fewerOut);
                    }
                });
            }
            try (PackedWeights weights = PackedWeights.pack(
                            device, DType.F32, Tensor.allocate(confined, DType.F32, 8, 8));
                    Gemm.Plan gemm = Gemm.of(DType.F32).bias().residual().plan(device, spec, spec)) {
                measure("gemm", count -> {
                    for (int i = 0; i < count; i++) {
                        gemm.run(stream, weights, x, row, sum, out);
                    }
                });
            }
            try (PackedWeights weights = PackedWeights.pack(
                            device, DType.F32, Tensor.allocate(confined, DType.F32, 3, 8, 8));
                    Gemm.Plan gemm = Gemm.of(DType.F32).groups(3).rowIndex().plan(device, spec, spec)) {
                Tensor offsets = pool.tensor(DType.S64, 4).copyFrom(new long[] {0, 1, 1, 2});
                Tensor index = pool.tensor(DType.S32, 2).copyFrom(new long[] {1, 0});
                measure("gemm of groups", count -> {
                    for (int i = 0; i < count; i++) {
                        gemm.run(stream, weights, x, null, null, out, offsets, index, null, null);
                    }
                });
            }
            try (PackedWeights weights = PackedWeights.pack(
                            device, DType.F32, Tensor.allocate(confined, DType.F32, 8, 8));
                    Gemm.Plan gemm = Gemm.of(DType.F32).lowRank(2, DType.F32, 1).plan(device, spec, spec)) {
                Tensor down = pool.tensor(DType.F32, 8, 2);
                Tensor up = pool.tensor(DType.F32, 2, 8);
                measure("gemm of low rank", count -> {
                    for (int i = 0; i < count; i++) {
                        gemm.run(stream, weights, x, null, null, out, null, null, down, up);
                    }
                });
            }
            try (LayerNorm.Plan norm = LayerNorm.of(1).residual().sum().plan(device, spec, spec)) {
                Tensor residual = pool.tensor(DType.F32, 2, 8);
                measure("layer norm", count -> {
                    for (int i = 0; i < count; i++) {
                        norm.run(stream, x, residual, row, row, out, sum);
                    }
                });
            }
            try (RmsNorm.Plan norm = RmsNorm.of(1).plan(device, spec, spec)) {
                measure("rms norm", count -> {
                    for (int i = 0; i < count; i++) {
                        norm.run(stream, x, row, out);
                    }
                });
            }
            try (BiasActivation.Plan plan = BiasActivation.of(Activation.SILU).bias().plan(device, spec, spec)) {
                measure("bias and activation", count -> {
                    for (int i = 0; i < count; i++) {
                        plan.run(stream, x, row, out);
                    }
                });
            }
            try (Glu.Plan plan = Glu.of(Activation.SILU).plan(device, spec, spec, spec)) {
                measure("glu", count -> {
                    for (int i = 0; i < count; i++) {
                        plan.run(stream, x, x, out);
                    }
                });
            }
            Tensor bytes = Tensor.allocate(confined, DType.U8, 2, 8);
            Tensor scales = Tensor.allocate(confined, DType.F32, 2);
            Tensor zeros = Tensor.allocate(confined, DType.S32, 2);
            try (RmsNorm.Plan norm = RmsNorm.of(1).plan(device, spec, bytes.spec());
                    PackedWeights weights = PackedWeights.pack(
                            device, DType.S8, Tensor.allocate(confined, DType.F32, 8, 8));
                    Gemm.Plan gemm = Gemm.of(DType.S8).plan(device, bytes.spec(), spec)) {
                measure("quantized rows", count -> {
                    for (int i = 0; i < count; i++) {
                        norm.runQuantized(stream, x, null, row, bytes, scales, zeros, null);
                        gemm.runQuantized(stream, weights, bytes, scales, zeros, null, null, out, null, null);
                    }
                });
            }
            Tensor q = Tensor.allocate(confined, DType.F32, 1, 2, 1, 8);
            Tensor result = pool.tensor(DType.F32, 1, 2, 1, 8);
            Tensor lengths = Tensor.allocate(confined, DType.S64, 1).copyFrom(new long[] {2});
            Tensor lse = pool.tensor(DType.F32, 1, 1, 2);
            try (Attention.Plan attention = Attention.causal().plan(device, q.spec(), q.spec(), q.spec())) {
                measure("attention", count -> {
                    for (int i = 0; i < count; i++) {
                        attention.run(stream, q, q, q, result, lengths, lengths, lse);
                    }
                });
            }
            Tensor slopes = Tensor.allocate(confined, DType.F32, 1);
            Attention.Arrays arrays = new Attention.Arrays().q(q).k(q).v(q).out(result).slopes(slopes);
            try (Attention.Plan attention = Attention.causal().slopes().plan(device, q.spec(), q.spec(), q.spec())) {
                measure("attention with further arrays", count -> {
                    for (int i = 0; i < count; i++) {
                        attention.run(stream, arrays.prefixes(null).lse(lse));
                    }
                });
            }
            Tensor parts = Tensor.allocate(confined, DType.F32, 2, 1, 2, 1, 8);
            Tensor partsLse = Tensor.allocate(confined, DType.F32, 2, 1, 1, 2);
            try (Merge.Plan merge = Merge.of()
                    .plan(device, parts.spec(), partsLse.spec(), result.spec(), lse.spec())) {
                measure("merge", count -> {
                    for (int i = 0; i < count; i++) {
                        merge.run(stream, parts, partsLse, null, result, lse);
                    }
                });
            }
            Tensor logits = Tensor.allocate(confined, DType.F32, 2, 4);
            Tensor experts = Tensor.allocate(confined, DType.S32, 2, 2);
            Tensor weights = Tensor.allocate(confined, DType.F32, 2, 2);
            Tensor offsets = Tensor.allocate(confined, DType.S64, 5);
            Tensor expertRows = Tensor.allocate(confined, DType.S32, 4);
            Tensor rowsOfTokens = Tensor.allocate(confined, DType.S32, 2, 2);
            try (Route.Plan route = Route.sigmoid(2).normalize().plan(device, logits.spec())) {
                measure("route", count -> {
                    for (int i = 0; i < count; i++) {
                        route.run(stream, logits, null, experts, weights, offsets, expertRows, rowsOfTokens);
                    }
                });
            }
            Tensor given = Tensor.allocate(confined, DType.F32, 4, 1, 8);
            Tensor gates = weights.reshape(2, 2, 1);
            Tensor mixed = Tensor.allocate(confined, DType.F32, 2, 1, 8);
            try (Mix.Plan mix = Mix.of().rowIndex().residual().plan(device, given.spec(), gates.spec(), mixed.spec())) {
                measure("mix", count -> {
                    for (int i = 0; i < count; i++) {
                        mix.run(stream, given, gates, rowsOfTokens, mixed, mixed);
                    }
                });
            }
            try (Selection.Plan select = Selection.blocks(1, 1, 1).plan(device, q.spec(), q.spec())) {
                Selection.Lists lists = select.lists(confined);
                measure("select", count -> {
                    for (int i = 0; i < count; i++) {
                        select.run(stream, q, q, lists);
                    }
                });
            }
            Tensor tokens = Tensor.allocate(confined, DType.F32, 2, 1, 8);
            Tensor table = Tensor.allocate(confined, DType.F32, 4, 8);
            Tensor cache = pool.tensor(DType.F32, 1, 2, 1, 8);
            Tensor rotated = pool.tensor(DType.F32, 2, 1, 8);
            Tensor positions = Tensor.allocate(confined, DType.S64, 2);
            try (Rope.Plan rope = Rope.halves(8)
                    .plan(device, 4, tokens.spec(), tokens.spec(), tokens.spec(), cache.spec(), null, null)) {
                measure("rope", count -> {
                    for (int i = 0; i < count; i++) {
                        rope.run(stream, positions, table, null, tokens, rotated, tokens, cache, null, null, null, null);
                    }
                });
            }
            Tensor slots = Tensor.allocate(confined, DType.S64, 2);
            Tensor blockTable = Tensor.allocate(confined, DType.S32, 1, 8);
            int[] two = {5, 6};
            try (KvCache kvCache = KvCache.of(pool, 1, TensorSpec.of(DType.F32, 8, 2, 1, 8), null);
                    KvCache.Sequence sequence = kvCache.open()) {
                measure("steps of a sequence", count -> {
                    for (int i = 0; i < count; i++) {
                        if (sequence.length() > 12) {
                            sequence.truncate(0);
                        }
                        sequence.append(stream, two, positions, slots, 0);
                        sequence.append(stream, i, positions, slots, 1);
                        sequence.fill(blockTable, lengths, 0);
                        sequence.append(stream, 7, positions, slots, 0);
                        sequence.commit();
                    }
                });
            }
        }
    }

    @Test
    void aBlockOfAPoolIsOneObject() throws ReflectiveOperationException {
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device)) {
            for (long bytes : new long[] {256, 64 << 10, 1 << 20}) {
                measure("a block of " + bytes + " bytes and its free", ONE_SEGMENT, count -> {
                    for (int i = 0; i < count; i++) {
                        pool.free(pool.allocate(bytes, 64));
                    }
                });
            }
        }
    }

    private static void measure(String name, Runs runs) throws ReflectiveOperationException {
        measure(name, 0, runs);
    }

    private static void measure(String name, int most, Runs runs) throws ReflectiveOperationException {
        double perRun = 0;
        for (int round = 0; round < ROUNDS; round++) {
            long before = allocatedBytes();
            runs.run(RUNS);
            perRun = (double) (allocatedBytes() - before) / RUNS;
            if (perRun < most + 0.01) {
                return;
            }
        }
        double last = perRun;
        assertTrue(perRun < most + 0.01, () -> name + " allocates " + last + " bytes per run");
    }

    private static final class ThreadBean {
        static final Object BEAN;
        static final Method ALLOCATED_BYTES;

        static {
            try {
                BEAN = Class.forName("java.lang.management.ManagementFactory")
                        .getMethod("getThreadMXBean")
                        .invoke(null);
                ALLOCATED_BYTES = Class.forName("com.sun.management.ThreadMXBean")
                        .getMethod("getThreadAllocatedBytes", long.class);
            } catch (ReflectiveOperationException e) {
                throw new AssertionError(e);
            }
        }
    }

    /** com.sun.management.ThreadMXBean, by reflection: io.gatun does not require the management modules. */
    private static long allocatedBytes() throws ReflectiveOperationException {
        return (Long) ThreadBean.ALLOCATED_BYTES.invoke(ThreadBean.BEAN, Thread.currentThread().threadId());
    }
}
