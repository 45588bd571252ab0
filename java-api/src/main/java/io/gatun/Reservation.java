package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/**
 * The memory that a pool has from its device. It knows addresses alone, so that a forgotten pool can be found and its
 * memory given back. Thread-safe.
 */
final class Reservation {
    /** The host memory of all pools. */
    private static final AtomicLong HOST_BYTES = new AtomicLong();

    private final Device device;
    private final boolean staging;
    private final Map<Long, Long> bytesByAddress = new HashMap<>();
    private long reserved;
    private long peak;
    private boolean closed;

    /** With {@code staging} its memory is the host's, which the device reaches by itself. */
    Reservation(Device device, boolean staging) {
        this.device = device;
        this.staging = staging;
        device.openPools.incrementAndGet();
    }

    /** Returns whether Java can read and write the memory. */
    boolean isHostMemory() {
        return staging || device.info().hostMemory();
    }

    /** Returns whether pages can go back to the system one by one. */
    boolean hasPages() {
        return !staging && device.info().hostMemory();
    }

    /**
     * Finds out whether there is any memory to take.
     *
     * @throws UnsupportedOperationException if the device has none that is the host's
     */
    void probe() {
        release(reserve(Slab.GRANULE, 0, 0));
    }

    /**
     * Takes memory from the device, aligned to {@link Slab#ALIGNMENT}.
     *
     * @param at where pages begin that are given back at once, as {@link #discard} does
     * @param absent their bytes; 0 unless {@link #hasPages}
     * @throws GatunException if the device, or the container that this process is in, has not so much
     * @throws IllegalStateException if the device is closed, or this
     */
    synchronized long reserve(long bytes, long at, long absent) {
        if (closed) {
            throw new IllegalStateException("the memory pool on " + device + " is closed");
        }
        if (isHostMemory()) {
            checkContainer(bytes - absent, ContainerMemory.limit());
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment memory = arena.allocate(ValueLayout.ADDRESS);
            int status = staging
                    ? gatun_h.gtn_host_memory_alloc(device.handle, bytes, Slab.ALIGNMENT, memory, message)
                    : gatun_h.gtn_memory_alloc(device.handle, bytes, Slab.ALIGNMENT, memory, message);
            Status.check(status, message, device.owned);
            long address = memory.get(ValueLayout.ADDRESS, 0).address();
            if (absent > 0) {
                DeviceMemory.discard(address + at, absent);
            }
            bytesByAddress.put(address, bytes - absent);
            count(bytes - absent);
            return address;
        }
    }

    /**
     * Counts what will be touched in the end: what all pools have and the heap of the JVM has. What the system would
     * not grant must fail here, because it grants it now and kills the process when the memory is touched.
     */
    static void checkContainer(long bytes, long limit) {
        long pools = HOST_BYTES.get();
        long heap = Runtime.getRuntime().totalMemory();
        if (bytes > limit - pools - heap) {
            throw new GatunException("the container allows " + limit + " bytes (memory.max), of which memory"
                    + " pools have " + pools + " and the Java heap " + heap + ": no room for " + bytes + " more");
        }
    }

    /** Returns the most that the pool ever had. */
    synchronized long peak() {
        return peak;
    }

    private void count(long bytes) {
        reserved += bytes;
        peak = Math.max(peak, reserved);
        if (isHostMemory()) {
            HOST_BYTES.addAndGet(bytes);
        }
    }

    /**
     * Gives pages inside of memory that was taken back to the system, which finds new ones for what is used again.
     *
     * @return whether it did; a device may have memory that this cannot be done with
     */
    synchronized boolean discard(long address, long at, long bytes) {
        if (closed || !hasPages() || !DeviceMemory.discard(at, bytes)) {
            return false;
        }
        bytesByAddress.merge(address, -bytes, Long::sum);
        count(-bytes);
        return true;
    }

    /**
     * Counts pages again that were given back and will be used.
     *
     * @throws GatunException if the container has not so much
     */
    synchronized void restore(long address, long at, long bytes) {
        if (!closed) {
            checkContainer(bytes, ContainerMemory.limit());
            DeviceMemory.restore(at, bytes);
            bytesByAddress.merge(address, bytes, Long::sum);
            count(bytes);
        }
    }

    synchronized void release(long address) {
        Long bytes = bytesByAddress.remove(address);
        if (bytes != null) {
            free(address, bytes);
        }
    }

    /** Gives everything back, and the device is free of this pool. */
    synchronized void close() {
        if (!closed) {
            closed = true;
            bytesByAddress.forEach(this::free);
            bytesByAddress.clear();
            device.openPools.decrementAndGet();
        }
    }

    private void free(long address, long bytes) {
        count(-bytes);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment memory = MemorySegment.ofAddress(address);
            int status = staging
                    ? gatun_h.gtn_host_memory_free(device.handle, memory, message)
                    : gatun_h.gtn_memory_free(device.handle, memory, message);
            Status.check(status, message, device.owned);
        }
    }
}
