package io.gatun;

import io.gatun.bindings.c.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.NavigableSet;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The memory of a pool: slabs from the device, and the ranges that are free and used in them. It deals in addresses, so
 * that it keeps no segment reachable. Thread-safe.
 *
 * <p>A request takes the smallest free range that it fits in; a range given back joins its free neighbours. A request
 * larger than a slab gets a slab of its own, which goes back to the device with it.
 */
final class Slabs {
    /** The least alignment, and the unit of sizes. */
    static final long UNIT = 64;

    static final long MOST_ALIGNMENT = 2L << 20;

    private record Slab(long address, long bytes, boolean own) {}

    private record Range(Slab slab, long address, long bytes) {
        long end() {
            return address + bytes;
        }
    }

    /** Memory in use. */
    static final class Block {
        final long address;
        private final Slab slab;
        private final long bytes;
        private @Nullable WeakReference<MemorySegment> segment;

        private Block(Slab slab, long address, long bytes) {
            this.slab = slab;
            this.address = address;
            this.bytes = bytes;
        }
    }

    private final Device device;
    private final long slabBytes;
    private final Set<Slab> slabs = new HashSet<>();
    private final NavigableSet<Range> freeBySize =
            new TreeSet<>(Comparator.comparingLong(Range::bytes).thenComparingLong(Range::address));
    private final NavigableMap<Long, Range> freeByAddress = new TreeMap<>();
    private final NavigableMap<Long, Block> used = new TreeMap<>();
    private long usedBytes;
    private long peakUsedBytes;
    private long reservedBytes;
    private int arenas;
    private boolean closed;

    Slabs(Device device, long slabBytes) {
        this.device = device;
        this.slabBytes = slabBytes;
        device.openPools.incrementAndGet();
    }

    /** Takes a block of at least {@code bytes} bytes. */
    synchronized Block take(long bytes, long alignment) {
        if (bytes < 0 || bytes > Long.MAX_VALUE - UNIT) {
            throw new IllegalArgumentException("bytes: " + bytes + ", expected 0 or more");
        }
        if (alignment < 1 || alignment > MOST_ALIGNMENT || Long.bitCount(alignment) != 1) {
            throw new IllegalArgumentException(
                    "alignment: " + alignment + ", expected a power of two up to " + MOST_ALIGNMENT);
        }
        checkOpen();
        long size = Math.max(up(bytes, UNIT), UNIT);
        long aligned = Math.max(alignment, UNIT);
        Range range = find(size, aligned);
        if (range == null) {
            range = grow(size, aligned);
        }
        removeFree(range);
        long start = up(range.address, aligned);
        addFree(new Range(range.slab, range.address, start - range.address));
        addFree(new Range(range.slab, start + size, range.end() - (start + size)));
        Block block = new Block(range.slab, start, size);
        used.put(start, block);
        usedBytes += size;
        peakUsedBytes = Math.max(peakUsedBytes, usedBytes);
        return block;
    }

    /** Remembers what was handed out for {@code block}, for {@link #give(MemorySegment)}. */
    synchronized void name(Block block, MemorySegment segment) {
        block.segment = new WeakReference<>(segment);
    }

    /** Gives back the block that {@code segment} was handed out for. */
    synchronized void give(MemorySegment segment) {
        checkOpen();
        Map.Entry<Long, Block> entry = used.floorEntry(segment.address());
        Block block = entry == null ? null : entry.getValue();
        if (block != null && block.segment != null && block.segment.refersTo(segment)) {
            give(block);
            return;
        }
        if (block != null && block.address != segment.address() && segment.address() < block.address + block.bytes) {
            throw new IllegalArgumentException(describe(segment)
                    + ", part of a block, expected a block as it was allocated");
        }
        throw new IllegalStateException(
                describe(segment) + ", not a block in use as it was allocated: it was freed already, or is a slice");
    }

    private static String describe(MemorySegment segment) {
        return "block: " + segment.byteSize() + " bytes at 0x" + Long.toHexString(segment.address());
    }

    synchronized void give(Block block) {
        if (closed || used.remove(block.address) != block) {
            throw new IllegalStateException("the block at 0x" + Long.toHexString(block.address) + " was freed already");
        }
        usedBytes -= block.bytes;
        Slab slab = block.slab;
        if (slab.own) {
            slabs.remove(slab);
            reservedBytes -= slab.bytes;
            release(slab);
            return;
        }
        long start = block.address;
        long end = start + block.bytes;
        Map.Entry<Long, Range> before = freeByAddress.lowerEntry(start);
        if (before != null && before.getValue().slab == slab && before.getValue().end() == start) {
            removeFree(before.getValue());
            start = before.getKey();
        }
        Range after = freeByAddress.get(end);
        if (after != null && after.slab == slab) {
            removeFree(after);
            end = after.end();
        }
        addFree(new Range(slab, start, end - start));
    }

    synchronized void arenaOpened() {
        checkOpen();
        arenas++;
    }

    /** Gives back all that an arena took. */
    synchronized void arenaClosed(List<Block> blocks) {
        blocks.forEach(this::give);
        blocks.clear();
        arenas--;
    }

    /**
     * Gives all slabs back to the device, unless they were, or an arena is open.
     *
     * @param invalidate ends the life of the segments; nothing is freed if it throws
     */
    synchronized void close(Runnable invalidate) {
        if (closed) {
            return;
        }
        if (arenas > 0) {
            throw new IllegalStateException("the memory pool on " + device + " cannot be closed: " + arenas
                    + (arenas == 1 ? " arena of it is open" : " arenas of it are open"));
        }
        invalidate.run();
        closed = true;
        List<Slab> all = new ArrayList<>(slabs);
        slabs.clear();
        used.clear();
        freeByAddress.clear();
        freeBySize.clear();
        usedBytes = 0;
        reservedBytes = 0;
        all.forEach(this::release);
        device.openPools.decrementAndGet();
    }

    synchronized MemoryPool.Statistics statistics() {
        return new MemoryPool.Statistics(usedBytes, reservedBytes, peakUsedBytes, used.size(), slabs.size());
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException("the memory pool on " + device + " is closed");
        }
    }

    private @Nullable Range find(long size, long alignment) {
        for (Range range : freeBySize.tailSet(new Range(NOWHERE, 0, size))) {
            if (up(range.address, alignment) - range.address <= range.bytes - size) {
                return range;
            }
        }
        return null;
    }

    private static final Slab NOWHERE = new Slab(0, 0, false);

    private Range grow(long size, long alignment) {
        boolean own = size > slabBytes;
        long bytes = own ? size : slabBytes;
        // Aligned so that the operating system can use huge pages.
        long address = reserve(bytes, bytes >= MOST_ALIGNMENT ? MOST_ALIGNMENT : alignment);
        Slab slab = new Slab(address, bytes, own);
        slabs.add(slab);
        reservedBytes += bytes;
        Range range = new Range(slab, address, bytes);
        addFree(range);
        return range;
    }

    private void addFree(Range range) {
        if (range.bytes > 0) {
            freeByAddress.put(range.address, range);
            freeBySize.add(range);
        }
    }

    private void removeFree(Range range) {
        freeByAddress.remove(range.address);
        freeBySize.remove(range);
    }

    private long reserve(long bytes, long alignment) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment memory = arena.allocate(ValueLayout.ADDRESS);
            Status.check(
                    gatun_h.gtn_memory_alloc(device.handle, bytes, alignment, memory, message), message, device.owned);
            return memory.get(ValueLayout.ADDRESS, 0).address();
        }
    }

    private void release(Slab slab) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment memory = MemorySegment.ofAddress(slab.address);
            Status.check(gatun_h.gtn_memory_free(device.handle, memory, message), message, device.owned);
        }
    }

    private static long up(long value, long unit) {
        return (value + unit - 1) & -unit;
    }
}
