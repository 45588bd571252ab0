package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_quantized_desc;
import io.gatun.bindings.c.gtn_weights_desc;
import io.gatun.bindings.c.gtn_weights_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * A weight matrix, or those of all groups of a {@linkplain Gemm#groups grouped product}, in a device's own layout,
 * packed once and shared by any number of {@linkplain Gemm.Plan plans}. Safe for use by several threads.
 */
public final class PackedWeights implements AutoCloseable {
    final long handle;
    final Handle owned;
    final Device device;
    final WeightFormat format;
    final long groups; // 0: one matrix
    final long k;
    final long n;
    private final long bytes;

    private PackedWeights(Device device, long handle, WeightFormat format, long groups, long k, long n, long bytes) {
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
                "the packed weight matrix " + format.describe(groups, k, n),
                device);
    }

    /**
     * Packs a matrix, or several for a grouped product. The source is free for reuse on return.
     *
     * @param device where it will be used
     * @param format {@link DType#F32}; {@link DType#BF16} or {@link DType#F16}, rounded to nearest even, where F16 makes
     *     infinity of what is beyond 65504, its largest number, after that; {@link DType#S8}, with one scale of amax / 127 for
     *     each of the n output channels, rounded to nearest even; or {@link DType#F8E4M3} or {@link DType#F8E5M2}, likewise
     *     with amax / 448 or amax / 57344. Where a scale rounds to 0, so do the weights of its channel
     * @param source the weights, F32, BF16 or F16 {@code [k, n]}, or {@code [groups, k, n]} with 1 group or more, with any
     *     strides: transpose an {@code [n, k]} matrix with {@link Tensor#transpose}
     * @return the packed weights
     * @throws IllegalArgumentException if format or source is none of these, or a weight is not finite and the format
     *     S8 or FP8
     * @throws IllegalStateException if the device or the memory of {@code source} is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights pack(Device device, DType format, Tensor source) {
        return pack(device, WeightFormat.of(format), false, Quantization.Method.NEAREST, source);
    }

    /**
     * Quantizes a matrix, or several for a grouped product, in groups along k, and packs it. The source is free for reuse
     * on return.
     *
     * @param device where it will be used
     * @param quantization how
     * @param source the weights, as for {@link #pack}
     * @return the packed weights
     * @throws IllegalArgumentException if source is none of these, or a weight is not finite
     * @throws IllegalStateException if the device or the memory of {@code source} is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights quantize(Device device, Quantization quantization, Tensor source) {
        return pack(
                device, WeightFormat.of(quantization), quantization.symmetric(), quantization.method(), source);
    }

    /**
     * Packs a matrix that was pruned to two of four along k, or several for a grouped product: of every four weights of a
     * column the two that are not 0 are stored, in BF16, with 2 bits each for their places, which takes 9 bytes where BF16 takes
     * 16. The source is free for reuse on return.
     *
     * @param device where it will be used
     * @param source the weights, as for {@link #pack}, of which {@code Pruning.nOfM(2, 4, 0)} leaves what is asked for; they are
     *     rounded to BF16, to nearest even
     * @return the packed weights, for {@link Gemm#ofSparse}
     * @throws IllegalArgumentException if source is none of these, or more than two of four are not 0
     * @throws IllegalStateException if the device or the memory of {@code source} is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights packSparse(Device device, Tensor source) {
        return pack(device, WeightFormat.SPARSE, false, Quantization.Method.NEAREST, source);
    }

    private static PackedWeights pack(
            Device device, WeightFormat format, boolean symmetric, Quantization.Method method, Tensor source) {
        TensorSpec spec = source.spec;
        int row = spec.rank() - 2;
        if (row != 0 && row != 1) {
            throw Arguments.wrong("source", spec, "a matrix [k, n] or matrices [groups, k, n]");
        }
        if (row == 1 && spec.size(0) == 0) {
            throw Arguments.wrong("source", spec, "1 group or more");
        }
        Arguments.type("source", spec, DType.F32, DType.BF16, DType.F16);
        Arguments.onHost("source", source);
        return make(device, format, (arena, weights, message) -> {
            MemorySegment desc = gtn_weights_desc.allocate(arena);
            gtn_weights_desc.size(desc, (int) gtn_weights_desc.sizeof());
            gtn_weights_desc.format(desc, format.code());
            spec.write(gtn_weights_desc.source(desc));
            gtn_weights_desc.group_size(desc, format.groupSize());
            gtn_weights_desc.symmetric(desc, symmetric ? 1 : 0);
            gtn_weights_desc.quantize(desc, method.code());
            return gatun_h.gtn_weights_pack(device.handle, desc, source.memory, weights, message);
        });
    }

    /**
     * Packs a matrix that is quantized already, or several for a grouped product, in the layout of the operator
     * {@code MatMulNBits} of ONNX Runtime, with {@code b = ceil(k / groupSize)} groups in a column. All tensors are dense and
     * free for reuse on return; what fills up the last group and the last byte is ignored.
     *
     * @param device where it will be used
     * @param quantization bits and group size
     * @param k input features
     * @param integers U8 {@code [n, b, groupSize * bits / 8]}, of 4 bits the first of two in the lower half of a byte, or
     *     {@code [groups, n, ...]} with 1 group or more
     * @param scales F32 {@code [n, b]}, or {@code [groups, n, b]}, finite
     * @param zeroPoints U8 {@code [n, b]}, or of 4 bits {@code [n, ceil(b / 2)]} with the first of two in the lower half; in
     *     front of them {@code groups} likewise; null where all are 8 or 128
     * @return the packed weights
     * @throws IllegalArgumentException if a tensor is none of these
     * @throws IllegalStateException if the device or a tensor's memory is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights ofQuantized(
            Device device, Quantization quantization, long k, Tensor integers, Tensor scales, @Nullable Tensor zeroPoints) {
        WeightFormat format = WeightFormat.of(quantization);
        Arguments.atLeast("k", k, 0);
        TensorSpec spec = integers.spec;
        int row = spec.rank() - 3;
        if (row != 0 && row != 1) {
            throw Arguments.wrong("integers", spec, "bytes [n, groups of k, bytes] or [groups, n, groups of k, bytes]");
        }
        if (row == 1 && spec.size(0) == 0) {
            throw Arguments.wrong("integers", spec, "1 group or more");
        }
        int bits = quantization.bits();
        long groups = row == 1 ? spec.size(0) : 0;
        long n = spec.size(row);
        long blocks = Math.ceilDiv(k, quantization.groupSize());
        dense("integers", integers, DType.U8, groups, n, blocks, quantization.groupSize() * bits / 8);
        dense("scales", scales, DType.F32, groups, n, blocks);
        if (zeroPoints != null) {
            dense("zeroPoints", zeroPoints, DType.U8, groups, n, bits == 4 ? Math.ceilDiv(blocks, 2) : blocks);
        }
        return make(device, format, (arena, weights, message) -> {
            MemorySegment desc = gtn_quantized_desc.allocate(arena);
            gtn_quantized_desc.size(desc, (int) gtn_quantized_desc.sizeof());
            gtn_quantized_desc.format(desc, format.code());
            gtn_quantized_desc.groups(desc, groups);
            gtn_quantized_desc.k(desc, k);
            gtn_quantized_desc.n(desc, n);
            gtn_quantized_desc.group_size(desc, format.groupSize());
            return gatun_h.gtn_weights_pack_quantized(
                    device.handle,
                    desc,
                    integers.memory,
                    scales.memory,
                    zeroPoints == null ? MemorySegment.NULL : zeroPoints.memory,
                    weights,
                    message);
        });
    }

    /**
     * Packs a matrix that is in FP8 already, or several for a grouped product: an element stands for its number times the
     * scale of its output channel. Both tensors are dense and free for reuse on return. A number that is NaN or infinite
     * is kept.
     *
     * @param device where it will be used
     * @param numbers F8E4M3 or F8E5M2 {@code [n, k]}, or {@code [groups, n, k]} with 1 group or more
     * @param scales F32 {@code [n]}, or {@code [groups, n]}, finite
     * @return the packed weights
     * @throws IllegalArgumentException if a tensor is none of these
     * @throws IllegalStateException if the device or a tensor's memory is closed
     * @throws UnsupportedOperationException if the device does not serve the format
     */
    public static PackedWeights ofFloat8(Device device, Tensor numbers, Tensor scales) {
        TensorSpec spec = numbers.spec;
        Arguments.type("numbers", spec, DType.F8E4M3, DType.F8E5M2);
        int row = spec.rank() - 2;
        if (row != 0 && row != 1) {
            throw Arguments.wrong("numbers", spec, "a matrix [n, k] or matrices [groups, n, k]");
        }
        if (row == 1 && spec.size(0) == 0) {
            throw Arguments.wrong("numbers", spec, "1 group or more");
        }
        long groups = row == 1 ? spec.size(0) : 0;
        long n = spec.size(row);
        long k = spec.size(row + 1);
        dense("numbers", numbers, spec.dtype(), groups, n, k);
        dense("scales", scales, DType.F32, groups, n);
        WeightFormat format = WeightFormat.of(spec.dtype());
        return make(device, format, (arena, weights, message) -> {
            MemorySegment desc = gtn_quantized_desc.allocate(arena);
            gtn_quantized_desc.size(desc, (int) gtn_quantized_desc.sizeof());
            gtn_quantized_desc.format(desc, format.code());
            gtn_quantized_desc.groups(desc, groups);
            gtn_quantized_desc.k(desc, k);
            gtn_quantized_desc.n(desc, n);
            return gatun_h.gtn_weights_pack_quantized(
                    device.handle, desc, numbers.memory, scales.memory, MemorySegment.NULL, weights, message);
        });
    }

    /** A tensor that the host reads as a plain array of this shape, after one of groups unless that is 0. */
    private static void dense(String name, Tensor tensor, DType dtype, long groups, long... shape) {
        long[] all = new long[shape.length + (groups > 0 ? 1 : 0)];
        all[0] = groups;
        System.arraycopy(shape, 0, all, all.length - shape.length, shape.length);
        TensorSpec expected = Arguments.dense(name, dtype, all);
        if (!tensor.spec.equals(expected)) {
            throw Arguments.wrong(name, tensor.spec, expected.toString());
        }
        Arguments.onHost(name, tensor);
    }

    private interface Pack {
        int into(Arena arena, MemorySegment weights, MemorySegment message);
    }

    private static PackedWeights make(Device device, WeightFormat format, Pack pack) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment weights = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(pack.into(arena, weights, message), message, device.owned);
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

    /**
     * Returns the format.
     *
     * @return F32, BF16, F16, S8, F8E4M3, F8E5M2, or U8 for weights that are quantized in groups, of 4 bits too
     */
    public DType format() {
        return format.dtype();
    }

    /**
     * Returns how many bits a weight has that is quantized in groups.
     *
     * @return 4 or 8, or 0 where they are not
     */
    public int bits() {
        return format.bits();
    }

    /**
     * Returns how many elements of k share a scale and a zero point.
     *
     * @return 32, 64 or 128, or 0 where the weights are not quantized in groups
     */
    public int groupSize() {
        return format.groupSize();
    }

    /**
     * Returns whether two weights of four are stored.
     *
     * @return true for weights of {@link #packSparse}, whose format is BF16
     */
    public boolean sparse() {
        return format.sparse();
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
        return "packed weights " + format.describe(groups, k, n) + " on " + device;
    }
}
