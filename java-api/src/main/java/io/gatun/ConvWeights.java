package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_conv_weights_desc;
import io.gatun.bindings.c.gtn_weights_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The weights of a convolution in a device's own layout, with a batch normalisation folded in where there is one, packed
 * once and shared by any number of {@linkplain Conv.Plan plans}, whatever their stride, dilation and padding. Safe for
 * use by several threads.
 */
public final class ConvWeights implements AutoCloseable {
    final long handle;
    final Handle owned;
    final Device device;
    final DType format;
    final long groups;
    final TensorSpec source;
    private final long bytes;

    private ConvWeights(Device device, long handle, DType format, long groups, TensorSpec source, long bytes) {
        this.device = device;
        this.handle = handle;
        this.format = format;
        this.groups = groups;
        this.source = source;
        this.bytes = bytes;
        this.owned = new Handle(
                this,
                Handle.Kind.WEIGHTS,
                handle,
                "the packed convolution " + describe(format, source.shape(), groups),
                device);
    }

    /**
     * Packs weights without a normalisation. The source is free for reuse on return.
     *
     * @param device where they will be used
     * @param format F32, or BF16, rounded to nearest even
     * @param groups 1, or a divisor of the output channels
     * @param source F32 or BF16 {@code [output channels, input channels / groups, kernel sizes]} with one to three kernel
     *     sizes, none of them 0, with any strides
     * @return the packed weights
     * @throws IllegalArgumentException if an argument is none of these, or a weight is not finite
     * @throws IllegalStateException if the device or the memory of {@code source} is closed
     * @throws UnsupportedOperationException if the device does not serve convolutions
     */
    public static ConvWeights pack(Device device, DType format, long groups, Tensor source) {
        return pack(device, format, groups, source, false, null, null, null, null, 0);
    }

    /**
     * Packs weights with a batch normalisation as it is at inference (Ioffe and Szegedy 2015), which is folded into them:
     * {@code (sum - mean) * gamma / sqrt(variance + epsilon) + beta}. A bias that a convolution has before it is part of
     * {@code mean}, subtracted. The arrays are free for reuse on return.
     *
     * @param device where they will be used
     * @param format F32, or BF16, to which folded weights are rounded, to nearest even
     * @param groups 1, or a divisor of the output channels
     * @param source as above
     * @param gamma F32 {@code [output channels]}, dense, as the next three are
     * @param beta what is added
     * @param mean of the sums
     * @param variance of the sums
     * @param epsilon finite, 0 or more
     * @return the packed weights
     * @throws IllegalArgumentException if an argument is none of these, or a folded weight or shift is not finite
     * @throws IllegalStateException if the device or the memory of an array is closed
     * @throws UnsupportedOperationException if the device does not serve convolutions
     */
    public static ConvWeights pack(
            Device device,
            DType format,
            long groups,
            Tensor source,
            Tensor gamma,
            Tensor beta,
            Tensor mean,
            Tensor variance,
            float epsilon) {
        return pack(device, format, groups, source, true, gamma, beta, mean, variance, epsilon);
    }

    private static ConvWeights pack(
            Device device,
            DType format,
            long groups,
            Tensor source,
            boolean norm,
            @Nullable Tensor gamma,
            @Nullable Tensor beta,
            @Nullable Tensor mean,
            @Nullable Tensor variance,
            float epsilon) {
        TensorSpec spec = source.spec;
        Conv.checkFormat(format);
        if (spec.rank() < 3 || spec.rank() > 5) {
            throw Arguments.wrong("source", spec, "[output channels, input channels / groups, one to three kernel sizes]");
        }
        Arguments.type("source", spec, DType.F32, DType.BF16);
        if (spec.elements() == 0) {
            throw Arguments.wrong("source", spec, "sizes of 1 or more");
        }
        if (groups < 1 || spec.size(0) % groups != 0) {
            throw new IllegalArgumentException(
                    "groups: " + groups + ", expected a divisor of the " + spec.size(0) + " output channels");
        }
        if (!Float.isFinite(epsilon) || epsilon < 0) {
            throw new IllegalArgumentException("epsilon: " + epsilon + ", expected a finite number, 0 or more");
        }
        Arguments.onHost("source", source);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment desc = gtn_conv_weights_desc.allocate(arena);
            gtn_conv_weights_desc.size(desc, (int) gtn_conv_weights_desc.sizeof());
            gtn_conv_weights_desc.format(desc, format.code());
            spec.write(gtn_conv_weights_desc.source(desc));
            gtn_conv_weights_desc.groups(desc, groups);
            gtn_conv_weights_desc.has_norm(desc, norm ? 1 : 0);
            gtn_conv_weights_desc.epsilon(desc, epsilon);
            MemorySegment weights = arena.allocate(ValueLayout.JAVA_LONG);
            int status = gatun_h.gtn_conv_weights_pack(
                    device.handle,
                    desc,
                    source.memory,
                    channels("gamma", gamma, norm, spec.size(0)),
                    channels("beta", beta, norm, spec.size(0)),
                    channels("mean", mean, norm, spec.size(0)),
                    channels("variance", variance, norm, spec.size(0)),
                    weights,
                    message);
            Status.check(status, message, device.owned);
            long handle = weights.get(ValueLayout.JAVA_LONG, 0);
            MemorySegment info = gtn_weights_info.allocate(arena);
            gtn_weights_info.size(info, (int) gtn_weights_info.sizeof());
            Status.check(gatun_h.gtn_weights_query(handle, info, message), message);
            return new ConvWeights(device, handle, format, groups, spec, gtn_weights_info.bytes(info));
        } finally {
            Reference.reachabilityFence(device);
        }
    }

    private static MemorySegment channels(String name, @Nullable Tensor array, boolean norm, long channels) {
        if (!norm) {
            return MemorySegment.NULL;
        }
        if (array == null) {
            throw new NullPointerException(name);
        }
        TensorSpec spec = array.spec;
        Arguments.type(name, spec, DType.F32);
        if (spec.rank() != 1 || spec.size(0) != channels || !spec.isContiguous()) {
            throw Arguments.wrong(name, spec, "F32[" + channels + "], dense");
        }
        Arguments.onHost(name, array);
        return array.memory;
    }

    /** Whether they are of this shape. Makes no object. */
    boolean hasShape(long[] shape) {
        boolean same = source.rank() == shape.length;
        for (int d = 0; same && d < shape.length; d++) {
            same = source.size(d) == shape[d];
        }
        return same;
    }

    static String describe(DType format, long[] shape, long groups) {
        return format + Arrays.toString(shape) + (groups > 1 ? " in " + groups + " groups" : "");
    }

    /**
     * Returns the format.
     *
     * @return F32 or BF16
     */
    public DType format() {
        return format;
    }

    /**
     * Returns the number of groups.
     *
     * @return groups, 1 or more
     */
    public long groups() {
        return groups;
    }

    /**
     * Returns the shape of what was packed.
     *
     * @return a new array: output channels, input channels / groups, kernel sizes
     */
    public long[] shape() {
        return source.shape();
    }

    /**
     * Returns the memory that the packed form occupies.
     *
     * @return bytes
     */
    public long bytes() {
        return bytes;
    }

    /**
     * Closes the weights. Closing them again does nothing.
     *
     * @throws IllegalStateException if a run is inside; they stay open
     */
    @Override
    public void close() {
        owned.close();
        Reference.reachabilityFence(this);
    }

    @Override
    public String toString() {
        return "packed convolution " + describe(format, source.shape(), groups) + " on " + device;
    }
}
