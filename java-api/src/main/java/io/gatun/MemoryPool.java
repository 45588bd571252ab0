package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * Memory that a device computes on, taken from it in slabs and handed out in blocks. Blocks that are given back are
 * used again, and free neighbours become one. Safe for use by several threads, platform and virtual ones.
 *
 * <p>There are two ways to use it. {@link #allocate} and {@link #tensor} hand out single blocks, whose content is
 * undefined, and {@link #free} takes them back; a block that is freed twice, or by another pool, is always detected,
 * but a segment that is used after it was freed is not as long as the pool is open. {@link #newArena} gives an
 * {@link Arena} for one request or step: its segments are zeros at first, and closing it gives all of them back at once
 * and makes any later use of them an {@link IllegalStateException}.
 *
 * <p>Each {@link MemoryDomain} has slabs of its own, and with {@link #builder} a start, a limit and a choice of what
 * happens when it is full. Blocks up to 32 KiB are rounded up to one of a few sizes, by less than an eighth above 512
 * bytes; larger ones to a multiple of 4 KiB. Slabs have a power of two of bytes from 1 to 128 MiB, which grows with the
 * domain, or a whole number of blocks that are large for that; a block of more than 128 MiB has a slab of its own,
 * which goes back to the device with it. Slabs that nothing is in go back after a while, or by {@link #trim}. Where
 * memory is the host's, pages that are free inside of a slab go back as well, and the slab stays: when a domain grows
 * and has more than a 128th (or 1 MiB) beyond what its blocks ever occupied, or any grows and all have more than
 * a 256th (or 1 MiB) beyond what all blocks ever occupied at a time, when its limit leaves no room otherwise, and with
 * {@link #trim}, unless the size of slabs was chosen or the pool is for {@link Builder#staging}. All pools together take no more than a container allows
 * the process beside its heap (control groups 2, {@code memory.max}).
 *
 * <p>The memory of a device that is not the host's ({@link DeviceInfo#hostMemory}) cannot be read or written by Java: any access
 * to its segments is an {@link IllegalStateException}, as if their arena were closed, and the accessors of its tensors throw
 * {@link UnsupportedOperationException}. {@link Stream#copyToDevice} and {@link Stream#copyToHost} move its content, from
 * and to a pool with {@link Builder#staging} best; such segments can be sliced, and have their size and address.
 *
 * <p>{@link SpillTier} keeps more blocks than memory holds in a file, and those in use in a pool.
 *
 * <p>All segments can be used by any thread. They cost a run about 20 ns each more than those of a confined arena. An
 * allocation makes one object on the Java heap, the segment, and a free makes none; a block that a thread freed is
 * handed out to the next request for its size without a lock.
 *
 * <p>With {@code -Dio.gatun.pool.check=true} single blocks are checked: a segment that is used after it was freed is an
 * {@link IllegalStateException}; what native code writes around a block or after it was freed is found when the block
 * is freed or used again; blocks that are not freed when the pool is closed are reported. All of it names where the
 * block was allocated, in an exception or by the {@link System.Logger} {@code io.gatun}. That costs time and memory.
 */
public final class MemoryPool implements SegmentAllocator, AutoCloseable {
    private static final Duration TRIM_AFTER = Duration.ofMinutes(1);
    private static final int MAP_CELLS = 64;

    /** How much of the most that blocks occupied may be free beside it, of all domains together. */
    private static final long SPARE = 256;

    private static final int RECENT_BITS = 10;

    private final Device device;
    private final Reservation reservation;
    private final SlabTable table = new SlabTable();
    private final DomainHeap[] heaps; // by ordinal of the domain
    private final PendingFrees pending = new PendingFrees();
    private final @Nullable CheckedBlocks checked;
    final @Nullable PoolTrace trace;
    private final Arena arena = Arena.ofShared();

    // By a hash of their addresses, blocks that were handed out: most frees find theirs here, without the table. Races
    // do no harm, as a block is given back by its owner alone.
    private final @Nullable Block[] recent = new Block[1 << RECENT_BITS];
    private final @Nullable MemorySegment hidden; // what segments are sliced from where the host cannot reach them
    private final Leaks.Watch watch;

    // Guarded by settling, which is locked before a heap.
    private final Object settling = new Object();
    private long peakOccupied; // by the blocks of all domains, as far as it made the pool grow

    private int arenas;
    private int tiers;
    private boolean closed;

    /**
     * How a pool, or a domain of it, is used.
     *
     * @param usedBytes bytes in the blocks that are handed out, each rounded up to a multiple of 64; those of an arena
     *     are what it took from the pool
     * @param blockBytes bytes that these blocks occupy
     * @param busySlabBytes bytes of the slabs that something is in, be it a free block that is kept for the next
     *     request, without those that went back
     * @param reservedBytes bytes taken from the device, without those that went back
     * @param peakUsedBytes the most that {@code usedBytes} has been, to within 64 KiB for each thread beyond the first;
     *     for a whole pool the sum over its domains
     * @param peakReservedBytes the most that {@code reservedBytes} has been
     * @param blocks the number of blocks that are handed out, an arena's chunks included
     * @param slabs the number of slabs taken from the device
     * @param requests the number of blocks that were ever handed out
     * @param hits how many of these were free blocks of the right size, at hand without a lock
     */
    public record Statistics(
            long usedBytes,
            long blockBytes,
            long busySlabBytes,
            long reservedBytes,
            long peakUsedBytes,
            long peakReservedBytes,
            long blocks,
            long slabs,
            long requests,
            long hits) {
        /**
         * Returns the part of the blocks that is lost to rounding up their sizes.
         *
         * @return 0 to 1
         */
        public double internalFragmentation() {
            return blockBytes == 0 ? 0 : 1 - (double) usedBytes / blockBytes;
        }

        /**
         * Returns the part of the slabs in use that no block occupies. Slabs that nothing is in do not count: they can
         * go back to the device.
         *
         * @return 0 to 1
         */
        public double externalFragmentation() {
            return busySlabBytes == 0 ? 0 : 1 - (double) blockBytes / busySlabBytes;
        }

        /**
         * Returns the part of the requests that took a free block of the right size without a lock.
         *
         * @return 0 to 1
         */
        public double hitRate() {
            return requests == 0 ? 0 : (double) hits / requests;
        }

        private Statistics withPeakReserved(long bytes) {
            return new Statistics(usedBytes, blockBytes, busySlabBytes, reservedBytes, peakUsedBytes, bytes, blocks, slabs,
                    requests, hits);
        }

        private Statistics plus(Statistics other) {
            return new Statistics(usedBytes + other.usedBytes, blockBytes + other.blockBytes,
                    busySlabBytes + other.busySlabBytes, reservedBytes + other.reservedBytes,
                    peakUsedBytes + other.peakUsedBytes, peakReservedBytes + other.peakReservedBytes,
                    blocks + other.blocks, slabs + other.slabs, requests + other.requests, hits + other.hits);
        }
    }

    /** Describes a pool: immutable, each method gives another one. */
    public static final class Builder {
        private final Device device;
        private final Map<MemoryDomain, DomainSettings> domains;
        private final Duration trimAfter;
        private final @Nullable Path trace;
        private final boolean staging;

        private Builder(
                Device device,
                Map<MemoryDomain, DomainSettings> domains,
                Duration trimAfter,
                @Nullable Path trace,
                boolean staging) {
            this.device = device;
            this.staging = staging;
            this.domains = domains;
            this.trimAfter = trimAfter;
            this.trace = trace;
        }

        private DomainSettings of(MemoryDomain domain) {
            if (domain == null) {
                throw new NullPointerException("domain");
            }
            return domains.getOrDefault(domain, DomainSettings.DEFAULT);
        }

        private Builder with(MemoryDomain domain, DomainSettings settings) {
            Map<MemoryDomain, DomainSettings> changed = new EnumMap<>(MemoryDomain.class);
            changed.putAll(domains);
            changed.put(domain, settings);
            return new Builder(device, changed, trimAfter, trace, staging);
        }

        /**
         * Declares memory that a domain has from the start and keeps until the pool is closed, unless it must make room
         * for other slabs within a limit. Host memory is touched, so that no request has to wait for the system to find
         * the pages.
         *
         * @param domain whose it is
         * @param bytes how much, 0 or more
         * @return a builder with this
         * @throws IllegalArgumentException if {@code bytes} is negative
         */
        public Builder coldStart(MemoryDomain domain, long bytes) {
            if (bytes < 0 || bytes > Long.MAX_VALUE - Slab.ALIGNMENT) {
                throw new IllegalArgumentException("bytes: " + bytes + ", expected 0 or more");
            }
            return with(domain, of(domain).withColdStart(bytes));
        }

        /**
         * Limits what a domain takes from the device. Without a limit it takes all there is.
         *
         * @param domain whose limit it is
         * @param bytes the most, more than 0
         * @return a builder with this
         * @throws IllegalArgumentException if {@code bytes} is not more than 0
         */
        public Builder limit(MemoryDomain domain, long bytes) {
            if (bytes <= 0) {
                throw new IllegalArgumentException("bytes: " + bytes + ", expected more than 0");
            }
            return with(domain, of(domain).withLimit(bytes));
        }

        /**
         * Chooses what a request does when its domain is full. It fails if nothing was chosen.
         *
         * @param domain whose choice it is
         * @param choice what happens
         * @return a builder with this
         */
        public Builder whenFull(MemoryDomain domain, WhenFull choice) {
            if (choice == null) {
                throw new NullPointerException("choice");
            }
            return with(domain, of(domain).withWhenFull(choice));
        }

        /**
         * Fixes the size of a domain's slabs, which is otherwise chosen by what is asked for. A larger block gets a
         * slab of its own, which goes back to the device with it.
         *
         * @param domain whose slabs they are
         * @param bytes a power of two from 1 to 128 MiB
         * @return a builder with this
         * @throws IllegalArgumentException if {@code bytes} is none
         */
        public Builder slabBytes(MemoryDomain domain, long bytes) {
            if (bytes < DomainHeap.SMALLEST_SLAB || bytes > DomainHeap.LARGEST_SLAB || Long.bitCount(bytes) != 1) {
                throw new IllegalArgumentException("slabBytes: " + bytes + ", expected a power of two from "
                        + DomainHeap.SMALLEST_SLAB + " to " + DomainHeap.LARGEST_SLAB);
            }
            return with(domain, of(domain).withSlabBytes(bytes));
        }

        /**
         * Chooses how long nothing must have been in a slab for it to go back to the device by itself: a minute if
         * nothing was chosen. It may take half as long again.
         *
         * @param time how long, more than 0
         * @return a builder with this
         * @throws IllegalArgumentException if {@code time} is not more than 0
         */
        public Builder trimAfter(Duration time) {
            if (time.isNegative() || time.isZero()) {
                throw new IllegalArgumentException("time: " + time + ", expected more than 0");
            }
            return new Builder(device, domains, time, trace, staging);
        }

        /**
         * Records all that is asked of the pool, until it is closed, in a text file that {@code ./gatun memory} replays.
         * What an arena hands out is recorded as a request, which ends with its reset or close. That costs time: it is
         * for finding out.
         *
         * @param file is written, or overwritten
         * @return a builder with this
         */
        public Builder trace(Path file) {
            if (file == null) {
                throw new NullPointerException("file");
            }
            return new Builder(device, domains, trimAfter, file, staging);
        }

        /**
         * Takes memory of the host that the device reaches by itself (pinned), from and to which
         * {@link Stream#copyToDevice} and {@link Stream#copyToHost} are fastest. Java reads and writes it. Runs take it
         * only on a device that computes on any host memory. The system cannot give its pages to others, so a limit is
         * wise; pages inside of slabs do not go back to it.
         *
         * @return a builder with this
         */
        public Builder staging() {
            return new Builder(device, domains, trimAfter, trace, true);
        }

        /**
         * Makes the pool.
         *
         * @return the pool, with what was declared for the start
         * @throws UnsupportedOperationException if it is for {@link #staging}, and the device's backend has no such memory
         * @throws IllegalArgumentException if a domain starts with more than its limit
         * @throws IllegalStateException if the device is closed and something was declared, or it is for staging
         * @throws GatunException if the device has not what was declared, or, for staging, no such memory left at all; nothing
         *     is taken from it then
         * @throws UncheckedIOException if a trace cannot be written
         */
        public MemoryPool build() {
            long most = staging || device.info().memoryBytes() < 0 ? Long.MAX_VALUE : device.info().memoryBytes();
            long left = most;
            for (Map.Entry<MemoryDomain, DomainSettings> each : domains.entrySet()) {
                DomainSettings settings = each.getValue();
                if (settings.coldStart() > settings.limit()) {
                    throw new IllegalArgumentException("coldStart: " + settings.coldStart() + " bytes of "
                            + each.getKey() + ", expected at most its limit of " + settings.limit());
                }
                // What the system grants it may not have: it would kill the process while that is touched.
                if (settings.coldStart() > left) {
                    throw new GatunException("coldStart: " + settings.coldStart() + " bytes of " + each.getKey()
                            + ", expected at most what is left of the " + most + " that " + device + " has");
                }
                left -= settings.coldStart();
            }
            MemoryPool pool = new MemoryPool(this);
            try {
                if (staging) {
                    pool.reservation.probe();
                }
                for (DomainHeap heap : pool.heaps) {
                    heap.start();
                }
                pool.settle(null);
            } catch (RuntimeException e) {
                pool.close();
                throw e;
            }
            IdleTrim.start(pool, TimeUnit.NANOSECONDS.convert(trimAfter));
            return pool;
        }
    }

    private MemoryPool(Builder builder) {
        this.device = builder.device;
        this.trace = builder.trace == null ? null : new PoolTrace(builder.trace);
        Reservation reservation = new Reservation(device, builder.staging);
        this.reservation = reservation;
        this.checked = Boolean.getBoolean("io.gatun.pool.check") ? new CheckedBlocks(device, isHostMemory()) : null;
        this.heaps = Arrays.stream(MemoryDomain.values())
                .map(domain -> new DomainHeap(
                        device, domain, builder.of(domain), reservation, table, arena, this::reclaim, this::trim,
                        this::settle))
                .toArray(DomainHeap[]::new);
        // The scope is reachable from the pool and from each of its segments: all of them must be forgotten.
        this.hidden = isHostMemory() ? null : DeviceMemory.hidden(arena, device);
        this.watch = Leaks.watch(arena.scope(), "the memory pool on " + device, reservation::close);
    }

    /**
     * Makes a pool without limits. It takes memory from the device at the first request.
     *
     * @param device whose memory it is
     * @return the pool
     */
    public static MemoryPool of(Device device) {
        return builder(device).build();
    }

    /**
     * Makes a pool without limits. It takes memory from the device at the first request.
     *
     * @param device whose memory it is
     * @param slabBytes the size of a slab, a power of two from 1 to 128 MiB; a larger request gets a slab of its own
     * @return the pool
     * @throws IllegalArgumentException if {@code slabBytes} is none
     */
    public static MemoryPool of(Device device, long slabBytes) {
        Builder builder = builder(device);
        for (MemoryDomain domain : MemoryDomain.values()) {
            builder = builder.slabBytes(domain, slabBytes);
        }
        return builder.build();
    }

    /**
     * Describes a pool.
     *
     * @param device whose memory it is
     * @return a builder of a pool without limits that starts with nothing
     */
    public static Builder builder(Device device) {
        if (device == null) {
            throw new NullPointerException("device");
        }
        return new Builder(device, Map.of(), TRIM_AFTER, null, false);
    }

    Device device() {
        return device;
    }

    boolean isHostMemory() {
        return reservation.isHostMemory();
    }

    /**
     * Hands out a block of undefined content in {@link MemoryDomain#ACTIVATIONS}, as
     * {@link #allocate(MemoryDomain, long, long)} does.
     *
     * @param bytes its size, 0 or more
     * @param alignment a power of two up to 2 MiB; the block is aligned to 64 bytes at least
     * @return the memory, until {@link #free} or {@link #close}
     */
    @Override
    public MemorySegment allocate(long bytes, long alignment) {
        return allocate(MemoryDomain.ACTIVATIONS, bytes, alignment);
    }

    /**
     * Hands out a block of undefined content.
     *
     * @param domain what it is for
     * @param bytes its size, 0 or more
     * @param alignment a power of two up to 2 MiB; the block is aligned to 64 bytes at least
     * @return the memory, until {@link #free} or {@link #close}
     * @throws IllegalArgumentException if {@code bytes} or {@code alignment} is none of these
     * @throws IllegalStateException if the pool or its device is closed
     * @throws GatunException if there is no room: the domain's limit, what a container allows or what the device has is
     *     reached, and what was chosen for that did not help
     */
    public MemorySegment allocate(MemoryDomain domain, long bytes, long alignment) {
        return allocate(domain, bytes, alignment, false);
    }

    /** The same, but fails at once when the domain is full, whatever was chosen for that. */
    MemorySegment allocateAtOnce(MemoryDomain domain, long bytes, long alignment) {
        return allocate(domain, bytes, alignment, true);
    }

    private MemorySegment allocate(MemoryDomain domain, long bytes, long alignment, boolean atOnce) {
        MemorySegment segment = take(domain, bytes, alignment, atOnce);
        if (trace != null) {
            trace.take(segment.address(), domain, bytes, alignment);
        }
        return segment;
    }

    private MemorySegment take(MemoryDomain domain, long bytes, long alignment, boolean atOnce) {
        check(bytes, alignment);
        DomainHeap heap = heaps[domain.ordinal()];
        if (checked != null) {
            checkOpen();
            return checked.allocate(heap, bytes, alignment, atOnce, arena);
        }
        Block block = heap.take(bytes, alignment, atOnce);
        MemorySegment segment = hidden == null ? block.segment(bytes) : hidden.asSlice(block.address, bytes);
        block.owner = segment;
        int place = recent(block.address);
        if (recent[place] != block) { // a store costs the garbage collector's barrier
            recent[place] = block;
        }
        return segment;
    }

    private static int recent(long address) {
        return (int) ((address >>> 6) * 0x9e3779b97f4a7c15L >>> 64 - RECENT_BITS);
    }

    static void check(long bytes, long alignment) {
        if (bytes < 0 || bytes > Long.MAX_VALUE - 2 * Slab.ALIGNMENT) {
            throw new IllegalArgumentException("bytes: " + bytes + ", expected 0 or more");
        }
        if (alignment < 1 || alignment > Slab.ALIGNMENT || Long.bitCount(alignment) != 1) {
            throw new IllegalArgumentException(
                    "alignment: " + alignment + ", expected a power of two up to " + Slab.ALIGNMENT);
        }
    }

    /**
     * Hands out a dense row-major tensor of undefined content in a block of its own in
     * {@link MemoryDomain#ACTIVATIONS}.
     *
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor, until {@link #free(Tensor)} or {@link #close}
     * @throws IllegalArgumentException as in {@link TensorSpec#of}
     * @throws IllegalStateException if the pool or its device is closed
     * @throws GatunException if there is no room, as in {@link #allocate(MemoryDomain, long, long)}
     */
    public Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(this, dtype, shape);
    }

    /**
     * Hands out a dense row-major tensor of undefined content in a block of its own.
     *
     * @param domain what it is for
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor, until {@link #free(Tensor)} or {@link #close}
     * @throws IllegalArgumentException as in {@link TensorSpec#of}
     * @throws IllegalStateException if the pool or its device is closed
     * @throws GatunException if there is no room, as in {@link #allocate(MemoryDomain, long, long)}
     */
    public Tensor tensor(MemoryDomain domain, DType dtype, long... shape) {
        return Tensor.allocate((bytes, alignment) -> allocate(domain, bytes, alignment), dtype, shape);
    }

    /**
     * Takes a block back.
     *
     * @param block a segment that {@link #allocate} returned; a slice of one, or an equal one, is not the same
     * @throws IllegalArgumentException if it is not of this pool, or of an arena of it
     * @throws IllegalStateException if it was freed already, or the pool is closed; and in check mode if a run uses it,
     *     or if something was written around it
     */
    public void free(MemorySegment block) {
        if (trace == null) {
            give(block);
            return;
        }
        synchronized (trace) {
            give(block);
            trace.give(block.address());
        }
    }

    private void give(MemorySegment block) {
        if (checked != null) {
            freeChecked(block).run();
            return;
        }
        Block place = recent[recent(block.address())];
        if (place != null && DomainHeap.give(place, block, block.byteSize())) {
            return;
        }
        place = find(block);
        if (place == null || !DomainHeap.give(place, block, block.byteSize())) {
            throw misuse(block);
        }
    }

    /**
     * Takes the block of a tensor back.
     *
     * @param block a tensor that {@link #tensor} returned, or {@link Tensor#allocate} with this pool
     * @throws IllegalArgumentException as in {@link #free(MemorySegment)}
     * @throws IllegalStateException as in {@link #free(MemorySegment)}
     */
    public void free(Tensor block) {
        free(block.memory());
    }

    /**
     * Takes a block back once the work is done that an event stands for, such as a run on a stream of an accelerator
     * that still uses it. It is freed for its owner at once, and handed out again after the event was reached. On a
     * processor that is when the event was recorded, as a run is done when it returns.
     *
     * @param block as in {@link #free(MemorySegment)}
     * @param after a recorded event of the device; it cannot be closed, and must not be recorded again, before it is
     *     reached
     * @throws IllegalArgumentException if nothing was recorded, or as in {@link #free(MemorySegment)}
     * @throws IllegalStateException if the event is closed, or as in {@link #free(MemorySegment)}
     */
    public void free(MemorySegment block, Event after) {
        if (after.isDone()) {
            free(block);
            return;
        }
        after.hold();
        try {
            freeAfter(block, after::isDone, after::letGo);
        } catch (RuntimeException e) {
            after.letGo();
            throw e;
        }
    }

    /**
     * Takes the block of a tensor back once the work is done that an event stands for.
     *
     * @param block as in {@link #free(Tensor)}
     * @param after as in {@link #free(MemorySegment, Event)}
     * @throws IllegalArgumentException as in {@link #free(MemorySegment, Event)}
     * @throws IllegalStateException as in {@link #free(MemorySegment, Event)}
     */
    public void free(Tensor block, Event after) {
        free(block.memory(), after);
    }

    void freeAfter(MemorySegment block, BooleanSupplier reached, Runnable done) {
        Runnable give;
        if (checked != null) {
            give = freeChecked(block);
        } else {
            Block place = find(block);
            Object waits = new Object(); // the owner until the block is given back
            if (place == null || !DomainHeap.pass(place, block, waits)) {
                throw misuse(block);
            }
            long bytes = block.byteSize();
            give = () -> DomainHeap.give(place, waits, bytes);
        }
        if (trace != null) {
            trace.give(block.address()); // nobody else has it before that is reached
        }
        pending.add(reached, () -> {
            done.run();
            give.run();
        });
    }

    /** Returns the block that starts where a segment does. */
    private @Nullable Block find(MemorySegment segment) {
        Slab slab = table.find(segment.address());
        return slab == null ? null : slab.block(segment.address());
    }

    private Runnable freeChecked(MemorySegment segment) {
        Runnable give = checked.free(segment);
        if (give == null) {
            throw misuse(segment);
        }
        return give;
    }

    /** Says why a segment is no block to be freed. */
    private RuntimeException misuse(MemorySegment segment) {
        boolean ours = DeviceMemory.behind(segment).scope().equals(arena.scope())
                || checked != null && checked.mayBeOurs(segment);
        String described = "block: " + segment.byteSize() + " bytes at 0x" + Long.toHexString(segment.address());
        synchronized (this) {
            if (closed && ours) {
                return new IllegalStateException(this + " is closed");
            }
        }
        if (!ours) {
            return new IllegalArgumentException(described + ", expected a block that this pool allocated");
        }
        for (DomainHeap heap : heaps) {
            Block block = heap.containing(segment.address());
            if (block != null && checked == null && block.address != segment.address()) {
                return new IllegalArgumentException(
                        described + ", part of a block, expected a block as it was allocated");
            }
        }
        IllegalStateException freed = new IllegalStateException(
                described + ", not a block in use as it was allocated: it was freed already, or is a slice");
        return checked == null ? freed : checked.explain(freed, segment);
    }

    /**
     * Opens an arena in {@link MemoryDomain#ACTIVATIONS}, as {@link #newArena(MemoryDomain)} does.
     *
     * @return the arena
     * @throws IllegalStateException if the pool is closed
     */
    public PoolArena newArena() {
        return newArena(MemoryDomain.ACTIVATIONS);
    }

    /**
     * Opens an arena in this pool. Its segments are zeros at first where the memory is the host's, for staging too, aligned
     * to 64 bytes at least, and can be used by any thread, and so can the arena. Closing it gives their memory back to the
     * pool; that is an {@link IllegalStateException}, and closes nothing, while a run uses one of them.
     *
     * @param domain what it is for
     * @return the arena
     * @throws IllegalStateException if the pool is closed
     */
    public PoolArena newArena(MemoryDomain domain) {
        DomainHeap heap = heaps[domain.ordinal()];
        synchronized (this) {
            checkOpen();
            arenas++;
        }
        return new PoolArena(this, heap, domain);
    }

    /** Gives back all that an arena took. */
    synchronized void arenaClosed(List<PoolArena.Chunk> chunks) {
        giveBack(chunks);
        arenas--;
    }

    void giveBack(List<PoolArena.Chunk> chunks) {
        for (PoolArena.Chunk chunk : chunks) {
            DomainHeap.give(chunk.block(), Block.ARENA, chunk.bytes());
        }
        chunks.clear();
    }

    /** A spill tier keeps the pool open. */
    synchronized void tierOpened() {
        checkOpen();
        tiers++;
    }

    synchronized void tierClosed() {
        tiers--;
    }

    /**
     * After a domain grew, gives back what is free inside of slabs, of the others first, if the pool has more than the blocks of
     * all domains ever occupied at a time: what one does not need any more makes room for another.
     */
    private void settle(@Nullable DomainHeap grown) {
        synchronized (settling) {
            long reserved = 0;
            long free = 0;
            for (DomainHeap heap : heaps) {
                DomainHeap.Balance balance = heap.balance();
                reserved += balance.reserved();
                free += balance.free();
            }
            peakOccupied = Math.max(peakOccupied, reserved - free);
            long surplus = reserved - peakOccupied;
            long most = Math.max(peakOccupied / SPARE, DomainHeap.SMALLEST_SLAB);
            for (int i = 0; i < heaps.length && surplus > most; i++) {
                surplus -= heaps[i].kept(); // which others cannot make up for
            }
            if (surplus > most) {
                long given = 0;
                for (DomainHeap heap : heaps) {
                    given += heap != grown && given < surplus ? heap.spare(surplus - given) : 0;
                }
                if (grown != null && given < surplus) {
                    grown.spare(surplus - given);
                }
            }
        }
    }

    /** Gives back what was freed and waited for something. */
    private void reclaim() {
        pending.reclaim();
        if (checked != null) {
            checked.giveAll();
        }
    }

    /**
     * Gives the slabs back to the device that nothing is in, and of the host's memory the pages that are free inside of
     * others, but for what was declared for the start, slabs of a chosen size and those for staging. Blocks that are kept for the next
     * request do not count.
     *
     * @return how many bytes went back
     */
    public long trim() {
        long bytes = 0;
        synchronized (settling) {
            peakOccupied = 0;
        }
        for (DomainHeap heap : heaps) {
            bytes += heap.trim();
        }
        return bytes;
    }

    /** Gives back what was not used for some time, and says whether to come again. */
    boolean trimIdle(long nanos) {
        synchronized (this) {
            if (closed) {
                return false;
            }
        }
        for (DomainHeap heap : heaps) {
            heap.trimIdle(nanos);
        }
        return true;
    }

    /**
     * Returns how the pool is used at this moment: the sum over its domains.
     *
     * @return the statistics, which may disagree a little with each other while other threads are at work
     */
    public Statistics statistics() {
        Statistics sum = Arrays.stream(heaps).map(DomainHeap::statistics).reduce(Statistics::plus).orElseThrow();
        return sum.withPeakReserved(reservation.peak());
    }

    /**
     * Returns how a domain is used at this moment.
     *
     * @param domain which
     * @return the statistics, which may disagree a little with each other while other threads are at work
     */
    public Statistics statistics(MemoryDomain domain) {
        return heaps[domain.ordinal()].statistics();
    }

    /**
     * Draws the slabs, for debugging: a line for each with its address, its bytes and what is in use from its start to
     * its end, as {@code .} for nothing, digits for tenths and {@code #} for all. What is kept for the next request
     * counts as in use.
     *
     * @return lines by domain
     */
    public String map() {
        StringBuilder map = new StringBuilder();
        for (DomainHeap heap : heaps) {
            heap.draw(map, MAP_CELLS);
        }
        return map.toString();
    }

    /** Returns the addresses and sizes of the slabs. */
    List<long[]> layout() {
        return Arrays.stream(heaps).flatMap(heap -> heap.layout().stream()).toList();
    }

    /** Returns what check mode found. */
    List<String> reports() {
        return checked == null ? List.of() : checked.reports();
    }

    /**
     * Gives all memory back to the device, and makes any later use of the pool's segments an
     * {@link IllegalStateException}. Closing the pool again does nothing.
     *
     * @throws IllegalStateException if an arena or a {@link SpillTier} of the pool is open, a run uses its memory, or an
     *     event that a block was freed after is not reached; the pool stays open
     */
    @Override
    public void close() {
        pending.reclaim();
        synchronized (this) {
            if (closed) {
                return;
            }
            if (arenas > 0) {
                throw new IllegalStateException(this + " cannot be closed: " + arenas
                        + (arenas == 1 ? " arena of it is open" : " arenas of it are open"));
            }
            if (tiers > 0) {
                throw new IllegalStateException(this + " cannot be closed: " + tiers
                        + (tiers == 1 ? " spill tier of it is open" : " spill tiers of it are open"));
            }
            if (pending.count() > 0) {
                throw new IllegalStateException(
                        this + " cannot be closed: " + pending.count() + " freed blocks wait for events");
            }
            try {
                if (checked != null) {
                    checked.close();
                }
                arena.close();
            } catch (IllegalStateException e) {
                throw new IllegalStateException(this + " cannot be closed: a run uses memory of it", e);
            }
            closed = true;
        }
        for (DomainHeap heap : heaps) {
            heap.close();
        }
        Arrays.fill(recent, null); // a later free is told that the pool is closed
        reservation.close();
        if (trace != null) {
            trace.close();
        }
        watch.end();
    }

    private synchronized void checkOpen() {
        if (closed) {
            throw new IllegalStateException(this + " is closed");
        }
    }

    @Override
    public String toString() {
        return "the memory pool on " + device;
    }
}
