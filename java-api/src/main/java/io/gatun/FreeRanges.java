package io.gatun;

import java.lang.foreign.Arena;
import java.util.Comparator;
import java.util.NavigableSet;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The free granules of the slabs of a heap: best fit, the lowest address among equals, and free neighbours are one.
 * Guarded by the lock of the heap.
 */
final class FreeRanges {
    /** Free granules of a slab, with no free ones before and after them. */
    record Range(Slab slab, int first, int count) {
        long address() {
            return slab.address + (long) first * Slab.GRANULE;
        }

        /** Returns the first granule from which {@code count} aligned ones are free, or -1. */
        int fit(int count, long alignment) {
            int skipped = (int) ((-address() & alignment - 1) / Slab.GRANULE);
            return skipped + (long) count <= this.count ? first + skipped : -1;
        }

        /** Returns the first chunk that is free as a whole, if one is. */
        int firstChunk() {
            return Slab.chunk(first + Slab.CHUNK / Slab.GRANULE - 1);
        }

        /** Returns the chunk after the last one that is free as a whole, if one is. */
        int endChunk() {
            return Slab.chunk(first + count);
        }

        /** Returns the bytes of whole chunks that did not go back. */
        long chunkBytes() {
            int unit = Slab.CHUNK / Slab.GRANULE;
            int chunks = endChunk() - firstChunk();
            return chunks <= 0 ? 0 : (long) chunks * Slab.CHUNK - slab.absentBytes(firstChunk() * unit, chunks * unit);
        }
    }

    private static final int LOOKS = 32;

    private final NavigableSet<Range> bySize =
            new TreeSet<>(Comparator.comparingInt(Range::count).thenComparingLong(Range::address));

    private final Slab nowhere;
    private long taken; // granules

    FreeRanges(DomainHeap heap) {
        nowhere = new Slab(heap, 0, 0, Arena.global(), true, false);
    }

    /**
     * Returns the smallest range with room for {@code count} granules, of those for which the system need not find
     * pages if the first few have one.
     */
    @Nullable Range find(int count, long alignment) {
        Range smallest = null;
        int looks = 0;
        for (Range range : bySize.tailSet(new Range(nowhere, 0, count))) {
            int first = range.fit(count, alignment);
            if (first >= 0 && range.slab.absentBytes(first, count) == 0) {
                return range;
            }
            smallest = smallest == null && first >= 0 ? range : smallest;
            if (smallest != null && ++looks == LOOKS) {
                break;
            }
        }
        return smallest;
    }

    /** Returns how many bytes are not free. */
    long takenBytes() {
        return taken * Slab.GRANULE;
    }

    /** Returns all ranges, the largest first. */
    Iterable<Range> largestFirst() {
        return bySize.descendingSet();
    }

    /** Takes granules out of a range; nothing is at them then. */
    void take(Range range, int first, int count) {
        remove(range);
        Slab slab = range.slab;
        slab.usedGranules += count;
        taken += count;
        add(slab, range.first, first - range.first);
        add(slab, first + count, range.first + range.count - (first + count));
    }

    /** Gives back granules that were taken. */
    void give(Slab slab, int first, int count) {
        slab.put(first, count, null);
        slab.usedGranules -= count;
        taken -= count;
        if (slab.usedGranules == 0) {
            slab.freeSince = System.nanoTime();
        }
        int end = first + count;
        if (first > 0 && slab.get(first - 1) instanceof Range before) {
            remove(before);
            first = before.first;
        }
        if (end < slab.granules() && slab.get(end) instanceof Range after) {
            remove(after);
            end += after.count;
        }
        add(slab, first, end - first);
    }

    /** Adds a new slab. */
    void add(Slab slab) {
        add(slab, 0, slab.granules());
    }

    /** Removes a slab that is free. */
    void remove(Slab slab) {
        remove(new Range(slab, 0, slab.granules()));
    }

    private void add(Slab slab, int first, int count) {
        if (count > 0) {
            Range range = new Range(slab, first, count);
            bySize.add(range);
            slab.put(first, range);
            slab.put(first + count - 1, range);
        }
    }

    private void remove(Range range) {
        bySize.remove(range);
        range.slab.put(range.first, null);
        range.slab.put(range.first + range.count - 1, null);
    }
}
