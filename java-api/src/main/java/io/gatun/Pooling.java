package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_pooling_desc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.ref.Reference;
import java.util.Arrays;
import java.util.Objects;

/**
 * Pooling in one to three spatial dimensions: {@code out[b, c, y]} is the maximum or the mean of
 * {@code x[b, c, y * stride + t * dilation - padding]} over the kernel positions t that lie in {@code x}. Immutable.
 *
 * <p>Dimensions of tensors are named in the order batch, channels, spatial, whatever lies next to what in memory, as for
 * {@link Conv}.
 *
 * <p>The maximum of a window with a NaN is NaN, of one that sees nothing of {@code x} negative infinity. A mean is an FP32
 * sum divided by the number of positions; of a window that sees nothing of {@code x} it is 0.
 */
public final class Pooling {
    private final boolean average;
    private final boolean countPadding;
    private final long[] kernel; // empty: as large as x
    private final long[] stride;
    private final long[] dilation;
    private final long[] before;
    private final long[] after;

    private Pooling(boolean average, boolean countPadding, long[] kernel, long[] stride, long[] dilation, long[] before,
            long[] after) {
        this.average = average;
        this.countPadding = countPadding;
        this.kernel = kernel;
        this.stride = stride;
        this.dilation = dilation;
        this.before = before;
        this.after = after;
    }

    /**
     * Describes the maximum of windows that do not overlap: the stride is the kernel.
     *
     * @param kernel one to three sizes, 1 or more, which say how many spatial dimensions there are
     * @return the description, with a dilation of 1 and no padding
     * @throws IllegalArgumentException if the sizes are none of these
     */
    public static Pooling max(long... kernel) {
        return of(false, kernel);
    }

    /**
     * Describes the mean of windows that do not overlap: the stride is the kernel.
     *
     * @param kernel one to three sizes, 1 or more, which say how many spatial dimensions there are
     * @return the description, with a dilation of 1 and no padding
     * @throws IllegalArgumentException if the sizes are none of these
     */
    public static Pooling average(long... kernel) {
        return of(true, kernel);
    }

    /**
     * Describes the maximum of each channel of an image, whatever its spatial sizes.
     *
     * @return the description; outputs have spatial sizes of 1
     */
    public static Pooling globalMax() {
        return global(false);
    }

    /**
     * Describes the mean of each channel of an image, whatever its spatial sizes.
     *
     * @return the description; outputs have spatial sizes of 1
     */
    public static Pooling globalAverage() {
        return global(true);
    }

    private static Pooling global(boolean average) {
        long[] none = {};
        return new Pooling(average, false, none, none, none, none, none);
    }

    private static Pooling of(boolean average, long[] kernel) {
        if (kernel.length < 1 || kernel.length > gatun_h.GTN_CONV_MAX_RANK()) {
            throw new IllegalArgumentException(
                    "kernel: " + kernel.length + " sizes, expected 1 to " + gatun_h.GTN_CONV_MAX_RANK());
        }
        long[] sizes = sizes("kernel", kernel, kernel.length, 1);
        return new Pooling(
                average, false, sizes, sizes, ones(kernel.length), new long[kernel.length], new long[kernel.length]);
    }

    private static long[] ones(int length) {
        long[] ones = new long[length];
        Arrays.fill(ones, 1);
        return ones;
    }

    private long[] sizes(String name, long[] values, long least) {
        if (kernel.length == 0) {
            throw new IllegalArgumentException(name + ": expected none, since the window is all of x");
        }
        return sizes(name, values, kernel.length, least);
    }

    private static long[] sizes(String name, long[] values, int count, long least) {
        if (values.length != count) {
            throw new IllegalArgumentException(
                    name + ": " + values.length + " values, expected " + count + ", one for each spatial dimension");
        }
        for (long value : values) {
            Arguments.atLeast(name, value, least);
        }
        return values.clone();
    }

    /**
     * Moves windows by so many positions of {@code x}.
     *
     * @param stride by spatial dimension, 1 or more, in place of the kernel's sizes or earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 1, or the pooling is global
     */
    public Pooling stride(long... stride) {
        return new Pooling(average, countPadding, kernel, sizes("stride", stride, 1), dilation, before, after);
    }

    /**
     * Spreads windows: their positions lie so far apart in {@code x}.
     *
     * @param dilation by spatial dimension, 1 or more, in place of earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 1, or the pooling is global
     */
    public Pooling dilation(long... dilation) {
        return new Pooling(average, countPadding, kernel, stride, sizes("dilation", dilation, 1), before, after);
    }

    /**
     * Lets windows begin before {@code x} and end behind it, by as much on both sides.
     *
     * @param padding by spatial dimension, 0 or more, in place of earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 0, or the pooling is global
     */
    public Pooling padding(long... padding) {
        return padding(padding, padding);
    }

    /**
     * Lets windows begin before {@code x} and end behind it.
     *
     * @param before by spatial dimension, 0 or more, in place of earlier ones
     * @param after likewise
     * @return a description with them
     * @throws IllegalArgumentException if there are more or fewer, or one is below 0, or the pooling is global
     */
    public Pooling padding(long[] before, long[] after) {
        return new Pooling(
                average, countPadding, kernel, stride, dilation, sizes("before", before, 0), sizes("after", after, 0));
    }

    /**
     * Divides by the number of all positions of a window, as if {@code x} were surrounded by zeros.
     *
     * @return a description that counts padding
     * @throws IllegalStateException if it is of the maximum
     */
    public Pooling countPadding() {
        if (!average) {
            throw new IllegalStateException("countPadding: of a maximum, expected of an average");
        }
        return new Pooling(true, true, kernel, stride, dilation, before, after);
    }

    /**
     * Returns the size of the output in a spatial dimension.
     *
     * @param dim the spatial dimension, from 0
     * @param size of {@code x} in it
     * @return {@code (size + padding - dilation * (kernel - 1) - 1) / stride + 1}, or 0 where the window reaches over
     *     more than there is; 1 where the pooling is global, or 0 where {@code x} is empty
     * @throws IndexOutOfBoundsException if the kernel has no such dimension, or the pooling is global and it is none of the
     *     three that there may be
     * @throws ArithmeticException if it exceeds 2<sup>63</sup>
     */
    public long outSize(int dim, long size) {
        Objects.checkIndex(dim, kernel.length == 0 ? gatun_h.GTN_CONV_MAX_RANK() : kernel.length);
        if (kernel.length == 0) {
            return size > 0 ? 1 : 0;
        }
        long padded = Math.addExact(Math.addExact(size, before[dim]), after[dim]);
        long reach = Math.addExact(Math.multiplyExact(dilation[dim], kernel[dim] - 1), 1);
        return padded < reach ? 0 : (padded - reach) / stride[dim] + 1;
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32, BF16 or F16 {@code [batch, channels, spatial sizes]}, any strides, channels not 0; the batch is the
     *     most that a run may have
     * @param out F32, BF16 or F16 {@code [batch, channels, spatial sizes]}, any strides; its spatial sizes are those of
     *     {@link #outSize}
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec out) {
        if (kernel.length == 0 && (x.rank() < 3 || x.rank() > 2 + gatun_h.GTN_CONV_MAX_RANK())) {
            throw Arguments.wrong("x", x, "[batch, channels, 1 to 3 spatial sizes]");
        }
        int spatial = kernel.length == 0 ? x.rank() - 2 : kernel.length;
        String shape = "[batch, channels, " + spatial + " spatial sizes]";
        Arguments.rank("x", x, 2 + spatial, shape);
        Arguments.rank("out", out, 2 + spatial, shape);
        Arguments.type("x", x, DType.F32, DType.BF16, DType.F16);
        Arguments.type("out", out, DType.F32, DType.BF16, DType.F16);
        if (x.size(1) == 0) {
            throw Arguments.wrong("x", x, "1 channel or more");
        }
        Arguments.size("out", out, 0, x.size(0), "the batch of x");
        Arguments.size("out", out, 1, x.size(1), "the channels of x");
        for (int d = 0; d < spatial; d++) {
            long size;
            try {
                size = outSize(d, x.size(2 + d));
            } catch (ArithmeticException e) {
                throw new IllegalArgumentException("padding or dilation of spatial dimension " + d + " exceeds 2^63", e);
            }
            Arguments.size("out", out, 2 + d, size, "that of x, kernel, stride, dilation and padding");
        }
        return new Plan(device, this, x, out);
    }

    /** A pooling made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;

        private Plan(Device device, Pooling pooling, TensorSpec x, TensorSpec out) {
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> describe(arena, pooling, x, out),
                    (desc, plan, message) -> gatun_h.gtn_pooling_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
        }

        private static MemorySegment describe(SegmentAllocator arena, Pooling pooling, TensorSpec x, TensorSpec out) {
            MemorySegment desc = gtn_pooling_desc.allocate(arena);
            gtn_pooling_desc.size(desc, (int) gtn_pooling_desc.sizeof());
            gtn_pooling_desc.kind(
                    desc, pooling.average ? gatun_h.GTN_POOLING_AVERAGE() : gatun_h.GTN_POOLING_MAX());
            x.write(gtn_pooling_desc.x(desc));
            out.write(gtn_pooling_desc.out(desc));
            boolean global = pooling.kernel.length == 0;
            for (int d = 0; d < x.rank() - 2; d++) {
                gtn_pooling_desc.kernel(desc, d, global ? Math.max(x.size(2 + d), 1) : pooling.kernel[d]);
                gtn_pooling_desc.stride(desc, d, global ? 1 : pooling.stride[d]);
                gtn_pooling_desc.dilation(desc, d, global ? 1 : pooling.dilation[d]);
                gtn_pooling_desc.pad_before(desc, d, global ? 0 : pooling.before[d]);
                gtn_pooling_desc.pad_after(desc, d, global ? 0 : pooling.after[d]);
            }
            gtn_pooling_desc.count_padding(desc, pooling.countPadding ? 1 : 0);
            return desc;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. The batch may be smaller than the
         * plan's.
         *
         * @param stream a stream of the plan's device
         * @param x the input
         * @param out the output, with the batch of {@code x}; it overlaps nothing
         */
        public void run(Stream stream, Tensor x, Tensor out) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long batch = x.spec.size(0);
            Arguments.rows("out", out, batch);
            int status = gatun_h.gtn_pooling_run(handle, stream.handle, batch, x.memory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
