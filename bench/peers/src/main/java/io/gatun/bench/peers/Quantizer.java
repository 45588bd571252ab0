package io.gatun.bench.peers;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Quantizes activations to 8 bits for libraries that multiply integers and leave that to their callers; Gatun and ONNX
 * Runtime do it within their products. One scale for all rows, as ONNX Runtime has: the cheapest that there is. The
 * loops are such that the JVM vectorizes them, and threads share them.
 */
final class Quantizer implements AutoCloseable {
    /** Below this, waking another thread costs more than it does. */
    private static final int ALONE = 1 << 16;
    private static final int CHUNK = 1 << 14;

    private final float[] values;
    private final boolean signed;
    private final int parts;
    private final ExecutorService workers;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment out;
    private float scale;
    private int zero;

    /**
     * Makes it ready.
     *
     * @param signed whether to -127 to 127 without a zero point, or to 0 to 255 with one
     */
    Quantizer(float[] values, boolean signed, int threads) {
        this.values = values;
        this.signed = signed;
        this.parts = values.length < ALONE ? 1 : threads;
        this.workers = Executors.newFixedThreadPool(Math.max(1, parts - 1), Thread.ofPlatform().daemon().factory());
        this.out = arena.allocate(values.length, 64);
    }

    /** The result, in memory of its own. */
    MemorySegment out() {
        return out;
    }

    float scale() {
        return scale;
    }

    int zero() {
        return zero;
    }

    /** Quantizes the values as they are now. */
    void run() throws ExecutionException, InterruptedException {
        float[] lows = new float[parts];
        float[] highs = new float[parts];
        inParts(part -> {
            float low = 0;
            float high = 0;
            int end = end(part);
            for (int i = end(part - 1); i < end; i++) {
                low = Math.min(low, values[i]);
                high = Math.max(high, values[i]);
            }
            lows[part] = low;
            highs[part] = high;
        });
        float low = 0;
        float high = 0;
        for (int part = 0; part < parts; part++) {
            low = Math.min(low, lows[part]);
            high = Math.max(high, highs[part]);
        }
        scale = signed ? Math.max(-low, high) / 127 : (high - low) / 255;
        zero = signed || scale == 0 ? 0 : Math.round(-low / scale);
        float inverse = scale == 0 ? 0 : 1 / scale;
        int least = signed ? -127 : 0;
        int most = signed ? 127 : 255;
        int shift = zero;
        inParts(part -> {
            byte[] chunk = new byte[CHUNK];
            int end = end(part);
            for (int from = end(part - 1); from < end; from += CHUNK) {
                int count = Math.min(CHUNK, end - from);
                for (int i = 0; i < count; i++) {
                    int rounded = Math.round(values[from + i] * inverse) + shift;
                    chunk[i] = (byte) Math.max(least, Math.min(most, rounded));
                }
                MemorySegment.copy(chunk, 0, out, ValueLayout.JAVA_BYTE, from, count);
            }
        });
    }

    private int end(int part) {
        return (int) ((long) values.length * (part + 1) / parts);
    }

    @FunctionalInterface
    private interface Part {
        void run(int part);
    }

    private void inParts(Part body) throws ExecutionException, InterruptedException {
        List<Future<?>> others = new ArrayList<>();
        for (int part = 1; part < parts; part++) {
            int which = part;
            others.add(workers.submit(() -> body.run(which)));
        }
        body.run(0);
        for (Future<?> other : others) {
            other.get();
        }
    }

    @Override
    public void close() {
        workers.shutdown();
        arena.close();
    }
}
