package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_conv_desc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.ref.Reference;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Convolution in one to three spatial dimensions by {@linkplain ConvWeights packed weights}, with a batch normalisation
 * folded into them, and a fused epilogue: {@code out[b, o, y] = activation(norm(sum over channels c of o's group and
 * kernel positions t of w[o, c, t] * x[b, c, y * stride + t * dilation - padding]) + bias[o]) + residual[b, o, y]}, where
 * {@code x} is 0 outside of its sizes. Immutable.
 *
 * <p>Dimensions of tensors are named in the order batch, channels, spatial, whatever lies next to what in memory:
 * {@code [batch, height, width, channels]} in memory is a tensor of that shape, {@linkplain Tensor#transpose transposed}
 * until channels come second. As many groups as channels of both is a depthwise convolution.
 *
 * <p>The format is that of the weights: with {@link DType#F32} all is FP32; with {@link DType#BF16} {@code x} is rounded
 * to BF16, ties to even, and products and sums are FP32.
 */
public final class Conv {
    private final DType format;
    private final long[] kernel;
    private final long[] stride;
    private final long[] dilation;
    private final long[] before;
    private final long[] after;
    private final long groups;
    private final boolean bias;
    private final boolean residual;
    private final boolean residualFirst;
    private final Activation activation;

    private Conv(Builder builder) {
        this.format = builder.format;
        this.kernel = builder.kernel;
        this.stride = builder.stride;
        this.dilation = builder.dilation;
        this.before = builder.before;
        this.after = builder.after;
        this.groups = builder.groups;
        this.bias = builder.bias;
        this.residual = builder.residual;
        this.residualFirst = builder.residualFirst;
        this.activation = builder.activation;
    }

    /** What the next description has in common with this one, to change a part of it. */
    private static final class Builder {
        DType format;
        long[] kernel;
        long[] stride;
        long[] dilation;
        long[] before;
        long[] after;
        long groups;
        boolean bias;
        boolean residual;
        boolean residualFirst;
        Activation activation;

        Builder(DType format, long[] kernel) {
            this.format = format;
            this.kernel = kernel;
            this.stride = ones(kernel.length);
            this.dilation = ones(kernel.length);
            this.before = new long[kernel.length];
            this.after = new long[kernel.length];
            this.groups = 1;
            this.activation = Activation.NONE;
        }

        Builder(Conv conv) {
            this.format = conv.format;
            this.kernel = conv.kernel;
            this.stride = conv.stride;
            this.dilation = conv.dilation;
            this.before = conv.before;
            this.after = conv.after;
            this.groups = conv.groups;
            this.bias = conv.bias;
            this.residual = conv.residual;
            this.residualFirst = conv.residualFirst;
            this.activation = conv.activation;
        }

        private static long[] ones(int length) {
            long[] ones = new long[length];
            Arrays.fill(ones, 1);
            return ones;
        }
    }

    /**
     * Describes a convolution with a stride and a dilation of 1 and no padding.
     *
     * @param format the format of the weights: F32 or BF16
     * @param kernel one to three sizes, 1 or more, which say how many spatial dimensions there are
     * @return the description
     * @throws IllegalArgumentException if an argument is none of these
     */
    public static Conv of(DType format, long... kernel) {
        checkFormat(format);
        if (kernel.length < 1 || kernel.length > gatun_h.GTN_CONV_MAX_RANK()) {
            throw new IllegalArgumentException(
                    "kernel: " + kernel.length + " sizes, expected 1 to " + gatun_h.GTN_CONV_MAX_RANK());
        }
        return new Conv(new Builder(format, sizes("kernel", kernel, kernel.length, 1)));
    }

    static void checkFormat(DType format) {
        if (format != DType.F32 && format != DType.BF16) {
            throw new IllegalArgumentException("format: " + format + ", expected F32 or BF16");
        }
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
     * Takes a step of more than one position of {@code x} for each of the output.
     *
     * @param stride by spatial dimension, 1 or more, in place of earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 1
     */
    public Conv stride(long... stride) {
        Builder builder = new Builder(this);
        builder.stride = sizes("stride", stride, kernel.length, 1);
        return new Conv(builder);
    }

    /**
     * Spreads the kernel: its positions lie so far apart in {@code x}.
     *
     * @param dilation by spatial dimension, 1 or more, in place of earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 1
     */
    public Conv dilation(long... dilation) {
        Builder builder = new Builder(this);
        builder.dilation = sizes("dilation", dilation, kernel.length, 1);
        return new Conv(builder);
    }

    /**
     * Surrounds {@code x} by zeros, as many before as after it.
     *
     * @param padding by spatial dimension, 0 or more, in place of earlier ones
     * @return a description with it
     * @throws IllegalArgumentException if there are more or fewer, or one is below 0
     */
    public Conv padding(long... padding) {
        return padding(padding, padding);
    }

    /**
     * Surrounds {@code x} by zeros.
     *
     * @param before by spatial dimension, 0 or more, in place of earlier ones
     * @param after likewise
     * @return a description with them
     * @throws IllegalArgumentException if there are more or fewer, or one is below 0
     */
    public Conv padding(long[] before, long[] after) {
        Builder builder = new Builder(this);
        builder.before = sizes("before", before, kernel.length, 0);
        builder.after = sizes("after", after, kernel.length, 0);
        return new Conv(builder);
    }

    /**
     * Cuts channels into equal runs: those of the output see the run of {@code x} that has their number.
     *
     * @param groups 1 or more, in place of an earlier one
     * @return a description with it
     * @throws IllegalArgumentException if there are none
     */
    public Conv groups(long groups) {
        Arguments.atLeast("groups", groups, 1);
        Builder builder = new Builder(this);
        builder.groups = groups;
        return new Conv(builder);
    }

    /**
     * Adds a bias to each channel of the output, after the normalisation.
     *
     * @return a description with a bias
     */
    public Conv bias() {
        Builder builder = new Builder(this);
        builder.bias = true;
        return new Conv(builder);
    }

    /**
     * Adds a residual to the output, after the activation.
     *
     * @return a description with a residual
     */
    public Conv residual() {
        Builder builder = new Builder(this);
        builder.residual = true;
        builder.residualFirst = false;
        return new Conv(builder);
    }

    /**
     * Adds a residual before the activation, as the blocks of He et al. 2016 do.
     *
     * @return a description with a residual
     */
    public Conv residualFirst() {
        Builder builder = new Builder(this);
        builder.residual = true;
        builder.residualFirst = true;
        return new Conv(builder);
    }

    /**
     * Applies a function.
     *
     * @param activation the function, in place of an earlier one
     * @return a description with it
     */
    public Conv activation(Activation activation) {
        if (activation == null) {
            throw new NullPointerException("activation");
        }
        Builder builder = new Builder(this);
        builder.activation = activation;
        return new Conv(builder);
    }

    /**
     * Returns the size of the output in a spatial dimension.
     *
     * @param dim the spatial dimension, from 0
     * @param size of {@code x} in it
     * @return {@code (size + padding - dilation * (kernel - 1) - 1) / stride + 1}, or 0 where the kernel reaches over
     *     more than there is
     * @throws IndexOutOfBoundsException if there is no such dimension
     * @throws ArithmeticException if it exceeds 2<sup>63</sup>
     */
    public long outSize(int dim, long size) {
        long padded = Math.addExact(Math.addExact(size, before[dim]), after[dim]);
        long reach = Math.addExact(Math.multiplyExact(dilation[dim], kernel[dim] - 1), 1);
        return padded < reach ? 0 : (padded - reach) / stride[dim] + 1;
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32 or BF16 {@code [batch, channels, spatial sizes]}, any strides, channels not 0; the batch is the most
     *     that a run may have
     * @param out F32 or BF16 {@code [batch, channels, spatial sizes]}, any strides, channels not 0; its spatial sizes are
     *     those of {@link #outSize}
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these, or groups do not divide the channels of both
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec out) {
        String shape = "[batch, channels, " + kernel.length + " spatial sizes]";
        Arguments.rank("x", x, 2 + kernel.length, shape);
        Arguments.rank("out", out, 2 + kernel.length, shape);
        Arguments.type("x", x, DType.F32, DType.BF16);
        Arguments.type("out", out, DType.F32, DType.BF16);
        Arguments.size("out", out, 0, x.size(0), "the batch of x");
        groups("x", x);
        groups("out", out);
        for (int d = 0; d < kernel.length; d++) {
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

    private void groups(String name, TensorSpec spec) {
        if (spec.size(1) == 0 || spec.size(1) % groups != 0) {
            throw Arguments.wrong(name, spec, "a multiple of " + groups + " channels, the groups");
        }
    }

    /** A convolution made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final DType format;
        private final long groups;
        private final long[] weights; // shape
        private final TensorSpec x;
        private final TensorSpec out;
        private final @Nullable TensorSpec bias;
        private final @Nullable TensorSpec residual;

        private Plan(Device device, Conv conv, TensorSpec x, TensorSpec out) {
            super(
                    device,
                    "x " + x.dtype() + ", weights " + conv.format + ", out " + out.dtype(),
                    arena -> describe(arena, conv, x, out),
                    (desc, plan, message) -> gatun_h.gtn_conv_plan(device.handle, desc, plan, message));
            this.format = conv.format;
            this.groups = conv.groups;
            this.weights = new long[2 + conv.kernel.length];
            weights[0] = out.size(1);
            weights[1] = x.size(1) / conv.groups;
            System.arraycopy(conv.kernel, 0, weights, 2, conv.kernel.length);
            this.x = x;
            this.out = out;
            this.bias = conv.bias ? TensorSpec.of(DType.F32, out.size(1)) : null;
            this.residual = conv.residual ? out : null;
        }

        private static MemorySegment describe(SegmentAllocator arena, Conv conv, TensorSpec x, TensorSpec out) {
            MemorySegment desc = gtn_conv_desc.allocate(arena);
            gtn_conv_desc.size(desc, (int) gtn_conv_desc.sizeof());
            gtn_conv_desc.format(desc, conv.format.code());
            x.write(gtn_conv_desc.x(desc));
            out.write(gtn_conv_desc.out(desc));
            for (int d = 0; d < conv.kernel.length; d++) {
                gtn_conv_desc.kernel(desc, d, conv.kernel[d]);
                gtn_conv_desc.stride(desc, d, conv.stride[d]);
                gtn_conv_desc.dilation(desc, d, conv.dilation[d]);
                gtn_conv_desc.pad_before(desc, d, conv.before[d]);
                gtn_conv_desc.pad_after(desc, d, conv.after[d]);
            }
            gtn_conv_desc.groups(desc, conv.groups);
            gtn_conv_desc.activation(desc, conv.activation.code());
            gtn_conv_desc.has_bias(desc, conv.bias ? 1 : 0);
            gtn_conv_desc.has_residual(desc, conv.residual ? 1 : 0);
            gtn_conv_desc.residual_first(desc, conv.residualFirst ? 1 : 0);
            return desc;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. The batch may be smaller than the
         * plan's.
         *
         * @param stream a stream of the plan's device
         * @param weights of the plan's format, channels, groups and kernel, packed for the plan's device
         * @param x the input
         * @param bias F32 {@code [channels of out]} where the plan has a bias, else null
         * @param residual laid out and typed as the plan's {@code out}, where the plan has a residual, else null
         * @param out the output, with the batch of {@code x}; it may be {@code residual} and overlaps nothing else
         */
        public void run(
                Stream stream,
                ConvWeights weights,
                Tensor x,
                @Nullable Tensor bias,
                @Nullable Tensor residual,
                Tensor out) {
            check(stream);
            if (weights.format != format
                    || weights.groups != groups
                    || weights.device != device
                    || !weights.hasShape(this.weights)) {
                throw new IllegalArgumentException("weights: " + weights + ", expected "
                        + ConvWeights.describe(format, this.weights, groups) + " packed for the plan's " + device);
            }
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long batch = x.spec.size(0);
            Arguments.rows("out", out, batch);
            MemorySegment biasMemory = Arguments.optional(device, "bias", bias, this.bias, 0);
            MemorySegment residualMemory = Arguments.optional(device, "residual", residual, this.residual, 1, batch);
            int status = gatun_h.gtn_conv_run(
                    handle, stream.handle, weights.handle, batch, x.memory, biasMemory, residualMemory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            Reference.reachabilityFence(weights);
            if (status != 0) {
                throw failure(status, stream, weights.owned);
            }
        }

        /**
         * Runs a plan without bias and residual.
         *
         * @param stream a stream of the plan's device
         * @param weights of the plan's format, channels, groups and kernel, packed for the plan's device
         * @param x the input
         * @param out the output, with the batch of {@code x}
         */
        public void run(Stream stream, ConvWeights weights, Tensor x, Tensor out) {
            run(stream, weights, x, null, null, out);
        }
    }
}
