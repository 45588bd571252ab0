package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_activation_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/** Bias and activation: {@code out = activation(x + bias)}. Immutable. */
public final class BiasActivation {
    private final Activation activation;
    private final boolean bias;

    private BiasActivation(Activation activation, boolean bias) {
        this.activation = activation;
        this.bias = bias;
    }

    /**
     * Describes an activation without bias.
     *
     * @param activation the function
     * @return the description
     */
    public static BiasActivation of(Activation activation) {
        if (activation == null) {
            throw new NullPointerException("activation");
        }
        return new BiasActivation(activation, false);
    }

    /**
     * Adds a bias to the input.
     *
     * @return a description with a bias
     */
    public BiasActivation bias() {
        return new BiasActivation(activation, true);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32 or BF16 {@code [rows, n]}, unit stride in n; the rows are the most that a run may have
     * @param out F32 or BF16, the shape of {@code x}, unit stride in n
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec out) {
        Arguments.matrix("x", x);
        Arguments.matrix("out", out);
        Arguments.sameShape("out", out, "x", x);
        return new Plan(device, this, x, out);
    }

    /** A bias and activation made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;
        private final @Nullable TensorSpec bias;

        private Plan(Device device, BiasActivation operator, TensorSpec x, TensorSpec out) {
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_activation_desc.allocate(arena);
                        gtn_activation_desc.size(desc, (int) gtn_activation_desc.sizeof());
                        gtn_activation_desc.activation(desc, operator.activation.code());
                        x.write(gtn_activation_desc.x(desc));
                        out.write(gtn_activation_desc.out(desc));
                        gtn_activation_desc.has_bias(desc, operator.bias ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_activation_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
            this.bias = operator.bias ? TensorSpec.of(DType.F32, x.size(1)) : null;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param bias F32 {@code [n]} where the plan has a bias, else null
         * @param out the output, with as many rows; it may be {@code x} where element type and strides are the same
         */
        public void run(Stream stream, Tensor x, @Nullable Tensor bias, Tensor out) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long rows = x.spec.size(0);
            Arguments.rows("out", out, rows);
            MemorySegment biasMemory = Arguments.optional(device, "bias", bias, this.bias, 0, rows);
            int status = gatun_h.gtn_activation_run(handle, stream.handle, rows, x.memory, biasMemory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        /**
         * Runs a plan without bias.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param out the output, with as many rows
         */
        public void run(Stream stream, Tensor x, Tensor out) {
            run(stream, x, null, out);
        }
    }
}
