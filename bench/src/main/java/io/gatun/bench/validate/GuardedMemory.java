package io.gatun.bench.validate;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;

/**
 * Memory between two pages that nobody may touch: whoever reads or writes beyond its ends ends the process, and the
 * parent process says where.
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

    private GuardedMemory() {}

    /** Whole pages, at least {@code bytes}, of zeros, between two guard pages, until {@code arena} is closed. */
    static MemorySegment allocate(Arena arena, long bytes) {
        long size = (Math.max(bytes, 1) + PAGE - 1) / PAGE * PAGE;
        long whole = size + 2 * PAGE;
        try {
            MemorySegment block = (MemorySegment) MMAP.invokeExact(MemorySegment.NULL, whole, NONE, PRIVATE_ANONYMOUS,
                    -1, 0L);
            if (block.address() == -1) {
                throw new OutOfMemoryError("the system has no " + whole + " bytes to give");
            }
            MemorySegment owned = block.reinterpret(whole, arena, GuardedMemory::unmap);
            MemorySegment middle = owned.asSlice(PAGE, size);
            if ((int) MPROTECT.invokeExact(middle, size, READ_WRITE) != 0) {
                throw new OutOfMemoryError("the system has no " + size + " bytes to give");
            }
            return middle;
        } catch (Throwable e) {
            throw rethrow(e);
        }
    }

    private static void unmap(MemorySegment block) {
        try {
            int _ = (int) MUNMAP.invokeExact(block, block.byteSize());
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
