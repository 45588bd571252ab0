package io.gatun;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The free blocks of a heap that threads reach without its lock, and their share of its counters. A thread takes the
 * stripe of its id, or another one while that is held; nothing belongs to a thread, so threads, virtual ones above all,
 * can come and go. A stripe is held for some loads and stores, never across anything that blocks.
 *
 * <p>To hold one costs a compare-and-set. A stripe biased to a thread, which others get by stopping all threads for a moment,
 * was tried and is no faster, with any collector: its checks take as long as the compare-and-set, where nobody else wants it.
 */
final class Stripe {
    /** The largest block that is kept. */
    private static final long LARGEST = 8L << 20;

    /** How many bytes of free blocks of a small size are kept, within 4 to 64 blocks. */
    private static final int CLASS_BYTES = 64 << 10;

    private static final int LARGE_SLOTS = 8;

    /** How far the bytes in use may go from what the other threads see. */
    private static final long SLACK = 64 << 10;

    /** How often to look at what is held before its holder, which may have lost the processor, is let run. */
    private static final int SPINS = 256;

    /** Where the stacks of the classes begin in {@link #small}. */
    private static final int[] FIRST = new int[SizeClasses.COUNT + 1];

    private static final VarHandle HELD;

    static {
        try {
            HELD = MethodHandles.lookup().findVarHandle(Stripe.class, "held", int.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
        for (int i = 0; i < SizeClasses.COUNT; i++) {
            FIRST[i + 1] = FIRST[i] + most(i);
        }
    }

    // Apart from the neighbours on the heap, so that stripes do not share a cache line.
    @SuppressWarnings("unused")
    private long p0, p1, p2, p3, p4, p5, p6, p7;

    private int held;

    private final BlockNumbers numbers;
    private final UsedBytes total;
    private final int[] small = new int[FIRST[SizeClasses.COUNT]]; // for each class a stack of numbers of blocks
    private final byte[] counts = new byte[SizeClasses.COUNT];
    private final int[] large = new int[LARGE_SLOTS]; // numbers of blocks
    private final long[] largeBytes = new long[LARGE_SLOTS]; // of these blocks

    private long used; // not yet in the total
    private long mostUsed;
    private long occupied;
    private long taken;
    private long given;
    private long misses;

    Stripe(BlockNumbers numbers, UsedBytes total) {
        this.numbers = numbers;
        this.total = total;
    }

    /** Returns one of some stripes, which the caller holds. */
    static Stripe hold(Stripe[] stripes) {
        int first = (int) Thread.currentThread().threadId();
        for (int i = 0;; i++) {
            Stripe stripe = stripes[first + i & stripes.length - 1];
            if (stripe.tryHold()) {
                return stripe;
            }
            pause(i);
        }
    }

    void hold() {
        for (int i = 0; !tryHold(); i++) {
            pause(i);
        }
    }

    private static void pause(int spins) {
        if (spins % SPINS == SPINS - 1) {
            Thread.yield();
        } else {
            Thread.onSpinWait();
        }
    }

    private boolean tryHold() {
        return (int) HELD.getOpaque(this) == 0 && HELD.compareAndSet(this, 0, 1);
    }

    void release() {
        HELD.setRelease(this, 0);
    }

    // All that follows is for who holds the stripe.

    @Nullable Block takeSmall(int sizeClass) {
        int count = counts[sizeClass];
        if (count == 0) {
            return null;
        }
        counts[sizeClass] = (byte) (count - 1);
        return numbers.get(small[FIRST[sizeClass] + count - 1]);
    }

    @Nullable Block takeLarge(long bytes, long alignment) {
        int slot = slot(bytes);
        if (largeBytes[slot] != bytes) {
            return null;
        }
        Block block = numbers.get(large[slot]);
        if ((block.address & alignment - 1) != 0) {
            return null;
        }
        largeBytes[slot] = 0;
        return block;
    }

    /** Keeps a free block. Returns a list of those that are too many, or null. */
    @Nullable Block give(Block block) {
        Run run = block.run;
        if (run == null) {
            return giveLarge(block);
        }
        int sizeClass = run.sizeClass;
        int count = counts[sizeClass];
        int first = FIRST[sizeClass];
        Block surplus = null;
        if (count == FIRST[sizeClass + 1] - first) {
            // The half that was used last stays.
            int stay = count / 2;
            surplus = list(first, count - stay);
            System.arraycopy(small, first + count - stay, small, first, stay);
            count = stay;
        }
        small[first + count] = block.number;
        counts[sizeClass] = (byte) (count + 1);
        return surplus;
    }

    private @Nullable Block giveLarge(Block block) {
        if (block.bytes > LARGEST) {
            return block;
        }
        int slot = slot(block.bytes);
        Block displaced = largeBytes[slot] == 0 ? null : numbers.get(large[slot]);
        large[slot] = block.number;
        largeBytes[slot] = block.bytes;
        return displaced;
    }

    private @Nullable Block list(int first, int count) {
        Block list = null;
        for (int i = first; i < first + count; i++) {
            Block block = numbers.get(small[i]);
            block.next = list;
            list = block;
        }
        return list;
    }

    /** Returns how many blocks of a class to take from the heap at once. */
    static int batch(int sizeClass) {
        return most(sizeClass) / 2;
    }

    private static int most(int sizeClass) {
        return Math.clamp(CLASS_BYTES / SizeClasses.bytes(sizeClass), 4, 64);
    }

    private static int slot(long bytes) {
        return (int) (bytes / Slab.GRANULE * 0x9e3779b97f4a7c15L >>> 61);
    }

    /** Gives up all blocks. */
    void drain(Consumer<Block> to) {
        for (int sizeClass = 0; sizeClass < SizeClasses.COUNT; sizeClass++) {
            for (int i = 0; i < counts[sizeClass]; i++) {
                to.accept(numbers.get(small[FIRST[sizeClass] + i]));
            }
            counts[sizeClass] = 0;
        }
        drainLarge(to);
    }

    /** Gives up the large ones. */
    void drainLarge(Consumer<Block> to) {
        for (int slot = 0; slot < LARGE_SLOTS; slot++) {
            if (largeBytes[slot] != 0) {
                largeBytes[slot] = 0;
                to.accept(numbers.get(large[slot]));
            }
        }
    }

    /** Returns the bytes of the large blocks that are kept. Needs no hold: it may be a little out of date. */
    long largeBytes() {
        long sum = 0;
        for (long bytes : largeBytes) {
            sum += bytes;
        }
        return sum;
    }

    /** Counts a block that this stripe hands out. */
    void countTaken(Block block, long bytes) {
        if (block.home != this) { // the collector's barrier is dear
            block.home = this;
        }
        used += bytes;
        mostUsed = Math.max(mostUsed, used);
        occupied += block.bytes;
        taken++;
        if (used > SLACK) {
            flush();
        }
    }

    void countMiss() {
        misses++;
    }

    void countGiven(long bytes, long blockBytes) {
        used -= bytes;
        occupied -= blockBytes;
        given++;
        if (used < -SLACK) {
            flush();
        }
    }

    private void flush() {
        total.add(used, mostUsed);
        used = 0;
        mostUsed = 0;
    }

    /**
     * Adds the counters to {@code sums}. Needs no hold: what is counted meanwhile may or may not be in it, and a thread
     * that waits for those who count sees it all.
     */
    void count(Counts sums) {
        sums.used += used;
        sums.mostUsed += Math.max(mostUsed, 0);
        sums.occupied += occupied;
        sums.blocks += taken - given;
        sums.requests += taken;
        sums.hits += taken - misses;
    }

    /** Sums of the counters of stripes. */
    static final class Counts {
        long used;
        long mostUsed;
        long occupied;
        long blocks;
        long requests;
        long hits;
    }
}
