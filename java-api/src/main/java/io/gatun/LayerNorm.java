package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_norm_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Layer normalisation over the last dimension, with an optional fused residual: {@code h = x + residual};
 * {@code out = (h - mean h) / sqrt(var h + epsilon) * gamma + beta}, where var is the biased variance; {@code sum = h}.
 * An output of U8 is quantized as a {@link Gemm} of {@link DType#S8} would quantize the F32 output, each row to a scale and
 * a zero point of its own. Immutable.
 */
public final class LayerNorm {
    private final float epsilon;
    private final boolean residual;
    private final boolean sum;
    private final boolean beta;

    private LayerNorm(float epsilon, boolean residual, boolean sum, boolean beta) {
        this.epsilon = epsilon;
        this.residual = residual;
        this.sum = sum;
        this.beta = beta;
    }

    /**
     * Describes a layer normalisation with gamma and beta.
     *
     * @param epsilon finite, not negative
     * @return the description
     * @throws IllegalArgumentException if {@code epsilon} is not finite or negative
     */
    public static LayerNorm of(float epsilon) {
        checkEpsilon(epsilon);
        return new LayerNorm(epsilon, false, false, true);
    }

    static void checkEpsilon(float epsilon) {
        if (!(epsilon >= 0 && epsilon < Float.POSITIVE_INFINITY)) {
            throw new IllegalArgumentException("epsilon: " + epsilon + ", expected a finite number of 0 or more");
        }
    }

    /**
     * Adds a residual to the input before it is normalised.
     *
     * @return a description with a residual
     */
    public LayerNorm residual() {
        return new LayerNorm(epsilon, true, sum, beta);
    }

    /**
     * Writes the sum of input and residual, too.
     *
     * @return a description with that output
     */
    public LayerNorm sum() {
        return new LayerNorm(epsilon, residual, true, beta);
    }

    /**
     * Leaves out beta.
     *
     * @return a description without it
     */
    public LayerNorm withoutBeta() {
        return new LayerNorm(epsilon, residual, sum, false);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32 or BF16 {@code [rows, n]}, n at least 1, unit stride in n; the rows are the most that a run may have
     * @param out F32, BF16 or U8, the shape of {@code x}, unit stride in n
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec out) {
        checkSpecs(x, out);
        return new Plan(device, this, x, out);
    }

    static void checkSpecs(TensorSpec x, TensorSpec out) {
        Arguments.matrix("x", x);
        if (x.size(1) < 1) {
            throw Arguments.wrong("x", x, "at least 1 column");
        }
        Arguments.type("out", out, DType.F32, DType.BF16, DType.U8);
        Arguments.unitStride("out", out);
        Arguments.sameShape("out", out, "x", x);
    }

    /** The scale of each row of a quantized output; null where it is not quantized. */
    static @Nullable TensorSpec scales(TensorSpec out) {
        return out.dtype() == DType.U8 ? Arguments.dense("scales", DType.F32, out.size(0)) : null;
    }

    /** The zero point of each row of a quantized output; null where it is not quantized. */
    static @Nullable TensorSpec zeroPoints(TensorSpec out) {
        return out.dtype() == DType.U8 ? Arguments.dense("zeroPoints", DType.S32, out.size(0)) : null;
    }

    /** A layer normalisation made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;
        private final TensorSpec gamma;
        private final @Nullable TensorSpec residual;
        private final @Nullable TensorSpec beta;
        private final @Nullable TensorSpec sum;
        private final @Nullable TensorSpec scales;
        private final @Nullable TensorSpec zeroPoints;

        private Plan(Device device, LayerNorm norm, TensorSpec x, TensorSpec out) {
            // What is too large leaves no plan behind.
            TensorSpec scales = scales(out);
            TensorSpec zeroPoints = zeroPoints(out);
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_norm_desc.allocate(arena);
                        gtn_norm_desc.size(desc, (int) gtn_norm_desc.sizeof());
                        gtn_norm_desc.kind(desc, gatun_h.GTN_NORM_LAYER());
                        x.write(gtn_norm_desc.x(desc));
                        out.write(gtn_norm_desc.out(desc));
                        gtn_norm_desc.epsilon(desc, norm.epsilon);
                        gtn_norm_desc.has_residual(desc, norm.residual ? 1 : 0);
                        gtn_norm_desc.has_beta(desc, norm.beta ? 1 : 0);
                        gtn_norm_desc.has_sum(desc, norm.sum ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_norm_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
            this.gamma = TensorSpec.of(DType.F32, x.size(1));
            this.residual = norm.residual ? x : null;
            this.beta = norm.beta ? gamma : null;
            this.sum = norm.sum ? x : null;
            this.scales = scales;
            this.zeroPoints = zeroPoints;
        }

        /**
         * Runs a plan whose output is not quantized: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param residual laid out and typed as the plan's {@code x}, where the plan has a residual, else null
         * @param gamma F32 {@code [n]}
         * @param beta F32 {@code [n]} where the plan has beta, else null
         * @param out the output; it may be {@code x} or {@code residual} where element type and strides are the same
         * @param sum laid out and typed as the plan's {@code x}, where the plan has this output, else null; it may be
         *     {@code x} or {@code residual}
         */
        public void run(
                Stream stream,
                Tensor x,
                @Nullable Tensor residual,
                Tensor gamma,
                @Nullable Tensor beta,
                Tensor out,
                @Nullable Tensor sum) {
            launch(stream, x, residual, gamma, beta, out, null, null, sum);
        }

        /**
         * Runs a plan whose output is U8: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param residual laid out and typed as the plan's {@code x}, where the plan has a residual, else null
         * @param gamma F32 {@code [n]}
         * @param beta F32 {@code [n]} where the plan has beta, else null
         * @param out the output, with as many rows
         * @param scales F32 {@code [rows]}, dense: what a step of each row of the output is worth
         * @param zeroPoints S32 {@code [rows]}, dense: the integer that stands for 0 in each row
         * @param sum laid out and typed as the plan's {@code x}, where the plan has this output, else null; it may be
         *     {@code x} or {@code residual}
         */
        public void runQuantized(
                Stream stream,
                Tensor x,
                @Nullable Tensor residual,
                Tensor gamma,
                @Nullable Tensor beta,
                Tensor out,
                Tensor scales,
                Tensor zeroPoints,
                @Nullable Tensor sum) {
            launch(stream, x, residual, gamma, beta, out, scales, zeroPoints, sum);
        }

        private void launch(
                Stream stream,
                Tensor x,
                @Nullable Tensor residual,
                Tensor gamma,
                @Nullable Tensor beta,
                Tensor out,
                @Nullable Tensor scales,
                @Nullable Tensor zeroPoints,
                @Nullable Tensor sum) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.input(device, "gamma", gamma, this.gamma, 0);
            Arguments.output(device, "out", out, this.out, 1);
            long rows = x.spec.size(0);
            Arguments.rows("out", out, rows);
            MemorySegment residualMemory = Arguments.optional(device, "residual", residual, this.residual, 1, rows);
            MemorySegment betaMemory = Arguments.optional(device, "beta", beta, this.beta, 0, rows);
            MemorySegment sumMemory = Arguments.optional(device, "sum", sum, this.sum, 1, rows);
            Arguments.writable("sum", sumMemory);
            MemorySegment scalesMemory = Arguments.optional(device, "scales", scales, this.scales, 1, rows);
            MemorySegment zerosMemory = Arguments.optional(device, "zeroPoints", zeroPoints, this.zeroPoints, 1, rows);
            Arguments.writable("scales", scalesMemory);
            Arguments.writable("zeroPoints", zerosMemory);
            int status = gatun_h.gtn_norm_run_quantized(
                    handle,
                    stream.handle,
                    rows,
                    x.memory,
                    residualMemory,
                    gamma.memory,
                    betaMemory,
                    out.memory,
                    scalesMemory,
                    zerosMemory,
                    sumMemory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        /**
         * Runs a plan without residual and sum.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param gamma F32 {@code [n]}
         * @param beta F32 {@code [n]} where the plan has beta, else null
         * @param out the output; it may be {@code x} where element type and strides are the same
         */
        public void run(Stream stream, Tensor x, Tensor gamma, @Nullable Tensor beta, Tensor out) {
            run(stream, x, null, gamma, beta, out, null);
        }
    }
}
