package io.gatun;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/** The checks that operators share. A message names the argument, its value and what was expected. */
final class Arguments {
    private Arguments() {}

    /** At plan time: a matrix of FP32 or BF16 with unit stride in the last dimension. */
    static void matrix(String name, TensorSpec spec) {
        if (spec.rank() != 2) {
            throw wrong(name, spec, "a matrix");
        }
        floats(name, spec);
    }

    /** At plan time: a matrix of FP32, BF16 or F16 with unit stride in the last dimension. */
    static void floatMatrix(String name, TensorSpec spec) {
        if (spec.rank() != 2) {
            throw wrong(name, spec, "a matrix");
        }
        type(name, spec, DType.F32, DType.BF16, DType.F16);
        unitStride(name, spec);
    }

    /** At plan time: FP32 or BF16 with unit stride in the last dimension. */
    static void floats(String name, TensorSpec spec) {
        type(name, spec, DType.F32, DType.BF16);
        unitStride(name, spec);
    }

    /** A type. Makes no object, so that calls that allocate nothing can check with it. */
    static void type(String name, TensorSpec spec, DType type) {
        if (spec.dtype() != type) {
            throw wrong(name, spec, type.toString());
        }
    }

    /** At plan time: one of some types. */
    static void type(String name, TensorSpec spec, DType... types) {
        for (DType type : types) {
            if (spec.dtype() == type) {
                return;
            }
        }
        StringBuilder expected = new StringBuilder();
        for (int i = 0; i < types.length; i++) {
            expected.append(i == 0 ? "" : i == types.length - 1 ? " or " : ", ").append(types[i]);
        }
        throw wrong(name, spec, expected.toString());
    }

    /** Elements side by side in the last dimension. */
    static void unitStride(String name, TensorSpec spec) {
        int last = spec.rank() - 1;
        if (spec.stride(last) != 1) {
            throw wrong(name, spec, "a stride of 1 in the last dimension, not " + spec.stride(last));
        }
    }

    /** At plan time: the same shape as another argument. */
    static void sameShape(String name, TensorSpec spec, String otherName, TensorSpec other) {
        boolean same = spec.rank() == other.rank();
        for (int d = 0; same && d < spec.rank(); d++) {
            same = spec.size(d) == other.size(d);
        }
        if (!same) {
            throw wrong(name, spec, "the shape of " + otherName + ", which is " + other);
        }
    }

    /** A rank. */
    static void rank(String name, TensorSpec spec, int rank, String shape) {
        if (spec.rank() != rank) {
            throw wrong(name, spec, shape);
        }
    }

    /** At plan time: a size that follows from another argument. */
    static void size(String name, TensorSpec spec, int dim, long size, String what) {
        if (spec.size(dim) != size) {
            throw wrong(name, spec, size + " in dimension " + dim + ", " + what);
        }
    }

    /** At plan time: what a run's array must be, which may be too large to be. */
    static TensorSpec dense(String name, DType dtype, long... shape) {
        try {
            return TensorSpec.of(dtype, shape);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(name + ": " + e.getMessage(), e);
        }
    }

    static void atLeast(String name, long value, long least) {
        if (value < least) {
            throw new IllegalArgumentException(name + ": " + value + ", expected " + least + " or more");
        }
    }

    static void finite(String name, float value) {
        if (!Float.isFinite(value)) {
            throw new IllegalArgumentException(name + ": " + value + ", expected a finite number");
        }
    }

    /** An input of a run; its first {@code leading} dimensions may be smaller than planned. */
    static void input(Device device, String name, Tensor tensor, TensorSpec planned, int leading) {
        reach(device, name, tensor);
        TensorSpec spec = tensor.spec;
        if (spec != planned && !spec.fits(planned, leading)) {
            throw unfit(name, spec, planned, leading);
        }
    }

    /** A device can compute on the memory of a tensor: a wrong address would end the process, or the device's work for it. */
    static void reach(Device device, String name, Tensor tensor) {
        Device owner = tensor.device;
        boolean reached = owner == null
                ? device.info().hostMemory()
                : owner == device || owner.name().equals(device.name());
        if (!reached) {
            throw new IllegalArgumentException(name + ": memory of " + (owner == null ? "the host" : owner.name())
                    + ", expected memory of a pool of " + device.name());
        }
    }

    /** The host can read and write a tensor. */
    static void onHost(String name, Tensor tensor) {
        if (tensor.device != null) {
            throw new IllegalArgumentException(
                    name + ": memory of " + tensor.device.name() + ", expected memory that the host can reach");
        }
    }

    /** An output of a run. */
    static void output(Device device, String name, Tensor tensor, TensorSpec planned, int leading) {
        input(device, name, tensor, planned, leading);
        writable(name, tensor.memory);
    }

    /** The memory of an output. */
    static void writable(String name, MemorySegment memory) {
        if (memory.isReadOnly()) {
            throw new IllegalArgumentException(name + ": read-only memory, expected memory to write to");
        }
    }

    /** What is written element by element: no two may share memory. */
    static void apart(String name, TensorSpec spec) {
        if (spec.elements() <= 1) {
            return;
        }
        int[] dims = IntStream.range(0, spec.rank())
                .filter(d -> spec.size(d) > 1)
                .boxed()
                .sorted(Comparator.comparingLong(spec::stride))
                .mapToInt(d -> d)
                .toArray();
        long beyond = 1; // the elements that the dimensions with smaller strides reach over
        for (int d : dims) {
            if (spec.stride(d) < beyond) {
                throw wrong(
                        name + " (strides " + Arrays.toString(spec.strides()) + ")",
                        spec,
                        "strides of which each reaches beyond the smaller ones, so that no elements share memory");
            }
            beyond += (spec.size(d) - 1) * spec.stride(d);
        }
    }

    /** The memory of an input that is there exactly when the plan says so. */
    static MemorySegment optional(
            Device device, String name, @Nullable Tensor tensor, @Nullable TensorSpec planned, int leading, long rows) {
        MemorySegment memory = optional(device, name, tensor, planned, leading);
        if (leading > 0 && tensor != null) {
            rows(name, tensor, rows);
        }
        return memory;
    }

    /** The same where the caller checks what the leading dimensions are. */
    static MemorySegment optional(
            Device device, String name, @Nullable Tensor tensor, @Nullable TensorSpec planned, int leading) {
        if (tensor == null) {
            if (planned != null) {
                throw new IllegalArgumentException(name + ": null, expected " + planned + " as planned");
            }
            return MemorySegment.NULL;
        }
        if (planned == null) {
            throw new IllegalArgumentException(name + ": " + tensor.spec
                    + ", expected null, because the plan has none");
        }
        input(device, name, tensor, planned, leading);
        return tensor.memory;
    }

    /** As many rows as the first argument of the run has. */
    static void rows(String name, Tensor tensor, long rows) {
        if (tensor.spec.size(0) != rows) {
            throw wrong(name, tensor.spec, rows + " rows, as the input has");
        }
    }

    private static IllegalArgumentException unfit(String name, TensorSpec spec, TensorSpec planned, int leading) {
        StringBuilder shape = new StringBuilder();
        StringBuilder strides = new StringBuilder();
        for (int d = 0; d < planned.rank(); d++) {
            shape.append(d == 0 ? "" : ", ").append(d < leading ? "0 to " : "").append(planned.size(d));
            strides.append(d == 0 ? "" : ", ").append(planned.stride(d));
        }
        StringBuilder actual = new StringBuilder();
        for (int d = 0; d < spec.rank(); d++) {
            actual.append(d == 0 ? "" : ", ").append(spec.stride(d));
        }
        return wrong(name + " (strides [" + actual + "])", spec,
                planned.dtype() + "[" + shape + "] with strides [" + strides + "], as planned");
    }

    static IllegalArgumentException wrong(String name, TensorSpec spec, String expected) {
        return new IllegalArgumentException(name + ": " + spec + ", expected " + expected);
    }
}
