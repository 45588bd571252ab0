package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_gemm_desc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Matrix multiplication by packed weights, with a fused epilogue:
 * {@code out[m, n] = activation(a[m, k] * w[k, n] + bias[n]) + residual[m, n]}; on request of {@linkplain #groups
 * groups of rows} by a matrix each, of {@linkplain #rowIndex rows by number}, or with a {@linkplain #lowRank product of
 * low rank} in addition. Immutable.
 *
 * <p>The format is that of the weights:
 * <ul>
 *   <li>{@link DType#F32}: FP32 throughout.
 *   <li>{@link DType#BF16}: {@code a} is rounded to BF16, ties to even; products and sums are FP32.
 *   <li>{@link DType#F16}: only the weights are rounded; {@code a} stays as it is, or is rounded to F16 too, from 65520 on to
 *       infinity, where a device multiplies F16 alone. Products and sums are FP32, and subnormal weights count.
 *   <li>{@link DType#S8}: each row of {@code a} is quantized to 8 bits without sign: {@code lo = min(0, min x)},
 *       {@code hi = max(0, max x)}, {@code s = (hi - lo) / 255}, {@code z = rint(-lo / s)},
 *       {@code q = clamp(rint(x / s) + z, 0, 255)}. The sums are exact, which limits k to 66311; the epilogue is FP32.
 *       A row with a NaN, an infinity or a range that overflows gives a row of NaN. Rows of {@link DType#U8} were quantized
 *       so before, as by a {@link LayerNorm} or an {@link RmsNorm}, and come with the s and z of each: see
 *       {@link Plan#runQuantized}.
 *   <li>{@link DType#F8E4M3} and {@link DType#F8E5M2}: {@code a} stays as it is, or is rounded to BF16 where a device
 *       multiplies BF16 alone. Products and sums are FP32, and a sum is multiplied by its column's scale.
 *   <li>{@link Quantization}: 4 or 8 bits in groups along k. FP32 throughout, with the weights that the integers stand
 *       for: only the weights take less memory, which is what few rows wait for.
 *   <li>{@linkplain #ofSparse Pruned to two of four} along k: FP32 throughout, with what is left of the weights in BF16. An
 *       element of {@code a} that meets a weight of 0 may take part or not, which matters where it is not finite.
 * </ul>
 */
public final class Gemm {
    private static final long MAX_RANK = 1024;

    private final WeightFormat format;
    private final boolean bias;
    private final boolean residual;
    private final Activation activation;
    private final long groups; // 0: one matrix
    private final boolean rowIndex;
    private final @Nullable LowRank lowRank;

    private record LowRank(long rank, DType dtype, float scale) {}

    private Gemm(
            WeightFormat format,
            boolean bias,
            boolean residual,
            Activation activation,
            long groups,
            boolean rowIndex,
            @Nullable LowRank lowRank) {
        this.format = format;
        this.bias = bias;
        this.residual = residual;
        this.activation = activation;
        this.groups = groups;
        this.rowIndex = rowIndex;
        this.lowRank = lowRank;
    }

    /**
     * Describes a plain multiplication.
     *
     * @param format the format of the weights: F32, BF16, F16, S8, F8E4M3 or F8E5M2
     * @return the description
     * @throws IllegalArgumentException if the format is another one
     */
    public static Gemm of(DType format) {
        return new Gemm(WeightFormat.of(format), false, false, Activation.NONE, 0, false, null);
    }

    /**
     * Describes a plain multiplication by weights that are quantized in groups.
     *
     * @param quantization bits and group size of the weights; how they came about does not matter
     * @return the description
     */
    public static Gemm of(Quantization quantization) {
        return new Gemm(WeightFormat.of(quantization), false, false, Activation.NONE, 0, false, null);
    }

    /**
     * Describes a plain multiplication by weights of which two of four along k are stored ({@link PackedWeights#packSparse}):
     * FP32 throughout, with weights in BF16. They take 9 bytes where BF16 takes 16, which is what few rows wait for.
     *
     * @return the description
     */
    public static Gemm ofSparse() {
        return new Gemm(WeightFormat.SPARSE, false, false, Activation.NONE, 0, false, null);
    }

    /**
     * Adds a bias to each row of the product.
     *
     * @return a description with a bias
     */
    public Gemm bias() {
        return new Gemm(format, true, residual, activation, groups, rowIndex, lowRank);
    }

    /**
     * Adds a residual to the output, after the activation.
     *
     * @return a description with a residual
     */
    public Gemm residual() {
        return new Gemm(format, bias, true, activation, groups, rowIndex, lowRank);
    }

    /**
     * Applies a function to product and bias.
     *
     * @param activation the function, in place of an earlier one
     * @return a description with it
     */
    public Gemm activation(Activation activation) {
        if (activation == null) {
            throw new NullPointerException("activation");
        }
        return new Gemm(format, bias, residual, activation, groups, rowIndex, lowRank);
    }

    /**
     * Multiplies groups of rows by a matrix each, as for the experts of a mixture: a run says where the rows of each
     * group start, and rows beyond those of the last group are not written. Each group has a bias of its own.
     *
     * @param groups the number of matrices, 1 or more, in place of an earlier one
     * @return a description of so many groups
     * @throws IllegalArgumentException if there are none
     */
    public Gemm groups(long groups) {
        Arguments.atLeast("groups", groups, 1);
        return new Gemm(format, bias, residual, activation, groups, rowIndex, lowRank);
    }

    /**
     * Takes the rows of {@code a} by number: row r of the product is of row {@code rowIndex[r]} of {@code a}, so that
     * rows are gathered as they are read. {@code a} may have more or fewer rows than the output.
     *
     * @return a description with an index of rows
     */
    public Gemm rowIndex() {
        return new Gemm(format, bias, residual, activation, groups, true, lowRank);
    }

    /**
     * Adds {@code scale * (a * loraA[k, rank]) * loraB[rank, n]} before the bias, in the same pass over the output
     * (Hu et al. 2021, LoRA). Both products are FP32, of the elements of {@code a} as they are, whatever the format of the
     * weights; the matrices come with each run. Not with groups or an index of rows.
     *
     * @param rank 1 to 1024
     * @param dtype of both matrices: F32, BF16 or F16
     * @param scale a finite number
     * @return a description with this product, in place of an earlier one
     * @throws IllegalArgumentException if an argument is none of these
     */
    public Gemm lowRank(long rank, DType dtype, float scale) {
        if (rank < 1 || rank > MAX_RANK) {
            throw new IllegalArgumentException("rank: " + rank + ", expected 1 to " + MAX_RANK);
        }
        if (dtype != DType.F32 && dtype != DType.BF16 && dtype != DType.F16) {
            throw new IllegalArgumentException("dtype: " + dtype + ", expected F32, BF16 or F16");
        }
        Arguments.finite("scale", scale);
        return new Gemm(format, bias, residual, activation, groups, rowIndex, new LowRank(rank, dtype, scale));
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param a F32, BF16 or F16 {@code [m, k]}, or U8 where the format is S8 and there is no low rank, unit stride in k; m is
     *     the most rows that a run may have
     * @param out F32, BF16 or F16 {@code [m, n]}, unit stride in n; with an index of rows its m is one of its own
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these, or a low rank comes with groups or an index of rows
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec a, TensorSpec out) {
        boolean quantized = format.dtype() == DType.S8 && lowRank == null && a.dtype() == DType.U8;
        if (quantized) {
            Arguments.rank("a", a, 2, "a matrix");
            Arguments.unitStride("a", a);
        } else {
            Arguments.floatMatrix("a", a);
        }
        Arguments.floatMatrix("out", out);
        if (lowRank != null && (groups > 0 || rowIndex)) {
            throw new IllegalArgumentException("lowRank: " + lowRank.rank + ", expected none with "
                    + (groups > 0 ? "groups" : "an index of rows"));
        }
        if (!rowIndex && out.size(0) != a.size(0)) {
            throw Arguments.wrong("out", out, "the " + a.size(0) + " rows of a, which is " + a);
        }
        return new Plan(device, this, a, out);
    }

    /** A multiplication made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final WeightFormat format;
        private final TensorSpec a;
        private final TensorSpec out;
        private final @Nullable TensorSpec bias;
        private final @Nullable TensorSpec residual;
        private final @Nullable TensorSpec groupOffsets;
        private final @Nullable TensorSpec rowIndex;
        private final @Nullable TensorSpec loraA;
        private final @Nullable TensorSpec loraB;
        private final @Nullable TensorSpec scales;
        private final @Nullable TensorSpec zeroPoints;
        private final boolean plain;
        private final long groups;
        private final long k;
        private final long n;

        private Plan(Device device, Gemm gemm, TensorSpec a, TensorSpec out) {
            // What is too large leaves no plan behind.
            long k = a.size(1);
            long n = out.size(1);
            long groups = gemm.groups;
            LowRank low = gemm.lowRank;
            long[] biases = groups == 0 ? new long[] {n} : new long[] {groups, n};
            TensorSpec bias = gemm.bias ? Arguments.dense("bias", DType.F32, biases) : null;
            long ends = groups < Long.MAX_VALUE ? groups + 1 : groups;
            TensorSpec offsets = groups == 0 ? null : Arguments.dense("groupOffsets", DType.S64, ends);
            TensorSpec index = gemm.rowIndex ? Arguments.dense("rowIndex", DType.S32, out.size(0)) : null;
            TensorSpec loraA = low == null ? null : Arguments.dense("loraA", low.dtype, k, low.rank);
            TensorSpec loraB = low == null ? null : Arguments.dense("loraB", low.dtype, low.rank, n);
            boolean quantized = a.dtype() == DType.U8;
            TensorSpec scales = quantized ? Arguments.dense("scales", DType.F32, a.size(0)) : null;
            TensorSpec zeroPoints = quantized ? Arguments.dense("zeroPoints", DType.S32, a.size(0)) : null;
            super(
                    device,
                    "a " + a.dtype() + ", weights " + gemm.format.name() + ", out " + out.dtype(),
                    arena -> describe(arena, gemm, a, out),
                    (desc, plan, message) -> gatun_h.gtn_gemm_plan(device.handle, desc, plan, message));
            this.format = gemm.format;
            this.a = a;
            this.out = out;
            this.k = k;
            this.n = n;
            this.groups = groups;
            this.bias = bias;
            this.residual = gemm.residual ? out : null;
            this.groupOffsets = offsets;
            this.rowIndex = index;
            this.loraA = loraA;
            this.loraB = loraB;
            this.scales = scales;
            this.zeroPoints = zeroPoints;
            this.plain = groups == 0 && !gemm.rowIndex && low == null && !quantized;
        }

        private static MemorySegment describe(SegmentAllocator arena, Gemm gemm, TensorSpec a, TensorSpec out) {
            MemorySegment desc = gtn_gemm_desc.allocate(arena);
            gtn_gemm_desc.size(desc, (int) gtn_gemm_desc.sizeof());
            gtn_gemm_desc.format(desc, gemm.format.code());
            a.write(gtn_gemm_desc.a(desc));
            out.write(gtn_gemm_desc.out(desc));
            gtn_gemm_desc.activation(desc, gemm.activation.code());
            gtn_gemm_desc.has_bias(desc, gemm.bias ? 1 : 0);
            gtn_gemm_desc.has_residual(desc, gemm.residual ? 1 : 0);
            gtn_gemm_desc.has_row_index(desc, gemm.rowIndex ? 1 : 0);
            gtn_gemm_desc.groups(desc, gemm.groups);
            gtn_gemm_desc.group_size(desc, gemm.format.groupSize());
            if (gemm.lowRank != null) {
                gtn_gemm_desc.rank(desc, gemm.lowRank.rank);
                gtn_gemm_desc.lora_dtype(desc, gemm.lowRank.dtype.code());
                gtn_gemm_desc.lora_scale(desc, gemm.lowRank.scale);
            }
            return desc;
        }

        /**
         * Runs a plan that has neither groups nor an index of rows nor a low rank: see {@link io.gatun.Plan} for what
         * is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param weights {@code [k, n]} in the plan's format, packed for the plan's device
         * @param a the input, with at most the plan's rows
         * @param bias F32 {@code [n]} where the plan has a bias, else null
         * @param residual laid out and typed as the plan's {@code out}, where the plan has a residual, else null
         * @param out the output, with as many rows as {@code a}; it may be {@code residual} and overlaps nothing else
         */
        public void run(
                Stream stream,
                PackedWeights weights,
                Tensor a,
                @Nullable Tensor bias,
                @Nullable Tensor residual,
                Tensor out) {
            run(stream, weights, a, bias, residual, out, null, null, null, null);
        }

        /**
         * Runs any plan whose rows were not quantized before: see {@link io.gatun.Plan} for what is checked and thrown. The
         * further arrays are dense.
         *
         * @param stream a stream of the plan's device
         * @param weights {@code [k, n]}, or {@code [groups, k, n]} where the plan has groups, in the plan's format,
         *     packed for the plan's device
         * @param a the input, with at most the plan's rows
         * @param bias F32 {@code [n]}, or {@code [groups, n]}, where the plan has a bias, else null
         * @param residual laid out and typed as the plan's {@code out}, where the plan has a residual, else null
         * @param out the output, with as many rows as {@code a}, or as {@code rowIndex} where there is one; it may be
         *     {@code residual} and overlaps nothing else
         * @param groupOffsets S64 {@code [groups + 1]} where the plan has groups, else null: 0, and for each group where
         *     its rows of {@code out} end, never falling and at most its rows; rows beyond the last are not written
         * @param rowIndex S32 {@code [rows]} where the plan has an index of rows, else null: for each row of {@code out}
         *     one of {@code a}, from 0
         * @param loraA {@code [k, rank]} in the plan's type where it has a low rank, else null
         * @param loraB {@code [rank, n]} likewise
         */
        public void run(
                Stream stream,
                PackedWeights weights,
                Tensor a,
                @Nullable Tensor bias,
                @Nullable Tensor residual,
                Tensor out,
                @Nullable Tensor groupOffsets,
                @Nullable Tensor rowIndex,
                @Nullable Tensor loraA,
                @Nullable Tensor loraB) {
            launch(stream, weights, a, null, null, bias, residual, out, groupOffsets, rowIndex, loraA, loraB);
        }

        /**
         * Runs a plan of U8 rows: see {@link io.gatun.Plan} for what is checked and thrown. All arrays but {@code a},
         * {@code residual} and {@code out} are dense.
         *
         * @param stream a stream of the plan's device
         * @param weights {@code [k, n]}, or {@code [groups, k, n]} where the plan has groups, of S8, packed for the plan's
         *     device
         * @param a the input, with at most the plan's rows
         * @param scales F32 {@code [rows of a]}: what a step of each row is worth
         * @param zeroPoints S32 {@code [rows of a]}: the integer that stands for 0 in each row
         * @param bias F32 {@code [n]}, or {@code [groups, n]}, where the plan has a bias, else null
         * @param residual laid out and typed as the plan's {@code out}, where the plan has a residual, else null
         * @param out the output, with as many rows as {@code a}, or as {@code rowIndex} where there is one; it may be
         *     {@code residual} and overlaps nothing else
         * @param groupOffsets S64 {@code [groups + 1]} where the plan has groups, else null
         * @param rowIndex S32 {@code [rows]} where the plan has an index of rows, else null
         */
        public void runQuantized(
                Stream stream,
                PackedWeights weights,
                Tensor a,
                Tensor scales,
                Tensor zeroPoints,
                @Nullable Tensor bias,
                @Nullable Tensor residual,
                Tensor out,
                @Nullable Tensor groupOffsets,
                @Nullable Tensor rowIndex) {
            launch(stream, weights, a, scales, zeroPoints, bias, residual, out, groupOffsets, rowIndex, null, null);
        }

        private void launch(
                Stream stream,
                PackedWeights weights,
                Tensor a,
                @Nullable Tensor scales,
                @Nullable Tensor zeroPoints,
                @Nullable Tensor bias,
                @Nullable Tensor residual,
                Tensor out,
                @Nullable Tensor groupOffsets,
                @Nullable Tensor rowIndex,
                @Nullable Tensor loraA,
                @Nullable Tensor loraB) {
            check(stream);
            check(weights);
            Arguments.input(device, "a", a, this.a, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long rowsA = a.spec.size(0);
            long rows = out.spec.size(0);
            if (this.rowIndex == null) {
                Arguments.rows("out", out, rowsA);
            }
            MemorySegment biasMemory = Arguments.optional(device, "bias", bias, this.bias, 0);
            MemorySegment residualMemory = Arguments.optional(device, "residual", residual, this.residual, 1, rows);
            MemorySegment offsetsMemory = Arguments.optional(device, "groupOffsets", groupOffsets, this.groupOffsets, 0);
            MemorySegment indexMemory = Arguments.optional(device, "rowIndex", rowIndex, this.rowIndex, 1);
            if (rowIndex != null) {
                Arguments.size("rowIndex", rowIndex.spec, 0, rows, "the rows of out");
            }
            MemorySegment loraAMemory = Arguments.optional(device, "loraA", loraA, this.loraA, 0);
            MemorySegment loraBMemory = Arguments.optional(device, "loraB", loraB, this.loraB, 0);
            MemorySegment scalesMemory = Arguments.optional(device, "scales", scales, this.scales, 1, rowsA);
            MemorySegment zerosMemory = Arguments.optional(device, "zeroPoints", zeroPoints, this.zeroPoints, 1, rowsA);
            int status;
            if (plain) {
                status = gatun_h.gtn_gemm_run(
                        handle,
                        stream.handle,
                        weights.handle,
                        rows,
                        a.memory,
                        biasMemory,
                        residualMemory,
                        out.memory);
            } else if (this.scales != null) {
                status = gatun_h.gtn_gemm_run_quantized(
                        handle,
                        stream.handle,
                        weights.handle,
                        rows,
                        rowsA,
                        a.memory,
                        scalesMemory,
                        zerosMemory,
                        biasMemory,
                        residualMemory,
                        out.memory,
                        offsetsMemory,
                        indexMemory);
            } else {
                status = gatun_h.gtn_gemm_run_with(
                        handle,
                        stream.handle,
                        weights.handle,
                        rows,
                        rowsA,
                        a.memory,
                        biasMemory,
                        residualMemory,
                        out.memory,
                        offsetsMemory,
                        indexMemory,
                        loraAMemory,
                        loraBMemory);
            }
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
         * @param weights {@code [k, n]} in the plan's format, packed for the plan's device
         * @param a the input, with at most the plan's rows
         * @param out the output, with as many rows as {@code a}
         */
        public void run(Stream stream, PackedWeights weights, Tensor a, Tensor out) {
            run(stream, weights, a, null, null, out);
        }

        /**
         * Runs a plan with a bias and without residual.
         *
         * @param stream a stream of the plan's device
         * @param weights {@code [k, n]} in the plan's format, packed for the plan's device
         * @param a the input, with at most the plan's rows
         * @param bias F32 {@code [n]}
         * @param out the output, with as many rows as {@code a}
         */
        public void run(Stream stream, PackedWeights weights, Tensor a, Tensor bias, Tensor out) {
            run(stream, weights, a, bias, null, out);
        }

        private void check(PackedWeights weights) {
            if (weights.k != k
                    || weights.n != n
                    || weights.groups != groups
                    || !weights.format.equals(format)
                    || weights.device != device) {
                throw new IllegalArgumentException("weights: " + weights + ", expected "
                        + format.describe(groups, k, n) + " packed for the plan's " + device);
            }
        }
    }
}
