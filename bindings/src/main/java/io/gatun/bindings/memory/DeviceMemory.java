package io.gatun.bindings.memory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Memory that a device gave out, as segments with a lifetime. */
public final class DeviceMemory {
    private DeviceMemory() {}

    /**
     * Returns the {@code bytes} bytes at {@code address} as a segment that lives as long as {@code arena}. Closing the
     * arena does not free the memory.
     *
     * @param address the address of memory that was allocated by a device
     * @param bytes the size of the memory, at least 0
     * @param arena the lifetime of the segment
     * @return the segment
     */
    public static MemorySegment segment(long address, long bytes, Arena arena) {
        return MemorySegment.ofAddress(address).reinterpret(bytes, arena, null);
    }

    /**
     * The same, and runs something when the arena is closed, which stays reachable from the segment until then.
     *
     * @param address the address of memory that was allocated by a device
     * @param bytes the size of the memory, at least 0
     * @param arena the lifetime of the segment
     * @param closed what to run
     * @return the segment
     */
    public static MemorySegment segment(long address, long bytes, Arena arena, Runnable closed) {
        return MemorySegment.ofAddress(address).reinterpret(bytes, arena, _ -> closed.run());
    }
}
