package io.gatun;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Blocks of one size under keys, more than memory holds: a tier below a {@link MemoryPool}. Those in use are in memory
 * of the pool, all of them in a file, from where they come back when they are asked for, also after a restart. The user
 * chooses the keys, such as a hash of all tokens up to the end of a page of keys and values.
 *
 * {@snippet :
 * try (SpillTier tier = SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, pageBytes, 100_000).open()) {
 *     try (SpillTier.Pin page = tier.create(hash)) {
 *         compute(page.memory());
 *         page.commit();
 *     }
 *     try (SpillTier.Pin page = tier.pin(hash)) { // null if it is not there
 *         use(page.memory());
 *     }
 * }
 * }
 *
 * <p><b>Memory.</b> A block is reached through a {@link Pin}, and stays in memory until that is closed. When the tier
 * has as many blocks in memory as it may, or the domain is full, the one that was not pinned for longest leaves memory,
 * of those that are in the file as they are. If there is none, the request waits until one is written. If all are
 * pinned it fails, or does what was chosen for when the domain is full ({@link MemoryPool.Builder#whenFull}).
 *
 * <p><b>File.</b> New and changed blocks are written by a thread of the tier, from the moment their pin is closed. A
 * new version goes to a free place, and the old one is given up when the new one is whole: however the process ends,
 * each block is there in its last written version. {@link #flush} returns when all is written, and no end of the
 * process loses any of it then. A loss of power may, unless {@link #sync} returned, and then loses no block that was
 * not changed since. All contents and records have checksums (CRC32C). A damaged block is none: a request for it is
 * answered as if it had never been there, it is counted, and the Flight Recorder is told.
 *
 * <p>The file has room for all blocks, is written once as a whole when it is made, which takes its time, and is never
 * mapped: a full disk is an exception there and then. A lock keeps other processes and tiers away.
 *
 * <p>Safe for use by several threads. One lock keeps the books, and is never held during input, output and checksums;
 * to pin a block that is in memory makes one object or two. Threads that are interrupted wait nevertheless. The tier
 * has no thread while there is nothing to read and write.
 */
public final class SpillTier implements AutoCloseable {
    private static final int READERS = 4;
    private static final long MOST_BLOCK_BYTES = 1L << 30;
    private static final int MOST_BLOCKS = 1 << 28;
    private static final long ALIGNMENT = 64;

    /** A block that the tier knows. Guarded by the tier's lock. */
    private static final class Block {
        final long key;
        int slot = -1; // where the file has it
        @Nullable MemorySegment memory; // with its content, or for it while it is created
        @Nullable MemorySegment readOnly;
        long version; // how often it was committed
        long written; // the version that the file has
        int pins;
        boolean created; // for the first time, not yet committed
        boolean edited; // by its only pin
        boolean reading;
        boolean writing;
        boolean gone;

        Block(long key) {
            this.key = key;
        }

        boolean isDirty() {
            return version != written;
        }
    }

    /** Input or output, without the lock. */
    private interface Transfer {
        void run() throws IOException;
    }

    /**
     * How a tier is used.
     *
     * @param blocks blocks that are there, in memory or not
     * @param residentBlocks those of them that are in memory, those that are being read or created included
     * @param pins pins that are open, and requests for some that wait for the file
     * @param unwrittenBlocks blocks that the file does not have as they were committed
     * @param foundBlocks blocks that were in the file when the tier was opened
     * @param hits pins of blocks that were in memory
     * @param reads blocks read from the file, for pins and ahead of them
     * @param misses pins of blocks that were not there
     * @param writes blocks written to the file
     * @param evictions how often a block left memory and stayed in the file
     * @param dropped blocks that were given up for new ones ({@link Builder#dropWhenFull})
     * @param damaged blocks and records that did not fit their checksums, since the tier was opened
     * @param failures failures of the file; what was to be written remains to be
     */
    public record Statistics(
            long blocks,
            long residentBlocks,
            long pins,
            long unwrittenBlocks,
            long foundBlocks,
            long hits,
            long reads,
            long misses,
            long writes,
            long evictions,
            long dropped,
            long damaged,
            long failures) {}

    /** Describes a tier: immutable, each method gives another one. */
    public static final class Builder {
        private final MemoryPool pool;
        private final MemoryDomain domain;
        private final Path file;
        private final long blockBytes;
        private final int blocks;
        private final int residentBlocks;
        private final boolean dropWhenFull;

        private Builder(
                MemoryPool pool,
                MemoryDomain domain,
                Path file,
                long blockBytes,
                int blocks,
                int residentBlocks,
                boolean dropWhenFull) {
            this.pool = pool;
            this.domain = domain;
            this.file = file;
            this.blockBytes = blockBytes;
            this.blocks = blocks;
            this.residentBlocks = residentBlocks;
            this.dropWhenFull = dropWhenFull;
        }

        /**
         * Limits how many blocks are in memory. Without a limit it is that of the domain alone.
         *
         * @param most how many, 1 or more
         * @return a builder with this
         * @throws IllegalArgumentException if {@code most} is less
         */
        public Builder residentBlocks(int most) {
            Arguments.atLeast("residentBlocks", most, 1);
            return new Builder(pool, domain, file, blockBytes, blocks, most, dropWhenFull);
        }

        /**
         * Lets a new block take the place of the one that was not pinned for longest when the tier has as many as it
         * may. Without this it is refused.
         *
         * @return a builder with this
         */
        public Builder dropWhenFull() {
            return new Builder(pool, domain, file, blockBytes, blocks, residentBlocks, true);
        }

        /**
         * Opens the tier. A file that is not there, empty, or whose making was cut short is made; blocks of one that is
         * there can be pinned.
         *
         * @return the tier
         * @throws IllegalArgumentException if the file has blocks of another size, or another number of them
         * @throws IllegalStateException if the file is open in another tier or process, or the pool is closed
         * @throws UnsupportedOperationException if the pool's memory is not the host's
         * @throws UncheckedIOException if the file cannot be opened, read or made, such as on a full disk, or is
         *     something else
         */
        public SpillTier open() {
            if (!pool.isHostMemory()) {
                throw new UnsupportedOperationException("a spill tier of " + pool
                        + ": expected memory of the host, from where streams copy to the device");
            }
            SpillFile opened;
            try {
                opened = SpillFile.open(file, blockBytes, blocks);
            } catch (IOException e) {
                throw new UncheckedIOException("the spill file " + file + " cannot be opened: " + e.getMessage(), e);
            }
            try {
                return open(opened);
            } catch (RuntimeException | Error e) {
                SpillTier.close(opened);
                throw e;
            }
        }

        SpillTier open(SpillFile opened) {
            pool.tierOpened();
            return new SpillTier(this, opened);
        }
    }

    /**
     * A block in memory, which stays there until this is closed. A pin may be used and closed by any thread, by one at
     * a time.
     */
    public static final class Pin implements AutoCloseable {
        private final SpillTier tier;
        private final Block block;
        private final MemorySegment memory;
        private final boolean writes;
        private boolean committed;
        private boolean closed;

        private Pin(SpillTier tier, Block block, MemorySegment memory, boolean writes) {
            this.tier = tier;
            this.block = block;
            this.memory = memory;
            this.writes = writes;
        }

        /**
         * Returns the memory of the block. It is no block to be freed, and must not be used after {@link #close}: other
         * content comes there then.
         *
         * @return all of the block, read-only if it was only pinned
         * @throws IllegalStateException if this is closed
         */
        public MemorySegment memory() {
            checkOpen();
            return memory;
        }

        /**
         * Returns the key of the block.
         *
         * @return the key
         */
        public long key() {
            return block.key;
        }

        /**
         * Says that the content of a block that is created or edited is whole, once it is closed.
         *
         * @throws IllegalStateException if the block was only pinned, or this is closed
         */
        public void commit() {
            checkOpen();
            if (!writes) {
                throw new IllegalStateException(this + " is only pinned; create and edit give what can be committed");
            }
            committed = true;
        }

        private void checkOpen() {
            if (closed) {
                throw new IllegalStateException("the pin of " + this + " is closed");
            }
        }

        /**
         * Lets the block leave memory, and be written if it was committed; so no run may use it any more. A block that
         * was created or edited and not committed is removed. Closing it again does nothing.
         */
        @Override
        public void close() {
            if (!closed) {
                closed = true;
                tier.unpin(block, writes, committed);
            }
        }

        @Override
        public String toString() {
            return tier.name(block.key);
        }
    }

    private final MemoryPool pool;
    private final MemoryDomain domain;
    private final Path path;
    private final SpillFile file;
    private final long blockBytes;
    private final int mostBlocks;
    private final int mostResident;
    private final boolean dropWhenFull;
    private final Leaks.Watch watch;
    private final ExecutorService writer = threads(1, "io.gatun.spill-writer");
    private final ExecutorService readers = threads(READERS, "io.gatun.spill-reader");
    private final ExecutorService prefetcher = threads(1, "io.gatun.spill-prefetcher");

    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();

    // Guarded by the lock.
    private final Map<Long, Block> blocks = new HashMap<>();
    private final LinkedHashSet<Block> resident = new LinkedHashSet<>(); // and not pinned, longest first
    private final LinkedHashSet<Block> spilled = new LinkedHashSet<>(); // and not being read, longest first
    private final LinkedHashSet<Block> unwritten = new LinkedHashSet<>(); // dirty ones, longest first
    private final Queue<Integer> unerased = new ArrayDeque<>(); // slots whose record is out of date
    private long erasures; // that were asked for
    private boolean writerWorks;
    private @Nullable IOException failure; // of the writer's last work
    private int residentBlocks;
    private int pins;
    private int prefetches; // that are reading
    private int starved; // requests that wait for the pool, as all blocks are pinned
    private boolean closed;
    private final long found;
    private long hits;
    private long reads;
    private long misses;
    private long writes;
    private long evictions;
    private long dropped;
    private long damaged;
    private long failures;

    private SpillTier(Builder builder, SpillFile file) {
        this.pool = builder.pool;
        this.domain = builder.domain;
        this.path = builder.file;
        this.file = file;
        this.blockBytes = builder.blockBytes;
        this.mostBlocks = builder.blocks;
        this.mostResident = builder.residentBlocks;
        this.dropWhenFull = builder.dropWhenFull;
        for (SpillFile.Found each : file.found()) { // the oldest first
            Block block = new Block(each.key());
            block.slot = each.slot();
            blocks.put(block.key, block);
            spilled.add(block);
        }
        this.found = blocks.size();
        this.damaged = file.damagedRecords();
        MemoryPool itsPool = pool;
        // Its memory may be in use, and is the pool's.
        this.watch = Leaks.watch(this, toString(), () -> {
            close(file);
            itsPool.tierClosed();
        });
    }

    private static void close(SpillFile file) {
        try {
            file.close();
        } catch (IOException e) {
            // nothing of it is used any more, and all that was promised was written
        }
    }

    /** Up to {@code count} threads, which end when there is nothing to do. */
    private static ExecutorService threads(int count, String name) {
        ThreadPoolExecutor threads = new ThreadPoolExecutor(
                count, count, 1, TimeUnit.SECONDS, new LinkedBlockingQueue<>(),
                Thread.ofPlatform().daemon().inheritInheritableThreadLocals(false).name(name).factory());
        threads.allowCoreThreadTimeOut(true);
        return threads;
    }

    /**
     * Describes a tier.
     *
     * @param pool where its memory is from; it cannot be closed before the tier
     * @param domain what the memory is counted as
     * @param file where the blocks go
     * @param blockBytes the size of each block, 1 byte to 1 GiB
     * @param blocks how many there can be, 1 to 268435456; the file has room for one more
     * @return a builder of a tier that refuses more blocks
     * @throws IllegalArgumentException if a number is none of these
     */
    public static Builder builder(MemoryPool pool, MemoryDomain domain, Path file, long blockBytes, int blocks) {
        if (pool == null || domain == null || file == null) {
            throw new NullPointerException(pool == null ? "pool" : domain == null ? "domain" : "file");
        }
        if (blockBytes < 1 || blockBytes > MOST_BLOCK_BYTES) {
            throw new IllegalArgumentException("blockBytes: " + blockBytes + ", expected 1 to " + MOST_BLOCK_BYTES);
        }
        if (blocks < 1 || blocks > MOST_BLOCKS) {
            throw new IllegalArgumentException("blocks: " + blocks + ", expected 1 to " + MOST_BLOCKS);
        }
        return new Builder(pool, domain, file, blockBytes, blocks, Integer.MAX_VALUE, false);
    }

    /**
     * Returns a block for reading, from the file if it is not in memory.
     *
     * @param key which
     * @return the block, or null if there is none, it is being created, or it was damaged
     * @throws IllegalStateException if it is being edited, or the tier is closed
     * @throws GatunException if there is no room for it in memory: all that is there is pinned
     * @throws UncheckedIOException if the file cannot be read, or a block that should make room not be written
     */
    public @Nullable Pin pin(long key) {
        return open(key, false);
    }

    /**
     * Returns a block to be changed in place, from the file if it is not in memory. It can be pinned again after
     * {@link Pin#commit} and {@link Pin#close}.
     *
     * @param key which
     * @return the block, or null if there is none, it is being created, or it was damaged
     * @throws IllegalStateException if it is pinned or being edited, or the tier is closed
     * @throws GatunException if there is no room for it in memory: all that is there is pinned
     * @throws UncheckedIOException if the file cannot be read, or a block that should make room not be written
     */
    public @Nullable Pin edit(long key) {
        return open(key, true);
    }

    /**
     * Makes a block, whose content is undefined at first. It can be pinned after {@link Pin#commit} and
     * {@link Pin#close}.
     *
     * @param key which
     * @return the block, or null if there is one, or it is being created
     * @throws IllegalStateException if the tier is closed
     * @throws GatunException if there are as many blocks as there can be, and none may be dropped; or if there is no
     *     room in memory: all that is there is pinned
     * @throws UncheckedIOException if a block that should make room cannot be written
     */
    public @Nullable Pin create(long key) {
        Block block = new Block(key);
        lock.lock();
        try {
            checkOpen();
            if (blocks.containsKey(key)) {
                return null;
            }
            if (blocks.size() >= mostBlocks && !(dropWhenFull && dropOldest())) {
                throw new GatunException(this + " has no room for " + name(key) + ": it has " + blocks.size()
                        + " blocks, as many as its file" + (dropWhenFull ? ", and all are pinned" : ""));
            }
            block.created = true;
            block.edited = true;
            block.pins = 1;
            pins++;
            blocks.put(key, block);
        } finally {
            lock.unlock();
        }
        MemorySegment memory = null;
        try {
            memory = room(true);
        } finally {
            lock.lock();
            block.memory = memory;
            if (memory == null) {
                pins--;
                drop(block);
            }
            lock.unlock();
        }
        return new Pin(this, block, memory.asSlice(0), true); // not the segment that can be freed
    }

    private @Nullable Pin open(long key, boolean edit) {
        lock.lock();
        try {
            while (true) {
                checkOpen();
                Block block = blocks.get(key);
                if (block == null || block.created) {
                    misses++;
                    return null;
                }
                if (block.reading) {
                    changed.awaitUninterruptibly();
                    continue;
                }
                if (block.edited || edit && block.pins > 0) {
                    throw new IllegalStateException(name(key) + " is " + (block.edited ? "being edited" : "pinned"));
                }
                if (block.memory == null) {
                    if (!read(block)) {
                        misses++;
                        return null;
                    }
                } else {
                    hits++;
                }
                resident.remove(block);
                block.pins++;
                block.edited = edit;
                pins++;
                return new Pin(this, block, edit ? block.memory.asSlice(0) : block.readOnly, edit);
            }
        } finally {
            lock.unlock();
        }
    }

    /**
     * Reads a block for a request that waits for it, and says whether it is what was written. Has the lock, but not
     * while it reads.
     */
    private boolean read(Block block) {
        spilled.remove(block);
        block.reading = true;
        pins++; // the tier cannot be closed
        MemorySegment memory = null;
        boolean intact = false;
        boolean done = false;
        lock.unlock();
        try {
            MemorySegment into = room(true);
            memory = into;
            intact = CompletableFuture.supplyAsync(() -> readFile(block.slot, into), readers).join();
            done = true;
        } catch (CompletionException e) {
            throw e.getCause() instanceof UncheckedIOException io ? failed(io) : e;
        } finally {
            lock.lock();
            pins--;
            endRead(block, memory, done, intact);
        }
        return intact;
    }

    /** Reads a slot in a thread that nobody interrupts, which would close the file. */
    private boolean readFile(int slot, MemorySegment into) {
        PoolEvents.Restore event = new PoolEvents.Restore();
        event.begin();
        boolean intact;
        try {
            intact = file.read(slot, into);
        } catch (IOException e) {
            throw new UncheckedIOException("the spill file " + path + " cannot be read: " + e.getMessage(), e);
        }
        if (event.shouldCommit()) {
            event.of(pool.device(), domain, blockBytes, pool.statistics(domain).reservedBytes());
            event.commit();
        }
        return intact;
    }

    private UncheckedIOException failed(UncheckedIOException e) {
        lock.lock();
        failures++;
        lock.unlock();
        tell(e.getMessage());
        return e;
    }

    /** Has the lock. */
    private void endRead(Block block, @Nullable MemorySegment memory, boolean done, boolean intact) {
        block.reading = false;
        changed.signalAll();
        if (intact) {
            block.memory = memory;
            block.readOnly = memory.asReadOnly();
            resident.add(block);
            reads++;
            return;
        }
        if (memory != null) {
            giveBack(memory);
        }
        if (done) {
            damaged++;
            drop(block);
            tell(name(block.key) + " does not fit its checksum");
        } else {
            spilled.add(block);
        }
    }

    private void tell(String reason) {
        PoolEvents.SpillFailure event = new PoolEvents.SpillFailure();
        if (event.shouldCommit()) {
            event.of(pool.device(), domain, blockBytes, pool.statistics(domain).reservedBytes());
            event.reason = reason;
            event.commit();
        }
    }

    private void unpin(Block block, boolean wrote, boolean committed) {
        lock.lock();
        try {
            while (wrote && !committed && block.writing) {
                changed.awaitUninterruptibly();
            }
            pins--;
            block.pins--;
            changed.signalAll();
            if (wrote && !committed) {
                drop(block);
                return;
            }
            if (wrote) {
                block.created = false;
                block.edited = false;
                block.readOnly = block.memory.asReadOnly();
                block.version++;
                unwritten.add(block);
                startWriter();
            }
            if (block.pins == 0) {
                resident.add(block);
                feed();
            }
        } finally {
            lock.unlock();
        }
    }

    /**
     * Removes a block. The file has it until the tier's thread erased it, or {@link #flush} returned.
     *
     * @param key which
     * @return whether there was one
     * @throws IllegalStateException if it is pinned, being created or edited, or the tier is closed
     */
    public boolean remove(long key) {
        lock.lock();
        try {
            while (true) {
                checkOpen();
                Block block = blocks.get(key);
                if (block == null) {
                    return false;
                }
                if (block.reading || block.writing) {
                    changed.awaitUninterruptibly();
                    continue;
                }
                if (block.pins > 0) {
                    throw new IllegalStateException(name(key) + " is "
                            + (block.created ? "being created" : block.edited ? "being edited" : "pinned"));
                }
                drop(block);
                return true;
            }
        } finally {
            lock.unlock();
        }
    }

    /**
     * Says whether there is a block, in memory or in the file, without looking at it.
     *
     * @param key which
     * @return whether {@link #pin} has something to look at
     * @throws IllegalStateException if the tier is closed
     */
    public boolean contains(long key) {
        lock.lock();
        try {
            checkOpen();
            Block block = blocks.get(key);
            return block != null && !block.created;
        } finally {
            lock.unlock();
        }
    }

    /** The same, and what is there is the last to leave memory or the tier, as if it had been pinned. */
    boolean touch(long key) {
        lock.lock();
        try {
            boolean there = contains(key);
            Block block = blocks.get(key);
            for (LinkedHashSet<Block> each : List.of(spilled, resident)) {
                if (there && each.remove(block)) {
                    each.add(block);
                }
            }
            return there;
        } finally {
            lock.unlock();
        }
    }

    /**
     * Has blocks read to memory that will be pinned soon, one after the other, and returns at once. Those that were not
     * pinned for longest leave it; what finds no room or is damaged is passed over.
     *
     * @param keys which; those that are not there, or in memory already, do not count
     * @throws IllegalStateException if the tier is closed
     */
    public void prefetch(long... keys) {
        lock.lock();
        try {
            checkOpen();
            for (long key : keys) {
                Block block = blocks.get(key);
                if (block != null && block.slot >= 0 && block.memory == null) {
                    prefetcher.execute(() -> prefetch(block));
                }
            }
        } finally {
            lock.unlock();
        }
    }

    private void prefetch(Block block) {
        lock.lock();
        try {
            if (closed || !spilled.remove(block)) {
                return;
            }
            block.reading = true;
            prefetches++;
        } finally {
            lock.unlock();
        }
        MemorySegment memory = null;
        boolean intact = false;
        boolean done = false;
        try {
            memory = room(false);
            if (memory != null) {
                intact = readFile(block.slot, memory);
                done = true;
            }
        } catch (UncheckedIOException e) {
            failed(e);
        } finally {
            lock.lock();
            prefetches--;
            endRead(block, memory, done, intact);
            lock.unlock();
        }
    }

    /**
     * Takes memory for a block, in place of blocks that were not pinned for longest if need be. Called without the
     * lock.
     *
     * @param must whether the domain's own choice for when it is full counts, and failures are exceptions
     */
    private @Nullable MemorySegment room(boolean must) {
        while (true) {
            lock.lock();
            try {
                while (residentBlocks >= mostResident) {
                    if (evictOne(must)) {
                        continue;
                    }
                    if (!must) {
                        return null;
                    }
                    throw new GatunException(this + " has no room: it has " + residentBlocks
                            + " blocks in memory, as many as it may, and all are pinned");
                }
                residentBlocks++;
            } finally {
                lock.unlock();
            }
            MemorySegment memory = null;
            boolean starves = false;
            try {
                memory = pool.allocateAtOnce(domain, blockBytes, ALIGNMENT);
                return memory;
            } catch (GatunException full) {
                lock.lock();
                try {
                    if (evictOne(must)) {
                        continue;
                    }
                    if (!must) {
                        return null;
                    }
                    starved++;
                    starves = true;
                } finally {
                    lock.unlock();
                }
                memory = pool.allocate(domain, blockBytes, ALIGNMENT);
                return memory;
            } finally {
                lock.lock();
                starved -= starves ? 1 : 0;
                residentBlocks -= memory == null ? 1 : 0;
                lock.unlock();
            }
        }
    }

    /** What is pinned no more goes to whom the pool lets wait for it. Has the lock. */
    private void feed() {
        if (starved > 0) {
            evictClean();
        }
    }

    private void giveBack(MemorySegment memory) {
        pool.free(memory);
        residentBlocks--;
    }

    /**
     * Gives memory back to the pool: blocks that were not pinned for longest, of those that are in the file as they
     * are. If there is none, it waits until one is written. So other users of the domain can have the memory that the
     * tier does not need at the moment, also by {@link WhenFull#evict}.
     *
     * @param bytes how much
     * @return how much was given back; less if all other blocks are pinned or cannot be written
     * @throws IllegalStateException if the tier is closed
     */
    public long evict(long bytes) {
        lock.lock();
        try {
            checkOpen();
            long given = 0;
            while (given < bytes && evictOne(false)) {
                given += blockBytes;
            }
            return given;
        } finally {
            lock.unlock();
        }
    }

    /**
     * Gives the memory of one block back, or returns false if none can be spared. Has the lock, but not while it waits
     * for a block to be written.
     *
     * @param must whether it is an exception, not false, if none could be written
     */
    private boolean evictOne(boolean must) {
        boolean started = false;
        while (true) {
            if (evictClean()) {
                return true;
            }
            if (resident.isEmpty()) {
                return false;
            }
            if (started && failure != null) {
                if (must) {
                    throw notWritten(failure);
                }
                return false;
            }
            started |= startWriter(); // what is under way may fail for what no longer holds
            changed.awaitUninterruptibly();
        }
    }

    /** The same without waiting: of blocks that are in the file as they are. */
    private boolean evictClean() {
        for (Block block : resident) {
            if (!block.isDirty()) {
                giveBack(block.memory);
                resident.remove(block);
                spilled.add(block);
                block.memory = null;
                block.readOnly = null;
                evictions++;
                return true;
            }
        }
        return false;
    }

    /** Makes room for a new block among all of them. Has the lock. */
    private boolean dropOldest() {
        for (LinkedHashSet<Block> each : List.of(spilled, resident)) {
            for (Block block : each) {
                if (!block.writing) {
                    drop(block);
                    dropped++;
                    return true;
                }
            }
        }
        return false;
    }

    /** Forgets a block that is neither being read nor being written. Has the lock. */
    private void drop(Block block) {
        if (block.memory != null) {
            giveBack(block.memory);
            block.memory = null;
            block.readOnly = null;
        }
        blocks.remove(block.key);
        block.gone = true;
        resident.remove(block);
        spilled.remove(block);
        unwritten.remove(block);
        if (block.slot >= 0) {
            erase(block.slot);
            startWriter();
        }
        changed.signalAll();
    }

    /** Has the lock. */
    private void erase(int slot) {
        unerased.add(slot);
        erasures++;
    }

    /** Has the lock. Returns false if the writer is at work already. */
    private boolean startWriter() {
        if (writerWorks) {
            return false;
        }
        writer.execute(this::writeBack);
        writerWorks = true;
        failure = null;
        return true;
    }

    /** Writes until nothing is left to be written, or something failed; what comes next tries again. */
    private void writeBack() {
        lock.lock();
        try {
            while (true) {
                Integer slot = unerased.peek();
                Block block = slot == null ? nextUnwritten() : null;
                if (slot != null) {
                    unlocked(() -> file.erase(slot));
                    unerased.remove();
                } else if (block != null) {
                    write(block);
                } else {
                    return;
                }
                changed.signalAll();
            }
        } catch (IOException | RuntimeException | Error e) {
            failure = e instanceof IOException io ? io : new IOException(e);
            failures++;
            tell(notWritten(failure).getMessage());
        } finally {
            writerWorks = false;
            changed.signalAll();
            lock.unlock();
        }
    }

    private @Nullable Block nextUnwritten() {
        for (Block block : unwritten) {
            if (!block.edited) {
                return block;
            }
        }
        return null;
    }

    private void unlocked(Transfer transfer) throws IOException {
        lock.unlock();
        try {
            transfer.run();
        } finally {
            lock.lock();
        }
    }

    /** Has the lock, but not while it writes. A block that is edited meanwhile is not what was written, and is left. */
    private void write(Block block) throws IOException {
        PoolEvents.Spill event = new PoolEvents.Spill();
        event.begin();
        long version = block.version;
        MemorySegment memory = block.memory;
        int[] slot = {-1};
        block.writing = true;
        try {
            unlocked(() -> slot[0] = file.write(memory));
            if (block.edited || block.version != version) {
                file.abandon(slot[0]);
                return;
            }
            try {
                unlocked(() -> file.record(slot[0], block.key));
            } catch (IOException e) {
                erase(slot[0]);
                throw e;
            }
            if (block.slot >= 0) {
                erase(block.slot);
            }
            block.slot = slot[0];
            block.written = version;
            writes++;
            if (!block.isDirty()) {
                unwritten.remove(block);
                feed();
            }
        } finally {
            block.writing = false;
        }
        if (event.shouldCommit()) {
            event.of(pool.device(), domain, blockBytes, pool.statistics(domain).reservedBytes());
            event.commit();
        }
    }

    private UncheckedIOException notWritten(IOException e) {
        return new UncheckedIOException("the spill file " + path + " cannot be written: " + e.getMessage(), e);
    }

    /**
     * Waits until the file has all that was committed before, and nothing of what was removed before: it is there after
     * a restart, however this process ends. Blocks that are being edited do not count.
     *
     * @throws IllegalStateException if the tier is closed
     * @throws UncheckedIOException if something cannot be written, such as on a full disk; it stays in memory, and the
     *     next call tries again
     */
    public void flush() {
        lock.lock();
        try {
            checkOpen();
            awaitWritten();
        } finally {
            lock.unlock();
        }
    }

    /** Has the lock, but not while it waits. */
    private void awaitWritten() {
        long until = erasures;
        List<Block> mine = new ArrayList<>();
        List<Long> versions = new ArrayList<>();
        for (Block block : unwritten) {
            if (!block.edited) {
                mine.add(block);
                versions.add(block.version);
            }
        }
        boolean started = false;
        for (int i = 0; i < mine.size() || erasures - unerased.size() < until; ) {
            if (i < mine.size() && (mine.get(i).gone || mine.get(i).written >= versions.get(i))) {
                until = mine.get(i).gone ? until : Math.max(until, erasures); // that of its older version
                i++;
                continue;
            }
            if (started && failure != null) {
                throw notWritten(failure);
            }
            started |= startWriter(); // what is under way may fail for what no longer holds
            changed.awaitUninterruptibly();
        }
    }

    /**
     * Does what {@link #flush} does, and waits until the disk has it: it is there also after a loss of power, but for
     * blocks that were changed or removed since.
     *
     * @throws IllegalStateException if the tier is closed
     * @throws UncheckedIOException if something cannot be written, or the system reports a failure of the disk
     */
    public void sync() {
        flush();
        try {
            CompletableFuture.runAsync(this::force, readers).join(); // the writer may have more to do
        } catch (CompletionException e) {
            throw e.getCause() instanceof UncheckedIOException io ? failed(io) : e;
        }
    }

    private void force() {
        try {
            file.force();
        } catch (IOException e) {
            throw notWritten(e);
        }
    }

    /**
     * Returns how the tier is used.
     *
     * @return the statistics
     */
    public Statistics statistics() {
        lock.lock();
        try {
            return new Statistics(blocks.size(), residentBlocks, pins, unwritten.size(), found, hits, reads, misses,
                    writes, evictions, dropped, damaged, failures);
        } finally {
            lock.unlock();
        }
    }

    /**
     * Writes what is to be written, gives the memory back to the pool and closes the file. Closing it again does
     * nothing.
     *
     * @throws IllegalStateException if a block is pinned; nothing is closed then
     * @throws UncheckedIOException if something cannot be written; the tier is closed, and what was not written is lost
     */
    @Override
    public void close() {
        UncheckedIOException unwritten = null;
        lock.lock();
        try {
            if (closed) {
                return;
            }
            checkUnpinned();
            try {
                awaitWritten();
            } catch (UncheckedIOException e) {
                unwritten = e;
            }
            if (closed) {
                return;
            }
            checkUnpinned(); // as it waited
            closed = true;
            while (prefetches > 0 || writerWorks) {
                changed.awaitUninterruptibly();
            }
            for (Block block : resident) {
                giveBack(block.memory);
            }
            resident.clear();
            spilled.clear();
            blocks.clear();
        } finally {
            lock.unlock();
        }
        for (ExecutorService each : List.of(writer, readers, prefetcher)) {
            each.shutdown();
        }
        close(file);
        pool.tierClosed();
        watch.end();
        if (unwritten != null) {
            throw unwritten;
        }
    }

    long blockBytes() {
        return blockBytes;
    }

    /** Returns how many blocks may be in memory, if the domain has room for them. */
    int mostResident() {
        return mostResident;
    }

    private void checkUnpinned() {
        if (pins > 0) {
            throw new IllegalStateException(
                    this + " cannot be closed: " + pins + (pins == 1 ? " block is pinned" : " blocks are pinned"));
        }
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException(this + " is closed");
        }
    }

    private String name(long key) {
        return "block 0x" + Long.toHexString(key) + " of " + this;
    }

    @Override
    public String toString() {
        return "the spill tier in " + path;
    }
}
