package io.gatun;

import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * The pages of a cache in a {@link SpillTier}, each a block of
 *
 * <pre>
 * 0    hash of all tokens before the page, by which its parent is found
 * 8    another hash of all tokens up to the end of the page
 * 16   the tokens of the page, S32
 * then from a multiple of 64 bytes on the page of each tensor, in the order of the layers: keys, values, scales
 * </pre>
 *
 * under the hash of all tokens up to the end of the page. What is found under it is compared with what was looked for:
 * prefixes are taken for one another only if two hashes of 64 bits and the tokens of the last page are the same. What
 * the tier cannot do leaves a page out, which is computed again when it is needed.
 *
 * <p>What may wait for the file, {@link #spill} and {@link #restore}, is called without the cache's lock, and for pages that
 * their caller alone has. Each has one block of the tier at a time, so that none waits for what another one keeps. All else
 * is for who has the lock.
 */
final class SpilledPages {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG;
    private static final long TOKENS = 16;
    private static final long UNIT = 64;
    private static final long KEY_STEP = 0x9e3779b97f4a7c15L;
    private static final long CHECK_STEP = 0xd1342543de82ef95L;

    private final SpillTier tier;
    private final PrefixTree tree;
    private final int pageSize;
    private final List<Tensor> tensors;
    private final long[] parentKeys; // of the pages that are in the tree, or were taken out of it to be spilled
    private final long[] keys;
    private final long[] checks;
    private final boolean[] leaving; // pages that were taken out of the tree and not spilled yet
    private final Map<Long, Integer> moving = new HashMap<>(); // keys that are being spilled or restored, by how many
    private final Semaphore room; // blocks that users of the tier here may have in memory at a time
    private final AtomicLong spilled = new AtomicLong();
    private final AtomicLong restored = new AtomicLong();
    private final AtomicLong failures = new AtomicLong();

    SpilledPages(SpillTier tier, PrefixTree tree, int pages, int pageSize, List<Tensor> tensors) {
        this.tier = tier;
        this.tree = tree;
        this.pageSize = pageSize;
        this.tensors = tensors;
        this.parentKeys = new long[pages];
        this.keys = new long[pages];
        this.checks = new long[pages];
        this.leaving = new boolean[pages];
        this.room = new Semaphore(tier.mostResident());
    }

    /** Returns the size of a block for pages of {@code bytes} bytes in all tensors. */
    static long blockBytes(int pageSize, long bytes) {
        return up(TOKENS + (long) pageSize * Integer.BYTES) + bytes;
    }

    private static long up(long bytes) {
        return (bytes + UNIT - 1) & -UNIT;
    }

    /** How many pages were written to the tier. */
    long spilled() {
        return spilled.get();
    }

    /** How many came back. */
    long restored() {
        return restored.get();
    }

    /** How many pages the tier could not take, or not give. */
    long failures() {
        return failures.get();
    }

    /** Computes the keys of a page that was added to the tree. */
    void added(int parent, int page) {
        long key = key(parent);
        long check = check(parent);
        for (int i = 0; i < pageSize; i++) {
            int token = tree.token(page * pageSize + i);
            key = hash(key, token, KEY_STEP);
            check = hash(check, token, CHECK_STEP);
        }
        parentKeys[page] = key(parent);
        keys[page] = key;
        checks[page] = check;
    }

    /** Notes that a page is about to be taken out of the tree, and is to be spilled before it is written to. */
    void leaves(int page) {
        leaving[page] = true;
        moves(keys[page]);
    }

    /** Says whether {@link #spill} is to be called before a page is written to; for who took it, also without the lock. */
    boolean isLeaving(int page) {
        return leaving[page];
    }

    /** Notes that a page was spilled, or will not be. */
    void left(int page) {
        if (leaving[page]) {
            leaving[page] = false;
            moved(keys[page]);
        }
    }

    /** Notes that the page of a key is on its way to the tier or from there, until {@link #moved} is called as often. */
    void moves(long key) {
        moving.merge(key, 1, Integer::sum);
    }

    void moved(long key) {
        moving.computeIfPresent(key, (same, count) -> count == 1 ? null : count - 1);
    }

    boolean isMoving(long key) {
        return moving.containsKey(key);
    }

    private long key(int parent) {
        return parent == PrefixTree.NONE ? pageSize : keys[parent];
    }

    private long check(int parent) {
        return parent == PrefixTree.NONE ? ~pageSize : checks[parent];
    }

    /** A step of SplitMix64 (Steele et al. 2014, Fast Splittable Pseudorandom Number Generators), from what a token adds to. */
    private static long hash(long hash, int token, long step) {
        long mixed = hash + step + token;
        mixed = (mixed ^ mixed >>> 30) * 0xbf58476d1ce4e5b9L;
        mixed = (mixed ^ mixed >>> 27) * 0x94d049bb133111ebL;
        return mixed ^ mixed >>> 31;
    }

    /** Returns the key of the page of these tokens behind a parent. */
    long key(int parent, int[] tokens, int at) {
        return hash(key(parent), tokens, at, KEY_STEP);
    }

    private long hash(long hash, int[] tokens, int at, long step) {
        for (int i = at; i < at + pageSize; i++) {
            hash = hash(hash, tokens[i], step);
        }
        return hash;
    }

    /** Writes a page that is or was in the tree, if the tier does not have it. */
    void spill(int page) {
        room.acquireUninterruptibly();
        try (SpillTier.@Nullable Pin pin = tier.create(keys[page])) {
            if (pin == null) {
                return;
            }
            MemorySegment block = pin.memory();
            block.set(LONG, 0, parentKeys[page]);
            block.set(LONG, 8, checks[page]);
            for (int i = 0; i < pageSize; i++) {
                block.set(ValueLayout.JAVA_INT, TOKENS + (long) i * Integer.BYTES, tree.token(page * pageSize + i));
            }
            copy(block, page, false);
            pin.commit();
            spilled.incrementAndGet();
        } catch (GatunException | UncheckedIOException | IllegalStateException e) {
            failures.incrementAndGet(); // full, broken or closed: the page is not there then
        } finally {
            room.release();
        }
    }

    /** Says whether the tier has something under a key, which it drops last then, and does not wait for the file. */
    boolean mayHave(long key) {
        try {
            return tier.touch(key);
        } catch (IllegalStateException e) {
            failures.incrementAndGet(); // closed
            return false;
        }
    }

    /** Copies the page of these tokens behind a parent to a page of the cache, or returns false if the tier has not that. */
    boolean restore(int page, int parent, int[] tokens, int at) {
        long key = key(parent, tokens, at);
        room.acquireUninterruptibly();
        try {
            if (!tier.contains(key)) {
                return false; // what was spilled last took its place
            }
            try (SpillTier.@Nullable Pin pin = tier.pin(key)) {
                if (pin != null && isThat(pin.memory(), parent, tokens, at)) {
                    copy(pin.memory(), page, true);
                    restored.incrementAndGet();
                    return true;
                }
            }
        } catch (GatunException | UncheckedIOException | IllegalStateException e) {
            // as if it was damaged
        } finally {
            room.release();
        }
        failures.incrementAndGet();
        return false;
    }

    private boolean isThat(MemorySegment block, int parent, int[] tokens, int at) {
        boolean same = block.get(LONG, 0) == key(parent)
                && block.get(LONG, 8) == hash(check(parent), tokens, at, CHECK_STEP);
        for (int i = 0; same && i < pageSize; i++) {
            same = block.get(ValueLayout.JAVA_INT, TOKENS + (long) i * Integer.BYTES) == tokens[at + i];
        }
        return same;
    }

    private void copy(MemorySegment block, int page, boolean toPage) {
        long offset = up(TOKENS + (long) pageSize * Integer.BYTES);
        for (Tensor tensor : tensors) {
            long bytes = tensor.spec.stride(0) * tensor.spec.dtype().bytes();
            MemorySegment there = tensor.memory().asSlice(page * bytes, bytes);
            MemorySegment here = block.asSlice(offset, bytes);
            if (toPage) {
                there.copyFrom(here);
            } else {
                here.copyFrom(there);
            }
            offset += bytes;
        }
    }
}
