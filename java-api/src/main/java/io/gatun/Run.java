package io.gatun;

import org.jspecify.annotations.Nullable;

/** Neighbouring small blocks of one size in a slab. Guarded by the lock of the slab's heap. */
final class Run {
    final Slab slab;
    final int sizeClass;
    final int first;
    final int granules;

    /** The neighbours in the list of runs that have a free block. */
    @Nullable Run previous;

    @Nullable Run next;

    private final long address;
    private final int blockBytes;
    private final long inverse; // of the bytes of a block as multiples of 64: a division would be dear
    private final @Nullable Block[] blocks;
    private @Nullable Block free;
    private int made;
    private int freeBlocks;

    Run(Slab slab, int first, int sizeClass) {
        this.slab = slab;
        this.sizeClass = sizeClass;
        this.first = first;
        this.granules = SizeClasses.runBytes(sizeClass) / Slab.GRANULE;
        this.address = slab.address + (long) first * Slab.GRANULE;
        this.blockBytes = SizeClasses.bytes(sizeClass);
        this.inverse = (1L << 32) / (blockBytes / 64) + 1; // exact for what a run has
        this.blocks = new Block[SizeClasses.runBytes(sizeClass) / blockBytes];
        this.freeBlocks = blocks.length;
    }

    boolean isFull() {
        return freeBlocks == 0;
    }

    boolean isEmpty() {
        return freeBlocks == blocks.length;
    }

    /** Takes a free block; there is one. */
    Block take(BlockNumbers numbers) {
        freeBlocks--;
        Block block = free;
        if (block != null) {
            free = block.next;
            block.next = null;
            return block;
        }
        block = new Block(slab, this, address + (long) made * blockBytes, blockBytes);
        numbers.add(block);
        blocks[made++] = block;
        return block;
    }

    /** Takes the numbers back from the blocks of a run that is given up. */
    void forget(BlockNumbers numbers) {
        for (int i = 0; i < made; i++) {
            numbers.remove(blocks[i]);
        }
    }

    void give(Block block) {
        freeBlocks++;
        block.next = free;
        free = block;
    }

    /** Returns the block that {@code at} lies in, if it was ever handed out. Needs no lock. */
    @Nullable Block block(long at) {
        int index = (int) ((at - address >>> 6) * inverse >>> 32);
        return index < blocks.length ? blocks[index] : null;
    }
}
