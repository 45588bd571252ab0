package io.gatun.bench.validate;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.StructLayout;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/**
 * What this process holds of the system's memory.
 *
 * @param allocated bytes that the C library's allocator has handed out
 * @param mapped bytes of address space
 */
record ProcessMemory(long allocated, long mapped) {
    // struct mallinfo2 of the GNU C library: ten of size_t, of which these two count what is in use.
    private static final int HELD_BY_MMAP = 4;
    private static final int IN_USE = 7;
    private static final StructLayout MALLINFO2 =
            MemoryLayout.structLayout(MemoryLayout.sequenceLayout(10, ValueLayout.JAVA_LONG));
    private static final MethodHandle READ =
            GuardedMemory.function("mallinfo2", FunctionDescriptor.of(MALLINFO2));
    private static final Path SIZES = Path.of("/proc/self/statm");
    private static final Path THREADS = Path.of("/proc/self/task");
    private static final String COMPILER = "CompilerThre"; // all that the system keeps of these threads' names

    static ProcessMemory now() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment info = (MemorySegment) READ.invokeExact((SegmentAllocator) arena);
            long allocated = info.getAtIndex(ValueLayout.JAVA_LONG, HELD_BY_MMAP)
                    + info.getAtIndex(ValueLayout.JAVA_LONG, IN_USE);
            String pages = Files.readString(SIZES).split(" ", 2)[0];
            return new ProcessMemory(allocated, Long.parseLong(pages) * GuardedMemory.PAGE);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (Throwable e) {
            throw GuardedMemory.rethrow(e);
        }
    }

    /**
     * Nanoseconds that the compilers of the virtual machine have run, or another number at every call while one runs. (Its
     * own count grows only when one is done, and the system's, when one that runs is interrupted.)
     */
    static long compilersRan() {
        long sum = 0;
        try (DirectoryStream<Path> threads = Files.newDirectoryStream(THREADS)) {
            for (Path thread : threads) {
                String stat = Files.readString(thread.resolve("stat"));
                if (stat.contains(COMPILER)) {
                    if (stat.contains(") R ")) {
                        return -System.nanoTime();
                    }
                    sum += Long.parseLong(Files.readString(thread.resolve("schedstat")).split(" ", 2)[0]);
                }
            }
        } catch (NoSuchFileException e) {
            return -System.nanoTime(); // a thread has ended meanwhile
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return sum;
    }
}
