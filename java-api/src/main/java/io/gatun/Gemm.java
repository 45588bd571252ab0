package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_gemm_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Matrix multiplication by packed weights, with a fused epilogue:
 * {@code out[m, n] = activation(a[m, k] * w[k, n] + bias[n]) + residual[m, n]}. Immutable.
 *
 * <p>The format is that of the weights:
 * <ul>
 *   <li>{@link DType#F32}: FP32 throughout.
 *   <li>{@link DType#BF16}: {@code a} is rounded to BF16, ties to even; products and sums are FP32.
 *   <li>{@link DType#S8}: each row of {@code a} is quantized to 8 bits without sign: {@code lo = min(0, min x)},
 *       {@code hi = max(0, max x)}, {@code s = (hi - lo) / 255}, {@code z = rint(-lo / s)},
 *       {@code q = clamp(rint(x / s) + z, 0, 255)}. The sums are exact, which limits k to 66311; the epilogue is FP32.
 *       A row with a NaN, an infinity or a range that overflows gives a row of NaN.
 * </ul>
 */
public final class Gemm {
    private final DType format;
    private final boolean bias;
    private final boolean residual;
    private final Activation activation;

    private Gemm(DType format, boolean bias, boolean residual, Activation activation) {
        this.format = format;
        this.bias = bias;
        this.residual = residual;
        this.activation = activation;
    }

    /**
     * Describes a plain multiplication.
     *
     * @param format the format of the weights: F32, BF16 or S8
     * @return the description
     * @throws IllegalArgumentException if the format is another one
     */
    public static Gemm of(DType format) {
        PackedWeights.checkFormat(format);
        return new Gemm(format, false, false, Activation.NONE);
    }

    /**
     * Adds a bias to each row of the product.
     *
     * @return a description with a bias
     */
    public Gemm bias() {
        return new Gemm(format, true, residual, activation);
    }

    /**
     * Adds a residual to the output, after the activation.
     *
     * @return a description with a residual
     */
    public Gemm residual() {
        return new Gemm(format, bias, true, activation);
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
        return new Gemm(format, bias, residual, activation);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param a F32 or BF16 {@code [m, k]}, unit stride in k; m is the most rows that a run may have
     * @param out F32 or BF16 {@code [m, n]}, unit stride in n
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec a, TensorSpec out) {
        Arguments.matrix("a", a);
        Arguments.matrix("out", out);
        if (out.size(0) != a.size(0)) {
            throw Arguments.wrong("out", out, "the " + a.size(0) + " rows of a, which is " + a);
        }
        return new Plan(device, this, a, out);
    }

    /** A multiplication made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final DType format;
        private final TensorSpec a;
        private final TensorSpec out;
        private final @Nullable TensorSpec bias;
        private final @Nullable TensorSpec residual;
        private final long k;
        private final long n;

        private Plan(Device device, Gemm gemm, TensorSpec a, TensorSpec out) {
            super(
                    device,
                    arena -> {
                        MemorySegment desc = gtn_gemm_desc.allocate(arena);
                        gtn_gemm_desc.size(desc, (int) gtn_gemm_desc.sizeof());
                        gtn_gemm_desc.format(desc, gemm.format.code());
                        a.write(gtn_gemm_desc.a(desc));
                        out.write(gtn_gemm_desc.out(desc));
                        gtn_gemm_desc.activation(desc, gemm.activation.code());
                        gtn_gemm_desc.has_bias(desc, gemm.bias ? 1 : 0);
                        gtn_gemm_desc.has_residual(desc, gemm.residual ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_gemm_plan(device.handle, desc, plan, message));
            this.format = gemm.format;
            this.a = a;
            this.out = out;
            this.k = a.size(1);
            this.n = out.size(1);
            this.bias = gemm.bias ? TensorSpec.of(DType.F32, n) : null;
            this.residual = gemm.residual ? out : null;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown.
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
            check(stream);
            check(weights);
            Arguments.input("a", a, this.a, 1);
            Arguments.output("out", out, this.out, 1);
            long rows = a.spec.size(0);
            Arguments.rows("out", out, rows);
            MemorySegment biasMemory = Arguments.optional("bias", bias, this.bias, 0, rows);
            MemorySegment residualMemory = Arguments.optional("residual", residual, this.residual, 1, rows);
            int status = gatun_h.gtn_gemm_run(
                    handle, stream.handle, weights.handle, rows, a.memory, biasMemory, residualMemory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            Reference.reachabilityFence(weights);
            if (status != 0) {
                throw failure(status, stream, weights);
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
            if (weights.k != k || weights.n != n || weights.format != format || weights.device != device) {
                throw new IllegalArgumentException("weights: " + weights + ", expected " + format + "[" + k + ", " + n
                        + "] packed for the plan's " + device);
            }
        }
    }
}
