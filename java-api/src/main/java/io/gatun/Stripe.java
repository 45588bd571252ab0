package io.gatun;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The free blocks of a heap that threads reach without its lock, and their share of its counters. A thread takes the
 * stripe of its id, or another one while that is held; nothing belongs to a thread, so threads, virtual ones above all,
 * can come and go. A stripe is held for some loads and stores, never across anything that blocks.
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

    private static final VarHandle HELD;

    static {
        try {
            HELD = MethodHandles.lookup().findVarHandle(Stripe.class, "held", int.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    // Apart from the neighbours on the heap, so that stripes do not share a cache line.
    @SuppressWarnings("unused")
    private long p0, p1, p2, p3, p4, p5, p6, p7;

    private int held;

    private final UsedBytes total;
    private final @Nullable Block[] small = new Block[SizeClasses.COUNT];
    private final byte[] counts = new byte[SizeClasses.COUNT];
    private final @Nullable Block[] large = new Block[LARGE_SLOTS];

    private long used; // not yet in the total
    private long mostUsed;
    private long occupied;
    private long taken;
    private long given;
    private long misses;

    Stripe(UsedBytes total) {
        this.total = total;
    }

    /** Returns a stripe that the caller holds. */
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
        Block block = small[sizeClass];
        if (block != null) {
            small[sizeClass] = block.next;
            counts[sizeClass]--;
            block.next = null;
        }
        return block;
    }

    @Nullable Block takeLarge(long bytes, long alignment) {
        int slot = slot(bytes);
        Block block = large[slot];
        if (block == null || block.bytes != bytes || (block.address & alignment - 1) != 0) {
            return null;
        }
        large[slot] = null;
        return block;
    }

    /** Keeps a free block. Returns a list of those that are too many, or null. */
    @Nullable Block give(Block block) {
        if (block.run == null) {
            if (block.bytes > LARGEST) {
                return block;
            }
            int slot = slot(block.bytes);
            Block displaced = large[slot];
            large[slot] = block;
            return displaced;
        }
        int sizeClass = block.run.sizeClass;
        block.next = small[sizeClass];
        small[sizeClass] = block;
        int most = most(sizeClass);
        if (++counts[sizeClass] <= most) {
            return null;
        }
        // The half that was used last stays.
        Block last = block;
        int stay = most / 2;
        for (int i = 1; i < stay; i++) {
            last = last.next;
        }
        Block surplus = last.next;
        last.next = null;
        counts[sizeClass] = (byte) stay;
        return surplus;
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
        for (int i = 0; i < small.length; i++) {
            for (Block block = small[i]; block != null; ) {
                Block next = block.next;
                to.accept(block);
                block = next;
            }
            small[i] = null;
            counts[i] = 0;
        }
        for (int i = 0; i < large.length; i++) {
            Block block = large[i];
            if (block != null) {
                large[i] = null;
                to.accept(block);
            }
        }
    }

    void countTaken(long bytes, long blockBytes) {
        used += bytes;
        mostUsed = Math.max(mostUsed, used);
        occupied += blockBytes;
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

    /** Adds the counters to {@code sums}, and its bytes in use to the total. */
    void count(Counts sums) {
        flush();
        sums.occupied += occupied;
        sums.blocks += taken - given;
        sums.requests += taken;
        sums.hits += taken - misses;
    }

    /** Sums of the counters of stripes. */
    static final class Counts {
        long occupied;
        long blocks;
        long requests;
        long hits;
    }
}
