package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A {@link TensorSpec} over off-heap memory of any arena. Nothing is copied, and closing the memory is its arena's
 * business: a tensor whose arena was closed gives an {@link IllegalStateException}, and one of another thread's
 * confined arena a {@link WrongThreadException}, when it is used.
 */
public final class Tensor {
    final TensorSpec spec;
    final MemorySegment memory; // what native calls take
    final @Nullable Device device; // whose memory it is, where the host cannot reach it
    private final MemorySegment visible; // what the application sees

    private Tensor(MemorySegment memory, MemorySegment visible, @Nullable Device device, TensorSpec spec) {
        this.memory = memory;
        this.visible = visible;
        this.device = device;
        this.spec = spec;
    }

    /**
     * Makes a tensor of the elements that {@code spec} describes, the first of them at the start of {@code memory}.
     *
     * @param memory native memory, aligned to the element, at least {@link TensorSpec#byteSpan()} bytes
     * @param spec type, shape and strides
     * @return the tensor
     * @throws IllegalArgumentException if {@code memory} is on the Java heap, too small or not aligned
     */
    public static Tensor of(MemorySegment memory, TensorSpec spec) {
        if (!memory.isNative()) {
            throw new IllegalArgumentException(
                    "memory: a segment on the Java heap, expected a native one (from an Arena, a"
                    + " MemoryPool or a mapped file), because the garbage collector moves what is on the heap");
        }
        if (memory.byteSize() < spec.byteSpan()) {
            throw new IllegalArgumentException(
                    "memory: " + memory.byteSize() + " bytes, expected at least " + spec.byteSpan() + " for " + spec);
        }
        if ((memory.address() & (spec.dtype().bytes() - 1)) != 0) {
            throw new IllegalArgumentException("memory: address 0x" + Long.toHexString(memory.address())
                    + ", expected a multiple of " + spec.dtype().bytes() + " for " + spec.dtype());
        }
        Device device = (Device) DeviceMemory.owner(memory);
        return new Tensor(device == null ? memory : DeviceMemory.behind(memory), memory, device, spec);
    }

    /**
     * Makes a dense row-major tensor at the start of {@code memory}.
     *
     * @param memory native memory, aligned to the element, large enough
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor
     * @throws IllegalArgumentException as in {@link #of(MemorySegment, TensorSpec)} and {@link TensorSpec#of}
     */
    public static Tensor of(MemorySegment memory, DType dtype, long... shape) {
        return of(memory, TensorSpec.of(dtype, shape));
    }

    /**
     * Makes a dense row-major tensor in memory of its own, aligned to 64 bytes. The elements are what the allocator
     * leaves there: zeros from an {@link java.lang.foreign.Arena}, anything from a {@link MemoryPool}.
     *
     * @param allocator gives native memory
     * @param dtype the type of the elements
     * @param shape the sizes
     * @return the tensor
     * @throws IllegalArgumentException as in {@link TensorSpec#of}, or if the allocator gives memory on the Java heap
     */
    public static Tensor allocate(SegmentAllocator allocator, DType dtype, long... shape) {
        TensorSpec spec = TensorSpec.of(dtype, shape);
        return of(allocator.allocate(spec.byteSpan(), 64), spec);
    }

    /**
     * Returns the type, shape and strides.
     *
     * @return the spec
     */
    public TensorSpec spec() {
        return spec;
    }

    /**
     * Returns the memory.
     *
     * @return the segment, whose start is the first element; access to memory of a device that the host cannot reach throws, as
     *     {@link MemoryPool} says
     */
    public MemorySegment memory() {
        return visible;
    }

    /**
     * Returns the size of a dimension.
     *
     * @param dim 0 to rank - 1
     * @return the size
     * @throws IndexOutOfBoundsException if there is no such dimension
     */
    public long size(int dim) {
        return spec.size(dim);
    }

    /**
     * Returns the type of the elements.
     *
     * @return the type
     */
    public DType dtype() {
        return spec.dtype();
    }

    /**
     * Returns the part of this tensor with the indices {@code from} to {@code to - 1} of a dimension.
     *
     * @param dim 0 to rank - 1
     * @param from the first index
     * @param to the index after the last
     * @return a tensor over the same memory, with the same strides
     * @throws IndexOutOfBoundsException if there is no such dimension or range
     */
    public Tensor slice(int dim, long from, long to) {
        TensorSpec part = spec.slice(dim, from, to);
        long offset = part.elements() == 0 ? 0 : from * spec.stride(dim) * spec.dtype().bytes();
        return with(offset, part);
    }

    /**
     * Returns this tensor with two dimensions exchanged.
     *
     * @param d0 a dimension
     * @param d1 another one
     * @return a tensor over the same memory
     * @throws IndexOutOfBoundsException if there is no such dimension
     */
    public Tensor transpose(int d0, int d1) {
        return new Tensor(memory, visible, device, spec.transpose(d0, d1));
    }

    private Tensor with(long offset, TensorSpec part) {
        MemorySegment slice = memory.asSlice(offset, part.byteSpan());
        return new Tensor(slice, device == null ? slice : visible.asSlice(offset, part.byteSpan()), device, part);
    }

    /**
     * Returns this tensor, which must be contiguous, with another shape of as many elements.
     *
     * @param shape the sizes
     * @return a tensor over the same memory
     * @throws IllegalArgumentException if this tensor is not contiguous or the number of elements differs
     */
    public Tensor reshape(long... shape) {
        TensorSpec other = TensorSpec.of(spec.dtype(), shape);
        if (!spec.isContiguous()) {
            throw new IllegalArgumentException("reshape of " + spec + ": expected a contiguous tensor");
        }
        if (other.elements() != spec.elements()) {
            throw new IllegalArgumentException("shape " + Arrays.toString(shape) + ": " + other.elements()
                    + " elements, expected the " + spec.elements() + " of " + spec);
        }
        return new Tensor(memory, visible, device, other);
    }

    /**
     * Returns an element as an FP32. 64-bit and 32-bit integers are rounded to the nearest.
     *
     * @param index one index for each dimension
     * @return the value
     * @throws IndexOutOfBoundsException if the indices are not as many as the rank, or one is outside its dimension
     * @throws UnsupportedOperationException if it is memory of a device that the host cannot reach
     */
    public float getFloat(long... index) {
        return get(offset(index));
    }

    /**
     * Sets an element from an FP32. BF16, F16, FP8 and integers are rounded to the nearest, ties to even; integers are
     * limited to the range of their type, and E4M3, which has no infinities, to 448. In E5M2 as in F16 what rounds to more
     * than the largest number, from 61440 and from 65520 on, becomes infinity.
     *
     * @param value the value
     * @param index one index for each dimension
     * @throws IndexOutOfBoundsException if the indices are not as many as the rank, or one is outside its dimension
     * @throws UnsupportedOperationException if it is memory of a device that the host cannot reach
     * @throws IllegalArgumentException if the value is NaN and the type an integer, or the memory is read-only
     */
    public void setFloat(float value, long... index) {
        set(offset(index), value);
    }

    /**
     * Sets all elements, in row-major order, with the conversions of {@link #setFloat}.
     *
     * @param values as many as there are elements
     * @return this tensor
     * @throws IllegalArgumentException if their number is wrong, or as in {@link #setFloat}
     */
    public Tensor copyFrom(float[] values) {
        checkCount(values.length);
        if (spec.dtype() == DType.F32 && spec.isContiguous()) {
            MemorySegment.copy(values, 0, memory, ValueLayout.JAVA_FLOAT, 0, values.length);
        } else {
            for (Walk walk = new Walk(); walk.next(); ) {
                set(walk.offset, values[walk.position()]);
            }
        }
        return this;
    }

    /**
     * Sets all elements of a tensor of {@link DType#S64} or {@link DType#S32}, in row-major order.
     *
     * @param values as many as there are elements
     * @return this tensor
     * @throws IllegalArgumentException if their number is wrong, one is out of range, or the type is another one
     */
    public Tensor copyFrom(long[] values) {
        checkCount(values.length);
        DType dtype = spec.dtype();
        if (dtype != DType.S64 && dtype != DType.S32) {
            throw new IllegalArgumentException("long values for a tensor of " + dtype + ": expected S64 or S32");
        }
        if (dtype == DType.S32) {
            for (long value : values) {
                if (value != (int) value) {
                    throw new IllegalArgumentException("value " + value + ": expected one within 32 bits for S32");
                }
            }
        }
        for (Walk walk = new Walk(); walk.next(); ) {
            if (dtype == DType.S64) {
                memory.set(ValueLayout.JAVA_LONG, walk.offset, values[walk.position()]);
            } else {
                memory.set(ValueLayout.JAVA_INT, walk.offset, (int) values[walk.position()]);
            }
        }
        return this;
    }

    /**
     * Returns all elements in row-major order, with the conversions of {@link #getFloat}.
     *
     * @return a new array
     * @throws IllegalStateException if there are more elements than an array can hold
     * @throws UnsupportedOperationException if it is memory of a device that the host cannot reach
     */
    public float[] toFloatArray() {
        checkReachable();
        if (spec.elements() > Integer.MAX_VALUE - 8) {
            throw new IllegalStateException(spec + " has more elements than an array can hold");
        }
        float[] values = new float[(int) spec.elements()];
        if (spec.dtype() == DType.F32 && spec.isContiguous()) {
            MemorySegment.copy(memory, ValueLayout.JAVA_FLOAT, 0, values, 0, values.length);
        } else {
            for (Walk walk = new Walk(); walk.next(); ) {
                values[walk.position()] = get(walk.offset);
            }
        }
        return values;
    }

    /**
     * Returns the spec and the address.
     *
     * @return such as {@code F32[4, 384] at 0x7f0012345678}
     */
    @Override
    public String toString() {
        return spec + " at 0x" + Long.toHexString(memory.address());
    }

    /** What takes elements one by one. */
    interface Elements {
        void take(float value, int channel);
    }

    /** What makes an element of another. */
    interface Change {
        float of(float value);
    }

    /** Hands all elements out in row-major order, each with its index in dimension {@code dim}, or 0 where that is -1. */
    void forEach(int dim, Elements elements) {
        checkReachable();
        for (Walk walk = new Walk(); walk.next(); ) {
            elements.take(get(walk.offset), dim < 0 ? 0 : (int) walk.index[dim]);
        }
    }

    /** Makes all elements of those of a tensor of the same shape. */
    void setFrom(Tensor other, Change change) {
        checkReachable();
        other.checkReachable();
        Walk from = other.new Walk();
        for (Walk walk = new Walk(); walk.next() && from.next(); ) {
            set(walk.offset, change.of(other.get(from.offset)));
        }
    }

    /** Sets the elements where those of a tensor of the same shape are 0. */
    void setWhere(Tensor mask, float value) {
        checkReachable();
        Walk from = mask.new Walk();
        for (Walk walk = new Walk(); walk.next() && from.next(); ) {
            if (mask.get(from.offset) == 0) {
                set(walk.offset, value);
            }
        }
    }

    /** Goes over the elements in row-major order. */
    private final class Walk {
        private final long[] index = new long[spec.rank()];
        private long position = -1;
        long offset;

        int position() { // of a tensor that an array holds
            return (int) position;
        }

        boolean next() {
            if (++position == 0) {
                return spec.elements() != 0;
            }
            int bytes = spec.dtype().bytes();
            for (int d = index.length - 1; d >= 0; d--) {
                if (++index[d] < spec.size(d)) {
                    offset += spec.stride(d) * bytes;
                    return true;
                }
                offset -= (index[d] - 1) * spec.stride(d) * bytes;
                index[d] = 0;
            }
            return false;
        }
    }

    /** The elements are there for the host to read and write. */
    private void checkReachable() {
        if (device != null) {
            throw new UnsupportedOperationException("the host cannot reach the memory of " + device.name()
                    + ": copy it with Stream.copyToHost or Stream.copyToDevice");
        }
    }

    private void checkCount(int count) {
        checkReachable();
        if (count != spec.elements()) {
            throw new IllegalArgumentException(
                    "values: " + count + " of them, expected the " + spec.elements() + " of " + spec);
        }
    }

    private long offset(long[] index) {
        checkReachable();
        if (index.length != spec.rank()) {
            throw new IndexOutOfBoundsException(
                    "index " + Arrays.toString(index) + ": expected " + spec.rank() + " indices for " + spec);
        }
        long offset = 0;
        for (int d = 0; d < index.length; d++) {
            if (index[d] < 0 || index[d] >= spec.size(d)) {
                throw new IndexOutOfBoundsException("index " + Arrays.toString(index) + ": outside " + spec);
            }
            offset += index[d] * spec.stride(d);
        }
        return offset * spec.dtype().bytes();
    }

    private float get(long offset) {
        return switch (spec.dtype()) {
            case F32 -> memory.get(ValueLayout.JAVA_FLOAT, offset);
            case BF16 -> Float.intBitsToFloat(memory.get(ValueLayout.JAVA_SHORT, offset) << 16);
            case F16 -> Float.float16ToFloat(memory.get(ValueLayout.JAVA_SHORT, offset));
            case S8 -> memory.get(ValueLayout.JAVA_BYTE, offset);
            case U8 -> memory.get(ValueLayout.JAVA_BYTE, offset) & 0xff;
            case S32 -> memory.get(ValueLayout.JAVA_INT, offset);
            case S64 -> memory.get(ValueLayout.JAVA_LONG, offset);
            case F8E4M3, F8E5M2 -> Float8.toFloat(spec.dtype(), memory.get(ValueLayout.JAVA_BYTE, offset));
        };
    }

    private void set(long offset, float value) {
        switch (spec.dtype()) {
            case F32 -> memory.set(ValueLayout.JAVA_FLOAT, offset, value);
            case BF16 -> memory.set(ValueLayout.JAVA_SHORT, offset, toBFloat16(value));
            case F16 -> memory.set(ValueLayout.JAVA_SHORT, offset, Float.floatToFloat16(value));
            case S8 -> memory.set(ValueLayout.JAVA_BYTE, offset, (byte) Math.clamp(integer(value), -128, 127));
            case U8 -> memory.set(ValueLayout.JAVA_BYTE, offset, (byte) Math.clamp(integer(value), 0, 255));
            case S32 -> memory.set(ValueLayout.JAVA_INT, offset, (int) integer(value));
            case S64 -> memory.set(ValueLayout.JAVA_LONG, offset, (long) integer(value));
            case F8E4M3, F8E5M2 ->
                memory.set(ValueLayout.JAVA_BYTE, offset, Float8.ofFloat(spec.dtype(), value));
        }
    }

    private double integer(float value) {
        if (Float.isNaN(value)) {
            throw new IllegalArgumentException("value NaN: expected a number for " + spec.dtype());
        }
        return Math.rint(value);
    }

    /** Rounds to the nearest BF16, ties to even; a NaN stays one. */
    static short toBFloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) (bits >>> 16 | 0x40); // quiet, so that dropping the low half cannot make it an infinity
        }
        return (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
    }
}
