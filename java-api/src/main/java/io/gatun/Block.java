package io.gatun;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import org.jspecify.annotations.Nullable;

/**
 * A place in a slab that is handed out as a whole. What it was handed out as is its owner: of all that try to give it
 * back, only the owner can, and only once, however often the place is used again.
 */
final class Block {
    /** The owner of what belongs to an arena. The arena's segments are no owners: they must not be reachable here. */
    static final Object ARENA = new Object();

    private static final VarHandle OWNER;

    static {
        try {
            OWNER = MethodHandles.lookup().findVarHandle(Block.class, "owner", Object.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    final Slab slab;
    final @Nullable Run run;
    final long address;
    final long bytes;

    /** The next in the list of free blocks that this one is in. */
    @Nullable Block next;

    private volatile @Nullable Object owner;

    Block(Slab slab, @Nullable Run run, long address, long bytes) {
        this.slab = slab;
        this.run = run;
        this.address = address;
        this.bytes = bytes;
    }

    void own(Object owner) {
        OWNER.setRelease(this, owner);
    }

    /** Takes the block from its owner, unless it is another one's. */
    boolean disown(Object owner) {
        return OWNER.compareAndSet(this, owner, null);
    }

    boolean isOwned() {
        return owner != null;
    }
}
