package io.gatun;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The keys and values of many sequences, in pages of a {@link MemoryPool} (Kwon et al. 2023, PagedAttention, section
 * 4): sequences grow page by page, share the pages of what they have in common, and find the keys of a prompt that was
 * seen before. {@link Rope} appends to the pages and {@link Attention#paged} reads them; the cache holds the books.
 *
 * <p>A {@link Sequence} goes through steps of four parts: {@link Sequence#append} makes room for tokens and says where
 * it is, {@link Sequence#fill} describes the sequence to attention, runs write and read the pages, and
 * {@link Sequence#commit} says that the new tokens are there.
 *
 * {@snippet :
 * TensorSpec pages = TensorSpec.of(DType.BF16, 4096, 16, 8, 128); // pages, page size, heads of keys, head size
 * TensorSpec q = TensorSpec.of(DType.BF16, 512, 32, 128); // at most 512 tokens in a step
 * TensorSpec k = TensorSpec.of(DType.BF16, 512, 8, 128);
 * try (KvCache cache = KvCache.of(pool, layers, pages, pages);
 *      Rope.Plan rope = Rope.halves(128).plan(device, 8192, q, q, k, pages, k, pages);
 *      Attention.Plan attention = Attention.causal().packed(1).paged(8192).plan(device, q, pages, pages);
 *      KvCache.Sequence sequence = cache.open(Arrays.copyOf(prompt, prompt.length - 1))) {
 *     Tensor blockTable = pool.tensor(DType.S32, 1, 8192 / 16);
 *     Tensor lengths = pool.tensor(DType.S64, 1);
 *     int[] rest = Arrays.copyOfRange(prompt, sequence.length(), prompt.length); // at least the last token
 *     sequence.append(stream, rest, positions, slots, 0);
 *     sequence.fill(blockTable, lengths, 0);
 *     for (int layer = 0; layer < layers; layer++) {
 *         // queries, keys and values of the layer, then:
 *         rope.run(stream, positions, table, slots, queries, queries, keys, cache.k(layer), values, cache.v(layer),
 *                 cache.kScales(layer), cache.vScales(layer));
 *         attention.run(stream, arrays.k(cache.k(layer)).v(cache.v(layer)).blockTable(blockTable).kIndex(lengths));
 *     }
 *     sequence.commit();
 * }
 * }
 *
 * <p><b>Reuse.</b> Full pages of committed tokens can be found by their tokens, in a radix tree (Zheng et al. 2024,
 * SGLang, section 3), also after their sequences were closed. {@link #open} shares all that a prompt begins with. Keys
 * depend on the token ids and their positions alone here: what depends on more, such as an adapter or an image, needs
 * ids or a cache of its own. Two sequences that computed the same page keep one of the two.
 *
 * <p><b>Eviction.</b> When no page is free, cached pages that no sequence has go, least recently used first, the end of
 * a prefix before its beginning.
 *
 * <p><b>A tier below.</b> A cache over a {@link SpillTier} writes the cached pages that go to it, and those that are left
 * when it is closed. {@link #open} reads from there what a prompt goes on with, also in another process later on; a page
 * that the tier cannot take or give, be it for a full disk or a damaged block, is one that is not found. Blocks are found
 * by the tokens alone, so a file is for the caches of one model.
 *
 * {@snippet :
 * try (SpillTier tier = SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, KvCache.blockBytes(layers, pages, pages),
 *              100_000).residentBlocks(16).dropWhenFull().open();
 *      KvCache cache = KvCache.of(pool, layers, pages, pages, tier)) {
 *     // as above
 * }
 * }
 *
 * <p><b>Forks</b> share all pages. An append to a page that others have, or that can be found by its tokens, goes to a
 * copy of it.
 *
 * <p>Safe for use by several threads; none waits for what another one reads from a tier or writes to it, unless it opens a
 * sequence that goes on with that very page, or the tier may have too few blocks in memory for both. When runs write and read is their callers' to order: who has a sequence before
 * {@link Sequence#commit} alone reads its new tokens, and a sequence is closed after the last run that reads it, or in
 * the order of one stream. Calls allocate nothing on the Java heap but {@link #open}, {@link Sequence#fork} and
 * {@link #statistics}, unless a page is copied, read or written to a tier, or the list of a sequence's pages outgrows
 * its room, which then doubles.
 */
public final class KvCache implements AutoCloseable {
    private static final DType[] TYPES = {DType.F32, DType.BF16, DType.F16, DType.S8};
    private static final long MOST_TOKENS = 1L << 28;

    private final MemoryPool pool;
    private final TensorSpec spec;
    private final int pageSize;
    private final Tensor[] k;
    private final @Nullable Tensor[] v;
    private final @Nullable Tensor[] kScales;
    private final @Nullable Tensor[] vScales;
    private final List<Tensor> blocks = new ArrayList<>();
    private final @Nullable SpilledPages spilled;
    private final Leaks.Watch watch;

    // Guarded by this.
    private final PrefixTree tree;
    private final Pages pages;
    private int sequences;
    private long requestedTokens;
    private long reusedTokens;
    private long copiedPages;
    private boolean closed;

    /**
     * How a cache is used. Used, cached and free pages are all there are.
     *
     * @param sequences those that are open
     * @param usedPages pages that sequences have
     * @param sharedPages those of them that several have
     * @param cachedPages pages that no sequence has, but that can be found by their tokens
     * @param freePages the others
     * @param requestedTokens tokens that {@link #open} was given
     * @param reusedTokens those of them that were there
     * @param evictedPages cached pages that were given up for new tokens
     * @param copiedPages pages that were copied before an append
     * @param spilledPages pages that were written to the tier below
     * @param restoredPages pages that came back from there
     * @param tierFailures pages that the tier could not take, or had and could not give
     */
    public record Statistics(
            long sequences,
            long usedPages,
            long sharedPages,
            long cachedPages,
            long freePages,
            long requestedTokens,
            long reusedTokens,
            long evictedPages,
            long copiedPages,
            long spilledPages,
            long restoredPages,
            long tierFailures) {
        /**
         * Returns the part of the requested tokens that were there.
         *
         * @return 0 to 1; 0 where nothing was requested
         */
        public double reuseRate() {
            return requestedTokens == 0 ? 0 : (double) reusedTokens / requestedTokens;
        }
    }

    private KvCache(
            MemoryPool pool, int layers, TensorSpec kSpec, @Nullable TensorSpec vSpec, @Nullable SpillTier tier) {
        this.pool = pool;
        this.spec = kSpec;
        this.pageSize = (int) kSpec.size(1);
        this.k = new Tensor[layers];
        this.v = new Tensor[layers];
        this.kScales = new Tensor[layers];
        this.vScales = new Tensor[layers];
        this.tree = new PrefixTree((int) kSpec.size(0), pageSize);
        this.spilled = tier == null ? null : new SpilledPages(tier, tree, (int) kSpec.size(0), pageSize, blocks);
        this.pages = new Pages((int) kSpec.size(0), tree, spilled == null ? page -> {} : spilled::leaves);
        boolean scaled = kSpec.dtype() == DType.S8;
        TensorSpec scales = TensorSpec.of(DType.F32, kSpec.size(0), kSpec.size(1), kSpec.size(2));
        try {
            for (int layer = 0; layer < layers; layer++) {
                k[layer] = block(kSpec);
                v[layer] = vSpec == null ? null : block(vSpec);
                kScales[layer] = scaled ? block(scales) : null;
                vScales[layer] = scaled && vSpec != null ? block(scales) : null;
            }
        } catch (RuntimeException | Error e) {
            free();
            throw e;
        }
        this.watch = Leaks.watch(this, toString(), () -> {}); // its tensors may be in use: the memory is the pool's
    }

    /**
     * Makes a cache, with all of its memory. The content of its pages is undefined at first. What is forgotten instead
     * of closed leaves that memory to the pool's close.
     *
     * @param pool whose memory it is
     * @param layers tensors of keys and of values that have the same pages, 1 or more
     * @param k of the keys of a layer: dense F32, BF16, F16 or S8 {@code [pages, page size, heads_k, dk]}, each 1 or
     *     more, of at most 2^28 tokens. S8 has a scale for each token and head
     * @param v of the values, of the type, pages, page size and heads of {@code k}, {@code [pages, page size, heads_k,
     *     dv]}; null where the values are a part of the keys, as in MLA
     * @return the cache
     * @throws IllegalArgumentException if a spec or a number is none of these
     * @throws IllegalStateException if the pool or its device is closed
     * @throws UnsupportedOperationException if the pool is for staging, and its device does not compute on that
     * @throws GatunException if the device has no more memory
     */
    public static KvCache of(MemoryPool pool, int layers, TensorSpec k, @Nullable TensorSpec v) {
        check(pool, layers, k, v);
        return new KvCache(pool, layers, k, v, null);
    }

    /**
     * Makes a cache over a tier, where pages go that have to leave it and from where they come back.
     *
     * @param pool whose memory it is, of a device that computes on memory of the host
     * @param layers as in {@link #of(MemoryPool, int, TensorSpec, TensorSpec)}
     * @param k the same
     * @param v the same
     * @param tier of blocks of {@link #blockBytes}; to be closed after the cache
     * @return the cache
     * @throws IllegalArgumentException if a spec or a number is none of these, or the tier has other blocks
     * @throws IllegalStateException if the pool or its device is closed
     * @throws UnsupportedOperationException if the pool's device does not compute on memory of the host
     * @throws GatunException if the device has no more memory
     */
    public static KvCache of(MemoryPool pool, int layers, TensorSpec k, @Nullable TensorSpec v, SpillTier tier) {
        check(pool, layers, k, v);
        if (tier == null) {
            throw new NullPointerException("tier");
        }
        if (!pool.device().info().hostMemory()) {
            throw new UnsupportedOperationException("a KV cache of " + pool + " over " + tier
                    + ": expected a device that computes on memory of the host");
        }
        long bytes = blockBytes(layers, k, v);
        if (tier.blockBytes() != bytes) {
            throw new IllegalArgumentException(
                    "tier: blocks of " + tier.blockBytes() + " bytes, expected " + bytes + " for a page of the cache");
        }
        return new KvCache(pool, layers, k, v, tier);
    }

    /**
     * Returns the size of the blocks of a tier below a cache: what a page has in all layers, and its tokens.
     *
     * @param layers as in {@link #of(MemoryPool, int, TensorSpec, TensorSpec)}
     * @param k the same
     * @param v the same
     * @return bytes
     */
    public static long blockBytes(int layers, TensorSpec k, @Nullable TensorSpec v) {
        check(layers, k, v);
        long rows = k.size(1) * k.size(2);
        long scale = k.dtype() == DType.S8 ? Float.BYTES : 0;
        long bytes = rows * (k.size(3) * k.dtype().bytes() + scale)
                + (v == null ? 0 : rows * (v.size(3) * v.dtype().bytes() + scale));
        return SpilledPages.blockBytes((int) k.size(1), layers * bytes);
    }

    private static void check(MemoryPool pool, int layers, TensorSpec k, @Nullable TensorSpec v) {
        if (pool == null) {
            throw new NullPointerException("pool");
        }
        check(layers, k, v);
        if (pool.isHostMemory() && !pool.device().info().hostMemory()) {
            throw new UnsupportedOperationException(
                    "a KV cache of " + pool + ", which is for staging: expected memory that the device computes on");
        }
    }

    private static void check(int layers, TensorSpec k, @Nullable TensorSpec v) {
        Arguments.atLeast("layers", layers, 1);
        check("k", k);
        if (k.size(0) > MOST_TOKENS / k.size(1)) {
            throw Arguments.wrong("k", k, "at most " + MOST_TOKENS + " tokens");
        }
        if (v != null) {
            check("v", v);
            Arguments.type("v", v, k.dtype());
            Arguments.size("v", v, 0, k.size(0), "the pages of k");
            Arguments.size("v", v, 1, k.size(1), "the page size of k");
            Arguments.size("v", v, 2, k.size(2), "the heads of k");
        }
    }

    private static void check(String name, TensorSpec spec) {
        Arguments.rank(name, spec, 4, "[pages, page size, heads, head size]");
        Arguments.type(name, spec, TYPES);
        if (spec.elements() == 0) {
            throw Arguments.wrong(name, spec, "1 or more in each dimension");
        }
        if (!spec.isContiguous()) {
            throw Arguments.wrong(name, spec, "a contiguous tensor");
        }
    }

    private Tensor block(TensorSpec spec) {
        Tensor block = pool.tensor(MemoryDomain.KV_CACHE, spec.dtype(), spec.shape());
        blocks.add(block);
        return block;
    }

    private void free() {
        while (!blocks.isEmpty()) {
            pool.free(blocks.getLast());
            blocks.removeLast();
        }
    }

    /**
     * Returns the keys of a layer, as plans of {@link Rope} and {@link Attention#paged} take them.
     *
     * @param layer 0 to the number of layers - 1
     * @return the pages, until {@link #close}
     * @throws IndexOutOfBoundsException if there is no such layer
     */
    public Tensor k(int layer) {
        return k[layer];
    }

    /**
     * Returns the values of a layer.
     *
     * @param layer 0 to the number of layers - 1
     * @return the pages, until {@link #close}; null where the values are a part of the keys
     * @throws IndexOutOfBoundsException if there is no such layer
     */
    public @Nullable Tensor v(int layer) {
        return v[layer];
    }

    /**
     * Returns the scales of the keys of a layer.
     *
     * @param layer 0 to the number of layers - 1
     * @return F32 {@code [pages, page size, heads_k]}, until {@link #close}; null unless the keys are S8
     * @throws IndexOutOfBoundsException if there is no such layer
     */
    public @Nullable Tensor kScales(int layer) {
        return kScales[layer];
    }

    /**
     * Returns the scales of the values of a layer.
     *
     * @param layer 0 to the number of layers - 1
     * @return as {@link #kScales}; null also where the values are a part of the keys
     * @throws IndexOutOfBoundsException if there is no such layer
     */
    public @Nullable Tensor vScales(int layer) {
        return vScales[layer];
    }

    /**
     * Opens a sequence that begins with as many of these tokens as are there, in full pages: {@link Sequence#length}
     * says how many. The others are to be appended, and those beyond. A model that is to predict from the last token
     * has to compute it: give all but that one here.
     *
     * @param tokens what the sequence will begin with; none for an empty one
     * @return the sequence
     * @throws IllegalStateException if the cache is closed
     */
    public Sequence open(int... tokens) {
        Path path = new Path();
        synchronized (this) {
            checkOpen();
            sequences++;
        }
        try {
            for (int page = follow(path, tokens); page != PrefixTree.NONE; page = follow(path, tokens)) {
                if (!restore(path, tokens, page)) {
                    break;
                }
            }
            Sequence sequence = new Sequence(this, path);
            synchronized (this) {
                requestedTokens += tokens.length;
                reusedTokens += path.length;
            }
            return sequence;
        } catch (RuntimeException | Error e) {
            release(path);
            throw e;
        }
    }

    /**
     * Goes on with what is in the tree, also after what others are moving at the moment. Returns a page to restore the next
     * one to, whose key is moving then, if the tier may have it and a page can be taken; else {@link PrefixTree#NONE}.
     */
    private synchronized int follow(Path path, int[] tokens) {
        while (tokens.length - path.length >= pageSize) {
            path.reserve(path.count + 1);
            int page = tree.child(path.last(), tokens, path.length);
            if (page != PrefixTree.NONE) {
                pages.use(page);
                extend(path, page);
                continue;
            }
            if (spilled == null) {
                return PrefixTree.NONE;
            }
            long key = spilled.key(path.last(), tokens, path.length);
            if (spilled.isMoving(key)) {
                awaitMoved(key);
            } else if (pages.available() == 0 || !spilled.mayHave(key)) {
                return PrefixTree.NONE;
            } else {
                spilled.moves(key);
                return pages.take();
            }
        }
        return PrefixTree.NONE;
    }

    /** Goes on with a page that is in the tree, and that the path has. Has the lock. */
    private void extend(Path path, int page) {
        path.pages[path.count++] = page;
        path.length += pageSize;
        path.committed = path.length;
    }

    /** Has the lock, but not while it waits. Who moves a page waits for the tier alone, so that it ends. */
    private void awaitMoved(long key) {
        boolean interrupted = false;
        while (spilled.isMoving(key)) {
            try {
                wait();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Goes on with the next page, if the tier has it, in one that was taken for it. Others use the cache while that is read. */
    private boolean restore(Path path, int[] tokens, int page) {
        int parent = path.last();
        long key = spilled.key(parent, tokens, path.length);
        boolean restored = false;
        try {
            spill(page);
            restored = spilled.restore(page, parent, tokens, path.length);
        } finally {
            synchronized (this) {
                if (restored && tree.child(parent, tokens, path.length) == PrefixTree.NONE) {
                    for (int i = 0; i < pageSize; i++) {
                        tree.setToken(page * pageSize + i, tokens[path.length + i]);
                    }
                    tree.add(parent, page);
                    spilled.added(parent, page);
                    extend(path, page);
                } else {
                    pages.leave(page); // it is not there, or who computed it was faster
                }
                spilled.moved(key);
                notifyAll();
            }
        }
        return restored;
    }

    /** Writes a page that was taken, and could be found until then, to the tier. Called without the lock. */
    private void spill(int page) {
        if (spilled != null && spilled.isLeaving(page)) {
            try {
                spilled.spill(page);
            } finally {
                left(page);
            }
        }
    }

    private synchronized void left(int page) {
        if (spilled != null) {
            spilled.left(page);
            notifyAll();
        }
    }

    /**
     * Returns how the cache is used at this moment.
     *
     * @return the statistics
     */
    public synchronized Statistics statistics() {
        return new Statistics(
                sequences,
                pages.count() - pages.available(),
                pages.sharedCount(),
                pages.cachedCount(),
                pages.freeCount(),
                requestedTokens,
                reusedTokens,
                pages.evictions(),
                copiedPages,
                spilled == null ? 0 : spilled.spilled(),
                spilled == null ? 0 : spilled.restored(),
                spilled == null ? 0 : spilled.failures());
    }

    /**
     * Writes the cached pages to the tier below, if there is one, and gives the memory back to the pool; the tensors of
     * this cache must not be used any more. Closing it again does nothing.
     *
     * @throws IllegalStateException if a sequence is open, and nothing is closed; or if the pool was closed before
     */
    @Override
    public synchronized void close() {
        if (closed) {
            return;
        }
        if (sequences > 0) {
            throw new IllegalStateException("the " + this + " cannot be closed: " + sequences
                    + (sequences == 1 ? " sequence of it is open" : " sequences of it are open"));
        }
        for (int page = 0; spilled != null && page < pages.count(); page++) {
            if (tree.contains(page)) {
                spilled.spill(page);
            }
        }
        free();
        closed = true;
        watch.end();
    }

    /**
     * Returns what the cache is made of.
     *
     * @return such as {@code KV cache of 32 layers, BF16[4096, 16, 8, 128]}
     */
    @Override
    public String toString() {
        return "KV cache of " + k.length + (k.length == 1 ? " layer, " : " layers, ") + spec;
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException("the " + this + " is closed");
        }
    }

    private synchronized void release(Path path) {
        if (!path.closed) {
            path.closed = true;
            if (!path.busy) {
                end(path);
            }
        }
    }

    /** Gives back the pages of a path that is closed. Has the lock. */
    private void end(Path path) {
        keep(path, 0);
        sequences--;
    }

    /** What was done without the lock is done. If the path was closed meanwhile, that ends it. Has the lock. */
    private void endBusy(Path path) {
        path.busy = false;
        if (path.closed) {
            end(path);
        }
    }

    /** Leaves all pages but the first {@code count}, from the last one on, as {@link Pages} wants it. */
    private void keep(Path path, int count) {
        while (path.count > count) {
            pages.leave(path.pages[--path.count]);
        }
    }

    private void append(
            Path path, Stream stream, int token, int @Nullable [] tokens, Tensor positions, Tensor slots, long at) {
        int added = tokens == null ? 1 : tokens.length;
        if (stream == null) {
            throw new NullPointerException("stream");
        }
        checkRows("positions", positions, at, added);
        checkRows("slots", slots, at, added);
        int before;
        int after;
        int rows; // of a page that the tokens begin in the middle of
        int partial;
        int copy = PrefixTree.NONE;
        synchronized (this) {
            checkOpen(path);
            before = path.count;
            long all = Math.ceilDiv((long) path.length + added, pageSize);
            rows = path.length % pageSize;
            partial = rows == 0 ? PrefixTree.NONE : path.last();
            boolean kept = added > 0 && rows != 0 && (pages.isShared(partial) || tree.contains(partial));
            long needed = all - before + (kept ? 1 : 0);
            // With no page for a copy, one that no other sequence has is given up for reuse, and written in place.
            boolean givenUp = kept && !pages.isShared(partial) && needed == pages.available() + 1L;
            if (needed - (givenUp ? 1 : 0) > pages.available()) {
                throw new GatunException("tokens: " + added + " of them behind " + path.length + " need " + needed
                        + " pages of the " + this + ", which has " + pages.available() + " that no sequence has");
            }
            after = (int) all;
            path.reserve(after);
            for (int i = before; i < after; i++) {
                path.pages[i] = pages.take();
            }
            if (givenUp) {
                if (spilled != null) {
                    spilled.leaves(partial);
                }
                tree.remove(partial); // its children, if any, were evicted to take the pages
            } else if (kept) {
                copy = pages.take();
            }
            path.busy = true;
        }
        try {
            // Others use the cache while pages are written to the tier or copied.
            for (int i = Math.max(before - 1, 0); i < after; i++) {
                spill(path.pages[i]);
            }
            if (copy != PrefixTree.NONE) {
                spill(copy);
                copyRows(stream, partial, copy, rows);
                path.pages[before - 1] = copy;
            }
            for (int i = 0; i < added; i++) {
                set(positions, at + i, path.length + i);
                set(slots, at + i, row(path, path.length + i));
            }
        } catch (RuntimeException | Error e) {
            synchronized (this) {
                for (int i = after - 1; i >= before; i--) {
                    left(path.pages[i]);
                    pages.leave(path.pages[i]);
                }
                if (copy != PrefixTree.NONE) {
                    left(copy);
                    pages.leave(copy);
                    path.pages[before - 1] = partial;
                }
                endBusy(path);
            }
            throw e;
        }
        synchronized (this) {
            if (copy != PrefixTree.NONE) {
                tree.copyTokens(partial, copy, rows);
                pages.leave(partial);
                copiedPages++;
            }
            for (int i = 0; i < added; i++) {
                tree.setToken(row(path, path.length + i), tokens == null ? token : tokens[i]);
            }
            path.count = after;
            path.length += added;
            endBusy(path);
            checkOpen(path);
        }
    }

    private static void checkRows(String name, Tensor tensor, long at, int count) {
        Arguments.rank(name, tensor.spec, 1, "[tokens]");
        Arguments.type(name, tensor.spec, DType.S64);
        Arguments.onHost(name, tensor);
        Arguments.writable(name, tensor.memory);
        if (at < 0 || at > tensor.spec.size(0) - count) {
            throw new IllegalArgumentException(
                    "at: " + at + ", expected 0 to " + (tensor.spec.size(0) - count) + " for " + count
                            + (count == 1 ? " token" : " tokens") + " in " + name + ", " + tensor.spec);
        }
    }

    private static void set(Tensor tensor, long index, long value) {
        tensor.memory.set(ValueLayout.JAVA_LONG, index * tensor.spec.stride(0) * Long.BYTES, value);
    }

    private int row(Path path, int position) {
        return path.pages[position / pageSize] * pageSize + position % pageSize;
    }

    private void copyRows(Stream stream, int from, int to, int rows) {
        for (Tensor block : blocks) {
            long row = block.spec.stride(1) * block.spec.dtype().bytes();
            long page = row * pageSize;
            stream.copyOnDevice(
                    block.memory().asSlice(from * page, rows * row), block.memory().asSlice(to * page, rows * row));
        }
    }

    private synchronized void commit(Path path) {
        checkOpen(path);
        for (int i = path.committed / pageSize; i < path.length / pageSize; i++) {
            int parent = i == 0 ? PrefixTree.NONE : path.pages[i - 1];
            int page = path.pages[i];
            int same = tree.child(parent, page);
            if (same == PrefixTree.NONE) {
                tree.add(parent, page);
                if (spilled != null) {
                    spilled.added(parent, page);
                }
            } else {
                pages.use(same);
                path.pages[i] = same;
                pages.leave(page);
            }
        }
        path.committed = path.length;
    }

    private synchronized Path fork(Path path) {
        checkOpen(path);
        if (path.committed < path.length) {
            throw new IllegalStateException("the last " + (path.length - path.committed)
                    + " tokens of the sequence are not committed, expected a commit before a fork");
        }
        Path copy = new Path();
        copy.pages = Arrays.copyOf(path.pages, Math.max(path.count, 1));
        copy.count = path.count;
        copy.length = path.length;
        copy.committed = path.committed;
        return copy;
    }

    private synchronized void truncate(Path path, int length) {
        checkOpen(path);
        if (length < 0 || length > path.length) {
            throw new IllegalArgumentException(
                    "length: " + length + ", expected 0 to " + path.length + ", the length of the sequence");
        }
        keep(path, Math.ceilDiv(length, pageSize));
        path.length = length;
        path.committed = Math.min(path.committed, length);
    }

    private synchronized void fill(Path path, Tensor blockTable, Tensor lengths, long row) {
        checkOpen(path);
        Arguments.rank("blockTable", blockTable.spec, 2, "[sequences, pages]");
        Arguments.type("blockTable", blockTable.spec, DType.S32);
        Arguments.unitStride("blockTable", blockTable.spec);
        Arguments.onHost("blockTable", blockTable);
        Arguments.writable("blockTable", blockTable.memory);
        Arguments.rank("lengths", lengths.spec, 1, "[sequences]");
        Arguments.type("lengths", lengths.spec, DType.S64);
        Arguments.onHost("lengths", lengths);
        Arguments.writable("lengths", lengths.memory);
        long rows = Math.min(blockTable.spec.size(0), lengths.spec.size(0));
        if (row < 0 || row >= rows) {
            throw new IllegalArgumentException(
                    "row: " + row + ", expected less than the " + rows + " rows of blockTable and lengths");
        }
        if (path.count > blockTable.spec.size(1)) {
            throw Arguments.wrong("blockTable", blockTable.spec,
                    path.count + " or more in dimension 1, for the pages of the sequence");
        }
        MemorySegment.copy(path.pages, 0, blockTable.memory, ValueLayout.JAVA_INT,
                row * blockTable.spec.stride(0) * Integer.BYTES, path.count);
        set(lengths, row, path.length);
    }

    private synchronized int length(Path path) {
        checkOpen(path);
        return path.length;
    }

    private void checkOpen(Path path) {
        if (path.closed) {
            throw new IllegalStateException("the sequence of the " + this + " is closed");
        }
    }

    /**
     * The pages of a sequence. The first {@code committed / page size} of them are in the tree, each the child of the
     * one before; other full ones are of this sequence alone.
     */
    private static final class Path {
        int[] pages = new int[4];
        int count;
        int length; // in tokens
        int committed;
        boolean busy; // an append is at work without the lock, and has the pages until its end
        boolean closed;

        int last() {
            return count == 0 ? PrefixTree.NONE : pages[count - 1];
        }

        void reserve(int room) {
            if (room > pages.length) {
                pages = Arrays.copyOf(pages, Math.max(room, 2 * pages.length));
            }
        }
    }

    /**
     * One sequence of tokens in a {@link KvCache}. One thread at a time uses it. Use after {@link #close} is an
     * {@link IllegalStateException}.
     */
    public static final class Sequence implements AutoCloseable {
        private final KvCache cache;
        private final Path path;
        private final Leaks.Watch watch;

        private Sequence(KvCache cache, Path path) {
            this.cache = cache;
            this.path = path;
            this.watch = Leaks.watch(this, "a sequence of the " + cache, () -> cache.release(path));
        }

        /**
         * Returns how many tokens the sequence has.
         *
         * @return the tokens that were there when it was opened and those that were appended, less what was truncated
         */
        public int length() {
            return cache.length(path);
        }

        /**
         * Appends tokens: says where their keys and values are to be written, which a run of {@link Rope} then does.
         * Where this throws, nothing has changed but what could be found by its tokens.
         *
         * @param stream what the runs that write will be given to. The beginning of a page that others have is copied
         *     on it
         * @param tokens their ids, any numbers
         * @param positions S64 {@code [tokens]}: gets their positions in the sequence, in memory that Java can write to
         * @param slots the same: gets the rows {@code page * page size + offset} of the pages
         * @param at the index of {@code positions} and {@code slots} that the first token goes to
         * @throws IllegalArgumentException if a tensor or number is none of these, or there are too few indices
         * @throws IllegalStateException if the sequence, or a tensor's memory, is closed, be it meanwhile, or a page is to
         *     be copied and another thread is using the stream
         * @throws GatunException if other sequences have the pages that this needs
         */
        public void append(Stream stream, int[] tokens, Tensor positions, Tensor slots, long at) {
            if (tokens == null) {
                throw new NullPointerException("tokens");
            }
            try {
                cache.append(path, stream, 0, tokens, positions, slots, at);
            } finally {
                Reference.reachabilityFence(this); // what is forgotten is released
            }
        }

        /**
         * Appends one token, as {@link #append(Stream, int[], Tensor, Tensor, long)} does.
         *
         * @param stream what the runs that write will be given to
         * @param token its id
         * @param positions gets its position
         * @param slots gets its row
         * @param at the index of {@code positions} and {@code slots} that it goes to
         */
        public void append(Stream stream, int token, Tensor positions, Tensor slots, long at) {
            try {
                cache.append(path, stream, token, null, positions, slots, at);
            } finally {
                Reference.reachabilityFence(this);
            }
        }

        /**
         * Says that all tokens of the sequence have been written, or will be by what was given to the stream of those
         * that read them. Full pages can be found by {@link #open} from now on. What was filled in before may name
         * pages that this gives back, because others have the same tokens: it is to be filled in again.
         */
        public void commit() {
            cache.commit(path);
        }

        /**
         * Describes the sequence to {@link Attention#paged}. That holds until the next {@link #append},
         * {@link #commit}, {@link #truncate} or {@link #close}.
         *
         * @param blockTable S32 {@code [sequences, pages]}, in memory that Java can write to: one row gets the pages of
         *     this sequence; entries behind them are left as they are
         * @param lengths S64 {@code [sequences]}: gets the length
         * @param row the sequence's row in both
         * @throws IllegalArgumentException if a tensor or number is none of these, or the pages are too many for a row
         * @throws IllegalStateException if the sequence, or a tensor's memory, is closed
         */
        public void fill(Tensor blockTable, Tensor lengths, long row) {
            cache.fill(path, blockTable, lengths, row);
        }

        /**
         * Opens a sequence of the same tokens, which goes on by itself. Both share their pages; of a last page that is
         * not full, the first of the two that appends gets a copy.
         *
         * @return the other sequence
         * @throws IllegalStateException if tokens were appended after the last {@link #commit}
         */
        public Sequence fork() {
            synchronized (cache) {
                Path copy = cache.fork(path);
                Sequence other = new Sequence(cache, copy);
                for (int i = 0; i < copy.count; i++) {
                    cache.pages.use(copy.pages[i]);
                }
                cache.sequences++;
                return other;
            }
        }

        /**
         * Takes the last tokens back, committed or not. Full pages that were committed can still be found.
         *
         * @param length how many tokens remain, 0 to {@link #length}
         * @throws IllegalArgumentException if there are fewer
         */
        public void truncate(int length) {
            cache.truncate(path, length);
        }

        /** Gives the pages back. Full ones that were committed can still be found. Closing it again does nothing. */
        @Override
        public void close() {
            cache.release(path);
            watch.end();
        }

        @Override
        public String toString() {
            return "sequence of the " + cache;
        }
    }
}
