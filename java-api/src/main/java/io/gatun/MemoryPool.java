package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.ArrayList;
import java.util.List;

/**
 * Memory that a device computes on, taken from it in slabs and handed out in blocks. Blocks that are given back are
 * used again, and free neighbours become one. Safe for use by several threads.
 *
 * <p>There are two ways to use it. {@link #allocate} and {@link #tensor} hand out single blocks, whose content is
 * undefined, and {@link #free} takes them back; a segment must not be used after it was freed, which is not detected as
 * long as the pool is open. {@link #newArena} gives an {@link Arena} for one request or step: its segments are zeros at
 * first, and closing it gives all of them back at once and makes any later use of them an
 * {@link IllegalStateException}.
 *
 * <p>All segments can be used by any thread. They cost a run about 20 ns each more than those of a confined arena.
 */
public final class MemoryPool implements SegmentAllocator, AutoCloseable {
    private static final long SLAB_BYTES = 16L << 20;

    private final Device device;
    private final Slabs slabs;
    private final Arena arena = Arena.ofShared();
    private final Leaks.Watch watch;

    /**
     * How a pool is used.
     *
     * @param usedBytes bytes in the blocks that are handed out, each rounded up to a multiple of 64
     * @param reservedBytes bytes taken from the device
     * @param peakUsedBytes the most that {@code usedBytes} has been
     * @param blocks the number of blocks that are handed out
     * @param slabs the number of slabs taken from the device
     */
    public record Statistics(long usedBytes, long reservedBytes, long peakUsedBytes, long blocks, long slabs) {}

    private MemoryPool(Device device, long slabBytes) {
        this.device = device;
        Slabs slabs = new Slabs(device, slabBytes);
        this.slabs = slabs;
        // The scope is reachable from the pool and from each of its segments: all of them must be forgotten.
        this.watch = Leaks.watch(arena.scope(), "the memory pool on " + device, () -> slabs.close(() -> {}));
    }

    /**
     * Makes a pool with slabs of 16 MiB. It takes memory from the device at the first request.
     *
     * @param device whose memory it is
     * @return the pool
     */
    public static MemoryPool of(Device device) {
        return of(device, SLAB_BYTES);
    }

    /**
     * Makes a pool. It takes memory from the device at the first request.
     *
     * @param device whose memory it is
     * @param slabBytes the size of a slab, a multiple of 64; a larger request gets a slab of its own
     * @return the pool
     * @throws IllegalArgumentException if {@code slabBytes} is not a positive multiple of 64
     */
    public static MemoryPool of(Device device, long slabBytes) {
        if (device == null) {
            throw new NullPointerException("device");
        }
        if (slabBytes <= 0 || slabBytes % Slabs.UNIT != 0) {
            throw new IllegalArgumentException(
                    "slabBytes: " + slabBytes + ", expected a positive multiple of " + Slabs.UNIT);
        }
        return new MemoryPool(device, slabBytes);
    }

    /**
     * Hands out a block of undefined content.
     *
     * @param bytes its size, 0 or more
     * @param alignment a power of two up to 2 MiB; the block is aligned to 64 bytes at least
     * @return the memory, until {@link #free} or {@link #close}
     * @throws IllegalArgumentException if {@code bytes} or {@code alignment} is none of these
     * @throws IllegalStateException if the pool or its device is closed
     * @throws GatunException if the device has no more memory
     */
    @Override
    public MemorySegment allocate(long bytes, long alignment) {
        Slabs.Block block = slabs.take(bytes, alignment);
        MemorySegment segment;
        try {
            segment = DeviceMemory.segment(block.address, bytes, arena);
        } catch (IllegalStateException e) {
            throw new IllegalStateException("the memory pool on " + device + " is closed", e);
        }
        slabs.name(block, segment);
        return segment;
    }

    /**
     * Hands out a dense row-major tensor of undefined content in a block of its own.
     *
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor, until {@link #free(Tensor)} or {@link #close}
     * @throws IllegalArgumentException as in {@link TensorSpec#of}
     * @throws IllegalStateException if the pool or its device is closed
     * @throws GatunException if the device has no more memory
     */
    public Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(this, dtype, shape);
    }

    /**
     * Takes a block back.
     *
     * @param block a segment that {@link #allocate} returned; a slice of one, or an equal one, is not the same
     * @throws IllegalArgumentException if it is not of this pool, or of an arena of it
     * @throws IllegalStateException if it was freed already, or the pool is closed
     */
    public void free(MemorySegment block) {
        if (!block.scope().equals(arena.scope())) {
            throw new IllegalArgumentException("block: " + block.byteSize() + " bytes at 0x"
                    + Long.toHexString(block.address()) + ", expected a block that this pool allocated");
        }
        slabs.give(block);
    }

    /**
     * Takes the block of a tensor back.
     *
     * @param block a tensor that {@link #tensor} returned, or {@link Tensor#allocate} with this pool
     * @throws IllegalArgumentException if its memory is not of this pool, or of an arena of it
     * @throws IllegalStateException if it was freed already, or the pool is closed
     */
    public void free(Tensor block) {
        free(block.memory);
    }

    /**
     * Opens an arena in this pool. Its segments are zeros at first, aligned to 64 bytes at least, and can be used and
     * closed by any thread. Closing it gives their memory back to the pool; that is an {@link IllegalStateException},
     * and closes nothing, while a run uses one of them.
     *
     * @return the arena
     * @throws IllegalStateException if the pool is closed
     */
    public Arena newArena() {
        return new PoolArena(this);
    }

    /**
     * Returns how the pool is used at this moment.
     *
     * @return the statistics
     */
    public Statistics statistics() {
        return slabs.statistics();
    }

    /**
     * Gives all memory back to the device, and makes any later use of the pool's segments an
     * {@link IllegalStateException}. Closing the pool again does nothing.
     *
     * @throws IllegalStateException if an arena of the pool is open or a run uses its memory; the pool stays open
     */
    @Override
    public void close() {
        slabs.close(() -> {
            try {
                arena.close();
            } catch (IllegalStateException e) {
                throw new IllegalStateException(
                        "the memory pool on " + device + " cannot be closed: a run uses memory of it", e);
            }
        });
        watch.end();
    }

    @Override
    public String toString() {
        return "memory pool on " + device;
    }

    /** An arena whose blocks are the pool's. */
    private static final class PoolArena implements Arena {
        private final Slabs slabs;
        private final Arena lifetime = Arena.ofShared();
        private final List<Slabs.Block> blocks = new ArrayList<>();
        private final Leaks.Watch watch;

        PoolArena(MemoryPool pool) {
            Slabs slabs = pool.slabs;
            List<Slabs.Block> blocks = this.blocks;
            this.slabs = slabs;
            slabs.arenaOpened();
            // The action holds the pool, so that a forgotten pool outlives the segments of its arenas.
            this.watch = Leaks.watch(
                    lifetime.scope(), "an arena of the " + pool, () -> pool.slabs.arenaClosed(blocks));
        }

        @Override
        public synchronized MemorySegment allocate(long bytes, long alignment) {
            if (!lifetime.scope().isAlive()) {
                throw new IllegalStateException("the arena is closed");
            }
            Slabs.Block block = slabs.take(bytes, alignment);
            blocks.add(block);
            return DeviceMemory.segment(block.address, bytes, lifetime).fill((byte) 0);
        }

        @Override
        public MemorySegment.Scope scope() {
            return lifetime.scope();
        }

        @Override
        public synchronized void close() {
            lifetime.close();
            slabs.arenaClosed(blocks);
            watch.end();
        }
    }
}
