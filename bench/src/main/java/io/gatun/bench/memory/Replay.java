package io.gatun.bench.memory;

import io.gatun.Device;
import io.gatun.MemoryDomain;
import io.gatun.MemoryPool;
import java.lang.foreign.MemorySegment;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.Map;

/** How much memory a trace takes from a pool, and how much without one. No tensor is written to. */
public final class Replay {
    private static final long SHARED_SLAB = 128L << 20;

    private Replay() {}

    /**
     * What no allocator can do without, and what one malloc for each tensor comes to.
     *
     * @param live the most bytes that lived at a time, by domain
     * @param allLive the same of all domains together
     * @param untilRequestEnds the most bytes if every tensor is freed at the end of its request
     */
    public record Need(Map<MemoryDomain, Long> live, long allLive, long untilRequestEnds) {}

    /**
     * What a pool had at its fullest.
     *
     * @param reserved bytes it had taken from the device, at most
     * @param activations of these, the most that the domain of activations had
     * @param external the part of the slabs in use that no block occupied when most bytes lived
     */
    public record Peak(long reserved, long activations, double external) {}

    /**
     * Adds up what a trace needs.
     *
     * @param trace the trace
     * @return its need
     */
    public static Need need(Trace trace) {
        Trace.Take[] takes = new Trace.Take[trace.tensors()];
        Map<MemoryDomain, Long> now = new EnumMap<>(MemoryDomain.class);
        Map<MemoryDomain, Long> most = new EnumMap<>(MemoryDomain.class);
        Map<Integer, Long> ofRequest = new HashMap<>();
        long all = 0;
        long mostAll = 0;
        long held = 0;
        long mostHeld = 0;
        for (Trace.Event event : trace.events()) {
            switch (event) {
                case Trace.Take take -> {
                    takes[take.tensor()] = take;
                    now.merge(take.domain(), take.bytes(), Long::sum);
                    most.merge(take.domain(), now.get(take.domain()), Math::max);
                    all += take.bytes();
                    held += take.bytes();
                    ofRequest.merge(take.request(), take.bytes(), Long::sum);
                }
                case Trace.Give give -> {
                    Trace.Take take = takes[give.tensor()];
                    now.merge(take.domain(), -take.bytes(), Long::sum);
                    all -= take.bytes();
                    if (take.request() == 0) {
                        held -= take.bytes();
                    }
                }
                case Trace.End end -> held -= ofRequest.getOrDefault(end.request(), 0L);
            }
            mostAll = Math.max(mostAll, all);
            mostHeld = Math.max(mostHeld, held);
        }
        return new Need(most, mostAll, mostHeld);
    }

    /**
     * Replays a trace against a pool whose domains choose their slabs.
     *
     * @param trace the trace
     * @param device whose memory it is
     * @return the peak
     */
    public static Peak adaptive(Trace trace, Device device) {
        try (MemoryPool pool = MemoryPool.of(device)) {
            return replay(trace, pool, false);
        }
    }

    /**
     * Replays a trace against a pool of slabs of 128 MiB that all domains share.
     *
     * @param trace the trace
     * @param device whose memory it is
     * @return the peak
     */
    public static Peak shared(Trace trace, Device device) {
        try (MemoryPool pool = MemoryPool.of(device, SHARED_SLAB)) {
            return replay(trace, pool, true);
        }
    }

    private static Peak replay(Trace trace, MemoryPool pool, boolean oneDomain) {
        MemorySegment[] blocks = new MemorySegment[trace.tensors()];
        long most = need(trace).allLive();
        long live = 0;
        double external = -1;
        for (Trace.Event event : trace.events()) {
            if (event instanceof Trace.Take take) {
                MemoryDomain domain = oneDomain ? MemoryDomain.ACTIVATIONS : take.domain();
                blocks[take.tensor()] = pool.allocate(domain, take.bytes(), take.alignment());
                live += take.bytes();
                if (live == most && external < 0) {
                    external = pool.statistics().externalFragmentation();
                }
            } else if (event instanceof Trace.Give give) {
                live -= blocks[give.tensor()].byteSize();
                pool.free(blocks[give.tensor()]);
            }
        }
        return new Peak(pool.statistics().peakReservedBytes(),
                pool.statistics(MemoryDomain.ACTIVATIONS).peakReservedBytes(), external);
    }
}
