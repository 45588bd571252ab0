package io.gatun;

import java.util.Arrays;

/**
 * The pages of a cache that can be found by their tokens: a radix tree whose edges are whole pages of token ids. A page
 * in the tree stands for its own tokens behind those of its parent, so that the same tokens behind other ones are
 * another page.
 *
 * <p>The edges are in one hash table, found by the parent and the tokens of the child, and compared token by token.
 * Nothing is allocated after the start. Not thread-safe.
 */
final class PrefixTree {
    /** The parent of first pages, and what is returned for no page. */
    static final int NONE = -1;

    private static final int OUTSIDE = -2;

    private final int pageSize;
    private final int[] tokens; // of each row of each page, in the tree or not
    private final int[] parents; // OUTSIDE for a page that is not in the tree
    private final int[] hashes;
    private final int[] table; // pages, by linear probing; at most half full

    PrefixTree(int pages, int pageSize) {
        this.pageSize = pageSize;
        this.tokens = new int[pages * pageSize];
        this.parents = new int[pages];
        this.hashes = new int[pages];
        this.table = new int[Math.max(2, Integer.highestOneBit(pages) << 2)];
        Arrays.fill(parents, OUTSIDE);
        Arrays.fill(table, NONE);
    }

    /** Sets the token of a row, {@code page * page size + offset}, of a page that is not in the tree. */
    void setToken(int row, int token) {
        tokens[row] = token;
    }

    /** Returns the token of a row. */
    int token(int row) {
        return tokens[row];
    }

    void copyTokens(int from, int to, int count) {
        System.arraycopy(tokens, from * pageSize, tokens, to * pageSize, count);
    }

    boolean contains(int page) {
        return parents[page] != OUTSIDE;
    }

    /** Returns the page of these tokens behind a parent, or {@link #NONE}. */
    int child(int parent, int[] of, int at) {
        int hash = hash(parent, of, at);
        for (int slot = hash & table.length - 1; ; slot = slot + 1 & table.length - 1) {
            int page = table[slot];
            if (page == NONE) {
                return NONE;
            }
            int from = page * pageSize;
            if (hashes[page] == hash && parents[page] == parent
                    && Arrays.equals(tokens, from, from + pageSize, of, at, at + pageSize)) {
                return page;
            }
        }
    }

    /** Returns the page in the tree that has the tokens of {@code page} behind a parent, or {@link #NONE}. */
    int child(int parent, int page) {
        return child(parent, tokens, page * pageSize);
    }

    /** Adds a page whose tokens are set, and which has no equal behind this parent. */
    void add(int parent, int page) {
        parents[page] = parent;
        hashes[page] = hash(parent, tokens, page * pageSize);
        int slot = hashes[page] & table.length - 1;
        while (table[slot] != NONE) {
            slot = slot + 1 & table.length - 1;
        }
        table[slot] = page;
    }

    /** Takes out a page that has no children. */
    void remove(int page) {
        int mask = table.length - 1;
        int hole = hashes[page] & mask;
        while (table[hole] != page) {
            hole = hole + 1 & mask;
        }
        // What was pushed past the hole moves back, so that no search ends too early (Knuth, volume 3, algorithm 6.4R).
        for (int slot = hole + 1 & mask; table[slot] != NONE; slot = slot + 1 & mask) {
            int home = hashes[table[slot]] & mask;
            if ((slot - home & mask) >= (slot - hole & mask)) {
                table[hole] = table[slot];
                hole = slot;
            }
        }
        table[hole] = NONE;
        parents[page] = OUTSIDE;
    }

    private int hash(int parent, int[] of, int at) {
        int hash = parent;
        for (int i = at; i < at + pageSize; i++) {
            hash = hash * 0x01000193 ^ of[i]; // FNV-1, a token at a time
        }
        hash = (hash ^ hash >>> 16) * 0x85ebca6b; // and the end of MurmurHash3, for the low bits
        return hash ^ hash >>> 13;
    }
}
