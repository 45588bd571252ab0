package io.gatun;

import io.gatun.bindings.c.gtn_tensor_desc;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The element type, shape and strides of a tensor, without its memory. Immutable.
 *
 * <p>Element {@code (i0, i1, ...)} lies {@code i0 * stride(0) + i1 * stride(1) + ...} elements after the first one. A
 * size of 0 is allowed. Specs are equal when element type, shape and strides are.
 */
public final class TensorSpec {
    static final int MAX_RANK = 6;

    private final DType dtype;
    private final long[] shape;
    private final long[] strides;
    private final long elements;
    private final long byteSpan;

    private TensorSpec(DType dtype, long[] shape, long[] strides) {
        this.dtype = dtype;
        this.shape = shape;
        this.strides = strides;
        long elements = 1;
        for (long size : shape) {
            elements = size == 0 ? 0 : elements;
        }
        long last = 0;
        try {
            for (int d = 0; d < shape.length && elements != 0; d++) {
                elements = Math.multiplyExact(elements, shape[d]);
                last = Math.addExact(last, Math.multiplyExact(shape[d] - 1, strides[d]));
            }
            this.byteSpan = elements == 0 ? 0 : Math.multiplyExact(Math.addExact(last, 1), (long) dtype.bytes());
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException("shape " + Arrays.toString(shape) + " with strides "
                    + Arrays.toString(strides)
                    + ": expected a number of elements and of bytes within 63 bits", e);
        }
        this.elements = elements;
    }

    /**
     * Describes a dense row-major tensor.
     *
     * @param dtype the type of the elements
     * @param shape the sizes, 1 to 6 of them, each 0 or more
     * @return the spec, with a last stride of 1
     * @throws IllegalArgumentException if the rank or a size is out of range, or the tensor exceeds 63 bits of bytes
     */
    public static TensorSpec of(DType dtype, long... shape) {
        if (dtype == null) {
            throw new NullPointerException("dtype");
        }
        long[] sizes = shape.clone();
        if (sizes.length < 1 || sizes.length > MAX_RANK) {
            throw new IllegalArgumentException(
                    "shape " + Arrays.toString(sizes) + ": rank " + sizes.length + ", expected 1 to " + MAX_RANK);
        }
        for (long size : sizes) {
            if (size < 0) {
                throw new IllegalArgumentException("shape " + Arrays.toString(sizes) + ": expected sizes of 0 or more");
            }
        }
        return new TensorSpec(dtype, sizes, rowMajor(sizes));
    }

    private static long[] rowMajor(long[] shape) {
        long[] strides = new long[shape.length];
        long stride = 1;
        for (int d = shape.length - 1; d >= 0; d--) {
            strides[d] = stride;
            if (Math.multiplyHigh(stride, Math.max(shape[d], 1)) != 0 || stride * Math.max(shape[d], 1) < 0) {
                if (d == 0) {
                    break; // the constructor judges the whole
                }
                throw new IllegalArgumentException(
                        "shape " + Arrays.toString(shape) + ": expected a number of elements within 63 bits");
            }
            stride *= Math.max(shape[d], 1);
        }
        return strides;
    }

    /**
     * Describes a tensor of this element type and shape with other strides.
     *
     * @param strides elements from one index to the next, one for each dimension, each 0 or more
     * @return the spec
     * @throws IllegalArgumentException if their number is not the rank, one is negative, or the tensor exceeds 63 bits
     *     of bytes
     */
    public TensorSpec withStrides(long... strides) {
        long[] steps = strides.clone();
        if (steps.length != shape.length) {
            throw new IllegalArgumentException("strides " + Arrays.toString(steps) + ": expected " + shape.length
                    + " of them for the shape " + Arrays.toString(shape));
        }
        for (long stride : steps) {
            if (stride < 0) {
                throw new IllegalArgumentException("strides " + Arrays.toString(steps)
                        + ": expected strides of 0 or more");
            }
        }
        return new TensorSpec(dtype, shape, steps);
    }

    /**
     * Returns the type of the elements.
     *
     * @return the type
     */
    public DType dtype() {
        return dtype;
    }

    /**
     * Returns the number of dimensions.
     *
     * @return 1 to 6
     */
    public int rank() {
        return shape.length;
    }

    /**
     * Returns the size of a dimension.
     *
     * @param dim 0 to rank - 1
     * @return the size, 0 or more
     * @throws IndexOutOfBoundsException if there is no such dimension
     */
    public long size(int dim) {
        return shape[dim];
    }

    /**
     * Returns the stride of a dimension.
     *
     * @param dim 0 to rank - 1
     * @return elements from one index to the next, 0 or more
     * @throws IndexOutOfBoundsException if there is no such dimension
     */
    public long stride(int dim) {
        return strides[dim];
    }

    /**
     * Returns the sizes.
     *
     * @return a new array
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * Returns the strides in elements.
     *
     * @return a new array
     */
    public long[] strides() {
        return strides.clone();
    }

    /**
     * Returns the number of elements.
     *
     * @return the product of the sizes
     */
    public long elements() {
        return elements;
    }

    /**
     * Returns the size of the memory that the tensor reaches over.
     *
     * @return the bytes from the first to past the last element; 0 when there are none
     */
    public long byteSpan() {
        return byteSpan;
    }

    /**
     * Says whether the elements lie densely in row-major order. Strides of dimensions of size 1 do not matter, and a
     * tensor without elements is contiguous.
     *
     * @return whether they do
     */
    public boolean isContiguous() {
        long expected = 1;
        for (int d = shape.length - 1; d >= 0 && elements != 0; d--) {
            if (shape[d] != 1 && strides[d] != expected) {
                return false;
            }
            expected *= shape[d];
        }
        return true;
    }

    /**
     * Describes the same elements with two dimensions exchanged.
     *
     * @param d0 a dimension
     * @param d1 another one
     * @return the spec
     * @throws IndexOutOfBoundsException if there is no such dimension
     */
    public TensorSpec transpose(int d0, int d1) {
        long[] sizes = shape.clone();
        long[] steps = strides.clone();
        sizes[d0] = shape[d1];
        sizes[d1] = shape[d0];
        steps[d0] = strides[d1];
        steps[d1] = strides[d0];
        return new TensorSpec(dtype, sizes, steps);
    }

    /**
     * Describes the indices {@code from} to {@code to - 1} of a dimension; where the first of them lies is
     * {@link Tensor#slice}'s business.
     *
     * @param dim 0 to rank - 1
     * @param from the first index, 0 or more
     * @param to the index after the last, from {@code from} to the size
     * @return the spec, with the same strides
     * @throws IndexOutOfBoundsException if there is no such dimension or range
     */
    public TensorSpec slice(int dim, long from, long to) {
        if (from < 0 || to < from || to > shape[dim]) {
            throw new IndexOutOfBoundsException(
                    "slice [" + from + ", " + to + ") of dimension " + dim + " of " + this
                    + ": expected a range within it");
        }
        long[] sizes = shape.clone();
        sizes[dim] = to - from;
        return new TensorSpec(dtype, sizes, strides);
    }

    /** Writes this into a {@code gtn_tensor_desc}. */
    void write(MemorySegment desc) {
        gtn_tensor_desc.size(desc, (int) gtn_tensor_desc.sizeof());
        gtn_tensor_desc.dtype(desc, dtype.code());
        gtn_tensor_desc.rank(desc, shape.length);
        for (int d = 0; d < shape.length; d++) {
            gtn_tensor_desc.shape(desc, d, shape[d]);
            gtn_tensor_desc.strides(desc, d, strides[d]);
        }
    }

    /**
     * Says whether a tensor of this spec can stand in for one of {@code planned}: the same type, rank and strides, and
     * the same sizes except that the first {@code leading} may be smaller. The stride of a dimension of at most one
     * index does not matter.
     */
    boolean fits(TensorSpec planned, int leading) {
        if (dtype != planned.dtype || shape.length != planned.shape.length) {
            return false;
        }
        for (int d = 0; d < shape.length; d++) {
            long size = shape[d];
            if (d < leading ? size > planned.shape[d] : size != planned.shape[d]) {
                return false;
            }
            if (strides[d] != planned.strides[d] && size > 1) {
                return false;
            }
        }
        return true;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof TensorSpec that
                && dtype == that.dtype
                && Arrays.equals(shape, that.shape)
                && Arrays.equals(strides, that.strides);
    }

    @Override
    public int hashCode() {
        return 31 * (31 * dtype.hashCode() + Arrays.hashCode(shape)) + Arrays.hashCode(strides);
    }

    /**
     * Returns the type and shape, and the strides unless the tensor is contiguous.
     *
     * @return such as {@code F32[4, 384]} or {@code F32[384, 4] strides [1, 384]}
     */
    @Override
    public String toString() {
        return dtype + Arrays.toString(shape) + (isContiguous() ? "" : " strides " + Arrays.toString(strides));
    }
}
