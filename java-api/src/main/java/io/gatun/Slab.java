package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.BitSet;
import org.jspecify.annotations.Nullable;

/**
 * Memory that was taken from the device at once, and what lies where in it. Changes are guarded by the lock of the
 * heap; what a block that is in use lies in can be read without it.
 */
final class Slab {
    /** The unit in which large blocks, and runs of small ones, are laid out. */
    static final int GRANULE = 4096;

    /** The unit in which what is free inside a slab goes back to the system: whole pages of any size. */
    static final int CHUNK = 64 << 10;

    /** Every slab starts at a multiple of it, so that the operating system can use huge pages. */
    static final long ALIGNMENT = 2L << 20;

    final DomainHeap heap;
    final long address;
    final long bytes;

    /** All of it, with the lifetime of the pool. */
    final MemorySegment memory;

    /** Whether it was made for one block larger than a slab, and goes back to the device with it. */
    final boolean own;

    /** Whether it was declared for the start, and is not trimmed. */
    final boolean cold;

    /** The granules that are not free, and since when none is. */
    int usedGranules;

    long freeSince = System.nanoTime();

    /** The chunks that went back to the system while the slab stays, and the bytes of the others. */
    final BitSet absent = new BitSet();

    long present;

    // A large block is at its first granule, a run at all of its own, a free range at its first and last.
    private final @Nullable Object[] at;

    Slab(DomainHeap heap, long address, long bytes, Arena arena, boolean own, boolean cold) {
        this.heap = heap;
        this.address = address;
        this.bytes = bytes;
        this.present = bytes;
        this.memory = DeviceMemory.segment(address, bytes, arena);
        this.own = own;
        this.cold = cold;
        this.at = new Object[own ? 1 : granules()];
    }

    /** Returns the chunk that a granule is in. */
    static int chunk(int granule) {
        return granule / (CHUNK / GRANULE);
    }

    /** Returns how many bytes the system has to find pages for before granules can be used. */
    long absentBytes(int first, int granules) {
        if (present == bytes) {
            return 0;
        }
        int end = chunk(first + granules - 1) + 1;
        long sum = 0;
        for (int at = absent.nextSetBit(chunk(first)); at >= 0 && at < end; ) {
            int next = Math.min(absent.nextClearBit(at), end);
            sum += (long) (next - at) * CHUNK;
            at = absent.nextSetBit(next);
        }
        return sum;
    }

    int granules() {
        return (int) (bytes / GRANULE);
    }

    boolean isFree() {
        return own ? at[0] == null : usedGranules == 0;
    }

    /** Returns the block, in use or not, that {@code at} lies in; a large one is only known by its first granule. */
    @Nullable Block block(long at) {
        long granule = (at - address) / GRANULE;
        if (granule >= this.at.length) {
            return null;
        }
        Object there = this.at[(int) granule];
        if (there instanceof Run run) {
            return run.block(at);
        }
        return there instanceof Block block ? block : null;
    }

    /** The same for any place in a block. */
    @Nullable Block containing(long at) {
        int granule = (int) Math.min((at - address) / GRANULE, this.at.length - 1);
        while (granule > 0 && this.at[granule] == null) {
            granule--;
        }
        Block block = this.at[granule] instanceof Block large ? large : block(at);
        return block != null && at < block.address + block.bytes ? block : null;
    }

    @Nullable Object get(int granule) {
        return at[granule];
    }

    void put(int granule, @Nullable Object what) {
        at[granule] = what;
    }

    void put(int first, int count, @Nullable Object what) {
        Arrays.fill(at, first, first + count, what);
    }

    /** Draws what is used as {@code cells} characters: {@code .} for nothing, digits for tenths, {@code #} for all. */
    String draw(int cells) {
        if (own) {
            return "#".repeat(cells);
        }
        int granules = granules();
        int[] used = new int[cells];
        for (int g = 0; g < granules; ) {
            int count = 1;
            boolean taken = true;
            switch (at[g]) {
                case FreeRanges.Range range -> {
                    count = range.count();
                    taken = false;
                }
                case Run run -> count = run.granules;
                case Block block -> count = (int) (block.bytes / GRANULE);
                case null, default -> throw new IllegalStateException("granule " + g + " of " + this);
            }
            for (int end = g + count; g < end; g++) {
                used[(int) ((long) g * cells / granules)] += taken ? 1 : 0;
            }
        }
        StringBuilder drawing = new StringBuilder();
        for (int cell = 0; cell < cells; cell++) {
            int all = first(cell + 1, cells) - first(cell, cells);
            drawing.append(used[cell] == 0 ? '.' : used[cell] == all ? '#' : (char) ('0' + used[cell] * 10 / all));
        }
        return drawing.toString();
    }

    /** Returns the first granule g with g * cells / granules == cell. */
    private int first(int cell, int cells) {
        return (int) (((long) cell * granules() + cells - 1) / cells);
    }

    @Override
    public String toString() {
        return "slab of " + bytes + " bytes at 0x" + Long.toHexString(address);
    }
}
