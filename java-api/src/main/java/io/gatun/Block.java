package io.gatun;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A place in a slab that is handed out as a whole. What it was handed out as is its owner: of all that try to give it
 * back, only the owner can, and only once, however often the place is used again.
 */
final class Block {
    /** The owner of what belongs to an arena. The arena's segments are no owners: they must not be reachable here. */
    static final Object ARENA = new Object();

    final Slab slab;
    final @Nullable Run run;
    final long address;
    final long bytes;

    /** By which stripes name it; see {@link BlockNumbers}. */
    int number;

    /** The next in the list of free blocks that this one is in. */
    @Nullable Block next;

    /**
     * The stripe that handed it out. Changes while that stripe is held, and the block is free. To take it back is to
     * hold that stripe: whoever does so with an earlier owner finds that the owner has changed.
     */
    @Nullable Stripe home;

    /** What it was handed out as, set by who took it; unset while its home is held. */
    @Nullable Object owner;

    Block(Slab slab, @Nullable Run run, long address, long bytes) {
        this.slab = slab;
        this.run = run;
        this.address = address;
        this.bytes = bytes;
    }

    /** Returns its first bytes, with the lifetime of the pool. */
    MemorySegment segment(long bytes) {
        return slab.memory.asSlice(address - slab.address, bytes);
    }
}
