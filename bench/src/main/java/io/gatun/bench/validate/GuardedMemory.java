package io.gatun.bench.validate;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.ArrayDeque;
import java.util.Deque;

/**
 * Memory between two pages that nobody may touch: whoever reads or writes beyond its ends ends the process, and the
 * parent process says where. All that one object hands out comes and goes together, since taking pages away interrupts
 * every processor. Nobody may touch what has been given back; a few chunks of it are kept, with their pages, for the
 * next.
 */
@SuppressWarnings("restricted") // mmap and mprotect are what this class is for
final class GuardedMemory {
    static final long PAGE = 4096;
    private static final int NONE = 0;
    private static final int READ_WRITE = 1 | 2;
    private static final int PRIVATE_ANONYMOUS = 0x02 | 0x20;

    private static final MethodHandle MMAP = function("mmap", FunctionDescriptor.of(ValueLayout.ADDRESS,
            ValueLayout.ADDRESS, ValueLayout.JAVA_LONG, ValueLayout.JAVA_INT, ValueLayout.JAVA_INT,
            ValueLayout.JAVA_INT, ValueLayout.JAVA_LONG));
    private static final MethodHandle MPROTECT = function("mprotect", FunctionDescriptor.of(ValueLayout.JAVA_INT,
            ValueLayout.ADDRESS, ValueLayout.JAVA_LONG, ValueLayout.JAVA_INT));
    private static final MethodHandle MUNMAP = function("munmap",
            FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.ADDRESS, ValueLayout.JAVA_LONG));

    /** Addresses that are taken at a time: as long as nobody may touch them they cost nothing. */
    private static final long CHUNK = 64L << 20;

    private static final int MOST_KEPT = 4;
    private static final Deque<MemorySegment> KEPT = new ArrayDeque<>(MOST_KEPT);

    private final Arena arena;
    private MemorySegment chunk = MemorySegment.NULL;
    private long used;

    /** Hands out memory until {@code arena} is closed. */
    GuardedMemory(Arena arena) {
        this.arena = arena;
    }

    /** Whole pages, at least {@code bytes}, of anything, between two guard pages of their own. */
    MemorySegment allocate(long bytes) {
        long size = (Math.max(bytes, 1) + PAGE - 1) / PAGE * PAGE;
        if (chunk.byteSize() - used < size + 2 * PAGE) {
            chunk = map(Math.max(CHUNK, size + 2 * PAGE));
            used = 0;
        }
        MemorySegment middle = chunk.asSlice(used + PAGE, size);
        used += size + 2 * PAGE;
        if (!protect(middle, READ_WRITE)) {
            throw new OutOfMemoryError("the system has no " + size + " bytes to give");
        }
        return middle;
    }

    private MemorySegment map(long bytes) {
        MemorySegment block = null;
        if (bytes == CHUNK) {
            synchronized (KEPT) {
                block = KEPT.pollFirst();
            }
        }
        try {
            if (block == null) {
                block = (MemorySegment) MMAP.invokeExact(MemorySegment.NULL, bytes, NONE, PRIVATE_ANONYMOUS, -1, 0L);
            }
            if (block.address() == -1) {
                throw new OutOfMemoryError("the system has no " + bytes + " bytes to give");
            }
            return block.reinterpret(bytes, arena, GuardedMemory::giveBack);
        } catch (Throwable e) {
            throw rethrow(e);
        }
    }

    private static void giveBack(MemorySegment block) {
        if (block.byteSize() == CHUNK && protect(block, NONE)) {
            synchronized (KEPT) {
                if (KEPT.size() < MOST_KEPT) {
                    KEPT.addFirst(MemorySegment.ofAddress(block.address()));
                    return;
                }
            }
        }
        try {
            int _ = (int) MUNMAP.invokeExact(block, block.byteSize());
        } catch (Throwable e) {
            throw rethrow(e);
        }
    }

    private static boolean protect(MemorySegment pages, int access) {
        try {
            return (int) MPROTECT.invokeExact(pages, pages.byteSize(), access) == 0;
        } catch (Throwable e) {
            throw rethrow(e);
        }
    }

    static MethodHandle function(String name, FunctionDescriptor type) {
        Linker linker = Linker.nativeLinker();
        return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), type);
    }

    static RuntimeException rethrow(Throwable e) {
        switch (e) {
            case RuntimeException unchecked -> throw unchecked;
            case Error error -> throw error;
            default -> throw new IllegalStateException(e);
        }
    }
}
