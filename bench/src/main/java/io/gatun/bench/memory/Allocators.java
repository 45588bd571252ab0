package io.gatun.bench.memory;

import io.gatun.Device;
import io.gatun.MemoryDomain;
import io.gatun.MemoryPool;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/** Replays a trace for its time: what the calls cost, while no tensor is written to but by those that fill it. */
@SuppressWarnings("restricted") // the other allocators
public final class Allocators {
    private static final int ROUNDS = 5;
    private static final long ROUND_NANOS = 1_000_000_000;

    private Allocators() {}

    /** An allocator that knows tensors by number. */
    private interface Allocator extends AutoCloseable {
        void take(int tensor, MemoryDomain domain, long bytes, long alignment) throws Throwable;

        void give(int tensor) throws Throwable;

        @Override
        default void close() {}
    }

    /**
     * Times the replay of a trace, with the pool, arenas that each have one tensor, and malloc of the C library, jemalloc
     * and mimalloc where they can be loaded.
     *
     * @param trace the trace
     * @param device of the pool
     * @return the nanoseconds of an event by the allocator's name: the fastest of some rounds, each of which ends after
     *     a second or with the trace
     */
    public static Map<String, Double> time(Trace trace, Device device) {
        int tensors = trace.tensors();
        Map<String, Supplier<Allocator>> all = new LinkedHashMap<>();
        all.put("pool", () -> new Pooled(MemoryPool.of(device), tensors));
        all.put("Arena.ofConfined", () -> new Arenas(Arena::ofConfined, tensors));
        all.put("Arena.ofShared", () -> new Arenas(Arena::ofShared, tensors));
        all.put("malloc", () -> new Native(Linker.nativeLinker().defaultLookup(), "", tensors));
        library("libjemalloc.so.2").ifPresent(found -> all.put("jemalloc", () -> new Native(found, "", tensors)));
        library("libmimalloc.so.2").ifPresent(found -> all.put("mimalloc", () -> new Native(found, "mi_", tensors)));
        Map<String, Double> times = new LinkedHashMap<>();
        all.forEach((name, allocator) -> times.put(name, time(trace, allocator)));
        return times;
    }

    private static Optional<SymbolLookup> library(String name) {
        try {
            return Optional.of(SymbolLookup.libraryLookup(name, Arena.global()));
        } catch (IllegalArgumentException e) {
            return Optional.empty(); // not there, or it wants to be loaded before the program
        }
    }

    private static double time(Trace trace, Supplier<Allocator> make) {
        double best = Double.POSITIVE_INFINITY;
        for (int round = 0; round < ROUNDS; round++) {
            try (Allocator allocator = make.get()) {
                best = Math.min(best, run(trace, allocator));
            } catch (Throwable e) {
                throw new IllegalStateException("a replay failed", e);
            }
        }
        return best;
    }

    private static double run(Trace trace, Allocator allocator) throws Throwable {
        boolean[] live = new boolean[trace.tensors()];
        long start = System.nanoTime();
        int count = 0;
        for (Trace.Event event : trace.events()) {
            if (event instanceof Trace.Take take) {
                allocator.take(take.tensor(), take.domain(), take.bytes(), take.alignment());
                live[take.tensor()] = true;
            } else if (event instanceof Trace.Give give) {
                allocator.give(give.tensor());
                live[give.tensor()] = false;
            }
            if ((++count & 255) == 0 && System.nanoTime() - start > ROUND_NANOS) {
                break;
            }
        }
        double nanos = (double) (System.nanoTime() - start) / count;
        for (int tensor = 0; tensor < live.length; tensor++) {
            if (live[tensor]) {
                allocator.give(tensor);
            }
        }
        return nanos;
    }

    private record Pooled(MemoryPool pool, MemorySegment[] blocks) implements Allocator {
        Pooled(MemoryPool pool, int tensors) {
            this(pool, new MemorySegment[tensors]);
        }

        @Override
        public void take(int tensor, MemoryDomain domain, long bytes, long alignment) {
            blocks[tensor] = pool.allocate(domain, bytes, alignment);
        }

        @Override
        public void give(int tensor) {
            pool.free(blocks[tensor]);
        }

        @Override
        public void close() {
            pool.close();
        }
    }

    private record Arenas(Supplier<Arena> make, Arena[] arenas) implements Allocator {
        Arenas(Supplier<Arena> make, int tensors) {
            this(make, new Arena[tensors]);
        }

        @Override
        public void take(int tensor, MemoryDomain domain, long bytes, long alignment) {
            arenas[tensor] = make.get();
            arenas[tensor].allocate(bytes, alignment);
        }

        @Override
        public void give(int tensor) {
            arenas[tensor].close();
        }
    }

    private static final class Native implements Allocator {
        private final MethodHandle malloc;
        private final MethodHandle free;
        private final long[] addresses;

        Native(SymbolLookup library, String prefix, int tensors) {
            Linker linker = Linker.nativeLinker();
            malloc = linker.downcallHandle(library.findOrThrow(prefix + "malloc"),
                    FunctionDescriptor.of(ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG));
            free = linker.downcallHandle(
                    library.findOrThrow(prefix + "free"), FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG));
            addresses = new long[tensors];
        }

        @Override
        public void take(int tensor, MemoryDomain domain, long bytes, long alignment) throws Throwable {
            addresses[tensor] = (long) malloc.invokeExact(bytes); // aligned to 16 alone
        }

        @Override
        public void give(int tensor) throws Throwable {
            free.invokeExact(addresses[tensor]);
        }
    }
}
