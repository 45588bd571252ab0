package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_weights_desc;
import io.gatun.bindings.c.gtn_weights_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;

/**
 * A weight matrix, or those of all groups of a {@linkplain Gemm#groups grouped product}, in a device's own layout,
 * packed once and shared by any number of {@linkplain Gemm.Plan plans}. Safe for use by several threads.
 */
public final class PackedWeights implements AutoCloseable {
    final long handle;
    final Handle owned;
    final Device device;
    final DType format;
    final long groups; // 0: one matrix
    final long k;
    final long n;
    private final long bytes;

    private PackedWeights(Device device, long handle, DType format, long groups, long k, long n, long bytes) {
        this.device = device;
        this.handle = handle;
        this.format = format;
        this.groups = groups;
        this.k = k;
        this.n = n;
        this.bytes = bytes;
        this.owned = new Handle(
                this,
                Handle.Kind.WEIGHTS,
                handle,
                "the packed weight matrix " + describe(format, groups, k, n),
                device);
    }

    /**
     * Packs a matrix, or several for a grouped product. The source is free for reuse on return.
     *
     * @param device where it will be used
     * @param format {@link DType#F32}; {@link DType#BF16}, rounded to nearest even; or {@link DType#S8}, with one scale
     *     of amax / 127 for each of the n output channels, rounded to nearest even
     * @param source the weights, F32 or BF16 {@code [k, n]}, or {@code [groups, k, n]} with 1 group or more, with any
     *     strides: transpose an {@code [n, k]} matrix with {@link Tensor#transpose}
     * @return the packed weights
     * @throws IllegalArgumentException if format or source is none of these, or a weight is not finite and the format
     *     S8
     * @throws IllegalStateException if the device or the memory of {@code source} is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights pack(Device device, DType format, Tensor source) {
        TensorSpec spec = source.spec;
        checkFormat(format);
        int row = spec.rank() - 2;
        if (row != 0 && row != 1) {
            throw Arguments.wrong("source", spec, "a matrix [k, n] or matrices [groups, k, n]");
        }
        if (row == 1 && spec.size(0) == 0) {
            throw Arguments.wrong("source", spec, "1 group or more");
        }
        if (spec.dtype() != DType.F32 && spec.dtype() != DType.BF16) {
            throw Arguments.wrong("source", spec, "F32 or BF16");
        }
        Arguments.onHost("source", source);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment desc = gtn_weights_desc.allocate(arena);
            gtn_weights_desc.size(desc, (int) gtn_weights_desc.sizeof());
            gtn_weights_desc.format(desc, format.code());
            spec.write(gtn_weights_desc.source(desc));
            MemorySegment weights = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(
                    gatun_h.gtn_weights_pack(device.handle, desc, source.memory, weights, message), message,
                    device.owned);
            long handle = weights.get(ValueLayout.JAVA_LONG, 0);
            MemorySegment info = gtn_weights_info.allocate(arena);
            gtn_weights_info.size(info, (int) gtn_weights_info.sizeof());
            Status.check(gatun_h.gtn_weights_query(handle, info, message), message);
            return new PackedWeights(
                    device,
                    handle,
                    format,
                    gtn_weights_info.groups(info),
                    gtn_weights_info.k(info),
                    gtn_weights_info.n(info),
                    gtn_weights_info.bytes(info));
        } finally {
            Reference.reachabilityFence(device);
        }
    }

    static String describe(DType format, long groups, long k, long n) {
        return format + "[" + (groups > 0 ? groups + ", " : "") + k + ", " + n + "]";
    }

    static void checkFormat(DType format) {
        switch (format) {
            case F32, BF16, S8 -> {}
            default -> throw new IllegalArgumentException("format: " + format + ", expected F32, BF16 or S8");
        }
    }

    /**
     * Returns the format.
     *
     * @return F32, BF16 or S8
     */
    public DType format() {
        return format;
    }

    /**
     * Returns the number of matrices of a grouped product.
     *
     * @return groups, or 0 where the source was one matrix without groups
     */
    public long groups() {
        return groups;
    }

    /**
     * Returns the number of rows of the matrix, which are the input features.
     *
     * @return k
     */
    public long k() {
        return k;
    }

    /**
     * Returns the number of columns of the matrix, which are the output features.
     *
     * @return n
     */
    public long n() {
        return n;
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
        return "packed weights " + describe(format, groups, k, n) + " on " + device;
    }
}
