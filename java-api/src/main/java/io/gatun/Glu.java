package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_glu_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;

/**
 * Gated activation: {@code out = activation(gate) * x}, element by element, of the family of gated linear units (Shazeer
 * 2020, "GLU variants improve transformer"): SwiGLU with {@link Activation#SILU}, GEGLU with {@link Activation#GELU_ERF}
 * or {@link Activation#GELU_TANH}, ReGLU with {@link Activation#RELU}, the bilinear one with {@link Activation#NONE}.
 * Both factors and their product are FP32; the output is rounded once. The gate and {@code x} are two tensors, or the two
 * halves of one: {@code both.slice(1, 0, n)} and {@code both.slice(1, n, 2 * n)}. Immutable.
 */
public final class Glu {
    private final Activation activation;

    private Glu(Activation activation) {
        this.activation = activation;
    }

    /**
     * Describes a gated activation.
     *
     * @param activation the function of the gate
     * @return the description
     */
    public static Glu of(Activation activation) {
        if (activation == null) {
            throw new NullPointerException("activation");
        }
        return new Glu(activation);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param gate F32, BF16 or F16 {@code [rows, n]}, unit stride in n; the rows are the most that a run may have
     * @param x the shape and type of {@code gate}, unit stride in n
     * @param out F32, BF16 or F16, the shape of {@code gate}, unit stride in n
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec gate, TensorSpec x, TensorSpec out) {
        Arguments.rank("gate", gate, 2, "a matrix");
        Arguments.type("gate", gate, DType.F32, DType.BF16, DType.F16);
        Arguments.unitStride("gate", gate);
        Arguments.sameShape("x", x, "gate", gate);
        Arguments.type("x", x, gate.dtype());
        Arguments.unitStride("x", x);
        Arguments.sameShape("out", out, "gate", gate);
        Arguments.type("out", out, DType.F32, DType.BF16, DType.F16);
        Arguments.unitStride("out", out);
        return new Plan(device, this, gate, x, out);
    }

    /** A gated activation made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec gate;
        private final TensorSpec x;
        private final TensorSpec out;

        private Plan(Device device, Glu operator, TensorSpec gate, TensorSpec x, TensorSpec out) {
            super(
                    device,
                    "gate " + gate.dtype() + ", x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_glu_desc.allocate(arena);
                        gtn_glu_desc.size(desc, (int) gtn_glu_desc.sizeof());
                        gtn_glu_desc.activation(desc, operator.activation.code());
                        gate.write(gtn_glu_desc.gate(desc));
                        x.write(gtn_glu_desc.x(desc));
                        out.write(gtn_glu_desc.out(desc));
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_glu_plan(device.handle, desc, plan, message));
            this.gate = gate;
            this.x = x;
            this.out = out;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param gate what the activation is of, with at most the plan's rows
         * @param x what it multiplies, with as many rows
         * @param out the output, with as many rows; it may be {@code gate} or {@code x} where element type and strides
         *     are the same, and overlaps nothing else
         */
        public void run(Stream stream, Tensor gate, Tensor x, Tensor out) {
            check(stream);
            Arguments.input(device, "gate", gate, this.gate, 1);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long rows = gate.spec.size(0);
            Arguments.rows("x", x, rows);
            Arguments.rows("out", out, rows);
            int status = gatun_h.gtn_glu_run(handle, stream.handle, rows, gate.memory, x.memory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
