package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.junit.jupiter.api.Test;

/**
 * Seeded random work of eight threads on one pool. Blocks pass from thread to thread, each marked all over with a
 * number of its own when it is taken, which must be there when it is given back: no two overlap. In the end nothing is
 * in use, and all of it goes back to the device: nothing was lost. {@code -Dio.gatun.pool.operations=24000000} asks for
 * more, {@code -Dio.gatun.pool.seed} for others, and {@code -Dio.gatun.pool.check=true} for check mode.
 */
class PoolRandomTest {
    private static final long OPERATIONS = Long.getLong("io.gatun.pool.operations", 400_000);
    private static final long SEED = Long.getLong("io.gatun.pool.seed", 0);
    private static final boolean CHECKED = Boolean.getBoolean("io.gatun.pool.check");
    private static final int THREADS = 8;
    private static final int PLACES = 2048;

    private record Held(MemorySegment segment, long mark) {}

    private final AtomicReferenceArray<Held> places = new AtomicReferenceArray<>(PLACES);
    private final AtomicLong marks = new AtomicLong();
    private final AtomicLong freed = new AtomicLong();

    @Test
    void platformThreads() throws Exception {
        work(Executors.newFixedThreadPool(THREADS), 1);
    }

    @Test
    void virtualThreads() throws Exception {
        work(Executors.newVirtualThreadPerTaskExecutor(), 2);
    }

    /** Of several threads that free one block at the same time, one can, also while others take and give its place. */
    @Test
    void aBlockIsFreedOnceHoweverManyTry() throws Exception {
        int rounds = 20_000;
        CyclicBarrier together = new CyclicBarrier(4);
        MemorySegment[] shared = new MemorySegment[1];
        AtomicLong successes = new AtomicLong();
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device);
                ExecutorService threads = Executors.newFixedThreadPool(4)) {
            List<Future<?>> all = new ArrayList<>();
            for (int t = 0; t < 4; t++) {
                boolean first = t == 0;
                all.add(threads.submit(() -> {
                    for (int round = 0; round < rounds; round++) {
                        if (first) {
                            shared[0] = pool.allocate(256, 64);
                        }
                        together.await();
                        try {
                            pool.free(shared[0]);
                            successes.incrementAndGet();
                        } catch (IllegalStateException e) {
                            assertTrue(e.getMessage().contains("freed"), e::getMessage);
                        }
                        MemorySegment mine = pool.allocate(256, 64); // most often the same place
                        mine.set(ValueLayout.JAVA_LONG, 0, Thread.currentThread().threadId());
                        Thread.onSpinWait();
                        assertEquals(Thread.currentThread().threadId(), mine.get(ValueLayout.JAVA_LONG, 0));
                        pool.free(mine);
                        together.await();
                    }
                    return null;
                }));
            }
            for (Future<?> future : all) {
                future.get();
            }
            assertEquals(rounds, successes.get());
            pool.trim(); // in check mode some blocks are given back only then
            assertEquals(0, pool.statistics().blocks());
        }
    }

    private void work(ExecutorService threads, long seed) throws Exception {
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device)) {
            List<Future<?>> all = new ArrayList<>();
            try (threads) {
                for (int t = 0; t < THREADS; t++) {
                    SplittableRandom random = new SplittableRandom((SEED + seed) * THREADS + t);
                    all.add(threads.submit(() -> work(pool, random)));
                }
            }
            for (Future<?> future : all) {
                future.get();
            }
            long left = 0;
            long used = 0;
            for (int i = 0; i < PLACES; i++) {
                Held held = places.get(i);
                if (held != null) {
                    left++;
                    used += Math.max(64, (held.segment.byteSize() + 63) / 64 * 64);
                }
            }
            MemoryPool.Statistics statistics = pool.statistics();
            assertEquals(statistics.requests(), freed.get() + left);
            if (!CHECKED) { // blocks have zones then, and are given back later
                assertEquals(left, statistics.blocks());
                assertEquals(used, statistics.usedBytes());
            }
            assertTrue(statistics.peakUsedBytes() >= used);
            assertTrue(statistics.blockBytes() >= used && statistics.blockBytes() <= statistics.reservedBytes());
            for (int i = 0; i < PLACES; i++) {
                swap(pool, i, null);
            }
            assertTrue(pool.trim() > 0);
            assertEquals(0, pool.statistics().blocks());
            assertEquals(0, pool.statistics().usedBytes());
            assertEquals(0, pool.statistics().blockBytes());
            assertEquals(0, pool.statistics().reservedBytes(), pool::map);
            assertEquals(List.of(), pool.reports());
            assertEquals("", pool.map());
        }
    }

    private Object work(MemoryPool pool, SplittableRandom random) {
        MemoryDomain[] domains = MemoryDomain.values();
        for (long i = 0; i < OPERATIONS / 2 / THREADS; i++) { // an allocation and, mostly, a free
            int place = random.nextInt(PLACES);
            if (random.nextInt(8) == 0) {
                swap(pool, place, null);
                continue;
            }
            long bytes = switch (random.nextInt(100)) {
                case 0 -> 0;
                case 1, 2 -> random.nextInt(1 << 20);
                case 3, 4, 5, 6, 7 -> random.nextInt(100 << 10);
                default -> 1 + random.nextInt(1 << random.nextInt(6, 14));
            };
            long alignment = 1L << random.nextInt(random.nextInt(50) == 0 ? 22 : 8);
            MemoryDomain domain = domains[random.nextInt(random.nextInt(4) == 0 ? domains.length : 1)];
            MemorySegment segment = pool.allocate(domain, bytes, alignment);
            assertEquals(0, segment.address() & alignment - 1);
            long mark = marks.incrementAndGet();
            mark(segment, mark);
            swap(pool, place, new Held(segment, mark));
            if (random.nextInt(20_000) == 0) {
                pool.trim();
            }
        }
        return null;
    }

    private void swap(MemoryPool pool, int place, Held next) {
        Held before = places.getAndSet(place, next);
        if (before != null) {
            check(before);
            pool.free(before.segment);
            freed.incrementAndGet();
        }
    }

    private static long step(MemorySegment segment) {
        return segment.byteSize() > SizeClasses.LARGEST ? Slab.GRANULE : 64; // every place where another could start
    }

    private static void mark(MemorySegment segment, long mark) {
        for (long at = 0; at + 8 <= segment.byteSize(); at += step(segment)) {
            segment.set(ValueLayout.JAVA_LONG, at, mark);
        }
    }

    private static void check(Held held) {
        for (long at = 0; at + 8 <= held.segment.byteSize(); at += step(held.segment)) {
            long found = held.segment.get(ValueLayout.JAVA_LONG, at);
            if (found != held.mark) {
                throw new AssertionError("block " + held.mark + " of " + held.segment.byteSize() + " bytes has at " + at
                        + " the mark of block " + found);
            }
        }
    }
}
