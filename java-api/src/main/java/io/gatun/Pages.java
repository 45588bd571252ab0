package io.gatun;

import java.util.function.IntConsumer;

/**
 * The pages of a cache: in use by a number of sequences; cached, which is in use by none but in the tree of prefixes;
 * or free.
 *
 * <p>Cached pages wait in the order in which their last users left, and the first of them goes when no page is free.
 * Users have a page only together with all before it, and leave in the order from the last page to the first. So a
 * cached page never waits behind its parent: the first one is a leaf, and that of the least recent use. Not
 * thread-safe.
 */
final class Pages {
    private static final int END = -1;

    private final PrefixTree tree;
    private final IntConsumer evicted;
    private final int[] users;
    private final int[] next; // of a free or a cached page
    private final int[] previous; // of a cached page
    private int free;
    private int oldest = END;
    private int newest = END;
    private int freeCount;
    private int cachedCount;
    private int sharedCount;
    private long evictions;

    /**
     * Makes pages that are all free.
     *
     * @param evicted is told of cached pages that are taken, while they are in the tree
     */
    Pages(int count, PrefixTree tree, IntConsumer evicted) {
        this.tree = tree;
        this.evicted = evicted;
        this.users = new int[count];
        this.next = new int[count];
        this.previous = new int[count];
        for (int page = 0; page < count; page++) {
            next[page] = page + 1 < count ? page + 1 : END;
        }
        this.freeCount = count;
    }

    int count() {
        return users.length;
    }

    int freeCount() {
        return freeCount;
    }

    int cachedCount() {
        return cachedCount;
    }

    /** Returns how many pages have several users. */
    int sharedCount() {
        return sharedCount;
    }

    long evictions() {
        return evictions;
    }

    /** Returns how many pages can be taken. */
    int available() {
        return freeCount + cachedCount;
    }

    boolean isShared(int page) {
        return users[page] > 1;
    }

    /** Takes one of the {@link #available} pages, for one user. */
    int take() {
        int page = free;
        if (page != END) {
            free = next[page];
            freeCount--;
        } else {
            page = oldest;
            unlink(page);
            evicted.accept(page);
            tree.remove(page);
            evictions++;
        }
        users[page] = 1;
        return page;
    }

    /** Adds a user to a page that is in use or cached. */
    void use(int page) {
        if (users[page] == 0) {
            unlink(page);
        } else if (users[page] == 1) {
            sharedCount++;
        }
        users[page]++;
    }

    /** Takes a user away. */
    void leave(int page) {
        users[page]--;
        if (users[page] == 1) {
            sharedCount--;
        } else if (users[page] == 0 && tree.contains(page)) {
            previous[page] = newest;
            next[page] = END;
            if (newest == END) {
                oldest = page;
            } else {
                next[newest] = page;
            }
            newest = page;
            cachedCount++;
        } else if (users[page] == 0) {
            next[page] = free;
            free = page;
            freeCount++;
        }
    }

    private void unlink(int page) {
        if (previous[page] == END) {
            oldest = next[page];
        } else {
            next[previous[page]] = next[page];
        }
        if (next[page] == END) {
            newest = previous[page];
        } else {
            previous[next[page]] = previous[page];
        }
        cachedCount--;
    }
}
