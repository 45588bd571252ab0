package io.gatun;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The blocks of one domain of a pool. A request is served from the free blocks that a {@link Stripe} keeps; else, under
 * the lock, from a {@link Run} of small blocks of its size or from the {@link FreeRanges}, after those that the stripes
 * keep if need be; else from a new {@link Slab}. Thread-safe. The lock is taken before that of a stripe, never after.
 */
final class DomainHeap {
    /** The unit in which the bytes in use are counted. */
    private static final long UNIT = 64;

    /** The largest slab that is chosen, and the smallest. */
    static final long LARGEST_SLAB = 128L << 20;

    static final long SMALLEST_SLAB = 1L << 20;

    /** A new slab is about this part of what there is, so that about as much is free at a peak. */
    private static final long GROWTH = 32;

    /** What is free beside the blocks of a peak goes back to the system but for this part of them. */
    private static final long SPARE = 128;

    /** How long a request that waits relies on being told. Memory can also come from other pools and processes. */
    private static final long POLL_NANOS = TimeUnit.MILLISECONDS.toNanos(10);

    /** Not the choice of a user: a failure is no event then. */
    private static final WhenFull AT_ONCE = WhenFull.fail();

    private static final int PAGE = 4096;
    private static final int MOST_STRIPES = 64;

    private final Device device;
    private final MemoryDomain domain;
    private final DomainSettings settings;
    private final Reservation reservation;
    private final SlabTable table;
    private final Arena arena;
    private final Runnable reclaim;
    private final Runnable relieve;
    private final Consumer<DomainHeap> grown;

    private final UsedBytes usedBytes = new UsedBytes();
    private final BlockNumbers numbers = new BlockNumbers();
    private final Stripe[] stripes;
    private volatile int waiting;

    private final ReentrantLock lock = new ReentrantLock();
    private final Condition room = lock.newCondition();
    private final Set<Slab> slabs = new LinkedHashSet<>();
    private final FreeRanges free = new FreeRanges(this);
    private final @Nullable Run[] runs = new Run[SizeClasses.COUNT]; // those that have a free block
    private long ownBytes; // of slabs of their own
    private long reserved;
    private long peakReserved;
    private long peakOccupied; // by blocks, those that stripes keep included, as far as it made the heap grow
    private boolean grew; // since {@link #settle}
    private long requestsAtLastLook;
    private boolean closed;

    /**
     * Makes a heap without any memory.
     *
     * @param arena the lifetime of the segments that are handed out
     * @param reclaim gives back what was freed after events that were reached; called without a lock
     * @param relieve gives back to the device what all domains can spare; called without a lock
     * @param grown is told of this heap after it grew; called without a lock
     */
    DomainHeap(
            Device device,
            MemoryDomain domain,
            DomainSettings settings,
            Reservation reservation,
            SlabTable table,
            Arena arena,
            Runnable reclaim,
            Runnable relieve,
            Consumer<DomainHeap> grown) {
        this.device = device;
        this.domain = domain;
        this.settings = settings;
        this.reservation = reservation;
        this.table = table;
        this.arena = arena;
        this.reclaim = reclaim;
        this.relieve = relieve;
        this.grown = grown;
        int processors = Math.min(Runtime.getRuntime().availableProcessors(), MOST_STRIPES / 2);
        this.stripes = new Stripe[Integer.highestOneBit(2 * processors - 1) * 2];
        for (int i = 0; i < stripes.length; i++) {
            stripes[i] = new Stripe(numbers, usedBytes);
        }
    }

    /** Takes the memory that is declared for the start, and touches it, so that the first requests need not. */
    void start() {
        lock.lock();
        try {
            for (long left = settings.coldStart(); left > 0; ) {
                long bytes = settings.slabBytes() > 0 ? settings.slabBytes() : Math.min(left, LARGEST_SLAB);
                Slab slab = add(up(bytes, Slab.GRANULE), false, true, 0);
                if (reservation.isHostMemory()) {
                    touch(slab, Math.min(left, slab.bytes));
                }
                left -= bytes;
            }
            settle();
        } finally {
            lock.unlock();
        }
    }

    private static void touch(Slab slab, long bytes) {
        for (long at = 0; at < bytes; at += PAGE) {
            slab.memory.set(ValueLayout.JAVA_BYTE, at, (byte) 0);
        }
    }

    /**
     * Takes a block of at least {@code bytes} bytes, which has no owner yet.
     *
     * @param atOnce whether it fails at once when the domain is full, whatever was chosen for that
     */
    Block take(long bytes, long alignment, boolean atOnce) {
        boolean isSmall = bytes <= SizeClasses.LARGEST && alignment <= Slab.GRANULE;
        int sizeClass = isSmall ? SizeClasses.of(bytes, alignment) : -1;
        Stripe stripe = Stripe.hold(stripes);
        try {
            Block block = isSmall ? stripe.takeSmall(sizeClass) : stripe.takeLarge(largeBytes(bytes), alignment);
            if (block != null) {
                stripe.countTaken(block, counted(bytes));
                return block;
            }
        } finally {
            stripe.release();
        }
        return takeSlowly(bytes, alignment, sizeClass, atOnce);
    }

    private Block takeSlowly(long bytes, long alignment, int sizeClass, boolean atOnce) {
        long blockBytes = sizeClass >= 0 ? SizeClasses.bytes(sizeClass) : largeBytes(bytes);
        Block block = takeSlowly(blockBytes, alignment, sizeClass, atOnce ? AT_ONCE : settings.whenFull());
        Stripe stripe = Stripe.hold(stripes);
        stripe.countTaken(block, counted(bytes));
        stripe.countMiss();
        stripe.release();
        return block;
    }

    private static long largeBytes(long bytes) {
        return up(Math.max(bytes, 1), Slab.GRANULE);
    }

    /**
     * Takes a block back, of which {@code bytes} bytes were asked for.
     *
     * @return false if {@code owner} does not own it, or not any more
     */
    static boolean give(Block block, Object owner, long bytes) {
        DomainHeap heap = block.slab.heap;
        Block surplus = block;
        Stripe stripe = block.home;
        if (stripe == null) {
            return false; // it was never handed out
        }
        stripe.hold();
        try {
            if (block.owner != owner) {
                return false;
            }
            block.owner = null;
            stripe.countGiven(counted(bytes), block.bytes);
            if (!block.slab.own && heap.waiting == 0) {
                surplus = stripe.give(block);
            }
        } finally {
            stripe.release();
        }
        if (surplus != null) {
            heap.giveSlowly(surplus);
        }
        return true;
    }

    /** Passes a block from one owner to another, or returns false if the first does not own it. */
    static boolean pass(Block block, Object owner, Object next) {
        Stripe stripe = block.home;
        if (stripe == null) {
            return false;
        }
        stripe.hold();
        try {
            if (block.owner != owner) {
                return false;
            }
            block.owner = next;
            return true;
        } finally {
            stripe.release();
        }
    }

    private void giveSlowly(Block list) {
        lock.lock();
        try {
            if (closed) {
                return;
            }
            for (Block block = list; block != null; ) {
                Block next = block.next;
                block.next = null;
                release(block);
                block = next;
            }
            if (waiting > 0) {
                room.signalAll();
            }
        } finally {
            lock.unlock();
        }
    }

    private Block takeSlowly(long blockBytes, long alignment, int sizeClass, WhenFull whenFull) {
        long start = System.nanoTime();
        boolean relieved = false;
        while (true) {
            reclaim.run();
            Block block = null;
            boolean hasGrown = false;
            GatunException full = null;
            lock.lock();
            try {
                checkOpen();
                block = sizeClass >= 0 ? takeSmall(sizeClass) : takeLarge(blockBytes, alignment);
                hasGrown = grew;
                if (grew) {
                    settle();
                }
            } catch (GatunException e) {
                full = e;
                relieved |= blockBytes > settings.limit() - reserved; // what others have does not help
                if (relieved
                        && whenFull instanceof WhenFull.Await choice
                        && await(TimeUnit.NANOSECONDS.convert(choice.timeout()) - (System.nanoTime() - start))) {
                    continue;
                }
            } finally {
                lock.unlock();
            }
            if (block != null) {
                if (hasGrown) {
                    grown.accept(this);
                }
                return block;
            }
            if (!relieved) {
                relieved = true;
                relieve.run();
                continue;
            }
            if (whenFull instanceof WhenFull.Evict evict && evict.evictor().evict(domain, blockBytes)) {
                continue;
            }
            throw whenFull == AT_ONCE ? full : failure(blockBytes, full);
        }
    }

    /** Waits for room, and says whether it makes sense to try again. */
    private boolean await(long nanos) {
        if (nanos <= 0) {
            return false;
        }
        waiting++;
        try {
            room.awaitNanos(Math.min(nanos, POLL_NANOS));
            return true;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return false;
        } finally {
            waiting--;
        }
    }

    private GatunException failure(long bytes, GatunException why) {
        PoolEvents.Failure event = new PoolEvents.Failure();
        if (event.shouldCommit()) {
            event.of(device, domain, bytes, statistics().reservedBytes());
            event.reason = why.getMessage();
            event.commit();
        }
        return new GatunException("the memory pool on " + device + " has no room for " + bytes + " bytes in " + domain
                + ": " + why.getMessage());
    }

    // All that follows is for who has the lock, but for what takes it.

    private Block takeSmall(int sizeClass) {
        int granules = SizeClasses.runBytes(sizeClass) / Slab.GRANULE;
        if (runs[sizeClass] == null && !hasRoom(free.find(granules, Slab.GRANULE), granules, Slab.GRANULE)) {
            drain();
        }
        if (runs[sizeClass] == null) {
            FreeRanges.Range range = room(granules, Slab.GRANULE);
            take(range, range.first(), granules);
            Run run = new Run(range.slab(), range.first(), sizeClass);
            run.slab.put(run.first, granules, run);
            link(run);
        }
        Block block = takeFrom(runs[sizeClass]);
        Stripe stripe = Stripe.hold(stripes);
        try {
            for (int i = 1; i < Stripe.batch(sizeClass) && runs[sizeClass] != null; i++) {
                Block surplus = stripe.give(takeFrom(runs[sizeClass]));
                while (surplus != null) {
                    Block next = surplus.next;
                    surplus.next = null;
                    release(surplus);
                    surplus = next;
                }
            }
        } finally {
            stripe.release();
        }
        return block;
    }

    private Block takeFrom(Run run) {
        Block block = run.take(numbers);
        if (run.isFull()) {
            unlink(run);
        }
        return block;
    }

    private Block takeLarge(long bytes, long alignment) {
        if (bytes > (settings.slabBytes() > 0 ? settings.slabBytes() : LARGEST_SLAB)) {
            Slab slab = grow(bytes, true);
            Block block = new Block(slab, null, slab.address, slab.bytes);
            slab.put(0, block);
            return block;
        }
        int granules = (int) (bytes / Slab.GRANULE);
        FreeRanges.Range range = room(granules, alignment);
        int first = range.fit(granules, alignment);
        take(range, first, granules);
        Slab slab = range.slab();
        Block block = new Block(slab, null, slab.address + (long) first * Slab.GRANULE, bytes);
        numbers.add(block);
        slab.put(first, block);
        return block;
    }

    private FreeRanges.Range room(int granules, long alignment) {
        FreeRanges.Range range = free.find(granules, alignment);
        if (!hasRoom(range, granules, alignment)) {
            drain();
            range = free.find(granules, alignment);
        }
        if (range == null) {
            grow((long) granules * Slab.GRANULE, false);
            range = free.find(granules, alignment); // a slab starts at a multiple of every alignment
        }
        if (range == null) {
            throw new IllegalStateException("no room in a new slab");
        }
        return range;
    }

    /** Whether granules fit in a range without pages that other free ones have to be given back for. */
    private boolean hasRoom(FreeRanges.@Nullable Range range, int granules, long alignment) {
        if (range == null) {
            return false;
        }
        long absent = range.slab().absentBytes(range.fit(granules, alignment), granules);
        return absent == 0 || absent <= -surplus();
    }

    /** Takes granules out of a free range, with pages from the system for those that went back. */
    private void take(FreeRanges.Range range, int first, int granules) {
        Slab slab = range.slab();
        free.take(range, first, granules);
        long bytes = slab.absentBytes(first, granules);
        if (bytes == 0) {
            return;
        }
        try {
            makeWayInside(bytes, 0);
            makeRoom(bytes);
            checkLimit(bytes);
            int last = Slab.chunk(first + granules - 1);
            for (int at = slab.absent.nextSetBit(Slab.chunk(first)); at >= 0 && at <= last; ) {
                int end = Math.min(slab.absent.nextClearBit(at), last + 1);
                long restored = (long) (end - at) * Slab.CHUNK;
                reservation.restore(slab.address, slab.address + (long) at * Slab.CHUNK, restored);
                slab.absent.clear(at, end);
                slab.present += restored;
                count(restored);
                at = slab.absent.nextSetBit(end);
            }
        } catch (GatunException e) {
            free.give(slab, first, granules);
            throw e;
        }
    }

    /** Lets what is free inside of slabs go back to the system, if the limit leaves no room for {@code bytes}. */
    private boolean makeRoom(long bytes) {
        long room = settings.limit() - reserved;
        return bytes > room && discard(bytes - room) > 0;
    }

    /**
     * Gives back what is free inside of slabs, the ends of the largest ranges first, until there is little more than
     * blocks ever occupied. As long as there is not, growth costs nothing but the growth.
     */
    private void settle() {
        grew = false;
        if (surplus() > 0) {
            peakOccupied = Math.max(peakOccupied, occupied());
            discard(surplus());
        }
    }

    /**
     * Does the same before the heap grows by {@code bytes}, of which blocks will occupy {@code more}, so that it never has
     * both. Returns how much there will be too much nevertheless.
     */
    private long makeWayInside(long bytes, long more) {
        long most = withSpare(Math.max(peakOccupied, occupied() + more));
        long surplus = reserved + bytes - most;
        surplus -= surplus > 0 ? coldFree() : 0;
        return surplus > 0 ? surplus - discard(surplus) : 0;
    }

    private void count(long bytes) {
        reserved += bytes;
        peakReserved = Math.max(peakReserved, reserved);
        grew = true;
    }

    /** Returns how much more there is than should be, beside what is free of the start, which stays. */
    private long surplus() {
        long surplus = reserved - withSpare(peakOccupied);
        return surplus > 0 ? surplus - coldFree() : surplus;
    }

    /** Returns how much a heap may have for blocks that occupy {@code bytes}. */
    private static long withSpare(long bytes) {
        return bytes + Math.max(bytes / SPARE, SMALLEST_SLAB);
    }

    /** Returns what is free of the start. */
    private long coldFree() {
        long free = 0;
        if (settings.coldStart() > 0) {
            for (Slab slab : slabs) {
                free += slab.cold ? slab.bytes - (long) slab.usedGranules * Slab.GRANULE : 0;
            }
        }
        return free;
    }

    /** Returns what blocks occupy, those that stripes keep included. */
    private long occupied() {
        return free.takenBytes() + ownBytes;
    }

    /** Gives back up to {@code bytes} bytes, and less than a chunk more. Returns how many. */
    private long discard(long bytes) {
        long given = 0;
        if (settings.slabBytes() > 0) {
            return given; // a size that was chosen is kept
        }
        for (FreeRanges.Range range : free.largestFirst()) {
            Slab slab = range.slab();
            int first = range.firstChunk();
            int end = range.endChunk();
            while (given < bytes && end > first && !slab.cold) {
                end = slab.absent.previousClearBit(end - 1) + 1;
                long left = (bytes - given + Slab.CHUNK - 1) / Slab.CHUNK;
                int from = (int) Math.max(Math.max(slab.absent.previousSetBit(end - 1) + 1, first), end - left);
                if (from >= end) {
                    break;
                }
                long part = (long) (end - from) * Slab.CHUNK;
                if (!reservation.discard(slab.address, slab.address + (long) from * Slab.CHUNK, part)) {
                    return given;
                }
                slab.absent.set(from, end);
                slab.present -= part;
                reserved -= part;
                given += part;
                end = from;
            }
            if (given >= bytes || end <= first && range.count() < Slab.CHUNK / Slab.GRANULE) {
                break;
            }
        }
        return given;
    }

    private void release(Block block) {
        Slab slab = block.slab;
        Run run = block.run;
        if (run != null) {
            if (run.isFull()) {
                link(run);
            }
            run.give(block);
            if (run.isEmpty() && (runs[run.sizeClass] != run || run.next != null)) {
                dissolve(run); // another one has room
            }
        } else if (slab.own) {
            drop(slab);
        } else {
            numbers.remove(block);
            free.give(slab, (int) ((block.address - slab.address) / Slab.GRANULE), (int) (block.bytes / Slab.GRANULE));
        }
    }

    private void dissolve(Run run) {
        unlink(run);
        run.forget(numbers);
        free.give(run.slab, run.first, run.granules);
    }

    private void link(Run run) {
        Run head = runs[run.sizeClass];
        run.next = head;
        if (head != null) {
            head.previous = run;
        }
        runs[run.sizeClass] = run;
    }

    private void unlink(Run run) {
        if (run.previous != null) {
            run.previous.next = run.next;
        } else {
            runs[run.sizeClass] = run.next;
        }
        if (run.next != null) {
            run.next.previous = run.previous;
        }
        run.previous = null;
        run.next = null;
    }

    /** Makes one of all that is free: what the stripes keep, and the runs of which nothing is in use. */
    private void drain() {
        for (Stripe stripe : stripes) {
            stripe.hold();
            try {
                stripe.drain(this::release);
            } finally {
                stripe.release();
            }
        }
        for (Run head : runs) {
            for (Run run = head; run != null; ) {
                Run next = run.next;
                if (run.isEmpty()) {
                    dissolve(run);
                }
                run = next;
            }
        }
    }

    /** Adds a slab with room for {@code bytes}, in place of slabs that are free where it must be. */
    private Slab grow(long bytes, boolean own) {
        long chosen = own ? bytes : settings.slabBytes() > 0 ? settings.slabBytes() : slabBytes(bytes);
        makeWay(chosen);
        long surplus = Math.min(makeWayInside(chosen, bytes), chosen - bytes);
        try {
            return add(chosen, own, false, hasSpare() ? surplus : 0);
        } catch (GatunException e) {
            long least = own || settings.slabBytes() > 0 ? chosen : bytes;
            boolean limited = chosen > settings.limit() - reserved;
            boolean gave = false;
            for (Slab slab : List.copyOf(slabs)) {
                if (slab.isFree() && (!limited || least > settings.limit() - reserved)) {
                    drop(slab);
                    gave = true;
                }
            }
            gave |= makeRoom(least);
            if (!gave && least == chosen) {
                throw e;
            }
            return add(least, own, false, 0);
        }
    }

    /**
     * Gives back slabs that are free, and too small for what a new slab is for, as long as they are no more than it. So
     * requests of many sizes end in slabs that fit the largest of them, and not in some for each size.
     */
    private void makeWay(long bytes) {
        for (Slab slab : List.copyOf(slabs)) {
            if (slab.isFree() && !slab.cold && slab.bytes <= bytes) {
                drop(slab);
                bytes -= slab.bytes;
            }
        }
    }

    /**
     * Chooses the size of a slab for blocks of {@code bytes}: a power of two that grows with the heap. Blocks of more
     * than an eighth of it get a whole number of theirs instead, so that no end is left over that none of them fits in.
     */
    private long slabBytes(long bytes) {
        long chosen = Math.clamp(Long.highestOneBit(reserved / GROWTH), SMALLEST_SLAB, LARGEST_SLAB);
        while (chosen < bytes) {
            chosen *= 2;
        }
        return bytes > chosen / 8 ? chosen / bytes * bytes : chosen;
    }

    /** Adds a slab, of which up to {@code surplus} bytes at the end are as if they had gone back. */
    private Slab add(long bytes, boolean own, boolean cold, long surplus) {
        checkLimit(bytes);
        PoolEvents.Growth event = new PoolEvents.Growth();
        event.begin();
        int end = (int) (bytes / Slab.CHUNK);
        int from = end - (int) (surplus / Slab.CHUNK);
        long absent = (long) (end - from) * Slab.CHUNK;
        long address = reservation.reserve(bytes, (long) from * Slab.CHUNK, absent);
        Slab slab = new Slab(this, address, bytes, arena, own, cold);
        slab.absent.set(from, end);
        slab.present -= absent;
        slabs.add(slab);
        table.add(slab);
        count(slab.present);
        if (own) {
            ownBytes += bytes;
        } else {
            free.add(slab);
        }
        if (event.shouldCommit()) {
            event.of(device, domain, slab.present, reserved);
            event.commit();
        }
        return slab;
    }

    private void checkLimit(long bytes) {
        if (bytes > settings.limit() - reserved) {
            throw new GatunException("it has " + reserved + " bytes of the device, and a limit of " + settings.limit());
        }
    }

    private void drop(Slab slab) {
        if (slab.own) {
            ownBytes -= slab.bytes;
        } else {
            free.remove(slab);
        }
        slabs.remove(slab);
        table.remove(slab);
        reserved -= slab.present;
        reservation.release(slab.address);
    }

    /** What a heap has, and what of it no block occupies, large ones that stripes keep apart. */
    record Balance(long reserved, long free) {}

    Balance balance() {
        lock.lock();
        try {
            long kept = 0;
            for (Stripe stripe : stripes) {
                kept += stripe.largeBytes();
            }
            return new Balance(reserved, reserved - occupied() + kept);
        } finally {
            lock.unlock();
        }
    }

    /**
     * Returns how much of what is free cannot go back by {@link #spare}: what is less than a chunk, what was declared for the
     * start, and all where the size of slabs was chosen.
     */
    long kept() {
        lock.lock();
        try {
            long kept = reserved - occupied();
            if (!hasSpare()) {
                for (Stripe stripe : stripes) {
                    kept += stripe.largeBytes();
                }
                return kept;
            }
            for (FreeRanges.Range range : free.largestFirst()) {
                if (range.count() < Slab.CHUNK / Slab.GRANULE) {
                    break;
                }
                kept -= range.slab().cold ? 0 : range.chunkBytes();
            }
            return kept;
        } finally {
            lock.unlock();
        }
    }

    /** Whether what is free inside of slabs can go back, and no size was chosen. */
    private boolean hasSpare() {
        return settings.slabBytes() == 0 && reservation.hasPages();
    }

    /** Gives back up to {@code bytes} bytes of what is free inside of slabs, or kept by stripes. Returns how many. */
    long spare(long bytes) {
        if (!hasSpare()) {
            return 0;
        }
        lock.lock();
        try {
            long given = discard(bytes);
            if (given < bytes) {
                for (Stripe stripe : stripes) {
                    stripe.hold();
                    try {
                        stripe.drainLarge(this::release);
                    } finally {
                        stripe.release();
                    }
                }
                given += discard(bytes - given);
            }
            return given;
        } finally {
            lock.unlock();
        }
    }

    /** Gives back what is free, but for what was there from the start. Returns the bytes. */
    long trim() {
        reclaim.run();
        lock.lock();
        try {
            drain();
            return dropFree(0) + discardAll();
        } finally {
            lock.unlock();
        }
    }

    /** The same for slabs that have been free for some time, and inside of them if nothing was asked for meanwhile. */
    void trimIdle(long nanos) {
        reclaim.run();
        lock.lock();
        try {
            long requests = counts().requests;
            boolean idle = requests == requestsAtLastLook;
            if (idle) {
                drain();
            }
            requestsAtLastLook = requests;
            dropFree(nanos);
            if (idle) {
                discardAll();
            }
        } finally {
            lock.unlock();
        }
    }

    /** Gives back all that is free inside of slabs, and forgets how much was ever needed. Returns the bytes. */
    private long discardAll() {
        PoolEvents.Trim event = new PoolEvents.Trim();
        event.begin();
        peakOccupied = 0;
        long bytes = discard(reserved);
        if (bytes > 0 && event.shouldCommit()) {
            event.of(device, domain, bytes, reserved);
            event.commit();
        }
        return bytes;
    }

    private long dropFree(long nanos) {
        PoolEvents.Trim event = new PoolEvents.Trim();
        event.begin();
        long now = System.nanoTime();
        long bytes = 0;
        for (Slab slab : new ArrayList<>(slabs)) {
            if (slab.isFree() && !slab.cold && now - slab.freeSince >= nanos) {
                drop(slab);
                bytes += slab.present;
            }
        }
        if (bytes > 0 && event.shouldCommit()) {
            event.of(device, domain, bytes, reserved);
            event.commit();
        }
        return bytes;
    }

    private Stripe.Counts counts() {
        Stripe.Counts counts = new Stripe.Counts();
        for (Stripe stripe : stripes) {
            stripe.count(counts);
        }
        return counts;
    }

    MemoryPool.Statistics statistics() {
        lock.lock();
        try {
            Stripe.Counts counts = counts();
            long busy = 0;
            for (Slab slab : slabs) {
                busy += slab.isFree() ? 0 : slab.present;
            }
            long used = usedBytes.now();
            return new MemoryPool.Statistics(used + counts.used, counts.occupied, busy, reserved,
                    Math.max(usedBytes.peak(), used + counts.mostUsed), peakReserved, counts.blocks, slabs.size(), counts.requests, counts.hits);
        } finally {
            lock.unlock();
        }
    }

    /** Returns the block in use that {@code address} lies in. */
    @Nullable Block containing(long address) {
        lock.lock();
        try {
            for (Slab slab : slabs) {
                if (address - slab.address >= 0 && address - slab.address < slab.bytes) {
                    Block block = slab.containing(address);
                    return block != null && block.owner != null ? block : null;
                }
            }
            return null;
        } finally {
            lock.unlock();
        }
    }

    /** Adds a line for each slab. */
    void draw(StringBuilder map, int cells) {
        lock.lock();
        try {
            if (slabs.isEmpty()) {
                return;
            }
            map.append(domain + ": " + reserved + " bytes in " + slabs.size() + " slabs\n");
            for (Slab slab : slabs) {
                map.append(String.format("  0x%012x %12d %s%n", slab.address, slab.bytes, slab.draw(cells)));
            }
        } finally {
            lock.unlock();
        }
    }

    /** Returns the slabs' addresses and sizes, and how much of each did not go back. */
    List<long[]> layout() {
        lock.lock();
        try {
            return slabs.stream().map(slab -> new long[] {slab.address, slab.bytes, slab.present}).toList();
        } finally {
            lock.unlock();
        }
    }

    /** Forgets everything. The memory is given back by the reservation. */
    void close() {
        lock.lock();
        try {
            closed = true;
            drain();
            slabs.forEach(table::remove);
            slabs.clear();
            reserved = 0;
            room.signalAll();
        } finally {
            lock.unlock();
        }
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException("the memory pool on " + device + " is closed");
        }
    }

    private static long counted(long bytes) {
        return Math.max(up(bytes, UNIT), UNIT);
    }

    private static long up(long value, long unit) {
        return (value + unit - 1) & -unit;
    }
}
