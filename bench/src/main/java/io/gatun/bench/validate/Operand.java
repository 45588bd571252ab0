package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.Bf16;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/**
 * A tensor in native memory of its own, between two guard zones. Memory starts out as NaN of a pattern that no
 * arithmetic makes, so gaps between rows, rows beyond a run's own and the guards poison whatever reads them, and show
 * who writes them.
 */
final class Operand {
    static final int POISON_F32 = 0x7fe5dead;
    static final short POISON_BF16 = 0x7fe5;
    private static final int GUARD = 64;

    private final String name;
    private final DType dtype;
    private final long[] shape;
    private final long[] strides;
    private final MemorySegment memory;
    private final long base;

    private Operand(String name, DType dtype, long[] shape, long[] strides, MemorySegment memory, long base) {
        this.name = name;
        this.dtype = dtype;
        this.shape = shape;
        this.strides = strides;
        this.memory = memory;
        this.base = base;
    }

    /**
     * A poisoned operand.
     *
     * @param aligned whether the first element lies on a 64-byte boundary; otherwise it is aligned to its type alone
     */
    static Operand allocate(Arena arena, String name, DType dtype, long[] shape, long[] strides, boolean aligned) {
        long base = aligned ? GUARD : GUARD + 3;
        long elements = base + span(shape, strides) + GUARD;
        MemorySegment memory = arena.allocate(elements * dtype.bytes(), 64);
        Operand operand = new Operand(name, dtype, shape, strides, memory, base);
        for (long i = 0; i < elements; i++) {
            operand.poison(i);
        }
        return operand;
    }

    /** A poisoned operand without gaps. */
    static Operand dense(Arena arena, String name, DType dtype, long... shape) {
        return allocate(arena, name, dtype, shape, rowMajor(shape), true);
    }

    /** Another operand in the same memory, {@code offset} elements further. */
    Operand view(String viewName, long offset, long[] viewShape, long[] viewStrides) {
        return new Operand(viewName, dtype, viewShape, viewStrides, memory, base + offset);
    }

    static long[] rowMajor(long... shape) {
        long[] strides = new long[shape.length];
        long stride = 1;
        for (int d = shape.length - 1; d >= 0; d--) {
            strides[d] = stride;
            stride *= Math.max(1, shape[d]);
        }
        return strides;
    }

    private static long span(long[] shape, long[] strides) {
        long last = 0;
        for (int d = 0; d < shape.length; d++) {
            if (shape[d] == 0) {
                return 0;
            }
            last += (shape[d] - 1) * strides[d];
        }
        return last + 1;
    }

    String name() {
        return name;
    }

    DType dtype() {
        return dtype;
    }

    TensorSpec spec() {
        return TensorSpec.of(dtype, shape).withStrides(strides);
    }

    Tensor tensor() {
        return tensor(shape);
    }

    /** The tensor of the leading {@code run} part of the shape, with the strides of the whole. */
    Tensor tensor(long... run) {
        MemorySegment data = memory.asSlice(base * dtype.bytes(), span(run, strides) * dtype.bytes());
        return Tensor.of(data, TensorSpec.of(dtype, run).withStrides(strides));
    }

    long[] shape() {
        return shape;
    }

    /** Makes the whole memory NaN of the common pattern: what surrounds an input. */
    void spoil() {
        for (long element = 0; element < memory.byteSize() / dtype.bytes(); element++) {
            set(element, Float.NaN);
        }
    }

    /** Writes the leading {@code run} part, from row-major values. */
    void fill(float[] values, long... run) {
        forEach(run, (index, element) -> set(element, values[index]));
    }

    /** Writes all of an S64 operand. */
    void fill(long[] values) {
        for (int i = 0; i < values.length; i++) {
            memory.setAtIndex(ValueLayout.JAVA_LONG, base + i, values[i]);
        }
    }

    /** The bytes of the whole memory, guards included. */
    byte[] snapshot() {
        return memory.toArray(ValueLayout.JAVA_BYTE);
    }

    /** The first element at which the memory differs from a snapshot, or -1. */
    long differs(byte[] snapshot) {
        long at = memory.mismatch(MemorySegment.ofArray(snapshot));
        return at < 0 ? -1 : at / dtype.bytes();
    }

    /** How the memory differs from a snapshot, as a sentence, or "" when it does not. */
    String difference(byte[] snapshot) {
        long element = differs(snapshot);
        return element < 0
                ? ""
                : name + " was written " + (element - base) + " elements from its start, outside what is to be written";
    }

    /** Puts an element of a snapshot back. */
    void restore(long element, byte[] snapshot) {
        long bytes = dtype.bytes();
        MemorySegment.copy(MemorySegment.ofArray(snapshot), element * bytes, memory, element * bytes, bytes);
    }

    float get(long element) {
        return dtype == DType.BF16
                ? Bf16.value(memory.getAtIndex(ValueLayout.JAVA_SHORT, element))
                : memory.getAtIndex(ValueLayout.JAVA_FLOAT, element);
    }

    void set(long element, float value) {
        if (dtype == DType.BF16) {
            memory.setAtIndex(ValueLayout.JAVA_SHORT, element, Bf16.bits(value));
        } else {
            memory.setAtIndex(ValueLayout.JAVA_FLOAT, element, value);
        }
    }

    boolean isPoison(long element) {
        return dtype == DType.BF16
                ? memory.getAtIndex(ValueLayout.JAVA_SHORT, element) == POISON_BF16
                : memory.getAtIndex(ValueLayout.JAVA_INT, element) == POISON_F32;
    }

    private void poison(long element) {
        switch (dtype) {
            case BF16 -> memory.setAtIndex(ValueLayout.JAVA_SHORT, element, POISON_BF16);
            case F32 -> memory.setAtIndex(ValueLayout.JAVA_INT, element, POISON_F32);
            case S64 -> memory.setAtIndex(ValueLayout.JAVA_LONG, element, Long.MIN_VALUE);
            default -> throw new IllegalArgumentException("no operand has the type " + dtype);
        }
    }

    /** Visits the leading {@code run} part in row-major order: the index in that order, and the element in memory. */
    void forEach(long[] run, Visitor visitor) {
        for (long size : run) {
            if (size == 0) {
                return;
            }
        }
        int rank = run.length;
        long[] index = new long[rank];
        long inner = run[rank - 1];
        int count = 0;
        while (true) {
            long element = base;
            for (int d = 0; d < rank - 1; d++) {
                element += index[d] * strides[d];
            }
            for (long j = 0; j < inner; j++) {
                visitor.visit(count++, element + j * strides[rank - 1]);
            }
            int d = rank - 2;
            while (d >= 0 && ++index[d] == run[d]) {
                index[d--] = 0;
            }
            if (d < 0) {
                return;
            }
        }
    }

    /** Where a row-major index lies, as text: [3, 17]. */
    static String position(long[] run, long index) {
        long[] position = new long[run.length];
        long rest = index;
        for (int d = run.length - 1; d >= 0; d--) {
            position[d] = rest % run[d];
            rest /= run[d];
        }
        return Arrays.toString(position);
    }

    @FunctionalInterface
    interface Visitor {
        void visit(int index, long element);
    }
}
