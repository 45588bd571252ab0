package io.gatun;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** A run that takes long enough to look at everything while it is inside. */
final class LongRun implements AutoCloseable {
    private static final long K = 512;
    private static final long N = 512;
    private static final long MILLIS = 1000;
    private static final int ATTEMPTS = 20;
    private static long rows; // found out once

    final Device device = Device.open("cpu:scalar", 1);
    final Stream stream = device.newStream();
    final MemoryPool pool = MemoryPool.of(device);
    final PoolArena arena = pool.newArena();
    final Arena shared = Arena.ofShared();
    final PackedWeights weights;
    final Gemm.Plan plan;
    final Tensor a;
    final Tensor residual;
    final Tensor out;
    private final ExecutorService thread = Executors.newSingleThreadExecutor();

    LongRun() {
        weights = PackedWeights.pack(device, DType.F32, zeros(K, N));
        synchronized (LongRun.class) {
            if (rows == 0) {
                rows = calibrate();
            }
        }
        a = Tensor.allocate(shared, DType.F32, rows, K);
        residual = Tensor.allocate(arena, DType.F32, rows, N);
        out = pool.tensor(DType.F32, rows, N);
        plan = Gemm.of(DType.F32).residual().plan(device, a.spec(), out.spec());
    }

    private Tensor zeros(long... shape) {
        MemorySegment memory = shared.allocate(TensorSpec.of(DType.F32, shape).byteSpan(), 64);
        return Tensor.of(memory, DType.F32, shape);
    }

    /** The number of rows that takes {@link #MILLIS}. */
    private long calibrate() {
        long fastest = Long.MAX_VALUE;
        long few = 256;
        try (Gemm.Plan small = Gemm.of(DType.F32).plan(
                device, TensorSpec.of(DType.F32, few, K), TensorSpec.of(DType.F32, few, N))) {
            Tensor in = zeros(few, K);
            Tensor result = zeros(few, N);
            for (int i = 0; i < 5; i++) {
                long start = System.nanoTime();
                small.run(stream, weights, in, result);
                fastest = Math.min(fastest, System.nanoTime() - start);
            }
        }
        return Math.clamp(few * MILLIS * 1_000_000 / fastest, few, 200_000);
    }

    /** Starts the run, and returns when it is inside. */
    Future<?> start() {
        return start(stream, plan, out);
    }

    /**
     * The same with a stream, a plan and an output of the caller's. Looking holds the stream, which refuses a run at
     * that moment: what is over before it was seen is started again.
     */
    Future<?> start(Stream stream, Gemm.Plan plan, Tensor out) {
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            Future<?> run = thread.submit(() -> plan.run(stream, weights, a, null, residual, out));
            while (!run.isDone()) {
                try {
                    stream.synchronize();
                } catch (IllegalStateException e) {
                    return run;
                }
            }
        }
        throw new AssertionError("the runs were over before they were seen");
    }

    static void await(Future<?> run) throws InterruptedException {
        try {
            run.get();
        } catch (ExecutionException e) {
            throw new AssertionError(e.getCause());
        }
    }

    @Override
    public void close() {
        thread.shutdown();
        plan.close();
        weights.close();
        stream.close();
        arena.close();
        pool.close();
        device.close();
        shared.close();
    }
}
