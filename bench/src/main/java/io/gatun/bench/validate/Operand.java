package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Stream;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.Bf16;
import io.gatun.bench.reference.F16;
import io.gatun.bench.reference.F8;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A tensor in native memory of its own, between two guard zones, and a guard page beyond each of them. Memory starts
 * out as NaN of a pattern that no arithmetic makes, or as integers that are no index, so gaps between rows, rows beyond
 * a run's own and the guard zones poison whatever reads them, and show who writes them.
 *
 * <p>For a device with memory of its own there is a copy in that memory, guard zones included: {@link #upload} and
 * {@link #download} keep the two alike.
 */
final class Operand {
    static final int POISON_F32 = 0x7fe5dead;
    static final short POISON_BF16 = 0x7fe5;
    static final short POISON_F16 = 0x7fb5;
    static final byte POISON_8 = (byte) 0x80; // -128: symmetric quantization makes no such value
    private static final long GUARD_BYTES = 256;

    /** Where in its pages an operand lies. */
    enum Placement {
        /** Behind a guard zone, on a boundary of 64 bytes. */
        ALIGNED,
        /** Behind a guard zone, aligned to its elements alone. */
        UNALIGNED,
        /** The first element is the first of the pages. */
        AT_START,
        /** The last element is the last of the pages. */
        AT_END
    }

    private final String name;
    private final DType dtype;
    private final long[] shape;
    private final long[] strides;
    private final MemorySegment memory;
    private final @Nullable MemorySegment onDevice;
    private final long base;

    private Operand(String name, DType dtype, long[] shape, long[] strides, MemorySegment memory,
            @Nullable MemorySegment onDevice, long base) {
        this.name = name;
        this.dtype = dtype;
        this.shape = shape;
        this.strides = strides;
        this.memory = memory;
        this.onDevice = onDevice;
        this.base = base;
    }

    /**
     * A poisoned operand.
     *
     * @param device hands out memory of a device that has its own, null when it computes on the host's
     */
    static Operand allocate(GuardedMemory guarded, @Nullable SegmentAllocator device, String name, DType dtype,
            long[] shape, long[] strides, Placement placement) {
        long bytes = span(shape, strides) * dtype.bytes();
        boolean zones = placement == Placement.ALIGNED || placement == Placement.UNALIGNED;
        MemorySegment memory = guarded.allocate(zones ? bytes + 2 * GUARD_BYTES : bytes);
        long start = switch (placement) {
            case ALIGNED -> GUARD_BYTES;
            case UNALIGNED -> GUARD_BYTES + 3L * dtype.bytes();
            case AT_START -> 0;
            case AT_END -> memory.byteSize() - bytes;
        };
        MemorySegment copy = device == null ? null : device.allocate(memory.byteSize(), 64);
        Operand operand = new Operand(name, dtype, shape, strides, memory, copy, start / dtype.bytes());
        operand.flood(poison(dtype));
        return operand;
    }

    /** A poisoned operand without gaps, in the host's memory. */
    static Operand dense(Arena arena, String name, DType dtype, long... shape) {
        return allocate(new GuardedMemory(arena), null, name, dtype, shape, rowMajor(shape), Placement.ALIGNED);
    }

    /** Another operand in the same memory, {@code offset} elements further. */
    Operand view(String viewName, long offset, long[] viewShape, long[] viewStrides) {
        return new Operand(viewName, dtype, viewShape, viewStrides, memory, onDevice, base + offset);
    }

    /** Copies everything to the device that has memory of its own. */
    void upload(Stream stream) {
        if (onDevice != null) {
            stream.copyToDevice(memory, onDevice);
        }
    }

    /** Copies everything back. */
    void download(Stream stream) {
        if (onDevice != null) {
            stream.copyToHost(onDevice, memory);
        }
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
        return tensor(onDevice == null ? memory : onDevice, run);
    }

    /** The whole tensor in the host's memory, wherever the device computes. */
    Tensor hostTensor() {
        return tensor(memory, shape);
    }

    private Tensor tensor(MemorySegment whole, long... run) {
        MemorySegment data = whole.asSlice(base * dtype.bytes(), span(run, strides) * dtype.bytes());
        return Tensor.of(data, TensorSpec.of(dtype, run).withStrides(strides));
    }

    /** The addresses of its elements, to tell what a crash touched. */
    Region region() {
        long start = memory.address() + base * dtype.bytes();
        return new Region(name, start, start + span(shape, strides) * dtype.bytes());
    }

    /** The addresses, from {@code start} to before {@code end}, that an operand takes up in the host's memory. */
    record Region(String name, long start, long end) {}

    long[] shape() {
        return shape;
    }

    /** Makes the whole memory NaN of the common pattern, if it has NaN: what surrounds an input. */
    void spoil() {
        switch (dtype) {
            case F32 -> flood(Float.floatToIntBits(Float.NaN));
            case BF16 -> flood(Bf16.bits(Float.NaN));
            case F16 -> flood(F16.bits(Float.NaN));
            default -> { }
        }
    }

    /** Fills the whole memory, which is whole pages, with elements of these bits. */
    private void flood(long bits) {
        int width = Math.toIntExact(8 * dtype.bytes());
        long pattern = width == 64 ? bits : bits & (1L << width) - 1;
        for (int filled = width; filled < 64; filled *= 2) {
            pattern |= pattern << filled;
        }
        memory.set(ValueLayout.JAVA_LONG, 0, pattern);
        for (long done = Long.BYTES; done < memory.byteSize(); done *= 2) {
            MemorySegment.copy(memory, 0, memory, done, Math.min(done, memory.byteSize() - done));
        }
    }

    /** Writes the leading {@code run} part, from row-major values. */
    void fill(float[] values, long... run) {
        int length = Math.toIntExact(run[run.length - 1]);
        if (strides[run.length - 1] != 1 || dtype.bytes() == 1) {
            forEach(run, (index, element) -> set(element, values[index]));
        } else if (dtype == DType.F32) {
            forEachRow(run, (index, element) -> MemorySegment.copy(values, index, memory, ValueLayout.JAVA_FLOAT,
                    element * Float.BYTES, length));
        } else {
            short[] row = new short[length];
            forEachRow(run, (index, element) -> {
                for (int j = 0; j < length; j++) {
                    row[j] = dtype == DType.BF16 ? Bf16.bits(values[index + j]) : F16.bits(values[index + j]);
                }
                MemorySegment.copy(row, 0, memory, ValueLayout.JAVA_SHORT, element * Short.BYTES, length);
            });
        }
    }

    /** Writes all of an S64 operand without gaps. */
    void fill(long[] values) {
        for (int i = 0; i < values.length; i++) {
            memory.setAtIndex(ValueLayout.JAVA_LONG, base + i, values[i]);
        }
    }

    /** Writes all of an S32 operand without gaps. */
    void fill(int[] values) {
        for (int i = 0; i < values.length; i++) {
            memory.setAtIndex(ValueLayout.JAVA_INT, base + i, values[i]);
        }
    }

    /** Writes all of an operand of one byte each without gaps. */
    void fill(byte[] values) {
        for (int i = 0; i < values.length; i++) {
            memory.setAtIndex(ValueLayout.JAVA_BYTE, base + i, values[i]);
        }
    }

    /** The bytes of the whole memory, guard zones included. */
    byte[] snapshot() {
        return memory.toArray(ValueLayout.JAVA_BYTE);
    }

    /** Puts everything back. */
    void restore(byte[] snapshot) {
        MemorySegment.copy(MemorySegment.ofArray(snapshot), 0, memory, 0, snapshot.length);
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

    /** The same, but of what lies before and behind the elements of the shape. */
    String differenceOutside(byte[] snapshot) {
        byte[] inside = snapshot.clone();
        long first = base * dtype.bytes();
        long bytes = span(shape, strides) * dtype.bytes();
        MemorySegment.copy(memory, first, MemorySegment.ofArray(inside), first, bytes);
        return difference(inside);
    }

    /** Puts an element of a snapshot back. */
    void restore(long element, byte[] snapshot) {
        long bytes = dtype.bytes();
        MemorySegment.copy(MemorySegment.ofArray(snapshot), element * bytes, memory, element * bytes, bytes);
    }

    double get(long element) {
        return switch (dtype) {
            case F32 -> memory.getAtIndex(ValueLayout.JAVA_FLOAT, element);
            case BF16 -> Bf16.value(memory.getAtIndex(ValueLayout.JAVA_SHORT, element));
            case F16 -> F16.value(memory.getAtIndex(ValueLayout.JAVA_SHORT, element));
            case S8 -> memory.getAtIndex(ValueLayout.JAVA_BYTE, element);
            case S32 -> memory.getAtIndex(ValueLayout.JAVA_INT, element);
            case S64 -> memory.getAtIndex(ValueLayout.JAVA_LONG, element);
            case U8 -> Byte.toUnsignedInt(memory.getAtIndex(ValueLayout.JAVA_BYTE, element));
            case F8E4M3, F8E5M2 -> F8.value(dtype, memory.getAtIndex(ValueLayout.JAVA_BYTE, element));
        };
    }

    /** Writes a value, rounded to the type; S8 and U8 take integers, and poison for NaN. */
    void set(long element, float value) {
        switch (dtype) {
            case F32 -> memory.setAtIndex(ValueLayout.JAVA_FLOAT, element, value);
            case BF16 -> memory.setAtIndex(ValueLayout.JAVA_SHORT, element, Bf16.bits(value));
            case F16 -> memory.setAtIndex(ValueLayout.JAVA_SHORT, element, F16.bits(value));
            case S8, U8 ->
                memory.setAtIndex(ValueLayout.JAVA_BYTE, element, Float.isNaN(value) ? POISON_8 : (byte) (int) value);
            case F8E4M3, F8E5M2 -> memory.setAtIndex(ValueLayout.JAVA_BYTE, element, F8.bits(dtype, value));
            case S32, S64 -> throw new IllegalArgumentException("a " + dtype + " is not written as a number");
        }
    }

    boolean isPoison(long element) {
        long bits = switch (dtype) {
            case F32, S32 -> memory.getAtIndex(ValueLayout.JAVA_INT, element);
            case BF16, F16 -> memory.getAtIndex(ValueLayout.JAVA_SHORT, element);
            case S8, U8, F8E4M3, F8E5M2 -> memory.getAtIndex(ValueLayout.JAVA_BYTE, element);
            case S64 -> memory.getAtIndex(ValueLayout.JAVA_LONG, element);
        };
        return bits == poison(dtype);
    }

    void poison(long element) {
        long bits = poison(dtype);
        switch (dtype) {
            case F32, S32 -> memory.setAtIndex(ValueLayout.JAVA_INT, element, (int) bits);
            case BF16, F16 -> memory.setAtIndex(ValueLayout.JAVA_SHORT, element, (short) bits);
            case S8, U8, F8E4M3, F8E5M2 -> memory.setAtIndex(ValueLayout.JAVA_BYTE, element, (byte) bits);
            case S64 -> memory.setAtIndex(ValueLayout.JAVA_LONG, element, bits);
        }
    }

    private static long poison(DType dtype) {
        return switch (dtype) {
            case F32, S32 -> POISON_F32;
            case BF16 -> POISON_BF16;
            case F16 -> POISON_F16;
            case S8, U8, F8E4M3, F8E5M2 -> POISON_8;
            case S64 -> Long.MIN_VALUE;
        };
    }

    /** Visits the leading {@code run} part in row-major order: the index in that order, and the element in memory. */
    void forEach(long[] run, Visitor visitor) {
        long inner = run[run.length - 1];
        long stride = strides[run.length - 1];
        forEachRow(run, (index, element) -> {
            for (int j = 0; j < inner; j++) {
                visitor.visit(index + j, element + j * stride);
            }
        });
    }

    /** The same, of the first elements of rows alone. */
    private void forEachRow(long[] run, Visitor visitor) {
        for (long size : run) {
            if (size == 0) {
                return;
            }
        }
        int rank = run.length;
        long[] index = new long[rank];
        int count = 0;
        while (true) {
            long element = base;
            for (int d = 0; d < rank - 1; d++) {
                element += index[d] * strides[d];
            }
            visitor.visit(count, element);
            count += Math.toIntExact(run[rank - 1]);
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
