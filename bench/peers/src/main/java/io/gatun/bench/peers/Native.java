package io.gatun.bench.peers;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.ShortPointer;

/** Native memory as each library's Java API wants it, and what those APIs lack. */
final class Native {
    private Native() {}

    /** A pointer to memory that something else owns. */
    private static final class Address extends Pointer {
        Address(MemorySegment memory) {
            address = memory.address();
        }
    }

    static Pointer pointer(MemorySegment memory) {
        return new Address(memory);
    }

    static FloatPointer floats(MemorySegment memory) {
        return new FloatPointer(new Address(memory));
    }

    static ShortPointer shorts(MemorySegment memory) {
        return new ShortPointer(new Address(memory));
    }

    static IntPointer ints(MemorySegment memory) {
        return new IntPointer(new Address(memory));
    }

    static BytePointer bytes(MemorySegment memory) {
        return new BytePointer(new Address(memory));
    }

    static ByteBuffer buffer(MemorySegment memory) {
        return memory.asByteBuffer().order(ByteOrder.nativeOrder());
    }

    static float[] toFloats(MemorySegment memory) {
        return memory.toArray(ValueLayout.JAVA_FLOAT);
    }

    /** BF16 widened to FP32. */
    static float[] widened(MemorySegment memory) {
        short[] bits = memory.toArray(ValueLayout.JAVA_SHORT);
        float[] values = new float[bits.length];
        for (int i = 0; i < bits.length; i++) {
            values[i] = Float.intBitsToFloat(bits[i] << 16);
        }
        return values;
    }

    /** A library's version: its jar's, such as 2.10.0-1.5.13, without that of what makes the jars. */
    static String version(Class<?> part) {
        String version = part.getPackage().getImplementationVersion();
        return version == null ? "of unknown version" : version.replaceFirst("-.*", "");
    }

    /** Calls {@code void function(int)} of a library that is loaded already. */
    static void call(String library, String function, int argument) {
        try {
            SymbolLookup symbols = SymbolLookup.libraryLookup(library, Arena.global());
            Linker.nativeLinker()
                    .downcallHandle(symbols.findOrThrow(function), FunctionDescriptor.ofVoid(ValueLayout.JAVA_INT))
                    .invokeExact(argument);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable e) {
            throw new IllegalStateException(e);
        }
    }
}
