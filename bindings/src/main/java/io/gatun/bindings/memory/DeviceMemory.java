package io.gatun.bindings.memory;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Collections;
import java.util.Map;
import java.util.WeakHashMap;
import org.jspecify.annotations.Nullable;

/**
 * Memory that a device gave out, as segments with a lifetime.
 *
 * <p>An address of memory that the host cannot reach would kill the process that reads it. What is handed out of such memory is
 * {@link #hidden}: segments of an arena that was closed before, so that all access to them throws, while they can be measured and
 * sliced as any. {@link #behind} gives what native calls take in their place.
 */
public final class DeviceMemory {
    /** What hidden segments stand for, by their scope: each of them keeps it, and with it the real lifetime, reachable. */
    private static final Map<MemorySegment.Scope, Behind> BEHIND = Collections.synchronizedMap(new WeakHashMap<>());

    /** All of the address space with the real lifetime, and whose memory it is. */
    private record Behind(MemorySegment all, Object owner) {}

    private static final int DONT_NEED = 4;
    private static final int HUGE_PAGES = 14;
    private static final int NO_HUGE_PAGES = 15;

    /** {@code int madvise(void *, size_t, int)}; null where the system is not Linux, whose numbers these are. */
    private static final @Nullable MethodHandle ADVISE = !System.getProperty("os.name").equals("Linux") ? null
            : Linker.nativeLinker().defaultLookup().find("madvise").map(address -> Linker.nativeLinker().downcallHandle(
                    address, FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG,
                            ValueLayout.JAVA_INT))).orElse(null);

    private DeviceMemory() {}

    /**
     * Gives pages of the host back to the system, while their addresses stay: their content is lost, and the first
     * access to each has the system find another one. The system makes no huge page of them meanwhile, which would have
     * it find them by itself.
     *
     * @param address of the first page, in memory that a device gave out and nobody uses
     * @param bytes a whole number of pages
     * @return whether the pages went back
     */
    public static boolean discard(long address, long bytes) {
        advise(address, bytes, NO_HUGE_PAGES); // fails where there are none
        return advise(address, bytes, DONT_NEED);
    }

    /**
     * Allows huge pages again where {@link #discard} was.
     *
     * @param address of the first page
     * @param bytes a whole number of pages
     */
    public static void restore(long address, long bytes) {
        advise(address, bytes, HUGE_PAGES);
    }

    private static boolean advise(long address, long bytes, int advice) {
        try {
            return ADVISE != null && (int) ADVISE.invokeExact(address, bytes, advice) == 0;
        } catch (Throwable e) {
            throw new AssertionError(e); // C throws nothing
        }
    }

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

    /**
     * Returns the whole address space as a segment that cannot be accessed, to slice the memory of a device from.
     *
     * @param arena the lifetime of what is behind the segment
     * @param owner what {@link #owner} gives for its slices
     * @return the segment
     */
    public static MemorySegment hidden(Arena arena, Object owner) {
        MemorySegment hidden;
        try (Arena closed = Arena.ofConfined()) {
            hidden = segment(0, Long.MAX_VALUE, closed);
        }
        BEHIND.put(hidden.scope(), new Behind(segment(0, Long.MAX_VALUE, arena), owner));
        return hidden;
    }

    /**
     * Returns what a segment stands for, for native calls alone.
     *
     * @param segment any segment
     * @return for a hidden one the same bytes with their real lifetime, else {@code segment}
     */
    public static MemorySegment behind(MemorySegment segment) {
        Behind behind = BEHIND.get(segment.scope());
        if (behind == null) {
            return segment;
        }
        MemorySegment real = behind.all.asSlice(segment.address(), segment.byteSize());
        return segment.isReadOnly() ? real.asReadOnly() : real;
    }

    /**
     * Returns whose memory a segment is.
     *
     * @param segment any segment
     * @return the owner of a hidden one, else null
     */
    public static @Nullable Object owner(MemorySegment segment) {
        Behind behind = BEHIND.get(segment.scope());
        return behind == null ? null : behind.owner;
    }
}
