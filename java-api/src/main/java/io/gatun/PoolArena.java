package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * An {@link Arena} in a {@link MemoryPool}, for one request or step. It lays its segments one after the other in chunks
 * of the pool, so that a segment costs next to nothing and all of them are given back at once. Its segments can be used
 * by any thread, and so can the arena.
 *
 * <p>{@link #reset} makes it as good as new for the next request, in the memory that it has: its cost does not depend
 * on the number of segments.
 */
public final class PoolArena implements Arena {
    private static final long UNIT = 64;
    private static final long SMALLEST_CHUNK = 64 << 10;
    private static final long LARGEST_CHUNK = 32 << 20;

    /** A block of the pool, and how much of it was asked for. */
    record Chunk(Block block, long bytes) {}

    private final MemoryPool pool;
    private final DomainHeap heap;
    private final MemoryDomain domain;
    private final List<Chunk> chunks = new ArrayList<>();
    private Arena lifetime;
    private @Nullable MemorySegment hidden;
    private Leaks.Watch watch;
    private long at; // the next free byte of the chunk that segments are laid in, and its end
    private long end;
    private long held;
    private int request; // in the pool's trace, or 0 before the first segment
    private final List<Integer> traced = new ArrayList<>();
    private long heldBefore; // at the last reset, if that was in several chunks

    PoolArena(MemoryPool pool, DomainHeap heap, MemoryDomain domain) {
        this.pool = pool;
        this.heap = heap;
        this.domain = domain;
        this.lifetime = Arena.ofShared();
        this.hidden = hide();
        this.watch = watch(pool, lifetime, chunks);
    }

    /** The action holds the pool, so that a forgotten pool outlives the segments of its arenas. */
    private static Leaks.Watch watch(MemoryPool pool, Arena lifetime, List<Chunk> chunks) {
        return Leaks.watch(lifetime.scope(), "an arena of the " + pool, () -> pool.arenaClosed(chunks));
    }

    /**
     * Hands out memory: zeros where the memory is the host's, else of undefined content.
     *
     * @param bytes its size, 0 or more
     * @param alignment a power of two up to 2 MiB; the segment is aligned to 64 bytes at least
     * @return the memory, until {@link #reset} or {@link #close}
     * @throws IllegalArgumentException if {@code bytes} or {@code alignment} is none of these
     * @throws IllegalStateException if the arena or the device is closed
     * @throws GatunException if there is no room, as {@link MemoryPool#allocate(MemoryDomain, long, long)} says
     */
    @Override
    public MemorySegment allocate(long bytes, long alignment) {
        MemorySegment segment = take(bytes, alignment);
        return pool.isHostMemory() ? segment.fill((byte) 0) : segment;
    }

    /**
     * Hands out a dense row-major tensor of undefined content.
     *
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor, until {@link #reset} or {@link #close}
     * @throws IllegalArgumentException as in {@link TensorSpec#of}
     * @throws IllegalStateException if the arena or the device is closed
     * @throws GatunException if there is no room, as {@link MemoryPool#allocate(MemoryDomain, long, long)} says
     */
    public Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(this::take, dtype, shape);
    }

    private synchronized MemorySegment take(long bytes, long alignment) {
        MemoryPool.check(bytes, alignment);
        checkOpen();
        MemorySegment segment = place(bytes, alignment);
        if (pool.trace != null) {
            request = traced.isEmpty() ? pool.trace.request() : request;
            traced.add(pool.trace.take(domain, bytes, alignment, request));
        }
        return segment;
    }

    private void endTrace() {
        if (pool.trace != null && !traced.isEmpty()) {
            pool.trace.end(request, traced);
            traced.clear();
        }
    }

    private MemorySegment place(long bytes, long alignment) {
        long start = up(at, alignment);
        if (bytes <= end - start) {
            at = start + bytes;
            return segment(start, bytes);
        }
        Chunk chunk = newChunk(bytes, alignment);
        start = up(chunk.block.address, alignment);
        long left = chunk.block.address + chunk.block.bytes - (start + bytes);
        if (left > end - at) { // the next segments go where more is left
            at = start + bytes;
            end = at + left;
        }
        return segment(start, bytes);
    }

    private MemorySegment segment(long start, long bytes) {
        return hidden == null ? DeviceMemory.segment(start, bytes, lifetime) : hidden.asSlice(start, bytes);
    }

    /** What segments are sliced from where the host cannot reach the device's memory. */
    private @Nullable MemorySegment hide() {
        return pool.isHostMemory() ? null : DeviceMemory.hidden(lifetime, pool.device());
    }

    private Chunk newChunk(long bytes, long alignment) {
        long usual = heldBefore > held ? heldBefore - held : Math.clamp(held, SMALLEST_CHUNK, LARGEST_CHUNK);
        long aligned = Math.max(alignment, UNIT);
        Block block = null;
        if (usual > bytes) {
            try {
                block = heap.take(usual, aligned, true);
            } catch (GatunException e) {
                // there may be room for what is asked for
            }
        }
        Chunk chunk = block != null ? new Chunk(block, usual) : new Chunk(heap.take(bytes, aligned, false), bytes);
        chunk.block.owner = Block.ARENA;
        chunks.add(chunk);
        held += chunk.bytes;
        return chunk;
    }

    /**
     * Takes back all that was handed out, and keeps the memory for what comes. Any later use of the segments is an
     * {@link IllegalStateException}. If it took several chunks, the next round starts with one of their size; so the
     * arena holds what its largest round since then needed, until it is closed.
     *
     * @throws IllegalStateException if the arena is closed or a run uses a segment of it; nothing is changed then
     */
    public synchronized void reset() {
        checkOpen();
        lifetime.close();
        watch.end();
        endTrace();
        at = 0;
        end = 0;
        if (chunks.size() == 1) {
            Block block = chunks.getFirst().block;
            at = block.address;
            end = block.address + block.bytes;
        } else {
            heldBefore = held;
            held = 0;
            pool.giveBack(chunks);
        }
        lifetime = Arena.ofShared();
        hidden = hide();
        watch = watch(pool, lifetime, chunks);
    }

    /**
     * Returns the scope of the segments that are handed out now.
     *
     * @return the scope, another one after each {@link #reset}
     */
    @Override
    public synchronized MemorySegment.Scope scope() {
        return lifetime.scope();
    }

    /**
     * Gives the memory back to the pool, and makes any later use of the segments an {@link IllegalStateException}.
     *
     * @throws IllegalStateException if the arena is closed already or a run uses a segment of it; nothing is changed
     *     then
     */
    @Override
    public synchronized void close() {
        lifetime.close();
        endTrace();
        pool.arenaClosed(chunks);
        watch.end();
    }

    private static long up(long value, long alignment) {
        long unit = Math.max(alignment, UNIT);
        return (value + unit - 1) & -unit;
    }

    private void checkOpen() {
        if (!lifetime.scope().isAlive()) {
            throw new IllegalStateException("the arena is closed");
        }
    }
}
