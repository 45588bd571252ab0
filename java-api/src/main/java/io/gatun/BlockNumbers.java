package io.gatun;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The blocks of a heap by number. Stripes keep numbers of blocks in place of references, because a reference that is
 * stored costs the garbage collector's barrier, which in G1 before JDK 26 is a memory fence. Changes are guarded by the
 * lock of the heap; a number in a stripe is looked up without it.
 */
final class BlockNumbers {
    private volatile @Nullable Block[] blocks = new Block[256];
    private int[] free = new int[256];
    private int freeCount;
    private int used;

    /** Gives a block a number. */
    void add(Block block) {
        int number = freeCount > 0 ? free[--freeCount] : used++;
        if (number == blocks.length) {
            blocks = Arrays.copyOf(blocks, 2 * blocks.length);
        }
        blocks[number] = block;
        block.number = number;
    }

    /** Takes the number back from a block that no stripe keeps. */
    void remove(Block block) {
        blocks[block.number] = null;
        if (freeCount == free.length) {
            free = Arrays.copyOf(free, 2 * free.length);
        }
        free[freeCount++] = block.number;
    }

    /** Returns the block of a number. */
    Block get(int number) {
        Block block = blocks[number];
        assert block != null;
        return block;
    }
}
