package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_norm_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Root-mean-square normalisation over the last dimension, with an optional fused residual: {@code h = x + residual};
 * {@code out = h / sqrt(mean h^2 + epsilon) * gamma}; {@code sum = h}. An output
 * of U8 is quantized as a {@link Gemm} of {@link DType#S8} would quantize the F32 output, each row to a scale and a zero
 * point of its own. Immutable.
 */
public final class RmsNorm {
    private final float epsilon;
    private final boolean residual;
    private final boolean sum;

    private RmsNorm(float epsilon, boolean residual, boolean sum) {
        this.epsilon = epsilon;
        this.residual = residual;
        this.sum = sum;
    }

    /**
     * Describes an RMS normalisation with gamma.
     *
     * @param epsilon finite, not negative
     * @return the description
     * @throws IllegalArgumentException if {@code epsilon} is not finite or negative
     */
    public static RmsNorm of(float epsilon) {
        LayerNorm.checkEpsilon(epsilon);
        return new RmsNorm(epsilon, false, false);
    }

    /**
     * Adds a residual to the input before it is normalised.
     *
     * @return a description with a residual
     */
    public RmsNorm residual() {
        return new RmsNorm(epsilon, true, sum);
    }

    /**
     * Writes the sum of input and residual, too.
     *
     * @return a description with that output
     */
    public RmsNorm sum() {
        return new RmsNorm(epsilon, residual, true);
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
        LayerNorm.checkSpecs(x, out);
        return new Plan(device, this, x, out);
    }

    /** An RMS normalisation made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;
        private final TensorSpec gamma;
        private final @Nullable TensorSpec residual;
        private final @Nullable TensorSpec sum;
        private final @Nullable TensorSpec scales;
        private final @Nullable TensorSpec zeroPoints;

        private Plan(Device device, RmsNorm norm, TensorSpec x, TensorSpec out) {
            // What is too large leaves no plan behind.
            TensorSpec scales = LayerNorm.scales(out);
            TensorSpec zeroPoints = LayerNorm.zeroPoints(out);
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_norm_desc.allocate(arena);
                        gtn_norm_desc.size(desc, (int) gtn_norm_desc.sizeof());
                        gtn_norm_desc.kind(desc, gatun_h.GTN_NORM_RMS());
                        x.write(gtn_norm_desc.x(desc));
                        out.write(gtn_norm_desc.out(desc));
                        gtn_norm_desc.epsilon(desc, norm.epsilon);
                        gtn_norm_desc.has_residual(desc, norm.residual ? 1 : 0);
                        gtn_norm_desc.has_sum(desc, norm.sum ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_norm_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
            this.gamma = TensorSpec.of(DType.F32, x.size(1));
            this.residual = norm.residual ? x : null;
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
         * @param out the output; it may be {@code x} or {@code residual} where element type and strides are the same
         * @param sum laid out and typed as the plan's {@code x}, where the plan has this output, else null; it may be
         *     {@code x} or {@code residual}
         */
        public void run(
                Stream stream,
                Tensor x,
                @Nullable Tensor residual,
                Tensor gamma,
                Tensor out,
                @Nullable Tensor sum) {
            launch(stream, x, residual, gamma, out, null, null, sum);
        }

        /**
         * Runs a plan whose output is U8: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param residual laid out and typed as the plan's {@code x}, where the plan has a residual, else null
         * @param gamma F32 {@code [n]}
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
                Tensor out,
                Tensor scales,
                Tensor zeroPoints,
                @Nullable Tensor sum) {
            launch(stream, x, residual, gamma, out, scales, zeroPoints, sum);
        }

        private void launch(
                Stream stream,
                Tensor x,
                @Nullable Tensor residual,
                Tensor gamma,
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
                    MemorySegment.NULL,
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
         * @param out the output; it may be {@code x} where element type and strides are the same
         */
        public void run(Stream stream, Tensor x, Tensor gamma, Tensor out) {
            run(stream, x, null, gamma, out, null);
        }
    }
}
