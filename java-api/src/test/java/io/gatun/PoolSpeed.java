package io.gatun;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;
import java.util.NoSuchElementException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.jspecify.annotations.Nullable;

/**
 * Prints how long an allocation and its free take: the pool against malloc and free of the C library, of jemalloc and of
 * mimalloc where they are installed, called as Java can best. A program to look at, no test: the figures depend on what
 * else the machine does. jemalloc needs {@code GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384}.
 */
@SuppressWarnings("restricted") // malloc and free
final class PoolSpeed {
    private static final int ROUNDS = 200;
    private static final int WARM_UP = 100;
    private static final long ROUND_NANOS = 1_000_000; // shorter than a time slice: some rounds are not interrupted
    private static final Arena LIFE = Arena.ofShared();
    private static volatile long sink;

    /** Addresses as numbers: the cheapest call, and no segment is made. */
    private record Library(String name, @Nullable MethodHandle malloc, @Nullable MethodHandle free) {
        static Library of(String name, SymbolLookup symbols, String prefix) {
            Linker linker = Linker.nativeLinker();
            return new Library(name,
                    linker.downcallHandle(symbols.findOrThrow(prefix + "malloc"),
                            FunctionDescriptor.of(ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG)),
                    linker.downcallHandle(symbols.findOrThrow(prefix + "free"),
                            FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG)));
        }
    }

    // Constants, as a method handle is called fastest where the compiler knows it.
    private static final Library LIBC = Library.of("malloc", Linker.nativeLinker().defaultLookup(), "");
    private static final Library JEMALLOC = find("jemalloc", "libjemalloc.so.2", "");
    private static final Library MIMALLOC = find("mimalloc", "libmimalloc.so.2", "mi_");
    private static final MethodHandle MALLOC = LIBC.malloc;
    private static final MethodHandle FREE = LIBC.free;
    private static final @Nullable MethodHandle JE_MALLOC = JEMALLOC.malloc;
    private static final @Nullable MethodHandle JE_FREE = JEMALLOC.free;
    private static final @Nullable MethodHandle MI_MALLOC = MIMALLOC.malloc;
    private static final @Nullable MethodHandle MI_FREE = MIMALLOC.free;

    private static Library find(String name, String file, String prefix) {
        try {
            return Library.of(name, SymbolLookup.libraryLookup(file, Arena.global()), prefix);
        } catch (IllegalArgumentException | NoSuchElementException e) {
            System.out.println(name + " is not here");
            return new Library(name, null, null);
        }
    }

    private PoolSpeed() {}

    private interface Work {
        void run(int count) throws Throwable;
    }

    private interface PeerWork {
        void run(int peer, int count) throws Throwable;
    }

    private static long allocate(int peer, long bytes) throws Throwable {
        return switch (peer) {
            case 0 -> (long) MALLOC.invokeExact(bytes);
            case 1 -> (long) JE_MALLOC.invokeExact(bytes);
            default -> (long) MI_MALLOC.invokeExact(bytes);
        };
    }

    private static void free(int peer, long address) throws Throwable {
        switch (peer) {
            case 0 -> FREE.invokeExact(address);
            case 1 -> JE_FREE.invokeExact(address);
            default -> MI_FREE.invokeExact(address);
        }
    }

    private static void peer(int peer, long bytes, int count) throws Throwable {
        for (int i = 0; i < count; i++) {
            long address = allocate(peer, bytes);
            sink = address;
            free(peer, address);
        }
    }

    private static void pool(MemoryPool pool, long bytes, int count) {
        for (int i = 0; i < count; i++) {
            MemorySegment segment = pool.allocate(bytes, 64);
            sink = segment.address();
            pool.free(segment);
        }
    }

    /** The same with some blocks in use at once. */
    private static void peerMany(int peer, long bytes, int count) throws Throwable {
        long[] live = new long[16];
        for (int i = 0; i < count; i++) {
            int at = i * 7 & 15;
            if (live[at] != 0) {
                free(peer, live[at]);
            }
            live[at] = allocate(peer, bytes + (i & 3) * 64);
        }
        for (long address : live) {
            if (address != 0) {
                free(peer, address);
            }
        }
    }

    /** The same with what the pool hands out in place of a number: a segment with bounds and a lifetime. */
    private static void peerSegments(int peer, long bytes, int count) throws Throwable {
        MemorySegment[] live = new MemorySegment[16];
        for (int i = 0; i < count; i++) {
            int at = i * 7 & 15;
            if (live[at] != null) {
                free(peer, live[at].address());
            }
            long size = bytes + (i & 3) * 64;
            live[at] = MemorySegment.ofAddress(allocate(peer, size)).reinterpret(size, LIFE, null);
        }
        for (MemorySegment segment : live) {
            if (segment != null) {
                free(peer, segment.address());
            }
        }
    }

    private static void poolMany(MemoryPool pool, long bytes, int count) {
        MemorySegment[] live = new MemorySegment[16];
        for (int i = 0; i < count; i++) {
            int at = i * 7 & 15;
            if (live[at] != null) {
                pool.free(live[at]);
            }
            live[at] = pool.allocate(bytes + (i & 3) * 64, 64);
        }
        for (MemorySegment segment : live) {
            if (segment != null) {
                pool.free(segment);
            }
        }
    }

    /**
     * Returns the nanoseconds of one of each: of interleaved rounds one of the fastest, a tenth being faster. NaN for what is
     * null, as its library is not here.
     */
    private static double[] compare(@Nullable Work... works) throws Throwable {
        double[][] times = new double[works.length][ROUNDS];
        int[] counts = new int[works.length];
        Arrays.fill(counts, 1000);
        for (int round = -WARM_UP; round < ROUNDS; round++) {
            for (int w = 0; w < works.length; w++) {
                if (works[w] == null) {
                    times[w][Math.max(round, 0)] = Double.NaN;
                    continue;
                }
                long start = System.nanoTime();
                works[w].run(counts[w]);
                double each = (double) (System.nanoTime() - start) / counts[w];
                if (round < 0) {
                    counts[w] = (int) Math.clamp(ROUND_NANOS / each, 100, 10_000_000);
                } else {
                    times[w][round] = each;
                }
            }
        }
        double[] fast = new double[works.length];
        for (int w = 0; w < works.length; w++) {
            Arrays.sort(times[w]);
            fast[w] = times[w][ROUNDS / 10];
        }
        return fast;
    }

    /** Nanoseconds of malloc, jemalloc, mimalloc and the pool. */
    private static void print(String what, double[] times) {
        System.out.printf("%-24s malloc %s ns, jemalloc %s, mimalloc %s, pool %s: %s, %s, %s times as fast%n", what,
                figure("%8.1f", times[0]), figure("%8.1f", times[1]), figure("%8.1f", times[2]), figure("%8.1f", times[3]),
                figure("%5.2f", times[0] / times[3]), figure("%5.2f", times[1] / times[3]),
                figure("%5.2f", times[2] / times[3]));
    }

    private static String figure(String format, double value) {
        return Double.isNaN(value) ? "-" : String.format(format, value);
    }

    /** Returns the nanoseconds of the peers that are here, and of the pool. */
    private static double[] compare(PeerWork peers, Work pool) throws Throwable {
        return compare(
                count -> peers.run(0, count),
                JE_MALLOC == null ? null : count -> peers.run(1, count),
                MI_MALLOC == null ? null : count -> peers.run(2, count),
                pool);
    }

    public static void main(String[] args) throws Throwable {
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device)) {
            for (long bytes : new long[] {64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20}) {
                print(bytes + " bytes", compare((peer, count) -> peer(peer, bytes, count), count -> pool(pool, bytes, count)));
                print(bytes + " bytes, 16 in use", compare(
                        (peer, count) -> peerMany(peer, bytes, count), count -> poolMany(pool, bytes, count)));
                print(bytes + " bytes, segments", compare(
                        (peer, count) -> peerSegments(peer, bytes, count), count -> poolMany(pool, bytes, count)));
            }
            long bytes = 1 << 20;
            MemorySegment kept = pool.allocate(bytes, 64);
            double[] times = compare(
                    count -> {
                        for (int i = 0; i < count; i++) {
                            kept.fill((byte) 0);
                        }
                    },
                    count -> {
                        for (int i = 0; i < count; i++) {
                            pool.free(pool.allocate(bytes, 64).fill((byte) 0));
                        }
                    });
            System.out.printf("%d bytes zeroed: %.3f of the time of memset alone%n", bytes, times[1] / times[0]);
            double[] arenas = compare(count -> {
                try (PoolArena arena = pool.newArena()) {
                    for (int i = 0; i < count; i++) {
                        arena.tensor(DType.S8, 1024);
                        if ((i & 1023) == 0) {
                            arena.reset();
                        }
                    }
                }
            });
            System.out.printf("a tensor of 1 KiB in an arena that is reset every 1024: %.1f ns%n", arenas[0]);
            for (int threads = 1; threads <= 4; threads *= 2) {
                int all = threads;
                double[] each = compare(count -> parallel(all, () -> pool(pool, 1024, 100 * count)));
                System.out.printf("1024 bytes, %d threads: %.1f ns for each thread%n", threads, each[0] / 100);
            }
        }
    }

    private static void parallel(int threads, Runnable work) throws Exception {
        Future<?>[] futures = new Future<?>[threads];
        try (ExecutorService pool = Executors.newFixedThreadPool(threads)) {
            for (int t = 0; t < threads; t++) {
                futures[t] = pool.submit(work);
            }
            for (Future<?> future : futures) {
                future.get();
            }
        }
    }
}
